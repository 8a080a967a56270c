/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines where io_uring is not to be had: plain calls, that are made in
 * poll() where they need not wait, and on workers where they must. `aio` leaves
 * direct reads and writes to libaio; with `psync` they are calls like the rest.
 *
 * Invariants:
 *  1. A chain in flight has one slot. The slot is with the owner, with one
 *     worker, or with the kernel (its request was sent or queued).
 *  2. The owner's thread makes no call that waits, unless there is no worker to
 *     make it: a chain that only reads is taken as far as memory and page cache
 *     go, and its direct reads are queued; the rest is a worker's, from the op
 *     that would wait to the end, or to the next transfer that libaio takes.
 *
 * A guard needs nothing done: a dying process waits for its aio before it
 * closes its descriptors, and a thread in a system call keeps them all open.
 */
#include <assert.h>
#include <errno.h>

#include "sys/aio.h"
#include "sys/workers.h"

#define CALLS_MAGIC 0x63616c6cu /* "call" */

struct slot {
	struct aio_request request;
	struct engine_chain *chain;
	struct chain_cursor cursor;
	struct slot *next_free;
	bool at_once; /* the owner tries it first */
};

struct engine {
	uint32_t magic;
	const struct sys *sys;
	struct bell bell;
	struct workers_client client; /* without workers: the owner runs what blocks */
	struct aio *aio;	      /* NULL: psync */
	struct chain_queue queue;
	struct chain_queue ended; /* their done() is due */
	struct engine_stat stat;
	struct chain_share share; /* of this poll() */
	struct slot *free_slots;
	struct slot slots[];
};

static struct slot *slot_of(struct engine *engine, const struct engine_chain *chain)
{
	return &engine->slots[chain->engine_private[0]];
}

static bool goes_to_kernel(const struct engine *engine, const struct engine_chain *chain,
			   const struct engine_op *op)
{
	return engine->aio != NULL && chain->direct && engine_op_transfers(op);
}

/* ---- the way of a chain ------------------------------------------------- */

/* Runs the slot's chain, waiting. True: it has ended. False: the slot is the kernel's now. */
static bool advance(struct engine *engine, struct slot *slot)
{
	struct engine_chain *chain = slot->chain;

	while (slot->cursor.next < chain->op_count) {
		const struct engine_op *op = &chain->ops[slot->cursor.next];

		if (goes_to_kernel(engine, chain, op) &&
		    aio_send(engine->aio, &slot->request, chain_fd(&slot->cursor, op), op))
			return false;
		chain_step(engine->sys, chain, &slot->cursor);
	}
	chain_end(engine->sys, chain, &slot->cursor);
	return true;
}

static bool run_on_worker(void *context, struct engine_chain *chain)
{
	struct engine *engine = context;

	return advance(engine, slot_of(engine, chain));
}

static void hand_over(struct engine *engine, struct slot *slot)
{
	if (engine->client.workers != NULL && workers_push(&engine->client, slot->chain))
		return;
	if (advance(engine, slot))
		chain_queue_push(&engine->ended, slot->chain);
}

/* Takes the chain on from the owner's thread: invariant 2. */
static void go_on(struct engine *engine, struct slot *slot)
{
	struct engine_chain *chain = slot->chain;
	bool closes = slot->cursor.fd >= 0;

	if (!slot->at_once && (closes || slot->cursor.next < chain->op_count)) {
		hand_over(engine, slot);
		return;
	}
	while (slot->cursor.next < chain->op_count) {
		const struct engine_op *op = &chain->ops[slot->cursor.next];

		if (goes_to_kernel(engine, chain, op)) {
			aio_queue(engine->aio, &slot->request, chain_fd(&slot->cursor, op), op);
			return;
		}
		if (!chain_step_cached(engine->sys, chain, &slot->cursor)) {
			hand_over(engine, slot);
			return;
		}
	}
	chain_end(engine->sys, chain, &slot->cursor);
	chain_queue_push(&engine->ended, chain);
}

static void transfer_ended(void *context, struct aio_request *request, int64_t result)
{
	struct engine *engine = context;
	struct slot *slot = (struct slot *)(void *)request; /* its first member */
	struct engine_chain *chain = slot->chain;

	/* What must not wait may end early for that alone: a worker does it again. */
	if (!request->patient && result != (int64_t)chain->ops[slot->cursor.next].length) {
		hand_over(engine, slot);
		return;
	}
	chain_note(chain, &slot->cursor, result);
	go_on(engine, slot);
}

/* ---- the table ---------------------------------------------------------- */

static int calls_open(const struct engine_opts *opts, bool with_aio, struct engine **ret_engine)
{
	const struct sys *sys = opts->sys;
	struct engine *engine =
		sys_zalloc(sys, 0, sizeof(*engine) + opts->chains_max * sizeof(engine->slots[0]));
	int rc;

	static_assert(offsetof(struct slot, request) == 0, "transfer_ended() counts on it");
	assert(opts->chains_max > 0);
	if (engine == NULL)
		return -ENOMEM;
	engine->magic = CALLS_MAGIC;
	engine->sys = sys;
	for (uint32_t i = opts->chains_max; i-- > 0;) {
		engine->slots[i].next_free = engine->free_slots;
		engine->free_slots = &engine->slots[i];
	}
	rc = bell_open(&engine->bell);
	if (rc < 0)
		goto free_engine;
	if (with_aio)
		rc = aio_open(sys, opts->chains_max, &engine->bell, transfer_ended, engine,
			      &engine->aio);
	if (rc < 0)
		goto close_bell;
	engine->client = (struct workers_client){
		.workers = opts->workers,
		.fn = run_on_worker,
		.context = engine,
		.bell = &engine->bell,
	};
	*ret_engine = engine;
	return 0;

close_bell:
	bell_close(&engine->bell, sys);
free_engine:
	sys->free(engine);
	return rc;
}

static int aio_engine_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	return calls_open(opts, true, ret_engine);
}

static int psync_engine_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	return calls_open(opts, false, ret_engine);
}

static void calls_close(struct engine *engine)
{
	const struct sys *sys = engine->sys;

	assert(engine->magic == CALLS_MAGIC);
	assert(engine->stat.in_flight == 0);
	aio_close(engine->aio);
	bell_close(&engine->bell, sys);
	engine->magic = 0;
	sys->free(engine);
}

static int calls_submit(struct engine *engine, struct engine_chain *chain)
{
	struct slot *slot = engine->free_slots;

	assert(engine->magic == CALLS_MAGIC);
	chain_check(chain);
	if (slot == NULL)
		return -EAGAIN;
	engine->free_slots = slot->next_free;
	slot->chain = chain;
	slot->cursor = CHAIN_CURSOR_START;
	/* Where a worker must come in anyway it comes in at once. */
	slot->at_once = chain_only_reads(chain) && (engine->aio != NULL || !chain->direct);
	chain->engine_private[0] = (uint64_t)(slot - engine->slots);
	engine->stat.in_flight++;
	chain_queue_push(&engine->queue, chain);
	return 0;
}

static void finish(struct engine *engine, struct engine_chain *chain)
{
	struct slot *slot = slot_of(engine, chain);

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
	chain_share_add(&engine->share, chain);
	chain->done(chain);
}

/* As many as belong to this poll(). Returns how many. */
static int finish_some(struct engine *engine)
{
	int count = 0;

	while (engine->ended.count > 0 && !chain_share_full(&engine->share)) {
		finish(engine, chain_queue_pop(&engine->ended));
		count++;
	}
	return count;
}

/* Waits for something to come, at most @wait_ns, and ends what has. */
static int reap(struct engine *engine, uint64_t wait_ns)
{
	struct chain_queue done = {0};
	struct engine_chain *chain;

	if (engine->aio != NULL)
		aio_wait(engine->aio, wait_ns);
	else if (wait_ns > 0)
		bell_wait(&engine->bell, wait_ns);
	if (engine->client.workers != NULL)
		done = workers_take(&engine->client);
	while ((chain = chain_queue_pop(&done)) != NULL)
		chain_queue_push(&engine->ended, chain);
	return finish_some(engine);
}

static int calls_poll(struct engine *engine, uint64_t wait_ns)
{
	struct chain_queue queue = chain_queue_take(&engine->queue);
	uint64_t deadline_ns, left_ns;
	struct engine_chain *chain;
	int ended;

	assert(engine->magic == CALLS_MAGIC);
	engine->share = (struct chain_share){0};
	/* What done() submits from here on waits for the next poll(). */
	while ((chain = chain_queue_pop(&queue)) != NULL)
		go_on(engine, slot_of(engine, chain));
	deadline_ns = wait_ns == 0 ? 0 : deadline_after(engine->sys, wait_ns);
	do {
		if (engine->aio != NULL)
			aio_flush(engine->aio);
		left_ns = 0;
		/* The mark first: whoever rang the bell may have been heard before. */
		if (wait_ns > 0 && engine->ended.count == 0 && !bell_woken(&engine->bell))
			left_ns = deadline_left(engine->sys, deadline_ns);
		ended = reap(engine, left_ns);
	} while (ended == 0 && left_ns > 0);
	return ended;
}

static void calls_wake(struct engine *engine)
{
	bell_wake(&engine->bell);
}

static int calls_add_guard(struct engine *engine, int fd)
{
	assert(engine->magic == CALLS_MAGIC);
	assert(fd >= 0);
	return 0;
}

static void calls_stat(const struct engine *engine, struct engine_stat *ret_stat)
{
	assert(engine->magic == CALLS_MAGIC);
	*ret_stat = engine->stat;
}

/* An aio context is of the parent's memory and is not in the child: only the eventfd is. */
static void calls_abandon(struct engine *engine)
{
	assert(engine->magic == CALLS_MAGIC);
	engine->sys->close(engine->bell.fd);
}

#define CALLS_TABLE                                                                                \
	.close = calls_close, .submit = calls_submit, .poll = calls_poll, .wake = calls_wake,      \
	.add_guard = calls_add_guard, .stat = calls_stat, .abandon = calls_abandon

const struct engine_ops engine_aio = {
	.name = "aio", .probe = aio_probe, .open = aio_engine_open, CALLS_TABLE};
const struct engine_ops engine_psync = {.name = "psync", .open = psync_engine_open, CALLS_TABLE};
