/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/page.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_MAGIC    "CAIRNPG1"
#define PAGE_GAUGE    0x1u
#define VALUES_ALIGN  64u /* a cache line: the values share none with the rows */
#define HANDLE_MAGIC  0x70616765u
#define PAGE_SHM_MODE 0644 /* figures only: no keys, no paths */

struct page_header {
	char magic[8];
	uint32_t version, header_bytes;
	uint64_t bytes, pid, start_ns;
	uint32_t counter_count, row_bytes;
	uint8_t uuid[16];
	uint64_t values_offset;
	uint32_t latency_count, bucket_count;
	char engine[PAGE_ENGINE_MAX], note[PAGE_NOTE_MAX];
};
static_assert(sizeof(struct page_header) == 256, "the layout in page.h");
static_assert(offsetof(struct page_header, engine) == 80, "the layout in page.h");

struct page_row {
	char stage[PAGE_STAGE_MAX], name[PAGE_NAME_MAX];
	uint32_t flags, zero;
};
static_assert(sizeof(struct page_row) == 72, "the layout in page.h");

struct page_latency {
	char op[PAGE_OP_MAX];
	struct latency latency;
};
static_assert(sizeof(struct page_latency) == 32 + 8 * LATENCY_BUCKETS, "the layout in page.h");

struct page {
	uint32_t magic;
	const struct sys *sys;
	int fd; /* -1: private */
	char shm_name[PAGE_SHM_NAME_MAX];
	size_t bytes;
	uint32_t counter_count, latency_count;
	struct page_header *header; /* mapped */
};

static uint64_t align_up(uint64_t end)
{
	return (end + VALUES_ALIGN - 1) / VALUES_ALIGN * VALUES_ALIGN;
}

static uint64_t values_offset(uint32_t count)
{
	return align_up(sizeof(struct page_header) + (uint64_t)count * sizeof(struct page_row));
}

/* Of no latencies: where the values end, as in version 2. */
static uint64_t page_bytes(uint32_t count, uint32_t latency_count)
{
	uint64_t end = values_offset(count) + (uint64_t)count * sizeof(uint64_t);

	return latency_count == 0
		       ? end
		       : align_up(end) + (uint64_t)latency_count * sizeof(struct page_latency);
}

static const struct page_latency *latencies_of(const struct page_header *header, uint32_t count)
{
	uint64_t end = values_offset(count) + (uint64_t)count * sizeof(uint64_t);

	return (const void *)((const char *)header + align_up(end));
}

void page_shm_name(const uint8_t uuid[16], char ret_name[PAGE_SHM_NAME_MAX])
{
	const uint8_t *u = uuid;
	int length = snprintf(ret_name, PAGE_SHM_NAME_MAX,
			      "/cairn-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
			      "%02x%02x%02x%02x%02x%02x",
			      u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10],
			      u[11], u[12], u[13], u[14], u[15]);

	assert(length > 0 && length < (int)PAGE_SHM_NAME_MAX);
}

/* ---- the owner ---------------------------------------------------------- */

/* Makes the name anew, with all its memory: a full /dev/shm is an error here, no signal later. */
static int shared_open(struct page *page, const uint8_t uuid[16])
{
	const struct sys *sys = page->sys;
	int rc;

	page_shm_name(uuid, page->shm_name);
	sys->shm_unlink(page->shm_name);
	page->fd = sys->shm_open(page->shm_name, O_RDWR | O_CREAT | O_EXCL, PAGE_SHM_MODE);
	if (page->fd < 0)
		return page->fd;
	rc = sys->fallocate(page->fd, 0, 0, (off_t)page->bytes);
	/* The owner's sign of life: the lock goes with the process, whatever ends it. */
	if (rc == 0)
		rc = sys->flock(page->fd, LOCK_EX | LOCK_NB);
	if (rc < 0) {
		sys->shm_unlink(page->shm_name);
		sys->close(page->fd);
		page->fd = -1;
	}
	return rc;
}

static void copy_text(char *to, size_t bytes, const char *from)
{
	size_t length = strlen(from);

	assert(length < bytes);
	memset(to, 0, bytes);
	memcpy(to, from, length + 1);
}

static struct page_latency *own_latency(struct page *page, uint32_t op)
{
	uint64_t end = values_offset(page->counter_count) + page->counter_count * sizeof(uint64_t);

	assert(op < page->latency_count);
	return (struct page_latency *)(void *)((char *)page->header + align_up(end)) + op;
}

static void write_page(struct page *page, const uint8_t *uuid, const struct page_shape *shape)
{
	struct page_header *header = page->header;
	struct page_row *rows = (struct page_row *)(header + 1);
	const struct page_counter *counters = shape->counters;
	uint32_t count = shape->counter_count;

	header->version = PAGE_VERSION;
	header->header_bytes = sizeof(*header);
	header->bytes = page->bytes;
	header->pid = (uint64_t)getpid();
	header->start_ns = page->sys->realtime_ns();
	header->counter_count = count;
	header->row_bytes = sizeof(*rows);
	header->values_offset = values_offset(count);
	header->latency_count = shape->op_count;
	header->bucket_count = LATENCY_BUCKETS;
	if (uuid != NULL)
		memcpy(header->uuid, uuid, sizeof(header->uuid));
	for (uint32_t i = 0; i < count; i++) {
		copy_text(rows[i].stage, sizeof(rows[i].stage), counters[i].stage);
		copy_text(rows[i].name, sizeof(rows[i].name), counters[i].name);
		rows[i].flags = counters[i].gauge ? PAGE_GAUGE : 0;
	}
	for (uint32_t i = 0; i < shape->op_count; i++)
		copy_text(own_latency(page, i)->op, PAGE_OP_MAX, shape->ops[i]);
	/* Last: a page without it is one being made. page_read() checks the rest anyway. */
	memcpy(header->magic, PAGE_MAGIC, sizeof(header->magic));
}

int page_create(const struct sys *sys, const uint8_t uuid[16], const struct page_shape *shape,
		struct page **ret_page)
{
	struct page *page = sys_zalloc(sys, 0, sizeof(*page));
	void *address = NULL;
	int rc = 0;

	assert(shape->counter_count <= PAGE_COUNTERS_MAX);
	assert(shape->op_count <= PAGE_LATENCIES_MAX);
	if (page == NULL)
		return -ENOMEM;
	page->magic = HANDLE_MAGIC;
	page->sys = sys;
	page->fd = -1;
	page->bytes = page_bytes(shape->counter_count, shape->op_count);
	page->counter_count = shape->counter_count;
	page->latency_count = shape->op_count;
	if (uuid != NULL)
		rc = shared_open(page, uuid);
	if (rc == 0)
		rc = sys->mmap(NULL, page->bytes, PROT_READ | PROT_WRITE,
			       uuid != NULL ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, page->fd, 0,
			       &address);
	if (rc < 0) {
		page_close(page);
		return rc;
	}
	assert(address != NULL);
	page->header = address;
	write_page(page, uuid, shape);
	*ret_page = page;
	return 0;
}

uint64_t *page_values(struct page *page)
{
	assert(page->magic == HANDLE_MAGIC);
	return (uint64_t *)(void *)((char *)page->header + values_offset(page->counter_count));
}

struct latency *page_latency(struct page *page, uint32_t op)
{
	assert(page->magic == HANDLE_MAGIC);
	return &own_latency(page, op)->latency;
}

void page_engine(struct page *page, const char *engine, const char *note)
{
	assert(page->magic == HANDLE_MAGIC);
	copy_text(page->header->engine, sizeof(page->header->engine), engine);
	copy_text(page->header->note, sizeof(page->header->note), note);
}

/* Another process may have put its own page in our place. */
static bool name_is_ours(const struct page *page)
{
	const struct sys *sys = page->sys;
	struct stat ours, named;
	int fd = sys->shm_open(page->shm_name, O_RDONLY, 0);
	bool same;

	if (fd < 0)
		return false;
	same = sys->fstat(fd, &named) == 0 && sys->fstat(page->fd, &ours) == 0 &&
	       named.st_ino == ours.st_ino && named.st_dev == ours.st_dev;
	sys->close(fd);
	return same;
}

void page_close(struct page *page)
{
	const struct sys *sys;

	if (page == NULL)
		return;
	assert(page->magic == HANDLE_MAGIC);
	sys = page->sys;
	if (page->header != NULL)
		sys->munmap(page->header, page->bytes);
	if (page->fd >= 0) {
		if (name_is_ours(page))
			sys->shm_unlink(page->shm_name);
		sys->close(page->fd);
	}
	page->magic = 0;
	sys->free(page);
}

void page_abandon(struct page *page)
{
	assert(page->magic == HANDLE_MAGIC);
	page->sys->munmap(page->header, page->bytes);
	if (page->fd >= 0)
		page->sys->close(page->fd);
}

/* ---- readers ------------------------------------------------------------ */

/* Printable ASCII, ended by a zero: it will be shown on somebody's terminal. */
static bool text_ok(const char *text, size_t bytes)
{
	size_t length = strnlen(text, bytes);

	if (length == bytes)
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

/* A page of the version before has its values last. */
static bool latencies_ok(const struct page_header *header)
{
	if (header->version == PAGE_VERSION_OLD)
		return header->latency_count == 0 && header->bucket_count == 0;
	return header->latency_count <= PAGE_LATENCIES_MAX &&
	       header->bucket_count == LATENCY_BUCKETS;
}

static int check_header(const struct page_header *header, const uint8_t uuid[16],
			uint64_t file_bytes)
{
	if (memcmp(header->magic, PAGE_MAGIC, sizeof(header->magic)) != 0)
		return -EBADMSG;
	if (header->version != PAGE_VERSION && header->version != PAGE_VERSION_OLD)
		return -EPROTO;
	if (!latencies_ok(header) || header->header_bytes != sizeof(*header) ||
	    header->row_bytes != sizeof(struct page_row) ||
	    header->counter_count > PAGE_COUNTERS_MAX ||
	    header->values_offset != values_offset(header->counter_count) ||
	    header->bytes != page_bytes(header->counter_count, header->latency_count) ||
	    header->bytes > file_bytes || memcmp(header->uuid, uuid, sizeof(header->uuid)) != 0)
		return -EBADMSG;
	return 0;
}

/* Copies the page out: what is mapped could be changed, or cut off, under our eyes. */
static int copy_page(const struct sys *sys, int fd, const uint8_t uuid[16],
		     struct page_header **ret_copy)
{
	struct page_header header, *copy;
	struct stat st;
	int rc = sys->fstat(fd, &st);

	if (rc < 0)
		return rc;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(header))
		return -EBADMSG;
	rc = sys_pread_full(sys, fd, &header, sizeof(header), 0);
	if (rc == 0)
		rc = check_header(&header, uuid, (uint64_t)st.st_size);
	if (rc < 0)
		return rc == -EIO ? -EBADMSG : rc;
	copy = sys->alloc(VALUES_ALIGN, header.bytes);
	if (copy == NULL)
		return -ENOMEM;
	*copy = header;
	rc = sys_pread_full(sys, fd, copy + 1, header.bytes - sizeof(header), sizeof(header));
	if (rc < 0) {
		sys->free(copy);
		return rc == -EIO ? -EBADMSG : rc;
	}
	*ret_copy = copy;
	return 0;
}

static bool rows_ok(const struct page_row *rows, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!rows[i].stage[0] || !text_ok(rows[i].stage, sizeof(rows[i].stage)) ||
		    !rows[i].name[0] || !text_ok(rows[i].name, sizeof(rows[i].name)))
			return false;
	return true;
}

static bool ops_ok(const struct page_header *header)
{
	const struct page_latency *latencies = latencies_of(header, header->counter_count);

	for (uint32_t i = 0; i < header->latency_count; i++)
		if (!latencies[i].op[0] || !text_ok(latencies[i].op, sizeof(latencies[i].op)))
			return false;
	return true;
}

/* A sound copy of the page, the caller's to be freed; or what page_read() says. */
static int take_page(const struct sys *sys, const uint8_t uuid[16], struct page_header **ret_copy,
		     struct page_info *ret_info)
{
	char name[PAGE_SHM_NAME_MAX];
	struct page_header *copy;
	int fd, rc;

	page_shm_name(uuid, name);
	/* Not to be held up by what somebody put there in its place: a pipe, say. */
	fd = sys->shm_open(name, O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	rc = sys->flock(fd, LOCK_SH | LOCK_NB) == 0 ? -ENOENT : 0;
	if (rc == 0)
		rc = copy_page(sys, fd, uuid, &copy);
	sys->close(fd);
	if (rc < 0)
		return rc;
	if (!rows_ok((const struct page_row *)(copy + 1), copy->counter_count) || !ops_ok(copy) ||
	    !text_ok(copy->engine, sizeof(copy->engine)) ||
	    !text_ok(copy->note, sizeof(copy->note))) {
		sys->free(copy);
		return -EBADMSG;
	}
	*ret_info = (struct page_info){
		.pid = copy->pid,
		.start_ns = copy->start_ns,
		.counter_count = copy->counter_count,
		.latency_count = copy->latency_count,
	};
	copy_text(ret_info->engine, sizeof(ret_info->engine), copy->engine);
	copy_text(ret_info->note, sizeof(ret_info->note), copy->note);
	*ret_copy = copy;
	return 0;
}

static int tell_counters(const struct page_header *copy, const struct page_reader *reader)
{
	const struct page_row *rows = (const struct page_row *)(copy + 1);
	const uint64_t *values =
		(const uint64_t *)(const void *)((const char *)copy + copy->values_offset);
	int rc = 0;

	for (uint32_t i = 0; i < copy->counter_count && rc == 0; i++)
		rc = reader->counter(reader->context, rows[i].stage, rows[i].name,
				     rows[i].flags & PAGE_GAUGE, values[i]);
	return rc;
}

static int tell_latencies(const struct page_header *copy, const struct page_reader *reader)
{
	const struct page_latency *latencies = latencies_of(copy, copy->counter_count);
	int rc = 0;

	for (uint32_t i = 0; i < copy->latency_count && rc == 0; i++)
		rc = reader->latency(reader->context, latencies[i].op, &latencies[i].latency);
	return rc;
}

int page_read(const struct sys *sys, const uint8_t uuid[16], const struct page_reader *reader,
	      struct page_info *ret_info)
{
	struct page_header *copy;
	int rc = take_page(sys, uuid, &copy, ret_info);

	if (rc < 0)
		return rc;
	if (reader->counter)
		rc = tell_counters(copy, reader);
	if (reader->latency && rc == 0)
		rc = tell_latencies(copy, reader);
	sys->free(copy);
	return rc;
}
