/* SPDX-License-Identifier: Apache-2.0 */
/* How much is written at once beside loads: on disks of a rate, and by the rules alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "stages/flash/pace.h"

#define WRITE (1u << 20)

/* A write of WRITE bytes on a disk of @rate bytes a second, behind the others that are out. */
static void write_one(struct pace *pace, uint64_t rate)
{
	uint64_t piece = pace_piece(pace, WRITE), out = pace_writes(pace, WRITE) * piece;
	uint32_t pieces = (uint32_t)(WRITE / piece);

	pace_ended(pace, WRITE, pieces, out * 1000000000u / rate * pieces);
}

static void settles(void **state)
{
	static const struct {
		uint64_t rate, bytes;
	} disks[] = {
		{50000000, 256 << 10},	  /* the floor */
		{400000000, 256 << 10},	  /* 0.66 ms each */
		{700000000, 512 << 10},	  /* 0.75 ms */
		{1600000000, 1024 << 10}, /* 0.66 ms */
		{5000000000, 2048 << 10},
	};
	struct pace pace;

	(void)state;
	pace_init(&pace, WRITE);
	assert_int_equal(pace.bytes, 2 * WRITE);
	for (uint32_t turn = 0; turn < 2; turn++) /* from above, then from below and above */
		for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
			for (uint32_t k = 0; k < 8 * PACE_CALM; k++)
				write_one(&pace, disks[i].rate);
			assert_int_equal(pace.bytes, disks[i].bytes);
		}
}

static void shapes(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, WRITE);
	assert_int_equal(pace_writes(&pace, WRITE), 2);
	assert_int_equal(pace_piece(&pace, WRITE), WRITE);
	pace_ended(&pace, WRITE, 1, PACE_NS + 1);
	assert_int_equal(pace_writes(&pace, WRITE), 1);
	assert_int_equal(pace_piece(&pace, WRITE), WRITE);
	pace_ended(&pace, WRITE, 1, PACE_NS + 1);
	assert_int_equal(pace_writes(&pace, WRITE), 1);
	assert_int_equal(pace_piece(&pace, WRITE), WRITE / 2);
	for (uint32_t i = 0; i < 9; i++) /* never less than the floor */
		pace_ended(&pace, WRITE, 2, 1000 * PACE_NS);
	assert_int_equal(pace_writes(&pace, WRITE), 1);
	assert_int_equal(pace_piece(&pace, WRITE), PACE_LEAST);
}

/* It rises after so many in a row; one that took its time begins the count anew. */
static void calm(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, WRITE);
	pace_ended(&pace, WRITE, 1, PACE_NS + 1);
	for (uint32_t i = 0; i < PACE_CALM - 1; i++)
		pace_ended(&pace, WRITE, 1, PACE_NS / 2);
	pace_ended(&pace, WRITE, 1, PACE_NS / 2 + 1); /* twice that were too much */
	for (uint32_t i = 0; i < PACE_CALM - 1; i++)
		pace_ended(&pace, WRITE, 1, PACE_NS / 2);
	assert_int_equal(pace.bytes, WRITE);
	pace_ended(&pace, WRITE, 1, PACE_NS / 2);
	assert_int_equal(pace.bytes, 2 * WRITE);
	for (uint32_t i = 0; i < 3 * PACE_CALM; i++)
		pace_ended(&pace, WRITE, 1, 0);
	assert_int_equal(pace.bytes, 2 * WRITE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(settles), cmocka_unit_test(shapes),
					   cmocka_unit_test(calm)};

	return cmocka_run_group_tests_name("flash_pace", tests, NULL, NULL);
}
