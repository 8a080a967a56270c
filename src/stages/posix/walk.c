/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/posix/tier.h"

#include <dirent.h>

/* What the kernel writes: struct linux_dirent64. */
struct kernel_dirent {
	uint64_t ino;
	int64_t offset;
	uint16_t bytes;
	uint8_t type;
	char name[];
};

int walk_dir(const struct sys *sys, int fd, int (*fn)(void *context, const char *name),
	     void *context)
{
	_Alignas(8) char buffer[16384];

	for (;;) {
		ssize_t got = sys->getdents(fd, buffer, sizeof(buffer));

		if (got <= 0)
			return (int)got;
		for (ssize_t at = 0; at < got;) {
			const struct kernel_dirent *entry = (const void *)(buffer + at);
			int rc = 0;

			if (entry->bytes == 0)
				return -EIO;
			at += entry->bytes;
			if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
				rc = fn(context, entry->name);
			if (rc)
				return rc;
		}
	}
}

int tier_open_dir(const struct sys *sys, int dirfd, const char *name)
{
	return sys->openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}
