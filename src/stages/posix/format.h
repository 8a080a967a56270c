/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes that the posix tier keeps: docs/format.md describes each. Pure: no
 * I/O, no allocation, any thread. Decoders take hostile bytes: they return
 * false and never read beyond what they are given.
 *
 * Invariants of a block file, numbered:
 *  1. Where everything lies follows from the geometry alone (struct geometry).
 *  2. Every byte of the head is covered by a CRC, or checked to be zero.
 *  3. The CRCs of entries and tables are seeded with the block's identity, so
 *     that a part of another block's head never fits.
 *  4. stored_length <= raw_length for every shard.
 */
#ifndef POSIX_FORMAT_H
#define POSIX_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cairn/stage.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are written as they lie");

#define FORMAT_VERSION 1u
#define FORMAT_PAGE    4096u

/* ---- geometry --------------------------------------------------------- */

struct geometry {
	uint32_t shard_count;
	uint64_t shard_bytes; /* raw, of every shard but the last */
	uint64_t last_bytes;  /* raw, of the last; 0: not known yet */
	/* What follows from these. */
	uint32_t pieces;     /* CRCs in a shard's table */
	uint32_t head_bytes; /* a multiple of FORMAT_PAGE */
	uint64_t slot_bytes; /* from shard to shard, a multiple of FORMAT_PAGE */
};

/* False: out of the bounds of store.h. @last_bytes may be 0 (not known). */
bool geometry_init(struct geometry *geo, uint64_t shard_count, uint64_t shard_bytes,
		   uint64_t last_bytes);
bool geometry_same(const struct geometry *a, const struct geometry *b);
uint64_t geometry_raw(const struct geometry *geo, uint32_t shard);
uint64_t geometry_offset(const struct geometry *geo, uint32_t shard);
uint32_t geometry_entry_at(const struct geometry *geo, uint32_t shard);
uint32_t geometry_table_at(const struct geometry *geo, uint32_t shard);
/* Bytes of a file whose shards are all stored raw. */
uint64_t geometry_file_bytes(const struct geometry *geo);

static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/* ---- block files ------------------------------------------------------- */

struct block_id {
	struct cairn_key key;
	uint32_t space;
	uint32_t generation;
};

#define BLOCK_MAGIC	"CAIRNBLK"
#define BLOCK_RAW	0x1u /* every shard is stored as long as it is raw */
#define BLOCK_PART	0x2u /* the head of a shared partial: last_bytes is not said */
#define BLOCK_ATTR	0x4u /* attributes were told */
#define BLOCK_CHAIN	0x8u /* the parent was told by the order of a task's keys */
#define BLOCK_FLAGS_ALL 0xfu

struct block_head {
	char magic[8];
	uint32_t version, flags;
	struct block_id id;
	uint64_t sequence;
	uint32_t shard_count, head_bytes;
	uint64_t shard_bytes, last_bytes;
	uint32_t pieces;
	uint32_t priority;
	struct cairn_key parent;
	uint64_t ttl_ns, cost_ns;
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint32_t depth;
	uint8_t zero[128];
	uint32_t crc; /* of the bytes before */
};
_Static_assert(sizeof(struct block_head) == 256, "format");

#define ENTRY_PRESENT 0x1u

struct block_entry {
	uint32_t flags, shard;
	uint64_t offset, raw_length, stored_length;
	uint32_t table_crc; /* of the shard's whole table */
	uint32_t meta_length;
	uint8_t meta[CAIRN_META_MAX];
	uint8_t zero[20];
	uint32_t crc; /* of the identity, then of the bytes before */
};
_Static_assert(sizeof(struct block_entry) == 128, "format");

/* Fills everything but the CRC from @id, @geo, @sequence, @attr (NULL or all zero: none). */
void head_init(struct block_head *head, const struct block_id *id, const struct geometry *geo,
	       uint64_t sequence, const struct cairn_block_attr *attr, bool chain);
void head_seal(struct block_head *head);
/* All zero but size: none were told. */
void head_attr(const struct block_head *head, struct cairn_block_attr *ret_attr);

enum head_verdict {
	HEAD_OK = 0,
	HEAD_DAMAGED, /* magic, CRC, or fields that contradict each other */
	HEAD_VERSION, /* sound, of a version or with flags that this library does not know */
};

/* On HEAD_OK @ret_geo (may be NULL) is what the head says. */
enum head_verdict head_decode(const struct block_head *head, struct geometry *ret_geo);

/* @table: geo->pieces CRCs, those beyond the stored length zero. */
void entry_seal(struct block_entry *entry, const struct block_id *id, const uint32_t *table,
		const struct geometry *geo);

/*
 * Whether @entry is the sound and present entry of @shard, and, where @table is
 * not NULL, its table the one that belongs to it.
 */
bool entry_check(const struct block_entry *entry, const struct block_id *id, uint32_t shard,
		 const struct geometry *geo, const uint32_t *table);

/* CRCs that cover @stored_length bytes. */
static inline uint32_t pieces_of(uint64_t stored_length)
{
	return (uint32_t)((stored_length + CAIRN_PIECE - 1) / CAIRN_PIECE);
}

/*
 * Checks a whole head, entries, tables and the zeros behind them. @bytes at
 * @data must be at least what the head says. @want: NULL, or the identity.
 */
enum head_verdict head_check_all(const void *data, size_t bytes, const struct block_id *want,
				 struct geometry *ret_geo);

/* ---- the superblock: two copies in `store` -------------------------------- */

#define SUPER_MAGIC  "CAIRNSTR"
#define SUPER_CLEAN  0x1u
#define SUPER_SHARED 0x2u /* last opened with shared=yes */
#define SUPER_COPIES 2u

struct super_block {
	char magic[8];
	uint32_t version, flags;
	uint8_t uuid[16];
	uint64_t counter;     /* of writes: the higher of the sound copies counts */
	uint64_t sequence;    /* no submission has taken this one or a later one */
	uint64_t snapshot_id; /* of the index snapshot that may be trusted */
	uint64_t created_ns;
	uint32_t dirs_log2; /* block directories: 1 << dirs_log2 */
	uint32_t owner_pid;
	uint8_t zero[180];
	uint32_t crc;
};
_Static_assert(sizeof(struct super_block) == 256, "format");

#define DIRS_LOG2_MAX 12u

void super_seal(struct super_block *super);
/* HEAD_VERSION as above. */
enum head_verdict super_decode(const struct super_block *super);

/* ---- namespaces: ns/<id> ---------------------------------------------------- */

#define SPACE_MAGIC	     "CAIRNNSP"
#define SPACE_DESC_BYTES_MAX 16384u

struct space_head {
	char magic[8];
	uint32_t version, id;
	uint32_t desc_length, desc_crc;
	uint32_t shard_count, zero32;
	uint64_t shard_bytes;
	uint8_t zero[20];
	uint32_t crc;
};
_Static_assert(sizeof(struct space_head) == 64, "format");

void space_seal(struct space_head *head, const void *desc);
/* @bytes: of the whole file, description included. */
enum head_verdict space_decode(const void *data, size_t bytes, uint32_t id);

/*
 * Takes the canonical encoding of a description apart. Texts point into
 * @arena (@arena_bytes of at least desc_length + 16), NUL-terminated. False:
 * not such an encoding.
 */
bool desc_decode(const void *desc, size_t desc_length, char *arena, size_t arena_bytes,
		 struct cairn_namespace_desc *ret_desc);

/* ---- the index snapshot: index --------------------------------------------- */

#define SNAPSHOT_MAGIC "CAIRNIDX"

struct snapshot_head {
	char magic[8];
	uint32_t version, entry_bytes;
	uint64_t snapshot_id, entry_count;
	uint32_t dir_count, dir_bytes;
	uint8_t uuid[16];
	uint8_t zero[64];
	uint32_t body_crc; /* of all behind the head */
	uint32_t crc;
};
_Static_assert(sizeof(struct snapshot_head) == 128, "format");

struct snapshot_dir {
	uint64_t exists;
	uint64_t mtime_ns; /* when it differs, the directory is read */
	uint64_t charge;
};
_Static_assert(sizeof(struct snapshot_dir) == 24, "format");

#define SNAPSHOT_RAW 0x1u

struct snapshot_entry {
	struct block_id id;
	struct cairn_key parent; /* all zero: none */
	uint64_t sequence, charge;
	uint32_t shard_bytes, last_bytes;
	uint16_t shard_count, flags;
	uint32_t depth; /* 0: not told */
};
_Static_assert(sizeof(struct snapshot_entry) == 72, "format");

void snapshot_seal(struct snapshot_head *head);
enum head_verdict snapshot_decode(const struct snapshot_head *head);
bool snapshot_entry_check(const struct snapshot_entry *entry);

bool zeros(const void *data, size_t bytes);
bool key_is_zero(const struct cairn_key *key);

#endif
