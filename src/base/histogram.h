/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log-linear histogram of 64-bit values (nanoseconds, mostly) in fixed
 * memory: values below 256 are exact, larger ones fall into 128 classes for
 * each power of two, so what a percentile says is off by less than 0.4 %.
 * Values from 2^42 on (73 minutes in ns) count as the largest class; min, max
 * and sum stay exact. Pure; the owner serialises. Zeroed memory is an empty one.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_VALUE_BITS 42
#define HISTOGRAM_CLASS_BITS 7
#define HISTOGRAM_CLASSES                                                                          \
	((HISTOGRAM_VALUE_BITS - HISTOGRAM_CLASS_BITS + 1) << HISTOGRAM_CLASS_BITS)

struct histogram {
	uint64_t count;
	uint64_t sum;	   /* wraps after 2^64 */
	uint64_t min, max; /* of nothing: 0 */
	uint64_t classes[HISTOGRAM_CLASSES];
};

void histogram_record(struct histogram *histogram, uint64_t value);

/* Adds what @from holds to @histogram. */
void histogram_merge(struct histogram *histogram, const struct histogram *from);

/*
 * The value that @percent (0 to 100) of what was recorded does not exceed:
 * the smallest with at least that share at or below it. 0 of nothing.
 */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

/* 0 of nothing. */
double histogram_mean(const struct histogram *histogram);

#endif
