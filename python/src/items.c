/* SPDX-License-Identifier: Apache-2.0 */
/* Items of a task: keys, shards and buffers that belong together become xfers. */
#include <stdlib.h>
#include <string.h>

#include "face.h"

static int bad_geometry(size_t i, const char *text, uint64_t have, uint64_t want)
{
	PyErr_Format(PyExc_ValueError, "items[%zu]: %s (%llu, %llu)", i, text,
		     (unsigned long long)have, (unsigned long long)want);
	return -1;
}

static int check_load(const struct shape *shape, const struct cairn_xfer *xfer, size_t i)
{
	bool variable = shape->ns->shard_count == 0;
	uint64_t bytes = variable ? CAIRN_SHARD_BYTES_MAX : shape->ns->shard_bytes;

	if (xfer->offset >= bytes || xfer->length > bytes - xfer->offset) {
		PyErr_Format(
			PyExc_ValueError,
			"items[%zu]: offset %llu and a length of %llu go beyond a shard, which "
			"is %s%llu bytes",
			i, (unsigned long long)xfer->offset, (unsigned long long)xfer->length,
			variable ? "at most " : "", (unsigned long long)bytes);
		return -1;
	}
	return 0;
}

static int check_dump(const struct shape *shape, struct cairn_xfer *xfer, size_t i)
{
	uint64_t bytes = shape->ns->shard_bytes;
	bool last = false;

	if (shape->ns->shard_count == 0) {
		if (shape->shard_count > 1 && shape->shard_bytes == 0)
			return bad_geometry(i, "blocks of several shards need shard_bytes=",
					    shape->shard_count, 0);
		bytes = shape->shard_bytes ? shape->shard_bytes : xfer->length;
		xfer->shard_count = (uint32_t)shape->shard_count;
		xfer->shard_bytes = bytes;
		last = xfer->shard == shape->shard_count - 1 && xfer->length <= bytes;
	}
	if (bytes > CAIRN_SHARD_BYTES_MAX)
		return bad_geometry(i, "larger than a shard can be (bytes, at most)", bytes,
				    CAIRN_SHARD_BYTES_MAX);
	if (xfer->length != bytes && !last)
		return bad_geometry(i, "a dump takes a whole shard (bytes given, bytes of a shard)",
				    xfer->length, bytes);
	return 0;
}

static int check(const struct shape *shape, struct cairn_xfer *xfer, size_t i)
{
	uint64_t shards = shape->ns->shard_count;

	if (xfer->length == 0)
		return bad_geometry(i, "an empty buffer: there is nothing to move", 0, 1);
	if (shards == 0)
		shards = shape->dump ? shape->shard_count : CAIRN_SHARD_COUNT_MAX;
	if (xfer->shard >= shards) {
		PyErr_Format(PyExc_ValueError, "shards[%zu] is %u: a block has %llu shards, from 0",
			     i, xfer->shard, (unsigned long long)shards);
		return -1;
	}
	return shape->dump ? check_dump(shape, xfer, i) : check_load(shape, xfer, i);
}

/* ---- shards and attributes ---------------------------------------------------- */

static int wrong_count(const char *name, Py_ssize_t have, size_t want)
{
	PyErr_Format(PyExc_ValueError, "%s: %zd of them for %zu keys; one each is needed", name,
		     have, want);
	return -1;
}

static int take_shards(struct op *op, PyObject *shards)
{
	uint64_t shard = 0;
	Py_ssize_t count;

	if (!shards || PyIndex_Check(shards)) {
		if (take_u64(shards, "shards", 0, UINT32_MAX, &shard) < 0)
			return -1;
		for (uint32_t i = 0; i < op->count; i++)
			op->xfers[i].shard = (uint32_t)shard;
		return 0;
	}
	count = PySequence_Size(shards);
	if (count < 0)
		return -1;
	if ((size_t)count != op->count)
		return wrong_count("shards", count, op->count);
	for (uint32_t i = 0; i < op->count; i++) {
		PyObject *value = PySequence_GetItem(shards, (Py_ssize_t)i);
		int ret = value ? take_u64(value, "a shard", 0, UINT32_MAX, &shard) : -1;

		Py_XDECREF(value);
		if (ret < 0)
			return -1;
		op->xfers[i].shard = (uint32_t)shard;
	}
	return 0;
}

int attr_take(PyObject *value, struct cairn_block_attr *attr)
{
	PyObject *field[5];
	uint64_t depth, priority;
	Py_ssize_t parent;

	if (!PyTuple_Check(value) || PyTuple_Size(value) != 5) {
		PyErr_Format(PyExc_TypeError, "attrs: a cairn.Attr is needed, not %R",
			     Py_TYPE(value));
		return -1;
	}
	for (Py_ssize_t i = 0; i < 5; i++)
		field[i] = PyTuple_GetItem(value, i);
	attr->size = sizeof(*attr);
	parent = PyBytes_Check(field[0]) ? PyBytes_Size(field[0]) : -1;
	if (parent != 0 && key_take(field[0], &attr->parent) < 0)
		return -1;
	if (take_u64(field[1], "depth", 0, UINT32_MAX, &depth) < 0 ||
	    take_u64(field[2], "priority", 0, 100, &priority) < 0 ||
	    take_time(field[3], "ttl", 0, 0, &attr->ttl_ns) < 0 ||
	    take_time(field[4], "cost", 0, 0, &attr->cost_ns) < 0)
		return -1;
	attr->depth = (uint32_t)depth;
	attr->priority = (uint32_t)priority;
	return 0;
}

static int take_attrs(struct op *op, PyObject *attrs)
{
	bool one = PyTuple_Check(attrs) && !PyTuple_CheckExact(attrs);
	Py_ssize_t count = one ? 1 : PySequence_Size(attrs);

	if (count < 0)
		return -1;
	if (!one && (size_t)count != op->count)
		return wrong_count("attrs", count, op->count);
	op->attrs = calloc((size_t)count + 1, sizeof(*op->attrs));
	if (!op->attrs) {
		PyErr_NoMemory();
		return -1;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		PyObject *value = one ? Py_NewRef(attrs) : PySequence_GetItem(attrs, i);
		int ret = !value ? -1 : value == Py_None ? 0 : attr_take(value, &op->attrs[i]);

		Py_XDECREF(value);
		if (ret < 0)
			return -1;
	}
	for (uint32_t i = 0; i < op->count; i++) {
		struct cairn_block_attr *attr = &op->attrs[one ? 0 : i];

		op->xfers[i].attr = attr->size ? attr : NULL;
	}
	return 0;
}

/* ---- buffers ---------------------------------------------------------------------- */

/* One buffer, cut into as many equal parts as there are keys. */
static int cut(struct op *op, PyObject *buffer, bool writable)
{
	struct cairn_segment whole;
	uint64_t each;

	if (buffer_add(op, buffer, writable, 0) < 0)
		return -1;
	whole = op->segment_count ? op->segments[0] : (struct cairn_segment){NULL, 0};
	if (whole.length == 0 || op->count == 0 || whole.length % op->count) {
		PyErr_Format(PyExc_ValueError,
			     "items: a buffer of %llu bytes cannot be cut into %u equal parts, one "
			     "a key",
			     (unsigned long long)whole.length, op->count);
		return -1;
	}
	each = whole.length / op->count;
	op->segment_count = 0;
	for (uint32_t i = 0; i < op->count; i++) {
		struct cairn_segment *segment = op_segment(op);

		if (!segment)
			return -1;
		*segment = (struct cairn_segment){(char *)whole.base + i * each, each};
		op->xfers[i].segment_count = 1;
		op->xfers[i].length = each;
	}
	return 0;
}

static int add_parts(struct op *op, PyObject *parts, bool writable, size_t index)
{
	bool list = PyList_Check(parts);

	/* Its length is asked anew: an exporter may run code that changes the list. */
	for (Py_ssize_t i = 0; i < (list ? PyList_Size(parts) : PyTuple_Size(parts)); i++) {
		PyObject *part = list ? PyList_GetItem(parts, i) : PyTuple_GetItem(parts, i);
		int ret;

		if (!part)
			return -1;
		Py_INCREF(part);
		ret = buffer_add(op, part, writable, index);
		Py_DECREF(part);
		if (ret < 0)
			return -1;
	}
	return 0;
}

static int add_item(struct op *op, PyObject *item, bool writable, uint32_t index)
{
	struct cairn_xfer *xfer = &op->xfers[index];
	size_t first = op->segment_count;
	int ret = buffer_is_one(item) ? buffer_add(op, item, writable, index)
				      : add_parts(op, item, writable, index);

	if (ret < 0)
		return -1;
	xfer->segment_count = (uint32_t)(op->segment_count - first);
	for (size_t i = first; i < op->segment_count; i++)
		if (__builtin_add_overflow(xfer->length, op->segments[i].length, &xfer->length))
			return bad_geometry(index, "lengths that no shard can have", 0, 0);
	return 0;
}

static int each(struct op *op, PyObject *items, bool writable)
{
	bool list = PyList_Check(items);
	Py_ssize_t count = list ? PyList_Size(items) : PyTuple_Size(items);

	if ((size_t)count != op->count)
		return wrong_count("items", count, op->count);
	for (uint32_t i = 0; i < op->count; i++) {
		PyObject *item = list ? PyList_GetItem(items, (Py_ssize_t)i)
				      : PyTuple_GetItem(items, (Py_ssize_t)i);
		int ret;

		if (!item)
			return -1;
		Py_INCREF(item);
		ret = add_item(op, item, writable, i);
		Py_DECREF(item);
		if (ret < 0)
			return -1;
	}
	return 0;
}

int items_take(struct op *op, const struct keys *keys, PyObject *items, const struct shape *shape)
{
	const struct cairn_segment *segments;
	int ret =
		buffer_is_one(items) ? cut(op, items, !shape->dump) : each(op, items, !shape->dump);

	if (ret < 0 || take_shards(op, shape->shards) < 0)
		return -1;
	if (shape->attrs && take_attrs(op, shape->attrs) < 0)
		return -1;
	segments = op->segments;
	for (uint32_t i = 0; i < op->count; i++) {
		struct cairn_xfer *xfer = &op->xfers[i];

		xfer->key = keys->at[i];
		xfer->offset = shape->offset;
		xfer->segments = segments;
		segments += xfer->segment_count;
		if (check(shape, xfer, i) < 0)
			return -1;
	}
	return 0;
}
