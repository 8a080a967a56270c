/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/grammar.h"
#include "grammar_rows.h"
#include "sys_memory.h"

/* Parses @text and resolves its last stage against the rows of "posix". */
static int resolve(const char *text, const char *rank, struct cairn_value *values, void **strings,
		   struct cairn_error *reterr)
{
	struct options_context context = {.rank = rank};
	struct spec *spec;
	int err;

	assert_int_equal(spec_parse(&sys_memory, text, grammar_rows, NULL, &spec, reterr), 0);
	*strings = NULL;
	err = options_resolve(&sys_memory, &spec->stages[spec->stage_count - 1], posix_rows,
			      POSIX_ROWS, &context, values, strings, reterr);
	spec_free(spec); /* the values do not need it */
	return err;
}

static void values(void **state)
{
	struct cairn_value v[POSIX_ROWS];
	struct cairn_error error;
	void *strings;

	(void)state;
	sys_memory_reset();
	assert_int_equal(resolve("posix(path=/kv/{rank}/x{rank}, size=1.5GiB, partial_ttl=2s,"
				 "entries=1k, ratio=0.25, shared=yes, direct=no, note=\"a {b}\")",
				 "12", v, &strings, &error),
			 0);
	assert_string_equal(v[ROW_PATH].s, "/kv/12/x12");
	assert_int_equal(v[ROW_SIZE].u, 3ull << 29);
	assert_int_equal(v[ROW_TTL].u, 2000000000);
	assert_int_equal(v[ROW_ENTRIES].u, 1000);
	assert_true(v[ROW_RATIO].d == 0.25);
	assert_int_equal(v[ROW_SHARED].u, 1);
	assert_int_equal(v[ROW_DIRECT].u, 2);
	assert_string_equal(v[ROW_NOTE].s, "a {b}");
	for (int i = 0; i < POSIX_ROWS; i++)
		assert_int_equal(v[i].set, 1);
	options_free(&sys_memory, strings);
	options_free(&sys_memory, NULL);
	assert_int_equal(sys_memory_state.live, 0);
}

static void presets(void **state)
{
	struct cairn_value v[POSIX_ROWS];
	struct cairn_error error;
	void *strings;

	(void)state;
	sys_memory_reset();
	memset(v, 0xff, sizeof(v));
	assert_int_equal(resolve("posix(path={rank})", NULL, v, &strings, &error), 0);
	assert_string_equal(v[ROW_PATH].s, "0");
	assert_int_equal(v[ROW_SIZE].set, 0);
	assert_int_equal(v[ROW_SIZE].u, 0);
	assert_int_equal(v[ROW_TTL].u, 3600000000000);
	assert_int_equal(v[ROW_ENTRIES].u, 64000);
	assert_int_equal(v[ROW_RATIO].set, 0);
	assert_int_equal(v[ROW_SHARED].set, 1);
	assert_int_equal(v[ROW_SHARED].u, 0);
	assert_int_equal(v[ROW_DIRECT].u, 0);
	assert_null(v[ROW_NOTE].s);
	options_free(&sys_memory, strings);
	assert_int_equal(sys_memory_state.live, 0);
}

static const struct {
	const char *text;
	int line, column;
	const char *error;
} error_rows[] = {
	{"posix(size=1,pathe=/x)", 1, 14,
	 "posix: unknown option \"pathe\"; did you mean \"path\"?"},
	{"posix(path=/x,\n  blocks=1)", 2, 3,
	 "posix: unknown option \"blocks\"; it has path, size, partial_ttl, entries, "
	 "ratio, "
	 "shared, direct, note"},
	{"posix(path=/x,size=1GiB,size=2GiB)", 1, 25,
	 "posix: option \"size\" is given twice; leave one out"},
	{"a | posix(size=1GiB)", 1, 5, "posix: option \"path\" is missing; write posix(path=...)"},
	{"posix(path=\"\")", 1, 12,
	 "posix: path=\"\" is empty; write where, for example /var/lib/cairn"},
	{"posix(path=/{node})", 1, 12,
	 "posix: path=\"/{node}\" has a \"{\" that is not of {rank}, the only name that is "
	 "expanded"},
	{"posix(path=/{rank)", 1, 12,
	 "posix: path=\"/{rank\" has a \"{\" that is not of {rank}, the only name that is "
	 "expanded"},
	{"posix(path=/x,size=8G)", 1, 20,
	 "posix: size=\"8G\" is no size; write for example 4096, 64KiB, 1.5GiB or 10GB"},
	{"posix(path=/x,size=64KiB)", 1, 20,
	 "posix: size=\"64KiB\" is too small; the least is 1MiB"},
	{"posix(path=/x,size=2TiB)", 1, 20, "posix: size=\"2TiB\" is too large; the most is 1TiB"},
	{"posix(path=/x,size=99999999TiB)", 1, 20,
	 "posix: size=\"99999999TiB\" is too large; the most is 1TiB"},
	{"posix(path=/x,partial_ttl=10)", 1, 27,
	 "posix: partial_ttl=\"10\" is no time; write for example 250ms, 30s, 10us or 1h"},
	{"posix(path=/x,partial_ttl=0)", 1, 27,
	 "posix: partial_ttl=\"0\" is too small; the least is 1s"},
	{"posix(path=/x,partial_ttl=9999999d)", 1, 27,
	 "posix: partial_ttl=\"9999999d\" is too large for any store"},
	{"posix(path=/x,entries=-1)", 1, 23,
	 "posix: entries=\"-1\" is no count; write for example 16, 64k or 1M"},
	{"posix(path=/x,ratio=1.01)", 1, 21, "posix: ratio=\"1.01\" is too large; the most is 1"},
	{"posix(path=/x,ratio=-0.01)", 1, 21,
	 "posix: ratio=\"-0.01\" is too small; the least is 0"},
	{"posix(path=/x,ratio=half)", 1, 21,
	 "posix: ratio=\"half\" is no number; write for example 0.25"},
	{"posix(path=/x,shared=true)", 1, 22,
	 "posix: shared=\"true\" is no answer; write yes or no"},
	{"posix(path=/x,direct=atuo)", 1, 22,
	 "posix: direct=\"atuo\" is none of auto|yes|no; did you mean \"auto\"?"},
	{"posix(path=/x,direct=\"\")", 1, 22, "posix: direct=\"\" is none of auto|yes|no"},
	{"@local(path=\"\")", 1, 13,
	 "flash: path=\"\" is empty; write where, for example /var/lib/cairn"},
};

static void errors(void **state)
{
	(void)state;
	sys_memory_reset();
	for (size_t i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++) {
		struct cairn_value v[POSIX_ROWS];
		struct cairn_error error = {0};
		char text[CAIRN_ERROR_TEXT_MAX];
		void *strings;

		assert_int_equal(resolve(error_rows[i].text, "0", v, &strings, &error), -EINVAL);
		snprintf(text, sizeof(text), "line %d, column %d: %s", error_rows[i].line,
			 error_rows[i].column, error_rows[i].error);
		assert_string_equal(error.text, text);
		assert_int_equal(error.line, error_rows[i].line);
		assert_int_equal(error.column, error_rows[i].column);
		assert_null(strings);
	}
	assert_int_equal(sys_memory_state.live, 0);
}

static void ranks(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b"};
	struct cairn_value v[POSIX_ROWS];
	struct cairn_error error;
	void *strings;

	(void)state;
	sys_memory_reset();
	for (int i = 0; i < 4; i++) {
		assert_int_equal(resolve("posix(path=/{rank})", bad[i], v, &strings, &error),
				 -EINVAL);
		assert_string_equal(error.text,
				    "line 1, column 12: posix: path=\"/{rank}\" needs a rank that "
				    "can stand in a path, not an empty one, \".\", or one with a "
				    "\"/\"");
		/* Where it is not used it does not matter. */
		assert_int_equal(resolve("posix(path=/x)", bad[i], v, &strings, &error), 0);
		options_free(&sys_memory, strings);
	}
	assert_int_equal(sys_memory_state.live, 0);
}

static void rows_of_others(void **state)
{
	static const struct cairn_option odd[] = {
		{"a", CAIRN_OPTION_SIZE, 0, "1KiB", "lots", NULL, NULL, ""},
	};
	struct spec_option option = {"b", "1", 1, 3, 1, 5};
	struct spec_stage stage = {.name = "x", .line = 1, .column = 1};
	struct cairn_error error;
	struct cairn_value v;
	void *strings;

	(void)state;
	assert_int_equal(options_resolve(&sys_memory, &stage, odd, 1, NULL, &v, &strings, &error),
			 -EINVAL);
	assert_string_equal(error.text, "line 1, column 1: x: a=\"1KiB\" meets a bad least value "
					"in the stage's row: lots");
	assert_int_equal(
		options_resolve(&sys_memory, &stage, NULL, 0, NULL, NULL, &strings, &error), 0);
	stage.options = &option;
	stage.option_count = 1;
	assert_int_equal(
		options_resolve(&sys_memory, &stage, NULL, 0, NULL, NULL, &strings, &error),
		-EINVAL);
	assert_string_equal(error.text, "line 1, column 3: x: unknown option \"b\"; it takes none");
}

static void no_memory(void **state)
{
	struct cairn_value v[POSIX_ROWS];
	struct cairn_error error;
	void *strings;

	(void)state;
	sys_memory_reset();
	assert_int_equal(resolve("posix(path=/x)", "0", v, &strings, &error), 0);
	options_free(&sys_memory, strings);
	sys_memory_state.fail_at = sys_memory_state.calls; /* the last one was for the strings */
	sys_memory_state.calls = 0;
	assert_int_equal(resolve("posix(path=/x)", "0", v, &strings, &error), -ENOMEM);
	assert_string_equal(error.text, "posix: no memory for its options");
	assert_null(strings);
	assert_int_equal(sys_memory_state.live, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values),	  cmocka_unit_test(presets),
		cmocka_unit_test(errors),	  cmocka_unit_test(ranks),
		cmocka_unit_test(rows_of_others), cmocka_unit_test(no_memory),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
