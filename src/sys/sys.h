/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sys table: every system call the product makes, and every allocation,
 * behind one table with a version and a size, so that a test can wrap it and
 * make any call fail. Nothing outside src/sys/ calls the kernel.
 *
 * Every call returns 0, a count or a descriptor, else a negative errno (never
 * -1 with errno). EINTR is retried inside, except where a timeout is given.
 * Any thread.
 */
#ifndef SYS_SYS_H
#define SYS_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

struct engine_ops;

enum engine_kind { ENGINE_URING = 0, ENGINE_AIO = 1, ENGINE_PSYNC = 2 };
#define ENGINE_KINDS 3

#define SYS_VERSION 1

struct sys {
	uint32_t version, size;
	/* openat, openat_cached, shm_open: O_CLOEXEC is added */
	int (*openat)(int dirfd, const char *path, int flags, mode_t mode);
	/*
	 * The same, for what is there, and only if nothing has to be waited for;
	 * -EAGAIN: it has. Kernels that cannot say so fail otherwise.
	 */
	int (*openat_cached)(int dirfd, const char *path, int flags);
	int (*close)(int fd);
	ssize_t (*preadv)(int fd, const struct iovec *iov, int iov_count, off_t offset);
	/* From the page cache alone: -EAGAIN, fewer bytes, or -EOPNOTSUPP where it is not */
	ssize_t (*preadv_cached)(int fd, const struct iovec *iov, int iov_count, off_t offset);
	ssize_t (*pwritev)(int fd, const struct iovec *iov, int iov_count, off_t offset);
	int (*fallocate)(int fd, int mode, off_t offset, off_t length);
	int (*ftruncate)(int fd, off_t length);
	int (*fsync)(int fd);
	int (*fdatasync)(int fd);
	/* flags: RENAME_NOREPLACE or 0 */
	int (*renameat2)(int old_dirfd, const char *old_path, int new_dirfd, const char *new_path,
			 unsigned flags);
	int (*linkat)(int old_dirfd, const char *old_path, int new_dirfd, const char *new_path,
		      int flags);
	int (*unlinkat)(int dirfd, const char *path, int flags);
	int (*mkdirat)(int dirfd, const char *path, mode_t mode);
	int (*faccessat)(int dirfd, const char *path, int mode, int flags);
	int (*fstatat)(int dirfd, const char *path, struct stat *st, int flags);
	int (*fstat)(int fd, struct stat *st);
	int (*fstatvfs)(int fd, struct statvfs *st);
	int (*fstatfs)(int fd, struct statfs *st);
	/* Requests that take a pointer. */
	int (*ioctl)(int fd, unsigned long request, void *argument);
	int (*flock)(int fd, int operation);
	/* an OFD write lock on one byte; wait=false: -EAGAIN when it is taken */
	int (*byte_lock)(int fd, off_t offset, bool wait);
	int (*byte_unlock)(int fd, off_t offset);
	/* 1: another description has a lock on one of the bytes, 0: none has */
	int (*bytes_locked)(int fd, off_t first, off_t count);
	ssize_t (*getdents)(int fd, void *buffer, size_t bytes);
	int (*shm_open)(const char *name, int flags, mode_t mode);
	int (*shm_unlink)(const char *name);
	int (*mmap)(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset,
		    void **ret_address);
	int (*munmap)(void *address, size_t bytes);
	int (*madvise)(void *address, size_t bytes, int advice);
	void *(*alloc)(size_t alignment, size_t bytes); /* NULL: none; not zeroed */
	void (*free)(void *memory);
	uint64_t (*now_ns)(void);      /* CLOCK_MONOTONIC */
	uint64_t (*realtime_ns)(void); /* CLOCK_REALTIME */
	int (*sleep_ns)(uint64_t ns);  /* -EINTR: woken early */
	int (*random)(void *buffer, size_t bytes);
	/* an eventfd that does not block: raised and lowered */
	int (*event_open)(void);
	int (*event_signal)(int fd);
	int (*event_clear)(int fd);
	/* NULL: this build has none of that kind. Whether it works, open() tells. */
	const struct engine_ops *(*engine)(enum engine_kind kind);
};

/* The real one. */
extern const struct sys sys_native;

/* Zeroed memory from @sys; NULL: none. */
void *sys_zalloc(const struct sys *sys, size_t alignment, size_t bytes);

/* Reserves address space without taking pages; zero when first read. */
int sys_reserve(const struct sys *sys, size_t bytes, void **ret_address);

/*
 * The same, on huge pages where they can be had: *ret_address is what to use,
 * aligned to SYS_HUGE_BYTES, *ret_base and *ret_base_bytes what to unmap. A
 * device is asked for fewer, longer segments: on a virtual disk that alone is a
 * factor of two to three (bench/README.md).
 */
#define SYS_HUGE_BYTES (2u << 20)
int sys_reserve_huge(const struct sys *sys, size_t bytes, void **ret_address, void **ret_base,
		     size_t *ret_base_bytes);

/* Of sys_reserve(): memory to be taken in huge pages, where they can be had; may be 0 bytes. */
void sys_advise_huge(const struct sys *sys, void *start, size_t bytes);

/*
 * Maps @bytes of a file from its start on, whole pages, shared, where its huge pages can be mapped
 * as such.
 */
int sys_map_huge(const struct sys *sys, size_t bytes, int prot, int fd, void **ret_address);

/*
 * Makes one huge page of the SYS_HUGE_BYTES at @start, of which a page at least is there; what is
 * in them stays. Of shared memory, too, and whatever its mount option says. Blocks for some ms.
 * -EINVAL: never, for this memory or on this kernel (before Linux 6.1); -ENOMEM, -EAGAIN,
 * -EBUSY: not now.
 */
int sys_collapse(const struct sys *sys, void *start);

/* Reads or writes all of it. -ENODATA: the file ends before; -EIO says that of no file. */
int sys_pread_full(const struct sys *sys, int fd, void *buffer, size_t bytes, off_t offset);
int sys_pwrite_full(const struct sys *sys, int fd, const void *buffer, size_t bytes, off_t offset);

/* For sys_walk_dir(), or to open what is in it. */
int sys_open_dir(const struct sys *sys, int dirfd, const char *name);
/*
 * Calls @fn for each name in @fd but . and .., from where its last walk ended; a nonzero return
 * ends the walk and is returned.
 */
int sys_walk_dir(const struct sys *sys, int fd, int (*fn)(void *context, const char *name),
		 void *context);

/*
 * flock() that waits for at most @wait_ns; -EAGAIN: somebody has it. Tried twice at
 * least: whoever only looks whether it is taken has it for an instant.
 */
int sys_flock_wait(const struct sys *sys, int fd, int operation, uint64_t wait_ns);
/*
 * A process that has a flock on the file of @fd, by /proc/locks; where that cannot be read,
 * @noted, which who took it wrote down (0: nobody), if it lives. 0: one that is not known here.
 */
uint32_t sys_flock_holder(const struct sys *sys, int fd, uint32_t noted);

#endif
