/* SPDX-License-Identifier: Apache-2.0 */
/* Options: from texts and rows to values. */
#include "core/spec.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

/* One option on its way: what is in the text, or its row's preset. */
struct item {
	const struct spec_stage *stage;
	const struct cairn_option *row;
	const char *text;
	int line, column;
	struct cairn_error *reterr;
};

#define HINT_NAMES_MAX 64u
#define LIST_MAX       200u

/* "path, size, entries", for errors. */
static const char *list_names(const struct cairn_option *rows, uint32_t count,
			      char buffer[LIST_MAX])
{
	size_t at = 0;

	buffer[0] = '\0';
	for (uint32_t i = 0; i < count; i++) {
		size_t room = LIST_MAX - at;

		/* Room for the dots too. */
		if (strlen(rows[i].name) + sizeof(", ...") + 2 > room) {
			snprintf(buffer + at, room, ", ...");
			break;
		}
		at += (size_t)snprintf(buffer + at, room, "%s%s", i ? ", " : "", rows[i].name);
	}
	return buffer;
}

static int fail_unknown(const struct spec_stage *stage, const struct spec_option *option,
			const struct cairn_option *rows, uint32_t row_count,
			struct cairn_error *reterr)
{
	const char *names[HINT_NAMES_MAX];
	char quoted[TOKEN_NAME_MAX], hint[SPEC_HINT_MAX], list[LIST_MAX];
	size_t n = 0;

	spec_quote(option->name, strlen(option->name), quoted);
	if (!row_count)
		return spec_fail(reterr, -EINVAL, option->line, option->column,
				 "%s: unknown option %s; it takes none", stage->name, quoted);
	for (; n < row_count && n < HINT_NAMES_MAX; n++)
		names[n] = rows[n].name;
	if (spec_hint(option->name, names, n, hint)[0])
		return spec_fail(reterr, -EINVAL, option->line, option->column,
				 "%s: unknown option %s%s", stage->name, quoted, hint);
	return spec_fail(reterr, -EINVAL, option->line, option->column,
			 "%s: unknown option %s; it has %s", stage->name, quoted,
			 list_names(rows, row_count, list));
}

/* Every option of the text is one of the rows, and there once. */
static int check_names(const struct spec_stage *stage, const struct cairn_option *rows,
		       uint32_t row_count, struct cairn_error *reterr)
{
	for (uint32_t i = 0; i < stage->option_count; i++) {
		const struct spec_option *o = &stage->options[i];
		uint32_t row = 0;

		while (row < row_count && strcmp(rows[row].name, o->name) != 0)
			row++;
		if (row == row_count)
			return fail_unknown(stage, o, rows, row_count, reterr);
		for (uint32_t j = 0; j < i; j++)
			if (strcmp(stage->options[j].name, o->name) == 0)
				return spec_fail(reterr, -EINVAL, o->line, o->column,
						 "%s: option \"%s\" is given twice; leave one out",
						 stage->name, o->name);
	}
	return 0;
}

static const struct spec_option *find_option(const struct spec_stage *stage, const char *name)
{
	for (uint32_t i = 0; i < stage->option_count; i++)
		if (strcmp(stage->options[i].name, name) == 0)
			return &stage->options[i];
	return NULL;
}

/* ---- values ------------------------------------------------------------------- */

/* @what: what is wrong with the value, and what would be right. */
static int fail_value(const struct item *item, const char *what, const char *detail)
{
	char quoted[TOKEN_NAME_MAX];

	return spec_fail(item->reterr, -EINVAL, item->line, item->column, "%s: %s=%s %s%s",
			 item->stage->name, item->row->name,
			 spec_quote(item->text, strlen(item->text), quoted), what, detail);
}

static int parse_value(enum cairn_option_type type, const char *text, struct cairn_value *ret_value)
{
	switch (type) {
	case CAIRN_OPTION_SIZE:
		return units_parse_size(text, &ret_value->u);
	case CAIRN_OPTION_TIME:
		return units_parse_time(text, &ret_value->u);
	case CAIRN_OPTION_COUNT:
		return units_parse_count(text, &ret_value->u);
	case CAIRN_OPTION_NUMBER:
		return units_parse_number(text, &ret_value->d);
	case CAIRN_OPTION_BOOL:
	case CAIRN_OPTION_CHOICE:
	case CAIRN_OPTION_TEXT:
	case CAIRN_OPTION_PATH:
		break;
	}
	return -EINVAL;
}

static const char *kind_of(enum cairn_option_type type)
{
	switch (type) {
	case CAIRN_OPTION_SIZE:
		return "is no size; write for example 4096, 64KiB, 1.5GiB or 10GB";
	case CAIRN_OPTION_TIME:
		return "is no time; write for example 250ms, 30s, 10us or 1h";
	case CAIRN_OPTION_COUNT:
		return "is no count; write for example 16, 64k or 1M";
	case CAIRN_OPTION_NUMBER:
		return "is no number; write for example 0.25";
	case CAIRN_OPTION_BOOL:
	case CAIRN_OPTION_CHOICE:
	case CAIRN_OPTION_TEXT:
	case CAIRN_OPTION_PATH:
		break;
	}
	return "is of a type that this build does not know";
}

static bool above(enum cairn_option_type type, const struct cairn_value *a,
		  const struct cairn_value *b)
{
	return type == CAIRN_OPTION_NUMBER ? a->d > b->d : a->u > b->u;
}

static int convert_quantity(const struct item *item, struct cairn_value *value)
{
	const struct cairn_option *row = item->row;
	struct cairn_value bound = {0};
	int err = parse_value(row->type, item->text, value);

	if (err == -ERANGE && !row->max)
		return fail_value(item, "is too large for any store", "");
	if (err && err != -ERANGE)
		return fail_value(item, kind_of(row->type), "");
	if (row->min && !err) {
		if (parse_value(row->type, row->min, &bound))
			return fail_value(item,
					  "meets a bad least value in the stage's row: ", row->min);
		if (above(row->type, &bound, value))
			return fail_value(item, "is too small; the least is ", row->min);
	}
	if (row->max) {
		if (parse_value(row->type, row->max, &bound))
			return fail_value(
				item, "meets a bad largest value in the stage's row: ", row->max);
		if (err || above(row->type, value, &bound))
			return fail_value(item, "is too large; the most is ", row->max);
	}
	return 0;
}

static int convert_bool(const struct item *item, struct cairn_value *value)
{
	if (strcmp(item->text, "yes") != 0 && strcmp(item->text, "no") != 0)
		return fail_value(item, "is no answer; write yes or no", "");
	value->u = item->text[0] == 'y';
	return 0;
}

#define CHOICES_MAX	 16u
#define CHOICES_TEXT_MAX 256u

static int convert_choice(const struct item *item, struct cairn_value *value)
{
	const char *choices = item->row->choices ? item->row->choices : "";
	char names[CHOICES_TEXT_MAX], hint[SPEC_HINT_MAX], what[CHOICES_TEXT_MAX + 32];
	const char *list[CHOICES_MAX];
	uint32_t count = 0;
	char *next = names;

	snprintf(names, sizeof(names), "%s", choices);
	while (next && count < CHOICES_MAX) {
		list[count] = strsep(&next, "|");
		if (strcmp(list[count], item->text) == 0) {
			value->u = count;
			return 0;
		}
		count++;
	}
	snprintf(what, sizeof(what), "is none of %s", choices);
	return fail_value(item, what, spec_hint(item->text, list, count, hint));
}

/* ---- paths -------------------------------------------------------------------- */

static bool rank_fits(const char *rank)
{
	return *rank && !strchr(rank, '/') && strcmp(rank, ".") != 0 && strcmp(rank, "..") != 0;
}

/*
 * Writes @item's path with {rank} expanded to @out (NULL: only checks and
 * counts). Returns its length, or -EINVAL.
 */
static ptrdiff_t expand_path(const struct item *item, const char *rank, char *out)
{
	static const char name[] = "{rank}";
	const char *at = item->text;
	size_t length = 0;

	if (!*at)
		return fail_value(item, "is empty; write where, for example /var/lib/cairn", "");
	while (*at) {
		const char *piece = at;
		size_t n = 1;

		if (*at == '{' && strncmp(at, name, sizeof(name) - 1) != 0)
			return fail_value(item, "has a \"{\" that is not of {rank}, ",
					  "the only name that is expanded");
		if (*at == '{') {
			if (!rank_fits(rank))
				return fail_value(item, "needs a rank that can stand in a path, ",
						  "not an empty one, \".\", or one with a \"/\"");
			piece = rank;
			n = strlen(rank);
			at += sizeof(name) - 1;
		} else {
			at++;
		}
		if (out)
			memcpy(out + length, piece, n);
		length += n;
	}
	if (out)
		out[length] = '\0';
	return (ptrdiff_t)length;
}

/* ---- all of it ------------------------------------------------------------------ */

static bool has_string(const struct cairn_option *row)
{
	return row->type == CAIRN_OPTION_TEXT || row->type == CAIRN_OPTION_PATH;
}

/* @item->text is NULL where there is neither a value nor a preset. */
static void item_of(const struct spec_stage *stage, const struct cairn_option *row,
		    struct cairn_error *reterr, struct item *ret_item)
{
	const struct spec_option *o = find_option(stage, row->name);

	*ret_item = (struct item){
		.stage = stage,
		.row = row,
		.text = o ? o->value : row->preset,
		.line = o ? o->value_line : stage->line,
		.column = o ? o->value_column : stage->column,
		.reterr = reterr,
	};
}

/* Everything but the strings, whose bytes it adds to *bytes. */
static int convert(const struct item *item, const char *rank, struct cairn_value *value,
		   size_t *bytes)
{
	ptrdiff_t length;

	*value = (struct cairn_value){.set = item->text != NULL};
	if (!item->text) {
		if (!(item->row->flags & CAIRN_OPTION_REQUIRED))
			return 0;
		return spec_fail(item->reterr, -EINVAL, item->line, item->column,
				 "%s: option \"%s\" is missing; write %s(%s=...)",
				 item->stage->name, item->row->name, item->stage->name,
				 item->row->name);
	}
	switch (item->row->type) {
	case CAIRN_OPTION_BOOL:
		return convert_bool(item, value);
	case CAIRN_OPTION_CHOICE:
		return convert_choice(item, value);
	case CAIRN_OPTION_TEXT:
		*bytes += strlen(item->text) + 1;
		return 0;
	case CAIRN_OPTION_PATH:
		length = expand_path(item, rank, NULL);
		if (length < 0)
			return (int)length;
		*bytes += (size_t)length + 1;
		return 0;
	case CAIRN_OPTION_SIZE:
	case CAIRN_OPTION_TIME:
	case CAIRN_OPTION_COUNT:
	case CAIRN_OPTION_NUMBER:
		break;
	}
	return convert_quantity(item, value);
}

static char *write_string(const struct item *item, const char *rank, char *out)
{
	size_t length = strlen(item->text);

	if (item->row->type == CAIRN_OPTION_PATH)
		length = (size_t)expand_path(item, rank, out);
	else
		memcpy(out, item->text, length + 1);
	return out + length + 1;
}

int options_resolve(const struct sys *sys, const struct spec_stage *stage,
		    const struct cairn_option *rows, uint32_t row_count,
		    const struct options_context *context, struct cairn_value *ret_values,
		    void **ret_strings, struct cairn_error *reterr)
{
	const char *rank = context && context->rank ? context->rank : "0";
	struct item item;
	size_t bytes = 0;
	char *out;
	int err = check_names(stage, rows, row_count, reterr);

	*ret_strings = NULL;
	for (uint32_t i = 0; i < row_count && !err; i++) {
		item_of(stage, &rows[i], reterr, &item);
		err = convert(&item, rank, &ret_values[i], &bytes);
	}
	if (err || !bytes)
		return err;
	out = sys->alloc(1, bytes);
	if (!out)
		return spec_fail(reterr, -ENOMEM, 0, 0, "%s: no memory for its options",
				 stage->name);
	*ret_strings = out;
	for (uint32_t i = 0; i < row_count; i++) {
		item_of(stage, &rows[i], reterr, &item);
		if (!item.text || !has_string(&rows[i]))
			continue;
		ret_values[i].s = out;
		out = write_string(&item, rank, out);
	}
	assert(out == (char *)*ret_strings + bytes); /* both passes saw the same */
	return 0;
}

void options_place(const struct spec_stage *stage, const char *name, int *ret_line, int *ret_column)
{
	const struct spec_option *o = find_option(stage, name);

	*ret_line = o ? o->value_line : stage->line;
	*ret_column = o ? o->value_column : stage->column;
}

void options_free(const struct sys *sys, void *strings)
{
	if (strings)
		sys->free(strings);
}
