/* SPDX-License-Identifier: Apache-2.0 */
/* The module cairn._cairn. */
#include "face.h"

struct face face;

static uint32_t generation; /* of this process: raised in each child of a fork */

uint32_t process_generation(void)
{
	return generation;
}

static void after_in_child(void)
{
	generation++;
	ops_after_fork();
}

static PyObject *at_exit(PyObject *self, PyObject *unused)
{
	(void)self;
	(void)unused;
	stores_close_at_exit();
	reap();
	reaping_ends();
	Py_RETURN_NONE;
}

static PyObject *make_queue(PyObject *self, PyObject *unused)
{
	(void)self;
	(void)unused;
	return queue_new(NULL);
}

static PyObject *define(PyObject *self, PyObject *args)
{
	struct cairn_error error = {0};
	const char *name, *spec;
	int ret;

	(void)self;
	if (!PyArg_ParseTuple(args, "ss:define", &name, &spec))
		return NULL;
	ret = cairn_pipeline_define(name, spec, &error);
	if (ret < 0)
		return raise_error(&error);
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
	{"define", define, METH_VARARGS,
	 "define(name, spec)\n--\n\n"
	 "Defines the composition @name, for every store that is opened later."},
	{"_loop_queue", make_queue, METH_NOARGS, NULL},
	{"_at_exit", at_exit, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "cairn._cairn",
	.m_doc = "A store for LLM inference state: the C part of the package cairn.",
	.m_size = -1,
	.m_methods = functions,
};

static int call_at_exit(PyObject *module)
{
	PyObject *atexit = PyImport_ImportModule("atexit");
	PyObject *function = PyObject_GetAttrString(module, "_at_exit");
	PyObject *ret = NULL;

	if (atexit && function)
		ret = PyObject_CallMethod(atexit, "register", "O", function);
	Py_XDECREF(atexit);
	Py_XDECREF(function);
	Py_XDECREF(ret);
	return ret ? 0 : -1;
}

static int take_error(PyObject *module)
{
	PyObject *errors = PyImport_ImportModule("cairn._error");

	face.error = errors ? PyObject_GetAttrString(errors, "CairnError") : NULL;
	Py_XDECREF(errors);
	if (!face.error)
		return -1;
	return PyModule_AddObjectRef(module, "CairnError", face.error);
}

static int fill(PyObject *module)
{
	face.dlpack = PyUnicode_InternFromString("__dlpack__");
	face.dlpack_device = PyUnicode_InternFromString("__dlpack_device__");
	if (!face.dlpack || !face.dlpack_device)
		return -1;
	if (take_error(module) < 0 || stores_init(module) < 0 || namespace_init(module) < 0 ||
	    future_init(module) < 0 || hold_init(module) < 0 || queue_init(module) < 0 ||
	    memory_init(module) < 0 || lent_init(module) < 0)
		return -1;
	if (PyModule_AddIntConstant(module, "PRESENT", CAIRN_PRESENT) < 0 ||
	    PyModule_AddIntConstant(module, "KEY_BYTES", CAIRN_KEY_BYTES) < 0 ||
	    PyModule_AddIntConstant(module, "SHARD_COUNT_MAX", CAIRN_SHARD_COUNT_MAX) < 0 ||
	    PyModule_AddIntConstant(module, "SHARD_BYTES_MAX", CAIRN_SHARD_BYTES_MAX) < 0 ||
	    PyModule_AddStringConstant(module, "version", cairn_version()) < 0)
		return -1;
	return call_at_exit(module);
}

PyMODINIT_FUNC PyInit__cairn(void);

PyMODINIT_FUNC PyInit__cairn(void)
{
	static bool watching;
	PyObject *module = PyModule_Create(&definition);

	if (module && fill(module) < 0)
		Py_CLEAR(module);
	if (module && !watching)
		watching = pthread_atfork(NULL, NULL, after_in_child) == 0;
	return module;
}
