/* SPDX-License-Identifier: Apache-2.0 */
/* The buckets of latencies: each bound is where base/latency.h and docs/format.md say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/latency.h"

static void bounds_are_those_of_the_format(void **state)
{
	static const uint64_t first[] = {128, 192, 256, 384, 512, 768, 1024};

	(void)state;
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(latency_bound_ns(i), first[i]);
	assert_int_equal(latency_bound_ns(LATENCY_BUCKETS - 2), UINT64_C(128) << 29);
	assert_true(latency_bound_ns(LATENCY_BUCKETS - 1) == UINT64_MAX);
}

static void a_bound_is_the_last_of_its_bucket(void **state)
{
	(void)state;
	assert_int_equal(latency_bucket(0), 0);
	assert_int_equal(latency_bucket(1), 0);
	for (uint32_t i = 0; i < LATENCY_BUCKETS - 1; i++) {
		uint64_t bound_ns = latency_bound_ns(i);

		assert_true(i == 0 || bound_ns > latency_bound_ns(i - 1));
		assert_int_equal(latency_bucket(bound_ns), i);
		assert_int_equal(latency_bucket(bound_ns + 1), i + 1);
	}
	assert_int_equal(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
}

static void what_is_added_is_counted_and_summed(void **state)
{
	struct latency latency = {0};

	(void)state;
	latency_add(&latency, 100, 1);
	latency_add(&latency, 200, 3);
	assert_int_equal(latency.sum_ns, 700);
	assert_int_equal(latency.counts[0], 1);
	assert_int_equal(latency.counts[2], 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_are_those_of_the_format),
		cmocka_unit_test(a_bound_is_the_last_of_its_bucket),
		cmocka_unit_test(what_is_added_is_counted_and_summed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
