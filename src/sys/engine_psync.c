/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that needs nothing of the kernel but plain calls: chains run in
 * place in poll(), or on a few workers.
 *
 * Invariant: `in_flight` is what is in `queue`, plus what the workers have.
 * A guard needs nothing done: a thread in a system call keeps every descriptor
 * of its process open, also after a SIGKILL.
 */
#include <assert.h>
#include <errno.h>

#include "sys/bell.h"
#include "sys/chain.h"
#include "sys/workers.h"

#define PSYNC_MAGIC 0x7073796eu /* "psyn" */

struct engine {
	uint32_t magic;
	const struct sys *sys;
	uint32_t chains_max;
	bool lone;
	struct bell bell;
	struct workers *workers; /* NULL: run in place */
	struct chain_queue queue;
	struct engine_stat stat;
};

static bool run_on_worker(void *context, struct engine_chain *chain)
{
	const struct engine *engine = context;

	chain_run(engine->sys, chain);
	return true;
}

static int psync_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	const struct sys *sys = opts->sys;
	struct engine *engine = sys_zalloc(sys, 0, sizeof(*engine));
	int rc;

	assert(opts->chains_max > 0);
	if (engine == NULL)
		return -ENOMEM;
	engine->magic = PSYNC_MAGIC;
	engine->sys = sys;
	engine->chains_max = opts->chains_max;
	engine->lone = opts->lone;
	rc = bell_open(&engine->bell);
	if (rc < 0)
		goto free_engine;
	if (opts->workers > 0)
		rc = workers_open(sys, opts->workers, &engine->bell, run_on_worker, engine,
				  &engine->workers);
	if (rc < 0)
		goto close_bell;
	*ret_engine = engine;
	return 0;

close_bell:
	bell_close(&engine->bell, sys);
free_engine:
	sys->free(engine);
	return rc;
}

static void psync_close(struct engine *engine)
{
	const struct sys *sys = engine->sys;

	assert(engine->magic == PSYNC_MAGIC);
	assert(engine->stat.in_flight == 0);
	workers_close(engine->workers);
	bell_close(&engine->bell, sys);
	engine->magic = 0;
	sys->free(engine);
}

static int psync_submit(struct engine *engine, struct engine_chain *chain)
{
	assert(engine->magic == PSYNC_MAGIC);
	chain_check(chain);
	if (engine->stat.in_flight == engine->chains_max)
		return -EAGAIN;
	engine->stat.in_flight++;
	chain_queue_push(&engine->queue, chain);
	return 0;
}

static void finish(struct engine *engine, struct engine_chain *chain)
{
	assert(engine->stat.in_flight > 0);
	engine->stat.in_flight--;
	engine->stat.chains++;
	engine->stat.ops += chain->op_count;
	for (uint32_t i = 0; i < chain->op_count; i++)
		engine->stat.unfixed += engine_op_transfers(&chain->ops[i]);
	chain->done(chain);
}

/* Runs or hands out what is queued; what done() submits meanwhile waits for the next poll(). */
static int dispatch(struct engine *engine)
{
	struct chain_queue queue = chain_queue_take(&engine->queue);
	bool in_place = engine->workers == NULL;
	struct engine_chain *chain;
	int ended = 0;

	if (engine->lone && engine->stat.in_flight == 1 && queue.count == 1 && queue.first->small) {
		in_place = true;
		engine->stat.in_place++;
	}
	while ((chain = chain_queue_pop(&queue)) != NULL) {
		if (!in_place && workers_push(engine->workers, chain))
			continue;
		chain_run(engine->sys, chain);
		finish(engine, chain);
		ended++;
	}
	return ended;
}

static int reap(struct engine *engine)
{
	struct engine_chain *chain;
	struct chain_queue ended;
	int count = 0;

	if (engine->workers == NULL)
		return 0;
	ended = workers_take(engine->workers);
	while ((chain = chain_queue_pop(&ended)) != NULL) {
		finish(engine, chain);
		count++;
	}
	return count;
}

static int psync_poll(struct engine *engine, uint64_t wait_ns)
{
	uint64_t deadline_ns;
	int ended;

	assert(engine->magic == PSYNC_MAGIC);
	ended = dispatch(engine);
	ended += reap(engine);
	if (ended > 0 || wait_ns == 0)
		return ended;
	deadline_ns = deadline_after(engine->sys, wait_ns);
	while (ended == 0 && !bell_woken(&engine->bell) &&
	       bell_wait(&engine->bell, engine->sys, deadline_ns))
		ended = reap(engine);
	return ended;
}

static void psync_wake(struct engine *engine)
{
	bell_wake(&engine->bell);
}

static int psync_add_guard(struct engine *engine, int fd)
{
	assert(engine->magic == PSYNC_MAGIC);
	assert(fd >= 0);
	return 0;
}

static void psync_stat(const struct engine *engine, struct engine_stat *ret_stat)
{
	assert(engine->magic == PSYNC_MAGIC);
	*ret_stat = engine->stat;
}

static void psync_abandon(struct engine *engine)
{
	assert(engine->magic == PSYNC_MAGIC);
	engine->sys->close(engine->bell.fd);
}

const struct engine_ops engine_psync = {
	.name = "psync",
	.open = psync_open,
	.close = psync_close,
	.submit = psync_submit,
	.poll = psync_poll,
	.wake = psync_wake,
	.add_guard = psync_add_guard,
	.stat = psync_stat,
	.abandon = psync_abandon,
};
