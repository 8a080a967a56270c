/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ios on their way down and up the pipeline.
 *
 * Tiers without a done() are composed here: a load goes on to the tier below
 * with the parts that missed, a dump and a remove go to every tier. One tier
 * that took a dump is enough; a remove must not fail in any. What all of them
 * miss goes down once more where they have the block together (union.h).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/io.h"
#include "core/union.h"

static struct io_slot *slot_of(struct cairn_io *io)
{
	struct io_slot *slot = list_entry(io, struct io_slot, io);

	assert(slot->magic == IO_MAGIC && slot->reactor->magic == REACTOR_MAGIC);
	return slot;
}

static struct level *level_of(struct io_slot *slot)
{
	assert(slot->io.level < slot->reactor->store->level_count);
	return &slot->reactor->store->levels[slot->io.level];
}

static bool composed(const struct level *level)
{
	return (level->ops->flags & CAIRN_STAGE_TIER) && !level->ops->done;
}

static bool any_pending(const struct cairn_io *io)
{
	if (io->part_count == 0)
		return io->status == CAIRN_PENDING;
	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			return true;
	return false;
}

/*
 * What a stage hands down in place of what came may be anybody's: memory that others share, which
 * I/O of a process that was killed must not reach, unless the stage says that it may.
 */
static bool aimable(const struct io_slot *slot)
{
	bool own_good = slot->io.flags & CAIRN_IO_AIM_OWN;

	for (uint32_t i = 0; i < slot->io.part_count; i++) {
		const struct iovec *iov = slot->io.parts[i].iov;
		bool own = iov < slot->iovs || iov >= slot->iovs + IO_IOVS_MAX;

		if (slot->io.parts[i].status == CAIRN_PENDING && !(own ? own_good : slot->aimable))
			return false;
	}
	return slot->io.part_count > 0;
}

void io_submit_to(struct io_slot *slot, uint32_t index)
{
	struct level *level = &slot->reactor->store->levels[index];
	uint8_t *scratch = slot->scratch + level->scratch_offset;
	bool good;

	slot->io.level = index;
	good = aimable(slot);
	slot->io.flags &= ~(CAIRN_IO_AIMABLE | CAIRN_IO_AIM_OWN);
	slot->io.flags |= good ? CAIRN_IO_AIMABLE : 0;
	slot->live = 0;
	for (uint32_t i = 0; i < slot->io.part_count; i++)
		if (slot->io.parts[i].status == CAIRN_PENDING)
			slot->live |= UINT64_C(1) << i;
	if (level->scratch_zeroed > 0)
		memset(scratch, 0, level->scratch_zeroed);
	level->ops->submit(level->self, &slot->io, scratch);
}

/* ---- composition of tiers ------------------------------------------------- */

static bool is_miss(int32_t status)
{
	return status == -ENOENT || status == -EBADMSG || status == -EIO || status == -ESTALE ||
	       status == -ETIMEDOUT;
}

/* Which of two answers of two tiers stands; @upper came first. */
static bool lower_stands(uint32_t op, int32_t upper, int32_t lower)
{
	if (upper == CAIRN_PENDING)
		return true;
	switch (op) {
	case CAIRN_OP_DUMP:
		/* A tier that cannot keep it so long says less than one that failed to. */
		return (upper < 0 && lower != -EOPNOTSUPP) ||
		       (upper == CAIRN_PRESENT && lower == 0);
	case CAIRN_OP_REMOVE:
		if (lower < 0 && lower != -ENOENT)
			return upper >= 0 || upper == -ENOENT;
		return upper == -ENOENT;
	default:
		return lower != -ENOENT || upper == -ENOENT;
	}
}

static void compare(struct io_slot *slot, int32_t upper, int32_t lower)
{
	if (slot->io.op == CAIRN_OP_DUMP && upper != CAIRN_PENDING && union_disagree(upper, lower))
		mark_set(&slot->reactor->store->disagreed);
}

static bool rearm(struct io_slot *slot, int32_t *status, uint16_t *stage, int32_t *best,
		  uint16_t *best_stage)
{
	uint32_t op = slot->io.op;
	bool again = op == CAIRN_OP_DUMP || op == CAIRN_OP_REMOVE || is_miss(*status);

	if (!again)
		return false;
	compare(slot, *best, *status);
	if (lower_stands(op, *best, *status)) {
		*best = *status;
		*best_stage = *stage;
	}
	*status = CAIRN_PENDING;
	*stage = CAIRN_STAGE_NONE;
	return true;
}

/* After a composed tier with stages below: what of the io goes on to them? */
static bool goes_on(struct io_slot *slot)
{
	struct cairn_io *io = &slot->io;
	bool again = false;

	if (io->part_count == 0)
		return rearm(slot, &io->status, &slot->status_stage, &slot->best[0],
			     &slot->best_stage[0]);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		/* Only what this tier was asked; a stage above has ended the others. */
		if (slot->live & (UINT64_C(1) << i))
			again |= rearm(slot, &part->status, &part->stage, &slot->best[i],
				       &slot->best_stage[i]);
	}
	return again;
}

static void merge_one(struct io_slot *slot, int32_t *status, uint16_t *stage, int32_t best,
		      uint16_t best_stage)
{
	compare(slot, best, *status);
	if (best == CAIRN_PENDING || lower_stands(slot->io.op, best, *status))
		return;
	*status = best;
	*stage = best_stage;
}

/* On the way up through a composed tier: the better of its answer and of those below. */
static void merge(struct io_slot *slot)
{
	struct cairn_io *io = &slot->io;

	if (io->part_count == 0) {
		merge_one(slot, &io->status, &slot->status_stage, slot->best[0],
			  slot->best_stage[0]);
		return;
	}
	for (uint32_t i = 0; i < io->part_count; i++)
		merge_one(slot, &io->parts[i].status, &io->parts[i].stage, slot->best[i],
			  slot->best_stage[i]);
}

/* ---- the union of tiers ---------------------------------------------------- */

/* Did a tier of the union, or a stage between them, end it so? */
static bool ended_below(const struct io_slot *slot, int32_t status, uint16_t stage, int32_t wanted)
{
	return status == wanted && stage != CAIRN_STAGE_NONE &&
	       (int)stage >= slot->reactor->store->union_top;
}

/* Parts that no tier has become pending again, as parts of the block that @found tells of. */
static bool union_rearm(struct io_slot *slot, const struct cairn_found *found)
{
	struct cairn_io *io = &slot->io;
	bool again = false;

	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		slot->best[i] = CAIRN_PENDING;
		if (!ended_below(slot, part->status, part->stage, -ENOENT))
			continue;
		part->status = CAIRN_PENDING;
		part->stage = CAIRN_STAGE_NONE;
		part->raw_length = part->shard + 1 == found->shard_count ? found->last_bytes
									 : found->shard_bytes;
		part->stored_length = part->raw_length;
		again = true;
	}
	io->shard_count = found->shard_count;
	io->shard_bytes = found->shard_bytes;
	io->flags |= CAIRN_IO_PARTIAL;
	return again;
}

/* A load or describe leaves the tiers: does it go down once more? */
static bool union_again(struct io_slot *slot)
{
	struct cairn_io *io = &slot->io;
	struct cairn_found found;
	bool missed = false;

	if ((io->op != CAIRN_OP_LOAD && io->op != CAIRN_OP_DESCRIBE) ||
	    (io->flags & CAIRN_IO_PARTIAL))
		return false;
	for (uint32_t i = 0; i < io->part_count; i++)
		missed |= ended_below(slot, io->parts[i].status, io->parts[i].stage, -ENOENT);
	return missed && union_find(slot->reactor->store, io->ns, &io->key, &found) &&
	       union_rearm(slot, &found);
}

/* An io other than a load leaves the tiers: what it met, they had together. */
static void union_answer(struct io_slot *slot)
{
	struct cairn_io *io = &slot->io;

	if (!slot->united)
		return;
	if ((io->op == CAIRN_OP_REMOVE || io->op == CAIRN_OP_PREFETCH) &&
	    ended_below(slot, io->status, slot->status_stage, -ENOENT))
		io->status = 0;
	for (uint32_t i = 0; i < io->part_count; i++)
		if (ended_below(slot, io->parts[i].status, io->parts[i].stage, 0))
			io->parts[i].status = CAIRN_PRESENT;
}

/* The io comes up from union_top. True: it went down again. */
static bool union_leave(struct io_slot *slot)
{
	if (!union_possible(slot->reactor->store))
		return false;
	union_answer(slot);
	if (!union_again(slot))
		return false;
	io_submit_to(slot, slot->io.level);
	return true;
}

/* Before it goes down: is the block there, be it over several tiers? */
void io_look_united(struct io_slot *slot)
{
	struct cairn_store *store = slot->reactor->store;
	struct cairn_found found;

	slot->united = slot->io.op != CAIRN_OP_LOAD && union_possible(store) &&
		       union_find(store, slot->io.ns, &slot->io.key, &found);
}

/* ---- the host's table ------------------------------------------------------- */

static void go_up(struct io_slot *slot)
{
	const int union_top = slot->reactor->store->union_top;

	for (;;) {
		struct level *level;

		if ((int)slot->io.level == union_top && union_leave(slot))
			return;
		if (slot->io.level == slot->first_level)
			break;
		slot->io.level--;
		level = level_of(slot);
		if (composed(level)) {
			merge(slot);
			continue;
		}
		assert(level->ops->done);
		level->ops->done(level->self, &slot->io, slot->scratch + level->scratch_offset);
		return;
	}
	io_finish(slot);
}

static void stamp(struct io_slot *slot)
{
	struct cairn_io *io = &slot->io;

	assert(!any_pending(io));
	if (io->part_count == 0 && slot->status_stage == CAIRN_STAGE_NONE)
		slot->status_stage = (uint16_t)io->level;
	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].stage == CAIRN_STAGE_NONE)
			io->parts[i].stage = (uint16_t)io->level;
}

static void host_complete(struct cairn_io *io)
{
	struct io_slot *slot = slot_of(io);

	timer_clear(slot->reactor, slot);
	assert(!slot->wants_buffer);
	stamp(slot);
	if (composed(level_of(slot)) && io->level + 1 < slot->reactor->store->level_count &&
	    goes_on(slot)) {
		io_submit_to(slot, io->level + 1);
		return;
	}
	go_up(slot);
}

/* What the stage ended by itself is its own answer; what it set pending again is nobody's. */
static void stamp_forward(struct cairn_io *io)
{
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status == CAIRN_PENDING)
			part->stage = CAIRN_STAGE_NONE;
		else if (part->stage == CAIRN_STAGE_NONE)
			part->stage = (uint16_t)io->level;
	}
}

static void host_forward(struct cairn_io *io)
{
	struct io_slot *slot = slot_of(io);

	assert(io->level + 1 < slot->reactor->store->level_count);
	stamp_forward(io);
	if (any_pending(io)) {
		io_submit_to(slot, io->level + 1);
		return;
	}
	io->level++;
	go_up(slot);
}

static void host_resume_at(struct cairn_io *io, uint64_t when_ns)
{
	struct io_slot *slot = slot_of(io);

	timer_set(slot->reactor, slot, when_ns);
}

static void host_resume(struct cairn_io *io)
{
	struct io_slot *slot = slot_of(io);

	/* One message in the inbox at a time: lowered as it is taken. */
	if (flag_raise(&slot->resume_posted))
		reactor_send(slot->reactor, &slot->resume);
}

static void *host_buffer_get(struct cairn_io *io, size_t bytes)
{
	struct io_slot *slot = slot_of(io);
	void *buffer = io_buffer_get(slot->reactor, bytes);

	if (!buffer && !slot->wants_buffer) {
		slot->wants_buffer = true;
		list_append(&slot->reactor->buffer_waiters, &slot->waiting);
	}
	return buffer;
}

static void host_buffer_put(struct cairn_io *io, void *buffer)
{
	io_buffer_put(slot_of(io)->reactor, buffer);
}

struct engine *io_engine(struct cairn_io *io, const struct engine_ops **ret_ops)
{
	struct io_slot *slot = slot_of(io);

	*ret_ops = slot->reactor->engine_ops;
	return slot->reactor->engine;
}

void io_host_init(struct cairn_store *store)
{
	size_t pool = reactor_stage_bytes(store->settings[SET_BUFFERS].u), largest = 4096;

	/* A light reactor's pool is the smaller one; what runs there is small, too. */
	while (largest * 2 <= pool && largest * 2 <= LIGHT_BUFFERS)
		largest *= 2;
	store->host = (struct cairn_stage_host){
		.size = sizeof(store->host),
		.forward = host_forward,
		.complete = host_complete,
		.resume_at = host_resume_at,
		.resume = host_resume,
		.now_ns = store->sys->now_ns,
		.buffer_get = host_buffer_get,
		.buffer_put = host_buffer_put,
		.buffer_max = largest,
	};
}
