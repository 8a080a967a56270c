/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A /dev/shm that is too small for a cache is refused with one line, and one that fills up
 * while the cache is open lowers its size: counted, and nobody is killed by SIGBUS. Of what did
 * not come nothing is left. Memory is of huge pages where the kernel gives them. In a mount
 * namespace of its own; skipped without the right to make one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kit.h"

#define SHM	    "/dev/shm"
#define HUGE_BYTES  (2u << 20)
/* Of a cache of 64 MiB: a huge page each; what lies before their first is less than that. */
#define CHUNK_BYTES HUGE_BYTES
#define CHUNKS	    31u
#define PAYLOAD_AT  (8u << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static const struct kit_shape shape = {1, 65536};

static bool mount_small(const char *size)
{
	return mount("tmpfs", SHM, "tmpfs", 0, size) == 0;
}

static bool own_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		return false;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
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

/* One more process is refused for what it needs itself, not for size=. */
static void joins_what_is_full(void)
{
	const char *spec = "cache(size=16MiB, name=joined)";
	struct cairn_error error = {0};
	struct cairn_store *store, *other;
	int fd, ret;

	kit_at("a process more, in what is full");
	CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "%s", error.text);
	fd = fill_up(0);
	ret = cairn_store_open(spec, NULL, &other, &error);
	CHECK(ret == -ENOSPC, "%d", ret);
	CHECK(strstr(error.text, "a process more") && strstr(error.text, "has 0 KiB free") &&
		      !strstr(error.text, "size=") && !strchr(error.text, '\n'),
	      "%s", error.text);
	close(fd);
	unlink(SHM "/another");
	CHECK(cairn_store_open(spec, NULL, &other, &error) == 0, "%s", error.text);
	CHECK(cairn_store_close(other, UINT64_MAX) == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
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

/* Until each chunk has memory, or had none. */
static void wait_for_chunks(struct cairn_store *store)
{
	struct timespec ts = {.tv_nsec = 1000000};

	while (kit_counter(store, "cache", "chunks") +
		       kit_counter(store, "cache", "chunks_missing") <
	       CHUNKS)
		nanosleep(&ts, NULL);
}

/* Every chunk has all of its memory, or none. */
static uint32_t whole_chunks(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t count = 0;
	off_t data, hole = PAYLOAD_AT;

	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	while ((data = lseek(fd, hole, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		CHECK(hole > data && data % CHUNK_BYTES == 0 && hole % CHUNK_BYTES == 0,
		      "%lld to %lld", (long long)data, (long long)hole);
		count += (uint32_t)((hole - data) / CHUNK_BYTES);
	}
	close(fd);
	return count;
}

static void nothing_is_left(void)
{
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;
	char path[80];
	int fd;

	kit_at("a cache of 64 MiB, in what has room for a few of its chunks");
	CHECK(cairn_store_open("cache(size=64MiB, name=full)", NULL, &store, &error) == 0, "%s",
	      error.text);
	fd = fill_up(7u << 20);
	CHECK(kit_namespace(store, "shm", shape, &ns) == 0);
	wait_for_chunks(store);
	CHECK(kit_counter(store, "cache", "chunks_missing") > 0);
	snprintf(path, sizeof(path), SHM "/cairn-cache-%u-full", geteuid());
	CHECK(whole_chunks(path) == kit_counter(store, "cache", "chunks"), "%u of %llu",
	      whole_chunks(path), (unsigned long long)kit_counter(store, "cache", "chunks"));
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	close(fd);
	unlink(SHM "/another");
}

/* The next one finds the memory of one that was closed just now, whose rings the kernel still has.
 */
static void closes_and_opens(const char *spec)
{
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;

	kit_at("%s again and again, in 80 MiB", spec);
	for (uint32_t i = 0; i < 10; i++) {
		CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "%s", error.text);
		CHECK(kit_namespace(store, "shm", shape, &ns) == 0);
		wait_for_chunks(store);
		CHECK(kit_dump(ns, shape, i, 0, 1, CAIRN_MEMORY) == 0);
		CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	}
}

/* Nor does one of a process that was killed: its memory is waited for, for an instant. */
static void killed_and_opens(void)
{
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;
	char byte = 0;
	int pipes[2];
	pid_t pid;

	kit_at("a cache of a process that was killed, and then another, in 80 MiB");
	CHECK(pipe(pipes) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CHECK(cairn_store_open("cache(size=64MiB)", NULL, &store, &error) == 0);
		CHECK(kit_namespace(store, "shm", shape, &ns) == 0);
		wait_for_chunks(store);
		CHECK(write(pipes[1], &byte, 1) == 1);
		pause();
	}
	CHECK(read(pipes[0], &byte, 1) == 1);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
	close(pipes[0]);
	close(pipes[1]);
	CHECK(cairn_store_open("cache(size=64MiB, open_wait=30s)", NULL, &store, &error) == 0, "%s",
	      error.text);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
}

/*
 * Small slots need a little more memory after all chunks have theirs: of a full /dev/shm a chunk
 * is given up for it, and counted.
 */
static void fills_up_later(struct kit_shape of)
{
	struct timespec ts = {.tv_nsec = 1000000};
	struct cairn_error error = {0};
	struct cairn_namespace *first, *ns;
	struct cairn_store *store;
	uint64_t chunks;
	uint32_t kept = 0;
	int fd;

	kit_at("a cache of 64 MiB, in what is full once it has all; blocks of %u x %llu", of.shards,
	       (unsigned long long)of.shard_bytes);
	CHECK(cairn_store_open("cache(size=64MiB)", NULL, &store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(store, "first", shape, &first) == 0);
	wait_for_chunks(store);
	chunks = kit_counter(store, "cache", "chunks");
	CHECK(kit_counter(store, "cache", "chunks_missing") == 0);
	CHECK(kit_namespace(store, "small", of, &ns) == 0);
	fd = fill_up(0);
	for (uint32_t i = 0; i < 30; i++)
		CHECK(kit_dump(ns, of, i, 0, of.shards, CAIRN_MEMORY) == 0, "%u", i);
	for (uint32_t i = 0; i < 30; i++)
		kept += kit_load(ns, of, i) == 0;
	CHECK(kept == 30, "%u of 30", kept);
	while (kit_counter(store, "cache", "chunks_missing") == 0)
		nanosleep(&ts, NULL);
	CHECK(kit_counter(store, "cache", "chunks_missing") == 1 &&
	      kit_counter(store, "cache", "chunks") == chunks - 1);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	close(fd);
	unlink(SHM "/another");
}

/* Does the kernel make huge pages of shared memory, when it is asked to? */
static bool gives_huge_pages(void)
{
	int fd = open(SHM "/probe", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint8_t *memory = MAP_FAILED, *at;
	bool given;

	CHECK(fd >= 0 && ftruncate(fd, 2 * HUGE_BYTES) == 0);
	memory = mmap(NULL, 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	at = memory + (HUGE_BYTES - (uintptr_t)memory % HUGE_BYTES) % HUGE_BYTES;
	CHECK(mmap(at, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
	*at = 1;
	given = madvise(at, HUGE_BYTES, MADV_COLLAPSE) == 0;
	munmap(memory, 2 * HUGE_BYTES);
	close(fd);
	unlink(SHM "/probe");
	return given;
}

/* KiB of shared memory that this process has mapped as huge pages. */
static unsigned long huge_kib(void)
{
	FILE *maps = fopen("/proc/self/smaps_rollup", "re");
	unsigned long kib = 0, sum = 0;
	char line[200];

	CHECK(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
			sum += kib;
	fclose(maps);
	return sum;
}

static void huge_pages(const char *option, unsigned long least_kib, unsigned long most_kib)
{
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;
	char spec[80];
	uint64_t chunks;

	snprintf(spec, sizeof(spec), "cache(size=64MiB, hugepages=%s)", option);
	kit_at("%s", spec);
	CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(store, "shm", shape, &ns) == 0);
	wait_for_chunks(store);
	chunks = kit_counter(store, "cache", "chunks");
	CHECK(kit_dump(ns, shape, 1, 0, 1, CAIRN_MEMORY) == 0 && kit_load(ns, shape, 1) == 0);
	CHECK(huge_kib() >= least_kib && huge_kib() <= most_kib, "%lu KiB with %llu chunks",
	      huge_kib(), (unsigned long long)chunks);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	kit_watch(100);
	if (!own_mounts() || !mount_small("size=24m")) {
		printf("skipped: no mount of a small " SHM " here: %s\n", strerror(errno));
		return KIT_SKIP;
	}
	too_small();
	joins_what_is_full();
	fills_up();
	CHECK(mount_small("size=96m"));
	nothing_is_left();
	/* From here on there is room for one at a time. */
	CHECK(mount_small("size=80m"));
	closes_and_opens("cache(size=64MiB)");
	closes_and_opens("cache(size=64MiB, name=again)");
	killed_and_opens();
	fills_up_later((struct kit_shape){1, 4096});
	fills_up_later((struct kit_shape){4, 65536});
	huge_pages("no", 0, 0);
	if (gives_huge_pages())
		huge_pages("auto", 48u << 10, 64u << 10);
	else
		printf("without huge pages, which this kernel does not make here\n");
	return 0;
}
