/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record that a reclaim carries into the device's memory alone: flushes fail
 * from then on, and the power goes. It is still there, where it was.
 */
/* Before cmocka.h, which has a macro fail(). */
#include <pthread.h>

#include "core/store.h"
#include "stages/flash/format.h"
#include "sys/engine.h"

#include "posix_store.h"

#define SHARD  16384u
#define OTHERS 2000u /* far more than the log holds */
#define ENDS   64u
#define HELD   1u

static struct {
	struct fixture store;
	struct sys sys;
	struct engine_ops ops;
	pthread_mutex_t lock;
	struct engine *engine;
	bool carried; /* the record was given to the device, which has lost it */
	struct engine_chain *ends[ENDS];
	uint32_t end_count;
} world = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool carries(const struct engine_chain *chain)
{
	const struct flash_record *record;

	if (chain->op_count != 1 || chain->ops[0].code != OP_WRITEV ||
	    chain->ops[0].iov[0].iov_len < sizeof(*record))
		return false;
	record = chain->ops[0].iov[0].iov_base;
	return memcmp(record->magic, FLASH_RECORD_MAGIC, 8) == 0 &&
	       (record->flags & FLASH_RECORD_CARRIED);
}

static bool flushes(const struct engine_chain *chain)
{
	return chain->ops[0].code == OP_FDATASYNC;
}

static int world_submit(struct engine *engine, struct engine_chain *chain)
{
	bool lost, fails;

	pthread_mutex_lock(&world.lock);
	lost = carries(chain);
	world.carried = world.carried || lost;
	fails = world.carried && flushes(chain);
	if (lost || fails) {
		assert_true(world.end_count < ENDS);
		world.engine = engine;
		world.ends[world.end_count++] = chain;
	}
	pthread_mutex_unlock(&world.lock);
	return lost || fails ? 0 : engine_psync.submit(engine, chain);
}

static int world_poll(struct engine *engine, uint64_t wait_ns)
{
	struct engine_chain *chain = NULL;

	pthread_mutex_lock(&world.lock);
	if (world.end_count && world.engine == engine)
		chain = world.ends[--world.end_count];
	pthread_mutex_unlock(&world.lock);
	if (!chain)
		return engine_psync.poll(engine, wait_ns);
	chain->result = 0;
	for (uint32_t i = 0; i < chain->op_count; i++)
		chain->ops[i].result = i ? -ECANCELED : -EIO;
	if (flushes(chain))
		chain->result = -EIO;
	else
		chain->ops[0].result = (int64_t)chain->ops[0].length;
	chain->done(chain);
	return 1;
}

static const struct engine_ops *world_engine(enum engine_kind kind)
{
	return kind == ENGINE_PSYNC ? &world.ops : sys_native.engine(kind);
}

static void open_store(const struct sys *sys, const char *name)
{
	struct cairn_error error = {0};

	snprintf(world.store.spec, sizeof(world.store.spec),
		 "store(engine=psync, reactors=1) | flash(path=%s/%s, size=8MiB, "
		 "region=512KiB, "
		 "policy=fifo)",
		 world.store.path, name);
	if (store_open(sys, world.store.spec, NULL, &world.store.store, &error) < 0)
		fail_msg("%s: %s", world.store.spec, error.text);
	fixture_space(&world.store, "model", 1, SHARD);
}

/* As the power leaves it: what was written but for what the device lost. */
static void copy_store(void)
{
	char command[512];

	snprintf(command, sizeof(command), "cp %s/kv %s/cut", world.store.path, world.store.path);
	assert_int_equal(system(command), 0);
}

static void hold(uint32_t number)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 600000000000u};
	struct cairn_key key = key_of(&world.store, number);
	struct cairn_found found;
	uint64_t token;

	memset(&found, 0, sizeof(found));
	assert_int_equal(cairn_lookup(world.store.ns, &key, 1, &found, &opts, &token), 1);
}

static void flush_fails(void **state)
{
	struct cairn_key key;
	uint32_t next = 10;
	int removed;

	(void)state;
	fixture_new(&world.store);
	world.sys = sys_native;
	world.sys.engine = world_engine;
	world.ops = engine_psync;
	world.ops.submit = world_submit;
	world.ops.poll = world_poll;
	open_store(&world.sys, "kv");
	assert_int_equal(dump_one(&world.store, HELD, 0, SHARD, CAIRN_DURABLE), 0);
	hold(HELD);
	while (!counter(&world.store, "carried_bytes") && next < OTHERS)
		dump_one(&world.store, next++, 0, SHARD, CAIRN_WRITTEN);
	assert_true(counter(&world.store, "carried_bytes") > 0);
	while (!counter(&world.store, "io_errors"))
		usleep(1000);
	/* A remove has marks written: those of the block's old place wait for a
	 * flush. */
	key = key_of(&world.store, next - 1);
	removed = cairn_remove(world.store.ns, &key, 1, NULL, NULL, NULL);
	copy_store();
	fixture_close(&world.store);
	open_store(&sys_native, "cut");
	assert_true(present(&world.store, HELD));
	assert_int_equal(load_one(&world.store, HELD, 0, SHARD), 0);
	assert_int_equal(removed, -EIO);
	fixture_close(&world.store);
	fixture_free(&world.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(flush_fails)};

	return cmocka_run_group_tests_name("flash_carry", tests, NULL, NULL);
}
