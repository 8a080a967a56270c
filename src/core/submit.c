/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/hot.h"
#include "core/reactor.h"
#include "core/submit.h"

#define CHAIN_KEYS 32u

static uint32_t class_of(const struct submission *s)
{
	if (s->opts.task_class != CAIRN_CLASS_DEFAULT)
		return s->opts.task_class;
	switch (s->op) {
	case CAIRN_OP_LOAD:
	case CAIRN_OP_DESCRIBE:
		return CAIRN_CLASS_LOAD;
	case CAIRN_OP_PREFETCH:
		return CAIRN_CLASS_PREFETCH;
	case CAIRN_OP_DUMP:
	case CAIRN_OP_REMOVE:
		break;
	}
	return CAIRN_CLASS_DUMP;
}

static void init_part(struct task_part *part, struct task *task)
{
	memset(part, 0, sizeof(*part));
	part->task = task;
	part->cancel.kind = MESSAGE_CANCEL;
	list_init(&part->queued);
	list_init(&part->active);
	list_init(&part->ios);
}

/* May a tier keep the task's dumps in memory alone for a while? */
static bool held_back(const struct cairn_store *store, const struct submission *s)
{
	const uint32_t otherwise = CAIRN_TASK_WRITE_THROUGH | CAIRN_TASK_WRITE_AROUND;

	if (!store->back || s->op != CAIRN_OP_DUMP)
		return false;
	return (s->opts.flags & CAIRN_TASK_WRITE_BACK) ||
	       (store->back_preset && !(s->opts.flags & otherwise));
}

void task_init(struct task *task, const struct submission *s, uint64_t now_ns, uint64_t deadline_ns,
	       bool sync)
{
	pthread_mutex_lock(&task->lock);
	task->ns = s->ns;
	task->op = s->op;
	task->xfers = s->xfers;
	task->keys = s->keys;
	task->results = s->results;
	task->count = s->count;
	task->flags = s->opts.flags;
	task->task_class = class_of(s);
	task->durability = s->opts.durability;
	/* Else nothing is kept in memory alone, but where the pipeline persists nothing at all. */
	if (task->durability == CAIRN_MEMORY && task->store->persists && !held_back(task->store, s))
		task->durability = CAIRN_WRITTEN;
	task->submitted_ns = now_ns;
	task->deadline_ns = deadline_ns;
	task->queue = s->opts.queue;
	task->done = s->opts.done;
	task->context = s->opts.context;
	task->results_pending = 0;
	task->releases_pending = 0;
	task->events = 0;
	task->failed = 0;
	task->first_error = 0;
	task->first_error_item = UINT32_MAX;
	task->forget = false;
	task->sync = sync;
	task->canceled = false;
	task->first_level = s->first_level;
	for (uint32_t r = 0; r < task->store->reactor_count; r++)
		init_part(&task->parts[r], task);
	task->magic = TASK_MAGIC;
	pthread_mutex_unlock(&task->lock);
}

/* A lone small load of one block: what a waiting caller runs best by itself. */
static bool runs_inline(const struct cairn_store *store, const struct submission *s)
{
	uint64_t bytes = 0;

	if (s->op != CAIRN_OP_LOAD || s->count == 0 || s->count > CAIRN_PARTS_MAX ||
	    (s->opts.flags & CAIRN_TASK_DETACH))
		return false;
	for (uint32_t i = 0; i < s->count; i++) {
		if (memcmp(&s->xfers[i].key, &s->xfers[0].key, sizeof(s->xfers[0].key)) != 0)
			return false;
		/* A light reactor has no memory to gather very many segments in. */
		if (io_segments(&s->xfers[i]) > IO_IOVS_MAX)
			return false;
		bytes += s->xfers[i].length;
	}
	return bytes <= store->settings[SET_INLINE_MAX].u;
}

static struct reactor *light_take(struct cairn_store *store)
{
	struct reactor *light = NULL;

	pthread_mutex_lock(&store->lock);
	if (store->light_count > 0)
		light = store->lights[--store->light_count];
	pthread_mutex_unlock(&store->lock);
	return light;
}

/* Waits for the result; what is not released by then is left to the reactors. */
static int finish_sync(struct task *task)
{
	struct cairn_store *store = task->store;
	int ret;
	bool released;

	pthread_mutex_lock(&task->lock);
	while (!(task->events & CAIRN_EVENT_RESULT))
		cond_wait_until(&task->changed, &task->lock, UINT64_MAX);
	released = task->events & CAIRN_EVENT_RELEASE;
	ret = task->first_error;
	if (!released)
		task->forget = true;
	pthread_mutex_unlock(&task->lock);
	if (released)
		task_free(task);
	caller_leave(store);
	return ret;
}

static int run_sync(struct task *task, const struct submission *s)
{
	struct cairn_store *store = task->store;
	struct reactor *light = runs_inline(store, s) ? light_take(store) : NULL;

	if (!light) {
		task_dispatch(task);
		return finish_sync(task);
	}
	store_count(store, COUNT_INLINE, 1);
	task->results_pending = 1;
	task->releases_pending = 1;
	task->parts[0].items = task->count;
	reactor_run_light(light, &task->parts[0]);
	return finish_sync(task);
}

/* A call that waits for its items tells each of them that no slot came free. */
static void refuse_items(const struct submission *s, int32_t status)
{
	for (uint32_t i = 0; i < s->count; i++) {
		struct cairn_result *result =
			s->xfers ? &s->xfers[i].result : (s->results ? &s->results[i] : NULL);

		if (result)
			*result =
				(struct cairn_result){.status = status, .stage = CAIRN_STAGE_NONE};
	}
}

/*
 * A caller that waits takes from memory what is there, without a task. Returns how many of
 * the first items that was; the others, from the first that is not there on, are a task.
 */
HIT_PATH static uint32_t serve_here(const struct submission *s)
{
	struct cairn_store *store = s->ns->store;
	const struct level *level = &store->levels[0];
	uint64_t begin_ns, bytes = 0;
	uint32_t served = 0;

	if (!level->ops->serve || s->op != CAIRN_OP_LOAD || s->count == 0)
		return 0;
	__builtin_prefetch(&store->counters[COUNT_LOAD_HITS], 1);
	__builtin_prefetch(&store->counters[COUNT_INLINE], 1);
	__builtin_prefetch(&store->latencies[LATENCY_LOAD]->sum_ns, 1);
	begin_ns = store->sys->now_ns();
	while (served < s->count &&
	       level->ops->serve(level->self, &s->ns->view, &s->xfers[served]) == 0) {
		bytes += s->xfers[served].length;
		s->xfers[served++].result = (struct cairn_result){0};
	}
	if (served == 0)
		return 0;
	store_count(store, COUNT_XFERS, served);
	store_count(store, COUNT_LOAD_HITS, served);
	store_count(store, COUNT_LOADED_BYTES, bytes);
	if (served < s->count)
		return served;
	store_count(store, COUNT_TASKS, 1);
	store_count(store, COUNT_INLINE, 1);
	store_latency(store, LATENCY_LOAD, store->sys->now_ns() - begin_ns);
	return served;
}

static int submit_task(const struct submission *s, uint64_t *ret_task)
{
	struct cairn_store *store = s->ns->store;
	uint64_t now_ns = store->sys->now_ns();
	uint64_t span_ns =
		s->opts.deadline_ns ? s->opts.deadline_ns : store->settings[SET_DEADLINE].u;
	uint64_t deadline_ns = deadline_of(now_ns, span_ns);
	struct task *task;
	int ret = s->opts.queue ? queue_enter(s->opts.queue, store) : 0;

	if (ret < 0)
		return ret;
	ret = task_take(store, ret_task ? 0 : deadline_ns, &task);
	if (ret < 0 && s->opts.queue)
		queue_leave(s->opts.queue);
	if (ret < 0 && !ret_task)
		refuse_items(s, ret);
	if (ret < 0)
		return ret;
	task_init(task, s, now_ns, deadline_ns, !ret_task);
	store_count(store, COUNT_TASKS, 1);
	store_count(store, COUNT_XFERS, s->count);
	store_count(store, COUNT_QUEUED_XFERS, s->count);
	if (!ret_task)
		return run_sync(task, s);
	*ret_task = task->id;
	task_dispatch(task);
	return 0;
}

/*
 * What the caller took from memory came by no io that says whose child each block is; a look
 * at them in their order does, when all are there.
 */
static void tell_chain(const struct submission *s)
{
	struct cairn_store *store = s->ns->store;
	const struct level *level = &store->levels[0];
	struct cairn_probe probes[CHAIN_KEYS];
	struct cairn_key keys[1 + CHAIN_KEYS]; /* the first: the last of those before */
	uint32_t flags = CAIRN_PROBE_CHAIN, count = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		const struct cairn_key *key = &s->xfers[i].key;
		bool last = i + 1 == s->count;

		if (i == 0 || memcmp(key, &s->xfers[i - 1].key, sizeof(*key)) != 0)
			keys[++count] = *key;
		if (count == 0 || (count < CHAIN_KEYS && !last))
			continue;
		memset(probes, 0, sizeof(probes));
		level->ops->lookup(level->self, &s->ns->view, &keys[1], count, flags, probes);
		if (!probes[count - 1].present)
			return;
		keys[0] = keys[count];
		flags |= CAIRN_PROBE_BEFORE;
		count = 0;
	}
}

HIT_PATH int submit(const struct submission *s, uint64_t *ret_task)
{
	struct submission rest = *s;
	uint32_t served = ret_task ? 0 : serve_here(s);
	int ret = 0;

	if (served < s->count || served == 0) {
		if (s->xfers)
			rest.xfers += served;
		rest.count -= served;
		ret = submit_task(&rest, ret_task);
	}
	if (served > 0 && (s->opts.flags & CAIRN_TASK_CHAIN))
		tell_chain(s);
	return ret;
}
