/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file, its lock and its superblock.
 *
 * Invariants, numbered:
 *  1. A file is made in this order: all of its space, an empty namespace area, the
 *     superblock. Without a superblock there is no store.
 *  2. The lock is on the description that the I/O uses, which the rings hold too:
 *     it is free when no I/O of a dead owner can land any more.
 *  3. `clean` is taken away, durably, before anything else is changed.
 */
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define REGION_MIN (1u << 20)
#define REGION_MAX (32u << 20)

int flash_super_write(struct flash *tier)
{
	uint8_t *page = tier->sys->alloc(FLASH_PAGE, FLASH_PAGE); /* O_DIRECT, perhaps */
	int rc;

	if (!page)
		return -ENOMEM;
	memset(page, 0, FLASH_PAGE);
	tier->super.counter++;
	flash_super_seal(&tier->super);
	memcpy(page, &tier->super, sizeof(tier->super));
	rc = sys_pwrite_full(tier->sys, tier->fd, page, FLASH_PAGE,
			     (off_t)flash_super_at(tier->super.counter % FLASH_COPIES));
	tier->sys->free(page);
	return rc ? rc : tier->sys->fdatasync(tier->fd);
}

/* ---- the lock -------------------------------------------------------------------------- */

static int busy_error(struct flash *tier, struct cairn_error *reterr)
{
	struct flash_super_found found;
	uint32_t pid = 0;

	if (flash_scan_super(tier->sys, tier->fd, &found) == 0)
		pid = found.super.owner_pid;
	if (!pid)
		return flash_error(reterr, -EBUSY,
				   "%s: in use by another process: end it, or give each process a "
				   "file of its own (path=...{rank})",
				   tier->path);
	return flash_error(reterr, -EBUSY,
			   "%s: in use by process %u: end it, or give each process a file of its "
			   "own (path=...{rank})",
			   tier->path, pid);
}

static int lock_take(struct flash *tier, struct cairn_error *reterr)
{
	int rc = sys_flock_wait(tier->sys, tier->fd, LOCK_EX, tier->open_wait_ns);

	if (rc == -EAGAIN)
		return busy_error(tier, reterr);
	if (rc < 0)
		return flash_error(reterr, rc, "%s: flock: %s: use a file system that has it",
				   tier->path, strerror(-rc));
	return 0;
}

/* ---- the file --------------------------------------------------------------------------- */

/* Whether the file takes direct I/O in pieces of @unit. */
static bool direct_reads(struct flash *tier, uint32_t unit)
{
	struct iovec iov = {tier->sys->alloc(FLASH_PAGE, FLASH_PAGE), unit};
	ssize_t got;

	if (!iov.iov_base)
		return false;
	got = tier->sys->preadv(tier->fd, &iov, 1, unit);
	tier->sys->free(iov.iov_base);
	return got >= 0; /* 0: behind the end of a new file */
}

static int file_open(struct flash *tier, struct cairn_error *reterr)
{
	uint64_t choice = tier->env->values[OPT_DIRECT].u;
	int flags = O_RDWR | O_CREAT | O_CLOEXEC;
	struct stat st;
	int rc;

	tier->fd = -EINVAL;
	if (choice != DIRECT_NO)
		tier->fd = tier->sys->openat(AT_FDCWD, tier->path, flags | O_DIRECT, 0666);
	tier->direct = tier->fd >= 0;
	if (tier->fd == -EINVAL && choice != DIRECT_YES)
		tier->fd = tier->sys->openat(AT_FDCWD, tier->path, flags, 0666);
	if (tier->fd == -EINVAL)
		return flash_error(reterr, -EOPNOTSUPP,
				   "%s: direct=yes, but this file system has no O_DIRECT: use "
				   "direct=auto",
				   tier->path);
	if (tier->fd < 0)
		return flash_error(reterr, tier->fd,
				   "path=%s: %s: the folder above must exist, and "
				   "the file be yours to write",
				   tier->path, strerror(-tier->fd));
	rc = tier->sys->fstat(tier->fd, &st);
	if (rc == 0 && !S_ISREG(st.st_mode))
		return flash_error(
			reterr, -EOPNOTSUPP,
			"path=%s: a regular file is needed; to keep blocks in a directory "
			"use posix",
			tier->path);
	return rc < 0 ? flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc)) : 0;
}

/* ---- a new store ---------------------------------------------------------------------------- */

static uint64_t region_for(const struct flash *tier, uint64_t size)
{
	uint64_t region = REGION_MIN;

	if (tier->env->values[OPT_REGION].set)
		return tier->env->values[OPT_REGION].u;
	while (region * 2 <= REGION_MAX && region * 2 <= size / 128)
		region *= 2;
	return region;
}

static int layout_choose(struct flash *tier, struct cairn_error *reterr)
{
	const struct cairn_value *size = &tier->env->values[OPT_SIZE];
	uint32_t unit = FLASH_UNIT_MIN;
	uint64_t region;

	if (!size->set)
		return flash_error(reterr, -EINVAL,
				   "%s: there is no store yet: say how large it is to be, "
				   "size=200GiB for example",
				   tier->path);
	region = region_for(tier, size->u);
	if (tier->direct && !direct_reads(tier, FLASH_UNIT_MIN))
		unit = FLASH_UNIT_MAX;
	switch (flash_layout_init(&tier->layout, size->u, region, unit)) {
	case FLASH_LAYOUT_OK:
		return 0;
	case FLASH_LAYOUT_LARGE:
		if (flash_layout_init(&tier->layout, size->u, region, FLASH_UNIT_MAX) ==
		    FLASH_LAYOUT_OK)
			return 0;
		return flash_error(reterr, -EINVAL,
				   "size= is more than 16TiB: make several stores");
	case FLASH_LAYOUT_REGION:
		return flash_error(reterr, -EINVAL,
				   "region= must be a multiple of 64KiB from 64KiB to 1GiB");
	case FLASH_LAYOUT_SMALL:
		return flash_error(
			reterr, -EINVAL,
			"size= holds fewer than %u regions of %llu bytes: give more, or a "
			"smaller region=",
			FLASH_REGIONS_MIN, (unsigned long long)region);
	case FLASH_LAYOUT_UNIT:
		break;
	}
	return flash_error(reterr, -EINVAL, "%s: no layout", tier->path);
}

/* The name of the file becomes durable. */
static int folder_sync(struct flash *tier)
{
	char folder[sizeof(tier->path)];
	char *slash;
	int fd, rc;

	snprintf(folder, sizeof(folder), "%s", tier->path);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = tier->sys->openat(AT_FDCWD, slash ? folder : ".", O_RDONLY | O_DIRECTORY, 0);
	if (fd == -EACCES)
		return 0; /* not ours to look at */
	if (fd < 0)
		return fd;
	rc = tier->sys->fsync(fd);
	tier->sys->close(fd);
	return rc == -EINVAL || rc == -EROFS ? 0 : rc;
}

static int store_write(struct flash *tier)
{
	struct flash_id id;
	uint8_t *area = tier->sys->alloc(FLASH_PAGE, FLASH_PAGE);
	uint32_t bytes;
	int rc;

	if (!area)
		return -ENOMEM;
	rc = tier->sys->random(&id, sizeof(id));
	if (rc == 0)
		rc = tier->sys->fallocate(tier->fd, 0, 0, (off_t)tier->layout.file_bytes);
	if (rc == -EOPNOTSUPP) /* then the file grows as it is written */
		rc = tier->sys->ftruncate(tier->fd, (off_t)tier->layout.file_bytes);
	if (rc == 0) {
		memset(area, 0, FLASH_PAGE);
		flash_space_begin(area, &id, 0);
		bytes = flash_space_seal(area);
		assert(bytes <= FLASH_PAGE);
		rc = sys_pwrite_full(tier->sys, tier->fd, area, bytes,
				     (off_t)flash_space_at(&tier->layout, 0));
	}
	tier->sys->free(area);
	if (rc == 0)
		rc = tier->sys->fsync(tier->fd);
	if (rc < 0)
		return rc;
	flash_super_init(&tier->super, &id, &tier->layout, tier->sys->realtime_ns());
	rc = flash_super_write(tier);
	return rc < 0 ? rc : folder_sync(tier);
}

static int store_make(struct flash *tier, struct cairn_error *reterr)
{
	int rc = layout_choose(tier, reterr);

	if (rc < 0)
		return rc;
	rc = store_write(tier);
	if (rc == -ENOSPC)
		return flash_error(reterr, rc, "%s: size=: the file system has not so much room",
				   tier->path);
	return rc < 0 ? flash_error(reterr, rc, "%s: could not be made: %s", tier->path,
				    strerror(-rc))
		      : 0;
}

/* ---- open ------------------------------------------------------------------------------------ */

/* What the options say of a store that is there must be true of it. */
static int options_agree(struct flash *tier, struct cairn_error *reterr)
{
	const struct cairn_value *values = tier->env->values;

	if (values[OPT_SIZE].set && values[OPT_SIZE].u != tier->super.file_bytes)
		return flash_error(reterr, -EINVAL,
				   "%s: was made with size=%llu: leave size= out, or make another "
				   "store",
				   tier->path, (unsigned long long)tier->super.file_bytes);
	if (values[OPT_REGION].set && values[OPT_REGION].u != tier->super.region_bytes)
		return flash_error(
			reterr, -EINVAL,
			"%s: was made with region=%u: leave region= out, or make another "
			"store",
			tier->path, tier->super.region_bytes);
	if (tier->direct && !direct_reads(tier, tier->super.unit))
		return flash_error(reterr, -EOPNOTSUPP,
				   "%s: was made for direct I/O in pieces of %u bytes, which this "
				   "device has not: use direct=no",
				   tier->path, tier->super.unit);
	return 0;
}

int flash_super_open(struct flash *tier, struct cairn_error *reterr)
{
	struct flash_super_found found;
	int rc = file_open(tier, reterr);

	if (rc == 0)
		rc = lock_take(tier, reterr);
	if (rc < 0)
		return rc;
	rc = flash_scan_super(tier->sys, tier->fd, &found);
	if (rc == -ENOENT)
		return store_make(tier, reterr);
	if (rc == -EPROTO)
		return flash_error(reterr, rc,
				   "%s: of a format version that this library does not know; it "
				   "knows %u",
				   tier->path, FLASH_FORMAT);
	if (rc == -EBADMSG)
		return flash_error(
			reterr, -EPROTO,
			"%s: neither copy of the superblock checks: not a flash store, or "
			"a damaged one; nothing was changed",
			tier->path);
	if (rc < 0)
		return flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc));
	tier->super = found.super;
	tier->layout = found.layout;
	return options_agree(tier, reterr);
}
