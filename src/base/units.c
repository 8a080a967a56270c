/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units in texts. Integers throughout: the C library's conversions follow the
 * locale of the process that we live in, and a comma there must not change
 * what "1.5GiB" means.
 */
#include "base/units.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

#define KIB 1024ull
#define KB  1000ull

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"KiB", KIB},
	{"MiB", KIB *KIB},
	{"KB", KB},
	{"MB", KB *KB},
	{"GiB", KIB *KIB *KIB},
	{"TiB", KIB *KIB *KIB *KIB},
	{"GB", KB *KB *KB},
	{"TB", KB *KB *KB *KB},
};

static const struct unit time_units[] = {
	{"ns", 1},
	{"us", 1000},
	{"ms", 1000000},
	{"s", 1000000000},
	{"m", 60 * 1000000000ull},
	{"h", 3600 * 1000000000ull},
	{"d", 24 * 3600 * 1000000000ull},
};

static const struct unit count_units[] = {
	{"", 1},
	{"k", KB},
	{"M", KB *KB},
	{"G", KB *KB *KB},
};

/* Digits beyond this in a fraction are below what 64 bits can tell apart. */
#define FRACTION_DIGITS_MAX 18

struct decimal {
	uint64_t whole;
	uint64_t fraction, fraction_scale; /* fraction / fraction_scale, scale a power of ten */
	const char *rest;		   /* what follows the number */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int parse_decimal(const char *text, struct decimal *ret_decimal)
{
	struct decimal d = {.fraction_scale = 1, .rest = text};
	int digits = 0;

	if (!is_digit(*d.rest))
		return -EINVAL;
	for (; is_digit(*d.rest); d.rest++) {
		if (__builtin_mul_overflow(d.whole, 10, &d.whole) ||
		    __builtin_add_overflow(d.whole, (uint64_t)(*d.rest - '0'), &d.whole))
			return -ERANGE;
	}
	if (*d.rest == '.') {
		d.rest++;
		if (!is_digit(*d.rest))
			return -EINVAL;
		for (; is_digit(*d.rest); d.rest++) {
			if (++digits > FRACTION_DIGITS_MAX)
				continue;
			d.fraction = d.fraction * 10 + (uint64_t)(*d.rest - '0');
			d.fraction_scale *= 10;
		}
	}
	*ret_decimal = d;
	return 0;
}

static int parse_with_units(const char *text, const struct unit *units, size_t count,
			    uint64_t *ret_value)
{
	struct decimal d;
	unsigned __int128 value;
	size_t i;
	int err = parse_decimal(text, &d);

	if (err)
		return err;
	/* As units_format_size() writes it, and people do. */
	if (d.rest[0] == ' ' && d.rest[1] != '\0')
		d.rest++;
	for (i = 0; i < count && strcmp(units[i].name, d.rest) != 0; i++)
		;
	if (i == count)
		return -EINVAL;
	/* There is no half of the smallest unit. */
	if (units[i].factor == 1 && d.fraction)
		return -EINVAL;
	value = (unsigned __int128)d.whole * units[i].factor;
	value += (unsigned __int128)d.fraction * units[i].factor / d.fraction_scale;
	if (value > UINT64_MAX)
		return -ERANGE;
	*ret_value = (uint64_t)value;
	return 0;
}

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_with_units(text, size_units, COUNT_OF(size_units), ret_bytes);
}

int units_parse_time(const char *text, uint64_t *ret_ns)
{
	if (strcmp(text, "0") == 0) {
		*ret_ns = 0;
		return 0;
	}
	return parse_with_units(text, time_units, COUNT_OF(time_units), ret_ns);
}

int units_parse_count(const char *text, uint64_t *ret_count)
{
	return parse_with_units(text, count_units, COUNT_OF(count_units), ret_count);
}

#define EXPONENT_MAX 300 /* within a double's range, with the digits that stand before it */

static int parse_exponent(const char *text, int *ret_exponent)
{
	bool negative = *text == '-';
	int exponent = 0;

	if (*text == '-' || *text == '+')
		text++;
	if (!is_digit(*text))
		return -EINVAL;
	for (; is_digit(*text); text++) {
		exponent = exponent * 10 + (*text - '0');
		if (exponent > EXPONENT_MAX)
			return -ERANGE;
	}
	if (*text)
		return -EINVAL;
	*ret_exponent = negative ? -exponent : exponent;
	return 0;
}

int units_parse_number(const char *text, double *ret_number)
{
	bool negative = *text == '-';
	struct decimal d;
	long double value;
	int exponent = 0;
	int err;

	if (*text == '-' || *text == '+')
		text++;
	err = parse_decimal(text, &d);
	if (err)
		return err;
	if (*d.rest == 'e' || *d.rest == 'E')
		err = parse_exponent(d.rest + 1, &exponent);
	else if (*d.rest)
		err = -EINVAL;
	if (err)
		return err;
	value = (long double)d.whole + (long double)d.fraction / (long double)d.fraction_scale;
	for (; exponent > 0; exponent--)
		value *= 10.0L;
	for (; exponent < 0; exponent++)
		value /= 10.0L;
	if (value > (long double)__DBL_MAX__)
		return -ERANGE;
	*ret_number = (double)(negative ? -value : value);
	return 0;
}

/* ---- for people --------------------------------------------------------- */

/* Coarsest last; the empty name is a plain number. */
static const struct unit size_names[] = {
	{"B", 1},
	{"KiB", KIB},
	{"MiB", KIB *KIB},
	{"GiB", KIB *KIB *KIB},
	{"TiB", KIB *KIB *KIB *KIB},
	{"PiB", KIB *KIB *KIB *KIB *KIB},
	{"EiB", KIB *KIB *KIB *KIB *KIB *KIB},
};

static const struct unit time_names[] = {
	{"ns", 1},
	{"us", 1000},
	{"ms", 1000000},
	{"s", 1000000000},
	{"min", 60 * 1000000000ull},
	{"h", 3600 * 1000000000ull},
	{"d", 24 * 3600 * 1000000000ull},
};

static const struct unit count_names[] = {
	{"", 1},
	{"k", KB},
	{"M", KB *KB},
	{"G", KB *KB *KB},
	{"T", KB *KB *KB *KB},
	{"P", KB *KB *KB *KB *KB},
	{"E", KB *KB *KB *KB *KB *KB},
};

/* @value in hundredths of @factor, rounded to three significant digits. */
static uint64_t hundredths_of(uint64_t value, uint64_t factor)
{
	unsigned __int128 scaled = (unsigned __int128)value * 100;
	uint64_t grain = 1;

	if (value / factor >= 100)
		grain = 100;
	else if (value / factor >= 10)
		grain = 10;
	scaled += (unsigned __int128)factor * grain / 2;
	return (uint64_t)(scaled / ((unsigned __int128)factor * grain)) * grain;
}

static const char *format_with_units(uint64_t value, const struct unit *units, size_t count,
				     char buffer[UNITS_TEXT_MAX])
{
	size_t i = 0;
	uint64_t hundredths;
	const char *space;

	while (i + 1 < count && value >= units[i + 1].factor)
		i++;
	hundredths = hundredths_of(value, units[i].factor);
	/* 1023.9 KiB rounds up to what is better said as 1 MiB. */
	if (i + 1 < count && hundredths >= units[i + 1].factor / units[i].factor * 100) {
		i++;
		hundredths = 100;
	}
	space = units[i].name[0] ? " " : "";
	if (hundredths % 100 == 0)
		snprintf(buffer, UNITS_TEXT_MAX, "%llu%s%s", (unsigned long long)hundredths / 100,
			 space, units[i].name);
	else if (hundredths % 10 == 0)
		snprintf(buffer, UNITS_TEXT_MAX, "%llu.%llu%s%s",
			 (unsigned long long)hundredths / 100,
			 (unsigned long long)hundredths / 10 % 10, space, units[i].name);
	else
		snprintf(buffer, UNITS_TEXT_MAX, "%llu.%02llu%s%s",
			 (unsigned long long)hundredths / 100, (unsigned long long)hundredths % 100,
			 space, units[i].name);
	return buffer;
}

const char *units_format_size(uint64_t bytes, char buffer[UNITS_TEXT_MAX])
{
	return format_with_units(bytes, size_names, COUNT_OF(size_names), buffer);
}

const char *units_format_time(uint64_t ns, char buffer[UNITS_TEXT_MAX])
{
	return format_with_units(ns, time_names, COUNT_OF(time_names), buffer);
}

const char *units_format_count(uint64_t count, char buffer[UNITS_TEXT_MAX])
{
	return format_with_units(count, count_names, COUNT_OF(count_names), buffer);
}
