/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens of pipelines, and the words that errors are made of. */
#include "core/spec.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void lexer_init(struct lexer *lexer, const char *text)
{
	*lexer = (struct lexer){.next = text, .line = 1, .column = 1};
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

/* One byte on. Bytes that continue a character of UTF-8 are no columns of their own. */
static void step(struct lexer *lexer)
{
	char c = *lexer->next++;

	if (c == '\n') {
		lexer->line++;
		lexer->column = 1;
	} else if (((unsigned char)*lexer->next & 0xc0) != 0x80) {
		lexer->column++;
	}
}

__attribute__((format(printf, 2, 3))) static int wrong(struct lexer *lexer, const char *format, ...)
{
	va_list args;

	lexer->wrong_line = lexer->line;
	lexer->wrong_column = lexer->column;
	va_start(args, format);
	vsnprintf(lexer->wrong, sizeof(lexer->wrong), format, args);
	va_end(args);
	return -EINVAL;
}

static int wrong_control(struct lexer *lexer)
{
	return wrong(lexer, "a control character (0x%02x); leave it out",
		     (unsigned)(unsigned char)*lexer->next);
}

static void skip_space(struct lexer *lexer)
{
	bool comment = false;

	for (; *lexer->next; step(lexer)) {
		char c = *lexer->next;

		if (c == '#')
			comment = true;
		else if (c == '\n')
			comment = false;
		else if (!comment && c != ' ' && c != '\t' && c != '\r')
			return;
	}
}

static int lex_text(struct lexer *lexer)
{
	step(lexer);
	while (*lexer->next != '"') {
		if (!*lexer->next || *lexer->next == '\n')
			return wrong(lexer,
				     "a text in quotes ends on its line; a '\"' belongs here");
		if (is_control(*lexer->next) && *lexer->next != '\t')
			return wrong_control(lexer);
		if (*lexer->next == '\\') {
			if (lexer->next[1] != '"' && lexer->next[1] != '\\')
				return wrong(lexer, "in quotes a \"\\\" stands only before '\"' "
						    "and before another; write \"\\\\\"");
			step(lexer);
		}
		step(lexer);
	}
	step(lexer);
	return 0;
}

static int lex_word(struct lexer *lexer)
{
	while (*lexer->next && !strchr(" \t\r\n,()|\"=#", *lexer->next)) {
		if (is_control(*lexer->next))
			return wrong_control(lexer);
		step(lexer);
	}
	return 0;
}

int lexer_next(struct lexer *lexer, struct token *ret_token)
{
	static const char signs[] = "(),|=";
	static const enum token_kind kinds[] = {TOKEN_OPEN, TOKEN_CLOSE, TOKEN_COMMA, TOKEN_BAR,
						TOKEN_EQUALS};
	const char *sign;
	int err = 0;

	skip_space(lexer);
	*ret_token =
		(struct token){.at = lexer->next, .line = lexer->line, .column = lexer->column};
	sign = *lexer->next ? strchr(signs, *lexer->next) : NULL;
	if (!*lexer->next) {
		ret_token->kind = TOKEN_END;
	} else if (sign) {
		ret_token->kind = kinds[sign - signs];
		step(lexer);
	} else if (*lexer->next == '"') {
		ret_token->kind = TOKEN_TEXT;
		err = lex_text(lexer);
	} else {
		ret_token->kind = TOKEN_WORD;
		err = lex_word(lexer);
	}
	ret_token->length = (size_t)(lexer->next - ret_token->at);
	return err;
}

void token_value(const struct token *token, char *ret_value)
{
	const char *at = token->at, *end = token->at + token->length;

	assert(token->kind == TOKEN_WORD || token->kind == TOKEN_TEXT);
	if (token->kind == TOKEN_TEXT) {
		at++;
		end--;
	}
	while (at < end) {
		if (token->kind == TOKEN_TEXT && *at == '\\')
			at++;
		*ret_value++ = *at++;
	}
	*ret_value = '\0';
}

#define QUOTE_MAX 40 /* bytes of somebody's text in an error of one line */

const char *spec_quote(const char *text, size_t length, char buffer[TOKEN_NAME_MAX])
{
	size_t shown = length, at = 0;

	if (shown > QUOTE_MAX) {
		shown = QUOTE_MAX;
		/* Not in the midst of a character. */
		while (shown && ((unsigned char)text[shown] & 0xc0) == 0x80)
			shown--;
	}
	buffer[at++] = '"';
	for (size_t i = 0; i < shown; i++)
		buffer[at++] = is_control(text[i]) ? '?' : text[i];
	snprintf(buffer + at, TOKEN_NAME_MAX - at, "%s\"", shown < length ? "..." : "");
	return buffer;
}

const char *token_name(const struct token *token, char buffer[TOKEN_NAME_MAX])
{
	if (token->kind == TOKEN_END)
		return "the end of the text";
	if (token->kind == TOKEN_TEXT)
		return "a text in quotes";
	return spec_quote(token->at, token->length, buffer);
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool spec_is_name(const char *text, size_t length)
{
	if (length < 1 || length > SPEC_NAME_MAX || !is_letter(*text))
		return false;
	for (size_t i = 1; i < length; i++) {
		if (!is_letter(text[i]) && !(text[i] >= '0' && text[i] <= '9') &&
		    !strchr("_-.", text[i]))
			return false;
	}
	return true;
}

int spec_fail(struct cairn_error *reterr, int code, int line, int column, const char *format, ...)
{
	va_list args;
	int n = 0;

	assert(code < 0);
	if (!reterr)
		return code;
	*reterr = (struct cairn_error){.code = code, .line = line, .column = column};
	if (line)
		n = snprintf(reterr->text, sizeof(reterr->text), "line %d, column %d: ", line,
			     column);
	va_start(args, format);
	vsnprintf(reterr->text + n, sizeof(reterr->text) - (size_t)n, format, args);
	va_end(args);
	return code;
}

/* ---- did you mean ----------------------------------------------------------- */

#define DISTANCE_WORD_MAX 32u /* longer words have no close ones */

/*
 * How many letters to change, insert, leave out or swap with their neighbour
 * (optimal string alignment: R. A. Wagner and R. Lowrance, 1975, restricted).
 */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned rows[3][DISTANCE_WORD_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *now = rows[2];

	for (unsigned j = 0; j <= b_length; j++)
		last[j] = before[j] = j;
	for (size_t i = 1; i <= a_length; i++) {
		unsigned *spare = before;

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b_length; j++) {
			unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);

			best = last[j] + 1 < best ? last[j] + 1 : best;
			best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			now[j] = best;
		}
		before = last;
		last = now;
		now = spare;
	}
	return last[b_length];
}

/* A third of the letters may be wrong; UINT_MAX when more are. */
static unsigned closeness(const char *word, size_t length, const char *name)
{
	size_t name_length = strlen(name);
	size_t longer = length > name_length ? length : name_length;
	unsigned d;

	if (longer > DISTANCE_WORD_MAX || !length)
		return ~0u;
	d = distance(word, length, name, name_length);
	if (d <= (longer + 2) / 3 && d < length)
		return d;
	/* The beginning of a name, or one that goes on. */
	if (length >= 3 && name_length >= 3 &&
	    strncmp(word, name, length < name_length ? length : name_length) == 0)
		return DISTANCE_WORD_MAX;
	return ~0u;
}

const char *spec_closest(const char *word, const char *const *names, size_t count)
{
	const char *best = NULL;
	size_t length = strlen(word);
	unsigned best_distance = ~0u;

	for (size_t i = 0; i < count; i++) {
		unsigned d = closeness(word, length, names[i]);

		if (d < best_distance) {
			best_distance = d;
			best = names[i];
		}
	}
	return best;
}

const char *spec_hint(const char *word, const char *const *names, size_t count,
		      char buffer[SPEC_HINT_MAX])
{
	const char *closest = spec_closest(word, names, count);

	buffer[0] = '\0';
	if (closest)
		snprintf(buffer, SPEC_HINT_MAX, "; did you mean \"%s\"?", closest);
	return buffer;
}
