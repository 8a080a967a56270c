/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "random.h"
#include "stages/flash/policy.h"

/* ---- histograms, against a list of records -------------------------------------- */

#define REGIONS 8u
#define UNITS	1000u
#define RECORDS 200u

struct record {
	bool live;
	uint32_t region, units;
	uint16_t epoch;
	uint64_t used; /* the epoch, not wrapped */
};

struct model {
	struct policy policy;
	struct policy_region regions[REGIONS];
	struct record records[RECORDS];
	uint64_t now;
};

static uint32_t bin_at(const struct policy *policy, const struct policy_region *r, uint32_t age)
{
	return r->units[(uint16_t)(policy->epoch - age) % POLICY_BINS];
}

static void model_compare(struct model *m)
{
	for (uint32_t region = 0; region < REGIONS; region++) {
		uint32_t bins[POLICY_BINS] = {0}, live = 0;

		policy_candidate(&m->policy, region, true); /* brings it up to now */
		for (uint32_t i = 0; i < RECORDS; i++) {
			const struct record *w = &m->records[i];
			uint64_t age = m->now - w->used;

			if (!w->live || w->region != region)
				continue;
			live += w->units;
			bins[age < POLICY_BINS ? age : POLICY_BINS - 1] += w->units;
		}
		assert_int_equal(m->regions[region].live, live);
		for (uint32_t age = 0; age < POLICY_BINS; age++)
			assert_int_equal(bin_at(&m->policy, &m->regions[region], age), bins[age]);
	}
}

static void model_advance(struct model *m, uint64_t epochs)
{
	while (epochs--) {
		m->now++;
		assert_false(policy_written(&m->policy, (uint32_t)m->policy.epoch_units - 1));
		assert_true(policy_written(&m->policy, 1));
	}
}

static void model_step(struct model *m, struct random *random)
{
	struct record *w = &m->records[random_below(random, RECORDS)];

	if (!w->live) {
		w->region = random_below(random, REGIONS);
		w->units = 1 + random_below(random, 20);
		if (m->regions[w->region].live + w->units > UNITS)
			return;
		w->live = true;
		w->used = m->now - random_below(random, m->now < 100 ? (uint32_t)m->now + 1 : 100);
		w->epoch = (uint16_t)(m->policy.epoch - (m->now - w->used));
		policy_add(&m->policy, w->region, w->epoch, w->units);
	} else if (random_below(random, 3) == 0) {
		policy_drop(&m->policy, w->region, w->epoch, w->units);
		w->live = false;
	} else {
		policy_touch(&m->policy, w->region, w->epoch, w->units);
		w->used = m->now;
		w->epoch = m->policy.epoch;
	}
}

static void against_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct random random = {seed};
		struct model *m = calloc(1, sizeof(*m));

		print_message("# seed %llu\n", (unsigned long long)seed);
		policy_init(&m->policy, POLICY_COST, m->regions, REGIONS, UNITS,
			    (uint16_t)(seed * 65500));
		for (int i = 0; i < 3000; i++) {
			model_step(m, &random);
			if (random_below(&random, 20) == 0)
				model_advance(m, random_below(&random, 10));
			if (random_below(&random, 500) == 0)
				model_advance(m, random_below(&random, 300));
			model_compare(m);
		}
		free(m);
	}
}

/* A record that nobody used for so long that epochs came round again is still counted right. */
static void wrapped(void **state)
{
	struct model *m = calloc(1, sizeof(*m));

	(void)state;
	policy_init(&m->policy, POLICY_COST, m->regions, REGIONS, UNITS, 7);
	policy_add(&m->policy, 0, 7, 30);
	model_advance(m, 65536 + 2);
	policy_add(&m->policy, 0, m->policy.epoch, 5);
	assert_int_equal(bin_at(&m->policy, &m->regions[0], 0), 5);
	assert_int_equal(bin_at(&m->policy, &m->regions[0], POLICY_BINS - 1), 30);
	policy_drop(&m->policy, 0, 7, 30);
	assert_int_equal(m->regions[0].live, 5);
	assert_int_equal(bin_at(&m->policy, &m->regions[0], 0), 5);
	free(m);
}

/* ---- the choice -------------------------------------------------------------------- */

static struct policy_victim choose(struct model *m, uint32_t region, uint32_t carried)
{
	struct policy_victim victim = policy_choose(&m->policy, false);

	assert_int_equal(victim.region, region);
	assert_int_equal(victim.carried, carried);
	return victim;
}

static void victims(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct policy_victim victim;

	(void)state;
	policy_init(&m->policy, POLICY_COST, m->regions, REGIONS, UNITS, 0);
	choose(m, POLICY_NONE, 0);
	for (uint16_t region = 0; region < 4; region++) {
		policy_add(&m->policy, region, m->policy.epoch, UNITS);
		policy_candidate(&m->policy, region, true);
		model_advance(m, 10);
	}
	choose(m, 0, 0); /* the oldest */
	policy_touch(&m->policy, 0, 0, UNITS / 10);
	victim = choose(m, 0, UNITS / 10);
	assert_false(policy_carries(&victim, 0, false, false));
	assert_true(policy_carries(&victim, 0, true, true));
	assert_true(policy_carries(&victim, 40, false, false));
	assert_false(policy_carries(&victim, 40, false, true));
	assert_true(policy_carries(&victim, 41, false, false)); /* used after the choice */
	/* Most of it is hot: another one goes. */
	policy_touch(&m->policy, 0, 0, UNITS / 10 * 7);
	choose(m, 1, 0);
	/* What is dead goes before all. */
	policy_drop(&m->policy, 3, 30, UNITS);
	choose(m, 3, 0);
	policy_add(&m->policy, 3, 40, UNITS / 10);
	victim = choose(m, 3, UNITS / 10);
	assert_true(policy_carries(&victim, 40, false, false));
	policy_take(&m->policy, &victim);
	choose(m, 1, 0);
	/* What is held stays: carried if little, no victim if much. */
	policy_hold(&m->policy, 1, UNITS);
	choose(m, 2, 0);
	policy_unhold(&m->policy, 1, UNITS - 50);
	choose(m, 1, 50);
	policy_candidate(&m->policy, 1, false);
	choose(m, 2, 0);
	policy_clear(&m->policy, 2, 1);
	choose(m, 0, 0); /* hot, but too much to carry */
	free(m);
}

/* Looked at in slices, with changes between them: what is chosen is as it is at the end. */
static void slices(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	struct policy_victim victim;
	struct policy_scan scan;

	(void)state;
	policy_init(&m->policy, POLICY_COST, m->regions, REGIONS, UNITS, 0);
	for (uint32_t region = 0; region < REGIONS; region++) {
		policy_add(&m->policy, region, m->policy.epoch, UNITS);
		policy_candidate(&m->policy, region, true);
		model_advance(m, 2);
	}
	for (uint32_t count = 1; count <= REGIONS + 1; count++) {
		uint32_t turns = 1;

		policy_scan_begin(&scan, false, UNITS);
		while (!policy_scan(&m->policy, &scan, count))
			turns++;
		assert_int_equal(turns, (REGIONS + count - 1) / count);
		assert_true(policy_scan_end(&m->policy, &scan, &victim));
		assert_int_equal(victim.region, 0);
	}
	policy_scan_begin(&scan, false, UNITS);
	assert_false(policy_scan(&m->policy, &scan, 2));
	policy_hold(&m->policy, 0, 50); /* which was looked at */
	assert_true(policy_scan(&m->policy, &scan, REGIONS));
	assert_true(policy_scan_end(&m->policy, &scan, &victim));
	assert_int_equal(victim.region, 0);
	assert_int_equal(victim.carried, 50);
	policy_hold(&m->policy, 0, UNITS - 50); /* nothing of it would be freed */
	assert_false(policy_scan_end(&m->policy, &scan, &victim));
	assert_int_equal(victim.region, POLICY_NONE);
	policy_scan_begin(&scan, false, UNITS);
	for (uint32_t region = 0; region < REGIONS; region++)
		policy_candidate(&m->policy, region, false);
	assert_true(policy_scan(&m->policy, &scan, REGIONS));
	assert_true(policy_scan_end(&m->policy, &scan, &victim)); /* there is none */
	assert_int_equal(victim.region, POLICY_NONE);
	free(m);
}

static void old_epochs(void **state)
{
	struct model *m = calloc(1, sizeof(*m));

	(void)state;
	policy_init(&m->policy, POLICY_COST, m->regions, REGIONS, UNITS, 1000);
	assert_int_equal(policy_epoch_of(&m->policy, 990), 990);
	assert_int_equal(policy_epoch_of(&m->policy, 10), 1000 - POLICY_BINS + 1);
	policy_add(&m->policy, 0, 10, 100);
	assert_int_equal(bin_at(&m->policy, &m->regions[0], POLICY_BINS - 1), 100);
	free(m);
}

/* What is new is older than what was used, unless it has the highest priority. */
static void fresh_ages(void **state)
{
	struct policy cost = {.kind = POLICY_COST}, lru = {.kind = POLICY_LRU};
	struct policy fifo = {.kind = POLICY_FIFO};

	(void)state;
	assert_int_equal(policy_fresh_age(&cost, 0), POLICY_FRESH_AGE);
	assert_int_equal(policy_fresh_age(&cost, POLICY_PRIORITIES / 2), POLICY_FRESH_AGE / 2);
	assert_int_equal(policy_fresh_age(&cost, POLICY_PRIORITIES), 0);
	assert_int_equal(policy_fresh_age(&cost, UINT32_MAX), 0);
	for (uint32_t i = 1; i <= POLICY_PRIORITIES; i++)
		assert_true(policy_fresh_age(&cost, i) <= policy_fresh_age(&cost, i - 1));
	assert_int_equal(policy_fresh_age(&lru, 0), 0);
	assert_int_equal(policy_fresh_age(&fifo, 0), 0);
}

/* Three regions, begun in the order 2, 0, 1; the first 40 epochs ago, the last 20. */
static struct model *three(enum policy_kind kind)
{
	static const uint32_t order[] = {2, 0, 1};
	struct model *m = calloc(1, sizeof(*m));

	policy_init(&m->policy, kind, m->regions, REGIONS, UNITS, 0);
	for (uint32_t i = 0; i < 3; i++) {
		policy_clear(&m->policy, order[i], i + 1);
		policy_add(&m->policy, order[i], m->policy.epoch, UNITS);
		policy_candidate(&m->policy, order[i], true);
		model_advance(m, i < 2 ? 10 : 20);
	}
	return m;
}

static void fifo(void **state)
{
	struct model *m = three(POLICY_FIFO);
	struct policy_victim victim;

	(void)state;
	policy_touch(&m->policy, 2, 0, UNITS); /* which is nothing to it */
	policy_drop(&m->policy, 1, 20, UNITS / 2);
	policy_hold(&m->policy, 2, UNITS / 4);
	victim = choose(m, 2, UNITS / 4);
	assert_true(policy_carries(&victim, 0, true, false));
	assert_false(policy_carries(&victim, 40, false, false));
	policy_hold(&m->policy, 2, UNITS - UNITS / 4); /* nothing of it would be freed */
	choose(m, 0, 0);
	policy_unhold(&m->policy, 2, UNITS);
	policy_take(&m->policy, &victim);
	policy_clear(&m->policy, 2, 4);
	policy_add(&m->policy, 2, m->policy.epoch, UNITS);
	policy_candidate(&m->policy, 2, true);
	victim = choose(m, 0, 0);
	policy_take(&m->policy, &victim);
	victim = choose(m, 1, 0);
	policy_take(&m->policy, &victim);
	choose(m, 2, 0);
	policy_suspect(&m->policy, 2);
	policy_candidate(&m->policy, 1, true);
	choose(m, 2, 0);
	free(m);
}

static void lru(void **state)
{
	struct model *m = three(POLICY_LRU);
	struct policy_victim victim;

	(void)state;
	choose(m, 2, 0);
	/* A tenth of it is hot: that is carried. */
	policy_touch(&m->policy, 2, 0, UNITS / 10);
	victim = choose(m, 2, UNITS / 10);
	assert_true(policy_carries(&victim, 40, false, false));
	assert_false(policy_carries(&victim, 40, false, true));
	assert_false(policy_carries(&victim, 0, false, false));
	/* Half of it: it was used later on average than another one. */
	policy_touch(&m->policy, 2, 0, UNITS / 2);
	victim = choose(m, 0, 0);
	/* What is dead was used longest ago. */
	policy_drop(&m->policy, 1, 20, UNITS / 10 * 9);
	victim = choose(m, 1, UNITS / 10);
	policy_take(&m->policy, &victim);
	/* Never more than what pays. */
	policy_touch(&m->policy, 0, 10, UNITS / 10 * 6);
	policy_candidate(&m->policy, 2, false);
	choose(m, 0, UNITS / 10 * 6);
	policy_touch(&m->policy, 0, 10, UNITS / 10);
	choose(m, 0, 0);
	/* The index is full: something of it goes. */
	policy_drop(&m->policy, 0, 10, UNITS / 10 * 3);
	policy_drop(&m->policy, 0, m->policy.epoch, UNITS / 10 * 3);
	choose(m, 0, UNITS / 10 * 4);
	victim = policy_choose(&m->policy, true);
	assert_int_equal(victim.region, 0);
	assert_int_equal(victim.carried, 0);
	free(m);
}

static void fill(struct model *m, uint32_t region)
{
	policy_add(&m->policy, region, m->policy.epoch, UNITS);
	policy_candidate(&m->policy, region, true);
}

/* Where there is no place for what would be carried. */
static struct policy_victim choose_bare(const struct model *m)
{
	struct policy_victim victim;
	struct policy_scan scan;

	policy_scan_begin(&scan, false, 0);
	assert_true(policy_scan(&m->policy, &scan, REGIONS));
	assert_true(policy_scan_end(&m->policy, &scan, &victim));
	return victim;
}

static void a_victim_that_needs_no_place(struct model *m)
{
	uint32_t first = choose_bare(m).region;

	for (uint32_t region = 0; region < REGIONS; region++) {
		struct policy_victim victim = choose_bare(m);

		assert_int_not_equal(victim.region, POLICY_NONE);
		assert_int_equal(victim.carried, 0);
		policy_hold(&m->policy, (first + region) % REGIONS, 1);
	}
	assert_int_equal(choose_bare(m).region, POLICY_NONE);
	for (uint32_t region = 0; region < REGIONS; region++)
		policy_unhold(&m->policy, region, 1);
}

/* Whatever is used, the log is never copied more than promised, and there is always a victim. */
static void bounded_by(enum policy_kind kind)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct random random = {seed};
		struct model *m = calloc(1, sizeof(*m));
		double carried = 0, freed = 0;

		print_message("# seed %llu\n", (unsigned long long)seed);
		policy_init(&m->policy, kind, m->regions, REGIONS, UNITS, 0);
		for (uint32_t region = 0; region < REGIONS; region++)
			fill(m, region);
		for (int i = 0; i < 5000; i++) {
			struct policy_victim victim;

			for (uint32_t region = 0; region < REGIONS; region++)
				policy_touch(&m->policy, region, (uint16_t)(m->policy.epoch - 63),
					     random_below(&random, UNITS / (1 + (uint32_t)seed)));
			model_advance(m, random_below(&random, 12));
			a_victim_that_needs_no_place(m);
			victim = policy_choose(&m->policy, false);
			assert_int_not_equal(victim.region, POLICY_NONE);
			assert_true(victim.carried <= UNITS * POLICY_CARRY_SHARE);
			policy_take(&m->policy, &victim);
			carried += victim.carried;
			freed += UNITS - victim.carried;
			policy_clear(&m->policy, victim.region, (uint64_t)i + 1);
			fill(m, victim.region);
			assert_true(carried <= POLICY_CARRY_MAX * freed + UNITS);
		}
		assert_true(kind == POLICY_FIFO ? carried == 0 : carried > 0);
		free(m);
	}
}

static void bounded(void **state)
{
	(void)state;
	bounded_by(POLICY_COST);
	bounded_by(POLICY_LRU);
	bounded_by(POLICY_FIFO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_model), cmocka_unit_test(wrapped),
		cmocka_unit_test(victims),	 cmocka_unit_test(old_epochs),
		cmocka_unit_test(bounded),	 cmocka_unit_test(fresh_ages),
		cmocka_unit_test(fifo),		 cmocka_unit_test(lru),
		cmocka_unit_test(slices),
	};

	return cmocka_run_group_tests_name("flash_policy", tests, NULL, NULL);
}
