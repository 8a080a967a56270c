/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task slots: made at open, taken by a submission, given back when the release
 * was seen by whoever waits for it.
 *
 * Invariants:
 *  1. results_pending and releases_pending count parts; each part gives one of
 *     each, the release never before the result. A cancel under way counts as a
 *     release, so that the slot outlives its messages; so does the telling of the
 *     result, so that nobody hears of the release, or frees the slot, before it.
 *  2. Between the result and the release nobody reads the caller's arrays.
 *  3. A slot's id changes with every use: an old id finds nothing.
 */
#ifndef CORE_TASK_H
#define CORE_TASK_H

#include "base/ring.h"
#include "core/store.h"

#define TASK_MAGIC 0x4352544bu

/* What of a task one reactor does. Owned by the reactor from the message on. */
struct task_part {
	struct task *task;
	struct message arrive, cancel;
	struct list queued; /* in the reactor's class queue while items are left to start */
	struct list active; /* in the reactor's list of parts */
	struct list ios;    /* in flight, and not abandoned by detaching */
	uint32_t cursor;    /* next item to look at */
	uint32_t depth;	    /* chain: distinct keys before the cursor */
	uint32_t items;	    /* of this part, not ended */
	bool result_sent, release_sent;
};

struct task {
	uint32_t magic;
	uint32_t slot;
	uint64_t id;
	struct list free_link; /* in the store's free ones; in its last reactor's `told` */
	struct cairn_store *store;
	struct cairn_namespace *ns;
	enum cairn_op op;
	struct cairn_xfer *xfers;     /* load, dump */
	const struct cairn_key *keys; /* remove, prefetch */
	struct cairn_result *results; /* likewise, may be NULL */
	uint32_t count;
	uint32_t flags, task_class, durability;
	uint64_t submitted_ns;
	uint64_t deadline_ns; /* absolute; UINT64_MAX: none */
	uint64_t sequence;
	struct memory_map *memory; /* registered when it began; NULL: nothing, or it is released */
	struct cairn_queue *queue;
	void (*done)(void *context, uint64_t task, uint32_t events);
	void *context;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t results_pending, releases_pending;
	uint32_t events; /* that came */
	uint32_t told;	 /* those that its queue will be told of */
	uint32_t failed;
	int32_t first_error;
	uint32_t first_error_item;
	bool forget; /* free the slot at the release: nobody waits */
	bool sync;   /* who submitted it waits inside the call; nobody else may */
	bool canceled;
	uint32_t first_level; /* above 0: of the stage above it, and none of a caller's */
	struct task_part parts[REACTORS_MAX];
};

static inline bool task_own(const struct task *task)
{
	return task->first_level > 0;
}

static inline const struct cairn_key *task_key(const struct task *task, uint32_t item)
{
	return task->xfers ? &task->xfers[item].key : &task->keys[item];
}

int tasks_init(struct cairn_store *store, uint32_t count);
void tasks_fini(struct cairn_store *store);

/*
 * Takes a slot, waiting for one until @until_ns (0: does not wait); the
 * sequence is taken with it. Who was ready to wait is a caller from then on, and
 * leaves by caller_leave(). -EAGAIN, -ETIMEDOUT, -ECANCELED when closing.
 */
int task_take(struct cairn_store *store, uint64_t until_ns, struct task **ret_task);
void task_free(struct task *task);
/* All of task.free_link in the list, which is empty then. */
void tasks_free(struct cairn_store *store, struct list *tasks);

/* One thread more or less is inside a call that waits: a close waits for it to leave. */
void caller_enter(struct cairn_store *store);
void caller_leave(struct cairn_store *store);

/* The task of @id, locked, or NULL. */
struct task *task_find(struct cairn_store *store, uint64_t id);

/* A slot for a task of a stage's own, also while the store closes. NULL: none. */
struct task *task_take_own(struct cairn_store *store);

/* Sends the task to the reactors that own its keys. After this it is theirs. */
void task_dispatch(struct task *task);

/*
 * A reactor: the part has all its results, or its release, or both. With @told the end of
 * a task that names a queue may be put there, to be told of by tasks_tell().
 */
void task_part_settled(struct task_part *part, bool result, bool release, struct list *told);

/* Tells the queues of all these; the list is empty then. */
void tasks_tell(struct cairn_store *store, struct list *told);

/* A reactor: the cancel that this part was sent has been dealt with. */
void task_unpin(struct task *task);

/* Sends -ECANCELED to every part that has items; @task is locked. */
void task_cancel_locked(struct task *task);

/* A reactor: one item ended. */
void task_item_ended(struct task *task, uint32_t item, int32_t status, uint16_t stage);

/* Waits as cairn_task_wait() does; @task is locked, and is not after. */
int task_wait(struct task *task, uint32_t events, uint64_t timeout_ns);

/* core/queue.c: one task more or less names the queue; post gives the slot back by its drain */
int queue_enter(struct cairn_queue *queue, const struct cairn_store *store);
void queue_leave(struct cairn_queue *queue);
uint32_t queue_waiters(struct cairn_queue *queue); /* threads that drain it now */
void queue_post(struct cairn_queue *queue, struct task *task, uint32_t events);
/* Takes those tasks out of the list that name the queue of the first, and posts what they tell. */
void queue_post_all(struct list *tasks);

/* Waits on a condition with CLOCK_MONOTONIC until @until_ns; 0 or -ETIMEDOUT. */
int cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns);
int cond_init_monotonic(pthread_cond_t *cond);
/* Of a mutex that is held for a few instructions: who finds it taken spins before it sleeps. */
int mutex_init_short(pthread_mutex_t *mutex);
uint64_t deadline_of(uint64_t now_ns, uint64_t span_ns); /* saturating */

#endif
