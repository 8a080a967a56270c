/* SPDX-License-Identifier: Apache-2.0 */
/* That a cache goes on, whatever one of its clients has, holds or leaves behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/atomic.h"
#include "block_shop.h"
#include "stages/cache/state.h"

#define LENGTH 20000u
#define SIZES  "size=16MiB, entries=2000"
#define BLOCKS 1000u /* more than the memory has room for */
#define WAIT_S 60u   /* for what comes soon */
#define DEAD   7u    /* a client that nobody is */

/* ---- the dead -------------------------------------------------------------------------- */

struct view {
	uint8_t *file;
	size_t bytes;
	struct cache_header *header;
	struct cache_client *clients;
	struct cache_chunk *chunks;
};

static struct view view_open(void)
{
	struct view view = {0};

	view.file = map_file(region, &view.bytes);
	view.header = (struct cache_header *)(void *)view.file;
	view.clients = (struct cache_client *)(void *)(view.file + view.header->clients_at);
	view.chunks = (struct cache_chunk *)(void *)(view.file + view.header->chunks_at);
	return view;
}

static uint32_t chunks_in(const struct view *view, enum chunk_phase phase)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < view->header->chunks; i++)
		count += chunk_phase(word_get(&view->chunks[i].state)) == phase;
	return count;
}

/* As a client leaves it that is killed while a chunk of its gets memory. */
static void die_backing(struct view *view)
{
	struct cache_chunk *last = &view->chunks[view->header->chunks - 1];
	uint64_t state;

	while (chunks_in(view, CHUNK_FREE) < view->header->chunks)
		usleep(1000);
	state = word_get(&last->state);
	half_put(&view->clients[DEAD].state, CLIENT_LIVE);
	assert_true(word_cas(&last->state, state, chunk_next(state, CHUNK_BACKING, DEAD + 1)));
	half_add(&view->header->backed, UINT32_MAX);
}

/*
 * Guards that memory which a dead one was to bring is not waited for: dumps and prefetches went by
 * the memory, for good and in every process, where that was the last that was to come.
 */
static void dead_while_backing(void **state)
{
	uint32_t number = 0;
	struct view view;
	struct shop shop;

	(void)state;
	shop_open(&shop, SIZES, " | null(size=64MiB)", LENGTH);
	view = view_open();
	die_backing(&view);
	for (; number < BLOCKS; number++)
		assert_int_equal(dump(&shop, number, LENGTH), 0);
	for (uint32_t ms = 0; counted(&shop, "evicted_blocks") == 0; ms++, number++) {
		assert_true(ms < WAIT_S * 1000);
		assert_int_equal(dump(&shop, number, LENGTH), 0);
		usleep(1000);
	}
	assert_int_equal(dump(&shop, number, LENGTH), 0);
	assert_true(in_memory(&shop, number));
	assert_int_equal(load(&shop, number, LENGTH), 0);
	assert_int_equal(counted(&shop, "repairs"), 1);
	assert_int_equal(chunks_in(&view, CHUNK_BACKING), 0);
	munmap(view.file, view.bytes);
	shop_close(&shop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(dead_while_backing),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
