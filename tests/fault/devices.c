/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flash tier on a block device: what it takes from the device, whom it keeps out,
 * and that it never overwrites what is not its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"
#include "loop.h"

#define BYTES (24u << 20)
#define EDGE  (1u << 20)
#define IDS   40u

static const struct kit_shape shape = {3, 50000};

struct rig {
	char folder[128], file[192], mounted[192], spec[256];
	uint32_t unit;
	struct loop loop;
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static int try_open(struct rig *rig, const char *options, struct cairn_error *ret_error)
{
	memset(ret_error, 0, sizeof(*ret_error));
	snprintf(rig->spec, sizeof(rig->spec),
		 "store(reactors=1, buffers=8MiB) | flash(path=%s, open_wait=0ms%s)",
		 rig->loop.path, options);
	return cairn_store_open(rig->spec, NULL, &rig->store, ret_error);
}

static void open_store(struct rig *rig, const char *options)
{
	struct cairn_error error;

	CHECK(try_open(rig, options, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(rig->store, "devices", shape, &rig->ns) == 0);
}

static void close_store(struct rig *rig)
{
	CHECK(cairn_store_close(rig->store, UINT64_MAX) == 0);
	CHECK(kit_check(rig->spec) == CAIRN_FINDING_NOTE);
}

/* It is not opened, for the reason told in one line. */
static void not_opened(struct rig *rig, const char *options, int code, const char *text)
{
	struct cairn_error error;
	int ret = try_open(rig, options, &error);

	CHECK(ret == code && error.code == code, "%d: %s", ret, error.text);
	CHECK(strstr(error.text, text) && !strchr(error.text, '\n'), "%s", error.text);
}

/* Nor is a byte of it written. */
static void refused(struct rig *rig, const char *options, int code, const char *text)
{
	uint8_t *before = malloc(2 * EDGE), *after = malloc(2 * EDGE);

	CHECK(before && after);
	CHECK(pread(rig->loop.fd, before, EDGE, 0) == EDGE);
	CHECK(pread(rig->loop.fd, before + EDGE, EDGE, BYTES - EDGE) == EDGE);
	not_opened(rig, options, code, text);
	CHECK(pread(rig->loop.fd, after, EDGE, 0) == EDGE);
	CHECK(pread(rig->loop.fd, after + EDGE, EDGE, BYTES - EDGE) == EDGE);
	CHECK(memcmp(before, after, 2 * EDGE) == 0);
	free(before);
	free(after);
}

static void fill(struct rig *rig, uint32_t first)
{
	for (uint32_t id = first; id < first + IDS; id++)
		CHECK(kit_dump(rig->ns, shape, id, 0, shape.shards, CAIRN_DURABLE) == 0);
}

static void verify(struct rig *rig, uint32_t first)
{
	for (uint32_t id = first; id < first + IDS; id++)
		CHECK(kit_load(rig->ns, shape, id) == 0, "block %u", id);
}

static void put(struct rig *rig, const char *bytes, size_t length, uint64_t at)
{
	CHECK(pwrite(rig->loop.fd, bytes, length, (off_t)at) == (ssize_t)length);
	CHECK(fsync(rig->loop.fd) == 0);
}

static void zero(struct rig *rig, uint64_t at, size_t length)
{
	char *zeros = calloc(1, length);

	CHECK(zeros);
	put(rig, zeros, length, at);
	free(zeros);
}

/* A fresh device: all of it is taken, and kept for one owner. */
static void one_owner(struct rig *rig)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_error error;
	struct cairn_store *first;
	int fd;

	refused(rig, ", size=25MiB", -EINVAL, "size= is more than the 25165824 bytes");
	open_store(rig, "");
	CHECK(cairn_stat(rig->store, &st) == 0 && st.bytes_limit == BYTES);
	fill(rig, 0);
	first = rig->store;
	CHECK(try_open(rig, "", &error) == -EBUSY);
	CHECK(strstr(error.text, "this process has it open already"), "%s", error.text);
	rig->store = first;
	fd = open(rig->loop.path, O_RDWR | O_EXCL | O_CLOEXEC); /* as mount and mkfs do */
	CHECK(fd < 0 && errno == EBUSY);
	close_store(rig);
	open_store(rig, ", size=24MiB");
	verify(rig, 0);
	close_store(rig);
	refused(rig, ", size=16MiB", -EINVAL, "was made with size=25165824");
	refused(rig, ", region=2MiB", -EINVAL, "was made with region=");
	/* Format or not: a store that is there is opened. */
	open_store(rig, ", format=yes, direct=no");
	verify(rig, 0);
	close_store(rig);
}

/* A store whose superblock is lost is not foreign; what is left of an older one is nothing. */
static void older_stores(struct rig *rig)
{
	struct cairn_stat st = {.size = sizeof(st)};

	put(rig, "CAIRNFLS", 8, 0);
	zero(rig, 8, 4088);
	put(rig, "CAIRNFLS", 8, 4096);
	zero(rig, 4104, 4088);
	refused(rig, ", format=yes", -EPROTO, "neither copy of whose superblock checks");
	zero(rig, 0, 8192);
	refused(rig, "", -EPROTO, "a store without a superblock");
	zero(rig, 0, EDGE);
	zero(rig, BYTES - EDGE, EDGE);
	open_store(rig, "");
	CHECK(cairn_stat(rig->store, &st) == 0 && st.blocks == 0);
	fill(rig, 100);
	close_store(rig);
	open_store(rig, "");
	verify(rig, 100);
	CHECK(kit_load(rig->ns, shape, 0) == -ENOENT);
	close_store(rig);
}

static void foreign(struct rig *rig)
{
	zero(rig, 0, EDGE);
	zero(rig, BYTES - EDGE, EDGE);
	put(rig, "EFI PART", 8, BYTES - 512);
	refused(rig, "", -EPROTO, "near its end");
	put(rig, "EFI PART", 8, 512);
	refused(rig, "", -EPROTO, "holds a partition table");
	if (loop_mkfs(&rig->loop, "ext4")) {
		refused(rig, "", -EPROTO, "holds an ext2, ext3 or ext4 file system");
		CHECK(loop_mount(&rig->loop, "ext4", rig->mounted) == 0);
		not_opened(rig, ", format=yes", -EBUSY, "is mounted");
		loop_unmount(rig->mounted);
	}
	open_store(rig, ", format=yes, size=16MiB");
	fill(rig, 200);
	close_store(rig);
	open_store(rig, "");
	verify(rig, 200);
	close_store(rig);
	CHECK(loop_mount(&rig->loop, "ext4", rig->mounted) < 0);
}

static int heed_not(void *context, const struct cairn_finding *finding)
{
	(void)context;
	(void)finding;
	return 0;
}

static void run(struct rig *rig)
{
	struct loop other;

	kit_at("logical blocks of %u", rig->unit);
	kit_watch(60);
	snprintf(rig->file, sizeof(rig->file), "%s/device-%u", rig->folder, rig->unit);
	loop_open(&rig->loop, rig->file, BYTES, rig->unit, false);
	one_owner(rig);
	older_stores(rig);
	foreign(rig);
	loop_close(&rig->loop);
	/* Larger than the device that it is on now. */
	other = rig->loop;
	loop_open(&rig->loop, rig->file, 8u << 20, rig->unit, false);
	not_opened(rig, "", -EINVAL, "it was cut short");
	CHECK(cairn_check(rig->spec, NULL, heed_not, NULL, NULL) == CAIRN_FINDING_DAMAGED);
	CHECK(cairn_repair(rig->spec, NULL, heed_not, NULL, NULL) == CAIRN_FINDING_DAMAGED);
	loop_close(&rig->loop);
	rig->loop = other;
	loop_open(&rig->loop, rig->file, BYTES, rig->unit, true);
	refused(rig, "", -EROFS, "can only be read");
	loop_close(&rig->loop);
	printf("devices: logical blocks of %u bytes\n", rig->unit);
}

int main(int argc, char **argv)
{
	struct rig rig = {.unit = 512};

	kit_init(argc, argv);
	if (!loop_can()) {
		printf("skipped: no loop devices here\n");
		return KIT_SKIP;
	}
	kit_folder(rig.folder, sizeof(rig.folder), "devices");
	snprintf(rig.mounted, sizeof(rig.mounted), "%s/mounted", rig.folder);
	CHECK(mkdir(rig.mounted, 0700) == 0);
	run(&rig);
	rig.unit = 4096;
	run(&rig);
	kit_remove_folder(rig.folder);
	return 0;
}
