/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/table.h"

#include <assert.h>
#include <string.h>

#include "stages/flash/table_parts.h"

#define PARENT_STEPS_MAX 64u /* the header's promise */

size_t table_bytes(uint32_t entries_max, uint64_t shards_max)
{
	return PAGE_BYTES + pages_up(intern_bytes()) +
	       pages_up((uint64_t)entries_max * sizeof(struct hot)) +
	       pages_up((uint64_t)entries_max * sizeof(struct cold)) +
	       pages_up((uint64_t)entries_max * sizeof(uint32_t)) +
	       pages_up(buckets_for(entries_max) * sizeof(uint32_t)) + places_bytes(shards_max);
}

void table_init(void *memory, uint32_t entries_max, uint64_t shards_max, const uint64_t seed[2],
		struct table **ret_table)
{
	struct table *table = memory;
	char *at = memory;

	assert((uintptr_t)memory % PAGE_BYTES == 0);
	assert(entries_max > 0 && entries_max < TABLE_NONE - 1);
	assert(table->magic == 0); /* zeroed, or nothing of the above holds */
	table->magic = TABLE_MAGIC;
	table->entries_max = table->entries_room = entries_max;
	table->seed[0] = scramble(seed[0]);
	table->seed[1] = scramble(seed[1] ^ table->seed[0]);
	table->seed[2] = scramble(table->seed[1]) | 1;
	at += PAGE_BYTES;
	intern_init(&table->intern, at);
	at += pages_up(intern_bytes());
	table->hot = (struct hot *)(void *)at;
	at += pages_up((uint64_t)entries_max * sizeof(struct hot));
	table->cold = (struct cold *)(void *)at;
	at += pages_up((uint64_t)entries_max * sizeof(struct cold));
	table->expiries = (uint32_t *)(void *)at;
	at += pages_up((uint64_t)entries_max * sizeof(uint32_t));
	table->buckets = (uint32_t *)(void *)at;
	at += pages_up(buckets_for(entries_max) * sizeof(uint32_t));
	places_init(&table->places, at, shards_max);
	table->bucket_max = buckets_for(entries_max);
	table->bucket_count = BUCKETS_MIN;
	table->bucket_mask = BUCKETS_MIN - 1;
	*ret_table = table;
}

void table_limit(struct table *table, uint32_t entries_max, uint64_t shards_max)
{
	assert(table->magic == TABLE_MAGIC && entries_max <= table->entries_room);
	table->entries_max = entries_max;
	places_limit(&table->places, shards_max);
}

/* ---- the hash ------------------------------------------------------------- */

uint64_t table_fingerprint(const struct table *table, const struct cairn_key *key, uint32_t space,
			   uint32_t generation)
{
	assert(table->magic == TABLE_MAGIC);
	return hash_key(table, key, hash_space(space, generation));
}

/* Ghosts too. */
static uint32_t find_any(const struct table *table, uint64_t fingerprint)
{
	uint32_t at = *bucket_of(table, fingerprint);

	while (at && table->hot[at - 1].fingerprint != fingerprint)
		at = table->hot[at - 1].next;
	return at ? at - 1 : TABLE_NONE;
}

uint32_t table_find(const struct table *table, uint64_t fingerprint)
{
	uint32_t id = find_any(table, fingerprint);

	assert(table->magic == TABLE_MAGIC);
	return id != TABLE_NONE && lives(table, id) ? id : TABLE_NONE;
}

/* Moves what belongs there to one new bucket at the end. */
static void split_bucket(struct table *table)
{
	uint64_t bucket = table->bucket_count;
	uint32_t *from = &table->buckets[bucket & table->bucket_mask];
	uint32_t *to = &table->buckets[bucket];

	assert(bucket < table->bucket_max && *to == 0);
	table->bucket_count++;
	while (*from) {
		struct hot *hot = &table->hot[*from - 1];
		uint32_t at = *from;

		if (bucket_of(table, hot->fingerprint) == to) {
			*from = hot->next;
			hot->next = *to;
			*to = at;
		} else {
			from = &hot->next;
		}
	}
	if (table->bucket_count == table->bucket_mask * 2 + 2)
		table->bucket_mask = table->bucket_mask * 2 + 1;
}

void table_expect(struct table *table, uint64_t entries)
{
	uint64_t buckets = buckets_for(entries);

	assert(table->magic == TABLE_MAGIC && !table->fresh);
	table->bucket_count = buckets < table->bucket_max ? buckets : table->bucket_max;
	table->bucket_mask = BUCKETS_MIN - 1;
	while (table->bucket_mask * 2 + 2 <= table->bucket_count)
		table->bucket_mask = table->bucket_mask * 2 + 1;
}

void table_arrays(const struct table *table, struct table_array ret_arrays[TABLE_ARRAYS])
{
	ret_arrays[0] = (struct table_array){table->hot, sizeof(*table->hot)};
	ret_arrays[1] = (struct table_array){table->cold, sizeof(*table->cold)};
}

void table_buckets(const struct table *table, void **ret_base, size_t *ret_bytes)
{
	*ret_base = table->buckets;
	*ret_bytes = table->bucket_count * sizeof(*table->buckets);
}

static void set_state(struct table *table, uint32_t id, enum table_state state)
{
	table->counts[state_of(table, id)]--;
	table->counts[state]++;
	table->hot[id].state = (table->hot[id].state & FLAGS_MASK) | (state & STATE_MASK);
}

/* Without places and geometry. TABLE_NONE: all in use. */
static uint32_t entry_make(struct table *table, uint64_t fingerprint, enum table_state state)
{
	uint32_t *bucket, id;

	if (entries_used(table) >= table->entries_max)
		return TABLE_NONE;
	if (table->freed) {
		id = table->freed - 1;
		table->freed = table->hot[id].next;
	} else if (table->fresh < table->entries_room) {
		id = table->fresh++;
	} else {
		return TABLE_NONE;
	}
	assert(state_of(table, id) == TABLE_FREE);
	table->hot[id] = (struct hot){.fingerprint = fingerprint};
	table->cold[id] =
		(struct cold){.incarnation = table->cold[id].incarnation, .parent = TABLE_NONE};
	set_state(table, id, state);
	/* One for each new entry keeps invariant 7, and no call is long. */
	if (table->bucket_count < table->bucket_max &&
	    table->bucket_count < buckets_for(entries_used(table)))
		split_bucket(table);
	bucket = bucket_of(table, fingerprint);
	table->hot[id].next = *bucket;
	*bucket = id + 1;
	return id;
}

static void entry_free(struct table *table, uint32_t id)
{
	uint32_t *at = bucket_of(table, table->hot[id].fingerprint);

	assert(!table->cold[id].children && !table->hot[id].pins);
	while (*at != id + 1) {
		assert(*at); /* it is in its bucket */
		at = &table->hot[*at - 1].next;
	}
	*at = table->hot[id].next;
	set_state(table, id, TABLE_FREE);
	table->hot[id].next = table->freed;
	table->freed = id + 1;
}

/* Invariant 2. */
static void ghost_settle(struct table *table, uint32_t id)
{
	if (state_of(table, id) == TABLE_GHOST && !table->cold[id].children && !table->hot[id].pins)
		entry_free(table, id);
}

/* ---- geometries, and the array of places --------------------------------------- */

/* Invariant 8. @others is written for one shard only. */
static uint16_t geometry_take(struct table *table, const struct table_geometry *geometry,
			      uint8_t *flags, uint32_t *others)
{
	struct table_geometry without = *geometry;
	uint16_t number = intern_take(&table->intern, geometry);

	*flags = 0;
	if (number || geometry->shard_count > 1 || !geometry->last_bytes)
		return number;
	*others = geometry->last_bytes;
	if (geometry->last_bytes == geometry->shard_bytes)
		return GEOMETRY_OWN;
	without.last_bytes = 0;
	*flags = FLAG_LAST;
	return intern_take(&table->intern, &without);
}

static void geometry_give(struct table *table, uint16_t number)
{
	assert(number);
	if (number != GEOMETRY_OWN)
		intern_give(&table->intern, number);
}

void table_geometry(const struct table *table, uint32_t id, struct table_geometry *ret_geometry)
{
	const struct hot *hot = &table->hot[id];

	assert(lives(table, id));
	if (hot->geometry == GEOMETRY_OWN) {
		*ret_geometry = (struct table_geometry){.shard_count = 1,
							.shard_bytes = table->cold[id].others,
							.last_bytes = table->cold[id].others};
		return;
	}
	*ret_geometry = *intern_at(&table->intern, hot->geometry);
	if (hot->state & FLAG_LAST)
		ret_geometry->last_bytes = table->cold[id].others;
}

/* ---- entries ----------------------------------------------------------------------- */

enum table_state table_state(const struct table *table, uint32_t id)
{
	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	return state_of(table, id);
}

uint16_t table_incarnation(const struct table *table, uint32_t id)
{
	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	return table->cold[id].incarnation;
}

uint16_t table_epoch(const struct table *table, uint32_t id)
{
	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	return table->cold[id].epoch;
}

uint32_t table_parent(const struct table *table, uint32_t id)
{
	uint32_t parent = table->cold[id].parent;

	assert(table->magic == TABLE_MAGIC && id < table->fresh && lives(table, id));
	return parent != TABLE_NONE && lives(table, parent) && is_shallower(table, parent, id)
		       ? parent
		       : TABLE_NONE;
}

bool table_is(const struct table *table, uint32_t id, uint16_t incarnation)
{
	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	return lives(table, id) && table->cold[id].incarnation == incarnation;
}

void table_look(const struct table *table, uint32_t id, struct table_block *ret_block)
{
	const struct cold *cold = &table->cold[id];
	const struct hot *hot = &table->hot[id];

	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	*ret_block = (struct table_block){
		.fingerprint = hot->fingerprint,
		.parent = cold->parent,
		.child_count = cold->children,
		.expiry = hot->state & FLAG_EXPIRES ? table->expiries[id] : 0,
		.epoch = cold->epoch,
		.incarnation = cold->incarnation,
		.state = (uint8_t)state_of(table, id),
		.holds = cold->holds,
		.pins = hot->pins,
		.orphan = cold->parent != TABLE_NONE &&
			  state_of(table, cold->parent) == TABLE_GHOST &&
			  is_shallower(table, cold->parent, id),
	};
	if (lives(table, id))
		table_geometry(table, id, &ret_block->geometry);
}

static bool geometry_differs(const struct table_geometry *a, const struct table_geometry *b)
{
	return a->shard_count != b->shard_count || a->shard_bytes != b->shard_bytes ||
	       (a->last_bytes && b->last_bytes && a->last_bytes != b->last_bytes);
}

/* A new or ghost entry becomes partial; what it needs is there. */
static enum table_answer entry_begin(struct table *table, uint64_t fingerprint, uint32_t found,
				     const struct table_geometry *geometry, uint32_t *ret_id)
{
	uint32_t id = found, others = 0;
	uint8_t flags;
	uint16_t number = geometry_take(table, geometry, &flags, &others);

	if (!number)
		return TABLE_GEOMETRIES_FULL;
	if (geometry->shard_count > 1) {
		others = places_take(&table->places, geometry->shard_count - 1);
		if (!others) {
			geometry_give(table, number);
			return TABLE_SHARDS_FULL;
		}
	}
	if (id == TABLE_NONE)
		id = entry_make(table, fingerprint, TABLE_PARTIAL);
	else
		set_state(table, id, TABLE_PARTIAL);
	if (id == TABLE_NONE) {
		geometry_give(table, number);
		if (geometry->shard_count > 1)
			places_give(&table->places, others, geometry->shard_count - 1);
		return TABLE_ENTRIES_FULL;
	}
	table->hot[id].geometry = number & GEOMETRY_OWN;
	table->hot[id].state |= flags & FLAGS_MASK;
	table->hot[id].depth = 0;
	table->cold[id].others = others;
	*ret_id = id;
	return TABLE_OK;
}

enum table_answer table_add(struct table *table, uint64_t fingerprint,
			    const struct table_geometry *geometry, uint16_t epoch, bool *ret_made,
			    uint32_t *ret_id)
{
	uint32_t id = find_any(table, fingerprint);
	struct table_geometry has;
	enum table_answer answer;

	assert(table->magic == TABLE_MAGIC);
	assert(geometry->shard_count >= 1 && geometry->shard_count <= CAIRN_SHARD_COUNT_MAX);
	*ret_made = false;
	*ret_id = id;
	if (id != TABLE_NONE && lives(table, id)) {
		table_geometry(table, id, &has);
		return geometry_differs(&has, geometry) ? TABLE_OTHER_GEOMETRY : TABLE_OK;
	}
	*ret_id = TABLE_NONE;
	answer = entry_begin(table, fingerprint, id, geometry, ret_id);
	if (answer != TABLE_OK)
		return answer;
	table->cold[*ret_id].epoch = epoch;
	*ret_made = true;
	return TABLE_OK;
}

bool table_add_whole(struct table *table, uint64_t fingerprint,
		     const struct table_geometry *geometry, uint16_t epoch,
		     const struct table_place *place, uint32_t *ret_id)
{
	uint32_t id, others = 0;
	uint16_t number;
	uint8_t flags;

	assert(geometry->shard_count == 1 && geometry->last_bytes);
	if (find_any(table, fingerprint) != TABLE_NONE)
		return false;
	number = geometry_take(table, geometry, &flags, &others);
	if (!number)
		return false;
	id = entry_make(table, fingerprint, TABLE_WHOLE);
	if (id == TABLE_NONE) {
		geometry_give(table, number);
		return false;
	}
	table->hot[id].geometry = number & GEOMETRY_OWN;
	table->hot[id].state |= flags & FLAGS_MASK;
	table->cold[id].others = others;
	table->cold[id].epoch = epoch;
	place_encode(place, table->cold[id].place);
	*ret_id = id;
	return true;
}

enum table_answer table_set_last(struct table *table, uint32_t id, uint32_t last_bytes)
{
	struct table_geometry geometry;
	struct hot *hot = &table->hot[id];
	uint16_t number;
	uint8_t flags;

	assert(table->magic == TABLE_MAGIC && last_bytes);
	table_geometry(table, id, &geometry);
	if (geometry.last_bytes)
		return geometry.last_bytes == last_bytes ? TABLE_OK : TABLE_OTHER_GEOMETRY;
	geometry.last_bytes = last_bytes;
	number = geometry_take(table, &geometry, &flags, &table->cold[id].others);
	if (!number)
		return TABLE_GEOMETRIES_FULL;
	geometry_give(table, hot->geometry);
	hot->geometry = number & GEOMETRY_OWN;
	hot->state |= flags & FLAGS_MASK;
	return TABLE_OK;
}

/* ---- places -------------------------------------------------------------------------- */

void table_place(struct table *table, uint32_t id, uint32_t shard, const struct table_place *place)
{
	uint8_t *bytes = place_of(table, id, shard);
	struct table_place before;
	bool taken;

	assert(state_of(table, id) == TABLE_PARTIAL);
	taken = place_decode(bytes, &before);
	assert(!taken);
	(void)taken;
	place_encode(place, bytes);
}

void table_unplace(struct table *table, uint32_t id, uint32_t shard)
{
	assert(state_of(table, id) == TABLE_PARTIAL);
	memset(place_of(table, id, shard), 0, PLACE_BYTES);
}

bool table_shard(const struct table *table, uint32_t id, uint32_t shard,
		 struct table_place *ret_place)
{
	assert(table->magic == TABLE_MAGIC);
	return place_decode(place_of(table, id, shard), ret_place);
}

uint32_t table_shards(const struct table *table, uint32_t id)
{
	uint32_t shard_count = shard_count_of(table, id), present = 0;
	struct table_place place;

	if (state_of(table, id) == TABLE_WHOLE)
		return shard_count;
	for (uint32_t shard = 0; shard < shard_count; shard++)
		present += place_decode(place_of(table, id, shard), &place);
	return present;
}

uint64_t table_units(const struct table *table, uint32_t id)
{
	uint32_t shard_count = shard_count_of(table, id);
	struct table_place place;
	uint64_t units = 0;

	for (uint32_t shard = 0; shard < shard_count; shard++) {
		if (place_decode(place_of(table, id, shard), &place))
			units += place.length;
	}
	return units;
}

bool table_move(struct table *table, uint32_t id, uint32_t shard, uint32_t old_unit,
		const struct table_place *place)
{
	uint8_t *bytes = place_of(table, id, shard);
	struct table_place before;

	if (!place_decode(bytes, &before) || before.unit != old_unit)
		return false;
	place_encode(place, bytes);
	return true;
}

bool table_complete(const struct table *table, uint32_t id)
{
	struct table_geometry geometry;
	struct table_place place;

	table_geometry(table, id, &geometry);
	if (!geometry.last_bytes)
		return false;
	if (geometry.shard_count == 1)
		return place_decode(table->cold[id].place, &place);
	return table_shards(table, id) == geometry.shard_count;
}

void table_publish(struct table *table, uint32_t id)
{
	assert(state_of(table, id) == TABLE_PARTIAL && table_complete(table, id));
	set_state(table, id, TABLE_WHOLE);
}

/* ---- what else is known of a block ----------------------------------------------------- */

bool table_touch(struct table *table, uint32_t id, uint16_t epoch, uint16_t *ret_before)
{
	struct cold *cold = &table->cold[id];

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	*ret_before = cold->epoch;
	if (cold->epoch == epoch)
		return false;
	cold->epoch = epoch;
	return true;
}

void table_set_expiry(struct table *table, uint32_t id, uint32_t expiry_s)
{
	struct hot *hot = &table->hot[id];

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	if (!expiry_s) {
		hot->state &= STATE_MASK | FLAG_LAST;
		return;
	}
	hot->state |= FLAG_EXPIRES;
	table->expiries[id] = expiry_s;
	if (table->expiries_end <= id)
		table->expiries_end = id + 1;
}

static bool leads_back(const struct table *table, uint32_t from, uint32_t to)
{
	for (uint32_t i = 0; from != TABLE_NONE && i <= PARENT_STEPS_MAX; i++) {
		if (from == to)
			return true;
		from = table->cold[from].parent;
	}
	return false;
}

void table_set_depth(struct table *table, uint32_t id, uint32_t depth)
{
	struct hot *hot = &table->hot[id];

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	if (!hot->depth)
		hot->depth = (depth < TABLE_DEPTH_MAX ? depth : TABLE_DEPTH_MAX) & TABLE_DEPTH_MAX;
}

static bool may_continue(const struct table *table, uint32_t id, uint32_t parent)
{
	return parent != id && (parent == TABLE_NONE || is_shallower(table, parent, id));
}

bool table_may_continue(const struct table *table, uint32_t id, uint64_t parent)
{
	assert(table->magic == TABLE_MAGIC && lives(table, id));
	return may_continue(table, id, find_any(table, parent));
}

bool table_set_parent(struct table *table, uint32_t id, uint64_t parent)
{
	uint32_t p = find_any(table, parent);

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	if (table->cold[id].parent != TABLE_NONE || !may_continue(table, id, p) ||
	    leads_back(table, p, id))
		return true;
	if (p == TABLE_NONE)
		p = entry_make(table, parent, TABLE_GHOST);
	if (p == TABLE_NONE || table->cold[p].children == TABLE_CHILDREN_MAX)
		return false;
	table->cold[id].parent = p;
	table->cold[p].children++;
	return true;
}

bool table_hold(struct table *table, uint32_t id)
{
	struct cold *cold = &table->cold[id];

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	if (cold->holds == TABLE_COUNT_MAX)
		return false;
	cold->holds++;
	return true;
}

void table_unhold(struct table *table, uint32_t id, uint16_t incarnation)
{
	if (!table_is(table, id, incarnation))
		return;
	assert(table->cold[id].holds > 0);
	table->cold[id].holds--;
}

bool table_pin(struct table *table, uint32_t id)
{
	struct hot *hot = &table->hot[id];

	assert(table->magic == TABLE_MAGIC && lives(table, id));
	if (hot->pins == TABLE_COUNT_MAX)
		return false;
	hot->pins++;
	return true;
}

void table_unpin(struct table *table, uint32_t id)
{
	assert(table->magic == TABLE_MAGIC && id < table->fresh);
	assert(state_of(table, id) != TABLE_FREE && table->hot[id].pins > 0);
	table->hot[id].pins--;
	ghost_settle(table, id);
}

static void parent_drop(struct table *table, uint32_t id)
{
	uint32_t p = table->cold[id].parent;

	if (p == TABLE_NONE)
		return;
	table->cold[id].parent = TABLE_NONE;
	assert(table->cold[p].children > 0);
	table->cold[p].children--;
	ghost_settle(table, p);
}

void table_remove(struct table *table, uint32_t id)
{
	struct cold *cold = &table->cold[id];
	struct hot *hot = &table->hot[id];
	uint32_t shard_count;

	assert(table->magic == TABLE_MAGIC && id < table->fresh && lives(table, id));
	shard_count = shard_count_of(table, id);
	if (shard_count > 1)
		places_give(&table->places, cold->others, shard_count - 1);
	geometry_give(table, hot->geometry);
	parent_drop(table, id);
	set_state(table, id, TABLE_GHOST);
	/* A ghost has a fingerprint, a place in its bucket, depth, children, pins: nothing else. */
	hot->state = TABLE_GHOST;
	hot->geometry = 0;
	*cold = (struct cold){.incarnation = (uint16_t)(cold->incarnation + 1),
			      .parent = TABLE_NONE,
			      .children = cold->children};
	ghost_settle(table, id);
}

uint32_t table_next(const struct table *table, uint32_t from)
{
	assert(table->magic == TABLE_MAGIC);
	while (from < table->fresh && !lives(table, from))
		from++;
	return from < table->fresh ? from : TABLE_NONE;
}

uint32_t table_end(const struct table *table)
{
	assert(table->magic == TABLE_MAGIC);
	return table->fresh;
}

void table_figures(const struct table *table, struct table_figures *ret_figures)
{
	assert(table->magic == TABLE_MAGIC);
	*ret_figures = (struct table_figures){
		.whole = table->counts[TABLE_WHOLE],
		.partial = table->counts[TABLE_PARTIAL],
		.ghost = table->counts[TABLE_GHOST],
		.entries_max = table->entries_max,
		.geometries = table->intern.used,
		.shards = table->places.shards,
		.memory_bytes = PAGE_BYTES + pages_up(intern_memory(&table->intern)) +
				pages_up((uint64_t)table->fresh * sizeof(struct hot)) +
				pages_up((uint64_t)table->fresh * sizeof(struct cold)) +
				pages_up((uint64_t)table->expiries_end * sizeof(uint32_t)) +
				pages_up(table->bucket_count * sizeof(uint32_t)) +
				places_memory(&table->places),
	};
}
