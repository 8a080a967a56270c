/* SPDX-License-Identifier: Apache-2.0 */
/* Broken words in a cache's region: six bytes say which part, where in it, and what to do. */
#ifndef TESTS_FUZZ_BROKEN_H
#define TESTS_FUZZ_BROKEN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "stages/cache/map.h"

#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#define BROKEN_BYTES 6u /* of one */

enum what {
	WHAT_HEADER, /* what changes of it */
	WHAT_CLIENTS,
	WHAT_BUCKETS,
	WHAT_ENTRIES,
	WHAT_METAS,
	WHAT_CHUNKS,
	WHAT_PINS,
	WHAT_WORDS,
	WHAT_ARRAYS, /* of shards, in the payload of blocks that have several */
	WHAT_COUNT
};

struct span {
	uint8_t *at;
	uint64_t bytes;
};

static inline struct span span_of(struct cache_map *map, enum what what, uint32_t where)
{
	struct cache_entry *entry = &map->entries[where % map->entry_count];
	uint8_t *header = (uint8_t *)map->header;

	switch (what) {
	case WHAT_HEADER:
		return (struct span){header + offsetof(struct cache_header, clock),
				     sizeof(struct cache_header) -
					     offsetof(struct cache_header, clock)};
	case WHAT_CLIENTS:
		return (struct span){(uint8_t *)map->clients, 3 * sizeof(struct cache_client)};
	case WHAT_BUCKETS:
		return (struct span){(uint8_t *)map->buckets,
				     (map->bucket_mask + 1ull) * sizeof(struct cache_bucket)};
	case WHAT_ENTRIES:
		return (struct span){(uint8_t *)map->entries,
				     map->entry_count * sizeof(struct cache_entry)};
	case WHAT_METAS:
		return (struct span){(uint8_t *)map->metas,
				     map->entry_count * sizeof(struct cache_meta)};
	case WHAT_CHUNKS:
		return (struct span){(uint8_t *)map->chunks,
				     map->chunk_count * sizeof(struct cache_chunk)};
	case WHAT_PINS:
		/* The lowest records are those in use. */
		return (struct span){(uint8_t *)map->pins + (where % 3) * map->pins_max * 8ull,
				     256};
	case WHAT_WORDS:
		return (struct span){(uint8_t *)map->words,
				     (uint64_t)map->chunk_count * CACHE_WORDS_FAR * 8};
	case WHAT_ARRAYS:
		if (entry->shard_count > 1 && map_shards(map, where % map->entry_count))
			return (struct span){(uint8_t *)map_shards(map, where % map->entry_count),
					     entry->shard_count * sizeof(struct cache_shard)};
		break;
	case WHAT_COUNT:
		break;
	}
	return (struct span){NULL, 0};
}

static inline void break_one(struct cache_map *map, const uint8_t *step)
{
	uint32_t where = (uint32_t)step[1] | (uint32_t)step[2] << 8 | (uint32_t)step[3] << 16;
	struct span span = span_of(map, (enum what)(step[0] % WHAT_COUNT), where);
	uint8_t *byte;

	if (span.bytes == 0)
		return;
	byte = span.at + (where / 3 * 2654435761ull) % span.bytes;
	if (step[4] < 128)
		*byte ^= (uint8_t)(1u << (step[4] % 8));
	else
		*byte = step[5];
}

#endif
