/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of calls, taken without an allocation where they are small, and their errors. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "face.h"

#define NS 1000000000u

PyObject *raise_code(int code, const char *text)
{
	PyObject *error =
		PyObject_CallFunction(face.error, "is", -code, text ? text : cairn_strerror(code));

	if (error) {
		PyErr_SetObject(face.error, error);
		Py_DECREF(error);
	}
	return NULL;
}

PyObject *raise_error(const struct cairn_error *from)
{
	PyObject *error = PyObject_CallFunction(face.error, "isii", -from->code, from->text,
						from->line, from->column);

	if (error) {
		PyErr_SetObject(face.error, error);
		Py_DECREF(error);
	}
	return NULL;
}

static int take_keyword(const char *function, PyObject *name, PyObject *value,
			const struct keyword *rows)
{
	for (const struct keyword *row = rows; row->name; row++) {
		if (PyUnicode_CompareWithASCIIString(name, row->name) != 0)
			continue;
		if (*row->value) {
			PyErr_Format(PyExc_TypeError, "%s() got %U twice", function, name);
			return -1;
		}
		*row->value = value;
		return 0;
	}
	PyErr_Format(PyExc_TypeError, "%s() has no argument \"%U\"", function, name);
	return -1;
}

int take_arguments(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
		   const struct keyword *rows, int positional, int required)
{
	Py_ssize_t named = names ? PyTuple_Size(names) : 0;

	if (nargs > positional) {
		PyErr_Format(PyExc_TypeError, "%s() takes %d arguments by position, %zd were given",
			     function, positional, nargs);
		return -1;
	}
	for (Py_ssize_t i = 0; i < nargs; i++)
		*rows[i].value = args[i];
	for (Py_ssize_t i = 0; i < named; i++)
		if (take_keyword(function, PyTuple_GetItem(names, i), args[nargs + i], rows) < 0)
			return -1;
	for (int i = 0; i < required; i++) {
		if (*rows[i].value)
			continue;
		PyErr_Format(PyExc_TypeError, "%s() needs the argument \"%s\"", function,
			     rows[i].name);
		return -1;
	}
	for (const struct keyword *row = rows; row->name; row++)
		if (*row->value == Py_None && row - rows >= required)
			*row->value = NULL;
	return 0;
}

int take_time(PyObject *value, const char *name, uint64_t none, uint64_t zero, uint64_t *ret_ns)
{
	double seconds;

	*ret_ns = none;
	if (!value || value == Py_None)
		return 0;
	seconds = PyFloat_AsDouble(value);
	if (PyErr_Occurred())
		return -1;
	if (!(seconds >= 0)) {
		PyErr_Format(PyExc_ValueError, "%s is in seconds, 0 or more, not %R", name, value);
		return -1;
	}
	if (seconds >= 9e9)
		*ret_ns = UINT64_MAX;
	else
		*ret_ns = (uint64_t)(seconds * NS);
	if (*ret_ns == 0)
		*ret_ns = zero;
	return 0;
}

int take_u64(PyObject *value, const char *name, uint64_t none, uint64_t max, uint64_t *ret)
{
	PyObject *index;

	*ret = none;
	if (!value)
		return 0;
	index = PyNumber_Index(value);
	if (!index)
		return -1;
	*ret = PyLong_AsUnsignedLongLong(index);
	Py_DECREF(index);
	if (PyErr_Occurred() || *ret > max) {
		PyErr_Clear();
		PyErr_Format(PyExc_ValueError, "%s is %R: 0 to %llu are possible", name, value,
			     (unsigned long long)max);
		return -1;
	}
	return 0;
}

int take_flag(PyObject *value, bool *ret)
{
	int truth = value ? PyObject_IsTrue(value) : 0;

	*ret = truth > 0;
	return truth < 0 ? -1 : 0;
}

int take_durability(PyObject *value, uint32_t none, uint32_t *ret)
{
	static const char *const names[] = {"memory", "written", "durable"};

	*ret = none;
	if (!value)
		return 0;
	for (uint32_t i = 0; PyUnicode_Check(value) && i < 3; i++) {
		if (PyUnicode_CompareWithASCIIString(value, names[i]) != 0)
			continue;
		*ret = i;
		return 0;
	}
	PyErr_Format(PyExc_ValueError,
		     "durability is \"memory\", \"written\" or \"durable\", not %R", value);
	return -1;
}

/* ---- keys ---------------------------------------------------------------------- */

static int bad_key(Py_ssize_t length, Py_ssize_t index)
{
	if (index < 0)
		PyErr_Format(PyExc_ValueError,
			     "a key is %d bytes, from Namespace.key(), not %zd: a name is none",
			     CAIRN_KEY_BYTES, length);
	else
		PyErr_Format(PyExc_ValueError,
			     "keys[%zd]: a key is %d bytes, from Namespace.key(), not %zd", index,
			     CAIRN_KEY_BYTES, length);
	return -1;
}

static int key_of(PyObject *value, Py_ssize_t index, struct cairn_key *ret)
{
	Py_buffer view;
	Py_ssize_t length;

	if (PyBytes_CheckExact(value)) {
		length = PyBytes_Size(value);
		if (length != CAIRN_KEY_BYTES)
			return bad_key(length, index);
		memcpy(ret, PyBytes_AsString(value), CAIRN_KEY_BYTES);
		return 0;
	}
	if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
		PyErr_Clear();
		PyErr_Format(PyExc_TypeError, "a key is %d bytes, from Namespace.key(), not %R",
			     CAIRN_KEY_BYTES, Py_TYPE(value));
		return -1;
	}
	length = view.len;
	if (length == CAIRN_KEY_BYTES)
		memcpy(ret, view.buf, CAIRN_KEY_BYTES);
	PyBuffer_Release(&view);
	return length == CAIRN_KEY_BYTES ? 0 : bad_key(length, index);
}

int key_take(PyObject *value, struct cairn_key *ret)
{
	return key_of(value, -1, ret);
}

static struct cairn_key *room(struct keys *keys, size_t count)
{
	keys->heap = NULL;
	keys->owner = NULL;
	keys->count = count;
	keys->at = keys->inside;
	if (count <= KEYS_INSIDE)
		return keys->inside;
	keys->heap = calloc(count, sizeof(*keys->heap));
	keys->at = keys->heap;
	if (!keys->heap)
		PyErr_NoMemory();
	return keys->heap;
}

static int take_packed(struct keys *keys, const void *bytes, Py_ssize_t length)
{
	struct cairn_key *to;

	if (length % CAIRN_KEY_BYTES) {
		PyErr_Format(PyExc_ValueError,
			     "packed keys are %d bytes each, from Namespace.keys(): %zd is no "
			     "multiple of that",
			     CAIRN_KEY_BYTES, length);
		return -1;
	}
	to = room(keys, (size_t)length / CAIRN_KEY_BYTES);
	if (!to)
		return -1;
	if (length > 0)
		memcpy(to, bytes, (size_t)length);
	return 0;
}

static int take_bytes(struct keys *keys, PyObject *value)
{
	Py_ssize_t length = PyBytes_Size(value);

	if (length % CAIRN_KEY_BYTES || length <= (Py_ssize_t)sizeof(keys->inside))
		return take_packed(keys, PyBytes_AsString(value), length);
	keys->heap = NULL;
	keys->owner = value;
	Py_INCREF(value);
	keys->count = (size_t)length / CAIRN_KEY_BYTES;
	keys->at = (const struct cairn_key *)(const void *)PyBytes_AsString(value);
	return 0;
}

static int take_buffer(struct keys *keys, PyObject *value)
{
	Py_buffer view;
	int ret;

	if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0)
		return -1;
	ret = take_packed(keys, view.buf, view.len);
	PyBuffer_Release(&view);
	return ret;
}

static int take_list(struct keys *keys, PyObject *value)
{
	struct cairn_key *to = room(keys, (size_t)PyList_Size(value));

	if (!to)
		return -1;
	/* Its length is asked anew: a buffer's exporter may run code that changes the list. */
	for (Py_ssize_t i = 0; i < (Py_ssize_t)keys->count; i++) {
		PyObject *key = PyList_GetItem(value, i);
		int ret;

		if (!key)
			goto fail;
		Py_INCREF(key);
		ret = key_of(key, i, &to[i]);
		Py_DECREF(key);
		if (ret < 0)
			goto fail;
	}
	return 0;
fail:
	free(keys->heap);
	return -1;
}

static int take_tuple(struct keys *keys, PyObject *value)
{
	struct cairn_key *to = room(keys, (size_t)PyTuple_Size(value));

	if (!to)
		return -1;
	for (Py_ssize_t i = 0; i < (Py_ssize_t)keys->count; i++) {
		if (key_of(PyTuple_GetItem(value, i), i, &to[i]) == 0)
			continue;
		free(keys->heap);
		return -1;
	}
	return 0;
}

int keys_take(struct keys *keys, PyObject *value)
{
	PyObject *list;
	int ret;

	if (PyList_CheckExact(value))
		return take_list(keys, value);
	if (PyTuple_CheckExact(value))
		return take_tuple(keys, value);
	if (PyBytes_CheckExact(value))
		return take_bytes(keys, value);
	if (PyObject_CheckBuffer(value))
		return take_buffer(keys, value);
	list = PyUnicode_Check(value) ? NULL : PySequence_List(value);
	if (!list) {
		PyErr_Clear();
		PyErr_Format(PyExc_TypeError,
			     "keys are a sequence of %d bytes each, or all of them packed in one "
			     "bytes object, not %R",
			     CAIRN_KEY_BYTES, Py_TYPE(value));
		return -1;
	}
	ret = take_list(keys, list);
	Py_DECREF(list);
	return ret;
}

void keys_drop(struct keys *keys)
{
	free(keys->heap);
	Py_XDECREF(keys->owner);
}
