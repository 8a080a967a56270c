/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants, numbered:
 *  1. window_at and window_bytes say what of the file lies in the buffer; whoever
 *     reads something else into it says so.
 *  2. Reads begin and end on units and stay within the region or area.
 *  3. A length is believed only after the CRC that covers it.
 *  4. What is read ahead is only what would be read anyway, in that order; without it
 *     all is the same, but slower.
 */
#include "stages/flash/scan.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "stages/flash/ahead.h"

#define HOP_BYTES  65536u /* read at once where payload is passed over */
#define SKIP_BYTES 4096u  /* passed over where nothing can be read; twice as much each time */

/* Once more where it fails: what is not read now is absent until the next open. */
static int read_twice(const struct sys *sys, int fd, void *buffer, size_t bytes, uint64_t at)
{
	int rc = sys_pread_full(sys, fd, buffer, bytes, (off_t)at);

	if (rc < 0)
		rc = sys_pread_full(sys, fd, buffer, bytes, (off_t)at);
	return rc == -ENODATA ? -EIO : rc; /* a file that was cut short: no worse, no better */
}

static bool zeros(const void *data, size_t bytes)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return false;
	return true;
}

/* ---- the superblock ------------------------------------------------------------- */

int flash_scan_super(const struct sys *sys, int fd, struct flash_super_found *ret_found)
{
	struct flash_super_page *page = sys->alloc(FLASH_PAGE, sizeof(*page));
	bool version = false, found = false, written = false, read = false;

	memset(ret_found, 0, sizeof(*ret_found));
	if (!page)
		return -ENOMEM;
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		enum flash_verdict *verdict = &ret_found->copies[copy];
		struct flash_layout layout;
		struct stat st;
		int rc = read_twice(sys, fd, page, FLASH_PAGE, flash_super_at(copy));

		*verdict = FLASH_DAMAGED;
		if (rc < 0) { /* a file that is too short was never written */
			written = written || sys->fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
				  st.st_size >= (off_t)(FLASH_COPIES * FLASH_PAGE);
			continue;
		}
		read = true;
		written = written || !zeros(page, FLASH_PAGE);
		ret_found->marked =
			ret_found->marked || memcmp(page->super.magic, FLASH_SUPER_MAGIC,
						    sizeof(page->super.magic)) == 0;
		*verdict = flash_super_page_decode(page, &layout);
		version = version || *verdict == FLASH_VERSION;
		if (*verdict != FLASH_OK ||
		    (found && page->super.counter < ret_found->super.counter))
			continue;
		ret_found->super = page->super;
		memcpy(ret_found->retired, page->retired, sizeof(page->retired));
		ret_found->layout = layout;
		found = true;
	}
	sys->free(page);
	if (version)
		return -EPROTO;
	if (found)
		return 0;
	if (!written)
		return -ENOENT;
	return read ? -EBADMSG : -EIO;
}

/* ---- the scanner and its window --------------------------------------------------- */

int flash_scanner_init(struct flash_scanner *scanner, const struct sys *sys, int fd,
		       const struct flash_super_found *super)
{
	memset(scanner, 0, sizeof(*scanner));
	scanner->sys = sys;
	scanner->fd = fd;
	scanner->layout = super->layout;
	scanner->id = super->super.id;
	/* What is kept of a window, and the next one behind it. */
	scanner->buffer = sys->alloc(FLASH_PAGE, 2 * (size_t)FLASH_SCAN_BYTES);
	scanner->marks = sys->alloc(FLASH_PAGE, FLASH_COPIES * FLASH_PAGE);
	if (!scanner->buffer || !scanner->marks) {
		flash_scanner_fini(scanner);
		return -ENOMEM;
	}
	scanner->buffer_bytes = 2 * (size_t)FLASH_SCAN_BYTES;
	return 0;
}

void flash_scanner_fini(struct flash_scanner *scanner)
{
	if (scanner->buffer)
		scanner->sys->free(scanner->buffer);
	if (scanner->marks)
		scanner->sys->free(scanner->marks);
	scanner->buffer = scanner->marks = NULL;
}

/* Reads @bytes at @at to @offset of the buffer. Invariant 1: the window is gone. */
static int read_plain(struct flash_scanner *scanner, uint64_t at, size_t bytes)
{
	assert(at % scanner->layout.unit == 0 && bytes % scanner->layout.unit == 0);
	assert(bytes <= scanner->buffer_bytes);
	scanner->window_bytes = 0;
	return read_twice(scanner->sys, scanner->fd, scanner->buffer, bytes, at);
}

/* The same, wherever it has been read ahead to; NULL: it cannot be read. */
static const uint8_t *read_at(struct flash_scanner *scanner, uint64_t at, size_t bytes)
{
	const uint8_t *ahead = scanner->ahead ? ahead_take(scanner->ahead, at, bytes) : NULL;

	if (ahead)
		return ahead;
	return read_plain(scanner, at, bytes) < 0 ? NULL : scanner->buffer;
}

static int buffer_grow(struct flash_scanner *scanner, size_t bytes)
{
	uint8_t *buffer;

	if (bytes <= scanner->buffer_bytes)
		return 0;
	bytes = (size_t)flash_round_up(bytes, FLASH_SCAN_BYTES);
	buffer = scanner->sys->alloc(FLASH_PAGE, bytes);
	if (!buffer)
		return -ENOMEM;
	scanner->sys->free(scanner->buffer);
	scanner->buffer = buffer;
	scanner->buffer_bytes = bytes;
	scanner->window_bytes = 0;
	return 0;
}

/* Up to @bytes at @at to @offset of the buffer, and the next ones wanted ahead. */
static bool window_read(struct flash_scanner *scanner, size_t offset, uint64_t at, size_t bytes,
			uint64_t end)
{
	struct ahead *ahead = scanner->ahead_windows ? scanner->ahead : NULL;
	const uint8_t *found = ahead ? ahead_take(ahead, at, bytes) : NULL;

	if (ahead && !found)
		ahead_forget(ahead);
	if (!found)
		scanner->ahead_to = at + bytes;
	if (found)
		memcpy(scanner->buffer + offset, found, bytes);
	else if (read_twice(scanner->sys, scanner->fd, scanner->buffer + offset, bytes, at) < 0)
		return false;
	if (!ahead)
		return true;
	ahead_give(ahead);
	while (scanner->ahead_to < end) {
		size_t next = FLASH_SCAN_BYTES < end - scanner->ahead_to
				      ? FLASH_SCAN_BYTES
				      : (size_t)(end - scanner->ahead_to);

		if (!ahead_want(ahead, scanner->ahead_to, next))
			break;
		scanner->ahead_to += next;
	}
	return true;
}

/*
 * @need bytes at @at, of which up to @more but none at @end or behind are read at
 * once; what of them is there already is kept. NULL: they cannot be read.
 */
static const uint8_t *window(struct flash_scanner *scanner, uint64_t at, size_t need, size_t more,
			     uint64_t end)
{
	uint64_t window_end = scanner->window_at + scanner->window_bytes;
	size_t kept = 0, bytes;

	assert(at + need <= end && need <= FLASH_SCAN_BYTES && more <= FLASH_SCAN_BYTES);
	if (at >= scanner->window_at && at + need <= window_end)
		return scanner->buffer + (at - scanner->window_at);
	if (at >= scanner->window_at && at < window_end) {
		kept = (size_t)(window_end - at);
		memmove(scanner->buffer, scanner->buffer + (at - scanner->window_at), kept);
	}
	bytes = more > need - kept ? more : need - kept;
	if (bytes > end - at - kept)
		bytes = (size_t)(end - at - kept);
	scanner->window_at = at;
	scanner->window_bytes = kept;
	if (!window_read(scanner, kept, at + kept, bytes, end)) {
		if (bytes == need - kept ||
		    read_twice(scanner->sys, scanner->fd, scanner->buffer + kept, need - kept,
			       at + kept) < 0)
			return NULL;
		bytes = need - kept;
	}
	scanner->window_bytes = kept + bytes;
	return scanner->buffer;
}

/* ---- namespaces ------------------------------------------------------------------ */

/* One copy, read as far as it says, into memory of its own. */
static int space_copy(struct flash_scanner *scanner, uint32_t copy, void **ret_area)
{
	uint64_t at = flash_space_at(&scanner->layout, copy);
	enum flash_verdict verdict = FLASH_DAMAGED;
	uint32_t bytes = 0;
	uint8_t *area;
	int rc = read_plain(scanner, at, FLASH_PAGE);

	*ret_area = NULL;
	if (rc < 0)
		return -EIO;
	if (zeros(scanner->buffer, FLASH_PAGE))
		return -ENOENT;
	if (flash_space_peek(scanner->buffer, FLASH_PAGE, scanner->layout.space_bytes, &scanner->id,
			     &bytes) != FLASH_OK)
		return -EBADMSG;
	bytes = (uint32_t)flash_round_up(bytes, FLASH_PAGE);
	area = scanner->sys->alloc(FLASH_PAGE, bytes);
	if (!area)
		return -ENOMEM;
	rc = read_twice(scanner->sys, scanner->fd, area, bytes, at);
	if (rc == 0)
		verdict = flash_space_decode(area, bytes, &scanner->id);
	if (rc == 0 && verdict == FLASH_OK) {
		*ret_area = area;
		return 0;
	}
	scanner->sys->free(area);
	if (rc < 0)
		return -EIO;
	return verdict == FLASH_VERSION ? -EPROTO : -EBADMSG;
}

/* Whether two sound copies say the same, whenever they were written. */
static bool space_same(const struct flash_space_head *a, const struct flash_space_head *b)
{
	return a->bytes == b->bytes && memcmp(a + 1, b + 1, a->bytes - sizeof(*a)) == 0;
}

int flash_scan_spaces(struct flash_scanner *scanner, struct flash_spaces_found *ret_found)
{
	/* Of two reasons the earlier one here is told. */
	static const int reasons[] = {-ENOMEM, -EPROTO, -EBADMSG, -EIO};
	struct flash_space_head *areas[FLASH_COPIES] = {NULL};
	int *codes = ret_found->copies;
	int rc = -ENOENT;
	uint32_t best;

	memset(ret_found, 0, sizeof(*ret_found));
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		void *area = NULL;

		codes[copy] = space_copy(scanner, copy, &area);
		areas[copy] = area;
	}
	for (size_t i = sizeof(reasons) / sizeof(reasons[0]); i-- > 0;)
		if (codes[0] == reasons[i] || codes[1] == reasons[i])
			rc = reasons[i];
	if ((areas[0] || areas[1]) && rc != -ENOMEM && rc != -EPROTO)
		rc = 0;
	best = !areas[0] || (areas[1] && areas[1]->counter > areas[0]->counter) ? 1 : 0;
	if (rc == 0) {
		ret_found->area = areas[best];
		ret_found->counter = areas[best]->counter;
		ret_found->single = !areas[1 - best] || !space_same(areas[0], areas[1]);
		areas[best] = NULL;
	}
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		if (areas[copy])
			scanner->sys->free(areas[copy]);
	return rc;
}

/* ---- the walk from head to head ---------------------------------------------------- */

struct walk {
	struct flash_scanner *scanner;
	uint32_t region, flags, salt;
	uint32_t end;	     /* unit behind which no record lies */
	bool lost;	     /* no head lay where one should: all that follows is read */
	uint32_t skip_units; /* to pass over next time that nothing can be read */
	flash_scan_fn *fn;
	void *context;
	struct flash_region_found *found;
};

/* Bytes of unit @unit of the walk's region, and what follows it. */
static const uint8_t *walk_window(const struct walk *walk, uint32_t unit, uint32_t units)
{
	const struct flash_layout *layout = &walk->scanner->layout;
	bool all = walk->lost || (walk->flags & FLASH_SCAN_PAYLOAD);

	return window(walk->scanner, flash_byte_of(layout, unit), (size_t)units * layout->unit,
		      all ? FLASH_SCAN_BYTES : HOP_BYTES, flash_byte_of(layout, walk->end));
}

/*
 * Whether a sound head lies at @unit: it is kept in the scanner. *ret_step:
 * units to go on by if not.
 */
static bool walk_head(struct walk *walk, uint32_t unit, struct flash_record *ret_record,
		      uint32_t *ret_step)
{
	struct flash_scanner *scanner = walk->scanner;
	const uint8_t *head = walk_window(walk, unit, 1);
	struct flash_record guess;
	uint32_t units;

	*ret_step = 1;
	if (!head) {
		walk->found->unreadable = true;
		*ret_step = walk->skip_units;
		walk->skip_units *= 2;
		return false;
	}
	walk->skip_units = SKIP_BYTES / scanner->layout.unit;
	memcpy(&guess, head, sizeof(guess));
	if (memcmp(guess.magic, FLASH_RECORD_MAGIC, sizeof(guess.magic)) != 0 ||
	    guess.stored_length > CAIRN_SHARD_BYTES_MAX)
		return false;
	units = flash_head_units(&scanner->layout, guess.stored_length);
	if ((uint64_t)unit + units > walk->end)
		return false;
	head = walk_window(walk, unit, units);
	if (!head ||
	    flash_record_decode(head, (size_t)units * scanner->layout.unit, &scanner->layout,
				walk->salt, walk->found->seq, unit, ret_record) != FLASH_OK)
		return false;
	memcpy(scanner->head, head, (size_t)units * scanner->layout.unit);
	return true;
}

/* Of the region that @unit lies in: nothing is read from there on. */
static uint64_t records_end(const struct flash_layout *layout, uint32_t unit)
{
	return flash_byte_of(layout, flash_trailer_unit(layout, flash_region_of(layout, unit)));
}

/* The payload behind the head that is kept in the scanner. */
static bool payload_sound(struct flash_scanner *scanner, const struct flash_record *record)
{
	const struct flash_layout *layout = &scanner->layout;
	uint32_t head_units = flash_head_units(layout, record->stored_length);
	uint64_t from = flash_byte_of(layout, record->unit + head_units);
	uint64_t end = records_end(layout, record->unit);

	for (uint32_t at = 0; at < record->stored_length; at += CAIRN_PIECE) {
		uint32_t left = record->stored_length - at;
		uint32_t bytes = left < CAIRN_PIECE ? left : CAIRN_PIECE;
		const uint8_t *piece =
			window(scanner, from + at, (size_t)flash_round_up(bytes, layout->unit),
			       FLASH_SCAN_BYTES, end);

		if (!piece ||
		    crc32c(0, piece, bytes) != flash_piece_crc(scanner->head, at / CAIRN_PIECE))
			return false;
	}
	return true;
}

/* Tells of a record that lies at its place with a sound head. */
static int walk_tell(const struct walk *walk, const struct flash_record *record)
{
	struct flash_region_found *found = walk->found;
	struct flash_table_entry entry;
	struct flash_scanned scanned = {.region = walk->region,
					.number = record->number,
					.entry = &entry,
					.record = record};

	if (record->number >= found->next_number)
		found->next_number = record->number + 1;
	if (record->sequence > found->sequence_max)
		found->sequence_max = record->sequence;
	if (walk->flags & FLASH_SCAN_PAYLOAD)
		scanned.torn = !payload_sound(walk->scanner, record);
	if (scanned.torn)
		found->torn++;
	else
		found->records++;
	if (!walk->fn || (scanned.torn && !(walk->flags & FLASH_SCAN_TORN)))
		return 0;
	flash_entry_of(record, &walk->scanner->id, &entry);
	return walk->fn(walk->context, &scanned);
}

static int walk_heads(struct walk *walk)
{
	const struct flash_layout *layout = &walk->scanner->layout;
	struct flash_region_found *found = walk->found;
	uint32_t unit = flash_first_unit(layout, walk->region);

	walk->skip_units = SKIP_BYTES / layout->unit;
	found->next_unit = unit;
	while (unit < walk->end) {
		struct flash_record record;
		uint32_t step;
		int rc;

		if (!walk_head(walk, unit, &record, &step)) {
			unit = walk->end - unit > step ? unit + step : walk->end;
			walk->lost = true;
			continue;
		}
		walk->lost = false;
		found->gap_units += unit - found->next_unit;
		rc = walk_tell(walk, &record);
		unit += flash_record_units(layout, record.stored_length);
		found->next_unit = unit;
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- regions ----------------------------------------------------------------------- */

/* A header of this store that is damaged, or nothing of ours. */
static enum flash_found lost_or_unused(const struct flash_region_head *head,
				       const struct flash_id *id)
{
	if (memcmp(head->id.uuid, id->uuid, sizeof(id->uuid)) == 0)
		return FLASH_FOUND_LOST;
	if (memcmp(head->magic, FLASH_REGION_MAGIC, sizeof(head->magic)) == 0 &&
	    flash_region_head_found(head, NULL) != FLASH_OK)
		return FLASH_FOUND_LOST;
	return FLASH_FOUND_UNUSED;
}

void flash_scan_header(struct flash_scanner *scanner, uint32_t region,
		       struct flash_region_found *ret_found)
{
	const struct flash_layout *layout = &scanner->layout;
	struct flash_region_head head;
	enum flash_verdict verdict;
	const uint8_t *bytes;

	assert(region < layout->region_count);
	memset(ret_found, 0, sizeof(*ret_found));
	bytes = read_at(scanner, flash_region_at(layout, region), layout->unit);
	if (!bytes) {
		ret_found->state = FLASH_FOUND_UNREADABLE;
		ret_found->unreadable = true;
		return;
	}
	memcpy(&head, bytes, sizeof(head));
	verdict = flash_region_head_decode(&head, &scanner->id, layout, region);
	if (verdict != FLASH_OK) {
		ret_found->state = lost_or_unused(&head, &scanner->id);
		ret_found->newer = verdict == FLASH_VERSION &&
				   memcmp(&head.id, &scanner->id, sizeof(head.id)) == 0;
		return;
	}
	ret_found->state = FLASH_FOUND_OPEN;
	ret_found->seq = head.seq;
	ret_found->created_ns = head.created_ns;
	ret_found->stream = head.stream;
	ret_found->epoch = head.epoch;
	ret_found->next_unit = flash_first_unit(layout, region);
}

void flash_scan_look(struct flash_scanner *scanner, uint32_t region,
		     struct flash_region_found *ret_found)
{
	const struct flash_layout *layout = &scanner->layout;
	uint64_t at = flash_byte_of(layout, flash_trailer_unit(layout, region));
	struct flash_trailer *trailer = &ret_found->trailer;
	enum flash_verdict verdict;
	const uint8_t *bytes;

	flash_scan_header(scanner, region, ret_found);
	if (ret_found->state != FLASH_FOUND_OPEN)
		return;
	bytes = read_at(scanner, at, layout->unit);
	if (!bytes) {
		ret_found->unreadable = true;
		return;
	}
	memcpy(trailer, bytes, sizeof(*trailer));
	verdict = flash_trailer_decode(trailer, layout, flash_salt(&scanner->id, ret_found->seq),
				       region, ret_found->seq);
	ret_found->newer = verdict == FLASH_VERSION;
	if (verdict != FLASH_OK) {
		ret_found->trailer_lost =
			trailer->seq == ret_found->seq && trailer->region == region;
		return;
	}
	ret_found->state = FLASH_FOUND_SEALED;
	ret_found->epoch = trailer->epoch;
	ret_found->sequence_max = trailer->sequence_max;
	ret_found->next_unit = trailer->records_end;
	ret_found->next_number = trailer->record_count;
}

/* Where the table lies, with what is left of its last unit. */
static uint64_t table_at(const struct flash_layout *layout, const struct flash_trailer *trailer,
			 size_t *ret_bytes)
{
	uint32_t from = flash_table_unit(layout, trailer->region, trailer->record_count);

	*ret_bytes = (size_t)(flash_trailer_unit(layout, trailer->region) - from) * layout->unit;
	return flash_byte_of(layout, from);
}

int flash_scan_table(struct flash_scanner *scanner, uint32_t region,
		     struct flash_region_found *found, const struct flash_table_entry **ret_table)
{
	const struct flash_layout *layout = &scanner->layout;
	const uint8_t *table;
	size_t bytes;
	uint64_t at = table_at(layout, &found->trailer, &bytes);
	int rc = buffer_grow(scanner, bytes);

	assert(found->state == FLASH_FOUND_SEALED && found->trailer.region == region);
	if (rc < 0)
		return rc;
	found->table_lost = true;
	table = read_at(scanner, at, bytes);
	found->unreadable = found->unreadable || !table;
	if (!table || flash_table_check(&found->trailer, table, bytes, layout,
					flash_salt(&scanner->id, found->seq)) != FLASH_OK)
		return -EBADMSG;
	found->table_lost = false;
	*ret_table = (const struct flash_table_entry *)(const void *)table;
	return 0;
}

static int table_tell(const struct walk *walk, const struct flash_table_entry *table,
		      uint32_t count)
{
	for (uint32_t number = 0; number < count; number++) {
		struct flash_table_entry entry = table[number];
		struct flash_scanned scanned = {
			.region = walk->region, .number = number, .entry = &entry};
		int rc;

		if (flash_entry_is_hole(&entry))
			continue;
		walk->found->records++;
		rc = walk->fn ? walk->fn(walk->context, &scanned) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

int flash_scan_rest(struct flash_scanner *scanner, uint32_t region, uint32_t flags,
		    flash_scan_fn *fn, void *context, struct flash_region_found *found)
{
	const struct flash_layout *layout = &scanner->layout;
	struct walk walk = {.scanner = scanner,
			    .region = region,
			    .flags = flags,
			    .fn = fn,
			    .context = context,
			    .found = found,
			    .salt = flash_salt(&scanner->id, found->seq)};
	const struct flash_table_entry *table;
	int rc = 0;

	if (found->state != FLASH_FOUND_OPEN && found->state != FLASH_FOUND_SEALED)
		return 0;
	walk.end = flash_trailer_unit(layout, region);
	if (found->state == FLASH_FOUND_OPEN)
		return walk_heads(&walk);
	walk.end = found->trailer.records_end;
	rc = flash_scan_table(scanner, region, found, &table);
	if (rc == -ENOMEM)
		return rc;
	if (rc == 0 && !(flags & FLASH_SCAN_HEADS)) {
		rc = table_tell(&walk, table, found->trailer.record_count);
	} else {
		rc = walk_heads(&walk);
		found->gap_units += walk.end - found->next_unit;
	}
	found->next_unit = found->trailer.records_end;
	found->next_number = found->trailer.record_count;
	return rc;
}

int flash_scan_region(struct flash_scanner *scanner, uint32_t region, uint32_t flags,
		      flash_scan_fn *fn, void *context, struct flash_region_found *ret_found)
{
	flash_scan_look(scanner, region, ret_found);
	return flash_scan_rest(scanner, region, flags, fn, context, ret_found);
}

/* ---- ahead ----------------------------------------------------------------------------- */

bool flash_scan_want_look(struct flash_scanner *scanner, uint32_t region)
{
	const struct flash_layout *layout = &scanner->layout;
	uint64_t trailer = flash_byte_of(layout, flash_trailer_unit(layout, region));

	if (!ahead_room(scanner->ahead, 2, layout->unit))
		return false;
	ahead_want(scanner->ahead, flash_region_at(layout, region), layout->unit);
	ahead_want(scanner->ahead, trailer, layout->unit);
	return true;
}

/* Of the pages of marks that @count records have, both copies. */
static size_t marks_bytes(uint32_t count)
{
	return (size_t)(count + FLASH_MARKS_PER_PAGE - 1) / FLASH_MARKS_PER_PAGE * FLASH_COPIES *
	       FLASH_PAGE;
}

bool flash_scan_want_table(struct flash_scanner *scanner, uint32_t region,
			   const struct flash_region_found *found)
{
	const struct flash_layout *layout = &scanner->layout;
	size_t bytes, marks = marks_bytes(found->trailer.record_count);
	uint64_t at = table_at(layout, &found->trailer, &bytes);

	if (!ahead_room(scanner->ahead, 2, bytes > marks ? bytes : marks))
		return false;
	ahead_want(scanner->ahead, at, bytes);
	ahead_want(scanner->ahead, flash_marks_at(layout, region, 0, 0), marks);
	return true;
}

/* ---- marks --------------------------------------------------------------------------- */

/* Whether @marks has a death that @other (NULL: none of this use) has not. */
static bool marks_single(const struct flash_marks *marks, const struct flash_marks *other)
{
	for (uint32_t i = 0; i < FLASH_MARKS_PER_PAGE; i++)
		if (marks->marks[i] == FLASH_MARK_DEAD &&
		    (!other || other->marks[i] != FLASH_MARK_DEAD))
			return true;
	return false;
}

/* The copy that counts, of the two in the buffer. NULL: none of this use. */
static const struct flash_marks *marks_choose(const uint8_t *copies, uint32_t salt, uint32_t region,
					      uint64_t seq, uint32_t page,
					      struct flash_marks_found *found)
{
	const struct flash_marks *best = NULL, *other = NULL;

	assert(copies);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		const struct flash_marks *marks = (const void *)(copies + copy * FLASH_PAGE);

		if (flash_marks_decode(marks, salt, region, seq, page) != FLASH_OK) {
			found->damaged += marks->region == region && marks->region_seq == seq;
			continue;
		}
		other = !best || marks->counter > best->counter ? best : marks;
		best = other == marks ? best : marks;
	}
	if (best && marks_single(best, other))
		found->single |= 1ull << (page % 64);
	return best;
}

/* Both copies of a page, into memory of their own; what cannot be read is zero. How many cannot. */
static uint32_t marks_read(struct flash_scanner *scanner, uint32_t region, uint32_t page)
{
	uint64_t at = flash_marks_at(&scanner->layout, region, page, 0);
	uint32_t unread = 0;

	if (read_twice(scanner->sys, scanner->fd, scanner->marks, FLASH_COPIES * FLASH_PAGE, at) ==
	    0)
		return 0;
	for (uint32_t copy = FLASH_COPIES; copy-- > 0;) {
		uint8_t *to = scanner->marks + copy * FLASH_PAGE;

		if (sys_pread_full(scanner->sys, scanner->fd, to, FLASH_PAGE,
				   (off_t)(at + copy * FLASH_PAGE)) == 0)
			continue;
		memset(to, 0, FLASH_PAGE);
		unread++;
	}
	return unread;
}

void flash_scan_marks(struct flash_scanner *scanner, uint32_t region, uint64_t seq, uint32_t count,
		      uint8_t *ret_marks, uint64_t *ret_counters,
		      struct flash_marks_found *ret_found)
{
	uint32_t salt = flash_salt(&scanner->id, seq);
	const uint8_t *ahead = NULL;

	assert(count <= scanner->layout.records_max);
	memset(ret_found, 0, sizeof(*ret_found));
	memset(ret_marks, FLASH_MARK_NONE, count);
	if (scanner->ahead && count)
		ahead = ahead_take(scanner->ahead, flash_marks_at(&scanner->layout, region, 0, 0),
				   marks_bytes(count));
	for (uint32_t page = 0; page * FLASH_MARKS_PER_PAGE < count; page++) {
		uint32_t from = page * FLASH_MARKS_PER_PAGE;
		uint32_t some =
			count - from < FLASH_MARKS_PER_PAGE ? count - from : FLASH_MARKS_PER_PAGE;
		uint32_t damaged = ret_found->damaged;
		uint32_t unread = ahead ? 0 : marks_read(scanner, region, page);
		const uint8_t *copies =
			ahead ? ahead + (size_t)page * FLASH_COPIES * FLASH_PAGE : scanner->marks;
		const struct flash_marks *marks =
			marks_choose(copies, salt, region, seq, page, ret_found);

		if (ret_counters)
			ret_counters[page] = marks ? marks->counter : 0;
		/*
		 * A crash leaves one, since the other is written while it is there to stay; and
		 * what cannot be read may be the later one.
		 */
		if (unread || (!marks && ret_found->damaged - damaged == FLASH_COPIES)) {
			memset(ret_marks + from, FLASH_MARK_DEAD, some);
			ret_found->next_number = from + some;
			ret_found->lost++;
			continue;
		}
		if (!marks)
			continue;
		memcpy(ret_marks + from, marks->marks, some);
		for (uint32_t i = 0; i < some; i++)
			if (marks->marks[i] != FLASH_MARK_NONE)
				ret_found->next_number = from + i + 1;
	}
}

/* ---- one record ------------------------------------------------------------------------ */

enum flash_check flash_scan_record(struct flash_scanner *scanner, uint64_t seq, uint32_t number,
				   const struct flash_table_entry *entry,
				   struct flash_record *ret_record)
{
	const struct flash_layout *layout = &scanner->layout;
	uint32_t units = flash_head_units(layout, entry->stored_length);
	uint64_t from = flash_byte_of(layout, entry->unit);
	uint64_t end = records_end(layout, entry->unit);
	size_t bytes = (size_t)units * layout->unit;
	const uint8_t *head = window(scanner, from, bytes, FLASH_SCAN_BYTES, end);
	struct flash_table_entry found;

	if (!head || flash_record_decode(head, bytes, layout, flash_salt(&scanner->id, seq), seq,
					 entry->unit, ret_record) != FLASH_OK)
		return FLASH_CHECK_NO_HEAD;
	flash_entry_of(ret_record, &scanner->id, &found);
	if (ret_record->number != number || memcmp(&found, entry, sizeof(found)) != 0)
		return FLASH_CHECK_OTHER;
	memcpy(scanner->head, head, bytes);
	return payload_sound(scanner, ret_record) ? FLASH_CHECK_SOUND : FLASH_CHECK_TORN;
}
