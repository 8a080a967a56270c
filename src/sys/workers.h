/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded pool of threads that run the blocking parts of chains. Threads are
 * started on demand, sleep when idle and end at close.
 */
#ifndef SYS_WORKERS_H
#define SYS_WORKERS_H

#include "sys/bell.h"
#include "sys/chain.h"

struct workers;

/*
 * Runs @chain on a worker, as far as it can. True: it has ended, and goes to
 * workers_take(). False: it is no longer this thread's; it must not be touched.
 */
typedef bool workers_fn(void *context, struct engine_chain *chain);

/* @max > 0. @bell, which outlives the pool, rings when a chain can be taken. */
int workers_open(const struct sys *sys, uint32_t max, struct bell *bell, workers_fn *fn,
		 void *context, struct workers **ret_workers);

/* Nothing may be queued or running. NULL is ignored. */
void workers_close(struct workers *workers);

/* False: no thread could be started and none is there; the chain stays the caller's. Owner. */
bool workers_push(struct workers *workers, struct engine_chain *chain);

/* Takes the chains that have ended. Owner. */
struct chain_queue workers_take(struct workers *workers);

#endif
