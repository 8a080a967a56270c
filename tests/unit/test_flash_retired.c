/* SPDX-License-Identifier: Apache-2.0 */
/* Regions that were given up once stay so, and what can be read of them is served. */
#include "flash_device.h"

#include "stages/flash/atrest.h"

static int named(void *context, const struct cairn_finding *finding)
{
	char text[32];

	snprintf(text, sizeof(text), "region %u: retired", *(uint32_t *)context);
	if (finding->kind == CAIRN_FINDING_NOTE && strstr(finding->what, text))
		*(uint32_t *)context = UINT32_MAX;
	return 0;
}

static int detail_of(void *context, const struct cairn_detail *detail)
{
	if (strcmp(detail->name, "regions_retired") == 0 &&
	    strtoul(detail->text, NULL, 10) == *(uint32_t *)context)
		*(uint32_t *)context = UINT32_MAX;
	return 0;
}

/* What people are told of a store at rest. */
static void told_of(uint32_t region)
{
	char path[256];
	struct flash_rest_opts opts = {.sys = &sys_native, .stage = "flash", .path = path};
	uint32_t by_check = region, by_info = region;

	snprintf(path, sizeof(path), "%s/store", store.path);
	assert_true(flash_rest_check(&opts, named, &by_check, NULL) >= 0);
	assert_int_equal(by_check, UINT32_MAX);
	assert_int_equal(flash_rest_inspect(&opts, CAIRN_INSPECT_STORE, detail_of, &by_info, NULL),
			 0);
	assert_int_equal(by_info, UINT32_MAX);
}

static uint32_t region_of(uint32_t number)
{
	return flash_region_of(&file.layout, file_record(number, 0)->unit);
}

/* It is read, but for what could not be. */
static void still_served(uint32_t region)
{
	for (uint32_t i = 0; i < 50; i++)
		if (i == 7 || region_of(i) == region)
			assert_int_equal(load_one(&store, i, 0, SHARD), i == 7 ? -ENOENT : 0);
}

/* ... and never written to, over some lives of the log. */
static void still_retired(uint32_t region, uint32_t first)
{
	fail_range(&device.writes[0], flash_region_at(&file.layout, region),
		   flash_region_at(&file.layout, region + 1), -EIO);
	for (uint32_t i = first; i < first + 3000; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	assert_int_equal(flash_counter("io_errors"), 0);
	assert_int_equal(flash_counter("retired_regions"), 0);
	fail_range(&device.writes[0], 0, 0, 0);
}

/* A block of it that cannot be read; the region's number. */
static uint32_t retire_one(void)
{
	uint64_t at;
	uint32_t region;

	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	at = flash_byte_of(&file.layout, file_record(7, 0)->unit);
	region = flash_region_of(&file.layout, file_record(7, 0)->unit);
	fail_range(&device.reads[0], at, at + 1, -EIO);
	assert_int_equal(load_one(&store, 7, 0, SHARD), -EIO);
	fail_range(&device.reads[0], 0, 0, 0);
	return region;
}

static void a_region_stays_retired(void **state)
{
	(void)state;
	for (int killed = 0; killed < 2; killed++) {
		uint32_t region = retire_one();

		/* What it was retired for is known to the file before a later flush ends. */
		assert_int_equal(remove_block(99, CAIRN_DURABLE), 0);
		crash_copy();
		if (killed)
			crash();
		else
			reopen();
		if (killed)
			open_again(1, SHARD);
		still_served(region);
		still_retired(region, 1000);
		reopen();
		still_retired(region, 5000);
		assert_int_equal(cairn_store_close(store.store, UINT64_MAX), 0);
		told_of(region);
		open_again(1, SHARD);
		end();
	}
}

/* The power goes while the superblock tells: the copy before it counts. */
static void a_retirement_that_is_cut_short(void **state)
{
	(void)state;
	for (int torn = 0; torn < 2; torn++) {
		struct flash_super_found found;
		uint32_t region;

		region = retire_one();
		assert_int_equal(remove_block(99, CAIRN_DURABLE), 0);
		crash_copy();
		crash();
		file_super(&found);
		assert_int_equal(found.super.retired_count, 1);
		assert_int_equal(found.retired[0], region);
		if (torn) /* the list is not what the head says */
			file_write(flash_super_at(found.super.counter % 2) + 256, "torn", 4);
		open_again(1, SHARD);
		for (uint32_t i = 0; i < 50; i++)
			assert_int_equal(load_one(&store, i, 0, SHARD), i == 7 ? -ENOENT : 0);
		end();
	}
}

/* ---- suspect --------------------------------------------------------------------------- */

/* The payload of a block is not what it was. */
static void damage(uint32_t number)
{
	const struct flash_table_entry *entry = file_record(number, 0);

	file_write(flash_byte_of(&file.layout, entry->unit + 2), "damaged", 7);
}

/* It is reclaimed next, although others are older; what is good in it is served until then. */
static void a_suspect_region_goes_first(void **state)
{
	uint64_t reclaimed;
	uint32_t next = 600, region;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < next; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	damage(400);
	region = region_of(400);
	assert_int_equal(flash_counter("regions_suspect"), 0);
	assert_int_equal(load_one(&store, 400, 0, SHARD), -EBADMSG);
	assert_int_equal(flash_counter("regions_suspect"), 1);
	assert_int_equal(load_one(&store, 400, 0, SHARD), -ENOENT);
	assert_int_equal(region_of(401), region);
	assert_int_equal(load_one(&store, 401, 0, SHARD), 0);
	reclaimed = flash_counter("reclaimed_regions");
	/* One may have been under way. */
	for (; flash_counter("reclaimed_regions") < reclaimed + 2; next++)
		assert_int_equal(dump_one(&store, next, 0, SHARD, 0), 0);
	assert_int_equal(flash_counter("regions_suspect"), 0);
	assert_int_equal(flash_counter("retired_regions"), 0);
	end();
}

static void a_region_that_is_damaged_again_and_again_is_retired(void **state)
{
	uint32_t region;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	region = region_of(3);
	for (uint32_t i = 3; i < 6; i++) {
		assert_int_equal(region_of(i), region);
		assert_int_equal(flash_counter("retired_regions"), 0);
		damage(i);
		assert_int_equal(load_one(&store, i, 0, SHARD), -EBADMSG);
	}
	assert_int_equal(flash_counter("retired_regions"), 1);
	assert_int_equal(flash_counter("regions_suspect"), 0);
	assert_int_equal(load_one(&store, 8, 0, SHARD), 0);
	reopen();
	assert_int_equal(load_one(&store, 8, 0, SHARD), 0);
	still_retired(region, 1000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_region_stays_retired),
		cmocka_unit_test(a_retirement_that_is_cut_short),
		cmocka_unit_test(a_suspect_region_goes_first),
		cmocka_unit_test(a_region_that_is_damaged_again_and_again_is_retired),
	};

	return cmocka_run_group_tests_name("flash_retired", tests, NULL, NULL);
}
