/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared=yes: what dead writers have left. Everything is looked through at open;
 * while the store runs, its dumps each sweep a directory when one is due, so that
 * all have been swept within partial_ttl where there are dumps enough, and what is
 * left over never lives longer than two of them.
 *
 * The age is by the file system's clock, since hosts' clocks differ. One sweep
 * runs at a time (posix.sweeping).
 */
#include "stages/posix/tier.h"

#include <stdio.h>

struct sweep {
	struct posix *tier;
	int fd;
	char dir[NAME_DIR_LENGTH + 1];
	uint64_t now_ns; /* by the file system's clock */
};

static bool cleared(struct posix *tier, const struct block_id *id)
{
	struct space *space;
	bool dead;

	tier_lock(tier);
	space = tier_space(tier, id->space);
	dead = space && space->readable && id->generation < space->generation;
	tier_unlock(tier);
	return dead;
}

static int sweep_named(void *context, const char *name)
{
	struct sweep *sweep = context;
	struct posix *tier = sweep->tier;
	struct block_id id;
	enum name_kind kind = name_parse_block(name, &id);
	char path[NAME_MAX_BYTES];
	struct stat st;
	int rc;

	if (kind == NAME_OTHER)
		return 0;
	tier_lock(tier);
	space_burn(tier, id.space);
	tier_unlock(tier);
	if (kind == NAME_BLOCK) {
		if (cleared(tier, &id) && tier->sys->unlinkat(sweep->fd, name, 0) == 0)
			cairn_count(tier->env, CNT_SWEPT, 1);
		return 0;
	}
	if (tier->sys->fstatat(sweep->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    stat_mtime_ns(&st) + tier->partial_ttl_ns > sweep->now_ns)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", sweep->dir, name);
	rc = kind == NAME_PART ? part_unlink(tier, path) : tier->sys->unlinkat(sweep->fd, name, 0);
	if (rc == 0)
		cairn_count(tier->env, CNT_SWEPT, 1);
	return 0;
}

static int sweep_dir(void *context, const char *name)
{
	struct sweep *sweep = context;
	uint32_t number;

	if (!name_parse_dir(name, sweep->tier->dirs_log2, &number))
		return 0;
	name_dir(number, sweep->dir);
	sweep->fd = sys_open_dir(sweep->tier->sys, sweep->tier->blocks_fd, name);
	if (sweep->fd < 0)
		return 0;
	sys_walk_dir(sweep->tier->sys, sweep->fd, sweep_named, sweep);
	sweep->tier->sys->close(sweep->fd);
	return 0;
}

/* A file is made to see what time the file system thinks it is. */
static uint64_t file_system_now(struct posix *tier)
{
	char name[32];
	struct stat st;
	uint64_t now_ns = 0;
	int fd;

	snprintf(name, sizeof(name), "store.t%08x", tier->writer);
	fd = tier_open_temp(tier->sys, tier->dir_fd, name);
	if (fd < 0)
		return 0;
	if (tier->sys->fstat(fd, &st) == 0)
		now_ns = stat_mtime_ns(&st);
	tier->sys->close(fd);
	tier->sys->unlinkat(tier->dir_fd, name, 0);
	return now_ns;
}

void sweep_all(struct posix *tier)
{
	struct sweep sweep = {.tier = tier, .now_ns = file_system_now(tier)};
	int fd;

	if (!sweep.now_ns)
		return;
	fd = sys_open_dir(tier->sys, tier->blocks_fd, ".");
	if (fd < 0)
		return;
	sys_walk_dir(tier->sys, fd, sweep_dir, &sweep);
	tier->sys->close(fd);
}

/* ---- while the store runs ------------------------------------------------------------ */

bool sweep_due(struct posix *tier)
{
	uint64_t now_ns = tier->sys->now_ns();
	bool due;

	tier_lock(tier);
	due = !tier->sweeping && now_ns >= tier->sweep_at_ns;
	if (due) {
		tier->sweeping = true;
		tier->sweep_at_ns = now_ns + (tier->partial_ttl_ns >> tier->dirs_log2);
	}
	tier_unlock(tier);
	return due;
}

void sweep_next(struct posix *tier)
{
	struct sweep sweep = {.tier = tier, .now_ns = file_system_now(tier)};
	char name[NAME_DIR_LENGTH + 1];
	uint32_t dir;

	tier_lock(tier);
	assert(tier->sweeping);
	dir = tier->sweep_next;
	tier->sweep_next = (dir + 1) & ((1u << tier->dirs_log2) - 1);
	tier_unlock(tier);
	name_dir(dir, name);
	if (sweep.now_ns)
		sweep_dir(&sweep, name);
	tier_lock(tier);
	tier->sweeping = false;
	tier_unlock(tier);
}
