/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: submitted, waited for, drained, cancelled, past their deadline. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

#define LONG_NS (60 * SECOND)

static enum verdict async_wait(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	uint8_t *data = ctx_alloc(ctx, FIXED_COUNT * FIXED_BYTES);
	struct cairn_xfer *xfers = ctx_alloc(ctx, FIXED_COUNT * sizeof(*xfers));
	uint64_t task = 0;
	uint32_t i;

	for (i = 0; i < FIXED_COUNT; i++)
		xfers[i] = xfer_dump(&block, i, data + i * FIXED_BYTES);
	WANT_IS(ctx, cairn_dump(block.ns, xfers, FIXED_COUNT, NULL, &task), 0);
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, LONG_NS), 0);
	for (i = 0; i < FIXED_COUNT; i++) {
		WANT_IS(ctx, xfers[i].result.status, 0);
		WANT(ctx, xfers[i].result.reached > 0, "a dump says nothing of how far it got");
		xfers[i] = xfer_load(&block, i, 0, data + i * FIXED_BYTES, FIXED_BYTES);
	}
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, 0), -EINVAL); /* it is gone */
	WANT_IS(ctx, cairn_task_cancel(ctx->store, task), -EINVAL);
	memset(data, 0, FIXED_COUNT * FIXED_BYTES);
	WANT_IS(ctx, cairn_load(block.ns, xfers, FIXED_COUNT, NULL, &task), 0);
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, CAIRN_EVENT_RESULT, LONG_NS), 0);
	for (i = 0; i < FIXED_COUNT; i++)
		WANT(ctx, content_check(&block, i, 0, data + i * FIXED_BYTES, FIXED_BYTES),
		     "wrong bytes");
	/* The result may have brought the release with it, and then the id is gone. */
	i = (uint32_t)-cairn_task_wait(ctx->store, task, CAIRN_EVENT_RELEASE, LONG_NS);
	WANT(ctx, i == 0 || i == EINVAL, "waiting for the release gave %s",
	     status_text(-(long long)i));
	WANT_IS(ctx, cairn_task_wait(ctx->store, 0x123456789abcull, 0, 0), -EINVAL);
	return CASE_PASSED;
}

/* ---- queues and callbacks ------------------------------------------------------------- */

#define QUEUE_TASKS 100u

struct many {
	struct cairn_xfer xfers[QUEUE_TASKS];
	struct block blocks[QUEUE_TASKS];
	uint32_t results[QUEUE_TASKS], releases[QUEUE_TASKS];
	uint64_t ids[QUEUE_TASKS];
	uint8_t data[QUEUE_TASKS][512];
};

static const struct shape small_shape = {1, 512, 512};

/* The load of every seventh is of a block that is absent. */
static bool is_absent(uint32_t i)
{
	return i % 7 == 3;
}

static struct many *many_make(struct ctx *ctx)
{
	struct many *many = ctx_alloc(ctx, sizeof(*many));
	uint32_t i;

	for (i = 0; i < QUEUE_TASKS; i++) {
		many->blocks[i] = block_variable(ctx, i, small_shape);
		if (!is_absent(i) && block_dump(ctx, &many->blocks[i]) != 0)
			return NULL;
		many->xfers[i] = xfer_load(&many->blocks[i], 0, 0, many->data[i], 512);
	}
	return many;
}

static enum verdict many_check(struct ctx *ctx, const struct many *many)
{
	uint32_t i;

	for (i = 0; i < QUEUE_TASKS; i++) {
		WANT_IS(ctx, many->results[i], 1);
		WANT_IS(ctx, many->releases[i], 1);
		WANT_IS(ctx, many->xfers[i].result.status, is_absent(i) ? -ENOENT : 0);
		WANT(ctx, is_absent(i) || content_check(&many->blocks[i], 0, 0, many->data[i], 512),
		     "wrong bytes");
	}
	return CASE_PASSED;
}

/* Takes what waits in the queue. */
static enum verdict drain_some(struct ctx *ctx, struct many *many, struct cairn_queue *queue,
			       uint32_t *released)
{
	struct pollfd ready = {.fd = cairn_event_fd(queue), .events = POLLIN};
	struct cairn_completion completions[7];
	int count, i;
	uint32_t n;

	WANT(ctx, poll(&ready, 1, 60000) == 1, "the queue's descriptor is not readable");
	count = cairn_drain(queue, completions, 7, 0);
	WANT(ctx, count >= 0 && count <= 7, "cairn_drain() gave %d of 7", count);
	for (i = 0; i < count; i++) {
		n = (uint32_t)((struct cairn_xfer *)completions[i].context - many->xfers);
		WANT(ctx, n < QUEUE_TASKS && completions[i].task == many->ids[n],
		     "a completion with another's context");
		if (completions[i].events & CAIRN_EVENT_RESULT) {
			many->results[n]++;
			WANT_IS(ctx, completions[i].failed, is_absent(n));
		}
		if (completions[i].events & CAIRN_EVENT_RELEASE) {
			many->releases[n]++;
			(*released)++;
		}
	}
	return CASE_PASSED;
}

/* Submits them all, draining when there is no slot, and drains the rest. */
static enum verdict drain_all(struct ctx *ctx, struct many *many, struct cairn_queue *queue)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .queue = queue};
	uint32_t released = 0, started = 0;
	enum verdict verdict;
	int ret;

	while (released < QUEUE_TASKS) {
		ret = started < QUEUE_TASKS ? 0 : -EAGAIN;
		if (started < QUEUE_TASKS) {
			opts.context = &many->xfers[started];
			ret = cairn_load(ctx->variable, &many->xfers[started], 1, &opts,
					 &many->ids[started]);
		}
		WANT(ctx, ret == 0 || ret == -EAGAIN, "a load gave %s", status_text(ret));
		if (ret == 0) {
			started++;
			continue;
		}
		verdict = drain_some(ctx, many, queue, &released);
		if (verdict != CASE_PASSED)
			return verdict;
	}
	return CASE_PASSED;
}

static enum verdict queue_drain(struct ctx *ctx)
{
	struct many *many = many_make(ctx);
	struct cairn_completion completion;
	struct cairn_queue *queue = NULL;
	struct pollfd ready = {.events = POLLIN};
	enum verdict verdict;

	WANT(ctx, many != NULL, "a dump failed");
	WANT_IS(ctx, cairn_queue_open(ctx->store, &queue), 0);
	verdict = drain_all(ctx, many, queue);
	if (verdict != CASE_PASSED)
		return verdict;
	ready.fd = cairn_event_fd(queue);
	WANT_IS(ctx, cairn_drain(queue, &completion, 1, 0), 0);
	WANT(ctx, poll(&ready, 1, 0) == 0, "an empty queue's descriptor is readable");
	WANT_IS(ctx, cairn_drain(queue, &completion, 1, 5 * MS), 0);
	WANT_IS(ctx, cairn_queue_close(queue), 0);
	WANT_IS(ctx, cairn_queue_close(NULL), 0);
	return many_check(ctx, many);
}

struct called {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct many *many;
	uint32_t released;
};

struct call {
	struct called *called;
	uint32_t n;
};

static void on_done(void *context, uint64_t task, uint32_t events)
{
	struct call *call = context;
	struct called *called = call->called;

	(void)task;
	pthread_mutex_lock(&called->lock);
	called->many->results[call->n] += (events & CAIRN_EVENT_RESULT) != 0;
	called->many->releases[call->n] += (events & CAIRN_EVENT_RELEASE) != 0;
	called->released += (events & CAIRN_EVENT_RELEASE) != 0;
	pthread_cond_signal(&called->changed);
	pthread_mutex_unlock(&called->lock);
}

static enum verdict callbacks(struct ctx *ctx)
{
	struct called called = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, many_make(ctx),
				0};
	struct call *calls = ctx_alloc(ctx, QUEUE_TASKS * sizeof(*calls));
	struct cairn_task_opts opts = {.size = sizeof(opts), .done = on_done};
	uint32_t i;
	int ret;

	WANT(ctx, called.many != NULL, "a dump failed");
	for (i = 0; i < QUEUE_TASKS; i++) {
		calls[i] = (struct call){&called, i};
		opts.context = &calls[i];
		do
			ret = cairn_load(ctx->variable, &called.many->xfers[i], 1, &opts,
					 &called.many->ids[i]);
		while (ret == -EAGAIN);
		WANT_IS(ctx, ret, 0);
	}
	pthread_mutex_lock(&called.lock);
	while (called.released < QUEUE_TASKS)
		pthread_cond_wait(&called.changed, &called.lock);
	pthread_mutex_unlock(&called.lock);
	return many_check(ctx, called.many);
}

/* ---- more than there are slots ---------------------------------------------------------- */

#define CROWD_XFERS 6000u
#define CROWD_BYTES 40u

static enum verdict crowd_load(struct ctx *ctx, struct cairn_xfer *xfers, uint8_t *data)
{
	struct block block;
	uint32_t i;

	for (i = 0; i < CROWD_XFERS; i++) {
		block = block_variable(ctx, i % 500, (struct shape){1, CROWD_BYTES, CROWD_BYTES});
		xfers[i] = xfer_load(&block, 0, 0, data + i * CROWD_BYTES, CROWD_BYTES);
	}
	WANT_IS(ctx, cairn_load(ctx->variable, xfers, CROWD_XFERS, NULL, NULL), 0);
	for (i = 0; i < CROWD_XFERS; i++) {
		block = block_variable(ctx, i % 500, (struct shape){1, CROWD_BYTES, CROWD_BYTES});
		WANT_IS(ctx, xfers[i].result.status, 0);
		WANT(ctx, content_check(&block, 0, 0, data + i * CROWD_BYTES, CROWD_BYTES),
		     "wrong bytes");
	}
	return CASE_PASSED;
}

static enum verdict more_than_slots(struct ctx *ctx)
{
	struct cairn_xfer *xfers = ctx_alloc(ctx, CROWD_XFERS * sizeof(*xfers));
	uint8_t *data = ctx_alloc(ctx, CROWD_XFERS * CROWD_BYTES);
	struct cairn_stat st = {.size = sizeof(st)};
	uint64_t *tasks, i, taken;
	struct block block;
	int ret = 0;

	/* One block is named many times in one task: once it is new, then it is there. */
	for (i = 0; i < CROWD_XFERS; i++) {
		block = block_variable(ctx, i % 500, (struct shape){1, CROWD_BYTES, CROWD_BYTES});
		xfers[i] = xfer_dump(&block, 0, data + i * CROWD_BYTES);
	}
	WANT_IS(ctx, cairn_dump(ctx->variable, xfers, CROWD_XFERS, NULL, NULL), 0);
	if (crowd_load(ctx, xfers, data) != CASE_PASSED)
		return CASE_FAILED;
	/* More tasks than slots: taken, or refused with -EAGAIN; all that were taken end. */
	WANT_IS(ctx, cairn_stat(ctx->store, &st), 0);
	tasks = ctx_alloc(ctx, (st.tasks_max + 1ull) * sizeof(*tasks));
	for (taken = 0; taken <= st.tasks_max && ret == 0; taken++)
		ret = cairn_load(ctx->variable, &xfers[taken % CROWD_XFERS], 1, NULL,
				 &tasks[taken]);
	WANT(ctx, ret == 0 || ret == -EAGAIN, "a task too many gave %s", status_text(ret));
	if (ret != 0)
		taken--;
	WANT_IS(ctx, taken, st.tasks_max);
	for (i = 0; i < taken; i++)
		WANT_IS(ctx, cairn_task_wait(ctx->store, tasks[i], 0, LONG_NS), 0);
	return crowd_load(ctx, xfers, data);
}

/* ---- deadlines and cancels, behind a device that does not answer in time ----------------- */

#define SLOW "delay(read=700ms, write=0ms, depth=64)"

struct slow {
	struct block block;
	uint8_t *data;
	struct cairn_xfer xfer;
};

/*
 * A store behind a slow device, with a block in it and a load of it ready. What
 * a task names outlives a case that fails: none of it is on the stack.
 */
static enum verdict slow_open(struct ctx *ctx, struct slow **ret_slow)
{
	struct slow *slow = ctx_alloc(ctx, sizeof(*slow));

	if (ctx_open(ctx, SLOW) < 0)
		return CASE_FAILED;
	*ret_slow = slow;
	slow->block = block_fixed(ctx, 1);
	slow->data = ctx_alloc(ctx, FIXED_BYTES);
	WANT_IS(ctx, block_dump(ctx, &slow->block), 0);
	slow->xfer = xfer_load(&slow->block, 0, 0, slow->data, FIXED_BYTES);
	return CASE_PASSED;
}

/* After the release the memory is the caller's: it is written to, and nobody else does. */
static enum verdict stays_mine(struct ctx *ctx, uint8_t *data)
{
	uint32_t i;

	memset(data, 0x77, FIXED_BYTES);
	sleep_ns(1200 * MS);
	for (i = 0; i < FIXED_BYTES; i++)
		WANT(ctx, data[i] == 0x77, "memory was written to after its release");
	return CASE_PASSED;
}

static enum verdict deadline(struct ctx *ctx)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = 100 * MS};
	enum verdict verdict;
	struct slow *slow;
	uint64_t task, start_ns;

	verdict = slow_open(ctx, &slow);
	if (verdict != CASE_PASSED)
		return verdict;
	start_ns = clock_ns();
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, NULL), -ETIMEDOUT);
	WANT(ctx, clock_ns() - start_ns >= 100 * MS, "it ended before its deadline");
	WANT_IS(ctx, slow->xfer.result.status, -ETIMEDOUT);
	WANT_IS(ctx, cairn_store_quiesce(ctx->store, LONG_NS), 0);
	verdict = stays_mine(ctx, slow->data);
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, &task), 0);
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, CAIRN_EVENT_RESULT, 1), -ETIMEDOUT);
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, LONG_NS), 0);
	WANT_IS(ctx, slow->xfer.result.status, -ETIMEDOUT);
	verdict = stays_mine(ctx, slow->data);
	if (verdict != CASE_PASSED)
		return verdict;
	/* With time enough it loads. */
	opts.deadline_ns = CAIRN_DEADLINE_NONE;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, NULL), 0);
	WANT(ctx, content_check(&slow->block, 0, 0, slow->data, FIXED_BYTES), "wrong bytes");
	return CASE_PASSED;
}

static enum verdict deadline_detached(struct ctx *ctx)
{
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .deadline_ns = 100 * MS, .flags = CAIRN_TASK_DETACH};
	enum verdict verdict;
	struct slow *slow;
	uint64_t task;

	verdict = slow_open(ctx, &slow);
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, NULL), -ETIMEDOUT);
	verdict = stays_mine(ctx, slow->data); /* at once: no quiesce */
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, &task), 0);
	/* The result and the release come together. */
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, CAIRN_EVENT_RESULT, LONG_NS), 0);
	verdict = stays_mine(ctx, slow->data);
	if (verdict != CASE_PASSED)
		return verdict;
	opts.deadline_ns = 0;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, NULL), 0);
	WANT(ctx, content_check(&slow->block, 0, 0, slow->data, FIXED_BYTES), "wrong bytes");
	return CASE_PASSED;
}

static enum verdict cancel(struct ctx *ctx)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct cairn_completion completion = {0};
	struct cairn_queue *queue;
	enum verdict verdict;
	struct slow *slow;
	uint32_t events = 0;
	uint64_t task;

	verdict = slow_open(ctx, &slow);
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, NULL, &task), 0);
	WANT_IS(ctx, cairn_task_cancel(ctx->store, task), 0);
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, LONG_NS), 0);
	WANT_IS(ctx, slow->xfer.result.status, -ECANCELED);
	verdict = stays_mine(ctx, slow->data);
	if (verdict != CASE_PASSED)
		return verdict;
	/* Completions come as always. */
	WANT_IS(ctx, cairn_queue_open(ctx->store, &queue), 0);
	opts.queue = queue;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, &opts, &task), 0);
	WANT_IS(ctx, cairn_queue_close(queue), -EBUSY);
	WANT_IS(ctx, cairn_task_cancel(ctx->store, task), 0);
	while (!(events & CAIRN_EVENT_RELEASE)) {
		WANT_IS(ctx, cairn_drain(queue, &completion, 1, LONG_NS), 1);
		WANT(ctx, completion.task == task && !(events & completion.events),
		     "an event came twice");
		events |= completion.events;
	}
	WANT_IS(ctx, events, CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE);
	WANT_IS(ctx, slow->xfer.result.status, -ECANCELED);
	WANT_IS(ctx, cairn_queue_close(queue), 0);
	return CASE_PASSED;
}

/* A close that runs out of time leaves the store open and callable. */
static enum verdict close_timeout(struct ctx *ctx)
{
	struct cairn_stat st = {.size = sizeof(st)};
	enum verdict verdict;
	struct block second;
	struct slow *slow;
	uint64_t task;
	int ret;

	verdict = slow_open(ctx, &slow);
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_load(ctx->fixed, &slow->xfer, 1, NULL, &task), 0);
	WANT_IS(ctx, cairn_store_close(ctx->store, 20 * MS), -ETIMEDOUT);
	WANT_IS(ctx, cairn_stat(ctx->store, &st), 0);
	WANT_IS(ctx, block_present(&slow->block), 1);
	second = block_fixed(ctx, 2);
	ret = block_dump(ctx, &second);
	WANT(ctx, ret == 0 || ret == -ECANCELED, "a dump after it gave %s", status_text(ret));
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, LONG_NS), 0);
	WANT_IS(ctx, slow->xfer.result.status, 0);
	WANT(ctx, content_check(&slow->block, 0, 0, slow->data, FIXED_BYTES), "wrong bytes");
	return CASE_PASSED;
}

/* A device that stops answering: every call ends, and so does the close. */
static enum verdict device_hangs(struct ctx *ctx)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = 200 * MS};
	struct cairn_xfer xfers[FIXED_COUNT];
	uint8_t *data = ctx_alloc(ctx, FIXED_COUNT * FIXED_BYTES);
	struct block block;
	uint32_t i;

	if (ctx_open(ctx, "delay(read=0ms, write=0ms, hang=\"#1\")") < 0)
		return CASE_FAILED;
	block = block_fixed(ctx, 1);
	for (i = 0; i < FIXED_COUNT; i++)
		xfers[i] = xfer_dump(&block, i, data + i * FIXED_BYTES);
	WANT_IS(ctx, cairn_dump(ctx->fixed, xfers, FIXED_COUNT, &opts, NULL), -ETIMEDOUT);
	for (i = 0; i < FIXED_COUNT; i++)
		WANT_IS(ctx, xfers[i].result.status, -ETIMEDOUT);
	/* What needs no device answers. */
	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, cairn_remove(ctx->fixed, &block.key, 1, NULL, &opts, NULL), -ETIMEDOUT);
	WANT_IS(ctx, cairn_store_quiesce(ctx->store, LONG_NS), 0);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"async_wait", "a task by its id", async_wait, 0, 0},
	{"queue_drain", "one descriptor, completions in batches", queue_drain, 0, 0},
	{"callbacks", "each event comes once", callbacks, 0, 0},
	{"more_than_slots", "thousands of items, and more tasks than slots", more_than_slots, 0, 0},
	{"deadline", "an xfer ends at its deadline, its memory is free at the release", deadline,
	 CASE_OWN_STORE, 0},
	{"deadline_detached", "with CAIRN_TASK_DETACH memory is free at the deadline",
	 deadline_detached, CASE_OWN_STORE, 0},
	{"cancel", "a cancelled task ends", cancel, CASE_OWN_STORE, 0},
	{"close_timeout", "a close that runs out of time leaves the store callable", close_timeout,
	 CASE_OWN_STORE, 0},
	{"device_hangs", "every call ends when the device does not answer", device_hangs,
	 CASE_OWN_STORE, 0},
};

const struct case_list cases_tasks = {cases, sizeof(cases) / sizeof(cases[0])};
