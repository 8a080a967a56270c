/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays of places in the log: where the shards of a block lie, beyond its first.
 * Pure, no locks: a part of the table (table.h), which owns it.
 *
 * Invariants, numbered:
 *  1. An array of n places takes 9 * n bytes, rounded up to 4. Arrays of one length
 *     share chunks of 64 KiB, and a chunk whose arrays are all free serves any length.
 *  2. Chunks that hold arrays and have a free slot are in the list of their length.
 */
#ifndef STAGES_FLASH_PLACES_H
#define STAGES_FLASH_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/encode.h"
#include "stages/flash/table.h"

#define PLACE_BYTES 9u

struct places_chunk {
	uint32_t next, prev;  /* in the list of its length, or of free chunks; plus one, 0: none */
	uint16_t count;	      /* places of an array; 0: the chunk is free */
	uint16_t used, fresh; /* slots: taken, and ever taken */
	uint16_t freed;	      /* the first free one below fresh, plus one; each names the next */
};

struct places {
	uint8_t *memory;
	struct places_chunk *chunks;
	uint32_t *lists; /* by length */
	uint64_t shards, shards_max;
	uint32_t chunk_fresh, chunk_freed, chunk_used, chunk_max;
};

size_t places_bytes(uint64_t shards_max);
/* @memory: places_bytes(), zeroed, page-aligned. */
void places_init(struct places *places, void *memory, uint64_t shards_max);
/* From now on; not more than it was made for. What is there stays. */
void places_limit(struct places *places, uint64_t shards_max);
/* An array of @count >= 1 places, all absent; 0: full. */
uint32_t places_take(struct places *places, uint32_t count);
void places_give(struct places *places, uint32_t handle, uint32_t count);
/* The place number @at of the array. */
uint8_t *places_at(const struct places *places, uint32_t handle, uint32_t at);
uint64_t places_memory(const struct places *places); /* touched, bytes */
/*
 * Checks the chunks; *ret_sum is the sum of places_mark() of all arrays that are
 * taken. False: damaged.
 */
bool places_check(const struct places *places, uint64_t *ret_sum);
uint64_t places_mark(uint32_t handle, uint32_t count);

/* One place as bytes: the unit, 20 bits of length, 20 of the number. A length of 0: absent. */
void place_encode(const struct table_place *place, uint8_t bytes[PLACE_BYTES]);
static inline bool place_decode(const uint8_t bytes[PLACE_BYTES], struct table_place *ret_place)
{
	uint32_t word = get_u32(bytes + 4);

	ret_place->unit = get_u32(bytes);
	ret_place->length = word & TABLE_LENGTH_MAX;
	ret_place->number = word >> 20 | (uint32_t)bytes[8] << 12;
	return ret_place->length > 0;
}

#endif
