/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buddy allocator over a range of memory that it never touches: it deals in
 * offsets. Pieces are powers of two from 4 KiB up, each aligned to its size
 * (as an offset). Pure; the owner serialises. All calls are O(log n).
 */
#ifndef BASE_BUDDY_H
#define BASE_BUDDY_H

#include <stddef.h>
#include <stdint.h>

#define BUDDY_PIECE_MIN 4096u
#define BUDDY_ORDERS	32 /* 4 KiB << 31: 8 TiB */
#define BUDDY_NONE	UINT64_MAX

struct buddy_unit;

struct buddy {
	struct buddy_unit *units; /* one for each 4 KiB of the range */
	uint32_t unit_count;
	uint32_t free_units;	      /* 4 KiB each */
	uint32_t heads[BUDDY_ORDERS]; /* free pieces of each order */
	uint32_t orders_free;	      /* bit n: heads[n] is not empty */
};

/* Bytes of metadata for a range of @range_bytes (below 16 TiB). */
size_t buddy_meta_bytes(uint64_t range_bytes);

/*
 * @meta: buddy_meta_bytes(), 4-aligned; lent until the last call. @range_bytes
 * is rounded down to 4 KiB; all of it is free at first.
 */
void buddy_init(struct buddy *buddy, void *meta, uint64_t range_bytes);

/* What get() of @bytes takes: the next power of two, at least 4 KiB. */
uint64_t buddy_piece_bytes(uint64_t bytes);

/* The offset of a piece of at least @bytes (1 or more), or BUDDY_NONE: no piece that large now. */
uint64_t buddy_get(struct buddy *buddy, uint64_t bytes);

/* Gives back what get() returned; asserts that it is such a piece. */
void buddy_put(struct buddy *buddy, uint64_t offset);

/* The largest piece that get() would give now, bytes; 0: none. */
uint64_t buddy_largest(const struct buddy *buddy);

#endif
