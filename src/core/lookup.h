/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_LOOKUP_H
#define CORE_LOOKUP_H

#include "core/store.h"

/* As cairn_lookup() and, with @chain, cairn_lookup_prefix(); arguments are checked already. */
int64_t lookup_run(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		   bool chain, struct cairn_found *found, uint64_t hold_ns, uint64_t *ret_hold);

#endif
