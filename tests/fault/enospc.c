/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file system that is full, a small tmpfs of its own: what does not fit ends
 * -ENOSPC and nothing else happens, and when there is room again dumps work.
 * Unbounded, with a budget larger than the disk, and with somebody else's bytes
 * on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kit.h"

#define DISK	   (8u << 20)
#define DISK_TEXT  "size=8m"
#define FLOOR	   (1u << 20)
#define FLOOR_TEXT ", min_free=1MiB"
#define IDS	   120u

static const struct kit_shape shape = {3, 50000};
static bool there[IDS];

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t ignored;

	if (fd < 0)
		return;
	ignored = write(fd, text, strlen(text));
	(void)ignored;
	close(fd);
}

/* A mount of our own: as root, or as root of a user namespace. */
static bool mount_disk(const char *path)
{
	char map[64];
	unsigned uid = getuid(), gid = getgid();

	if (unshare(CLONE_NEWNS) < 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			return false;
		write_text("/proc/self/setgroups", "deny");
		snprintf(map, sizeof(map), "0 %u 1", uid);
		write_text("/proc/self/uid_map", map);
		snprintf(map, sizeof(map), "0 %u 1", gid);
		write_text("/proc/self/gid_map", map);
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	return mount("tmpfs", path, "tmpfs", 0, DISK_TEXT) == 0;
}

struct full {
	char path[256], spec[512];
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static void open_full(struct full *full)
{
	struct cairn_error error = {0};

	CHECK(cairn_store_open(full->spec, NULL, &full->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(full->store, "enospc", shape, &full->ns) == 0);
}

static void close_full(struct full *full)
{
	CHECK(cairn_store_close(full->store, UINT64_MAX) == 0);
}

/* Dumps @count blocks; returns how many were taken. */
static uint32_t fill(struct full *full, uint32_t first, uint32_t count)
{
	uint32_t taken = 0;

	for (uint32_t id = first; id < first + count; id++) {
		int ret = kit_dump(full->ns, shape, id, 0, shape.shards, CAIRN_WRITTEN);

		CHECK(ret == 0 || ret == -ENOSPC, "dump of %u: %d", id, ret);
		CHECK((ret == 0) == kit_present(full->ns, id));
		there[id] = ret == 0;
		taken += ret == 0;
	}
	return taken;
}

/* Evicted ones may be missing, nothing else. */
static void verify(struct full *full, uint64_t evicted)
{
	uint64_t missing = 0;

	for (uint32_t id = 0; id < IDS; id++) {
		int ret = kit_load(full->ns, shape, id);

		CHECK(ret == 0 || ret == -ENOENT, "block %u: %d", id, ret);
		CHECK(there[id] || ret == -ENOENT, "block %u was refused, and is there", id);
		missing += there[id] && ret < 0;
	}
	CHECK(missing <= evicted, "%lu are missing, %lu were evicted", (unsigned long)missing,
	      (unsigned long)evicted);
}

static void remove_all(struct full *full)
{
	for (uint32_t id = 0; id < IDS; id++) {
		struct cairn_key key = kit_key(id);
		int ret = cairn_remove(full->ns, &key, 1, NULL, NULL, NULL);

		CHECK(ret == 0 || ret == -ENOENT, "remove of %u on a full disk: %d", id, ret);
		there[id] = false;
	}
}

static uint64_t evicted(struct full *full)
{
	return kit_counter(full->store, "posix", "evicted_blocks");
}

/* Fills the disk down to min_free=, and never below. */
static void fill_to_floor(struct full *full)
{
	struct statvfs st;

	for (uint32_t id = 0; id < IDS / 2; id++) {
		CHECK(fill(full, id, 1) == 1);
		CHECK(statvfs(full->path, &st) == 0);
		CHECK((uint64_t)st.f_bavail * st.f_frsize >= FLOOR, "%lu bytes are free after %u",
		      (unsigned long)(st.f_bavail * st.f_frsize), id);
	}
	CHECK(evicted(full) > 0);
}

/* Somebody else takes all that is left; returns the file to unlink. */
static void take_the_rest(const char *path, char *ret_file, size_t bytes)
{
	static uint8_t zeros[65536];
	int fd;

	snprintf(ret_file, bytes, "%s-other", path);
	fd = open(ret_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	for (size_t n = sizeof(zeros); n >= 512; n /= 2)
		while (write(fd, zeros, n) > 0)
			;
	close(fd);
}

static void run(const char *disk, const char *engine, const char *more)
{
	struct full full;
	char other[300];
	uint64_t gone;

	kit_at("engine=%s%s", engine, more);
	kit_watch(60);
	snprintf(full.path, sizeof(full.path), "%s/store", disk);
	snprintf(full.spec, sizeof(full.spec),
		 "store(engine=%s, reactors=1, buffers=4MiB) | posix(path=%s, entries=8192%s)",
		 engine, full.path, more);
	memset(there, 0, sizeof(there));
	open_full(&full);
	if (strcmp(more, FLOOR_TEXT) == 0)
		fill_to_floor(&full);
	else
		CHECK(fill(&full, 0, IDS / 2) > 20);
	verify(&full, evicted(&full));
	gone = evicted(&full);
	close_full(&full);
	/* A full disk at the open: what is there can be read and removed. */
	take_the_rest(full.path, other, sizeof(other));
	open_full(&full);
	verify(&full, gone + evicted(&full));
	fill(&full, IDS / 2, 5);
	verify(&full, gone + evicted(&full));
	remove_all(&full);
	CHECK(unlink(other) == 0);
	CHECK(fill(&full, 0, 20) == 20);
	verify(&full, 0);
	/* No room for anything, at work. */
	remove_all(&full);
	take_the_rest(full.path, other, sizeof(other));
	CHECK(fill(&full, 0, 3) == 0);
	CHECK(unlink(other) == 0);
	CHECK(fill(&full, 0, 3) == 3);
	verify(&full, 0);
	close_full(&full);
	CHECK(kit_check(full.spec) == CAIRN_FINDING_NOTE);
	kit_remove_folder(full.path);
	printf("enospc: engine %s%s\n", engine, more);
}

/* Blocks that are never finished fill the disk: the oldest go for what comes after them. */
static void run_unfinished(const char *disk, const char *engine)
{
	struct full full;

	kit_at("unfinished, engine=%s", engine);
	kit_watch(60);
	memset(there, 0, sizeof(there));
	snprintf(full.path, sizeof(full.path), "%s/store", disk);
	snprintf(full.spec, sizeof(full.spec),
		 "store(engine=%s, reactors=1, buffers=4MiB) | posix(path=%s, entries=8192)",
		 engine, full.path);
	open_full(&full);
	for (uint32_t id = IDS; id < IDS + 2 * DISK / shape.shard_bytes; id++)
		CHECK(kit_dump(full.ns, shape, id, 0, 1, CAIRN_WRITTEN) == 0, "dump of %u", id);
	CHECK(kit_counter(full.store, "posix", "partials_dropped") > 0);
	CHECK(fill(&full, 0, 20) == 20);
	verify(&full, evicted(&full));
	close_full(&full);
	CHECK(kit_check(full.spec) == CAIRN_FINDING_NOTE);
	kit_remove_folder(full.path);
	printf("enospc: unfinished, engine %s\n", engine);
}

static void say(struct full *full, const char *engine, const char *size)
{
	char tier[400];

	snprintf(tier, sizeof(tier), "flash(path=%s, entries=8192, size=%s, region=64KiB)",
		 full->path, size);
	snprintf(full->spec, sizeof(full->spec), "store(engine=%s, reactors=1, buffers=4MiB) | %s",
		 engine, tier);
}

/* The file at @path, but for its pages of zeros, which take no room. */
static void copy_sparse(const char *path, const char *copy)
{
	static const uint8_t zeros[4096];
	int from = open(path, O_RDONLY | O_CLOEXEC);
	int to = open(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	uint8_t page[4096];
	off_t at = 0;

	CHECK(from >= 0 && to >= 0);
	for (; read(from, page, sizeof(page)) == sizeof(page); at += (off_t)sizeof(page))
		if (memcmp(page, zeros, sizeof(page)) != 0)
			CHECK(pwrite(to, page, sizeof(page), at) == sizeof(page));
	CHECK(ftruncate(to, at) == 0);
	close(from);
	close(to);
}

/* Takes @path away; a ring that had it open goes in its own time, and its room only then. */
static void take_away(const char *path, const char *disk)
{
	struct statvfs before, st;

	CHECK(statvfs(disk, &before) == 0 && unlink(path) == 0);
	do
		CHECK(usleep(1000) == 0 && statvfs(disk, &st) == 0);
	while (st.f_bfree < before.f_bfree + (7u << 20) / st.f_frsize);
}

/* A copy with holes, whose room is not there: nothing of it is opened before it is. */
static void copy_waits_for_room(struct full *full, const char *engine, const char *disk)
{
	struct cairn_error error = {0};
	char first[256];
	uint64_t before;

	snprintf(first, sizeof(first), "%s", full->path);
	snprintf(full->path, sizeof(full->path), "%s/copy", disk);
	copy_sparse(first, full->path);
	before = kit_du(disk);
	say(full, engine, "8MiB");
	CHECK(cairn_store_open(full->spec, NULL, &full->store, &error) == -ENOSPC);
	CHECK(error.code == -ENOSPC && strstr(error.text, full->path) &&
		      strstr(error.text, "8388608 bytes do not go on its file system") &&
		      !strchr(error.text, '\n'),
	      "%s", error.text);
	CHECK(kit_du(disk) == before);
	take_away(first, disk);
	open_full(full);
	verify(full, 0);
	close_full(full);
	take_away(full->path, disk);
	snprintf(full->path, sizeof(full->path), "%s", first);
	say(full, engine, "8MiB");
}

/*
 * A file that is taken whole when it is made: it does not fit, and says so; or it fits,
 * and then a full disk is nothing to it.
 */
static void run_flash(const char *disk, const char *engine)
{
	struct cairn_error error = {0};
	struct full full;
	char other[300];

	kit_at("flash, engine=%s", engine);
	kit_watch(60);
	memset(there, 0, sizeof(there));
	snprintf(full.path, sizeof(full.path), "%s/store", disk);
	say(&full, engine, "64MiB");
	CHECK(cairn_store_open(full.spec, NULL, &full.store, &error) == -ENOSPC);
	CHECK(strstr(error.text, full.path) && strstr(error.text, "size=") &&
		      !strchr(error.text, '\n'),
	      "%s", error.text);
	CHECK(kit_du(disk) < DISK / 4, "what was refused takes %lu bytes",
	      (unsigned long)kit_du(disk));
	say(&full, engine, "8MiB");
	open_full(&full);
	CHECK(fill(&full, 0, 3) == 3);
	close_full(&full);
	copy_waits_for_room(&full, engine, disk);
	memset(there, 0, sizeof(there));
	open_full(&full);
	take_the_rest(full.path, other, sizeof(other));
	for (uint32_t i = 0; i < 3; i++) {
		CHECK(fill(&full, 0, IDS) == IDS);
		verify(&full, kit_counter(full.store, "flash", "evicted_blocks"));
		remove_all(&full);
	}
	CHECK(fill(&full, 0, 20) == 20);
	close_full(&full);
	open_full(&full);
	verify(&full, 0);
	close_full(&full);
	CHECK(kit_check(full.spec) == CAIRN_FINDING_NOTE);
	CHECK(unlink(other) == 0 && unlink(full.path) == 0);
	printf("enospc: flash, engine %s\n", engine);
}

int main(int argc, char **argv)
{
	static const char *const engines[] = {"psync", "aio", "uring"};
	char disk[128];

	kit_init(argc, argv);
	kit_folder(disk, sizeof(disk), "enospc");
	if (!mount_disk(disk)) {
		printf("skipped: no mount of a small tmpfs here: %s\n", strerror(errno));
		rmdir(disk);
		return KIT_SKIP;
	}
	for (size_t e = 0; e < 3; e++) {
		if (!kit_engine(engines[e]))
			continue;
		run(disk, engines[e], "");
		run(disk, engines[e], ", size=64MiB");
		run(disk, engines[e], FLOOR_TEXT);
		run_unfinished(disk, engines[e]);
	}
	/* The least that a store of flash takes, and some more. */
	CHECK(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, "size=9m") == 0);
	for (size_t e = 0; e < 3; e++)
		if (kit_engine(engines[e]))
			run_flash(disk, engines[e]);
	CHECK(umount2(disk, MNT_DETACH) == 0);
	rmdir(disk);
	return 0;
}
