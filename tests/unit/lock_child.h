/* SPDX-License-Identifier: Apache-2.0 */
/* Another process that has the lock of a store, and one that has ended. */
#ifndef TESTS_UNIT_LOCK_CHILD_H
#define TESTS_UNIT_LOCK_CHILD_H

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Ends it where it has not; the process is gone on return. */
static inline void child_end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline pid_t dead_pid(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(0);
	child_end(pid);
	return pid;
}

/* A process that has done @work when this returns, and keeps what it got until child_end(). */
static inline pid_t child_with(bool (*work)(const void *context), const void *context)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (!work(context) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static inline bool lock_path(const void *path)
{
	int fd = open(path, O_RDONLY);

	return fd >= 0 && flock(fd, LOCK_EX) == 0;
}

/* A process that has a flock on @path when this returns, by a description of its own. */
static inline pid_t lock_in_child(const char *path)
{
	return child_with(lock_path, path);
}

#endif
