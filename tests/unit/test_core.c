/* SPDX-License-Identifier: Apache-2.0 */
/* The core over tiers of memory: composition, backpressure, classes, bounces, names. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Before cmocka, which has a macro of the name of one of its functions. */
#include "core/reactor.h"
#include "core/store.h"

#include <cmocka.h>

#include <cairn/task.h>

#define SHARD 4096u
#define MANY  100u

static struct cairn_store *store;
static struct cairn_namespace *ns;
static struct cairn_key keys[MANY];
static uint8_t memory[MANY][SHARD], back[MANY][SHARD];

static void open_store(const char *spec)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = SHARD};
	struct cairn_error error = {0};

	if (cairn_store_open(spec, NULL, &store, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(cairn_key_derive(ns, &i, sizeof(i), &keys[i]), 0);
		for (uint32_t at = 0; at < SHARD; at++)
			memory[i][at] = (uint8_t)(keys[i].bytes[at % 16] + at / 16);
	}
	memset(back, 0, sizeof(back));
}

static void close_store(void)
{
	cairn_namespace_close(ns);
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

static void fill(struct cairn_xfer *xfers, uint8_t (*from)[SHARD], uint32_t count)
{
	memset(xfers, 0, count * sizeof(*xfers));
	for (uint32_t i = 0; i < count; i++) {
		xfers[i].key = keys[i];
		xfers[i].length = SHARD;
		xfers[i].stride = (struct cairn_stride){from[i], SHARD, 0, 1};
	}
}

static void union_of_two_tiers(void **state)
{
	struct cairn_xfer xfers[MANY];
	struct cairn_found found[MANY];
	bool below = false;

	(void)state;
	/* The upper tier holds a few only: the rest must come from the one below. */
	open_store("null(size=64KiB) | null(size=64MiB)");
	fill(xfers, memory, MANY);
	assert_int_equal(cairn_dump(ns, xfers, MANY, NULL, NULL), 0);
	assert_int_equal(cairn_lookup(ns, keys, MANY, found, NULL, NULL), MANY);
	assert_int_equal(cairn_lookup_prefix(ns, keys, MANY, NULL, NULL, NULL), MANY);
	for (uint32_t i = 0; i < MANY; i++)
		below |= found[i].stage == 1;
	assert_true(below);
	fill(xfers, back, MANY);
	assert_int_equal(cairn_load(ns, xfers, MANY, NULL, NULL), 0);
	assert_memory_equal(memory, back, sizeof(memory));
	/* A remove takes it from both; a second finds nothing. */
	assert_int_equal(cairn_remove(ns, keys, MANY, NULL, NULL, NULL), 0);
	assert_int_equal(cairn_lookup(ns, keys, MANY, found, NULL, NULL), 0);
	assert_int_equal(cairn_remove(ns, keys, 1, NULL, NULL, NULL), -ENOENT);
	close_store();
}

static void stages_have_names(void **state)
{
	(void)state;
	open_store("store(reactors=1) | null() | delay() | null() | null()");
	assert_string_equal(cairn_stage_name(store, 0), "null"); /* store() is no stage */
	assert_string_equal(cairn_stage_name(store, 1), "delay");
	assert_string_equal(cairn_stage_name(store, 2), "null.2");
	assert_string_equal(cairn_stage_name(store, 3), "null.3");
	assert_null(cairn_stage_name(store, 4));
	assert_null(cairn_stage_name(store, CAIRN_STAGE_NONE));
	assert_null(cairn_stage_name(store, UINT32_MAX));
	assert_null(cairn_stage_name(NULL, 0));
	close_store();
}

static void prefetch_asks_every_tier(void **state)
{
	struct cairn_xfer xfers[MANY];
	struct cairn_found found;
	struct cairn_result results[2];
	uint32_t low = 0;

	(void)state;
	open_store("null(size=64KiB) | null(size=64MiB)");
	fill(xfers, memory, MANY);
	assert_int_equal(cairn_dump(ns, xfers, MANY, NULL, NULL), 0);
	for (; low < MANY; low++) {
		assert_int_equal(cairn_lookup(ns, &keys[low], 1, &found, NULL, NULL), 1);
		if (found.stage == 1)
			break;
	}
	assert_true(low < MANY);
	assert_int_equal(cairn_remove(ns, &keys[MANY - 1], 1, NULL, NULL, NULL), 0);
	assert_int_equal(cairn_prefetch(ns, (struct cairn_key[]){keys[low], keys[MANY - 1]}, 2,
					results, NULL, NULL),
			 -ENOENT);
	assert_int_equal(results[0].status, 0);
	assert_int_equal(results[1].status, -ENOENT);
	assert_int_equal(cairn_prefetch(ns, keys, low + 1, NULL, NULL, NULL), 0);
	close_store();
}

static void a_failing_tier_is_passed_by(void **state)
{
	struct cairn_xfer xfers[MANY];

	(void)state;
	open_store("fault(rule=\"remove:EIO:1\") | null(size=1MiB) | "
		   "fault(rule=\"load:EIO:1,dump:ENOSPC:1\") | null(size=64MiB)");
	fill(xfers, memory, 10);
	assert_int_equal(cairn_dump(ns, xfers, 10, NULL, NULL), 0);
	assert_int_equal(xfers[0].result.stage, 1);
	fill(xfers, back, 10);
	assert_int_equal(cairn_load(ns, xfers, 10, NULL, NULL), 0);
	/* What nobody has: the tier that failed is told, not the one that missed. */
	fill(xfers, back, MANY);
	assert_int_equal(cairn_load(ns, &xfers[50], 1, NULL, NULL), -EIO);
	assert_int_equal(xfers[50].result.stage, 2);
	assert_int_equal(cairn_remove(ns, keys, 1, NULL, NULL, NULL), -EIO);
	close_store();
}

static void slots_run_out(void **state)
{
	struct cairn_xfer a[1], b[1], c[1];
	struct cairn_task_opts soon = {.size = sizeof(soon), .deadline_ns = 50000000};
	uint64_t tasks[3];

	(void)state;
	open_store("store(tasks=2) | delay(read=400ms) | null(size=1MiB)");
	fill(a, back, 1);
	fill(b, back, 1);
	fill(c, back, 1);
	assert_int_equal(cairn_load(ns, a, 1, NULL, &tasks[0]), 0);
	assert_int_equal(cairn_load(ns, b, 1, NULL, &tasks[1]), 0);
	assert_int_equal(cairn_load(ns, c, 1, NULL, &tasks[2]), -EAGAIN);
	assert_int_equal(cairn_load(ns, c, 1, &soon, NULL), -ETIMEDOUT);
	for (int i = 0; i < 2; i++)
		assert_int_equal(cairn_task_wait(store, tasks[i], 0, UINT64_MAX), 0);
	assert_int_equal(a[0].result.status, -ENOENT);
	/* The id is gone, and an old one finds nothing of the slot's next user. */
	assert_int_equal(cairn_task_wait(store, tasks[0], 0, 0), -EINVAL);
	assert_int_equal(cairn_load(ns, c, 1, NULL, &tasks[2]), 0);
	assert_int_equal(cairn_task_cancel(store, tasks[0]), -EINVAL);
	assert_int_equal(cairn_task_wait(store, tasks[2], 0, UINT64_MAX), 0);
	close_store();
}

static void urgent_goes_first(void **state)
{
	struct cairn_xfer dumps[MANY], load[1];
	struct cairn_task_opts urgent = {.size = sizeof(urgent), .task_class = CAIRN_CLASS_URGENT};
	uint64_t dump_task, load_task;

	(void)state;
	open_store("store(ios=4) | delay(read=2ms, write=2ms, depth=1) | null(size=4MiB)");
	fill(dumps, memory, MANY);
	fill(load, back, 1);
	assert_int_equal(cairn_dump(ns, dumps, MANY, NULL, &dump_task), 0);
	assert_int_equal(cairn_load(ns, load, 1, &urgent, &load_task), 0);
	assert_int_equal(cairn_task_wait(store, load_task, 0, UINT64_MAX), 0);
	/* Of 100 dumps at 2 ms each most are still to come. */
	assert_int_equal(cairn_task_wait(store, dump_task, 0, 0), -ETIMEDOUT);
	assert_int_equal(cairn_task_wait(store, dump_task, 0, UINT64_MAX), 0);
	close_store();
}

static void more_segments_than_an_io_has(void **state)
{
	static struct cairn_segment segments[SHARD];
	struct cairn_xfer xfer[1];

	(void)state;
	open_store("null(size=1MiB)");
	fill(xfer, memory, 1);
	assert_int_equal(cairn_dump(ns, xfer, 1, NULL, NULL), 0);
	/* Byte by byte, and in strides of two. */
	for (uint32_t i = 0; i < SHARD; i++)
		segments[i] = (struct cairn_segment){&back[0][i], 1};
	xfer[0].stride = (struct cairn_stride){0};
	xfer[0].segments = segments;
	xfer[0].segment_count = SHARD;
	assert_int_equal(cairn_load(ns, xfer, 1, NULL, NULL), 0);
	assert_memory_equal(back[0], memory[0], SHARD);
	xfer[0].segments = NULL;
	xfer[0].segment_count = 0;
	memset(back, 0, sizeof(back));
	xfer[0].stride = (struct cairn_stride){back, 2, 4, SHARD / 2};
	assert_int_equal(cairn_load(ns, xfer, 1, NULL, NULL), 0);
	for (uint32_t i = 0; i < SHARD; i++)
		assert_int_equal(((uint8_t *)back)[i / 2 * 4 + i % 2], memory[0][i]);
	close_store();
}

static void nothing_to_do(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	uint64_t task;

	(void)state;
	open_store("null(size=1MiB)");
	assert_int_equal(cairn_load(ns, NULL, 0, &opts, &task), 0);
	assert_int_equal(cairn_task_wait(store, task, 0, 0), 0);
	assert_int_equal(cairn_remove(ns, NULL, 0, NULL, NULL, NULL), 0);
	assert_int_equal(cairn_lookup_prefix(ns, NULL, 0, NULL, NULL, NULL), 0);
	assert_int_equal(cairn_store_quiesce(store, 0), 0);
	close_store();
}

static void pipelines_that_do_not_open(void **state)
{
	static const struct {
		const char *spec;
		int code;
		const char *text;
	} cases[] = {
		{"", -EINVAL, NULL},
		{"delay()", -EINVAL,
		 "line 1, column 1: delay keeps no data: end the pipeline with "
		 "a tier, for example posix(path=...)"},
		{"nul(size=1MiB)", -ENOENT,
		 "line 1, column 1: no stage \"nul\"; did you mean \"null\"?"},
		{"null(size=1MiB) | store(reactors=1)", -EINVAL,
		 "line 1, column 19: store(...) stands first, or nowhere"},
		{"store(deadline=5) | null(size=1MiB)", -EINVAL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cairn_error error = {0};

		store = NULL;
		assert_int_equal(cairn_store_open(cases[i].spec, NULL, &store, &error),
				 cases[i].code);
		assert_null(store);
		assert_int_equal(error.code, cases[i].code);
		assert_true(strlen(error.text) > 0 && !strchr(error.text, '\n'));
		if (cases[i].text)
			assert_string_equal(error.text, cases[i].text);
	}
}

static void a_file_that_is_no_stage(void **state)
{
	char folder[] = "/tmp/cairn-stages-XXXXXX", file[64];
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = folder};
	struct cairn_error error = {0};
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/bogus.so", folder);
	fd = open(file, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0 && write(fd, "not an object", 13) == 13);
	close(fd);
	assert_int_equal(cairn_store_open("bogus() | null(size=1MiB)", &opts, &store, &error),
			 -EPROTO);
	assert_non_null(strstr(error.text, file));
	unlink(file);
	rmdir(folder);
}

static void one_description_one_handle(void **state)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = SHARD};
	struct cairn_namespace *again, *other;
	struct cairn_key a, b;
	struct cairn_error error = {0};

	(void)state;
	open_store("null(size=1MiB)");
	assert_int_equal(cairn_namespace_open(store, &desc, &again, NULL), 0);
	assert_ptr_equal(again, ns);
	cairn_namespace_close(again);
	desc.world = 1; /* what zero stands for */
	assert_int_equal(cairn_namespace_open(store, &desc, &again, NULL), 0);
	assert_ptr_equal(again, ns);
	cairn_namespace_close(again);
	desc.tenant = "t";
	assert_int_equal(cairn_namespace_open(store, &desc, &other, NULL), 0);
	assert_int_equal(cairn_key_derive(ns, "x", 1, &a), 0);
	assert_int_equal(cairn_key_derive(other, "x", 1, &b), 0);
	assert_memory_not_equal(&a, &b, sizeof(a));
	assert_int_equal(cairn_key_derive(ns, "", 0, &a), -EINVAL);
	desc.rank = 3;
	assert_int_equal(cairn_namespace_open(store, &desc, &other, &error), -EINVAL);
	assert_string_equal(error.text, "namespace: rank 3 of a world of 1");
	close_store();
}

static const struct engine_ops *no_ring(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : sys_native.engine(kind);
}

/* As where the library was built without liburing. */
static void a_build_without_a_ring_says_so(void **state)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_error error = {0};
	struct sys table = sys_native;
	struct cairn_store *without;

	(void)state;
	table.engine = no_ring;
	assert_int_equal(
		store_open(&table, "store(engine=uring) | null(size=1MiB)", NULL, &without, &error),
		-EOPNOTSUPP);
	assert_string_equal(
		error.text,
		"store: engine: this library was built without io_uring; use engine=auto");
	assert_int_equal(store_open(&table, "null(size=1MiB)", NULL, &without, &error), 0);
	assert_int_equal(cairn_stat(without, &st), 0);
	assert_string_equal(st.engine, "aio");
	assert_string_equal(st.engine_note, "built without io_uring");
	assert_int_equal(cairn_store_close(without, UINT64_MAX), 0);
}

/* psync, which counts what a reactor starts between two turns of its engine. */
static struct engine_ops counting;
static uint32_t turn_starts, turn_starts_max;
static bool in_poll;

static int counting_submit(struct engine *engine, struct engine_chain *chain)
{
	if (!in_poll && ++turn_starts > turn_starts_max)
		turn_starts_max = turn_starts;
	return engine_psync.submit(engine, chain);
}

static int counting_poll(struct engine *engine, uint64_t wait_ns)
{
	int ret;

	turn_starts = 0;
	in_poll = true;
	ret = engine_psync.poll(engine, wait_ns);
	in_poll = false;
	return ret;
}

static const struct engine_ops *counting_engine(enum engine_kind kind)
{
	return kind == ENGINE_PSYNC ? &counting : sys_native.engine(kind);
}

/* Of many large dumps the first goes to the device before all of them are summed and copied. */
static void large_dumps_start_one_by_one(void **state)
{
	const uint32_t count = 6, bytes = DUMP_TURN_BYTES;
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = bytes};
	char dir[] = "core-XXXXXX", spec[96], command[64];
	uint8_t *block = calloc(1, bytes);
	struct cairn_xfer xfers[6] = {0};
	struct cairn_error error = {0};
	struct sys table = sys_native;

	(void)state;
	counting = engine_psync;
	counting.submit = counting_submit;
	counting.poll = counting_poll;
	table.engine = counting_engine;
	assert_non_null(mkdtemp(dir));
	snprintf(spec, sizeof(spec), "store(engine=psync, reactors=1) | posix(path=%s/kv)", dir);
	if (store_open(&table, spec, NULL, &store, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(cairn_namespace_open(store, &desc, &ns, &error), 0);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(cairn_key_derive(ns, &i, sizeof(i), &xfers[i].key), 0);
		xfers[i].length = bytes;
		xfers[i].stride = (struct cairn_stride){block, bytes, 0, 1};
	}
	assert_int_equal(cairn_dump(ns, xfers, count, NULL, NULL), 0);
	close_store();
	assert_int_equal(turn_starts_max, 1);
	free(block);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(union_of_two_tiers),
		cmocka_unit_test(stages_have_names),
		cmocka_unit_test(prefetch_asks_every_tier),
		cmocka_unit_test(a_failing_tier_is_passed_by),
		cmocka_unit_test(slots_run_out),
		cmocka_unit_test(urgent_goes_first),
		cmocka_unit_test(more_segments_than_an_io_has),
		cmocka_unit_test(nothing_to_do),
		cmocka_unit_test(pipelines_that_do_not_open),
		cmocka_unit_test(a_file_that_is_no_stage),
		cmocka_unit_test(one_description_one_handle),
		cmocka_unit_test(a_build_without_a_ring_says_so),
		cmocka_unit_test(large_dumps_start_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
