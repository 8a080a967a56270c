/* SPDX-License-Identifier: Apache-2.0 */
/* A load whose block is removed and dumped anew while its second read is under way. */
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

/* Two rounds of a load, of 2 MiB at most: one shard and a part of the next, then the rest. */
#define SHARDS	    2u
#define SHARD_BYTES (1536u << 10)
#define LAST_READ   (1u << 20)
#define CALL_NS	    60000000000u

/* An engine that keeps the load's last read back. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct sys table;
	struct engine_ops ops;
	struct engine *engine;
	struct engine_chain *kept;
	bool keep, go;
	bool fails; /* else its bytes are not those of the file */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_kept(struct engine *engine, struct engine_chain *chain)
{
	bool keep;

	pthread_mutex_lock(&world.lock);
	keep = world.keep && chain->op_count == 1 && chain->ops[0].code == OP_READV &&
	       chain->ops[0].length == LAST_READ;
	if (keep) {
		world.keep = false;
		world.engine = engine;
		world.kept = chain;
		pthread_cond_broadcast(&world.changed);
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
	struct engine_chain *chain = NULL;

	pthread_mutex_lock(&world.lock);
	if (world.go && world.engine == engine) {
		chain = world.kept;
		world.kept = NULL;
		world.go = false;
	}
	pthread_mutex_unlock(&world.lock);
	if (!chain)
		return engine_psync.poll(engine, wait_ns);
	chain->result = world.fails ? -EIO : 0;
	chain->ops[0].result = world.fails ? -EIO : (int64_t)chain->ops[0].length;
	for (int i = 0; i < chain->ops[0].iov_count; i++)
		memset(chain->ops[0].iov[i].iov_base, 0, chain->ops[0].iov[i].iov_len);
	chain->done(chain);
	return 1;
}

static const struct engine_ops *world_engine(enum engine_kind kind)
{
	return kind == ENGINE_PSYNC ? &world.ops : sys_native.engine(kind);
}

static struct cairn_namespace *ns;
static struct cairn_store *store;
static uint8_t *memory;
static char path[64];

static void open_world(void)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "mixed",
					    .shard_count = SHARDS,
					    .shard_bytes = SHARD_BYTES};
	struct cairn_error error = {0};
	char spec[256];
	int fd;

	snprintf(path, sizeof(path), "/tmp/cairn-mixed-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	unlink(path);
	memory = malloc(SHARDS * SHARD_BYTES);
	assert_non_null(memory);
	world.table = sys_native;
	world.table.engine = world_engine;
	world.ops = engine_psync;
	world.ops.submit = world_submit;
	world.ops.poll = world_poll;
	snprintf(spec, sizeof(spec),
		 "store(engine=psync, reactors=1) | flash(path=%s, size=64MiB, region=8MiB)", path);
	if (store_open(&world.table, spec, NULL, &store, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
}

static void close_world(void)
{
	cairn_namespace_close(ns);
	assert_int_equal(cairn_store_close(store, CALL_NS), 0);
	free(memory);
	unlink(path);
}

static void xfers_of(struct cairn_xfer xfers[SHARDS])
{
	uint32_t name = 1;

	for (uint32_t i = 0; i < SHARDS; i++) {
		uint8_t *at = memory + (size_t)i * SHARD_BYTES;

		xfers[i] = (struct cairn_xfer){
			.shard = i, .length = SHARD_BYTES, .stride = {at, SHARD_BYTES, 0, 1}};
		assert_int_equal(cairn_key_derive(ns, &name, sizeof(name), &xfers[i].key), 0);
	}
}

/* Every byte of that version is @byte. */
static void dump(uint8_t byte)
{
	struct cairn_xfer xfers[SHARDS];
	uint8_t *before = memory;

	memory = malloc(SHARDS * SHARD_BYTES);
	assert_non_null(memory);
	memset(memory, byte, SHARDS * SHARD_BYTES);
	xfers_of(xfers);
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), 0);
	free(memory);
	memory = before;
}

static void replaced_meanwhile(bool fails, bool again)
{
	struct cairn_xfer xfers[SHARDS];
	struct cairn_key key;
	uint64_t task;

	open_world();
	dump(0xaa);
	pthread_mutex_lock(&world.lock); /* reclaims of the store go by world_submit(), too */
	world.keep = true;
	world.fails = fails;
	pthread_mutex_unlock(&world.lock);
	xfers_of(xfers);
	key = xfers[0].key;
	memset(memory, 0, SHARDS * SHARD_BYTES);
	assert_int_equal(cairn_load(ns, xfers, SHARDS, NULL, &task), 0);
	pthread_mutex_lock(&world.lock);
	while (!world.kept)
		pthread_cond_wait(&world.changed, &world.lock);
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(memory[0], 0xaa); /* the first shard has been copied */
	assert_int_equal(cairn_remove(ns, &key, 1, NULL, NULL, NULL), 0);
	if (again)
		dump(0xbb);
	pthread_mutex_lock(&world.lock);
	world.go = true;
	engine_psync.wake(world.engine);
	pthread_mutex_unlock(&world.lock);
	cairn_task_wait(store, task, 0, CALL_NS);
	for (uint32_t i = 0; i < SHARDS; i++) {
		const uint8_t *at = memory + (size_t)i * SHARD_BYTES;

		assert_int_equal(xfers[i].result.status, again ? 0 : i == 0 ? 0 : -ENOENT);
		if (!xfers[i].result.status) /* all of one version */
			assert_true(at[0] == (again ? 0xbb : 0xaa) &&
				    memcmp(at, at + 1, SHARD_BYTES - 1) == 0);
	}
	close_world();
}

static void by_an_error(void **state)
{
	(void)state;
	replaced_meanwhile(true, true);
}

static void by_damage(void **state)
{
	(void)state;
	replaced_meanwhile(false, true);
}

/* What was loaded before it went is the block as it was. */
static void removed_meanwhile(void **state)
{
	(void)state;
	replaced_meanwhile(true, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(by_an_error),
					   cmocka_unit_test(by_damage),
					   cmocka_unit_test(removed_meanwhile)};

	return cmocka_run_group_tests_name("flash_mixed", tests, NULL, NULL);
}
