/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine's owner sleeps on: an eventfd that wake() and workers write to.
 */
#ifndef SYS_BELL_H
#define SYS_BELL_H

#include "sys/sys.h"

struct bell {
	int fd;
	uint32_t woken; /* bell_wake() was called; atomic */
};

int bell_open(struct bell *bell); /* 0 or a negative errno */
void bell_close(struct bell *bell, const struct sys *sys);

/* Ends a wait for the bell, the current one or the next. Any thread, async-signal-safe. */
void bell_ring(struct bell *bell);

/*
 * Likewise, and leaves a mark for bell_woken(). Many calls before the mark is
 * taken are one system call.
 */
void bell_wake(struct bell *bell);

/* Takes the mark. Owner. */
bool bell_woken(struct bell *bell);

/* Ends the ringing, so that the next ring is heard. Owner. */
void bell_clear(struct bell *bell);

/* Waits for a ring for at most @wait_ns (UINT64_MAX: for ever), and clears it. Owner. */
void bell_wait(struct bell *bell, uint64_t wait_ns);

/* The time @wait_ns from now; UINT64_MAX stays. */
uint64_t deadline_after(const struct sys *sys, uint64_t wait_ns);

/* Time left until @deadline_ns, 0 when it has passed; UINT64_MAX stays. */
uint64_t deadline_left(const struct sys *sys, uint64_t deadline_ns);

#endif
