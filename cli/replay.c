/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/units.h"
#include "cli.h"
#include "figures.h"
#include "generate.h"
#include "options.h"
#include "out.h"
#include "replay.h"

#define CLIENTS_MAX	 1024u
#define REQUESTS_DEFAULT 2000u /* of a generated trace */
#define PROGRESS_NS	 200000000

struct replay_options {
	const char *pipeline;
	struct option_list traces;
	struct option_store store;
	uint32_t kind, durability;
	uint64_t seed, clients, block, shards, limit;
	double speed, prefill_rate;
	bool generate, seeded, speed_given, verify, no_verify, clear, json;
};

struct replay_figures {
	struct replay_totals totals;
	double seconds, cpu_seconds, load_p50_us, load_p99_us;
	json_t *counters;	 /* of the stages, at the end */
	uint64_t evicted, known; /* blocks; known: in the store before the first request */
	char engine[16], engine_note[160]; /* what carries the I/O, and why */
	bool stopped;
};

static int parse(struct replay_options *o, int argc, char **argv)
{
	const struct option_row rows[] = {
		{"trace", OPTION_LIST, &o->traces, "FILE",
		 "request trace, JSON lines, plain, gzip or zstd (-: stdin);\n"
		 "further FILEs may follow; each has ids of its own",
		 0, 0, NULL},
		{"generate", OPTION_CHOICE, &o->kind, GENERATE_KINDS,
		 "make a trace up instead; the same everywhere for one seed", 0, 0, &o->generate},
		{"seed", OPTION_COUNT, &o->seed, "N", "of --generate (default: 1)", 0, 0,
		 &o->seeded},
		{"limit", OPTION_COUNT, &o->limit, "N",
		 "requests (default: the whole trace; 2000 generated ones)", 1, 1u << 30, NULL},
		{"clients", OPTION_COUNT, &o->clients, "N", "requests at once (default: 1)", 1,
		 CLIENTS_MAX, NULL},
		{"speed", OPTION_NUMBER, &o->speed, "X",
		 "keep the arrival times, X times faster\n(default: no waiting)", 0, 0,
		 &o->speed_given},
		{"block", OPTION_SIZE, &o->block, "BYTES",
		 "of a block, which is 512 tokens (default: 16KiB)", 1, 1ull << 36, NULL},
		{"shards", OPTION_COUNT, &o->shards, "N", "equal parts of a block (default: 1)", 1,
		 CAIRN_SHARD_COUNT_MAX, NULL},
		{"durability", OPTION_CHOICE, &o->durability, "memory|written|durable",
		 "how far a dump must get before the next request\n(default: memory)", 0, 0, NULL},
		{"prefill-rate", OPTION_NUMBER, &o->prefill_rate, "N",
		 "tokens/s of the accelerator, for the time saved\n(default: 10000)", 0, 0, NULL},
		{"verify", OPTION_FLAG, &o->verify, NULL, "compare every loaded byte (the default)",
		 0, 0, NULL},
		{"no-verify", OPTION_FLAG, &o->no_verify, NULL, "do not compare them", 0, 0, NULL},
		{"clear", OPTION_FLAG, &o->clear, NULL,
		 "start cold: empty the replay's namespace first", 0, 0, NULL},
		OPTION_STORE_ROWS(&o->store, &o->json),
	};
	const struct option_command command = {
		.name = "replay",
		.usage = "PIPELINE --trace FILE... [options]\n"
			 "       cairn replay PIPELINE --generate " GENERATE_KINDS " [options]",
		.about = "Replays LLM requests through a store: looks each prompt's prefix up, "
			 "loads "
			 "what\nis there, makes the rest from its keys, dumps it; and compares "
			 "every "
			 "byte\nloaded with what it must be.",
		.after =
			"Examples:\n"
			"  cairn replay 'posix(path=/tmp/kv, size=2GiB)' --generate chat --limit "
			"400\n"
			"  cairn replay 'posix(path=/tmp/kv)' --trace conversation_trace.jsonl.gz\n"
			"  cairn replay null --generate agent --seed 7 --clients 4 --json\n\n"
			"Exit status: 0 no byte was wrong, and nothing failed but for absence, "
			"damage\n"
			"found by its checksum, or a full tier; 1 otherwise; 2 usage; 3 could not "
			"run;\n"
			"130 stopped by a signal.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rest = &o->traces,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	size_t count;

	return option_parse(&command, argc, argv, &o->pipeline, &count);
}

static int check(const struct replay_options *o)
{
	if (o->generate && o->traces.count)
		return option_error("replay",
				    "\"%s\" would be a trace, and --generate excludes those; a "
				    "pipeline with spaces is one word in quotes",
				    o->traces.items[0]);
	if (!o->generate && !o->traces.count)
		return option_error("replay", "no trace; give --trace FILE, or "
					      "--generate " GENERATE_KINDS);
	if (o->seeded && !o->generate)
		return option_error("replay", "--seed belongs to --generate");
	if (o->verify && o->no_verify)
		return option_error("replay", "--verify and --no-verify exclude each other");
	if (o->block % o->shards)
		return option_error(
			"replay", "--block: %llu bytes are not %llu equal shards; %llu would be",
			(unsigned long long)o->block, (unsigned long long)o->shards,
			(unsigned long long)(o->block + o->shards - o->block % o->shards));
	if (o->block / o->shards > CAIRN_SHARD_BYTES_MAX)
		return option_error("replay", "--shards: a shard has at most 64 MiB; %llu would do",
				    (unsigned long long)((o->block + CAIRN_SHARD_BYTES_MAX - 1) /
							 CAIRN_SHARD_BYTES_MAX));
	return -1;
}

static int read_traces(const struct replay_options *o, struct trace *trace)
{
	char error[TRACE_ERROR_MAX] = "";

	if (o->generate) {
		generate_trace(trace, o->kind, o->seed, o->limit ? o->limit : REQUESTS_DEFAULT);
		return CLI_OK;
	}
	for (size_t i = 0; i < o->traces.count; i++) {
		if (o->limit && trace->count >= o->limit)
			break;
		if (trace_read(trace, o->traces.items[i], o->limit, error) < 0) {
			out_error("replay", "%s", error);
			return CLI_CANNOT;
		}
	}
	if (trace->count)
		return CLI_OK;
	out_error("replay", "%s: no request in it", o->traces.items[0]);
	return CLI_CANNOT;
}

/* ---- the run ---------------------------------------------------------------- */

/* What is replayed, and through what: the line above the table. */
static void announce(const struct replay_options *o, const struct trace *trace)
{
	static const char *const kinds[] = {"chat", "rag", "agent"};
	char count[OUT_TEXT_MAX], size[UNITS_TEXT_MAX], origin[64];
	const char *pipeline = o->pipeline;
	int line = (int)strcspn(pipeline, "\n");

	if (o->generate)
		snprintf(origin, sizeof(origin), "generated %s requests, seed %llu", kinds[o->kind],
			 (unsigned long long)o->seed);
	else
		snprintf(origin, sizeof(origin), "requests of %zu trace%s", o->traces.count,
			 o->traces.count == 1 ? "" : "s");
	printf("%s %s, %s a block of %u tokens, through\n  %.*s%s\n\n",
	       out_thousands(trace->count, count), origin, units_format_size(o->block, size),
	       TRACE_BLOCK_TOKENS, line, pipeline, pipeline[line] ? " ..." : "");
	fflush(stdout);
}

static const char *time_left(double seconds, double share, char buffer[UNITS_TEXT_MAX])
{
	double left = share > 0 ? ceil(seconds * (1 - share) / share) : 0;

	if (!(share > 0))
		snprintf(buffer, UNITS_TEXT_MAX, "?");
	else
		units_format_time((uint64_t)(left < 1 ? 1 : left) * 1000000000u, buffer);
	return buffer;
}

static void show_progress(struct replay_run *run)
{
	double share, seconds = 1e-9 * (double)(figures_now_ns() - run->start_ns);
	char text[160], rate[OUT_TEXT_MAX], left[UNITS_TEXT_MAX];
	const struct replay_totals *t = &run->totals;
	size_t count = run->trace->count;

	share = run->speed > 0 ? (double)t->requests / (double)count
			       : (double)t->blocks / (double)(run->trace->id_count + 1);
	snprintf(text, sizeof(text), "%llu/%zu requests, %.1f %% hits, %s, %s left",
		 (unsigned long long)t->requests, count,
		 t->blocks ? 100.0 * (double)t->blocks_hit / (double)t->blocks : 0.0,
		 out_rate((double)(t->bytes_loaded + t->bytes_dumped) / (seconds + 1e-9), rate),
		 time_left(seconds, share, left));
	out_progress(text);
}

/* Waits for the clients, and shows how far they are. */
static void await_clients(struct replay_run *run)
{
	pthread_mutex_lock(&run->lock);
	while (run->clients_left) {
		struct timespec when;

		clock_gettime(CLOCK_REALTIME, &when);
		when.tv_nsec += PROGRESS_NS;
		when.tv_sec += when.tv_nsec / 1000000000;
		when.tv_nsec %= 1000000000;
		if (!out_progress_on())
			pthread_cond_wait(&run->ended, &run->lock);
		else if (pthread_cond_timedwait(&run->ended, &run->lock, &when) == ETIMEDOUT)
			show_progress(run);
	}
	pthread_mutex_unlock(&run->lock);
	out_progress_end();
}

static void run_clients(struct replay_run *run, uint32_t count)
{
	pthread_t *threads = calloc(count, sizeof(*threads));

	run->load_ns = calloc(run->trace->count, sizeof(*run->load_ns));
	if (!threads || !run->load_ns)
		out_die("no memory for %u clients", count);
	run->clients_left = count;
	run->start_ns = figures_now_ns();
	for (uint32_t i = 0; i < count; i++) {
		int rc = pthread_create(&threads[i], NULL, replay_client, run);

		if (rc)
			out_die("client %u: %s", i + 1, strerror(rc));
	}
	await_clients(run);
	for (uint32_t i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
}

static int open_store(const struct replay_options *o, struct replay_run *run,
		      struct replay_figures *figures)
{
	const struct cairn_namespace_desc desc = {
		.size = sizeof(desc),
		.model = "cairn replay",
		.dtype = "u8",
		.layout = "content of its key, 1",
		.world = 1,
		.shard_count = run->shard_count,
		.shard_bytes = run->shard_bytes,
	};
	struct cairn_stat stat = {.size = sizeof(stat)};
	struct cairn_error error = {0};
	int rc = option_store_load("replay", &o->store);

	if (rc != CLI_OK)
		return rc;
	rc = cairn_store_open(o->pipeline, &o->store.opts, &run->store, &error);
	if (rc < 0)
		return option_store_error("replay", rc, &error);
	rc = cairn_namespace_open(run->store, &desc, &run->ns, &error);
	if (rc == 0 && o->clear) {
		rc = cairn_clear(run->ns, CAIRN_MEMORY);
		snprintf(error.text, sizeof(error.text), "could not clear the namespace: %s",
			 cairn_strerror(rc));
	}
	if (rc < 0) {
		out_error("replay", "%s", error.text);
		cairn_store_close(run->store, 0);
		return CLI_CANNOT;
	}
	if (cairn_stat(run->store, &stat) == 0) {
		figures->known = stat.blocks;
		snprintf(figures->engine, sizeof(figures->engine), "%.15s", stat.engine);
		snprintf(figures->engine_note, sizeof(figures->engine_note), "%.159s",
			 stat.engine_note);
	}
	return CLI_OK;
}

/* ---- the report ---------------------------------------------------------- */

static double share_of(uint64_t part, uint64_t whole)
{
	return whole ? (double)part / (double)whole : 0;
}

static void report_json(const struct replay_figures *f)
{
	const struct replay_totals *t = &f->totals;
	json_t *o = json_object();

	out_json_count(o, "requests", t->requests);
	out_json_count(o, "prompt_tokens", t->prompt_tokens);
	out_json_count(o, "tokens_saved", t->tokens_saved);
	out_json_count(o, "blocks", t->blocks);
	out_json_count(o, "blocks_hit", t->blocks_hit);
	out_json_number(o, "hit_share", share_of(t->blocks_hit, t->blocks));
	out_json_count(o, "bytes_dumped", t->bytes_dumped);
	out_json_count(o, "bytes_loaded", t->bytes_loaded);
	out_json_number(o, "load_p50_us", f->load_p50_us);
	out_json_number(o, "load_p99_us", f->load_p99_us);
	out_json_number(o, "seconds", f->seconds);
	out_json_number(o, "bytes_per_s",
			(double)(t->bytes_dumped + t->bytes_loaded) / (f->seconds + 1e-9));
	out_json_count(o, "wrong_bytes", t->wrong_bytes);
	out_json_count(o, "damaged", t->damaged);
	out_json_count(o, "failed_xfers", t->failed_xfers);
	out_json_count(o, "refused", t->refused);
	out_json_count(o, "too_large", t->too_large);
	out_json_count(o, "evicted_blocks", f->evicted);
	out_json_number(o, "cpu_seconds", f->cpu_seconds);
	out_json_count(o, "peak_rss_bytes", figures_peak_rss_bytes());
	out_json_set(o, "counters", json_incref(f->counters));
	out_json(o);
}

static void row_count(const char *label, uint64_t count, uint64_t whole)
{
	char figure[OUT_TEXT_MAX], share[OUT_TEXT_MAX] = "";

	if (whole)
		snprintf(share, sizeof(share), "%.1f %%", 100 * share_of(count, whole));
	out_row(label, out_thousands(count, figure), share);
}

static void row_alarm(const char *label, uint64_t count, const char *remark)
{
	char figure[OUT_TEXT_MAX];

	if (count)
		out_row_alarm(label, out_thousands(count, figure), remark, true);
}

static void row_time(const char *label, double seconds, const char *remark)
{
	char figure[UNITS_TEXT_MAX];

	units_format_time((uint64_t)(seconds * 1e9), figure);
	out_row(label, seconds > 0 ? figure : "0 s", remark);
}

static void report_traffic(const struct replay_figures *f)
{
	const struct replay_totals *t = &f->totals;
	char size[UNITS_TEXT_MAX], text[OUT_TEXT_MAX];

	out_row("bytes dumped", units_format_size(t->bytes_dumped, size), NULL);
	out_row("bytes loaded", units_format_size(t->bytes_loaded, size), NULL);
	if (t->bytes_loaded) {
		row_time("load of a request, p50", f->load_p50_us * 1e-6, NULL);
		row_time("load of a request, p99", f->load_p99_us * 1e-6, NULL);
	}
	row_time("time", f->seconds, NULL);
	out_row("throughput",
		out_rate((double)(t->bytes_dumped + t->bytes_loaded) / (f->seconds + 1e-9), text),
		"in and out, content made and compared");
	row_time("CPU time", f->cpu_seconds, "of it all, making and comparing content too");
	out_row("peak memory", units_format_size(figures_peak_rss_bytes(), size), NULL);
	if (*f->engine)
		out_row("I/O engine", f->engine, f->engine_note);
}

static void report_table(const struct replay_options *o, const struct replay_figures *f)
{
	const struct replay_totals *t = &f->totals;
	char remark[OUT_TEXT_MAX], rate[OUT_TEXT_MAX];

	if (f->known)
		row_count("blocks known at the start", f->known, 0);
	row_count("requests", t->requests, 0);
	row_count("prompt tokens", t->prompt_tokens, 0);
	row_count("  not recomputed", t->tokens_saved, t->prompt_tokens);
	row_count("blocks of prompts", t->blocks, 0);
	row_count("  prefix hits", t->blocks_hit, t->blocks);
	snprintf(remark, sizeof(remark), "at %s tokens/s",
		 out_thousands((uint64_t)o->prefill_rate, rate));
	row_time("prefill time saved", (double)t->tokens_saved / o->prefill_rate, remark);
	report_traffic(f);
	if (f->evicted)
		out_row("evicted blocks", out_thousands(f->evicted, rate), "to stay within size=");
	row_alarm("refused blocks", t->refused - t->too_large, "a tier was full, or declined them");
	row_alarm("too large blocks", t->too_large,
		  "over shard_bytes_max: a larger region= (flash) or size=, or more --shards");
	row_alarm("vanished blocks", t->vanished, "promised by a lookup, absent for the load");
	row_alarm("damaged blocks", t->damaged, "found by their checksum: served as misses");
	row_alarm("failed xfers", t->failed_xfers, "the first of them are named above");
	if (o->no_verify)
		out_row("wrong bytes", "not looked for", NULL);
	else if (t->wrong_bytes)
		row_alarm("wrong bytes", t->wrong_bytes, "THE STORE RETURNED WRONG DATA");
	else
		out_row("wrong bytes", "0", "every loaded byte was compared");
	if (f->stopped)
		out_row_alarm("stopped by a signal", "", NULL, true);
}

static int add_counter(void *context, const struct cairn_counter *counter)
{
	char name[OUT_TEXT_MAX];

	snprintf(name, sizeof(name), "%s.%s", counter->stage, counter->name);
	if (counter->value)
		out_json_count(context, name, counter->value);
	return 0;
}

static int replay(const struct replay_options *o, const struct trace *trace)
{
	struct replay_run run = {.trace = trace,
				 .shard_count = (uint32_t)o->shards,
				 .shard_bytes = o->block / o->shards,
				 .durability = o->durability,
				 .verify = !o->no_verify,
				 .speed = o->speed_given ? o->speed : 0,
				 .lock = PTHREAD_MUTEX_INITIALIZER,
				 .ended = PTHREAD_COND_INITIALIZER};
	struct replay_figures f = {0};
	uint64_t evicted;
	int rc = open_store(o, &run, &f);

	if (rc != CLI_OK)
		return rc;
	if (!o->json)
		announce(o, trace);
	evicted = option_store_evicted(run.store);
	f.cpu_seconds = -figures_cpu_seconds();
	run_clients(&run, (uint32_t)o->clients);
	f.seconds = 1e-9 * (double)(figures_now_ns() - run.start_ns);
	f.cpu_seconds += figures_cpu_seconds();
	f.totals = run.totals;
	f.evicted = option_store_evicted(run.store) - evicted;
	f.stopped = out_stop_asked();
	f.counters = json_object();
	cairn_counters(run.store, add_counter, f.counters);
	figures_sort(run.load_ns, run.load_count);
	f.load_p50_us = 1e-3 * (double)figures_percentile(run.load_ns, run.load_count, 0.50);
	f.load_p99_us = 1e-3 * (double)figures_percentile(run.load_ns, run.load_count, 0.99);
	free(run.load_ns);
	if (o->json)
		report_json(&f);
	else
		report_table(o, &f);
	json_decref(f.counters);
	cairn_namespace_close(run.ns);
	rc = cairn_store_close(run.store, 0);
	if (rc < 0) {
		out_error("replay", "the store could not be closed: %s", cairn_strerror(rc));
		return CLI_CANNOT;
	}
	if (f.totals.wrong_bytes || f.totals.failed_xfers)
		return CLI_BAD;
	return f.stopped ? CLI_STOPPED : CLI_OK;
}

int cli_replay(int argc, char **argv)
{
	struct replay_options o = {
		.seed = 1, .clients = 1, .block = 16384, .shards = 1, .prefill_rate = 10000};
	struct trace trace;
	int rc;

	option_store_init(&o.store);
	trace_init(&trace);
	rc = parse(&o, argc, argv);
	if (rc < 0)
		rc = check(&o);
	if (rc < 0)
		rc = read_traces(&o, &trace);
	else
		goto out;
	if (rc == CLI_OK) {
		out_stop_catch_work();
		rc = replay(&o, &trace);
	}
out:
	option_list_fini(&o.traces);
	trace_fini(&trace);
	return rc;
}
