/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage: bits flipped in every byte of a block's head and in its payload, files
 * cut short anywhere, files of other blocks in its place, nothing at all. A load
 * is a miss then, never a wrong byte, and the next dump heals. The same with the
 * files that belong to the store as a whole, at rest: an open works or says in
 * one line why not; lists and checks never crash.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"

#define ID	1u
#define CLEARED 9u

static bool shared; /* the store is opened with shared=yes */
static const struct kit_shape shape = {2, 70000};

/* ---- files ------------------------------------------------------------------------ */

struct bytes {
	uint8_t *at;
	size_t length;
};

static struct bytes read_all(const char *path)
{
	struct bytes bytes = {0};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path, strerror(errno));
	bytes.length = (size_t)st.st_size;
	bytes.at = malloc(bytes.length + 1);
	CHECK(bytes.at && read(fd, bytes.at, bytes.length) == (ssize_t)bytes.length);
	close(fd);
	return bytes;
}

static void write_all(const char *path, const void *at, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	CHECK(write(fd, at, length) == (ssize_t)length);
	close(fd);
}

static void flip(const char *path, size_t offset, uint8_t mask)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
	byte ^= mask;
	CHECK(pwrite(fd, &byte, 1, (off_t)offset) == 1);
	close(fd);
}

static void keep_last(void *context, const char *file)
{
	snprintf(context, 512, "%s", file);
}

/* The one file in b/ of the store at @path. */
static void block_file(const char *path, char ret_file[512])
{
	char blocks[256];

	snprintf(blocks, sizeof(blocks), "%s/b", path);
	ret_file[0] = 0;
	kit_each_file(blocks, keep_last, ret_file);
	CHECK(ret_file[0], "no block in %s", blocks);
}

/* ---- a live store and one block of it -------------------------------------------------- */

struct victim {
	char path[128], spec[512], file[512];
	struct cairn_store *store;
	struct cairn_namespace *ns;
	uint64_t misses, survived;
};

static void open_victim(struct victim *victim, const char *name, const char *model, uint64_t id)
{
	struct cairn_error error = {0};

	memset(victim, 0, sizeof(*victim));
	kit_folder(victim->path, sizeof(victim->path), name);
	snprintf(victim->spec, sizeof(victim->spec),
		 "store(reactors=1, tasks=8, ios=8, buffers=4MiB, engine=%s) | "
		 "posix(path=%s, entries=4096%s)",
		 kit_text("engine", "auto"), victim->path, shared ? ", shared=yes" : "");
	CHECK(cairn_store_open(victim->spec, NULL, &victim->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(victim->store, model, shape, &victim->ns) == 0);
	CHECK(kit_dump(victim->ns, shape, id, 0, shape.shards, CAIRN_WRITTEN) == 0);
	block_file(victim->path, victim->file);
}

static void close_victim(struct victim *victim)
{
	CHECK(cairn_store_close(victim->store, UINT64_MAX) == 0);
}

/* Loads in every way; each is right or a miss. Returns whether all of it was right. */
static bool load_damaged(struct victim *victim, bool must_miss)
{
	uint8_t some[3000];
	struct cairn_segment segment;
	struct cairn_xfer xfer = kit_xfer(ID, 1, &segment, some, sizeof(some));
	int whole, part;

	xfer.offset = 66000;
	part = cairn_load(victim->ns, &xfer, 1, NULL, NULL);
	CHECK(part == 0 || part == -EBADMSG || part == -ENOENT, "load of a part: %d", part);
	CHECK(part != 0 || kit_right(some, sizeof(some), ID, 1, 66000), "wrong bytes");
	whole = kit_load(victim->ns, shape, ID);
	CHECK(whole == 0 || whole == -EBADMSG || whole == -ENOENT, "load: %d", whole);
	CHECK(whole < 0 || !must_miss, "damaged, and loaded");
	victim->misses += whole < 0;
	victim->survived += whole == 0;
	return whole == 0;
}

/* What was damaged is whole again: by a dump, or after a remove and a dump. */
static void heal(struct victim *victim)
{
	int ret = kit_dump(victim->ns, shape, ID, 0, shape.shards, CAIRN_WRITTEN);

	CHECK(ret == 0, "the dump that heals: %d", ret);
	CHECK(kit_load(victim->ns, shape, ID) == 0, "healed, and cannot be loaded");
}

static void replace(struct victim *victim)
{
	struct cairn_key key = kit_key(ID);
	int ret = cairn_remove(victim->ns, &key, 1, NULL, NULL, NULL);

	CHECK(ret == 0 || ret == -ENOENT, "remove: %d", ret);
	heal(victim);
}

static void settle(struct victim *victim, bool must_miss)
{
	if (load_damaged(victim, must_miss))
		replace(victim);
	else
		heal(victim);
}

static void flips(struct victim *victim)
{
	struct bytes good = read_all(victim->file);
	/* The head: all in front of the payload, whose first bytes are known. */
	size_t payload = good.length, step = kit_number("step", kit_sanitized() ? 31 : 5, 1);
	uint8_t first[64];

	kit_fill(first, sizeof(first), ID, 0, 0);
	for (size_t at = 0; at + sizeof(first) <= good.length && payload == good.length; at += 512)
		if (memcmp(good.at + at, first, sizeof(first)) == 0)
			payload = at;
	CHECK(payload < good.length, "the payload was not found");
	for (size_t at = 0; at < payload; at += at < 600 ? 1 : step) {
		kit_at("flip of byte %zu of %zu", at, good.length);
		kit_watch(30);
		flip(victim->file, at, (uint8_t)(1u << at % 8));
		settle(victim, false);
	}
	/* Every piece of the payload; the padding behind a shard is nobody's. */
	for (size_t at = payload; at < payload + 70000; at += at % 65536 < 64 ? 13 : 4099) {
		kit_at("flip of payload byte %zu of %zu", at, good.length);
		kit_watch(30);
		flip(victim->file, at, 0x40);
		settle(victim, true);
	}
	free(good.at);
}

static void cuts(struct victim *victim)
{
	struct bytes good = read_all(victim->file);
	size_t step = kit_number("cut", kit_sanitized() ? 4096 : 1024, 512);

	for (size_t at = 0; at < good.length; at += step) {
		for (size_t off = 0; off < 3; off++) {
			/* One before, at, and behind each border. */
			size_t length = at + off < 1 ? 0 : at + off - 1;

			kit_at("cut to %zu of %zu", length, good.length);
			kit_watch(30);
			CHECK(truncate(victim->file, (off_t)length) == 0);
			/* What is cut may be padding only. */
			settle(victim, length + 4096 < good.length);
		}
	}
	CHECK(unlink(victim->file) == 0);
	settle(victim, true);
	write_all(victim->file, good.at, 0);
	settle(victim, true);
	free(good.at);
}

/* The file of another block, of the same key in another namespace, or garbage. */
static void strangers(struct victim *victim)
{
	static const struct {
		const char *model;
		uint64_t id;
	} others[] = {{"flip", 2}, {"other", ID}, {"other", 3}};
	struct kit_rng rng = {9};
	uint8_t garbage[20000];

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct victim other;
		struct bytes bytes;

		kit_at("stranger %zu", i);
		/* Its namespace gets another id when one is there before it. */
		open_victim(&other, "flip-other", others[i].model, others[i].id);
		bytes = read_all(other.file);
		write_all(victim->file, bytes.at, bytes.length);
		/* Without the namespace's id only the key tells them apart. */
		if (others[i].id != ID)
			settle(victim, true);
		else
			settle(victim, false);
		free(bytes.at);
		close_victim(&other);
		kit_remove_folder(other.path);
	}
	for (size_t i = 0; i < sizeof(garbage); i++)
		garbage[i] = (uint8_t)kit_next(&rng);
	write_all(victim->file, garbage, sizeof(garbage));
	settle(victim, true);
	memset(garbage, 0, sizeof(garbage));
	write_all(victim->file, garbage, sizeof(garbage));
	settle(victim, true);
}

/* Two namespaces of one store: the files of one key change places. */
static void swapped(struct victim *victim)
{
	struct cairn_namespace *second;
	char files[2][512];
	struct bytes bytes[2];

	kit_at("swapped namespaces");
	CHECK(kit_namespace(victim->store, "second", shape, &second) == 0);
	snprintf(files[0], sizeof(files[0]), "%s", victim->file);
	bytes[0] = read_all(files[0]);
	CHECK(unlink(files[0]) == 0);
	CHECK(kit_dump(second, shape, ID, 0, shape.shards, CAIRN_WRITTEN) == 0);
	block_file(victim->path, files[1]);
	bytes[1] = read_all(files[1]);
	CHECK(strcmp(files[0], files[1]) != 0);
	write_all(files[0], bytes[1].at, bytes[1].length);
	write_all(files[1], bytes[0].at, bytes[0].length);
	CHECK(kit_load(second, shape, ID) < 0, "another namespace's block was loaded");
	settle(victim, true);
	free(bytes[0].at);
	free(bytes[1].at);
}

/* ---- the store's own files, at rest ------------------------------------------------------- */

#define FILES_MAX 64

struct copy {
	char root[128];
	struct {
		char path[256];
		struct bytes bytes;
	} files[FILES_MAX];
	size_t count;
};

static void keep(void *context, const char *file)
{
	struct copy *copy = context;

	CHECK(copy->count < FILES_MAX);
	snprintf(copy->files[copy->count].path, sizeof(copy->files[0].path), "%s", file);
	copy->files[copy->count++].bytes = read_all(file);
}

static void make_parents(const char *file, const char *root)
{
	char path[256];

	snprintf(path, sizeof(path), "%s", file);
	mkdir(root, 0700);
	for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); at++) {
		*at = 0;
		mkdir(path, 0700);
		*at = '/';
	}
}

static void restore(const struct copy *copy)
{
	kit_remove_folder(copy->root);
	for (size_t i = 0; i < copy->count; i++) {
		make_parents(copy->files[i].path, copy->root);
		write_all(copy->files[i].path, copy->files[i].bytes.at,
			  copy->files[i].bytes.length);
	}
}

static int look_at(void *context, const struct cairn_listed *block)
{
	(void)context;
	CHECK(block->shard_count <= CAIRN_SHARD_COUNT_MAX);
	CHECK(!block->desc || !block->desc->model || strlen(block->desc->model) <= CAIRN_NAME_MAX);
	return 0;
}

/* The store at rest was damaged. True: it opened. */
static bool open_damaged(const char *spec)
{
	struct cairn_error error = {0};
	struct cairn_store *store = NULL;
	struct cairn_namespace *ns;
	int64_t listed;
	int ret;

	listed = cairn_list(spec, NULL, look_at, NULL, NULL, &error);
	CHECK(listed >= 0 || (error.text[0] && !strchr(error.text, '\n')));
	CHECK(kit_check(spec) >= -4095);
	memset(&error, 0, sizeof(error));
	ret = cairn_store_open(spec, NULL, &store, &error);
	if (ret < 0) {
		CHECK(error.code == ret && error.text[0] && !strchr(error.text, '\n'), "%d \"%s\"",
		      ret, error.text);
		return false;
	}
	ret = kit_namespace(store, "flip", shape, &ns);
	CHECK(ret < 0 || kit_load(ns, shape, CLEARED) == -ENOENT, "what was cleared came back");
	CHECK(ret == 0 || ret == -EPROTO || ret == -EIO, "namespace: %d", ret);
	for (uint64_t id = 1; ret == 0 && id < 4; id++) {
		int got = kit_load(ns, shape, id);

		CHECK(got == 0 || got == -ENOENT || got == -EBADMSG, "load: %d", got);
		got = kit_dump(ns, shape, id, 0, shape.shards, CAIRN_WRITTEN);
		CHECK(got >= 0, "dump: %d", got);
		CHECK(kit_load(ns, shape, id) == 0);
	}
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	return true;
}

static bool is_block(const struct copy *copy, size_t i)
{
	return strncmp(copy->files[i].path + strlen(copy->root), "/b/", 3) == 0;
}

static void damage_file(struct copy *copy, size_t i, const char *spec, uint64_t *ret_opened,
			uint64_t *ret_refused)
{
	const char *file = copy->files[i].path;
	size_t length = copy->files[i].bytes.length;
	size_t step = kit_number("rest", kit_sanitized() ? 211 : 37, 1);

	for (size_t at = i % step; at<length; at += at % 4096> 600 ? step * 20 + 1 : step) {
		kit_at("flip of byte %zu of %s", at, file);
		kit_watch(30);
		restore(copy);
		flip(file, at, (uint8_t)(1u << at % 8));
		open_damaged(spec) ? (*ret_opened)++ : (*ret_refused)++;
	}
	for (size_t at = 0; at < length; at += length / 5 + 1) {
		kit_at("%s cut to %zu", file, at);
		kit_watch(30);
		restore(copy);
		CHECK(truncate(file, (off_t)at) == 0);
		open_damaged(spec) ? (*ret_opened)++ : (*ret_refused)++;
	}
	kit_at("%s is missing", file);
	restore(copy);
	CHECK(unlink(file) == 0);
	open_damaged(spec) ? (*ret_opened)++ : (*ret_refused)++;
}

static void at_rest(void)
{
	uint64_t opened = 0, refused = 0;
	struct victim victim;
	struct copy *copy = calloc(1, sizeof(*copy));

	CHECK(copy);
	open_victim(&victim, "flip-rest", "flip", CLEARED);
	CHECK(cairn_clear(victim.ns, CAIRN_WRITTEN) == 0);
	CHECK(kit_dump(victim.ns, shape, 1, 0, shape.shards, CAIRN_WRITTEN) == 0);
	CHECK(kit_dump(victim.ns, shape, 2, 0, shape.shards, CAIRN_WRITTEN) == 0);
	CHECK(kit_dump(victim.ns, shape, 3, 0, 1, CAIRN_WRITTEN) == 0);
	close_victim(&victim);
	snprintf(copy->root, sizeof(copy->root), "%s", victim.path);
	kit_each_file(victim.path, keep, copy);
	restore(copy);
	CHECK(open_damaged(victim.spec), "what was copied does not open");
	for (size_t i = 0; i < copy->count; i++)
		if (!is_block(copy, i))
			damage_file(copy, i, victim.spec, &opened, &refused);
	printf("flip: %lu damaged stores opened, %lu were refused\n", (unsigned long)opened,
	       (unsigned long)refused);
	for (size_t i = 0; i < copy->count; i++)
		free(copy->files[i].bytes.at);
	free(copy);
	kit_remove_folder(victim.path);
}

static void live(void)
{
	struct victim victim;

	open_victim(&victim, "flip", "flip", ID);
	flips(&victim);
	cuts(&victim);
	strangers(&victim);
	swapped(&victim);
	CHECK(kit_counter(victim.store, "posix", "damaged_blocks") > 0);
	close_victim(&victim);
	kit_remove_folder(victim.path);
	printf("flip: shared=%s: %lu misses, %lu times nothing that counts was hit\n",
	       shared ? "yes" : "no", (unsigned long)victim.misses, (unsigned long)victim.survived);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	live();
	at_rest();
	shared = true;
	live();
	return 0;
}
