/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/uring_buffers.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define CHUNKS_MAX   16384u	  /* the kernel's limit of registered buffers */
#define REGISTER_MAX (1ull << 30) /* the kernel's limit of one registered buffer, bytes */

/* One piece of memory: its chunks are buffers from @first on. */
struct range {
	uintptr_t base;
	size_t first, chunk_count;
};

struct uring_buffers {
	struct io_uring *ring;
	size_t chunk_bytes;
	bool full; /* no more can be registered */
	uint32_t range_count;
	struct range ranges[ENGINE_MEMORY_MAX];
	bool registered[]; /* by buffer */
};

/* Where the ranges' chunks come; how many there are in all. */
static size_t ranges_lay(const struct engine_opts *opts, struct range *ranges)
{
	size_t count = 0;

	for (uint32_t i = 0; i < opts->memory_count; i++) {
		size_t chunks = opts->memory[i].bytes / opts->memory_chunk;

		if (chunks > CHUNKS_MAX - count)
			chunks = CHUNKS_MAX - count;
		ranges[i] = (struct range){(uintptr_t)opts->memory[i].base, count, chunks};
		count += chunks;
	}
	return count;
}

int uring_buffers_open(const struct sys *sys, struct io_uring *ring, const struct engine_opts *opts,
		       struct uring_buffers **ret_buffers)
{
	struct range ranges[ENGINE_MEMORY_MAX];
	struct uring_buffers *buffers;
	size_t count;

	*ret_buffers = NULL;
	if (opts->memory_count == 0 || opts->memory_chunk > REGISTER_MAX)
		return 0;
	assert(opts->memory_chunk > 0 && opts->memory_count <= ENGINE_MEMORY_MAX);
	count = ranges_lay(opts, ranges);
	if (count == 0 || io_uring_register_buffers_sparse(ring, (unsigned)count) < 0)
		return 0;
	buffers = sys_zalloc(sys, 0, sizeof(*buffers) + count * sizeof(bool));
	if (buffers == NULL)
		return -ENOMEM;
	buffers->ring = ring;
	buffers->chunk_bytes = opts->memory_chunk;
	buffers->range_count = opts->memory_count;
	memcpy(buffers->ranges, ranges, opts->memory_count * sizeof(*ranges));
	*ret_buffers = buffers;
	return 0;
}

void uring_buffers_close(struct uring_buffers *buffers, const struct sys *sys)
{
	sys->free(buffers);
}

static bool chunk_register(struct uring_buffers *buffers, size_t buffer, uintptr_t base)
{
	struct iovec iov = {.iov_base = (void *)base, .iov_len = buffers->chunk_bytes};
	const __u64 tag = 0;
	int rc;

	if (buffers->registered[buffer])
		return true;
	if (buffers->full)
		return false;
	rc = io_uring_register_buffers_update_tag(buffers->ring, (unsigned)buffer, &iov, &tag, 1);
	/* RLIMIT_MEMLOCK, mostly: goes on without, and does not try again for every op. */
	buffers->full = rc != 1;
	buffers->registered[buffer] = rc == 1;
	return rc == 1;
}

int uring_buffers_find(struct uring_buffers *buffers, const struct iovec *iov)
{
	uintptr_t start = (uintptr_t)iov->iov_base;

	if (buffers == NULL || iov->iov_len == 0)
		return -1;
	for (uint32_t i = 0; i < buffers->range_count; i++) {
		const struct range *range = &buffers->ranges[i];
		size_t bytes = buffers->chunk_bytes, chunk = (start - range->base) / bytes;

		if (start < range->base || chunk >= range->chunk_count)
			continue;
		if ((start + iov->iov_len - 1 - range->base) / bytes != chunk)
			return -1;
		if (!chunk_register(buffers, range->first + chunk, range->base + chunk * bytes))
			return -1;
		return (int)(range->first + chunk);
	}
	return -1;
}
