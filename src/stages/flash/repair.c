/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be rebuilt of a store at rest, is. Every step leaves a store that an
 * open or another repair takes, so that it may end anywhere.
 *
 * Invariants, numbered:
 *  1. Of a pair of copies the sound one is never written.
 *  2. A table is made of records whose heads check, and written before its trailer.
 *  3. What is dropped is said; nothing comes back that was removed: a region
 *     whose header is lost stays lost, since nobody knows what followed its trailer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "stages/flash/rest.h"

/* Beyond what was found: submissions and uses of regions that left nothing behind. */
#define SEQUENCE_AHEAD	 (1ull << 44)
#define REGION_SEQ_AHEAD (1ull << 32)

/* Writes @bytes at @data as whole units at @at, with zeros behind. */
static int put(struct rest *rest, uint64_t at, const void *data, size_t bytes)
{
	size_t whole = (size_t)flash_round_up(bytes, FLASH_UNIT_MAX);
	uint8_t *buffer;
	int rc;

	if (rest->super.layout.unit)
		whole = (size_t)flash_round_up(bytes, rest->super.layout.unit);
	buffer = sys_zalloc(rest->sys, FLASH_PAGE, whole);
	if (!buffer)
		return rest_error(rest, -ENOMEM, "no memory");
	memcpy(buffer, data, bytes);
	rc = sys_pwrite_full(rest->sys, rest->fd, buffer, whole, (off_t)at);
	rest->sys->free(buffer);
	return rc < 0 ? rest_error(rest, rc, "byte %llu: %s", (unsigned long long)at, strerror(-rc))
		      : 0;
}

static int settle(struct rest *rest)
{
	int rc = rest->sys->fdatasync(rest->fd);

	return rc < 0 ? rest_error(rest, rc, "%s", strerror(-rc)) : 0;
}

/* ---- the superblock ------------------------------------------------------------------ */

/* The superblock, once more, into the copy that is its turn. */
static int super_put(struct rest *rest)
{
	struct flash_super *super = &rest->super.super;

	super->counter++;
	flash_super_seal(super);
	return put(rest, flash_super_at(super->counter % FLASH_COPIES), super, sizeof(*super));
}

/* A region's header at @at, of any store, in the place that it says. */
static bool header_at(struct rest *rest, uint64_t at, uint8_t *page,
		      struct flash_region_head *ret_head, struct flash_layout *ret_layout)
{
	if (sys_pread_full(rest->sys, rest->fd, page, FLASH_PAGE, (off_t)at) < 0)
		return false;
	memcpy(ret_head, page, sizeof(*ret_head));
	return flash_region_head_found(ret_head, ret_layout) == FLASH_OK &&
	       flash_region_at(ret_layout, ret_head->region) == at;
}

/* Makes a superblock of a header. */
static void super_from(struct rest *rest, const struct flash_region_head *head,
		       const struct flash_layout *layout)
{
	flash_super_init(&rest->super.super, &head->id, layout, head->store_created_ns);
	rest->super.layout = *layout;
}

/*
 * Looks for headers wherever a region may begin, up to the first one, and from
 * there on where its store has them. Of two stores that were here the younger
 * one counts.
 */
static bool super_search(struct rest *rest, uint8_t *page)
{
	const struct flash_layout *layout = &rest->super.layout;
	struct flash_super *super = &rest->super.super;
	uint64_t at = 0, end = UINT64_MAX;
	bool any = false;
	struct stat st;

	if (rest->sys->fstat(rest->fd, &st) == 0 && S_ISREG(st.st_mode))
		end = (uint64_t)st.st_size;
	while (at < end) {
		struct flash_region_head head;
		struct flash_layout found;

		if (header_at(rest, at, page, &head, &found) &&
		    (!any || head.store_created_ns > super->created_ns)) {
			super_from(rest, &head, &found);
			end = flash_region_at(layout, layout->region_count - 1) + 1;
			any = true;
		} else if (!any && end == UINT64_MAX &&
			   sys_pread_full(rest->sys, rest->fd, page, FLASH_PAGE, (off_t)at) < 0) {
			break; /* a device's end */
		}
		at += any ? layout->region_bytes : FLASH_REGION_ALIGN;
	}
	return any;
}

/* What no later use, submission or epoch may fall behind. */
static int super_numbers(struct rest *rest)
{
	struct flash_super *super = &rest->super.super;
	struct flash_scanner scanner;
	int rc = flash_scanner_init(&scanner, rest->sys, rest->fd, &rest->super);

	for (uint32_t region = 0; rc == 0 && region < super->region_count; region++) {
		struct flash_region_found found;

		rc = flash_scan_region(&scanner, region, 0, NULL, NULL, &found);
		if (found.sequence_max > super->sequence)
			super->sequence = found.sequence_max;
		if (found.seq > super->region_seq)
			super->region_seq = found.seq;
		if (found.epoch > super->epoch)
			super->epoch = found.epoch;
	}
	flash_scanner_fini(&scanner);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	super->sequence += SEQUENCE_AHEAD;
	super->region_seq += REGION_SEQ_AHEAD;
	return 0;
}

static int super_rebuild(struct rest *rest)
{
	uint8_t *page = rest->sys->alloc(FLASH_PAGE, FLASH_PAGE);
	bool found;
	int rc;

	if (!page)
		return rest_error(rest, -ENOMEM, "no memory");
	memset(&rest->super, 0, sizeof(rest->super));
	found = super_search(rest, page);
	rest->sys->free(page);
	if (!found)
		return rest_error(rest, -EPROTO,
				  "neither a superblock nor the header of a region is left");
	rc = super_numbers(rest);
	for (uint32_t copy = 0; rc == 0 && copy < FLASH_COPIES; copy++)
		rc = super_put(rest);
	if (rc == 0)
		rc = settle(rest);
	if (rc == 0)
		rc = rest_report(rest, CAIRN_FINDING_REPAIRABLE, 0,
				 "the superblock was made again from a region's header");
	return rc;
}

static int repair_super(struct rest *rest)
{
	bool both = true;
	int rc = flash_scan_super(rest->sys, rest->fd, &rest->super);

	if (rc == -EBADMSG || rc == -EIO)
		return super_rebuild(rest);
	rc = rest_super(rest); /* once more, for its words */
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		both = both && rest->super.copies[copy] == FLASH_OK;
	if (rc < 0 || both)
		return rc;
	rc = super_put(rest);
	return rc < 0 ? rc
		      : rest_report(rest, CAIRN_FINDING_REPAIRABLE, 0,
				    "a copy of the superblock was made again from the other one");
}

/* ---- namespaces ------------------------------------------------------------------------ */

static int repair_spaces(struct rest *rest)
{
	const struct flash_layout *layout = &rest->super.layout;
	struct flash_space_head *head = rest->spaces.area;
	bool both = true;
	uint32_t bytes;
	int rc;

	if (rest->spaces_rc == -ENOENT)
		return 0;
	if (rest->spaces_rc < 0)
		return rest_error(rest, -EPROTO,
				  "neither copy of the namespaces checks, and what they were is "
				  "written nowhere else: no block can be found, make a new store");
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		both = both &&
		       (rest->spaces.copies[copy] == 0 || rest->spaces.copies[copy] == -ENOENT);
	if (both)
		return 0;
	head->counter++;
	bytes = flash_space_seal(head);
	rc = put(rest, flash_space_at(layout, head->counter % FLASH_COPIES), head, bytes);
	return rc < 0 ? rc
		      : rest_report(rest, CAIRN_FINDING_REPAIRABLE,
				    flash_space_at(layout, head->counter % FLASH_COPIES),
				    "a copy of the namespaces was made again from the other one");
}

/* ---- regions --------------------------------------------------------------------------- */

/* Makes the table and the trailer of what rest->table has. */
static int table_put(struct rest *rest, uint32_t region, const struct flash_region_found *found)
{
	const struct flash_layout *layout = &rest->super.layout;
	uint32_t from = flash_table_unit(layout, region, found->next_number);
	uint32_t trailer_unit = flash_trailer_unit(layout, region);
	struct flash_trailer trailer = {
		.region = region,
		.seq = found->seq,
		.record_count = found->next_number,
		.records_end = found->next_unit,
		.epoch = found->epoch,
		.sealed_ns = rest->sys->realtime_ns(),
		.sequence_max = found->sequence_max,
	};
	char text[128];
	int rc = 0;

	if (found->next_unit > from)
		return rest_report_region(rest, CAIRN_FINDING_NOTE, region,
					  flash_region_at(layout, region),
					  "there is no room for a table: it stays without one");
	flash_trailer_seal(&trailer, rest->table, flash_salt(&rest->super.super.id, found->seq));
	if (found->next_number)
		rc = put(rest, flash_byte_of(layout, from), rest->table,
			 found->next_number * sizeof(*rest->table));
	if (rc == 0)
		rc = settle(rest);
	if (rc == 0)
		rc = put(rest, flash_byte_of(layout, trailer_unit), &trailer, sizeof(trailer));
	snprintf(text, sizeof(text), "the table was made again from %u records", found->records);
	return rc < 0 ? rc
		      : rest_report_region(rest, CAIRN_FINDING_REPAIRABLE, region,
					   flash_byte_of(layout, trailer_unit), text);
}

/* Both copies of a page of marks, as rest->marks has them. */
static int marks_put(struct rest *rest, uint32_t region, uint64_t seq, uint32_t page,
		     uint64_t counter)
{
	uint32_t records_max = rest->super.layout.records_max;
	uint32_t from = page * FLASH_MARKS_PER_PAGE;
	uint32_t some = records_max - from < FLASH_MARKS_PER_PAGE ? records_max - from
								  : FLASH_MARKS_PER_PAGE;
	struct flash_marks *marks = sys_zalloc(rest->sys, FLASH_PAGE, sizeof(*marks));
	int rc = 0;

	if (!marks)
		return rest_error(rest, -ENOMEM, "no memory");
	marks->region = region;
	marks->region_seq = seq;
	marks->counter = counter;
	marks->page = page;
	memcpy(marks->marks, rest->marks + from, some);
	for (uint32_t copy = 0; rc == 0 && copy < FLASH_COPIES; copy++) {
		marks->counter++; /* so the one that counts is the last one written */
		flash_marks_seal(marks, flash_salt(&rest->super.super.id, seq));
		rc = put(rest,
			 flash_marks_at(&rest->super.layout, region, page,
					marks->counter % FLASH_COPIES),
			 marks, sizeof(*marks));
		if (rc == 0)
			rc = settle(rest);
	}
	rest->sys->free(marks);
	return rc;
}

/* Marks as dead what does not check; says which pages that changed. */
static int records_drop(struct rest *rest, uint32_t region, const struct flash_region_found *found,
			uint64_t *changed)
{
	const struct flash_layout *layout = &rest->super.layout;
	int rc = 0;

	for (uint32_t number = 0; rc == 0 && number < found->next_number; number++) {
		const struct flash_table_entry *entry = &rest->table[number];
		const char *wrong = NULL;
		char text[128];

		if (!flash_entry_is_hole(entry))
			wrong = rest_record_wrong(rest, found->seq, number);
		if (!wrong)
			continue;
		rest->marks[number] = FLASH_MARK_DEAD;
		changed[number / FLASH_MARKS_PER_PAGE / 64] |=
			1ull << (number / FLASH_MARKS_PER_PAGE % 64);
		snprintf(text, sizeof(text), "dropped: %s", wrong);
		rc = rest_report_region(rest, CAIRN_FINDING_DAMAGED, region,
					flash_byte_of(layout, entry->unit), text);
	}
	return rc;
}

/* Mark pages of the largest region: one of 2^30 bytes of the smallest records. */
#define MARK_PAGES_MAX ((1u << 30) / (2 * FLASH_UNIT_MIN) / FLASH_MARKS_PER_PAGE + 1)

static int repair_records(struct rest *rest, uint32_t region,
			  const struct flash_region_found *found)
{
	const struct flash_layout *layout = &rest->super.layout;
	uint64_t changed[MARK_PAGES_MAX / 64 + 1] = {0};
	uint64_t counters[MARK_PAGES_MAX] = {0};
	struct flash_marks_found marks;
	int rc = 0;

	flash_scan_marks(&rest->scanner, region, found->seq, layout->records_max, rest->marks,
			 counters, &marks);
	if (marks.damaged) /* which one is not told: all that were ever written */
		for (uint32_t page = 0; page < layout->mark_pages; page++)
			if (counters[page])
				changed[page / 64] |= 1ull << (page % 64);
	if (rest->clean || found->state == FLASH_FOUND_SEALED) /* else the next open does it */
		rc = records_drop(rest, region, found, changed);
	for (uint32_t page = 0; rc == 0 && page < layout->mark_pages; page++)
		if (changed[page / 64] >> (page % 64) & 1)
			rc = marks_put(rest, region, found->seq, page, counters[page]);
	if (rc == 0 && marks.damaged)
		rc = rest_report_region(rest, CAIRN_FINDING_REPAIRABLE, region,
					flash_marks_at(layout, region, 0, 0),
					"its marks were made again from the other copy");
	return rc;
}

static int repair_region(struct rest *rest, uint32_t region)
{
	const struct flash_layout *layout = &rest->super.layout;
	uint64_t at = flash_region_at(layout, region);
	static const uint8_t nothing[1];
	struct flash_region_found found;
	int rc;

	memset(rest->table, 0, layout->records_max * sizeof(*rest->table));
	rc = flash_scan_region(&rest->scanner, region, 0, rest_collect, rest, &found);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	if (found.state == FLASH_FOUND_LOST) {
		rc = put(rest, at, nothing, sizeof(nothing));
		return rc < 0 ? rc
			      : rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
						   "dropped: its header does not check");
	}
	if (found.state == FLASH_FOUND_UNREADABLE)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  "its header cannot be read: left as it is");
	if (found.state != FLASH_FOUND_OPEN && found.state != FLASH_FOUND_SEALED)
		return 0;
	rc = repair_records(rest, region, &found);
	if (rc == 0 && (found.table_lost || found.trailer_lost))
		rc = table_put(rest, region, &found);
	return rc;
}

int flash_rest_repair(const struct flash_rest_opts *opts,
		      int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		      struct cairn_error *reterr)
{
	struct rest rest = {.finding = fn, .space_id = UINT32_MAX};
	int rc = rest_open(&rest, opts, O_RDWR, context, reterr);

	if (rc == 0)
		rc = rest_lock(&rest);
	if (rc == 0)
		rc = repair_super(&rest);
	if (rc == 0)
		rc = rest_ready(&rest);
	if (rc == 0)
		rc = rest_table(&rest);
	if (rc == 0)
		rc = repair_spaces(&rest);
	for (uint32_t region = 0; rc == 0 && region < rest.super.layout.region_count; region++)
		rc = repair_region(&rest, region);
	if (rc == 0)
		rc = settle(&rest);
	rest_close(&rest);
	return rc ? rc : rest.worst;
}
