/* SPDX-License-Identifier: Apache-2.0 */
/* The cache stage through the public calls: bytes in place, sharing, leaves, the dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cairn/pin.h>

#include "counted.h"
#include "shop.h"
#include "stages/cache/layout.h"

#ifdef __SANITIZE_THREAD__
#define LESS 8u /* of what has no threads of its own, and many bytes */
#else
#define LESS 1u
#endif
#define LINKS	 40u
#define MANY	 4000u
#define SPEC_MAX 256u

static char region[64]; /* a name of this process's own */

/* @options, and behind them, where @shared says so, the region's name. */
static void spec_of(char *ret_spec, const char *options, bool shared, const char *below)
{
	if (shared)
		snprintf(ret_spec, SPEC_MAX, "cache(%s, name=%s)%s", options, region, below);
	else
		snprintf(ret_spec, SPEC_MAX, "cache(%s)%s", options, below);
}

static int shop_try(struct shop *shop, const char *spec, struct cairn_error *reterr)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc),
		.model = "m",
		.shard_count = SHARDS,
		.shard_bytes = BYTES,
	};
	int ret;

	memset(shop, 0, sizeof(*shop));
	ret = cairn_store_open(spec, NULL, &shop->store, reterr);
	if (ret == 0)
		ret = cairn_namespace_open(shop->store, &desc, &shop->ns, reterr);
	return ret;
}

static void shop_open_spec(struct shop *shop, const char *spec)
{
	struct cairn_error error;
	int ret = shop_try(shop, spec, &error);

	if (ret < 0)
		print_error("%s\n", error.text);
	assert_int_equal(ret, 0);
}

static void shop_open(struct shop *shop, const char *options)
{
	char spec[SPEC_MAX];

	spec_of(spec, options, false, "");
	shop_open_spec(shop, spec);
}

static void shop_share(struct shop *shop, const char *options)
{
	char spec[SPEC_MAX];

	spec_of(spec, options, true, "");
	shop_open_spec(shop, spec);
}

static int shop_refused(const char *options, bool shared, const char *below,
			struct cairn_error *reterr)
{
	char spec[SPEC_MAX];
	struct shop shop;

	spec_of(spec, options, shared, below);
	return shop_try(&shop, spec, reterr);
}

static bool is_content(const struct cairn_key *key, uint32_t shard, const void *bytes)
{
	static uint8_t want[BYTES];

	content(key, shard, want);
	return memcmp(want, bytes, BYTES) == 0;
}

static struct cairn_xfer xfer_of(const struct cairn_key *key, uint32_t shard, void *memory)
{
	return (struct cairn_xfer){
		.key = *key,
		.shard = shard,
		.length = BYTES,
		.stride = {.base = memory, .run = BYTES, .stride = BYTES, .count = 1},
	};
}

static int dump_with(const struct shop *shop, uint32_t number, const struct cairn_block_attr *attr)
{
	static uint8_t memory[SHARDS][BYTES];
	struct cairn_key key = key_of(shop, number);
	struct cairn_xfer xfers[SHARDS];

	for (uint32_t i = 0; i < SHARDS; i++) {
		content(&key, i, memory[i]);
		xfers[i] = xfer_of(&key, i, memory[i]);
		xfers[i].attr = attr;
	}
	return cairn_dump(shop->ns, xfers, SHARDS, NULL, NULL);
}

static int dump(const struct shop *shop, uint32_t number)
{
	return dump_with(shop, number, NULL);
}

/* 0 with the right bytes, or an error; wrong bytes fail the test. */
static int load(const struct shop *shop, uint32_t number)
{
	static uint8_t memory[SHARDS][BYTES];
	struct cairn_key key = key_of(shop, number);
	struct cairn_xfer xfers[SHARDS];
	int ret;

	memset(memory, 0, sizeof(memory));
	for (uint32_t i = 0; i < SHARDS; i++)
		xfers[i] = xfer_of(&key, i, memory[i]);
	ret = cairn_load(shop->ns, xfers, SHARDS, NULL, NULL);
	for (uint32_t i = 0; i < SHARDS; i++)
		if (xfers[i].result.status == 0)
			assert_true(is_content(&key, i, memory[i]));
	return ret;
}

static bool present(const struct shop *shop, uint32_t number)
{
	struct cairn_key key = key_of(shop, number);
	struct cairn_found found;

	return cairn_lookup(shop->ns, &key, 1, &found, NULL, NULL) == 1;
}

static uint64_t of_stage(const struct shop *shop, const char *stage, const char *name)
{
	return counted_of(shop->store, stage, name);
}

static uint64_t counted(const struct shop *shop, const char *name)
{
	return of_stage(shop, "cache", name);
}

/* Until so many others have pushed out what can go. */
static void press(const struct shop *shop, uint32_t from)
{
	uint64_t before = counted(shop, "evicted_blocks");

	for (uint32_t i = 0; counted(shop, "evicted_blocks") < before + 600; i++) {
		assert_true(i < MANY);
		assert_int_equal(dump(shop, from + i), 0);
	}
}

/* ---- in place ----------------------------------------------------------------------- */

static void pins(void **state)
{
	struct cairn_pinned pinned, other;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000");
	key = key_of(&shop, 1);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -ENOENT);
	assert_int_equal(dump(&shop, 1), 0);
	assert_int_equal(cairn_pin(shop.ns, &key, SHARDS, &pinned), -EINVAL);
	assert_int_equal(cairn_pin(shop.ns, &key, 2, &pinned), 0);
	assert_int_equal(pinned.length, BYTES);
	assert_int_equal((uintptr_t)pinned.base % 4096, 0);
	assert_true(is_content(&key, 2, pinned.base));
	/* Neither eviction nor a remove takes the bytes away, or changes them. */
	press(&shop, 100);
	assert_true(present(&shop, 1));
	assert_int_equal(cairn_remove(shop.ns, &key, 1, NULL, NULL, NULL), 0);
	assert_false(present(&shop, 1));
	assert_int_equal(cairn_pin(shop.ns, &key, 2, &other), -ENOENT);
	press(&shop, 20000);
	assert_true(is_content(&key, 2, pinned.base));
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), -EINVAL);
	assert_int_equal(cairn_unpin(shop.store, 0), -EINVAL);
	assert_int_equal(cairn_unpin(shop.store, UINT64_MAX), -EINVAL);
	shop_close(&shop);
}

static void pins_need_memory(void **state)
{
	struct cairn_reserved reserved;
	struct cairn_pinned pinned;
	struct cairn_xfer xfer;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open_spec(&shop, "null()");
	key = key_of(&shop, 1);
	xfer = xfer_of(&key, 0, NULL);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -EOPNOTSUPP);
	assert_int_equal(cairn_reserve(shop.ns, &xfer, &reserved), -EOPNOTSUPP);
	assert_int_equal(cairn_commit(shop.ns, &xfer, 1, NULL, NULL), -EOPNOTSUPP);
	assert_int_equal(cairn_pin(NULL, &key, 0, &pinned), -EINVAL);
	assert_int_equal(cairn_pin(shop.ns, NULL, 0, &pinned), -EINVAL);
	assert_int_equal(cairn_unpin(shop.store, 1), -EINVAL);
	assert_int_equal(cairn_abort(shop.store, &key), -EINVAL);
	shop_close(&shop);
}

static void make_in_place(const struct shop *shop)
{
	struct cairn_reserved reserved[SHARDS], again;
	struct cairn_key key = key_of(shop, 7);
	struct cairn_xfer xfers[SHARDS];

	for (uint32_t i = 0; i < SHARDS; i++) {
		xfers[i] = xfer_of(&key, i, NULL);
		assert_int_equal(cairn_reserve(shop->ns, &xfers[i], &reserved[i]), 0);
		assert_int_equal(reserved[i].length, BYTES);
		content(&key, i, reserved[i].base);
		xfers[i] = xfer_of(&key, i, reserved[i].base);
	}
	assert_int_equal(cairn_reserve(shop->ns, &xfers[0], &again), -EAGAIN);
	assert_false(present(shop, 7));
	assert_int_equal(cairn_commit(shop->ns, xfers, SHARDS, NULL, NULL), 0);
	assert_true(present(shop, 7));
	assert_int_equal(load(shop, 7), 0);
	/* Gone with the commit: nothing is left to give back. */
	for (uint32_t i = 0; i < SHARDS; i++)
		assert_int_equal(cairn_abort(shop->store, reserved[i].base), -EINVAL);
	assert_int_equal(cairn_commit(shop->ns, xfers, SHARDS, NULL, NULL), -EINVAL);
	assert_int_equal(cairn_reserve(shop->ns, &xfers[0], &again), CAIRN_PRESENT);
}

static void reserves(void **state)
{
	struct cairn_reserved reserved;
	struct cairn_xfer xfer;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000");
	make_in_place(&shop);
	key = key_of(&shop, 8);
	xfer = xfer_of(&key, 1, NULL);
	assert_int_equal(cairn_reserve(shop.ns, &xfer, &reserved), 0);
	assert_int_equal(cairn_abort(shop.store, reserved.base), 0);
	assert_int_equal(cairn_abort(shop.store, reserved.base), -EINVAL);
	/* Nothing of it is left: the block can be dumped, and is whole. */
	assert_int_equal(load(&shop, 8), -ENOENT);
	assert_int_equal(dump(&shop, 8), 0);
	assert_int_equal(load(&shop, 8), 0);
	xfer.length = 0;
	assert_int_equal(cairn_reserve(shop.ns, &xfer, &reserved), -EINVAL);
	/* Closed with a reservation that nobody gave back. */
	key = key_of(&shop, 9);
	xfer = xfer_of(&key, 1, NULL);
	assert_int_equal(cairn_reserve(shop.ns, &xfer, &reserved), 0);
	shop_close(&shop);
	shop_open_spec(&shop, "cache(size=16MiB, entries=2000) | null()");
	make_in_place(&shop);
	shop_close(&shop);
}

/* ---- sharing -------------------------------------------------------------------------- */

static void shares(void **state)
{
	struct cairn_error error;
	struct shop one, two;

	(void)state;
	shop_share(&one, "size=16MiB, entries=2000");
	shop_share(&two, "size=16MiB, entries=2000");
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dump(i % 2 ? &one : &two, i), 0);
	for (uint32_t i = 0; i < 20; i++) {
		assert_true(present(&one, i) && present(&two, i));
		assert_int_equal(load(&one, i), 0);
		assert_int_equal(load(&two, i), 0);
	}
	assert_int_equal(shop_refused("size=32MiB, entries=2000", true, "", &error), -EINVAL);
	assert_non_null(strstr(error.text, "size="));
	assert_int_equal(shop_refused("size=16MiB, entries=2000", true, " | null()", &error),
			 -EINVAL);
	assert_non_null(strstr(error.text, "another store"));
	/* Whose leaving leaves the region to the other. */
	shop_close(&one);
	assert_int_equal(load(&two, 3), 0);
	shop_share(&one, "size=16MiB, entries=2000");
	assert_int_equal(load(&one, 4), 0);
	shop_close(&two);
	shop_close(&one);
	/* And the last one took it away. */
	shop_share(&one, "size=32MiB, entries=2000");
	assert_false(present(&one, 3));
	shop_close(&one);
}

static void kept(void **state)
{
	struct shop shop;

	(void)state;
	shop_share(&shop, "size=16MiB, entries=2000, keep=yes");
	assert_int_equal(dump(&shop, 5), 0);
	shop_close(&shop);
	shop_share(&shop, "size=16MiB, entries=2000, keep=yes");
	assert_true(present(&shop, 5));
	assert_int_equal(load(&shop, 5), 0);
	shop_close(&shop);
	shop_share(&shop, "size=16MiB, entries=2000");
	shop_close(&shop);
}

static void refused(void **state)
{
	struct cairn_error error;

	(void)state;
	assert_int_equal(shop_refused("size=8TiB", false, "", &error), -ENOSPC);
	assert_non_null(strstr(error.text, "/dev/shm"));
	assert_int_equal(shop_refused("size=16MiB, name=a/b", false, "", &error), -EINVAL);
	assert_non_null(strstr(error.text, "name="));
	assert_int_equal(shop_refused("size=16MiB, entries=1000000", false, "", &error), -EINVAL);
	assert_non_null(strstr(error.text, "entries="));
	assert_int_equal(shop_refused("size=16MiB, keep=yes", false, "", &error), -EINVAL);
}

/* ---- eviction -------------------------------------------------------------------------- */

/* What is there of each chain is a prefix of it, whatever the policy. */
static void leaves(void **state)
{
	static const char *const policies[] = {"lru", "fifo", "lfu", "slru", "s3fifo", "gdsf"};
	struct random random = {7};

	(void)state;
	for (size_t p = 0; p<sizeof(policies) / sizeof(policies[0]); p += LESS> 1 ? 3 : 1) {
		char options[SPEC_MAX / 2];
		struct shop shop;

		snprintf(options, sizeof(options), "size=16MiB, entries=2000, policy=%s",
			 policies[p]);
		shop_open(&shop, options);
		for (uint32_t i = 0; i < 900; i++) {
			uint32_t chain = random_below(&random, 30), n = 0;
			struct cairn_block_attr attr = {.size = sizeof(attr)};

			while (n < LINKS && present(&shop, chain * LINKS + n))
				n++;
			if (n == LINKS)
				continue;
			if (n > 0)
				attr.parent = key_of(&shop, chain * LINKS + n - 1);
			attr.depth = n;
			assert_int_equal(dump_with(&shop, chain * LINKS + n, &attr), 0);
			if (n > 0 && i % 3 == 0)
				load(&shop, chain * LINKS + n / 2);
		}
		assert_true(counted(&shop, "evicted_blocks") > 0);
		assert_int_equal(counted(&shop, "evicted_parents"), 0);
		for (uint32_t chain = 0; chain < 30; chain++)
			for (uint32_t n = 1; n < LINKS; n++)
				if (present(&shop, chain * LINKS + n))
					assert_true(present(&shop, chain * LINKS + n - 1));
		shop_close(&shop);
	}
}

static void expires(void **state)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .ttl_ns = 1};
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000");
	assert_int_equal(dump_with(&shop, 1, &attr), 0);
	assert_false(present(&shop, 1));
	assert_int_equal(load(&shop, 1), -ENOENT);
	shop_close(&shop);
}

/* Brought up, and used; or brought up in vain. */
static void prefetches(void **state)
{
	struct shop shop;

	(void)state;
	shop_open_spec(&shop, "cache(size=16MiB, entries=2000, write=around) | null(size=256MiB)");
	for (uint32_t i = 0; i < 40; i++) {
		struct cairn_key key = key_of(&shop, i);
		struct cairn_pinned pinned;

		assert_int_equal(dump(&shop, i), 0);
		assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -ENOENT);
		assert_int_equal(cairn_prefetch(shop.ns, &key, 1, NULL, NULL, NULL), 0);
		assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), 0);
		assert_true(is_content(&key, 0, pinned.base));
		assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);
		assert_int_equal(load(&shop, i), 0);
	}
	assert_int_equal(counted(&shop, "prefetched_blocks"), 40);
	assert_int_equal(counted(&shop, "prefetched_used"), 40);
	for (uint32_t i = 100; counted(&shop, "prefetched_wasted") == 0; i++) {
		struct cairn_key key = key_of(&shop, i);

		assert_true(i < MANY);
		assert_int_equal(dump(&shop, i), 0);
		assert_int_equal(cairn_prefetch(shop.ns, &key, 1, NULL, NULL, NULL), 0);
	}
	shop_close(&shop);
}

/* What the tier below has lost, and takes anew, is not served as it was before. */
static void taken_anew(void **state)
{
	static uint8_t other[SHARDS][BYTES], back[SHARDS][BYTES];
	struct cairn_xfer xfers[SHARDS];
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open_spec(&shop, "cache(size=64MiB, entries=2000) | null(size=1MiB)");
	key = key_of(&shop, 1);
	assert_int_equal(dump(&shop, 1), 0);
	for (uint32_t i = 100; i < 130; i++)
		assert_int_equal(dump(&shop, i), 0);
	assert_true(present(&shop, 1)); /* here alone */
	for (uint32_t i = 0; i < SHARDS; i++) {
		memset(other[i], (int)(0x40 + i), BYTES);
		xfers[i] = xfer_of(&key, i, other[i]);
	}
	assert_int_equal(cairn_dump(shop.ns, xfers, SHARDS, NULL, NULL), 0);
	assert_int_equal(xfers[0].result.status, 0);
	for (uint32_t i = 0; i < SHARDS; i++)
		xfers[i] = xfer_of(&key, i, back[i]);
	assert_int_equal(cairn_load(shop.ns, xfers, SHARDS, NULL, NULL), 0);
	assert_memory_equal(back, other, sizeof(back));
	shop_close(&shop);
}

/* Two keys whose buckets are full cost one block, not one batch of others after another. */
static void full_buckets(void **state)
{
	struct shop shop;
	uint32_t there = 0;

	(void)state;
	shop_open(&shop, "size=64MiB, entries=600");
	for (uint32_t i = 0; i < 560; i++)
		assert_int_equal(dump(&shop, i), 0);
	for (uint32_t i = 0; i < 560; i++)
		there += present(&shop, i);
	assert_true(there >= 555);
	shop_close(&shop);
}

/* ---- the dead ---------------------------------------------------------------------------- */

/* Pins, holds and half-made shards, and then nothing more. */
static void die(int tell)
{
	struct cairn_lookup_opts hold = {.size = sizeof(hold), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_found found;
	struct shop shop;
	uint64_t held;

	shop_share(&shop, "size=16MiB, entries=2000");
	for (uint32_t i = 0; i < 100; i++) {
		struct cairn_key key = key_of(&shop, i), other = key_of(&shop, 5000 + i);
		struct cairn_xfer xfer = xfer_of(&other, 0, NULL);
		struct cairn_reserved reserved;
		struct cairn_pinned pinned;

		if (dump(&shop, i) < 0 || cairn_pin(shop.ns, &key, 1, &pinned) < 0 ||
		    cairn_lookup(shop.ns, &key, 1, &found, &hold, &held) != 1 ||
		    cairn_reserve(shop.ns, &xfer, &reserved) < 0)
			_exit(1);
	}
	if (write(tell, "x", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void the_dead(void **state)
{
	struct shop shop;
	int tell[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(tell), 0);
	pid = fork();
	if (pid == 0)
		die(tell[1]);
	close(tell[1]);
	assert_int_equal(read(tell[0], &byte, 1), 1);
	shop_share(&shop, "size=16MiB, entries=2000");
	press(&shop, 10000);
	for (uint32_t i = 0; i < 100; i++)
		assert_true(present(&shop, i)); /* held by a process that lives */
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(tell[0]);
	/* With the next need: what it pinned goes as all else does, and the memory is whole. */
	for (uint32_t round = 0; counted(&shop, "repairs") == 0; round++) {
		assert_true(round < 100);
		for (uint32_t i = 0; i < 40; i++)
			assert_int_equal(dump(&shop, 100000 + round * 40 + i), 0);
		usleep(10000);
	}
	press(&shop, 30000);
	press(&shop, 50000);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(dump(&shop, 5000 + i), 0);
		assert_int_equal(load(&shop, 5000 + i), 0);
	}
	shop_close(&shop);
}

/* A prefetch that is cancelled, or late, while its shards are on their way up. */
static void prefetches_end(void **state)
{
	struct cairn_result results[3];
	struct cairn_key keys[3];
	struct shop shop;
	uint64_t task;

	(void)state;
	for (uint32_t late = 0; late < 2; late++) {
		struct cairn_task_opts opts = {.size = sizeof(opts),
					       .deadline_ns = late ? 50000000u : 10000000000u};

		shop_open_spec(&shop, "store(reactors=1) | cache(size=16MiB, entries=2000, "
				      "write=around) | delay(read=1s) | null(size=256MiB)");
		for (uint32_t i = 0; i < 3; i++) {
			assert_int_equal(dump(&shop, i), 0);
			keys[i] = key_of(&shop, i);
		}
		assert_int_equal(cairn_prefetch(shop.ns, keys, 3, results, &opts, &task), 0);
		while (!late && of_stage(&shop, "store", "in_flight") < 3)
			usleep(1000);
		if (!late)
			assert_int_equal(cairn_task_cancel(shop.store, task), 0);
		cairn_task_wait(shop.store, task, CAIRN_EVENT_RESULT, UINT64_MAX);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(results[i].status, late ? -ETIMEDOUT : -ECANCELED);
		assert_int_equal(load(&shop, 1), 0);
		assert_int_equal(cairn_store_close(shop.store, UINT64_MAX), 0);
	}
}

/* ---- a region from outside ---------------------------------------------------------- */

struct outside {
	uint64_t bytes, used, clients, pins, classes_used;
};

static int see(void *context, const struct cairn_detail *detail)
{
	struct outside *outside = context;

	assert_string_equal(detail->stage, "cache");
	if (strcmp(detail->item, "class") == 0 && strcmp(detail->name, "used_bytes") == 0)
		outside->classes_used += detail->value;
	else if (strcmp(detail->name, "bytes") == 0)
		outside->bytes = detail->value;
	else if (strcmp(detail->item, "memory") == 0 && strcmp(detail->name, "used_bytes") == 0)
		outside->used = detail->value;
	else if (strcmp(detail->name, "clients") == 0)
		outside->clients = detail->value;
	else if (strcmp(detail->name, "pins") == 0)
		outside->pins = detail->value;
	return 0;
}

static int look(const char *spec, struct outside *ret_outside)
{
	struct cairn_error error = {0};

	memset(ret_outside, 0, sizeof(*ret_outside));
	return cairn_inspect(spec, NULL, CAIRN_INSPECT_MEMORY, see, ret_outside, &error);
}

/* The head of the region's file, up to where its payload begins, and some of that. */
#define HEAD_BYTES (8u << 20)

static void break_some(uint8_t *head, struct random *random)
{
	/* The header's own words as well, and the chunks, which lie behind the tables. */
	for (uint32_t i = 0; i < 200; i++) {
		uint64_t at = random_next(random) % (i % 2 ? HEAD_BYTES : 4096u);

		if (i < 190 && at < 192) /* else its checksum is wrong, and no more is looked at */
			at += 192;
		head[at] = (uint8_t)random_next(random);
	}
}

/*
 * Of these bytes, and so long. It is locked while it has its name: else who opens a region beside
 * this test takes it for one that dead ones left.
 */
static int look_at_file(const char *spec, const char *path, const uint8_t *head, off_t bytes,
			struct outside *ret_outside)
{
	struct flock lock = {.l_type = F_WRLCK, .l_start = CACHE_LOCK_CREATE, .l_len = 1};
	char made[128];
	int fd, ret;

	snprintf(made, sizeof(made), "/dev/shm/%s.made", region);
	fd = open(made, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, head, HEAD_BYTES), HEAD_BYTES);
	assert_int_equal(ftruncate(fd, bytes), 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(rename(made, path), 0);
	ret = look(spec, ret_outside);
	unlink(path);
	close(fd);
	return ret;
}

static void looked_at(void **state)
{
	char spec[SPEC_MAX], path[128], others[SPEC_MAX];
	struct random random = {11};
	struct cairn_pinned pinned;
	struct outside outside;
	struct cairn_key key;
	struct shop shop;
	uint8_t *head = malloc(HEAD_BYTES), *broken = malloc(HEAD_BYTES);
	uint32_t sound = 0;
	int fd;

	(void)state;
	assert_true(head && broken);
	spec_of(spec, "size=16MiB, entries=2000", true, "");
	assert_int_equal(look(spec, &outside), -ENOENT);
	shop_open_spec(&shop, spec);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(dump(&shop, i), 0);
	key = key_of(&shop, 3);
	assert_int_equal(cairn_pin(shop.ns, &key, 1, &pinned), 0);
	assert_int_equal(look(spec, &outside), 0);
	assert_int_equal(outside.bytes, 16u << 20);
	assert_int_equal(outside.clients, 1);
	assert_int_equal(outside.pins, 1);
	assert_int_equal(outside.used, outside.classes_used);
	assert_in_range(outside.used, 20u * SHARDS * BYTES, 25u * SHARDS * BYTES);
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);

	/* A copy under another name, with bytes broken, and cut short anywhere. */
	snprintf(path, sizeof(path), "/dev/shm/cairn-cache-%u-%s", geteuid(), region);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, head, HEAD_BYTES), HEAD_BYTES);
	snprintf(path, sizeof(path), "/dev/shm/cairn-cache-%u-%s.broken", geteuid(), region);
	snprintf(others, sizeof(others), "cache(size=16MiB, name=%s.broken)", region);
	for (uint32_t round = 0; round < 400 / LESS; round++) {
		off_t bytes = lseek(fd, 0, SEEK_END);
		int ret;

		memcpy(broken, head, HEAD_BYTES);
		if (round > 0)
			break_some(broken, &random);
		if (round % 8 == 7)
			bytes = (off_t)(random_next(&random) % (uint64_t)bytes);
		ret = look_at_file(others, path, broken, bytes, &outside);
		assert_true(ret == 0 || ret == -EPROTO || ret == -EIO);
		assert_true(outside.used <= 16u << 20 && outside.used == outside.classes_used);
		assert_true(outside.clients <= 64);
		sound += ret == 0;
	}
	assert_in_range(sound, 200 / LESS, 400 / LESS - 1);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(look(others, &outside), -EPROTO);
	unlink(path);
	close(fd);
	free(head);
	free(broken);
	shop_close(&shop);
	assert_int_equal(look(spec, &outside), -ENOENT);
	assert_int_equal(look("cache(size=16MiB)", &outside), -ENOENT);
	assert_int_equal(look("null", &outside), -EOPNOTSUPP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pins),	      cmocka_unit_test(pins_need_memory),
		cmocka_unit_test(reserves),   cmocka_unit_test(shares),
		cmocka_unit_test(kept),	      cmocka_unit_test(refused),
		cmocka_unit_test(leaves),     cmocka_unit_test(expires),
		cmocka_unit_test(prefetches), cmocka_unit_test(full_buckets),
		cmocka_unit_test(taken_anew), cmocka_unit_test(the_dead),
		cmocka_unit_test(looked_at),  cmocka_unit_test(prefetches_end),
	};

	struct statvfs fs;

	if (statvfs("/dev/shm", &fs) < 0 || fs.f_bavail * fs.f_frsize < 256u << 20)
		return 77; /* a container: shared memory is small there */
	snprintf(region, sizeof(region), "test-%d", getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
