/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/cache/slots.h"

uint32_t slots_units(uint64_t bytes)
{
	uint64_t align = bytes < CACHE_PAGE ? CACHE_UNIT : CACHE_PAGE;
	uint64_t step = align;

	/* Sixteen sizes for each power of two. */
	while (step * 32 <= bytes)
		step *= 2;
	bytes = (bytes + step - 1) / step * step;
	return (uint32_t)(bytes / CACHE_UNIT);
}

/* Where a slot of that class was free last: a guess. */
static uint32_t hint_chunk(struct cache_map *map, uint32_t units)
{
	uint32_t chunk = half_hint(&map->hints[(units * 2654435761u >> 16) % CLASS_HINTS]);

	return chunk < map->chunk_count ? chunk : 0;
}

static void hint_set_chunk(struct cache_map *map, uint32_t units, uint32_t chunk)
{
	half_note(&map->hints[(units * 2654435761u >> 16) % CLASS_HINTS], chunk);
}

/* Is the chunk of the class, and may have a free slot? */
static bool may_have(const struct cache_map *map, uint32_t chunk, uint32_t units)
{
	const struct cache_chunk *at = &map->chunks[chunk];

	return chunk_phase(word_get(&at->state)) == CHUNK_SLOTS && half_hint(&at->units) == units &&
	       (int32_t)half_hint(&at->free_slots) > 0;
}

/* As many as a chunk of that class has. */
static uint32_t slots_of(const struct cache_map *map, uint32_t units)
{
	uint64_t slots = map->chunk_bytes / CACHE_UNIT / units;

	return slots < CACHE_WORDS_FAR ? (uint32_t)slots : CACHE_WORDS_FAR;
}

static bool take_in_chunk(struct cache_map *map, uint32_t chunk, uint32_t units, uint64_t *ret_slot)
{
	struct cache_chunk *at = &map->chunks[chunk];
	uint64_t state = word_get(&at->state);
	uint32_t slots = half_hint(&at->slots), first = half_hint(&at->cursor);

	if (chunk_phase(state) != CHUNK_SLOTS || half_hint(&at->units) != units ||
	    slots > slots_of(map, units))
		return false;
	first = first < slots ? first : 0;
	for (uint32_t i = 0; i < slots; i++) {
		uint32_t index = first + i < slots ? first + i : first + i - slots;
		uint64_t slot = slot_of(chunk, index);
		uint64_t *word = map_word(map, slot);

		if (word_hint(word) != 0 || !word_cas(word, 0, slot_reserved(map->owner)))
			continue;
		if (word_get_ordered(&at->state) != state) {
			word_cas(word, slot_reserved(map->owner), 0);
			return false;
		}
		half_note(&at->cursor, index + 1 < slots ? index + 1 : 0);
		half_add(&at->free_slots, UINT32_MAX);
		*ret_slot = slot;
		return true;
	}
	half_note(&at->free_slots, 0);
	return false;
}

/* CHANGING, by this client: gives it the class. False: no memory for its words. */
static bool give_class(struct cache_map *map, uint32_t chunk, uint32_t units)
{
	struct cache_chunk *at = &map->chunks[chunk];
	uint32_t slots = slots_of(map, units);
	uint64_t state = word_get(&at->state);

	if (slots > CACHE_WORDS_NEAR && half_get(&at->far_words) == 0) {
		if (map->back_words(map->context, chunk) < 0) {
			word_cas(&at->state, state, chunk_next(state, CHUNK_FREE, 0));
			return false;
		}
		half_put(&at->far_words, 1);
	}
	half_note(&at->slots, slots);
	half_note(&at->units, units);
	half_note(&at->cursor, 0);
	half_note(&at->free_slots, slots);
	return word_cas(&at->state, state, chunk_next(state, CHUNK_SLOTS, 0));
}

/* A free chunk of that class from now on, or CACHE_NONE. */
static uint32_t take_chunk(struct cache_map *map, uint32_t units)
{
	uint64_t first = word_hint(&map->chunk_cursor);

	for (uint32_t i = 0; i < map->chunk_count; i++) {
		uint32_t chunk = (uint32_t)((first + i) % map->chunk_count);
		uint64_t *word = &map->chunks[chunk].state;
		uint64_t state = word_get(word);

		if (chunk_phase(state) != CHUNK_FREE ||
		    !word_cas(word, state, chunk_next(state, CHUNK_CHANGING, map->owner)))
			continue;
		word_note(&map->chunk_cursor, chunk);
		if (give_class(map, chunk, units))
			return chunk;
	}
	return CACHE_NONE;
}

bool slots_take(struct cache_map *map, uint32_t units, uint64_t *ret_slot)
{
	uint32_t hint = hint_chunk(map, units), chunk;

	assert(units > 0 && units <= map->chunk_bytes / CACHE_UNIT);
	if (take_in_chunk(map, hint, units, ret_slot))
		return true;
	for (uint32_t i = 1; i < map->chunk_count; i++) {
		chunk = (hint + i) % map->chunk_count;
		if (!may_have(map, chunk, units) || !take_in_chunk(map, chunk, units, ret_slot))
			continue;
		hint_set_chunk(map, units, chunk);
		return true;
	}
	chunk = take_chunk(map, units);
	if (chunk == CACHE_NONE)
		return false;
	hint_set_chunk(map, units, chunk);
	return take_in_chunk(map, chunk, units, ret_slot);
}

static void freed(struct cache_map *map, uint64_t slot)
{
	struct cache_chunk *at = &map->chunks[slot_chunk(slot)];

	half_note(&at->cursor, slot_index(slot));
	half_add(&at->free_slots, 1);
	hint_set_chunk(map, half_hint(&at->units), slot_chunk(slot));
}

void slots_give(struct cache_map *map, uint64_t slot)
{
	if (word_cas(map_word(map, slot), slot_reserved(map->owner), 0))
		freed(map, slot);
}

bool slots_link(struct cache_map *map, uint64_t slot, uint32_t entry, uint32_t life)
{
	return word_cas(map_word(map, slot), slot_reserved(map->owner), slot_linked(entry, life));
}

void slots_free(struct cache_map *map, uint64_t slot, uint32_t entry, uint32_t life)
{
	if (word_cas(map_word(map, slot), slot_linked(entry, life), 0))
		freed(map, slot);
}

bool chunk_empty(struct cache_map *map, uint32_t chunk)
{
	struct cache_chunk *at = &map->chunks[chunk];
	uint64_t state = word_get(&at->state), changing;
	bool empty = true;

	if (chunk_phase(state) != CHUNK_SLOTS)
		return false;
	changing = chunk_next(state, CHUNK_EMPTYING, map->owner);
	if (!word_cas(&at->state, state, changing))
		return false;
	for (uint32_t i = 0; i < half_hint(&at->slots) && i < CACHE_WORDS_FAR && empty; i++)
		empty = word_get_ordered(map_word(map, slot_of(chunk, i))) == 0;
	return word_cas(&at->state, changing,
			chunk_next(changing, empty ? CHUNK_FREE : CHUNK_SLOTS, 0)) &&
	       empty;
}

bool chunk_back_begin(struct cache_map *map, uint32_t chunk)
{
	uint64_t *word = &map->chunks[chunk].state;
	uint64_t state = word_get(word);

	return chunk_phase(state) == CHUNK_BARE &&
	       word_cas(word, state, chunk_next(state, CHUNK_BACKING, map->owner));
}

void chunk_back_end(struct cache_map *map, uint32_t chunk, bool backed)
{
	uint64_t *word = &map->chunks[chunk].state;
	uint64_t state = word_get(word);

	if (chunk_phase(state) != CHUNK_BACKING || chunk_owner(state) != map->owner)
		return;
	if (word_cas(word, state, chunk_next(state, backed ? CHUNK_FREE : CHUNK_LOST, 0)))
		half_add(backed ? &map->header->backed : &map->header->unbacked, 1);
}

uint32_t chunk_give_up(struct cache_map *map)
{
	for (uint32_t chunk = 0; chunk < map->chunk_count; chunk++) {
		uint64_t *word = &map->chunks[chunk].state;
		uint64_t state = word_get(word);

		if (chunk_phase(state) != CHUNK_FREE ||
		    !word_cas(word, state, chunk_next(state, CHUNK_LOST, 0)))
			continue;
		half_add(&map->header->backed, UINT32_MAX);
		return chunk;
	}
	return CACHE_NONE;
}
