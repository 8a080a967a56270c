/* SPDX-License-Identifier: Apache-2.0 */
/* The native sys table and the helpers over it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lock_child.h"
#include "sys/sys.h"

static const struct sys *const sys = &sys_native;

static int temp_file(void)
{
	char path[] = "sys-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(sys->unlinkat(AT_FDCWD, path, 0), 0);
	return fd;
}

/* A table whose transfers are at most 3 bytes long. */
static ssize_t short_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct iovec piece = {.iov_base = iov->iov_base, .iov_len = iov->iov_len};

	assert_int_equal(iov_count, 1);
	if (piece.iov_len > 3)
		piece.iov_len = 3;
	return sys_native.preadv(fd, &piece, 1, offset);
}

static ssize_t short_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct iovec piece = {.iov_base = iov->iov_base, .iov_len = iov->iov_len};

	assert_int_equal(iov_count, 1);
	if (piece.iov_len > 3)
		piece.iov_len = 3;
	return sys_native.pwritev(fd, &piece, 1, offset);
}

static void errors_are_negative_errnos(void **state)
{
	struct stat st;
	void *address;

	(void)state;
	assert_int_equal(sys->openat(AT_FDCWD, "no/such/file", O_RDONLY, 0), -ENOENT);
	assert_int_equal(sys->close(-1), -EBADF);
	assert_int_equal(sys->fstat(-1, &st), -EBADF);
	assert_int_equal(sys->unlinkat(AT_FDCWD, "no/such/file", 0), -ENOENT);
	assert_int_equal(sys->mmap(NULL, 0, PROT_READ, MAP_PRIVATE, -1, 0, &address), -EBADF);
	assert_int_equal(sys->shm_open("/cairn-none-such", O_RDONLY, 0), -ENOENT);
}

static void descriptors_are_closed_on_exec(void **state)
{
	int fd = sys->openat(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0);

	(void)state;
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(sys->close(fd), 0);
}

static void full_transfers_go_on_after_short_ones(void **state)
{
	struct sys table = sys_native;
	char back[16] = {0};
	int fd = temp_file();

	(void)state;
	table.preadv = short_preadv;
	table.pwritev = short_pwritev;
	assert_int_equal(sys_pwrite_full(&table, fd, "twelve bytes", 12, 5), 0);
	assert_int_equal(sys_pread_full(&table, fd, back, 12, 5), 0);
	assert_string_equal(back, "twelve bytes");
	assert_int_equal(sys_pread_full(&table, fd, back, 13, 5), -ENODATA);
	assert_int_equal(sys_pread_full(&table, -1, back, 1, 0), -EBADF);
	assert_int_equal(sys->close(fd), 0);
}

/* Kernels that cannot tell fail otherwise; what is told must be true, and nothing waits. */
static void what_is_at_hand_is_told(void **state)
{
	char path[] = "sys-XXXXXX", fifo[] = "sys-fifo-XXXXXX", byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	int made = mkostemp(path, O_CLOEXEC), fd;
	ssize_t rc;

	(void)state;
	assert_int_equal(sys_pwrite_full(sys, made, "x", 1, 0), 0);
	fd = sys->openat_cached(AT_FDCWD, path, O_RDONLY);
	if (fd >= 0) {
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		rc = sys->preadv_cached(fd, &iov, 1, 0);
		assert_true(rc < 0 || byte == 'x');
		assert_int_equal(sys->close(fd), 0);
		fd = sys->openat_cached(AT_FDCWD, path, O_PATH | O_NOFOLLOW);
		assert_true(fd >= 0);
		assert_int_equal(sys->close(fd), 0);
		assert_int_equal(sys->openat_cached(AT_FDCWD, "none", O_RDWR | O_CREAT), -EAGAIN);
	}
	assert_int_equal(sys->unlinkat(AT_FDCWD, path, 0), 0);
	assert_true(sys->openat_cached(AT_FDCWD, path, O_RDONLY) < 0);
	assert_int_equal(sys->close(made), 0);
	/* Nobody writes to it: a plain open would wait. */
	made = mkostemp(fifo, O_CLOEXEC);
	assert_int_equal(sys->close(made), 0);
	assert_int_equal(sys->unlinkat(AT_FDCWD, fifo, 0), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	fd = sys->openat_cached(AT_FDCWD, fifo, O_RDONLY);
	if (fd >= 0)
		assert_int_equal(sys->close(fd), 0);
	assert_int_equal(sys->unlinkat(AT_FDCWD, fifo, 0), 0);
}

static void memory_is_zeroed_aligned_and_reserved(void **state)
{
	uint8_t *memory = sys_zalloc(sys, 4096, 10000);
	void *reserved;

	(void)state;
	assert_non_null(memory);
	assert_int_equal((uintptr_t)memory % 4096, 0);
	for (size_t i = 0; i < 10000; i++)
		assert_int_equal(memory[i], 0);
	sys->free(memory);
	sys->free(NULL);
	assert_int_equal(sys_reserve(sys, (size_t)1 << 36, &reserved), 0);
	assert_int_equal(((uint8_t *)reserved)[(size_t)1 << 35], 0);
	assert_int_equal(sys->munmap(reserved, (size_t)1 << 36), 0);
}

static void a_byte_lock_excludes_another_description(void **state)
{
	char path[] = "sys-XXXXXX";
	int one = mkostemp(path, O_CLOEXEC);
	int two = sys->openat(AT_FDCWD, path, O_RDWR, 0);

	(void)state;
	assert_true(one >= 0 && two >= 0);
	assert_int_equal(sys->byte_lock(one, 7, true), 0);
	assert_int_equal(sys->byte_lock(two, 7, false), -EAGAIN);
	assert_int_equal(sys->byte_lock(two, 8, false), 0);
	assert_int_equal(sys->bytes_locked(one, 0, 8), 0); /* its own is none */
	assert_int_equal(sys->bytes_locked(one, 0, 9), 1);
	assert_int_equal(sys->bytes_locked(two, 7, 1), 1);
	assert_int_equal(sys->byte_unlock(one, 7), 0);
	assert_int_equal(sys->bytes_locked(two, 0, 100), 0);
	assert_int_equal(sys->byte_lock(two, 7, false), 0);
	assert_int_equal(sys->flock(one, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(sys->flock(two, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
	assert_int_equal(sys->close(one), 0);
	assert_int_equal(sys->close(two), 0);
	assert_int_equal(sys->unlinkat(AT_FDCWD, path, 0), 0);
}

static int no_locks(int dirfd, const char *path, int flags, mode_t mode)
{
	return strcmp(path, "/proc/locks") == 0 ? -ENOENT
						: sys_native.openat(dirfd, path, flags, mode);
}

/* Pieces as they come when many locks are there. */
static ssize_t small_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct iovec piece = {iov->iov_base, iov->iov_len < 7 ? iov->iov_len : 7};

	assert_int_equal(iov_count, 1);
	return sys_native.preadv(fd, &piece, 1, offset);
}

static void who_has_a_lock(void **state)
{
	struct sys blind = sys_native, slow = sys_native;
	uint32_t self = (uint32_t)getpid(), dead = (uint32_t)dead_pid();
	char path[] = "sys-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	pid_t child;

	(void)state;
	if (sys->faccessat(AT_FDCWD, "/proc/locks", R_OK, 0) < 0)
		skip();
	blind.openat = no_locks;
	slow.preadv = small_preadv;
	assert_true(fd >= 0);
	assert_int_equal(sys_flock_holder(sys, fd, self), 0);
	child = lock_in_child(path);
	assert_int_equal(sys_flock_holder(sys, fd, dead), child);
	assert_int_equal(sys_flock_holder(sys, fd, self), child);
	assert_int_equal(sys_flock_holder(&slow, fd, 0), child);
	/* What was written down is all there is to go by. */
	assert_int_equal(sys_flock_holder(&blind, fd, self), self);
	assert_int_equal(sys_flock_holder(&blind, fd, dead), 0);
	assert_int_equal(sys_flock_holder(&blind, fd, 0), 0);
	child_end(child);
	assert_int_equal(sys_flock_holder(sys, fd, (uint32_t)child), 0);
	/* One that took it for others, and has ended. */
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(flock(fd, LOCK_EX | LOCK_NB) < 0);
	waitpid(child, NULL, 0);
	assert_int_equal(sys_flock_holder(sys, fd, (uint32_t)child), 0);
	assert_int_equal(sys->flock(fd, LOCK_UN), 0);
	assert_int_equal(sys->flock(fd, LOCK_SH | LOCK_NB), 0);
	assert_int_equal(sys_flock_holder(sys, fd, 0), self);
	sys->close(fd);
	assert_int_equal(sys->unlinkat(AT_FDCWD, path, 0), 0);
}

static void clocks_and_random_work(void **state)
{
	uint64_t before = sys->now_ns();
	uint8_t random[2][64] = {0};

	(void)state;
	assert_int_equal(sys->sleep_ns(1000000), 0);
	assert_true(sys->now_ns() - before >= 1000000);
	assert_true(sys->realtime_ns() > 1600000000ull * 1000000000ull);
	assert_int_equal(sys->random(random[0], 64), 0);
	assert_int_equal(sys->random(random[1], 64), 0);
	assert_memory_not_equal(random[0], random[1], 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_are_negative_errnos),
		cmocka_unit_test(descriptors_are_closed_on_exec),
		cmocka_unit_test(full_transfers_go_on_after_short_ones),
		cmocka_unit_test(what_is_at_hand_is_told),
		cmocka_unit_test(memory_is_zeroed_aligned_and_reserved),
		cmocka_unit_test(a_byte_lock_excludes_another_description),
		cmocka_unit_test(who_has_a_lock),
		cmocka_unit_test(clocks_and_random_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
