/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What processes that were killed have left: regions of this user that nobody has open and none
 * said to keep. Whoever opens one anew makes it anew, so they are memory that nobody gets back;
 * of stores that come and go under other names each time, more and more.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "stages/cache/region.h"

/* Never a file of another user's, nor one that is no region: these are not even opened. */
static bool may_be(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_nlink > 0 && st->st_uid == geteuid() &&
	       (st->st_mode & 077) == 0;
}

/* Under the lock of who makes, joins or leaves it: nobody does meanwhile. */
static bool left_behind(const struct region *dead)
{
	struct cache_header header = {0};
	struct stat st;
	bool ours;

	if (dead->sys->fstat(dead->fd, &st) < 0 || !may_be(&st) ||
	    (st.st_size > 0 && sys_pread_full(dead->sys, dead->fd, &header, sizeof(header), 0) < 0))
		return false;
	ours = header.magic == CACHE_MAGIC && header.version == CACHE_VERSION;
	/* Whoever was making it has died; else it is sound: what is not is for a person to see. */
	if (header.ready == 0 ? header.magic != 0 && !ours
			      : !ours || header.kept != 0 || header.crc != layout_crc(&header))
		return false;
	return !region_used(dead);
}

struct sweep {
	const struct sys *sys;
	int dir;
	char prefix[40], own[REGION_NAME_MAX + 40];
	uint32_t gone;
};

static int sweep_one(void *context, const char *file)
{
	struct sweep *sweep = context;
	const struct sys *sys = sweep->sys;
	struct region dead = {.sys = sys};
	struct stat st;

	if (strncmp(file, sweep->prefix, strlen(sweep->prefix)) != 0 ||
	    strcmp(file, sweep->own + 1) == 0 ||
	    snprintf(dead.name, sizeof(dead.name), "/%s", file) >= (int)sizeof(dead.name) ||
	    sys->fstatat(sweep->dir, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !may_be(&st))
		return 0;
	dead.fd = sys->shm_open(dead.name, O_RDWR | O_NONBLOCK, 0);
	if (dead.fd < 0)
		return 0;
	/* Those in use are not kept from others by a lock, be it for a moment. */
	if (!region_used(&dead) && sys->byte_lock(dead.fd, CACHE_LOCK_CREATE, false) == 0) {
		sweep->gone += left_behind(&dead) && sys->shm_unlink(dead.name) == 0;
		/* A child that was forked meanwhile has the description, too. */
		sys->byte_unlock(dead.fd, CACHE_LOCK_CREATE);
	}
	sys->close(dead.fd);
	return 0;
}

uint32_t region_sweep(const struct sys *sys, const char *but)
{
	struct sweep sweep = {.sys = sys, .own = "/"};

	sweep.dir = sys_open_dir(sys, AT_FDCWD, SHM_FOLDER);
	if (sweep.dir < 0)
		return 0;
	snprintf(sweep.prefix, sizeof(sweep.prefix), "cairn-cache-%u-", geteuid());
	if (but)
		region_file_name(but, sweep.own);
	sys_walk_dir(sys, sweep.dir, sweep_one, &sweep);
	sys->close(sweep.dir);
	return sweep.gone;
}
