/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/counters.h"
#include "core/settings.h"
#include "core/store.h"

static void stat_tiers(struct cairn_store *store, struct cairn_stat *st)
{
	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		struct cairn_tier_stat tier = {0};

		if (!level->ops->stat)
			continue;
		level->ops->stat(level->self, &tier);
		memcpy(st->uuid, tier.uuid, sizeof(st->uuid)); /* the lowest comes last */
		if (tier.alignment > st->alignment)
			st->alignment = tier.alignment;
		st->bytes_used += tier.bytes_used;
		st->blocks += tier.blocks;
		if (__builtin_add_overflow(st->bytes_limit, tier.bytes_limit, &st->bytes_limit))
			st->bytes_limit = UINT64_MAX;
	}
}

int cairn_stat(struct cairn_store *store, struct cairn_stat *ret_stat)
{
	struct cairn_stat st = {.size = sizeof(st), .alignment = 1};
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	if (!ret_stat || ret_stat->size < sizeof(size_t) || ret_stat->size > 65536)
		return -EINVAL;
	stat_tiers(store, &st);
	pthread_mutex_lock(&store->lock);
	st.tasks_in_flight = store->tasks_taken;
	pthread_mutex_unlock(&store->lock);
	st.xfers_in_flight = counter_read(&store->counters[COUNT_IN_FLIGHT]);
	st.deadline_ns = store->settings[SET_DEADLINE].u;
	st.reactors = store->reactor_count;
	st.tasks_max = store->task_count;
	snprintf(st.engine, sizeof(st.engine), "%s", store->engine_ops->name);
	snprintf(st.engine_note, sizeof(st.engine_note), "%s", store->engine_note);
	st.size = ret_stat->size;
	if (ret_stat->size > sizeof(st))
		memset((uint8_t *)ret_stat + sizeof(st), 0, ret_stat->size - sizeof(st));
	memcpy(ret_stat, &st, st.size < sizeof(st) ? st.size : sizeof(st));
	return 0;
}

const char *cairn_stage_name(const struct cairn_store *store, uint32_t index)
{
	if (store_enter(store) < 0 || index >= store->level_count)
		return NULL;
	return store->levels[index].name;
}

static int walk_rows(const char *stage, const struct cairn_counter_row *rows, uint32_t count,
		     const uint64_t *values,
		     int (*fn)(void *context, const struct cairn_counter *counter), void *context)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < count; i++) {
		struct cairn_counter counter = {
			.stage = stage,
			.name = rows[i].name,
			.help = rows[i].help,
			.gauge = rows[i].gauge,
			.value = counter_read(&values[i]),
		};

		ret = fn(context, &counter);
	}
	return ret;
}

int cairn_counters(struct cairn_store *store,
		   int (*fn)(void *context, const struct cairn_counter *counter), void *context)
{
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	if (!fn)
		return -EINVAL;
	ret = walk_rows("store", store_counter_rows(), COUNT_STORE_ROWS, store->counters, fn,
			context);
	for (uint32_t i = 0; ret == 0 && i < store->level_count; i++) {
		struct level *level = &store->levels[i];

		ret = walk_rows(level->name, level->ops->counters, level->ops->counter_count,
				level->env.counters, fn, context);
	}
	return ret;
}

int cairn_latencies(struct cairn_store *store,
		    int (*fn)(void *context, const struct cairn_latency *latency), void *context)
{
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	if (!fn)
		return -EINVAL;
	for (uint32_t i = 0; ret == 0 && i < LATENCY_OPS; i++)
		ret = counters_tell_latency(counters_op((enum store_latency)i), store->latencies[i],
					    fn, context);
	return ret;
}
