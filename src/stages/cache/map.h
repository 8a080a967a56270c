/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process's view of a region: where its parts are mapped, which client it is, and
 * what it remembers for itself (hints alone: what is shared decides). Pure: no I/O.
 *
 * Threads: any, but for init and fini.
 */
#ifndef STAGES_CACHE_MAP_H
#define STAGES_CACHE_MAP_H

#include "stages/cache/pool.h"
#include "stages/cache/state.h"

#define PIN_STRIPES 8u	/* lists of free pin records, so that threads do not meet */
#define CLASS_HINTS 64u /* classes whose chunk is remembered */
#define ENTRY_STASH 256u

struct pin_stripe {
	uint64_t head; /* changes << 32 | record + 1 */
} __attribute__((aligned(64)));

struct cache_map {
	struct cache_header *header;
	struct cache_client *clients;
	struct cache_space *spaces;
	uint8_t *descs;
	struct cache_bucket *buckets;
	struct cache_entry *entries;
	struct cache_meta *metas;
	struct cache_chunk *chunks;
	uint64_t *pins;	 /* pins_max of each client */
	uint64_t *words; /* CACHE_WORDS_FAR of each chunk */
	uint8_t *payload;
	const uint8_t *lent; /* the payload again, to be read only */

	uint32_t entry_count, bucket_mask, chunk_count, pins_max;
	uint64_t seed, chunk_bytes;
	uint32_t client, owner; /* owner: client + 1 */

	/* This process's own. */
	uint64_t *my_pins;
	uint32_t *pin_next;			    /* of the lists: record + 1 */
	struct pin_stripe stripes[PIN_STRIPES + 1]; /* the last: of those from pins_long on */
	uint32_t pins_long; /* records below it are for what callers keep, too */
	uint32_t hints[CLASS_HINTS];
	uint64_t entry_cursor, sweep_cursor, chunk_cursor;
	uint64_t stash[ENTRY_STASH]; /* entry + 1 of some that were freed */
	uint64_t stash_at;
	uint64_t random; /* where sampling goes on */
	struct pool pool;

	/* Memory for far words: 0, or -ENOSPC. Called with the chunk in CHANGING. */
	int (*back_words)(void *context, uint32_t chunk);
	void *context;
};

/* An entry as it was when it was found. */
struct cache_ref {
	uint32_t entry; /* CACHE_NONE: none */
	uint64_t state;
};

static inline uint64_t ref_link(const struct cache_ref *ref)
{
	return link_of(ref->entry, state_life(ref->state));
}

/* Sets what follows from the header at @base, which is checked; all else is zero. */
void map_init(struct cache_map *map, void *base, const void *lent);

/* Where sampling goes on. */
static inline uint64_t map_random(struct cache_map *map)
{
	uint64_t z = word_add(&map->random, UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Fills the offsets of a header whose size, entries and pins_max are set. False: too small. */
bool layout_plan(struct cache_header *header);

/* Of what a header says for good: all before its crc. */
uint32_t layout_crc(const struct cache_header *header);

static inline uint8_t *map_payload(const struct cache_map *map, uint64_t slot)
{
	const struct cache_chunk *chunk = &map->chunks[slot_chunk(slot)];

	return map->payload + slot_chunk(slot) * map->chunk_bytes +
	       (uint64_t)slot_index(slot) * half_hint(&chunk->units) * CACHE_UNIT;
}

/* Does a slot lie in its chunk, with @bytes of payload? What others wrote is not trusted. */
static inline bool map_slot_ok(const struct cache_map *map, uint64_t slot, uint64_t bytes)
{
	uint64_t size;

	if (slot_chunk(slot) >= map->chunk_count)
		return false;
	size = (uint64_t)half_hint(&map->chunks[slot_chunk(slot)].units) * CACHE_UNIT;
	return bytes <= size && (slot_index(slot) + UINT64_C(1)) * size <= map->chunk_bytes;
}

/* The payload of a slot; NULL: it does not lie in its chunk with @bytes of payload. */
static inline uint8_t *map_slot(const struct cache_map *map, uint64_t slot, uint64_t bytes)
{
	uint64_t size, at;

	if (slot_chunk(slot) >= map->chunk_count)
		return NULL;
	/* Read once: it may be broken between two reads. */
	size = (uint64_t)half_hint(&map->chunks[slot_chunk(slot)].units) * CACHE_UNIT;
	at = slot_index(slot) * size;
	if (bytes > size || at + size > map->chunk_bytes)
		return NULL;
	return map->payload + slot_chunk(slot) * map->chunk_bytes + at;
}

/* Of a pinned entry; NULL: what it says cannot be. */
static inline struct cache_shard *map_shards(const struct cache_map *map, uint32_t entry)
{
	struct cache_entry *at = &map->entries[entry];
	uint32_t count = short_hint(&at->shard_count);
	uint64_t array;

	if (count == 1)
		return &at->only;
	array = word_get(&at->only.word);
	if (count == 0 || shard_state(array) != SHARD_THERE)
		return NULL;
	return (struct cache_shard *)(void *)map_slot(map, shard_slot(array),
						      count * sizeof(struct cache_shard));
}

static inline uint64_t *map_word(const struct cache_map *map, uint64_t slot)
{
	uint32_t chunk = slot_chunk(slot), index = slot_index(slot);

	if (index < CACHE_WORDS_NEAR)
		return &map->chunks[chunk].words[index];
	return &map->words[(uint64_t)chunk * CACHE_WORDS_FAR + index];
}

#endif
