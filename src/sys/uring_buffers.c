/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/uring_buffers.h"

#include <assert.h>
#include <errno.h>

#define CHUNKS_MAX   16384u	  /* the kernel's limit of registered buffers */
#define REGISTER_MAX (1ull << 30) /* the kernel's limit of one registered buffer, bytes */

struct uring_buffers {
	struct io_uring *ring;
	uintptr_t base;
	size_t chunk_bytes, chunk_count;
	bool full; /* no more can be registered */
	bool registered[];
};

int uring_buffers_open(const struct sys *sys, struct io_uring *ring, const struct engine_opts *opts,
		       struct uring_buffers **ret_buffers)
{
	struct uring_buffers *buffers;
	size_t count;

	*ret_buffers = NULL;
	if (opts->pool_bytes == 0 || opts->pool_chunk > REGISTER_MAX)
		return 0;
	assert(opts->pool_base != NULL && opts->pool_chunk > 0);
	count = opts->pool_bytes / opts->pool_chunk;
	count = count > CHUNKS_MAX ? CHUNKS_MAX : count;
	if (count == 0 || io_uring_register_buffers_sparse(ring, (unsigned)count) < 0)
		return 0;
	buffers = sys_zalloc(sys, 0, sizeof(*buffers) + count * sizeof(bool));
	if (buffers == NULL)
		return -ENOMEM;
	buffers->ring = ring;
	buffers->base = (uintptr_t)opts->pool_base;
	buffers->chunk_bytes = opts->pool_chunk;
	buffers->chunk_count = count;
	*ret_buffers = buffers;
	return 0;
}

void uring_buffers_close(struct uring_buffers *buffers, const struct sys *sys)
{
	sys->free(buffers);
}

static bool chunk_register(struct uring_buffers *buffers, size_t chunk)
{
	struct iovec iov = {
		.iov_base = (void *)(buffers->base + chunk * buffers->chunk_bytes),
		.iov_len = buffers->chunk_bytes,
	};
	const __u64 tag = 0;
	int rc;

	if (buffers->registered[chunk])
		return true;
	if (buffers->full)
		return false;
	rc = io_uring_register_buffers_update_tag(buffers->ring, (unsigned)chunk, &iov, &tag, 1);
	/* RLIMIT_MEMLOCK, mostly: goes on without, and does not try again for every op. */
	buffers->full = rc != 1;
	buffers->registered[chunk] = rc == 1;
	return rc == 1;
}

int uring_buffers_find(struct uring_buffers *buffers, const struct iovec *iov)
{
	uintptr_t start = (uintptr_t)iov->iov_base;
	size_t chunk;

	if (buffers == NULL || start < buffers->base || iov->iov_len == 0)
		return -1;
	chunk = (start - buffers->base) / buffers->chunk_bytes;
	if (chunk >= buffers->chunk_count)
		return -1;
	if ((start + iov->iov_len - 1 - buffers->base) / buffers->chunk_bytes != chunk)
		return -1;
	return chunk_register(buffers, chunk) ? (int)chunk : -1;
}
