/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of its size the flash tier fills with blocks when it has been written over many
 * times, and that it never takes more: blocks of mixed sizes, of one shard and of many.
 */
/* Before cmocka.h, which has a macro fail(). */
#include "core/store.h"
#include "sys/engine.h"

#include "posix_store.h"

#define WRAPS	    2u
#define BLOCKS_MAX  60000u
#define SHARDS_MAX  8u
#define SHARD_MAX   (128u << 10)
#define LIVE_LEAST  0.85
#define SAMPLE_LAST 8u /* in so many parts of the last wrap it is looked at */

static struct {
	struct fixture store;
	struct sys sys;
	struct engine_ops ops;
	uint64_t size, chains;
	const struct shape *shapes;
	uint32_t shape_count;
	uint8_t data[SHARDS_MAX * SHARD_MAX];
} world;

struct shape {
	uint32_t shards, bytes;
};

/* ---- the budget, whenever anything is written -------------------------------------------- */

static void budget_holds(void)
{
	struct dirent *entry;
	uint64_t bytes = 0;
	DIR *dir = opendir(world.store.path);

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct stat st;

		if (entry->d_name[0] == '.')
			continue;
		assert_int_equal(fstatat(dirfd(dir), entry->d_name, &st, 0), 0);
		bytes += (uint64_t)st.st_size;
	}
	closedir(dir);
	assert_true(bytes <= world.size);
}

static int world_submit(struct engine *engine, struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++)
		if (chain->ops[i].code == OP_WRITEV)
			assert_true(chain->ops[i].offset + chain->ops[i].length <= world.size);
	if (!(world.chains++ % 16))
		budget_holds();
	return engine_psync.submit(engine, chain);
}

static const struct engine_ops *world_engine(enum engine_kind kind)
{
	return kind == ENGINE_PSYNC ? &world.ops : sys_native.engine(kind);
}

/* ---- blocks ------------------------------------------------------------------------------------
 */

static const struct shape *shape_of(uint32_t number)
{
	return &world.shapes[number * 2654435761u % world.shape_count];
}

static uint64_t bytes_of(uint32_t number)
{
	return (uint64_t)shape_of(number)->shards * shape_of(number)->bytes;
}

static void dump_block(uint32_t number)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	const struct shape *shape = shape_of(number);
	struct cairn_key key = key_of(&world.store, number);
	struct cairn_xfer xfers[SHARDS_MAX];

	for (uint32_t i = 0; i < shape->shards; i++) {
		xfers[i] = xfer_of(&key, i, 0, world.data + (size_t)i * shape->bytes, shape->bytes);
		xfers[i].shard_count = shape->shards;
		xfers[i].shard_bytes = shape->bytes;
	}
	assert_int_equal(cairn_dump(world.store.ns, xfers, shape->shards, &opts, NULL), 0);
	for (uint32_t i = 0; i < shape->shards; i++)
		assert_int_equal(xfers[i].result.status, 0);
}

/* Some are used before they go, and carried over. */
static void use_block(uint32_t number)
{
	struct cairn_key key = key_of(&world.store, number);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, world.data, shape_of(number)->bytes);

	cairn_load(world.store.ns, &xfer, 1, NULL, NULL);
	assert_true(xfer.result.status == 0 || xfer.result.status == -ENOENT);
}

/* Payload of the blocks below @end that are there, whole. */
static uint64_t live_bytes(uint32_t end)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < end; i++)
		if (present(&world.store, i))
			bytes += bytes_of(i);
	return bytes;
}

static void open_world(void)
{
	struct cairn_error error = {0};

	world.sys = sys_native;
	world.sys.engine = world_engine;
	world.ops = engine_psync;
	world.ops.submit = world_submit;
	snprintf(world.store.spec, sizeof(world.store.spec),
		 "store(engine=psync, reactors=1) | flash(path=%s/kv, size=%llu)", world.store.path,
		 (unsigned long long)world.size);
	if (store_open(&world.sys, world.store.spec, NULL, &world.store.store, &error) < 0)
		fail_msg("%s: %s", world.store.spec, error.text);
	fixture_space(&world.store, "mixed", 0, 0);
}

/*
 * The smallest stores, about, that hold so much of these blocks: regions that are free or open
 * take more of a smaller one, and larger blocks leave more of a region's end empty.
 *
 * Writes the store over and over; then, as it goes on, what is live never falls below the bound.
 */
static void fills(uint32_t mib, const struct shape *shapes, uint32_t shape_count)
{
	uint64_t size = (uint64_t)mib << 20, dumped = 0, sampled = size * WRAPS;
	uint32_t number = 0;
	double least = 1;

	world.size = size;
	world.shapes = shapes;
	world.shape_count = shape_count;
	fixture_new(&world.store);
	open_world();
	while (dumped < (WRAPS + 1) * size) {
		assert_true(number < BLOCKS_MAX);
		dump_block(number);
		dumped += bytes_of(number);
		if (number >= 50 && number % 5 == 0)
			use_block(number - 50 + number % 7);
		number++;
		if (dumped >= sampled) {
			double live = (double)live_bytes(number) / (double)size;

			least = live < least ? live : least;
			sampled += size / SAMPLE_LAST;
		}
	}
	print_message("# at least %.3f of %llu bytes live\n", least, (unsigned long long)size);
	assert_true(least >= LIVE_LEAST);
	budget_holds();
	fixture_close(&world.store);
	budget_holds();
	open_world(); /* and so it is found again */
	assert_true((double)live_bytes(number) >= LIVE_LEAST * (double)size);
	fixture_close(&world.store);
	fixture_free(&world.store);
}

static void one_size(void **state)
{
	static const struct shape shapes[] = {{1, 16384}};

	(void)state;
	fills(48, shapes, 1);
}

static void mixed_sizes(void **state)
{
	static const struct shape shapes[] = {
		{1, 4096}, {1, 16384}, {1, 65536}, {1, 100000}, {1, 131072}, {1, 40000},
	};

	(void)state;
	fills(144, shapes, sizeof(shapes) / sizeof(shapes[0]));
}

static void many_shards(void **state)
{
	static const struct shape shapes[] = {
		{8, 16384}, {4, 65536}, {1, 16384}, {2, 100000}, {8, 20000}, {3, 60000},
	};

	(void)state;
	fills(96, shapes, sizeof(shapes) / sizeof(shapes[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_size),
		cmocka_unit_test(mixed_sizes),
		cmocka_unit_test(many_shards),
	};

	/* 400 MiB are written for each: in memory, where there is a place for files there. */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TEST_DIR", "/dev/shm", 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
