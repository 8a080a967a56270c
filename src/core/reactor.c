/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/holds.h"
#include "core/reactor.h"
#include "sys/thread.h"

size_t reactor_stage_bytes(size_t pool_bytes)
{
	size_t half = pool_bytes / 2;

	/* No piece lies in two chunks. */
	return half >= POOL_CHUNK ? half - half % POOL_CHUNK : half & ~(size_t)4095;
}

static void reactor_buddies(struct reactor *reactor)
{
	uint8_t *meta = reactor->buddy_memory;

	buddy_init(&reactor->buddy, meta, reactor->stage_bytes);
	if (reactor->stage_bytes == reactor->pool_bytes)
		return;
	meta += buddy_meta_bytes(reactor->stage_bytes);
	buddy_init(&reactor->bounce, meta, reactor->pool_bytes - reactor->stage_bytes);
	reactor->bounce_max = buddy_largest(&reactor->bounce);
}

static int reactor_memory(struct reactor *reactor)
{
	const struct sys *sys = reactor->store->sys;
	size_t bounce_bytes = reactor->pool_bytes - reactor->stage_bytes;
	uint32_t ios = reactor->ios + reactor->own_count;

	reactor->io_bytes = (sizeof(struct io_slot) + reactor->store->scratch_bytes + 63) & ~63ul;
	reactor->ios_memory = sys->alloc(64, reactor->io_bytes * ios);
	reactor->timers = sys_zalloc(sys, 64, sizeof(*reactor->timers) * ios);
	reactor->buddy_memory = sys->alloc(64, buddy_meta_bytes(reactor->stage_bytes) +
						       buddy_meta_bytes(bounce_bytes));
	if (!reactor->ios_memory || !reactor->timers || !reactor->buddy_memory)
		return -ENOMEM;
	if (sys_reserve_huge(sys, reactor->pool_bytes, &reactor->pool, &reactor->pool_base,
			     &reactor->pool_base_bytes) < 0)
		return -ENOMEM;
	reactor_buddies(reactor);
	return 0;
}

static void make_io(struct reactor *reactor, uint32_t index, struct list *free)
{
	uint8_t *memory = reactor->ios_memory;
	struct io_slot *io = (struct io_slot *)(void *)(memory + index * reactor->io_bytes);

	memset(io, 0, sizeof(*io)); /* stages' scratch before each submit() */
	io->magic = IO_MAGIC;
	io->reactor = reactor;
	io->resume.kind = MESSAGE_RESUME;
	io->own = free == &reactor->own_ios;
	list_init(&io->link);
	list_append(free, &io->waiting);
}

/*
 * Whether there is a free io among the @count from @first on; one that was never used is made only
 * where there is no other.
 */
static bool spare(struct reactor *reactor, struct list *free, uint32_t *made, uint32_t first,
		  uint32_t count)
{
	if (!list_empty(free))
		return true;
	if (*made == count)
		return false;
	make_io(reactor, first + (*made)++, free);
	return true;
}

static bool io_spare(struct reactor *reactor)
{
	return spare(reactor, &reactor->free_ios, &reactor->ios_made, 0, reactor->ios);
}

/* Of those that are kept for stages' tasks; they lie behind the others. */
static bool own_spare(struct reactor *reactor)
{
	return spare(reactor, &reactor->own_ios, &reactor->own_made, reactor->ios,
		     reactor->own_count);
}

static int reactor_engine(struct reactor *reactor)
{
	struct cairn_store *store = reactor->store;
	struct engine_memory memory[1 + LENT_MAX] = {{reactor->pool, reactor->pool_bytes}};
	struct engine_opts opts = {
		.sys = store->sys,
		.chains_max = (reactor->ios + reactor->own_count) * 8 + JOB_CHAINS,
		.iowq_max = reactor->standing ? store->iowq_max : 1,
		.workers = store->workers,
		.shared_owner = !reactor->standing,
		.guard_fd = store->guard_count > 0 ? store->guards[0] : -1,
		.memory = memory,
		.memory_count = 1 + store->lent_count,
		.memory_chunk = POOL_CHUNK,
	};
	int ret;

	memcpy(memory + 1, store->lent, store->lent_count * sizeof(*memory));
	reactor->engine_ops = store->engine_ops;
	/*
	 * A plain direct read cannot be left at a deadline, and a worker's takes two
	 * switches of threads: a light reactor has libaio where there is any.
	 */
	if (!reactor->standing && store->engine_kind == ENGINE_PSYNC)
		reactor->engine_ops = store->sys->engine(ENGINE_AIO);
	ret = reactor->engine_ops->open(&opts, &reactor->engine);
	if (ret < 0 && ret != -ENOMEM && !reactor->standing && store->engine_kind != ENGINE_URING) {
		reactor->engine_ops = store->sys->engine(ENGINE_PSYNC);
		ret = reactor->engine_ops->open(&opts, &reactor->engine);
	}
	for (uint32_t i = 1; ret == 0 && i < store->guard_count; i++)
		ret = reactor->engine_ops->add_guard(reactor->engine, store->guards[i]);
	return ret;
}

int reactor_new(struct cairn_store *store, uint32_t index, bool standing,
		struct reactor **ret_reactor, struct cairn_error *reterr)
{
	struct reactor *reactor = sys_zalloc(store->sys, 64, sizeof(*reactor));
	int ret;

	if (!reactor)
		return fail(reterr, -ENOMEM, "no memory for a reactor");
	reactor->magic = REACTOR_MAGIC;
	reactor->index = index;
	reactor->store = store;
	reactor->standing = standing;
	reactor->ios = standing ? (uint32_t)store->settings[SET_IOS].u : LIGHT_IOS;
	reactor->own_count = standing && store->back ? OWN_IOS : 0;
	reactor->pool_bytes = standing ? store->settings[SET_BUFFERS].u : LIGHT_BUFFERS;
	reactor->stage_bytes =
		standing ? reactor_stage_bytes(reactor->pool_bytes) : reactor->pool_bytes;
	reactor->next_deadline_ns = UINT64_MAX;
	reactor->sleepers_next_ns = UINT64_MAX;
	reactor->prefetch_next_ns = UINT64_MAX;
	reactor->adopt.kind = MESSAGE_ADOPT;
	list_init(&reactor->free_ios);
	list_init(&reactor->own_ios);
	list_init(&reactor->own_queue);
	list_init(&reactor->parts);
	list_init(&reactor->buffer_waiters);
	list_init(&reactor->starved);
	list_init(&reactor->told);
	for (uint32_t i = 0; i < CLASSES; i++)
		list_init(&reactor->queues[i]);
	ret = reactor_memory(reactor);
	if (ret == 0)
		ret = reactor_engine(reactor);
	if (ret < 0) {
		reactor_free(reactor);
		return fail(reterr, ret, "reactor %u: %s: %s", index,
			    ret == -ENOMEM ? "no memory" : "the I/O engine did not open",
			    strerror(-ret));
	}
	*ret_reactor = reactor;
	return 0;
}

void reactor_free(struct reactor *reactor)
{
	const struct sys *sys;

	if (!reactor)
		return;
	assert(reactor->magic == REACTOR_MAGIC && !reactor->started);
	assert(reactor->ios_in_flight == 0);
	sys = reactor->store->sys;
	if (reactor->engine)
		reactor->engine_ops->close(reactor->engine);
	if (reactor->pool_base)
		sys->munmap(reactor->pool_base, reactor->pool_base_bytes);
	sys->free(reactor->buddy_memory);
	sys->free(reactor->timers);
	sys->free(reactor->ios_memory);
	reactor->magic = 0;
	sys->free(reactor);
}

void reactor_send(struct reactor *reactor, struct message *message)
{
	if (ring_push(&reactor->inbox, &message->node))
		reactor->engine_ops->wake(reactor->engine);
}

static void io_resume(struct io_slot *io)
{
	struct reactor *reactor = io->reactor;
	struct level *level;

	assert(io->magic == IO_MAGIC && reactor->magic == REACTOR_MAGIC);
	level = &reactor->store->levels[io->io.level];
	assert(level->ops->resume);
	level->ops->resume(level->self, &io->io, io->scratch + level->scratch_offset);
}

static void handle(struct reactor *reactor, struct message *message)
{
	struct reactor *light;
	struct task_part *part;
	struct stage_job *job;
	struct io_slot *io;

	switch (message->kind) {
	case MESSAGE_NONE:
		assert(false);
		break;
	case MESSAGE_PART:
		part_arrive(reactor, list_entry(message, struct task_part, arrive));
		break;
	case MESSAGE_CANCEL:
		part = list_entry(message, struct task_part, cancel);
		part_end(reactor, part, -ECANCELED);
		task_unpin(part->task);
		break;
	case MESSAGE_RESUME:
		io = list_entry(message, struct io_slot, resume);
		flag_lower(&io->resume_posted); /* the message alone: it may be sent again */
		io_resume(io);
		break;
	case MESSAGE_ADOPT:
		light = list_entry(message, struct reactor, adopt);
		light->adopted_next = reactor->adopted;
		reactor->adopted = light;
		break;
	case MESSAGE_JOB:
		job = list_entry(message, struct stage_job, message);
		flag_lower(&job->posted);
		job_run(reactor, job); /* it may be gone after that */
		break;
	}
}

static void take_messages(struct reactor *reactor)
{
	struct ring_node *node = ring_take(&reactor->inbox);

	while (node) {
		struct ring_node *next = node->next;

		handle(reactor, list_entry(node, struct message, node));
		node = next;
	}
}

static void run_timers(struct reactor *reactor, uint64_t now_ns)
{
	while (reactor->timer_count > 0 && reactor->timers[0]->timer_ns <= now_ns) {
		struct io_slot *io = reactor->timers[0];

		timer_clear(reactor, io);
		io_resume(io);
	}
}

static void run_deadlines(struct reactor *reactor, uint64_t now_ns)
{
	struct list *node, *next;

	if (reactor->next_deadline_ns > now_ns)
		return;
	reactor->next_deadline_ns = UINT64_MAX;
	for (node = reactor->parts.next; node != &reactor->parts; node = next) {
		struct task_part *part = list_entry(node, struct task_part, active);

		next = node->next;
		if (part->result_sent)
			continue;
		if (part->task->deadline_ns <= now_ns)
			part_end(reactor, part, -ETIMEDOUT);
		else if (part->task->deadline_ns < reactor->next_deadline_ns)
			reactor->next_deadline_ns = part->task->deadline_ns;
	}
}

/* Bounce memory came back: the parts that wait for some are the first of their classes. */
static void run_starved(struct reactor *reactor)
{
	if (!reactor->bounce_came)
		return;
	reactor->bounce_came = false;
	while (!list_empty(&reactor->starved)) {
		struct list *node = reactor->starved.prev;
		struct task_part *part = list_entry(node, struct task_part, queued);

		list_remove(node);
		if (part->task->task_class == CAIRN_CLASS_PREFETCH)
			part_queue(reactor, part);
		else
			list_prepend(&reactor->queues[part->task->task_class - 1], node);
	}
}

/* Buffers came back: those that wait for one try again, in order. */
static void run_buffer_waiters(struct reactor *reactor)
{
	struct list again, *node;

	if (!reactor->buffer_came)
		return;
	reactor->buffer_came = false;
	list_init(&again);
	while ((node = list_take(&reactor->buffer_waiters)) != NULL)
		list_append(&again, node);
	while ((node = list_take(&again)) != NULL) {
		struct io_slot *io = list_entry(node, struct io_slot, waiting);

		io->wants_buffer = false;
		io_resume(io);
	}
}

/*
 * Prefetches leave loads alone: they have a quarter of the ios at most, and bring up so much
 * in a time. Something else may be of their class.
 */
static bool prefetch_waits(struct reactor *reactor)
{
	const struct task_part *first = list_entry(reactor->queues[CAIRN_CLASS_PREFETCH - 1].next,
						   struct task_part, queued);

	if (first->task->op != CAIRN_OP_PREFETCH)
		return false;
	if (reactor->ios > 4 && reactor->prefetches_in_flight >= reactor->ios / 4)
		return true;
	return !bucket_open(&reactor->prefetch, reactor->store->sys->now_ns(),
			    &reactor->prefetch_next_ns);
}

/* The class to serve next: the first that has work, unless another was passed over too often. */
static int pick_class(struct reactor *reactor)
{
	int pick = -1;

	for (uint32_t c = 0; c < CLASSES; c++) {
		/* A quarter of the ios is kept from dumps, so that a load always finds one. */
		if (list_empty(&reactor->queues[c]) ||
		    (c == CAIRN_CLASS_DUMP - 1 && reactor->ios > 4 &&
		     reactor->dumps_in_flight >= reactor->ios - reactor->ios / 4) ||
		    (c == CAIRN_CLASS_PREFETCH - 1 && prefetch_waits(reactor)))
			continue;
		if (pick < 0)
			pick = (int)c;
		else if (++reactor->passed[c] >= CLASS_FLOOR)
			pick = (int)c;
	}
	return pick;
}

/* Those of stages, after all others: they have ios of their own, and so their turn. */
static void start_own(struct reactor *reactor)
{
	while (!list_empty(&reactor->own_queue) && own_spare(reactor)) {
		struct task_part *part;

		if (reactor->dump_bytes >= DUMP_TURN_BYTES) {
			reactor->more = true;
			return;
		}
		part = list_entry(reactor->own_queue.next, struct task_part, queued);
		part_take_turn(reactor, part);
		io_start_next(reactor, part);
	}
}

static void start_ios(struct reactor *reactor)
{
	int c = 0;

	reactor->dump_bytes = 0;
	reactor->prefetch_next_ns = UINT64_MAX;
	reactor->load_bytes = 0;
	for (uint32_t started = 0; io_spare(reactor); started++) {
		struct task_part *part;

		if (started == STARTS_MAX || reactor->dump_bytes >= DUMP_TURN_BYTES ||
		    reactor->load_bytes >= LOAD_TURN_BYTES)
			break;
		c = pick_class(reactor);
		if (c < 0)
			break;
		/*
		 * Tasks of one class take turns, so that a large one does not hold up
		 * the rest. Once started, the part may be over: it is not touched after.
		 */
		part = list_entry(reactor->queues[c].next, struct task_part, queued);
		part_take_turn(reactor, part);
		io_start_next(reactor, part);
	}
	reactor->more = c >= 0 && io_spare(reactor);
	if (!io_spare(reactor))
		store_count(reactor->store, COUNT_BACKPRESSURE, 1);
	start_own(reactor);
}

void reactor_count_transfers(struct reactor *reactor)
{
	struct engine_stat now;

	reactor->engine_ops->stat(reactor->engine, &now);
	assert(now.fixed >= reactor->counted.fixed && now.unfixed >= reactor->counted.unfixed);
	if (now.fixed != reactor->counted.fixed)
		store_count(reactor->store, COUNT_REGISTERED_IOS,
			    now.fixed - reactor->counted.fixed);
	if (now.unfixed != reactor->counted.unfixed)
		store_count(reactor->store, COUNT_UNREGISTERED_IOS,
			    now.unfixed - reactor->counted.unfixed);
	reactor->counted = now;
}

void reactor_tell(struct reactor *reactor)
{
	reactor->told_bytes = 0;
	reactor->told_count = 0;
	reactor->told_turns = 0;
	if (!list_empty(&reactor->told))
		tasks_tell(reactor->store, &reactor->told);
}

bool reactor_idle(const struct reactor *reactor)
{
	return reactor->ios_in_flight == 0 && list_empty(&reactor->parts);
}

static void light_give_back(struct reactor *light)
{
	struct cairn_store *store = light->store;

	assert(reactor_idle(light));
	pthread_mutex_lock(&store->lock);
	store->lights[store->light_count++] = light;
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

/* Drives the light reactors whose callers left; done ones go back. */
static void run_adopted(struct reactor *reactor)
{
	struct reactor **link = &reactor->adopted;

	while (*link) {
		struct reactor *light = *link;

		reactor_turn(light, 0);
		if (reactor_idle(light)) {
			*link = light->adopted_next;
			light->adopted_next = NULL;
			light_give_back(light);
		} else {
			link = &light->adopted_next;
		}
	}
}

#define BROKEN_POLL_NS	1000000ull
#define ADOPTED_POLL_NS 10000000ull /* only while a device is late for a deadline that passed */

static uint64_t wait_until(struct reactor *reactor, uint64_t now_ns, uint64_t until_ns)
{
	if (reactor->timer_count > 0 && reactor->timers[0]->timer_ns < until_ns)
		until_ns = reactor->timers[0]->timer_ns;
	if (reactor->next_deadline_ns < until_ns)
		until_ns = reactor->next_deadline_ns;
	if (reactor->prefetch_next_ns < until_ns)
		until_ns = reactor->prefetch_next_ns;
	if (reactor->sleepers_next_ns < until_ns)
		until_ns = reactor->sleepers_next_ns;
	if (reactor->standing && reactor->index == 0 && holds_next_ns(reactor->store) < until_ns)
		until_ns = holds_next_ns(reactor->store);
	if (reactor->adopted && now_ns + ADOPTED_POLL_NS < until_ns)
		until_ns = now_ns + ADOPTED_POLL_NS;
	if (reactor->buffer_came || reactor->bounce_came || reactor->more ||
	    (reactor->lone && reactor->lone->result_sent))
		until_ns = 0;
	if (until_ns > 0 && !ring_rest(&reactor->inbox))
		until_ns = 0;
	return until_ns;
}

void reactor_turn(struct reactor *reactor, uint64_t until_ns)
{
	const struct sys *sys = reactor->store->sys;
	uint64_t now_ns;
	int ended;

	assert(reactor->magic == REACTOR_MAGIC);
	take_messages(reactor);
	if (reactor->timer_count > 0 || reactor->next_deadline_ns != UINT64_MAX ||
	    reactor->sleepers_next_ns != UINT64_MAX) {
		now_ns = sys->now_ns();
		jobs_wake(reactor, now_ns);
		run_timers(reactor, now_ns);
		run_deadlines(reactor, now_ns);
	}
	run_buffer_waiters(reactor);
	run_starved(reactor);
	start_ios(reactor);
	run_adopted(reactor);
	if (reactor->standing && reactor->index == 0 && holds_next_ns(reactor->store) != UINT64_MAX)
		holds_expire(reactor->store, sys->now_ns());
	/* What has ended is told soon, but not before a look whether more has. */
	if (!list_empty(&reactor->told)) {
		reactor->told_turns++;
		until_ns = 0;
	}
	now_ns = until_ns == 0 ? 0 : sys->now_ns();
	until_ns = wait_until(reactor, now_ns, until_ns);
	if (until_ns != UINT64_MAX)
		until_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	/* A broken engine ends nothing any more; deadlines still do, and must not be spun for. */
	ended = reactor->engine_ops->poll(reactor->engine, until_ns);
	if (ended > 0)
		reactor_count_transfers(reactor);
	if (ended <= 0 || reactor->told_turns >= TOLD_TURNS)
		reactor_tell(reactor);
	if (ended < 0)
		sys->sleep_ns(BROKEN_POLL_NS);
}

static void *reactor_main(void *argument)
{
	struct reactor *reactor = argument;

	while (!stop_get(&reactor->stop))
		reactor_turn(reactor, UINT64_MAX);
	return NULL;
}

/* Keys are spread evenly; a rate that is set is never none. */
static uint64_t prefetch_share(const struct cairn_store *store)
{
	uint64_t rate = store->settings[SET_PREFETCH].u;

	return (rate + store->reactor_count - 1) / store->reactor_count;
}

int reactor_start(struct reactor *reactor, struct cairn_error *reterr)
{
	const struct cairn_store *store = reactor->store;
	int ret;

	/* How many reactors there are is known now. */
	bucket_init(&reactor->prefetch, prefetch_share(store), store->sys->now_ns());
	ret = thread_start(&reactor->thread, reactor_main, reactor);

	if (ret < 0)
		return fail(reterr, ret, "reactor %u: no thread: %s", reactor->index,
			    strerror(-ret));
	reactor->started = true;
	return 0;
}

void reactor_stop(struct reactor *reactor)
{
	if (!reactor || !reactor->started)
		return;
	stop_set(&reactor->stop);
	reactor->engine_ops->wake(reactor->engine);
	pthread_join(reactor->thread, NULL);
	reactor->started = false;
}

void reactor_run_light(struct reactor *light, struct task_part *part)
{
	struct cairn_store *store = light->store;

	/*
	 * Only this thread drives the light reactor, so the part's own flags can be
	 * read without the task's lock; after the release the slot may be another's.
	 */
	light->lone = part;
	part_arrive(light, part);
	while (!part->result_sent)
		reactor_turn(light, UINT64_MAX);
	light->lone = NULL;
	if (reactor_idle(light))
		light_give_back(light);
	else
		reactor_send(store->reactors[0], &light->adopt);
}
