/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of the store and its stages: one array, first in private memory, and
 * from counters_publish() on in a page that any tool of this machine may map.
 */
#ifndef CORE_COUNTERS_H
#define CORE_COUNTERS_H

#include "core/store.h"

int counters_init(struct cairn_store *store); /* after the levels are known */
void counters_fini(struct cairn_store *store);

/*
 * Moves the counters to /dev/shm/cairn-<uuid of the lowest tier>. Without one, or
 * where the page cannot be had, they stay where they are. Alone, before threads.
 */
void counters_publish(struct cairn_store *store);

/* Says in the page what carries the I/O, once that is settled. */
void counters_tell_engine(struct cairn_store *store);

/*
 * Calls @fn for the counters of the live store of @uuid, as cairn_live_counters()
 * says; @in_use is what identify() returned, and the levels of @store, resolved but
 * not open, know their help. The page is
 * validated: hostile bytes are -EPROTO, never a crash.
 */
int counters_read_live(const struct cairn_store *store, const uint8_t uuid[16], int in_use,
		       int (*fn)(void *context, const struct cairn_counter *counter), void *context,
		       struct cairn_live *ret_live, struct cairn_error *reterr);

#endif
