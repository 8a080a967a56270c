/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c [PAIRS]: the two ways to a CRC32C, ISA-L and base/crc32c_fold.h, in turns over 64 KiB that
 * stay in the processor's caches. PAIRS turns (9), each the best of 100; medians as JSON.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <isa-l/crc.h>

#include "base/crc32c_fold.h"

#define BYTES	  65536u
#define ROUNDS	  100u
#define PAIRS_MAX 99u

static uint8_t data[BYTES];

static uint32_t by_isal(void)
{
	return crc32_iscsi(data, BYTES, UINT32_MAX);
}

static uint32_t by_fold(void)
{
	return crc32c_fold(UINT32_MAX, data, BYTES);
}

static double best_gb_per_s(uint32_t (*sum)(void), uint32_t expected)
{
	struct timespec from, to;
	double best = 0;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		double gb_per_s;
		uint32_t crc;

		clock_gettime(CLOCK_MONOTONIC, &from);
		crc = sum();
		clock_gettime(CLOCK_MONOTONIC, &to);
		if (crc != expected) {
			fprintf(stderr, "bench/crc32c: a sum is wrong\n");
			exit(1);
		}
		gb_per_s = BYTES / ((double)(to.tv_sec - from.tv_sec) * 1e9 +
				    (double)(to.tv_nsec - from.tv_nsec));
		best = gb_per_s > best ? gb_per_s : best;
	}
	return best;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	uint32_t pairs = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 9, expected;
	double isal[PAIRS_MAX], fold[PAIRS_MAX];

	if (pairs < 1 || pairs > PAIRS_MAX) {
		fprintf(stderr, "usage: crc32c [PAIRS], 1 to %u\n", PAIRS_MAX);
		return 2;
	}
	memset(data, 0xa5, sizeof(data));
	expected = by_isal();
	for (uint32_t i = 0; i < pairs; i++) {
		isal[i] = best_gb_per_s(by_isal, expected);
		fold[i] = crc32c_fold_can() ? best_gb_per_s(by_fold, expected) : 0;
	}
	qsort(isal, pairs, sizeof(*isal), ascending);
	qsort(fold, pairs, sizeof(*fold), ascending);
	printf("{\"isal_gb_per_s\": %.1f, \"fold_gb_per_s\": %.1f, \"taken\": \"%s\"}\n",
	       isal[pairs / 2], fold[pairs / 2], crc32c_fold_faster() ? "fold" : "isal");
	return 0;
}
