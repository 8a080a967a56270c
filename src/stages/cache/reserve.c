/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reservations: shards that are FILLING by hand. Each has a pin of its own, so that it
 * outlives the calls; a commit is a dump that finds the bytes in place.
 */
#include <errno.h>
#include <string.h>

#include "stages/cache/cache.h"
#include "stages/cache/pins.h"
#include "stages/cache/slots.h"

#define RESERVATIONS_MAX 1024u /* at once; more is backpressure */

int reserve_init(struct cache_stage *stage)
{
	stage->reservations =
		sys_zalloc(stage->sys, 64, RESERVATIONS_MAX * sizeof(*stage->reservations));
	if (!stage->reservations)
		return -ENOMEM;
	if (pthread_mutex_init(&stage->reserve_lock, NULL) == 0)
		return 0;
	stage->sys->free(stage->reservations);
	return -ENOMEM;
}

void reserve_fini(struct cache_stage *stage)
{
	for (uint32_t i = 0; i < RESERVATIONS_MAX; i++)
		if (stage->reservations[i].base)
			reservation_end(stage, stage->reservations[i].base, false);
	pthread_mutex_destroy(&stage->reserve_lock);
	stage->sys->free(stage->reservations);
}

/* Locked: the place of @base in the table, or of a free one; NULL: none. */
static struct reservation *find(struct cache_stage *stage, const void *base)
{
	for (uint32_t i = 0; i < RESERVATIONS_MAX; i++)
		if (stage->reservations[i].base == base)
			return &stage->reservations[i];
	return NULL;
}

static bool lies_here(const struct cache_stage *stage, const void *base)
{
	const uint8_t *at = base;
	uint64_t bytes = stage->map->chunk_count * stage->map->chunk_bytes;

	return at >= stage->map->payload && at < stage->map->payload + bytes &&
	       half_get(&stage->reservation_count) > 0;
}

static void let_go(struct cache_stage *stage, const struct reservation *reservation, bool published)
{
	if (!published)
		shard_abandon(stage->map, &reservation->place);
	pin_give(stage->map, reservation->record);
	background_reclaim(stage, reservation->place.entry);
	if (reclaim_bare(stage->map, reservation->place.entry, reservation->place.life))
		background_changed(stage);
}

void reservation_end(struct cache_stage *stage, void *base, bool published)
{
	struct reservation *at, was = {0};

	if (!lies_here(stage, base))
		return;
	pthread_mutex_lock(&stage->reserve_lock);
	at = find(stage, base);
	if (at) {
		was = *at;
		at->base = NULL;
		half_add(&stage->reservation_count, UINT32_MAX);
	}
	pthread_mutex_unlock(&stage->reserve_lock);
	if (was.base)
		let_go(stage, &was, published);
}

bool reservation_of(struct cache_stage *stage, const struct cairn_part *part,
		    struct reservation *ret_reservation)
{
	const struct reservation *at;

	if (part->iov_count != 1 || !lies_here(stage, part->iov[0].iov_base))
		return false;
	pthread_mutex_lock(&stage->reserve_lock);
	at = find(stage, part->iov[0].iov_base);
	if (at)
		*ret_reservation = *at;
	pthread_mutex_unlock(&stage->reserve_lock);
	return at && ret_reservation->length == part->length;
}

static bool keep(struct cache_stage *stage, const struct reservation *reservation)
{
	struct reservation *at;

	pthread_mutex_lock(&stage->reserve_lock);
	at = find(stage, NULL);
	if (at) {
		*at = *reservation;
		half_add(&stage->reservation_count, 1);
	}
	pthread_mutex_unlock(&stage->reserve_lock);
	return at != NULL;
}

/* The shard, FILLING by this process in a slot of its own; or why not. */
static int claim(struct cache_stage *stage, const struct cairn_xfer *xfer, struct cache_io *own)
{
	struct cache_place *place = &own->places[0];
	uint64_t word = shard_look(stage->map, own->entry, xfer->shard);

	if (shard_state(word) == SHARD_THERE)
		return CAIRN_PRESENT;
	*place = (struct cache_place){.entry = own->entry, .life = own->life, .shard = xfer->shard};
	if (shard_state(word) == SHARD_FILLING && shard_owner(word) != stage->map->owner)
		background_kick(stage, true); /* who makes it may be dead */
	if (shard_state(word) == SHARD_FILLING || !take_slot(stage, xfer->length, 0, &place->slot))
		return -EAGAIN;
	if (shard_claim(stage->map, place))
		return 0;
	slots_give(stage->map, place->slot);
	return -EAGAIN;
}

int cache_reserve(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *shape,
		  struct cairn_reserved *ret_reserved)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	uint64_t count = ns->shard_count ? ns->shard_count : shape->shard_count;
	uint64_t bytes = ns->shard_count ? ns->shard_bytes : shape->shard_bytes;
	struct cache_shape made = {KIND_HIDDEN, (uint32_t)count, (uint32_t)bytes};
	struct cairn_io io = {.op = CAIRN_OP_DUMP, .key = shape->key, .ns = ns};
	struct cache_io own = {.record = CACHE_NONE, .entry = CACHE_NONE};
	struct reservation reservation;
	int ret;

	if (shard_bytes_needed(shape->length, 0, stage->tails) > stage->map->chunk_bytes ||
	    count * bytes > stage->largest_block)
		return -EFBIG;
	if (shape->attr)
		io.attr = *shape->attr;
	own.record = pin_take_long(stage->map);
	if (own.record == CACHE_NONE || !io_entry(stage, &io, &own, &made))
		return -EAGAIN;
	ret = claim(stage, shape, &own);
	if (ret != 0) {
		io_leave(stage, &own);
		return ret;
	}
	reservation = (struct reservation){
		.base = map_payload(stage->map, own.places[0].slot),
		.length = shape->length,
		.record = own.record,
		.place = own.places[0],
	};
	if (!keep(stage, &reservation)) {
		let_go(stage, &reservation, false);
		return -EAGAIN;
	}
	*ret_reserved = (struct cairn_reserved){reservation.base, reservation.length};
	return 0;
}

int cache_reserved(void *self, const struct cairn_xfer *xfer)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	bool segment = xfer->segment_count == 1 && xfer->segments;
	struct iovec iov = {segment ? xfer->segments[0].base : xfer->stride.base, xfer->length};
	struct cairn_part part = {.iov = &iov, .iov_count = 1, .length = xfer->length};
	struct reservation reservation;

	if (!segment && (xfer->segment_count != 0 || xfer->stride.count != 1))
		return -EINVAL;
	return reservation_of(stage, &part, &reservation) ? 0 : -EINVAL;
}

int cache_abort(void *self, void *base)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct reservation *at = NULL;

	if (!base || !lies_here(stage, base))
		return -EINVAL;
	pthread_mutex_lock(&stage->reserve_lock);
	at = find(stage, base);
	pthread_mutex_unlock(&stage->reserve_lock);
	if (!at)
		return -EINVAL;
	reservation_end(stage, base, false);
	return 0;
}
