/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/union.h"

#define MAP_WORDS (CAIRN_SHARD_COUNT_MAX / 64)

/* What each tier of the union says of a block; shard_count 0: nothing. */
struct survey {
	struct cairn_shards tiers[CAIRN_STAGES_MAX];
};

static void survey_make(struct cairn_store *store, const struct cairn_ns_view *ns,
			const struct cairn_key *key, struct survey *ret_survey)
{
	memset(ret_survey, 0, sizeof(*ret_survey));
	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		struct cairn_shards *shards = &ret_survey->tiers[i];

		if (level->in_union && level->ops->shards(level->self, ns, key, shards) < 0)
			memset(shards, 0, sizeof(*shards));
	}
}

/* Adds what @from has, where it is of the same block. */
static bool shards_add(struct cairn_shards *to, const struct cairn_shards *from)
{
	if (to->shard_count != from->shard_count || to->shard_bytes != from->shard_bytes ||
	    (to->last_bytes && from->last_bytes && to->last_bytes != from->last_bytes))
		return false;
	if (!to->last_bytes)
		to->last_bytes = from->last_bytes;
	for (uint32_t word = 0; word < MAP_WORDS; word++)
		to->map[word] |= from->map[word];
	return true;
}

static bool shards_whole(const struct cairn_shards *shards)
{
	uint32_t count = 0;

	for (uint32_t word = 0; word < MAP_WORDS; word++)
		count += (uint32_t)__builtin_popcountll(shards->map[word]);
	return shards->shard_count > 0 && count == shards->shard_count && shards->last_bytes > 0;
}

/* The first geometry, from the hottest tier on, that is whole. */
static bool survey_whole(const struct survey *survey, struct cairn_found *ret_found)
{
	for (uint32_t base = 0; base < CAIRN_STAGES_MAX; base++) {
		struct cairn_shards all = survey->tiers[base];

		for (uint32_t i = base + 1; i < CAIRN_STAGES_MAX && all.shard_count > 0; i++)
			shards_add(&all, &survey->tiers[i]);
		if (!shards_whole(&all))
			continue;
		*ret_found = (struct cairn_found){
			.present = 1,
			.stage = (uint16_t)base,
			.shard_count = (uint16_t)all.shard_count,
			.shard_bytes = all.shard_bytes,
			.last_bytes = all.last_bytes,
		};
		return true;
	}
	return false;
}

bool union_find(struct cairn_store *store, const struct cairn_ns_view *ns,
		const struct cairn_key *key, struct cairn_found *ret_found)
{
	struct survey survey, again;

	if (!union_possible(store))
		return false;
	survey_make(store, ns, key, &survey);
	if (!survey_whole(&survey, ret_found))
		return false;
	/*
	 * One tier may have lost its shards before another got its own. What they said
	 * and still say they had at once: when the first round ended.
	 */
	survey_make(store, ns, key, &again);
	for (uint32_t i = 0; i < store->level_count; i++)
		for (uint32_t word = 0; word < MAP_WORDS; word++)
			survey.tiers[i].map[word] &= again.tiers[i].map[word];
	return survey_whole(&survey, ret_found);
}

bool union_lasts(struct cairn_store *store, const struct cairn_ns_view *ns,
		 const struct cairn_key *key)
{
	struct cairn_probe probe;

	for (int i = store->tier_top; i >= 0; i = store->levels[i].tier_below) {
		struct level *level = &store->levels[i];

		if (!(level->ops->flags & CAIRN_STAGE_PERSISTS))
			continue;
		memset(&probe, 0, sizeof(probe));
		level->ops->lookup(level->self, ns, key, 1, 0, &probe);
		if (probe.present)
			return true;
	}
	return false;
}
