/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk in memory, for the simulation: operations begin and end, at the caller's
 * times and in the caller's order. What was not flushed may be lost, torn or kept
 * when the power goes.
 *
 * Rules of the model, as in ../crash/device.h, and these:
 *  1. No two operations under way touch the same bytes, if one of them is a write.
 *  2. The memory of a write does not change while it is under way.
 *  3. A write that fails has landed, whole or in part, or not; a flush that fails has
 *     flushed nothing.
 *  4. The disk may flush by itself, in the order of writes.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <stddef.h>
#include <sys/uio.h>

#include "../fault/kit.h"

struct disk_faults {
	uint32_t read_ppm, write_ppm, flush_ppm; /* fail */
	uint32_t outages;    /* one in so many operations begins a time when no write passes */
	uint32_t full_share; /* of writes that fail: with -ENOSPC, of 100 */
	uint64_t bad_at, bad_bytes; /* where all fails */
};

/* Where a write or flush under way at a cut was. */
enum disk_area {
	DISK_SUPER,
	DISK_SPACES,
	DISK_MARKS,
	DISK_HEADER,
	DISK_FRESH,   /* records of dumps */
	DISK_CARRIED, /* ... and of reclaims */
	DISK_SEAL,
	DISK_FLUSH,
	DISK_AREAS,
};

enum disk_kind { DISK_READ = 1, DISK_WRITE, DISK_SYNC };

/* An empty one of @bytes; what it has stays until disk_fini(). @where tells a write's area. */
void disk_init(size_t bytes, struct kit_rng *rng,
	       enum disk_area (*where)(uint64_t at, size_t length, const uint8_t *bytes));
void disk_fini(void);
void disk_set_faults(const struct disk_faults *faults);

/* The operation's number. */
uint32_t disk_begin(enum disk_kind kind, const struct iovec *iov, int iov_count, uint64_t at);
/* Bytes, or a negative errno; @fail: it fails whatever the faults are. */
int64_t disk_end(uint32_t op, bool fail);
/* All at once. */
int64_t disk_read(const struct iovec *iov, int iov_count, uint64_t at);

/* Beginnings and ends of writes and flushes so far. */
uint64_t disk_events(void);
/* Operations that failed so far. */
uint64_t disk_failures(void);
/* The power goes: what is left is what there is. Counts what was not flushed, by area. */
void disk_cut(uint64_t counts[DISK_AREAS]);
/* One bit of [from, to) turns. */
void disk_rot(uint64_t from, uint64_t to);

#endif
