/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser: recursive descent, one token ahead. A composition is parsed by a
 * parser of its own into the same list of stages; whatever comes from there
 * bears the place of its use in the outer text, since that is the text which
 * whoever reads an error has before them.
 */
#include "core/spec.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the arena -------------------------------------------------------------- */

#define CHUNK_BYTES	4096u
#define ARENA_ALIGNMENT 16u

struct chunk {
	struct chunk *before;
	size_t used, bytes; /* of data */
	char data[] __attribute__((aligned(ARENA_ALIGNMENT)));
};

struct arena {
	const struct sys *sys;
	struct chunk *newest;
};

/* Lives until arena_free(). NULL: no memory. */
static void *arena_get(struct arena *arena, size_t bytes)
{
	struct chunk *chunk = arena->newest;
	void *memory;

	bytes = (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
	if (!chunk || chunk->bytes - chunk->used < bytes) {
		size_t room = bytes < CHUNK_BYTES ? CHUNK_BYTES : bytes;

		chunk = arena->sys->alloc(ARENA_ALIGNMENT, sizeof(*chunk) + room);
		if (!chunk)
			return NULL;
		*chunk = (struct chunk){.before = arena->newest, .bytes = room};
		arena->newest = chunk;
	}
	memory = chunk->data + chunk->used;
	chunk->used += bytes;
	return memory;
}

static void chunks_free(const struct sys *sys, struct chunk *chunk)
{
	while (chunk) {
		struct chunk *before = chunk->before;

		sys->free(chunk);
		chunk = before;
	}
}

/* ---- the parser ------------------------------------------------------------- */

struct parser {
	struct lexer lexer;
	struct token token;   /* the one ahead */
	const char *last_end; /* of the token before it */
	struct arena *arena;
	struct spec *spec;
	spec_rows_fn *rows; /* may be NULL */
	void *context;
	bool expand; /* false: compositions are only looked at */
	unsigned nesting;
	/* In a composition: its name without "@", and the place of its use. */
	const char *within;
	int within_line, within_column;
	struct cairn_error *reterr;
};

struct options {
	struct spec_option list[SPEC_OPTIONS_MAX];
	uint32_t count;
};

__attribute__((format(printf, 4, 5))) static int fail(const struct parser *p, int line, int column,
						      const char *format, ...)
{
	char text[CAIRN_ERROR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!p->within)
		return spec_fail(p->reterr, -EINVAL, line, column, "%s", text);
	return spec_fail(p->reterr, -EINVAL, p->within_line, p->within_column,
			 "@%s: in line %d, column %d of its definition: %s", p->within, line,
			 column, text);
}

static int no_memory(const struct parser *p)
{
	return spec_fail(p->reterr, -ENOMEM, 0, 0, "no memory for the pipeline's parts");
}

static int advance(struct parser *p)
{
	p->last_end = p->token.at + p->token.length;
	if (lexer_next(&p->lexer, &p->token))
		return fail(p, p->lexer.wrong_line, p->lexer.wrong_column, "%s", p->lexer.wrong);
	return 0;
}

static int begin(struct parser *p, const char *text)
{
	if (strnlen(text, SPEC_TEXT_MAX + 1) > SPEC_TEXT_MAX)
		return fail(p, 1, 1,
			    "the text is longer than 64 KiB; that is the most there can be");
	lexer_init(&p->lexer, text);
	p->token = (struct token){.at = text};
	return advance(p);
}

/* The value of the token ahead, kept. */
static const char *keep_value(struct parser *p)
{
	char *value = arena_get(p->arena, p->token.length + 1);

	if (value)
		token_value(&p->token, value);
	return value;
}

/* What the parser has read bears the place of the outer text. */
static int line_of(const struct parser *p, const struct token *token)
{
	return p->within ? p->within_line : token->line;
}

static int column_of(const struct parser *p, const struct token *token)
{
	return p->within ? p->within_column : token->column;
}

static int parse_option(struct parser *p, const char *stage, struct spec_option *ret_option)
{
	struct spec_option o = {.line = line_of(p, &p->token), .column = column_of(p, &p->token)};
	struct token name = p->token;
	char found[TOKEN_NAME_MAX];
	int err;

	if (name.kind != TOKEN_WORD)
		return fail(p, name.line, name.column,
			    "%s: expected an option's name or \")\", found %s", stage,
			    token_name(&name, found));
	if (!spec_is_name(name.at, name.length))
		return fail(p, name.line, name.column, "%s: %s is no option's name; %s", stage,
			    token_name(&name, found), SPEC_NAME_RULE);
	o.name = keep_value(p);
	if (!o.name)
		return no_memory(p);
	err = advance(p);
	if (err)
		return err;
	if (p->token.kind != TOKEN_EQUALS)
		return fail(p, p->token.line, p->token.column,
			    "%s: expected \"=\" and a value after \"%s\", found %s", stage, o.name,
			    token_name(&p->token, found));
	err = advance(p);
	if (err)
		return err;
	if (p->token.kind != TOKEN_WORD && p->token.kind != TOKEN_TEXT)
		return fail(p, p->token.line, p->token.column,
			    "%s: expected a value after \"%s=\", found %s; a value with a space or "
			    "one of , ( ) | = # goes into quotes",
			    stage, o.name, token_name(&p->token, found));
	o.value_line = line_of(p, &p->token);
	o.value_column = column_of(p, &p->token);
	o.value = keep_value(p);
	if (!o.value)
		return no_memory(p);
	*ret_option = o;
	return advance(p);
}

/* "(" is ahead. */
static int parse_options(struct parser *p, const char *stage, struct options *ret_options)
{
	struct token open = p->token;
	char found[TOKEN_NAME_MAX];
	int err = advance(p);

	while (!err && p->token.kind != TOKEN_CLOSE) {
		if (p->token.kind == TOKEN_END)
			return fail(p, p->token.line, p->token.column,
				    "%s: the \"(\" of line %d, column %d is not closed; a \")\" "
				    "belongs here",
				    stage, open.line, open.column);
		if (ret_options->count == SPEC_OPTIONS_MAX)
			return fail(p, p->token.line, p->token.column,
				    "%s: more than %u options; that is the most there can be",
				    stage, SPEC_OPTIONS_MAX);
		err = parse_option(p, stage, &ret_options->list[ret_options->count]);
		if (err)
			return err;
		ret_options->count++;
		if (p->token.kind == TOKEN_COMMA)
			err = advance(p);
		else if (p->token.kind != TOKEN_CLOSE && p->token.kind != TOKEN_END)
			return fail(p, p->token.line, p->token.column,
				    "%s: expected \",\" or \")\" after the value of \"%s\", found "
				    "%s; a value with a space or one of , ( ) | = # goes into "
				    "quotes",
				    stage, ret_options->list[ret_options->count - 1].name,
				    token_name(&p->token, found));
	}
	return err ? err : advance(p);
}

static int options_keep(struct parser *p, struct spec_stage *stage,
			const struct spec_option *options, uint32_t count)
{
	stage->option_count = count;
	stage->options = NULL;
	if (!count)
		return 0;
	stage->options = arena_get(p->arena, count * sizeof(*options));
	if (!stage->options)
		return no_memory(p);
	memcpy(stage->options, options, count * sizeof(*options));
	return 0;
}

static int add_stage(struct parser *p, const struct token *token, const char *name,
		     const struct options *options)
{
	struct spec_stage *stage = &p->spec->stages[p->spec->stage_count];

	if (p->spec->stage_count == SPEC_STAGES_MAX)
		return fail(p, token->line, token->column,
			    "more than %u stages; that is the most there can be", SPEC_STAGES_MAX);
	*stage = (struct spec_stage){
		.name = name, .line = line_of(p, token), .column = column_of(p, token)};
	p->spec->stage_count++;
	return options_keep(p, stage, options->list, options->count);
}

/* ---- compositions ----------------------------------------------------------- */

static struct spec_option *written(const struct spec_stage *stage, const char *name)
{
	for (uint32_t i = 0; i < stage->option_count; i++)
		if (strcmp(stage->options[i].name, name) == 0)
			return &stage->options[i];
	return NULL;
}

static const struct cairn_option *rows_of(const struct parser *p, const struct spec_stage *stage,
					  uint32_t *ret_count)
{
	const struct cairn_option *rows = NULL;

	*ret_count = 0;
	if (p->rows)
		rows = p->rows(p->context, stage->name, ret_count);
	if (!rows)
		*ret_count = 0;
	return rows;
}

static bool knows(const struct parser *p, const struct spec_stage *stage, const char *name)
{
	uint32_t count;
	const struct cairn_option *rows = rows_of(p, stage, &count);

	for (uint32_t i = 0; i < count; i++)
		if (strcmp(rows[i].name, name) == 0)
			return true;
	return written(stage, name) != NULL;
}

#define HINT_NAMES_MAX 256u

static int fail_unknown(const struct parser *p, const struct token *use, uint32_t first,
			const struct spec_option *option)
{
	const char *names[HINT_NAMES_MAX];
	char quoted[TOKEN_NAME_MAX], hint[SPEC_HINT_MAX];
	size_t n = 0;

	for (uint32_t s = first; s < p->spec->stage_count; s++) {
		uint32_t count;
		const struct cairn_option *rows = rows_of(p, &p->spec->stages[s], &count);

		for (uint32_t i = 0; i < count && n < HINT_NAMES_MAX; i++)
			names[n++] = rows[i].name;
	}
	if (!spec_hint(option->name, names, n, hint)[0])
		snprintf(hint, sizeof(hint), "; leave it out");
	/* Of an inner composition only the outer use's place is known. */
	return spec_fail(p->reterr, -EINVAL, option->line, option->column,
			 "%.*s: none of its stages has an option %s%s", (int)use->length, use->at,
			 spec_quote(option->name, strlen(option->name), quoted), hint);
}

/* To the lowest stage from @first on that has it, in place of what stands there. */
static int apply_option(struct parser *p, const struct token *use, uint32_t first,
			const struct spec_option *option)
{
	struct spec_stage *stage = NULL;
	struct spec_option *there;
	struct options all;

	for (uint32_t s = p->spec->stage_count; s > first && !stage; s--)
		if (knows(p, &p->spec->stages[s - 1], option->name))
			stage = &p->spec->stages[s - 1];
	if (!stage)
		return fail_unknown(p, use, first, option);
	there = written(stage, option->name);
	if (there) {
		*there = *option;
		return 0;
	}
	if (stage->option_count == SPEC_OPTIONS_MAX)
		return spec_fail(p->reterr, -EINVAL, option->line, option->column,
				 "%s: more than %u options; that is the most there can be",
				 stage->name, SPEC_OPTIONS_MAX);
	if (stage->option_count)
		memcpy(all.list, stage->options, stage->option_count * sizeof(*option));
	all.list[stage->option_count] = *option;
	return options_keep(p, stage, all.list, stage->option_count + 1);
}

static int parse_whole(struct parser *p, const char *text);

static int expand(struct parser *p, const struct token *use, const char *name,
		  const struct options *options)
{
	char hint[SPEC_HINT_MAX], quoted[TOKEN_NAME_MAX];
	uint32_t first = p->spec->stage_count;
	const char *text = compositions_find(name);
	struct parser inner = *p;
	int err = 0;

	if (!text)
		return fail(p, use->line, use->column, "unknown composition %s%s",
			    spec_quote(use->at, use->length, quoted),
			    compositions_hint(name, hint));
	if (p->nesting == SPEC_NESTING_MAX)
		return spec_fail(p->reterr, -EINVAL, line_of(p, use), column_of(p, use),
				 "@%s: compositions in compositions more than %u deep; does one "
				 "of them use itself?",
				 name, SPEC_NESTING_MAX);
	inner.nesting++;
	inner.within = name;
	inner.within_line = line_of(p, use);
	inner.within_column = column_of(p, use);
	err = parse_whole(&inner, text);
	for (uint32_t i = 0; i < options->count && !err; i++) {
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(options->list[j].name, options->list[i].name) == 0)
				return spec_fail(p->reterr, -EINVAL, options->list[i].line,
						 options->list[i].column,
						 "@%s: option \"%s\" is given twice; leave one out",
						 name, options->list[i].name);
		err = apply_option(p, use, first, &options->list[i]);
	}
	return err;
}

/* ---- pipelines ---------------------------------------------------------------- */

static int parse_stage(struct parser *p)
{
	struct token token = p->token;
	bool composition = token.kind == TOKEN_WORD && token.at[0] == '@';
	struct options options = {.count = 0};
	char found[TOKEN_NAME_MAX];
	const char *name;
	int err;

	if (token.kind != TOKEN_WORD)
		return fail(p, token.line, token.column,
			    "expected a stage, such as posix(path=/var/lib/cairn), found %s",
			    token_name(&token, found));
	if (!spec_is_name(token.at + composition, token.length - composition))
		return fail(p, token.line, token.column, "%s is no %s's name; %s",
			    token_name(&token, found), composition ? "composition" : "stage",
			    memchr(token.at, '/', token.length)
				    ? "a directory is written as posix(path=...)"
				    : SPEC_NAME_RULE);
	name = keep_value(p);
	if (!name)
		return no_memory(p);
	err = advance(p);
	if (!err && p->token.kind == TOKEN_OPEN)
		err = parse_options(p, name, &options);
	if (err)
		return err;
	if (!composition)
		return add_stage(p, &token, name, &options);
	return p->expand ? expand(p, &token, name + 1, &options) : 0;
}

static int parse_pipeline(struct parser *p)
{
	int err = parse_stage(p);

	while (!err && p->token.kind == TOKEN_BAR) {
		err = advance(p);
		if (!err)
			err = parse_stage(p);
	}
	return err;
}

static int parse_whole(struct parser *p, const char *text)
{
	char found[TOKEN_NAME_MAX];
	int err = begin(p, text);

	if (!err)
		err = parse_pipeline(p);
	if (!err && p->token.kind != TOKEN_END)
		return fail(p, p->token.line, p->token.column,
			    "expected \"|\" between stages, or the end of the text, found %s",
			    token_name(&p->token, found));
	return err;
}

/* On success the arena is the spec's. */
static int spec_new(const struct sys *sys, struct arena *arena, struct spec **ret_spec)
{
	struct spec *spec;

	*arena = (struct arena){.sys = sys};
	spec = arena_get(arena, sizeof(*spec));
	if (!spec)
		return -ENOMEM;
	*spec = (struct spec){.sys = sys};
	spec->stages = arena_get(arena, SPEC_STAGES_MAX * sizeof(*spec->stages));
	*ret_spec = spec;
	return spec->stages ? 0 : -ENOMEM;
}

int spec_parse(const struct sys *sys, const char *text, spec_rows_fn *rows, void *context,
	       struct spec **ret_spec, struct cairn_error *reterr)
{
	struct arena arena;
	struct parser p = {.arena = &arena,
			   .rows = rows,
			   .context = context,
			   .expand = true,
			   .reterr = reterr};
	int err = spec_new(sys, &arena, &p.spec);

	if (err)
		err = no_memory(&p);
	else
		err = parse_whole(&p, text);
	if (err) {
		chunks_free(sys, arena.newest);
		return err;
	}
	assert(p.spec != NULL);
	assert(p.spec->stage_count > 0 && p.spec->stage_count <= SPEC_STAGES_MAX);
	p.spec->arena = arena.newest;
	*ret_spec = p.spec;
	return 0;
}

void spec_free(struct spec *spec)
{
	if (spec)
		chunks_free(spec->sys, spec->arena);
}

/* ---- definitions -------------------------------------------------------------- */

int spec_check(const struct sys *sys, const char *text, struct cairn_error *reterr)
{
	struct arena arena;
	struct parser p = {.arena = &arena, .reterr = reterr};
	int err = spec_new(sys, &arena, &p.spec);

	if (err)
		err = no_memory(&p);
	else
		err = parse_whole(&p, text);
	chunks_free(sys, arena.newest);
	return err;
}

static int parse_definition(struct parser *p, spec_definition_fn *fn, void *context)
{
	struct token name = p->token;
	char found[TOKEN_NAME_MAX];
	const char *start;
	int err;

	assert(name.at != NULL);
	if (name.kind != TOKEN_WORD || name.at[0] != '@')
		return fail(p, name.line, name.column,
			    "expected a definition, such as @name = posix(path=/var/lib/cairn), "
			    "found %s",
			    token_name(&name, found));
	name.at++;
	name.length--;
	if (!spec_is_name(name.at, name.length))
		return fail(p, name.line, name.column, "%s is no composition's name; %s",
			    token_name(&p->token, found), SPEC_NAME_RULE);
	err = advance(p);
	if (err)
		return err;
	if (p->token.kind != TOKEN_EQUALS)
		return fail(p, p->token.line, p->token.column,
			    "expected \"=\" and a pipeline after \"@%.*s\", found %s",
			    (int)name.length, name.at, token_name(&p->token, found));
	err = advance(p);
	start = p->token.at;
	p->spec->stage_count = 0;
	if (!err)
		err = parse_pipeline(p);
	if (err)
		return err;
	return fn(context, &name, start, (size_t)(p->last_end - start));
}

int spec_definitions(const struct sys *sys, const char *text, spec_definition_fn *fn, void *context,
		     struct cairn_error *reterr)
{
	struct arena arena;
	struct parser p = {.arena = &arena, .reterr = reterr};
	int err = spec_new(sys, &arena, &p.spec);

	if (err)
		err = no_memory(&p);
	else
		err = begin(&p, text);
	while (!err && p.token.kind != TOKEN_END)
		err = parse_definition(&p, fn, context);
	chunks_free(sys, arena.newest);
	return err;
}
