/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that begin with a cache, and blocks of one shard each, of a length that a test says. */
#ifndef TESTS_UNIT_BLOCK_SHOP_H
#define TESTS_UNIT_BLOCK_SHOP_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cairn/pin.h>

#include "counted.h"
#include "shop.h"
#include "stages/cache/layout.h"

#define SPEC_MAX   512u
#define PATH_SIZE  160u
#define QUIESCE_NS 10000000000u /* of what is late: it must end soon */

static char region[64]; /* each test has its own */

static bool shm_is_small(void)
{
	struct statvfs fs;

	return statvfs("/dev/shm", &fs) < 0 || fs.f_bavail * fs.f_frsize < 320u << 20;
}

static int new_region(void **state)
{
	static uint32_t tests;

	(void)state;
	snprintf(region, sizeof(region), "shop-%d-%u", (int)getpid(), tests++);
	return 0;
}

/* Also of a test that failed. */
static int old_region(void **state)
{
	char command[SPEC_MAX];

	(void)state;
	snprintf(command, sizeof(command), "rm -f /dev/shm/cairn-cache-*-%s*", region);
	return system(command);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, new_region, old_region)

static inline void file_of(const char *name, char ret_path[PATH_SIZE])
{
	snprintf(ret_path, PATH_SIZE, "/dev/shm/cairn-cache-%u-%s", geteuid(), name);
}

static inline uint8_t *map_file(const char *name, size_t *ret_bytes)
{
	char path[PATH_SIZE];
	struct stat st;
	void *ret;
	int fd;

	file_of(name, path);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*ret_bytes = (size_t)st.st_size;
	ret = mmap(NULL, *ret_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(ret != MAP_FAILED);
	close(fd);
	return ret;
}

/* Inverts the byte @at of a block's, where they lie in the region. */
static inline void damage_key(const struct cairn_key *key, uint64_t length, uint64_t at)
{
	uint8_t *want = malloc(length);
	size_t bytes;
	uint8_t *file = map_file(region, &bytes);
	const struct cache_header *header = (const struct cache_header *)(void *)file;
	uint64_t found = header->payload_at;

	assert_non_null(want);
	content_of(key, 0, want, length);
	while (found + length <= bytes && memcmp(file + found, want, length) != 0)
		found += CACHE_UNIT;
	assert_true(found + length <= bytes);
	file[found + at] ^= 0xff;
	munmap(file, bytes);
	free(want);
}

static int shop_try(struct shop *shop, const char *spec, const struct cairn_store_opts *opts,
		    uint64_t bytes, struct cairn_error *reterr)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = bytes};
	int ret = cairn_store_open(spec, opts, &shop->store, reterr);

	if (ret == 0)
		ret = cairn_namespace_open(shop->store, &desc, &shop->ns, reterr);
	return ret;
}

/* With @options, under the region's name, over @below: "", or " | " and stages. */
static void shop_open(struct shop *shop, const char *options, const char *below, uint64_t bytes)
{
	struct cairn_error error = {0};
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(%s, name=%s)%s", options, region, below);
	if (shop_try(shop, spec, NULL, bytes, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
}

static struct cairn_xfer xfer_of(const struct shop *shop, uint32_t number, void *memory,
				 uint64_t bytes)
{
	return (struct cairn_xfer){
		.key = key_of(shop, number),
		.length = bytes,
		.stride = {.base = memory, .run = bytes, .stride = bytes, .count = 1},
	};
}

/* Late or not, nothing touches the memory any more when it is freed. */
static void give_back(const struct shop *shop, void *memory)
{
	assert_int_equal(cairn_store_quiesce(shop->store, QUIESCE_NS), 0);
	free(memory);
}

/* What the result says. */
static int dump_until(const struct shop *shop, uint32_t number, uint64_t bytes,
		      uint64_t deadline_ns)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = deadline_ns};
	uint8_t *memory = malloc(bytes);
	struct cairn_xfer xfer = xfer_of(shop, number, memory, bytes);

	assert_non_null(memory);
	content_of(&xfer.key, 0, memory, bytes);
	cairn_dump(shop->ns, &xfer, 1, &opts, NULL);
	give_back(shop, memory);
	return xfer.result.status;
}

static inline int dump(const struct shop *shop, uint32_t number, uint64_t bytes)
{
	return dump_until(shop, number, bytes, CAIRN_DEADLINE_NONE);
}

static bool is_content(const struct shop *shop, uint32_t number, const void *bytes, uint64_t length)
{
	struct cairn_key key = key_of(shop, number);
	uint8_t *want = malloc(length);
	bool ret;

	assert_non_null(want);
	content_of(&key, 0, want, length);
	ret = memcmp(want, bytes, length) == 0;
	free(want);
	return ret;
}

/* 0 with the right bytes, or an error; wrong bytes fail the test. */
static inline int load(const struct shop *shop, uint32_t number, uint64_t bytes)
{
	uint8_t *memory = calloc(1, bytes);
	struct cairn_xfer xfer = xfer_of(shop, number, memory, bytes);

	assert_non_null(memory);
	cairn_load(shop->ns, &xfer, 1, NULL, NULL);
	if (xfer.result.status == 0)
		assert_true(is_content(shop, number, memory, bytes));
	give_back(shop, memory);
	return xfer.result.status;
}

/* In this memory, whatever is below. */
static bool in_memory(const struct shop *shop, uint32_t number)
{
	struct cairn_key key = key_of(shop, number);
	struct cairn_pinned pinned;

	if (cairn_pin(shop->ns, &key, 0, &pinned) < 0)
		return false;
	assert_int_equal(cairn_unpin(shop->store, pinned.pin), 0);
	return true;
}

static uint64_t counted(const struct shop *shop, const char *name)
{
	return counted_of(shop->store, "cache", name);
}

#endif
