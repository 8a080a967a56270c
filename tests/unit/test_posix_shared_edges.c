/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared=yes where it gets difficult: calls that take their time, writers that
 * have died, and other processes. By a sys table with a hook here and there.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "core/store.h"
#include "gate.h"
#include "posix_store.h"

#define SHARD  8192u
#define FILE_S (4096u + 8192u) /* st_blocks * 512 of a block of one shard */
#define MS     1000000ull

static struct fixture a, b;
static struct sys hooked;
static pthread_t tester;

static int setup(void **state)
{
	(void)state;
	hooked = sys_native;
	tester = pthread_self();
	fixture_new(&a);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&a);
	return 0;
}

/* False: this machine has no such engine. */
static bool open_hooked(struct fixture *f, const char *engine, const char *options)
{
	struct cairn_error error = {0};
	int rc;

	snprintf(f->spec, sizeof(f->spec),
		 "store(engine=%s, reactors=1) | posix(path=%s, shared=yes%s%s)", engine, f->path,
		 *options ? ", " : "", options);
	rc = store_open(&hooked, f->spec, NULL, &f->store, &error);
	if (rc < 0 && strcmp(engine, "uring") != 0)
		fail_msg("%s: %s", f->spec, error.text);
	return rc == 0;
}

static int remove_one(struct fixture *f, uint32_t number, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(f, number);

	return cairn_remove(f->ns, &key, 1, NULL, &opts, NULL);
}

static void flip_last_byte(const char *file)
{
	int fd = open(file, O_RDWR);
	struct stat st;
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pread(fd, &byte, 1, st.st_size - 1), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 1), 1);
	close(fd);
}

/* ---- who waits for what ------------------------------------------------------------------ */

static const char *violation; /* a call that a reactor made itself */

static void note(const char *call)
{
	char name[16] = "";

	pthread_getname_np(pthread_self(), name, sizeof(name));
	if (!pthread_equal(pthread_self(), tester) && strcmp(name, "cairn-worker") != 0)
		__atomic_store_n(&violation, call, __ATOMIC_RELAXED);
}

/* Not close(): of a file that was only read from it waits for nothing. */
#define HOOK(type, call, parameters, arguments)                                                    \
	static type hook_##call parameters                                                         \
	{                                                                                          \
		note(#call);                                                                       \
		return sys_native.call arguments;                                                  \
	}
HOOK(int, openat, (int fd, const char *path, int flags, mode_t mode), (fd, path, flags, mode))
HOOK(ssize_t, preadv, (int fd, const struct iovec *iov, int count, off_t at), (fd, iov, count, at))
HOOK(ssize_t, pwritev, (int fd, const struct iovec *iov, int count, off_t at), (fd, iov, count, at))
HOOK(int, fsync, (int fd), (fd))
HOOK(int, fdatasync, (int fd), (fd))
HOOK(int, renameat2, (int from, const char *path, int to, const char *path2, unsigned flags),
     (from, path, to, path2, flags))
HOOK(int, linkat, (int from, const char *path, int to, const char *path2, int flags),
     (from, path, to, path2, flags))
HOOK(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
HOOK(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode))
HOOK(int, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags))
HOOK(int, fstatat, (int fd, const char *path, struct stat *st, int flags), (fd, path, st, flags))
HOOK(int, fstat, (int fd, struct stat *st), (fd, st))
HOOK(int, byte_lock, (int fd, off_t at, bool wait), (fd, at, wait))
HOOK(int, byte_unlock, (int fd, off_t at), (fd, at))
HOOK(ssize_t, getdents, (int fd, void *buffer, size_t bytes), (fd, buffer, bytes))

static void hook_all(void)
{
	hooked.openat = hook_openat;
	hooked.preadv = hook_preadv;
	hooked.pwritev = hook_pwritev;
	hooked.fsync = hook_fsync;
	hooked.fdatasync = hook_fdatasync;
	hooked.renameat2 = hook_renameat2;
	hooked.linkat = hook_linkat;
	hooked.unlinkat = hook_unlinkat;
	hooked.mkdirat = hook_mkdirat;
	hooked.faccessat = hook_faccessat;
	hooked.fstatat = hook_fstatat;
	hooked.fstat = hook_fstat;
	hooked.byte_lock = hook_byte_lock;
	hooked.byte_unlock = hook_byte_unlock;
	hooked.getdents = hook_getdents;
}

static int dump_variable(struct fixture *f, uint32_t number, uint32_t shards)
{
	static _Alignas(4096) uint8_t data[SHARD];
	struct cairn_key key = key_of(f, number);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, SHARD);

	xfer.shard_count = shards;
	xfer.shard_bytes = SHARD;
	content(&key, 0, data, SHARD);
	cairn_dump(f->ns, &xfer, 1, NULL, NULL);
	return xfer.result.status;
}

static void all_kinds_of_work(void)
{
	fixture_space(&a, "m", 3, SHARD);
	fixture_space(&b, "m", 3, SHARD);
	for (uint32_t level = 0; level <= CAIRN_DURABLE; level++) {
		assert_int_equal(dump_one(&a, level, 0, SHARD, level), 0);
		assert_int_equal(dump_one(&a, level, 1, SHARD, level), 0);
		assert_int_equal(dump_one(&a, level, 0, SHARD, level), CAIRN_PRESENT);
		assert_int_equal(dump_one(level ? &a : &b, level, 2, SHARD, level), 0);
		assert_int_equal(dump_one(&a, level, 2, SHARD, level), CAIRN_PRESENT);
		assert_int_equal(dump_one(&a, 10 + level, 1, SHARD, level), 0);
		assert_int_equal(remove_one(&a, 10 + level, level), -ENOENT);
	}
	assert_int_equal(remove_one(&a, 0, CAIRN_DURABLE), 0);
	each_file(a.path, flip_last_byte);
	assert_int_equal(load_one(&a, 1, 2, SHARD), -EBADMSG);
	for (int way = 0; way < 2; way++) {
		assert_int_equal(cairn_clear(b.ns, 0), 0);
		assert_int_equal(way ? dump_one(&a, 2, 0, SHARD, 0) : load_one(&a, 2, 0, SHARD),
				 way ? 0 : -ENOENT);
	}
	cairn_namespace_close(a.ns);
	fixture_space(&a, "v", 0, 0);
	assert_int_equal(dump_variable(&a, 1, 1), 0);
	assert_int_equal(dump_variable(&a, 1, 1), CAIRN_PRESENT);
	assert_int_equal(dump_variable(&a, 1, 2), -EINVAL);
}

static void a_reactor_blocks_for_nothing(void **state)
{
	static const char *const engines[] = {"uring", "aio", "psync"};

	(void)state;
	hook_all();
	for (size_t i = 0; i < 3; i++) {
		b = a;
		violation = NULL;
		if (!open_hooked(&a, engines[i], ""))
			continue;
		fixture_open(&b, "shared=yes");
		all_kinds_of_work();
		if (violation)
			fail_msg("%s: a reactor called %s", engines[i], violation);
		fixture_close(&a);
		fixture_close(&b);
		remove_tree(a.path);
	}
}

static int lock_gated(int fd, off_t at, bool wait)
{
	gate_pass();
	return sys_native.byte_lock(fd, at, wait);
}

/* A lock that a network takes long to answer keeps nobody else from dumping. */
static void a_slow_lock_holds_nobody_up(void **state)
{
	static const char *const engines[] = {"uring", "aio", "psync"};
	static _Alignas(4096) uint8_t data[SHARD];
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = 500 * MS};

	(void)state;
	hooked.byte_lock = lock_gated;
	for (size_t i = 0; i < 3; i++) {
		struct cairn_xfer xfer;
		struct cairn_key key;
		uint64_t task;

		gate(false);
		if (!open_hooked(&a, engines[i], ""))
			continue;
		fixture_space(&a, "m", 2, SHARD);
		key = key_of(&a, 1);
		content(&key, 0, data, SHARD);
		xfer = xfer_of(&key, 0, 0, data, SHARD);
		gate(true);
		opts.flags = CAIRN_TASK_DETACH;
		assert_int_equal(cairn_dump(a.ns, &xfer, 1, &opts, &task), 0);
		gate_await();
		assert_int_equal(remove_one(&a, 2, CAIRN_DURABLE), -ENOENT);
		/* Nor is the deadline of the one that waits for it missed. */
		assert_int_equal(cairn_task_wait(a.store, task, 0, UINT64_MAX), 0);
		assert_int_equal(xfer.result.status, -ETIMEDOUT);
		gate(false);
		fixture_close(&a);
		remove_tree(a.path);
	}
}

/* ---- garbage ------------------------------------------------------------------------------- */

static void make_old(const char *file)
{
	const struct timespec old[2] = {{1000, 0}, {1000, 0}};

	assert_int_equal(utimensat(AT_FDCWD, file, old, 0), 0);
}

static char beside[2300];

/* What a writer that was killed leaves of a whole dump, in the same directory. */
static void leave_temporary(const char *file)
{
	int fd;

	snprintf(beside, sizeof(beside), "%.*s.t0000000a-00000001",
		 (int)(strlen(file) - strlen(".part")), file);
	fd = open(beside, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
}

/* A number whose block lies in one of the first directories. */
static uint32_t number_in_front(const struct fixture *f)
{
	struct cairn_key key;
	uint32_t number = 1000;

	do
		key = key_of(f, ++number);
	while (key.bytes[0] != 0);
	return number;
}

static void a_running_store_sweeps(void **state)
{
	uint32_t number;

	(void)state;
	b = a;
	fixture_open(&a, "shared=yes");
	fixture_open(&b, "shared=yes, partial_ttl=1ms");
	fixture_space(&a, "m", 2, SHARD);
	fixture_space(&b, "one", 1, SHARD);
	number = number_in_front(&a);
	assert_int_equal(dump_one(&a, number, 0, SHARD, 0), 0);
	each_file(a.path, leave_temporary);
	each_file(a.path, make_old);
	assert_int_equal(each_file(a.path, NULL), 2);
	/* A directory a dump, and 16 have keys that begin with a zero byte. */
	for (uint32_t i = 0; i < 32; i++) {
		assert_int_equal(dump_one(&b, i, 0, SHARD, 0), 0);
		usleep(2);
	}
	assert_int_equal(each_file(a.path, NULL), 32);
	assert_int_equal(counter(&b, "swept_files"), 2);
	assert_int_equal(counter(&a, "swept_files"), 0);
	/* What was swept is begun anew. */
	assert_int_equal(dump_one(&a, number, 1, SHARD, 0), 0);
	assert_false(present(&a, number));
	assert_int_equal(dump_one(&a, number, 0, SHARD, 0), 0);
	assert_true(present(&a, number));
	fixture_close(&a);
	fixture_close(&b);
}

static void what_is_young_is_not_swept(void **state)
{
	uint32_t number;

	(void)state;
	b = a;
	fixture_open(&a, "shared=yes");
	fixture_space(&a, "m", 2, SHARD);
	number = number_in_front(&a);
	assert_int_equal(dump_one(&a, number, 0, SHARD, 0), 0);
	fixture_open(&b, "shared=yes, partial_ttl=1h");
	fixture_space(&b, "one", 1, SHARD);
	for (uint32_t i = 0; i < 32; i++)
		assert_int_equal(dump_one(&b, i, 0, SHARD, 0), 0);
	assert_int_equal(each_file(a.path, NULL), 33);
	assert_int_equal(counter(&b, "swept_files"), 0);
	fixture_close(&a);
	fixture_close(&b);
}

static int files_aside(void)
{
	char folder[256];
	struct dirent *entry;
	int count = 0;
	DIR *dir;

	snprintf(folder, sizeof(folder), "%s/quarantine", a.path);
	dir = opendir(folder);
	while (dir && (entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return count;
}

static void damage(struct fixture *f, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		assert_int_equal(dump_one(f, i, 0, SHARD, 0), 0);
	each_file(a.path, flip_last_byte);
	for (uint32_t i = first; i < first + count; i++)
		assert_int_equal(load_one(f, i, 0, SHARD), -EBADMSG);
	assert_int_equal(each_file(a.path, NULL), 0);
}

static void the_quarantine_is_bounded(void **state)
{
	char options[64];

	(void)state;
	b = a;
	snprintf(options, sizeof(options), "shared=yes, quarantine=%u", 3 * FILE_S + 4096);
	fixture_open(&a, options);
	fixture_open(&b, options);
	fixture_space(&a, "m", 1, SHARD);
	fixture_space(&b, "m", 1, SHARD);
	damage(&a, 0, 2);
	assert_int_equal(files_aside(), 2);
	damage(&b, 2, 4); /* what the other has set aside counts */
	assert_int_equal(files_aside(), 3);
	assert_int_equal(counter(&b, "quarantined_blocks"), 1);
	assert_int_equal(counter(&b, "damaged_blocks"), 4);
	fixture_close(&a);
	fixture_close(&b);
	fixture_open(&a, "shared=yes, quarantine=1GiB");
	fixture_space(&a, "m", 1, SHARD);
	damage(&a, 100, 70);
	assert_int_equal(files_aside(), 64);
	fixture_close(&a);
	fixture_open(&a, "shared=yes, quarantine=0");
	fixture_space(&a, "m", 1, SHARD);
	damage(&a, 200, 1);
	assert_int_equal(files_aside(), 64);
	fixture_close(&a);
}

/* ---- another process ---------------------------------------------------------------------------
 */

enum ask { ASK_DUMP, ASK_LOAD, ASK_PRESENT, ASK_REMOVE, ASK_SWEEP, ASK_CLEAR, ASK_END };
struct order {
	enum ask ask;
	uint32_t number, shard;
};
static int to_other[2], from_other[2];

/* Opens and closes the store once more: what is old goes then. */
static int sweep_now(void)
{
	struct fixture once = a;

	fixture_open(&once, "shared=yes, partial_ttl=1ms");
	return cairn_store_close(once.store, UINT64_MAX);
}

static int obey(const struct order *order)
{
	switch (order->ask) {
	case ASK_DUMP:
		return dump_one(&b, order->number, order->shard, SHARD, 0);
	case ASK_LOAD:
		return load_one(&b, order->number, order->shard, SHARD);
	case ASK_PRESENT:
		return present(&b, order->number);
	case ASK_REMOVE:
		return remove_one(&b, order->number, 0);
	case ASK_SWEEP:
		return sweep_now();
	case ASK_CLEAR:
		return cairn_clear(b.ns, 0);
	case ASK_END:
		break;
	}
	return 0;
}

static void other_main(void)
{
	struct order order = {0};
	int answer;

	b = a;
	fixture_open(&b, "shared=yes");
	fixture_space(&b, "m", 2, SHARD);
	while (order.ask != ASK_END && read(to_other[0], &order, sizeof(order)) == sizeof(order)) {
		answer = obey(&order);
		if (write(from_other[1], &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	fixture_close(&b);
	_exit(0);
}

/* What the other process's call returned. */
static int ask(enum ask what, uint32_t number, uint32_t shard)
{
	const struct order order = {what, number, shard};
	int answer = -EPIPE;

	assert_int_equal(write(to_other[1], &order, sizeof(order)), sizeof(order));
	assert_int_equal(read(from_other[0], &answer, sizeof(answer)), sizeof(answer));
	return answer;
}

static bool vanish;

/* While a shard is written, and the head is not locked, the other process sweeps. */
static ssize_t pwritev_vanish(int fd, const struct iovec *iov, int count, off_t at)
{
	if (at > 0 && __atomic_exchange_n(&vanish, false, __ATOMIC_RELAXED)) {
		each_file(a.path, make_old);
		assert_int_equal(ask(ASK_SWEEP, 0, 0), 0);
	}
	return sys_native.pwritev(fd, iov, count, at);
}

static void with_another_process(void)
{
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(dump_one(&a, 1, i, SHARD, 0), 0);
	assert_int_equal(ask(ASK_PRESENT, 1, 0), 1);
	assert_int_equal(ask(ASK_LOAD, 1, 1), 0);
	assert_int_equal(ask(ASK_DUMP, 1, 1), CAIRN_PRESENT);
	/* The other's block is found, and what it removes is a clean miss. */
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(ask(ASK_DUMP, 2, i), 0);
	assert_true(present(&a, 2));
	assert_int_equal(load_one(&a, 2, 0, SHARD), 0);
	assert_int_equal(ask(ASK_REMOVE, 2, 0), 0);
	assert_false(present(&a, 2));
	assert_int_equal(load_one(&a, 2, 0, SHARD), -ENOENT);
	assert_int_equal(remove_one(&a, 2, 0), -ENOENT);
	assert_int_equal(counter(&a, "damaged_blocks"), 0);
	/* Both together make one. */
	assert_int_equal(dump_one(&a, 3, 1, SHARD, 0), 0);
	assert_int_equal(ask(ASK_PRESENT, 3, 0), 0);
	assert_int_equal(ask(ASK_DUMP, 3, 0), 0);
	assert_int_equal(load_one(&a, 3, 0, SHARD), 0);
	/* One that vanishes under its writer. */
	for (uint32_t shard = 0; shard < 2; shard++) {
		vanish = true;
		assert_int_equal(dump_one(&a, 4, shard, SHARD, 0), -ESTALE);
		assert_false(vanish);
		assert_false(present(&a, 4));
	}
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(dump_one(&a, 4, i, SHARD, 0), 0);
	assert_int_equal(ask(ASK_LOAD, 4, 1), 0);
	assert_int_equal(ask(ASK_CLEAR, 0, 0), 0);
	assert_int_equal(load_one(&a, 4, 1, SHARD), -ENOENT);
}

static void two_processes(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	assert_int_equal(pipe(to_other), 0);
	assert_int_equal(pipe(from_other), 0);
	pid = fork(); /* no store is open, and no thread runs */
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		other_main();
	}
	hooked.pwritev = pwritev_vanish;
	assert_true(open_hooked(&a, "psync", ""));
	fixture_space(&a, "m", 2, SHARD);
	with_another_process();
	assert_int_equal(ask(ASK_END, 0, 0), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	fixture_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_processes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reactor_blocks_for_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_slow_lock_holds_nobody_up, setup, teardown),
		cmocka_unit_test_setup_teardown(a_running_store_sweeps, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_young_is_not_swept, setup, teardown),
		cmocka_unit_test_setup_teardown(the_quarantine_is_bounded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
