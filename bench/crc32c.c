/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c: the two ways to a CRC32C, ISA-L and base/crc32c_fold.h, in turns over 64 KiB that stay in
 * the processor's caches; the best of 1000 turns each, as JSON.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <isa-l/crc.h>

#include "base/crc32c_fold.h"

#define BYTES 65536u
#define TURNS 1000u

static uint8_t data[BYTES];

static uint32_t by_isal(void)
{
	return crc32_iscsi(data, BYTES, UINT32_MAX);
}

static uint32_t by_fold(void)
{
	return crc32c_fold(UINT32_MAX, data, BYTES);
}

/* Raises @best to what this turn took. */
static void turn(uint32_t (*sum)(void), uint32_t expected, double *best)
{
	struct timespec from, to;
	double gb_per_s;
	uint32_t crc;

	clock_gettime(CLOCK_MONOTONIC, &from);
	crc = sum();
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (crc != expected) {
		fprintf(stderr, "bench/crc32c: a sum is wrong\n");
		exit(1);
	}
	gb_per_s = BYTES /
		   ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec));
	if (gb_per_s > *best)
		*best = gb_per_s;
}

int main(void)
{
	double isal = 0, fold = 0;
	uint32_t expected;

	memset(data, 0xa5, sizeof(data));
	expected = by_isal();
	for (uint32_t i = 0; i < TURNS; i++) {
		turn(by_isal, expected, &isal);
		if (crc32c_fold_can())
			turn(by_fold, expected, &fold);
	}
	printf("{\"isal_gb_per_s\": %.1f, \"fold_gb_per_s\": %.1f, \"taken\": \"%s\"}\n", isal,
	       fold, crc32c_fold_faster() ? "fold" : "isal");
	return 0;
}
