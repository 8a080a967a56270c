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

/* "name@line:column(option@line:column=value@line:column,...)|..." */
static void print(const struct spec *spec, char *out, size_t bytes)
{
	FILE *f = fmemopen(out, bytes, "w");

	for (uint32_t s = 0; s < spec->stage_count; s++) {
		const struct spec_stage *stage = &spec->stages[s];

		fprintf(f, "%s%s@%d:%d(", s ? "|" : "", stage->name, stage->line, stage->column);
		for (uint32_t i = 0; i < stage->option_count; i++)
			fprintf(f, "%s%s@%d:%d=[%s]@%d:%d", i ? "," : "", stage->options[i].name,
				stage->options[i].line, stage->options[i].column,
				stage->options[i].value, stage->options[i].value_line,
				stage->options[i].value_column);
		fprintf(f, ")");
	}
	fclose(f);
}

static void good(void **state)
{
	static const struct {
		const char *text, *spec;
	} rows[] = {
		{"posix", "posix@1:1()"},
		{"posix()", "posix@1:1()"},
		{"posix(path=/a)", "posix@1:1(path@1:7=[/a]@1:12)"},
		{"posix(path=/a,)", "posix@1:1(path@1:7=[/a]@1:12)"},
		{"a|b |\tc", "a@1:1()|b@1:3()|c@1:7()"},
		{" posix ( path = /a , size = 1GiB ) ",
		 "posix@1:2(path@1:10=[/a]@1:17,size@1:22=[1GiB]@1:29)"},
		{"cache(size=8GiB, policy=semantic)\n  | posix(path=/a)\n",
		 "cache@1:1(size@1:7=[8GiB]@1:12,policy@1:18=[semantic]@1:25)|"
		 "posix@2:5(path@2:11=[/a]@2:16)"},
		{"# all\r\nposix(# here\r\n  path=/a # there )\n)# end",
		 "posix@2:1(path@3:3=[/a]@3:8)"},
		{"x(path=/{rank}/@b, y=1-2_3.4:5+6*7)",
		 "x@1:1(path@1:3=[/{rank}/@b]@1:8,y@1:20=[1-2_3.4:5+6*7]@1:22)"},
		{"x(t=\"a, (b) | c=d #e\")", "x@1:1(t@1:3=[a, (b) | c=d #e]@1:5)"},
		{"x(t=\"\\\"q\\\\\")", "x@1:1(t@1:3=[\"q\\]@1:5)"},
		{"x(t=\"\",u=\"\ttab\")", "x@1:1(t@1:3=[]@1:5,u@1:8=[\ttab]@1:10)"},
		{"x(t=h\303\251\303\251h,u=\342\202\254)", "x@1:1(t@1:3=[h\303\251\303\251h]@1:5,"
							   "u@1:10=[\342\202\254]@1:12)"},
		{"s-1.b_(o.p-q=1)", "s-1.b_@1:1(o.p-q@1:8=[1]@1:14)"},
		{"x(a=1,a=2)", "x@1:1(a@1:3=[1]@1:5,a@1:7=[2]@1:9)"},
	};
	char text[1000];

	(void)state;
	sys_memory_reset();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cairn_error error = {0};
		struct spec *spec;

		if (spec_parse(&sys_memory, rows[i].text, grammar_rows, NULL, &spec, &error))
			fail_msg("\"%s\": %s", rows[i].text, error.text);
		print(spec, text, sizeof(text));
		assert_string_equal(text, rows[i].spec);
		spec_free(spec);
	}
	spec_free(NULL);
	assert_int_equal(sys_memory_state.live, 0);
}

static void assert_error(const struct cairn_error *error, int line, int column, const char *text)
{
	char full[CAIRN_ERROR_TEXT_MAX];

	if (line)
		snprintf(full, sizeof(full), "line %d, column %d: %s", line, column, text);
	assert_string_equal(error->text, line ? full : text);
	assert_int_equal(error->line, line);
	assert_int_equal(error->column, column);
	assert_int_equal(error->code, -EINVAL);
}

#define QUOTES "; a value with a space or one of , ( ) | = # goes into quotes"
#define NAMES  "a name is a letter, then letters, digits, \"_\", \"-\" or \".\""
#define STAGE  "expected a stage, such as posix(path=/var/lib/cairn), found "

static const struct {
	const char *text;
	int line, column;
	const char *error;
} bad_rows[] = {
	{"", 1, 1, STAGE "the end of the text"},
	{" # nothing\n ", 2, 2, STAGE "the end of the text"},
	{"|", 1, 1, STAGE "\"|\""},
	{"a|", 1, 3, STAGE "the end of the text"},
	{"a||b", 1, 3, STAGE "\"|\""},
	{"\"a\"", 1, 1, STAGE "a text in quotes"},
	{"(path=/a)", 1, 1, STAGE "\"(\""},
	{"1a", 1, 1, "\"1a\" is no stage's name; " NAMES},
	{"/tmp/kv", 1, 1,
	 "\"/tmp/kv\" is no stage's name; a directory is written as posix(path=...)"},
	{"p\303\266six", 1, 1, "\"p\303\266six\" is no stage's name; " NAMES},
	{"@", 1, 1, "\"@\" is no composition's name; " NAMES},
	{"a b", 1, 3, "expected \"|\" between stages, or the end of the text, found \"b\""},
	{"a=1", 1, 2, "expected \"|\" between stages, or the end of the text, found \"=\""},
	{"a)", 1, 2, "expected \"|\" between stages, or the end of the text, found \")\""},
	{"posix(", 1, 7,
	 "posix: the \"(\" of line 1, column 6 is not closed; a \")\" "
	 "belongs here"},
	{"a |\nposix (x=1,\n", 3, 1,
	 "posix: the \"(\" of line 2, column 7 is not closed; a \")\" belongs here"},
	{"posix(x=1", 1, 10,
	 "posix: the \"(\" of line 1, column 6 is not closed; a \")\" "
	 "belongs here"},
	{"posix(,)", 1, 7, "posix: expected an option's name or \")\", found \",\""},
	{"posix(x=1,,)", 1, 11, "posix: expected an option's name or \")\", found \",\""},
	{"posix(\"x\"=1)", 1, 7,
	 "posix: expected an option's name or \")\", found a text in quotes"},
	{"posix(/tmp)", 1, 7, "posix: \"/tmp\" is no option's name; " NAMES},
	{"posix(path)", 1, 11, "posix: expected \"=\" and a value after \"path\", found \")\""},
	{"posix(path", 1, 11,
	 "posix: expected \"=\" and a value after \"path\", found the end of the text"},
	{"posix(path=)", 1, 12, "posix: expected a value after \"path=\", found \")\"" QUOTES},
	{"posix(path==/a)", 1, 12, "posix: expected a value after \"path=\", found \"=\"" QUOTES},
	{"posix(path=/a b)", 1, 15,
	 "posix: expected \",\" or \")\" after the value of \"path\", found \"b\"" QUOTES},
	{"posix(path=/a\nsize=1)", 2, 1,
	 "posix: expected \",\" or \")\" after the value of \"path\", found "
	 "\"size\"" QUOTES},
	{"posix(path=a\"b\")", 1, 13,
	 "posix: expected \",\" or \")\" after the value of \"path\", found a text in "
	 "quotes" QUOTES},
	{"x(t=\"abc)", 1, 10, "a text in quotes ends on its line; a '\"' belongs here"},
	{"x(t=\"abc\n\")", 1, 9, "a text in quotes ends on its line; a '\"' belongs here"},
	{"x(t=\"a\\n\")", 1, 7,
	 "in quotes a \"\\\" stands only before '\"' and before "
	 "another; write \"\\\\\""},
	{"x(t=\"a\\", 1, 7,
	 "in quotes a \"\\\" stands only before '\"' and before "
	 "another; write \"\\\\\""},
	{"x(t=\"a\001\")", 1, 7, "a control character (0x01); leave it out"},
	{"po\033six", 1, 3, "a control character (0x1b); leave it out"},
	{"a\v", 1, 2, "a control character (0x0b); leave it out"},
	{"@lcal", 1, 1, "unknown composition \"@lcal\"; did you mean \"@local\"?"},
	{"a|@elsewhere", 1, 3,
	 "unknown composition \"@elsewhere\"; define it, or see \"cairn stages\""},
	{"@local(pathe=/a)", 1, 8,
	 "@local: none of its stages has an option \"pathe\"; did you mean \"path\"?"},
	{"@local(path=/a, path=/b)", 1, 17,
	 "@local: option \"path\" is given twice; leave one out"},
	{"0123456789012345678901234567890123456789012345678901234567890123456789", 1, 1,
	 "\"0123456789012345678901234567890123456789...\" is no stage's name; " NAMES},
};

static void bad(void **state)
{
	(void)state;
	sys_memory_reset();
	for (size_t i = 0; i < sizeof(bad_rows) / sizeof(bad_rows[0]); i++) {
		struct cairn_error error = {0};
		struct spec *spec = NULL;

		assert_int_equal(spec_parse(&sys_memory, bad_rows[i].text, grammar_rows, NULL,
					    &spec, &error),
				 -EINVAL);
		assert_null(spec);
		assert_error(&error, bad_rows[i].line, bad_rows[i].column, bad_rows[i].error);
		assert_int_equal(
			spec_parse(&sys_memory, bad_rows[i].text, grammar_rows, NULL, &spec, NULL),
			-EINVAL);
	}
	assert_int_equal(sys_memory_state.live, 0);
}

static int parse(const char *text, struct cairn_error *reterr)
{
	struct spec *spec;
	int err = spec_parse(&sys_memory, text, grammar_rows, NULL, &spec, reterr);

	if (!err)
		spec_free(spec);
	return err;
}

/* @head, @count times @piece, @tail. */
static char *repeat(const char *head, const char *piece, size_t count, const char *tail)
{
	size_t piece_length = strlen(piece);
	char *text = malloc(strlen(head) + count * piece_length + strlen(tail) + 1), *at = text;

	at = stpcpy(at, head);
	for (size_t i = 0; i < count; i++)
		at = stpcpy(at, piece);
	stpcpy(at, tail);
	return text;
}

static void check_limit(const char *head, const char *piece, size_t most, const char *tail,
			int column, const char *error)
{
	struct cairn_error e = {0};
	char *text = repeat(head, piece, most, tail);

	assert_int_equal(parse(text, &e), 0);
	free(text);
	text = repeat(head, piece, most + 1, tail);
	assert_int_equal(parse(text, &e), -EINVAL);
	assert_error(&e, 1, column, error);
	free(text);
}

static void limits(void **state)
{
	(void)state;
	sys_memory_reset();
	check_limit("a", "|b", 63, "", 129, "more than 64 stages; that is the most there can be");
	check_limit("p(", "a=1,", 64, ")", 259,
		    "p: more than 64 options; that is the most there can be");
	check_limit("a #", "x", (64u << 10) - 3, "", 1,
		    "the text is longer than 64 KiB; that is the most there can be");
	check_limit("a", "b", 62, "", 1,
		    "\"abbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb...\" is no stage's name; " NAMES);
	assert_int_equal(sys_memory_state.live, 0);
}

/* Every allocation fails once; nothing is lost and the error says so. */
static void no_memory(void **state)
{
	char *options = repeat("a(", "o=\"a value of some length, to fill the arena's chunks\",",
			       60, ")"),
	     *text = repeat(options, "|@local(path=/x,size=1GiB)", 60, "");
	int n = 1;

	(void)state;
	sys_memory_reset();
	for (;; n++) {
		struct cairn_error error = {0};
		int err;

		sys_memory_state.calls = 0;
		sys_memory_state.fail_at = n;
		err = parse(text, &error);
		assert_int_equal(sys_memory_state.live, 0);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(error.code, -ENOMEM);
		assert_string_equal(error.text, "no memory for the pipeline's parts");
	}
	assert_true(n > 5);
	free(options);
	free(text);
}

static void closest(void **state)
{
	static const char *const names[] = {"path", "size", "partial_ttl", "direct", "entries"};
	static const struct {
		const char *word, *name;
	} rows[] = {
		{"pathe", "path"},
		{"ptah", "path"},
		{"pat", "path"},
		{"Path", "path"},
		{"sizes", "size"},
		{"partial", "partial_ttl"},
		{"entires", "entries"},
		{"dir", "direct"},
		{"odirect", "direct"},
		{"xyz", NULL},
		{"", NULL},
		{"q", NULL},
		{"filename", NULL},
		{"a_word_that_is_longer_than_all_names_here", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *found = spec_closest(rows[i].word, names, 5);

		if (!found != !rows[i].name || (found && strcmp(found, rows[i].name) != 0))
			fail_msg("\"%s\": %s", rows[i].word, found ? found : "none");
	}
	assert_null(spec_closest("path", names, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),	     cmocka_unit_test(bad),	cmocka_unit_test(limits),
		cmocka_unit_test(no_memory), cmocka_unit_test(closest),
	};

	return cmocka_run_group_tests_name("grammar", tests, NULL, NULL);
}
