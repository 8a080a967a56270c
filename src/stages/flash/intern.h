/* SPDX-License-Identifier: Apache-2.0 */
/* Geometries of blocks, each once, counted: a part of the table (table.h), which owns it. */
#ifndef STAGES_FLASH_INTERN_H
#define STAGES_FLASH_INTERN_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stages/flash/table.h"

#define INTERN_HEADS 1024u

struct intern_entry {
	struct table_geometry geometry;
	uint32_t refs; /* 0: free */
	uint16_t next; /* in its chain, or of free ones */
	uint16_t zero;
};

/* Numbers are 1 to TABLE_GEOMETRIES_MAX; 0 is none. */
struct intern {
	struct intern_entry *entries; /* of number n at n - 1 */
	uint16_t *heads;
	uint16_t fresh, freed, used;
	uint16_t last; /* that was taken: mostly the next is the same */
};

size_t intern_bytes(void);
/* @memory: intern_bytes(), zeroed, aligned to 4. */
void intern_init(struct intern *intern, void *memory);
/* The number of @geometry, with one more reference; 0: full. */
uint16_t intern_take(struct intern *intern, const struct table_geometry *geometry);
void intern_give(struct intern *intern, uint16_t number);
static inline const struct table_geometry *intern_at(const struct intern *intern, uint16_t number)
{
	assert(number && number <= intern->fresh && intern->entries[number - 1].refs);
	return &intern->entries[number - 1].geometry;
}
uint64_t intern_memory(const struct intern *intern); /* touched, bytes */
bool geometry_equal(const struct table_geometry *a, const struct table_geometry *b);

#endif
