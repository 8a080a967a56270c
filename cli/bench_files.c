/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare side on files: what a program that only reads and writes would do.
 *
 * Loads read one flat file at random offsets, as fio does: at depth 1 by
 * pread; deeper by an io_uring of each client, or, where that is forbidden, by
 * depth threads of each client. A dump is create + fallocate + pwrite +
 * rename in one of FANS folders (one folder's lock would bind it; as many, and
 * names as long, as a posix store without size= has), by depth threads of each
 * client. A lookup is a loop of faccessat, one after another, over the tier's own
 * files: the very names the store probes, in its order, relative to the same
 * directory, and made beforehand.
 */
#include <dirent.h>
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

#include "base/base32.h"
#include "bench.h"
#include "cli.h"
#include "content.h"
#include "figures.h"
#include "out.h"

#define FANS	  4096u
#define ALIGN	  4096u
#define NAME_ROOM 80

struct files {
	char dir[1200];
	bool made; /* the folder above ours, by us */
	char above[1100];
	int base;	    /* the folder; -1: not open */
	int flat;	    /* -1: none */
	uint32_t runs;	    /* whose files are still there */
	bool direct, uring; /* uring: loads at depth */
	uint64_t io_bytes;  /* of a block: whole pages where the I/O is direct */
	uint8_t **buffers;  /* of each thread: as many blocks as it has in flight */
	int tier;	    /* lookups: the directory that names are relative to; -1: not open */
	char (*names)[NAME_ROOM]; /* lookups: of the plan's keys, in their order */
};

static int complain(const char *what, const char *path)
{
	int rc = -errno;

	out_error("bench", "%s %s: %s", what, path, strerror(-rc));
	return rc;
}

static bool writes(const struct bench_plan *plan)
{
	return plan->op == BENCH_DUMP || plan->op == BENCH_MIXED;
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

/* Block @i of run @run: any folder, as a hash would say; no two names are equal. */
static void file_name(uint32_t run, uint64_t i, char name[NAME_ROOM])
{
	uint64_t n = (uint64_t)run << 32 | i;
	uint64_t hash = (n ^ n >> 17) * 0x9e3779b97f4a7c15u;

	hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15u;
	snprintf(name, NAME_ROOM, "%03x/%016llx%018llx", (unsigned)(hash >> 52),
		 (unsigned long long)hash, (unsigned long long)n);
}

static int sync_folder(const struct files *files, const char *name)
{
	char folder[4];
	int fd, rc;

	snprintf(folder, sizeof(folder), "%.3s", name);
	fd = openat(files->base, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 || fsync(fd) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return rc;
}

static int write_file(const struct files *files, const struct bench_plan *plan, const char *name,
		      const void *bytes)
{
	char temporary[NAME_ROOM + 8];
	int fd, rc = 0;

	snprintf(temporary, sizeof(temporary), "%s.tmp", name);
	fd = openat(files->base, temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (files->direct ? O_DIRECT : 0), 0644);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)files->io_bytes) && errno != EOPNOTSUPP)
		rc = -errno;
	if (!rc && pwrite(fd, bytes, files->io_bytes, 0) != (ssize_t)files->io_bytes)
		rc = errno ? -errno : -EIO;
	if (!rc && plan->durability == CAIRN_DURABLE && fdatasync(fd))
		rc = -errno;
	if (!rc && renameat(files->base, temporary, files->base, name))
		rc = -errno;
	if (!rc && plan->durability == CAIRN_DURABLE)
		rc = sync_folder(files, name);
	if (rc)
		unlinkat(files->base, temporary, 0);
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
		file_name(files->runs, i, name);
		rc = write_file(files, plan, name, files->buffers[worker->index]);
		worker->error = rc;
		bench_note(worker, start, plan->block_bytes);
	}
}

static void unlink_runs(struct bench_side *side)
{
	struct files *files = side->private;

	for (uint32_t run = 0; run < files->runs; run++) {
		for (uint64_t i = 0; i < side->plan->count; i++) {
			char name[NAME_ROOM];

			file_name(run, i, name);
			unlinkat(files->base, name, 0);
		}
	}
	files->runs = 0;
}

static int finish_files(struct bench_side *side, uint32_t run)
{
	struct files *files = side->private;

	(void)run;
	files->runs++;
	if (!side->plan->keep)
		unlink_runs(side);
	return 0;
}

/* What either side left for the disk to do is done before the next turn, untimed. */
static void settle_files(struct bench_side *side)
{
	const struct files *files = side->private;

	syncfs(files->base);
}

/* ---- lookups ------------------------------------------------------------------ */

static void work_access(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	const struct files *files = side->private;

	for (uint64_t call = 0; call < plan->calls && !worker->error; call++) {
		const struct cairn_key *keys = bench_chain(plan, worker->index, call);
		char(*names)[NAME_ROOM] = files->names + (keys - plan->keys);
		uint64_t start = figures_now_ns();

		for (uint64_t i = 0; i < plan->count && !worker->error; i++)
			if (faccessat(files->tier, names[i], F_OK, 0))
				worker->error = -errno;
		bench_note(worker, start, 0);
	}
}

/* What is sorted and searched to find the key of a name. */
struct keyed {
	char text[BASE32_KEY_LENGTH];
	uint64_t index;
};

static int compare_keyed(const void *a, const void *b)
{
	return memcmp(a, b, BASE32_KEY_LENGTH);
}

/* Notes whose file @folder/@name is. A suffix says that it is no whole block. */
static uint64_t note_name(struct files *files, const struct keyed *sorted, uint64_t count,
			  const char *folder, const char *name)
{
	size_t length = strlen(name), above = strlen(folder);
	const struct keyed *found;
	char *to;

	if (length <= BASE32_KEY_LENGTH || strchr(name, '.') || above + length + 2 > NAME_ROOM)
		return 0;
	found = bsearch(name, sorted, count, sizeof(*sorted), compare_keyed);
	if (!found || *files->names[found->index])
		return 0;
	to = files->names[found->index];
	for (size_t i = 0; i <= above + 1 + length; i++) /* checked above: it fits */
		to[i] = i < above ? folder[i] : i == above ? '/' : name[i - above - 1];
	return 1;
}

static uint64_t note_folder(struct files *files, const struct keyed *sorted, uint64_t count,
			    const char *folder)
{
	int fd = openat(files->tier, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	uint64_t noted = 0;

	while (dir && (entry = readdir(dir)))
		noted += note_name(files, sorted, count, folder, entry->d_name);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return noted;
}

/* Reads what the store has called the files of the keys (docs/format.md). */
static int find_names(const struct bench_side *side, const char *path)
{
	const struct bench_plan *plan = side->plan;
	struct files *files = side->private;
	struct keyed *sorted = calloc(plan->fill, sizeof(*sorted));
	const struct dirent *entry;
	uint64_t noted = 0;
	char below[1100];
	DIR *top;

	files->names = calloc(plan->fill, sizeof(*files->names));
	if (!sorted || !files->names)
		out_die("no memory for %llu names", (unsigned long long)plan->fill);
	for (uint64_t i = 0; i < plan->fill; i++) {
		base32_put_key(plan->keys[i].bytes, sorted[i].text);
		sorted[i].index = i;
	}
	qsort(sorted, plan->fill, sizeof(*sorted), compare_keyed);
	snprintf(below, sizeof(below), "%s/b", path);
	files->tier = open(below, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	top = opendir(below);
	while (files->tier >= 0 && top && (entry = readdir(top)))
		if (entry->d_name[0] != '.')
			noted += note_folder(files, sorted, plan->fill, entry->d_name);
	if (top)
		closedir(top);
	free(sorted);
	errno = ENOENT;
	return noted == plan->fill ? 0 : complain("could not find the files of all keys in", below);
}

/* ---- opening -------------------------------------------------------------------- */

static void close_files(struct bench_side *side)
{
	struct files *files = side->private;

	if (files->tier >= 0)
		close(files->tier);
	free(files->names);
	if (files->base >= 0) {
		unlink_runs(side);
		for (unsigned i = 0; i < FANS && writes(side->plan); i++) {
			char fan[8];

			snprintf(fan, sizeof(fan), "%03x", i);
			unlinkat(files->base, fan, AT_REMOVEDIR);
		}
		close(files->base);
	}
	if (files->flat >= 0) {
		char flat[sizeof(files->dir) + 8];

		close(files->flat);
		snprintf(flat, sizeof(flat), "%s/flat", files->dir);
		unlink(flat);
	}
	if (*files->dir)
		rmdir(files->dir);
	if (files->made)
		rmdir(files->above);
	for (uint32_t i = 0; files->buffers && i < side->threads; i++)
		free(files->buffers[i]);
	free(files->buffers);
	free(files);
}

static int make_folders(struct files *files, const struct bench_plan *plan, const char *dir)
{
	snprintf(files->above, sizeof(files->above), "%s", dir);
	files->made = mkdir(dir, 0755) == 0;
	if (!files->made && errno != EEXIST)
		return complain("could not make the folder", dir);
	snprintf(files->dir, sizeof(files->dir), "%s/bench-%ld", files->above, (long)getpid());
	if (mkdir(files->dir, 0755))
		return complain("could not make the folder", files->dir);
	files->base = open(files->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (files->base < 0)
		return complain("could not open", files->dir);
	for (unsigned i = 0; i < FANS && writes(plan); i++) {
		char fan[8];

		snprintf(fan, sizeof(fan), "%03x", i);
		if (mkdirat(files->base, fan, 0755))
			return complain("could not make the folder", fan);
	}
	return 0;
}

/* Whether the file system takes O_DIRECT; the block sizes follow from it. */
static void choose_direct(struct files *files, const struct bench_plan *plan, bool wanted)
{
	int fd = -1;

	files->direct = wanted;
	if (wanted)
		fd = openat(files->base, "direct", O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0644);
	if (fd < 0)
		files->direct = false;
	else
		close(fd);
	unlinkat(files->base, "direct", 0);
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
		uint64_t bytes = (blocks * files->io_bytes + ALIGN - 1) / ALIGN * ALIGN;
		void *buffer = bench_memory(side->plan, bytes);

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
		[BENCH_MIXED] = "pread, and create + fallocate + pwrite%s + rename%s",
	};

	if (files->uring)
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
	int rc;

	if (plan->op == BENCH_LOOKUP) {
		side->threads = (uint32_t)plan->clients;
		side->work = work_access;
		snprintf(side->what, sizeof(side->what), "serial faccessat of the same files");
		return find_names(side, last->path);
	}
	rc = make_folders(files, plan, dir);
	if (rc < 0)
		return rc;
	choose_direct(files, plan, last->direct);
	files->uring = plan->op == BENCH_LOAD && plan->depth > 1 && uring_allowed() &&
		       files->io_bytes <= UINT32_MAX;
	if (files->uring)
		side->threads = (uint32_t)plan->clients;
	else
		side->threads = (uint32_t)(plan->clients * plan->depth);
	name_side(side);
	make_buffers(side, files->uring ? plan->depth : 1);
	side->work = files->uring ? work_ring : plan->op == BENCH_LOAD ? work_reads : work_files;
	side->settle = settle_files;
	if (plan->op != BENCH_LOAD)
		side->finish = finish_files;
	return plan->op == BENCH_DUMP ? 0 : make_flat(files, plan, files->buffers[0]);
}

int bench_files_open(const struct bench_plan *plan, const struct bench_last *last, const char *dir,
		     struct bench_side *ret_side)
{
	struct files *files = calloc(1, sizeof(*files));

	if (!files)
		out_die("no memory for the bare side");
	files->flat = files->tier = files->base = -1;
	*ret_side = (struct bench_side){.plan = plan, .private = files, .close = close_files};
	return open_side(ret_side, last, dir) < 0 ? CLI_CANNOT : CLI_OK;
}
