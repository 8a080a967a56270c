/* SPDX-License-Identifier: Apache-2.0 */
/* Option rows for the tests of the grammar: one option of each type. */
#ifndef TESTS_UNIT_GRAMMAR_ROWS_H
#define TESTS_UNIT_GRAMMAR_ROWS_H

#include <string.h>

#include "core/grammar.h"

enum {
	ROW_PATH,
	ROW_SIZE,
	ROW_TTL,
	ROW_ENTRIES,
	ROW_RATIO,
	ROW_SHARED,
	ROW_DIRECT,
	ROW_NOTE,
	POSIX_ROWS,
};

static const struct cairn_option posix_rows[POSIX_ROWS] = {
	{"path", CAIRN_OPTION_PATH, CAIRN_OPTION_REQUIRED, NULL, NULL, NULL, NULL, "where"},
	{"size", CAIRN_OPTION_SIZE, 0, NULL, "1MiB", "1TiB", NULL, "budget"},
	{"partial_ttl", CAIRN_OPTION_TIME, 0, "1h", "1s", NULL, NULL, "age of leftovers"},
	{"entries", CAIRN_OPTION_COUNT, 0, "64k", NULL, "1M", NULL, "blocks"},
	{"ratio", CAIRN_OPTION_NUMBER, 0, NULL, "0", "1", NULL, "a share"},
	{"shared", CAIRN_OPTION_BOOL, 0, "no", NULL, NULL, NULL, "many writers"},
	{"direct", CAIRN_OPTION_CHOICE, 0, "auto", NULL, NULL, "auto|yes|no", "page cache"},
	{"note", CAIRN_OPTION_TEXT, 0, NULL, NULL, NULL, NULL, "any text"},
};

static const struct cairn_option cache_rows[] = {
	{"size", CAIRN_OPTION_SIZE, 0, "1GiB", NULL, NULL, NULL, "budget"},
	{"policy", CAIRN_OPTION_CHOICE, 0, "lru", NULL, NULL, "lru|semantic", "what stays"},
};

static inline const struct cairn_option *grammar_rows(void *context, const char *stage_name,
						      uint32_t *ret_count)
{
	(void)context;
	*ret_count = 0;
	if (strcmp(stage_name, "posix") == 0 || strcmp(stage_name, "flash") == 0) {
		*ret_count = POSIX_ROWS;
		return posix_rows;
	}
	if (strcmp(stage_name, "cache") == 0) {
		*ret_count = sizeof(cache_rows) / sizeof(cache_rows[0]);
		return cache_rows;
	}
	return NULL;
}

#endif
