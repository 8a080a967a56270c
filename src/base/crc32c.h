/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli, reflected, init and xorout all ones: RFC 3720, B.4), by ISA-L, or by
 * crc32c_fold.h where that is faster. Pure.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Of @bytes at @data, going on from @crc (0 to start): "123456789" gives 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

/*
 * One CRC for each @piece bytes (the last may be short) of @length bytes that
 * start @skip bytes into @iov. @ret_crc has (length + piece - 1) / piece places.
 */
void crc32c_pieces(const struct iovec *iov, uint32_t iov_count, uint64_t skip, uint64_t length,
		   uint32_t piece, uint32_t *ret_crc);

#endif
