/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be rebuilt of a store at rest, is. Every step leaves a store that an
 * open or another repair takes, so that it may end anywhere.
 *
 * Invariants, numbered:
 *  1. Nothing is written before it is known that the store is one of this version,
 *     and which one: the UUID in the namespace area decides, not whose headers lie
 *     about. Where something else was written over the superblock, nothing is.
 *  2. Of a pair of copies the sound one is not written before the other one is flushed.
 *  3. A table is made of records whose heads check, and written before its trailer.
 *  4. What is dropped is said; nothing comes back that was removed: a region
 *     whose header is lost stays lost, since nobody knows what followed its trailer.
 *  5. `closed cleanly` is written last, after a flush, and only when nothing is left.
 *  6. A file that was cut short is made as long as it was before all else, with room for all of it;
 *     where that cannot be had, and to a device that is too small, nothing is written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "stages/flash/rest.h"
#include "sys/device.h"

/* Beyond what was found: submissions and uses of regions that left nothing behind. */
#define SEQUENCE_AHEAD	 (1ull << 44)
#define REGION_SEQ_AHEAD (1ull << 32)

struct repair {
	struct rest rest;
	struct rest_length length; /* before anything is written */
	bool rebuilt;		   /* both copies of the superblock were lost */
	bool one;		   /* one was */
	bool left;		   /* something stays as it is: the store is not called clean */
	uint32_t sealed;	   /* regions that were open */
};

/* Mended without a loss. */
static int mended(struct rest *rest, uint64_t offset, const char *what)
{
	return rest_report(rest, CAIRN_FINDING_NOTE, offset, what);
}

static int mended_region(struct rest *rest, uint32_t region, uint64_t offset, const char *what)
{
	return rest_report_region(rest, CAIRN_FINDING_NOTE, region, offset, what);
}

/* Writes @bytes at @data as whole units at @at, with zeros behind. */
static int put(struct rest *rest, uint64_t at, const void *data, size_t bytes)
{
	size_t whole = (size_t)flash_round_up(bytes, rest->super.layout.unit);
	uint8_t *buffer = sys_zalloc(rest->sys, FLASH_PAGE, whole);
	int rc;

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

/* The superblock, once more, into the copy that is its turn; flushed. */
static int super_put(struct rest *rest)
{
	struct flash_super_page page;
	int rc;

	rest->super.super.counter++;
	page.super = rest->super.super;
	memcpy(page.retired, rest->super.retired, sizeof(page.retired));
	flash_super_page_seal(&page);
	rc = put(rest, flash_super_at(page.super.counter % FLASH_COPIES), &page, sizeof(page));
	return rc < 0 ? rc : settle(rest);
}

/* What is looked for: headers of regions, and whose. */
struct search {
	struct rest *rest;
	uint8_t *page;
	bool named; /* by the head of the first copy of the namespaces, sound or not */
	uint8_t uuid[16];
	bool found;
	struct flash_region_head head;
	struct flash_layout layout;
};

static bool page_read(const struct search *search, uint64_t at)
{
	const struct rest *rest = search->rest;

	return sys_pread_full(rest->sys, rest->fd, search->page, FLASH_PAGE, (off_t)at) == 0;
}

/*
 * A device may carry headers of stores that were on it before. The first copy of
 * the namespaces lies at one place in all stores, and is written when one is made.
 */
static void search_name(struct search *search)
{
	struct flash_space_head head;

	if (!page_read(search, FLASH_COPIES * FLASH_PAGE))
		return;
	memcpy(&head, search->page, sizeof(head));
	search->named = memcmp(head.magic, FLASH_SPACE_MAGIC, sizeof(head.magic)) == 0;
	memcpy(search->uuid, head.uuid, sizeof(search->uuid));
}

/* A sound header at @at that lies where it says. Without a name the youngest store counts. */
static void search_at(struct search *search, uint64_t at)
{
	struct flash_region_head head;
	struct flash_layout layout;

	memcpy(&head, search->page, sizeof(head));
	if (flash_region_head_found(&head, &layout) != FLASH_OK ||
	    flash_region_at(&layout, head.region) != at)
		return;
	if (search->named ? memcmp(head.id.uuid, search->uuid, sizeof(search->uuid)) != 0
			  : search->found && head.store_created_ns <= search->head.store_created_ns)
		return;
	search->head = head;
	search->layout = layout;
	search->found = true;
}

/* Wherever a region may begin: with a name up to the first of its headers. */
static void search_all(struct search *search)
{
	const struct rest *rest = search->rest;
	uint64_t end = UINT64_MAX;
	struct stat st;

	if (rest->sys->fstat(rest->fd, &st) == 0 && S_ISREG(st.st_mode))
		end = (uint64_t)st.st_size;
	for (uint64_t at = 0; at < end && !(search->found && search->named);
	     at += FLASH_REGION_ALIGN) {
		if (page_read(search, at))
			search_at(search, at);
		else if (end == UINT64_MAX && !page_read(search, at + FLASH_REGION_ALIGN))
			break; /* a device's end */
	}
}

static bool all_zero(const uint8_t *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if (data[i])
			return false;
	return true;
}

/* Whether what lies in the place of the superblock was once ours, or is nothing. */
static bool place_ours(const struct search *search)
{
	struct flash_super super;

	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		if (!page_read(search, flash_super_at(copy)))
			continue;
		memcpy(&super, search->page, sizeof(super));
		if (!all_zero(search->page, FLASH_PAGE) &&
		    memcmp(super.magic, FLASH_SUPER_MAGIC, sizeof(super.magic)) != 0 &&
		    memcmp(super.id.uuid, search->head.id.uuid, sizeof(super.id.uuid)) != 0)
			return false;
	}
	return true;
}

/* The superblock as a region's header tells it, in memory. @rc: what an open would say. */
static int super_search(struct rest *rest, int rc)
{
	struct search search = {.rest = rest, .page = rest->sys->alloc(FLASH_PAGE, FLASH_PAGE)};
	bool ours = false;

	if (!search.page)
		return rest_error(rest, -ENOMEM, "no memory");
	search_name(&search);
	search_all(&search);
	if (search.found)
		ours = place_ours(&search);
	rest->sys->free(search.page);
	if (!search.found && rc == -ENOENT)
		return rest_error(rest, rc, "there is no store here; look at path=");
	if (!search.found)
		return rest_error(rest, -EPROTO,
				  "not a flash store, or nothing is left of it: neither a "
				  "superblock nor the header of a region%s; nothing was changed",
				  search.named ? " of the store whose namespaces are here" : "");
	if (!ours)
		return rest_error(rest, -EPROTO,
				  "something else was written where the superblock was: if it may "
				  "be lost, zero the first 8192 bytes and repair then; nothing was "
				  "changed");
	memset(&rest->super, 0, sizeof(rest->super));
	flash_super_init(&rest->super.super, &search.head.id, &search.layout,
			 search.head.store_created_ns);
	rest->super.layout = search.layout;
	return 0;
}

/* Reads only: what is there of the superblock. */
static int super_look(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	int rc = flash_scan_super(rest->sys, rest->fd, &rest->super);

	repair->rebuilt = rc == -EBADMSG || rc == -EIO || rc == -ENOENT;
	if (repair->rebuilt)
		return super_search(rest, rc);
	rc = rest_super(rest); /* once more, for its words */
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		repair->one = repair->one || rest->super.copies[copy] != FLASH_OK;
	return rc;
}

/* What no later use, submission or epoch may fall behind. */
static int super_numbers(struct rest *rest)
{
	struct flash_super *super = &rest->super.super;
	int rc = 0;

	for (uint32_t region = 0; rc == 0 && region < super->region_count; region++) {
		struct flash_region_found found;

		rc = flash_scan_region(&rest->scanner, region, 0, NULL, NULL, &found);
		if (found.sequence_max > super->sequence)
			super->sequence = found.sequence_max;
		if (found.seq > super->region_seq)
			super->region_seq = found.seq;
		if (found.epoch > super->epoch)
			super->epoch = found.epoch;
	}
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	super->sequence += SEQUENCE_AHEAD;
	super->region_seq += REGION_SEQ_AHEAD;
	return 0;
}

/* Where it was lost, so that an open finds a store from here on. */
static int super_mend(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	int rc = rest->clean ? 0 : super_numbers(rest);

	if (!repair->rebuilt)
		return rc;
	for (uint32_t copy = 0; rc == 0 && copy < FLASH_COPIES; copy++)
		rc = super_put(rest);
	return rc < 0 ? rc
		      : mended(rest, 0,
			       "mended: the superblock was made again from a region's header; "
			       "which regions were retired nobody knows");
}

/* The end of a repair. Invariant 5. */
static int super_close(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	struct flash_super *super = &rest->super.super;
	char text[128];
	int rc = settle(rest);

	if (rc < 0 || rest->clean)
		return rc;
	/* What had gone, and was not marked so, has come back, as after a crash. */
	super->flags = repair->left ? super->flags & FLASH_SUPER_UNASKED
				    : FLASH_SUPER_CLEAN | FLASH_SUPER_OVER;
	super->owner_pid = 0;
	rc = super_put(rest);
	if (rc == 0 && repair->one)
		rc = mended(rest, flash_super_at(super->counter % FLASH_COPIES),
			    "mended: a copy of the superblock was made again from the other one");
	if (rc || repair->left || (!repair->sealed && (repair->one || repair->rebuilt)))
		return rc;
	snprintf(text, sizeof(text),
		 "mended: it was not closed: regions sealed as they were found: %u",
		 repair->sealed);
	return mended(rest, 0, text);
}

/* ---- a file that was cut short --------------------------------------------------------- */

/* A device cannot be made longer: nothing is written, since no open takes what is there. */
static int length_look(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	int rc = rest_length(rest, &repair->length);

	if (rc < 0 || !repair->length.shorter || !repair->length.device)
		return rc;
	repair->left = true;
	return rest_report(rest, CAIRN_FINDING_DAMAGED, repair->length.bytes,
			   "the device ends here, and the store was made on a larger one: nothing "
			   "was changed, copy it to one of that size");
}

/* As long as it was made: regions that lay behind the end are unused, or end early, from now on. */
static int length_mend(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	int rc;

	if (!repair->length.shorter)
		return 0;
	/* An open takes no file without room for all of it. */
	rc = sys_allocate(rest->sys, rest->fd, rest->super.super.file_bytes);
	if (rc == 0)
		rc = rest->sys->fdatasync(rest->fd);
	if (rc < 0)
		return rest_error(rest, rc,
				  "it was cut short, and cannot be made as long as it was, %llu "
				  "bytes: %s; nothing was changed",
				  (unsigned long long)rest->super.super.file_bytes, strerror(-rc));
	return rest_report(rest, CAIRN_FINDING_DAMAGED, repair->length.bytes,
			   "the file was cut short here, and is as long again as it was made: what "
			   "was written behind is lost");
}

/* ---- namespaces ------------------------------------------------------------------------ */

/* Before anything is written: what they are stands nowhere else. */
static int spaces_look(struct repair *repair)
{
	struct rest *rest = &repair->rest;

	if (rest->spaces_rc == 0)
		return 0;
	if (repair->rebuilt)
		return rest_error(rest, -EPROTO,
				  "neither a superblock nor a copy of the namespaces checks: no "
				  "block can be found, make a new store; nothing was changed");
	repair->left = true;
	return rest_report(rest, CAIRN_FINDING_DAMAGED, rest->super.layout.space_offset,
			   "neither copy of the namespaces checks, and what they were is written "
			   "nowhere else: no block can be found, make a new store");
}

static int spaces_mend(struct rest *rest)
{
	struct flash_space_head *head = rest->spaces.area;
	bool both = true;
	uint64_t at;
	int rc;

	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		both = both &&
		       (rest->spaces.copies[copy] == 0 || rest->spaces.copies[copy] == -ENOENT);
	if (both)
		return 0;
	head->counter++;
	at = flash_space_at(&rest->super.layout, head->counter % FLASH_COPIES);
	rc = put(rest, at, head, flash_space_seal(head));
	return rc < 0 ? rc
		      : mended(rest, at,
			       "mended: a copy of the namespaces was made again from the other "
			       "one");
}

/* ---- regions --------------------------------------------------------------------------- */

/* Makes the table and the trailer of what rest->table has. */
static int table_put(struct repair *repair, uint32_t region, const struct flash_region_found *found)
{
	struct rest *rest = &repair->rest;
	const struct flash_layout *layout = &rest->super.layout;
	uint32_t from = flash_table_unit(layout, region, found->next_number);
	struct flash_trailer trailer = {
		.region = region,
		.seq = found->seq,
		.record_count = found->next_number,
		.records_end = found->next_unit,
		.epoch = found->epoch,
		.sealed_ns = rest->sys->realtime_ns(),
		.sequence_max = found->sequence_max,
	};
	uint64_t at = flash_byte_of(layout, flash_trailer_unit(layout, region));
	char text[128];
	int rc;

	if (found->next_unit > from) {
		repair->left = true;
		return rest_report_region(rest, CAIRN_FINDING_REPAIRABLE, region,
					  flash_region_at(layout, region),
					  "there is no room for a table: left as it is");
	}
	flash_trailer_seal(&trailer, rest->table, flash_salt(&rest->super.super.id, found->seq));
	rc = put(rest, flash_byte_of(layout, from), rest->table,
		 found->next_number * sizeof(*rest->table));
	if (rc == 0)
		rc = settle(rest);
	if (rc == 0)
		rc = put(rest, at, &trailer, sizeof(trailer));
	if (rc < 0 || (!found->table_lost && !found->trailer_lost && !rest->clean))
		return rc;
	snprintf(text, sizeof(text), "mended: the table was made again from %u records",
		 found->records);
	return mended_region(rest, region, at, text);
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
		marks->counter++; /* the sound copy comes second */
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

/* Mark pages of the largest region: one of 2^30 bytes of the smallest records. */
#define MARK_PAGES_MAX ((1u << 30) / (2 * FLASH_UNIT_MIN) / FLASH_MARKS_PER_PAGE + 1)

struct pages {
	uint64_t changed[MARK_PAGES_MAX / 64 + 1];
	uint64_t counters[MARK_PAGES_MAX];
};

/* Marks as dead what does not check; says which pages that changed. */
static int records_drop(struct rest *rest, uint32_t region, const struct flash_region_found *found,
			struct pages *pages)
{
	const struct flash_layout *layout = &rest->super.layout;
	int rc = 0;

	for (uint32_t number = 0; rc == 0 && number < found->next_number; number++) {
		const struct flash_table_entry *entry = &rest->table[number];
		uint32_t page = number / FLASH_MARKS_PER_PAGE;
		const char *wrong = NULL;
		char text[128];

		if (!flash_entry_is_hole(entry))
			wrong = rest_record_wrong(rest, found->seq, number);
		if (!wrong)
			continue;
		rest->marks[number] = FLASH_MARK_DEAD;
		pages->changed[page / 64] |= 1ull << (page % 64);
		snprintf(text, sizeof(text), "dropped: %s", wrong);
		rc = rest_report_region(rest, CAIRN_FINDING_DAMAGED, region,
					flash_byte_of(layout, entry->unit), text);
	}
	return rc;
}

static int repair_records(struct rest *rest, uint32_t region,
			  const struct flash_region_found *found)
{
	const struct flash_layout *layout = &rest->super.layout;
	struct pages pages = {0};
	struct flash_marks_found marks;
	int rc = 0;

	flash_scan_marks(&rest->scanner, region, found->seq, layout->records_max, rest->marks,
			 pages.counters, &marks);
	if (marks.damaged || marks.lost ||
	    marks.single) /* which one is not told: all that there can be */
		for (uint32_t page = 0; page < layout->mark_pages; page++)
			if (pages.counters[page] ||
			    page * FLASH_MARKS_PER_PAGE < found->next_number)
				pages.changed[page / 64] |= 1ull << (page % 64);
	if (found->state == FLASH_FOUND_SEALED || rest->clean || rest_retired(rest, region))
		rc = records_drop(rest, region, found, &pages);
	for (uint32_t page = 0; rc == 0 && page < layout->mark_pages; page++)
		if (pages.changed[page / 64] >> (page % 64) & 1)
			rc = marks_put(rest, region, found->seq, page, pages.counters[page]);
	return rc ? rc : rest_report_marks(rest, region, &marks, true);
}

/* Its header goes, and with that all that is in it. */
static int region_drop(struct rest *rest, uint32_t region, const char *why)
{
	uint64_t at = flash_region_at(&rest->super.layout, region);
	static const uint8_t nothing[1];
	int rc = put(rest, at, nothing, sizeof(nothing));

	return rc < 0 || !why ? rc
			      : rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at, why);
}

/* One whose header does not check, or cannot be read; or that is of a newer version. */
static int region_lost(struct repair *repair, uint32_t region,
		       const struct flash_region_found *found)
{
	struct rest *rest = &repair->rest;

	if (found->state == FLASH_FOUND_LOST && !found->newer)
		return region_drop(rest, region, "dropped: its header does not check");
	repair->left = true;
	return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region,
				  flash_region_at(&rest->super.layout, region),
				  found->newer ? "of a format version that this library does not "
						 "know: left as it is"
					       : "its header cannot be read: left as it is");
}

/* What was between records, or in place of the last ones, and is nowhere. */
static int records_gone(struct rest *rest, uint32_t region, const struct flash_region_found *found)
{
	bool whole = found->table_lost || found->trailer_lost || rest->clean;
	char text[128];

	if (!found->torn && !(found->gap_units && whole))
		return 0;
	snprintf(text, sizeof(text),
		 "dropped: %u records that are not there whole, and %u units without a head",
		 found->torn, found->gap_units);
	return rest_report_region(
		rest, found->gap_units && whole ? CAIRN_FINDING_DAMAGED : CAIRN_FINDING_NOTE,
		region, flash_region_at(&rest->super.layout, region), text);
}

/* Without a trailer: what an open would do. */
static int repair_open(struct repair *repair, uint32_t region,
		       const struct flash_region_found *found)
{
	struct rest *rest = &repair->rest;
	int rc;

	if (found->unreadable) { /* perhaps another time it can be read */
		repair->left = true;
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region,
					  flash_region_at(&rest->super.layout, region),
					  "it could not be read everywhere: left as it is");
	}
	if (!found->next_number && rest_retired(rest, region))
		return 0;
	if (!found->next_number && found->trailer_lost)
		return region_drop(rest, region, "dropped: no record of it was found");
	/* After a crash numbers may have been given out of which nothing is left but marks. */
	if (!found->next_number)
		return rest->clean ? 0 : region_drop(rest, region, NULL);
	repair->sealed += !rest->clean && !rest_retired(rest, region);
	rc = repair_records(rest, region, found);
	if (rc == 0)
		rc = records_gone(rest, region, found);
	return rc || rest_retired(rest, region) ? rc : table_put(repair, region, found);
}

static int repair_region(struct repair *repair, uint32_t region)
{
	struct rest *rest = &repair->rest;
	struct flash_region_found found;
	int rc;

	memset(rest->table, 0, rest->super.layout.records_max * sizeof(*rest->table));
	rc = flash_scan_region(&rest->scanner, region, rest->clean ? 0 : FLASH_SCAN_PAYLOAD,
			       rest_collect, rest, &found);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	if (found.state == FLASH_FOUND_LOST && rest_retired(rest, region))
		return 0; /* it stays as it is, and nothing of it is found */
	if (found.state == FLASH_FOUND_LOST || found.state == FLASH_FOUND_UNREADABLE || found.newer)
		return region_lost(repair, region, &found);
	if (found.state == FLASH_FOUND_OPEN)
		return repair_open(repair, region, &found);
	if (found.state != FLASH_FOUND_SEALED)
		return 0;
	rc = repair_records(rest, region, &found);
	if (rc == 0 && found.table_lost)
		rc = records_gone(rest, region, &found);
	return rc || !found.table_lost || rest_retired(rest, region)
		       ? rc
		       : table_put(repair, region, &found);
}

static int repair_all(struct repair *repair)
{
	struct rest *rest = &repair->rest;
	int rc = length_mend(repair);

	if (rc == 0)
		rc = super_mend(repair);
	if (rc == 0)
		rc = spaces_mend(rest);
	for (uint32_t region = 0; rc == 0 && region < rest->super.layout.region_count; region++)
		rc = repair_region(repair, region);
	return rc ? rc : super_close(repair);
}

int flash_rest_repair(const struct flash_rest_opts *opts,
		      int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		      struct cairn_error *reterr)
{
	struct repair repair = {.rest = {.finding = fn, .space_id = UINT32_MAX}};
	struct rest *rest = &repair.rest;
	int rc = rest_open(rest, opts, O_RDWR, context, reterr);

	if (rc == 0)
		rc = rest_lock(rest);
	if (rc == 0)
		rc = super_look(&repair);
	if (rc == 0)
		rc = rest_ready(rest);
	if (rc == 0)
		rc = rest_table(rest);
	if (rc == 0)
		rc = length_look(&repair);
	if (rc == 0 && !repair.left)
		rc = spaces_look(&repair);
	if (rc == 0 && !repair.left)
		rc = repair_all(&repair);
	rest_close(rest);
	return rc ? rc : rest->worst;
}
