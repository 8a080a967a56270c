/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks that may change their class: all that is in them can go, and nobody has used any of it of
 * late. Pure looks: evict.c acts on them. Any thread.
 */
#ifndef STAGES_CACHE_COLDER_H
#define STAGES_CACHE_COLDER_H

#include "stages/cache/table.h"

/* Some of many numbers, by bits of their hashes: what is not in may be said to be. */
#define HASH_BITS  65536u
#define HASH_WORDS (HASH_BITS / 64u)

static inline bool bits_have(const uint64_t *bits, uint32_t number)
{
	uint32_t bit = number * 2654435761u % HASH_BITS;

	return bits[bit / 64] >> (bit % 64) & 1;
}

static inline void bits_add(uint64_t *bits, uint32_t number)
{
	uint32_t bit = number * 2654435761u % HASH_BITS;

	bits[bit / 64] |= UINT64_C(1) << (bit % 64);
}

/* Is the chunk of slots of @units, or, with 0, of any? */
static inline bool chunk_of_class(const struct cache_map *map, uint32_t chunk, uint32_t units)
{
	const struct cache_chunk *at = &map->chunks[chunk];

	return chunk_phase(word_get(&at->state)) == CHUNK_SLOTS &&
	       (units == 0 || half_hint(&at->units) == units);
}

/* Adds the entries that are pinned, each as it was at some time since. */
void pinned_bits(const struct cache_map *map, uint64_t *bits);

/* These, of one look. */
struct held {
	const struct cache_map *map;
	uint64_t bits[HASH_WORDS];
};

void held_init(struct held *held, const struct cache_map *map);

/*
 * Is the chunk of another class than @units, and nothing in it pinned, filling, reserved or held
 * back? Else what could go of it would go in vain.
 */
bool held_may_change(const struct held *held, uint32_t chunk, uint32_t units);

/*
 * One that may, whose blocks were all used before @stamp; the oldest of some. CACHE_NONE: none of
 * these.
 */
uint32_t colder_chunk(struct cache_map *map, const struct held *held, uint32_t units,
		      uint64_t stamp);

#endif
