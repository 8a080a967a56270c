/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wrong.h"
#include "stages/cache/block.h"
#include "stages/cache/pins.h"
#include "stages/cache/recover.h"
#include "stages/cache/slots.h"
#include "sys/sys.h"

struct check {
	const struct cache_map *map;
	struct wrong why;
	bool idle;
	uint8_t *had;	    /* a bit for each slot of each chunk: an entry has it */
	uint32_t *ways;	    /* of each entry: words of buckets that name it */
	uint32_t *children; /* of each entry */
	uint64_t whole;
};

static bool lives(const struct check *check, uint32_t entry)
{
	enum entry_phase phase = state_phase(word_get(&check->map->entries[entry].state));

	return phase == PHASE_LIVE || phase == PHASE_GONE;
}

/* ---- entries -------------------------------------------------------------------- */

/* A slot that the entry says is its: it is, and nobody else's. */
static bool check_slot(struct check *check, uint32_t entry, uint64_t slot, uint64_t bytes,
		       uint64_t word)
{
	const struct cache_map *map = check->map;
	uint64_t bit = (uint64_t)slot_chunk(slot) * CACHE_WORDS_FAR + slot_index(slot);

	if (!map_slot_ok(map, slot, bytes))
		return wrong(&check->why, "entry %u: slot %llx has no room for %llu bytes", entry,
			     (unsigned long long)slot, (unsigned long long)bytes);
	if (chunk_phase(word_get(&map->chunks[slot_chunk(slot)].state)) != CHUNK_SLOTS)
		return wrong(&check->why, "entry %u: slot %llx is in a chunk without slots", entry,
			     (unsigned long long)slot);
	if (word_get(map_word(map, slot)) != word)
		return wrong(&check->why, "entry %u: slot %llx says %llx, not %llx", entry,
			     (unsigned long long)slot,
			     (unsigned long long)word_get(map_word(map, slot)),
			     (unsigned long long)word);
	if (check->had[bit / 8] >> (bit % 8) & 1)
		return wrong(&check->why, "entry %u: slot %llx is had twice", entry,
			     (unsigned long long)slot);
	check->had[bit / 8] |= (uint8_t)(1u << (bit % 8));
	return true;
}

static bool check_shard(struct check *check, uint32_t entry, uint32_t life,
			const struct cache_shard *shard, uint32_t *ret_there)
{
	uint64_t word = word_get(&shard->word);

	switch (shard_state(word)) {
	case SHARD_ABSENT:
		return true;
	case SHARD_FILLING:
		if (check->idle)
			return wrong(&check->why, "entry %u: a shard is filling, by client %u",
				     entry, shard_owner(word) - 1);
		return check_slot(check, entry, shard_slot(word), 0,
				  slot_reserved(shard_owner(word)));
	case SHARD_THERE:
		++*ret_there;
		return check_slot(check, entry, shard_slot(word), half_hint(&shard->stored),
				  slot_linked(entry, life));
	}
	return wrong(&check->why, "entry %u: a shard's word is %llx", entry,
		     (unsigned long long)word);
}

static bool check_shards(struct check *check, uint32_t entry, uint64_t state)
{
	const struct cache_map *map = check->map;
	uint32_t count = short_hint(&map->entries[entry].shard_count), there = 0;
	const struct cache_shard *shards = map_shards(map, entry);

	if (!shards || count == 0 || count > CAIRN_SHARD_COUNT_MAX)
		return wrong(&check->why, "entry %u: %u shards, and no place for them", entry,
			     count);
	if (count > 1 &&
	    !check_slot(check, entry, shard_slot(word_get(&map->entries[entry].only.word)),
			count * sizeof(*shards), slot_linked(entry, state_life(state))))
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!check_shard(check, entry, state_life(state), &shards[i], &there))
			return false;
	if (state_phase(state) != PHASE_LIVE)
		return true;
	if (state_whole(state) != (there == count))
		return wrong(&check->why, "entry %u: %u of %u shards are there, and its kind is %u",
			     entry, there, count, state_kind(state));
	check->whole += there == count;
	if (check->idle && state_flying(state))
		return wrong(&check->why, "entry %u is in flight, by client %u", entry,
			     state_owner(state) - 1);
	return true;
}

static bool check_key(struct check *check, uint32_t entry)
{
	const struct cache_map *map = check->map;
	const struct cache_entry *at = &map->entries[entry];
	struct cache_key key = {
		.word = {word_get(&at->key[0]), word_get(&at->key[1])},
		.home = word_get(&at->home),
	};
	uint32_t found = cached_find(map, &key).entry;

	if (check->ways[entry] != 1)
		return wrong(&check->why, "entry %u stands in %u places of its buckets", entry,
			     check->ways[entry]);
	if (state_phase(word_get(&at->state)) == PHASE_LIVE && found != entry)
		return wrong(&check->why, "entry %u is not found by its key, but %d", entry,
			     (int)found);
	return true;
}

static bool check_entry(struct check *check, uint32_t entry)
{
	const struct cache_map *map = check->map;
	uint64_t state = word_get(&map->entries[entry].state);

	if (state_phase(state) == PHASE_FREE)
		return check->ways[entry] == 0 ||
		       wrong(&check->why, "entry %u is free, and in a bucket", entry);
	if (!lives(check, entry) || (check->idle && state_phase(state) != PHASE_LIVE))
		return wrong(&check->why, "entry %u is in phase %u, of client %d", entry,
			     state_phase(state), (int)state_owner(state) - 1);
	if (entry_children(map, entry) != check->children[entry])
		return wrong(&check->why, "entry %u has %u children, and counts %u", entry,
			     check->children[entry], entry_children(map, entry));
	return check_key(check, entry) && check_shards(check, entry, state);
}

/* ---- the rest -------------------------------------------------------------------- */

static bool count_ways(struct check *check)
{
	const struct cache_map *map = check->map;

	for (uint32_t b = 0; b <= map->bucket_mask; b++)
		for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++) {
			uint64_t way = word_get(&map->buckets[b].ways[i]);

			if (way == 0)
				continue;
			if (cached_way_void(map, b, way))
				return wrong(&check->why, "bucket %u names %u, which is not its", b,
					     (uint32_t)way - 1);
			check->ways[(uint32_t)way - 1]++;
		}
	return true;
}

static void count_children(struct check *check)
{
	const struct cache_map *map = check->map;

	for (uint32_t i = 0; i < map->entry_count; i++) {
		uint64_t parent = word_get(&map->metas[i].parent);
		uint32_t up = link_entry(parent);

		if (parent != 0 && up < map->entry_count && lives(check, i) &&
		    state_life(word_get(&map->entries[up].state)) == link_life(parent))
			check->children[up]++;
	}
}

/* Words that no entry has are free; of a chunk without slots all are. */
static bool check_words(struct check *check, uint32_t chunk)
{
	const struct cache_map *map = check->map;
	const struct cache_chunk *at = &map->chunks[chunk];
	uint32_t count = half_hint(&at->far_words) ? CACHE_WORDS_FAR : CACHE_WORDS_NEAR;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t bit = (uint64_t)chunk * CACHE_WORDS_FAR + i;
		uint64_t word = word_get(map_word(map, slot_of(chunk, i)));

		if (word != 0 && !(check->had[bit / 8] >> (bit % 8) & 1))
			return wrong(&check->why, "slot %u of chunk %u is %llx, and nobody's", i,
				     chunk, (unsigned long long)word);
	}
	return true;
}

static bool check_chunks(struct check *check)
{
	const struct cache_map *map = check->map;
	uint32_t backed = 0, lost = 0;

	for (uint32_t i = 0; i < map->chunk_count; i++) {
		const struct cache_chunk *at = &map->chunks[i];
		enum chunk_phase phase = chunk_phase(word_get(&at->state));

		if (phase == CHUNK_BACKING || phase == CHUNK_CHANGING || phase == CHUNK_EMPTYING ||
		    chunk_owner(word_get(&at->state)) != 0)
			return wrong(&check->why, "chunk %u is in phase %u, of client %d", i, phase,
				     (int)chunk_owner(word_get(&at->state)) - 1);
		if (phase == CHUNK_SLOTS &&
		    (uint64_t)half_hint(&at->slots) * half_hint(&at->units) * CACHE_UNIT >
			    map->chunk_bytes)
			return wrong(&check->why, "chunk %u: %u slots of %u units", i,
				     half_hint(&at->slots), half_hint(&at->units));
		if (!check_words(check, i))
			return false;
		backed += phase == CHUNK_FREE || phase == CHUNK_SLOTS;
		lost += phase == CHUNK_LOST;
	}
	if (backed != half_hint(&map->header->backed) || half_hint(&map->header->unbacked) > lost)
		return wrong(&check->why, "%u chunks have memory, %u none: the header says %u, %u",
			     backed, lost, half_hint(&map->header->backed),
			     half_hint(&map->header->unbacked));
	return true;
}

static void check_pin(void *context, uint64_t link)
{
	struct check *check = context;
	const struct cache_map *map = check->map;

	if (check->idle)
		wrong(&check->why, "entry %u is pinned", link_entry(link));
	else if (link_entry(link) >= map->entry_count || !lives(check, link_entry(link)) ||
		 state_life(word_get(&map->entries[link_entry(link)].state)) != link_life(link))
		wrong(&check->why, "a pin names entry %u in life %u, which is over",
		      link_entry(link), link_life(link));
	else
		return;
	check->whole = UINT64_MAX;
}

static bool check_all(struct check *check)
{
	const struct cache_map *map = check->map;

	pins_each(map, check_pin, check);
	if (check->whole == UINT64_MAX || !count_ways(check))
		return false;
	count_children(check);
	for (uint32_t i = 0; i < map->entry_count; i++)
		if (!check_entry(check, i))
			return false;
	if (!check_chunks(check))
		return false;
	if (check->whole != word_get(&map->header->blocks))
		return wrong(&check->why, "%llu blocks are whole: the header says %llu",
			     (unsigned long long)check->whole,
			     (unsigned long long)word_get(&map->header->blocks));
	return true;
}

bool cache_check(const struct cache_map *map, bool idle, char *why, size_t why_bytes)
{
	struct check check = {.map = map, .why = {why, why_bytes}, .idle = idle};
	const struct sys *sys = &sys_native;
	bool ret;

	check.had = sys_zalloc(sys, 16, map->chunk_count * (CACHE_WORDS_FAR / 8));
	check.ways = sys_zalloc(sys, 16, map->entry_count * sizeof(*check.ways));
	check.children = sys_zalloc(sys, 16, map->entry_count * sizeof(*check.children));
	if (check.had && check.ways && check.children)
		ret = check_all(&check);
	else
		ret = wrong(&check.why, "no memory for the check");
	sys->free(check.had);
	sys->free(check.ways);
	sys->free(check.children);
	return ret;
}
