/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A /dev/shm that is too small for a cache is refused with one line, and one that fills up
 * while the cache is open lowers its size: counted, and nobody is killed by SIGBUS. In a
 * mount namespace of its own; skipped without the right to make one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "kit.h"

#define SHM "/dev/shm"

static const struct kit_shape shape = {1, 65536};

static bool mount_small(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		return false;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	return mount("tmpfs", SHM, "tmpfs", 0, "size=24m") == 0;
}

static void too_small(void)
{
	struct cairn_error error = {0};
	struct cairn_store *store;
	int ret = cairn_store_open("cache(size=64MiB)", NULL, &store, &error);

	kit_at("a cache of 64 MiB in 24");
	CHECK(ret == -ENOSPC, "%d: %s", ret, error.text);
	CHECK(strstr(error.text, "size=") && strstr(error.text, SHM) && !strchr(error.text, '\n'),
	      "%s", error.text);
}

/* All of it but @left bytes is taken by somebody else. */
static int fill_up(uint64_t left)
{
	int fd = open(SHM "/another", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct statvfs fs;
	uint64_t available;

	CHECK(fd >= 0 && fstatvfs(fd, &fs) == 0);
	available = (uint64_t)fs.f_bavail * fs.f_frsize;
	CHECK(available > left);
	CHECK(fallocate(fd, 0, 0, (off_t)(available - left)) == 0);
	return fd;
}

static void fills_up(void)
{
	struct timespec ts = {.tv_nsec = 1000000};
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;
	uint32_t kept = 0;
	int fd;

	kit_at("a cache of 20 MiB, in what fills up");
	/* Memory is made only after a namespace is there: it is gone before that. */
	CHECK(cairn_store_open("store(reactors=1, deadline=5s) | cache(size=20MiB)", NULL, &store,
			       &error) == 0,
	      "%s", error.text);
	fd = fill_up(3u << 20);
	CHECK(kit_namespace(store, "shm", shape, &ns) == 0);
	while (kit_counter(store, "cache", "chunks_missing") == 0)
		nanosleep(&ts, NULL);
	for (uint32_t i = 0; i < 1000; i++) {
		int ret = kit_dump(ns, shape, i, 0, 1, CAIRN_MEMORY);

		CHECK(ret == 0, "dump of %u: %d", i, ret);
	}
	for (uint32_t i = 0; i < 1000; i++)
		kept += kit_load(ns, shape, i) == 0;
	CHECK(kept > 32 && kept < 200, "%u", kept);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	close(fd);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	kit_watch(100);
	if (!mount_small()) {
		printf("skipped: no mount of a small " SHM " here: %s\n", strerror(errno));
		return KIT_SKIP;
	}
	too_small();
	fills_up();
	return 0;
}
