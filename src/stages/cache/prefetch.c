/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefetches: an io without parts becomes loads of the block's shards into slots, as many
 * at once as an io has parts, until all are there; then it is what it was.
 */
#include <errno.h>
#include <string.h>

#include "stages/cache/cache.h"
#include "stages/cache/slots.h"

static void end(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own, int status)
{
	io->op = CAIRN_OP_PREFETCH;
	io->part_count = 0;
	io->status = status;
	if (own->brought && status == 0) {
		byte_note(&stage->map->metas[own->entry].fetched, 1);
		cairn_count(stage->env, CC_PREFETCHED, 1);
	}
	io_leave(stage, own);
	stage->host->complete(io);
}

/* Memory is on its way: once more in a while, as what it was. */
static void wait(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	io->op = CAIRN_OP_PREFETCH;
	io->part_count = 0;
	io_pause(stage, io, own);
}

/* Pinned, and made where nothing of it is there. */
static int take_entry(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
		      struct cairn_probe *ret_probe)
{
	struct cache_shape shape = {.kind = KIND_PART};

	memset(ret_probe, 0, sizeof(*ret_probe));
	if (!stage_env(stage->env)->probe_below(stage->env, io->ns, &io->key, ret_probe))
		return -ENOENT;
	shape.shard_count = ret_probe->shard_count;
	shape.shard_bytes = (uint32_t)ret_probe->shard_bytes;
	if (!io_entry(stage, io, own, &shape))
		return -ENOSPC;
	if (short_hint(&stage->map->entries[own->entry].shard_count) != ret_probe->shard_count)
		return -ENOENT;
	entry_unhide(stage->map, own->entry, own->life);
	return 0;
}

static uint64_t length_of(const struct cairn_probe *probe, uint32_t shard)
{
	return shard + 1 == probe->shard_count ? probe->last_bytes : probe->shard_bytes;
}

/* The next shard is to be brought up. False: there is no room. */
static bool add_part(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
		     uint64_t length)
{
	uint32_t i = io->part_count;
	struct cache_place *place = &own->places[i];
	struct cairn_part *part = &io->parts[i];

	*place = (struct cache_place){
		.entry = own->entry, .life = own->life, .shard = own->next_shard};
	if (shard_bytes_needed(length, 0, stage->tails) > stage->map->chunk_bytes ||
	    !take_slot(stage, length, 0, &place->slot))
		return false;
	if (!shard_claim(stage->map, place)) {
		slots_give(stage->map, place->slot);
		return true; /* another brings it up */
	}
	own->own[i] = (struct iovec){map_payload(stage->map, place->slot), length};
	memset(part, 0, sizeof(*part));
	part->shard = own->next_shard;
	part->status = CAIRN_PENDING;
	part->stage = CAIRN_STAGE_NONE;
	part->length = length;
	part->raw_length = length;
	part->stored_length = length;
	part->iov = &own->own[i];
	part->iov_count = 1;
	io->part_count++;
	return true;
}

/* The next shards go down; or it is over. */
static void bring(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cairn_probe probe;
	int ret = take_entry(stage, io, own, &probe);

	/* Its task has ended, in time or not: nobody waits for more. */
	if (ret == 0 && own->next_shard < probe.shard_count && io_late(stage, io))
		ret = -ETIMEDOUT;
	io->op = CAIRN_OP_LOAD;
	io->part_count = 0;
	for (; ret == 0 && own->next_shard < probe.shard_count; own->next_shard++) {
		uint64_t word = shard_look(stage->map, own->entry, own->next_shard);

		if (io->part_count == CAIRN_PARTS_MAX)
			break;
		if (shard_state(word) == SHARD_ABSENT &&
		    !add_part(stage, io, own, length_of(&probe, own->next_shard)))
			ret = -ENOSPC;
		if (ret < 0)
			break;
	}
	if (io->part_count == 0) {
		if (ret == -ENOSPC && background_pending(stage) && !io_late(stage, io))
			wait(stage, io, own);
		else
			end(stage, io, own, ret);
		return;
	}
	own->down = true;
	if (region_is_huge(&stage->region))
		io->flags |= CAIRN_IO_AIM_OWN;
	stage->host->forward(io);
}

void prefetch_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	struct cache_key key;
	struct cache_ref ref;

	if (!cache_key(stage, io->ns, &io->key, &key)) {
		end(stage, io, own, stage->env->below > 0 ? -ENOSPC : -ENOENT);
		return;
	}
	ref = cached_find(stage->map, &key);
	if (ref.entry != CACHE_NONE && state_whole(ref.state) && !cache_expired(stage, ref.entry)) {
		cache_touch(stage, ref.entry, cache_tick(stage));
		end(stage, io, own, 0);
	} else if (stage->env->below == 0) {
		end(stage, io, own, -ENOENT);
	} else if (stage->env->index > 0) {
		/* Lengths as they are stored are known above this stage alone. */
		own->next_shard = CACHE_NONE;
		own->down = true;
		stage->host->forward(io);
	} else {
		bring(stage, io, own);
	}
}

void prefetch_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	int failed = 0;

	own->down = false;
	if (own->next_shard == CACHE_NONE) {
		stage->host->complete(io);
		return;
	}
	io_expires(stage, io, own);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];
		struct cache_place *place = &own->places[i];
		bool kept = part->status == 0;

		if (kept && stage->tails) /* without them its slot has no room for one */
			tail_seal(stage, part, own->own[i].iov_base);
		kept = kept && shard_publish(stage->map, place, (uint32_t)part->raw_length,
					     (uint32_t)part->length, 0);
		if (!kept)
			shard_abandon(stage->map, place);
		own->brought |= kept;
		io->brought_bytes += part->status == 0 ? part->length : 0;
		if (part->status < 0 && failed == 0)
			failed = part->status;
	}
	if (failed < 0)
		end(stage, io, own, failed);
	else
		bring(stage, io, own);
}
