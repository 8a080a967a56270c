/* SPDX-License-Identifier: Apache-2.0 */
#include "test_host.h"

#include <errno.h>

#include "stages/stages.h"

#define MS 1000000ull

static struct test_host *host;
static struct test_ns *ns;
static uint8_t data[100000];

static void setup(const char *options)
{
	host = test_host_new();
	test_host_push(host, &cairn_stage_delay, options);
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_open(host);
	ns = test_ns_new(host, "ns", 0, 0);
}

static void teardown(void)
{
	test_ns_free(ns);
	test_host_free(host);
}

/* A dump of @length bytes that is under way. */
static struct test_io *start_dump(uint64_t number, size_t length)
{
	struct test_io *tio = test_io_new(host, CAIRN_OP_DUMP, ns, test_key(number));

	tio->io.shard_count = 1;
	tio->io.shard_bytes = length;
	test_io_part(tio, 0, 0, data, length);
	test_io_start(tio);
	return tio;
}

static uint64_t end_of(struct test_io *tio, uint64_t start_ns)
{
	uint64_t ns_taken;

	assert_int_equal(test_io_run(tio), 0);
	ns_taken = tio->completed_ns - start_ns;
	test_io_free(tio);
	return ns_taken;
}

static void test_service_time(void **state)
{
	uint64_t start = test_now_ns();

	(void)state;
	setup("read=3ms;write=7ms");
	assert_int_equal(end_of(start_dump(1, 10), start), 7 * MS);
	start = test_now_ns();
	assert_int_equal(test_load(ns, test_key(1), 0, 0, data, 10), 0);
	assert_int_equal(test_now_ns() - start, 3 * MS);
	start = test_now_ns();
	assert_int_equal(test_plain(ns, CAIRN_OP_REMOVE, test_key(1)), 0);
	assert_int_equal(test_now_ns() - start, 7 * MS);
	assert_int_equal(test_plain(ns, CAIRN_OP_PREFETCH, test_key(1)), -ENOENT);
	assert_int_equal(test_now_ns() - start, 10 * MS);
	teardown();
}

static void test_queue_depth(void **state)
{
	struct test_io *tios[7];
	uint64_t start = test_now_ns();
	uint32_t i;

	(void)state;
	setup("write=10ms;depth=3");
	for (i = 0; i < 7; i++)
		tios[i] = start_dump(i, 10);
	/* Three at a time, in the order they came. */
	for (i = 0; i < 7; i++)
		assert_int_equal(end_of(tios[i], start), (i / 3 + 1) * 10 * MS);
	assert_int_equal(host->levels[0].counters[0], 7);
	assert_int_equal(host->levels[0].counters[1], 4);
	teardown();
}

static void test_bandwidth(void **state)
{
	struct test_io *tios[4];
	uint64_t start = test_now_ns();
	uint32_t i;

	(void)state;
	setup("write=1ms;bandwidth=1MB;depth=8");
	for (i = 0; i < 4; i++)
		tios[i] = start_dump(i, 50000);
	/* The service times overlap; the bytes, 50 ms each, do not. */
	for (i = 0; i < 4; i++)
		assert_int_equal(end_of(tios[i], start), 1 * MS + (i + 1) * 50 * MS);
	teardown();
}

static void test_jitter(void **state)
{
	uint64_t taken[2][50], start;
	uint32_t round, i, distinct = 0;

	(void)state;
	for (round = 0; round < 2; round++) {
		setup("write=10ms;jitter=5ms;seed=9");
		for (i = 0; i < 50; i++) {
			start = test_now_ns();
			taken[round][i] = end_of(start_dump(i, 10), start);
			assert_in_range(taken[round][i], 10 * MS, 15 * MS);
			distinct += i > 0 && taken[round][i] != taken[round][i - 1];
		}
		teardown();
	}
	assert_memory_equal(taken[0], taken[1], sizeof(taken[0]));
	assert_true(distinct > 90);
}

static void test_hang_for_a_while(void **state)
{
	struct test_io *before, *first, *second;
	uint64_t start = test_now_ns();

	(void)state;
	setup("write=10ms;hang=#2;hang_for=1s");
	before = start_dump(1, 10);
	first = start_dump(2, 10);
	second = start_dump(3, 10);
	/* Nobody is answered in the hang, not even who was in service when it began. */
	assert_int_equal(end_of(before, start), 1000 * MS);
	assert_int_equal(end_of(first, start), 1000 * MS);
	assert_int_equal(end_of(second, start), 1000 * MS);
	start = test_now_ns();
	assert_int_equal(end_of(start_dump(4, 10), start), 10 * MS);
	teardown();
}

static void test_hang_for_ever(void **state)
{
	struct test_io *tio, *late;
	uint64_t start = test_now_ns();

	(void)state;
	setup("write=10ms;hang_after=100ms");
	assert_int_equal(end_of(start_dump(1, 10), start), 10 * MS);
	/* In service when the hang begins. */
	test_clock_ns = start + 95 * MS;
	tio = start_dump(2, 10);
	tio->io.deadline_ns = start + 500 * MS; /* told late: the io has its give-up time */
	test_clock_ns = start + 200 * MS;
	late = test_io_new(host, CAIRN_OP_LOAD, ns, test_key(1));
	late->io.deadline_ns = start + 500 * MS;
	test_io_part(late, 0, 0, data, 10);
	assert_int_equal(test_io_run(late), -ETIMEDOUT);
	assert_true(late->completed_ns > start + 500 * MS);
	assert_true(late->completed_ns <= start + 600 * MS);
	assert_int_equal(late->forwards, 0);
	test_io_free(late);
	/* Without a deadline too, an io ends. */
	assert_int_equal(test_io_run(tio), -ETIMEDOUT);
	test_io_free(tio);
	assert_int_equal(host->levels[0].counters[2], 2);
	teardown();
}

static void test_slower_than_the_deadline(void **state)
{
	struct test_io *tio;

	(void)state;
	setup("write=10s");
	tio = test_io_new(host, CAIRN_OP_DUMP, ns, test_key(1));
	tio->io.shard_count = 1;
	tio->io.shard_bytes = 10;
	tio->io.deadline_ns = test_now_ns() + 5 * MS;
	test_io_part(tio, 0, 0, data, 10);
	assert_int_equal(test_io_run(tio), -ETIMEDOUT);
	assert_int_equal(tio->forwards, 0);
	test_io_free(tio);
	assert_false(test_present(ns, test_key(1)));
	teardown();
}

static void open_says(const char *options, const char *says)
{
	struct cairn_error error = {0};

	host = test_host_new();
	test_host_push(host, &cairn_stage_delay, options);
	test_host_push(host, &cairn_stage_null, NULL);
	assert_int_equal(test_host_try_open(host, &error), -EINVAL);
	assert_non_null(strstr(error.text, says));
	test_host_free(host);
}

static void test_open_errors(void **state)
{
	(void)state;
	open_says("hang=17", "\"#17\" would be");
	open_says("hang=#0", "\"#17\" would be");
	open_says("hang=#1;hang_after=1s", "both");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_service_time),
		cmocka_unit_test(test_queue_depth),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_jitter),
		cmocka_unit_test(test_hang_for_a_while),
		cmocka_unit_test(test_hang_for_ever),
		cmocka_unit_test(test_slower_than_the_deadline),
		cmocka_unit_test(test_open_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
