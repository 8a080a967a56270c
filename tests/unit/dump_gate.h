/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A posix tier as the stage `lower`, with a gate in front that keeps dumps there, or ends them
 * with an error. Of the stores of a process all meet the one gate.
 */
#ifndef TESTS_UNIT_DUMP_GATE_H
#define TESTS_UNIT_DUMP_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "lower.h"

#define HELD_MAX 256u

static struct {
	pthread_mutex_t lock;
	uint32_t hold;	 /* dumps that are still to be kept at the gate */
	uint32_t refuse; /* ... that are to end with `error` */
	int error;
	uint32_t dumps; /* that came */
	uint32_t held_count, free_count;
	struct cairn_io *held[HELD_MAX], *freed[HELD_MAX];
} below = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lower_submit(void *self, struct cairn_io *io, void *scratch)
{
	bool held = false, refused = false;

	pthread_mutex_lock(&below.lock);
	if (io->op == CAIRN_OP_DUMP) {
		below.dumps++;
		if (below.refuse > 0) {
			below.refuse--;
			refused = true;
			cairn_io_fail(io, -below.error);
		} else if (below.hold > 0) {
			below.hold--;
			held = true;
			assert_true(below.held_count < HELD_MAX);
			below.held[below.held_count++] = io;
		}
	}
	pthread_mutex_unlock(&below.lock);
	if (refused)
		lower_host->complete(io);
	else if (!held)
		cairn_stage_posix.submit(self, io, scratch);
}

static void lower_resume(void *self, struct cairn_io *io, void *scratch)
{
	bool freed = false;

	pthread_mutex_lock(&below.lock);
	for (uint32_t i = 0; i < below.free_count && !freed; i++) {
		if (below.freed[i] != io)
			continue;
		below.freed[i] = below.freed[--below.free_count];
		freed = true;
	}
	pthread_mutex_unlock(&below.lock);
	if (freed)
		cairn_stage_posix.submit(self, io, scratch);
	else
		cairn_stage_posix.resume(self, io, scratch);
}

static void gate_shut(uint32_t hold)
{
	pthread_mutex_lock(&below.lock);
	below.hold = hold;
	below.dumps = 0;
	pthread_mutex_unlock(&below.lock);
}

/* The first @count of those that are kept there, or all. */
static void gate_let_in(uint32_t count)
{
	pthread_mutex_lock(&below.lock);
	if (count > below.held_count)
		count = below.held_count;
	for (uint32_t i = 0; i < count; i++) {
		assert_true(below.free_count < HELD_MAX);
		below.freed[below.free_count++] = below.held[i];
		lower_host->resume(below.held[i]);
	}
	below.held_count -= count;
	memmove(below.held, below.held + count, below.held_count * sizeof(below.held[0]));
	pthread_mutex_unlock(&below.lock);
}

static void gate_open(void)
{
	pthread_mutex_lock(&below.lock);
	below.hold = 0;
	pthread_mutex_unlock(&below.lock);
	gate_let_in(HELD_MAX);
}

static void await_dumps(uint32_t count)
{
	uint32_t now;

	do {
		usleep(1000);
		pthread_mutex_lock(&below.lock);
		now = below.dumps;
		pthread_mutex_unlock(&below.lock);
	} while (now < count);
}

static void refuse(uint32_t count, int error)
{
	pthread_mutex_lock(&below.lock);
	below.refuse = count;
	below.error = error;
	pthread_mutex_unlock(&below.lock);
}

static int gate_build(void **state)
{
	(void)state;
	lower_build();
	return 0;
}

#endif
