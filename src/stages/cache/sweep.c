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

#include "base/crc32c.h"
#include "stages/cache/region.h"

/* Under the lock of who makes, joins or leaves it: nobody does meanwhile. */
static bool left_behind(struct region *dead)
{
	struct cache_header header = {0};
	struct stat st;

	if (dead->sys->fstat(dead->fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink == 0 ||
	    st.st_uid != geteuid())
		return false;
	if (st.st_size > 0 && sys_pread_full(dead->sys, dead->fd, &header, sizeof(header), 0) < 0)
		return false;
	/* Not even made; else of this version, and sound: what is not is for a person to see. */
	if (header.magic != 0 || header.ready != 0) {
		if (header.magic != CACHE_MAGIC || header.version != CACHE_VERSION ||
		    header.crc != crc32c(0, &header, offsetof(struct cache_header, crc)) ||
		    header.kept != 0)
			return false;
	}
	return !region_used(dead);
}

static uint32_t sweep_one(const struct sys *sys, const char *file)
{
	struct region dead = {.sys = sys};
	uint32_t gone = 0;

	if (snprintf(dead.name, sizeof(dead.name), "/%s", file) >= (int)sizeof(dead.name))
		return 0;
	dead.fd = sys->shm_open(dead.name, O_RDWR, 0);
	if (dead.fd < 0)
		return 0;
	if (sys->byte_lock(dead.fd, CACHE_LOCK_CREATE, false) == 0 && left_behind(&dead))
		gone = sys->shm_unlink(dead.name) == 0;
	sys->close(dead.fd);
	return gone;
}

uint32_t region_sweep(const struct sys *sys, const char *but)
{
	char buffer[4096] __attribute__((aligned(8)));
	int dir = sys->openat(AT_FDCWD, SHM_FOLDER, O_RDONLY | O_DIRECTORY, 0);
	char prefix[40], own[REGION_NAME_MAX + 40] = "";
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

			at += entry->d_reclen;
			if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
			    strcmp(entry->d_name, own[0] ? own + 1 : own) != 0)
				gone += sweep_one(sys, entry->d_name);
		}
	sys->close(dir);
	return gone;
}
