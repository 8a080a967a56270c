/* SPDX-License-Identifier: Apache-2.0 */
/* Many keys at once, with the memory fetched ahead. */
#include "stages/flash/table_parts.h"

#define BATCH_MIN 8u
#define BATCH_MAX 128u /* lines in flight hide the memory's latency; more do not fit */

struct batch {
	uint32_t at[BATCH_MAX];	     /* the entry to look at next, plus one; 0: absent */
	uint16_t pending[BATCH_MAX]; /* positions that are not answered yet */
	uint64_t fingerprint[BATCH_MAX];
	uint64_t space;
	uint32_t now_s;
};

/*
 * One step along the chain of each key that is not answered; what comes next is
 * fetched ahead. Whether a chain goes on is a coin's toss: nothing here branches on it.
 */
static uint32_t batch_round(const struct table *table, struct batch *batch, uint32_t pending_count,
			    uint32_t *ret_ids)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < pending_count; i++) {
		uint16_t p = batch->pending[i];
		uint32_t id = batch->at[p] - 1;
		const struct hot *hot = &table->hot[id];
		bool same = hot->fingerprint == batch->fingerprint[p];
		uint32_t next = same ? 0 : hot->next;

		if (hot->state & FLAG_EXPIRES && same && table->expiries[id] <= batch->now_s)
			continue;
		same &= (hot->state & STATE_MASK) == TABLE_WHOLE;
		ret_ids[p] = same ? id : TABLE_NONE;
		batch->at[p] = next;
		batch->pending[left] = p;
		left += next > 0;
		__builtin_prefetch(&table->hot[next ? next - 1 : id]);
	}
	return left;
}

/* Answers @count <= BATCH_MAX keys. */
static void batch_find(const struct table *table, struct batch *batch, const struct cairn_key *keys,
		       uint32_t count, uint32_t *ret_ids)
{
	const uint32_t *buckets[BATCH_MAX];
	uint32_t pending_count = 0;

	for (uint32_t i = 0; i < count; i++) {
		batch->fingerprint[i] = hash_key(table, &keys[i], batch->space);
		buckets[i] = bucket_of(table, batch->fingerprint[i]);
		__builtin_prefetch(buckets[i]);
	}
	for (uint32_t i = 0; i < count; i++) {
		ret_ids[i] = TABLE_NONE;
		batch->at[i] = *buckets[i];
		if (!batch->at[i])
			continue;
		__builtin_prefetch(&table->hot[batch->at[i] - 1]);
		batch->pending[pending_count++] = (uint16_t)i;
	}
	while (pending_count)
		pending_count = batch_round(table, batch, pending_count, ret_ids);
}

void table_fetch(const struct table *table, const uint64_t *fingerprints, uint32_t count)
{
	uint32_t at[TABLE_FETCH_MAX], left = 0;

	assert(table->magic == TABLE_MAGIC && count <= TABLE_FETCH_MAX);
	for (uint32_t i = 0; i < count; i++)
		__builtin_prefetch(bucket_of(table, fingerprints[i]));
	for (uint32_t i = 0; i < count; i++) {
		at[left] = *bucket_of(table, fingerprints[i]);
		__builtin_prefetch(&table->hot[at[left] ? at[left] - 1 : 0]);
		left += at[left] > 0;
	}
	while (left) {
		count = left;
		left = 0;
		for (uint32_t i = 0; i < count; i++) {
			at[left] = table->hot[at[i] - 1].next;
			__builtin_prefetch(&table->hot[at[left] ? at[left] - 1 : 0]);
			left += at[left] > 0;
		}
	}
}

size_t table_find_batch(const struct table *table, uint32_t space, uint32_t generation,
			const struct cairn_key *keys, size_t count, bool chain, uint32_t now_s,
			uint32_t *ret_ids)
{
	struct batch batch = {.space = hash_space(space, generation), .now_s = now_s};
	/* A chain often ends early: begin small. */
	size_t size = chain ? BATCH_MIN : BATCH_MAX;
	size_t found = 0;

	assert(table->magic == TABLE_MAGIC);
	for (size_t done = 0; done < count;) {
		size_t n = count - done < size ? count - done : size;

		batch_find(table, &batch, keys + done, (uint32_t)n, ret_ids + done);
		for (size_t i = 0; i < n; i++) {
			if (ret_ids[done + i] != TABLE_NONE)
				found++;
			else if (chain)
				return found;
		}
		done += n;
		size = size * 2 < BATCH_MAX ? size * 2 : BATCH_MAX;
	}
	return found;
}
