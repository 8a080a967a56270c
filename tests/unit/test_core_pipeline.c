/* SPDX-License-Identifier: Apache-2.0 */
/* What the core tells stages of an io, in which order, and what it makes of their answers. */
#include "core_store.h"

#include <unistd.h>

static struct spy *spy;

/* ---- chains ------------------------------------------------------------------- */

#define CHAIN 60u

static const struct spy_record *record_of(const struct cairn_key *key)
{
	uint32_t i = 0;

	while (i < spy->count && memcmp(&spy->records[i].key, key, sizeof(*key)) != 0)
		i++;
	assert_true(i < spy->count);
	return &spy->records[i];
}

/* Keys from @first on have the parent before them and depths from @depth on. */
static void check_chain(uint32_t first, uint32_t count, uint32_t depth)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct spy_record *record = record_of(&f.keys[first + i]);

		assert_int_equal(record->attr.size, sizeof(record->attr));
		assert_int_equal(record->attr.depth, depth + i);
		assert_int_equal((record->flags & CAIRN_IO_CHAIN) != 0, i > 0);
		if (i > 0)
			assert_memory_equal(&record->attr.parent, &f.keys[first + i - 1],
					    sizeof(record->attr.parent));
	}
}

/* Spread over four reactors, each block has the parent and the depth of its place. */
static void a_chain_over_several_reactors(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_CHAIN};
	struct cairn_block_attr attr = {.size = sizeof(attr), .depth = CHAIN};
	static struct cairn_xfer xfers[MANY];
	uint32_t owners[4] = {0};

	(void)state;
	spy = open_spied("store(reactors=4, ios=4) | spy() | null(size=4MiB)");
	for (uint32_t i = 0; i < CHAIN; i++)
		owners[f.keys[i].bytes[15] >> 6]++;
	for (uint32_t i = 0; i < 4; i++)
		assert_true(owners[i] > 0);
	fill(xfers, f.memory, 0, CHAIN);
	assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &opts, NULL), 0);
	assert_int_equal(spy->count, CHAIN);
	check_chain(0, CHAIN, 0);
	/* The task that goes on says where; its first block has the parent it names. */
	attr.parent = f.keys[CHAIN - 1];
	fill(xfers, f.memory, CHAIN, MANY - CHAIN);
	xfers[0].attr = &attr;
	assert_int_equal(cairn_dump(f.ns, xfers, MANY - CHAIN, &opts, NULL), 0);
	check_chain(CHAIN, MANY - CHAIN, CHAIN);
	assert_memory_equal(&record_of(&f.keys[CHAIN])->attr.parent, &f.keys[CHAIN - 1],
			    sizeof(attr.parent));
	/* Removes, which name keys alone, are told the same; without the flag, nothing. */
	spy->count = 0;
	assert_int_equal(cairn_remove(f.ns, f.keys, CHAIN, NULL, &opts, NULL), 0);
	check_chain(0, CHAIN, 0);
	spy->count = 0;
	assert_int_equal(cairn_remove(f.ns, &f.keys[CHAIN], 1, NULL, NULL, NULL), 0);
	assert_int_equal(spy->records[0].attr.depth, 0);
	assert_int_equal(spy->records[0].flags & CAIRN_IO_CHAIN, 0);
	close_store();
}

/* Several items of one key, on and off in one io, are one link of the chain. */
static void a_chain_of_repeated_keys(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_CHAIN};
	struct cairn_block_attr attr = {.size = sizeof(attr), .priority = 7};
	static struct cairn_xfer xfers[12];

	(void)state;
	spy = open_spied("store(reactors=2) | spy() | null(size=4MiB)");
	fill(xfers, f.memory, 0, 12);
	for (uint32_t i = 0; i < 12; i++)
		xfers[i].key = f.keys[i / 3];
	xfers[4].attr = &attr; /* ends one io and begins another of the same key */
	assert_int_equal(cairn_dump(f.ns, xfers, 12, &opts, NULL), 0);
	check_chain(0, 4, 0);
	for (uint32_t i = 0; i < spy->count; i++)
		if (memcmp(&spy->records[i].key, &f.keys[1], sizeof(f.keys[1])) == 0)
			assert_int_equal(spy->records[i].attr.depth, 1);
	close_store();
}

/* ---- order ---------------------------------------------------------------------- */

#define CROWD 3000u

/*
 * A task of many items that end at once is under way on the one reactor when an
 * urgent one comes: it does not wait for all of them.
 */
static void urgent_among_items_that_end_at_once(void **state)
{
	struct cairn_task_opts urgent = {.size = sizeof(urgent), .task_class = CAIRN_CLASS_URGENT};
	static struct cairn_xfer crowd[CROWD], one[1];
	uint64_t crowd_task, urgent_task;
	uint32_t at = 0;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=4MiB)");
	fill(crowd, f.back, 0, MANY - 1);
	for (uint32_t i = MANY - 1; i < CROWD; i++)
		crowd[i] = crowd[i - (MANY - 1)];
	fill(one, f.back, MANY - 1, 1);
	spy_set(spy, &spy->stop, true);
	assert_int_equal(cairn_load(f.ns, crowd, CROWD, NULL, &crowd_task), 0);
	spy_await(spy, &spy->stopped, 1);
	assert_int_equal(cairn_load(f.ns, one, 1, &urgent, &urgent_task), 0);
	spy_set(spy, &spy->stop, false);
	assert_int_equal(cairn_task_wait(f.store, urgent_task, 0, UINT64_MAX), 0);
	assert_int_equal(cairn_task_wait(f.store, crowd_task, 0, UINT64_MAX), 0);
	while (spy->records[at].task_class != CAIRN_CLASS_URGENT)
		at++;
	assert_true(at < 200);
	close_store();
}

/* Cancelled in the middle, the rest of such a task does not run. */
static void cancel_among_items_that_end_at_once(void **state)
{
	static struct cairn_xfer crowd[CROWD];
	uint64_t task;

	(void)state;
	spy = open_spied("store(reactors=1) | spy() | null(size=4MiB)");
	fill(crowd, f.back, 0, MANY);
	for (uint32_t i = MANY; i < CROWD; i++)
		crowd[i] = crowd[i - MANY];
	spy_set(spy, &spy->stop, true);
	assert_int_equal(cairn_load(f.ns, crowd, CROWD, NULL, &task), 0);
	spy_await(spy, &spy->stopped, 1);
	assert_int_equal(cairn_task_cancel(f.store, task), 0);
	spy_set(spy, &spy->stop, false);
	assert_int_equal(cairn_task_wait(f.store, task, 0, UINT64_MAX), 0);
	assert_true(spy->count < 200);
	assert_int_equal(crowd[0].result.status, -ENOENT);
	assert_int_equal(crowd[CROWD - 1].result.status, -ECANCELED);
	assert_int_equal(crowd[CROWD - 1].result.stage, CAIRN_STAGE_NONE);
	close_store();
}

static uint32_t first_of_class(uint32_t task_class)
{
	uint32_t at = 0;

	while (at < CROWD && spy->records[at].task_class != task_class)
		at++;
	return at;
}

/*
 * However many urgent ones there are, no class is passed over for ever: the first io
 * of each comes long before the last of them.
 */
static void no_class_starves(void **state)
{
	struct cairn_task_opts urgent = {.size = sizeof(urgent), .task_class = CAIRN_CLASS_URGENT};
	static struct cairn_xfer crowd[CROWD], load[1], dump[1];
	struct cairn_result result;
	uint64_t tasks[4];

	(void)state;
	spy = open_spied("store(reactors=1, ios=4) | spy() | null(size=4MiB)");
	for (uint32_t i = 0; i < CROWD; i++) /* alternating, so that each is an io */
		fill(&crowd[i], f.memory, i % 2, 1);
	fill(load, f.back, 2, 1);
	fill(dump, f.memory, 3, 1);
	spy_set(spy, &spy->stop, true);
	assert_int_equal(cairn_dump(f.ns, crowd, CROWD, &urgent, &tasks[0]), 0);
	spy_await(spy, &spy->stopped, 1);
	assert_int_equal(cairn_load(f.ns, load, 1, NULL, &tasks[1]), 0);
	assert_int_equal(cairn_prefetch(f.ns, &f.keys[4], 1, &result, NULL, &tasks[2]), 0);
	assert_int_equal(cairn_dump(f.ns, dump, 1, NULL, &tasks[3]), 0);
	spy_set(spy, &spy->stop, false);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(cairn_task_wait(f.store, tasks[i], 0, UINT64_MAX), 0);
	assert_true(spy->count > CROWD);
	for (uint32_t c = CAIRN_CLASS_LOAD; c <= CAIRN_CLASS_DUMP; c++)
		assert_in_range(first_of_class(c), 1, 150);
	close_store();
}

/* Dumps that hang leave ios for loads: a quarter. */
static void dumps_leave_ios(void **state)
{
	static struct cairn_xfer dumps[MANY], load[1];
	uint64_t tasks[2];

	(void)state;
	spy = open_spied("store(reactors=1, ios=8) | spy() | null(size=4MiB)");
	fill(dumps, f.memory, 0, 20);
	fill(load, f.back, 30, 1);
	spy_set(spy, &spy->keep, true);
	assert_int_equal(cairn_dump(f.ns, dumps, 20, NULL, &tasks[0]), 0);
	spy_await(spy, &spy->kept_count, 6);
	assert_int_equal(cairn_load(f.ns, load, 1, NULL, &tasks[1]), 0);
	spy_await(spy, &spy->kept_count, 7);
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(spy->records[i].op, i < 6 ? CAIRN_OP_DUMP : CAIRN_OP_LOAD);
	spy_set(spy, &spy->keep, false);
	spy_let_go(spy, NULL);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(cairn_task_wait(f.store, tasks[i], 0, UINT64_MAX), 0);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dumps[i].result.status, 0);
	close_store();
}

/* ---- answers of several tiers ------------------------------------------------------ */

static void open_posix(const char *above, const char *below, char *folder)
{
	char spec[512];

	assert_non_null(mkdtemp(folder));
	snprintf(spec, sizeof(spec), "%sposix(path=%s%s", above, folder, below);
	open_store(spec, NULL);
}

static void close_posix(const char *folder)
{
	char command[64];

	close_store();
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

/* What only a tier of memory took is not "written", wherever that tier stands. */
static void memory_alone_is_not_written(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	char folder[] = "/tmp/cairn-core-XXXXXX";
	struct cairn_xfer xfer[1];

	(void)state;
	open_posix("null(size=1MiB) | fault(rule=\"dump:ENOSPC:1\") | ", ")", folder);
	fill(xfer, f.memory, 0, 1);
	assert_int_equal(cairn_dump(f.ns, xfer, 1, &opts, NULL), -ENOSPC);
	assert_int_equal(xfer[0].result.reached, 0);
	/* Nor when it is there already. */
	assert_int_equal(cairn_dump(f.ns, xfer, 1, &opts, NULL), -ENOSPC);
	close_posix(folder);
}

/* A tier that lasts has failed, and one of memory below it has not: that is a failure, too. */
static void memory_below_is_not_written_either(void **state)
{
	char folder[] = "/tmp/cairn-core-XXXXXX";
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "large", .shard_count = 1, .shard_bytes = 8u << 20};
	static uint8_t large[8u << 20];
	struct cairn_namespace *ns;
	struct cairn_xfer xfer[1];

	(void)state;
	open_posix("", ", size=4MiB) | null(size=64MiB)", folder);
	assert_int_equal(cairn_namespace_open(f.store, &desc, &ns, NULL), 0);
	fill(xfer, f.memory, 0, 1);
	assert_int_equal(cairn_dump(f.ns, xfer, 1, NULL, NULL), 0);
	assert_int_equal(xfer[0].result.stage, 0);
	assert_int_equal(xfer[0].result.reached, CAIRN_WRITTEN + 1);
	/* More than the tier that lasts can hold. */
	xfer[0].length = sizeof(large);
	xfer[0].stride = (struct cairn_stride){large, sizeof(large), 0, 1};
	assert_int_equal(cairn_dump(ns, xfer, 1, NULL, NULL), -EFBIG);
	assert_int_equal(xfer[0].result.stage, 0);
	assert_int_equal(xfer[0].result.reached, 0);
	close_posix(folder);
}

/* No tier here caches: a prefetch says who has it, and that nobody does. */
static void prefetch_over_two_tiers(void **state)
{
	struct cairn_xfer xfers[3];
	struct cairn_result results[4];

	(void)state;
	open_store("delay() | null(size=64KiB, entries=2) | null(size=1MiB)", NULL);
	fill(xfers, f.memory, 0, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(cairn_dump(f.ns, &xfers[i], 1, NULL, NULL), 0);
	/* The first was evicted above, and is below. */
	assert_int_equal(cairn_prefetch(f.ns, f.keys, 3, results, NULL, NULL), 0);
	assert_int_equal(results[0].status, 0);
	assert_int_equal(results[0].stage, 2);
	assert_int_equal(results[2].status, 0);
	assert_int_equal(results[2].stage, 1);
	assert_int_equal(cairn_prefetch(f.ns, &f.keys[1], 3, results, NULL, NULL), -ENOENT);
	assert_int_equal(results[1].status, 0);
	assert_int_equal(results[2].status, -ENOENT);
	/* Without results, and with as many as one would like. */
	assert_int_equal(cairn_prefetch(f.ns, f.keys, 3, NULL, NULL, NULL), 0);
	close_store();
}

/* {rank}: the open options' first, else the variable's; one that leaves its place is refused. */
static void rank_in_a_path(void **state)
{
	static const struct {
		const char *option, *variable, *expanded;
	} cases[] = {{"3", "5", "3"}, {NULL, "5", "5"}, {NULL, NULL, "0"}, {"../x", NULL, NULL}};
	char folder[] = "/tmp/cairn-core-XXXXXX", spec[128], path[128];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(spec, sizeof(spec), "posix(path=\"%s/r{rank}\")", folder);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cairn_store_opts opts = {.size = sizeof(opts), .rank = cases[i].option};
		struct cairn_store *store;
		int ret;

		if (cases[i].variable)
			assert_int_equal(setenv("RANK", cases[i].variable, 1), 0);
		else
			assert_int_equal(unsetenv("RANK"), 0);
		ret = cairn_store_open(spec, &opts, &store, NULL);
		if (!cases[i].expanded) {
			assert_int_equal(ret, -EINVAL);
			continue;
		}
		assert_int_equal(ret, 0);
		snprintf(path, sizeof(path), "%s/r%s", folder, cases[i].expanded);
		assert_int_equal(access(path, F_OK), 0);
		assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
	}
	snprintf(path, sizeof(path), "rm -r %s", folder);
	assert_int_equal(system(path), 0);
}

/* A stage may say how many reactors there are, where nothing else says otherwise. */
static void reactors_by_a_stage(void **state)
{
	static const struct {
		const char *above, *options, *error;
		uint32_t reactors;
	} cases[] = {
		{"", ", reactors=3", NULL, 3},
		{"store(reactors=3) | ", ", reactors=3", NULL, 3},
		{"store(reactors=2) | ", "", NULL, 2},
		{"store(reactors=2) | ", ", reactors=3", "flash: reactors=3: ", 0},
		{"store(reactors=2) | ", ", reactors=33", "flash: reactors=\"33\" is too large", 0},
	};
	char folder[] = "/tmp/cairn-core-XXXXXX", spec[128];

	(void)state;
	assert_non_null(mkdtemp(folder));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cairn_error error = {0};
		struct cairn_store *store;
		int ret;

		snprintf(spec, sizeof(spec), "%sflash(path=%s/kv, size=8MiB%s)", cases[i].above,
			 folder, cases[i].options);
		ret = cairn_store_open(spec, NULL, &store, &error);
		if (cases[i].error) {
			assert_int_equal(ret, -EINVAL);
			assert_non_null(strstr(error.text, cases[i].error));
			assert_int_equal(error.column, strstr(spec, "reactors=3") - spec + 10);
			continue;
		}
		assert_int_equal(ret, 0);
		assert_int_equal(store->reactor_count, cases[i].reactors);
		assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
	}
	snprintf(spec, sizeof(spec), "rm -r %s", folder);
	assert_int_equal(system(spec), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chain_over_several_reactors),
		cmocka_unit_test(a_chain_of_repeated_keys),
		cmocka_unit_test(urgent_among_items_that_end_at_once),
		cmocka_unit_test(cancel_among_items_that_end_at_once),
		cmocka_unit_test(no_class_starves),
		cmocka_unit_test(dumps_leave_ios),
		cmocka_unit_test(memory_alone_is_not_written),
		cmocka_unit_test(memory_below_is_not_written_either),
		cmocka_unit_test(prefetch_over_two_tiers),
		cmocka_unit_test(rank_in_a_path),
		cmocka_unit_test(reactors_by_a_stage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
