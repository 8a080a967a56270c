/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "api/check.h"
#include "core/submit.h"

/* The first stage, if it is a memory tier; else NULL. */
static const struct level *memory_tier(const struct cairn_store *store)
{
	const struct level *level = &store->levels[0];

	return level->ops->pin ? level : NULL;
}

int cairn_pin(struct cairn_namespace *ns, const struct cairn_key *key, uint32_t shard,
	      struct cairn_pinned *ret_pinned)
{
	const struct level *level;
	int ret;

	if (!ns || !key || !ret_pinned)
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret < 0)
		return ret;
	if (shard >= (ns->view.shard_count ? ns->view.shard_count : CAIRN_SHARD_COUNT_MAX))
		return -EINVAL;
	level = memory_tier(ns->store);
	return level ? level->ops->pin(level->self, &ns->view, key, shard, ret_pinned)
		     : -EOPNOTSUPP;
}

int cairn_unpin(struct cairn_store *store, uint64_t pin)
{
	int ret = store_enter(store);
	const struct level *level;

	if (ret < 0)
		return ret;
	level = memory_tier(store);
	return level ? level->ops->unpin(level->self, pin) : -EINVAL;
}

int cairn_reserve(struct cairn_namespace *ns, const struct cairn_xfer *shape,
		  struct cairn_reserved *ret_reserved)
{
	const struct level *level;
	int ret;

	if (!ns || !shape || !ret_reserved)
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret < 0)
		return ret;
	ret = check_shape(&ns->view, shape);
	if (ret < 0)
		return ret;
	level = memory_tier(ns->store);
	return level ? level->ops->reserve(level->self, &ns->view, shape, ret_reserved)
		     : -EOPNOTSUPP;
}

int cairn_commit(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
		 const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	struct cairn_task_opts own = {0};
	const struct level *level;
	int ret;

	if (!ns || (!xfers && count > 0))
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret == 0)
		ret = check_task_opts(ns->store, opts, !ret_task, &own);
	if (ret < 0)
		return ret;
	level = memory_tier(ns->store);
	if (!level)
		return -EOPNOTSUPP;
	/* The memory is the store's own: what a detached task promises holds, without a copy. */
	own.size = sizeof(own);
	own.flags &= ~CAIRN_TASK_DETACH;
	for (size_t i = 0; i < count; i++)
		if (level->ops->reserved(level->self, &xfers[i]) < 0)
			return -EINVAL;
	return cairn_dump(ns, xfers, count, &own, ret_task);
}

int cairn_abort(struct cairn_store *store, void *base)
{
	int ret = store_enter(store);
	const struct level *level;

	if (ret < 0)
		return ret;
	level = memory_tier(store);
	return level ? level->ops->abort(level->self, base) : -EINVAL;
}
