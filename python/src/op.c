/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations: what C may touch until the release, in one allocation, and the buffers that
 * are held until then. Two hold an op: the library, from the submission to the end
 * of its last callback, and the Future. The Future's end lets go of the buffers, where the
 * release has come; where it has not, the callback that brings it puts the op on the list
 * of what is to be reaped, and asks the interpreter to do so.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "face.h"

#define CHUNK_MORE 32u /* buffers a chunk after the first */

/* Py_buffers do not move once they are filled. */
struct chunk {
	struct chunk *next;
	size_t used, max;
	Py_buffer views[];
};

static pthread_mutex_t reap_lock = PTHREAD_MUTEX_INITIALIZER;
static struct op *reap_list;
static bool reap_asked, reap_ended;
static struct op *limbo; /* of calls that ended with I/O in flight; under the GIL */

/* ---- time and waiting -------------------------------------------------------- */

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t until_ns(uint64_t span_ns)
{
	uint64_t now = now_ns();

	return span_ns > UINT64_MAX - now ? UINT64_MAX : now + span_ns;
}

int futex_wait(const uint32_t *word, uint32_t value, uint64_t until)
{
	struct timespec at = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
	long ret = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
			   until == UINT64_MAX ? NULL : &at, NULL, FUTEX_BITSET_MATCH_ANY);

	if (ret == 0 || errno == EAGAIN)
		return 0;
	return -errno;
}

void futex_wake(const uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ---- making and freeing --------------------------------------------------------- */

static void link_op(struct op *op)
{
	op->next = op->store->ops;
	if (op->next)
		op->next->prev = op;
	op->store->ops = op;
	op->linked = true;
}

static void unlink_op(struct op *op)
{
	if (!op->linked)
		return;
	if (op->prev)
		op->prev->next = op->next;
	else
		op->store->ops = op->next;
	if (op->next)
		op->next->prev = op->prev;
	op->linked = false;
}

struct op *op_new(struct store *store, size_t count, bool xfers)
{
	size_t each = xfers ? sizeof(struct cairn_xfer)
			    : sizeof(struct cairn_key) + sizeof(struct cairn_result);
	struct op *op;

	if (__atomic_load_n(&reap_list, __ATOMIC_RELAXED) || limbo)
		reap();
	if (count > INT32_MAX) {
		PyErr_SetString(PyExc_ValueError, "more than 2147483647 items");
		return NULL;
	}
	op = calloc(1, sizeof(*op) + count * each);
	if (!op) {
		PyErr_NoMemory();
		return NULL;
	}
	op->refs = 1;
	op->generation = process_generation();
	op->count = (uint32_t)count;
	op->held = true;
	if (xfers) {
		op->xfers = (struct cairn_xfer *)(op + 1);
	} else {
		op->results = (struct cairn_result *)(op + 1);
		op->keys = (struct cairn_key *)(op->results + count);
	}
	op->queue.op = op->watch.op = op;
	op->store = store;
	Py_INCREF((PyObject *)store);
	link_op(op);
	return op;
}

Py_buffer *op_hold(struct op *op)
{
	struct chunk *chunk = op->chunks;

	if (!chunk || chunk->used == chunk->max) {
		size_t max = chunk || op->count == 0 ? CHUNK_MORE : op->count;

		chunk = malloc(sizeof(*chunk) + max * sizeof(chunk->views[0]));
		if (!chunk) {
			PyErr_NoMemory();
			return NULL;
		}
		chunk->next = op->chunks;
		chunk->used = 0;
		chunk->max = max;
		op->chunks = chunk;
	}
	return &chunk->views[chunk->used++];
}

void op_unhold_last(struct op *op)
{
	op->chunks->used--;
}

struct cairn_segment *op_segment(struct op *op)
{
	if (op->segment_count == op->segments_max) {
		size_t max = op->segments_max ? op->segments_max * 2 : (size_t)op->count + 1;
		struct cairn_segment *more = realloc(op->segments, max * sizeof(*more));

		if (!more) {
			PyErr_NoMemory();
			return NULL;
		}
		op->segments = more;
		op->segments_max = max;
	}
	return &op->segments[op->segment_count++];
}

static void release_views(struct chunk *chunk)
{
	while (chunk) {
		struct chunk *next = chunk->next;

		for (size_t i = 0; i < chunk->used; i++) {
			if (chunk->views[i].buf)
				PyBuffer_Release(&chunk->views[i]);
			else
				Py_DECREF(chunk->views[i].obj);
		}
		free(chunk);
		chunk = next;
	}
}

/* Queues keep what they deliver: those of the op are not touched here. */
void op_collect(struct op *op)
{
	struct store *store = op->store;
	struct chunk *chunks = op->chunks;

	if (!op->held)
		return;
	unlink_op(op);
	op->held = false;
	op->chunks = NULL;
	op->store = NULL;
	release_views(chunks);
	Py_DECREF((PyObject *)store);
}

static void free_memory(struct op *op)
{
	free(op->segments);
	free(op->attrs);
	free(op);
}

void op_free(struct op *op)
{
	op_collect(op);
	queue_unbind(&op->queue);
	free_memory(op);
}

/* ---- the library's side: no GIL --------------------------------------------------- */

static int reap_pending(void *unused)
{
	(void)unused;
	reap();
	return 0;
}

static void reap_later(struct op *op)
{
	pthread_mutex_lock(&reap_lock);
	op->reap_next = reap_list;
	reap_list = op;
	/* Refused when its own list is full: then the next call of ours does it. */
	if (!reap_asked && !reap_ended)
		reap_asked = Py_AddPendingCall(reap_pending, NULL) == 0;
	pthread_mutex_unlock(&reap_lock);
}

static void drop(struct op *op)
{
	if (__atomic_sub_fetch(&op->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (op->held)
		reap_later(op);
	else
		free_memory(op);
}

void op_done(void *context, uint64_t task, uint32_t events)
{
	struct op *op = context;
	struct queue *queue = op->queue.queue; /* after the release, only where it is to deliver */
	uint32_t before;

	(void)task;
	before = __atomic_fetch_or(&op->state, events & (OP_RESULT | OP_RELEASE), __ATOMIC_ACQ_REL);
	futex_wake(&op->state);
	if (!(events & CAIRN_EVENT_RELEASE))
		return;
	if (queue)
		queue_put(queue, &op->queue);
	if (before & OP_WATCHED)
		queue_put(op->watch.queue, &op->watch);
	drop(op);
}

/* ---- the Future's side: the GIL --------------------------------------------------- */

uint32_t op_state(const struct op *op)
{
	return __atomic_load_n(&op->state, __ATOMIC_ACQUIRE);
}

void op_leave(struct op *op)
{
	if (op->generation != process_generation()) {
		/* No thread of this process knows of it; C's own memory stays as it is. */
		op_collect(op);
		return;
	}
	if (op_state(op) & OP_RELEASE)
		op_collect(op);
	drop(op);
}

void op_to_limbo(struct op *op)
{
	op->reap_next = limbo;
	limbo = op;
}

/* Whether no I/O of calls that are over targets memory of theirs. */
static bool is_quiet(struct store *store)
{
	if (!store->handle || store->generation != process_generation())
		return true;
	return cairn_store_quiesce(store->handle, 0) == 0;
}

static void reap_limbo(void)
{
	struct op *op = limbo;

	limbo = NULL;
	while (op) {
		struct op *next = op->reap_next;

		if (is_quiet(op->store))
			op_free(op);
		else
			op_to_limbo(op);
		op = next;
	}
}

void reap(void)
{
	struct op *op;

	pthread_mutex_lock(&reap_lock);
	op = reap_list;
	reap_list = NULL;
	reap_asked = false;
	pthread_mutex_unlock(&reap_lock);
	while (op) {
		struct op *next = op->reap_next;

		op_free(op);
		op = next;
	}
	reap_limbo();
}

void reaping_ends(void)
{
	pthread_mutex_lock(&reap_lock);
	reap_ended = true;
	pthread_mutex_unlock(&reap_lock);
}

void ops_after_fork(void)
{
	pthread_mutex_init(&reap_lock, NULL);
	reap_list = NULL;
	reap_asked = false;
}

struct cairn_result op_result(const struct op *op, size_t i)
{
	return op->xfers ? op->xfers[i].result : op->results[i];
}

PyObject *op_statuses(const struct op *op)
{
	PyObject *list = PyList_New((Py_ssize_t)op->count);

	for (uint32_t i = 0; list && i < op->count; i++) {
		PyObject *status = PyLong_FromLong(op_result(op, i).status);

		if (!status || PyList_SetItem(list, (Py_ssize_t)i, status) < 0)
			Py_CLEAR(list);
	}
	return list;
}

bool op_watched(struct op *op)
{
	return !(__atomic_fetch_or(&op->state, OP_WATCHED, __ATOMIC_ACQ_REL) & OP_RELEASE);
}

int op_visit(const struct op *op, visitproc visit, void *arg)
{
	for (const struct chunk *chunk = op->chunks; chunk; chunk = chunk->next)
		for (size_t i = 0; i < chunk->used; i++)
			Py_VISIT(chunk->views[i].obj);
	return 0;
}

/* Waits without the GIL until @events are there; 1, 0 when time is up, or -EINTR. */
static int wait_for(struct op *op, uint32_t events, uint64_t until)
{
	int ret = 0;

	while (ret == 0) {
		uint32_t state = op_state(op);

		if ((state & events) == events)
			return 1;
		ret = futex_wait(&op->state, state, until);
	}
	return ret == -ETIMEDOUT ? 0 : -EINTR;
}

int op_wait(struct op *op, uint32_t events, uint64_t timeout_ns)
{
	uint64_t until;
	int ret;

	if ((op_state(op) & events) == events)
		return 1;
	if (op->generation != process_generation()) {
		raise_code(-EOWNERDEAD, "the task is of the parent process: a child after a fork "
					"cannot wait for it");
		return -1;
	}
	if (timeout_ns == 0)
		return 0;
	until = until_ns(timeout_ns);
	do {
		Py_BEGIN_ALLOW_THREADS
		ret = wait_for(op, events, until);
		Py_END_ALLOW_THREADS
		if (ret < 0 && PyErr_CheckSignals() < 0)
			return -1;
	} while (ret < 0);
	return ret;
}
