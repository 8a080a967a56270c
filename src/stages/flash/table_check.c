/* SPDX-License-Identifier: Apache-2.0 */
/* The table's invariants, numbered in table.h and table_parts.h, and whether they hold. */
#include <assert.h>

#include "base/wrong.h"
#include "stages/flash/table_parts.h"

struct check {
	const struct table *table;
	struct wrong why;
	uint64_t children, geometries, places; /* sums of marks: what is counted less what is */
};

static bool check_ghost(const struct check *check, uint32_t id)
{
	const struct cold *cold = &check->table->cold[id];
	struct table_place place;

	if (!cold->children && !check->table->hot[id].pins)
		return wrong(&check->why, "nothing names ghost %u", id);
	if (cold->parent != TABLE_NONE || cold->holds || cold->others ||
	    check->table->hot[id].geometry || check->table->hot[id].state & FLAGS_MASK ||
	    place_decode(cold->place, &place))
		return wrong(&check->why, "ghost %u has what only blocks have", id);
	return true;
}

static bool check_block(struct check *check, uint32_t id)
{
	const struct table *table = check->table;
	const struct hot *hot = &table->hot[id];
	const struct cold *cold = &table->cold[id];
	uint32_t shard_count = shard_count_of(table, id), present = 0;
	struct table_place place;

	if (hot->geometry != GEOMETRY_OWN)
		check->geometries -= scramble(hot->geometry);
	if ((hot->geometry == GEOMETRY_OWN || hot->state & FLAG_LAST) &&
	    (shard_count > 1 || !cold->others))
		return wrong(&check->why, "entry %u has a size of its own and %u shards", id,
			     shard_count);
	if (shard_count > 1)
		check->places -= places_mark(cold->others, shard_count - 1);
	for (uint32_t shard = 0; shard < shard_count; shard++)
		present += place_decode(place_of(table, id, shard), &place);
	if (state_of(table, id) == TABLE_WHOLE && present < shard_count)
		return wrong(&check->why, "entry %u is whole with %u of %u shards", id, present,
			     shard_count);
	if (hot->state & FLAG_EXPIRES && (id >= table->expiries_end || !table->expiries[id]))
		return wrong(&check->why, "entry %u expires, and has no time", id);
	if (cold->parent == TABLE_NONE)
		return true;
	if (cold->parent == id || cold->parent >= table->fresh ||
	    state_of(table, cold->parent) == TABLE_FREE)
		return wrong(&check->why, "entry %u has a parent that is not there", id);
	check->children -= scramble(cold->parent);
	return true;
}

static bool check_entry(struct check *check, uint32_t id)
{
	const struct table *table = check->table;
	uint32_t at = *bucket_of(table, table->hot[id].fingerprint), steps = 0;

	while (at && at - 1 != id && steps++ < table->fresh)
		at = table->hot[at - 1].next;
	if (at - 1 != id)
		return wrong(&check->why, "entry %u is not in its bucket", id);
	check->children += table->cold[id].children * scramble(id);
	return lives(table, id) ? check_block(check, id) : check_ghost(check, id);
}

/* Invariants 1, 2, 4, 6. */
static bool check_entries(struct check *check)
{
	const struct table *table = check->table;
	uint32_t counts[4] = {0};

	for (uint32_t id = 0; id < table->fresh; id++) {
		counts[state_of(table, id)]++;
		if (state_of(table, id) != TABLE_FREE && !check_entry(check, id))
			return false;
	}
	if (check->children)
		return wrong(&check->why, "child counts are not those of the children");
	for (int state = TABLE_WHOLE; state <= TABLE_GHOST; state++)
		if (counts[state] != table->counts[state])
			return wrong(&check->why, "%u entries of state %d, counted %u",
				     counts[state], state, table->counts[state]);
	for (uint32_t at = table->freed; at; at = table->hot[at - 1].next)
		if (at > table->fresh || state_of(table, at - 1) != TABLE_FREE ||
		    !counts[TABLE_FREE]--)
			return wrong(&check->why, "the chain of free entries is broken at %u",
				     at - 1);
	return counts[TABLE_FREE]
		       ? wrong(&check->why, "%u free entries are lost", counts[TABLE_FREE])
		       : true;
}

/* Invariant 7, and that nothing else is in the buckets. */
static bool check_buckets(const struct check *check)
{
	const struct table *table = check->table;
	uint64_t reached = 0, used = entries_used(table), least = buckets_for(used);

	if (table->bucket_count < (least < table->bucket_max ? least : table->bucket_max) ||
	    table->bucket_count > table->bucket_max)
		return wrong(&check->why, "%llu buckets for %llu entries",
			     (unsigned long long)table->bucket_count, (unsigned long long)used);
	for (uint64_t b = 0; b < table->bucket_count; b++) {
		uint32_t at = table->buckets[b];

		for (; at && reached <= used; at = table->hot[at - 1].next)
			reached++;
	}
	return reached == used ? true
			       : wrong(&check->why, "%llu entries in the buckets, %llu in use",
				       (unsigned long long)reached, (unsigned long long)used);
}

bool table_check(const struct table *table, char *why, size_t why_bytes)
{
	struct check check = {.table = table, .why = {why, why_bytes}};

	assert(table->magic == TABLE_MAGIC);
	if (!places_check(&table->places, &check.places))
		return wrong(&check.why, "the chunks of places are damaged");
	for (uint16_t number = 1; number <= table->intern.fresh; number++)
		check.geometries += table->intern.entries[number - 1].refs * scramble(number);
	if (!check_entries(&check) || !check_buckets(&check))
		return false;
	if (check.places)
		return wrong(&check.why, "the arrays of places are not those of the entries");
	return check.geometries ? wrong(&check.why, "geometries are not counted as used") : true;
}
