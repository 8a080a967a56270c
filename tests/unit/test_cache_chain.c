/* SPDX-License-Identifier: Apache-2.0 */
/* Chains that are longer than the memory, or whose end may not go: dumps are taken all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "block_shop.h"

#define LENGTH	    65536u
#define OPTIONS	    "size=16MiB, entries=2000"
#define LINKS	    700u	 /* of 64 KiB: some three times what there is room for */
#define PIECES	    2u		 /* shards of a block, where it has several */
#define TAKEN_NS    10000000000u /* a dump that is not taken is declined then */
#define ALONE	    UINT32_MAX	 /* of no parent */
#define DECLINED_NS 50000000u	 /* of one that cannot be taken */
#define OTHER	    100000u	 /* blocks of no chain are numbered from here on */
#define FULL_PART   10u		 /* but for one of so many places the memory stays full */

/* All shards of a block; what the results say. */
static int dump_by(const struct shop *shop, uint32_t number, uint32_t shards, uint32_t parent,
		   uint64_t deadline_ns)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = deadline_ns};
	struct cairn_block_attr attr = {.size = sizeof(attr)};
	uint8_t *memory = malloc(LENGTH);
	struct cairn_xfer xfers[PIECES];
	int status = 0;

	assert_non_null(memory);
	memset(memory, (int)number, LENGTH);
	if (parent != ALONE)
		attr.parent = key_of(shop, parent);
	for (uint32_t i = 0; i < shards; i++) {
		xfers[i] = xfer_of(shop, number, memory, LENGTH);
		xfers[i].shard = i;
		xfers[i].attr = &attr;
	}
	cairn_dump(shop->ns, xfers, shards, &opts, NULL);
	give_back(shop, memory);
	for (uint32_t i = 0; i < shards; i++)
		if (xfers[i].result.status < 0)
			status = xfers[i].result.status;
	return status;
}

static int dump_linked(const struct shop *shop, uint32_t number, uint32_t shards, uint32_t parent)
{
	return dump_by(shop, number, shards, parent, TAKEN_NS);
}

static uint32_t parent_of(uint32_t number)
{
	return number == 0 ? ALONE : number - 1;
}

/* Until the first one goes; how many there is room for. */
static uint32_t fill_up(const struct shop *shop)
{
	uint32_t number = 0;

	while (counted(shop, "evicted_blocks") == 0) {
		assert_true(number < LINKS);
		assert_int_equal(dump_linked(shop, number, 1, parent_of(number)), 0);
		number++;
	}
	return number - 1;
}

static uint32_t present(const struct shop *shop)
{
	uint32_t count = 0;

	for (uint32_t number = 0; number < LINKS; number++)
		count += in_memory(shop, number);
	return count;
}

/* Guards that the end of a chain goes for what continues it, and its beginning stays. */
static void longer_than_memory(void **state)
{
	struct shop shop;
	uint32_t room;

	(void)state;
	shop_open(&shop, OPTIONS, "", LENGTH);
	room = fill_up(&shop);
	for (uint32_t number = room + 1; number < room + room / 4; number++)
		assert_int_equal(dump_linked(&shop, number, 1, number - 1), 0);
	for (uint32_t number = 0; number < room / 2; number++)
		assert_true(in_memory(&shop, number));
	for (uint32_t number = room + room / 4; number < LINKS; number++)
		assert_int_equal(dump_linked(&shop, number, 1, number - 1), 0);
	assert_true(present(&shop) >= room - room / FULL_PART);
	for (uint32_t i = 0; i < room; i++)
		assert_int_equal(dump_linked(&shop, OTHER + i, 1, ALONE), 0);
	assert_int_equal(counted(&shop, "refused"), 0);
	shop_close(&shop);
}

/* Opened, and how many blocks find room in it. */
static uint32_t shop_measured(struct shop *shop)
{
	uint32_t room;

	shop_open(shop, OPTIONS, "", LENGTH);
	room = fill_up(shop);
	shop_close(shop);
	shop_open(shop, OPTIONS, "", LENGTH);
	return room;
}

/* Guards that a chain of which nothing can go but what has children keeps nobody out. */
static void pinned_end(void **state)
{
	struct cairn_pinned pinned;
	struct cairn_key end;
	struct shop shop;
	uint32_t room;

	(void)state;
	room = shop_measured(&shop);
	for (uint32_t number = 0; number < room; number++)
		assert_int_equal(dump_linked(&shop, number, 1, parent_of(number)), 0);
	assert_int_equal(counted(&shop, "evicted_blocks"), 0);
	end = key_of(&shop, room - 1);
	assert_int_equal(cairn_pin(shop.ns, &end, 0, &pinned), 0);
	assert_int_equal(dump_linked(&shop, OTHER, 1, ALONE), 0);
	assert_int_equal(counted(&shop, "evicted_parents"), counted(&shop, "evicted_blocks"));
	/* Next to the end: else nothing of the chain could be found from its beginning. */
	assert_false(in_memory(&shop, room - 2));
	assert_true(in_memory(&shop, 0) && in_memory(&shop, room - 3));
	for (uint32_t i = 1; i < room; i++)
		assert_int_equal(dump_linked(&shop, OTHER + i, 1, ALONE), 0);
	assert_true(in_memory(&shop, room - 1));
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);
	shop_close(&shop);
}

static uint64_t blocks_of(const struct shop *shop)
{
	struct cairn_stat stat = {.size = sizeof(stat)};

	assert_int_equal(cairn_stat(shop->store, &stat), 0);
	return stat.blocks;
}

/* Guards that memory of another size, which all blocks have some of, does not go for one of them.
 */
static void of_several_shards(void **state)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "p", .shard_count = PIECES, .shard_bytes = LENGTH};
	uint64_t most = 0, blocks;
	struct shop shop;

	(void)state;
	shop_open(&shop, OPTIONS, "", LENGTH);
	assert_int_equal(cairn_namespace_open(shop.store, &desc, &shop.ns, NULL), 0);
	for (uint32_t number = 0; number < LINKS / PIECES; number++) {
		assert_int_equal(dump_linked(&shop, number, PIECES, parent_of(number)), 0);
		blocks = blocks_of(&shop);
		assert_true(blocks >= most - most / FULL_PART);
		most = blocks > most ? blocks : most;
	}
	assert_true(counted(&shop, "evicted_blocks") > 0);
	shop_close(&shop);
}

/* Guards that a dump that is declined after it has waited leaves its parent without a child. */
static void declined(void **state)
{
	struct cairn_pinned pins[LINKS];
	struct shop shop;
	uint32_t room;

	(void)state;
	room = shop_measured(&shop);
	for (uint32_t number = 0; number < room; number++) {
		struct cairn_key key = key_of(&shop, number);

		assert_int_equal(dump_linked(&shop, number, 1, ALONE), 0);
		assert_int_equal(cairn_pin(shop.ns, &key, 0, &pins[number]), 0);
	}
	assert_true(dump_by(&shop, OTHER, 1, 0, DECLINED_NS) < 0);
	for (uint32_t number = 0; number < room; number++)
		assert_int_equal(cairn_unpin(shop.store, pins[number].pin), 0);
	for (uint32_t i = 1; i < 3 * room; i++)
		assert_int_equal(dump_linked(&shop, OTHER + i, 1, ALONE), 0);
	assert_false(in_memory(&shop, 0));
	shop_close(&shop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(longer_than_memory), TEST(pinned_end),
					   TEST(declined), TEST(of_several_shards)};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
