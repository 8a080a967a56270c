/* SPDX-License-Identifier: Apache-2.0 */
/* Options and figures of the posix tier at their bounds, and what a file system refuses. */
#include <sys/file.h>

#include "core/store.h"
#include "posix_store.h"

#define SHARD 8192u

static struct fixture a;
static struct sys hooked;

static int setup(void **state)
{
	(void)state;
	hooked = sys_native;
	fixture_new(&a);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&a);
	return 0;
}

static int try_open(const char *options, struct cairn_error *reterr)
{
	snprintf(a.spec, sizeof(a.spec), "store(engine=psync, reactors=1) | posix(path=%s%s)",
		 a.path, options);
	return store_open(&hooked, a.spec, NULL, &a.store, reterr);
}

static void open_hooked(const char *options)
{
	struct cairn_error error = {0};

	if (try_open(options, &error) < 0)
		fail_msg("%s: %s", a.spec, error.text);
	fixture_space(&a, "bounds", 1, SHARD);
}

/* ---- the lock ------------------------------------------------------------------------ */

static int looks; /* as often the lock is taken by one who only looks */

static int flock_looked(int fd, int operation)
{
	if ((operation & LOCK_NB) && looks > 0) {
		looks--;
		return -EAGAIN;
	}
	return sys_native.flock(fd, operation);
}

static void a_look_does_not_keep_out(void **state)
{
	(void)state;
	hooked.flock = flock_looked;
	looks = 1;
	open_hooked(", open_wait=0s");
	assert_int_equal(looks, 0);
	fixture_close(&a);
}

/* ---- direct= --------------------------------------------------------------------------- */

static bool direct_refused;
static int direct_opens;

static int openat_direct(int dirfd, const char *path, int flags, mode_t mode)
{
	if (!(flags & O_DIRECT))
		return sys_native.openat(dirfd, path, flags, mode);
	if (direct_refused)
		return -EINVAL;
	/* Not every file system of a test has it. */
	direct_opens += strchr(path, '-') != NULL;
	return sys_native.openat(dirfd, path, flags & ~O_DIRECT, mode);
}

static int openat_cached_direct(int dirfd, const char *path, int flags)
{
	direct_opens += (flags & O_DIRECT) && strchr(path, '-');
	return sys_native.openat_cached(dirfd, path, flags & ~O_DIRECT);
}

static void direct_is_refused_or_taken(void **state)
{
	struct cairn_error error = {0};

	(void)state;
	hooked.openat = openat_direct;
	hooked.openat_cached = openat_cached_direct;
	direct_refused = true;
	assert_int_equal(try_open(", direct=yes", &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "direct=yes, but the file system of "));
	assert_non_null(strstr(error.text, "use direct=auto"));
	direct_opens = 0;
	open_hooked(", direct=auto");
	assert_int_equal(dump_one(&a, 1, 0, SHARD, CAIRN_WRITTEN), 0);
	fixture_close(&a);
	direct_refused = false;
	open_hooked(", direct=no");
	assert_int_equal(dump_one(&a, 2, 0, SHARD, CAIRN_WRITTEN), 0);
	fixture_close(&a);
	assert_int_equal(direct_opens, 0);
	open_hooked(", direct=yes");
	assert_int_equal(dump_one(&a, 3, 0, SHARD, CAIRN_WRITTEN), 0);
	assert_true(direct_opens > 0);
	direct_opens = 0;
	assert_int_equal(load_one(&a, 3, 0, SHARD), 0);
	assert_true(direct_opens > 0);
	fixture_close(&a);
}

/* ---- the index -------------------------------------------------------------------------- */

static void a_full_index_evicts(void **state)
{
	uint64_t empty;

	(void)state;
	open_hooked(", entries=16");
	empty = counter(&a, "index_bytes");
	for (uint32_t i = 0; i < 16; i++)
		assert_int_equal(dump_one(&a, i, 0, SHARD, CAIRN_WRITTEN), 0);
	assert_int_equal(counter(&a, "evicted_index_full"), 0);
	assert_true(counter(&a, "index_bytes") > 0);
	assert_true(counter(&a, "index_bytes") >= empty);
	for (uint32_t i = 16; i < 20; i++)
		assert_int_equal(dump_one(&a, i, 0, SHARD, CAIRN_WRITTEN), 0);
	assert_int_equal(counter(&a, "evicted_index_full"), 4);
	assert_int_equal(counter(&a, "evicted_blocks"), 4);
	assert_int_equal(blocks_known(&a), 16);
	fixture_close(&a);
}

/* ---- a quota ------------------------------------------------------------------------------ */

static int full; /* what a write to a block says; 0: it writes */

static ssize_t write_full(int fd, const struct iovec *iov, int count, off_t offset)
{
	char link[64], path[512];
	ssize_t got;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	got = readlink(link, path, sizeof(path) - 1);
	path[got > 0 ? got : 0] = '\0';
	if (full && strstr(path, "/b/"))
		return full;
	return sys_native.pwritev(fd, iov, count, offset);
}

static void a_quota_is_no_room(void **state)
{
	(void)state;
	hooked.pwritev = write_full;
	open_hooked("");
	full = -EDQUOT;
	assert_int_equal(dump_one(&a, 1, 0, SHARD, CAIRN_WRITTEN), -ENOSPC);
	assert_false(present(&a, 1));
	full = 0;
	assert_int_equal(dump_one(&a, 1, 0, SHARD, CAIRN_WRITTEN), 0);
	assert_true(present(&a, 1));
	fixture_close(&a);
}

/* Parts of blocks are copied, and there is memory for one or two of these: the others wait. */
static void loads_wait_for_memory(void **state)
{
	enum { BLOCKS = 16, BYTES = 262144, SKIPPED = 100 };
	static uint8_t data[BLOCKS][BYTES - SKIPPED], want[BYTES];
	struct cairn_xfer xfers[BLOCKS];
	struct cairn_error error = {0};
	uint64_t task;

	(void)state;
	snprintf(a.spec, sizeof(a.spec), "store(reactors=1, buffers=1MiB) | posix(path=%s)",
		 a.path);
	assert_int_equal(cairn_store_open(a.spec, NULL, &a.store, &error), 0);
	fixture_space(&a, "m", 1, BYTES);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct cairn_key key = key_of(&a, i);

		assert_int_equal(dump_one(&a, i, 0, BYTES, CAIRN_WRITTEN), 0);
		xfers[i] = xfer_of(&key, 0, SKIPPED, data[i], BYTES - SKIPPED);
	}
	assert_int_equal(cairn_load(a.ns, xfers, BLOCKS, NULL, &task), 0);
	assert_int_equal(cairn_task_wait(a.store, task, 0, UINT64_MAX), 0);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		assert_int_equal(xfers[i].result.status, 0);
		content(&xfers[i].key, 0, want, BYTES);
		assert_memory_equal(data[i], want + SKIPPED, BYTES - SKIPPED);
	}
	fixture_close(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_look_does_not_keep_out), TEST(direct_is_refused_or_taken),
		TEST(a_full_index_evicts),	TEST(a_quota_is_no_room),
		TEST(loads_wait_for_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
