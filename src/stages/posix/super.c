/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory, its lock and its superblock.
 *
 * Invariants, numbered:
 *  1. A store is made in this order: its name, b/, ns/, then `store`, complete,
 *     by a link. Without `store` there is no store.
 *  2. The two copies are written in turn: a torn write leaves the other.
 *  3. `clean` is taken away, durably, before anything else is changed.
 */
#include "stages/posix/tier.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- superblock -------------------------------------------------------------------- */

int super_read(const struct sys *sys, int store_fd, struct super_block *ret_super)
{
	bool version = false, found = false;

	for (uint32_t copy = 0; copy < SUPER_COPIES; copy++) {
		struct super_block super;
		enum head_verdict verdict;
		int rc = sys_pread_full(sys, store_fd, &super, sizeof(super),
					(off_t)copy * FORMAT_PAGE);

		if (rc < 0 && rc != -EIO && rc != -ENODATA)
			return rc;
		verdict = rc < 0 ? HEAD_DAMAGED : super_decode(&super);
		version = version || verdict == HEAD_VERSION;
		if (verdict != HEAD_OK || (found && super.counter < ret_super->counter))
			continue;
		*ret_super = super;
		found = true;
	}
	if (found)
		return 0;
	return version ? -EPROTO : -EBADMSG;
}

static int super_put(struct posix *tier, int fd)
{
	uint8_t page[FORMAT_PAGE] = {0};

	tier->super.counter++;
	super_seal(&tier->super);
	memcpy(page, &tier->super, sizeof(tier->super));
	return sys_pwrite_full(tier->sys, fd, page, sizeof(page),
			       (off_t)(tier->super.counter % SUPER_COPIES) * FORMAT_PAGE);
}

int super_write(struct posix *tier)
{
	int rc = super_put(tier, tier->store_fd);

	return rc ? rc : tier->sys->fdatasync(tier->store_fd);
}

/* Directories: a few hundred blocks each, so that they cost little of a small budget. */
static uint32_t dirs_for(const struct posix *tier)
{
	uint64_t blocks = tier->entries_max;
	uint32_t log2 = 0;

	if (tier->shared)
		return DIRS_LOG2_MAX;
	if (tier->limit != UINT64_MAX && blocks > tier->limit / FORMAT_PAGE)
		blocks = tier->limit / FORMAT_PAGE;
	while (log2 < DIRS_LOG2_MAX && blocks >> (log2 + 1) >= 256)
		log2++;
	return log2;
}

static int any_name(void *context, const char *name)
{
	(void)context;
	(void)name;
	return 1;
}

int tier_open_temp(const struct sys *sys, int dirfd, const char *name)
{
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
	int fd = sys->openat(dirfd, name, flags, 0666);

	if (fd != -EEXIST)
		return fd;
	sys->unlinkat(dirfd, name, 0);
	return sys->openat(dirfd, name, flags, 0666);
}

static int store_write(struct posix *tier)
{
	const struct sys *sys = tier->sys;
	char name[32];
	int fd, rc;

	memset(&tier->super, 0, sizeof(tier->super));
	rc = sys->random(tier->super.uuid, sizeof(tier->super.uuid));
	if (rc < 0)
		return rc;
	tier->super.created_ns = sys->realtime_ns();
	tier->super.dirs_log2 = dirs_for(tier);
	tier->super.flags = tier->shared ? SUPER_SHARED : 0;
	snprintf(name, sizeof(name), "store.t%08x", tier->writer);
	fd = tier_open_temp(sys, tier->dir_fd, name);
	if (fd < 0)
		return fd;
	rc = super_put(tier, fd);
	if (rc == 0)
		rc = super_put(tier, fd);
	if (rc == 0)
		rc = sys->fsync(fd);
	sys->close(fd);
	if (rc == 0)
		rc = sys->linkat(tier->dir_fd, name, tier->dir_fd, "store", 0);
	sys->unlinkat(tier->dir_fd, name, 0);
	if (rc == 0 || rc == -EEXIST) /* another process, shared=yes, was first */
		rc = sys->fsync(tier->dir_fd);
	return rc;
}

/* The directory's own name becomes durable, before anything in it is. */
static int above_sync(struct posix *tier)
{
	int rc, fd = sys_open_dir(tier->sys, tier->dir_fd, "..");

	if (fd == -EACCES)
		return 0; /* not ours to look at; somebody else made the directory there */
	if (fd < 0)
		return fd;
	rc = tier->sys->fsync(fd);
	tier->sys->close(fd);
	return rc == -EINVAL || rc == -EROFS ? 0 : rc; /* another file system, maybe */
}

static int store_make(struct posix *tier, struct cairn_error *reterr)
{
	static const char *const folders[] = {"b", "ns"};
	const struct sys *sys = tier->sys;
	int rc, fd;

	for (int i = 0; i < 2; i++) {
		rc = sys->mkdirat(tier->dir_fd, folders[i], 0777);
		if (rc < 0 && rc != -EEXIST)
			return tier_error(reterr, rc, "%s/%s: could not be made: %s", tier->path,
					  folders[i], strerror(-rc));
	}
	fd = sys_open_dir(sys, tier->dir_fd, "ns");
	rc = fd < 0 ? fd : sys_walk_dir(sys, fd, any_name, NULL);
	if (fd >= 0)
		sys->close(fd);
	if (rc > 0 && !tier->shared)
		return tier_error(reterr, -EPROTO,
				  "%s: there are namespaces but no file `store`: put it back, or "
				  "empty the directory",
				  tier->path);
	rc = rc < 0 ? rc : above_sync(tier);
	rc = rc < 0 ? rc : store_write(tier);
	if (rc < 0)
		return tier_error(reterr, rc, "%s/store: could not be written: %s", tier->path,
				  strerror(-rc));
	return 0;
}

/* ---- the lock -------------------------------------------------------------------------- */

static int busy_error(struct posix *tier, struct cairn_error *reterr)
{
	struct stage_holder holder;
	struct super_block super;
	uint32_t noted = 0;
	int fd = tier->sys->openat(tier->dir_fd, "store", O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0) {
		/* Of processes that share it none is written down. */
		if (super_read(tier->sys, fd, &super) == 0 && !(super.flags & SUPER_SHARED))
			noted = super.owner_pid;
		tier->sys->close(fd);
	}
	holder = stage_holder(tier->sys, tier->dir_fd, noted);
	return stage_busy(reterr, "posix", tier->path, &holder,
			  "give each process a path of its own (path=...{rank}), or use shared=yes "
			  "in all");
}

static int lock_take(struct posix *tier, struct cairn_error *reterr)
{
	int rc = sys_flock_wait(tier->sys, tier->dir_fd, tier->shared ? LOCK_SH : LOCK_EX,
				tier->open_wait_ns);

	if (rc == -EAGAIN)
		return busy_error(tier, reterr);
	if (rc < 0)
		return tier_error(reterr, rc, "%s: flock: %s: use a file system that has it",
				  tier->path, strerror(-rc));
	return 0;
}

/* ---- open -------------------------------------------------------------------------------- */

static int dir_open(struct posix *tier, struct cairn_error *reterr)
{
	const struct sys *sys = tier->sys;
	int made = sys->mkdirat(AT_FDCWD, tier->path, 0777), rc = made;

	if (rc < 0 && rc != -EEXIST && rc != -EROFS && rc != -EACCES && rc != -EISDIR)
		return tier_error(reterr, rc, "path=%s: %s: the folder above it must exist",
				  tier->path, strerror(-rc));
	tier->dir_fd = sys_open_dir(sys, AT_FDCWD, tier->path);
	if (tier->dir_fd == -ENOENT && made < 0)
		return tier_error(reterr, made, "path=%s: could not be made: %s", tier->path,
				  strerror(-made));
	if (tier->dir_fd < 0)
		return tier_error(reterr, tier->dir_fd, "path=%s: %s: a directory is needed",
				  tier->path, strerror(-tier->dir_fd));
	return lock_take(tier, reterr);
}

static int store_open(struct posix *tier, struct cairn_error *reterr)
{
	const struct sys *sys = tier->sys;
	int rc;

	tier->store_fd = sys->openat(tier->dir_fd, "store", O_RDWR | O_CLOEXEC, 0);
	if (tier->store_fd == -ENOENT) {
		rc = store_make(tier, reterr);
		if (rc < 0)
			return rc;
		tier->store_fd = sys->openat(tier->dir_fd, "store", O_RDWR | O_CLOEXEC, 0);
	}
	if (tier->store_fd < 0)
		return tier_error(reterr, tier->store_fd, "%s/store: %s", tier->path,
				  strerror(-tier->store_fd));
	rc = super_read(sys, tier->store_fd, &tier->super);
	if (rc == -EPROTO)
		return tier_error(reterr, rc,
				  "%s/store: of a format version that this library does not know; "
				  "it knows %u",
				  tier->path, FORMAT_VERSION);
	if (rc < 0)
		return tier_error(
			reterr, rc == -EBADMSG ? -EPROTO : rc,
			"%s/store: neither copy of the superblock checks: put it back, or "
			"empty the directory",
			tier->path);
	tier->dirs_log2 = tier->super.dirs_log2;
	return 0;
}

int super_open(struct posix *tier, struct cairn_error *reterr)
{
	const struct sys *sys = tier->sys;
	int rc = dir_open(tier, reterr);

	if (rc == 0)
		rc = store_open(tier, reterr);
	if (rc < 0)
		return rc;
	tier->blocks_fd = sys_open_dir(sys, tier->dir_fd, "b");
	tier->space_fd = sys_open_dir(sys, tier->dir_fd, "ns");
	if (tier->blocks_fd < 0 || tier->space_fd < 0)
		return tier_error(reterr, -EPROTO,
				  "%s: has `store` but not %s: put it back, or "
				  "empty the directory",
				  tier->path, tier->blocks_fd < 0 ? "b/" : "ns/");
	tier->super.owner_pid = (uint32_t)getpid();
	return 0;
}
