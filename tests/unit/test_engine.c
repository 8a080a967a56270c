/* SPDX-License-Identifier: Apache-2.0 */
/* The engines: every case below runs on every engine, on disk and on tmpfs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <seccomp.h>

#include "sys/engine.h"

#define BLOCK	    16384u
#define CHAINS_MAX  32u
#define POOL_CHUNK  65536u
#define POOL_BYTES  (64u * POOL_CHUNK)
#define MS	    1000000ull
#define LONG_WAIT   (20000 * MS) /* a hang fails the test; nothing takes this long */
#define FAILS_COUNT 10000u

static const struct sys *const sys = &sys_native;

struct config {
	const char *name;
	enum engine_kind kind;
	uint32_t workers;
	bool shared_owner;
	bool on_disk;
};

static const struct config configs[] = {
	{"uring, disk", ENGINE_URING, 0, false, true},
	{"uring, disk, shared owner", ENGINE_URING, 0, true, true},
	{"uring, tmpfs", ENGINE_URING, 0, false, false},
	{"aio, disk", ENGINE_AIO, 4, false, true},
	{"aio, disk, no workers", ENGINE_AIO, 0, false, true},
	{"aio, tmpfs", ENGINE_AIO, 4, false, false},
	{"psync, disk", ENGINE_PSYNC, 0, false, true},
	{"psync, disk, workers", ENGINE_PSYNC, 4, false, true},
	{"psync, tmpfs, workers", ENGINE_PSYNC, 4, false, false},
};
#define CONFIG_COUNT (sizeof(configs) / sizeof(configs[0]))

struct fixture {
	const struct config *config;
	const struct engine_ops *ops;
	struct engine *engine;
	char path[64];
	int dir, fds_before;
	bool direct;
	uint8_t *pool;
	uint32_t chains_max; /* 0: CHAINS_MAX */
};

/* A chain, its ops and how often done() was called. */
struct job {
	struct engine_chain chain;
	struct engine_op ops[ENGINE_CHAIN_OPS_MAX];
	struct iovec iov[2];
	char name[2][32];
	int done_count;
	struct fixture *fixture;
};

static void job_done(struct engine_chain *chain)
{
	struct job *job = (struct job *)(void *)((char *)chain - offsetof(struct job, chain));

	job->done_count++;
}

static void job_init(struct job *job, struct fixture *fixture)
{
	*job = (struct job){.fixture = fixture};
	job->chain.ops = job->ops;
	job->chain.done = job_done;
	job->chain.direct = fixture->direct;
	for (size_t i = 0; i < ENGINE_CHAIN_OPS_MAX; i++)
		job->ops[i].result = 0x7777;
}

static struct engine_op *job_add(struct job *job, enum engine_code code)
{
	struct engine_op *op = &job->ops[job->chain.op_count++];

	op->code = code;
	op->fd = ENGINE_FD_CHAIN;
	return op;
}

static struct engine_op *add_path(struct job *job, enum engine_code code, const char *path)
{
	struct engine_op *op = job_add(job, code);

	op->fd = job->fixture->dir;
	op->fd2 = job->fixture->dir;
	op->path = path;
	return op;
}

static struct engine_op *add_open(struct job *job, const char *path, int flags)
{
	struct engine_op *op = add_path(job, OP_OPENAT, path);

	op->flags = flags | (job->fixture->direct ? O_DIRECT : 0);
	op->mode = 0600;
	return op;
}

static struct engine_op *add_transfer(struct job *job, enum engine_code code, void *memory,
				      size_t bytes)
{
	struct engine_op *op = job_add(job, code);

	job->iov[0] = (struct iovec){.iov_base = memory, .iov_len = bytes};
	op->iov = job->iov;
	op->iov_count = 1;
	op->length = bytes;
	return op;
}

static int engine_start(struct fixture *fixture, bool lone)
{
	const struct engine_opts opts = {
		.sys = sys,
		.chains_max = fixture->chains_max > 0 ? fixture->chains_max : CHAINS_MAX,
		.workers = fixture->config->workers,
		.lone = lone,
		.shared_owner = fixture->config->shared_owner,
		.guard_fd = -1,
		.pool_base = fixture->pool,
		.pool_bytes = POOL_BYTES,
		.pool_chunk = POOL_CHUNK,
	};

	return fixture->ops->open(&opts, &fixture->engine);
}

static void poll_until(struct fixture *fixture, const int *count, int want)
{
	while (*count < want)
		assert_true(fixture->ops->poll(fixture->engine, LONG_WAIT) > 0);
	assert_int_equal(*count, want);
}

static int64_t job_run(struct job *job)
{
	struct fixture *fixture = job->fixture;

	assert_int_equal(fixture->ops->submit(fixture->engine, &job->chain), 0);
	assert_int_equal(job->done_count, 0);
	poll_until(fixture, &job->done_count, 1);
	return job->chain.result;
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

/* Files that an io_uring of this process keeps in its table; 0 where that cannot be told. */
static int count_ring_files(void)
{
	char path[64], target[64], line[256];
	int files = 0;

	for (int fd = 0; fd < 64; fd++) {
		FILE *info;
		ssize_t length;
		bool table = false;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		length = readlink(path, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		if (strstr(target, "io_uring") == NULL)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		info = fopen(path, "re");
		assert_non_null(info);
		while (fgets(line, sizeof(line), info) != NULL) {
			if (strncmp(line, "UserFiles:", 10) == 0)
				table = true;
			else if (strncmp(line, "UserBufs:", 9) == 0)
				table = false;
			else if (table && strchr(line, ':') != NULL)
				files++;
		}
		fclose(info);
	}
	return files;
}

static void fixture_open(struct fixture *fixture, const struct config *config)
{
	int fd;

	*fixture = (struct fixture){.config = config, .ops = sys->engine(config->kind)};
	assert_non_null(fixture->ops);
	snprintf(fixture->path, sizeof(fixture->path), "%s/engine-XXXXXX",
		 config->on_disk ? "." : "/dev/shm");
	assert_non_null(mkdtemp(fixture->path));
	fixture->dir = sys->openat(AT_FDCWD, fixture->path, O_RDONLY | O_DIRECTORY, 0);
	assert_true(fixture->dir >= 0);
	fixture->pool = sys_zalloc(sys, POOL_CHUNK, POOL_BYTES);
	assert_non_null(fixture->pool);
	fd = sys->openat(fixture->dir, "probe", O_WRONLY | O_CREAT | O_DIRECT, 0600);
	/* The build folder may be on a file system without O_DIRECT; then there is less to see. */
	fixture->direct = fd >= 0 && config->on_disk;
	if (fd >= 0)
		sys->close(fd);
	sys->unlinkat(fixture->dir, "probe", 0);
	fixture->fds_before = count_fds();
}

static void remove_tree(int dir)
{
	DIR *list = fdopendir(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;

	assert_non_null(list);
	while ((entry = readdir(list)) != NULL)
		if (entry->d_name[0] != '.' && unlinkat(dir, entry->d_name, 0) < 0)
			assert_int_equal(unlinkat(dir, entry->d_name, AT_REMOVEDIR), 0);
	closedir(list);
}

static void fixture_close(struct fixture *fixture)
{
	remove_tree(fixture->dir);
	assert_int_equal(rmdir(fixture->path), 0);
	sys->close(fixture->dir);
	sys->free(fixture->pool);
}

static int setup(void **state)
{
	struct fixture *fixture = malloc(sizeof(*fixture));

	fixture_open(fixture, *state);
	assert_int_equal(engine_start(fixture, false), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	struct engine_stat stat;

	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.in_flight, 0);
	if (fixture->config->kind == ENGINE_URING)
		assert_int_equal(count_ring_files(), 0);
	fixture->ops->close(fixture->engine);
	assert_int_equal(count_fds(), fixture->fds_before);
	fixture_close(fixture);
	free(fixture);
	return 0;
}

/* ---- chains that go well ------------------------------------------------ */

static void fill_pattern(uint8_t *memory, size_t bytes, uint8_t seed)
{
	for (size_t i = 0; i < bytes; i++)
		memory[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void dump_job(struct job *job, struct fixture *fixture, uint32_t number, uint8_t *memory)
{
	struct engine_op *op;

	job_init(job, fixture);
	snprintf(job->name[0], sizeof(job->name[0]), "t%u", number);
	snprintf(job->name[1], sizeof(job->name[1]), "b%u", number);
	add_open(job, job->name[0], O_WRONLY | O_CREAT | O_EXCL);
	job_add(job, OP_FALLOCATE)->length = BLOCK;
	op = add_transfer(job, OP_WRITEV, memory, BLOCK);
	if (number % 2 == 1) {
		job->iov[0].iov_len = 4096;
		job->iov[1] = (struct iovec){.iov_base = memory + 4096, .iov_len = BLOCK - 4096};
		op->iov_count = 2;
	}
	if (number % 3 == 0)
		job_add(job, number % 2 ? OP_FSYNC : OP_FDATASYNC);
	op = add_path(job, OP_RENAMEAT, job->name[0]);
	op->path2 = job->name[1];
	op->flags = RENAME_NOREPLACE;
}

static void load_job(struct job *job, struct fixture *fixture, uint32_t number, uint8_t *memory)
{
	job_init(job, fixture);
	snprintf(job->name[0], sizeof(job->name[0]), "b%u", number);
	add_open(job, job->name[0], O_RDONLY);
	add_transfer(job, OP_READV, memory, BLOCK);
}

static void check_ok(const struct job *job)
{
	assert_int_equal(job->done_count, 1);
	assert_int_equal(job->chain.result, 0);
	for (uint32_t i = 0; i < job->chain.op_count; i++) {
		const struct engine_op *op = &job->ops[i];
		bool transfer = op->code == OP_READV || op->code == OP_WRITEV;

		assert_int_equal(op->result, transfer ? (int64_t)op->length : 0);
	}
}

static void dump_and_load_all(struct fixture *fixture)
{
	static struct job jobs[CHAINS_MAX];
	uint8_t *memory = fixture->pool, *want = malloc(BLOCK);
	struct statx stx = {0};

	assert_non_null(want);
	for (uint32_t i = 0; i < CHAINS_MAX; i++) {
		fill_pattern(memory + i * BLOCK, BLOCK, (uint8_t)i);
		dump_job(&jobs[i], fixture, i, memory + i * BLOCK);
		assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), 0);
	}
	for (uint32_t i = 0; i < CHAINS_MAX; i++)
		poll_until(fixture, &jobs[i].done_count, 1);
	for (uint32_t i = 0; i < CHAINS_MAX; i++)
		check_ok(&jobs[i]);
	memset(memory, 0, CHAINS_MAX * BLOCK);
	for (uint32_t i = 0; i < CHAINS_MAX; i++) {
		load_job(&jobs[i], fixture, i, memory + i * BLOCK);
		assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), 0);
	}
	for (uint32_t i = 0; i < CHAINS_MAX; i++) {
		poll_until(fixture, &jobs[i].done_count, 1);
		check_ok(&jobs[i]);
		fill_pattern(want, BLOCK, (uint8_t)i);
		assert_memory_equal(memory + i * BLOCK, want, BLOCK);
	}
	job_init(&jobs[0], fixture);
	add_path(&jobs[0], OP_STATX, "b3")->stx = &stx;
	assert_int_equal(job_run(&jobs[0]), 0);
	assert_int_equal(stx.stx_size, BLOCK);
	assert_true(stx.stx_blocks * 512 >= BLOCK);
	free(want);
}

static void chains_dump_and_load(void **state)
{
	struct fixture *fixture = *state;
	struct engine_stat stat;

	dump_and_load_all(fixture);
	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.chains, 2 * CHAINS_MAX + 1);
	assert_int_equal(stat.in_place, 0);
	assert_int_equal(stat.fixed + stat.unfixed, 2 * CHAINS_MAX);
	if (fixture->config->kind == ENGINE_URING)
		assert_true(stat.fixed > 0);
	else
		assert_int_equal(stat.fixed, 0);
}

static void names_are_made_linked_and_removed(void **state)
{
	struct fixture *fixture = *state;
	struct job job;
	struct stat st;

	job_init(&job, fixture);
	add_path(&job, OP_MKDIRAT, "d")->mode = 0700;
	add_path(&job, OP_MKDIRAT, "d/e")->mode = 0700;
	assert_int_equal(job_run(&job), 0);
	job_init(&job, fixture);
	add_open(&job, "d/f", O_WRONLY | O_CREAT | O_EXCL);
	add_path(&job, OP_LINKAT, "d/f")->path2 = "d/g";
	add_path(&job, OP_UNLINKAT, "d/f");
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(sys->fstatat(fixture->dir, "d/g", &st, 0), 0);
	assert_int_equal(st.st_nlink, 1);
	job_init(&job, fixture);
	add_path(&job, OP_UNLINKAT, "d/g");
	add_path(&job, OP_UNLINKAT, "d/e")->flags = AT_REMOVEDIR;
	add_path(&job, OP_UNLINKAT, "d")->flags = AT_REMOVEDIR;
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(sys->fstatat(fixture->dir, "d", &st, 0), -ENOENT);
}

/* A descriptor of the caller's: nothing is opened, nothing closed. */
static void plain_descriptors_stay_open(void **state)
{
	struct fixture *fixture = *state;
	int fd = sys->openat(fixture->dir, "plain",
			     O_RDWR | O_CREAT | (fixture->direct ? O_DIRECT : 0), 0600);
	uint8_t *memory = fixture->pool;
	struct job job;

	assert_true(fd >= 0);
	fill_pattern(memory, BLOCK, 9);
	job_init(&job, fixture);
	add_transfer(&job, OP_WRITEV, memory, BLOCK)->fd = fd;
	job.ops[1] = job.ops[0];
	job.ops[1].code = OP_READV;
	job.chain.op_count = 2;
	assert_int_equal(job_run(&job), 0);
	check_ok(&job);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	sys->close(fd);
}

/* ---- chains that fail --------------------------------------------------- */

static void make_file(struct fixture *fixture, const char *name, size_t bytes)
{
	int fd = sys->openat(fixture->dir, name, O_WRONLY | O_CREAT, 0600);
	uint8_t *memory = sys_zalloc(sys, 4096, bytes);

	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite_full(sys, fd, memory, bytes, 0), 0);
	sys->close(fd);
	sys->free(memory);
}

static void a_failed_open_cancels_the_rest(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	load_job(&job, fixture, 999, fixture->pool);
	add_path(&job, OP_UNLINKAT, "x");
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[0].result, -ENOENT);
	assert_int_equal(job.ops[1].result, -ECANCELED);
	assert_int_equal(job.ops[2].result, -ECANCELED);
}

static void a_failure_in_the_middle_cancels_the_rest(void **state)
{
	struct fixture *fixture = *state;
	struct stat st;
	struct job job;

	for (int i = 0; i < 100; i++) {
		job_init(&job, fixture);
		add_open(&job, "mid", O_WRONLY | O_CREAT);
		job_add(&job, OP_FALLOCATE)->length = BLOCK;
		add_path(&job, OP_RENAMEAT, "none such")->path2 = "other";
		add_path(&job, OP_UNLINKAT, "mid");
		assert_int_equal(job_run(&job), -ENOENT);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, 0);
		assert_int_equal(job.ops[2].result, -ENOENT);
		assert_int_equal(job.ops[3].result, -ECANCELED);
		assert_int_equal(sys->fstatat(fixture->dir, "mid", &st, 0), 0);
	}
}

static void a_rename_does_not_replace(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	dump_job(&job, fixture, 2, fixture->pool);
	assert_int_equal(job_run(&job), 0);
	dump_job(&job, fixture, 2, fixture->pool);
	assert_int_equal(job_run(&job), -EEXIST);
	assert_int_equal(job.ops[2].result, BLOCK);
}

/* Many times, as a slot or a descriptor that leaked would run out. */
static void short_reads_fail_and_leak_nothing(void **state)
{
	struct fixture *fixture = *state;
	static struct job jobs[CHAINS_MAX];
	uint32_t count = fixture->config->on_disk ? FAILS_COUNT : FAILS_COUNT / 5;

	make_file(fixture, "b7", BLOCK - 4096);
	for (uint32_t round = 0; round < count / CHAINS_MAX + 1; round++) {
		for (uint32_t i = 0; i < CHAINS_MAX; i++) {
			load_job(&jobs[i], fixture, 7, fixture->pool + i * BLOCK);
			add_path(&jobs[i], OP_UNLINKAT, "b7");
			assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), 0);
		}
		for (uint32_t i = 0; i < CHAINS_MAX; i++) {
			poll_until(fixture, &jobs[i].done_count, 1);
			assert_int_equal(jobs[i].chain.result, -EIO);
			assert_int_equal(jobs[i].ops[0].result, 0);
			assert_int_equal(jobs[i].ops[1].result, BLOCK - 4096);
			assert_int_equal(jobs[i].ops[2].result, -ECANCELED);
		}
	}
}

/* The ring refuses such a chain as a whole: the result must be the one that tells why. */
static void a_path_too_long_is_told(void **state)
{
	struct fixture *fixture = *state;
	char *path = malloc(5001);
	struct stat st;
	struct job job;

	memset(path, 'a', 5000);
	path[5000] = '\0';
	for (int soft = 0; soft < 2; soft++) {
		job_init(&job, fixture);
		add_open(&job, "long", O_WRONLY | O_CREAT);
		add_path(&job, OP_RENAMEAT, "long")->path2 = path;
		job.ops[1].soft = soft;
		add_path(&job, OP_UNLINKAT, "long");
		assert_int_equal(job_run(&job), soft ? 0 : -ENAMETOOLONG);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, -ENAMETOOLONG);
		assert_int_equal(job.ops[2].result, soft ? 0 : -ECANCELED);
		assert_int_equal(sys->fstatat(fixture->dir, "long", &st, 0), soft ? -ENOENT : 0);
	}
	job_init(&job, fixture);
	add_path(&job, OP_UNLINKAT, path)->soft = true;
	add_path(&job, OP_MKDIRAT, "after")->mode = 0700;
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(job.ops[0].result, -ENAMETOOLONG);
	assert_int_equal(job.ops[1].result, 0);
	free(path);
}

static void a_soft_failure_goes_on(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	make_file(fixture, "s", 4096);
	for (int i = 0; i < 50; i++) {
		job_init(&job, fixture);
		add_open(&job, "s", O_RDWR);
		add_path(&job, OP_UNLINKAT, "none")->soft = true;
		add_transfer(&job, OP_READV, fixture->pool, BLOCK)->soft = true; /* short */
		job_add(&job, OP_FDATASYNC);
		add_path(&job, OP_MKDIRAT, "s")->soft = true;
		assert_int_equal(job_run(&job), 0);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, -ENOENT);
		assert_int_equal(job.ops[2].result, 4096);
		assert_int_equal(job.ops[3].result, 0);
		assert_int_equal(job.ops[4].result, -EEXIST);
	}
	/* A hard failure behind soft ones still cancels, soft ops too. */
	job_init(&job, fixture);
	add_open(&job, "s", O_RDWR);
	add_path(&job, OP_UNLINKAT, "none")->soft = true;
	add_path(&job, OP_UNLINKAT, "none either");
	add_path(&job, OP_MKDIRAT, "never")->soft = true;
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[1].result, -ENOENT);
	assert_int_equal(job.ops[2].result, -ENOENT);
	assert_int_equal(job.ops[3].result, -ECANCELED);
	/* And a failed open cancels the soft op behind it. */
	job_init(&job, fixture);
	add_open(&job, "none", O_RDWR);
	job_add(&job, OP_FSYNC)->soft = true;
	add_path(&job, OP_MKDIRAT, "never");
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[1].result, -ECANCELED);
	assert_int_equal(job.ops[2].result, -ECANCELED);
}

/* ---- the engine itself -------------------------------------------------- */

static struct {
	uint32_t left;
	int ended;
} again;

/* done() may submit: the chain goes round until `left` is used up. */
static void submit_again(struct engine_chain *chain)
{
	struct job *job = (struct job *)(void *)((char *)chain - offsetof(struct job, chain));
	struct fixture *fixture = job->fixture;

	assert_int_equal(chain->result, 0);
	again.ended++;
	if (again.left == 0)
		return;
	again.left--;
	assert_int_equal(fixture->ops->submit(fixture->engine, chain), 0);
}

static void more_chains_than_slots_are_refused(void **state)
{
	struct fixture *fixture = *state;
	static struct job jobs[CHAINS_MAX + 1];

	again.left = 1000;
	again.ended = 0;
	make_file(fixture, "b1", BLOCK);
	for (uint32_t i = 0; i <= CHAINS_MAX; i++) {
		int want = i < CHAINS_MAX ? 0 : -EAGAIN;

		load_job(&jobs[i], fixture, 1, fixture->pool + i * BLOCK);
		jobs[i].chain.done = submit_again;
		assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), want);
	}
	poll_until(fixture, &again.ended, 1000 + CHAINS_MAX);
}

struct waker {
	struct fixture *fixture;
	uint64_t delay_ns;
};

static void *wake_later(void *context)
{
	const struct waker *waker = context;

	sys->sleep_ns(waker->delay_ns);
	waker->fixture->ops->wake(waker->fixture->engine);
	return NULL;
}

static void a_wake_ends_the_wait(void **state)
{
	struct fixture *fixture = *state;
	struct waker waker = {.fixture = fixture, .delay_ns = 20 * MS};
	uint64_t start_ns = sys->now_ns();
	pthread_t thread;

	/* One before the first poll, two for one, and from another thread, repeatedly. */
	fixture->ops->wake(fixture->engine);
	assert_int_equal(fixture->ops->poll(fixture->engine, LONG_WAIT), 0);
	fixture->ops->wake(fixture->engine);
	fixture->ops->wake(fixture->engine);
	assert_int_equal(fixture->ops->poll(fixture->engine, LONG_WAIT), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_later, &waker), 0);
		assert_int_equal(fixture->ops->poll(fixture->engine, UINT64_MAX), 0);
		pthread_join(thread, NULL);
	}
	assert_true(sys->now_ns() - start_ns < LONG_WAIT);
	start_ns = sys->now_ns();
	assert_int_equal(fixture->ops->poll(fixture->engine, 30 * MS), 0);
	assert_true(sys->now_ns() - start_ns >= 30 * MS);
	assert_int_equal(fixture->ops->poll(fixture->engine, 0), 0);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

/* The whole process, workers included. */
static void idle_takes_no_cpu(void **state)
{
	struct fixture *fixture = *state;
	uint64_t before_ns;

	dump_and_load_all(fixture);
	fixture->ops->poll(fixture->engine, MS);
	before_ns = thread_cpu_ns();
	fixture->ops->poll(fixture->engine, 200 * MS);
	assert_true(thread_cpu_ns() - before_ns < 20 * MS);
}

static void a_lone_small_chain_runs_in_place(void **state)
{
	struct fixture *fixture = *state;
	struct engine_stat stat;
	struct job one, two;

	fixture->ops->close(fixture->engine);
	assert_int_equal(engine_start(fixture, true), 0);
	make_file(fixture, "b1", BLOCK);
	load_job(&one, fixture, 1, fixture->pool);
	one.chain.small = true;
	assert_int_equal(job_run(&one), 0);
	check_ok(&one);
	load_job(&one, fixture, 1, fixture->pool);
	assert_int_equal(job_run(&one), 0);
	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.in_place, 1);
	load_job(&one, fixture, 1, fixture->pool);
	load_job(&two, fixture, 1, fixture->pool + BLOCK);
	one.chain.small = two.chain.small = true;
	assert_int_equal(fixture->ops->submit(fixture->engine, &one.chain), 0);
	assert_int_equal(fixture->ops->submit(fixture->engine, &two.chain), 0);
	poll_until(fixture, &one.done_count, 1);
	poll_until(fixture, &two.done_count, 1);
	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.in_place, 1);
	assert_int_equal(stat.chains, 4);
}

static void *run_some(void *context)
{
	struct fixture *fixture = context;
	struct job job;

	for (int i = 0; i < 20; i++) {
		load_job(&job, fixture, 1, fixture->pool);
		assert_int_equal(job_run(&job), 0);
	}
	return NULL;
}

static void a_shared_engine_is_handed_over(void **state)
{
	struct fixture *fixture = *state;
	pthread_t thread;

	/* Without shared_owner a ring is bound to the thread of its first poll(). */
	if (fixture->config->kind == ENGINE_URING && !fixture->config->shared_owner)
		return;
	make_file(fixture, "b1", BLOCK);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pthread_create(&thread, NULL, run_some, fixture), 0);
		pthread_join(thread, NULL);
		run_some(fixture);
	}
}

static void a_child_abandons(void **state)
{
	struct fixture *fixture = *state;
	int status;
	pid_t child;

	dump_and_load_all(fixture);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		fixture->ops->abandon(fixture->engine);
		_exit(count_fds() == fixture->fds_before ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	/* The parent's goes on as if nothing had been. */
	remove_tree(fixture->dir);
	dump_and_load_all(fixture);
}

/* ---- by themselves ------------------------------------------------------ */

static int run_without_memlock(struct fixture *fixture, rlim_t bytes)
{
	const struct rlimit limit = {bytes, bytes};
	struct engine_stat stat;
	int rc;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
		return 2;
	rc = engine_start(fixture, false);
	if (rc < 0)
		return rc == -EOPNOTSUPP && bytes == 0 ? 0 : 3;
	dump_and_load_all(fixture);
	fixture->ops->stat(fixture->engine, &stat);
	fixture->ops->close(fixture->engine);
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

			fixture_open(&fixture, &configs[i]);
			child = fork();
			assert_true(child >= 0);
			if (child == 0) {
				forbid_io_uring(SCMP_ACT_ERRNO((uint16_t)codes[code]));
				rc = engine_start(&fixture, false);
				if (configs[i].kind == ENGINE_URING)
					_exit(rc == -codes[code] ? 0 : 1);
				if (rc < 0)
					_exit(1);
				dump_and_load_all(&fixture);
				fixture.ops->close(fixture.engine);
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
	if (engine_start(fixture, false) < 0 || fixture->ops->add_guard(fixture->engine, lock) < 0)
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

static void guards_are_bounded_and_let_go(void **state)
{
	struct fixture *fixture = *state;
	int lock = sys->openat(fixture->dir, "lock", O_RDWR | O_CREAT, 0600);
	int other = sys->openat(fixture->dir, "lock", O_RDWR, 0);

	assert_int_equal(sys->flock(lock, LOCK_EX), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(fixture->ops->add_guard(fixture->engine, lock), 0);
	if (fixture->config->kind == ENGINE_URING) {
		assert_int_equal(count_ring_files(), 16);
		assert_int_equal(fixture->ops->add_guard(fixture->engine, lock), -EMFILE);
	}
	fixture->ops->close(fixture->engine);
	sys->close(lock);
	assert_int_equal(sys->flock(other, LOCK_EX | LOCK_NB), 0);
	sys->close(other);
	assert_int_equal(engine_start(fixture, false), 0);
}

#define CASE(name)                                                                                 \
	{                                                                                          \
#name, name                                                                        \
	}
static const struct {
	const char *name;
	CMUnitTestFunction function;
} cases[] = {
	CASE(chains_dump_and_load),
	CASE(names_are_made_linked_and_removed),
	CASE(plain_descriptors_stay_open),
	CASE(a_failed_open_cancels_the_rest),
	CASE(a_failure_in_the_middle_cancels_the_rest),
	CASE(a_rename_does_not_replace),
	CASE(short_reads_fail_and_leak_nothing),
	CASE(a_path_too_long_is_told),
	CASE(a_soft_failure_goes_on),
	CASE(more_chains_than_slots_are_refused),
	CASE(a_wake_ends_the_wait),
	CASE(idle_takes_no_cpu),
	CASE(a_lone_small_chain_runs_in_place),
	CASE(a_shared_engine_is_handed_over),
	CASE(a_child_abandons),
	CASE(guards_are_bounded_and_let_go),
};
#define CASE_COUNT (sizeof(cases) / sizeof(cases[0]))

/* Containers forbid io_uring: then its cases cannot be run here, and say so by their absence. */
static bool have_uring(void)
{
	const struct engine_opts opts = {.sys = sys, .chains_max = 1, .guard_fd = -1};
	struct engine *engine;

	if (engine_uring.open(&opts, &engine) < 0)
		return false;
	engine_uring.close(engine);
	return true;
}

int main(void)
{
	static struct CMUnitTest tests[CONFIG_COUNT * (CASE_COUNT + 1) + 2];
	static char names[CONFIG_COUNT * (CASE_COUNT + 1)][96];
	bool uring = have_uring();
	size_t count = 0;

	for (size_t c = 0; c < CONFIG_COUNT; c++) {
		/* The table of a test is not changed by it. */
		void *config = (void *)(uintptr_t)&configs[c];

		if (configs[c].kind == ENGINE_URING && !uring)
			continue;
		for (size_t i = 0; i < CASE_COUNT; i++, count++) {
			snprintf(names[count], sizeof(names[0]), "%s (%s)", cases[i].name,
				 configs[c].name);
			tests[count] = (struct CMUnitTest){names[count], cases[i].function, setup,
							   teardown, config};
		}
		if (!configs[c].on_disk)
			continue;
		snprintf(names[count], sizeof(names[0]), "a_guard_outlives_its_process (%s)",
			 configs[c].name);
		if (configs[c].kind != ENGINE_PSYNC || configs[c].workers > 0) {
			tests[count] = (struct CMUnitTest){
				names[count], a_guard_outlives_its_process, NULL, NULL, config};
			count++;
		}
	}
	if (uring)
		tests[count++] =
			(struct CMUnitTest)cmocka_unit_test(little_memory_may_be_registered);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(without_io_uring_the_others_carry);
	return _cmocka_run_group_tests("engine", tests, count, NULL, NULL);
}
