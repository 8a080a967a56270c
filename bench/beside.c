/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dumps do to the loads beside them.
 *
 *	beside PIPELINE [BLOCKS [LOADS [PAIRS]]]
 *
 * Fills the store with BLOCKS blocks of 256 KiB, then loads LOADS of them in random
 * order, four in flight: in turns alone, and while another thread dumps new blocks, 32
 * in flight. What was dumped is removed between the runs. Prints one JSON object:
 * alone_p99_us and beside_p99_us (a figure a run), the same of p50 and p90, dumped_bytes_per_s,
 *missed (loads that found nothing, since the tier had evicted it), refused (dumps for which it had
 * no room).
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cairn/task.h>

#define BLOCK_BYTES (256u << 10)
#define LOAD_DEPTH  4u
#define DUMP_DEPTH  32u
#define PAIRS_MAX   99u
#define DRAIN_NS    60000000000ull /* beyond any deadline */

struct slot {
	struct cairn_xfer xfer;
	uint64_t start_ns;
	uint8_t *memory;
};

/* One thread and what it has in flight. */
struct mover {
	struct cairn_store *store;
	struct cairn_namespace *ns;
	struct cairn_queue *queue;
	struct slot slots[DUMP_DEPTH], *free[DUMP_DEPTH];
	uint32_t depth, free_count;
	bool dump;
	uint64_t known;	      /* loads: names are drawn below it */
	uint64_t first, next; /* dumps: names of this run, and of the next block */
	uint64_t seed;
	uint64_t *latency_ns; /* loads: of each that found its block */
	uint64_t ended, missed, refused;
	atomic_bool stop; /* set by the other thread; nothing else is passed by it */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "beside: %s: %s\n", what, why);
	exit(1);
}

static void key_of(struct cairn_namespace *ns, uint64_t name, struct cairn_key *ret_key)
{
	if (cairn_key_derive(ns, &name, sizeof(name), ret_key) < 0)
		die("key", "could not be derived");
}

static uint64_t drawn(struct mover *m)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
	return (m->seed >> 33) % m->known;
}

static void end_slot(struct mover *m, struct slot *slot)
{
	int status = slot->xfer.result.status;

	if (m->dump && status == -ENOSPC)
		m->refused++;
	else if (!m->dump && status == -ENOENT)
		m->missed++;
	else if (status)
		die(m->dump ? "dump" : "load",
		    status < 0 ? cairn_strerror(status) : "there already");
	else if (!m->dump)
		m->latency_ns[m->ended++] = now_ns() - slot->start_ns;
	else
		m->ended++;
}

static void drain(struct mover *m)
{
	struct cairn_completion done[DUMP_DEPTH];
	int n = cairn_drain(m->queue, done, DUMP_DEPTH, DRAIN_NS);

	if (n <= 0)
		die("drain", "a task in flight never ended");
	for (int i = 0; i < n; i++) {
		struct slot *slot = done[i].context;

		if (done[i].events & CAIRN_EVENT_RESULT)
			end_slot(m, slot);
		if (done[i].events & CAIRN_EVENT_RELEASE)
			m->free[m->free_count++] = slot;
	}
}

static void submit(struct mover *m)
{
	struct slot *slot = m->free[--m->free_count];
	struct cairn_task_opts opts = {.size = sizeof(opts), .queue = m->queue, .context = slot};
	uint64_t task;
	int rc;

	memset(&slot->xfer, 0, sizeof(slot->xfer));
	key_of(m->ns, m->dump ? m->next++ : drawn(m), &slot->xfer.key);
	slot->xfer.length = BLOCK_BYTES;
	slot->xfer.stride = (struct cairn_stride){slot->memory, BLOCK_BYTES, 0, 1};
	opts.durability = m->dump ? CAIRN_WRITTEN : 0;
	slot->start_ns = now_ns();
	rc = (m->dump ? cairn_dump : cairn_load)(m->ns, &slot->xfer, 1, &opts, &task);
	if (rc < 0)
		die(m->dump ? "dump" : "load", cairn_strerror(rc));
}

/* @count operations, or until it is told to stop. */
static void move(struct mover *m, uint64_t count)
{
	for (uint64_t i = 0; i < count && !atomic_load(&m->stop); i++) {
		while (!m->free_count)
			drain(m);
		submit(m);
	}
	while (m->free_count < m->depth)
		drain(m);
}

static void *move_on(void *mover)
{
	move(mover, UINT64_MAX);
	return NULL;
}

static void mover_open(struct mover *m, struct cairn_store *store, struct cairn_namespace *ns,
		       uint32_t depth)
{
	m->store = store;
	m->ns = ns;
	m->depth = depth;
	if (cairn_queue_open(store, &m->queue) < 0)
		die("queue", "did not open");
	for (uint32_t i = 0; i < depth; i++) {
		void *memory;

		if (posix_memalign(&memory, 4096, BLOCK_BYTES))
			die("memory", "none");
		memset(memory, (int)i + 1, BLOCK_BYTES);
		m->slots[i].memory = memory;
		m->free[m->free_count++] = &m->slots[i];
	}
}

static void mover_close(struct mover *m)
{
	cairn_queue_close(m->queue);
	for (uint32_t i = 0; i < m->depth; i++)
		free(m->slots[i].memory);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Of the loads of a run, in us. */
struct latency {
	double p50, p90, p99;
};

static double percentile_us(const struct mover *loader, uint64_t percent)
{
	return 1e-3 * (double)loader->latency_ns[(loader->ended * percent + 99) / 100 - 1];
}

static struct latency run_loads(struct mover *loader, uint64_t loads)
{
	loader->ended = 0;
	move(loader, loads);
	if (!loader->ended)
		die("load", "the tier kept none of the blocks");
	qsort(loader->latency_ns, loader->ended, sizeof(uint64_t), by_value);
	return (struct latency){percentile_us(loader, 50), percentile_us(loader, 90),
				percentile_us(loader, 99)};
}

static void remove_dumped(struct mover *m)
{
	for (; m->first < m->next; m->first++) {
		struct cairn_key key;

		key_of(m->ns, m->first, &key);
		cairn_remove(m->ns, &key, 1, NULL, NULL, NULL); /* evicted ones are gone: fine */
	}
}

static struct latency run_beside(struct mover *loader, struct mover *dumper, uint64_t loads,
				 double *seconds)
{
	uint64_t from = now_ns();
	struct latency latency;
	pthread_t thread;

	atomic_store(&dumper->stop, false);
	if (pthread_create(&thread, NULL, move_on, dumper))
		die("thread", "did not start");
	latency = run_loads(loader, loads);
	atomic_store(&dumper->stop, true);
	pthread_join(thread, NULL);
	*seconds += 1e-9 * (double)(now_ns() - from);
	remove_dumped(dumper);
	return latency;
}

static void print_list(const char *name, const struct latency *runs, uint64_t count)
{
	printf("\"%s_p50_us\": [", name);
	for (uint64_t i = 0; i < count; i++)
		printf("%s%.3f", i ? ", " : "", runs[i].p50);
	printf("], \"%s_p90_us\": [", name);
	for (uint64_t i = 0; i < count; i++)
		printf("%s%.3f", i ? ", " : "", runs[i].p90);
	printf("], \"%s_p99_us\": [", name);
	for (uint64_t i = 0; i < count; i++)
		printf("%s%.3f", i ? ", " : "", runs[i].p99);
	printf("], ");
}

static void measure(struct mover *loader, struct mover *dumper, uint64_t loads, uint64_t pairs)
{
	struct latency alone[PAIRS_MAX], beside[PAIRS_MAX];
	double seconds = 0;

	run_loads(loader, loads); /* warms up */
	for (uint64_t i = 0; i < pairs; i++) {
		if (i % 2 == 0)
			alone[i] = run_loads(loader, loads);
		beside[i] = run_beside(loader, dumper, loads, &seconds);
		if (i % 2)
			alone[i] = run_loads(loader, loads);
	}
	printf("{");
	print_list("alone", alone, pairs);
	print_list("beside", beside, pairs);
	printf("\"dumped_bytes_per_s\": %.0f, \"missed\": %llu, \"refused\": %llu}\n",
	       (double)dumper->ended * BLOCK_BYTES / seconds, (unsigned long long)loader->missed,
	       (unsigned long long)dumper->refused);
}

static uint64_t argument(int argc, char **argv, int at, uint64_t otherwise)
{
	return argc > at ? strtoull(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	uint64_t blocks = argument(argc, argv, 2, 2048), loads = argument(argc, argv, 3, 2000);
	uint64_t pairs = argument(argc, argv, 4, 9);
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "beside",
					    .shard_count = 1,
					    .shard_bytes = BLOCK_BYTES};
	static struct mover loader, dumper;
	struct cairn_error error = {0};
	struct cairn_store *store;
	struct cairn_namespace *ns;

	if (argc < 2 || !blocks || !loads || !pairs || pairs > PAIRS_MAX)
		die("usage", "beside PIPELINE [BLOCKS [LOADS [PAIRS]]]");
	if (cairn_store_open(argv[1], NULL, &store, &error) < 0)
		die(argv[1], error.text);
	if (cairn_namespace_open(store, &desc, &ns, &error) < 0)
		die("namespace", error.text);
	mover_open(&loader, store, ns, LOAD_DEPTH);
	mover_open(&dumper, store, ns, DUMP_DEPTH);
	loader.latency_ns = calloc(loads, sizeof(uint64_t));
	if (!loader.latency_ns)
		die("memory", "none");
	loader.known = blocks;
	dumper.dump = true;
	cairn_clear(ns, CAIRN_MEMORY); /* what a run that died left */
	move(&dumper, blocks);
	dumper.first = dumper.next;
	dumper.ended = 0;
	measure(&loader, &dumper, loads, pairs);
	cairn_clear(ns, CAIRN_MEMORY);
	mover_close(&dumper);
	mover_close(&loader);
	free(loader.latency_ns);
	cairn_namespace_close(ns);
	return cairn_store_close(store, UINT64_MAX) < 0;
}
