/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/fill.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/thread.h"

#define STEP (128u << 10) /* elements: some huge pages of each array */
#define PAGE 4096u

struct fill {
	const struct sys *sys;
	struct fill_range ranges[FILL_RANGES_MAX];
	uint32_t range_count;
	uint64_t count;
	struct fill_range first; /* of bytes */
	size_t first_bytes;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t told;
	uint64_t came; /* under the lock */
	bool over;     /* ... */
};

/* Elements [from, to) of an array, and what they share pages with. False: not on this kernel. */
static bool populate(const struct fill *fill, const struct fill_range *range, uint64_t from,
		     uint64_t to)
{
	uintptr_t base = (uintptr_t)range->base;
	uintptr_t begin = (base + from * range->each) / PAGE * PAGE;
	uintptr_t end = (base + to * range->each + PAGE - 1) / PAGE * PAGE;

	if (begin < base)
		begin = (base + PAGE - 1) / PAGE * PAGE;
	return end <= begin ||
	       fill->sys->madvise((void *)begin, end - begin, MADV_POPULATE_WRITE) == 0;
}

/* False: no more is wanted. */
static bool wait_for(struct fill *fill, uint64_t at)
{
	bool wanted;

	pthread_mutex_lock(&fill->lock);
	while (!fill->over && at >= fill->came + FILL_AHEAD)
		pthread_cond_wait(&fill->told, &fill->lock);
	wanted = !fill->over;
	pthread_mutex_unlock(&fill->lock);
	return wanted;
}

static void *run(void *context)
{
	struct fill *fill = context;

	if (!populate(fill, &fill->first, 0, fill->first_bytes))
		return NULL;
	for (uint64_t at = 0; at < fill->count && wait_for(fill, at); at += STEP) {
		uint64_t to = at + STEP < fill->count ? at + STEP : fill->count;

		for (uint32_t i = 0; i < fill->range_count; i++)
			if (!populate(fill, &fill->ranges[i], at, to))
				return NULL;
	}
	return NULL;
}

struct fill *fill_begin(const struct sys *sys, const struct fill_range *ranges,
			uint32_t range_count, uint64_t count, void *first, size_t first_bytes)
{
	struct fill *fill = sys_zalloc(sys, 64, sizeof(*fill));

	assert(range_count <= FILL_RANGES_MAX);
	if (!fill)
		return NULL;
	fill->sys = sys;
	fill->count = count;
	fill->first = (struct fill_range){first, 1};
	fill->first_bytes = first_bytes;
	fill->range_count = range_count;
	memcpy(fill->ranges, ranges, range_count * sizeof(*ranges));
	pthread_mutex_init(&fill->lock, NULL);
	pthread_cond_init(&fill->told, NULL);
	if (thread_start(&fill->thread, run, fill) == 0)
		return fill;
	pthread_mutex_destroy(&fill->lock);
	pthread_cond_destroy(&fill->told);
	sys->free(fill);
	return NULL;
}

void fill_told(struct fill *fill, uint64_t count)
{
	pthread_mutex_lock(&fill->lock);
	fill->came = count;
	pthread_cond_signal(&fill->told);
	pthread_mutex_unlock(&fill->lock);
}

void fill_end(struct fill *fill)
{
	if (!fill)
		return;
	pthread_mutex_lock(&fill->lock);
	fill->over = true;
	pthread_cond_signal(&fill->told);
	pthread_mutex_unlock(&fill->lock);
	pthread_join(fill->thread, NULL);
	pthread_mutex_destroy(&fill->lock);
	pthread_cond_destroy(&fill->told);
	fill->sys->free(fill);
}
