/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine: a chain is a row of linked SQEs.
 *
 * Invariants:
 *  1. A chain in flight has one slot, and the slot's place in the fixed file
 *     table is the chain's alone: its first op opens into it, a close that is
 *     linked behind its last op empties it, and when the chain fails before
 *     that, end_chain() does. A slot is free only when its place is empty.
 *  2. The kernel breaks a link only where an open, a read or a write fails; a
 *     failed fallocate, fsync or rename lets the rest run. So a chain goes out
 *     in pieces: a piece ends behind each op of that kind that is neither soft
 *     nor the last one, and the next piece goes when this one was well.
 *  3. An SQE `skips` its CQE on success when its failure breaks the link, and
 *     it is not the piece's last, and the chain has no soft ops. The CQE of one
 *     that skips says that it failed and that no other of the piece will come.
 *     All other SQEs give a CQE each. Soft ops are hard-linked: their failure
 *     cancels nothing.
 *  4. The SQEs of a piece go out in one submit: nothing is prepared until there
 *     is room for all of them. Were the kernel to take only some of a piece (it
 *     can for want of memory alone), the engine is broken and sends no more: the
 *     rest of that piece must not run as if it were one.
 *  5. Nothing of the engine's own memory is ever a target of the kernel, so
 *     that close() need not wait for the ring's end.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "sys/bell.h"
#include "sys/chain.h"
#include "sys/uring_buffers.h"
#include "sys/workers.h"

#define URING_MAGIC 0x6972696eu /* "ring" */

#define GUARDS_MAX     16u    /* locks of tiers: one a stage, and some */
#define SQ_ENTRIES_MIN 16u    /* a whole chain, its close and the wake's poll */
#define SQ_ENTRIES_MAX 512u   /* what goes out at once; more only costs memory */
#define CQ_ENTRIES_MAX 32768u /* the kernel keeps what overflows */
#define CHAINS_MAX     65536u /* of the fixed file table, which is sized by it */
#define IOWQ_THREADS   8u     /* kernel threads for what blocks, if no other is asked for */
#define SLOTS_MIN      4u     /* with fewer open files allowed there is no use in a ring */
#define NO_SLOT	       UINT32_MAX
#define WAKE_DATA      UINT64_MAX
#define OP_BITS	       8u /* of user_data: position in the chain; above them: slot */
#define OP_MASK	       ((1u << OP_BITS) - 1)

static_assert(SQ_ENTRIES_MIN >= ENGINE_CHAIN_OPS_MAX + 2, "a chain must fit into the ring");

struct uring_slot {
	struct engine_chain *chain;
	uint32_t next_free;
	uint32_t begin,
		end;	  /* the piece in flight, as positions in the chain; op_count: the close */
	uint32_t pending; /* its CQEs still to come */
	uint32_t skips;	  /* bit n: position n skips its CQE on success */
	int close_result;
};

struct engine {
	uint32_t magic;
	const struct sys *sys;
	uint32_t chains_max, slot_count, iowq_threads, guard_count;
	bool enabled; /* the first poll() was made: its thread owns the ring */
	bool wake_armed;
	int broken; /* negative errno: the ring is of no use any more */
	struct bell bell;
	struct io_uring ring;
	struct chain_queue queue;     /* submitted, not begun */
	struct chain_queue continued; /* begun: their next piece is due */
	struct chain_queue refused;   /* what the ring would not take: run in place */
	struct workers_client client; /* for OP_CALL; without workers: in place */
	struct engine_stat stat;
	struct chain_share share; /* of this poll() */
	struct uring_buffers *buffers;
	uint32_t free_slot; /* NO_SLOT: none */
	struct uring_slot slots[];
};

/* ---- open and close --------------------------------------------------- */

static uint32_t at_least_power_of_2(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

static int ring_setup(struct engine *engine, bool shared_owner)
{
	/*
	 * Best first; kernels refuse flags they do not know. Where the owner
	 * changes, completions must reach it whatever thread submitted: no
	 * COOP_TASKRUN, which leaves them until that thread enters the kernel.
	 */
	const unsigned single = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED;
	const unsigned flags[] = {
		single | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_RSRC_TAGS |
				IORING_FEAT_CQE_SKIP | IORING_FEAT_LINKED_FILE;
	uint32_t sq = at_least_power_of_2(engine->chains_max * 3);
	uint32_t cq = at_least_power_of_2(engine->chains_max * 4);
	int rc = -EINVAL;

	sq = sq < SQ_ENTRIES_MIN ? SQ_ENTRIES_MIN : sq > SQ_ENTRIES_MAX ? SQ_ENTRIES_MAX : sq;
	cq = cq < 2 * sq ? 2 * sq : cq > CQ_ENTRIES_MAX ? CQ_ENTRIES_MAX : cq;
	for (size_t i = shared_owner ? 2 : 0; i < 3 && rc == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
				 IORING_SETUP_CLAMP,
			.cq_entries = cq,
		};

		rc = io_uring_queue_init_params(sq, &engine->ring, &params);
	}
	if (rc < 0)
		return rc == -EINVAL ? -EOPNOTSUPP : rc == -ENOMEM ? -ENOBUFS : rc;
	if ((engine->ring.features & needed) != needed) {
		io_uring_queue_exit(&engine->ring);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* As many slots as chains, or as RLIMIT_NOFILE allows: then chains wait for one. */
static int slots_setup(struct engine *engine)
{
	uint32_t count = engine->chains_max;
	int rc = io_uring_register_files_sparse(&engine->ring, count + GUARDS_MAX);

	while (rc == -EMFILE && count / 2 >= SLOTS_MIN) {
		count /= 2;
		rc = io_uring_register_files_sparse(&engine->ring, count + GUARDS_MAX);
	}
	if (rc < 0)
		return rc == -EINVAL || rc == -EMFILE ? -EOPNOTSUPP : rc;
	engine->slot_count = count;
	for (uint32_t i = 0; i < count; i++)
		engine->slots[i].next_free = i + 1 < count ? i + 1 : NO_SLOT;
	return 0;
}

/* What a seccomp filter may forbid although it let the ring be made. */
static int ring_probe(struct engine *engine)
{
	int rc = io_uring_enter((unsigned)engine->ring.ring_fd, 0, 0, 0, NULL);

	if (rc == -EPERM || rc == -ENOSYS || rc == -EACCES)
		return rc;
	rc = slots_setup(engine);
	if (rc < 0)
		return rc;
	/* A child after a fork must not be able to write into the rings. */
	return io_uring_ring_dontfork(&engine->ring);
}

static int uring_add_guard(struct engine *engine, int fd)
{
	int rc;

	assert(engine->magic == URING_MAGIC);
	assert(fd >= 0);
	if (engine->guard_count == GUARDS_MAX)
		return -EMFILE;
	rc = io_uring_register_files_update(&engine->ring, engine->slot_count + engine->guard_count,
					    &fd, 1);
	if (rc < 0)
		return rc;
	assert(rc == 1);
	engine->guard_count++;
	return 0;
}

static struct engine *engine_new(const struct engine_opts *opts)
{
	size_t slots_bytes = opts->chains_max * sizeof(struct uring_slot);
	struct engine *engine = sys_zalloc(opts->sys, 0, sizeof(*engine) + slots_bytes);

	if (engine == NULL)
		return NULL;
	engine->magic = URING_MAGIC;
	engine->sys = opts->sys;
	engine->chains_max = opts->chains_max;
	engine->iowq_threads = opts->iowq_max > 0 ? opts->iowq_max : IOWQ_THREADS;
	return engine;
}

/* On a worker. */
static bool run_call(void *context, struct engine_chain *chain)
{
	struct engine *engine = context;

	chain_run(engine->sys, chain);
	return true;
}

static int uring_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	const struct sys *sys = opts->sys;
	struct engine *engine;
	int rc;

	assert(opts->chains_max > 0 && opts->chains_max <= CHAINS_MAX);
	engine = engine_new(opts);
	if (engine == NULL)
		return -ENOMEM;
	rc = bell_open(&engine->bell);
	if (rc < 0)
		goto free_engine;
	rc = ring_setup(engine, opts->shared_owner);
	if (rc < 0)
		goto close_bell;
	rc = ring_probe(engine);
	if (rc == 0 && opts->guard_fd >= 0)
		rc = uring_add_guard(engine, opts->guard_fd);
	if (rc < 0)
		goto exit_ring;
	engine->client = (struct workers_client){
		.workers = opts->workers, .fn = run_call, .context = engine, .bell = &engine->bell};
	rc = uring_buffers_open(sys, &engine->ring, opts, &engine->buffers);
	if (rc < 0)
		goto exit_ring;
	*ret_engine = engine;
	return 0;

exit_ring:
	io_uring_queue_exit(&engine->ring);
close_bell:
	bell_close(&engine->bell, sys);
free_engine:
	sys->free(engine);
	return rc;
}

static void uring_close(struct engine *engine)
{
	const struct sys *sys = engine->sys;
	const int none = -1;

	assert(engine->magic == URING_MAGIC);
	assert(engine->stat.in_flight == 0);
	/*
	 * The kernel tears a ring down later, by itself: the guards are let go
	 * now. (Refused on another thread than the owner's; then they go later.)
	 */
	for (uint32_t i = 0; i < engine->guard_count; i++)
		io_uring_register_files_update(&engine->ring, engine->slot_count + i, &none, 1);
	io_uring_queue_exit(&engine->ring);
	uring_buffers_close(engine->buffers, sys);
	bell_close(&engine->bell, sys);
	engine->magic = 0;
	sys->free(engine);
}

/* On the owner's thread: from here on the ring is this thread's. */
static int enable(struct engine *engine)
{
	unsigned threads[2] = {engine->iowq_threads, 1};
	int rc = 0;

	if (engine->ring.flags & IORING_SETUP_R_DISABLED)
		/* liburing 2.3 declares io_uring_enable_rings() but does not export it. */
		rc = io_uring_register((unsigned)engine->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
				       NULL, 0);
	if (rc < 0)
		return rc;
	/* Old kernels cannot; then it is theirs how many they use. */
	io_uring_register_iowq_max_workers(&engine->ring, threads);
	engine->enabled = true;
	return 0;
}

/* ---- the way out: SQEs ------------------------------------------------ */

static void prep_transfer(struct engine *engine, struct io_uring_sqe *sqe, int fd,
			  const struct engine_op *op)
{
	const struct iovec *iov = op->iov;
	int buffer = op->iov_count == 1 ? uring_buffers_find(engine->buffers, iov) : -1;
	unsigned bytes = (unsigned)op->length;

	if (buffer >= 0)
		engine->stat.fixed++;
	else
		engine->stat.unfixed++;
	if (op->iov_count != 1)
		io_uring_prep_rw(op->code == OP_READV ? IORING_OP_READV : IORING_OP_WRITEV, sqe, fd,
				 iov, (unsigned)op->iov_count, op->offset);
	else if (op->code == OP_READV && buffer >= 0)
		io_uring_prep_read_fixed(sqe, fd, iov->iov_base, bytes, op->offset, buffer);
	else if (op->code == OP_READV)
		io_uring_prep_read(sqe, fd, iov->iov_base, bytes, op->offset);
	else if (buffer >= 0)
		io_uring_prep_write_fixed(sqe, fd, iov->iov_base, bytes, op->offset, buffer);
	else
		io_uring_prep_write(sqe, fd, iov->iov_base, bytes, op->offset);
}

static void prep_op(struct engine *engine, struct io_uring_sqe *sqe, uint32_t slot,
		    const struct engine_op *op)
{
	bool ours = op->fd == ENGINE_FD_CHAIN;
	int fd = ours ? (int)slot : op->fd;

	switch (op->code) {
	case OP_OPENAT:
		/* There is no descriptor that an exec could inherit: the kernel refuses the flag */
		io_uring_prep_openat_direct(sqe, fd, op->path, op->flags & ~O_CLOEXEC, op->mode,
					    slot);
		break;
	case OP_READV:
	case OP_WRITEV:
		prep_transfer(engine, sqe, fd, op);
		break;
	case OP_FALLOCATE:
		/* io_uring_prep_fallocate() took off_t up to liburing 2.3, and __u64 since. */
		io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, fd, NULL, (unsigned)op->flags,
				 op->offset);
		sqe->addr = op->length;
		break;
	case OP_FSYNC:
		io_uring_prep_fsync(sqe, fd, 0);
		break;
	case OP_FDATASYNC:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case OP_RENAMEAT:
		io_uring_prep_renameat(sqe, fd, op->path, op->fd2, op->path2, (unsigned)op->flags);
		break;
	case OP_LINKAT:
		io_uring_prep_linkat(sqe, fd, op->path, op->fd2, op->path2, op->flags);
		break;
	case OP_UNLINKAT:
		io_uring_prep_unlinkat(sqe, fd, op->path, op->flags);
		break;
	case OP_MKDIRAT:
		io_uring_prep_mkdirat(sqe, fd, op->path, op->mode);
		break;
	case OP_STATX:
		io_uring_prep_statx(sqe, fd, op->path, op->flags, STATX_BASIC_STATS, op->stx);
		break;
	case OP_CALL:
		assert(false); /* it goes to a worker */
		break;
	}
	if (ours)
		sqe->flags |= IOSQE_FIXED_FILE;
}

/* Positions: the ops, and the close behind them where the chain opens. */
static uint32_t position_count(const struct engine_chain *chain)
{
	return chain->op_count + (chain_opens(chain) ? 1 : 0);
}

static bool breaks_link(const struct engine_op *op)
{
	return !op->soft && (op->code == OP_OPENAT || engine_op_transfers(op));
}

static bool has_soft(const struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++)
		if (chain->ops[i].soft)
			return true;
	return false;
}

/* Where the piece that starts at @begin ends: invariant 2. */
static uint32_t piece_end(const struct engine_chain *chain, uint32_t begin)
{
	for (uint32_t i = begin; i + 1 < chain->op_count; i++)
		if (!chain->ops[i].soft && !breaks_link(&chain->ops[i]))
			return i + 1;
	return position_count(chain);
}

/* There is room for all of it (invariant 4). */
static void prep_piece(struct engine *engine, struct engine_chain *chain)
{
	uint32_t index = (uint32_t)chain->engine_private[0];
	struct uring_slot *slot = &engine->slots[index];
	bool soft = has_soft(chain);

	slot->begin = slot->end;
	slot->end = piece_end(chain, slot->begin);
	slot->pending = slot->end - slot->begin;
	slot->skips = 0;
	for (uint32_t i = slot->begin; i < slot->end; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);
		struct engine_op *op = &chain->ops[i];

		assert(sqe != NULL);
		if (i < chain->op_count)
			prep_op(engine, sqe, index, op);
		else
			io_uring_prep_close_direct(sqe, index);
		sqe->user_data = (uint64_t)index << OP_BITS | i;
		if (i + 1 == slot->end)
			break;
		sqe->flags |= op->soft ? IOSQE_IO_HARDLINK : IOSQE_IO_LINK;
		if (soft || !breaks_link(op))
			continue;
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		slot->skips |= 1u << i;
		slot->pending--;
		op->result = engine_op_transfers(op) ? (int64_t)op->length : 0;
	}
}

/* After each submit: invariant 4. */
static int check_submitted(struct engine *engine)
{
	struct io_uring_sq *sq = &engine->ring.sq;
	const struct io_uring_sqe *sqe;

	if (io_uring_sq_ready(&engine->ring) == 0)
		return 0;
	sqe = &sq->sqes[*sq->khead & sq->ring_mask];
	if (sqe->user_data != WAKE_DATA &&
	    (sqe->user_data & OP_MASK) != engine->slots[sqe->user_data >> OP_BITS].begin)
		engine->broken = -ENOMEM;
	return engine->broken;
}

/* Whether the kernel will do better later, or has only said that nothing came. */
static bool passing(int rc)
{
	return rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY;
}

static int flush(struct engine *engine)
{
	int rc = io_uring_submit(&engine->ring);

	if (!passing(rc))
		engine->broken = rc;
	return engine->broken != 0 ? engine->broken : check_submitted(engine);
}

/* The chain takes a free slot, if it has none yet. */
static bool has_slot(struct engine *engine, struct engine_chain *chain)
{
	uint32_t index = engine->free_slot;
	struct uring_slot *slot;

	if (chain->engine_private[0] != NO_SLOT)
		return true;
	if (index == NO_SLOT)
		return false;
	slot = &engine->slots[index];
	engine->free_slot = slot->next_free;
	*slot = (struct uring_slot){.chain = chain, .close_result = -ECANCELED};
	chain->engine_private[0] = index;
	return true;
}

/* Whether there is room for the chain's next piece, and an SQE more for the wake's poll. */
static bool has_room(struct engine *engine, const struct engine_chain *chain)
{
	uint32_t begin = engine->slots[chain->engine_private[0]].end;
	uint32_t need = piece_end(chain, begin) - begin + 1;

	return io_uring_sq_space_left(&engine->ring) >= need;
}

static int fill_from(struct engine *engine, struct chain_queue *queue)
{
	int rc = 0;

	while (queue->first != NULL && has_slot(engine, queue->first) && rc == 0) {
		if (!has_room(engine, queue->first))
			rc = flush(engine);
		if (rc < 0 || !has_room(engine, queue->first))
			break;
		prep_piece(engine, chain_queue_pop(queue));
	}
	return rc;
}

/* Prepares what is due, and the wake's poll. What finds no room goes with the next poll(). */
static int fill(struct engine *engine)
{
	int rc = fill_from(engine, &engine->continued);

	if (rc == 0)
		rc = fill_from(engine, &engine->queue);
	if (rc == 0 && !engine->wake_armed) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&engine->ring);

		if (sqe == NULL)
			return 0;
		io_uring_prep_poll_multishot(sqe, engine->bell.fd, POLLIN);
		sqe->user_data = WAKE_DATA;
		engine->wake_armed = true;
	}
	return rc;
}

/* Sends, and waits for a CQE for at most @left_ns. */
static int enter(struct engine *engine, uint64_t left_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(left_ns / 1000000000u),
		.tv_nsec = (long long)(left_ns % 1000000000u),
	};
	struct io_uring_cqe *cqe;
	int rc;

	if (left_ns == 0)
		rc = io_uring_submit_and_get_events(&engine->ring);
	else
		rc = io_uring_submit_and_wait_timeout(&engine->ring, &cqe, 1,
						      left_ns == UINT64_MAX ? NULL : &ts, NULL);
	if (!passing(rc))
		engine->broken = rc;
	return engine->broken != 0 ? engine->broken : check_submitted(engine);
}

/* ---- the way back: CQEs ------------------------------------------------ */

static void finish(struct engine *engine, struct engine_chain *chain)
{
	uint32_t slot = (uint32_t)chain->engine_private[0];

	assert(engine->stat.in_flight > 0);
	if (slot != NO_SLOT) {
		assert(engine->slots[slot].chain == chain);
		engine->slots[slot].chain = NULL;
		engine->slots[slot].next_free = engine->free_slot;
		engine->free_slot = slot;
	}
	engine->stat.in_flight--;
	engine->stat.chains++;
	engine->stat.ops += chain->op_count;
	chain_share_add(&engine->share, chain);
	chain->done(chain);
}

static bool piece_failed(const struct engine_chain *chain, const struct uring_slot *slot)
{
	for (uint32_t i = slot->begin; i < slot->end && i < chain->op_count; i++)
		if (engine_op_fails_chain(&chain->ops[i]))
			return true;
	return false;
}

/*
 * What comes back cancelled with no failure before it was cancelled by the kernel, which
 * got no thread for it (RLIMIT_NPROC, the pids of a container, or a signal at each try): nobody
 * asked for that. Kernels before 6.11 try for ever instead.
 */
static void tell_refused(struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++) {
		if (!engine_op_fails_chain(&chain->ops[i]))
			continue;
		if (chain->ops[i].result == -ECANCELED)
			chain->ops[i].result = -EAGAIN;
		return;
	}
}

static void end_chain(struct engine *engine, struct uring_slot *slot)
{
	struct engine_chain *chain = slot->chain;
	uint32_t index = (uint32_t)(slot - engine->slots);
	bool opened = chain_opens(chain) && chain->ops[0].result == 0;
	const int none = -1;

	if (opened && slot->close_result != 0)
		io_uring_register_files_update(&engine->ring, index, &none, 1);
	tell_refused(chain);
	/* Cancelled, or never sent: there was a failure before it, which counts. */
	chain_settle(chain, slot->close_result == -ECANCELED ? 0 : slot->close_result);
	finish(engine, chain);
}

/* All CQEs of the piece have come. Returns how many chains ended: 0 or 1. */
static int end_piece(struct engine *engine, struct uring_slot *slot)
{
	struct engine_chain *chain = slot->chain;

	if (slot->end < chain->op_count && !piece_failed(chain, slot)) {
		chain_queue_push(&engine->continued, chain);
		return 0;
	}
	for (uint32_t i = slot->end; i < chain->op_count; i++)
		chain->ops[i].result = -ECANCELED;
	end_chain(engine, slot);
	return 1;
}

/* Returns how many chains ended: 0 or 1. */
static int take_cqe(struct engine *engine, uint64_t data, int result)
{
	uint32_t position = (uint32_t)(data & OP_MASK);
	struct engine_chain *chain;
	struct uring_slot *slot;

	assert(data >> OP_BITS < engine->slot_count);
	slot = &engine->slots[data >> OP_BITS];
	chain = slot->chain;
	assert(chain != NULL && slot->pending > 0);
	assert(position >= slot->begin && position < slot->end);
	if (position < chain->op_count)
		chain->ops[position].result = result;
	else
		slot->close_result = result;
	slot->pending--;
	if (slot->skips & 1u << position) {
		/* Invariant 3: it failed, and the rest was cancelled without a word. */
		slot->pending = 0;
		for (uint32_t i = position + 1; i < slot->end && i < chain->op_count; i++)
			chain->ops[i].result = -ECANCELED;
	}
	return slot->pending > 0 ? 0 : end_piece(engine, slot);
}

/*
 * Takes the CQEs that are there now, as far as this poll() goes; of those that end a
 * chain at least one, or calls that follow each other could keep the ring waiting for
 * ever. Returns how many chains ended.
 */
static int reap(struct engine *engine, bool *ret_woken)
{
	int ended = 0;

	for (unsigned ready = io_uring_cq_ready(&engine->ring);
	     ready > 0 && (ended == 0 || !chain_share_full(&engine->share)); ready--) {
		struct io_uring_cqe *cqe, copy;

		if (io_uring_peek_cqe(&engine->ring, &cqe) != 0)
			break;
		copy = (struct io_uring_cqe){
			.user_data = cqe->user_data, .res = cqe->res, .flags = cqe->flags};
		io_uring_cqe_seen(&engine->ring, cqe);
		if (copy.user_data != WAKE_DATA) {
			ended += take_cqe(engine, copy.user_data, copy.res);
			continue;
		}
		if (!(copy.flags & IORING_CQE_F_MORE))
			engine->wake_armed = false;
		if (bell_woken(&engine->bell))
			*ret_woken = true;
	}
	return ended;
}

/* ---- the table --------------------------------------------------------- */

static bool path_fits(const char *path)
{
	return path == NULL || strnlen(path, PATH_MAX) < PATH_MAX;
}

/*
 * An SQE whose arguments the kernel refuses takes the whole piece with it, and
 * the error may not be told: what can be seen beforehand goes the plain way.
 */
static bool ring_takes(const struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++) {
		const struct engine_op *op = &chain->ops[i];

		if (op->code == OP_CALL)
			return false;
		if (engine_op_transfers(op) && (op->iov_count < 1 || op->iov_count > IOV_MAX))
			return false;
		if (!path_fits(op->path) || !path_fits(op->path2))
			return false;
	}
	return true;
}

static int uring_submit(struct engine *engine, struct engine_chain *chain)
{
	assert(engine->magic == URING_MAGIC);
	chain_check(chain);
	if (engine->stat.in_flight == engine->chains_max)
		return -EAGAIN;
	chain->engine_private[0] = NO_SLOT;
	engine->stat.in_flight++;
	if (chain->ops[0].code == OP_CALL && engine->client.workers != NULL &&
	    workers_push(&engine->client, chain))
		return 0;
	chain_queue_push(ring_takes(chain) ? &engine->queue : &engine->refused, chain);
	return 0;
}

static void run_in_place(struct engine *engine, struct engine_chain *chain)
{
	chain_run(engine->sys, chain);
	for (uint32_t i = 0; i < chain->op_count; i++)
		engine->stat.unfixed += engine_op_transfers(&chain->ops[i]);
	finish(engine, chain);
}

static int run_refused(struct engine *engine)
{
	struct chain_queue refused = chain_queue_take(&engine->refused);
	struct engine_chain *chain;
	int ended = 0;

	for (; (chain = chain_queue_pop(&refused)) != NULL; ended++)
		run_in_place(engine, chain);
	return ended;
}

/* Takes the calls that workers have made. Returns how many. */
static int take_calls(struct engine *engine)
{
	struct chain_queue calls = {0};
	struct engine_chain *chain;
	int ended = 0;

	if (engine->client.workers != NULL)
		calls = workers_take(&engine->client);
	for (; (chain = chain_queue_pop(&calls)) != NULL; ended++)
		finish(engine, chain);
	return ended;
}

static int uring_poll(struct engine *engine, uint64_t wait_ns)
{
	uint64_t deadline_ns, left_ns;
	bool woken = false;
	int ended = 0, rc = 0;

	assert(engine->magic == URING_MAGIC);
	engine->share = (struct chain_share){0};
	ended = run_refused(engine) + take_calls(engine);
	if (ended > 0)
		wait_ns = 0;
	if (wait_ns == 0 && engine->stat.in_flight == 0)
		return ended;
	if (engine->broken == 0 && !engine->enabled)
		engine->broken = enable(engine);
	if (engine->broken != 0)
		return engine->broken;
	deadline_ns = wait_ns == 0 ? 0 : deadline_after(engine->sys, wait_ns);
	do {
		left_ns = wait_ns == 0 ? 0 : deadline_left(engine->sys, deadline_ns);
		rc = fill(engine);
		/* What has come already needs no system call. */
		if (rc == 0 &&
		    (io_uring_sq_ready(&engine->ring) > 0 || io_uring_cq_ready(&engine->ring) == 0))
			rc = enter(engine, left_ns);
		ended += reap(engine, &woken) + take_calls(engine);
	} while (rc == 0 && ended == 0 && !woken && left_ns > 0);
	return rc < 0 && ended == 0 ? rc : ended;
}

static void uring_wake(struct engine *engine)
{
	bell_wake(&engine->bell);
}

static void uring_stat(const struct engine *engine, struct engine_stat *ret_stat)
{
	assert(engine->magic == URING_MAGIC);
	*ret_stat = engine->stat;
}

static void uring_abandon(struct engine *engine)
{
	assert(engine->magic == URING_MAGIC);
	engine->sys->close(engine->ring.ring_fd);
	engine->sys->close(engine->bell.fd);
}

const struct engine_ops engine_uring = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.poll = uring_poll,
	.wake = uring_wake,
	.add_guard = uring_add_guard,
	.stat = uring_stat,
	.abandon = uring_abandon,
};
