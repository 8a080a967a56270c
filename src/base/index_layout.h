/* SPDX-License-Identifier: Apache-2.0 */
/* Where the parts of an index stand in its memory, and on which pages. Of index.c alone. */
#ifndef BASE_INDEX_LAYOUT_H
#define BASE_INDEX_LAYOUT_H

#include "base/index.h"

#define INDEX_PAGE_BYTES	4096u
#define INDEX_BUCKETS_MIN	64u
#define INDEX_BUCKETS_PER_ENTRY 2u /* mean chain of a hit: 1.25 entries */

/* Bytes from the start of the memory; the struct index stands on the first page. */
struct index_layout {
	uint64_t entries_at, entries_bytes;
	uint64_t buckets_at, buckets_bytes;
	uint64_t bucket_max;
};

struct index_layout index_layout_of(uint32_t entries_max);

/* The part of an array of @bytes that goes on huge pages. */
struct index_range index_huge_range(const void *array, uint64_t bytes);

/* What the first @used of an array's @bytes have taken, if huge pages could be had. */
uint64_t index_touched(const void *array, uint64_t used, uint64_t bytes);

#endif
