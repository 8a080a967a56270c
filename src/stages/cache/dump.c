/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps and removes. An io has some shards of one block: all are copied into slots, then the io
 * goes below, which writes them out of the caller's memory. So it is ios that overlap: while one
 * is written the next is copied, of the same block where the tier below asks for small ones
 * (split_dumps() of core/stage_env.h). A shard is there, for all processes,
 * when the tier below has taken it: blocks are written once, and who came first is decided
 * there. A dump that is held back is there when it is copied; flush.c writes it below.
 */
#include <errno.h>

#include "base/iov.h"
#include "stages/cache/cache.h"
#include "stages/cache/slots.h"
#include "stages/dump_check.h"

#define BIT(i) (UINT64_C(1) << (i))

/* ---- what may be kept ------------------------------------------------------------ */

/* Blocks that would push everything else out pass by, or are refused. */
static bool too_large(const struct cache_stage *stage, const struct cairn_io *io,
		      const struct cairn_part *part)
{
	return shard_bytes_needed(part->stored_length, part->meta_length, stage->tails) >
		       stage->map->chunk_bytes ||
	       io->shard_count * io->shard_bytes > stage->largest_block;
}

/* The length of the last shard counts as soon as both sides know it. */
static bool same_geometry(const struct cache_stage *stage, const struct cairn_io *io,
			  const struct cairn_part *part, uint32_t entry)
{
	const struct cache_entry *at = &stage->map->entries[entry];
	uint32_t last_bytes = half_hint(&at->last_bytes);

	if (short_hint(&at->shard_count) != io->shard_count ||
	    half_hint(&at->shard_bytes) != io->shard_bytes)
		return false;
	return part->shard + 1 < io->shard_count || last_bytes == 0 ||
	       last_bytes == part->raw_length;
}

/* ---- a part -------------------------------------------------------------------------- */

/* Is the part made in place, for this block as it is now? */
static bool made_here(struct cache_stage *stage, const struct cache_io *own,
		      const struct cairn_part *part, struct reservation *ret_made)
{
	return reservation_of(stage, part, ret_made) && ret_made->place.entry == own->entry &&
	       ret_made->place.life == own->life && ret_made->place.shard == part->shard;
}

/*
 * Takes the bytes into a slot. 0, or -EAGAIN: another has the shard, or there is no memory
 * just now.
 */
static int take_in(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		   uint32_t i)
{
	struct cache_place *place = &own->places[i];
	struct reservation made;
	uint8_t *payload;

	*place = (struct cache_place){.entry = own->entry, .life = own->life, .shard = part->shard};
	if (made_here(stage, own, part, &made)) {
		*place = made.place;
		own->in_place |= BIT(i);
	} else if (!take_slot(stage, part->stored_length, part->meta_length, &place->slot)) {
		return -EAGAIN;
	} else if (!shard_claim(stage->map, place)) {
		slots_give(stage->map, place->slot);
		return -EAGAIN;
	}
	payload = map_payload(stage->map, place->slot);
	if (!(own->in_place & BIT(i)))
		iov_gather_cold(part->iov, part->iov_count, 0, part->stored_length, payload);
	tail_seal(stage, part, payload);
	own->own[i] = (struct iovec){payload, part->stored_length};
	return 0;
}

/*
 * The bytes are kept, or given up: those that a tier below did not take as this dump's are
 * not the block's. 0, or -ESTALE: the block was removed meanwhile.
 */
static int settle(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		  uint32_t i, bool keep)
{
	struct cache_place *place = &own->places[i];
	bool in_place = own->in_place & BIT(i);
	bool kept = keep && shard_publish(stage->map, place, (uint32_t)part->raw_length,
					  (uint32_t)part->stored_length, part->meta_length);

	if (kept)
		cairn_count(stage->env, CC_DUMPED, 1);
	if (kept && in_place)
		reservation_end(stage, own->own[i].iov_base, true);
	else if (!kept && !in_place)
		shard_abandon(stage->map, place);
	return state_lives(word_get(&stage->map->entries[own->entry].state)) ? 0 : -ESTALE;
}

/* Absent, or being made in place by who dumps it now. */
static bool may_take(struct cache_stage *stage, const struct cairn_part *part, uint64_t word)
{
	struct reservation made;

	return shard_state(word) == SHARD_ABSENT ||
	       (shard_state(word) == SHARD_FILLING && shard_owner(word) == stage->map->owner &&
		reservation_of(stage, part, &made) && made.place.slot == shard_slot(word));
}

/* A part of a dump that this tier alone takes. */
static void dump_alone(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		       uint32_t i)
{
	uint64_t word = shard_look(stage->map, own->entry, part->shard);
	int ret;

	if (shard_state(word) == SHARD_THERE) {
		part->status = CAIRN_PRESENT;
		cairn_count(stage->env, CC_ALREADY, 1);
		return;
	}
	ret = may_take(stage, part, word) ? take_in(stage, own, part, i) : -EAGAIN;
	if (ret == -EAGAIN)
		own->waiting |= BIT(i);
	else
		part->status = settle(stage, own, part, i, true);
}

static void dump_both(struct cache_stage *stage, struct cache_io *own, struct cairn_part *part,
		      uint32_t i)
{
	uint64_t word = shard_look(stage->map, own->entry, part->shard);

	if (may_take(stage, part, word) && take_in(stage, own, part, i) == 0)
		own->filling |= BIT(i);
	else
		cairn_count(stage->env, CC_BYPASSED, shard_state(word) != SHARD_THERE);
}

/* ---- held back ------------------------------------------------------------------------ */

static enum cache_write write_of(const struct cache_stage *stage, const struct cairn_io *io)
{
	if (stage->env->below == 0)
		return WRITE_THROUGH;
	if (io->flags & CAIRN_IO_WRITE_THROUGH)
		return WRITE_THROUGH;
	if (io->flags & CAIRN_IO_WRITE_BACK)
		return WRITE_BACK;
	return io->flags & CAIRN_IO_WRITE_AROUND ? WRITE_AROUND : stage->write;
}

/*
 * Only a block that is dumped whole, by one io, is held back: so no block lies here in part
 * and below in part. One that is below has its answer there.
 */
static bool may_hold_back(struct cache_stage *stage, const struct cairn_io *io)
{
	struct cairn_probe probe;

	if (!stage->flush || io->durability > CAIRN_MEMORY || write_of(stage, io) != WRITE_BACK ||
	    io->part_count != io->shard_count)
		return false;
	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].status != CAIRN_PENDING || io->parts[i].meta_length > 0)
			return false;
	return flush_room(stage, io->shard_count * io->shard_bytes) &&
	       !stage_env(stage->env)->probe_below(stage->env, io->ns, &io->key, &probe);
}

/* All is copied: it is there, and the dump over. */
static void hold_back(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	flags_raise(&stage->map->entries[own->entry].flags, ENTRY_BACK);
	for (uint32_t i = 0; i < io->part_count; i++) {
		settle(stage, own, &io->parts[i], i, true);
		io->parts[i].status = 0; /* be it that somebody has removed it since */
	}
	own->filling = 0;
	cairn_count(stage->env, CC_HELD_BACK, 1);
	flush_add(stage, io, own->entry, own->life);
}

/* The block, where it is here and not yet below: be it that this store would hold none back. */
static bool find_dirty(const struct cache_stage *stage, const struct cairn_io *io,
		       struct cache_ref *ret_ref)
{
	struct cache_key key;

	if (!cache_key(stage, io->ns, &io->key, &key))
		return false;
	*ret_ref = cached_find(stage->map, &key);
	return ret_ref->entry != CACHE_NONE && state_dirty(ret_ref->state);
}

/* ---- an io --------------------------------------------------------------------------- */

static bool check_parts(struct cache_stage *stage, struct cairn_io *io, bool *ret_large)
{
	bool pending = false;

	*ret_large = false;
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (stage->env->below == 0 && io->durability > CAIRN_MEMORY)
			part->status = -EOPNOTSUPP;
		else if (dump_part_check(io, part) < 0)
			part->status = -EINVAL;
		else if (too_large(stage, io, part) && stage->env->below == 0)
			part->status = -EFBIG;
		if (part->status != CAIRN_PENDING) {
			cairn_count(stage->env, CC_REFUSED, 1);
			continue;
		}
		*ret_large |= too_large(stage, io, part);
		pending = true;
	}
	return pending;
}

static void dump_finish(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	/* What was made in place, and is there by other hands, is not needed any more. */
	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].status >= 0 && io->parts[i].iov_count == 1)
			reservation_end(stage, io->parts[i].iov[0].iov_base, false);
	io_leave(stage, own);
	stage->host->complete(io);
}

static void dump_down(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	own->down = true;
	stage->host->forward(io);
}

static void dump_parts(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (!same_geometry(stage, io, part, own->entry)) {
			/* Below they may know nothing of the block any more. */
			if (stage->env->below == 0)
				part->status = -EINVAL;
			continue;
		}
		if (stage->env->below == 0)
			dump_alone(stage, own, part, i);
		else
			dump_both(stage, own, part, i);
	}
}

/* Until it is below, or gone. */
static void flush_await(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
			const struct cache_ref *ref)
{
	if (own->began_ns == 0)
		flush_hurry(stage, ref);
	else
		background_kick(stage, true); /* who has it may be dead */
	io_pause(stage, io, own);
}

static uint64_t all_parts(const struct cairn_io *io)
{
	return UINT64_MAX >> (CAIRN_PARTS_MAX - io->part_count);
}

/* It is here, and will be below: that is the answer, or what a higher level waits for. */
static void dump_dirty(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
		       const struct cache_ref *ref)
{
	if (io->durability == CAIRN_MEMORY && !cache_expired(stage, ref->entry)) {
		for (uint32_t i = 0; i < io->part_count; i++) {
			struct cairn_part *part = &io->parts[i];
			bool same = same_geometry(stage, io, part, ref->entry);

			if (part->status == CAIRN_PENDING)
				part->status = same ? CAIRN_PRESENT : -EINVAL;
		}
		cairn_count(stage->env, CC_ALREADY, io->part_count);
		dump_finish(stage, io, own);
	} else if (io_late(stage, io)) {
		cairn_io_fail(io, -ETIMEDOUT);
		dump_finish(stage, io, own);
	} else {
		flush_await(stage, io, own, ref);
	}
}

/*
 * The tier below has answered. Where another dump was held back beside this one, the block may be
 * whole here alone: then it is not yet where this one says.
 */
static void dump_over(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_ref ref;

	if (io->durability == CAIRN_MEMORY || !stage->flush || !find_dirty(stage, io, &ref)) {
		dump_finish(stage, io, own);
	} else if (io_late(stage, io)) {
		for (uint32_t i = 0; i < io->part_count; i++)
			if (io->parts[i].status >= 0)
				io->parts[i].status = -ETIMEDOUT;
		dump_finish(stage, io, own);
	} else {
		flush_await(stage, io, own, &ref);
	}
}

void dump_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_shape shape = {KIND_HIDDEN, io->shard_count, (uint32_t)io->shard_bytes};
	struct cache_ref dirty;
	bool large, have, back;

	if (own->over) {
		dump_over(stage, io, own);
		return;
	}
	own->waiting = 0;
	own->filling = 0;
	own->in_place = 0;
	if (!check_parts(stage, io, &large)) {
		dump_finish(stage, io, own);
		return;
	}
	if (stage->flush && find_dirty(stage, io, &dirty)) {
		dump_dirty(stage, io, own, &dirty);
		return;
	}
	have = write_of(stage, io) != WRITE_AROUND;
	back = have && !large && may_hold_back(stage, io);
	if (!have || large || !io_entry(stage, io, own, &shape)) {
		if (stage->env->below > 0) {
			cairn_count(stage->env, CC_BYPASSED, io->part_count);
			dump_down(stage, io, own);
			return;
		}
		own->waiting = 1;
	} else {
		cache_touch(stage, own->entry, cache_tick(stage));
		dump_parts(stage, io, own);
		if (back && own->filling == all_parts(io)) {
			hold_back(stage, io, own);
		} else if (stage->env->below > 0) {
			dump_down(stage, io, own);
			return;
		}
	}
	if (!own->waiting) {
		dump_finish(stage, io, own);
	} else if (io_late(stage, io)) {
		cairn_count(stage->env, CC_REFUSED, 1);
		cairn_io_fail(io, -ENOSPC);
		dump_finish(stage, io, own);
	} else {
		/* Who makes the shard, or has what is missing, may be dead. */
		background_kick(stage, own->began_ns != 0);
		io_pause(stage, io, own);
	}
}

/*
 * The tier below took a shard as new, and one of that number is here: of a block that was
 * lost below, or never finished there. What is below counts.
 */
static void drop_older(struct cache_stage *stage, const struct cairn_io *io,
		       const struct cairn_part *part)
{
	struct cache_key key;
	struct cache_ref ref;

	if (!cache_key(stage, io->ns, &io->key, &key))
		return;
	ref = cached_find(stage->map, &key);
	/* One that is held back is on its way: what is below decides when it comes there. */
	if (ref.entry != CACHE_NONE && !state_dirty(ref.state) &&
	    shard_state(shard_look(stage->map, ref.entry, part->shard)) == SHARD_THERE &&
	    entry_remove(stage->map, &ref))
		background_reclaim(stage, ref.entry);
}

void dump_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	own->down = false;
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (own->filling & BIT(i))
			settle(stage, own, part, i, part->status == 0);
		else if (part->status == 0)
			drop_older(stage, io, part);
	}
	own->filling = 0;
	own->over = true;
	dump_over(stage, io, own);
}

/* ---- removes --------------------------------------------------------------------------- */

/* False: it is in flight, or another entry by now. */
static bool remove_here(struct cache_stage *stage, struct cache_io *own,
			const struct cache_ref *ref)
{
	bool was_there = state_kind(ref->state) != KIND_HIDDEN && !cache_expired(stage, ref->entry);

	if (!entry_remove(stage->map, ref))
		return false;
	own->was_there |= was_there;
	cairn_count(stage->env, CC_REMOVED, 1);
	background_reclaim(stage, ref->entry);
	return true;
}

/*
 * What is held back has not been below: it goes from here, unless it is on its way. True: that
 * is waited for, and the io may be over.
 */
static bool remove_dirty(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_ref ref;

	while (find_dirty(stage, io, &ref)) {
		if (remove_here(stage, own, &ref) ||
		    !state_flying(word_get(&stage->map->entries[ref.entry].state)))
			continue;
		if (io_late(stage, io)) {
			io->status = -ETIMEDOUT;
			stage->host->complete(io);
			return true;
		}
		if (own->began_ns != 0)
			background_kick(stage, true); /* who has it may be dead */
		io_pause(stage, io, own);
		return true;
	}
	return false;
}

void remove_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_key key;
	struct cache_ref ref = {CACHE_NONE, 0};

	own->down = false;
	own->was_there |= io->status == 0;
	if (cache_key(stage, io->ns, &io->key, &key))
		ref = cached_find(stage->map, &key);
	if (ref.entry != CACHE_NONE && !remove_here(stage, own, &ref) &&
	    (io->status >= 0 || io->status == -ENOENT)) {
		/*
		 * Dumped meanwhile, and on its way below: a part of it may just have been removed
		 * there, whatever has become of it by now.
		 */
		io->status = CAIRN_PENDING;
		remove_begin(stage, io, own);
		return;
	}
	if (io->status == CAIRN_PENDING || io->status == -ENOENT)
		io->status = own->was_there ? 0 : -ENOENT;
	stage->host->complete(io);
}

/* Below first: cache.h, invariant 4. */
void remove_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	if (stage->env->below == 0) {
		remove_done(stage, io, own);
		return;
	}
	if (remove_dirty(stage, io, own))
		return;
	own->down = true;
	stage->host->forward(io);
}
