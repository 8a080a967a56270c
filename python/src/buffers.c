/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers of items: the buffer protocol, DLPack, and raw addresses.
 *
 * DLPack's structs are written down here as its version 1 has them; a capsule is never
 * consumed: it stays as it is and is kept, so that its own destructor gives the tensor back.
 */
#include <stdlib.h>
#include <string.h>

#include "face.h"

#define DLPACK_CPU	 1
#define DLPACK_CUDA_HOST 3 /* pinned: memory of the host */
#define DLPACK_ROCM_HOST 11
#define DLPACK_MAJOR	 1
#define DLPACK_READ_ONLY 0x1u

struct dl_tensor {
	void *data;
	int32_t device_type, device_id;
	int32_t ndim;
	uint8_t type_code, type_bits;
	uint16_t type_lanes;
	int64_t *shape, *strides;
	uint64_t byte_offset;
};

struct dl_managed {
	struct dl_tensor tensor;
	void *context;
	void (*deleter)(struct dl_managed *self);
};

struct dl_versioned {
	uint32_t major, minor;
	void *context;
	void (*deleter)(struct dl_versioned *self);
	uint64_t flags;
	struct dl_tensor tensor;
};

static int add_segment(struct op *op, void *base, uint64_t length)
{
	struct cairn_segment *segment;

	if (length == 0)
		return 0;
	segment = op_segment(op);
	if (!segment)
		return -1;
	*segment = (struct cairn_segment){base, length};
	return 0;
}

struct place {
	char text[32];
};

/* What an error's text begins with. */
static struct place place_of(size_t index)
{
	struct place place = {"memory"};

	if (index != NO_INDEX)
		PyOS_snprintf(place.text, sizeof(place.text), "items[%zu]", index);
	return place;
}

/* Puts the place before the text of the exception that is set. */
static int at_item(size_t index, PyObject *type, const char *text)
{
	PyObject *was, *value, *trace;

	PyErr_Fetch(&was, &value, &trace);
	PyErr_Format(type, "%s: %s%s%S", place_of(index).text, text, value ? ": " : "",
		     value ? value : Py_None);
	Py_XDECREF(was);
	Py_XDECREF(value);
	Py_XDECREF(trace);
	return -1;
}

static int add_view(struct op *op, PyObject *item, bool writable, size_t index)
{
	Py_buffer *view = op_hold(op);

	if (!view)
		return -1;
	if (PyObject_GetBuffer(item, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0) {
		op_unhold_last(op);
		return at_item(index,
			       PyErr_ExceptionMatches(PyExc_ValueError) ? PyExc_ValueError
									: PyExc_TypeError,
			       writable ? "a load needs a contiguous buffer that can be written"
					: "a dump needs a contiguous buffer");
	}
	if (!view->buf) { /* of no bytes: the view's place tells by `buf` what it is */
		PyBuffer_Release(view);
		op_unhold_last(op);
		return 0;
	}
	return add_segment(op, view->buf, (uint64_t)view->len);
}

/* ---- raw addresses ---------------------------------------------------------- */

static bool is_address(PyObject *item)
{
	return PyTuple_Check(item) && PyTuple_Size(item) == 2 &&
	       PyIndex_Check(PyTuple_GetItem(item, 0)) && PyIndex_Check(PyTuple_GetItem(item, 1));
}

static int add_address(struct op *op, PyObject *item, size_t index)
{
	uint64_t address, length;

	if (take_u64(PyTuple_GetItem(item, 0), "an address", 0, UINTPTR_MAX, &address) < 0 ||
	    take_u64(PyTuple_GetItem(item, 1), "a length", 0, INT64_MAX, &length) < 0)
		return at_item(index, PyExc_ValueError, "(address, length)");
	if (address == 0 || length > UINTPTR_MAX - address) {
		PyErr_Format(PyExc_ValueError, "%s: there is no memory at %llu, %llu bytes",
			     place_of(index).text, (unsigned long long)address,
			     (unsigned long long)length);
		return -1;
	}
	return add_segment(op, (void *)(uintptr_t)address, length);
}

/* ---- DLPack ------------------------------------------------------------------ */

static PyObject *ask_capsule(PyObject *method)
{
	PyObject *nothing = PyTuple_New(0);
	PyObject *names = Py_BuildValue("{s(ii)}", "max_version", DLPACK_MAJOR, 0);
	PyObject *capsule = NULL;

	if (nothing && names)
		capsule = PyObject_Call(method, nothing, names);
	/* Producers of before version 1 know no max_version. */
	if (!capsule && nothing && PyErr_ExceptionMatches(PyExc_TypeError)) {
		PyErr_Clear();
		capsule = PyObject_Call(method, nothing, NULL);
	}
	Py_XDECREF(nothing);
	Py_XDECREF(names);
	return capsule;
}

static int refuse(size_t index, const char *text)
{
	PyErr_Format(PyExc_ValueError, "%s: %s", place_of(index).text, text);
	return -1;
}

/* Rows one after the other; a dimension of one element may have any stride. */
static bool is_compact(const struct dl_tensor *tensor)
{
	int64_t next = 1;

	for (int32_t i = tensor->ndim - 1; tensor->strides && i >= 0; i--) {
		if (tensor->shape[i] != 1 && tensor->strides[i] != next)
			return false;
		next *= tensor->shape[i];
	}
	return true;
}

static int tensor_length(const struct dl_tensor *tensor, size_t index, uint64_t *ret)
{
	uint64_t bits = (uint64_t)tensor->type_bits * tensor->type_lanes;

	for (int32_t i = 0; i < tensor->ndim; i++)
		if (tensor->shape[i] < 0 ||
		    __builtin_mul_overflow(bits, (uint64_t)tensor->shape[i], &bits))
			return refuse(index, "an array whose shape makes no sense");
	if (bits % 8)
		return refuse(index, "an array that does not fill its last byte");
	*ret = bits / 8;
	return 0;
}

static int add_tensor(struct op *op, const struct dl_tensor *tensor, size_t index)
{
	uint64_t length = 0;

	if (tensor->device_type != DLPACK_CPU && tensor->device_type != DLPACK_CUDA_HOST &&
	    tensor->device_type != DLPACK_ROCM_HOST)
		return refuse(index, "an array in a device's memory: only the host's can be moved");
	if (tensor->ndim < 0 || (tensor->ndim > 0 && !tensor->shape))
		return refuse(index, "an array whose shape makes no sense");
	if (tensor_length(tensor, index, &length) < 0)
		return -1;
	if (length == 0)
		return 0;
	if (!is_compact(tensor))
		return refuse(index, "an array that is not contiguous: rows one after the other");
	if (!tensor->data)
		return refuse(index, "an array without memory");
	return add_segment(op, (char *)tensor->data + tensor->byte_offset, length);
}

static int add_capsule(struct op *op, PyObject *capsule, bool writable, size_t index)
{
	struct dl_versioned *versioned;
	struct dl_managed *managed;

	if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
		versioned = PyCapsule_GetPointer(capsule, "dltensor_versioned");
		if (versioned->major != DLPACK_MAJOR)
			return refuse(index, "an array by a version of DLPack other than 1");
		if (writable && (versioned->flags & DLPACK_READ_ONLY))
			return refuse(index, "a load needs an array that can be written");
		return add_tensor(op, &versioned->tensor, index);
	}
	if (!PyCapsule_IsValid(capsule, "dltensor"))
		return refuse(index, "__dlpack__() gave no capsule of DLPack");
	managed = PyCapsule_GetPointer(capsule, "dltensor");
	return add_tensor(op, &managed->tensor, index);
}

/* 1: there is an array of DLPack, in *@ret_method; 0: none; -1: one in another device. */
static int find_array(PyObject *item, size_t index, PyObject **ret_method)
{
	PyObject *ask = PyObject_GetAttr(item, face.dlpack_device);
	PyObject *device = ask ? PyObject_CallNoArgs(ask) : NULL;
	int type = DLPACK_CPU, id;

	Py_XDECREF(ask);
	if (!device) {
		if (!PyErr_ExceptionMatches(PyExc_AttributeError))
			return at_item(index, PyExc_ValueError, "__dlpack_device__()");
		PyErr_Clear();
	} else if (!PyTuple_Check(device) || !PyArg_ParseTuple(device, "ii", &type, &id)) {
		PyErr_Clear();
		Py_DECREF(device);
		return refuse(index, "__dlpack_device__() gave no pair of ints");
	}
	Py_XDECREF(device);
	if (type != DLPACK_CPU && type != DLPACK_CUDA_HOST && type != DLPACK_ROCM_HOST)
		return refuse(index, "an array in a device's memory: only the host's can be moved");
	*ret_method = PyObject_GetAttr(item, face.dlpack);
	if (*ret_method)
		return 1;
	PyErr_Clear();
	return 0;
}

static int add_array(struct op *op, PyObject *item, bool writable, size_t index)
{
	PyObject *method = NULL, *capsule;
	int ret = find_array(item, index, &method);
	Py_buffer *place;

	if (ret < 0)
		return -1;
	if (ret == 0) {
		PyErr_Format(PyExc_TypeError,
			     "%s: a buffer, an array with __dlpack__(), (address, length) or a "
			     "list of them is needed, not %R",
			     place_of(index).text, Py_TYPE(item));
		return -1;
	}
	capsule = ask_capsule(method);
	Py_DECREF(method);
	if (!capsule)
		return at_item(index, PyExc_ValueError, "__dlpack__()");
	place = op_hold(op);
	if (!place) {
		Py_DECREF(capsule);
		return -1;
	}
	place->buf = NULL;
	place->obj = capsule;
	return add_capsule(op, capsule, writable, index);
}

int buffer_add(struct op *op, PyObject *item, bool writable, size_t index)
{
	if (PyObject_CheckBuffer(item))
		return add_view(op, item, writable, index);
	if (is_address(item))
		return add_address(op, item, index);
	return add_array(op, item, writable, index);
}

bool buffer_is_one(PyObject *item)
{
	return PyObject_CheckBuffer(item) || is_address(item) ||
	       !(PyList_Check(item) || PyTuple_Check(item));
}
