/* SPDX-License-Identifier: Apache-2.0 */
/* The posix tier as its owner sees it: bytes, presence, the budget, and what a restart finds. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "lock_child.h"
#include "posix_store.h"
#include "random.h"

#define SHARD 12288u

static struct fixture f;

static int setup(void **state)
{
	(void)state;
	fixture_new(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&f);
	return 0;
}

static int findings;

static int count_finding(void *context, const struct cairn_finding *finding)
{
	(void)context;
	assert_non_null(finding->where);
	findings++;
	return 0;
}

static int check_store(void)
{
	return cairn_check(f.spec, NULL, count_finding, NULL, NULL);
}

static void whole_blocks(void **state)
{
	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "m", 1, SHARD);
	assert_int_equal(load_one(&f, 1, 0, SHARD), -ENOENT);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, CAIRN_WRITTEN), 0);
	assert_true(present(&f, 1));
	assert_int_equal(load_one(&f, 1, 0, SHARD), 0);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, CAIRN_WRITTEN), CAIRN_PRESENT);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, CAIRN_DURABLE), CAIRN_PRESENT);
	assert_int_equal(dump_one(&f, 2, 0, SHARD, CAIRN_DURABLE), 0);
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
}

/* Every kind of range and memory, with and without O_DIRECT. */
static void parts_of_shards(void **state)
{
	static const char *const options[] = {"direct=auto", "direct=no"};
	const size_t bytes = 3 * 65536 + 777;

	(void)state;
	for (int i = 0; i < 2; i++) {
		fixture_open(&f, options[i]);
		fixture_space(&f, i ? "a" : "b", 1, bytes);
		assert_int_equal(dump_one(&f, 1, 0, bytes, 0), 0);
		for (size_t skew = 0; skew < 2; skew++) {
			assert_int_equal(load_part(&f, 1, 0, bytes, 0, bytes, skew), 0);
			assert_int_equal(load_part(&f, 1, 0, bytes, 0, 1, skew), 0);
			assert_int_equal(load_part(&f, 1, 0, bytes, bytes - 1, 1, skew), 0);
			assert_int_equal(load_part(&f, 1, 0, bytes, 65536, 65536, skew), 0);
			assert_int_equal(load_part(&f, 1, 0, bytes, 65535, 2, skew), 0);
			assert_int_equal(load_part(&f, 1, 0, bytes, 100000, 90000, skew), 0);
		}
		fixture_close(&f);
	}
}

static void large_shards_through_small_buffers(void **state)
{
	const size_t bytes = (9u << 20) + 4097;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "large", 2, bytes);
	for (uint32_t shard = 0; shard < 2; shard++) {
		struct cairn_key key = key_of(&f, 7);
		uint8_t *data = malloc(bytes + 1);
		struct cairn_xfer xfer = xfer_of(&key, shard, 0, data + 1, bytes);

		content(&key, shard, data + 1, bytes);
		cairn_dump(f.ns, &xfer, 1, NULL, NULL);
		assert_int_equal(xfer.result.status, 0);
		free(data);
	}
	assert_int_equal(load_part(&f, 7, 0, bytes, 0, bytes, 0), 0);
	assert_int_equal(load_part(&f, 7, 1, bytes, 0, bytes, 3), 0);
	assert_int_equal(load_part(&f, 7, 1, bytes, 5000001, 3000000, 3), 0);
	fixture_close(&f);
}

static void many_shards_in_one_call(void **state)
{
	enum { SHARDS = 200, BYTES = 5000 };
	static uint8_t data[SHARDS][BYTES], back[SHARDS][BYTES];
	static struct cairn_xfer xfers[SHARDS];
	struct cairn_key key;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "many", SHARDS, BYTES);
	key = key_of(&f, 1);
	for (uint32_t i = 0; i < SHARDS; i++) {
		content(&key, i, data[i], BYTES);
		xfers[i] = xfer_of(&key, i, 0, data[i], BYTES);
	}
	assert_int_equal(cairn_dump(f.ns, xfers, SHARDS, NULL, NULL), 0);
	for (uint32_t i = 0; i < SHARDS; i++) /* backwards, and each other one */
		xfers[i] = xfer_of(&key, SHARDS - 1 - i, 0, back[SHARDS - 1 - i], BYTES);
	assert_int_equal(cairn_load(f.ns, xfers, SHARDS, NULL, NULL), 0);
	assert_memory_equal(data, back, sizeof(data));
	assert_int_equal(load_one(&f, 1, 137, BYTES), 0);
	fixture_close(&f);
}

static void variable_geometry(void **state)
{
	static uint8_t data[3][6000];
	struct cairn_xfer xfers[3];
	struct cairn_found found = {0};
	struct cairn_key key;

	(void)state;
	for (int turn = 0; turn < 2; turn++) {
		fixture_open(&f, turn ? "shared=yes" : "");
		fixture_space(&f, turn ? "shared" : "owned", 0, 0);
		key = key_of(&f, 9);
		for (uint32_t i = 0; i < 3; i++) {
			content(&key, i, data[i], 6000);
			xfers[i] = xfer_of(&key, i, 0, data[i], i == 2 ? 100 : 6000);
			xfers[i].shard_count = 3;
			xfers[i].shard_bytes = 6000;
		}
		assert_int_equal(cairn_dump(f.ns, xfers, 2, NULL, NULL), 0);
		assert_false(present(&f, 9));
		xfers[2].shard_count = 4;
		assert_int_equal(cairn_dump(f.ns, &xfers[2], 1, NULL, NULL), -EINVAL);
		xfers[2].shard_count = 3;
		assert_int_equal(cairn_dump(f.ns, &xfers[2], 1, NULL, NULL), 0);
		assert_int_equal(cairn_lookup(f.ns, &key, 1, &found, NULL, NULL), 1);
		assert_int_equal(found.shard_count, 3);
		assert_int_equal(found.shard_bytes, 6000);
		assert_int_equal(found.last_bytes, 100);
		assert_int_equal(load_one(&f, 9, 1, 6000), 0);
		assert_int_equal(load_one(&f, 9, 2, 100), 0);
		assert_int_equal(load_one(&f, 9, 2, 101), -EINVAL);
		assert_int_equal(load_one(&f, 9, 3, 100), -EINVAL);
		fixture_close(&f);
	}
}

/* ---- partial blocks -------------------------------------------------------------- */

#define LAYERS	64u
#define THREADS 8u
#define LAYER	4096u

struct layers {
	uint32_t block;
	uint32_t order[LAYERS];
	uint32_t next;
	uint32_t done;
};

static void *layers_dump(void *context)
{
	struct layers *l = context;

	for (;;) {
		uint32_t i = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

		if (i >= LAYERS)
			return NULL;
		if (dump_one(&f, l->block, l->order[i], LAYER, 0) != 0)
			return l;
		__atomic_fetch_add(&l->done, 1, __ATOMIC_SEQ_CST);
	}
}

static void never_whole_before_it_is(void **state)
{
	struct random seed = {3};

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "layers", LAYERS, LAYER);
	for (uint32_t round = 0; round < 12; round++) {
		struct layers l = {.block = round};
		pthread_t threads[THREADS];

		for (uint32_t i = 0; i < LAYERS; i++) {
			uint32_t j = (uint32_t)(random_next(&seed) % (i + 1));

			l.order[i] = l.order[j];
			l.order[j] = i;
		}
		for (uint32_t i = 0; i < THREADS; i++)
			pthread_create(&threads[i], NULL, layers_dump, &l);
		while (__atomic_load_n(&l.done, __ATOMIC_SEQ_CST) < LAYERS - 1) {
			/* Asked first, then looked whether it may have been. */
			bool whole = present(&f, round);

			if (whole)
				assert_true(__atomic_load_n(&l.next, __ATOMIC_SEQ_CST) >= LAYERS);
		}
		for (uint32_t i = 0; i < THREADS; i++) {
			void *failed;

			pthread_join(threads[i], &failed);
			assert_null(failed);
		}
		assert_true(present(&f, round));
		for (uint32_t i = 0; i < LAYERS; i += 7)
			assert_int_equal(load_one(&f, round, i, LAYER), 0);
	}
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
}

static void partials_are_dropped(void **state)
{
	struct cairn_key key;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "p", 3, SHARD);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), CAIRN_PRESENT);
	assert_int_equal(load_one(&f, 1, 0, SHARD), -ENOENT);
	key = key_of(&f, 1);
	assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
	assert_int_equal(each_file(f.path, NULL), 0);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	assert_int_equal(dump_one(&f, 2, 1, SHARD, 0), 0);
	assert_int_equal(each_file(f.path, NULL), 2);
	assert_int_equal(cairn_clear(f.ns, CAIRN_WRITTEN), 0);
	assert_int_equal(each_file(f.path, NULL), 0);
	assert_int_equal(dump_one(&f, 2, 1, SHARD, 0), 0);
	fixture_close(&f);
	assert_int_equal(each_file(f.path, NULL), 0);
}

/* ---- removing and clearing ---------------------------------------------------------- */

static void remove_and_clear(void **state)
{
	struct cairn_key key;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "m", 1, SHARD);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	key = key_of(&f, 3);
	assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), 0);
	assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
	assert_false(present(&f, 3));
	assert_int_equal(dump_one(&f, 3, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&f, 3, 0, SHARD), 0);
	assert_int_equal(cairn_clear(f.ns, CAIRN_DURABLE), 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_false(present(&f, i));
	assert_int_equal(blocks_known(&f), 0);
	assert_int_equal(dump_one(&f, 4, 0, SHARD, 0), 0);
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
	fixture_open(&f, "");
	fixture_space(&f, "m", 1, SHARD);
	assert_int_equal(blocks_known(&f), 1);
	assert_true(present(&f, 4));
	assert_false(present(&f, 5));
	fixture_close(&f);
}

static void namespaces_never_meet(void **state)
{
	struct cairn_key key;
	struct cairn_namespace *first;
	struct cairn_found found;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "one", 1, SHARD);
	first = f.ns;
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	key = key_of(&f, 1);
	fixture_space(&f, "two", 1, SHARD);
	assert_int_equal(cairn_lookup(f.ns, &key, 1, &found, NULL, NULL), 0);
	cairn_namespace_close(first);
	fixture_close(&f);
}

/* ---- restart -------------------------------------------------------------------------- */

static void reopen_clean(void **state)
{
	uint64_t used;

	(void)state;
	fixture_open(&f, "size=8MiB");
	fixture_space(&f, "m", 1, SHARD);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&f, 0, 0, SHARD), 0); /* hot now */
	fixture_close(&f);
	for (int turn = 0; turn < 2; turn++) {
		fixture_open(&f, "size=8MiB");
		fixture_space(&f, "m", 1, SHARD);
		assert_int_equal(blocks_known(&f), 40);
		used = bytes_used(&f);
		assert_int_equal(used, du(f.path));
		for (uint32_t i = 0; i < 40; i++)
			assert_true(present(&f, i));
		fixture_close(&f);
	}
	/* The order was kept: of the ten that stay, the one used last is one. */
	fixture_open(&f, "size=8MiB, entries=16");
	fixture_space(&f, "m", 1, SHARD);
	assert_int_equal(blocks_known(&f), 16);
	assert_true(present(&f, 0));
	assert_false(present(&f, 1));
	assert_true(present(&f, 39));
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
}

/* A process that dumps, says so, and is killed. */
static void killed_writer(uint32_t first, uint32_t count, uint32_t last_shard)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		fixture_open(&f, "size=8MiB");
		fixture_space(&f, "m", 2, SHARD);
		for (uint32_t i = first; i < first + count; i++) {
			if (dump_one(&f, i, 0, SHARD, 0) || dump_one(&f, i, 1, SHARD, 0))
				_exit(1);
		}
		if (dump_one(&f, 1000, last_shard, SHARD, 0))
			_exit(1);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void one_more(const char *file)
{
	assert_null(strstr(file, ".t"));
}

static void reopen_after_a_kill(void **state)
{
	(void)state;
	killed_writer(0, 20, 0);
	killed_writer(20, 20, 1); /* and opened once in between, by a second one */
	fixture_open(&f, "size=8MiB");
	fixture_space(&f, "m", 2, SHARD);
	assert_int_equal(blocks_known(&f), 40);
	assert_false(present(&f, 1000));
	assert_int_equal(each_file(f.path, one_more), 40);
	assert_int_equal(bytes_used(&f), du(f.path));
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(load_one(&f, i, 0, SHARD), 0);
		assert_int_equal(load_one(&f, i, 1, SHARD), 0);
	}
	fixture_close(&f);
}

static void another_owner_is_busy(void **state)
{
	struct cairn_error error = {0};
	struct cairn_store *second;
	char spec[256], text[80];
	pid_t child;

	(void)state;
	fixture_open(&f, "");
	snprintf(spec, sizeof(spec), "posix(path=%s, open_wait=20ms)", f.path);
	assert_int_equal(cairn_store_open(spec, NULL, &second, &error), -EBUSY);
	assert_non_null(strstr(error.text, "this process has it open already: share that store"));
	snprintf(spec, sizeof(spec), "posix(path=%s, open_wait=20ms, shared=yes)", f.path);
	assert_int_equal(cairn_store_open(spec, NULL, &second, &error), -EBUSY);
	assert_int_equal(cairn_check(spec, NULL, count_finding, NULL, &error), -EBUSY);
	assert_non_null(strstr(error.text, "in use by this process: close it before a check"));
	assert_int_equal(cairn_store_close(f.store, UINT64_MAX), 0);
	child = lock_in_child(f.path);
	snprintf(text, sizeof(text), "in use by process %d: end it, give each", (int)child);
	assert_int_equal(cairn_store_open(spec, NULL, &second, &error), -EBUSY);
	assert_non_null(strstr(error.text, text));
	assert_non_null(strstr(error.text, "{rank}"));
	snprintf(text, sizeof(text), "in use by process %d: end it before a check", (int)child);
	assert_int_equal(cairn_check(spec, NULL, count_finding, NULL, &error), -EBUSY);
	assert_non_null(strstr(error.text, text));
	child_end(child);
	snprintf(spec, sizeof(spec), "posix(path=%s, shared=yes, size=1GiB)", f.path);
	assert_int_equal(cairn_store_open(spec, NULL, &second, &error), -EINVAL);
	assert_non_null(strstr(error.text, "size="));
}

/* ---- the budget --------------------------------------------------------------------------- */

static void budget_is_hard(void **state)
{
	const uint64_t size = 2u << 20;
	struct random seed = {11};

	(void)state;
	fixture_open(&f, "size=2MiB");
	fixture_space(&f, "b", 0, 0);
	for (uint32_t i = 0; i < 400; i++) {
		uint64_t bytes = 1 + random_next(&seed) % 60000;
		struct cairn_key key = key_of(&f, i);
		uint8_t *data = malloc(bytes);
		struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, bytes);

		xfer.shard_count = random_next(&seed) % 8 ? 1 : 2; /* some stay partial */
		xfer.shard_bytes = bytes;
		content(&key, 0, data, bytes);
		assert_int_equal(cairn_dump(f.ns, &xfer, 1, NULL, NULL), 0);
		free(data);
		assert_true(bytes_used(&f) <= size);
		if (i % 16 == 0)
			assert_true(du(f.path) <= size);
		if (random_next(&seed) % 16 == 0)
			cairn_clear(f.ns, CAIRN_WRITTEN);
		if (random_next(&seed) % 8 == 0)
			cairn_remove(f.ns, &key, 1, NULL, NULL, NULL);
	}
	assert_int_equal(bytes_used(&f), du(f.path));
	assert_true(counter(&f, "evicted_blocks") > 0);
	fixture_close(&f);
	assert_true(du(f.path) <= size);
	fixture_open(&f, "size=2MiB");
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_space(&f, "b", 1, 4u << 20);
	assert_int_equal(dump_one(&f, 1, 0, 4u << 20, 0), -EFBIG);
	fixture_close(&f);
}

/* Blocks of one size at the budget: each takes the file of one that goes. */
static void victims_files_are_reused(void **state)
{
	const uint64_t size = 2u << 20;
	uint64_t evicted, reused;

	(void)state;
	fixture_open(&f, "size=2MiB");
	fixture_space(&f, "b", 1, SHARD);
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
		assert_true(bytes_used(&f) <= size);
		if (i % 64 == 0)
			assert_true(du(f.path) <= size);
	}
	evicted = counter(&f, "evicted_blocks");
	reused = counter(&f, "evicted_reused");
	assert_true(evicted > 0);
	assert_true(reused > evicted / 2);
	assert_int_equal(bytes_used(&f), du(f.path));
	for (int turn = 0; turn < 2; turn++) {
		uint32_t there = 0;

		for (uint32_t i = 0; i < 1000; i++) {
			if (!present(&f, i))
				continue;
			assert_int_equal(load_one(&f, i, 0, SHARD), 0);
			there++;
		}
		assert_true(there >= 1000 - evicted);
		if (turn)
			break;
		fixture_close(&f);
		fixture_open(&f, "size=2MiB");
		fixture_space(&f, "b", 1, SHARD);
	}
	assert_int_equal(bytes_used(&f), du(f.path));
	assert_int_equal(counter(&f, "damaged_blocks"), 0);
	fixture_close(&f);
}

static void unlink_block(const char *file)
{
	unlink(file);
}

/* Victims whose files somebody took away. */
static void victims_that_cannot_be_reused_go(void **state)
{
	(void)state;
	fixture_open(&f, "size=2MiB");
	fixture_space(&f, "b", 1, SHARD);
	for (uint32_t i = 0; i < 400; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_true(counter(&f, "evicted_reused") > 0);
	assert_true(each_file(f.path, unlink_block) > 0);
	for (uint32_t i = 400; i < 800; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_true(counter(&f, "evict_failed") > 0);
	for (uint32_t i = 790; i < 800; i++)
		assert_int_equal(load_one(&f, i, 0, SHARD), 0);
	assert_true(du(f.path) <= 2u << 20);
	fixture_close(&f);
}

/* What was cleared goes before what lives, the very first block of a store too. */
static void cleared_blocks_go_first(void **state)
{
	struct cairn_namespace *one;

	(void)state;
	fixture_open(&f, "entries=16");
	fixture_space(&f, "one", 1, SHARD);
	one = f.ns;
	assert_int_equal(dump_one(&f, 0, 0, SHARD, 0), 0);
	fixture_space(&f, "two", 1, SHARD);
	assert_int_equal(dump_one(&f, 100, 0, SHARD, 0), 0);
	f.ns = one;
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&f, 0, 0, SHARD), 0);
	assert_int_equal(cairn_clear(one, CAIRN_WRITTEN), 0);
	/* Fifteen live ones, and room for sixteen: both dead ones must have gone, and no other. */
	fixture_space(&f, "two", 1, SHARD);
	for (uint32_t i = 101; i < 116; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_int_equal(counter(&f, "evicted_blocks"), 2);
	for (uint32_t i = 100; i < 116; i++)
		assert_true(present(&f, i));
	fixture_close(&f);
}

struct dumper {
	uint32_t first, count;
	uint64_t worst; /* bytes on disk */
	int refused;
};

static void *dump_many(void *context)
{
	struct dumper *d = context;

	for (uint32_t i = d->first; i < d->first + d->count; i++) {
		int rc = dump_one(&f, i, 0, SHARD, 0);
		int loaded = load_one(&f, i / 2, 0, SHARD);
		uint64_t bytes = i % 8 ? 0 : du(f.path);

		d->refused += rc != 0;
		if (loaded && loaded != -ENOENT)
			d->refused += 1000;
		d->worst = bytes > d->worst ? bytes : d->worst;
	}
	return NULL;
}

static void budget_under_concurrency(void **state)
{
	struct dumper dumpers[4];
	pthread_t threads[4];

	(void)state;
	fixture_open(&f, "size=1MiB");
	fixture_space(&f, "c", 1, SHARD);
	for (uint32_t i = 0; i < 4; i++) {
		dumpers[i] = (struct dumper){.first = i * 1000, .count = 120};
		pthread_create(&threads[i], NULL, dump_many, &dumpers[i]);
	}
	for (uint32_t i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(dumpers[i].refused, 0);
		assert_true(dumpers[i].worst <= 1u << 20);
	}
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
}

static void leaves_go_before_parents(void **state)
{
	enum { CHAIN = 20 };
	struct cairn_key keys[CHAIN];
	static uint8_t data[CHAIN][SHARD];
	struct cairn_xfer xfers[CHAIN];
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_CHAIN};
	uint32_t leading = 0, there = 0;

	(void)state;
	fixture_open(&f, "entries=30");
	fixture_space(&f, "chain", 1, SHARD);
	for (uint32_t i = 0; i < CHAIN; i++) {
		keys[i] = key_of(&f, i);
		content(&keys[i], 0, data[i], SHARD);
		xfers[i] = xfer_of(&keys[i], 0, 0, data[i], SHARD);
	}
	assert_int_equal(cairn_dump(f.ns, xfers, CHAIN, &opts, NULL), 0);
	for (uint32_t i = 100; i < 120; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	leading = (uint32_t)cairn_lookup_prefix(f.ns, keys, CHAIN, NULL, NULL, NULL);
	for (uint32_t i = 0; i < CHAIN; i++)
		there += present(&f, i);
	assert_int_equal(leading, there);
	assert_true(leading > 0 && leading < CHAIN);
	fixture_close(&f);
}

static void held_blocks_stay(void **state)
{
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_key key;
	struct cairn_found found;
	uint64_t hold = 0;

	(void)state;
	fixture_open(&f, "entries=16");
	fixture_space(&f, "hold", 1, SHARD);
	assert_int_equal(dump_one(&f, 0, 0, SHARD, 0), 0);
	key = key_of(&f, 0);
	assert_int_equal(cairn_lookup(f.ns, &key, 1, &found, &opts, &hold), 1);
	assert_true(hold != 0);
	for (uint32_t i = 1; i < 60; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_int_equal(load_one(&f, 0, 0, SHARD), 0);
	assert_int_equal(cairn_hold_release(f.store, hold), 0);
	for (uint32_t i = 100; i < 130; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_false(present(&f, 0));
	assert_int_equal(cairn_lookup(f.ns, &key, 1, &found, &opts, &hold), 0);
	fixture_close(&f);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static long damage_at;

static void flip(const char *file)
{
	int fd = open(file, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, damage_at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, damage_at), 1);
	close(fd);
}

static void cut(const char *file)
{
	assert_int_equal(truncate(file, damage_at), 0);
}

static void damage_is_a_miss(void **state)
{
	static const long places[] = {0, 20, 50, 255, 256, 300, 400, 4095, 4096, 4096 + 5000};

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "d", 1, SHARD);
	for (uint32_t i = 0; i < 20; i++) {
		struct cairn_key key = key_of(&f, 1);

		assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
		damage_at = places[i / 2];
		each_file(f.path, i % 2 ? flip : cut);
		assert_int_equal(load_one(&f, 1, 0, SHARD), -EBADMSG);
		assert_int_equal(load_one(&f, 1, 0, SHARD), -ENOENT);
		assert_int_equal(counter(&f, "damaged_blocks"), i + 1);
		assert_false(present(&f, 1));
		(void)key;
	}
	assert_int_equal(counter(&f, "quarantined_blocks"), 20);
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
	assert_int_equal(check_store(), CAIRN_FINDING_NOTE);
	fixture_open(&f, "");
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_space(&f, "d", 1, SHARD);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	fixture_close(&f);
	damage_at = 4096 + 8000;
	each_file(f.path, flip);
	assert_int_equal(check_store(), CAIRN_FINDING_DAMAGED);
}

static void taken_away(const char *file)
{
	assert_int_equal(unlink(file), 0);
}

static void a_file_taken_away_is_a_miss(void **state)
{
	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "d", 1, SHARD);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	each_file(f.path, taken_away);
	assert_int_equal(load_one(&f, 1, 0, SHARD), -ENOENT);
	assert_false(present(&f, 1));
	assert_int_equal(dump_one(&f, 1, 0, SHARD, 0), 0);
	each_file(f.path, taken_away);
	assert_int_equal(dump_one(&f, 1, 0, SHARD, CAIRN_DURABLE), 0);
	assert_int_equal(load_one(&f, 1, 0, SHARD), 0);
	assert_int_equal(bytes_used(&f), du(f.path));
	fixture_close(&f);
}

static int count_listed(void *context, const struct cairn_listed *block)
{
	uint64_t *bytes = context;

	assert_non_null(block->desc);
	assert_string_equal(block->desc->model, "listed");
	*bytes += block->raw_bytes;
	return 0;
}

static void list_at_rest(void **state)
{
	uint64_t bytes = 0, missed = 7;

	(void)state;
	fixture_open(&f, "");
	fixture_space(&f, "listed", 1, SHARD);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
	assert_int_equal(cairn_list(f.spec, NULL, count_listed, &bytes, &missed, NULL), 5);
	assert_int_equal(bytes, 5 * SHARD);
	assert_int_equal(missed, 0);
	fixture_close(&f);
	assert_int_equal(check_store(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(parts_of_shards, setup, teardown),
		cmocka_unit_test_setup_teardown(large_shards_through_small_buffers, setup,
						teardown),
		cmocka_unit_test_setup_teardown(many_shards_in_one_call, setup, teardown),
		cmocka_unit_test_setup_teardown(variable_geometry, setup, teardown),
		cmocka_unit_test_setup_teardown(never_whole_before_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(partials_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(remove_and_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(namespaces_never_meet, setup, teardown),
		cmocka_unit_test_setup_teardown(reopen_clean, setup, teardown),
		cmocka_unit_test_setup_teardown(reopen_after_a_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(another_owner_is_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(budget_is_hard, setup, teardown),
		cmocka_unit_test_setup_teardown(cleared_blocks_go_first, setup, teardown),
		cmocka_unit_test_setup_teardown(victims_files_are_reused, setup, teardown),
		cmocka_unit_test_setup_teardown(victims_that_cannot_be_reused_go, setup, teardown),
		cmocka_unit_test_setup_teardown(budget_under_concurrency, setup, teardown),
		cmocka_unit_test_setup_teardown(leaves_go_before_parents, setup, teardown),
		cmocka_unit_test_setup_teardown(held_blocks_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_is_a_miss, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_taken_away_is_a_miss, setup, teardown),
		cmocka_unit_test_setup_teardown(list_at_rest, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
