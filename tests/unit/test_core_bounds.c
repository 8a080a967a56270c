/* SPDX-License-Identifier: Apache-2.0 */
/* What the core refuses, and how it says so: task slots that do not come, and the bounds of holds.
 */
#include "core_store.h"

static uint64_t wanted_value;

static int see_counter(void *context, const struct cairn_counter *counter)
{
	if (strcmp(counter->stage, "store") == 0 && strcmp(counter->name, context) == 0)
		wanted_value = counter->value;
	return 0;
}

static uint64_t counter_of(const char *name)
{
	wanted_value = UINT64_MAX;
	assert_int_equal(cairn_counters(f.store, see_counter, (void *)(uintptr_t)name), 0);
	return wanted_value;
}

/* ---- slots ------------------------------------------------------------------- */

#define ITEMS 3u

static void check_refused(const struct cairn_result *result, int32_t status)
{
	assert_int_equal(result->status, status);
	assert_int_equal(result->stage, CAIRN_STAGE_NONE);
	assert_int_equal(result->reached, 0);
}

/* A call that waits for its items and gets no slot: none of them looks done. */
static void no_slot_until_the_deadline(void **state)
{
	struct cairn_task_opts soon = {.size = sizeof(soon), .deadline_ns = MS};
	struct cairn_result results[ITEMS] = {{0}};
	static struct cairn_xfer one[1], xfers[ITEMS];
	struct spy *spy;
	uint64_t task;

	(void)state;
	spy = open_spied("store(tasks=1, reactors=1) | spy() | null(size=4MiB)");
	spy_set(spy, &spy->keep, true);
	fill(one, f.memory, 0, 1);
	assert_int_equal(cairn_dump(f.ns, one, 1, NULL, &task), 0);
	spy_await(spy, &spy->kept_count, 1);
	fill(xfers, f.back, 1, ITEMS);
	assert_int_equal(cairn_load(f.ns, xfers, ITEMS, &soon, NULL), -ETIMEDOUT);
	for (uint32_t i = 0; i < ITEMS; i++)
		check_refused(&xfers[i].result, -ETIMEDOUT);
	assert_int_equal(cairn_remove(f.ns, &f.keys[1], ITEMS, results, &soon, NULL), -ETIMEDOUT);
	for (uint32_t i = 0; i < ITEMS; i++)
		check_refused(&results[i], -ETIMEDOUT);
	assert_int_equal(cairn_prefetch(f.ns, &f.keys[1], ITEMS, NULL, &soon, NULL), -ETIMEDOUT);
	/* What does not wait submits nothing, and writes nothing. */
	memset(results, 0x5a, sizeof(results));
	assert_int_equal(cairn_remove(f.ns, &f.keys[1], ITEMS, results, NULL, &task), -EAGAIN);
	assert_int_equal(results[0].status, 0x5a5a5a5a);
	spy_set(spy, &spy->keep, false);
	spy_let_go(spy, NULL);
	close_store();
}

/* ---- holds ------------------------------------------------------------------- */

static void open_held(const char *settings)
{
	static struct cairn_xfer xfers[MANY];
	char spec[256];

	snprintf(spec, sizeof(spec), "store(reactors=1, %s) | null(size=64MiB)", settings);
	open_store(spec, NULL);
	fill(xfers, f.memory, 0, MANY);
	assert_int_equal(cairn_dump(f.ns, xfers, MANY, NULL, NULL), 0);
}

static int64_t hold(uint32_t first, uint32_t count, struct cairn_found *found, uint64_t hold_ns,
		    uint64_t *ret_hold)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = hold_ns};

	return cairn_lookup(f.ns, &f.keys[first], count, found, &opts, ret_hold);
}

static void check_first_of(uint32_t fit, uint32_t count)
{
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_found found[MANY];
	uint64_t first, none, prefix, refused = counter_of("holds_refused");

	assert_int_equal(hold(0, count, found, 0, &first), fit);
	assert_int_not_equal(first, 0);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(found[i].present, i < fit);
		assert_int_equal(found[i].stage, i < fit ? 0 : CAIRN_STAGE_NONE);
	}
	assert_int_equal(counter_of("holds_refused"), refused + count - fit);
	/* Nothing more, until those are given back. */
	assert_int_equal(hold(fit, 1, found, 0, &none), 0);
	assert_int_equal(none, 0);
	assert_int_equal(cairn_lookup(f.ns, f.keys, count, found, NULL, NULL), count);
	assert_int_equal(cairn_hold_release(f.store, first), 0);
	assert_int_equal(counter_of("hold_bytes"), 0);
	assert_int_equal(cairn_lookup_prefix(f.ns, f.keys, count, NULL, &opts, &prefix), fit);
	assert_int_equal(cairn_hold_release(f.store, prefix), 0);
	assert_int_equal(counter_of("hold_bytes"), 0);
	assert_int_equal(counter_of("holds"), 0);
}

static void holds_are_bounded_in_bytes(void **state)
{
	struct cairn_found found[1];
	uint64_t one, bytes;
	char settings[64];

	(void)state;
	open_held("hold_bytes=1GiB");
	assert_int_equal(hold(0, 1, found, 0, &one), 1);
	bytes = counter_of("hold_bytes");
	assert_true(bytes >= SHARD);
	close_store(); /* with the hold in force */
	snprintf(settings, sizeof(settings), "hold_bytes=%lluB", (unsigned long long)bytes * 4 - 1);
	open_held(settings);
	check_first_of(3, 7);
	close_store();
}

static void holds_are_bounded_in_keys(void **state)
{
	(void)state;
	open_held("hold_keys=3");
	check_first_of(3, 7);
	close_store();
}

static void holds_are_bounded_in_number(void **state)
{
	static uint64_t held[CAIRN_HOLDS_MAX];
	struct cairn_found found[1];
	uint64_t more;

	(void)state;
	open_held("hold_time=1h");
	for (uint32_t i = 0; i < CAIRN_HOLDS_MAX; i++)
		assert_int_equal(hold(i % MANY, 1, found, 0, &held[i]), 1);
	assert_int_equal(hold(0, 1, found, 0, &more), 0);
	assert_int_equal(more, 0);
	assert_int_equal(cairn_hold_release(f.store, held[77]), 0);
	assert_int_equal(hold(0, 1, found, 0, &more), 1);
	assert_int_equal(cairn_hold_release(f.store, held[77]), -ENOENT);
	assert_int_equal(cairn_hold_release(f.store, more), 0);
	close_store();
}

/* A hold ends by itself: at its own time, the store's, and at the longest there is. */
static void holds_are_bounded_in_time(void **state)
{
	static const struct {
		const char *settings;
		uint64_t hold_ns;
		int released; /* 5 ms later */
	} cases[] = {
		{"hold_time=1h", MS, -ENOENT},
		{"hold_time=1ms", 0, -ENOENT},
		{"hold_max=1ms", 0, -ENOENT},
		{"hold_max=1ms", UINT64_MAX, -ENOENT},
		{"hold_max=1ms, hold_time=1h", 3600000 * MS, -ENOENT},
		{"hold_max=1h, hold_time=1ms", UINT64_MAX, 0},
		{"hold_time=1ms", 3600000 * MS, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cairn_found found[1];
		uint64_t one;

		open_held(cases[i].settings);
		assert_int_equal(hold(0, 1, found, cases[i].hold_ns, &one), 1);
		sleep_ms(5);
		assert_int_equal(cairn_hold_release(f.store, one), cases[i].released);
		/* Nobody releases this one: the store does. */
		assert_int_equal(hold(0, 1, found, cases[i].hold_ns, &one), 1);
		while (cases[i].released < 0 && counter_of("hold_bytes") > 0)
			sleep_ms(1);
		close_store();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_slot_until_the_deadline),
		cmocka_unit_test(holds_are_bounded_in_bytes),
		cmocka_unit_test(holds_are_bounded_in_keys),
		cmocka_unit_test(holds_are_bounded_in_number),
		cmocka_unit_test(holds_are_bounded_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
