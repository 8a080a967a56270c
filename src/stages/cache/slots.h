/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: chunks, and slots of one size in each.
 *
 * Invariants, numbered:
 *  1. A slot's word says whose it is: nobody's (0), a client's that fills it, or an
 *     entry's in one of its lives. What a word says of a life that is over, or of a client
 *     that is dead with all its I/O, is void, and whoever finds it frees the slot.
 *  2. A chunk changes its class, or loses it, only while all its words are 0; who takes
 *     a slot looks at the chunk again after, and gives it back if the chunk has changed.
 *  3. Words lie apart from payload: a late hand on one cannot touch a byte of a block.
 */
#ifndef STAGES_CACHE_SLOTS_H
#define STAGES_CACHE_SLOTS_H

#include "stages/cache/map.h"

/* The size of slot, in units, for so many bytes: at most a 16th more than a page's round. */
uint32_t slots_units(uint64_t bytes);

/* A slot of that class, reserved by this client. False: none is free, nor a chunk. */
bool slots_take(struct cache_map *map, uint32_t units, uint64_t *ret_slot);
void slots_give(struct cache_map *map, uint64_t slot); /* a reserved one of this client */

/* Reserved by this client -> the entry's. False: it was not: somebody broke the region. */
bool slots_link(struct cache_map *map, uint64_t slot, uint32_t entry, uint32_t life);
/* The entry's -> free; nothing, where it is not its. */
void slots_free(struct cache_map *map, uint64_t slot, uint32_t entry, uint32_t life);

/* A chunk all of whose slots are free loses its class. False: one is in use. */
bool chunk_empty(struct cache_map *map, uint32_t chunk);

/* For whoever gets chunks their memory. BARE -> BACKING, false: another state, or hand. */
bool chunk_back_begin(struct cache_map *map, uint32_t chunk);
void chunk_back_end(struct cache_map *map, uint32_t chunk, bool backed);
/* A FREE chunk is LOST from now on, its memory the caller's to give back. CACHE_NONE: none. */
uint32_t chunk_give_up(struct cache_map *map);

#endif
