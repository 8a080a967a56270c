/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that takes no writes for a while.
 *
 * Invariants, numbered:
 *  1. A region in which a write failed is in doubt until the device has taken one, or refused the
 *     superblock's, which is to say that it is given up. While any is, no victim is chosen: each
 *     would lose what is in it, and its header be refused as well.
 *  2. Where the superblock is refused, too, it is the device, and no region is given up for it.
 *     Until it takes the superblock, which is tried each second, dumps end -EIO before they take
 *     a region, and nothing is reclaimed. Loads go on. Then the regions are as they were.
 */
#include "stages/flash/tier.h"

static void doubts_end(struct flash *tier, bool spared)
{
	for (uint32_t i = 0; i < tier->layout.region_count; i++) {
		struct region *region = &tier->regions[i];

		if (!region->doubt)
			continue;
		region->doubt = false;
		region->spared = spared;
		if (spared)
			region_unretire(tier, i);
	}
	tier->doubts = 0;
}

void write_failed(struct flash *tier, uint32_t number, int64_t error)
{
	struct region *region = &tier->regions[number];

	if (!region->failed || region->spared) {
		tier->doubts += !region->doubt;
		region->doubt = true;
	}
	region_retire(tier, number, error);
	tier->retired_new = true;
	commit_super(tier);
}

void write_passed(struct flash *tier)
{
	if (tier->doubts && !tier->refuses)
		doubts_end(tier, false);
}

static void outage_over(struct flash *tier)
{
	tier->refuses = false;
	for (uint32_t i = 0; i < tier->layout.region_count; i++) {
		struct region *region = &tier->regions[i];

		if (!region->spared)
			continue;
		region->spared = region->failed = false;
		region_unretire(tier, i);
		if (region->state != REGION_RETIRED)
			continue;
		region->state = REGION_SEALED;
		policy_candidate(&tier->policy, i, !region->kept);
	}
	room_given(tier);
}

void super_told(struct flash *tier, bool wrote)
{
	if (wrote && tier->refuses) {
		doubts_end(tier, true);
		outage_over(tier);
	} else if (wrote) {
		write_passed(tier);
	} else if (tier->doubts) {
		doubts_end(tier, true);
		tier->refuses = true;
		waiters_wake(&tier->wait_room);
		reclaim_kick(tier, false);
	}
}
