/* SPDX-License-Identifier: Apache-2.0 */
/* What engines tell of blocks: attributes, as they are listed; parents, by what goes first. */
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_attribute_told_stays),
		TEST(nothing_told_is_nothing_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
