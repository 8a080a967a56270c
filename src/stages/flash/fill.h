/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of an open that finds many blocks, taken from the kernel on a thread of its own a
 * little before it is needed: zeroing pages is a third of the work.
 */
#ifndef FLASH_FILL_H
#define FLASH_FILL_H

#include <stdint.h>

#include "sys/sys.h"

#define FILL_RANGES_MAX 6u
/* From so many elements on it is worth a thread; it is at most so far ahead. */
#define FILL_LEAST	(256u << 10)
#define FILL_AHEAD	(1u << 20)

/* An array that is filled from its start, one element after the other. */
struct fill_range {
	void *base; /* reserved: for all elements */
	size_t each;
};

struct fill;

/* @count elements of each will come, and all of @first is used at once. NULL: no memory or no
 * thread, which only takes longer. */
struct fill *fill_begin(const struct sys *sys, const struct fill_range *ranges,
			uint32_t range_count, uint64_t count, void *first, size_t first_bytes);
/* So many have come. */
void fill_told(struct fill *fill, uint64_t count);
/* NULL is fine. */
void fill_end(struct fill *fill);

#endif
