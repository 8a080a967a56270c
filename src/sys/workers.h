/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded pool of threads that run the blocking parts of chains, for all
 * engines of a store together. Threads are started on demand, sleep when idle
 * and end at close.
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

/* One engine's side of the pool; the engine sets all but `ended`, which is zero. */
struct workers_client {
	struct workers *workers;
	workers_fn *fn;
	void *context;
	struct bell *bell; /* rings when a chain can be taken */
	struct chain_queue ended;
};

/* @max > 0. */
int workers_open(const struct sys *sys, uint32_t max, struct workers **ret_workers);

/* Nothing may be queued or running. NULL is ignored. */
void workers_close(struct workers *workers);

/*
 * False: no thread could be started and none is there; the chain stays the
 * caller's. Owner of the client, which may go away once it has taken back all
 * that it pushed.
 */
bool workers_push(struct workers_client *client, struct engine_chain *chain);

/* Takes the client's chains that have ended. Owner of the client. */
struct chain_queue workers_take(struct workers_client *client);

#endif
