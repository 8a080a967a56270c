/* SPDX-License-Identifier: Apache-2.0 */
/* shared=yes: two stores on one directory, as two processes or hosts have them. */
#include <pthread.h>

#include "posix_store.h"

#define SHARD  8192u
#define LAYERS 24u

static struct fixture a, b;

static int setup(void **state)
{
	(void)state;
	fixture_new(&a);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&a);
	return 0;
}

static void open_both(uint32_t shards, const char *options)
{
	b = a;
	fixture_open(&a, options);
	fixture_open(&b, options);
	fixture_space(&a, "m", shards, SHARD);
	fixture_space(&b, "m", shards, SHARD);
}

static void close_both(void)
{
	fixture_close(&a);
	fixture_close(&b);
}

static void blocks_of_others_are_found(void **state)
{
	struct cairn_key key;

	(void)state;
	open_both(1, "shared=yes");
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dump_one(&a, i, 0, SHARD, i % 3), 0);
	for (uint32_t i = 0; i < 20; i++) {
		assert_true(present(&b, i));
		assert_int_equal(load_one(&b, i, 0, SHARD), 0);
		assert_int_equal(dump_one(&b, i, 0, SHARD, i % 3), CAIRN_PRESENT);
	}
	key = key_of(&b, 3);
	assert_int_equal(cairn_remove(b.ns, &key, 1, NULL, NULL, NULL), 0);
	assert_int_equal(load_one(&a, 3, 0, SHARD), -ENOENT);
	assert_int_equal(cairn_remove(a.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
	assert_int_equal(dump_one(&b, 3, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&a, 3, 0, SHARD), 0);
	close_both();
}

static void a_clear_elsewhere_is_seen(void **state)
{
	(void)state;
	open_both(1, "shared=yes");
	for (int round = 0; round < 3; round++) {
		assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
		assert_true(present(&b, 1));
		assert_int_equal(cairn_clear(b.ns, CAIRN_DURABLE), 0);
		/* Each call alone finds out. */
		if (round == 0)
			assert_false(present(&a, 1));
		if (round == 1)
			assert_int_equal(load_one(&a, 1, 0, SHARD), -ENOENT);
		if (round == 2)
			assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	}
	assert_true(present(&b, 1));
	close_both();
}

static void layers_from_both(void **state)
{
	(void)state;
	open_both(3, "shared=yes");
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	assert_int_equal(dump_one(&b, 1, 0, SHARD, 0), CAIRN_PRESENT);
	assert_int_equal(dump_one(&b, 1, 2, SHARD, CAIRN_DURABLE), 0);
	assert_false(present(&a, 1));
	assert_int_equal(load_one(&a, 1, 0, SHARD), -ENOENT);
	assert_int_equal(dump_one(&a, 1, 1, SHARD, CAIRN_DURABLE), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(load_one(&b, 1, i, SHARD), 0);
	assert_int_equal(each_file(a.path, NULL), 1);
	close_both();
}

struct crew {
	uint32_t next[16];
	int failed;
};
static struct crew crew;

static void *crew_run(void *context)
{
	struct fixture *f = context;

	for (uint32_t block = 0; block < 16; block++) {
		for (;;) {
			uint32_t i = __atomic_fetch_add(&crew.next[block], 1, __ATOMIC_RELAXED);
			int rc;

			if (i >= LAYERS * 2) /* each is dumped twice, by whoever comes */
				break;
			rc = dump_one(f, block, (i * 7) % LAYERS, SHARD, 0);
			if (rc != 0 && rc != CAIRN_PRESENT)
				__atomic_store_n(&crew.failed, rc, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static void many_writers_of_the_same(void **state)
{
	pthread_t threads[6];

	(void)state;
	memset(&crew, 0, sizeof(crew));
	open_both(LAYERS, "shared=yes");
	for (int i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, crew_run, i % 2 ? &a : &b);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crew.failed, 0);
	for (uint32_t block = 0; block < 16; block++) {
		assert_true(present(&a, block));
		for (uint32_t i = 0; i < LAYERS; i++)
			assert_int_equal(load_one(&b, block, i, SHARD), 0);
	}
	assert_int_equal(each_file(a.path, NULL), 16);
	close_both();
}

static void leftovers_are_swept(void **state)
{
	(void)state;
	open_both(2, "shared=yes");
	assert_int_equal(dump_one(&a, 1, 0, SHARD, 0), 0);
	close_both();
	assert_int_equal(each_file(a.path, NULL), 1);
	open_both(2, "shared=yes, partial_ttl=1h");
	assert_int_equal(each_file(a.path, NULL), 1);
	close_both();
	usleep(20000);
	open_both(2, "shared=yes, partial_ttl=1ms");
	assert_int_equal(each_file(a.path, NULL), 0);
	assert_int_equal(dump_one(&a, 1, 1, SHARD, 0), 0);
	assert_false(present(&a, 1));
	close_both();
	/* Alone again: what is unfinished goes, what is whole stays. */
	fixture_open(&a, "");
	fixture_space(&a, "m", 2, SHARD);
	assert_int_equal(each_file(a.path, NULL), 0);
	assert_int_equal(bytes_used(&a), du(a.path));
	fixture_close(&a);
}

static void one_namespace_one_id(void **state)
{
	(void)state;
	b = a;
	fixture_open(&a, "shared=yes");
	fixture_open(&b, "shared=yes");
	fixture_space(&a, "x", 1, SHARD);
	fixture_space(&b, "y", 1, SHARD);
	assert_int_equal(dump_one(&b, 5, 0, SHARD, 0), 0);
	cairn_namespace_close(a.ns);
	fixture_space(&a, "y", 1, SHARD);
	assert_int_equal(load_one(&a, 5, 0, SHARD), 0);
	close_both();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(blocks_of_others_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clear_elsewhere_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(layers_from_both, setup, teardown),
		cmocka_unit_test_setup_teardown(many_writers_of_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_are_swept, setup, teardown),
		cmocka_unit_test_setup_teardown(one_namespace_one_id, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
