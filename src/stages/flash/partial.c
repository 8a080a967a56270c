/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks being written: what the table has no room for. All under the mutex.
 *
 * Invariants, numbered:
 *  1. Each has a partial entry in the table, found by the same fingerprint.
 *  2. One that nobody writes to (claim_count 0) may be given up at any time: its
 *     records die, and dumps begin anew.
 */
#include "stages/flash/tier.h"

#define NONE UINT32_MAX

static size_t partials_bytes(void)
{
	return PARTIALS_MAX * sizeof(struct partial);
}

int flash_partials_init(struct flash *tier)
{
	void *memory;
	int rc = sys_reserve(tier->sys, partials_bytes(), &memory);

	if (rc < 0)
		return rc;
	tier->partials = memory;
	tier->partials_free = tier->partial_oldest = tier->partial_newest = NONE;
	memset(tier->partial_buckets, 0xff, sizeof(tier->partial_buckets));
	return 0;
}

void flash_partials_fini(struct flash *tier)
{
	if (tier->partials)
		tier->sys->munmap(tier->partials, partials_bytes());
	tier->partials = NULL;
}

static uint32_t *bucket_of(struct flash *tier, uint64_t fingerprint)
{
	return &tier->partial_buckets[fingerprint % PARTIAL_BUCKETS];
}

uint32_t partial_find(struct flash *tier, uint64_t fingerprint)
{
	uint32_t at = *bucket_of(tier, fingerprint);

	while (at != NONE && tier->partials[at].fingerprint != fingerprint)
		at = tier->partials[at].next;
	assert(at == NONE || tier->partials[at].in_use);
	return at;
}

static void order_out(struct flash *tier, struct partial *partial)
{
	if (partial->older == NONE)
		tier->partial_oldest = partial->newer;
	else
		tier->partials[partial->older].newer = partial->newer;
	if (partial->newer == NONE)
		tier->partial_newest = partial->older;
	else
		tier->partials[partial->newer].older = partial->older;
}

static void order_in(struct flash *tier, uint32_t number)
{
	struct partial *partial = &tier->partials[number];

	partial->older = tier->partial_newest;
	partial->newer = NONE;
	if (tier->partial_newest == NONE)
		tier->partial_oldest = number;
	else
		tier->partials[tier->partial_newest].newer = number;
	tier->partial_newest = number;
}

uint32_t flash_partial_new(struct flash *tier, uint64_t fingerprint, uint32_t id,
			   uint32_t shard_count, uint64_t birth)
{
	struct partial *partial;
	uint32_t number, *bucket = bucket_of(tier, fingerprint);

	if (tier->partials_free == NONE && tier->partial_end == PARTIALS_MAX &&
	    !partial_drop_oldest(tier))
		return NONE;
	if (tier->partials_free != NONE) {
		number = tier->partials_free;
		tier->partials_free = tier->partials[number].next;
	} else {
		number = tier->partial_end++;
	}
	partial = &tier->partials[number];
	*partial = (struct partial){
		.fingerprint = fingerprint,
		.id = id,
		.next = *bucket,
		.birth = birth,
		.shard_count = shard_count,
		.in_use = true,
		.created_ns = tier->sys->realtime_ns(),
	};
	*bucket = number;
	order_in(tier, number);
	return number;
}

void flash_partial_touch(struct flash *tier, uint32_t partial)
{
	order_out(tier, &tier->partials[partial]);
	order_in(tier, partial);
}

void flash_partial_free(struct flash *tier, uint32_t number)
{
	struct partial *partial = &tier->partials[number];
	uint32_t *at = bucket_of(tier, partial->fingerprint);

	assert(partial->in_use && partial->claim_count == 0);
	while (*at != number)
		at = &tier->partials[*at].next;
	*at = partial->next;
	order_out(tier, partial);
	partial->in_use = false;
	partial->next = tier->partials_free;
	tier->partials_free = number;
}

/* Of a block that is being written. */
static void shard_lost(struct flash *tier, uint32_t number, uint32_t shard)
{
	struct partial *partial = &tier->partials[number];
	struct table_place place;

	if (!table_shard(tier->table, partial->id, shard, &place))
		return;
	region_lose(tier, partial->id, &place);
	record_dies(tier, &place);
	table_unplace(tier->table, partial->id, shard);
	assert(partial->done_count > 0);
	partial->done_count--;
	if (partial->done_count || partial->claim_count)
		return;
	block_remove(tier, partial->id);
	flash_partial_free(tier, number);
}

void shard_damaged(struct flash *tier, struct space *space, uint32_t generation, uint32_t id,
		   uint32_t shard)
{
	struct table_block block;

	table_look(tier->table, id, &block);
	if (block.state == TABLE_PARTIAL) {
		shard_lost(tier, partial_find(tier, block.fingerprint), shard);
		return;
	}
	if (space->generation == generation)
		space_count(tier, space, false);
	block_remove(tier, id);
}

bool partial_drop_oldest(struct flash *tier)
{
	uint32_t at = tier->partial_oldest;

	while (at != NONE && tier->partials[at].claim_count > 0)
		at = tier->partials[at].newer;
	if (at == NONE)
		return false;
	block_remove(tier, tier->partials[at].id);
	flash_partial_free(tier, at);
	cairn_count(tier->env, CNT_PARTIALS_DROPPED, 1);
	return true;
}
