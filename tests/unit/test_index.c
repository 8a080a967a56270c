/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <cmocka.h>

#include "base/index.h"
#include "random.h"

static struct index *index_new(uint32_t entries_max)
{
	size_t bytes = index_bytes(entries_max);
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct index *index;

	assert_true(memory != MAP_FAILED);
	index_init(memory, entries_max, 42, &index);
	return index;
}

static void index_delete(struct index *index, uint32_t entries_max)
{
	munmap(index, index_bytes(entries_max)); /* the index stands at its memory's start */
}

static void assert_sound(const struct index *index)
{
	char why[200] = "";

	if (!index_check(index, why, sizeof(why)))
		fail_msg("%s", why);
}

static struct index_key key_of(uint64_t number)
{
	struct index_key key = {.space = 1, .generation = 1};

	memcpy(key.key.bytes, &number, sizeof(number));
	return key;
}

static struct index_entry *add_whole(struct index *index, uint64_t number, uint64_t parent,
				     uint64_t stamp)
{
	struct index_key key = key_of(number), parent_key = key_of(parent);
	bool made;
	struct index_entry *e = index_add(index, &key, &made);

	assert_non_null(e);
	assert_true(made);
	if (parent)
		assert_true(index_set_parent(index, e, &parent_key.key));
	index_publish(index, e, stamp);
	return e;
}

/* ---- against a naive model ---------------------------------------------- */

#define KEYS	    48
#define ENTRIES_MAX 40

struct model_entry {
	int state;  /* enum index_state; ghosts are made when they are asked for */
	int parent; /* -1: none */
	int pins, holds;
	uint64_t stamp;
};

struct model {
	struct index *index;
	struct index_key keys[KEYS];
	struct model_entry entries[KEYS];
	int order[KEYS]; /* coldest first */
	int order_count;
	uint64_t clock;
};

static bool in_tier(const struct model_entry *e)
{
	return e->state == INDEX_WHOLE || e->state == INDEX_PARTIAL;
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
	return !in_tier(&m->entries[key]) && model_children(m, key);
}

static uint32_t model_used(const struct model *m)
{
	uint32_t used = 0;

	for (int i = 0; i < KEYS; i++)
		used += in_tier(&m->entries[i]) || model_ghost(m, i);
	return used;
}

static void model_unlink(struct model *m, int key)
{
	int at = 0;

	while (m->order[at] != key)
		at++;
	m->order_count--;
	memmove(&m->order[at], &m->order[at + 1], (size_t)(m->order_count - at) * sizeof(int));
}

static void model_place(struct model *m, int key, uint64_t stamp)
{
	struct model_entry *e = &m->entries[key];
	int at = 0;

	e->stamp = stamp;
	if (e->parent >= 0 && m->entries[e->parent].state == INDEX_WHOLE &&
	    m->entries[e->parent].stamp == stamp) {
		while (m->order[at] != e->parent)
			at++;
	} else {
		while (at < m->order_count && m->entries[m->order[at]].stamp <= stamp)
			at++;
	}
	memmove(&m->order[at + 1], &m->order[at], (size_t)(m->order_count - at) * sizeof(int));
	m->order[at] = key;
	m->order_count++;
}

static bool model_leads_back(const struct model *m, int from, int to)
{
	for (int i = 0; i <= 64 && from >= 0; i++) {
		if (from == to)
			return true;
		from = in_tier(&m->entries[from]) ? m->entries[from].parent : -1;
	}
	return false;
}

static void model_compare(struct model *m)
{
	struct index_entry *walk = NULL, *victim;
	struct index_figures figures;
	int expected = -1;
	uint32_t whole = 0, partial = 0, ghost = 0;

	assert_sound(m->index);
	for (int i = 0; i < KEYS; i++) {
		struct index_entry *e = index_find(m->index, &m->keys[i]);
		const struct model_entry *w = &m->entries[i];

		assert_int_equal(!!e, in_tier(w) || model_ghost(m, i));
		if (!e)
			continue;
		assert_int_equal(e->child_count, model_children(m, i));
		assert_int_equal(e->state, in_tier(w) ? w->state : INDEX_GHOST);
		assert_int_equal(
			e->parent,
			in_tier(w) && w->parent >= 0
				? index_id(m->index, index_find(m->index, &m->keys[w->parent]))
				: INDEX_NONE);
		whole += e->state == INDEX_WHOLE;
		partial += e->state == INDEX_PARTIAL;
		ghost += e->state == INDEX_GHOST;
	}
	index_figures(m->index, &figures);
	assert_int_equal(figures.whole, whole);
	assert_int_equal(figures.partial, partial);
	assert_int_equal(figures.ghost, ghost);
	for (int i = 0; i < m->order_count; i++) {
		const struct model_entry *w = &m->entries[m->order[i]];

		walk = index_next(m->index, walk);
		assert_ptr_equal(walk, index_find(m->index, &m->keys[m->order[i]]));
		assert_int_equal(walk->stamp, w->stamp);
		if (expected < 0 && !w->pins && !w->holds && !model_children(m, m->order[i]))
			expected = m->order[i];
	}
	assert_null(index_next(m->index, walk));
	victim = index_victim(m->index);
	assert_ptr_equal(victim, expected < 0 ? NULL : index_find(m->index, &m->keys[expected]));
}

static void step_add(struct model *m, int key)
{
	struct model_entry *w = &m->entries[key];
	bool room = in_tier(w) || model_ghost(m, key) || model_used(m) < ENTRIES_MAX;
	bool made = true;
	struct index_entry *e = index_add(m->index, &m->keys[key], &made);

	assert_int_equal(!!e, room);
	assert_int_equal(made, room && !in_tier(w));
	if (!made)
		return;
	assert_int_equal(e->state, INDEX_PARTIAL);
	assert_int_equal(e->pins | e->holds, 0);
	*w = (struct model_entry){.state = INDEX_PARTIAL, .parent = -1};
}

static void step_parent(struct model *m, int key, int parent)
{
	struct model_entry *w = &m->entries[key];
	struct index_entry *e = index_find(m->index, &m->keys[key]);
	bool same_space = m->keys[key].space == m->keys[parent].space;
	bool told;

	if (!in_tier(w) || !same_space)
		return;
	told = w->parent >= 0 || model_leads_back(m, parent, key);
	if (!told && !in_tier(&m->entries[parent]) && !model_ghost(m, parent) &&
	    model_used(m) == ENTRIES_MAX) {
		assert_false(index_set_parent(m->index, e, &m->keys[parent].key));
		return;
	}
	assert_true(index_set_parent(m->index, e, &m->keys[parent].key));
	if (!told)
		w->parent = parent;
}

static void step_use(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	struct index_entry *e = index_find(m->index, &m->keys[key]);
	uint64_t stamp = m->clock - random_below(random, 12);

	m->clock += random_below(random, 2);
	if (w->state == INDEX_PARTIAL) {
		index_publish(m->index, e, stamp);
		w->state = INDEX_WHOLE;
		model_place(m, key, stamp);
	} else if (w->state == INDEX_WHOLE) {
		index_touch(m->index, e, stamp);
		if (stamp <= w->stamp)
			return;
		model_unlink(m, key);
		model_place(m, key, stamp);
	}
}

static void step_remove(struct model *m, int key)
{
	struct model_entry *w = &m->entries[key];

	if (!in_tier(w))
		return;
	index_remove(m->index, index_find(m->index, &m->keys[key]));
	if (w->state == INDEX_WHOLE)
		model_unlink(m, key);
	*w = (struct model_entry){.state = INDEX_FREE, .parent = -1};
}

static void step_hold(struct model *m, int key, struct random *random)
{
	struct model_entry *w = &m->entries[key];
	struct index_entry *e = index_find(m->index, &m->keys[key]);

	if (!in_tier(w))
		return;
	w->pins = random_below(random, 3) == 0;
	w->holds = random_below(random, 3) == 0;
	e->pins = (uint16_t)w->pins;
	e->holds = (uint16_t)w->holds;
}

static void run_model(uint64_t seed)
{
	struct random random = {seed};
	struct model *m = calloc(1, sizeof(*m));

	m->index = index_new(ENTRIES_MAX);
	m->clock = 100;
	for (int i = 0; i < KEYS; i++) {
		m->entries[i].parent = -1;
		/* The same keys in two namespaces. */
		m->keys[i] = key_of((uint64_t)i / 2 + 1);
		m->keys[i].space += (uint32_t)i % 2;
	}
	for (int i = 0; i < 3000; i++) {
		int key = (int)random_below(&random, KEYS);

		switch (random_below(&random, 8)) {
		case 0:
		case 1:
			step_add(m, key);
			break;
		case 2:
			step_parent(m, key, (int)random_below(&random, KEYS));
			break;
		case 3:
		case 4:
		case 5:
			step_use(m, key, &random);
			break;
		case 6:
			step_hold(m, key, &random);
			break;
		default:
			step_remove(m, key);
		}
		model_compare(m);
	}
	index_delete(m->index, ENTRIES_MAX);
	free(m);
}

static void against_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		print_message("# seed %llu\n", (unsigned long long)seed);
		run_model(seed);
	}
}

/* ---- cases --------------------------------------------------------------- */

static void ghosts(void **state)
{
	struct index *index = index_new(8);
	struct index_entry *b = add_whole(index, 2, 1, 5), *a;
	struct index_key a_key = key_of(1), b_key = key_of(2);
	bool made;

	(void)state;
	a = index_find(index, &a_key);
	assert_int_equal(a->state, INDEX_GHOST);
	assert_int_equal(index_find_batch(index, 1, 1, &a_key.key, 1, false, false, &a), 0);
	assert_null(a);
	/* The parent comes late, and is no leaf from the first moment. */
	a = index_add(index, &a_key, &made);
	assert_true(made);
	index_publish(index, a, 3);
	assert_ptr_equal(index_victim(index), b);
	index_remove(index, a);
	assert_int_equal(index_find(index, &a_key)->state, INDEX_GHOST);
	index_remove(index, b);
	assert_null(index_find(index, &a_key));
	assert_null(index_find(index, &b_key));
	assert_null(index_victim(index));
	assert_sound(index);
	index_delete(index, 8);
}

static void parents_first_told_stays(void **state)
{
	struct index *index = index_new(200);
	struct index_key one = key_of(1), two = key_of(2), key;
	struct index_entry *e = add_whole(index, 1, 0, 1), *last = e;

	(void)state;
	assert_true(index_set_parent(index, e, &one.key)); /* itself: ignored */
	assert_int_equal(e->parent, INDEX_NONE);
	for (uint64_t i = 2; i <= 65; i++)
		last = add_whole(index, i, i - 1, 1);
	key = last->key;
	assert_true(index_set_parent(index, e, &key.key)); /* 64 steps back to it: ignored */
	assert_int_equal(e->parent, INDEX_NONE);
	key = key_of(1000);
	assert_true(index_set_parent(index, last, &key.key)); /* a second one: ignored */
	assert_null(index_find(index, &key));
	assert_true(index_set_parent(index, e, &key.key));
	assert_true(index_set_parent(index, e, &two.key));
	assert_int_equal(e->parent, index_id(index, index_find(index, &key)));
	assert_sound(index);
	index_delete(index, 200);
}

/* A chain that one task touched is evicted from its tail, in whatever order it was touched. */
static void chains(void **state)
{
	struct index *index = index_new(64);
	struct random random = {3};

	(void)state;
	for (int round = 0; round < 50; round++) {
		uint64_t start = 1 + (uint64_t)round * 100;
		struct index_entry *e[10];

		for (uint64_t i = 0; i < 10; i++)
			e[i] = add_whole(index, start + i, i ? start + i - 1 : 0, start);
		for (int i = 0; i < 30; i++)
			index_touch(index, e[random_below(&random, 10)], start + 1);
		for (int i = 9; i >= 0; i--) {
			assert_ptr_equal(index_victim(index), e[i]);
			index_remove(index, e[i]);
		}
		assert_sound(index);
	}
	index_delete(index, 64);
}

/* Stamps that come late find their place; those older than all runs kept count as the oldest. */
static void late_stamps(void **state)
{
	struct index *index = index_new(1000);
	struct index_entry *e;
	uint64_t stamp = 0, number = 1;

	(void)state;
	for (uint64_t s = 1000; s > 1000 - INDEX_RUNS; s--)
		add_whole(index, number++, 0, s * 10);
	assert_sound(index);
	e = add_whole(index, number++, 0, 5); /* there is no room for another run below */
	assert_int_equal(e->stamp, (1001 - INDEX_RUNS) * 10);
	e = add_whole(index, number++, 0, 9995);
	assert_int_equal(e->stamp, 9995);
	for (uint64_t s = 2000; s < 2200; s++)
		add_whole(index, number++, 0, s * 10);
	e = add_whole(index, number++, 0, 15000);
	assert_int_equal(e->stamp, (2200 - INDEX_RUNS) * 10);
	assert_sound(index);
	/* All runs that are kept go; the older ones come back one by one. */
	for (struct index_entry *n, *at = index_next(index, NULL); at; at = n) {
		n = index_next(index, at);
		assert_true(at->stamp >= stamp);
		stamp = at->stamp;
		if (at->stamp > 15000) {
			index_remove(index, at);
			assert_sound(index);
		}
	}
	e = add_whole(index, number++, 0, 9999);
	assert_int_equal(e->stamp, 10000);
	assert_sound(index);
	index_delete(index, 1000);
}

/* What cannot go at the cold end neither hides what can, nor is looked at for each victim. */
static void many_held(void **state)
{
	struct index *index = index_new(30000);
	struct index_entry *held[10000], *e;

	(void)state;
	for (uint64_t i = 0; i < 10000; i++) {
		held[i] = add_whole(index, i + 1, 0, i + 1);
		held[i]->holds = 1;
	}
	assert_null(index_victim(index));
	for (uint64_t i = 10000; i < 20000; i++)
		add_whole(index, i + 1, 0, i + 1);
	held[17]->holds = 0;
	for (int i = 0; i < 10001; i++) {
		e = index_victim(index);
		assert_non_null(e);
		assert_int_equal(e->holds, 0);
		/* 10000 / 64 calls at most until it is seen again */
		if (i == 200)
			assert_true(held[17]->state == INDEX_FREE);
		index_remove(index, e);
	}
	assert_null(index_victim(index));
	held[9999]->holds = 0;
	assert_ptr_equal(index_victim(index), held[9999]);
	assert_sound(index);
	index_delete(index, 30000);
}

static void full(void **state)
{
	struct index *index = index_new(3);
	struct index_key key = key_of(9), parent = key_of(10);
	struct index_entry *e = NULL;
	bool made = true;

	(void)state;
	for (uint64_t i = 1; i <= 3; i++)
		e = add_whole(index, i, 0, i);
	assert_null(index_add(index, &key, &made));
	assert_false(made);
	assert_false(index_set_parent(index, e, &parent.key));
	assert_int_equal(e->parent, INDEX_NONE);
	index_remove(index, index_victim(index));
	assert_non_null(index_add(index, &key, &made));
	assert_sound(index);
	index_delete(index, 3);
}

static void check_sees_damage(void **state)
{
	struct index *index = index_new(100);
	struct index_entry *a = add_whole(index, 1, 0, 1), *b = add_whole(index, 2, 1, 2);
	char why[100];

	(void)state;
	a->child_count++;
	assert_false(index_check(index, why, sizeof(why)));
	assert_string_equal(why, "child counts are not those of the children");
	a->child_count--;
	b->stamp = 0;
	assert_false(index_check(index, NULL, 0));
	b->stamp = 2;
	b->key.generation++;
	assert_false(index_check(index, why, sizeof(why)));
	b->key.generation--;
	b->state = INDEX_PARTIAL;
	assert_false(index_check(index, why, sizeof(why)));
	b->state = INDEX_WHOLE;
	assert_sound(index);
	index_delete(index, 100);
}

#define MANY 1000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct index_key many_key(uint64_t number)
{
	struct random random = {number};
	struct index_key key = {.space = 7, .generation = 2};
	uint64_t words[2] = {random_next(&random), random_next(&random)};

	memcpy(key.key.bytes, words, sizeof(words));
	return key;
}

static void batches(void **state)
{
	struct index *index = index_new(MANY * 2);
	struct cairn_key *keys = calloc(1000, sizeof(*keys));
	struct index_entry **found = calloc(1000, sizeof(*found));
	struct random random = {9};
	uint64_t best_ns = UINT64_MAX;

	(void)state;
	for (uint64_t i = 0; i < MANY; i++) {
		struct index_key key = many_key(i);
		bool made;
		struct index_entry *e = index_add(index, &key, &made);

		e->tier = (uint32_t)i;
		index_publish(index, e, i / 100);
	}
	assert_sound(index);
	for (int round = 0; round < 200; round++) {
		uint32_t numbers[1000];
		uint32_t missing = round % 2 ? random_below(&random, 1000) : 1000;
		uint64_t began;

		for (uint32_t i = 0; i < 1000; i++) {
			numbers[i] = random_below(&random, MANY) + (i == missing ? MANY : 0);
			keys[i] = many_key(numbers[i]).key;
		}
		began = now_ns();
		assert_int_equal(index_find_batch(index, 7, 2, keys, 1000, round % 4 == 3,
						  round % 8 == 3, found),
				 round % 4 == 3 ? missing : 1000 - (missing < 1000));
		if (missing == 1000 && now_ns() - began < best_ns)
			best_ns = now_ns() - began;
		for (uint32_t i = 0; i < (round % 4 == 3 ? missing : 1000); i++) {
			if (i == missing)
				assert_null(found[i]);
			else
				assert_int_equal(found[i]->tier, numbers[i]);
		}
		assert_int_equal(index_find_batch(index, 7, 3, keys, 1000, false, false, found), 0);
	}
	print_message("# 1000 of %u keys found in %llu ns at best\n", MANY,
		      (unsigned long long)best_ns);
	free(keys);
	free(found);
	index_delete(index, MANY * 2);
}

/* Small indexes take small pages only; of large ones the arrays go on huge pages further on. */
static void huge_pages(void **state)
{
	const uint32_t entries_max = 1000000, some = 60000;
	struct index *small = index_new(1000), *large = index_new(entries_max);
	char *begin = (char *)large, *end = begin + index_bytes(entries_max), *at = begin;
	struct index_range ranges[INDEX_RANGES];
	struct index_figures figures;
	uint64_t before = 0;

	(void)state;
	index_huge_ranges(small, ranges);
	assert_int_equal(ranges[0].bytes + ranges[1].bytes, 0);
	index_huge_ranges(large, ranges);
	for (int i = 0; i < INDEX_RANGES; i++) {
		char *start = ranges[i].start;

		assert_int_equal((uintptr_t)start % INDEX_HUGE_BYTES, 0);
		assert_int_equal(ranges[i].bytes % INDEX_HUGE_BYTES, 0);
		assert_true(ranges[i].bytes > 0 && start + ranges[i].bytes <= end);
		assert_true(start >= at + INDEX_SMALL_BYTES);
		at = start + ranges[i].bytes;
	}
	for (uint32_t i = 1; i <= some; i++) {
		add_whole(large, i, 0, i);
		index_figures(large, &figures);
		assert_true(figures.memory_bytes >= before);
		/* Whole huge pages at a time, from there on. */
		assert_true(figures.memory_bytes - before <= INDEX_HUGE_BYTES + 3 * 4096);
		before = figures.memory_bytes;
	}
	assert_true(before >= some * sizeof(struct index_entry));
	assert_true(before < some * (sizeof(struct index_entry) + 16) + 2 * INDEX_HUGE_BYTES);
	index_delete(small, 1000);
	index_delete(large, entries_max);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_model),
		cmocka_unit_test(ghosts),
		cmocka_unit_test(parents_first_told_stays),
		cmocka_unit_test(chains),
		cmocka_unit_test(late_stamps),
		cmocka_unit_test(many_held),
		cmocka_unit_test(full),
		cmocka_unit_test(check_sees_damage),
		cmocka_unit_test(batches),
		cmocka_unit_test(huge_pages),
	};

	return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
