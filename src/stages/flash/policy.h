/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which region of the log goes next, and what of it is carried over. Pure: no I/O,
 * no locks, no clock; the owner serialises calls. Time is bytes written: the ages that
 * are told apart, POLICY_BINS epochs, are POLICY_LIVES lives of the log.
 *
 * Invariants, numbered:
 *  1. A region's histogram has the units of its live records by the epoch they were
 *     last used in; what is older than POLICY_BINS epochs counts as the oldest. The
 *     sum of its bins is its live units, always.
 *  2. A victim frees something: what is carried from it is less than a region.
 *  3. Over all victims, carried <= POLICY_CARRY_MAX * freed + one region, but for
 *     held records: each unit of room is paid for with that much copying at most, so
 *     write amplification stays below 1 + POLICY_CARRY_MAX in the long run.
 *
 * The choice: each region could be reclaimed with any epoch as threshold, where
 * records used later are carried and the others are evicted.
 *
 * POLICY_FIFO takes the region that was begun first, and carries what is held. POLICY_LRU takes
 * the one whose units were last used longest ago on average, dead ones for longest of all, and
 * carries what of it was used in the last POLICY_HOT_AGE epochs, the youngest first, as far as
 * invariant 3 lets it.
 *
 * POLICY_COST, the default: a threshold costs what is evicted, which is worse the younger it is,
 * and what is copied for each unit freed. The victim is the region and threshold with the least of
 *
 *	epoch of the threshold + price * carried / freed
 *
 * where the price (of copying as much as is freed, in epochs) follows from the
 * copying of late: it rises above POLICY_CARRY_AIM and falls below. So a load that
 * gains little by copying is not copied for, and regions whose records are all cold
 * or dead are taken as they are.
 *
 * There, a block that was dumped and not used since is taken for older than it is, by
 * POLICY_FRESH_AGE: most are never used, and those that were are again three times as
 * often. So what is used is worth carrying through more than one life of the log.
 *
 * Leaves go before their parents as long as a use of a block counts for its parents
 * too: then no parent is colder than its child. To carry cold parents for the sake of
 * cold children was measured, and costs more hits than it saves.
 */
#ifndef STAGES_FLASH_POLICY_H
#define STAGES_FLASH_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_BINS	   64u /* epochs told apart */
#define POLICY_LIVES	   2u  /* of the log: the time of so many epochs */
#define POLICY_FRESH_AGE   16u /* half a life: measured, and so is twice or half of it */
#define POLICY_HOT_AGE	   24u /* three quarters of a life: measured */
#define POLICY_PRIORITIES  100u
#define POLICY_CARRY_AIM   0.23	     /* carried for each unit freed, of late */
#define POLICY_CARRY_MAX   0.30	     /* the bound of invariant 3 */
#define POLICY_CARRY_SHARE (2.0 / 3) /* of a victim: frees a region for two copied, at worst */
#define POLICY_NONE	   UINT32_MAX

enum policy_kind { POLICY_COST, POLICY_LRU, POLICY_FIFO };

struct policy_region {
	uint64_t seq;		     /* of its use: they are begun in this order */
	uint32_t units[POLICY_BINS]; /* live, by epoch; a ring that ends with `epoch` */
	uint32_t live;
	uint32_t held;	/* of live */
	uint16_t epoch; /* the newest that the ring stands for */
	bool candidate; /* sealed, and nothing against reclaiming it */
	bool suspect;	/* goes before those that are not */
};

struct policy {
	enum policy_kind kind;
	struct policy_region *regions;
	uint64_t seq; /* the latest use of any region */
	uint32_t region_count, region_units;
	uint64_t epoch_units; /* written in each epoch */
	uint64_t written;     /* in this epoch */
	uint16_t epoch;
	uint32_t swept; /* the next region to be brought up to now, used or not */
	double price;
	double carried, freed; /* of late: decaying sums, regions */
	double credit;	       /* invariant 3: units that may be carried */
};

struct policy_victim {
	uint32_t region;  /* POLICY_NONE: no candidate */
	uint32_t carried; /* units that will be, held ones included */
	uint16_t epoch;	  /* of the choice */
	uint16_t age;	  /* epochs: what was used that long before it, or longer, is evicted */
};

/* The best so far: the less, the better. */
struct policy_choice {
	struct policy_victim victim;
	double score;
};

/* A choice that is made a few regions at a time. */
struct policy_scan {
	uint32_t next; /* region */
	bool evict;
	uint32_t room; /* units that can be carried */
	struct policy_choice best, best_suspect;
};

/*
 * @regions: region_count, zeroed, stays the caller's. @epoch: where a store that was
 * there before stopped, else 0.
 */
void policy_init(struct policy *policy, enum policy_kind kind, struct policy_region *regions,
		 uint32_t region_count, uint32_t region_units, uint16_t epoch);

/*
 * How long ago a block that is new counts as used, in epochs: POLICY_FRESH_AGE, less for one
 * with a priority (up to POLICY_PRIORITIES), which begins as if it had been used, as all do
 * where the kind is not POLICY_COST.
 */
uint32_t policy_fresh_age(const struct policy *policy, uint32_t priority);

/* @units were written to the log, whatever they were. True: a new epoch has begun. */
bool policy_written(struct policy *policy, uint32_t units);

/* A record of that epoch is live in @region; or it is not any more. O(1). */
void policy_add(struct policy *policy, uint32_t region, uint16_t epoch, uint32_t units);
void policy_drop(struct policy *policy, uint32_t region, uint16_t epoch, uint32_t units);
/* A live record was used: policy->epoch instead of @before. */
void policy_touch(struct policy *policy, uint32_t region, uint16_t before, uint32_t units);
/* Held records are carried, whatever their age: regions that are full of them are no victims. */
void policy_hold(struct policy *policy, uint32_t region, uint32_t units);
void policy_unhold(struct policy *policy, uint32_t region, uint32_t units);
/* It is empty from here on: a use of it begins, the @seq-th. */
void policy_clear(struct policy *policy, uint32_t region, uint64_t seq);
/* Whether it may be a victim: sealed, not yet being reclaimed, not retired. */
void policy_candidate(struct policy *policy, uint32_t region, bool may);
/* Until policy_clear(): something in it did not check. */
void policy_suspect(struct policy *policy, uint32_t region);

/*
 * The next victim. O(candidates * POLICY_BINS). Only looks. @evict: of those of which
 * something is evicted, since it is the index that is full.
 */
struct policy_victim policy_choose(struct policy *policy, bool evict);
/*
 * The same in slices, between which anything may change but that only the caller takes victims:
 * policy_scan() looks at @count regions more, and says whether it has looked at all; then
 * policy_scan_end() says what is chosen, as it is by then. False: none, for what was chosen is
 * no victim any more: begin anew. A region that became one behind the scan is not seen.
 * @room: units for which there is a place elsewhere; more than that is carried of no victim.
 */
void policy_scan_begin(struct policy_scan *scan, bool evict, uint32_t room);
bool policy_scan(const struct policy *policy, struct policy_scan *scan, uint32_t count);
bool policy_scan_end(const struct policy *policy, const struct policy_scan *scan,
		     struct policy_victim *ret_victim);
/* The victim is taken: it is no candidate any more, and what it costs is charged. */
void policy_take(struct policy *policy, const struct policy_victim *victim);

/*
 * Whether a record of the victim is carried. @orphan: no chain reaches it, since its
 * parent is not there. (Expired and dead records are the caller's to leave out.)
 */
bool policy_carries(const struct policy_victim *victim, uint16_t epoch, bool held, bool orphan);
/* The epoch that a carried record goes on with: its own, or the oldest told apart. */
uint16_t policy_epoch_of(const struct policy *policy, uint16_t epoch);

#endif
