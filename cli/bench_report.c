/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "base/units.h"
#include "bench.h"
#include "figures.h"
#include "out.h"

#define WIDTH_MAX 0.10 /* of an interval that settles something; above 1, of the median */

static double per_second(uint64_t n, const struct bench_figures *f)
{
	return (double)n / (f->seconds > 0 ? f->seconds : 1e-9);
}

static double percentile_us(const struct bench_figures *f, double percent)
{
	return 1e-3 * (double)histogram_percentile(&f->latency, percent);
}

static double cpu_per_gb(const struct bench_figures *f)
{
	return f->bytes ? f->cpu_seconds / (1e-9 * (double)f->bytes) : 0;
}

struct bench_run bench_run_of(const struct bench_figures *figures)
{
	return (struct bench_run){.bytes_per_s = per_second(figures->bytes, figures),
				  .ops_per_s = per_second(figures->ops, figures),
				  .p50_us = percentile_us(figures, 50),
				  .p99_us = percentile_us(figures, 99),
				  .cpu_s_per_gb = cpu_per_gb(figures)};
}

static json_t *json_of(const struct bench_run *run)
{
	json_t *o = json_object();

	out_json_number(o, "bytes_per_s", run->bytes_per_s);
	out_json_number(o, "ops_per_s", run->ops_per_s);
	out_json_number(o, "p50_us", run->p50_us);
	out_json_number(o, "p99_us", run->p99_us);
	out_json_number(o, "cpu_s_per_gb", run->cpu_s_per_gb);
	return o;
}

void bench_report_run(const struct bench_run *run)
{
	out_json(json_of(run));
	fflush(stdout);
}

static void json_median(json_t *o, const char *name, struct figures_median m)
{
	char low[32], high[32];

	snprintf(low, sizeof(low), "%s_lo", name);
	snprintf(high, sizeof(high), "%s_hi", name);
	out_json_number(o, name, m.median);
	out_json_number(o, low, m.low);
	out_json_number(o, high, m.high);
}

static void json_bare(json_t *o, const struct bench_plan *plan, const struct bench_side *bare,
		      const struct bench_result *r)
{
	json_t *b = json_object();

	out_json_set(b, "what", out_json_text(bare->what));
	out_json_number(b, "bytes_per_s", per_second(r->bare.bytes, &r->bare));
	out_json_number(b, "p50_us", percentile_us(&r->bare, 50));
	out_json_set(o, "bare", b);
	json_median(o, "ratio", figures_median(r->ratio, plan->pairs));
	json_median(o, "ratio_p50", figures_median(r->ratio_p50, plan->pairs));
}

static void report_json(const struct bench_plan *plan, const struct bench_side *bare,
			const struct bench_result *r)
{
	static const char *const ops[] = {"load", "dump", "lookup", "mixed"};
	json_t *o = json_object(), *runs = json_array();

	out_json_set(o, "op", out_json_text(ops[plan->op]));
	out_json_count(o, "block_bytes", plan->block_bytes);
	out_json_count(o, "count", plan->count);
	out_json_count(o, "depth", plan->depth);
	out_json_count(o, "clients", plan->clients);
	out_json_count(o, "pairs", plan->pairs);
	out_json_set(o, "registered", json_boolean(!plan->small));
	out_json_number(o, "bytes_per_s", per_second(r->ours.bytes, &r->ours));
	out_json_number(o, "ops_per_s", per_second(r->ours.ops, &r->ours));
	out_json_number(o, "p50_us", percentile_us(&r->ours, 50));
	out_json_number(o, "p99_us", percentile_us(&r->ours, 99));
	out_json_number(o, "p999_us", percentile_us(&r->ours, 99.9));
	out_json_number(o, "cpu_s_per_gb", cpu_per_gb(&r->ours));
	if (!plan->turns)
		json_bare(o, plan, bare, r);
	for (uint64_t i = 0; i < plan->pairs; i++)
		json_array_append_new(runs, json_of(&r->runs[i]));
	out_json_set(o, "runs", runs);
	out_json(o);
}

static void line_of(const char *label, const char *ours, const char *bare)
{
	printf("%-18s%16s%16s\n", label, ours, bare);
}

static void line_time(const char *label, const struct bench_result *r, double percent)
{
	char ours[UNITS_TEXT_MAX], bare[UNITS_TEXT_MAX];

	line_of(label, units_format_time(histogram_percentile(&r->ours.latency, percent), ours),
		units_format_time(histogram_percentile(&r->bare.latency, percent), bare));
}

static void report_rates(const struct bench_plan *plan, const struct bench_result *r)
{
	char ours[OUT_TEXT_MAX], bare[OUT_TEXT_MAX];

	line_of("", "cairn", "bare");
	if (plan->op != BENCH_LOOKUP)
		line_of("throughput", out_rate(per_second(r->ours.bytes, &r->ours), ours),
			out_rate(per_second(r->bare.bytes, &r->bare), bare));
	line_of(plan->op == BENCH_LOOKUP ? "calls/s" : "blocks/s",
		out_thousands((uint64_t)per_second(r->ours.ops, &r->ours), ours),
		out_thousands((uint64_t)per_second(r->bare.ops, &r->bare), bare));
	line_time("latency p50", r, 50);
	line_time("        p99", r, 99);
	line_time("        p99.9", r, 99.9);
	if (plan->op == BENCH_LOOKUP)
		return;
	snprintf(ours, sizeof(ours), "%.3f", cpu_per_gb(&r->ours));
	snprintf(bare, sizeof(bare), "%.3f", cpu_per_gb(&r->bare));
	line_of("CPU s/GB", ours, bare);
}

void bench_report(const struct bench_plan *plan, const struct bench_side *bare,
		  const struct bench_result *r)
{
	static const char *const ops[] = {"loads", "dumps", "lookups", "loads and dumps"};
	struct figures_median ratio = figures_median(r->ratio, plan->pairs);
	struct figures_median p50 = figures_median(r->ratio_p50, plan->pairs);
	char size[UNITS_TEXT_MAX];

	if (plan->json) {
		report_json(plan, bare, r);
		return;
	}
	if (plan->op == BENCH_LOOKUP)
		printf("%s of %llu keys among %llu blocks, clients %llu, pairs %llu\n",
		       ops[plan->op], (unsigned long long)plan->count,
		       (unsigned long long)plan->fill, (unsigned long long)plan->clients,
		       (unsigned long long)plan->pairs);
	else
		printf("%s: %llu blocks of %s, depth %llu, clients %llu, pairs %llu\n",
		       ops[plan->op], (unsigned long long)plan->count,
		       units_format_size(plan->block_bytes, size), (unsigned long long)plan->depth,
		       (unsigned long long)plan->clients, (unsigned long long)plan->pairs);
	printf("bare: %s\n\n", bare->what);
	report_rates(plan, r);
	printf("\nrate, cairn / bare  %.3f  (90 %% interval of the median: %.3f to %.3f)%s\n",
	       ratio.median, ratio.low, ratio.high,
	       ratio.high - ratio.low > WIDTH_MAX * fmax(1, ratio.median) ? "  unresolved" : "");
	printf("p50, cairn / bare   %.3f  (%.3f to %.3f)\n", p50.median, p50.low, p50.high);
}
