/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/policy.h"

#include <assert.h>
#include <string.h>

#define PRICE_MIN  1.5	 /* epochs: below that the order is noise */
#define PRICE_MAX  320.0 /* ten lives of the log: nothing is worth copying */
#define PRICE_STEP 1.05
#define LATE	   0.9 /* of what counts, kept at each victim: the last ten or so */

void policy_init(struct policy *policy, enum policy_kind kind, struct policy_region *regions,
		 uint32_t region_count, uint32_t region_units, uint16_t epoch)
{
	uint64_t units = (uint64_t)region_count * region_units * POLICY_LIVES / POLICY_BINS;

	assert(region_count && region_units);
	*policy = (struct policy){
		.kind = kind,
		.regions = regions,
		.region_count = region_count,
		.region_units = region_units,
		.epoch_units = units ? units : 1,
		.epoch = epoch,
		.price = PRICE_MIN,
		.credit = region_units,
	};
	for (uint32_t i = 0; i < region_count; i++)
		regions[i].epoch = epoch;
}

uint32_t policy_fresh_age(const struct policy *policy, uint32_t priority)
{
	if (policy->kind != POLICY_COST || priority >= POLICY_PRIORITIES)
		return 0;
	return POLICY_FRESH_AGE * (POLICY_PRIORITIES - priority) / POLICY_PRIORITIES;
}

/* ---- histograms ----------------------------------------------------------- */

/* Brings the ring up to now: what grows too old is lumped together in the oldest bin. */
static struct policy_region *region_of(const struct policy *policy, uint32_t region)
{
	struct policy_region *r = &policy->regions[region];

	assert(region < policy->region_count);
	for (uint32_t i = 0; r->epoch != policy->epoch && i < POLICY_BINS; i++) {
		uint32_t oldest = ++r->epoch % POLICY_BINS; /* becomes the newest */

		r->units[(oldest + 1) % POLICY_BINS] += r->units[oldest];
		r->units[oldest] = 0;
	}
	if (r->epoch != policy->epoch) { /* all of it is in one bin now, the oldest */
		memset(r->units, 0, sizeof(r->units));
		r->units[(policy->epoch + 1u) % POLICY_BINS] = r->live;
		r->epoch = policy->epoch;
	}
	return r;
}

bool policy_written(struct policy *policy, uint32_t units)
{
	policy->written += units;
	if (policy->written < policy->epoch_units)
		return false;
	policy->written -= policy->epoch_units;
	policy->epoch++;
	/* Each region within a life of the log, so that none is missed until epochs wrap. */
	for (uint32_t i = 0; i <= policy->region_count / POLICY_BINS; i++) {
		region_of(policy, policy->swept);
		policy->swept = (policy->swept + 1) % policy->region_count;
	}
	return true;
}

static uint32_t age_of(const struct policy *policy, uint16_t epoch)
{
	uint32_t age = (uint16_t)(policy->epoch - epoch);

	return age < POLICY_BINS ? age : POLICY_BINS - 1;
}

static uint32_t *bin_of(const struct policy *policy, struct policy_region *r, uint32_t age)
{
	return &r->units[(uint16_t)(policy->epoch - age) % POLICY_BINS];
}

static_assert(65536 % POLICY_BINS == 0, "the ring goes on where epochs wrap");

void policy_add(struct policy *policy, uint32_t region, uint16_t epoch, uint32_t units)
{
	struct policy_region *r = region_of(policy, region);

	*bin_of(policy, r, age_of(policy, epoch)) += units;
	r->live += units;
	assert(r->live <= policy->region_units);
}

/* An epoch that has wrapped is taken for another one: then the oldest give instead. */
static void bins_take(const struct policy *policy, struct policy_region *r, uint16_t epoch,
		      uint32_t units)
{
	uint32_t age = age_of(policy, epoch);

	for (uint32_t i = 0; units && i <= POLICY_BINS; i++) {
		uint32_t *bin = bin_of(policy, r, i ? POLICY_BINS - i : age);
		uint32_t taken = *bin < units ? *bin : units;

		*bin -= taken;
		units -= taken;
	}
	assert(!units);
}

void policy_drop(struct policy *policy, uint32_t region, uint16_t epoch, uint32_t units)
{
	struct policy_region *r = region_of(policy, region);

	assert(r->live >= units);
	bins_take(policy, r, epoch, units);
	r->live -= units;
}

void policy_touch(struct policy *policy, uint32_t region, uint16_t before, uint32_t units)
{
	struct policy_region *r = region_of(policy, region);

	assert(r->live >= units);
	bins_take(policy, r, before, units);
	*bin_of(policy, r, 0) += units;
}

void policy_hold(struct policy *policy, uint32_t region, uint32_t units)
{
	struct policy_region *r = region_of(policy, region);

	r->held += units;
	assert(r->held <= policy->region_units);
}

void policy_unhold(struct policy *policy, uint32_t region, uint32_t units)
{
	struct policy_region *r = region_of(policy, region);

	assert(r->held >= units);
	r->held -= units;
}

void policy_clear(struct policy *policy, uint32_t region, uint64_t seq)
{
	assert(region < policy->region_count);
	policy->regions[region] = (struct policy_region){.seq = seq, .epoch = policy->epoch};
	if (seq > policy->seq)
		policy->seq = seq;
}

void policy_candidate(struct policy *policy, uint32_t region, bool may)
{
	region_of(policy, region)->candidate = may;
}

/* ---- the choice ------------------------------------------------------------- */

/* What is carried beside @carried of its own: held records, as far as they are not among those. */
static uint32_t with_held(const struct policy_region *r, uint32_t carried)
{
	return carried + r->held < r->live ? carried + r->held : r->live;
}

/* A victim that frees something, and the best so far. */
static void offer(const struct policy *policy, uint32_t region, uint32_t age, uint32_t carried,
		  double score, struct policy_choice *best)
{
	if (best->victim.region != POLICY_NONE && score >= best->score)
		return;
	best->score = score;
	best->victim.region = region;
	best->victim.carried = carried;
	best->victim.epoch = policy->epoch;
	best->victim.age = (uint16_t)age;
}

static bool too_much(const struct policy *policy, const struct policy_scan *scan, uint32_t carried,
		     uint32_t all)
{
	return carried && (all > scan->room || all > policy->region_units * POLICY_CARRY_SHARE ||
			   carried > policy->credit);
}

/* Whether a region of which @all is carried and @live is live is any use as a victim. */
static bool of_use(const struct policy *policy, const struct policy_scan *scan, uint32_t all,
		   uint32_t live)
{
	return all < policy->region_units && all <= scan->room && !(scan->evict && all == live);
}

/* Its thresholds, from the youngest: everything is evicted, then less and less. */
static void consider_cost(const struct policy *policy, const struct policy_scan *scan,
			  uint32_t region, struct policy_choice *best)
{
	struct policy_region *r = region_of(policy, region);
	double units = policy->region_units;
	uint32_t carried = 0;

	for (uint32_t age = 0; age <= POLICY_BINS; age++) {
		uint32_t all = with_held(r, carried);
		uint32_t bin = age < POLICY_BINS ? *bin_of(policy, r, age) : 0;
		double freed = units - all;

		if (too_much(policy, scan, carried, all))
			return;
		/* A threshold between two bins that hold something is as good as the older one. */
		if ((bin || age == POLICY_BINS) && of_use(policy, scan, all, r->live))
			offer(policy, region, age, all, policy->price * all / freed - age, best);
		carried += bin;
	}
}

static double mean_age(const struct policy *policy, struct policy_region *r)
{
	double sum = (double)(policy->region_units - r->live) * POLICY_BINS;

	for (uint32_t age = 0; age < POLICY_BINS; age++)
		sum += (double)*bin_of(policy, r, age) * age;
	return sum / policy->region_units;
}

static void consider_lru(const struct policy *policy, const struct policy_scan *scan,
			 uint32_t region, struct policy_choice *best)
{
	struct policy_region *r = region_of(policy, region);
	uint32_t carried = 0, age = 0, all;

	for (; age < POLICY_HOT_AGE; age++) {
		uint32_t more = carried + *bin_of(policy, r, age);

		if (too_much(policy, scan, more, with_held(r, more)))
			break;
		carried = more;
	}
	all = with_held(r, carried);
	if (scan->evict && all == r->live) {
		age = 0;
		all = with_held(r, 0);
	}
	if (of_use(policy, scan, all, r->live))
		offer(policy, region, age, all, -mean_age(policy, r), best);
}

static void consider_fifo(const struct policy *policy, const struct policy_scan *scan,
			  uint32_t region, struct policy_choice *best)
{
	struct policy_region *r = region_of(policy, region);
	uint32_t all = with_held(r, 0);

	if (of_use(policy, scan, all, r->live))
		offer(policy, region, 0, all, -(double)(policy->seq - r->seq), best);
}

static void consider(const struct policy *policy, const struct policy_scan *scan, uint32_t region,
		     struct policy_choice *best)
{
	switch (policy->kind) {
	case POLICY_COST:
		consider_cost(policy, scan, region, best);
		return;
	case POLICY_LRU:
		consider_lru(policy, scan, region, best);
		return;
	case POLICY_FIFO:
		consider_fifo(policy, scan, region, best);
		return;
	}
}

void policy_suspect(struct policy *policy, uint32_t region)
{
	assert(region < policy->region_count);
	policy->regions[region].suspect = true;
}

static const struct policy_choice none = {.victim = {.region = POLICY_NONE}};

void policy_scan_begin(struct policy_scan *scan, bool evict, uint32_t room)
{
	*scan = (struct policy_scan){
		.evict = evict, .room = room, .best = none, .best_suspect = none};
}

bool policy_scan(const struct policy *policy, struct policy_scan *scan, uint32_t count)
{
	for (; count && scan->next < policy->region_count; count--, scan->next++) {
		const struct policy_region *r = &policy->regions[scan->next];

		if (r->candidate)
			consider(policy, scan, scan->next,
				 r->suspect ? &scan->best_suspect : &scan->best);
	}
	return scan->next == policy->region_count;
}

/* As the region is now, which may have changed since it was looked at. */
static struct policy_victim as_it_is(const struct policy *policy, const struct policy_scan *scan,
				     const struct policy_choice *choice)
{
	struct policy_choice now = none;
	uint32_t region = choice->victim.region;

	if (region != POLICY_NONE && policy->regions[region].candidate)
		consider(policy, scan, region, &now);
	return now.victim;
}

bool policy_scan_end(const struct policy *policy, const struct policy_scan *scan,
		     struct policy_victim *ret_victim)
{
	assert(scan->next == policy->region_count);
	*ret_victim = as_it_is(policy, scan, &scan->best_suspect);
	if (ret_victim->region == POLICY_NONE)
		*ret_victim = as_it_is(policy, scan, &scan->best);
	return ret_victim->region != POLICY_NONE ||
	       (scan->best.victim.region == POLICY_NONE &&
		scan->best_suspect.victim.region == POLICY_NONE);
}

struct policy_victim policy_choose(struct policy *policy, bool evict)
{
	struct policy_victim victim;
	struct policy_scan scan;

	policy_scan_begin(&scan, evict, policy->region_units);
	policy_scan(policy, &scan, policy->region_count);
	policy_scan_end(policy, &scan, &victim);
	return victim;
}

void policy_take(struct policy *policy, const struct policy_victim *victim)
{
	double carried = victim->carried, freed = policy->region_units - carried;

	assert(policy->regions[victim->region].candidate && freed > 0);
	policy->regions[victim->region].candidate = false;
	policy->credit += POLICY_CARRY_MAX * freed - carried;
	if (policy->credit > policy->region_units)
		policy->credit = policy->region_units;
	policy->carried = policy->carried * LATE + carried;
	policy->freed = policy->freed * LATE + freed;
	if (policy->carried > POLICY_CARRY_AIM * policy->freed)
		policy->price *= PRICE_STEP;
	else
		policy->price /= PRICE_STEP;
	if (policy->price < PRICE_MIN)
		policy->price = PRICE_MIN;
	if (policy->price > PRICE_MAX)
		policy->price = PRICE_MAX;
}

bool policy_carries(const struct policy_victim *victim, uint16_t epoch, bool held, bool orphan)
{
	int age = (int16_t)(uint16_t)(victim->epoch - epoch); /* below 0: used since */

	if (age >= (int)POLICY_BINS)
		age = POLICY_BINS - 1;
	return held || (!orphan && age < victim->age);
}

uint16_t policy_epoch_of(const struct policy *policy, uint16_t epoch)
{
	return (uint16_t)(policy->epoch - age_of(policy, epoch));
}
