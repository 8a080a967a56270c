/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation of a chain fails without hooks in the engine: before the chain
 * goes to the real engine the operation is replaced by one that surely fails (a
 * name below a folder that is not there) or, for a short transfer, by one with
 * fewer bytes that ends the chain. When the chain is over it is put back as it
 * was, with the results that the fault would have had. So what comes before the
 * operation really happens, on the real engine.
 */
#include "chaos.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/engine.h"

static struct {
	unsigned counted;
	uint64_t nth;
	int error;
	uint64_t count;
	bool fired;
	const char *what;
	int64_t memory_out;
} chaos;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void chaos_arm(unsigned counted, uint64_t nth, int error)
{
	pthread_mutex_lock(&lock);
	chaos.counted = counted;
	chaos.nth = nth;
	chaos.error = error;
	chaos.count = 0;
	chaos.fired = false;
	chaos.what = "";
	pthread_mutex_unlock(&lock);
}

uint64_t chaos_count(void)
{
	uint64_t count;

	pthread_mutex_lock(&lock);
	count = chaos.count;
	pthread_mutex_unlock(&lock);
	return count;
}

bool chaos_fired(void)
{
	bool fired;

	pthread_mutex_lock(&lock);
	fired = chaos.fired;
	pthread_mutex_unlock(&lock);
	return fired;
}

const char *chaos_what(void)
{
	const char *what;

	pthread_mutex_lock(&lock);
	what = chaos.what;
	pthread_mutex_unlock(&lock);
	return what;
}

int64_t chaos_memory_out(void)
{
	int64_t out;

	pthread_mutex_lock(&lock);
	out = chaos.memory_out;
	pthread_mutex_unlock(&lock);
	return out;
}

/* True when this call is the one to fail. */
static bool strikes(unsigned kind, const char *what, int *ret_error)
{
	bool now;

	pthread_mutex_lock(&lock);
	now = (chaos.counted & kind) && ++chaos.count == chaos.nth;
	if (now) {
		chaos.fired = true;
		chaos.what = what;
	}
	*ret_error = chaos.error;
	pthread_mutex_unlock(&lock);
	return now;
}

static void memory(int64_t more)
{
	pthread_mutex_lock(&lock);
	chaos.memory_out += more;
	pthread_mutex_unlock(&lock);
}

/* The error of a call that cannot be short. */
static int plain(int error)
{
	return error == CHAOS_SHORT || error == CHAOS_LATE ? -EIO : error;
}

/* ---- system calls ----------------------------------------------------------- */

#define WRAP(type, name, parameters, arguments)                                                    \
	static type chaos_##name parameters                                                        \
	{                                                                                          \
		int error;                                                                         \
                                                                                                   \
		if (!strikes(CHAOS_CALLS, #name, &error))                                          \
			return sys_native.name arguments;                                          \
		if (error == CHAOS_LATE)                                                           \
			(void)sys_native.name arguments;                                           \
		return plain(error);                                                               \
	}

WRAP(int, fallocate, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length))
WRAP(int, ftruncate, (int fd, off_t length), (fd, length))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, renameat2,
     (int old_dirfd, const char *old_path, int new_dirfd, const char *new_path, unsigned flags),
     (old_dirfd, old_path, new_dirfd, new_path, flags))
WRAP(int, linkat,
     (int old_dirfd, const char *old_path, int new_dirfd, const char *new_path, int flags),
     (old_dirfd, old_path, new_dirfd, new_path, flags))
WRAP(int, unlinkat, (int dirfd, const char *path, int flags), (dirfd, path, flags))
WRAP(int, mkdirat, (int dirfd, const char *path, mode_t mode), (dirfd, path, mode))
WRAP(int, faccessat, (int dirfd, const char *path, int mode, int flags), (dirfd, path, mode, flags))
WRAP(int, fstatat, (int dirfd, const char *path, struct stat *st, int flags),
     (dirfd, path, st, flags))
WRAP(int, fstat, (int fd, struct stat *st), (fd, st))
WRAP(int, fstatvfs, (int fd, struct statvfs *st), (fd, st))
WRAP(int, fstatfs, (int fd, struct statfs *st), (fd, st))
WRAP(int, ioctl, (int fd, unsigned long request, void *argument), (fd, request, argument))
WRAP(int, flock, (int fd, int operation), (fd, operation))
WRAP(int, byte_lock, (int fd, off_t offset, bool wait), (fd, offset, wait))
WRAP(int, bytes_locked, (int fd, off_t first, off_t count), (fd, first, count))
WRAP(ssize_t, getdents, (int fd, void *buffer, size_t bytes), (fd, buffer, bytes))
WRAP(int, shm_unlink, (const char *name), (name))
WRAP(int, random, (void *buffer, size_t bytes), (buffer, bytes))

WRAP(ssize_t, preadv_cached, (int fd, const struct iovec *iov, int iov_count, off_t offset),
     (fd, iov, iov_count, offset))

/* What makes a descriptor fails before it does. */
#define WRAP_OPEN(name, parameters, arguments)                                                     \
	static int chaos_##name parameters                                                         \
	{                                                                                          \
		int error;                                                                         \
                                                                                                   \
		if (strikes(CHAOS_CALLS, #name, &error))                                           \
			return plain(error);                                                       \
		return sys_native.name arguments;                                                  \
	}

WRAP_OPEN(openat, (int dirfd, const char *path, int flags, mode_t mode), (dirfd, path, flags, mode))
WRAP_OPEN(openat_cached, (int dirfd, const char *path, int flags), (dirfd, path, flags))
WRAP_OPEN(shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode))
WRAP_OPEN(event_open, (void), ())

/* As the kernel does it: the descriptor is gone whatever close says. */
static int chaos_close(int fd)
{
	int error, ret = sys_native.close(fd);

	return strikes(CHAOS_CALLS, "close", &error) ? plain(error) : ret;
}

static ssize_t chaos_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct iovec half = {.iov_len = 0};
	int error;

	if (!strikes(CHAOS_CALLS, "preadv", &error))
		return sys_native.preadv(fd, iov, iov_count, offset);
	if (error != CHAOS_SHORT)
		return plain(error);
	half.iov_base = iov[0].iov_base;
	half.iov_len = iov[0].iov_len / 2 & ~511ul;
	/* Of what is small it reads all: none at all would say that the file ends. */
	return half.iov_len ? sys_native.preadv(fd, &half, 1, offset)
			    : sys_native.preadv(fd, iov, iov_count, offset);
}

static ssize_t chaos_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	struct iovec half = {.iov_len = 0};
	int error;

	if (!strikes(CHAOS_CALLS, "pwritev", &error))
		return sys_native.pwritev(fd, iov, iov_count, offset);
	if (error == CHAOS_LATE)
		sys_native.pwritev(fd, iov, iov_count, offset);
	if (error != CHAOS_SHORT)
		return plain(error);
	half.iov_base = iov[0].iov_base;
	half.iov_len = iov[0].iov_len / 2 & ~511ul;
	return half.iov_len ? sys_native.pwritev(fd, &half, 1, offset) : -ENOSPC;
}

/* ---- memory ------------------------------------------------------------------- */

static int chaos_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset,
		      void **ret_address)
{
	int error, ret;

	if (strikes(CHAOS_ALLOCS, "mmap", &error))
		return -ENOMEM;
	ret = sys_native.mmap(hint, bytes, prot, flags, fd, offset, ret_address);
	if (ret == 0 && !(flags & MAP_FIXED))
		memory(1);
	return ret;
}

static int chaos_munmap(void *address, size_t bytes)
{
	memory(-1);
	return sys_native.munmap(address, bytes);
}

static int chaos_madvise(void *address, size_t bytes, int advice)
{
	return sys_native.madvise(address, bytes, advice);
}

static void *chaos_alloc(size_t alignment, size_t bytes)
{
	void *got;
	int error;

	if (strikes(CHAOS_ALLOCS, "alloc", &error))
		return NULL;
	got = sys_native.alloc(alignment, bytes);
	if (got)
		memory(1);
	return got;
}

static void chaos_free(void *address)
{
	if (address)
		memory(-1);
	sys_native.free(address);
}

/* ---- operations of chains -------------------------------------------------------- */

#define NOWHERE "/nonexistent/cairn/fault"

/* The chain that is being made to fail; one at a time, since one fault is armed at a time. */
static struct {
	bool taken;
	struct engine_chain *chain;
	void (*done)(struct engine_chain *chain);
	uint32_t at, op_count;
	struct engine_op op;
	struct iovec half;
	int error;
} struck;

static const char *const op_names[] = {
	[OP_OPENAT] = "op OPENAT",	 [OP_READV] = "op READV",
	[OP_WRITEV] = "op WRITEV",	 [OP_FSYNC] = "op FSYNC",
	[OP_FALLOCATE] = "op FALLOCATE", [OP_FDATASYNC] = "op FDATASYNC",
	[OP_RENAMEAT] = "op RENAMEAT",	 [OP_LINKAT] = "op LINKAT",
	[OP_UNLINKAT] = "op UNLINKAT",	 [OP_MKDIRAT] = "op MKDIRAT",
	[OP_STATX] = "op STATX",
};

static bool was_short(const struct engine_op *op)
{
	return op->result >= 0 && (op->code == OP_READV || op->code == OP_WRITEV) &&
	       (uint64_t)op->result != op->length;
}

static void settle(struct engine_chain *chain)
{
	chain->result = 0;
	for (uint32_t i = 0; i < chain->op_count && chain->result == 0; i++) {
		const struct engine_op *op = &chain->ops[i];

		if (op->soft)
			continue;
		if (op->result < 0)
			chain->result = op->result;
		else if (was_short(op))
			chain->result = -EIO;
	}
}

static void struck_done(struct engine_chain *chain)
{
	struct engine_op *op = &chain->ops[struck.at];
	int64_t result = op->result;

	assert(struck.taken && struck.chain == chain);
	*op = struck.op;
	op->result = result;
	chain->op_count = struck.op_count;
	chain->done = struck.done;
	/* What never came to the fault ended as it would have anyway. */
	if (struck.error != CHAOS_SHORT && result != -ECANCELED)
		op->result = plain(struck.error);
	if (op->result < 0 ? !op->soft : was_short(op))
		for (uint32_t i = struck.at + 1; i < chain->op_count; i++)
			chain->ops[i].result = -ECANCELED;
	settle(chain);
	struck.taken = false;
	chain->done(chain);
}

static void make_short(struct engine_chain *chain, struct engine_op *op)
{
	struct iovec *half = &struck.half;

	*half = op->iov[0];
	half->iov_len = half->iov_len / 2 & ~511ul;
	if (half->iov_len == 0)
		half->iov_len = op->length > 512 && op->iov[0].iov_len > 512 ? 512 : 0;
	if (half->iov_len == 0) {
		/* Too few bytes to be short by: it fails. */
		struck.error = -EIO;
		op->code = OP_UNLINKAT;
		op->fd = AT_FDCWD;
		op->path = NOWHERE;
		op->flags = 0;
		return;
	}
	op->iov = half;
	op->iov_count = 1;
	op->length = half->iov_len;
	chain->op_count = struck.at + 1;
}

static void strike(struct engine_chain *chain, uint32_t at, int error)
{
	struct engine_op *op = &chain->ops[at];
	bool transfer = op->code == OP_READV || op->code == OP_WRITEV;

	assert(!struck.taken);
	struck.taken = true;
	struck.chain = chain;
	struck.done = chain->done;
	struck.at = at;
	struck.op_count = chain->op_count;
	struck.op = *op;
	struck.error = error == CHAOS_SHORT && (!transfer || op->soft) ? -EIO : error;
	chain->done = struck_done;
	if (error == CHAOS_LATE && op->code != OP_OPENAT) {
		/* It happens, and nothing after it does, but where it is soft. */
		if (!op->soft)
			chain->op_count = at + 1;
		return;
	}
	if (struck.error == CHAOS_SHORT) {
		make_short(chain, op);
		return;
	}
	op->path = NOWHERE;
	op->fd = AT_FDCWD;
	if (op->code == OP_OPENAT) {
		op->flags = O_RDONLY;
		return;
	}
	op->code = OP_UNLINKAT;
	op->flags = 0;
}

static void unstrike(struct engine_chain *chain)
{
	chain->ops[struck.at] = struck.op;
	chain->op_count = struck.op_count;
	chain->done = struck.done;
	struck.taken = false;
}

static int submit_through(const struct engine_ops *ops, struct engine *engine,
			  struct engine_chain *chain)
{
	bool now = false;
	int error, ret;

	for (uint32_t i = 0; !now && i < chain->op_count; i++) {
		if (chain->ops[i].code == OP_CALL) /* it is run always; what it calls may fail */
			continue;
		now = strikes(CHAOS_OPS, op_names[chain->ops[i].code], &error);
		if (now)
			strike(chain, i, error);
	}
	ret = ops->submit(engine, chain);
	if (ret < 0 && now)
		unstrike(chain);
	return ret;
}

static int uring_submit(struct engine *engine, struct engine_chain *chain)
{
	return submit_through(sys_native.engine(ENGINE_URING), engine, chain);
}

static int aio_submit(struct engine *engine, struct engine_chain *chain)
{
	return submit_through(&engine_aio, engine, chain);
}

static int psync_submit(struct engine *engine, struct engine_chain *chain)
{
	return submit_through(&engine_psync, engine, chain);
}

static struct engine_ops wrapped[ENGINE_KINDS];

static void wrap_engines(void)
{
	static int (*const submits[ENGINE_KINDS])(struct engine *, struct engine_chain *) = {
		[ENGINE_URING] = uring_submit,
		[ENGINE_AIO] = aio_submit,
		[ENGINE_PSYNC] = psync_submit,
	};

	for (enum engine_kind kind = 0; kind < ENGINE_KINDS; kind++) {
		const struct engine_ops *ops = sys_native.engine(kind);

		if (!ops)
			continue;
		wrapped[kind] = *ops;
		wrapped[kind].submit = submits[kind];
	}
}

static const struct engine_ops *chaos_engine(enum engine_kind kind)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, wrap_engines);
	return sys_native.engine(kind) ? &wrapped[kind] : NULL;
}

/* ---- what never fails -------------------------------------------------------------- */

static int chaos_byte_unlock(int fd, off_t offset)
{
	return sys_native.byte_unlock(fd, offset);
}

static uint64_t chaos_now_ns(void)
{
	return sys_native.now_ns();
}

static uint64_t chaos_realtime_ns(void)
{
	return sys_native.realtime_ns();
}

static int chaos_sleep_ns(uint64_t ns)
{
	return sys_native.sleep_ns(ns);
}

static int chaos_event_signal(int fd)
{
	return sys_native.event_signal(fd);
}

static int chaos_event_clear(int fd)
{
	return sys_native.event_clear(fd);
}

const struct sys chaos_sys = {
	.version = SYS_VERSION,
	.size = sizeof(struct sys),
	.openat = chaos_openat,
	.openat_cached = chaos_openat_cached,
	.close = chaos_close,
	.preadv = chaos_preadv,
	.preadv_cached = chaos_preadv_cached,
	.pwritev = chaos_pwritev,
	.fallocate = chaos_fallocate,
	.ftruncate = chaos_ftruncate,
	.fsync = chaos_fsync,
	.fdatasync = chaos_fdatasync,
	.renameat2 = chaos_renameat2,
	.linkat = chaos_linkat,
	.unlinkat = chaos_unlinkat,
	.mkdirat = chaos_mkdirat,
	.faccessat = chaos_faccessat,
	.fstatat = chaos_fstatat,
	.fstat = chaos_fstat,
	.fstatvfs = chaos_fstatvfs,
	.fstatfs = chaos_fstatfs,
	.ioctl = chaos_ioctl,
	.flock = chaos_flock,
	.byte_lock = chaos_byte_lock,
	.byte_unlock = chaos_byte_unlock,
	.bytes_locked = chaos_bytes_locked,
	.getdents = chaos_getdents,
	.shm_open = chaos_shm_open,
	.shm_unlink = chaos_shm_unlink,
	.mmap = chaos_mmap,
	.munmap = chaos_munmap,
	.madvise = chaos_madvise,
	.alloc = chaos_alloc,
	.free = chaos_free,
	.now_ns = chaos_now_ns,
	.realtime_ns = chaos_realtime_ns,
	.sleep_ns = chaos_sleep_ns,
	.random = chaos_random,
	.event_open = chaos_event_open,
	.event_signal = chaos_event_signal,
	.event_clear = chaos_event_clear,
	.engine = chaos_engine,
};
