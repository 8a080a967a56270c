/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store has when it is opened, out of the tables of its regions; and what
 * is made ready at close for the next time.
 *
 * Invariants, numbered:
 *  1. A block is whole when every shard of it is found with the same birth; of
 *     two births the later one counts. What is not whole is dropped.
 *  2. Of two records of one shard and birth (a carry that was cut short) the one
 *     in the later use of a region counts; in one region, the later one.
 *  3. A region that was open is sealed as it was found, so that it is read once.
 *  4. Nothing is told to the host before a flush: what was read is there to stay.
 */
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

#include <stdio.h>

/* The writes of a page of marks are counted on from there when one copy could not be read. */
#define UNREAD_AHEAD 65536u

struct found {
	uint64_t birth;
	uint32_t space;
	uint32_t zero;
};

struct recovery {
	struct flash *tier;
	struct flash_scanner scanner;
	struct found *found; /* by entry */
	size_t found_bytes;
	struct flash_table_entry *entries; /* of the region, by number */
	uint64_t *counters;
	uint32_t region;
};

static int entry_keep(void *context, const struct flash_scanned *scanned)
{
	struct recovery *r = context;

	assert(scanned->number < r->tier->layout.records_max);
	r->entries[scanned->number] = *scanned->entry;
	return 0;
}

/* ---- blocks --------------------------------------------------------------------------- */

/* When a record was used last, by its mark. */
static uint32_t epoch_of(const struct flash *tier, uint8_t mark, uint32_t region_epoch)
{
	uint32_t back;

	if (mark == FLASH_MARK_NONE || mark > FLASH_MARK_EPOCHS)
		return region_epoch;
	back = (tier->epoch % FLASH_MARK_EPOCHS + FLASH_MARK_EPOCHS - (mark - 1u)) %
	       FLASH_MARK_EPOCHS;
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

/* The entry for a record; TABLE_NONE: it does not count. */
static uint32_t entry_for(struct recovery *r, const struct flash_table_entry *entry, uint32_t epoch)
{
	struct table *table = r->tier->table;
	uint64_t fingerprint =
		table_fingerprint(table, &entry->key, entry->space, entry->generation);
	struct table_geometry geometry = geometry_of(entry);
	uint32_t id = table_find(table, fingerprint);
	bool made;

	if (id != TABLE_NONE && r->found[id].birth > entry->birth)
		return TABLE_NONE;
	if (id != TABLE_NONE && r->found[id].birth < entry->birth)
		block_remove(r->tier, id);
	if (table_add(table, fingerprint, &geometry, (uint16_t)epoch, &made, &id) != TABLE_OK)
		return TABLE_NONE;
	if (made) {
		r->found[id] = (struct found){.birth = entry->birth, .space = entry->space};
		table_set_expiry(table, id, entry->expiry_s);
		if (entry->parent)
			table_set_parent(table, id, entry->parent);
	} else if (geometry.last_bytes &&
		   table_set_last(table, id, geometry.last_bytes) != TABLE_OK) {
		return TABLE_NONE;
	}
	return id;
}

static void record_take(struct recovery *r, uint32_t number, uint32_t epoch)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[number];
	struct table_place old,
		place = {
			.unit = entry->unit,
			.length = flash_record_units(&tier->layout, entry->stored_length),
			.number = number,
		};
	const struct space *space =
		entry->space < tier->space_end ? tier->spaces[entry->space] : NULL;
	uint32_t id = TABLE_NONE;
	struct table_block block;

	if (space && space->generation == entry->generation)
		id = entry_for(r, entry, epoch);
	if (id == TABLE_NONE) {
		record_dies(tier, &place);
		return;
	}
	if (!table_shard(tier->table, id, entry->shard, &old)) {
		table_place(tier->table, id, entry->shard, &place);
	} else if (region_at(tier, old.unit)->seq <= tier->regions[r->region].seq) {
		record_dies(tier, &old);
		region_lose(tier, id, &old);
		table_unplace(tier->table, id, entry->shard);
		table_place(tier->table, id, entry->shard, &place);
	} else {
		record_dies(tier, &place);
		return;
	}
	region_gain(tier, id, &place);
	table_look(tier->table, id, &block);
	if ((uint16_t)(tier->epoch - block.epoch) > (uint16_t)(tier->epoch - epoch))
		block_set_epoch(tier, id, epoch);
}

/* Which blocks are whole; the others are dropped. */
static void blocks_settle(struct recovery *r)
{
	struct flash *tier = r->tier;
	uint32_t id;

	for (id = table_next(tier->table, 0); id != TABLE_NONE;
	     id = table_next(tier->table, id + 1)) {
		struct table_geometry geometry;

		table_geometry(tier->table, id, &geometry);
		if (!geometry.last_bytes || table_shards(tier->table, id) < geometry.shard_count) {
			block_remove(tier, id);
			cairn_count(tier->env, CNT_PARTIALS_DROPPED, 1);
			continue;
		}
		table_publish(tier->table, id);
		space_count(tier, tier->spaces[r->found[id].space], true);
		cairn_count(tier->env, CNT_RECOVERED, 1);
	}
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
	rc = seal_now(tier, r->region);
	if (rc < 0) /* it can be read, and is found open the next time, too */
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
	region->failed = rc < 0;
}

/*
 * What cannot be read is given up: it must not come back, another time, after a remove
 * that did not find it. As lasting as the first remove is.
 */
static void unread_die(struct recovery *r, const struct flash_region_found *found)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	uint32_t *counters = &tier->mark_counters[(size_t)r->region * tier->layout.mark_pages];
	uint8_t *at = mark_at(tier, r->region, 0);

	if (found->state == FLASH_FOUND_OPEN) /* what numbers there are nobody knows */
		region->records = tier->layout.records_max;
	for (uint32_t i = 0; i < region->records; i++)
		if (i >= found->next_number || flash_entry_is_hole(&r->entries[i]))
			at[i] = FLASH_MARK_DEAD;
	region->kill_dirty = UINT64_MAX;
	for (uint32_t i = 0; i < tier->layout.mark_pages; i++)
		counters[i] += UNREAD_AHEAD;
}

static void region_take(struct recovery *r, const struct flash_region_found *found)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	struct flash_marks_found marks;
	uint8_t *at = mark_at(tier, r->region, 0);

	region->records = found->next_number;
	region->at = found->next_unit;
	region->epoch = found->epoch;
	region->stream = (uint8_t)found->stream;
	flash_scan_marks(&r->scanner, r->region, found->seq, found->next_number, at, r->counters,
			 &marks);
	for (uint32_t i = 0; i < tier->layout.mark_pages; i++)
		tier->mark_counters[(size_t)r->region * tier->layout.mark_pages + i] =
			(uint32_t)r->counters[i];
	if (found->unreadable || marks.lost)
		unread_die(r, found);
	for (uint32_t i = 0; i < found->next_number; i++)
		if (at[i] != FLASH_MARK_DEAD && !flash_entry_is_hole(&r->entries[i]))
			record_take(r, i, epoch_of(tier, at[i], found->epoch));
}

static int region_scan(struct recovery *r, bool clean)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->region];
	struct flash_region_found found;
	int rc;

	memset(r->entries, 0, tier->layout.records_max * sizeof(*r->entries));
	memset(r->counters, 0, tier->layout.mark_pages * sizeof(*r->counters));
	rc = flash_scan_region(&r->scanner, r->region, clean ? 0 : FLASH_SCAN_PAYLOAD, entry_keep,
			       r, &found);
	if (rc < 0)
		return rc;
	region->draft = DRAFT_NONE;
	region->seq = found.seq;
	switch (found.state) {
	case FLASH_FOUND_UNUSED:
	case FLASH_FOUND_LOST:
		region->state = REGION_BLANK;
		return 0;
	case FLASH_FOUND_UNREADABLE:
		region->state = REGION_RETIRED;
		region->failed = region->unread = true;
		return 0;
	case FLASH_FOUND_OPEN:
		region->state = REGION_SEALING;
		region_take(r, &found);
		if (found.unreadable) { /* no more of it is trusted to a place like that */
			region->state = REGION_RETIRED;
			region->failed = true;
			return 0;
		}
		if (found.next_number) {
			region_seal(r, &found);
			return 0;
		}
		/*
		 * After a crash marks may be in the file of records that are not: their
		 * numbers are not taken again in this use of the region.
		 */
		region->state =
			!clean || found.torn || found.gap_units ? REGION_BLANK : REGION_FREE;
		tier->free_count += region->state == REGION_FREE;
		return 0;
	case FLASH_FOUND_SEALED:
		region->state = REGION_SEALED;
		region->tabled = !found.table_lost;
		region_take(r, &found);
		if (found.table_lost && !found.unreadable) /* torn: it is written again */
			region_seal(r, &found);
		policy_candidate(&tier->policy, r->region, true);
		return 0;
	}
	return 0;
}

/* The latest use and epoch of all, before any record is weighed. */
static void headers_scan(struct recovery *r)
{
	struct flash *tier = r->tier;

	tier->epoch = tier->super.epoch;
	tier->region_seq = tier->super.region_seq;
	for (uint32_t i = 0; i < tier->layout.region_count; i++) {
		struct flash_region_found found;

		flash_scan_header(&r->scanner, i, &found);
		if (found.state != FLASH_FOUND_OPEN && found.state != FLASH_FOUND_SEALED)
			continue;
		tier->regions[i].seq = found.seq;
		if (found.seq > tier->region_seq)
			tier->region_seq = found.seq;
		if (found.epoch > tier->epoch)
			tier->epoch = found.epoch;
	}
	policy_init(&tier->policy, tier->policy_regions, tier->layout.region_count,
		    tier->layout.region_units, (uint16_t)tier->epoch);
}

static int recovery_memory(struct recovery *r)
{
	struct flash *tier = r->tier;
	struct flash_super_found super = {.super = tier->super, .layout = tier->layout};
	void *memory;
	int rc = flash_scanner_init(&r->scanner, tier->sys, tier->fd, &super);

	if (rc < 0)
		return rc;
	r->found_bytes = (size_t)tier->entries_max * sizeof(*r->found);
	rc = sys_reserve(tier->sys, r->found_bytes, &memory);
	if (rc < 0)
		return rc;
	r->found = memory;
	r->entries = tier->sys->alloc(64, tier->layout.records_max * sizeof(*r->entries));
	r->counters = tier->sys->alloc(64, tier->layout.mark_pages * sizeof(*r->counters));
	return r->entries && r->counters ? 0 : -ENOMEM;
}

int flash_recover(struct flash *tier, struct cairn_error *reterr)
{
	struct recovery r = {.tier = tier};
	bool clean = tier->super.flags & FLASH_SUPER_CLEAN;
	int rc = recovery_memory(&r);

	if (rc == 0)
		headers_scan(&r);
	for (r.region = 0; rc == 0 && r.region < tier->layout.region_count; r.region++)
		rc = region_scan(&r, clean);
	if (rc == 0)
		blocks_settle(&r);
	if (rc == 0 && tier->sync != SYNC_NONE)
		rc = tier->sys->fdatasync(tier->fd);
	if (r.found)
		tier->sys->munmap(r.found, r.found_bytes);
	if (r.entries)
		tier->sys->free(r.entries);
	if (r.counters)
		tier->sys->free(r.counters);
	flash_scanner_fini(&r.scanner);
	if (rc < 0)
		return flash_error(reterr, rc, "%s: could not be read: %s", tier->path,
				   strerror(-rc));
	return 0;
}

int recover_settle(struct flash *tier)
{
	int rc = 0;

	while (partial_drop_oldest(tier))
		;
	for (uint32_t stream = 0; stream < FLASH_STREAMS; stream++) {
		uint32_t number = tier->open_region[stream];

		if (number != UINT32_MAX && tier->regions[number].records && rc == 0)
			rc = seal_now(tier, number);
		tier->open_region[stream] = UINT32_MAX;
	}
	if (rc == 0)
		rc = marks_write_all(tier);
	return rc < 0 ? rc : tier->sys->fdatasync(tier->fd);
}
