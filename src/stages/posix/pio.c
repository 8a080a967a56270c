/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every operation of the tier is made of: chains of file operations,
 * waits, and a workspace.
 *
 * Invariants, numbered:
 *  1. An io waits for one thing at a time: its chains, one resume(), or a place
 *     in one list. p->step is set only while resume() is waited for.
 *  2. An io holds at most one workspace, and none while it waits for one; so
 *     ios never wait for each other's memory in a circle.
 *  3. What waits in a list holds nothing, and ends at its deadline (stages/wait.h).
 */
#include "stages/posix/tier.h"

#include <sys/stat.h>

/* The engine had no place: it has one when a chain ended, which takes about this long. */
#define RESEND_NS   20000u
/* Segments of one read or write: below the kernel's 1024. */
#define RUN_IOV_MAX 1000u

/* ---- chains ---------------------------------------------------------------- */

static void chains_over(struct pio *p)
{
	void (*then)(struct pio *) = p->then;

	if (p->slots_out || p->slot_sent < p->slot_count)
		return;
	p->then = NULL;
	then(p);
}

static void chain_done(struct engine_chain *chain)
{
	struct slot *slot = (struct slot *)((char *)chain - offsetof(struct slot, chain));
	struct pio *p = slot->pio;

	assert(p->magic == PIO_MAGIC && p->slots_out > 0);
	p->slots_out--;
	chains_over(p);
}

static void chains_send(struct pio *p)
{
	const struct engine_ops *ops;
	struct engine *engine = stage_env(p->tier->env)->engine(p->io, &ops);

	while (p->slot_sent < p->slot_count) {
		int rc = ops->submit(engine, &p->slots[p->slot_sent].chain);

		if (rc == -EAGAIN) {
			pio_sleep(p, RESEND_NS, chains_send);
			return;
		}
		assert(rc == 0);
		p->slot_sent++;
		p->slots_out++;
	}
}

void pio_chain(struct pio *p, uint32_t slot)
{
	struct slot *s = &p->slots[slot];

	memset(&s->chain, 0, sizeof(s->chain));
	s->pio = p;
	s->chain.ops = s->ops;
	s->chain.done = chain_done;
	s->chain.direct = p->tier->direct;
}

struct engine_op *pio_op(struct pio *p, uint32_t slot, enum engine_code code, int fd)
{
	struct slot *s = &p->slots[slot];
	struct engine_op *op = &s->ops[s->chain.op_count];

	assert(s->chain.op_count < CHAIN_OPS);
	memset(op, 0, sizeof(*op));
	op->code = code;
	op->fd = fd;
	s->chain.op_count++;
	return op;
}

void pio_open(struct pio *p, uint32_t slot, const char *path, int flags)
{
	struct engine_op *op = pio_op(p, slot, OP_OPENAT, p->tier->blocks_fd);

	op->path = path;
	op->flags = flags | O_CLOEXEC;
	op->mode = 0666;
}

void pio_unlink(struct pio *p, uint32_t slot, const char *path)
{
	struct engine_op *op = pio_op(p, slot, OP_UNLINKAT, p->tier->blocks_fd);

	op->path = path;
	op->soft = true;
}

void pio_make_dir(struct pio *p, uint32_t slot)
{
	struct engine_op *op;

	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	op = pio_op(p, slot, OP_MKDIRAT, p->tier->blocks_fd);
	op->path = p->dir_name;
	op->mode = 0777;
	op->soft = true;
}

void pio_stat_dir(struct pio *p, uint32_t slot)
{
	struct engine_op *op;

	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	op = pio_op(p, slot, OP_STATX, p->tier->blocks_fd);
	op->path = p->dir_name;
	op->stx = &p->dir_stx;
	op->soft = true;
}

void pio_go(struct pio *p, uint32_t count, void (*then)(struct pio *))
{
	assert(!p->then && !p->step && !p->slots_out && count >= 1 && count <= 2);
	p->then = then;
	p->slot_count = count;
	p->slot_sent = 0;
	chains_send(p);
}

static int64_t call_work(void *context)
{
	struct pio *p = context;

	assert(p->magic == PIO_MAGIC && p->work);
	return p->work(p);
}

void pio_call_chain(struct pio *p, uint32_t slot, int64_t (*work)(struct pio *))
{
	struct engine_op *op;

	p->work = work;
	pio_chain(p, slot);
	op = pio_op(p, slot, OP_CALL, -1);
	op->call = call_work;
	op->context = p;
}

void pio_call(struct pio *p, int64_t (*work)(struct pio *), void (*then)(struct pio *))
{
	pio_call_chain(p, 0, work);
	pio_go(p, 1, then);
}

int64_t pio_called(const struct pio *p)
{
	assert(p->slots[0].ops[0].code == OP_CALL);
	return p->slots[0].ops[0].result;
}

int64_t pio_result(const struct pio *p, uint32_t slot)
{
	const struct engine_chain *chain = &p->slots[slot].chain;

	/* A file system that fills up in the middle of a write takes a part of it. */
	for (uint32_t i = 0; chain->result < 0 && i < chain->op_count; i++)
		if (chain->ops[i].code == OP_WRITEV && chain->ops[i].result >= 0 &&
		    chain->ops[i].result < (int64_t)chain->ops[i].length)
			return -ENOSPC;
	return chain->result;
}

/* ---- waits ------------------------------------------------------------------- */

static uint32_t wait_bucket(const struct cairn_key *key)
{
	return (key->bytes[0] ^ key->bytes[15]) % WAIT_BUCKETS;
}

static struct pio *pio_of(struct waiter *waiter)
{
	return (struct pio *)((char *)waiter - offsetof(struct pio, wait));
}

static void go_on(struct waiter *waiter)
{
	struct pio *p = pio_of(waiter);
	void (*step)(struct pio *) = p->step;

	p->step = NULL;
	step(p);
}

static void give_up(struct pio *p)
{
	assert(!p->ws && p->fd < 0 && !p->pinned && p->partial == INDEX_NONE);
	cairn_io_fail(p->io, -ETIMEDOUT);
	pio_complete(p);
}

static void expire(struct waiter *waiter)
{
	struct pio *p = pio_of(waiter);

	p->step = NULL;
	give_up(p);
}

void pio_wait_init(struct pio *p)
{
	p->wait = (struct waiter){
		.io = p->io, .host = p->tier->host, .mutex = &p->tier->mutex, .expire = expire};
}

static void wait_in(struct pio *p, struct waiter **list, void (*step)(struct pio *))
{
	assert(!p->step && !p->ws && p->fd < 0);
	p->step = step;
	waiter_wait(&p->wait, list, go_on);
}

void pio_wait_key(struct pio *p, void (*step)(struct pio *))
{
	wait_in(p, &p->tier->wait_key[wait_bucket(&p->id.key)], step);
}

void pio_wait_room(struct pio *p, void (*step)(struct pio *))
{
	cairn_count(p->tier->env, CNT_ROOM_WAITS, 1);
	wait_in(p, &p->tier->wait_room, step);
}

/* Each looks again for itself; one that need not have is only asked once more. */
void pio_wake_key(struct posix *tier, const struct cairn_key *key)
{
	waiters_wake(&tier->wait_key[wait_bucket(key)]);
}

void pio_wake_room(struct posix *tier)
{
	waiters_wake(&tier->wait_room);
}

void pio_sleep(struct pio *p, uint64_t ns, void (*step)(struct pio *))
{
	assert(!p->step);
	p->step = step;
	waiter_sleep(&p->wait, ns, go_on);
}

bool pio_late(const struct pio *p)
{
	return waiter_late(&p->wait);
}

void pio_retry(struct pio *p, uint64_t ns, void (*step)(struct pio *))
{
	if (pio_late(p))
		give_up(p);
	else
		pio_sleep(p, ns, step);
}

/* ---- endings -------------------------------------------------------------------- */

void pio_complete(struct pio *p)
{
	struct posix *tier = p->tier;
	struct cairn_io *io = p->io;

	assert(!p->slots_out && !p->step && !p->pinned && p->fd < 0);
	for (uint32_t i = 0; i < io->part_count; i++)
		assert(io->parts[i].status != CAIRN_PENDING);
	if (p->ws)
		tier->host->buffer_put(io, p->ws);
	p->ws = NULL;
	p->magic = 0;
	tier->host->complete(io);
}

int32_t pio_errno(int64_t result)
{
	switch (result) {
	case 0:
	case -ENOSPC:
	case -ENOENT:
	case -ESTALE:
	case -ECANCELED:
		return (int32_t)result;
	case -EDQUOT:
		return -ENOSPC;
	case -EFBIG:
		return -EFBIG;
	default:
		return -EIO;
	}
}

/* ---- workspace ------------------------------------------------------------------- */

bool pio_workspace(struct pio *p, size_t fixed, uint32_t iov_max, size_t bounce,
		   void (*step)(struct pio *))
{
	size_t lists, bytes;
	uint8_t *ws;

	assert(!p->ws);
	iov_max = iov_max > RUN_IOV_MAX ? RUN_IOV_MAX : iov_max;
	fixed = round_up(fixed, FORMAT_PAGE);
	lists = round_up(iov_max * sizeof(*p->iov) + p->io->part_count * sizeof(*p->grains),
			 FORMAT_PAGE);
	bytes = fixed + lists + round_up(bounce, FORMAT_PAGE);
	if (bytes > p->tier->host->buffer_max)
		bytes = p->tier->host->buffer_max / FORMAT_PAGE * FORMAT_PAGE;
	assert(bytes >= fixed + lists);
	p->step = step; /* before asking: what comes back meanwhile calls resume() */
	p->wait.step = go_on;
	ws = p->tier->host->buffer_get(p->io, bytes);
	if (!ws)
		return false;
	p->step = NULL;
	p->wait.step = NULL;
	p->ws = ws;
	p->bounce_from = fixed;
	p->bounce_end = bytes - lists;
	p->iov = (struct iovec *)(void *)(ws + p->bounce_end);
	p->iov_max = iov_max;
	p->grains = (struct grain *)(void *)(p->iov + iov_max);
	p->grain_max = p->io->part_count;
	pio_round(p);
	return true;
}

void pio_round(struct pio *p)
{
	p->iov_count = 0;
	p->grain_count = 0;
	p->run_count = 0;
	p->bounce_at = p->bounce_from;
}

size_t pio_bounce_left(const struct pio *p)
{
	return p->bounce_end - p->bounce_at;
}

uint8_t *pio_bounce(struct pio *p, size_t bytes)
{
	uint8_t *at = p->ws + p->bounce_at;

	bytes = round_up(bytes, FORMAT_PAGE);
	if (bytes > pio_bounce_left(p))
		return NULL;
	p->bounce_at += bytes;
	return at;
}

bool pio_run_add(struct pio *p, uint64_t offset, void *base, uint64_t length)
{
	struct run *run = p->run_count ? &p->runs[p->run_count - 1] : NULL;
	struct iovec *last = p->iov_count ? &p->iov[p->iov_count - 1] : NULL;

	assert(!run || last); /* no run is empty */
	if (run && run->offset + run->length == offset &&
	    (char *)last->iov_base + last->iov_len == (char *)base) {
		last->iov_len += length;
		run->length += length;
		return true;
	}
	if (p->iov_count == p->iov_max)
		return false;
	if (!run || run->offset + run->length != offset) {
		if (p->run_count == (p->io->op == CAIRN_OP_DUMP ? RUNS_DUMP : RUNS_MAX))
			return false;
		run = &p->runs[p->run_count++];
		*run = (struct run){.offset = offset, .iov_first = p->iov_count};
	}
	p->iov[p->iov_count++] = (struct iovec){base, length};
	run->iov_count++;
	run->length += length;
	return true;
}

void pio_run_ops(struct pio *p, uint32_t slot, enum engine_code code, int fd, uint32_t first,
		 uint32_t end)
{
	for (uint32_t i = first; i < end; i++) {
		struct engine_op *op = pio_op(p, slot, code, fd);

		op->iov = p->iov + p->runs[i].iov_first;
		op->iov_count = (int)p->runs[i].iov_count;
		op->offset = p->runs[i].offset;
		op->length = p->runs[i].length;
	}
}
