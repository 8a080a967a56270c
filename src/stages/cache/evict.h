/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eviction: some blocks are looked at, the ones that score least go. Any thread of any
 * process, any number at once; nothing is kept in order, and nothing is waited for.
 *
 * Invariants, numbered:
 *  1. What goes is live, not DIRTY, a leaf (no entry names it as parent) but for 2, and pinned
 *     by nobody: it was EVICTING while the pins of all clients were looked at, and is so still.
 *  2. A block with children goes in three cases alone: where no leaf of the size of slots, or,
 *     for an entry, no leaf at all can go, that one does which is next to an end of its chain, or
 *     else the least; a chunk that must change its class is emptied of all its blocks but pinned
 *     ones; and of a key whose buckets are both full of blocks with children or pins the least
 *     of those without pins goes.
 */
#ifndef STAGES_CACHE_EVICT_H
#define STAGES_CACHE_EVICT_H

#include "policy/score.h"
#include "stages/cache/table.h"

struct evicted {
	uint32_t blocks;
	uint32_t parents; /* of these, that had children */
	uint32_t fetched; /* ... that a prefetch brought up, and nobody used */
};

/*
 * Makes room for one slot of @units, or, with 0, for an entry. False: all that could go is
 * pinned. Adds what went to @ret_evicted.
 */
bool evict_for(struct cache_map *map, enum policy_kind policy, uint32_t units,
	       struct evicted *ret_evicted);

/* Room in the buckets of a key: both are full. One block of them goes, a parent if no leaf can. */
bool evict_in_buckets(struct cache_map *map, enum policy_kind policy, const struct cache_key *key,
		      struct evicted *ret_evicted);

/* GONE: its memory comes back, if nobody pins it any more. */
bool reclaim_gone(struct cache_map *map, uint32_t entry);
/* Nothing of it is there, and nobody pins it: it goes. A claim of a shard is under a pin. */
bool reclaim_bare(struct cache_map *map, uint32_t entry, uint32_t life);
/* reclaim_gone() of @count entries, going round. */
void reclaim_sweep(struct cache_map *map, uint32_t count);

#endif
