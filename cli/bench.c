/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/units.h"
#include "bench.h"
#include "cli.h"
#include "content.h"
#include "figures.h"
#include "out.h"

#define DEPTH_DEFAULT 32u
#define DEPTH_MAX     1024u
#define CLIENTS_MAX   256u
#define THREADS_MAX   4096u /* clients x depth, of a bare side that blocks */
#define PAIRS_DEFAULT 9u    /* fewer give no interval worth the name */
#define LOOKUP_KEYS   1000u
#define LOOKUP_BYTES  64u /* a lookup does not care: a block costs a file all the same */
#define PERIOD	      0x9e3779b97f4a7c15u
#define PAGE_BYTES    4096u
#define HUGE_BYTES    (2u << 20)

void bench_note(struct bench_worker *worker, uint64_t start_ns, uint64_t bytes)
{
	const struct bench_plan *plan = worker->side->plan;
	uint64_t now = figures_now_ns();

	histogram_record(&worker->latency, now - start_ns);
	worker->ops++;
	worker->bytes += bytes;
	if (plan->spaced_ns)
		figures_sleep_until(now + plan->spaced_ns);
}

void *bench_memory(const struct bench_plan *plan, size_t bytes)
{
	size_t page = plan->small ? PAGE_BYTES : HUGE_BYTES;
	void *p = NULL;

	bytes = (bytes + page - 1) / page * page;
	if (posix_memalign(&p, page, bytes))
		out_die("no memory for blocks in flight: less --depth or --clients");
	if (!plan->small)
		madvise(p, bytes, MADV_HUGEPAGE); /* refused: on small ones */
	return p;
}

void bench_stamp(const struct cairn_key *key, void *buffer, uint64_t bytes)
{
	memcpy(buffer, key->bytes, bytes < BENCH_STAMP_BYTES ? bytes : BENCH_STAMP_BYTES);
}

const struct cairn_key *bench_chain(const struct bench_plan *plan, uint32_t client, uint64_t call)
{
	uint64_t n = ((uint64_t)client << 32 | call) * PERIOD;

	n = (n ^ n >> 32) * PERIOD;
	return plan->keys + (n >> 32) % (plan->fill / plan->count) * plan->count;
}

/* ---- a run ------------------------------------------------------------------ */

struct start {
	struct bench_worker *worker;
	pthread_barrier_t *barrier;
};

static void *run_worker(void *context)
{
	struct start *start = context;
	struct bench_worker *worker = start->worker;

	pthread_barrier_wait(start->barrier);
	worker->start_ns = figures_now_ns();
	worker->side->work(worker->side, worker);
	worker->end_ns = figures_now_ns();
	return NULL;
}

static int gather(const struct bench_side *side, const struct bench_worker *workers,
		  struct bench_figures *ret)
{
	uint64_t start = UINT64_MAX, end = 0;

	for (uint32_t i = 0; i < side->threads; i++) {
		if (workers[i].error)
			return workers[i].error;
		start = workers[i].start_ns < start ? workers[i].start_ns : start;
		end = workers[i].end_ns > end ? workers[i].end_ns : end;
		ret->ops += workers[i].ops;
		ret->bytes += workers[i].bytes;
		histogram_merge(&ret->latency, &workers[i].latency);
	}
	ret->seconds = 1e-9 * (double)(end - start);
	if (side->plan->spaced_ns) /* the pauses are not work */
		ret->seconds = 1e-9 * (double)ret->latency.sum / side->threads;
	return 0;
}

static int run_threads(struct bench_side *side, struct bench_figures *ret)
{
	struct bench_worker *workers = calloc(side->threads, sizeof(*workers));
	struct start *starts = calloc(side->threads, sizeof(*starts));
	pthread_t *threads = calloc(side->threads, sizeof(*threads));
	pthread_barrier_t barrier;
	int rc;

	if (!workers || !starts || !threads)
		out_die("no memory for %u threads", side->threads);
	pthread_barrier_init(&barrier, NULL, side->threads + 1);
	for (uint32_t i = 0; i < side->threads; i++) {
		workers[i].side = side;
		workers[i].index = i;
		starts[i] = (struct start){&workers[i], &barrier};
		rc = pthread_create(&threads[i], NULL, run_worker, &starts[i]);
		if (rc)
			out_die("thread %u: %s", i + 1, strerror(rc));
	}
	ret->cpu_seconds = -figures_cpu_seconds();
	pthread_barrier_wait(&barrier);
	for (uint32_t i = 0; i < side->threads; i++)
		pthread_join(threads[i], NULL);
	ret->cpu_seconds += figures_cpu_seconds();
	pthread_barrier_destroy(&barrier);
	rc = gather(side, workers, ret);
	if (rc < 0)
		out_error("bench", "%s: %s", side->what, cairn_strerror(rc));
	free(threads);
	free(starts);
	free(workers);
	return rc;
}

static int run_side(struct bench_side *side, uint32_t run, struct bench_figures *ret)
{
	int rc, end;

	memset(ret, 0, sizeof(*ret));
	rc = side->prepare ? side->prepare(side, run) : 0;
	if (rc < 0)
		return rc;
	rc = run_threads(side, ret);
	end = side->finish ? side->finish(side, run) : 0;
	return rc < 0 ? rc : end;
}

static void add_figures(struct bench_figures *to, const struct bench_figures *from)
{
	to->seconds += from->seconds;
	to->cpu_seconds += from->cpu_seconds;
	to->ops += from->ops;
	to->bytes += from->bytes;
	histogram_merge(&to->latency, &from->latency);
}

static double rate_of(const struct bench_figures *f)
{
	return (double)f->ops / (f->seconds > 0 ? f->seconds : 1e-9);
}

static double p50_of(const struct bench_figures *f)
{
	return (double)histogram_percentile(&f->latency, 50) + 1e-9;
}

/* Another program's turn, until it says by a line that it has ended. */
static bool others_turn(void)
{
	int c;

	do
		c = getchar();
	while (c != EOF && c != '\n');
	return c == '\n';
}

/*
 * The store's runs alone: whoever wants to compare them with something else
 * has a turn before each, and sees a line after each.
 */
static int run_turns(const struct bench_plan *plan, struct bench_side *ours,
		     struct bench_result *result)
{
	struct bench_figures *f = calloc(1, sizeof(*f));
	int rc = 0;

	if (!f)
		out_die("no memory for figures");
	for (uint32_t run = 0; run <= plan->pairs && rc == 0; run++) {
		struct bench_run now;

		if (run && !others_turn()) {
			rc = out_stop_asked() ? -EINTR : -EPIPE;
			break;
		}
		rc = run_side(ours, run, f);
		rc = rc == 0 && out_stop_asked() ? -EINTR : rc;
		now = bench_run_of(f);
		if (rc == 0)
			bench_report_run(&now);
		if (run == 0 || rc < 0)
			continue;
		add_figures(&result->ours, f);
		result->runs[run - 1] = now;
	}
	if (rc == -EPIPE)
		out_error("bench", "--turns: the standard input ended before the last run");
	free(f);
	return rc;
}

/* Run 0 of each side warms up, and its bytes are verified; the pairs follow. */
static int run_pairs(const struct bench_plan *plan, struct bench_side *ours,
		     struct bench_side *bare, struct bench_result *result)
{
	struct bench_figures *f = calloc(2, sizeof(*f));
	int rc = 0;

	if (!f)
		out_die("no memory for figures");
	for (uint32_t run = 0; run <= plan->pairs && rc == 0; run++) {
		char text[64];

		snprintf(text, sizeof(text), "pair %u of %llu", run,
			 (unsigned long long)plan->pairs);
		out_progress(text);
		for (uint32_t half = 0; half < 2 && rc == 0; half++) {
			bool first = (half ^ run) & 1; /* who is first changes */

			if (bare->settle)
				bare->settle(bare);
			rc = run_side(first ? bare : ours, run, &f[first]);
			rc = rc == 0 && out_stop_asked() ? -EINTR : rc;
		}
		if (run == 0 || rc < 0)
			continue;
		add_figures(&result->ours, &f[0]);
		add_figures(&result->bare, &f[1]);
		result->runs[run - 1] = bench_run_of(&f[0]);
		result->ours_rate[run - 1] = rate_of(&f[0]);
		result->bare_rate[run - 1] = rate_of(&f[1]);
		result->ratio[run - 1] = rate_of(&f[0]) / rate_of(&f[1]);
		result->ratio_p50[run - 1] = p50_of(&f[0]) / p50_of(&f[1]);
	}
	out_progress_end();
	free(f);
	return rc;
}

static int bench(struct bench_plan *plan)
{
	struct bench_result *result = calloc(1, sizeof(*result));
	double *figures = calloc(4 * plan->pairs, sizeof(*figures));
	struct bench_run *runs = calloc(plan->pairs, sizeof(*runs));
	struct bench_side ours = {0}, bare = {0};
	int rc;

	plan->keep = bench_bare_keeps(plan);
	rc = bench_store_open(plan, &ours);
	if (!result || !figures || !runs)
		out_die("no memory for %llu pairs", (unsigned long long)plan->pairs);
	result->runs = runs;
	result->ours_rate = figures;
	result->bare_rate = figures + plan->pairs;
	result->ratio = figures + 2 * plan->pairs;
	result->ratio_p50 = figures + 3 * plan->pairs;
	if (rc == CLI_OK && !plan->turns)
		rc = bench_bare_open(plan, &bare);
	if (rc == CLI_OK) {
		int ran = plan->turns ? run_turns(plan, &ours, result)
				      : run_pairs(plan, &ours, &bare, result);

		if (ran == 0)
			bench_report(plan, &bare, result);
		rc = ran == -EINTR ? CLI_STOPPED : ran < 0 ? CLI_BAD : CLI_OK;
	}
	if (bare.close)
		bare.close(&bare);
	if (ours.close)
		ours.close(&ours);
	free(plan->keys);
	free(plan->order);
	free(figures);
	free(runs);
	free(result);
	return rc;
}

/* ---- the command line ------------------------------------------------------ */

struct given {
	bool block, count, depth, fill;
};

static int settle(struct bench_plan *plan, const struct given *given)
{
	bool lookup = plan->op == BENCH_LOOKUP;

	if (plan->spaced_ns && given->depth && plan->depth > 1)
		return option_error("bench", "--spaced pauses between single calls: --depth 1");
	if (lookup && given->depth && plan->depth > 1)
		return option_error("bench", "--depth: a lookup is one call; use --clients");
	if (!given->depth)
		plan->depth = lookup || plan->spaced_ns ? 1 : DEPTH_DEFAULT;
	if (plan->depth * plan->clients > THREADS_MAX)
		return option_error("bench", "--depth times --clients is above %u", THREADS_MAX);
	if (!given->block)
		plan->block_bytes = lookup ? LOOKUP_BYTES : 256u << 10;
	if (!given->count)
		plan->count = lookup ? LOOKUP_KEYS : 1024;
	if (given->fill && !lookup)
		return option_error("bench", "--fill belongs to --op lookup");
	if (plan->fill < plan->count)
		plan->fill = plan->count;
	plan->fill = (plan->fill + plan->count - 1) / plan->count * plan->count;
	if (plan->block_bytes % plan->shard_count ||
	    plan->block_bytes / plan->shard_count > CAIRN_SHARD_BYTES_MAX)
		return option_error("bench",
				    "--block: %llu bytes are not %llu equal shards of up to 64 MiB",
				    (unsigned long long)plan->block_bytes,
				    (unsigned long long)plan->shard_count);
	if (plan->turns && !plan->json)
		return option_error("bench", "--turns prints a line after each run: --json");
	return plan->turns ? -1 : bench_bare_check(plan);
}

static int parse(struct bench_plan *plan, struct given *given, int argc, char **argv)
{
	const struct option_row rows[] = {
		{"op", OPTION_CHOICE, &plan->op, BENCH_OPS, "what to measure (default: load)", 0, 0,
		 NULL},
		{"block", OPTION_SIZE, &plan->block_bytes, "BYTES",
		 "of a block (default: 256KiB; lookup: 64)", 1, 1ull << 36, &given->block},
		{"shards", OPTION_COUNT, &plan->shard_count, "N", "of a block (default: 1)", 1,
		 CAIRN_SHARD_COUNT_MAX, NULL},
		{"count", OPTION_COUNT, &plan->count, "N",
		 "blocks in all, of a run (default: 1024);\nlookup: keys of a call (1000)", 1,
		 1u << 24, &given->count},
		{"depth", OPTION_COUNT, &plan->depth, "N",
		 "blocks in flight, of a client (default: 32;\nlookup, --spaced: 1)", 1, DEPTH_MAX,
		 &given->depth},
		{"clients", OPTION_COUNT, &plan->clients, "N", "threads that call (default: 1)", 1,
		 CLIENTS_MAX, NULL},
		{"spaced", OPTION_TIME, &plan->spaced_ns, "TIME",
		 "pause between calls, for latency at rest", 0, 60000000000u, NULL},
		{"fill", OPTION_COUNT, &plan->fill, "N",
		 "lookup: blocks known (default: as --count)", 1, 1u << 28, &given->fill},
		{"durability", OPTION_CHOICE, &plan->durability, "memory|written|durable",
		 "how far a dump must get (default: memory)", 0, 0, NULL},
		{"registered", OPTION_CHOICE, &plan->small, "yes|no",
		 "whether blocks lie in memory that is registered, on\nhuge pages where there are "
		 "any, bare too (default: yes)",
		 0, 0, NULL},
		{"pairs", OPTION_COUNT, &plan->pairs, "N",
		 "runs of each, in turns (default: 9; one more warms up)", 1, 10000, NULL},
		{"bare-dir", OPTION_TEXT, &plan->bare_dir, "DIR",
		 "for the bare files (default: the last stage's path\nand \"-bare\")", 0, 0, NULL},
		{"turns", OPTION_FLAG, &plan->turns, NULL,
		 "no bare side: wait for a line on stdin before each run,\nand print one after it "
		 "(with --json)",
		 0, 0, NULL},
		OPTION_STORE_ROWS(&plan->store, &plan->json),
	};
	const struct option_command command = {
		.name = "bench",
		.usage = "PIPELINE [--op " BENCH_OPS "] [options]",
		.about = "Measures a pipeline, and the same work done bare in the same run, in "
			 "turns:\n"
			 "memcpy for tiers in memory; pread, or create + fallocate + pwrite + "
			 "rename, at\n"
			 "the same depth for those on files; a serial probe loop for lookups. What "
			 "is\n"
			 "dumped goes to a namespace of the bench's own and is removed at the end.",
		.after = "Examples:\n"
			 "  cairn bench 'posix(path=/tmp/kv)' --op load --block 256KiB --depth 32\n"
			 "  cairn bench 'posix(path=/tmp/kv)' --op load --spaced 2ms --count 300\n"
			 "  cairn bench 'posix(path=/tmp/kv)' --op lookup --count 1000 --fill "
			 "100k\n\n"
			 "A ratio is the store's rate over the bare one: above 1, the store is "
			 "faster. The\n"
			 "ratio of p50 is one of latencies: above 1, the store is slower.\n\n"
			 "Exit status: 0, 1 something failed or a byte was wrong, 2 usage, 3 the "
			 "store\n"
			 "could not be opened, 130 stopped by a signal.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	size_t count;

	return option_parse(&command, argc, argv, &plan->pipeline, &count);
}

int cli_bench(int argc, char **argv)
{
	struct bench_plan plan = {.shard_count = 1, .clients = 1, .pairs = PAIRS_DEFAULT};
	struct given given = {0};
	int rc;

	option_store_init(&plan.store);
	rc = parse(&plan, &given, argc, argv);
	if (rc < 0)
		rc = settle(&plan, &given);
	if (rc >= 0)
		return rc;
	rc = option_store_load("bench", &plan.store);
	if (rc != CLI_OK)
		return rc;
	out_stop_catch_work();
	return bench(&plan);
}
