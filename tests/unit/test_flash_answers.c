/* SPDX-License-Identifier: Apache-2.0 */
/* What the flash tier answers where a dump is too large, or a record is another's; and flushes. */
#include "flash_device.h"

#define DUMPS 10u

/* ---- too large ------------------------------------------------------------------------- */

static int dump_sized(uint32_t number, uint8_t *memory, uint64_t bytes)
{
	struct cairn_key key = key_of(&store, number);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, memory, bytes);

	xfer.shard_count = 1;
	xfer.shard_bytes = bytes;
	content(&key, 0, memory, bytes);
	cairn_dump(store.ns, &xfer, 1, NULL, NULL);
	return xfer.result.status;
}

static void too_large_for_a_region(void **state)
{
	static uint8_t memory[64u << 10];
	uint64_t most;

	(void)state;
	begin("size=8MiB, region=64KiB", 0, 0);
	most = flash_counter("shard_bytes_max");
	assert_true(most > 32768 && most < sizeof(memory));
	assert_int_equal(dump_sized(1, memory, most), 0);
	assert_int_equal(flash_counter("refused"), 0);
	assert_int_equal(dump_sized(2, memory, most + 1), -EFBIG);
	assert_int_equal(flash_counter("refused"), 1);
	assert_false(present(&store, 2));
	assert_int_equal(load_one(&store, 1, 0, most), 0);
	end();
}

/* ---- another's record ------------------------------------------------------------------ */

enum identity { KEY, SPACE, GENERATION, SHARD_NUMBER, IDENTITIES };

static void identity_change(struct flash_record *record, enum identity which)
{
	switch (which) {
	case KEY:
		record->key.bytes[7] ^= 1;
		return;
	case SPACE:
		record->space++;
		return;
	case GENERATION:
		record->generation++;
		return;
	case SHARD_NUMBER:
		record->shard = 0;
		return;
	case IDENTITIES:
		break;
	}
	fail_msg("no such field");
}

/* Shard 1 of a block lies in the file as that of another one, with sums that are right. */
static void record_of_another(uint32_t number, enum identity which)
{
	const struct flash_table_entry *entry = file_record(number, 1);
	struct flash_super_found super;
	uint8_t head[4096];
	struct flash_record *record = (void *)head;
	uint64_t at;
	int fd = file_open(O_RDWR);

	assert_int_equal(flash_scan_super(&sys_native, fd, &super), 0);
	at = flash_byte_of(&file.layout, entry->unit);
	assert_int_equal(pread(fd, head, sizeof(head), (off_t)at), sizeof(head));
	identity_change(record, which);
	flash_record_seal(head, &file.layout, flash_salt(&super.super.id, record->region_seq));
	assert_int_equal(pwrite(fd, head, sizeof(head), (off_t)at), sizeof(head));
	close(fd);
}

/* Both shards by one call; nothing but their own bytes comes, and of shard 1 none. */
static void load_both(uint32_t number, int first, int second)
{
	static uint8_t got[2][SHARD], want[SHARD];
	struct cairn_key key = key_of(&store, number);
	struct cairn_xfer xfers[2];

	memset(got, 0xee, sizeof(got));
	for (uint32_t i = 0; i < 2; i++)
		xfers[i] = xfer_of(&key, i, 0, got[i], SHARD);
	cairn_load(store.ns, xfers, 2, NULL, NULL);
	assert_int_equal(xfers[0].result.status, first);
	assert_int_equal(xfers[1].result.status, second);
	if (first == 0) {
		content(&key, 0, want, SHARD);
		assert_memory_equal(got[0], want, SHARD);
	}
	for (uint32_t i = 0; i < SHARD; i++)
		assert_int_equal(got[1][i], 0xee);
}

static void a_record_of_another_is_a_miss(void **state)
{
	(void)state;
	for (enum identity which = KEY; which < IDENTITIES; which++) {
		begin("size=8MiB, region=512KiB", 2, SHARD);
		dump_block(1, 2);
		dump_block(2, 2);
		record_of_another(1, which);
		load_both(1, 0, -EBADMSG);
		assert_int_equal(flash_counter("damaged_blocks"), 1);
		assert_int_equal(flash_counter("regions_suspect"), 1);
		assert_false(present(&store, 1));
		load_both(1, -ENOENT, -ENOENT);
		assert_int_equal(flash_counter("damaged_blocks"), 1);
		for (uint32_t i = 0; i < 2; i++)
			assert_int_equal(load_one(&store, 2, i, SHARD), 0);
		end();
	}
}

/* ---- flushes ------------------------------------------------------------------------------- */

/* An engine that keeps a flush back while it is told to. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct engine_ops ops;
	struct engine *engine;
	struct engine_chain *kept;
	bool keep;
} flush = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int keeping_submit(struct engine *engine, struct engine_chain *chain)
{
	bool keep;

	pthread_mutex_lock(&flush.lock);
	keep = flush.keep && chain->op_count == 1 && chain->ops[0].code == OP_FDATASYNC;
	if (keep) {
		assert_null(flush.kept);
		flush.engine = engine;
		flush.kept = chain;
		pthread_cond_broadcast(&flush.changed);
	}
	pthread_mutex_unlock(&flush.lock);
	return keep ? 0 : engine_psync.submit(engine, chain);
}

static int keeping_poll(struct engine *engine, uint64_t wait_ns)
{
	struct engine_chain *chain = NULL;

	pthread_mutex_lock(&flush.lock);
	if (!flush.keep && flush.engine == engine) {
		chain = flush.kept;
		flush.kept = NULL;
	}
	pthread_mutex_unlock(&flush.lock);
	if (chain)
		engine_psync.submit(engine, chain); /* it has room */
	return engine_psync.poll(engine, wait_ns);
}

static const struct engine_ops *keeping_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : &flush.ops;
}

static void keep_flushes(void)
{
	pthread_mutex_lock(&flush.lock);
	flush.keep = true;
	pthread_mutex_unlock(&flush.lock);
}

static void await_flush(void)
{
	pthread_mutex_lock(&flush.lock);
	while (!flush.kept)
		pthread_cond_wait(&flush.changed, &flush.lock);
	pthread_mutex_unlock(&flush.lock);
}

static void let_flushes_go(void)
{
	pthread_mutex_lock(&flush.lock);
	flush.keep = false;
	engine_psync.wake(flush.engine);
	pthread_mutex_unlock(&flush.lock);
}

/* While one flush takes its time others come, and all of these share the next. */
static void one_flush_for_all(const char *flash, uint32_t durability)
{
	static uint8_t memory[DUMPS][SHARD];
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_xfer xfers[DUMPS];
	struct cairn_key keys[DUMPS];
	uint64_t tasks[DUMPS], dumped;

	fixture_new(&store);
	device_reset();
	flush.ops = engine_psync;
	flush.ops.submit = keeping_submit;
	flush.ops.poll = keeping_poll;
	device.table.engine = keeping_engine;
	snprintf(options, sizeof(options), "%s", flash);
	open_again(1, SHARD);
	/* The first that is durable is told in the superblock, with flushes of its own. */
	if (durability == CAIRN_DURABLE)
		assert_int_equal(dump_one(&store, DUMPS, 0, SHARD, durability), 0);
	assert_int_equal(flash_counter("flushes"), 0);
	dumped = flash_counter("dumps");
	keep_flushes();
	for (uint32_t i = 0; i < DUMPS; i++) {
		keys[i] = key_of(&store, i);
		content(&keys[i], 0, memory[i], SHARD);
		xfers[i] = xfer_of(&keys[i], 0, 0, memory[i], SHARD);
		assert_int_equal(cairn_dump(store.ns, &xfers[i], 1, &opts, &tasks[i]), 0);
		if (i == 0)
			await_flush();
	}
	while (flash_counter("dumps") < dumped + DUMPS) /* on the reactor that ends the flush */
		usleep(1000);
	assert_int_equal(flash_counter("flushes"), 0);
	let_flushes_go();
	for (uint32_t i = 0; i < DUMPS; i++) {
		assert_int_equal(cairn_task_wait(store.store, tasks[i], 0, UINT64_MAX), 0);
		assert_int_equal(xfers[i].result.status, 0);
	}
	assert_int_equal(flash_counter("flushes"), 2);
	end();
}

static void flushes_are_shared(void **state)
{
	(void)state;
	one_flush_for_all("size=8MiB, sync=group", CAIRN_DURABLE);
	one_flush_for_all("size=8MiB, sync=each", CAIRN_WRITTEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_large_for_a_region),
		cmocka_unit_test(a_record_of_another_is_a_miss),
		cmocka_unit_test(flushes_are_shared),
	};

	return cmocka_run_group_tests_name("flash, answers", tests, NULL, NULL);
}
