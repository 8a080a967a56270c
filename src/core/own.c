/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks of stages' own: dumps that begin at the stage below. They are tasks like others, with
 * slots and ios kept for them, so that what callers' tasks wait for is never behind these.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/own.h"
#include "core/reactor.h"
#include "core/submit.h"

static void hold_back(const struct cairn_stage_env *env, bool preset, const struct stage_back *back)
{
	struct cairn_store *store = store_of_env(env);

	assert(env->index == 0 && env->below > 0 && store->reactor_count == 0);
	store->back = back;
	store->back_preset = preset;
}

static int own_dump(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
		    struct cairn_xfer *xfers, uint32_t count,
		    void (*done)(void *context, uint64_t task, uint32_t events), void *context)
{
	struct cairn_store *store = store_of_env(env);
	uintptr_t at = (uintptr_t)ns; /* const for the stages only */
	struct submission s = {
		.ns = (struct cairn_namespace *)(at - offsetof(struct cairn_namespace, view)),
		.op = CAIRN_OP_DUMP,
		.xfers = xfers,
		.count = count,
		.opts = {.size = sizeof(s.opts),
			 .durability = store->persists ? CAIRN_WRITTEN : CAIRN_MEMORY,
			 .done = done,
			 .context = context},
		.first_level = env->index + 1,
	};
	struct task *task;
	uint64_t now_ns;

	assert(count > 0 && s.first_level < store->level_count && store->back);
	task = task_take_own(store);
	if (!task)
		return -EAGAIN;
	now_ns = store->sys->now_ns();
	task_init(task, &s, now_ns, deadline_of(now_ns, store->settings[SET_DEADLINE].u), false);
	store_count(store, COUNT_QUEUED_XFERS, count);
	task_dispatch(task);
	return 0;
}

static const struct cairn_ns_view *find_namespace(const struct cairn_stage_env *env,
						  bool (*fits)(const struct cairn_stage_env *env,
							       const struct cairn_ns_view *ns,
							       uint64_t what),
						  uint64_t what)
{
	struct cairn_store *store = store_of_env(env);
	const struct cairn_namespace *ns;

	pthread_mutex_lock(&store->lock);
	ns = store->namespaces;
	while (ns && !fits(env, &ns->view, what))
		ns = ns->next;
	pthread_mutex_unlock(&store->lock);
	return ns ? &ns->view : NULL;
}

void own_env_init(struct stage_env *internal)
{
	internal->hold_back = hold_back;
	internal->own_dump = own_dump;
	internal->find_namespace = find_namespace;
}
