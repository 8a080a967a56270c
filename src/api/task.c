/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "api/check.h"
#include "base/hot.h"
#include "core/submit.h"
#include "core/task.h"

HIT_PATH static int move(struct cairn_namespace *ns, enum cairn_op op, struct cairn_xfer *xfers,
			 size_t count, const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	struct submission submission = {
		.ns = ns, .op = op, .xfers = xfers, .count = (uint32_t)count};
	int ret;

	if (!ns || (!xfers && count > 0) || count > INT32_MAX)
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret == 0)
		ret = check_task_opts(ns->store, opts, !ret_task, &submission.opts);
	for (size_t i = 0; ret == 0 && i < count; i++)
		ret = check_xfer(&ns->view, &xfers[i], op == CAIRN_OP_DUMP);
	return ret < 0 ? ret : submit(&submission, ret_task);
}

HIT_PATH int cairn_load(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
			const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	return move(ns, CAIRN_OP_LOAD, xfers, count, opts, ret_task);
}

int cairn_dump(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
	       const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	return move(ns, CAIRN_OP_DUMP, xfers, count, opts, ret_task);
}

static int name(struct cairn_namespace *ns, enum cairn_op op, const struct cairn_key *keys,
		size_t count, struct cairn_result *results, const struct cairn_task_opts *opts,
		uint64_t *ret_task)
{
	struct submission submission = {
		.ns = ns, .op = op, .keys = keys, .results = results, .count = (uint32_t)count};
	int ret;

	if (!ns || (!keys && count > 0) || count > INT32_MAX)
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret == 0)
		ret = check_task_opts(ns->store, opts, !ret_task, &submission.opts);
	return ret < 0 ? ret : submit(&submission, ret_task);
}

int cairn_remove(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		 struct cairn_result *results, const struct cairn_task_opts *opts,
		 uint64_t *ret_task)
{
	return name(ns, CAIRN_OP_REMOVE, keys, count, results, opts, ret_task);
}

int cairn_prefetch(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		   struct cairn_result *results, const struct cairn_task_opts *opts,
		   uint64_t *ret_task)
{
	return name(ns, CAIRN_OP_PREFETCH, keys, count, results, opts, ret_task);
}

int cairn_task_wait(struct cairn_store *store, uint64_t id, uint32_t events, uint64_t timeout_ns)
{
	struct task *task;
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	if (events & ~(CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE))
		return -EINVAL;
	task = task_find(store, id);
	if (!task)
		return -EINVAL;
	if (!task->queue && !task->done && !task->sync)
		return task_wait(task, events, timeout_ns);
	pthread_mutex_unlock(&task->lock);
	return -EINVAL;
}

int cairn_task_cancel(struct cairn_store *store, uint64_t id)
{
	struct task *task;
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	task = task_find(store, id);
	if (!task)
		return -EINVAL;
	task_cancel_locked(task);
	pthread_mutex_unlock(&task->lock);
	return 0;
}
