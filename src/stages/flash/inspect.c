/* SPDX-License-Identifier: Apache-2.0 */
/* A store at rest, in lines for people: what it is, and one region record by record. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/nsdesc.h"
#include "stages/flash/rest.h"

struct inspect {
	struct rest rest;
	flash_rest_line_fn *fn;
	void *context;
	int stopped;
};

__attribute__((format(printf, 2, 3))) static void tell(struct inspect *inspect, const char *format,
						       ...)
{
	char line[512];
	va_list args;

	if (inspect->stopped)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	inspect->stopped = inspect->fn(inspect->context, line);
}

static int inspect_open(struct inspect *inspect, const struct flash_rest_opts *opts,
			struct cairn_error *reterr)
{
	int rc = rest_open(&inspect->rest, opts, O_RDONLY, NULL, reterr);

	if (rc == 0)
		rc = rest_super(&inspect->rest);
	if (rc == 0)
		rc = rest_ready(&inspect->rest);
	return rc;
}

static void hex(const void *data, size_t bytes, char *ret_text)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < bytes; i++)
		snprintf(ret_text + 2 * i, 3, "%02x", p[i]);
}

static unsigned long long ull(uint64_t value)
{
	return value;
}

static const char *state_name(enum flash_found state)
{
	static const char *const names[] = {
		[FLASH_FOUND_UNUSED] = "unused",	 [FLASH_FOUND_LOST] = "lost",
		[FLASH_FOUND_UNREADABLE] = "unreadable", [FLASH_FOUND_OPEN] = "open",
		[FLASH_FOUND_SEALED] = "sealed",
	};

	return names[state];
}

/* ---- the store ------------------------------------------------------------------------- */

static void tell_super(struct inspect *inspect)
{
	const struct flash_super *super = &inspect->rest.super.super;
	const struct flash_layout *layout = &inspect->rest.super.layout;
	char uuid[33];

	hex(super->id.uuid, sizeof(super->id.uuid), uuid);
	tell(inspect, "uuid: %s", uuid);
	tell(inspect, "size: %llu bytes, unit %u", ull(layout->file_bytes), layout->unit);
	tell(inspect, "regions: %u of %u bytes, the first one at byte %llu", layout->region_count,
	     layout->region_bytes, ull(layout->regions_offset));
	tell(inspect, "largest shard: %u bytes stored", layout->stored_max);
	if (inspect->rest.clean)
		tell(inspect, "closed cleanly");
	else
		tell(inspect, "not closed; last opened by process %u", super->owner_pid);
	tell(inspect, "sequence: below %llu, uses of regions below %llu, epoch %u",
	     ull(super->sequence), ull(super->region_seq), super->epoch);
}

static void tell_spaces(struct inspect *inspect)
{
	struct rest *rest = &inspect->rest;
	struct flash_space_entry entry;
	const void *desc;
	uint32_t at = 0;

	while (rest->spaces.area && flash_space_next(rest->spaces.area, &at, &entry, &desc)) {
		struct cairn_namespace_desc found;
		bool known = nsdesc_decode(desc, entry.desc_length, rest->texts, &found) == 0;

		tell(inspect, "namespace %u: generation %u, model %.100s, tenant %.100s", entry.id,
		     entry.generation, known ? found.model : "?", known ? found.tenant : "?");
	}
}

int flash_rest_info(const struct flash_rest_opts *opts, flash_rest_line_fn *fn, void *context,
		    struct cairn_error *reterr)
{
	struct inspect inspect = {.fn = fn, .context = context};
	uint32_t states[FLASH_FOUND_SEALED + 1] = {0};
	uint64_t records = 0;
	int rc = inspect_open(&inspect, opts, reterr);

	if (rc == 0) {
		tell_super(&inspect);
		tell_spaces(&inspect);
	}
	for (uint32_t region = 0; rc == 0 && region < inspect.rest.super.layout.region_count;
	     region++) {
		struct flash_region_found found;

		rc = flash_scan_region(&inspect.rest.scanner, region, 0, NULL, NULL, &found);
		states[found.state]++;
		records += found.records;
	}
	if (rc == 0)
		tell(&inspect, "records: %llu, the dead among them", ull(records));
	for (uint32_t state = 0; rc == 0 && state <= FLASH_FOUND_SEALED; state++)
		if (states[state])
			tell(&inspect, "regions %s: %u", state_name((enum flash_found)state),
			     states[state]);
	rest_close(&inspect.rest);
	return rc < 0 ? rc : inspect.stopped;
}

/* ---- a region ---------------------------------------------------------------------------- */

static int tell_record(void *context, const struct flash_scanned *scanned)
{
	struct inspect *inspect = context;
	const struct flash_table_entry *entry = scanned->entry;
	uint8_t mark = inspect->rest.marks[scanned->number];
	char key[33], used[32] = "";

	hex(&entry->key, sizeof(entry->key), key);
	if (mark != FLASH_MARK_NONE && mark != FLASH_MARK_DEAD)
		snprintf(used, sizeof(used), " used %u", mark);
	tell(inspect,
	     "%u: unit %u key %s namespace %u.%u shard %u/%u raw %u stored %u birth %llu%s%s%s",
	     scanned->number, entry->unit, key, entry->space, entry->generation, entry->shard,
	     entry->shard_count, entry->raw_length, entry->stored_length, ull(entry->birth), used,
	     mark == FLASH_MARK_DEAD ? " dead" : "", scanned->torn ? " torn" : "");
	return inspect->stopped;
}

static int tell_region(struct inspect *inspect, uint32_t region)
{
	struct flash_scanner *scanner = &inspect->rest.scanner;
	const struct flash_layout *layout = &scanner->layout;
	struct flash_region_found found;
	struct flash_marks_found marks;
	int rc;

	flash_scan_header(scanner, region, &found);
	if (found.state == FLASH_FOUND_OPEN) {
		flash_scan_marks(scanner, region, found.seq, layout->records_max,
				 inspect->rest.marks, NULL, &marks);
		rc = flash_scan_region(scanner, region, FLASH_SCAN_PAYLOAD | FLASH_SCAN_TORN,
				       tell_record, inspect, &found);
		if (rc)
			return rc;
	}
	tell(inspect, "region %u: %s, at byte %llu, units %u to %u", region,
	     state_name(found.state), ull(flash_region_at(layout, region)),
	     flash_region_unit(layout, region), flash_trailer_unit(layout, region));
	if (found.state != FLASH_FOUND_OPEN && found.state != FLASH_FOUND_SEALED)
		return 0;
	tell(inspect, "use %llu, stream %u, epoch %u, records %u, up to unit %u", ull(found.seq),
	     found.stream, found.epoch, found.records, found.next_unit);
	if (found.torn || found.gap_units)
		tell(inspect, "torn records %u, units without a record %u", found.torn,
		     found.gap_units);
	if (found.table_lost || found.trailer_lost)
		tell(inspect, "its table does not check");
	return 0;
}

int flash_rest_dump_region(const struct flash_rest_opts *opts, uint32_t region,
			   flash_rest_line_fn *fn, void *context, struct cairn_error *reterr)
{
	struct inspect inspect = {.fn = fn, .context = context};
	int rc = inspect_open(&inspect, opts, reterr);

	if (rc == 0 && region >= inspect.rest.super.layout.region_count)
		rc = rest_error(&inspect.rest, -EINVAL, "there is no region %u: 0 to %u", region,
				inspect.rest.super.layout.region_count - 1);
	if (rc == 0)
		rc = tell_region(&inspect, region);
	rest_close(&inspect.rest);
	return rc < 0 ? rc : inspect.stopped;
}
