/* SPDX-License-Identifier: Apache-2.0 */
/* Hold: what Namespace.hold() counted stays until this is released, or expires. */
#include <errno.h>

#include "face.h"

static struct hold *of(PyObject *self)
{
	return (struct hold *)self;
}

PyObject *hold_new(struct store *store, uint64_t id, int64_t count)
{
	struct hold *hold = (struct hold *)PyType_GenericAlloc(face.hold, 0);

	if (!hold) {
		cairn_hold_release(store->handle, id);
		return NULL;
	}
	hold->store = store;
	Py_INCREF((PyObject *)store);
	hold->id = id;
	hold->count = (Py_ssize_t)count;
	return (PyObject *)hold;
}

/* 1: it was in force; 0: it was not any more. */
static int release(struct hold *hold)
{
	struct store *store = hold->store;
	uint64_t id = hold->id;

	hold->id = 0;
	if (id == 0 || store->generation != process_generation() || !store->handle ||
	    store->closing)
		return 0;
	return cairn_hold_release(store->handle, id) == 0;
}

static PyObject *hold_release(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyBool_FromLong(release(of(self)));
}

static PyObject *hold_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return Py_NewRef(self);
}

static PyObject *hold_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	release(of(self));
	Py_RETURN_NONE;
}

static PyObject *hold_count(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromSsize_t(of(self)->count);
}

static PyObject *hold_int(PyObject *self)
{
	return PyLong_FromSsize_t(of(self)->count);
}

static int hold_bool(PyObject *self)
{
	return of(self)->count > 0;
}

static void dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	release(of(self));
	Py_DECREF((PyObject *)of(self)->store);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)of(self)->store);
	return 0;
}

static PyGetSetDef fields[] = {
	{"count", hold_count, NULL, "How many leading keys are whole, and held.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
	{"release", hold_release, METH_NOARGS,
	 "release()\n--\n\nGives it back. False: it had expired, or was given back before."},
	{"__enter__", hold_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))hold_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static char doc[] =
	"A promise that what was counted is still there for the load, bounded in time:\n"
	"Namespace.hold(). A context manager; int() of it is .count.";

static PyType_Slot slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_nb_int, (void *)hold_int},
	{Py_nb_index, (void *)hold_int},
	{Py_nb_bool, (void *)hold_bool},
	{Py_tp_methods, methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, doc},
	{0, NULL},
};

static PyType_Spec spec = {
	.name = "cairn.Hold",
	.basicsize = sizeof(struct hold),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slots,
};

int hold_init(PyObject *module)
{
	face.hold = (PyTypeObject *)PyType_FromSpec(&spec);
	if (!face.hold)
		return -1;
	return PyModule_AddObjectRef(module, "Hold", (PyObject *)face.hold);
}
