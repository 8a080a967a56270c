/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buddy.h"
#include "random.h"

#define UNIT 4096u

static void sizes(void **state)
{
	struct buddy b;
	void *meta = malloc(buddy_meta_bytes(13 * UNIT + 5));

	(void)state;
	assert_int_equal(buddy_piece_bytes(1), UNIT);
	assert_int_equal(buddy_piece_bytes(UNIT), UNIT);
	assert_int_equal(buddy_piece_bytes(UNIT + 1), 2 * UNIT);
	buddy_init(&b, meta, 13 * UNIT + 5); /* 8 + 4 + 1 */
	assert_int_equal(b.free_units, 13);
	assert_int_equal(buddy_largest(&b), 8 * UNIT);
	assert_true(buddy_get(&b, 8 * UNIT + 1) == BUDDY_NONE);
	assert_true(buddy_get(&b, UINT64_MAX) == BUDDY_NONE);
	assert_int_equal(buddy_get(&b, UNIT), 12 * UNIT); /* the smallest that fits */
	assert_int_equal(buddy_get(&b, 3 * UNIT), 8 * UNIT);
	assert_int_equal(buddy_get(&b, 5 * UNIT), 0);
	assert_int_equal(buddy_largest(&b), 0);
	assert_true(buddy_get(&b, 1) == BUDDY_NONE);
	buddy_put(&b, 8 * UNIT);
	buddy_put(&b, 0);
	buddy_put(&b, 12 * UNIT);
	assert_int_equal(buddy_largest(&b), 8 * UNIT);
	assert_int_equal(b.free_units, 13);
	free(meta);
}

static void empty(void **state)
{
	struct buddy b;
	uint32_t meta[4];

	(void)state;
	assert_int_equal(buddy_meta_bytes(UNIT - 1), 0);
	buddy_init(&b, meta, UNIT - 1);
	assert_true(buddy_get(&b, 1) == BUDDY_NONE);
}

/* ---- against a naive model ---------------------------------------------- */

#define UNITS 300

struct model {
	bool taken[UNITS];
	uint32_t units[UNITS]; /* of the piece that begins here; 0: none does */
};

static bool clear(const struct model *m, uint32_t at, uint32_t units)
{
	for (uint32_t i = at; i < at + units; i++)
		if (i >= UNITS || m->taken[i])
			return false;
	return true;
}

/* An aligned piece of that many units is free, so a buddy allocator must find one. */
static bool model_has(const struct model *m, uint32_t units)
{
	for (uint32_t at = 0; at + units <= UNITS; at += units)
		if (clear(m, at, units))
			return true;
	return false;
}

static void model_get(struct model *m, struct buddy *b, uint32_t bytes)
{
	uint64_t offset = buddy_get(b, bytes);
	uint32_t units = (uint32_t)(buddy_piece_bytes(bytes) / UNIT), at;

	assert_int_equal(offset != BUDDY_NONE, model_has(m, units));
	if (offset == BUDDY_NONE)
		return;
	at = (uint32_t)(offset / UNIT);
	assert_int_equal(offset % (units * UNIT), 0);
	assert_true(clear(m, at, units));
	memset(m->taken + at, true, units);
	m->units[at] = units;
}

static void model_put(struct model *m, struct buddy *b, uint32_t at)
{
	while (!m->units[at])
		at = (at + 1) % UNITS;
	buddy_put(b, (uint64_t)at * UNIT);
	memset(m->taken + at, false, m->units[at]);
	m->units[at] = 0;
}

static void against_model(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct random random = {11};
	struct buddy b;
	void *meta = malloc(buddy_meta_bytes(UNITS * UNIT));

	(void)state;
	buddy_init(&b, meta, UNITS * UNIT);
	for (int i = 0; i < 20000; i++) {
		uint32_t taken = 0, largest = 1;

		/* Fuller and emptier in turns. */
		if (random_below(&random, 100) < (i / 1000 % 2 ? 40u : 60u) ||
		    b.free_units == UNITS)
			model_get(m, &b,
				  1 + random_below(&random, UNIT << random_below(&random, 8)));
		else
			model_put(m, &b, random_below(&random, UNITS));
		for (uint32_t at = 0; at < UNITS; at++)
			taken += m->taken[at];
		assert_int_equal(b.free_units, UNITS - taken);
		while (largest * 2 <= UNITS && model_has(m, largest * 2))
			largest *= 2;
		assert_int_equal(buddy_largest(&b), model_has(m, 1) ? largest * UNIT : 0);
	}
	while (b.free_units < UNITS)
		model_put(m, &b, 0);
	assert_int_equal(buddy_largest(&b), 256 * UNIT);
	free(meta);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(empty),
					   cmocka_unit_test(against_model)};

	return cmocka_run_group_tests_name("buddy", tests, NULL, NULL);
}
