/* SPDX-License-Identifier: Apache-2.0 */
/* Registration: memory that Store.register() told the store of, until this is closed. */
#include <errno.h>

#include "face.h"

#define SLICE_NS 100000000u /* how often a wait looks for signals */

struct registration {
	PyObject_HEAD struct store *store;
	struct op *op; /* holds the buffer; NULL: closed */
	void *base;
	uint64_t length;
	bool closing;
};

static struct registration *of(PyObject *self)
{
	return (struct registration *)self;
}

/* ---- making ----------------------------------------------------------------------- */

/* Adds what is to be registered to @op as its one segment. */
static int take_memory(struct op *op, PyObject *memory, PyObject *length)
{
	PyObject *pair;
	int ret;

	if (PyBool_Check(memory) || !PyIndex_Check(memory) || PyObject_CheckBuffer(memory))
		return buffer_add(op, memory, true, NO_INDEX);
	if (!length) {
		PyErr_SetString(PyExc_TypeError, "register() of an address needs its length");
		return -1;
	}
	pair = PyTuple_Pack(2, memory, length);
	ret = pair ? buffer_add(op, pair, true, NO_INDEX) : -1;
	Py_XDECREF(pair);
	return ret;
}

static int take_length(const struct op *op, PyObject *value, uint64_t *ret)
{
	uint64_t most = op->segment_count ? op->segments[0].length : 0;

	if (most == 0) {
		PyErr_SetString(PyExc_ValueError, "memory: no bytes: there is nothing to register");
		return -1;
	}
	if (take_u64(value, "length", most, most, ret) < 0)
		return -1;
	if (*ret == 0)
		PyErr_SetString(PyExc_ValueError, "length is 0: there is nothing to register");
	return *ret == 0 ? -1 : 0;
}

static PyObject *enter_range(struct store *store, struct op *op, uint64_t length)
{
	void *base = op->segments[0].base;
	struct registration *made;
	int ret;

	/* A buffer's exporter may have run code that closed it. */
	if (store_check(store) < 0)
		return NULL;
	made = (struct registration *)PyType_GenericAlloc(face.registration, 0);
	if (!made)
		return NULL;
	ret = cairn_memory_register(store->handle, base, length);
	if (ret < 0) {
		Py_DECREF((PyObject *)made);
		return raise_code(ret, ret == -EINVAL
					       ? "memory that overlaps what is registered already"
					       : NULL);
	}
	made->store = store;
	Py_INCREF((PyObject *)store);
	made->op = op;
	made->base = base;
	made->length = length;
	return (PyObject *)made;
}

PyObject *register_memory(struct store *store, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *names)
{
	PyObject *memory = NULL, *value = NULL, *made = NULL;
	const struct keyword rows[] = {{"memory", &memory}, {"length", &value}, {NULL, NULL}};
	uint64_t length;
	struct op *op;

	if (take_arguments("register", args, nargs, names, rows, 2, 1) < 0 ||
	    store_check(store) < 0)
		return NULL;
	op = op_new(store, 0, true);
	if (!op)
		return NULL;
	if (take_memory(op, memory, value) == 0 && take_length(op, value, &length) == 0)
		made = enter_range(store, op, length);
	if (!made)
		op_free(op);
	return made;
}

/* ---- giving back ------------------------------------------------------------------- */

/* Gives the GIL away. 0, -ETIMEDOUT, or another error; -EINTR: an exception is set. */
static int take_back(struct registration *registration, uint64_t until)
{
	struct store *store = registration->store;
	int ret;

	do {
		uint64_t now = now_ns(), span = until > now ? until - now : 0;

		Py_BEGIN_ALLOW_THREADS
		ret = cairn_memory_unregister(store->handle, registration->base,
					      span < SLICE_NS ? span : SLICE_NS);
		Py_END_ALLOW_THREADS
		if (ret == -ETIMEDOUT && PyErr_CheckSignals() < 0)
			return -EINTR;
	} while (ret == -ETIMEDOUT && now_ns() < until);
	return ret;
}

static void let_go(struct registration *registration)
{
	struct op *op = registration->op;

	registration->op = NULL;
	if (op)
		op_free(op);
}

static PyObject *close_it(struct registration *registration, uint64_t timeout_ns)
{
	struct store *store = registration->store;
	struct cairn_stat stat = {.size = sizeof(stat)};
	int ret;

	if (registration->op && registration->closing)
		return raise_code(-EBUSY, "another thread closes the registration");
	/* A closed store touches nothing, and a child of a fork has nothing registered. */
	if (!registration->op || !store->handle || store->generation != process_generation()) {
		let_go(registration);
		Py_RETURN_NONE;
	}
	if (store_begin(store) < 0)
		return NULL;
	if (timeout_ns == 0 && cairn_stat(store->handle, &stat) == 0)
		timeout_ns = stat.deadline_ns;
	registration->closing = true;
	ret = take_back(registration, until_ns(timeout_ns));
	registration->closing = false;
	store_end(store);
	if (ret == -EINTR)
		return NULL;
	if (ret == -ETIMEDOUT) {
		PyErr_SetString(PyExc_TimeoutError,
				"the memory is not free: a task that was aimed "
				"at it still runs; close() may be called again");
		return NULL;
	}
	if (ret < 0 && ret != -ENOENT)
		return raise_code(ret, NULL);
	let_go(registration);
	Py_RETURN_NONE;
}

static PyObject *registration_close(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				    PyObject *names)
{
	PyObject *timeout = NULL;
	const struct keyword rows[] = {{"timeout", &timeout}, {NULL, NULL}};
	uint64_t timeout_ns;

	if (take_arguments("close", args, nargs, names, rows, 1, 0) < 0 ||
	    take_time(timeout, "timeout", 0, 1, &timeout_ns) < 0)
		return NULL;
	return close_it(of(self), timeout_ns);
}

static PyObject *registration_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	if (of(self)->op)
		return Py_NewRef(self);
	PyErr_SetString(PyExc_ValueError, "the registration was closed");
	return NULL;
}

static PyObject *registration_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return close_it(of(self), 0);
}

/*
 * Without a close: tasks that run still hold their buffers, each its own, and addresses are kept by
 * their callers until then. So nothing is waited for.
 */
static void dealloc(PyObject *self)
{
	struct registration *registration = of(self);
	struct store *store = registration->store;
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (registration->op && store->handle && store->generation == process_generation())
		cairn_memory_unregister(store->handle, registration->base, 0);
	let_go(registration);
	Py_XDECREF((PyObject *)store);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
	struct registration *registration = of(self);
	int ret;

	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)registration->store);
	ret = registration->op ? op_visit(registration->op, visit, arg) : 0;
	return ret;
}

static PyObject *get_address(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromVoidPtr(of(self)->base);
}

static PyObject *get_length(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(of(self)->length);
}

static PyObject *get_closed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(!of(self)->op);
}

static PyGetSetDef fields[] = {
	{"address", get_address, NULL, "Of the first byte.", NULL},
	{"length", get_length, NULL, "Bytes.", NULL},
	{"closed", get_closed, NULL, "Whether it was closed.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
	{"close", (PyCFunction)(void (*)(void))registration_close, METH_FASTCALL | METH_KEYWORDS,
	 "close(timeout=None)\n--\n\n"
	 "Takes the memory back: later tasks do not aim at it, and those that run are waited\n"
	 "for, `timeout` seconds (None: the store's deadline; math.inf: as long as it takes),\n"
	 "then TimeoutError, and it may be called again. Again, or of a closed store: nothing."},
	{"__enter__", registration_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))registration_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static char doc[] = "Memory that I/O may be aimed at: Store.register(). A context manager.";

static PyType_Slot slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_tp_methods, methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, doc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "cairn.Registration",
	.basicsize = sizeof(struct registration),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slots,
};

int memory_init(PyObject *module)
{
	face.registration = (PyTypeObject *)PyType_FromSpec(&spec);
	if (!face.registration)
		return -1;
	return PyModule_AddObjectRef(module, "Registration", (PyObject *)face.registration);
}
