/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks of the core: who is told what and when, and what a caller can do wrong. */
#include "core_store.h"

/* ---- the result comes before the release ------------------------------------ */

struct told {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t results, releases;
	bool hold;	   /* a result's callback does not return before this is false */
	uint32_t overtook; /* releases that came while a result was being told */
	bool telling;
};

#define TOLD                                                                                       \
	{                                                                                          \
		PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, false, 0, false         \
	}

static void on_event(void *context, uint64_t task, uint32_t events)
{
	struct told *told = context;

	(void)task;
	pthread_mutex_lock(&told->lock);
	told->overtook += (events & CAIRN_EVENT_RELEASE) && told->telling;
	told->results += (events & CAIRN_EVENT_RESULT) != 0;
	told->releases += (events & CAIRN_EVENT_RELEASE) != 0;
	pthread_cond_broadcast(&told->changed);
	if (events & CAIRN_EVENT_RESULT) {
		told->telling = true;
		while (told->hold)
			pthread_cond_wait(&told->changed, &told->lock);
		told->telling = false;
	}
	pthread_mutex_unlock(&told->lock);
}

static void told_await(struct told *told, const uint32_t *what, uint32_t count)
{
	pthread_mutex_lock(&told->lock);
	while (*what < count)
		pthread_cond_wait(&told->changed, &told->lock);
	pthread_mutex_unlock(&told->lock);
}

static void told_hold(struct told *told, bool hold)
{
	pthread_mutex_lock(&told->lock);
	told->hold = hold;
	pthread_cond_broadcast(&told->changed);
	pthread_mutex_unlock(&told->lock);
}

/* The first key from @from on that the reactor @index of two owns. */
static uint32_t key_of(uint32_t index, uint32_t from)
{
	while (f.keys[from].bytes[15] >> 7 != index)
		from++;
	return from;
}

/*
 * One reactor gives its result and its release at once and so the task's result;
 * while it tells it, the I/O of the other one, whose deadline passed, comes to its
 * end. Nobody may hear of the release before the result was told.
 */
static void release_waits_for_the_telling(void **state)
{
	struct told told = TOLD, gate = TOLD;
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .done = on_event, .context = &told, .deadline_ns = 1000 * MS};
	struct cairn_task_opts stopper = {.size = sizeof(opts), .done = on_event, .context = &gate};
	uint32_t x, y, other;
	static struct cairn_xfer both[2], one[1];
	struct spy *spy;
	uint64_t task;

	(void)state;
	spy = open_spied("store(reactors=2) | spy() | null(size=1MiB)");
	x = key_of(0, 0);
	y = key_of(1, 0);
	other = key_of(0, x + 1);
	spy_set(spy, &spy->keep, true);
	fill(&both[0], f.back, x, 1);
	fill(&both[1], f.back, y, 1);
	assert_int_equal(cairn_load(f.ns, both, 2, &opts, &task), 0);
	spy_await(spy, &spy->kept_count, 2);
	/* Reactor 0 stands in a callback while the deadline passes. */
	spy_set(spy, &spy->keep, false);
	gate.hold = true;
	fill(one, f.back, other, 1);
	assert_int_equal(cairn_load(f.ns, one, 1, &stopper, &task), 0);
	told_await(&gate, &gate.results, 1);
	sleep_ms(1100);
	told.hold = true;
	spy_let_go(spy, &f.keys[x]);
	told_hold(&gate, false);
	told_await(&told, &told.results, 1);
	spy_let_go(spy, &f.keys[y]);
	sleep_ms(50);
	told_hold(&told, false);
	told_await(&told, &told.releases, 1);
	assert_int_equal(told.overtook, 0);
	assert_int_equal(both[0].result.status, -ENOENT);
	assert_int_equal(both[1].result.status, -ETIMEDOUT);
	assert_int_equal(told.results, 1);
	close_store();
}

/* ---- waiters ------------------------------------------------------------------ */

struct waiter {
	pthread_t thread;
	uint64_t task;
	int ret;
};

static void *wait_for_it(void *argument)
{
	struct waiter *waiter = argument;

	waiter->ret = cairn_task_wait(f.store, waiter->task, 0, UINT64_MAX);
	return NULL;
}

/* Waits until so many threads stand inside calls that wait. */
static void callers_await(uint32_t count)
{
	uint32_t now;

	do {
		sleep_ms(1);
		pthread_mutex_lock(&f.store->lock);
		now = f.store->callers;
		pthread_mutex_unlock(&f.store->lock);
	} while (now != count);
}

static void one_of_several_waiters_has_it(void **state)
{
	struct waiter waiters[4];
	struct cairn_xfer xfer[1];
	uint32_t had = 0;
	struct spy *spy;
	uint64_t task, next;

	(void)state;
	spy = open_spied("store(tasks=1) | spy() | null(size=1MiB)");
	spy_set(spy, &spy->keep, true);
	fill(xfer, f.back, 0, 1);
	assert_int_equal(cairn_load(f.ns, xfer, 1, NULL, &task), 0);
	for (uint32_t i = 0; i < 4; i++) {
		waiters[i].task = task;
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_it, &waiters[i]),
				 0);
	}
	spy_await(spy, &spy->kept_count, 1);
	callers_await(4);
	spy_let_go(spy, NULL);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
		had += waiters[i].ret == 0;
		assert_true(waiters[i].ret == 0 || waiters[i].ret == -EINVAL);
	}
	assert_int_equal(had, 1);
	/* There is one slot still: not two, and not none. */
	assert_int_equal(cairn_load(f.ns, xfer, 1, NULL, &task), 0);
	assert_int_equal(cairn_load(f.ns, xfer, 1, NULL, &next), -EAGAIN);
	spy_await(spy, &spy->kept_count, 2);
	spy_let_go(spy, NULL);
	assert_int_equal(cairn_task_wait(f.store, task, 0, UINT64_MAX), 0);
	close_store();
}

static void *load_alone(void *argument)
{
	struct waiter *waiter = argument;
	struct cairn_xfer xfer[1];

	fill(xfer, f.back, 1, 1);
	waiter->ret = cairn_load(f.ns, xfer, 1, NULL, NULL);
	return NULL;
}

static void *quiesce(void *argument)
{
	struct waiter *waiter = argument;

	waiter->ret = cairn_store_quiesce(f.store, UINT64_MAX);
	return NULL;
}

static void *let_go_later(void *argument)
{
	sleep_ms(50);
	spy_let_go(argument, NULL);
	return NULL;
}

/* Threads wait for a task, for memory and for a slot; all have left when the store is gone. */
static void close_outwaits_the_waiters(void **state)
{
	struct waiter task_waiter, slot_waiter, memory_waiter;
	static struct cairn_xfer slow[1], late[1];
	struct spy *spy;
	pthread_t helper;
	uint64_t task;

	(void)state;
	spy = open_spied("store(tasks=2) | spy() | null(size=1MiB)");
	spy_set(spy, &spy->keep, true);
	fill(slow, f.back, 0, 1);
	fill(late, f.back, 2, 1);
	assert_int_equal(cairn_load(f.ns, slow, 1, NULL, &task_waiter.task), 0);
	assert_int_equal(cairn_load(f.ns, late, 1, NULL, &task), 0);
	spy_await(spy, &spy->kept_count, 2);
	assert_int_equal(cairn_task_cancel(f.store, task), 0);
	assert_int_equal(cairn_task_wait(f.store, task, CAIRN_EVENT_RESULT, UINT64_MAX), 0);
	pthread_create(&task_waiter.thread, NULL, wait_for_it, &task_waiter);
	pthread_create(&slot_waiter.thread, NULL, load_alone, &slot_waiter);
	pthread_create(&memory_waiter.thread, NULL, quiesce, &memory_waiter);
	callers_await(3);
	/* Too short a time: open again. Who waited for a slot was told. */
	assert_int_equal(cairn_store_close(f.store, 20 * MS), -ETIMEDOUT);
	assert_int_equal(pthread_join(slot_waiter.thread, NULL), 0);
	assert_int_equal(slot_waiter.ret, -ECANCELED);
	pthread_create(&slot_waiter.thread, NULL, load_alone, &slot_waiter);
	callers_await(3);
	pthread_create(&helper, NULL, let_go_later, spy);
	close_store();
	assert_int_equal(pthread_join(helper, NULL), 0);
	assert_int_equal(pthread_join(task_waiter.thread, NULL), 0);
	assert_int_equal(pthread_join(slot_waiter.thread, NULL), 0);
	assert_int_equal(pthread_join(memory_waiter.thread, NULL), 0);
	assert_int_equal(task_waiter.ret, 0);
	assert_int_equal(slot_waiter.ret, -ECANCELED);
	assert_int_equal(memory_waiter.ret, 0);
	assert_int_equal(late[0].result.status, -ECANCELED);
}

/* What a stage has of a task that was cancelled is told so, dumps and loads, detached or not. */
static void stages_see_a_cancel(void **state)
{
	static struct cairn_xfer xfers[4];
	struct spy *spy;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=1MiB)");
	spy_set(spy, &spy->keep, true);
	for (uint32_t i = 0; i < 4; i++) {
		struct cairn_task_opts opts = {.size = sizeof(opts),
					       .deadline_ns = CAIRN_DEADLINE_NONE,
					       .flags = i & 1 ? CAIRN_TASK_DETACH : 0};
		uint64_t task;

		fill(&xfers[i], i < 2 ? f.memory : f.back, i, 1);
		assert_int_equal(
			(i < 2 ? cairn_dump : cairn_load)(f.ns, &xfers[i], 1, &opts, &task), 0);
		spy_await(spy, &spy->kept_count, i + 1);
		assert_true(spy->kept[i]->deadline_ns == UINT64_MAX);
		assert_int_equal(cairn_task_cancel(f.store, task), 0);
		assert_int_equal(cairn_task_wait(f.store, task, CAIRN_EVENT_RESULT, UINT64_MAX), 0);
		assert_int_equal(xfers[i].result.status, -ECANCELED);
		assert_int_equal(spy->kept[i]->deadline_ns, 0);
	}
	spy_let_go(spy, NULL);
	close_store();
}

/* ---- callbacks ------------------------------------------------------------------ */

struct relay {
	struct told told;
	struct cairn_xfer xfer[1];
	uint32_t left;
	int ret;
	pthread_t thread;
};

static void next_one(void *context, uint64_t task, uint32_t events)
{
	struct relay *relay = context;
	struct cairn_task_opts opts = {.size = sizeof(opts), .done = next_one, .context = context};

	relay->thread = pthread_self();
	if (relay->left == 0) {
		on_event(&relay->told, task, events);
		return;
	}
	relay->left--;
	relay->ret = cairn_load(f.ns, relay->xfer, relay->left ? 1 : 0, &opts, &task);
	if (relay->ret < 0)
		on_event(&relay->told, task, events);
}

/* With one slot, each callback finds it free; a task of nothing is told by a reactor as well. */
static void callbacks_submit(void **state)
{
	static struct relay relay = {.told = TOLD, .left = 50};
	struct cairn_task_opts opts = {.size = sizeof(opts), .done = next_one, .context = &relay};
	uint64_t task;

	(void)state;
	open_store("store(tasks=1) | null(size=1MiB)", NULL);
	fill(relay.xfer, f.back, 0, 1);
	assert_int_equal(cairn_load(f.ns, relay.xfer, 1, &opts, &task), 0);
	told_await(&relay.told, &relay.told.releases, 1);
	assert_int_equal(relay.ret, 0);
	assert_int_equal(relay.left, 0);
	relay.told.releases = 0;
	assert_int_equal(cairn_load(f.ns, NULL, 0, &opts, &task), 0);
	told_await(&relay.told, &relay.told.releases, 1);
	assert_false(pthread_equal(relay.thread, pthread_self()));
	close_store();
}

/* ---- queues and handles ------------------------------------------------------------ */

#define DRAINERS 3u

struct drainer {
	pthread_t thread;
	struct cairn_queue *queue;
	uint32_t *left; /* releases to come; under lock */
	pthread_mutex_t *lock;
	int count;
};

static void *drain(void *argument)
{
	struct drainer *drainer = argument;
	struct cairn_completion completion;
	bool over = false;

	while (!over) {
		int n = cairn_drain(drainer->queue, &completion, 1, 1 * MS);

		drainer->count += n;
		pthread_mutex_lock(drainer->lock);
		*drainer->left -= n == 1 && (completion.events & CAIRN_EVENT_RELEASE);
		over = *drainer->left == 0;
		pthread_mutex_unlock(drainer->lock);
	}
	return NULL;
}

/* Every completion goes to exactly one of several threads. */
static void several_threads_drain(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct cairn_xfer xfers[MANY];
	struct drainer drainers[DRAINERS];
	struct cairn_queue *queue;
	uint32_t left = MANY;
	int sum = 0;

	(void)state;
	open_store("store(reactors=2, tasks=128) | null(size=1MiB)", NULL);
	assert_int_equal(cairn_queue_open(f.store, &queue), 0);
	fill(xfers, f.back, 0, MANY);
	for (uint32_t i = 0; i < DRAINERS; i++) {
		drainers[i] = (struct drainer){.queue = queue, .left = &left, .lock = &lock};
		pthread_create(&drainers[i].thread, NULL, drain, &drainers[i]);
	}
	for (uint32_t i = 0; i < MANY; i++) {
		struct cairn_task_opts opts = {.size = sizeof(opts), .queue = queue};
		uint64_t task;

		assert_int_equal(cairn_load(f.ns, &xfers[i], 1, &opts, &task), 0);
	}
	for (uint32_t i = 0; i < DRAINERS; i++) {
		assert_int_equal(pthread_join(drainers[i].thread, NULL), 0);
		sum += drainers[i].count;
	}
	assert_int_equal(sum, MANY); /* result and release together */
	assert_int_equal(cairn_queue_close(queue), 0);
	close_store();
}

static void *drain_one(void *argument)
{
	struct drainer *drainer = argument;
	struct cairn_completion completion;

	drainer->count = cairn_drain(drainer->queue, &completion, 1, UINT64_MAX);
	return NULL;
}

/* Neither a queue that somebody waits at nor a store with a queue can be closed. */
static void handles_in_use(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct drainer drainer = {0};
	struct cairn_xfer xfer[1];
	struct cairn_found found;
	uint64_t task;

	(void)state;
	open_store("null(size=1MiB)", NULL);
	assert_int_equal(cairn_queue_open(f.store, &drainer.queue), 0);
	opts.queue = drainer.queue;
	assert_int_equal(cairn_store_close(f.store, 1), -EBUSY);
	pthread_create(&drainer.thread, NULL, drain_one, &drainer);
	fill(xfer, f.back, 0, 1);
	while (queue_waiters(drainer.queue) == 0)
		sleep_ms(1);
	assert_int_equal(cairn_queue_close(drainer.queue), -EBUSY);
	assert_int_equal(cairn_load(f.ns, xfer, 1, &opts, &task), 0);
	assert_int_equal(pthread_join(drainer.thread, NULL), 0);
	assert_int_equal(drainer.count, 1);
	assert_int_equal(cairn_queue_close(drainer.queue), 0);
	/* Once too often is no harm: the handle stays until the store is closed. */
	cairn_namespace_close(f.ns);
	cairn_namespace_close(f.ns);
	assert_int_equal(cairn_lookup(f.ns, f.keys, 1, &found, NULL, NULL), 0);
	close_store();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(release_waits_for_the_telling),
		cmocka_unit_test(one_of_several_waiters_has_it),
		cmocka_unit_test(close_outwaits_the_waiters),
		cmocka_unit_test(stages_see_a_cancel),
		cmocka_unit_test(callbacks_submit),
		cmocka_unit_test(several_threads_drain),
		cmocka_unit_test(handles_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
