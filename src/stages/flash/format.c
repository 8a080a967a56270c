/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/format.h"

#include <assert.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/nsdesc.h"

/* ---- helpers ------------------------------------------------------------ */

static bool zeros(const void *data, size_t bytes)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return false;
	return true;
}

static bool magic_is(const char found[8], const char *magic)
{
	return memcmp(found, magic, 8) == 0;
}

/* ---- where everything lies ------------------------------------------------- */

static uint32_t space_bytes_for(uint64_t file_bytes)
{
	uint64_t bytes = file_bytes / 512;

	if (bytes < FLASH_SPACE_BYTES_MIN)
		bytes = FLASH_SPACE_BYTES_MIN;
	if (bytes > FLASH_SPACE_BYTES_MAX)
		bytes = FLASH_SPACE_BYTES_MAX;
	return (uint32_t)(bytes / FLASH_PAGE * FLASH_PAGE);
}

/* What of a region is not header, trailer and table is records of two units or more. */
static uint32_t records_max_for(uint32_t region_bytes, uint32_t unit)
{
	return (region_bytes - 2 * unit) / (2 * unit + (uint32_t)sizeof(struct flash_table_entry));
}

static uint64_t regions_offset_for(const struct flash_layout *layout, uint64_t region_count)
{
	uint64_t marks = region_count * layout->mark_pages * FLASH_COPIES * FLASH_PAGE;

	return flash_round_up(layout->marks_offset + marks, FLASH_REGION_ALIGN);
}

enum flash_layout_verdict flash_layout_init(struct flash_layout *layout, uint64_t file_bytes,
					    uint64_t region_bytes, uint32_t unit)
{
	uint64_t count, each;

	memset(layout, 0, sizeof(*layout));
	if (unit != FLASH_UNIT_MIN && unit != FLASH_UNIT_MAX)
		return FLASH_LAYOUT_UNIT;
	if (region_bytes < FLASH_REGION_BYTES_MIN || region_bytes > FLASH_REGION_BYTES_MAX ||
	    region_bytes % FLASH_REGION_ALIGN)
		return FLASH_LAYOUT_REGION;
	if (file_bytes / unit > UINT32_MAX)
		return FLASH_LAYOUT_LARGE;
	layout->file_bytes = file_bytes;
	layout->unit = unit;
	layout->unit_log2 = unit == FLASH_UNIT_MIN ? 9 : 12;
	layout->region_bytes = (uint32_t)region_bytes;
	layout->region_units = (uint32_t)region_bytes / unit;
	layout->records_max = records_max_for(layout->region_bytes, unit);
	layout->mark_pages =
		(layout->records_max + FLASH_MARKS_PER_PAGE - 1) / FLASH_MARKS_PER_PAGE;
	layout->space_bytes = space_bytes_for(file_bytes);
	layout->space_offset = FLASH_COPIES * FLASH_PAGE;
	layout->marks_offset = layout->space_offset + FLASH_COPIES * layout->space_bytes;
	if (file_bytes < layout->marks_offset)
		return FLASH_LAYOUT_SMALL;
	each = region_bytes + (uint64_t)layout->mark_pages * FLASH_COPIES * FLASH_PAGE;
	count = (file_bytes - layout->marks_offset) / each;
	while (count && regions_offset_for(layout, count) + count * region_bytes > file_bytes)
		count--; /* once: the alignment of the regions */
	if (count < FLASH_REGIONS_MIN)
		return FLASH_LAYOUT_SMALL;
	layout->region_count = (uint32_t)count;
	layout->regions_offset = regions_offset_for(layout, count);
	layout->first_unit = (uint32_t)(layout->regions_offset / unit);
	layout->stored_max = flash_stored_of_units(
		layout,
		layout->region_units - 2 - flash_units(layout, sizeof(struct flash_table_entry)));
	assert(layout->regions_offset + count * region_bytes <= file_bytes);
	return FLASH_LAYOUT_OK;
}

uint64_t flash_super_at(uint32_t copy)
{
	assert(copy < FLASH_COPIES);
	return (uint64_t)copy * FLASH_PAGE;
}

uint64_t flash_space_at(const struct flash_layout *layout, uint32_t copy)
{
	assert(copy < FLASH_COPIES);
	return layout->space_offset + (uint64_t)copy * layout->space_bytes;
}

uint64_t flash_marks_at(const struct flash_layout *layout, uint32_t region, uint32_t page,
			uint32_t copy)
{
	uint64_t pages = (uint64_t)region * layout->mark_pages + page;

	assert(region < layout->region_count && page < layout->mark_pages);
	assert(copy < FLASH_COPIES);
	return layout->marks_offset + (pages * FLASH_COPIES + copy) * FLASH_PAGE;
}

uint64_t flash_region_at(const struct flash_layout *layout, uint32_t region)
{
	assert(region < layout->region_count);
	return layout->regions_offset + (uint64_t)region * layout->region_bytes;
}

uint32_t flash_region_unit(const struct flash_layout *layout, uint32_t region)
{
	assert(region < layout->region_count);
	return layout->first_unit + region * layout->region_units;
}

uint32_t flash_first_unit(const struct flash_layout *layout, uint32_t region)
{
	return flash_region_unit(layout, region) + 1;
}

uint32_t flash_trailer_unit(const struct flash_layout *layout, uint32_t region)
{
	return flash_region_unit(layout, region) + layout->region_units - 1;
}

uint32_t flash_table_unit(const struct flash_layout *layout, uint32_t region, uint32_t record_count)
{
	uint64_t bytes = (uint64_t)record_count * sizeof(struct flash_table_entry);

	assert(record_count <= layout->records_max);
	return flash_trailer_unit(layout, region) - flash_units(layout, bytes);
}

uint32_t flash_region_of(const struct flash_layout *layout, uint32_t unit)
{
	uint32_t region;

	if (unit < layout->first_unit)
		return layout->region_count;
	region = (unit - layout->first_unit) / layout->region_units;
	return region < layout->region_count ? region : layout->region_count;
}

uint32_t flash_head_units(const struct flash_layout *layout, uint32_t stored_length)
{
	return flash_units(layout, sizeof(struct flash_record) +
					   flash_pieces(stored_length) * sizeof(uint32_t));
}

uint32_t flash_record_units(const struct flash_layout *layout, uint32_t stored_length)
{
	return flash_head_units(layout, stored_length) + flash_units(layout, stored_length);
}

uint32_t flash_stored_of_units(const struct flash_layout *layout, uint32_t units)
{
	for (uint32_t payload = units ? units - 1 : 0; payload; payload--) {
		uint64_t stored = (uint64_t)payload * layout->unit;

		if (stored > CAIRN_SHARD_BYTES_MAX) {
			stored = CAIRN_SHARD_BYTES_MAX;
			payload = flash_units(layout, stored);
		}
		if (flash_record_units(layout, (uint32_t)stored) <= units)
			return (uint32_t)stored;
	}
	return 0;
}

bool flash_fits(const struct flash_layout *layout, uint32_t region, uint32_t unit, uint32_t units,
		uint32_t number)
{
	assert(unit >= flash_first_unit(layout, region));
	if (number >= layout->records_max)
		return false;
	return (uint64_t)unit + units <= flash_table_unit(layout, region, number + 1);
}

/* ---- identity ---------------------------------------------------------------- */

uint32_t flash_salt(const struct flash_id *id, uint64_t region_seq)
{
	uint32_t crc = crc32c(0, id, sizeof(*id));

	return crc32c(crc, &region_seq, sizeof(region_seq));
}

/* The finaliser of splitmix64. */
static uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t flash_fingerprint(const struct cairn_key *key, uint32_t space, uint32_t generation,
			   const uint64_t seed[2])
{
	uint64_t s0 = scramble(seed[0]), s1 = scramble(seed[1] ^ s0), words[2], hash;

	memcpy(words, key->bytes, sizeof(words));
	hash = fold(words[0] ^ s0, words[1] ^ s1);
	hash = fold(hash ^ scramble((uint64_t)space << 32 | generation), scramble(s1) | 1);
	return hash ? hash : 1;
}

/* ---- the superblock -------------------------------------------------------------- */

void flash_super_init(struct flash_super *super, const struct flash_id *id,
		      const struct flash_layout *layout, uint64_t created_ns)
{
	memset(super, 0, sizeof(*super));
	super->id = *id;
	super->file_bytes = layout->file_bytes;
	super->space_offset = layout->space_offset;
	super->marks_offset = layout->marks_offset;
	super->regions_offset = layout->regions_offset;
	super->created_ns = created_ns;
	super->unit = layout->unit;
	super->region_bytes = layout->region_bytes;
	super->region_count = layout->region_count;
	super->space_bytes = layout->space_bytes;
	super->mark_pages = layout->mark_pages;
}

void flash_super_seal(struct flash_super *super)
{
	memcpy(super->magic, FLASH_SUPER_MAGIC, sizeof(super->magic));
	super->version = FLASH_FORMAT;
	super->crc = crc32c(0, super, offsetof(struct flash_super, crc));
	assert(flash_super_decode(super, NULL) == FLASH_OK);
}

enum flash_verdict flash_super_decode(const struct flash_super *super,
				      struct flash_layout *ret_layout)
{
	struct flash_layout layout;

	if (!magic_is(super->magic, FLASH_SUPER_MAGIC))
		return FLASH_DAMAGED;
	if (super->crc != crc32c(0, super, offsetof(struct flash_super, crc)))
		return FLASH_DAMAGED;
	if (super->version != FLASH_FORMAT || (super->flags & ~FLASH_SUPER_FLAGS_ALL))
		return FLASH_VERSION;
	if (super->zero_before || !zeros(super->zero, sizeof(super->zero)))
		return FLASH_VERSION;
	if (flash_layout_init(&layout, super->file_bytes, super->region_bytes, super->unit) !=
	    FLASH_LAYOUT_OK)
		return FLASH_DAMAGED;
	if (super->space_offset != layout.space_offset ||
	    super->marks_offset != layout.marks_offset ||
	    super->regions_offset != layout.regions_offset ||
	    super->region_count != layout.region_count ||
	    super->space_bytes != layout.space_bytes || super->mark_pages != layout.mark_pages)
		return FLASH_DAMAGED;
	if (super->retired_count > FLASH_RETIRED_MAX)
		return FLASH_DAMAGED;
	if (ret_layout)
		*ret_layout = layout;
	return FLASH_OK;
}

void flash_super_page_seal(struct flash_super_page *page)
{
	uint32_t count = page->super.retired_count;

	assert(count <= FLASH_RETIRED_MAX);
	memset(page->retired + count, 0, (FLASH_RETIRED_MAX - count) * sizeof(uint32_t));
	page->super.retired_crc = crc32c(0, page->retired, count * sizeof(uint32_t));
	flash_super_seal(&page->super);
}

enum flash_verdict flash_super_page_decode(const struct flash_super_page *page,
					   struct flash_layout *ret_layout)
{
	enum flash_verdict verdict = flash_super_decode(&page->super, ret_layout);
	uint32_t count = page->super.retired_count;

	if (verdict != FLASH_OK)
		return verdict;
	if (page->super.retired_crc != crc32c(0, page->retired, count * sizeof(uint32_t)))
		return FLASH_DAMAGED;
	for (uint32_t i = 0; i < count; i++)
		if (page->retired[i] >= page->super.region_count ||
		    (i && page->retired[i] <= page->retired[i - 1]))
			return FLASH_DAMAGED;
	return FLASH_OK;
}

/* ---- the namespace area ------------------------------------------------------------ */

#define SPACE_ALIGN 8u

uint32_t flash_space_entry_bytes(uint32_t desc_length)
{
	assert(desc_length <= NSDESC_MAX);
	return (uint32_t)(sizeof(struct flash_space_entry) +
			  flash_round_up(desc_length, SPACE_ALIGN));
}

void flash_space_begin(void *area, const struct flash_id *id, uint64_t counter)
{
	struct flash_space_head *head = area;

	assert((uintptr_t)area % SPACE_ALIGN == 0);
	memset(head, 0, sizeof(*head));
	memcpy(head->magic, FLASH_SPACE_MAGIC, sizeof(head->magic));
	head->version = FLASH_FORMAT;
	memcpy(head->uuid, id->uuid, sizeof(head->uuid));
	head->counter = counter;
	head->bytes = sizeof(*head);
}

bool flash_space_add(void *area, size_t area_bytes, const struct flash_space_entry *entry,
		     const void *desc)
{
	struct flash_space_head *head = area;
	uint32_t bytes = flash_space_entry_bytes(entry->desc_length);
	struct flash_space_entry *place;
	uint8_t *text;

	assert(entry->desc_length > 0 && entry->id < FLASH_SPACES_MAX);
	if ((uint64_t)head->bytes + bytes > area_bytes)
		return false;
	place = (void *)((uint8_t *)area + head->bytes);
	text = (uint8_t *)(place + 1);
	memset(place, 0, bytes);
	*place = *entry;
	place->zero = 0;
	memcpy(text, desc, entry->desc_length);
	head->bytes += bytes;
	head->count++;
	return true;
}

static uint32_t space_crc(const void *area, uint32_t bytes)
{
	uint32_t crc = crc32c(0, area, offsetof(struct flash_space_head, crc));

	return crc32c(crc, (const uint8_t *)area + sizeof(struct flash_space_head),
		      bytes - sizeof(struct flash_space_head));
}

uint32_t flash_space_seal(void *area)
{
	struct flash_space_head *head = area;
	uint32_t bytes = (uint32_t)flash_round_up(head->bytes, FLASH_PAGE);

	memset((uint8_t *)area + head->bytes, 0, bytes - head->bytes);
	head->crc = space_crc(area, head->bytes);
	return bytes;
}

enum flash_verdict flash_space_peek(const void *area, size_t bytes, uint32_t area_bytes,
				    const struct flash_id *id, uint32_t *ret_bytes)
{
	struct flash_space_head head;

	if (bytes < sizeof(head))
		return FLASH_DAMAGED;
	memcpy(&head, area, sizeof(head));
	if (!magic_is(head.magic, FLASH_SPACE_MAGIC) ||
	    memcmp(head.uuid, id->uuid, sizeof(head.uuid)) != 0)
		return FLASH_DAMAGED;
	if (head.bytes < sizeof(head) || head.bytes > area_bytes)
		return FLASH_DAMAGED;
	*ret_bytes = head.bytes;
	return FLASH_OK;
}

/* The entry at @at of an area of @bytes; false: it does not lie in it, or says nonsense. */
static bool space_entry_at(const uint8_t *area, uint32_t bytes, uint32_t at,
			   struct flash_space_entry *ret_entry)
{
	if (at > bytes || bytes - at < sizeof(*ret_entry))
		return false;
	memcpy(ret_entry, area + at, sizeof(*ret_entry));
	if (!ret_entry->desc_length || ret_entry->desc_length > NSDESC_MAX)
		return false;
	if (bytes - at < flash_space_entry_bytes(ret_entry->desc_length))
		return false;
	return ret_entry->id < FLASH_SPACES_MAX &&
	       ret_entry->shard_count <= CAIRN_SHARD_COUNT_MAX &&
	       ret_entry->shard_bytes <= CAIRN_SHARD_BYTES_MAX;
}

static enum flash_verdict space_entries_check(const uint8_t *area, uint32_t bytes, uint32_t count)
{
	uint32_t at = sizeof(struct flash_space_head), before = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct flash_space_entry entry;
		uint32_t end;

		if (!space_entry_at(area, bytes, at, &entry) || (i && entry.id <= before))
			return FLASH_DAMAGED;
		end = at + (uint32_t)sizeof(entry) + entry.desc_length;
		at += flash_space_entry_bytes(entry.desc_length);
		if (entry.zero || !zeros(area + end, at - end))
			return FLASH_VERSION;
		before = entry.id;
	}
	return at == bytes ? FLASH_OK : FLASH_DAMAGED;
}

enum flash_verdict flash_space_decode(const void *area, size_t bytes, const struct flash_id *id)
{
	uint32_t area_bytes =
		bytes < FLASH_SPACE_BYTES_MAX ? (uint32_t)bytes : FLASH_SPACE_BYTES_MAX;
	struct flash_space_head head;
	uint32_t used;

	if (flash_space_peek(area, bytes, area_bytes, id, &used) != FLASH_OK)
		return FLASH_DAMAGED;
	memcpy(&head, area, sizeof(head));
	if (head.crc != space_crc(area, used))
		return FLASH_DAMAGED;
	if (head.version != FLASH_FORMAT || !zeros(head.zero, sizeof(head.zero)))
		return FLASH_VERSION;
	return space_entries_check(area, used, head.count);
}

bool flash_space_next(const void *area, uint32_t *at, struct flash_space_entry *ret_entry,
		      const void **ret_desc)
{
	struct flash_space_head head;

	memcpy(&head, area, sizeof(head));
	if (!*at)
		*at = sizeof(head);
	if (*at >= head.bytes || !space_entry_at(area, head.bytes, *at, ret_entry))
		return false;
	*ret_desc = (const uint8_t *)area + *at + sizeof(*ret_entry);
	*at += flash_space_entry_bytes(ret_entry->desc_length);
	return true;
}

/* ---- marks ---------------------------------------------------------------------------- */

static uint32_t marks_crc(const struct flash_marks *marks, uint32_t salt)
{
	uint32_t crc = crc32c(salt, marks, offsetof(struct flash_marks, crc));

	return crc32c(crc, marks->marks, sizeof(marks->marks));
}

void flash_marks_seal(struct flash_marks *marks, uint32_t salt)
{
	memcpy(marks->magic, FLASH_MARKS_MAGIC, sizeof(marks->magic));
	marks->version = FLASH_FORMAT;
	memset(marks->zero, 0, sizeof(marks->zero));
	marks->crc = marks_crc(marks, salt);
}

enum flash_verdict flash_marks_decode(const struct flash_marks *marks, uint32_t salt,
				      uint32_t region, uint64_t region_seq, uint32_t page)
{
	if (!magic_is(marks->magic, FLASH_MARKS_MAGIC) || marks->crc != marks_crc(marks, salt))
		return FLASH_DAMAGED;
	if (marks->version != FLASH_FORMAT || !zeros(marks->zero, sizeof(marks->zero)))
		return FLASH_VERSION;
	if (marks->region != region || marks->region_seq != region_seq || marks->page != page)
		return FLASH_DAMAGED;
	return FLASH_OK;
}

/* ---- regions ------------------------------------------------------------------------------ */

void flash_region_head_init(struct flash_region_head *head, const struct flash_super *super,
			    uint32_t region, uint64_t seq, uint32_t stream, uint32_t epoch,
			    uint64_t created_ns)
{
	assert(region < super->region_count);
	assert(stream < FLASH_STREAMS);
	memset(head, 0, sizeof(*head));
	memcpy(head->magic, FLASH_REGION_MAGIC, sizeof(head->magic));
	head->version = FLASH_FORMAT;
	head->id = super->id;
	head->seq = seq;
	head->file_bytes = super->file_bytes;
	head->store_created_ns = super->created_ns;
	head->created_ns = created_ns;
	head->unit = super->unit;
	head->region_bytes = super->region_bytes;
	head->region = region;
	head->stream = stream;
	head->epoch = epoch;
	head->crc = crc32c(0, head, offsetof(struct flash_region_head, crc));
}

enum flash_verdict flash_region_head_found(const struct flash_region_head *head,
					   struct flash_layout *ret_layout)
{
	struct flash_layout layout;

	if (!magic_is(head->magic, FLASH_REGION_MAGIC))
		return FLASH_DAMAGED;
	if (head->crc != crc32c(0, head, offsetof(struct flash_region_head, crc)))
		return FLASH_DAMAGED;
	if (head->version != FLASH_FORMAT || head->flags || !zeros(head->zero, sizeof(head->zero)))
		return FLASH_VERSION;
	if (flash_layout_init(&layout, head->file_bytes, head->region_bytes, head->unit) !=
	    FLASH_LAYOUT_OK)
		return FLASH_DAMAGED;
	if (head->region >= layout.region_count || head->stream >= FLASH_STREAMS)
		return FLASH_DAMAGED;
	if (ret_layout)
		*ret_layout = layout;
	return FLASH_OK;
}

enum flash_verdict flash_region_head_decode(const struct flash_region_head *head,
					    const struct flash_id *id,
					    const struct flash_layout *layout, uint32_t region)
{
	enum flash_verdict verdict = flash_region_head_found(head, NULL);

	if (verdict != FLASH_OK)
		return verdict;
	if (memcmp(&head->id, id, sizeof(*id)) != 0 || head->region != region)
		return FLASH_DAMAGED;
	if (head->file_bytes != layout->file_bytes || head->unit != layout->unit ||
	    head->region_bytes != layout->region_bytes)
		return FLASH_DAMAGED;
	return FLASH_OK;
}

void flash_trailer_seal(struct flash_trailer *trailer, const struct flash_table_entry *table,
			uint32_t salt)
{
	memcpy(trailer->magic, FLASH_TRAILER_MAGIC, sizeof(trailer->magic));
	trailer->version = FLASH_FORMAT;
	trailer->table_bytes = trailer->record_count * (uint32_t)sizeof(*table);
	trailer->table_crc = crc32c(salt, table, trailer->table_bytes);
	trailer->zero32 = 0;
	memset(trailer->zero, 0, sizeof(trailer->zero));
	trailer->crc = crc32c(salt, trailer, offsetof(struct flash_trailer, crc));
}

enum flash_verdict flash_trailer_decode(const struct flash_trailer *trailer,
					const struct flash_layout *layout, uint32_t salt,
					uint32_t region, uint64_t seq)
{
	if (!magic_is(trailer->magic, FLASH_TRAILER_MAGIC))
		return FLASH_DAMAGED;
	if (trailer->crc != crc32c(salt, trailer, offsetof(struct flash_trailer, crc)))
		return FLASH_DAMAGED;
	if (trailer->version != FLASH_FORMAT || trailer->zero32 ||
	    !zeros(trailer->zero, sizeof(trailer->zero)))
		return FLASH_VERSION;
	if (trailer->region != region || trailer->seq != seq)
		return FLASH_DAMAGED;
	if (trailer->record_count > layout->records_max ||
	    trailer->table_bytes != trailer->record_count * sizeof(struct flash_table_entry))
		return FLASH_DAMAGED;
	if (trailer->records_end < flash_first_unit(layout, region) ||
	    trailer->records_end > flash_table_unit(layout, region, trailer->record_count))
		return FLASH_DAMAGED;
	return FLASH_OK;
}

bool flash_entry_is_hole(const struct flash_table_entry *entry)
{
	return zeros(entry, sizeof(*entry));
}

static bool entry_sound(const struct flash_table_entry *entry, const struct flash_layout *layout,
			uint32_t first_unit, uint32_t end_unit)
{
	if (entry->shard_count < 1 || entry->shard_count > CAIRN_SHARD_COUNT_MAX ||
	    entry->shard >= entry->shard_count)
		return false;
	if (entry->shard_bytes < 1 || entry->shard_bytes > CAIRN_SHARD_BYTES_MAX ||
	    entry->raw_length > entry->shard_bytes)
		return false;
	if (entry->shard + 1u < entry->shard_count && entry->raw_length != entry->shard_bytes)
		return false;
	if (entry->stored_length < 1 || entry->stored_length > entry->raw_length)
		return false;
	if (entry->space >= FLASH_SPACES_MAX || entry->unit < first_unit)
		return false;
	return (uint64_t)entry->unit + flash_record_units(layout, entry->stored_length) <= end_unit;
}

bool flash_entry_check(const struct flash_table_entry *entry, const struct flash_layout *layout,
		       uint32_t region)
{
	assert(region < layout->region_count);
	return entry_sound(entry, layout, flash_first_unit(layout, region),
			   flash_table_unit(layout, region, 1));
}

enum flash_verdict flash_table_check(const struct flash_trailer *trailer, const void *table,
				     size_t bytes, const struct flash_layout *layout, uint32_t salt)
{
	uint32_t first = flash_first_unit(layout, trailer->region);
	uint32_t end = flash_table_unit(layout, trailer->region, 1);
	const uint8_t *at = table;

	if (bytes < trailer->table_bytes ||
	    trailer->table_bytes != trailer->record_count * sizeof(struct flash_table_entry))
		return FLASH_DAMAGED;
	if (trailer->table_crc != crc32c(salt, table, trailer->table_bytes))
		return FLASH_DAMAGED;
	end = end < trailer->records_end ? end : trailer->records_end;
	for (uint32_t i = 0; i < trailer->record_count;
	     i++, at += sizeof(struct flash_table_entry)) {
		struct flash_table_entry entry;

		memcpy(&entry, at, sizeof(entry));
		if (!entry_sound(&entry, layout, first, end) && !flash_entry_is_hole(&entry))
			return FLASH_DAMAGED;
	}
	return FLASH_OK;
}

/* ---- records --------------------------------------------------------------------------- */

static uint32_t record_crc(const void *head, size_t head_bytes, uint32_t salt)
{
	uint32_t crc = crc32c(salt, head, offsetof(struct flash_record, crc));

	return crc32c(crc, (const uint8_t *)head + sizeof(struct flash_record),
		      head_bytes - sizeof(struct flash_record));
}

void flash_record_seal(void *head, const struct flash_layout *layout, uint32_t salt)
{
	struct flash_record *record = head;
	size_t bytes = (size_t)flash_head_units(layout, record->stored_length) * layout->unit;
	size_t used = sizeof(*record) + flash_pieces(record->stored_length) * sizeof(uint32_t);

	assert(record->stored_length >= 1 && record->stored_length <= record->raw_length);
	assert(record->meta_length <= CAIRN_META_MAX);
	memcpy(record->magic, FLASH_RECORD_MAGIC, sizeof(record->magic));
	record->version = FLASH_FORMAT;
	memset(record->meta + record->meta_length, 0, CAIRN_META_MAX - record->meta_length);
	memset(record->zero, 0, sizeof(record->zero));
	memset((uint8_t *)head + used, 0, bytes - used);
	record->crc = record_crc(head, bytes, salt);
}

/* Seed left out: what is checked is the rest. */
static void entry_fill(const struct flash_record *record, struct flash_table_entry *ret_entry)
{
	*ret_entry = (struct flash_table_entry){
		.key = record->key,
		.birth = record->birth,
		.unit = record->unit,
		.stored_length = record->stored_length,
		.raw_length = record->raw_length,
		.shard_bytes = record->shard_bytes,
		.shard = record->shard,
		.shard_count = record->shard_count,
		.space = record->space,
		.generation = record->generation,
		.expiry_s = record->expiry_s,
	};
}

static bool record_fields_check(const struct flash_record *record,
				const struct flash_layout *layout)
{
	uint32_t region = flash_region_of(layout, record->unit);
	struct flash_table_entry entry;

	if (region == layout->region_count || record->number >= layout->records_max)
		return false;
	if (record->meta_length > CAIRN_META_MAX)
		return false;
	entry_fill(record, &entry);
	return flash_entry_check(&entry, layout, region);
}

enum flash_verdict flash_record_decode(const void *head, size_t bytes,
				       const struct flash_layout *layout, uint32_t salt,
				       uint64_t region_seq, uint32_t unit,
				       struct flash_record *ret_record)
{
	struct flash_record record;
	size_t head_bytes;

	if (bytes < sizeof(record))
		return FLASH_DAMAGED;
	memcpy(&record, head, sizeof(record));
	if (!magic_is(record.magic, FLASH_RECORD_MAGIC))
		return FLASH_DAMAGED;
	if (record.stored_length < 1 || record.stored_length > CAIRN_SHARD_BYTES_MAX)
		return FLASH_DAMAGED;
	head_bytes = (size_t)flash_head_units(layout, record.stored_length) * layout->unit;
	if (bytes < head_bytes || record.crc != record_crc(head, head_bytes, salt))
		return FLASH_DAMAGED;
	if (record.version != FLASH_FORMAT || (record.flags & ~FLASH_RECORD_FLAGS_ALL) ||
	    !zeros(record.zero, sizeof(record.zero)))
		return FLASH_VERSION;
	if (record.region_seq != region_seq || record.unit != unit)
		return FLASH_DAMAGED;
	if (!record_fields_check(&record, layout))
		return FLASH_DAMAGED;
	if (ret_record)
		*ret_record = record;
	return FLASH_OK;
}

uint32_t flash_piece_crc(const void *head, uint32_t piece)
{
	uint32_t crc;

	memcpy(&crc, (const uint8_t *)head + sizeof(struct flash_record) + piece * sizeof(crc),
	       sizeof(crc));
	return crc;
}

void flash_entry_of(const struct flash_record *record, const struct flash_id *id,
		    struct flash_table_entry *ret_entry)
{
	entry_fill(record, ret_entry);
	if (!zeros(&record->parent, sizeof(record->parent)))
		ret_entry->parent = flash_fingerprint(&record->parent, record->space,
						      record->generation, id->seed);
}
