/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare side on files: what a program that only reads and writes would do.
 *
 * Loads read one flat file at random offsets, as fio does: at depth 1 by
 * pread; deeper by an io_uring of each client, or, where that is forbidden, by
 * depth threads of each client. A dump is create + fallocate + pwrite +
 * rename in one of FANS folders (one folder's lock would bind it), by depth
 * threads of each client. A lookup is a serial loop of faccessat.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef CAIRN_URING
#include <liburing.h>
#endif

#include "bench.h"
#include "cli.h"
#include "content.h"
#include "figures.h"
#include "out.h"

#define FANS	  64u
#define ALIGN	  4096u
#define NAME_ROOM 64

struct files {
	char dir[1200];
	bool made; /* the folder above ours, by us */
	char above[1100];
	int fans[FANS];	    /* folders; -1: not open */
	int flat;	    /* -1: none */
	bool direct, uring; /* uring: loads at depth */
	uint64_t io_bytes;  /* of a block: whole pages where the I/O is direct */
	uint8_t **buffers;  /* of each thread: as many blocks as it has in flight */
};

static int complain(const char *what, const char *path)
{
	int rc = -errno;

	out_error("bench", "%s %s: %s", what, path, strerror(-rc));
	return rc;
}

/* ---- loads ---------------------------------------------------------------- */

static void read_one(struct bench_side *side, struct bench_worker *worker, uint64_t i)
{
	const struct files *files = side->private;
	uint64_t start = figures_now_ns();
	ssize_t n = pread(files->flat, files->buffers[worker->index], files->io_bytes,
			  (off_t)(side->plan->order[i] * files->io_bytes));

	if (n != (ssize_t)files->io_bytes)
		worker->error = n < 0 ? -errno : -EIO;
	bench_note(worker, start, side->plan->block_bytes);
}

static void work_reads(struct bench_side *side, struct bench_worker *worker)
{
	for (uint64_t i = worker->index; i < side->plan->count && !worker->error;
	     i += side->threads)
		read_one(side, worker, i);
}

#ifdef CAIRN_URING
/* A client's ring, and what it has in flight. */
struct flight {
	struct io_uring ring;
	bool registered;
	uint64_t *start_ns; /* of each slot */
	uint32_t *free, free_count;
};

static void queue_read(struct bench_side *side, struct bench_worker *worker, struct flight *flight,
		       uint64_t i)
{
	const struct files *files = side->private;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&flight->ring);
	uint32_t slot = flight->free[--flight->free_count];
	uint8_t *buffer = files->buffers[worker->index] + slot * files->io_bytes;
	uint64_t offset = side->plan->order[i] * files->io_bytes;

	if (flight->registered)
		io_uring_prep_read_fixed(sqe, files->flat, buffer, (unsigned)files->io_bytes,
					 offset, (int)slot);
	else
		io_uring_prep_read(sqe, files->flat, buffer, (unsigned)files->io_bytes, offset);
	io_uring_sqe_set_data64(sqe, slot);
	flight->start_ns[slot] = figures_now_ns();
}

static void reap(struct bench_side *side, struct bench_worker *worker, struct flight *flight)
{
	const struct files *files = side->private;
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&flight->ring, &cqe) == 0) {
		uint32_t slot = (uint32_t)io_uring_cqe_get_data64(cqe);

		if (cqe->res != (int)files->io_bytes)
			worker->error = cqe->res < 0 ? cqe->res : -EIO;
		io_uring_cqe_seen(&flight->ring, cqe);
		flight->free[flight->free_count++] = slot;
		bench_note(worker, flight->start_ns[slot], side->plan->block_bytes);
	}
}

static int open_flight(const struct bench_side *side, const struct bench_worker *worker,
		       struct flight *flight)
{
	const struct files *files = side->private;
	uint32_t depth = (uint32_t)side->plan->depth;
	struct iovec *vectors = calloc(depth, sizeof(*vectors));
	int rc = io_uring_queue_init(depth, &flight->ring, 0);

	flight->start_ns = calloc(depth, sizeof(*flight->start_ns));
	flight->free = calloc(depth, sizeof(*flight->free));
	if (!vectors || !flight->start_ns || !flight->free)
		out_die("no memory for %u reads in flight", depth);
	for (uint32_t i = 0; i < depth; i++) {
		vectors[i] = (struct iovec){files->buffers[worker->index] + i * files->io_bytes,
					    files->io_bytes};
		flight->free[flight->free_count++] = i;
	}
	/* without the room to lock them, reads go unregistered */
	if (rc == 0)
		flight->registered = io_uring_register_buffers(&flight->ring, vectors, depth) == 0;
	free(vectors);
	return rc;
}

static void work_ring(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	struct flight flight = {0};
	uint64_t i = worker->index;
	int rc = open_flight(side, worker, &flight);

	/* opening is no work: the clock starts here */
	worker->start_ns = figures_now_ns();
	if (rc < 0)
		worker->error = rc;
	while (rc >= 0 && (i < plan->count || flight.free_count < plan->depth)) {
		for (; flight.free_count && i < plan->count; i += side->threads)
			queue_read(side, worker, &flight, i);
		rc = io_uring_submit_and_wait(&flight.ring, 1);
		if (rc < 0 && rc != -EINTR)
			worker->error = rc;
		rc = rc == -EINTR ? 0 : rc;
		reap(side, worker, &flight);
	}
	worker->end_ns = figures_now_ns();
	if (flight.start_ns && flight.ring.ring_fd > 0)
		io_uring_queue_exit(&flight.ring);
	free(flight.start_ns);
	free(flight.free);
}

static bool uring_allowed(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0) < 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}
#else
static bool uring_allowed(void)
{
	return false;
}

/* Never chosen: the same by pread. */
static void work_ring(struct bench_side *side, struct bench_worker *worker)
{
	work_reads(side, worker);
}
#endif

/* ---- dumps ------------------------------------------------------------------ */

static int write_file(const struct files *files, const struct bench_plan *plan, int fan,
		      const char *name, const void *bytes)
{
	char temporary[NAME_ROOM + 8];
	int fd, rc = 0;

	snprintf(temporary, sizeof(temporary), "%s.tmp", name);
	fd = openat(fan, temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (files->direct ? O_DIRECT : 0), 0644);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)files->io_bytes) && errno != EOPNOTSUPP)
		rc = -errno;
	if (!rc && pwrite(fd, bytes, files->io_bytes, 0) != (ssize_t)files->io_bytes)
		rc = errno ? -errno : -EIO;
	if (!rc && plan->durability == CAIRN_DURABLE && fdatasync(fd))
		rc = -errno;
	if (!rc && renameat(fan, temporary, fan, name))
		rc = -errno;
	if (!rc && plan->durability == CAIRN_DURABLE && fsync(fan))
		rc = -errno;
	if (rc)
		unlinkat(fan, temporary, 0);
	close(fd);
	return rc;
}

static void work_files(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	struct files *files = side->private;

	for (uint64_t i = worker->index; i < plan->count && !worker->error; i += side->threads) {
		uint64_t start = figures_now_ns();
		char name[NAME_ROOM];
		int rc;

		if (plan->op == BENCH_MIXED && i % 2 == 0) {
			read_one(side, worker, i);
			continue;
		}
		snprintf(name, sizeof(name), "%llu", (unsigned long long)i);
		rc = write_file(files, plan, files->fans[i % FANS], name,
				files->buffers[worker->index]);
		worker->error = rc;
		bench_note(worker, start, plan->block_bytes);
	}
}

static int unlink_files(struct bench_side *side, uint32_t run)
{
	struct files *files = side->private;

	(void)run;
	for (uint64_t i = 0; i < side->plan->count; i++) {
		char name[NAME_ROOM];

		snprintf(name, sizeof(name), "%llu", (unsigned long long)i);
		unlinkat(files->fans[i % FANS], name, 0);
	}
	return 0;
}

/* ---- lookups ------------------------------------------------------------------ */

static void probe_name(const struct cairn_key *key, char name[NAME_ROOM])
{
	char hex[CONTENT_KEY_TEXT];

	content_key_format(key, hex);
	memcpy(name, hex, 2); /* no printf: it would cost as much as the probe */
	name[2] = '/';
	memcpy(name + 3, hex + 2, sizeof(hex) - 2);
}

static void work_access(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	const struct files *files = side->private;

	for (uint64_t call = 0; call < plan->calls && !worker->error; call++) {
		const struct cairn_key *keys = bench_chain(plan, worker->index, call);
		uint64_t start = figures_now_ns();

		for (uint64_t i = 0; i < plan->count && !worker->error; i++) {
			char name[NAME_ROOM];

			probe_name(&keys[i], name);
			if (faccessat(files->fans[0], name, F_OK, 0))
				worker->error = -errno;
		}
		bench_note(worker, start, 0);
	}
}

/* Makes the files to be found, or takes them away again. */
static int probe_files(const struct bench_side *side, bool make)
{
	const struct files *files = side->private;
	int rc = 0;

	for (uint64_t i = 0; i < side->plan->fill && rc == 0; i++) {
		char name[NAME_ROOM], folder[3];
		int fd;

		probe_name(&side->plan->keys[i], name);
		snprintf(folder, sizeof(folder), "%.2s", name);
		if (!make) {
			unlinkat(files->fans[0], name, 0);
			continue;
		}
		mkdirat(files->fans[0], folder, 0755);
		fd = openat(files->fans[0], name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			rc = complain("could not make", name);
		else
			close(fd);
	}
	for (unsigned i = 0; i < 256 && !make; i++) {
		char folder[3];

		snprintf(folder, sizeof(folder), "%02x", i);
		unlinkat(files->fans[0], folder, AT_REMOVEDIR);
	}
	return rc;
}

/* ---- opening -------------------------------------------------------------------- */

static void close_files(struct bench_side *side)
{
	struct files *files = side->private;

	if (side->plan->op == BENCH_LOOKUP)
		probe_files(side, false);
	for (unsigned i = 0; i < FANS; i++) {
		char fan[sizeof(files->dir) + 8];

		if (files->fans[i] >= 0)
			close(files->fans[i]);
		snprintf(fan, sizeof(fan), "%s/%u", files->dir, i);
		rmdir(fan);
	}
	if (files->flat >= 0) {
		char flat[sizeof(files->dir) + 8];

		close(files->flat);
		snprintf(flat, sizeof(flat), "%s/flat", files->dir);
		unlink(flat);
	}
	rmdir(files->dir);
	if (files->made)
		rmdir(files->above);
	for (uint32_t i = 0; files->buffers && i < side->threads; i++)
		free(files->buffers[i]);
	free(files->buffers);
	free(files);
}

static int make_folders(struct files *files, const char *dir)
{
	snprintf(files->above, sizeof(files->above), "%s", dir);
	files->made = mkdir(dir, 0755) == 0;
	if (!files->made && errno != EEXIST)
		return complain("could not make the folder", dir);
	snprintf(files->dir, sizeof(files->dir), "%s/bench-%ld", files->above, (long)getpid());
	if (mkdir(files->dir, 0755))
		return complain("could not make the folder", files->dir);
	for (unsigned i = 0; i < FANS; i++) {
		char fan[sizeof(files->dir) + 8];

		snprintf(fan, sizeof(fan), "%s/%u", files->dir, i);
		if (mkdir(fan, 0755))
			return complain("could not make the folder", fan);
		files->fans[i] = open(fan, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (files->fans[i] < 0)
			return complain("could not open", fan);
	}
	return 0;
}

/* Whether the file system takes O_DIRECT; the block sizes follow from it. */
static void choose_direct(struct files *files, const struct bench_plan *plan, bool wanted)
{
	int fd = -1;

	files->direct = wanted;
	if (wanted)
		fd = openat(files->fans[0], "direct", O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC,
			    0644);
	if (fd < 0)
		files->direct = false;
	else
		close(fd);
	unlinkat(files->fans[0], "direct", 0);
	files->io_bytes = plan->block_bytes;
	if (files->direct)
		files->io_bytes = (plan->block_bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* The file that loads read. */
static int make_flat(struct files *files, const struct bench_plan *plan, const uint8_t *block)
{
	char path[sizeof(files->dir) + 8];
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | (files->direct ? O_DIRECT : 0);

	snprintf(path, sizeof(path), "%s/flat", files->dir);
	files->flat = open(path, flags, 0644);
	if (files->flat < 0)
		return complain("could not make", path);
	if (fallocate(files->flat, 0, 0, (off_t)(plan->count * files->io_bytes)) &&
	    errno != EOPNOTSUPP)
		return complain("no room for", path);
	for (uint64_t i = 0; i < plan->count; i++) {
		errno = EIO;
		if (pwrite(files->flat, block, files->io_bytes, (off_t)(i * files->io_bytes)) !=
		    (ssize_t)files->io_bytes)
			return complain("could not fill", path);
	}
	if (fsync(files->flat))
		return complain("could not sync", path);
	return 0;
}

static void make_buffers(struct bench_side *side, uint64_t blocks)
{
	struct files *files = side->private;

	files->buffers = calloc(side->threads, sizeof(*files->buffers));
	if (!files->buffers)
		out_die("no memory for %u threads", side->threads);
	for (uint32_t i = 0; i < side->threads; i++) {
		void *buffer = NULL;
		uint64_t bytes = (blocks * files->io_bytes + ALIGN - 1) / ALIGN * ALIGN;

		if (posix_memalign(&buffer, ALIGN, bytes))
			out_die("no memory for blocks in flight: less --depth or --clients");
		/* zeros might be stored for nothing */
		content_fill(&side->plan->keys[0], i, buffer, bytes);
		files->buffers[i] = buffer;
	}
}

static void name_side(struct bench_side *side)
{
	const struct files *files = side->private;
	const struct bench_plan *plan = side->plan;
	const char *direct = files->direct ? " O_DIRECT" : "", *how = "";
	static const char *const whats[] = {
		[BENCH_LOAD] = "pread%s%s",
		[BENCH_DUMP] = "create + fallocate + pwrite%s + rename%s",
		[BENCH_LOOKUP] = "serial faccessat%s%s",
		[BENCH_MIXED] = "pread, and create + fallocate + pwrite%s + rename%s",
	};

	if (plan->op == BENCH_LOOKUP)
		direct = "";
	else if (files->uring)
		how = ", io_uring";
	else if (plan->depth > 1)
		how = ", a thread each";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(side->what, sizeof(side->what), whats[plan->op], direct, how);
#pragma GCC diagnostic pop
}

static int open_side(struct bench_side *side, const struct bench_last *last, const char *dir)
{
	const struct bench_plan *plan = side->plan;
	struct files *files = side->private;
	int rc = make_folders(files, dir);

	if (rc < 0)
		return rc;
	choose_direct(files, plan, last->direct);
	files->uring = plan->op == BENCH_LOAD && plan->depth > 1 && uring_allowed() &&
		       files->io_bytes <= UINT32_MAX;
	if (plan->op == BENCH_LOOKUP || files->uring)
		side->threads = (uint32_t)plan->clients;
	else
		side->threads = (uint32_t)(plan->clients * plan->depth);
	name_side(side);
	if (plan->op == BENCH_LOOKUP) {
		side->work = work_access;
		return probe_files(side, true);
	}
	make_buffers(side, files->uring ? plan->depth : 1);
	side->work = files->uring ? work_ring : plan->op == BENCH_LOAD ? work_reads : work_files;
	if (plan->op != BENCH_LOAD)
		side->finish = unlink_files;
	return plan->op == BENCH_DUMP ? 0 : make_flat(files, plan, files->buffers[0]);
}

int bench_files_open(const struct bench_plan *plan, const struct bench_last *last, const char *dir,
		     struct bench_side *ret_side)
{
	struct files *files = calloc(1, sizeof(*files));

	if (!files)
		out_die("no memory for the bare side");
	files->flat = -1;
	for (unsigned i = 0; i < FANS; i++)
		files->fans[i] = -1;
	*ret_side = (struct bench_side){.plan = plan, .private = files, .close = close_files};
	return open_side(ret_side, last, dir) < 0 ? CLI_CANNOT : CLI_OK;
}
