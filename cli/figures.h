/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles, medians and their intervals, clocks: pure but for the clocks. */
#ifndef CLI_FIGURES_H
#define CLI_FIGURES_H

#include <stddef.h>
#include <stdint.h>

/* Sorts @values ascending. */
void figures_sort(uint64_t *values, size_t count);

/*
 * The value at or below which @share (0 to 1) of the sorted values lie: the
 * nearest-rank percentile. 0 when there are none.
 */
uint64_t figures_percentile(const uint64_t *sorted, size_t count, double share);

/*
 * The median of @values and its 90 % interval from the binomial distribution
 * of ranks: the narrowest pair of order statistics, equally far from both
 * ends, that holds the true median with probability 0.90 or more. Below five
 * values none does: the interval is then from the least to the greatest.
 */
struct figures_median {
	double median, low, high;
};
struct figures_median figures_median(const double *values, size_t count);

/* CLOCK_MONOTONIC in nanoseconds; CPU time of this process in seconds; its peak memory. */
uint64_t figures_now_ns(void);
double figures_cpu_seconds(void);
uint64_t figures_peak_rss_bytes(void);

/* Sleeps until CLOCK_MONOTONIC shows @when_ns; signals end it early. */
void figures_sleep_until(uint64_t when_ns);

#endif
