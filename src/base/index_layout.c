/* SPDX-License-Identifier: Apache-2.0 */
#include "base/index_layout.h"

#include <assert.h>

static uint64_t up(uint64_t bytes, uint64_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

struct index_layout index_layout_of(uint32_t entries_max)
{
	uint64_t buckets = (uint64_t)entries_max * INDEX_BUCKETS_PER_ENTRY;
	struct index_layout layout = {
		.entries_at = INDEX_PAGE_BYTES,
		.entries_bytes =
			up((uint64_t)entries_max * sizeof(struct index_entry), INDEX_PAGE_BYTES),
		.bucket_max = buckets > INDEX_BUCKETS_MIN ? buckets : INDEX_BUCKETS_MIN,
	};

	layout.buckets_at = layout.entries_at + layout.entries_bytes;
	layout.buckets_bytes = up(layout.bucket_max * sizeof(uint32_t), INDEX_PAGE_BYTES);
	return layout;
}

size_t index_bytes(uint32_t entries_max)
{
	struct index_layout layout = index_layout_of(entries_max);

	return layout.buckets_at + layout.buckets_bytes;
}

struct index_range index_huge_range(const void *array, uint64_t bytes)
{
	uintptr_t begin = (uintptr_t)array;
	uintptr_t start = up(begin + INDEX_SMALL_BYTES, INDEX_HUGE_BYTES);
	uintptr_t end = (begin + bytes) / INDEX_HUGE_BYTES * INDEX_HUGE_BYTES;

	assert(begin % INDEX_PAGE_BYTES == 0);
	return (struct index_range){(void *)start, end > start ? end - start : 0};
}

uint64_t index_touched(const void *array, uint64_t used, uint64_t bytes)
{
	struct index_range huge = index_huge_range(array, bytes);
	uint64_t small = (uintptr_t)huge.start - (uintptr_t)array;

	assert(used <= bytes);
	if (used <= small || used > small + huge.bytes)
		return up(used, INDEX_PAGE_BYTES);
	return small + up(used - small, INDEX_HUGE_BYTES);
}
