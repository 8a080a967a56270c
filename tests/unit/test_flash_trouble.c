/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flash tier on a device that is in trouble: ranges of the file that cannot be
 * read or written, writes that take as long as the test says, a file without room.
 */
#include "flash_device.h"

/* ---- room ------------------------------------------------------------------------------ */

static void a_block_of_more_than_a_region(void **state)
{
	enum { SHARDS = 5, BYTES = 30000 };
	static uint8_t memory[SHARDS * BYTES];
	struct cairn_xfer xfers[SHARDS];

	(void)state;
	begin("size=8MiB, region=64KiB", SHARDS, BYTES);
	assert_int_equal(dump_many(1, 0, SHARDS, BYTES, xfers, memory, NULL), 0);
	for (uint32_t i = 0; i < SHARDS; i++)
		assert_int_equal(load_one(&store, 1, i, BYTES), 0);
	end();
}

/* All that the index names lies in a region that is not full yet. */
static void a_full_index_evicts(void **state)
{
	(void)state;
	begin("size=16MiB, region=1MiB, entries=16", 1, SHARD);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
		assert_int_equal(load_one(&store, i, 0, SHARD), 0);
		assert_true(blocks_known(&store) <= 16);
	}
	assert_true(flash_counter("evicted_blocks") >= 84);
	assert_int_equal(flash_counter("refused"), 0);
	end();
}

/* ---- blocks being written ---------------------------------------------------------------- */

/* May have gone with a region, and never comes back with other bytes. */
static bool both_there(uint32_t number)
{
	for (uint32_t shard = 0; shard < 2; shard++) {
		int ret = load_one(&store, number, shard, SHARD);

		assert_true(ret == 0 || ret == -ENOENT);
		if (ret < 0)
			return false;
	}
	return true;
}

/* A reclaim reads a shard in vain while another shard of its block is being written. */
static void damage_in_a_block_that_is_being_written(void **state)
{
	static uint8_t memory[SHARD];
	struct cairn_xfer xfer;
	struct cairn_key key;
	uint64_t task, at;
	uint32_t next = 100;

	(void)state;
	begin("size=8MiB, region=512KiB", 2, SHARD);
	key = key_of(&store, 1);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	at = flash_byte_of(&file.layout, file_record(1, 0)->unit);
	fail_range(&device.reads[0], at, at + SHARD, -EIO);
	for (; next < 140; next++) /* more than a region takes: it can be a victim */
		dump_block(next, 2);
	hold_write(&key, 1);
	assert_int_equal(dump_many(1, 1, 1, SHARD, &xfer, memory, &task), 0);
	await_held();
	for (; !flash_counter("damaged_blocks") && next < 2000; next++)
		dump_block(next, 2);
	assert_int_equal(flash_counter("damaged_blocks"), 1);
	assert_int_equal(flash_counter("retired_regions"), 1);
	release_held();
	assert_int_equal(cairn_task_wait(store.store, task, 0, UINT64_MAX), 0);
	assert_int_equal(xfer.result.status, 0);
	assert_false(present(&store, 1));
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	/* Shard 1 lies in the oldest region: the next reclaim may be at it already. */
	for (uint32_t tries = 0; !both_there(1); tries++) {
		assert_true(tries < 10);
		for (uint32_t shard = 0; shard < 2; shard++)
			assert_true(dump_one(&store, 1, shard, SHARD, 0) >= 0);
	}
	end();
}

/* Cleared while one shard of it is being written, and the region of another is reclaimed. */
static void a_clear_of_a_block_that_is_being_written(void **state)
{
	static uint8_t memory[SHARD];
	struct cairn_xfer xfer;
	struct cairn_key key;
	uint64_t task;
	uint32_t next = 100;

	(void)state;
	begin("size=8MiB, region=512KiB", 2, SHARD);
	key = key_of(&store, 1);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	for (; next < 140; next++)
		dump_block(next, 2);
	hold_write(&key, 1);
	assert_int_equal(dump_many(1, 1, 1, SHARD, &xfer, memory, &task), 0);
	await_held();
	assert_int_equal(cairn_clear(store.ns, CAIRN_WRITTEN), 0);
	for (; flash_counter("reclaimed_regions") < 40; next++)
		dump_block(next, 2);
	release_held();
	assert_int_equal(cairn_task_wait(store.store, task, 0, UINT64_MAX), 0);
	assert_int_equal(xfer.result.status, -ESTALE);
	dump_block(1, 2);
	for (uint32_t shard = 0; shard < 2; shard++)
		assert_int_equal(load_one(&store, 1, shard, SHARD), 0);
	end();
}

/* Removed while it is written, and gone on with: never two blocks of one birth. */
static void a_birth_is_used_once(void **state)
{
	enum { SHARDS = 2, BYTES = 1 << 19 }; /* one io, and a write for each record */
	static uint8_t memory[SHARDS * BYTES];
	struct cairn_xfer xfers[SHARDS];
	struct cairn_key key;
	uint64_t task, removal;

	(void)state;
	begin("size=64MiB, region=4MiB", SHARDS, BYTES);
	key = key_of(&store, 1);
	hold_write(&key, 0);
	assert_int_equal(dump_many(1, 0, SHARDS, BYTES, xfers, memory, &task), 0);
	await_held();
	assert_int_equal(cairn_remove(store.ns, &key, 1, NULL, NULL, &removal), 0);
	remove_block(2, 0); /* one after the other on the one reactor: the first has begun */
	release_held();
	assert_int_equal(cairn_task_wait(store.store, removal, 0, UINT64_MAX), 0);
	assert_int_equal(cairn_task_wait(store.store, task, 0, UINT64_MAX), 0);
	assert_int_equal(xfers[0].result.status, -ESTALE);
	file_scan();
	assert_true(file.count >= 2);
	for (uint32_t i = 0; i < file.count; i++)
		for (uint32_t j = 0; j < i; j++)
			assert_true(file.entries[i].birth != file.entries[j].birth);
	end();
}

/* ---- what cannot be read at open ------------------------------------------------------------ */

/* A remove that may find nothing, and lasts all the same. */
static void remove_for_good(uint32_t number)
{
	int ret = remove_block(number, CAIRN_DURABLE);

	assert_true(ret == 0 || ret == -ENOENT);
	assert_false(present(&store, number));
}

static void a_copy_of_the_superblock_is_enough(void **state)
{
	struct cairn_error error = {0};

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		fail_range(&device.reads[0], flash_super_at(copy), flash_super_at(copy) + 1, -EIO);
		reopen();
		assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	}
	fixture_close(&store);
	fail_range(&device.reads[0], 0, flash_super_at(1) + 1, -EIO);
	assert_int_equal(try_open(&error), -EIO);
	assert_non_null(strstr(error.text, store.path));
	assert_null(strchr(error.text, '\n'));
	fail_range(&device.reads[0], 0, 0, 0);
	open_again(1, SHARD);
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	end();
}

/* The copy that says that the store is open is lost: the other one knows older sequences. */
static void an_older_superblock_gives_no_sequence_twice(void **state)
{
	struct flash_super_found found;
	uint64_t at, birth;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	reopen();
	assert_int_equal(dump_one(&store, 1, 0, SHARD, CAIRN_DURABLE), 0);
	birth = file_record(1, 0)->birth;
	crash_copy();
	crash();
	file_super(&found);
	at = flash_super_at(found.super.counter % FLASH_COPIES);
	fail_range(&device.reads[0], at, at + 1, -EIO);
	open_again(1, SHARD);
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(dump_one(&store, 2, 0, SHARD, CAIRN_DURABLE), 0);
	assert_true(file_record(2, 0)->birth > birth);
	end();
}

static void a_region_that_is_not_read_costs_no_other(void **state)
{
	uint64_t at;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < 200; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	at = region_begin(file_record(0, 0));
	fail_range(&device.reads[0], at, at + file.layout.region_bytes, -EIO);
	reopen();
	for (uint32_t i = 0; i < 200; i++)
		assert_int_equal(present(&store, i), region_begin(file_record(i, 0)) != at);
	/* It is passed over as long as there are others, over many lives of the log. */
	for (uint32_t i = 200; i < 3000; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&store, 2999, 0, SHARD), 0);
	assert_int_equal(flash_counter("io_errors"), 0);
	end();
}

/* Where nothing was removed, what could not be read may come back; else it must not. */
static void a_region_that_was_not_read_does_not_come_back(void **state)
{
	uint64_t at;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	at = region_begin(file_record(1, 0));
	fail_range(&device.reads[0], at, at + 1, -EIO);
	reopen();
	assert_false(present(&store, 1));
	fail_range(&device.reads[0], 0, 0, 0);
	reopen();
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	fail_range(&device.reads[0], at, at + 1, -EIO);
	reopen();
	fail_range(&device.writes[0], at, at + 1, -EIO);
	assert_int_equal(remove_block(1, CAIRN_DURABLE), -EIO); /* it cannot be promised */
	fail_range(&device.writes[0], 0, 0, 0);
	remove_for_good(1);
	fail_range(&device.reads[0], 0, 0, 0);
	reopen();
	assert_false(present(&store, 1));
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	end();
}

/* Of a region that was open. */
static void a_record_that_was_not_read_does_not_come_back(void **state)
{
	uint64_t at;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, CAIRN_DURABLE), 0);
	at = flash_byte_of(&file.layout, file_record(2, 0)->unit);
	crash_copy();
	crash();
	fail_range(&device.reads[0], at, at + 1, -EIO);
	open_again(1, SHARD);
	assert_false(present(&store, 2));
	remove_for_good(2);
	crash_copy();
	fail_range(&device.reads[0], 0, 0, 0);
	reopen();
	assert_false(present(&store, 2));
	crash();
	open_again(1, SHARD);
	assert_false(present(&store, 2));
	for (uint32_t i = 1; i < 4; i += 2)
		assert_int_equal(load_one(&store, i, 0, SHARD), 0);
	end();
}

/* Marks that cannot be read, one copy or both: what was removed is not known to be there. */
static void a_block_does_not_come_back_for_marks_that_are_not_read(void **state)
{
	(void)state;
	for (uint32_t bad = 1; bad < 4; bad++) {
		uint32_t region;

		begin("size=8MiB, region=512KiB", 1, SHARD);
		for (uint32_t i = 1; i < 4; i++)
			assert_int_equal(dump_one(&store, i, 0, SHARD, CAIRN_DURABLE), 0);
		remove_for_good(1);
		region = flash_region_of(&file.layout, file_record(2, 0)->unit);
		crash_copy();
		crash();
		for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
			uint64_t at = flash_marks_at(&file.layout, region, 0, copy);

			if (bad >> copy & 1)
				fail_range(&device.reads[copy], at, at + 1, -EIO);
		}
		open_again(1, SHARD);
		assert_false(present(&store, 1));
		remove_for_good(2);
		memset(device.reads, 0, sizeof(device.reads));
		crash_copy();
		crash();
		open_again(1, SHARD);
		assert_false(present(&store, 1) || present(&store, 2));
		end();
	}
}

/* ---- while it runs --------------------------------------------------------------------------- */

static void a_place_that_cannot_be_read_is_not_used_again(void **state)
{
	uint64_t at;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	at = flash_byte_of(&file.layout, file_record(7, 0)->unit);
	fail_range(&device.reads[0], at, at + 1, -EIO);
	assert_int_equal(load_one(&store, 7, 0, SHARD), -EIO);
	assert_int_equal(flash_counter("retired_regions"), 1);
	assert_false(present(&store, 7)); /* a miss from now on */
	assert_int_equal(blocks_known(&store), 99);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(load_one(&store, i, 0, SHARD), i == 7 ? -ENOENT : 0);
	for (uint32_t i = 100; i < 3000; i++) {
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
		assert_int_equal(load_one(&store, i, 0, SHARD), 0);
	}
	assert_int_equal(flash_counter("retired_regions"), 1);
	end();
}

/* @error: of a device that is bad in places, or of a file that has holes on a full disk. */
static void places_take_no_writes(int error)
{
	uint32_t refused = 0;

	begin("size=8MiB, region=512KiB", 1, SHARD);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	file_scan();
	fail_range(&device.writes[0], flash_region_at(&file.layout, 3) + MIB / 4,
		   flash_region_at(&file.layout, 3) + MIB / 4 + 1, error);
	fail_range(&device.writes[1], flash_region_at(&file.layout, 7),
		   flash_region_at(&file.layout, 8), error);
	for (uint32_t i = 2; i < 3000; i++) {
		int ret = dump_one(&store, i, 0, SHARD, 0);

		assert_true(ret == 0 || ret == error);
		assert_int_equal(present(&store, i), ret == 0);
		assert_int_equal(load_one(&store, i, 0, SHARD), ret == 0 ? 0 : -ENOENT);
		refused += ret < 0;
	}
	assert_true(refused <= 2);
	assert_true(flash_counter("retired_regions") <= 2);
	assert_true(du(store.path) <= 9u << 20);
	reopen();
	assert_int_equal(load_one(&store, 2999, 0, SHARD), 0);
	end();
}

static void regions_that_take_no_writes_are_retired(void **state)
{
	(void)state;
	places_take_no_writes(-EIO);
	places_take_no_writes(-ENOSPC);
}

/* ---- a reclaim that cannot go on --------------------------------------------------------------
 */

/* From now on; the next @left of them go well. */
static void count_carries(uint64_t left)
{
	pthread_mutex_lock(&device.lock);
	device.carries_left = left;
	pthread_mutex_unlock(&device.lock);
}

static uint32_t carries(void)
{
	uint32_t count;

	pthread_mutex_lock(&device.lock);
	count = device.carried_count;
	pthread_mutex_unlock(&device.lock);
	return count;
}

static uint32_t number_of(const struct cairn_key *key, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct cairn_key other = key_of(&store, i);

		if (memcmp(key, &other, sizeof(other)) == 0)
			return i;
	}
	return UINT32_MAX;
}

/*
 * Some of a victim was carried, and then there was no place for more: the victim stays, and
 * what was carried counts in its new place alone.
 */
static void what_was_carried_out_of_a_victim_that_stays(void **state)
{
	enum { BYTES = 60000, BLOCKS = 400 };
	uint64_t holds[BLOCKS] = {0};
	uint32_t count, gone;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, BYTES);
	count_carries(2);
	for (count = 0; count < BLOCKS; count++) {
		if (dump_one(&store, count, 0, BYTES, CAIRN_DURABLE) < 0)
			break;
		if (count % 2)
			holds[count] = hold_block(count);
	}
	assert_true(count < BLOCKS);
	assert_int_equal(carries(), 2);
	for (uint32_t i = 1; i < count; i += 2)
		assert_int_equal(load_one(&store, i, 0, BYTES), 0);
	gone = number_of(&device.carried[0], count);
	assert_true(gone < count && gone % 2);
	assert_int_equal(remove_block(gone, CAIRN_DURABLE), 0);
	crash_copy();
	for (uint32_t i = 0; i < count; i++)
		if (holds[i])
			assert_int_equal(cairn_hold_release(store.store, holds[i]), 0);
	crash();
	device_reset();
	open_again(1, BYTES);
	for (uint32_t i = 1; i < count; i += 2)
		assert_int_equal(load_one(&store, i, 0, BYTES), i == gone ? -ENOENT : 0);
	end();
}

static void turn_byte(uint64_t at)
{
	int fd = file_open(O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/*
 * Records that lie side by side are carried together: where one of them does not check, or cannot
 * be read, it is that one that goes, and what is carried of the others is right.
 */
static void carried_together(bool unread)
{
	enum { HELD = 40, BAD = 17, OTHERS = 2000 };
	uint64_t begin_at, length;
	const struct flash_table_entry *entry;
	uint32_t next = HELD;

	begin("size=8MiB, region=512KiB, policy=fifo", 1, SHARD);
	for (uint32_t i = 0; i < HELD; i++) {
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
		hold_block(i);
	}
	while (!flash_counter("sealed_regions"))
		assert_int_equal(dump_one(&store, next++, 0, SHARD, 0), 0);
	entry = file_record(BAD, 0);
	begin_at = flash_byte_of(&file.layout, entry->unit);
	length = flash_byte_of(&file.layout, flash_record_units(&file.layout, SHARD));
	if (unread)
		fail_range(&device.reads[0], begin_at, begin_at + length, -EIO);
	else
		turn_byte(begin_at + length - 100);
	count_carries(OTHERS);
	while (flash_counter("carried_bytes") < (HELD - 1) * length && next < OTHERS)
		assert_int_equal(dump_one(&store, next++, 0, SHARD, 0), 0);
	assert_int_equal(flash_counter("carried_bytes"), (HELD - 1) * length);
	assert_true(unread || carries() <= 2); /* writes, of 32 records and of 7 */
	assert_int_equal(flash_counter("damaged_blocks"), 1);
	for (uint32_t i = 0; i < HELD; i++)
		assert_int_equal(load_one(&store, i, 0, SHARD), i == BAD ? -ENOENT : 0);
	crash_copy();
	crash();
	open_again(1, SHARD);
	for (uint32_t i = 0; i < HELD; i++)
		assert_true((load_one(&store, i, 0, SHARD) == 0) == (i != BAD));
	end();
}

static void one_of_those_carried_together_is_bad(void **state)
{
	(void)state;
	carried_together(false);
	carried_together(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_of_more_than_a_region),
		cmocka_unit_test(a_full_index_evicts),
		cmocka_unit_test(damage_in_a_block_that_is_being_written),
		cmocka_unit_test(a_clear_of_a_block_that_is_being_written),
		cmocka_unit_test(a_birth_is_used_once),
		cmocka_unit_test(a_copy_of_the_superblock_is_enough),
		cmocka_unit_test(an_older_superblock_gives_no_sequence_twice),
		cmocka_unit_test(a_region_that_is_not_read_costs_no_other),
		cmocka_unit_test(a_region_that_was_not_read_does_not_come_back),
		cmocka_unit_test(a_record_that_was_not_read_does_not_come_back),
		cmocka_unit_test(a_block_does_not_come_back_for_marks_that_are_not_read),
		cmocka_unit_test(a_place_that_cannot_be_read_is_not_used_again),
		cmocka_unit_test(regions_that_take_no_writes_are_retired),
		cmocka_unit_test(what_was_carried_out_of_a_victim_that_stays),
		cmocka_unit_test(one_of_those_carried_together_is_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
