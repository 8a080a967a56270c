/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text to the parser: as a pipeline whose stages are resolved, as a
 * composition that is then used, and as a file of definitions. It must not
 * crash or leak, an error must be one line with a place inside the text, and
 * the same text must do the same twice.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/grammar.h"
#include "grammar_rows.h"
#include "sys_memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth)) {                                                                    \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth);        \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void check_error(const struct cairn_error *error, int err, int lines)
{
	REQUIRE(err == -EINVAL && error->code == err);
	REQUIRE(error->text[0] && memchr(error->text, '\0', sizeof(error->text)));
	for (const char *at = error->text; *at; at++)
		REQUIRE((unsigned char)*at >= 0x20 && *at != 0x7f);
	REQUIRE(error->line >= 0 && error->line <= lines);
	REQUIRE(!error->line == !error->column && error->column >= 0);
}

static void check_stage(const struct spec_stage *stage, int lines)
{
	struct options_context context = {.rank = "7"};
	struct cairn_value values[POSIX_ROWS];
	struct cairn_error error;
	void *strings;
	int err = options_resolve(&sys_memory, stage, posix_rows, POSIX_ROWS, &context, values,
				  &strings, &error);

	REQUIRE(stage->name[0] && stage->line >= 1 && stage->line <= lines);
	if (err)
		check_error(&error, err, lines);
	else
		REQUIRE(values[ROW_PATH].set && values[ROW_PATH].s[0]);
	options_free(&sys_memory, strings);
}

static int parse(const char *text, int lines)
{
	struct cairn_error error;
	struct spec *spec;
	int err = spec_parse(&sys_memory, text, grammar_rows, NULL, &spec, &error);

	if (err) {
		check_error(&error, err, lines);
		return err;
	}
	REQUIRE(spec->stage_count >= 1 && spec->stage_count <= 64);
	for (uint32_t i = 0; i < spec->stage_count; i++)
		check_stage(&spec->stages[i], lines);
	spec_free(spec);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cairn_error error;
	char *text = malloc(size + 1);
	int lines = 1, first, err;

	REQUIRE(text);
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	sys_memory_reset();

	first = parse(text, lines);
	REQUIRE(parse(text, lines) == first);

	err = compositions_define(&sys_memory, "fuzz", text, &error);
	if (err)
		check_error(&error, err, lines);
	/* What parses is fit for a definition. */
	REQUIRE(first || !err);
	parse("@fuzz(size=1GiB)|@fuzz", 1);

	sys_memory_file(text, size);
	err = compositions_define_file(&sys_memory, "file", &error);
	if (err < 0)
		check_error(&error, err, lines);
	parse("@a(path=/x)|@local", 1);

	compositions_reset(&sys_memory);
	REQUIRE(sys_memory_state.live == 0 && sys_memory_state.open == 0);
	free(text);
	return 0;
}
