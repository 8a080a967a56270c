/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/atomic.h"
#include "base/hot.h"
#include "stages/cache/block.h"
#include "stages/cache/colder.h"
#include "stages/cache/evict.h"
#include "stages/cache/pins.h"
#include "stages/cache/slots.h"

#define BATCH_MAX    16u   /* blocks that go at once, at the price of one look at the pins */
#define SAMPLE	     192u  /* slots looked at: the victim is among the oldest 2 % or so */
#define WINDOW	     24u   /* neighbouring slots of a sample: filled together, so of one age */
#define BATCH_SHARE  2048u /* of the blocks that go at once, the part of all */
#define SCOOP_LEAVES 16u   /* put into the pool for each batch that goes */
#define SCOOP_LOOKS  1024u /* entries looked at for them at most */
#define STEAL_EVERY  32u   /* evictions, or fewer, after which other classes are looked at */
#define CHUNK_TRIES  64u
#define END_STEPS    64u /* ancestors looked at for one that may go */

struct victim {
	uint32_t entry, units;
	uint64_t score, state, parent;
	bool pinned, went;
};

struct batch {
	struct victim victims[BATCH_MAX];
	uint32_t count, limit;
	bool parents_too;
	const struct cache_map *map;
	enum policy_kind policy;
	struct policy_now now;
	uint64_t *pinned; /* bits of hashes of what is pinned, to be passed by; or NULL */
	uint64_t *ends;	  /* likewise of what alone may go; or NULL */
};

static void batch_init(struct batch *batch, struct cache_map *map, enum policy_kind policy)
{
	uint64_t blocks = word_hint(&map->header->blocks);

	memset(batch, 0, sizeof(*batch));
	batch->map = map;
	batch->policy = policy;
	batch->now.now = word_hint(&map->header->clock);
	/* It is full: so many came since its oldest did. */
	batch->now.life = blocks > 0 && blocks < map->entry_count ? blocks : map->entry_count;
	batch->limit = 1;
}

static uint64_t score_of(const struct batch *batch, uint32_t entry)
{
	const struct cache_meta *meta = &batch->map->metas[entry];
	struct policy_block block = {
		.stamp = word_hint(&meta->stamp),
		.inserted = word_hint(&meta->inserted),
		.hits = half_hint(&meta->hits),
		.depth = short_hint(&meta->depth),
		.cost_us = half_hint(&meta->cost_us),
		.priority = byte_hint(&meta->priority),
		.bytes = (uint64_t)half_hint(&meta->units) * CACHE_UNIT,
	};

	return policy_score(batch->policy, &block, &batch->now);
}

static bool has_entry(const struct batch *batch, uint32_t entry)
{
	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->victims[i].entry == entry)
			return true;
	return false;
}

static bool maybe_pinned(const struct batch *batch, uint32_t entry)
{
	return batch->pinned && bits_have(batch->pinned, entry);
}

/* Keeps the least, in order. */
static void consider(struct batch *batch, uint32_t entry)
{
	uint64_t state = word_get(&batch->map->entries[entry].state);
	struct victim victim = {.entry = entry, .state = state};
	uint32_t i;

	if (!state_may_go(state) || maybe_pinned(batch, entry) ||
	    (!batch->parents_too && entry_children(batch->map, entry) > 0) ||
	    (batch->ends && !bits_have(batch->ends, entry)) || has_entry(batch, entry))
		return;
	victim.score = score_of(batch, entry);
	if (batch->count == batch->limit) {
		if (victim.score >= batch->victims[batch->count - 1].score)
			return;
		batch->count--;
	}
	for (i = batch->count++; i > 0 && batch->victims[i - 1].score > victim.score; i--)
		batch->victims[i] = batch->victims[i - 1];
	batch->victims[i] = victim;
}

/* ---- taking them ------------------------------------------------------------- */

static void mark_pinned(void *context, uint64_t link)
{
	struct batch *batch = context;

	for (uint32_t i = 0; i < batch->count; i++) {
		struct victim *victim = &batch->victims[i];

		if (link_entry(link) == victim->entry &&
		    link_life(link) == state_life(victim->state))
			victim->pinned = true;
	}
}

static void begin_all(struct cache_map *map, struct batch *batch)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		struct victim *victim = &batch->victims[i];
		uint64_t to = state_next(victim->state, PHASE_EVICTING, state_kind(victim->state),
					 map->owner);

		if (!word_cas(&map->entries[victim->entry].state, victim->state, to))
			continue;
		victim->state = to;
		batch->victims[kept++] = *victim;
	}
	batch->count = kept;
}

/* Everybody's pins are known: those that nobody pins go. Returns how many did. */
static uint32_t end_all(struct cache_map *map, struct batch *batch, struct evicted *ret_evicted)
{
	uint32_t went = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		struct victim *victim = &batch->victims[i];
		uint64_t *word = &map->entries[victim->entry].state;
		enum entry_kind kind = state_kind(victim->state);
		uint32_t children = entry_children(map, victim->entry);

		if (victim->pinned || (children > 0 && !batch->parents_too)) {
			word_cas(word, victim->state,
				 state_next(victim->state, PHASE_LIVE, kind, 0));
			continue;
		}
		if (!word_cas(word, victim->state,
			      state_next(victim->state, PHASE_DEAD, kind, map->owner)))
			continue;
		if (kind == KIND_WHOLE)
			word_add(&map->header->blocks, UINT64_MAX);
		victim->parent = word_get(&map->metas[victim->entry].parent);
		victim->went = true;
		ret_evicted->fetched += byte_hint(&map->metas[victim->entry].fetched);
		entry_take_apart(map, victim->entry);
		ret_evicted->blocks++;
		ret_evicted->parents += children > 0;
		went++;
	}
	if (went > 0 && batch->policy == POLICY_GDSF)
		word_note(&map->header->inflation, batch->victims[0].score >> 12);
	return went;
}

static uint32_t take_all(struct cache_map *map, struct batch *batch, struct evicted *ret_evicted)
{
	begin_all(map, batch);
	if (batch->count == 0)
		return 0;
	pins_each(map, mark_pinned, batch);
	return end_all(map, batch, ret_evicted);
}

/* ---- what has been removed, and was pinned -------------------------------------- */

static bool take_gone(struct cache_map *map, uint32_t entry)
{
	struct batch batch = {.map = map, .count = 1};
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word), dead;

	if (state_phase(state) != PHASE_GONE)
		return false;
	dead = state_next(state, PHASE_DEAD, state_kind(state), map->owner);
	if (!word_cas(word, state, dead))
		return false;
	batch.victims[0] = (struct victim){.entry = entry, .state = dead};
	pins_each(map, mark_pinned, &batch);
	if (batch.victims[0].pinned) {
		word_cas(word, dead, state_next(dead, PHASE_GONE, state_kind(dead), 0));
		return false;
	}
	entry_take_apart(map, entry);
	return true;
}

HIT_PATH bool reclaim_gone(struct cache_map *map, uint32_t entry)
{
	/* Asked at each unpin: most have nothing to do. */
	return state_phase(word_get(&map->entries[entry].state)) == PHASE_GONE &&
	       take_gone(map, entry);
}

/* LIVE, or EVICTING by somebody else, -> EVICTING by this client. False: not bare any more. */
static bool take_over_bare(struct cache_map *map, uint32_t entry, uint32_t life, uint64_t *ret)
{
	uint64_t *word = &map->entries[entry].state, state;

	do {
		state = word_get(word);
		if (state_life(state) != life || !state_lives(state) || state_whole(state) ||
		    !shards_absent(map, entry))
			return false;
		*ret = state_next(state, PHASE_EVICTING, state_kind(state), map->owner);
	} while (!word_cas(word, state, *ret));
	return true;
}

/* It is EVICTING by this client, as @state says. */
static bool take_bare(struct cache_map *map, uint32_t entry, uint64_t state)
{
	struct batch batch = {.map = map, .count = 1, .parents_too = true};
	struct evicted evicted = {0};

	batch.victims[0] = (struct victim){.entry = entry, .state = state};
	pins_each(map, mark_pinned, &batch);
	if (!shards_absent(map, entry))
		batch.victims[0].pinned = true;
	return end_all(map, &batch, &evicted) > 0;
}

/*
 * As an eviction of this one. Of two that leave it at once the second takes over from the first,
 * who may have looked at the pins before that one's was cleared: tests/model/bare.pml.
 */
bool reclaim_bare(struct cache_map *map, uint32_t entry, uint32_t life)
{
	uint64_t state;

	return take_over_bare(map, entry, life, &state) && take_bare(map, entry, state);
}

void reclaim_sweep(struct cache_map *map, uint32_t count)
{
	uint64_t first = word_add(&map->sweep_cursor, count);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t entry = (uint32_t)((first + i) % map->entry_count);

		if (state_phase(word_hint(&map->entries[entry].state)) == PHASE_GONE)
			reclaim_gone(map, entry);
	}
}

/* ---- sampling ------------------------------------------------------------------- */

static void look_at_slot(struct batch *batch, struct cache_map *map, uint64_t slot)
{
	uint64_t word = word_get(map_word(map, slot));
	uint32_t entry = slot_entry(word);

	if ((word & 3) != SLOT_LINKED || entry >= map->entry_count)
		return;
	if (state_phase(word_hint(&map->entries[entry].state)) == PHASE_GONE)
		reclaim_gone(map, entry);
	else
		consider(batch, entry);
}

static void look_at_window(struct batch *batch, struct cache_map *map, uint32_t chunk,
			   uint32_t first, uint32_t count)
{
	uint32_t slots = half_hint(&map->chunks[chunk].slots);

	if (slots > CACHE_WORDS_FAR)
		return;
	for (uint32_t i = 0; i < count && i < slots; i++)
		look_at_slot(batch, map, slot_of(chunk, (first + i) % slots));
}

static uint32_t find_chunk(struct cache_map *map, uint32_t units)
{
	uint32_t chunk;

	for (uint32_t i = 0; i < CHUNK_TRIES; i++) {
		chunk = (uint32_t)(map_random(map) % map->chunk_count);
		if (chunk_of_class(map, chunk, units))
			return chunk;
	}
	for (uint32_t i = 0; i < map->chunk_count; i++) {
		chunk = (uint32_t)((i + map->chunk_cursor) % map->chunk_count);
		if (chunk_of_class(map, chunk, units))
			return chunk;
	}
	return CACHE_NONE;
}

static void sample_class(struct batch *batch, struct cache_map *map, uint32_t units)
{
	for (uint32_t seen = 0; seen < SAMPLE; seen += WINDOW) {
		uint64_t random = map_random(map);
		uint32_t chunk = find_chunk(map, units), slots;

		if (chunk == CACHE_NONE)
			return;
		slots = half_hint(&map->chunks[chunk].slots);
		if (slots > 0)
			look_at_window(batch, map, chunk, (uint32_t)(random >> 32) % slots, WINDOW);
	}
}

/* All of the class: where a sample met nothing that can go. */
static void scan_class(struct batch *batch, struct cache_map *map, uint32_t units)
{
	for (uint32_t chunk = 0; chunk < map->chunk_count; chunk++)
		if (chunk_of_class(map, chunk, units))
			look_at_window(batch, map, chunk, 0, CACHE_WORDS_FAR);
}

static void sample_entries(struct batch *batch, struct cache_map *map)
{
	for (uint32_t seen = 0; seen < SAMPLE; seen += WINDOW) {
		uint64_t first = map_random(map) % map->entry_count;

		for (uint32_t i = 0; i < WINDOW; i++)
			consider(batch, (uint32_t)((first + i) % map->entry_count));
	}
}

static void scan_entries(struct batch *batch, struct cache_map *map)
{
	reclaim_sweep(map, map->entry_count);
	for (uint32_t entry = 0; entry < map->entry_count; entry++)
		consider(batch, entry);
}

static uint32_t batch_size(const struct cache_map *map, uint32_t units)
{
	uint64_t slots = units == 0 ? map->entry_count
				    : map->chunk_count * (map->chunk_bytes / CACHE_UNIT / units);
	uint64_t share = slots / BATCH_SHARE;

	return share < 1 ? 1 : share < BATCH_MAX ? (uint32_t)share : BATCH_MAX;
}

/* ---- the pool -------------------------------------------------------------------------- */

struct scoop {
	struct batch *batch; /* its policy and time */
	struct cache_map *map;
	uint32_t units, leaves, looked;
};

static void scoop_up(struct scoop *scoop, uint32_t entry, uint32_t units)
{
	uint64_t state = word_get(&scoop->map->entries[entry].state);
	struct candidate candidate = {.link = link_of(entry, state_life(state)), .units = units};

	scoop->looked++;
	if (!state_may_go(state) || entry_children(scoop->map, entry) > 0)
		return;
	candidate.score = score_of(scoop->batch, entry);
	pool_add(&scoop->map->pool, &candidate);
	scoop->leaves++;
}

/* False: there is no chunk of the class. */
static bool scoop_slots(struct scoop *scoop)
{
	struct cache_map *map = scoop->map;
	uint32_t chunk = find_chunk(map, scoop->units), slots, first;

	scoop->looked++;
	if (chunk == CACHE_NONE)
		return false;
	slots = half_hint(&map->chunks[chunk].slots);
	if (slots == 0 || slots > CACHE_WORDS_FAR)
		return true;
	first = (uint32_t)map_random(map) % slots;
	for (uint32_t i = 0; i < WINDOW && i < slots; i++) {
		uint64_t word = word_get(map_word(map, slot_of(chunk, (first + i) % slots)));
		uint32_t entry = slot_entry(word);

		if ((word & 3) == SLOT_LINKED && entry < map->entry_count)
			scoop_up(scoop, entry, scoop->units);
	}
	return true;
}

static void scoop_entries(struct scoop *scoop)
{
	struct cache_map *map = scoop->map;
	uint64_t first = map_random(map) % map->entry_count;

	for (uint32_t i = 0; i < WINDOW; i++)
		scoop_up(scoop, (uint32_t)((first + i) % map->entry_count), 0);
}

/* The coldest of the pool that can still go, up to the batch's limit. */
static void pick(struct batch *batch, struct cache_map *map, uint32_t units)
{
	struct pool *pool = &map->pool;

	for (uint32_t i = 0; i < pool->count && batch->count < batch->limit;) {
		struct candidate candidate = pool->at[i];
		uint32_t entry = link_entry(candidate.link);
		uint64_t state = word_get(&map->entries[entry].state), score;

		if (units > 0 && candidate.units != units) {
			i++;
			continue;
		}
		pool_remove(pool, i);
		if (state_life(state) != link_life(candidate.link) || !state_may_go(state) ||
		    entry_children(map, entry) > 0)
			continue;
		score = score_of(batch, entry);
		if (score > candidate.score) { /* used since it was seen */
			candidate.score = score;
			pool_add(pool, &candidate);
			continue;
		}
		batch->victims[batch->count++] = (struct victim){
			.entry = entry, .units = candidate.units, .score = score, .state = state};
	}
}

/* Whose last child went is a leaf now, and as old. */
static void pool_parents(struct batch *batch, struct cache_map *map)
{
	struct scoop scoop = {.batch = batch, .map = map};

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct victim *victim = &batch->victims[i];
		uint32_t up = link_entry(victim->parent);

		if (victim->went && victim->parent != 0 && up < map->entry_count &&
		    state_life(word_get(&map->entries[up].state)) == link_life(victim->parent))
			scoop_up(&scoop, up, victim->units);
	}
}

static bool evict_of_pool(struct cache_map *map, enum policy_kind policy, uint32_t units,
			  struct evicted *ret_evicted)
{
	struct batch batch;
	struct scoop scoop = {.batch = &batch, .map = map, .units = units};
	bool some = true, went;

	if (!flag_raise(&map->pool.taken))
		return false;
	batch_init(&batch, map, policy);
	while (some && scoop.leaves < SCOOP_LEAVES && scoop.looked < SCOOP_LOOKS) {
		if (units > 0)
			some = scoop_slots(&scoop);
		else
			scoop_entries(&scoop);
	}
	batch.limit = batch_size(map, units);
	pick(&batch, map, units);
	went = take_all(map, &batch, ret_evicted) > 0;
	pool_parents(&batch, map);
	flag_lower(&map->pool.taken);
	return went;
}

/* ---- other classes ---------------------------------------------------------------- */

/* Everything in the chunk goes; true: it has no class any more. */
static bool steal(struct cache_map *map, enum policy_kind policy, uint32_t chunk,
		  struct evicted *ret_evicted)
{
	struct batch batch;
	uint32_t went;

	do {
		batch_init(&batch, map, policy);
		batch.limit = BATCH_MAX;
		batch.parents_too = true;
		look_at_window(&batch, map, chunk, 0, CACHE_WORDS_FAR);
		went = take_all(map, &batch, ret_evicted);
	} while (went > 0);
	return chunk_empty(map, chunk);
}

static bool steal_colder(struct cache_map *map, enum policy_kind policy, const struct held *held,
			 uint32_t units, uint64_t stamp, struct evicted *ret_evicted)
{
	uint32_t chunk = colder_chunk(map, held, units, stamp);

	return chunk != CACHE_NONE && steal(map, policy, chunk, ret_evicted);
}

/*
 * Memory follows the sizes in use: now and then a chunk of another class goes, if all in it was
 * used before the coldest of this one. Else a class would live on what it has for ever, beside
 * chunks that nobody uses any more.
 */
static bool steal_in_turn(struct cache_map *map, enum policy_kind policy, uint32_t units,
			  struct evicted *ret_evicted)
{
	uint64_t slots = map->chunk_bytes / CACHE_UNIT / units;
	struct batch batch;
	struct held held;

	if (map_random(map) % (slots < STEAL_EVERY ? slots + 1 : STEAL_EVERY) != 0)
		return false;
	batch_init(&batch, map, policy);
	sample_class(&batch, map, units);
	if (batch.count == 0) { /* a chain: one leaf of so many */
		batch.parents_too = true;
		sample_class(&batch, map, units);
	}
	if (batch.count == 0)
		return false;
	held_init(&held, map);
	return steal_colder(map, policy, &held, units,
			    word_hint(&map->metas[batch.victims[0].entry].stamp), ret_evicted);
}

/* One that has become empty by itself. */
static bool take_empty(struct cache_map *map)
{
	for (uint32_t chunk = 0; chunk < map->chunk_count; chunk++) {
		const struct cache_chunk *at = &map->chunks[chunk];

		if (chunk_of_class(map, chunk, 0) &&
		    half_hint(&at->free_slots) == half_hint(&at->slots) && chunk_empty(map, chunk))
			return true;
	}
	return false;
}

/* One that can be made so. */
static bool steal_any(struct cache_map *map, enum policy_kind policy, uint32_t units,
		      struct evicted *ret_evicted)
{
	struct held held;

	held_init(&held, map);
	for (uint32_t i = 0; i < 4; i++)
		if (steal_colder(map, policy, &held, units, UINT64_MAX, ret_evicted))
			return true;
	for (uint32_t chunk = 0; chunk < map->chunk_count; chunk++)
		if (held_may_change(&held, chunk, units) && steal(map, policy, chunk, ret_evicted))
			return true;
	return false;
}

/* ---- making room -------------------------------------------------------------------- */

/* What may go of all that is looked at. */
enum reach {
	REACH_LEAVES,
	REACH_ENDS, /* the nearest above each leaf that may not go itself */
	REACH_ALL,
};

/*
 * Of a chain whose end is pinned, held back or yet to get its memory the block goes that is next
 * to it: so the rest can still be found from its beginning.
 */
static void note_ends(const struct batch *batch, struct cache_map *map, uint64_t *ret_ends)
{
	for (uint32_t entry = 0; entry < map->entry_count; entry++) {
		uint64_t state = word_get(&map->entries[entry].state);
		uint32_t at = entry;

		if (!state_lives(state) || entry_children(map, entry) > 0)
			continue;
		for (uint32_t i = 0; i < END_STEPS; i++) {
			uint64_t parent;

			if (state_may_go(state) && !maybe_pinned(batch, at)) {
				bits_add(ret_ends, at);
				break;
			}
			parent = word_get(&map->metas[at].parent);
			at = link_entry(parent);
			if (parent == 0 || at >= map->entry_count)
				break;
			state = word_get(&map->entries[at].state);
			if (state_life(state) != link_life(parent))
				break;
		}
	}
}

/* What a sample did not give: all is looked at, but what is pinned. */
static bool evict_any(struct cache_map *map, enum policy_kind policy, uint32_t units,
		      enum reach reach, struct evicted *ret_evicted)
{
	uint64_t pinned[HASH_WORDS] = {0}, ends[HASH_WORDS] = {0};
	struct batch batch;

	if (units > 0 && find_chunk(map, units) == CACHE_NONE)
		return false;
	batch_init(&batch, map, policy);
	batch.limit = batch_size(map, units);
	batch.parents_too = reach != REACH_LEAVES;
	batch.pinned = pinned;
	pinned_bits(map, pinned);
	if (reach == REACH_ENDS) {
		note_ends(&batch, map, ends);
		batch.ends = ends;
	}
	if (units > 0)
		scan_class(&batch, map, units);
	else
		scan_entries(&batch, map);
	return take_all(map, &batch, ret_evicted) > 0;
}

/* No leaf can go. */
static bool evict_parents(struct cache_map *map, enum policy_kind policy, uint32_t units,
			  struct evicted *ret_evicted)
{
	return evict_any(map, policy, units, REACH_ENDS, ret_evicted) ||
	       evict_any(map, policy, units, REACH_ALL, ret_evicted);
}

bool evict_for(struct cache_map *map, enum policy_kind policy, uint32_t units,
	       struct evicted *ret_evicted)
{
	struct batch batch;

	reclaim_sweep(map, WINDOW);
	if (units > 0 && steal_in_turn(map, policy, units, ret_evicted))
		return true;
	if (evict_of_pool(map, policy, units, ret_evicted))
		return true;
	batch_init(&batch, map, policy);
	batch.limit = batch_size(map, units);
	if (units > 0)
		sample_class(&batch, map, units);
	else
		sample_entries(&batch, map);
	return take_all(map, &batch, ret_evicted) > 0 ||
	       evict_any(map, policy, units, REACH_LEAVES, ret_evicted) ||
	       (units > 0 && take_empty(map)) || evict_parents(map, policy, units, ret_evicted) ||
	       (units > 0 && steal_any(map, policy, units, ret_evicted));
}

/* A block that nobody pins and that has no children, if there is one; else one that has. */
bool evict_in_buckets(struct cache_map *map, enum policy_kind policy, const struct cache_key *key,
		      struct evicted *ret_evicted)
{
	const uint64_t *ways[2] = {cached_ways(map, key, 0), cached_ways(map, key, 1)};
	uint64_t pinned[HASH_WORDS] = {0};
	struct batch batch;
	bool went = false;

	pinned_bits(map, pinned);
	for (uint32_t parents_too = 0; parents_too < 2 && !went; parents_too++) {
		batch_init(&batch, map, policy);
		batch.parents_too = parents_too;
		batch.pinned = pinned;
		for (uint32_t i = 0; i < 2 * CACHE_BUCKET_WAYS; i++) {
			const uint64_t *way = &ways[i % 2][i / 2];
			uint32_t entry = (uint32_t)word_get(way) - 1;

			if (entry < map->entry_count)
				consider(&batch, entry);
		}
		went = take_all(map, &batch, ret_evicted) > 0;
	}
	return went;
}
