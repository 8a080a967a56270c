/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/intern.h"

#include <assert.h>

static_assert(TABLE_GEOMETRIES_MAX < UINT16_MAX, "numbers are of 16 bits");
static_assert(sizeof(struct intern_entry) == 20, "counted as such");

size_t intern_bytes(void)
{
	return INTERN_HEADS * sizeof(uint16_t) + TABLE_GEOMETRIES_MAX * sizeof(struct intern_entry);
}

void intern_init(struct intern *intern, void *memory)
{
	assert((uintptr_t)memory % sizeof(uint32_t) == 0);
	intern->heads = memory;
	intern->entries = (struct intern_entry *)(void *)(intern->heads + INTERN_HEADS);
}

static uint16_t *head_of(const struct intern *intern, const struct table_geometry *geometry)
{
	uint64_t x = ((uint64_t)geometry->shard_bytes << 32 | geometry->last_bytes) ^
		     (uint64_t)geometry->shard_count << 27;

	x *= 0x9e3779b97f4a7c15ull;
	return &intern->heads[(x ^ (x >> 32)) % INTERN_HEADS];
}

bool geometry_equal(const struct table_geometry *a, const struct table_geometry *b)
{
	return a->shard_count == b->shard_count && a->shard_bytes == b->shard_bytes &&
	       a->last_bytes == b->last_bytes;
}

uint16_t intern_take(struct intern *intern, const struct table_geometry *geometry)
{
	uint16_t *head, number;
	struct intern_entry *e;

	if (intern->last) {
		e = &intern->entries[intern->last - 1];
		if (e->refs && geometry_equal(&e->geometry, geometry)) {
			e->refs++;
			return intern->last;
		}
	}
	head = head_of(intern, geometry);
	for (number = *head; number; number = e->next) {
		e = &intern->entries[number - 1];
		if (geometry_equal(&e->geometry, geometry)) {
			e->refs++;
			intern->last = number;
			return number;
		}
	}
	if (intern->freed) {
		number = intern->freed;
		intern->freed = intern->entries[number - 1].next;
	} else if (intern->fresh < TABLE_GEOMETRIES_MAX) {
		number = ++intern->fresh;
	} else {
		return 0;
	}
	e = &intern->entries[number - 1];
	assert(!e->refs);
	*e = (struct intern_entry){.geometry = *geometry, .refs = 1, .next = *head};
	*head = number;
	intern->used++;
	intern->last = number;
	return number;
}

void intern_give(struct intern *intern, uint16_t number)
{
	struct intern_entry *e = &intern->entries[number - 1];
	uint16_t *at;

	assert(number && number <= intern->fresh && e->refs);
	if (--e->refs)
		return;
	at = head_of(intern, &e->geometry);
	while (*at != number) {
		assert(*at); /* it is in its chain */
		at = &intern->entries[*at - 1].next;
	}
	*at = e->next;
	e->next = intern->freed;
	intern->freed = number;
	intern->used--;
}

uint64_t intern_memory(const struct intern *intern)
{
	return INTERN_HEADS * sizeof(uint16_t) + intern->fresh * sizeof(struct intern_entry);
}
