/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extension cairn._cairn: objects over the public C API, in Python's stable ABI.
 *
 * Invariants:
 *  1. What C may touch without the GIL is memory of a struct op, never an object. An op
 *     holds its buffers until the release, whatever becomes of the Future.
 *  2. A thread of the store never waits for the GIL and never touches an object: at a release
 *     that nobody asks for, it puts the op on a list and asks the interpreter to empty that.
 *  3. A store's handle is used between store_begin() and store_end(), or with the GIL
 *     held throughout; close waits for those who are between the two.
 *  4. A child of a fork touches no handle and waits for nothing: its generation differs.
 */
#ifndef CAIRN_PYTHON_FACE_H
#define CAIRN_PYTHON_FACE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdbool.h>

#include <cairn/store.h>
#include <cairn/task.h>

/* Up to here a call is so short that giving the GIL away would cost more than it frees. */
#define SHORT_KEYS  64
#define SHORT_XFERS 32

#define UNTOLD INT32_MIN /* the status of what was never submitted */

struct op;
struct queue;
struct lent;

struct store {
	PyObject_HEAD struct cairn_store *handle; /* NULL: closed */
	uint32_t generation;			  /* of the process that opened it */
	uint32_t calls; /* threads between begin and end; a futex; written under the GIL */
	bool closing, slow_lookups, tried; /* tried: to close it at the interpreter's end */
	PyObject *spec;
	struct op *ops;		   /* in flight, or not yet collected; under the GIL */
	struct lent *lent;	   /* memory of it that objects lend; under the GIL */
	struct store *next, *prev; /* all that are open; under the GIL */
};

struct name_space {
	PyObject_HEAD struct store *store;
	struct cairn_namespace *handle;
	uint32_t shard_count; /* 0: variable */
	uint64_t shard_bytes;
};

struct future {
	PyObject_HEAD struct op *op;
	PyObject *context;
};

struct hold {
	PyObject_HEAD struct store *store;
	uint64_t id; /* 0: nothing held */
	Py_ssize_t count;
};

/* A Pin or a Slot. */
struct lent {
	PyObject_HEAD struct store *store;
	struct name_space *ns;
	struct lent *next, *prev;
	void *base; /* NULL: given back, or committed */
	uint64_t length, pin;
	Py_ssize_t views;	      /* buffers that are out, `view` among them */
	PyObject *view;		      /* the memoryview of our own; NULL: none */
	struct cairn_xfer shape;      /* of a Slot */
	struct cairn_block_attr attr; /* likewise; size 0: none */
	bool writable, over;	      /* over: no further views */
};

/* The types and what else a call needs; made once, by the module's initialisation. */
struct face {
	PyObject *error;		  /* CairnError */
	PyObject *await;		  /* the function behind Future.__await__ */
	PyObject *dlpack, *dlpack_device; /* names, interned: the method cache keeps each new one */
	PyTypeObject *store, *name_space, *future, *hold, *queue, *stat, *found;
	PyTypeObject *registration, *pin, *slot;
};
extern struct face face;

/* ---- module.c ----------------------------------------------------------- */

uint32_t process_generation(void);

/* ---- args.c: arguments and errors; all with the GIL ---------------------- */

/* Sets CairnError; @text NULL: the code's one meaning. Returns NULL. */
PyObject *raise_code(int code, const char *text);
PyObject *raise_error(const struct cairn_error *error);

struct keyword {
	const char *name;
	PyObject **value; /* NULL where it was not given, or was None */
};

/*
 * Takes METH_FASTCALL arguments: the first @required of @rows must be given, the first
 * @positional may be so by position. A row without a name ends them.
 */
int take_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
		   const struct keyword *rows, int positional, int required);

/* Seconds; @none for NULL; infinity gives UINT64_MAX, 0 gives @zero. */
int take_time(PyObject *value, const char *name, uint64_t none, uint64_t zero, uint64_t *ret_ns);
int take_u64(PyObject *value, const char *name, uint64_t none, uint64_t max, uint64_t *ret);
int take_flag(PyObject *value, bool *ret);
int take_durability(PyObject *value, uint32_t none, uint32_t *ret);

#define KEYS_INSIDE 64

/* Keys as C wants them: those of few keys lie inside, those of a bytes object where they are. */
struct keys {
	const struct cairn_key *at;
	size_t count;
	struct cairn_key *heap;
	PyObject *owner; /* of a packed bytes object */
	struct cairn_key inside[KEYS_INSIDE];
};
int keys_take(struct keys *keys, PyObject *value);
void keys_drop(struct keys *keys);
/* One key of 16 bytes. */
int key_take(PyObject *value, struct cairn_key *ret);

/* ---- store.c ----------------------------------------------------------------- */

/* 0, or -1 with CairnError set: closed, closing, or a child after a fork. */
int store_check(const struct store *store);
int store_begin(struct store *store);
void store_end(struct store *store);
void stores_close_at_exit(void);
int stores_init(PyObject *module);

/* ---- op.c: what C may touch until the release --------------------------------- */

enum {
	OP_RESULT = CAIRN_EVENT_RESULT,
	OP_RELEASE = CAIRN_EVENT_RELEASE,
	OP_WATCHED = 0x10,
};

struct chunk; /* of buffers that are held */

/* That a queue is to deliver a Future at its release: it holds both until then. */
struct entry {
	struct entry *next; /* under the queue's lock */
	struct op *op;
	struct queue *queue; /* strong; NULL: none */
	PyObject *future;    /* strong */
};

struct op {
	uint32_t refs;	/* atomic: the library's and the Future's */
	uint32_t state; /* atomic, a futex: OP_* */
	uint32_t generation;
	uint32_t count;
	uint64_t task;
	struct store *store; /* strong, until the op is let go */
	struct op *next, *prev;
	struct op *reap_next;
	struct entry queue, watch;    /* the user's, and an event loop's */
	struct cairn_xfer *xfers;     /* of loads and dumps */
	struct cairn_result *results; /* of the rest */
	struct cairn_key *keys;
	struct cairn_block_attr *attrs;
	struct cairn_segment *segments;
	size_t segment_count, segments_max;
	struct chunk *chunks;
	bool linked, held;
};

/* An op for @count items with room for their xfers, or for their keys and results. */
struct op *op_new(struct store *store, size_t count, bool xfers);
/* Never submitted, or of a call that is over: gives everything back. */
void op_free(struct op *op);
/* Keeps @view, which is moved, until the release. */
Py_buffer *op_hold(struct op *op);
void op_unhold_last(struct op *op);
struct cairn_segment *op_segment(struct op *op);
/* The Future's end of a submitted op: the buffers go at the release. */
void op_leave(struct op *op);
/* After the release was seen: buffers and the store are let go. */
void op_collect(struct op *op);
uint32_t op_state(const struct op *op);
struct cairn_result op_result(const struct op *op, size_t i);
PyObject *op_statuses(const struct op *op);
/* Whether the callback will deliver to op->watch: false, the release came before. */
bool op_watched(struct op *op);
/* The buffers' owners, for the garbage collector. */
int op_visit(const struct op *op, visitproc visit, void *arg);
/* 1: reached; 0: time is up; -1: an exception. Gives the GIL away. */
int op_wait(struct op *op, uint32_t events, uint64_t timeout_ns);
void op_done(void *context, uint64_t task, uint32_t events); /* the library's callback */
/* Of a call that is over while I/O of it is in flight: let go of when there is none. */
void op_to_limbo(struct op *op);
/* Lets go of what was released and has no Future; with the GIL. */
void reap(void);
void reaping_ends(void);
void ops_after_fork(void);
/* Monotonic; a point in time for @span_ns from now. */
uint64_t now_ns(void);
uint64_t until_ns(uint64_t span_ns);
/* Waits while *@word is @value: 0, or -EINTR, -ETIMEDOUT. @until of UINT64_MAX: no end. */
int futex_wait(const uint32_t *word, uint32_t value, uint64_t until);
void futex_wake(const uint32_t *word);

/* ---- items.c ------------------------------------------------------------------ */

/* How items become xfers. */
struct shape {
	const struct name_space *ns;
	PyObject *shards; /* NULL, an int or a sequence */
	PyObject *attrs;  /* NULL, an Attr or a sequence */
	uint64_t offset;
	uint64_t shard_count, shard_bytes; /* dumps into a variable namespace; 0: not said */
	bool dump;
};
int items_take(struct op *op, const struct keys *keys, PyObject *items, const struct shape *shape);
/* A cairn.Attr. */
int attr_take(PyObject *value, struct cairn_block_attr *attr);

/* ---- buffers.c ----------------------------------------------------------------- */

#define NO_INDEX SIZE_MAX /* one thing, not an item of many: errors speak of "memory" */

/* Adds what @item names to the op's segments; a buffer is held. -1: an exception. */
int buffer_add(struct op *op, PyObject *item, bool writable, size_t index);
/* Whether @item is one buffer, not a sequence of items. */
bool buffer_is_one(PyObject *item);

/* ---- memory.c, lent.c --------------------------------------------------------------- */

PyObject *register_memory(struct store *store, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *names);
int memory_init(PyObject *module);
/* Before a close: what nobody looks at goes back. -1: a view is left, BufferError is set. */
int lent_end(struct store *store);
PyMethodDef *lent_methods(void); /* of a namespace */
int lent_init(PyObject *module);

/* ---- namespace.c, future.c, hold.c, queue.c -------------------------------------- */

PyObject *namespace_open(struct store *store, PyObject *const *args, Py_ssize_t nargs,
			 PyObject *names);
int namespace_init(PyObject *module);
PyMethodDef *transfer_methods(void);
int future_init(PyObject *module);
PyObject *future_new(struct op *op, PyObject *context);
int hold_init(PyObject *module);
PyObject *hold_new(struct store *store, uint64_t id, int64_t count);
int queue_init(PyObject *module);
/* @store NULL: a queue of no store. */
PyObject *queue_new(struct store *store);
/* From op_done(), without the GIL. */
void queue_put(struct queue *queue, struct entry *entry);
/* That @queue is to deliver @future; and that it is not to, after all. */
void queue_bind(struct queue *queue, struct entry *entry, PyObject *future);
void queue_unbind(struct entry *entry);
/* NULL and an exception: @value is no open queue, or one of another store. */
struct queue *queue_of(PyObject *value, const struct store *store);

#endif
