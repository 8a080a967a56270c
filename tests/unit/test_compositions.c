/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "core/grammar.h"
#include "grammar_rows.h"
#include "sys_memory.h"

static int setup(void **state)
{
	(void)state;
	sys_memory_reset();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	compositions_reset(&sys_memory);
	assert_int_equal(sys_memory_state.live, 0);
	assert_int_equal(sys_memory_state.open, 0);
	return 0;
}

static void define(const char *name, const char *text)
{
	struct cairn_error error = {0};

	if (compositions_define(&sys_memory, name, text, &error))
		fail_msg("@%s: %s", name, error.text);
}

/* @text expands to @expected: "stage(option=value@line:column)|...". */
static void expands(const char *text, const char *expected)
{
	struct cairn_error error = {0};
	char out[1000];
	FILE *f = fmemopen(out, sizeof(out), "w");
	struct spec *spec;

	if (spec_parse(&sys_memory, text, grammar_rows, NULL, &spec, &error))
		fail_msg("%s: %s", text, error.text);
	for (uint32_t s = 0; s < spec->stage_count; s++) {
		const struct spec_stage *stage = &spec->stages[s];

		fprintf(f, "%s%s@%d:%d(", s ? "|" : "", stage->name, stage->line, stage->column);
		for (uint32_t i = 0; i < stage->option_count; i++)
			fprintf(f, "%s%s=%s@%d:%d", i ? "," : "", stage->options[i].name,
				stage->options[i].value, stage->options[i].line,
				stage->options[i].value_column);
		fprintf(f, ")");
	}
	fclose(f);
	assert_string_equal(out, expected);
	spec_free(spec);
}

static void refuses(const char *text, const char *expected)
{
	struct cairn_error error = {0};
	struct spec *spec;

	assert_int_equal(spec_parse(&sys_memory, text, grammar_rows, NULL, &spec, &error), -EINVAL);
	assert_string_equal(error.text, expected);
}

static void predefined(void **state)
{
	(void)state;
	expands("@local", "flash@1:1(path=/var/lib/cairn.kv@1:1,size=32GiB@1:1)");
	expands("@local(path=/kv)", "flash@1:1(path=/kv@1:13,size=32GiB@1:1)");
	expands("@shared", "posix@1:1(path=/var/lib/cairn-shared@1:1,shared=yes@1:1)");
	expands("@ranks", "posix@1:1(path=/var/lib/cairn-rank{rank}@1:1)");
	expands("@memory(size=2GiB)", "null@1:1(size=2GiB@1:14)");
	expands("@local(size=1GiB)", "flash@1:1(path=/var/lib/cairn.kv@1:1,size=1GiB@1:13)");
}

static void overrides(void **state)
{
	(void)state;
	define("two", "cache(size=1GiB)\n | posix(path=/a) # both have a size");
	expands("x | @two(size=2GiB, policy=lru) | y",
		"x@1:1()|cache@1:5(size=1GiB@1:5,policy=lru@1:28)|posix@1:5(path=/a@1:5,"
		"size=2GiB@1:15)|y@1:35()");
	/* Of another one in it. */
	define("@outer", "@two(path=/b) | z(o=1)");
	expands("@outer(path=/c,o=2)", "cache@1:1(size=1GiB@1:1)|posix@1:1(path=/c@1:13)|"
				       "z@1:1(o=2@1:18)");
	refuses("\n @outer(pathe=/c)", "line 2, column 9: @outer: none of its stages has an option "
				       "\"pathe\"; did you mean \"path\"?");
	refuses("@outer(k=1,k=2)", "line 1, column 8: @outer: none of its stages has an option "
				   "\"k\"; leave it out");
}

static void hides(void **state)
{
	(void)state;
	define("local", "posix(path=/mine)");
	expands("@local", "posix@1:1(path=/mine@1:1)");
	define("local", "posix(path=/other)");
	expands("@local", "posix@1:1(path=/other@1:1)");
}

static void nesting(void **state)
{
	char name[8], text[8];

	(void)state;
	define("loop", "@loop");
	refuses("a | @loop", "line 1, column 5: @loop: compositions in compositions more than 8 "
			     "deep; does one of them use itself?");
	define("n1", "a");
	for (int i = 2; i <= 9; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		snprintf(text, sizeof(text), "@n%d", i - 1);
		define(name, text);
	}
	expands("@n8", "a@1:1()");
	refuses("@n9", "line 1, column 1: @n1: compositions in compositions more than 8 deep; does "
		       "one of them use itself?");
	/* Defined before what it uses. */
	define("early", "x |\n  @lat");
	define("late", "y");
	refuses("@early",
		"line 1, column 1: @early: in line 2, column 3 of its definition: unknown "
		"composition \"@lat\"; did you mean \"@late\"?");
	define("many", "a|a|a|a|a|a|a|a");
	define("more", "@many|@many|@many|@many|@many|@many|@many|@many");
	refuses("@more|a", "line 1, column 7: more than 64 stages; that is the most there can be");
	refuses("a|@more", "line 1, column 3: @many: in line 1, column 15 of its definition: more "
			   "than 64 stages; that is the most there can be");
}

static void bad_definitions(void **state)
{
	static const struct {
		const char *name, *text, *error;
	} rows[] = {
		{"1", "a",
		 "\"1\" is no composition's name; a name is a letter, then letters, "
		 "digits, \"_\", \"-\" or \".\""},
		{"@@x", "a",
		 "\"@x\" is no composition's name; a name is a letter, then letters, "
		 "digits, \"_\", \"-\" or \".\""},
		{"", "a",
		 "\"\" is no composition's name; a name is a letter, then letters, "
		 "digits, \"_\", \"-\" or \".\""},
		{"x", "a|\n",
		 "line 2, column 1: expected a stage, such as "
		 "posix(path=/var/lib/cairn), found the end of the text"},
		{"x", "@y = a",
		 "line 1, column 4: expected \"|\" between stages, or the end of the "
		 "text, found \"=\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cairn_error error = {0};

		assert_int_equal(
			compositions_define(&sys_memory, rows[i].name, rows[i].text, &error),
			-EINVAL);
		assert_string_equal(error.text, rows[i].error);
		assert_int_equal(compositions_define(&sys_memory, rows[i].name, rows[i].text, NULL),
				 -EINVAL);
	}
}

static int define_file(const char *text, struct cairn_error *reterr)
{
	sys_memory_file(text, strlen(text));
	return compositions_define_file(&sys_memory, "/etc/cairn.conf", reterr);
}

static void files(void **state)
{
	struct cairn_error error = {0};

	(void)state;
	sys_memory_state.read_max = 7; /* reads may be short */
	assert_int_equal(define_file("# ours\n@a = cache(size=1GiB) # hot\n  | @b\n"
				     "@b=posix(path=/b)@c\n=\nx(t=\"@d = y\")\n# end",
				     &error),
			 3);
	expands("@a(path=/p)", "cache@1:1(size=1GiB@1:1)|posix@1:1(path=/p@1:9)");
	expands("@c", "x@1:1(t=@d = y@1:1)");
	assert_int_equal(define_file("", &error), 0);
	assert_int_equal(define_file(" # nothing\n", &error), 0);
}

static void bad_files(void **state)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{"@e = a\nposix", "line 2, column 1: expected a definition, such as @name = "
				  "posix(path=/var/lib/cairn), found \"posix\""},
		{"@e = a\n@f a", "line 2, column 4: expected \"=\" and a pipeline after \"@f\", "
				 "found \"a\""},
		{"@e = a\n@f =", "line 2, column 5: expected a stage, such as "
				 "posix(path=/var/lib/cairn), found the end of the text"},
		{"@e = a | \n@e = b", "line 2, column 4: expected a definition, such as @name = "
				      "posix(path=/var/lib/cairn), found \"=\""},
		{"@e = a\n@f = b\n@e = c",
		 "line 3, column 1: @e is defined twice in this file; leave one out"},
		{"@e = a\n@/ = b", "line 2, column 1: \"@/\" is no composition's name; a name is a "
				   "letter, then letters, digits, \"_\", \"-\" or \".\""},
		{"@e = a(\"", "line 1, column 9: a text in quotes ends on its line; a '\"' belongs "
			      "here"},
	};
	struct cairn_error error = {0};
	char *big = calloc(1, (64u << 10) + 2);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(define_file(rows[i].text, &error), -EINVAL);
		assert_string_equal(error.text, rows[i].error);
		refuses("@e", "line 1, column 1: unknown composition \"@e\"; define it, or see "
			      "\"cairn stages\""); /* none is taken */
	}
	memset(big, '\n', (64u << 10) + 1);
	assert_int_equal(define_file(big, &error), -EINVAL);
	assert_string_equal(error.text, "/etc/cairn.conf: longer than 64 KiB; that is the most "
					"there can be");
	assert_int_equal(define_file(big + 1, &error), 0);
	free(big);
	sys_memory_file("@a\0=x", 5);
	assert_int_equal(compositions_define_file(&sys_memory, "/x", &error), -EINVAL);
	assert_string_equal(error.text, "/x: has a NUL byte; definitions are plain text");
	sys_memory_state.file = NULL;
	assert_int_equal(compositions_define_file(&sys_memory, "/x", &error), -ENOENT);
	assert_string_equal(error.text, "/x: no such file");
}

static int count_all(void *context, const char *name, const char *spec, const char *help)
{
	int *count = context;

	assert_true(name[0] && spec[0] && help[0]);
	++*count;
	return 0;
}

#define SHARED_TOO                                                                                 \
	"shared: posix(path=/var/lib/cairn-shared, shared=yes); "                                  \
	"ranks: posix(path=\"/var/lib/cairn-rank{rank}\"); memory: null(size=1GiB); "
#define PREDEFINED 4

/* Each call fails once: memory, opening, reading. All definitions are there, or none is. */
static void every_call_fails(void **state)
{
	static const char text[] = "@a = x\n@b = y\n@c = @a | @b";
	int n, count;

	(void)state;
	for (n = 1;; n++) {
		struct cairn_error error = {0};
		int err;

		sys_memory_reset();
		sys_memory_state.fail_at = n;
		err = define_file(text, &error);
		count = 0;
		assert_int_equal(compositions_each(count_all, &count), 0);
		assert_int_equal(sys_memory_state.open, 0);
		if (err > 0)
			break;
		assert_true(err == -ENOMEM || err == -EIO);
		assert_int_equal(error.code, err);
		assert_int_equal(count, PREDEFINED);
		assert_int_equal(sys_memory_state.live, 0);
	}
	assert_int_equal(count, PREDEFINED + 3);
	assert_true(n > 6);
	for (n = 1;; n++) {
		int err;

		compositions_reset(&sys_memory);
		sys_memory_reset();
		sys_memory_state.fail_at = n;
		err = compositions_define(&sys_memory, "a", "x | y(z=1)", NULL);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(sys_memory_state.live, 0);
	}
	assert_int_equal(n, 3);
}

struct seen {
	char text[400];
	int stop_at, calls;
};

static int see(void *context, const char *name, const char *spec, const char *help)
{
	struct seen *seen = context;
	size_t length = strlen(seen->text);

	assert_true(help[0]);
	snprintf(seen->text + length, sizeof(seen->text) - length, "%s: %s; ", name, spec);
	return ++seen->calls == seen->stop_at ? 42 : 0;
}

static void each(void **state)
{
	struct seen seen = {.stop_at = 0};

	(void)state;
	define("b", "one");
	define("a", "two");
	define("b", "three");
	define("b", "three");
	assert_int_equal(compositions_each(see, &seen), 0);
	assert_string_equal(seen.text,
			    "local: flash(path=/var/lib/cairn.kv, size=32GiB); " SHARED_TOO
			    "a: two; b: three; ");
	seen = (struct seen){.stop_at = 2};
	assert_int_equal(compositions_each(see, &seen), 42);
	assert_int_equal(seen.calls, 2);
	define("local", "mine");
	seen = (struct seen){.stop_at = 0};
	assert_int_equal(compositions_each(see, &seen), 0);
	assert_string_equal(seen.text, SHARED_TOO "a: two; b: three; local: mine; ");
}

static void *look(void *argument)
{
	struct seen seen = {.stop_at = 3};

	for (int i = 0; i < 200; i++) {
		seen.calls = 0;
		seen.text[0] = '\0';
		compositions_each(see, &seen);
	}
	return argument;
}

/* For TSan: one thread defines while others look. */
static void threads(void **state)
{
	pthread_t thread[2];
	char name[16];

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, look, NULL), 0);
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "t%d", i);
		define(name, "x | y");
	}
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	expands("@t49", "x@1:1()|y@1:1()");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(predefined), TEST(overrides),	  TEST(hides),
		TEST(nesting),	  TEST(bad_definitions),  TEST(files),
		TEST(bad_files),  TEST(every_call_fails), TEST(each),
		TEST(threads),
	};

	return cmocka_run_group_tests_name("compositions", tests, NULL, NULL);
}
