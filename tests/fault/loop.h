/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block devices of a test's own: loop devices over files in its folder, and file
 * systems on them. They go when the program ends, however it does.
 */
#ifndef TESTS_FAULT_LOOP_H
#define TESTS_FAULT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop {
	char path[32];	/* "/dev/loop7" */
	char file[192]; /* that it is over */
	int fd;
};

/*
 * Whether this program may have any: as root, on a kernel that has them. Mounts
 * are in a namespace of the program's own from here on.
 */
bool loop_can(void);
void loop_open(struct loop *loop, const char *file, uint64_t bytes, uint32_t unit, bool read_only);
void loop_close(struct loop *loop);
/* "ext4": mkfs.ext4 on it. False: there is no such program. */
bool loop_mkfs(const struct loop *loop, const char *kind);
int loop_mount(const struct loop *loop, const char *kind, const char *folder);
void loop_unmount(const char *folder);
void loop_read_only(const char *folder); /* what is mounted there */

#endif
