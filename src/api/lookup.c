/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/sized.h"
#include "core/holds.h"
#include "core/lookup.h"

/* How long a hold lasts: bounded, for whoever forgets to release it. */
static uint64_t hold_span_ns(const struct cairn_store *store, const struct cairn_lookup_opts *opts)
{
	uint64_t most_ns = store->settings[SET_HOLD_MAX].u;
	uint64_t span_ns = opts && opts->hold_ns ? opts->hold_ns : store->settings[SET_HOLD_TIME].u;

	return span_ns < most_ns ? span_ns : most_ns;
}

static int64_t look(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		    bool chain, struct cairn_found *found, const struct cairn_lookup_opts *opts,
		    uint64_t *ret_hold)
{
	bool hold = opts && (opts->flags & CAIRN_LOOKUP_HOLD);
	int ret;

	if (!ns || (!keys && count > 0) || (!found && !chain && count > 0) || count > INT32_MAX ||
	    hold != (ret_hold != NULL))
		return -EINVAL;
	if (opts && (!sized(opts, opts->size, sizeof(*opts)) ||
		     (opts->flags & ~CAIRN_LOOKUP_HOLD) || opts->reserved != 0))
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret < 0)
		return ret;
	return lookup_run(ns, keys, count, chain, found, hold_span_ns(ns->store, opts), ret_hold);
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
