/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads: what is there is copied; what is not is brought up from below and put into a slot,
 * once for all who ask, or, where there is no room or the filler does not get on,
 * goes from below to the caller and is not kept.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/iov.h"
#include "stages/cache/cache.h"
#include "stages/cache/slots.h"

#define WAIT_NS 50000000u /* for another's fill; then the shard is loaded beside it */

#define BIT(i) (UINT64_C(1) << (i))

/* Metadata is of stages above this one. */
static uint32_t meta_room(const struct cache_stage *stage)
{
	return stage->env->index > 0 ? CAIRN_META_MAX : 0;
}

/* ---- hits ---------------------------------------------------------------------- */

static void describe(const struct cache_view *view, struct cairn_part *part)
{
	part->raw_length = view->raw;
	part->stored_length = view->stored;
	part->meta_length = (uint16_t)view->meta;
	if (view->meta > 0)
		memcpy(part->meta, tail_of(view->payload, view->stored)->meta, view->meta);
}

static void give_crcs(const struct cache_view *view, struct cairn_part *part)
{
	struct iovec whole = {view->payload, view->stored};
	uint32_t pieces = (view->stored + CAIRN_PIECE - 1) / CAIRN_PIECE;

	if (part->crc && part->crc_count >= pieces)
		crc32c_pieces(&whole, 1, 0, view->stored, CAIRN_PIECE, part->crc);
}

int load_hit(struct cache_stage *stage, uint32_t entry, struct cairn_part *part)
{
	struct cache_view view;

	if (!shard_view(stage->map, entry, part->shard, &view))
		return -ENOENT;
	if (view.meta > CAIRN_META_MAX ||
	    (view.meta > 0 &&
	     !map_slot_ok(stage->map, view.slot, shard_bytes_needed(view.stored, view.meta, true))))
		return -EBADMSG;
	if (part->length == 0 || part->offset >= view.stored ||
	    part->length > view.stored - part->offset)
		return -EINVAL;
	if (!tail_sound(stage, &view))
		return -EBADMSG;
	copy_to_iov(part->iov, part->iov_count, view.payload + part->offset);
	describe(&view, part);
	give_crcs(&view, part);
	return 0;
}

/* ---- fills ---------------------------------------------------------------------- */

static void save(struct cache_io *own, struct cairn_part *part, uint32_t i)
{
	own->saved[i] = (struct cache_saved){
		.iov = part->iov,
		.iov_count = part->iov_count,
		.crc_count = part->crc_count,
		.offset = part->offset,
		.length = part->length,
		.crc = part->crc,
	};
}

static void restore(const struct cache_io *own, struct cairn_part *part, uint32_t i)
{
	const struct cache_saved *saved = &own->saved[i];

	part->iov = saved->iov;
	part->iov_count = saved->iov_count;
	part->offset = saved->offset;
	part->length = saved->length;
	part->crc = saved->crc;
	part->crc_count = saved->crc_count;
}

/*
 * The part asks below for the whole shard, to be put into a slot of this io's: it comes straight
 * there, and what the caller asked is copied out. Where that is all of it, and the caller's memory
 * is good for I/O or the region's is not, it comes into the caller's, and is copied from there.
 */
static bool fill_begin(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		       uint32_t i)
{
	bool all = part->offset == 0 && part->length == part->stored_length;
	struct cache_place *place = &own->places[i];

	*place = (struct cache_place){.entry = own->entry, .life = own->life, .shard = part->shard};
	if (!take_slot(stage, part->stored_length, meta_room(stage), &place->slot))
		return false;
	if (!shard_claim(stage->map, place)) {
		slots_give(stage->map, place->slot);
		return false;
	}
	save(own, part, i);
	own->own[i] = (struct iovec){map_payload(stage->map, place->slot), part->stored_length};
	own->filling |= BIT(i);
	if (all && (own->aimed || !region_is_huge(&stage->region)))
		return true;
	own->straight |= BIT(i);
	part->iov = &own->own[i];
	part->iov_count = 1;
	part->offset = 0;
	part->length = part->stored_length;
	return true;
}

static bool fill_end(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		     uint32_t i)
{
	struct cache_place *place = &own->places[i];
	uint8_t *payload = own->own[i].iov_base;
	bool kept = part->status == 0 && part->stored_length == part->length;
	bool straight = own->straight & BIT(i);

	if (kept && !straight)
		iov_gather_cold(part->iov, part->iov_count, 0, part->length, payload);
	if (kept)
		tail_seal(stage, part, payload);
	kept = kept && shard_publish(stage->map, place, (uint32_t)part->raw_length,
				     (uint32_t)part->stored_length, part->meta_length);
	if (part->status == 0 && straight) /* the tier below has just summed it: it is not cold */
		iov_scatter(own->saved[i].iov, own->saved[i].iov_count, 0, own->saved[i].length,
			    payload + own->saved[i].offset);
	if (!kept)
		shard_abandon(stage->map, place);
	cairn_count(stage->env, kept ? CC_FILLS : CC_FILL_FAILED, 1);
	return kept;
}

/* ---- an io's way ------------------------------------------------------------------ */

/*
 * What is to be made for a block of which nothing is there, and how long its shards are
 * stored, where the namespace does not say. False: nobody knows.
 */
static bool shape_of(const struct cache_stage *stage, const struct cairn_io *io,
		     struct cache_shape *ret_shape)
{
	struct cairn_probe probe = {
		.shard_count = io->ns->shard_count,
		.shard_bytes = io->ns->shard_bytes,
		.last_bytes = io->ns->shard_bytes,
	};

	if (io->ns->shard_count == 0 &&
	    !stage_env(stage->env)->probe_below(stage->env, io->ns, &io->key, &probe))
		return false;
	*ret_shape =
		(struct cache_shape){KIND_PART, probe.shard_count, (uint32_t)probe.shard_bytes};
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status == CAIRN_PENDING && part->stored_length == 0)
			part->stored_length = part->shard + 1 == probe.shard_count
						      ? probe.last_bytes
						      : probe.shard_bytes;
	}
	return true;
}

static bool fillable(const struct cache_stage *stage, const struct cairn_io *io,
		     const struct cache_io *own, const struct cairn_part *part)
{
	return stage->env->below > 0 && part->stored_length > 0 &&
	       shard_bytes_needed(part->stored_length, meta_room(stage), stage->tails) <=
		       stage->map->chunk_bytes &&
	       part->length <= part->stored_length &&
	       part->offset <= part->stored_length - part->length &&
	       !(io->flags & CAIRN_IO_PARTIAL) && own->tries < 4;
}

/* No record is free to pin it in, and what is here is nowhere else: it is waited for. */
static bool must_wait(struct cache_stage *stage, struct cache_io *own, const struct cache_ref *ref)
{
	return ref->entry != CACHE_NONE && state_kind(ref->state) != KIND_HIDDEN &&
	       (stage->env->below == 0 || state_dirty(ref->state)) && !io_record(stage, own);
}

/*
 * The entry of the block, pinned; made if it is to be filled. False: all goes below, or
 * waits.
 */
static bool find_entry(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
		       bool *ret_wait)
{
	struct cache_shape shape;
	struct cache_key key;
	struct cache_ref ref;
	bool gone;

	if (!cache_key(stage, io->ns, &io->key, &key))
		return false;
	ref = cached_find(stage->map, &key);
	*ret_wait = must_wait(stage, own, &ref);
	if (*ret_wait)
		return false;
	if (ref.entry != CACHE_NONE && io_pin(stage, own, &ref)) {
		if (!cache_expired(stage, own->entry)) {
			io_parent(stage, io, own, &key);
			if (stage->env->below > 0 && io->ns->shard_count == 0 &&
			    state_kind(ref.state) == KIND_PART)
				shape_of(stage, io, &shape);
			return state_kind(ref.state) != KIND_HIDDEN;
		}
		gone = entry_remove(stage->map, &ref);
		io_unpin(stage, own);
		if (!gone && state_flying(word_get(&stage->map->entries[ref.entry].state)))
			return false; /* in flight, it stays a while, and is not served */
	}
	if (stage->env->below == 0 || (io->flags & CAIRN_IO_PARTIAL))
		return false;
	return shape_of(stage, io, &shape) && io_entry(stage, io, own, &shape) &&
	       state_kind(word_get(&stage->map->entries[own->entry].state)) != KIND_HIDDEN;
}

static void load_part(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
		      uint32_t i)
{
	struct cairn_part *part = &io->parts[i];
	uint64_t word = shard_look(stage->map, own->entry, part->shard);
	int ret;

	switch (shard_state(word)) {
	case SHARD_THERE:
		ret = load_hit(stage, own->entry, part);
		if (ret == -EBADMSG) {
			cache_damaged(stage, own->entry, own->life);
			break; /* as if it were not there */
		}
		part->status = ret;
		cairn_count(stage->env, CC_HITS, ret == 0);
		return;
	case SHARD_FILLING:
		if (own->began_ns == 0 || stage->host->now_ns() - own->began_ns < WAIT_NS) {
			own->waiting |= BIT(i);
			return;
		}
		background_kick(stage, true); /* its filler may be dead */
		break;
	case SHARD_ABSENT:
		if (part->shard < short_hint(&stage->map->entries[own->entry].shard_count) &&
		    fillable(stage, io, own, part) && fill_begin(stage, own, part, i))
			return;
		break;
	}
	own->apart |= BIT(i);
}

static void finish(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	io_leave(stage, own); /* absent is absent: nothing of a failed load is left behind */
	stage->host->complete(io);
}

static uint64_t pending_parts(const struct cairn_io *io)
{
	uint64_t pending = 0;

	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			pending |= BIT(i);
	return pending;
}

static void load_look(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	uint64_t pending = pending_parts(io);
	bool wait = false, found = find_entry(stage, io, own, &wait);

	if (found)
		cache_touch(stage, own->entry, cache_tick(stage));
	for (uint32_t i = 0; i < io->part_count; i++) {
		if (!(pending & BIT(i)))
			continue;
		if (found)
			load_part(stage, io, own, i);
		else if (wait)
			own->waiting |= BIT(i);
		else
			own->apart |= BIT(i);
	}
}

/* True: it is below, and may be over by now. */
static bool load_down(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	if (stage->env->below == 0) {
		for (uint32_t i = 0; i < io->part_count; i++)
			if (own->apart & BIT(i))
				io->parts[i].status = -ENOENT;
		cairn_count(stage->env, CC_MISSES, (uint64_t)__builtin_popcountll(own->apart));
		own->apart = 0;
		return false;
	}
	cairn_count(stage->env, CC_PRIVATE, (uint64_t)__builtin_popcountll(own->apart));
	cairn_count(stage->env, CC_MISSES,
		    (uint64_t)__builtin_popcountll(own->apart | own->filling));
	/* Those that wait stay here: nobody below acts on what is not pending. */
	for (uint32_t i = 0; i < io->part_count; i++)
		if (own->waiting & BIT(i))
			io->parts[i].status = -EAGAIN;
	own->down = true;
	own->tries++;
	/* Iovs of parts that go their own way may be those of a stage above. */
	if (region_is_huge(&stage->region) && !(own->apart && stage->env->index > 0))
		io->flags |= CAIRN_IO_AIM_OWN;
	stage->host->forward(io);
	return true;
}

static void load_go(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	own->filling = 0;
	own->straight = 0;
	own->waiting = 0;
	own->apart = 0;
	load_look(stage, io, own);
	if ((own->filling | own->apart) && load_down(stage, io, own))
		return;
	if (!own->waiting) {
		finish(stage, io, own);
	} else if (io_late(stage, io)) {
		cairn_io_fail(io, -ETIMEDOUT);
		finish(stage, io, own);
	} else {
		cairn_count(stage->env, CC_WAITS, own->entry != CACHE_NONE);
		io_pause(stage, io, own);
	}
}

void load_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	own->aimed = io->flags & CAIRN_IO_AIMABLE; /* that of those below may be another */
	load_go(stage, io, own);
}

void load_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	bool whole_below = false;

	own->down = false;
	io_expires(stage, io, own);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (own->waiting & BIT(i)) {
			part->status = CAIRN_PENDING;
			continue;
		}
		whole_below |= ((own->apart | own->filling) & BIT(i)) && part->status == 0;
		if (!(own->filling & BIT(i)))
			continue;
		fill_end(stage, own, part, i);
		restore(own, part, i);
		/* What was thought of its length is wrong: once more, as the caller asked. */
		if (part->status == -EINVAL)
			part->status = CAIRN_PENDING;
	}
	if (whole_below && own->entry != CACHE_NONE)
		entry_unhide(stage->map, own->entry, own->life);
	if (pending_parts(io)) {
		if (!own->waiting)
			own->tries = 4; /* nothing is filled any more */
		load_go(stage, io, own);
		return;
	}
	finish(stage, io, own);
}

void load_describe(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_key key;
	struct cache_ref ref = {CACHE_NONE, 0};
	struct cache_view view;
	bool found;

	if (cache_key(stage, io->ns, &io->key, &key))
		ref = cached_find(stage->map, &key);
	if (must_wait(stage, own, &ref) && !io_late(stage, io)) {
		io_pause(stage, io, own);
		return;
	}
	found = ref.entry != CACHE_NONE && state_kind(ref.state) != KIND_HIDDEN &&
		io_pin(stage, own, &ref) && !cache_expired(stage, own->entry);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (found && shard_view(stage->map, own->entry, part->shard, &view) &&
		    view.meta <= CAIRN_META_MAX &&
		    map_slot_ok(stage->map, view.slot,
				shard_bytes_needed(view.stored, view.meta, stage->tails)) &&
		    tail_sound(stage, &view)) {
			describe(&view, part);
			give_crcs(&view, part);
			part->status = 0;
		} else if (stage->env->below == 0) {
			part->status = -ENOENT;
		}
	}
	io_leave(stage, own);
	if (pending_parts(io)) {
		own->down = true;
		stage->host->forward(io);
	} else {
		stage->host->complete(io);
	}
}
