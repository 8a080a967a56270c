/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken words in a cache's region under those who use it. Each 6 bytes say which part of
 * the region, where in it, and what to do with a byte there; then all calls are made. They
 * may fail, or miss: nothing is read or written outside of the region.
 */
#include <errno.h>
#include <stdint.h>

#include "cache_region.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#define SIZE	  (8u << 20)
#define ENTRIES	  256u
#define KEYS	  72u
#define STEP	  6u
#define STEPS_MAX 256u

enum what {
	WHAT_HEADER, /* what changes of it */
	WHAT_CLIENTS,
	WHAT_BUCKETS,
	WHAT_ENTRIES,
	WHAT_METAS,
	WHAT_CHUNKS,
	WHAT_PINS,
	WHAT_WORDS,
	WHAT_ARRAYS, /* of shards, in the payload of blocks that have several */
	WHAT_COUNT
};

struct span {
	uint8_t *at;
	uint64_t bytes;
};

static struct span span_of(struct cache_map *map, enum what what, uint32_t where)
{
	struct cache_entry *entry = &map->entries[where % map->entry_count];
	uint8_t *header = (uint8_t *)map->header;

	switch (what) {
	case WHAT_HEADER:
		return (struct span){header + offsetof(struct cache_header, clock),
				     sizeof(struct cache_header) -
					     offsetof(struct cache_header, clock)};
	case WHAT_CLIENTS:
		return (struct span){(uint8_t *)map->clients, 3 * sizeof(struct cache_client)};
	case WHAT_BUCKETS:
		return (struct span){(uint8_t *)map->buckets,
				     (map->bucket_mask + 1ull) * sizeof(struct cache_bucket)};
	case WHAT_ENTRIES:
		return (struct span){(uint8_t *)map->entries,
				     map->entry_count * sizeof(struct cache_entry)};
	case WHAT_METAS:
		return (struct span){(uint8_t *)map->metas,
				     map->entry_count * sizeof(struct cache_meta)};
	case WHAT_CHUNKS:
		return (struct span){(uint8_t *)map->chunks,
				     map->chunk_count * sizeof(struct cache_chunk)};
	case WHAT_PINS:
		/* The lowest records are those in use. */
		return (struct span){(uint8_t *)map->pins + (where % 3) * map->pins_max * 8ull,
				     256};
	case WHAT_WORDS:
		return (struct span){(uint8_t *)map->words,
				     (uint64_t)map->chunk_count * CACHE_WORDS_FAR * 8};
	case WHAT_ARRAYS:
		if (entry->shard_count > 1 && map_shards(map, where % map->entry_count))
			return (struct span){(uint8_t *)map_shards(map, where % map->entry_count),
					     entry->shard_count * sizeof(struct cache_shard)};
		break;
	case WHAT_COUNT:
		break;
	}
	return (struct span){NULL, 0};
}

static void break_one(struct cache_map *map, const uint8_t *step)
{
	uint32_t where = (uint32_t)step[1] | (uint32_t)step[2] << 8 | (uint32_t)step[3] << 16;
	struct span span = span_of(map, (enum what)(step[0] % WHAT_COUNT), where);
	uint8_t *byte;

	if (span.bytes == 0)
		return;
	byte = span.at + (where / 3 * 2654435761ull) % span.bytes;
	if (step[4] < 128)
		*byte ^= (uint8_t)(1u << (step[4] % 8));
	else
		*byte = step[5];
}

static void call_all(struct shelf_client *client, struct shelf_client *other)
{
	struct shelf_pin pin;

	for (uint32_t i = 0; i < KEYS; i++) {
		if (shelf_pin(client, i, &pin))
			shelf_unpin(client, &pin);
		if (i % 8 == 0)
			shelf_tell(client, i, i + 1);
		if (i % 9 == 0)
			shelf_remove(client, i);
	}
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(client, i + KEYS / 2);
	for (uint32_t i = 0; i < 5; i++)
		shelf_evict(client, i);
	/* The other one dies with what it had. */
	shelf_die(other);
	REQUIRE(shelf_recover(client, 1));
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(client, i);
	shelf_leave(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shelf_client client, other;
	struct shelf shelf;

	REQUIRE(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	REQUIRE(shelf_join(&client, &shelf, 0, 1) && shelf_join(&other, &shelf, 1, 2));
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(i % 2 ? &client : &other, i);
	for (uint32_t i = 0; i < 40; i++)
		shelf_step(&other);
	for (size_t i = 0; i + STEP <= size && i < STEPS_MAX * STEP; i += STEP)
		break_one(&client.map, data + i);
	call_all(&client, &other);
	shelf_die(&client);
	shelf_free(&shelf);
	return 0;
}
