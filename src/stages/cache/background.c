/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may block runs on a worker of the store, one piece at a time: a chunk gets its
 * memory, or the dead are cleaned up after. The job ends when there is nothing left, and
 * begins again with the next kick; nothing polls. It also goes on with what is to be written
 * below, where nothing in flight does.
 */
#include <errno.h>

#include "base/atomic.h"
#include "base/hot.h"
#include "stages/cache/cache.h"

#define AHEAD	4u	   /* with prefault=ahead: chunks kept free for what comes */
#define TELL_NS 100000000u /* bytes in use are told so often at most, and once after a change */

static uint32_t next_bare(const struct cache_stage *stage)
{
	const struct cache_map *map = stage->map;
	uint32_t ready = 0, bare = CACHE_NONE;

	for (uint32_t i = 0; i < map->chunk_count; i++) {
		enum chunk_phase phase = chunk_phase(word_get(&map->chunks[i].state));

		ready += phase == CHUNK_FREE;
		if (phase == CHUNK_BARE && bare == CACHE_NONE)
			bare = i;
		if (bare != CACHE_NONE && stage->eager)
			return bare;
	}
	return ready < AHEAD ? bare : CACHE_NONE;
}

bool background_pending(struct cache_stage *stage)
{
	const struct cache_map *map = stage->map;

	/* Asked before each eviction, when this has long been so: not all chunks every time. */
	if (mark_get(&stage->all_backed))
		return false;
	for (uint32_t i = 0; i < map->chunk_count; i++) {
		enum chunk_phase phase = chunk_phase(word_hint(&map->chunks[i].state));

		if (phase == CHUNK_BARE || phase == CHUNK_BACKING)
			return true;
	}
	mark_set(&stage->all_backed);
	return false;
}

/* On a worker. What is returned is asked by nobody. */
static int64_t work(void *context)
{
	struct cache_stage *stage = context;
	uint32_t chunk, repairs, repaired;

	if (flag_get(&stage->want_repair)) {
		flag_lower(&stage->want_repair);
		repaired = region_recover(&stage->region);
		cairn_count(stage->env, CC_REPAIRS, repaired);
		if (repaired > 0)
			flag_raise(&stage->changed);
		repairs = half_get(&stage->map->header->repairs);
		if (repairs != stage->repairs_seen)
			flush_walk(stage); /* what they held back, whoever repaired */
		stage->repairs_seen = repairs;
	}
	chunk = next_bare(stage);
	if (chunk != CACHE_NONE)
		region_back(&stage->region, chunk);
	region_huge_tables(&stage->region);
	return 0;
}

/* Asleep for an instant: a store that closes meanwhile has no more pieces done. */
static void work_done(struct engine_chain *chain)
{
	struct cache_stage *stage =
		(struct cache_stage *)((char *)chain - offsetof(struct cache_stage, chain));

	stage->job_busy = 0;
	stage_env(stage->env)->job_sleep(&stage->job, stage->sys->now_ns());
}

static void work_send(struct cache_stage *stage)
{
	const struct engine_ops *ops;
	struct engine *engine = stage_env(stage->env)->job_engine(&stage->job, &ops);

	stage->op = (struct engine_op){.code = OP_CALL, .fd = -1, .call = work, .context = stage};
	stage->chain = (struct engine_chain){.ops = &stage->op, .op_count = 1, .done = work_done};
	if (ops->submit(engine, &stage->chain) == 0)
		stage->job_busy = 1;
	else
		stage_env(stage->env)->job_sleep(&stage->job, stage->sys->now_ns() + 1000000u);
}

/* Gauges. Returns when they are to be told again. */
static uint64_t tell(struct cache_stage *stage)
{
	uint64_t now_ns = stage->sys->now_ns();

	cache_tell(stage);
	if (!flag_get(&stage->changed))
		return UINT64_MAX;
	if (stage->told_ns != 0 && now_ns < stage->told_ns + TELL_NS)
		return stage->told_ns + TELL_NS;
	flag_lower(&stage->changed);
	cache_tell_used(stage);
	stage->told_ns = now_ns;
	return UINT64_MAX;
}

static void background_run(struct stage_job *job)
{
	struct cache_stage *stage =
		(struct cache_stage *)((char *)job - offsetof(struct cache_stage, job));

	uint64_t flush_ns, tell_ns;

	if (stage->job_busy)
		return;
	/* Between all pieces: those of a large region take minutes, and this is for a moment. */
	if (stage->flush)
		flush_pump(stage);
	if (flag_get(&stage->want_repair) || next_bare(stage) != CACHE_NONE ||
	    region_huge_pending(&stage->region)) {
		cache_tell(stage);
		work_send(stage);
		return;
	}
	tell_ns = tell(stage);
	flush_ns = flush_next_ns(stage);
	/* Asleep for good, or until the next kick: an open store of which nothing is asked. */
	stage_env(stage->env)->job_sleep(&stage->job, flush_ns < tell_ns ? flush_ns : tell_ns);
}

void background_start(struct cache_stage *stage)
{
	if (stage->job_started)
		return;
	stage->job_started = 1;
	stage->job.run = background_run;
	stage_env(stage->env)->job_start(stage->env, &stage->job, 0);
}

void background_kick(struct cache_stage *stage, bool repair)
{
	if (repair)
		flag_raise(&stage->want_repair);
	stage_env(stage->env)->job_again(&stage->job);
}

HIT_PATH void background_reclaim(struct cache_stage *stage, uint32_t entry)
{
	if (reclaim_gone(stage->map, entry))
		background_changed(stage);
}

void background_changed(struct cache_stage *stage)
{
	if (!flag_get(&stage->changed) && flag_raise(&stage->changed))
		background_kick(stage, false);
}
