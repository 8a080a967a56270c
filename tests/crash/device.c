/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../fault/power.h"

struct write {
	struct write *next;
	uint64_t at;
	size_t length;
	bool ended, covered; /* covered: by the flush that is under way */
	uint8_t bytes[];
};

static struct {
	char path[256];
	int fd;
	size_t bytes;
	uint8_t *flushed, *image;
	struct write *first, **last; /* not flushed, in order */
	uint64_t until_cut;	     /* 0: no cut is wanted */
	bool cut;
	device_cut_fn *at_cut;
	struct kit_rng rng;
	uint64_t figures[3];
} device = {.fd = -1};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* One flush at a time, as the model has it. */
static pthread_mutex_t flush_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- images ------------------------------------------------------------------- */

static void image_make(void)
{
	struct power_cut cut = power_cut(&device.rng);

	memcpy(device.image, device.flushed, device.bytes);
	for (struct write *write = device.first; write; write = write->next) {
		enum power_fate fate =
			power_write(&cut, write->at, write->length, write->bytes, device.image);

		device.figures[0]++;
		device.figures[1] += fate == POWER_TORN;
		device.figures[2] += fate == POWER_LOST;
	}
}

/* An event, of a write, or (NULL) of a flush: under the lock. */
static void event(const struct write *write)
{
	if (!device.until_cut || --device.until_cut)
		return;
	image_make();
	device.cut = true;
	if (write)
		device.at_cut(write->at, write->length, write->bytes);
	else
		device.at_cut(0, 0, NULL);
}

/* ---- the table ------------------------------------------------------------------ */

static int device_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd = sys_native.openat(dirfd, path, flags, mode);

	pthread_mutex_lock(&lock);
	if (fd >= 0 && strcmp(path, device.path) == 0 && (flags & O_ACCMODE) == O_RDWR)
		device.fd = fd;
	pthread_mutex_unlock(&lock);
	return fd;
}

static int device_close(int fd)
{
	pthread_mutex_lock(&lock);
	if (fd == device.fd)
		device.fd = -1;
	pthread_mutex_unlock(&lock);
	return sys_native.close(fd);
}

/* Remembers what is about to be written. */
static struct write *write_begin(const struct iovec *iov, int iov_count, off_t offset)
{
	struct write *write;
	size_t length = 0;

	for (int i = 0; i < iov_count; i++)
		length += iov[i].iov_len;
	CHECK((uint64_t)offset + length <= device.bytes, "a write behind the end: %lu + %zu",
	      (unsigned long)offset, length);
	write = malloc(sizeof(*write) + length);
	CHECK(write);
	*write = (struct write){.at = (uint64_t)offset, .length = length};
	length = 0;
	for (int i = 0; i < iov_count; i++) {
		memcpy(write->bytes + length, iov[i].iov_base, iov[i].iov_len);
		length += iov[i].iov_len;
	}
	*device.last = write;
	device.last = &write->next;
	return write;
}

static ssize_t device_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct write *write = NULL;
	ssize_t ret;

	pthread_mutex_lock(&lock);
	if (fd == device.fd) {
		write = write_begin(iov, iov_count, offset);
		event(write);
	}
	pthread_mutex_unlock(&lock);
	ret = sys_native.pwritev(fd, iov, iov_count, offset);
	if (!write)
		return ret;
	CHECK(ret == (ssize_t)write->length, "the real write: %ld", (long)ret);
	pthread_mutex_lock(&lock);
	write->ended = true;
	event(write);
	pthread_mutex_unlock(&lock);
	return ret;
}

static void flush_end(void)
{
	struct write **at = &device.first;

	while (*at) {
		struct write *write = *at;

		if (!write->covered) {
			at = &write->next;
			continue;
		}
		memcpy(device.flushed + write->at, write->bytes, write->length);
		*at = write->next;
		free(write);
	}
	device.last = at;
}

static int device_fdatasync(int fd)
{
	bool ours;

	pthread_mutex_lock(&flush_lock);
	pthread_mutex_lock(&lock);
	ours = fd == device.fd;
	for (struct write *write = device.first; ours && write; write = write->next)
		write->covered = write->ended;
	if (ours)
		event(NULL);
	pthread_mutex_unlock(&lock);
	pthread_mutex_lock(&lock);
	if (ours) {
		flush_end();
		event(NULL);
	}
	pthread_mutex_unlock(&lock);
	pthread_mutex_unlock(&flush_lock);
	/* The real file need not be flushed: it is only read again. */
	return 0;
}

const struct engine_ops *device_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : sys_native.engine(ENGINE_PSYNC);
}

const struct sys *device_sys(void)
{
	static struct sys table;

	table = sys_native;
	table.openat = device_openat;
	table.close = device_close;
	table.pwritev = device_pwritev;
	table.fsync = device_fdatasync;
	table.fdatasync = device_fdatasync;
	table.engine = device_engine;
	return &table;
}

/* ---- for the test ------------------------------------------------------------------- */

static void read_file(const char *path, uint8_t *to, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t at = 0;
	ssize_t got = 1;

	while (fd >= 0 && at < bytes && got > 0) {
		got = read(fd, to + at, bytes - at);
		at += got > 0 ? (size_t)got : 0;
	}
	memset(to + at, 0, bytes - at);
	if (fd >= 0)
		close(fd);
}

void device_begin(const char *path, size_t bytes, uint64_t seed, device_cut_fn *at_cut)
{
	CHECK(!device.flushed && strlen(path) < sizeof(device.path));
	memcpy(device.path, path, strlen(path) + 1);
	device.bytes = bytes;
	device.flushed = malloc(bytes);
	device.image = malloc(bytes);
	CHECK(device.flushed && device.image);
	read_file(path, device.flushed, bytes);
	device.first = NULL;
	device.last = &device.first;
	device.until_cut = 0;
	device.cut = false;
	device.at_cut = at_cut;
	device.rng.state = seed;
}

void device_end(void)
{
	while (device.first) {
		struct write *next = device.first->next;

		free(device.first);
		device.first = next;
	}
	free(device.flushed);
	free(device.image);
	device.flushed = device.image = NULL;
	device.path[0] = 0;
}

void device_cut_in(uint64_t events)
{
	pthread_mutex_lock(&lock);
	if (!device.cut)
		device.until_cut = events;
	pthread_mutex_unlock(&lock);
}

const uint8_t *device_cut(void)
{
	bool cut;

	pthread_mutex_lock(&lock);
	cut = device.cut;
	pthread_mutex_unlock(&lock);
	return cut ? device.image : NULL;
}

void device_cut_done(void)
{
	pthread_mutex_lock(&lock);
	device.cut = false;
	pthread_mutex_unlock(&lock);
}

void device_figures(uint64_t ret_figures[3])
{
	memcpy(ret_figures, device.figures, sizeof(device.figures));
}
