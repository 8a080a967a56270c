/* SPDX-License-Identifier: Apache-2.0 */
/* Prefetches beside loads: what a second may bring, what comes first, and what is cancelled. */
/* Before cmocka.h, which has a macro fail(). */
#include "base/atomic.h"
#include "core/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cairn/pin.h>

#define BYTES  65536u
#define BLOCKS 60u
#define STEP   62500000u /* of the clock: 1 MiB/s brings one block in it */
#define FIRST  3u /* blocks that come at once: the bucket's depth, and the byte that is left */

static struct sys sys;
static uint64_t base_ns, later_ns;
static struct cairn_store *store;
static struct cairn_namespace *ns;

/*
 * It stands still between the steps of a test. So nothing may have to wait for its memory, which a
 * load does by the clock: all of it is there from the start (prefault=ahead).
 */
static uint64_t stepped(void)
{
	return base_ns + hint_get(&later_ns);
}

static void open_store(const char *prefetch)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = BYTES};
	struct cairn_error error = {0};
	char spec[256];

	sys = sys_native;
	base_ns = sys_native.now_ns();
	hint_set(&later_ns, 0);
	sys.now_ns = stepped;
	snprintf(spec, sizeof(spec),
		 "store(reactors=1, prefetch=%s, deadline=1h) | cache(size=16MiB, write=around, "
		 "prefault=ahead) | "
		 "null(size=64MiB)",
		 prefetch);
	if (store_open(&sys, spec, NULL, &store, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
}

static struct cairn_key key_of(uint32_t number)
{
	struct cairn_key key;

	assert_int_equal(cairn_key_derive(ns, &number, sizeof(number), &key), 0);
	return key;
}

static int move(uint32_t number, bool dump)
{
	static uint8_t bytes[BYTES], wanted[BYTES];
	struct cairn_segment segment = {bytes, BYTES};
	struct cairn_xfer xfer = {
		.key = key_of(number), .length = BYTES, .segments = &segment, .segment_count = 1};

	memset(wanted, (int)number + 1, BYTES);
	memset(bytes, dump ? (int)number + 1 : 0, BYTES);
	if (dump)
		cairn_dump(ns, &xfer, 1, NULL, NULL);
	else
		cairn_load(ns, &xfer, 1, NULL, NULL);
	if (xfer.result.status == 0)
		assert_memory_equal(bytes, wanted, BYTES);
	return xfer.result.status;
}

static bool in_memory(uint32_t number)
{
	struct cairn_key key = key_of(number);
	struct cairn_pinned pinned;

	if (cairn_pin(ns, &key, 0, &pinned) < 0)
		return false;
	assert_int_equal(cairn_unpin(store, pinned.pin), 0);
	return true;
}

static uint32_t count(uint32_t first, uint32_t end)
{
	uint32_t there = 0;

	for (; first < end; first++)
		there += in_memory(first);
	return there;
}

/* Blocks [first, end), within @seconds of the clock. */
static uint64_t prefetch(uint32_t first, uint32_t end, uint64_t seconds,
			 struct cairn_result *results)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = seconds * 1000000000u};
	static struct cairn_key keys[BLOCKS]; /* lent until the release */
	uint64_t task;

	for (uint32_t i = first; i < end; i++)
		keys[i] = key_of(i);
	assert_int_equal(cairn_prefetch(ns, &keys[first], end - first, results, &opts, &task), 0);
	return task;
}

/*
 * The reactor has taken all that was asked for, and looked at the clock: it may have been about to
 * sleep for a time by it, just as it was stepped.
 */
static void reactor_looks(void)
{
	static struct cairn_key key;
	struct cairn_result result;
	uint64_t task;

	key = key_of(2 * BLOCKS); /* nobody has it */
	assert_int_equal(cairn_remove(ns, &key, 1, &result, NULL, &task), 0);
	assert_int_equal(cairn_task_wait(store, task, CAIRN_EVENT_RELEASE, UINT64_MAX), 0);
	assert_int_equal(result.status, -ENOENT);
}

/* So many are there in the end, and, while loads go by, no more. */
static void wait_for(uint32_t first, uint32_t end, uint32_t wanted, uint32_t other)
{
	uint32_t there;

	while ((there = count(first, end)) < wanted) {
		usleep(1000);
		reactor_looks();
	}
	assert_int_equal(there, wanted);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(move(other, false), 0);
	assert_int_equal(count(first, end), wanted);
}

static void within_a_rate(void **state)
{
	struct cairn_result results[BLOCKS];
	uint64_t task;

	(void)state;
	open_store("1MiB");
	for (uint32_t i = 0; i <= BLOCKS; i++)
		assert_int_equal(move(i, true), 0);
	task = prefetch(0, BLOCKS, 1000, results);
	for (uint32_t there = FIRST; there < 20; there++) {
		wait_for(0, BLOCKS, there, BLOCKS);
		hint_set(&later_ns, hint_get(&later_ns) + STEP);
	}
	wait_for(0, BLOCKS, 20, BLOCKS);
	/* What is not used is not saved up beyond the depth. */
	assert_int_equal(cairn_task_cancel(store, task), 0);
	cairn_task_wait(store, task, CAIRN_EVENT_RESULT, UINT64_MAX);
	for (uint32_t i = 0, ended = 0; i < BLOCKS; i++) {
		ended += results[i].status == 0;
		assert_true(results[i].status == 0 || results[i].status == -ECANCELED);
		assert_true(ended <= 20);
	}
	hint_set(&later_ns, hint_get(&later_ns) + 1000000000u);
	wait_for(0, BLOCKS, 20, BLOCKS);
	/* What is there already costs nothing. */
	task = prefetch(0, 20, 1000, results);
	cairn_task_wait(store, task, CAIRN_EVENT_RESULT, UINT64_MAX);
	task = prefetch(20, BLOCKS, 1000, results);
	wait_for(0, BLOCKS, 20 + FIRST, BLOCKS);
	assert_int_equal(cairn_task_cancel(store, task), 0);
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

static void in_order(void **state)
{
	static const uint64_t deadlines[] = {500, 100, 300, 100};
	struct cairn_result results[4][6];
	uint32_t begun;

	(void)state;
	open_store("1MiB");
	for (uint32_t i = 0; i <= BLOCKS; i++)
		assert_int_equal(move(i, true), 0);
	/* The first ones take what there is. */
	prefetch(50, 50 + FIRST, 1000, results[0]);
	wait_for(50, 50 + FIRST, FIRST, BLOCKS);
	for (uint32_t i = 0; i < 4; i++)
		prefetch(10 * i, 10 * i + 6, deadlines[i], results[i]);
	reactor_looks(); /* who comes later would not have had its turn */
	for (uint32_t there = 1; there <= 24; there++) {
		hint_set(&later_ns, hint_get(&later_ns) + STEP);
		wait_for(0, 40, there, BLOCKS);
		/* Those that are equally urgent take turns. */
		begun = count(10, 16) > count(30, 36) ? count(10, 16) - count(30, 36)
						      : count(30, 36) - count(10, 16);
		assert_true(begun <= 1);
		assert_int_equal(count(10, 16) + count(30, 36), there < 12 ? there : 12);
		assert_int_equal(count(20, 26), there < 12 ? 0 : there < 18 ? there - 12 : 6);
		assert_int_equal(count(0, 6), there < 18 ? 0 : there - 18);
	}
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

static void no_bound(void **state)
{
	struct cairn_result results[BLOCKS];
	uint64_t task;

	(void)state;
	open_store("0B");
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(move(i, true), 0);
	task = prefetch(0, BLOCKS, 1000, results);
	cairn_task_wait(store, task, CAIRN_EVENT_RESULT, UINT64_MAX);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(results[i].status, 0);
	assert_int_equal(count(0, BLOCKS), BLOCKS);
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(within_a_rate),
		cmocka_unit_test(in_order),
		cmocka_unit_test(no_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
