/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host gives the stages of this library beyond stage.h, through
 * cairn_stage_env.internal. Stages may include this one header of core/.
 */
#ifndef CORE_STAGE_ENV_H
#define CORE_STAGE_ENV_H

#include <cairn/stage.h>

#include "core/message.h"
#include "sys/engine.h"
#include "sys/sys.h"

struct reactor;

/*
 * Work of a stage's own, beside any io: it runs on one standing reactor, by
 * chains of that reactor's engine, and the store does not close before it has
 * ended. The memory is the stage's; all but run() is the host's.
 */
struct stage_job {
	void (*run)(struct stage_job *job);
	struct message message;
	struct reactor *reactor;
	uint32_t posted; /* a flag of base/atomic.h */
	/* The reactor's: asleep until wake_ns. */
	bool asleep;
	uint64_t wake_ns;
	struct stage_job *next;
};

/* Of a stage that holds dumps back. */
struct stage_back {
	/* find_namespace() has one more. Any thread. */
	void (*opened)(void *self);
	/*
	 * Before the store closes, with no task of a caller's under way, on the thread that
	 * closes: again and again while it returns true, something is left, or under way.
	 * @first: of this close; one before it may have given up.
	 */
	bool (*settle)(void *self, bool first);
};

struct stage_env {
	const struct sys *sys;
	/* NULL at rest (list, check, identify). The reactor's engine; this io's thread only. */
	struct engine *(*engine)(struct cairn_io *io, const struct engine_ops **ret_ops);
	/*
	 * An engine of the store's kind for reads of a stage's in open(), before there are
	 * reactors; -EBUSY: somebody has it. A child after a fork closes it, as it does the
	 * reactors'. Given back with nothing in flight; one that is broken, and may still
	 * have something, is not. NULL at rest.
	 */
	int (*engine_early)(const struct cairn_stage_env *env, uint32_t chains_max,
			    const struct engine_ops **ret_ops, struct engine **ret_engine);
	void (*engine_early_end)(const struct cairn_stage_env *env);
	/*
	 * Registers a descriptor that must outlive all I/O in flight (a tier's
	 * lock) with every ring. From open(). Not closed by the host.
	 */
	int (*guard)(const struct cairn_stage_env *env, int fd);
	/*
	 * Memory of the stage's that its I/O lies in, until its close(): registered with
	 * every ring, 2 MiB at a time as it comes into use, from @base on, which is
	 * aligned so. From open(). Where it cannot be had, all works without.
	 */
	void (*lend)(const struct cairn_stage_env *env, void *base, size_t bytes);
	/*
	 * From open() of a tier that writes what an io brings in one piece after another: that
	 * ios of callers' dumps which are to be written bring 1 MiB, or one part. So more than one
	 * is under way of a large block, and what one of them costs is beside the others' writes.
	 * All stages of the pipeline get them so.
	 */
	void (*split_dumps)(const struct cairn_stage_env *env);
	/*
	 * After a fork, in the child, descriptors given here are closed. From
	 * open(); forget before closing.
	 */
	void (*fork_close)(const struct cairn_stage_env *env, int fd, bool forget);
	/*
	 * From open(): that the store have @count reactors. How many it will: @count, if nobody
	 * asked for another number before.
	 */
	uint32_t (*reactors_ask)(const struct cairn_stage_env *env, uint32_t count);
	/* The store's sequence counter, to be raised at open to what was kept; and read. */
	void (*sequence_raise)(const struct cairn_stage_env *env, uint64_t at_least);
	uint64_t (*sequence_now)(const struct cairn_stage_env *env);
	/*
	 * The uuid of the lowest tier below this stage, zero if it keeps none. False: there
	 * is no tier below. From open() on: stages are opened from the bottom up; and at rest
	 * in inspect().
	 */
	bool (*uuid_below)(const struct cairn_stage_env *env, uint8_t ret_uuid[16]);
	/*
	 * Whether a tier below has the block whole, as its lookup() says: a probe of memory,
	 * under `shared=yes` one of the file system. Any thread.
	 */
	bool (*probe_below)(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
			    const struct cairn_key *key, struct cairn_probe *ret_probe);
	/*
	 * Calls run() soon, on the standing reactor @spread modulo their number. Any
	 * thread that an io, a job or a caller of the stage's keeps the store open for;
	 * not from open(). Ends with job_end(), on its own thread; nothing of the host
	 * touches the job after that. job_again() has run() called once more; calls
	 * before it has begun are one; any thread, never after job_end().
	 */
	void (*job_start)(const struct cairn_stage_env *env, struct stage_job *job,
			  uint32_t spread);
	void (*job_again)(struct stage_job *job);
	void (*job_end)(const struct cairn_stage_env *env, struct stage_job *job);
	/*
	 * From run(), or what ends a chain of the job's: run() is called again at
	 * @when_ns of the sys table's clock (UINT64_MAX: never), or after job_again().
	 * With nothing under way until then the job does not keep the store open: it may
	 * never run again.
	 */
	void (*job_sleep)(struct stage_job *job, uint64_t when_ns);
	struct engine *(*job_engine)(struct stage_job *job, const struct engine_ops **ret_ops);
	uint32_t open_flags; /* STAGE_OPEN_* */
	/*
	 * From open() of the first stage: it holds dumps at CAIRN_MEMORY back, where
	 * @preset of all tasks that do not say otherwise, and writes them below by
	 * own_dump(). As of all but the last tier, clear() is called before those below, and in
	 * turn.
	 */
	void (*hold_back)(const struct cairn_stage_env *env, bool preset,
			  const struct stage_back *back);
	/*
	 * Dumps @count xfers of the stage's own, as a task that begins at the stage below
	 * it: each ends at CAIRN_WRITTEN, or at CAIRN_MEMORY where nothing below persists.
	 * They have ios of their own, so no other io keeps them waiting, and the store's deadline:
	 * what has not ended by then may be below all the same. xfer.reserved[0] may
	 * be OWN_XFER_CHAIN. @done is called as of struct cairn_task_opts, for result and
	 * release together or once for each. 0, or -EAGAIN: OWN_TASKS are under way. Any
	 * thread.
	 */
	int (*own_dump)(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
			struct cairn_xfer *xfers, uint32_t count,
			void (*done)(void *context, uint64_t task, uint32_t events), void *context);
	/* A namespace that is open, and @fits; NULL: none. It lasts until close(). Any thread. */
	const struct cairn_ns_view *(*find_namespace)(
		const struct cairn_stage_env *env,
		bool (*fits)(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
			     uint64_t what),
		uint64_t what);
};

#define OWN_TASKS      4u /* of stages at once */
#define OWN_XFER_CHAIN 1u /* the attribute's parent was told by the order of a task's keys */

static inline const struct stage_env *stage_env(const struct cairn_stage_env *env)
{
	return (const struct stage_env *)env->internal;
}

#endif
