/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small sys table for tests of what needs memory and one file to read: it
 * counts, fails the n-th call, and knows what is still live. One in each
 * program; one thread.
 */
#ifndef TESTS_UNIT_SYS_MEMORY_H
#define TESTS_UNIT_SYS_MEMORY_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sys/sys.h"

struct sys_memory_state {
	int calls;   /* of everything below */
	int fail_at; /* this call fails, from 1; 0: none does */
	int fail_errno;
	int live;	  /* pieces of memory */
	int open;	  /* descriptors */
	const char *file; /* what any path reads as; NULL: no such file */
	size_t file_bytes, read_max;
};

static struct sys_memory_state sys_memory_state;

static inline void sys_memory_reset(void)
{
	sys_memory_state.calls = 0;
	sys_memory_state.fail_at = 0;
	sys_memory_state.fail_errno = EIO;
	sys_memory_state.file = NULL;
	sys_memory_state.read_max = SIZE_MAX;
}

static inline void sys_memory_file(const char *text, size_t bytes)
{
	sys_memory_state.file = text;
	sys_memory_state.file_bytes = bytes;
}

static inline int sys_memory_fails(void)
{
	return ++sys_memory_state.calls == sys_memory_state.fail_at;
}

static inline void *sys_memory_alloc(size_t alignment, size_t bytes)
{
	void *memory = NULL;

	if (sys_memory_fails())
		return NULL;
	if (alignment < sizeof(void *))
		alignment = sizeof(void *);
	if (posix_memalign(&memory, alignment, bytes))
		return NULL;
	memset(memory, 0xa5, bytes); /* "not zeroed" must be seen */
	sys_memory_state.live++;
	return memory;
}

static inline void sys_memory_free(void *memory)
{
	sys_memory_state.live -= memory != NULL;
	free(memory);
}

static inline int sys_memory_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	(void)dirfd, (void)path, (void)flags, (void)mode;
	if (sys_memory_fails())
		return -sys_memory_state.fail_errno;
	if (!sys_memory_state.file)
		return -ENOENT;
	sys_memory_state.open++;
	return 77;
}

static inline int sys_memory_close(int fd)
{
	sys_memory_state.open -= fd == 77;
	return 0;
}

static inline ssize_t sys_memory_preadv(int fd, const struct iovec *iov, int iov_count,
					off_t offset)
{
	size_t at = (size_t)offset, n;

	if (sys_memory_fails())
		return -sys_memory_state.fail_errno;
	if (fd != 77 || iov_count != 1)
		return -EINVAL;
	if (at >= sys_memory_state.file_bytes)
		return 0;
	n = sys_memory_state.file_bytes - at;
	n = n < iov->iov_len ? n : iov->iov_len;
	n = n < sys_memory_state.read_max ? n : sys_memory_state.read_max;
	memcpy(iov->iov_base, sys_memory_state.file + at, n);
	return (ssize_t)n;
}

static const struct sys sys_memory = {
	.version = SYS_VERSION,
	.size = sizeof(struct sys),
	.alloc = sys_memory_alloc,
	.free = sys_memory_free,
	.openat = sys_memory_openat,
	.close = sys_memory_close,
	.preadv = sys_memory_preadv,
};

#endif
