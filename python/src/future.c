/* SPDX-License-Identifier: Apache-2.0 */
/* Future: a task that was submitted. */
#include <errno.h>

#include "face.h"

#define BOTH (OP_RESULT | OP_RELEASE)

static struct op *op_of(PyObject *self)
{
	return ((struct future *)self)->op;
}

PyObject *future_new(struct op *op, PyObject *context)
{
	struct future *future = (struct future *)PyType_GenericAlloc(face.future, 0);

	if (!future) {
		op_free(op);
		return NULL;
	}
	future->op = op;
	future->context = Py_XNewRef(context);
	return (PyObject *)future;
}

static void dealloc(PyObject *self)
{
	struct future *future = (struct future *)self;
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	Py_XDECREF(future->context);
	op_leave(future->op);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

/* While I/O is in flight the library holds the buffers, and no cycle may free them. */
static int traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT(((struct future *)self)->context);
	if (op_state(op_of(self)) & OP_RELEASE)
		return op_visit(op_of(self), visit, arg);
	return 0;
}

static int clear(PyObject *self)
{
	Py_CLEAR(((struct future *)self)->context);
	if (op_state(op_of(self)) & OP_RELEASE)
		op_collect(op_of(self));
	return 0;
}

/* ---- waiting -------------------------------------------------------------------------- */

static PyObject *future_done(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyBool_FromLong(op_state(op_of(self)) & OP_RESULT);
}

static PyObject *future_released(PyObject *self, PyObject *unused)
{
	bool released = op_state(op_of(self)) & OP_RELEASE;

	(void)unused;
	if (released)
		op_collect(op_of(self));
	return PyBool_FromLong(released);
}

static int wait_both(struct op *op, PyObject *timeout, uint32_t events)
{
	uint64_t timeout_ns;
	int ret;

	if (take_time(timeout, "timeout", UINT64_MAX, 0, &timeout_ns) < 0)
		return -1;
	ret = op_wait(op, events, timeout_ns);
	if (ret > 0 && (op_state(op) & OP_RELEASE))
		op_collect(op);
	return ret;
}

static PyObject *future_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *names)
{
	PyObject *timeout = NULL, *released = NULL;
	const struct keyword rows[] = {
		{"timeout", &timeout}, {"released", &released}, {NULL, NULL}};
	int truth, ret;

	if (take_arguments("wait", args, nargs, names, rows, 2, 0) < 0)
		return NULL;
	truth = released ? PyObject_IsTrue(released) : 1;
	ret = truth < 0 ? -1 : wait_both(op_of(self), timeout, truth ? BOTH : OP_RESULT);
	return ret < 0 ? NULL : PyBool_FromLong(ret);
}

/* 0, or -1 with TimeoutError or another exception. */
static int finish(PyObject *self, PyObject *timeout)
{
	int ret = wait_both(op_of(self), timeout, BOTH);

	if (ret == 0)
		PyErr_SetString(PyExc_TimeoutError, "the task runs on");
	return ret > 0 ? 0 : -1;
}

static int take_timeout(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
			PyObject **ret)
{
	const struct keyword rows[] = {{"timeout", ret}, {NULL, NULL}};

	*ret = NULL;
	return take_arguments(name, args, nargs, names, rows, 1, 0);
}

static PyObject *future_result(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *names)
{
	PyObject *timeout;

	if (take_timeout("result", args, nargs, names, &timeout) < 0 || finish(self, timeout) < 0)
		return NULL;
	return op_statuses(op_of(self));
}

static PyObject *future_check(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			      PyObject *names)
{
	struct op *op = op_of(self);
	PyObject *timeout;

	if (take_timeout("check", args, nargs, names, &timeout) < 0 || finish(self, timeout) < 0)
		return NULL;
	for (uint32_t i = 0; i < op->count; i++) {
		PyObject *text;

		if (op_result(op, i).status >= 0)
			continue;
		text = PyUnicode_FromFormat("items[%u] of %u: %s", i, op->count,
					    cairn_strerror(op_result(op, i).status));
		if (text)
			raise_code(op_result(op, i).status, PyUnicode_AsUTF8AndSize(text, NULL));
		Py_XDECREF(text);
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *future_cancel(PyObject *self, PyObject *unused)
{
	struct op *op = op_of(self);

	(void)unused;
	if (!(op_state(op) & OP_RELEASE) && op->store && op->store->handle &&
	    op->generation == process_generation())
		cairn_task_cancel(op->store->handle, op->task);
	Py_RETURN_NONE;
}

static PyObject *await(PyObject *self)
{
	if (!face.await) {
		PyObject *module = PyImport_ImportModule("cairn._asyncio");

		face.await = module ? PyObject_GetAttrString(module, "wait") : NULL;
		Py_XDECREF(module);
		if (!face.await)
			return NULL;
	}
	return PyObject_CallFunctionObjArgs(face.await, self, NULL);
}

/* For event loops: the queue delivers the Future at its release. False: it came before. */
static PyObject *future_watch(PyObject *self, PyObject *value)
{
	struct queue *queue = queue_of(value, NULL);
	struct op *op = op_of(self);

	if (!queue)
		return NULL;
	if (op->generation != process_generation())
		return raise_code(-EOWNERDEAD, NULL);
	if (op->watch.queue || (op_state(op) & OP_WATCHED))
		return raise_code(-EBUSY, "another event loop waits for the task");
	queue_bind(queue, &op->watch, self);
	if (op_watched(op))
		Py_RETURN_TRUE;
	queue_unbind(&op->watch);
	Py_RETURN_FALSE;
}

/* ---- what came of it ---------------------------------------------------------------- */

static int need_result(struct op *op)
{
	if (op_state(op) & OP_RESULT)
		return 0;
	raise_code(-EBUSY, "the task has no result yet: wait for it");
	return -1;
}

static PyObject *future_statuses(PyObject *self, void *unused)
{
	(void)unused;
	return need_result(op_of(self)) < 0 ? NULL : op_statuses(op_of(self));
}

/* A list of what @tell says of each item. */
static PyObject *each_item(struct op *op, PyObject *(*tell)(struct cairn_result result))
{
	PyObject *list;

	if (need_result(op) < 0)
		return NULL;
	list = PyList_New((Py_ssize_t)op->count);
	for (uint32_t i = 0; list && i < op->count; i++) {
		PyObject *told = tell(op_result(op, i));

		if (!told || PyList_SetItem(list, (Py_ssize_t)i, told) < 0)
			Py_CLEAR(list);
	}
	return list;
}

static PyObject *tell_reached(struct cairn_result result)
{
	static const char *const names[] = {NULL, "memory", "written", "durable"};
	bool known = result.reached >= 1 && result.reached <= 3;

	return known ? PyUnicode_FromString(names[result.reached]) : Py_NewRef(Py_None);
}

static PyObject *future_reached(PyObject *self, void *unused)
{
	(void)unused;
	return each_item(op_of(self), tell_reached);
}

static PyObject *tell_stage(struct cairn_result result)
{
	return result.stage == CAIRN_STAGE_NONE ? Py_NewRef(Py_None)
						: PyLong_FromUnsignedLong(result.stage);
}

static PyObject *future_stages(PyObject *self, void *unused)
{
	(void)unused;
	return each_item(op_of(self), tell_stage);
}

static uint32_t failures(const struct op *op)
{
	uint32_t failed = 0;

	for (uint32_t i = 0; i < op->count; i++)
		failed += op_result(op, i).status < 0;
	return failed;
}

static PyObject *future_ok(PyObject *self, void *unused)
{
	struct op *op = op_of(self);

	(void)unused;
	return need_result(op) < 0 ? NULL : PyLong_FromUnsignedLong(op->count - failures(op));
}

static PyObject *future_failed(PyObject *self, void *unused)
{
	(void)unused;
	if (need_result(op_of(self)) < 0)
		return NULL;
	return PyLong_FromUnsignedLong(failures(op_of(self)));
}

static PyObject *future_id(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(op_of(self)->task);
}

static PyObject *future_context(PyObject *self, void *unused)
{
	PyObject *context = ((struct future *)self)->context;

	(void)unused;
	return Py_NewRef(context ? context : Py_None);
}

static Py_ssize_t length(PyObject *self)
{
	return (Py_ssize_t)op_of(self)->count;
}

static int truth(PyObject *self)
{
	(void)self;
	return 1;
}

/* ---- the type -------------------------------------------------------------------------- */

static PyGetSetDef fields[] = {
	{"id", future_id, NULL, "The task's number.", NULL},
	{"context", future_context, NULL, "What was given as context=.", NULL},
	{"statuses", future_statuses, NULL,
	 "0, PRESENT or a negative errno, one an item; CairnError EBUSY: no result yet.", NULL},
	{"reached", future_reached, NULL,
	 "How far a dump got, one an item: 'memory', 'written', 'durable', or None.", NULL},
	{"stages", future_stages, NULL,
	 "The place in the pipeline that answered, one an item, or None.", NULL},
	{"ok", future_ok, NULL, "Items whose status is 0 or PRESENT.", NULL},
	{"failed", future_failed, NULL, "Items whose status is negative.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
	{"done", future_done, METH_NOARGS, "done()\n--\n\nWhether every item has its status."},
	{"released", future_released, METH_NOARGS,
	 "released()\n--\n\nWhether nothing touches the buffers again."},
	{"wait", FAST(future_wait),
	 "wait(timeout=None, released=True)\n--\n\n"
	 "Waits for the result, and for the release unless `released` is false, for at most\n"
	 "`timeout` seconds (None: as long as it takes). False: the task runs on."},
	{"result", FAST(future_result),
	 "result(timeout=None)\n--\n\n"
	 "Waits for result and release, and returns the statuses: 0, PRESENT (a dump: was\n"
	 "there already) or a negative errno, one an item. TimeoutError: the task runs on."},
	{"check", FAST(future_check),
	 "check(timeout=None)\n--\n\n"
	 "As result(), but raises the CairnError of the first item that failed, if one did."},
	{"cancel", future_cancel, METH_NOARGS,
	 "cancel()\n--\n\n"
	 "Ends the task early: items not finished end -ECANCELED. Release as always."},
	{"_watch", future_watch, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static char doc[] = "A task: what load(), dump(), remove() and prefetch() return. It keeps the\n"
		    "buffers until the release; dropped before it, something else does. Can be\n"
		    "awaited, for the statuses; len() is the number of items.";

static PyType_Slot slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_tp_clear, (void *)clear},
	{Py_am_await, (void *)await},
	{Py_sq_length, (void *)length},
	{Py_nb_bool, (void *)truth},
	{Py_tp_methods, methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, doc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "cairn.Future",
	.basicsize = sizeof(struct future),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slots,
};

int future_init(PyObject *module)
{
	face.future = (PyTypeObject *)PyType_FromSpec(&spec);
	if (!face.future)
		return -1;
	return PyModule_AddObjectRef(module, "Future", (PyObject *)face.future);
}
