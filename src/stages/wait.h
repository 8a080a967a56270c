/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an io of a tier waits: in a list until it is woken, or for a time.
 *
 * Invariants, numbered:
 *  1. An io waits for one thing at a time; step is set only while resume() is to
 *     come, and is what it goes on with.
 *  2. What waits in a list by waiter_wait() holds nothing, and ends at its
 *     deadline: the timer and a wake may then come both, and it ends after the
 *     later one. What waits by waiter_park() may hold something and is not timed:
 *     only for what is sure to come.
 *
 * Owner: the io's reactor. Lists are guarded by the tier's mutex, marked [m].
 */
#ifndef STAGES_WAIT_H
#define STAGES_WAIT_H

#include <pthread.h>
#include <stdbool.h>

#include <cairn/stage.h>

struct waiter {
	struct cairn_io *io;
	const struct cairn_stage_host *host;
	pthread_mutex_t *mutex;
	void (*step)(struct waiter *);
	void (*expire)(struct waiter *); /* at the deadline, in a list no more */
	struct waiter *next, **list;	 /* [m] */
	bool waiting;			 /* [m] */
	bool timed;
};

/* [m] Until waiters_wake() of the list, or the io's deadline. */
void waiter_wait(struct waiter *waiter, struct waiter **list, void (*step)(struct waiter *));
/* [m] Until waiters_wake() of the list. */
void waiter_park(struct waiter *waiter, struct waiter **list, void (*step)(struct waiter *));
/* [m] Wakes all: each looks again for itself. */
void waiters_wake(struct waiter **list);
/* [m] Wakes the one that came last, if there is one, and returns it. */
struct waiter *waiters_wake_one(struct waiter **list);
void waiter_sleep(struct waiter *waiter, uint64_t ns, void (*step)(struct waiter *));
/* Its deadline has passed: nobody waits for the io any more. */
bool waiter_late(const struct waiter *waiter);
/* From the stage's resume(). */
void waiter_resume(struct waiter *waiter);

#endif
