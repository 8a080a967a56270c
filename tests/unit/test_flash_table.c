/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "random.h"
#include "stages/flash/format.h"
#include "stages/flash/table.h"
#include "stages/flash/table_parts.h"

static const uint64_t seed[2] = {17, 4};

static struct table *table_new(uint32_t entries_max, uint64_t shards_max)
{
	void *memory = mmap(NULL, table_bytes(entries_max, shards_max), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct table *table;

	assert_true(memory != MAP_FAILED);
	table_init(memory, entries_max, shards_max, seed, &table);
	return table;
}

static void table_delete(struct table *table, uint32_t entries_max, uint64_t shards_max)
{
	munmap(table, table_bytes(entries_max, shards_max)); /* it stands at its memory's start */
}

static void assert_sound(const struct table *table)
{
	char why[200] = "";

	if (!table_check(table, why, sizeof(why)))
		fail_msg("%s", why);
}

static struct cairn_key key_of(uint64_t number)
{
	struct random random = {number};
	uint64_t words[2] = {random_next(&random), random_next(&random)};
	struct cairn_key key;

	memcpy(key.bytes, words, sizeof(words));
	return key;
}

static uint64_t print_of(const struct table *table, uint64_t number)
{
	struct cairn_key key = key_of(number);

	return table_fingerprint(table, &key, 7, 2);
}

static struct table_place place_at(uint32_t unit)
{
	return (struct table_place){
		.unit = unit, .length = 1 + unit % TABLE_LENGTH_MAX, .number = unit % 12345};
}

static uint32_t add(struct table *table, uint64_t number, uint32_t shard_count)
{
	struct table_geometry geometry = {shard_count, 4096, 4096};
	uint32_t id;
	bool made;

	assert_int_equal(table_add(table, print_of(table, number), &geometry, 1, &made, &id),
			 TABLE_OK);
	assert_true(made);
	return id;
}

static uint32_t add_whole(struct table *table, uint64_t number, uint32_t shard_count)
{
	uint32_t id = add(table, number, shard_count);

	for (uint32_t shard = 0; shard < shard_count; shard++) {
		struct table_place place = place_at((uint32_t)number * 64 + shard);

		table_place(table, id, shard, &place);
	}
	table_publish(table, id);
	return id;
}

static struct table_block look(const struct table *table, uint32_t id)
{
	struct table_block block;

	table_look(table, id, &block);
	return block;
}

static void assert_geometry(const struct table *table, uint32_t id,
			    const struct table_geometry *geometry)
{
	struct table_geometry has;

	table_geometry(table, id, &has);
	assert_memory_equal(&has, geometry, sizeof(has));
}

/* ---- against a naive model ---------------------------------------------------- */

#define KEYS	    48
#define ENTRIES_MAX 40
#define SHARDS_MAX  300

struct model_entry {
	enum table_state state; /* ghosts are made when they are asked for */
	struct table_geometry geometry;
	struct table_place places[70];
	uint32_t id;
	uint16_t epoch, incarnation;
	uint32_t expiry;
	int parent; /* -1: none */
	uint32_t pins, holds;
};

struct model {
	struct table *table;
	uint64_t prints[KEYS];
	struct model_entry entries[KEYS];
	uint32_t now_s;
};

static bool in_tier(const struct model_entry *e)
{
	return e->state == TABLE_WHOLE || e->state == TABLE_PARTIAL;
}

static uint32_t model_children(const struct model *m, int key)
{
	uint32_t count = 0;

	for (int i = 0; i < KEYS; i++)
		count += in_tier(&m->entries[i]) && m->entries[i].parent == key;
	return count;
}

static bool model_ghost(const struct model *m, int key)
{
	return !in_tier(&m->entries[key]) && (model_children(m, key) || m->entries[key].pins);
}

static uint32_t model_used(const struct model *m)
{
	uint32_t used = 0;

	for (int i = 0; i < KEYS; i++)
		used += in_tier(&m->entries[i]) || model_ghost(m, i);
	return used;
}

static uint64_t model_shards(const struct model *m)
{
	uint64_t shards = 0;

	for (int i = 0; i < KEYS; i++)
		if (in_tier(&m->entries[i]))
			shards += m->entries[i].geometry.shard_count - 1;
	return shards;
}

static void compare_block(const struct model *m, int key)
{
	const struct model_entry *w = &m->entries[key];
	struct table_block b = look(m->table, w->id);
	uint32_t present = 0;
	uint64_t units = 0;

	assert_int_equal(b.fingerprint, m->prints[key]);
	assert_memory_equal(&b.geometry, &w->geometry, sizeof(b.geometry));
	assert_int_equal(b.state, w->state);
	assert_int_equal(table_state(m->table, w->id), w->state);
	assert_int_equal(b.child_count, model_children(m, key));
	assert_int_equal(b.epoch, w->epoch);
	assert_int_equal(b.expiry, w->expiry);
	assert_int_equal(b.holds, w->holds);
	assert_int_equal(b.pins, w->pins);
	assert_int_equal(b.incarnation, w->incarnation);
	assert_true(table_is(m->table, w->id, w->incarnation));
	assert_int_equal(b.parent != TABLE_NONE, w->parent >= 0);
	assert_int_equal(b.orphan, w->parent >= 0 && !in_tier(&m->entries[w->parent]));
	assert_int_equal(table_parent(m->table, w->id), b.orphan ? TABLE_NONE : b.parent);
	if (w->parent >= 0)
		assert_int_equal(look(m->table, b.parent).fingerprint, m->prints[w->parent]);
	for (uint32_t shard = 0; shard < w->geometry.shard_count; shard++) {
		struct table_place place;
		bool there = table_shard(m->table, w->id, shard, &place);

		assert_int_equal(there, w->places[shard].length > 0);
		if (!there)
			continue;
		present++;
		units += place.length;
		assert_memory_equal(&place, &w->places[shard], sizeof(place));
	}
	assert_int_equal(table_shards(m->table, w->id), present);
	assert_int_equal(table_units(m->table, w->id), units);
}

static void model_compare(const struct model *m)
{
	uint32_t counts[4] = {0}, walked = 0;
	struct table_figures figures;

	for (int i = 0; i < KEYS; i++) {
		const struct model_entry *w = &m->entries[i];

		counts[model_ghost(m, i) ? TABLE_GHOST : w->state]++;
		assert_int_equal(table_find(m->table, m->prints[i]),
				 in_tier(w) ? w->id : TABLE_NONE);
		if (in_tier(w))
			compare_block(m, i);
	}
	for (uint32_t id = 0; (id = table_next(m->table, id)) != TABLE_NONE; id++)
		walked++;
	table_figures(m->table, &figures);
	assert_int_equal(figures.whole, counts[TABLE_WHOLE]);
	assert_int_equal(figures.partial, counts[TABLE_PARTIAL]);
	assert_int_equal(figures.ghost, counts[TABLE_GHOST]);
	assert_int_equal(walked, counts[TABLE_WHOLE] + counts[TABLE_PARTIAL]);
	assert_int_equal(figures.shards, model_shards(m));
	assert_sound(m->table);
}

static struct table_geometry some_geometry(struct random *random)
{
	static const uint32_t shard_counts[] = {1, 1, 2, 3, 7, 64, 70};
	struct table_geometry geometry = {shard_counts[random_below(random, 7)],
					  4096u << random_below(random, 2), 0};

	geometry.last_bytes = random_below(random, 3) * (geometry.shard_bytes / 2);
	return geometry;
}

static void step_add(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	struct table_geometry geometry = some_geometry(random);
	bool lived = in_tier(w), full = model_used(m) == ENTRIES_MAX && !model_ghost(m, key);
	enum table_answer answer;
	uint32_t id, pins = w->pins;
	uint16_t epoch = (uint16_t)random_next(random);
	bool made;

	answer = table_add(m->table, m->prints[key], &geometry, epoch, &made, &id);
	if (lived) {
		bool same = geometry.shard_count == w->geometry.shard_count &&
			    geometry.shard_bytes == w->geometry.shard_bytes &&
			    (!geometry.last_bytes || !w->geometry.last_bytes ||
			     geometry.last_bytes == w->geometry.last_bytes);

		assert_int_equal(answer, same ? TABLE_OK : TABLE_OTHER_GEOMETRY);
		assert_int_equal(id, w->id);
	} else if (model_shards(m) + geometry.shard_count - 1 > SHARDS_MAX) {
		assert_int_equal(answer, TABLE_SHARDS_FULL);
	} else if (full) {
		assert_int_equal(answer, TABLE_ENTRIES_FULL);
	} else {
		assert_int_equal(answer, TABLE_OK);
	}
	assert_int_equal(made, answer == TABLE_OK && !lived);
	if (!made)
		return;
	*w = (struct model_entry){.state = TABLE_PARTIAL,
				  .geometry = geometry,
				  .id = id,
				  .epoch = epoch,
				  .incarnation = table_incarnation(m->table, id),
				  .parent = -1,
				  .pins = pins};
}

static void step_shard(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	uint32_t shard = random_below(random, w->geometry.shard_count);
	struct table_place place = {(uint32_t)random_next(random),
				    1 + random_below(random, TABLE_LENGTH_MAX),
				    random_below(random, TABLE_NUMBER_MAX + 1)};
	uint32_t old = w->places[shard].unit - (random_below(random, 4) == 0);
	bool moves = w->places[shard].length && old == w->places[shard].unit;

	if (w->places[shard].length && w->state == TABLE_PARTIAL && random_below(random, 8) == 0) {
		table_unplace(m->table, w->id, shard);
		w->places[shard] = (struct table_place){0};
	} else if (w->places[shard].length || random_below(random, 8) == 0) {
		assert_int_equal(table_move(m->table, w->id, shard, old, &place), moves);
		if (moves)
			w->places[shard] = place;
	} else {
		table_place(m->table, w->id, shard, &place);
		w->places[shard] = place;
	}
}

static void step_whole(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	uint32_t last = w->geometry.last_bytes;

	if (!last) {
		last = w->geometry.shard_bytes / (1 + random_below(random, 2));
		assert_int_equal(table_set_last(m->table, w->id, last), TABLE_OK);
		w->geometry.last_bytes = last;
	}
	assert_int_equal(table_set_last(m->table, w->id, last), TABLE_OK);
	assert_int_equal(table_set_last(m->table, w->id, last + 1), TABLE_OTHER_GEOMETRY);
	if (w->state == TABLE_WHOLE)
		return;
	for (uint32_t shard = 0; shard < w->geometry.shard_count; shard++) {
		if (w->places[shard].length)
			continue;
		w->places[shard] = place_at((uint32_t)random_next(random));
		table_place(m->table, w->id, shard, &w->places[shard]);
	}
	table_publish(m->table, w->id);
	w->state = TABLE_WHOLE;
}

static void step_parent(struct model *m, int key, int parent)
{
	struct model_entry *w = &m->entries[key];
	int at = parent;

	for (int i = 0; i <= 64 && at >= 0 && at != key; i++)
		at = in_tier(&m->entries[at]) ? m->entries[at].parent : -1;
	if (w->parent >= 0 || at == key) {
		assert_true(table_set_parent(m->table, w->id, m->prints[parent]));
	} else if (model_used(m) == ENTRIES_MAX && !in_tier(&m->entries[parent]) &&
		   !model_ghost(m, parent)) {
		assert_false(table_set_parent(m->table, w->id, m->prints[parent]));
	} else {
		assert_true(table_set_parent(m->table, w->id, m->prints[parent]));
		w->parent = parent;
	}
}

static void step_counts(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];

	switch (random_below(random, 4)) {
	case 0:
		w->holds++;
		assert_true(table_hold(m->table, w->id));
		break;
	case 1:
		table_unhold(m->table, w->id, (uint16_t)(w->incarnation - 1)); /* ignored */
		if (w->holds) {
			w->holds--;
			table_unhold(m->table, w->id, w->incarnation);
		}
		break;
	default:
		w->pins++;
		assert_true(table_pin(m->table, w->id));
	}
}

static void step_unpin(struct model *m, int key)
{
	struct model_entry *w = &m->entries[key];

	if (!w->pins)
		return;
	/* The id stays, even if the entry was removed, or came back meanwhile. */
	assert_int_equal(look(m->table, w->id).fingerprint, m->prints[key]);
	w->pins--;
	table_unpin(m->table, w->id);
}

static void step_remove(struct model *m, int key)
{
	struct model_entry *w = &m->entries[key];
	uint32_t id = w->id, pins = w->pins;

	table_remove(m->table, id);
	assert_false(table_is(m->table, id, w->incarnation));
	*w = (struct model_entry){.parent = -1, .pins = pins, .id = id};
}

static void step_use(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	uint16_t epoch = (uint16_t)(w->epoch + random_below(random, 2)), before;

	assert_int_equal(table_touch(m->table, w->id, epoch, &before), epoch != w->epoch);
	assert_int_equal(before, w->epoch);
	w->epoch = epoch;
	w->expiry = random_below(random, 2) ? 1000 + random_below(random, 1000) : 0;
	table_set_expiry(m->table, w->id, w->expiry);
}

static void model_step(struct model *m, struct random *random)
{
	int key = (int)random_below(random, KEYS);
	uint32_t step = random_below(random, 14);

	if (step < 3)
		step_add(m, key, random);
	else if (step == 3)
		step_unpin(m, key);
	else if (!in_tier(&m->entries[key]))
		return;
	else if (step < 6)
		step_shard(m, key, random);
	else if (step < 8)
		step_whole(m, key, random);
	else if (step < 10)
		step_parent(m, key, (int)random_below(random, KEYS));
	else if (step == 10)
		step_counts(m, key, random);
	else if (step == 11)
		step_use(m, key, random);
	else
		step_remove(m, key);
}

static void run_model(uint64_t number)
{
	struct random random = {number};
	struct model *m = calloc(1, sizeof(*m));

	m->table = table_new(ENTRIES_MAX, SHARDS_MAX);
	for (int i = 0; i < KEYS; i++) {
		m->entries[i].parent = -1;
		m->prints[i] = print_of(m->table, (uint64_t)i);
	}
	for (int i = 0; i < 4000; i++) {
		model_step(m, &random);
		model_compare(m);
	}
	table_delete(m->table, ENTRIES_MAX, SHARDS_MAX);
	free(m);
}

static void against_model(void **state)
{
	(void)state;
	for (uint64_t number = 1; number <= 12; number++) {
		print_message("# seed %llu\n", (unsigned long long)number);
		run_model(number);
	}
}

/* ---- cases ------------------------------------------------------------------------ */

static void fingerprints(void **state)
{
	struct table *table = table_new(8, 0);
	struct cairn_key a = key_of(1), b = key_of(2);
	uint64_t print = table_fingerprint(table, &a, 1, 1);
	static const uint64_t other_seed[2] = {17, 5};
	struct table *other;
	void *memory = mmap(NULL, table_bytes(8, 0), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	/* On disk: never another one for the same seed. */
	assert_int_equal(print, 0x7efff3cba0a48579ull);
	assert_int_not_equal(print, table_fingerprint(table, &b, 1, 1));
	assert_int_not_equal(print, table_fingerprint(table, &a, 2, 1));
	assert_int_not_equal(print, table_fingerprint(table, &a, 1, 2));
	assert_true(memory != MAP_FAILED);
	table_init(memory, 8, 0, other_seed, &other);
	assert_int_not_equal(print, table_fingerprint(other, &a, 1, 1));
	/* What a region's table says of a parent is what the index finds it by. */
	assert_int_equal(print, flash_fingerprint(&a, 1, 1, seed));
	assert_int_equal(table_fingerprint(other, &b, 9, 4),
			 flash_fingerprint(&b, 9, 4, other_seed));
	table_delete(other, 8, 0);
	table_delete(table, 8, 0);
}

/* Whoever comes back with an id sees that the entry is another one, pinned or not. */
static void ids(void **state)
{
	struct table *table = table_new(8, 100);
	uint32_t id = add_whole(table, 1, 3), again;
	uint16_t incarnation = table_incarnation(table, id);
	struct table_figures figures;

	(void)state;
	assert_true(table_hold(table, id));
	table_remove(table, id);
	assert_false(table_is(table, id, incarnation));
	assert_int_equal(table_state(table, id), TABLE_FREE);
	table_unhold(table, id, incarnation);
	again = add_whole(table, 2, 1);
	assert_int_equal(again, id); /* used again */
	assert_false(table_is(table, id, incarnation));
	incarnation = table_incarnation(table, id);
	/* Pinned: nobody else gets the id; the same block may come back to it. */
	assert_true(table_pin(table, id));
	table_remove(table, id);
	assert_int_equal(table_find(table, print_of(table, 2)), TABLE_NONE);
	assert_int_equal(table_state(table, id), TABLE_GHOST);
	assert_int_not_equal(add_whole(table, 3, 1), id);
	assert_int_equal(add(table, 2, 2), id);
	assert_false(table_is(table, id, incarnation));
	assert_sound(table);
	table_remove(table, id);
	table_unpin(table, id);
	assert_int_equal(table_state(table, id), TABLE_FREE);
	table_figures(table, &figures);
	assert_int_equal(figures.shards, 0);
	assert_int_equal(figures.ghost, 0);
	assert_sound(table);
	table_delete(table, 8, 100);
}

static void counts_stop(void **state)
{
	struct table *table = table_new(8, 0);
	uint32_t id = add_whole(table, 1, 1);

	(void)state;
	for (uint32_t i = 0; i < TABLE_COUNT_MAX; i++) {
		assert_true(table_hold(table, id));
		assert_true(table_pin(table, id));
	}
	assert_false(table_hold(table, id));
	assert_false(table_pin(table, id));
	for (uint32_t i = 0; i < TABLE_COUNT_MAX; i++) {
		table_unhold(table, id, table_incarnation(table, id));
		table_unpin(table, id);
	}
	assert_int_equal(look(table, id).holds, 0);
	assert_int_equal(look(table, id).pins, 0);
	assert_true(table_hold(table, id));
	assert_true(table_pin(table, id));
	table_delete(table, 8, 0);
}

static void children_stop(void **state)
{
	uint32_t many = TABLE_CHILDREN_MAX + 2;
	struct table *table = table_new(many, 0);
	uint32_t root = add_whole(table, 1, 1), last = root;

	(void)state;
	for (uint32_t i = 0; i < TABLE_CHILDREN_MAX; i++) {
		last = add_whole(table, 2 + i, 1);
		assert_true(table_set_parent(table, last, print_of(table, 1)));
	}
	last = add_whole(table, many, 1);
	assert_false(table_set_parent(table, last, print_of(table, 1)));
	assert_int_equal(look(table, last).parent, TABLE_NONE);
	assert_int_equal(look(table, root).child_count, TABLE_CHILDREN_MAX);
	table_remove(table, root);
	assert_sound(table);
	for (uint32_t id = 0; (id = table_next(table, id)) != TABLE_NONE; id++)
		table_remove(table, id);
	assert_int_equal(table_state(table, root), TABLE_FREE);
	assert_sound(table);
	table_delete(table, many, 0);
}

/* More sizes than can be interned: blocks of one shard keep their own, others are refused. */
static void geometries_full(void **state)
{
	uint32_t many = TABLE_GEOMETRIES_MAX * 2;
	struct table *table = table_new(many, many);
	struct table_geometry geometry = {.shard_count = 2};
	struct table_figures figures;
	uint32_t id;
	bool made;

	(void)state;
	for (uint32_t i = 0; i < TABLE_GEOMETRIES_MAX; i++) {
		geometry.shard_bytes = geometry.last_bytes = i + 1;
		assert_int_equal(table_add(table, i, &geometry, 0, &made, &id), TABLE_OK);
	}
	assert_int_equal(table_add(table, many, &geometry, 0, &made, &id), TABLE_OK);
	geometry.last_bytes++;
	assert_int_equal(table_add(table, many + 1, &geometry, 0, &made, &id),
			 TABLE_GEOMETRIES_FULL);
	assert_int_equal(id, TABLE_NONE);
	geometry = (struct table_geometry){1, 7777, 7777};
	assert_int_equal(table_add(table, many + 1, &geometry, 0, &made, &id), TABLE_OK);
	assert_geometry(table, id, &geometry);
	geometry.last_bytes = 7; /* without (1, 7777, not known) it cannot be said */
	assert_int_equal(table_add(table, many + 2, &geometry, 0, &made, &id),
			 TABLE_GEOMETRIES_FULL);
	table_remove(table, table_find(table, 0));
	geometry.last_bytes = 0;
	assert_int_equal(table_add(table, many + 3, &geometry, 0, &made, &id), TABLE_OK);
	assert_int_equal(table_set_last(table, id, 8), TABLE_OK);
	geometry.last_bytes = 8;
	assert_geometry(table, id, &geometry);
	geometry.last_bytes = 7;
	assert_int_equal(table_add(table, many + 2, &geometry, 0, &made, &id), TABLE_OK);
	assert_geometry(table, id, &geometry);
	assert_sound(table);
	for (id = 0; (id = table_next(table, id)) != TABLE_NONE; id++)
		table_remove(table, id);
	assert_sound(table);
	table_figures(table, &figures);
	assert_int_equal(figures.geometries, 0);
	table_delete(table, many, many);
}

/* Arrays of every length share the chunks, again and again. */
static void arrays(void **state)
{
	struct table *table = table_new(4000, 100000);
	struct random random = {5};
	uint64_t shards = 0;
	struct table_figures figures;

	(void)state;
	for (uint32_t round = 0; round < 20000; round++) {
		uint64_t number = random_below(&random, 1000);
		uint32_t id = table_find(table, print_of(table, number));
		struct table_place place;

		if (id == TABLE_NONE) {
			uint32_t shard_count = 1 + random_below(&random, 190);

			add_whole(table, number, shard_count);
			shards += shard_count - 1;
			continue;
		}
		for (uint32_t shard = 0; shard < look(table, id).geometry.shard_count; shard++) {
			assert_true(table_shard(table, id, shard, &place));
			assert_int_equal(place.unit, number * 64 + shard);
		}
		shards -= look(table, id).geometry.shard_count - 1;
		table_remove(table, id);
	}
	table_figures(table, &figures);
	assert_int_equal(figures.shards, shards);
	assert_sound(table);
	table_delete(table, 4000, 100000);
}

/* With its mark a block takes 48 bytes, a further shard 12; where blocks expire it is 4 more. */
static void memory(void **state)
{
	struct table *table = table_new(1000000, 0);
	struct table_figures figures;

	(void)state;
	for (uint32_t i = 0; i < 1000000; i++)
		add_whole(table, i, 1);
	table_figures(table, &figures);
	assert_true(figures.memory_bytes <= 47u * 1000000u);
	for (uint32_t i = 0; i < 1000000; i++)
		table_set_expiry(table, i, 7);
	table_figures(table, &figures);
	assert_true(figures.memory_bytes <= 51u * 1000000u);
	table_delete(table, 1000000, 0);
	table = table_new(100000, 6300000);
	for (uint32_t i = 0; i < 100000; i++)
		add_whole(table, i, 64);
	table_figures(table, &figures);
	assert_int_equal(figures.shards, 6300000);
	assert_true(figures.memory_bytes <= 47u * 100000u + 11u * 6300000u);
	assert_sound(table);
	table_delete(table, 100000, 6300000);
}

#define MANY 200000u

static void batches(void **state)
{
	struct table *table = table_new(MANY, 0);
	struct cairn_key *keys = calloc(1000, sizeof(*keys));
	uint32_t *found = calloc(1000, sizeof(*found)), *where = calloc(MANY, sizeof(*where));
	struct random random = {9};

	(void)state;
	for (uint32_t i = 0; i < MANY; i++)
		where[i] = add_whole(table, i, 1);
	for (int round = 0; round < 200; round++) {
		uint32_t numbers[1000], missing = round % 2 ? random_below(&random, 1000) : 1000;
		bool chain = round % 4 == 3;

		for (uint32_t i = 0; i < 1000; i++) {
			numbers[i] = random_below(&random, MANY) + (i == missing ? MANY : 0);
			keys[i] = key_of(numbers[i]);
		}
		assert_int_equal(table_find_batch(table, 7, 2, keys, 1000, chain, 0, found),
				 chain ? missing : 1000 - (missing < 1000));
		for (uint32_t i = 0; i < (chain ? missing : 1000); i++)
			assert_int_equal(found[i], i == missing ? TABLE_NONE : where[numbers[i]]);
		assert_int_equal(table_find_batch(table, 7, 3, keys, 1000, false, 0, found), 0);
	}
	free(where);
	free(keys);
	free(found);
	table_delete(table, MANY, 0);
}

static void expiry(void **state)
{
	struct table *table = table_new(8, 0);
	struct cairn_key keys[3] = {key_of(0), key_of(1), key_of(2)};
	uint32_t found[3], id;

	(void)state;
	add_whole(table, 0, 1);
	id = add_whole(table, 1, 1);
	add(table, 2, 1); /* partial: no batch finds it */
	table_set_expiry(table, id, 100);
	assert_int_equal(table_find_batch(table, 7, 2, keys, 3, false, 99, found), 2);
	assert_int_equal(found[2], TABLE_NONE);
	assert_int_equal(table_find_batch(table, 7, 2, keys, 3, false, 100, found), 1);
	assert_int_equal(found[1], TABLE_NONE);
	assert_int_equal(table_find(table, print_of(table, 1)), id);
	table_set_expiry(table, id, 0);
	assert_int_equal(table_find_batch(table, 7, 2, keys, 3, true, UINT32_MAX, found), 2);
	table_delete(table, 8, 0);
}

static void check_sees_damage(void **state)
{
	struct table *table = table_new(100, 100);
	uint32_t a = add_whole(table, 1, 1), b = add_whole(table, 2, 3);
	char why[100];

	(void)state;
	assert_true(table_set_parent(table, b, print_of(table, 1)));
	table->cold[a].children++;
	assert_false(table_check(table, why, sizeof(why)));
	assert_string_equal(why, "child counts are not those of the children");
	table->cold[a].children--;
	table->hot[b].fingerprint++;
	assert_false(table_check(table, why, sizeof(why)));
	table->hot[b].fingerprint--;
	table->cold[b].place[4] = 0;
	assert_false(table_check(table, NULL, 0)); /* length 0: whole, and a shard is not there */
	table->cold[b].place[4] = 1;
	table->hot[b].geometry = table->hot[a].geometry;
	assert_false(table_check(table, why, sizeof(why)));
	table->hot[b].geometry = 2;
	table->intern.entries[0].refs++;
	assert_false(table_check(table, why, sizeof(why)));
	assert_string_equal(why, "geometries are not counted as used");
	table->intern.entries[0].refs--;
	table->places.chunks[0].used++;
	assert_false(table_check(table, why, sizeof(why)));
	table->places.chunks[0].used--;
	assert_sound(table);
	table_delete(table, 100, 100);
}

/* Buckets for as many as are expected: fewer may come, or more. */
static void expected(void **state)
{
	static const uint64_t guesses[] = {0, 100, 3000, 1000000};
	uint64_t prints[TABLE_FETCH_MAX];

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		struct table *table = table_new(5000, 0);

		table_expect(table, guesses[i]);
		assert_sound(table);
		for (uint32_t n = 0; n < 5000; n++) {
			struct table_place place = {n + 1, 1, n};
			uint32_t id = add(table, n, 1);

			assert_false(table_complete(table, id));
			table_place(table, id, 0, &place);
			assert_true(table_complete(table, id));
		}
		assert_sound(table);
		for (uint32_t n = 0; n < TABLE_FETCH_MAX; n++)
			prints[n] = print_of(table, n * 80); /* some are not there */
		table_fetch(table, prints, TABLE_FETCH_MAX);
		for (uint32_t n = 0; n < TABLE_FETCH_MAX; n++)
			assert_int_equal(table_find(table, prints[n]) == TABLE_NONE,
					 n * 80 >= 5000);
		assert_sound(table);
		table_delete(table, 5000, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_model), cmocka_unit_test(fingerprints),
		cmocka_unit_test(ids),		 cmocka_unit_test(counts_stop),
		cmocka_unit_test(children_stop), cmocka_unit_test(geometries_full),
		cmocka_unit_test(arrays),	 cmocka_unit_test(memory),
		cmocka_unit_test(batches),	 cmocka_unit_test(expiry),
		cmocka_unit_test(expected),	 cmocka_unit_test(check_sees_damage),
	};

	return cmocka_run_group_tests_name("flash_table", tests, NULL, NULL);
}
