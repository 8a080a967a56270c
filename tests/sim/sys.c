/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sys table of the simulation: one file, which is the disk, memory that is counted,
 * and what an open reads by.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/list.h"
#include "host.h"

#define MAPS_MAX       64u
#define OPEN_READS_MAX 256u
#define PAGE	       4096u

struct block {
	struct list link;
	void *memory; /* what to free */
} __attribute__((aligned(16)));

struct map {
	void *address; /* NULL: free */
	size_t bytes;
};

static struct {
	struct kit_rng *rng;
	uint64_t disk_bytes, file_bytes;
	bool sectors;
	int fd;	    /* of the store */
	int folder; /* of its folder, for an instant */
	struct engine_chain *open_reads[OPEN_READS_MAX];
	uint32_t open_read_count;
	struct list blocks;
	struct map maps[MAPS_MAX];
	uint64_t allocations;
} world = {.fd = -1, .folder = -1};

struct sys sim_sys;

/* ---- the file -------------------------------------------------------------------- */

/* A descriptor of the kernel's, so that nothing else has the number; it has no bytes. */
static int sim_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd;

	(void)dirfd;
	(void)mode;
	if (world.fd >= 0 && flags & O_DIRECT) /* for probes, where the store has none */
		return -EINVAL;
	fd = memfd_create("sim", MFD_CLOEXEC);
	CHECK(fd >= 0);
	if (flags & O_DIRECTORY) {
		CHECK(world.folder < 0);
		return world.folder = fd;
	}
	CHECK(strcmp(path, "/sim/store") == 0, "no other file than the store: %s", path);
	world.fd = fd;
	return fd;
}

static int sim_close_fd(int fd)
{
	if (fd == world.fd)
		world.fd = -1;
	if (fd == world.folder)
		world.folder = -1;
	return close(fd) ? -errno : 0;
}

static int sim_fstat(int fd, struct stat *st)
{
	if (fstat(fd, st))
		return -errno;
	if (fd == world.fd) {
		st->st_size = (off_t)world.file_bytes;
		st->st_blocks = (blkcnt_t)(world.file_bytes / 512);
	}
	return 0;
}

static int sim_fallocate(int fd, int mode, off_t offset, off_t length)
{
	CHECK(fd == world.fd && !mode);
	CHECK((uint64_t)(offset + length) <= world.disk_bytes, "more than size=");
	if ((uint64_t)(offset + length) > world.file_bytes)
		world.file_bytes = (uint64_t)(offset + length);
	return 0;
}

static size_t length_of(const struct iovec *iov, int iov_count)
{
	size_t length = 0;

	for (int i = 0; i < iov_count; i++)
		length += iov[i].iov_len;
	return length;
}

static ssize_t sim_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	size_t length = length_of(iov, iov_count);

	CHECK(fd == world.fd);
	if (!world.sectors && (offset % PAGE || length % PAGE))
		return -EINVAL;
	if ((uint64_t)offset + length > world.file_bytes)
		return 0; /* a new file: none is read beyond its end */
	return (ssize_t)disk_read(iov, iov_count, (uint64_t)offset);
}

static ssize_t sim_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	CHECK(fd == world.fd);
	CHECK((uint64_t)offset + length_of(iov, iov_count) <= world.file_bytes);
	return (ssize_t)sim_disk_wait(DISK_WRITE, iov, iov_count, (uint64_t)offset);
}

static int sim_fdatasync(int fd)
{
	if (fd != world.fd)
		return 0; /* the folder */
	return (int)sim_disk_wait(DISK_SYNC, NULL, 0, 0);
}

static int sim_flock(int fd, int operation)
{
	(void)operation;
	CHECK(fd == world.fd);
	return 0;
}

/* ---- the engine of an open: reads that end in any order ------------------------------- */

static int open_engine_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	CHECK(opts->chains_max <= OPEN_READS_MAX);
	world.open_read_count = 0;
	*ret_engine = (struct engine *)(void *)world.open_reads;
	return 0;
}

static void open_engine_close(struct engine *engine)
{
	(void)engine;
	CHECK(!world.open_read_count);
}

static int open_engine_submit(struct engine *engine, struct engine_chain *chain)
{
	(void)engine;
	CHECK(chain->op_count == 1 && chain->ops->code == OP_READV);
	CHECK(world.open_read_count < OPEN_READS_MAX);
	world.open_reads[world.open_read_count++] = chain;
	return 0;
}

static int open_engine_poll(struct engine *engine, uint64_t wait_ns)
{
	uint32_t at;
	struct engine_chain *chain;

	(void)engine;
	(void)wait_ns;
	if (!world.open_read_count)
		return 0;
	at = (uint32_t)kit_below(world.rng, world.open_read_count);
	chain = world.open_reads[at];
	world.open_reads[at] = world.open_reads[--world.open_read_count];
	chain->ops->result = disk_read(chain->ops->iov, chain->ops->iov_count, chain->ops->offset);
	chain->result = chain->ops->result < 0 ? chain->ops->result : 0;
	chain->done(chain);
	return 1;
}

const struct engine_ops sim_open_engine = {
	.name = "sim",
	.open = open_engine_open,
	.close = open_engine_close,
	.submit = open_engine_submit,
	.poll = open_engine_poll,
};

/* ---- memory ----------------------------------------------------------------------- */

static void *sim_alloc(size_t alignment, size_t bytes)
{
	size_t front = alignment > sizeof(struct block) ? alignment : sizeof(struct block);
	void *memory = NULL;
	struct block *block;

	CHECK(posix_memalign(&memory, alignment < 16 ? 16 : alignment, front + bytes) == 0);
	memset((uint8_t *)memory + front, 0xa5, bytes); /* it is not zeroed */
	block = (struct block *)(void *)((uint8_t *)memory + front) - 1;
	block->memory = memory;
	list_append(&world.blocks, &block->link);
	world.allocations++;
	return (uint8_t *)memory + front;
}

static void sim_free(void *memory)
{
	struct block *block = (struct block *)memory - 1;

	if (!memory)
		return;
	list_remove(&block->link);
	free(block->memory);
	world.allocations--;
}

static int sim_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset,
		    void **ret_address)
{
	uint32_t i = 0;

	CHECK(fd == -1);
	while (i < MAPS_MAX && world.maps[i].address)
		i++;
	CHECK(i < MAPS_MAX);
	*ret_address = mmap(hint, bytes, prot, flags, fd, offset);
	CHECK(*ret_address != MAP_FAILED);
	world.maps[i] = (struct map){*ret_address, bytes};
	world.allocations++;
	return 0;
}

static int sim_munmap(void *address, size_t bytes)
{
	for (uint32_t i = 0; i < MAPS_MAX; i++) {
		if (world.maps[i].address != address)
			continue;
		CHECK(world.maps[i].bytes == bytes);
		world.maps[i].address = NULL;
		world.allocations--;
		CHECK(munmap(address, bytes) == 0);
		return 0;
	}
	CHECK(false, "never mapped");
}

static int sim_madvise(void *address, size_t bytes, int advice)
{
	(void)address;
	(void)bytes;
	(void)advice;
	return 0;
}

static uint64_t sim_realtime_ns(void)
{
	return 1767225600000000000ull + sim_now_ns(); /* 2026 */
}

uint32_t sim_now_s(void)
{
	return (uint32_t)(sim_realtime_ns() / 1000000000u);
}

static int sim_sleep_ns(uint64_t ns)
{
	(void)ns;
	CHECK(false, "nothing sleeps");
}

static int sim_random(void *buffer, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)buffer)[i] = (uint8_t)kit_next(world.rng);
	return 0;
}

/* ---- for the host ------------------------------------------------------------------ */

void sim_sys_init(uint64_t disk_bytes, bool sectors, struct kit_rng *rng)
{
	CHECK(world.fd < 0 && !world.allocations);
	world.rng = rng;
	world.disk_bytes = disk_bytes;
	world.file_bytes = 0;
	world.sectors = sectors;
	list_init(&world.blocks);
	sim_sys = sys_native;
	sim_sys.openat = sim_openat;
	sim_sys.close = sim_close_fd;
	sim_sys.fstat = sim_fstat;
	sim_sys.fallocate = sim_fallocate;
	sim_sys.preadv = sim_preadv;
	sim_sys.pwritev = sim_pwritev;
	sim_sys.fsync = sim_sys.fdatasync = sim_fdatasync;
	sim_sys.flock = sim_flock;
	sim_sys.alloc = sim_alloc;
	sim_sys.free = sim_free;
	sim_sys.mmap = sim_mmap;
	sim_sys.munmap = sim_munmap;
	sim_sys.madvise = sim_madvise;
	sim_sys.now_ns = sim_now_ns;
	sim_sys.realtime_ns = sim_realtime_ns;
	sim_sys.sleep_ns = sim_sleep_ns;
	sim_sys.random = sim_random;
}

void sim_sys_drop(void)
{
	struct list *node;

	while ((node = list_take(&world.blocks)) != NULL)
		free(list_entry(node, struct block, link)->memory);
	for (uint32_t i = 0; i < MAPS_MAX; i++) {
		if (world.maps[i].address)
			munmap(world.maps[i].address, world.maps[i].bytes);
		world.maps[i].address = NULL;
	}
	world.allocations = 0;
	if (world.fd >= 0)
		close(world.fd);
	if (world.folder >= 0)
		close(world.folder);
	world.fd = world.folder = -1;
}

uint64_t sim_sys_allocations(void)
{
	return world.allocations;
}
