/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bucket.h"
#include "random.h"

#define S UINT64_C(1000000000)

static void no_bound(void **state)
{
	struct bucket bucket;
	uint64_t when;

	(void)state;
	bucket_init(&bucket, 0, 0);
	bucket_take(&bucket, INT64_MAX / 2, 0);
	assert_true(bucket_open(&bucket, 0, &when));
}

/* Whatever the sizes and the times, no more goes than the rate, its depth, and one piece. */
static void bounds(void **state)
{
	static const uint64_t rates[] = {1, 1000, 1u << 20, 256u << 20, BUCKET_RATE_MAX};
	struct random random = {3};

	(void)state;
	for (uint32_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
		uint64_t now = random_next(&random) % (1000 * S), begin = now, when, moved = 0;
		uint64_t piece = rates[r] / 50 + 1;
		struct bucket bucket;

		bucket_init(&bucket, rates[r], now);
		for (uint32_t i = 0; i < 2000; i++) {
			if (bucket_open(&bucket, now, &when)) {
				uint64_t bytes = random_next(&random) % piece + 1;

				bucket_take(&bucket, (int64_t)bytes, now);
				moved += bytes;
				continue;
			}
			assert_true(when > now);
			/* Not sooner than it says, and then for sure, but for a debt of long. */
			assert_false(bucket_open(&bucket, when - 1001, &(uint64_t){0}));
			now = when;
			assert_true((double)moved <=
				    (double)(now - begin) / 1e9 * (double)rates[r] +
					    (double)rates[r] / 8 + (double)piece + 2);
			assert_true(bucket_open(&bucket, now, &when));
		}
		/* None of it was kept back. */
		assert_true((double)moved + (double)rates[r] / 8 + 2 >=
			    (double)(now - begin) / 1e9 * (double)rates[r]);
	}
}

/* A debt of hours is paid in steps, and time that nobody asked in is worth the depth alone. */
static void long_times(void **state)
{
	struct bucket bucket;
	uint64_t now = S, when;

	(void)state;
	bucket_init(&bucket, 1000, now);
	bucket_take(&bucket, 126 + 3600 * 1000, now);
	while (!bucket_open(&bucket, now, &when)) {
		assert_true(when > now && when <= now + 10 * S);
		now = when;
	}
	assert_in_range(now, 3600 * S, 3602 * S);
	bucket_fill(&bucket, now + 100000 * S);
	assert_int_equal(bucket.tokens, 126);
	bucket_fill(&bucket, now); /* a clock does not go back; if it did, nothing happens */
	assert_int_equal(bucket.tokens, 126);
	bucket_take(&bucket, 126, now + 100000 * S);
	assert_false(bucket_open(&bucket, now + 100000 * S, &when));
	bucket_take(&bucket, -5, now + 100000 * S); /* less was moved than thought */
	assert_true(bucket_open(&bucket, now + 100000 * S, &when));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_bound),
		cmocka_unit_test(bounds),
		cmocka_unit_test(long_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
