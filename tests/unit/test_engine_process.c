/* SPDX-License-Identifier: Apache-2.0 */
/* The engines and their process: limits, filters, and death. Each case runs in a child. */
#include "engine_fixture.h"

#include <seccomp.h>

static int run_without_memlock(struct fixture *fixture, rlim_t bytes)
{
	const struct rlimit limit = {bytes, bytes};
	struct engine_stat stat;
	int rc;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
		return 2;
	rc = engine_start(fixture);
	if (rc < 0)
		return rc == -ENOBUFS && bytes == 0 ? 0 : 3;
	dump_and_load_all(fixture);
	fixture->ops->stat(fixture->engine, &stat);
	engine_end(fixture);
	return stat.unfixed > 0 && stat.fixed + stat.unfixed == 2 * CHAINS_MAX ? 0 : 1;
}

/* In a child that may lock little memory, or none: some I/O is unregistered, or no ring is had. */
static void little_memory_may_be_registered(void **state)
{
	static const rlim_t limits[] = {0, 2 * POOL_CHUNK};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct fixture fixture;
		int status;
		pid_t child;

		fixture_open(&fixture, &configs[0]);
		assert_int_equal(fchmod(fixture.dir, 0777), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0)
			_exit(run_without_memlock(&fixture, limits[i]));
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		fixture_close(&fixture);
	}
}

#define NO_THREAD_SECONDS 10u
#define CANNOT_BE_HAD	  77

static int run_without_threads(struct fixture *fixture)
{
	const struct rlimit limit = {1, 1};
	struct job job;

	alarm(NO_THREAD_SECONDS);
	if (setrlimit(RLIMIT_NPROC, &limit) < 0 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0) || engine_start(fixture) < 0)
		return CANNOT_BE_HAD;
	job_init(&job, fixture);
	add_path(&job, OP_MKDIRAT, "made")->mode = 0700;
	add_path(&job, OP_UNLINKAT, "made")->flags = AT_REMOVEDIR;
	job_run(&job);
	engine_end(fixture);
	/* Kernels that find a thread all the same are right, too. */
	if (job.ops[0].result == 0)
		return job.chain.result == 0 ? 0 : 4;
	return job.chain.result < 0 && job.chain.result != -ECANCELED &&
			       job.ops[0].result == job.chain.result &&
			       job.ops[1].result == -ECANCELED
		       ? 0
		       : 5;
}

/*
 * What the kernel cancels for want of a thread was refused: nobody cancelled it. Some kernels try
 * for ever: there is nothing to see on those.
 */
static void no_threads_may_be_made(void **state)
{
	struct fixture fixture;
	int status;
	pid_t child;

	(void)state;
	fixture_open(&fixture, &configs[0]);
	assert_int_equal(fchmod(fixture.dir, 0777), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(run_without_threads(&fixture));
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		print_message("this kernel goes on trying to have a thread\n");
	else if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_BE_HAD)
		print_message("no process without threads can be had here\n");
	else
		assert_int_equal(status, 0);
	fixture_close(&fixture);
}

/* Chains that open find fewer places than there are chains. */
static void few_files_may_be_open(void **state)
{
	struct fixture fixture;
	int status;
	pid_t child;

	(void)state;
	fixture_open(&fixture, &configs[0]);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		const struct rlimit limit = {24, 24}; /* below chains and guards */

		if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || engine_start(&fixture) < 0)
			_exit(1);
		dump_and_load_all(&fixture);
		engine_end(&fixture);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	fixture_close(&fixture);
}

static void forbid_io_uring(uint32_t action)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	/* By number: libseccomp may be older than the calls. */
	if (filter == NULL || seccomp_rule_add(filter, action, SCMP_SYS(io_uring_setup), 0) < 0 ||
	    seccomp_load(filter) < 0)
		_exit(4);
	seccomp_release(filter);
}

/* As the default profiles of containers do. */
static void without_io_uring_the_others_carry(void **state)
{
	static const int codes[] = {EPERM, ENOSYS};

	(void)state;
	for (size_t code = 0; code < 2; code++) {
		for (size_t i = 0; i < CONFIG_COUNT; i++) {
			struct fixture fixture;
			pid_t child;
			int status, rc;

			if (sys->engine(configs[i].kind) == NULL)
				continue;
			fixture_open(&fixture, &configs[i]);
			child = fork();
			assert_true(child >= 0);
			if (child == 0) {
				forbid_io_uring(SCMP_ACT_ERRNO((uint16_t)codes[code]));
				rc = engine_start(&fixture);
				if (configs[i].kind == ENGINE_URING)
					_exit(rc == -codes[code] ? 0 : 1);
				if (rc < 0)
					_exit(1);
				dump_and_load_all(&fixture);
				engine_end(&fixture);
				_exit(count_fds() == fixture.fds_before ? 0 : 1);
			}
			assert_int_equal(waitpid(child, &status, 0), child);
			assert_int_equal(status, 0);
			fixture_close(&fixture);
		}
	}
}

#define GUARD_WRITES 256u
#define GUARD_BYTES  (256u << 10)

static int open_data(struct fixture *fixture, int flags)
{
	return sys->openat(fixture->dir, "data", flags | (fixture->direct ? O_DIRECT : 0), 0600);
}

/* Overwrites of blocks that are there are what a ring does without a thread of the process. */
static void write_data_once(struct fixture *fixture)
{
	uint8_t *memory = sys_zalloc(sys, 4096, GUARD_BYTES);
	int fd = open_data(fixture, O_WRONLY | O_CREAT);

	assert_non_null(memory);
	assert_true(fd >= 0);
	for (uint32_t i = 0; i < GUARD_WRITES; i++)
		assert_int_equal(
			sys_pwrite_full(sys, fd, memory, GUARD_BYTES, (off_t)i * GUARD_BYTES), 0);
	assert_int_equal(sys->fsync(fd), 0);
	sys->close(fd);
	sys->free(memory);
}

static _Noreturn void write_until_killed(struct fixture *fixture, int ready)
{
	static struct job jobs[GUARD_WRITES];
	int lock = sys->openat(fixture->dir, "lock", O_RDWR | O_CREAT, 0600);
	int fd = open_data(fixture, O_RDWR);
	uint8_t *memory = sys_zalloc(sys, 4096, GUARD_BYTES);

	if (lock < 0 || fd < 0 || memory == NULL || sys->flock(lock, LOCK_EX) < 0)
		_exit(1);
	memset(memory, 0xab, GUARD_BYTES);
	fixture->chains_max = GUARD_WRITES;
	if (engine_start(fixture) < 0 || fixture->ops->add_guard(fixture->engine, lock) < 0)
		_exit(2);
	for (uint32_t i = 0; i < GUARD_WRITES; i++) {
		struct engine_op *op;

		job_init(&jobs[i], fixture);
		op = add_transfer(&jobs[i], OP_WRITEV, memory, GUARD_BYTES);
		op->fd = fd;
		op->offset = (uint64_t)i * GUARD_BYTES;
		if (fixture->ops->submit(fixture->engine, &jobs[i].chain) < 0)
			_exit(3);
	}
	if (fixture->ops->poll(fixture->engine, 0) < 0 || write(ready, "r", 1) != 1)
		_exit(4);
	for (;;)
		pause();
}

/* How many of the writes have landed, told by the last page of each. */
static uint32_t landed(struct fixture *fixture, int fd)
{
	uint8_t *page = fixture->pool;
	uint32_t count = 0;

	for (uint32_t i = 0; i < GUARD_WRITES; i++) {
		assert_int_equal(sys_pread_full(sys, fd, page, 4096,
						(off_t)i * GUARD_BYTES + GUARD_BYTES - 4096),
				 0);
		count += page[0] == 0xab;
	}
	return count;
}

/* A lock that is free again says that no write of the dead owner is still to land. */
static void a_guard_outlives_its_process(void **state)
{
	const struct config *config = *state;
	struct fixture fixture;
	int ready[2], lock, fd, status;
	uint32_t before;
	char byte;
	pid_t child;

	fixture_open(&fixture, config);
	write_data_once(&fixture);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		write_until_killed(&fixture, ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	lock = sys->openat(fixture.dir, "lock", O_RDWR, 0);
	assert_true(lock >= 0);
	assert_int_equal(sys->flock(lock, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
	kill(child, SIGKILL);
	assert_int_equal(sys->flock(lock, LOCK_EX), 0);
	fd = open_data(&fixture, O_RDONLY);
	assert_true(fd >= 0);
	before = landed(&fixture, fd);
	sys->sleep_ns(300 * MS);
	assert_int_equal(landed(&fixture, fd), before);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	sys->close(fd);
	sys->close(lock);
	fixture_close(&fixture);
}

int main(void)
{
	static struct CMUnitTest tests[CONFIG_COUNT + 4];
	static char names[CONFIG_COUNT][96];
	bool uring = have_uring();
	size_t count = 0;

	for (size_t c = 0; c < CONFIG_COUNT; c++) {
		/* The table of a test is not changed by it. */
		void *config = (void *)(uintptr_t)&configs[c];

		if (!configs[c].on_disk || (configs[c].kind == ENGINE_URING && !uring))
			continue;
		/* In place there is nothing in flight when poll() has returned. */
		if (configs[c].kind == ENGINE_PSYNC && configs[c].workers == 0)
			continue;
		snprintf(names[count], sizeof(names[0]), "a_guard_outlives_its_process (%s)",
			 configs[c].name);
		tests[count] = (struct CMUnitTest){names[count], a_guard_outlives_its_process, NULL,
						   NULL, config};
		count++;
	}
	if (uring) {
		tests[count++] =
			(struct CMUnitTest)cmocka_unit_test(little_memory_may_be_registered);
		tests[count++] = (struct CMUnitTest)cmocka_unit_test(few_files_may_be_open);
		tests[count++] = (struct CMUnitTest)cmocka_unit_test(no_threads_may_be_made);
	}
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(without_io_uring_the_others_carry);
	return _cmocka_run_group_tests("engine_process", tests, count, NULL, NULL);
}
