/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory: this struct, then the geometries, then of each entry what a lookup
 * reads (struct hot, four a cache line), then the rest of it (struct cold), then
 * when it expires, if it does, then the bucket heads, then the places of further shards: each on
 * pages of its own. All of it starts as zeros and is taken as it is first written; so a bucket
 * holds an entry's number plus one, and 0 is empty.
 *
 * Beyond the header's invariants:
 *  6. Entries [0, fresh) have been used; those that are free again are chained from
 *     `freed` by next (an entry's number plus one).
 *  7. bucket_count is at least 15/16 of the entries in use, up to bucket_max, and
 *     at least BUCKETS_MIN; bucket b is split from b minus the largest power of two
 *     not above b. An entry's bucket is the low bits of its fingerprint.
 *  8. The geometry of a whole or partial entry is the interned one, with last_bytes
 *     from `others` under FLAG_LAST; or, GEOMETRY_OWN, one shard of `others` bytes.
 *     Both are of one shard, which has no array to point to.
 */
#ifndef STAGES_FLASH_TABLE_PARTS_H
#define STAGES_FLASH_TABLE_PARTS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "stages/flash/intern.h"
#include "stages/flash/places.h"
#include "stages/flash/table.h"

#define TABLE_MAGIC 0x6c626174u
#define PAGE_BYTES  4096u
#define BUCKETS_MIN 64u

#define STATE_MASK   0x3u
#define FLAG_EXPIRES 0x4u
#define FLAG_LAST    0x8u
#define FLAGS_MASK   (FLAG_EXPIRES | FLAG_LAST)
#define GEOMETRY_OWN 0xfffu

struct hot {
	uint64_t fingerprint;
	uint32_t next;
	uint32_t geometry : 12;
	uint32_t depth : 8; /* up to TABLE_DEPTH_MAX; 0: not told. A ghost keeps it */
	uint32_t state : 4; /* enum table_state, and flags */
	uint32_t pins : 8;
};

struct cold {
	uint8_t place[PLACE_BYTES]; /* of the first shard */
	uint8_t holds;
	uint16_t incarnation;
	uint32_t others; /* the array of the other shards; of one shard see invariant 8 */
	uint32_t parent;
	uint16_t children;
	uint16_t epoch;
};

struct table {
	uint32_t magic;
	uint32_t entries_room; /* memory for so many */
	uint32_t entries_max;  /* in use, from now on; there may be more than that */
	uint64_t seed[3];
	struct hot *hot;
	struct cold *cold;
	uint32_t *expiries; /* of entries with FLAG_EXPIRES alone */
	uint32_t expiries_end;
	uint32_t *buckets;
	uint64_t bucket_count, bucket_max;
	uint64_t bucket_mask; /* of the round of splits under way: 2^n - 1 <= bucket_count - 1 */
	uint32_t fresh, freed;
	uint32_t counts[4]; /* by enum table_state; [TABLE_FREE] is not kept */
	struct intern intern;
	struct places places;
};

static_assert(sizeof(struct table) <= PAGE_BYTES, "the geometries begin on the second page");
static_assert(sizeof(struct hot) == 16, "four a cache line");
static_assert(sizeof(struct hot) + sizeof(struct cold) + sizeof(uint32_t) + 1 <= 48,
	      "of each block, with its bucket and the mark of its record");
static_assert(TABLE_GEOMETRIES_MAX < GEOMETRY_OWN, "no number of a geometry");
static_assert(TABLE_DEPTH_MAX == 0xff && TABLE_COUNT_MAX == 0xff, "the most of 8 bits");

static inline uint64_t pages_up(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Mean chain of a hit: 1.5 entries. */
static inline uint64_t buckets_for(uint64_t entries)
{
	uint64_t buckets = entries - entries / 16;

	return buckets > BUCKETS_MIN ? buckets : BUCKETS_MIN;
}

/* The finaliser of splitmix64. */
static inline uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Space and generation as one word, scrambled once a batch. */
static inline uint64_t hash_space(uint32_t space, uint32_t generation)
{
	return scramble((uint64_t)space << 32 | generation);
}

static inline uint64_t hash_key(const struct table *table, const struct cairn_key *key,
				uint64_t space)
{
	uint64_t words[2];

	memcpy(words, key->bytes, sizeof(words));
	return fold(fold(words[0] ^ table->seed[0], words[1] ^ table->seed[1]) ^ space,
		    table->seed[2]);
}

static inline uint32_t *bucket_of(const struct table *table, uint64_t fingerprint)
{
	uint64_t bucket = fingerprint & (table->bucket_mask * 2 + 1);

	if (bucket >= table->bucket_count)
		bucket &= table->bucket_mask;
	return &table->buckets[bucket];
}

static inline enum table_state state_of(const struct table *table, uint32_t id)
{
	return (enum table_state)(table->hot[id].state & STATE_MASK);
}

/* Of an entry that may be another's parent: not as deep or deeper, as far as that is known. */
static inline bool is_shallower(const struct table *table, uint32_t parent, uint32_t id)
{
	uint32_t depth = table->hot[id].depth;

	return !depth || depth == TABLE_DEPTH_MAX || table->hot[parent].depth < depth;
}

/* Whole or partial. */
static inline bool lives(const struct table *table, uint32_t id)
{
	enum table_state state = state_of(table, id);

	return state == TABLE_WHOLE || state == TABLE_PARTIAL;
}

static inline uint32_t entries_used(const struct table *table)
{
	return table->counts[TABLE_WHOLE] + table->counts[TABLE_PARTIAL] +
	       table->counts[TABLE_GHOST];
}

static inline uint32_t shard_count_of(const struct table *table, uint32_t id)
{
	uint16_t number = table->hot[id].geometry;

	return number == GEOMETRY_OWN ? 1 : intern_at(&table->intern, number)->shard_count;
}

static inline uint8_t *place_of(const struct table *table, uint32_t id, uint32_t shard)
{
	assert(id < table->fresh && lives(table, id));
	assert(shard < shard_count_of(table, id));
	if (!shard)
		return table->cold[id].place;
	return places_at(&table->places, table->cold[id].others, shard - 1);
}

#endif
