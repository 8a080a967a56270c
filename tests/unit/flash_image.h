/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a flash tier, written by the format's own functions, as tests want it. */
#ifndef TESTS_UNIT_FLASH_IMAGE_H
#define TESTS_UNIT_FLASH_IMAGE_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/nsdesc.h"
#include "stages/flash/format.h"

#define IMAGE_REGIONS_MAX 16u
#define IMAGE_RECORDS_MAX 64u
#define IMAGE_TIME_NS	  1767225600000000000u /* 1 January 2026 */

struct image_region {
	uint64_t seq;
	uint32_t unit, number;
	struct flash_table_entry table[IMAGE_RECORDS_MAX];
};

struct image {
	char path[64];
	int fd;
	uint8_t *bytes; /* the file, mapped */
	struct flash_super super;
	struct flash_layout layout;
	struct image_region regions[IMAGE_REGIONS_MAX];
};

/* What a record is to be: what is left 0 is one shard of 5000 bytes. */
struct image_record {
	uint32_t block, shard, shard_count, shard_bytes, raw_length, stored_length;
	uint64_t birth;
	uint32_t space, generation, parent, expiry_s;
};

static inline struct cairn_key image_key(uint32_t block)
{
	struct cairn_key key;

	for (uint32_t i = 0; i < sizeof(key.bytes); i++)
		key.bytes[i] = (uint8_t)(block * 31 + i * 7 + 1);
	return key;
}

static inline uint8_t image_byte(const struct image_record *spec, uint32_t at)
{
	return (uint8_t)(spec->block * 5 + spec->shard * 3 + at * 13 + at / 251);
}

static inline void image_super_put(struct image *image)
{
	image->super.counter++;
	flash_super_seal(&image->super);
	memcpy(image->bytes + flash_super_at(image->super.counter % FLASH_COPIES), &image->super,
	       sizeof(image->super));
}

static inline void image_new(struct image *image, uint64_t file_bytes, uint32_t region_bytes,
			     uint32_t unit)
{
	struct flash_id id = {.seed = {0x1122334455667788u, 0x99aabbccddeeff00u}};

	memset(image, 0, sizeof(*image));
	memcpy(id.uuid, "0123456789abcdef", sizeof(id.uuid));
	assert_int_equal(flash_layout_init(&image->layout, file_bytes, region_bytes, unit),
			 FLASH_LAYOUT_OK);
	assert_true(image->layout.region_count <= IMAGE_REGIONS_MAX);
	snprintf(image->path, sizeof(image->path), "/tmp/cairn-flash-XXXXXX");
	image->fd = mkstemp(image->path);
	assert_true(image->fd >= 0);
	assert_int_equal(ftruncate(image->fd, (off_t)file_bytes), 0);
	image->bytes = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0);
	assert_true(image->bytes != MAP_FAILED);
	flash_super_init(&image->super, &id, &image->layout, IMAGE_TIME_NS);
	image->super.sequence = 1000;
	image->super.region_seq = 100;
	image_super_put(image);
	image_super_put(image);
}

static inline void image_free(struct image *image)
{
	munmap(image->bytes, image->layout.file_bytes);
	close(image->fd);
	unlink(image->path);
}

static inline uint32_t image_salt(const struct image *image, uint32_t region)
{
	return flash_salt(&image->super.id, image->regions[region].seq);
}

static inline uint8_t *image_at(const struct image *image, uint32_t unit)
{
	return image->bytes + flash_byte_of(&image->layout, unit);
}

/* A new use of @region. */
static inline void image_open(struct image *image, uint32_t region, uint64_t seq)
{
	struct flash_region_head head;

	flash_region_head_init(&head, &image->super, region, seq, 0, 3, IMAGE_TIME_NS);
	memcpy(image->bytes + flash_region_at(&image->layout, region), &head, sizeof(head));
	memset(&image->regions[region], 0, sizeof(image->regions[region]));
	image->regions[region].seq = seq;
	image->regions[region].unit = flash_first_unit(&image->layout, region);
}

static inline void image_fill(const struct image_record *spec, struct flash_record *ret_record)
{
	struct flash_record *record = ret_record;

	memset(record, 0, sizeof(*record));
	record->key = image_key(spec->block);
	record->space = spec->space;
	record->generation = spec->generation;
	record->birth = spec->birth ? spec->birth : 7;
	record->sequence = record->birth + spec->shard;
	record->shard = (uint16_t)spec->shard;
	record->shard_count = (uint16_t)(spec->shard_count ? spec->shard_count : 1);
	record->shard_bytes = spec->shard_bytes ? spec->shard_bytes : 5000;
	record->raw_length = spec->raw_length ? spec->raw_length : record->shard_bytes;
	record->stored_length = spec->stored_length ? spec->stored_length : record->raw_length;
	record->expiry_s = spec->expiry_s;
	record->created_ns = IMAGE_TIME_NS;
	if (spec->parent)
		record->parent = image_key(spec->parent);
}

/* Writes a record behind the last one of @region; returns its number. */
static inline uint32_t image_record(struct image *image, uint32_t region,
				    const struct image_record *spec)
{
	struct image_region *r = &image->regions[region];
	struct flash_record record;
	uint32_t units, *crcs;
	uint8_t *head, *payload;

	image_fill(spec, &record);
	record.region_seq = r->seq;
	record.unit = r->unit;
	record.number = r->number;
	units = flash_record_units(&image->layout, record.stored_length);
	assert_true(flash_fits(&image->layout, region, r->unit, units, r->number));
	assert_true(r->number < IMAGE_RECORDS_MAX);
	head = image_at(image, r->unit);
	payload = image_at(image, r->unit + flash_head_units(&image->layout, record.stored_length));
	for (uint32_t i = 0; i < record.stored_length; i++)
		payload[i] = image_byte(spec, i);
	memcpy(head, &record, sizeof(record));
	crcs = (void *)(head + sizeof(record));
	for (uint32_t at = 0; at < record.stored_length; at += CAIRN_PIECE) {
		uint32_t left = record.stored_length - at;

		crcs[at / CAIRN_PIECE] =
			crc32c(0, payload + at, left < CAIRN_PIECE ? left : CAIRN_PIECE);
	}
	flash_record_seal(head, &image->layout, image_salt(image, region));
	flash_entry_of((const void *)head, &image->super.id, &r->table[r->number]);
	r->unit += units;
	return r->number++;
}

static inline void image_seal(struct image *image, uint32_t region)
{
	struct image_region *r = &image->regions[region];
	struct flash_trailer trailer = {
		.region = region,
		.seq = r->seq,
		.record_count = r->number,
		.records_end = r->unit,
		.epoch = 5,
		.sealed_ns = IMAGE_TIME_NS,
		.sequence_max = 99,
	};

	memcpy(image_at(image, flash_table_unit(&image->layout, region, r->number)), r->table,
	       r->number * sizeof(r->table[0]));
	flash_trailer_seal(&trailer, r->table, image_salt(image, region));
	memcpy(image_at(image, flash_trailer_unit(&image->layout, region)), &trailer,
	       sizeof(trailer));
}

/* Sets one mark, in the copy that @counter says. */
static inline void image_mark(struct image *image, uint32_t region, uint32_t number, uint8_t mark,
			      uint64_t counter)
{
	uint32_t page = number / FLASH_MARKS_PER_PAGE;
	struct flash_marks *marks =
		(void *)(image->bytes +
			 flash_marks_at(&image->layout, region, page, counter % FLASH_COPIES));

	if (flash_marks_decode(marks, image_salt(image, region), region, image->regions[region].seq,
			       page) != FLASH_OK)
		memset(marks, 0, sizeof(*marks));
	marks->region = region;
	marks->region_seq = image->regions[region].seq;
	marks->counter = counter;
	marks->page = page;
	marks->marks[number % FLASH_MARKS_PER_PAGE] = mark;
	flash_marks_seal(marks, image_salt(image, region));
}

/* Namespaces 0 to @count - 1, all of @generation, into one copy. */
static inline void image_spaces(struct image *image, uint32_t count, uint32_t generation,
				uint64_t counter)
{
	uint8_t *area = image->bytes + flash_space_at(&image->layout, counter % FLASH_COPIES);

	flash_space_begin(area, &image->super.id, counter);
	for (uint32_t id = 0; id < count; id++) {
		char model[16];
		uint8_t text[NSDESC_MAX];
		struct cairn_namespace_desc desc = {.size = sizeof(desc), .model = model};
		struct flash_space_entry entry = {.id = id, .generation = generation};

		snprintf(model, sizeof(model), "model-%u", id);
		entry.desc_length = (uint32_t)nsdesc_encode(&desc, text);
		assert_true(flash_space_add(area, image->layout.space_bytes, &entry, text));
	}
	flash_space_seal(area);
}

#endif
