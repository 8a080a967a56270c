/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a flash store in memory: which blocks are there, and where in the
 * log each shard of them lies. Pure: no I/O, no locks, no clock; the owner
 * serialises calls (the stage holds its mutex for a batch of keys).
 *
 * An entry is named by a fingerprint of 64 bits, not by its key: two keys may
 * share one (the record's head decides on load; a mismatch is a miss).
 *
 * Invariants, numbered:
 *  1. An entry is whole, partial, or a ghost: not there, and kept for what still
 *     names it (children that say it is their parent; pins). Batched lookups find
 *     whole entries only, table_find() whole and partial ones.
 *  2. child_count of an entry counts the whole and partial entries that name it as
 *     parent, whatever order they came in. A ghost that has neither children nor
 *     pins is freed at once.
 *  3. An id is the same as long as the entry is whole or partial, and longer while
 *     it is pinned. Its incarnation changes whenever the entry is removed: whoever
 *     comes back with an id and no pin compares that (table_is()).
 *  4. A shard's place is set once, and changes by table_move() only. A whole entry
 *     has all of its places, a ghost none.
 *  5. Memory is reserved for entries_max and shards_max, and taken as used; the
 *     buckets grow by linear hashing, one at a time: no call is ever long.
 *
 * Memory of a block: 16 + 24 bytes, with 8 bits for its depth, less than 4 for the bucket, and 4
 * more where an entry of its number or above ever had a ttl; of each further shard 9 bytes,
 * arrays rounded up to 4 and packed in chunks of 64 KiB. A geometry (shard count and sizes) is
 * interned; a block of one shard keeps its own size when there is no place for it.
 */
#ifndef STAGES_FLASH_TABLE_H
#define STAGES_FLASH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cairn/store.h>

#define TABLE_NONE	     UINT32_MAX
#define TABLE_COUNT_MAX	     255u	      /* holds, and pins, of one block */
#define TABLE_CHILDREN_MAX   65535u	      /* of one block; more are not recorded */
#define TABLE_LENGTH_MAX     ((1u << 20) - 1) /* units of a record: 512 MiB of 512 */
#define TABLE_NUMBER_MAX     ((1u << 20) - 1) /* records of a region less one */
#define TABLE_GEOMETRIES_MAX 4094u	      /* distinct ones at a time */
#define TABLE_DEPTH_MAX	     255u	      /* deeper ones are not told apart */
/* Address space for places is counted in a u32 of 4 bytes. */
#define TABLE_SHARDS_MAX     (1u << 30)

enum table_state { TABLE_FREE = 0, TABLE_WHOLE = 1, TABLE_PARTIAL = 2, TABLE_GHOST = 3 };

/* What there was no room for: evict, or refuse the dump. */
enum table_answer {
	TABLE_OK = 0,
	TABLE_ENTRIES_FULL,
	TABLE_SHARDS_FULL,
	TABLE_GEOMETRIES_FULL,
	TABLE_OTHER_GEOMETRY, /* the entry is there with another one */
};

struct table_geometry {
	uint32_t shard_count; /* 1 to CAIRN_SHARD_COUNT_MAX */
	uint32_t shard_bytes; /* raw, of each but the last */
	uint32_t last_bytes;  /* raw, of the last; 0: not known yet */
};

/* Where a record lies; units and record numbers are the store's. */
struct table_place {
	uint32_t unit;	 /* its first, from the start of the file */
	uint32_t length; /* units, 1 to TABLE_LENGTH_MAX */
	uint32_t number; /* in its region, up to TABLE_NUMBER_MAX */
};

/* A picture of an entry; changing it changes nothing. */
struct table_block {
	uint64_t fingerprint;
	struct table_geometry geometry;
	uint32_t parent; /* id of its entry, a ghost perhaps; TABLE_NONE */
	uint32_t child_count;
	uint32_t expiry; /* seconds of CLOCK_REALTIME; 0: none */
	uint16_t epoch;	 /* of the last touch; wraps */
	uint16_t incarnation;
	uint8_t state; /* enum table_state; of a ghost only what follows counts */
	uint8_t holds, pins;
	bool orphan; /* its parent, which is shallower, is a ghost: no chain reaches it */
};

struct table;

/*
 * Bytes of address space for @entries_max entries and, over all of them,
 * @shards_max shards beyond the first (TABLE_SHARDS_MAX at most).
 */
size_t table_bytes(uint32_t entries_max, uint64_t shards_max);

/*
 * @memory: table_bytes(), zeroed, page-aligned; stays the caller's. @seed: the
 * store's, fixed at its creation (fingerprints of parents are on disk).
 */
void table_init(void *memory, uint32_t entries_max, uint64_t shards_max, const uint64_t seed[2],
		struct table **ret_table);

/*
 * What table_add() fills from now on, of the room that there is: fewer than @entries_max
 * entries, and no more than @shards_max shards. What is there beyond that stays.
 */
void table_limit(struct table *table, uint32_t entries_max, uint64_t shards_max);

/* Keys of different namespaces and generations have different ones. flash_fingerprint() is it. */
uint64_t table_fingerprint(const struct table *table, const struct cairn_key *key, uint32_t space,
			   uint32_t generation);

/* The whole or partial entry of @fingerprint, expired or not; TABLE_NONE. */
uint32_t table_find(const struct table *table, uint64_t fingerprint);

/*
 * Finds @count keys of one space and generation at once, with the memory fetched
 * ahead: ret_ids[i] is the entry, WHOLE and not expired at @now_s, or TABLE_NONE.
 * With @chain stops at the first that is missing; what follows it in @ret_ids is
 * not set. Returns how many were found.
 */
size_t table_find_batch(const struct table *table, uint32_t space, uint32_t generation,
			const struct cairn_key *keys, size_t count, bool chain, uint32_t now_s,
			uint32_t *ret_ids);

/*
 * Of a table that is empty: about @entries will come, so that buckets need not be
 * split for each. What comes after those grows it as usual.
 */
void table_expect(struct table *table, uint64_t entries);

/*
 * The arrays that are filled from their start: an element of each for each entry that is new.
 */
struct table_array {
	void *base;
	size_t each;
};
#define TABLE_ARRAYS 2u
void table_arrays(const struct table *table, struct table_array ret_arrays[TABLE_ARRAYS]);
/* The buckets that there are, of which all are used at once. */
void table_buckets(const struct table *table, void **ret_base, size_t *ret_bytes);

/*
 * Fetches what table_find() and table_add() of these will read, of all at once.
 * @count is TABLE_FETCH_MAX at most. Changes nothing.
 */
void table_fetch(const struct table *table, const uint64_t *fingerprints, uint32_t count);
#define TABLE_FETCH_MAX 128u

/* @id may be anything below entries_max that was ever given out. */
void table_look(const struct table *table, uint32_t id, struct table_block *ret_block);
/* The state and the geometry alone: what a lookup needs, from one cache line. */
enum table_state table_state(const struct table *table, uint32_t id);
void table_geometry(const struct table *table, uint32_t id, struct table_geometry *ret_geometry);
/* Whether @id is (whole or partial) the entry that had this incarnation. */
bool table_is(const struct table *table, uint32_t id, uint16_t incarnation);
uint16_t table_incarnation(const struct table *table, uint32_t id);
uint16_t table_epoch(const struct table *table, uint32_t id);
/* The parent's id; TABLE_NONE: none, or a ghost, or not shallower. Whole or partial entries. */
uint32_t table_parent(const struct table *table, uint32_t id);

/*
 * Finds or makes the entry of @fingerprint; made, it is partial, has no shard, no
 * parent, no expiry, and @epoch, and *ret_made is true (a ghost that becomes
 * partial counts as made, and keeps its pins). With TABLE_OTHER_GEOMETRY, *ret_id
 * is the entry that has it; a last_bytes of 0, here or there, differs from
 * nothing. Else, but for TABLE_OK, *ret_id is TABLE_NONE and nothing has changed.
 */
enum table_answer table_add(struct table *table, uint64_t fingerprint,
			    const struct table_geometry *geometry, uint16_t epoch, bool *ret_made,
			    uint32_t *ret_id);

/*
 * The same for a block of one shard, which is whole at once; for an open. False: the entry is
 * there, as anything, or cannot be made: nothing has changed.
 */
bool table_add_whole(struct table *table, uint64_t fingerprint,
		     const struct table_geometry *geometry, uint16_t epoch,
		     const struct table_place *place, uint32_t *ret_id);

/* last_bytes becomes known; the same once more is TABLE_OK. Whole or partial entries. */
enum table_answer table_set_last(struct table *table, uint32_t id, uint32_t last_bytes);

/* Shard @shard of a partial entry is there. It must not have had a place. */
void table_place(struct table *table, uint32_t id, uint32_t shard, const struct table_place *place);
/* It is not any more. Partial entries. */
void table_unplace(struct table *table, uint32_t id, uint32_t shard);
/* Whether the shard is there, and where. Whole or partial entries. */
bool table_shard(const struct table *table, uint32_t id, uint32_t shard,
		 struct table_place *ret_place);
/* How many are there. O(shard_count) of a partial entry. */
uint32_t table_shards(const struct table *table, uint32_t id);
/* Units of all that are there. O(shard_count). */
uint64_t table_units(const struct table *table, uint32_t id);
/*
 * The shard's record was copied to @place: takes that, if the shard is there and
 * still at @old_unit. Whole or partial entries.
 */
bool table_move(struct table *table, uint32_t id, uint32_t shard, uint32_t old_unit,
		const struct table_place *place);

/* Whether all shards are there and last_bytes is known. Whole or partial entries. */
bool table_complete(const struct table *table, uint32_t id);
/* Partial -> whole: it is complete. */
void table_publish(struct table *table, uint32_t id);

/*
 * Whole or partial entries. True: the epoch was another one, *ret_before, and the
 * owner moves the bytes of its shards in their regions' histograms, then touches
 * the parent in the same way, and so on until one has that epoch: then no parent is
 * colder than its child, and leaves go first.
 */
bool table_touch(struct table *table, uint32_t id, uint16_t epoch, uint16_t *ret_before);

/* 0: never. Whole or partial entries. */
void table_set_expiry(struct table *table, uint32_t id, uint32_t expiry_s);

/* How many blocks come before it in its prefix; 0, or a second time: nothing changes. */
void table_set_depth(struct table *table, uint32_t id, uint32_t depth);
/*
 * Whether @parent may be the parent of a whole or partial entry: it is not the entry itself,
 * nor known to be as deep or deeper.
 */
bool table_may_continue(const struct table *table, uint32_t id, uint64_t parent);

/*
 * Tells an entry its parent (of the same space and generation, by fingerprint); a
 * parent that is not there gets a ghost. The first one told stays; a second is
 * ignored, as is one that table_may_continue() refuses, or whose chain of parents leads
 * back to it within 64 steps. False: no entry free for the ghost, or the parent has
 * TABLE_CHILDREN_MAX: then it has no parent.
 */
bool table_set_parent(struct table *table, uint32_t id, uint64_t parent);

/*
 * Counts of holds (of lookups) and pins (of reads and writes under way) stop at
 * TABLE_COUNT_MAX and are exact below: false means not counted, so the caller
 * takes the block for absent (hold) or waits (pin), and never gives it back.
 * Holds are of whole or partial entries and vanish with them: table_unhold() of
 * another incarnation is ignored. A pin keeps the id until it is given back, even
 * if the entry is removed meanwhile.
 */
bool table_hold(struct table *table, uint32_t id);
void table_unhold(struct table *table, uint32_t id, uint16_t incarnation);
bool table_pin(struct table *table, uint32_t id);
void table_unpin(struct table *table, uint32_t id);

/*
 * Takes a whole or partial entry out, whatever its holds and pins: its shards'
 * places and its expiry go, it names no parent any more, its incarnation changes.
 */
void table_remove(struct table *table, uint32_t id);

/*
 * The whole or partial entry with the lowest id of at least @from; TABLE_NONE: no
 * more. Entries may be removed, added and changed between calls.
 */
uint32_t table_next(const struct table *table, uint32_t from);
/* Ids are below it: table_look() takes them all. */
uint32_t table_end(const struct table *table);

struct table_figures {
	uint32_t whole, partial, ghost, entries_max;
	uint32_t geometries;
	uint64_t shards;       /* beyond the first, of whole and partial entries */
	uint64_t memory_bytes; /* touched: entries, buckets, places, geometries */
};
void table_figures(const struct table *table, struct table_figures *ret_figures);

/* Checks every invariant; false with a line in @why (may be NULL). O(n): tests and fsck. */
bool table_check(const struct table *table, char *why, size_t why_bytes);

#endif
