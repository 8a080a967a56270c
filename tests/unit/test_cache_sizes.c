/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache's memory under sizes that change: chunks follow what is dumped, little of them lies
 * idle, and every byte is right. Keys whose buckets are full. And very many small blocks: in the
 * soak (CAIRN_SOAK=1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "cache_region.h"

#define SIZE	   (64u << 20)
#define MANY_BYTES 256u
#define ENTRIES	   65536u
#define SOME	   150000u /* numbers of blocks in all */

/* Of the chunks' bytes, what is in slots of blocks that are found. */
#define SHARE_OF_ONE 0.90
#define SHARE_OF_MIX 0.75

static uint32_t sizes[SOME]; /* by number; 0: never dumped */

static void fill(uint8_t *payload, uint32_t number, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes / 8; i++) {
		uint64_t word = shelf_word(number, 0, i);

		memcpy(payload + i * 8u, &word, 8);
	}
}

static bool right(const uint8_t *payload, uint32_t number, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes / 8; i++) {
		uint64_t word = shelf_word(number, 0, i);

		if (memcmp(payload + i * 8u, &word, 8) != 0)
			return false;
	}
	return true;
}

/* An entry of one shard, HIDDEN and pinned; what is in the way goes. */
static struct cache_ref add(struct cache_map *map, uint32_t record, uint32_t number, uint32_t bytes,
			    struct evicted *evicted)
{
	struct cache_key key = shelf_key(number);
	struct cache_shape shape = {KIND_HIDDEN, 1, bytes};
	struct cache_lack lack;
	struct cache_ref ref;
	bool made, room = true;

	do {
		ref = cached_add(map, record, &key, &shape, &made, &lack);
		if (ref.entry != CACHE_NONE)
			break;
		room = lack.place ? evict_in_buckets(map, POLICY_LRU, &key, evicted)
				  : evict_for(map, POLICY_LRU, lack.units, evicted);
	} while (room);
	return ref;
}

static void dump(struct shelf_client *client, uint32_t number, uint32_t bytes,
		 struct evicted *evicted)
{
	struct cache_map *map = &client->map;
	uint32_t record = pin_take(map);
	struct cache_ref ref = add(map, record, number, bytes, evicted);
	struct cache_place place = {.entry = ref.entry, .life = state_life(ref.state)};

	assert_int_not_equal(ref.entry, CACHE_NONE);
	word_note(&map->metas[ref.entry].stamp, word_add(&map->header->clock, 1) + 1);
	while (!slots_take(map, slots_units(bytes), &place.slot))
		assert_true(evict_for(map, POLICY_LRU, slots_units(bytes), evicted));
	assert_true(shard_claim(map, &place));
	fill(map_payload(map, place.slot), number, bytes);
	assert_true(shard_publish(map, &place, bytes, bytes, 0));
	shelf_let_go(client, record, ref.entry);
}

/* Bytes of slots of what is found, each looked at; 0 for one that is not. */
static uint64_t found(struct shelf_client *client, uint32_t number, uint32_t bytes)
{
	struct cache_view view;
	struct shelf_pin pin;

	if (!shelf_pin(client, number, &pin))
		return 0;
	assert_true(shard_view(&client->map, pin.ref.entry, 0, &view));
	assert_int_equal(view.stored, bytes);
	assert_true(right(view.payload, number, bytes));
	shelf_let_go(client, pin.record, pin.ref.entry);
	return (uint64_t)slots_units(bytes) * CACHE_UNIT;
}

static double share_found(struct shelf_client *client)
{
	uint64_t bytes = 0;

	for (uint32_t number = 0; number < SOME; number++)
		if (sizes[number] > 0)
			bytes += found(client, number, sizes[number]);
	return (double)bytes / (double)(client->map.chunk_count * client->map.chunk_bytes);
}

static uint32_t chunks_of(const struct cache_map *map, uint32_t bytes)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < map->chunk_count; i++)
		count += chunk_phase(word_get(&map->chunks[i].state)) == CHUNK_SLOTS &&
			 half_get(&map->chunks[i].units) == slots_units(bytes);
	return count;
}

/* Dumps blocks of these sizes in turn, until so often all of the memory has been filled. */
static void dump_all(struct shelf_client *client, uint32_t *next, const uint32_t *of,
		     uint32_t of_count, uint32_t times)
{
	uint64_t left = times * client->map.chunk_count * client->map.chunk_bytes;
	struct evicted evicted = {0};

	for (uint32_t i = 0; left > 0; i++, ++*next) {
		uint32_t bytes = of[i % of_count];
		uint64_t slot = (uint64_t)slots_units(bytes) * CACHE_UNIT;

		assert_true(*next < SOME);
		sizes[*next] = bytes;
		dump(client, *next, bytes, &evicted);
		left -= slot < left ? slot : left;
	}
}

static void changing_sizes(void **state)
{
	static const uint32_t first[] = {4096}, second[] = {200000}, third[] = {2048};
	static const uint32_t mix[] = {2048, 200000, 4096, 70000, 12000, 500000};
	char why[256] = "";
	struct shelf_client client;
	struct shelf shelf;
	uint32_t next = 0, chunks;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, SOME));
	assert_true(shelf_join(&client, &shelf, 0, 1));
	chunks = client.map.chunk_count;
	dump_all(&client, &next, first, 1, 2);
	assert_true(share_found(&client) >= SHARE_OF_ONE);
	assert_int_equal(chunks_of(&client.map, first[0]), chunks);
	dump_all(&client, &next, second, 1, 2);
	assert_true(share_found(&client) >= SHARE_OF_ONE);
	assert_true(chunks_of(&client.map, second[0]) >= chunks * 9 / 10);
	dump_all(&client, &next, third, 1, 2);
	assert_true(share_found(&client) >= SHARE_OF_ONE);
	assert_true(chunks_of(&client.map, third[0]) >= chunks * 9 / 10);
	dump_all(&client, &next, mix, 6, 8);
	assert_true(share_found(&client) >= SHARE_OF_MIX);
	for (uint32_t i = 1; i < 6; i += 2)
		assert_true(chunks_of(&client.map, mix[i]) > 0);
	if (!cache_check(&client.map, true, why, sizeof(why)))
		fail_msg("%s", why);
	shelf_die(&client);
	shelf_free(&shelf);
}

#define OLD_BYTES 65536u
#define NEW_BYTES 81920u
#define CHUNKS	  64u	/* at most, of SIZE */
#define DRAWS	  1000u /* random numbers by which it is found that there is no room, at most */

static uint32_t chunk_of(const struct cache_map *map, uint32_t entry)
{
	return slot_chunk(shard_slot(word_get(&map->entries[entry].only.word)));
}

/* Pins one block of each chunk, each of which has blocks of OLD_BYTES below @count. */
static void pin_chunks(struct shelf_client *client, uint32_t count, struct shelf_pin *ret_pins)
{
	bool had[CHUNKS] = {false};

	assert_true(client->map.chunk_count <= CHUNKS);
	for (uint32_t number = 0; number < count; number++) {
		struct shelf_pin pin;
		uint32_t chunk;

		assert_true(shelf_pin(client, number, &pin));
		chunk = chunk_of(&client->map, pin.ref.entry);
		if (had[chunk])
			shelf_let_go(client, pin.record, pin.ref.entry);
		else
			ret_pins[chunk] = pin;
		had[chunk] = true;
	}
	for (uint32_t chunk = 0; chunk < client->map.chunk_count; chunk++)
		assert_true(had[chunk]);
}

/* Random numbers that were drawn since @before, or @most if there were more. */
static uint32_t draws_since(const struct cache_map *map, uint64_t before, uint32_t most)
{
	struct cache_map from = {.random = before};
	uint32_t count = 0;

	while (from.random != map->random && count < most) {
		map_random(&from);
		count++;
	}
	return count;
}

/* Guards that nothing goes for a chunk that cannot change its size, and no more than one for one.
 */
static void pinned_chunks(void **state)
{
	uint32_t units = slots_units(NEW_BYTES), count, there = 0;
	struct evicted evicted = {0};
	struct shelf_pin pins[CHUNKS];
	struct shelf_client client;
	struct cache_map *map = &client.map;
	struct shelf shelf;
	uint64_t slot, before;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, ENTRIES, SOME));
	assert_true(shelf_join(&client, &shelf, 0, 1));
	count = map->chunk_count * (uint32_t)(map->chunk_bytes / OLD_BYTES);
	for (uint32_t number = 0; number < count; number++)
		dump(&client, number, OLD_BYTES, &evicted);
	assert_int_equal(evicted.blocks, 0);
	pin_chunks(&client, count, pins);
	for (uint32_t i = 0; i < 50; i++) {
		before = map->random;
		assert_false(slots_take(map, units, &slot));
		assert_false(evict_for(map, POLICY_LRU, units, &evicted));
		assert_true(draws_since(map, before, DRAWS) < DRAWS);
	}
	assert_int_equal(evicted.blocks, 0);
	for (uint32_t number = 0; number < count; number++)
		there += found(&client, number, OLD_BYTES) > 0;
	assert_int_equal(there, count);
	/* One may change now. */
	shelf_let_go(&client, pins[1].record, pins[1].ref.entry);
	assert_true(evict_for(map, POLICY_LRU, units, &evicted));
	assert_int_equal(evicted.blocks, map->chunk_bytes / OLD_BYTES);
	assert_true(slots_take(map, units, &slot));
	assert_int_equal(slot_chunk(slot), 1);
	shelf_die(&client);
	shelf_free(&shelf);
}

#define WAYS  (2 * CACHE_BUCKET_WAYS)
#define CROWD (WAYS + 2)
#define CHILD 1000000u /* keys of others' children are numbered from here on */

static void set_parent(struct shelf_client *client, uint32_t child, uint32_t parent)
{
	struct shelf_pin low, high;

	assert_true(shelf_pin(client, child, &low) && shelf_pin(client, parent, &high));
	entry_set_parent(&client->map, &low.ref, &high.ref);
	assert_int_equal(entry_children(&client->map, high.ref.entry), 1);
	shelf_let_go(client, high.record, high.ref.entry);
	shelf_let_go(client, low.record, low.ref.entry);
}

/* Numbers of keys that have the two buckets of the first of them, in whichever order. */
static void find_crowd(const struct cache_map *map, uint32_t *ret_crowd)
{
	struct cache_key first = shelf_key(0);
	const uint64_t *ways[2] = {cached_ways(map, &first, 0), cached_ways(map, &first, 1)};

	for (uint32_t number = 0, count = 0; count < CROWD; number++) {
		struct cache_key key = shelf_key(number);
		const uint64_t *mine[2] = {cached_ways(map, &key, 0), cached_ways(map, &key, 1)};

		assert_true(number < CHILD);
		if ((mine[0] == ways[0] && mine[1] == ways[1]) ||
		    (mine[0] == ways[1] && mine[1] == ways[0]))
			ret_crowd[count++] = number;
	}
}

/* One goes: the coldest that has no child, and only where all have some the coldest unpinned. */
static void full_buckets(void **state)
{
	struct evicted evicted = {0};
	struct shelf_client client;
	uint32_t crowd[CROWD];
	struct shelf_pin pin = {0};
	struct shelf shelf;

	(void)state;
	assert_true(shelf_new(&shelf, SIZE, 64, CHILD));
	assert_true(shelf_join(&client, &shelf, 0, 1));
	find_crowd(&client.map, crowd);
	for (uint32_t i = 0; i < WAYS; i++)
		dump(&client, crowd[i], MANY_BYTES, &evicted);
	assert_int_equal(evicted.blocks, 0);
	/* A chain whose end is the last but one, and the last, which is alone. */
	for (uint32_t i = 1; i < WAYS - 1; i++)
		set_parent(&client, crowd[i], crowd[i - 1]);
	dump(&client, crowd[WAYS], MANY_BYTES, &evicted);
	assert_int_equal(evicted.blocks, 1);
	assert_int_equal(evicted.parents, 0);
	for (uint32_t i = 0; i < WAYS + 1; i++)
		assert_int_equal(found(&client, crowd[i], MANY_BYTES) > 0, i != WAYS - 2);
	for (uint32_t i = WAYS - 3; i < WAYS + 1; i++) {
		if (i == WAYS - 2)
			continue;
		dump(&client, CHILD + i, MANY_BYTES, &evicted);
		set_parent(&client, CHILD + i, crowd[i]);
	}
	assert_true(shelf_pin(&client, crowd[0], &pin));
	dump(&client, crowd[WAYS + 1], MANY_BYTES, &evicted);
	shelf_let_go(&client, pin.record, pin.ref.entry);
	assert_int_equal(evicted.blocks, 2);
	assert_int_equal(evicted.parents, 1);
	for (uint32_t i = 0; i < CROWD; i++)
		assert_int_equal(found(&client, crowd[i], MANY_BYTES) > 0, i != 1 && i != WAYS - 2);
	shelf_die(&client);
	shelf_free(&shelf);
}

#define MANY	  10000000u
#define MANY_SIZE (UINT64_C(6) << 30)

/* Ten million blocks of 256 bytes in 6 GiB: all there, each found, and its bytes right. */
static void ten_million(void **state)
{
	struct evicted evicted = {0};
	struct shelf_client client;
	struct shelf shelf;
	uint32_t there = 0;

	(void)state;
	assert_true(shelf_new(&shelf, MANY_SIZE, MANY + MANY / 10, MANY));
	/* As a region's is, of bits that do not repeat: with others keys crowd in some buckets. */
	shelf.header->seed = UINT64_C(0x9bd1e8a7c3f52d61);
	assert_true(shelf_join(&client, &shelf, 0, 1));
	for (uint32_t i = 0; i < MANY; i++)
		dump(&client, i, MANY_BYTES, &evicted);
	for (uint32_t i = 0; i < MANY; i++)
		there += found(&client, i, MANY_BYTES) > 0;
	/* Of keys whose two buckets are full one goes: so few that they can be counted. */
	assert_int_equal(there + evicted.blocks, MANY);
	assert_in_range(evicted.blocks, 0, MANY / 10000);
	shelf_die(&client);
	shelf_free(&shelf);
}

static int run_many(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(ten_million)};
	uint64_t pages = (uint64_t)sysconf(_SC_AVPHYS_PAGES);
	const char *soak = getenv("CAIRN_SOAK");

	if (!soak || *soak != '1') {
		puts("skipped: for the soak");
		return 77;
	}
	if (pages * (uint64_t)sysconf(_SC_PAGESIZE) < MANY_SIZE + (UINT64_C(1) << 30)) {
		puts("skipped: less than 7 GiB of memory is free");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* With an argument the many. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(changing_sizes),
					   cmocka_unit_test(pinned_chunks),
					   cmocka_unit_test(full_buckets)};

	(void)argv;
	return argc > 1 ? run_many() : cmocka_run_group_tests(tests, NULL, NULL);
}
