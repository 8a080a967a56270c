/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a store at rest; list and identify.
 *
 * Invariants, numbered:
 *  1. Nothing that is found is trusted: counts and lengths were checked by the
 *     format's decoders before they are used here.
 *  2. A block is listed from shards of one birth, the highest that has a live
 *     shard, and only when all of them are there.
 */
#include "stages/flash/rest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "base/nsdesc.h"

int rest_error(const struct rest *rest, int code, const char *format, ...)
{
	struct cairn_error *reterr = rest->reterr;
	va_list args;
	int length;

	if (!reterr)
		return code;
	memset(reterr, 0, sizeof(*reterr));
	reterr->code = code;
	length = snprintf(reterr->text, sizeof(reterr->text), "flash: %s: ", rest->opts->path);
	if (length < 0 || (size_t)length >= sizeof(reterr->text))
		return code;
	va_start(args, format);
	vsnprintf(reterr->text + length, sizeof(reterr->text) - (size_t)length, format, args);
	va_end(args);
	return code;
}

/* ---- opening ----------------------------------------------------------------------- */

void rest_close(struct rest *rest)
{
	const struct sys *sys = rest->sys;
	void *memory[] = {rest->marks, rest->order, rest->texts, rest->table, rest->spaces.area};

	for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++)
		if (memory[i])
			sys->free(memory[i]);
	if (rest->records)
		sys->munmap(rest->records, rest->reserved_bytes);
	flash_scanner_fini(&rest->scanner);
	if (rest->fd >= 0)
		sys->close(rest->fd);
}

int rest_super(struct rest *rest)
{
	int rc = flash_scan_super(rest->sys, rest->fd, &rest->super);

	if (rc == -ENOENT)
		return rest_error(rest, rc, "there is no store here; look at path=");
	if (rc == -EPROTO)
		return rest_error(rest, rc,
				  "of a format version that this library does not know; it knows "
				  "%u",
				  FLASH_FORMAT);
	if (rc == -EBADMSG)
		return rest_error(rest, -EPROTO,
				  "neither copy of the superblock checks: not a flash store, or a "
				  "damaged one (cairn fsck --repair)");
	if (rc < 0)
		return rest_error(rest, rc, "the superblock could not be read: %s", strerror(-rc));
	/* Of two copies the lost one may have been the later one. */
	rest->clean = (rest->super.super.flags & FLASH_SUPER_CLEAN) &&
		      rest->super.copies[0] == FLASH_OK && rest->super.copies[1] == FLASH_OK;
	return 0;
}

int rest_open(struct rest *rest, const struct flash_rest_opts *opts, int access, void *context,
	      struct cairn_error *reterr)
{
	const struct sys *sys = opts->sys;
	int rc, flags = access | O_NONBLOCK;
	struct stat st;

	rest->opts = opts;
	rest->sys = sys;
	rest->context = context;
	rest->reterr = reterr;
	/* What is mounted is not written to. */
	if (access != O_RDONLY && sys->fstatat(AT_FDCWD, opts->path, &st, 0) == 0 &&
	    S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	rest->fd = sys->openat(AT_FDCWD, opts->path, flags, 0);
	if (rest->fd == -EBUSY)
		return rest_error(rest, rest->fd,
				  "in use: open as a store, mounted, or part of something");
	if (rest->fd < 0)
		return rest_error(rest, rest->fd, "%s", strerror(-rest->fd));
	rc = sys->fstat(rest->fd, &st);
	if (rc < 0)
		return rest_error(rest, rc, "%s", strerror(-rc));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return rest_error(rest, -EINVAL, "a file or a block device is needed");
	return 0;
}

/* What list and check need beyond the superblock. */
int rest_ready(struct rest *rest)
{
	int rc = flash_scanner_init(&rest->scanner, rest->sys, rest->fd, &rest->super);

	rest->marks = rest->sys->alloc(16, rest->super.layout.records_max);
	rest->texts = rest->sys->alloc(16, NSDESC_MAX);
	if (rc < 0 || !rest->marks || !rest->texts)
		return rest_error(rest, -ENOMEM, "no memory");
	rest->spaces_rc = flash_scan_spaces(&rest->scanner, &rest->spaces);
	if (rest->spaces_rc == -ENOMEM)
		return rest_error(rest, -ENOMEM, "no memory");
	if (rest->spaces_rc == -EPROTO)
		return rest_error(rest, -EPROTO,
				  "the namespaces are of a format version that this library does "
				  "not know; it knows %u",
				  FLASH_FORMAT);
	return 0;
}

bool rest_space(const struct rest *rest, uint32_t id, struct flash_space_entry *ret_entry,
		const void **ret_desc)
{
	uint32_t at = 0;

	while (rest->spaces.area && flash_space_next(rest->spaces.area, &at, ret_entry, ret_desc))
		if (ret_entry->id == id)
			return true;
	return false;
}

bool rest_retired(const struct rest *rest, uint32_t region)
{
	for (uint32_t i = 0; i < rest->super.super.retired_count; i++)
		if (rest->super.retired[i] == region)
			return true;
	return false;
}

/* ---- list ---------------------------------------------------------------------------------- */

static int gather(void *context, const struct flash_scanned *scanned)
{
	struct rest *rest = context;
	struct rest_record *record = &rest->records[rest->record_count];
	const struct flash_table_entry *entry = scanned->entry;

	if (rest->marks[scanned->number] == FLASH_MARK_DEAD)
		return 0;
	if (entry->expiry_s && entry->expiry_s <= rest->now_s)
		return 0;
	assert((rest->record_count + 1) * sizeof(*record) <= rest->reserved_bytes);
	record->entry = *entry;
	rest->record_count++;
	return 0;
}

static int gather_region(struct rest *rest, uint32_t region)
{
	struct flash_region_found found;
	struct flash_marks_found marks;
	size_t before = rest->record_count;
	int rc;

	flash_scan_header(&rest->scanner, region, &found);
	if (found.state == FLASH_FOUND_LOST || found.state == FLASH_FOUND_UNREADABLE)
		rest->missed++;
	if (found.state != FLASH_FOUND_OPEN)
		return 0;
	flash_scan_marks(&rest->scanner, region, found.seq, rest->super.layout.records_max,
			 rest->marks, NULL, &marks);
	rc = flash_scan_region(&rest->scanner, region, rest->clean ? 0 : FLASH_SCAN_PAYLOAD, gather,
			       rest, &found);
	for (size_t i = before; i < rest->record_count; i++)
		rest->records[i].seq = found.seq;
	rest->missed += marks.lost + found.torn + (found.unreadable || found.gap_units);
	return rc;
}

static int gather_all(struct rest *rest)
{
	const struct flash_layout *layout = &rest->super.layout;
	void *memory;
	int rc;

	rest->reserved_bytes =
		(size_t)layout->region_count * layout->records_max * sizeof(*rest->records);
	rc = sys_reserve(rest->sys, rest->reserved_bytes, &memory);
	if (rc < 0)
		return rest_error(rest, -ENOMEM, "no memory");
	rest->records = memory;
	rest->now_s = (uint32_t)(rest->sys->realtime_ns() / 1000000000u);
	for (uint32_t region = 0; region < layout->region_count; region++) {
		rc = gather_region(rest, region);
		if (rc < 0)
			return rest_error(rest, rc, "%s", strerror(-rc));
	}
	return 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* Blocks together, their highest birth first, then by shard, the latest written first. */
static int compare_records(const void *left, const void *right, void *context)
{
	const struct rest_record *records = context;
	const struct rest_record *a = &records[*(const uint32_t *)left];
	const struct rest_record *b = &records[*(const uint32_t *)right];
	int order = compare_u64(a->entry.space, b->entry.space);

	if (!order)
		order = memcmp(&a->entry.key, &b->entry.key, sizeof(a->entry.key));
	if (!order)
		order = compare_u64(a->entry.generation, b->entry.generation);
	if (!order)
		order = compare_u64(b->entry.birth, a->entry.birth);
	if (!order)
		order = compare_u64(a->entry.shard, b->entry.shard);
	return order ? order : compare_u64(b->seq, a->seq);
}

static bool same_block(const struct flash_table_entry *a, const struct flash_table_entry *b)
{
	return a->space == b->space && a->generation == b->generation &&
	       memcmp(&a->key, &b->key, sizeof(a->key)) == 0;
}

static const struct flash_table_entry *entry_at(const struct rest *rest, size_t at)
{
	return &rest->records[rest->order[at]].entry;
}

/* Adds up the records [from, to) of one block. False: it is not whole. Invariant 2. */
static bool block_whole(const struct rest *rest, size_t from, size_t to,
			struct cairn_listed *ret_listed)
{
	const struct flash_table_entry *first = entry_at(rest, from);
	uint32_t shard = 0;

	for (size_t at = from; at < to; at++) {
		const struct flash_table_entry *entry = entry_at(rest, at);

		if (entry->birth != first->birth || shard == first->shard_count)
			break;
		if (entry->shard < shard || entry->shard_count != first->shard_count ||
		    entry->shard_bytes != first->shard_bytes)
			continue; /* carried over: the later copy was there first */
		if (entry->shard != shard)
			return false;
		ret_listed->raw_bytes += entry->raw_length;
		ret_listed->stored_bytes += entry->stored_length;
		shard++;
	}
	ret_listed->key = first->key;
	ret_listed->namespace_id = first->space;
	ret_listed->generation = first->generation;
	ret_listed->shard_count = first->shard_count;
	ret_listed->sequence = first->birth;
	ret_listed->whole = 1;
	return shard == first->shard_count;
}

/* The namespace that the walk is in. */
struct listing {
	bool known, readable;
	struct flash_space_entry space;
	struct cairn_namespace_desc desc;
	int64_t count;
};

static void listing_enter(struct rest *rest, struct listing *listing, uint32_t id)
{
	const void *desc;

	listing->known = rest_space(rest, id, &listing->space, &desc);
	listing->readable = listing->known && nsdesc_decode(desc, listing->space.desc_length,
							    rest->texts, &listing->desc) == 0;
}

static int list_block(struct rest *rest, struct listing *listing, size_t from, size_t to)
{
	struct cairn_listed listed = {.stage = rest->opts->stage};
	const struct flash_table_entry *first = entry_at(rest, from);

	if (from == 0 || entry_at(rest, from - 1)->space != first->space)
		listing_enter(rest, listing, first->space);
	if (listing->known && listing->space.generation != first->generation)
		return 0; /* cleared */
	if (!block_whole(rest, from, to, &listed))
		return 0;
	if (listing->readable)
		listed.desc = &listing->desc;
	listing->count++;
	return rest->listed(rest->context, &listed);
}

static int64_t list_all(struct rest *rest)
{
	struct listing listing = {0};
	size_t from = 0;

	if (!rest->record_count)
		return 0;
	if (rest->record_count >= UINT32_MAX)
		return rest_error(rest, -EFBIG, "more records than can be listed");
	rest->order = rest->sys->alloc(16, rest->record_count * sizeof(*rest->order));
	if (!rest->order)
		return rest_error(rest, -ENOMEM, "no memory");
	for (size_t i = 0; i < rest->record_count; i++)
		rest->order[i] = (uint32_t)i;
	qsort_r(rest->order, rest->record_count, sizeof(*rest->order), compare_records,
		rest->records);
	while (from < rest->record_count) {
		size_t to = from + 1;
		int rc;

		while (to < rest->record_count &&
		       same_block(entry_at(rest, from), entry_at(rest, to)))
			to++;
		rc = list_block(rest, &listing, from, to);
		if (rc)
			return rc;
		from = to;
	}
	return listing.count;
}

int64_t flash_rest_list(const struct flash_rest_opts *opts,
			int (*fn)(void *context, const struct cairn_listed *block), void *context,
			uint64_t *ret_missed, struct cairn_error *reterr)
{
	struct rest rest = {.listed = fn};
	int64_t ret = rest_open(&rest, opts, O_RDONLY, context, reterr);

	if (ret == 0)
		ret = rest_super(&rest);
	if (ret == 0)
		ret = rest_ready(&rest);
	if (ret == 0) {
		rest.missed += rest.spaces_rc < 0;
		ret = gather_all(&rest);
	}
	if (ret == 0)
		ret = list_all(&rest);
	if (ret_missed)
		*ret_missed = rest.missed;
	rest_close(&rest);
	return ret;
}

/*
 * The lock tells, and is given back with the descriptor. What cannot be told, on a
 * file system without locks, counts as nobody.
 */
bool rest_in_use(const struct rest *rest)
{
	bool taken = rest->sys->flock(rest->fd, LOCK_SH | LOCK_NB) == -EAGAIN;

	if (!taken)
		rest->sys->flock(rest->fd, LOCK_UN);
	return taken;
}

int flash_rest_identify(const struct flash_rest_opts *opts, uint8_t ret_uuid[16],
			struct cairn_error *reterr)
{
	struct rest rest = {0};
	int rc = rest_open(&rest, opts, O_RDONLY, NULL, reterr);

	if (rc == 0)
		rc = rest_super(&rest);
	if (rc == 0)
		memcpy(ret_uuid, rest.super.super.id.uuid, sizeof(rest.super.super.id.uuid));
	if (rc == 0 && rest_in_use(&rest))
		rc = CAIRN_IN_USE;
	rest_close(&rest);
	return rc;
}
