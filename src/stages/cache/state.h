/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of the shared memory that change, and the only atomics on them.
 *
 * Orders, each with its pair; docs/format.md has them word by word:
 *  - pin_set() with evict's change of an entry to EVICTING or DEAD (both sequentially
 *    consistent, each followed by a look at the other's word): of a reader that pins
 *    and a reclaimer that looks for pins one sees the other.
 *  - word_cas() that puts an entry into a bucket, with that of another inserter of the
 *    same key: each looks at the bucket after, so one sees the other.
 *  - word_cas() of a slot's word with that of its chunk's state: likewise.
 *  - word_cas() or word_put() that makes a shard or an entry visible (release) with
 *    word_get() of who finds it (acquire): lengths, keys and payload are seen whole.
 *  - pin_clear() (release) with word_get() of a reclaimer that finds the record
 *    empty (acquire): the reader's reads are over before the memory is used again.
 *  - half_add() of a client's `flights` and word_cas() of an entry in flight, before a look
 *    at the namespace's generation, with half_add() of the generation before a look at
 *    `flights` and the entries: of who writes below and who clears one sees the other.
 *  - word_hint(), word_note(): relaxed; nothing is decided by them.
 */
#ifndef STAGES_CACHE_STATE_H
#define STAGES_CACHE_STATE_H

#include "stages/cache/layout.h"

static inline uint64_t word_get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint64_t word_get_ordered(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline void word_put(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline bool word_cas(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_ACQUIRE);
}

static inline uint64_t word_swap(uint64_t *word, uint64_t to)
{
	return __atomic_exchange_n(word, to, __ATOMIC_ACQ_REL);
}

static inline uint64_t word_add(uint64_t *word, uint64_t n)
{
	return __atomic_fetch_add(word, n, __ATOMIC_RELAXED);
}

static inline uint64_t word_hint(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void word_note(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline uint32_t half_get(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint32_t half_get_ordered(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline void half_put(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint32_t half_hint(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void half_note(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline uint32_t half_add(uint32_t *word, uint32_t n)
{
	return __atomic_fetch_add(word, n, __ATOMIC_SEQ_CST);
}

/* Raised to @value at least. Ordered: a pin record beyond it is looked at by nobody. */
static inline void half_raise(uint32_t *word, uint32_t value)
{
	uint32_t now = half_get(word);

	while (now < value && !__atomic_compare_exchange_n(word, &now, value, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		;
}

static inline uint16_t short_hint(const uint16_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void short_note(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void flags_raise(uint16_t *flags, uint16_t bits)
{
	__atomic_fetch_or(flags, bits, __ATOMIC_RELAXED);
}

static inline uint8_t byte_hint(const uint8_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void byte_note(uint8_t *word, uint8_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void pin_set(uint64_t *record, uint64_t link)
{
	__atomic_store_n(record, link, __ATOMIC_SEQ_CST);
}

static inline void pin_clear(uint64_t *record)
{
	__atomic_store_n(record, 0, __ATOMIC_RELEASE);
}

/*
 * ---- links: an entry in one of its lives -------------------------------------
 *
 * life << 32 | entry + 1. Once the entry lives another life the link is of nothing.
 */

static inline uint64_t link_of(uint32_t entry, uint32_t life)
{
	return (uint64_t)life << 32 | ((uint64_t)entry + 1);
}

static inline uint32_t link_entry(uint64_t link)
{
	return (uint32_t)link - 1;
}

static inline uint32_t link_life(uint64_t link)
{
	return (uint32_t)(link >> 32);
}

/*
 * ---- an entry's state ---------------------------------------------------------
 *
 * life << 32 | flips << 15 | owner << 5 | kind << 3 | phase. `flips` counts changes
 * within a life, so that no two states of one life are the same word. `owner` is the
 * client that must bring the entry on, + 1, in CLAIMED, EVICTING and DEAD; of a LIVE one
 * that is DIRTY the client that writes it below just now, or 0.
 */

enum entry_phase {
	PHASE_FREE = 0,
	PHASE_CLAIMED = 1, /* being put into its bucket; found by nobody else */
	PHASE_LIVE = 2,
	PHASE_EVICTING = 3, /* live, until its owner has seen that nobody pins it */
	PHASE_GONE = 4,	    /* removed; its memory stays while somebody pins it */
	PHASE_DEAD = 5,	    /* its owner takes it apart */
};

enum entry_kind {
	KIND_HIDDEN = 0, /* a dump under way: found by dumps alone */
	KIND_PART = 1,	 /* shards of a block that is whole below */
	KIND_WHOLE = 2,
	KIND_DIRTY = 3, /* whole, and not below yet: it neither goes nor is removed in flight */
};

static inline uint32_t state_life(uint64_t state)
{
	return (uint32_t)(state >> 32);
}

static inline enum entry_phase state_phase(uint64_t state)
{
	return (enum entry_phase)(state & 7);
}

static inline enum entry_kind state_kind(uint64_t state)
{
	return (enum entry_kind)(state >> 3 & 3);
}

static inline uint32_t state_owner(uint64_t state) /* client + 1 */
{
	return (uint32_t)(state >> 5 & 1023);
}

/* The next state of the same life. */
static inline uint64_t state_next(uint64_t state, enum entry_phase phase, enum entry_kind kind,
				  uint32_t owner)
{
	uint64_t flips = ((state >> 15) + 1) & 0x1ffff;

	return (state & ~UINT64_C(0xffffffff)) | flips << 15 | (uint64_t)owner << 5 |
	       (uint64_t)kind << 3 | phase;
}

/* Free, in the next life. */
static inline uint64_t state_freed(uint64_t state)
{
	return (uint64_t)(uint32_t)(state_life(state) + 1) << 32;
}

static inline bool state_lives(uint64_t state)
{
	return state_phase(state) == PHASE_LIVE || state_phase(state) == PHASE_EVICTING;
}

/* All shards are there. */
static inline bool state_whole(uint64_t state)
{
	return state_kind(state) >= KIND_WHOLE;
}

static inline bool state_dirty(uint64_t state)
{
	return state_phase(state) == PHASE_LIVE && state_kind(state) == KIND_DIRTY;
}

/* Somebody writes it below: it stays as it is until that has ended. */
static inline bool state_flying(uint64_t state)
{
	return state_dirty(state) && state_owner(state) != 0;
}

/* May eviction take it? */
static inline bool state_may_go(uint64_t state)
{
	return state_phase(state) == PHASE_LIVE && state_kind(state) != KIND_DIRTY;
}

/*
 * ---- a shard's word -------------------------------------------------------------
 *
 * changes << 54 | meta length << 47 | owner << 37 | slot << 2 | state, slot being
 * chunk << 15 | index in the chunk.
 */

enum shard_state { SHARD_ABSENT = 0, SHARD_FILLING = 1, SHARD_THERE = 2 };

static inline enum shard_state shard_state(uint64_t word)
{
	return (enum shard_state)(word & 3);
}

static inline uint64_t shard_slot(uint64_t word)
{
	return word >> 2 & ((UINT64_C(1) << 35) - 1);
}

static inline uint32_t shard_owner(uint64_t word) /* client + 1 */
{
	return (uint32_t)(word >> 37 & 1023);
}

static inline uint32_t shard_meta(uint64_t word)
{
	return (uint32_t)(word >> 47 & 127);
}

static inline uint64_t shard_next(uint64_t word, enum shard_state state, uint64_t slot,
				  uint32_t owner, uint32_t meta)
{
	return ((word >> 54) + 1) << 54 | (uint64_t)meta << 47 | (uint64_t)owner << 37 | slot << 2 |
	       state;
}

static inline uint64_t slot_of(uint32_t chunk, uint32_t index)
{
	return (uint64_t)chunk << 15 | index;
}

static inline uint32_t slot_chunk(uint64_t slot)
{
	return (uint32_t)(slot >> 15);
}

static inline uint32_t slot_index(uint64_t slot)
{
	return (uint32_t)(slot & 0x7fff);
}

/*
 * ---- a slot's word ---------------------------------------------------------------
 *
 * 0: free. RESERVED: owner << 2 | 1, by who fills it. LINKED: life << 34 |
 * (entry + 1) << 2 | 2, of the entry that has it: 30 bits of its life.
 */

#define SLOT_RESERVED 1u
#define SLOT_LINKED   2u

static inline uint64_t slot_reserved(uint32_t owner)
{
	return (uint64_t)owner << 2 | SLOT_RESERVED;
}

static inline uint64_t slot_linked(uint32_t entry, uint32_t life)
{
	return (uint64_t)(life & 0x3fffffff) << 34 | ((uint64_t)entry + 1) << 2 | SLOT_LINKED;
}

static inline uint32_t slot_entry(uint64_t word)
{
	return (uint32_t)(word >> 2) - 1;
}

/*
 * ---- a chunk's state ----------------------------------------------------------------
 *
 * changes << 16 | owner << 3 | phase.
 */

enum chunk_phase {
	CHUNK_BARE = 0,	    /* no memory yet */
	CHUNK_BACKING = 1,  /* its owner gets it some */
	CHUNK_FREE = 2,	    /* memory, no class */
	CHUNK_CHANGING = 3, /* its owner gives it a class; no slot is taken */
	CHUNK_SLOTS = 4,
	CHUNK_EMPTYING = 5, /* its owner looks whether all slots are free; none is taken */
	CHUNK_LOST = 6,	    /* no memory to be had, or given up for far words */
};

static inline enum chunk_phase chunk_phase(uint64_t state)
{
	return (enum chunk_phase)(state & 7);
}

static inline uint32_t chunk_owner(uint64_t state) /* client + 1 */
{
	return (uint32_t)(state >> 3 & 1023);
}

static inline uint64_t chunk_next(uint64_t state, enum chunk_phase phase, uint32_t owner)
{
	return ((state >> 16) + 1) << 16 | (uint64_t)owner << 3 | phase;
}

#endif
