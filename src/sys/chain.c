/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/chain.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

void chain_queue_push(struct chain_queue *queue, struct engine_chain *chain)
{
	chain->next = NULL;
	if (queue->last != NULL)
		queue->last->next = chain;
	else
		queue->first = chain;
	queue->last = chain;
	queue->count++;
}

struct engine_chain *chain_queue_pop(struct chain_queue *queue)
{
	struct engine_chain *chain = queue->first;

	if (chain == NULL)
		return NULL;
	assert(queue->count > 0);
	queue->first = chain->next;
	if (queue->first == NULL)
		queue->last = NULL;
	queue->count--;
	chain->next = NULL;
	return chain;
}

struct chain_queue chain_queue_take(struct chain_queue *queue)
{
	struct chain_queue taken = *queue;

	*queue = (struct chain_queue){0};
	return taken;
}

/*
 * Few: a device that has ended all it had stands still until its owner has come to send more.
 * With 16 a depth of 32 loads of 4 KiB was a tenth slower on one machine; fewer cost more
 * than they bring (bench/README.md, "Flash at 4 KiB").
 */
#define SHARE_CHAINS 4u
#define SHARE_BYTES  (256u << 10)

void chain_share_add(struct chain_share *share, const struct engine_chain *chain)
{
	share->chains++;
	for (uint32_t i = 0; i < chain->op_count; i++)
		if (engine_op_transfers(&chain->ops[i]))
			share->bytes += chain->ops[i].length;
}

bool chain_share_full(const struct chain_share *share)
{
	return share->chains >= SHARE_CHAINS || share->bytes >= SHARE_BYTES;
}

bool chain_opens(const struct engine_chain *chain)
{
	return chain->ops[0].code == OP_OPENAT;
}

bool engine_op_transfers(const struct engine_op *op)
{
	return op->code == OP_READV || op->code == OP_WRITEV;
}

void chain_check(const struct engine_chain *chain)
{
	assert(chain->op_count > 0 && chain->op_count <= ENGINE_CHAIN_OPS_MAX);
	assert(chain->done != NULL);
	assert(!chain_opens(chain) || !chain->ops[0].soft);
	for (uint32_t i = 0; i < chain->op_count; i++) {
		const struct engine_op *op = &chain->ops[i];

		assert(op->code <= OP_CALL);
		assert(op->code != OP_CALL || chain->op_count == 1);
		assert(op->code != OP_OPENAT || i == 0);
		assert(op->fd != ENGINE_FD_CHAIN || (chain_opens(chain) && i > 0));
		assert(op->fd != ENGINE_FD_CHAIN || op->code < OP_RENAMEAT);
		assert(!engine_op_transfers(op) || op->length <= INT32_MAX);
	}
}

bool engine_op_fails_chain(const struct engine_op *op)
{
	if (op->soft)
		return false;
	if (op->result < 0)
		return true;
	return engine_op_transfers(op) && (uint64_t)op->result != op->length;
}

void chain_settle(struct engine_chain *chain, int close_result)
{
	chain->result = 0;
	for (uint32_t i = 0; i < chain->op_count && chain->result == 0; i++) {
		const struct engine_op *op = &chain->ops[i];

		if (engine_op_fails_chain(op))
			chain->result = op->result < 0 ? op->result : -EIO;
	}
	/* A network file system may tell of a lost write only at the close. */
	if (chain->result == 0)
		chain->result = close_result;
}

int chain_fd(const struct chain_cursor *cursor, const struct engine_op *op)
{
	return op->fd == ENGINE_FD_CHAIN ? cursor->fd : op->fd;
}

static struct statx_timestamp timestamp(struct timespec ts)
{
	return (struct statx_timestamp){.tv_sec = ts.tv_sec, .tv_nsec = (uint32_t)ts.tv_nsec};
}

static int run_statx(const struct sys *sys, int fd, const struct engine_op *op)
{
	struct statx *stx = op->stx;
	struct stat st;
	int rc = sys->fstatat(fd, op->path, &st, op->flags);

	if (rc < 0)
		return rc;
	*stx = (struct statx){
		.stx_mask = STATX_BASIC_STATS,
		.stx_blksize = (uint32_t)st.st_blksize,
		.stx_nlink = (uint32_t)st.st_nlink,
		.stx_uid = st.st_uid,
		.stx_gid = st.st_gid,
		.stx_mode = (uint16_t)st.st_mode,
		.stx_ino = st.st_ino,
		.stx_size = (uint64_t)st.st_size,
		.stx_blocks = (uint64_t)st.st_blocks,
		.stx_atime = timestamp(st.st_atim),
		.stx_mtime = timestamp(st.st_mtim),
		.stx_ctime = timestamp(st.st_ctim),
		.stx_dev_major = major(st.st_dev),
		.stx_dev_minor = minor(st.st_dev),
	};
	return 0;
}

static int64_t run_op(const struct sys *sys, int fd, const struct engine_op *op)
{
	switch (op->code) {
	case OP_OPENAT:
		return sys->openat(fd, op->path, op->flags, op->mode);
	case OP_READV:
		return sys->preadv(fd, op->iov, op->iov_count, (off_t)op->offset);
	case OP_WRITEV:
		return sys->pwritev(fd, op->iov, op->iov_count, (off_t)op->offset);
	case OP_FALLOCATE:
		return sys->fallocate(fd, op->flags, (off_t)op->offset, (off_t)op->length);
	case OP_FSYNC:
		return sys->fsync(fd);
	case OP_FDATASYNC:
		return sys->fdatasync(fd);
	case OP_RENAMEAT:
		return sys->renameat2(fd, op->path, op->fd2, op->path2, (unsigned)op->flags);
	case OP_LINKAT:
		return sys->linkat(fd, op->path, op->fd2, op->path2, op->flags);
	case OP_UNLINKAT:
		return sys->unlinkat(fd, op->path, op->flags);
	case OP_MKDIRAT:
		return sys->mkdirat(fd, op->path, op->mode);
	case OP_STATX:
		return run_statx(sys, fd, op);
	case OP_CALL:
		return op->call(op->context);
	}
	assert(false);
	return -EINVAL;
}

void chain_note(struct engine_chain *chain, struct chain_cursor *cursor, int64_t result)
{
	struct engine_op *op = &chain->ops[cursor->next];

	assert(cursor->next < chain->op_count);
	op->result = result;
	cursor->next++;
	if (!engine_op_fails_chain(op))
		return;
	while (cursor->next < chain->op_count)
		chain->ops[cursor->next++].result = -ECANCELED;
}

/* Notes the result; what an open gave is the chain's descriptor. */
static void take_result(struct engine_chain *chain, struct chain_cursor *cursor, int64_t result)
{
	if (chain->ops[cursor->next].code == OP_OPENAT && result >= 0) {
		assert(cursor->fd < 0);
		cursor->fd = (int)result;
		result = 0;
	}
	chain_note(chain, cursor, result);
}

void chain_step(const struct sys *sys, struct engine_chain *chain, struct chain_cursor *cursor)
{
	const struct engine_op *op = &chain->ops[cursor->next];

	take_result(chain, cursor, run_op(sys, chain_fd(cursor, op), op));
}

bool chain_only_reads(const struct engine_chain *chain)
{
	for (uint32_t i = 0; i < chain->op_count; i++) {
		const struct engine_op *op = &chain->ops[i];

		if (op->code != OP_OPENAT && op->code != OP_READV && op->code != OP_STATX)
			return false;
		if (op->code == OP_OPENAT && (op->flags & (O_ACCMODE | O_CREAT | O_TRUNC)))
			return false;
	}
	return true;
}

/* The op's result where it can be told without waiting; else another error than -ENOENT. */
static int64_t try_op(const struct sys *sys, int fd, const struct engine_op *op)
{
	int64_t rc;

	if (op->code == OP_OPENAT)
		return sys->openat_cached(fd, op->path, op->flags);
	if (op->code == OP_READV) {
		rc = sys->preadv_cached(fd, op->iov, op->iov_count, (off_t)op->offset);
		return rc == (int64_t)op->length ? rc : -EAGAIN;
	}
	/* What is there may have to be asked for its size: on a network that can hang. */
	rc = sys->openat_cached(fd, op->path, O_PATH | O_NOFOLLOW);
	if (rc >= 0)
		sys->close((int)rc);
	return rc >= 0 ? -EAGAIN : rc;
}

bool chain_step_cached(const struct sys *sys, struct engine_chain *chain,
		       struct chain_cursor *cursor)
{
	const struct engine_op *op = &chain->ops[cursor->next];
	int64_t result;

	assert(op->code == OP_OPENAT || op->code == OP_STATX || !chain->direct);
	result = try_op(sys, chain_fd(cursor, op), op);
	/* Any other failure may be the attempt's, not the file's: the plain call will tell. */
	if (result < 0 && result != -ENOENT)
		return false;
	take_result(chain, cursor, result);
	return true;
}

void chain_end(const struct sys *sys, struct engine_chain *chain, struct chain_cursor *cursor)
{
	int rc = 0;

	assert(cursor->next == chain->op_count);
	if (cursor->fd >= 0)
		rc = sys->close(cursor->fd);
	cursor->fd = -1;
	chain_settle(chain, rc);
}

void chain_run(const struct sys *sys, struct engine_chain *chain)
{
	struct chain_cursor cursor = CHAIN_CURSOR_START;

	while (cursor.next < chain->op_count)
		chain_step(sys, chain, &cursor);
	chain_end(sys, chain, &cursor);
}
