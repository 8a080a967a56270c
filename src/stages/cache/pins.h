/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: while one names an entry, nothing of the entry is used for anything else.
 *
 * A pin is a record of the process that has it, a word in its part of the region; there
 * is no count that could be left wrong. Who reclaims looks at all records.
 *
 * Invariants, numbered:
 *  1. A record names a link or 0. Only threads of its process write it; of a process
 *     that is dead, with all its I/O ended, whoever cleans up after it.
 *  2. An entry that a record names, with the record set before the entry was seen LIVE,
 *     or EVICTING and made LIVE again, is in that life until the record is cleared.
 *  3. What callers keep, for as long as they like, leaves PINS_SHARE of the records to ios.
 */
#ifndef STAGES_CACHE_PINS_H
#define STAGES_CACHE_PINS_H

#include "stages/cache/map.h"

#define PINS_SHARE     8u   /* one of so many is for ios alone, */
#define PINS_SHARE_MIN 256u /* and so many at least: two reactors have as many ios by default */

void pins_init(struct cache_map *map); /* my_pins and pin_next are there */

/* A free record, for an io or a call, or CACHE_NONE: all are in use. */
uint32_t pin_take(struct cache_map *map);
/* The same for what outlives the call: a hold, a pin or a reservation. */
uint32_t pin_take_long(struct cache_map *map);
/* Ask for the memory that a pin_take() will touch: its first line, then what that names. */
void pin_ask(const struct cache_map *map);
void pin_ask_record(const struct cache_map *map);
void pin_give(struct cache_map *map, uint32_t record); /* cleared */

/*
 * Pins @ref in @record: false, with the record empty, if that life is over. An entry
 * that is EVICTING is LIVE again after this. *@ref has the state as it was seen.
 */
bool pin_entry(struct cache_map *map, uint32_t record, struct cache_ref *ref);

/* One more record for what is pinned already. */
void pin_again(struct cache_map *map, uint32_t record, uint64_t link);
void pin_drop(struct cache_map *map, uint32_t record); /* clears it; it stays taken */

static inline uint64_t pin_link(const struct cache_map *map, uint32_t record)
{
	return map->my_pins[record];
}

/* Calls @fn for each record of any client that names an entry. */
void pins_each(const struct cache_map *map, void (*fn)(void *context, uint64_t link),
	       void *context);

#endif
