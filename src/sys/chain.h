/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engines share: queues of chains, and running a chain in place, op by
 * op, through the sys table. A chain belongs to one thread at a time.
 */
#ifndef SYS_CHAIN_H
#define SYS_CHAIN_H

#include "sys/engine.h"

/* First in, first out, through engine_chain.next. */
struct chain_queue {
	struct engine_chain *first, *last;
	uint32_t count;
};

/* Puts @chain, which is in no queue, at the end. */
void chain_queue_push(struct chain_queue *queue, struct engine_chain *chain);

/* Takes the first one out; NULL: empty. */
struct engine_chain *chain_queue_pop(struct chain_queue *queue);

/* Moves everything out of @queue, which is empty then. */
struct chain_queue chain_queue_take(struct chain_queue *queue);

/* What one poll() has ended so far. */
struct chain_share {
	uint32_t chains;
	uint64_t bytes;
};

/* One more. Before its done(), after which it may be gone. */
void chain_share_add(struct chain_share *share, const struct engine_chain *chain);

/* Enough for one poll(): the rest is the next one's. */
bool chain_share_full(const struct chain_share *share);

/* Asserts what engine.h asks of a chain. At submit(). */
void chain_check(const struct engine_chain *chain);

/* Whether the chain's first op opens the descriptor that the engine closes. */
bool chain_opens(const struct engine_chain *chain);

bool engine_op_transfers(const struct engine_op *op); /* OP_READV, OP_WRITEV */

/* Whether op->result ends the chain: an error or a short transfer, and not soft. */
bool engine_op_fails_chain(const struct engine_op *op);

/*
 * Sets chain->result from the results of its ops and from what the close of its
 * descriptor said (0 when there was none).
 */
void chain_settle(struct engine_chain *chain, int close_result);

/* Where a chain stands that is run op by op. */
struct chain_cursor {
	int fd;	       /* what the chain opened, or -1 */
	uint32_t next; /* op; op_count: all have their results */
};

#define CHAIN_CURSOR_START ((struct chain_cursor){.fd = -1, .next = 0})

/* The descriptor that @op works on. */
int chain_fd(const struct chain_cursor *cursor, const struct engine_op *op);

/* Notes @result of the next op and moves on; a failure gives the rest -ECANCELED. */
void chain_note(struct engine_chain *chain, struct chain_cursor *cursor, int64_t result);

/* Runs the next op; blocks as long as its system call does. */
void chain_step(const struct sys *sys, struct engine_chain *chain, struct chain_cursor *cursor);

/* Whether chain_step_cached() can do all of the chain's ops but direct reads. */
bool chain_only_reads(const struct engine_chain *chain);

/*
 * Runs the next op, if it need not wait: an open of what is there, a buffered
 * read, or a statx of what is not there. False: nothing was done.
 */
bool chain_step_cached(const struct sys *sys, struct engine_chain *chain,
		       struct chain_cursor *cursor);

/* Closes what the chain opened and settles it; every op has its result. */
void chain_end(const struct sys *sys, struct engine_chain *chain, struct chain_cursor *cursor);

/* All of the above: runs the whole chain here and now. done() is left to the caller. */
void chain_run(const struct sys *sys, struct engine_chain *chain);

#endif
