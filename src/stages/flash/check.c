/* SPDX-License-Identifier: Apache-2.0 */
/* A store at rest, checked: all of it, payload included. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/nsdesc.h"
#include "stages/error.h"
#include "stages/flash/rest.h"
#include "sys/device.h"

/* ---- check ------------------------------------------------------------------------- */

int rest_report(struct rest *rest, enum cairn_finding_kind kind, uint64_t offset, const char *what)
{
	char where[512];
	struct cairn_finding finding = {kind, rest->opts->stage, where, what};

	snprintf(where, sizeof(where), "%.400s at byte %llu", rest->opts->path,
		 (unsigned long long)offset);
	if ((int)kind > rest->worst)
		rest->worst = (int)kind;
	return rest->finding ? rest->finding(rest->context, &finding) : 0;
}

int rest_report_region(struct rest *rest, enum cairn_finding_kind kind, uint32_t region,
		       uint64_t offset, const char *what)
{
	char text[256];

	snprintf(text, sizeof(text), "region %u: %s", region, what);
	return rest_report(rest, kind, offset, text);
}

/* Whether anybody could ask for @entry: it is not of a generation that was cleared. */
static bool of_interest(struct rest *rest, const struct flash_table_entry *entry)
{
	const void *desc;

	if (rest->space_id != entry->space) {
		rest->space_known = rest_space(rest, entry->space, &rest->space, &desc);
		rest->space_id = entry->space;
	}
	return !rest->space_known || rest->space.generation == entry->generation;
}

const char *rest_record_wrong(struct rest *rest, uint64_t seq, uint32_t number)
{
	const struct flash_table_entry *entry = &rest->table[number];
	struct flash_record record;

	if (rest->marks[number] == FLASH_MARK_DEAD || !of_interest(rest, entry))
		return NULL;
	switch (flash_scan_record(&rest->scanner, seq, number, entry, &record)) {
	case FLASH_CHECK_NO_HEAD:
		return "the head of a record does not check";
	case FLASH_CHECK_OTHER:
		return "a record is not what the table says";
	case FLASH_CHECK_TORN:
		return "the payload of a record does not match its checksum";
	case FLASH_CHECK_SOUND:
		break;
	}
	if (!rest->space_known && rest->spaces.area)
		return "a record of a namespace that is not there";
	return NULL;
}

/* @kind: of a record that is not what it should be. */
static int check_record(struct rest *rest, uint32_t region, uint64_t seq, uint32_t number,
			enum cairn_finding_kind kind)
{
	uint64_t at = flash_byte_of(&rest->super.layout, rest->table[number].unit);
	const char *wrong = rest_record_wrong(rest, seq, number);

	return wrong ? rest_report_region(rest, kind, region, at, wrong) : 0;
}

int rest_collect(void *context, const struct flash_scanned *scanned)
{
	struct rest *rest = context;

	rest->table[scanned->number] = *scanned->entry;
	return 0;
}

/* Whether a power cut may have taken records of the region, of which nobody was promised any. */
static bool power_took(const struct rest *rest, const struct flash_region_found *found)
{
	const struct flash_super *super = &rest->super.super;

	return found->seq <= super->unsure_seq ||
	       ((super->flags & FLASH_SUPER_UNASKED) && !rest->clean);
}

static int check_found(struct rest *rest, uint32_t region, const struct flash_region_found *found)
{
	const struct flash_layout *layout = &rest->super.layout;
	bool taken = power_took(rest, found);
	uint64_t at = flash_region_at(layout, region);
	uint64_t end = at + layout->region_bytes - layout->unit;
	int rc = 0;

	if (found->newer)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  "of a format version that this library does not know");
	if (found->state == FLASH_FOUND_LOST)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  "the header does not check: its records are lost");
	if (found->unreadable)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  "it could not be read everywhere");
	if (found->table_lost || found->trailer_lost ||
	    (found->state == FLASH_FOUND_OPEN && found->next_number && rest->clean &&
	     !rest_retired(rest, region)))
		rc = rest_report_region(rest, CAIRN_FINDING_REPAIRABLE, region, end,
					"the table does not check: the next open looks for the "
					"records");
	if (rc == 0 && found->gap_units && (found->table_lost || rest->clean) && !taken)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  "heads of records do not check, and no table tells of "
					  "them: they are lost");
	if (rc == 0 && found->gap_units)
		return rest_report_region(rest, CAIRN_FINDING_REPAIRABLE, region, at,
					  "records that did not get there before the end of their "
					  "process");
	return rc;
}

int rest_report_marks(struct rest *rest, uint32_t region, const struct flash_marks_found *marks,
		      bool mended)
{
	uint64_t at = flash_marks_at(&rest->super.layout, region, 0, 0);

	if (marks->lost)
		return rest_report_region(rest, CAIRN_FINDING_DAMAGED, region, at,
					  mended ? "dropped: records of which no copy of the marks "
						   "checks: any of them may have been removed"
						 : "no copy of a page of its marks checks: its "
						   "records count as removed");
	if (marks->damaged || (marks->single && rest->clean))
		return rest_report_region(
			rest, mended ? CAIRN_FINDING_NOTE : CAIRN_FINDING_REPAIRABLE, region, at,
			mended ? "mended: its marks were made again from the other copy"
			       : "a page of marks does not check: the other copy counts");
	return 0;
}

static int check_region(struct rest *rest, uint32_t region)
{
	uint32_t records_max = rest->super.layout.records_max;
	enum cairn_finding_kind kind = CAIRN_FINDING_DAMAGED;
	struct flash_region_found found;
	struct flash_marks_found marks = {0};
	int rc;

	memset(rest->table, 0, records_max * sizeof(*rest->table));
	rc = flash_scan_region(&rest->scanner, region, 0, rest_collect, rest, &found);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	if (rest_retired(rest, region))
		rc = rest_report_region(rest, CAIRN_FINDING_NOTE, region,
					flash_region_at(&rest->super.layout, region),
					"retired: it could not be read or written once, and takes "
					"no more records");
	if (rc == 0)
		rc = check_found(rest, region, &found);
	if (rc || (found.state != FLASH_FOUND_OPEN && found.state != FLASH_FOUND_SEALED))
		return rc;
	flash_scan_marks(&rest->scanner, region, found.seq, found.next_number, rest->marks, NULL,
			 &marks);
	rc = rest_report_marks(rest, region, &marks, false);
	if ((found.state == FLASH_FOUND_OPEN && !rest->clean) || power_took(rest, &found))
		kind = CAIRN_FINDING_REPAIRABLE; /* what a crash leaves */
	for (uint32_t number = 0; rc == 0 && number < found.next_number; number++)
		if (!flash_entry_is_hole(&rest->table[number]))
			rc = check_record(rest, region, found.seq, number, kind);
	return rc;
}

static int check_super(struct rest *rest)
{
	int rc = 0;

	for (uint32_t copy = 0; rc == 0 && copy < FLASH_COPIES; copy++)
		if (rest->super.copies[copy] != FLASH_OK)
			rc = rest_report(rest, CAIRN_FINDING_REPAIRABLE, flash_super_at(copy),
					 "a copy of the superblock does not check: the other one "
					 "counts");
	if (rc == 0 && !(rest->super.super.flags & FLASH_SUPER_CLEAN))
		rc = rest_report(rest, CAIRN_FINDING_REPAIRABLE, 0,
				 "not closed cleanly: the next open looks for the last records");
	return rc;
}

static int check_spaces(struct rest *rest)
{
	const struct flash_layout *layout = &rest->super.layout;
	struct flash_space_entry entry;
	const void *desc;
	uint32_t at = 0;
	int rc = 0;

	/* Zeros are no namespaces either: a store begins with an empty area that has a head. */
	if (rest->spaces_rc < 0)
		rc = rest_report(rest, CAIRN_FINDING_DAMAGED, layout->space_offset,
				 "neither copy of the namespaces checks: no block can be found");
	for (uint32_t copy = 0; rc == 0 && rest->spaces.area && copy < FLASH_COPIES; copy++)
		if (rest->spaces.copies[copy] < 0 && rest->spaces.copies[copy] != -ENOENT)
			rc = rest_report(rest, CAIRN_FINDING_REPAIRABLE,
					 flash_space_at(layout, copy),
					 "a copy of the namespaces does not check: the other one "
					 "counts");
	while (rc == 0 && rest->spaces.area &&
	       flash_space_next(rest->spaces.area, &at, &entry, &desc)) {
		struct cairn_namespace_desc found;

		if (nsdesc_decode(desc, entry.desc_length, rest->texts, &found) < 0)
			rc = rest_report(rest, CAIRN_FINDING_DAMAGED, layout->space_offset,
					 "the description of a namespace is none");
	}
	return rc;
}

int rest_length(const struct rest *rest, struct rest_length *ret_length)
{
	struct sys_device device = {0};
	struct stat st;
	int rc = rest->sys->fstat(rest->fd, &st);

	if (rc == 0 && S_ISBLK(st.st_mode))
		rc = sys_device_look(rest->sys, rest->fd, &device);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	ret_length->device = S_ISBLK(st.st_mode);
	ret_length->bytes = ret_length->device ? device.bytes : (uint64_t)st.st_size;
	ret_length->shorter = ret_length->bytes < rest->super.super.file_bytes;
	return 0;
}

static int check_length(struct rest *rest)
{
	struct rest_length length = {0};
	char text[160];
	int rc = rest_length(rest, &length);

	if (rc < 0 || !length.shorter)
		return rc;
	snprintf(text, sizeof(text),
		 "it ends here, and was made with size=%llu: no open takes it%s",
		 (unsigned long long)rest->super.super.file_bytes,
		 length.device ? "" : "; copy it once more, or cairn fsck --repair");
	return rest_report(rest, CAIRN_FINDING_DAMAGED, length.bytes, text);
}

int rest_lock(struct rest *rest)
{
	const struct sys *sys = rest->sys;
	int rc = sys_flock_wait(sys, rest->fd, LOCK_EX, rest->opts->open_wait_ns);

	if (rc == -EAGAIN) {
		uint32_t noted = flash_scan_super(sys, rest->fd, &rest->super) == 0
					 ? rest->super.super.owner_pid
					 : 0;
		struct stage_holder holder = stage_holder(sys, rest->fd, noted);

		return rest_error(rest, -EBUSY, "in use by %s: %s it first", holder.who,
				  holder.self ? "close" : "end");
	}
	if (rc < 0)
		return rest_error(rest, rc, "flock: %s", strerror(-rc));
	return 0;
}

int rest_table(struct rest *rest)
{
	rest->table = rest->sys->alloc(16, rest->super.layout.records_max * sizeof(*rest->table));
	return rest->table ? 0 : rest_error(rest, -ENOMEM, "no memory");
}

int flash_rest_check(const struct flash_rest_opts *opts,
		     int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		     struct cairn_error *reterr)
{
	struct rest rest = {.finding = fn, .space_id = UINT32_MAX};
	int rc = rest_open(&rest, opts, O_RDONLY, context, reterr);

	if (rc == 0)
		rc = rest_lock(&rest);
	if (rc == 0)
		rc = rest_super(&rest);
	if (rc == 0)
		rc = rest_ready(&rest);
	if (rc == 0)
		rc = rest_table(&rest);
	if (rc == 0)
		rc = check_super(&rest);
	if (rc == 0)
		rc = check_length(&rest);
	if (rc == 0)
		rc = check_spaces(&rest);
	for (uint32_t region = 0; rc == 0 && region < rest.super.layout.region_count; region++)
		rc = check_region(&rest, region);
	rest_close(&rest);
	return rc ? rc : rest.worst;
}
