/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile bytes to everything that decodes what the posix tier keeps. The first
 * byte says what it is, and whether its checksums are made right first, so that
 * the checks behind them are reached.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "stages/posix/format.h"
#include "stages/posix/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                                                 \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

enum what { WHAT_BLOCK, WHAT_SUPER, WHAT_SPACE, WHAT_SNAPSHOT, WHAT_NAME, WHAT_DESC, WHAT_COUNT };

static void seal_block(uint8_t *data, size_t size)
{
	struct block_head *head = (void *)data;
	struct geometry geo;

	if (size < sizeof(*head))
		return;
	head_seal(head);
	if (head_decode(head, &geo) != HEAD_OK || size < geo.head_bytes)
		return;
	for (uint32_t i = 0; i < geo.shard_count; i++)
		entry_seal((void *)(data + geometry_entry_at(&geo, i)), &head->id,
			   (const void *)(data + geometry_table_at(&geo, i)), &geo);
}

static void try_block(uint8_t *data, size_t size, bool seal)
{
	struct block_head head;
	struct geometry geo;

	if (seal)
		seal_block(data, size);
	if (head_check_all(data, size, NULL, &geo) != HEAD_OK)
		return;
	memcpy(&head, data, sizeof(head));
	REQUIRE(geo.shard_count >= 1 && geo.shard_count <= CAIRN_SHARD_COUNT_MAX);
	REQUIRE(geo.head_bytes <= size && geo.head_bytes % FORMAT_PAGE == 0);
	REQUIRE(geometry_table_at(&geo, geo.shard_count) <= geo.head_bytes);
	for (uint32_t i = 0; i < geo.shard_count; i++) {
		const struct block_entry *entry = (void *)(data + geometry_entry_at(&geo, i));

		REQUIRE(entry->stored_length <= entry->raw_length);
		REQUIRE(entry->raw_length <= geo.shard_bytes);
		REQUIRE(pieces_of(entry->stored_length) <= geo.pieces);
		REQUIRE(entry->offset + entry->stored_length <= geometry_file_bytes(&geo));
	}
	REQUIRE(head_check_all(data, size, &head.id, NULL) == HEAD_OK);
}

static void try_small(uint8_t *data, size_t size, enum what what, bool seal)
{
	struct super_block super;
	struct snapshot_head snapshot;

	if (what == WHAT_SUPER && size >= sizeof(super)) {
		memcpy(&super, data, sizeof(super));
		if (seal)
			super_seal(&super);
		REQUIRE(super_decode(&super) != HEAD_OK || super.dirs_log2 <= DIRS_LOG2_MAX);
	}
	if (what == WHAT_SNAPSHOT && size >= sizeof(snapshot)) {
		memcpy(&snapshot, data, sizeof(snapshot));
		if (seal)
			snapshot_seal(&snapshot);
		REQUIRE(snapshot_decode(&snapshot) != HEAD_OK ||
			snapshot.dir_count <= 1u << DIRS_LOG2_MAX);
	}
	if (what == WHAT_SPACE) {
		struct space_head *head = (void *)data;

		if (seal && size >= sizeof(*head)) {
			head->desc_length = (uint32_t)(size - sizeof(*head));
			space_seal(head, data + sizeof(*head));
		}
		space_decode(data, size, size >= sizeof(*head) ? head->id : 0);
	}
}

static void try_name(const uint8_t *data, size_t size)
{
	char name[128] = {0}, again[NAME_MAX_BYTES];
	struct block_id id;
	enum name_kind kind;
	uint32_t a, b;

	memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
	kind = name_parse_block(name, &id);
	if (kind == NAME_BLOCK)
		name_block(&id, 12, again);
	if (kind == NAME_PART)
		name_part(&id, 12, again);
	REQUIRE((kind != NAME_BLOCK && kind != NAME_PART) ||
		strcmp(again + NAME_DIR_LENGTH + 1, name) == 0);
	kind = name_parse_space(name, &a, &b);
	if (kind == NAME_SPACE)
		name_space(a, again);
	if (kind == NAME_GENERATION)
		name_generation(a, b, again);
	REQUIRE((kind != NAME_SPACE && kind != NAME_GENERATION) || strcmp(again, name) == 0);
	name_parse_dir(name, 12, &a);
}

static void try_desc(const uint8_t *data, size_t size)
{
	struct cairn_namespace_desc desc;
	char *arena = malloc(size + 16);

	REQUIRE(arena);
	if (desc_decode(data, size, arena, size + 16, &desc))
		REQUIRE(strlen(desc.model) <= CAIRN_NAME_MAX && desc.salt_length <= CAIRN_NAME_MAX);
	free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum what what;
	uint8_t *copy;
	bool seal;

	if (!size)
		return 0;
	what = (enum what)((data[0] & 0x7f) % WHAT_COUNT);
	seal = data[0] & 0x80;
	copy = malloc(size);
	REQUIRE(copy);
	memcpy(copy, data + 1, size - 1);
	if (what == WHAT_BLOCK)
		try_block(copy, size - 1, seal);
	else if (what == WHAT_NAME)
		try_name(copy, size - 1);
	else if (what == WHAT_DESC)
		try_desc(copy, size - 1);
	else
		try_small(copy, size - 1, what, seal);
	free(copy);
	return 0;
}
