/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a simulation, of which one runs at a time: each is a stack that is
 * left and entered again where it may be interleaved with the others, that is before
 * a mutex is taken and after one was given back, and where it waits.
 *
 * The program is linked with --wrap=pthread_mutex_lock and the like: who finds a
 * mutex taken leaves its stack until it is free, and who waits for a condition until it
 * is told of.
 */
#ifndef TESTS_SIM_FIBERS_H
#define TESTS_SIM_FIBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "../fault/kit.h"

#define FIBERS_MAX 8u
#define FIBER_NONE UINT32_MAX

/* All are idle. At a mutex one in 1000 / @per_mille leaves its stack; draws from @rng. */
void fibers_begin(struct kit_rng *rng, uint32_t per_mille);
/* What they were doing is never gone on with. */
void fibers_abandon(void);

bool fiber_idle(uint32_t fiber);
/* It was left, and what it waited for is there. */
bool fiber_ready(uint32_t fiber);
/* Runs fn(@what), or goes on with what was left, until it ends or is left. */
void fiber_start(uint32_t fiber, void (*fn)(void *what), void *what);
void fiber_go_on(uint32_t fiber);
/* Which one this is; FIBER_NONE: none. */
uint32_t fiber_self(void);
/* How often any mutex was given back. */
uint64_t fibers_unlocks(void);
/* Leaves until fiber_wake(). */
void fiber_wait(void);
void fiber_wake(uint32_t fiber);

#endif
