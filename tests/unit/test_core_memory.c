/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks that need more bounce memory, ios or slots than there are: all of them end. */
#include "core_store.h"

#include <unistd.h>

#define WIDE_SHARDS 8u
#define WIDE_BYTES  (300u << 10)

static struct cairn_namespace *wide;
static uint8_t *payload, *back;
static struct spy *spy;

/* A namespace whose blocks have eight shards of an odd size, 2.4 MB. */
static void open_wide(const char *spec, struct cairn_xfer *xfers, uint32_t blocks)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc),
					    .model = "wide",
					    .shard_count = WIDE_SHARDS,
					    .shard_bytes = WIDE_BYTES - 3};

	spy = open_spied(spec);
	assert_int_equal(cairn_namespace_open(f.store, &desc, &wide, NULL), 0);
	payload = malloc(blocks * (size_t)WIDE_SHARDS * WIDE_BYTES);
	back = calloc(blocks, (size_t)WIDE_SHARDS * WIDE_BYTES);
	assert_true(payload && back);
	for (size_t i = 0; i < blocks * (size_t)WIDE_SHARDS * WIDE_BYTES; i++)
		payload[i] = (uint8_t)(i * 2654435761u >> 13);
	memset(xfers, 0, blocks * WIDE_SHARDS * sizeof(*xfers));
	for (uint32_t i = 0; i < blocks * WIDE_SHARDS; i++) {
		uint8_t *base = payload + (size_t)i * WIDE_BYTES;

		xfers[i].key = f.keys[i / WIDE_SHARDS];
		xfers[i].shard = i % WIDE_SHARDS;
		xfers[i].length = WIDE_BYTES - 3;
		xfers[i].stride = (struct cairn_stride){base, WIDE_BYTES - 3, 0, 1};
	}
}

static void close_wide(void)
{
	cairn_namespace_close(wide);
	free(payload);
	free(back);
	close_store();
}

#define BLOCKS 12u

static void dump_and_load(const char *spec)
{
	static struct cairn_xfer xfers[BLOCKS * WIDE_SHARDS];
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_DETACH};

	open_wide(spec, xfers, BLOCKS);
	assert_int_equal(cairn_dump(wide, xfers, BLOCKS * WIDE_SHARDS, &opts, NULL), 0);
	for (uint32_t i = 0; i < BLOCKS * WIDE_SHARDS; i++)
		xfers[i].stride.base = back + (size_t)i * WIDE_BYTES;
	assert_int_equal(cairn_load(wide, xfers, BLOCKS * WIDE_SHARDS, &opts, NULL), 0);
	for (uint32_t i = 0; i < BLOCKS * WIDE_SHARDS; i++)
		assert_memory_equal(payload + (size_t)i * WIDE_BYTES, back + (size_t)i * WIDE_BYTES,
				    WIDE_BYTES - 3);
	close_wide();
}

/* The shards of one block together are more than all bounce memory. */
static void a_block_larger_than_the_bounce_memory(void **state)
{
	(void)state;
	dump_and_load(
		"store(buffers=1MiB, ios=4, reactors=1, deadline=20s) | spy() | null(size=64MiB)");
}

/* What the callers' bytes take is not taken from what the stages need to move them. */
static void stages_find_memory_beside_the_callers(void **state)
{
	char folder[] = "/tmp/cairn-core-XXXXXX", spec[256], command[64];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(spec, sizeof(spec),
		 "store(buffers=2MiB, reactors=1, deadline=20s) | spy() | posix(path=%s)", folder);
	dump_and_load(spec);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

/* What fits no piece of the bounce memory is told so at once, and nothing else waits for it. */
static void what_never_fits_is_refused(void **state)
{
	static struct cairn_xfer xfers[WIDE_SHARDS];
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_DETACH};
	struct cairn_namespace_desc desc = {.size = sizeof(desc), .model = "v"};
	struct cairn_namespace *variable;
	struct cairn_xfer large[1] = {0};

	(void)state;
	/* Bounce memory of 1.5 MiB: pieces of 1 MiB and of 512 KiB. */
	open_wide("store(buffers=3MiB, reactors=1, deadline=20s) | spy() | null(size=64MiB)", xfers,
		  1);
	assert_int_equal(cairn_namespace_open(f.store, &desc, &variable, NULL), 0);
	large[0].key = f.keys[9];
	large[0].shard_count = 1;
	large[0].shard_bytes = large[0].length = (1u << 20) + 100;
	large[0].stride = (struct cairn_stride){payload, large[0].length, 0, 1};
	assert_int_equal(cairn_dump(variable, large, 1, &opts, NULL), -EFBIG);
	assert_int_equal(cairn_dump(wide, xfers, WIDE_SHARDS, &opts, NULL), 0);
	opts.flags = 0;
	assert_int_equal(cairn_dump(variable, large, 1, &opts, NULL), 0);
	cairn_namespace_close(variable);
	close_wide();
}

/*
 * A device that never answers keeps all bounce memory; what needs none goes on,
 * in every class.
 */
static void who_needs_no_bounce_memory_goes_on(void **state)
{
	static struct cairn_xfer xfers[BLOCKS * WIDE_SHARDS], plain[1], again[1];
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_TASK_DETACH, .deadline_ns = 20000 * MS};
	uint64_t task;

	(void)state;
	open_wide("store(buffers=2MiB, ios=32, reactors=1, deadline=20s, inline_max=1B) | spy() | "
		  "null(size=64MiB)",
		  xfers, BLOCKS);
	spy_set(spy, &spy->keep, true);
	assert_int_equal(cairn_dump(wide, xfers, BLOCKS * WIDE_SHARDS, &opts, &task), 0);
	spy_await(spy, &spy->kept_count, 1);
	spy_set(spy, &spy->keep, false);
	fill(plain, f.memory, 20, 1);
	assert_int_equal(cairn_dump(f.ns, plain, 1, NULL, NULL), 0);
	fill(again, f.back, 20, 1);
	assert_int_equal(cairn_load(f.ns, again, 1, NULL, NULL), 0);
	assert_memory_equal(f.back[20], f.memory[20], SHARD);
	/* And the others when memory comes back. */
	assert_int_equal(cairn_task_wait(f.store, task, 0, 0), -ETIMEDOUT);
	spy_let_go(spy, NULL);
	assert_int_equal(cairn_task_wait(f.store, task, 0, UINT64_MAX), 0);
	for (uint32_t i = 0; i < BLOCKS * WIDE_SHARDS; i++)
		assert_int_equal(xfers[i].result.status, 0);
	close_wide();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_larger_than_the_bounce_memory),
		cmocka_unit_test(stages_find_memory_beside_the_callers),
		cmocka_unit_test(what_never_fits_is_refused),
		cmocka_unit_test(who_needs_no_bounce_memory_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
