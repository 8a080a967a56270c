/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the engines share: a folder, an engine in it, chains that dump and load. */
#ifndef TESTS_UNIT_ENGINE_FIXTURE_H
#define TESTS_UNIT_ENGINE_FIXTURE_H

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

#include "sys/engine.h"
#include "sys/workers.h"

#define BLOCK	    16384u
#define CHAINS_MAX  32u
#define POOL_CHUNK  65536u
#define POOL_BYTES  (64u * POOL_CHUNK)
#define POOL_GAP    32u /* a chunk that the engine is not told of, between two ranges */
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
	{"uring, disk, workers", ENGINE_URING, 2, false, true},
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
	struct workers *workers;
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

static inline void job_done(struct engine_chain *chain)
{
	struct job *job = (struct job *)(void *)((char *)chain - offsetof(struct job, chain));

	job->done_count++;
}

static inline void job_init(struct job *job, struct fixture *fixture)
{
	*job = (struct job){.fixture = fixture};
	job->chain.ops = job->ops;
	job->chain.done = job_done;
	job->chain.direct = fixture->direct;
	for (size_t i = 0; i < ENGINE_CHAIN_OPS_MAX; i++)
		job->ops[i].result = 0x7777;
}

static inline struct engine_op *job_add(struct job *job, enum engine_code code)
{
	struct engine_op *op = &job->ops[job->chain.op_count++];

	op->code = code;
	op->fd = ENGINE_FD_CHAIN;
	return op;
}

static inline struct engine_op *add_path(struct job *job, enum engine_code code, const char *path)
{
	struct engine_op *op = job_add(job, code);

	op->fd = job->fixture->dir;
	op->fd2 = job->fixture->dir;
	op->path = path;
	return op;
}

static inline struct engine_op *add_open(struct job *job, const char *path, int flags)
{
	struct engine_op *op = add_path(job, OP_OPENAT, path);

	op->flags = flags | (job->fixture->direct ? O_DIRECT : 0);
	op->mode = 0600;
	return op;
}

static inline struct engine_op *add_transfer(struct job *job, enum engine_code code, void *memory,
					     size_t bytes)
{
	struct engine_op *op = job_add(job, code);

	job->iov[0] = (struct iovec){.iov_base = memory, .iov_len = bytes};
	op->iov = job->iov;
	op->iov_count = 1;
	op->length = bytes;
	return op;
}

static inline int engine_start(struct fixture *fixture)
{
	const struct engine_memory memory[] = {
		{fixture->pool, POOL_GAP * POOL_CHUNK},
		{fixture->pool + (POOL_GAP + 1) * POOL_CHUNK,
		 POOL_BYTES - (POOL_GAP + 1) * POOL_CHUNK},
	};
	struct engine_opts opts = {
		.sys = sys,
		.chains_max = fixture->chains_max > 0 ? fixture->chains_max : CHAINS_MAX,
		.shared_owner = fixture->config->shared_owner,
		.guard_fd = -1,
		.memory = memory,
		.memory_count = 2,
		.memory_chunk = POOL_CHUNK,
	};

	if (fixture->config->workers > 0)
		assert_int_equal(workers_open(sys, fixture->config->workers, &fixture->workers), 0);
	opts.workers = fixture->workers;
	return fixture->ops->open(&opts, &fixture->engine);
}

/* The engine, and what was opened for it. */
static inline void engine_end(struct fixture *fixture)
{
	fixture->ops->close(fixture->engine);
	workers_close(fixture->workers);
	fixture->workers = NULL;
}

static inline void poll_until(struct fixture *fixture, const int *count, int want)
{
	while (*count < want)
		assert_true(fixture->ops->poll(fixture->engine, LONG_WAIT) > 0);
	assert_int_equal(*count, want);
}

static inline int64_t job_run(struct job *job)
{
	struct fixture *fixture = job->fixture;

	assert_int_equal(fixture->ops->submit(fixture->engine, &job->chain), 0);
	assert_int_equal(job->done_count, 0);
	poll_until(fixture, &job->done_count, 1);
	return job->chain.result;
}

static inline int count_fds(void)
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
static inline int count_ring_files(void)
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

static inline void fixture_open(struct fixture *fixture, const struct config *config)
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

static inline void remove_tree(int dir)
{
	DIR *list = fdopendir(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;

	assert_non_null(list);
	while ((entry = readdir(list)) != NULL)
		if (entry->d_name[0] != '.' && unlinkat(dir, entry->d_name, 0) < 0)
			assert_int_equal(unlinkat(dir, entry->d_name, AT_REMOVEDIR), 0);
	closedir(list);
}

static inline void fixture_close(struct fixture *fixture)
{
	remove_tree(fixture->dir);
	assert_int_equal(rmdir(fixture->path), 0);
	sys->close(fixture->dir);
	sys->free(fixture->pool);
}

static inline int setup(void **state)
{
	struct fixture *fixture = malloc(sizeof(*fixture));

	fixture_open(fixture, *state);
	assert_int_equal(engine_start(fixture), 0);
	*state = fixture;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *fixture = *state;
	struct engine_stat stat;

	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.in_flight, 0);
	if (fixture->config->kind == ENGINE_URING)
		assert_int_equal(count_ring_files(), 0);
	engine_end(fixture);
	assert_int_equal(count_fds(), fixture->fds_before);
	fixture_close(fixture);
	free(fixture);
	return 0;
}

static inline void fill_pattern(uint8_t *memory, size_t bytes, uint8_t seed)
{
	for (size_t i = 0; i < bytes; i++)
		memory[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static inline void dump_job(struct job *job, struct fixture *fixture, uint32_t number,
			    uint8_t *memory)
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

static inline void load_job(struct job *job, struct fixture *fixture, uint32_t number,
			    uint8_t *memory)
{
	job_init(job, fixture);
	snprintf(job->name[0], sizeof(job->name[0]), "b%u", number);
	add_open(job, job->name[0], O_RDONLY);
	add_transfer(job, OP_READV, memory, BLOCK);
}

static inline void check_ok(const struct job *job)
{
	assert_int_equal(job->done_count, 1);
	assert_int_equal(job->chain.result, 0);
	for (uint32_t i = 0; i < job->chain.op_count; i++) {
		const struct engine_op *op = &job->ops[i];
		bool transfer = op->code == OP_READV || op->code == OP_WRITEV;

		assert_int_equal(op->result, transfer ? (int64_t)op->length : 0);
	}
}

static inline void dump_and_load_all(struct fixture *fixture)
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

/* Containers forbid io_uring: then its cases cannot be run here, and say so by their absence. */
static inline bool have_uring(void)
{
	const struct engine_opts opts = {.sys = sys, .chains_max = 1, .guard_fd = -1};
	const struct engine_ops *ops = sys->engine(ENGINE_URING);
	struct engine *engine;

	if (ops == NULL || ops->open(&opts, &engine) < 0)
		return false;
	ops->close(engine);
	return true;
}

#endif
