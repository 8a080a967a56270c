/* SPDX-License-Identifier: Apache-2.0 */
#include "test_host.h"

#include <errno.h>
#include <pthread.h>

#include "stages/null/null.h"
#include "stages/stages.h"

struct fixture {
	struct test_host *host;
	struct test_ns *fixed;	  /* 4 shards of 1000 bytes */
	struct test_ns *variable; /* as each dump says */
};

static void fill(uint8_t *data, size_t length, uint64_t seed)
{
	size_t i;

	for (i = 0; i < length; i++)
		data[i] = (uint8_t)((seed + i) * 0x9e3779b97f4a7c15u >> 56);
}

static struct fixture fixture_open(const char *options)
{
	struct fixture fixture = {.host = test_host_new()};

	test_host_push(fixture.host, &cairn_stage_null, options);
	test_host_open(fixture.host);
	fixture.fixed = test_ns_new(fixture.host, "fixed", 4, 1000);
	fixture.variable = test_ns_new(fixture.host, "variable", 0, 0);
	return fixture;
}

static void fixture_close(struct fixture *fixture)
{
	test_ns_free(fixture->fixed);
	test_ns_free(fixture->variable);
	test_host_free(fixture->host);
}

static struct null_stage *stage_of(struct fixture *fixture)
{
	return (struct null_stage *)test_lowest(fixture->host)->self;
}

static uint64_t counter(struct fixture *fixture, enum null_counter row)
{
	return test_lowest(fixture->host)->counters[row];
}

/* Dumps a block of one shard. */
static int dump_one(struct fixture *fixture, uint64_t number, size_t length)
{
	uint8_t *data = malloc(length);
	int ret;

	fill(data, length, number);
	ret = test_dump(fixture->variable, test_key(number), 0, 1, length, data, length);
	free(data);
	return ret;
}

static void test_present_only_when_whole(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	static const uint32_t order[4] = {2, 0, 3, 1};
	uint8_t data[4][1000], back[1000];
	uint32_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		uint32_t shard = order[i];

		fill(data[shard], 1000, shard);
		assert_false(test_present(fixture.fixed, test_key(1)));
		assert_int_equal(test_load(fixture.fixed, test_key(1), shard, 0, back, 1000),
				 -ENOENT);
		assert_int_equal(
			test_dump(fixture.fixed, test_key(1), shard, 4, 1000, data[shard], 1000),
			0);
		/* A second one is there already, before and after the block is whole. */
		assert_int_equal(test_dump(fixture.fixed, test_key(1), shard, 4, 1000, back, 1000),
				 CAIRN_PRESENT);
	}
	assert_true(test_present(fixture.fixed, test_key(1)));
	for (i = 0; i < 4; i++) {
		assert_int_equal(test_load(fixture.fixed, test_key(1), i, 0, back, 1000), 0);
		assert_memory_equal(back, data[i], 1000);
	}
	assert_int_equal(test_dump(fixture.fixed, test_key(1), 2, 4, 1000, back, 1000),
			 CAIRN_PRESENT);
	assert_int_equal(test_load(fixture.fixed, test_key(1), 2, 0, back, 1000), 0);
	assert_memory_equal(back, data[2], 1000);
	/* Another namespace has nothing under the same key. */
	assert_false(test_present(fixture.variable, test_key(1)));
	fixture_close(&fixture);
}

static void test_geometry(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct test_ns *variable = fixture.variable, *fixed = fixture.fixed;
	struct cairn_key key = test_key(7);
	uint8_t data[1000] = {0};

	(void)state;
	assert_int_equal(test_dump(fixed, key, 0, 3, 1000, data, 1000), -EINVAL);
	assert_int_equal(test_dump(fixed, key, 0, 4, 999, data, 999), -EINVAL);
	assert_int_equal(test_dump(fixed, key, 4, 4, 1000, data, 1000), -EINVAL);
	assert_int_equal(test_dump(fixed, key, 3, 4, 1000, data, 999), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 0, 1000, data, 1000), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 1025, 1000, data, 1000), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 2, 0, data, 1), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 2, 1000, data, 999), -EINVAL);
	assert_int_equal(stage_of(&fixture)->bytes_used, 0);

	/* The last one may be short; until the block is whole its geometry stands. */
	assert_int_equal(test_dump(variable, key, 1, 2, 1000, data, 10), 0);
	assert_int_equal(test_dump(variable, key, 0, 3, 1000, data, 1000), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 2, 500, data, 500), -EINVAL);
	assert_int_equal(test_dump(variable, key, 0, 2, 1000, data, 1000), 0);
	assert_true(test_present(variable, key));
	assert_int_equal(test_load(variable, key, 1, 5, data, 6), -EINVAL);
	assert_int_equal(test_load(variable, key, 1, 10, data, 1), -EINVAL);
	assert_int_equal(test_load(variable, key, 2, 0, data, 1), -EINVAL);
	assert_int_equal(test_load(variable, key, 1, UINT64_MAX, data, 2), -EINVAL);
	assert_int_equal(test_load(variable, key, 1, 5, data, 5), 0);
	fixture_close(&fixture);
}

static void test_partial_loads(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	const size_t length = 200000; /* three pieces and a bit */
	static const size_t cuts[][2] = {{0, 1},       {0, 200000},   {65535, 2},  {65536, 65536},
					 {1, 199999},  {199999, 1},   {131071, 3}, {77, 100000},
					 {196608, 10}, {65500, 70000}};
	uint8_t *data = malloc(length), *back = malloc(length);
	size_t i;

	(void)state;
	fill(data, length, 3);
	assert_int_equal(test_dump(fixture.variable, test_key(3), 0, 1, length, data, length), 0);
	for (i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		memset(back, 0xee, length);
		assert_int_equal(
			test_load(fixture.variable, test_key(3), 0, cuts[i][0], back, cuts[i][1]),
			0);
		assert_memory_equal(back, data + cuts[i][0], cuts[i][1]);
		if (cuts[i][1] < length)
			assert_int_equal(back[cuts[i][1]], 0xee);
	}
	free(data);
	free(back);
	fixture_close(&fixture);
}

static void test_damage_is_a_miss(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct null_stage *stage = stage_of(&fixture);
	uint8_t *back = malloc(100000);
	uint32_t slot;

	(void)state;
	assert_int_equal(dump_one(&fixture, 1, 100000), 0);
	for (slot = 0; !stage->slots[slot]; slot++)
		;
	stage->slots[slot]->shards[0].payload[70000] ^= 1;
	/* What the flipped bit is not in loads; what it is in does not, and goes. */
	assert_int_equal(test_load(fixture.variable, test_key(1), 0, 0, back, 65536), 0);
	assert_int_equal(test_load(fixture.variable, test_key(1), 0, 99999, back, 1), -EBADMSG);
	assert_false(test_present(fixture.variable, test_key(1)));
	assert_int_equal(counter(&fixture, NULL_DAMAGED), 1);
	assert_int_equal(test_load(fixture.variable, test_key(1), 0, 0, back, 1), -ENOENT);
	assert_int_equal(dump_one(&fixture, 1, 100000), 0);
	assert_int_equal(test_load(fixture.variable, test_key(1), 0, 0, back, 100000), 0);
	free(back);
	fixture_close(&fixture);
}

static void test_remove_and_clear(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct test_level *level = test_lowest(fixture.host);
	struct cairn_tier_stat st;
	uint8_t data[1000] = {1};
	uint64_t i;

	(void)state;
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_REMOVE, test_key(1)), -ENOENT);
	assert_int_equal(dump_one(&fixture, 1, 100), 0);
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_PREFETCH, test_key(1)), 0);
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_REMOVE, test_key(1)), 0);
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_PREFETCH, test_key(1)), -ENOENT);
	assert_false(test_present(fixture.variable, test_key(1)));
	assert_int_equal(stage_of(&fixture)->bytes_used, 0);
	/* Removed, it may be dumped again, in another geometry too; so may a partial one. */
	assert_int_equal(dump_one(&fixture, 1, 50), 0);
	assert_int_equal(test_dump(fixture.variable, test_key(2), 0, 2, 10, data, 10), 0);
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_REMOVE, test_key(2)), -ENOENT);
	assert_int_equal(dump_one(&fixture, 2, 60), 0);

	for (i = 10; i < 40; i++)
		assert_int_equal(dump_one(&fixture, i, 100), 0);
	assert_int_equal(test_dump(fixture.fixed, test_key(5), 0, 4, 1000, data, 1000), 0);
	level->ops->stat(level->self, &st);
	assert_int_equal(st.blocks, 32);
	assert_int_equal(level->ops->clear(level->self, &fixture.variable->view, CAIRN_DURABLE), 0);
	level->ops->stat(level->self, &st);
	assert_int_equal(st.blocks, 0);
	for (i = 0; i < 40; i++)
		assert_false(test_present(fixture.variable, test_key(i)));
	assert_int_equal(dump_one(&fixture, 11, 100), 0);
	assert_true(test_present(fixture.variable, test_key(11)));
	/* The partial one of the other namespace is as it was. */
	for (i = 1; i < 4; i++)
		assert_int_equal(
			test_dump(fixture.fixed, test_key(5), (uint32_t)i, 4, 1000, data, 1000), 0);
	assert_true(test_present(fixture.fixed, test_key(5)));
	assert_true(index_check(stage_of(&fixture)->index, NULL, 0));
	fixture_close(&fixture);
}

static void test_bound_is_hard(void **state)
{
	struct fixture fixture = fixture_open("size=100KiB");
	struct null_stage *stage = stage_of(&fixture);
	uint64_t i;

	(void)state;
	assert_int_equal(dump_one(&fixture, 1, 200000), -EFBIG);
	assert_int_equal(dump_one(&fixture, 1, 102400), -EFBIG); /* no room for the tables */
	for (i = 0; i < 100; i++) {
		assert_int_equal(dump_one(&fixture, i, 10000), 0);
		assert_true(stage->bytes_used <= 102400);
		assert_true(test_present(fixture.variable, test_key(i)));
		/* The least recently used goes first: the one loaded each time stays. */
		uint8_t byte;

		assert_int_equal(test_load(fixture.variable, test_key(0), 0, 0, &byte, 1), 0);
	}
	assert_true(test_present(fixture.variable, test_key(99)));
	assert_false(test_present(fixture.variable, test_key(1)));
	assert_true(counter(&fixture, NULL_EVICTED) >= 90);
	assert_true(index_check(stage->index, NULL, 0));
	fixture_close(&fixture);
}

static void test_entries_bound(void **state)
{
	struct fixture fixture = fixture_open("entries=8");
	uint64_t i;

	(void)state;
	for (i = 0; i < 50; i++)
		assert_int_equal(dump_one(&fixture, i, 10), 0);
	assert_true(stage_of(&fixture)->blocks <= 8);
	assert_true(test_present(fixture.variable, test_key(49)));
	fixture_close(&fixture);
}

static void test_holds(void **state)
{
	struct fixture fixture = fixture_open("size=100KiB");
	struct test_level *level = test_lowest(fixture.host);
	const struct cairn_ns_view *view = &fixture.variable->view;
	struct cairn_key keys[9];
	struct cairn_probe probes[9], again;
	uint64_t i;

	(void)state;
	for (i = 0; i < 9; i++) {
		keys[i] = test_key(i);
		assert_int_equal(dump_one(&fixture, i, 10000), 0);
	}
	level->ops->lookup(level->self, view, keys, 9, CAIRN_PROBE_HOLD, probes);
	for (i = 0; i < 9; i++) {
		assert_int_equal(probes[i].present, 1);
		assert_int_not_equal(probes[i].hold, 0);
		assert_int_equal(probes[i].shard_count, 1);
		assert_int_equal(probes[i].last_bytes, 10000);
	}
	/* Everything is held: no room, and nothing held went for it. */
	assert_int_equal(dump_one(&fixture, 100, 20000), -ENOSPC);
	for (i = 0; i < 9; i++)
		assert_true(test_present(fixture.variable, keys[i]));
	/* Removes win over holds, and the hold of a removed block is no error. */
	assert_int_equal(test_plain(fixture.variable, CAIRN_OP_REMOVE, keys[3]), 0);
	assert_false(test_present(fixture.variable, keys[3]));
	assert_int_equal(dump_one(&fixture, 3, 10000), 0);
	level->ops->unhold(level->self, view, &keys[3], probes[3].hold);
	/* The new block under that key was not held: it may go, and it alone. */
	assert_int_equal(dump_one(&fixture, 100, 10000), 0);
	assert_false(test_present(fixture.variable, keys[3]));
	/* Two holds on one block: it stays until both are given back. */
	level->ops->lookup(level->self, view, &keys[0], 1, CAIRN_PROBE_HOLD, &again);
	for (i = 0; i < 9; i++)
		level->ops->unhold(level->self, view, &keys[i], probes[i].hold);
	for (i = 200; i < 210; i++)
		assert_int_equal(dump_one(&fixture, i, 10000), 0);
	assert_true(test_present(fixture.variable, keys[0]));
	level->ops->unhold(level->self, view, &keys[0], again.hold);
	for (i = 300; i < 310; i++)
		assert_int_equal(dump_one(&fixture, i, 10000), 0);
	assert_false(test_present(fixture.variable, keys[0]));
	/* A clear wins over holds too. */
	level->ops->lookup(level->self, view, &(struct cairn_key){0}, 1, CAIRN_PROBE_HOLD, &again);
	assert_int_equal(again.present, 0);
	keys[0] = test_key(309);
	level->ops->lookup(level->self, view, &keys[0], 1, CAIRN_PROBE_HOLD, &again);
	assert_int_equal(again.present, 1);
	assert_int_equal(level->ops->clear(level->self, view, 0), 0);
	assert_false(test_present(fixture.variable, keys[0]));
	level->ops->unhold(level->self, view, &keys[0], again.hold);
	fixture_close(&fixture);
}

static void test_leaves_go_first(void **state)
{
	struct fixture fixture = fixture_open("size=64KiB");
	uint8_t data[10000] = {0};
	struct cairn_key keys[20];
	struct cairn_probe probes[5];
	struct test_level *level = test_lowest(fixture.host);
	struct test_io *tio;
	uint32_t i;

	(void)state;
	/* A chain of five, dumped from its root; the root is the oldest. */
	for (i = 0; i < 5; i++) {
		keys[i] = test_key(i);
		tio = test_io_new(fixture.host, CAIRN_OP_DUMP, fixture.variable, keys[i]);
		tio->io.shard_count = 1;
		tio->io.shard_bytes = sizeof(data);
		tio->io.attr.size = sizeof(tio->io.attr);
		tio->io.attr.depth = i;
		if (i > 0)
			tio->io.attr.parent = keys[i - 1];
		test_io_part(tio, 0, 0, data, sizeof(data));
		assert_int_equal(test_io_run(tio), 0);
		test_io_free(tio);
	}
	/* Three strangers push out the leaves of the chain, from its end. */
	for (i = 0; i < 3; i++)
		assert_int_equal(dump_one(&fixture, 100 + i, 10000), 0);
	level->ops->lookup(level->self, &fixture.variable->view, keys, 5, CAIRN_PROBE_CHAIN,
			   probes);
	for (i = 0; i < 5; i++)
		assert_int_equal(probes[i].present, i < 3);
	assert_true(index_check(stage_of(&fixture)->index, NULL, 0));
	fixture_close(&fixture);
}

static void test_abandoned_partial_makes_room(void **state)
{
	struct fixture fixture = fixture_open("size=64KiB");
	uint8_t data[10000] = {0};
	uint32_t i;

	(void)state;
	for (i = 0; i < 20; i++) /* none of them will ever be whole */
		assert_int_equal(test_dump(fixture.variable, test_key(i), 0, 2, sizeof(data), data,
					   sizeof(data)),
				 0);
	for (i = 0; i < 6; i++)
		assert_int_equal(dump_one(&fixture, 100 + i, 10000), 0);
	for (i = 0; i < 6; i++)
		assert_true(test_present(fixture.variable, test_key(100 + i)));
	fixture_close(&fixture);
}

static void test_metadata_and_crc(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct test_io *tio;
	struct cairn_part *part;
	uint8_t data[300] = "0123456789", back[300];
	uint32_t crc[2] = {0, 0x77};

	(void)state;
	tio = test_io_new(fixture.host, CAIRN_OP_DUMP, fixture.variable, test_key(1));
	tio->io.shard_count = 1;
	tio->io.shard_bytes = 1000; /* raw; 300 of it are stored */
	part = test_io_part(tio, 0, 0, data, 9);
	part->raw_length = 1000;
	part->meta_length = 4;
	memcpy(part->meta, "meta", 4);
	memcpy(data, "123456789", 9);
	assert_int_equal(test_io_run(tio), 0);
	test_io_free(tio);

	tio = test_io_new(fixture.host, CAIRN_OP_DESCRIBE, fixture.variable, test_key(1));
	part = test_io_part(tio, 0, 0, NULL, 0);
	assert_int_equal(test_io_run(tio), 0);
	assert_int_equal(part->raw_length, 1000);
	assert_int_equal(part->stored_length, 9);
	assert_int_equal(part->meta_length, 4);
	assert_memory_equal(part->meta, "meta", 4);
	test_io_free(tio);

	tio = test_io_new(fixture.host, CAIRN_OP_LOAD, fixture.variable, test_key(1));
	part = test_io_part(tio, 0, 3, back, 6);
	part->crc = crc;
	part->crc_count = 2;
	assert_int_equal(test_io_run(tio), 0);
	assert_memory_equal(back, "456789", 6);
	assert_int_equal(crc[0], 0xe3069283); /* of all the stored bytes */
	assert_int_equal(crc[1], 0x77);
	assert_memory_equal(part->meta, "meta", 4);
	test_io_free(tio);

	/* A durability that memory cannot have. */
	tio = test_io_new(fixture.host, CAIRN_OP_DUMP, fixture.variable, test_key(2));
	tio->io.shard_count = 1;
	tio->io.shard_bytes = 9;
	tio->io.durability = CAIRN_WRITTEN;
	test_io_part(tio, 0, 0, data, 9);
	assert_int_equal(test_io_run(tio), -EOPNOTSUPP);
	test_io_free(tio);
	fixture_close(&fixture);
}

static void test_binds_compare_whole(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct test_ns *same = test_ns_new(fixture.host, "variable", 0, 0);
	struct test_ns *longer = test_ns_new(fixture.host, "variable ", 0, 0);

	(void)state;
	assert_ptr_equal(same->view.binding[0], fixture.variable->view.binding[0]);
	assert_ptr_not_equal(longer->view.binding[0], fixture.variable->view.binding[0]);
	assert_int_equal(dump_one(&fixture, 1, 10), 0);
	assert_true(test_present(same, test_key(1)));
	assert_false(test_present(longer, test_key(1)));
	test_ns_free(same);
	test_ns_free(longer);
	fixture_close(&fixture);
}

/* ---- threads ------------------------------------------------------------------ */

#define THREADS	    8
#define SHARDS	    64
#define SHARD_BYTES 512

struct crowd {
	struct fixture *fixture;
	uint32_t first; /* of the shards that this thread dumps */
	struct cairn_key key;
	int bad;
};

static void *dump_some(void *argument)
{
	struct crowd *crowd = argument;
	struct test_ns *ns = crowd->fixture->variable;
	uint8_t data[SHARD_BYTES], back[SHARD_BYTES];
	uint32_t i, shard;
	int ret;

	for (i = 0; i < SHARDS / THREADS; i++) {
		shard = (crowd->first + i * 37u * THREADS) % SHARDS;
		fill(data, sizeof(data), shard);
		ret = test_dump(ns, crowd->key, shard, SHARDS, SHARD_BYTES, data, sizeof(data));
		if (ret != 0)
			crowd->bad++;
		/* What is seen whole loads whole. */
		if (test_present(ns, crowd->key)) {
			for (shard = 0; shard < SHARDS; shard++) {
				fill(data, sizeof(data), shard);
				ret = test_load(ns, crowd->key, shard, 0, back, sizeof(back));
				if (ret != 0 || memcmp(data, back, sizeof(data)) != 0)
					crowd->bad++;
			}
		} else if (test_load(ns, crowd->key, 0, 0, back, 1) == 0 &&
			   !test_present(ns, crowd->key)) {
			crowd->bad++;
		}
	}
	return NULL;
}

static void test_eight_threads_one_block(void **state)
{
	struct fixture fixture = fixture_open(NULL);
	struct crowd crowds[THREADS];
	pthread_t threads[THREADS];
	uint32_t round, i;

	(void)state;
	for (round = 0; round < 20; round++) {
		for (i = 0; i < THREADS; i++) {
			crowds[i] = (struct crowd){&fixture, i, test_key(round), 0};
			pthread_create(&threads[i], NULL, dump_some, &crowds[i]);
		}
		for (i = 0; i < THREADS; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(crowds[i].bad, 0);
		}
		assert_true(test_present(fixture.variable, test_key(round)));
	}
	fixture_close(&fixture);
}

struct mixer {
	struct fixture *fixture;
	uint64_t seed;
	int wrong;
};

static void *mix_calls(void *argument)
{
	struct mixer *mixer = argument;
	struct test_ns *ns = mixer->fixture->variable;
	struct test_level *level = test_lowest(mixer->fixture->host);
	uint8_t data[2000], back[2000];
	struct cairn_probe probe;
	struct cairn_key key;
	uint64_t number;
	int i;

	for (i = 0; i < 1000; i++) {
		mixer->seed = mixer->seed * 6364136223846793005u + 1442695040888963407u;
		number = (mixer->seed >> 33) % 64;
		key = test_key(number);
		fill(data, sizeof(data), number);
		switch ((mixer->seed >> 40) % 8) {
		case 0:
			test_plain(ns, CAIRN_OP_REMOVE, key);
			break;
		case 1:
			level->ops->lookup(level->self, &ns->view, &key, 1, CAIRN_PROBE_HOLD,
					   &probe);
			if (probe.hold)
				level->ops->unhold(level->self, &ns->view, &key, probe.hold);
			break;
		case 2:
			if (i % 50 == 0)
				level->ops->clear(level->self, &ns->view, 0);
			break;
		case 3:
		case 4:
			test_dump(ns, key, 0, 1, sizeof(data), data, sizeof(data));
			break;
		default:
			if (test_load(ns, key, 0, 0, back, sizeof(back)) == 0 &&
			    memcmp(back, data, sizeof(data)) != 0)
				mixer->wrong++;
		}
	}
	return NULL;
}

static void test_eight_threads_mixed(void **state)
{
	struct fixture fixture = fixture_open("size=64KiB;entries=40");
	struct mixer mixers[THREADS];
	pthread_t threads[THREADS];
	uint32_t i;

	(void)state;
	for (i = 0; i < THREADS; i++) {
		mixers[i] = (struct mixer){&fixture, i + 1, 0};
		pthread_create(&threads[i], NULL, mix_calls, &mixers[i]);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(mixers[i].wrong, 0);
	}
	assert_true(stage_of(&fixture)->bytes_used <= 65536);
	assert_true(index_check(stage_of(&fixture)->index, NULL, 0));
	fixture_close(&fixture);
}

/* Above another tier it keeps what it cannot promise, and leaves the answer to that one. */
static void test_above_another_tier(void **state)
{
	struct test_host *host = test_host_new();
	struct test_ns *ns;
	struct test_io *tio;
	struct cairn_key key = test_key(1);
	struct cairn_probe probe;
	uint8_t data[10] = {1};
	int i;

	(void)state;
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_open(host);
	ns = test_ns_new(host, "ns", 0, 0);
	for (i = 0; i < 2; i++) {
		tio = test_io_new(host, CAIRN_OP_DUMP, ns, key);
		tio->io.shard_count = 1;
		tio->io.shard_bytes = sizeof(data);
		tio->io.durability = CAIRN_WRITTEN;
		test_io_part(tio, 0, 0, data, sizeof(data));
		assert_int_equal(test_io_run(tio), -EOPNOTSUPP);
		test_io_free(tio);
	}
	host->levels[0].ops->lookup(host->levels[0].self, &ns->view, &key, 1, 0, &probe);
	assert_int_equal(probe.present, 1);
	test_ns_free(ns);
	test_host_free(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_present_only_when_whole),
		cmocka_unit_test(test_geometry),
		cmocka_unit_test(test_partial_loads),
		cmocka_unit_test(test_damage_is_a_miss),
		cmocka_unit_test(test_remove_and_clear),
		cmocka_unit_test(test_bound_is_hard),
		cmocka_unit_test(test_entries_bound),
		cmocka_unit_test(test_holds),
		cmocka_unit_test(test_leaves_go_first),
		cmocka_unit_test(test_abandoned_partial_makes_room),
		cmocka_unit_test(test_metadata_and_crc),
		cmocka_unit_test(test_binds_compare_whole),
		cmocka_unit_test(test_eight_threads_one_block),
		cmocka_unit_test(test_eight_threads_mixed),
		cmocka_unit_test(test_above_another_tier),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
