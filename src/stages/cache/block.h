/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shards of an entry that the caller has pinned.
 *
 * Invariants, numbered:
 *  1. A shard that is FILLING is its owner's, who has the entry pinned and a slot
 *     reserved; lengths and payload are written by it alone, before the shard is THERE.
 *  2. A shard that is THERE does not change while the entry lives.
 *  3. An entry is WHOLE only if all its shards are THERE: each who puts one there looks
 *     at all, so the last one sees them.
 */
#ifndef STAGES_CACHE_BLOCK_H
#define STAGES_CACHE_BLOCK_H

#include "stages/cache/table.h"

/* What lies in a slot behind the stored bytes. */
struct cache_tail {
	uint32_t crc;	  /* CRC32C of the stored bytes */
	uint32_t checked; /* the region's adoptions + 1 when it was last found right; 0: no sum */
	uint8_t meta[64];
};

static inline uint64_t shard_bytes_needed(uint64_t stored, uint32_t meta, bool crc)
{
	return meta == 0 && !crc ? stored
				 : ((stored + 15) & ~UINT64_C(15)) + sizeof(struct cache_tail);
}

struct cache_place {
	uint32_t entry, life, shard;
	uint64_t slot;
};

/* The shard's word, 0 for one that the entry has not. */
uint64_t shard_look(const struct cache_map *map, uint32_t entry, uint32_t shard);

/* Nothing of it is there or filling. Of an entry that is not pinned: as it was at some time. */
bool shards_absent(const struct cache_map *map, uint32_t entry);

/* ABSENT -> FILLING by this client, into a slot that it has reserved. False: not absent. */
bool shard_claim(struct cache_map *map, const struct cache_place *place);
/* FILLING by this client -> THERE, and the entry WHOLE if that was the last. False: broken. */
bool shard_publish(struct cache_map *map, const struct cache_place *place, uint32_t raw,
		   uint32_t stored, uint32_t meta);
/* The entry is WHOLE if all its shards are THERE. */
void shards_settle(struct cache_map *map, uint32_t entry, uint32_t life);
/* FILLING by this client -> ABSENT, and its slot free. */
void shard_abandon(struct cache_map *map, const struct cache_place *place);

/* A shard that is THERE. */
struct cache_view {
	uint64_t slot;
	uint32_t raw, stored, meta;
	uint8_t *payload;
};
bool shard_view(const struct cache_map *map, uint32_t entry, uint32_t shard,
		struct cache_view *ret_view);

static inline struct cache_tail *tail_of(uint8_t *payload, uint64_t stored)
{
	return (struct cache_tail *)(void *)(payload + ((stored + 15) & ~UINT64_C(15)));
}

#endif
