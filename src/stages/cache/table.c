/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/hot.h"
#include "stages/cache/pins.h"
#include "stages/cache/slots.h"
#include "stages/cache/table.h"

#define CHAIN_STEPS 64u /* ancestors looked at for a loop */
#define CLAIM_TRIES 16u /* another inserter of the same key has so long to get on */

HIT_PATH struct cache_key cache_key_of(const struct cairn_key *key, uint64_t home)
{
	struct cache_key made = {.home = home};

	memcpy(made.word, key->bytes, sizeof(made.word));
	return made;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static struct cached_place place_of(const struct cache_map *map, const struct cache_key *key)
{
	uint64_t hash = fold(key->word[0] ^ map->seed, key->word[1] ^ UINT64_C(0x9e3779b97f4a7c15));
	uint64_t other;

	hash = fold(hash ^ key->home, map->seed | 1);
	other = hash * UINT64_C(0xd6e8feb86659fd93);
	return (struct cached_place){
		.bucket = {(uint32_t)hash & map->bucket_mask,
			   (uint32_t)(other >> 32) & map->bucket_mask},
		.tag = (uint32_t)(hash >> 32),
	};
}

const uint64_t *cached_ways(const struct cache_map *map, const struct cache_key *key,
			    uint32_t which)
{
	return map->buckets[place_of(map, key).bucket[which & 1]].ways;
}

bool cached_way_void(const struct cache_map *map, uint32_t bucket, uint64_t way)
{
	uint32_t entry = (uint32_t)way - 1;
	const struct cache_entry *at;
	struct cache_key key;
	struct cached_place place;
	uint64_t state;

	if (entry >= map->entry_count)
		return true;
	at = &map->entries[entry];
	state = word_get(&at->state);
	key.word[0] = word_get(&at->key[0]);
	key.word[1] = word_get(&at->key[1]);
	key.home = word_get(&at->home);
	if (word_hint(&at->state) != state || state_phase(state) == PHASE_CLAIMED)
		return false;
	place = place_of(map, &key);
	return state_phase(state) == PHASE_FREE || way >> 32 != place.tag ||
	       (bucket != place.bucket[0] && bucket != place.bucket[1]);
}

/* The state under which the entry has that key, or 0. */
static inline uint64_t has_key(const struct cache_map *map, uint32_t entry,
			       const struct cache_key *key)
{
	const struct cache_entry *at = &map->entries[entry];
	uint64_t state = word_get(&at->state);
	bool same;

	/* Each read is an acquire: the state is read again after them. */
	same = word_get(&at->key[0]) == key->word[0] && word_get(&at->key[1]) == key->word[1] &&
	       word_get(&at->home) == key->home;
	if (!same || state_life(word_hint(&at->state)) != state_life(state))
		return 0;
	return state;
}

/* Which words of the bucket have the tag, a bit each: without a branch to mispredict. */
static inline uint32_t tagged(const struct cache_bucket *bucket, uint32_t tag)
{
	uint32_t mask = 0;

#pragma GCC unroll 7
	for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++)
		mask |= (uint32_t)(word_get(&bucket->ways[i]) >> 32 == tag) << i;
	return mask;
}

static inline uint32_t way_entry(const struct cache_bucket *bucket, uint32_t mask)
{
	return (uint32_t)word_hint(&bucket->ways[__builtin_ctz(mask)]) - 1;
}

HIT_PATH static struct cache_ref find_in(const struct cache_map *map, uint32_t bucket, uint32_t tag,
					 const struct cache_key *key)
{
	const struct cache_bucket *at = &map->buckets[bucket];

	for (uint32_t mask = tagged(at, tag); mask; mask &= mask - 1) {
		uint32_t entry = way_entry(at, mask);
		uint64_t state;

		if (entry >= map->entry_count)
			continue;
		state = has_key(map, entry, key);
		if (state_lives(state))
			return (struct cache_ref){entry, state};
	}
	return (struct cache_ref){CACHE_NONE, 0};
}

HIT_PATH static struct cache_ref find_at(const struct cache_map *map,
					 const struct cached_place *place,
					 const struct cache_key *key)
{
	struct cache_ref ref = find_in(map, place->bucket[0], place->tag, key);

	if (ref.entry != CACHE_NONE || !word_get(&map->buckets[place->bucket[0]].overflow))
		return ref;
	return find_in(map, place->bucket[1], place->tag, key);
}

HIT_PATH struct cache_ref cached_find(const struct cache_map *map, const struct cache_key *key)
{
	struct cached_place place = place_of(map, key);

	return find_at(map, &place, key);
}

/* The entry that the first word of that tag names, fetched ahead; CACHE_NONE: none. */
HIT_PATH static uint32_t guess(const struct cache_map *map, const struct cached_place *place)
{
	const struct cache_bucket *at = &map->buckets[place->bucket[0]];
	uint32_t mask = tagged(at, place->tag), entry;

	if (mask == 0)
		return CACHE_NONE;
	entry = way_entry(at, mask);
	if (entry >= map->entry_count)
		return CACHE_NONE;
	__builtin_prefetch(&map->entries[entry]);
	return entry;
}

/* find_at() by way of what guess() said. */
static inline struct cache_ref find_guessed(const struct cache_map *map,
					    const struct cached_place *place,
					    const struct cache_key *key, uint32_t entry)
{
	uint64_t state = entry == CACHE_NONE ? 0 : has_key(map, entry, key);

	if (state_lives(state))
		return (struct cache_ref){entry, state};
	return find_at(map, place, key);
}

HIT_PATH struct cache_ref cached_find_cold(const struct cache_map *map, const struct cache_key *key)
{
	struct cached_place place = place_of(map, key);
	uint32_t entry = guess(map, &place);

	if (entry != CACHE_NONE)
		__builtin_prefetch(&map->metas[entry], 1);
	return find_guessed(map, &place, key, entry);
}

_Static_assert(CACHED_AHEAD >= 3 * CACHED_STEP, "what is placed and not found yet has a place");

void cached_walk_begin(struct cached_walk *walk, const struct cache_map *map,
		       const struct cairn_key *keys, size_t count, uint64_t home)
{
	walk->map = map;
	walk->keys = keys;
	walk->count = count;
	walk->home = home;
	walk->placed = 0;
	walk->guessed = 0;
	walk->found = 0;
}

static inline size_t walk_until(const struct cached_walk *walk, uint32_t steps)
{
	size_t until = walk->found + (size_t)steps * CACHED_STEP;

	return until < walk->count ? until : walk->count;
}

static inline void walk_place(struct cached_walk *walk, size_t at)
{
	struct cached_place *place = &walk->places[at % CACHED_AHEAD];
	struct cache_key key = cache_key_of(&walk->keys[at], walk->home);

	*place = place_of(walk->map, &key);
	__builtin_prefetch(&walk->map->buckets[place->bucket[0]]);
}

static inline void walk_guess(struct cached_walk *walk, size_t at)
{
	walk->guesses[at % CACHED_AHEAD] = guess(walk->map, &walk->places[at % CACHED_AHEAD]);
}

static inline struct cache_ref walk_find(const struct cached_walk *walk, size_t at)
{
	struct cache_key key = cache_key_of(&walk->keys[at], walk->home);

	return find_guessed(walk->map, &walk->places[at % CACHED_AHEAD], &key,
			    walk->guesses[at % CACHED_AHEAD]);
}

uint32_t cached_walk_on(struct cached_walk *walk, struct cache_ref *ret_refs)
{
	size_t first = walk->found, at, until;

	for (at = walk->placed, until = walk_until(walk, 3); at < until; at++)
		walk_place(walk, at);
	walk->placed = at;
	for (at = walk->guessed, until = walk_until(walk, 2); at < until; at++)
		walk_guess(walk, at);
	walk->guessed = at;
	for (at = first, until = walk_until(walk, 1); at < until; at++)
		ret_refs[at - first] = walk_find(walk, at);
	walk->found = at;
	return (uint32_t)(at - first);
}

/* ---- putting in --------------------------------------------------------------- */

static bool claim(struct cache_map *map, uint32_t entry)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word);

	return state_phase(state) == PHASE_FREE &&
	       word_cas(word, state, state_next(state, PHASE_CLAIMED, KIND_HIDDEN, map->owner));
}

static uint32_t claim_one(struct cache_map *map)
{
	uint64_t first;

	for (uint32_t tries = 0; tries < 4; tries++) {
		uint64_t at = word_hint(&map->stash_at);
		uint64_t there;

		if (at == 0)
			break;
		word_note(&map->stash_at, at - 1);
		there = word_swap(&map->stash[(at - 1) % ENTRY_STASH], 0);
		if (there > 0 && claim(map, (uint32_t)there - 1))
			return (uint32_t)there - 1;
	}
	first = word_hint(&map->entry_cursor);
	for (uint32_t i = 0; i < map->entry_count; i++) {
		uint32_t entry = (uint32_t)((first + i) % map->entry_count);

		if (!claim(map, entry))
			continue;
		word_note(&map->entry_cursor, entry + 1ull);
		return entry;
	}
	return CACHE_NONE;
}

static void stash(struct cache_map *map, uint32_t entry)
{
	uint64_t at = word_hint(&map->stash_at);

	if (at >= ENTRY_STASH)
		return;
	word_note(&map->stash[at], entry + 1ull);
	word_note(&map->stash_at, at + 1);
}

/* CLAIMED or DEAD, by this client -> free, in its next life. */
static void entry_release(struct cache_map *map, uint32_t entry)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word);

	if (word_cas(word, state, state_freed(state)))
		stash(map, entry);
}

static void wipe_meta(struct cache_map *map, uint32_t entry)
{
	struct cache_meta *meta = &map->metas[entry];
	uint64_t now = word_hint(&map->header->clock);

	word_note(&meta->stamp, now);
	word_note(&meta->inserted, now);
	word_note(&meta->parent, 0);
	/* The count of changes goes on: a repair must see that this is another life. */
	word_note(&meta->children, ((word_hint(&meta->children) >> 24) + 1) << 24);
	word_note(&meta->expires_ns, 0);
	half_note(&meta->cost_us, 0);
	half_note(&meta->step, 0);
	half_note(&meta->hits, 0);
	half_note(&meta->units, 0);
	short_note(&meta->depth, 0);
	byte_note(&meta->priority, 0);
	byte_note(&meta->fetched, 0);
}

/* CLAIMED: what it is to be. False: no memory for the shards of a block of several. */
static bool fill(struct cache_map *map, uint32_t entry, const struct cache_key *key,
		 const struct cache_shape *shape, uint32_t *ret_units)
{
	struct cache_entry *at = &map->entries[entry];
	uint32_t bytes = shape->shard_count * (uint32_t)sizeof(struct cache_shard);
	uint64_t array = 0;

	*ret_units = shape->shard_count > 1 ? slots_units(bytes) : 0;
	if (*ret_units > 0) {
		if (!slots_take(map, *ret_units, &array))
			return false;
		memset(map_payload(map, array), 0, bytes);
		slots_link(map, array, entry, state_life(word_get(&at->state)));
		array = shard_next(0, SHARD_THERE, array, 0, 0);
	}
	wipe_meta(map, entry);
	half_add(&map->metas[entry].units, *ret_units);
	word_put(&at->key[0], key->word[0]);
	word_put(&at->key[1], key->word[1]);
	word_put(&at->home, key->home);
	half_note(&at->shard_bytes, shape->shard_bytes);
	half_note(&at->last_bytes, 0);
	short_note(&at->shard_count, (uint16_t)shape->shard_count);
	short_note(&at->flags, 0);
	word_note(&at->only.word, array);
	half_note(&at->only.raw, 0);
	half_note(&at->only.stored, 0);
	return true;
}

/* Into one of its buckets. The second one is looked at only after the first has overflowed. */
static uint64_t *put_in(struct cache_map *map, const struct cached_place *place, uint32_t entry)
{
	uint64_t way = (uint64_t)place->tag << 32 | (entry + 1ull);

	for (uint32_t b = 0; b < 2; b++) {
		struct cache_bucket *at = &map->buckets[place->bucket[b]];

		if (b == 1)
			word_cas(&map->buckets[place->bucket[0]].overflow, 0, 1);
		for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++)
			if (word_hint(&at->ways[i]) == 0 && word_cas(&at->ways[i], 0, way))
				return &at->ways[i];
	}
	return NULL;
}

/* Another entry that has, or is to have, the key. */
static bool has_other(const struct cache_map *map, const struct cached_place *place,
		      const struct cache_key *key, uint32_t mine)
{
	for (uint32_t b = 0; b < 2; b++) {
		const struct cache_bucket *at = &map->buckets[place->bucket[b]];

		for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++) {
			uint64_t way = word_get_ordered(&at->ways[i]), state;
			uint32_t entry = (uint32_t)way - 1;

			if (way >> 32 != place->tag || entry >= map->entry_count || entry == mine)
				continue;
			state = has_key(map, entry, key);
			if (state_lives(state) || state_phase(state) == PHASE_CLAIMED)
				return true;
		}
	}
	return false;
}

static void free_shards(struct cache_map *map, uint32_t entry, uint32_t life);

/* A new entry, LIVE and pinned in @record; or why not. */
static struct cache_ref insert(struct cache_map *map, uint32_t record,
			       const struct cached_place *place, const struct cache_key *key,
			       const struct cache_shape *shape, struct cache_lack *ret_lack)
{
	struct cache_ref none = {CACHE_NONE, 0}, ref;
	uint32_t entry = claim_one(map);
	uint64_t *way;

	*ret_lack = (struct cache_lack){.error = -ENOSPC};
	if (entry == CACHE_NONE)
		return none;
	ref = (struct cache_ref){entry, word_get(&map->entries[entry].state)};
	if (!fill(map, entry, key, shape, &ret_lack->units)) {
		entry_release(map, entry);
		return none;
	}
	pin_again(map, record, ref_link(&ref));
	way = put_in(map, place, entry);
	if (way && !has_other(map, place, key, entry)) {
		ref.state = state_next(ref.state, PHASE_LIVE, shape->kind, 0);
		word_put(&map->entries[entry].state, ref.state);
		ret_lack->error = 0;
		return ref;
	}
	*ret_lack = (struct cache_lack){.error = way ? -EAGAIN : -ENOSPC, .place = !way};
	pin_drop(map, record);
	if (way)
		word_put(way, 0);
	free_shards(map, entry, state_life(ref.state));
	entry_release(map, entry);
	return none;
}

struct cache_ref cached_add(struct cache_map *map, uint32_t record, const struct cache_key *key,
			    const struct cache_shape *shape, bool *ret_made,
			    struct cache_lack *ret_lack)
{
	struct cached_place place = place_of(map, key);
	struct cache_ref ref = {CACHE_NONE, 0};

	assert(shape->shard_count > 0 && shape->shard_count <= CAIRN_SHARD_COUNT_MAX);
	*ret_lack = (struct cache_lack){.error = -EAGAIN};
	*ret_made = false;
	for (uint32_t tries = 0; tries < CLAIM_TRIES && ret_lack->error == -EAGAIN; tries++) {
		ref = find_at(map, &place, key);
		if (ref.entry != CACHE_NONE && pin_entry(map, record, &ref)) {
			ret_lack->error = 0;
			break;
		}
		ref = insert(map, record, &place, key, shape, ret_lack);
		*ret_made = ret_lack->error == 0;
	}
	return ref;
}

/* ---- an entry's way ------------------------------------------------------------ */

/* @bytes: of the entry, looked at before its state changed: after it, it may be another's. */
static void count_dirty(struct cache_map *map, uint64_t bytes, bool more)
{
	word_add(&map->header->dirty, more ? bytes : -bytes);
}

bool entry_remove(struct cache_map *map, const struct cache_ref *ref)
{
	uint64_t *word = &map->entries[ref->entry].state;

	for (;;) {
		uint64_t state = word_get(word), bytes = entry_bytes(map, ref->entry);

		if (state_life(state) != state_life(ref->state) || !state_lives(state) ||
		    state_flying(state))
			return false;
		if (!word_cas(word, state, state_next(state, PHASE_GONE, state_kind(state), 0)))
			continue;
		if (state_whole(state))
			word_add(&map->header->blocks, UINT64_MAX);
		if (state_dirty(state))
			count_dirty(map, bytes, false);
		return true;
	}
}

bool entry_whole(struct cache_map *map, uint32_t entry, uint32_t life)
{
	uint64_t *word = &map->entries[entry].state;
	bool back = short_hint(&map->entries[entry].flags) & ENTRY_BACK;

	for (;;) {
		uint64_t state = word_get(word), bytes = entry_bytes(map, entry);

		if (state_life(state) != life || !state_lives(state))
			return false;
		if (state_whole(state))
			return true;
		if (!word_cas(word, state,
			      state_next(state, PHASE_LIVE, back ? KIND_DIRTY : KIND_WHOLE, 0)))
			continue;
		word_add(&map->header->blocks, 1);
		if (back)
			count_dirty(map, bytes, true);
		return true;
	}
}

bool entry_fly(struct cache_map *map, uint32_t entry, uint32_t life)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word);

	return state_life(state) == life && state_dirty(state) && !state_flying(state) &&
	       word_cas(word, state, state_next(state, PHASE_LIVE, KIND_DIRTY, map->owner));
}

void entry_land(struct cache_map *map, uint32_t entry, uint32_t life, enum entry_end end)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word), bytes = entry_bytes(map, entry);
	enum entry_phase phase = end == END_GONE ? PHASE_GONE : PHASE_LIVE;
	enum entry_kind kind = end == END_CLEAN ? KIND_WHOLE : KIND_DIRTY;

	/* Nobody else changes it, but who takes this client for dead. */
	if (state_life(state) != life || !state_flying(state) || state_owner(state) != map->owner ||
	    !word_cas(word, state, state_next(state, phase, kind, 0)))
		return;
	if (end == END_GONE)
		word_add(&map->header->blocks, UINT64_MAX);
	if (end != END_DIRTY)
		count_dirty(map, bytes, false);
}

/* HIDDEN -> PART: the block is known to be whole below. */
void entry_unhide(struct cache_map *map, uint32_t entry, uint32_t life)
{
	uint64_t *word = &map->entries[entry].state;
	uint64_t state = word_get(word);

	if (state_life(state) == life && state_lives(state) && state_kind(state) == KIND_HIDDEN)
		word_cas(word, state, state_next(state, PHASE_LIVE, KIND_PART, 0));
}

static void take_out(struct cache_map *map, uint32_t entry, const struct cache_key *key)
{
	struct cached_place place = place_of(map, key);

	for (uint32_t b = 0; b < 2; b++)
		for (uint32_t i = 0; i < CACHE_BUCKET_WAYS; i++) {
			uint64_t *word = &map->buckets[place.bucket[b]].ways[i];
			uint64_t way = word_get(word);

			if ((uint32_t)way == entry + 1)
				word_cas(word, way, 0);
		}
}

static void count_children(struct cache_map *map, uint32_t entry, bool more)
{
	uint64_t *word = &map->metas[entry].children;
	uint64_t now, count;

	do {
		now = word_get(word);
		count = now & 0xffffff;
		if (!more && count == 0)
			return;
		count = more ? count + 1 : count - 1;
	} while (!word_cas(word, now, ((now >> 24) + 1) << 24 | (count & 0xffffff)));
}

static void orphan(struct cache_map *map, uint32_t entry)
{
	uint64_t parent = word_swap(&map->metas[entry].parent, 0);
	uint32_t up = link_entry(parent);

	if (parent == 0 || up >= map->entry_count)
		return;
	/* A parent with children stays; where it went all the same, the count is not its. */
	if (state_life(word_get(&map->entries[up].state)) == link_life(parent))
		count_children(map, up, false);
}

static void free_shards(struct cache_map *map, uint32_t entry, uint32_t life)
{
	struct cache_entry *at = &map->entries[entry];
	uint32_t count = short_hint(&at->shard_count);
	struct cache_shard *shards;
	uint64_t array;

	if (count == 0)
		return;
	shards = map_shards(map, entry);
	for (uint32_t i = 0; shards && i < count; i++) {
		uint64_t word = word_get(&shards[i].word);

		if (shard_state(word) == SHARD_THERE && map_slot_ok(map, shard_slot(word), 0))
			slots_free(map, shard_slot(word), entry, life);
	}
	array = word_get(&at->only.word);
	if (count > 1 && shards)
		slots_free(map, shard_slot(array), entry, life);
}

void entry_take_apart(struct cache_map *map, uint32_t entry)
{
	struct cache_entry *at = &map->entries[entry];
	struct cache_key key = {
		.word = {word_get(&at->key[0]), word_get(&at->key[1])},
		.home = word_get(&at->home),
	};

	assert(state_phase(word_get(&at->state)) == PHASE_DEAD);
	take_out(map, entry, &key);
	orphan(map, entry);
	free_shards(map, entry, state_life(word_get(&at->state)));
	entry_release(map, entry);
}

/* Is @child among the ancestors of @entry? */
static bool leads_to(const struct cache_map *map, uint32_t entry, uint32_t child)
{
	for (uint32_t i = 0; i < CHAIN_STEPS; i++) {
		uint64_t parent = word_get(&map->metas[entry].parent);

		if (entry == child)
			return true;
		entry = link_entry(parent);
		if (parent == 0 || entry >= map->entry_count)
			return false;
	}
	return false;
}

void entry_set_parent(struct cache_map *map, const struct cache_ref *child,
		      const struct cache_ref *parent)
{
	struct cache_ref up = *parent;
	struct cache_meta *meta = &map->metas[child->entry];
	uint32_t record;

	if (short_hint(&map->entries[child->entry].flags) & ENTRY_PARENTED ||
	    leads_to(map, parent->entry, child->entry))
		return;
	record = pin_take(map);
	if (record == CACHE_NONE)
		return;
	/* Pinned, so that it does not go between the link and the count. */
	if (pin_entry(map, record, &up)) {
		if (word_cas(&meta->parent, 0, ref_link(&up))) {
			count_children(map, up.entry, true);
			flags_raise(&map->entries[child->entry].flags, ENTRY_PARENTED);
		}
	}
	pin_give(map, record);
}
