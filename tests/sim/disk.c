/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../fault/power.h"

#define OPS_MAX	      1024u
#define SECTOR	      512u
#define UNFLUSHED_MAX 512u

struct write {
	struct write *next;
	uint64_t at;
	size_t length;
	uint64_t ended; /* the event; 0: not yet */
	uint8_t bytes[];
};

struct op {
	enum disk_kind kind; /* 0: not under way */
	const struct iovec *iov;
	int iov_count;
	uint64_t at, began;
	size_t length;
	struct write *write;
};

static struct {
	size_t bytes;
	uint8_t *seen, *flushed; /* what reads see, and what is there to stay */
	struct write *first, **last;
	uint32_t unflushed;
	struct op ops[OPS_MAX];
	uint32_t ops_end;
	struct kit_rng *rng;
	struct disk_faults faults;
	uint32_t outage; /* operations of it that are left */
	enum disk_area (*where)(uint64_t at, size_t length, const uint8_t *bytes);
	uint64_t events, failures;
} disk;

void disk_init(size_t bytes, struct kit_rng *rng,
	       enum disk_area (*where)(uint64_t at, size_t length, const uint8_t *bytes))
{
	memset(&disk, 0, sizeof(disk));
	disk.bytes = bytes;
	disk.seen = calloc(1, bytes);
	disk.flushed = calloc(1, bytes);
	CHECK(disk.seen && disk.flushed);
	disk.last = &disk.first;
	disk.rng = rng;
	disk.where = where;
}

static void writes_forget(void)
{
	while (disk.first) {
		struct write *next = disk.first->next;

		free(disk.first);
		disk.first = next;
	}
	disk.last = &disk.first;
	disk.unflushed = 0;
	memset(disk.ops, 0, disk.ops_end * sizeof(disk.ops[0]));
	disk.ops_end = 0;
}

void disk_fini(void)
{
	writes_forget();
	free(disk.seen);
	free(disk.flushed);
}

void disk_set_faults(const struct disk_faults *faults)
{
	disk.faults = *faults;
	disk.outage = faults->outages ? disk.outage : 0;
}

uint64_t disk_events(void)
{
	return disk.events;
}

uint64_t disk_failures(void)
{
	return disk.failures;
}

/* ---- operations ----------------------------------------------------------------- */

static size_t length_of(const struct iovec *iov, int iov_count)
{
	size_t length = 0;

	for (int i = 0; i < iov_count; i++)
		length += iov[i].iov_len;
	return length;
}

static void gather(const struct iovec *iov, int iov_count, uint8_t *to)
{
	for (int i = 0; i < iov_count; to += iov[i++].iov_len)
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
}

static bool same(const struct iovec *iov, int iov_count, const uint8_t *bytes)
{
	for (int i = 0; i < iov_count; bytes += iov[i++].iov_len)
		if (memcmp(bytes, iov[i].iov_base, iov[i].iov_len) != 0)
			return false;
	return true;
}

/* A read of the first superblock asks whether the disk answers: nobody looks at the bytes. */
static bool probes(enum disk_kind kind, uint64_t at)
{
	return kind == DISK_READ && at == 0;
}

/* Rule 1. */
static void alone(enum disk_kind kind, uint64_t at, size_t length)
{
	for (uint32_t i = 0; i < disk.ops_end; i++) {
		const struct op *op = &disk.ops[i];

		if (!op->kind || (kind != DISK_WRITE && op->kind != DISK_WRITE))
			continue;
		if (probes(kind, at) || probes(op->kind, op->at))
			continue;
		CHECK(op->at + op->length <= at || at + length <= op->at,
		      "%s [%lu, +%zu) and %s [%lu, +%zu) at once",
		      kind == DISK_WRITE ? "write" : "read", (unsigned long)at, length,
		      op->kind == DISK_WRITE ? "write" : "read", (unsigned long)op->at, op->length);
	}
}

static struct write *write_new(const struct iovec *iov, int iov_count, uint64_t at, size_t length)
{
	struct write *write = malloc(sizeof(*write) + length);

	CHECK(write);
	*write = (struct write){.at = at, .length = length};
	gather(iov, iov_count, write->bytes);
	*disk.last = write;
	disk.last = &write->next;
	disk.unflushed++;
	return write;
}

uint32_t disk_begin(enum disk_kind kind, const struct iovec *iov, int iov_count, uint64_t at)
{
	size_t length = length_of(iov, iov_count);
	uint32_t number = 0;

	CHECK(at + length <= disk.bytes, "beyond the end: %lu + %zu", (unsigned long)at, length);
	if (kind != DISK_SYNC)
		alone(kind, at, length);
	while (number < disk.ops_end && disk.ops[number].kind)
		number++;
	CHECK(number < OPS_MAX);
	if (number == disk.ops_end)
		disk.ops_end++;
	if (kind != DISK_READ)
		disk.events++;
	disk.ops[number] = (struct op){.kind = kind,
				       .iov = iov,
				       .iov_count = iov_count,
				       .at = at,
				       .began = disk.events,
				       .length = length};
	if (kind == DISK_WRITE)
		disk.ops[number].write = write_new(iov, iov_count, at, length);
	return number;
}

static void write_free(struct write **at)
{
	struct write *write = *at;

	*at = write->next;
	if (!*at)
		disk.last = at;
	disk.unflushed--;
	free(write);
}

/* Writes that had ended by @event, at most @most of them, are there to stay. */
static void flush(uint64_t event, uint32_t most)
{
	struct write **at = &disk.first;

	while (*at && most) {
		struct write *write = *at;

		if (!write->ended || write->ended > event) {
			at = &write->next;
			continue;
		}
		memcpy(disk.flushed + write->at, write->bytes, write->length);
		write_free(at);
		most--;
	}
}

static bool fails(const struct op *op)
{
	const struct disk_faults *faults = &disk.faults;
	uint32_t ppm = op->kind == DISK_READ	? faults->read_ppm
		       : op->kind == DISK_WRITE ? faults->write_ppm
						: faults->flush_ppm;

	if (op->kind != DISK_SYNC && faults->bad_bytes &&
	    op->at < faults->bad_at + faults->bad_bytes && faults->bad_at < op->at + op->length)
		return true;
	if (faults->outages && !disk.outage && !kit_below(disk.rng, faults->outages))
		disk.outage = 1 + (uint32_t)kit_below(disk.rng, 200);
	if (disk.outage && op->kind != DISK_READ) {
		disk.outage--;
		return true;
	}
	return ppm && kit_below(disk.rng, 1000000) < ppm;
}

static void scatter(const struct op *op)
{
	const uint8_t *from = disk.seen + op->at;

	for (int i = 0; i < op->iov_count; from += op->iov[i++].iov_len)
		memcpy(op->iov[i].iov_base, from, op->iov[i].iov_len);
}

/* Whole, a part, or nothing; true: something landed. */
static bool land_badly(struct write *write)
{
	uint64_t way = kit_below(disk.rng, 3);

	if (way == 1)
		write->length = kit_below(disk.rng, write->length / SECTOR + 1) * SECTOR;
	return way != 2;
}

static int64_t write_end(struct op *op, bool failed)
{
	struct write *write = op->write, **at = &disk.first;

	CHECK(same(op->iov, op->iov_count, write->bytes), "memory changed under a write");
	if (!failed || land_badly(write)) {
		write->ended = disk.events;
		memcpy(disk.seen + write->at, write->bytes, write->length);
	} else {
		while (*at != write)
			at = &(*at)->next;
		write_free(at);
	}
	if (disk.unflushed > UNFLUSHED_MAX)
		flush(disk.events, disk.unflushed / 2);
	if (failed)
		return kit_below(disk.rng, 100) < disk.faults.full_share ? -ENOSPC : -EIO;
	return (int64_t)op->length;
}

int64_t disk_end(uint32_t number, bool fail)
{
	struct op *op = &disk.ops[number];
	bool failed = fails(op) || fail;
	int64_t result = failed ? -EIO : (int64_t)op->length;

	CHECK(op->kind);
	disk.events += op->kind != DISK_READ;
	disk.failures += failed;
	if (op->kind == DISK_WRITE)
		result = write_end(op, failed);
	else if (op->kind == DISK_SYNC && !failed)
		flush(op->began, UINT32_MAX);
	else if (op->kind == DISK_READ && !failed)
		scatter(op);
	op->kind = 0;
	while (disk.ops_end && !disk.ops[disk.ops_end - 1].kind)
		disk.ops_end--;
	return result;
}

int64_t disk_read(const struct iovec *iov, int iov_count, uint64_t at)
{
	size_t length = length_of(iov, iov_count);

	CHECK(at + length <= disk.bytes, "beyond the end: %lu + %zu", (unsigned long)at, length);
	return disk_end(disk_begin(DISK_READ, iov, iov_count, at), false);
}

/* ---- the power -------------------------------------------------------------------- */

void disk_cut(uint64_t counts[DISK_AREAS])
{
	struct power_cut cut = power_cut(disk.rng);

	for (struct write *write = disk.first; write; write = write->next) {
		counts[disk.where(write->at, write->length, write->bytes)]++;
		power_write(&cut, write->at, write->length, write->bytes, disk.flushed);
	}
	for (uint32_t i = 0; i < disk.ops_end; i++)
		counts[DISK_FLUSH] += disk.ops[i].kind == DISK_SYNC;
	writes_forget();
	memcpy(disk.seen, disk.flushed, disk.bytes);
}

void disk_rot(uint64_t from, uint64_t to)
{
	uint64_t at = from + kit_below(disk.rng, to - from);
	uint8_t bit = (uint8_t)(1u << kit_below(disk.rng, 8));

	disk.seen[at] ^= bit;
	disk.flushed[at] ^= bit;
}
