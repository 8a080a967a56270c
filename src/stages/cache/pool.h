/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coldest leaves that this process has seen of late, in order, so that what a sample
 * found and did not evict is not forgotten. A guess: each is looked at again before it
 * goes. One thread at a time has it; others do without.
 */
#ifndef STAGES_CACHE_POOL_H
#define STAGES_CACHE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define POOL_MAX 256u

struct candidate {
	uint64_t link, score;
	uint32_t units; /* of the slots of its first shard */
};

struct pool {
	uint32_t taken; /* a flag of base/atomic.h */
	uint32_t count;
	struct candidate at[POOL_MAX]; /* the least score first */
};

/* Puts it in its place, the highest out where it is full. Nothing, where it is in. */
void pool_add(struct pool *pool, const struct candidate *candidate);
void pool_remove(struct pool *pool, uint32_t index);

#endif
