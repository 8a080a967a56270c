/* SPDX-License-Identifier: Apache-2.0 */
/* From the items of a task to ios: runs of one key become one io, or a few. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/attr.h"
#include "core/io.h"
#include "core/memory.h"

void *io_buffer_get(struct reactor *reactor, size_t bytes)
{
	uint64_t offset = buddy_get(&reactor->buddy, bytes);

	return offset == BUDDY_NONE ? NULL : (uint8_t *)reactor->pool + offset;
}

void io_buffer_put(struct reactor *reactor, void *buffer)
{
	buddy_put(&reactor->buddy, (uint64_t)((uint8_t *)buffer - (uint8_t *)reactor->pool));
	reactor->buffer_came = true;
}

static void *bounce_get(struct reactor *reactor, uint64_t bytes)
{
	/* Whoever waits already comes first: else a large one would wait for ever. */
	uint64_t offset =
		list_empty(&reactor->starved) ? buddy_get(&reactor->bounce, bytes) : BUDDY_NONE;

	if (offset == BUDDY_NONE)
		return NULL;
	return (uint8_t *)reactor->pool + reactor->stage_bytes + offset;
}

void io_bounce_put(struct reactor *reactor, void *bounce)
{
	uint8_t *base = (uint8_t *)reactor->pool + reactor->stage_bytes;

	buddy_put(&reactor->bounce, (uint64_t)((uint8_t *)bounce - base));
	reactor->bounce_came = true;
}

static bool same_key(const struct cairn_key *a, const struct cairn_key *b)
{
	assert(a && b);
	return memcmp(a->bytes, b->bytes, CAIRN_KEY_BYTES) == 0;
}

bool io_seek(struct reactor *reactor, struct task_part *part)
{
	struct task *task = part->task;

	for (; part->cursor < task->count; part->cursor++) {
		const struct cairn_key *key = task_key(task, part->cursor);

		if (part->cursor > 0 && !same_key(key, task_key(task, part->cursor - 1)))
			part->depth++;
		if (!reactor->standing || part_owner(task->store, key) == reactor->index)
			return true;
	}
	return false;
}

/* Where the items of the key of @item begin. */
static uint32_t key_first(const struct task *task, uint32_t item)
{
	const struct cairn_key *key = task_key(task, item);

	while (item > 0 && same_key(key, task_key(task, item - 1)))
		item--;
	return item;
}

/* The key before the first item's in the chain, or NULL at its head. */
static const struct cairn_key *chain_parent(const struct task *task, uint32_t item)
{
	item = key_first(task, item);
	return item > 0 ? task_key(task, item - 1) : NULL;
}

static uint32_t chain_start(const struct task *task)
{
	return task->xfers && task->xfers[0].attr ? task->xfers[0].attr->depth : 0;
}

static void set_attr(struct io_slot *slot, const struct task_part *part, uint32_t item)
{
	static const struct cairn_key none;
	const struct task *task = part->task;
	struct cairn_block_attr *attr = &slot->io.attr;
	const struct cairn_key *parent;

	memset(attr, 0, sizeof(*attr));
	/* All ios of a key in a task tell the same: the first that any of its items does. */
	for (uint32_t i = key_first(task, item);
	     task->xfers && i < task->count && !attr_told(attr) &&
	     same_key(&task->xfers[i].key, &task->xfers[item].key);
	     i++) {
		const struct cairn_block_attr *given = task->xfers[i].attr;

		if (given)
			memcpy(attr, given,
			       given->size < sizeof(*attr) ? given->size : sizeof(*attr));
	}
	attr->size = sizeof(*attr);
	if (!(task->flags & CAIRN_TASK_CHAIN) || !same_key(&attr->parent, &none))
		return;
	parent = chain_parent(task, item);
	if (!parent)
		return;
	attr->parent = *parent;
	/* A chain that goes on from a block told of before starts at that block's depth. */
	if (attr->depth == 0)
		attr->depth = part->depth + chain_start(task);
	slot->io.flags |= CAIRN_IO_CHAIN;
}

/* What the task says of its dumps; a stage's own says of each whether a chain told its parent. */
static uint32_t flags_of(const struct task *task, const struct cairn_xfer *xfer)
{
	if (task_own(task))
		return xfer->reserved[0] == OWN_XFER_CHAIN ? CAIRN_IO_CHAIN : 0;
	if (task->op != CAIRN_OP_DUMP)
		return 0;
	return (task->flags & CAIRN_TASK_WRITE_THROUGH ? CAIRN_IO_WRITE_THROUGH : 0) |
	       (task->flags & CAIRN_TASK_WRITE_BACK ? CAIRN_IO_WRITE_BACK : 0) |
	       (task->flags & CAIRN_TASK_WRITE_AROUND ? CAIRN_IO_WRITE_AROUND : 0);
}

uint64_t io_segments(const struct cairn_xfer *xfer)
{
	return xfer->segment_count > 0 ? xfer->segment_count : xfer->stride.count;
}

/* Writes the xfer's segments to @iov, which has room. */
static void copy_segments(const struct cairn_xfer *xfer, struct iovec *iov)
{
	for (uint32_t i = 0; i < xfer->segment_count; i++)
		iov[i] = (struct iovec){xfer->segments[i].base, xfer->segments[i].length};
	if (xfer->segment_count > 0)
		return;
	for (uint64_t i = 0; i < xfer->stride.count; i++)
		iov[i] = (struct iovec){(uint8_t *)xfer->stride.base + i * xfer->stride.stride,
					xfer->stride.run};
}

void io_gather(const struct cairn_xfer *xfer, uint8_t *buffer)
{
	for (uint32_t i = 0; i < xfer->segment_count; i++) {
		memcpy(buffer, xfer->segments[i].base, xfer->segments[i].length);
		buffer += xfer->segments[i].length;
	}
	if (xfer->segment_count > 0)
		return;
	for (uint64_t i = 0; i < xfer->stride.count; i++, buffer += xfer->stride.run)
		memcpy(buffer, (uint8_t *)xfer->stride.base + i * xfer->stride.stride,
		       xfer->stride.run);
}

void io_scatter(const struct cairn_xfer *xfer, const uint8_t *buffer)
{
	for (uint32_t i = 0; i < xfer->segment_count; i++) {
		memcpy(xfer->segments[i].base, buffer, xfer->segments[i].length);
		buffer += xfer->segments[i].length;
	}
	if (xfer->segment_count > 0)
		return;
	for (uint64_t i = 0; i < xfer->stride.count; i++, buffer += xfer->stride.run)
		memcpy((uint8_t *)xfer->stride.base + i * xfer->stride.stride, buffer,
		       xfer->stride.run);
}

static bool must_bounce(const struct task *task, const struct cairn_xfer *xfer)
{
	return (task->flags & CAIRN_TASK_DETACH) || io_segments(xfer) > IO_IOVS_MAX;
}

/*
 * What several parts of one io may have together. Of a dump that is to be written, what starts in
 * one turn: while it is copied and summed the device has another one. One that may stay in memory
 * goes whole, since it is held back whole, and so does what was held back, for its stage asks
 * whether the block is below; and a load, since what one io loads is of one life of the block.
 */
static uint64_t bytes_max(const struct task *task, bool bounce, uint64_t bounce_max)
{
	uint64_t most = bounce ? BOUNCE_IO_MAX : UINT64_MAX;

	if (bounce && most > bounce_max)
		most = bounce_max;
	if (task->op == CAIRN_OP_DUMP && task->store->split_dumps && !task_own(task) &&
	    task->durability > CAIRN_MEMORY && most > DUMP_TURN_BYTES)
		most = DUMP_TURN_BYTES;
	return most;
}

/* How many items from the cursor on become one io, and what they bounce. */
static uint32_t measure(const struct task *task, uint32_t first, uint64_t bounce_max,
			bool *ret_bounce, uint64_t *ret_bytes)
{
	const struct cairn_xfer *xfers = task->xfers;
	uint64_t segments = io_segments(&xfers[first]), most;
	uint32_t n = 1;

	*ret_bounce = must_bounce(task, &xfers[first]);
	*ret_bytes = xfers[first].length;
	most = bytes_max(task, *ret_bounce, bounce_max);
	while (n < CAIRN_PARTS_MAX && first + n < task->count &&
	       same_key(&xfers[first].key, &xfers[first + n].key)) {
		const struct cairn_xfer *xfer = &xfers[first + n];

		segments += io_segments(xfer);
		if (must_bounce(task, xfer) != *ret_bounce || *ret_bytes + xfer->length > most ||
		    (!*ret_bounce && segments > IO_IOVS_MAX) ||
		    xfer->shard_count != xfers[first].shard_count ||
		    xfer->shard_bytes != xfers[first].shard_bytes)
			break;
		*ret_bytes += xfer->length;
		n++;
	}
	return n;
}

static void add_part(struct io_slot *slot, const struct task *task, uint32_t item, uint8_t *bounce)
{
	const struct cairn_xfer *xfer = &task->xfers[item];
	struct cairn_part *part = &slot->parts[slot->io.part_count];
	struct iovec *iov = &slot->iovs[slot->iov_count];

	memset(part, 0, sizeof(*part));
	part->shard = xfer->shard;
	part->status = CAIRN_PENDING;
	part->stage = CAIRN_STAGE_NONE;
	part->offset = xfer->offset;
	part->length = xfer->length;
	part->raw_length = slot->io.op == CAIRN_OP_DUMP ? xfer->length : slot->io.shard_bytes;
	part->stored_length = part->raw_length;
	part->iov = iov;
	if (bounce) {
		part->iov_count = 1;
		*iov = (struct iovec){bounce, xfer->length};
		if (slot->io.op == CAIRN_OP_DUMP)
			io_gather(xfer, bounce);
	} else {
		part->iov_count = (uint32_t)io_segments(xfer);
		copy_segments(xfer, iov);
	}
	slot->iov_count += part->iov_count;
	slot->best[slot->io.part_count] = CAIRN_PENDING;
	slot->item[slot->io.part_count++] = item;
}

static void fill_header(struct io_slot *slot, struct task_part *part)
{
	struct task *task = part->task;
	struct cairn_io *io = &slot->io;
	const struct cairn_xfer *xfer = task->xfers ? &task->xfers[part->cursor] : NULL;
	bool variable = task->ns->view.shard_count == 0;

	memset(io, 0, sizeof(*io));
	io->op = task->op;
	io->status = CAIRN_PENDING;
	io->key = *task_key(task, part->cursor);
	io->ns = &task->ns->view;
	io->parts = slot->parts;
	io->shard_count = variable && xfer ? xfer->shard_count : task->ns->view.shard_count;
	io->shard_bytes = variable && xfer ? xfer->shard_bytes : task->ns->view.shard_bytes;
	io->flags = slot->reactor->standing ? flags_of(task, xfer) : CAIRN_IO_INLINE;
	io->durability = task->durability;
	io->task_class = task->task_class;
	io->sequence = task->sequence;
	io->deadline_ns = task->deadline_ns;
	io->host_private = slot->reactor->store;
	set_attr(slot, part, part->cursor);
	slot->part = part;
	slot->first_level = task->first_level;
	slot->abandoned = false;
	slot->caller_memory = false;
	slot->aimable = false;
	slot->bounce = NULL;
	slot->iov_count = 0;
	slot->status_stage = CAIRN_STAGE_NONE;
	/* Of all parts: a stage may make some in an io that has none. */
	for (uint32_t i = 0; i < CAIRN_PARTS_MAX; i++)
		slot->best[i] = CAIRN_PENDING;
	slot->item[0] = part->cursor;
}

/*
 * Whether I/O may be aimed at all of the io's memory: it is registered by the caller, or it is
 * the reactor's own, in which the bytes of bounced xfers lie.
 */
static bool aimable(const struct io_slot *slot, const struct task *task)
{
	if (slot->bounce)
		return true;
	for (uint32_t i = 0; task->memory && i < slot->iov_count; i++)
		if (!memory_has(task->memory, slot->iovs[i].iov_base, slot->iovs[i].iov_len))
			return false;
	return task->memory != NULL;
}

/* False: no bounce memory now. */
static bool fill_parts(struct io_slot *slot, struct task_part *part, uint32_t *ret_items)
{
	struct task *task = part->task;
	uint64_t bytes, at = 0;
	bool bounce;
	uint32_t n = measure(task, part->cursor, slot->reactor->bounce_max, &bounce, &bytes);

	if (bounce) {
		slot->bounce = bounce_get(slot->reactor, bytes);
		if (!slot->bounce)
			return false;
		store_count(task->store, COUNT_BOUNCED, 1);
	}
	for (uint32_t i = 0; i < n; i++) {
		add_part(slot, task, part->cursor + i,
			 bounce ? (uint8_t *)slot->bounce + at : NULL);
		at += task->xfers[part->cursor + i].length;
	}
	slot->caller_memory = !bounce;
	slot->aimable = aimable(slot, task);
	*ret_items = n;
	return true;
}

static void take_from_part(struct reactor *reactor, struct task_part *part, uint32_t items)
{
	part->cursor += items;
	store_count(reactor->store, COUNT_QUEUED_XFERS, -(uint64_t)items);
	if (!io_seek(reactor, part) && !list_empty(&part->queued))
		list_remove(&part->queued);
}

/* An xfer that no piece of the bounce memory can ever hold. */
static bool never_fits(struct reactor *reactor, struct task_part *part)
{
	const struct cairn_xfer *xfer;

	if (!part->task->xfers)
		return false;
	xfer = &part->task->xfers[part->cursor];
	return must_bounce(part->task, xfer) && xfer->length > reactor->bounce_max;
}

static void end_first_item(struct reactor *reactor, struct task_part *part, int32_t status,
			   uint16_t stage)
{
	task_item_ended(part->task, part->cursor, status, stage);
	part->items--;
	take_from_part(reactor, part, 1);
	part_settle(reactor, part);
}

/*
 * What would be copied through bounce memory is copied once where a memory tier has it: no I/O
 * targets the caller's bytes so either, and the deadline is kept by this same thread.
 */
static bool serve_first_item(struct reactor *reactor, struct task_part *part)
{
	struct task *task = part->task;
	const struct level *level = &reactor->store->levels[0];
	struct cairn_xfer *xfer;

	if (task->op != CAIRN_OP_LOAD || !level->ops->serve)
		return false;
	xfer = &task->xfers[part->cursor];
	if (!must_bounce(task, xfer) || level->ops->serve(level->self, &task->ns->view, xfer) != 0)
		return false;
	store_count(reactor->store, COUNT_LOAD_HITS, 1);
	store_count(reactor->store, COUNT_LOADED_BYTES, xfer->length);
	reactor->told_bytes += xfer->length;
	reactor->load_bytes += xfer->length;
	end_first_item(reactor, part, 0, 0);
	return true;
}

static uint64_t bytes_of(const struct io_slot *slot)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < slot->io.part_count; i++)
		bytes += slot->io.parts[i].length;
	return bytes;
}

/* Thought before it is known; a variable namespace's blocks are paid for when they are there. */
static void charge_prefetch(struct io_slot *slot)
{
	struct reactor *reactor = slot->reactor;

	slot->charged_bytes = 0;
	if (slot->io.op != CAIRN_OP_PREFETCH)
		return;
	reactor->prefetches_in_flight++;
	slot->charged_bytes = slot->io.shard_count * slot->io.shard_bytes;
	bucket_take(&reactor->prefetch, (int64_t)slot->charged_bytes,
		    reactor->store->sys->now_ns());
}

void io_start_next(struct reactor *reactor, struct task_part *part)
{
	uint32_t task_class = part->task->task_class;
	struct list *free = task_own(part->task) ? &reactor->own_ios : &reactor->free_ios;
	struct list *node = list_take(free);
	struct io_slot *slot;
	uint32_t items = 1;

	assert(node);
	if (serve_first_item(reactor, part)) {
		reactor->passed[task_class - 1] = 0;
		list_prepend(free, node);
		return;
	}
	slot = list_entry(node, struct io_slot, waiting);
	if (never_fits(reactor, part)) {
		list_prepend(free, &slot->waiting);
		end_first_item(reactor, part, -EFBIG, CAIRN_STAGE_NONE);
		return;
	}
	fill_header(slot, part);
	if (part->task->xfers && !fill_parts(slot, part, &items)) {
		list_prepend(free, &slot->waiting);
		list_remove(&part->queued);
		list_append(&reactor->starved, &part->queued);
		return;
	}
	if (!slot->own)
		reactor->passed[task_class - 1] = 0;
	list_append(&part->ios, &slot->link);
	reactor->ios_in_flight++;
	reactor->dumps_in_flight += slot->io.task_class == CAIRN_CLASS_DUMP && !slot->own;
	charge_prefetch(slot);
	store_count(reactor->store, COUNT_IN_FLIGHT, 1);
	take_from_part(reactor, part, items);
	if (slot->io.op == CAIRN_OP_DUMP)
		reactor->dump_bytes += bytes_of(slot);
	else if (slot->io.op == CAIRN_OP_LOAD)
		reactor->load_bytes += bytes_of(slot);
	io_look_united(slot);
	io_submit_to(slot, slot->first_level);
}
