/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight threads of mixed calls on one bounded store: loads, dumps, prefix
 * lookups with holds, removes, clears, prefetches, cancels, queues, callbacks.
 * Meant for ThreadSanitizer as much as for what it checks itself: no wrong
 * byte, no error but absence, room and what was asked for, and holds that keep
 * their word against eviction.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "kit.h"

#define THREADS 8u
#define IDS	100u
#define CHAIN	6u
#define LIMIT	(6u << 20)

static const struct kit_shape shape = {3, 12000};

struct worker {
	pthread_t thread;
	struct cairn_store *store;
	struct cairn_namespace *ns, *own; /* common; and this thread's */
	struct kit_rng rng;
	uint64_t steps;
	uint32_t index;
	uint64_t loaded, dumped, held, canceled;
};

static bool ordinary(int ret)
{
	return ret >= 0 || ret == -ENOENT || ret == -ENOSPC || ret == -ESTALE;
}

static void mixed_load(struct worker *worker)
{
	int ret = kit_load(worker->ns, shape, kit_below(&worker->rng, IDS));

	CHECK(ret == 0 || ret == -ENOENT, "load: %d", ret);
	worker->loaded += ret == 0;
}

static void mixed_dump(struct worker *worker)
{
	uint64_t id = kit_below(&worker->rng, IDS);
	uint32_t first = (uint32_t)kit_below(&worker->rng, shape.shards);
	int ret = kit_dump(worker->ns, shape, id, first, shape.shards - first, CAIRN_MEMORY);

	CHECK(ordinary(ret), "dump: %d", ret);
	worker->dumped += ret == 0;
}

static void mixed_remove(struct worker *worker)
{
	struct cairn_key keys[2] = {kit_key(kit_below(&worker->rng, IDS)),
				    kit_key(kit_below(&worker->rng, IDS))};
	struct cairn_result results[2];
	int ret = cairn_remove(worker->ns, keys, 2, results, NULL, NULL);

	CHECK(ordinary(ret), "remove: %d", ret);
}

/* Blocks of this thread's own namespace: nobody removes them, so a hold must keep them. */
static void hold_and_load(struct worker *worker)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 60000000000ull};
	uint64_t base = kit_below(&worker->rng, 20) * CHAIN, hold = 0;
	struct cairn_key keys[CHAIN];
	int64_t found;

	for (uint32_t i = 0; i < CHAIN; i++) {
		int ret = kit_dump(worker->own, shape, base + i, 0, shape.shards, CAIRN_MEMORY);

		CHECK(ordinary(ret), "dump: %d", ret);
		keys[i] = kit_key(base + i);
	}
	found = cairn_lookup_prefix(worker->own, keys, CHAIN, NULL, &opts, &hold);
	CHECK(found >= 0 && (found > 0) == (hold != 0), "prefix: %ld", (long)found);
	for (uint32_t i = 0; i < (uint32_t)found; i++)
		CHECK(kit_load(worker->own, shape, base + i) == 0, "held block %u is gone", i);
	worker->held += (uint64_t)found;
	if (hold)
		CHECK(cairn_hold_release(worker->store, hold) == 0);
	CHECK(hold == 0 || cairn_hold_release(worker->store, hold) == -ENOENT);
}

/* A task that may be cancelled at any point; its memory is ours again at the release. */
static void cancel_task(struct worker *worker, uint32_t flags)
{
	uint8_t bytes[CHAIN][12000];
	struct cairn_segment segments[CHAIN];
	struct cairn_xfer xfers[CHAIN];
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = flags};
	uint64_t task;
	int ret;

	for (uint32_t i = 0; i < CHAIN; i++)
		xfers[i] = kit_xfer(kit_below(&worker->rng, IDS), 1, &segments[i], bytes[i],
				    sizeof(bytes[i]));
	ret = cairn_load(worker->ns, xfers, CHAIN, &opts, &task);
	CHECK(ret == 0 || ret == -EAGAIN, "load: %d", ret);
	if (ret < 0)
		return;
	if (kit_below(&worker->rng, 2))
		CHECK(cairn_task_cancel(worker->store, task) == 0);
	CHECK(cairn_task_wait(worker->store, task, 0, UINT64_MAX) == 0);
	for (uint32_t i = 0; i < CHAIN; i++) {
		ret = xfers[i].result.status;
		CHECK(ret == 0 || ret == -ENOENT || ret == -ECANCELED, "load: %d", ret);
		worker->canceled += ret == -ECANCELED;
	}
}

/* Dumps through a queue, drained by event. */
static void queued_dump(struct worker *worker, struct cairn_queue *queue)
{
	uint8_t bytes[2][12000];
	struct cairn_segment segments[2];
	struct cairn_xfer xfers[2];
	struct cairn_task_opts opts = {.size = sizeof(opts), .queue = queue, .context = worker};
	struct cairn_completion completion;
	uint64_t task, id = kit_below(&worker->rng, IDS);
	uint32_t seen = 0;
	int ret;

	for (uint32_t i = 0; i < 2; i++) {
		kit_fill(bytes[i], sizeof(bytes[i]), id, i, 0);
		xfers[i] = kit_xfer(id, i, &segments[i], bytes[i], sizeof(bytes[i]));
	}
	ret = cairn_dump(worker->ns, xfers, 2, &opts, &task);
	CHECK(ret == 0 || ret == -EAGAIN, "dump: %d", ret);
	while (ret == 0 && !(seen & CAIRN_EVENT_RELEASE)) {
		CHECK(cairn_drain(queue, &completion, 1, UINT64_MAX) == 1);
		CHECK(completion.task == task && completion.context == worker);
		CHECK(!(completion.events & seen), "an event came twice");
		seen |= completion.events;
	}
}

static void look_around(struct worker *worker)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_key key = kit_key(kit_below(&worker->rng, IDS));

	CHECK(cairn_stat(worker->store, &st) == 0);
	CHECK(kit_flash() || st.bytes_used <= LIMIT, "%lu bytes", (unsigned long)st.bytes_used);
	CHECK(ordinary(cairn_prefetch(worker->ns, &key, 1, NULL, NULL, NULL)));
}

static void *work(void *context)
{
	struct worker *worker = context;
	struct cairn_queue *queue;

	CHECK(cairn_queue_open(worker->store, &queue) == 0);
	for (uint64_t step = 0; step < worker->steps; step++) {
		uint64_t dice = kit_below(&worker->rng, 100);

		if (dice < 30)
			mixed_load(worker);
		else if (dice < 55)
			mixed_dump(worker);
		else if (dice < 62)
			mixed_remove(worker);
		else if (dice < 70)
			hold_and_load(worker);
		else if (dice < 80)
			cancel_task(worker, dice % 2 ? CAIRN_TASK_DETACH : 0);
		else if (dice < 90)
			queued_dump(worker, queue);
		else if (dice < 99 || kit_below(&worker->rng, 8))
			look_around(worker);
		else
			CHECK(cairn_clear(worker->ns, CAIRN_MEMORY) == 0);
	}
	CHECK(cairn_queue_close(queue) == 0);
	return NULL;
}

static void run(const char *engine, uint64_t steps)
{
	uint64_t seed = kit_number("seed", 5, 5);
	struct worker workers[THREADS];
	uint64_t loaded = 0, dumped = 0, held = 0, canceled = 0;
	struct cairn_store *store;
	struct cairn_error error = {0};
	char path[128], tier[256], spec[512], model[32], size[32];

	kit_at("engine=%s", engine);
	kit_watch(300);
	kit_folder(path, sizeof(path), "threads");
	snprintf(size, sizeof(size), "size=%u", LIMIT);
	kit_tier(tier, sizeof(tier), path, size, "size=8MiB, region=256KiB, entries=60");
	snprintf(spec, sizeof(spec),
		 "store(engine=%s, reactors=2, tasks=12, ios=16, buffers=4MiB) | %s", engine,
		 kit_text("tier", tier));
	CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "%s", error.text);
	for (uint32_t i = 0; i < THREADS; i++) {
		struct worker *worker = &workers[i];

		*worker = (struct worker){
			.store = store, .rng = {i * 77 + seed}, .steps = steps, .index = i};
		snprintf(model, sizeof(model), "own %u", i);
		CHECK(kit_namespace(store, "common", shape, &worker->ns) == 0);
		CHECK(kit_namespace(store, model, shape, &worker->own) == 0);
		CHECK(pthread_create(&worker->thread, NULL, work, worker) == 0);
	}
	for (uint32_t i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		loaded += workers[i].loaded;
		dumped += workers[i].dumped;
		held += workers[i].held;
		canceled += workers[i].canceled;
	}
	CHECK(kit_counter(store, kit_stage(), "damaged_blocks") == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	CHECK(kit_flash() || kit_du(path) <= LIMIT, "%lu bytes", (unsigned long)kit_du(path));
	CHECK(kit_text("tier", NULL) || kit_check(spec) == CAIRN_FINDING_NOTE);
	kit_remove_folder(path);
	printf("threads: engine %s: %lu loads hit, %lu dumps, %lu held, %lu cancelled\n", engine,
	       (unsigned long)loaded, (unsigned long)dumped, (unsigned long)held,
	       (unsigned long)canceled);
}

int main(int argc, char **argv)
{
	static const char *const engines[] = {"uring", "aio", "psync"};
	uint64_t steps;

	kit_init(argc, argv);
	steps = kit_number("steps", kit_sanitized() ? 150 : 400, 50000);
	for (size_t e = 0; e < 3; e++)
		if (strcmp(kit_text("engine", engines[e]), engines[e]) == 0 &&
		    kit_engine(engines[e]))
			run(engines[e], steps);
	return 0;
}
