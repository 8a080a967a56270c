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

static void note_slot(const struct cache_map *map, uint64_t word, uint64_t *held)
{
	if (shard_state(word) != SHARD_ABSENT && slot_chunk(shard_slot(word)) < map->chunk_count)
		bits_add(held, slot_chunk(shard_slot(word)));
}

/* The chunks that have something of a pinned block. */
static void note_held(void *context, uint64_t link)
{
	struct held *held = context;
	const struct cache_map *map = held->map;
	uint32_t entry = link_entry(link), count;
	const struct cache_shard *shards;

	if (entry >= map->entry_count ||
	    state_life(word_get(&map->entries[entry].state)) != link_life(link))
		return;
	shards = map_shards(map, entry);
	count = short_hint(&map->entries[entry].shard_count);
	note_slot(map, word_get(&map->entries[entry].only.word), held->bits);
	for (uint32_t i = 0; shards && i < count; i++)
		note_slot(map, word_get(&shards[i].word), held->bits);
}

void held_init(struct held *held, const struct cache_map *map)
{
	memset(held, 0, sizeof(*held));
	held->map = map;
	pins_each(map, note_held, held);
}

bool held_may_change(const struct held *held, uint32_t chunk, uint32_t units)
{
	const struct cache_map *map = held->map;
	uint32_t slots = half_hint(&map->chunks[chunk].slots);

	if (!chunk_of_class(map, chunk, 0) || chunk_of_class(map, chunk, units) ||
	    bits_have(held->bits, chunk))
		return false;
	for (uint32_t i = 0; i < slots && i < CACHE_WORDS_FAR; i++) {
		uint64_t word = word_get(map_word(map, slot_of(chunk, i))), state;
		uint32_t entry = slot_entry(word);

		if (word == 0)
			continue;
		if ((word & 3) != SLOT_LINKED || entry >= map->entry_count)
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
