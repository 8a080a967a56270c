/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flash tier on each file system that this machine can make: with O_DIRECT and
 * without, past its size, opened again; where it is copied on write, not for this
 * file; and what an open says of one that is full, or can only be read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h> /* after sys/mount.h: glibc 2.35 has the same names */

#include "kit.h"
#include "loop.h"

#define BYTES (320ull << 20) /* mkfs.xfs makes none below 300 MiB */
#define IDS   150u	     /* more than the store holds */

static const struct kit_shape shape = {3, 50000};

struct rig {
	char folder[128], file[192], mounted[192], path[224], spec[384];
	const char *kind;
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static int try_open(struct rig *rig, const char *options, struct cairn_error *ret_error)
{
	memset(ret_error, 0, sizeof(*ret_error));
	snprintf(rig->spec, sizeof(rig->spec),
		 "store(reactors=1, buffers=8MiB) | flash(path=%s, open_wait=0ms, %s)", rig->path,
		 options);
	return cairn_store_open(rig->spec, NULL, &rig->store, ret_error);
}

static void refused(struct rig *rig, const char *options, int code, const char *text)
{
	struct cairn_error error;
	int ret = try_open(rig, options, &error);

	CHECK(ret == code && error.code == code, "%d: %s", ret, error.text);
	CHECK(strstr(error.text, text) && !strchr(error.text, '\n'), "%s", error.text);
}

static void open_store(struct rig *rig, const char *options)
{
	struct cairn_error error;

	CHECK(try_open(rig, options, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(rig->store, "filesystems", shape, &rig->ns) == 0);
}

static void close_store(struct rig *rig)
{
	CHECK(cairn_store_close(rig->store, UINT64_MAX) == 0);
	CHECK(kit_check(rig->spec) == CAIRN_FINDING_NOTE);
}

/* Each is whole or absent, and the store is not empty for it. */
static void verify(struct rig *rig)
{
	uint32_t there = 0;

	for (uint32_t id = 0; id < IDS; id++) {
		int ret = kit_load(rig->ns, shape, id);

		CHECK(ret == 0 || ret == -ENOENT, "block %u: %d", id, ret);
		there += ret == 0;
	}
	CHECK(there > IDS / 3, "%u of %u", there, IDS);
}

static void use(struct rig *rig, const char *direct)
{
	char options[96];
	struct stat st;

	kit_at("%s, direct=%s", rig->kind, direct);
	kit_watch(60);
	snprintf(options, sizeof(options), "size=16MiB, direct=%s", direct);
	open_store(rig, options);
	CHECK(stat(rig->path, &st) == 0 && st.st_size == 16 << 20);
	for (uint32_t id = 0; id < IDS; id++)
		CHECK(kit_dump(rig->ns, shape, id, 0, shape.shards,
			       id % 10 ? CAIRN_WRITTEN : CAIRN_DURABLE) == 0);
	verify(rig);
	close_store(rig);
	CHECK(stat(rig->path, &st) == 0 && st.st_blocks * 512 <= 17 << 20);
	open_store(rig, options);
	verify(rig);
	close_store(rig);
}

static bool in_place(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), flags = 0;

	CHECK(fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0);
	close(fd);
	return flags & FS_NOCOW_FL;
}

static void put(const char *path, const char *bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, bytes, strlen(bytes)) == (ssize_t)strlen(bytes));
	close(fd);
}

static void use_all(struct rig *rig, bool has_direct)
{
	struct stat st;

	use(rig, "auto");
	if (strcmp(rig->kind, "btrfs") == 0)
		CHECK(in_place(rig->path));
	CHECK(truncate(rig->path, 10 << 20) == 0);
	refused(rig, "direct=auto", -EINVAL, "it was cut short");
	CHECK(unlink(rig->path) == 0);
	use(rig, "no");
	CHECK(unlink(rig->path) == 0);
	if (has_direct)
		use(rig, "yes");
	unlink(rig->path);
	/* Not more than there is; and nothing is left behind. */
	refused(rig, "size=20GiB", -ENOSPC, "free: make room");
	CHECK(stat(rig->path, &st) == 0 && st.st_blocks == 0);
	/* What is somebody else's stays. */
	put(rig->path, "a letter");
	refused(rig, "size=16MiB", -EPROTO, "give format=yes");
	CHECK(stat(rig->path, &st) == 0 && st.st_size == 8);
	open_store(rig, "size=16MiB, format=yes");
	close_store(rig);
}

/* False: there is none of this kind here. */
static bool run(struct rig *rig, const char *kind, uint32_t unit)
{
	struct loop loop;

	rig->kind = kind;
	kit_at("%s", kind);
	kit_watch(60);
	snprintf(rig->file, sizeof(rig->file), "%s/%s-%u", rig->folder, kind, unit);
	loop_open(&loop, rig->file, BYTES, unit, false);
	if (!loop_mkfs(&loop, kind) || loop_mount(&loop, kind, rig->mounted) < 0) {
		printf("filesystems: no %s here\n", kind);
		loop_close(&loop);
		return false;
	}
	use_all(rig, true);
	loop_read_only(rig->mounted);
	refused(rig, "direct=auto", -EROFS, "can only be read");
	loop_unmount(rig->mounted);
	loop_close(&loop);
	printf("filesystems: %s, logical blocks of %u\n", kind, unit);
	return true;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint32_t unit;
	} kinds[] = {{"ext4", 512}, {"ext4", 4096}, {"xfs", 512}, {"btrfs", 4096}};
	struct rig rig = {.kind = "tmpfs"};
	uint32_t missing = 0;

	kit_init(argc, argv);
	if (!loop_can()) {
		printf("skipped: no loop devices here\n");
		return KIT_SKIP;
	}
	kit_folder(rig.folder, sizeof(rig.folder), "filesystems");
	snprintf(rig.mounted, sizeof(rig.mounted), "%s/mounted", rig.folder);
	snprintf(rig.path, sizeof(rig.path), "%s/kv", rig.mounted);
	CHECK(mkdir(rig.mounted, 0700) == 0);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		missing += !run(&rig, kinds[i].name, kinds[i].unit);
	CHECK(mount("tmpfs", rig.mounted, "tmpfs", 0, "size=64m") == 0);
	rig.kind = "tmpfs";
	use_all(&rig, false);
	loop_unmount(rig.mounted);
	kit_remove_folder(rig.folder);
	if (missing)
		printf("skipped: %u of the kinds, the others are sound\n", missing);
	return missing ? KIT_SKIP : 0;
}
