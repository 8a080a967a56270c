/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "options.h"
#include "out.h"

#define NAMES_MAX 64 /* for "did you mean" */

struct stages {
	const char *wanted; /* NULL: all, in short */
	json_t *list;	    /* NULL: print */
	bool found, broken;
	const char *names[NAMES_MAX + 1];
	char texts[NAMES_MAX][32];
	size_t count;
};

static json_t *option_json(const struct cairn_option_info *option)
{
	json_t *o = json_object();

	out_json_set(o, "name", out_json_text(option->name));
	out_json_set(o, "type", out_json_text(option->type));
	out_json_set(o, "default", out_json_text(option->preset));
	out_json_set(o, "min", out_json_text(option->min));
	out_json_set(o, "max", out_json_text(option->max));
	out_json_set(o, "required", json_boolean(option->required));
	out_json_set(o, "help", out_json_text(option->help));
	return o;
}

static void stage_json(struct stages *stages, const struct cairn_stage_info *stage)
{
	json_t *o = json_object(), *options = json_array();

	for (size_t i = 0; i < stage->option_count; i++)
		json_array_append_new(options, option_json(&stage->options[i]));
	out_json_set(o, "name", out_json_text(stage->name));
	out_json_set(o, "summary", out_json_text(stage->summary));
	out_json_set(o, "file", out_json_text(stage->file));
	out_json_set(o, "tier", json_boolean(stage->tier));
	out_json_set(o, "options", options);
	out_json_set(o, "error", out_json_text(stage->error));
	json_array_append_new(stages->list, o);
}

static void print_option(const struct cairn_option_info *option, int type_width)
{
	printf("  %-12s %-*s %s%s%s", option->name, type_width, option->type, option->help,
	       option->required ? " (required)" : "", *option->preset ? " (default: " : "");
	if (*option->preset)
		printf("%s)", option->preset);
	if (*option->min && *option->max)
		printf(" [%s to %s]", option->min, option->max);
	else if (*option->min || *option->max)
		printf(" [%s %s]", *option->min ? "at least" : "at most",
		       *option->min ? option->min : option->max);
	putchar('\n');
}

static void print_stage(const struct cairn_stage_info *stage)
{
	int width = 0;

	printf("%s: %s%s\n", stage->name, stage->summary, stage->tier ? " (keeps data)" : "");
	if (stage->file)
		printf("from %s\n", stage->file);
	if (!stage->option_count)
		printf("no options\n");
	for (size_t i = 0; i < stage->option_count; i++)
		if ((int)strlen(stage->options[i].type) > width)
			width = (int)strlen(stage->options[i].type);
	for (size_t i = 0; i < stage->option_count; i++)
		print_option(&stage->options[i], width);
}

static int show_stage(void *context, const struct cairn_stage_info *stage)
{
	struct stages *stages = context;

	if (stages->count < NAMES_MAX) {
		char *text = stages->texts[stages->count];

		snprintf(text, sizeof(stages->texts[0]), "%s", stage->name);
		stages->names[stages->count++] = text;
	}
	if (stages->wanted && strcmp(stages->wanted, stage->name))
		return 0;
	stages->found |= !stage->error;
	stages->broken |= stage->error != NULL;
	if (stages->list)
		stage_json(stages, stage);
	else if (stages->wanted && stage->error)
		out_error("stages", "%s", stage->error);
	else if (stages->wanted)
		print_stage(stage);
	else if (stage->error)
		printf("  %-12s %-5s %s\n", stage->name, "no", stage->error);
	else
		printf("  %-12s %-5s %s\n", stage->name, stage->tier ? "tier" : "", stage->summary);
	return 0;
}

static int show_composition(void *context, const char *name, const char *spec, const char *help)
{
	json_t *list = context, *o;
	const char *mark = *name == '@' ? "" : "@";

	if (!list) {
		printf("  %s%-*s %s\n  %-13s   %s\n", mark, *mark ? 11 : 12, name, help ? help : "",
		       "", spec);
		return 0;
	}
	o = json_object();
	out_json_set(o, "name", out_json_text(name));
	out_json_set(o, "pipeline", out_json_text(spec));
	out_json_set(o, "help", out_json_text(help));
	json_array_append_new(list, o);
	return 0;
}

static int unknown(const struct stages *stages)
{
	const char *nearest = option_nearest(stages->wanted, stages->names);

	if (nearest)
		return option_error("stages", "no stage \"%s\"; did you mean \"%s\"?",
				    stages->wanted, nearest);
	return option_error("stages", "no stage \"%s\"; 'cairn stages' lists them", stages->wanted);
}

static int show(struct stages *stages, const struct option_store *store, bool as_json)
{
	json_t *o, *compositions = as_json ? json_array() : NULL;
	struct cairn_error error = {0};
	int rc;

	stages->list = as_json ? json_array() : NULL;
	if (!as_json && !stages->wanted)
		printf("stages:\n");
	rc = cairn_stages(&store->opts, show_stage, stages, &error);
	if (rc < 0) {
		out_error("stages", "%s", *error.text ? error.text : cairn_strerror(rc));
	} else if (stages->wanted && !stages->found && !stages->broken) {
		rc = unknown(stages);
	} else if (!stages->wanted) {
		if (!as_json)
			printf("\ncompositions:\n");
		cairn_compositions(show_composition, compositions);
		if (!as_json)
			printf("\n'cairn stages NAME' shows a stage's options.\n");
	}
	if (rc == 0 && as_json) {
		o = json_object();
		out_json_set(o, "stages", json_incref(stages->list));
		if (!stages->wanted)
			out_json_set(o, "compositions", json_incref(compositions));
		rc = out_json(o);
	}
	if (rc == 0 && stages->wanted && !stages->found)
		rc = CLI_CANNOT;
	json_decref(compositions);
	json_decref(stages->list);
	return rc < 0 ? CLI_CANNOT : rc;
}

int cli_stages(int argc, char **argv)
{
	struct option_store store;
	struct stages stages = {0};
	bool as_json = false;
	const struct option_row rows[] = {OPTION_STORE_ROWS(&store, &as_json)};
	const struct option_command command = {
		.name = "stages",
		.usage = "[STAGE] [options]",
		.about = "Lists the stages that a pipeline can be made of and the named "
			 "compositions; "
			 "with\na STAGE, its options, their types and defaults ('store': what "
			 "belongs to "
			 "no stage).",
		.after = "Examples:\n  cairn stages\n  cairn stages posix\n\n"
			 "Exit status: 0, 2 no such stage, 3 the stages could not be read.",
		.operand = "STAGE",
		.operand_max = 1,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	size_t count;
	int rc;

	option_store_init(&store);
	rc = option_parse(&command, argc, argv, &stages.wanted, &count);
	if (rc >= 0)
		return rc;
	rc = option_store_load("stages", &store);
	return rc == CLI_OK ? show(&stages, &store, as_json) : rc;
}
