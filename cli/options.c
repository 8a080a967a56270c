/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cli.h"
#include "options.h"
#include "out.h"

#define ROWS_MAX     32	  /* options of one command, --help included */
#define DISTANCE_MAX 2	  /* edits between what was typed and what was meant */
#define NEAREST_MAX  64	  /* longer names are not compared */
#define HELP_COLUMN  26	  /* where the help of an option starts */
#define LONG_FIRST   1000 /* getopt's value of the first row */

void option_store_init(struct option_store *store)
{
	memset(store, 0, sizeof(*store));
	store->opts.size = sizeof(store->opts);
}

int option_store_load(const char *name, const struct option_store *store)
{
	struct cairn_error error = {0};

	if (!store->pipelines || cairn_pipeline_define_file(store->pipelines, &error) >= 0)
		return CLI_OK;
	if (error.line) /* else it names the file itself */
		out_error(name, "%s: %s", store->pipelines, error.text);
	else
		out_error(name, "%s", error.text);
	return CLI_CANNOT;
}

/* A wrong pipeline, as against a right one that cannot be opened. */
static bool is_usage(int rc, const struct cairn_error *error)
{
	return rc == -EINVAL || (rc == -ENOENT && error->line && strstr(error->text, ": no stage"));
}

int option_store_error(const char *name, int rc, const struct cairn_error *error)
{
	out_error(name, "%s", *error->text ? error->text : cairn_strerror(rc));
	return is_usage(rc, error) ? CLI_USAGE : CLI_CANNOT;
}

void option_list_add(struct option_list *list, const char *item)
{
	const char **items = realloc(list->items, (list->count + 1) * sizeof(*items));

	if (!items)
		out_die("no memory for a list of %zu texts", list->count + 1);
	items[list->count++] = item;
	list->items = items;
}

void option_list_fini(struct option_list *list)
{
	free(list->items);
	*list = (struct option_list){0};
}

/* Levenshtein's distance of two short texts. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NEAREST_MAX + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > NEAREST_MAX || lb > NEAREST_MAX)
		return UINT32_MAX;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (best > row[j] + 1)
				best = row[j] + 1;
			if (best > row[j - 1] + 1)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

const char *option_nearest(const char *typed, const char *const *names)
{
	unsigned best = DISTANCE_MAX + 1;
	const char *nearest = NULL;

	for (; *names; names++) {
		unsigned d = distance(typed, *names);

		/* two edits of a three-letter word are another word */
		if (d < best && d < strlen(*names) - 1) {
			best = d;
			nearest = *names;
		}
	}
	return nearest;
}

__attribute__((format(printf, 2, 0))) static void usage_error(const char *name, const char *format,
							      va_list list)
{
	size_t length = strlen(format);

	fprintf(stderr, "cairn %s: ", name);
	vfprintf(stderr, format, list);
	fprintf(stderr, length && format[length - 1] == '?' ? " See" : "; see");
	fprintf(stderr, " 'cairn %s --help'\n", name);
}

int option_error(const char *name, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	usage_error(name, format, list);
	va_end(list);
	return CLI_USAGE;
}

static int unknown_option(const struct option_command *command, const char *typed)
{
	const char *names[ROWS_MAX + 2] = {"help"};
	char word[NEAREST_MAX + 1];
	const char *nearest;
	size_t length;

	for (size_t i = 0; i < command->row_count; i++)
		names[i + 1] = command->rows[i].name;
	typed += strspn(typed, "-");
	length = strcspn(typed, "=");
	snprintf(word, sizeof(word), "%.*s", (int)(length < NEAREST_MAX ? length : NEAREST_MAX),
		 typed);
	nearest = option_nearest(word, names);
	if (nearest)
		return option_error(command->name, "unknown option --%s; did you mean --%s?", word,
				    nearest);
	return option_error(command->name, "unknown option --%s", word);
}

static int set_choice(const struct option_command *command, const struct option_row *row,
		      const char *text)
{
	const char *at = row->value;
	uint32_t position = 0;

	while (*at) {
		size_t length = strcspn(at, "|");

		if (strlen(text) == length && !memcmp(text, at, length)) {
			*(uint32_t *)row->target = position;
			return -1;
		}
		position++;
		at += length + (at[length] == '|');
	}
	return option_error(command->name, "--%s: \"%s\" is not one of %s", row->name, text,
			    row->value);
}

static const char *format_exact(uint64_t count, char *buffer)
{
	snprintf(buffer, UNITS_TEXT_MAX, "%llu", (unsigned long long)count);
	return buffer;
}

/* Sizes, times and counts: one kind of value, three ways to write it. */
static int set_quantity(const struct option_command *command, const struct option_row *row,
			const char *text)
{
	char low[UNITS_TEXT_MAX], high[UNITS_TEXT_MAX];
	const char *(*format)(uint64_t, char *) = format_exact;
	const char *example = "1000 or 64k";
	uint64_t value = 0;
	int rc;

	if (row->type == OPTION_SIZE) {
		rc = units_parse_size(text, &value);
		format = units_format_size;
		example = "64KiB, 2MiB or 4096";
	} else if (row->type == OPTION_TIME || row->type == OPTION_TIME_MAYBE) {
		rc = units_parse_time(text, &value);
		format = units_format_time;
		example = "250ms or 2s";
	} else {
		rc = units_parse_count(text, &value);
	}
	if (rc < 0)
		return option_error(command->name, "--%s: \"%s\" is not a %s; write for example %s",
				    row->name, text,
				    row->type == OPTION_SIZE	? "size"
				    : row->type == OPTION_COUNT ? "count"
								: "time",
				    example);
	if (value < row->min || (row->max && value > row->max))
		return option_error(command->name, "--%s: %s is outside %s to %s", row->name, text,
				    format(row->min, low),
				    row->max ? format(row->max, high) : "any");
	*(uint64_t *)row->target = value;
	return -1;
}

static int set_number(const struct option_command *command, const struct option_row *row,
		      const char *text)
{
	double value = 0;

	if (units_parse_number(text, &value) < 0 || !(value > 0) || value > 1e15)
		return option_error(command->name, "--%s: \"%s\" is not a number above 0",
				    row->name, text);
	*(double *)row->target = value;
	return -1;
}

static int set_option(const struct option_command *command, const struct option_row *row,
		      const char *text)
{
	if (row->ret_given)
		*row->ret_given = true;
	switch (row->type) {
	case OPTION_FLAG:
		*(bool *)row->target = true;
		return -1;
	case OPTION_TEXT:
		*(const char **)row->target = text;
		return -1;
	case OPTION_LIST:
		option_list_add(row->target, text);
		return -1;
	case OPTION_CHOICE:
		return set_choice(command, row, text);
	case OPTION_NUMBER:
		return set_number(command, row, text);
	case OPTION_TIME_MAYBE:
		return text ? set_quantity(command, row, text) : -1;
	case OPTION_SIZE:
	case OPTION_TIME:
	case OPTION_COUNT:
		return set_quantity(command, row, text);
	}
	return CLI_USAGE;
}

/* "[=TIME]" is a value that may be left out. */
static void print_option(const char *name, const char *value, const char *help)
{
	int width =
		printf("  --%s%s%s", name, value && *value != '[' ? " " : "", value ? value : "");

	if (width >= HELP_COLUMN) {
		putchar('\n');
		width = 0;
	}
	for (;;) {
		size_t length = strcspn(help, "\n");

		printf("%*s%.*s\n", HELP_COLUMN - width, "", (int)length, help);
		if (!help[length])
			return;
		help += length + 1;
		width = 0;
	}
}

static void print_help(const struct option_command *command)
{
	printf("usage: cairn %s %s\n\n%s\n", command->name, command->usage, command->about);
	printf("\nOptions:\n");
	for (size_t i = 0; i < command->row_count; i++)
		print_option(command->rows[i].name, command->rows[i].value, command->rows[i].help);
	print_option("help", NULL, "this text");
	if (command->after)
		printf("\n%s\n", command->after);
}

static int add_operand(const struct option_command *command, const char *text,
		       const char **ret_operands, size_t *ret_operand_count)
{
	if (*ret_operand_count < command->operand_max)
		ret_operands[(*ret_operand_count)++] = text;
	else if (command->rest)
		option_list_add(command->rest, text);
	else
		return option_error(command->name, "unexpected \"%s\"", text);
	return -1;
}

/* getopt's answer that is neither an option's value nor an operand. */
static int odd_option(const struct option_command *command, int c, char **argv)
{
	if (c == 'h') {
		print_help(command);
		return CLI_OK;
	}
	if (c == ':')
		return option_error(command->name, "%s needs a value", argv[optind - 1]);
	if (optopt >= LONG_FIRST || optopt == 'h')
		return option_error(command->name, "%s takes no value", argv[optind - 1]);
	if (optopt)
		return option_error(command->name, "unknown option -%c", optopt);
	return unknown_option(command, argv[optind - 1]);
}

int option_parse(const struct option_command *command, int argc, char **argv,
		 const char **ret_operands, size_t *ret_operand_count)
{
	struct option longs[ROWS_MAX + 2] = {{"help", no_argument, NULL, 'h'}};
	int c, rc = -1;

	if (command->row_count > ROWS_MAX)
		out_die("%zu options are more than %d", command->row_count, ROWS_MAX);
	for (size_t i = 0; i < command->row_count; i++) {
		const struct option_row *row = &command->rows[i];

		longs[i + 1] = (struct option){row->name,
					       row->type == OPTION_FLAG		? no_argument
					       : row->type == OPTION_TIME_MAYBE ? optional_argument
										: required_argument,
					       NULL, LONG_FIRST + (int)i};
	}
	*ret_operand_count = 0;
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while (rc < 0 && (c = getopt_long(argc, argv, "-:h", longs, NULL)) != -1) {
		if (c == 1)
			rc = add_operand(command, optarg, ret_operands, ret_operand_count);
		else if (c >= LONG_FIRST)
			rc = set_option(command, &command->rows[c - LONG_FIRST], optarg);
		else
			rc = odd_option(command, c, argv);
	}
	for (; rc < 0 && optind < argc; optind++) /* what follows "--" */
		rc = add_operand(command, argv[optind], ret_operands, ret_operand_count);
	if (rc < 0 && *ret_operand_count < command->operand_min)
		rc = option_error(command->name, "no %s given", command->operand);
	return rc;
}

static int add_evicted(void *context, const struct cairn_counter *counter)
{
	if (!strcmp(counter->name, "evicted_blocks"))
		*(uint64_t *)context += counter->value;
	return 0;
}

uint64_t option_store_evicted(struct cairn_store *store)
{
	uint64_t blocks = 0;

	cairn_counters(store, add_evicted, &blocks);
	return blocks;
}
