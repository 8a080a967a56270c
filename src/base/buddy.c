/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first unit of each piece says what the piece is; the others say INSIDE.
 * A free piece whose buddy (the piece of the same order with which it makes one
 * of the next) is free too does not exist: they are one.
 */
#include "base/buddy.h"

#include <assert.h>
#include <stdbool.h>

#define UNIT_NONE  UINT32_MAX
#define UNIT_SHIFT 12

enum unit_state { UNIT_INSIDE = 0, UNIT_FREE, UNIT_TAKEN };

struct buddy_unit {
	uint32_t next, previous; /* in the list of its order, while free */
	uint8_t order, state;
};

static_assert(BUDDY_PIECE_MIN == 1u << UNIT_SHIFT, "a unit is the smallest piece");

static uint32_t unit_count_of(uint64_t range_bytes)
{
	assert(range_bytes >> UNIT_SHIFT < UNIT_NONE);
	return (uint32_t)(range_bytes >> UNIT_SHIFT);
}

size_t buddy_meta_bytes(uint64_t range_bytes)
{
	return unit_count_of(range_bytes) * sizeof(struct buddy_unit);
}

static void list_add(struct buddy *buddy, uint32_t unit, uint32_t order)
{
	uint32_t next = buddy->heads[order];

	assert(unit % (1u << order) == 0 && unit + (1ull << order) <= buddy->unit_count);
	buddy->units[unit] = (struct buddy_unit){
		.next = next, .previous = UNIT_NONE, .order = (uint8_t)order, .state = UNIT_FREE};
	if (next != UNIT_NONE)
		buddy->units[next].previous = unit;
	buddy->heads[order] = unit;
	buddy->orders_free |= 1u << order;
}

static void list_remove(struct buddy *buddy, uint32_t unit)
{
	struct buddy_unit *u = &buddy->units[unit];

	assert(u->state == UNIT_FREE);
	if (u->previous != UNIT_NONE)
		buddy->units[u->previous].next = u->next;
	else
		buddy->heads[u->order] = u->next;
	if (u->next != UNIT_NONE)
		buddy->units[u->next].previous = u->previous;
	if (buddy->heads[u->order] == UNIT_NONE)
		buddy->orders_free &= ~(1u << u->order);
	u->state = UNIT_INSIDE;
}

void buddy_init(struct buddy *buddy, void *meta, uint64_t range_bytes)
{
	uint32_t unit = 0;

	*buddy = (struct buddy){.units = meta, .unit_count = unit_count_of(range_bytes)};
	for (uint32_t order = 0; order < BUDDY_ORDERS; order++)
		buddy->heads[order] = UNIT_NONE;
	for (uint32_t i = 0; i < buddy->unit_count; i++)
		buddy->units[i] = (struct buddy_unit){.state = UNIT_INSIDE};
	/* The largest aligned pieces that the range is made of. */
	while (unit < buddy->unit_count) {
		uint32_t order = unit ? (uint32_t)__builtin_ctz(unit) : BUDDY_ORDERS - 1;

		while (unit + (1ull << order) > buddy->unit_count)
			order--;
		list_add(buddy, unit, order);
		unit += 1u << order;
	}
	buddy->free_units = buddy->unit_count;
}

/* BUDDY_ORDERS: larger than any piece. */
static uint32_t order_of(uint64_t bytes)
{
	uint32_t order = 0;

	while (order < BUDDY_ORDERS && (uint64_t)BUDDY_PIECE_MIN << order < bytes)
		order++;
	return order;
}

uint64_t buddy_piece_bytes(uint64_t bytes)
{
	uint32_t order = order_of(bytes);

	assert(order < BUDDY_ORDERS);
	return (uint64_t)BUDDY_PIECE_MIN << order;
}

uint64_t buddy_get(struct buddy *buddy, uint64_t bytes)
{
	uint32_t wanted = order_of(bytes), order, unit;

	assert(bytes > 0);
	if (wanted >= BUDDY_ORDERS || !(buddy->orders_free >> wanted))
		return BUDDY_NONE;
	order = wanted + (uint32_t)__builtin_ctz(buddy->orders_free >> wanted);
	unit = buddy->heads[order];
	list_remove(buddy, unit);
	while (order > wanted) {
		order--;
		list_add(buddy, unit + (1u << order), order);
	}
	buddy->units[unit].order = (uint8_t)wanted;
	buddy->units[unit].state = UNIT_TAKEN;
	buddy->free_units -= 1u << wanted;
	return (uint64_t)unit << UNIT_SHIFT;
}

/* The other half of the piece of the next order is free, and whole. */
static bool buddy_free(const struct buddy *buddy, uint32_t other, uint32_t order)
{
	return other < buddy->unit_count && buddy->units[other].state == UNIT_FREE &&
	       buddy->units[other].order == order;
}

void buddy_put(struct buddy *buddy, uint64_t offset)
{
	uint32_t unit = (uint32_t)(offset >> UNIT_SHIFT), order;

	assert(offset % BUDDY_PIECE_MIN == 0 && offset >> UNIT_SHIFT < buddy->unit_count);
	assert(buddy->units[unit].state == UNIT_TAKEN); /* given back twice, or never taken */
	order = buddy->units[unit].order;
	buddy->free_units += 1u << order;
	buddy->units[unit].state = UNIT_INSIDE;
	for (; order + 1 < BUDDY_ORDERS; order++) {
		uint32_t other = unit ^ 1u << order;

		if (!buddy_free(buddy, other, order))
			break;
		list_remove(buddy, other);
		unit = unit < other ? unit : other;
	}
	list_add(buddy, unit, order);
}

uint64_t buddy_largest(const struct buddy *buddy)
{
	if (!buddy->orders_free)
		return 0;
	return (uint64_t)BUDDY_PIECE_MIN << (31 - __builtin_clz(buddy->orders_free));
}
