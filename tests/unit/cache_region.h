/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region of the cache stage in memory of the test's own, and clients of it that do what
 * the stage does, without a store: each is one cache_map over the same memory. What a block
 * holds is a function of its number.
 */
#ifndef TESTS_UNIT_CACHE_REGION_H
#define TESTS_UNIT_CACHE_REGION_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "random.h"
#include "stages/cache/block.h"
#include "stages/cache/evict.h"
#include "stages/cache/pins.h"
#include "stages/cache/recover.h"
#include "stages/cache/slots.h"

#define SHELF_PINS	   8u /* that a client keeps from one call to the next */
#define SHELF_RESERVATIONS 4u
#define SHELF_TRIES	   16u

struct shelf {
	struct cache_header *header;
	uint64_t bytes;
	uint32_t keys; /* blocks are numbered below it */
};

struct shelf_pin {
	uint32_t record, number;
	struct cache_ref ref;
};

struct shelf_reservation {
	uint32_t record, number;
	struct cache_place place;
};

struct shelf_client {
	struct cache_map map;
	struct shelf *shelf;
	struct random random;
	struct shelf_pin pins[SHELF_PINS];
	struct shelf_reservation reservations[SHELF_RESERVATIONS];
	uint32_t pin_count, reservation_count;
	uint32_t words_fail; /* of so many chunks that need far words one gets none; 0: none */
	const char *wrong;   /* what was not as it must be; NULL: nothing */
};

/* ---- blocks ------------------------------------------------------------------- */

static inline struct cache_key shelf_key(uint32_t number)
{
	struct random random = {number};
	struct cache_key key = {.home = home_of(0, 1)};

	key.word[0] = random_next(&random);
	key.word[1] = random_next(&random);
	return key;
}

static inline uint32_t shelf_shards(uint32_t number)
{
	return 1 + number % 3;
}

static inline uint32_t shelf_bytes(uint32_t number)
{
	static const uint32_t bytes[] = {300, 4096, 70000};

	return bytes[number / 3 % 3];
}

static inline uint64_t shelf_word(uint32_t number, uint32_t shard, uint32_t i)
{
	return ((uint64_t)number << 32 | (uint64_t)shard << 24 | i) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void shelf_fill(uint8_t *payload, uint32_t number, uint32_t shard)
{
	for (uint32_t i = 0; i < shelf_bytes(number) / 8; i++) {
		uint64_t word = shelf_word(number, shard, i);

		memcpy(payload + i * 8u, &word, 8);
	}
}

static inline bool shelf_right(const uint8_t *payload, uint32_t number, uint32_t shard)
{
	for (uint32_t i = 0; i < shelf_bytes(number) / 8; i++) {
		uint64_t word = shelf_word(number, shard, i);

		if (memcmp(payload + i * 8u, &word, 8) != 0)
			return false;
	}
	return true;
}

/* ---- regions --------------------------------------------------------------------- */

static inline bool shelf_new(struct shelf *shelf, uint64_t size, uint32_t entries, uint32_t keys)
{
	struct cache_header header = {
		.magic = CACHE_MAGIC,
		.version = CACHE_VERSION,
		.size = size,
		.entries = entries,
		.pins_max = CACHE_PINS_MIN,
		.seed = UINT64_C(0x5eed5eed5eed5eed),
	};
	void *base;

	if (!layout_plan(&header))
		return false;
	base = mmap(NULL, header.file_bytes, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return false;
	memcpy(base, &header, sizeof(header));
	*shelf = (struct shelf){base, header.file_bytes, keys};
	return true;
}

static inline void shelf_free(struct shelf *shelf)
{
	munmap(shelf->header, shelf->bytes);
}

static inline int shelf_back_words(void *context, uint32_t chunk)
{
	struct shelf_client *client = context;

	(void)chunk;
	return client->words_fail > 0 && random_below(&client->random, client->words_fail) == 0
		       ? -ENOSPC
		       : 0;
}

/* Client @number, as region.c makes one. What a dead one left under that number is cleared up. */
static inline bool shelf_join(struct shelf_client *client, struct shelf *shelf, uint32_t number,
			      uint64_t seed)
{
	struct cache_map *map = &client->map;

	memset(client, 0, sizeof(*client));
	client->shelf = shelf;
	client->random.state = seed;
	map_init(map, shelf->header, shelf->header);
	map->back_words = shelf_back_words;
	map->context = client;
	map->client = CACHE_CLIENTS_MAX;
	map->owner = number + 1;
	if (half_get(&map->clients[number].state) != CLIENT_FREE)
		recover_client(map, number, NULL);
	map->client = number;
	map->owner = number + 1;
	map->my_pins = map->pins + (uint64_t)number * map->pins_max;
	map->pin_next = calloc(map->pins_max, sizeof(uint32_t));
	map->random = random_next(&client->random);
	map->entry_cursor = map->random % map->entry_count;
	if (!map->pin_next)
		return false;
	half_put(&map->clients[number].pins_used, 0);
	half_put(&map->clients[number].state, CLIENT_LIVE);
	pins_init(map);
	for (uint32_t i = 0; i < map->chunk_count; i++)
		if (chunk_back_begin(map, i))
			chunk_back_end(map, i, true);
	return true;
}

/* Its memory of its own alone: as if it had died. */
static inline void shelf_die(struct shelf_client *client)
{
	free(client->map.pin_next);
	client->map.pin_next = NULL;
}

/* By @client, of another that is dead. */
static inline bool shelf_recover(struct shelf_client *client, uint32_t dead)
{
	void *scratch = calloc(1, recover_scratch_bytes(&client->map));

	if (scratch)
		recover_client(&client->map, dead, scratch);
	free(scratch);
	return scratch != NULL;
}

/* ---- calls --------------------------------------------------------------------------- */

static inline void shelf_let_go(struct shelf_client *client, uint32_t record, uint32_t entry)
{
	pin_give(&client->map, record);
	reclaim_gone(&client->map, entry);
}

static inline void shelf_look(struct shelf_client *client, const struct cache_ref *ref,
			      uint32_t number)
{
	struct cache_view view;

	for (uint32_t i = 0; i < shelf_shards(number); i++) {
		if (!shard_view(&client->map, ref->entry, i, &view))
			continue;
		if (view.stored != shelf_bytes(number))
			client->wrong = "a shard has another length";
		else if (!shelf_right(view.payload, number, i))
			client->wrong = "a pinned shard has other bytes";
	}
}

/* Pinned from now on, and looked at. */
static inline bool shelf_pin(struct shelf_client *client, uint32_t number,
			     struct shelf_pin *ret_pin)
{
	struct cache_key key = shelf_key(number);
	struct shelf_pin pin = {.number = number, .ref = cached_find(&client->map, &key)};

	if (pin.ref.entry == CACHE_NONE)
		return false;
	pin.record = pin_take(&client->map);
	if (pin.record == CACHE_NONE)
		return false;
	if (!pin_entry(&client->map, pin.record, &pin.ref)) {
		pin_give(&client->map, pin.record);
		return false;
	}
	*ret_pin = pin;
	return true;
}

static inline void shelf_unpin(struct shelf_client *client, const struct shelf_pin *pin)
{
	shelf_look(client, &pin->ref, pin->number);
	shelf_let_go(client, pin->record, pin->ref.entry);
}

static inline bool shelf_take_slot(struct shelf_client *client, uint32_t number, uint64_t *ret_slot)
{
	uint32_t units = slots_units(shelf_bytes(number));
	struct evicted evicted = {0};

	for (uint32_t i = 0; i < SHELF_TRIES; i++) {
		if (slots_take(&client->map, units, ret_slot))
			return true;
		if (!evict_for(&client->map, POLICY_LRU, units, &evicted))
			return false;
	}
	return false;
}

static inline struct cache_ref shelf_add(struct shelf_client *client, uint32_t record,
					 uint32_t number)
{
	struct cache_key key = shelf_key(number);
	struct cache_shape shape = {KIND_HIDDEN, shelf_shards(number), shelf_bytes(number)};
	struct evicted evicted = {0};
	struct cache_lack lack;
	struct cache_ref ref;
	bool made;

	for (uint32_t i = 0; i < SHELF_TRIES; i++) {
		ref = cached_add(&client->map, record, &key, &shape, &made, &lack);
		if (ref.entry != CACHE_NONE || lack.error != -ENOSPC)
			break;
		if (!evict_for(&client->map, POLICY_LRU, lack.units, &evicted) &&
		    !evict_in_buckets(&client->map, POLICY_LRU, &key, &evicted))
			break;
	}
	return ref;
}

/* The first shard that is absent is FILLING by this client: in @ret. */
static inline bool shelf_reserve(struct shelf_client *client, uint32_t number,
				 struct shelf_reservation *ret)
{
	uint32_t record = pin_take(&client->map);
	struct cache_place place = {0};
	struct cache_ref ref;

	if (record == CACHE_NONE)
		return false;
	ref = shelf_add(client, record, number);
	if (ref.entry == CACHE_NONE) {
		pin_give(&client->map, record);
		return false;
	}
	place.entry = ref.entry;
	place.life = state_life(ref.state);
	while (place.shard < shelf_shards(number) &&
	       shard_state(shard_look(&client->map, ref.entry, place.shard)) != SHARD_ABSENT)
		place.shard++;
	if (place.shard == shelf_shards(number) || !shelf_take_slot(client, number, &place.slot)) {
		shelf_let_go(client, record, ref.entry);
		return false;
	}
	if (!shard_claim(&client->map, &place)) {
		slots_give(&client->map, place.slot);
		shelf_let_go(client, record, ref.entry);
		return false;
	}
	*ret = (struct shelf_reservation){record, number, place};
	return true;
}

static inline void shelf_settle(struct shelf_client *client, const struct shelf_reservation *at,
				bool commit)
{
	uint32_t bytes = shelf_bytes(at->number);

	if (commit) {
		shelf_fill(map_payload(&client->map, at->place.slot), at->number, at->place.shard);
		if (!shard_publish(&client->map, &at->place, bytes, bytes, 0))
			client->wrong = "a shard of this client's own cannot be published";
	} else {
		shard_abandon(&client->map, &at->place);
	}
	shelf_let_go(client, at->record, at->place.entry);
}

/* All shards that are absent, or as many as there is room for. */
static inline void shelf_dump(struct shelf_client *client, uint32_t number)
{
	struct shelf_reservation at;

	for (uint32_t i = 0; i < shelf_shards(number) && shelf_reserve(client, number, &at); i++)
		shelf_settle(client, &at, true);
}

static inline void shelf_remove(struct shelf_client *client, uint32_t number)
{
	struct cache_key key = shelf_key(number);
	struct cache_ref ref = cached_find(&client->map, &key);

	if (ref.entry != CACHE_NONE && entry_remove(&client->map, &ref))
		reclaim_gone(&client->map, ref.entry);
}

/* @number is told that @parent is its parent. */
static inline void shelf_tell(struct shelf_client *client, uint32_t number, uint32_t parent)
{
	struct cache_key up = shelf_key(parent);
	struct cache_ref ref = cached_find(&client->map, &up);
	struct shelf_pin pin;

	if (ref.entry == CACHE_NONE || !shelf_pin(client, number, &pin))
		return;
	entry_set_parent(&client->map, &pin.ref, &ref);
	shelf_unpin(client, &pin);
}

static inline void shelf_evict(struct shelf_client *client, uint32_t number)
{
	struct evicted evicted = {0};

	evict_for(&client->map, POLICY_LRU, number % 4 == 0 ? 0 : slots_units(shelf_bytes(number)),
		  &evicted);
}

/* Gives everything back that the client keeps. */
static inline void shelf_leave(struct shelf_client *client)
{
	for (uint32_t i = 0; i < client->pin_count; i++)
		shelf_unpin(client, &client->pins[i]);
	for (uint32_t i = 0; i < client->reservation_count; i++)
		shelf_settle(client, &client->reservations[i], false);
	client->pin_count = 0;
	client->reservation_count = 0;
}

static inline void shelf_step_pins(struct shelf_client *client, uint32_t number)
{
	struct shelf_pin pin;
	uint32_t i;

	if (client->pin_count < SHELF_PINS && random_below(&client->random, 2)) {
		if (shelf_pin(client, number, &pin))
			client->pins[client->pin_count++] = pin;
	} else if (client->pin_count > 0) {
		i = random_below(&client->random, client->pin_count);
		shelf_unpin(client, &client->pins[i]);
		client->pins[i] = client->pins[--client->pin_count];
	}
}

static inline void shelf_step_reservations(struct shelf_client *client, uint32_t number)
{
	struct shelf_reservation at;
	uint32_t i;

	if (client->reservation_count < SHELF_RESERVATIONS && random_below(&client->random, 2)) {
		if (shelf_reserve(client, number, &at))
			client->reservations[client->reservation_count++] = at;
	} else if (client->reservation_count > 0) {
		i = random_below(&client->random, client->reservation_count);
		shelf_settle(client, &client->reservations[i], random_below(&client->random, 4));
		client->reservations[i] = client->reservations[--client->reservation_count];
	}
}

/* One call at random. */
static inline void shelf_step(struct shelf_client *client)
{
	uint32_t number = random_below(&client->random, client->shelf->keys);
	uint32_t dice = random_below(&client->random, 16);

	if (dice < 4)
		shelf_dump(client, number);
	else if (dice < 7)
		shelf_step_pins(client, number);
	else if (dice < 10)
		shelf_step_reservations(client, number);
	else if (dice < 12)
		shelf_remove(client, number);
	else if (dice < 14)
		shelf_tell(client, number, random_below(&client->random, client->shelf->keys));
	else
		shelf_evict(client, number);
}

#endif
