/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps that the cache holds back: there at once for all, below soon, and never back after a
 * remove. The tier below is posix, with a gate of the test's in front that keeps dumps there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cairn/pin.h>

#include "back_shop.h"
#include "stages/cache/layout.h"

/* ---- there, and then below ---------------------------------------------------------------- */

static void there_at_once(void **state)
{
	struct shop one, two;

	(void)state;
	shop_open(&one, BACK);
	shop_open(&two, BACK);
	gate_shut(HELD_MAX);
	assert_int_equal(dump(&one, 1), 0);
	assert_true(present(&one, 1) && present(&two, 1));
	assert_false(present_below(1));
	assert_int_equal(counted(&one, "held_back_blocks"), 1);
	assert_int_equal(dump(&one, 1), CAIRN_PRESENT);
	gate_open();
	await_count(&one, "flushed_blocks", 1);
	assert_true(present_below(1) && present(&one, 1));
	assert_int_equal(dump(&one, 1), CAIRN_PRESENT);
	shop_close(&two);
	shop_close(&one);
}

/* Gauges are right while nobody asks the process itself. */
static void gauges(void **state)
{
	struct shop one, two;
	struct cairn_key key;

	(void)state;
	shop_open(&one, BACK);
	assert_true(told("clients") == 1 && told("bytes_limit") == 16u << 20);
	assert_true(told("bytes_used") == 0 && told("chunks") > 0);
	gate_shut(HELD_MAX);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_int_equal(dump(&one, i), 0);
		assert_true(told("dirty_bytes") >= i * SHARDS * BYTES);
		await_told("bytes_used", i * SHARDS * BYTES, (i + 1) * SHARDS * BYTES);
	}
	gate_open();
	await_told("dirty_bytes", 0, 0);
	key = key_of(&one, 1);
	assert_int_equal(cairn_remove(one.ns, &key, 1, NULL, NULL, NULL), 0);
	await_told("bytes_used", 1, 2 * SHARDS * BYTES);
	shop_open(&two, BACK);
	assert_int_equal(told("clients"), 2);
	shop_close(&one);
	assert_int_equal(dump(&two, 3), 0);
	await_told("clients", 1, 1);
	shop_close(&two);
}

/* What asks for more waits for it, of a block that is held back as well. */
static void levels(void **state)
{
	static struct parcel written, durable;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	assert_int_equal(dump_at(&shop, 1, CAIRN_WRITTEN, 0), 0);
	assert_true(present_below(1));
	assert_int_equal(dump_at(&shop, 2, CAIRN_MEMORY, CAIRN_TASK_WRITE_THROUGH), 0);
	assert_true(present_below(2));
	assert_int_equal(dump_at(&shop, 3, CAIRN_MEMORY, CAIRN_TASK_WRITE_AROUND), 0);
	gate_shut(HELD_MAX);
	assert_int_equal(dump(&shop, 4), 0);
	await_dumps(1);
	send(&shop, 4, CAIRN_WRITTEN, 0, &written);
	send(&shop, 4, CAIRN_DURABLE, 0, &durable);
	assert_false(arrived(&shop, &written, 20000000));
	assert_false(arrived(&shop, &durable, 0));
	assert_false(present_below(4));
	gate_open();
	assert_true(arrived(&shop, &written, UINT64_MAX) && arrived(&shop, &durable, UINT64_MAX));
	assert_int_equal(written.xfers[0].result.status, CAIRN_PRESENT);
	assert_int_equal(durable.xfers[0].result.status, CAIRN_PRESENT);
	assert_int_equal(durable.xfers[0].result.reached, CAIRN_DURABLE + 1);
	assert_true(present_below(4));
	shop_close(&shop);
}

static void by_task(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts),
				       .flags = CAIRN_TASK_WRITE_BACK | CAIRN_TASK_WRITE_AROUND};
	static struct parcel parcel;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000");
	pack(&shop, 1, true, &parcel);
	assert_int_equal(cairn_dump(shop.ns, parcel.xfers, SHARDS, &opts, NULL), -EINVAL);
	gate_shut(HELD_MAX);
	assert_int_equal(dump_at(&shop, 1, CAIRN_MEMORY, CAIRN_TASK_WRITE_BACK), 0);
	assert_false(present_below(1));
	gate_open();
	shop_close(&shop);
	assert_true(present_below(1));
}

/* One that went around beside a dump that is held back does not say more than there is. */
static void beside(void **state)
{
	struct cairn_task_opts opts = {.size = sizeof(opts),
				       .durability = CAIRN_WRITTEN,
				       .flags = CAIRN_TASK_WRITE_AROUND};
	static struct parcel parcel;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	gate_shut(2);
	pack(&shop, 1, true, &parcel);
	assert_int_equal(cairn_dump(shop.ns, parcel.xfers, 1, &opts, &parcel.task), 0);
	await_dumps(1);
	assert_int_equal(dump(&shop, 1), 0);
	await_dumps(2);
	gate_let_in(1);
	assert_false(arrived(&shop, &parcel, 30000000));
	gate_open();
	assert_true(arrived(&shop, &parcel, UINT64_MAX) && present_below(1) && present(&shop, 1));
	shop_close(&shop);
}

/* Made in place it is held back as well. */
static void committed(void **state)
{
	static struct parcel parcel;
	struct cairn_reserved reserved;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	gate_shut(HELD_MAX);
	pack(&shop, 1, true, &parcel);
	for (uint32_t i = 0; i < SHARDS; i++) {
		assert_int_equal(cairn_reserve(shop.ns, &parcel.xfers[i], &reserved), 0);
		memcpy(reserved.base, parcel.memory[i], BYTES);
		parcel.xfers[i].stride.base = reserved.base;
	}
	assert_int_equal(cairn_commit(shop.ns, parcel.xfers, SHARDS, NULL, NULL), 0);
	assert_int_equal(counted(&shop, "held_back_blocks"), 1);
	assert_true(present(&shop, 1));
	gate_open();
	shop_close(&shop);
	assert_true(present_below(1));
}

/* A part of a block is not held back: nobody would write the rest. */
static void whole_ones_alone(void **state)
{
	static struct parcel parcel;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	pack(&shop, 1, true, &parcel);
	for (uint32_t i = 0; i < SHARDS; i++)
		assert_int_equal(cairn_dump(shop.ns, &parcel.xfers[i], 1, NULL, NULL), 0);
	assert_int_equal(counted(&shop, "held_back_blocks"), 0);
	assert_true(present(&shop, 1) && present_below(1));
	shop_close(&shop);
}

static void time_runs_out(void **state)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .ttl_ns = 1};
	static struct parcel parcel;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	pack(&shop, 1, true, &parcel);
	for (uint32_t i = 0; i < SHARDS; i++)
		parcel.xfers[i].attr = &attr;
	assert_int_equal(cairn_dump(shop.ns, parcel.xfers, SHARDS, NULL, NULL), 0);
	assert_false(present(&shop, 1));
	shop_close(&shop);
	assert_false(present_below(1));
}

/* A store whose flights are all under way, with blocks of another namespace of it. */
static void open_with_flights(struct shop *shop, struct shop *other)
{
	shop_open(shop, BACK);
	*other = *shop;
	space_open(other, "other");
	gate_shut(HELD_MAX);
	for (uint32_t i = 0; i < FLIGHTS; i++)
		assert_int_equal(dump(other, i), 0);
	await_dumps(FLIGHTS);
}

/* What goes instead of being written does not take the next one into its namespace. */
static void of_two_namespaces(void **state)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .ttl_ns = 1};
	static struct parcel parcel;
	struct shop one, other, bare;

	(void)state;
	open_with_flights(&one, &other);
	pack(&one, FLIGHTS, true, &parcel);
	for (uint32_t i = 0; i < SHARDS; i++)
		parcel.xfers[i].attr = &attr;
	assert_int_equal(cairn_dump(one.ns, parcel.xfers, SHARDS, NULL, NULL), 0);
	assert_int_equal(dump(&other, FLIGHTS), 0);
	gate_open();
	shop_close(&one);
	shop_open_below(&bare);
	space_open(&bare, "other");
	assert_true(present(&bare, FLIGHTS));
	shop_close(&bare);
}

/* While another holds the list of namespaces none is opened: not one that misses its removes here.
 */
static void no_place_in_vain(void **state)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "n", .shard_count = SHARDS, .shard_bytes = BYTES};
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CACHE_LOCK_SPACES, .l_len = 1};
	struct cairn_namespace *ns;
	struct cairn_error error;
	struct shop shop;
	char path[128];
	int fd;

	(void)state;
	shop_open(&shop, BACK);
	snprintf(path, sizeof(path), "/dev/shm/cairn-cache-%u-%s", geteuid(), region);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(cairn_namespace_open(shop.store, &desc, &ns, &error), -EBUSY);
	assert_non_null(strstr(error.text, "cache: "));
	assert_null(strchr(error.text, '\n'));
	close(fd);
	assert_int_equal(cairn_namespace_open(shop.store, &desc, &ns, &error), 0);
	shop_close(&shop);
}

/* ---- bounds ---------------------------------------------------------------------------- */

/* What is held back stays, whatever is pressed in; beyond the bound dumps go through. */
static void bounded(void **state)
{
	static struct parcel parcel;
	struct shop shop;
	uint32_t held;

	(void)state;
	shop_open(&shop, BACK ", dirty=1MiB");
	gate_shut(HELD_MAX);
	for (held = 0; held < 100; held++) {
		send(&shop, held, CAIRN_MEMORY, 0, &parcel);
		await_count(&shop, "dumped_shards", held * SHARDS);
		if (!arrived(&shop, &parcel, 100000000))
			break;
		assert_int_equal(parcel.xfers[0].result.status, 0);
	}
	assert_in_range(held, 10, 17);
	for (uint32_t i = 1000; counted(&shop, "evicted_blocks") < 300; i++) {
		gate_shut(0); /* those at the gate stay */
		assert_int_equal(dump_at(&shop, i, CAIRN_WRITTEN, 0), 0);
	}
	for (uint32_t i = 0; i < held; i++)
		assert_true(present(&shop, i));
	gate_open();
	assert_true(arrived(&shop, &parcel, UINT64_MAX));
	shop_close(&shop);
	for (uint32_t i = 0; i <= held; i += held / 2)
		assert_true(present_below(i));
}

static void refused_below(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	refuse(2, EIO); /* and then it goes */
	assert_int_equal(dump(&shop, 1), 0);
	await_count(&shop, "flushed_blocks", 1);
	assert_true(present_below(1));
	refuse(100, EIO); /* not served for ever as if it were below */
	assert_int_equal(dump(&shop, 2), 0);
	await_count(&shop, "flush_failed_blocks", 1);
	assert_false(present(&shop, 2));
	refuse(1, EFBIG); /* nor tried again in vain */
	assert_int_equal(dump(&shop, 3), 0);
	await_count(&shop, "flush_failed_blocks", 2);
	assert_false(present(&shop, 3));
	assert_int_equal(dump(&shop, 3), 0);
	refuse(100, ENOSPC); /* a close does not wait for ever either */
	dump(&shop, 4);
	shop_close(&shop);
}

/* What hangs below has an end, and is tried again. */
static void hangs_below(void **state)
{
	char spec[SPEC_MAX];
	struct shop shop;

	(void)state;
	snprintf(spec, sizeof(spec),
		 "store(deadline=100ms) | cache(" BACK ") | fault(rule=\"dump:hang:#1\") | "
		 "posix(path=%s/kv, shared=yes)",
		 folder);
	shop_open_spec(&shop, spec);
	assert_int_equal(dump(&shop, 1), 0);
	await_count(&shop, "flushed_blocks", 1);
	assert_true(present(&shop, 1) && present_below(1));
	shop_close(&shop);
}

/* ---- removes and clears --------------------------------------------------------------------- */

struct call {
	const struct shop *shop;
	struct cairn_key key;
	struct cairn_result result;
	uint64_t task;
};

static void remove_begin(const struct shop *shop, uint32_t number, struct call *ret_call)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = CAIRN_DEADLINE_NONE};

	memset(ret_call, 0, sizeof(*ret_call));
	ret_call->key = key_of(shop, number);
	assert_int_equal(cairn_remove(shop->ns, &ret_call->key, 1, &ret_call->result, &opts,
				      &ret_call->task),
			 0);
}

static bool removed(const struct shop *shop, const struct call *call, uint64_t timeout_ns)
{
	return cairn_task_wait(shop->store, call->task, 0, timeout_ns) == 0;
}

static void removes_win(void **state)
{
	struct call first, second, queued;
	struct shop one, two;

	(void)state;
	shop_open(&one, BACK);
	shop_open(&two, BACK);
	/* Whoever opens looks for what others have left: that is over. */
	assert_int_equal(dump(&two, 100), 0);
	await_count(&two, "flushed_blocks", 1);
	gate_shut(HELD_MAX);
	for (uint32_t i = 0; i <= FLIGHTS; i++)
		assert_int_equal(dump(&one, i), 0);
	await_dumps(FLIGHTS);
	/* In no flight yet: it is gone at once. */
	remove_begin(&two, FLIGHTS, &queued);
	assert_true(removed(&two, &queued, UINT64_MAX) && queued.result.status == 0);
	assert_false(present(&one, FLIGHTS));
	/* On its way: both wait, whoever asks. */
	remove_begin(&one, 1, &first);
	assert_false(removed(&one, &first, 20000000));
	remove_begin(&two, 1, &second);
	assert_false(removed(&two, &second, 20000000));
	gate_open();
	assert_true(removed(&one, &first, UINT64_MAX) && removed(&two, &second, UINT64_MAX));
	assert_true(first.result.status == 0 || second.result.status == 0);
	assert_false(present(&one, 1) || present(&two, 1) || present_below(1));
	/* And anew, while what was before is long forgotten. */
	assert_int_equal(dump(&two, 1), 0);
	assert_true(present(&one, 1));
	shop_close(&one);
	shop_close(&two);
	assert_true(present_below(1) && present_below(0));
	assert_false(present_below(FLIGHTS));
}

/* A dump, a remove and a dump again, each while the one before may still be under way. */
static void one_after_the_other(void **state)
{
	struct call call;
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	for (uint32_t i = 0; i < 60; i++) {
		gate_shut(i % 3 == 0);
		assert_int_equal(dump(&shop, i % 7), 0);
		remove_begin(&shop, i % 7, &call);
		if (i % 2)
			gate_open();
		if (i % 3 == 0)
			usleep(i * 50);
		gate_open();
		assert_true(removed(&shop, &call, UINT64_MAX));
		assert_int_equal(call.result.status, 0);
		assert_false(present(&shop, i % 7));
	}
	shop_close(&shop);
	for (uint32_t i = 0; i < 7; i++)
		assert_false(present_below(i));
}

static uint32_t cleared; /* under the gate's lock */

static void *clear_it(void *context)
{
	struct shop *shop = context;

	assert_int_equal(cairn_clear(shop->ns, CAIRN_WRITTEN), 0);
	pthread_mutex_lock(&below.lock);
	cleared = 1;
	pthread_mutex_unlock(&below.lock);
	return NULL;
}

/* A cache with a stage above it holds nothing back, and meets what others do. */
static void shop_open_under(struct shop *shop, const char *options)
{
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec),
		 "fault(rule=\"dump:EIO:#999\") | cache(%s, name=%s) | lower(path=%s/kv, "
		 "shared=yes)",
		 options, region, folder);
	shop_open_spec(shop, spec);
}

static void clear_wins(bool under)
{
	struct shop shop, other;
	pthread_t thread;

	shop_open(&shop, BACK);
	if (under)
		shop_open_under(&other, BACK);
	gate_shut(HELD_MAX);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(dump(&shop, i), 0);
	await_dumps(FLIGHTS);
	cleared = 0;
	assert_int_equal(pthread_create(&thread, NULL, clear_it, under ? &other : &shop), 0);
	usleep(20000);
	pthread_mutex_lock(&below.lock);
	assert_int_equal(cleared, 0); /* some are on their way */
	pthread_mutex_unlock(&below.lock);
	gate_open();
	pthread_join(thread, NULL);
	for (uint32_t i = 0; i < 8; i++)
		assert_false(present(&shop, i));
	assert_int_equal(dump(&shop, 3), 0);
	if (under)
		shop_close(&other);
	shop_close(&shop);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(present_below(i), i == 3);
}

static void clears_win(void **state)
{
	(void)state;
	clear_wins(false);
}

static void clears_win_from_under(void **state)
{
	(void)state;
	clear_wins(true);
}

static void removes_win_from_under(void **state)
{
	struct shop one, two;
	struct call call;

	(void)state;
	shop_open(&one, BACK);
	shop_open_under(&two, BACK);
	gate_shut(HELD_MAX);
	assert_int_equal(dump(&one, 1), 0);
	await_dumps(1);
	remove_begin(&two, 1, &call);
	assert_false(removed(&two, &call, 20000000));
	gate_open();
	assert_true(removed(&two, &call, UINT64_MAX) && call.result.status == 0);
	assert_false(present(&one, 1) || present_below(1));
	shop_close(&two);
	shop_close(&one);
	assert_false(present_below(1));
}

/* What is in no flight yet is cleared at once, and never begins one. */
static void clears_what_waits(void **state)
{
	struct shop shop, other;

	(void)state;
	open_with_flights(&shop, &other);
	assert_int_equal(dump(&shop, 1), 0);
	assert_int_equal(cairn_clear(shop.ns, CAIRN_WRITTEN), 0);
	gate_open();
	shop_close(&shop);
	assert_false(present_below(1));
}

/* ---- all at once ------------------------------------------------------------------------ */

#ifdef __SANITIZE_THREAD__
#define ROUNDS 60u
#else
#define ROUNDS 250u
#endif
#define USERS	  3u
#define USER_KEYS 40u

struct user {
	struct shop shops[2];
	uint32_t number;
	const char *wrong;
};

static void use_one(struct user *user, struct random *random, bool *there)
{
	static const uint32_t flags[] = {0, 0, 0, CAIRN_TASK_WRITE_THROUGH,
					 CAIRN_TASK_WRITE_AROUND};
	uint32_t number = random_below(random, USER_KEYS);
	uint32_t id = 1000 * (user->number + 1) + number;
	const struct shop *one = &user->shops[random_below(random, 2)];
	const struct shop *other = &user->shops[random_below(random, 2)];
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct parcel *parcel = malloc(sizeof(*parcel));
	struct cairn_key key = key_of(one, id);
	int ret;

	if (random_below(random, 3) > 0) {
		opts.flags = flags[random_below(random, 5)];
		opts.durability = random_below(random, 6) == 0 ? CAIRN_WRITTEN : CAIRN_MEMORY;
		pack(one, id, true, parcel);
		ret = cairn_dump(one->ns, parcel->xfers, SHARDS, &opts, NULL);
		if (ret < 0 ||
		    parcel->xfers[0].result.status != (there[number] ? CAIRN_PRESENT : 0))
			user->wrong = "a dump ended otherwise";
		there[number] = true;
	} else {
		ret = cairn_remove(one->ns, &key, 1, NULL, &opts, NULL);
		if (ret != (there[number] ? 0 : -ENOENT))
			user->wrong = "a remove ended otherwise";
		there[number] = false;
	}
	if (is_there(other, id) != there[number])
		user->wrong = there[number] ? "a block is not there" : "a block came back";
	number = random_below(random, USER_KEYS);
	if (is_there(other, 1000 * (user->number + 1) + number) != there[number])
		user->wrong = there[number] ? "a block went" : "a block came back later";
	free(parcel);
}

/* Nobody else has its keys: what is there is what it has dumped and not removed, always. */
static void *use(void *context)
{
	struct user *user = context;
	struct random random = {user->number};
	bool there[USER_KEYS] = {false};

	for (uint32_t i = 0; i < ROUNDS && !user->wrong; i++)
		use_one(user, &random, there);
	return NULL;
}

static void all_at_once(void **state)
{
	struct user users[USERS] = {0};
	pthread_t threads[USERS];
	static const char options[] = "size=8MiB, entries=256, write=back, dirty=1MiB",
			  late[] = "delay(read=0ms, write=0ms, jitter=2ms, depth=64) | ";
	struct shop one, two;

	(void)state;
	shop_open_over(&one, options, late);
	shop_open_over(&two, options, late);
	for (uint32_t i = 0; i < USERS; i++) {
		users[i] = (struct user){.shops = {one, two}, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, use, &users[i]), 0);
	}
	for (uint32_t i = 0; i < USERS; i++) {
		pthread_join(threads[i], NULL);
		if (users[i].wrong)
			fail_msg("%s", users[i].wrong);
	}
	assert_int_equal(counted(&one, "flush_failed_blocks"), 0);
	assert_true(counted(&one, "held_back_blocks") > 0);
	shop_close(&one);
	shop_close(&two);
}

/* ---- ends ------------------------------------------------------------------------------- */

static void closes(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, BACK);
	gate_shut(HELD_MAX);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(dump(&shop, i), 0);
	/* It has its deadline, and leaves the store as it was. */
	assert_int_equal(cairn_store_close(shop.store, 30000000), -ETIMEDOUT);
	assert_true(present(&shop, 9));
	assert_int_equal(dump(&shop, 10), 0);
	gate_open();
	shop_close(&shop);
	for (uint32_t i = 0; i <= 10; i++)
		assert_true(present_below(i));
}

/* Dumps @count blocks that do not come below, tells so, and waits for its end. */
static pid_t start_doomed(const char *options, uint32_t first, uint32_t count)
{
	struct shop shop;
	int tell[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(tell), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shop_open(&shop, options);
		gate_shut(HELD_MAX);
		for (uint32_t i = 0; i < count; i++)
			if (dump(&shop, first + i) != 0)
				_exit(1);
		await_dumps(count < FLIGHTS ? count : FLIGHTS);
		if (write(tell[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(tell[1]);
	assert_int_equal(read(tell[0], &byte, 1), 1);
	close(tell[0]);
	return pid;
}

static void end_doomed(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

static void the_dead(void **state)
{
	struct call call;
	struct shop shop;
	pid_t pid;

	(void)state;
	pid = start_doomed(BACK, 0, 8);
	shop_open(&shop, BACK);
	for (uint32_t i = 0; i < 8; i++)
		assert_true(present(&shop, i));
	assert_false(present_below(0));
	remove_begin(&shop, 0, &call);
	assert_false(removed(&shop, &call, 20000000)); /* on its way by a process that lives */
	end_doomed(pid);
	assert_true(removed(&shop, &call, UINT64_MAX));
	assert_int_equal(call.result.status, 0);
	/* Who asks for more has it written by this process. */
	assert_int_equal(dump_at(&shop, 7, CAIRN_WRITTEN, 0), CAIRN_PRESENT);
	assert_true(present_below(7));
	shop_close(&shop);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(present_below(i), i != 0);
}

/* A close that gave up is forgotten by the next one, which finds what a dead one has left since. */
static void closes_again(void **state)
{
	struct shop shop;
	pid_t pid;

	(void)state;
	pid = start_doomed(BACK, 100, 3);
	shop_open(&shop, BACK);
	gate_shut(HELD_MAX);
	assert_int_equal(dump(&shop, 1), 0);
	await_dumps(1);
	assert_int_equal(cairn_store_close(shop.store, 30000000), -ETIMEDOUT);
	end_doomed(pid);
	gate_open();
	await_count(&shop, "flushed_blocks", 1);
	shop_close(&shop);
	for (uint32_t i = 100; i < 103; i++)
		assert_true(present_below(i));
	assert_true(present_below(1));
}

/* Others open and close the region: who asks for more than memory waits for no flight in vain. */
static void beside_a_stranger(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		struct shop shop, stranger;

		shop_open(&shop, BACK);
		gate_shut(i % 2 ? HELD_MAX : 0);
		for (uint32_t k = 0; k < 8; k++)
			assert_int_equal(dump(&shop, 10 * i + k), 0);
		shop_open(&stranger, BACK);
		space_open(&stranger, "other");
		gate_open();
		shop_close(&stranger);
		for (uint32_t k = 0; k < 8; k++)
			assert_true(dump_at(&shop, 10 * i + k, CAIRN_WRITTEN, 0) >= 0);
		shop_close(&shop);
	}
}

static void kept(void **state)
{
	struct shop shop;

	(void)state;
	end_doomed(start_doomed(BACK ", keep=yes", 0, 6));
	assert_false(present_below(0));
	shop_open(&shop, BACK ", keep=yes");
	for (uint32_t i = 0; i < 6; i++)
		assert_true(present(&shop, i));
	shop_close(&shop);
	for (uint32_t i = 0; i < 6; i++)
		assert_true(present_below(i));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, new_folder, old_folder)
	const struct CMUnitTest cases[] = {
		CASE(there_at_once),
		CASE(gauges),
		CASE(levels),
		CASE(by_task),
		CASE(beside),
		CASE(committed),
		CASE(hangs_below),
		CASE(whole_ones_alone),
		CASE(time_runs_out),
		CASE(of_two_namespaces),
		CASE(no_place_in_vain),
		CASE(bounded),
		CASE(refused_below),
		CASE(removes_win),
		CASE(one_after_the_other),
		CASE(clears_win),
		CASE(clears_win_from_under),
		CASE(removes_win_from_under),
		CASE(clears_what_waits),
		CASE(all_at_once),
		CASE(closes),
		CASE(closes_again),
		CASE(beside_a_stranger),
		CASE(the_dead),
		CASE(kept),
	};

	return cmocka_run_group_tests(cases, gate_build, NULL);
}
