/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several clients of one region in one process, a call of any of them after that of
 * another, in an order that a seed says; clients that die between two calls; and threads.
 * After each call all that is shared fits together. CAIRN_SEED=N begins with another seed,
 * CAIRN_SOAK=1 tries many more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

#include "cache_region.h"

#define CLIENTS	     4u
#define SIZE	     (8u << 20)
#define ENTRIES	     256u
#define KEYS	     400u
#define SEEDS	     6u
#define SEEDS_SOAK   500u
#define STEPS	     600u
#define THREAD_STEPS 4000u

static bool soak(void)
{
	const char *text = getenv("CAIRN_SOAK");

	return text && *text == '1';
}

static uint64_t first_seed(void)
{
	const char *text = getenv("CAIRN_SEED");

	return text ? strtoull(text, NULL, 10) : 1;
}

static void require(const struct cache_map *map, bool idle, uint64_t seed, uint32_t step)
{
	char why[256] = "";

	if (!cache_check(map, idle, why, sizeof(why)))
		fail_msg("seed %llu, step %u: %s", (unsigned long long)seed, step, why);
}

static void require_right(const struct shelf_client *client, uint64_t seed, uint32_t step)
{
	if (client->wrong)
		fail_msg("seed %llu, step %u: %s", (unsigned long long)seed, step, client->wrong);
}

/* Everything goes but what has no memory: each slot can be had again. */
static void require_all_back(struct shelf_client *client)
{
	struct cache_map *map = &client->map;
	uint32_t units = slots_units(SIZE), chunks = 0, taken = 0;
	struct evicted evicted = {0};
	uint64_t slot;

	units = (uint32_t)(map->chunk_bytes / CACHE_UNIT);
	for (uint32_t i = 0; i < map->chunk_count; i++)
		chunks += chunk_phase(word_get(&map->chunks[i].state)) != CHUNK_LOST;
	while (taken < chunks) {
		if (slots_take(map, units, &slot))
			taken++;
		else if (!evict_for(map, POLICY_LRU, units, &evicted))
			break;
	}
	assert_int_equal(taken, chunks);
}

/* @words_fail: of the far words that one of the clients wants. */
static void run_seed(uint64_t seed, uint32_t words_fail)
{
	struct shelf_client clients[CLIENTS];
	struct random random = {seed};
	struct shelf shelf;

	assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_true(shelf_join(&clients[i], &shelf, i, random_next(&random)));
	for (uint32_t step = 0; step < STEPS; step++) {
		uint32_t at = random_below(&random, CLIENTS);
		uint32_t other = (at + 1 + random_below(&random, CLIENTS - 1)) % CLIENTS;

		if (random_below(&random, 50) > 0) {
			shelf_step(&clients[at]);
		} else {
			shelf_die(&clients[at]);
			assert_true(shelf_recover(&clients[other], at));
			assert_true(shelf_join(&clients[at], &shelf, at, random_next(&random)));
		}
		clients[0].words_fail = words_fail;
		require_right(&clients[at], seed, step);
		require(&clients[at].map, false, seed, step);
	}
	for (uint32_t i = 0; i < CLIENTS; i++)
		shelf_leave(&clients[i]);
	reclaim_sweep(&clients[0].map, ENTRIES);
	require(&clients[0].map, true, seed, STEPS);
	require_all_back(&clients[0]);
	for (uint32_t i = 0; i < CLIENTS; i++)
		shelf_die(&clients[i]);
	shelf_free(&shelf);
}

static void test_orders(void **state)
{
	uint64_t first = first_seed();

	(void)state;
	for (uint64_t seed = first; seed < first + (soak() ? SEEDS_SOAK : SEEDS); seed++)
		run_seed(seed, 0);
}

/* The same while memory for the words of small slots cannot be had, or not always. */
static void test_orders_without_words(void **state)
{
	uint64_t first = first_seed();

	(void)state;
	for (uint64_t seed = first; seed < first + (soak() ? SEEDS_SOAK : SEEDS); seed++)
		run_seed(seed, 1 + (uint32_t)seed % 3);
}

/* A block of small slots finds none, and leaves no trace; one of larger ones does. */
static void test_no_words(void **state)
{
	enum { SMALL = 0, LARGE = 6 };
	struct cache_key small = shelf_key(SMALL), large = shelf_key(LARGE);
	struct shelf_client client;
	struct shelf shelf;

	(void)state;
	assert_true(shelf_bytes(SMALL) == 300 && shelf_bytes(LARGE) == 70000);
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	assert_true(shelf_join(&client, &shelf, 0, 1));
	client.words_fail = 1;
	shelf_dump(&client, SMALL);
	shelf_dump(&client, LARGE);
	assert_false(state_whole(cached_find(&client.map, &small).state));
	assert_true(state_whole(cached_find(&client.map, &large).state));
	require(&client.map, false, 0, 0);
	client.words_fail = 0;
	shelf_dump(&client, SMALL);
	assert_true(state_whole(cached_find(&client.map, &small).state));
	require(&client.map, true, 0, 0);
	shelf_die(&client);
	shelf_free(&shelf);
}

static void *work(void *context)
{
	struct shelf_client *client = context;

	for (uint32_t i = 0; i < THREAD_STEPS * (soak() ? 50 : 1) && !client->wrong; i++)
		shelf_step(client);
	shelf_leave(client);
	return NULL;
}

/* A thread for each client: few entries and little memory, so that they meet. */
static void test_threads(void **state)
{
	struct shelf_client clients[CLIENTS];
	struct random random = {first_seed()};
	pthread_t threads[CLIENTS];
	struct shelf shelf;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_true(shelf_join(&clients[i], &shelf, i, random_next(&random)));
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, &clients[i]), 0);
	for (uint32_t i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < CLIENTS; i++)
		require_right(&clients[i], first_seed(), THREAD_STEPS);
	reclaim_sweep(&clients[0].map, ENTRIES);
	require(&clients[0].map, true, first_seed(), THREAD_STEPS);
	require_all_back(&clients[0]);
	for (uint32_t i = 0; i < CLIENTS; i++)
		shelf_die(&clients[i]);
	shelf_free(&shelf);
}

/* Removed by one while another has it pinned, and the one dies as it looks whether it may go. */
static void test_death_beside_a_pin(void **state)
{
	struct shelf_client reader, dead;
	struct shelf_pin pin;
	struct shelf shelf;
	uint64_t *word, now;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	assert_true(shelf_join(&reader, &shelf, 0, 1));
	assert_true(shelf_join(&dead, &shelf, 1, 2));
	shelf_dump(&reader, 8);
	assert_true(shelf_pin(&reader, 8, &pin));
	assert_true(entry_remove(&dead.map, &pin.ref));
	word = &dead.map.entries[pin.ref.entry].state;
	now = word_get(word);
	assert_true(word_cas(word, now, state_next(now, PHASE_DEAD, state_kind(now), 2)));
	shelf_die(&dead);
	assert_true(shelf_recover(&reader, 1));
	require(&reader.map, false, 0, 0);
	shelf_unpin(&reader, &pin);
	assert_null(reader.wrong);
	require(&reader.map, true, 0, 0);
	shelf_die(&reader);
	shelf_free(&shelf);
}

/* It died with all shards there, and had not said so. */
static void test_death_before_whole(void **state)
{
	struct shelf_client other, dead;
	struct shelf_reservation at;
	struct cache_key key = shelf_key(3);
	struct shelf shelf;
	uint64_t *word, now;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	assert_true(shelf_join(&other, &shelf, 0, 1));
	assert_true(shelf_join(&dead, &shelf, 1, 2));
	assert_true(shelf_reserve(&dead, 3, &at));
	assert_int_equal(at.place.shard + 1, shelf_shards(3));
	shelf_fill(map_payload(&dead.map, at.place.slot), 3, at.place.shard);
	assert_true(shard_publish(&dead.map, &at.place, shelf_bytes(3), shelf_bytes(3), 0));
	word = &dead.map.entries[at.place.entry].state;
	now = word_get(word);
	assert_true(word_cas(word, now, state_next(now, PHASE_LIVE, KIND_HIDDEN, 0)));
	shelf_die(&dead);
	assert_true(shelf_recover(&other, 1));
	assert_int_equal(state_kind(cached_find(&other.map, &key).state), KIND_WHOLE);
	require(&other.map, true, 0, 0);
	shelf_die(&other);
	shelf_free(&shelf);
}

/* It held a block back, and died between two of its shards: nothing of it is there, or all. */
static void test_death_between_shards(void **state)
{
	enum { NUMBER = 5, SHARDS = 3 };
	struct cache_key key = shelf_key(NUMBER);

	(void)state;
	assert_int_equal(shelf_shards(NUMBER), SHARDS);
	for (uint32_t there = 0; there <= SHARDS; there++) {
		struct shelf_reservation at[SHARDS];
		struct shelf_client other, dead;
		struct cache_ref ref;
		struct shelf shelf;

		assert_true(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
		assert_true(shelf_join(&other, &shelf, 0, 1));
		assert_true(shelf_join(&dead, &shelf, 1, 2));
		for (uint32_t i = 0; i < SHARDS; i++)
			assert_true(shelf_reserve(&dead, NUMBER, &at[i]));
		flags_raise(&dead.map.entries[at[0].place.entry].flags, ENTRY_BACK);
		for (uint32_t i = 0; i < there; i++) {
			uint32_t bytes = shelf_bytes(NUMBER);

			shelf_fill(map_payload(&dead.map, at[i].place.slot), NUMBER, i);
			assert_true(shard_publish(&dead.map, &at[i].place, bytes, bytes, 0));
		}
		shelf_die(&dead);
		assert_true(shelf_recover(&other, 1));
		ref = cached_find(&other.map, &key);
		if (there < SHARDS)
			assert_true(ref.entry == CACHE_NONE);
		else
			assert_true(state_dirty(ref.state));
		require(&other.map, true, 0, 0);
		shelf_die(&other);
		shelf_free(&shelf);
	}
}

/* Many keys at a time are found as each alone is, however many steps they take. */
static void test_walk(void **state)
{
	enum { NUMBERS = 150 };
	const uint32_t counts[] = {0,
				   1,
				   CACHED_STEP,
				   CACHED_STEP + 1,
				   2 * CACHED_STEP + 1,
				   3 * CACHED_STEP,
				   CACHED_AHEAD,
				   CACHED_AHEAD + 1,
				   NUMBERS};
	struct cairn_key keys[NUMBERS];
	struct shelf_client client;
	struct shelf shelf;
	uint32_t there = 0;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, NUMBERS));
	assert_true(shelf_join(&client, &shelf, 0, 1));
	for (uint32_t i = 0; i < NUMBERS; i++) {
		struct cache_key key = shelf_key(i);

		memcpy(keys[i].bytes, key.word, sizeof(keys[i].bytes));
		if (shelf_bytes(i) == 300 && i % 4 != 1)
			shelf_dump(&client, i);
		there += cached_find(&client.map, &key).entry != CACHE_NONE;
	}
	assert_true(there > NUMBERS / 8 && there < NUMBERS / 2);
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct cache_ref refs[CACHED_STEP];
		struct cached_walk walk;
		uint32_t n, at = 0;

		cached_walk_begin(&walk, &client.map, keys, counts[c], shelf_key(0).home);
		while ((n = cached_walk_on(&walk, refs)) > 0)
			for (uint32_t i = 0; i < n; i++, at++) {
				struct cache_key key = shelf_key(at);
				struct cache_ref ref = cached_find(&client.map, &key);

				assert_true(n <= CACHED_STEP && at < counts[c]);
				assert_int_equal(refs[i].entry, ref.entry);
				assert_true(refs[i].state == ref.state);
			}
		assert_int_equal(at, counts[c]);
	}
	shelf_die(&client);
	shelf_free(&shelf);
}

/* "threads": those alone. */
int main(int argc, char **argv)
{
	const struct CMUnitTest threads[] = {cmocka_unit_test(test_threads)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_orders_without_words),
		cmocka_unit_test(test_no_words),
		cmocka_unit_test(test_death_beside_a_pin),
		cmocka_unit_test(test_death_before_whole),
		cmocka_unit_test(test_death_between_shards),
		cmocka_unit_test(test_walk),
	};

	if (argc > 1 && strcmp(argv[1], "threads") == 0)
		return cmocka_run_group_tests(threads, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
