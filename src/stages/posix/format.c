/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/posix/format.h"

#include <string.h>

#include "base/attr.h"
#include "base/crc32c.h"

/* ---- helpers ------------------------------------------------------------ */

bool zeros(const void *data, size_t bytes)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < bytes; i++)
		if (p[i])
			return false;
	return true;
}

bool key_is_zero(const struct cairn_key *key)
{
	return zeros(key, sizeof(*key));
}

/* ---- geometry ------------------------------------------------------------- */

bool geometry_init(struct geometry *geo, uint64_t shard_count, uint64_t shard_bytes,
		   uint64_t last_bytes)
{
	uint64_t head;

	if (shard_count < 1 || shard_count > CAIRN_SHARD_COUNT_MAX)
		return false;
	if (shard_bytes < 1 || shard_bytes > CAIRN_SHARD_BYTES_MAX || last_bytes > shard_bytes)
		return false;
	geo->shard_count = (uint32_t)shard_count;
	geo->shard_bytes = shard_bytes;
	geo->last_bytes = last_bytes;
	geo->pieces = pieces_of(shard_bytes);
	head = sizeof(struct block_head) + shard_count * sizeof(struct block_entry) +
	       shard_count * geo->pieces * sizeof(uint32_t);
	geo->head_bytes = (uint32_t)round_up(head, FORMAT_PAGE);
	geo->slot_bytes = round_up(shard_bytes, FORMAT_PAGE);
	return true;
}

bool geometry_same(const struct geometry *a, const struct geometry *b)
{
	return a->shard_count == b->shard_count && a->shard_bytes == b->shard_bytes &&
	       a->last_bytes == b->last_bytes;
}

uint64_t geometry_raw(const struct geometry *geo, uint32_t shard)
{
	return shard + 1 == geo->shard_count && geo->last_bytes ? geo->last_bytes
								: geo->shard_bytes;
}

uint64_t geometry_offset(const struct geometry *geo, uint32_t shard)
{
	return geo->head_bytes + shard * geo->slot_bytes;
}

uint32_t geometry_entry_at(const struct geometry *geo, uint32_t shard)
{
	(void)geo;
	return (uint32_t)(sizeof(struct block_head) + shard * sizeof(struct block_entry));
}

uint32_t geometry_table_at(const struct geometry *geo, uint32_t shard)
{
	return geometry_entry_at(geo, geo->shard_count) +
	       shard * geo->pieces * (uint32_t)sizeof(uint32_t);
}

uint64_t geometry_file_bytes(const struct geometry *geo)
{
	return geometry_offset(geo, geo->shard_count - 1) +
	       round_up(geometry_raw(geo, geo->shard_count - 1), FORMAT_PAGE);
}

/* ---- block heads ------------------------------------------------------------ */

void head_init(struct block_head *head, const struct block_id *id, const struct geometry *geo,
	       uint64_t sequence, const struct cairn_block_attr *attr, bool chain)
{
	memset(head, 0, sizeof(*head));
	memcpy(head->magic, BLOCK_MAGIC, sizeof(head->magic));
	head->version = FORMAT_VERSION;
	head->id = *id;
	head->sequence = sequence;
	head->shard_count = geo->shard_count;
	head->head_bytes = geo->head_bytes;
	head->shard_bytes = geo->shard_bytes;
	head->last_bytes = geo->last_bytes;
	head->pieces = geo->pieces;
	if (!attr || !attr_told(attr))
		return;
	head->flags |= BLOCK_ATTR | (chain ? BLOCK_CHAIN : 0u);
	head->parent = attr->parent;
	head->depth = attr->depth;
	head->priority = attr->priority;
	head->ttl_ns = attr->ttl_ns;
	head->cost_ns = attr->cost_ns;
}

void head_attr(const struct block_head *head, struct cairn_block_attr *ret_attr)
{
	memset(ret_attr, 0, sizeof(*ret_attr));
	ret_attr->size = sizeof(*ret_attr);
	if (!(head->flags & BLOCK_ATTR))
		return;
	ret_attr->parent = head->parent;
	ret_attr->depth = head->depth;
	ret_attr->priority = head->priority;
	ret_attr->ttl_ns = head->ttl_ns;
	ret_attr->cost_ns = head->cost_ns;
}

void head_seal(struct block_head *head)
{
	head->crc = crc32c(0, head, offsetof(struct block_head, crc));
}

enum head_verdict head_decode(const struct block_head *head, struct geometry *ret_geo)
{
	struct geometry geo;

	if (memcmp(head->magic, BLOCK_MAGIC, sizeof(head->magic)) != 0)
		return HEAD_DAMAGED;
	if (head->crc != crc32c(0, head, offsetof(struct block_head, crc)))
		return HEAD_DAMAGED;
	if (head->version != FORMAT_VERSION || (head->flags & ~BLOCK_FLAGS_ALL))
		return HEAD_VERSION;
	if (!zeros(head->zero, sizeof(head->zero)))
		return HEAD_VERSION;
	if (!geometry_init(&geo, head->shard_count, head->shard_bytes, head->last_bytes))
		return HEAD_DAMAGED;
	if (!head->last_bytes != !!(head->flags & BLOCK_PART))
		return HEAD_DAMAGED;
	if (head->head_bytes != geo.head_bytes || head->pieces != geo.pieces)
		return HEAD_DAMAGED;
	if (ret_geo)
		*ret_geo = geo;
	return HEAD_OK;
}

static uint32_t entry_crc(const struct block_entry *entry, const struct block_id *id)
{
	uint32_t crc = crc32c(0, id, sizeof(*id));

	return crc32c(crc, entry, offsetof(struct block_entry, crc));
}

static uint32_t table_crc(const struct block_id *id, const uint32_t *table,
			  const struct geometry *geo)
{
	uint32_t crc = crc32c(0, id, sizeof(*id));

	return crc32c(crc, table, geo->pieces * sizeof(*table));
}

void entry_seal(struct block_entry *entry, const struct block_id *id, const uint32_t *table,
		const struct geometry *geo)
{
	entry->table_crc = table_crc(id, table, geo);
	entry->crc = entry_crc(entry, id);
}

bool entry_check(const struct block_entry *entry, const struct block_id *id, uint32_t shard,
		 const struct geometry *geo, const uint32_t *table)
{
	if (entry->crc != entry_crc(entry, id))
		return false;
	if (entry->flags != ENTRY_PRESENT || entry->shard != shard)
		return false;
	if (entry->offset != geometry_offset(geo, shard))
		return false;
	if (shard + 1 < geo->shard_count || geo->last_bytes) {
		if (entry->raw_length != geometry_raw(geo, shard))
			return false;
	} else if (entry->raw_length > geo->shard_bytes) {
		return false;
	}
	if (!entry->raw_length || !entry->stored_length ||
	    entry->stored_length > entry->raw_length || entry->meta_length > CAIRN_META_MAX)
		return false;
	if (!zeros(entry->zero, sizeof(entry->zero)))
		return false;
	return !table || entry->table_crc == table_crc(id, table, geo);
}

/* Entries and tables of a head that is whole in memory. */
static bool shards_check(const uint8_t *data, const struct block_head *head,
			 const struct geometry *geo)
{
	bool raw = true;

	for (uint32_t shard = 0; shard < geo->shard_count; shard++) {
		struct block_entry entry;
		/* A table lies 4-aligned in a head that does. */
		const uint32_t *table = (const void *)(data + geometry_table_at(geo, shard));
		uint32_t used;

		memcpy(&entry, data + geometry_entry_at(geo, shard), sizeof(entry));
		if (!entry_check(&entry, &head->id, shard, geo, table))
			return false;
		used = pieces_of(entry.stored_length);
		if (!zeros(table + used, (geo->pieces - used) * sizeof(*table)))
			return false;
		raw = raw && entry.stored_length == entry.raw_length;
	}
	return raw == !!(head->flags & BLOCK_RAW);
}

enum head_verdict head_check_all(const void *data, size_t bytes, const struct block_id *want,
				 struct geometry *ret_geo)
{
	struct block_head head;
	struct geometry geo;
	enum head_verdict verdict;
	uint32_t end;

	if (bytes < sizeof(head))
		return HEAD_DAMAGED;
	memcpy(&head, data, sizeof(head));
	verdict = head_decode(&head, &geo);
	if (verdict != HEAD_OK)
		return verdict;
	if (bytes < geo.head_bytes || (head.flags & BLOCK_PART))
		return HEAD_DAMAGED;
	if (want && memcmp(want, &head.id, sizeof(*want)) != 0)
		return HEAD_DAMAGED;
	if (!shards_check(data, &head, &geo))
		return HEAD_DAMAGED;
	end = geometry_table_at(&geo, geo.shard_count);
	if (!zeros((const uint8_t *)data + end, geo.head_bytes - end))
		return HEAD_DAMAGED;
	if (ret_geo)
		*ret_geo = geo;
	return HEAD_OK;
}

/* ---- superblock ------------------------------------------------------------- */

void super_seal(struct super_block *super)
{
	memcpy(super->magic, SUPER_MAGIC, sizeof(super->magic));
	super->version = FORMAT_VERSION;
	super->crc = crc32c(0, super, offsetof(struct super_block, crc));
}

enum head_verdict super_decode(const struct super_block *super)
{
	if (memcmp(super->magic, SUPER_MAGIC, sizeof(super->magic)) != 0)
		return HEAD_DAMAGED;
	if (super->crc != crc32c(0, super, offsetof(struct super_block, crc)))
		return HEAD_DAMAGED;
	if (super->version != FORMAT_VERSION || (super->flags & ~(SUPER_CLEAN | SUPER_SHARED)))
		return HEAD_VERSION;
	if (!zeros(super->zero, sizeof(super->zero)))
		return HEAD_VERSION;
	return super->dirs_log2 <= DIRS_LOG2_MAX ? HEAD_OK : HEAD_DAMAGED;
}

/* ---- namespaces -------------------------------------------------------------- */

void space_seal(struct space_head *head, const void *desc)
{
	memcpy(head->magic, SPACE_MAGIC, sizeof(head->magic));
	head->version = FORMAT_VERSION;
	head->desc_crc = crc32c(0, desc, head->desc_length);
	head->crc = crc32c(0, head, offsetof(struct space_head, crc));
}

enum head_verdict space_decode(const void *data, size_t bytes, uint32_t id)
{
	struct space_head head;

	if (bytes < sizeof(head))
		return HEAD_DAMAGED;
	memcpy(&head, data, sizeof(head));
	if (memcmp(head.magic, SPACE_MAGIC, sizeof(head.magic)) != 0)
		return HEAD_DAMAGED;
	if (head.crc != crc32c(0, &head, offsetof(struct space_head, crc)))
		return HEAD_DAMAGED;
	if (head.version != FORMAT_VERSION || head.zero32 || !zeros(head.zero, sizeof(head.zero)))
		return HEAD_VERSION;
	if (head.id != id || head.desc_length > SPACE_DESC_BYTES_MAX ||
	    bytes != sizeof(head) + head.desc_length)
		return HEAD_DAMAGED;
	if (head.desc_crc != crc32c(0, (const uint8_t *)data + sizeof(head), head.desc_length))
		return HEAD_DAMAGED;
	return HEAD_OK;
}

/* What is left to decode, and where the texts go. */
struct desc_cursor {
	const uint8_t *at;
	size_t left;
	char *arena;
	size_t arena_left;
};

static bool desc_fixed(struct desc_cursor *cursor, void *ret_value, size_t bytes)
{
	if (cursor->left < bytes)
		return false;
	memcpy(ret_value, cursor->at, bytes);
	cursor->at += bytes;
	cursor->left -= bytes;
	return true;
}

static bool desc_text(struct desc_cursor *cursor, const char **ret_text, size_t *ret_length)
{
	uint64_t length;

	if (!desc_fixed(cursor, &length, sizeof(length)))
		return false;
	if (length > CAIRN_NAME_MAX || length > cursor->left || length + 1 > cursor->arena_left)
		return false;
	memcpy(cursor->arena, cursor->at, length);
	cursor->arena[length] = '\0';
	*ret_text = cursor->arena;
	if (ret_length)
		*ret_length = length;
	cursor->arena += length + 1;
	cursor->arena_left -= length + 1;
	cursor->at += length;
	cursor->left -= length;
	return true;
}

bool desc_decode(const void *desc, size_t desc_length, char *arena, size_t arena_bytes,
		 struct cairn_namespace_desc *ret_desc)
{
	static const char tag[] = "cairn ns 1";
	struct desc_cursor cursor = {desc, desc_length, arena, arena_bytes};
	char found[sizeof(tag)];
	const char *salt;

	memset(ret_desc, 0, sizeof(*ret_desc));
	ret_desc->size = sizeof(*ret_desc);
	if (!desc_fixed(&cursor, found, sizeof(found)) || memcmp(found, tag, sizeof(tag)) != 0)
		return false;
	if (!desc_text(&cursor, &ret_desc->model, NULL) ||
	    !desc_text(&cursor, &ret_desc->revision, NULL) ||
	    !desc_text(&cursor, &ret_desc->dtype, NULL) ||
	    !desc_text(&cursor, &ret_desc->layout, NULL) ||
	    !desc_text(&cursor, &ret_desc->parallel, NULL) ||
	    !desc_text(&cursor, &ret_desc->tenant, NULL) ||
	    !desc_text(&cursor, &salt, &ret_desc->salt_length))
		return false;
	ret_desc->salt = salt;
	return desc_fixed(&cursor, &ret_desc->rank, 4) &&
	       desc_fixed(&cursor, &ret_desc->world, 4) &&
	       desc_fixed(&cursor, &ret_desc->format_version, 4) &&
	       desc_fixed(&cursor, &ret_desc->shard_count, 4) &&
	       desc_fixed(&cursor, &ret_desc->shard_bytes, 8) && cursor.left == 0;
}

/* ---- snapshot ------------------------------------------------------------------ */

void snapshot_seal(struct snapshot_head *head)
{
	memcpy(head->magic, SNAPSHOT_MAGIC, sizeof(head->magic));
	head->version = FORMAT_VERSION;
	head->entry_bytes = sizeof(struct snapshot_entry);
	head->dir_bytes = sizeof(struct snapshot_dir);
	head->crc = crc32c(0, head, offsetof(struct snapshot_head, crc));
}

enum head_verdict snapshot_decode(const struct snapshot_head *head)
{
	if (memcmp(head->magic, SNAPSHOT_MAGIC, sizeof(head->magic)) != 0)
		return HEAD_DAMAGED;
	if (head->crc != crc32c(0, head, offsetof(struct snapshot_head, crc)))
		return HEAD_DAMAGED;
	if (head->version != FORMAT_VERSION || head->entry_bytes != sizeof(struct snapshot_entry) ||
	    head->dir_bytes != sizeof(struct snapshot_dir))
		return HEAD_VERSION;
	if (!zeros(head->zero, sizeof(head->zero)))
		return HEAD_VERSION;
	return head->dir_count <= 1u << DIRS_LOG2_MAX ? HEAD_OK : HEAD_DAMAGED;
}

bool snapshot_entry_check(const struct snapshot_entry *entry)
{
	struct geometry geo;

	return entry->last_bytes && !(entry->flags & ~SNAPSHOT_RAW) &&
	       geometry_init(&geo, entry->shard_count, entry->shard_bytes, entry->last_bytes);
}
