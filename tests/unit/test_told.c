/* SPDX-License-Identifier: Apache-2.0 */
/* What engines tell of blocks: attributes, as they are listed; parents, by what goes first. */
#include <signal.h>
#include <sys/wait.h>

#include <cairn/pin.h>

#include "posix_store.h"

#define SHARD 4096u

static struct fixture f;

static int setup(void **state)
{
	(void)state;
	fixture_new(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&f);
	return 0;
}

/* ---- attributes ---------------------------------------------------------------------- */

static const struct cairn_block_attr some = {.size = sizeof(some),
					     .parent = {{1, 2, 3}},
					     .depth = 4,
					     .priority = 5,
					     .ttl_ns = 6000,
					     .cost_ns = 7000};
static const struct cairn_block_attr other = {.size = sizeof(other), .depth = 44, .ttl_ns = 9};
static const struct cairn_block_attr nothing = {.size = sizeof(nothing)};

struct seen {
	uint32_t blocks, told;
	int chained;
	struct cairn_block_attr attr;
};

static int see(void *context, const struct cairn_listed *block)
{
	struct seen *seen = context;

	seen->blocks++;
	seen->told += block->attr != NULL;
	seen->chained = block->chained;
	if (block->attr)
		seen->attr = *block->attr;
	return 0;
}

static struct seen list(void)
{
	struct seen seen = {0};

	assert_true(cairn_list(f.spec, NULL, see, &seen, NULL, NULL) >= 0);
	return seen;
}

/* Shards of block 1, each with its attribute, in one task or in one each. */
static void dump_told(const struct cairn_block_attr *const *attrs, uint32_t shards, bool together)
{
	static _Alignas(4096) uint8_t data[4][SHARD];
	struct cairn_key key = key_of(&f, 1);
	struct cairn_xfer xfers[4];

	for (uint32_t i = 0; i < shards; i++) {
		content(&key, i, data[i], SHARD);
		xfers[i] = xfer_of(&key, i, 0, data[i], SHARD);
		xfers[i].attr = attrs[i];
		if (!together)
			assert_int_equal(cairn_dump(f.ns, &xfers[i], 1, NULL, NULL), 0);
	}
	if (together)
		assert_int_equal(cairn_dump(f.ns, xfers, shards, NULL, NULL), 0);
}

static void the_first_attribute_told_stays(void **state)
{
	static const struct cairn_block_attr *const cases[][4] = {
		{&some, NULL, NULL},	 {NULL, &some, NULL},	 {NULL, NULL, &some},
		{NULL, &some, &other},	 {&some, &other, NULL},	 {&nothing, &some, &other},
		{&nothing, NULL, &some}, {&some, &nothing, NULL}};

	(void)state;
	for (uint32_t turn = 0; turn < 32; turn++) {
		struct cairn_key key;
		struct seen seen;

		fixture_open(&f, turn & 1 ? "shared=yes" : "");
		fixture_space(&f, "m", 3, SHARD);
		dump_told(cases[turn / 4], 3, turn & 2);
		key = key_of(&f, 1);
		seen = list();
		assert_int_equal(seen.blocks, 1);
		assert_int_equal(seen.told, 1);
		assert_memory_equal(&seen.attr, &some, sizeof(some));
		assert_int_equal(seen.chained, 0);
		assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), 0);
		fixture_close(&f);
		fixture_free(&f);
		fixture_new(&f);
	}
}

static void nothing_told_is_nothing_listed(void **state)
{
	static const struct cairn_block_attr *const none[4] = {&nothing, NULL, &nothing};

	(void)state;
	for (uint32_t turn = 0; turn < 4; turn++) {
		struct seen seen;

		fixture_open(&f, turn & 1 ? "shared=yes" : "");
		fixture_space(&f, "m", 3, SHARD);
		dump_told(none, 3, turn & 2);
		seen = list();
		assert_int_equal(seen.blocks, 1);
		assert_int_equal(seen.told, 0);
		fixture_close(&f);
		fixture_free(&f);
		fixture_new(&f);
	}
}

/* ---- parents ------------------------------------------------------------------------- */

#define CHAIN 200u

static const char in_memory[] = "a cache";

static struct cairn_key keys[CHAIN];
static _Alignas(4096) uint8_t bytes[CHAIN][SHARD];
static struct cairn_xfer xfers[CHAIN];

/* @above: stages over the posix tier; else a tier that is there alone. */
static void open_pipeline(const char *above)
{
	struct cairn_error error = {0};

	if (above == in_memory)
		snprintf(f.spec, sizeof(f.spec), "cache(size=16MiB, entries=256)");
	else if (above)
		snprintf(f.spec, sizeof(f.spec), "%sposix(path=%s, entries=210)", above, f.path);
	else
		snprintf(f.spec, sizeof(f.spec), "null(size=64MiB, entries=210)");
	if (cairn_store_open(f.spec, NULL, &f.store, &error) < 0)
		fail_msg("%s: %s", f.spec, error.text);
	fixture_space(&f, "m", 1, SHARD);
	for (uint32_t i = 0; i < CHAIN; i++) {
		keys[i] = key_of(&f, i);
		content(&keys[i], 0, bytes[i], SHARD);
		xfers[i] = xfer_of(&keys[i], 0, 0, bytes[i], SHARD);
	}
}

static const struct cairn_task_opts plain = {.size = sizeof(plain)};
static const struct cairn_task_opts in_order = {.size = sizeof(in_order),
						.flags = CAIRN_TASK_CHAIN};

/* So many that a cache, which samples its leaves, meets the end of the chain. */
static void dump_others(void)
{
	for (uint32_t i = 1000; i < 1150; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
}

/* More than the tier keeps: the coldest leaves go. Of the chain the end, and nothing else. */
static void crowd(void)
{
	uint32_t there = 0;

	dump_others();
	for (uint32_t i = 0; i < CHAIN; i++)
		there += present(&f, i);
	if (there < 1 || there > CHAIN - 1)
		fail_msg("%s: %u of the chain are there", f.spec, there);
	assert_int_equal(cairn_lookup_prefix(f.ns, keys, CHAIN, NULL, NULL, NULL), there);
}

static const char *const tiers[] = {"", NULL, in_memory};
#define TIERS 3

/* A chain that is longer than what the core and the tier look up at once. */
static void lookups_tell_parents(void **state)
{
	(void)state;
	for (int i = 0; i < TIERS; i++) {
		open_pipeline(tiers[i]);
		assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
		assert_int_equal(cairn_lookup_prefix(f.ns, keys, CHAIN, NULL, NULL, NULL), CHAIN);
		crowd();
		fixture_close(&f);
	}
}

/* What only the tier below has is told to it, key by key. */
static void lookups_tell_the_tier_below(void **state)
{
	(void)state;
	open_pipeline("null(size=16KiB) | ");
	assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
	for (uint32_t i = 500; i < 505; i++) /* none of the chain stays above */
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_int_equal(cairn_lookup_prefix(f.ns, keys, CHAIN, NULL, NULL, NULL), CHAIN);
	fixture_close(&f);
	/* What was told is kept. */
	open_pipeline(tiers[0]);
	crowd();
	fixture_close(&f);
}

static void loads_tell_parents(void **state)
{
	(void)state;
	for (int i = 0; i < TIERS; i++) {
		open_pipeline(tiers[i]);
		assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
		assert_int_equal(cairn_load(f.ns, xfers, CHAIN, &in_order, NULL), 0);
		crowd();
		fixture_close(&f);
	}
}

/* The same as a task, whose hits are no caller's own. */
static void tasks_tell_parents(void **state)
{
	(void)state;
	for (int i = 0; i < TIERS; i++) {
		uint64_t task;

		open_pipeline(tiers[i]);
		assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
		assert_int_equal(cairn_load(f.ns, xfers, CHAIN, &in_order, &task), 0);
		assert_int_equal(cairn_task_wait(f.store, task, 0, UINT64_MAX), 0);
		crowd();
		fixture_close(&f);
	}
}

/* Some are there already, and the others come up from below in the same task. */
static void loads_tell_what_comes_up(void **state)
{
	uint32_t there = 0;

	(void)state;
	open_pipeline("cache(size=16MiB, entries=256) | ");
	assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
	fixture_close(&f);
	open_pipeline("cache(size=16MiB, entries=256) | ");
	assert_int_equal(cairn_load(f.ns, xfers, CHAIN / 2, &plain, NULL), 0);
	assert_int_equal(cairn_load(f.ns, xfers, CHAIN, &in_order, NULL), 0);
	/* More than memory has room for: the chain goes from its end, there and below. */
	dump_others();
	for (uint32_t i = 0; i < CHAIN; i++) {
		struct cairn_pinned pinned;
		int ret = cairn_pin(f.ns, &keys[i], 0, &pinned);

		assert_true(ret == -ENOENT || (ret == 0 && there == i));
		there += ret == 0;
		if (ret == 0)
			assert_int_equal(cairn_unpin(f.store, pinned.pin), 0);
	}
	assert_in_range(there, 1, CHAIN - 1);
	fixture_close(&f);
}

static void dumps_of_what_is_present_tell_parents(void **state)
{
	(void)state;
	for (int i = 0; i < TIERS; i++) {
		open_pipeline(tiers[i]);
		assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &plain, NULL), 0);
		cairn_dump(f.ns, xfers, CHAIN, &in_order, NULL);
		assert_int_equal(xfers[CHAIN - 1].result.status, CAIRN_PRESENT);
		crowd();
		fixture_close(&f);
	}
}

/* Told by a dump, and read again: from the index file, or from the heads after a SIGKILL. */
static void parents_are_kept_over_a_restart(void **state)
{
	(void)state;
	for (int killed = 0; killed < 2; killed++) {
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			open_pipeline(tiers[0]);
			if (cairn_dump(f.ns, xfers, CHAIN, &in_order, NULL) != 0)
				_exit(1);
			if (killed)
				raise(SIGKILL);
			fixture_close(&f);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(killed ? WIFSIGNALED(status) : WIFEXITED(status) && !status);
		open_pipeline(tiers[0]);
		crowd();
		fixture_close(&f);
		fixture_free(&f);
		fixture_new(&f);
	}
}

/* Block 0 is as deep as the parent that it names: both are leaves, and the older goes first. */
static void parents_are_shallower(void **state)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .depth = 5};

	(void)state;
	for (int i = 0; i < 2; i++) {
		open_pipeline(tiers[i]);
		for (uint32_t n = 2; n-- > 0;) {
			attr.parent = n ? keys[CHAIN - 1] : keys[1];
			xfers[n].attr = &attr;
			assert_int_equal(cairn_dump(f.ns, &xfers[n], 1, &plain, NULL), 0);
		}
		/* A ghost, and one more than there is room for. */
		for (uint32_t n = 1000; n < 1208; n++)
			assert_int_equal(dump_one(&f, n, 0, SHARD, 0), 0);
		assert_false(present(&f, 1));
		assert_true(present(&f, 0));
		fixture_close(&f);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_attribute_told_stays),
		TEST(nothing_told_is_nothing_listed),
		TEST(lookups_tell_parents),
		TEST(lookups_tell_the_tier_below),
		TEST(loads_tell_parents),
		TEST(tasks_tell_parents),
		TEST(loads_tell_what_comes_up),
		TEST(dumps_of_what_is_present_tell_parents),
		TEST(parents_are_kept_over_a_restart),
		TEST(parents_are_shallower),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
