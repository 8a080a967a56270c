/* SPDX-License-Identifier: Apache-2.0 */
/* The sys table that meets the kernel, and the helpers over any table. */
#include "sys/sys.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sys/engine.h"

#define NS_PER_S 1000000000u

/* Runs @call until it is not interrupted; @rc becomes its result or a negative errno. */
#define RETRY(rc, call)                                                                            \
	do {                                                                                       \
		do {                                                                               \
			(rc) = (call);                                                             \
		} while ((rc) < 0 && errno == EINTR);                                              \
		if ((rc) < 0)                                                                      \
			(rc) = -errno;                                                             \
	} while (0)

static int native_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int rc;

	/* The host process may exec at any time: nothing of ours is inherited. */
	RETRY(rc, openat(dirfd, path, flags | O_CLOEXEC, mode));
	return rc;
}

static int native_openat_cached(int dirfd, const char *path, int flags)
{
	/* A lease of another program's, or a FIFO, must not make it wait either. */
	unsigned nonblock = flags & O_PATH ? 0 : O_NONBLOCK;
	const struct open_how how = {
		.flags = (unsigned)flags | nonblock | O_CLOEXEC,
		.resolve = RESOLVE_CACHED,
	};
	long rc;

	RETRY(rc, syscall(SYS_openat2, dirfd, path, &how, sizeof(how)));
	return (int)rc;
}

static int native_close(int fd)
{
	/* Linux has closed it even when it says EINTR. */
	if (close(fd) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static ssize_t native_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t rc;

	RETRY(rc, preadv(fd, iov, iov_count, offset));
	return rc;
}

static ssize_t native_preadv_cached(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t rc;

	RETRY(rc, preadv2(fd, iov, iov_count, offset, RWF_NOWAIT));
	return rc;
}

static ssize_t native_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t rc;

	RETRY(rc, pwritev(fd, iov, iov_count, offset));
	return rc;
}

static int native_fallocate(int fd, int mode, off_t offset, off_t length)
{
	int rc;

	RETRY(rc, fallocate(fd, mode, offset, length));
	return rc;
}

static int native_ftruncate(int fd, off_t length)
{
	int rc;

	RETRY(rc, ftruncate(fd, length));
	return rc;
}

static int native_fsync(int fd)
{
	int rc;

	RETRY(rc, fsync(fd));
	return rc;
}

static int native_fdatasync(int fd)
{
	int rc;

	RETRY(rc, fdatasync(fd));
	return rc;
}

static int native_renameat2(int old_dirfd, const char *old_path, int new_dirfd,
			    const char *new_path, unsigned flags)
{
	int rc;

	RETRY(rc, renameat2(old_dirfd, old_path, new_dirfd, new_path, flags));
	return rc;
}

static int native_linkat(int old_dirfd, const char *old_path, int new_dirfd, const char *new_path,
			 int flags)
{
	int rc;

	RETRY(rc, linkat(old_dirfd, old_path, new_dirfd, new_path, flags));
	return rc;
}

static int native_unlinkat(int dirfd, const char *path, int flags)
{
	int rc;

	RETRY(rc, unlinkat(dirfd, path, flags));
	return rc;
}

static int native_mkdirat(int dirfd, const char *path, mode_t mode)
{
	int rc;

	RETRY(rc, mkdirat(dirfd, path, mode));
	return rc;
}

static int native_faccessat(int dirfd, const char *path, int mode, int flags)
{
	int rc;

	RETRY(rc, faccessat(dirfd, path, mode, flags));
	return rc;
}

static int native_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
	int rc;

	RETRY(rc, fstatat(dirfd, path, st, flags));
	return rc;
}

static int native_fstat(int fd, struct stat *st)
{
	int rc;

	RETRY(rc, fstat(fd, st));
	return rc;
}

static int native_fstatvfs(int fd, struct statvfs *st)
{
	int rc;

	RETRY(rc, fstatvfs(fd, st));
	return rc;
}

static int native_fstatfs(int fd, struct statfs *st)
{
	int rc;

	RETRY(rc, fstatfs(fd, st));
	return rc;
}

static int native_ioctl(int fd, unsigned long request, void *argument)
{
	int rc;

	RETRY(rc, ioctl(fd, request, argument));
	return rc;
}

static int native_flock(int fd, int operation)
{
	int rc;

	RETRY(rc, flock(fd, operation));
	return rc;
}

static int byte_fcntl(int fd, int command, short type, off_t offset)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = offset,
		.l_len = 1,
	};
	int rc;

	RETRY(rc, fcntl(fd, command, &lock));
	/* POSIX allows either errno for a lock that is taken; we have one. */
	return rc == -EACCES ? -EAGAIN : rc;
}

static int native_byte_lock(int fd, off_t offset, bool wait)
{
	return byte_fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, F_WRLCK, offset);
}

static int native_byte_unlock(int fd, off_t offset)
{
	return byte_fcntl(fd, F_OFD_SETLK, F_UNLCK, offset);
}

static int native_bytes_locked(int fd, off_t first, off_t count)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = first,
		.l_len = count,
	};
	int rc;

	RETRY(rc, fcntl(fd, F_OFD_GETLK, &lock));
	return rc < 0 ? rc : lock.l_type != F_UNLCK;
}

static ssize_t native_getdents(int fd, void *buffer, size_t bytes)
{
	ssize_t rc;

	RETRY(rc, getdents64(fd, buffer, bytes));
	return rc;
}

static int native_shm_open(const char *name, int flags, mode_t mode)
{
	int rc;

	RETRY(rc, shm_open(name, flags | O_CLOEXEC, mode));
	return rc;
}

static int native_shm_unlink(const char *name)
{
	int rc;

	RETRY(rc, shm_unlink(name));
	return rc;
}

static int native_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset,
		       void **ret_address)
{
	void *address = mmap(hint, bytes, prot, flags, fd, offset);

	if (address == MAP_FAILED)
		return -errno;
	*ret_address = address;
	return 0;
}

static int native_madvise(void *address, size_t bytes, int advice)
{
	return madvise(address, bytes, advice) < 0 ? -errno : 0;
}

static int native_munmap(void *address, size_t bytes)
{
	return munmap(address, bytes) < 0 ? -errno : 0;
}

static void *native_alloc(size_t alignment, size_t bytes)
{
	void *memory;

	assert((alignment & (alignment - 1)) == 0 || alignment == 0);
	if (bytes == 0)
		bytes = 1;
	if (alignment <= _Alignof(max_align_t))
		return malloc(bytes);
	if (posix_memalign(&memory, alignment, bytes) != 0)
		return NULL;
	return memory;
}

static void native_free(void *memory)
{
	free(memory);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;
	int rc = clock_gettime(clock, &ts);

	assert(rc == 0);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t native_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t native_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

static int native_sleep_ns(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / NS_PER_S),
		.tv_nsec = (long)(ns % NS_PER_S),
	};

	return -clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static int native_random(void *buffer, size_t bytes)
{
	uint8_t *at = buffer;

	while (bytes > 0) {
		ssize_t rc;

		RETRY(rc, getrandom(at, bytes, 0));
		if (rc < 0)
			return (int)rc;
		at += rc;
		bytes -= (size_t)rc;
	}
	return 0;
}

static int native_event_open(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static int native_event_signal(int fd)
{
	return eventfd_write(fd, 1) < 0 ? -errno : 0;
}

static int native_event_clear(int fd)
{
	eventfd_t count;

	return eventfd_read(fd, &count) < 0 ? -errno : 0;
}

static const struct engine_ops *native_engine(enum engine_kind kind)
{
	switch (kind) {
	case ENGINE_URING:
#ifdef CAIRN_URING
		return &engine_uring;
#else
		return NULL;
#endif
	case ENGINE_AIO:
		return &engine_aio;
	case ENGINE_PSYNC:
		return &engine_psync;
	}
	return NULL;
}

const struct sys sys_native = {
	.version = SYS_VERSION,
	.size = sizeof(struct sys),
	.openat = native_openat,
	.openat_cached = native_openat_cached,
	.close = native_close,
	.preadv = native_preadv,
	.preadv_cached = native_preadv_cached,
	.pwritev = native_pwritev,
	.fallocate = native_fallocate,
	.ftruncate = native_ftruncate,
	.fsync = native_fsync,
	.fdatasync = native_fdatasync,
	.renameat2 = native_renameat2,
	.linkat = native_linkat,
	.unlinkat = native_unlinkat,
	.mkdirat = native_mkdirat,
	.faccessat = native_faccessat,
	.fstatat = native_fstatat,
	.fstat = native_fstat,
	.fstatvfs = native_fstatvfs,
	.fstatfs = native_fstatfs,
	.ioctl = native_ioctl,
	.flock = native_flock,
	.byte_lock = native_byte_lock,
	.byte_unlock = native_byte_unlock,
	.bytes_locked = native_bytes_locked,
	.getdents = native_getdents,
	.shm_open = native_shm_open,
	.shm_unlink = native_shm_unlink,
	.mmap = native_mmap,
	.munmap = native_munmap,
	.madvise = native_madvise,
	.alloc = native_alloc,
	.free = native_free,
	.now_ns = native_now_ns,
	.realtime_ns = native_realtime_ns,
	.sleep_ns = native_sleep_ns,
	.random = native_random,
	.event_open = native_event_open,
	.event_signal = native_event_signal,
	.event_clear = native_event_clear,
	.engine = native_engine,
};

void *sys_zalloc(const struct sys *sys, size_t alignment, size_t bytes)
{
	void *memory = sys->alloc(alignment, bytes);

	if (memory != NULL)
		memset(memory, 0, bytes);
	return memory;
}

int sys_reserve(const struct sys *sys, size_t bytes, void **ret_address)
{
	return sys->mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, ret_address);
}

static uintptr_t huge_up(const void *address)
{
	return ((uintptr_t)address + SYS_HUGE_BYTES - 1) & ~(uintptr_t)(SYS_HUGE_BYTES - 1);
}

int sys_reserve_huge(const struct sys *sys, size_t bytes, void **ret_address, void **ret_base,
		     size_t *ret_base_bytes)
{
	size_t all = bytes + SYS_HUGE_BYTES;
	int rc = sys_reserve(sys, all, ret_base);

	if (rc < 0)
		return rc;
	*ret_base_bytes = all;
	*ret_address = (void *)huge_up(*ret_base);
	sys_advise_huge(sys, *ret_address, bytes);
	return 0;
}

void sys_advise_huge(const struct sys *sys, void *start, size_t bytes)
{
	/* Without huge pages it is only slower. */
	if (bytes > 0)
		sys->madvise(start, bytes, MADV_HUGEPAGE);
}

int sys_map_huge(const struct sys *sys, size_t bytes, int prot, int fd, void **ret_address)
{
	size_t all = bytes + SYS_HUGE_BYTES;
	uintptr_t base, begin, end;
	int rc = sys_reserve(sys, all, ret_address);

	if (rc < 0)
		return rc;
	base = (uintptr_t)*ret_address;
	begin = huge_up(*ret_address);
	end = begin + bytes;
	rc = sys->mmap((void *)begin, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0, ret_address);
	if (rc < 0) {
		sys->munmap((void *)base, all);
		return rc;
	}
	if (begin > base)
		sys->munmap((void *)base, begin - base);
	if (end < base + all)
		sys->munmap((void *)end, base + all - end);
	return 0;
}

/* The C library of Debian 12 does not name it. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

int sys_collapse(const struct sys *sys, void *start)
{
	assert(((uintptr_t)start & (SYS_HUGE_BYTES - 1)) == 0);
	return sys->madvise(start, SYS_HUGE_BYTES, MADV_COLLAPSE);
}

/* @transfer: preadv() or pwritev() of a sys table; all of it, or an error, @end where it ends
 * early. */
static int transfer_full(ssize_t (*transfer)(int, const struct iovec *, int, off_t), int fd,
			 void *buffer, size_t bytes, off_t offset, int end)
{
	struct iovec iov = {.iov_base = buffer, .iov_len = bytes};

	while (iov.iov_len > 0) {
		ssize_t rc = transfer(fd, &iov, 1, offset);

		if (rc < 0)
			return (int)rc;
		if (rc == 0)
			return end;
		assert((size_t)rc <= iov.iov_len);
		iov.iov_base = (uint8_t *)iov.iov_base + rc;
		iov.iov_len -= (size_t)rc;
		offset += rc;
	}
	return 0;
}

int sys_pread_full(const struct sys *sys, int fd, void *buffer, size_t bytes, off_t offset)
{
	return transfer_full(sys->preadv, fd, buffer, bytes, offset, -ENODATA);
}

int sys_pwrite_full(const struct sys *sys, int fd, const void *buffer, size_t bytes, off_t offset)
{
	/* An iovec has no const; pwritev() only reads through it. */
	return transfer_full(sys->pwritev, fd, (void *)(uintptr_t)buffer, bytes, offset, -EIO);
}

int sys_open_dir(const struct sys *sys, int dirfd, const char *name)
{
	return sys->openat(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
}

int sys_walk_dir(const struct sys *sys, int fd, int (*fn)(void *context, const char *name),
		 void *context)
{
	_Alignas(struct dirent64) char buffer[16384];

	for (;;) {
		ssize_t got = sys->getdents(fd, buffer, sizeof(buffer));

		if (got <= 0)
			return (int)got;
		for (ssize_t at = 0; at < got;) {
			const struct dirent64 *entry = (const void *)(buffer + at);
			int rc = 0;

			if (entry->d_reclen == 0)
				return -EIO;
			at += entry->d_reclen;
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
				rc = fn(context, entry->d_name);
			if (rc)
				return rc;
		}
	}
}

/* A killed process's rings let go of a lock in tens of ms: that wait is part of an open. */
#define LOCK_POLL_NS 1000000u

int sys_flock_wait(const struct sys *sys, int fd, int operation, uint64_t wait_ns)
{
	uint64_t until = sys->now_ns() + wait_ns;

	for (uint32_t tries = 0;; tries++) {
		int rc = sys->flock(fd, operation | LOCK_NB);

		if (rc != -EAGAIN || (tries > 0 && sys->now_ns() >= until))
			return rc;
		sys->sleep_ns(LOCK_POLL_NS);
	}
}
