/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table: from a key to its entry.
 *
 * A key has two buckets, a line each. A word of a bucket has 32 bits of the key's hash and
 * the number of an entry; the entry has the whole key. Readers take no lock and write
 * nothing.
 *
 * Invariants, numbered:
 *  1. A live entry stands in one of its key's two buckets. Words may name entries that are
 *     not live, or have another key by now: those are void.
 *  2. No two live entries have the same key: who puts one in looks for another after, and
 *     withdraws if there is one.
 *  3. A key does not change within a life.
 */
#ifndef STAGES_CACHE_TABLE_H
#define STAGES_CACHE_TABLE_H

#include <cairn/store.h>

#include "stages/cache/map.h"

/* A key as the table knows it: with the namespace and its generation. */
struct cache_key {
	uint64_t word[2];
	uint64_t home; /* as an entry has it */
};

static inline uint64_t home_of(uint32_t space, uint32_t generation)
{
	return (uint64_t)generation << 32 | space;
}

static inline uint32_t home_space(uint64_t home)
{
	return (uint32_t)home;
}

static inline uint32_t home_generation(uint64_t home)
{
	return (uint32_t)(home >> 32);
}

struct cache_key cache_key_of(const struct cairn_key *key, uint64_t home);

/* The live entry of @key; entry is CACHE_NONE where there is none. */
struct cache_ref cached_find(const struct cache_map *map, const struct cache_key *key);

/* As cached_find(); what a use of the entry will touch is asked for on the way. */
struct cache_ref cached_find_cold(const struct cache_map *map, const struct cache_key *key);

/*
 * cached_find() of many keys, in their order, with the memory asked for so far ahead that none
 * is waited for: buckets of two steps on, entries of the next one. More at once than a
 * processor has lines under way makes it wait as it asks: 24 keys a step took as long as 32
 * at a time with nothing ahead.
 */
#define CACHED_STEP  16u
#define CACHED_AHEAD 64u /* keys at once; a power of two, of three steps at least */

struct cached_walk {
	const struct cache_map *map;
	const struct cairn_key *keys; /* lent */
	size_t count;
	uint64_t home;
	size_t placed, guessed, found; /* so many of them; found <= guessed <= placed */
	struct cached_place {
		uint32_t bucket[2];
		uint32_t tag;
	} places[CACHED_AHEAD];
	uint32_t guesses[CACHED_AHEAD];
};

void cached_walk_begin(struct cached_walk *walk, const struct cache_map *map,
		       const struct cairn_key *keys, size_t count, uint64_t home);

/* Of the next keys, at most CACHED_STEP: how many; 0: none is left. */
uint32_t cached_walk_on(struct cached_walk *walk, struct cache_ref *ret_refs);

/* What a new entry is made of. */
struct cache_shape {
	enum entry_kind kind; /* HIDDEN or PART */
	uint32_t shard_count;
	uint32_t shard_bytes;
};

/* Why cached_add() did not: -EAGAIN, or -ENOSPC and what was missing. */
struct cache_lack {
	int error;
	uint32_t units; /* of a slot; 0: an entry, or, with @place, a place in its buckets */
	bool place;
};

/*
 * The entry of @key, found or made, pinned in @record; *ret_made: it was made, with all
 * shards absent. CACHE_NONE: a slot, an entry or a place in its buckets could not be had
 * (-ENOSPC), or another one is being put in by somebody who does not get on with it
 * (-EAGAIN).
 */
struct cache_ref cached_add(struct cache_map *map, uint32_t record, const struct cache_key *key,
			    const struct cache_shape *shape, bool *ret_made,
			    struct cache_lack *ret_lack);

/*
 * LIVE -> GONE: found by nobody from now on. False: that life is over, or it was gone, or it
 * is in flight.
 */
bool entry_remove(struct cache_map *map, const struct cache_ref *ref);

/* DIRTY -> in flight, by this client. False: it is not dirty, or in flight already. */
bool entry_fly(struct cache_map *map, uint32_t entry, uint32_t life);
/*
 * In flight, by this client -> DIRTY as before, WHOLE or GONE, in one step: whoever dies leaves no
 * entry clean that is to go.
 */
enum entry_end { END_DIRTY, END_CLEAN, END_GONE };
void entry_land(struct cache_map *map, uint32_t entry, uint32_t life, enum entry_end end);

/*
 * To WHOLE, or, where the entry says so, to DIRTY; the caller has it pinned. False: it was
 * removed.
 */
bool entry_whole(struct cache_map *map, uint32_t entry, uint32_t life);

/* HIDDEN -> PART: its block is whole below. The caller has it pinned. */
void entry_unhide(struct cache_map *map, uint32_t entry, uint32_t life);

/* DEAD, by this client: takes it out of its buckets, frees its slots, frees it. */
void entry_take_apart(struct cache_map *map, uint32_t entry);

/*
 * Tells a pinned entry its parent. The first one told stays. Nothing happens where the
 * parent is not there, or would be its own ancestor within 64 steps.
 */
void entry_set_parent(struct cache_map *map, const struct cache_ref *child,
		      const struct cache_ref *parent);

static inline uint32_t entry_children(const struct cache_map *map, uint32_t entry)
{
	return (uint32_t)(word_get_ordered(&map->metas[entry].children) & 0xffffff);
}

/* What its slots take. */
static inline uint64_t entry_bytes(const struct cache_map *map, uint32_t entry)
{
	return (uint64_t)half_hint(&map->metas[entry].units) * CACHE_UNIT;
}

/* Could a word of that bucket, as it is, name the entry that it names? Else it is void. */
bool cached_way_void(const struct cache_map *map, uint32_t bucket, uint64_t way);

/* The ways of bucket @which (0, 1) of a key, for who must make room in it. */
const uint64_t *cached_ways(const struct cache_map *map, const struct cache_key *key,
			    uint32_t which);

#endif
