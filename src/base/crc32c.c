/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#include <assert.h>

#include <isa-l/crc.h>

#include "base/crc32c_fold.h"

/* ISA-L counts bytes in an int; a multiple of its block keeps each call fast. */
#define CRC_CALL_MAX (1u << 30)
#define FOLD_MIN     512u /* below, what it takes to begin and to end counts */

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
	const unsigned char *at = data;

	assert(data || !bytes);
	/* ISA-L neither inverts at the start nor at the end: the register itself. */
	crc = ~crc;
	if (bytes >= FOLD_MIN && crc32c_fold_faster()) {
		size_t n = bytes / CRC32C_FOLD_STEP * CRC32C_FOLD_STEP;

		crc = crc32c_fold(crc, at, n);
		at += n;
		bytes -= n;
	}
	while (bytes) {
		size_t n = bytes < CRC_CALL_MAX ? bytes : CRC_CALL_MAX;

		/* It takes a plain pointer and only reads. */
		crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)n, crc);
		at += n;
		bytes -= n;
	}
	return ~crc;
}

void crc32c_pieces(const struct iovec *iov, uint32_t iov_count, uint64_t skip, uint64_t length,
		   uint32_t piece, uint32_t *ret_crc)
{
	uint32_t i = 0, crc = 0;
	uint64_t left = length < piece ? length : piece; /* of this piece */

	assert(piece > 0);
	for (; i < iov_count && skip >= iov[i].iov_len; i++)
		skip -= iov[i].iov_len;
	while (length) {
		uint64_t n;

		assert(i < iov_count); /* @iov holds skip + length bytes */
		n = iov[i].iov_len - skip;
		n = n < left ? n : left;
		crc = crc32c(crc, (const char *)iov[i].iov_base + skip, n);
		skip += n;
		left -= n;
		length -= n;
		if (skip == iov[i].iov_len) {
			skip = 0;
			i++;
		}
		if (left)
			continue;
		*ret_crc++ = crc;
		crc = 0;
		left = length < piece ? length : piece;
	}
}
