/* SPDX-License-Identifier: Apache-2.0 */
/* A store over one posix tier in a directory of its own, for tests of the tier. */
#ifndef POSIX_STORE_H
#define POSIX_STORE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <cairn/task.h>

struct fixture {
	char path[128];
	char spec[256];
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static inline void remove_tree(const char *path)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf '%s'", path);
	assert_int_equal(system(command), 0);
}

/* st_blocks * 512 of everything below @path and of itself. */
static inline uint64_t du(const char *path)
{
	struct stat st;
	struct dirent *entry;
	uint64_t bytes;
	DIR *dir;

	if (lstat(path, &st) < 0)
		return 0;
	bytes = (uint64_t)st.st_blocks * 512;
	if (!S_ISDIR(st.st_mode))
		return bytes;
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		char below[4096];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		assert_true(snprintf(below, sizeof(below), "%s/%s", path, entry->d_name) <
			    (int)sizeof(below));
		bytes += du(below);
	}
	if (dir)
		closedir(dir);
	return bytes;
}

/* Calls @fn for each block file, temporary ones included; returns how many. */
static inline int each_file(const char *path, void (*fn)(const char *file))
{
	char folder[256];
	struct dirent *dir_entry, *entry;
	int count = 0;
	DIR *top, *dir;

	snprintf(folder, sizeof(folder), "%s/b", path);
	top = opendir(folder);
	while (top && (dir_entry = readdir(top))) {
		char below[1024], file[2048];

		if (dir_entry->d_name[0] == '.')
			continue;
		snprintf(below, sizeof(below), "%s/%s", folder, dir_entry->d_name);
		dir = opendir(below);
		while (dir && (entry = readdir(dir))) {
			if (entry->d_name[0] == '.')
				continue;
			snprintf(file, sizeof(file), "%s/%s", below, entry->d_name);
			count++;
			if (fn)
				fn(file);
		}
		if (dir)
			closedir(dir);
	}
	if (top)
		closedir(top);
	return count;
}

static inline void fixture_open(struct fixture *f, const char *options)
{
	struct cairn_error error = {0};

	snprintf(f->spec, sizeof(f->spec), "store(reactors=2) | posix(path=%s%s%s)", f->path,
		 *options ? ", " : "", options);
	if (cairn_store_open(f->spec, NULL, &f->store, &error) < 0)
		fail_msg("%s: %s", f->spec, error.text);
}

static inline void fixture_space(struct fixture *f, const char *model, uint32_t shards,
				 uint64_t bytes)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = model, .shard_count = shards, .shard_bytes = bytes};
	struct cairn_error error = {0};

	if (cairn_namespace_open(f->store, &desc, &f->ns, &error) < 0)
		fail_msg("%s", error.text);
}

static inline void fixture_close(struct fixture *f)
{
	cairn_namespace_close(f->ns);
	assert_int_equal(cairn_store_close(f->store, UINT64_MAX), 0);
	f->store = NULL;
	f->ns = NULL;
}

static inline void fixture_new(struct fixture *f)
{
	const char *base = getenv("TEST_DIR");

	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s/cairn-posix-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(f->path));
}

static inline void fixture_free(struct fixture *f)
{
	remove_tree(f->path);
}

static inline struct cairn_key key_of(const struct fixture *f, uint32_t number)
{
	struct cairn_key key;

	assert_int_equal(cairn_key_derive(f->ns, &number, sizeof(number), &key), 0);
	return key;
}

/* Content is a function of key and shard. */
static inline void content(const struct cairn_key *key, uint32_t shard, uint8_t *to, size_t bytes)
{
	uint64_t x;

	memcpy(&x, key->bytes, sizeof(x));
	x ^= (shard + 1) * 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < bytes; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		to[i] = (uint8_t)(x >> 56);
	}
}

static inline struct cairn_xfer xfer_of(const struct cairn_key *key, uint32_t shard,
					uint64_t offset, void *base, uint64_t bytes)
{
	struct cairn_xfer xfer = {.key = *key, .shard = shard, .offset = offset, .length = bytes};

	xfer.stride = (struct cairn_stride){base, bytes, bytes, 1};
	return xfer;
}

/* One shard, synchronously: the item's status. */
static inline int dump_one(struct fixture *f, uint32_t number, uint32_t shard, size_t bytes,
			   uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(f, number);
	uint8_t *data = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
	struct cairn_xfer xfer = xfer_of(&key, shard, 0, data, bytes);

	assert_non_null(data);
	content(&key, shard, data, bytes);
	xfer.result.status = 1000;
	cairn_dump(f->ns, &xfer, 1, &opts, NULL);
	free(data);
	return xfer.result.status;
}

/* Loads a part and compares; @skew moves the buffer off its alignment. */
static inline int load_part(struct fixture *f, uint32_t number, uint32_t shard, size_t bytes,
			    uint64_t offset, size_t length, size_t skew)
{
	struct cairn_key key = key_of(f, number);
	uint8_t *want = malloc(bytes);
	uint8_t *block = aligned_alloc(4096, (length + skew + 8191) & ~4095u);
	struct cairn_xfer xfer = xfer_of(&key, shard, offset, block + skew, length);

	assert_true(want && block);
	memset(block, 0xee, length + skew);
	content(&key, shard, want, bytes);
	xfer.result.status = 1000;
	cairn_load(f->ns, &xfer, 1, NULL, NULL);
	if (xfer.result.status == 0)
		assert_memory_equal(block + skew, want + offset, length);
	free(want);
	free(block);
	return xfer.result.status;
}

static inline int load_one(struct fixture *f, uint32_t number, uint32_t shard, size_t bytes)
{
	return load_part(f, number, shard, bytes, 0, bytes, 0);
}

static inline bool present(struct fixture *f, uint32_t number)
{
	struct cairn_key key = key_of(f, number);
	struct cairn_found found;

	memset(&found, 0, sizeof(found));
	return cairn_lookup(f->ns, &key, 1, &found, NULL, NULL) == 1 && found.present;
}

static inline uint64_t counter(struct fixture *f, const char *name);
struct counter_search {
	const char *name;
	uint64_t value;
};
static inline int counter_match(void *context, const struct cairn_counter *counter)
{
	struct counter_search *search = context;

	bool tier = !strcmp(counter->stage, "posix") || !strcmp(counter->stage, "flash");

	if (tier && strcmp(counter->name, search->name) == 0)
		search->value = counter->value;
	return 0;
}
static inline uint64_t counter(struct fixture *f, const char *name)
{
	struct counter_search search = {name, UINT64_MAX};

	cairn_counters(f->store, counter_match, &search);
	assert_int_not_equal(search.value, UINT64_MAX);
	return search.value;
}

static inline uint64_t bytes_used(struct fixture *f)
{
	struct cairn_stat st = {.size = sizeof(st)};

	assert_int_equal(cairn_stat(f->store, &st), 0);
	return st.bytes_used;
}

static inline uint64_t blocks_known(struct fixture *f)
{
	struct cairn_stat st = {.size = sizeof(st)};

	assert_int_equal(cairn_stat(f->store, &st), 0);
	return st.blocks;
}

#endif
