/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/cache/block.h"
#include "stages/cache/evict.h"
#include "stages/cache/pins.h"
#include "stages/cache/recover.h"
#include "stages/cache/slots.h"

/*
 * Who holds a block back has taken all of its shards before it says so. If one is absent, that one
 * has died meanwhile, and what it had put in was never acknowledged, nor asked for below.
 */
static void drop_half_held(struct cache_map *map, uint32_t entry, uint32_t life)
{
	const struct cache_ref ref = {entry, word_get(&map->entries[entry].state)};
	const struct cache_shard *shards = map_shards(map, entry);
	uint32_t count = short_hint(&map->entries[entry].shard_count), absent = 0;

	if (state_life(ref.state) != life || state_whole(ref.state) ||
	    !(short_hint(&map->entries[entry].flags) & ENTRY_BACK))
		return;
	for (uint32_t i = 0; shards && i < count; i++)
		absent += shard_state(word_get(&shards[i].word)) == SHARD_ABSENT;
	if (absent > 0)
		entry_remove(map, &ref);
}

/* Its shards of a pinned entry that were filling are absent again. */
static void reset_shards(struct cache_map *map, uint32_t owner, uint64_t link)
{
	uint32_t entry = link_entry(link), life = link_life(link), count;
	struct cache_shard *shards;

	if (entry >= map->entry_count || state_life(word_get(&map->entries[entry].state)) != life)
		return;
	shards = map_shards(map, entry);
	count = short_hint(&map->entries[entry].shard_count);
	for (uint32_t i = 0; shards && i < count; i++) {
		uint64_t word = word_get(&shards[i].word);

		if (shard_state(word) != SHARD_FILLING || shard_owner(word) != owner ||
		    !word_cas(&shards[i].word, word, shard_next(word, SHARD_ABSENT, 0, 0, 0)))
			continue;
		/* It may have died between linking the slot and telling so. */
		if (map_slot_ok(map, shard_slot(word), 0))
			slots_free(map, shard_slot(word), entry, life);
	}
	/* Or between the last shard and telling that there are all. */
	shards_settle(map, entry, life);
	drop_half_held(map, entry, life);
}

/*
 * Told its parent, which may not have counted it yet: it has none. Where it had, the count
 * is too high, and count_children() sees to that.
 */
static void reset_parent(struct cache_map *map, uint64_t link)
{
	uint32_t entry = link_entry(link);
	uint64_t parent;

	if (entry >= map->entry_count ||
	    state_life(word_get(&map->entries[entry].state)) != link_life(link))
		return;
	parent = word_get(&map->metas[entry].parent);
	if (parent != 0 && !(short_hint(&map->entries[entry].flags) & ENTRY_PARENTED))
		word_cas(&map->metas[entry].parent, parent, 0);
}

static void reset_pinned(struct cache_map *map, uint32_t dead)
{
	const uint64_t *records = map->pins + (uint64_t)dead * map->pins_max;
	uint32_t used = half_get(&map->clients[dead].pins_used);

	for (uint32_t i = 0; i < used && i < map->pins_max; i++) {
		uint64_t link = word_get(&records[i]);

		if (!link)
			continue;
		reset_shards(map, dead + 1, link);
		reset_parent(map, link);
	}
}

static void wipe_pins(struct cache_map *map, uint32_t dead)
{
	uint64_t *records = map->pins + (uint64_t)dead * map->pins_max;
	uint32_t used = half_get(&map->clients[dead].pins_used);

	for (uint32_t i = 0; i < used && i < map->pins_max; i++)
		pin_clear(&records[i]);
	half_put(&map->clients[dead].pins_used, 0);
	half_put(&map->clients[dead].flights, 0);
}

static void finish_entry(struct cache_map *map, uint32_t entry, uint32_t owner)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word), to;

	if (state_owner(state) != owner)
		return;
	switch (state_phase(state)) {
	case PHASE_EVICTING:
		word_cas(word, state, state_next(state, PHASE_LIVE, state_kind(state), 0));
		break;
	case PHASE_DEAD:
		/* Removed, and it may not have looked at the pins yet: the sweep does. */
		word_cas(word, state, state_next(state, PHASE_GONE, state_kind(state), 0));
		break;
	case PHASE_CLAIMED:
		to = state_next(state, PHASE_DEAD, state_kind(state), map->owner);
		if (word_cas(word, state, to))
			entry_take_apart(map, entry);
		break;
	case PHASE_LIVE:
		/* What it wrote below has landed, or will not any more: it is not known which. */
		word_cas(word, state, state_next(state, PHASE_LIVE, state_kind(state), 0));
		break;
	case PHASE_FREE:
	case PHASE_GONE:
		break;
	}
}

static void finish_chunk(struct cache_map *map, uint32_t chunk, uint32_t owner)
{
	uint64_t *word = &map->chunks[chunk].state;
	uint64_t state = word_get(word);

	if (chunk_owner(state) != owner)
		return;
	if (chunk_phase(state) == CHUNK_BACKING)
		word_cas(word, state, chunk_next(state, CHUNK_BARE, 0));
	else if (chunk_phase(state) == CHUNK_CHANGING)
		word_cas(word, state, chunk_next(state, CHUNK_FREE, 0));
	else if (chunk_phase(state) == CHUNK_EMPTYING)
		word_cas(word, state, chunk_next(state, CHUNK_SLOTS, 0));
}

/* What a slot's word says of the dead, or of a life that is over, is void. */
static bool word_void(const struct cache_map *map, uint64_t word, uint32_t owner)
{
	uint32_t entry = slot_entry(word), life;

	if ((word & 3) == SLOT_RESERVED)
		return word == slot_reserved(owner);
	if ((word & 3) != SLOT_LINKED)
		return word != 0;
	if (entry >= map->entry_count)
		return true;
	life = state_life(word_get(&map->entries[entry].state));
	return word != slot_linked(entry, life);
}

static void finish_slots(struct cache_map *map, uint32_t chunk, uint32_t owner)
{
	struct cache_chunk *at = &map->chunks[chunk];
	uint32_t slots = half_hint(&at->slots), free_slots = 0;
	uint32_t words = half_get(&at->far_words) ? CACHE_WORDS_FAR : CACHE_WORDS_NEAR;

	/* All words: a slot may have been taken just as the chunk lost its class. */
	for (uint32_t i = 0; i < words; i++) {
		uint64_t *word = map_word(map, slot_of(chunk, i));
		uint64_t now = word_get(word);

		if (now != 0 && word_void(map, now, owner) && word_cas(word, now, 0))
			now = 0;
		free_slots += now == 0 && i < slots;
	}
	half_note(&at->free_slots, free_slots);
}

static void clean_buckets(struct cache_map *map)
{
	for (uint32_t b = 0; b <= map->bucket_mask; b++)
		for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++) {
			uint64_t *word = &map->buckets[b].ways[i];
			uint64_t way = word_get(word);

			if (way != 0 && cached_way_void(map, b, way))
				word_cas(word, way, 0);
		}
}

/* ---- counts ----------------------------------------------------------------------- */

struct census {
	uint64_t seen; /* the word as it was before children were counted */
	uint64_t children;
};

size_t recover_scratch_bytes(const struct cache_map *map)
{
	return map->entry_count * sizeof(struct census);
}

/*
 * A count that is too high keeps its entry for ever. Others are at work: one that has
 * changed meanwhile is left, and none is raised, for who has just told a parent may be
 * about to count itself.
 */
static void count_children(struct cache_map *map, struct census *census)
{
	for (uint32_t i = 0; i < map->entry_count; i++)
		census[i].seen = word_get_ordered(&map->metas[i].children);
	for (uint32_t i = 0; i < map->entry_count; i++) {
		uint64_t parent = word_get_ordered(&map->metas[i].parent);
		uint32_t up = link_entry(parent);

		if (parent == 0 || up >= map->entry_count ||
		    state_phase(word_get(&map->entries[i].state)) == PHASE_FREE)
			continue;
		if (state_life(word_get(&map->entries[up].state)) == link_life(parent))
			census[up].children++;
	}
	for (uint32_t i = 0; i < map->entry_count; i++) {
		uint64_t seen = census[i].seen;

		if ((seen & 0xffffff) > census[i].children)
			word_cas(&map->metas[i].children, seen,
				 ((seen >> 24) + 1) << 24 | census[i].children);
	}
}

static void count_blocks(struct cache_map *map)
{
	uint64_t before = word_get(&map->header->blocks), blocks = 0;
	uint64_t dirty_before = word_get(&map->header->dirty), dirty = 0;

	for (uint32_t i = 0; i < map->entry_count; i++) {
		uint64_t state = word_hint(&map->entries[i].state);

		blocks += state_lives(state) && state_whole(state);
		dirty += state_dirty(state) ? entry_bytes(map, i) : 0;
	}
	word_cas(&map->header->blocks, before, blocks);
	word_cas(&map->header->dirty, dirty_before, dirty);
}

void recover_client(struct cache_map *map, uint32_t dead, void *scratch)
{
	uint32_t owner = dead + 1;

	assert(dead < CACHE_CLIENTS_MAX && dead != map->client);
	for (uint32_t i = 0; i < map->chunk_count; i++)
		finish_chunk(map, i, owner);
	reset_pinned(map, dead);
	for (uint32_t i = 0; i < map->entry_count; i++)
		finish_entry(map, i, owner);
	for (uint32_t i = 0; i < map->chunk_count; i++)
		finish_slots(map, i, owner);
	clean_buckets(map);
	wipe_pins(map, dead);
	reclaim_sweep(map, map->entry_count);
	if (scratch)
		count_children(map, scratch);
	count_blocks(map);
	half_add(&map->header->repairs, 1);
	half_put(&map->clients[dead].state, CLIENT_FREE);
}
