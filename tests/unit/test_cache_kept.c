/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of what lies in a region: of one that was kept, and of one that several share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "block_shop.h"

#define LENGTH 20000u
#define SIZES  "size=16MiB, entries=2000"

/* While nobody has the region open. */
static void damage_block(struct shop *shop, uint32_t number)
{
	struct cairn_key key = key_of(shop, number);

	shop_close(shop);
	damage_key(&key, LENGTH, LENGTH / 2);
	shop_open(shop, SIZES ", keep=yes", "", LENGTH);
}

/* What happened to a region that nobody had open is seen before a byte of it is served. */
static void kept(void **state)
{
	struct cairn_pinned pinned;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, SIZES ", keep=yes", "", LENGTH);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(dump(&shop, i, LENGTH), 0);
	damage_block(&shop, 1);
	assert_int_equal(load(&shop, 1, LENGTH), -ENOENT);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(load(&shop, i, LENGTH), i == 1 ? -ENOENT : 0);
	/* What was found right is looked at again after the next time that nobody had it. */
	damage_block(&shop, 2);
	key = key_of(&shop, 2);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -ENOENT);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	assert_int_equal(load(&shop, 2, LENGTH), -ENOENT);
	assert_int_equal(load(&shop, 3, LENGTH), 0);
	assert_true(in_memory(&shop, 3));
	shop_close(&shop);
	shop_open(&shop, SIZES, "", LENGTH); /* which keeps nothing */
	assert_int_equal(load(&shop, 0, LENGTH), -ENOENT);
	shop_close(&shop);
}

/* One joins while another has it open: nothing happened meanwhile, and it finds all sums. */
static void sums_are_shared(void **state)
{
	struct shop one, two;

	(void)state;
	shop_open(&one, SIZES ", verify=hit", "", LENGTH);
	shop_open(&two, SIZES, "", LENGTH);
	assert_int_equal(dump(&two, 1, LENGTH), 0);
	assert_int_equal(load(&one, 1, LENGTH), 0);
	assert_true(in_memory(&one, 1));
	assert_int_equal(counted(&one, "damaged_blocks"), 0);
	shop_close(&one);
	shop_close(&two);
}

static void refused(const char *options, const char *said)
{
	struct cairn_error error = {0};
	struct shop shop = {0};
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(%s, %s, name=%s)", SIZES, options, region);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), -EINVAL);
	assert_non_null(strstr(error.text, said));
	assert_null(strchr(error.text, '\n'));
}

static void what_differs_is_refused(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, SIZES, "", LENGTH);
	refused("policy=lfu", "policy=");
	refused("verify=hit", "verify=hit");
	refused("keep=yes", "keep=yes");
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	shop_close(&shop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(kept),
		TEST(sums_are_shared),
		TEST(what_differs_is_refused),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
