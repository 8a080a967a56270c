/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bucket of tokens, each a byte: filled at a rate, up to a depth, and emptied by what is
 * moved, below nothing where that was more than thought. Pure; the owner serialises, and tells
 * the time.
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_RATE_MAX	  (UINT64_C(1) << 40) /* a second; so that nothing below wraps */
#define BUCKET_MOMENT_US  UINT64_C(10000000)  /* what is longer is taken in steps of it */
#define BUCKET_DEPTH_PART 8u		      /* of a second */

struct bucket {
	uint64_t rate; /* bytes a second; 0: no bound */
	int64_t depth, tokens;
	uint64_t at_ns; /* filled up to then */
	uint64_t part;	/* of a byte, in millionths: who asks often loses nothing */
};

static inline void bucket_init(struct bucket *bucket, uint64_t rate, uint64_t now_ns)
{
	bucket->rate = rate < BUCKET_RATE_MAX ? rate : BUCKET_RATE_MAX;
	bucket->depth = (int64_t)(bucket->rate / BUCKET_DEPTH_PART) + 1;
	bucket->tokens = bucket->depth;
	bucket->at_ns = now_ns;
	bucket->part = 0;
}

static inline void bucket_fill(struct bucket *bucket, uint64_t now_ns)
{
	uint64_t parts, us = now_ns > bucket->at_ns ? (now_ns - bucket->at_ns) / 1000u : 0;

	if (us >= BUCKET_MOMENT_US) {
		us = BUCKET_MOMENT_US;
		bucket->at_ns = now_ns;
	} else {
		bucket->at_ns += us * 1000u; /* the rest of a microsecond counts later */
	}
	parts = us * bucket->rate + bucket->part;
	bucket->part = parts % 1000000u;
	bucket->tokens += (int64_t)(parts / 1000000u);
	if (bucket->tokens > bucket->depth)
		bucket->tokens = bucket->depth;
}

/* Takes so many; gives them back where @bytes is negative. */
static inline void bucket_take(struct bucket *bucket, int64_t bytes, uint64_t now_ns)
{
	if (bucket->rate == 0)
		return;
	bucket_fill(bucket, now_ns);
	bucket->tokens -= bytes;
}

/* May something be moved? False: not before *ret_when_ns. */
static inline bool bucket_open(struct bucket *bucket, uint64_t now_ns, uint64_t *ret_when_ns)
{
	uint64_t lack, us;

	if (bucket->rate == 0)
		return true;
	bucket_fill(bucket, now_ns);
	if (bucket->tokens > 0)
		return true;
	lack = (uint64_t)(1 - bucket->tokens);
	us = lack / bucket->rate >= BUCKET_MOMENT_US / 1000000u
		     ? BUCKET_MOMENT_US
		     : (lack * 1000000u - bucket->part + bucket->rate - 1) / bucket->rate;
	*ret_when_ns = bucket->at_ns + us * 1000u;
	return false;
}

#endif
