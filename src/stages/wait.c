/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/wait.h"

#include <assert.h>
#include <stddef.h>

void waiter_park(struct waiter *waiter, struct waiter **list, void (*step)(struct waiter *))
{
	assert(!waiter->step && !waiter->waiting && !waiter->timed);
	waiter->step = step;
	waiter->waiting = true;
	waiter->list = list;
	waiter->next = *list;
	*list = waiter;
}

void waiter_wait(struct waiter *waiter, struct waiter **list, void (*step)(struct waiter *))
{
	waiter_park(waiter, list, step);
	waiter->timed = waiter->io->deadline_ns != UINT64_MAX;
	if (waiter->timed)
		waiter->host->resume_at(waiter->io, waiter->io->deadline_ns);
}

struct waiter *waiters_wake_one(struct waiter **list)
{
	struct waiter *waiter = *list;

	if (!waiter)
		return NULL;
	*list = waiter->next;
	waiter->next = NULL;
	waiter->waiting = false;
	waiter->host->resume(waiter->io);
	return waiter;
}

void waiters_wake(struct waiter **list)
{
	while (waiters_wake_one(list))
		;
}

void waiter_sleep(struct waiter *waiter, uint64_t ns, void (*step)(struct waiter *))
{
	assert(!waiter->step);
	waiter->step = step;
	waiter->host->resume_at(waiter->io, waiter->host->now_ns() + ns);
}

bool waiter_late(const struct waiter *waiter)
{
	return waiter->io->deadline_ns != UINT64_MAX &&
	       waiter->host->now_ns() >= waiter->io->deadline_ns;
}

/* It gives up; false: somebody has woken it meanwhile. */
static bool leave(struct waiter *waiter)
{
	bool waiting;

	pthread_mutex_lock(waiter->mutex);
	waiting = waiter->waiting;
	if (waiting) {
		struct waiter **at = waiter->list;

		while (*at != waiter)
			at = &(*at)->next;
		*at = waiter->next;
		waiter->next = NULL;
		waiter->waiting = false;
	}
	pthread_mutex_unlock(waiter->mutex);
	return waiting;
}

void waiter_resume(struct waiter *waiter)
{
	void (*step)(struct waiter *) = waiter->step;

	if (!step)
		return;
	waiter->step = NULL;
	if (!waiter->timed) {
		step(waiter);
		return;
	}
	waiter->timed = false;
	waiter->host->resume_at(waiter->io, UINT64_MAX);
	if (!waiter_late(waiter)) { /* so it was woken */
		step(waiter);
		return;
	}
	if (leave(waiter)) {
		waiter->expire(waiter);
		return;
	}
	/*
	 * Woken, too. Whether this is the deadline's resume() or the other one cannot
	 * be told; asking once more leaves exactly one to come.
	 */
	waiter->step = waiter->expire;
	waiter->host->resume(waiter->io);
}
