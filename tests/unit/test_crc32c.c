/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/crc32c.h"
#include "base/crc32c_fold.h"
#include "random.h"

/* Bit by bit, from the definition. */
static uint32_t naive(const uint8_t *data, size_t bytes)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void known(void **state)
{
	static const uint8_t zeros[32];
	uint8_t ones[32];

	(void)state;
	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	/* RFC 3720, B.4 */
	assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aa);
	assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43);
	assert_int_equal(crc32c(0, NULL, 0), 0);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

static void pieces(void **state)
{
	static uint8_t data[3000];
	struct random random = {1};

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_next(&random);
	for (int round = 0; round < 2000; round++) {
		struct iovec iov[8];
		uint32_t crc[3001], count = 0, piece = 1 + random_below(&random, 700);
		uint64_t skip, length, at = 0, n = 0;

		while (count < 8 && at < sizeof(data)) {
			iov[count].iov_base = data + at;
			iov[count].iov_len = random_below(&random, 600);
			if (at + iov[count].iov_len > sizeof(data))
				iov[count].iov_len = sizeof(data) - at;
			at += iov[count++].iov_len;
		}
		skip = random_below(&random, (uint32_t)at + 1);
		length = random_below(&random, (uint32_t)(at - skip) + 1);
		crc[(length + piece - 1) / piece] = 0xabcdef;
		crc32c_pieces(iov, count, skip, length, piece, crc);
		for (uint64_t done = 0; done < length; done += piece) {
			uint64_t bytes = length - done < piece ? length - done : piece;

			assert_int_equal(crc[n++], naive(data + skip + done, bytes));
		}
		assert_int_equal(crc[n], 0xabcdef);
	}
}

/* Lengths about which one way gives place to the other, and long ones; each way by itself. */
static void long_ones(void **state)
{
	static uint8_t data[70000];
	struct random random = {2};

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_next(&random);
	for (int round = 0; round < 2000; round++) {
		size_t most = round % 20 ? 1500 : sizeof(data) - 64;
		size_t bytes = random_below(&random, (uint32_t)most), skip = (size_t)round % 64;
		size_t first = bytes ? random_below(&random, (uint32_t)bytes) : 0;
		uint32_t crc = naive(data + skip, bytes);

		assert_int_equal(crc32c(0, data + skip, bytes), crc);
		assert_int_equal(
			crc32c(crc32c(0, data + skip, first), data + skip + first, bytes - first),
			crc);
		bytes = bytes / CRC32C_FOLD_STEP * CRC32C_FOLD_STEP;
		if (bytes && crc32c_fold_can())
			assert_int_equal(~crc32c_fold(UINT32_MAX, data + skip, bytes),
					 naive(data + skip, bytes));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known),
		cmocka_unit_test(pieces),
		cmocka_unit_test(long_ones),
	};

	return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
