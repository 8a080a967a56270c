/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hot.h"
#include "stages/cache/block.h"
#include "stages/cache/slots.h"

static struct cache_shard *shard_at(const struct cache_map *map, uint32_t entry, uint32_t shard)
{
	struct cache_shard *shards = map_shards(map, entry);

	return shards && shard < short_hint(&map->entries[entry].shard_count) ? &shards[shard]
									      : NULL;
}

uint64_t shard_look(const struct cache_map *map, uint32_t entry, uint32_t shard)
{
	const struct cache_shard *at = shard_at(map, entry, shard);

	return at ? word_get(&at->word) : 0;
}

bool shard_claim(struct cache_map *map, const struct cache_place *place)
{
	struct cache_shard *at = shard_at(map, place->entry, place->shard);
	uint64_t word;

	if (!at)
		return false;
	word = word_get(&at->word);
	return shard_state(word) == SHARD_ABSENT &&
	       word_cas(&at->word, word,
			shard_next(word, SHARD_FILLING, place->slot, map->owner, 0));
}

static bool all_there(const struct cache_map *map, uint32_t entry)
{
	const struct cache_shard *shards = map_shards(map, entry);
	uint32_t count = short_hint(&map->entries[entry].shard_count);

	for (uint32_t i = 0; shards && i < count; i++)
		if (shard_state(word_get_ordered(&shards[i].word)) != SHARD_THERE)
			return false;
	return shards != NULL;
}

bool shards_absent(const struct cache_map *map, uint32_t entry)
{
	uint32_t count = short_hint(&map->entries[entry].shard_count);

	for (uint32_t i = 0; i < count; i++)
		if (shard_state(shard_look(map, entry, i)) != SHARD_ABSENT)
			return false;
	return true;
}

void shards_settle(struct cache_map *map, uint32_t entry, uint32_t life)
{
	if (all_there(map, entry))
		entry_whole(map, entry, life);
}

static bool filling_here(const struct cache_map *map, const struct cache_place *place,
			 uint64_t word)
{
	return shard_state(word) == SHARD_FILLING && shard_owner(word) == map->owner &&
	       shard_slot(word) == place->slot;
}

bool shard_publish(struct cache_map *map, const struct cache_place *place, uint32_t raw,
		   uint32_t stored, uint32_t meta)
{
	struct cache_shard *at = shard_at(map, place->entry, place->shard);
	uint64_t word = at ? word_get(&at->word) : 0;

	if (!at || !filling_here(map, place, word) ||
	    !slots_link(map, place->slot, place->entry, place->life))
		return false;
	half_note(&at->raw, raw);
	half_note(&at->stored, stored);
	if (place->shard + 1 == short_hint(&map->entries[place->entry].shard_count))
		half_note(&map->entries[place->entry].last_bytes, raw);
	half_add(&map->metas[place->entry].units,
		 half_hint(&map->chunks[slot_chunk(place->slot)].units));
	if (!word_cas(&at->word, word, shard_next(word, SHARD_THERE, place->slot, 0, meta)))
		return false;
	shards_settle(map, place->entry, place->life);
	return true;
}

void shard_abandon(struct cache_map *map, const struct cache_place *place)
{
	struct cache_shard *at = shard_at(map, place->entry, place->shard);
	uint64_t word = at ? word_get(&at->word) : 0;

	if (at && filling_here(map, place, word))
		word_cas(&at->word, word, shard_next(word, SHARD_ABSENT, 0, 0, 0));
	slots_give(map, place->slot);
}

HIT_PATH bool shard_view(const struct cache_map *map, uint32_t entry, uint32_t shard,
			 struct cache_view *ret_view)
{
	const struct cache_shard *at = shard_at(map, entry, shard);
	uint64_t word = at ? word_get(&at->word) : 0;

	if (shard_state(word) != SHARD_THERE)
		return false;
	ret_view->slot = shard_slot(word);
	ret_view->raw = half_hint(&at->raw);
	ret_view->stored = half_hint(&at->stored);
	ret_view->meta = shard_meta(word);
	ret_view->payload = map_slot(map, ret_view->slot, ret_view->stored);
	return ret_view->payload != NULL;
}
