/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O engines: chains of file operations, carried by io_uring, by libaio with
 * a few blocking workers, or by plain calls on those alone. None makes its
 * owner wait for a device, but in poll() for as long as the owner said.
 *
 * A chain is a list of ops that run one after the other; when one fails (a
 * short read or write fails the chain too), the rest end -ECANCELED. The first
 * op may be OP_OPENAT; later ops of the chain that say fd = ENGINE_FD_CHAIN use
 * what it opened, and the engine closes that descriptor when the chain is over,
 * whatever happened. done() is called once, when no op of the chain can touch
 * memory any more, from poll() on the owner's thread.
 *
 * Owner: one thread at a time makes every call but wake(); the engine may be
 * handed to another thread with a happens-before between them.
 */
#ifndef SYS_ENGINE_H
#define SYS_ENGINE_H

#include "sys/sys.h"

struct engine;
struct workers;

#define ENGINE_FD_CHAIN (-2) /* what this chain opened */

enum engine_code {
	OP_OPENAT,    /* fd: directory, path, flags, mode; result 0 (the chain owns it) */
	OP_READV,     /* fd, iov, iov_count, offset; result: bytes */
	OP_WRITEV,    /* likewise */
	OP_FALLOCATE, /* fd, flags: mode, offset, length */
	OP_FSYNC,     /* fd */
	OP_FDATASYNC, /* fd */
	OP_RENAMEAT,  /* fd, path -> fd2, path2; flags: RENAME_NOREPLACE or 0 */
	OP_LINKAT,    /* fd, path -> fd2, path2 */
	OP_UNLINKAT,  /* fd, path, flags */
	OP_MKDIRAT,   /* fd, path, mode */
	OP_STATX,     /* fd, path -> stx (size and blocks); fd must not be ENGINE_FD_CHAIN */
	/*
	 * call(context), for what may block and has no asynchronous form (a lock of
	 * a network file system): on a worker, in place only where there are none.
	 * Alone in its chain, and always run; result: what it returns.
	 */
	OP_CALL,
};

struct statx;

struct engine_op {
	enum engine_code code;
	int fd, fd2;
	int flags;
	mode_t mode;
	int iov_count;
	const char *path, *path2;
	const struct iovec *iov;
	uint64_t offset, length; /* READV, WRITEV: length must be the sum of iov */
	struct statx *stx;
	int64_t (*call)(void *context);
	void *context;
	/* A failing result of this op does not fail the chain. */
	bool soft;
	/* Out: 0 or bytes, or a negative errno; a short transfer has its bytes here. */
	int64_t result;
	/* The engine's own. */
	uint64_t engine_private[2];
};

#define ENGINE_CHAIN_OPS_MAX 10

struct engine_chain {
	struct engine_op *ops; /* lent until done() */
	uint32_t op_count;
	bool direct; /* its transfers are O_DIRECT: libaio carries them, and nothing else may wait
		      */
	int64_t result; /* out: 0, or the first failure (a short transfer: -EIO) */
	void (*done)(struct engine_chain *chain);
	/* The engine's own. */
	struct engine_chain *next;
	uint64_t engine_private[4];
};

#define ENGINE_MEMORY_MAX 8

struct engine_memory {
	void *base;
	size_t bytes;
};

struct engine_opts {
	const struct sys *sys;
	uint32_t chains_max; /* in flight at once; further submits return -EAGAIN */
	uint32_t iowq_max;   /* uring: kernel threads for files that block; 0: a default */
	bool shared_owner;   /* the owner changes: no SINGLE_ISSUER */
	/* For what blocks, kept until close(); uring: OP_CALL alone. NULL: poll() does that itself.
	 */
	struct workers *workers;
	/*
	 * A descriptor that must stay open while any I/O is in flight, even after
	 * a SIGKILL: registered in the ring. -1: none. Not closed by the engine.
	 * With add_guard() more of them can be given later.
	 */
	int guard_fd;
	/* I/O in these may be registered, a chunk at a time as it comes into use. */
	const struct engine_memory *memory; /* copied */
	uint32_t memory_count;
	size_t memory_chunk; /* what is left of a range behind its last whole one is not */
};

struct engine_stat {
	uint64_t chains, ops;	 /* completed */
	uint64_t fixed, unfixed; /* reads and writes with a registered buffer, and without */
	uint32_t in_flight;
};

struct engine_ops {
	const char *name;
	/*
	 * Whether there is such an engine here at all: 0, or what open() would give. NULL: open()
	 * and close() are cheap enough to tell.
	 */
	int (*probe)(void);
	/*
	 * -EOPNOTSUPP, -EPERM, -ENOSYS: not here (seccomp, kernel); -ENOBUFS: not of this size,
	 * RLIMIT_MEMLOCK, against which rings count, allows no more. Try another.
	 */
	int (*open)(const struct engine_opts *opts, struct engine **ret_engine);
	/* Nothing may be in flight. */
	void (*close)(struct engine *engine);
	/* 0, or -EAGAIN; never calls done() itself. What was submitted goes out with poll(). */
	int (*submit)(struct engine *engine, struct engine_chain *chain);
	/*
	 * Sends what is queued, then reaps: calls done() of what has ended. Waits
	 * for at most @wait_ns (0: not at all, UINT64_MAX: for ever) until a chain
	 * ended or wake() was called. Returns how many chains ended, or a negative
	 * errno when the engine itself is broken. It stops after a few, or after one
	 * that is large: done() takes time, in which the device has nothing new to do.
	 */
	int (*poll)(struct engine *engine, uint64_t wait_ns);
	/* Ends the current or the next poll()'s wait. Any thread, async-signal-safe. */
	void (*wake)(struct engine *engine);
	int (*add_guard)(struct engine *engine, int fd);
	void (*stat)(const struct engine *engine, struct engine_stat *ret_stat);
	/*
	 * After a fork, in the child: closes the descriptors the engine holds and
	 * touches nothing else (the rings are shared memory of the parent).
	 */
	void (*abandon)(struct engine *engine);
};

extern const struct engine_ops engine_uring, engine_aio, engine_psync;

#endif
