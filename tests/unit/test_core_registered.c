/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: what of an io lies in it, and when it is free again. */
#include "core_store.h"

#include "core/memory.h"

static struct spy *spy;

static struct memory_map *map_of(const struct memory_range *ranges, uint32_t count)
{
	size_t bytes = sizeof(struct memory_map) + count * sizeof(*ranges);
	struct memory_map *map = calloc(1, bytes);

	assert_non_null(map);
	map->count = count;
	memcpy(map->ranges, ranges, count * sizeof(*ranges));
	return map;
}

static bool has(const struct memory_map *map, uintptr_t at, uint64_t bytes)
{
	return memory_has(map, (const void *)at, bytes);
}

static void a_range_is_found_by_what_lies_in_it(void **state)
{
	static const struct memory_range ranges[] = {{100, 50}, {150, 10}, {1000, 1}, {5000, 900}};
	struct memory_map *map = map_of(ranges, 4);

	(void)state;
	assert_false(memory_has(NULL, (const void *)100, 1));
	for (uintptr_t at = 90; at < 6000; at++) {
		bool in = false;

		for (size_t i = 0; i < 4; i++)
			in |= at >= ranges[i].base && at < ranges[i].base + ranges[i].bytes;
		assert_int_equal(has(map, at, 1), in);
	}
	assert_true(has(map, 100, 50));
	assert_false(has(map, 100, 51)); /* two that adjoin are not one */
	assert_false(has(map, 99, 2));
	assert_true(has(map, 5899, 1));
	assert_false(has(map, 5899, UINT64_MAX));
	map->count = 0;
	assert_false(has(map, 100, 1));
	free(map);
}

static int reg(void *base, size_t bytes)
{
	return cairn_memory_register(f.store, base, bytes);
}

static void ranges_may_not_meet(void **state)
{
	uint8_t *base = f.back[0];

	(void)state;
	open_store("null(size=16MiB)", NULL);
	assert_int_equal(reg(NULL, 1), -EINVAL);
	assert_int_equal(reg(base, 0), -EINVAL);
	assert_int_equal(reg(base, SIZE_MAX), -EINVAL);
	assert_int_equal(cairn_memory_register(NULL, base, 1), -EINVAL);
	assert_int_equal(cairn_memory_unregister(NULL, base, 0), -EINVAL);
	assert_int_equal(cairn_memory_unregister(f.store, base, 0), -ENOENT);
	assert_int_equal(reg(base + 100, 100), 0);
	assert_int_equal(reg(base + 199, 1), -EINVAL);
	assert_int_equal(reg(base + 50, 51), -EINVAL);
	assert_int_equal(reg(base, 1000), -EINVAL);
	assert_int_equal(reg(base + 120, 10), -EINVAL);
	assert_int_equal(reg(base + 200, 5), 0);
	assert_int_equal(reg(base + 50, 50), 0);
	assert_int_equal(cairn_memory_unregister(f.store, base + 101, 0), -ENOENT);
	assert_int_equal(cairn_memory_unregister(f.store, base + 100, 0), 0);
	assert_int_equal(cairn_memory_unregister(f.store, base + 100, 0), -ENOENT);
	assert_int_equal(reg(base + 120, 10), 0);
	close_store(); /* what is still registered goes with it */
}

/* Of the io that passed last. */
static bool aimable(void)
{
	return spy->records[spy->count - 1].flags & CAIRN_IO_AIMABLE;
}

static int load(struct cairn_xfer *xfer, uint32_t flags)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = flags};

	return cairn_load(f.ns, xfer, 1, &opts, NULL);
}

static void ios_in_registered_memory_say_so(void **state)
{
	struct cairn_segment halves[2] = {{f.back[1], SHARD / 2}, {f.back[3], SHARD / 2}};
	struct cairn_xfer xfer;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=16MiB)");
	fill(&xfer, f.memory, 1, 1);
	assert_int_equal(cairn_dump(f.ns, &xfer, 1, NULL, NULL), 0);
	assert_false(aimable());
	fill(&xfer, f.back, 1, 1);
	assert_int_equal(load(&xfer, 0), 0);
	assert_false(aimable());
	assert_int_equal(load(&xfer, CAIRN_TASK_DETACH), 0);
	assert_true(aimable()); /* the host's own memory */
	assert_int_equal(reg(f.back[1], SHARD), 0);
	assert_int_equal(load(&xfer, 0), 0);
	assert_true(aimable());
	memset(&xfer.stride, 0, sizeof(xfer.stride));
	xfer.segments = halves;
	xfer.segment_count = 2;
	assert_int_equal(load(&xfer, 0), 0);
	assert_false(aimable()); /* a half of it is not */
	assert_int_equal(reg(f.back[3], SHARD), 0);
	assert_int_equal(load(&xfer, 0), 0);
	assert_true(aimable());
	assert_int_equal(cairn_memory_unregister(f.store, f.back[1], MS), 0);
	assert_int_equal(load(&xfer, 0), 0);
	assert_false(aimable());
	assert_memory_equal(f.back[1], f.memory[1], SHARD / 2);
	assert_memory_equal(f.back[3], f.memory[1] + SHARD / 2, SHARD / 2);
	close_store();
}

/*
 * A slot of the cache's is not the caller's memory: on small pages, what fills it goes by the
 * tier's own. Of huge ones the cache says that they are good: test_cache_fills.c.
 */
static void what_a_stage_puts_in_its_place_is_not(void **state)
{
	struct cairn_xfer xfer;
	uint32_t passed;

	(void)state;
	spy = open_spied("store(reactors=1) | cache(size=8MiB, write=around, hugepages=no) | "
			 "spy() | null(size=16MiB)");
	fill(&xfer, f.memory, 1, 1);
	assert_int_equal(cairn_dump(f.ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(reg(f.back[1], SHARD), 0);
	/* Of half a shard, for which the cache asks below for all of it, into a slot. */
	fill(&xfer, f.back, 1, 1);
	xfer.length /= 2;
	xfer.stride.run = xfer.length;
	passed = spy->count;
	assert_int_equal(load(&xfer, 0), 0);
	assert_int_equal(spy->count, passed + 1); /* the cache had it not */
	assert_false(aimable());
	assert_memory_equal(f.back[1], f.memory[1], SHARD / 2);
	close_store();
}

/* -ENOENT: the task had ended before this call began. */
static void *unregister(void *base)
{
	int ret = cairn_memory_unregister(f.store, base, UINT64_MAX);

	return ret == 0 || ret == -ENOENT ? base : NULL;
}

static void it_is_free_when_tasks_before_have_ended(void **state)
{
	struct cairn_xfer xfers[2];
	uint64_t tasks[2];
	pthread_t thread;
	void *base;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=16MiB)");
	fill(xfers, f.memory, 0, 2);
	assert_int_equal(cairn_dump(f.ns, xfers, 2, NULL, NULL), 0);
	assert_int_equal(reg(f.back[0], SHARD), 0);
	fill(xfers, f.back, 0, 2);
	spy_set(spy, &spy->keep, true);
	assert_int_equal(cairn_load(f.ns, &xfers[0], 1, NULL, &tasks[0]), 0);
	spy_await(spy, &spy->kept_count, 1);
	assert_int_equal(cairn_memory_unregister(f.store, f.back[0], 0), -ETIMEDOUT);
	assert_int_equal(cairn_memory_unregister(f.store, f.back[0], MS), -ETIMEDOUT);
	/* A task that came after it has nothing to do with it. */
	assert_int_equal(cairn_load(f.ns, &xfers[1], 1, NULL, &tasks[1]), 0);
	spy_await(spy, &spy->kept_count, 2);
	assert_int_equal(pthread_create(&thread, NULL, unregister, f.back[0]), 0);
	spy_let_go(spy, &f.keys[0]);
	assert_int_equal(pthread_join(thread, &base), 0);
	assert_ptr_equal(base, f.back[0]);
	/* It has ended; that it is told may take a turn of the reactor more. */
	assert_int_equal(cairn_task_wait(f.store, tasks[0], 0, UINT64_MAX), 0);
	assert_int_equal(cairn_task_wait(f.store, tasks[1], 0, 0), -ETIMEDOUT);
	assert_int_equal(cairn_memory_unregister(f.store, f.back[0], 0), -ENOENT);
	spy_set(spy, &spy->keep, false);
	spy_let_go(spy, NULL);
	assert_int_equal(cairn_task_wait(f.store, tasks[1], 0, UINT64_MAX), 0);
	close_store();
}

/* At a deadline the result comes, and the memory is not free. */
static void a_result_alone_does_not_free_it(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = MS};
	struct cairn_xfer xfer;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=16MiB)");
	fill(&xfer, f.memory, 0, 1);
	assert_int_equal(cairn_dump(f.ns, &xfer, 1, NULL, NULL), 0);
	assert_int_equal(reg(f.back[0], SHARD), 0);
	fill(&xfer, f.back, 0, 1);
	spy_set(spy, &spy->keep, true);
	assert_int_equal(cairn_load(f.ns, &xfer, 1, &opts, NULL), -ETIMEDOUT);
	assert_int_equal(cairn_memory_unregister(f.store, f.back[0], MS), -ETIMEDOUT);
	spy_set(spy, &spy->keep, false);
	spy_let_go(spy, NULL);
	assert_int_equal(cairn_store_quiesce(f.store, UINT64_MAX), 0);
	assert_int_equal(cairn_memory_unregister(f.store, f.back[0], UINT64_MAX), -ENOENT);
	close_store();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_range_is_found_by_what_lies_in_it),
		cmocka_unit_test(ranges_may_not_meet),
		cmocka_unit_test(ios_in_registered_memory_say_so),
		cmocka_unit_test(what_a_stage_puts_in_its_place_is_not),
		cmocka_unit_test(it_is_free_when_tasks_before_have_ended),
		cmocka_unit_test(a_result_alone_does_not_free_it),
	};

	return cmocka_run_group_tests_name("registered memory", tests, NULL, NULL);
}
