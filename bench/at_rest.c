/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What costs when nothing happens: opening, with and without blocks, and idling.
 *
 *	at_rest PIPELINE [BLOCKS [IDLE_SECONDS]]
 *
 * Fills the store with BLOCKS blocks of 64 bytes (those that are there stay),
 * closes it, opens it nine times, then idles with it open. Prints one JSON object:
 * open_ms (median), open_ms_min, open_ms_max, idle_cores, threads.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cairn/task.h>

#define OPENS	    9
#define BATCH	    256u
#define BLOCK_BYTES 64u

static double now_s(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "at_rest: %s: %s\n", what, why);
	exit(1);
}

static struct cairn_store *open_store(const char *spec)
{
	struct cairn_error error = {0};
	struct cairn_store *store;

	if (cairn_store_open(spec, NULL, &store, &error) < 0)
		die(spec, error.text);
	return store;
}

static void close_store(struct cairn_store *store)
{
	int ret = cairn_store_close(store, UINT64_MAX);

	if (ret < 0)
		die("close", cairn_strerror(ret));
}

static void dump_batch(struct cairn_namespace *ns, uint64_t first, uint32_t count)
{
	static uint8_t memory[BLOCK_BYTES];
	static struct cairn_xfer xfers[BATCH];

	memset(xfers, 0, sizeof(xfers));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t name = first + i;

		cairn_key_derive(ns, &name, sizeof(name), &xfers[i].key);
		xfers[i].length = BLOCK_BYTES;
		xfers[i].stride = (struct cairn_stride){memory, BLOCK_BYTES, 0, 1};
	}
	if (cairn_dump(ns, xfers, count, NULL, NULL) < 0)
		die("dump", "failed");
}

static void fill(const char *spec, uint64_t blocks)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "at_rest",
					    .shard_count = 1,
					    .shard_bytes = BLOCK_BYTES};
	struct cairn_store *store = open_store(spec);
	struct cairn_namespace *ns;

	if (cairn_namespace_open(store, &desc, &ns, NULL) < 0)
		die("namespace", "did not open");
	for (uint64_t at = 0; at < blocks; at += BATCH)
		dump_batch(ns, at, (uint32_t)(blocks - at < BATCH ? blocks - at : BATCH));
	cairn_namespace_close(ns);
	close_store(store);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int count = -2; /* . and .. */

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	uint64_t blocks = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	unsigned idle_s = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 5;
	double ms[OPENS], cpu;
	struct cairn_store *store;
	int running;

	if (argc < 2)
		die("usage", "at_rest PIPELINE [BLOCKS [IDLE_SECONDS]]");
	fill(argv[1], blocks);
	for (int i = 0; i < OPENS; i++) {
		double from = now_s(CLOCK_MONOTONIC);

		store = open_store(argv[1]);
		ms[i] = (now_s(CLOCK_MONOTONIC) - from) * 1e3;
		close_store(store);
	}
	qsort(ms, OPENS, sizeof(ms[0]), by_value);
	store = open_store(argv[1]);
	cpu = now_s(CLOCK_PROCESS_CPUTIME_ID);
	sleep(idle_s);
	cpu = now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	running = threads();
	close_store(store);
	printf("{\"blocks\": %llu, \"open_ms\": %.3f, \"open_ms_min\": %.3f, "
	       "\"open_ms_max\": %.3f, \"idle_cores\": %.5f, \"threads\": %d}\n",
	       (unsigned long long)blocks, ms[OPENS / 2], ms[0], ms[OPENS - 1],
	       idle_s ? cpu / idle_s : 0.0, running);
	return 0;
}
