/* SPDX-License-Identifier: Apache-2.0 */
/* The counters page: made, read, replaced, and read when somebody wrote rubbish into it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/page.h"

static const struct sys *const sys = &sys_native;

static const struct page_counter counters[] = {
	{"store", "tasks", false},
	{"posix", "bytes_used", true},
	{"posix", "loads", false},
};

static const char *const ops[] = {"load", "lookup"};

static const struct page_shape three = {counters, 3, ops, 2}, two = {counters, 2, ops, 2};

struct seen {
	char text[512];
	uint64_t sum;
	int stop_at, count;
};

static int see(void *context, const char *stage, const char *name, bool gauge, uint64_t value)
{
	struct seen *seen = context;
	size_t length = strlen(seen->text);

	snprintf(seen->text + length, sizeof(seen->text) - length, "%s.%s%s=%llu ", stage, name,
		 gauge ? "*" : "", (unsigned long long)value);
	seen->sum += value;
	return ++seen->count == seen->stop_at ? 7 : 0;
}

static int see_latency(void *context, const char *op, const struct latency *latency)
{
	struct seen *seen = context;
	size_t length = strlen(seen->text);

	snprintf(seen->text + length, sizeof(seen->text) - length, "%s:%llu ", op,
		 (unsigned long long)latency->sum_ns);
	for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
		seen->sum += latency->counts[i];
	return ++seen->count == seen->stop_at ? 7 : 0;
}

static int read_counters(const uint8_t *uuid, struct seen *seen, struct page_info *info)
{
	return page_read(sys, uuid, &(struct page_reader){.counter = see, .context = seen}, info);
}

static int read_latencies(const uint8_t *uuid, struct seen *seen, struct page_info *info)
{
	return page_read(sys, uuid, &(struct page_reader){.latency = see_latency, .context = seen},
			 info);
}

static int read_both(const uint8_t *uuid, struct seen *seen, struct page_info *info)
{
	const struct page_reader reader = {see, see_latency, seen};

	return page_read(sys, uuid, &reader, info);
}

static int setup(void **state)
{
	uint8_t *uuid = malloc(16);

	assert_non_null(uuid);
	assert_int_equal(sys->random(uuid, 16), 0);
	*state = uuid;
	return 0;
}

static int teardown(void **state)
{
	char name[PAGE_SHM_NAME_MAX];

	page_shm_name(*state, name);
	sys->shm_unlink(name);
	free(*state);
	return 0;
}

static void a_page_is_read_by_others(void **state)
{
	const uint8_t *uuid = *state;
	struct page_info info;
	struct seen seen = {0};
	struct page *page;

	assert_int_equal(read_counters(uuid, &seen, &info), -ENOENT);
	assert_int_equal(page_create(sys, uuid, &three, &page), 0);
	page_values(page)[0] = 5;
	page_engine(page, "aio", "io_uring: no");
	page_values(page)[1] = UINT64_MAX;
	assert_int_equal(read_counters(uuid, &seen, &info), 0);
	assert_string_equal(seen.text, "store.tasks=5 posix.bytes_used*=18446744073709551615 "
				       "posix.loads=0 ");
	assert_int_equal(info.pid, getpid());
	assert_int_equal(info.counter_count, 3);
	assert_string_equal(info.engine, "aio");
	assert_string_equal(info.note, "io_uring: no");
	seen = (struct seen){.stop_at = 2};
	assert_int_equal(read_counters(uuid, &seen, &info), 7);
	assert_int_equal(seen.count, 2);
	page_close(page);
	assert_int_equal(read_counters(uuid, &seen, &info), -ENOENT);
	page_close(NULL);
}

static void latencies_are_read_by_others(void **state)
{
	const uint8_t *uuid = *state;
	struct page_info info;
	struct seen seen = {0};
	struct page *page;

	assert_int_equal(page_create(sys, uuid, &three, &page), 0);
	page_values(page)[2] = UINT64_MAX; /* the last value ends before the first latency */
	latency_add(page_latency(page, 0), 1000, 1);
	latency_add(page_latency(page, 0), UINT64_MAX, 1);
	latency_add(page_latency(page, 1), 5, 16);
	assert_int_equal(read_latencies(uuid, &seen, &info), 0);
	assert_string_equal(seen.text, "load:999 lookup:80 ");
	assert_int_equal(seen.sum, 18);
	assert_int_equal(info.latency_count, 2);
	assert_int_equal(info.pid, getpid());
	seen = (struct seen){.stop_at = 1};
	assert_int_equal(read_latencies(uuid, &seen, &info), 7);
	seen = (struct seen){0};
	assert_int_equal(read_both(uuid, &seen, &info), 0);
	assert_string_equal(seen.text, "store.tasks=0 posix.bytes_used*=0 "
				       "posix.loads=18446744073709551615 load:999 lookup:80 ");
	seen = (struct seen){.stop_at = 3};
	assert_int_equal(read_both(uuid, &seen, &info), 7);
	assert_int_equal(seen.count, 3);
	page_close(page);
	assert_int_equal(read_latencies(uuid, &seen, &info), -ENOENT);
}

static int open_page(const uint8_t *uuid)
{
	char name[PAGE_SHM_NAME_MAX];
	int fd;

	page_shm_name(uuid, name);
	fd = sys->shm_open(name, O_RDWR, 0);
	assert_true(fd >= 0);
	return fd;
}

/* What an owner of the version before shares: nothing behind the values, zeros at 72. */
static void a_page_of_version_2_is_read(void **state)
{
	static const uint32_t old_version = 2, none[2] = {0, 0};
	static const uint64_t bytes = 256 + 4 * 64 + 3 * 8; /* 3 rows of 72, up to 64; 3 values */
	struct page_info info;
	struct seen seen = {0};
	struct page *page;
	int fd;

	assert_int_equal(page_create(sys, *state, &three, &page), 0);
	page_values(page)[2] = 9;
	fd = open_page(*state);
	assert_int_equal(sys_pwrite_full(sys, fd, &old_version, 4, 8), 0);
	assert_int_equal(read_counters(*state, &seen, &info), -EBADMSG);
	assert_int_equal(sys_pwrite_full(sys, fd, none, 8, 72), 0);
	assert_int_equal(sys_pwrite_full(sys, fd, &bytes, 8, 16), 0);
	assert_int_equal(read_counters(*state, &seen, &info), 0);
	assert_int_equal(seen.sum, 9);
	assert_int_equal(info.latency_count, 0);
	seen = (struct seen){0};
	assert_int_equal(read_latencies(*state, &seen, &info), 0);
	assert_int_equal(seen.count, 0);
	sys->close(fd);
	page_close(page);
}

static void a_private_page_has_no_name(void **state)
{
	struct page *page;

	(void)state;
	assert_int_equal(page_create(sys, NULL, &three, &page), 0);
	page_values(page)[2] = 1;
	assert_int_equal(page_values(page)[1], 0);
	page_close(page);
}

static void the_last_owner_is_seen(void **state)
{
	const uint8_t *uuid = *state;
	struct page *first, *second;
	struct page_info info;
	struct seen seen = {0};

	assert_int_equal(page_create(sys, uuid, &three, &first), 0);
	assert_int_equal(page_create(sys, uuid, &two, &second), 0);
	page_values(first)[0] = 1;
	page_values(second)[0] = 2;
	page_close(first);
	assert_int_equal(read_counters(uuid, &seen, &info), 0);
	assert_int_equal(info.counter_count, 2);
	assert_int_equal(seen.sum, 2);
	page_close(second);
	assert_int_equal(read_counters(uuid, &seen, &info), -ENOENT);
}

static int no_space(int fd, int mode, off_t offset, off_t length)
{
	(void)fd;
	(void)mode;
	(void)offset;
	(void)length;
	return -ENOSPC;
}

static void a_full_shm_is_an_error(void **state)
{
	struct sys table = sys_native;
	struct page_info info;
	struct seen seen = {0};
	struct page *page;

	table.fallocate = no_space;
	assert_int_equal(page_create(&table, *state, &three, &page), -ENOSPC);
	assert_int_equal(read_counters(*state, &seen, &info), -ENOENT);
}

/* Every byte of header and rows, three ways; then every length. */
static void hostile_bytes_are_refused(void **state)
{
	static const uint8_t masks[] = {0xff, 0x80, 0x01};
	const size_t bytes = 256 + 3 * 72;
	struct page_info info;
	struct page *page;
	uint32_t refused = 0;
	int fd;

	assert_int_equal(page_create(sys, *state, &three, &page), 0);
	fd = open_page(*state);
	for (size_t i = 0; i < bytes * 3; i++) {
		struct seen seen = {0};
		off_t at = (off_t)(i / 3);
		uint8_t was, now;
		int rc;

		assert_int_equal(sys_pread_full(sys, fd, &was, 1, at), 0);
		now = was ^ masks[i % 3];
		assert_int_equal(sys_pwrite_full(sys, fd, &now, 1, at), 0);
		rc = read_counters(*state, &seen, &info);
		assert_true(rc == 0 || rc == -EBADMSG || rc == -EPROTO);
		assert_true(rc == 0 || seen.count == 0);
		refused += rc != 0;
		for (size_t c = 0; c < strlen(seen.text); c++)
			assert_in_range(seen.text[c], ' ', '~');
		seen = (struct seen){0};
		assert_int_equal(read_latencies(*state, &seen, &info), rc);
		assert_int_equal(sys_pwrite_full(sys, fd, &was, 1, at), 0);
	}
	/* pid, start, values of flags and padding may be anything; the frame may not. */
	assert_true(refused > 3 * (72 - 16));
	for (off_t length = (off_t)bytes + 64; length-- > 0;) {
		struct seen seen = {0};

		assert_int_equal(sys->ftruncate(fd, length), 0);
		assert_int_equal(read_counters(*state, &seen, &info), -EBADMSG);
	}
	assert_int_equal(sys->ftruncate(fd, 4096), 0);
	sys->close(fd);
	page_close(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_page_is_read_by_others, setup, teardown),
		cmocka_unit_test_setup_teardown(latencies_are_read_by_others, setup, teardown),
		cmocka_unit_test_setup_teardown(a_page_of_version_2_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(a_private_page_has_no_name, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_owner_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_shm_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_bytes_are_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
