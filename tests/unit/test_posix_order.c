/* SPDX-License-Identifier: Apache-2.0 */
/* Sequence numbers of blocks: they rise over restarts, however the process ended. */
#include "posix_store.h"

#include <signal.h>
#include <sys/wait.h>

#define SHARD  4096u
#define ROUNDS 5u
#define EACH   3u
#define BLOCKS (ROUNDS * EACH)

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

struct listed {
	struct cairn_key keys[BLOCKS];
	uint64_t sequences[BLOCKS];
	uint32_t count;
};

static int see_block(void *context, const struct cairn_listed *block)
{
	struct listed *seen = context;

	assert_true(seen->count < BLOCKS);
	seen->keys[seen->count] = block->key;
	seen->sequences[seen->count++] = block->sequence;
	return 0;
}

static uint64_t sequence_of(const struct listed *seen, const struct cairn_key *key)
{
	uint32_t i = 0;

	while (i < seen->count && memcmp(&seen->keys[i], key, sizeof(*key)) != 0)
		i++;
	assert_true(i < seen->count);
	return seen->sequences[i];
}

/* The blocks of one process's life. */
static void dump_round(uint32_t round)
{
	fixture_open(&f, "");
	fixture_space(&f, "order", 1, SHARD);
	for (uint32_t i = 0; i < EACH; i++)
		assert_int_equal(dump_one(&f, round * EACH + i, 0, SHARD, CAIRN_WRITTEN), 0);
}

/* In a process that is killed with the store open. */
static void dump_and_die(uint32_t round)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		dump_round(round);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void check_order(void)
{
	static struct listed seen;
	struct cairn_key keys[BLOCKS];
	uint64_t last = 0;

	seen = (struct listed){0};
	fixture_open(&f, "");
	fixture_space(&f, "order", 1, SHARD);
	for (uint32_t i = 0; i < BLOCKS; i++)
		keys[i] = key_of(&f, i);
	fixture_close(&f);
	assert_int_equal(cairn_list(f.spec, NULL, see_block, &seen, NULL, NULL), BLOCKS);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		uint64_t sequence = sequence_of(&seen, &keys[i]);

		assert_true(sequence > last);
		last = sequence;
	}
}

static void over_clean_ends(void **state)
{
	(void)state;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		dump_round(round);
		fixture_close(&f);
	}
	check_order();
}

static void over_kills(void **state)
{
	(void)state;
	for (uint32_t round = 0; round < ROUNDS; round++)
		dump_and_die(round);
	check_order();
}

static void over_both(void **state)
{
	(void)state;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		if (round % 2 == 0) {
			dump_and_die(round);
			continue;
		}
		dump_round(round);
		fixture_close(&f);
	}
	check_order();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(over_clean_ends),
		TEST(over_kills),
		TEST(over_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
