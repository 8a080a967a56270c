/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/bell.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000u

int bell_open(struct bell *bell)
{
	*bell = (struct bell){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	return bell->fd < 0 ? -errno : 0;
}

void bell_close(struct bell *bell, const struct sys *sys)
{
	sys->close(bell->fd);
	bell->fd = -1;
}

void bell_ring(struct bell *bell)
{
	const uint64_t one = 1;
	int saved_errno = errno; /* a signal handler may be what calls us */
	ssize_t rc = write(bell->fd, &one, sizeof(one));

	/* -EAGAIN: the counter is full, and so the bell is ringing. */
	assert(rc == (ssize_t)sizeof(one) || errno == EAGAIN);
	errno = saved_errno;
}

void bell_wake(struct bell *bell)
{
	/* Release: pairs with bell_woken(). What was posted before the wake is seen after it. */
	if (__atomic_exchange_n(&bell->woken, 1, __ATOMIC_ACQ_REL) == 0)
		bell_ring(bell);
}

bool bell_woken(struct bell *bell)
{
	/* Acquire: pairs with bell_wake(). */
	return __atomic_exchange_n(&bell->woken, 0, __ATOMIC_ACQ_REL) != 0;
}

void bell_clear(struct bell *bell)
{
	uint64_t rings;

	if (read(bell->fd, &rings, sizeof(rings)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

void bell_wait(struct bell *bell, uint64_t wait_ns)
{
	struct pollfd ready = {.fd = bell->fd, .events = POLLIN};
	struct timespec ts = {
		.tv_sec = (time_t)(wait_ns / NS_PER_S),
		.tv_nsec = (long)(wait_ns % NS_PER_S),
	};
	int rc = ppoll(&ready, 1, wait_ns == UINT64_MAX ? NULL : &ts, NULL);

	assert(rc >= 0 || errno == EINTR || errno == ENOMEM);
	if (rc > 0)
		bell_clear(bell);
}

uint64_t deadline_after(const struct sys *sys, uint64_t wait_ns)
{
	uint64_t now_ns;

	if (wait_ns == UINT64_MAX)
		return UINT64_MAX;
	now_ns = sys->now_ns();
	return wait_ns > UINT64_MAX - 1 - now_ns ? UINT64_MAX : now_ns + wait_ns;
}

uint64_t deadline_left(const struct sys *sys, uint64_t deadline_ns)
{
	uint64_t now_ns;

	if (deadline_ns == UINT64_MAX)
		return UINT64_MAX;
	now_ns = sys->now_ns();
	return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}
