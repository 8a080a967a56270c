/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of what lies in a region: of one that was kept, and of one that several share. And what
 * becomes of regions that nobody has open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "block_shop.h"

#define LENGTH 20000u
#define SIZES  "size=16MiB, entries=2000"

/* While nobody has the region open. */
static void damage_block(struct shop *shop, uint32_t number)
{
	struct cairn_key key = key_of(shop, number);

	shop_close(shop);
	damage_key(&key, LENGTH, LENGTH / 2);
	shop_open(shop, SIZES ", keep=yes", "", LENGTH);
}

/* What happened to a region that nobody had open is seen before a byte of it is served. */
static void kept(void **state)
{
	struct cairn_pinned pinned;
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, SIZES ", keep=yes", "", LENGTH);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(dump(&shop, i, LENGTH), 0);
	damage_block(&shop, 1);
	assert_int_equal(load(&shop, 1, LENGTH), -ENOENT);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(load(&shop, i, LENGTH), i == 1 ? -ENOENT : 0);
	/* What was found right is looked at again after the next time that nobody had it. */
	damage_block(&shop, 2);
	key = key_of(&shop, 2);
	assert_int_equal(cairn_pin(shop.ns, &key, 0, &pinned), -ENOENT);
	assert_int_equal(counted(&shop, "damaged_blocks"), 1);
	assert_int_equal(load(&shop, 2, LENGTH), -ENOENT);
	assert_int_equal(load(&shop, 3, LENGTH), 0);
	assert_true(in_memory(&shop, 3));
	shop_close(&shop);
	shop_open(&shop, SIZES, "", LENGTH); /* which keeps nothing */
	assert_int_equal(load(&shop, 0, LENGTH), -ENOENT);
	shop_close(&shop);
}

/* One joins while another has it open: nothing happened meanwhile, and it finds all sums. */
static void sums_are_shared(void **state)
{
	struct shop one, two;

	(void)state;
	shop_open(&one, SIZES ", verify=hit", "", LENGTH);
	shop_open(&two, SIZES, "", LENGTH);
	assert_int_equal(dump(&two, 1, LENGTH), 0);
	assert_int_equal(load(&one, 1, LENGTH), 0);
	assert_true(in_memory(&one, 1));
	assert_int_equal(counted(&one, "damaged_blocks"), 0);
	shop_close(&one);
	shop_close(&two);
}

static void refused(const char *options, const char *said)
{
	struct cairn_error error = {0};
	struct shop shop = {0};
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(%s, %s, name=%s)", SIZES, options, region);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), -EINVAL);
	assert_non_null(strstr(error.text, said));
	assert_null(strchr(error.text, '\n'));
}

static void what_differs_is_refused(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, SIZES, "", LENGTH);
	refused("policy=lfu", "policy=");
	refused("policy=lfu", "which others have open");
	refused("verify=hit", "verify=hit");
	refused("keep=yes", "keep=yes");
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	shop_close(&shop);
	/* Nobody has it open: who is refused is told how to be rid of it. */
	shop_open(&shop, SIZES ", keep=yes", "", LENGTH);
	shop_close(&shop);
	refused("policy=lfu, keep=yes", "which is kept");
	refused("policy=lfu, keep=yes", "or remove /dev/shm/cairn-cache-");
	shop_open(&shop, SIZES, "", LENGTH);
	shop_close(&shop);
}

/* Of two stores below that are alike but for their UUID, under one name=. */
static void another_store_below(void **state)
{
	struct cairn_error error = {0};
	struct shop shop, other = {0};
	char folder[SPEC_MAX / 4] = "/tmp/cairn-kept-XXXXXX", spec[SPEC_MAX], below[SPEC_MAX / 2];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(below, sizeof(below), " | posix(path=%s/one, shared=yes)", folder);
	shop_open(&shop, SIZES, below, LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	snprintf(spec, sizeof(spec), "cache(%s, name=%s) | posix(path=%s/two, shared=yes)", SIZES,
		 region, folder);
	assert_int_equal(shop_try(&other, spec, NULL, LENGTH, &error), -EINVAL);
	assert_non_null(strstr(error.text, "lies over another store"));
	/* The same one is let in. */
	shop_open(&other, SIZES, below, LENGTH);
	assert_true(in_memory(&other, 1));
	shop_close(&other);
	shop_close(&shop);
	snprintf(spec, sizeof(spec), "rm -r %s", folder);
	assert_int_equal(system(spec), 0);
}

/* ---- what is left behind ---------------------------------------------------------------- */

static void other_name(char which, char ret_name[80])
{
	snprintf(ret_name, 80, "%s-%c", region, which);
}

static bool is_there(char which)
{
	char name[80], path[PATH_SIZE];

	other_name(which, name);
	file_of(name, path);
	return access(path, F_OK) == 0;
}

static void write_file(char which, const void *bytes, size_t length)
{
	char name[80], path[PATH_SIZE];
	int fd;

	other_name(which, name);
	file_of(name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), length);
	close(fd);
}

/* A process that has a block in such a region, until it is killed. */
static pid_t begin(char which, const char *options)
{
	int told[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(told), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct cairn_error error;
		struct shop shop;
		char name[80], spec[SPEC_MAX];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		other_name(which, name);
		snprintf(spec, sizeof(spec), "cache(%s%s, name=%s)", SIZES, options, name);
		if (shop_try(&shop, spec, NULL, LENGTH, &error) < 0 || dump(&shop, 1, LENGTH) != 0)
			_exit(1);
		if (write(told[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(told[1]);
	assert_int_equal(read(told[0], &byte, 1), 1);
	close(told[0]);
	return pid;
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Opens the test's own region until that is gone: the dead may have I/O under way. */
static void open_until_gone(char which)
{
	struct shop shop;

	for (uint32_t i = 0; i < 1000 && is_there(which); i++) {
		shop_open(&shop, SIZES, "", LENGTH);
		shop_close(&shop);
		usleep(10000);
	}
	assert_false(is_there(which));
}

/* Nobody's goes as anybody opens a region; who lives, or wants it kept, finds his again. */
static void what_the_killed_leave(void **state)
{
	static const char unknown[8192] = "of another version";
	struct cairn_error error = {0};
	char name[80], spec[SPEC_MAX];
	pid_t dead, keeper, live;
	struct shop shop;

	(void)state;
	dead = begin('d', "");
	keeper = begin('k', ", keep=yes");
	live = begin('l', "");
	write_file('e', "", 0);
	write_file('u', unknown, sizeof(unknown));
	end(dead);
	end(keeper);
	open_until_gone('d');
	open_until_gone('e');
	assert_true(is_there('k') && is_there('l') && is_there('u'));
	other_name('k', name);
	snprintf(spec, sizeof(spec), "cache(%s, keep=yes, name=%s)", SIZES, name);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), 0);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	shop_close(&shop);
	assert_true(is_there('k'));
	other_name('l', name);
	snprintf(spec, sizeof(spec), "cache(%s, name=%s)", SIZES, name);
	assert_int_equal(shop_try(&shop, spec, NULL, LENGTH, &error), 0);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	/* Of the last two one is killed, and the other closes it. */
	end(live);
	shop_close(&shop);
	open_until_gone('l');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(kept),
		TEST(sums_are_shared),
		TEST(what_differs_is_refused),
		TEST(another_store_below),
		TEST(what_the_killed_leave),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
