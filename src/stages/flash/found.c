/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/found.h"

#include "stages/flash/fill.h"

#define FOUND_HUGE  (8u << 20) /* on huge pages from there on */
#define FOUND_BYTES (sizeof(uint64_t) + sizeof(uint32_t) + sizeof(uint64_t))

int found_init(struct found *found, const struct flash *tier)
{
	uint64_t count = flash_round_up(tier->entries_room, 2); /* so that parents are aligned */
	size_t bytes = (size_t)count * FOUND_BYTES;
	void *memory;
	int rc;

	if (bytes >= FOUND_HUGE) {
		rc = sys_reserve_huge(tier->sys, bytes, &memory, &found->base, &found->bytes);
	} else {
		rc = sys_reserve(tier->sys, bytes, &memory);
		found->base = rc == 0 ? memory : NULL;
		found->bytes = bytes;
	}
	if (rc < 0)
		return rc;
	found->births = memory;
	found->spaces = (uint32_t *)(void *)(found->births + count);
	found->parents = (uint64_t *)(void *)(found->spaces + count);
	return 0;
}

void found_expect(struct found *found, const struct flash *tier, uint64_t blocks)
{
	struct table_array arrays[TABLE_ARRAYS];
	struct fill_range ranges[TABLE_ARRAYS + 2] = {
		{found->births, sizeof(*found->births)},
		{found->spaces, sizeof(*found->spaces)},
	};
	size_t bucket_bytes;
	void *buckets;

	if (blocks < FILL_LEAST)
		return;
	table_arrays(tier->table, arrays);
	table_buckets(tier->table, &buckets, &bucket_bytes);
	for (uint32_t i = 0; i < TABLE_ARRAYS; i++)
		ranges[2 + i] = (struct fill_range){arrays[i].base, arrays[i].each};
	if (blocks > tier->entries_room)
		blocks = tier->entries_room;
	found->fill =
		fill_begin(tier->sys, ranges, TABLE_ARRAYS + 2, blocks, buckets, bucket_bytes);
}

void found_told(struct found *found, const struct flash *tier)
{
	if (found->fill)
		fill_told(found->fill, table_end(tier->table));
}

void found_fini(struct found *found, const struct flash *tier)
{
	fill_end(found->fill);
	if (found->base)
		tier->sys->munmap(found->base, found->bytes);
}
