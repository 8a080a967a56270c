/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key does not tell its namespace, and a store removes by namespace: so the
 * list at rest is walked first, and gives each key its description.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairn/task.h>

#include "base/units.h"
#include "cli.h"
#include "content.h"
#include "options.h"
#include "out.h"

struct target {
	struct cairn_key key;
	size_t space; /* index in spaces[], or NONE */
	uint64_t stored_bytes;
	struct cairn_result result;
};
#define NONE SIZE_MAX

struct space {
	struct cairn_namespace_desc desc; /* its texts are ours */
	struct cairn_namespace *ns;
};

struct rm {
	struct target *targets; /* sorted by key, each once */
	size_t target_count;
	struct space *spaces;
	size_t space_count;
};

static int compare(const void *a, const void *b)
{
	return memcmp(((const struct target *)a)->key.bytes, ((const struct target *)b)->key.bytes,
		      CAIRN_KEY_BYTES);
}

static int add_key(struct rm *rm, const char *text)
{
	struct target *targets = realloc(rm->targets, (rm->target_count + 1) * sizeof(*targets));

	if (!targets)
		out_die("no memory for %zu keys", rm->target_count + 1);
	rm->targets = targets;
	targets[rm->target_count] = (struct target){.space = NONE};
	if (content_key_parse(text, &targets[rm->target_count].key) < 0)
		return option_error(
			"rm", "\"%.64s\" is no key: 32 hex digits, as 'cairn ls' prints", text);
	rm->target_count++;
	return CLI_OK;
}

static int add_keys_of_stdin(struct rm *rm)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, " \t\r\n")] = '\0';
		if (*line && add_key(rm, line) != CLI_OK)
			return CLI_USAGE;
	}
	return CLI_OK;
}

static int read_keys(struct rm *rm, const struct option_list *texts)
{
	size_t kept = 0;
	int rc = CLI_OK;

	for (size_t i = 0; i < texts->count && rc == CLI_OK; i++)
		rc = strcmp(texts->items[i], "-") ? add_key(rm, texts->items[i])
						  : add_keys_of_stdin(rm);
	if (rc != CLI_OK || !rm->target_count)
		return rc;
	qsort(rm->targets, rm->target_count, sizeof(*rm->targets), compare);
	for (size_t i = 1; i < rm->target_count; i++)
		if (compare(&rm->targets[kept], &rm->targets[i]))
			rm->targets[++kept] = rm->targets[i];
	rm->target_count = kept + 1;
	return CLI_OK;
}

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "", b ? b : "");
}

static bool same_desc(const struct cairn_namespace_desc *a, const struct cairn_namespace_desc *b)
{
	return same_text(a->model, b->model) && same_text(a->revision, b->revision) &&
	       same_text(a->dtype, b->dtype) && same_text(a->layout, b->layout) &&
	       same_text(a->parallel, b->parallel) && same_text(a->tenant, b->tenant) &&
	       a->salt_length == b->salt_length &&
	       (!a->salt_length || !memcmp(a->salt, b->salt, a->salt_length)) &&
	       a->rank == b->rank && a->world == b->world &&
	       a->format_version == b->format_version && a->shard_count == b->shard_count &&
	       a->shard_bytes == b->shard_bytes;
}

static char *copy_text(const char *text)
{
	char *copy = strdup(text ? text : "");

	if (!copy)
		out_die("no memory for a description");
	return copy;
}

static size_t find_space(struct rm *rm, const struct cairn_namespace_desc *desc)
{
	struct space *spaces, *space;
	void *salt;

	for (size_t i = 0; i < rm->space_count; i++)
		if (same_desc(&rm->spaces[i].desc, desc))
			return i;
	spaces = realloc(rm->spaces, (rm->space_count + 1) * sizeof(*spaces));
	salt = calloc(1, desc->salt_length + 1);
	if (!spaces || !salt)
		out_die("no memory for %zu namespaces", rm->space_count + 1);
	rm->spaces = spaces;
	space = &spaces[rm->space_count];
	*space = (struct space){.desc = *desc};
	space->desc.size = sizeof(space->desc);
	space->desc.model = copy_text(desc->model);
	space->desc.revision = copy_text(desc->revision);
	space->desc.dtype = copy_text(desc->dtype);
	space->desc.layout = copy_text(desc->layout);
	space->desc.parallel = copy_text(desc->parallel);
	space->desc.tenant = copy_text(desc->tenant);
	if (desc->salt_length)
		memcpy(salt, desc->salt, desc->salt_length);
	space->desc.salt = salt;
	return rm->space_count++;
}

static void drop(const char *text)
{
	free((void *)(uintptr_t)text);
}

static void rm_fini(struct rm *rm)
{
	for (size_t i = 0; i < rm->space_count; i++) {
		struct cairn_namespace_desc *desc = &rm->spaces[i].desc;

		drop(desc->model);
		drop(desc->revision);
		drop(desc->dtype);
		drop(desc->layout);
		drop(desc->parallel);
		drop(desc->tenant);
		drop(desc->salt);
	}
	free(rm->spaces);
	free(rm->targets);
}

static int note_block(void *context, const struct cairn_listed *block)
{
	struct target wanted = {.key = block->key}, *target;
	struct rm *rm = context;

	target = bsearch(&wanted, rm->targets, rm->target_count, sizeof(wanted), compare);
	if (!target)
		return 0;
	if (block->desc)
		target->space = find_space(rm, block->desc);
	target->stored_bytes += block->stored_bytes;
	return 0;
}

static int remove_targets(struct rm *rm, struct cairn_store *store, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_error error = {0};

	for (size_t i = 0; i < rm->space_count; i++)
		if (cairn_namespace_open(store, &rm->spaces[i].desc, &rm->spaces[i].ns, &error) <
		    0) {
			out_error("rm", "%s", error.text);
			return CLI_CANNOT;
		}
	for (size_t i = 0; i < rm->target_count; i++) {
		struct target *target = &rm->targets[i];
		int rc;

		target->result.status = -ENOENT;
		if (target->space == NONE)
			continue;
		rc = cairn_remove(rm->spaces[target->space].ns, &target->key, 1, &target->result,
				  &opts, NULL);
		if (rc < 0)
			target->result.status = rc;
	}
	for (size_t i = 0; i < rm->space_count; i++)
		cairn_namespace_close(rm->spaces[i].ns);
	return CLI_OK;
}

static int report(const struct rm *rm, bool as_json)
{
	uint64_t removed = 0, absent = 0, failed = 0, bytes = 0;
	char key[CONTENT_KEY_TEXT], size[UNITS_TEXT_MAX];
	json_t *o;

	for (size_t i = 0; i < rm->target_count; i++) {
		const struct target *target = &rm->targets[i];
		int status = target->result.status;

		removed += status == 0;
		absent += status == -ENOENT;
		failed += status < 0 && status != -ENOENT;
		bytes += status == 0 ? target->stored_bytes : 0;
		if (status < 0)
			out_error("rm", "%s: %s", content_key_format(&target->key, key),
				  cairn_strerror(status));
	}
	if (as_json) {
		o = json_object();
		out_json_count(o, "removed", removed);
		out_json_count(o, "absent", absent);
		out_json_count(o, "failed", failed);
		out_json_count(o, "stored_bytes", bytes);
		out_json(o);
	} else {
		printf("removed %llu block%s, %s\n", (unsigned long long)removed,
		       removed == 1 ? "" : "s", units_format_size(bytes, size));
	}
	return absent || failed ? CLI_BAD : CLI_OK;
}

static int remove_from(struct rm *rm, const char *pipeline, const struct option_store *options,
		       uint32_t durability)
{
	struct cairn_store *store = NULL;
	struct cairn_error error = {0};
	int64_t listed;
	int rc;

	rc = cairn_store_open(pipeline, &options->opts, &store, &error);
	if (rc < 0)
		return option_store_error("rm", rc, &error);
	/* we hold the store now: nobody else changes what the list says */
	listed = cairn_list(pipeline, &options->opts, note_block, rm, NULL, &error);
	if (listed < 0) {
		rc = option_store_error("rm", (int)listed, &error);
	} else {
		rc = remove_targets(rm, store, durability);
	}
	if (cairn_store_close(store, 0) < 0) {
		out_error("rm", "the store could not be closed");
		rc = CLI_CANNOT;
	}
	return rc;
}

int cli_rm(int argc, char **argv)
{
	uint32_t durability = CAIRN_WRITTEN;
	struct option_store store;
	struct option_list texts = {0};
	struct rm rm = {0};
	bool as_json = false;
	const struct option_row rows[] = {
		{"durability", OPTION_CHOICE, &durability, "memory|written|durable",
		 "how far each removal must get (default: written)", 0, 0, NULL},
		OPTION_STORE_ROWS(&store, &as_json),
	};
	const struct option_command command = {
		.name = "rm",
		.usage = "PIPELINE KEY... [options]",
		.about = "Removes blocks by their keys, as 'cairn ls' prints them (-: read them "
			 "from "
			 "stdin).\nThe store must not be open in another process.",
		.after = "Examples:\n"
			 "  cairn rm 'posix(path=/tmp/kv)' 0f1e2d3c4b5a69788796a5b4c3d2e1f0\n"
			 "  cairn ls 'posix(path=/tmp/kv)' --keys | cairn rm 'posix(path=/tmp/kv)' "
			 "-\n\n"
			 "Exit status: 0 all were removed, 1 some were absent or failed, 2 usage,\n"
			 "3 the store could not be opened.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rest = &texts,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	const char *pipeline = NULL;
	size_t count;
	int rc;

	option_store_init(&store);
	rc = option_parse(&command, argc, argv, &pipeline, &count);
	if (rc < 0 && !texts.count)
		rc = option_error("rm", "no KEY given");
	if (rc < 0) {
		rc = read_keys(&rm, &texts);
		if (rc == CLI_OK)
			rc = option_store_load("rm", &store);
		if (rc == CLI_OK)
			rc = remove_from(&rm, pipeline, &store, durability);
		if (rc == CLI_OK)
			rc = report(&rm, as_json);
	}
	rm_fini(&rm);
	option_list_fini(&texts);
	return rc;
}
