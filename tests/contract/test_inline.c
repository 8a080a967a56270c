/* SPDX-License-Identifier: Apache-2.0 */
/* What stage.h defines in place: a stage that others wrote has its own copy of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cairn/stage.h>

enum { ROW_LOADS, ROW_BLOCKS, ROWS };

static void counters_add_and_gauges_replace(void **state)
{
	uint64_t counters[ROWS] = {0};
	struct cairn_stage_env env = {.size = sizeof(env), .counters = counters};

	(void)state;
	cairn_count(&env, ROW_LOADS, 3);
	cairn_count(&env, ROW_LOADS, 4);
	cairn_gauge(&env, ROW_BLOCKS, 9);
	cairn_gauge(&env, ROW_BLOCKS, 2);
	assert_int_equal(counters[ROW_LOADS], 7);
	assert_int_equal(counters[ROW_BLOCKS], 2);
}

static void only_what_is_pending_fails(void **state)
{
	struct cairn_part parts[3] = {
		{.status = 0}, {.status = CAIRN_PENDING}, {.status = CAIRN_PENDING}};
	struct cairn_io io = {.status = CAIRN_PENDING, .parts = parts, .part_count = 2};

	(void)state;
	cairn_io_fail(&io, -5);
	assert_int_equal(io.status, CAIRN_PENDING); /* the parts have one each */
	assert_int_equal(parts[0].status, 0);
	assert_int_equal(parts[1].status, -5);
	assert_int_equal(parts[2].status, CAIRN_PENDING);
	io.part_count = 0;
	cairn_io_fail(&io, -6);
	assert_int_equal(io.status, -6);
	cairn_io_fail(&io, -7);
	assert_int_equal(io.status, -6);
}

/* A compiled stage of ABI 1.0 relies on these: a change here is a new ABI. */
static void the_abi_is_as_it_was(void **state)
{
	(void)state;
	assert_int_equal(CAIRN_STAGE_ABI_MAJOR, 1);
	assert_int_equal(sizeof(struct cairn_key), 16);
	assert_int_equal(sizeof(struct cairn_result), 8);
	assert_int_equal(offsetof(struct cairn_stage_ops, size), 4);
	/* What 1.1 added stands behind all of 1.0, and so on. */
	assert_int_equal(offsetof(struct cairn_stage_ops, identify) + sizeof(void *),
			 offsetof(struct cairn_stage_ops, check_values));
	assert_int_equal(offsetof(struct cairn_stage_ops, shards) + sizeof(void *),
			 offsetof(struct cairn_stage_ops, repair));
	assert_int_equal(offsetof(struct cairn_stage_ops, inspect) + sizeof(void *),
			 offsetof(struct cairn_stage_ops, serve));
	assert_int_equal(offsetof(struct cairn_stage_ops, abort) + sizeof(void *),
			 offsetof(struct cairn_stage_ops, io_zeroed));
	assert_int_equal(offsetof(struct cairn_stage_ops, io_zeroed) + sizeof(size_t),
			 sizeof(struct cairn_stage_ops));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_add_and_gauges_replace),
		cmocka_unit_test(only_what_is_pending_fails),
		cmocka_unit_test(the_abi_is_as_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
