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

#endif
