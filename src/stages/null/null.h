/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The null stage: a bounded map in memory of what was dumped, for tests and as
 * the reference of what a tier must do. It loses everything at close.
 *
 * Being a test tier it allocates the payload of each shard as it comes, through
 * the sys table; a tier of the data path takes its memory at open.
 *
 * Invariants:
 *  1. `bytes_used` is the sum of the charges of all blocks that have memory, of
 *     reservations under way, and never above `bytes_max`.
 *  2. A block is in the index as long as `entry` is not INDEX_NONE; slots[] maps
 *     the entry's id back to it.
 *  3. A shard's payload never changes once it is in; a whole block never changes.
 *  4. A block of an older generation than its space's is dead: on the `dead`
 *     list, found by nobody, and the first to be reclaimed.
 *  5. Memory that is being copied from or to is pinned by `refs`.
 *
 * Everything here is guarded by `lock`, but for payloads (invariant 3) and what
 * is set at open.
 */
#ifndef NULL_NULL_H
#define NULL_NULL_H

#include <pthread.h>

#include <cairn/stage.h>

#include "base/index.h"
#include "base/list.h"
#include "core/stage_env.h"

#define NULL_MAGIC	 0x6c6c756eu
#define NULL_BLOCK_MAGIC 0x6b6c626eu

enum null_option { NULL_SIZE, NULL_ENTRIES };

enum null_counter {
	NULL_LOAD_HITS,
	NULL_LOAD_MISSES,
	NULL_DUMPED_SHARDS,
	NULL_ALREADY_PRESENT,
	NULL_EVICTED,
	NULL_REMOVED,
	NULL_DAMAGED,
	NULL_REFUSED,
};

struct null_space {
	struct null_space *next;
	uint32_t id; /* from 1, never used again */
	uint32_t generation;
	uint64_t whole;	    /* blocks of this generation */
	struct list blocks; /* of this generation: null_block.in_space */
	size_t desc_length;
	uint8_t desc[];
};

struct null_shard {
	uint8_t *payload; /* NULL: not in */
	uint32_t *crc;	  /* behind the payload, in the same allocation */
	uint64_t raw_length, stored_length;
	uint16_t meta_length;
	uint8_t meta[CAIRN_META_MAX];
};

struct null_block {
	uint32_t magic;
	uint32_t refs;	/* one of the index, one for each io that copies */
	uint32_t entry; /* in the index; INDEX_NONE: taken out */
	uint32_t generation;
	struct null_space *space;
	struct list in_space; /* or in null_stage.dead */
	struct list in_partial;
	uint64_t incarnation; /* no two blocks have the same */
	uint64_t stamp;	      /* sequence of the last use, while partial */
	uint64_t charge;
	uint32_t shard_count, shards_in;
	uint64_t shard_bytes;
	bool whole;
	struct cairn_block_attr attr; /* size 0: none told yet */
	struct null_shard shards[];
};

struct null_stage {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	const struct sys *sys;
	uint64_t bytes_max;
	uint32_t entries_max;

	pthread_mutex_t lock;
	uint64_t bytes_used;
	uint64_t blocks; /* whole, not dead */
	uint64_t incarnations;
	uint32_t space_count;
	struct null_space *spaces;
	struct list dead;
	struct list partial; /* oldest use first */
	struct index *index;
	void *index_memory;
	size_t index_memory_bytes;
	struct null_block **slots;
	size_t slots_bytes;
};

/* ---- blocks.c: every call with the lock held ------------------------------ */

/* What is charged for a block without shards, and for a shard's payload and CRCs, bytes. */
uint64_t null_block_charge(uint32_t shard_count);
uint64_t null_shard_charge(uint64_t stored_length);

/* The whole or partial block of @key in @space as it is now, or NULL. */
struct null_block *null_find(struct null_stage *stage, const struct null_space *space,
			     const struct cairn_key *key);

/*
 * Makes the partial block that the dump @io begins. 0, -ENOSPC (everything is
 * held, pinned or a parent), -EFBIG.
 */
int null_make(struct null_stage *stage, struct null_space *space, const struct cairn_io *io,
	      struct null_block **ret_block);

/* Makes room for @bytes and charges them. 0 or -ENOSPC. */
int null_reserve(struct null_stage *stage, uint64_t bytes);
void null_unreserve(struct null_stage *stage, uint64_t bytes);

/* Keeps the block's memory, and the block from being evicted, until null_unpin(). */
void null_pin(struct null_stage *stage, struct null_block *block);
void null_unpin(struct null_stage *stage, struct null_block *block);

/* True while the block is the one that its key finds. */
bool null_is_current(const struct null_block *block);

/* Takes the block out of the index: nobody finds it. Its memory goes with the last pin. */
void null_take_out(struct null_stage *stage, struct null_block *block);

/* The partial block is used by the submission @sequence: others go before it. */
void null_partial_touch(struct null_stage *stage, struct null_block *block, uint64_t sequence);

/* Partial -> whole, when all shards are in. */
void null_publish(struct null_stage *stage, struct null_block *block, uint64_t sequence);

/* The first parent told stays; index_set_parent() says which are ignored. All zero: none. */
void null_set_parent(struct null_stage *stage, struct null_block *block,
		     const struct cairn_key *parent);

/* Keeps @attr with the block, and its parent; the first one told stays. All zero: none. */
void null_tell(struct null_stage *stage, struct null_block *block,
	       const struct cairn_block_attr *attr);

/* Frees some of what was cleared: a bounded share of work for each call that writes. */
void null_reclaim_some(struct null_stage *stage);

/* Raises the generation of @space: what it holds is dead. O(1). */
void null_clear_space(struct null_stage *stage, struct null_space *space);

/* Frees a shard's memory that never came in. */
void null_payload_free(struct null_stage *stage, struct null_shard *shard);

/* ---- io.c ------------------------------------------------------------------ */

/* Does the io at once and completes it. */
void null_submit(void *self, struct cairn_io *io, void *scratch);

#endif
