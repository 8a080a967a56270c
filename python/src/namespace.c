/* SPDX-License-Identifier: Apache-2.0 */
/* Namespace: keys and lookups. Moving is in transfer.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "face.h"

static struct name_space *of(PyObject *self)
{
	return (struct name_space *)self;
}

/* ---- opening ---------------------------------------------------------------------- */

static int take_text(PyObject *value, const char *name, const char **ret)
{
	Py_ssize_t length;

	*ret = NULL;
	if (!value)
		return 0;
	if (!PyUnicode_Check(value)) {
		PyErr_Format(PyExc_TypeError, "%s is text, not %R", name, Py_TYPE(value));
		return -1;
	}
	*ret = PyUnicode_AsUTF8AndSize(value, &length);
	if (*ret && strlen(*ret) != (size_t)length) {
		PyErr_Format(PyExc_ValueError, "%s: a zero byte is in it", name);
		return -1;
	}
	return *ret ? 0 : -1;
}

static int take_count(PyObject *value, const char *name, uint32_t none, uint32_t *ret)
{
	uint64_t wide;

	if (take_u64(value, name, none, UINT32_MAX, &wide) < 0)
		return -1;
	*ret = (uint32_t)wide;
	return 0;
}

static PyObject *open_desc(struct store *store, struct cairn_namespace_desc *desc)
{
	struct cairn_error error = {0};
	struct cairn_namespace *handle = NULL;
	struct name_space *ns;
	int ret;

	if (store_begin(store) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_namespace_open(store->handle, desc, &handle, &error);
	Py_END_ALLOW_THREADS
	store_end(store);
	if (ret < 0)
		return error.text[0] ? raise_error(&error) : raise_code(ret, NULL);
	ns = (struct name_space *)PyType_GenericAlloc(face.name_space, 0);
	if (!ns) {
		if (store->handle && !store->closing)
			cairn_namespace_close(handle);
		return NULL;
	}
	ns->store = store;
	Py_INCREF((PyObject *)store);
	ns->handle = handle;
	ns->shard_count = desc->shard_count;
	ns->shard_bytes = desc->shard_bytes;
	return (PyObject *)ns;
}

PyObject *namespace_open(struct store *store, PyObject *const *args, Py_ssize_t nargs,
			 PyObject *names)
{
	struct cairn_namespace_desc desc = {.size = sizeof(desc)};
	PyObject *text[6] = {NULL}, *salt = NULL, *number[5] = {NULL}, *made = NULL;
	const struct keyword rows[] = {{"model", &text[0]},
				       {"revision", &text[1]},
				       {"dtype", &text[2]},
				       {"layout", &text[3]},
				       {"parallel", &text[4]},
				       {"tenant", &text[5]},
				       {"salt", &salt},
				       {"rank", &number[0]},
				       {"world", &number[1]},
				       {"format_version", &number[2]},
				       {"shard_count", &number[3]},
				       {"shard_bytes", &number[4]},
				       {NULL, NULL}};
	Py_buffer view = {0};

	if (take_arguments("namespace", args, nargs, names, rows, 0, 0) < 0 ||
	    take_text(text[0], "model", &desc.model) < 0 ||
	    take_text(text[1], "revision", &desc.revision) < 0 ||
	    take_text(text[2], "dtype", &desc.dtype) < 0 ||
	    take_text(text[3], "layout", &desc.layout) < 0 ||
	    take_text(text[4], "parallel", &desc.parallel) < 0 ||
	    take_text(text[5], "tenant", &desc.tenant) < 0 ||
	    take_count(number[0], "rank", 0, &desc.rank) < 0 ||
	    take_count(number[1], "world", 1, &desc.world) < 0 ||
	    take_count(number[2], "format_version", 0, &desc.format_version) < 0 ||
	    take_count(number[3], "shard_count", 1, &desc.shard_count) < 0 ||
	    take_u64(number[4], "shard_bytes", 0, UINT64_MAX, &desc.shard_bytes) < 0)
		return NULL;
	if (desc.shard_bytes == 0)
		desc.shard_count = 0;
	if (salt && PyObject_GetBuffer(salt, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	desc.salt = salt && view.len > 0 ? view.buf : NULL;
	desc.salt_length = salt ? (size_t)view.len : 0;
	made = open_desc(store, &desc);
	if (salt)
		PyBuffer_Release(&view);
	return made;
}

static void namespace_dealloc(PyObject *self)
{
	struct name_space *ns = of(self);
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	if (ns->store && ns->store->handle && ns->store->generation == process_generation() &&
	    !ns->store->closing)
		cairn_namespace_close(ns->handle);
	Py_XDECREF((PyObject *)ns->store);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

static int namespace_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)of(self)->store);
	return 0;
}

/* ---- keys --------------------------------------------------------------------------- */

/* A name's bytes; @ret_view->obj is NULL where they are the object's own. */
static int name_take(PyObject *name, Py_buffer *ret_view)
{
	if (PyUnicode_Check(name)) {
		ret_view->obj = NULL;
		ret_view->buf = (void *)(uintptr_t)PyUnicode_AsUTF8AndSize(name, &ret_view->len);
		return ret_view->buf ? 0 : -1;
	}
	if (PyObject_GetBuffer(name, ret_view, PyBUF_SIMPLE) == 0)
		return 0;
	PyErr_Clear();
	PyErr_Format(PyExc_TypeError, "a name is bytes or text, 1 byte or more, not %R",
		     Py_TYPE(name));
	return -1;
}

static int derive(struct name_space *ns, PyObject *name, struct cairn_key *ret)
{
	Py_buffer view;
	int code;

	if (name_take(name, &view) < 0)
		return -1;
	if (view.len == 0) {
		PyErr_SetString(PyExc_ValueError, "a name is bytes or text, 1 byte or more");
		code = 0;
	} else {
		code = cairn_key_derive(ns->handle, view.buf, (size_t)view.len, ret);
	}
	if (view.obj)
		PyBuffer_Release(&view);
	if (code < 0)
		raise_code(code, NULL);
	return PyErr_Occurred() ? -1 : 0;
}

static PyObject *namespace_key(PyObject *self, PyObject *name)
{
	struct cairn_key key;

	if (store_check(of(self)->store) < 0 || derive(of(self), name, &key) < 0)
		return NULL;
	return PyBytes_FromStringAndSize((const char *)key.bytes, CAIRN_KEY_BYTES);
}

/* A buffer's exporter may run code of its own, and even close the store. */
static int derive_all(struct name_space *ns, PyObject *names, struct cairn_key *keys)
{
	Py_ssize_t count = PyTuple_Size(names);

	for (Py_ssize_t i = 0; i < count; i++)
		if (derive(ns, PyTuple_GetItem(names, i), &keys[i]) < 0)
			return -1;
	return 0;
}

static PyObject *namespace_keys(PyObject *self, PyObject *names)
{
	PyObject *tuple, *packed;
	char *bytes;
	int ret;

	if (PyUnicode_Check(names) || PyBytes_Check(names)) {
		PyErr_SetString(PyExc_TypeError,
				"keys() takes a sequence of names; key() takes one");
		return NULL;
	}
	tuple = PySequence_Tuple(names);
	if (!tuple)
		return NULL;
	packed = PyBytes_FromStringAndSize(NULL, PyTuple_Size(tuple) * CAIRN_KEY_BYTES);
	bytes = packed ? PyBytes_AsString(packed) : NULL;
	ret = bytes ? store_begin(of(self)->store) : -1;
	if (ret == 0) {
		ret = derive_all(of(self), tuple, (struct cairn_key *)(void *)bytes);
		store_end(of(self)->store);
	}
	if (ret < 0)
		Py_CLEAR(packed);
	Py_DECREF(tuple);
	return packed;
}

/* ---- lookups -------------------------------------------------------------------------- */

#define FOUND_INSIDE 64

/* What a lookup needs beside its keys. */
struct asked {
	bool prefix;
	struct cairn_found *found; /* may be NULL with prefix */
	const struct cairn_lookup_opts *opts;
	uint64_t *hold;
};

static int64_t ask(struct name_space *ns, const struct keys *keys, const struct asked *asked)
{
	return asked->prefix ? cairn_lookup_prefix(ns->handle, keys->at, keys->count, asked->found,
						   asked->opts, asked->hold)
			     : cairn_lookup(ns->handle, keys->at, keys->count, asked->found,
					    asked->opts, asked->hold);
}

/* -1: an exception is set. Few keys are asked for with the GIL: probes of memory. */
static int64_t look(struct name_space *ns, const struct keys *keys, const struct asked *asked)
{
	int64_t ret;

	if (store_check(ns->store) < 0)
		return -1;
	if (keys->count <= SHORT_KEYS && !ns->store->slow_lookups) {
		ret = ask(ns, keys, asked);
	} else {
		if (store_begin(ns->store) < 0)
			return -1;
		Py_BEGIN_ALLOW_THREADS
		ret = ask(ns, keys, asked);
		Py_END_ALLOW_THREADS
		store_end(ns->store);
	}
	if (ret >= 0)
		return ret;
	raise_code((int)ret, NULL);
	return -1;
}

/* -1: an exception; else what there is of one key. */
static int look_one(PyObject *self, PyObject *value)
{
	struct cairn_found found;
	struct keys one = {.count = 1, .at = one.inside};
	const struct asked asked = {.found = &found};
	int64_t ret;

	if (key_take(value, &one.inside[0]) < 0)
		return -1;
	ret = look(of(self), &one, &asked);
	return ret < 0 ? -1 : ret > 0;
}

static PyObject *namespace_contains(PyObject *self, PyObject *key)
{
	int there = look_one(self, key);

	return there < 0 ? NULL : PyBool_FromLong(there);
}

static PyObject *presence(struct store *store, const struct cairn_found *found)
{
	(void)store;
	return PyBool_FromLong(found->present != 0);
}

static PyObject *found_block(struct store *store, const struct cairn_found *found)
{
	const char *stage;
	PyObject *made, *values;

	if (!found->present)
		return Py_NewRef(Py_None);
	/* The name lives as long as the store, which somebody may have closed. */
	if (store_check(store) < 0)
		return NULL;
	stage = cairn_stage_name(store->handle, found->stage);
	made = PyStructSequence_New(face.found);
	values = Py_BuildValue(
		"(sIKKK)", stage ? stage : "", (unsigned)found->shard_count,
		(unsigned long long)found->shard_bytes, (unsigned long long)found->last_bytes,
		(unsigned long long)(found->shard_bytes * (found->shard_count - 1ULL) +
				     found->last_bytes));
	for (Py_ssize_t i = 0; made && values && i < 5; i++)
		PyStructSequence_SetItem(made, i, Py_NewRef(PyTuple_GetItem(values, i)));
	if (!values)
		Py_CLEAR(made);
	Py_XDECREF(values);
	return made;
}

/* A list with what @make says of each key. */
static PyObject *look_all(PyObject *self, PyObject *value,
			  PyObject *(*make)(struct store *, const struct cairn_found *))
{
	struct cairn_found inside[FOUND_INSIDE], *found = inside;
	const struct asked asked = {.found = found};
	struct asked many = asked;
	PyObject *list = NULL;
	struct keys keys;

	if (keys_take(&keys, value) < 0)
		return NULL;
	if (keys.count > FOUND_INSIDE)
		many.found = found = malloc(keys.count * sizeof(*found));
	if (!found)
		PyErr_NoMemory();
	else if (look(of(self), &keys, &many) >= 0)
		list = PyList_New((Py_ssize_t)keys.count);
	for (size_t i = 0; list && i < keys.count; i++) {
		PyObject *item = make(of(self)->store, &found[i]);

		if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
			Py_CLEAR(list);
	}
	if (found != inside)
		free(found);
	keys_drop(&keys);
	return list;
}

static PyObject *namespace_lookup(PyObject *self, PyObject *keys)
{
	return look_all(self, keys, presence);
}

static PyObject *namespace_found(PyObject *self, PyObject *keys)
{
	return look_all(self, keys, found_block);
}

static PyObject *namespace_lookup_prefix(PyObject *self, PyObject *value)
{
	const struct asked asked = {.prefix = true};
	struct keys keys;
	int64_t ret;

	if (keys_take(&keys, value) < 0)
		return NULL;
	ret = look(of(self), &keys, &asked);
	keys_drop(&keys);
	return ret < 0 ? NULL : PyLong_FromLongLong(ret);
}

static PyObject *namespace_hold(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				PyObject *names)
{
	PyObject *value = NULL, *seconds = NULL;
	const struct keyword rows[] = {{"keys", &value}, {"seconds", &seconds}, {NULL, NULL}};
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	uint64_t hold = 0;
	struct asked asked = {.prefix = true, .opts = &opts, .hold = &hold};
	struct keys keys;
	int64_t ret;

	if (take_arguments("hold", args, nargs, names, rows, 2, 1) < 0 ||
	    take_time(seconds, "seconds", 0, 1, &opts.hold_ns) < 0 || keys_take(&keys, value) < 0)
		return NULL;
	ret = look(of(self), &keys, &asked);
	keys_drop(&keys);
	return ret < 0 ? NULL : hold_new(of(self)->store, hold, ret);
}

static PyObject *namespace_clear(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *names)
{
	struct store *store = of(self)->store;
	PyObject *value = NULL;
	const struct keyword rows[] = {{"durability", &value}, {NULL, NULL}};
	uint32_t durability;
	int ret;

	if (take_arguments("clear", args, nargs, names, rows, 1, 0) < 0 ||
	    take_durability(value, CAIRN_MEMORY, &durability) < 0 || store_begin(store) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_clear(of(self)->handle, durability);
	Py_END_ALLOW_THREADS
	store_end(store);
	if (ret < 0)
		return raise_code(ret, NULL);
	Py_RETURN_NONE;
}

/* ---- the type --------------------------------------------------------------------------- */

static PyObject *namespace_store(PyObject *self, void *unused)
{
	(void)unused;
	return Py_NewRef((PyObject *)of(self)->store);
}

static PyObject *namespace_shard_count(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLong(of(self)->shard_count);
}

static PyObject *namespace_shard_bytes(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(of(self)->shard_bytes);
}

static PyGetSetDef fields[] = {
	{"store", namespace_store, NULL, "The store it is of.", NULL},
	{"shard_count", namespace_shard_count, NULL, "Shards a block; 0: variable.", NULL},
	{"shard_bytes", namespace_shard_bytes, NULL, "Bytes a shard; 0: variable.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef lookups[] = {
	{"key", namespace_key, METH_O,
	 "key(name)\n--\n\n"
	 "The 16 bytes by which the block of that name (bytes or text, 1 byte or more) is\n"
	 "known here: SHA-256 over the namespace's description and the name, shortened."},
	{"keys", namespace_keys, METH_O,
	 "keys(names)\n--\n\nThe keys of many names, packed: 16 bytes each, in order."},
	{"contains", namespace_contains, METH_O,
	 "contains(key)\n--\n\nWhether the block of one key (16 bytes) is whole: no I/O."},
	{"lookup", namespace_lookup, METH_O,
	 "lookup(keys)\n--\n\n"
	 "For each key whether its block is whole: a list of bool. `keys` is a sequence of 16\n"
	 "bytes each, or all of them packed in one bytes-like object. No I/O, but under\n"
	 "posix(shared=yes), where it is one probe of the file system a key."},
	{"found", namespace_found, METH_O,
	 "found(keys)\n--\n\nAs lookup(), but a Found for each block that is whole, else None."},
	{"lookup_prefix", namespace_lookup_prefix, METH_O,
	 "lookup_prefix(keys)\n--\n\n"
	 "How many leading keys are whole, the keys being one prefix in order."},
	{"hold", (PyCFunction)(void (*)(void))namespace_hold, METH_FASTCALL | METH_KEYWORDS,
	 "hold(keys, seconds=None)\n--\n\n"
	 "As lookup_prefix(), and what it counts stays until the Hold that it returns is\n"
	 "released, or `seconds` are over (None: the store's hold_time; hold_max caps it).\n"
	 "A context manager: `with ns.hold(keys) as hold: ns.load(keys[:hold.count], ...)`."},
	{"clear", (PyCFunction)(void (*)(void))namespace_clear, METH_FASTCALL | METH_KEYWORDS,
	 "clear(durability='memory')\n--\n\n"
	 "Empties the namespace, whatever it holds, by a few small writes. 'durable': it\n"
	 "stays cleared over power loss. CairnError: EIO, EOPNOTSUPP."},
	{NULL, NULL, 0, NULL},
};

static PyStructSequence_Field found_fields[] = {
	{"stage", "the hottest that has it"},
	{"shard_count", "shards of the block"},
	{"shard_bytes", "bytes of every shard but the last"},
	{"last_bytes", "bytes of the last one"},
	{"bytes", "of the whole block"},
	{NULL, NULL},
};

static PyStructSequence_Desc found_desc = {
	.name = "cairn.Found",
	.doc = "A block that is whole: Namespace.found().",
	.fields = found_fields,
	.n_in_sequence = 5,
};

/* The methods of lookups, of transfers and of memory in place, in one table. */
static PyMethodDef *all_methods(void)
{
	static PyMethodDef all[32];
	PyMethodDef *tables[] = {lookups, transfer_methods(), lent_methods()};
	size_t n = 0;

	for (size_t t = 0; t < 3; t++)
		for (PyMethodDef *row = tables[t]; row->ml_name; row++)
			all[n++] = *row;
	return all;
}

static char doc[] = "Blocks of one layout: Store.namespace(). Any thread may call any "
		    "method.";

int namespace_init(PyObject *module)
{
	PyType_Slot slots[] = {
		{Py_tp_dealloc, (void *)namespace_dealloc},
		{Py_tp_traverse, (void *)namespace_traverse},
		{Py_sq_contains, (void *)look_one},
		{Py_tp_methods, all_methods()},
		{Py_tp_getset, fields},
		{Py_tp_doc, doc},
		{0, NULL},
	};
	PyType_Spec spec = {
		.name = "cairn.Namespace",
		.basicsize = sizeof(struct name_space),
		.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
			 Py_TPFLAGS_DISALLOW_INSTANTIATION,
		.slots = slots,
	};

	face.name_space = (PyTypeObject *)PyType_FromSpec(&spec);
	face.found = PyStructSequence_NewType(&found_desc);
	if (!face.name_space || !face.found)
		return -1;
	if (PyModule_AddObjectRef(module, "Namespace", (PyObject *)face.name_space) < 0)
		return -1;
	return PyModule_AddObjectRef(module, "Found", (PyObject *)face.found);
}
