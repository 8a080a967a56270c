/* SPDX-License-Identifier: Apache-2.0 */
/* What a posix tier makes of the directory that it finds, whoever was there meanwhile. */
#include <sys/stat.h>

#include "posix_store.h"

#define SHARD 4096u

static struct fixture f;

static int setup(void **state)
{
	(void)state;
	fixture_new(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&f);
	return 0;
}

static void blocks_dump(uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
}

/* ---- an open that is refused --------------------------------------------------------- */

static int open_sized(uint64_t size, struct cairn_store **ret_store)
{
	struct cairn_error error = {0};
	char spec[256];
	int rc;

	snprintf(spec, sizeof(spec), "posix(path=%s, size=%llu)", f.path, (unsigned long long)size);
	rc = cairn_store_open(spec, NULL, ret_store, &error);
	if (rc < 0)
		assert_non_null(strstr(error.text, "size="));
	return rc;
}

/* As after a power cut: no directory is as the index says. */
static void dirs_age(void)
{
	for (uint32_t i = 0; i < 4096; i++) {
		char path[256];

		snprintf(path, sizeof(path), "%s/b/%03x", f.path, i);
		utimensat(AT_FDCWD, path, (const struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}},
			  0);
	}
}

/* Directories that blocks need alone are more than the budget; so is the smallest index. */
static void a_refused_open_deletes_nothing(void **state)
{
	enum { BLOCKS = 600 };
	uint64_t size = 1u << 20;
	struct cairn_store *store;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "m", 1, SHARD);
	blocks_dump(0, BLOCKS);
	fixture_close(&f);
	assert_int_equal(each_file(f.path, NULL), BLOCKS);
	for (int turn = 0; turn < 2; turn++) {
		assert_int_equal(open_sized(size, &store), -EINVAL);
		assert_int_equal(each_file(f.path, NULL), BLOCKS);
		dirs_age();
	}
	while (open_sized(size, &store) != 0) {
		assert_int_equal(each_file(f.path, NULL), BLOCKS);
		size += 65536;
	}
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
	assert_true(du(f.path) <= size);
	/* The bigger half of the blocks stays where there is room for it. */
	fixture_open(&f, "");
	fixture_space(&f, "m", 1, SHARD);
	assert_int_equal(blocks_known(&f), each_file(f.path, NULL));
	fixture_close(&f);
}

/* ---- files of others ------------------------------------------------------------------- */

static void strangers_count_at_every_open(void **state)
{
	char path[256];
	uint8_t bytes[50000] = {1};
	int fd;

	(void)state;
	fixture_open(&f, "size=8MiB");
	fixture_space(&f, "m", 1, SHARD);
	blocks_dump(0, 40);
	fixture_close(&f);
	for (uint32_t i = 0; i < 4096; i++) {
		snprintf(path, sizeof(path), "%s/b/%03x/stranger", f.path, i);
		fd = open(path, O_WRONLY | O_CREAT, 0666);
		if (fd >= 0)
			break;
	}
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(fsync(fd), 0);
	close(fd);
	for (int turn = 0; turn < 3; turn++) {
		fixture_open(&f, "size=8MiB");
		fixture_space(&f, "m", 1, SHARD);
		assert_int_equal(blocks_known(&f), 40);
		assert_int_equal(bytes_used(&f), du(f.path));
		fixture_close(&f);
	}
}

/* ---- namespaces that were lost --------------------------------------------------------- */

static void space_unlink(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/ns/%s", f.path, name);
	assert_int_equal(unlink(path), 0);
}

static bool space_there(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/ns/%s", f.path, name);
	return access(path, F_OK) == 0;
}

/*
 * A namespace's file, its marker too or not, is gone: blocks of what was cleared,
 * and those of another namespace, stay what they are.
 */
static void ids_are_never_used_again(void **state)
{
	static const char *const options[] = {"", "shared=yes"};

	(void)state;
	for (uint32_t turn = 0; turn < 8; turn++) {
		bool shared = turn & 1, marker = turn & 2, aged = turn & 4;

		fixture_open(&f, options[shared]);
		fixture_space(&f, "m", 1, SHARD);
		blocks_dump(0, 8);
		assert_int_equal(cairn_clear(f.ns, CAIRN_DURABLE), 0);
		fixture_close(&f);
		space_unlink("0");
		if (marker)
			space_unlink("0.g1");
		if (aged)
			dirs_age();
		fixture_open(&f, options[shared]);
		fixture_space(&f, "m", 1, SHARD);
		for (uint32_t i = 0; i < 8; i++) {
			assert_false(present(&f, i));
			assert_int_equal(load_one(&f, i, 0, SHARD), -ENOENT);
		}
		assert_false(space_there("0"));
		assert_true(space_there("1"));
		blocks_dump(0, 8);
		fixture_close(&f);
		fixture_open(&f, options[shared]);
		fixture_space(&f, "m", 1, SHARD);
		for (uint32_t i = 0; i < 8; i++)
			assert_int_equal(load_one(&f, i, 0, SHARD), 0);
		fixture_close(&f);
		fixture_free(&f);
		fixture_new(&f);
	}
}

/* With nothing that names it, the place below one that is known is not taken either. */
static void holes_stay(void **state)
{
	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "one", 1, SHARD);
	cairn_namespace_close(f.ns);
	fixture_space(&f, "two", 1, SHARD);
	fixture_close(&f);
	space_unlink("0");
	fixture_open(&f, "");
	fixture_space(&f, "one", 1, SHARD);
	fixture_close(&f);
	assert_false(space_there("0"));
	assert_true(space_there("2"));
}

/* The marker alone is gone: what was dumped after the clear tells of it, for good. */
static void a_lost_marker_is_made_again(void **state)
{
	(void)state;
	for (int turn = 0; turn < 2; turn++) {
		fixture_open(&f, "");
		fixture_space(&f, "m", 1, SHARD);
		blocks_dump(0, 8);
		assert_int_equal(cairn_clear(f.ns, CAIRN_DURABLE), 0);
		blocks_dump(100, 1);
		fixture_close(&f);
		space_unlink("0.g1");
		if (turn)
			dirs_age();
		fixture_open(&f, "");
		assert_true(space_there("0.g1"));
		fixture_space(&f, "m", 1, SHARD);
		assert_true(present(&f, 100));
		for (uint32_t i = 0; i < 8; i++)
			assert_false(present(&f, i));
		assert_int_equal(bytes_used(&f), du(f.path));
		fixture_close(&f);
		fixture_free(&f);
		fixture_new(&f);
	}
}

/* ---- many namespaces ------------------------------------------------------------------- */

static int space_open(uint32_t number, struct cairn_error *reterr)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .format_version = number,
					    .shard_count = 1,
					    .shard_bytes = SHARD};

	return cairn_namespace_open(f.store, &desc, &f.ns, reterr);
}

static void namespaces_until_the_budget_is_full(void **state)
{
	struct cairn_error error = {0};
	uint32_t count = 0;

	(void)state;
	fixture_open(&f, "size=1MiB");
	while (space_open(count, &error) == 0)
		count++;
	assert_int_equal(error.code, -ENOSPC);
	assert_non_null(strstr(error.text, "size="));
	assert_null(strchr(error.text, '\n'));
	assert_true(count > 100);
	assert_true(du(f.path) <= 1u << 20);
	assert_int_equal(cairn_store_close(f.store, UINT64_MAX), 0);
	fixture_open(&f, "size=1MiB");
	for (uint32_t i = count; i-- > 0;)
		assert_int_equal(space_open(i, &error), 0);
	assert_int_equal(space_open(count, &error), -ENOSPC);
	assert_int_equal(cairn_store_close(f.store, UINT64_MAX), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_refused_open_deletes_nothing), TEST(strangers_count_at_every_open),
		TEST(ids_are_never_used_again),	      TEST(holes_stay),
		TEST(a_lost_marker_is_made_again),    TEST(namespaces_until_the_budget_is_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
