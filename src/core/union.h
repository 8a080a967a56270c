/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The union of tiers: a block that no tier has whole, and all of them together do.
 *
 * Such a block can only come to be when one tier took a dump that failed in
 * another: without that the shards that two tiers hold of an unfinished block are
 * all that were dumped since it was begun there, so one's are among the other's.
 * Until it happens for the first time in a store, nothing here is asked.
 */
#ifndef CORE_UNION_H
#define CORE_UNION_H

#include "core/store.h"

/*
 * True: the block is whole, in one tier or over several, and @ret_found is what
 * is known of it. Only in a store whose tiers have ever disagreed. Any thread; a
 * few locks, no I/O.
 */
bool union_find(struct cairn_store *store, const struct cairn_ns_view *ns,
		const struct cairn_key *key, struct cairn_found *ret_found);

/* A tier that persists has it whole. `shared=yes` makes one probe of the file system. */
bool union_lasts(struct cairn_store *store, const struct cairn_ns_view *ns,
		 const struct cairn_key *key);

static inline bool union_possible(const struct cairn_store *store)
{
	return store->union_top >= 0 && mark_get(&store->disagreed);
}

/* A tier ended the dump of a shard with @a and another one with @b. */
static inline bool union_disagree(int32_t a, int32_t b)
{
	/* -EOPNOTSUPP: it was taken, but not as lastingly as was asked. */
	return (a >= 0 || a == -EOPNOTSUPP) != (b >= 0 || b == -EOPNOTSUPP);
}

#endif
