/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles and intervals; the content that shows wrong bytes; option words. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "content.h"
#include "figures.h"
#include "options.h"

static void test_percentile(void **state)
{
	uint64_t values[100], one = 7;

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		values[i] = 100 - i;
	figures_sort(values, 100);
	assert_int_equal(figures_percentile(values, 100, 0.50), 50);
	assert_int_equal(figures_percentile(values, 100, 0.99), 99);
	assert_int_equal(figures_percentile(values, 100, 0.991), 100);
	assert_int_equal(figures_percentile(values, 100, 0), 1);
	assert_int_equal(figures_percentile(values, 100, 1), 100);
	assert_int_equal(figures_percentile(&one, 1, 0.99), 7);
	assert_int_equal(figures_percentile(NULL, 0, 0.5), 0);
}

/*
 * Order statistics by a table of the sign test (for example Conover, Practical
 * Nonparametric Statistics, A3): from the r-th lowest to the r-th highest of n.
 */
static void test_median(void **state)
{
	static const struct {
		size_t n, r;
	} rows[] = {{1, 1}, {4, 1},  {5, 1},  {7, 1},  {8, 2},
		    {9, 2}, {11, 3}, {15, 4}, {20, 6}, {30, 11}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct figures_median m;
		double values[30];
		size_t n = rows[i].n;

		for (size_t k = 0; k < n; k++) /* 1 to n, shuffled */
			values[k] = (double)((k * 7) % n + 1);
		if (n % 7 == 0)
			for (size_t k = 0; k < n; k++)
				values[k] = (double)(n - k);
		m = figures_median(values, n);
		assert_true(m.median == (double)(n + 1) / 2);
		assert_int_equal((size_t)m.low, rows[i].r);
		assert_int_equal((size_t)m.high, n + 1 - rows[i].r);
	}
	assert_true(figures_median(NULL, 0).median == 0);
}

static const struct cairn_key key_a = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static void test_content_good(void **state)
{
	static const uint64_t lengths[] = {1, 7, 8, 9, 4095, 4096, 4097, 8192, 10001};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		uint8_t *buffer = malloc(lengths[i]);
		uint64_t first;

		content_fill(&key_a, 3, buffer, lengths[i]);
		assert_int_equal(content_verify(&key_a, 3, buffer, lengths[i], &first), 0);
		assert_int_equal(content_verify(&key_a, 3, buffer, lengths[i], NULL), 0);
		free(buffer);
	}
}

/* Each single wrong byte is seen, counted and placed. */
static void test_content_bits(void **state)
{
	uint8_t *buffer = malloc(5003);

	(void)state;
	content_fill(&key_a, 0, buffer, 5003);
	for (uint64_t at = 0; at < 5003; at++) {
		uint64_t first;

		buffer[at] ^= (uint8_t)(1u << at % 8);
		assert_int_equal(content_verify(&key_a, 0, buffer, 5003, &first), 1);
		assert_int_equal(first, at);
		buffer[at] ^= (uint8_t)(1u << at % 8);
	}
	buffer[0] ^= 1;
	buffer[4999] ^= 1;
	assert_int_equal(content_verify(&key_a, 0, buffer, 5003, NULL), 2);
	free(buffer);
}

/* Bytes of another key, shard or offset are wrong, nearly all of them. */
static void test_content_elsewhere(void **state)
{
	uint64_t buffer[1024];
	struct cairn_key key;

	(void)state;
	for (size_t byte = 0; byte < sizeof(key.bytes); byte++) {
		key = key_a;
		key.bytes[byte] ^= 0x80;
		content_fill(&key, 0, buffer, sizeof(buffer));
		assert_true(content_verify(&key_a, 0, buffer, sizeof(buffer), NULL) > 8000);
	}
	content_fill(&key_a, 1, buffer, sizeof(buffer));
	assert_true(content_verify(&key_a, 0, buffer, sizeof(buffer), NULL) > 8000);
	content_fill(&key_a, 0, buffer, sizeof(buffer));
	assert_true(content_verify(&key_a, 0, buffer + 1, sizeof(buffer) - 8, NULL) > 8000);
	memset(buffer, 0, sizeof(buffer));
	assert_true(content_verify(&key_a, 0, buffer, sizeof(buffer), NULL) > 8000);
}

static void test_key_text(void **state)
{
	char text[CONTENT_KEY_TEXT];
	struct cairn_key key;

	(void)state;
	content_key_format(&key_a, text);
	assert_string_equal(text, "0102030405060708090a0b0c0d0e0f10");
	assert_int_equal(content_key_parse("0102030405060708090A0B0C0D0E0F10", &key), 0);
	assert_memory_equal(&key, &key_a, sizeof(key));
	assert_int_equal(content_key_parse("0102030405060708090a0b0c0d0e0f1", &key), -EINVAL);
	assert_int_equal(content_key_parse("0102030405060708090a0b0c0d0e0f1g", &key), -EINVAL);
	assert_int_equal(content_key_parse("", &key), -EINVAL);
}

static void test_nearest(void **state)
{
	static const char *const names[] = {"trace", "generate", "rm", "ls", NULL};

	(void)state;
	assert_string_equal(option_nearest("trase", names), "trace");
	assert_string_equal(option_nearest("generat", names), "generate");
	assert_null(option_nearest("xyz", names));
	assert_null(option_nearest("", names));
	assert_null(option_nearest("cp", names));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percentile),	  cmocka_unit_test(test_median),
		cmocka_unit_test(test_content_good),	  cmocka_unit_test(test_content_bits),
		cmocka_unit_test(test_content_elsewhere), cmocka_unit_test(test_key_text),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
