/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "figures.h"
#include "out.h"

#define CONFIDENCE 0.90

static int compare_counts(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int compare_numbers(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void figures_sort(uint64_t *values, size_t count)
{
	if (count)
		qsort(values, count, sizeof(*values), compare_counts);
}

uint64_t figures_percentile(const uint64_t *sorted, size_t count, double share)
{
	double rank = ceil(share * (double)count);

	if (!count)
		return 0;
	if (rank < 1)
		rank = 1;
	return sorted[rank >= (double)count ? count - 1 : (size_t)rank - 1];
}

/* How many values to leave out at each end: the most that keeps the confidence. */
static size_t ranks_outside(size_t count)
{
	double term = exp2(-(double)count), below = 0; /* P(X = 0), P(X < k); X ~ Bin(count, 1/2) */
	size_t k = 0;

	/* from the k-th lowest to the k-th highest holds it unless X < k or X > count - k */
	while (2 * (k + 1) <= count && 1 - 2 * (below + term) >= CONFIDENCE) {
		below += term;
		term *= (double)(count - k) / (double)(k + 1);
		k++;
	}
	return k ? k - 1 : 0;
}

struct figures_median figures_median(const double *values, size_t count)
{
	struct figures_median result = {0};
	size_t outside = ranks_outside(count);
	double *sorted;

	if (!count)
		return result;
	sorted = malloc(count * sizeof(*sorted));
	if (!sorted)
		out_die("no memory for %zu figures", count);
	memcpy(sorted, values, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), compare_numbers);
	result.median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
	result.low = sorted[outside];
	result.high = sorted[count - 1 - outside];
	free(sorted);
	return result;
}

uint64_t figures_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double figures_cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
	       1e-6 * ((double)usage.ru_utime.tv_usec + (double)usage.ru_stime.tv_usec);
}

uint64_t figures_peak_rss_bytes(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_maxrss * 1024;
}

void figures_sleep_until(uint64_t when_ns)
{
	struct timespec when = {(time_t)(when_ns / 1000000000u), (long)(when_ns % 1000000000u)};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}
