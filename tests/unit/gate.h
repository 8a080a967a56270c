/* SPDX-License-Identifier: Apache-2.0 */
/* A gate in a call that a test has wrapped: shut, it keeps a thread of the store's there. */
#ifndef TESTS_UNIT_GATE_H
#define TESTS_UNIT_GATE_H

#include <pthread.h>
#include <stdbool.h>

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool shut, reached;
} the_gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* From the wrapped call: waits while it is shut. */
static void gate_pass(void)
{
	pthread_mutex_lock(&the_gate.lock);
	the_gate.reached = true;
	pthread_cond_broadcast(&the_gate.changed);
	while (the_gate.shut)
		pthread_cond_wait(&the_gate.changed, &the_gate.lock);
	pthread_mutex_unlock(&the_gate.lock);
}

static void gate(bool shut)
{
	pthread_mutex_lock(&the_gate.lock);
	the_gate.shut = shut;
	the_gate.reached = false;
	pthread_cond_broadcast(&the_gate.changed);
	pthread_mutex_unlock(&the_gate.lock);
}

/* Returns when somebody has come to it since it was last moved. */
static void gate_await(void)
{
	pthread_mutex_lock(&the_gate.lock);
	while (!the_gate.reached)
		pthread_cond_wait(&the_gate.changed, &the_gate.lock);
	pthread_mutex_unlock(&the_gate.lock);
}

#endif
