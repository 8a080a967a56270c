/* SPDX-License-Identifier: Apache-2.0 */
/* Where a cache ends: damaged bytes, full tables, all of it pinned, regions of somebody else's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/crc32c.h"
#include "block_shop.h"
#include "stages/cache/layout.h"

#define LENGTH 20000u
#define SMALL  256u
#define PINS   2000u

/* Of the header what does not change while others have the region open. */
#define FIXED_BYTES offsetof(struct cache_header, clock)

/* ---- damaged bytes -------------------------------------------------------------------- */

static void damage(const struct shop *shop, uint32_t number, uint32_t at)
{
	struct cairn_key key = key_of(shop, number);

	damage_key(&key, LENGTH, at);
}

/* Guards verify=hit: with damage anywhere the bytes come from below, and are kept anew. */
static void damage_below(void **state)
{
	static const uint32_t at[] = {0, LENGTH / 2, LENGTH - 1};
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000, verify=hit", " | null(size=64MiB)", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	for (uint32_t i = 0; i < 3; i++) {
		uint64_t hits = counted(&shop, "load_hits");

		assert_int_equal(load(&shop, 1, LENGTH), 0);
		assert_int_equal(counted(&shop, "load_hits"), hits + 1);
		damage(&shop, 1, at[i]);
		assert_int_equal(load(&shop, 1, LENGTH), 0); /* from below */
		assert_int_equal(counted(&shop, "damaged_blocks"), i + 1);
		assert_int_equal(counted(&shop, "load_hits"), hits + 1);
		assert_false(in_memory(&shop, 1));
		assert_int_equal(load(&shop, 1, LENGTH), 0);
		assert_int_equal(counted(&shop, "fills"), i + 1);
	}
	shop_close(&shop);
}

/* Guards the same with nothing below: a miss, and room for the block to be dumped again. */
static void damage_alone(void **state)
{
	struct cairn_found found;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000, verify=hit", "", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	assert_int_equal(dump(&shop, 2, LENGTH), 0);
	damage(&shop, 1, 77);
	assert_int_equal(load(&shop, 1, LENGTH), -ENOENT);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	key = key_of(&shop, 1);
	assert_int_equal(cairn_lookup(shop.ns, &key, 1, &found, NULL, NULL), 0);
	assert_int_equal(load(&shop, 2, LENGTH), 0);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	shop_close(&shop);
}

/* ---- on the caller's thread ---------------------------------------------------------------- */

/* From here on this thread makes no system call but for its end; others do as they like. */
static void forbid_calls(void)
{
	static const int allowed[] = {SCMP_SYS(exit_group), SCMP_SYS(exit),
				      SCMP_SYS(clock_gettime)}; /* where there is no vDSO */
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);

	if (!filter)
		_exit(3);
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) < 0)
			_exit(3);
	if (seccomp_load(filter) < 0)
		_exit(3);
}

/* Exit status 0: three loads of two shards and three pins of each were served. */
static void hit_without_calls(const char *spec)
{
	static uint8_t memory[2][LENGTH], want[2][LENGTH];
	struct cairn_xfer xfers[2];
	struct cairn_pinned pinned;
	struct shop shop = {0};

	if (shop_try(&shop, spec, NULL, LENGTH, NULL) < 0)
		_exit(4);
	for (uint32_t i = 0; i < 2; i++) {
		if (dump(&shop, i, LENGTH) != 0)
			_exit(5);
		xfers[i] = xfer_of(&shop, i, memory[i], LENGTH);
		content_of(&xfers[i].key, 0, want[i], LENGTH);
	}
	forbid_calls();
	for (uint32_t i = 0; i < 6; i++) {
		memset(memory, 0, sizeof(memory));
		if (cairn_load(shop.ns, xfers, 2, NULL, NULL) != 0 ||
		    memcmp(memory, want, sizeof(want)) != 0)
			_exit(6);
		if (cairn_pin(shop.ns, &xfers[i % 2].key, 0, &pinned) != 0 ||
		    memcmp(pinned.base, want[i % 2], LENGTH) != 0 ||
		    cairn_unpin(shop.store, pinned.pin) != 0)
			_exit(7);
	}
	_exit(0);
}

/* Guards that a hit is served by who asks: of loads that no thread runs but a reactor, or it. */
static void no_system_call(void **state)
{
	char spec[SPEC_MAX];
	int status;
	pid_t pid;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	return; /* that makes calls of its own */
#endif
	snprintf(spec, sizeof(spec),
		 "store(inline_max=1B) | cache(size=16MiB, entries=2000, name=%s)", region);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		hit_without_calls(spec);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Guards the same by the counters of a store: each is a task, and none an io. */
static void served_inline(void **state)
{
	struct shop shop;
	char spec[SPEC_MAX];

	(void)state;
	snprintf(spec, sizeof(spec),
		 "store(inline_max=1B) | cache(size=16MiB, entries=2000, name=%s)", region);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, NULL), 0);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	for (uint32_t i = 1; i <= 5; i++) {
		assert_int_equal(load(&shop, 1, LENGTH), 0);
		assert_int_equal(counted_of(shop.store, "store", "inline"), i);
		assert_int_equal(counted(&shop, "load_hits"), i);
	}
	/* What is not there goes the other way. */
	assert_int_equal(load(&shop, 2, LENGTH), -ENOENT);
	assert_int_equal(counted_of(shop.store, "store", "inline"), 5);
	shop_close(&shop);
}

/* ---- what gdsf keeps ------------------------------------------------------------------------ */

/*
 * Guards that gdsf ages: a use counts from the latest victim on. What is used in each second life
 * stays, while its uses alone, of which each is worth a life here, would not keep it.
 */
static void gdsf_ages(void **state)
{
	enum { OLD = 8, ROUNDS = 14, LARGE = 65536 };
	uint32_t life = 0, number = OLD;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000, policy=gdsf", "", LARGE);
	for (uint32_t i = 0; i < OLD; i++)
		assert_int_equal(dump(&shop, i, LARGE), 0);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i < OLD; i++)
			assert_int_equal(load(&shop, i, LARGE), 0);
		for (uint32_t i = 0; round == 0 && i < 5 * OLD; i++)
			assert_int_equal(load(&shop, i % OLD, LARGE), 0);
		for (; life == 0; number++) {
			assert_int_equal(dump(&shop, number, LARGE), 0);
			life = counted(&shop, "evicted_blocks") > 0 ? number : 0;
		}
		for (uint32_t i = 0; i < 2 * life; i++)
			assert_int_equal(dump(&shop, number++, LARGE), 0);
	}
	for (uint32_t i = 0; i < OLD; i++)
		assert_int_equal(load(&shop, i, LARGE), 0);
	shop_close(&shop);
}

/* ---- a full table ------------------------------------------------------------------------ */

/* Guards that entries= bounds the blocks, while there is memory for many more. */
static void full_table(void **state)
{
	uint32_t there = 0, loaded = 0;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=300", "", SMALL);
	for (uint32_t i = 0; i < 2000; i++) {
		assert_int_equal(dump(&shop, i, SMALL), 0);
		assert_int_equal(load(&shop, i, SMALL), 0);
	}
	assert_in_range(counted(&shop, "evicted_blocks"), 1700, 1999);
	for (uint32_t i = 0; i < 2000; i++) {
		int status = load(&shop, i, SMALL);

		assert_true(status == 0 || status == -ENOENT);
		loaded += status == 0;
		there += in_memory(&shop, i);
	}
	assert_int_equal(there, loaded);
	assert_int_equal(there, 2000 - counted(&shop, "evicted_blocks"));
	assert_in_range(there, 150, 300);
	shop_close(&shop);
}

/* ---- all of it pinned --------------------------------------------------------------------- */

static uint64_t now_of(clockid_t clock)
{
	struct timespec now;

	assert_int_equal(clock_gettime(clock, &now), 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Is there a slot for one more, be it after a while? */
static bool has_room(const struct shop *shop)
{
	struct cairn_xfer shape = xfer_of(shop, 9000, NULL, LENGTH);
	struct cairn_reserved reserved;
	int ret = -EAGAIN;

	for (uint32_t i = 0; i < 100 && ret == -EAGAIN; i++) {
		ret = cairn_reserve(shop->ns, &shape, &reserved);
		if (ret == -EAGAIN)
			usleep(1000);
	}
	assert_true(ret == 0 || ret == -EAGAIN);
	if (ret == 0)
		assert_int_equal(cairn_abort(shop->store, reserved.base), 0);
	return ret == 0;
}

/* Blocks 0, 1, ..., each pinned, until there is no room for one more. How many. */
static uint32_t pin_all(const struct shop *shop, struct cairn_pinned *ret_pinned)
{
	uint32_t count = 0;

	for (; has_room(shop); count++) {
		struct cairn_key key = key_of(shop, count);

		assert_true(count < PINS);
		assert_int_equal(dump(shop, count, LENGTH), 0);
		assert_int_equal(cairn_pin(shop->ns, &key, 0, &ret_pinned[count]), 0);
	}
	assert_true(count > 100);
	return count;
}

/* What is lent is as it was, and goes back. */
static void unpin_all(const struct shop *shop, const struct cairn_pinned *pinned, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		assert_true(is_content(shop, i, pinned[i].base, LENGTH));
		assert_int_equal(cairn_unpin(shop->store, pinned[i].pin), 0);
	}
}

/* Guards that a dump for which there is no room ends by its deadline, and sleeps until then. */
static void all_pinned(void **state)
{
	static struct cairn_pinned pinned[PINS];
	struct cairn_reserved reserved;
	struct cairn_xfer shape;
	uint64_t wall_ns, cpu_ns;
	uint32_t count;
	struct shop shop;
	int status;

	(void)state;
	shop_open(&shop, "size=8MiB, entries=2000", "", LENGTH);
	count = pin_all(&shop, pinned);
	wall_ns = now_of(CLOCK_MONOTONIC);
	cpu_ns = now_of(CLOCK_PROCESS_CPUTIME_ID);
	status = dump_until(&shop, 5000, LENGTH, 500000000u);
	wall_ns = now_of(CLOCK_MONOTONIC) - wall_ns;
	cpu_ns = now_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
	assert_true(status == -ENOSPC || status == -ETIMEDOUT);
	assert_true(wall_ns >= 490000000u);
	assert_true(cpu_ns < wall_ns / 4);
	shape = xfer_of(&shop, 5000, NULL, LENGTH);
	assert_int_equal(cairn_reserve(shop.ns, &shape, &reserved), -EAGAIN);
	assert_false(in_memory(&shop, 5000));
	for (uint32_t i = 0; i < count; i++)
		assert_true(in_memory(&shop, i));

	unpin_all(&shop, pinned, count);
	assert_int_equal(dump(&shop, 5000, LENGTH), 0);
	assert_int_equal(load(&shop, 5000, LENGTH), 0);
	shape = xfer_of(&shop, 5001, NULL, LENGTH);
	assert_int_equal(cairn_reserve(shop.ns, &shape, &reserved), 0);
	assert_int_equal(cairn_abort(shop.store, reserved.base), 0);
	shop_close(&shop);
}

/* Guards that over a tier below nobody waits for room: what finds none passes by, counted. */
static void pinned_below(void **state)
{
	static struct cairn_pinned pinned[PINS];
	uint64_t bypassed, private;
	uint32_t count;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=8MiB, entries=2000", " | null(size=64MiB)", LENGTH);
	count = pin_all(&shop, pinned);
	bypassed = counted(&shop, "bypassed");
	private = counted(&shop, "private_loads");
	assert_int_equal(dump(&shop, 5000, LENGTH), 0);
	assert_int_equal(load(&shop, 5000, LENGTH), 0);
	assert_false(in_memory(&shop, 5000));
	assert_int_equal(counted(&shop, "bypassed"), bypassed + 1);
	assert_int_equal(counted(&shop, "private_loads"), private + 1);
	unpin_all(&shop, pinned, count);
	assert_int_equal(load(&shop, 5000, LENGTH), 0);
	assert_true(in_memory(&shop, 5000));
	shop_close(&shop);
}

static sigjmp_buf faulted;

static void on_fault(int signal)
{
	siglongjmp(faulted, signal);
}

/* Guards that the memory of a pin cannot be written to by mistake: other processes read it. */
static void read_only(void **state)
{
	struct sigaction action = {.sa_handler = on_fault}, before;
	struct cairn_pinned pinned;
	struct cairn_key key;
	struct shop shop;
	volatile uint8_t *byte;
	int signal;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000", "", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	key = key_of(&shop, 1);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), 0);
	byte = (volatile uint8_t *)(uintptr_t)pinned.base;
	assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
	signal = sigsetjmp(faulted, 1);
	if (signal == 0)
		byte[7] = (uint8_t)~byte[7];
	assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
	assert_int_equal(signal, SIGSEGV);
	assert_true(is_content(&shop, 1, pinned.base, LENGTH));
	assert_int_equal(cairn_unpin(shop.store, pinned.pin), 0);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	shop_close(&shop);
}

static uint64_t clients(const struct shop *shop)
{
	struct cairn_stat stat = {.size = sizeof(stat)};

	assert_int_equal(cairn_stat(shop->store, &stat), 0); /* which sets the gauge */
	return counted(shop, "clients");
}

/* ---- whose region ----------------------------------------------------------------------- */

static int rank_try(struct shop *shop, const char *rank, struct cairn_error *reterr)
{
	struct cairn_store_opts opts = {.size = sizeof(opts), .rank = rank};
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(size=16MiB, entries=2000, name=%s-{rank})", region);
	return shop_try(shop, spec, &opts, LENGTH, reterr);
}

/* Guards that ranks which ask for regions of their own do not meet, and each meets itself. */
static void ranks(void **state)
{
	struct shop zero, one, again;
	struct cairn_error error;
	char name[96], path[PATH_SIZE];

	(void)state;
	assert_int_equal(rank_try(&zero, "0", &error), 0);
	assert_int_equal(rank_try(&one, "11", &error), 0);
	assert_int_equal(rank_try(&again, "11", &error), 0);
	snprintf(name, sizeof(name), "%s-0", region);
	file_of(name, path);
	assert_int_equal(access(path, F_OK), 0);
	snprintf(name, sizeof(name), "%s-11", region);
	file_of(name, path);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(dump(&one, 1, LENGTH), 0);
	assert_int_equal(load(&again, 1, LENGTH), 0);
	assert_int_equal(load(&zero, 1, LENGTH), -ENOENT);
	assert_int_equal(clients(&one), 2);
	shop_close(&again);
	shop_close(&one);
	shop_close(&zero);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rank_try(&one, "a b", &error), -EINVAL);
	assert_non_null(strstr(error.text, "name="));
}

/* What is wrong with the region's file. */
enum wrong {
	WRONG_MAGIC,
	WRONG_VERSION,
	WRONG_ENTRIES, /* which the checksum covers */
	WRONG_CRC,
	WRONG_PLACE,
	WRONG_PINS,
	WRONG_USER,
	WRONG_GROUP_MODE,
	WRONG_OTHERS_MODE,
	WRONG_LONGER,
	WRONG_SHORTER,
	WRONG_END,
};

static const struct {
	int error;
	const char *says;
} refusals[] = {
	[WRONG_MAGIC] = {-EPROTO, "another version"},
	[WRONG_VERSION] = {-EPROTO, "another version"},
	[WRONG_ENTRIES] = {-EPROTO, "damaged"},
	[WRONG_CRC] = {-EPROTO, "damaged"},
	[WRONG_PLACE] = {-EPROTO, "damaged"},
	[WRONG_PINS] = {-EPROTO, "damaged"},
	[WRONG_USER] = {-EACCES, "of user"},
	[WRONG_GROUP_MODE] = {-EACCES, "not this user's alone"},
	[WRONG_OTHERS_MODE] = {-EACCES, "not this user's alone"},
	[WRONG_LONGER] = {-EPROTO, "damaged"},
	[WRONG_SHORTER] = {-EPROTO, "damaged"},
};

static void seal(struct cache_header *header)
{
	header->crc = crc32c(0, header, offsetof(struct cache_header, crc));
}

static void make_wrong(enum wrong wrong, const char *path, struct cache_header *header,
		       size_t bytes)
{
	switch (wrong) {
	case WRONG_MAGIC:
		header->magic ^= 1;
		seal(header);
		break;
	case WRONG_VERSION:
		header->version++;
		seal(header);
		break;
	case WRONG_ENTRIES:
		header->entries ^= 1;
		break;
	case WRONG_CRC:
		header->crc ^= 0x80000000u;
		break;
	case WRONG_PLACE:
		header->payload_at += 1u << 30;
		seal(header);
		break;
	case WRONG_PINS:
		header->pins_max += 512;
		seal(header);
		break;
	case WRONG_USER:
		header->uid++;
		seal(header);
		break;
	case WRONG_GROUP_MODE:
		assert_int_equal(chmod(path, 0640), 0);
		break;
	case WRONG_OTHERS_MODE:
		assert_int_equal(chmod(path, 0604), 0);
		break;
	case WRONG_LONGER:
		assert_int_equal(truncate(path, (off_t)bytes + CACHE_PAGE), 0);
		break;
	case WRONG_SHORTER:
		assert_int_equal(truncate(path, (off_t)bytes - CACHE_PAGE), 0);
		break;
	case WRONG_END:
		fail();
	}
}

static void is_refused(enum wrong wrong, const char *options)
{
	struct cairn_error error = {0};
	char spec[SPEC_MAX];
	struct shop shop = {0};

	snprintf(spec, sizeof(spec), "cache(%s, name=%s)", options, region);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), refusals[wrong].error);
	assert_non_null(strstr(error.text, refusals[wrong].says));
	assert_non_null(strstr(error.text, region));
	assert_null(strchr(error.text, '\n'));
}

/* The file, made wrong, is refused by who opens it with @options, and stays as it is. */
static void refuse_one(enum wrong wrong, const char *options)
{
	char path[PATH_SIZE];
	struct stat before, after;
	size_t bytes;
	uint8_t *file = map_file(region, &bytes);
	struct cache_header *header = (struct cache_header *)(void *)file, was = *header, wrongly;

	file_of(region, path);
	make_wrong(wrong, path, header, bytes);
	wrongly = *header;
	assert_int_equal(stat(path, &before), 0);
	is_refused(wrong, options);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_mode, before.st_mode);
	assert_int_equal(after.st_size, before.st_size);
	assert_memory_equal(header, &wrongly, FIXED_BYTES);
	/* As it was. */
	memcpy(header, &was, FIXED_BYTES);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(truncate(path, (off_t)bytes), 0);
	munmap(file, bytes);
}

/* Guards what is checked of a region that nobody has open, and its blocks. */
static void refused_kept(void **state)
{
	const char *options = "size=16MiB, entries=2000, keep=yes";
	char path[PATH_SIZE];
	struct shop shop;

	(void)state;
	shop_open(&shop, options, "", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	shop_close(&shop);
	for (enum wrong wrong = 0; wrong < WRONG_END; wrong++)
		refuse_one(wrong, options);
	/* Nor does one take it away that would have made another in its place. */
	refuse_one(WRONG_GROUP_MODE, "size=16MiB, entries=2000");
	shop_open(&shop, options, "", LENGTH);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	shop_close(&shop);
	file_of(region, path);
	assert_int_equal(unlink(path), 0);
}

/* Guards the same of one that others have open, who are not disturbed. */
static void refused_live(void **state)
{
	const char *options = "size=16MiB, entries=2000";
	struct shop shop, other;

	(void)state;
	shop_open(&shop, options, "", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	/* Not shorter: a page that a live one maps is not taken away. */
	for (enum wrong wrong = 0; wrong < WRONG_SHORTER; wrong++) {
		refuse_one(wrong, options);
		assert_int_equal(load(&shop, 1, LENGTH), 0);
	}
	shop_open(&other, options, "", LENGTH);
	assert_int_equal(load(&other, 1, LENGTH), 0);
	assert_int_equal(clients(&other), 2);
	shop_close(&other);
	shop_close(&shop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_system_call), TEST(served_inline), TEST(gdsf_ages),    TEST(damage_below),
		TEST(damage_alone),   TEST(full_table),	   TEST(all_pinned),   TEST(pinned_below),
		TEST(read_only),      TEST(ranks),	   TEST(refused_kept), TEST(refused_live),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
