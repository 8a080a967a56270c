/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few atomics that are shared between threads outside the inbox (ring.h),
 * each with its memory order and its pair. Everything else has a lock or an owner.
 */
#ifndef BASE_ATOMIC_H
#define BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

/* Figures: relaxed, nothing is decided by them. */
static inline uint64_t counter_add(uint64_t *counter, uint64_t n) /* what it was */
{
	return __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* A hint that another thread may see late: relaxed. */
static inline void hint_set(uint64_t *hint, uint64_t value)
{
	__atomic_store_n(hint, value, __ATOMIC_RELAXED);
}

static inline uint64_t hint_get(const uint64_t *hint)
{
	return __atomic_load_n(hint, __ATOMIC_RELAXED);
}

/* Up once and for good; before raising it looks, so that many raisers do not share a write. */
static inline void mark_set(uint32_t *mark)
{
	if (!__atomic_load_n(mark, __ATOMIC_RELAXED))
		__atomic_store_n(mark, 1, __ATOMIC_RELAXED);
}

static inline bool mark_get(const uint32_t *mark)
{
	return __atomic_load_n(mark, __ATOMIC_RELAXED) != 0;
}

/*
 * A flag that many raise and one lowers before it looks at what they wrote.
 * Sequentially consistent both: who raises in vain is sure to be seen by the
 * look that follows the lowering.
 */
static inline bool flag_raise(uint32_t *flag) /* true: it was down */
{
	return __atomic_exchange_n(flag, 1, __ATOMIC_SEQ_CST) == 0;
}

static inline void flag_lower(uint32_t *flag)
{
	__atomic_store_n(flag, 0, __ATOMIC_SEQ_CST);
}

/* Without raising it. */
static inline bool flag_get(const uint32_t *flag)
{
	return __atomic_load_n(flag, __ATOMIC_SEQ_CST) != 0;
}

/*
 * One adds and then looks at a flag, the other lowers the flag and then looks at the
 * sum: sequentially consistent all four, so that one of the two sees the other.
 */
static inline void sum_add(uint64_t *sum, uint64_t n)
{
	__atomic_fetch_add(sum, n, __ATOMIC_SEQ_CST);
}

static inline uint64_t sum_read(const uint64_t *sum)
{
	return __atomic_load_n(sum, __ATOMIC_SEQ_CST);
}

/* How many of an array are made. Release by who made one more, acquire by who looks at them. */
static inline void made_set(uint32_t *made, uint32_t count)
{
	__atomic_store_n(made, count, __ATOMIC_RELEASE);
}

static inline uint32_t made_get(const uint32_t *made)
{
	return __atomic_load_n(made, __ATOMIC_ACQUIRE);
}

/* A stop sign. Release by who sets it, acquire by who obeys: all before it is seen. */
static inline void stop_set(uint32_t *stop)
{
	__atomic_store_n(stop, 1, __ATOMIC_RELEASE);
}

static inline bool stop_get(const uint32_t *stop)
{
	return __atomic_load_n(stop, __ATOMIC_ACQUIRE) != 0;
}

#endif
