/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/score.h"

#define DEPTH_BITS  12u
#define HITS_MAX    3u	  /* S3-FIFO counts so far */
#define SMALL_SHARE 10u	  /* a tenth of a life for what was not used again */
#define COST_US	    1000u /* of a block whose cost was not said */
#define SIZE_UNIT                                                                                  \
	(1u << 20) /* gdsf: one use of 1 MiB that costs a millisecond counts a life / 16 */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t by_time(const struct policy_block *block, const struct policy_now *now,
			uint64_t time)
{
	uint64_t deepest = (1u << DEPTH_BITS) - 1;

	time += block->priority * now->life / 100;
	return time << DEPTH_BITS | (deepest - least(block->depth, deepest));
}

static uint64_t lfu(const struct policy_block *block, const struct policy_now *now)
{
	uint64_t idle = now->now > block->stamp ? now->now - block->stamp : 0;
	uint64_t halvings = least(idle / now->life, 24);
	uint64_t uses = least(((uint64_t)block->hits + 1) << 12, UINT32_MAX / 2) >> halvings;

	return uses << 32 | (UINT32_MAX - least(idle, UINT32_MAX));
}

static uint64_t gdsf(const struct policy_block *block, const struct policy_now *now)
{
	uint64_t cost = block->cost_us > 0 ? block->cost_us : COST_US;
	double value = ((double)block->hits + 1) * (double)cost / (double)(block->bytes | 1) *
		       SIZE_UNIT / COST_US * (double)now->life / 16;

	return by_time(block, now, block->stamp + (uint64_t)(value < 1e15 ? value : 1e15));
}

uint64_t policy_score(enum policy_kind kind, const struct policy_block *block,
		      const struct policy_now *now)
{
	switch (kind) {
	case POLICY_LRU:
		return by_time(block, now, block->stamp);
	case POLICY_FIFO:
		return by_time(block, now, block->inserted);
	case POLICY_LFU:
		return lfu(block, now);
	case POLICY_SLRU:
		return by_time(block, now, block->stamp + (block->hits > 0 ? now->life : 0));
	case POLICY_S3FIFO:
		if (block->hits == 0)
			return by_time(block, now, block->inserted + now->life / SMALL_SHARE);
		return by_time(block, now,
			       block->stamp + now->life * least(block->hits, HITS_MAX) / HITS_MAX);
	case POLICY_GDSF:
		return gdsf(block, now);
	}
	return block->stamp;
}
