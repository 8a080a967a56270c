/* SPDX-License-Identifier: Apache-2.0 */
/* The flash tier's table: open, close, lookups, and where ios go. */
#include "stages/flash/atrest.h"
#include "stages/flash/tier.h"

#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

/* Keys looked up under one hold of the mutex. */
#define LOOKUP_BATCH 64u
#define BUFFER_MIN   (256u << 10)
/* Address space of an index from which on it is worth huge pages. */
#define TABLE_HUGE   (64u << 20)
#define ENTRIES_MAX  (1u << 30)
/*
 * After a crash what had gone, and was not marked so durably, is found beside what is there: an
 * open has room for twice as much as the index may have, and for so much more. So has the next
 * one, where it was all still there at a close.
 */
#define ENTRIES_MORE (64u << 10)
#define SHARDS_MORE  (1u << 20)

static const struct cairn_option options[OPT_COUNT] = {
	[OPT_PATH] = {"path", CAIRN_OPTION_PATH, CAIRN_OPTION_REQUIRED, NULL, NULL, NULL, NULL,
		      "the file, made if the folder above it exists; or a block device"},
	[OPT_SIZE] = {"size", CAIRN_OPTION_SIZE, 0, NULL, "8MiB", NULL, NULL,
		      "of the file, taken at once; needed to make one, but all of a device"},
	[OPT_REGION] = {"region", CAIRN_OPTION_SIZE, 0, NULL, "64KiB", "1GiB", NULL,
			"what is written and given up together; a 256th of size and 64KiB, 576KiB "
			"to 32832KiB; a shard must fit into one: shard_bytes_max is the largest"},
	[OPT_SYNC] = {"sync", CAIRN_OPTION_CHOICE, 0, "group", NULL, NULL, "group|each|none",
		      "flushes: for tasks that ask for durable, from the first one on, for every "
		      "dump, or none; one for all that wait"},
	[OPT_ENTRIES] = {"entries", CAIRN_OPTION_COUNT, 0, NULL, "16", "1G", NULL,
			 "blocks in the index at most; size / 4KiB without it"},
	[OPT_SHARDS] = {"shards", CAIRN_OPTION_COUNT, 0, NULL, "16", "1G", NULL,
			"shards beyond the first of each block, in the index at most; size / 4KiB "
			"without it"},
	[OPT_DIRECT] = {"direct", CAIRN_OPTION_CHOICE, 0, "auto", NULL, NULL, "auto|yes|no",
			"O_DIRECT: where possible, always, or through the page cache"},
	[OPT_OPEN_WAIT] = {"open_wait", CAIRN_OPTION_TIME, 0, "2s", NULL, NULL, NULL,
			   "how long open waits for another owner to end"},
	[OPT_FORMAT] = {"format", CAIRN_OPTION_BOOL, 0, "no", NULL, NULL, NULL,
			"make a store over what a file or device holds now, which is lost; not "
			"over a store"},
	[OPT_HANG] = {"hang", CAIRN_OPTION_TIME, 0, "10s", "10ms", NULL, NULL,
		      "a device that answers nothing for so long is passed by until it does"},
	[OPT_SHED] = {"shed", CAIRN_OPTION_TIME, 0, "5s", "1ms", NULL, NULL,
		      "when a dump has waited so long for the device, new ones are declined"},
	[OPT_POLICY] = {"policy", CAIRN_OPTION_CHOICE, 0, "cost", NULL, NULL, "cost|lru|fifo",
			"what goes: what costs least to lose and to copy around; the region used "
			"longest ago, but for what of it is hot; the oldest region, copying "
			"nothing but what is held; leaves go before their parents with cost"},
	[OPT_REACTORS] = {"reactors", CAIRN_OPTION_COUNT, 0, NULL, "1", "32", NULL,
			  "threads that do I/O, of the whole store: as store(reactors=), where "
			  "that says nothing else"},
};

static const struct cairn_counter_row counters[CNT_COUNT] = {
	[CNT_LOADS] = {"load_hits", "shards and parts of shards loaded", 0},
	[CNT_LOAD_BYTES] = {"load_bytes", "bytes loaded", 0},
	[CNT_STRAIGHT_BYTES] = {"straight_bytes", "bytes read into registered memory", 0},
	[CNT_LOAD_MISSES] = {"load_misses", "loads of what was absent", 0},
	[CNT_DUMPS] = {"dumps", "shards written", 0},
	[CNT_DUMP_BYTES] = {"dump_bytes", "bytes of shards written", 0},
	[CNT_DUMPS_PRESENT] = {"dumps_present", "dumps of what was present", 0},
	[CNT_PUBLISHED] = {"published_blocks", "blocks that became whole", 0},
	[CNT_REMOVED] = {"removed_blocks", "blocks removed by a call", 0},
	[CNT_CLEARS] = {"clears", "namespaces cleared", 0},
	[CNT_EVICTED] = {"evicted_blocks", "blocks that went with their region", 0},
	[CNT_DAMAGED] = {"damaged_blocks", "blocks that did not check", 0},
	[CNT_REFUSED] = {"refused", "dumps without room, or too large", 0},
	[CNT_SHED] = {"dumps_shed", "dumps declined, since others waited for shed=", 0},
	[CNT_IO_ERRORS] = {"io_errors", "reads and writes that failed", 0},
	[CNT_PARTIALS_DROPPED] = {"partials_dropped", "unfinished blocks given up", 0},
	[CNT_ROOM_WAITS] = {"room_waits", "waits for a region or for memory", 0},
	[CNT_FLUSHES] = {"flushes", "flushes that dumps waited for", 0},
	[CNT_WRITES] = {"writes", "writes of dumps", 0},
	[CNT_WRITTEN_BYTES] = {"written_bytes", "bytes of dumps as they were written, with heads",
			       0},
	[CNT_CARRIED_BYTES] = {"carried_bytes", "bytes written again by reclaims", 0},
	[CNT_OTHER_BYTES] = {"other_bytes", "bytes written that are no records", 0},
	[CNT_RECLAIMED] = {"reclaimed_regions", "regions made free", 0},
	[CNT_SEALED] = {"sealed_regions", "regions that were full", 0},
	[CNT_RETIRED] = {"retired_regions", "regions given up after a read or a write that failed",
			 0},
	[CNT_FENCES] = {"fences", "times that the device did not answer for hang=", 0},
	[CNT_PASSED_BY] = {"passed_by",
			   "dumps that ended because the device did not answer, or "
			   "took no writes",
			   0},
	[CNT_RECOVERED] = {"recovered_blocks", "blocks found at open", 0},
	[CNT_SHARD_MAX] = {"shard_bytes_max", "the largest shard that fits, bytes", 1},
	[CNT_BYTES_USED] = {"bytes_used", "bytes of records that count, and of what surrounds them",
			    1},
	[CNT_BYTES_LIMIT] = {"bytes_limit", "of the file or the device, bytes", 1},
	[CNT_BLOCKS] = {"blocks", "whole blocks known", 1},
	[CNT_INDEX_BYTES] = {"index_bytes", "memory taken by the index and its marks", 1},
	[CNT_SUSPECT] = {"regions_suspect",
			 "regions in which something did not check: reclaimed before others", 1},
	[CNT_FENCED] = {"fenced", "1: the device does not answer, and is passed by", 1},
};

/* ---- open ------------------------------------------------------------------------------ */

/* Any number will do: this is for who configures the store by this stage alone. */
static int reactors_ask(struct flash *tier, struct cairn_error *reterr)
{
	const struct cairn_value *wanted = &tier->env->values[OPT_REACTORS];
	uint32_t has;

	if (!wanted->set)
		return 0;
	has = stage_env(tier->env)->reactors_ask(tier->env, (uint32_t)wanted->u);
	if (has == wanted->u)
		return 0;
	return flash_error(
		reterr, -EINVAL,
		"reactors=%u: the store is to have %u of them, by store(reactors=) or by "
		"another stage: write one number, once",
		(uint32_t)wanted->u, has);
}

static int options_take(struct flash *tier, struct cairn_error *reterr)
{
	const struct cairn_value *values = tier->env->values;

	if (strlen(values[OPT_PATH].s) >= sizeof(tier->path))
		return flash_error(reterr, -EINVAL, "path= has more than %zu bytes",
				   sizeof(tier->path) - 1);
	snprintf(tier->path, sizeof(tier->path), "%s", values[OPT_PATH].s);
	tier->sync = (enum sync_choice)values[OPT_SYNC].u;
	tier->policy_kind = (enum policy_kind)values[OPT_POLICY].u;
	tier->open_wait_ns = values[OPT_OPEN_WAIT].u;
	tier->shed_ns = values[OPT_SHED].u;
	tier->hang_ns = values[OPT_HANG].u;
	if (tier->host && tier->host->buffer_max < BUFFER_MIN)
		return flash_error(reterr, -EINVAL,
				   "buffers of %u bytes are needed, the store has %zu", BUFFER_MIN,
				   tier->host->buffer_max);
	return reactors_ask(tier, reterr);
}

static uint64_t entries_of(const struct flash *tier, enum flash_option option, uint64_t most)
{
	uint64_t entries = tier->layout.file_bytes / 4096;

	if (tier->env->values[option].set)
		entries = tier->env->values[option].u;
	return entries < most ? entries : most;
}

static int reserve(struct flash *tier, size_t bytes, void **ret_memory)
{
	return sys_reserve(tier->sys, bytes, ret_memory);
}

static uint64_t room_for(const struct flash *tier, uint64_t count, uint64_t more, uint64_t most)
{
	if ((tier->super.flags & (FLASH_SUPER_CLEAN | FLASH_SUPER_OVER)) != FLASH_SUPER_CLEAN)
		count = 2 * count + more;
	return count < most ? count : most;
}

static int memory_make(struct flash *tier)
{
	const struct flash_layout *layout = &tier->layout;
	uint64_t shards_room;
	void *memory;
	int rc;

	tier->entries_max = (uint32_t)entries_of(tier, OPT_ENTRIES, ENTRIES_MAX);
	tier->shards_max = entries_of(tier, OPT_SHARDS, TABLE_SHARDS_MAX);
	tier->entries_room = (uint32_t)room_for(tier, tier->entries_max, ENTRIES_MORE, ENTRIES_MAX);
	shards_room = room_for(tier, tier->shards_max, SHARDS_MORE, TABLE_SHARDS_MAX);
	tier->table_memory_bytes = table_bytes(tier->entries_room, shards_room);
	/* A large one on huge pages: at 10 M blocks a lookup takes four fifths of the time. */
	if (tier->table_memory_bytes >= TABLE_HUGE)
		rc = sys_reserve_huge(tier->sys, tier->table_memory_bytes, &tier->table_memory,
				      &tier->table_base, &tier->table_base_bytes);
	else
		rc = reserve(tier, tier->table_memory_bytes, &tier->table_memory);
	if (rc < 0)
		return rc;
	table_init(tier->table_memory, tier->entries_room, shards_room, tier->super.id.seed,
		   &tier->table);
	tier->regions_bytes = layout->region_count * sizeof(*tier->regions);
	rc = reserve(tier, tier->regions_bytes, &memory);
	if (rc < 0)
		return rc;
	tier->regions = memory;
	tier->policy_bytes = layout->region_count * sizeof(*tier->policy_regions);
	rc = reserve(tier, tier->policy_bytes, &memory);
	if (rc < 0)
		return rc;
	tier->policy_regions = memory;
	tier->marks_bytes = (size_t)layout->region_count * layout->records_max;
	rc = reserve(tier, tier->marks_bytes, &memory);
	if (rc < 0)
		return rc;
	tier->marks = memory;
	tier->mark_counters_bytes =
		(size_t)layout->region_count * layout->mark_pages * sizeof(*tier->mark_counters);
	rc = reserve(tier, tier->mark_counters_bytes, &memory);
	if (rc < 0)
		return rc;
	tier->mark_counters = memory;
	return 0;
}

static int parts_make(struct flash *tier)
{
	int rc = memory_make(tier);

	if (rc == 0)
		rc = drafts_init(tier);
	if (rc == 0)
		rc = spans_init(tier);
	if (rc == 0)
		rc = flash_partials_init(tier);
	if (rc == 0)
		rc = fence_init(tier);
	if (rc == 0)
		rc = commit_init(tier);
	if (rc == 0)
		rc = reclaim_init(tier);
	return rc;
}

static void tier_release(struct flash *tier)
{
	const struct sys *sys = tier->sys;

	reclaim_fini(tier);
	commit_fini(tier);
	fence_fini(tier);
	flash_partials_fini(tier);
	drafts_fini(tier);
	flash_spaces_free(tier);
	if (tier->span_base)
		sys->munmap(tier->span_base, tier->span_base_bytes);
	if (tier->mark_counters)
		sys->munmap(tier->mark_counters, tier->mark_counters_bytes);
	if (tier->marks)
		sys->munmap(tier->marks, tier->marks_bytes);
	if (tier->policy_regions)
		sys->munmap(tier->policy_regions, tier->policy_bytes);
	if (tier->regions)
		sys->munmap(tier->regions, tier->regions_bytes);
	if (tier->table_base)
		sys->munmap(tier->table_base, tier->table_base_bytes);
	else if (tier->table_memory)
		sys->munmap(tier->table_memory, tier->table_memory_bytes);
	if (tier->probe_fd >= 0)
		sys->close(tier->probe_fd);
	if (tier->fd >= 0)
		sys->close(tier->fd);
	if (!tier->mutex_made)
		return;
	pthread_mutex_destroy(&tier->mutex);
	pthread_cond_destroy(&tier->space_over);
}

static int open_steps(struct flash *tier, struct cairn_error *reterr)
{
	const struct stage_env *internal = stage_env(tier->env);
	int rc = options_take(tier, reterr);

	if (rc == 0)
		rc = flash_super_open(tier, reterr);
	if (rc == 0)
		rc = parts_make(tier);
	if (rc == 0)
		rc = spaces_read(tier, reterr);
	if (rc == 0)
		rc = flash_recover(tier, reterr);
	if (rc < 0)
		return rc;
	internal->sequence_raise(tier->env, tier->super.sequence);
	tier->super.sequence += SEQUENCE_AHEAD;
	tier->super.region_seq = tier->region_seq + REGION_SEQ_AHEAD;
	/* Without flushes a region may have its table, and not its records, after a power cut. */
	if (flash_super_unsure(&tier->super))
		tier->super.unsure_seq = tier->region_seq;
	tier->unasked = (tier->super.flags & FLASH_SUPER_UNASKED) && tier->sync != SYNC_EACH &&
			!tier->super_old;
	tier->lazy = tier->unasked && tier->sync == SYNC_GROUP;
	tier->super.flags = tier->unasked ? FLASH_SUPER_UNASKED : 0;
	tier->super.owner_pid = (uint32_t)getpid();
	log_prepare(tier);
	rc = flash_super_write(tier); /* its flush is for all that recovery found and wrote */
	if (rc < 0)
		return rc;
	marks_flushed(tier);
	rc = flash_spaces_settle(tier);
	if (rc == 0 && internal->guard)
		rc = internal->guard(tier->env, tier->fd);
	if (rc == 0 && internal->lend)
		internal->lend(tier->env, tier->span_memory, (size_t)SPANS * SPAN_BYTES);
	if (rc == 0 && internal->split_dumps)
		internal->split_dumps(tier->env);
	return rc;
}

static void fork_close(struct flash *tier, bool forget)
{
	const struct stage_env *internal = stage_env(tier->env);

	if (!internal->fork_close)
		return;
	internal->fork_close(tier->env, tier->fd, forget);
	if (tier->probe_fd >= 0)
		internal->fork_close(tier->env, tier->probe_fd, forget);
}

static int flash_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct flash *tier = self;
	const struct stage_env *internal = stage_env(env);
	int rc;

	tier->magic = TIER_MAGIC;
	tier->env = env;
	tier->host = env->host;
	tier->sys = internal->sys;
	tier->fd = tier->probe_fd = -1;
	tier->open_region[0] = tier->open_region[1] = UINT32_MAX;
	rc = pthread_mutex_init(&tier->mutex, NULL) || pthread_cond_init(&tier->space_over, NULL);
	tier->mutex_made = rc == 0;
	rc = rc ? -ENOMEM : open_steps(tier, reterr);
	if (rc < 0) {
		if (reterr && !reterr->code)
			flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc));
		tier_release(tier);
		return rc;
	}
	cairn_gauge(env, CNT_SHARD_MAX, tier->layout.stored_max);
	cairn_gauge(env, CNT_BYTES_LIMIT, tier->layout.file_bytes);
	flash_gauges(tier);
	fork_close(tier, false);
	return 0;
}

/* What is open is sealed, in place. */
static int settle(struct flash *tier)
{
	bool flushed = false;
	int rc = 0;

	while (partial_drop_oldest(tier))
		;
	for (uint32_t stream = 0; stream < FLASH_STREAMS; stream++) {
		uint32_t number = tier->open_region[stream];

		if (number != UINT32_MAX && tier->regions[number].records && rc == 0) {
			rc = flushed ? 0 : seal_flush(tier);
			flushed = true;
			rc = seal_now(tier, number, rc);
		}
		tier->open_region[stream] = UINT32_MAX;
	}
	if (rc == 0)
		rc = marks_write_all(tier);
	if (rc == 0)
		rc = flash_spaces_settle(tier);
	return rc < 0 ? rc : tier->sys->fdatasync(tier->fd);
}

/* After a crash it may be, until others need the room. */
static bool index_over(const struct flash *tier)
{
	struct table_figures figures;

	table_figures(tier->table, &figures);
	return figures.whole + figures.ghost > tier->entries_max ||
	       figures.shards > tier->shards_max;
}

static void flash_close(void *self)
{
	struct flash *tier = self;
	const struct stage_env *internal = stage_env(tier->env);

	assert(tier->magic == TIER_MAGIC);
	if (!tier->fenced && settle(tier) == 0) {
		/* If this fails the store is unclean, and looked through when it opens. */
		tier->super.flags = FLASH_SUPER_CLEAN | (index_over(tier) ? FLASH_SUPER_OVER : 0) |
				    (tier->unasked ? FLASH_SUPER_UNASKED : 0);
		tier->super.sequence = internal->sequence_now(tier->env) + 1;
		if (tier->super.sequence <= tier->birth)
			tier->super.sequence = tier->birth + 1;
		tier->super.region_seq = tier->region_seq + 1;
		tier->super.epoch = tier->epoch;
		tier->super.owner_pid = 0;
		flash_super_write(tier);
	}
	fork_close(tier, true);
	/* Nothing is in flight, but a ring that held the lock goes in its own time. */
	tier->sys->flock(tier->fd, LOCK_UN);
	tier->magic = 0;
	tier_release(tier);
}

/* ---- ios ---------------------------------------------------------------------------------- */

static void flash_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct fio *f = scratch;

	fio_init(f, self, io);
	switch ((enum cairn_op)io->op) {
	case CAIRN_OP_LOAD:
	case CAIRN_OP_DESCRIBE:
		flash_load_submit(f);
		return;
	case CAIRN_OP_DUMP:
		flash_dump_submit(f);
		return;
	case CAIRN_OP_REMOVE:
		flash_remove_submit(f);
		return;
	case CAIRN_OP_PREFETCH:
		flash_prefetch_submit(f);
		return;
	}
	assert(false); /* an op that this ABI does not have */
}

static void flash_resume(void *self, struct cairn_io *io, void *scratch)
{
	struct fio *f = scratch;

	(void)self;
	assert(f->magic == FIO_MAGIC && f->io == io);
	waiter_resume(&f->wait);
}

/* ---- callers' threads ------------------------------------------------------------------------ */

static int flash_bind(void *self, const struct cairn_ns_view *ns, void **ret_binding,
		      struct cairn_error *reterr)
{
	struct space *space;
	int rc = flash_space_bind(self, ns, &space, reterr);

	if (rc == 0)
		*ret_binding = space;
	return rc;
}

static int flash_clear(void *self, const struct cairn_ns_view *ns, uint32_t durability)
{
	struct flash *tier = self;

	return flash_space_clear(tier, ns->binding[tier->env->index], durability);
}

static uint64_t hold_of(const struct flash *tier, uint32_t id)
{
	return 1ull << 48 | (uint64_t)id << 16 | table_incarnation(tier->table, id);
}

/* [m] */
static bool probe_fill(struct flash *tier, uint32_t id, uint32_t flags,
		       struct cairn_probe *ret_probe)
{
	struct table_geometry geometry;

	if (id == TABLE_NONE)
		return false;
	if (flags & CAIRN_PROBE_HOLD) {
		if (!block_hold(tier, id))
			return false;
		ret_probe->hold = hold_of(tier, id);
		ret_probe->stored_bytes =
			flash_byte_of(&tier->layout, (uint32_t)table_units(tier->table, id));
	}
	table_geometry(tier->table, id, &geometry);
	ret_probe->present = 1;
	ret_probe->shard_count = geometry.shard_count;
	ret_probe->shard_bytes = geometry.shard_bytes;
	ret_probe->last_bytes = geometry.last_bytes;
	return true;
}

/* Looks up to LOOKUP_BATCH keys up; false: the chain has ended. */
static bool lookup_batch(struct flash *tier, struct space *space, const struct cairn_key *keys,
			 size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	bool chain = flags & CAIRN_PROBE_CHAIN, whole = true;
	uint32_t ids[LOOKUP_BATCH], now_s = now_seconds(tier);

	tier_lock(tier);
	for (size_t i = 0; i < count; i++)
		ids[i] = TABLE_NONE;
	if (!tier->fenced)
		table_find_batch(tier->table, space->id, space->generation, keys, count, chain,
				 now_s, ids);
	for (size_t i = 0; i < count && (whole || !chain); i++) {
		whole = probe_fill(tier, ids[i], flags, &ret_probes[i]);
		if (whole && chain && (i || (flags & CAIRN_PROBE_BEFORE)))
			block_continues(tier, ids[i],
					table_fingerprint(tier->table, keys + i - 1, space->id,
							  space->generation));
	}
	tier_unlock(tier);
	return whole || !chain;
}

static void flash_lookup(void *self, const struct cairn_ns_view *ns, const struct cairn_key *keys,
			 size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct flash *tier = self;
	struct space *space = ns->binding[tier->env->index];
	bool more = true;

	memset(ret_probes, 0, count * sizeof(*ret_probes));
	for (size_t at = 0; at < count && more; at += LOOKUP_BATCH) {
		size_t some = count - at < LOOKUP_BATCH ? count - at : LOOKUP_BATCH;

		more = lookup_batch(tier, space, keys + at, some,
				    at ? flags | CAIRN_PROBE_BEFORE : flags, ret_probes + at);
	}
}

static int flash_shards(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			struct cairn_shards *ret_shards)
{
	struct flash *tier = self;
	struct space *space = ns->binding[tier->env->index];
	uint32_t id;

	memset(ret_shards, 0, sizeof(*ret_shards));
	tier_lock(tier);
	id = table_find(tier->table,
			table_fingerprint(tier->table, key, space->id, space->generation));
	if (tier->fenced || (id != TABLE_NONE && block_expired(tier, id)))
		id = TABLE_NONE;
	if (id != TABLE_NONE) {
		struct table_geometry geometry;
		struct table_place place;

		table_geometry(tier->table, id, &geometry);
		ret_shards->shard_count = geometry.shard_count;
		ret_shards->shard_bytes = geometry.shard_bytes;
		ret_shards->last_bytes = geometry.last_bytes;
		for (uint32_t i = 0; i < geometry.shard_count; i++)
			if (table_shard(tier->table, id, i, &place))
				shard_set(ret_shards->map, i);
	}
	tier_unlock(tier);
	return id == TABLE_NONE ? -ENOENT : 0;
}

static void flash_unhold(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			 uint64_t hold)
{
	struct flash *tier = self;

	(void)ns;
	(void)key;
	if (!hold)
		return;
	tier_lock(tier);
	block_unhold(tier, (uint32_t)(hold >> 16), (uint16_t)hold);
	room_given(tier);
	tier_unlock(tier);
}

static uint64_t bytes_used(const struct flash *tier)
{
	return tier->live_units * tier->layout.unit + tier->layout.regions_offset;
}

/* Of what went with a region whose table could not be read nobody knows the namespace. */
static uint64_t blocks_known(const struct flash *tier)
{
	struct table_figures figures;

	table_figures(tier->table, &figures);
	return tier->blocks < figures.whole ? tier->blocks : figures.whole;
}

/* The table, and the marks that are or were in use. */
static uint64_t index_memory(const struct flash *tier)
{
	size_t marks = flash_round_up(tier->marks_bytes, FLASH_PAGE);
	struct table_figures figures;

	table_figures(tier->table, &figures);
	return figures.memory_bytes + (tier->marks_touched < marks ? tier->marks_touched : marks);
}

void flash_gauges(struct flash *tier)
{
	cairn_gauge(tier->env, CNT_BYTES_USED, bytes_used(tier));
	cairn_gauge(tier->env, CNT_BLOCKS, blocks_known(tier));
	cairn_gauge(tier->env, CNT_INDEX_BYTES, index_memory(tier));
}

static void flash_stat(void *self, struct cairn_tier_stat *ret_stat)
{
	struct flash *tier = self;

	memset(ret_stat, 0, sizeof(*ret_stat));
	memcpy(ret_stat->uuid, tier->super.id.uuid, sizeof(ret_stat->uuid));
	ret_stat->alignment = tier->direct ? FLASH_PAGE : 1;
	ret_stat->bytes_limit = tier->layout.file_bytes;
	tier_lock(tier);
	ret_stat->bytes_used = bytes_used(tier);
	ret_stat->blocks = blocks_known(tier);
	flash_gauges(tier);
	tier_unlock(tier);
}

/* ---- at rest --------------------------------------------------------------------------------- */

static struct flash_rest_opts rest_opts(const struct cairn_stage_env *env)
{
	return (struct flash_rest_opts){
		.sys = stage_env(env)->sys,
		.stage = env->name,
		.path = env->values[OPT_PATH].s,
		.open_wait_ns = env->values[OPT_OPEN_WAIT].u,
	};
}

static int64_t flash_list(const struct cairn_stage_env *env,
			  int (*fn)(void *context, const struct cairn_listed *block), void *context,
			  uint64_t *ret_missed, struct cairn_error *reterr)
{
	struct flash_rest_opts opts = rest_opts(env);

	return flash_rest_list(&opts, fn, context, ret_missed, reterr);
}

static int flash_check(const struct cairn_stage_env *env,
		       int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		       struct cairn_error *reterr)
{
	struct flash_rest_opts opts = rest_opts(env);

	return flash_rest_check(&opts, fn, context, reterr);
}

static int flash_repair(const struct cairn_stage_env *env,
			int (*fn)(void *context, const struct cairn_finding *finding),
			void *context, struct cairn_error *reterr)
{
	struct flash_rest_opts opts = rest_opts(env);

	return flash_rest_repair(&opts, fn, context, reterr);
}

static int flash_inspect(const struct cairn_stage_env *env, uint64_t region,
			 int (*fn)(void *context, const struct cairn_detail *detail), void *context,
			 struct cairn_error *reterr)
{
	struct flash_rest_opts opts = rest_opts(env);

	return flash_rest_inspect(&opts, region, fn, context, reterr);
}

static int flash_identify(const struct cairn_stage_env *env, uint8_t ret_uuid[16],
			  struct cairn_error *reterr)
{
	struct flash_rest_opts opts = rest_opts(env);

	return flash_rest_identify(&opts, ret_uuid, reterr);
}

const struct cairn_stage_ops cairn_stage_flash = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "flash",
	.summary = "a log in one file or block device, written and read as flash likes it",
	.flags = CAIRN_STAGE_TIER | CAIRN_STAGE_PERSISTS,
	.option_count = OPT_COUNT,
	.counter_count = CNT_COUNT,
	.options = options,
	.counters = counters,
	.instance_bytes = sizeof(struct flash),
	.io_bytes = sizeof(struct fio),
	.io_zeroed = FIO_ZEROED,
	.open = flash_open,
	.close = flash_close,
	.submit = flash_submit,
	.resume = flash_resume,
	.bind = flash_bind,
	.clear = flash_clear,
	.lookup = flash_lookup,
	.unhold = flash_unhold,
	.stat = flash_stat,
	.list = flash_list,
	.check = flash_check,
	.identify = flash_identify,
	.shards = flash_shards,
	.repair = flash_repair,
	.inspect = flash_inspect,
};
