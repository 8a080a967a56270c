/* SPDX-License-Identifier: Apache-2.0 */
#include "base/iov.h"

#include <string.h>

#include "base/copy.h"

bool iov_next(struct iov_walk *walk, uint8_t **ret_base, uint64_t *ret_bytes)
{
	while (walk->count && walk->skip >= walk->iov->iov_len) {
		walk->skip -= walk->iov->iov_len;
		walk->iov++;
		walk->count--;
	}
	if (!walk->count || !walk->left)
		return false;
	*ret_base = (uint8_t *)walk->iov->iov_base + walk->skip;
	*ret_bytes = walk->iov->iov_len - walk->skip;
	if (*ret_bytes > walk->left)
		*ret_bytes = walk->left;
	walk->skip += *ret_bytes;
	walk->left -= *ret_bytes;
	return true;
}

static void gather(struct iov_walk walk, uint8_t *memory, bool cold)
{
	uint64_t bytes;
	uint8_t *base;

	while (iov_next(&walk, &base, &bytes)) {
		if (cold)
			copy_cold(memory, base, bytes);
		else
			memcpy(memory, base, bytes);
		memory += bytes;
	}
}

void iov_gather(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		uint8_t *memory)
{
	gather((struct iov_walk){iov, count, skip, length}, memory, false);
}

void iov_gather_cold(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		     uint8_t *memory)
{
	gather((struct iov_walk){iov, count, skip, length}, memory, true);
}

void iov_scatter(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length,
		 const uint8_t *memory)
{
	struct iov_walk walk = {iov, count, skip, length};
	uint64_t bytes;
	uint8_t *base;

	while (iov_next(&walk, &base, &bytes)) {
		memcpy(base, memory, bytes);
		memory += bytes;
	}
}
