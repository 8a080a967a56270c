/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds: what a lookup counted stays until it is released or expires. Bounded in
 * keys, bytes and time; all memory is made at open.
 *
 * Invariants:
 *  1. bytes is the sum over all held keys of what they were charged, <= bytes_max.
 *  2. A key held by a tier has exactly one node, and is given back exactly once.
 */
#ifndef CORE_HOLDS_H
#define CORE_HOLDS_H

#include "core/store.h"

int holds_init(struct cairn_store *store);
void holds_fini(struct cairn_store *store); /* gives everything back to the tiers */

/*
 * A hold being made: begin, add what a tier holds (false: over the bounds, the
 * caller gives it back to the tier), then end, which returns the hold, 0 when
 * nothing was @counted or no slot was free. One thread a hold; many holds at once.
 */
struct hold_builder {
	struct cairn_store *store;
	uint32_t slot; /* HOLD_NONE: no slot is free */
	bool sooner;   /* after hold_end(): it expires before all others */
};
#define HOLD_NONE UINT32_MAX

void hold_begin(struct cairn_store *store, struct hold_builder *builder);
bool hold_add(struct hold_builder *builder, struct cairn_namespace *ns, uint32_t level,
	      const struct cairn_key *key, uint64_t tier_hold, uint64_t bytes);
uint64_t hold_end(struct hold_builder *builder, bool counted, uint64_t expires_ns);

/* 0 or -ENOENT: it had expired, even if nobody gave it back yet. */
int hold_release(struct cairn_store *store, uint64_t id);

/* Gives back what has expired; returns when the next one does, UINT64_MAX for none. */
uint64_t holds_expire(struct cairn_store *store, uint64_t now_ns);

/* When the next hold expires; any thread. */
uint64_t holds_next_ns(const struct cairn_store *store);

#endif
