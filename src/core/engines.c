/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants:
 *  1. All standing reactors of a store have an engine of one kind. A light one more or
 *     fewer makes no difference but in speed: what cannot be had is done without.
 *  2. A ring holds the tiers' locks: it is made, made known and taken away under the
 *     fork lock.
 */
#include "core/engines.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/reactor.h"
#include "core/settings.h"
#include "sys/thread.h"
#include "sys/workers.h"

static const char *const names[ENGINE_KINDS] = {"io_uring", "libaio", "threads"};

static bool any_will_do(const struct cairn_store *store)
{
	return store->settings[SET_ENGINE].u == SETTING_ENGINE_AUTO;
}

static const char *why(int error)
{
	return error == -ENOBUFS ? "no more memory may be locked (RLIMIT_MEMLOCK)"
				 : strerror(-error);
}

/* Adds to the note why there is no engine of @kind. */
static void note(struct cairn_store *store, enum engine_kind kind, int error)
{
	size_t at = strlen(store->engine_note);
	size_t left = sizeof(store->engine_note) - at;
	const char *comma = at > 0 ? "; " : "";

	assert(left > 0 && error < 0);
	if (store->sys->engine(kind))
		snprintf(store->engine_note + at, left, "%s%s: %s", comma, names[kind], why(error));
	else
		snprintf(store->engine_note + at, left, "%sbuilt without %s", comma, names[kind]);
}

/* ---- the choice ------------------------------------------------------------- */

static int probe(const struct sys *sys, const struct engine_ops *ops)
{
	struct engine_opts opts = {.sys = sys, .chains_max = 1, .guard_fd = -1};
	struct engine *engine;
	int ret;

	if (!ops)
		return -EOPNOTSUPP;
	if (ops->probe)
		return ops->probe();
	ret = ops->open(&opts, &engine);
	if (ret == 0)
		ops->close(engine);
	return ret;
}

/* Under the fork lock. */
static int try_engine(struct cairn_store *store, enum engine_kind kind)
{
	const struct engine_ops *ops = store->sys->engine(kind);
	int ret = probe(store->sys, ops);

	if (ret < 0)
		return ret;
	store->engine_kind = kind;
	store->engine_ops = ops;
	return 0;
}

/* Takes the first from @kind on that works. Under the fork lock. */
static int choose_from(struct cairn_store *store, uint32_t kind, struct cairn_error *reterr)
{
	int ret = -EOPNOTSUPP;

	for (; kind < ENGINE_KINDS; kind++) {
		ret = try_engine(store, (enum engine_kind)kind);
		if (ret == 0)
			return 0;
		note(store, (enum engine_kind)kind, ret);
	}
	return fail(reterr, ret == -ENOMEM ? ret : -EIO, "no I/O engine works here: %s",
		    store->engine_note);
}

static int choose(struct cairn_store *store, struct cairn_error *reterr)
{
	uint32_t choice = (uint32_t)store->settings[SET_ENGINE].u;
	int ret;

	if (any_will_do(store))
		return choose_from(store, 0, reterr);
	if (!store->sys->engine((enum engine_kind)choice))
		return fail(reterr, -EOPNOTSUPP,
			    "store: engine: this library was built without %s; use engine=auto",
			    names[choice]);
	ret = try_engine(store, (enum engine_kind)choice);
	return ret == 0 ? 0
			: fail(reterr, ret == -ENOMEM ? ret : -EOPNOTSUPP,
			       "store: engine: %s cannot be had here: %s; use engine=auto",
			       names[choice], why(ret));
}

int engines_choose(struct cairn_store *store, struct cairn_error *reterr)
{
	int ret;

	fork_hold();
	ret = choose(store, reterr);
	fork_go_on();
	return ret;
}

/* ---- before there are reactors ------------------------------------------------ */

static void *close_early(void *of)
{
	struct cairn_store *store = of;

	store->early_ops->close(store->early);
	store->early = NULL;
	return NULL;
}

/* Under the fork lock. One that is lent still is broken: what it has in flight may never end. */
static bool early_over(const struct cairn_store *store)
{
	return store->early && !store->early_lent;
}

int engine_early(struct cairn_store *store, uint32_t chains_max, const struct engine_ops **ret_ops,
		 struct engine **ret_engine)
{
	struct engine_opts opts = {.sys = store->sys, .chains_max = chains_max, .guard_fd = -1};
	int ret = 0;

	if (store->early_lent || (store->early && store->early_chains < chains_max))
		return -EBUSY;
	fork_hold();
	if (!store->early) {
		store->early_ops = store->engine_ops;
		store->early_chains = chains_max;
		ret = store->early_ops->open(&opts, &store->early);
		if (ret < 0)
			store->early = NULL;
	}
	store->early_lent = ret == 0;
	fork_go_on();
	*ret_ops = store->early_ops;
	*ret_engine = store->early;
	return ret;
}

void engine_early_end(struct cairn_store *store)
{
	assert(store->early && store->early_lent);
	store->early_lent = false;
}

/* ---- reactors ----------------------------------------------------------------- */

static void *free_one(void *reactor)
{
	reactor_free(reactor);
	return NULL;
}

/*
 * Side by side: the end of a libaio context waits for a grace period of the kernel's,
 * tens of ms, and all can wait for the same one.
 */
static void free_reactors(struct cairn_store *store)
{
	pthread_t threads[REACTORS_MAX + LIGHTS_MAX + 1];
	bool ring = store->engine_kind == ENGINE_URING;
	uint32_t count = 0;

	if (early_over(store)) {
		if (!ring && thread_start(&threads[count], close_early, store) == 0)
			count++;
		else
			close_early(store);
	}
	store->light_count = 0;
	while (store->lights_made + store->reactor_count > 0) {
		struct reactor *reactor = store->lights_made > 0
						  ? store->all_lights[--store->lights_made]
						  : store->reactors[--store->reactor_count];

		if (!ring && thread_start(&threads[count], free_one, reactor) == 0)
			count++;
		else
			reactor_free(reactor);
	}
	while (count > 0)
		pthread_join(threads[--count], NULL);
}

/* -ENOMEM: no memory. Else a negative errno: it is the engine that cannot be had. */
static int new_standing(struct cairn_store *store, uint32_t count, struct cairn_error *reterr)
{
	int ret = 0;

	for (; ret == 0 && store->reactor_count < count; store->reactor_count += ret == 0)
		ret = reactor_new(store, store->reactor_count, true,
				  &store->reactors[store->reactor_count], reterr);
	return ret;
}

/* A few more than cores: callers that wait for the disk do not need one. */
static void new_lights(struct cairn_store *store, long cores)
{
	struct reactor *light;

	for (uint32_t i = 0; (long)i < 2 * cores && i < LIGHTS_MAX; i++) {
		if (reactor_new(store, i, false, &light, NULL) < 0)
			break;
		store->all_lights[store->lights_made++] = light;
		store->lights[store->light_count++] = light;
	}
}

/* A probe's engine is small: one for a reactor may be refused where that was not. */
static int new_reactors(struct cairn_store *store, uint32_t count, struct cairn_error *reterr)
{
	int ret = new_standing(store, count, reterr);

	while (ret < 0 && ret != -ENOMEM && any_will_do(store)) {
		enum engine_kind refused = store->engine_kind;

		free_reactors(store);
		note(store, refused, ret);
		ret = choose_from(store, refused + 1, reterr);
		if (ret < 0)
			return ret;
		ret = new_standing(store, count, reterr);
	}
	if (ret < 0 && ret != -ENOMEM)
		return fail(reterr, -EOPNOTSUPP,
			    "store: engine: %s cannot be had here for reactor %u: %s; "
			    "use engine=auto, or fewer ios or reactors",
			    names[store->engine_kind], store->reactor_count, why(ret));
	return ret;
}

int engines_open(struct cairn_store *store, struct cairn_error *reterr)
{
	uint32_t count = (uint32_t)store->settings[SET_REACTORS].u;
	uint32_t workers = (uint32_t)store->settings[SET_WORKERS].u;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int ret;

	if (count == 0)
		count = cores >= 4 ? (uint32_t)cores / 2 : 1;
	if (count > REACTORS_MAX)
		count = REACTORS_MAX;
	/* Threads are started when something blocks: with a ring, for locks of files alone. */
	if (workers_open(store->sys, workers, &store->workers) < 0)
		return fail(reterr, -ENOMEM, "no memory for the workers");
	store->iowq_max = workers / count > 0 ? workers / count : 1;
	fork_hold();
	/* A ring counts against RLIMIT_MEMLOCK; a context takes tens of ms to end. */
	if (early_over(store) && store->engine_kind == ENGINE_URING)
		close_early(store);
	ret = new_reactors(store, count, reterr);
	if (ret == 0)
		new_lights(store, cores);
	fork_go_on();
	for (uint32_t i = 0; ret == 0 && i < store->reactor_count; i++)
		ret = reactor_start(store->reactors[i], reterr);
	return ret;
}

void engines_close(struct cairn_store *store)
{
	/* As they were made: a child that is forked now closes what is left, and no more. */
	fork_hold();
	free_reactors(store);
	fork_go_on();
	workers_close(store->workers);
	store->workers = NULL;
}
