/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps find room wherever something can go, and what cannot go costs no others: blocks that are
 * held in regions of which nothing can be carried, blocks of too many shards, a device that takes
 * no writes for a while.
 */
#include "flash_device.h"

static void dump_all(uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
}

/* ---- a region without a table ---------------------------------------------------------- */

/* Its table cannot be written, or not be read; one block of it is held. */
static void one_is_held(const char *policy, bool read)
{
	struct range *range = read ? &device.reads[0] : &device.writes[0];
	char flash[48];
	uint64_t hold, at, errors;

	snprintf(flash, sizeof(flash), "size=8MiB, region=512KiB, policy=%s", policy);
	begin(flash, 1, SHARD);
	dump_all(0, 20);
	at = file_record(7, 0)->unit;
	at = flash_trailer_unit(&file.layout, flash_region_of(&file.layout, (uint32_t)at));
	at = flash_byte_of(&file.layout, (uint32_t)at) - 1; /* the end of the table */
	fail_range(range, at, at + 1, -EIO);
	hold = hold_block(7);
	dump_all(100, 200);
	if (!read)
		fail_range(range, 0, 0, 0);
	dump_all(1000, 1500);
	errors = flash_counter("io_errors");
	dump_all(3000, 1500);
	assert_int_equal(flash_counter("io_errors"), errors); /* it is not tried again and again */
	assert_int_equal(load_one(&store, 7, 0, SHARD), 0);
	assert_int_equal(cairn_hold_release(store.store, hold), 0);
	dump_all(5000, 1500);
	assert_int_equal(load_one(&store, 7, 0, SHARD), -ENOENT);
	end();
}

static void a_held_block_keeps_its_region_alone(void **state)
{
	static const char *const policies[] = {"cost", "lru", "fifo"};

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		for (int read = 0; read < 2; read++)
			one_is_held(policies[i], read);
}

/* ---- the index --------------------------------------------------------------------------- */

static void a_block_of_too_many_shards_costs_no_other(void **state)
{
	static uint8_t memory[40 * 4096];
	struct cairn_xfer xfers[40];
	struct cairn_namespace *small;

	(void)state;
	begin("size=8MiB, region=512KiB, shards=16", 1, SHARD);
	dump_all(0, 500);
	small = store.ns;
	fixture_space(&store, "wide", 40, 4096);
	dump_many(5000, 0, 40, 4096, xfers, memory, NULL);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(xfers[i].result.status, -ENOSPC);
	assert_int_equal(blocks_known(&store), 500);
	cairn_namespace_close(small);
	end();
}

/* ---- all is held ------------------------------------------------------------------------- */

static void declined_dumps_carry_nothing(void **state)
{
	uint32_t held = 0, next;
	uint64_t holds[2000], carried;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (; held < 2000 && dump_one(&store, held, 0, SHARD, 0) == 0; held++)
		holds[held] = hold_block(held);
	assert_true(held > 300 && held < 2000);
	for (next = 10000; next < 10020; next++)
		dump_one(&store, next, 0, SHARD, 0);
	carried = flash_counter("carried_bytes");
	for (; next < 10200; next++)
		assert_int_equal(dump_one(&store, next, 0, SHARD, 0), -ENOSPC);
	assert_int_equal(flash_counter("carried_bytes"), carried);
	for (uint32_t i = 0; i < held; i++)
		assert_int_equal(cairn_hold_release(store.store, holds[i]), 0);
	dump_all(20000, 2000);
	end();
}

/* ---- an outage --------------------------------------------------------------------------- */

static int retired_of(void *context, const struct cairn_detail *detail)
{
	if (strcmp(detail->name, "regions_retired") == 0)
		snprintf(context, 32, "%s", detail->text);
	return 0;
}

/* What the file says is given up. */
static void nothing_is_retired(void)
{
	char path[256], text[32] = "";
	struct flash_rest_opts opts = {.sys = &sys_native, .stage = "flash", .path = path};

	snprintf(path, sizeof(path), "%s/store", store.path);
	assert_int_equal(flash_rest_inspect(&opts, CAIRN_INSPECT_STORE, retired_of, text, NULL), 0);
	assert_string_equal(text, "none");
}

/* For a while the device takes no writes at all: what is there stays, and so do the regions. */
static void an_outage_costs_no_region(void **state)
{
	uint64_t before, passed_by;
	uint32_t next = 2000, ms = 0;

	(void)state;
	begin("size=16MiB, region=512KiB", 1, SHARD);
	dump_all(0, 3000);
	before = blocks_known(&store);
	fail_range(&device.writes[0], 0, UINT64_MAX, -EIO);
	for (next = 10000; flash_counter("passed_by") < 20; next++, ms++) {
		assert_true(ms < 60000);
		assert_int_equal(dump_one(&store, next, 0, SHARD, 0), -EIO);
		usleep(1000);
	}
	passed_by = flash_counter("passed_by");
	/* A few regions were open or free; one victim was begun at most. */
	assert_true(before - blocks_known(&store) <= 2 * (512u << 10) / SHARD);
	assert_true(flash_counter("retired_regions") < 12);
	for (uint32_t i = 2500; i < 2510; i++)
		assert_int_equal(load_one(&store, i, 0, SHARD), 0);
	fail_range(&device.writes[0], 0, 0, 0);
	for (ms = 0; dump_one(&store, next, 0, SHARD, 0) != 0; ms++, next++) {
		assert_true(ms < 60000); /* the superblock is tried each second */
		usleep(1000);
	}
	dump_all(20000, 5000);
	assert_true(flash_counter("passed_by") >= passed_by);
	assert_true(blocks_known(&store) + 64 > before);
	fixture_close(&store);
	nothing_is_retired();
	open_again(1, SHARD);
	dump_all(30000, 3000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_held_block_keeps_its_region_alone),
		cmocka_unit_test(a_block_of_too_many_shards_costs_no_other),
		cmocka_unit_test(declined_dumps_carry_nothing),
		cmocka_unit_test(an_outage_costs_no_region),
	};

	return cmocka_run_group_tests_name("flash_room", tests, NULL, NULL);
}
