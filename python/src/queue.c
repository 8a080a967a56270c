/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queue: Futures in the order of their releases, behind one eventfd. Entries lie in the ops.
 * The list is under the lock, which is held for a few instructions; the rest is under the GIL.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "face.h"

struct queue {
	PyObject_HEAD struct store *store; /* NULL: of no store, for event loops */
	uint32_t generation;
	uint32_t pending; /* tasks that name it and were not drained */
	uint32_t count;	  /* entries; a futex; written under the lock */
	bool closed, raised;
	int fd; /* -1: nobody asked for it */
	pthread_mutex_t lock;
	struct entry *first, *last;
};

static struct queue *of(PyObject *self)
{
	return (struct queue *)self;
}

static void raise_event(struct queue *queue)
{
	const uint64_t one = 1;

	if (queue->fd >= 0 && queue->count > 0 && !queue->raised)
		queue->raised = write(queue->fd, &one, sizeof(one)) == sizeof(one);
}

static void lower_event(struct queue *queue)
{
	uint64_t value;

	if (queue->raised && queue->count == 0)
		queue->raised = read(queue->fd, &value, sizeof(value)) < 0;
}

void queue_put(struct queue *queue, struct entry *entry)
{
	pthread_mutex_lock(&queue->lock);
	entry->next = NULL;
	if (queue->last)
		queue->last->next = entry;
	else
		queue->first = entry;
	queue->last = entry;
	__atomic_store_n(&queue->count, queue->count + 1, __ATOMIC_RELEASE);
	raise_event(queue);
	/* Before the unlock: after it, the queue may be gone. */
	futex_wake(&queue->count);
	pthread_mutex_unlock(&queue->lock);
}

static struct entry *take(struct queue *queue)
{
	struct entry *entry;

	pthread_mutex_lock(&queue->lock);
	entry = queue->first;
	if (entry) {
		queue->first = entry->next;
		if (!queue->first)
			queue->last = NULL;
		__atomic_store_n(&queue->count, queue->count - 1, __ATOMIC_RELEASE);
		lower_event(queue);
	}
	pthread_mutex_unlock(&queue->lock);
	return entry;
}

/* What the entry held of its Future and of this queue; the Future's count is the caller's. */
static PyObject *open_entry(struct queue *queue, struct entry *entry)
{
	PyObject *future = entry->future;

	entry->future = NULL;
	entry->queue = NULL;
	queue->pending--;
	Py_DECREF((PyObject *)queue);
	return future;
}

void queue_bind(struct queue *queue, struct entry *entry, PyObject *future)
{
	Py_INCREF((PyObject *)queue);
	entry->queue = queue;
	entry->future = Py_NewRef(future);
	queue->pending++;
}

void queue_unbind(struct entry *entry)
{
	if (entry->queue)
		Py_DECREF(open_entry(entry->queue, entry));
}

static int check(const struct queue *queue)
{
	if (queue->generation != process_generation())
		raise_code(-EOWNERDEAD, "the queue belongs to the parent process: a child after a "
					"fork opens its own");
	else if (queue->closed)
		raise_code(-ECANCELED, "the queue is closed");
	else
		return 0;
	return -1;
}

struct queue *queue_of(PyObject *value, const struct store *store)
{
	struct queue *queue = of(value);

	if (Py_TYPE(value) != face.queue) {
		PyErr_Format(PyExc_TypeError, "queue is a Queue, from Store.queue(), not %R",
			     Py_TYPE(value));
		return NULL;
	}
	if (store && queue->store && queue->store != store) {
		PyErr_SetString(PyExc_ValueError, "the queue is of another store");
		return NULL;
	}
	return check(queue) < 0 ? NULL : queue;
}

/* ---- the object --------------------------------------------------------------------- */

PyObject *queue_new(struct store *store)
{
	struct queue *queue = (struct queue *)PyType_GenericAlloc(face.queue, 0);

	if (!queue)
		return NULL;
	pthread_mutex_init(&queue->lock, NULL);
	queue->fd = -1;
	queue->generation = process_generation();
	queue->store = store;
	Py_XINCREF((PyObject *)store);
	return (PyObject *)queue;
}

static int clear(PyObject *self)
{
	struct queue *queue = of(self);
	struct entry *entry;

	Py_INCREF(self);
	while (queue->generation == process_generation() && (entry = take(queue)) != NULL)
		Py_DECREF(open_entry(queue, entry));
	Py_DECREF(self);
	return 0;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
	struct queue *queue = of(self);
	int ret = 0;

	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)queue->store);
	if (queue->generation != process_generation())
		return 0;
	pthread_mutex_lock(&queue->lock);
	for (struct entry *entry = queue->first; entry && ret == 0; entry = entry->next) {
		ret = visit(entry->future, arg);
		if (ret == 0)
			ret = visit(self, arg);
	}
	pthread_mutex_unlock(&queue->lock);
	return ret;
}

static void dealloc(PyObject *self)
{
	struct queue *queue = of(self);
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (queue->fd >= 0)
		close(queue->fd);
	pthread_mutex_destroy(&queue->lock);
	Py_XDECREF((PyObject *)queue->store);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

/* ---- its methods ----------------------------------------------------------------------- */

static PyObject *queue_fileno(PyObject *self, PyObject *unused)
{
	struct queue *queue = of(self);

	(void)unused;
	if (check(queue) < 0)
		return NULL;
	pthread_mutex_lock(&queue->lock);
	if (queue->fd < 0)
		queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	raise_event(queue);
	pthread_mutex_unlock(&queue->lock);
	if (queue->fd < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	return PyLong_FromLong(queue->fd);
}

/* Without the GIL; 0, or -EINTR. */
static int wait_for_entry(struct queue *queue, uint64_t until)
{
	int ret = 0;

	while (ret == 0 && __atomic_load_n(&queue->count, __ATOMIC_ACQUIRE) == 0)
		ret = futex_wait(&queue->count, 0, until);
	return ret == -EINTR ? -EINTR : 0;
}

static int wait_until(struct queue *queue, uint64_t until)
{
	int ret;

	do {
		Py_BEGIN_ALLOW_THREADS
		ret = wait_for_entry(queue, until);
		Py_END_ALLOW_THREADS
		if (ret < 0 && PyErr_CheckSignals() < 0)
			return -1;
	} while (ret < 0);
	return check(queue);
}

static PyObject *take_all(struct queue *queue, uint64_t max)
{
	PyObject *list = PyList_New(0);
	struct entry *entry;

	for (uint64_t n = 0; list && n < max && (entry = take(queue)) != NULL; n++) {
		struct op *op = entry->op;
		PyObject *future = open_entry(queue, entry);

		op_collect(op);
		if (PyList_Append(list, future) < 0)
			Py_CLEAR(list);
		Py_DECREF(future);
	}
	return list;
}

static PyObject *queue_drain(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *names)
{
	PyObject *most = NULL, *timeout = NULL;
	const struct keyword rows[] = {{"max", &most}, {"timeout", &timeout}, {NULL, NULL}};
	uint64_t max, timeout_ns;

	if (take_arguments("drain", args, nargs, names, rows, 2, 0) < 0 ||
	    take_u64(most, "max", 64, UINT32_MAX, &max) < 0 ||
	    take_time(timeout, "timeout", 0, 0, &timeout_ns) < 0 || check(of(self)) < 0)
		return NULL;
	if (timeout_ns > 0 && wait_until(of(self), until_ns(timeout_ns)) < 0)
		return NULL;
	return take_all(of(self), max);
}

static PyObject *close_queue(PyObject *self)
{
	struct queue *queue = of(self);

	if (queue->closed || queue->generation != process_generation())
		Py_RETURN_NONE;
	if (queue->pending > 0)
		return raise_code(-EBUSY, "tasks that name the queue are in flight, or wait to be "
					  "drained");
	queue->closed = true;
	if (queue->fd >= 0)
		close(queue->fd);
	queue->fd = -1;
	Py_RETURN_NONE;
}

static PyObject *queue_close(PyObject *self, PyObject *unused)
{
	(void)unused;
	return close_queue(self);
}

static PyObject *queue_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return check(of(self)) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *queue_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return close_queue(self);
}

static PyObject *queue_closed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(of(self)->closed);
}

static PyObject *queue_pending(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLong(of(self)->pending);
}

static PyGetSetDef fields[] = {
	{"closed", queue_closed, NULL, "Whether it was closed.", NULL},
	{"pending", queue_pending, NULL, "Tasks that name it and were not drained yet.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
	{"fileno", queue_fileno, METH_NOARGS,
	 "fileno()\n--\n\n"
	 "An eventfd that is readable while Futures wait to be drained. Poll it: do not read\n"
	 "or close it."},
	{"drain", (PyCFunction)(void (*)(void))queue_drain, METH_FASTCALL | METH_KEYWORDS,
	 "drain(max=64, timeout=0.0)\n--\n\n"
	 "Up to `max` Futures that were released, each once, after waiting up to `timeout`\n"
	 "seconds for the first one (0: does not wait; math.inf: as long as it takes)."},
	{"close", queue_close, METH_NOARGS,
	 "close()\n--\n\nCairnError EBUSY: tasks that name it were not drained."},
	{"__enter__", queue_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))queue_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static char doc[] =
	"Futures in the order of their releases: Store.queue(). Any thread may call any "
	"method.";

static PyType_Slot slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_tp_clear, (void *)clear},
	{Py_tp_methods, methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, doc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "cairn.Queue",
	.basicsize = sizeof(struct queue),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slots,
};

int queue_init(PyObject *module)
{
	face.queue = (PyTypeObject *)PyType_FromSpec(&spec);
	if (!face.queue)
		return -1;
	return PyModule_AddObjectRef(module, "Queue", (PyObject *)face.queue);
}
