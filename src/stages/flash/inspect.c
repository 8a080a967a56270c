/* SPDX-License-Identifier: Apache-2.0 */
/* A store at rest, told detail by detail: what it is, and one region record by record. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/nsdesc.h"
#include "stages/flash/rest.h"

struct inspect {
	struct rest rest;
	int (*fn)(void *context, const struct cairn_detail *detail);
	const char *item; /* of what is being told */
	uint64_t number;
	int stopped;
};

static void tell(struct inspect *inspect, const char *name, const char *text, uint64_t value)
{
	struct cairn_detail detail = {
		.stage = inspect->rest.opts->stage,
		.item = inspect->item,
		.number = inspect->number,
		.name = name,
		.text = text,
		.value = value,
	};

	if (!inspect->stopped)
		inspect->stopped = inspect->fn(inspect->rest.context, &detail);
}

static void tell_count(struct inspect *inspect, const char *name, uint64_t value)
{
	tell(inspect, name, NULL, value);
}

static void tell_hex(struct inspect *inspect, const char *name, const void *data, size_t bytes)
{
	const uint8_t *p = data;
	char text[65];

	for (size_t i = 0; i < bytes && i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", p[i]);
	tell(inspect, name, text, 0);
}

/* What the details that follow belong to. */
static void item(struct inspect *inspect, const char *name, uint64_t number)
{
	inspect->item = name;
	inspect->number = number;
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

static void tell_retired(struct inspect *inspect, const struct flash_super_found *found)
{
	char text[FLASH_RETIRED_MAX * sizeof("4294967295")] = "none";
	size_t used = 0;

	for (uint32_t i = 0; i < found->super.retired_count; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", i ? " " : "",
					 found->retired[i]);
	tell(inspect, "regions_retired", text, 0);
}

static void tell_super(struct inspect *inspect)
{
	const struct flash_super_found *found = &inspect->rest.super;
	const struct flash_super *super = &found->super;
	const struct flash_layout *layout = &found->layout;
	bool in_use = rest_in_use(&inspect->rest);

	item(inspect, "store", 0);
	tell_hex(inspect, "uuid", super->id.uuid, sizeof(super->id.uuid));
	tell_count(inspect, "version", super->version);
	tell_count(inspect, "bytes", layout->file_bytes);
	tell_count(inspect, "unit_bytes", layout->unit);
	tell_count(inspect, "regions", layout->region_count);
	tell_count(inspect, "region_bytes", layout->region_bytes);
	tell_count(inspect, "regions_at", layout->regions_offset);
	tell_count(inspect, "largest_shard_bytes", layout->stored_max);
	tell(inspect, "closed_cleanly", super->flags & FLASH_SUPER_CLEAN ? "yes" : "no", 0);
	tell(inspect, "durable_asked", super->flags & FLASH_SUPER_UNASKED ? "no" : "yes", 0);
	tell(inspect, "in_use", in_use ? "yes" : "no", 0);
	tell_count(inspect, "owner", in_use ? super->owner_pid : 0);
	tell_count(inspect, "superblocks_sound",
		   (found->copies[0] == FLASH_OK ? 1u : 0u) +
			   (found->copies[1] == FLASH_OK ? 1u : 0u));
	tell_count(inspect, "created_ns", super->created_ns);
	tell_count(inspect, "sequence_below", super->sequence);
	tell_count(inspect, "use_below", super->region_seq);
	tell_count(inspect, "epoch", super->epoch);
	tell_retired(inspect, found);
}

static int tell_regions(struct inspect *inspect)
{
	static const char *const names[] = {
		[FLASH_FOUND_UNUSED] = "regions_unused",
		[FLASH_FOUND_LOST] = "regions_lost",
		[FLASH_FOUND_UNREADABLE] = "regions_unreadable",
		[FLASH_FOUND_OPEN] = "regions_open",
		[FLASH_FOUND_SEALED] = "regions_sealed",
	};
	uint32_t count = inspect->rest.super.layout.region_count;
	uint64_t states[FLASH_FOUND_SEALED + 1] = {0}, records = 0;
	int rc = 0;

	for (uint32_t region = 0; rc == 0 && region < count; region++) {
		struct flash_region_found found;

		rc = flash_scan_region(&inspect->rest.scanner, region, 0, NULL, NULL, &found);
		states[found.state]++;
		records += found.records;
	}
	if (rc < 0)
		return rest_error(&inspect->rest, rc, "%s", strerror(-rc));
	for (uint32_t state = 0; state <= FLASH_FOUND_SEALED; state++)
		tell_count(inspect, names[state], states[state]);
	tell_count(inspect, "records", records); /* the dead among them */
	return 0;
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

		item(inspect, "namespace", entry.id);
		tell_count(inspect, "generation", entry.generation);
		tell(inspect, "model", known ? found.model : "?", 0);
		tell(inspect, "tenant", known ? found.tenant : "?", 0);
		tell_count(inspect, "shards", entry.shard_count);
		tell_count(inspect, "shard_bytes", entry.shard_bytes);
	}
}

/* ---- a region ---------------------------------------------------------------------------- */

static int tell_record(void *context, const struct flash_scanned *scanned)
{
	struct inspect *inspect = context;
	const struct flash_table_entry *entry = scanned->entry;
	uint8_t mark = inspect->rest.marks[scanned->number];

	item(inspect, "record", scanned->number);
	tell_count(inspect, "unit", entry->unit);
	tell_hex(inspect, "key", &entry->key, sizeof(entry->key));
	tell_count(inspect, "namespace", entry->space);
	tell_count(inspect, "generation", entry->generation);
	tell_count(inspect, "shard", entry->shard);
	tell_count(inspect, "shards", entry->shard_count);
	tell_count(inspect, "raw_bytes", entry->raw_length);
	tell_count(inspect, "stored_bytes", entry->stored_length);
	tell_count(inspect, "birth", entry->birth);
	tell_count(inspect, "expires_s", entry->expiry_s);
	tell_count(inspect, "mark", mark);
	tell(inspect, "state",
	     mark == FLASH_MARK_DEAD ? "dead"
	     : scanned->torn	     ? "torn"
				     : "live",
	     0);
	return inspect->stopped;
}

static int tell_region(struct inspect *inspect, uint32_t region)
{
	struct flash_scanner *scanner = &inspect->rest.scanner;
	const struct flash_layout *layout = &scanner->layout;
	struct flash_region_found found;
	struct flash_marks_found marks;
	int rc = 0;

	flash_scan_header(scanner, region, &found);
	if (found.state == FLASH_FOUND_OPEN) {
		flash_scan_marks(scanner, region, found.seq, layout->records_max,
				 inspect->rest.marks, NULL, &marks);
		rc = flash_scan_region(scanner, region, FLASH_SCAN_PAYLOAD | FLASH_SCAN_TORN,
				       tell_record, inspect, &found);
	}
	if (rc)
		return rc < 0 ? rest_error(&inspect->rest, rc, "%s", strerror(-rc)) : 0;
	item(inspect, "region", region);
	tell(inspect, "state", state_name(found.state), 0);
	tell_count(inspect, "at", flash_region_at(layout, region));
	tell_count(inspect, "first_unit", flash_region_unit(layout, region));
	tell_count(inspect, "last_unit", flash_trailer_unit(layout, region));
	tell(inspect, "retired", rest_retired(&inspect->rest, region) ? "yes" : "no", 0);
	if (found.state != FLASH_FOUND_OPEN && found.state != FLASH_FOUND_SEALED)
		return 0;
	tell_count(inspect, "use", found.seq);
	tell_count(inspect, "stream", found.stream);
	tell_count(inspect, "epoch", found.epoch);
	tell_count(inspect, "records", found.records);
	tell_count(inspect, "end_unit", found.next_unit);
	tell_count(inspect, "torn", found.torn);
	tell_count(inspect, "units_without_record", found.gap_units);
	tell(inspect, "table_sound",
	     found.state == FLASH_FOUND_SEALED && !found.table_lost ? "yes" : "no", 0);
	return 0;
}

int flash_rest_inspect(const struct flash_rest_opts *opts, uint64_t region,
		       int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		       struct cairn_error *reterr)
{
	struct inspect inspect = {.fn = fn};
	struct rest *rest = &inspect.rest;
	int rc = rest_open(rest, opts, O_RDONLY, context, reterr);

	if (rc == 0)
		rc = rest_super(rest);
	if (rc == 0)
		rc = rest_ready(rest);
	if (rc == 0 && region != CAIRN_INSPECT_STORE && region >= rest->super.layout.region_count)
		rc = rest_error(rest, -EINVAL, "there is no region %llu: 0 to %u",
				(unsigned long long)region, rest->super.layout.region_count - 1);
	if (rc == 0)
		tell_super(&inspect);
	if (rc == 0 && region == CAIRN_INSPECT_STORE) {
		rc = tell_regions(&inspect);
		tell_spaces(&inspect);
	} else if (rc == 0) {
		rc = tell_region(&inspect, (uint32_t)region);
	}
	rest_close(rest);
	return rc < 0 ? rc : inspect.stopped;
}
