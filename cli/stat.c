/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "cli.h"
#include "memory.h"
#include "options.h"
#include "out.h"
#include "prometheus.h"
#include "watch.h"

struct stat_view {
	json_t *stages;		/* NULL: print a table */
	json_t *latencies;	/* likewise */
	struct cairn_live live; /* known before the first counter */
	char stage[64];		/* whose counters are being printed */
	/* without a page */
	uint64_t blocks, partial, raw_bytes, stored_bytes, missed;
	struct memories memories;
};

static void show_process(const struct cairn_live *live)
{
	printf("open in process %u", live->pid);
	if (*live->engine)
		printf(", I/O by %s", live->engine);
	if (*live->engine_note)
		printf(" (%s)", live->engine_note);
	putchar('\n');
	if (live->shared)
		printf("shared: these are the counters of this process alone, the last that opened "
		       "it\n");
}

static int show_counter(void *context, const struct cairn_counter *counter)
{
	struct stat_view *view = context;
	char label[OUT_TEXT_MAX], figure[OUT_TEXT_MAX];
	json_t *stage;

	if (view->stages) {
		stage = json_object_get(view->stages, counter->stage);
		if (!stage) {
			stage = json_object();
			out_json_set(view->stages, counter->stage, stage);
		}
		out_json_count(stage, counter->name, counter->value);
		return 0;
	}
	if (!*view->stage)
		show_process(&view->live);
	if (strcmp(view->stage, counter->stage)) {
		printf("\n%s\n", counter->stage);
		snprintf(view->stage, sizeof(view->stage), "%s", counter->stage);
	}
	snprintf(label, sizeof(label), "  %.40s", counter->name);
	out_thousands(counter->value, figure);
	out_row(label, counter->gauge && counter->value == UINT64_MAX ? "unbounded" : figure,
		counter->help);
	return 0;
}

/*
 * What the share @share of the calls took at most, the bound of a bucket: not less, and
 * half as much again at most. UINT64_MAX: longer than the last bound.
 */
static uint64_t latency_at(const struct cairn_latency *latency, double share)
{
	double rank = (double)latency->count * share;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < latency->bucket_count; i++) {
		sum += latency->buckets[i].count;
		if ((double)sum >= rank)
			return latency->buckets[i].le_ns;
	}
	return UINT64_MAX;
}

static const struct {
	const char *text, *name;
	double share;
} percentiles[] = {
	{"p50", "p50_us", 0.5},
	{"p99", "p99_us", 0.99},
	{"p99.9", "p999_us", 0.999},
};
#define PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

static void json_latency(json_t *ops, const struct cairn_latency *latency)
{
	json_t *o = json_object();

	out_json_set(ops, latency->op, o);
	out_json_count(o, "calls", latency->count);
	if (latency->count == 0)
		return;
	out_json_number(o, "mean_us", 1e-3 * (double)latency->sum_ns / (double)latency->count);
	for (size_t i = 0; i < PERCENTILES; i++) {
		uint64_t ns = latency_at(latency, percentiles[i].share);

		if (ns == UINT64_MAX)
			out_json_set(o, percentiles[i].name, json_null());
		else
			out_json_number(o, percentiles[i].name, 1e-3 * (double)ns);
	}
}

static const char *latency_text(const struct cairn_latency *latency, double share,
				char buffer[OUT_TEXT_MAX])
{
	uint64_t ns = latency_at(latency, share);
	char time[UNITS_TEXT_MAX];
	const char *over = "";

	if (ns == UINT64_MAX && latency->bucket_count > 1) {
		ns = latency->buckets[latency->bucket_count - 2].le_ns;
		over = "over ";
	}
	snprintf(buffer, OUT_TEXT_MAX, "%s%s", over, units_format_time(ns, time));
	return buffer;
}

static void row_latency(const struct cairn_latency *latency)
{
	char label[OUT_TEXT_MAX], figure[OUT_TEXT_MAX], remark[2 * OUT_TEXT_MAX];

	snprintf(remark, sizeof(remark), "at most, of %s calls",
		 out_thousands(latency->count, figure));
	for (size_t i = 0; i < PERCENTILES; i++) {
		snprintf(label, sizeof(label), "  %.30s %s", latency->op, percentiles[i].text);
		out_row(label, latency_text(latency, percentiles[i].share, figure),
			i ? NULL : remark);
	}
}

static int show_latency(void *context, const struct cairn_latency *latency)
{
	struct stat_view *view = context;

	if (view->latencies) {
		json_latency(view->latencies, latency);
		return 0;
	}
	if (latency->count == 0)
		return 0;
	if (strcmp(view->stage, "latency")) {
		printf("\nhow long calls took\n");
		snprintf(view->stage, sizeof(view->stage), "latency");
	}
	row_latency(latency);
	return 0;
}

static int add_block(void *context, const struct cairn_listed *block)
{
	struct stat_view *view = context;

	view->blocks += block->whole != 0;
	view->partial += !block->whole;
	view->raw_bytes += block->raw_bytes;
	view->stored_bytes += block->stored_bytes;
	return 0;
}

static void json_medium(const struct stat_view *view, bool open)
{
	json_t *o = json_object();

	out_json_set(o, "live", json_boolean(open));
	if (open)
		out_json_set(o, "pid", json_null());
	out_json_count(o, "blocks", view->blocks);
	out_json_count(o, "partial_blocks", view->partial);
	out_json_count(o, "raw_bytes", view->raw_bytes);
	out_json_count(o, "stored_bytes", view->stored_bytes);
	out_json_count(o, "missed", view->missed);
	out_json_set(o, "memory", memories_json(&view->memories));
	out_json(o);
}

static void row_medium(const struct stat_view *view)
{
	char figure[OUT_TEXT_MAX], size[UNITS_TEXT_MAX];

	out_row("  blocks", out_thousands(view->blocks, figure), NULL);
	if (view->partial)
		out_row("  partial blocks", out_thousands(view->partial, figure), NULL);
	out_row("  bytes of blocks", units_format_size(view->raw_bytes, size), NULL);
	out_row("  stored as", units_format_size(view->stored_bytes, size), NULL);
	if (view->missed)
		out_row("  not readable", out_thousands(view->missed, figure), NULL);
}

/* Without a page, as @page says: a cache's memory tells all the same who has it open. */
static int stat_medium(const char *pipeline, const struct option_store *store, int page,
		       struct stat_view *view)
{
	struct cairn_error error = {0};
	int64_t rc = cairn_list(pipeline, &store->opts, add_block, view, &view->missed, &error);
	bool open, medium;

	if (rc < 0)
		return option_store_error("stat", (int)rc, &error);
	rc = memories_read(pipeline, store, &view->memories);
	if (rc != CLI_OK)
		return (int)rc;
	open = page == -EBUSY || memories_open(&view->memories);
	if (view->stages) {
		json_medium(view, open);
		return CLI_OK;
	}
	/* Open without a store to be found below: it has none. */
	medium = !open || page == -EBUSY;
	printf("%s%s\n", open ? "open, but without a page to read" : "nobody has it open",
	       medium ? "; on the medium:" : "");
	if (medium)
		row_medium(view);
	memories_print(&view->memories);
	return CLI_OK;
}

static int stat_pipeline(const char *pipeline, const struct option_store *store, bool as_json)
{
	struct stat_view view = {.stages = as_json ? json_object() : NULL,
				 .latencies = as_json ? json_object() : NULL};
	struct cairn_error error = {0};
	json_t *o;
	int rc;

	view.live.size = sizeof(view.live);
	rc = cairn_live_figures(pipeline, &store->opts, show_counter, show_latency, &view,
				&view.live, &error);
	if (rc == -ENOENT || rc == -EOPNOTSUPP || rc == -EBUSY) {
		rc = stat_medium(pipeline, store, rc, &view);
	} else if (rc < 0) {
		rc = option_store_error("stat", rc, &error);
	} else if (as_json) {
		o = json_object();
		out_json_set(o, "live", json_true());
		out_json_count(o, "pid", view.live.pid);
		out_json_set(o, "shared", json_boolean(view.live.shared));
		out_json_set(o, "engine", out_json_text(view.live.engine));
		out_json_set(o, "engine_note", out_json_text(view.live.engine_note));
		out_json_set(o, "stages", json_incref(view.stages));
		out_json_set(o, "latencies", json_incref(view.latencies));
		rc = out_json(o);
	}
	json_decref(view.stages);
	json_decref(view.latencies);
	return rc;
}

static int gather_counter(void *context, const struct cairn_counter *counter)
{
	prometheus_counter(context, counter);
	return 0;
}

static int gather_latency(void *context, const struct cairn_latency *latency)
{
	prometheus_latency(context, latency);
	return 0;
}

/* A scrape of a store that is not open is no error: that is what it tells. */
static int stat_prometheus(const char *pipeline, const struct option_store *store,
			   const struct option_list *labels)
{
	struct cairn_live live = {.size = sizeof(live)};
	struct cairn_error error = {0};
	struct memories memories = {.count = 0};
	struct prometheus *page;
	bool open;
	int rc = prometheus_new(labels, &page);

	if (rc)
		return rc;
	rc = cairn_live_figures(pipeline, &store->opts, gather_counter, gather_latency, page, &live,
				&error);
	if (rc < 0 && rc != -ENOENT && rc != -EBUSY) {
		prometheus_free(page);
		return option_store_error("stat", rc, &error);
	}
	open = rc != -ENOENT;
	if (!open && memories_read(pipeline, store, &memories) != CLI_OK) {
		prometheus_free(page);
		return CLI_CANNOT;
	}
	prometheus_gauge(page, "cairn_up", "1: a process has the store open.",
			 open || memories_open(&memories));
	prometheus_gauge(page, "cairn_counters_up",
			 "1: that process shares a page of counters, which the rest comes from.",
			 rc == 0);
	if (rc == 0)
		prometheus_live(page, &live);
	rc = prometheus_print(page);
	prometheus_free(page);
	return rc;
}

struct stat_wanted {
	struct option_store store;
	struct option_list labels;
	bool as_json, prometheus, watch, counted;
	uint64_t interval_ns, count;
};

static int run_stat(const char *pipeline, const struct stat_wanted *wanted)
{
	int rc = option_store_load("stat", &wanted->store);

	if (rc != CLI_OK)
		return rc;
	if (wanted->prometheus && wanted->as_json)
		return option_error("stat", "--json and --prometheus are both given");
	if (wanted->labels.count > 0 && !wanted->prometheus)
		return option_error("stat", "--label is of --prometheus");
	if (wanted->watch && wanted->prometheus)
		return option_error("stat", "--watch and --prometheus are both given");
	if (wanted->counted && !wanted->watch)
		return option_error("stat", "--count is of --watch");
	if (wanted->watch)
		return watch_store(pipeline, &wanted->store, wanted->interval_ns, wanted->count,
				   wanted->as_json);
	return wanted->prometheus ? stat_prometheus(pipeline, &wanted->store, &wanted->labels)
				  : stat_pipeline(pipeline, &wanted->store, wanted->as_json);
}

int cli_stat(int argc, char **argv)
{
	struct stat_wanted wanted = {.interval_ns = 1000000000u};
	const struct option_row rows[] = {
		OPTION_STORE_ROWS(&wanted.store, &wanted.as_json),
		{"prometheus", OPTION_FLAG, &wanted.prometheus, NULL,
		 "the text that Prometheus scrapes, and nothing else", 0, 0, NULL},
		{"label", OPTION_LIST, &wanted.labels, "NAME=VALUE",
		 "a label of every sample of --prometheus; may be repeated", 0, 0, NULL},
		{"watch", OPTION_TIME_MAYBE, &wanted.interval_ns, "[=TIME]",
		 "shows hit rates, bytes moved, evictions, and of a cache\n"
		 "how full it is, its processes and pins, again after each\n"
		 "TIME (1s), until SIGINT; --json: an object a line",
		 1000000u, UINT64_C(86400000000000), &wanted.watch},
		{"count", OPTION_COUNT, &wanted.count, "N", "ends --watch after N times", 1, 0,
		 &wanted.counted},
	};
	const struct option_command command = {
		.name = "stat",
		.usage = "PIPELINE [options]",
		.about = "Shows the counters and latencies of the process that has the store open "
			 "now, from\nthe page it shares; nothing is asked of that process. With "
			 "no such process: how\nmany blocks and bytes are on the medium.",
		.after = "Examples:\n  cairn stat 'posix(path=/var/lib/cairn)'\n"
			 "  cairn stat 'posix(path=/var/lib/cairn)' --json | jq .stages.posix\n"
			 "  cairn stat 'flash(path=/var/lib/cairn.kv)' --prometheus "
			 "\\\n    > kv0.prom.tmp && mv kv0.prom.tmp kv0.prom\n"
			 "  cairn stat 'cache | flash(path=/var/lib/cairn.kv)' --watch=5s\n\n"
			 "Exit status: 0, 2 usage, 3 it could not be read.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	const char *pipeline = NULL;
	size_t count;
	int rc;

	option_store_init(&wanted.store);
	rc = option_parse(&command, argc, argv, &pipeline, &count);
	if (rc < 0)
		rc = run_stat(pipeline, &wanted);
	option_list_fini(&wanted.labels);
	return rc;
}
