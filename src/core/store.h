/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store and what hangs on it. Who owns what:
 *
 *  - `lock` guards the task slots' free list, the namespaces, `closing` and the
 *    counts beside them. It is the innermost: no stage, callback or other lock is
 *    entered under it.
 *  - A task's `lock` guards its progress; its items and ios belong to reactors.
 *  - An io, a task part, a timer, a bounce buffer belong to one reactor, and only
 *    the thread that drives it touches them.
 */
#ifndef CORE_STORE_H
#define CORE_STORE_H

#include <pthread.h>
#include <stdbool.h>

#include <cairn/stage.h>

#include "base/atomic.h"
#include "base/latency.h"
#include "base/list.h"
#include "core/stage_env.h"
#include "sys/engine.h"
#include "sys/sys.h"

#define STORE_MAGIC  0x43524e53u
#define REACTORS_MAX 32 /* a task carries a part for each */
#define LENT_MAX     (ENGINE_MEMORY_MAX - 1)
#define LIGHTS_MAX   16 /* callers that run their own load at once */

/* Rows of the store's own counters; core/counters.c has the names. */
enum store_counter {
	COUNT_TASKS,
	COUNT_XFERS,
	COUNT_LOAD_HITS,
	COUNT_MISSES_ABSENT,
	COUNT_MISSES_DAMAGED,
	COUNT_MISSES_DEVICE,
	COUNT_MISSES_LATE,
	COUNT_MISSES_OTHER,
	COUNT_LOADED_BYTES,
	COUNT_DUMPED_BYTES,
	COUNT_TIMED_OUT,
	COUNT_CANCELED,
	COUNT_INLINE,
	COUNT_BOUNCED,
	COUNT_BACKPRESSURE,
	COUNT_HOLDS,
	COUNT_HOLD_BYTES,
	COUNT_HOLDS_EXPIRED,
	COUNT_HOLDS_REFUSED,
	COUNT_LOOKUPS,
	COUNT_LOOKUP_HITS,
	COUNT_TASKS_IN_FLIGHT,
	COUNT_QUEUED_XFERS,
	COUNT_IN_FLIGHT,
	COUNT_REGISTERED_IOS,
	COUNT_UNREGISTERED_IOS,
	COUNT_STORE_ROWS,
};

/* Whose latency is measured; core/counters.c has the names. */
enum store_latency {
	LATENCY_LOAD,
	LATENCY_DUMP,
	LATENCY_LOOKUP,
	LATENCY_OPS,
};

/* Rows of the pseudo-stage `store`; core/settings.c has them in this order. */
enum store_setting {
	SET_REACTORS,
	SET_ENGINE,
	SET_WORKERS,
	SET_DEADLINE,
	SET_TASKS,
	SET_IOS,
	SET_BUFFERS,
	SET_HOLD_BYTES,
	SET_HOLD_TIME,
	SET_HOLD_KEYS,
	SET_INLINE_MAX,
	SET_HOLD_MAX,
	SET_PREFETCH,
	SET_ROWS,
};

struct reactor;
struct task;
struct holds;
struct memory_map;
struct page;

struct place {
	int line, column;
};

/* One stage of the pipeline, opened. */
struct level {
	const struct cairn_stage_ops *ops;
	void *self;
	void *module; /* dlopen handle, NULL when linked in */
	void *table;  /* of ops, where it is a copy; else NULL */
	struct cairn_stage_env env;
	struct stage_env internal;
	struct cairn_value *values;
	struct place *places; /* in the text: the stage's, then each value's; with the values */
	void *strings;
	char name[24];
	size_t scratch_offset, scratch_zeroed;
	int tier_below; /* the next tier's level, or -1 */
	bool in_union;	/* what it holds of unfinished blocks counts */
	bool opened;
};

struct cairn_namespace {
	struct cairn_ns_view view;
	struct cairn_store *store;
	struct cairn_namespace *next;
	void *digest; /* EVP_MD_CTX after the domain and the description */
	uint32_t handles;
};

struct cairn_store {
	uint32_t magic;
	uint32_t fork_generation;
	const struct sys *sys;
	struct cairn_store *next_open; /* all open stores of the process, for fork */

	struct level levels[CAIRN_STAGES_MAX];
	uint32_t level_count;
	int tier_top, tier_bottom; /* levels, or -1 */
	int union_top;		   /* core/union.h; -1: no two tiers that make one */
	uint32_t disagreed; /* a mark of base/atomic.h: a dump that one tier took failed in another
			     */
	bool persists;
	const struct stage_back *back; /* NULL: the first stage does not hold dumps back ... */
	bool back_preset;	       /* ... of all tasks that do not say otherwise */
	bool split_dumps;	       /* into ios of DUMP_TURN_BYTES: a tier asks for it */
	size_t scratch_bytes;
	struct cairn_stage_host host;

	struct cairn_value settings[SET_ROWS];
	void *settings_strings;
	enum engine_kind engine_kind;
	const struct engine_ops *engine_ops;
	/* For stages' open(); it goes before reactors come, or with them. core/engines.c */
	struct engine *early;
	const struct engine_ops *early_ops;
	uint32_t early_chains;
	bool early_lent;
	struct workers *workers; /* of all its engines; io_uring has its own for file I/O */
	uint32_t iowq_max;	 /* ... a standing reactor at most: its share of the workers */
	char engine_note[160];

	struct reactor *reactors[REACTORS_MAX];
	uint32_t reactor_count;
	struct reactor *lights[LIGHTS_MAX]; /* free ones; under lock */
	struct reactor *all_lights[LIGHTS_MAX];
	uint32_t light_count, lights_made;

	int guards[CAIRN_STAGES_MAX * 2];
	uint32_t guard_count;
	struct engine_memory lent[LENT_MAX]; /* of stages, for I/O */
	uint32_t lent_count;
	int fork_fds[CAIRN_STAGES_MAX * 8]; /* -1: free */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* a slot came free, a task or an orphan ended */
	struct task *tasks;
	uint32_t task_count, tasks_made, own_made; /* made: at their first use, in order */
	struct list free_tasks, own_tasks;	   /* of those that were made; own: of stages */
	uint32_t tasks_taken, tasks_running;	   /* running: no release yet */
	uint32_t tasks_unreleased;		   /* result, but no release yet */
	uint32_t orphans; /* ios of tasks that are over, and stages' jobs */
	uint32_t callers; /* inside calls that wait */
	bool closing;
	struct cairn_namespace *namespaces;
	uint32_t queues;
	/* What callers have registered; and had, when a task began that runs still. core/memory.h
	 */
	struct memory_map *memory, *memory_before;

	pthread_mutex_t bind_lock; /* one namespace is bound at a time */
	uint64_t sequence;	   /* under lock */
	struct holds *holds;

	struct page *page; /* where counters lie when it could be had */
	uint64_t *counters;
	uint32_t counter_count;
	void *counters_memory;			/* ... and when not */
	struct latency *latencies[LATENCY_OPS]; /* likewise */
	struct latency latencies_own[LATENCY_OPS];
};

/* The store of this process; -EOWNERDEAD in a child after a fork, -EINVAL when it is none. */
int store_enter(const struct cairn_store *store);

static inline void store_count(struct cairn_store *store, enum store_counter row, uint64_t n)
{
	counter_add(&store->counters[row], n);
}

static inline void store_latency(struct cairn_store *store, enum store_latency op, uint64_t ns)
{
	latency_add(store->latencies[op], ns, 1);
}

/* The store that gave a stage its environment. */
static inline struct cairn_store *store_of_env(const struct cairn_stage_env *env)
{
	uintptr_t host = (uintptr_t)env->host; /* const for the stages only */

	return (struct cairn_store *)(host - offsetof(struct cairn_store, host));
}

/* core/fork.c: the list of open stores, and what a child closes. */
uint32_t fork_generation(void);
void fork_register(struct cairn_store *store);
void fork_forget(struct cairn_store *store);
void fork_watch(void); /* from here on a fork() runs the handlers; again and again */
void fork_hold(void);  /* a fork() elsewhere waits until fork_go_on() */
void fork_go_on(void);

/* core/open.c: with the sys table of the caller's choice, which tests wrap. */
int store_open(const struct sys *sys, const char *spec, const struct cairn_store_opts *opts,
	       struct cairn_store **ret_store, struct cairn_error *reterr);
struct cairn_store *store_new(const struct sys *sys); /* empty; NULL: no memory */

/* Formats into @reterr (NULL is allowed) and returns @code. */
__attribute__((format(printf, 3, 4))) int fail(struct cairn_error *reterr, int code,
					       const char *format, ...);

#endif
