/* SPDX-License-Identifier: Apache-2.0 */
/* Units in texts. Pure. */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/*
 * "4096", "64KiB", "1.5GiB", "10GB" (powers of ten), "0"; binary: KiB MiB GiB
 * TiB, decimal: KB MB GB TB, plain and "B": bytes; one space may stand before
 * the unit, here and below. 0 or -EINVAL, -ERANGE.
 */
int units_parse_size(const char *text, uint64_t *ret_bytes);

/* "250ms", "2s", "10us", "5ns", "3m", "1h", "7d", "0"; a bare number but 0 is -EINVAL. */
int units_parse_time(const char *text, uint64_t *ret_ns);

int units_parse_count(const char *text, uint64_t *ret_count); /* "1000", "64k", "1M", "2G" */
int units_parse_number(const char *text, double *ret_number);

/* Writes "1.5 GiB", "250 ms", "1.23 M" for people; returns @buffer. */
#define UNITS_TEXT_MAX 32
const char *units_format_size(uint64_t bytes, char buffer[UNITS_TEXT_MAX]);
const char *units_format_time(uint64_t ns, char buffer[UNITS_TEXT_MAX]);
const char *units_format_count(uint64_t count, char buffer[UNITS_TEXT_MAX]);

#endif
