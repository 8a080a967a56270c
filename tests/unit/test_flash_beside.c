/* SPDX-License-Identifier: Apache-2.0 */
/* How many writes of the log are under way at once: few beside loads, which wait behind them. */
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store.h"
#include "sys/engine.h"

#include <cairn/task.h>
#include <cmocka.h>

#define DUMPS	     16u
#define BLOCK_BYTES  (960u << 10) /* two do not go into one write */
#define ALONE	     8u
#define BESIDE	     2u
#define CALL_NS	     60000000000u
#define LARGE_WRITES (512u << 10)

/* An engine that keeps the log's writes back while it is told to. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct sys table;
	struct engine_ops ops;
	struct engine *engine; /* of the writes kept */
	bool keep;
	uint32_t kept_count, kept_idle; /* idle: as the reactor went to sleep last */
	struct engine_chain *kept[DUMPS];
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_kept(struct engine *engine, struct engine_chain *chain)
{
	bool keep;

	pthread_mutex_lock(&world.lock);
	keep = world.keep && chain->op_count == 1 && chain->ops[0].code == OP_WRITEV &&
	       chain->ops[0].length >= LARGE_WRITES;
	if (keep) {
		assert(world.kept_count < DUMPS);
		world.engine = engine;
		world.kept[world.kept_count++] = chain;
	}
	pthread_mutex_unlock(&world.lock);
	return keep;
}

static int world_submit(struct engine *engine, struct engine_chain *chain)
{
	return is_kept(engine, chain) ? 0 : engine_psync.submit(engine, chain);
}

static int world_poll(struct engine *engine, uint64_t wait_ns)
{
	pthread_mutex_lock(&world.lock);
	while (!world.keep && world.engine == engine && world.kept_count > 0)
		engine_psync.submit(engine, world.kept[--world.kept_count]); /* it has room */
	if (wait_ns > 0 && world.engine == engine)
		world.kept_idle = world.kept_count;
	pthread_cond_broadcast(&world.changed);
	pthread_mutex_unlock(&world.lock);
	return engine_psync.poll(engine, wait_ns);
}

static const struct engine_ops *world_engine(enum engine_kind kind)
{
	return kind == ENGINE_PSYNC ? &world.ops : sys_native.engine(kind);
}

static struct cairn_namespace *ns;
static struct cairn_store *store;
static uint8_t *memory;

static void xfer_of(uint32_t name, struct cairn_xfer *ret_xfer)
{
	*ret_xfer = (struct cairn_xfer){
		.length = BLOCK_BYTES,
		.stride = {memory, BLOCK_BYTES, 0, 1},
	};
	assert_int_equal(cairn_key_derive(ns, &name, sizeof(name), &ret_xfer->key), 0);
}

/* Dumps blocks @first.. as far as the tier goes while no write ends; how many it began. */
static uint32_t writes_begun(uint32_t first)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	struct cairn_xfer xfers[DUMPS];
	uint32_t begun;
	uint64_t task;

	for (uint32_t i = 0; i < DUMPS; i++)
		xfer_of(first + i, &xfers[i]);
	pthread_mutex_lock(&world.lock);
	world.keep = true;
	world.engine = NULL;
	world.kept_idle = 0;
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(cairn_dump(ns, xfers, DUMPS, &opts, &task), 0);
	pthread_mutex_lock(&world.lock);
	while (!world.kept_idle)
		pthread_cond_wait(&world.changed, &world.lock);
	begun = world.kept_idle;
	world.keep = false;
	engine_psync.wake(world.engine);
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(cairn_task_wait(store, task, 0, CALL_NS), 0);
	for (uint32_t i = 0; i < DUMPS; i++)
		assert_int_equal(xfers[i].result.status, 0);
	return begun;
}

static void beside_loads(void **state)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "beside",
					    .shard_count = 1,
					    .shard_bytes = BLOCK_BYTES};
	char path[] = "/tmp/cairn-beside-XXXXXX", spec[256];
	struct cairn_error error = {0};
	struct cairn_xfer xfer;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	unlink(path);
	memory = calloc(1, BLOCK_BYTES);
	world.table = sys_native;
	world.table.engine = world_engine;
	world.ops = engine_psync;
	world.ops.submit = world_submit;
	world.ops.poll = world_poll;
	snprintf(spec, sizeof(spec),
		 "store(engine=psync, reactors=1) | flash(path=%s, size=256MiB, region=32MiB)",
		 path);
	if (store_open(&world.table, spec, NULL, &store, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);

	assert_int_equal(writes_begun(0), ALONE);
	xfer_of(0, &xfer);
	assert_int_equal(cairn_load(ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(writes_begun(DUMPS), BESIDE);
	assert_int_equal(writes_begun(2 * DUMPS), ALONE); /* so many later no load is near */

	cairn_namespace_close(ns);
	assert_int_equal(cairn_store_close(store, CALL_NS), 0);
	free(memory);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(beside_loads)};

	return cmocka_run_group_tests_name("flash_beside", tests, NULL, NULL);
}
