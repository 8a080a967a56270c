/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine where io_uring is forbidden: direct reads and writes go through
 * libaio, which does not block for them; everything else runs on workers.
 *
 * Invariants:
 *  1. A chain in flight has one slot. The slot is with the owner, with one
 *     worker, or with the kernel (its iocb was submitted).
 *  2. Who submits an iocb gives the slot away with it: the owner may reap it,
 *     end the chain and use the slot again before io_submit() has returned.
 *  3. The kernel holds at most one iocb a slot, and the context has room for
 *     all of them.
 *
 * A guard needs nothing done: a dying process waits for its aio before it
 * closes its descriptors.
 */
#include <assert.h>
#include <errno.h>
#include <libaio.h>

#include "sys/bell.h"
#include "sys/chain.h"
#include "sys/workers.h"

#define AIO_MAGIC  0x6c61696fu /* "laio" */
#define REAP_BATCH 64u	       /* events a call; on the stack */

struct aio_slot {
	struct iocb iocb;
	struct engine_chain *chain;
	struct chain_cursor cursor;
	struct aio_slot *next_free;
	uint32_t submitted; /* atomic: invariant 2, see submit_transfer() and reap_kernel() */
};

struct engine {
	uint32_t magic;
	const struct sys *sys;
	bool lone;
	struct bell bell;
	struct workers *workers; /* NULL: the owner runs what blocks */
	io_context_t aio;
	struct chain_queue queue;
	struct chain_queue ended; /* on the owner's thread, in this poll() */
	struct engine_stat stat;
	struct aio_slot *free_slots;
	struct aio_slot slots[];
};

static bool goes_to_kernel(const struct engine_chain *chain, const struct engine_op *op)
{
	return chain->direct && engine_op_transfers(op);
}

/*
 * Gives the slot's next op, a transfer, to the kernel. False: it did not take
 * it, and the slot is still the caller's.
 */
static bool submit_transfer(struct engine *engine, struct aio_slot *slot)
{
	const struct engine_op *op = &slot->chain->ops[slot->cursor.next];
	int fd = chain_fd(&slot->cursor, op);
	struct iocb *iocb = &slot->iocb;
	int rc;

	if (op->code == OP_READV)
		io_prep_preadv(iocb, fd, op->iov, op->iov_count, (long long)op->offset);
	else
		io_prep_pwritev(iocb, fd, op->iov, op->iov_count, (long long)op->offset);
	io_set_eventfd(iocb, engine->bell.fd);
	iocb->data = slot;
	/* Release: pairs with reap_kernel(). All that this thread wrote to slot and chain. */
	__atomic_store_n(&slot->submitted, 1, __ATOMIC_RELEASE);
	do {
		rc = io_submit(engine->aio, 1, &iocb);
	} while (rc == -EINTR);
	if (rc == 1)
		return true;
	__atomic_store_n(&slot->submitted, 0, __ATOMIC_RELAXED);
	return false;
}

/* Runs the slot's chain. True: it has ended. False: the slot is the kernel's now. */
static bool advance(struct engine *engine, struct aio_slot *slot)
{
	struct engine_chain *chain = slot->chain;

	while (slot->cursor.next < chain->op_count) {
		if (goes_to_kernel(chain, &chain->ops[slot->cursor.next]) &&
		    submit_transfer(engine, slot))
			return false;
		chain_step(engine->sys, chain, &slot->cursor);
	}
	chain_end(engine->sys, chain, &slot->cursor);
	return true;
}

static struct aio_slot *slot_of(struct engine *engine, const struct engine_chain *chain)
{
	return &engine->slots[chain->engine_private[0]];
}

static bool run_on_worker(void *context, struct engine_chain *chain)
{
	struct engine *engine = context;

	return advance(engine, slot_of(engine, chain));
}

/* Takes the chain on from the owner's thread, by whoever can without blocking the owner. */
static void go_on(struct engine *engine, struct aio_slot *slot)
{
	struct engine_chain *chain = slot->chain;
	bool blocks = slot->cursor.next < chain->op_count || slot->cursor.fd >= 0;

	if (blocks && slot->cursor.next < chain->op_count &&
	    goes_to_kernel(chain, &chain->ops[slot->cursor.next]) && submit_transfer(engine, slot))
		return;
	if (blocks && engine->workers != NULL && workers_push(engine->workers, chain))
		return;
	if (advance(engine, slot))
		chain_queue_push(&engine->ended, chain);
}

static int aio_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	const struct sys *sys = opts->sys;
	struct engine *engine =
		sys_zalloc(sys, 0, sizeof(*engine) + opts->chains_max * sizeof(engine->slots[0]));
	int rc;

	assert(opts->chains_max > 0);
	if (engine == NULL)
		return -ENOMEM;
	engine->magic = AIO_MAGIC;
	engine->sys = sys;
	engine->lone = opts->lone;
	for (uint32_t i = opts->chains_max; i-- > 0;) {
		engine->slots[i].next_free = engine->free_slots;
		engine->free_slots = &engine->slots[i];
	}
	rc = bell_open(&engine->bell);
	if (rc < 0)
		goto free_engine;
	rc = io_setup((int)opts->chains_max, &engine->aio);
	/* The machine's aio-max-nr is used up: as if there were no aio. */
	if (rc == -EAGAIN)
		rc = -EOPNOTSUPP;
	if (rc < 0)
		goto close_bell;
	if (opts->workers > 0)
		rc = workers_open(sys, opts->workers, &engine->bell, run_on_worker, engine,
				  &engine->workers);
	if (rc < 0)
		goto destroy_aio;
	*ret_engine = engine;
	return 0;

destroy_aio:
	io_destroy(engine->aio);
close_bell:
	bell_close(&engine->bell, sys);
free_engine:
	sys->free(engine);
	return rc;
}

static void aio_close(struct engine *engine)
{
	const struct sys *sys = engine->sys;

	assert(engine->magic == AIO_MAGIC);
	assert(engine->stat.in_flight == 0);
	workers_close(engine->workers);
	io_destroy(engine->aio);
	bell_close(&engine->bell, sys);
	engine->magic = 0;
	sys->free(engine);
}

static int aio_submit(struct engine *engine, struct engine_chain *chain)
{
	struct aio_slot *slot = engine->free_slots;

	assert(engine->magic == AIO_MAGIC);
	chain_check(chain);
	if (slot == NULL)
		return -EAGAIN;
	engine->free_slots = slot->next_free;
	slot->chain = chain;
	slot->cursor = CHAIN_CURSOR_START;
	chain->engine_private[0] = (uint64_t)(slot - engine->slots);
	engine->stat.in_flight++;
	chain_queue_push(&engine->queue, chain);
	return 0;
}

static void dispatch(struct engine *engine)
{
	struct chain_queue queue = chain_queue_take(&engine->queue);
	struct engine_chain *chain;

	if (engine->lone && engine->stat.in_flight == 1 && queue.count == 1 && queue.first->small) {
		chain = chain_queue_pop(&queue);
		chain_run(engine->sys, chain);
		engine->stat.in_place++;
		chain_queue_push(&engine->ended, chain);
	}
	while ((chain = chain_queue_pop(&queue)) != NULL)
		go_on(engine, slot_of(engine, chain));
}

/* Takes finished transfers from the kernel; their chains end or go on. */
static void reap_kernel(struct engine *engine)
{
	struct io_event events[REAP_BATCH];
	struct timespec now = {0};
	int count;

	do {
		count = io_getevents(engine->aio, 0, REAP_BATCH, events, &now);
		assert(count >= 0 || count == -EINTR);
		for (int i = 0; i < count; i++) {
			struct aio_slot *slot = events[i].data;
			/* Acquire: pairs with submit_transfer(). */
			uint32_t was = __atomic_exchange_n(&slot->submitted, 0, __ATOMIC_ACQUIRE);

			assert(was == 1);
			chain_note(slot->chain, &slot->cursor, (int64_t)(long)events[i].res);
			go_on(engine, slot);
		}
	} while (count == REAP_BATCH || count == -EINTR);
}

static void finish(struct engine *engine, struct engine_chain *chain)
{
	struct aio_slot *slot = slot_of(engine, chain);

	assert(slot->chain == chain);
	assert(engine->stat.in_flight > 0);
	slot->chain = NULL;
	slot->next_free = engine->free_slots;
	engine->free_slots = slot;
	engine->stat.in_flight--;
	engine->stat.chains++;
	engine->stat.ops += chain->op_count;
	for (uint32_t i = 0; i < chain->op_count; i++)
		engine->stat.unfixed += engine_op_transfers(&chain->ops[i]);
	chain->done(chain);
}

static int finish_all(struct engine *engine, struct chain_queue ended)
{
	struct engine_chain *chain;
	int count = 0;

	while ((chain = chain_queue_pop(&ended)) != NULL) {
		finish(engine, chain);
		count++;
	}
	return count;
}

static int reap(struct engine *engine)
{
	int count = 0;

	reap_kernel(engine);
	if (engine->workers != NULL)
		count = finish_all(engine, workers_take(engine->workers));
	return count + finish_all(engine, chain_queue_take(&engine->ended));
}

static int aio_poll(struct engine *engine, uint64_t wait_ns)
{
	uint64_t deadline_ns;
	int ended;

	assert(engine->magic == AIO_MAGIC);
	dispatch(engine);
	ended = reap(engine);
	if (ended > 0 || wait_ns == 0)
		return ended;
	deadline_ns = deadline_after(engine->sys, wait_ns);
	while (ended == 0 && !bell_woken(&engine->bell) &&
	       bell_wait(&engine->bell, engine->sys, deadline_ns))
		ended = reap(engine);
	return ended;
}

static void aio_wake(struct engine *engine)
{
	bell_wake(&engine->bell);
}

static int aio_add_guard(struct engine *engine, int fd)
{
	assert(engine->magic == AIO_MAGIC);
	assert(fd >= 0);
	return 0;
}

static void aio_stat(const struct engine *engine, struct engine_stat *ret_stat)
{
	assert(engine->magic == AIO_MAGIC);
	*ret_stat = engine->stat;
}

/* The context is of the parent's memory and is not in the child: only the eventfd is. */
static void aio_abandon(struct engine *engine)
{
	assert(engine->magic == AIO_MAGIC);
	engine->sys->close(engine->bell.fd);
}

const struct engine_ops engine_aio = {
	.name = "aio",
	.open = aio_open,
	.close = aio_close,
	.submit = aio_submit,
	.poll = aio_poll,
	.wake = aio_wake,
	.add_guard = aio_add_guard,
	.stat = aio_stat,
	.abandon = aio_abandon,
};
