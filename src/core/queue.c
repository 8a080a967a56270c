/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion queues. A ring of records, large enough for two of every task slot:
 * a slot is given back when its release is drained, so it never overflows. The
 * eventfd, once somebody has asked for it, is raised when the ring stops being empty
 * and lowered when it is.
 */
#include <assert.h>
#include <errno.h>

#include "core/task.h"

#define QUEUE_MAGIC 0x43525155u

struct record {
	struct task *task;
	uint64_t id;
	uint32_t events;
	uint32_t failed;
	void *context;
};

struct cairn_queue {
	uint32_t magic;
	struct cairn_store *store;
	int event_fd;
	pthread_mutex_t lock;
	pthread_cond_t came;
	uint32_t tasks;	  /* that name the queue, until their release is drained */
	uint32_t waiters; /* threads in cairn_drain() */
	uint32_t wakers;  /* threads that are about to wake those */
	bool watched;	  /* somebody has the eventfd */
	bool raised; /* the eventfd is; a call that failed is made again with the next record */
	uint32_t head, count, size;
	struct record records[];
};

static void queue_free(struct cairn_queue *queue)
{
	const struct sys *sys = queue->store->sys;

	sys->close(queue->event_fd);
	queue->magic = 0;
	pthread_mutex_destroy(&queue->lock);
	pthread_cond_destroy(&queue->came);
	sys->free(queue);
}

int cairn_queue_open(struct cairn_store *store, struct cairn_queue **ret_queue)
{
	struct cairn_queue *queue;
	uint32_t size;
	int ret = store_enter(store);

	if (ret < 0 || !ret_queue)
		return ret < 0 ? ret : -EINVAL;
	size = store->task_count * 2;
	queue = sys_zalloc(store->sys, 64, sizeof(*queue) + size * sizeof(queue->records[0]));
	if (!queue)
		return -ENOMEM;
	queue->event_fd = store->sys->event_open();
	if (queue->event_fd < 0) {
		ret = queue->event_fd;
		store->sys->free(queue);
		return ret;
	}
	queue->magic = QUEUE_MAGIC;
	queue->store = store;
	queue->size = size;
	mutex_init_short(&queue->lock);
	cond_init_monotonic(&queue->came);
	pthread_mutex_lock(&store->lock);
	ret = store->closing ? -ECANCELED : 0;
	store->queues += ret == 0;
	pthread_mutex_unlock(&store->lock);
	if (ret < 0)
		queue_free(queue);
	else
		*ret_queue = queue;
	return ret;
}

int cairn_queue_close(struct cairn_queue *queue)
{
	struct cairn_store *store;
	int ret;

	if (!queue)
		return 0;
	if (queue->magic != QUEUE_MAGIC)
		return -EINVAL;
	store = queue->store;
	ret = store_enter(store);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&queue->lock);
	ret = queue->tasks > 0 || queue->waiters > 0 ? -EBUSY : 0;
	while (ret == 0 && queue->wakers > 0)
		cond_wait_until(&queue->came, &queue->lock, UINT64_MAX);
	pthread_mutex_unlock(&queue->lock);
	if (ret < 0)
		return ret;
	queue_free(queue);
	pthread_mutex_lock(&store->lock);
	store->queues--;
	pthread_mutex_unlock(&store->lock);
	return 0;
}

static void raise_event(struct cairn_queue *queue)
{
	if (queue->watched && queue->count > 0 && !queue->raised)
		queue->raised = queue->store->sys->event_signal(queue->event_fd) >= 0;
}

int cairn_event_fd(struct cairn_queue *queue)
{
	int ret;

	if (!queue || queue->magic != QUEUE_MAGIC)
		return -EINVAL;
	ret = store_enter(queue->store);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&queue->lock);
	queue->watched = true;
	raise_event(queue);
	pthread_mutex_unlock(&queue->lock);
	return queue->event_fd;
}

uint32_t queue_waiters(struct cairn_queue *queue)
{
	uint32_t waiters;

	pthread_mutex_lock(&queue->lock);
	waiters = queue->waiters;
	pthread_mutex_unlock(&queue->lock);
	return waiters;
}

int queue_enter(struct cairn_queue *queue, const struct cairn_store *store)
{
	if (queue->magic != QUEUE_MAGIC || queue->store != store)
		return -EINVAL;
	pthread_mutex_lock(&queue->lock);
	queue->tasks++;
	pthread_mutex_unlock(&queue->lock);
	return 0;
}

void queue_leave(struct cairn_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	assert(queue->tasks > 0);
	queue->tasks--;
	pthread_mutex_unlock(&queue->lock);
}

static void put_record(struct cairn_queue *queue, struct task *task, uint32_t events)
{
	struct record *record = &queue->records[(queue->head + queue->count) % queue->size];

	assert(queue->magic == QUEUE_MAGIC && queue->count < queue->size);
	*record = (struct record){task, task->id, events, task->failed, task->context};
	queue->count++;
}

/*
 * Ends a post, whose lock is held. Who drains is woken without it: on this processor it
 * would run at once, meet the lock and sleep again. The queue may be empty by then, and
 * its owner about to close it.
 */
static void unlock_and_wake(struct cairn_queue *queue, bool all)
{
	bool wake = queue->waiters > 0;

	raise_event(queue);
	queue->wakers += wake;
	pthread_mutex_unlock(&queue->lock);
	if (!wake)
		return;
	if (all)
		pthread_cond_broadcast(&queue->came);
	else
		pthread_cond_signal(&queue->came);
	pthread_mutex_lock(&queue->lock);
	if (--queue->wakers == 0 && queue->tasks == 0) /* somebody may wait to close it */
		pthread_cond_broadcast(&queue->came);
	pthread_mutex_unlock(&queue->lock);
}

void queue_post(struct cairn_queue *queue, struct task *task, uint32_t events)
{
	pthread_mutex_lock(&queue->lock);
	put_record(queue, task, events);
	unlock_and_wake(queue, false);
}

void queue_post_all(struct list *tasks)
{
	struct cairn_queue *queue = list_entry(tasks->next, struct task, free_link)->queue;
	struct list *node;

	pthread_mutex_lock(&queue->lock);
	/* Of this queue alone, in order: a record's task may be gone as soon as it is unlocked. */
	for (node = tasks->next; node != tasks;) {
		struct task *task = list_entry(node, struct task, free_link);

		node = node->next;
		if (task->queue != queue)
			continue;
		list_remove(&task->free_link);
		put_record(queue, task, task->told);
	}
	unlock_and_wake(queue, true);
}

/* Copies out what is there; frees the tasks whose release it brings. */
static size_t take_records(struct cairn_queue *queue, struct cairn_completion *completions,
			   size_t max)
{
	struct list over;
	size_t n = 0;

	list_init(&over);
	while (n < max && queue->count > 0) {
		struct record *record = &queue->records[queue->head];

		completions[n++] = (struct cairn_completion){record->id, record->context,
							     record->events, record->failed};
		queue->head = (queue->head + 1) % queue->size;
		queue->count--;
		if (!(record->events & CAIRN_EVENT_RELEASE))
			continue;
		queue->tasks--;
		list_append(&over, &record->task->free_link);
	}
	if (!list_empty(&over))
		tasks_free(queue->store, &over);
	if (queue->raised && queue->count == 0)
		queue->raised = queue->store->sys->event_clear(queue->event_fd) < 0;
	return n;
}

int cairn_drain(struct cairn_queue *queue, struct cairn_completion *completions, size_t max,
		uint64_t timeout_ns)
{
	uint64_t until_ns;
	size_t n;
	int ret;

	if (!queue || queue->magic != QUEUE_MAGIC || !completions || max == 0)
		return -EINVAL;
	ret = store_enter(queue->store);
	if (ret < 0)
		return ret;
	if (max > INT32_MAX)
		max = INT32_MAX;
	until_ns = timeout_ns == 0 ? 0 : deadline_of(queue->store->sys->now_ns(), timeout_ns);
	pthread_mutex_lock(&queue->lock);
	queue->waiters++;
	while (ret == 0 && queue->count == 0 && until_ns > 0)
		ret = cond_wait_until(&queue->came, &queue->lock, until_ns);
	queue->waiters--;
	n = take_records(queue, completions, max);
	pthread_mutex_unlock(&queue->lock);
	return (int)n;
}
