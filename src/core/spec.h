/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lexer.c, grammar.c, options.c and compositions.c share, and nobody else
 * includes. The contract is in grammar.h.
 */
#ifndef CORE_SPEC_H
#define CORE_SPEC_H

#include <stdbool.h>

#include "core/grammar.h"

#define SPEC_TEXT_MAX	 (64u << 10)
#define SPEC_STAGES_MAX	 64u
#define SPEC_OPTIONS_MAX 64u
#define SPEC_NESTING_MAX 8u
#define SPEC_NAME_MAX	 63u

/* ---- tokens --------------------------------------------------------------- */

enum token_kind {
	TOKEN_WORD,
	TOKEN_TEXT, /* in quotes */
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_COMMA,
	TOKEN_BAR,
	TOKEN_EQUALS,
	TOKEN_END,
};

struct token {
	enum token_kind kind;
	const char *at; /* in the text; of TOKEN_TEXT the opening quote */
	size_t length;	/* in the text, quotes included */
	int line, column;
};

struct lexer {
	const char *next;
	int line, column; /* of next, from 1; columns count characters of UTF-8 */
	/* Where lexer_next() failed: what was wrong there, and what would be right. */
	int wrong_line, wrong_column;
	char wrong[160];
};

void lexer_init(struct lexer *lexer, const char *text);

/* -EINVAL: see wrong. At the end of the text TOKEN_END, again and again. */
int lexer_next(struct lexer *lexer, struct token *ret_token);

/* What @token stands for, unescaped: at most token->length bytes and a NUL. */
void token_value(const struct token *token, char *ret_value);

/* For errors: what a token is, such as ["flash"] or [the end of the text]. */
#define TOKEN_NAME_MAX 64
const char *token_name(const struct token *token, char buffer[TOKEN_NAME_MAX]);

/* ["text"], cut and without control characters, for errors. */
const char *spec_quote(const char *text, size_t length, char buffer[TOKEN_NAME_MAX]);

/* A name of a stage, an option or a composition (without its "@"). */
bool spec_is_name(const char *text, size_t length);
#define SPEC_NAME_RULE "a name is a letter, then letters, digits, \"_\", \"-\" or \".\""

/*
 * Fills *reterr (may be NULL): the text begins with "line L, column C: " unless
 * @line is 0. Returns @code.
 */
__attribute__((format(printf, 5, 6))) int spec_fail(struct cairn_error *reterr, int code, int line,
						    int column, const char *format, ...);

/* [; did you mean "path"?], or "" when none of @names is close to @word. */
#define SPEC_HINT_MAX 96
const char *spec_hint(const char *word, const char *const *names, size_t count,
		      char buffer[SPEC_HINT_MAX]);

/* ---- definitions ------------------------------------------------------------ */

/* Checks the grammar of @text, as spec_parse() does, but expands no composition. */
int spec_check(const struct sys *sys, const char *text, struct cairn_error *reterr);

/*
 * Parses definitions and calls @fn for each, its name without "@" and its
 * pipeline lent as pieces of @text. 0, -EINVAL, -ENOMEM, or what @fn returned
 * if not 0.
 */
typedef int spec_definition_fn(void *context, const struct token *name, const char *text,
			       size_t length);
int spec_definitions(const struct sys *sys, const char *text, spec_definition_fn *fn, void *context,
		     struct cairn_error *reterr);

/* ---- compositions ----------------------------------------------------------- */

/* The text of composition @name (without "@"), or NULL. It lives until compositions_reset(). */
const char *compositions_find(const char *name);

/* As spec_hint() among the compositions' names; with none close, what else to do. */
const char *compositions_hint(const char *name, char buffer[SPEC_HINT_MAX]);

#endif
