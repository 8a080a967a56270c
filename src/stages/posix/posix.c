/* SPDX-License-Identifier: Apache-2.0 */
/* The posix tier's table: open, close, lookups, and where ios go. */
#include "stages/posix/tier.h"

#include <stdio.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

/* Keys looked up under one hold of the mutex. */
#define LOOKUP_BATCH	  128u
/* Less than this holds not even an empty store and a small block. */
#define SIZE_MIN	  "1MiB"
#define ENTRIES_UNBOUNDED (64ull << 20)
#define BUFFER_MIN	  (256u << 10)

static const struct cairn_option options[OPT_COUNT] = {
	[OPT_PATH] = {"path", CAIRN_OPTION_PATH, CAIRN_OPTION_REQUIRED, NULL, NULL, NULL, NULL,
		      "the directory; made if the one above it exists"},
	[OPT_SIZE] = {"size", CAIRN_OPTION_SIZE, 0, NULL, SIZE_MIN, NULL, NULL,
		      "hard budget of all files and directories; none without it"},
	[OPT_MIN_FREE] = {"min_free", CAIRN_OPTION_SIZE, 0, "0", NULL, NULL, NULL,
			  "bytes that stay free on the file system"},
	[OPT_ENTRIES] = {"entries", CAIRN_OPTION_COUNT, 0, NULL, "16", "1G", NULL,
			 "blocks in the index at most; size / 4KiB, or 64M without size"},
	[OPT_DIRECT] = {"direct", CAIRN_OPTION_CHOICE, 0, "auto", NULL, NULL, "auto|yes|no",
			"O_DIRECT: where possible, always, or through the page cache"},
	[OPT_SHARED] = {"shared", CAIRN_OPTION_BOOL, 0, "no", NULL, NULL, NULL,
			"many processes and hosts on one directory"},
	[OPT_OPEN_WAIT] = {"open_wait", CAIRN_OPTION_TIME, 0, "2s", NULL, NULL, NULL,
			   "how long open waits for another owner to end"},
	[OPT_PARTIAL_TTL] = {"partial_ttl", CAIRN_OPTION_TIME, 0, "1h", "1ms", NULL, NULL,
			     "shared=yes: age at which unfinished blocks are swept"},
	[OPT_QUARANTINE] = {"quarantine", CAIRN_OPTION_SIZE, 0, "64MiB", NULL, NULL, NULL,
			    "damaged blocks kept for a look, bytes; a 16th of size at most, and 64 "
			    "files"},
	[OPT_STAGING] = {"staging", CAIRN_OPTION_CHOICE, 0, "auto", NULL, NULL, "auto|yes|no",
			 "copy direct I/O through huge pages; auto: where the disk is a virtual "
			 "one"},
};

static const struct cairn_counter_row counters[CNT_COUNT] = {
	[CNT_LOADS] = {"load_hits", "shards and parts of shards loaded", 0},
	[CNT_LOAD_BYTES] = {"load_bytes", "bytes loaded", 0},
	[CNT_LOAD_MISSES] = {"load_misses", "loads of what was absent", 0},
	[CNT_DUMPS] = {"dumps", "shards written", 0},
	[CNT_DUMP_BYTES] = {"dump_bytes", "bytes of shards written", 0},
	[CNT_DUMPS_PRESENT] = {"dumps_present", "dumps of what was present", 0},
	[CNT_PUBLISHED] = {"published_blocks", "blocks that became whole", 0},
	[CNT_REMOVED] = {"removed_blocks", "blocks removed by a call", 0},
	[CNT_CLEARS] = {"clears", "namespaces cleared", 0},
	[CNT_EVICTED] = {"evicted_blocks", "blocks that went for the budget", 0},
	[CNT_EVICTED_FULL_INDEX] = {"evicted_index_full", "of these: because of entries=", 0},
	[CNT_EVICTED_REUSED] = {"evicted_reused", "of these: whose file took the next block", 0},
	[CNT_EVICT_FAILED] = {"evict_failed", "victims that could not be unlinked", 0},
	[CNT_DAMAGED] = {"damaged_blocks", "blocks that did not check", 0},
	[CNT_QUARANTINED] = {"quarantined_blocks", "of these: kept in quarantine/", 0},
	[CNT_VERSION_UNKNOWN] = {"unknown_format", "of these: of an unknown version or flag", 0},
	[CNT_REFUSED] = {"refused", "dumps without room", 0},
	[CNT_IO_ERRORS] = {"io_errors", "ios that failed in the file system", 0},
	[CNT_PARTIALS_DROPPED] = {"partials_dropped", "unfinished blocks given up", 0},
	[CNT_SWEPT] = {"swept_files", "leftovers unlinked", 0},
	[CNT_BOUNCED_BYTES] = {"bounced_bytes", "bytes copied because of their alignment", 0},
	[CNT_ROOM_WAITS] = {"room_waits", "waits for an eviction or another dump", 0},
	[CNT_BYTES_USED] = {"bytes_used", "st_blocks * 512 of all but blocks being written", 1},
	[CNT_BYTES_LIMIT] = {"bytes_limit", "what bytes_used may come to, bytes", 1},
	[CNT_BLOCKS] = {"blocks", "whole blocks known", 1},
	[CNT_INDEX_BYTES] = {"index_bytes", "memory taken by the index", 1},
};

/* ---- open ------------------------------------------------------------------------------ */

static int posix_check_values(const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	const struct cairn_value *values = env->values;
	const size_t most = sizeof(((struct posix *)0)->path) - 1;

	if (strlen(values[OPT_PATH].s) > most)
		return tier_error(reterr, -EINVAL, "path= has more than %zu bytes", most);
	if (values[OPT_SHARED].u && values[OPT_SIZE].set)
		return tier_error(reterr, -EINVAL,
				  "size= does not go with shared=yes: no process owns the budget; "
				  "leave size= out, or use shared=no");
	return 0;
}

static int options_take(struct posix *tier, struct cairn_error *reterr)
{
	const struct cairn_value *values = tier->env->values;
	uint64_t entries;
	int rc = posix_check_values(tier->env, reterr);

	if (rc < 0)
		return rc;
	snprintf(tier->path, sizeof(tier->path), "%s", values[OPT_PATH].s);
	tier->shared = values[OPT_SHARED].u;
	tier->limit = values[OPT_SIZE].set ? values[OPT_SIZE].u : UINT64_MAX;
	cairn_gauge(tier->env, CNT_BYTES_LIMIT, tier->limit);
	tier->min_free = values[OPT_MIN_FREE].u;
	tier->open_wait_ns = values[OPT_OPEN_WAIT].u;
	tier->partial_ttl_ns = values[OPT_PARTIAL_TTL].u;
	tier->quarantine_max = values[OPT_QUARANTINE].u;
	if (tier->limit != UINT64_MAX && tier->quarantine_max > tier->limit / 16)
		tier->quarantine_max = tier->limit / 16;
	entries = tier->limit == UINT64_MAX ? ENTRIES_UNBOUNDED : tier->limit / FORMAT_PAGE;
	if (values[OPT_ENTRIES].set)
		entries = values[OPT_ENTRIES].u;
	if (entries > ENTRIES_UNBOUNDED * 16)
		entries = ENTRIES_UNBOUNDED * 16;
	tier->entries_max = (uint32_t)entries;
	if (tier->host && tier->host->buffer_max < BUFFER_MIN)
		return tier_error(reterr, -EINVAL,
				  "buffers of %u bytes are needed, the store has %zu", BUFFER_MIN,
				  tier->host->buffer_max);
	return 0;
}

static int index_make(struct posix *tier)
{
	struct index_range huge[INDEX_RANGES];
	uint64_t seed;
	int rc;
	void *memory;

	rc = tier->sys->random(&seed, sizeof(seed));
	if (rc < 0)
		return rc;
	rc = sys_reserve(tier->sys, SPACES_MAX * sizeof(*tier->spaces), &memory);
	if (rc < 0)
		return rc;
	tier->spaces = memory;
	if (tier->shared)
		return 0;
	tier->index_memory_bytes = index_bytes(tier->entries_max);
	rc = sys_reserve(tier->sys, tier->index_memory_bytes, &tier->index_memory);
	if (rc < 0)
		return rc;
	index_init(tier->index_memory, tier->entries_max, seed, &tier->index);
	index_huge_ranges(tier->index, huge);
	for (int i = 0; i < INDEX_RANGES; i++)
		sys_advise_huge(tier->sys, huge[i].start, huge[i].bytes);
	tier->side_bytes = (tier->entries_max + 2ull + SPACES_MAX) * sizeof(*tier->side);
	rc = sys_reserve(tier->sys, tier->side_bytes, &memory);
	if (rc < 0)
		return rc;
	tier->side = memory;
	side_init(tier);
	return partials_init(tier);
}

/* O_DIRECT is possible where it opens and reads. */
static int direct_probe(struct posix *tier, struct cairn_error *reterr)
{
	uint64_t choice = tier->env->values[OPT_DIRECT].u;
	const struct sys *sys = tier->sys;
	struct iovec iov = {NULL, FORMAT_PAGE};
	ssize_t got = -ENOMEM;
	int fd;

	if (choice == DIRECT_NO)
		return 0;
	fd = sys->openat(tier->dir_fd, "store", O_RDONLY | O_DIRECT | O_CLOEXEC, 0);
	iov.iov_base = sys->alloc(FORMAT_PAGE, FORMAT_PAGE);
	if (fd >= 0 && iov.iov_base)
		got = sys->preadv(fd, &iov, 1, 0);
	if (iov.iov_base)
		sys->free(iov.iov_base);
	if (fd >= 0)
		sys->close(fd);
	tier->direct = fd >= 0 && got > 0;
	if (choice == DIRECT_YES && !tier->direct)
		return tier_error(reterr, -EOPNOTSUPP,
				  "direct=yes, but the file system of %s has no O_DIRECT: use "
				  "direct=auto",
				  tier->path);
	return 0;
}

/*
 * A virtual disk is told every segment of a request by its driver, and the host
 * takes it apart again: with small pages it gives a half to a third of what it
 * does with huge ones (bench/README.md). Callers' memory is rarely on huge pages;
 * ours is. A virtio device, or the disk of its partition, has a file "features".
 */
static void staging_choose(struct posix *tier)
{
	static const char *const places[] = {"device/features", "../device/features"};
	uint64_t choice = tier->env->values[OPT_STAGING].u;
	struct stat st;
	char path[96];

	tier->staging = choice == STAGING_YES && tier->direct;
	tier->staged_dump_min = choice == STAGING_YES ? STAGED_MIN : STAGED_DUMP_MIN;
	if (choice != STAGING_AUTO || !tier->direct || tier->sys->fstat(tier->dir_fd, &st) < 0)
		return;
	for (int i = 0; i < 2 && !tier->staging; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(st.st_dev),
			 minor(st.st_dev), places[i]);
		tier->staging = tier->sys->faccessat(AT_FDCWD, path, F_OK, 0) == 0;
	}
}

static void descriptors_tell(struct posix *tier, bool forget)
{
	const int fds[] = {tier->dir_fd, tier->blocks_fd, tier->space_fd, tier->store_fd};
	const struct stage_env *internal = stage_env(tier->env);

	for (int i = 0; i < 4; i++)
		if (fds[i] >= 0 && internal->fork_close)
			internal->fork_close(tier->env, fds[i], forget);
}

static void tier_release(struct posix *tier)
{
	const int fds[] = {tier->blocks_fd, tier->space_fd, tier->store_fd, tier->dir_fd};
	const struct sys *sys = tier->sys;

	if (tier->spaces) {
		spaces_free(sys, tier->spaces, tier->space_end);
		sys->munmap(tier->spaces, SPACES_MAX * sizeof(*tier->spaces));
	}
	if (tier->index_memory)
		sys->munmap(tier->index_memory, tier->index_memory_bytes);
	if (tier->side)
		sys->munmap(tier->side, tier->side_bytes);
	partials_fini(tier);
	for (int i = 0; i < 4; i++) /* the lock last */
		if (fds[i] >= 0)
			sys->close(fds[i]);
	if (tier->mutex_made)
		pthread_mutex_destroy(&tier->mutex);
}

static int open_owned(struct posix *tier, struct cairn_error *reterr)
{
	const struct stage_env *internal = stage_env(tier->env);
	int rc = recover(tier, reterr);

	if (rc < 0)
		return rc;
	internal->sequence_raise(tier->env, tier->super.sequence);
	tier->super.sequence += SEQUENCE_AHEAD;
	tier->sequence_limit = tier->super.sequence;
	tier->super.flags = 0;
	rc = super_write(tier);
	if (rc < 0)
		return tier_error(reterr, rc, "%s/store: %s", tier->path, strerror(-rc));
	return 0;
}

static int open_shared(struct posix *tier, struct cairn_error *reterr)
{
	int rc = 0;

	tier->sequence_limit = UINT64_MAX;
	/* Many counters on one directory: the clock keeps them roughly in order. */
	stage_env(tier->env)->sequence_raise(tier->env, tier->sys->realtime_ns() / 1000);
	if (tier->super.flags != SUPER_SHARED) {
		rc = tier->sys->byte_lock(tier->store_fd, 0, true);
		if (rc == 0)
			rc = super_read(tier->sys, tier->store_fd, &tier->super);
		tier->super.flags = SUPER_SHARED;
		tier->super.owner_pid = 0;
		if (rc == 0)
			rc = super_write(tier);
		tier->sys->byte_unlock(tier->store_fd, 0);
	}
	if (rc < 0)
		return tier_error(reterr, rc, "%s/store: %s", tier->path, strerror(-rc));
	sweep_all(tier);
	return 0;
}

static int open_steps(struct posix *tier, struct cairn_error *reterr)
{
	int rc = options_take(tier, reterr);

	if (rc < 0)
		return rc;
	rc = tier->sys->random(&tier->writer, sizeof(tier->writer));
	if (rc == 0)
		rc = super_open(tier, reterr);
	if (rc < 0)
		return rc;
	rc = index_make(tier);
	if (rc < 0)
		return tier_error(reterr, rc, "entries=%u: address space for the index: %s",
				  tier->entries_max, strerror(-rc));
	rc = spaces_open(tier);
	if (rc < 0)
		return tier_error(reterr, rc, "%s/ns: %s", tier->path, strerror(-rc));
	rc = direct_probe(tier, reterr);
	staging_choose(tier);
	if (rc == 0)
		rc = tier->shared ? open_shared(tier, reterr) : open_owned(tier, reterr);
	return rc;
}

static int posix_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct posix *tier = self;
	const struct stage_env *internal = stage_env(env);
	int rc;

	tier->magic = TIER_MAGIC;
	tier->env = env;
	tier->host = env->host;
	tier->sys = internal->sys;
	tier->dir_fd = tier->blocks_fd = tier->space_fd = tier->store_fd = -1;
	rc = pthread_mutex_init(&tier->mutex, NULL);
	tier->mutex_made = rc == 0;
	rc = rc ? -ENOMEM : open_steps(tier, reterr);
	if (rc == 0 && internal->guard) {
		rc = internal->guard(env, tier->dir_fd);
		if (rc < 0)
			tier_error(reterr, rc, "%s: the lock could not be kept for the ring: %s",
				   tier->path, strerror(-rc));
	}
	if (rc < 0) {
		if (reterr && !reterr->code)
			tier_error(reterr, rc, "%s: %s", tier->path, strerror(-rc));
		tier_release(tier);
		return rc;
	}
	descriptors_tell(tier, false);
	return 0;
}

static void posix_close(void *self)
{
	struct posix *tier = self;

	assert(tier->magic == TIER_MAGIC);
	if (!tier->shared) {
		partials_unlink(tier);
		if (room_settle(tier, 0) == 0 && snapshot_save(tier) == 0) {
			/* If this fails the store is unclean, and read when it opens. */
			tier->super.flags = SUPER_CLEAN;
			tier->super.sequence = stage_env(tier->env)->sequence_now(tier->env) + 1;
			tier->super.owner_pid = 0;
			super_write(tier);
		}
	}
	descriptors_tell(tier, true);
	/* Nothing is in flight, but a ring that held the lock goes in its own time. */
	tier->sys->flock(tier->dir_fd, LOCK_UN);
	tier->magic = 0;
	tier_release(tier);
}

/* ---- ios ---------------------------------------------------------------------------------- */

static void posix_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct posix *tier = self;
	struct pio *p = scratch;

	assert(tier->magic == TIER_MAGIC && p->magic == 0);
	p->magic = PIO_MAGIC;
	p->tier = tier;
	p->io = io;
	pio_wait_init(p);
	p->fd = -1;
	p->partial = INDEX_NONE;
	p->space = io->ns->binding[tier->env->index];
	assert(p->space && io->part_count <= CAIRN_PARTS_MAX);
	p->id.key = io->key;
	p->id.space = p->space->id;
	switch ((enum cairn_op)io->op) {
	case CAIRN_OP_LOAD:
	case CAIRN_OP_DESCRIBE:
		(tier->shared ? shared_load_submit : load_submit)(p);
		return;
	case CAIRN_OP_DUMP:
		(tier->shared ? shared_dump_submit : dump_submit)(p);
		return;
	case CAIRN_OP_REMOVE:
		(tier->shared ? shared_remove_submit : remove_submit)(p);
		return;
	case CAIRN_OP_PREFETCH:
		(tier->shared ? shared_prefetch_submit : prefetch_submit)(p);
		return;
	}
	assert(false); /* an op that this ABI does not have */
}

static void posix_resume(void *self, struct cairn_io *io, void *scratch)
{
	struct pio *p = scratch;

	(void)self;
	assert(p->magic == PIO_MAGIC && p->io == io);
	waiter_resume(&p->wait);
}

/* ---- callers' threads ------------------------------------------------------------------------ */

static int posix_bind(void *self, const struct cairn_ns_view *ns, void **ret_binding,
		      struct cairn_error *reterr)
{
	struct space *space;
	int rc = space_bind(self, ns, &space, reterr);

	if (rc == 0)
		*ret_binding = space;
	return rc;
}

static int posix_clear(void *self, const struct cairn_ns_view *ns, uint32_t durability)
{
	struct posix *tier = self;

	return space_clear(tier, ns->binding[tier->env->index], durability);
}

static bool probe_fill(struct index_entry *entry, uint32_t flags, struct cairn_probe *ret_probe)
{
	bool hold = flags & CAIRN_PROBE_HOLD;

	if (!entry || (entry->flags & ENTRY_REMOVING) || (hold && entry->holds == UINT16_MAX)) {
		*ret_probe = (struct cairn_probe){0};
		return false;
	}
	if (hold)
		entry->holds++;
	*ret_probe = (struct cairn_probe){
		.present = 1,
		.shard_count = entry->shard_count,
		.shard_bytes = entry->shard_bytes,
		.last_bytes = entry->last_bytes,
		.stored_bytes = entry->charge,
		.hold = hold ? 1ull << 32 | entry->tier : 0,
	};
	return true;
}

/* Looks @count <= LOOKUP_BATCH keys up, a chain's until one is missing; returns how many. */
static size_t lookup_batch(struct posix *tier, struct space *space, const struct cairn_key *keys,
			   size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct index_entry *entries[LOOKUP_BATCH];
	bool chain = flags & CAIRN_PROBE_CHAIN, whole = true;
	size_t i;

	tier_lock(tier);
	/* Of a chain no entry behind the first that is missing is looked at. */
	index_find_batch(tier->index, space->id, space->generation, keys, count, chain,
			 flags & CAIRN_PROBE_BEFORE, entries);
	for (i = 0; i < count && (whole || !chain); i++) {
		whole = probe_fill(entries[i], flags, &ret_probes[i]);
		if (whole && chain && entries[i]->parent == INDEX_NONE &&
		    (i || (flags & CAIRN_PROBE_BEFORE)))
			index_set_parent(tier->index, entries[i], keys + i - 1);
	}
	tier_unlock(tier);
	return i;
}

static void posix_lookup(void *self, const struct cairn_ns_view *ns, const struct cairn_key *keys,
			 size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct posix *tier = self;
	struct space *space = ns->binding[tier->env->index];
	size_t at = 0;

	if (tier->shared) {
		shared_lookup(tier, space, keys, count, flags, ret_probes);
		return;
	}
	do {
		size_t some = count - at < LOOKUP_BATCH ? count - at : LOOKUP_BATCH;

		at += lookup_batch(tier, space, keys + at, some, flags, ret_probes + at);
		if (flags & CAIRN_PROBE_CHAIN)
			flags |= CAIRN_PROBE_BEFORE;
	} while (at < count && (!(flags & CAIRN_PROBE_CHAIN) || ret_probes[at - 1].present));
	memset(ret_probes + at, 0, (count - at) * sizeof(*ret_probes));
}

static void posix_unhold(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			 uint64_t hold)
{
	struct posix *tier = self;
	struct space *space = ns->binding[tier->env->index];
	struct index_entry *entry;
	struct block_id id;

	if (!hold || tier->shared)
		return;
	tier_lock(tier);
	id = (struct block_id){*key, space->id, space->generation};
	entry = entry_find(tier, &id);
	if (entry && entry->tier == (uint32_t)hold && entry->holds) {
		entry->holds--;
		if (!entry->holds)
			pio_wake_room(tier);
	}
	tier_unlock(tier);
}

static int posix_shards(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			struct cairn_shards *ret_shards)
{
	struct posix *tier = self;
	struct space *space = ns->binding[tier->env->index];

	if (tier->shared) /* what is unfinished is only in the file: whole blocks alone count */
		return -ENOENT;
	return unfinished_shards(tier, space, key, ret_shards);
}

void tier_gauges(struct posix *tier)
{
	struct index_figures figures = {0};

	index_figures(tier->index, &figures);
	cairn_gauge(tier->env, CNT_BYTES_USED, tier->used);
	cairn_gauge(tier->env, CNT_BLOCKS,
		    figures.whole - (figures.whole < tier->dead_blocks ? figures.whole
								       : tier->dead_blocks));
	cairn_gauge(tier->env, CNT_INDEX_BYTES, figures.memory_bytes);
}

static void posix_stat(void *self, struct cairn_tier_stat *ret_stat)
{
	struct posix *tier = self;
	struct index_figures figures = {0};

	memset(ret_stat, 0, sizeof(*ret_stat));
	memcpy(ret_stat->uuid, tier->super.uuid, sizeof(ret_stat->uuid));
	ret_stat->alignment = tier->direct ? FORMAT_PAGE : 1;
	ret_stat->bytes_limit = tier->limit;
	if (tier->shared)
		return;
	tier_lock(tier);
	index_figures(tier->index, &figures);
	ret_stat->bytes_used = tier->used;
	ret_stat->blocks = figures.whole -
			   (figures.whole < tier->dead_blocks ? figures.whole : tier->dead_blocks);
	tier_gauges(tier);
	tier_unlock(tier);
}

const struct cairn_stage_ops cairn_stage_posix = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "posix",
	.summary = "one file a block in a directory, on any file system",
	.flags = CAIRN_STAGE_TIER | CAIRN_STAGE_PERSISTS,
	.option_count = OPT_COUNT,
	.counter_count = CNT_COUNT,
	.options = options,
	.counters = counters,
	.instance_bytes = sizeof(struct posix),
	.io_bytes = sizeof(struct pio),
	.io_zeroed = PIO_ZEROED,
	.open = posix_open,
	.close = posix_close,
	.submit = posix_submit,
	.resume = posix_resume,
	.bind = posix_bind,
	.clear = posix_clear,
	.lookup = posix_lookup,
	.unhold = posix_unhold,
	.stat = posix_stat,
	.list = atrest_list,
	.check = atrest_check,
	.identify = atrest_identify,
	.check_values = posix_check_values,
	.shards = posix_shards,
};
