/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that takes no writes for a while.
 *
 * Invariants, numbered:
 *  1. A region in which a write failed, or a flush that it needed, is in doubt until the
 *     superblock, which is to say that it is given up, is written and flushed, or that fails as
 *     well. While any is, no victim is chosen: each would lose what is in it, and its header be
 *     refused, too.
 *  2. Where the superblock fails, it is the device, and no region is given up for it.
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
	bool over = wrote && tier->refuses;

	if (!tier->doubts && !over)
		return;
	doubts_end(tier, over || !wrote);
	if (over) {
		outage_over(tier);
	} else if (!wrote && !tier->refuses) {
		tier->refuses = true;
		waiters_wake(&tier->wait_room);
		reclaim_kick(tier, false);
	}
}
