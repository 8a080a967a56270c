/* SPDX-License-Identifier: Apache-2.0 */
/* The flash tier's bytes: what is damaged is seen, what is documented is so. */
#include "flash_image.h"

#define SMALL_BYTES  (1u << 20)
#define SMALL_REGION 65536u

static struct image image;

static int setup(void **state)
{
	(void)state;
	image_new(&image, SMALL_BYTES, SMALL_REGION, 512);
	image_open(&image, 1, 42);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	image_free(&image);
	return 0;
}

typedef enum flash_verdict verdict_fn(void);

/* That each bit of @bytes at @data counts, as @fn sees them. */
static void every_bit(void *data, size_t bytes, verdict_fn *fn)
{
	uint8_t *p = data;

	assert_int_equal(fn(), FLASH_OK);
	for (size_t bit = 0; bit < bytes * 8; bit++) {
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (fn() == FLASH_OK)
			fail_msg("bit %zu of byte %zu makes no difference", bit % 8, bit / 8);
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(fn(), FLASH_OK);
}

/* ---- the superblock ------------------------------------------------------------------ */

static struct flash_super super;

static enum flash_verdict super_verdict(void)
{
	return flash_super_decode(&super, NULL);
}

static void super_reseal(void)
{
	super.crc = crc32c(0, &super, offsetof(struct flash_super, crc));
}

static struct flash_super_page page;

static enum flash_verdict page_verdict(void)
{
	return flash_super_page_decode(&page, NULL);
}

static void retired_regions(void **state)
{
	(void)state;
	memset(&page, 0xa5, sizeof(page));
	page.super = image.super;
	page.super.retired_count = 3;
	for (uint32_t i = 0; i < 3; i++)
		page.retired[i] = i * 2;
	flash_super_page_seal(&page);
	assert_int_equal(page.retired[3], 0);
	every_bit(&page, sizeof(page.super) + 3 * sizeof(uint32_t), page_verdict);
	page.retired[1] = page.retired[0]; /* twice */
	flash_super_page_seal(&page);
	assert_int_equal(page_verdict(), FLASH_DAMAGED);
	page.retired[1] = 2;
	page.retired[2] = page.super.region_count; /* there is none */
	flash_super_page_seal(&page);
	assert_int_equal(page_verdict(), FLASH_DAMAGED);
	page.super.retired_count = FLASH_RETIRED_MAX + 1;
	page.super.crc = crc32c(0, &page.super, offsetof(struct flash_super, crc));
	assert_int_equal(page_verdict(), FLASH_DAMAGED);
}

static void superblocks(void **state)
{
	struct flash_layout layout;

	(void)state;
	super = image.super;
	every_bit(&super, sizeof(super), super_verdict);
	assert_int_equal(flash_super_decode(&super, &layout), FLASH_OK);
	assert_memory_equal(&layout, &image.layout, sizeof(layout));
	super.version++;
	super_reseal();
	assert_int_equal(super_verdict(), FLASH_VERSION);
	super = image.super;
	super.flags |= 0x80;
	super_reseal();
	assert_int_equal(super_verdict(), FLASH_VERSION);
	super = image.super;
	super.zero[7] = 1;
	super_reseal();
	assert_int_equal(super_verdict(), FLASH_VERSION);
	/* Sound, and contradicts itself. */
	super = image.super;
	super.region_count++;
	super_reseal();
	assert_int_equal(super_verdict(), FLASH_DAMAGED);
	super = image.super;
	super.unit = 513;
	super_reseal();
	assert_int_equal(super_verdict(), FLASH_DAMAGED);
}

/* ---- namespaces ------------------------------------------------------------------------ */

static uint8_t *area;
static size_t area_used;

static enum flash_verdict area_verdict(void)
{
	return flash_space_decode(area, area_used, &image.super.id);
}

static void namespaces(void **state)
{
	struct flash_space_entry entry;
	struct flash_id other = image.super.id;
	char texts[NSDESC_MAX];
	const void *desc;
	uint32_t at = 0, count = 0, bytes;

	(void)state;
	image_spaces(&image, 3, 9, 4);
	area = image.bytes + flash_space_at(&image.layout, 0);
	assert_int_equal(flash_space_peek(area, FLASH_PAGE, image.layout.space_bytes,
					  &image.super.id, &bytes),
			 FLASH_OK);
	area_used = bytes;
	every_bit(area, bytes, area_verdict);
	while (flash_space_next(area, &at, &entry, &desc)) {
		struct cairn_namespace_desc found;
		char model[16];

		assert_int_equal(entry.id, count);
		assert_int_equal(entry.generation, 9);
		assert_int_equal(nsdesc_decode(desc, entry.desc_length, texts, &found), 0);
		snprintf(model, sizeof(model), "model-%u", count++);
		assert_string_equal(found.model, model);
	}
	assert_int_equal(count, 3);
	for (area_used = 0; area_used < bytes; area_used++) {
		uint8_t *piece = malloc(area_used + !area_used), *whole = area;

		memcpy(piece, whole, area_used);
		area = piece;
		assert_int_equal(area_verdict(), FLASH_DAMAGED);
		area = whole;
		free(piece);
	}
	other.uuid[3]++;
	assert_int_equal(flash_space_decode(area, bytes, &other), FLASH_DAMAGED);
}

static void namespaces_need_room(void **state)
{
	static uint8_t small[FLASH_PAGE] __attribute__((aligned(8)));
	struct flash_space_entry entry = {.desc_length = 1000};
	static const uint8_t desc[1000] = {1};

	(void)state;
	flash_space_begin(small, &image.super.id, 1);
	for (entry.id = 0; flash_space_add(small, sizeof(small), &entry, desc);)
		entry.id++;
	assert_int_equal(entry.id, 3);
	assert_int_equal(flash_space_seal(small), FLASH_PAGE);
	assert_int_equal(flash_space_decode(small, sizeof(small), &image.super.id), FLASH_OK);
	/* An id twice, under a right checksum. */
	flash_space_begin(small, &image.super.id, 1);
	entry.id = 5;
	assert_true(flash_space_add(small, sizeof(small), &entry, desc));
	assert_true(flash_space_add(small, sizeof(small), &entry, desc));
	flash_space_seal(small);
	assert_int_equal(flash_space_decode(small, sizeof(small), &image.super.id), FLASH_DAMAGED);
}

/* ---- marks ------------------------------------------------------------------------------- */

static const struct flash_marks *marks;

static enum flash_verdict marks_verdict(void)
{
	return flash_marks_decode(marks, image_salt(&image, 1), 1, 42, 0);
}

static void mark_pages(void **state)
{
	uint32_t salt = image_salt(&image, 1);

	(void)state;
	image_mark(&image, 1, 17, FLASH_MARK_DEAD, 1);
	marks = (void *)(image.bytes + flash_marks_at(&image.layout, 1, 0, 1));
	every_bit(image.bytes + flash_marks_at(&image.layout, 1, 0, 1), sizeof(*marks),
		  marks_verdict);
	assert_int_equal(marks->marks[17], FLASH_MARK_DEAD);
	assert_int_equal(flash_marks_decode(marks, salt, 2, 42, 0), FLASH_DAMAGED);
	assert_int_equal(flash_marks_decode(marks, salt, 1, 42, 1), FLASH_DAMAGED);
	assert_int_equal(flash_marks_decode(marks, salt + 1, 1, 42, 0), FLASH_DAMAGED);
	assert_int_equal(flash_mark_of(0), 1);
	assert_int_equal(flash_mark_of(252), 253);
	assert_int_equal(flash_mark_of(253), 1);
}

/* ---- regions ------------------------------------------------------------------------------ */

static enum flash_verdict header_verdict(void)
{
	return flash_region_head_decode((void *)(image.bytes + flash_region_at(&image.layout, 1)),
					&image.super.id, &image.layout, 1);
}

static void region_headers(void **state)
{
	const struct flash_region_head *head =
		(void *)(image.bytes + flash_region_at(&image.layout, 1));
	struct flash_id other = image.super.id;
	struct flash_layout layout;

	(void)state;
	every_bit(image.bytes + flash_region_at(&image.layout, 1), sizeof(*head), header_verdict);
	assert_int_equal(flash_region_head_decode(head, &image.super.id, &image.layout, 2),
			 FLASH_DAMAGED);
	other.seed[1]++;
	assert_int_equal(flash_region_head_decode(head, &other, &image.layout, 1), FLASH_DAMAGED);
	/* Enough to find the rest of the store. */
	assert_int_equal(flash_region_head_found(head, &layout), FLASH_OK);
	assert_memory_equal(&layout, &image.layout, sizeof(layout));
}

static const struct flash_trailer *trailer;

static enum flash_verdict trailer_verdict(void)
{
	return flash_trailer_decode(trailer, &image.layout, image_salt(&image, 1), 1, 42);
}

static enum flash_verdict table_verdict(void)
{
	return flash_table_check(trailer, image_at(&image, flash_table_unit(&image.layout, 1, 3)),
				 3 * sizeof(struct flash_table_entry), &image.layout,
				 image_salt(&image, 1));
}

static void tables_and_trailers(void **state)
{
	struct image_region *region = &image.regions[1];

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		image_record(&image, 1, &(struct image_record){.block = i, .parent = i});
	image_seal(&image, 1);
	trailer = (void *)image_at(&image, flash_trailer_unit(&image.layout, 1));
	every_bit(image_at(&image, flash_trailer_unit(&image.layout, 1)), sizeof(*trailer),
		  trailer_verdict);
	every_bit(image_at(&image, flash_table_unit(&image.layout, 1, 3)),
		  3 * sizeof(struct flash_table_entry), table_verdict);
	assert_int_equal(flash_trailer_decode(trailer, &image.layout, image_salt(&image, 1), 1, 43),
			 FLASH_DAMAGED);
	assert_int_equal(flash_trailer_decode(trailer, &image.layout, image_salt(&image, 1), 2, 42),
			 FLASH_DAMAGED);
	assert_int_equal(flash_table_check(trailer, region->table, 191, &image.layout,
					   image_salt(&image, 1)),
			 FLASH_DAMAGED);
	/* A hole is fine; an entry that lies elsewhere is not, though the checksum is right. */
	memset(&region->table[1], 0, sizeof(region->table[1]));
	image_seal(&image, 1);
	assert_int_equal(table_verdict(), FLASH_OK);
	assert_true(flash_entry_is_hole(&region->table[1]));
	region->table[1] = region->table[0];
	region->table[1].unit = flash_trailer_unit(&image.layout, 1) - 3;
	image_seal(&image, 1);
	assert_int_equal(table_verdict(), FLASH_DAMAGED);
}

static void entries_have_bounds(void **state)
{
	struct flash_table_entry entry, good;

	(void)state;
	image_record(&image, 1, &(struct image_record){.block = 1, .shard_count = 3});
	good = image.regions[1].table[0];
	assert_true(flash_entry_check(&good, &image.layout, 1));
	assert_false(flash_entry_check(&good, &image.layout, 0));
	assert_false(flash_entry_check(&good, &image.layout, 2));
#define WITHOUT(field, value)                                                                      \
	do {                                                                                       \
		entry = good;                                                                      \
		entry.field = (value);                                                             \
		assert_false(flash_entry_check(&entry, &image.layout, 1));                         \
	} while (0)
	WITHOUT(shard, 3);
	WITHOUT(shard_count, 0);
	WITHOUT(shard_count, 1025);
	WITHOUT(shard_bytes, 0);
	WITHOUT(shard_bytes, 5001); /* not the last: as long as all */
	WITHOUT(shard_bytes, (64u << 20) + 1);
	WITHOUT(raw_length, 4999);
	WITHOUT(stored_length, 0);
	WITHOUT(stored_length, 5001);
	WITHOUT(space, FLASH_SPACES_MAX);
	WITHOUT(unit, flash_region_unit(&image.layout, 1));
	WITHOUT(unit, UINT32_MAX);
	WITHOUT(unit, flash_table_unit(&image.layout, 1, 1) - 10);
#undef WITHOUT
	entry = good;
	entry.unit = flash_table_unit(&image.layout, 1, 1) - 11;
	assert_true(flash_entry_check(&entry, &image.layout, 1));
	entry = good;
	entry.shard = 2;
	entry.raw_length = entry.stored_length = 1;
	assert_true(flash_entry_check(&entry, &image.layout, 1));
}

/* ---- records ----------------------------------------------------------------------------- */

static uint8_t *head;
static size_t head_bytes;
static uint32_t head_unit;

static enum flash_verdict head_verdict(void)
{
	return flash_record_decode(head, head_bytes, &image.layout, image_salt(&image, 1), 42,
				   head_unit, NULL);
}

static void record_reseal(void)
{
	struct flash_record *record = (void *)head;
	uint32_t crc = crc32c(image_salt(&image, 1), head, offsetof(struct flash_record, crc));

	record->crc = crc32c(crc, head + sizeof(*record), head_bytes - sizeof(*record));
}

static void record_heads(void **state)
{
	struct flash_record record;

	(void)state;
	image_record(&image, 1, &(struct image_record){.block = 3, .stored_length = 3000});
	head_unit = image.regions[1].unit;
	image_record(&image, 1, &(struct image_record){.block = 4, .stored_length = 4000});
	head = image_at(&image, head_unit);
	head_bytes = (size_t)flash_head_units(&image.layout, 4000) * 512;
	assert_int_equal(head_bytes, 512);
	every_bit(head, head_bytes, head_verdict);
	assert_int_equal(flash_record_decode(head, head_bytes, &image.layout, image_salt(&image, 1),
					     42, head_unit, &record),
			 FLASH_OK);
	assert_int_equal(record.number, 1);
	assert_int_equal(record.stored_length, 4000);
	/* Elsewhere, of another use, of another store. */
	assert_int_equal(flash_record_decode(head, head_bytes, &image.layout, image_salt(&image, 1),
					     42, head_unit + 1, NULL),
			 FLASH_DAMAGED);
	assert_int_equal(flash_record_decode(head, head_bytes, &image.layout, image_salt(&image, 1),
					     43, head_unit, NULL),
			 FLASH_DAMAGED);
	assert_int_equal(flash_record_decode(head, head_bytes, &image.layout,
					     image_salt(&image, 1) ^ 1, 42, head_unit, NULL),
			 FLASH_DAMAGED);
	for (size_t bytes = 0; bytes < head_bytes; bytes++) {
		uint8_t *piece = malloc(bytes + !bytes);

		memcpy(piece, head, bytes);
		assert_int_equal(flash_record_decode(piece, bytes, &image.layout,
						     image_salt(&image, 1), 42, head_unit, NULL),
				 FLASH_DAMAGED);
		free(piece);
	}
}

static void records_of_other_versions(void **state)
{
	struct flash_record *record;

	(void)state;
	head_unit = image.regions[1].unit;
	head = image_at(&image, head_unit);
	head_bytes = 512;
	record = (void *)head;
	image_record(&image, 1, &(struct image_record){.block = 4});
	record->version++;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_VERSION);
	record->version--;
	record->flags = 0x80;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_VERSION);
	record->flags = FLASH_RECORD_CARRIED;
	record->zero[43] = 1;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_VERSION);
	record->zero[43] = 0;
	record->meta_length = CAIRN_META_MAX + 1;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_DAMAGED);
	record->meta_length = 0;
	record->number = image.layout.records_max;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_DAMAGED);
	record->number--;
	record_reseal();
	assert_int_equal(head_verdict(), FLASH_OK);
}

static void piece_checksums(void **state)
{
	struct image big;
	struct image_record spec = {.block = 9, .shard_bytes = 20 * CAIRN_PIECE + 1};

	(void)state;
	image_new(&big, 16u << 20, 2u << 20, 4096);
	image_open(&big, 0, 1);
	image_record(&big, 0, &spec);
	head = image_at(&big, flash_first_unit(&big.layout, 0));
	assert_int_equal(flash_pieces(spec.shard_bytes), 21);
	assert_int_equal(flash_head_units(&big.layout, spec.shard_bytes), 1);
	assert_int_equal(flash_record_units(&big.layout, spec.shard_bytes), 1 + 20 * 16 + 1);
	for (uint32_t piece = 0; piece < 21; piece++)
		assert_int_equal(
			flash_piece_crc(head, piece),
			crc32c(0, head + 4096 + piece * CAIRN_PIECE, piece < 20 ? CAIRN_PIECE : 1));
	image_free(&big);
}

/* ---- where everything lies --------------------------------------------------------------- */

static void layout_is_sound(const struct flash_layout *layout)
{
	uint32_t last = layout->region_count - 1;
	uint64_t end = flash_region_at(layout, last) + layout->region_bytes;

	assert_true(layout->region_count >= FLASH_REGIONS_MIN);
	assert_int_equal(flash_space_at(layout, 0), 8192);
	assert_int_equal(flash_space_at(layout, 1) + layout->space_bytes, layout->marks_offset);
	assert_true(flash_marks_at(layout, last, layout->mark_pages - 1, 1) + FLASH_PAGE <=
		    layout->regions_offset);
	assert_int_equal(layout->regions_offset % FLASH_REGION_ALIGN, 0);
	assert_true(end <= layout->file_bytes);
	/* Nothing that would be a region more is left. */
	assert_true(layout->file_bytes - end < layout->region_bytes + FLASH_REGION_ALIGN +
						       2ull * FLASH_PAGE * layout->mark_pages);
	assert_true(layout->records_max <= layout->mark_pages * FLASH_MARKS_PER_PAGE);
	/* Regions of records of the smallest size, and of one as large as can be. */
	assert_true(flash_first_unit(layout, last) + 2ull * layout->records_max <=
		    flash_table_unit(layout, last, layout->records_max));
	assert_true(flash_fits(layout, last, flash_first_unit(layout, last),
			       flash_record_units(layout, layout->stored_max), 0));
	if (layout->stored_max < CAIRN_SHARD_BYTES_MAX)
		assert_false(flash_fits(layout, last, flash_first_unit(layout, last),
					flash_record_units(layout, layout->stored_max + 1), 0));
	assert_int_equal(flash_region_of(layout, flash_trailer_unit(layout, last)), last);
	assert_int_equal(flash_region_of(layout, flash_region_unit(layout, last)), last);
	assert_int_equal(flash_region_of(layout, flash_region_unit(layout, 0) - 1),
			 layout->region_count);
}

static void layouts(void **state)
{
	static const uint64_t files[] = {1u << 20,    (1u << 20) + 4096, 64u << 20,
					 1000000000u, 200ull << 30,	 (2ull << 40) - 512};
	struct flash_layout layout;
	uint32_t fine = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		for (uint64_t region = 65536; region <= 1u << 30; region *= 4)
			for (uint32_t unit = 512; unit <= 4096; unit *= 8) {
				enum flash_layout_verdict verdict =
					flash_layout_init(&layout, files[i], region, unit);

				if (verdict == FLASH_LAYOUT_SMALL)
					continue;
				assert_int_equal(verdict, FLASH_LAYOUT_OK);
				layout_is_sound(&layout);
				fine++;
			}
	assert_true(fine >= 30);
	assert_int_equal(flash_layout_init(&layout, 200ull << 30, 32u << 20, 512), FLASH_LAYOUT_OK);
	assert_int_equal(layout.region_count, 6387);
	assert_int_equal(layout.mark_pages, 8);
	assert_int_equal(layout.space_bytes, 4u << 20);
}

static void layouts_refused(void **state)
{
	struct flash_layout layout;

	(void)state;
	assert_int_equal(flash_layout_init(&layout, 1u << 30, 1u << 20, 1024), FLASH_LAYOUT_UNIT);
	assert_int_equal(flash_layout_init(&layout, 1u << 30, 65535, 512), FLASH_LAYOUT_REGION);
	assert_int_equal(flash_layout_init(&layout, 1u << 30, 100000, 512), FLASH_LAYOUT_REGION);
	assert_int_equal(flash_layout_init(&layout, 1ull << 40, (1ull << 30) + 65536, 512),
			 FLASH_LAYOUT_REGION);
	assert_int_equal(flash_layout_init(&layout, 1ull << 40, 1ull << 33, 512),
			 FLASH_LAYOUT_REGION);
	assert_int_equal(flash_layout_init(&layout, 2ull << 40, 32u << 20, 512),
			 FLASH_LAYOUT_LARGE);
	assert_int_equal(flash_layout_init(&layout, 2ull << 40, 32u << 20, 4096), FLASH_LAYOUT_OK);
	assert_int_equal(flash_layout_init(&layout, 0, 65536, 512), FLASH_LAYOUT_SMALL);
	assert_int_equal(flash_layout_init(&layout, 5u << 20, 1u << 20, 512), FLASH_LAYOUT_SMALL);
	assert_int_equal(flash_layout_init(&layout, UINT64_MAX, 65536, 4096), FLASH_LAYOUT_LARGE);
}

static void lengths_and_units(void **state)
{
	(void)state;
	for (uint32_t stored = 1; stored < 200000; stored += stored < 2000 ? 1 : 997) {
		uint32_t units = flash_record_units(&image.layout, stored);

		assert_true(flash_stored_of_units(&image.layout, units) >= stored);
		assert_true(flash_stored_of_units(&image.layout, units - 1) < stored);
	}
	assert_int_equal(flash_stored_of_units(&image.layout, 0), 0);
	assert_int_equal(flash_stored_of_units(&image.layout, 1), 0);
	assert_int_equal(flash_stored_of_units(&image.layout, UINT32_MAX), CAIRN_SHARD_BYTES_MAX);
	assert_int_equal(flash_head_units(&image.layout, CAIRN_SHARD_BYTES_MAX), 9);
	assert_true(FLASH_HEAD_BYTES_MAX == 256 + 4096);
}

static void fingerprints(void **state)
{
	static const uint64_t seed[2] = {5, 6}, other[2] = {5, 7};
	struct cairn_key key = image_key(1);
	uint64_t print = flash_fingerprint(&key, 0, 0, seed);

	(void)state;
	assert_true(print == flash_fingerprint(&key, 0, 0, seed));
	assert_true(print != flash_fingerprint(&key, 1, 0, seed));
	assert_true(print != flash_fingerprint(&key, 0, 1, seed));
	assert_true(print != flash_fingerprint(&key, 0, 0, other));
	for (uint32_t bit = 0; bit < 128; bit++) {
		struct cairn_key near = key;

		near.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(print != flash_fingerprint(&near, 0, 0, seed));
	}
}

/* ---- docs/format.md ------------------------------------------------------------------ */

/* The region that the document shows: sealed, of one record, "hello cairn". */
static void documented(void)
{
	struct flash_record record = {.birth = 7, .sequence = 7, .shard_count = 1};
	static const char payload[] = "hello cairn";
	struct image_region *region = &image.regions[0];
	uint8_t *place;
	uint32_t crc = crc32c(0, payload, 11);

	image_open(&image, 0, 1);
	for (uint32_t i = 0; i < 16; i++)
		record.key.bytes[i] = (uint8_t)(0xa0 + i);
	record.region_seq = 1;
	record.unit = region->unit;
	record.shard_bytes = record.raw_length = record.stored_length = 11;
	record.created_ns = IMAGE_TIME_NS;
	place = image_at(&image, region->unit);
	memcpy(place, &record, sizeof(record));
	memcpy(place + sizeof(record), &crc, sizeof(crc));
	flash_record_seal(place, &image.layout, image_salt(&image, 0));
	memcpy(place + 512, payload, 11);
	flash_entry_of(&record, &image.super.id, &region->table[0]);
	region->number = 1;
	region->unit += 2;
	image_seal(&image, 0);
}

static size_t dump(const uint8_t *bytes, size_t count, char *text, size_t text_bytes)
{
	size_t used = 0;

	for (size_t row = 0; row < count; row += 16) {
		bool empty = true;

		for (size_t i = 0; i < 16; i++)
			empty = empty && !bytes[row + i];
		if (empty)
			continue;
		used += (size_t)snprintf(text + used, text_bytes - used, "%08zx ", row);
		for (size_t i = 0; i < 16; i++)
			used += (size_t)snprintf(text + used, text_bytes - used, " %02x",
						 bytes[row + i]);
		used += (size_t)snprintf(text + used, text_bytes - used, "\n");
	}
	return used;
}

static void the_document_is_right(void **state)
{
	const char *path = getenv("FORMAT_MD");
	static char text[32768];
	char line[256];
	FILE *document = path ? fopen(path, "r") : NULL;
	bool inside = false;
	size_t used, at = 0;

	(void)state;
	if (!document)
		fail_msg("FORMAT_MD must name docs/format.md");
	documented();
	used = dump(image.bytes + flash_region_at(&image.layout, 0), SMALL_REGION, text,
		    sizeof(text));
	if (getenv("FORMAT_PRINT"))
		fprintf(stderr, "at %llx\n%s",
			(unsigned long long)flash_region_at(&image.layout, 0), text);
	while (fgets(line, sizeof(line), document)) {
		if (strcmp(line, "```hexdump flash\n") == 0) {
			inside = true;
			continue;
		}
		if (inside && strncmp(line, "```", 3) == 0)
			break;
		if (!inside)
			continue;
		assert_true(at + strlen(line) <= used);
		assert_memory_equal(text + at, line, strlen(line));
		at += strlen(line);
	}
	fclose(document);
	assert_int_equal(at, used);
}

/* A field of a struct, as the document has it in a row of a table. */
struct field {
	size_t at, bytes;
};
#define FIELD(type, name)                                                                          \
	{                                                                                          \
		offsetof(type, name), sizeof(((type *)0)->name)                                    \
	}
#define SUPER(name)   FIELD(struct flash_super, name)
#define SPACE(name)   FIELD(struct flash_space_head, name)
#define MARKS(name)   FIELD(struct flash_marks, name)
#define HEAD(name)    FIELD(struct flash_region_head, name)
#define TRAILER(name) FIELD(struct flash_trailer, name)
#define RECORD(name)  FIELD(struct flash_record, name)

static const struct field super_fields[] = {
	SUPER(magic),
	SUPER(version),
	SUPER(flags),
	SUPER(id.uuid),
	SUPER(id.seed),
	SUPER(counter),
	SUPER(file_bytes),
	SUPER(space_offset),
	SUPER(marks_offset),
	SUPER(regions_offset),
	SUPER(created_ns),
	SUPER(sequence),
	SUPER(region_seq),
	SUPER(unit),
	SUPER(region_bytes),
	SUPER(region_count),
	SUPER(space_bytes),
	SUPER(mark_pages),
	SUPER(epoch),
	SUPER(owner_pid),
	SUPER(retired_count),
	SUPER(retired_crc),
	SUPER(zero_before),
	SUPER(unsure_seq),
	SUPER(zero),
	SUPER(crc),
	{sizeof(struct flash_super), sizeof(uint32_t)}, /* of each retired region */
};
static const struct field space_fields[] = {
	SPACE(magic),	SPACE(version), SPACE(count), SPACE(uuid),
	SPACE(counter), SPACE(bytes),	SPACE(zero),  SPACE(crc),
};
static const struct field marks_fields[] = {
	MARKS(magic), MARKS(version), MARKS(region), MARKS(region_seq), MARKS(counter),
	MARKS(page),  MARKS(zero),    MARKS(crc),    MARKS(marks),
};
static const struct field head_fields[] = {
	HEAD(magic),	  HEAD(version),	  HEAD(flags),	    HEAD(id),	HEAD(seq),
	HEAD(file_bytes), HEAD(store_created_ns), HEAD(created_ns), HEAD(unit), HEAD(region_bytes),
	HEAD(region),	  HEAD(stream),		  HEAD(epoch),	    HEAD(zero), HEAD(crc),
};
static const struct field trailer_fields[] = {
	TRAILER(magic),	       TRAILER(version),     TRAILER(region),	 TRAILER(seq),
	TRAILER(record_count), TRAILER(table_bytes), TRAILER(table_crc), TRAILER(records_end),
	TRAILER(epoch),	       TRAILER(zero32),	     TRAILER(sealed_ns), TRAILER(sequence_max),
	TRAILER(zero),	       TRAILER(crc),
};
static const struct field record_fields[] = {
	RECORD(magic),	     RECORD(version),	  RECORD(flags),      RECORD(key),
	RECORD(space),	     RECORD(generation),  RECORD(region_seq), RECORD(birth),
	RECORD(sequence),    RECORD(unit),	  RECORD(number),     RECORD(shard),
	RECORD(shard_count), RECORD(shard_bytes), RECORD(raw_length), RECORD(stored_length),
	RECORD(expiry_s),    RECORD(meta_length), RECORD(depth),      RECORD(priority),
	RECORD(parent),	     RECORD(ttl_ns),	  RECORD(cost_ns),    RECORD(created_ns),
	RECORD(meta),	     RECORD(zero),	  RECORD(crc),
};

#define TABLE(fields)                                                                              \
	{                                                                                          \
		fields, sizeof(fields) / sizeof((fields)[0])                                       \
	}
static const struct {
	const struct field *fields;
	size_t count;
} documented_tables[] = {
	TABLE(super_fields), TABLE(space_fields),   TABLE(marks_fields),
	TABLE(head_fields),  TABLE(trailer_fields), TABLE(record_fields),
};

/* The tables of the document's flash part, row by row: where each field stands, and how long. */
static void the_tables_are_right(void **state)
{
	const char *path = getenv("FORMAT_MD");
	FILE *document = path ? fopen(path, "r") : NULL;
	size_t table = 0, row = 0;
	bool flash = false, inside = false;
	char line[1024];

	(void)state;
	if (!document)
		fail_msg("FORMAT_MD must name docs/format.md");
	while (fgets(line, sizeof(line), document)) {
		unsigned long at, bytes;

		if (strncmp(line, "## ", 3) == 0)
			flash = strstr(line, "flash tier") != NULL;
		if (!flash)
			continue;
		if (inside && sscanf(line, "| %lu | %lu", &at, &bytes) == 2) {
			assert_true(row < documented_tables[table].count);
			assert_int_equal(at, documented_tables[table].fields[row].at);
			assert_int_equal(bytes, documented_tables[table].fields[row].bytes);
			row++;
		} else if (inside && line[0] != '|') {
			assert_int_equal(row, documented_tables[table].count);
			table++;
			inside = false;
		} else if (strcmp(line, "| offset | bytes | |\n") == 0) {
			assert_true(table <
				    sizeof(documented_tables) / sizeof(documented_tables[0]));
			inside = true;
			row = 0;
		}
	}
	fclose(document);
	assert_int_equal(table, sizeof(documented_tables) / sizeof(documented_tables[0]));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(superblocks),	    CASE(retired_regions),
		CASE(namespaces),	    CASE(namespaces_need_room),
		CASE(mark_pages),	    CASE(region_headers),
		CASE(tables_and_trailers),  CASE(entries_have_bounds),
		CASE(record_heads),	    CASE(records_of_other_versions),
		CASE(piece_checksums),	    CASE(layouts),
		CASE(layouts_refused),	    CASE(lengths_and_units),
		CASE(fingerprints),	    CASE(the_document_is_right),
		CASE(the_tables_are_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
