/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "stages/cache/pins.h"
#include "stages/cache/recover.h"
#include "stages/cache/region.h"
#include "stages/cache/slots.h"
#include "stages/error.h"

#define POLL_NS	    1000000u
#define ALIVE_NS    20000000u /* clients are looked at so often at most */
#define WORDS_BYTES (CACHE_WORDS_FAR * sizeof(uint64_t))

static uint64_t mib(uint64_t bytes)
{
	return bytes >> 20;
}

/* ---- locks --------------------------------------------------------------------- */

int region_lock(struct region *region, int64_t byte, uint64_t wait_ns)
{
	uint64_t until_ns = region->sys->now_ns() + wait_ns;
	int ret;

	while ((ret = region->sys->byte_lock(region->fd, byte, false)) == -EAGAIN &&
	       region->sys->now_ns() < until_ns)
		region->sys->sleep_ns(POLL_NS);
	return ret == -EAGAIN ? -EBUSY : ret;
}

void region_unlock(struct region *region, int64_t byte)
{
	region->sys->byte_unlock(region->fd, byte);
}

uint32_t region_clients(const struct region *region, bool living)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < CACHE_CLIENTS_MAX; i++)
		count += half_get(&region->map.clients[i].state) == CLIENT_LIVE &&
			 (!living || i == region->map.client ||
			  region->sys->bytes_locked(region->fd, CACHE_LOCK_CLIENT + i, 1) != 0);
	return count;
}

/* What cannot be known is taken for used. */
bool region_used(const struct region *region)
{
	return region->sys->bytes_locked(region->fd, CACHE_LOCK_CLIENT, CACHE_CLIENTS_MAX) != 0;
}

/* ---- the header ------------------------------------------------------------------ */

struct room {
	uint64_t all, left; /* bytes */
};

static int look_for_room(const struct region *region, struct room *ret_room)
{
	struct statvfs fs = {0};
	int ret = region->sys->fstatvfs(region->fd, &fs);

	*ret_room = (struct room){(uint64_t)fs.f_blocks * fs.f_frsize,
				  (uint64_t)fs.f_bavail * fs.f_frsize};
	return ret;
}

static int no_room(struct region *region, uint64_t needed, struct cairn_error *reterr)
{
	struct room room;

	look_for_room(region, &room);
	return stage_error(
		reterr, -ENOSPC,
		"%s: size= needs %llu MiB of shared memory, and /dev/shm has %llu MiB free; "
		"a smaller size=, or a larger /dev/shm (docker run --shm-size)",
		region->env->name, (unsigned long long)mib(needed + (1u << 20) - 1),
		(unsigned long long)mib(room.left));
}

/*
 * What a process had that was killed just now comes back when the kernel has ended its rings:
 * ROOM_LATER, that is to be waited for, but not with the lock.
 */
#define ROOM_LATER 1
static int want_room(struct region *region, uint64_t needed)
{
	struct room room;
	int ret = look_for_room(region, &room);

	if (ret < 0 || room.left >= needed)
		return ret;
	return room.all >= needed && region->sys->now_ns() < region->room_by_ns ? ROOM_LATER
										: -ENOSPC;
}

static int region_map(struct region *region, uint64_t bytes, struct cairn_error *reterr)
{
	const struct sys *sys = region->sys;
	int ret = sys_map_huge(sys, bytes, PROT_READ | PROT_WRITE, region->fd, &region->base);

	if (ret == 0) {
		region->bytes = bytes;
		ret = sys_map_huge(sys, bytes, PROT_READ, region->fd, &region->lent);
	}
	if (ret < 0)
		return stage_error(
			reterr, ret, "%s: %llu MiB of shared memory cannot be mapped: %s",
			region->env->name, (unsigned long long)mib(bytes), strerror(-ret));
	return 0;
}

static int plan(struct region *region, const struct region_opts *opts,
		struct cache_header *ret_header, struct cairn_error *reterr)
{
	struct cache_header header = {
		.magic = CACHE_MAGIC,
		.version = CACHE_VERSION,
		.size = opts->size,
		.entries = opts->entries,
		.uid = (uint32_t)geteuid(),
		.below_known = opts->below_known,
		.tails = opts->tails,
		.policy = opts->policy,
	};

	header.pins_max = opts->entries < CACHE_PINS_MIN   ? CACHE_PINS_MIN
			  : opts->entries < CACHE_PINS_MAX ? opts->entries
							   : CACHE_PINS_MAX;
	memcpy(header.below, opts->below, sizeof(header.below));
	if (!layout_plan(&header))
		return stage_error(
			reterr, -EINVAL,
			"%s: size= has no room for a chunk of 1 MiB beside its tables for %u "
			"entries; a larger size=, or fewer entries=",
			region->env->name, opts->entries);
	*ret_header = header;
	return 0;
}

/* The file is empty, and this process has the lock to make it. Or ROOM_LATER. */
static int region_make(struct region *region, const struct region_opts *opts,
		       struct cairn_error *reterr)
{
	const struct sys *sys = region->sys;
	struct cache_header header;
	int ret = plan(region, opts, &header, reterr);

	if (ret < 0)
		return ret;
	ret = sys->random(&header.seed, sizeof(header.seed));
	if (ret == 0)
		ret = sys->random(header.uuid, sizeof(header.uuid));
	if (ret == 0)
		ret = sys->ftruncate(region->fd, 0);
	if (ret == 0)
		ret = want_room(region, header.size);
	if (ret == 0)
		ret = sys->ftruncate(region->fd, (off_t)header.file_bytes);
	/* Tables have their memory before anybody touches them: no SIGBUS later. */
	if (ret == 0)
		ret = sys->fallocate(region->fd, 0, 0, (off_t)header.pins_at);
	if (ret == -ENOSPC)
		return no_room(region, header.size, reterr);
	if (ret == ROOM_LATER)
		return ret;
	if (ret < 0)
		return stage_error(reterr, ret, "%s: shared memory cannot be made: %s",
				   region->env->name, strerror(-ret));
	ret = region_map(region, header.file_bytes, reterr);
	if (ret < 0)
		return ret;
	header.spare = header.size - header.descs_at - (uint64_t)header.chunks * header.chunk_bytes;
	header.crc = layout_crc(&header);
	memcpy(region->base, &header, sizeof(header));
	half_put(&((struct cache_header *)region->base)->ready, 1);
	region->tails = header.tails;
	return 0;
}

/* ---- joining ------------------------------------------------------------------------ */

static int refuse(struct region *region, const struct cache_header *header,
		  const struct region_opts *opts, bool alone, struct cairn_error *reterr)
{
	const char *name = region->env->name;
	const char *why = alone ? "which is kept" : "which others have open";
	char also[REGION_NAME_MAX + 80] = "";

	if (alone)
		snprintf(also, sizeof(also), ", or remove /dev/shm%s", region->name);

	if (header->magic != CACHE_MAGIC || header->version != CACHE_VERSION)
		return stage_error(
			reterr, -EPROTO,
			"%s: the region %s is of another version of cairn; name= another", name,
			region->name);
	if (header->crc != layout_crc(header))
		return stage_error(
			reterr, -EPROTO,
			"%s: the header of the region %s is damaged; remove /dev/shm%s, or "
			"name= another",
			name, region->name, region->name);
	if (header->uid != (uint32_t)geteuid())
		return stage_error(reterr, -EACCES,
				   "%s: the region %s is of user %u; name= another", name,
				   region->name, header->uid);
	if (header->size != opts->size || header->entries != opts->entries)
		return stage_error(
			reterr, -EINVAL,
			"%s: the region %s, %s, was made with size=%lluMiB, entries=%u; take "
			"these, or name= another%s",
			name, region->name, why, (unsigned long long)mib(header->size),
			header->entries, also);
	if (header->policy != opts->policy)
		return stage_error(
			reterr, -EINVAL,
			"%s: the region %s, %s, was made with another policy=; take that, or name= "
			"another%s",
			name, region->name, why, also);
	if (opts->tails && !header->tails)
		return stage_error(
			reterr, -EINVAL,
			"%s: the region %s, %s, was made without the sums that keep=yes and "
			"verify=hit need; open all with one of them, or name= another%s",
			name, region->name, why, also);
	if (header->below_known != (uint32_t)opts->below_known ||
	    memcmp(header->below, opts->below, sizeof(header->below)) != 0)
		return stage_error(
			reterr, -EINVAL,
			"%s: the region %s, %s, lies over another store; name= another%s", name,
			region->name, why, also);
	return 0;
}

/* Does it say where all lies as one that was made so has it? Else its CRC is somebody's own. */
static bool planned_so(struct region *region, const struct region_opts *opts,
		       const struct cache_header *header)
{
	struct cache_header planned;

	if (plan(region, opts, &planned, NULL) < 0)
		return false;
	planned.tails = header->tails;
	planned.seed = header->seed;
	memcpy(planned.uuid, header->uuid, sizeof(planned.uuid));
	return memcmp(&planned, header, offsetof(struct cache_header, crc)) == 0;
}

static int region_join(struct region *region, const struct region_opts *opts, const struct stat *st,
		       bool alone, struct cairn_error *reterr)
{
	struct cache_header header;
	int ret = sys_pread_full(region->sys, region->fd, &header, sizeof(header), 0);

	if (ret == 0)
		ret = refuse(region, &header, opts, alone, reterr);
	else
		ret = stage_error(reterr, -EPROTO, "%s: the region %s is damaged; name= another",
				  region->env->name, region->name);
	if (ret < 0)
		return ret;
	if ((uint64_t)st->st_size != header.file_bytes || !planned_so(region, opts, &header))
		return stage_error(reterr, -EPROTO, "%s: the region %s is damaged; name= another",
				   region->env->name, region->name);
	region->tails = header.tails;
	return region_map(region, header.file_bytes, reterr);
}

/* A made region that nobody has open: is it to be taken as it is? */
static bool is_made(struct region *region)
{
	uint32_t ready = 0;

	return sys_pread_full(region->sys, region->fd, &ready, sizeof(ready),
			      offsetof(struct cache_header, ready)) == 0 &&
	       ready == 1;
}

static int back_words(void *context, uint32_t chunk);

static int become(struct region *region, uint32_t client, struct cairn_error *reterr)
{
	struct cache_map *map = &region->map;
	uint64_t bytes = map->pins_max * sizeof(uint64_t);
	uint64_t at = map->header->pins_at + client * bytes;
	struct room room;
	int ret = region->sys->fallocate(region->fd, 0, (off_t)at, (off_t)bytes);

	if (ret < 0) {
		look_for_room(region, &room);
		return stage_error(
			reterr, -ENOSPC,
			"%s: a process more in the region %s needs %llu KiB of shared memory, and "
			"/dev/shm has %llu KiB free; room in it, or a larger one (docker run "
			"--shm-size)",
			region->env->name, region->name, (unsigned long long)bytes >> 10,
			(unsigned long long)room.left >> 10);
	}
	map->client = client;
	map->owner = client + 1;
	map->my_pins = map->pins + (uint64_t)client * map->pins_max;
	half_put(&map->clients[client].pins_used, 0);
	half_put(&map->clients[client].flights, 0);
	half_put(&map->clients[client].pid, (uint32_t)getpid());
	half_put(&map->clients[client].state, CLIENT_LIVE);
	return 0;
}

/*
 * This process is client N from now on: a free one, or, where there is none, one that
 * is dead, and is cleaned up after by this process as one more client.
 */
static int claim_client(struct region *region, struct cairn_error *reterr)
{
	struct cache_map *map = &region->map;

	for (uint32_t dead = 0; dead < 2; dead++)
		for (uint32_t i = 0; i < CACHE_CLIENTS_MAX; i++) {
			bool was_free = half_get(&map->clients[i].state) == CLIENT_FREE;

			if (was_free == (dead == 1) ||
			    region->sys->byte_lock(region->fd, CACHE_LOCK_CLIENT + i, false) < 0)
				continue;
			map->client = CACHE_CLIENTS_MAX;
			map->owner = i + 1; /* what it leaves half done is found again */
			if (!was_free)
				recover_client(map, i, NULL);
			return become(region, i, reterr);
		}
	return stage_error(reterr, -EBUSY,
			   "%s: %u processes have the region %s open, and no more can",
			   region->env->name, CACHE_CLIENTS_MAX, region->name);
}

static int region_enter(struct region *region, struct cairn_error *reterr)
{
	struct cache_map *map = &region->map;
	int ret;

	map_init(map, region->base, region->lent);
	map->back_words = back_words;
	map->context = region;
	map->pin_next = region->sys->alloc(64, map->pins_max * sizeof(uint32_t));
	if (!map->pin_next)
		return stage_error(reterr, -ENOMEM, "%s: no memory", region->env->name);
	ret = claim_client(region, reterr);
	if (ret < 0)
		return ret;
	map->random = region->sys->now_ns() ^ (uint64_t)map->client << 56;
	map->entry_cursor = map->random % map->entry_count;
	pins_init(map);
	region_recover(region);
	return 0;
}

/*
 * Of nobody else: it has no name from the start, so nothing is left of it whenever this process
 * dies. Where there are no such files it loses its name at once.
 */
static int open_private(struct region *region)
{
	const struct sys *sys = region->sys;
	int ret = sys->openat(AT_FDCWD, SHM_FOLDER, O_RDWR | O_TMPFILE | O_EXCL, 0600);

	if (ret != -EOPNOTSUPP && ret != -EISDIR && ret != -EINVAL)
		return ret;
	ret = sys->shm_open(region->name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (ret >= 0)
		sys->shm_unlink(region->name);
	return ret;
}

/* The file, locked for making it; -EAGAIN: it was taken away meanwhile. */
static int open_file(struct region *region, const struct region_opts *opts, struct stat *ret_st,
		     struct cairn_error *reterr)
{
	const struct sys *sys = region->sys;
	int ret = opts->name ? sys->shm_open(region->name, O_RDWR | O_CREAT, 0600)
			     : open_private(region);

	if (ret < 0)
		return stage_error(reterr, ret, "%s: /dev/shm%s cannot be opened: %s",
				   region->env->name, region->name, strerror(-ret));
	region->fd = ret;
	ret = region_lock(region, CACHE_LOCK_CREATE, opts->wait_ns);
	if (ret == 0)
		ret = sys->fstat(region->fd, ret_st);
	if (ret < 0)
		return stage_error(reterr, ret, "%s: the region %s cannot be locked: %s",
				   region->env->name, region->name, strerror(-ret));
	if (opts->name && ret_st->st_nlink == 0) {
		sys->close(region->fd);
		region->fd = -1;
		return -EAGAIN;
	}
	if (ret_st->st_uid != geteuid() || (ret_st->st_mode & 077) != 0)
		return stage_error(reterr, -EACCES,
				   "%s: /dev/shm%s is not this user's alone; name= another",
				   region->env->name, region->name);
	return 0;
}

static int make_or_join(struct region *region, const struct region_opts *opts,
			const struct stat *st, struct cairn_error *reterr)
{
	bool made = st->st_size > 0 && is_made(region);
	bool alone = !region_used(region);
	struct cache_header *header;
	int ret;

	/* Left behind by processes that were killed, and not to be kept. */
	if (!made || (alone && !opts->keep)) {
		region->ours = true;
		return region_make(region, opts, reterr);
	}
	ret = region_join(region, opts, st, alone, reterr);
	if (ret < 0)
		return ret;
	region->ours = true;
	/* Who knows what became of it meanwhile: all that is in it is to be checked. */
	header = region->base;
	if (alone)
		half_add(&header->adoptions, 1);
	region->adoptions = half_get(&header->adoptions);
	return 0;
}

void region_file_name(const char *name, char ret_path[REGION_NAME_MAX + 40])
{
	snprintf(ret_path, REGION_NAME_MAX + 40, "/cairn-cache-%u-%s", geteuid(), name);
}

static void name_it(struct region *region, const struct region_opts *opts)
{
	uint8_t random[8] = {0};

	if (opts->name) {
		region_file_name(opts->name, region->name);
		return;
	}
	region->sys->random(random, sizeof(random));
	snprintf(region->name, sizeof(region->name), "/cairn-cache-%u-private-%d-%02x%02x%02x%02x",
		 geteuid(), getpid(), random[0], random[1], random[2], random[3]);
}

/* Locked, made or joined; -EAGAIN: once more, with nothing open. */
static int file_ready(struct region *region, const struct region_opts *opts,
		      struct cairn_error *reterr)
{
	struct stat st = {0};
	int ret = open_file(region, opts, &st, reterr);

	if (ret == 0) {
		ret = make_or_join(region, opts, &st, reterr);
		if (ret != ROOM_LATER)
			return ret;
		ret = -EAGAIN;
		region->ours = false;
		region_unlock(region, CACHE_LOCK_CREATE);
		region->sys->close(region->fd);
		region->fd = -1;
		region->sys->sleep_ns(POLL_NS);
	}
	return ret;
}

int region_open(struct region *region, const struct cairn_stage_env *env,
		const struct region_opts *opts, struct cairn_error *reterr)
{
	int ret;

	region->env = env;
	region->sys = stage_env(env)->sys;
	region->fd = -1;
	region->huge = opts->huge;
	region->keep = opts->keep && opts->name;
	name_it(region, opts);
	region->swept = region_sweep(region->sys, opts->name);
	region->room_by_ns = region->sys->now_ns() + opts->wait_ns;
	while ((ret = file_ready(region, opts, reterr)) == -EAGAIN)
		;
	if (ret == 0)
		ret = region_enter(region, reterr);
	if (ret == 0 && region->keep)
		half_put(&region->map.header->kept, 1);
	if (region->fd >= 0)
		region_unlock(region, CACHE_LOCK_CREATE);
	if (ret == 0)
		ret = stage_env(env)->guard(env, region->fd);
	if (ret == 0) {
		stage_env(env)->fork_close(env, region->fd, false);
		if (region->huge)
			sys_advise_huge(region->sys, region->map.payload,
					region->map.chunk_count * region->map.chunk_bytes);
		return 0;
	}
	region_close(region);
	return ret;
}

static void punch(struct region *region, uint64_t at, uint64_t bytes)
{
	region->sys->fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			       (off_t)bytes);
}

static void leave(struct region *region)
{
	struct cache_map *map = &region->map;

	/* Nothing is under way: what is left is what somebody forgot to unpin. */
	for (uint32_t i = 0; i < map->pins_max; i++)
		if (word_hint(&map->my_pins[i]))
			pin_clear(&map->my_pins[i]);
	half_put(&map->clients[map->client].pins_used, 0);
	half_put(&map->clients[map->client].state, CLIENT_FREE);
}

/* Else somebody has taken it away, and what has its name by now is another's. */
static bool has_name(const struct region *region)
{
	struct stat st;

	return region->sys->fstat(region->fd, &st) == 0 && st.st_nlink > 0;
}

/*
 * The last one of it takes the file away, unless it is to be kept: and its memory at once, for
 * the kernel goes on having the file while it takes rings apart, and the next one wants as much.
 * Nobody's I/O is under way in it, of the dead neither. Those who wait to join are sent on when
 * the memory is there. It is not cut short: a child that was forked may have it mapped.
 */
static void take_away(struct region *region)
{
	if (!region->ours || region->keep || region_used(region))
		return;
	punch(region, 0, region->bytes);
	if (has_name(region))
		region->sys->shm_unlink(region->name);
}

void region_close(struct region *region)
{
	const struct sys *sys = region->sys;
	bool locked = false;

	if (region->fd >= 0)
		locked = region_lock(region, CACHE_LOCK_CREATE, 1000u * POLL_NS) == 0;
	if (region->map.my_pins)
		leave(region);
	if (region->map.my_pins)
		region_unlock(region, CACHE_LOCK_CLIENT + region->map.client);
	if (region->lent)
		sys->munmap(region->lent, region->bytes);
	if (region->base)
		sys->munmap(region->base, region->bytes);
	if (locked)
		take_away(region);
	/* A child that was forked meanwhile may have the description for long. */
	if (locked)
		region_unlock(region, CACHE_LOCK_CREATE);
	if (region->map.pin_next)
		sys->free(region->map.pin_next);
	if (region->fd >= 0) {
		stage_env(region->env)->fork_close(region->env, region->fd, true);
		sys->close(region->fd); /* and its locks, when all rings have let go of it */
	}
	memset(region, 0, sizeof(*region));
	region->fd = -1;
}

/* ---- memory ------------------------------------------------------------------------- */

/* As it was when the header was checked: what is there by now is not trusted. */
static uint64_t payload_at(const struct region *region)
{
	return (uint64_t)(region->map.payload - (uint8_t *)region->base);
}

/* Is what begins at @at one huge page now? What cannot be is left as it is. */
static bool make_huge(struct region *region, uint64_t at)
{
	int ret = region->sys->fallocate(region->fd, 0, (off_t)at, CACHE_PAGE);

	if (ret == 0)
		ret = sys_collapse(region->sys, (uint8_t *)region->base + at);
	if (ret == -EINVAL)
		mark_set(&region->no_huge); /* nor will others be */
	return ret == 0;
}

bool region_is_huge(const struct region *region)
{
	return region->huge && !mark_get(&region->no_huge);
}

bool region_huge_pending(const struct region *region)
{
	/* What follows the tables has memory only as far as it is used. */
	uint64_t tables = (uint64_t)((uint8_t *)region->map.pins - (uint8_t *)region->base);

	return region_is_huge(region) && region->tables_huge + SYS_HUGE_BYTES <= tables;
}

void region_huge_tables(struct region *region)
{
	if (!region_huge_pending(region))
		return;
	make_huge(region, region->tables_huge);
	region->tables_huge += SYS_HUGE_BYTES;
}

/*
 * Huge pages first, where they can be had: the kernel clears them five times as fast as small
 * ones, and who reads them looks up fewer. Then whatever is not there yet.
 */
void region_back(struct region *region, uint32_t chunk)
{
	const struct sys *sys = region->sys;
	struct cache_map *map = &region->map;
	uint64_t at = payload_at(region) + chunk * map->chunk_bytes, done = 0;
	int ret;

	if (!chunk_back_begin(map, chunk))
		return;
	while (region_is_huge(region) && done + SYS_HUGE_BYTES <= map->chunk_bytes &&
	       make_huge(region, at + done))
		done += SYS_HUGE_BYTES;
	ret = sys->fallocate(region->fd, 0, (off_t)at, (off_t)map->chunk_bytes);
	/* The kernel clears pages as they are touched: here, and not on somebody's way. */
	if (ret == 0)
		sys->madvise((uint8_t *)region->base + at, map->chunk_bytes, MADV_POPULATE_WRITE);
	else
		punch(region, at, map->chunk_bytes); /* of which some may have come */
	chunk_back_end(map, chunk, ret == 0);
}

/* A chunk's memory, to the budget and to the system. False: no chunk is free. */
static bool give_up_chunk(struct region *region)
{
	struct cache_map *map = &region->map;
	uint32_t chunk = chunk_give_up(map);

	if (chunk == CACHE_NONE)
		return false;
	punch(region, payload_at(region) + chunk * map->chunk_bytes, map->chunk_bytes);
	word_add(&map->header->spare, map->chunk_bytes);
	return true;
}

/* Bytes of the budget for far words; a chunk is given up for them where there are none left. */
static bool take_spare(struct region *region)
{
	uint64_t *word = &region->map.header->spare;

	for (;;) {
		uint64_t spare = word_get(word);

		if (spare < WORDS_BYTES) {
			if (!give_up_chunk(region))
				return false;
		} else if (word_cas(word, spare, spare - WORDS_BYTES)) {
			return true;
		}
	}
}

static int back_words(void *context, uint32_t chunk)
{
	struct region *region = context;
	struct cache_header *header = region->map.header;
	uint64_t at = (uint64_t)((uint8_t *)region->map.words - (uint8_t *)region->base) +
		      chunk * (uint64_t)WORDS_BYTES;
	int ret;

	if (!take_spare(region))
		return -ENOSPC;
	ret = region->sys->fallocate(region->fd, 0, (off_t)at, WORDS_BYTES);
	/* The budget has them and /dev/shm, full by now, has not: but for a chunk of ours. */
	if (ret < 0 && give_up_chunk(region)) {
		half_add(&header->unbacked, 1);
		ret = region->sys->fallocate(region->fd, 0, (off_t)at, WORDS_BYTES);
	}
	if (ret < 0)
		word_add(&header->spare, WORDS_BYTES);
	return ret < 0 ? -ENOSPC : 0;
}

/* ---- the dead --------------------------------------------------------------------------- */

static bool recover_one(struct region *region, uint32_t client)
{
	struct cache_map *map = &region->map;
	size_t bytes = recover_scratch_bytes(map);
	void *scratch = NULL;

	if (client == map->client || half_get(&map->clients[client].state) == CLIENT_FREE ||
	    region->sys->byte_lock(region->fd, CACHE_LOCK_CLIENT + client, false) < 0)
		return false;
	if (half_get(&map->clients[client].state) != CLIENT_FREE) {
		if (sys_reserve(region->sys, bytes, &scratch) < 0)
			scratch = NULL;
		recover_client(map, client, scratch);
		if (scratch)
			region->sys->munmap(scratch, bytes);
	}
	region_unlock(region, CACHE_LOCK_CLIENT + client);
	return true;
}

uint32_t region_recover(struct region *region)
{
	uint64_t now_ns = region->sys->now_ns(), last_ns = word_hint(&region->checked_ns);
	uint32_t count = 0;

	if (now_ns - last_ns < ALIVE_NS && last_ns != 0)
		return 0;
	/* The lock of the dead one's byte keeps out other processes, but not other threads. */
	if (!flag_raise(&region->recovering))
		return 0;
	word_note(&region->checked_ns, now_ns);
	for (uint32_t i = 0; i < CACHE_CLIENTS_MAX; i++)
		count += recover_one(region, i);
	flag_lower(&region->recovering);
	return count;
}
