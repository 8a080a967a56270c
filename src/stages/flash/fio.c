/* SPDX-License-Identifier: Apache-2.0 */
/* What every io of the tier is made of: chains, flushes, endings. */
#include "stages/flash/tier.h"

#include <stdarg.h>
#include <stdio.h>

uint32_t now_seconds(const struct flash *tier)
{
	return (uint32_t)(tier->sys->realtime_ns() / 1000000000u);
}

bool block_expired(const struct flash *tier, uint32_t id)
{
	struct table_block block;

	table_look(tier->table, id, &block);
	return block.expiry && block.expiry <= now_seconds(tier);
}

/* ---- begin and end ------------------------------------------------------------------- */

static void expire(struct waiter *waiter)
{
	struct fio *f = fio_of(waiter);

	assert(!f->ws && !f->span && !f->chains_out && !f->claim_count);
	cairn_io_fail(f->io, -ETIMEDOUT);
	fio_complete(f);
}

void fio_init(struct fio *f, struct flash *tier, struct cairn_io *io)
{
	assert(f->magic == 0 && tier->magic == TIER_MAGIC);
	f->magic = FIO_MAGIC;
	f->tier = tier;
	f->io = io;
	f->partial = UINT32_MAX;
	f->entry = TABLE_NONE;
	f->wait.io = io;
	f->wait.host = tier->host;
	f->wait.mutex = &tier->mutex;
	f->wait.expire = expire;
	f->space = io->ns->binding[tier->env->index];
	assert(f->space && io->part_count <= CAIRN_PARTS_MAX);
}

struct waiter **fio_key_list(struct fio *f)
{
	return &f->tier->wait_key[f->fingerprint % WAIT_BUCKETS];
}

void fio_complete(struct fio *f)
{
	struct flash *tier = f->tier;
	struct cairn_io *io = f->io;

	assert(f->magic == FIO_MAGIC && !f->chains_out && !f->wait.step && !f->span);
	for (uint32_t i = 0; i < io->part_count; i++)
		assert(io->parts[i].status != CAIRN_PENDING);
	if (f->ws)
		tier->host->buffer_put(io, f->ws);
	f->ws = NULL;
	f->magic = 0;
	tier->host->complete(io);
}

int32_t fio_errno(int64_t result)
{
	switch (result) {
	case 0:
	case -ENOSPC:
	case -ECANCELED:
		return (int32_t)result;
	case -EDQUOT:
		return -ENOSPC;
	default:
		return -EIO;
	}
}

/* ---- chains ------------------------------------------------------------------------------ */

void fio_send(struct fio *f, struct engine_chain *chain)
{
	const struct engine_ops *ops;
	struct engine *engine = stage_env(f->tier->env)->engine(f->io, &ops);
	int rc;

	fence_begin(f->tier);
	rc = ops->submit(engine, chain);
	/* An io has fewer chains than the engine has places for each. */
	assert(rc == 0);
	(void)rc;
}

/* ---- flushes -------------------------------------------------------------------------------- */

/*
 * One flush at a time; who comes while it runs waits for the next, which then is
 * one for all of them. A flush covers what was written before it began.
 */
static void flush_step(struct waiter *waiter);

static void flush_done(struct engine_chain *chain)
{
	struct flash *tier = (struct flash *)((char *)chain - offsetof(struct flash, flush_chain));
	int64_t result = tier->flush_op.result;

	fence_end(tier);
	cairn_count(tier->env, CNT_FLUSHES, 1);
	tier_lock(tier);
	assert(tier->flushing);
	for (struct waiter *w = tier->flush_batch; w; w = w->next)
		fio_of(w)->flush_result = result;
	waiters_wake(&tier->flush_batch);
	tier->flushing = tier->flush_next != NULL;
	if (tier->flushing) {
		struct waiter *first;

		/* One of them sends the flush; it waits like the others. */
		fio_of(tier->flush_next)->flush_lead = true;
		first = waiters_wake_one(&tier->flush_next);
		tier->flush_batch = tier->flush_next;
		tier->flush_next = NULL;
		for (struct waiter *w = tier->flush_batch; w; w = w->next)
			w->list = &tier->flush_batch;
		(void)first;
	}
	tier_unlock(tier);
}

static void flush_send(struct fio *f)
{
	struct flash *tier = f->tier;

	memset(&tier->flush_op, 0, sizeof(tier->flush_op));
	tier->flush_op.code = OP_FDATASYNC;
	tier->flush_op.fd = tier->fd;
	memset(&tier->flush_chain, 0, sizeof(tier->flush_chain));
	tier->flush_chain.ops = &tier->flush_op;
	tier->flush_chain.op_count = 1;
	tier->flush_chain.done = flush_done;
	fio_send(f, &tier->flush_chain);
}

static void flush_step(struct waiter *waiter)
{
	struct fio *f = fio_of(waiter);
	struct flash *tier = f->tier;
	void (*then)(struct fio *);

	tier_lock(tier);
	if (f->flush_lead) {
		f->flush_lead = false;
		waiter_park(&f->wait, &tier->flush_batch, flush_step);
		tier_unlock(tier);
		flush_send(f);
		return;
	}
	tier_unlock(tier);
	then = f->then;
	f->then = NULL;
	then(f);
}

void fio_flush(struct fio *f, void (*then)(struct fio *))
{
	struct flash *tier = f->tier;
	bool lead;

	assert(!f->then);
	f->then = then;
	f->flush_result = 0;
	tier_lock(tier);
	lead = !tier->flushing;
	tier->flushing = true;
	waiter_park(&f->wait, lead ? &tier->flush_batch : &tier->flush_next, flush_step);
	tier_unlock(tier);
	if (lead)
		flush_send(f);
}

/* ---- parents ----------------------------------------------------------------------------------
 */

static uint64_t parent_of(const struct fio *f, const struct cairn_block_attr *attr)
{
	static const struct cairn_key none;

	if (memcmp(&attr->parent, &none, sizeof(none)) == 0)
		return 0;
	return table_fingerprint(f->tier->table, &attr->parent, f->space->id, f->generation);
}

void block_tell(struct fio *f, uint32_t id)
{
	uint64_t parent = parent_of(f, &f->io->attr);

	if (parent)
		block_continues(f->tier, id, parent);
}

bool block_begin(struct fio *f, uint32_t id, struct cairn_block_attr *attr)
{
	uint64_t parent = parent_of(f, attr);

	table_set_depth(f->tier->table, id, attr->depth);
	if (parent && !table_may_continue(f->tier->table, id, parent)) {
		memset(&attr->parent, 0, sizeof(attr->parent));
		parent = 0;
	}
	if (parent)
		block_continues(f->tier, id, parent);
	return parent;
}
