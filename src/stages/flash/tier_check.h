/* SPDX-License-Identifier: Apache-2.0 */
/* For tests alone: the state that the flash stage has in memory, checked as a whole. */
#ifndef FLASH_TIER_CHECK_H
#define FLASH_TIER_CHECK_H

#include <stdbool.h>
#include <stddef.h>

struct flash;

/*
 * Checks what the stage's files state as invariants: table and places, live and held
 * units of each region and of the policy, drafts, free and open regions, spans, blocks
 * being written. False with a line in @why. @idle: no io and no job is under way, so
 * nothing is claimed, pinned or waited for. O(records); takes the mutex.
 */
bool flash_tier_check(struct flash *tier, bool idle, char *why, size_t why_bytes);

#endif
