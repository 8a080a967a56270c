/* SPDX-License-Identifier: Apache-2.0 */
/* What the host composes of several tiers, with stages above them that end parts by themselves. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <cairn/task.h>

#define SHARDS 3
#define BYTES  100

static struct cairn_store *store;
static struct cairn_namespace *ns;
static struct cairn_xfer xfers[SHARDS];
static char data[SHARDS][BYTES];

static void setup(const char *pipeline)
{
	const struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = SHARDS, .shard_bytes = BYTES};
	struct cairn_error error = {0};

	if (cairn_store_open(pipeline, NULL, &store, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
}

static void teardown(void)
{
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

static struct cairn_key fill(const char *name)
{
	struct cairn_key key;
	uint32_t i;

	assert_int_equal(cairn_key_derive(ns, name, strlen(name), &key), 0);
	for (i = 0; i < SHARDS; i++)
		xfers[i] = (struct cairn_xfer){.key = key,
					       .shard = i,
					       .length = BYTES,
					       .stride = {data[i], BYTES, BYTES, 1}};
	return key;
}

static int64_t present(struct cairn_key key)
{
	struct cairn_found found;

	return cairn_lookup(ns, &key, 1, &found, NULL, NULL);
}

/* A part that a stage above failed is not asked of the tiers below by their composition. */
static void test_a_failed_part_stays_failed(void **state)
{
	struct cairn_key key;

	(void)state;
	setup("fault(rule=\"load:EIO:#2,dump:ENOSPC:#5\") | null() | null()");
	key = fill("a");
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), 0);
	assert_int_equal(present(key), 1);
	fill("a");
	assert_int_equal(cairn_load(ns, xfers, SHARDS, NULL, NULL), -EIO);
	assert_int_equal(xfers[0].result.status, 0);
	assert_int_equal(xfers[0].result.stage, 1);
	assert_int_equal(xfers[1].result.status, -EIO);
	assert_int_equal(xfers[1].result.stage, 0);
	assert_int_equal(xfers[2].result.status, 0);
	key = fill("b");
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), -ENOSPC);
	assert_int_equal(xfers[1].result.status, -ENOSPC);
	assert_int_equal(xfers[1].result.stage, 0);
	assert_int_equal(present(key), 0);
	teardown();
}

/* What the upper tier cannot keep the lower one has. */
static void test_lower_tier_answers(void **state)
{
	struct cairn_key key;

	(void)state;
	setup("null(size=4KiB, entries=2) | null()");
	key = fill("a");
	memset(data, 'x', sizeof(data));
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), 0);
	key = fill("b");
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), 0);
	key = fill("c");
	assert_int_equal(cairn_dump(ns, xfers, SHARDS, NULL, NULL), 0);
	key = fill("a");
	assert_int_equal(present(key), 1);
	memset(data, 0, sizeof(data));
	assert_int_equal(cairn_load(ns, xfers, SHARDS, NULL, NULL), 0);
	assert_int_equal(xfers[2].result.stage, 1);
	assert_int_equal(data[2][BYTES - 1], 'x');
	assert_int_equal(cairn_remove(ns, &key, 1, NULL, NULL, NULL), 0);
	assert_int_equal(present(key), 0);
	teardown();
}

/* Each of two tiers takes what the other one does not: together they have the block. */
static void test_two_halves(void **state)
{
	static char large[200000], back[200000];
	const struct cairn_namespace_desc desc = {.size = sizeof(desc), .model = "variable"};
	struct cairn_namespace *variable;
	struct cairn_xfer xfer = {.shard_count = 2, .shard_bytes = sizeof(large)};
	struct cairn_found found;

	(void)state;
	memset(large, 'y', sizeof(large));
	setup("null(size=100KiB) | fault(rule=\"dump:ENOSPC:#2\") | null()");
	assert_int_equal(cairn_namespace_open(store, &desc, &variable, NULL), 0);
	assert_int_equal(cairn_key_derive(variable, "a", 1, &xfer.key), 0);
	xfer.length = sizeof(large);
	xfer.stride = (struct cairn_stride){large, sizeof(large), 0, 1};
	assert_int_equal(cairn_dump(variable, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.stage, 2);
	assert_int_equal(cairn_lookup(variable, &xfer.key, 1, &found, NULL, NULL), 0);
	xfer.shard = 1;
	xfer.length = xfer.stride.run = 10;
	assert_int_equal(cairn_dump(variable, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.stage, 0);
	assert_int_equal(cairn_lookup(variable, &xfer.key, 1, &found, NULL, NULL), 1);
	assert_int_equal(found.shard_count, 2);
	assert_int_equal(found.shard_bytes, sizeof(large));
	assert_int_equal(found.last_bytes, 10);
	xfer.shard_count = 0;
	xfer.shard_bytes = 0;
	xfer.stride = (struct cairn_stride){back, 10, 0, 1};
	assert_int_equal(cairn_load(variable, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.stage, 0);
	xfer.shard = 0;
	xfer.length = xfer.stride.run = sizeof(back);
	assert_int_equal(cairn_load(variable, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer.result.stage, 2);
	assert_memory_equal(back, large, sizeof(large));
	cairn_namespace_close(variable);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_failed_part_stays_failed),
		cmocka_unit_test(test_lower_tier_answers),
		cmocka_unit_test(test_two_halves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
