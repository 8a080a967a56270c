/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sys table over the native one in which the n-th call fails, once. Calls are
 * system calls, allocations, and the operations of the engines' chains, each of
 * which can be chosen to count.
 *
 * One at a time in a process: the table is global, as sys_native is.
 */
#ifndef TESTS_FAULT_CHAOS_H
#define TESTS_FAULT_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "sys/sys.h"

#define CHAOS_CALLS  0x1u /* system calls */
#define CHAOS_ALLOCS 0x2u /* alloc and mmap */
#define CHAOS_OPS    0x4u /* of the engines' chains */

/* Errors of chaos_arm(): */
#define CHAOS_SHORT (-10001) /* a short transfer, else EIO */
#define CHAOS_LATE  (-10002) /* it is done, and EIO says it was not, as on some networks */

extern const struct sys chaos_sys;

/* The @nth (from 1; 0: none) of what @counted names fails with @error (negative). */
void chaos_arm(unsigned counted, uint64_t nth, int error);

/* Calls of the armed kinds so far, and whether the fault fired. */
uint64_t chaos_count(void);
bool chaos_fired(void);
/* What failed: "openat", "op WRITEV" ...; "" before it fired. Static. */
const char *chaos_what(void);

/* Allocations and mappings that were not given back yet. */
int64_t chaos_memory_out(void);

#endif
