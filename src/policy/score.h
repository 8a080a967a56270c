/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes first: a number for each block, the least goes. Pure functions of what is
 * known of a block; time is a count of uses, not a clock.
 *
 *  lru     the use longest ago; of one use the block deepest in its prefix
 *  fifo    the one that came first
 *  lfu     the fewest uses, halved for each `life` without one (LFU with ageing)
 *  slru    segmented LRU (Karedla et al., 1994): what was used since it came is protected
 *          for as long again as it takes to fill the cache
 *  s3fifo  as S3-FIFO (Yang et al., SOSP '23): a block that was not used since it came goes
 *          after a tenth of a life; one that was, by age, a life for each of up to three uses
 *  gdsf    GreedyDual-Size with frequency (Cherkasova, 1998): stamp + uses * cost / size, where
 *          a block's stamp is the score of the latest victim when it was used
 *
 * The three last are those algorithms' ideas without their queues and ghosts: a score can be
 * computed by any process at any time, and nothing has to be kept in order.
 */
#ifndef POLICY_SCORE_H
#define POLICY_SCORE_H

#include <stdint.h>

enum policy_kind {
	POLICY_LRU,
	POLICY_FIFO,
	POLICY_LFU,
	POLICY_SLRU,
	POLICY_S3FIFO,
	POLICY_GDSF,
};
#define POLICY_CHOICES "lru|fifo|lfu|slru|s3fifo|gdsf"

struct policy_block {
	uint64_t stamp, inserted; /* uses counted, when it was used last, and when it came */
	uint32_t hits;		  /* uses since it came */
	uint32_t depth;		  /* in its prefix */
	uint32_t cost_us;	  /* to compute it again; 0: as much as others */
	uint32_t priority;	  /* 0 to 100: goes later by up to a life */
	uint64_t bytes;
};

struct policy_now {
	uint64_t now;  /* uses counted */
	uint64_t life; /* uses in which as much comes as the cache holds; at least 1 */
};

uint64_t policy_score(enum policy_kind kind, const struct policy_block *block,
		      const struct policy_now *now);

#endif
