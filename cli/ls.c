/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cairn/task.h>

#include "base/units.h"
#include "cli.h"
#include "content.h"
#include "options.h"
#include "out.h"

#define LIMIT_REACHED 1 /* what show_block() ends the walk with */

struct ls {
	bool as_json, keys, cut;
	bool open;	/* in a process */
	uint32_t owner; /* which; 0: not known */
	uint64_t limit, shown, raw_bytes, stored_bytes;
};

/* null: none were told. */
static json_t *attributes(const struct cairn_listed *block)
{
	static const struct cairn_key none;
	const struct cairn_block_attr *attr = block->attr;
	char parent[CONTENT_KEY_TEXT];
	json_t *o;

	if (!attr)
		return json_null();
	o = json_object();
	content_key_format(&attr->parent, parent);
	out_json_set(o, "parent",
		     out_json_text(memcmp(&attr->parent, &none, sizeof(none)) ? parent : NULL));
	out_json_set(o, "chained", json_boolean(block->chained));
	out_json_count(o, "depth", attr->depth);
	out_json_count(o, "priority", attr->priority);
	out_json_count(o, "ttl_ns", attr->ttl_ns);
	out_json_count(o, "cost_ns", attr->cost_ns);
	return o;
}

/* A store may hold millions: each is printed as it comes, also in JSON. */
static void show_json(struct ls *ls, const struct cairn_listed *block, const char *key)
{
	json_t *o = json_object();

	out_json_set(o, "key", out_json_text(key));
	out_json_set(o, "stage", out_json_text(block->stage));
	out_json_count(o, "namespace", block->namespace_id);
	out_json_count(o, "generation", block->generation);
	out_json_set(o, "model", out_json_text(block->desc ? block->desc->model : NULL));
	out_json_set(o, "tenant", out_json_text(block->desc ? block->desc->tenant : NULL));
	out_json_count(o, "shards", block->shard_count);
	out_json_count(o, "raw_bytes", block->raw_bytes);
	out_json_count(o, "stored_bytes", block->stored_bytes);
	out_json_count(o, "sequence", block->sequence);
	out_json_set(o, "whole", json_boolean(block->whole));
	out_json_set(o, "attributes", attributes(block));
	fputs(ls->shown ? "," : "", stdout);
	json_dumpf(o, stdout, JSON_COMPACT);
	json_decref(o);
}

static void show_line(struct ls *ls, const struct cairn_listed *block, const char *key)
{
	char raw[UNITS_TEXT_MAX], stored[UNITS_TEXT_MAX];

	if (!ls->shown)
		printf("%-32s  %-8s %6s %10s %10s %10s  %s\n", "key", "stage", "shards", "bytes",
		       "stored", "sequence", "namespace");
	printf("%-32s  %-8s %6u %10s %10s %10llu  %u.%u %s%s\n", key, block->stage,
	       block->shard_count, units_format_size(block->raw_bytes, raw),
	       units_format_size(block->stored_bytes, stored), (unsigned long long)block->sequence,
	       block->namespace_id, block->generation,
	       block->desc && block->desc->model ? block->desc->model : "?",
	       block->whole ? "" : " (partial)");
}

static int show_block(void *context, const struct cairn_listed *block)
{
	struct ls *ls = context;
	char key[CONTENT_KEY_TEXT];

	if (out_stop_asked())
		return -ECANCELED;
	ls->cut = ls->limit && ls->shown >= ls->limit;
	if (ls->cut)
		return LIMIT_REACHED;
	content_key_format(&block->key, key);
	if (ls->as_json)
		show_json(ls, block, key);
	else if (ls->keys)
		puts(key);
	else
		show_line(ls, block, key);
	ls->shown++;
	ls->raw_bytes += block->raw_bytes;
	ls->stored_bytes += block->stored_bytes;
	return 0;
}

static int any_counter(void *context, const struct cairn_counter *counter)
{
	(void)context;
	(void)counter;
	return 1;
}

/* Who has it open now, by the page that it shares: then what is listed may be late. */
static void find_owner(struct ls *ls, const char *pipeline, const struct option_store *store)
{
	struct cairn_live live = {.size = sizeof(live)};
	int rc = cairn_live_counters(pipeline, &store->opts, any_counter, NULL, &live, NULL);

	ls->open = rc == 1 || rc == -EBUSY;
	ls->owner = rc == 1 ? live.pid : 0;
}

static void end_json(const struct ls *ls, bool whole, uint64_t missed)
{
	printf("], \"count\": %llu, \"missed\": %llu, \"owner\": ", (unsigned long long)ls->shown,
	       (unsigned long long)missed);
	if (ls->owner)
		printf("%u", ls->owner);
	else
		fputs("null", stdout);
	printf(", \"complete\": %s}\n",
	       whole && !ls->cut && !missed && !ls->open ? "true" : "false");
}

static void end_line(const struct ls *ls)
{
	char raw[UNITS_TEXT_MAX], stored[UNITS_TEXT_MAX];

	printf("%llu block%s, %s, stored as %s\n", (unsigned long long)ls->shown,
	       ls->shown == 1 ? "" : "s", units_format_size(ls->raw_bytes, raw),
	       units_format_size(ls->stored_bytes, stored));
}

/* Where stdout is for keys alone, on stderr. */
static void open_note(const struct ls *ls)
{
	static const char format[] =
		"%s has it open: what it changed meanwhile, or has not written "
		"yet, may be missing";
	char who[32] = "a process";

	if (!ls->open)
		return;
	if (ls->owner)
		snprintf(who, sizeof(who), "process %u", ls->owner);
	if (ls->keys) {
		out_error("ls", format, who);
	} else {
		printf(format, who);
		putchar('\n');
	}
}

static int list(struct ls *ls, const char *pipeline, const struct option_store *store)
{
	struct cairn_error error = {0};
	uint64_t missed = 0;
	int64_t rc;

	find_owner(ls, pipeline, store);
	if (ls->as_json)
		fputs("{\"blocks\": [", stdout);
	rc = cairn_list(pipeline, &store->opts, show_block, ls, &missed, &error);
	if (!ls->open) /* one that came while it was read */
		find_owner(ls, pipeline, store);
	if (ls->as_json)
		end_json(ls, rc >= 0, missed);
	if (rc == -ECANCELED)
		return CLI_STOPPED;
	if (rc < 0)
		return option_store_error("ls", (int)rc, &error);
	if (missed && ls->open) /* the end of a log that grows, as likely as damage */
		out_error("ls", "%llu entries were being written, or could not be read",
			  (unsigned long long)missed);
	else if (missed)
		out_error("ls", "%llu entries could not be read; 'cairn fsck' names them",
			  (unsigned long long)missed);
	if (!ls->as_json && !ls->keys)
		end_line(ls);
	if (!ls->as_json)
		open_note(ls);
	return missed && !ls->open ? CLI_BAD : CLI_OK;
}

int cli_ls(int argc, char **argv)
{
	struct option_store store;
	struct ls ls = {0};
	const struct option_row rows[] = {
		{"keys", OPTION_FLAG, &ls.keys, NULL, "print keys only, one a line", 0, 0, NULL},
		{"limit", OPTION_COUNT, &ls.limit, "N", "blocks (default: all)", 1, 0, NULL},
		OPTION_STORE_ROWS(&store, &ls.as_json),
	};
	const struct option_command command = {
		.name = "ls",
		.usage = "PIPELINE [options]",
		.about = "Lists the blocks of a store from its own metadata, without its lock: "
			 "while "
			 "another\nprocess has it open, the list may miss what changes meanwhile.",
		.after = "Examples:\n  cairn ls 'posix(path=/var/lib/cairn)'\n"
			 "  cairn ls 'posix(path=/tmp/kv)' --keys --limit 10 |\n"
			 "      cairn rm 'posix(path=/tmp/kv)' -\n\n"
			 "Exit status: 0, 1 some entries of a store that nobody has open could not "
			 "be\nread, 2 usage, 3 nothing could.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	const char *pipeline = NULL;
	size_t count;
	int rc;

	option_store_init(&store);
	rc = option_parse(&command, argc, argv, &pipeline, &count);
	if (rc >= 0)
		return rc;
	if (ls.keys && ls.as_json)
		return option_error("ls", "--keys and --json exclude each other");
	rc = option_store_load("ls", &store);
	if (rc != CLI_OK)
		return rc;
	out_stop_catch();
	return list(&ls, pipeline, &store);
}
