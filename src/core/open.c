/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing. Order at open: text, memory, counters, stages from the
 * lowest up, engine, reactors, threads. At close: threads, stages, reactors, memory.
 * What was not made is NULL or zero, so one function takes apart whatever there is.
 */
#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "core/engines.h"
#include "core/holds.h"
#include "core/memory.h"
#include "core/namespace.h"
#include "core/own.h"
#include "core/pipeline.h"
#include "core/reactor.h"
#include "core/settings.h"

#define SETTLE_NS 1000000u /* while the store closes: how often what is held back is asked for */

/* ---- what stages of this library get beyond stage.h ------------------------- */

static int env_guard(const struct cairn_stage_env *env, int fd)
{
	struct cairn_store *store = store_of_env(env);

	if (store->guard_count == sizeof(store->guards) / sizeof(store->guards[0]))
		return -ENOMEM;
	store->guards[store->guard_count++] = fd;
	return 0;
}

static void env_split_dumps(const struct cairn_stage_env *env)
{
	store_of_env(env)->split_dumps = true;
}

static void env_lend(const struct cairn_stage_env *env, void *base, size_t bytes)
{
	struct cairn_store *store = store_of_env(env);

	if (store->lent_count < LENT_MAX)
		store->lent[store->lent_count++] = (struct engine_memory){base, bytes};
}

static int env_engine_early(const struct cairn_stage_env *env, uint32_t chains_max,
			    const struct engine_ops **ret_ops, struct engine **ret_engine)
{
	return engine_early(store_of_env(env), chains_max, ret_ops, ret_engine);
}

static void env_engine_early_end(const struct cairn_stage_env *env)
{
	engine_early_end(store_of_env(env));
}

static void env_fork_close(const struct cairn_stage_env *env, int fd, bool forget)
{
	struct cairn_store *store = store_of_env(env);

	fork_hold();
	for (size_t i = 0; i < sizeof(store->fork_fds) / sizeof(store->fork_fds[0]); i++) {
		if (store->fork_fds[i] != (forget ? fd : -1))
			continue;
		store->fork_fds[i] = forget ? -1 : fd;
		break;
	}
	fork_go_on();
}

static uint32_t env_reactors_ask(const struct cairn_stage_env *env, uint32_t count)
{
	struct cairn_value *reactors = &store_of_env(env)->settings[SET_REACTORS];

	if (!reactors->u)
		reactors->u = count;
	return (uint32_t)reactors->u;
}

static void env_sequence_raise(const struct cairn_stage_env *env, uint64_t at_least)
{
	struct cairn_store *store = store_of_env(env);

	pthread_mutex_lock(&store->lock);
	if (store->sequence < at_least)
		store->sequence = at_least;
	pthread_mutex_unlock(&store->lock);
}

static uint64_t env_sequence_now(const struct cairn_stage_env *env)
{
	struct cairn_store *store = store_of_env(env);
	uint64_t now;

	pthread_mutex_lock(&store->lock);
	now = store->sequence;
	pthread_mutex_unlock(&store->lock);
	return now;
}

static bool env_uuid_below(const struct cairn_stage_env *env, uint8_t ret_uuid[16])
{
	struct cairn_store *store = store_of_env(env);
	struct cairn_tier_stat st;
	bool found = false;

	memset(ret_uuid, 0, 16);
	for (uint32_t i = env->index + 1; i < store->level_count; i++) {
		const struct level *level = &store->levels[i];

		if (!(level->ops->flags & CAIRN_STAGE_TIER))
			continue;
		level->ops->stat(level->self, &st);
		memcpy(ret_uuid, st.uuid, sizeof(st.uuid));
		found = true;
	}
	return found;
}

static bool env_probe_below(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
			    const struct cairn_key *key, struct cairn_probe *ret_probe)
{
	struct cairn_store *store = store_of_env(env);

	for (uint32_t i = env->index + 1; i < store->level_count; i++) {
		const struct level *level = &store->levels[i];

		if (!(level->ops->flags & CAIRN_STAGE_TIER))
			continue;
		memset(ret_probe, 0, sizeof(*ret_probe));
		level->ops->lookup(level->self, ns, key, 1, 0, ret_probe);
		if (ret_probe->present)
			return true;
	}
	return false;
}

/* ---- open ------------------------------------------------------------------------ */

static int open_stages(struct cairn_store *store, struct cairn_error *reterr)
{
	for (uint32_t i = store->level_count; i-- > 0;) {
		struct level *level = &store->levels[i];
		struct cairn_error said = {0};
		int ret;

		level->internal.engine = io_engine;
		level->internal.engine_early = env_engine_early;
		level->internal.engine_early_end = env_engine_early_end;
		level->internal.guard = env_guard;
		level->internal.lend = env_lend;
		level->internal.split_dumps = env_split_dumps;
		level->internal.fork_close = env_fork_close;
		level->internal.reactors_ask = env_reactors_ask;
		level->internal.sequence_raise = env_sequence_raise;
		level->internal.sequence_now = env_sequence_now;
		level->internal.uuid_below = env_uuid_below;
		level->internal.probe_below = env_probe_below;
		jobs_env_init(&level->internal);
		own_env_init(&level->internal);
		level->self = sys_zalloc(store->sys, 64, level->ops->instance_bytes + 1);
		if (!level->self)
			return fail(reterr, -ENOMEM, "no memory for %s", level->name);
		ret = level->ops->open(level->self, &level->env, &said);
		if (ret < 0)
			return pipeline_fail(level, ret, &said, reterr);
		level->opened = true;
	}
	return 0;
}

static int open_all(struct cairn_store *store, const char *spec,
		    const struct cairn_store_opts *opts, struct cairn_error *reterr)
{
	int ret = pipeline_resolve(store, spec, opts, reterr);

	if (ret < 0)
		return ret;
	io_host_init(store);
	ret = counters_init(store);
	if (ret == 0)
		ret = tasks_init(store, (uint32_t)store->settings[SET_TASKS].u);
	if (ret == 0)
		ret = holds_init(store);
	if (ret < 0)
		return fail(reterr, ret, "no memory for the tables of the store");
	ret = engines_choose(store, reterr);
	if (ret == 0)
		ret = open_stages(store, reterr);
	if (ret < 0)
		return ret;
	counters_publish(store);
	ret = engines_open(store, reterr);
	if (ret == 0)
		counters_tell_engine(store);
	return ret;
}

static void take_apart(struct cairn_store *store)
{
	const struct sys *sys = store->sys;

	for (uint32_t i = 0; i < store->reactor_count; i++)
		reactor_stop(store->reactors[i]);
	holds_fini(store);
	/* Before the reactors go: a thread of a stage's may be in resume() until its close(). */
	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];

		if (level->opened)
			level->ops->close(level->self);
		sys->free(level->self);
	}
	engines_close(store);
	fork_forget(store);
	namespaces_fini(store);
	tasks_fini(store);
	memory_fini(store);
	counters_fini(store);
	pipeline_fini(store);
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->bind_lock);
	pthread_cond_destroy(&store->changed);
	store->magic = 0;
	sys->free(store);
}

struct cairn_store *store_new(const struct sys *sys)
{
	struct cairn_store *store = sys_zalloc(sys, 64, sizeof(*store));

	if (!store)
		return NULL;
	store->sys = sys;
	mutex_init_short(&store->lock);
	pthread_mutex_init(&store->bind_lock, NULL);
	cond_init_monotonic(&store->changed);
	list_init(&store->free_tasks);
	list_init(&store->own_tasks);
	for (size_t i = 0; i < sizeof(store->fork_fds) / sizeof(store->fork_fds[0]); i++)
		store->fork_fds[i] = -1;
	return store;
}

int store_open(const struct sys *sys, const char *spec, const struct cairn_store_opts *opts,
	       struct cairn_store **ret_store, struct cairn_error *reterr)
{
	struct cairn_store *store;
	int ret;

	if (!ret_store)
		return fail(reterr, -EINVAL, "nowhere to put the handle");
	store = store_new(sys);
	if (!store)
		return fail(reterr, -ENOMEM, "no memory for a store");
	/* Known from here on, so that a child forked meanwhile closes what was opened. */
	fork_register(store);
	ret = open_all(store, spec, opts, reterr);
	if (ret < 0) {
		take_apart(store);
		return ret;
	}
	store->magic = STORE_MAGIC;
	*ret_store = store;
	return 0;
}

int cairn_store_open(const char *spec, const struct cairn_store_opts *opts,
		     struct cairn_store **ret_store, struct cairn_error *reterr)
{
	return store_open(&sys_native, spec, opts, ret_store, reterr);
}

static bool busy(const struct cairn_store *store)
{
	return store->tasks_running > 0 || store->orphans > 0 || store->callers > 0 ||
	       store->light_count < store->lights_made;
}

/* What the first stage has held back: is anything left of it? Its lock is let go meanwhile. */
static bool settle(struct cairn_store *store, bool first)
{
	bool left;

	if (!store->back)
		return false;
	pthread_mutex_unlock(&store->lock);
	left = store->back->settle(store->levels[0].self, first);
	pthread_mutex_lock(&store->lock);
	return left;
}

/* Until nothing is under way, and nothing is held back. The store is locked. */
static int come_to_rest(struct cairn_store *store, uint64_t until_ns)
{
	bool first = true;
	int ret = 0;

	while (ret == 0) {
		uint64_t now_ns, look_ns;

		if (busy(store)) {
			ret = cond_wait_until(&store->changed, &store->lock, until_ns);
			continue;
		}
		if (!settle(store, first) && !busy(store))
			break;
		first = false;
		/* What is left may be another process's just now: who is told of its end? */
		now_ns = store->sys->now_ns();
		look_ns = deadline_of(now_ns, SETTLE_NS);
		if (now_ns >= until_ns)
			ret = -ETIMEDOUT;
		else if (!busy(store))
			cond_wait_until(&store->changed, &store->lock,
					look_ns < until_ns ? look_ns : until_ns);
	}
	return ret;
}

int cairn_store_close(struct cairn_store *store, uint64_t timeout_ns)
{
	uint64_t until_ns;
	int ret;

	if (!store)
		return 0;
	ret = store_enter(store);
	if (ret < 0)
		return ret;
	if (timeout_ns == 0)
		timeout_ns = store->settings[SET_DEADLINE].u;
	until_ns = deadline_of(store->sys->now_ns(), timeout_ns);
	pthread_mutex_lock(&store->lock);
	if (store->queues > 0 || store->closing) {
		pthread_mutex_unlock(&store->lock);
		return -EBUSY;
	}
	store->closing = true;
	pthread_cond_broadcast(&store->changed); /* who waits for a task slot leaves */
	ret = come_to_rest(store, until_ns);
	if (ret < 0)
		store->closing = false;
	pthread_mutex_unlock(&store->lock);
	if (ret < 0)
		return ret;
	take_apart(store);
	return 0;
}

int cairn_store_quiesce(struct cairn_store *store, uint64_t timeout_ns)
{
	uint64_t until_ns;
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	until_ns = deadline_of(store->sys->now_ns(), timeout_ns);
	pthread_mutex_lock(&store->lock);
	store->callers++;
	while (ret == 0 && store->tasks_unreleased > 0)
		ret = cond_wait_until(&store->changed, &store->lock, until_ns);
	if (--store->callers == 0 && store->closing)
		pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
	return ret;
}
