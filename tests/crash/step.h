/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child that makes one call and is killed in the middle of it, after so many instructions
 * or system calls; and what a cache's region must stand after that.
 *
 * The child makes its call between two int3; its parent counts from the first.
 */
#ifndef TESTS_CRASH_STEP_H
#define TESTS_CRASH_STEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "stages/cache/map.h"

/* Stopped before its call, play(context). Ends the program as skipped where there is no ptrace. */
pid_t step_child(void (*play)(void *context), void *context);
/* These run the child on; true: the call was over before. *ret_count: how many it made. */
bool step_instructions(pid_t pid, uint64_t most, uint64_t *ret_count);
/* Before and after each system call it stops. */
bool step_stops(pid_t pid, uint64_t most, uint64_t *ret_count);
/* To before the next system call. */
bool step_to_call(pid_t pid, uint64_t *ret_count);
void step_kill(pid_t pid);

/* Nothing is pinned: each chunk that has memory can be had as one slot. */
void step_regain(struct cache_map *map);

#endif
