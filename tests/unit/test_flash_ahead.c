/* SPDX-License-Identifier: Apache-2.0 */
/* Reads sent ahead: what is taken is what the file has, and nothing is lost where they fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "random.h"
#include "stages/flash/ahead.h"

#define FILE_BYTES (24u << 20) /* more than the room for what is read */
#define UNIT	   512u

static struct file {
	char path[64];
	int fd;
	uint8_t *bytes;
} file;

static const struct engine_ops *ops;
static struct engine *engine;
static uint8_t *room;

static int setup(void **state)
{
	struct random random = {1};

	(void)state;
	snprintf(file.path, sizeof(file.path), "/tmp/cairn-ahead-XXXXXX");
	file.fd = mkstemp(file.path);
	file.bytes = malloc(FILE_BYTES);
	room = aligned_alloc(4096, AHEAD_ROOM);
	assert_true(file.fd >= 0 && file.bytes && room);
	for (size_t at = 0; at < FILE_BYTES; at += 8) {
		uint64_t word = random_next(&random);

		memcpy(file.bytes + at, &word, 8);
	}
	for (size_t at = 0; at < FILE_BYTES;) {
		ssize_t put = write(file.fd, file.bytes + at, FILE_BYTES - at);

		assert_true(put > 0);
		at += (size_t)put;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(file.fd);
	unlink(file.path);
	free(file.bytes);
	free(room);
	return 0;
}

/* NULL: this kind cannot be had here. */
static struct ahead *open_kind(enum engine_kind kind)
{
	struct engine_opts opts = {.sys = &sys_native, .chains_max = AHEAD_CHAINS, .guard_fd = -1};
	struct ahead *ahead;

	ops = sys_native.engine(kind);
	if (!ops || ops->open(&opts, &engine) < 0)
		return NULL;
	assert_int_equal(ahead_open(&sys_native, ops, engine, room, file.fd, false, &ahead), 0);
	return ahead;
}

static void close_kind(struct ahead *ahead)
{
	if (!ahead)
		return;
	assert_int_equal(ahead_close(ahead), 0);
	ops->close(engine);
}

static bool right(const uint8_t *got, uint64_t at, size_t bytes)
{
	return got && memcmp(got, file.bytes + at, bytes) == 0;
}

static uint64_t ats[FILE_BYTES / UNIT + 2];

/* The file in pieces of all sizes; their number. */
static size_t cut(struct random *random)
{
	size_t count = 0;

	for (uint64_t at = 0; at < FILE_BYTES; count++) {
		uint64_t most = random_next(random) % 16 ? 16 : AHEAD_READ_MAX / UNIT;

		ats[count] = at;
		at += (1 + random_next(random) % most) * UNIT;
	}
	ats[count] = FILE_BYTES;
	return count;
}

static const uint8_t *take(struct ahead *ahead, size_t i)
{
	return ahead_take(ahead, ats[i], (size_t)(ats[i + 1] - ats[i]));
}

/* As many ahead as there is room for; some are passed over, others lent two at a time. */
static void all_of_it(struct ahead *ahead, uint64_t seed)
{
	struct random random = {seed};
	size_t count = cut(&random), wanted = 0, most = 0;

	for (size_t i = 0; i + 1 < count; i++) {
		const uint8_t *first = NULL;

		while (wanted < count &&
		       ahead_want(ahead, ats[wanted], (size_t)(ats[wanted + 1] - ats[wanted])))
			wanted++;
		most = wanted - i > most ? wanted - i : most;
		assert_true(wanted > i + 1);
		if (random_next(&random) % 4 == 0)
			continue;
		first = take(ahead, i);
		if (random_next(&random) % 4 == 0) {
			i++;
			assert_true(right(take(ahead, i), ats[i], (size_t)(ats[i + 1] - ats[i])));
			assert_true(right(first, ats[i - 1], (size_t)(ats[i] - ats[i - 1])));
		} else {
			assert_true(right(first, ats[i], (size_t)(ats[i + 1] - ats[i])));
		}
		ahead_give(ahead);
	}
	assert_true(most > 4);
	ahead_forget(ahead);
}

static void in_order(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < ENGINE_KINDS; kind++) {
		struct ahead *ahead = open_kind((enum engine_kind)kind);

		for (uint64_t seed = 1; ahead && seed < 4; seed++)
			all_of_it(ahead, seed);
		close_kind(ahead);
	}
}

static void what_fails_is_no_loss(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < ENGINE_KINDS; kind++) {
		struct ahead *ahead = open_kind((enum engine_kind)kind);

		if (!ahead)
			continue;
		assert_true(ahead_want(ahead, FILE_BYTES - UNIT, 2 * UNIT)); /* behind the end */
		assert_true(ahead_want(ahead, 4 * UNIT, UNIT));
		assert_null(ahead_take(ahead, 0, UNIT)); /* not wanted */
		assert_null(ahead_take(ahead, FILE_BYTES - UNIT, 2 * UNIT));
		assert_true(right(ahead_take(ahead, 4 * UNIT, UNIT), 4 * UNIT, UNIT));
		assert_null(ahead_take(ahead, 4 * UNIT, UNIT)); /* once */
		assert_false(ahead_want(ahead, 0, AHEAD_READ_MAX + UNIT));
		close_kind(ahead);
	}
}

/* With reads under way, and others lent. */
static void closing(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < ENGINE_KINDS; kind++) {
		struct ahead *ahead = open_kind((enum engine_kind)kind);

		for (uint64_t at = 0; ahead && ahead_want(ahead, at, 65536); at += 65536)
			;
		if (ahead)
			assert_true(right(ahead_take(ahead, 65536, 65536), 65536, 65536));
		close_kind(ahead);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order),
		cmocka_unit_test(what_fails_is_no_loss),
		cmocka_unit_test(closing),
	};

	return cmocka_run_group_tests_name("flash_ahead", tests, setup, teardown);
}
