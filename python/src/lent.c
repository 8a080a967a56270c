/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the store's that Python sees in place: a Pin, whose shard is read where it lies, and
 * a Slot, in which one is made.
 *
 * Invariants:
 *  1. A view of it holds the object: memory goes back when it was given up (released, aborted,
 *     committed) and no view is left, whichever is later. So a view that outlives its `with` is
 *     safe, and keeps the memory.
 *  2. Given up, it hands out no further views.
 *  3. A Slot is committed only when no view is left: nobody writes into what others read.
 *  4. Nothing is lent while its store is closed: a view that is left refuses the close.
 */
#include <errno.h>

#include <cairn/pin.h>

#include "face.h"

static struct lent *of(PyObject *self)
{
	return (struct lent *)self;
}

static void list(struct lent *lent, struct store *store)
{
	lent->store = store;
	Py_INCREF((PyObject *)store);
	lent->next = store->lent;
	if (lent->next)
		lent->next->prev = lent;
	store->lent = lent;
}

static void unlist(struct lent *lent)
{
	if (lent->prev)
		lent->prev->next = lent->next;
	else if (lent->store->lent == lent)
		lent->store->lent = lent->next;
	if (lent->next)
		lent->next->prev = lent->prev;
	lent->next = lent->prev = NULL;
}

/* ---- giving back ------------------------------------------------------------------ */

/* The library's memory, once; a child of a fork has none of it. */
static void give_back(struct lent *lent)
{
	struct store *store = lent->store;

	if (!lent->base)
		return;
	if (store->handle && store->generation == process_generation()) {
		if (lent->writable)
			cairn_abort(store->handle, lent->base);
		else
			cairn_unpin(store->handle, lent->pin);
	}
	lent->base = NULL;
	unlist(lent);
}

/* Lets go of the view of our own. One that somebody holds by a buffer stays as it is. */
static void drop_view(struct lent *lent)
{
	PyObject *view = lent->view, *was, *value, *trace, *none;

	lent->view = NULL;
	if (!view)
		return;
	PyErr_Fetch(&was, &value, &trace);
	none = PyObject_CallMethod(view, "release", NULL);
	if (!none)
		PyErr_Clear();
	Py_XDECREF(none);
	PyErr_Restore(was, value, trace);
	Py_DECREF(view);
}

static void give_up(struct lent *lent)
{
	lent->over = true;
	drop_view(lent);
	if (lent->views == 0)
		give_back(lent);
}

int lent_end(struct store *store)
{
	for (struct lent *lent = store->lent; lent; lent = lent->next) {
		if (lent->views == 0)
			continue;
		PyErr_SetString(PyExc_BufferError,
				"the store was not closed: memory of it is in use, by a view of a "
				"Pin or a Slot; it stays open");
		return -1;
	}
	while (store->lent) {
		struct lent *lent = store->lent;

		lent->over = true;
		give_back(lent);
		unlist(lent); /* one that is being committed has nothing to give back */
	}
	return 0;
}

/* ---- views ------------------------------------------------------------------------- */

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
	struct lent *lent = of(self);

	view->obj = NULL;
	if (lent->over || lent->store->generation != process_generation()) {
		PyErr_Format(PyExc_ValueError, "the %s is over: it lends no memory any more",
			     lent->writable ? "slot" : "pin");
		return -1;
	}
	if (PyBuffer_FillInfo(view, self, lent->base, (Py_ssize_t)lent->length, !lent->writable,
			      flags) < 0)
		return -1;
	lent->views++;
	return 0;
}

static void release_buffer(PyObject *self, Py_buffer *view)
{
	struct lent *lent = of(self);

	(void)view;
	lent->views--;
	if (lent->over && lent->views == 0)
		give_back(lent);
}

static PyObject *get_view(PyObject *self, void *unused)
{
	struct lent *lent = of(self);

	(void)unused;
	if (!lent->view || lent->over) {
		PyObject *view = PyMemoryView_FromObject(self);

		if (!view)
			return NULL;
		lent->view = view;
	}
	return Py_NewRef(lent->view);
}

static PyObject *pin_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return get_view(self, NULL);
}

static PyObject *slot_enter(PyObject *self, PyObject *unused)
{
	PyObject *view = get_view(self, NULL);

	(void)unused;
	if (!view)
		return NULL;
	Py_DECREF(view);
	return Py_NewRef(self);
}

static PyObject *lent_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	give_up(of(self));
	Py_RETURN_NONE;
}

static PyObject *lent_release(PyObject *self, PyObject *unused)
{
	(void)unused;
	give_up(of(self));
	Py_RETURN_NONE;
}

static PyObject *get_over(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(of(self)->over);
}

static Py_ssize_t lent_length(PyObject *self)
{
	return (Py_ssize_t)of(self)->length;
}

/* ---- a commit ------------------------------------------------------------------------ */

/* The memory is gone afterwards, either way. */
static int commit(struct lent *slot, const struct cairn_task_opts *opts, int32_t *ret_status)
{
	struct store *store = slot->store;
	struct cairn_segment segment = {slot->base, slot->length};
	struct cairn_xfer xfer = slot->shape;
	int ret;

	xfer.segments = &segment;
	xfer.segment_count = 1;
	xfer.result.status = UNTOLD;
	if (store_begin(store) < 0)
		return -1;
	slot->over = true; /* no view from here on */
	slot->base = NULL; /* and nobody else gives it back */
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_commit(slot->ns->handle, &xfer, 1, opts, NULL);
	*ret_status = xfer.result.status == UNTOLD ? ret : xfer.result.status;
	if (*ret_status < 0)
		cairn_abort(store->handle, segment.base);
	Py_END_ALLOW_THREADS
	store_end(store);
	unlist(slot);
	return 0;
}

static PyObject *slot_commit(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *names)
{
	struct lent *slot = of(self);
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	PyObject *durability = NULL, *deadline = NULL;
	const struct keyword rows[] = {
		{"durability", &durability}, {"deadline", &deadline}, {NULL, NULL}};
	int32_t status;

	if (take_arguments("commit", args, nargs, names, rows, 0, 0) < 0 ||
	    take_time(deadline, "deadline", 0, 1, &opts.deadline_ns) < 0 ||
	    take_durability(durability, CAIRN_MEMORY, &opts.durability) < 0)
		return NULL;
	if (slot->over || slot->store->generation != process_generation()) {
		PyErr_SetString(PyExc_ValueError, "the slot is over: it was committed or aborted");
		return NULL;
	}
	drop_view(slot);
	if (slot->views > 0) {
		PyErr_Format(PyExc_BufferError,
			     "the slot was not committed: %zd views of it are left, by which it "
			     "could still be written",
			     slot->views);
		return NULL;
	}
	if (commit(slot, &opts, &status) < 0)
		return NULL;
	return status < 0 ? raise_code(status, NULL) : PyLong_FromLong(status);
}

/* ---- making -------------------------------------------------------------------------- */

static struct lent *lent_new(PyTypeObject *type, struct name_space *ns)
{
	struct lent *lent = (struct lent *)PyType_GenericAlloc(type, 0);

	if (!lent)
		return NULL;
	lent->ns = ns;
	Py_INCREF((PyObject *)ns);
	list(lent, ns->store);
	return lent;
}

static struct lent *pin_of(struct name_space *ns, const struct cairn_key *key, uint32_t shard,
			   int *ret_code)
{
	struct lent *pin = lent_new(face.pin, ns);
	struct cairn_pinned pinned;

	if (!pin)
		return NULL;
	*ret_code = cairn_pin(ns->handle, key, shard, &pinned);
	if (*ret_code == 0) {
		pin->base = (void *)(uintptr_t)pinned.base;
		pin->length = pinned.length;
		pin->pin = pinned.pin;
	}
	return pin;
}

static struct lent *slot_of(struct name_space *ns, const struct cairn_xfer *shape,
			    const struct cairn_block_attr *attr, int *ret_code)
{
	struct lent *slot = lent_new(face.slot, ns);
	struct cairn_reserved reserved;
	int ret;

	if (!slot)
		return NULL;
	slot->writable = true;
	slot->shape = *shape;
	slot->attr = *attr;
	slot->shape.attr = attr->size ? &slot->attr : NULL;
	Py_BEGIN_ALLOW_THREADS
	ret = cairn_reserve(ns->handle, &slot->shape, &reserved);
	Py_END_ALLOW_THREADS
	if (ret == 0) {
		slot->base = reserved.base;
		slot->length = reserved.length;
	}
	*ret_code = ret;
	return slot;
}

/* The object, None where the library said @none, or an exception. */
static PyObject *lent_or(struct lent *lent, int code, int none)
{
	if (!lent || code == 0)
		return (PyObject *)lent;
	Py_DECREF((PyObject *)lent);
	return code == none ? Py_NewRef(Py_None) : raise_code(code, NULL);
}

static PyObject *namespace_pin(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *names)
{
	struct name_space *ns = (struct name_space *)self;
	PyObject *value = NULL, *shard = NULL;
	const struct keyword rows[] = {{"key", &value}, {"shard", &shard}, {NULL, NULL}};
	struct cairn_key key;
	struct lent *pin;
	uint64_t number;
	int code = 0;

	if (take_arguments("pin", args, nargs, names, rows, 2, 1) < 0 ||
	    key_take(value, &key) < 0 || take_u64(shard, "shard", 0, UINT32_MAX, &number) < 0 ||
	    store_check(ns->store) < 0)
		return NULL;
	pin = pin_of(ns, &key, (uint32_t)number, &code); /* a probe of memory: with the GIL */
	return lent_or(pin, code, -ENOENT);
}

/* The geometry of what is reserved, as of a dump of it. */
static int take_shape(const struct name_space *ns, PyObject *const *given, struct cairn_xfer *shape)
{
	uint64_t shard, count, bytes;
	bool variable = ns->shard_count == 0;

	if (take_u64(given[0], "length", ns->shard_bytes, CAIRN_SHARD_BYTES_MAX, &shape->length) <
		    0 ||
	    take_u64(given[1], "shard", 0, UINT32_MAX, &shard) < 0 ||
	    take_u64(given[2], "shard_count", 1, CAIRN_SHARD_COUNT_MAX, &count) < 0 ||
	    take_u64(given[3], "shard_bytes", shape->length, CAIRN_SHARD_BYTES_MAX, &bytes) < 0)
		return -1;
	shape->shard = (uint32_t)shard;
	shape->shard_count = variable ? (uint32_t)count : 0;
	shape->shard_bytes = variable ? bytes : 0;
	if (variable && shape->length == 0) {
		PyErr_SetString(PyExc_TypeError,
				"reserve() in a variable namespace needs the argument \"length\"");
		return -1;
	}
	return 0;
}

static PyObject *namespace_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *names)
{
	struct name_space *ns = (struct name_space *)self;
	PyObject *value = NULL, *given[4] = {NULL}, *told = NULL;
	const struct keyword rows[] = {{"key", &value},
				       {"length", &given[0]},
				       {"shard", &given[1]},
				       {"shard_count", &given[2]},
				       {"shard_bytes", &given[3]},
				       {"attr", &told},
				       {NULL, NULL}};
	struct cairn_xfer shape = {0};
	struct cairn_block_attr attr = {0};
	struct lent *slot;
	int code = 0;

	if (take_arguments("reserve", args, nargs, names, rows, 2, 1) < 0 ||
	    key_take(value, &shape.key) < 0 || take_shape(ns, given, &shape) < 0 ||
	    (told && attr_take(told, &attr) < 0) || store_begin(ns->store) < 0)
		return NULL;
	slot = slot_of(ns, &shape, &attr, &code);
	store_end(ns->store);
	return lent_or(slot, code, CAIRN_PRESENT);
}

static void dealloc(PyObject *self)
{
	struct lent *lent = of(self);
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	lent->over = true;
	Py_CLEAR(lent->view);
	if (lent->store) {
		give_back(lent);
		unlist(lent);
	}
	Py_XDECREF((PyObject *)lent->ns);
	Py_XDECREF((PyObject *)lent->store);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF((PyObject *)type);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)of(self)->ns);
	Py_VISIT((PyObject *)of(self)->store);
	Py_VISIT(of(self)->view);
	return 0;
}

static int clear(PyObject *self)
{
	Py_CLEAR(of(self)->view);
	return 0;
}

/* ---- the types ------------------------------------------------------------------------ */

static PyGetSetDef fields[] = {
	{"view", get_view, NULL, "A memoryview of the shard's bytes, the same each time.", NULL},
	{"closed", get_over, NULL, "Whether it was given back, or is to be after the last view.",
	 NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef pin_methods[] = {
	{"release", lent_release, METH_NOARGS,
	 "release()\n--\n\n"
	 "Gives it back, when the last view of it is gone; `view` is released. Again: nothing."},
	{"__enter__", pin_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))lent_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef slot_methods[] = {
	{"commit", (PyCFunction)(void (*)(void))slot_commit, METH_FASTCALL | METH_KEYWORDS,
	 "commit(*, durability='memory', deadline=None)\n--\n\n"
	 "As Namespace.dump_sync() of what is in it, without a copy: 0, or PRESENT. `view` is\n"
	 "released first; BufferError: another view of it is left, and it may be called again.\n"
	 "CairnError: the shard was not taken, and the slot is gone, as after a commit."},
	{"abort", lent_release, METH_NOARGS,
	 "abort()\n--\n\n"
	 "Gives it back unused, when the last view of it is gone. After a commit: nothing."},
	{"__enter__", slot_enter, METH_NOARGS, NULL},
	{"__exit__", (PyCFunction)(void (*)(void))lent_exit, METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef namespace_methods[] = {
	{"pin", (PyCFunction)(void (*)(void))namespace_pin, METH_FASTCALL | METH_KEYWORDS,
	 "pin(key, shard=0)\n--\n\n"
	 "The bytes of a shard where they lie, if the pipeline begins with a memory tier that\n"
	 "has it: a Pin; None: it is not in memory (a load or prefetch() brings it there). No\n"
	 "I/O. CairnError: EAGAIN (too many pins), EOPNOTSUPP (no memory tier), EINVAL."},
	{"reserve", (PyCFunction)(void (*)(void))namespace_reserve, METH_FASTCALL | METH_KEYWORDS,
	 "reserve(key, length=None, *, shard=0, shard_count=1, shard_bytes=None, attr=None)\n"
	 "--\n\n"
	 "Memory in the pipeline's memory tier for a shard that is about to be made: a Slot;\n"
	 "None: it is in memory already. `length` in bytes (None: a shard of the namespace),\n"
	 "the rest as of dump(). CairnError: EAGAIN (no room just now, or another makes the\n"
	 "same), EFBIG (never kept in memory), EOPNOTSUPP (no memory tier), EINVAL."},
	{NULL, NULL, 0, NULL},
};

PyMethodDef *lent_methods(void)
{
	return namespace_methods;
}

static char pin_doc[] =
	"A shard in a memory tier, where it lies: Namespace.pin(). A bytes-like object that is\n"
	"only read; its bytes neither change nor move until it is given back. A context\n"
	"manager: `with pin as view:` gives a memoryview, which is released at the end.";
static char slot_doc[] =
	"Memory of a memory tier in which a shard is made: Namespace.reserve(). A bytes-like\n"
	"object that can be written; nobody finds the shard before commit(). A context\n"
	"manager, of itself: at its end what was not committed is aborted.";

static PyType_Slot pin_slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_tp_clear, (void *)clear},
	{Py_bf_getbuffer, (void *)get_buffer},
	{Py_bf_releasebuffer, (void *)release_buffer},
	{Py_sq_length, (void *)lent_length},
	{Py_tp_methods, pin_methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, pin_doc},
	{0, NULL},
};

static PyType_Slot slot_slots[] = {
	{Py_tp_dealloc, (void *)dealloc},
	{Py_tp_traverse, (void *)traverse},
	{Py_tp_clear, (void *)clear},
	{Py_bf_getbuffer, (void *)get_buffer},
	{Py_bf_releasebuffer, (void *)release_buffer},
	{Py_sq_length, (void *)lent_length},
	{Py_tp_methods, slot_methods},
	{Py_tp_getset, fields},
	{Py_tp_doc, slot_doc},
	{0, NULL},
};

#define LENT_FLAGS                                                                                 \
	(Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |                      \
	 Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyType_Spec pin_spec = {
	.name = "cairn.Pin",
	.basicsize = sizeof(struct lent),
	.flags = LENT_FLAGS,
	.slots = pin_slots,
};

static PyType_Spec slot_spec = {
	.name = "cairn.Slot",
	.basicsize = sizeof(struct lent),
	.flags = LENT_FLAGS,
	.slots = slot_slots,
};

int lent_init(PyObject *module)
{
	face.pin = (PyTypeObject *)PyType_FromSpec(&pin_spec);
	face.slot = (PyTypeObject *)PyType_FromSpec(&slot_spec);
	if (!face.pin || !face.slot)
		return -1;
	if (PyModule_AddObjectRef(module, "Pin", (PyObject *)face.pin) < 0)
		return -1;
	return PyModule_AddObjectRef(module, "Slot", (PyObject *)face.slot);
}
