/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/cache/colder.h"

#include <string.h>

#include "stages/cache/pins.h"

#define STEAL_PROBES 16u
#define NEWEST_LOOKS 64u /* slots of a chunk by which it is judged */
#define NEWEST_MIN   8u	 /* blocks among them: else it is not known */

/* When the newest of some blocks of a chunk was used; UINT64_MAX: too few are there to tell. */
static uint64_t newest_in(const struct cache_map *map, uint32_t chunk)
{
	uint32_t slots = half_hint(&map->chunks[chunk].slots), seen = 0, step;
	uint64_t newest = 0;

	step = slots < NEWEST_LOOKS ? 1 : slots / NEWEST_LOOKS;
	for (uint32_t i = 0; i < slots && i < CACHE_WORDS_FAR; i += step) {
		uint64_t word = word_get(map_word(map, slot_of(chunk, i))), stamp;
		uint32_t entry = slot_entry(word);

		if ((word & 3) != SLOT_LINKED || entry >= map->entry_count)
			continue;
		stamp = word_hint(&map->metas[entry].stamp);
		newest = stamp > newest ? stamp : newest;
		seen++;
	}
	return seen >= NEWEST_MIN || seen == slots ? newest : UINT64_MAX;
}

static void note_pinned(void *context, uint64_t link)
{
	bits_add(context, link_entry(link));
}

void pinned_bits(const struct cache_map *map, uint64_t *bits)
{
	pins_each(map, note_pinned, bits);
}

void held_init(struct held *held, const struct cache_map *map)
{
	memset(held, 0, sizeof(*held));
	held->map = map;
	pinned_bits(map, held->bits);
}

bool held_may_change(const struct held *held, uint32_t chunk, uint32_t units)
{
	const struct cache_map *map = held->map;
	uint32_t slots = half_hint(&map->chunks[chunk].slots);

	if (!chunk_of_class(map, chunk, 0) || chunk_of_class(map, chunk, units))
		return false;
	for (uint32_t i = 0; i < slots && i < CACHE_WORDS_FAR; i++) {
		uint64_t word = word_get(map_word(map, slot_of(chunk, i))), state;
		uint32_t entry = slot_entry(word);

		if (word == 0)
			continue;
		if ((word & 3) != SLOT_LINKED || entry >= map->entry_count ||
		    bits_have(held->bits, entry))
			return false;
		state = word_get(&map->entries[entry].state);
		if (!state_may_go(state) && state_phase(state) != PHASE_GONE)
			return false;
	}
	return true;
}

uint32_t colder_chunk(struct cache_map *map, const struct held *held, uint32_t units,
		      uint64_t stamp)
{
	uint32_t best = CACHE_NONE;

	for (uint32_t i = 0; i < STEAL_PROBES; i++) {
		uint32_t chunk = (uint32_t)(map_random(map) % map->chunk_count);
		uint64_t newest;

		if (!chunk_of_class(map, chunk, 0) || chunk_of_class(map, chunk, units))
			continue;
		newest = newest_in(map, chunk);
		if (newest >= stamp || !held_may_change(held, chunk, units))
			continue;
		stamp = newest;
		best = chunk;
	}
	return best;
}
