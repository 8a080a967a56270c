/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps of large blocks go to the log in more ios than one, so that a write is under way while
 * others are made ready; what may be held back goes in one.
 */
#include "flash_device.h"

enum { SHARDS = 4, BYTES = 600000 }; /* no two of them in 1 MiB */

static uint8_t memory[SHARDS * BYTES];
static struct cairn_xfer xfers[SHARDS];

static void one_write_keeps_no_other(void **state)
{
	struct cairn_key key;
	uint64_t task;

	(void)state;
	begin("size=64MiB, region=8MiB", SHARDS, BYTES);
	key = key_of(&store, 1);
	hold_write(&key, 0);
	assert_int_equal(dump_many(1, 0, SHARDS, BYTES, xfers, memory, &task), 0);
	await_held();
	for (uint32_t ms = 0; flash_counter("dumps") < SHARDS - 1; ms++) {
		assert_true(ms < 60000); /* the others wait for the one that is held */
		usleep(1000);
	}
	assert_int_equal(flash_counter("published_blocks"), 0);
	release_held();
	assert_int_equal(cairn_task_wait(store.store, task, 0, UINT64_MAX), 0);
	for (uint32_t i = 0; i < SHARDS; i++) {
		assert_int_equal(xfers[i].result.status, 0);
		assert_int_equal(load_one(&store, 1, i, BYTES), 0);
	}
	end();
}

static int held_back(void *context, const struct cairn_counter *counter)
{
	uint64_t *value = context;

	if (strcmp(counter->stage, "cache") == 0 && strcmp(counter->name, "held_back_blocks") == 0)
		*value = counter->value;
	return 0;
}

static void whole_where_it_may_stay_in_memory(void **state)
{
	uint64_t blocks = 0;
	struct cairn_error error = {0};
	char spec[512];

	(void)state;
	fixture_new(&store);
	snprintf(spec, sizeof(spec),
		 "cache(size=32MiB, name=split-%d, write=back) | "
		 "flash(path=%s/store, size=64MiB, region=8MiB)",
		 (int)getpid(), store.path);
	if (cairn_store_open(spec, NULL, &store.store, &error) < 0)
		fail_msg("%s", error.text);
	fixture_space(&store, "model", SHARDS, BYTES);
	assert_int_equal(dump_many(1, 0, SHARDS, BYTES, xfers, memory, NULL), 0);
	cairn_counters(store.store, held_back, &blocks);
	assert_int_equal(blocks, 1);
	for (uint32_t i = 0; i < SHARDS; i++)
		assert_int_equal(load_one(&store, 1, i, BYTES), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_write_keeps_no_other),
		cmocka_unit_test(whole_where_it_may_stay_in_memory),
	};

	return cmocka_run_group_tests_name("flash_split", tests, NULL, NULL);
}
