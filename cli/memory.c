/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "cli.h"
#include "memory.h"
#include "out.h"

static void see_memory(struct memory_seen *memory, const struct cairn_detail *detail)
{
	const struct {
		const char *name;
		uint64_t *value;
	} figures[] = {
		{"bytes", &memory->bytes},
		{"used_bytes", &memory->used_bytes},
		{"dirty_bytes", &memory->dirty_bytes},
		{"blocks", &memory->blocks},
		{"clients", &memory->clients},
		{"pins", &memory->pins},
		{"chunk_bytes", &memory->chunk_bytes},
		{"chunks_free", &memory->chunks_free},
		{"chunks_backed", &memory->chunks_backed},
	};

	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
		if (strcmp(detail->name, figures[i].name) == 0)
			*figures[i].value = detail->value;
}

static void see_class(struct memory_seen *memory, const struct cairn_detail *detail)
{
	struct class_seen *class =
		&memory->classes[memory->class_count ? memory->class_count - 1 : 0];

	if (memory->class_count == 0 || class->slot_bytes != detail->number) {
		if (memory->class_count == CLASSES_MAX)
			return;
		class = &memory->classes[memory->class_count++];
		*class = (struct class_seen){.slot_bytes = detail->number};
	}
	if (strcmp(detail->name, "chunks") == 0)
		class->chunks = detail->value;
	else if (strcmp(detail->name, "slots") == 0)
		class->slots = detail->value;
	else if (strcmp(detail->name, "slots_used") == 0)
		class->used = detail->value;
	else if (strcmp(detail->name, "used_bytes") == 0)
		class->used_bytes = detail->value;
}

static int see_detail(void *context, const struct cairn_detail *detail)
{
	struct memories *memories = context;
	struct memory_seen *memory = &memories->at[memories->count ? memories->count - 1 : 0];

	if (memories->count == 0 || strcmp(memory->stage, detail->stage) != 0) {
		if (memories->count == MEMORIES_MAX)
			return 0;
		memory = &memories->at[memories->count++];
		memset(memory, 0, sizeof(*memory));
		snprintf(memory->stage, sizeof(memory->stage), "%s", detail->stage);
	}
	if (strcmp(detail->item, "memory") == 0)
		see_memory(memory, detail);
	else if (strcmp(detail->item, "class") == 0)
		see_class(memory, detail);
	return 0;
}

/* There may be none, or none yet, or not a whole one. */
static bool only_silent(int rc)
{
	return rc == -ENOENT || rc == -EOPNOTSUPP || rc == -EPROTO || rc == -EBADMSG;
}

int memories_read(const char *pipeline, const struct option_store *store,
		  struct memories *ret_memories)
{
	struct cairn_error error = {0};
	int rc;

	ret_memories->count = 0;
	rc = cairn_inspect(pipeline, &store->opts, CAIRN_INSPECT_MEMORY, see_detail, ret_memories,
			   &error);
	return rc < 0 && !only_silent(rc) ? option_store_error("stat", rc, &error) : CLI_OK;
}

bool memories_open(const struct memories *memories)
{
	for (uint32_t i = 0; i < memories->count; i++)
		if (memories->at[i].clients > 0)
			return true;
	return false;
}

static json_t *json_of(const struct memory_seen *memory)
{
	json_t *o = json_object(), *classes = json_array();

	out_json_count(o, "bytes", memory->bytes);
	out_json_count(o, "used_bytes", memory->used_bytes);
	out_json_count(o, "dirty_bytes", memory->dirty_bytes);
	out_json_count(o, "blocks", memory->blocks);
	out_json_count(o, "clients", memory->clients);
	out_json_count(o, "pins", memory->pins);
	out_json_count(o, "chunk_bytes", memory->chunk_bytes);
	out_json_count(o, "chunks_backed", memory->chunks_backed);
	out_json_count(o, "chunks_free", memory->chunks_free);
	for (uint32_t i = 0; i < memory->class_count; i++) {
		const struct class_seen *class = &memory->classes[i];
		json_t *one = json_object();

		out_json_count(one, "slot_bytes", class->slot_bytes);
		out_json_count(one, "chunks", class->chunks);
		out_json_count(one, "slots", class->slots);
		out_json_count(one, "slots_used", class->used);
		out_json_count(one, "used_bytes", class->used_bytes);
		if (json_array_append_new(classes, one))
			out_die("no memory for the JSON result");
	}
	out_json_set(o, "classes", classes);
	return o;
}

json_t *memories_json(const struct memories *memories)
{
	json_t *o = json_object();

	for (uint32_t i = 0; i < memories->count; i++)
		out_json_set(o, memories->at[i].stage, json_of(&memories->at[i]));
	return o;
}

static void print_one(const struct memory_seen *memory)
{
	char used[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX], slot[UNITS_TEXT_MAX];
	char dirty[UNITS_TEXT_MAX];

	printf("\n%s: %s of %s, %llu blocks, %s not yet below; %llu processes, %llu pins; chunks "
	       "of %s: %llu "
	       "there, %llu without a class\n",
	       memory->stage, units_format_size(memory->used_bytes, used),
	       units_format_size(memory->bytes, size), (unsigned long long)memory->blocks,
	       units_format_size(memory->dirty_bytes, dirty), (unsigned long long)memory->clients,
	       (unsigned long long)memory->pins, units_format_size(memory->chunk_bytes, slot),
	       (unsigned long long)memory->chunks_backed, (unsigned long long)memory->chunks_free);
	if (memory->class_count)
		printf("%12s %9s %12s %12s %12s\n", "slots of", "chunks", "slots", "used", "bytes");
	for (uint32_t i = 0; i < memory->class_count; i++) {
		const struct class_seen *class = &memory->classes[i];

		printf("%12s %9llu %12llu %12llu %12s\n",
		       units_format_size(class->slot_bytes, slot),
		       (unsigned long long)class->chunks, (unsigned long long)class->slots,
		       (unsigned long long)class->used, units_format_size(class->used_bytes, used));
	}
}

void memories_print(const struct memories *memories)
{
	for (uint32_t i = 0; i < memories->count; i++)
		print_one(&memories->at[i]);
}
