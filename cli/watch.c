/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/units.h"
#include "cli.h"
#include "memory.h"
#include "out.h"
#include "watch.h"

#define STAGES_MAX   9u	 /* the store, and a pipeline's */
#define LINES_A_HEAD 20u /* on a file: the heads again */

/* What a stage has counted since it was opened. */
struct counted {
	uint64_t hits, misses, looked_up, found, loaded, dumped, evicted;
};

struct stage_seen {
	char name[64];
	bool bytes; /* it counts them */
	struct counted now, before;
};

struct watch {
	const char *pipeline;
	const struct option_store *store;
	bool as_json, redraws;
	struct cairn_live live;
	uint64_t pid, start_ns; /* whose figures came before */
	uint64_t at_ns, before_ns;
	bool has_page, busy;		      /* busy: somebody has it open, and shares none */
	struct stage_seen stages[STAGES_MAX]; /* the store's first */
	uint32_t stage_count;
	struct memories memories;
	uint64_t lines;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- reading -------------------------------------------------------------------- */

static struct stage_seen *stage_of(struct watch *watch, const char *name)
{
	struct stage_seen *stage;

	for (uint32_t i = 0; i < watch->stage_count; i++)
		if (strcmp(watch->stages[i].name, name) == 0)
			return &watch->stages[i];
	if (watch->stage_count == STAGES_MAX)
		return NULL;
	stage = &watch->stages[watch->stage_count++];
	memset(stage, 0, sizeof(*stage));
	snprintf(stage->name, sizeof(stage->name), "%s", name);
	return stage;
}

static int see_counter(void *context, const struct cairn_counter *counter)
{
	struct stage_seen *stage = stage_of(context, counter->stage);
	const char *name = counter->name;

	if (!stage)
		return 0;
	if (strcmp(name, "load_hits") == 0)
		stage->now.hits = counter->value;
	else if (strcmp(name, "load_misses") == 0)
		stage->now.misses = counter->value;
	else if (strncmp(name, "misses_", 7) == 0)
		stage->now.misses += counter->value;
	else if (strcmp(name, "lookups") == 0)
		stage->now.looked_up = counter->value;
	else if (strcmp(name, "lookup_hits") == 0)
		stage->now.found = counter->value;
	else if (strcmp(name, "loaded_bytes") == 0 || strcmp(name, "load_bytes") == 0)
		stage->now.loaded = counter->value;
	else if (strcmp(name, "dumped_bytes") == 0 || strcmp(name, "dump_bytes") == 0)
		stage->now.dumped = counter->value;
	else if (strcmp(name, "evicted_blocks") == 0)
		stage->now.evicted = counter->value;
	stage->bytes |= stage->now.loaded + stage->now.dumped > 0;
	return 0;
}

/* A store that is not open, or tells nothing, is watched until it does. */
static bool only_silent(int rc)
{
	return rc == -ENOENT || rc == -EBUSY || rc == -EOPNOTSUPP || rc == -EPROTO ||
	       rc == -EBADMSG;
}

static int read_all(struct watch *watch)
{
	struct cairn_error error = {0};
	int rc;

	for (uint32_t i = 0; i < watch->stage_count; i++) {
		watch->stages[i].before = watch->stages[i].now;
		watch->stages[i].now = (struct counted){0};
	}
	watch->before_ns = watch->at_ns;
	watch->at_ns = now_ns();
	watch->live = (struct cairn_live){.size = sizeof(watch->live)};
	rc = cairn_live_figures(watch->pipeline, &watch->store->opts, see_counter, NULL, watch,
				&watch->live, &error);
	if (rc < 0 && !only_silent(rc))
		return option_store_error("stat", rc, &error);
	watch->has_page = rc == 0;
	watch->busy = rc == -EBUSY;
	/* Another process's figures go on from nothing. */
	if (watch->live.pid != watch->pid || watch->live.start_ns != watch->start_ns)
		for (uint32_t i = 0; i < watch->stage_count; i++)
			watch->stages[i].before = (struct counted){0};
	watch->pid = watch->live.pid;
	watch->start_ns = watch->live.start_ns;
	return memories_read(watch->pipeline, watch->store, &watch->memories);
}

/* ---- figures ------------------------------------------------------------------------ */

static bool is_open(const struct watch *watch)
{
	return watch->has_page || watch->busy || memories_open(&watch->memories);
}

static uint64_t gone_by(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static struct counted since(const struct stage_seen *stage)
{
	return (struct counted){
		.hits = gone_by(stage->now.hits, stage->before.hits),
		.misses = gone_by(stage->now.misses, stage->before.misses),
		.looked_up = gone_by(stage->now.looked_up, stage->before.looked_up),
		.found = gone_by(stage->now.found, stage->before.found),
		.loaded = gone_by(stage->now.loaded, stage->before.loaded),
		.dumped = gone_by(stage->now.dumped, stage->before.dumped),
		.evicted = gone_by(stage->now.evicted, stage->before.evicted),
	};
}

/* Negative: nothing was asked for. */
static double hit_rate(const struct counted *counted)
{
	double all = (double)counted->hits + (double)counted->misses;

	return all > 0 ? (double)counted->hits / all : -1;
}

static double found_rate(const struct counted *counted)
{
	return counted->looked_up > 0 ? (double)counted->found / (double)counted->looked_up : -1;
}

static double seconds(const struct watch *watch)
{
	return 1e-9 * (double)(watch->at_ns - watch->before_ns);
}

/* Of the whole store, with what all tiers evicted. */
static void sum_up(const struct watch *watch, struct counted *ret_now, struct counted *ret_since)
{
	*ret_now = (struct counted){0};
	*ret_since = (struct counted){0};
	for (uint32_t i = 0; i < watch->stage_count; i++) {
		struct counted part = since(&watch->stages[i]);
		uint64_t now = ret_now->evicted + watch->stages[i].now.evicted;
		uint64_t lately = ret_since->evicted + part.evicted;

		if (strcmp(watch->stages[i].name, "store") == 0) {
			*ret_now = watch->stages[i].now;
			*ret_since = part;
		}
		ret_now->evicted = now;
		ret_since->evicted = lately;
	}
}

/* ---- JSON ------------------------------------------------------------------------------ */

static void json_rate(json_t *o, const char *name, double rate)
{
	if (rate < 0)
		out_json_set(o, name, json_null());
	else
		out_json_number(o, name, rate);
}

/* Of the store, which alone counts keys and all bytes, or of a stage. */
static json_t *json_counted(const struct counted *counted, double over_s, bool of_store, bool bytes)
{
	json_t *o = json_object();

	out_json_count(o, "load_hits", counted->hits);
	out_json_count(o, "load_misses", counted->misses);
	json_rate(o, "hit_rate", hit_rate(counted));
	if (of_store) {
		out_json_count(o, "lookups", counted->looked_up);
		out_json_count(o, "lookup_hits", counted->found);
		json_rate(o, "lookup_hit_rate", found_rate(counted));
	}
	if (bytes) {
		out_json_count(o, "loaded_bytes", counted->loaded);
		out_json_count(o, "dumped_bytes", counted->dumped);
	}
	if (bytes && over_s > 0) {
		out_json_number(o, "loaded_bytes_per_s", (double)counted->loaded / over_s);
		out_json_number(o, "dumped_bytes_per_s", (double)counted->dumped / over_s);
	}
	out_json_count(o, "evicted_blocks", counted->evicted);
	return o;
}

static int show_json(const struct watch *watch)
{
	json_t *o = json_object(), *stages = json_object();
	struct counted all, lately;

	sum_up(watch, &all, &lately);
	out_json_set(o, "live", json_boolean(is_open(watch)));
	out_json_set(o, "pid", watch->has_page ? json_integer(watch->live.pid) : json_null());
	out_json_number(o, "interval_s", seconds(watch));
	if (watch->has_page) {
		out_json_set(o, "interval", json_counted(&lately, seconds(watch), true, true));
		out_json_set(o, "total", json_counted(&all, 0, true, true));
	}
	for (uint32_t i = 0; watch->has_page && i < watch->stage_count; i++) {
		const struct stage_seen *stage = &watch->stages[i];
		struct counted part = since(stage);
		json_t *one = json_object();

		if (strcmp(stage->name, "store") == 0) {
			json_decref(one);
			continue;
		}
		out_json_set(one, "interval",
			     json_counted(&part, seconds(watch), false, stage->bytes));
		out_json_set(one, "total", json_counted(&stage->now, 0, false, stage->bytes));
		out_json_set(stages, stage->name, one);
	}
	out_json_set(o, "stages", stages);
	out_json_set(o, "memory", memories_json(&watch->memories));
	return out_json(o);
}

/* ---- text --------------------------------------------------------------------------------- */

static const char *percent(double rate, char buffer[OUT_TEXT_MAX])
{
	if (rate < 0)
		snprintf(buffer, OUT_TEXT_MAX, "-");
	else
		snprintf(buffer, OUT_TEXT_MAX, "%.1f %%", 100 * rate);
	return buffer;
}

static void row_counted(const char *name, const struct counted *lately, const struct counted *all,
			double over_s, bool bytes)
{
	char a[OUT_TEXT_MAX], b[OUT_TEXT_MAX], in[OUT_TEXT_MAX], out[OUT_TEXT_MAX],
		evicted[OUT_TEXT_MAX];

	printf("%-12.12s %9s %9s %12s %12s %12s\n", name, percent(hit_rate(lately), a),
	       percent(hit_rate(all), b),
	       bytes ? out_rate((double)lately->loaded / over_s, out) : "",
	       bytes ? out_rate((double)lately->dumped / over_s, in) : "",
	       out_thousands(lately->evicted, evicted));
}

/* All of the screen, each time. */
static void show_screen(const struct watch *watch)
{
	char a[OUT_TEXT_MAX], b[OUT_TEXT_MAX];
	struct counted all, lately;

	sum_up(watch, &all, &lately);
	fputs("\033[H\033[J", stdout);
	if (!watch->has_page)
		puts(is_open(watch) ? "open, but without a page of counters to read"
				    : "nobody has it open");
	else
		printf("open in process %u; the last %.1f s; of the keys looked up %s were there, "
		       "in all %s\n\n%-12s %9s %9s %12s %12s %12s\n",
		       watch->live.pid, seconds(watch), percent(found_rate(&lately), a),
		       percent(found_rate(&all), b), "", "hits", "in all", "loaded", "dumped",
		       "evicted");
	for (uint32_t i = 0; watch->has_page && i < watch->stage_count; i++) {
		const struct stage_seen *stage = &watch->stages[i];
		struct counted part = since(stage);
		bool store = strcmp(stage->name, "store") == 0;

		row_counted(stage->name, store ? &lately : &part, store ? &all : &stage->now,
			    seconds(watch), store || stage->bytes);
	}
	memories_print(&watch->memories);
}

/* "4KiB 1.2 MiB/3": bytes used and chunks of each class. */
static void line_classes(const struct memory_seen *memory)
{
	char slot[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX];

	for (uint32_t i = 0; i < memory->class_count; i++)
		printf("%s%s:%s/%llu", i ? ", " : "  ",
		       units_format_size(memory->classes[i].slot_bytes, slot),
		       units_format_size(memory->classes[i].used_bytes, used),
		       (unsigned long long)memory->classes[i].chunks);
}

static void show_line(struct watch *watch)
{
	const struct memory_seen *memory = watch->memories.count ? &watch->memories.at[0] : NULL;
	char a[OUT_TEXT_MAX], b[OUT_TEXT_MAX], c[OUT_TEXT_MAX], d[OUT_TEXT_MAX], in[OUT_TEXT_MAX],
		out[OUT_TEXT_MAX], evicted[OUT_TEXT_MAX], used[UNITS_TEXT_MAX];
	struct counted all, lately;

	if (watch->lines++ % LINES_A_HEAD == 0)
		printf("%8s %8s %8s %8s %11s %11s %9s %9s %7s %6s  %s\n", "found", "in all", "hits",
		       "in all", "loaded", "dumped", "evicted", "memory", "clients", "pins",
		       "slots:used/chunks");
	if (!is_open(watch)) {
		puts("nobody has it open");
		return;
	}
	sum_up(watch, &all, &lately);
	if (watch->has_page)
		printf("%8s %8s %8s %8s %11s %11s %9s", percent(found_rate(&lately), c),
		       percent(found_rate(&all), d), percent(hit_rate(&lately), a),
		       percent(hit_rate(&all), b),
		       out_rate((double)lately.loaded / seconds(watch), out),
		       out_rate((double)lately.dumped / seconds(watch), in),
		       out_thousands(lately.evicted, evicted));
	else /* what nobody tells is not nothing */
		printf("%8s %8s %8s %8s %11s %11s %9s", "-", "-", "-", "-", "-", "-", "-");
	if (memory) {
		printf(" %9s %7llu %6llu", units_format_size(memory->used_bytes, used),
		       (unsigned long long)memory->clients, (unsigned long long)memory->pins);
		line_classes(memory);
	}
	putchar('\n');
}

static int show(struct watch *watch)
{
	if (watch->as_json)
		return show_json(watch);
	if (watch->redraws)
		show_screen(watch);
	else
		show_line(watch);
	if (fflush(stdout)) {
		out_error(NULL, "stdout: could not write the result");
		return CLI_CANNOT;
	}
	return CLI_OK;
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* Signals are let in here alone, so that none comes between a look for it and the sleep. */
static void sleep_until(uint64_t until_ns, const sigset_t *open)
{
	uint64_t at_ns = now_ns(), left_ns = until_ns > at_ns ? until_ns - at_ns : 0;
	struct timespec ts = {.tv_sec = (time_t)(left_ns / 1000000000u),
			      .tv_nsec = (long)(left_ns % 1000000000u)};

	ppoll(NULL, 0, &ts, open);
}

int watch_store(const char *pipeline, const struct option_store *store, uint64_t interval_ns,
		uint64_t count, bool as_json)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	sigset_t stops, open;
	uint64_t next_ns;
	int rc;

	if (!watch)
		out_die("no memory");
	watch->pipeline = pipeline;
	watch->store = store;
	watch->as_json = as_json;
	watch->redraws = !as_json && isatty(STDOUT_FILENO);
	out_stop_catch();
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigprocmask(SIG_BLOCK, &stops, &open);
	rc = read_all(watch);
	next_ns = watch->at_ns;
	for (uint64_t i = 0; rc == CLI_OK && (count == 0 || i < count); i++) {
		/* What was missed, the machine being asleep, is not made up for. */
		next_ns = next_ns + interval_ns > now_ns() ? next_ns + interval_ns : now_ns();
		sleep_until(next_ns, &open);
		if (out_stop_asked())
			break;
		rc = read_all(watch);
		if (rc == CLI_OK)
			rc = show(watch);
	}
	sigprocmask(SIG_SETMASK, &open, NULL);
	free(watch);
	return rc;
}
