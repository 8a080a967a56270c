/* SPDX-License-Identifier: Apache-2.0 */
/* What ends a block of the flash tier, beside a call: its time, and a full index. */
/* Before cmocka.h, which has a macro fail(). */
#include "base/atomic.h"
#include "core/store.h"

#include "posix_store.h"

#define SHARD  8192u
#define BASE_S 1000u /* the store's clock is that far behind the real one */

static struct fixture store;
static struct sys sys;
static uint64_t later_ns; /* than BASE_S before now */

static uint64_t slow_clock(void)
{
	return sys_native.realtime_ns() - BASE_S * 1000000000ull + hint_get(&later_ns);
}

static void reopen(void)
{
	struct cairn_error error = {0};

	sys = sys_native;
	sys.realtime_ns = slow_clock;
	if (store_open(&sys, store.spec, NULL, &store.store, &error) < 0)
		fail_msg("%s: %s", store.spec, error.text);
	fixture_space(&store, "model", 1, SHARD);
}

static void open_flash(const char *options)
{
	snprintf(store.spec, sizeof(store.spec), "flash(path=%s/kv, size=8MiB, region=512KiB%s)",
		 store.path, options);
	reopen();
}

static void new_store(const char *options)
{
	fixture_new(&store);
	hint_set(&later_ns, 0);
	open_flash(options);
}

static void end_store(void)
{
	fixture_close(&store);
	fixture_free(&store);
}

static int dump_attr(uint32_t number, const struct cairn_block_attr *attr)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	struct cairn_key key = key_of(&store, number);
	uint8_t data[SHARD];
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, SHARD);

	xfer.attr = attr;
	content(&key, 0, data, SHARD);
	cairn_dump(store.ns, &xfer, 1, &opts, NULL);
	return xfer.result.status;
}

/* A parent of UINT32_MAX: none. */
static int dump_told(uint32_t number, uint64_t ttl_s, uint32_t parent)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .ttl_ns = ttl_s * 1000000000u};

	if (parent != UINT32_MAX)
		attr.parent = key_of(&store, parent);
	return dump_attr(number, &attr);
}

static int prefetch_one(uint32_t number)
{
	struct cairn_key key = key_of(&store, number);

	return cairn_prefetch(store.ns, &key, 1, NULL, NULL, NULL);
}

static int count(void *context, const struct cairn_listed *block)
{
	(void)block;
	++*(uint32_t *)context;
	return 0;
}

static uint32_t listed(void)
{
	uint32_t blocks = 0;

	assert_true(cairn_list(store.spec, NULL, count, &blocks, NULL, NULL) >= 0);
	return blocks;
}

static void time_is_up(void **state)
{
	(void)state;
	new_store("");
	assert_int_equal(dump_told(1, 100, UINT32_MAX), 0);
	assert_int_equal(dump_told(2, 0, UINT32_MAX), 0);
	hint_set(&later_ns, 98 * 1000000000ull);
	assert_true(present(&store, 1) && present(&store, 2));
	assert_int_equal(dump_told(1, 100, UINT32_MAX), CAIRN_PRESENT);
	assert_int_equal(prefetch_one(1), 0);
	fixture_close(&store);
	open_flash("");
	assert_true(present(&store, 1) && present(&store, 2));
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	/* By the real clock the first one has expired, and a list goes by that. */
	assert_int_equal(listed(), 1);
	hint_set(&later_ns, 102 * 1000000000ull);
	assert_true(!present(&store, 1) && present(&store, 2));
	assert_int_equal(prefetch_one(1), -ENOENT);
	assert_int_equal(load_one(&store, 1, 0, SHARD), -ENOENT);
	fixture_close(&store);
	assert_int_equal(listed(), 1);
	open_flash("");
	assert_true(!present(&store, 1) && present(&store, 2));
	/* It can be had anew, and what is left of the old one does not count. */
	assert_int_equal(dump_told(1, 5000, UINT32_MAX), 0);
	assert_true(present(&store, 1));
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(blocks_known(&store), 2);
	fixture_close(&store);
	assert_int_equal(listed(), 2);
	open_flash("");
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(blocks_known(&store), 2);
	end_store();
}

static void earliest_stands(void **state)
{
	struct cairn_io io = {.expires_ns = 0};

	(void)state;
	cairn_io_expires(&io, 0);
	assert_int_equal(io.expires_ns, 0);
	cairn_io_expires(&io, 7);
	cairn_io_expires(&io, 9);
	cairn_io_expires(&io, 0);
	assert_int_equal(io.expires_ns, 7);
	cairn_io_expires(&io, 5);
	assert_int_equal(io.expires_ns, 5);
}

/* As far as a cache above it knows them, too, whoever dumped them. */
static void time_is_up_above(void **state)
{
	char below[sizeof(store.spec)];
	struct cairn_key keys[2];
	uint64_t loads;

	(void)state;
	new_store("");
	assert_int_equal(dump_told(1, 100, UINT32_MAX), 0);
	assert_int_equal(dump_told(2, 0, UINT32_MAX), 0);
	assert_int_equal(dump_told(3, 100, UINT32_MAX), 0);
	assert_int_equal(dump_told(4, 50, UINT32_MAX), 0);
	fixture_close(&store);
	snprintf(below, sizeof(below), "%s", store.spec);
	snprintf(store.spec, sizeof(store.spec), "cache(size=16MiB, entries=500) | %.*s",
		 (int)sizeof(below) - 64, below);
	reopen();
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(load_one(&store, 2, 0, SHARD), 0);
	keys[0] = key_of(&store, 3);
	keys[1] = key_of(&store, 4);
	assert_int_equal(cairn_prefetch(store.ns, keys, 2, NULL, NULL, NULL), 0);
	loads = counter(&store, "load_hits");
	hint_set(&later_ns, 60 * 1000000000ull);
	for (uint32_t i = 1; i <= 3; i++) {
		assert_true(present(&store, i));
		assert_int_equal(load_one(&store, i, 0, SHARD), 0);
	}
	assert_int_equal(counter(&store, "load_hits"), loads); /* all in memory */
	assert_false(present(&store, 4));
	assert_int_equal(load_one(&store, 4, 0, SHARD), -ENOENT);
	hint_set(&later_ns, 102 * 1000000000ull);
	assert_true(!present(&store, 1) && present(&store, 2) && !present(&store, 3));
	assert_int_equal(load_one(&store, 1, 0, SHARD), -ENOENT);
	assert_int_equal(load_one(&store, 3, 0, SHARD), -ENOENT);
	/* Anew, from another hand: no longer what came up before. */
	assert_int_equal(dump_told(1, 5000, UINT32_MAX), 0);
	hint_set(&later_ns, 300 * 1000000000ull);
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	assert_int_equal(load_one(&store, 2, 0, SHARD), 0);
	end_store();
}

/* Dumps and uses the same few again and again, beside many that are used once. */
static uint64_t carried(uint64_t ttl_s)
{
	uint64_t bytes;

	new_store("");
	for (uint32_t i = 0; i < 4000; i++) {
		hint_set(&later_ns, i * 1000000000ull);
		assert_int_equal(dump_told(i, ttl_s, UINT32_MAX), 0);
		if (i >= 40)
			load_one(&store, i / 400 * 400 + i % 40, 0, SHARD);
	}
	bytes = counter(&store, "carried_bytes");
	assert_true(counter(&store, "reclaimed_regions") > 40);
	end_store();
	return bytes;
}

/* What has expired is not carried on, however much it was used. */
static void expired_ones_go(void **state)
{
	(void)state;
	assert_true(carried(0) > 0);
	assert_int_equal(carried(60), 0);
}

/* A full index means that what was used least goes, counted; also one that is smaller at open. */
static void full_index(void **state)
{
	uint32_t before;

	(void)state;
	new_store(", entries=64");
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(dump_told(i, 0, i % 10 ? i - 1 : UINT32_MAX), 0);
	assert_true(blocks_known(&store) <= 64);
	assert_true(counter(&store, "evicted_blocks") >= 300 - 64);
	assert_int_equal(counter(&store, "refused"), 0);
	assert_true(present(&store, 299));
	assert_int_equal(load_one(&store, 299, 0, SHARD), 0);
	fixture_close(&store);
	before = listed(); /* a reclaim may have gone on until then */
	open_flash(", entries=16");
	assert_true(blocks_known(&store) <= 16);
	assert_int_equal(counter(&store, "recovered_blocks") + counter(&store, "evicted_blocks"),
			 before);
	for (uint32_t i = 300; i < 340; i++)
		assert_int_equal(dump_told(i, 0, UINT32_MAX), 0);
	assert_int_equal(load_one(&store, 339, 0, SHARD), 0);
	end_store();
}

/*
 * What a crash brought back beyond the bound of the index is there after the next close, too:
 * nothing that was whole goes because it was closed.
 */
static void over_the_bound(void **state)
{
	enum { COUNT = 40 };
	char from[PATH_MAX], to[PATH_MAX], command[2 * PATH_MAX + 16];

	(void)state;
	new_store(", entries=64");
	for (uint32_t i = 0; i < COUNT; i++)
		assert_int_equal(dump_told(i, 0, UINT32_MAX), 0);
	snprintf(from, sizeof(from), "%s/kv", store.path);
	snprintf(to, sizeof(to), "%s/crashed", store.path);
	snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
	assert_int_equal(system(command), 0);
	fixture_close(&store);
	assert_int_equal(rename(to, from), 0);
	for (uint32_t opens = 0; opens < 3; opens++) {
		open_flash(", entries=16");
		assert_int_equal(counter(&store, "recovered_blocks"), COUNT);
		assert_int_equal(counter(&store, "evicted_blocks"), 0);
		for (uint32_t i = 0; i < COUNT; i++)
			assert_int_equal(load_one(&store, i, 0, SHARD), 0);
		fixture_close(&store);
	}
	open_flash(", entries=16");
	for (uint32_t i = COUNT; i < 2 * COUNT; i++)
		assert_int_equal(dump_told(i, 0, UINT32_MAX), 0);
	assert_true(blocks_known(&store) <= 16);
	end_store();
}

/* Parents that lead in a circle, longer than anybody looks: every use and reclaim ends. */
static void circles(void **state)
{
	(void)state;
	new_store("");
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(dump_told(i, 0, i ? i - 1 : 99), 0);
	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 100; i++)
			load_one(&store, i, 0, SHARD);
		for (uint32_t i = 0; i < 100; i++)
			assert_int_equal(dump_told(1000 + round * 100 + i, 0, UINT32_MAX), 0);
	}
	fixture_close(&store);
	open_flash("");
	for (uint32_t i = 0; i < 100; i++)
		load_one(&store, i, 0, SHARD);
	end_store();
}

#define LOG_BLOCKS 900u /* what the log holds, and a few more */

/* Dumps others, from *@next on, until block @number is gone; @stays is there all the while. */
static void press(uint32_t *next, uint32_t number, uint32_t stays)
{
	uint32_t end = *next + 4 * LOG_BLOCKS;

	for (; present(&store, number) && *next < end; ++*next) {
		assert_true(present(&store, stays));
		assert_int_equal(dump_told(*next, 0, UINT32_MAX), 0);
	}
	assert_false(present(&store, number));
	assert_true(present(&store, stays));
}

/*
 * A chain whose blocks lie in regions of their own, the first of them in the oldest. A use of
 * one of them counts for all before it: those behind it go first. @again: the store is opened
 * anew before that use (1), or after it (2).
 */
static void chain_of_leaves(uint32_t again)
{
	enum { LINKS = 8, USED = 3 };
	uint32_t next = 1000;

	new_store("");
	for (uint32_t i = 0; i < LINKS; i++) {
		assert_int_equal(dump_told(i, 0, i ? i - 1 : UINT32_MAX), 0);
		for (uint32_t end = next + 60; next < end; next++)
			assert_int_equal(dump_told(next, 0, UINT32_MAX), 0);
	}
	for (uint32_t step = 1; step <= 2; step++) {
		if (step == again) {
			fixture_close(&store);
			open_flash("");
		}
		if (step == 1)
			assert_int_equal(load_one(&store, USED, 0, SHARD), 0);
	}
	for (uint32_t i = LINKS - 1; i > USED; i--)
		press(&next, i, 0);
	for (uint32_t i = 0; i <= USED; i++)
		assert_true(present(&store, i));
	end_store();
}

static void leaves_first(void **state)
{
	(void)state;
	for (uint32_t again = 0; again <= 2; again++)
		chain_of_leaves(again);
}

/* Of two that came together and were never used, the one with a priority stays longer. */
static void priority_stays(void **state)
{
	(void)state;
	for (uint32_t again = 0; again <= 1; again++) {
		struct cairn_block_attr attr = {.size = sizeof(attr), .priority = 100};
		uint32_t next = 1000;

		new_store("");
		assert_int_equal(dump_attr(1, &attr), 0);
		assert_int_equal(dump_told(2, 0, UINT32_MAX), 0);
		if (again) {
			fixture_close(&store);
			open_flash("");
		}
		press(&next, 2, 1);
		/* The reclaim that took the one has the other under way. */
		for (uint32_t i = 0; i < LOG_BLOCKS && !counter(&store, "carried_bytes"); i++)
			assert_int_equal(dump_told(next++, 0, UINT32_MAX), 0);
		assert_true(counter(&store, "carried_bytes") > 0 && present(&store, 1));
		end_store();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_is_up),	   cmocka_unit_test(time_is_up_above),
		cmocka_unit_test(earliest_stands), cmocka_unit_test(expired_ones_go),
		cmocka_unit_test(full_index),	   cmocka_unit_test(over_the_bound),
		cmocka_unit_test(circles),	   cmocka_unit_test(leaves_first),
		cmocka_unit_test(priority_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
