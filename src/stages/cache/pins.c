/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hot.h"
#include "stages/cache/pins.h"

/* Where a thread looks first: its stack says which. */
static uint32_t my_stripe(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	return (uint32_t)((here >> 16) * UINT64_C(0x9e3779b97f4a7c15) >> 61);
}

static void push(struct cache_map *map, struct pin_stripe *stripe, uint32_t record)
{
	uint64_t head;

	do {
		head = word_get(&stripe->head);
		half_note(&map->pin_next[record], (uint32_t)head);
	} while (!word_cas(&stripe->head, head, ((head >> 32) + 1) << 32 | ((uint64_t)record + 1)));
}

static uint32_t pop(struct cache_map *map, struct pin_stripe *stripe)
{
	uint64_t head;
	uint32_t record;

	do {
		head = word_get(&stripe->head);
		if ((uint32_t)head == 0)
			return CACHE_NONE;
		record = (uint32_t)head - 1;
	} while (!word_cas(&stripe->head, head,
			   ((head >> 32) + 1) << 32 | half_hint(&map->pin_next[record])));
	return record;
}

static struct pin_stripe *stripe_of(struct cache_map *map, uint32_t record)
{
	return &map->stripes[record < map->pins_long ? record % PIN_STRIPES : PIN_STRIPES];
}

void pins_init(struct cache_map *map)
{
	uint32_t share = map->pins_max / PINS_SHARE;

	share = share > PINS_SHARE_MIN ? share : PINS_SHARE_MIN;
	assert(map->pins_max >= CACHE_PINS_MIN && CACHE_PINS_MIN > PINS_SHARE_MIN);
	map->pins_long = map->pins_max - share;
	/* The lowest of each list first: so few records are looked at. */
	for (uint32_t i = map->pins_max; i-- > 0;)
		push(map, stripe_of(map, i), i);
}

/* Before the record is set: who looks for pins sees both, or neither. */
static void tell_used(struct cache_map *map, uint32_t record)
{
	half_raise(&map->clients[map->client].pins_used, record + 1);
}

HIT_PATH uint32_t pin_take_long(struct cache_map *map)
{
	uint32_t first = my_stripe();

	for (uint32_t i = 0; i < PIN_STRIPES; i++) {
		uint32_t record = pop(map, &map->stripes[(first + i) % PIN_STRIPES]);

		if (record == CACHE_NONE)
			continue;
		tell_used(map, record);
		return record;
	}
	return CACHE_NONE;
}

HIT_PATH uint32_t pin_take(struct cache_map *map)
{
	uint32_t record = pin_take_long(map);

	if (record != CACHE_NONE)
		return record;
	record = pop(map, &map->stripes[PIN_STRIPES]);
	if (record != CACHE_NONE)
		tell_used(map, record);
	return record;
}

HIT_PATH void pin_ask(const struct cache_map *map)
{
	__builtin_prefetch(&map->stripes[my_stripe()].head, 1);
	__builtin_prefetch(&map->clients[map->client].pins_used);
}

HIT_PATH void pin_ask_record(const struct cache_map *map)
{
	uint32_t record = (uint32_t)word_hint(&map->stripes[my_stripe()].head) - 1;

	if (record >= map->pins_max)
		return;
	__builtin_prefetch(&map->pin_next[record]);
	__builtin_prefetch(&map->my_pins[record], 1);
}

HIT_PATH void pin_give(struct cache_map *map, uint32_t record)
{
	assert(record < map->pins_max);
	pin_clear(&map->my_pins[record]);
	push(map, stripe_of(map, record), record);
}

HIT_PATH bool pin_entry(struct cache_map *map, uint32_t record, struct cache_ref *ref)
{
	uint64_t *word = &map->entries[ref->entry].state;
	uint64_t state;

	pin_set(&map->my_pins[record], ref_link(ref));
	for (;;) {
		state = word_get_ordered(word);
		if (state_life(state) != state_life(ref->state))
			break;
		if (state_phase(state) == PHASE_LIVE) {
			ref->state = state;
			return true;
		}
		if (state_phase(state) != PHASE_EVICTING)
			break;
		/* Its owner may not have seen this record: it finds the word changed. */
		word_cas(word, state, state_next(state, PHASE_LIVE, state_kind(state), 0));
	}
	pin_clear(&map->my_pins[record]);
	return false;
}

void pin_again(struct cache_map *map, uint32_t record, uint64_t link)
{
	pin_set(&map->my_pins[record], link);
}

void pin_drop(struct cache_map *map, uint32_t record)
{
	pin_clear(&map->my_pins[record]);
}

void pins_each(const struct cache_map *map, void (*fn)(void *context, uint64_t link), void *context)
{
	for (uint32_t c = 0; c < CACHE_CLIENTS_MAX; c++) {
		const uint64_t *records = map->pins + (uint64_t)c * map->pins_max;
		uint32_t used = half_get_ordered(&map->clients[c].pins_used);

		for (uint32_t i = 0; i < used && i < map->pins_max; i++) {
			uint64_t link = word_get_ordered(&records[i]);

			if (link)
				fn(context, link);
		}
	}
}
