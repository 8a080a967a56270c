/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache [--json] [BLOCKS [PAIRS]]: hits of the cache tier against memcpy(), in turns: lone small
 * ones with pauses, cold 256 KiB ones, bulk on one and two threads, and pin + unpin. Blocks
 * are 256 KiB, as many as named (4096: 1 GiB), so that none is in the processor's caches.
 * PAIRS turns (9); medians with the 90 % interval of the median.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cairn/pin.h>

#define BLOCK	  262144u
#define SMALL	  4096u
#define LONE	  200u /* calls with a pause before each */
#define PAIRS_MAX 99u
#define PINS	  200000u

static struct cairn_store *store;
static struct cairn_namespace *ns;
static struct cairn_key *keys;
static uint8_t *source, *target[2];
static uint32_t blocks;

static void die(const char *what)
{
	fprintf(stderr, "bench/cache: %s\n", what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, uint32_t count)
{
	qsort(values, count, sizeof(*values), ascending);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* ---- the work ------------------------------------------------------------------------ */

static uint32_t scattered(uint32_t i)
{
	return (uint32_t)((i * UINT64_C(2654435761)) % blocks);
}

static void hit(uint32_t block, uint8_t *to, uint64_t bytes)
{
	struct cairn_xfer xfer = {
		.key = keys[block],
		.length = bytes,
		.stride = {.base = to, .run = bytes, .stride = bytes, .count = 1},
	};

	if (cairn_load(ns, &xfer, 1, NULL, NULL) != 0)
		die("a load failed");
}

static void copy(uint32_t block, uint8_t *to, uint64_t bytes)
{
	memcpy(to, source + (uint64_t)block * BLOCK, bytes);
}

typedef void work_fn(uint32_t block, uint8_t *to, uint64_t bytes);

static double lone(work_fn *work)
{
	static double times[LONE];
	const struct timespec pause = {.tv_nsec = 2000000};

	for (uint32_t i = 0; i < LONE; i++) {
		double begin;

		nanosleep(&pause, NULL);
		begin = now();
		work(scattered(i * 7919u), target[0], SMALL);
		times[i] = now() - begin;
	}
	return median(times, LONE);
}

struct half {
	work_fn *work;
	uint32_t first, count;
	uint8_t *to;
};

static void *run_half(void *argument)
{
	const struct half *half = argument;

	for (uint32_t i = 0; i < half->count; i++)
		half->work(scattered(half->first + i),
			   half->to + (uint64_t)(i % (blocks / 2)) * BLOCK, BLOCK);
	return NULL;
}

/* Seconds a block, of all blocks once, by so many threads. */
static double bulk(work_fn *work, uint32_t threads)
{
	struct half halves[2];
	pthread_t thread;
	double begin = now();

	for (uint32_t t = 0; t < threads; t++)
		halves[t] = (struct half){work, t * blocks / threads, blocks / threads, target[t]};
	if (threads == 2 && pthread_create(&thread, NULL, run_half, &halves[1]) != 0)
		die("no thread");
	run_half(&halves[0]);
	if (threads == 2)
		pthread_join(thread, NULL);
	return (now() - begin) / blocks;
}

static double bulk_1(work_fn *work)
{
	return bulk(work, 1);
}

static double bulk_2(work_fn *work)
{
	return bulk(work, 2);
}

static double pins(void)
{
	struct cairn_pinned pinned;
	double begin = now();

	for (uint32_t i = 0; i < PINS; i++)
		if (cairn_pin(ns, &keys[i % 64], 0, &pinned) != 0 ||
		    cairn_unpin(store, pinned.pin) != 0)
			die("a pin failed");
	return (now() - begin) / PINS;
}

/* ---- what is printed -------------------------------------------------------------------- */

/* The k-th of sorted values that bounds the median with 90 %: by the binomial. */
static uint32_t bound(uint32_t count)
{
	double p = 1, sum;
	uint32_t k = 0;

	for (uint32_t i = 0; i < count; i++)
		p /= 2;
	for (sum = p; sum <= 0.05 && k < count / 2; sum += p) {
		p = p * (count - k) / (k + 1);
		k++;
	}
	return k;
}

static void report(const char *name, double *ours, double *bare, double *ratios, uint32_t pairs,
		   double scale, const char *unit)
{
	uint32_t k = bound(pairs);
	double mine = median(ours, pairs) * scale, theirs = bare ? median(bare, pairs) * scale : 0;
	double ratio = median(ratios, pairs);

	if (bare)
		printf("%-34s %9.2f %9.2f %s  %.2fx [%.2f, %.2f] of memcpy's time\n", name, mine,
		       theirs, unit, ratio, ratios[k > 0 ? k - 1 : 0],
		       ratios[pairs - (k > 0 ? k : 1)]);
	else
		printf("%-34s %9.2f %9s %s  [%.2f, %.2f]\n", name, mine, "", unit,
		       ours[k > 0 ? k - 1 : 0] * scale, ours[pairs - (k > 0 ? k : 1)] * scale);
	fflush(stdout);
}

static void pairs_of(const char *name, double (*run)(work_fn *work), uint32_t pairs, double scale,
		     const char *unit)
{
	double ours[PAIRS_MAX], bare[PAIRS_MAX], ratios[PAIRS_MAX];

	for (uint32_t i = 0; i < pairs; i++) {
		if (i % 2)
			bare[i] = run(copy);
		ours[i] = run(hit);
		if (i % 2 == 0)
			bare[i] = run(copy);
		ratios[i] = ours[i] / bare[i];
	}
	report(name, ours, bare, ratios, pairs, scale, unit);
}

static void fill(void)
{
	for (uint32_t i = 0; i < blocks; i++) {
		struct cairn_xfer xfer = {
			.length = BLOCK,
			.stride = {.base = source + (uint64_t)i * BLOCK,
				   .run = BLOCK,
				   .stride = BLOCK,
				   .count = 1},
		};

		if (cairn_key_derive(ns, &i, sizeof(i), &keys[i]) != 0)
			die("no key");
		memset(source + (uint64_t)i * BLOCK, (int)i, BLOCK);
		xfer.key = keys[i];
		if (cairn_dump(ns, &xfer, 1, NULL, NULL) != 0)
			die("a dump failed");
	}
}

int main(int argc, char **argv)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "bench", .shard_count = 1, .shard_bytes = BLOCK};
	double ours[PAIRS_MAX];
	uint32_t pairs = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 9;
	struct cairn_error error;
	char spec[128];

	blocks = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 4096;
	if (blocks < 64 || pairs < 3 || pairs > PAIRS_MAX)
		die("cache [BLOCKS [PAIRS]]: at least 64 blocks, 3 to 99 pairs");
	snprintf(spec, sizeof(spec), "cache(size=%uMiB)", blocks / 4 + blocks / 32 + 64);
	if (cairn_store_open(spec, NULL, &store, &error) != 0)
		die(error.text);
	if (cairn_namespace_open(store, &desc, &ns, &error) != 0)
		die(error.text);
	keys = calloc(blocks, sizeof(*keys));
	source = malloc((uint64_t)blocks * BLOCK);
	target[0] = malloc((uint64_t)blocks * BLOCK);
	if (!keys || !source || !target[0])
		die("no memory");
	target[1] = target[0] + (uint64_t)(blocks / 2) * BLOCK;
	memset(target[0], 1, (uint64_t)blocks * BLOCK);
	fill();
	pairs_of("4 KiB hit, 2 ms apart, p50", lone, pairs, 1e6, "us");
	pairs_of("256 KiB hits, cold, one thread", bulk_1, pairs, 1e6, "us");
	pairs_of("256 KiB hits, cold, two threads", bulk_2, pairs, 1e6, "us");
	for (uint32_t i = 0; i < pairs; i++)
		ours[i] = pins();
	report("pin + unpin, warm", ours, NULL, ours, pairs, 1e9, "ns");
	cairn_store_close(store, 0);
	free(keys);
	free(source);
	free(target[0]);
	return 0;
}
