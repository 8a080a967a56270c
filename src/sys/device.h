/* SPDX-License-Identifier: Apache-2.0 */
/* What a block device is, and files on file systems that copy on write. Any thread. */
#ifndef SYS_DEVICE_H
#define SYS_DEVICE_H

#include "sys/sys.h"

struct sys_device {
	uint64_t bytes;
	uint32_t unit; /* its logical block */
	bool read_only;
};

/* Of a block device that is open. */
int sys_device_look(const struct sys *sys, int fd, struct sys_device *ret_device);

/*
 * Sees to it that what is written to an empty file stays where it lies: on a file
 * system that copies on write the file is marked so. -EOPNOTSUPP: it cannot be.
 */
int sys_in_place(const struct sys *sys, int fd);

/*
 * Makes a file at least so long, with room for all of it; where its file system has no such call,
 * it grows as it is written.
 */
int sys_allocate(const struct sys *sys, int fd, uint64_t bytes);

#endif
