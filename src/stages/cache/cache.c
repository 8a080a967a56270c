/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "stages/cache/cache.h"
#include "stages/cache/pins.h"
#include "stages/cache/slots.h"
#include "stages/error.h"
#include "stages/stages.h"

#define ENTRY_BYTES    65536u /* entries= by default: one for so much of size= */
#define ENTRIES_MIN    256u
#define DIRTY_SHARE    8u	  /* dirty= by default: so much of size= */
#define LARGEST_SHARE  4u	  /* of the chunks, what one block may take */
#define BACKED_AT_OPEN (8u << 20) /* bytes: a few ms */

static const struct cairn_option cache_options[OPT_ROWS] = {
	[OPT_SIZE] = {"size", CAIRN_OPTION_SIZE, 0, "1GiB", "8MiB", "8TiB", NULL,
		      "bytes of shared memory at most, its own tables included"},
	[OPT_ENTRIES] = {"entries", CAIRN_OPTION_COUNT, 0, NULL, "256", "1G", NULL,
			 "blocks at most; default: size / 64 KiB"},
	[OPT_NAME] = {"name", CAIRN_OPTION_PATH, 0, NULL, NULL, NULL, NULL,
		      "of the region, for all processes of this user that name it; default: the "
		      "store below, or this process's own"},
	[OPT_POLICY] = {"policy", CAIRN_OPTION_CHOICE, 0, "lru", NULL, NULL, POLICY_CHOICES,
			"what goes first"},
	[OPT_WRITE] = {"write", CAIRN_OPTION_CHOICE, 0, "through", NULL, NULL,
		       "through|around|back",
		       "dumps: kept here and written below, written below alone, or, at the "
		       "level memory, kept here and written below later (below other stages: as "
		       "through)"},
	[OPT_DIRTY] = {"dirty", CAIRN_OPTION_SIZE, 0, NULL, "0", "8TiB", NULL,
		       "bytes that are here and not yet below, at most; with more, dumps are "
		       "written through; default: an eighth of size="},
	[OPT_HUGEPAGES] = {"hugepages", CAIRN_OPTION_CHOICE, 0, "auto", NULL, NULL, "auto|no",
			   "auto: where the kernel gives them to shared memory"},
	[OPT_PREFAULT] = {"prefault", CAIRN_OPTION_CHOICE, 0, "background", NULL, NULL,
			  "background|ahead",
			  "all of size= gets its memory soon after open, or some chunks ahead"},
	[OPT_VERIFY] = {"verify", CAIRN_OPTION_CHOICE, 0, "fill", NULL, NULL, "fill|hit",
			"fill: what comes from below was checked there; hit: checksums are "
			"compared at each hit, too"},
	[OPT_KEEP] = {"keep", CAIRN_OPTION_BOOL, 0, "no", NULL, NULL, NULL,
		      "the last process out leaves the region for those that come; checked as "
		      "it is used"},
	[OPT_OPEN_WAIT] = {"open_wait", CAIRN_OPTION_TIME, 0, "2s", "0s", "10m", NULL,
			   "how long open waits for who is making the region, and for memory that "
			   "a process had which was killed"},
};

static const struct cairn_counter_row cache_counters[CC_ROWS] = {
	[CC_HITS] = {"load_hits", "shards loaded from memory", 0},
	[CC_MISSES] = {"load_misses", "shards that were not in memory", 0},
	[CC_FILLS] = {"fills", "shards brought up from below", 0},
	[CC_FILL_FAILED] = {"fills_failed", "fills that ended with nothing to keep", 0},
	[CC_WAITS] = {"fill_waits", "times a load waited for a fill of another's", 0},
	[CC_PRIVATE] = {"private_loads", "shards loaded from below and not kept", 0},
	[CC_DUMPED] = {"dumped_shards", "shards taken", 0},
	[CC_ALREADY] = {"already_present", "shards dumped that were there", 0},
	[CC_BYPASSED] = {"bypassed", "shards dumped below without being kept", 0},
	[CC_EVICTED] = {"evicted_blocks", "blocks that went to make room", 0},
	[CC_EVICTED_PARENTS] = {"evicted_parents",
				"of these, that had children: no leaf could go, for a chunk of "
				"another size of slots, or a key whose buckets were full",
				0},
	[CC_REMOVED] = {"removed_blocks", "blocks removed", 0},
	[CC_DAMAGED] = {"damaged_blocks", "blocks whose checksum did not match", 0},
	[CC_REFUSED] = {"refused", "shards not taken", 0},
	[CC_PREFETCHED] = {"prefetched_blocks", "blocks brought up by prefetches", 0},
	[CC_PREFETCH_USED] = {"prefetched_used", "of these, that were used", 0},
	[CC_PREFETCH_WASTED] = {"prefetched_wasted", "of these, that went before they were used",
				0},
	[CC_HELD_BACK] = {"held_back_blocks", "blocks whose dump ended in memory alone", 0},
	[CC_FLUSHED] = {"flushed_blocks", "blocks held back that were written below after", 0},
	[CC_FLUSH_FAILED] = {"flush_failed_blocks",
			     "blocks held back that could not be written below, and went", 0},
	[CC_DIRTY] = {"dirty_bytes", "held back and not yet below, by all processes", 1},
	[CC_REPAIRS] = {"repairs", "dead clients cleaned up after", 0},
	[CC_SWEPT] = {"regions_removed", "regions of dead processes, taken away at open", 0},
	[CC_BYTES_USED] = {"bytes_used", "of slots in use, by all processes", 1},
	[CC_BYTES_LIMIT] = {"bytes_limit", "of the region with its tables, bytes", 1},
	[CC_CLIENTS] = {"clients", "processes that have the region open", 1},
	[CC_CHUNKS] = {"chunks", "pieces of memory that are there", 1},
	[CC_CHUNKS_MISSING] = {"chunks_missing", "pieces that no memory could be had for", 1},
};

/* ---- open ------------------------------------------------------------------------- */

static bool name_fits(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length <= REGION_NAME_MAX &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
		       length;
}

static int cache_check_values(const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	const struct cairn_value *name = &env->values[OPT_NAME];

	if (name->set && !name_fits(name->s))
		return stage_error(reterr, -EINVAL,
				   "%s: name= is \"%s\"; right are 1 to %u letters, digits, dots, "
				   "dashes and underscores",
				   env->name, name->s, REGION_NAME_MAX);
	if (env->values[OPT_KEEP].u && !name->set && env->below == 0)
		return stage_error(reterr, -EINVAL,
				   "%s: keep=yes needs a name=: nobody would find the region again",
				   env->name);
	return 0;
}

static uint32_t entries_of(const struct cairn_stage_env *env)
{
	uint64_t entries = env->values[OPT_ENTRIES].set ? env->values[OPT_ENTRIES].u
							: env->values[OPT_SIZE].u / ENTRY_BYTES;

	return (uint32_t)(entries < ENTRIES_MIN ? ENTRIES_MIN : entries);
}

const char *cache_region_name(const struct cairn_stage_env *env, bool below_known,
			      const uint8_t below[16], char buffer[CACHE_NAME_BYTES])
{
	static const uint8_t none[16];

	if (env->values[OPT_NAME].set)
		return env->values[OPT_NAME].s;
	if (!below_known || memcmp(below, none, sizeof(none)) == 0)
		return NULL;
	for (uint32_t i = 0; i < 16; i++)
		snprintf(buffer + 2 * (size_t)i, 3, "%02x", below[i]);
	return buffer;
}

static int cache_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct region_opts opts = {
		.size = env->values[OPT_SIZE].u,
		.entries = entries_of(env),
		.wait_ns = env->values[OPT_OPEN_WAIT].u,
		.huge = env->values[OPT_HUGEPAGES].u == 0,
		.keep = env->values[OPT_KEEP].u != 0,
		.tails = env->values[OPT_VERIFY].u != 0 || env->values[OPT_KEEP].u != 0,
		.policy = (uint8_t)env->values[OPT_POLICY].u,
	};
	char name[CACHE_NAME_BYTES];
	int ret = cache_check_values(env, reterr);

	if (ret < 0)
		return ret;
	stage->env = env;
	stage->host = env->host;
	stage->sys = stage_env(env)->sys;
	stage->policy = (enum policy_kind)env->values[OPT_POLICY].u;
	stage->write = (enum cache_write)env->values[OPT_WRITE].u;
	stage->dirty_max = env->values[OPT_DIRTY].set ? env->values[OPT_DIRTY].u
						      : env->values[OPT_SIZE].u / DIRTY_SHARE;
	stage->verify_hits = env->values[OPT_VERIFY].u != 0;
	stage->eager = env->values[OPT_PREFAULT].u == 0;
	opts.below_known = stage_env(env)->uuid_below(env, opts.below);
	opts.name = cache_region_name(env, opts.below_known, opts.below, name);
	ret = reserve_init(stage);
	if (ret < 0)
		return stage_error(reterr, ret, "%s: no memory", env->name);
	ret = region_open(&stage->region, env, &opts, reterr);
	if (ret < 0) {
		reserve_fini(stage);
		return ret;
	}
	cairn_count(env, CC_SWEPT, stage->region.swept);
	stage->map = &stage->region.map;
	stage->tails = stage->region.tails;
	ret = flush_init(stage);
	if (ret < 0) {
		region_close(&stage->region);
		reserve_fini(stage);
		return stage_error(reterr, ret, "%s: no memory", env->name);
	}
	stage->largest_block = stage->map->chunk_count * stage->map->chunk_bytes / LARGEST_SHARE;
	if (stage->largest_block < stage->map->chunk_bytes)
		stage->largest_block = stage->map->chunk_bytes;
	/* What comes at once finds memory. */
	for (uint32_t i = 0;
	     i < stage->map->chunk_count && i * stage->map->chunk_bytes < BACKED_AT_OPEN; i++)
		region_back(&stage->region, i);
	cairn_gauge(env, CC_BYTES_LIMIT, opts.size);
	cache_tell_used(stage);
	cache_tell(stage);
	stage->magic = CACHE_STAGE_MAGIC;
	return 0;
}

static void cache_close(void *self)
{
	struct cache_stage *stage = (struct cache_stage *)self;

	assert(stage->magic == CACHE_STAGE_MAGIC && !stage->job_busy);
	reserve_fini(stage);
	flush_fini(stage);
	bindings_free(stage);
	region_close(&stage->region);
	stage->magic = 0;
}

/* ---- ios ---------------------------------------------------------------------------- */

static void cache_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct cache_io *own = (struct cache_io *)scratch;

	assert(stage->magic == CACHE_STAGE_MAGIC);
	own->record = CACHE_NONE;
	own->entry = CACHE_NONE;
	switch ((enum cairn_op)io->op) {
	case CAIRN_OP_LOAD:
		load_begin(stage, io, own);
		break;
	case CAIRN_OP_DUMP:
		dump_begin(stage, io, own);
		break;
	case CAIRN_OP_REMOVE:
		remove_begin(stage, io, own);
		break;
	case CAIRN_OP_PREFETCH:
		own->prefetch = true;
		prefetch_begin(stage, io, own);
		break;
	case CAIRN_OP_DESCRIBE:
		load_describe(stage, io, own);
		break;
	}
}

static void cache_done(void *self, struct cairn_io *io, void *scratch)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct cache_io *own = (struct cache_io *)scratch;

	switch ((enum cairn_op)io->op) {
	case CAIRN_OP_LOAD:
		/* A prefetch is a load below. */
		if (own->prefetch)
			prefetch_done(stage, io, own);
		else
			load_done(stage, io, own);
		break;
	case CAIRN_OP_DUMP:
		dump_done(stage, io, own);
		break;
	case CAIRN_OP_REMOVE:
		remove_done(stage, io, own);
		break;
	case CAIRN_OP_PREFETCH:
		prefetch_done(stage, io, own);
		break;
	case CAIRN_OP_DESCRIBE:
		stage->host->complete(io);
		break;
	}
}

static void cache_resume(void *self, struct cairn_io *io, void *scratch)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct cache_io *own = (struct cache_io *)scratch;

	if (own->down)
		return;
	if (io->op == CAIRN_OP_LOAD)
		load_begin(stage, io, own);
	else if (io->op == CAIRN_OP_PREFETCH)
		prefetch_begin(stage, io, own);
	else if (io->op == CAIRN_OP_REMOVE)
		remove_begin(stage, io, own);
	else if (io->op == CAIRN_OP_DESCRIBE)
		load_describe(stage, io, own);
	else
		dump_begin(stage, io, own);
}

/* ---- lookups -------------------------------------------------------------------------- */

/* A hold is a pin that outlives the call: record + 1. */
static void hold(struct cache_stage *stage, const struct cache_ref *ref,
		 struct cairn_probe *ret_probe)
{
	struct cache_ref now = *ref;
	uint32_t record = pin_take_long(stage->map);

	if (record == CACHE_NONE)
		return;
	if (!pin_entry(stage->map, record, &now)) {
		pin_give(stage->map, record);
		return;
	}
	ret_probe->present = 1;
	ret_probe->hold = record + 1ull;
	ret_probe->stored_bytes =
		(uint64_t)half_hint(&stage->map->metas[ref->entry].units) * CACHE_UNIT;
}

static void fill_probe(struct cache_stage *stage, const struct cache_ref *ref, uint32_t flags,
		       struct cairn_probe *ret_probe)
{
	const struct cache_entry *at = &stage->map->entries[ref->entry];

	ret_probe->shard_count = short_hint(&at->shard_count);
	ret_probe->shard_bytes = half_hint(&at->shard_bytes);
	ret_probe->last_bytes = half_hint(&at->last_bytes);
	/* It may have gone meanwhile: what was read is then of nothing. */
	if (state_life(word_get(&at->state)) != state_life(ref->state))
		return;
	if (flags & CAIRN_PROBE_HOLD)
		hold(stage, ref, ret_probe);
	else
		ret_probe->present = 1;
}

static bool is_whole(const struct cache_stage *stage, const struct cache_ref *ref)
{
	return ref->entry != CACHE_NONE && state_whole(ref->state) &&
	       (!(short_hint(&stage->map->entries[ref->entry].flags) & ENTRY_EXPIRES) ||
		!cache_expired(stage, ref->entry));
}

struct chain {
	bool on;
	struct cache_ref last;
};

static void link_to_last(struct cache_stage *stage, struct chain *chain,
			 const struct cache_ref *ref)
{
	struct cache_ref child = *ref;
	uint32_t record;

	if (chain->last.entry != CACHE_NONE &&
	    !(short_hint(&stage->map->entries[ref->entry].flags) & ENTRY_PARENTED) &&
	    (record = pin_take(stage->map)) != CACHE_NONE) {
		if (pin_entry(stage->map, record, &child))
			entry_set_parent(stage->map, &child, &chain->last);
		pin_give(stage->map, record);
		background_reclaim(stage, ref->entry);
	}
	chain->last = *ref;
}

/* False: the chain ends here. */
static bool look_at(struct cache_stage *stage, const struct cache_ref *ref, uint32_t flags,
		    struct chain *chain, struct cairn_probe *ret_probe)
{
	if (is_whole(stage, ref))
		fill_probe(stage, ref, flags, ret_probe);
	if (!chain->on)
		return true;
	if (ret_probe->present)
		link_to_last(stage, chain, ref);
	return ret_probe->present != 0;
}

static void cache_lookup(void *self, const struct cairn_ns_view *ns, const struct cairn_key *keys,
			 size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	struct chain chain = {.on = (flags & CAIRN_PROBE_CHAIN) != 0, .last = {CACHE_NONE, 0}};
	struct cache_ref refs[CACHED_STEP];
	struct cached_walk walk;
	struct cache_key key;
	uint32_t n;

	/* The probes are zero already. */
	if (!cache_key(stage, ns, &keys[0], &key))
		return;
	cached_walk_begin(&walk, stage->map, keys, count, key.home);
	if (flags & CAIRN_PROBE_BEFORE) {
		cache_key(stage, ns, keys - 1, &key);
		chain.last = cached_find(stage->map, &key);
	}
	while ((n = cached_walk_on(&walk, refs)) > 0)
		for (uint32_t i = 0; i < n; i++, ret_probes++)
			if (!look_at(stage, &refs[i], flags, &chain, ret_probes))
				return;
}

static void cache_unhold(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			 uint64_t held)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	uint32_t record = (uint32_t)held - 1;
	uint64_t link;

	(void)ns;
	(void)key;
	assert(held != 0 && record < stage->map->pins_max);
	link = pin_link(stage->map, record);
	pin_give(stage->map, record);
	if (link != 0 && link_entry(link) < stage->map->entry_count)
		background_reclaim(stage, link_entry(link));
}

/* ---- the rest ---------------------------------------------------------------------------- */

static int cache_bind(void *self, const struct cairn_ns_view *ns, void **ret_binding,
		      struct cairn_error *reterr)
{
	struct cache_stage *stage = (struct cache_stage *)self;

	assert(stage->magic == CACHE_STAGE_MAGIC && ns->desc_length > 0);
	return binding_make(stage, ns, ret_binding, reterr);
}

static int cache_clear(void *self, const struct cairn_ns_view *ns, uint32_t durability)
{
	(void)durability;
	return binding_clear((struct cache_stage *)self, ns);
}

void cache_tell(struct cache_stage *stage)
{
	const struct cache_header *header = stage->map->header;

	cairn_gauge(stage->env, CC_CLIENTS, region_clients(&stage->region, true));
	cairn_gauge(stage->env, CC_DIRTY, word_hint(&header->dirty));
	cairn_gauge(stage->env, CC_CHUNKS, half_hint(&header->backed));
	cairn_gauge(stage->env, CC_CHUNKS_MISSING, half_hint(&header->unbacked));
}

uint64_t cache_tell_used(struct cache_stage *stage)
{
	const struct cache_map *map = stage->map;
	uint64_t used = 0;

	for (uint32_t i = 0; i < map->chunk_count; i++) {
		const struct cache_chunk *chunk = &map->chunks[i];
		uint32_t slots = half_hint(&chunk->slots), unused = half_hint(&chunk->free_slots);

		if (chunk_phase(word_get(&chunk->state)) == CHUNK_SLOTS && unused <= slots)
			used += (uint64_t)(slots - unused) * half_hint(&chunk->units) * CACHE_UNIT;
	}
	cairn_gauge(stage->env, CC_BYTES_USED, used);
	return used;
}

static void cache_stat(void *self, struct cairn_tier_stat *ret_stat)
{
	struct cache_stage *stage = (struct cache_stage *)self;
	const struct cache_map *map = stage->map;

	memset(ret_stat, 0, sizeof(*ret_stat));
	cache_tell(stage);
	ret_stat->bytes_used = cache_tell_used(stage);
	ret_stat->bytes_limit = map->header->size;
	ret_stat->blocks = word_hint(&map->header->blocks);
	ret_stat->alignment = 1;
}

const struct cairn_stage_ops cairn_stage_cache = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "cache",
	.summary = "shared memory for all processes of this machine, at its speed",
	.flags = CAIRN_STAGE_TIER,
	.option_count = OPT_ROWS,
	.options = cache_options,
	.counter_count = CC_ROWS,
	.counters = cache_counters,
	.instance_bytes = sizeof(struct cache_stage),
	.io_bytes = sizeof(struct cache_io),
	.io_zeroed = CACHE_IO_ZEROED,
	.open = cache_open,
	.close = cache_close,
	.submit = cache_submit,
	.done = cache_done,
	.resume = cache_resume,
	.bind = cache_bind,
	.clear = cache_clear,
	.lookup = cache_lookup,
	.unhold = cache_unhold,
	.stat = cache_stat,
	.check_values = cache_check_values,
	.inspect = cache_inspect,
	.serve = cache_serve,
	.pin = cache_pin,
	.unpin = cache_unpin,
	.reserve = cache_reserve,
	.reserved = cache_reserved,
	.abort = cache_abort,
};
