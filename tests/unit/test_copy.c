/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/copy.h"

#define GUARD 128u

/* Each length about the limits, from and to each of some offsets; nothing beside is touched. */
static void copies(void **state)
{
	static const size_t lengths[] = {
		0,     1,      63,    4096, COPY_COLD_MIN - 1, COPY_COLD_MIN, COPY_COLD_MIN + 1,
		70001, 262144, 300007};
	static const size_t offsets[] = {0, 1, 16, 63, 64};
	size_t room = 300007 + 2 * GUARD;
	uint8_t *from = malloc(room), *to = malloc(room);

	(void)state;
	assert_non_null(from);
	assert_non_null(to);
	for (size_t i = 0; i < room; i++)
		from[i] = (uint8_t)(i * 131 + i / 251);
	for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++)
		for (size_t a = 0; a < 5; a++)
			for (size_t b = 0; b < 5; b++) {
				size_t begin = GUARD - 64 + offsets[b], end = begin + lengths[n];

				memset(to, 0xee, room);
				copy_cold(to + begin, from + offsets[a], lengths[n]);
				assert_memory_equal(to + begin, from + offsets[a], lengths[n]);
				for (size_t i = 0; i < begin; i++)
					assert_int_equal(to[i], 0xee);
				for (size_t i = end; i < end + 64; i++)
					assert_int_equal(to[i], 0xee);
			}
	assert_non_null(copy_cold_kind());
	free(from);
	free(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(copies)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
