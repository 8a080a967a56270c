/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks: batches that are submitted together; each item has its own result.
 *
 * A block is written once: an array of shards under a key. It is present when
 * the tiers together hold every shard of it; until then a shard of it loads as -ENOENT. Dumping
 * what is present moves nothing and ends CAIRN_PRESENT; to change a block is
 * to remove it and dump it again.
 *
 * Life of a task: submission -> result (every item has its result) -> release
 * (nothing touches the caller's memory again). The two come together unless
 * the deadline passes, or the task is cancelled, while I/O that targets the
 * caller's memory is in flight: then the result comes at the deadline and the
 * release when that I/O has ended. With CAIRN_TASK_DETACH they always come
 * together.
 *
 * What is lent: the arrays of xfers, segments, keys, attributes and results
 * until the result; the memory that segments name until the release.
 *
 * Threads: any call from any thread, any number at once. More items than the
 * store has slots is backpressure inside the task, never an error.
 */
#ifndef CAIRN_TASK_H
#define CAIRN_TASK_H

#include <cairn/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- xfers ------------------------------------------------------------ */

#define CAIRN_PRESENT 1 /* result of a dump: already present, nothing moved */

struct cairn_result {
	int32_t status;	  /* 0, CAIRN_PRESENT, or a negative errno */
	uint16_t stage;	  /* that answered: see cairn_stage_name(); or CAIRN_STAGE_NONE */
	uint16_t reached; /* a dump: how far it got, enum cairn_durability + 1; else 0 */
};
/*
 * No level says anything before the block is whole; `reached` of the dump that
 * makes it whole, and of those after it, is then the block's. A block that no tier
 * has whole, but all of them together (one failed to take some shards, another one
 * others), is present, but what a tier holds unfinished is lost at close: however
 * much was asked, a dump of it ends 0 or CAIRN_PRESENT with `reached` at
 * CAIRN_MEMORY + 1. Dumped again it lasts, if a tier that persists takes all of it.
 */
#define CAIRN_STAGE_NONE 0xffffu /* no stage was asked: deadline, cancel, arguments */

struct cairn_segment {
	void *base; /* a dump only reads it */
	uint64_t length;
};

/* @count runs of @run bytes, @stride bytes from start to start. */
struct cairn_stride {
	void *base;
	uint64_t run, stride, count;
};

enum cairn_memory {
	CAIRN_MEMORY_HOST = 0,
};

/*
 * What the engine knows of a block; stored with it. The first attribute told
 * stays. `ttl_ns` counts from the dump, by CLOCK_REALTIME: `flash` and `cache`
 * then miss, in lookups as in loads, and give the room back as they come by it;
 * `posix` keeps it with the block, and does not act on it.
 */
struct cairn_block_attr {
	size_t size;		 /* sizeof(struct cairn_block_attr) */
	struct cairn_key parent; /* the block that this one continues; all zero: none */
	uint32_t depth;		 /* blocks before this one in its prefix */
	uint32_t priority;	 /* 0 (go first) to 100; 0 is also "not said" */
	uint64_t ttl_ns;	 /* 0: none */
	uint64_t cost_ns;	 /* to recompute; 0: not said */
};

/*
 * One shard, or a part of one, to move. Zero the struct, then fill it.
 * The bytes are the segments in order, or, when segment_count is 0, the
 * stride; either way they must add up to @length. No alignment is demanded;
 * cairn_stat.alignment tells which one avoids a copy.
 */
struct cairn_xfer {
	struct cairn_key key;
	uint32_t shard;
	uint32_t memory; /* enum cairn_memory */
	uint64_t offset; /* in the shard; a dump: 0 */
	uint64_t length; /* a dump: the whole shard */
	const struct cairn_segment *segments;
	struct cairn_stride stride;
	uint32_t segment_count;
	uint32_t shard_count; /* dumps into a variable namespace: of the block */
	uint64_t shard_bytes; /* likewise: of every shard but the last, which may be short */
	const struct cairn_block_attr *attr; /* dumps; NULL: none */
	uint64_t reserved[2];		     /* zero */
	struct cairn_result result;	     /* out */
};

/* ---- registered memory ---------------------------------------------------- */

/*
 * Registers [@base, @base + @bytes): memory that the caller keeps for long, and that I/O may
 * be aimed at, as an engine's pool of host memory. Xfers whose bytes lie in registered
 * ranges, each segment in one, are read by a tier straight to where they belong, where else
 * they would be copied there. So what such an xfer names may hold any bytes until it ended
 * with 0, and after another end. Worth it where the memory is on huge pages: a virtual disk
 * is slower with small ones (docs/architecture.md, "Memory"). With CAIRN_TASK_DETACH nothing
 * is aimed at it, as always; what does not lie at cairn_stat.alignment is copied.
 *
 * The memory is the caller's, lent until cairn_memory_unregister() returned 0, or the
 * store is closed: it stays mapped, readable and writable. Nothing of it is touched by
 * the call, nor locked: it costs no RLIMIT_MEMLOCK. For tasks submitted from then on.
 * Any thread, a lock for an instant; ranges are as many as there is memory for, a few bytes
 * each, and copied at each call. A child after a fork has none registered.
 *
 * Errors: -EINVAL (NULL, no bytes, beyond the address space, or it meets a range that is
 * registered), -ENOMEM, -ECANCELED (closing), -EOWNERDEAD.
 */
CAIRN_API int cairn_memory_register(struct cairn_store *store, void *base, size_t bytes);

/*
 * Takes back the range that was registered at @base. Tasks that are submitted from then on
 * do not aim at it; the call waits for those before it until they are released, up to
 * @timeout_ns (0: asks only; UINT64_MAX: as long as it takes). 0: no I/O targets the memory
 * for having been registered. -ETIMEDOUT: some may still; it is no longer registered, but
 * not free, and this call may be made again. -ENOENT: nothing is registered at @base, and
 * no such task is left. -ENOMEM: nothing was done. -EOWNERDEAD. Any thread; from a
 * task's callback with @timeout_ns 0 only.
 */
CAIRN_API int cairn_memory_unregister(struct cairn_store *store, void *base, uint64_t timeout_ns);

/* ---- submission -------------------------------------------------------- */

enum cairn_durability {
	CAIRN_MEMORY = 0,  /* any attached process can load it; without a memory tier: WRITTEN */
	CAIRN_WRITTEN = 1, /* survives the death of every process */
	CAIRN_DURABLE = 2, /* survives power loss */
};

/* Served in this order, each with a share it cannot starve below. */
enum cairn_class {
	CAIRN_CLASS_DEFAULT = 0, /* load, dump or prefetch, as the call says */
	CAIRN_CLASS_URGENT = 1,
	CAIRN_CLASS_LOAD = 2,
	CAIRN_CLASS_PREFETCH = 3,
	CAIRN_CLASS_DUMP = 4,
};

/*
 * The keys are one prefix in order, each the parent of the next; the first
 * parent told stays; one not shallower is ignored. Depth counts from the first
 * item's attribute, or from 0: so a task may go on where another one stopped.
 */
#define CAIRN_TASK_CHAIN	 0x1u
/* No I/O targets the caller's memory: at the deadline it is free. */
#define CAIRN_TASK_DETACH	 0x2u
/*
 * How a tier that caches deals with the task's dumps, whatever its `write=` says; one of them
 * at most. THROUGH: kept, and written below before they end. BACK: at CAIRN_MEMORY they end
 * once they are kept, where the tier can hold dumps back, and are written below later. AROUND:
 * written below alone. Where no tier caches, or nothing is below, they say nothing.
 */
#define CAIRN_TASK_WRITE_THROUGH 0x4u
#define CAIRN_TASK_WRITE_BACK	 0x8u
#define CAIRN_TASK_WRITE_AROUND	 0x10u

#define CAIRN_DEADLINE_NONE UINT64_MAX

struct cairn_queue;

/* Zero it, set size; all else has a default at zero. NULL where one is taken: all defaults. */
struct cairn_task_opts {
	size_t size;	      /* sizeof(struct cairn_task_opts) */
	uint64_t deadline_ns; /* from the submission; 0: the store's; or CAIRN_DEADLINE_NONE */
	uint32_t flags;	      /* CAIRN_TASK_* */
	uint32_t task_class;  /* enum cairn_class */
	uint32_t durability;  /* enum cairn_durability; dumps and removes */
	uint32_t prerequisite_kind; /* 0: none. An event before which buffers may not be read */
	uint64_t prerequisite;	    /* 0 */
	struct cairn_queue *queue;  /* completions go here instead of to cairn_task_wait() */
	/*
	 * Or here: called once for the result and the release together, or once
	 * for each; @events is a set of CAIRN_EVENT_*. On a thread of the store:
	 * it must not block, and may call anything but waits and closes. At the
	 * release the id is gone and the task's slot free for the next one.
	 */
	void (*done)(void *context, uint64_t task, uint32_t events);
	void *context;	      /* for done, and in completions */
	uint64_t reserved[4]; /* zero */
};

/*
 * Loads or dumps @count xfers. With @ret_task the call returns at once and
 * *ret_task names the task; without it (NULL) the call returns when the task
 * has its result AND its release or its deadline has passed, and a lone small
 * load runs on the calling thread.
 *
 * Returns 0 when it was submitted (with NULL: when every item ended with 0 or
 * CAIRN_PRESENT; else the first item's error in order). Errors that submit
 * nothing: -EINVAL (a field; nothing was half-applied), -EAGAIN (no task slot:
 * only with @ret_task; without it the call waits for one until its deadline),
 * -EOPNOTSUPP (durability or memory kind), -ECANCELED (closing), -EOWNERDEAD.
 * -ETIMEDOUT with NULL: the deadline passed; then memory that was in flight is
 * not yet free: see cairn_store_quiesce(). Where a call with NULL found no slot until
 * its deadline, or the store closed meanwhile, every item's result says so
 * (-ETIMEDOUT or -ECANCELED, CAIRN_STAGE_NONE).
 */
CAIRN_API int cairn_load(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
			 const struct cairn_task_opts *opts, uint64_t *ret_task);
CAIRN_API int cairn_dump(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
			 const struct cairn_task_opts *opts, uint64_t *ret_task);

/*
 * Removes @count blocks from every tier: absent at once for later lookups,
 * held or not. Result 0, or -ENOENT where there was none; -EOPNOTSUPP from a tier
 * that cannot make it durable, which keeps the block. @results may be NULL.
 */
CAIRN_API int cairn_remove(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
			   struct cairn_result *results, const struct cairn_task_opts *opts,
			   uint64_t *ret_task);

/*
 * Brings @count blocks up from the lowest tier that has them to the hottest that
 * caches. Result 0 (there now, or no tier above caches, or the one that does is not the
 * first stage of the pipeline, and brings nothing up), or -ENOENT. @results may be NULL.
 * What waits is brought up in the order of the deadlines, so much in a second as the
 * store's `prefetch` says, and not any more once its task has ended.
 */
CAIRN_API int cairn_prefetch(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
			     struct cairn_result *results, const struct cairn_task_opts *opts,
			     uint64_t *ret_task);

/*
 * Empties the namespace: raises its generation in every tier, O(1) whatever
 * the store holds. Blocks dumped by calls that began before it may be absent
 * or present. @durability as for a task; CAIRN_DURABLE: stays cleared over
 * power loss. A few small writes, and syncs where durable, on the caller's thread,
 * which no deadline ends. Where a cache holds dumps back (`write=back`), not from a task's
 * callback: it waits for what of the namespace is being written below just then, and ends
 * -EIO when that takes longer than 10 s. 0, -EINVAL, -EIO,
 * -EOPNOTSUPP.
 */
CAIRN_API int cairn_clear(struct cairn_namespace *ns, uint32_t durability);

/* ---- completion -------------------------------------------------------- */

#define CAIRN_EVENT_RESULT  0x1u /* every item has its result */
#define CAIRN_EVENT_RELEASE 0x2u /* nothing touches the caller's memory again */

/*
 * Waits until the task has reached all of @events (0: both), for at most
 * @timeout_ns (0: asks only; UINT64_MAX: as long as it takes). When it
 * returns 0 having seen the release, the task id is gone. For tasks with
 * neither queue nor callback; of several waiters one has the release, the others
 * -EINVAL. -ETIMEDOUT: the task runs on. -EINVAL: no such task, or not one to wait
 * for.
 */
CAIRN_API int cairn_task_wait(struct cairn_store *store, uint64_t task, uint32_t events,
			      uint64_t timeout_ns);

/*
 * Ends the task early: items not finished end -ECANCELED. Completions come as
 * always, and release rules are those of the deadline. 0, or -EINVAL for a
 * task that is gone.
 */
CAIRN_API int cairn_task_cancel(struct cairn_store *store, uint64_t task);

/*
 * Waits until no I/O in flight targets memory of any caller whose task has
 * ended: what a caller of the synchronous form does after -ETIMEDOUT, before
 * it frees its memory. 0 or -ETIMEDOUT.
 */
CAIRN_API int cairn_store_quiesce(struct cairn_store *store, uint64_t timeout_ns);

/* Where completions of many tasks are drained in batches, behind one eventfd. */
CAIRN_API int cairn_queue_open(struct cairn_store *store, struct cairn_queue **ret_queue);

/*
 * -EBUSY: tasks that name the queue are in flight or wait to be drained, or a thread
 * is in cairn_drain(). NULL is 0.
 */
CAIRN_API int cairn_queue_close(struct cairn_queue *queue);

/*
 * Readable while completions wait. The descriptor is the queue's: poll it, do
 * not read or close it. A queue that is not asked for it never signals it.
 */
CAIRN_API int cairn_event_fd(struct cairn_queue *queue);

struct cairn_completion {
	uint64_t task;
	void *context;
	uint32_t events; /* those that this record brings */
	uint32_t failed; /* items whose result is negative */
};

/*
 * Takes up to @max completions, waiting up to @timeout_ns for the first one
 * (0: does not wait). A count, 0 for none.
 */
CAIRN_API int cairn_drain(struct cairn_queue *queue, struct cairn_completion *completions,
			  size_t max, uint64_t timeout_ns);

/* ---- lookups ------------------------------------------------------------ */

#define CAIRN_LOOKUP_HOLD 0x1u

#define CAIRN_HOLDS_MAX 4096u /* in force at once, in one store */

struct cairn_found {
	uint32_t present; /* 1: whole */
	uint16_t stage;	  /* the hottest that has it */
	uint16_t shard_count;
	uint64_t shard_bytes; /* of every shard but the last */
	uint64_t last_bytes;  /* of the last one */
};

struct cairn_lookup_opts {
	size_t size;	   /* sizeof(struct cairn_lookup_opts) */
	uint32_t flags;	   /* CAIRN_LOOKUP_* */
	uint32_t reserved; /* zero */
	uint64_t hold_ns;  /* how long to hold; 0: the store's `hold_time`; `hold_max` caps it */
};

/*
 * Says for each key whether its block is whole: sets @found[i] and returns how
 * many are. cairn_lookup_prefix() takes the keys as one prefix in order, each
 * the parent of the next, and returns how many leading ones are whole (@found,
 * which may be NULL here, is set for those). Memory probes for every tier that
 * this machine owns. Under `shared=yes` one probe of the file system a key, on the
 * caller's thread: it takes as long as the file system does, and no deadline ends it.
 *
 * With CAIRN_LOOKUP_HOLD, @ret_hold (else NULL) becomes a hold that keeps what
 * was counted in every tier that this machine owns until it is released,
 * expires, or its owner dies. Holds are bounded: in time by the store's `hold_max`;
 * what would exceed `hold_bytes` or `hold_keys`, or comes when CAIRN_HOLDS_MAX holds
 * are in force, counts as absent; so does a block that is whole only over several
 * tiers, for none of them can promise its part, and what a cache has no record left for: of
 * as many as it has `entries`, 1024 to 65536, seven eighths or so are for holds and pins, one
 * for each block and hold. Removes and clears win over holds.
 * *ret_hold is 0 when nothing was counted.
 *
 * Errors: -EINVAL, -EOWNERDEAD.
 */
CAIRN_API int64_t cairn_lookup(struct cairn_namespace *ns, const struct cairn_key *keys,
			       size_t count, struct cairn_found *found,
			       const struct cairn_lookup_opts *opts, uint64_t *ret_hold);
CAIRN_API int64_t cairn_lookup_prefix(struct cairn_namespace *ns, const struct cairn_key *keys,
				      size_t count, struct cairn_found *found,
				      const struct cairn_lookup_opts *opts, uint64_t *ret_hold);

/* Gives a hold back. 0 is ignored; -ENOENT: it had expired. */
CAIRN_API int cairn_hold_release(struct cairn_store *store, uint64_t hold);

#ifdef __cplusplus
}
#endif
#endif
