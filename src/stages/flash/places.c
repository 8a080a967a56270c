/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/places.h"

#include <assert.h>
#include <string.h>

#define PAGE_BYTES   4096u
#define CHUNK_BYTES  65536u
#define GRAIN_BYTES  4u /* of a handle, so that 32 bits reach 16 GiB */
#define CHUNK_GRAINS (CHUNK_BYTES / GRAIN_BYTES)
#define SHARD_BYTES  12u /* reserved for each: slots, and what chunks lose at their ends */
#define COUNT_MAX    (CAIRN_SHARD_COUNT_MAX - 1)
#define CHUNKS_SPARE COUNT_MAX /* one of each length may be nearly empty */

static_assert(sizeof(struct places_chunk) == 16, "counted as such");
static_assert(CHUNK_BYTES / (PLACE_BYTES + 3) < UINT16_MAX, "slots are counted in 16 bits");
static_assert((uint64_t)TABLE_SHARDS_MAX * SHARD_BYTES / CHUNK_BYTES + CHUNKS_SPARE + 1 <
		      (1ull << 32) / CHUNK_GRAINS,
	      "a handle reaches all chunks, plus one");

static uint64_t pages_up(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint32_t chunk_max_of(uint64_t shards_max)
{
	if (!shards_max)
		return 0;
	return (uint32_t)((shards_max * SHARD_BYTES + CHUNK_BYTES - 1) / CHUNK_BYTES) +
	       CHUNKS_SPARE;
}

static size_t lists_bytes(void)
{
	return pages_up((COUNT_MAX + 1) * sizeof(uint32_t));
}

size_t places_bytes(uint64_t shards_max)
{
	uint64_t chunks = chunk_max_of(shards_max);

	assert(shards_max <= TABLE_SHARDS_MAX);
	return lists_bytes() + pages_up(chunks * sizeof(struct places_chunk)) +
	       chunks * CHUNK_BYTES;
}

void places_init(struct places *places, void *memory, uint64_t shards_max)
{
	uint8_t *at = memory;

	assert((uintptr_t)memory % PAGE_BYTES == 0);
	places->shards_max = shards_max;
	places->chunk_max = chunk_max_of(shards_max);
	places->lists = memory;
	at += lists_bytes();
	places->chunks = (struct places_chunk *)(void *)at;
	places->memory = at + pages_up(places->chunk_max * sizeof(struct places_chunk));
}

void places_limit(struct places *places, uint64_t shards_max)
{
	assert(chunk_max_of(shards_max) <= places->chunk_max);
	places->shards_max = shards_max;
}

static uint32_t slot_bytes(uint32_t count)
{
	return (count * PLACE_BYTES + GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES;
}

static uint8_t *slot_at(const struct places *places, uint32_t chunk, uint32_t slot, uint32_t count)
{
	return places->memory + (size_t)chunk * CHUNK_BYTES + (size_t)slot * slot_bytes(count);
}

/* ---- chunks -------------------------------------------------------------- */

static void list_push(struct places *places, uint32_t *list, uint32_t chunk)
{
	struct places_chunk *c = &places->chunks[chunk];

	c->prev = 0;
	c->next = *list;
	if (*list)
		places->chunks[*list - 1].prev = chunk + 1;
	*list = chunk + 1;
}

static void list_remove(struct places *places, uint32_t *list, uint32_t chunk)
{
	struct places_chunk *c = &places->chunks[chunk];

	if (c->next)
		places->chunks[c->next - 1].prev = c->prev;
	if (c->prev)
		places->chunks[c->prev - 1].next = c->next;
	else
		*list = c->next;
	c->next = c->prev = 0;
}

/* A chunk with a free slot for arrays of @count, plus one; 0: none. */
static uint32_t chunk_find(struct places *places, uint32_t count)
{
	uint32_t chunk;

	if (places->lists[count])
		return places->lists[count];
	if (places->chunk_freed) {
		chunk = places->chunk_freed - 1;
		list_remove(places, &places->chunk_freed, chunk);
	} else if (places->chunk_fresh < places->chunk_max) {
		chunk = places->chunk_fresh++;
	} else {
		return 0;
	}
	places->chunks[chunk] = (struct places_chunk){.count = (uint16_t)count};
	places->chunk_used++;
	list_push(places, &places->lists[count], chunk);
	return chunk + 1;
}

uint32_t places_take(struct places *places, uint32_t count)
{
	uint32_t found, slot;
	struct places_chunk *c;
	uint8_t *bytes;

	assert(count >= 1 && count <= COUNT_MAX);
	if (places->shards + count > places->shards_max)
		return 0;
	found = chunk_find(places, count);
	if (!found)
		return 0;
	c = &places->chunks[found - 1];
	slot = c->freed ? c->freed - 1u : c->fresh++;
	bytes = slot_at(places, found - 1, slot, count);
	if (c->freed)
		memcpy(&c->freed, bytes, sizeof(c->freed));
	memset(bytes, 0, slot_bytes(count));
	if (++c->used == CHUNK_BYTES / slot_bytes(count))
		list_remove(places, &places->lists[count], found - 1);
	places->shards += count;
	return (uint32_t)((size_t)(bytes - places->memory) / GRAIN_BYTES) + 1;
}

void places_give(struct places *places, uint32_t handle, uint32_t count)
{
	uint32_t chunk = (handle - 1) / CHUNK_GRAINS;
	struct places_chunk *c = &places->chunks[chunk];
	uint8_t *bytes = places_at(places, handle, 0);
	uint32_t slot = (uint32_t)(bytes - slot_at(places, chunk, 0, count)) / slot_bytes(count);

	assert(c->count == count && c->used > 0 && places->shards >= count);
	assert(bytes == slot_at(places, chunk, slot, count));
	memcpy(bytes, &c->freed, sizeof(c->freed));
	c->freed = (uint16_t)(slot + 1);
	if (c->used == CHUNK_BYTES / slot_bytes(count))
		list_push(places, &places->lists[count], chunk);
	places->shards -= count;
	if (--c->used)
		return;
	list_remove(places, &places->lists[count], chunk);
	*c = (struct places_chunk){.count = 0};
	places->chunk_used--;
	list_push(places, &places->chunk_freed, chunk);
}

uint8_t *places_at(const struct places *places, uint32_t handle, uint32_t at)
{
	assert(handle && (handle - 1) / CHUNK_GRAINS < places->chunk_fresh);
	assert(at < COUNT_MAX);
	return places->memory + (size_t)(handle - 1) * GRAIN_BYTES + (size_t)at * PLACE_BYTES;
}

uint64_t places_memory(const struct places *places)
{
	/* Chunks that are free again have been touched, too. */
	return lists_bytes() + pages_up(places->chunk_fresh * sizeof(struct places_chunk)) +
	       (uint64_t)places->chunk_fresh * CHUNK_BYTES;
}

/* ---- checking ------------------------------------------------------------ */

uint64_t places_mark(uint32_t handle, uint32_t count)
{
	uint64_t x = ((uint64_t)count << 32 | handle) * 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
	return x ^ (x >> 32);
}

static uint64_t mark_of(uint32_t chunk, uint32_t slot, uint32_t count)
{
	return places_mark(chunk * CHUNK_GRAINS + slot * slot_bytes(count) / GRAIN_BYTES + 1,
			   count);
}

static bool check_chunk(const struct places *places, uint32_t chunk, uint64_t *sum)
{
	const struct places_chunk *c = &places->chunks[chunk];
	uint32_t slots = c->count ? CHUNK_BYTES / slot_bytes(c->count) : 0;
	uint32_t left = (uint32_t)c->fresh - c->used;

	if (!c->count)
		return !c->used;
	if (!c->used || c->used > c->fresh || c->fresh > slots)
		return false;
	for (uint32_t slot = 0; slot < c->fresh; slot++)
		*sum += mark_of(chunk, slot, c->count);
	for (uint16_t at = c->freed; at; left--) {
		if (at > c->fresh || !left)
			return false;
		*sum -= mark_of(chunk, at - 1u, c->count);
		memcpy(&at, slot_at(places, chunk, at - 1u, c->count), sizeof(at));
	}
	return !left;
}

bool places_check(const struct places *places, uint64_t *ret_sum)
{
	uint64_t shards = 0, open = 0, listed = 0;
	uint32_t used = 0;

	*ret_sum = 0;
	for (uint32_t chunk = 0; chunk < places->chunk_fresh; chunk++) {
		const struct places_chunk *c = &places->chunks[chunk];

		if (!check_chunk(places, chunk, ret_sum))
			return false;
		used += c->count > 0;
		shards += (uint64_t)c->used * c->count;
		open += c->count && c->used < CHUNK_BYTES / slot_bytes(c->count);
	}
	for (uint32_t count = 0; count <= COUNT_MAX; count++) {
		for (uint32_t at = places->lists[count]; at; at = places->chunks[at - 1].next) {
			if (places->chunks[at - 1].count != count || listed++ == open)
				return false;
		}
	}
	return used == places->chunk_used && shards == places->shards && listed == open;
}

/* ---- one place ------------------------------------------------------------ */

void place_encode(const struct table_place *place, uint8_t bytes[PLACE_BYTES])
{
	assert(place->length >= 1 && place->length <= TABLE_LENGTH_MAX);
	assert(place->number <= TABLE_NUMBER_MAX);
	put_u32(bytes, place->unit);
	put_u32(bytes + 4, place->length | place->number << 20);
	bytes[8] = (uint8_t)(place->number >> 12);
}
