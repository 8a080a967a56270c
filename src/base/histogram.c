/* SPDX-License-Identifier: Apache-2.0 */
#include "base/histogram.h"

#include <assert.h>

#define CLASSES_PER_OCTAVE (1u << HISTOGRAM_CLASS_BITS)

/*
 * Octave 0 has the values below 128 and octave 1 those below 256, one class
 * each; octave n those of 7 + n bits, in steps of 2^(n - 1).
 */
static uint32_t class_of(uint64_t value)
{
	uint32_t bits, shift;

	if (value >> HISTOGRAM_VALUE_BITS)
		return HISTOGRAM_CLASSES - 1;
	if (value < 2 * CLASSES_PER_OCTAVE)
		return (uint32_t)value;
	bits = 64 - (uint32_t)__builtin_clzll(value);
	shift = bits - HISTOGRAM_CLASS_BITS - 1;
	return shift * CLASSES_PER_OCTAVE + (uint32_t)(value >> shift);
}

/* The middle of a class. */
static uint64_t value_of(uint32_t class)
{
	uint32_t shift;

	if (class < 2 * CLASSES_PER_OCTAVE)
		return class;
	shift = class / CLASSES_PER_OCTAVE - 1;
	return ((uint64_t)(class - shift * CLASSES_PER_OCTAVE) << shift) + (1ull << shift) / 2;
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
	if (!histogram->count || value < histogram->min)
		histogram->min = value;
	if (value > histogram->max)
		histogram->max = value;
	histogram->count++;
	histogram->sum += value;
	histogram->classes[class_of(value)]++;
}

void histogram_merge(struct histogram *histogram, const struct histogram *from)
{
	assert(histogram != from);
	if (!from->count)
		return;
	if (!histogram->count || from->min < histogram->min)
		histogram->min = from->min;
	if (from->max > histogram->max)
		histogram->max = from->max;
	histogram->count += from->count;
	histogram->sum += from->sum;
	for (uint32_t i = 0; i < HISTOGRAM_CLASSES; i++)
		histogram->classes[i] += from->classes[i];
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
	double share = percent / 100.0 * (double)histogram->count;
	uint64_t rank = 0, seen = 0, value;
	uint32_t class = 0;

	if (!histogram->count)
		return 0;
	if (share >= (double)histogram->count)
		return histogram->max;
	if (share > 0)
		rank = (uint64_t)share;
	/* Rounded up: at least that share; and at least one. */
	if ((double)rank < share || rank == 0)
		rank++;
	if (rank == 1)
		return histogram->min;
	for (; class < HISTOGRAM_CLASSES; class ++) {
		seen += histogram->classes[class];
		if (seen >= rank)
			break;
	}
	assert(class < HISTOGRAM_CLASSES);
	/* Whatever fell beyond the classes is known by its largest only. */
	value = class == HISTOGRAM_CLASSES - 1 ? histogram->max : value_of(class);
	if (value < histogram->min)
		return histogram->min;
	return value < histogram->max ? value : histogram->max;
}

double histogram_mean(const struct histogram *histogram)
{
	return histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
}
