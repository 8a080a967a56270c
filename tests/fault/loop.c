/* SPDX-License-Identifier: Apache-2.0 */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "kit.h"

bool loop_can(void)
{
	int fd;

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int attach(struct loop *loop, int control, struct loop_config *config)
{
	int number = ioctl(control, LOOP_CTL_GET_FREE);

	CHECK(number >= 0, "%s", strerror(errno));
	snprintf(loop->path, sizeof(loop->path), "/dev/loop%d", number);
	loop->fd =
		open(loop->path,
		     (config->info.lo_flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (loop->fd < 0) /* its node may not be there, in a container */
		return -errno;
	if (ioctl(loop->fd, LOOP_CONFIGURE, config) == 0)
		return 0;
	close(loop->fd);
	return -errno;
}

void loop_open(struct loop *loop, const char *file, uint64_t bytes, uint32_t unit, bool read_only)
{
	struct loop_config config = {.block_size = unit};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), rc = -EBUSY;
	int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	snprintf(loop->file, sizeof(loop->file), "%s", file);
	CHECK(control >= 0 && fd >= 0, "%s: %s", file, strerror(errno));
	CHECK(ftruncate(fd, (off_t)bytes) == 0);
	config.fd = (uint32_t)fd;
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
	/* Others may be looking for a free one, too. */
	for (int tries = 0; rc < 0 && tries < 20; tries++)
		rc = attach(loop, control, &config);
	CHECK(rc == 0, "%s: %s", loop->path, strerror(-rc));
	close(fd);
	close(control);
}

void loop_close(struct loop *loop)
{
	close(loop->fd);
	loop->fd = -1;
}

bool loop_mkfs(const struct loop *loop, const char *kind)
{
	char command[256];
	int status;

	snprintf(command, sizeof(command),
		 "PATH=$PATH:/usr/sbin:/sbin; command -v mkfs.%s >/dev/null || exit 9; "
		 "mkfs.%s %s %s >/dev/null 2>&1",
		 kind, kind, strcmp(kind, "ext4") == 0 ? "-q -F" : "-q -f", loop->path);
	status = system(command);
	CHECK(status == 0 || WEXITSTATUS(status) == 9, "%s", command);
	return status == 0;
}

int loop_mount(const struct loop *loop, const char *kind, const char *folder)
{
	return mount(loop->path, folder, kind, 0, NULL) == 0 ? 0 : -errno;
}

/* A ring that was closed holds its files for a while. */
static int patiently(int (*call)(const char *folder), const char *folder)
{
	int rc = call(folder);

	for (int tries = 0; rc < 0 && errno == EBUSY && tries < 2000; tries++) {
		usleep(5000);
		rc = call(folder);
	}
	return rc;
}

static int unmount(const char *folder)
{
	return umount2(folder, 0);
}

void loop_unmount(const char *folder)
{
	CHECK(patiently(unmount, folder) == 0, "%s: %s", folder, strerror(errno));
}

static int read_only(const char *folder)
{
	return mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

void loop_read_only(const char *folder)
{
	CHECK(patiently(read_only, folder) == 0, "%s: %s", folder, strerror(errno));
}
