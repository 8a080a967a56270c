/* SPDX-License-Identifier: Apache-2.0 */
/* What comes at a time of the simulated clock, the earliest first. */
#ifndef TESTS_SIM_TIMED_H
#define TESTS_SIM_TIMED_H

#include "host.h"

enum timed_kind { TIMED_OP, TIMED_RESUME, TIMED_WAKE, TIMED_JOB };

struct timed {
	uint64_t when_ns;
	void *what;
	uint32_t kind, number; /* the io's timer; the fiber; the disk's operation; the sleep */
	bool write;	       /* the operation: it is not a read */
	bool late;	       /* ... the device hung when its time had come */
	uint64_t began_ns;     /* ... */
};

void timed_add(struct timed timed);
/* The earliest; there is one. */
struct timed timed_take(void);
bool timed_any(void);
void timed_clear(void);
/* It is not answered now: it comes later, or never. */
bool timed_hangs(struct timed *timed);
/* It was not answered in its time, and has failed. */
bool timed_fails(const struct timed *timed, struct kit_rng *rng);

#endif
