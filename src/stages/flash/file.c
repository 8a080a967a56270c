/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file or the block device that the log lies in: opened, locked, and looked at
 * before the first byte of a new store is written.
 *
 * Invariants, numbered:
 *  1. The lock is on the description that the I/O uses, which the rings hold too:
 *     it is free when no I/O of a dead owner can land any more. So is the claim of
 *     a device (O_EXCL): what is mounted cannot be claimed, and what is claimed
 *     cannot be mounted.
 *  2. What holds somebody else's bytes is not written to, but for format=yes.
 */
#include "stages/flash/foreign.h"
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"
#include "sys/device.h"

#include <sys/file.h>

/* Looked at, at either end: file systems, partition tables and RAIDs leave something there. */
#define EDGE_BYTES    (1u << 20)
#define CLAIM_POLL_NS 5000000u
/* A ring that was closed, here or in a process that ended, goes in its own time. */
#define CLAIM_WAIT_NS 1000000000u

/* ---- opening ------------------------------------------------------------------------ */

static int busy_error(struct flash *tier, int fd, struct cairn_error *reterr)
{
	struct flash_super_found found;
	struct stage_holder holder;
	uint32_t noted = 0;

	if (flash_scan_super(tier->sys, fd, &found) == 0)
		noted = found.super.owner_pid;
	holder = stage_holder(tier->sys, fd, noted);
	return stage_busy(reterr, "flash", tier->path, &holder,
			  "or give each process a file of its own (path=...{rank})");
}

/* Somebody else has claimed the device: who. */
static int claim_lost(struct flash *tier, struct cairn_error *reterr)
{
	int fd = tier->sys->openat(AT_FDCWD, tier->path, O_RDONLY, 0);
	int rc = fd < 0 ? 0 : tier->sys->flock(fd, LOCK_SH | LOCK_NB);

	if (rc == -EAGAIN)
		rc = busy_error(tier, fd, reterr);
	else
		rc = flash_error(reterr, -EBUSY,
				 "path=%s: the device is mounted, or part of a RAID, a volume or "
				 "swap: nothing was changed; give one that nobody uses",
				 tier->path);
	if (fd >= 0)
		tier->sys->close(fd);
	return rc;
}

static int read_only(const struct flash *tier, struct cairn_error *reterr)
{
	return flash_error(reterr, -EROFS,
			   "path=%s: can only be read: a store is written to even where it is only "
			   "loaded from; make it writable, or list it as it is with `cairn ls`",
			   tier->path);
}

static int open_error(struct flash *tier, struct cairn_error *reterr)
{
	switch (tier->fd) {
	case -EINVAL:
		return flash_error(reterr, -EOPNOTSUPP,
				   "%s: direct=yes, but this file system has no O_DIRECT: use "
				   "direct=auto",
				   tier->path);
	case -EISDIR:
		return flash_error(reterr, -EOPNOTSUPP,
				   "path=%s: a file or a block device is needed; to keep blocks in "
				   "a directory use posix",
				   tier->path);
	case -EROFS:
		return read_only(tier, reterr);
	case -EACCES:
	case -EPERM:
		return flash_error(reterr, tier->fd,
				   "path=%s: %s: it must be yours to read and to write, and not "
				   "made read-only",
				   tier->path, strerror(-tier->fd));
	default:
		return flash_error(reterr, tier->fd, "path=%s: %s: %s", tier->path,
				   strerror(-tier->fd),
				   tier->device ? "a device that works is needed"
						: "the folder above must exist, and the file be "
						  "yours to write");
	}
}

static int open_as(struct flash *tier, int flags)
{
	uint64_t choice = tier->env->values[OPT_DIRECT].u;
	int fd = -EINVAL;

	if (choice != DIRECT_NO)
		fd = tier->sys->openat(AT_FDCWD, tier->path, flags | O_DIRECT, 0666);
	tier->direct = fd >= 0;
	if (fd == -EINVAL && choice != DIRECT_YES)
		fd = tier->sys->openat(AT_FDCWD, tier->path, flags, 0666);
	return fd;
}

/* What was opened, and how large it is. */
static int look(struct flash *tier, struct cairn_error *reterr)
{
	struct sys_device device = {0};
	struct stat st;
	int rc = tier->sys->fstat(tier->fd, &st);

	if (rc == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return flash_error(reterr, -EOPNOTSUPP,
				   "path=%s: a file or a block device is needed", tier->path);
	if (rc == 0 &&
	    S_ISBLK(st.st_mode) != tier->device) /* it was not claimed, or is no device */
		return flash_error(reterr, -EBUSY,
				   "path=%s: was replaced while it was opened: try again",
				   tier->path);
	if (rc == 0 && S_ISBLK(st.st_mode)) {
		rc = sys_device_look(tier->sys, tier->fd, &device);
		tier->there_bytes = device.bytes / FLASH_PAGE * FLASH_PAGE;
		tier->device_unit = device.unit;
	} else if (rc == 0) {
		tier->there_bytes = (uint64_t)st.st_size;
		tier->sparse = (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size;
	}
	if (rc < 0)
		return flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc));
	if (tier->device && device.read_only)
		return read_only(tier, reterr);
	if (tier->device && tier->device_unit > FLASH_UNIT_MAX)
		return flash_error(reterr, -EOPNOTSUPP,
				   "path=%s: a device with logical blocks of %u bytes: they may "
				   "have %u at most",
				   tier->path, tier->device_unit, FLASH_UNIT_MAX);
	return 0;
}

static int lock_take(struct flash *tier, struct cairn_error *reterr)
{
	int rc = sys_flock_wait(tier->sys, tier->fd, LOCK_EX, tier->open_wait_ns);

	if (rc == -EAGAIN)
		return busy_error(tier, tier->fd, reterr);
	if (rc < 0)
		return flash_error(reterr, rc, "%s: flock: %s: use a file system that has it",
				   tier->path, strerror(-rc));
	return 0;
}

int flash_file_open(struct flash *tier, struct cairn_error *reterr)
{
	uint64_t wait_ns = tier->open_wait_ns > CLAIM_WAIT_NS ? tier->open_wait_ns : CLAIM_WAIT_NS;
	uint64_t until = tier->sys->now_ns() + wait_ns;
	struct stat st;
	int rc;

	for (;;) {
		rc = tier->sys->fstatat(AT_FDCWD, tier->path, &st, 0);
		tier->device = rc == 0 && S_ISBLK(st.st_mode);
		tier->fd = open_as(tier, O_RDWR | O_CLOEXEC | (tier->device ? O_EXCL : O_CREAT));
		if (tier->fd != -EBUSY || !tier->device)
			break;
		if (tier->sys->now_ns() >= until)
			return claim_lost(tier, reterr);
		tier->sys->sleep_ns(CLAIM_POLL_NS);
	}
	if (tier->fd < 0)
		return open_error(tier, reterr);
	rc = lock_take(tier, reterr);
	if (rc == 0)
		rc = look(tier, reterr);
	if (rc == 0 && !tier->direct)
		tier->probe_fd =
			tier->sys->openat(AT_FDCWD, tier->path, O_RDONLY | O_CLOEXEC | O_DIRECT, 0);
	return rc;
}

/* ---- what is there ---------------------------------------------------------------------- */

static uint64_t last_edge(const struct flash *tier)
{
	uint64_t at = tier->there_bytes > EDGE_BYTES ? tier->there_bytes - EDGE_BYTES : 0;

	return at / FLASH_PAGE * FLASH_PAGE;
}

/* EDGE_BYTES at @at, or what there is of them, with zeros behind. */
static int edge_read(struct flash *tier, uint8_t *buffer, uint64_t at)
{
	size_t done = 0;

	memset(buffer, 0, EDGE_BYTES);
	while (done < EDGE_BYTES && at + done < tier->there_bytes) {
		struct iovec iov = {buffer + done, EDGE_BYTES - done};
		ssize_t got = tier->sys->preadv(tier->fd, &iov, 1, (off_t)(at + done));

		if (got <= 0)
			return got < 0 ? (int)got : -EIO;
		done += (size_t)got;
	}
	return 0;
}

static bool zeros(const uint8_t *bytes, size_t count)
{
	return !bytes[0] && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* The making of a store was cut short: before the superblock there is an empty namespace area. */
static void unfinished_forget(uint8_t *start)
{
	struct flash_space_head *head =
		(struct flash_space_head *)(void *)(start + FLASH_COPIES * FLASH_PAGE);
	struct flash_id id = {0};

	memcpy(id.uuid, head->uuid, sizeof(id.uuid));
	if (flash_space_decode(head, FLASH_PAGE, &id) == FLASH_OK && head->count == 0)
		memset(head, 0, sizeof(*head));
}

static bool headless(const uint8_t *start)
{
	return memcmp(start + FLASH_COPIES * FLASH_PAGE, FLASH_SPACE_MAGIC,
		      sizeof(FLASH_SPACE_MAGIC) - 1) == 0;
}

/* What is at the edges, if anything is. */
static int edges_look(struct flash *tier, uint8_t *buffer, const char **ret_what)
{
	int rc = edge_read(tier, buffer, 0);
	bool store;

	*ret_what = NULL;
	if (rc < 0)
		return rc;
	*ret_what = flash_foreign(buffer, EDGE_BYTES);
	if (*ret_what)
		return 0;
	store = headless(buffer);
	unfinished_forget(buffer);
	if (!zeros(buffer, EDGE_BYTES)) {
		*ret_what = store ? "a store without a superblock (`cairn fsck --repair` may make "
				    "it again)"
				  : "something that is no store of cairn's";
		return 0;
	}
	rc = edge_read(tier, buffer, last_edge(tier));
	if (rc == 0 && !zeros(buffer, EDGE_BYTES))
		*ret_what = "something that is no store of cairn's, near its end";
	return rc;
}

/* So that nobody takes it for what it was. */
static int edges_wipe(struct flash *tier, uint8_t *buffer)
{
	int rc;

	if (!tier->device) {
		tier->there_bytes = 0;
		return tier->sys->ftruncate(tier->fd, 0);
	}
	memset(buffer, 0, EDGE_BYTES);
	rc = sys_pwrite_full(tier->sys, tier->fd, buffer, EDGE_BYTES, (off_t)last_edge(tier));
	if (rc == 0)
		rc = sys_pwrite_full(tier->sys, tier->fd, buffer, EDGE_BYTES, 0);
	return rc < 0 ? rc : tier->sys->fsync(tier->fd);
}

int flash_file_take(struct flash *tier, struct cairn_error *reterr)
{
	const char *what = NULL;
	uint8_t *buffer;
	int rc;

	if (!tier->there_bytes)
		return 0;
	if (tier->there_bytes < EDGE_BYTES && tier->device)
		return flash_error(reterr, -EINVAL, "path=%s: a device of %llu bytes is too small",
				   tier->path, (unsigned long long)tier->there_bytes);
	buffer = tier->sys->alloc(FLASH_PAGE, EDGE_BYTES);
	if (!buffer)
		return -ENOMEM;
	rc = edges_look(tier, buffer, &what);
	if (rc == 0 && what && tier->env->values[OPT_FORMAT].u)
		rc = edges_wipe(tier, buffer);
	else if (rc == 0 && what)
		rc = flash_error(reterr, -EPROTO,
				 "path=%s: holds %s: nothing was changed; look at the path, or "
				 "give format=yes as well and lose what is there",
				 tier->path, what);
	tier->sys->free(buffer);
	return rc;
}

/* ---- making --------------------------------------------------------------------------------- */

bool flash_file_reads(struct flash *tier, uint32_t unit)
{
	struct iovec iov = {tier->sys->alloc(FLASH_PAGE, FLASH_PAGE), unit};
	ssize_t got;

	if (!iov.iov_base)
		return false;
	got = tier->sys->preadv(tier->fd, &iov, 1, unit);
	tier->sys->free(iov.iov_base);
	return got > 0;
}

static int no_room(struct flash *tier, uint64_t bytes, struct cairn_error *reterr)
{
	struct statvfs st;
	unsigned long long left = 0;

	if (tier->sys->fstatvfs(tier->fd, &st) == 0)
		left = (unsigned long long)st.f_bavail * st.f_frsize;
	return flash_error(reterr, -ENOSPC,
			   "%s: %llu bytes do not go on its file system, which has %llu free: make "
			   "room, or a smaller store (size=)",
			   tier->path, (unsigned long long)bytes, left);
}

int flash_file_make(struct flash *tier, uint64_t bytes, struct cairn_error *reterr)
{
	uint8_t *page = NULL;
	int rc = tier->device ? 0 : sys_in_place(tier->sys, tier->fd);

	if (rc == -EOPNOTSUPP)
		return flash_error(reterr, rc,
				   "path=%s: its file system copies on write, and this file cannot "
				   "be taken out of that (chattr +C): the room taken now would not "
				   "be there later; %s",
				   tier->path,
				   tier->there_bytes ? "remove the file, it is made anew"
						     : "use ext4, XFS, Btrfs or a block device");
	if (rc == 0 && !tier->device)
		rc = sys_allocate(tier->sys, tier->fd, bytes);
	if (rc < 0 && !tier->there_bytes) /* what was taken before it failed */
		tier->sys->ftruncate(tier->fd, 0);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return no_room(tier, bytes, reterr);
	/* Of what was never written a read tells nothing about the device. */
	if (rc == 0)
		page = sys_zalloc(tier->sys, FLASH_PAGE, FLASH_COPIES * FLASH_PAGE);
	if (rc == 0)
		rc = page ? sys_pwrite_full(tier->sys, tier->fd, page, FLASH_COPIES * FLASH_PAGE, 0)
			  : -ENOMEM;
	if (page)
		tier->sys->free(page);
	return rc;
}

/* ---- a store that is there ------------------------------------------------------------------- */

int flash_file_agrees(struct flash *tier, struct cairn_error *reterr)
{
	uint64_t bytes = tier->super.file_bytes;
	int rc = 0;

	if (tier->there_bytes < bytes)
		return flash_error(reterr, -EINVAL,
				   "%s: the store in it was made with size=%llu, and there are "
				   "%llu bytes: it was cut short; copy it once more, or %s",
				   tier->path, (unsigned long long)bytes,
				   (unsigned long long)tier->there_bytes,
				   tier->device ? "make another"
						: "mend what is left (cairn fsck --repair)");
	/* A copy with holes: the room that was taken when it was made is taken again. */
	if (!tier->device && tier->sparse)
		rc = tier->sys->fallocate(tier->fd, 0, 0, (off_t)bytes);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return no_room(tier, bytes, reterr);
	return rc < 0 && rc != -EOPNOTSUPP
		       ? flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc))
		       : 0;
}
