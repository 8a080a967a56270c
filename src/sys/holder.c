/* SPDX-License-Identifier: Apache-2.0 */
/* Who has a lock, as the kernel tells it. */
#include "sys/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Of it at once; a line has less than a hundredth. */
#define LINES_BYTES 4096

/* A process that has ended may have left its lock to others, and is named still. */
static bool lives(const struct sys *sys, uint32_t pid)
{
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%u", pid);
	return pid && sys->fstatat(AT_FDCWD, path, &st, 0) == 0;
}

static const char *next_word(const char *at)
{
	at += strcspn(at, " ");
	return at + strspn(at, " ");
}

/*
 * Whose lock the line tells of, as "7: FLOCK  ADVISORY  WRITE 4321 fd:01:1234 0 EOF"; 0: none of a
 * flock on this file. Some file systems have another device there than stat() says: of those only
 * the one that was noted counts.
 */
static uint32_t owner_of(const char *line, const struct stat *st, uint32_t noted)
{
	static const char kind[] = ": FLOCK";
	const char *at = strstr(line, kind);
	unsigned long major_number, minor_number;
	unsigned long long inode;
	char *end = NULL;
	long pid;

	if (!at)
		return 0;
	at = next_word(next_word(next_word(at + sizeof(kind) - 1)));
	pid = strtol(at, &end, 10);
	major_number = strtoul(end, &end, 16);
	minor_number = *end == ':' ? strtoul(end + 1, &end, 16) : 0;
	inode = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
	if (pid <= 0 || pid > INT32_MAX || inode != st->st_ino)
		return 0;
	if (makedev((unsigned)major_number, (unsigned)minor_number) != st->st_dev &&
	    (uint32_t)pid != noted)
		return 0;
	return (uint32_t)pid;
}

/* The first of the whole lines in @text that lives; what is left of @text is moved to its start. */
static uint32_t lines_look(const struct sys *sys, char *text, const struct stat *st, uint32_t noted)
{
	char *line = text, *end;

	for (; (end = strchr(line, '\n')); line = end + 1) {
		uint32_t pid;

		*end = '\0';
		pid = owner_of(line, st, noted);
		if (pid && lives(sys, pid))
			return pid;
	}
	memmove(text, line, strlen(line) + 1);
	return 0;
}

uint32_t sys_flock_holder(const struct sys *sys, int fd, uint32_t noted)
{
	char text[LINES_BYTES] = "";
	struct stat st;
	off_t at = 0;
	uint32_t pid = 0;
	int locks;

	if (sys->fstat(fd, &st) < 0)
		return 0;
	locks = sys->openat(AT_FDCWD, "/proc/locks", O_RDONLY, 0);
	if (locks < 0)
		return lives(sys, noted) ? noted : 0;
	for (;;) {
		size_t used = strlen(text);
		struct iovec iov = {text + used, sizeof(text) - 1 - used};
		ssize_t got = iov.iov_len ? sys->preadv(locks, &iov, 1, at) : 0;

		if (got <= 0)
			break;
		text[used + (size_t)got] = '\0';
		at += got;
		pid = lines_look(sys, text, &st, noted);
		if (pid)
			break;
	}
	sys->close(locks);
	return pid;
}
