/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store has when it is opened, out of the tables of its regions.
 *
 * Invariants, numbered:
 *  1. A block is whole when every shard of it is found with the same birth; of
 *     two births the later one counts. What is not whole is dropped.
 *  2. Of two records of one shard and birth (a carry that was cut short) the one
 *     in the later use of a region counts; in one region, the later one.
 *  3. A region that was open is sealed as it was found, so that it is read once.
 *  4. Nothing is told to the host before a flush: what was read is there to stay, and
 *     what does not count any more is marked, so that it does not come back.
 *  5. No block lacks an entry because of a parent that is not there.
 *  6. Nor, after a crash, because of what had gone before it, and comes back: for the
 *     time of an open the index has room for that. Where even that is too little the
 *     regions that were begun last are read first.
 */
#include "stages/flash/ahead.h"
#include "stages/flash/found.h"
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH	     64u /* records whose entries are fetched at once */
/* The writes of a page of marks are counted on from there when one copy could not be read. */
#define UNREAD_AHEAD 65536u

/* Epochs that may have begun since the last header was written: FREE_LEAST of 6 regions. */
#define EPOCHS_AHEAD 40u

static_assert(BATCH <= TABLE_FETCH_MAX, "one fetch");

/* Blocks of one shard, one behind the other in a region, of one epoch and namespace. */
struct run {
	uint32_t epoch, space;
	uint32_t units, blocks;
};

struct recovery {
	struct flash *tier;
	struct flash_scanner scanner;
	struct ahead *ahead; /* NULL: cannot be had */
	struct found found;
	struct run run;
	struct flash_region_found *looked; /* by region */
	size_t looked_bytes;
	uint32_t *order;		   /* of regions, the latest use first */
	struct flash_table_entry *entries; /* of a region that is walked, by number */
	uint64_t *counters;
	uint32_t region;
	bool expected; /* the table is as large as it will be */
	bool roomy;    /* there are entries for all parents, too */
	bool untold;   /* some parent is still to be told */
	bool flushed;  /* what was read is in the file to stay, or flush_result says why not */
	int flush_result;
};

static int entry_keep(void *context, const struct flash_scanned *scanned)
{
	struct recovery *r = context;

	assert(scanned->number < r->tier->layout.records_max);
	r->entries[scanned->number] = *scanned->entry;
	return 0;
}

/* ---- blocks --------------------------------------------------------------------------- */

/*
 * When a record was used last, by its mark. The epoch that the store had come to is known
 * from headers that were written a few regions ahead: what seems younger is of now.
 */
static uint32_t epoch_of(const struct flash *tier, uint8_t mark, uint32_t region_epoch)
{
	uint32_t back;

	if (mark == FLASH_MARK_NONE || mark > FLASH_MARK_EPOCHS) { /* not used since it came */
		uint32_t age = policy_fresh_age(&tier->policy, 0);

		region_epoch = region_epoch < tier->epoch ? region_epoch : tier->epoch;
		return region_epoch > age ? region_epoch - age : 0;
	}
	back = (tier->epoch % FLASH_MARK_EPOCHS + FLASH_MARK_EPOCHS - (mark - 1u)) %
	       FLASH_MARK_EPOCHS;
	if (back > FLASH_MARK_EPOCHS - EPOCHS_AHEAD)
		return tier->epoch;
	return back <= tier->epoch ? tier->epoch - back : 0;
}

static struct table_geometry geometry_of(const struct flash_table_entry *entry)
{
	return (struct table_geometry){
		.shard_count = entry->shard_count,
		.shard_bytes = entry->shard_bytes,
		.last_bytes = entry->shard + 1u == entry->shard_count ? entry->raw_length : 0,
	};
}

static bool counted(const struct flash *tier, uint32_t id)
{
	return table_state(tier->table, id) == TABLE_WHOLE;
}

/* space_count(), but for what is shown: that is told once all are in. */
static void space_of(struct recovery *r, uint32_t id, bool more)
{
	struct space *space = r->tier->spaces[r->found.spaces[id]];

	assert(more || (space->blocks && r->tier->blocks));
	space->blocks += more ? 1 : UINT64_MAX;
	r->tier->blocks += more ? 1 : UINT64_MAX;
}

static void block_drop(struct recovery *r, uint32_t id)
{
	struct flash *tier = r->tier;
	struct table_geometry geometry;
	struct table_place place;

	if (counted(tier, id)) {
		space_of(r, id, false);
		block_remove(tier, id);
		return;
	}
	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < geometry.shard_count; i++)
		if (table_shard(tier->table, id, i, &place))
			record_dies(tier, &place);
	table_remove(tier->table, id);
}

/* A block that is whole counts. */
static void block_count(struct recovery *r, uint32_t id)
{
	struct flash *tier = r->tier;
	struct table_geometry geometry;
	struct table_place place;

	table_publish(tier->table, id);
	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < geometry.shard_count; i++)
		if (table_shard(tier->table, id, i, &place))
			region_gain(tier, id, &place);
	space_of(r, id, true);
}

/* Where a ghost of it might take the entry of a block, when all blocks are in. Invariant 5. */
static void parent_take(struct recovery *r, uint32_t id, uint64_t parent)
{
	if (r->untold) /* an entry that was another's before may have one */
		r->found.parents[id] = 0;
	if (!parent)
		return;
	if (r->roomy) {
		table_set_parent(r->tier->table, id, parent);
		return;
	}
	r->found.parents[id] = parent;
	r->untold = true;
}

/* What the first record of a block says of all. */
static void entry_tell(struct recovery *r, uint32_t id, const struct flash_table_entry *entry)
{
	r->found.births[id] = entry->birth;
	r->found.spaces[id] = entry->space;
	if (entry->expiry_s)
		table_set_expiry(r->tier->table, id, entry->expiry_s);
	parent_take(r, id, entry->parent);
}

/* The entry for a record; TABLE_NONE: it does not count. */
static uint32_t entry_for(struct recovery *r, const struct flash_table_entry *entry,
			  uint64_t fingerprint, uint32_t epoch, bool *ret_made)
{
	struct table *table = r->tier->table;
	struct table_geometry geometry = geometry_of(entry);
	enum table_answer answer;
	uint32_t id;

	answer = table_add(table, fingerprint, &geometry, (uint16_t)epoch, ret_made, &id);
	if (id != TABLE_NONE && !*ret_made && r->found.births[id] != entry->birth) {
		if (r->found.births[id] > entry->birth)
			return TABLE_NONE;
		block_drop(r, id);
		answer = table_add(table, fingerprint, &geometry, (uint16_t)epoch, ret_made, &id);
	}
	if (answer != TABLE_OK) {
		if (answer != TABLE_OTHER_GEOMETRY && !entry->shard)
			cairn_count(r->tier->env, CNT_EVICTED, 1);
		return TABLE_NONE;
	}
	if (*ret_made) {
		entry_tell(r, id, entry);
	} else if (geometry.last_bytes &&
		   table_set_last(table, id, geometry.last_bytes) != TABLE_OK) {
		return TABLE_NONE;
	}
	return id;
}

/* Of two records of a shard the one in the later use stays. False: that is the one before. */
static bool record_replaces(struct recovery *r, uint32_t id, uint32_t shard,
			    const struct table_place *place)
{
	struct flash *tier = r->tier;
	struct table_place old;

	if (!table_shard(tier->table, id, shard, &old)) {
		table_place(tier->table, id, shard, place);
		return true;
	}
	if (region_at(tier, old.unit)->seq > tier->regions[r->region].seq)
		return false;
	record_dies(tier, &old);
	if (counted(tier, id))
		region_lose(tier, id, &old);
	table_move(tier->table, id, shard, old.unit, place);
	if (counted(tier, id))
		region_gain(tier, id, place);
	return true;
}

/* The latest use of any of its records counts. */
static void block_used(struct flash *tier, uint32_t id, uint32_t epoch)
{
	uint16_t before = table_epoch(tier->table, id);

	if ((uint16_t)(tier->epoch - before) <= (uint16_t)(tier->epoch - epoch))
		return;
	if (counted(tier, id))
		block_set_epoch(tier, id, epoch);
	else
		table_touch(tier->table, id, (uint16_t)epoch, &before);
}

/* What the blocks since the last time come to, in their region and their namespace. */
static void run_end(struct recovery *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	struct run *run = &r->run;

	if (!run->blocks)
		return;
	region->live += run->units;
	tier->live_units += run->units;
	policy_add(&tier->policy, r->region, (uint16_t)run->epoch, run->units);
	assert(region->live <= tier->layout.region_units);
	tier->spaces[run->space]->blocks += run->blocks;
	tier->blocks += run->blocks;
	run->units = run->blocks = 0;
}

/* The one record of a new block: what comes to record_replaces() and block_count() otherwise. */
static bool single_take(struct recovery *r, const struct flash_table_entry *entry,
			uint64_t fingerprint, const struct table_place *place, uint32_t epoch)
{
	struct table_geometry geometry = geometry_of(entry);
	struct table *table = r->tier->table;
	uint32_t id;

	if (!table_add_whole(table, fingerprint, &geometry, (uint16_t)epoch, place, &id))
		return false;
	entry_tell(r, id, entry);
	if (r->run.epoch != epoch || r->run.space != entry->space)
		run_end(r);
	r->run.epoch = epoch;
	r->run.space = entry->space;
	r->run.units += place->length;
	r->run.blocks++;
	return true;
}

static void record_take(struct recovery *r, const struct flash_table_entry *entry, uint32_t number,
			uint64_t fingerprint, uint32_t epoch)
{
	struct flash *tier = r->tier;
	struct table_place place = {
		.unit = entry->unit,
		.length = flash_record_units(&tier->layout, entry->stored_length),
		.number = number,
	};
	bool made;
	uint32_t id;

	if (entry->shard_count == 1 && single_take(r, entry, fingerprint, &place, epoch))
		return;
	run_end(r);
	id = entry_for(r, entry, fingerprint, epoch, &made);
	if (id != TABLE_NONE && made && entry->shard_count == 1) {
		table_place(tier->table, id, 0, &place);
		block_count(r, id);
	} else if (id == TABLE_NONE || !record_replaces(r, id, entry->shard, &place)) {
		record_dies(tier, &place);
	} else if (!made) {
		block_used(tier, id, epoch);
	}
}

/* Records of a region that are neither dead nor of a namespace that is not there, some at once. */
struct batch {
	uint32_t count, parents;
	uint32_t numbers[BATCH];
	uint64_t fingerprints[BATCH], parent[BATCH];
};

static void batch_take(struct recovery *r, struct batch *batch,
		       const struct flash_table_entry *entries, uint32_t region_epoch)
{
	struct flash *tier = r->tier;
	const uint8_t *marks = mark_at(tier, r->region, 0);

	table_fetch(tier->table, batch->fingerprints, batch->count);
	table_fetch(tier->table, batch->parent, batch->parents);
	for (uint32_t i = 0; i < batch->count; i++) {
		uint32_t number = batch->numbers[i];

		record_take(r, &entries[number], number, batch->fingerprints[i],
			    epoch_of(tier, marks[number], region_epoch));
	}
	run_end(r);
	batch->count = batch->parents = 0;
}

static void records_take(struct recovery *r, const struct flash_table_entry *entries,
			 uint32_t count, uint32_t region_epoch)
{
	struct flash *tier = r->tier;
	const uint8_t *marks = mark_at(tier, r->region, 0);
	struct batch batch = {.count = 0};

	for (uint32_t i = 0; i < count; i++) {
		const struct flash_table_entry *entry = &entries[i];
		const struct space *space =
			entry->space < tier->space_end ? tier->spaces[entry->space] : NULL;

		if (marks[i] == FLASH_MARK_DEAD || flash_entry_is_hole(entry))
			continue;
		if (!space || space->generation != entry->generation) {
			record_dies(tier, &(struct table_place){.unit = entry->unit, .number = i});
			continue;
		}
		batch.numbers[batch.count] = i;
		batch.fingerprints[batch.count++] = table_fingerprint(
			tier->table, &entry->key, entry->space, entry->generation);
		if (entry->parent)
			batch.parent[batch.parents++] = entry->parent;
		if (batch.count == BATCH)
			batch_take(r, &batch, entries, region_epoch);
	}
	batch_take(r, &batch, entries, region_epoch);
}

/* Which blocks are whole; the others are dropped. */
static void partials_settle(struct recovery *r)
{
	struct flash *tier = r->tier;
	struct table_figures figures;
	uint64_t dropped = 0;

	table_figures(tier->table, &figures);
	for (uint32_t id = 0; figures.partial; id++) {
		id = table_next(tier->table, id);
		assert(id != TABLE_NONE); /* so many there are */
		if (counted(tier, id))
			continue;
		figures.partial--;
		if (table_complete(tier->table, id)) {
			block_count(r, id);
			continue;
		}
		block_drop(r, id);
		dropped++;
	}
	cairn_count(tier->env, CNT_PARTIALS_DROPPED, dropped);
}

static void parents_tell(struct recovery *r)
{
	struct table *table = r->tier->table;

	for (uint32_t id = table_next(table, 0); id != TABLE_NONE; id = table_next(table, id + 1))
		if (r->found.parents[id])
			table_set_parent(table, id, r->found.parents[id]);
}

static void blocks_settle(struct recovery *r)
{
	struct table_figures figures;

	partials_settle(r);
	/* What is found beyond that stays until there is need of its room. */
	table_limit(r->tier->table, r->tier->entries_max, r->tier->shards_max);
	if (r->untold)
		parents_tell(r);
	table_figures(r->tier->table, &figures);
	cairn_count(r->tier->env, CNT_RECOVERED, figures.whole);
}

/* ---- regions ------------------------------------------------------------------------------ */

static void region_seal(struct recovery *r, const struct flash_region_found *found)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	struct draft *draft = &tier->drafts[0];
	int rc;

	assert(draft->region == UINT32_MAX);
	draft->region = r->region;
	region->draft = 0;
	region->sequence_max = found->sequence_max;
	memcpy(draft->memory, r->entries, found->next_number * sizeof(*r->entries));
	/* Nothing is written to any region before: one flush is for all that were open. */
	if (!r->flushed)
		r->flush_result = seal_flush(tier);
	r->flushed = true;
	rc = seal_now(tier, r->region, r->flush_result);
	if (rc < 0) { /* it can be read, and is found open the next time, too */
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		region_fail(tier, r->region, rc);
	}
}

/*
 * What cannot be read is given up: it must not come back, another time, after a remove
 * that did not find it. As lasting as the first remove is.
 */
static void unread_die(struct recovery *r, const struct flash_region_found *found,
		       const struct flash_table_entry *entries)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	uint32_t *counters = &tier->mark_counters[(size_t)r->region * tier->layout.mark_pages];
	uint8_t *at = mark_at(tier, r->region, 0);

	if (found->state == FLASH_FOUND_OPEN && found->unreadable) /* its numbers nobody knows */
		region->records = tier->layout.records_max;
	for (uint32_t i = 0; i < region->records; i++)
		if (i >= found->next_number || flash_entry_is_hole(&entries[i]))
			at[i] = FLASH_MARK_DEAD;
	region->kill_dirty = UINT64_MAX;
	for (uint32_t i = 0; i < tier->layout.mark_pages; i++)
		counters[i] += UNREAD_AHEAD;
}

/* @entries: of its records, by number. */
static void region_take(struct recovery *r, const struct flash_region_found *found,
			const struct flash_table_entry *entries)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	struct flash_marks_found marks;
	uint8_t *at = mark_at(tier, r->region, 0);
	uint32_t *counters = &tier->mark_counters[(size_t)r->region * tier->layout.mark_pages];

	region->records = found->next_number;
	region->at = found->next_unit;
	region->epoch = found->epoch < tier->epoch ? found->epoch : tier->epoch;
	region->last_used = region->epoch;
	region->stream = (uint8_t)found->stream;
	memset(r->counters, 0, tier->layout.mark_pages * sizeof(*r->counters));
	flash_scan_marks(&r->scanner, r->region, found->seq, found->next_number, at, r->counters,
			 &marks);
	region->kill_single = marks.single;
	tier->kill_singles = tier->kill_singles || marks.single;
	if (found->sequence_max >= tier->super.sequence)
		tier->super.sequence = found->sequence_max + 1;
	for (uint32_t i = 0; i < tier->layout.mark_pages; i++)
		counters[i] = (uint32_t)r->counters[i];
	if (found->unreadable || marks.lost)
		unread_die(r, found, entries);
	region_marked(tier, r->region);
	records_take(r, entries, found->next_number, found->epoch);
}

/* One that has to be walked, from record to record. */
static int region_walk(struct recovery *r, struct flash_region_found *found, bool clean)
{
	memset(r->entries, 0, r->tier->layout.records_max * sizeof(*r->entries));
	return flash_scan_rest(&r->scanner, r->region, clean ? 0 : FLASH_SCAN_PAYLOAD, entry_keep,
			       r, found);
}

/*
 * How many blocks there will be, by the first table that is read. Too few or too many
 * make no difference but in speed and 4 bytes each.
 */
static void expect_blocks(struct recovery *r, const struct flash_table_entry *entries,
			  uint32_t count)
{
	uint64_t records = 0, blocks = 0;

	for (uint32_t i = 0; i < r->tier->layout.region_count; i++)
		if (r->looked[i].state == FLASH_FOUND_SEALED)
			records += r->looked[i].trailer.record_count;
	for (uint32_t i = 0; i < count; i++)
		blocks += !entries[i].shard && !flash_entry_is_hole(&entries[i]);
	blocks = count ? records * blocks / count : 0;
	table_expect(r->tier->table, blocks);
	found_expect(&r->found, r->tier, blocks);
	r->roomy = records < r->tier->entries_max / 4; /* whatever they are of */
	r->expected = true;
}

static int region_sealed(struct recovery *r, struct flash_region_found *found, bool clean)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *table;
	int rc = flash_scan_table(&r->scanner, r->region, found, &table);

	tier->regions[r->region].state =
		tier->regions[r->region].failed ? REGION_RETIRED : REGION_SEALED;
	tier->regions[r->region].tabled = rc == 0;
	if (rc == 0) {
		if (!r->expected)
			expect_blocks(r, table, found->next_number);
		region_take(r, found, table);
	} else {
		r->expected = true; /* too late for it, then */
		if (rc == -EBADMSG)
			rc = region_walk(r, found, clean);
		if (rc < 0)
			return rc;
		if (found->unreadable) {
			region_fail(tier, r->region, -EIO);
			tier->regions[r->region].state = REGION_RETIRED;
		}
		region_take(r, found, r->entries);
		/* Torn: it is written again. */
		if (found->table_lost && !found->unreadable && !tier->regions[r->region].failed)
			region_seal(r, found);
	}
	policy_candidate(&tier->policy, r->region, true);
	return 0;
}

/*
 * Are there marks of records that are not in the file? Their numbers are not taken again in this
 * use of the region.
 */
static bool marks_left(struct recovery *r, const struct flash_region_found *found)
{
	struct flash_marks_found marks;

	flash_scan_marks(&r->scanner, r->region, found->seq, r->tier->layout.records_max,
			 (uint8_t *)r->entries, NULL, &marks);
	return marks.next_number > 0;
}

static int region_open(struct recovery *r, struct flash_region_found *found, bool clean)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	int rc = region_walk(r, found, clean);

	if (rc < 0)
		return rc;
	region->state = REGION_SEALING;
	region_take(r, found, r->entries);
	if (found->unreadable) /* no more of it is trusted to a place like that */
		region_fail(tier, r->region, -EIO);
	if (region->failed) {
		region->state = REGION_RETIRED;
		policy_candidate(&tier->policy, r->region, true);
	} else if (found->next_number) {
		region_seal(r, found);
	} else {
		region->state = !clean || found->torn || found->gap_units || found->trailer_lost ||
						marks_left(r, found)
					? REGION_BLANK
					: REGION_FREE;
		tier->free_count += region->state == REGION_FREE;
	}
	return 0;
}

static int by_use(const void *a, const void *b, void *looked)
{
	const struct flash_region_found *found = looked;
	uint64_t x = found[*(const uint32_t *)a].seq, y = found[*(const uint32_t *)b].seq;

	return x < y ? 1 : x > y ? -1 : 0;
}

static uint32_t sealed_order(struct recovery *r)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < r->tier->layout.region_count; i++)
		if (r->looked[i].state == FLASH_FOUND_SEALED)
			r->order[count++] = i;
	qsort_r(r->order, count, sizeof(*r->order), by_use, r->looked);
	return count;
}

/* Tables are read far ahead: of what is sealed. */
static int sealed_scan(struct recovery *r, bool clean)
{
	uint32_t count = sealed_order(r), wanted = 0;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < count; i++) {
		for (wanted = wanted > i ? wanted : i; r->ahead && wanted < count; wanted++)
			if (!flash_scan_want_table(&r->scanner, r->order[wanted],
						   &r->looked[r->order[wanted]]))
				break;
		/* One that was too large is not tried again. */
		wanted = wanted > i ? wanted : i + 1;
		r->region = r->order[i];
		rc = region_sealed(r, &r->looked[r->region], clean);
		found_told(&r->found, r->tier);
		if (r->ahead)
			ahead_give(r->ahead);
	}
	return rc;
}

static int others_scan(struct recovery *r, bool clean)
{
	struct flash *tier = r->tier;
	int rc = 0;

	if (r->ahead)
		ahead_forget(r->ahead);
	r->scanner.ahead_windows = true;
	for (uint32_t i = 0; rc == 0 && i < tier->layout.region_count; i++) {
		struct region *region = &tier->regions[i];

		r->region = i;
		switch (r->looked[i].state) {
		case FLASH_FOUND_UNUSED:
		case FLASH_FOUND_LOST:
			region->state = region->failed ? REGION_RETIRED : REGION_BLANK;
			break;
		case FLASH_FOUND_UNREADABLE:
			region->state = REGION_RETIRED;
			region->unread = true;
			region_fail(tier, i, -EIO);
			break;
		case FLASH_FOUND_OPEN:
			rc = region_open(r, &r->looked[i], clean);
			break;
		case FLASH_FOUND_SEALED:
			break;
		}
	}
	return rc;
}

/* Headers and trailers, before any record is weighed: the latest use and epoch of all. */
static void regions_look(struct recovery *r)
{
	struct flash *tier = r->tier;
	uint32_t count = tier->layout.region_count, wanted = 0;

	/* What is new in the first epochs is older than that. */
	tier->epoch = tier->super.epoch > POLICY_FRESH_AGE ? tier->super.epoch : POLICY_FRESH_AGE;
	tier->region_seq = tier->super.region_seq;
	for (uint32_t i = 0; i < tier->retired_count; i++)
		tier->regions[tier->retired[i]].failed = true;
	for (uint32_t i = 0; i < count; i++) {
		struct flash_region_found *found = &r->looked[i];

		while (r->ahead && wanted < count && flash_scan_want_look(&r->scanner, wanted))
			wanted++;
		flash_scan_look(&r->scanner, i, found);
		if (r->ahead)
			ahead_give(r->ahead);
		tier->regions[i].draft = DRAFT_NONE;
		if (found->state != FLASH_FOUND_OPEN && found->state != FLASH_FOUND_SEALED)
			continue;
		tier->regions[i].seq = found->seq;
		if (found->seq > tier->region_seq)
			tier->region_seq = found->seq;
		if (found->epoch > tier->epoch)
			tier->epoch = found->epoch;
	}
	policy_init(&tier->policy, tier->policy_kind, tier->policy_regions,
		    tier->layout.region_count, tier->layout.region_units, (uint16_t)tier->epoch);
	for (uint32_t i = 0; i < count; i++)
		policy_clear(&tier->policy, i, tier->regions[i].seq);
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* Reads ahead, by memory that nothing else needs yet; or one after the other, then. */
static void ahead_begin(struct recovery *r)
{
	struct flash *tier = r->tier;
	const struct stage_env *internal = stage_env(tier->env);
	const struct engine_ops *ops;
	struct engine *engine;

	static_assert(AHEAD_ROOM <= SPANS * SPAN_BYTES, "it is lent");
	if (internal->engine_early(tier->env, AHEAD_CHAINS, &ops, &engine) < 0)
		return;
	if (ahead_open(tier->sys, ops, engine, tier->span_memory, tier->fd, tier->direct,
		       &r->ahead) < 0)
		internal->engine_early_end(tier->env);
	r->scanner.ahead = r->ahead;
}

static int ahead_end(struct recovery *r)
{
	struct flash *tier = r->tier;

	if (!r->ahead)
		return 0;
	if (ahead_close(r->ahead) < 0) {
		tier->span_base = NULL; /* never unmapped */
		return -EIO;
	}
	stage_env(tier->env)->engine_early_end(tier->env);
	return 0;
}

static int recovery_memory(struct recovery *r)
{
	struct flash *tier = r->tier;
	struct flash_super_found super = {.super = tier->super, .layout = tier->layout};
	void *memory;
	int rc = flash_scanner_init(&r->scanner, tier->sys, tier->fd, &super);

	if (rc == 0)
		rc = found_init(&r->found, r->tier);
	if (rc < 0)
		return rc;
	r->looked_bytes = tier->layout.region_count * sizeof(*r->looked);
	rc = sys_reserve(tier->sys, r->looked_bytes, &memory);
	if (rc < 0)
		return rc;
	r->looked = memory;
	r->entries = tier->sys->alloc(64, tier->layout.records_max * sizeof(*r->entries));
	r->counters = tier->sys->alloc(64, tier->layout.mark_pages * sizeof(*r->counters));
	r->order = tier->sys->alloc(64, tier->layout.region_count * sizeof(*r->order));
	if (!r->entries || !r->counters || !r->order)
		return -ENOMEM;
	ahead_begin(r);
	return 0;
}

static int recovery_release(struct recovery *r)
{
	const struct sys *sys = r->tier->sys;
	int rc = ahead_end(r);

	found_fini(&r->found, r->tier);
	if (r->looked)
		sys->munmap(r->looked, r->looked_bytes);
	if (r->entries)
		sys->free(r->entries);
	if (r->counters)
		sys->free(r->counters);
	if (r->order)
		sys->free(r->order);
	flash_scanner_fini(&r->scanner);
	return rc;
}

/* Nothing was written yet. */
static int versions_known(struct recovery *r, struct cairn_error *reterr)
{
	for (uint32_t i = 0; i < r->tier->layout.region_count; i++)
		if (r->looked[i].newer)
			return flash_error(
				reterr, -EPROTO,
				"%s: region %u is of a format version that this "
				"library does not know; it knows %u; nothing was changed",
				r->tier->path, i, FLASH_FORMAT);
	return 0;
}

int flash_recover(struct flash *tier, struct cairn_error *reterr)
{
	struct recovery r = {.tier = tier};
	bool clean = tier->super.flags & FLASH_SUPER_CLEAN;
	int rc = recovery_memory(&r), released;

	if (rc == 0) {
		regions_look(&r);
		rc = versions_known(&r, reterr);
	}
	if (rc == 0)
		rc = sealed_scan(&r, clean);
	if (rc == 0)
		rc = others_scan(&r, clean);
	if (rc == 0)
		blocks_settle(&r);
	if (rc == 0)
		marks_write_dead(tier);
	released = recovery_release(&r);
	rc = rc < 0 ? rc : released;
	if (rc < 0 && !(reterr && reterr->code))
		flash_error(reterr, rc, "%s: could not be read: %s", tier->path, strerror(-rc));
	return rc;
}
