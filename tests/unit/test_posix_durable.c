/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is durable was synced, in the right order, and a sync that fails is told.
 * A sys table under the simplest engine writes down, a letter each: D a block
 * file's data, R the rename, U an unlink, d a block directory, b the directory
 * of these, n that of the namespaces.
 */
#include "core/store.h"
#include "posix_store.h"

#define SHARD 8192u
#define LOG   64

static struct fixture a;
static struct sys hooked;
static char events[LOG];
static size_t event_count;
static int fail_at; /* which sync fails, from 1; 0: none */

static int setup(void **state)
{
	(void)state;
	fixture_new(&a);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&a);
	return 0;
}

static void event(char letter)
{
	assert_true(event_count + 1 < LOG);
	events[event_count++] = letter;
	events[event_count] = '\0';
}

static char kind_of(int fd)
{
	char link[64], path[512], *below;
	struct stat st;
	ssize_t got;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	got = readlink(link, path, sizeof(path) - 1);
	assert_true(got > 0 && fstat(fd, &st) == 0);
	path[got] = '\0';
	below = path + strlen(a.path);
	if (strcmp(below, "/b") == 0)
		return 'b';
	if (strcmp(below, "/ns") == 0)
		return 'n';
	if (strncmp(below, "/b/", 3) != 0)
		return '?';
	return S_ISDIR(st.st_mode) ? 'd' : 'D';
}

static bool sync_fails(int fd)
{
	event(kind_of(fd));
	return fail_at && --fail_at == 0;
}

static int fsync_seen(int fd)
{
	return sync_fails(fd) ? -EIO : sys_native.fsync(fd);
}

static int fdatasync_seen(int fd)
{
	return sync_fails(fd) ? -EIO : sys_native.fdatasync(fd);
}

static int rename_seen(int from, const char *path, int to, const char *name, unsigned flags)
{
	event('R');
	return sys_native.renameat2(from, path, to, name, flags);
}

static int unlink_seen(int dirfd, const char *path, int flags)
{
	if (strncmp(path, "store.t", 7) != 0) /* of a sweep, which looks what time it is */
		event('U');
	return sys_native.unlinkat(dirfd, path, flags);
}

static void open_seen(bool shared)
{
	struct cairn_error error = {0};

	hooked = sys_native;
	hooked.fsync = fsync_seen;
	hooked.fdatasync = fdatasync_seen;
	hooked.renameat2 = rename_seen;
	hooked.unlinkat = unlink_seen;
	snprintf(a.spec, sizeof(a.spec),
		 "store(engine=psync, workers=1, reactors=1) | posix(path=%s%s)", a.path,
		 shared ? ", shared=yes" : "");
	event_count = 0;
	if (store_open(&hooked, a.spec, NULL, &a.store, &error) < 0)
		fail_msg("%s: %s", a.spec, error.text);
	fixture_space(&a, "m", 2, SHARD);
}

static void begin(int fails)
{
	fail_at = fails;
	event_count = 0;
	events[0] = '\0';
}

/* Both shards of a block: in one io, or in one each. */
static int dump_both(uint32_t number, bool together, uint32_t durability)
{
	static _Alignas(4096) uint8_t data[2][SHARD];
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(&a, number);
	struct cairn_xfer xfers[2];
	int rc = 0;

	for (uint32_t i = 0; i < 2; i++) {
		content(&key, i, data[i], SHARD);
		xfers[i] = xfer_of(&key, i, 0, data[i], SHARD);
	}
	if (together)
		cairn_dump(a.ns, xfers, 2, &opts, NULL);
	for (uint32_t i = 0; i < 2; i++) {
		if (!together)
			cairn_dump(a.ns, &xfers[i], 1, &opts, NULL);
		rc = rc < 0 ? rc : xfers[i].result.status;
	}
	return rc;
}

static int remove_one(uint32_t number, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(&a, number);

	return cairn_remove(a.ns, &key, 1, NULL, &opts, NULL);
}

static void syncs_in_order(void **state)
{
	static const struct {
		bool shared, together;
		const char *dump, *present, *again, *remove, *clear;
	} rows[] = {
		{false, true, "DRdb", "Dd", "", "Ud", "n"},
		{false, false, "DRdb", "Dd", "", "Ud", "n"},
		{true, true, "DRdb", "Ddb", "Ddb", "Ud", "n"},
		{true, false, "DRDdb", "Ddb", "Ddb", "Ud", "n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		open_seen(rows[i].shared);
		begin(0);
		assert_int_equal(dump_both(1, rows[i].together, CAIRN_DURABLE), 0);
		assert_string_equal(events, rows[i].dump);
		begin(0);
		assert_int_equal(remove_one(1, CAIRN_DURABLE), 0);
		assert_string_equal(events, rows[i].remove);
		/* Without: no sync at all, until it is asked for. */
		begin(0);
		assert_int_equal(dump_both(1, rows[i].together, CAIRN_WRITTEN), 0);
		assert_string_equal(events, "R");
		begin(0);
		assert_int_equal(dump_both(1, true, CAIRN_DURABLE), CAIRN_PRESENT);
		assert_string_equal(events, rows[i].present);
		begin(0);
		assert_int_equal(dump_both(1, true, CAIRN_DURABLE), CAIRN_PRESENT);
		assert_string_equal(events, rows[i].again);
		begin(0);
		assert_int_equal(cairn_clear(a.ns, CAIRN_DURABLE), 0);
		assert_string_equal(events, rows[i].clear);
		fixture_close(&a);
		fixture_free(&a);
		fixture_new(&a);
	}
}

/* Each sync of each operation in turn. */
static void a_sync_that_fails_is_told(void **state)
{
	(void)state;
	for (int way = 0; way < 4; way++) {
		bool shared = way & 1, together = way & 2;
		uint32_t number = 10;
		int failed = 0;

		open_seen(shared);
		for (int n = 1;; n++, number++) {
			int rc;

			begin(n);
			rc = dump_both(number, together, CAIRN_DURABLE);
			if (fail_at)
				break; /* fewer than @n */
			assert_int_equal(rc, -EIO);
			failed++;
		}
		assert_true(failed >= 2);
		begin(0);
		assert_int_equal(dump_both(5, together, CAIRN_WRITTEN), 0);
		begin(1);
		assert_int_equal(dump_both(5, true, CAIRN_DURABLE), -EIO);
		begin(1);
		assert_int_equal(remove_one(5, CAIRN_DURABLE), -EIO);
		begin(0);
		fixture_close(&a);
		fixture_free(&a);
		fixture_new(&a);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(syncs_in_order),
		TEST(a_sync_that_fails_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
