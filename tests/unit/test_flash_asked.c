/* SPDX-License-Identifier: Apache-2.0 */
/* The log flushes nothing by itself before somebody asks for something to be durable. */
#include "flash_device.h"

#define LAP   1000u /* blocks of SHARD bytes that go once round the log, or more */
#define SUPER (2u * FLASH_PAGE)

static uint32_t flushes;
static bool flush_fails;

static int counting_fdatasync(int fd)
{
	__atomic_add_fetch(&flushes, 1, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&flush_fails, __ATOMIC_SEQ_CST) ? -EIO : sys_native.fdatasync(fd);
}

static uint32_t flushed(void)
{
	return __atomic_exchange_n(&flushes, 0, __ATOMIC_SEQ_CST);
}

static uint32_t flags(void)
{
	struct flash_super_found super;

	file_super(&super);
	return super.super.flags;
}

/* Uses are flushed each ten seconds: none go by in a lap, be the machine as slow as it may. */
static uint64_t slow_now_ns(void)
{
	return device_now_ns() / 64;
}

static void begin_counting(const char *flash)
{
	fixture_new(&store);
	device_reset();
	device.table.fdatasync = counting_fdatasync;
	device.table.now_ns = slow_now_ns;
	snprintf(options, sizeof(options), "%s", flash);
	open_again(1, SHARD);
	flushed();
}

static void again(void)
{
	reopen();
	flushed();
}

static void lap(uint32_t number)
{
	uint64_t before = flash_counter("reclaimed_regions");

	for (uint32_t i = 0; i < LAP; i++)
		assert_int_equal(dump_one(&store, number * LAP + i, 0, SHARD, 0), 0);
	assert_true(number == 0 || flash_counter("reclaimed_regions") > before + 2);
	assert_int_equal(load_one(&store, number * LAP + LAP - 1, 0, SHARD), 0);
}

static int dump_durable(uint32_t number)
{
	return dump_one(&store, number, 0, SHARD, CAIRN_DURABLE);
}

/* Guards that it flushes from then on, for good, and before not once. */
static void from_the_first_on(bool removes)
{
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	lap(1);
	lap(2);
	assert_int_equal(flushed(), 0);
	assert_int_equal(flags(), FLASH_SUPER_UNASKED);
	again();
	lap(3);
	assert_int_equal(flushed(), 0);
	assert_int_equal(flags(), FLASH_SUPER_UNASKED);
	if (removes)
		assert_int_equal(remove_block(4 * LAP - 1, CAIRN_DURABLE), 0);
	else
		assert_int_equal(dump_durable(200000), 0);
	/* What was there before, what is said of it, and more for what was asked. */
	assert_in_range(flushed(), 2, 5);
	assert_int_equal(flags(), 0);
	lap(5);
	assert_true(flushed() >= 3 * LAP * SHARD / (512u << 10) / 2);
	fixture_close(&store);
	assert_int_equal(flags(), FLASH_SUPER_CLEAN);
	open_again(1, SHARD);
	flushed();
	lap(6);
	assert_true(flushed() >= 3 * LAP * SHARD / (512u << 10) / 2);
	end();
}

static void a_dump_asks(void **state)
{
	(void)state;
	from_the_first_on(false);
}

static void a_remove_asks(void **state)
{
	(void)state;
	from_the_first_on(true);
}

static void who_opens_with_each_asks(void **state)
{
	(void)state;
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	fixture_close(&store);
	assert_int_equal(flags(), FLASH_SUPER_UNASKED | FLASH_SUPER_CLEAN);
	snprintf(options, sizeof(options), "sync=none");
	open_again(1, SHARD);
	assert_int_equal(dump_durable(200000), -EOPNOTSUPP);
	again();
	assert_int_equal(flags(), FLASH_SUPER_UNASKED);
	fixture_close(&store);
	snprintf(options, sizeof(options), "sync=each");
	open_again(1, SHARD);
	assert_int_equal(flags(), 0);
	end();
}

/* Guards that who asks for what sync=none cannot do is refused before anything is done. */
static void refused_and_as_it_was(void **state)
{
	(void)state;
	begin_counting("size=8MiB, sync=none");
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	assert_int_equal(remove_block(1, CAIRN_DURABLE), -EOPNOTSUPP);
	assert_int_equal(remove_block(2, CAIRN_DURABLE), -EOPNOTSUPP);
	assert_int_equal(cairn_clear(store.ns, CAIRN_DURABLE), -EOPNOTSUPP);
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(flash_counter("removed_blocks"), 0);
	assert_int_equal(remove_block(1, 0), 0);
	assert_int_equal(load_one(&store, 1, 0, SHARD), -ENOENT);
	end();
}

/* Guards that nobody is told of what the superblock does not say. */
static void it_is_said_first(void **state)
{
	(void)state;
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	fail_range(&device.writes[0], 0, SUPER, -EIO);
	assert_int_equal(dump_durable(200000), -EIO);
	assert_int_equal(remove_block(200001, CAIRN_DURABLE), -EIO);
	fail_range(&device.writes[0], 0, 0, 0);
	assert_int_equal(flags(), FLASH_SUPER_UNASKED);
	__atomic_store_n(&flush_fails, true, __ATOMIC_SEQ_CST);
	assert_int_equal(dump_durable(200000), -EIO);
	__atomic_store_n(&flush_fails, false, __ATOMIC_SEQ_CST);
	assert_true(dump_durable(200000) >= 0);
	assert_int_equal(flags(), 0);
	end();
}

/*
 * Guards that nobody is told of something durable that the power took before: its region has a
 * table, and not its record.
 */
static void what_the_power_took_is_written_anew(void **state)
{
	const uint32_t lost = LAP - 200, there = LAP - 199, missed = LAP - 198;
	uint64_t at[2];

	(void)state;
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	at[0] = flash_byte_of(&file.layout, file_record(lost, 0)->unit);
	at[1] = flash_byte_of(&file.layout, file_record(missed, 0)->unit);
	crash_copy();
	crash();
	file_write(at[0] + 2048, "nothing", 7);
	file_write(at[1] + 2048, "nothing", 7);
	open_again(1, SHARD);
	assert_true(present(&store, lost) && present(&store, there) && present(&store, missed));
	assert_int_equal(load_one(&store, missed, 0, SHARD), -EBADMSG);
	assert_int_equal(flash_counter("regions_suspect"), 0);
	assert_int_equal(dump_durable(lost), 0);
	assert_int_equal(dump_durable(there), 0);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(load_one(&store, lost, 0, SHARD), 0);
		assert_int_equal(load_one(&store, there, 0, SHARD), 0);
		assert_int_equal(dump_durable(lost), CAIRN_PRESENT);
		again(); /* what was unsure is so still */
	}
	assert_int_equal(dump_durable(there - 10), 0);
	assert_int_equal(dump_one(&store, there - 11, 0, SHARD, 0), CAIRN_PRESENT);
	end();
}

/* The same, that gives up after some time. */
static int dump_hurried(uint32_t number)
{
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .durability = CAIRN_DURABLE, .deadline_ns = 5000000};
	struct cairn_key key = key_of(&store, number);
	uint8_t data[SHARD];
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, SHARD);

	content(&key, 0, data, SHARD);
	cairn_dump(store.ns, &xfer, 1, &opts, NULL);
	return xfer.result.status;
}

/* Guards that a block which may lack something is not written anew beneath who holds it. */
static void *dump_held(void *number)
{
	return (void *)(intptr_t)dump_durable(*(const uint32_t *)number);
}

static void what_is_held_is_written_anew_after(void **state)
{
	struct cairn_lookup_opts opts = {.size = sizeof(opts),
					 .flags = CAIRN_LOOKUP_HOLD,
					 .hold_ns = UINT64_C(600000000000)};
	const uint32_t held = LAP - 200;
	struct cairn_found found;
	struct cairn_key key;
	pthread_t thread;
	uint64_t token;
	void *status;

	(void)state;
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	crash_copy();
	crash();
	open_again(1, SHARD);
	key = key_of(&store, held);
	memset(&found, 0, sizeof(found));
	assert_int_equal(cairn_lookup(store.ns, &key, 1, &found, &opts, &token), 1);
	assert_int_equal(dump_hurried(held), -ETIMEDOUT);
	assert_true(present(&store, held));
	assert_int_equal(dump_one(&store, held, 0, SHARD, 0), CAIRN_PRESENT);
	assert_int_equal(pthread_create(&thread, NULL, dump_held, (void *)(uintptr_t)&held), 0);
	lap(1); /* who waits for that is not who waits for room */
	assert_true(present(&store, held));
	assert_int_equal(cairn_hold_release(store.store, token), 0);
	assert_int_equal(pthread_join(thread, &status), 0);
	/* Or it was carried out of what is unsure meanwhile, and checked. */
	assert_in_range((intptr_t)status, 0, CAIRN_PRESENT);
	assert_int_equal(dump_durable(held), CAIRN_PRESENT);
	end();
}

/* A block of @shards of SHARD bytes, by its first one. */
static int dump_shaped(uint32_t number, uint32_t shards, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(&store, number);
	uint8_t data[SHARD];
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, SHARD);

	xfer.shard_count = shards;
	xfer.shard_bytes = SHARD;
	content(&key, 0, data, SHARD);
	cairn_dump(store.ns, &xfer, 1, &opts, NULL);
	return xfer.result.status;
}

/* Guards that what is refused takes nothing away, and lets nothing else pass for sure. */
static void who_brings_another_shape_is_refused(void **state)
{
	(void)state;
	fixture_new(&store);
	device_reset();
	snprintf(options, sizeof(options), "size=8MiB, region=512KiB");
	open_again(0, 0);
	assert_int_equal(dump_shaped(1, 1, 0), 0);
	crash_copy();
	crash();
	open_again(0, 0);
	assert_true(present(&store, 1));
	assert_int_equal(dump_shaped(1, 2, CAIRN_DURABLE), -EINVAL);
	assert_true(present(&store, 1));
	assert_int_equal(dump_shaped(1, 1, CAIRN_DURABLE), 0);
	assert_int_equal(dump_shaped(1, 1, CAIRN_DURABLE), CAIRN_PRESENT);
	end();
}

/* Guards that the loss of the copy that says so does not make it as if nobody had. */
static void one_copy_says_it(void **state)
{
	uint32_t copy_flags[2];
	int fd;

	(void)state;
	begin_counting("size=8MiB, region=512KiB");
	lap(0);
	assert_int_equal(dump_durable(200000), 0);
	crash_copy();
	crash();
	fd = file_open(O_RDONLY);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(
			pread(fd, &copy_flags[i], sizeof(copy_flags[i]),
			      (off_t)(flash_super_at(i) + offsetof(struct flash_super, flags))),
			sizeof(copy_flags[i]));
	close(fd);
	assert_int_equal(copy_flags[0] + copy_flags[1], FLASH_SUPER_UNASKED);
	file_write(flash_super_at(copy_flags[0] ? 1 : 0) + 48, "damage", 6);
	assert_int_equal(flags(), FLASH_SUPER_UNASKED);
	open_again(1, SHARD);
	assert_int_equal(flags(), 0);
	assert_int_equal(load_one(&store, 200000, 0, SHARD), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dump_asks),
		cmocka_unit_test(a_remove_asks),
		cmocka_unit_test(who_opens_with_each_asks),
		cmocka_unit_test(refused_and_as_it_was),
		cmocka_unit_test(it_is_said_first),
		cmocka_unit_test(what_the_power_took_is_written_anew),
		cmocka_unit_test(what_is_held_is_written_anew_after),
		cmocka_unit_test(who_brings_another_shape_is_refused),
		cmocka_unit_test(one_copy_says_it),
	};

	return cmocka_run_group_tests_name("flash, asked", tests, NULL, NULL);
}
