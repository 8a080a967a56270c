/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors: each owns an I/O engine, its ios, its timers and its bounce memory.
 * A standing reactor has a thread; a light one is driven by the caller who runs
 * its own small load, and by standing reactor 0 when that caller had to leave
 * at its deadline.
 *
 * Invariants:
 *  1. Only the driving thread touches a reactor, but for its inbox.
 *  2. An io is in flight from io_start() to io_finish(), and is finished once.
 *  3. Ended items are never written to again: an abandoned io writes no result.
 */
#ifndef CORE_REACTOR_H
#define CORE_REACTOR_H

#include "base/buddy.h"
#include "base/bucket.h"
#include "core/task.h"

#define REACTOR_MAGIC	0x43525243u
#define IO_MAGIC	0x4352494fu
#define IO_IOVS_MAX	256u /* segments of one io; what has more goes through a bounce buffer */
#define BOUNCE_IO_MAX	(4u << 20) /* bytes that several parts of one io may bounce together */
#define LIGHT_IOS	4u
#define OWN_IOS		16u /* of a standing reactor beside the others, where a stage has tasks */
#define LIGHT_BUFFERS	(8u << 20)
#define CLASSES		4u
#define JOB_CHAINS	64u	   /* in flight for stages' jobs, beside 8 for each io */
#define CLASS_FLOOR	16u	   /* a class passed over so often is served next */
#define POOL_CHUNK	(2u << 20) /* registered at once */
#define STARTS_MAX	64u /* ios started in one turn: then deadlines and messages are looked at */
/*
 * Bytes of dumps started in one turn, or one io: a tier sums and perhaps copies
 * them at once, and the device must not stand still until all have been. And of one io that has
 * more than one part, where a tier asks for it (split_dumps() of core/stage_env.h).
 */
#define DUMP_TURN_BYTES (1u << 20)
/*
 * Likewise of loads. What lies in the page cache is copied as it is submitted: it is summed
 * before the next ones push it out of the processor's caches.
 */
#define LOAD_TURN_BYTES (2u << 20)

/*
 * Queues are told of a few ends at once, so that who drains is woken once for them;
 * at the latest when nothing more has ended, or so much has been copied, which takes time,
 * or so many turns have gone by: what ends in them may be of jobs, or of a long task.
 */
#define TOLD_MAX   8u
#define TOLD_TURNS 4u
#define TOLD_BYTES (64u << 10)

struct io_slot {
	uint32_t magic;
	struct cairn_io io;
	struct reactor *reactor;
	struct task_part *part; /* NULL: orphaned */
	struct list link;	/* in part->ios */
	struct list waiting;	/* in the free list, or for a buffer */
	struct message resume;
	uint32_t resume_posted; /* a flag of base/atomic.h */
	bool abandoned;		/* its items have their results */
	bool caller_memory;	/* iovs name the caller's memory */
	bool aimable;		/* I/O may be aimed at what iovs name */
	bool wants_buffer;
	bool united; /* not a load, and union_find() had the block when it came */
	bool own;    /* for stages' tasks alone */
	uint32_t first_level;
	uint32_t iov_count;
	uint64_t timer_ns;
	uint32_t timer_index; /* in the heap, + 1; 0: none */
	void *bounce;
	const struct iovec *caller_iov[CAIRN_PARTS_MAX]; /* where a bounced load goes */
	uint32_t caller_iov_count[CAIRN_PARTS_MAX];
	uint64_t charged_bytes; /* of a prefetch, thought of when it began */
	uint16_t status_stage;	/* who set io.status */
	uint32_t item[CAIRN_PARTS_MAX];
	int32_t best[CAIRN_PARTS_MAX]; /* of the tiers so far */
	uint16_t best_stage[CAIRN_PARTS_MAX];
	uint64_t live; /* parts that were pending when the stage at io.level was entered */
	struct cairn_part parts[CAIRN_PARTS_MAX];
	struct iovec iovs[IO_IOVS_MAX];
	uint8_t scratch[] __attribute__((aligned(16)));
};

struct reactor {
	uint32_t magic;
	uint32_t index;
	struct cairn_store *store;
	const struct engine_ops *engine_ops;
	struct engine *engine;
	struct engine_stat counted; /* of it, and in the store's counters */
	pthread_t thread;
	bool standing, started;
	struct ring inbox;
	uint32_t stop; /* a stop sign of base/atomic.h */

	void *ios_memory;
	size_t io_bytes;
	uint32_t ios, ios_made; /* made: at their first use, in order */
	uint32_t ios_in_flight, dumps_in_flight, prefetches_in_flight;
	struct list free_ios; /* of those that were made */
	/*
	 * For tasks of stages' own: those of callers may wait for these, and have all others.
	 */
	uint32_t own_count, own_made;
	struct list own_ios, own_queue; /* own_queue: task_part.queued */

	struct list queues[CLASSES]; /* task_part.queued */
	uint32_t passed[CLASSES];
	struct bucket prefetch;	   /* its share of what prefetches may bring up */
	uint64_t prefetch_next_ns; /* when it opens again; UINT64_MAX: none waits for it */
	struct list parts;	   /* task_part.active */
	uint64_t next_deadline_ns;
	struct list starved; /* task_part.queued of those that wait for bounce memory, in order */
	bool more;	     /* there is work left to start without waiting */
	uint64_t dump_bytes; /* of the dumps started in this turn */
	uint64_t load_bytes; /* and of the loads */
	struct list told;    /* task.free_link of those whose queues are still to be told */
	uint32_t told_count; /* parts that ended since a queue was told */
	uint32_t told_turns; /* that began with such a one */
	uint64_t told_bytes; /* that were copied to callers since a queue was told */

	struct io_slot **timers; /* a binary heap by timer_ns */
	uint32_t timer_count;
	struct list buffer_waiters; /* io_slot.waiting */
	bool buffer_came, bounce_came;

	void *pool, *pool_base;
	size_t pool_base_bytes;
	size_t pool_bytes;
	/*
	 * The stages' part of the pool, and behind it that of the callers' bytes.
	 * They are apart because an io with bounced bytes may have to wait for a
	 * buffer of a stage's: those bytes must not be what it waits for.
	 */
	size_t stage_bytes;
	struct buddy buddy, bounce;
	uint64_t
		bounce_max; /* the largest piece of it; 0: a light reactor, which bounces nothing */
	void *buddy_memory;

	struct task_part *lone; /* a light reactor: what its caller waits for */
	struct message adopt;
	struct reactor *adopted; /* light reactors that this standing one drives */
	struct reactor *adopted_next;

	struct stage_job *sleepers; /* jobs that wait for a time */
	uint64_t sleepers_next_ns;  /* of the first of them; UINT64_MAX: none */
};

int reactor_new(struct cairn_store *store, uint32_t index, bool standing,
		struct reactor **ret_reactor, struct cairn_error *reterr);
int reactor_start(struct reactor *reactor, struct cairn_error *reterr);
void reactor_stop(struct reactor *reactor); /* joins */
void reactor_free(struct reactor *reactor); /* NULL is ignored */

/* Of a standing reactor's pool of @pool_bytes: how much is the stages'. */
size_t reactor_stage_bytes(size_t pool_bytes);

/* Tells the queues of what has ended since they were told last. */
void reactor_tell(struct reactor *reactor);

/* Any thread: puts a message in the inbox and wakes the reactor if it may sleep. */
void reactor_send(struct reactor *reactor, struct message *message);

/* One turn: messages, timers, deadlines, new ios, the engine. Waits at most until @until_ns. */
void reactor_turn(struct reactor *reactor, uint64_t until_ns);

/* Runs the part of a light reactor on the calling thread until it has its result. */
void reactor_run_light(struct reactor *light, struct task_part *part);

/* Brings the store's counters of reads and writes up to what the engine has done. */
void reactor_count_transfers(struct reactor *reactor);

/* True when nothing of the reactor is under way. */
bool reactor_idle(const struct reactor *reactor);

/* core/io.c */
void io_host_init(struct cairn_store *store);
bool io_seek(struct reactor *reactor, struct task_part *part); /* to the next own item */
void io_start_next(struct reactor *reactor, struct task_part *part);
uint64_t io_segments(const struct cairn_xfer *xfer); /* how many pieces of memory it names */
void io_abandon(struct io_slot *slot, int32_t status);
struct engine *io_engine(struct cairn_io *io, const struct engine_ops **ret_ops);

/* core/finish.c: what the store waits for at close beside its tasks */
void orphan_count(struct cairn_store *store, bool more);

/* core/job.c */
void jobs_env_init(struct stage_env *internal);
void job_run(struct reactor *reactor, struct stage_job *job); /* it was sent */
void jobs_wake(struct reactor *reactor, uint64_t now_ns);

/* core/part.c */
void part_arrive(struct reactor *reactor, struct task_part *part);
void part_end(struct reactor *reactor, struct task_part *part, int32_t status);
/* Tells the task what has come to its end. */
void part_settle(struct reactor *reactor, struct task_part *part);
/* In the queue of its class: prefetches by their deadlines, else the last. */
void part_queue(struct reactor *reactor, struct task_part *part);
/* One of its ios is to start: another part of the class, that is as urgent, is next. */
void part_take_turn(struct reactor *reactor, struct task_part *part);
uint32_t part_owner(const struct cairn_store *store, const struct cairn_key *key);

/* core/timer.c: a heap of ios */
void timer_set(struct reactor *reactor, struct io_slot *io, uint64_t when_ns);
void timer_clear(struct reactor *reactor, struct io_slot *io);

#endif
