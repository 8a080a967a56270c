/* SPDX-License-Identifier: Apache-2.0 */
/* The end of an io: results to the items, memory back, the part told. */
#include <assert.h>
#include <errno.h>

#include "core/io.h"
#include "core/union.h"

void orphan_count(struct cairn_store *store, bool more)
{
	pthread_mutex_lock(&store->lock);
	store->orphans += more ? 1u : -1u;
	if (!more)
		pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

/* Whole, but in no tier that persists: a tier forgets its unfinished blocks when it is closed. */
static bool memory_only(struct io_slot *slot)
{
	struct cairn_store *store = slot->reactor->store;
	struct cairn_io *io = &slot->io;
	struct cairn_found found;

	return io->op == CAIRN_OP_DUMP && io->durability > CAIRN_MEMORY &&
	       union_find(store, io->ns, &io->key, &found) && !union_lasts(store, io->ns, &io->key);
}

static void end_items(struct io_slot *slot)
{
	struct task *task = slot->part->task;
	struct cairn_io *io = &slot->io;
	bool lower = memory_only(slot);
	uint64_t bytes = 0, ended = 0;

	if (io->part_count == 0) {
		task_item_ended(task, slot->item[0], io->status, slot->status_stage);
		slot->part->items--;
		return;
	}
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		ended += part->status == 0;
		if (part->status == 0) {
			bytes += io->op == CAIRN_OP_DESCRIBE ? 0 : part->length;
			if (slot->bounce && io->op == CAIRN_OP_LOAD)
				io_scatter(&task->xfers[slot->item[i]], part->iov[0].iov_base);
		}
		task_item_ended(task, slot->item[i], part->status, part->stage);
		if (lower && part->status >= 0)
			task->xfers[slot->item[i]].result.reached = CAIRN_MEMORY + 1;
		slot->part->items--;
	}
	slot->reactor->told_bytes += bytes;
	if (task_own(task)) /* counted when the caller dumped them */
		return;
	if (io->op == CAIRN_OP_LOAD && ended > 0)
		store_count(task->store, COUNT_LOAD_HITS, ended);
	store_count(task->store, io->op == CAIRN_OP_LOAD ? COUNT_LOADED_BYTES : COUNT_DUMPED_BYTES,
		    bytes);
}

/* What was there, or did not come, is given back. */
static void settle_prefetch(struct io_slot *slot)
{
	struct reactor *reactor = slot->reactor;

	if (slot->io.op != CAIRN_OP_PREFETCH)
		return;
	reactor->prefetches_in_flight--;
	bucket_take(&reactor->prefetch, (int64_t)(slot->io.brought_bytes - slot->charged_bytes),
		    reactor->store->sys->now_ns());
}

void io_finish(struct io_slot *slot)
{
	struct reactor *reactor = slot->reactor;
	struct task_part *part = slot->part;

	assert(slot->magic == IO_MAGIC && slot->timer_index == 0);
	assert(slot->resume_posted == 0);
	reactor_count_transfers(reactor); /* before anybody is told */
	if (part && !slot->abandoned)
		end_items(slot);
	if (slot->bounce)
		io_bounce_put(reactor, slot->bounce);
	slot->bounce = NULL;
	reactor->ios_in_flight--;
	reactor->dumps_in_flight -= slot->io.task_class == CAIRN_CLASS_DUMP && !slot->own;
	settle_prefetch(slot);
	store_count(reactor->store, COUNT_IN_FLIGHT, UINT64_MAX);
	slot->part = NULL;
	/* The next has it while it is in cache. */
	list_prepend(slot->own ? &reactor->own_ios : &reactor->free_ios, &slot->waiting);
	if (!part) {
		orphan_count(reactor->store, false);
		return;
	}
	list_remove(&slot->link);
	part_settle(reactor, part);
	if (reactor->told_count >= TOLD_MAX || reactor->told_bytes >= TOLD_BYTES)
		reactor_tell(reactor);
}

void io_abandon(struct io_slot *slot, int32_t status)
{
	struct task_part *part = slot->part;
	uint32_t items;

	assert(part && !slot->abandoned);
	slot->abandoned = true;
	/* Nobody waits for it: what has not begun is left, and what waits for room does not. */
	slot->io.deadline_ns = 0;
	/* A stage may have parts of its own in an io that came without. */
	items = part->task->xfers ? slot->io.part_count : 1;
	for (uint32_t i = 0; i < items; i++) {
		task_item_ended(part->task, slot->item[i], status, (uint16_t)slot->io.level);
		part->items--;
	}
	if (slot->caller_memory)
		return;
	/* Nothing of it targets the caller's memory: the task need not wait for it. */
	list_remove(&slot->link);
	slot->part = NULL;
	orphan_count(part->task->store, true);
}
