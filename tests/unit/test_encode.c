/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/encode.h"

static void little_endian(void **state)
{
	static const uint8_t expected[] = {0xff, 0x01, 0x02, 0x11, 0x12, 0x13, 0x14, 0x28,
					   0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0xff};
	uint8_t bytes[16];

	(void)state;
	memset(bytes, 0xff, sizeof(bytes));
	put_u16(bytes + 1, 0x0201);
	put_u32(bytes + 3, 0x14131211);
	put_u64(bytes + 7, 0x2122232425262728ull);
	assert_memory_equal(bytes, expected, sizeof(bytes));
	assert_int_equal(get_u16(bytes + 1), 0x0201);
	assert_int_equal(get_u32(bytes + 3), 0x14131211);
	assert_true(get_u64(bytes + 7) == 0x2122232425262728ull);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(little_endian)};

	return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
