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

/* Calls @fn with what @latency holds, as cairn_latencies() says. */
int counters_tell_latency(const char *op, const struct latency *latency,
			  int (*fn)(void *context, const struct cairn_latency *latency),
			  void *context);
const char *counters_op(enum store_latency op);

/* What a reader of a live store wants of it: one of the two functions, or both. */
struct counters_reader {
	int (*counter)(void *context, const struct cairn_counter *counter);
	int (*latency)(void *context, const struct cairn_latency *latency);
	void *context;
};

/*
 * Reads the page of the live store of @uuid, as cairn_live_counters() and
 * cairn_live_figures() say; @in_use is what identify() returned, and the levels of
 * @store, resolved but not open, know the help of their counters. The page is
 * validated: hostile bytes are -EPROTO, never a crash.
 */
int counters_read_live(const struct cairn_store *store, const uint8_t uuid[16], int in_use,
		       const struct counters_reader *reader, struct cairn_live *ret_live,
		       struct cairn_error *reterr);

#endif
