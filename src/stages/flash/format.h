/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes that the flash tier keeps: docs/format.md describes each. Pure: no
 * I/O, no allocation, any thread. Decoders take hostile bytes: they return a
 * verdict and never read beyond what they are given.
 *
 * Invariants, numbered:
 *  1. Where everything lies follows from the file's size, the region's and the
 *     unit (struct flash_layout): the superblock repeats it, and so does the
 *     header of every region, from which a lost superblock can be made again.
 *  2. Every byte of a struct is covered by a CRC, or is one.
 *  3. What lies in a region (records, table, trailer) and its marks begin their
 *     CRCs with a salt of the store's identity and of the region's use, so that
 *     nothing of another store, or of an earlier use, is ever taken for sound;
 *     and a record and a trailer say where they lie.
 *  4. 1 <= stored_length <= raw_length <= shard_bytes for every record.
 */
#ifndef FLASH_FORMAT_H
#define FLASH_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cairn/stage.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are written as they lie");

#define FLASH_FORMAT	       1u /* the version, of every struct */
#define FLASH_PAGE	       4096u
#define FLASH_UNIT_MIN	       512u
#define FLASH_UNIT_MAX	       4096u
#define FLASH_COPIES	       2u /* of superblock, namespace area, mark pages: in turn */
#define FLASH_REGION_ALIGN     65536u
#define FLASH_REGION_BYTES_MIN 65536u
#define FLASH_REGION_BYTES_MAX (1u << 30) /* numbers and lengths in units fit 24 bits */
#define FLASH_REGIONS_MIN      6u	  /* two open, two free, one being reclaimed, one full */
#define FLASH_SPACE_BYTES_MIN  65536u	  /* of a copy of the namespace area */
#define FLASH_SPACE_BYTES_MAX  (4u << 20)
#define FLASH_SPACES_MAX       65536u

enum flash_verdict {
	FLASH_OK = 0,
	FLASH_DAMAGED, /* magic, CRC, or fields that contradict each other or the place */
	FLASH_VERSION, /* sound, of a version or with flags that this library does not know */
};

/* ---- where everything lies --------------------------------------------------- */

/*
 * Positions in the log are counted in units from the start of the file: they
 * and lengths in units are u32 throughout.
 */
struct flash_layout {
	uint64_t file_bytes;
	uint64_t space_offset; /* of the first copy of the namespace area */
	uint64_t marks_offset;
	uint64_t regions_offset;
	uint32_t space_bytes; /* of each copy */
	uint32_t unit;	      /* bytes: 1 << unit_log2 */
	uint32_t unit_log2;
	uint32_t first_unit; /* of region 0 */
	uint32_t region_bytes;
	uint32_t region_count;
	uint32_t region_units;
	uint32_t records_max; /* of a region: numbers are below it */
	uint32_t mark_pages;  /* of a region, each in two copies */
	uint32_t stored_max;  /* stored bytes of the largest record that fits a region */
};

enum flash_layout_verdict {
	FLASH_LAYOUT_OK = 0,
	FLASH_LAYOUT_UNIT,   /* neither 512 nor 4096 */
	FLASH_LAYOUT_REGION, /* out of bounds, or not a multiple of FLASH_REGION_ALIGN */
	FLASH_LAYOUT_SMALL,  /* not FLASH_REGIONS_MIN regions */
	FLASH_LAYOUT_LARGE,  /* more units than u32 counts: a larger unit is needed */
};

/* What is left behind the last whole region is not used. */
enum flash_layout_verdict flash_layout_init(struct flash_layout *layout, uint64_t file_bytes,
					    uint64_t region_bytes, uint32_t unit);

/* Bytes of the file: */
uint64_t flash_super_at(uint32_t copy);
uint64_t flash_space_at(const struct flash_layout *layout, uint32_t copy);
uint64_t flash_marks_at(const struct flash_layout *layout, uint32_t region, uint32_t page,
			uint32_t copy);
uint64_t flash_region_at(const struct flash_layout *layout, uint32_t region);

static inline uint64_t flash_round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

static inline uint64_t flash_byte_of(const struct flash_layout *layout, uint32_t unit)
{
	return (uint64_t)unit << layout->unit_log2;
}

/* Units that @bytes take. */
static inline uint32_t flash_units(const struct flash_layout *layout, uint64_t bytes)
{
	return (uint32_t)((bytes + layout->unit - 1) >> layout->unit_log2);
}

/* Units of a region: its header, the first record's place, and its trailer. */
uint32_t flash_region_unit(const struct flash_layout *layout, uint32_t region);
uint32_t flash_first_unit(const struct flash_layout *layout, uint32_t region);
uint32_t flash_trailer_unit(const struct flash_layout *layout, uint32_t region);
/* Where the table of @record_count records begins: it ends at the trailer. */
uint32_t flash_table_unit(const struct flash_layout *layout, uint32_t region,
			  uint32_t record_count);
/* The region that @unit lies in; region_count: none. */
uint32_t flash_region_of(const struct flash_layout *layout, uint32_t unit);

/* CRCs that cover @stored_length bytes. */
static inline uint32_t flash_pieces(uint64_t stored_length)
{
	return (uint32_t)((stored_length + CAIRN_PIECE - 1) / CAIRN_PIECE);
}

/* Of a record of @stored_length bytes: head with its CRCs, and all of it. */
uint32_t flash_head_units(const struct flash_layout *layout, uint32_t stored_length);
uint32_t flash_record_units(const struct flash_layout *layout, uint32_t stored_length);
/* The most stored bytes that a record of @units holds; 0: none. */
uint32_t flash_stored_of_units(const struct flash_layout *layout, uint32_t units);
/* Whether one of @units fits at @unit of @region, as its @number-th, and the table behind it. */
bool flash_fits(const struct flash_layout *layout, uint32_t region, uint32_t unit, uint32_t units,
		uint32_t number);

/* ---- identity ------------------------------------------------------------------- */

/* Random, fixed when the store is made. */
struct flash_id {
	uint8_t uuid[16];
	uint64_t seed[2]; /* of fingerprints; never shown */
};
_Static_assert(sizeof(struct flash_id) == 32, "format");

/* Invariant 3. */
uint32_t flash_salt(const struct flash_id *id, uint64_t region_seq);

/* Of a block, as table_fingerprint() with the same seed, by which it is found; never 0. */
uint64_t flash_fingerprint(const struct cairn_key *key, uint32_t space, uint32_t generation,
			   const uint64_t seed[2]);

/* ---- the superblock: two copies, at 0 and FLASH_PAGE -------------------------------- */

#define FLASH_SUPER_MAGIC     "CAIRNFLS"
#define FLASH_SUPER_CLEAN     0x1u
#define FLASH_SUPER_OVER      0x2u /* the index may be over its bound: an open needs more room */
#define FLASH_SUPER_UNASKED   0x4u /* nothing was ever to be durable: little is flushed */
#define FLASH_SUPER_FLAGS_ALL 0x7u

struct flash_super {
	char magic[8];
	uint32_t version, flags;
	struct flash_id id;
	uint64_t counter; /* of writes: the higher of the sound copies counts; copy = counter % 2 */
	uint64_t file_bytes;
	uint64_t space_offset, marks_offset, regions_offset; /* as the layout says */
	uint64_t created_ns;				     /* CLOCK_REALTIME */
	uint64_t sequence;   /* no submission has taken this one or a later one */
	uint64_t region_seq; /* no use of a region has taken this one or a later one */
	uint32_t unit, region_bytes, region_count, space_bytes, mark_pages;
	uint32_t epoch;
	uint32_t owner_pid;		     /* 0: closed */
	uint32_t retired_count, retired_crc; /* of the list behind */
	uint32_t zero_before;
	uint64_t unsure_seq; /* uses up to this one may lack records that the power took */
	uint8_t zero[92];
	uint32_t crc; /* of the bytes before */
};
_Static_assert(sizeof(struct flash_super) == 256, "format");
_Static_assert(offsetof(struct flash_super, unsure_seq) == 152, "format");
_Static_assert(offsetof(struct flash_super, crc) == 252, "format");

/* Regions that take no records any more, ascending; those beyond are known until close. */
#define FLASH_RETIRED_MAX ((FLASH_PAGE - sizeof(struct flash_super)) / sizeof(uint32_t))

struct flash_super_page {
	struct flash_super super;
	uint32_t retired[FLASH_RETIRED_MAX];
};
_Static_assert(sizeof(struct flash_super_page) == FLASH_PAGE, "format");

/* Whether what was written last may lack what was written before it: a power cut may have been. */
static inline bool flash_super_unsure(const struct flash_super *super)
{
	return (super->flags & (FLASH_SUPER_UNASKED | FLASH_SUPER_CLEAN)) == FLASH_SUPER_UNASKED;
}

/* All zero but the identity, the layout, @created_ns. */
void flash_super_init(struct flash_super *super, const struct flash_id *id,
		      const struct flash_layout *layout, uint64_t created_ns);
void flash_super_seal(struct flash_super *super);
/* With the list of super.retired_count; what is behind it is made zero. */
void flash_super_page_seal(struct flash_super_page *page);
/* @ret_layout (may be NULL): on FLASH_OK. */
enum flash_verdict flash_super_decode(const struct flash_super *super,
				      struct flash_layout *ret_layout);
enum flash_verdict flash_super_page_decode(const struct flash_super_page *page,
					   struct flash_layout *ret_layout);

/* ---- the namespace area: two copies, each written whole ------------------------------ */

#define FLASH_SPACE_MAGIC "CAIRNFNS"

struct flash_space_head {
	char magic[8];
	uint32_t version, count;
	uint8_t uuid[16];
	uint64_t counter; /* as the superblock's, and copy = counter % 2 */
	uint32_t bytes;	  /* of head and entries */
	uint8_t zero[16];
	uint32_t crc; /* of the bytes before, then of the entries */
};
_Static_assert(sizeof(struct flash_space_head) == 64, "format");
_Static_assert(offsetof(struct flash_space_head, crc) == 60, "format");

/* Followed by the description, and zeros up to a multiple of 8. Ids ascend. */
struct flash_space_entry {
	uint32_t id, generation;
	uint32_t desc_length;
	uint32_t shard_count; /* 0: variable */
	uint64_t shard_bytes;
	uint64_t zero;
};
_Static_assert(sizeof(struct flash_space_entry) == 32, "format");

/*
 * Makes an area at @area, 8-aligned, of at most @area_bytes: begin, add in
 * ascending order of ids, seal. add() returns false and adds nothing where there
 * is no room. seal() fills up with zeros to a multiple of FLASH_PAGE and returns
 * the bytes to be written.
 */
void flash_space_begin(void *area, const struct flash_id *id, uint64_t counter);
bool flash_space_add(void *area, size_t area_bytes, const struct flash_space_entry *entry,
		     const void *desc);
uint32_t flash_space_seal(void *area);
/* Bytes that one more entry takes. */
uint32_t flash_space_entry_bytes(uint32_t desc_length);

/*
 * Checks the head alone, so that the rest can be read: on FLASH_OK @ret_bytes
 * (head and entries) is at least 64 and at most @area_bytes.
 */
enum flash_verdict flash_space_peek(const void *area, size_t bytes, uint32_t area_bytes,
				    const struct flash_id *id, uint32_t *ret_bytes);
/* Head and entries, of which there are @bytes or fewer. */
enum flash_verdict flash_space_decode(const void *area, size_t bytes, const struct flash_id *id);
/*
 * The entries of an area that flash_space_decode() passed, one by one: begin
 * with *at = 0. False: there is none any more. @ret_desc points into the area.
 */
bool flash_space_next(const void *area, uint32_t *at, struct flash_space_entry *ret_entry,
		      const void **ret_desc);

/* ---- marks: a byte for each record of a region ----------------------------------------- */

#define FLASH_MARKS_MAGIC    "CAIRNFMK"
#define FLASH_MARKS_PER_PAGE 4032u
#define FLASH_MARK_NONE	     0u	  /* as it was written */
#define FLASH_MARK_EPOCHS    253u /* 1 + epoch % 253: used then, last */
#define FLASH_MARK_DEAD	     255u

struct flash_marks {
	char magic[8];
	uint32_t version, region;
	uint64_t region_seq; /* another one: of an earlier use, and as good as none */
	uint64_t counter;    /* as the superblock's, and copy = counter % 2 */
	uint32_t page;
	uint8_t zero[24];
	uint32_t crc; /* salt; of all other bytes */
	uint8_t marks[FLASH_MARKS_PER_PAGE];
};
_Static_assert(sizeof(struct flash_marks) == FLASH_PAGE, "format");
_Static_assert(offsetof(struct flash_marks, crc) == 60, "format");

static inline uint8_t flash_mark_of(uint32_t epoch)
{
	return (uint8_t)(1 + epoch % FLASH_MARK_EPOCHS);
}

/* region, region_seq, counter, page and marks are the caller's. */
void flash_marks_seal(struct flash_marks *marks, uint32_t salt);
enum flash_verdict flash_marks_decode(const struct flash_marks *marks, uint32_t salt,
				      uint32_t region, uint64_t region_seq, uint32_t page);

/* ---- regions ------------------------------------------------------------------------------ */

#define FLASH_REGION_MAGIC "CAIRNFRG"

/* The first unit of a region, with zeros behind. Complete enough to make a superblock from. */
struct flash_region_head {
	char magic[8];
	uint32_t version, flags; /* flags: zero */
	struct flash_id id;
	uint64_t seq; /* of the region's use: never used twice in the store */
	uint64_t file_bytes;
	uint64_t store_created_ns;
	uint64_t created_ns; /* of this use: CLOCK_REALTIME */
	uint32_t unit, region_bytes;
	uint32_t region;
	uint32_t stream; /* 0: fresh dumps, 1: carried records */
	uint32_t epoch;
	uint8_t zero[152];
	uint32_t crc; /* of the bytes before */
};
_Static_assert(sizeof(struct flash_region_head) == 256, "format");
_Static_assert(offsetof(struct flash_region_head, crc) == 252, "format");

#define FLASH_STREAMS 2u

/* All of it, from the superblock; then sealed. */
void flash_region_head_init(struct flash_region_head *head, const struct flash_super *super,
			    uint32_t region, uint64_t seq, uint32_t stream, uint32_t epoch,
			    uint64_t created_ns);
/* That it is the sound header of @region of this store. */
enum flash_verdict flash_region_head_decode(const struct flash_region_head *head,
					    const struct flash_id *id,
					    const struct flash_layout *layout, uint32_t region);
/* That it is sound, of any store and place: what --repair looks for. @ret_layout may be NULL. */
enum flash_verdict flash_region_head_found(const struct flash_region_head *head,
					   struct flash_layout *ret_layout);

#define FLASH_TRAILER_MAGIC "CAIRNFTR"

/* The last unit of a region once it is sealed, with zeros behind; the table ends at it. */
struct flash_trailer {
	char magic[8];
	uint32_t version, region;
	uint64_t seq; /* the header's, else it is of an earlier use */
	uint32_t record_count;
	uint32_t table_bytes; /* record_count * 64 */
	uint32_t table_crc;   /* salt; of the table */
	uint32_t records_end; /* unit behind the last record */
	uint32_t epoch;	      /* when it was sealed */
	uint32_t zero32;
	uint64_t sealed_ns;    /* CLOCK_REALTIME */
	uint64_t sequence_max; /* of its records */
	uint8_t zero[60];
	uint32_t crc; /* salt; of the bytes before */
};
_Static_assert(sizeof(struct flash_trailer) == 128, "format");
_Static_assert(offsetof(struct flash_trailer, crc) == 124, "format");

/* A record, by its number in the region. All zero: a number that no record has. */
struct flash_table_entry {
	struct cairn_key key;
	uint64_t parent; /* its fingerprint; 0: none */
	uint64_t birth;
	uint32_t unit;
	uint32_t stored_length, raw_length, shard_bytes;
	uint16_t shard, shard_count;
	uint32_t space, generation;
	uint32_t expiry_s; /* CLOCK_REALTIME; 0: never */
};
_Static_assert(sizeof(struct flash_table_entry) == 64, "format");

/* region, seq, record_count, records_end, epoch, sealed_ns, sequence_max are the caller's. */
void flash_trailer_seal(struct flash_trailer *trailer, const struct flash_table_entry *table,
			uint32_t salt);
/* Of @region in its use @seq: FLASH_DAMAGED is also what an unsealed region gives. */
enum flash_verdict flash_trailer_decode(const struct flash_trailer *trailer,
					const struct flash_layout *layout, uint32_t salt,
					uint32_t region, uint64_t seq);
/* @bytes at @table are at least what the decoded @trailer says; each entry is checked too. */
enum flash_verdict flash_table_check(const struct flash_trailer *trailer, const void *table,
				     size_t bytes, const struct flash_layout *layout,
				     uint32_t salt);
bool flash_entry_is_hole(const struct flash_table_entry *entry);
/* That what it says is possible in @region. A hole is not. */
bool flash_entry_check(const struct flash_table_entry *entry, const struct flash_layout *layout,
		       uint32_t region);

/* ---- records: one shard each ------------------------------------------------------------- */

#define FLASH_RECORD_MAGIC     "CAIRNFRC"
#define FLASH_RECORD_ATTR      0x1u /* attributes were told */
#define FLASH_RECORD_CHAIN     0x2u /* the parent was told by the order of a task's keys */
#define FLASH_RECORD_CARRIED   0x4u /* written again by a reclaim */
#define FLASH_RECORD_FLAGS_ALL 0x7u

/*
 * Followed by one CRC32C for each CAIRN_PIECE of the stored bytes and zeros up
 * to the next unit; there the payload begins, with zeros up to the next unit.
 */
struct flash_record {
	char magic[8];
	uint32_t version, flags;
	struct cairn_key key;
	uint32_t space, generation;
	uint64_t region_seq;
	uint64_t birth;	   /* of the block's entry, and of all its shards: later than any before */
	uint64_t sequence; /* of the dump that wrote this shard */
	uint32_t unit;	   /* where it lies */
	uint32_t number;   /* in its region: entry of the table, place in the marks */
	uint16_t shard, shard_count;
	uint32_t shard_bytes; /* raw, of every shard but the last */
	uint32_t raw_length, stored_length;
	uint32_t expiry_s; /* CLOCK_REALTIME; 0: never */
	uint32_t meta_length;
	uint32_t depth, priority;
	struct cairn_key parent; /* all zero: none */
	uint64_t ttl_ns, cost_ns;
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint8_t meta[CAIRN_META_MAX];
	uint8_t zero[44];
	uint32_t crc; /* salt; of the bytes before, then of those behind up to the payload */
};
_Static_assert(sizeof(struct flash_record) == 256, "format");
_Static_assert(offsetof(struct flash_record, crc) == 252, "format");

/* Bytes that flash_record_decode() needs at most: head and CRCs of the largest record. */
#define FLASH_HEAD_BYTES_MAX                                                                       \
	(sizeof(struct flash_record) +                                                             \
	 (CAIRN_SHARD_BYTES_MAX + CAIRN_PIECE - 1) / CAIRN_PIECE * sizeof(uint32_t))

/*
 * Seals a head whose fields and CRCs are filled in: @head, 4-aligned, is all
 * flash_head_units(stored_length) units of it. Sets magic, version, the zeros
 * of the struct and behind the CRCs, and the CRC.
 */
void flash_record_seal(void *head, const struct flash_layout *layout, uint32_t salt);
/*
 * A head that was read at @unit, of the region's use @region_seq. Fewer @bytes
 * than the head has are FLASH_DAMAGED. @ret_record may be NULL; nothing is
 * asked of @head's alignment.
 */
enum flash_verdict flash_record_decode(const void *head, size_t bytes,
				       const struct flash_layout *layout, uint32_t salt,
				       uint64_t region_seq, uint32_t unit,
				       struct flash_record *ret_record);
/* The CRC of piece @piece of a head in memory. */
uint32_t flash_piece_crc(const void *head, uint32_t piece);
void flash_entry_of(const struct flash_record *record, const struct flash_id *id,
		    struct flash_table_entry *ret_entry);

#endif
