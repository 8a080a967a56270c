/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stages/error.h"
#include "stages/null/null.h"
#include "stages/stages.h"

static const struct cairn_option null_options[] = {
	[NULL_SIZE] = {"size", CAIRN_OPTION_SIZE, 0, "1GiB", "4KiB", NULL, NULL,
		       "bytes of memory at most, its own tables included"},
	[NULL_ENTRIES] = {"entries", CAIRN_OPTION_COUNT, 0, "64k", "2", "256M", NULL,
			  "blocks at most, parents that are absent included"},
};

static const struct cairn_counter_row null_counters[] = {
	[NULL_LOAD_HITS] = {"load_hits", "shards loaded", 0},
	[NULL_LOAD_MISSES] = {"load_misses", "shards asked for and not loaded", 0},
	[NULL_DUMPED_SHARDS] = {"dumped_shards", "shards taken", 0},
	[NULL_ALREADY_PRESENT] = {"already_present", "shards dumped that were there", 0},
	[NULL_EVICTED] = {"evicted_blocks", "blocks that went to make room", 0},
	[NULL_REMOVED] = {"removed_blocks", "blocks removed", 0},
	[NULL_DAMAGED] = {"damaged_blocks", "blocks whose checksum did not match", 0},
	[NULL_REFUSED] = {"refused", "shards not taken", 0},
};

static void null_release(struct null_stage *stage)
{
	if (stage->index_memory)
		stage->sys->munmap(stage->index_memory, stage->index_memory_bytes);
	if (stage->slots)
		stage->sys->munmap(stage->slots, stage->slots_bytes);
}

static int null_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct null_stage *stage = (struct null_stage *)self;
	struct index_range huge[INDEX_RANGES];
	void *slots = NULL;
	uint64_t seed;
	int ret;

	stage->env = env;
	stage->host = env->host;
	stage->sys = stage_env(env)->sys;
	stage->bytes_max = env->values[NULL_SIZE].u;
	stage->entries_max = (uint32_t)env->values[NULL_ENTRIES].u;
	stage->index_memory_bytes = index_bytes(stage->entries_max);
	stage->slots_bytes = ((size_t)stage->entries_max + 1) * sizeof(stage->slots[0]);
	list_init(&stage->dead);
	list_init(&stage->partial);
	/* A seed that cannot be had only makes the table easier to attack. */
	if (stage->sys->random(&seed, sizeof(seed)) < 0)
		seed = stage->sys->now_ns();
	ret = sys_reserve(stage->sys, stage->index_memory_bytes, &stage->index_memory);
	if (ret == 0)
		ret = sys_reserve(stage->sys, stage->slots_bytes, &slots);
	stage->slots = (struct null_block **)slots;
	if (ret < 0) {
		null_release(stage);
		return stage_error(reterr, -ENOMEM,
				   "%s: no address space for the index; entries= must be smaller",
				   env->name);
	}
	index_init(stage->index_memory, stage->entries_max, seed, &stage->index);
	index_huge_ranges(stage->index, huge);
	for (int i = 0; i < INDEX_RANGES; i++)
		sys_advise_huge(stage->sys, huge[i].start, huge[i].bytes);
	if (pthread_mutex_init(&stage->lock, NULL) != 0) {
		null_release(stage);
		return stage_error(reterr, -ENOMEM, "%s: no memory for a mutex", env->name);
	}
	stage->magic = NULL_MAGIC;
	return 0;
}

static void null_close(void *self)
{
	struct null_stage *stage = (struct null_stage *)self;
	struct null_space *space;
	struct list *node;

	assert(stage->magic == NULL_MAGIC);
	while ((space = stage->spaces)) {
		while ((node = list_take(&space->blocks)))
			null_take_out(stage, list_entry(node, struct null_block, in_space));
		stage->spaces = space->next;
		/* Dead blocks name their space: they go before the last one does. */
		while ((node = list_take(&stage->dead)))
			null_take_out(stage, list_entry(node, struct null_block, in_space));
		stage->sys->free(space);
	}
	assert(stage->bytes_used == 0 && stage->blocks == 0);
	pthread_mutex_destroy(&stage->lock);
	null_release(stage);
	stage->magic = 0;
}

static int null_bind(void *self, const struct cairn_ns_view *ns, void **ret_binding,
		     struct cairn_error *reterr)
{
	struct null_stage *stage = (struct null_stage *)self;
	struct null_space *space;
	int ret = 0;

	assert(stage->magic == NULL_MAGIC && ns->desc_length > 0);
	pthread_mutex_lock(&stage->lock);
	for (space = stage->spaces; space; space = space->next)
		if (space->desc_length == ns->desc_length &&
		    memcmp(space->desc, ns->desc, ns->desc_length) == 0)
			break;
	if (!space) {
		space = (struct null_space *)sys_zalloc(stage->sys, _Alignof(struct null_space),
							sizeof(*space) + ns->desc_length);
		ret = space ? 0 : -ENOSPC;
	}
	if (space && space->id == 0) {
		space->id = ++stage->space_count;
		space->generation = 1;
		space->desc_length = ns->desc_length;
		memcpy(space->desc, ns->desc, ns->desc_length);
		list_init(&space->blocks);
		space->next = stage->spaces;
		stage->spaces = space;
	}
	pthread_mutex_unlock(&stage->lock);
	if (ret < 0)
		return stage_error(reterr, ret, "%s: no memory for a namespace", stage->env->name);
	*ret_binding = space;
	return 0;
}

static int null_clear(void *self, const struct cairn_ns_view *ns, uint32_t durability)
{
	struct null_stage *stage = (struct null_stage *)self;
	struct null_space *space = (struct null_space *)ns->binding[stage->env->index];

	/* A clear of what is lost at close survives everything. */
	(void)durability;
	assert(stage->magic == NULL_MAGIC && space->id > 0);
	pthread_mutex_lock(&stage->lock);
	null_clear_space(stage, space);
	pthread_mutex_unlock(&stage->lock);
	return 0;
}

/* A hold names the entry and 32 bits of the block's incarnation: it outlives neither. */
static uint64_t hold_of(const struct null_block *block)
{
	return ((uint64_t)(uint32_t)block->incarnation << 32) | (block->entry + 1);
}

static void probe_fill(struct null_stage *stage, const struct null_block *block, uint32_t flags,
		       struct cairn_probe *ret_probe)
{
	struct index_entry *entry = index_at(stage->index, block->entry);

	if ((flags & CAIRN_PROBE_HOLD) && entry->holds == UINT16_MAX)
		return; /* a hold that cannot be given counts as absent */
	ret_probe->present = 1;
	ret_probe->shard_count = block->shard_count;
	ret_probe->shard_bytes = block->shard_bytes;
	ret_probe->last_bytes = block->shards[block->shard_count - 1].raw_length;
	ret_probe->stored_bytes = block->charge;
	if (flags & CAIRN_PROBE_HOLD) {
		entry->holds++;
		ret_probe->hold = hold_of(block);
	}
}

static void null_lookup(void *self, const struct cairn_ns_view *ns, const struct cairn_key *keys,
			size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct null_stage *stage = (struct null_stage *)self;
	const struct null_space *space = (const struct null_space *)ns->binding[stage->env->index];
	struct null_block *block;
	size_t i;

	assert(stage->magic == NULL_MAGIC && space->id > 0);
	memset(ret_probes, 0, count * sizeof(*ret_probes));
	pthread_mutex_lock(&stage->lock);
	for (i = 0; i < count; i++) {
		block = null_find(stage, space, &keys[i]);
		if (block && block->whole)
			probe_fill(stage, block, flags, &ret_probes[i]);
		if (!(flags & CAIRN_PROBE_CHAIN))
			continue;
		if (!ret_probes[i].present)
			break;
		if (i > 0 || (flags & CAIRN_PROBE_BEFORE))
			null_set_parent(stage, block, keys + i - 1);
	}
	pthread_mutex_unlock(&stage->lock);
}

static void null_unhold(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			uint64_t hold)
{
	struct null_stage *stage = (struct null_stage *)self;
	uint32_t id = (uint32_t)hold - 1;
	struct null_block *block;
	struct index_entry *entry;

	(void)ns;
	assert(stage->magic == NULL_MAGIC && hold != 0 && id <= stage->entries_max);
	pthread_mutex_lock(&stage->lock);
	block = stage->slots[id];
	if (block && (uint32_t)block->incarnation == (uint32_t)(hold >> 32)) {
		entry = index_at(stage->index, id);
		assert(memcmp(&entry->key.key, key, sizeof(*key)) == 0 && entry->holds > 0);
		entry->holds--;
	}
	pthread_mutex_unlock(&stage->lock);
}

static int null_shards(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
		       struct cairn_shards *ret_shards)
{
	struct null_stage *stage = (struct null_stage *)self;
	const struct null_space *space = (const struct null_space *)ns->binding[stage->env->index];
	struct null_block *block;
	uint32_t i;

	assert(stage->magic == NULL_MAGIC && space->id > 0);
	memset(ret_shards, 0, sizeof(*ret_shards));
	pthread_mutex_lock(&stage->lock);
	block = null_find(stage, space, key);
	for (i = 0; block && i < block->shard_count; i++)
		if (block->shards[i].payload)
			ret_shards->map[i / 64] |= (uint64_t)1 << (i % 64);
	if (block) {
		ret_shards->shard_count = block->shard_count;
		ret_shards->shard_bytes = block->shard_bytes;
		/* Zero as long as the last shard is not in. */
		ret_shards->last_bytes = block->shards[block->shard_count - 1].raw_length;
	}
	pthread_mutex_unlock(&stage->lock);
	return block ? 0 : -ENOENT;
}

static void null_stat(void *self, struct cairn_tier_stat *ret_stat)
{
	struct null_stage *stage = (struct null_stage *)self;

	assert(stage->magic == NULL_MAGIC);
	memset(ret_stat, 0, sizeof(*ret_stat));
	pthread_mutex_lock(&stage->lock);
	ret_stat->bytes_used = stage->bytes_used;
	ret_stat->blocks = stage->blocks;
	pthread_mutex_unlock(&stage->lock);
	ret_stat->bytes_limit = stage->bytes_max;
	ret_stat->alignment = 1;
}

const struct cairn_stage_ops cairn_stage_null = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "null",
	.summary = "a bounded map in memory, lost at close: for tests",
	.flags = CAIRN_STAGE_TIER,
	.option_count = sizeof(null_options) / sizeof(null_options[0]),
	.options = null_options,
	.counter_count = sizeof(null_counters) / sizeof(null_counters[0]),
	.counters = null_counters,
	.instance_bytes = sizeof(struct null_stage),
	.open = null_open,
	.close = null_close,
	.submit = null_submit,
	.bind = null_bind,
	.clear = null_clear,
	.lookup = null_lookup,
	.unhold = null_unhold,
	.stat = null_stat,
	.shards = null_shards,
};
