/* SPDX-License-Identifier: Apache-2.0 */
/* What is found in the file of a flash tier, sound or not. */
#include "flash_image.h"

#include <errno.h>

#include "random.h"
#include "stages/flash/scan.h"

#define FILE_BYTES   (2u << 20)
#define REGION_BYTES 131072u

static struct image image;
static struct flash_super_found super;
static struct flash_scanner scanner;
static struct flash_region_found found;

/* The native table, but for what [bad_from, bad_to) of the file has: -EIO. */
static struct sys sys;
static uint64_t bad_from, bad_to;
static uint32_t allocs_left, reads;

static ssize_t bad_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	uint64_t from = (uint64_t)offset, to = from;

	for (int i = 0; i < iov_count; i++) {
		assert_int_equal((uintptr_t)iov[i].iov_base % 512, 0);
		assert_int_equal(iov[i].iov_len % 512, 0);
		to += iov[i].iov_len;
	}
	assert_int_equal(from % 512, 0); /* as O_DIRECT wants it */
	reads++;
	if (from < bad_to && to > bad_from)
		return -EIO;
	return sys_native.preadv(fd, iov, iov_count, offset);
}

static void *few_allocs(size_t alignment, size_t bytes)
{
	if (!allocs_left)
		return NULL;
	allocs_left--;
	return sys_native.alloc(alignment, bytes);
}

static void scanner_open(void)
{
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), 0);
	assert_int_equal(flash_scanner_init(&scanner, &sys, image.fd, &super), 0);
}

static int setup(void **state)
{
	(void)state;
	sys = sys_native;
	sys.preadv = bad_preadv;
	sys.alloc = few_allocs;
	allocs_left = UINT32_MAX;
	bad_from = bad_to = 0;
	image_new(&image, FILE_BYTES, REGION_BYTES, 512);
	scanner_open();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	flash_scanner_fini(&scanner);
	image_free(&image);
	return 0;
}

/* ---- what was told ------------------------------------------------------------------- */

static struct flash_table_entry told[IMAGE_RECORDS_MAX];
static uint32_t told_numbers[IMAGE_RECORDS_MAX], told_count, told_torn, stop_at;

static int see(void *context, const struct flash_scanned *scanned)
{
	assert_ptr_equal(context, &image);
	assert_true(flash_entry_check(scanned->entry, &image.layout, scanned->region));
	assert_true(told_count < IMAGE_RECORDS_MAX);
	told_torn += scanned->torn;
	told_numbers[told_count] = scanned->number;
	told[told_count++] = *scanned->entry;
	return told_count == stop_at ? 77 : 0;
}

static int scan(uint32_t region, uint32_t flags)
{
	told_count = told_torn = 0;
	return flash_scan_region(&scanner, region, flags, see, &image, &found);
}

/* That all of @region was told, but for record @but. */
static void told_all(uint32_t region, uint32_t but)
{
	const struct image_region *r = &image.regions[region];
	uint32_t at = 0;

	for (uint32_t number = 0; number < r->number; number++) {
		if (number == but)
			continue;
		assert_true(at < told_count);
		assert_int_equal(told_numbers[at], number);
		assert_memory_equal(&told[at++], &r->table[number], sizeof(r->table[number]));
	}
	assert_int_equal(at, told_count);
	assert_int_equal(found.records, told_count);
}

/* Records of many sizes. */
static void fill(uint32_t region, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		image_record(&image, region,
			     &(struct image_record){.block = region * 100 + i,
						    .shard = i % 3,
						    .shard_count = 3,
						    .shard_bytes = 1 + i * i * 17,
						    .parent = i / 2});
}

/* ---- the superblock -------------------------------------------------------------------- */

static void super_copies(void **state)
{
	uint8_t *first = image.bytes, *second = image.bytes + FLASH_PAGE;

	(void)state;
	assert_int_equal(super.super.counter, 2);
	assert_memory_equal(&super.layout, &image.layout, sizeof(super.layout));
	first[100] ^= 1; /* the newer one */
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), 0);
	assert_int_equal(super.super.counter, 1);
	assert_int_equal(super.copies[0], FLASH_DAMAGED);
	assert_int_equal(super.copies[1], FLASH_OK);
	second[100] ^= 1;
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -EBADMSG);
	bad_to = 2ull * FLASH_PAGE;
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -EIO);
	bad_to = FLASH_PAGE;
	second[100] ^= 1;
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), 0);
	assert_int_equal(super.super.counter, 1);
}

static void super_of_a_newer_version(void **state)
{
	struct flash_super newer = image.super;

	(void)state;
	newer.version++;
	newer.crc = crc32c(0, &newer, offsetof(struct flash_super, crc));
	memcpy(image.bytes + FLASH_PAGE, &newer, sizeof(newer));
	/* One sound copy that this library knows is not enough. */
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -EPROTO);
}

static void super_of_nothing(void **state)
{
	(void)state;
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -ENOENT);
	image.bytes[FLASH_PAGE + 4000] = 1; /* somebody's */
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -EBADMSG);
	assert_int_equal(ftruncate(image.fd, 0), 0);
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -ENOENT);
	allocs_left = 0;
	assert_int_equal(flash_scan_super(&sys, image.fd, &super), -ENOMEM);
}

/* ---- namespaces ----------------------------------------------------------------------- */

static int spaces(uint64_t *ret_counter)
{
	struct flash_spaces_found spaces_found;
	int rc = flash_scan_spaces(&scanner, &spaces_found);

	if (ret_counter)
		*ret_counter = spaces_found.counter;
	assert_true((rc == 0) == (spaces_found.area != NULL));
	if (spaces_found.area)
		sys.free(spaces_found.area);
	return rc;
}

static void space_copies(void **state)
{
	uint64_t at[] = {flash_space_at(&image.layout, 0), flash_space_at(&image.layout, 1)};
	uint64_t counter;

	(void)state;
	assert_int_equal(spaces(NULL), -ENOENT);
	image_spaces(&image, 30, 1, 1);
	assert_int_equal(spaces(&counter), 0);
	assert_int_equal(counter, 1);
	image_spaces(&image, 40, 2, 2); /* more than a page */
	assert_int_equal(spaces(&counter), 0);
	assert_int_equal(counter, 2);
	image.bytes[at[0] + 5000] ^= 1;
	assert_int_equal(spaces(&counter), 0);
	assert_int_equal(counter, 1);
	bad_from = at[1];
	bad_to = bad_from + 1;
	assert_int_equal(spaces(NULL), -EBADMSG);
	bad_from = at[0];
	bad_to = at[1] + 1;
	assert_int_equal(spaces(NULL), -EIO);
	bad_to = 0;
	allocs_left = 0;
	assert_int_equal(spaces(NULL), -ENOMEM);
}

/* ---- regions --------------------------------------------------------------------------- */

static void sealed_regions(void **state)
{
	(void)state;
	image_open(&image, 3, 50);
	fill(3, 20);
	image_seal(&image, 3);
	assert_int_equal(scan(3, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_SEALED);
	assert_int_equal(found.seq, 50);
	assert_int_equal(found.epoch, 5);
	assert_int_equal(found.next_number, 20);
	assert_int_equal(found.next_unit, image.regions[3].unit);
	assert_int_equal(found.sequence_max, 99);
	assert_false(found.table_lost);
	told_all(3, UINT32_MAX);
	/* The same from the heads, with the payloads. */
	assert_int_equal(scan(3, FLASH_SCAN_HEADS | FLASH_SCAN_PAYLOAD), 0);
	told_all(3, UINT32_MAX);
	stop_at = 7;
	assert_int_equal(scan(3, 0), 77);
	assert_int_equal(scan(3, FLASH_SCAN_HEADS), 77);
	stop_at = 0;
}

static void a_sealed_region_takes_few_reads(void **state)
{
	(void)state;
	image_open(&image, 3, 50);
	fill(3, 20);
	image_seal(&image, 3);
	reads = 0;
	assert_int_equal(scan(3, 0), 0);
	assert_int_equal(reads, 3); /* header, trailer, table */
}

/* Where there is nothing to hop over, the rest is read in one piece. */
static void an_empty_region_takes_few_reads(void **state)
{
	(void)state;
	image_open(&image, 3, 50);
	reads = 0;
	assert_int_equal(scan(3, 0), 0);
	assert_int_equal(reads, 4); /* header, trailer, 64 KiB, what is left */
}

static void open_regions(void **state)
{
	(void)state;
	image_open(&image, 2, 60);
	assert_int_equal(scan(2, FLASH_SCAN_PAYLOAD), 0);
	assert_int_equal(found.state, FLASH_FOUND_OPEN);
	assert_int_equal(found.next_unit, flash_first_unit(&image.layout, 2));
	assert_int_equal(found.next_number, 0);
	fill(2, 25);
	for (uint32_t flags = 0; flags <= FLASH_SCAN_PAYLOAD; flags += FLASH_SCAN_PAYLOAD) {
		assert_int_equal(scan(2, flags), 0);
		assert_int_equal(found.state, FLASH_FOUND_OPEN);
		assert_int_equal(found.epoch, 3);
		assert_int_equal(found.next_unit, image.regions[2].unit);
		assert_int_equal(found.next_number, 25);
		assert_int_equal(found.gap_units, 0);
		assert_int_equal(found.sequence_max, 9);
		told_all(2, UINT32_MAX);
	}
}

static void regions_that_are_none(void **state)
{
	uint8_t *header = image.bytes + flash_region_at(&image.layout, 1);
	struct flash_super other = image.super;
	struct flash_region_head head;

	(void)state;
	assert_int_equal(scan(1, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_UNUSED);
	memset(header, 0x5a, 4096);
	assert_int_equal(scan(1, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_UNUSED);
	/* Of another store that was on this device. */
	other.id.uuid[0]++;
	flash_region_head_init(&head, &other, 1, 5, 0, 0, 0);
	memcpy(header, &head, sizeof(head));
	assert_int_equal(scan(1, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_UNUSED);
	image_open(&image, 1, 6);
	for (uint32_t byte = 0; byte < sizeof(head); byte++) {
		header[byte] ^= 0x10;
		assert_int_equal(scan(1, 0), 0);
		assert_int_equal(found.state, FLASH_FOUND_LOST);
		assert_int_equal(told_count, 0);
		header[byte] ^= 0x10;
	}
	bad_from = flash_region_at(&image.layout, 1);
	bad_to = bad_from + 1;
	assert_int_equal(scan(1, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_UNREADABLE);
}

static void an_earlier_use_is_gone(void **state)
{
	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	image_seal(&image, 1);
	image_open(&image, 1, 7);
	assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD), 0);
	assert_int_equal(found.state, FLASH_FOUND_OPEN);
	assert_int_equal(told_count, 0);
	fill(1, 3);
	assert_int_equal(scan(1, 0), 0);
	told_all(1, UINT32_MAX);
	assert_int_equal(found.next_unit, image.regions[1].unit);
}

/* ---- what is damaged ------------------------------------------------------------------ */

static void a_lost_head_costs_one_record(void **state)
{
	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	for (uint32_t number = 0; number < 20; number++) {
		uint8_t *head = image_at(&image, image.regions[1].table[number].unit);

		head[number * 10] ^= 1;
		assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD), 0);
		told_all(1, number);
		assert_int_equal(found.next_number, number < 19 ? 20 : 19);
		if (number < 19)
			assert_int_equal(found.gap_units,
					 image.regions[1].table[number + 1].unit -
						 image.regions[1].table[number].unit);
		head[number * 10] ^= 1;
	}
}

static void a_torn_payload_costs_one_record(void **state)
{
	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	for (uint32_t number = 0; number < 20; number++) {
		uint8_t *last = image_at(&image, image.regions[1].table[number].unit + 1) +
				image.regions[1].table[number].stored_length - 1;

		*last ^= 1;
		assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD), 0);
		told_all(1, number);
		assert_int_equal(found.torn, 1);
		assert_int_equal(found.next_number, 20);
		assert_int_equal(found.next_unit, image.regions[1].unit);
		assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD | FLASH_SCAN_TORN), 0);
		assert_int_equal(told_count, 20);
		assert_int_equal(told_torn, 1);
		assert_int_equal(scan(1, 0), 0); /* not asked for */
		told_all(1, UINT32_MAX);
		*last ^= 1;
	}
}

static void a_lost_table_costs_nothing(void **state)
{
	uint8_t *table, *trailer;

	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	image_seal(&image, 1);
	table = image_at(&image, flash_table_unit(&image.layout, 1, 20));
	trailer = image_at(&image, flash_trailer_unit(&image.layout, 1));
	for (uint32_t byte = 0; byte < 20 * 64; byte += 13) {
		table[byte] ^= 1;
		assert_int_equal(scan(1, 0), 0);
		assert_int_equal(found.state, FLASH_FOUND_SEALED);
		assert_true(found.table_lost);
		assert_int_equal(found.next_number, 20);
		told_all(1, UINT32_MAX);
		table[byte] ^= 1;
	}
	for (uint32_t byte = 0; byte < 128; byte++) {
		trailer[byte] ^= 1;
		assert_int_equal(scan(1, 0), 0);
		assert_int_equal(found.state, FLASH_FOUND_OPEN);
		assert_true(found.trailer_lost || (byte >= 12 && byte < 24));
		told_all(1, UINT32_MAX);
		trailer[byte] ^= 1;
	}
}

static void what_cannot_be_read(void **state)
{
	const struct flash_table_entry *entry = &image.regions[1].table[10];

	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	/* A head, with its neighbours in the same large read. */
	bad_from = flash_byte_of(&image.layout, entry->unit);
	bad_to = bad_from + 512;
	assert_int_equal(scan(1, 0), 0);
	assert_true(found.unreadable);
	assert_true(told_count >= 17);
	/* All of it: that takes few reads, since each may take a device long. */
	bad_to = bad_from + REGION_BYTES;
	bad_from = flash_region_at(&image.layout, 1) + 512;
	reads = 0;
	assert_int_equal(scan(1, 0), 0);
	assert_true(found.unreadable);
	assert_int_equal(told_count, 0);
	assert_true(reads < 40); /* each is tried twice */
	/* A payload. */
	bad_from = flash_byte_of(&image.layout, entry->unit + 1);
	bad_to = bad_from + 512;
	assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD), 0);
	told_all(1, 10);
	/* The table: records are looked for. The trailer: the same. */
	image_seal(&image, 1);
	bad_from = flash_byte_of(&image.layout, flash_table_unit(&image.layout, 1, 20));
	bad_to = bad_from + 512;
	assert_int_equal(scan(1, 0), 0);
	assert_true(found.table_lost && found.unreadable);
	told_all(1, UINT32_MAX);
	bad_from = flash_byte_of(&image.layout, flash_trailer_unit(&image.layout, 1));
	bad_to = bad_from + 512;
	assert_int_equal(scan(1, 0), 0);
	assert_int_equal(found.state, FLASH_FOUND_OPEN);
	told_all(1, UINT32_MAX);
}

/* Random bytes over a region: whatever is told is a record that was written. */
static void damage_at_random(void **state)
{
	struct random random = {20261128};
	uint64_t from = flash_region_at(&image.layout, 1) + 512;
	static uint8_t before[REGION_BYTES];
	uint32_t most = 0;

	(void)state;
	image_open(&image, 1, 6);
	fill(1, 20);
	image_seal(&image, 1);
	memcpy(before, image.bytes + from, REGION_BYTES - 512);
	for (uint32_t round = 0; round < 300; round++) {
		for (uint32_t hits = random_below(&random, 60); hits > 0; hits--)
			image.bytes[from + random_below(&random, REGION_BYTES - 512)] ^=
				(uint8_t)(1 + random_below(&random, 255));
		assert_int_equal(scan(1, FLASH_SCAN_PAYLOAD), 0);
		for (uint32_t i = 0; i < told_count; i++)
			assert_memory_equal(&told[i], &image.regions[1].table[told_numbers[i]],
					    sizeof(told[i]));
		most = told_count > most ? told_count : most;
		memcpy(image.bytes + from, before, REGION_BYTES - 512);
	}
	assert_int_equal(most, 20);
}

/* A record whose payload is a piece of this very region, under a head that is lost. */
static void a_payload_is_no_record(void **state)
{
	struct image_region *region = &image.regions[1];
	uint8_t *inner;
	uint32_t unit;

	(void)state;
	image_open(&image, 1, 6);
	image_record(&image, 1, &(struct image_record){.block = 1});
	unit = region->unit;
	image_record(&image, 1, &(struct image_record){.block = 2, .shard_bytes = 30000});
	image_record(&image, 1, &(struct image_record){.block = 3});
	inner = image_at(&image, unit + 2);
	memcpy(inner, image_at(&image, region->table[0].unit), 4096);
	image_at(&image, unit)[0] ^= 1;
	assert_int_equal(scan(1, 0), 0);
	told_all(1, 1);
}

/* ---- large tables ------------------------------------------------------------------------ */

static void a_table_that_is_read_by_itself(void **state)
{
	static struct flash_table_entry table[4000];
	const uint32_t count = sizeof(table) / sizeof(table[0]);
	struct image_record spec = {.block = 5, .shard_bytes = 100};
	struct flash_trailer trailer = {.region = 0, .seq = 9, .record_count = count};
	struct flash_record record;
	struct image big;
	uint32_t first;

	(void)state;
	image_new(&big, 64u << 20, 8u << 20, 512);
	image_open(&big, 0, 9);
	first = flash_first_unit(&big.layout, 0);
	image_fill(&spec, &record);
	for (uint32_t i = 0; i < count; i++) {
		record.unit = first + 2 * i;
		flash_entry_of(&record, &big.super.id, &table[i]);
	}
	trailer.records_end = first + 2 * count;
	memcpy(image_at(&big, flash_table_unit(&big.layout, 0, count)), table, sizeof(table));
	flash_trailer_seal(&trailer, table, image_salt(&big, 0));
	memcpy(image_at(&big, flash_trailer_unit(&big.layout, 0)), &trailer, sizeof(trailer));
	flash_scanner_fini(&scanner);
	assert_int_equal(flash_scan_super(&sys, big.fd, &super), 0);
	assert_int_equal(flash_scanner_init(&scanner, &sys, big.fd, &super), 0);
	assert_int_equal(flash_scan_region(&scanner, 0, 0, NULL, NULL, &found), 0);
	assert_int_equal(found.state, FLASH_FOUND_SEALED);
	assert_int_equal(found.records, count);
	image_free(&big);
}

/* ---- marks --------------------------------------------------------------------------- */

static void marks_of_a_region(void **state)
{
	uint64_t counters[4] = {9, 9, 9, 9};
	struct flash_marks_found marks;
	uint8_t bytes[IMAGE_RECORDS_MAX];
	uint64_t second;

	(void)state;
	image_open(&image, 1, 6);
	flash_scan_marks(&scanner, 1, 6, 60, bytes, counters, &marks);
	assert_int_equal(marks.next_number + marks.damaged + marks.lost, 0);
	assert_int_equal(counters[0], 0);
	image_mark(&image, 1, 3, FLASH_MARK_DEAD, 1);
	image_mark(&image, 1, 20, flash_mark_of(4), 2);
	flash_scan_marks(&scanner, 1, 6, 60, bytes, counters, &marks);
	assert_int_equal(counters[0], 2);
	assert_int_equal(bytes[3], FLASH_MARK_NONE); /* the newer copy had it not */
	assert_int_equal(bytes[20], flash_mark_of(4));
	assert_int_equal(marks.next_number, 21);
	/* The newer copy torn: the other counts, and it is told. */
	image.bytes[flash_marks_at(&image.layout, 1, 0, 0) + 4000] ^= 1;
	flash_scan_marks(&scanner, 1, 6, 60, bytes, counters, &marks);
	assert_int_equal(bytes[3], FLASH_MARK_DEAD);
	assert_int_equal(marks.damaged, 1);
	/* The older one in a place that cannot be read, too. */
	second = flash_marks_at(&image.layout, 1, 0, 1);
	bad_from = second;
	bad_to = second + 1;
	flash_scan_marks(&scanner, 1, 6, 60, bytes, counters, &marks);
	assert_int_equal(bytes[3], FLASH_MARK_DEAD); /* nobody knows: so all of them are */
	assert_int_equal(bytes[4], FLASH_MARK_DEAD);
	assert_int_equal(marks.lost, 1);
	bad_from = second - 1;
	flash_scan_marks(&scanner, 1, 6, 60, bytes, counters, &marks);
	assert_int_equal(marks.lost, 1);
	/* Another use of the region knows nothing of them. */
	bad_to = 0;
	image_open(&image, 1, 8);
	flash_scan_marks(&scanner, 1, 8, 60, bytes, NULL, &marks);
	assert_int_equal(marks.next_number + marks.damaged, 0);
}

/* ---- one record ------------------------------------------------------------------------ */

static void one_record(void **state)
{
	struct image_region *region = &image.regions[1];
	struct flash_table_entry entry;
	struct flash_record record;
	uint8_t *payload;

	(void)state;
	image_open(&image, 1, 6);
	image_record(&image, 1, &(struct image_record){.block = 1});
	image_record(&image, 1, &(struct image_record){.block = 2, .shard_bytes = 70000});
	entry = region->table[1];
	assert_int_equal(flash_scan_record(&scanner, 6, 1, &entry, &record), FLASH_CHECK_SOUND);
	assert_int_equal(record.number, 1);
	assert_int_equal(flash_scan_record(&scanner, 6, 2, &entry, &record), FLASH_CHECK_OTHER);
	entry.birth++;
	assert_int_equal(flash_scan_record(&scanner, 6, 1, &entry, &record), FLASH_CHECK_OTHER);
	entry = region->table[1];
	assert_int_equal(flash_scan_record(&scanner, 7, 1, &entry, &record), FLASH_CHECK_NO_HEAD);
	flash_scanner_fini(&scanner); /* what it has read is of before */
	scanner_open();
	payload = image_at(&image, entry.unit + 1);
	payload[69999] ^= 1;
	assert_int_equal(flash_scan_record(&scanner, 6, 1, &entry, &record), FLASH_CHECK_TORN);
	payload[69999] ^= 1;
	bad_from = flash_byte_of(&image.layout, entry.unit + 100);
	bad_to = bad_from + 1;
	flash_scanner_fini(&scanner);
	scanner_open();
	assert_int_equal(flash_scan_record(&scanner, 6, 1, &entry, &record), FLASH_CHECK_TORN);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(super_copies),
		CASE(super_of_a_newer_version),
		CASE(super_of_nothing),
		CASE(space_copies),
		CASE(sealed_regions),
		CASE(a_sealed_region_takes_few_reads),
		CASE(an_empty_region_takes_few_reads),
		CASE(open_regions),
		CASE(regions_that_are_none),
		CASE(an_earlier_use_is_gone),
		CASE(a_lost_head_costs_one_record),
		CASE(a_torn_payload_costs_one_record),
		CASE(a_lost_table_costs_nothing),
		CASE(what_cannot_be_read),
		CASE(damage_at_random),
		CASE(a_payload_is_no_record),
		CASE(a_table_that_is_read_by_itself),
		CASE(marks_of_a_region),
		CASE(one_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
