/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the flash stage's policy of reclaim costs and keeps, against an exact LRU.
 *
 *	flash_policy REGIONS [SHARE [STREAMS [cost|lru|fifo]]] < TRACE
 *
 * Replays a trace of requests (JSON lines with "hash_ids": [ids of a prompt's blocks,
 * in order]) through a log of REGIONS regions that holds SHARE (0.25) of the distinct
 * blocks, all of one size, with STREAMS (2: carried records apart from fresh ones)
 * open regions and three free ones ahead, and one more for each 128, as the stage; and through
 * an LRU of blocks with the whole of the log's bytes, which takes a request's blocks tail first.
 *Prints one JSON object: lru_hit_share, hit_share (leading hits, of all references), of_lru,
 *write_amplification and live_share (at steady state: after the first reclaim), carried_max (of a
 *victim).
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/flash/policy.h"

#define NONE UINT32_MAX

struct trace {
	uint32_t *ids;	    /* of all requests, one after the other */
	size_t *ends;	    /* of each request in ids */
	size_t count, refs; /* requests, ids */
	uint32_t blocks;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "flash_policy: %s\n", what);
	exit(1);
}

static void *grow(void *memory, size_t count, size_t bytes)
{
	/* Doubles at powers of two. */
	if (count & (count - 1))
		return memory;
	memory = realloc(memory, (count ? count * 2 : 1) * bytes);
	if (!memory)
		die("no memory");
	return memory;
}

static void *zeroed(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);

	if (!memory)
		die("no memory");
	return memory;
}

static void trace_line(struct trace *trace, const char *line)
{
	const char *at = strstr(line, "\"hash_ids\"");

	if (!at || !(at = strchr(at, '[')))
		die("a line has no hash_ids");
	for (at++; *at && *at != ']'; at++) {
		char *end;
		unsigned long id = strtoul(at, &end, 10);

		if (end == at || id >= NONE)
			die("a hash_id is no number");
		trace->ids = grow(trace->ids, trace->refs, sizeof(*trace->ids));
		trace->ids[trace->refs++] = (uint32_t)id;
		if (id >= trace->blocks)
			trace->blocks = (uint32_t)id + 1;
		at = end + strspn(end, " ");
		if (*at != ',')
			break;
	}
	trace->ends = grow(trace->ends, trace->count, sizeof(*trace->ends));
	trace->ends[trace->count++] = trace->refs;
}

static struct trace trace_read(FILE *file)
{
	struct trace trace = {0};
	char *line = NULL;
	size_t bytes = 0;

	while (getline(&line, &bytes, file) > 0)
		trace_line(&trace, line);
	free(line);
	if (!trace.refs)
		die("no requests: zcat TRACE | flash_policy REGIONS");
	return trace;
}

/* ---- the LRU ----------------------------------------------------------------- */

struct lru {
	uint32_t *older, *newer; /* rings through `blocks`, which stands for the list */
	bool *in;
	uint32_t head, used;
};

static void lru_unlink(struct lru *lru, uint32_t id)
{
	lru->newer[lru->older[id]] = lru->newer[id];
	lru->older[lru->newer[id]] = lru->older[id];
}

static void lru_use(struct lru *lru, uint32_t id, uint32_t capacity)
{
	uint32_t oldest = lru->newer[lru->head];

	if (lru->in[id]) {
		lru_unlink(lru, id);
	} else if (lru->used < capacity) {
		lru->used++;
	} else {
		lru_unlink(lru, oldest);
		lru->in[oldest] = false;
	}
	lru->in[id] = true;
	lru->older[id] = lru->older[lru->head];
	lru->newer[id] = lru->head;
	lru->newer[lru->older[id]] = id;
	lru->older[lru->head] = id;
}

static size_t lru_hits(const struct trace *trace, uint32_t capacity)
{
	struct lru lru = {.older = zeroed(trace->blocks + 1u, sizeof(uint32_t)),
			  .newer = zeroed(trace->blocks + 1u, sizeof(uint32_t)),
			  .in = zeroed(trace->blocks, sizeof(bool)),
			  .head = trace->blocks};
	size_t hits = 0, begin = 0;

	lru.older[lru.head] = lru.newer[lru.head] = lru.head;
	for (size_t r = 0; r < trace->count; begin = trace->ends[r++]) {
		for (size_t i = begin; i < trace->ends[r] && lru.in[trace->ids[i]]; i++)
			hits++;
		for (size_t i = trace->ends[r]; i-- > begin;)
			lru_use(&lru, trace->ids[i], capacity);
	}
	free(lru.older);
	free(lru.newer);
	free(lru.in);
	return hits;
}

/* ---- the log ------------------------------------------------------------------ */

struct log {
	struct policy policy;
	struct policy_region *regions;
	uint32_t region_count, region_blocks;
	uint32_t *records; /* region_blocks a region: the block of each */
	uint32_t *fill;	   /* records of each region */
	bool *is_free;
	uint32_t free_count, streams, reserve;
	uint32_t open[2]; /* fresh, carried */
	/* by block */
	uint32_t *region, *parent;
	uint16_t *epoch;
	uint64_t live, fresh, carried, hits, uses;
	/* at steady state */
	bool steady;
	uint64_t steady_fresh, samples;
	double live_sum, carried_max;
};

static void log_open(struct log *log, uint32_t stream)
{
	uint32_t region = 0;

	assert(log->free_count);
	while (!log->is_free[region])
		region++;
	log->is_free[region] = false;
	log->free_count--;
	policy_clear(&log->policy, region, ++log->uses);
	log->open[stream] = region;
}

static void log_write(struct log *log, uint32_t stream, uint32_t id)
{
	uint32_t region = log->open[stream];

	if (region == NONE || log->fill[region] == log->region_blocks) {
		if (region != NONE)
			policy_candidate(&log->policy, region, true);
		log_open(log, stream);
		region = log->open[stream];
	}
	log->records[(size_t)region * log->region_blocks + log->fill[region]++] = id;
	log->region[id] = region;
	policy_add(&log->policy, region, log->epoch[id], 1);
	policy_written(&log->policy, 1);
}

static void log_reclaim(struct log *log)
{
	struct policy_victim victim = policy_choose(&log->policy, false);
	uint32_t carried = 0, count;
	uint32_t *records;

	if (victim.region == POLICY_NONE)
		die("no victim");
	policy_take(&log->policy, &victim);
	records = &log->records[(size_t)victim.region * log->region_blocks];
	count = log->fill[victim.region];
	for (uint32_t i = 0; i < count; i++) {
		uint32_t id = records[i], parent = log->parent[id];
		bool orphan = parent != NONE && log->region[parent] == NONE;

		if (policy_carries(&victim, log->epoch[id], false, orphan)) {
			policy_drop(&log->policy, victim.region, log->epoch[id], 1);
			log->epoch[id] = policy_epoch_of(&log->policy, log->epoch[id]);
			log_write(log, log->streams - 1, id);
			carried++;
		} else {
			log->region[id] = NONE;
			log->live--;
		}
	}
	policy_clear(&log->policy, victim.region, 0);
	log->fill[victim.region] = 0;
	log->is_free[victim.region] = true;
	log->free_count++;
	log->carried += carried;
	if (carried > log->carried_max * log->region_blocks)
		log->carried_max = (double)carried / log->region_blocks;
	if (!log->steady) {
		log->steady = true;
		log->steady_fresh = log->fresh;
	}
}

static void log_use(struct log *log, uint32_t id, uint32_t parent)
{
	uint16_t before = log->epoch[id];

	log->parent[id] = parent;
	log->epoch[id] = log->policy.epoch;
	if (log->region[id] == NONE)
		log->epoch[id] = (uint16_t)(log->policy.epoch - policy_fresh_age(&log->policy, 0));
	if (log->region[id] != NONE) {
		if (before != log->policy.epoch)
			policy_touch(&log->policy, log->region[id], before, 1);
		return;
	}
	log_write(log, 0, id);
	log->live++;
	log->fresh++;
	while (log->free_count < log->reserve)
		log_reclaim(log);
}

static void log_request(struct log *log, const uint32_t *ids, size_t count)
{
	size_t leading = 0;

	while (leading < count && log->region[ids[leading]] != NONE)
		leading++;
	log->hits += leading;
	for (size_t i = 0; i < count; i++)
		log_use(log, ids[i], i ? ids[i - 1] : NONE);
	if (!log->steady)
		return;
	log->live_sum += (double)log->live / ((double)log->region_count * log->region_blocks);
	log->samples++;
}

static void log_init(struct log *log, const struct trace *trace, enum policy_kind kind,
		     uint32_t region_count, uint32_t region_blocks, uint32_t streams)
{
	*log = (struct log){
		.streams = streams,
		.reserve = 3 + (region_count / 128 < 5 ? region_count / 128 : 5),
		.region_count = region_count,
		.region_blocks = region_blocks,
		.regions = zeroed(region_count, sizeof(*log->regions)),
		.records = zeroed((size_t)region_count * region_blocks, sizeof(uint32_t)),
		.fill = zeroed(region_count, sizeof(uint32_t)),
		.is_free = zeroed(region_count, sizeof(bool)),
		.free_count = region_count,
		.open = {NONE, NONE},
		.region = zeroed(trace->blocks, sizeof(uint32_t)),
		.parent = zeroed(trace->blocks, sizeof(uint32_t)),
		.epoch = zeroed(trace->blocks, sizeof(uint16_t)),
	};
	memset(log->is_free, true, region_count);
	memset(log->region, 0xff, trace->blocks * sizeof(uint32_t));
	memset(log->parent, 0xff, trace->blocks * sizeof(uint32_t));
	policy_init(&log->policy, kind, log->regions, region_count, region_blocks, 0);
}

static void log_fini(struct log *log)
{
	free(log->regions);
	free(log->records);
	free(log->fill);
	free(log->is_free);
	free(log->region);
	free(log->parent);
	free(log->epoch);
}

static enum policy_kind kind_of(const char *name)
{
	static const char *const names[] = {
		[POLICY_COST] = "cost", [POLICY_LRU] = "lru", [POLICY_FIFO] = "fifo"};

	for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return (enum policy_kind)i;
	die("a policy is cost, lru or fifo");
}

int main(int argc, char **argv)
{
	uint32_t regions = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0, capacity;
	double share = argc > 2 ? strtod(argv[2], NULL) : 0.25;
	uint32_t streams = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2;
	enum policy_kind kind = kind_of(argc > 4 ? argv[4] : "cost");
	struct trace trace;
	struct log log;
	size_t begin = 0, lru;

	if (regions < 8 || share <= 0 || streams < 1 || streams > 2)
		die("flash_policy REGIONS [SHARE [STREAMS [POLICY]]] < TRACE");
	trace = trace_read(stdin);
	capacity = (uint32_t)(trace.blocks * share);
	log_init(&log, &trace, kind, regions, capacity / regions, streams);
	for (size_t r = 0; r < trace.count; begin = trace.ends[r++])
		log_request(&log, trace.ids + begin, trace.ends[r] - begin);
	lru = lru_hits(&trace, capacity);
	printf("{\"regions\": %u, \"region_blocks\": %u, \"capacity_blocks\": %u, "
	       "\"lru_hit_share\": %.4f, \"hit_share\": %.4f, \"of_lru\": %.4f, "
	       "\"write_amplification\": %.3f, \"live_share\": %.3f, \"carried_max\": %.3f}\n",
	       regions, log.region_blocks, capacity, (double)lru / (double)trace.refs,
	       (double)log.hits / (double)trace.refs, (double)log.hits / (double)lru,
	       1 + (double)log.carried / (double)(log.fresh - log.steady_fresh),
	       log.live_sum / (double)log.samples, log.carried_max);
	log_fini(&log);
	free(trace.ids);
	free(trace.ends);
	return 0;
}
