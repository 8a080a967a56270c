/* SPDX-License-Identifier: Apache-2.0 */
/* Many threads at once, and a child after a fork. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conformance.h"

#define THREADS 8u

/* ---- one block, dumped by all ----------------------------------------------------------- */

#define ROUNDS	    40u
#define MANY_SHARDS 64u
#define MANY_BYTES  300u

struct worker {
	struct ctx *ctx;
	struct block block;
	uint32_t index;
	uint64_t seed;
	long long bad; /* a status that should not be; 0: none */
	const char *where;
};

static void note(struct worker *worker, const char *where, long long status)
{
	if (worker->bad)
		return;
	worker->bad = status ? status : 1;
	worker->where = where;
}

/* Once a block is seen whole, every shard of it loads. */
static void *dump_and_watch(void *argument)
{
	struct worker *worker = argument;
	uint32_t i, shard;
	int64_t seen;
	int ret;

	for (i = 0; i < MANY_SHARDS / THREADS; i++) {
		shard = (worker->index + i * THREADS * 5) % MANY_SHARDS;
		ret = block_dump_shard(worker->ctx, &worker->block, shard);
		if (ret != 0)
			note(worker, "a dump", ret);
		seen = block_present(&worker->block);
		if (seen < 0)
			note(worker, "a lookup", seen);
		if (seen != 1)
			continue;
		ret = block_load(worker->ctx, &worker->block);
		if (ret != 0)
			note(worker, "a load of what was seen whole", ret);
	}
	return NULL;
}

static enum verdict crew_run(struct ctx *ctx, struct worker *workers, void *(*run)(void *))
{
	pthread_t threads[THREADS];
	uint32_t i, started;

	for (started = 0; started < THREADS; started++)
		if (pthread_create(&threads[started], NULL, run, &workers[started]) != 0)
			break;
	for (i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	WANT_IS(ctx, started, THREADS);
	for (i = 0; i < THREADS; i++)
		WANT(ctx, workers[i].bad == 0, "%s gave %s", workers[i].where,
		     status_text(workers[i].bad));
	return CASE_PASSED;
}

static enum verdict threads_one_block(struct ctx *ctx)
{
	struct worker workers[THREADS];
	enum verdict verdict;
	struct block block;
	uint32_t round, i;

	for (round = 0; round < ROUNDS; round++) {
		block = block_variable(ctx, round,
				       (struct shape){MANY_SHARDS, MANY_BYTES, MANY_BYTES});
		for (i = 0; i < THREADS; i++)
			workers[i] = (struct worker){.ctx = ctx, .block = block, .index = i};
		verdict = crew_run(ctx, workers, dump_and_watch);
		if (verdict != CASE_PASSED)
			return verdict;
		WANT_IS(ctx, block_present(&block), 1);
		WANT_IS(ctx, block_load(ctx, &block), 0);
	}
	return CASE_PASSED;
}

/* All shards from every thread: each ends with 0 or CAIRN_PRESENT, and one set of bytes wins. */
static void *dump_the_same(void *argument)
{
	struct worker *worker = argument;
	uint32_t i, shard;
	int ret;

	for (i = 0; i < worker->block.shape.count; i++) {
		shard = (i * 7 + worker->index) % worker->block.shape.count;
		ret = block_dump_shard(worker->ctx, &worker->block, shard);
		if (ret != 0 && ret != CAIRN_PRESENT)
			note(worker, "a dump", ret);
	}
	/* Whoever was told that all is there finds it so. */
	if (block_present(&worker->block) != 1)
		note(worker, "a lookup after all shards were reported", 0);
	ret = block_load(worker->ctx, &worker->block);
	if (ret != 0)
		note(worker, "a load after all shards were reported", ret);
	return NULL;
}

static enum verdict threads_same_block(struct ctx *ctx)
{
	struct worker workers[THREADS];
	enum verdict verdict;
	uint32_t round, i;

	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < THREADS; i++)
			workers[i] = (struct worker){
				.ctx = ctx,
				.block = block_variable(ctx, round, (struct shape){5, 700, 3}),
				.index = i};
		verdict = crew_run(ctx, workers, dump_the_same);
		if (verdict != CASE_PASSED)
			return verdict;
	}
	return CASE_PASSED;
}

/* ---- everything at once ------------------------------------------------------------------- */

#define MIXED_CALLS 600u
#define MIXED_KEYS  40u

/* What a call may say while others remove and clear what it works on. */
static bool is_fair(const struct ctx *ctx, int64_t status)
{
	if (status == WRONG_BYTES)
		return false;
	if (ctx->suite->tolerate)
		return true;
	return status >= 0 || status == -ENOENT || status == -ESTALE || status == -ENOSPC;
}

static int64_t mixed_call(struct worker *worker, struct dice *dice, struct block *block,
			  const char **ret_what)
{
	const struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 10 * MS};
	struct cairn_found found;
	uint64_t hold = 0;
	int64_t ret;

	switch (dice_roll(dice, 16)) {
	case 0:
		*ret_what = "a remove";
		return cairn_remove(block->ns, &block->key, 1, NULL, NULL, NULL);
	case 1:
		*ret_what = "a held lookup";
		ret = cairn_lookup(block->ns, &block->key, 1, &found, &opts, &hold);
		cairn_hold_release(worker->ctx->store, hold);
		return ret;
	case 2:
		*ret_what = "a prefetch";
		return cairn_prefetch(block->ns, &block->key, 1, NULL, NULL, NULL);
	case 3:
		*ret_what = "a clear";
		return dice_roll(dice, 10) == 0 ? cairn_clear(block->ns, CAIRN_MEMORY) : 0;
	case 4:
	case 5:
	case 6:
	case 7:
		*ret_what = "a dump";
		return block_dump(worker->ctx, block);
	case 8:
		*ret_what = "a dump of a shard";
		return block_dump_shard(worker->ctx, block,
					(uint32_t)dice_roll(dice, block->shape.count));
	default:
		*ret_what = "a load";
		return block_try_range(worker->ctx, block,
				       (uint32_t)dice_roll(dice, block->shape.count),
				       dice_roll(dice, 100), 1 + dice_roll(dice, 600));
	}
}

static void *mix_calls(void *argument)
{
	struct worker *worker = argument;
	struct dice dice = {worker->seed};
	const char *what = "";
	struct block block;
	int64_t ret;
	uint32_t i;

	for (i = 0; i < MIXED_CALLS && !worker->bad; i++) {
		block = block_variable(worker->ctx, dice_roll(&dice, MIXED_KEYS),
				       (struct shape){3, 800, 701});
		ret = mixed_call(worker, &dice, &block, &what);
		if (!is_fair(worker->ctx, ret))
			note(worker, what, ret);
	}
	return NULL;
}

static enum verdict threads_mixed(struct ctx *ctx)
{
	struct worker workers[THREADS];
	uint32_t i;

	for (i = 0; i < THREADS; i++)
		workers[i] =
			(struct worker){.ctx = ctx, .index = i, .seed = ctx->suite->run_id + i};
	return crew_run(ctx, workers, mix_calls);
}

/* ---- fork ------------------------------------------------------------------------------------ */

/* How many calls of a child did not say -EOWNERDEAD. */
static int child_calls(struct ctx *ctx, struct block *block, uint64_t task)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_namespace_desc desc = ctx_desc(ctx, "child", 0, 0);
	struct cairn_namespace *ns;
	struct cairn_queue *queue;
	struct cairn_found found;
	uint8_t data[FIXED_BYTES];
	struct cairn_xfer load = xfer_load(block, 0, 0, data, FIXED_BYTES);
	struct cairn_xfer dump = xfer_dump(block, 0, data);
	int wrong = 0;

	wrong += cairn_load(ctx->fixed, &load, 1, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_dump(ctx->fixed, &dump, 1, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_remove(ctx->fixed, &block->key, 1, NULL, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_prefetch(ctx->fixed, &block->key, 1, NULL, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_clear(ctx->fixed, CAIRN_MEMORY) != -EOWNERDEAD;
	wrong += cairn_lookup(ctx->fixed, &block->key, 1, &found, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_lookup_prefix(ctx->fixed, &block->key, 1, NULL, NULL, NULL) != -EOWNERDEAD;
	wrong += cairn_stat(ctx->store, &st) != -EOWNERDEAD;
	wrong += cairn_namespace_open(ctx->store, &desc, &ns, NULL) != -EOWNERDEAD;
	wrong += cairn_queue_open(ctx->store, &queue) != -EOWNERDEAD;
	wrong += cairn_task_wait(ctx->store, task, 0, 0) != -EOWNERDEAD;
	wrong += cairn_task_cancel(ctx->store, task) != -EOWNERDEAD;
	wrong += cairn_hold_release(ctx->store, 1) != -EOWNERDEAD;
	wrong += cairn_store_quiesce(ctx->store, 0) != -EOWNERDEAD;
	wrong += cairn_store_close(ctx->store, 0) != -EOWNERDEAD;
	return wrong;
}

static enum verdict fork_child(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1), next = block_fixed(ctx, 2);
	int status = 0;
	pid_t child;

	WANT_IS(ctx, block_dump(ctx, &block), 0);
	child = fork();
	WANT(ctx, child >= 0, "no process: errno %d", errno);
	if (child == 0)
		_exit(child_calls(ctx, &block, 1));
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	WANT(ctx, WIFEXITED(status), "the child was ended by signal %d", WTERMSIG(status));
	WANT(ctx, WEXITSTATUS(status) == 0, "%d calls of a child did not say -EOWNERDEAD",
	     WEXITSTATUS(status));
	/* The parent's store is as it was. */
	WANT_IS(ctx, block_load(ctx, &block), 0);
	WANT_IS(ctx, block_dump(ctx, &next), 0);
	WANT_IS(ctx, block_load(ctx, &next), 0);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"threads_one_block", "64 shards by 8 threads, never seen before it is whole",
	 threads_one_block, CASE_TOLERANT, 4u << 20},
	{"threads_same_block", "8 threads dump the same", threads_same_block, CASE_TOLERANT,
	 2u << 20},
	{"threads_mixed", "8 threads, all calls", threads_mixed, CASE_TOLERANT, 2u << 20},
	{"fork_child", "a child owns nothing, and the parent loses nothing", fork_child, 0, 0},
};

const struct case_list cases_threads = {cases, sizeof(cases) / sizeof(cases[0])};
