/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes first, by each policy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "policy/score.h"

static const struct policy_now now = {.now = 100000, .life = 1000};

static bool goes_before(enum policy_kind kind, struct policy_block a, struct policy_block b)
{
	return policy_score(kind, &a, &now) < policy_score(kind, &b, &now);
}

static void by_time(void **state)
{
	struct policy_block old = {.stamp = 100, .inserted = 50, .bytes = 4096};
	struct policy_block used = {.stamp = 900, .inserted = 40, .hits = 3, .bytes = 4096};
	struct policy_block deep = old;

	(void)state;
	deep.depth = 9;
	assert_true(goes_before(POLICY_LRU, old, used));
	assert_true(goes_before(POLICY_LRU, deep, old));
	assert_true(goes_before(POLICY_FIFO, used, old));
	assert_true(goes_before(POLICY_SLRU, old, used));
}

static void by_use(void **state)
{
	struct policy_block once = {.stamp = 99990, .inserted = 99990, .bytes = 4096};
	struct policy_block often = {.stamp = 99000, .inserted = 90000, .hits = 8, .bytes = 4096};
	struct policy_block stale = often;

	(void)state;
	assert_true(goes_before(POLICY_LFU, once, often));
	stale.stamp = 50000; /* many lives without a use: its uses count for nothing */
	assert_true(goes_before(POLICY_LFU, stale, once));
	/* Not used since it came: it goes before one that came much earlier and was. */
	assert_true(goes_before(POLICY_S3FIFO, once,
				(struct policy_block){
					.stamp = 99800,
					.inserted = 99000,
					.hits = 3,
					.bytes = 4096,
				}));
}

/* Used since it came it goes after what was not, for a life longer; then it goes by its time. */
static void protected_for_a_life(void **state)
{
	struct policy_block once = {.stamp = 99990, .inserted = 99990, .bytes = 4096};
	struct policy_block again = {.stamp = 99500, .inserted = 90000, .hits = 1, .bytes = 4096};

	(void)state;
	assert_true(goes_before(POLICY_LRU, again, once));
	assert_true(goes_before(POLICY_SLRU, once, again));
	again.stamp = once.stamp - now.life - 1;
	assert_true(goes_before(POLICY_SLRU, again, once));
}

static void by_size_and_cost(void **state)
{
	struct policy_block small = {.stamp = 500, .bytes = 65536}, large = small, dear = small;

	(void)state;
	large.bytes = 8u << 20;
	dear.cost_us = 50000;
	assert_true(goes_before(POLICY_GDSF, large, small));
	assert_true(goes_before(POLICY_GDSF, small, dear));
}

static void by_priority(void **state)
{
	struct policy_block plain = {.stamp = 500, .inserted = 500, .bytes = 4096}, wanted = plain;

	(void)state;
	wanted.priority = 100;
	for (int kind = POLICY_LRU; kind <= POLICY_FIFO; kind++)
		assert_true(goes_before((enum policy_kind)kind, plain, wanted));
	assert_true(goes_before(POLICY_SLRU, plain, wanted));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_time),
		cmocka_unit_test(by_use),
		cmocka_unit_test(protected_for_a_life),
		cmocka_unit_test(by_size_and_cost),
		cmocka_unit_test(by_priority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
