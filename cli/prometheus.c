/* SPDX-License-Identifier: Apache-2.0 */
#include "prometheus.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "out.h"

#define NAME_TEXT_MAX	96
#define HELP_TEXT_MAX	192
#define LABELS_TEXT_MAX 256
#define USER_TEXT_MAX	1024

struct sample {
	char labels[LABELS_TEXT_MAX]; /* "stage=\"posix\"", or "" */
	const char *suffix;	      /* "_bucket", "_sum" ..., or "" */
	bool whole;		      /* as `count`, exactly */
	uint64_t count;
	double value;
};

struct metric {
	char name[NAME_TEXT_MAX], help[HELP_TEXT_MAX];
	const char *type;
	struct sample *samples;
	size_t sample_count;
};

struct prometheus {
	char user[USER_TEXT_MAX]; /* the labels of every sample, as text */
	struct metric *metrics;	  /* in the order of their first samples */
	size_t metric_count;
};

/* ---- names and labels ---------------------------------------------------------- */

/* What the conventions want of a name where the counter's own has it otherwise. */
static const struct {
	const char *counter, *name;
} renamed[] = {
	{"bytes_used", "used_bytes"},
	{"bytes_limit", "limit_bytes"},
	{"shard_bytes_max", "shard_max_bytes"},
	{"in_flight", "ios_in_flight"},
	{"inline", "loads_inline"},
};

static const char *conventional(const char *counter)
{
	for (size_t i = 0; i < sizeof(renamed) / sizeof(renamed[0]); i++)
		if (strcmp(renamed[i].counter, counter) == 0)
			return renamed[i].name;
	return counter;
}

/* A stage of somebody's own may count under any name. */
static void clean_name(char *name)
{
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && *name != '_')
			*name = '_';
}

/* Appends name="value", escaped as the format says; false: it does not fit. */
static bool add_label(char *labels, size_t room, const char *name, size_t name_length,
		      const char *value)
{
	size_t at = strlen(labels);
	int n = snprintf(labels + at, room - at, "%s%.*s=\"", at ? "," : "", (int)name_length,
			 name);

	if (n < 0 || (size_t)n + at + 3 >= room)
		return false;
	at += (size_t)n;
	for (; *value; value++) {
		if (at + 4 >= room)
			return false;
		if (*value == '\\' || *value == '"' || *value == '\n')
			labels[at++] = '\\';
		labels[at++] = *value == '\n' ? 'n' : *value;
	}
	labels[at++] = '"';
	labels[at] = 0;
	return true;
}

static bool label_name_ok(const char *name, size_t length)
{
	if (length == 0 || length > 64 || isdigit((unsigned char)*name))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '_')
			return false;
	return length < 2 || name[0] != '_' || name[1] != '_';
}

/* Labels that samples have of their own. */
static bool label_taken(const char *name, size_t length)
{
	static const char *const own[] = {"stage", "reason", "op", "le", "engine", "quantile"};

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strlen(own[i]) == length && memcmp(own[i], name, length) == 0)
			return true;
	return false;
}

/* A sample with one label twice makes Prometheus refuse the whole page. */
static bool label_twice(const struct option_list *labels, size_t count, size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(labels->items[i], labels->items[count], length + 1) == 0)
			return true;
	return false;
}

int prometheus_new(const struct option_list *labels, struct prometheus **ret_page)
{
	struct prometheus *page = calloc(1, sizeof(*page));

	if (!page)
		out_die("no memory");
	for (size_t i = 0; i < labels->count; i++) {
		const char *text = labels->items[i], *equals = strchr(text, '=');
		size_t length = equals ? (size_t)(equals - text) : 0;
		int rc = 0;

		if (!label_name_ok(text, length))
			rc = option_error("stat",
					  "--label \"%s\" is not NAME=VALUE, NAME of "
					  "letters, digits and _",
					  text);
		else if (label_taken(text, length))
			rc = option_error("stat", "--label \"%s\": cairn gives that label itself",
					  text);
		else if (label_twice(labels, i, length))
			rc = option_error("stat", "--label: \"%.*s\" is given twice", (int)length,
					  text);
		else if (!add_label(page->user, sizeof(page->user), text, length, equals + 1))
			rc = option_error("stat", "--label: all of them have more than %d bytes",
					  USER_TEXT_MAX);
		if (rc) {
			prometheus_free(page);
			return rc;
		}
	}
	*ret_page = page;
	return 0;
}

void prometheus_free(struct prometheus *page)
{
	if (!page)
		return;
	for (size_t i = 0; i < page->metric_count; i++)
		free(page->metrics[i].samples);
	free(page->metrics);
	free(page);
}

/* ---- samples ---------------------------------------------------------------------- */

static void *grow(void *array, size_t count, size_t bytes)
{
	/* In powers of two. */
	if (count & (count - 1))
		return array;
	array = realloc(array, (count ? count * 2 : 1) * bytes);
	if (!array)
		out_die("no memory");
	return array;
}

static struct metric *metric_of(struct prometheus *page, const char *name, const char *type,
				const char *help)
{
	struct metric *metric;

	for (size_t i = 0; i < page->metric_count; i++)
		if (strcmp(page->metrics[i].name, name) == 0)
			return &page->metrics[i];
	page->metrics = grow(page->metrics, page->metric_count, sizeof(*metric));
	metric = &page->metrics[page->metric_count++];
	*metric = (struct metric){.type = type};
	snprintf(metric->name, sizeof(metric->name), "%s", name);
	snprintf(metric->help, sizeof(metric->help), "%s", *help ? help : "no description");
	return metric;
}

static struct sample *add_sample(struct metric *metric, const char *suffix)
{
	struct sample *sample;

	metric->samples = grow(metric->samples, metric->sample_count, sizeof(*sample));
	sample = &metric->samples[metric->sample_count++];
	*sample = (struct sample){.suffix = suffix};
	return sample;
}

static void put_label(struct sample *sample, const char *name, const char *value)
{
	if (!add_label(sample->labels, sizeof(sample->labels), name, strlen(name), value))
		out_die("a label of %s is too long", name);
}

static void put_count(struct sample *sample, uint64_t count)
{
	sample->whole = true;
	sample->count = count;
}

void prometheus_gauge(struct prometheus *page, const char *name, const char *help, double value)
{
	add_sample(metric_of(page, name, "gauge", help), "")->value = value;
}

void prometheus_live(struct prometheus *page, const struct cairn_live *live)
{
	struct sample *info = add_sample(
		metric_of(page, "cairn_engine_info", "gauge", "What carries the I/O."), "");

	put_label(info, "engine", live->engine);
	info->value = 1;
	prometheus_gauge(page, "cairn_start_time_seconds",
			 "When the process opened the store, seconds since 1970.",
			 (double)live->start_ns / 1e9);
}

/* "cairn_", "stage_" of a stage's, the name, "_total" of what only rises. */
void prometheus_counter(struct prometheus *page, const struct cairn_counter *counter)
{
	static const char misses[] = "misses_";
	bool own = strcmp(counter->stage, "store") == 0;
	bool miss = own && strncmp(counter->name, misses, sizeof(misses) - 1) == 0;
	const char *help = miss ? "items not loaded, by reason" : counter->help;
	char name[NAME_TEXT_MAX];
	struct metric *metric;
	struct sample *sample;

	snprintf(name, sizeof(name), "cairn_%s%.70s%s", own ? "" : "stage_",
		 miss ? "load_misses" : conventional(counter->name),
		 counter->gauge ? "" : "_total");
	clean_name(name);
	metric = metric_of(page, name, counter->gauge ? "gauge" : "counter", help);
	sample = add_sample(metric, "");
	if (miss)
		put_label(sample, "reason", counter->name + sizeof(misses) - 1);
	if (!own)
		put_label(sample, "stage", counter->stage);
	put_count(sample, counter->value);
	/* No limit. */
	if (counter->gauge && counter->value == UINT64_MAX) {
		sample->whole = false;
		sample->value = HUGE_VAL;
	}
}

/* One bucket for each power of two: every second one, and the rest. */
void prometheus_latency(struct prometheus *page, const struct cairn_latency *latency)
{
	struct metric *metric = metric_of(page, "cairn_call_duration_seconds", "histogram",
					  "How long calls took, to the result of their task.");
	struct sample *sample;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < latency->bucket_count; i++) {
		uint64_t le_ns = latency->buckets[i].le_ns;
		char le[32] = "+Inf";

		sum += latency->buckets[i].count;
		if (le_ns != UINT64_MAX && (le_ns & (le_ns - 1)) != 0)
			continue;
		if (le_ns != UINT64_MAX)
			snprintf(le, sizeof(le), "%.12g", (double)le_ns / 1e9);
		sample = add_sample(metric, "_bucket");
		put_label(sample, "op", latency->op);
		put_label(sample, "le", le);
		put_count(sample, sum);
	}
	sample = add_sample(metric, "_sum");
	put_label(sample, "op", latency->op);
	sample->value = (double)latency->sum_ns / 1e9;
	sample = add_sample(metric, "_count");
	put_label(sample, "op", latency->op);
	put_count(sample, sum);
}

/* ---- text ------------------------------------------------------------------------- */

static void print_sample(const struct prometheus *page, const struct metric *metric,
			 const struct sample *sample)
{
	const char *comma = *page->user && *sample->labels ? "," : "";

	printf("%s%s", metric->name, sample->suffix);
	if (*page->user || *sample->labels)
		printf("{%s%s%s}", page->user, comma, sample->labels);
	if (sample->whole)
		printf(" %llu\n", (unsigned long long)sample->count);
	else if (sample->value >= HUGE_VAL)
		printf(" +Inf\n");
	else
		printf(" %.17g\n", sample->value);
}

int prometheus_print(const struct prometheus *page)
{
	for (size_t i = 0; i < page->metric_count; i++) {
		const struct metric *metric = &page->metrics[i];

		printf("# HELP %s ", metric->name);
		for (const char *c = metric->help; *c; c++)
			*c == '\\' ? fputs("\\\\", stdout) : putchar(*c == '\n' ? ' ' : *c);
		printf("\n# TYPE %s %s\n", metric->name, metric->type);
		for (size_t s = 0; s < metric->sample_count; s++)
			print_sample(page, metric, &metric->samples[s]);
	}
	if (fflush(stdout) == 0 && !ferror(stdout))
		return CLI_OK;
	out_error("stat", "cannot write to the standard output");
	return CLI_CANNOT;
}
