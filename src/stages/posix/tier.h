/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix tier's inside. README.md has its invariants.
 *
 * Locking: one mutex (posix.mutex) guards what is marked [m]; it is held for a
 * few entries at a time and never over I/O, but for fstatvfs(). All else is set
 * at open, or belongs to one io, which runs on one thread at a time.
 */
#ifndef POSIX_TIER_H
#define POSIX_TIER_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "base/attr.h"
#include "base/index.h"
#include "base/iov.h"
#include "core/stage_env.h"
#include "stages/posix/format.h"
#include "stages/posix/names.h"
#include "stages/posix/posix.h"
#include "stages/error.h"
#include "stages/wait.h"

#define TIER_MAGIC 0x78736f70u /* "posx" */
#define PIO_MAGIC  0x6f69706fu

/* Namespaces in one store: what the table's address space is reserved for. */
#define SPACES_MAX	     65536u
#define SPACE_BUCKETS	     4096u /* 16 a bucket when all ids are taken */
/* Blocks being written at once, complete or not; a memory bound (512 bytes each). */
#define PARTIALS_MAX	     16384u
/* Heads of blocks being written: one page each for most geometries. */
#define ARENA_PAGES	     32768u
#define WAIT_BUCKETS	     64u
/* Unlinks in one chain. */
#define VICTIMS_MAX	     8u
/* Reads or writes in one chain, with room for what surrounds them. */
#define RUNS_MAX	     8u
#define RUNS_DUMP	     4u
/* From here on a transfer is copied through huge pages where that pays: 16 small pages. */
#define STAGED_MIN	     65536u
/*
 * The same for dumps with staging=auto: below, making the file binds and the copy
 * only adds to it (256 KiB at depth 32: 0.64 to 0.91 of bare with it, 0.97 to 1.01
 * without; 2 MiB: 1.02 and 0.95).
 */
#define STAGED_DUMP_MIN	     (1u << 20)
/* Segments of one part that go to the kernel as they are; with more it is copied. */
#define PART_IOV_MAX	     64u
/* Evictions for a file system that is full though the budget is not, before a dump gives up. */
#define FULL_TRIES_MAX	     8u
/* Files kept in quarantine/. */
#define QUARANTINE_FILES_MAX 64u
/* Submissions that one open may see; 2^20 unclean ends until it wraps. */
#define SEQUENCE_AHEAD	     (1ull << 44)

enum posix_option {
	OPT_PATH,
	OPT_SIZE,
	OPT_MIN_FREE,
	OPT_ENTRIES,
	OPT_DIRECT,
	OPT_SHARED,
	OPT_OPEN_WAIT,
	OPT_PARTIAL_TTL,
	OPT_QUARANTINE,
	OPT_STAGING,
	OPT_COUNT,
};
enum direct_choice { DIRECT_AUTO, DIRECT_YES, DIRECT_NO };
enum staging_choice { STAGING_AUTO, STAGING_YES, STAGING_NO };

enum posix_counter {
	CNT_LOADS,
	CNT_LOAD_BYTES,
	CNT_LOAD_MISSES,
	CNT_DUMPS,
	CNT_DUMP_BYTES,
	CNT_DUMPS_PRESENT,
	CNT_PUBLISHED,
	CNT_REMOVED,
	CNT_CLEARS,
	CNT_EVICTED,
	CNT_EVICTED_FULL_INDEX,
	CNT_EVICTED_REUSED,
	CNT_EVICT_FAILED,
	CNT_DAMAGED,
	CNT_QUARANTINED,
	CNT_VERSION_UNKNOWN,
	CNT_REFUSED,
	CNT_IO_ERRORS,
	CNT_PARTIALS_DROPPED,
	CNT_SWEPT,
	CNT_BOUNCED_BYTES,
	CNT_ROOM_WAITS,
	CNT_BYTES_USED,
	CNT_BYTES_LIMIT,
	CNT_BLOCKS,
	CNT_INDEX_BYTES,
	CNT_COUNT,
};

/* index_entry.flags */
#define ENTRY_REMOVING 0x1u /* being unlinked: absent for all but the one that unlinks it */
#define ENTRY_DURABLE  0x2u /* file and directory were synced since open */
#define ENTRY_RAW      0x4u /* every shard is stored as long as it is raw */
#define ENTRY_DEAD     0x8u /* its namespace was cleared since */

/* A namespace as this tier knows it. Lives until close. */
struct space {
	uint32_t id;
	uint32_t generation; /* [m] */
	uint64_t blocks;     /* [m] entries in its list */
	bool fixed;
	struct geometry geo; /* fixed ones */
	bool readable;	     /* else its file is damaged: the id is burnt */
	bool unmarked;	     /* its generation has no marker: while recovering */
	struct space *next;  /* of its bucket; space_bind()'s */
	uint32_t desc_length;
	uint8_t desc[];
};

struct dir {
	bool exists;
	bool unsynced; /* its own name is not durable yet */
	bool leftover; /* has a file that is not in the index: its names are read at the next open
			*/
	uint64_t charge;
	uint64_t mtime_ns; /* at open and close only */
};

/* Links of per-namespace lists, by entry id; behind the entries come the heads. */
struct side {
	uint32_t next, prev;
};

#define SHARD_WORDS (CAIRN_SHARD_COUNT_MAX / 64)

/* A block being written. [m], but for the image's places of claimed shards. */
struct partial {
	struct block_id id;
	struct geometry geo;
	uint32_t entry;	 /* in the index; INDEX_NONE once dropped */
	uint32_t number; /* of its temporary name */
	uint32_t done_count, claim_count;
	bool created; /* its file was seen there: it is not made again */
	bool in_use, publishing, durable, chain, attr_told;
	uint32_t older, newer; /* by the last touch, while in use; newer: the free list */
	uint32_t image_page, image_pages;
	uint8_t *image; /* the head */
	uint64_t reserved;
	struct cairn_block_attr attr;
	uint64_t done[SHARD_WORDS], claimed[SHARD_WORDS];
};

struct pio;

struct posix {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	const struct sys *sys;
	char path[512];

	uint64_t limit; /* UINT64_MAX: none */
	uint64_t min_free, open_wait_ns, partial_ttl_ns, quarantine_max;
	uint32_t entries_max;
	bool shared, direct, staging;
	uint32_t staged_dump_min;
	bool rename_plain; /* no RENAME_NOREPLACE here: link and unlink */
	uint32_t dirs_log2;
	uint32_t writer; /* of temporary names, shared=yes */
	int dir_fd, blocks_fd, space_fd, store_fd;
	struct super_block super;
	uint64_t sequence_limit;

	pthread_mutex_t mutex;
	bool mutex_made;
	/* [m] from here on */
	struct index *index;
	void *index_memory;
	size_t index_memory_bytes;
	struct side *side;
	size_t side_bytes;
	uint32_t incarnation; /* names entries apart: index_entry.tier of whole ones */
	uint64_t used;	      /* st_blocks * 512 of all there is, what is being removed included */
	uint64_t block_bytes; /* of it, in whole blocks */
	uint64_t reserved;    /* promised to blocks being written */
	uint64_t freeing;     /* of used, being removed */
	uint32_t writers;     /* reservations outstanding */
	uint32_t readers;     /* pins outstanding */
	uint32_t removals;    /* unlinks under way */
	uint64_t dead_blocks;
	uint64_t disk_free, disk_free_at_ns, disk_taken; /* fstatvfs(), cached */
	uint64_t quarantine_bytes, quarantine_dir_charge;
	uint64_t blocks_dir_charge, space_dir_charge;
	uint32_t quarantine_files;
	/* shared=yes: what is being set aside now */
	uint64_t aside_bytes;
	uint32_t aside_files;
	/* shared=yes: one directory at a time, and the next one not before sweep_at_ns */
	bool sweeping;
	uint32_t sweep_next;
	uint64_t sweep_at_ns;
	struct dir dirs[1u << DIRS_LOG2_MAX];
	struct space **spaces; /* by id; NULL: none */
	uint32_t space_end;    /* ids in use are below */
	/* space_bind()'s, of which one runs at a time: */
	struct space *space_buckets[SPACE_BUCKETS]; /* readable ones, by their description */
	uint32_t space_next;			    /* ids below are known, or nobody's for ever */
	uint64_t burnt[SPACES_MAX / 64];	    /* named by a marker or a block */
	struct waiter *wait_key[WAIT_BUCKETS], *wait_room;
	struct partial *partials;
	uint32_t partial_free, partial_end, partial_oldest, partial_newest;
	uint8_t *arena;
	uint64_t *arena_map;
	uint32_t arena_hint;
};

/* One read or write of a chain: a piece of the file and where its iovecs are. */
struct run {
	uint64_t offset, length;
	uint32_t iov_first, iov_count;
};

/* A part of a shard in one round. */
struct grain {
	uint32_t part;
	bool copied;		/* through `bounce`, all of it */
	uint64_t start, length; /* of the stored bytes; loads: whole pieces */
	uint8_t *bounce;	/* copied: all; else the padded tail's page, or NULL */
	uint32_t tail;		/* bytes in the tail's page */
};

#define CHAIN_OPS 10

struct slot {
	struct engine_chain chain;
	struct engine_op ops[CHAIN_OPS];
	struct pio *pio;
};

/* A contiguous piece of a head in memory. */
struct window {
	uint32_t offset, length;
	uint8_t *at;
};

/* The tier's scratch in an io. Owner: the io's reactor. */
struct pio {
	uint32_t magic;
	struct posix *tier;
	struct cairn_io *io;
	struct space *space;
	struct block_id id;
	void (*step)(struct pio *);  /* what resume() is waited for; NULL: nothing */
	void (*then)(struct pio *);  /* when the chains are over */
	void (*after)(struct pio *); /* continuation of a helper's */
	void (*then_look)(struct pio *);
	int64_t (*work)(struct pio *); /* what a worker is asked for */
	struct waiter wait;

	struct slot slots[2];
	uint32_t slot_count, slot_sent, slots_out;
	struct statx stx, dir_stx;
	char path[NAME_MAX_BYTES], temp[NAME_MAX_BYTES];
	char dir_name[NAME_DIR_LENGTH + 1];

	/* a whole block being read, or removed */
	uint32_t entry, incarnation;
	bool pinned, head_read, retried, marker_checked, cleared;
	uint64_t bad; /* parts that did not check */
	uint32_t head_runs;
	struct geometry geo, found; /* found: shared=yes, what stands under the name */
	bool geo_known, all_raw;
	bool unfinished; /* it is a partial, of the temporary name `number`, that is read */

	/* a block being written */
	uint32_t partial; /* INDEX_NONE: none */
	uint64_t need;
	uint64_t mine; /* parts that are worked on now, a bit each; a dump has claimed them */
	int32_t failure;
	uint32_t room_tries, dir_tries, full_tries, number;
	bool whole, merged, started;
	bool written; /* shared=yes: a round of the temporary file is in */
	int fd;	      /* shared partials */

	/*
	 * workspace: what is fixed (a head), what is bounced, and the lists. A head and
	 * the payload behind it lie together, as in the file: a ring's registered buffers
	 * are for transfers of one piece of memory.
	 */
	uint8_t *ws;
	size_t bounce_from, bounce_end, bounce_at;
	struct iovec *iov;
	uint32_t iov_count, iov_max;
	struct grain *grains;
	uint32_t grain_count, grain_max;
	struct run runs[RUNS_MAX];
	uint32_t run_count;
	struct window windows[3];
	uint32_t window_count;
	uint32_t cursor_part;
	uint64_t cursor; /* in the part */

	/* The one victim's file becomes the temporary one; what it was counted as. */
	bool reuse, reuse_failed;
	bool reused; /* it did: nothing is truncated or allocated */
	uint64_t reuse_charge;

	uint32_t victim_count;
	/* Not zeroed: so many of them as that says. */
	uint32_t victims[VICTIMS_MAX];
	char victim_path[VICTIMS_MAX][NAME_MAX_BYTES];
};
#define PIO_ZEROED offsetof(struct pio, victims)

/* ---- pio.c: chains, waits, workspaces ---------------------------------------- */

static inline void tier_lock(struct posix *tier)
{
	int rc = pthread_mutex_lock(&tier->mutex);

	assert(rc == 0);
	(void)rc;
}

static inline void tier_unlock(struct posix *tier)
{
	int rc = pthread_mutex_unlock(&tier->mutex);

	assert(rc == 0);
	(void)rc;
}

/* Starts chain @slot empty; only slots below the count given to pio_go() are sent. */
void pio_chain(struct pio *p, uint32_t slot);
/* Adds an op to it and returns it, zeroed but for code and descriptor. */
struct engine_op *pio_op(struct pio *p, uint32_t slot, enum engine_code code, int fd);
void pio_open(struct pio *p, uint32_t slot, const char *path, int flags);
void pio_unlink(struct pio *p, uint32_t slot, const char *path);
/* Makes the block's directory, if it is not there. */
void pio_make_dir(struct pio *p, uint32_t slot);
/* Charges of the block's directory after the chain: tier_dir_statted() reads it. */
void pio_stat_dir(struct pio *p, uint32_t slot);
/* Sends @count chains; @then runs on this thread when all have ended. */
void pio_go(struct pio *p, uint32_t count, void (*then)(struct pio *));
/*
 * Runs @work, which may block, on a worker; then @then, here. What it returned is
 * pio_called(). The io is the worker's meanwhile: it may use all of @p and the sys
 * table, and count, but not the host.
 */
void pio_call(struct pio *p, int64_t (*work)(struct pio *), void (*then)(struct pio *));
int64_t pio_called(const struct pio *p);
/* A chain that is such a call, beside another one of the same pio_go(). */
void pio_call_chain(struct pio *p, uint32_t slot, int64_t (*work)(struct pio *));
/* 0 or a negative errno; a short write is -ENOSPC. */
int64_t pio_result(const struct pio *p, uint32_t slot);

void pio_wait_init(struct pio *p);
/*
 * Waits for pio_wake_key() of @key, or pio_wake_room(); [m] held. At the io's
 * deadline what still waits ends -ETIMEDOUT, so it may hold nothing.
 */
void pio_wait_key(struct pio *p, void (*step)(struct pio *));
void pio_wait_room(struct pio *p, void (*step)(struct pio *));
void pio_wake_key(struct posix *tier, const struct cairn_key *key);
void pio_wake_room(struct posix *tier);
void pio_sleep(struct pio *p, uint64_t ns, void (*step)(struct pio *));
/* Its deadline has passed: nobody waits for the io any more. */
bool pio_late(const struct pio *p);
/* Sleeps, or ends an io that is late and holds nothing. */
void pio_retry(struct pio *p, uint64_t ns, void (*step)(struct pio *));

/* Gives the workspace back and completes the io. Nothing may touch @p after. */
void pio_complete(struct pio *p);
/* A negative errno of the file system as the caller is told it. */
int32_t pio_errno(int64_t result);

/*
 * Takes a workspace of up to @bounce bytes of bounce space (less when buffer_max is
 * less) behind @fixed bytes. False: none now; @step will run.
 */
bool pio_workspace(struct pio *p, size_t fixed, uint32_t iov_max, size_t bounce,
		   void (*step)(struct pio *));
/* Room in the bounce space of this round; NULL: none left. */
uint8_t *pio_bounce(struct pio *p, size_t bytes);
size_t pio_bounce_left(const struct pio *p);
void pio_round(struct pio *p); /* starts a round: no runs, no grains, no bounce */
/* Adds memory to the file's picture. False: the round is full (nothing was added). */
bool pio_run_add(struct pio *p, uint64_t offset, void *base, uint64_t length);
/* The ops of the round's runs from @first to before @end. */
void pio_run_ops(struct pio *p, uint32_t slot, enum engine_code code, int fd, uint32_t first,
		 uint32_t end);

/* ---- segs.c: segments ----------------------------------------------------------- */

/* Whether O_DIRECT takes [skip, skip + length) of @iov but for a short tail. */
bool segs_aligned(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length);
/*
 * The segments of a part that is not copied go into the round: @length bytes
 * from @skip, at @offset of the file. With O_DIRECT a short tail goes through a
 * page, which *ret_tail_page then is. False: the round is full.
 */
bool segs_add(struct pio *p, const struct cairn_part *part, uint64_t skip, uint64_t length,
	      uint64_t offset, uint8_t **ret_tail_page);

/* ---- super.c ------------------------------------------------------------------------ */

int super_open(struct posix *tier, struct cairn_error *reterr); /* path, lock, superblock */
int super_write(struct posix *tier);				/* durable when it returns 0 */
int super_read(const struct sys *sys, int store_fd, struct super_block *ret_super);
#define tier_error(reterr, code, ...) stage_error(reterr, code, "posix: " __VA_ARGS__)
/* Shows what is there now in the counters page; under the lock, shared=no. */
void tier_gauges(struct posix *tier);
/*
 * An empty temporary file. What has that name is unlinked, never truncated: it
 * may be a second name of a file that counts.
 */
int tier_open_temp(const struct sys *sys, int dirfd, const char *name);

/* ---- space.c -------------------------------------------------------------------------- */

/* Reads ns/. @spaces has SPACES_MAX places, @burnt a bit for each; it may be NULL. */
int spaces_load(const struct sys *sys, int space_fd, struct space **spaces, uint32_t *ret_end,
		uint64_t *burnt);
int spaces_open(struct posix *tier);
/* A sound block of @id: its namespace is not below its generation, whatever became of the marker.
 */
void space_raise(struct posix *tier, const struct block_id *id);
int spaces_mark(struct posix *tier); /* makes the markers that were found missing */
/* A file names @id: nobody else's from here on. At open, or under the lock. */
void space_burn(struct posix *tier, uint32_t id);
void spaces_free(const struct sys *sys, struct space **spaces, uint32_t end);
int space_bind(struct posix *tier, const struct cairn_ns_view *ns, struct space **ret_space,
	       struct cairn_error *reterr);
int space_clear(struct posix *tier, struct space *space, uint32_t durability);
/* shared=yes: catches up with clears made elsewhere; returns the generation. */
uint32_t space_refresh(struct posix *tier, struct space *space);

/* ---- room.c: the budget, entries and what goes ----------------------------------------- */

struct space *tier_space(struct posix *tier, uint32_t id); /* [m]; NULL: unknown */
void side_init(struct posix *tier);
void side_add(struct posix *tier, struct index_entry *entry); /* [m] */
void side_del(struct posix *tier, struct index_entry *entry); /* [m] */
void side_bury(struct posix *tier, struct space *space);      /* [m] all of it is dead */

/* Bytes to reserve for a block; [m]. */
uint64_t room_need(const struct posix *tier, const struct block_id *id, const struct geometry *geo);
/* Space of an index snapshot of @blocks. */
uint64_t room_snapshot(const struct posix *tier, uint64_t blocks);

enum room_verdict { ROOM_TAKEN, ROOM_REUSE, ROOM_EVICT, ROOM_WAIT, ROOM_NONE, ROOM_TOO_BIG };

/*
 * Reserves p->need, [m] held. ROOM_EVICT: victims were picked into @p, to be
 * sent by room_evict(). ROOM_TAKEN: there is an entry free, too. ROOM_REUSE: the
 * same, and one victim was picked, for room_reuse() or room_reused(p, false).
 */
enum room_verdict room_take(struct pio *p);
/* The victim's file gets the name p->temp, or it stays (p->reused tells); then @after. No mutex. */
void room_reuse(struct pio *p, void (*after)(struct pio *));
/* [m] That is over. Not @gone: the victim is back; what was reserved is p->need all the same. */
void room_reused(struct pio *p, bool gone);
void room_give(struct posix *tier, uint64_t reserved); /* [m] a reservation ends */
/* [m] The same before anybody saw it: nobody is woken. */
void room_untake(struct posix *tier, uint64_t reserved);
/* Picks victims of @bytes whatever the budget says. [m] False: there is none. */
bool room_force(struct pio *p, uint64_t bytes);
/* Picks the partial that was idle longest. [m] False: there is none. */
bool room_pick_idle(struct pio *p);
/* Unlinks the picked victims, then runs @after. Without the mutex. */
void room_evict(struct pio *p, void (*after)(struct pio *));
/* An entry that is to be unlinked by the caller: absent from here on. [m] */
void entry_removing(struct posix *tier, struct index_entry *entry);
/* Its parent as a task tells it; all zero: none. [m] */
static inline void entry_parent(struct posix *tier, struct index_entry *entry,
				const struct cairn_key *parent)
{
	if (!key_is_zero(parent))
		index_set_parent(tier->index, entry, parent);
}
/* The unlink of @id is over: gone or, when it failed, back. [m] */
void entry_removed(struct posix *tier, uint32_t id, bool gone);
/* The file of that incarnation was not there: somebody took it away. [m] */
void entry_lost(struct posix *tier, const struct block_id *id, uint32_t incarnation);
/* The whole block of @id that may be read; NULL. [m] */
struct index_entry *entry_find(struct posix *tier, const struct block_id *id);
/* A read begins: false when it has too many of them. [m] */
bool entry_pin(struct pio *p, struct index_entry *entry);
void entry_unpin(struct posix *tier, const struct block_id *id, uint32_t incarnation); /* [m] */
void tier_stat_again(struct pio *p, uint32_t slot);
void tier_dir_charge(struct posix *tier, uint32_t number, uint64_t charge); /* [m] */
/* After a chain with pio_stat_dir(). [m] */
void tier_dir_statted(struct pio *p, uint32_t slot);
/* Whether @need does not fit even if every block went. [m] */
bool room_never(const struct posix *tier, uint64_t need);
/* Evicts synchronously until the budget holds; -ENOSPC, and nothing went, if it never does. */
int room_settle(struct posix *tier, uint64_t extra);

/* ---- partial.c: blocks being written ------------------------------------------------------ */

int partials_init(struct posix *tier);
void partials_fini(struct posix *tier);
/* [m]; INDEX_NONE: none free. Its image is zeroed. */
uint32_t partial_new(struct posix *tier, const struct block_id *id, const struct geometry *geo);
struct partial *partial_at(struct posix *tier, uint32_t number);
void partial_touch(struct posix *tier, struct partial *partial); /* [m] */
void partial_free(struct posix *tier, struct partial *partial);	 /* [m] its room too */
uint32_t partial_id(const struct posix *tier, const struct partial *partial);
/*
 * Takes a partial out of the index: its writers get -ESTALE. [m] True: nobody
 * writes, the caller must unlink its temporary file and partial_free() it.
 */
bool partial_drop(struct posix *tier, struct partial *partial);
/* Its temporary file could not be unlinked: it stays, counted, and is looked for at an open. [m] */
void partial_stays(struct posix *tier, const struct partial *partial);
/* The partial that was idle longest; NULL. [m] */
struct partial *partial_idle(struct posix *tier);

/* ---- unfinished.c: loads from blocks being written, for CAIRN_IO_PARTIAL -------------------- */

/* What there is of a block, whole or not: 0 or -ENOENT. */
int unfinished_shards(struct posix *tier, const struct space *space, const struct cairn_key *key,
		      struct cairn_shards *ret_shards);
/*
 * Is there a partial of p->id that the io means? Then its geometry and path are in
 * @p, and parts that it lacks have ended -ENOENT. [m]
 */
bool unfinished_find(struct pio *p);
/* Entries and tables of the parts in @mask into the windows. False: it is not there any more. */
bool unfinished_head(struct pio *p, uint64_t mask);
/* Its file is not there: waits while it is being published, drops it if it was lost; then @step. */
void unfinished_lost(struct pio *p, void (*step)(struct pio *));
/* What it has did not check: it goes, if it is not being published; then @after. */
void unfinished_drop(struct pio *p, void (*after)(struct pio *));

/* ---- the operations ------------------------------------------------------------------------- */

void load_submit(struct pio *p);
void describe_submit(struct pio *p);
void dump_submit(struct pio *p);
void remove_submit(struct pio *p);
void prefetch_submit(struct pio *p);
void shared_load_submit(struct pio *p);
void shared_dump_submit(struct pio *p);
void shared_remove_submit(struct pio *p);
void shared_prefetch_submit(struct pio *p);
void shared_lookup(struct posix *tier, struct space *space, const struct cairn_key *keys,
		   size_t count, uint32_t flags, struct cairn_probe *ret_probes);
/* ---- write.c: what private and shared dumps have in common ---- */

/* Checks the arguments of the parts; the geometry goes into p->geo. False: all have failed. */
bool dump_check(struct pio *p);
/* Entry and table of @part into an image of the head. */
void dump_fill(struct pio *p, uint8_t *image, const struct cairn_part *part);
/* The head itself, once all entries are in. */
void dump_seal(struct pio *p, uint8_t *image, const struct cairn_block_attr *attr, bool chain);
/* Workspace for the parts of p->mine behind @fixed bytes. False: none now, @step will run. */
bool dump_workspace(struct pio *p, size_t fixed, void (*step)(struct pio *));
/*
 * Where the first shard of a whole block is copied, the head goes out from before it:
 * what it takes of the workspace, as @fixed, and @image or its copy there.
 */
size_t dump_head_room(const struct pio *p);
uint8_t *dump_head_place(struct pio *p, uint8_t *image);
/*
 * Fills the next round with what p->mine still has to write, behind @head where
 * it is not NULL. False: nothing was left.
 */
bool dump_round(struct pio *p, uint8_t *head);
void dump_rewind(struct pio *p);
bool dump_round_last(struct pio *p); /* nothing is left behind this round */
/* Reads the block of p->id, with p->geo if geo_known. Ends the io. */
void load_start(struct pio *p);
/* The byte @offset of the head, which a window has. */
uint8_t *load_head_at(const struct pio *p, uint32_t offset);
/* set_aside.c: the block of p->id, which did not check, goes to quarantine/; then @after. */
void set_aside(struct pio *p, void (*after)(struct pio *));

/* Is a transfer of @bytes to or from the memory of @io copied through huge pages? */
static inline bool staged(const struct posix *tier, const struct cairn_io *io, uint64_t bytes)
{
	return tier->staging && bytes >= STAGED_MIN && !(io->flags & CAIRN_IO_AIMABLE);
}

static inline bool shard_test(const uint64_t *words, uint32_t shard)
{
	return words[shard / 64] >> (shard % 64) & 1;
}

static inline void shard_set(uint64_t *words, uint32_t shard)
{
	words[shard / 64] |= 1ull << (shard % 64);
}

static inline void shard_clear(uint64_t *words, uint32_t shard)
{
	words[shard / 64] &= ~(1ull << (shard % 64));
}

static inline uint64_t stat_charge(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512;
}
static inline uint64_t stat_mtime_ns(const struct stat *st)
{
	return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

/* ---- scan.c, snapshot.c: what was there, at open and at close ---------------------- */

int recover(struct posix *tier, struct cairn_error *reterr);
/* All that is known, in order; 0 when it is durable. */
int snapshot_save(struct posix *tier);
struct snapshot {
	struct snapshot_head head;
	struct snapshot_dir *dirs;
	struct snapshot_entry *entries;
};
/* *ret_snapshot is NULL with 0: there is none that checks. */
int snapshot_load(const struct sys *sys, int dir_fd, const uint8_t uuid[16],
		  struct snapshot **ret_snapshot);
void snapshot_free(const struct sys *sys, struct snapshot *snapshot);
/* shared.c, part.c */
void shared_part(struct pio *p, void (*look)(struct pio *), void (*end)(struct pio *));
/* A clear made elsewhere was seen: its generation is taken, then @step. */
void shared_refresh(struct pio *p, void (*step)(struct pio *));
/* Takes a file of many writers away if it is @fd's and nobody publishes it: 0, -EAGAIN, -ENOENT. */
int part_unlink(struct posix *tier, const char *path);
/* ---- sweep.c: shared=yes, leftovers older than partial_ttl go ---- */

/* All of them, at open. */
void sweep_all(struct posix *tier);
/* Whether a directory is due: then the caller, and no other, calls sweep_next(). */
bool sweep_due(struct posix *tier);
/* The next directory. Blocks. */
void sweep_next(struct posix *tier);
/* Unlinks the temporary files of partials that nobody writes: at close. */
void partials_unlink(struct posix *tier);

/* ---- atrest.c ---------------------------------------------------------------------- */

int64_t atrest_list(const struct cairn_stage_env *env,
		    int (*fn)(void *context, const struct cairn_listed *block), void *context,
		    uint64_t *ret_missed, struct cairn_error *reterr);
int atrest_check(const struct cairn_stage_env *env,
		 int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		 struct cairn_error *reterr);
int atrest_identify(const struct cairn_stage_env *env, uint8_t ret_uuid[16],
		    struct cairn_error *reterr);

#endif
