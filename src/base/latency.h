/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long calls took, in logarithmic buckets that any thread adds to: two for each
 * power of two from 128 ns to 68.7 s. Bucket 0 has what took at most 128 ns, 1 and 2
 * up to 192 and 256 ns, 3 and 4 up to 384 and 512 ns and so on, each without what
 * the one before has; the last has the rest. A part of the counters page
 * (docs/format.md): the buckets change only with its version.
 */
#ifndef BASE_LATENCY_H
#define BASE_LATENCY_H

#include <assert.h>
#include <stdint.h>

#include "base/atomic.h"

#define LATENCY_BUCKETS	   60u
#define LATENCY_FIRST_BITS 7u /* bucket 0 ends at 2^7 ns */

struct latency {
	uint64_t sum_ns;
	uint64_t counts[LATENCY_BUCKETS];
};

static inline uint32_t latency_bucket(uint64_t ns)
{
	uint64_t below = ns - (ns > 0); /* a bound belongs to the bucket that it ends */
	uint32_t bits, bucket;

	if (below >> LATENCY_FIRST_BITS == 0)
		return 0;
	bits = 63u - (uint32_t)__builtin_clzll(below);
	bucket = 2 * (bits - LATENCY_FIRST_BITS) + 1 + ((uint32_t)(below >> (bits - 1)) & 1u);
	return bucket < LATENCY_BUCKETS - 1 ? bucket : LATENCY_BUCKETS - 1;
}

/* What took longer is in a later bucket. UINT64_MAX of the last. */
static inline uint64_t latency_bound_ns(uint32_t bucket)
{
	assert(bucket < LATENCY_BUCKETS);
	if (bucket == LATENCY_BUCKETS - 1)
		return UINT64_MAX;
	return (bucket % 2 ? UINT64_C(192) : UINT64_C(128)) << (bucket / 2);
}

/* @times calls that took so long. */
static inline void latency_add(struct latency *latency, uint64_t ns, uint64_t times)
{
	counter_add(&latency->sum_ns, ns * times);
	counter_add(&latency->counts[latency_bucket(ns)], times);
}

#endif
