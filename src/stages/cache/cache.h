/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache stage: what the others of this folder serve.
 *
 * Invariants, numbered:
 *  1. An io has at most one entry pinned, and fills, or waits for, shards of it alone.
 *  2. What an io fills is published or abandoned before the io is completed; a shard that
 *     another one fills is waited for with a timer, never with a lock.
 *  3. Memory of the region that I/O of this process targets is pinned until it has ended.
 *  4. A remove goes below first: whoever fills from below before that has the entry in the
 *     table, where the remove finds it after.
 */
#ifndef STAGES_CACHE_CACHE_H
#define STAGES_CACHE_CACHE_H

#include <pthread.h>

#include <cairn/stage.h>

#include "core/stage_env.h"
#include "policy/score.h"
#include "stages/cache/block.h"
#include "stages/cache/evict.h"
#include "stages/cache/region.h"

#define CACHE_STAGE_MAGIC 0x63636163u

enum cache_option {
	OPT_SIZE,
	OPT_ENTRIES,
	OPT_NAME,
	OPT_POLICY,
	OPT_WRITE,
	OPT_DIRTY,
	OPT_HUGEPAGES,
	OPT_PREFAULT,
	OPT_VERIFY,
	OPT_KEEP,
	OPT_OPEN_WAIT,
	OPT_ROWS,
};

enum cache_counter {
	CC_HITS,
	CC_MISSES,
	CC_FILLS,
	CC_FILL_FAILED,
	CC_WAITS,
	CC_PRIVATE,
	CC_DUMPED,
	CC_ALREADY,
	CC_BYPASSED,
	CC_EVICTED,
	CC_EVICTED_PARENTS,
	CC_REMOVED,
	CC_DAMAGED,
	CC_REFUSED,
	CC_PREFETCHED,
	CC_PREFETCH_USED,
	CC_PREFETCH_WASTED,
	CC_HELD_BACK,
	CC_FLUSHED,
	CC_FLUSH_FAILED,
	CC_DIRTY,
	CC_REPAIRS,
	CC_SWEPT,
	CC_BYTES_USED,
	CC_BYTES_LIMIT,
	CC_CLIENTS,
	CC_CHUNKS,
	CC_CHUNKS_MISSING,
	CC_ROWS,
};

/* In the order of the option's choices. */
enum cache_write { WRITE_THROUGH, WRITE_AROUND, WRITE_BACK };

struct cache_binding {
	struct cache_binding *next;
	uint32_t space; /* id; CACHE_NONE: no place for the namespace, nothing of it is kept */
};

struct cache_stage {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	const struct sys *sys;
	struct region region;
	struct cache_map *map; /* the region's */
	enum policy_kind policy;
	enum cache_write write;
	bool tails; /* shards have sums, whoever asked for them */
	bool verify_hits;
	bool eager; /* all chunks get memory, as soon as can be */
	uint64_t largest_block;
	uint64_t dirty_max;		/* bytes of shards held back by all processes, or so */
	struct flush *flush;		/* flush.c; NULL: nothing can be held back */
	struct cache_binding *bindings; /* under the store's bind lock */

	/* reserve.c */
	pthread_mutex_t reserve_lock;
	struct reservation *reservations;
	uint32_t reservation_count; /* a hint without the lock */

	/* background.c */
	struct stage_job job;
	struct engine_chain chain;
	struct engine_op op;
	uint32_t job_started, job_busy, want_repair;
	uint32_t repairs_seen; /* of the region, that a walk came after; background work's own */
	uint32_t all_backed;   /* a mark of base/atomic.h: no chunk is to get memory any more */
	uint32_t changed;      /* a flag: bytes in use are to be told anew */
	uint64_t told_ns;      /* when they were; background work's own */
	uint64_t looked_ns;    /* when it was looked whether other clients live */
};

/* The scratch of an io. */
struct cache_saved {
	const struct iovec *iov;
	uint32_t iov_count, crc_count;
	uint64_t offset, length;
	uint32_t *crc;
};

struct cache_io {
	uint32_t record; /* its pin, or CACHE_NONE */
	uint32_t entry, life;
	bool down;	/* forwarded, to come back by done() */
	bool was_there; /* a remove: it took one from memory */
	bool over;	/* a dump: the tier below has answered */
	uint64_t began_ns, pause_ns;
	bool aimed; /* a load: I/O may be aimed at the caller's memory */
	/*
	 * Parts that fill, of these those that come to their slots, that wait, that go their own
	 * way below, that were made in place.
	 */
	uint64_t filling, straight, waiting, apart, in_place;
	uint32_t tries;
	bool prefetch, brought; /* brought: a shard of the block */
	uint32_t next_shard;	/* of a prefetch */
	/* Not zeroed: of those parts alone whose bits are set above. */
	struct cache_place places[CAIRN_PARTS_MAX];
	struct cache_saved saved[CAIRN_PARTS_MAX];
	struct iovec own[CAIRN_PARTS_MAX];
};
#define CACHE_IO_ZEROED offsetof(struct cache_io, places)

static inline struct cache_binding *cache_binding(const struct cache_stage *stage,
						  const struct cairn_ns_view *ns)
{
	return (struct cache_binding *)ns->binding[stage->env->index];
}

/* False: the namespace has no place in the region. */
bool cache_key(const struct cache_stage *stage, const struct cairn_ns_view *ns,
	       const struct cairn_key *key, struct cache_key *ret_key);

/*
 * The name of the region of a pipeline: name=, or the UUID below, written to @buffer. NULL: it is
 * this process's own.
 */
#define CACHE_NAME_BYTES 33u
const char *cache_region_name(const struct cairn_stage_env *env, bool below_known,
			      const uint8_t below[16], char buffer[CACHE_NAME_BYTES]);

/* look.c: cairn_inspect() of CAIRN_INSPECT_MEMORY. */
int cache_inspect(const struct cairn_stage_env *env, uint64_t region,
		  int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		  struct cairn_error *reterr);

/* cache.c: gauges that any thread may set. */
void cache_tell(struct cache_stage *stage);
/* Bytes of slots in use, by all processes: a walk over chunks. */
uint64_t cache_tell_used(struct cache_stage *stage);

/* binding.c */
int binding_make(struct cache_stage *stage, const struct cairn_ns_view *ns, void **ret_binding,
		 struct cairn_error *reterr);
int binding_clear(struct cache_stage *stage, const struct cairn_ns_view *ns);
void bindings_free(struct cache_stage *stage);

/* background.c: memory for chunks, and cleaning up after the dead, on a worker. */
void background_start(struct cache_stage *stage); /* at the first bind; no two at once */
void background_kick(struct cache_stage *stage, bool repair);
/* Slots were taken or freed: gauges follow soon. Any thread. */
void background_changed(struct cache_stage *stage);
/* reclaim_gone(). Any thread. */
void background_reclaim(struct cache_stage *stage, uint32_t entry);
/* Chunks that are still to get memory. */
bool background_pending(struct cache_stage *stage);

/* flush.c: what was dumped and held back is written below. */
int flush_init(struct cache_stage *stage);
void flush_fini(struct cache_stage *stage);
/* Begins what can be begun. Any thread. */
void flush_pump(struct cache_stage *stage);
/* When somebody must call flush_pump() again; UINT64_MAX: what is under way does. */
uint64_t flush_next_ns(struct cache_stage *stage);
/* May a block of @bytes be held back? */
bool flush_room(struct cache_stage *stage, uint64_t bytes);
/* The block of a dump, which is DIRTY, is to be written below; or of anybody's. */
void flush_add(struct cache_stage *stage, const struct cairn_io *io, uint32_t entry, uint32_t life);
void flush_hurry(struct cache_stage *stage, const struct cache_ref *ref);
/* All entries are to be looked at: somebody died, or nobody has seen to them yet. */
void flush_walk(struct cache_stage *stage);
/* After the generation was raised: until nothing of an older one is in flight. 0, or -EIO. */
int flush_clear_wait(struct cache_stage *stage, uint32_t space);

/* common.c: what loads and dumps share. */
/* Has the io a record to pin with? */
bool io_record(struct cache_stage *stage, struct cache_io *own);
bool io_pin(struct cache_stage *stage, struct cache_io *own, const struct cache_ref *ref);
void io_unpin(struct cache_stage *stage, struct cache_io *own);
/* The same; an entry of which nothing is there goes with the last io that has it pinned. */
void io_leave(struct cache_stage *stage, struct cache_io *own);
/* Tells a pinned entry whose child it is, if the io says so and nobody has yet. */
void io_parent(struct cache_stage *stage, const struct cairn_io *io, const struct cache_io *own,
	       const struct cache_key *key);
/* The io's entry, found or made, after evicting what must go. False: it cannot be had now. */
bool io_entry(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
	      const struct cache_shape *shape);
/* What came up from below expires here, too; before any of it is there for others. */
void io_expires(struct cache_stage *stage, const struct cairn_io *io, const struct cache_io *own);
/* A slot reserved for the part's stored bytes, after evicting what must go. */
bool take_slot(struct cache_stage *stage, uint64_t stored, uint32_t meta, uint64_t *ret_slot);
void cache_touch(struct cache_stage *stage, uint32_t entry, uint64_t now);
uint64_t cache_tick(struct cache_stage *stage);
bool cache_expired(const struct cache_stage *stage, uint32_t entry);
/* A block whose bytes do not check is not served again. */
void cache_damaged(struct cache_stage *stage, uint32_t entry, uint32_t life);
/* Bytes of a shard to the io. */
void copy_to_iov(const struct iovec *iov, uint32_t iov_count, const uint8_t *from);
/* What lies behind the payload of a part that is to be published, where anything does. */
/* ---- tail.c ---- */

/* The sum and the metadata of a shard, behind its payload, where the region has any. */
void tail_seal(const struct cache_stage *stage, const struct cairn_part *part, uint8_t *payload);
/* May it be served without a look at its sum? */
bool tail_fresh(const struct cache_stage *stage, const struct cache_view *view);
/* May it be served, be it after such a look? */
bool tail_sound(const struct cache_stage *stage, const struct cache_view *view);
/* Is its sum right? Then it is fresh from now on. */
bool tail_right(const struct cache_stage *stage, const struct cache_view *view);

bool io_late(const struct cache_stage *stage, const struct cairn_io *io);
void io_pause(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);

void load_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void load_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void load_describe(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void dump_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void dump_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void remove_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void remove_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void prefetch_begin(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);
void prefetch_done(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own);

/* here.c: on the caller's thread. */
int cache_serve(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *xfer);
int cache_pin(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
	      uint32_t shard, struct cairn_pinned *ret_pinned);
int cache_unpin(void *self, uint64_t pin);

/* reserve.c */
struct reservation {
	void *base; /* NULL: free */
	uint64_t length;
	uint32_t record;
	struct cache_place place;
};
int reserve_init(struct cache_stage *stage);
void reserve_fini(struct cache_stage *stage);
int cache_reserve(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *shape,
		  struct cairn_reserved *ret_reserved);
int cache_reserved(void *self, const struct cairn_xfer *xfer);
int cache_abort(void *self, void *base);
/* The reservation of a part of a dump that lies in one. */
bool reservation_of(struct cache_stage *stage, const struct cairn_part *part,
		    struct reservation *ret_reservation);
/* Takes it out. @published: its shard is there, so only its pin is given back. */
void reservation_end(struct cache_stage *stage, void *base, bool published);

/* Serves a part from a shard that is there. 0, -EINVAL, or -EBADMSG: it does not check. */
int load_hit(struct cache_stage *stage, uint32_t entry, struct cairn_part *part);

#endif
