/* SPDX-License-Identifier: Apache-2.0 */
/* What one reactor does of a task: its items wait, run, and end. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/reactor.h"

/* Keys are hashes: any four bytes spread them. All shards of a block meet one reactor. */
uint32_t part_owner(const struct cairn_store *store, const struct cairn_key *key)
{
	uint32_t word;

	if (store->reactor_count == 1)
		return 0;
	memcpy(&word, key->bytes + 12, sizeof(word));
	return (uint32_t)(((uint64_t)word * store->reactor_count) >> 32);
}

/* Sends what has come to its end: the result, the release, or both at once. */
void part_settle(struct reactor *reactor, struct task_part *part)
{
	bool result = !part->result_sent && part->items == 0;
	bool release =
		(result || part->result_sent) && !part->release_sent && list_empty(&part->ios);

	if (!result && !release)
		return;
	part->result_sent |= result;
	part->release_sent |= release;
	if (release && !list_empty(&part->active))
		list_remove(&part->active);
	reactor->told_count++;
	task_part_settled(part, result, release, &reactor->told);
}

static struct list *queue_of(struct reactor *reactor, const struct task_part *part)
{
	return task_own(part->task) ? &reactor->own_queue
				    : &reactor->queues[part->task->task_class - 1];
}

/* What is wanted first is brought up first. */
static bool by_deadline(const struct task_part *part)
{
	return part->task->task_class == CAIRN_CLASS_PREFETCH;
}

static uint64_t deadline_in(struct list *node)
{
	return list_entry(node, struct task_part, queued)->task->deadline_ns;
}

void part_queue(struct reactor *reactor, struct task_part *part)
{
	struct list *queue = queue_of(reactor, part), *before = queue;

	/* From the end: most deadlines are later than those of what came earlier. */
	while (by_deadline(part) && before->prev != queue &&
	       deadline_in(before->prev) > part->task->deadline_ns)
		before = before->prev;
	list_append(before, &part->queued);
}

void part_take_turn(struct reactor *reactor, struct task_part *part)
{
	struct list *queue = queue_of(reactor, part), *before = queue;

	if (by_deadline(part))
		for (before = part->queued.next;
		     before != queue && deadline_in(before) <= part->task->deadline_ns;)
			before = before->next;
	list_remove(&part->queued);
	list_append(before, &part->queued);
}

void part_arrive(struct reactor *reactor, struct task_part *part)
{
	struct task *task = part->task;

	assert(task->magic == TASK_MAGIC);
	assert(task->task_class >= 1 && task->task_class <= CLASSES);
	if (part->items == 0) { /* a task of nothing, whose end is told by a reactor */
		part_settle(reactor, part);
		return;
	}
	list_append(&reactor->parts, &part->active);
	io_seek(reactor, part);
	assert(part->cursor < task->count);
	part_queue(reactor, part);
	if (task->deadline_ns < reactor->next_deadline_ns)
		reactor->next_deadline_ns = task->deadline_ns;
}

void part_end(struct reactor *reactor, struct task_part *part, int32_t status)
{
	struct task *task = part->task;
	struct list *node, *next;

	assert(status < 0);
	if (part->result_sent)
		return;
	/* If it waited for memory, who stands behind it may find enough. */
	reactor->bounce_came |= !list_empty(&reactor->starved);
	if (!list_empty(&part->queued))
		list_remove(&part->queued);
	for (node = part->ios.next; node != &part->ios; node = next) {
		next = node->next;
		io_abandon(list_entry(node, struct io_slot, link), status);
	}
	/* What never started. */
	for (; part->cursor < task->count; part->cursor++) {
		if (reactor->standing &&
		    part_owner(task->store, task_key(task, part->cursor)) != reactor->index)
			continue;
		task_item_ended(task, part->cursor, status, CAIRN_STAGE_NONE);
		part->items--;
		store_count(task->store, COUNT_QUEUED_XFERS, UINT64_MAX);
	}
	store_count(task->store, status == -ECANCELED ? COUNT_CANCELED : COUNT_TIMED_OUT, 1);
	assert(part->items == 0);
	part_settle(reactor, part);
}
