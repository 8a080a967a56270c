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
		.size = sizeof(opts), .done = on_event, .context = &told, .deadline_ns = 100 * MS};
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
	sleep_ms(200);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(release_waits_for_the_telling),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
