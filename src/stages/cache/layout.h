/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache's shared memory, as docs/format.md has it: what lies where. Every process
 * that is attached maps the same file. Nothing here is a pointer, and no field is a
 * lock: each word that changes is changed by one compare-and-swap, and names its owner
 * wherever somebody may die between two of them.
 *
 * Numbers are the machine's own: the region does not outlive a boot.
 */
#ifndef STAGES_CACHE_LAYOUT_H
#define STAGES_CACHE_LAYOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_MAGIC	  UINT64_C(0x6568636163726e63) /* "cnrcache" */
#define CACHE_VERSION	  4u
#define CACHE_CHUNK_MAX	  (8u << 20) /* the largest shard kept; a shard lies in one chunk */
#define CACHE_CHUNK_MIN	  (1u << 20)
#define CACHE_CHUNKS_WANT 16u	 /* small regions have smaller chunks, to have as many */
#define CACHE_UNIT	  256u	 /* sizes of slots are multiples of it */
#define CACHE_PAGE	  4096u	 /* slots of a page and more are aligned to one */
#define CACHE_CLIENTS_MAX 64u	 /* processes at once; each costs pins_max words */
#define CACHE_SPACES_MAX  1024u	 /* namespaces in the life of a region */
#define CACHE_DESC_MAX	  8192u	 /* of a namespace's encoded description, page-sized */
#define CACHE_PINS_MAX	  65536u /* of one process at once */
#define CACHE_PINS_MIN	  1024u
#define CACHE_CHUNKS_MAX  (1u << 20)
#define CACHE_WORDS_NEAR  128u /* slots of 64 KiB and more: their words lie with the chunk's */
#define CACHE_WORDS_FAR	  32768u
#define CACHE_BUCKET_WAYS 7u
#define CACHE_NONE	  UINT32_MAX

/* Bytes of the file that are locked: byte N by client N for as long as it, or I/O of its, lives. */
#define CACHE_LOCK_CLIENT (INT64_C(1) << 40)
#define CACHE_LOCK_CREATE (CACHE_LOCK_CLIENT - 1)
#define CACHE_LOCK_SPACES (CACHE_LOCK_CLIENT - 2)

struct cache_header {
	uint64_t magic;
	uint32_t version, header_bytes;
	uint64_t size; /* of everything: this, tables and chunks */
	uint32_t entries, buckets, chunks, pins_max;
	uint32_t chunk_bytes;
	uint8_t tails, policy; /* 1: shards have sums; how victims are chosen */
	uint16_t reserved;
	/* From the start of the file; the order in which they lie. */
	uint64_t clients_at, spaces_at, descs_at, buckets_at, entries_at, metas_at, chunks_at,
		pins_at, words_at, payload_at, file_bytes;
	uint32_t uid, below_known;
	uint8_t below[16]; /* the uuid of the store under it; zero: none */
	uint8_t uuid[16];  /* of the region */
	uint64_t seed;	   /* of the table's hash */
	uint32_t crc;	   /* CRC32C of all before this */
	uint32_t ready;	   /* 1: made; the rest is right */
	/* What changes. */
	uint64_t clock __attribute__((aligned(64))); /* one for each call that uses blocks */
	uint64_t inflation;			     /* gdsf: score of the last victim */
	uint64_t spare;	    /* bytes of the budget that are in no chunk, for far words */
	uint64_t blocks;    /* whole ones; right again after each repair */
	uint32_t backed;    /* chunks that have memory */
	uint32_t unbacked;  /* chunks that could not be had, counted */
	uint32_t repairs;   /* dead clients that were cleaned up after */
	uint32_t adoptions; /* openers that found a region that nobody had open */
	uint64_t dirty;	    /* bytes of slots of what is not below yet; as right as `blocks` */
	uint32_t kept;	    /* 1: an opener wants it kept, be it that all are killed */
};

enum cache_client_state { CLIENT_FREE = 0, CLIENT_LIVE = 1 };

struct cache_client {
	uint32_t state;	    /* enum cache_client_state */
	uint32_t pid;	    /* for people */
	uint32_t pins_used; /* records below it may be in use */
	uint32_t flights;   /* tasks that write entries below, or are about to */
	uint32_t reserved[12];
};

struct cache_space {
	uint32_t state; /* 1: the description is whole */
	uint32_t generation;
	uint32_t desc_length;
	uint32_t reserved[13];
};

/*
 * A word of a bucket: tag << 32 | entry + 1; 0: empty. `overflow` stays up once a key of
 * this bucket had to go to its other one.
 */
struct cache_bucket {
	uint64_t overflow;
	uint64_t ways[CACHE_BUCKET_WAYS];
};

/*
 * What is known of one shard: state.h has the word. Lengths are written by the owner of a
 * shard that is filling, before it is there.
 */
struct cache_shard {
	uint64_t word;
	uint32_t raw, stored;
};

/* All that a lookup reads: one line. */
struct cache_entry {
	uint64_t state; /* state.h */
	uint64_t key[2];
	uint64_t home; /* the namespace's generation << 32 | its id */
	uint32_t shard_bytes;
	uint16_t shard_count;
	uint16_t flags;	     /* ENTRY_* */
	uint32_t last_bytes; /* raw, of the last shard, once it is there; else 0 */
	uint32_t reserved;
	/* Of a block of one shard the shard; else `word` is the slot of an array of them. */
	struct cache_shard only;
};

#define ENTRY_PARENTED 0x1u /* meta.parent was told */
#define ENTRY_EXPIRES  0x2u /* meta.expires_ns was */
#define ENTRY_BACK     0x4u /* once it is whole it is DIRTY */

/* What the policy reads. */
struct cache_meta {
	uint64_t stamp, inserted; /* clock */
	uint64_t parent;	  /* a link; 0: none */
	uint64_t children;	  /* changes << 24 | count */
	uint64_t expires_ns;	  /* CLOCK_REALTIME; 0: never */
	uint32_t cost_us;	  /* to compute it again; 0: not said */
	uint32_t step;		  /* of the engine, that used it last: for hints */
	uint32_t hits, units;	  /* units: its slots' sizes in all */
	uint16_t depth;		  /* saturated */
	uint8_t priority, klass;  /* klass: of request, for hints */
	uint16_t rank;
	uint8_t fetched; /* 1: brought up by a prefetch, and not used since */
	uint8_t reserved;
};

struct cache_chunk {
	uint64_t state; /* state.h */
	uint32_t slots; /* of its class; `slots` and `units` stand while a slot is in use */
	uint32_t units;
	uint32_t cursor;     /* where a search for a free slot begins: a hint */
	uint32_t free_slots; /* a hint, too: right again after each repair */
	uint32_t far_words;  /* 1: words beyond the near ones have memory */
	uint32_t reserved[9];
	uint64_t words[CACHE_WORDS_NEAR];
};

_Static_assert(sizeof(struct cache_header) <= CACHE_PAGE, "one page");
_Static_assert(sizeof(struct cache_client) == 64, "a line");
_Static_assert(sizeof(struct cache_space) == 64, "a line");
_Static_assert(sizeof(struct cache_bucket) == 64, "a line");
_Static_assert(sizeof(struct cache_shard) == 16, "a quarter of a line");
_Static_assert(sizeof(struct cache_entry) == 64, "a line");
_Static_assert(sizeof(struct cache_meta) == 64, "a line");
_Static_assert(sizeof(struct cache_chunk) == 64 + 8 * CACHE_WORDS_NEAR, "a line and the words");

#endif
