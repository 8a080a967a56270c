/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "core/reactor.h"

int cond_init_monotonic(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int ret;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	ret = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return -ret;
}

int mutex_init_short(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;
	int ret;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	ret = pthread_mutex_init(mutex, &attr);
	pthread_mutexattr_destroy(&attr);
	return -ret;
}

int cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(until_ns / 1000000000u),
		.tv_nsec = (long)(until_ns % 1000000000u),
	};

	if (until_ns == UINT64_MAX)
		return -pthread_cond_wait(cond, lock);
	return -pthread_cond_timedwait(cond, lock, &ts);
}

uint64_t deadline_of(uint64_t now_ns, uint64_t span_ns)
{
	return span_ns >= UINT64_MAX - now_ns ? UINT64_MAX : now_ns + span_ns;
}

int tasks_init(struct cairn_store *store, uint32_t count)
{
	store->tasks = store->sys->alloc(64, sizeof(*store->tasks) * (count + OWN_TASKS));
	if (!store->tasks)
		return -ENOMEM;
	store->task_count = count;
	return 0;
}

static void unmake_slots(struct cairn_store *store, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++) {
		pthread_mutex_destroy(&store->tasks[i].lock);
		pthread_cond_destroy(&store->tasks[i].changed);
	}
}

void tasks_fini(struct cairn_store *store)
{
	unmake_slots(store, 0, store->tasks_made);
	unmake_slots(store, store->task_count, store->own_made);
	store->sys->free(store->tasks);
	store->tasks = NULL;
	store->task_count = 0;
	store->tasks_made = 0;
	store->own_made = 0;
}

void caller_enter(struct cairn_store *store)
{
	pthread_mutex_lock(&store->lock);
	store->callers++;
	pthread_mutex_unlock(&store->lock);
}

void caller_leave(struct cairn_store *store)
{
	pthread_mutex_lock(&store->lock);
	assert(store->callers > 0);
	if (--store->callers == 0 && store->closing)
		pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

/* Under the lock: a plain store, which costs nothing. */
static void show_tasks(struct cairn_store *store)
{
	hint_set(&store->counters[COUNT_TASKS_IN_FLIGHT], store->tasks_taken);
}

/*
 * A free slot of the @count from @first on; one that was never used only where there is no other.
 * The store's lock is held.
 */
static struct task *take_slot(struct cairn_store *store, struct list *free, uint32_t *made,
			      uint32_t first, uint32_t count)
{
	struct list *node = list_take(free);
	uint32_t slot = first + *made;
	struct task *task = &store->tasks[slot];

	if (node)
		return list_entry(node, struct task, free_link);
	if (*made == count)
		return NULL;
	*task = (struct task){.slot = slot, .store = store, .id = slot + 1u};
	mutex_init_short(&task->lock);
	cond_init_monotonic(&task->changed);
	made_set(made, *made + 1);
	return task;
}

int task_take(struct cairn_store *store, uint64_t until_ns, struct task **ret_task)
{
	struct task *task = NULL;
	int ret = 0;

	pthread_mutex_lock(&store->lock);
	store->callers++;
	while (ret == 0 && !task) {
		if (store->closing)
			ret = -ECANCELED;
		else if ((task = take_slot(store, &store->free_tasks, &store->tasks_made, 0,
					   store->task_count)) == NULL)
			ret = until_ns == 0
				      ? -EAGAIN
				      : cond_wait_until(&store->changed, &store->lock, until_ns);
	}
	if (task) {
		store->tasks_taken++;
		show_tasks(store);
		store->tasks_running++;
		task->sequence = ++store->sequence;
		task->memory = memory_map_take(store);
		*ret_task = task;
	}
	if (!task || until_ns == 0)
		store->callers--;
	if (!task && store->callers == 0 && store->closing)
		pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
	return ret;
}

struct task *task_take_own(struct cairn_store *store)
{
	struct task *task;

	pthread_mutex_lock(&store->lock);
	/* Those that are kept for stages lie behind the others. */
	task = take_slot(store, &store->own_tasks, &store->own_made, store->task_count, OWN_TASKS);
	if (task) {
		store->tasks_running++;
		task->sequence = ++store->sequence;
		task->memory = NULL;
	}
	pthread_mutex_unlock(&store->lock);
	return task;
}

/* From here on the id finds nothing. The task is locked. */
static void retire(struct task *task)
{
	assert(task->magic == TASK_MAGIC);
	task->magic = 0;
	task->id += 1ull << 32;
}

static void give_slot_back(struct task *task)
{
	struct cairn_store *store = task->store;

	pthread_mutex_lock(&store->lock);
	if (task->slot >= store->task_count) {
		list_prepend(&store->own_tasks, &task->free_link);
	} else {
		store->tasks_taken--;
		show_tasks(store);
		list_prepend(&store->free_tasks, &task->free_link);
	}
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

void task_free(struct task *task)
{
	pthread_mutex_lock(&task->lock);
	retire(task);
	pthread_mutex_unlock(&task->lock);
	give_slot_back(task);
}

void tasks_free(struct cairn_store *store, struct list *tasks)
{
	struct list *node;

	for (node = tasks->next; node != tasks; node = node->next) {
		struct task *task = list_entry(node, struct task, free_link);

		pthread_mutex_lock(&task->lock);
		retire(task);
		pthread_mutex_unlock(&task->lock);
	}
	pthread_mutex_lock(&store->lock);
	while ((node = list_take(tasks)) != NULL) {
		store->tasks_taken--;
		show_tasks(store);
		list_prepend(&store->free_tasks, node);
	}
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

struct task *task_find(struct cairn_store *store, uint64_t id)
{
	uint32_t slot = (uint32_t)id - 1;
	struct task *task;

	if ((uint32_t)id == 0 || slot >= made_get(&store->tasks_made))
		return NULL;
	task = &store->tasks[slot];
	pthread_mutex_lock(&task->lock);
	if (task->magic == TASK_MAGIC && task->id == id)
		return task;
	pthread_mutex_unlock(&task->lock);
	return NULL;
}

/* Before anybody is told: who then asks for the figures finds this one in them. */
static void count_latency(const struct task *task)
{
	struct cairn_store *store = task->store;

	if ((task->op == CAIRN_OP_LOAD || task->op == CAIRN_OP_DUMP) && !task_own(task))
		store_latency(store, task->op == CAIRN_OP_LOAD ? LATENCY_LOAD : LATENCY_DUMP,
			      store->sys->now_ns() - task->submitted_ns);
}

static void emit(struct task *task, uint32_t events);

void task_dispatch(struct task *task)
{
	struct cairn_store *store = task->store;
	uint32_t counts[REACTORS_MAX] = {0}, n = 0;

	for (uint32_t i = 0; i < task->count; i++)
		counts[part_owner(store, task_key(task, i))]++;
	if (task->count == 0 && !task->done) {
		count_latency(task);
		emit(task, CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE);
		return;
	}
	/* A cancel finds all of the parts sent, or none. Callbacks are a reactor's, always. */
	pthread_mutex_lock(&task->lock);
	for (uint32_t r = 0; r < store->reactor_count; r++) {
		struct task_part *part = &task->parts[r];

		part->items = counts[r];
		if (counts[r] == 0 && !(r == 0 && task->count == 0))
			continue;
		part->arrive.kind = MESSAGE_PART;
		n++;
	}
	task->results_pending = n;
	task->releases_pending = n;
	for (uint32_t r = 0; r < store->reactor_count; r++)
		if (task->parts[r].arrive.kind == MESSAGE_PART)
			reactor_send(store->reactors[r], &task->parts[r].arrive);
	pthread_mutex_unlock(&task->lock);
}

static void count_miss(struct cairn_store *store, int32_t status)
{
	enum store_counter row = COUNT_MISSES_OTHER;

	if (status == -ENOENT)
		row = COUNT_MISSES_ABSENT;
	else if (status == -EBADMSG)
		row = COUNT_MISSES_DAMAGED;
	else if (status == -EIO)
		row = COUNT_MISSES_DEVICE;
	else if (status == -ETIMEDOUT)
		row = COUNT_MISSES_LATE;
	store_count(store, row, 1);
}

void task_item_ended(struct task *task, uint32_t item, int32_t status, uint16_t stage)
{
	struct cairn_result *result = task->xfers ? &task->xfers[item].result
						  : (task->results ? &task->results[item] : NULL);

	assert(status != CAIRN_PENDING);
	if (result) {
		result->status = status;
		result->stage = stage;
		result->reached = task->op == CAIRN_OP_DUMP && status >= 0
					  ? (uint16_t)(task->durability + 1)
					  : 0;
	}
	if (status >= 0)
		return;
	if (task->op == CAIRN_OP_LOAD)
		count_miss(task->store, status);
	pthread_mutex_lock(&task->lock);
	if (task->failed++ == 0 || item < task->first_error_item) {
		task->first_error = status;
		task->first_error_item = item;
	}
	pthread_mutex_unlock(&task->lock);
}

static void count_running_locked(struct cairn_store *store, struct task *task, uint32_t events)
{
	bool result = events & CAIRN_EVENT_RESULT, release = events & CAIRN_EVENT_RELEASE;

	if (result != release)
		store->tasks_unreleased += result ? 1u : -1u;
	if (!release)
		return;
	store->tasks_running--;
	memory_map_put(store, task->memory);
	task->memory = NULL;
}

void tasks_tell(struct cairn_store *store, struct list *told)
{
	pthread_mutex_lock(&store->lock);
	for (struct list *node = told->next; node != told; node = node->next) {
		struct task *task = list_entry(node, struct task, free_link);

		count_running_locked(store, task, task->told);
	}
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
	while (!list_empty(told))
		queue_post_all(told);
}

static void count_running(struct task *task, uint32_t events)
{
	struct cairn_store *store = task->store;

	pthread_mutex_lock(&store->lock);
	count_running_locked(store, task, events);
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

/* Tells whoever waits. The task may be another's when this returns. */
static void emit(struct task *task, uint32_t events)
{
	void (*done)(void *, uint64_t, uint32_t) = task->done;
	void *context = task->context;
	uint64_t id = task->id;
	bool forget;

	/* Counted first: who sees the event may ask for what is left at once. */
	count_running(task, events);
	if (task->queue) {
		queue_post(task->queue, task, events);
	} else if (done) {
		/* The slot first: a callback that goes on with another task finds it free. */
		if (events & CAIRN_EVENT_RELEASE)
			task_free(task);
		done(context, id, events);
	} else {
		pthread_mutex_lock(&task->lock);
		task->events |= events;
		forget = task->forget && (task->events & CAIRN_EVENT_RELEASE);
		if (forget)
			retire(task);
		pthread_cond_broadcast(&task->changed);
		pthread_mutex_unlock(&task->lock);
		if (forget)
			give_slot_back(task);
	}
}

static void settle(struct task *task, bool result, bool release, struct list *told)
{
	uint32_t events = 0;
	bool pin;

	pthread_mutex_lock(&task->lock);
	assert(task->magic == TASK_MAGIC);
	if (result && --task->results_pending == 0)
		events |= CAIRN_EVENT_RESULT;
	if (release && --task->releases_pending == 0)
		events |= CAIRN_EVENT_RELEASE;
	/* Another reactor's release must not overtake the result that is being told here. */
	pin = events == CAIRN_EVENT_RESULT;
	task->releases_pending += pin;
	pthread_mutex_unlock(&task->lock);
	if (events & CAIRN_EVENT_RESULT)
		count_latency(task);
	/* After its release nobody else has a word to say on the task: that can wait a little. */
	if ((events & CAIRN_EVENT_RELEASE) && task->queue && told) {
		task->told = events;
		list_append(told, &task->free_link);
	} else if (events) {
		emit(task, events);
	}
	if (pin)
		settle(task, false, true, told);
}

void task_part_settled(struct task_part *part, bool result, bool release, struct list *told)
{
	settle(part->task, result, release, told);
}

void task_unpin(struct task *task)
{
	settle(task, false, true, NULL);
}

void task_cancel_locked(struct task *task)
{
	struct cairn_store *store = task->store;

	if (task->canceled || task->results_pending == 0)
		return;
	task->canceled = true;
	for (uint32_t r = 0; r < store->reactor_count; r++) {
		struct task_part *part = &task->parts[r];

		/* Parts of no items were never sent. Sent ones live until this is dealt with. */
		if (part->arrive.kind != MESSAGE_PART)
			continue;
		task->releases_pending++;
		reactor_send(store->reactors[r], &part->cancel);
	}
}

int task_wait(struct task *task, uint32_t events, uint64_t timeout_ns)
{
	struct cairn_store *store = task->store;
	uint64_t until_ns = deadline_of(store->sys->now_ns(), timeout_ns);
	uint32_t want = events ? events : CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE;
	uint64_t id = task->id;
	bool slept = (task->events & want) != want, over = false;
	int ret = 0;

	if (slept)
		caller_enter(store);
	while (ret == 0 && task->id == id && (task->events & want) != want)
		ret = cond_wait_until(&task->changed, &task->lock, until_ns);
	if (task->id != id)
		ret = -EINVAL; /* somebody else waited, too, and had it */
	else if ((task->events & want) == want)
		ret = 0;
	if (ret == 0 && (task->events & CAIRN_EVENT_RELEASE)) {
		over = true;
		retire(task);
		pthread_cond_broadcast(&task->changed);
	}
	pthread_mutex_unlock(&task->lock);
	if (over)
		give_slot_back(task);
	if (slept)
		caller_leave(store);
	return ret;
}
