/* SPDX-License-Identifier: Apache-2.0 */
/* Segments of memory, in a row. Pure. */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What is left of a walk: @left bytes that start @skip into the @count segments at @iov. */
struct iov_walk {
	const struct iovec *iov;
	uint32_t count;
	uint64_t skip, left;
};

/* The next run of memory; false: there is no more. */
bool iov_next(struct iov_walk *walk, uint8_t **ret_base, uint64_t *ret_bytes);

/* Copies @length bytes that start @skip into @iov to or from @memory. */
void iov_gather(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		uint8_t *memory);
/* By copy_cold(): this processor does not read @memory soon. */
void iov_gather_cold(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		     uint8_t *memory);
void iov_scatter(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		 const uint8_t *memory);

#endif
