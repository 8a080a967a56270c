/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What processes that were killed have left: regions of this user that nobody has open and none
 * said to keep. Whoever opens one anew makes it anew, so they are memory that nobody gets back;
 * of stores that come and go under other names each time, more and more.
 */
#include <dirent.h>
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

static bool sweep_one(const struct sys *sys, int dir, const char *file)
{
	struct region dead = {.sys = sys};
	bool gone = false;
	struct stat st;

	if (snprintf(dead.name, sizeof(dead.name), "/%s", file) >= (int)sizeof(dead.name) ||
	    sys->fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !may_be(&st))
		return false;
	dead.fd = sys->shm_open(dead.name, O_RDWR | O_NONBLOCK, 0);
	if (dead.fd < 0)
		return false;
	/* Those in use are not kept from others by a lock, be it for a moment. */
	if (!region_used(&dead) && sys->byte_lock(dead.fd, CACHE_LOCK_CREATE, false) == 0) {
		gone = left_behind(&dead) && sys->shm_unlink(dead.name) == 0;
		/* A child that was forked meanwhile has the description, too. */
		sys->byte_unlock(dead.fd, CACHE_LOCK_CREATE);
	}
	sys->close(dead.fd);
	return gone;
}

uint32_t region_sweep(const struct sys *sys, const char *but)
{
	char buffer[4096] __attribute__((aligned(8)));
	int dir = sys->openat(AT_FDCWD, SHM_FOLDER, O_RDONLY | O_DIRECTORY, 0);
	char prefix[40], own[REGION_NAME_MAX + 40] = "/";
	uint32_t gone = 0;
	ssize_t bytes;

	if (dir < 0)
		return 0;
	snprintf(prefix, sizeof(prefix), "cairn-cache-%u-", geteuid());
	if (but)
		region_file_name(but, own);
	while ((bytes = sys->getdents(dir, buffer, sizeof(buffer))) > 0)
		for (ssize_t at = 0; at < bytes;) {
			const struct dirent64 *entry = (const void *)(buffer + at);

			if (entry->d_reclen == 0)
				break;
			at += entry->d_reclen;
			if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
			    strcmp(entry->d_name, own + 1) != 0)
				gone += sweep_one(sys, dir, entry->d_name);
		}
	sys->close(dir);
	return gone;
}
