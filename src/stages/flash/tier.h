/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flash tier's inside. README.md has its invariants.
 *
 * Locking: one mutex (flash.mutex) guards what is marked [m]; it is held for a
 * few entries at a time and never over I/O. All else is set at open, or belongs to
 * one io or job, which runs on one thread at a time. Namespaces change under the mutex, by
 * one bind() or clear() at a time (space.c).
 */
#ifndef FLASH_TIER_H
#define FLASH_TIER_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/iov.h"
#include "core/stage_env.h"
#include "stages/flash/flash.h"
#include "stages/flash/format.h"
#include "stages/flash/pace.h"
#include "stages/flash/policy.h"
#include "stages/flash/table.h"
#include "stages/error.h"
#include "stages/wait.h"

#define TIER_MAGIC 0x68736c66u /* "flsh" */
#define FIO_MAGIC  0x6f696c66u

/* Blocks being written at once, complete or not: a memory bound (320 bytes each). */
#define PARTIALS_MAX	 16384u
#define PARTIAL_BUCKETS	 4096u
#define WAIT_BUCKETS	 64u
/* One write of the log, and the memory it is packed in. */
#define SPAN_BYTES	 (1u << 20)
#define SPAN_PIECES	 (SPAN_BYTES / PACE_LEAST)
#define SPANS		 24u
/* While fewer writes are under way, a span goes out at once; else it fills up. */
#define WRITES_MAX	 8u
/* Beside loads, until so many writes after the last one, pace.h says how many. */
#define BESIDE_WRITES	 16u
/*
 * Regions that are ready before a writer needs them, and one more for each 128 that there are;
 * one of them is for carried records.
 */
#define FREE_LEAST	 3u
#define FREE_MOST	 8u
/* Parents that one use lifts under the mutex: a chain that is loaded in order needs one each. */
#define LIFT_MAX	 1024u
/* Regions whose table is kept in memory: open and being sealed. */
#define DRAFTS		 6u
/* Payload of one round of a load. */
#define LOAD_ROUND	 (2u << 20)
/* Reads of a load under way at once. */
#define LOAD_READS	 6u
/*
 * Of a part that is read straight to where it belongs: bytes at least, for to copy a few costs
 * less than a second segment of the read does; pieces of memory at most.
 */
#define STRAIGHT_MIN	 (16u << 10)
#define STRAIGHT_IOV_MAX 64u
/* Submissions that one open may see; 2^20 unclean ends until it wraps. */
#define SEQUENCE_AHEAD	 (1ull << 44)
/* Uses of regions, likewise: a header that is lost may have had the latest of them. */
#define REGION_SEQ_AHEAD (1ull << 32)
/* Blocks of a region that did not check until it is retired: then it is not the block. */
#define DAMAGES_MAX	 3u
/*
 * Uses are told to the file while there are any, so that recency comes back after a SIGKILL,
 * too: every second so many pages of marks at most, 1 MiB.
 */
#define WARM_NS		 1000000000u
#define WARM_PAGES	 256u
#define WARM_FLUSH_NS	 10000000000u /* where nothing else flushes, uses wait so long for one */

enum flash_option {
	OPT_PATH,
	OPT_SIZE,
	OPT_REGION,
	OPT_SYNC,
	OPT_ENTRIES,
	OPT_SHARDS,
	OPT_DIRECT,
	OPT_OPEN_WAIT,
	OPT_FORMAT,
	OPT_HANG,
	OPT_SHED,
	OPT_POLICY,
	OPT_REACTORS,
	OPT_COUNT,
};
enum sync_choice { SYNC_GROUP, SYNC_EACH, SYNC_NONE };
enum direct_choice { DIRECT_AUTO, DIRECT_YES, DIRECT_NO };

enum flash_counter {
	CNT_LOADS,
	CNT_LOAD_BYTES,
	CNT_STRAIGHT_BYTES,
	CNT_LOAD_MISSES,
	CNT_DUMPS,
	CNT_DUMP_BYTES,
	CNT_DUMPS_PRESENT,
	CNT_PUBLISHED,
	CNT_REMOVED,
	CNT_CLEARS,
	CNT_EVICTED,
	CNT_DAMAGED,
	CNT_REFUSED,
	CNT_SHED,
	CNT_IO_ERRORS,
	CNT_PARTIALS_DROPPED,
	CNT_ROOM_WAITS,
	CNT_FLUSHES,
	CNT_WRITES,
	CNT_WRITTEN_BYTES,
	CNT_CARRIED_BYTES,
	CNT_OTHER_BYTES,
	CNT_RECLAIMED,
	CNT_SEALED,
	CNT_RETIRED,
	CNT_FENCES,
	CNT_PASSED_BY,
	CNT_RECOVERED,
	CNT_SHARD_MAX,
	CNT_BYTES_USED,
	CNT_BYTES_LIMIT,
	CNT_BLOCKS,
	CNT_INDEX_BYTES,
	CNT_FENCED,
	CNT_SUSPECT,
	CNT_COUNT,
};

/* A namespace as this tier knows it. Lives until close. */
struct space {
	uint32_t id;
	uint32_t generation; /* [m] */
	uint64_t blocks;     /* [m] whole ones of this generation */
	uint32_t shard_count;
	uint64_t shard_bytes;
	uint32_t desc_length;
	uint8_t desc[];
};

/*
 * BLANK -> FREE -> OPEN -> SEALING -> SEALED -> RECLAIM -> BLANK ... A blank one has
 * nothing that counts, but no header yet that says so. RETIRED: a read or a
 * write failed; what is in it can be read, and when that has gone it is not used again.
 */
enum region_state {
	REGION_BLANK,
	REGION_FREE,
	REGION_OPEN,
	REGION_SEALING,
	REGION_SEALED,
	REGION_RECLAIM,
	REGION_RETIRED,
};

/* [m] */
struct region {
	uint64_t seq;	       /* of this use */
	uint64_t header_flush; /* the first of the commit's flushes that covers its header; 0: it is
				*/
	uint8_t state, stream;
	bool failed;	    /* a write did not go through: no more records */
	bool tabled;	    /* its table is in the file */
	bool suspect;	    /* something of this use did not check: it is reclaimed before others */
	bool doubt, spared; /* the write that failed may have been the device's; was (outage.c) */
	bool kept;	    /* given back by a reclaim, for what must stay in it: region_let_go() */
	uint8_t damages;    /* how often, since open, over all its uses */
	bool unread;	    /* not even its header could be read: what is in it may come back */
	uint32_t readers;   /* loads under way */
	uint32_t writers;   /* records reserved and not ended */
	uint32_t records;   /* numbers given out */
	uint32_t marked;    /* the most of them in any use, since open: their marks are memory */
	uint32_t at;	    /* unit of the next record */
	uint32_t live;	    /* units of records that the table knows */
	uint32_t epoch;	    /* when it was opened */
	uint32_t last_used; /* latest epoch in which something of it was touched */
	uint32_t draft;	    /* of its table, while open and sealing; DRAFT_NONE */
	uint64_t sequence_max;
	uint64_t kill_dirty;  /* mark pages (modulo 64) with deaths that are not written */
	uint64_t kill_single; /* such pages with deaths that only one copy tells */
	uint64_t warm;	      /* such pages with uses that are not written */
};
#define DRAFT_NONE UINT32_MAX

#define SHARD_WORDS (CAIRN_SHARD_COUNT_MAX / 64)

/* A block being written. [m] */
struct partial {
	uint64_t fingerprint;
	uint32_t id; /* of its entry */
	uint32_t next;
	uint32_t older, newer; /* by the last touch */
	uint64_t birth;
	uint32_t shard_count, claim_count, done_count;
	bool in_use, doomed; /* doomed: removed as soon as nothing is written any more */
	bool attr_told, chain;
	uint32_t expiry_s;
	uint64_t created_ns;
	struct cairn_block_attr attr;
	uint64_t claimed[SHARD_WORDS];
};

struct flash;
struct fio;

/* A write of the log: a range, the memory it is packed in, and who has records there. */
struct span {
	struct engine_chain chain;
	struct engine_op ops[SPAN_PIECES];
	struct iovec iov[SPAN_PIECES];
	struct flash *tier;
	uint8_t *buffer;
	uint64_t piece_bytes; /* what is written at once of it, the next when that has ended */
	uint64_t began_ns;    /* a write beside loads; else 0 */
	/* [m] from here on */
	struct span *next; /* free ones; those that wait to be written */
	uint32_t region, unit, units;
	uint32_t members; /* ios with something in it */
	uint32_t filled;  /* of these: copied */
	uint32_t left;	  /* of these: have not seen the result */
	bool closed;	  /* no more members */
	bool writing, over;
	int64_t result;
	struct waiter *waiters;
};

/* The table of a region that is not sealed yet. */
struct draft {
	struct stage_job job; /* that seals it */
	struct flash *tier;
	struct engine_chain chain;
	struct engine_op ops[3];
	struct iovec iov[1];
	uint8_t *memory; /* table and trailer as they are written; entries from the front */
	uint32_t region; /* UINT32_MAX: free */
	uint32_t epoch;	 /* the latest in which something of it was used */
	bool sealing;
};

struct reclaim;
struct commit;
struct fence;
struct space_write;

struct flash {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	const struct sys *sys;
	char path[512];
	int fd, probe_fd;     /* probe_fd: reads directly where fd does not; -1: none */
	bool direct, device;  /* device: not a file */
	bool sparse;	      /* a file that has holes, at open */
	uint32_t device_unit; /* its logical block */
	uint64_t there_bytes; /* of the file or device, at open */
	enum sync_choice sync;
	enum policy_kind policy_kind;
	uint64_t open_wait_ns, shed_ns, hang_ns;
	uint32_t entries_max, entries_room; /* room: for what a recovery finds at first */
	uint64_t shards_max;
	struct flash_layout layout;
	struct flash_super super; /* by open(), then the commit's job, then close() */
	bool super_unsure;	  /* the copy that was written last: whether it is there */
	bool super_old;		  /* what was read at open may be the one before the last */

	pthread_mutex_t mutex;
	pthread_cond_t
		space_over; /* a change of the namespaces has ended, or nobody waits for it */
	bool mutex_made;
	/* [m] from here on */
	struct table *table;
	void *table_memory;
	size_t table_memory_bytes;
	void *table_base; /* on huge pages: what to unmap */
	size_t table_base_bytes;
	struct region *regions;
	size_t regions_bytes;
	uint8_t *marks;		 /* records_max of each region */
	uint32_t *mark_counters; /* mark_pages of each region: writes of each page */
	size_t marks_bytes, mark_counters_bytes;
	size_t marks_touched;		     /* at most: pages, some of which regions share */
	uint32_t open_region[FLASH_STREAMS]; /* UINT32_MAX: none */
	uint32_t free_count, blank_count;
	uint64_t region_seq;
	uint64_t birth; /* the last one that was given to a block */
	uint64_t live_units;
	uint64_t blocks; /* of all namespaces */
	uint32_t epoch;	 /* policy.epoch, and never wraps */
	struct policy policy;
	struct policy_region *policy_regions;
	size_t policy_bytes;
	struct draft drafts[DRAFTS];
	struct span spans[SPANS];
	void *span_memory, *span_base;
	size_t span_base_bytes;
	struct span *span_free, *span_pending; /* pending: closed and filled, too many writes */
	struct span *span_open;		       /* the one that can be joined; NULL */
	uint32_t writes;		       /* under way */
	uint32_t beside;		       /* the next writes that go out beside loads */
	struct pace pace;		       /* of those */
	struct waiter *wait_key[WAIT_BUCKETS], *wait_room, *wait_span;
	/* flushes */
	bool flushing;
	struct waiter *flush_batch, *flush_next;
	struct engine_chain flush_chain;
	struct engine_op flush_op;
	/* blocks being written */
	struct partial *partials;
	uint32_t partials_free, partial_end, partial_oldest, partial_newest;
	uint32_t partial_buckets[PARTIAL_BUCKETS];
	/* namespaces */
	struct space **spaces; /* by id; NULL: none */
	uint32_t space_end;
	uint64_t space_counter;
	struct space_write *space_write;
	bool space_busy;      /* a change of the namespaces is under way */
	bool space_unflushed; /* the copy that was written last: it is written again, not the other
			       */
	bool space_single;    /* what it says is there once */
	struct reclaim *reclaim;
	struct commit *commit;
	uint64_t reclaims_begun, reclaims_over;
	bool kill_singles;   /* some region has such pages */
	uint32_t flush_owed; /* failures of a flush that records carried out of a region needed */
	uint32_t suspects;   /* regions */
	bool warm;	     /* some region has pages with uses that are not written */
	uint64_t warmed_ns;  /* when such pages were written last */
	uint32_t retired[FLASH_RETIRED_MAX], retired_count;
	bool retired_new; /* the superblock does not tell yet */
	/*
	 * Nobody has asked for anything to be durable, ever: the superblock says so. While that is
	 * so, and sync=group, nothing is flushed as regions are sealed and begun (commit.c, 8).
	 */
	bool unasked, lazy;
	/* Numbers of the commit's flushes: of the last that was sent; of the last that came
	 * through. */
	uint64_t flush_sent, flush_over;
	struct fence *fence;
	bool fenced;	 /* the device does not answer */
	bool refuses;	 /* the device takes no writes */
	uint32_t doubts; /* regions */
	/* No region, or no entry, can be had by a reclaim, until something is given back. */
	bool no_region, no_entry;
	uint32_t kept;	      /* regions */
	uint64_t room_events; /* each may have made it possible to reclaim something */
	uint64_t gifts;	      /* those of them that are not the reclaim's own */
};

/* A record that is written by this io. */
struct record_claim {
	struct table_place place;
	uint32_t head_at; /* a load: of its head in the workspace */
	uint8_t part;
};

/* A read: what lies in one piece in the file. */
struct slot {
	struct engine_chain chain;
	struct engine_op op;
	struct fio *fio;
};

/* A part of a load in one round. */
struct grain {
	uint32_t part;
	uint64_t start, length; /* of the stored bytes: whole pieces, the last may be short */
	uint8_t *at;		/* NULL: where the caller wants it */
};

/* The tier's scratch in an io. Owner: the io's reactor. */
struct fio {
	struct waiter wait; /* first */
	uint32_t magic;
	struct flash *tier;
	struct cairn_io *io;
	struct space *space;
	uint32_t generation;
	uint64_t fingerprint;
	void (*then)(struct fio *); /* when the chains are over */
	uint32_t chains_out;
	uint64_t mine; /* parts that are worked on now, a bit each */

	/* a dump */
	struct span *span;
	struct span *lead; /* [m] to be written by this io */
	uint32_t partial, entry;
	uint16_t incarnation;
	uint32_t claim_count;
	uint32_t region; /* of all its records */
	uint64_t chunk;	 /* of a record larger than a span: bytes written */
	uint64_t room_since_ns;
	bool room_waits; /* there was no room, since then */
	int32_t result;
	bool flush_lead;      /* [m] */
	int64_t flush_result; /* [m] */

	/* a load */
	bool retried, one_round;
	uint64_t bad;
	uint8_t *ws, *heads, *payload;
	size_t ws_bytes, heads_bytes, payload_bytes;
	uint32_t cursor;     /* part */
	uint64_t cursor_at;  /* stored bytes of it that are loaded */
	uint64_t heads_read; /* parts whose head is in memory and checked */
	uint32_t grain_count, iov_count;
	size_t payload_used, straight_used;
	uint64_t straight; /* parts whose payload is read straight to where it belongs */
	uint64_t pinned;   /* parts whose region has this io as a reader */
	uint64_t birth;
	bool birth_known;
	uint32_t slot_count;

	/* Not zeroed: each is written before it is counted, or a bit says that it was. */
	struct record_claim claims[CAIRN_PARTS_MAX]; /* a load: places of its parts */
	struct slot slots[LOAD_READS];
	struct grain grains[CAIRN_PARTS_MAX];
	struct iovec iov[2 * CAIRN_PARTS_MAX + 2];
};
#define FIO_ZEROED offsetof(struct fio, claims)

/* ---- fio.c: chains, waits, endings ------------------------------------------------- */

static inline void tier_lock(struct flash *tier)
{
	int rc = pthread_mutex_lock(&tier->mutex);

	assert(rc == 0);
	(void)rc;
}

static inline void tier_unlock(struct flash *tier)
{
	int rc = pthread_mutex_unlock(&tier->mutex);

	assert(rc == 0);
	(void)rc;
}

static inline struct fio *fio_of(struct waiter *waiter)
{
	return (struct fio *)(void *)waiter;
}

void fio_init(struct fio *f, struct flash *tier, struct cairn_io *io);
/* [m] What lets the io go on when blocks of its key change. */
struct waiter **fio_key_list(struct fio *f);
/* Sends a chain by the engine of the io. */
void fio_send(struct fio *f, struct engine_chain *chain);
/* Gives buffers back and completes the io. Nothing may touch @f after. */
void fio_complete(struct fio *f);
/* A negative errno of the device as the caller is told it. */
int32_t fio_errno(int64_t result);
/* The sound way to durable: waits for a flush that begins after now, then @then. */
void fio_flush(struct fio *f, void (*then)(struct fio *));
/* [m] The io tells the parent of the entry @id; the first one told stays. */
void block_tell(struct fio *f, uint32_t id);
/*
 * [m] Depth and parent of a new one, out of @attr; a parent that cannot be is taken out of it.
 * Whether it has one.
 */
bool block_begin(struct fio *f, uint32_t id, struct cairn_block_attr *attr);
uint32_t now_seconds(const struct flash *tier);
/* [m] Its time is up: it is found, and is as if it were not. */
bool block_expired(const struct flash *tier, uint32_t id);
/* [m] Figures that are shown, as they are now. */
void flash_gauges(struct flash *tier);

/* [m] A whole block more of a namespace, or one less. */
static inline void space_count(struct flash *tier, struct space *space, bool more)
{
	if (more) {
		space->blocks++;
		tier->blocks++;
	} else if (space->blocks) {
		space->blocks--;
		tier->blocks--;
	}
	flash_gauges(tier);
}

#define flash_error(reterr, code, ...) stage_error(reterr, code, "flash: " __VA_ARGS__)

/* ---- file.c: the file or device ------------------------------------------------------ */

/* Opens, locks, and of a device claims it. */
int flash_file_open(struct flash *tier, struct cairn_error *reterr);
/* That it is empty, or may be overwritten: where there is no superblock. */
int flash_file_take(struct flash *tier, struct cairn_error *reterr);
/* Takes all of its space, before the first byte of a new store; zeros where superblocks go. */
int flash_file_make(struct flash *tier, uint64_t bytes, struct cairn_error *reterr);
/* That the store whose superblock was read is all there. */
int flash_file_agrees(struct flash *tier, struct cairn_error *reterr);
/* Whether what was written there is read in pieces of @unit. */
bool flash_file_reads(struct flash *tier, uint32_t unit);

/* ---- super.c: the superblock, and the options that go with it -------------------------- */

int flash_super_open(struct flash *tier, struct cairn_error *reterr);
int flash_super_write(struct flash *tier); /* durable when it returns 0 */
/* [m] The page as it is now; where it goes. super_unsure is the caller's to take back. */
uint64_t flash_super_make(struct flash *tier, struct flash_super_page *ret_page);

/* ---- space.c --------------------------------------------------------------------------- */

int spaces_read(struct flash *tier, struct cairn_error *reterr);
void flash_spaces_free(struct flash *tier);
/* At open, when clean is taken away, and at close: both copies say what is so. */
int flash_spaces_settle(struct flash *tier);
int flash_space_bind(struct flash *tier, const struct cairn_ns_view *ns, struct space **ret_space,
		     struct cairn_error *reterr);
int flash_space_clear(struct flash *tier, struct space *space, uint32_t durability);
/* [m] The watch looks: who has waited for too long, or for a device that is fenced, leaves. */
void spaces_look(struct flash *tier, uint64_t now_ns);

/* ---- log.c: regions, records, spans ------------------------------------------------------ */

/*
 * [m] Takes @units for @records records in a row at the end of stream @stream.
 * False: no region is ready; reclaim is under way, wait in wait_room.
 */
bool log_reserve(struct flash *tier, uint32_t stream, uint32_t units, uint32_t records,
		 uint32_t *ret_region, uint32_t *ret_unit, uint32_t *ret_number);
/*
 * At open: as many regions as free_target() says are made ready, in place and by plain calls,
 * of those that are blank. They are flushed with what follows; one that cannot be written stays.
 */
void log_prepare(struct flash *tier);
/* [m] Whether log_reserve() of one record would take it from @region, where the last one was. */
bool log_goes_on(const struct flash *tier, uint32_t stream, uint32_t region, uint32_t units);
/* [m] So many numbers of a region are given out, or were found: their marks will be used. */
void region_marked(struct flash *tier, uint32_t number);
/* Whether what a call of @durability does is flushed before its answer. */
static inline bool tier_lasts(const struct flash *tier, uint32_t durability)
{
	return durability == CAIRN_DURABLE || tier->sync == SYNC_EACH;
}

/* [m] Whether what the log does by itself is flushed. */
static inline bool log_flushes(const struct flash *tier)
{
	return tier->sync != SYNC_NONE && !tier->lazy;
}

/* [m] Open regions that have something are sealed as they are: then they can be reclaimed. */
void log_close(struct flash *tier);
/* [m] @records of a region have ended, whatever came of them; seals it if it was the last. */
void log_settled(struct flash *tier, uint32_t number, uint32_t records);
/* [m] A record is in: its table entry, from its head. */
void log_record(struct flash *tier, uint32_t number, const struct flash_record *record);
/* [m] Nothing came of a record that is not settled yet: it is not in the table. */
void log_forget(struct flash *tier, const struct table_place *place);
/* [m] A write failed, or what was read again: nothing more goes into the region, ever. */
void region_retire(struct flash *tier, uint32_t number, int64_t error);
/* [m] The superblock is not to say that the region is retired. */
void region_unretire(struct flash *tier, uint32_t number);
/*
 * [m] The same for one that is not in use: it is called failed, and the superblock will
 * say so, but for @error -ENOSPC: the next open may find room.
 */
void region_fail(struct flash *tier, uint32_t number, int64_t error);
/* [m] A block in it did not check; one of DAMAGES_MAX retires it. */
void region_suspect(struct flash *tier, uint32_t number);
/* [m] A new use of it begins, or none ever. */
void region_trust(struct flash *tier, uint32_t number);
/* [m] A record that the table does not know any more, or never will. */
void record_dies(struct flash *tier, const struct table_place *place);
/* [m] A shard of entry @id, which the table has at @place; or will not have any more. */
void region_gain(struct flash *tier, uint32_t id, const struct table_place *place);
void region_lose(struct flash *tier, uint32_t id, const struct table_place *place);
/* [m] When the block was used last, as the table and the regions know it. */
void block_set_epoch(struct flash *tier, uint32_t id, uint32_t epoch);
/* [m] The mark of a record of it says when that was. */
void block_mark(struct flash *tier, uint32_t id, const struct table_place *place);
/* [m] A hold of it begins (false: it cannot be counted), or is given back. */
bool block_hold(struct flash *tier, uint32_t id);
void block_unhold(struct flash *tier, uint32_t id, uint16_t incarnation);
/* [m] Nothing of the block is being written: regions that were kept for that may go. */
void block_let_go(struct flash *tier, uint32_t id);
/* [m] Something that must stay in a region is let go of: it may be a victim again. */
void region_let_go(struct flash *tier, uint32_t number);
/* [m] Units that reclaims can carry elsewhere. */
uint32_t log_room(const struct flash *tier);
/* [m] Takes a block out: its records die. */
void block_remove(struct flash *tier, uint32_t id);
/* [m] The block was used, and so were those that it continues. */
void block_touch(struct flash *tier, uint32_t id);
/* [m] Tells it its parent, as table_set_parent(); which is not colder from then on. */
void block_continues(struct flash *tier, uint32_t id, uint64_t parent);

/* [m] Something was given back that may be room for who waits, or can be reclaimed now. */
static inline void room_came(struct flash *tier)
{
	tier->no_region = tier->no_entry = false;
	tier->room_events++;
	waiters_wake(&tier->wait_room);
}

/* [m] ... and not by the reclaim itself, which may go round once more for that. */
static inline void room_given(struct flash *tier)
{
	tier->gifts++;
	room_came(tier);
}

/* Fewer are free: reclaim. */
static inline uint32_t free_target(const struct flash *tier)
{
	uint32_t target = FREE_LEAST + tier->layout.region_count / 128;

	return target < FREE_MOST ? target : FREE_MOST;
}

static inline struct region *region_at(struct flash *tier, uint32_t unit)
{
	uint32_t number = flash_region_of(&tier->layout, unit);

	assert(number < tier->layout.region_count);
	return &tier->regions[number];
}

static inline uint8_t *mark_at(struct flash *tier, uint32_t region, uint32_t number)
{
	assert(number < tier->layout.records_max);
	return tier->marks + (size_t)region * tier->layout.records_max + number;
}

int spans_init(struct flash *tier);
/* [m] A free one, for a range of its own; NULL: none, wait in wait_span or wait_room. */
struct span *span_take(struct flash *tier, uint32_t region, uint32_t unit, uint32_t units);
/* [m] A place for a range in a span that others share; it may be the one just made. */
struct span *span_join(struct flash *tier, uint32_t region, uint32_t unit, uint32_t units);
/* [m] Whether span_join() of @units would find one. */
bool span_has_room(struct flash *tier);
/* The io has filled its part: it is written with the others; @step runs when it is over. */
void span_filled(struct fio *f, struct span *span, void (*step)(struct waiter *));
/* In @step: false when the io has to start a write first, and @step will run again. */
bool span_over(struct fio *f, struct span *span, void (*step)(struct waiter *),
	       int64_t *ret_result);

void seal_start(struct flash *tier, uint32_t number); /* [m] */
int drafts_init(struct flash *tier);
void drafts_fini(struct flash *tier);
/*
 * Seals, in place and by plain calls, what is open: at open, before there are reactors, and at
 * close. Records are flushed before, once for all that are sealed; @flushed: what came of it.
 */
int seal_flush(struct flash *tier);
int seal_now(struct flash *tier, uint32_t number, int flushed);

/* ---- outage.c ---------------------------------------------------------------------------- */

/* [m] A write of a region failed, or the flush that it needed: as region_retire(). */
void write_failed(struct flash *tier, uint32_t number, int64_t error);
/* [m] The superblock was written and flushed, or was not. */
void super_told(struct flash *tier, bool wrote);

/* ---- partial.c ------------------------------------------------------------------------- */

int flash_partials_init(struct flash *tier);
void flash_partials_fini(struct flash *tier);
/* [m] Of the entry @id; UINT32_MAX: none. */
uint32_t partial_find(struct flash *tier, uint64_t fingerprint);
/* [m] UINT32_MAX: all in use, and none is idle. */
uint32_t flash_partial_new(struct flash *tier, uint64_t fingerprint, uint32_t id,
			   uint32_t shard_count, uint64_t birth);
void flash_partial_touch(struct flash *tier, uint32_t partial); /* [m] */
void flash_partial_free(struct flash *tier, uint32_t number);	/* [m] */
/*
 * [m] The record of shard @shard of the entry @id is not what it should be: a whole block
 * goes, one that is being written lacks the shard again. @space: its namespace.
 */
void shard_damaged(struct flash *tier, struct space *space, uint32_t generation, uint32_t id,
		   uint32_t shard);
/* [m] Gives up the one touched longest ago that nobody writes to. False: none. */
bool partial_drop_oldest(struct flash *tier);

static inline bool shard_test(const uint64_t *map, uint32_t shard)
{
	return map[shard / 64] >> (shard % 64) & 1;
}

static inline void shard_set(uint64_t *map, uint32_t shard)
{
	map[shard / 64] |= 1ull << (shard % 64);
}

static inline void shard_clear(uint64_t *map, uint32_t shard)
{
	map[shard / 64] &= ~(1ull << (shard % 64));
}

/* ---- shed.c: more is dumped than the device takes ------------------------------------------- */

/*
 * [m] There is no room for a dump. True: it has ended, declined; false: it waits. Asked
 * each time, it answers the first until there was room.
 */
bool dump_shed(struct fio *f);

/* ---- dump.c, load.c, remove.c -------------------------------------------------------------- */

void flash_dump_submit(struct fio *f);
void flash_load_submit(struct fio *f);
void flash_remove_submit(struct fio *f);
void flash_prefetch_submit(struct fio *f);

/* ---- commit.c: deaths made lasting ---------------------------------------------------------- */

int commit_init(struct flash *tier);
void commit_fini(struct flash *tier);
/* Waits until deaths up to now are written, or (durable) will not come back; then @then. */
void commit_wait(struct fio *f, bool durable, void (*then)(struct fio *));
/* All marks, at close, and each death twice; flushed. */
int marks_write_all(struct flash *tier);
/* At open: deaths that are not written. They are flushed with what follows: marks_flushed(). */
void marks_write_dead(struct flash *tier);
void marks_flushed(struct flash *tier);
void commit_kick(struct flash *tier);  /* [m] a reclaim has ended */
void commit_super(struct flash *tier); /* [m] the superblock is to be written; not from open() */
/* [m] Something was used: now and then the marks say so in the file. Not from open(). */
void commit_warm(struct flash *tier);

/* ---- fence.c: a device that does not answer ------------------------------------------------- */

int fence_init(struct flash *tier);
void fence_fini(struct flash *tier);
/* A chain goes to the device; it has ended. Any thread, without the mutex. */
void fence_begin(struct flash *tier);
void fence_end(struct flash *tier);

/* ---- reclaim.c ---------------------------------------------------------------------------------
 */

int reclaim_init(struct flash *tier);
void reclaim_fini(struct flash *tier);
/* [m] Sees to it that regions become free. @entries: the table is full, too. */
void reclaim_kick(struct flash *tier, bool entries);
/*
 * [m] Whether a new use of the region is being begun in place of one whose records may have been
 * removed meanwhile: until that is over the file may still have the last use.
 */
bool reclaim_begins(const struct flash *tier, uint32_t region);
/* [m] What is being reclaimed now: of a reader that has ended. */
void reclaim_reader_gone(struct flash *tier, uint32_t region);
/* [m] A region has been sealed: its draft can be another's. */
void reclaim_draft_came(struct flash *tier);

/* ---- flash_recover.c
 * ------------------------------------------------------------------------------------ */

int flash_recover(struct flash *tier, struct cairn_error *reterr);

#endif
