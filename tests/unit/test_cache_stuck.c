/* SPDX-License-Identifier: Apache-2.0 */
/* That a cache goes on, whatever one of its clients has, holds or leaves behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "core/store.h" /* before cmocka.h, which has a macro fail() */

#include <cmocka.h>

#include <errno.h>

#include "base/atomic.h"
#include "block_shop.h"
#include "stages/cache/state.h"
#include "sys/sys.h"

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

/* All memory is there. */
static void await_chunks(const struct view *view)
{
	for (uint32_t ms = 0; chunks_in(view, CHUNK_BARE) + chunks_in(view, CHUNK_BACKING) > 0;
	     ms++) {
		assert_true(ms < WAIT_S * 1000);
		usleep(1000);
	}
}

/* As a client leaves it that is killed while a chunk of its gets memory. */
static void die_backing(struct view *view)
{
	struct cache_chunk *last = &view->chunks[view->header->chunks - 1];
	uint64_t state;

	await_chunks(view);
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

/* ---- records ----------------------------------------------------------------------------- */

#define HELD 20u

/* Looked up and held again and again, until no more counts. How many holds. */
static uint32_t hold_all(const struct shop *shop, uint64_t *ret_holds)
{
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_found found[HELD];
	struct cairn_key keys[HELD];
	uint32_t count = 0;

	for (uint32_t i = 0; i < HELD; i++)
		keys[i] = key_of(shop, i);
	while (count < CAIRN_HOLDS_MAX &&
	       cairn_lookup(shop->ns, keys, HELD, found, &opts, &ret_holds[count]) > 0)
		count++;
	assert_true(count < CAIRN_HOLDS_MAX);
	return count;
}

/*
 * Guards that holds and pins leave records to ios: else what is held is loaded as if it were not
 * there, and nothing is dumped, with nearly all of the memory free.
 */
static void held_again_and_again(void **state)
{
	static uint64_t holds[CAIRN_HOLDS_MAX];
	struct cairn_reserved reserved;
	struct cairn_pinned pinned;
	struct cairn_xfer shape;
	struct cairn_key key;
	struct shop shop;
	uint32_t count;

	(void)state;
	/* Loads are copied by reactors. */
	shop_open(&shop, SIZES ", verify=hit", "", LENGTH);
	for (uint32_t i = 0; i < HELD; i++)
		assert_int_equal(dump(&shop, i, LENGTH), 0);
	count = hold_all(&shop, holds);
	key = key_of(&shop, 0);
	shape = xfer_of(&shop, 2 * HELD, NULL, LENGTH);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -EAGAIN);
	assert_int_equal(cairn_reserve(shop.ns, &shape, &reserved), -EAGAIN);
	for (uint32_t i = 0; i < HELD; i++) {
		assert_int_equal(load(&shop, i, LENGTH), 0);
		assert_int_equal(dump_until(&shop, HELD + i, LENGTH, WAIT_S * UINT64_C(1000000000)),
				 0);
		assert_int_equal(load(&shop, HELD + i, LENGTH), 0);
	}
	assert_int_equal(cairn_hold_release(shop.store, holds[0]), 0);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), 0);
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);
	assert_int_equal(cairn_reserve(shop.ns, &shape, &reserved), 0);
	assert_int_equal(cairn_abort(shop.store, reserved.base), 0);
	for (uint32_t i = 1; i < count; i++)
		assert_int_equal(cairn_hold_release(shop.store, holds[i]), 0);
	shop_close(&shop);
}

#define DUMPS 700u

/* Of the first client, that are set. */
static uint32_t records_used(const struct view *view)
{
	const uint64_t *pins = (const uint64_t *)(void *)(view->file + view->header->pins_at);
	uint32_t count = 0;

	for (uint32_t i = 0; i < view->header->pins_max; i++)
		count += word_get(&pins[i]) != 0;
	return count;
}

static bool has_room(const struct view *view)
{
	uint32_t slots = 0;

	for (uint32_t i = 0; i < view->header->chunks; i++)
		slots += half_get(&view->chunks[i].free_slots);
	return slots > 0 || chunks_in(view, CHUNK_FREE) > 0;
}

/* Until each of the memory's slots has a block that is pinned. How many. */
static uint32_t pin_all(const struct shop *shop, const struct view *view, uint64_t *ret_pins)
{
	struct cairn_pinned pinned;
	uint32_t count = 0;

	await_chunks(view);
	for (; has_room(view); count++) {
		struct cairn_key key = key_of(shop, count);

		assert_true(count < BLOCKS);
		assert_int_equal(dump(shop, count, LENGTH), 0);
		assert_int_equal(cairn_pin(shop->ns, &key, 0, &pinned), 0);
		ret_pins[count] = pinned.pin;
	}
	assert_true(count > HELD);
	return count;
}

/* Dumps for which there is no room, of one memory: they wait. */
static void dump_many(const struct shop *shop, uint8_t *memory, uint64_t *ret_tasks)
{
	static struct cairn_xfer xfers[DUMPS];
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = CAIRN_DEADLINE_NONE};

	for (uint32_t i = 0; i < DUMPS; i++) {
		xfers[i] = xfer_of(shop, 2 * BLOCKS + i, memory, LENGTH);
		assert_int_equal(cairn_dump(shop->ns, &xfers[i], 1, &opts, &ret_tasks[i]), 0);
	}
}

static void wait_for_all(const struct shop *shop, const uint64_t *tasks)
{
	for (uint32_t i = 0; i < DUMPS; i++)
		assert_int_equal(
			cairn_task_wait(shop->store, tasks[i], 0, WAIT_S * UINT64_C(1000000000)),
			0);
}

/*
 * Guards that a load which finds no record waits for one, where all that ios have are those of
 * dumps that wait for room: the block is there, and is not told to be missing.
 */
static void no_record_left(void **state)
{
	static uint64_t pins[BLOCKS], holds[CAIRN_HOLDS_MAX], tasks[DUMPS];
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = CAIRN_DEADLINE_NONE};
	uint8_t *memory = calloc(2, LENGTH);
	struct cairn_error error = {0};
	struct cairn_xfer xfer;
	char spec[SPEC_MAX];
	struct view view;
	struct shop shop;
	uint32_t pinned, held;
	uint64_t task;

	(void)state;
	assert_non_null(memory);
	snprintf(spec, sizeof(spec), "store(reactors=1, ios=1024) | cache(%s, name=%s)", SIZES,
		 region);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), 0);
	view = view_open();
	pinned = pin_all(&shop, &view, pins);
	held = hold_all(&shop, holds);
	dump_many(&shop, memory, tasks);
	for (uint32_t ms = 0; records_used(&view) < view.header->pins_max; ms++) {
		assert_true(ms < WAIT_S * 1000);
		usleep(1000);
	}
	xfer = xfer_of(&shop, 1, memory + LENGTH, LENGTH);
	assert_int_equal(cairn_load(shop.ns, &xfer, 1, &opts, &task), 0);
	assert_int_equal(cairn_task_wait(shop.store, task, 0, 100000000u), -ETIMEDOUT);
	for (uint32_t i = 0; i < pinned; i++)
		assert_int_equal(cairn_unpin(shop.store, pins[i]), 0);
	for (uint32_t i = 0; i < held; i++)
		assert_int_equal(cairn_hold_release(shop.store, holds[i]), 0);
	assert_int_equal(cairn_task_wait(shop.store, task, 0, WAIT_S * UINT64_C(1000000000)), 0);
	/* It may have been evicted since, for one of the dumps. */
	assert_true(xfer.result.status == 0 || xfer.result.status == -ENOENT);
	if (xfer.result.status == 0)
		assert_true(is_content(&shop, 1, memory + LENGTH, LENGTH));
	wait_for_all(&shop, tasks);
	munmap(view.file, view.bytes);
	shop_close(&shop);
	free(memory);
}

/* ---- dumps that nobody waits for -------------------------------------------------------- */

/*
 * Guards that a dump which waits for room, and has no deadline, ends when it is cancelled: else its
 * memory is never the caller's again, all that comes after waits behind it, and the store cannot
 * be closed.
 */
static void cancelled_for_want_of_room(void **state)
{
	static uint64_t pins[BLOCKS], tasks[DUMPS];
	struct cairn_task_opts opts = {.size = sizeof(opts),
				       .deadline_ns = WAIT_S * UINT64_C(1000000000)};
	uint8_t *memory = calloc(1, LENGTH);
	struct cairn_result result = {0};
	struct cairn_key key;
	struct view view;
	struct shop shop;
	uint32_t pinned;

	(void)state;
	assert_non_null(memory);
	shop_open(&shop, SIZES, "", LENGTH);
	view = view_open();
	pinned = pin_all(&shop, &view, pins);
	dump_many(&shop, memory, tasks);
	/* Each has an entry: the first are under way. */
	for (uint32_t ms = 0; records_used(&view) == pinned; ms++) {
		assert_true(ms < WAIT_S * 1000);
		usleep(1000);
	}
	for (uint32_t i = 0; i < DUMPS; i++)
		assert_int_equal(cairn_task_cancel(shop.store, tasks[i]), 0);
	wait_for_all(&shop, tasks);
	assert_int_equal(records_used(&view), pinned);
	key = key_of(&shop, 1);
	assert_int_equal(cairn_remove(shop.ns, &key, 1, &result, &opts, NULL), 0);
	for (uint32_t i = 0; i < pinned; i++)
		assert_int_equal(cairn_unpin(shop.store, pins[i]), 0);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	munmap(view.file, view.bytes);
	shop_close(&shop);
	free(memory);
}

/* ---- work without an end ----------------------------------------------------------------- */

static struct view spun;
static uint32_t spinning;

/* A chunk that is there wants its memory again. */
static void make_bare(struct cache_chunk *chunk)
{
	uint64_t state = word_get(&chunk->state);

	if (chunk_phase(state) == CHUNK_FREE &&
	    word_cas(&chunk->state, state, chunk_next(state, CHUNK_BARE, 0)))
		half_add(&spun.header->backed, UINT32_MAX);
}

/* Of a chunk that gets memory: while it spins there is always one more that is to have some. */
static int spin(void *address, size_t bytes, int advice)
{
	int ret = sys_native.madvise(address, bytes, advice);

	if (advice == MADV_POPULATE_WRITE && half_get(&spinning))
		for (uint32_t i = 0; i < spun.header->chunks; i++)
			make_bare(&spun.chunks[i]);
	return ret;
}

/*
 * Guards that what could not be written below at once is tried again while a large region gets
 * its memory, which may take minutes, and not after that.
 */
static void retries_beside_work(void **state)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = LENGTH};
	static struct sys sys; /* a test that fails leaves the store open */
	struct cairn_error error = {0};
	char spec[SPEC_MAX];
	struct shop shop;

	(void)state;
	sys = sys_native;
	sys.madvise = spin;
	snprintf(spec, sizeof(spec),
		 "cache(%s, write=back, name=%s) | fault(rule=\"dump:EIO:#1\") | null(size=64MiB)",
		 SIZES, region);
	if (store_open(&sys, spec, NULL, &shop.store, &error) < 0 ||
	    cairn_namespace_open(shop.store, &desc, &shop.ns, &error) < 0)
		fail_msg("%s", error.text);
	spun = view_open();
	await_chunks(&spun);
	half_put(&spinning, 1);
	make_bare(&spun.chunks[spun.header->chunks - 1]);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	assert_int_equal(counted(&shop, "held_back_blocks"), 1);
	for (uint32_t ms = 0; counted(&shop, "flushed_blocks") == 0; ms++) {
		assert_true(ms < WAIT_S * 1000);
		usleep(1000);
	}
	half_put(&spinning, 0);
	await_chunks(&spun);
	shop_close(&shop);
	munmap(spun.file, spun.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(dead_while_backing),	  TEST(held_again_and_again), TEST(no_record_left),
		TEST(cancelled_for_want_of_room), TEST(retries_beside_work),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
