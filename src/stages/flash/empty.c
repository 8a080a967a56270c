/* SPDX-License-Identifier: Apache-2.0 */
/* What still has a place in a victim when its records are done goes. */
#include "stages/flash/reclaim.h"

/* [m] Entry @id goes, if it has a place in the victim; false: it is being written, so not now. */
static bool evict_entry(struct flash *tier, uint32_t victim, uint32_t id)
{
	struct table_block block;
	struct table_place place;
	uint32_t partial, shard = 0;

	table_look(tier->table, id, &block);
	if (block.state != TABLE_WHOLE && block.state != TABLE_PARTIAL)
		return true;
	while (shard < block.geometry.shard_count &&
	       !(table_shard(tier->table, id, shard, &place) &&
		 flash_region_of(&tier->layout, place.unit) == victim))
		shard++;
	if (shard == block.geometry.shard_count)
		return true;
	partial = block.state == TABLE_PARTIAL ? partial_find(tier, block.fingerprint) : UINT32_MAX;
	if (partial != UINT32_MAX && tier->partials[partial].claim_count)
		return false;
	if (block.holds) /* what is held stays, too */
		return true;
	if (partial != UINT32_MAX)
		flash_partial_free(tier, partial);
	block_remove(tier, id);
	cairn_count(tier->env, partial != UINT32_MAX ? CNT_PARTIALS_DROPPED : CNT_EVICTED, 1);
	return true;
}

bool reclaim_evict_rest(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint32_t end = table_end(tier->table);

	for (uint32_t i = 0; i < SLICE_ENTRIES && r->rest < end; i++) {
		if (!tier->regions[r->victim].live || !evict_entry(tier, r->victim, r->rest))
			return true;
		r->rest++;
	}
	return r->rest == end || !tier->regions[r->victim].live;
}
