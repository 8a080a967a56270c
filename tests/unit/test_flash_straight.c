/* SPDX-License-Identifier: Apache-2.0 */
/* Loads that the flash tier reads straight into registered memory, and those it does not. */
#include "flash_device.h"

#include <sys/resource.h>

#define SHARDS 3u
#define BYTES  (5u << 20) /* more than two rounds of a load, in pieces of 64 KiB */
#define GAP    4096u
#define LOADS  8u

#define ONE_ROUND (1u << 20)

static uint8_t *pool; /* a slot with a gap behind it for each shard */
static struct engine_ops counting;
static uint32_t reads;	    /* that went to the engine */
static uint64_t read_bytes; /* ... of them */

static int counting_submit(struct engine *engine, struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++)
		if (chain->ops[i].code == OP_READV) {
			__atomic_add_fetch(&reads, 1, __ATOMIC_SEQ_CST);
			__atomic_add_fetch(&read_bytes, chain->ops[i].length, __ATOMIC_SEQ_CST);
		}
	return engine_psync.submit(engine, chain);
}

static const struct engine_ops *counting_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : &counting;
}

static void begin_pool(uint32_t shards, size_t bytes)
{
	static uint8_t memory[SHARDS * (BYTES + GAP)] __attribute__((aligned(4096)));

	fixture_new(&store);
	device_reset();
	counting = engine_psync;
	counting.submit = counting_submit;
	device.table.engine = counting_engine;
	snprintf(options, sizeof(options), "size=64MiB, region=8MiB");
	open_again(shards, bytes);
	file_scan(); /* for the layout */
	pool = memory;
	assert_int_equal(cairn_memory_register(store.store, pool, sizeof(memory)), 0);
}

static uint8_t *slot(uint32_t shard, size_t bytes)
{
	return pool + shard * (bytes + GAP);
}

/* At most: the head, and the pieces that a part touches, the last one up to a whole unit. */
static uint64_t needed(size_t bytes, uint64_t offset, uint64_t length)
{
	uint64_t end = (offset + length + CAIRN_PIECE - 1) / CAIRN_PIECE * CAIRN_PIECE;

	if (end > bytes)
		end = (bytes + file.layout.unit - 1) / file.layout.unit * file.layout.unit;
	return flash_head_units(&file.layout, (uint32_t)bytes) * file.layout.unit + end -
	       offset / CAIRN_PIECE * CAIRN_PIECE;
}

/*
 * Loads [@offset, @offset + @length) of a shard; its status, having compared what came. All of it
 * is one read, a part of it two at most, wherever it goes; but for a second round. Of other pieces
 * nothing is read.
 */
static int load_into(uint32_t number, uint32_t shard, size_t bytes, uint64_t offset,
		     uint64_t length, uint8_t *to)
{
	struct cairn_key key = key_of(&store, number);
	struct cairn_xfer xfer = xfer_of(&key, shard, offset, to, length);
	uint8_t *want = malloc(bytes);

	assert_non_null(want);
	content(&key, shard, want, bytes);
	memset(to, 0xee, length + 64);
	__atomic_store_n(&reads, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&read_bytes, 0, __ATOMIC_SEQ_CST);
	cairn_load(store.ns, &xfer, 1, NULL, NULL);
	if (xfer.result.status == 0) {
		assert_memory_equal(to, want + offset, length);
		assert_in_range(__atomic_load_n(&read_bytes, __ATOMIC_SEQ_CST), length,
				needed(bytes, offset, length));
		if (bytes <= ONE_ROUND)
			assert_in_range(__atomic_load_n(&reads, __ATOMIC_SEQ_CST), 1,
					length == bytes ? 1 : 2);
	}
	for (size_t i = 0; i < 64; i++)
		assert_int_equal(to[length + i], 0xee);
	free(want);
	return xfer.result.status;
}

static void large_shards_take_several_rounds(void **state)
{
	struct cairn_key key;
	struct cairn_xfer xfers[SHARDS];

	(void)state;
	begin_pool(SHARDS, BYTES);
	for (uint32_t i = 0; i < SHARDS; i++)
		assert_int_equal(dump_one(&store, 1, i, BYTES, 0), 0);
	assert_int_equal(load_into(1, 1, BYTES, 0, BYTES, slot(1, BYTES)), 0);
	assert_int_equal(flash_counter("straight_bytes"), BYTES);
	/* One task with all of them; one lies askew and is copied. */
	key = key_of(&store, 1);
	for (uint32_t i = 0; i < SHARDS; i++)
		xfers[i] = xfer_of(&key, i, 0, slot(i, BYTES) + (i == 1), BYTES);
	assert_int_equal(cairn_load(store.ns, xfers, SHARDS, NULL, NULL), 0);
	for (uint32_t i = 0; i < SHARDS; i++) {
		uint8_t *want = malloc(BYTES);

		assert_non_null(want);
		content(&key, i, want, BYTES);
		assert_memory_equal(slot(i, BYTES) + (i == 1), want, BYTES);
		free(want);
	}
	assert_int_equal(flash_counter("straight_bytes"), 3 * BYTES);
	end();
}

static void what_is_not_whole_is_copied(void **state)
{
	static const struct {
		uint64_t offset, length;
		size_t skew;
		bool straight;
	} loads[] = {
		{0, 300032, 0, true},	  {65536, 65536, 0, true},   {65536, 234496, 512, true},
		{0, 131072, 4096, true},  {0, 131072, 1, false},     {0, 65535, 0, false},
		{1, 65535, 0, false},	  {4096, 61440, 0, false},   {65536, 4096, 0, false},
		{262144, 37888, 0, true}, {262144, 37376, 0, false},
	};
	uint64_t before;

	(void)state;
	begin_pool(1, 300032); /* a multiple of 512 */
	assert_int_equal(dump_one(&store, 1, 0, 300032, 0), 0);
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		before = flash_counter("straight_bytes");
		assert_int_equal(load_into(1, 0, 300032, loads[i].offset, loads[i].length,
					   pool + loads[i].skew),
				 0);
		assert_int_equal(flash_counter("straight_bytes") - before,
				 loads[i].straight ? loads[i].length : 0);
	}
	/* It is no longer registered. */
	before = flash_counter("straight_bytes");
	assert_int_equal(cairn_memory_unregister(store.store, pool, UINT64_MAX), 0);
	assert_int_equal(load_into(1, 0, 300032, 0, 300032, pool), 0);
	assert_int_equal(flash_counter("straight_bytes"), before);
	end();
}

/* The last unit of a record is filled up: there is no room for that in the caller's memory. */
static void an_odd_end_is_copied(void **state)
{
	(void)state;
	begin_pool(1, 100001);
	assert_int_equal(dump_one(&store, 1, 0, 100001, 0), 0);
	assert_int_equal(load_into(1, 0, 100001, 0, 100001, pool), 0);
	assert_int_equal(flash_counter("straight_bytes"), 0);
	assert_int_equal(load_into(1, 0, 100001, 0, 65536, pool), 0);
	assert_int_equal(flash_counter("straight_bytes"), 65536);
	end();
}

static void damage_is_a_miss(void **state)
{
	uint64_t at;

	(void)state;
	begin_pool(2, 200704);
	for (uint32_t shard = 0; shard < 2; shard++)
		assert_int_equal(dump_one(&store, 1, shard, 200704, 0), 0);
	at = flash_byte_of(&file.layout, file_record(1, 1)->unit) + 150000;
	file_write(at, "damage", 6);
	assert_int_equal(load_into(1, 1, 200704, 0, 65536, pool), 0); /* another piece */
	assert_int_equal(load_into(1, 1, 200704, 0, 200704, pool), -EBADMSG);
	assert_int_equal(load_into(1, 1, 200704, 0, 200704, pool), -ENOENT);
	assert_int_equal(flash_counter("damaged_blocks"), 1);
	end();
}

/* What could not be read once is read again. */
static void a_read_that_fails(void **state)
{
	uint64_t at;

	(void)state;
	begin_pool(1, 262144);
	assert_int_equal(dump_one(&store, 1, 0, 262144, 0), 0);
	at = flash_byte_of(&file.layout, file_record(1, 0)->unit);
	fail_range(&device.reads[0], at + 100000, at + 100001, -EIO);
	assert_int_equal(load_into(1, 0, 262144, 0, 262144, pool), -EIO);
	assert_int_equal(load_into(1, 0, 262144, 0, 262144, pool), -ENOENT);
	assert_int_equal(flash_counter("retired_regions"), 1);
	end();
}

/* ---- a real ring ------------------------------------------------------------------------ */

static int match_store(void *context, const struct cairn_counter *counter)
{
	struct counter_search *search = context;

	if (strcmp(counter->stage, "store") == 0 && strcmp(counter->name, search->name) == 0)
		search->value = counter->value;
	return 0;
}

/* As much as the store's buffers, of root whatever the limit says. */
static bool may_lock(void)
{
	struct rlimit limit;

	return geteuid() == 0 ||
	       (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= 64 * MIB);
}

static uint64_t registered_ios(void)
{
	struct counter_search search = {"registered_ios", EVERY};

	cairn_counters(store.store, match_store, &search);
	assert_true(search.value != EVERY);
	return search.value;
}

/* Guards that what the tier reads into is the memory that the ring was told of. */
static void a_load_is_into_registered_buffers(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct cairn_error error = {0};
	struct cairn_key key;
	struct cairn_xfer xfer;
	uint64_t before, task;
	uint8_t *to = malloc(BYTES);
	int rc;

	(void)state;
	assert_non_null(to);
	fixture_new(&store);
	snprintf(store.spec, sizeof(store.spec),
		 "store(engine=uring, reactors=1, buffers=8MiB) | "
		 "flash(path=%s/store, size=16MiB, direct=yes)",
		 store.path);
	rc = cairn_store_open(store.spec, NULL, &store.store, &error);
	if (rc == -EOPNOTSUPP || rc == -EPERM || rc == -ENOSYS || rc == -ENOBUFS || !may_lock()) {
		if (rc == 0)
			cairn_store_close(store.store, UINT64_MAX);
		fixture_free(&store);
		free(to);
		print_message("# no ring, no O_DIRECT, or no memory that may be locked\n");
		return;
	}
	if (rc < 0)
		fail_msg("%s", error.text);
	fixture_space(&store, "model", 1, SHARD);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, CAIRN_DURABLE), 0);
	before = registered_ios();
	key = key_of(&store, 1);
	for (uint32_t i = 0; i < LOADS; i++) {
		xfer = xfer_of(&key, 0, 0, to, SHARD);
		assert_int_equal(cairn_load(store.ns, &xfer, 1, &opts, &task), 0);
		assert_int_equal(cairn_task_wait(store.store, task, 0, UINT64_MAX), 0);
		assert_int_equal(xfer.result.status, 0);
	}
	/* The last one may be counted after its end. */
	assert_true(registered_ios() >= before + LOADS - 1);
	end();
	free(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_shards_take_several_rounds),
		cmocka_unit_test(what_is_not_whole_is_copied),
		cmocka_unit_test(an_odd_end_is_copied),
		cmocka_unit_test(damage_is_a_miss),
		cmocka_unit_test(a_read_that_fails),
		cmocka_unit_test(a_load_is_into_registered_buffers),
	};

	return cmocka_run_group_tests_name("flash, straight", tests, NULL, NULL);
}
