/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix tier where something goes wrong at one exact moment: a sys table
 * with a hook here and there, under the engine that uses the table for all.
 */
#include <time.h>

#include "core/store.h"
#include "gate.h"
#include "posix_store.h"

#define SHARD 8192u
#define MS    1000000ull
#define FDS   1024

static struct fixture a, b;
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

static void open_hooked(struct fixture *f, const char *options)
{
	struct cairn_error error = {0};

	snprintf(f->spec, sizeof(f->spec),
		 "store(engine=psync, workers=4, reactors=1) | posix(path=%s%s%s)", f->path,
		 *options ? ", " : "", options);
	if (store_open(&hooked, f->spec, NULL, &f->store, &error) < 0)
		fail_msg("%s: %s", f->spec, error.text);
}

static int remove_one(struct fixture *f, uint32_t number, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(f, number);

	return cairn_remove(f->ns, &key, 1, NULL, &opts, NULL);
}

/* ---- deadlines of what waits -------------------------------------------------------------- */

static int unlink_gated(int dirfd, const char *path, int flags)
{
	gate_pass();
	return sys_native.unlinkat(dirfd, path, flags);
}

/* A remove whose unlink has begun, and does not end before the gate opens. */
static uint64_t remove_begin(struct cairn_key *key)
{
	uint64_t task;

	gate(true);
	assert_int_equal(cairn_remove(a.ns, key, 1, NULL, NULL, &task), 0);
	gate_await();
	return task;
}

static void waits_end_at_their_deadline(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = 30 * MS};
	static _Alignas(4096) uint8_t data[SHARD];
	struct cairn_xfer xfer;
	struct cairn_key key;
	uint64_t removal, dump, second;

	(void)state;
	hooked.unlinkat = unlink_gated;
	gate(false);
	open_hooked(&a, "");
	fixture_space(&a, "m", 1, SHARD);
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	key = key_of(&a, 1);
	content(&key, 0, data, SHARD);
	removal = remove_begin(&key);
	xfer = xfer_of(&key, 0, 0, data, SHARD);
	assert_int_equal(cairn_dump(a.ns, &xfer, 1, &opts, &dump), 0);
	assert_int_equal(cairn_remove(a.ns, &key, 1, NULL, &opts, &second), 0);
	/* Not only the result comes: the io is over, and the buffer free. */
	assert_int_equal(cairn_task_wait(a.store, dump, 0, 20000 * MS), 0);
	assert_int_equal(xfer.result.status, -ETIMEDOUT);
	assert_int_equal(cairn_task_wait(a.store, second, 0, 20000 * MS), 0);
	gate(false);
	assert_int_equal(cairn_task_wait(a.store, removal, 0, UINT64_MAX), 0);
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	fixture_close(&a);
}

/* The wake and the deadline come together, in either order. */
static void waits_woken_at_their_deadline(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	static _Alignas(4096) uint8_t data[4][SHARD];
	struct cairn_xfer xfers[4];
	struct cairn_key key;

	(void)state;
	hooked.unlinkat = unlink_gated;
	gate(false);
	open_hooked(&a, "");
	fixture_space(&a, "m", 1, SHARD);
	key = key_of(&a, 1);
	for (int i = 0; i < 4; i++)
		content(&key, 0, data[i], SHARD);
	for (uint32_t round = 0; round < 200; round++) {
		uint64_t removal, dumps[4];
		int rc = dump_one(&a, 1, 0, SHARD, 0);

		assert_true(rc == 0 || rc == CAIRN_PRESENT);
		removal = remove_begin(&key);
		opts.deadline_ns = MS;
		for (int i = 0; i < 4; i++) {
			xfers[i] = xfer_of(&key, 0, 0, data[i], SHARD);
			assert_int_equal(cairn_dump(a.ns, &xfers[i], 1, &opts, &dumps[i]), 0);
		}
		sys_native.sleep_ns(MS - 200000 + round * 1000);
		gate(false);
		for (int i = 0; i < 4; i++)
			cairn_task_wait(a.store, dumps[i], 0, UINT64_MAX);
		assert_int_equal(cairn_task_wait(a.store, removal, 0, UINT64_MAX), 0);
	}
	fixture_close(&a);
}

/* ---- files that stay or go against the tier's will ----------------------------------------- */

static bool unlink_fails;

static int unlink_not_temporary(int dirfd, const char *path, int flags)
{
	if (unlink_fails && strstr(path, ".t"))
		return -EIO;
	return sys_native.unlinkat(dirfd, path, flags);
}

static void leftovers_are_found_after_a_clean_close(void **state)
{
	(void)state;
	hooked.unlinkat = unlink_not_temporary;
	for (int way = 0; way < 2; way++) {
		open_hooked(&a, "");
		fixture_space(&a, "m", 2, SHARD);
		assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
		unlink_fails = true;
		if (way == 0)
			assert_int_equal(remove_one(&a, 1, 0), -ENOENT);
		else
			assert_int_equal(cairn_clear(a.ns, 0), 0);
		unlink_fails = false;
		assert_int_equal(each_file(a.path, NULL), 1);
		assert_true(bytes_used(&a) >= du(a.path));
		fixture_close(&a);
		open_hooked(&a, "");
		assert_int_equal(each_file(a.path, NULL), 0);
		fixture_space(&a, "m", 2, SHARD);
		assert_int_equal(bytes_used(&a), du(a.path));
		fixture_close(&a);
	}
}

static void unlink_file(const char *file)
{
	assert_int_equal(unlink(file), 0);
}

static void a_partial_taken_away_is_stale(void **state)
{
	(void)state;
	open_hooked(&a, "");
	fixture_space(&a, "m", 3, SHARD);
	for (uint32_t last = 1; last < 3; last++) {
		for (uint32_t i = 0; i < last; i++)
			assert_int_equal(dump_one(&a, 1, i, SHARD, 0), 0);
		assert_int_equal(each_file(a.path, unlink_file), 1);
		assert_int_equal(dump_one(&a, 1, last, SHARD, 0), -ESTALE);
		assert_false(present(&a, 1));
		assert_int_equal(each_file(a.path, NULL), 0);
	}
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(dump_one(&a, 1, i, SHARD, 0), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(load_one(&a, 1, i, SHARD), 0);
	assert_int_equal(bytes_used(&a), du(a.path));
	fixture_close(&a);
}

/* ---- the budget -------------------------------------------------------------------------------
 */

static int dump_sized(uint32_t number, uint64_t bytes)
{
	struct cairn_key key = key_of(&a, number);
	uint8_t *data = aligned_alloc(4096, bytes);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, bytes);

	assert_non_null(data);
	content(&key, 0, data, bytes);
	xfer.shard_count = 1;
	xfer.shard_bytes = bytes;
	cairn_dump(a.ns, &xfer, 1, NULL, NULL);
	free(data);
	return xfer.result.status;
}

static void what_never_fits_evicts_nothing(void **state)
{
	uint64_t bytes = 1u << 20, blocks;
	int rc = -EFBIG;

	(void)state;
	open_hooked(&a, "size=1MiB");
	fixture_space(&a, "m", 0, 0);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dump_sized(i, SHARD), 0);
	blocks = blocks_known(&a);
	/* Sizes around the largest that fits: taken, or refused with nothing lost for it. */
	for (; bytes > 800u << 10; bytes -= 4096) {
		rc = dump_sized(100, bytes);
		if (rc == 0)
			break;
		assert_int_equal(rc, -EFBIG);
		assert_int_equal(blocks_known(&a), blocks);
	}
	assert_int_equal(rc, 0);
	fixture_close(&a);
}

/* ---- segments ---------------------------------------------------------------------------------
 */

/* After a first piece that is copied the rest lies well: it is copied all the same. */
static void segments_that_become_aligned(void **state)
{
	enum { COUNT = 40, BYTES = 4 << 20 };
	struct cairn_segment segments[COUNT];
	struct cairn_key key;
	struct cairn_xfer xfer = {.length = BYTES};
	uint8_t *memory = aligned_alloc(4096, 3 * BYTES), *data = malloc(BYTES);
	struct cairn_error error = {0};
	uint64_t at = 0;

	(void)state;
	snprintf(a.spec, sizeof(a.spec), "store(buffers=1MiB) | posix(path=%s, staging=no)",
		 a.path);
	if (cairn_store_open(a.spec, NULL, &a.store, &error) < 0)
		fail_msg("%s", error.text);
	fixture_space(&a, "m", 1, BYTES);
	key = key_of(&a, 1);
	content(&key, 0, data, BYTES);
	segments[0] = (struct cairn_segment){memory, 6000};
	segments[1] = (struct cairn_segment){memory + 6000 + 4096, (BYTES / 2) - 6000};
	for (uint32_t i = 2; i < COUNT; i++)
		segments[i] = (struct cairn_segment){memory + BYTES + i * 20480, 8192};
	for (uint32_t i = 0; i < COUNT - 1; i++)
		at += segments[i].length;
	segments[COUNT - 1].length = BYTES - at;
	segments[COUNT - 1].base = memory + 2 * BYTES;
	for (uint32_t i = 0, from = 0; i < COUNT; i++) {
		memcpy(segments[i].base, data + from, segments[i].length);
		from += (uint32_t)segments[i].length;
	}
	xfer.key = key;
	xfer.segments = segments;
	xfer.segment_count = COUNT;
	assert_int_equal(cairn_dump(a.ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(load_one(&a, 1, 0, BYTES), 0);
	fixture_close(&a);
	free(memory);
	free(data);
}

/* ---- namespaces ----------------------------------------------------------------------------- */

static bool fsync_fails;

static int fsync_hook(int fd)
{
	return fsync_fails ? -EIO : sys_native.fsync(fd);
}

static void a_clear_that_is_not_durable_is_none(void **state)
{
	(void)state;
	hooked.fsync = fsync_hook;
	open_hooked(&a, "");
	fixture_space(&a, "m", 1, SHARD);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
		fsync_fails = true;
		assert_int_equal(cairn_clear(a.ns, CAIRN_WRITTEN), -EIO);
		fsync_fails = false;
		assert_true(present(&a, 1));
		fixture_close(&a);
		open_hooked(&a, "");
		fixture_space(&a, "m", 1, SHARD);
		assert_true(present(&a, 1));
		assert_int_equal(cairn_clear(a.ns, CAIRN_WRITTEN), 0);
		assert_false(present(&a, 1));
	}
	fixture_close(&a);
}

static void a_path_that_is_too_long_is_refused(void **state)
{
	struct cairn_error error = {0};
	char spec[1200], path[700];

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	for (size_t i = 100; i < sizeof(path) - 1; i += 100)
		path[i] = '/';
	snprintf(spec, sizeof(spec), "posix(path=%s/%s)", a.path, path);
	assert_int_equal(cairn_store_open(spec, NULL, &a.store, &error), -EINVAL);
	assert_non_null(strstr(error.text, "path="));
}

/* ---- shared=yes
 * ---------------------------------------------------------------------------------- */

static bool names_fail;

static int rename_hook(int from, const char *path, int to, const char *name, unsigned flags)
{
	return names_fail ? -EIO : sys_native.renameat2(from, path, to, name, flags);
}

/* As when the last writer dies between the head and the name. */
static void a_part_with_its_last_head_is_published(void **state)
{
	(void)state;
	hooked.renameat2 = rename_hook;
	open_hooked(&a, "shared=yes");
	fixture_space(&a, "m", 2, SHARD);
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	names_fail = true;
	assert_int_equal(dump_one(&a, 1, 1, SHARD, 0), -EIO);
	names_fail = false;
	assert_false(present(&a, 1));
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), CAIRN_PRESENT);
	assert_true(present(&a, 1));
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(load_one(&a, 1, i, SHARD), 0);
	assert_int_equal(each_file(a.path, NULL), 1);
	fixture_close(&a);
}

static int reads_left; /* 0: none fails */

static ssize_t preadv_hook(int fd, const struct iovec *iov, int count, off_t offset)
{
	if (reads_left > 0 && --reads_left == 0)
		return -EIO;
	return sys_native.preadv(fd, iov, count, offset);
}

/* That a file cannot be read does not say that it ends: the one whose shard is the last publishes.
 */
static void the_last_shard_is_not_told_done_by_a_failed_read(void **state)
{
	uint32_t failed = 0;

	(void)state;
	hooked.preadv = preadv_hook;
	open_hooked(&a, "shared=yes");
	fixture_space(&a, "m", 2, SHARD);
	for (uint32_t nth = 1; reads_left == 0; nth++) {
		int ret;

		assert_int_equal(dump_one(&a, nth, 0, SHARD, 0), 0);
		reads_left = (int)nth;
		ret = dump_one(&a, nth, 1, SHARD, 0);
		if (reads_left == 0 && ret < 0)
			failed++;
		else
			assert_true(ret == 0 && present(&a, nth));
	}
	assert_true(failed >= 2);
	reads_left = 0;
	fixture_close(&a);
}

static unsigned synced;
static bool overtaken;

static int fdatasync_hook(int fd)
{
	__atomic_fetch_add(&synced, 1, __ATOMIC_RELAXED);
	return sys_native.fdatasync(fd);
}

/* The other store is first, by a moment, and did not sync. */
static int rename_overtaken(int from, const char *path, int to, const char *name, unsigned flags)
{
	if (!overtaken) {
		overtaken = true;
		assert_int_equal(dump_one(&b, 1, 0, SHARD, 0), 0);
		__atomic_store_n(&synced, 0, __ATOMIC_RELAXED);
	}
	return sys_native.renameat2(from, path, to, name, flags);
}

static void durable_is_the_one_that_is_there(void **state)
{
	(void)state;
	hooked.renameat2 = rename_overtaken;
	hooked.fdatasync = fdatasync_hook;
	b = a;
	open_hooked(&a, "shared=yes");
	fixture_open(&b, "shared=yes");
	fixture_space(&a, "m", 1, SHARD);
	fixture_space(&b, "m", 1, SHARD);
	overtaken = false;
	assert_int_equal(dump_one(&a, 1, 0, SHARD, CAIRN_DURABLE), CAIRN_PRESENT);
	assert_true(overtaken);
	assert_true(synced > 0);
	assert_int_equal(each_file(a.path, NULL), 1);
	fixture_close(&a);
	fixture_close(&b);
}

static int made_fd = -1;
static bool close_fails;

static int open_hook(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd = sys_native.openat(dirfd, path, flags, mode);

	if (close_fails && (flags & O_CREAT) && strstr(path, ".t"))
		made_fd = fd;
	return fd;
}

static bool held[FDS];

static int close_hook(int fd)
{
	int rc;

	if (fd < FDS && __atomic_exchange_n(&held[fd], false, __ATOMIC_RELAXED))
		fail_msg("closed with a lock on it");
	rc = sys_native.close(fd);
	if (close_fails && fd == made_fd) {
		made_fd = -1;
		return -EIO;
	}
	return rc;
}

/* Some file systems say only at the close that they could not keep the bytes. */
static void no_name_before_the_close(void **state)
{
	(void)state;
	hooked.openat = open_hook;
	hooked.close = close_hook;
	open_hooked(&a, "shared=yes");
	fixture_space(&a, "m", 1, SHARD);
	assert_int_equal(dump_one(&a, 2, 0, SHARD, 0), 0);
	close_fails = true;
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), -EIO);
	close_fails = false;
	assert_false(present(&a, 1));
	assert_int_equal(each_file(a.path, NULL), 1);
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	fixture_close(&a);
}

static int lock_hook(int fd, off_t offset, bool wait)
{
	int rc = sys_native.byte_lock(fd, offset, wait);

	/* The last one taken is enough: the head's. */
	if (rc == 0 && offset == (off_t)1 << 40 && fd < FDS)
		__atomic_store_n(&held[fd], true, __ATOMIC_RELAXED);
	return rc;
}

static int unlock_hook(int fd, off_t offset)
{
	if (offset == (off_t)1 << 40 && fd < FDS)
		__atomic_store_n(&held[fd], false, __ATOMIC_RELAXED);
	return sys_native.byte_unlock(fd, offset);
}

/* A child of a fork has the description, too: closing it gives no lock back. */
static void locks_are_given_back(void **state)
{
	(void)state;
	hooked.close = close_hook;
	hooked.byte_lock = lock_hook;
	hooked.byte_unlock = unlock_hook;
	open_hooked(&a, "shared=yes");
	fixture_space(&a, "m", 3, SHARD);
	for (uint32_t block = 0; block < 4; block++)
		for (uint32_t i = 0; i < 3 - block % 2; i++)
			assert_int_equal(dump_one(&a, block, i, SHARD, block % 3), 0);
	assert_int_equal(remove_one(&a, 1, 0), -ENOENT);
	assert_int_equal(remove_one(&a, 2, 0), 0);
	fixture_close(&a);
}

static void loads_alone_learn_of_a_clear(void **state)
{
	(void)state;
	b = a;
	open_hooked(&a, "shared=yes");
	fixture_open(&b, "shared=yes");
	fixture_space(&a, "m", 1, SHARD);
	fixture_space(&b, "m", 1, SHARD);
	for (uint32_t round = 0; round < 2; round++) {
		if (round == 0) /* there in the generation before, too */
			assert_int_equal(dump_one(&a, round, 0, SHARD, 0), 0);
		assert_int_equal(cairn_clear(a.ns, 0), 0);
		assert_int_equal(dump_one(&a, round, 0, SHARD, 0), 0);
		assert_int_equal(load_one(&b, round, 0, SHARD), 0);
	}
	fixture_close(&a);
	fixture_close(&b);
}

/* ---- removes -----------------------------------------------------------------------------------
 */

static unsigned fsyncs;

static int fsync_counted(int fd)
{
	__atomic_fetch_add(&fsyncs, 1, __ATOMIC_RELAXED);
	return sys_native.fsync(fd);
}

static void removed_before_becomes_durable(void **state)
{
	static const char *const options[] = {"", "shared=yes"};

	(void)state;
	hooked.fsync = fsync_counted;
	for (int i = 0; i < 2; i++) {
		open_hooked(&a, options[i]);
		fixture_space(&a, "m", 1, SHARD);
		assert_int_equal(dump_one(&a, 1, 0, SHARD, CAIRN_DURABLE), 0);
		assert_int_equal(remove_one(&a, 1, CAIRN_WRITTEN), 0);
		fsyncs = 0;
		assert_int_equal(remove_one(&a, 1, CAIRN_WRITTEN), -ENOENT);
		assert_int_equal(fsyncs, 0);
		assert_int_equal(remove_one(&a, 1, CAIRN_DURABLE), -ENOENT);
		assert_int_equal(fsyncs, 1);
		fixture_close(&a);
	}
}

/* ---- a disk that is full at close --------------------------------------------------------- */

#define GUARD	    (1u << 20)
#define INDEX_CHUNK 65536u

static bool disk_full;
static uint32_t refused_writes;
static uint8_t *guarded; /* a chunk of the index that is being written, with a guard behind */

static ssize_t pwritev_full(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	if (!disk_full)
		return sys_native.pwritev(fd, iov, iov_count, offset);
	refused_writes++;
	return -ENOSPC;
}

static void *alloc_guarded(size_t alignment, size_t bytes)
{
	uint8_t *memory;

	if (!disk_full || bytes != INDEX_CHUNK)
		return sys_native.alloc(alignment, bytes);
	memory = sys_native.alloc(alignment, bytes + GUARD);
	assert_non_null(memory);
	memset(memory + bytes, 0xa5, GUARD);
	guarded = memory;
	return memory;
}

static void free_guarded(void *memory)
{
	if (memory == guarded)
		for (uint32_t i = 0; i < GUARD; i++)
			assert_int_equal(guarded[INDEX_CHUNK + i], 0xa5);
	sys_native.free(memory);
}

/* An index of several chunks, of which the first cannot be written. */
static void an_index_that_finds_no_room(void **state)
{
	enum { BLOCKS = 2500 };

	(void)state;
	hooked.pwritev = pwritev_full;
	hooked.alloc = alloc_guarded;
	hooked.free = free_guarded;
	open_hooked(&a, "");
	fixture_space(&a, "m", 1, 512);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(dump_one(&a, i, 0, 512, 0), 0);
	disk_full = true;
	fixture_close(&a);
	disk_full = false;
	assert_non_null(guarded);
	assert_int_equal(refused_writes, 1);
	fixture_open(&a, "");
	fixture_space(&a, "m", 1, 512);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_true(present(&a, i));
	fixture_close(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(waits_end_at_their_deadline),
		TEST(waits_woken_at_their_deadline),
		TEST(leftovers_are_found_after_a_clean_close),
		TEST(a_partial_taken_away_is_stale),
		TEST(what_never_fits_evicts_nothing),
		TEST(segments_that_become_aligned),
		TEST(a_clear_that_is_not_durable_is_none),
		TEST(a_path_that_is_too_long_is_refused),
		TEST(the_last_shard_is_not_told_done_by_a_failed_read),
		TEST(a_part_with_its_last_head_is_published),
		TEST(durable_is_the_one_that_is_there),
		TEST(no_name_before_the_close),
		TEST(locks_are_given_back),
		TEST(loads_alone_learn_of_a_clear),
		TEST(removed_before_becomes_durable),
		TEST(an_index_that_finds_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
