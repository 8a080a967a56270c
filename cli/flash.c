/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in the file or on the device of a flash store: for people who look for a fault. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "options.h"
#include "out.h"

struct view {
	bool as_json, quiet_store; /* of a region the store is not shown */
	json_t *object;		   /* what is being told; NULL: nothing yet */
	char item[16];
	uint64_t number;
	uint64_t shown; /* objects of this item */
	bool in_use;
	uint64_t owner;
};

/* ---- JSON: each object is printed as it is whole, since a region may have a million ------- */

static bool is_list(const char *item)
{
	return strcmp(item, "namespace") == 0 || strcmp(item, "record") == 0;
}

static void object_end(struct view *view)
{
	if (!view->object)
		return;
	if (!is_list(view->item))
		printf("\"%s\": ", view->item);
	json_dumpf(view->object, stdout, JSON_COMPACT);
	json_decref(view->object);
	view->object = NULL;
}

/* The end of a list, or what stands between two objects. */
static void object_begin(struct view *view, const struct cairn_detail *detail)
{
	bool same = strcmp(view->item, detail->item) == 0;

	object_end(view);
	if (same)
		fputs(", ", stdout);
	else if (is_list(view->item))
		fputs("], ", stdout);
	else
		fputs(*view->item ? ", " : "{", stdout);
	if (!same && strcmp(view->item, "store") == 0 && strcmp(detail->item, "region") == 0)
		fputs("\"records\": [], ", stdout);
	if (!same && is_list(detail->item))
		printf("\"%ss\": [", detail->item);
	view->object = json_object();
	if (strcmp(detail->item, "store") != 0)
		out_json_count(view->object, "number", detail->number);
}

static void json_detail(struct view *view, const struct cairn_detail *detail, bool first)
{
	if (first)
		object_begin(view, detail);
	if (detail->text)
		out_json_set(view->object, detail->name, out_json_text(detail->text));
	else
		out_json_count(view->object, detail->name, detail->value);
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* The store has a line for each detail; a namespace, region or record is one line. */
static void line_detail(struct view *view, const struct cairn_detail *detail, bool first)
{
	bool of_store = strcmp(detail->item, "store") == 0;

	if (of_store && view->quiet_store)
		return;
	if (of_store)
		printf("%-20s ", detail->name);
	else if (first)
		printf("%s%s %" PRIu64 ": %s ", view->shown ? "\n" : "", detail->item,
		       detail->number, detail->name);
	else
		printf(" %s ", detail->name);
	view->shown += !of_store;
	if (detail->text)
		fputs(*detail->text ? detail->text : "\"\"", stdout);
	else
		printf("%" PRIu64, detail->value);
	if (of_store)
		putchar('\n');
}

static int show(void *context, const struct cairn_detail *detail)
{
	struct view *view = context;
	bool first = strcmp(view->item, detail->item) != 0 || view->number != detail->number;

	if (strcmp(detail->name, "in_use") == 0)
		view->in_use = detail->text && strcmp(detail->text, "yes") == 0;
	if (strcmp(detail->name, "owner") == 0)
		view->owner = detail->value;
	if (view->as_json)
		json_detail(view, detail, first);
	else
		line_detail(view, detail, first);
	snprintf(view->item, sizeof(view->item), "%s", detail->item);
	view->number = detail->number;
	return out_stop_asked() ? -ECANCELED : 0;
}

static void show_end(struct view *view)
{
	if (!*view->item)
		return;
	if (view->as_json) {
		object_end(view);
		fputs(strcmp(view->item, "store") == 0 ? ", \"namespaces\": []" : "", stdout);
		puts(is_list(view->item) ? "]}" : "}");
		return;
	}
	if (view->shown)
		putchar('\n');
	if (view->in_use)
		printf("process %" PRIu64 " has it open: what it has not written yet is missing, "
		       "and what it was\nwriting may be told as torn\n",
		       view->owner);
}

/* ---- the command ------------------------------------------------------------------------------
 */

/* "flash(path="...")", the path quoted; NULL: no memory. */
static char *pipeline_of(const char *path)
{
	size_t at, bytes = 2 * strlen(path) + 32;
	char *text = malloc(bytes);

	if (!text)
		return NULL;
	at = (size_t)snprintf(text, bytes, "flash(path=\"");
	for (; *path; path++) {
		if (*path == '"' || *path == '\\')
			text[at++] = '\\';
		text[at++] = *path;
	}
	snprintf(text + at, bytes - at, "\")");
	return text;
}

static int number_parse(const char *text, uint64_t *ret_number)
{
	char *end;

	errno = 0;
	*ret_number = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || *ret_number == CAIRN_INSPECT_STORE)
		return option_error("flash", "\"%.32s\" is no region: a number from 0 on", text);
	return CLI_OK;
}

static int inspect(const char *path, uint64_t region, const struct option_store *store,
		   bool as_json)
{
	struct view view = {.as_json = as_json, .quiet_store = region != CAIRN_INSPECT_STORE};
	struct cairn_error error = {0};
	char *pipeline = pipeline_of(path);
	int rc;

	if (!pipeline)
		out_die("no memory");
	out_stop_catch();
	rc = cairn_inspect(pipeline, &store->opts, region, show, &view, &error);
	free(pipeline);
	show_end(&view);
	if (rc == -ECANCELED)
		return CLI_STOPPED;
	if (rc == -EINVAL)
		return option_error("flash", "%s", error.text);
	return rc < 0 ? option_store_error("flash", rc, &error) : CLI_OK;
}

int cli_flash(int argc, char **argv)
{
	struct option_store store;
	bool as_json = false;
	const struct option_row rows[] = {OPTION_STORE_ROWS(&store, &as_json)};
	const struct option_command command = {
		.name = "flash",
		.usage = "info PATH [options]\n       cairn flash dump-region PATH N [options]",
		.about =
			"Shows what lies in the file, or on the device, of a flash stage: the "
			"store and its\nnamespaces, or all records of one region, a line each, the "
			"dead ones too. Reads only,\nand may be used beside the process that has "
			"the store open.",
		.after = "Examples:\n  cairn flash info /var/lib/cairn/kv\n"
			 "  cairn flash dump-region /dev/nvme1n1 17 --json | jq .records[].key\n\n"
			 "Exit status: 0, 2 usage, 3 it could not be read: no flash store, or I/O.",
		.operand = "info or dump-region",
		.operand_min = 2,
		.operand_max = 3,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	const char *operands[3] = {NULL};
	uint64_t region = CAIRN_INSPECT_STORE;
	size_t count;
	int rc;

	option_store_init(&store);
	rc = option_parse(&command, argc, argv, operands, &count);
	if (rc >= 0)
		return rc;
	if (strcmp(operands[0], "info") != 0 && strcmp(operands[0], "dump-region") != 0)
		return option_error("flash", "\"%.32s\" is none of info, dump-region", operands[0]);
	if ((strcmp(operands[0], "info") == 0) != (count == 2))
		return option_error("flash", count == 2 ? "dump-region needs PATH and the region's "
							  "number"
							: "info needs nothing but PATH");
	if (count == 3 && number_parse(operands[2], &region) != CLI_OK)
		return CLI_USAGE;
	return inspect(operands[1], region, &store, as_json);
}
