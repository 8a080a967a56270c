/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcairn for tests of the program: blocks in memory, one lock, all work
 * done within the call. The pipeline's text may hold what goes wrong:
 *
 *	wrong=N damage=N vanish=N fail=N	the N-th xfer that is loaded
 *	refuse=N				the N-th xfer that is dumped
 *	again					every second submission is -EAGAIN
 *	broken					cannot be opened
 *	busy					fsck and stat find it in use
 *	pageless				stat finds it in use, and no page
 *	shared					with busy: maybe by many
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairn/task.h>

#define SLOTS (1u << 19)

struct block {
	struct cairn_key key;
	uint32_t shard_count, have;
	uint64_t shard_bytes;
	uint8_t **shards; /* NULL: an empty slot */
	bool removed;
};

struct cairn_namespace {
	struct cairn_store *store;
	char desc[256];
	uint32_t shard_count;
	uint64_t shard_bytes;
};

struct cairn_store {
	char spec[256];
	struct cairn_namespace ns;
	uint64_t task, loads, dumps, submissions, queues;
};

#define DONE_MAX 4096u
struct cairn_queue {
	struct cairn_store *store;
	struct cairn_completion done[DONE_MAX];
	uint32_t count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block blocks[SLOTS]; /* outlives stores, as a disk does */
static uint64_t block_count;

static uint64_t rule(const struct cairn_store *store, const char *name)
{
	const char *at = strstr(store->spec, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static struct block *find(const struct cairn_key *key, bool make)
{
	uint32_t at;

	memcpy(&at, key->bytes, sizeof(at));
	for (;; at++) {
		struct block *block = &blocks[at % SLOTS];

		if (block->shards && !memcmp(&block->key, key, sizeof(*key)))
			return block;
		if (!block->shards) {
			block->key = *key;
			return make ? block : NULL;
		}
	}
}

static bool whole(const struct block *block)
{
	return block && block->shards && !block->removed && block->have == block->shard_count;
}

const char *cairn_strerror(int code)
{
	return strerror(-code);
}

const char *cairn_version(void)
{
	return "0.0.0";
}

int cairn_store_open(const char *spec, const struct cairn_store_opts *opts,
		     struct cairn_store **ret_store, struct cairn_error *reterr)
{
	struct cairn_store *store = calloc(1, sizeof(*store));

	(void)opts;
	if (!store || strstr(spec, "broken")) {
		snprintf(reterr->text, sizeof(reterr->text), "line 1, column 1: broken");
		free(store);
		return -EINVAL;
	}
	snprintf(store->spec, sizeof(store->spec), "%s", spec);
	*ret_store = store;
	return 0;
}

int cairn_store_close(struct cairn_store *store, uint64_t timeout_ns)
{
	(void)timeout_ns;
	for (size_t i = 0; i < SLOTS; i++) {
		for (uint32_t s = 0; blocks[i].shards && s < blocks[i].shard_count; s++)
			free(blocks[i].shards[s]);
		free(blocks[i].shards);
		blocks[i] = (struct block){.shards = NULL};
	}
	block_count = 0;
	free(store);
	return 0;
}

int cairn_store_quiesce(struct cairn_store *store, uint64_t timeout_ns)
{
	(void)store;
	(void)timeout_ns;
	return 0;
}

int cairn_pipeline_define_file(const char *path, struct cairn_error *reterr)
{
	snprintf(reterr->text, sizeof(reterr->text), "no such file");
	return strcmp(path, "/dev/null") ? -ENOENT : 0;
}

int cairn_namespace_open(struct cairn_store *store, const struct cairn_namespace_desc *desc,
			 struct cairn_namespace **ret_ns, struct cairn_error *reterr)
{
	struct cairn_namespace *ns = &store->ns;

	(void)reterr;
	ns->store = store;
	ns->shard_count = desc->shard_count;
	ns->shard_bytes = desc->shard_bytes;
	snprintf(ns->desc, sizeof(ns->desc), "%s %u %llu", desc->model, desc->shard_count,
		 (unsigned long long)desc->shard_bytes);
	*ret_ns = ns;
	return 0;
}

void cairn_namespace_close(struct cairn_namespace *ns)
{
	(void)ns;
}

int cairn_key_derive(const struct cairn_namespace *ns, const void *name, size_t length,
		     struct cairn_key *ret_key)
{
	uint64_t halves[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};

	for (size_t i = 0; i < strlen(ns->desc) + length; i++) {
		size_t d = strlen(ns->desc);
		uint8_t c = i < d ? (uint8_t)ns->desc[i] : ((const uint8_t *)name)[i - d];

		halves[0] = (halves[0] ^ c) * 0x100000001b3u;
		halves[1] = (halves[1] + c) * 0x9e3779b97f4a7c15u;
	}
	halves[0] ^= halves[1] >> 32;
	memcpy(ret_key->bytes, halves, sizeof(halves));
	return 0;
}

int cairn_stat(struct cairn_store *store, struct cairn_stat *st)
{
	(void)store;
	memset((char *)st + sizeof(st->size), 0, sizeof(*st) - sizeof(st->size));
	st->blocks = block_count;
	st->alignment = 1;
	snprintf(st->engine, sizeof(st->engine), "psync");
	return 0;
}

int cairn_memory_register(struct cairn_store *store, void *base, size_t bytes)
{
	(void)store;
	return base && bytes ? 0 : -EINVAL;
}

int cairn_memory_unregister(struct cairn_store *store, void *base, uint64_t timeout_ns)
{
	(void)store;
	(void)timeout_ns;
	return base ? 0 : -ENOENT;
}

int cairn_counters(struct cairn_store *store,
		   int (*fn)(void *context, const struct cairn_counter *counter), void *context)
{
	const struct cairn_counter counter = {
		.stage = "fake", .name = "load_xfers", .help = "xfers", .value = store->loads};

	return fn(context, &counter);
}

int cairn_live_counters(const char *spec, const struct cairn_store_opts *opts,
			int (*fn)(void *context, const struct cairn_counter *counter),
			void *context, struct cairn_live *live, struct cairn_error *reterr)
{
	const struct cairn_counter counter = {
		.stage = "fake", .name = "load_hits", .help = "blocks", .value = 42};

	(void)opts;
	(void)reterr;
	if (strstr(spec, "broken"))
		return -EINVAL;
	if (strstr(spec, "pageless"))
		return -EBUSY;
	if (!strstr(spec, "busy"))
		return -ENOENT;
	live->pid = 4711;
	live->shared = strstr(spec, "shared") != NULL;
	snprintf(live->engine, sizeof(live->engine), "aio");
	snprintf(live->engine_note, sizeof(live->engine_note), "io_uring: no");
	return fn(context, &counter);
}

int cairn_live_figures(const char *spec, const struct cairn_store_opts *opts,
		       int (*counter)(void *context, const struct cairn_counter *counter),
		       int (*latency)(void *context, const struct cairn_latency *latency),
		       void *context, struct cairn_live *live, struct cairn_error *reterr)
{
	const struct cairn_latency_bucket buckets[] = {
		{1024, 3}, {1536, 2}, {2048, 0}, {UINT64_MAX, 1}};
	const struct cairn_latency load = {
		.op = "load", .count = 6, .sum_ns = 5400, .bucket_count = 4, .buckets = buckets};
	const struct cairn_latency_bucket none[] = {{1024, 0}, {UINT64_MAX, 0}};
	const struct cairn_latency dump = {.op = "dump", .bucket_count = 2, .buckets = none};
	int rc = cairn_live_counters(spec, opts, counter, context, live, reterr);

	if (rc == 0 && latency)
		rc = latency(context, &load);
	return rc || !latency ? rc : latency(context, &dump);
}

int64_t cairn_list(const char *spec, const struct cairn_store_opts *opts,
		   int (*fn)(void *context, const struct cairn_listed *block), void *context,
		   uint64_t *ret_missed, struct cairn_error *reterr)
{
	const struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m\"odel", .shard_count = 1, .shard_bytes = 4096};
	const struct cairn_block_attr attr = {
		.size = sizeof(attr), .parent = {{0xab}}, .depth = 3, .priority = 7};
	struct cairn_listed listed = {.stage = "fake",
				      .shard_count = 1,
				      .raw_bytes = 4096,
				      .stored_bytes = 8192,
				      .whole = 1,
				      .desc = &desc};
	int rc = 0;

	(void)opts;
	if (strstr(spec, "broken")) {
		snprintf(reterr->text, sizeof(reterr->text), "line 1, column 1: broken");
		return -EINVAL;
	}
	if (ret_missed)
		*ret_missed = 0;
	for (uint8_t i = 0; i < 3 && !rc; i++) {
		listed.key.bytes[15] = i;
		listed.attr = i ? &attr : NULL;
		rc = fn(context, &listed);
	}
	return rc ? rc : 3;
}

int cairn_check(const char *spec, const struct cairn_store_opts *opts,
		int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		struct cairn_error *reterr)
{
	const struct cairn_finding finding = {.kind = CAIRN_FINDING_DAMAGED,
					      .stage = "fake",
					      .where = "a/file",
					      .what = "bytes that do not check"};

	(void)opts;
	if (strstr(spec, "busy")) {
		snprintf(reterr->text, sizeof(reterr->text), "fake: in use");
		return -EBUSY;
	}
	if (strstr(spec, "repairable"))
		return 1;
	if (!strstr(spec, "damage"))
		return 0;
	fn(context, &finding);
	return 2;
}

/* What is damaged is lost; all else is mended. */
int cairn_repair(const char *spec, const struct cairn_store_opts *opts,
		 int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		 struct cairn_error *reterr)
{
	const struct cairn_finding finding = {.kind = CAIRN_FINDING_NOTE,
					      .stage = "fake",
					      .where = "a/file",
					      .what = "mended: the superblock"};

	if (!strstr(spec, "repairable"))
		return cairn_check(spec, opts, fn, context, reterr);
	fn(context, &finding);
	return 0;
}

static int inspect_memory(const char *spec,
			  int (*fn)(void *context, const struct cairn_detail *detail),
			  void *context)
{
	const struct cairn_detail details[] = {
		{"fake", "memory", 0, "bytes", NULL, 1u << 20},
		{"fake", "memory", 0, "used_bytes", NULL, 12288},
		{"fake", "memory", 0, "dirty_bytes", NULL, 4096},
		{"fake", "memory", 0, "blocks", NULL, 3},
		{"fake", "memory", 0, "clients", NULL, strstr(spec, "kept") ? 0 : 2},
		{"fake", "memory", 0, "pins", NULL, 5},
		{"fake", "class", 4096, "chunks", NULL, 1},
		{"fake", "class", 4096, "slots", NULL, 256},
		{"fake", "class", 4096, "slots_used", NULL, 3},
		{"fake", "class", 4096, "used_bytes", NULL, 12288},
	};

	if (!strstr(spec, "busy") && !strstr(spec, "memory"))
		return -EOPNOTSUPP;
	for (size_t i = 0; i < sizeof(details) / sizeof(details[0]); i++)
		fn(context, &details[i]);
	return 0;
}

/* A store that process 4711 has open, with two records in a region. */
int cairn_inspect(const char *spec, const struct cairn_store_opts *opts, uint64_t region,
		  int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		  struct cairn_error *reterr)
{
	const struct cairn_detail details[] = {
		{"flash", "store", 0, "bytes", NULL, 4096},
		{"flash", "store", 0, "in_use", "yes", 0},
		{"flash", "store", 0, "owner", NULL, 4711},
		{"flash", region == 7 ? "record" : "namespace", 0, "key", "a0", 0},
		{"flash", region == 7 ? "record" : "namespace", 0, "shards", NULL, 2},
		{"flash", region == 7 ? "record" : "namespace", 1, "key", "", 0},
		{"flash", "region", region, "state", "sealed", 0},
	};
	size_t count = region == CAIRN_INSPECT_STORE ? 6 : 7;

	(void)opts;
	if (region == CAIRN_INSPECT_MEMORY)
		return inspect_memory(spec, fn, context);
	if (strcmp(spec, "flash(path=\"/a \\\"b\\\\\")") == 0)
		count = 3;
	else if (strcmp(spec, "flash(path=\"/store\")") != 0 || region == 9) {
		snprintf(reterr->text, sizeof(reterr->text), "flash: no");
		return region == 9 ? -EINVAL : -EPROTO;
	}
	for (size_t i = 0; i < count; i++)
		if (region != 8 || i < 3 || i == 6)
			fn(context, &details[i]);
	return 0;
}

int cairn_stages(const struct cairn_store_opts *opts,
		 int (*fn)(void *context, const struct cairn_stage_info *stage), void *context,
		 struct cairn_error *reterr)
{
	const struct cairn_option_info option = {.name = "path",
						 .type = "path",
						 .help = "the directory",
						 .preset = "",
						 .min = "",
						 .max = "",
						 .required = 1};
	const struct cairn_stage_info stage = {.name = "fake",
					       .summary = "blocks in memory",
					       .tier = 1,
					       .options = &option,
					       .option_count = 1};

	(void)opts;
	(void)reterr;
	return fn(context, &stage);
}

int cairn_compositions(int (*fn)(void *context, const char *name, const char *spec,
				 const char *help),
		       void *context)
{
	return fn(context, "local", "fake(path=/tmp)", "an example");
}

/* ---- tasks ------------------------------------------------------------------ */

static int32_t load_one(struct cairn_store *store, struct cairn_xfer *xfer)
{
	uint64_t n = ++store->loads, offset = 0;
	struct block *block = find(&xfer->key, false);

	if (n == rule(store, "fail="))
		return -EIO;
	if (n == rule(store, "damage="))
		return -EBADMSG;
	if (n == rule(store, "vanish=") || !whole(block))
		return -ENOENT;
	for (uint32_t i = 0; i < xfer->segment_count; i++) {
		memcpy(xfer->segments[i].base, block->shards[xfer->shard] + offset,
		       xfer->segments[i].length);
		offset += xfer->segments[i].length;
	}
	if (n == rule(store, "wrong="))
		((uint8_t *)xfer->segments[0].base)[xfer->segments[0].length / 2] ^= 1;
	return 0;
}

static int32_t dump_one(const struct cairn_namespace *ns, struct cairn_xfer *xfer)
{
	struct cairn_store *store = ns->store;
	struct block *block = find(&xfer->key, true);

	if (++store->dumps == rule(store, "refuse="))
		return -ENOSPC;
	if (block->removed) {
		block->removed = false;
		for (uint32_t s = 0; s < block->shard_count; s++) {
			free(block->shards[s]);
			block->shards[s] = NULL;
		}
		block->have = 0;
	}
	if (!block->shards) {
		block->shards = calloc(ns->shard_count, sizeof(*block->shards));
		block->shard_count = ns->shard_count;
		block->shard_bytes = ns->shard_bytes;
		block->have = 0;
	}
	if (block->shards[xfer->shard])
		return CAIRN_PRESENT;
	block->shards[xfer->shard] = malloc(xfer->length);
	memcpy(block->shards[xfer->shard], xfer->segments[0].base, xfer->length);
	block_count += ++block->have == block->shard_count;
	return 0;
}

static int submit(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count, bool dump,
		  const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	struct cairn_queue *queue = opts ? opts->queue : NULL;
	struct cairn_store *store = ns->store;
	int rc = 0;

	pthread_mutex_lock(&lock);
	if (ret_task && strstr(store->spec, "again") && ++store->submissions % 2) {
		pthread_mutex_unlock(&lock);
		return -EAGAIN;
	}
	for (size_t i = 0; i < count; i++) {
		struct cairn_xfer *xfer = &xfers[i];

		xfer->result.status = dump ? dump_one(ns, xfer) : load_one(store, xfer);
		if (rc >= 0 && xfer->result.status < 0)
			rc = xfer->result.status;
	}
	if (ret_task)
		*ret_task = ++store->task;
	if (ret_task && queue)
		queue->done[queue->count++] = (struct cairn_completion){
			*ret_task, opts->context, CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE, rc < 0};
	pthread_mutex_unlock(&lock);
	return ret_task ? 0 : rc;
}

int cairn_load(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
	       const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	return submit(ns, xfers, count, false, opts, ret_task);
}

int cairn_dump(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
	       const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	return submit(ns, xfers, count, true, opts, ret_task);
}

int cairn_remove(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
		 struct cairn_result *results, const struct cairn_task_opts *opts,
		 uint64_t *ret_task)
{
	int rc = 0;

	(void)ns;
	(void)opts;
	(void)ret_task;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < count; i++) {
		struct block *block = find(&keys[i], false);
		int status = whole(block) ? 0 : -ENOENT;

		if (status == 0) {
			block->removed = true;
			block_count--;
		}
		if (results)
			results[i].status = status;
		rc = rc ? rc : status;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

int cairn_clear(struct cairn_namespace *ns, uint32_t durability)
{
	(void)ns;
	(void)durability;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < SLOTS; i++)
		blocks[i].removed = blocks[i].shards != NULL;
	block_count = 0;
	pthread_mutex_unlock(&lock);
	return 0;
}

int cairn_task_wait(struct cairn_store *store, uint64_t task, uint32_t events, uint64_t timeout_ns)
{
	(void)store;
	(void)events;
	(void)timeout_ns;
	return task ? 0 : -EINVAL;
}

int cairn_queue_open(struct cairn_store *store, struct cairn_queue **ret_queue)
{
	struct cairn_queue *queue = calloc(1, sizeof(*queue));

	queue->store = store;
	*ret_queue = queue;
	return 0;
}

int cairn_queue_close(struct cairn_queue *queue)
{
	free(queue);
	return 0;
}

int cairn_drain(struct cairn_queue *queue, struct cairn_completion *completions, size_t max,
		uint64_t timeout_ns)
{
	uint32_t n;

	(void)timeout_ns;
	pthread_mutex_lock(&lock);
	n = queue->count < max ? queue->count : (uint32_t)max;
	memcpy(completions, queue->done, n * sizeof(*completions));
	queue->count -= n;
	memmove(queue->done, queue->done + n, queue->count * sizeof(*completions));
	pthread_mutex_unlock(&lock);
	return (int)n;
}

int64_t cairn_lookup_prefix(struct cairn_namespace *ns, const struct cairn_key *keys, size_t count,
			    struct cairn_found *found, const struct cairn_lookup_opts *opts,
			    uint64_t *ret_hold)
{
	int64_t n = 0;

	(void)ns;
	(void)found;
	(void)opts;
	pthread_mutex_lock(&lock);
	while ((size_t)n < count && whole(find(&keys[n], false)))
		n++;
	pthread_mutex_unlock(&lock);
	if (ret_hold)
		*ret_hold = n ? 1 : 0;
	return n;
}

int cairn_hold_release(struct cairn_store *store, uint64_t hold)
{
	(void)store;
	return hold > 1 ? -ENOENT : 0;
}
