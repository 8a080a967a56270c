/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups: on the caller's thread, tier after tier, a chunk of keys at a time. */
#include <errno.h>
#include <string.h>

#include "core/holds.h"
#include "core/lookup.h"
#include "core/reactor.h"
#include "core/union.h"

#define CHUNK	    512u /* probes on the stack: 24 KiB */
#define SAMPLE_KEYS 64u

struct lookup {
	struct cairn_namespace *ns;
	struct cairn_store *store;
	bool chain, later;	   /* later: a chunk was there before this one */
	struct hold_builder *hold; /* NULL: none asked */
	/* of the chunk */
	struct cairn_probe probes[CHUNK];
	uint16_t stages[CHUNK];
};

/* @before: a key stands before these ones in the chain. */
static void probe_level(struct lookup *lookup, uint32_t level, const struct cairn_key *keys,
			size_t count, bool before, struct cairn_probe *ret_probes)
{
	struct level *tier = &lookup->store->levels[level];
	uint32_t flags =
		(lookup->chain ? CAIRN_PROBE_CHAIN : 0) | (lookup->hold ? CAIRN_PROBE_HOLD : 0);

	if (lookup->chain && before)
		flags |= CAIRN_PROBE_BEFORE;

	memset(ret_probes, 0, count * sizeof(*ret_probes));
	tier->ops->lookup(tier->self, &lookup->ns->view, keys, count, flags, ret_probes);
}

/*
 * A block that no tier has whole. Never one that is to be held: no tier can promise
 * to keep a part of one.
 */
static void probe_union(struct lookup *lookup, const struct cairn_key *keys, size_t i)
{
	struct cairn_found found;

	if (lookup->hold || !union_find(lookup->store, &lookup->ns->view, &keys[i], &found))
		return;
	lookup->stages[i] = found.stage;
	lookup->probes[i] = (struct cairn_probe){
		.present = 1,
		.shard_count = found.shard_count,
		.shard_bytes = found.shard_bytes,
		.last_bytes = found.last_bytes,
	};
}

/*
 * The keys that no tier above has, asked below. In a chain the tier above
 * stopped at its first miss, so what follows may be there as well: those keys are
 * asked one after the other from the top.
 */
static void probe_below(struct lookup *lookup, const struct cairn_key *keys, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int level = lookup->store->tier_top;

		while (level >= 0 && !lookup->probes[i].present) {
			probe_level(lookup, (uint32_t)level, &keys[i], 1, lookup->later || i > 0,
				    &lookup->probes[i]);
			lookup->stages[i] = (uint16_t)level;
			level = lookup->store->levels[level].tier_below;
		}
		if (!lookup->probes[i].present)
			probe_union(lookup, keys, i);
		if (!lookup->probes[i].present && lookup->chain)
			return;
	}
}

static void give_back_one(struct lookup *lookup, const struct cairn_key *key, size_t i)
{
	struct level *level = &lookup->store->levels[lookup->stages[i]];

	if (lookup->probes[i].hold)
		level->ops->unhold(level->self, &lookup->ns->view, key, lookup->probes[i].hold);
}

/* Holds what is present, as far as the bounds go: what does not fit counts as absent. */
static void hold_chunk(struct lookup *lookup, const struct cairn_key *keys, size_t count)
{
	bool ended = false;

	for (size_t i = 0; i < count; i++) {
		struct cairn_probe *probe = &lookup->probes[i];

		if (!probe->present) {
			ended |= lookup->chain;
			continue;
		}
		if (ended ||
		    (probe->hold && !hold_add(lookup->hold, lookup->ns, lookup->stages[i], &keys[i],
					      probe->hold, probe->stored_bytes))) {
			give_back_one(lookup, &keys[i], i);
			probe->present = 0;
			ended |= lookup->chain;
		}
	}
}

static void report(const struct lookup *lookup, size_t i, struct cairn_found *found)
{
	const struct cairn_probe *probe = &lookup->probes[i];

	*found = (struct cairn_found){
		.present = probe->present ? 1 : 0,
		.stage = lookup->stages[i],
		.shard_count = (uint16_t)probe->shard_count,
		.shard_bytes = probe->shard_bytes,
		.last_bytes = probe->last_bytes,
	};
	if (!probe->present)
		*found = (struct cairn_found){.stage = CAIRN_STAGE_NONE};
}

/* Returns how many of the chunk are present; *ret_end: the chain ended here. */
static size_t lookup_chunk(struct lookup *lookup, const struct cairn_key *keys, size_t count,
			   struct cairn_found *found, bool *ret_end)
{
	uint32_t top = (uint32_t)lookup->store->tier_top;
	size_t hits = 0;

	for (size_t i = 0; i < count; i++)
		lookup->stages[i] = (uint16_t)top;
	probe_level(lookup, top, keys, count, lookup->later, lookup->probes);
	if (lookup->store->levels[top].tier_below >= 0)
		probe_below(lookup, keys, count);
	if (lookup->hold)
		hold_chunk(lookup, keys, count);
	for (size_t i = 0; i < count; i++) {
		if (!lookup->probes[i].present && lookup->chain) {
			*ret_end = true;
			break;
		}
		hits += lookup->probes[i].present != 0;
		if (found)
			report(lookup, i, &found[i]);
	}
	return hits;
}

/*
 * For how many calls like it this one is timed: 0, it is not. Two looks at the clock cost
 * a third of the lookup of a key, so that only whose keys fill a SAMPLE_KEYS is timed,
 * for all of its kind: one of 64 of one key, one of 8 of eight, each of 64 and more.
 */
static uint64_t count_lookup(struct cairn_store *store, uint64_t count)
{
	uint64_t before = counter_add(&store->counters[COUNT_LOOKUPS], count);

	if (before / SAMPLE_KEYS == (before + count) / SAMPLE_KEYS)
		return 0;
	return count < SAMPLE_KEYS ? (SAMPLE_KEYS + count / 2) / count : 1;
}

int64_t lookup_run(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		   bool chain, struct cairn_found *found, uint64_t hold_ns, uint64_t *ret_hold)
{
	struct hold_builder builder;
	struct lookup lookup; /* its probes are zeroed as they are used */
	struct cairn_store *store = ns->store;
	uint64_t times = count_lookup(store, count);
	uint64_t begin_ns = times > 0 ? store->sys->now_ns() : 0;
	size_t hits = 0;
	bool end = false;

	lookup.ns = ns;
	lookup.store = store;
	lookup.chain = chain;
	lookup.later = false;
	lookup.hold = ret_hold ? &builder : NULL;
	if (ret_hold)
		hold_begin(store, &builder);
	for (size_t at = 0; at < count && !end; at += CHUNK) {
		size_t n = count - at < CHUNK ? count - at : CHUNK;

		hits += lookup_chunk(&lookup, keys + at, n, found ? found + at : NULL, &end);
		lookup.later = true;
	}
	store_count(store, COUNT_LOOKUP_HITS, hits);
	if (times > 0)
		latency_add(store->latencies[LATENCY_LOOKUP], store->sys->now_ns() - begin_ns,
			    times);
	if (ret_hold) {
		uint64_t now_ns = store->sys->now_ns();
		uint64_t span_ns = hold_ns ? hold_ns : store->settings[SET_HOLD_TIME].u;

		*ret_hold = hold_end(&builder, hits > 0, deadline_of(now_ns, span_ns));
		/* Reactor 0 gives back what expires: it must not sleep past it. */
		if (builder.sooner)
			store->reactors[0]->engine_ops->wake(store->reactors[0]->engine);
	}
	return (int64_t)hits;
}
