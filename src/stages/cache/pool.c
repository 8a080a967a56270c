/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/cache/pool.h"

#include <string.h>

void pool_remove(struct pool *pool, uint32_t index)
{
	pool->count--;
	memmove(&pool->at[index], &pool->at[index + 1],
		(pool->count - index) * sizeof(pool->at[0]));
}

void pool_add(struct pool *pool, const struct candidate *candidate)
{
	uint32_t low = 0, high = pool->count;

	if (pool->count == POOL_MAX && candidate->score >= pool->at[POOL_MAX - 1].score)
		return;
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (pool->at[middle].score < candidate->score)
			low = middle + 1;
		else
			high = middle;
	}
	for (uint32_t i = low; i < pool->count && pool->at[i].score == candidate->score; i++)
		if (pool->at[i].link == candidate->link)
			return;
	if (pool->count == POOL_MAX)
		pool->count--;
	memmove(&pool->at[low + 1], &pool->at[low], (pool->count - low) * sizeof(pool->at[0]));
	pool->at[low] = *candidate;
	pool->count++;
}
