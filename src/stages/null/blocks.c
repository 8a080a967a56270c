/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of the null stage: made, evicted, removed. The caller holds the lock. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/attr.h"
#include "stages/null/null.h"

#define RECLAIM_BATCH 8 /* dead blocks freed by one call: bounds its length */

uint64_t null_block_charge(uint32_t shard_count)
{
	return sizeof(struct index_entry) + sizeof(struct null_block *) +
	       sizeof(struct null_block) + shard_count * sizeof(struct null_shard);
}

uint64_t null_shard_charge(uint64_t stored_length)
{
	uint64_t pieces = (stored_length + CAIRN_PIECE - 1) / CAIRN_PIECE;

	return stored_length + pieces * sizeof(uint32_t);
}

bool null_is_current(const struct null_block *block)
{
	assert(block->magic == NULL_BLOCK_MAGIC);
	return block->entry != INDEX_NONE && block->generation == block->space->generation;
}

static struct index_key key_in(const struct null_space *space, const struct cairn_key *key)
{
	return (struct index_key){.key = *key, .space = space->id, .generation = space->generation};
}

static struct null_block *block_of(struct null_stage *stage, const struct index_entry *entry)
{
	uint32_t id = index_id(stage->index, entry);
	struct null_block *block;

	assert(id <= stage->entries_max);
	block = stage->slots[id];
	assert(block && block->magic == NULL_BLOCK_MAGIC && block->entry == id);
	return block;
}

struct null_block *null_find(struct null_stage *stage, const struct null_space *space,
			     const struct cairn_key *key)
{
	struct index_key wanted = key_in(space, key);
	struct index_entry *entry = index_find(stage->index, &wanted);

	if (!entry || entry->state == INDEX_GHOST)
		return NULL;
	return block_of(stage, entry);
}

void null_payload_free(struct null_stage *stage, struct null_shard *shard)
{
	stage->sys->free(shard->payload);
	shard->payload = NULL;
	shard->crc = NULL;
}

static void block_unref(struct null_stage *stage, struct null_block *block)
{
	uint32_t i;

	assert(block->refs > 0);
	if (--block->refs > 0)
		return;
	assert(block->entry == INDEX_NONE);
	for (i = 0; i < block->shard_count; i++)
		if (block->shards[i].payload)
			null_payload_free(stage, &block->shards[i]);
	null_unreserve(stage, block->charge);
	block->magic = 0;
	stage->sys->free(block);
}

void null_take_out(struct null_stage *stage, struct null_block *block)
{
	struct index_entry *entry;

	assert(block->magic == NULL_BLOCK_MAGIC && block->entry != INDEX_NONE);
	if (block->whole && null_is_current(block)) {
		assert(block->space->whole > 0 && stage->blocks > 0);
		block->space->whole--;
		stage->blocks--;
	}
	list_remove(&block->in_space);
	list_remove(&block->in_partial);
	entry = index_at(stage->index, block->entry);
	/* Copies under way keep the memory by their refs; removes win over holds. */
	entry->pins = 0;
	entry->holds = 0;
	stage->slots[block->entry] = NULL;
	block->entry = INDEX_NONE;
	index_remove(stage->index, entry);
	block_unref(stage, block);
}

void null_pin(struct null_stage *stage, struct null_block *block)
{
	struct index_entry *entry = index_at(stage->index, block->entry);

	/* As many pins as threads copy at once. */
	assert(block->refs > 0 && entry->pins < UINT16_MAX);
	block->refs++;
	entry->pins++;
}

void null_unpin(struct null_stage *stage, struct null_block *block)
{
	struct index_entry *entry;

	assert(block->magic == NULL_BLOCK_MAGIC);
	if (block->entry != INDEX_NONE) {
		entry = index_at(stage->index, block->entry);
		assert(entry->pins > 0);
		entry->pins--;
	}
	block_unref(stage, block);
}

static bool reclaim_one(struct null_stage *stage)
{
	if (list_empty(&stage->dead))
		return false;
	null_take_out(stage, list_entry(stage->dead.next, struct null_block, in_space));
	return true;
}

void null_reclaim_some(struct null_stage *stage)
{
	int i;

	for (i = 0; i < RECLAIM_BATCH && reclaim_one(stage); i++)
		;
}

void null_partial_touch(struct null_stage *stage, struct null_block *block, uint64_t sequence)
{
	assert(!block->whole);
	if (sequence > block->stamp)
		block->stamp = sequence;
	list_remove(&block->in_partial);
	list_append(&stage->partial, &block->in_partial);
}

/* The partial block that was used longest ago and is not being dumped to. */
static struct null_block *oldest_partial(struct null_stage *stage)
{
	struct list *node;
	struct null_block *block;

	for (node = stage->partial.next; node != &stage->partial; node = node->next) {
		block = list_entry(node, struct null_block, in_partial);
		if (index_at(stage->index, block->entry)->pins == 0)
			return block;
	}
	return NULL;
}

/* Takes out what may go first: dead blocks, then the older of a leaf and a partial one. */
static bool evict_one(struct null_stage *stage)
{
	struct null_block *partial, *leaf = NULL;
	struct index_entry *victim;

	if (reclaim_one(stage))
		return true;
	partial = oldest_partial(stage);
	victim = index_victim(stage->index);
	if (victim) {
		assert(victim->pins == 0 && victim->holds == 0 && victim->child_count == 0);
		leaf = block_of(stage, victim);
	}
	if (leaf && (!partial || victim->stamp <= partial->stamp))
		null_take_out(stage, leaf);
	else if (partial)
		null_take_out(stage, partial);
	else
		return false;
	cairn_count(stage->env, NULL_EVICTED, 1);
	return true;
}

int null_reserve(struct null_stage *stage, uint64_t bytes)
{
	if (bytes > stage->bytes_max)
		return -ENOSPC;
	while (stage->bytes_used > stage->bytes_max - bytes)
		if (!evict_one(stage))
			return -ENOSPC;
	stage->bytes_used += bytes;
	assert(stage->bytes_used <= stage->bytes_max);
	return 0;
}

void null_unreserve(struct null_stage *stage, uint64_t bytes)
{
	assert(stage->bytes_used >= bytes);
	stage->bytes_used -= bytes;
}

int null_make(struct null_stage *stage, struct null_space *space, const struct cairn_io *io,
	      struct null_block **ret_block)
{
	uint64_t charge = null_block_charge(io->shard_count);
	struct index_key key = key_in(space, &io->key);
	struct index_entry *entry;
	struct null_block *block;
	bool made = false;
	int ret;

	if (charge >= stage->bytes_max)
		return -EFBIG;
	ret = null_reserve(stage, charge);
	if (ret < 0)
		return ret;
	block = (struct null_block *)sys_zalloc(stage->sys, _Alignof(struct null_block),
						sizeof(*block) +
							io->shard_count * sizeof(block->shards[0]));
	if (!block) {
		null_unreserve(stage, charge);
		return -ENOSPC;
	}
	while (!(entry = index_add(stage->index, &key, &made)) && evict_one(stage))
		;
	if (!entry) {
		null_unreserve(stage, charge);
		stage->sys->free(block);
		return -ENOSPC;
	}
	assert(made && entry->state == INDEX_PARTIAL);
	block->magic = NULL_BLOCK_MAGIC;
	block->refs = 1;
	block->entry = index_id(stage->index, entry);
	block->generation = space->generation;
	block->space = space;
	block->incarnation = ++stage->incarnations;
	block->charge = charge;
	block->shard_count = io->shard_count;
	block->shard_bytes = io->shard_bytes;
	list_append(&space->blocks, &block->in_space);
	list_append(&stage->partial, &block->in_partial);
	assert(block->entry <= stage->entries_max && !stage->slots[block->entry]);
	stage->slots[block->entry] = block;
	*ret_block = block;
	return 0;
}

void null_publish(struct null_stage *stage, struct null_block *block, uint64_t sequence)
{
	struct index_entry *entry = index_at(stage->index, block->entry);

	assert(!block->whole && block->shards_in == block->shard_count);
	assert(null_is_current(block));
	list_remove(&block->in_partial);
	block->whole = true;
	entry->shard_count = (uint16_t)block->shard_count;
	entry->shard_bytes = (uint32_t)block->shard_bytes;
	entry->last_bytes = (uint32_t)block->shards[block->shard_count - 1].raw_length;
	entry->charge = block->charge;
	entry->sequence = sequence;
	index_publish(stage->index, entry, sequence);
	block->space->whole++;
	stage->blocks++;
}

void null_set_parent(struct null_stage *stage, struct null_block *block,
		     const struct cairn_key *parent)
{
	static const struct cairn_key none;

	if (memcmp(parent, &none, sizeof(none)) == 0)
		return;
	/* False: no entry for a ghost. The block then counts as one without a parent. */
	(void)index_set_parent(stage->index, index_at(stage->index, block->entry), parent);
}

void null_tell(struct null_stage *stage, struct null_block *block,
	       const struct cairn_block_attr *attr)
{
	if (!attr_told(attr) || block->attr.size > 0)
		return;
	block->attr = *attr;
	block->attr.size = sizeof(*attr);
	index_at(stage->index, block->entry)->depth = attr->depth;
	null_set_parent(stage, block, &attr->parent);
}

void null_clear_space(struct null_stage *stage, struct null_space *space)
{
	struct list *first = space->blocks.next, *last = space->blocks.prev;

	assert(stage->blocks >= space->whole);
	space->generation++;
	stage->blocks -= space->whole;
	space->whole = 0;
	if (list_empty(&space->blocks))
		return;
	first->prev = stage->dead.prev;
	stage->dead.prev->next = first;
	last->next = &stage->dead;
	stage->dead.prev = last;
	list_init(&space->blocks);
}
