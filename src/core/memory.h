/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that callers have registered: I/O may be aimed at it.
 *
 * Invariants:
 *  1. A map never changes. What is registered now is another map, and a task looks into
 *     the one that was there when it took its slot, without a lock.
 *  2. Nothing aims at a range but for a task whose map has it: when no map with it
 *     is left that a task without its release looks into, nothing does.
 */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include "core/store.h"

struct memory_range {
	uintptr_t base;
	size_t bytes;
};

struct memory_map {
	struct memory_map *next; /* an older one, in the store's list. Under its lock */
	uint32_t tasks;		 /* that look into it. Under the store's lock */
	uint32_t count;
	struct memory_range ranges[]; /* by address; none meets another */
};

/* Whether all of it lies in one range. @map may be NULL: nothing is registered. */
bool memory_has(const struct memory_map *map, const void *base, uint64_t bytes);

/* Under the store's lock: a task begins to look into what is registered; it has its release. */
struct memory_map *memory_map_take(struct cairn_store *store);
void memory_map_put(struct cairn_store *store, struct memory_map *map); /* NULL: ignored */

void memory_fini(struct cairn_store *store); /* no task is left */

#endif
