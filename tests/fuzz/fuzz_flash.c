/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile bytes to everything that decodes what the flash tier keeps. The first
 * byte says what it is, and whether its checksums are made right first, so that
 * the checks behind them are reached.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/nsdesc.h"
#include "stages/flash/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

enum what {
	WHAT_SUPER,
	WHAT_SPACES,
	WHAT_MARKS,
	WHAT_HEADER,
	WHAT_RECORD,
	WHAT_TABLE, /* a trailer, then its table */
	WHAT_REGION,
	WHAT_COUNT
};

#define FILE_BYTES   (1u << 20)
#define REGION_BYTES 65536u
#define REGION	     0u
#define SEQ	     1u

static const struct flash_id id = {.uuid = "0123456789abcde",
				   .seed = {0x1122334455667788u, 0x99aabbccddeeff00u}};
static struct flash_layout layout;
static uint32_t salt;

static void try_super(const uint8_t *data, size_t size, bool seal)
{
	struct flash_layout found;
	struct flash_super super;

	if (size < sizeof(super))
		return;
	memcpy(&super, data, sizeof(super));
	if (seal)
		super.crc = crc32c(0, &super, offsetof(struct flash_super, crc));
	if (flash_super_decode(&super, &found) != FLASH_OK)
		return;
	REQUIRE(found.region_count >= FLASH_REGIONS_MIN && found.unit >= FLASH_UNIT_MIN);
	REQUIRE(flash_region_at(&found, found.region_count - 1) + found.region_bytes <=
		super.file_bytes);
	REQUIRE(found.stored_max && found.records_max);
}

static void try_spaces(uint8_t *data, size_t size, bool seal)
{
	struct flash_space_entry entry;
	char texts[NSDESC_MAX];
	const void *desc;
	uint32_t at = 0, before = 0, count = 0;

	if (seal && size >= sizeof(struct flash_space_head)) {
		struct flash_space_head *head = (void *)data;
		uint32_t crc = crc32c(0, data, offsetof(struct flash_space_head, crc));

		if (head->bytes < sizeof(*head) || head->bytes > size)
			return;
		head->crc = crc32c(crc, head + 1, head->bytes - sizeof(*head));
	}
	if (flash_space_decode(data, size, &id) != FLASH_OK)
		return;
	while (flash_space_next(data, &at, &entry, &desc)) {
		struct cairn_namespace_desc found;

		REQUIRE(at <= size && entry.id < FLASH_SPACES_MAX);
		REQUIRE(!count++ || entry.id > before);
		before = entry.id;
		nsdesc_decode(desc, entry.desc_length, texts, &found);
	}
	REQUIRE(count == ((struct flash_space_head *)(void *)data)->count);
}

static void try_small(const uint8_t *data, size_t size, enum what what, bool seal)
{
	struct flash_region_head head;
	struct flash_marks marks;

	if (what == WHAT_MARKS && size >= sizeof(marks)) {
		memcpy(&marks, data, sizeof(marks));
		if (seal)
			flash_marks_seal(&marks, salt);
		flash_marks_decode(&marks, salt, REGION, SEQ, 0);
	}
	if (what == WHAT_HEADER && size >= sizeof(head)) {
		struct flash_layout found;

		memcpy(&head, data, sizeof(head));
		if (seal)
			head.crc = crc32c(0, &head, offsetof(struct flash_region_head, crc));
		if (flash_region_head_found(&head, &found) == FLASH_OK)
			REQUIRE(head.region < found.region_count);
		flash_region_head_decode(&head, &id, &layout, REGION);
	}
}

static void record_reseal(uint8_t *data, size_t size)
{
	struct flash_record *record = (void *)data;
	size_t bytes;

	if (size < sizeof(*record) || record->stored_length > CAIRN_SHARD_BYTES_MAX)
		return;
	bytes = (size_t)flash_head_units(&layout, record->stored_length) * layout.unit;
	if (bytes > size)
		return;
	record->crc = crc32c(salt, data, offsetof(struct flash_record, crc));
	record->crc = crc32c(record->crc, record + 1, bytes - sizeof(*record));
}

static void try_record(uint8_t *data, size_t size, bool seal)
{
	uint32_t unit = flash_first_unit(&layout, REGION);
	struct flash_table_entry entry;
	struct flash_record record;

	if (seal)
		record_reseal(data, size);
	if (flash_record_decode(data, size, &layout, salt, SEQ, unit, &record) != FLASH_OK)
		return;
	REQUIRE(record.stored_length >= 1 && record.stored_length <= record.raw_length);
	REQUIRE(record.number < layout.records_max && record.meta_length <= CAIRN_META_MAX);
	REQUIRE(flash_fits(&layout, REGION, unit, flash_record_units(&layout, record.stored_length),
			   0));
	flash_entry_of(&record, &id, &entry);
	REQUIRE(flash_entry_check(&entry, &layout, REGION));
	for (uint32_t piece = 0; piece < flash_pieces(record.stored_length); piece++)
		flash_piece_crc(data, piece);
}

static void try_table(uint8_t *data, size_t size, bool seal)
{
	struct flash_trailer trailer;
	uint8_t *table = data + sizeof(trailer);

	if (size < sizeof(trailer))
		return;
	size -= sizeof(trailer);
	memcpy(&trailer, data, sizeof(trailer));
	if (seal && trailer.record_count <= size / sizeof(struct flash_table_entry))
		flash_trailer_seal(&trailer, (const void *)table, salt);
	if (flash_trailer_decode(&trailer, &layout, salt, REGION, SEQ) != FLASH_OK)
		return;
	REQUIRE(trailer.record_count <= layout.records_max);
	REQUIRE(trailer.records_end <= flash_trailer_unit(&layout, REGION));
	flash_table_check(&trailer, table, size, &layout, salt);
}

/* ---- a whole region ------------------------------------------------------------------- */

static uint8_t region[REGION_BYTES] __attribute__((aligned(4096)));

static ssize_t region_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	uint64_t from = (uint64_t)offset - flash_region_at(&layout, REGION);

	REQUIRE(fd == 3 && iov_count == 1);
	REQUIRE(from < REGION_BYTES && iov->iov_len <= REGION_BYTES - from);
	memcpy(iov->iov_base, region + from, iov->iov_len);
	return (ssize_t)iov->iov_len;
}

static int see(void *context, const struct flash_scanned *scanned)
{
	uint32_t *count = context;

	REQUIRE(scanned->region == REGION && scanned->number < layout.records_max);
	REQUIRE(flash_entry_check(scanned->entry, &layout, REGION));
	++*count;
	return 0;
}

static void try_region(const uint8_t *data, size_t size, bool seal)
{
	struct flash_super_found super = {.layout = layout};
	struct flash_region_found found;
	struct flash_scanner scanner;
	struct sys sys = sys_native;
	uint32_t count = 0;

	memset(region, 0, sizeof(region));
	super.super.id = id;
	if (seal) {
		struct flash_region_head head;

		flash_super_init(&super.super, &id, &layout, 0);
		flash_region_head_init(&head, &super.super, REGION, SEQ, 0, 0, 0);
		memcpy(region, &head, sizeof(head));
	}
	memcpy(region + (seal ? 512 : 0), data,
	       size < REGION_BYTES - 512 ? size : REGION_BYTES - 512);
	if (seal)
		record_reseal(region + 512, REGION_BYTES - 512);
	sys.preadv = region_preadv;
	REQUIRE(flash_scanner_init(&scanner, &sys, 3, &super) == 0);
	REQUIRE(flash_scan_region(&scanner, REGION, FLASH_SCAN_PAYLOAD | FLASH_SCAN_TORN, see,
				  &count, &found) == 0);
	REQUIRE(count == found.records + found.torn);
	REQUIRE(found.next_number <= layout.records_max);
	flash_scanner_fini(&scanner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum what what;
	uint8_t *copy;
	bool seal;

	if (!size)
		return 0;
	REQUIRE(flash_layout_init(&layout, FILE_BYTES, REGION_BYTES, 512) == FLASH_LAYOUT_OK);
	salt = flash_salt(&id, SEQ);
	what = (enum what)((data[0] & 0x7f) % WHAT_COUNT);
	seal = data[0] & 0x80;
	copy = malloc(size);
	REQUIRE(copy);
	memcpy(copy, data + 1, size - 1);
	if (what == WHAT_SUPER)
		try_super(copy, size - 1, seal);
	else if (what == WHAT_SPACES)
		try_spaces(copy, size - 1, seal);
	else if (what == WHAT_RECORD)
		try_record(copy, size - 1, seal);
	else if (what == WHAT_TABLE)
		try_table(copy, size - 1, seal);
	else if (what == WHAT_REGION)
		try_region(copy, size - 1, seal);
	else
		try_small(copy, size - 1, what, seal);
	free(copy);
	return 0;
}
