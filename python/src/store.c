/* SPDX-License-Identifier: Apache-2.0 */
/* Store: opening, closing, figures. */
#include <errno.h>
#include <string.h>

#include "face.h"

#define EXIT_WAIT_NS 2000000000u /* what an exit gives to stores that were left open */

static struct store *open_stores; /* under the GIL */

/* ---- who is inside ------------------------------------------------------------ */

int store_check(const struct store *store)
{
	if (store->generation != process_generation())
		raise_code(-EOWNERDEAD, "the store belongs to the parent process: a child after a "
					"fork opens its own");
	else if (!store->handle || store->closing)
		raise_code(-ECANCELED,
			   store->handle ? "the store is being closed" : "the store is closed");
	else
		return 0;
	return -1;
}

int store_begin(struct store *store)
{
	if (store_check(store) < 0)
		return -1;
	__atomic_fetch_add(&store->calls, 1, __ATOMIC_RELAXED);
	Py_INCREF((PyObject *)store);
	return 0;
}

void store_end(struct store *store)
{
	if (__atomic_sub_fetch(&store->calls, 1, __ATOMIC_RELAXED) == 0 && store->closing)
		futex_wake(&store->calls);
	Py_DECREF((PyObject *)store);
}

/* ---- opening and closing -------------------------------------------------------- */

static void list_store(struct store *store)
{
	store->next = open_stores;
	store->prev = NULL;
	if (open_stores)
		open_stores->prev = store;
	open_stores = store;
}

static void unlist_store(struct store *store)
{
	if (store->prev)
		store->prev->next = store->next;
	else if (open_stores == store)
		open_stores = store->next;
	if (store->next)
		store->next->prev = store->prev;
	store->next = store->prev = NULL;
}

/* Without the GIL: 0 when nobody is inside, else -ETIMEDOUT or -EINTR. */
static int wait_for_calls(struct store *store, uint64_t until)
{
	int ret = 0;

	while (ret == 0) {
		uint32_t calls = __atomic_load_n(&store->calls, __ATOMIC_RELAXED);

		if (calls == 0)
			return 0;
		ret = futex_wait(&store->calls, calls, until);
	}
	return ret;
}

/* Gives the GIL away. -EINTR: a signal came, and nothing changed. */
static int close_handle(struct store *store, uint64_t timeout_ns)
{
	uint64_t span = timeout_ns, until, now;
	struct cairn_stat stat = {.size = sizeof(stat)};
	int ret;

	store->closing = true;
	Py_BEGIN_ALLOW_THREADS
	if (span == 0) {
		cairn_stat(store->handle, &stat);
		span = stat.deadline_ns;
	}
	until = until_ns(span);
	ret = wait_for_calls(store, until);
	if (ret == 0) {
		now = now_ns();
		span = until == UINT64_MAX ? UINT64_MAX : until > now ? until - now : 1;
		ret = cairn_store_close(store->handle, span);
	}
	Py_END_ALLOW_THREADS
	store->closing = false;
	if (ret == 0) {
		store->handle = NULL;
		unlist_store(store);
	}
	return ret;
}

static PyObject *close_store(struct store *store, uint64_t timeout_ns)
{
	int ret;

	if (store->generation != process_generation() || !store->handle)
		Py_RETURN_NONE; /* a child's parent closes it */
	if (store->closing)
		return raise_code(-EBUSY, "another thread is closing the store");
	if (lent_end(store) < 0)
		return NULL;
	do {
		ret = close_handle(store, timeout_ns);
		if (ret == -EINTR && PyErr_CheckSignals() < 0)
			return NULL;
	} while (ret == -EINTR && store->handle && !store->closing);
	reap();
	if (ret == -ETIMEDOUT) {
		PyErr_SetString(PyExc_TimeoutError,
				"the store was not closed: something still runs; it stays open");
		return NULL;
	}
	if (ret < 0)
		return raise_code(ret, NULL);
	Py_RETURN_NONE;
}

static PyObject *store_close(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *names)
{
	PyObject *timeout = NULL;
	const struct keyword rows[] = {{"timeout", &timeout}, {NULL, NULL}};
	uint64_t timeout_ns;

	if (take_arguments("close", args, nargs, names, rows, 1, 0) < 0 ||
	    take_time(timeout, "timeout", 0, 1, &timeout_ns) < 0)
		return NULL;
	return close_store((struct store *)self, timeout_ns);
}

static PyObject *store_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return store_check((struct store *)self) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *store_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return close_store((struct store *)self, 0);
}

static struct store *next_to_close(void)
{
	struct store *store = open_stores;

	while (store &&
	       (store->tried || store->closing || store->generation != process_generation()))
		store = store->next;
	return store;
}

/* At the interpreter's end: what was left open is closed, as far as that ends soon. */
void stores_close_at_exit(void)
{
	struct store *store;

	/* The list may change whenever the GIL is given away: it is asked anew. */
	while ((store = next_to_close()) != NULL) {
		store->tried = true;
		if (lent_end(store) < 0) {
			PyErr_Clear(); /* it goes with the process */
			continue;
		}
		Py_INCREF((PyObject *)store);
		for (struct op *op = store->ops; op; op = op->next)
			if (op->task)
				cairn_task_cancel(store->handle, op->task);
		close_handle(store, EXIT_WAIT_NS);
		Py_DECREF((PyObject *)store);
	}
}

static int open_it(struct store *store, PyObject *spec, PyObject *rank, PyObject *stage_path)
{
	struct cairn_store_opts opts = {.size = sizeof(opts)};
	struct cairn_error error = {0};
	struct cairn_store *handle = NULL;
	Py_ssize_t length = 0;
	const char *text = PyUnicode_AsUTF8AndSize(spec, &length);
	int ret;

	opts.rank = rank ? PyUnicode_AsUTF8AndSize(rank, NULL) : NULL;
	opts.stage_path = stage_path ? PyUnicode_AsUTF8AndSize(stage_path, NULL) : NULL;
	if (text && strlen(text) != (size_t)length)
		PyErr_SetString(PyExc_ValueError, "spec: a zero byte is in it");
	if (PyErr_Occurred())
		return -1;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_store_open(text, &opts, &handle, &error);
	Py_END_ALLOW_THREADS
	if (ret < 0) {
		raise_error(&error);
		return -1;
	}
	store->handle = handle;
	store->generation = process_generation();
	store->spec = Py_NewRef(spec);
	store->slow_lookups = strstr(text, "shared") || strchr(text, '@');
	list_store(store);
	return 0;
}

static PyObject *store_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	static char name_spec[] = "spec", name_rank[] = "rank", name_path[] = "stage_path";
	static char *names[] = {name_spec, name_rank, name_path, NULL};
	PyObject *spec, *rank = NULL, *stage_path = NULL, *text = NULL;
	struct store *store;
	int ret;

	if (!PyArg_ParseTupleAndKeywords(args, keywords, "U|$OO:Store", names, &spec, &rank,
					 &stage_path))
		return NULL;
	if (rank && rank != Py_None && !(text = PyObject_Str(rank)))
		return NULL;
	if (stage_path == Py_None)
		stage_path = NULL;
	store = (struct store *)PyType_GenericAlloc(type, 0);
	ret = store ? open_it(store, spec, text, stage_path) : -1;
	Py_XDECREF(text);
	if (ret < 0) {
		Py_DECREF((PyObject *)store);
		store = NULL;
	}
	return (PyObject *)store;
}

static void store_dealloc(PyObject *self)
{
	struct store *store = (struct store *)self;
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (store->handle && store->generation == process_generation()) {
		PyObject *was, *value, *trace;

		PyErr_Fetch(&was, &value, &trace);
		if (PyErr_ResourceWarning(NULL, 1, "a cairn store was not closed: %U",
					  store->spec) < 0)
			PyErr_WriteUnraisable(NULL);
		close_handle(store, 0);
		PyErr_Restore(was, value, trace);
	}
	unlist_store(store);
	Py_XDECREF(store->spec);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

static int store_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	return 0;
}

/* ---- figures ------------------------------------------------------------------------ */

static PyObject *make_stat(const struct cairn_stat *stat)
{
	PyObject *made = PyStructSequence_New(face.stat);
	PyObject *values = Py_BuildValue(
		"(y#KKKKKKdIIss)", (const char *)stat->uuid, (Py_ssize_t)sizeof(stat->uuid),
		(unsigned long long)stat->alignment, (unsigned long long)stat->bytes_used,
		(unsigned long long)stat->bytes_limit, (unsigned long long)stat->blocks,
		(unsigned long long)stat->tasks_in_flight,
		(unsigned long long)stat->xfers_in_flight, (double)stat->deadline_ns / 1e9,
		stat->reactors, stat->tasks_max, stat->engine, stat->engine_note);

	for (Py_ssize_t i = 0; made && values && i < PyTuple_Size(values); i++)
		PyStructSequence_SetItem(made, i, Py_NewRef(PyTuple_GetItem(values, i)));
	if (!values)
		Py_CLEAR(made);
	Py_XDECREF(values);
	return made;
}

static PyObject *store_stat(PyObject *self, PyObject *unused)
{
	struct store *store = (struct store *)self;
	struct cairn_stat stat = {.size = sizeof(stat)};
	int ret;

	(void)unused;
	if (store_begin(store) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_stat(store->handle, &stat);
	Py_END_ALLOW_THREADS
	store_end(store);
	return ret < 0 ? raise_code(ret, NULL) : make_stat(&stat);
}

static int add_counter(void *context, const struct cairn_counter *counter)
{
	PyObject *name = PyUnicode_FromFormat("%s.%s", counter->stage, counter->name);
	PyObject *value = PyLong_FromUnsignedLongLong(counter->value);
	int ret = name && value ? PyDict_SetItem(context, name, value) : -1;

	Py_XDECREF(name);
	Py_XDECREF(value);
	return ret;
}

static PyObject *store_counters(PyObject *self, PyObject *unused)
{
	struct store *store = (struct store *)self;
	PyObject *dict;

	(void)unused;
	if (store_check(store) < 0)
		return NULL;
	dict = PyDict_New();
	if (dict && cairn_counters(store->handle, add_counter, dict) < 0 && PyErr_Occurred())
		Py_CLEAR(dict);
	return dict;
}

static PyObject *store_stage_name(PyObject *self, PyObject *value)
{
	struct store *store = (struct store *)self;
	uint64_t index;
	const char *name;

	if (take_u64(value, "a stage", 0, UINT32_MAX, &index) < 0 || store_check(store) < 0)
		return NULL;
	name = cairn_stage_name(store->handle, (uint32_t)index);
	if (!name)
		Py_RETURN_NONE;
	return PyUnicode_FromString(name);
}

static PyObject *store_quiesce(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *names)
{
	struct store *store = (struct store *)self;
	PyObject *timeout = NULL;
	const struct keyword rows[] = {{"timeout", &timeout}, {NULL, NULL}};
	uint64_t timeout_ns;
	int ret;

	if (take_arguments("quiesce", args, nargs, names, rows, 1, 0) < 0 ||
	    take_time(timeout, "timeout", UINT64_MAX, 0, &timeout_ns) < 0 || store_begin(store) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_store_quiesce(store->handle, timeout_ns);
	Py_END_ALLOW_THREADS
	store_end(store);
	reap();
	if (ret < 0 && ret != -ETIMEDOUT)
		return raise_code(ret, NULL);
	return PyBool_FromLong(ret == 0);
}

static PyObject *store_queue(PyObject *self, PyObject *unused)
{
	struct store *store = (struct store *)self;

	(void)unused;
	return store_check(store) < 0 ? NULL : queue_new(store);
}

static PyObject *store_namespace(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *names)
{
	return namespace_open((struct store *)self, args, nargs, names);
}

static PyObject *store_register(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				PyObject *names)
{
	return register_memory((struct store *)self, args, nargs, names);
}

static PyObject *store_closed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!((struct store *)self)->handle);
}

static PyObject *store_spec(PyObject *self, void *unused)
{
	(void)unused;
	return Py_NewRef(((struct store *)self)->spec);
}

static PyObject *store_repr(PyObject *self)
{
	struct store *store = (struct store *)self;

	return PyUnicode_FromFormat("<cairn.Store %R%s>", store->spec,
				    store->handle ? "" : " closed");
}

/* ---- the types ---------------------------------------------------------------------- */

static PyMethodDef methods[] = {
	{"close", (PyCFunction)(void (*)(void))store_close, METH_FASTCALL | METH_KEYWORDS,
	 "close(timeout=None)\n--\n\n"
	 "Closes the store; what runs is waited for, `timeout` seconds (None: the store's\n"
	 "deadline; math.inf: as long as it takes), then TimeoutError, and it stays open.\n"
	 "BufferError: a view of a Pin or a Slot of it is left, and it stays open, too.\n"
	 "Again, or in a child after a fork: nothing happens."},
	{"namespace", (PyCFunction)(void (*)(void))store_namespace, METH_FASTCALL | METH_KEYWORDS,
	 "namespace(*, model='', revision='', dtype='', layout='', parallel='', tenant='',\n"
	 "          salt=b'', rank=0, world=1, format_version=0, shard_count=1, shard_bytes=0)\n"
	 "--\n\n"
	 "The namespace of blocks that these words describe: every field takes part. A block\n"
	 "is `shard_count` shards of `shard_bytes` bytes; with shard_bytes=0 the geometry is\n"
	 "variable, stated by each dump. CairnError: EINVAL, EIO, ENOSPC (a tier could not\n"
	 "take it up), ECANCELED (closed)."},
	{"stat", store_stat, METH_NOARGS,
	 "stat()\n--\n\nFigures of the store now: a Stat. bytes_limit 2**64-1: unbounded."},
	{"counters", store_counters, METH_NOARGS,
	 "counters()\n--\n\nAll counters, as {'posix.load_hits': 17, ...}."},
	{"stage_name", store_stage_name, METH_O,
	 "stage_name(index)\n--\n\nThe stage at that place, 0 the hottest; None: there is none."},
	{"quiesce", (PyCFunction)(void (*)(void))store_quiesce, METH_FASTCALL | METH_KEYWORDS,
	 "quiesce(timeout=None)\n--\n\n"
	 "Waits until no I/O targets memory of calls that are over; False: `timeout` seconds\n"
	 "passed. For raw addresses of a *_sync call that ended with -ETIMEDOUT."},
	{"queue", store_queue, METH_NOARGS,
	 "queue()\n--\n\nA Queue, into which tasks that name it are put at their release."},
	{"register", (PyCFunction)(void (*)(void))store_register, METH_FASTCALL | METH_KEYWORDS,
	 "register(memory, length=None)\n--\n\n"
	 "Tells of memory that is kept for long, so that a tier may aim its reads at what tasks\n"
	 "name in it, where else it would copy: the whole of a buffer that can be written, an\n"
	 "array with __dlpack__(), or an address of `length` bytes, which the caller keeps "
	 "mapped.\n"
	 "What a load names there may hold any bytes until it ended with 0, and after another\n"
	 "end. Not for tasks with detach=True. A Registration, a context manager: it ends with\n"
	 "its close(), with the object or with the store.\n"
	 "CairnError: EINVAL (overlaps what is registered), ECANCELED (closed), EOWNERDEAD."},
	{"__enter__", store_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))store_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef fields[] = {
	{"closed", store_closed, NULL, "Whether it was closed.", NULL},
	{"spec", store_spec, NULL, "The pipeline's text.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static char doc[] = "Store(spec, *, rank=None, stage_path=None)\n--\n\n"
		    "Opens the pipeline that `spec` describes, hot to cold, for example\n"
		    "'flash(path=/var/lib/cairn.kv, size=200GiB)'. `rank` is what {rank} in it "
		    "expands to\n(None: $RANK, else 0). Any thread may call any method.\n\n"
		    "CairnError: EINVAL (with .line and .column), ENOENT, EBUSY (another process "
		    "has it),\nEPROTO, EOPNOTSUPP, ENOMEM, EIO.";

static PyType_Slot slots[] = {
	{Py_tp_new, (void *)store_make},
	{Py_tp_dealloc, (void *)store_dealloc},
	{Py_tp_traverse, (void *)store_traverse},
	{Py_tp_repr, (void *)store_repr},
	{Py_tp_methods, methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, doc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "cairn.Store",
	.basicsize = sizeof(struct store),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = slots,
};

static PyStructSequence_Field stat_fields[] = {
	{"uuid", "of the lowest tier, 16 bytes; zeros if it keeps none"},
	{"alignment", "of address, offset and length that avoids a copy, bytes"},
	{"bytes_used", "of the tiers' budgets, summed"},
	{"bytes_limit", "2**64-1: unbounded"},
	{"blocks", "whole ones, of the tiers, summed: a block that two of them have counts twice"},
	{"tasks_in_flight", "task slots taken"},
	{"xfers_in_flight", "handed to a stage and not yet back"},
	{"deadline", "default of a task, seconds"},
	{"reactors", "threads that carry the I/O"},
	{"tasks_max", "task slots"},
	{"engine", "'uring', 'aio' or 'psync'"},
	{"engine_note", "why, where 'auto' had to fall back; else ''"},
	{NULL, NULL},
};

static PyStructSequence_Desc stat_desc = {
	.name = "cairn.Stat",
	.doc = "Figures of a store: Store.stat().",
	.fields = stat_fields,
	.n_in_sequence = 12,
};

int stores_init(PyObject *module)
{
	face.store = (PyTypeObject *)PyType_FromSpec(&spec);
	face.stat = PyStructSequence_NewType(&stat_desc);
	if (!face.store || !face.stat)
		return -1;
	if (PyModule_AddObjectRef(module, "Store", (PyObject *)face.store) < 0)
		return -1;
	return PyModule_AddObjectRef(module, "Stat", (PyObject *)face.stat);
}
