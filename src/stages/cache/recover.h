/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the death of a client: what it had comes back. The caller holds its lock, so it
 * is dead, and all I/O of its has ended. May be done again from any point on, by another,
 * if this one dies too.
 */
#ifndef STAGES_CACHE_RECOVER_H
#define STAGES_CACHE_RECOVER_H

#include "stages/cache/map.h"

/*
 * @scratch: zeroed, recover_scratch_bytes(); NULL: counts of children stay as they are,
 * which may keep blocks from being evicted until the next time.
 */
void recover_client(struct cache_map *map, uint32_t dead, void *scratch);
size_t recover_scratch_bytes(const struct cache_map *map);

/*
 * Does all that is shared fit together? For tests (check.c), with nobody in a call. @idle:
 * nothing is pinned, filling, or removed and still there either. False with a line in @why.
 */
bool cache_check(const struct cache_map *map, bool idle, char *why, size_t why_bytes);

#endif
