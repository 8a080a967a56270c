/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/device.h"

#include <errno.h>
#include <linux/fs.h>
#include <linux/magic.h>

/* Not in linux/magic.h. */
#define ZFS_MAGIC      0x2fc12fc1u
#define BCACHEFS_MAGIC 0xca451a4eu

int sys_device_look(const struct sys *sys, int fd, struct sys_device *ret_device)
{
	int unit = 0, read_only = 0;
	int rc = sys->ioctl(fd, BLKGETSIZE64, &ret_device->bytes);

	if (rc == 0)
		rc = sys->ioctl(fd, BLKSSZGET, &unit);
	if (rc == 0)
		rc = sys->ioctl(fd, BLKROGET, &read_only);
	ret_device->unit = (uint32_t)unit;
	ret_device->read_only = read_only;
	return rc;
}

static bool copies_on_write(const struct statfs *st)
{
	uint32_t type = (uint32_t)st->f_type;

	return type == BTRFS_SUPER_MAGIC || type == ZFS_MAGIC || type == BCACHEFS_MAGIC;
}

int sys_in_place(const struct sys *sys, int fd)
{
	struct statfs st;
	int flags = 0, rc = sys->fstatfs(fd, &st);

	if (rc < 0)
		return rc;
	if (!copies_on_write(&st))
		return 0;
	rc = sys->ioctl(fd, FS_IOC_GETFLAGS, &flags);
	if (rc == 0 && !(flags & FS_NOCOW_FL)) {
		/* What is compressed is always written elsewhere. */
		flags = (flags | FS_NOCOW_FL) & ~FS_COMPR_FL;
		rc = sys->ioctl(fd, FS_IOC_SETFLAGS, &flags);
		if (rc == 0) /* Btrfs forgets it without a word where it comes too late */
			rc = sys->ioctl(fd, FS_IOC_GETFLAGS, &flags);
	}
	return rc == 0 && (flags & FS_NOCOW_FL) ? 0 : -EOPNOTSUPP;
}

int sys_allocate(const struct sys *sys, int fd, uint64_t bytes)
{
	int rc = sys->fallocate(fd, 0, 0, (off_t)bytes);

	return rc == -EOPNOTSUPP ? sys->ftruncate(fd, (off_t)bytes) : rc;
}
