/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block index of a tier that this machine owns: what is there, in which
 * order it may go, and what must stay. Pure: no I/O, no locks; the owner
 * serialises calls (tiers hold their mutex for a batch of keys).
 *
 * Invariants, numbered:
 *  1. An entry is whole, partial, or a ghost (a parent that is not in the tier
 *     but has children in it). Lookups find whole entries only.
 *  2. child_count of an entry counts the whole and partial entries that name it
 *     as parent, whatever order they came in. A ghost whose count falls to 0 is
 *     freed at once.
 *  3. A victim is a whole entry with no child, no pin and no hold.
 *  4. The order is by stamp (the sequence of the task that touched it last);
 *     among equal stamps a parent stays longer than its children: a touch puts
 *     an entry at the hot end of its stamp, or right behind its parent when
 *     that has the same stamp. A stamp older than the INDEX_RUNS latest ones
 *     counts as the oldest of these, so that a place is found in O(1).
 *  5. Memory is reserved at open for entries_max and taken as used; the table
 *     grows by linear hashing, one bucket at a time: no call is ever long.
 */
#ifndef BASE_INDEX_H
#define BASE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cairn/store.h>

#define INDEX_NONE UINT32_MAX
#define INDEX_RUNS 128 /* distinct stamps that may come in any order */

/* Keys of different namespaces and generations are different entries. */
struct index_key {
	struct cairn_key key;
	uint32_t space; /* the tier's namespace id */
	uint32_t generation;
};

enum index_state { INDEX_FREE = 0, INDEX_WHOLE = 1, INDEX_PARTIAL = 2, INDEX_GHOST = 3 };

/*
 * What a lookup reads stands in the first 32 bytes, and entries are aligned to
 * 32: a lookup takes one cache line of each.
 */
struct index_entry {
	struct index_key key;
	uint32_t hash_next;   /* the index's own */
	uint16_t shard_count; /* the tier's own, as all below that says no more */
	uint8_t state;	      /* enum index_state */
	uint8_t flags;
	uint32_t older, newer; /* the index's own */
	uint32_t parent;       /* entry of the parent, whole, partial or ghost, or INDEX_NONE */
	uint32_t child_count;
	uint16_t pins;	/* reads and writes under way; the tier counts */
	uint16_t holds; /* cairn holds; the tier counts */
	uint32_t tier;	/* a slot, a pointer's index */
	uint64_t stamp;
	uint64_t sequence;		  /* of the dump */
	uint32_t shard_bytes, last_bytes; /* raw */
	uint64_t charge;		  /* bytes of the tier's budget */
	uint32_t depth;			  /* in its prefix, as it was told; 0: not told */
} __attribute__((aligned(32)));

struct index;

/* Bytes of address space that an index for @entries_max needs. */
size_t index_bytes(uint32_t entries_max);

/* @memory: index_bytes(), zeroed, page-aligned; stays the caller's. Seeded against crafted keys. */
void index_init(void *memory, uint32_t entries_max, uint64_t seed, struct index **ret_index);

/*
 * Where huge pages save lookups the walks of page tables: the two arrays beyond
 * their first INDEX_SMALL_BYTES or a little more. A small index takes small
 * pages, a large one at most INDEX_HUGE_BYTES more an array than it uses.
 */
#define INDEX_HUGE_BYTES  (2u << 20)
#define INDEX_SMALL_BYTES (2u << 20)
#define INDEX_RANGES	  2

struct index_range {
	void *start;  /* aligned to INDEX_HUGE_BYTES */
	size_t bytes; /* 0: none */
};
void index_huge_ranges(const struct index *index, struct index_range ret_ranges[INDEX_RANGES]);

struct index_entry *index_at(struct index *index, uint32_t entry); /* asserts it is in use */
uint32_t index_id(const struct index *index, const struct index_entry *entry);

/* The whole, partial or ghost entry of @key, or NULL. */
struct index_entry *index_find(struct index *index, const struct index_key *key);

/*
 * Finds @count keys of one space and generation at once, with the memory
 * fetched ahead: @ret_entries[i] is the WHOLE entry or NULL. With @chain stops
 * at the first that is missing (and looks at few at first: not with @more, for
 * a chain of which much was found already). Returns how many were looked at and
 * found.
 */
size_t index_find_batch(struct index *index, uint32_t space, uint32_t generation,
			const struct cairn_key *keys, size_t count, bool chain, bool more,
			struct index_entry **ret_entries);

/*
 * Finds or makes the entry of @key; made, it is partial, with a pin of 0, and
 * *ret_made is true; a ghost becomes partial too, and counts as made. NULL:
 * entries_max are in use; evict first.
 */
struct index_entry *index_add(struct index *index, const struct index_key *key, bool *ret_made);

/*
 * Tells an entry its parent (of the same space and generation), making a ghost
 * for one that is not there. The first one told stays; a second is ignored, as
 * is one that is not shallower than the entry (where its depth was told), the
 * entry itself, or one whose chain of parents leads back to it within 64 steps.
 * False: no entry free for the ghost; then it has no parent.
 */
bool index_set_parent(struct index *index, struct index_entry *entry,
		      const struct cairn_key *parent);

/* Partial -> whole; takes its place in the order by @stamp. */
void index_publish(struct index *index, struct index_entry *entry, uint64_t stamp);

/* Whole entries only: used by the task of sequence @stamp. Older stamps change nothing. */
void index_touch(struct index *index, struct index_entry *entry, uint64_t stamp);

/*
 * Takes an entry out (whole or partial). It turns into a ghost while it has
 * children, else it is freed with what hangs on it (invariant 2). Pins must be
 * 0, or the tier keeps what pinned it elsewhere: nothing may touch @entry after.
 */
void index_remove(struct index *index, struct index_entry *entry);

/*
 * The next victim (invariant 3), or NULL: all held, pinned, or none. Amortised
 * O(1) when there is one. It is the coldest as long as no more than 64 colder
 * entries cannot go; beyond that, one of these that could go meanwhile may have
 * to wait for some calls. Only looks: to have another one, remove or touch it.
 */
struct index_entry *index_victim(struct index *index);

/*
 * Walks whole entries from the coldest: NULL starts. For writing the order out;
 * no call that changes the order may come between.
 */
struct index_entry *index_next(struct index *index, struct index_entry *entry);

struct index_figures {
	uint32_t whole, partial, ghost, entries_max;
	uint64_t memory_bytes; /* touched, with all of index_huge_ranges() on huge pages */
};
void index_figures(const struct index *index, struct index_figures *ret_figures);

/* Checks every invariant; false with a line in @why (may be NULL). O(n): tests and fsck. */
bool index_check(const struct index *index, char *why, size_t why_bytes);

#endif
