/* SPDX-License-Identifier: Apache-2.0 */
/* What was used lately is known after the process was killed, too: the cache is warm, not only
 * full. */
#include "flash_device.h"

#define OLD	 300u /* blocks, of which each tenth is used again */
#define ALL	 650u /* fill the log but for what is kept free */
#define PRESSURE 500u /* more than half of the log */

static bool is_hot(uint32_t number)
{
	return number < OLD && number % 10 == 0;
}

/* Marks in the file that tell a use. */
static uint32_t uses_told(void)
{
	struct flash_scanner scanner;
	struct flash_super_found super;
	uint8_t *marks;
	uint32_t told = 0;
	int fd = file_open(O_RDONLY);

	assert_int_equal(flash_scan_super(&sys_native, fd, &super), 0);
	assert_int_equal(flash_scanner_init(&scanner, &sys_native, fd, &super), 0);
	marks = malloc(super.layout.records_max);
	for (uint32_t i = 0; i < super.layout.region_count; i++) {
		struct flash_region_found found;
		struct flash_marks_found in_marks;

		flash_scan_header(&scanner, i, &found);
		if (found.state != FLASH_FOUND_OPEN)
			continue;
		flash_scan_marks(&scanner, i, found.seq, super.layout.records_max, marks, NULL,
				 &in_marks);
		for (uint32_t at = 0; at < super.layout.records_max; at++)
			told += marks[at] != FLASH_MARK_NONE && marks[at] != FLASH_MARK_DEAD;
	}
	free(marks);
	flash_scanner_fini(&scanner);
	close(fd);
	return told;
}

static uint32_t count_present(bool hot)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < OLD; i++)
		count += is_hot(i) == hot && present(&store, i);
	return count;
}

static void a_hot_set_survives_a_kill(void **state)
{
	uint32_t hot = OLD / 10;

	(void)state;
	begin("size=8MiB, region=512KiB", 1, SHARD);
	for (uint32_t i = 0; i < ALL; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	assert_int_equal(count_present(true), hot);
	for (uint32_t i = 0; i < OLD; i++)
		if (is_hot(i))
			assert_int_equal(load_one(&store, i, 0, SHARD), 0);
	/*
	 * Later other blocks are used: by then all of them are told, be it after a flush, which the
	 * log does for that every ten seconds at most. One would not do: while pages are written
	 * for an earlier use, it begins nothing.
	 */
	for (uint32_t other = OLD + 1; uses_told() < hot; other++) {
		__atomic_add_fetch(&device.ahead_ns, 12000000000u, __ATOMIC_RELAXED);
		assert_true(other < ALL);
		assert_int_equal(load_one(&store, other, 0, SHARD), 0);
		usleep(1000);
	}
	crash_copy();
	crash();
	open_again(1, SHARD);
	for (uint32_t i = ALL; i < ALL + PRESSURE; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, 0), 0);
	assert_true(count_present(true) >= hot * 9 / 10);
	assert_true(count_present(false) <= (OLD - hot) / 10);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hot_set_survives_a_kill),
	};

	return cmocka_run_group_tests_name("flash_warm", tests, NULL, NULL);
}
