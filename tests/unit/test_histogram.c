/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/histogram.h"
#include "random.h"

#define HOUR_NS 3600000000000ull

static void assert_near(uint64_t said, uint64_t exact)
{
	uint64_t off = said > exact ? said - exact : exact - said;

	if (off * 250 > exact) /* 0.4 % */
		fail_msg("%llu for %llu", (unsigned long long)said, (unsigned long long)exact);
}

/* The value under test is neither the least nor the largest, which are kept exactly. */
static void error_bound(void **state)
{
	struct histogram *h = calloc(1, sizeof(*h));

	(void)state;
	for (uint64_t value = 1; value <= HOUR_NS; value += value / 97 + 1) {
		memset(h, 0, sizeof(*h));
		histogram_record(h, 0);
		histogram_record(h, value);
		histogram_record(h, UINT64_MAX);
		assert_near(histogram_percentile(h, 50), value);
		if (value < 256)
			assert_int_equal(histogram_percentile(h, 50), value);
	}
	/* Every power of two and its neighbours, where classes change width. */
	for (int bit = 8; bit < HISTOGRAM_VALUE_BITS; bit++) {
		for (uint64_t i = 0; i < 3; i++) {
			uint64_t value = (1ull << bit) - 1 + i;

			memset(h, 0, sizeof(*h));
			histogram_record(h, 0);
			histogram_record(h, value);
			histogram_record(h, UINT64_MAX);
			assert_near(histogram_percentile(h, 50), value);
		}
	}
	free(h);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

#define SAMPLES 5000

static void percentiles(void **state)
{
	static const double percents[] = {0, 0.01, 1, 10, 50, 90, 99, 99.9, 99.99, 100};
	struct histogram *h = calloc(1, sizeof(*h)), *other = calloc(1, sizeof(*other));
	uint64_t *values = calloc(SAMPLES, sizeof(*values)), sum = 0;
	struct random random = {5};

	(void)state;
	assert_int_equal(histogram_percentile(h, 50), 0);
	assert_true(histogram_mean(h) == 0);
	for (uint32_t i = 0; i < SAMPLES; i++) {
		values[i] = random_next(&random) >> (24 + random_below(&random, 38));
		values[i] = values[i] < HOUR_NS ? values[i] : HOUR_NS;
		sum += values[i];
		histogram_record(i % 3 ? h : other, values[i]);
	}
	histogram_merge(h, other);
	memset(other, 0, sizeof(*other));
	histogram_merge(h, other); /* nothing changes, min neither */
	qsort(values, SAMPLES, sizeof(*values), compare);
	assert_int_equal(h->count, SAMPLES);
	assert_true(h->sum == sum && h->min == values[0] && h->max == values[SAMPLES - 1]);
	for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		double share = percents[i] / 100 * SAMPLES;
		uint32_t rank = (uint32_t)share;

		rank += rank < share || !rank;
		assert_near(histogram_percentile(h, percents[i]), values[rank - 1]);
	}
	assert_int_equal(histogram_percentile(h, 0), values[0]);
	assert_int_equal(histogram_percentile(h, 100), values[SAMPLES - 1]);
	free(values);
	free(other);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(error_bound),
					   cmocka_unit_test(percentiles)};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
