/* SPDX-License-Identifier: Apache-2.0 */
/* What a caller does by itself: probe, pin, copy, unpin. No queue, and no system call. */
#include <errno.h>

#include "base/copy.h"
#include "base/hot.h"
#include "stages/cache/cache.h"
#include "stages/cache/pins.h"

/* The chunk of a block of one shard says where its payload lies: it is asked for ahead. */
HIT_PATH static void ask_shard(const struct cache_map *map, uint32_t entry)
{
	uint32_t chunk = slot_chunk(shard_slot(word_hint(&map->entries[entry].only.word)));

	if (chunk < map->chunk_count)
		__builtin_prefetch(&map->chunks[chunk]);
}

/*
 * The entry of @key, pinned in a record of its own, for longer than this call where it @stays;
 * false: not in memory. After a pause others' data lies in the caches: what a hit touches is
 * asked for at once then, and not a line after the other.
 */
HIT_PATH static bool find_and_pin(struct cache_stage *stage, const struct cairn_ns_view *ns,
				  const struct cairn_key *key, bool stays, uint32_t *ret_record,
				  struct cache_ref *ret_ref, int *ret_error)
{
	struct cache_key mine;

	*ret_error = -ENOENT;
	pin_ask(stage->map);
	__builtin_prefetch(&stage->map->header->clock, 1);
	__builtin_prefetch(&stage->env->counters[CC_HITS], 1);
	if (!cache_key(stage, ns, key, &mine))
		return false;
	pin_ask_record(stage->map);
	*ret_ref = cached_find_cold(stage->map, &mine);
	if (ret_ref->entry == CACHE_NONE || state_kind(ret_ref->state) == KIND_HIDDEN)
		return false;
	ask_shard(stage->map, ret_ref->entry);
	*ret_record = stays ? pin_take_long(stage->map) : pin_take(stage->map);
	if (*ret_record == CACHE_NONE) {
		*ret_error = -EAGAIN;
		return false;
	}
	if (pin_entry(stage->map, *ret_record, ret_ref)) {
		if (!(short_hint(&stage->map->entries[ret_ref->entry].flags) & ENTRY_EXPIRES) ||
		    !cache_expired(stage, ret_ref->entry))
			return true;
	}
	pin_give(stage->map, *ret_record);
	return false;
}

HIT_PATH static void let_go(struct cache_stage *stage, uint32_t record, uint32_t entry)
{
	pin_give(stage->map, record);
	background_reclaim(stage, entry);
}

HIT_PATH static void copy_out(const struct cairn_xfer *xfer, const uint8_t *from)
{
	const struct cairn_stride *stride = &xfer->stride;

	for (uint32_t i = 0; i < xfer->segment_count; i++) {
		copy_cold(xfer->segments[i].base, from, xfer->segments[i].length);
		from += xfer->segments[i].length;
	}
	for (uint64_t i = 0; xfer->segment_count == 0 && i < stride->count; i++)
		copy_cold((uint8_t *)stride->base + i * stride->stride, from + i * stride->run,
			  stride->run);
}

HIT_PATH int cache_serve(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *xfer)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct cache_view view;
	struct cache_ref ref;
	uint32_t record;
	int ret = -EAGAIN, error;

	/* With checks at each hit the reactors share the work. */
	if (stage->verify_hits ||
	    !find_and_pin(stage, ns, &xfer->key, false, &record, &ref, &error))
		return -EAGAIN;
	if (shard_view(stage->map, ref.entry, xfer->shard, &view) && xfer->offset < view.stored &&
	    xfer->length <= view.stored - xfer->offset && tail_fresh(stage, &view)) {
		copy_out(xfer, view.payload + xfer->offset);
		cache_touch(stage, ref.entry, cache_tick(stage));
		cairn_count(stage->env, CC_HITS, 1);
		ret = 0;
	}
	let_go(stage, record, ref.entry);
	return ret;
}

HIT_PATH int cache_pin(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
		       uint32_t shard, struct cairn_pinned *ret_pinned)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct cache_view view;
	struct cache_ref ref;
	uint32_t record;
	int error;

	if (!find_and_pin(stage, ns, key, true, &record, &ref, &error))
		return error;
	if (!shard_view(stage->map, ref.entry, shard, &view)) {
		let_go(stage, record, ref.entry);
		return -ENOENT;
	}
	if (!tail_sound(stage, &view)) {
		cache_damaged(stage, ref.entry, state_life(ref.state));
		let_go(stage, record, ref.entry);
		return -ENOENT;
	}
	cache_touch(stage, ref.entry, word_hint(&stage->map->header->clock));
	*ret_pinned = (struct cairn_pinned){
		.base = stage->map->lent + (view.payload - stage->map->payload),
		.length = view.stored,
		.pin = (uint64_t)state_life(ref.state) << 32 | (record + 1ull),
	};
	return 0;
}

HIT_PATH int cache_unpin(void *self, uint64_t pin)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	uint32_t record = (uint32_t)pin - 1;
	uint64_t link;

	if (record >= stage->map->pins_max)
		return -EINVAL;
	link = word_hint(&stage->map->my_pins[record]);
	/* Once only, whoever else gives it back at the same time. */
	if (link == 0 || link_life(link) != (uint32_t)(pin >> 32) ||
	    link_entry(link) >= stage->map->entry_count ||
	    !word_cas(&stage->map->my_pins[record], link, 0))
		return -EINVAL;
	let_go(stage, record, link_entry(link));
	return 0;
}
