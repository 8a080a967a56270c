/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/units.h"

#define KIB 1024ull
#define SEC 1000000000ull

struct row {
	const char *text;
	int err;
	uint64_t value;
};

static void check_rows(const struct row *rows, size_t count, int (*parse)(const char *, uint64_t *))
{
	for (size_t i = 0; i < count; i++) {
		uint64_t value = 77;
		int err = parse(rows[i].text, &value);

		if (err != rows[i].err || value != (err ? 77 : rows[i].value))
			fail_msg("\"%s\": %d, %llu", rows[i].text, err, (unsigned long long)value);
	}
}

#define CHECK(rows, parse) check_rows(rows, sizeof(rows) / sizeof((rows)[0]), parse)

static void sizes(void **state)
{
	static const struct row rows[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"4096B", 0, 4096},
		{"64KiB", 0, 64 * KIB},
		{"1.5GiB", 0, 3 * 512 * KIB * KIB},
		{"0.5KiB", 0, 512},
		{"2MiB", 0, 2 * KIB * KIB},
		{"1TiB", 0, KIB * KIB * KIB * KIB},
		{"10GB", 0, 10000000000ull},
		{"1KB", 0, 1000},
		{"3MB", 0, 3000000},
		{"1TB", 0, 1000000000000ull},
		{"0.0000000000000000000000001GiB", 0, 0},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"16777216TiB", -ERANGE, 0},
		{"16777215.9TiB", 0, UINT64_MAX - 109951162777ull},
		{"", -EINVAL, 0},
		{"KiB", -EINVAL, 0},
		{"1.KiB", -EINVAL, 0},
		{".5KiB", -EINVAL, 0},
		{"1.5", -EINVAL, 0},
		{"1.5B", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 KiB", 0, KIB},
		{"1  KiB", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1kib", -EINVAL, 0},
		{"1K", -EINVAL, 0},
		{"1s", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1,5GiB", -EINVAL, 0},
	};

	(void)state;
	CHECK(rows, units_parse_size);
}

static void times(void **state)
{
	static const struct row rows[] = {
		{"0", 0, 0},
		{"5ns", 0, 5},
		{"10us", 0, 10000},
		{"250ms", 0, 250000000},
		{"2s", 0, 2 * SEC},
		{"1.5s", 0, 3 * SEC / 2},
		{"3m", 0, 180 * SEC},
		{"1h", 0, 3600 * SEC},
		{"7d", 0, 604800 * SEC},
		{"0s", 0, 0},
		{"1", -EINVAL, 0},
		{"00", -EINVAL, 0},
		{"1.5ns", -EINVAL, 0},
		{"1min", -EINVAL, 0},
		{"1S", -EINVAL, 0},
		{"", -EINVAL, 0},
		{"300000d", -ERANGE, 0},
	};

	(void)state;
	CHECK(rows, units_parse_time);
}

static void counts(void **state)
{
	static const struct row rows[] = {
		{"1000", 0, 1000},     {"64k", 0, 64000},   {"1M", 0, 1000000},
		{"2G", 0, 2000000000}, {"1.5k", 0, 1500},   {"0", 0, 0},
		{"1.5", -EINVAL, 0},   {"1K", -EINVAL, 0},  {"1KiB", -EINVAL, 0},
		{"-3", -EINVAL, 0},    {"1e3", -EINVAL, 0}, {"20000000000G", -ERANGE, 0},
	};

	(void)state;
	CHECK(rows, units_parse_count);
}

static void numbers(void **state)
{
	static const struct {
		const char *text;
		int err;
		double value;
	} rows[] = {
		{"0.25", 0, 0.25},  {"0", 0, 0},	   {"1", 0, 1},
		{"-2.5", 0, -2.5},  {"+3", 0, 3},	   {"0.1", 0, 0.1},
		{"1e3", 0, 1000},   {"5e-3", 0, 0.005},	   {"1E+2", 0, 100},
		{"", -EINVAL, 0},   {"nan", -EINVAL, 0},   {"inf", -EINVAL, 0},
		{"1e", -EINVAL, 0}, {"1e999", -ERANGE, 0}, {"0,5", -EINVAL, 0},
		{"1x", -EINVAL, 0}, {"1e3x", -EINVAL, 0},  {"--1", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		double value = 77;
		int err = units_parse_number(rows[i].text, &value);
		double off = value - (err ? 77 : rows[i].value);

		if (err != rows[i].err || off > 1e-18 || off < -1e-18)
			fail_msg("\"%s\": %d, %g", rows[i].text, err, value);
	}
}

static void formats(void **state)
{
	char text[UNITS_TEXT_MAX];

	(void)state;
	assert_string_equal(units_format_size(0, text), "0 B");
	assert_string_equal(units_format_size(1023, text), "1023 B");
	assert_string_equal(units_format_size(512, text), "512 B");
	assert_string_equal(units_format_size(1024, text), "1 KiB");
	assert_string_equal(units_format_size(1536 * KIB * KIB, text), "1.5 GiB");
	assert_string_equal(units_format_size(KIB * KIB - 1, text), "1 MiB");
	assert_string_equal(units_format_size(1234567, text), "1.18 MiB");
	assert_string_equal(units_format_size(UINT64_MAX, text), "16 EiB");
	assert_string_equal(units_format_time(250 * 1000000ull, text), "250 ms");
	assert_string_equal(units_format_time(999999, text), "1 ms");
	assert_string_equal(units_format_time(90 * SEC, text), "1.5 min");
	assert_string_equal(units_format_time(UINT64_MAX, text), "213504 d");
	assert_string_equal(units_format_count(999, text), "999");
	assert_string_equal(units_format_count(1230000, text), "1.23 M");
	assert_string_equal(units_format_count(12345, text), "12.3 k");
	assert_string_equal(units_format_count(1005, text), "1.01 k");
	assert_string_equal(units_format_count(UINT64_MAX, text), "18.4 E");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),   cmocka_unit_test(times),   cmocka_unit_test(counts),
		cmocka_unit_test(numbers), cmocka_unit_test(formats),
	};

	return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
