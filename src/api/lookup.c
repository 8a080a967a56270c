/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "core/holds.h"
#include "core/lookup.h"

static int64_t look(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		    bool chain, struct cairn_found *found, const struct cairn_lookup_opts *opts,
		    uint64_t *ret_hold)
{
	bool hold = opts && (opts->flags & CAIRN_LOOKUP_HOLD);
	int ret;

	if (!ns || (!keys && count > 0) || (!found && !chain && count > 0) || count > INT32_MAX ||
	    hold != (ret_hold != NULL))
		return -EINVAL;
	if (opts && (opts->size != sizeof(*opts) || (opts->flags & ~CAIRN_LOOKUP_HOLD) ||
		     opts->reserved != 0))
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret < 0)
		return ret;
	return lookup_run(ns, keys, count, chain, found, opts ? opts->hold_ns : 0, ret_hold);
}

int64_t cairn_lookup(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		     struct cairn_found *found, const struct cairn_lookup_opts *opts,
		     uint64_t *ret_hold)
{
	return look(ns, keys, count, false, found, opts, ret_hold);
}

int64_t cairn_lookup_prefix(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
			    struct cairn_found *found, const struct cairn_lookup_opts *opts,
			    uint64_t *ret_hold)
{
	return look(ns, keys, count, true, found, opts, ret_hold);
}

int cairn_hold_release(struct cairn_store *store, uint64_t hold)
{
	int ret = store_enter(store);

	if (ret < 0 || hold == 0)
		return ret;
	return hold_release(store, hold);
}
