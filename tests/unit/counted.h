/* SPDX-License-Identifier: Apache-2.0 */
/* One figure of an open store's counters. */
#ifndef TESTS_UNIT_COUNTED_H
#define TESTS_UNIT_COUNTED_H

#include <string.h>

#include <cairn/store.h>

struct wanted_count {
	const char *stage, *name;
	uint64_t value;
};

static int see_counter(void *context, const struct cairn_counter *counter)
{
	struct wanted_count *wanted = context;

	if (strcmp(counter->stage, wanted->stage) == 0 && strcmp(counter->name, wanted->name) == 0)
		wanted->value = counter->value;
	return 0;
}

static uint64_t counted_of(struct cairn_store *store, const char *stage, const char *name)
{
	struct wanted_count wanted = {stage, name, UINT64_MAX};

	cairn_counters(store, see_counter, &wanted);
	assert_true(wanted.value != UINT64_MAX);
	return wanted.value;
}

#endif
