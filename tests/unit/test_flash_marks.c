/* SPDX-License-Identifier: Apache-2.0 */
/* The marks of records in memory: how much of it they take, and whose they are. */
#include "flash_device.h"

#include <sys/mman.h>

#define PAGE 4096u

/* One of its own size. */
static int dump_sized(uint32_t number, size_t bytes)
{
	static uint8_t memory[128u << 10];
	struct cairn_key key = key_of(&store, number);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, memory, bytes);

	assert_true(bytes <= sizeof(memory));
	content(&key, 0, memory, bytes);
	xfer.shard_count = 1;
	xfer.shard_bytes = bytes;
	cairn_dump(store.ns, &xfer, 1, NULL, NULL);
	return xfer.result.status;
}

/* ---- memory ---------------------------------------------------------------------- */

#define MAPS_MAX 64u

/* What was reserved, to find the marks among it. */
static struct {
	uint8_t *base;
	size_t bytes;
} maps[MAPS_MAX];
static uint32_t map_count;

static int noting_mmap(void *address, size_t bytes, int prot, int flags, int fd, off_t offset,
		       void **ret_address)
{
	int rc = sys_native.mmap(address, bytes, prot, flags, fd, offset, ret_address);

	if (rc == 0 && map_count < MAPS_MAX) {
		maps[map_count].base = *ret_address;
		maps[map_count++].bytes = bytes;
		madvise(*ret_address, bytes, MADV_NOHUGEPAGE); /* a page is to count as one */
	}
	return rc;
}

static size_t resident_marks(void)
{
	size_t bytes = (size_t)file.layout.region_count * file.layout.records_max, resident = 0;
	unsigned char pages[4096];

	assert_true(bytes / PAGE < sizeof(pages));
	for (uint32_t i = 0; i < map_count; i++) {
		if (maps[i].bytes != bytes)
			continue;
		assert_int_equal(mincore(maps[i].base, bytes, pages), 0);
		for (size_t page = 0; page * PAGE < bytes; page++)
			resident += (pages[page] & 1) * PAGE;
		return resident;
	}
	fail_msg("no memory is reserved for the marks");
	return 0;
}

/* With a full index, whose tables take no more memory, regions of few records come and go. */
static void memory_is_of_numbers_given_out(void **state)
{
	enum { LARGE = 32768, ENTRIES = 64, BLOCKS = 2500 };
	uint64_t before, more;
	size_t all, regions;

	(void)state;
	fixture_new(&store);
	device_reset();
	device.table.mmap = noting_mmap;
	snprintf(options, sizeof(options), "size=256MiB, region=32MiB, entries=%u", ENTRIES);
	map_count = 0;
	open_again(1, LARGE);
	file_scan();
	regions = file.layout.region_count;
	all = regions * file.layout.records_max;
	assert_true(file.layout.records_max > 7 * PAGE);
	for (uint32_t i = 0; i < ENTRIES; i++)
		assert_int_equal(dump_one(&store, i, 0, LARGE, 0), 0);
	before = flash_counter("index_bytes"); /* with the marks of one region */
	for (uint32_t i = ENTRIES; i < BLOCKS; i++)
		assert_int_equal(dump_one(&store, i, 0, LARGE, 0), 0);
	assert_true(flash_counter("reclaimed_regions") >= 4 * regions);
	more = flash_counter("index_bytes") - before;
	/* The few that a region has lie in one page, or two. */
	assert_true(2 * PAGE * regions < all / 3);
	assert_true(resident_marks() <= 2 * PAGE * regions);
	assert_true(more + PAGE >= resident_marks());
	assert_true(more >= 2 * PAGE && more <= 2 * PAGE * regions);
	end();
}

/* Of a whole store: blocks of one shard, with all that is kept of each. */
static void a_block_takes_less_than_48_bytes(void **state)
{
	enum { SMALL = 512, BLOCKS = 60000 };
	uint64_t before;

	(void)state;
	begin("size=96MiB, region=8MiB, entries=100k", 0, 0);
	before = flash_counter("index_bytes");
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(dump_sized(i, SMALL), 0);
	assert_int_equal(flash_counter("published_blocks"), BLOCKS);
	assert_true(flash_counter("index_bytes") - before <= 48u * BLOCKS);
	end();
}

/* ---- whose they are ------------------------------------------------------------------ */

/*
 * Regions of many records that were removed, then of few large ones, then of many again: what
 * a number was once marked with says nothing of the record that has it now.
 */
static void a_mark_dies_with_its_use(void **state)
{
	enum { SMALL = 512, LARGE = 60000, MANY = 9000, FEW = 400, END = 2 * MANY + FEW };

	(void)state;
	begin("size=8MiB, region=512KiB, entries=16k", 0, 0);
	for (uint32_t i = 0; i < END; i++) {
		bool large = i >= MANY && i < MANY + FEW;

		assert_int_equal(dump_sized(i, large ? LARGE : SMALL), 0);
		if (i < MANY)
			assert_int_equal(remove_block(i, 0), 0);
	}
	fixture_close(&store); /* all marks are in the file */
	open_again(0, 0);
	for (uint32_t i = END - FEW; i < END; i++) /* those are too young to have been evicted */
		assert_int_equal(load_one(&store, i, 0, SMALL), 0);
	end();
}

/*
 * A page of marks that cannot be read kills what it tells of, and no other record of its region,
 * whose table gets as many entries as it has records.
 */
static void a_lost_page_of_marks_costs_no_other(void **state)
{
	enum { SMALL = 512, LARGE = 100000, MANY = FLASH_MARKS_PER_PAGE, LAST = MANY + 38 };
	const struct flash_table_entry *last;
	uint32_t region;

	(void)state;
	begin("size=64MiB, region=8MiB, entries=16k", 0, 0);
	for (uint32_t i = 0; i <= LAST; i++)
		assert_int_equal(dump_sized(i, i < MANY ? SMALL : LARGE), 0);
	last = file_record(LAST, 0);
	region = flash_region_of(&file.layout, last->unit);
	assert_int_equal(region, flash_region_of(&file.layout, file_record(0, 0)->unit));
	/* Where the table of a region that is full of small records would begin. */
	assert_true(last->unit + 2 >
		    flash_table_unit(&file.layout, region, file.layout.records_max));
	crash_copy();
	crash();
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		uint64_t at = flash_marks_at(&file.layout, region, 0, copy);

		fail_range(&device.reads[copy], at, at + 1, -EIO);
	}
	for (int again = 0; again < 2; again++) {
		open_again(0, 0);
		assert_false(present(&store, 0));
		assert_int_equal(load_one(&store, LAST, 0, LARGE), 0);
		assert_int_equal(load_one(&store, MANY, 0, LARGE), 0);
		if (!again)
			fixture_close(&store);
	}
	end();
}

/* A page in the file that says of all numbers of this use that they are dead. */
static void mark_all_dead(const struct flash_id *id, uint32_t region, uint64_t seq)
{
	struct flash_marks marks = {
		.region = region, .region_seq = seq, .counter = 1000 * FLASH_COPIES, .page = 0};

	memset(marks.marks, FLASH_MARK_DEAD, sizeof(marks.marks));
	flash_marks_seal(&marks, flash_salt(id, seq));
	file_write(flash_marks_at(&file.layout, region, 0, 0), &marks, sizeof(marks));
}

/*
 * Records that never came to the file may have marks there, in a region that is closed without
 * any: their numbers are not given out once more in that use of it.
 */
static void numbers_that_have_marks_are_not_given_again(void **state)
{
	enum { LARGE = 30000, FEW = 4, MANY = 150 };
	struct flash_scanner scanner;
	struct flash_super_found super;
	uint32_t empty = 0;
	int fd;

	(void)state;
	begin("size=8MiB, region=512KiB", 0, 0);
	for (uint32_t i = 0; i < FEW; i++)
		assert_int_equal(dump_sized(i, LARGE), 0);
	fixture_close(&store);
	file_scan();
	file_super(&super);
	fd = file_open(O_RDONLY);
	assert_int_equal(flash_scanner_init(&scanner, &sys_native, fd, &super), 0);
	for (uint32_t i = 0; i < file.layout.region_count; i++) {
		struct flash_region_found found;

		flash_scan_look(&scanner, i, &found);
		if (found.state != FLASH_FOUND_OPEN)
			continue;
		mark_all_dead(&super.super.id, i, found.seq);
		empty++;
	}
	flash_scanner_fini(&scanner);
	close(fd);
	assert_true(empty > 0);
	open_again(0, 0);
	for (uint32_t i = FEW; i < MANY; i++)
		assert_int_equal(dump_sized(i, LARGE), 0);
	assert_int_equal(flash_counter("evicted_blocks"), 0);
	fixture_close(&store);
	open_again(0, 0);
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(load_one(&store, i, 0, LARGE), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_of_numbers_given_out),
		cmocka_unit_test(a_block_takes_less_than_48_bytes),
		cmocka_unit_test(a_mark_dies_with_its_use),
		cmocka_unit_test(a_lost_page_of_marks_costs_no_other),
		cmocka_unit_test(numbers_that_have_marks_are_not_given_again),
	};

	/* Much is written: in memory, where there is a place for files there. */
	if (access("/dev/shm", W_OK) == 0)
		setenv("TEST_DIR", "/dev/shm", 0);
	return cmocka_run_group_tests_name("flash, marks", tests, NULL, NULL);
}
