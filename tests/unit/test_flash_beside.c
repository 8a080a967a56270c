/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many writes of the log are under way at once: few beside loads, which wait behind them.
 * And what becomes of dumps when those writes do not end.
 */
#include <assert.h>
#include <errno.h>
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
	uint32_t pieces;		/* of the write kept last */
	uint32_t kept_count, kept_idle; /* idle: as the reactor went to sleep last */
	struct engine_chain *kept[DUMPS];
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_kept(struct engine *engine, struct engine_chain *chain)
{
	uint64_t bytes = 0;
	bool keep;

	for (uint32_t i = 0; i < chain->op_count; i++)
		bytes += chain->ops[i].code == OP_WRITEV ? chain->ops[i].length : 0;
	pthread_mutex_lock(&world.lock);
	keep = world.keep && bytes >= LARGE_WRITES;
	if (keep) {
		world.pieces = chain->op_count;
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

static struct {
	char path[64];
	_Atomic uint64_t later_ns;
	_Atomic uint64_t step_ns; /* that it is later with each look */
} place;

static uint64_t world_now(void)
{
	place.later_ns += place.step_ns;
	return sys_native.now_ns() + place.later_ns;
}

static void open_world(const char *options)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "beside",
					    .shard_count = 1,
					    .shard_bytes = BLOCK_BYTES};
	struct cairn_error error = {0};
	char spec[256];
	int fd;

	snprintf(place.path, sizeof(place.path), "/tmp/cairn-beside-XXXXXX");
	fd = mkstemp(place.path);
	assert_true(fd >= 0);
	close(fd);
	unlink(place.path);
	memory = calloc(1, BLOCK_BYTES);
	world.table = sys_native;
	world.table.engine = world_engine;
	world.table.now_ns = world_now;
	world.ops = engine_psync;
	world.ops.submit = world_submit;
	world.ops.poll = world_poll;
	snprintf(spec, sizeof(spec),
		 "store(engine=psync, reactors=1) | flash(path=%s, size=256MiB, region=32MiB%s)",
		 place.path, options);
	if (store_open(&world.table, spec, NULL, &store, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
}

static void close_world(void)
{
	cairn_namespace_close(ns);
	assert_int_equal(cairn_store_close(store, CALL_NS), 0);
	free(memory);
	unlink(place.path);
}

static void load_first(void)
{
	struct cairn_xfer xfer;

	xfer_of(0, &xfer);
	assert_int_equal(cairn_load(ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.status, 0);
}

static void beside_loads(void **state)
{
	(void)state;
	open_world("");
	assert_int_equal(writes_begun(0), ALONE);
	load_first();
	assert_int_equal(writes_begun(DUMPS), BESIDE);
	assert_int_equal(writes_begun(2 * DUMPS), ALONE); /* so many later no load is near */
	close_world();
}

/* Writes take long beside loads: there one is under way, in pieces; without loads all are. */
static void slow_device(void **state)
{
	(void)state;
	place.later_ns = 0;
	open_world("");
	assert_int_equal(writes_begun(0), ALONE);
	place.step_ns = 5000000;
	load_first();
	assert_int_equal(writes_begun(DUMPS), BESIDE);
	load_first();
	assert_int_equal(writes_begun(2 * DUMPS), 1);
	assert_int_equal(world.pieces, 4); /* 256 KiB each, the last one shorter */
	assert_int_equal(writes_begun(3 * DUMPS), ALONE);
	assert_int_equal(world.pieces, 1);
	load_first(); /* and what was dumped in pieces is whole */
	for (uint32_t i = 2 * DUMPS; i < 3 * DUMPS; i++) {
		struct cairn_xfer xfer;

		xfer_of(i, &xfer);
		assert_int_equal(cairn_load(ns, &xfer, 1, NULL, NULL), 0);
	}
	place.step_ns = 0;
	close_world();
}

/* ---- overload ------------------------------------------------------------------------------ */

#define CROWD 40u /* more than there is memory for */

static int counted(void *context, const struct cairn_counter *counter)
{
	if (!strcmp(counter->stage, "flash") && !strcmp(counter->name, "dumps_shed"))
		*(uint64_t *)context = counter->value;
	return 0;
}

static uint64_t shed(void)
{
	uint64_t value = UINT64_MAX;

	cairn_counters(store, counted, &value);
	assert_int_not_equal(value, UINT64_MAX);
	return value;
}

/* Until the reactor has nothing to do but to wait for the device. */
static void settle(void)
{
	pthread_mutex_lock(&world.lock);
	world.kept_idle = 0;
	engine_psync.wake(world.engine);
	while (!world.kept_idle)
		pthread_cond_wait(&world.changed, &world.lock);
	pthread_mutex_unlock(&world.lock);
}

/* One that is to wait, or to be declined: its task. */
static uint64_t come(struct cairn_xfer *xfer, uint32_t name, const struct cairn_block_attr *attr)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	uint64_t task;

	xfer_of(name, xfer);
	xfer->attr = attr;
	assert_int_equal(cairn_dump(ns, xfer, 1, &opts, &task), 0);
	settle();
	return task;
}

static void ends(uint64_t task, const struct cairn_xfer *xfer, int status)
{
	cairn_task_wait(store, task, 0, CALL_NS);
	assert_int_equal(xfer->result.status, status);
}

static void loads_go_on(void)
{
	struct cairn_xfer xfer;

	xfer_of(0, &xfer);
	assert_int_equal(cairn_load(ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.status, 0);
}

/*
 * The device takes nothing more: dumps wait, then those that come are declined, the cold ones
 * first. Those that came before keep their turn, and loads go on.
 */
static void overload(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	struct cairn_block_attr kept = {.size = sizeof(kept), .priority = 1};
	struct cairn_block_attr child = {.size = sizeof(child)};
	struct cairn_xfer crowd[CROWD], first, cold[4], warm[4];
	uint64_t task, cold_task, warm_tasks[2];

	(void)state;
	place.later_ns = 0;
	open_world(", shed=1s");
	xfer_of(0, &first);
	assert_int_equal(cairn_dump(ns, &first, 1, &opts, NULL), 0);
	child.parent = first.key;
	pthread_mutex_lock(&world.lock);
	world.keep = true;
	world.engine = NULL;
	world.kept_idle = 0;
	pthread_mutex_unlock(&world.lock);
	for (uint32_t i = 0; i < CROWD; i++)
		xfer_of(100 + i, &crowd[i]);
	assert_int_equal(cairn_dump(ns, crowd, CROWD, &opts, &task), 0);
	pthread_mutex_lock(&world.lock);
	while (!world.kept_idle)
		pthread_cond_wait(&world.changed, &world.lock);
	pthread_mutex_unlock(&world.lock);

	cold_task = come(&cold[0], 1, NULL); /* in time: it waits */
	place.later_ns = 1500000000u;
	ends(come(&cold[1], 2, NULL), &cold[1], -ENOSPC);
	assert_int_equal(shed(), 1);
	warm_tasks[0] = come(&warm[0], 3, &kept);
	warm_tasks[1] = come(&warm[1], 4, &child);
	assert_int_equal(shed(), 1);
	loads_go_on();
	place.later_ns = 2500000000u;
	ends(come(&warm[2], 5, &kept), &warm[2], -ENOSPC);
	ends(come(&warm[3], 6, &child), &warm[3], -ENOSPC);
	ends(come(&cold[2], 7, NULL), &cold[2], -ENOSPC);
	assert_int_equal(shed(), 4);
	loads_go_on();

	pthread_mutex_lock(&world.lock);
	world.keep = false;
	engine_psync.wake(world.engine);
	pthread_mutex_unlock(&world.lock);
	ends(task, &crowd[0], 0);
	for (uint32_t i = 0; i < CROWD; i++)
		assert_int_equal(crowd[i].result.status, 0);
	ends(cold_task, &cold[0], 0);
	ends(warm_tasks[0], &warm[0], 0);
	ends(warm_tasks[1], &warm[1], 0);
	xfer_of(8, &cold[3]); /* and all is as before */
	assert_int_equal(cairn_dump(ns, &cold[3], 1, &opts, NULL), 0);
	assert_int_equal(shed(), 4);
	close_world();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(beside_loads),
					   cmocka_unit_test(slow_device),
					   cmocka_unit_test(overload)};

	return cmocka_run_group_tests_name("flash_beside", tests, NULL, NULL);
}
