/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a pipeline's caches, as cairn_inspect() tells of it: of all their processes. */
#ifndef CLI_MEMORY_H
#define CLI_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "options.h"

#define CLASSES_MAX  256u /* sizes of slots that are told of; the rest is in the sum */
#define MEMORIES_MAX 2u

struct class_seen {
	uint64_t slot_bytes, chunks, slots, used, used_bytes;
};

struct memory_seen {
	char stage[64];
	uint64_t bytes, used_bytes, dirty_bytes, blocks, clients, pins, chunk_bytes, chunks_backed,
		chunks_free;
	struct class_seen classes[CLASSES_MAX];
	uint32_t class_count;
};

struct memories {
	struct memory_seen at[MEMORIES_MAX];
	uint32_t count;
};

/* Those that are there: none is no failure. An exit status. */
int memories_read(const char *pipeline, const struct option_store *store,
		  struct memories *ret_memories);

/* Has a process one of them open? */
bool memories_open(const struct memories *memories);

/* An object of one for each. The caller's. */
json_t *memories_json(const struct memories *memories);

/* A line for each, and one for each size of its slots. */
void memories_print(const struct memories *memories);

#endif
