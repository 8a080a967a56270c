/* SPDX-License-Identifier: Apache-2.0 */
/* Namespace: load, dump, remove, prefetch, and their forms that wait. */
#include <errno.h>
#include <string.h>

#include "face.h"

/* What the calls have in common. */
struct transfer {
	struct name_space *ns;
	enum { LOAD, DUMP, REMOVE, PREFETCH } kind;
	struct cairn_task_opts opts;
	struct queue *queue;
	PyObject *context;
	struct op *op;
};

/* Every keyword that there is; each call takes those that it knows. */
struct given {
	PyObject *keys, *items, *shards, *offset, *attrs, *durability, *deadline;
	PyObject *chain, *detach, *urgent, *queue, *context, *shard_count, *shard_bytes;
};

static int take_flags(struct cairn_task_opts *opts, const struct given *given)
{
	bool chain, detach, urgent;

	if (take_flag(given->chain, &chain) < 0 || take_flag(given->detach, &detach) < 0 ||
	    take_flag(given->urgent, &urgent) < 0)
		return -1;
	opts->flags = (chain ? CAIRN_TASK_CHAIN : 0) | (detach ? CAIRN_TASK_DETACH : 0);
	opts->task_class = urgent ? CAIRN_CLASS_URGENT : CAIRN_CLASS_DEFAULT;
	return 0;
}

static int take_opts(struct transfer *transfer, const struct given *given)
{
	struct cairn_task_opts *opts = &transfer->opts;

	opts->size = sizeof(*opts);
	if (take_flags(opts, given) < 0 ||
	    take_time(given->deadline, "deadline", 0, 1, &opts->deadline_ns) < 0 ||
	    take_durability(given->durability, CAIRN_MEMORY, &opts->durability) < 0)
		return -1;
	if (given->queue) {
		transfer->queue = queue_of(given->queue, transfer->ns->store);
		if (!transfer->queue)
			return -1;
	}
	transfer->context = given->context;
	return 0;
}

static int take_shape(const struct transfer *transfer, const struct given *given,
		      struct shape *shape)
{
	*shape = (struct shape){.ns = transfer->ns,
				.shards = given->shards,
				.attrs = given->attrs,
				.dump = transfer->kind == DUMP};
	if (take_u64(given->offset, "offset", 0, CAIRN_SHARD_BYTES_MAX, &shape->offset) < 0 ||
	    take_u64(given->shard_count, "shard_count", 1, CAIRN_SHARD_COUNT_MAX,
		     &shape->shard_count) < 0 ||
	    take_u64(given->shard_bytes, "shard_bytes", 0, CAIRN_SHARD_BYTES_MAX,
		     &shape->shard_bytes) < 0)
		return -1;
	return 0;
}

/* Makes the op with all that C is to touch. */
static int prepare(struct transfer *transfer, const struct given *given)
{
	bool moves = transfer->kind == LOAD || transfer->kind == DUMP;
	struct shape shape;
	struct keys keys;
	struct op *op;
	int ret = 0;

	if (take_opts(transfer, given) < 0 || (moves && take_shape(transfer, given, &shape) < 0) ||
	    keys_take(&keys, given->keys) < 0)
		return -1;
	op = op_new(transfer->ns->store, keys.count, moves);
	if (op && moves)
		ret = items_take(op, &keys, given->items, &shape);
	else if (op && keys.count > 0)
		memcpy(op->keys, keys.at, keys.count * sizeof(*op->keys));
	keys_drop(&keys);
	if (op && ret < 0)
		op_free(op);
	if (!op || ret < 0)
		return -1;
	transfer->op = op;
	return 0;
}

static int call(const struct transfer *transfer, uint64_t *ret_task)
{
	struct cairn_namespace *ns = transfer->ns->handle;
	struct op *op = transfer->op;

	switch (transfer->kind) {
	case LOAD:
		return cairn_load(ns, op->xfers, op->count, &transfer->opts, ret_task);
	case DUMP:
		return cairn_dump(ns, op->xfers, op->count, &transfer->opts, ret_task);
	case REMOVE:
		return cairn_remove(ns, op->keys, op->count, op->results, &transfer->opts,
				    ret_task);
	case PREFETCH:
		break;
	}
	return cairn_prefetch(ns, op->keys, op->count, op->results, &transfer->opts, ret_task);
}

/* ---- with a Future ------------------------------------------------------------------- */

static int submit(struct transfer *transfer)
{
	struct op *op = transfer->op;
	int ret;

	op->refs = 2;
	if (op->count <= SHORT_XFERS)
		return call(transfer, &op->task);
	Py_BEGIN_ALLOW_THREADS
	ret = call(transfer, &op->task);
	Py_END_ALLOW_THREADS
	return ret;
}

static PyObject *start(struct transfer *transfer)
{
	struct store *store = transfer->ns->store;
	struct op *op = transfer->op;
	PyObject *future;
	int ret;

	if (store_begin(store) < 0) {
		op_free(op);
		return NULL;
	}
	future = future_new(op, transfer->context);
	if (!future) {
		store_end(store);
		return NULL;
	}
	if (transfer->queue)
		queue_bind(transfer->queue, &op->queue, future);
	transfer->opts.done = op_done;
	transfer->opts.context = op;
	ret = submit(transfer);
	store_end(store);
	if (ret == 0)
		return future;
	/* It was never seen by the library: the Future frees it. */
	op->refs = 1;
	__atomic_store_n(&op->state, OP_RESULT | OP_RELEASE, __ATOMIC_RELAXED);
	queue_unbind(&op->queue);
	Py_DECREF(future);
	return raise_code(ret, NULL);
}

/* ---- without one ------------------------------------------------------------------------ */

static void set_untold(struct op *op)
{
	for (uint32_t i = 0; i < op->count; i++)
		*(op->xfers ? &op->xfers[i].result.status : &op->results[i].status) = UNTOLD;
}

/* Whether I/O may still target the buffers of a call that returned @ret. */
static bool may_run_on(const struct op *op, int ret)
{
	bool late = ret == -ETIMEDOUT || ret == -ECANCELED;

	for (uint32_t i = 0; !late && i < op->count; i++) {
		int32_t status = op_result(op, i).status;

		late = status == -ETIMEDOUT || status == -ECANCELED;
	}
	return late && op->xfers;
}

static PyObject *run(struct transfer *transfer)
{
	struct store *store = transfer->ns->store;
	struct op *op = transfer->op;
	PyObject *list = NULL;
	int ret;

	if (store_begin(store) < 0) {
		op_free(op);
		return NULL;
	}
	set_untold(op);
	Py_BEGIN_ALLOW_THREADS
	ret = call(transfer, NULL);
	Py_END_ALLOW_THREADS
	store_end(store);
	if (ret < 0 && (op->count == 0 || op_result(op, 0).status == UNTOLD))
		raise_code(ret, NULL); /* nothing was submitted */
	else
		list = op_statuses(op);
	if (may_run_on(op, ret))
		op_to_limbo(op);
	else
		op_free(op);
	return list;
}

static PyObject *perform(PyObject *self, int kind, bool waits, const struct given *given)
{
	struct transfer transfer = {.ns = (struct name_space *)self, .kind = (unsigned)kind};

	if (prepare(&transfer, given) < 0)
		return NULL;
	return waits ? run(&transfer) : start(&transfer);
}

/* ---- the methods -------------------------------------------------------------------------- */

#define METHOD(name)                                                                               \
	static PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t nargs,             \
			      PyObject *names)

#define LOAD_ROWS                                                                                  \
	{"keys", &given.keys}, {"items", &given.items}, {"shards", &given.shards},                 \
		{"offset", &given.offset}, {"deadline", &given.deadline},                          \
		{"detach", &given.detach}, {"urgent", &given.urgent},                              \
	{                                                                                          \
		"chain", &given.chain                                                              \
	}
#define DUMP_ROWS                                                                                  \
	{"keys", &given.keys}, {"items", &given.items}, {"shards", &given.shards},                 \
		{"attrs", &given.attrs}, {"chain", &given.chain},                                  \
		{"durability", &given.durability}, {"deadline", &given.deadline},                  \
		{"detach", &given.detach}, {"urgent", &given.urgent},                              \
		{"shard_count", &given.shard_count},                                               \
	{                                                                                          \
		"shard_bytes", &given.shard_bytes                                                  \
	}
#define REMOVE_ROWS                                                                                \
	{"keys", &given.keys}, {"durability", &given.durability},                                  \
	{                                                                                          \
		"deadline", &given.deadline                                                        \
	}
#define FUTURE_ROWS                                                                                \
	{"queue", &given.queue},                                                                   \
	{                                                                                          \
		"context", &given.context                                                          \
	}

METHOD(load)
{
	struct given given = {0};
	const struct keyword rows[] = {LOAD_ROWS, FUTURE_ROWS, {NULL, NULL}};

	if (take_arguments("load", args, nargs, names, rows, 2, 2) < 0)
		return NULL;
	return perform(self, LOAD, false, &given);
}

METHOD(load_sync)
{
	struct given given = {0};
	const struct keyword rows[] = {LOAD_ROWS, {NULL, NULL}};

	if (take_arguments("load_sync", args, nargs, names, rows, 2, 2) < 0)
		return NULL;
	return perform(self, LOAD, true, &given);
}

METHOD(dump)
{
	struct given given = {0};
	const struct keyword rows[] = {DUMP_ROWS, FUTURE_ROWS, {NULL, NULL}};

	if (take_arguments("dump", args, nargs, names, rows, 2, 2) < 0)
		return NULL;
	return perform(self, DUMP, false, &given);
}

METHOD(dump_sync)
{
	struct given given = {0};
	const struct keyword rows[] = {DUMP_ROWS, {NULL, NULL}};

	if (take_arguments("dump_sync", args, nargs, names, rows, 2, 2) < 0)
		return NULL;
	return perform(self, DUMP, true, &given);
}

METHOD(remove_blocks)
{
	struct given given = {0};
	const struct keyword rows[] = {REMOVE_ROWS, FUTURE_ROWS, {NULL, NULL}};

	if (take_arguments("remove", args, nargs, names, rows, 1, 1) < 0)
		return NULL;
	return perform(self, REMOVE, false, &given);
}

METHOD(remove_sync)
{
	struct given given = {0};
	const struct keyword rows[] = {REMOVE_ROWS, {NULL, NULL}};

	if (take_arguments("remove_sync", args, nargs, names, rows, 1, 1) < 0)
		return NULL;
	return perform(self, REMOVE, true, &given);
}

METHOD(prefetch)
{
	struct given given = {0};
	const struct keyword rows[] = {
		{"keys", &given.keys}, {"deadline", &given.deadline}, FUTURE_ROWS, {NULL, NULL}};

	if (take_arguments("prefetch", args, nargs, names, rows, 1, 1) < 0)
		return NULL;
	return perform(self, PREFETCH, false, &given);
}

#define LOAD_TEXT                                                                                  \
	"`items[i]` takes shard `shards[i]` of the block `keys[i]`, from byte `offset` of it.\n"   \
	"An item is a buffer that can be written (bytes-like, or an array with __dlpack__() in\n"  \
	"the host's memory), an (address, length) pair, which the caller keeps alive, or a list\n" \
	"of these, its segments in order. One buffer in place of the sequence is cut into as\n"    \
	"many equal parts as there are keys. `deadline` in seconds: None is the store's.\n"        \
	"detach=True: no I/O targets the buffers, which are free at the deadline.\n\n"
#define DUMP_TEXT                                                                                  \
	"`items[i]`, as for load() but only read, is the whole of shard `shards[i]` of the "       \
	"block\n"                                                                                  \
	"`keys[i]`; a block is there when all its shards are. In a variable namespace a block\n"   \
	"has `shard_count` shards of `shard_bytes` bytes (None: as long as the item, of one\n"     \
	"shard). `attrs`: what is known of the blocks, an Attr for all or one each. chain=True:\n" \
	"the keys are one prefix in order. `durability`: 'memory', 'written', 'durable'.\n\n"
#define FUTURE_TEXT                                                                                \
	"Returns a Future, whose statuses are 0, PRESENT (a dump: was there already) or a\n"       \
	"negative errno. ValueError and TypeError tell of arguments; CairnError: EAGAIN (no\n"     \
	"task slot now), EOPNOTSUPP (durability), ECANCELED (closed), EOWNERDEAD (a child)."
#define SYNC_TEXT                                                                                  \
	"Waits, and returns the statuses: 0, PRESENT (a dump: was there already) or a negative\n"  \
	"errno. After -ETIMEDOUT memory named by address is free only when Store.quiesce()\n"      \
	"says so, or with detach=True."

#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
	{"load", FAST(load),
	 "load(keys, items, *, shards=0, offset=0, deadline=None, detach=False, urgent=False,\n"
	 "     chain=False, queue=None, context=None)\n--\n\n" LOAD_TEXT FUTURE_TEXT},
	{"load_sync", FAST(load_sync),
	 "load_sync(keys, items, *, shards=0, offset=0, deadline=None, detach=False,\n"
	 "          urgent=False, chain=False)\n--\n\n" LOAD_TEXT SYNC_TEXT},
	{"dump", FAST(dump),
	 "dump(keys, items, *, shards=0, attrs=None, chain=False, durability='memory',\n"
	 "     deadline=None, detach=False, urgent=False, shard_count=1, shard_bytes=None,\n"
	 "     queue=None, context=None)\n--\n\n" DUMP_TEXT FUTURE_TEXT},
	{"dump_sync", FAST(dump_sync),
	 "dump_sync(keys, items, *, shards=0, attrs=None, chain=False, durability='memory',\n"
	 "          deadline=None, detach=False, urgent=False, shard_count=1, shard_bytes=None)\n"
	 "--\n\n" DUMP_TEXT SYNC_TEXT},
	{"remove", FAST(remove_blocks),
	 "remove(keys, *, durability='memory', deadline=None, queue=None, context=None)\n--\n\n"
	 "Removes the blocks from every tier: absent at once for later lookups, held or not.\n"
	 "A Future: 0, or -ENOENT where there was none."},
	{"remove_sync", FAST(remove_sync),
	 "remove_sync(keys, *, durability='memory', deadline=None)\n--\n\n"
	 "Removes the blocks from every tier. Statuses: 0, or -ENOENT where there was none."},
	{"prefetch", FAST(prefetch),
	 "prefetch(keys, *, deadline=None, queue=None, context=None)\n--\n\n"
	 "Brings the blocks up to the hottest tier that caches. A Future: 0, or -ENOENT."},
	{NULL, NULL, 0, NULL},
};

PyMethodDef *transfer_methods(void)
{
	return methods;
}
