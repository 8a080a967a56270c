/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage `cache` over a region whose words are broken under it, alone or over `null`: loads,
 * dumps, removes, prefetches, describes, lookups, pins and reservations, and the flush of what it
 * holds back. Another client of the region is at work beside it, and dies. The first two bytes
 * are the stage's options; then each six break a word, or are a call. Calls may fail, or miss;
 * each io ends, nothing is read or written outside of the region, and until something is broken
 * each byte is right.
 */
#include <errno.h>

#include "../unit/test_host.h"
#include "base/crc32c.h"
#include "broken.h"
#include "cache_region.h"
#include "stages/cache/cache.h"
#include "stages/stages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEYS	    48u
#define LAID	    24u	  /* that are there when it begins */
#define OWN	    1000u /* numbers of blocks of the second namespace from here on */
#define OWN_SHARDS  2u
#define OWN_BYTES   5000u
#define STEPS_MAX   128u
#define OTHER	    1u
#define DEADLINE_NS 200000000u
#define TURNS_MAX   20000u /* of one io; more is for ever */
#define PINS	    4u
#define PREFIX	    8u
#define SLEEP_TIMES 100u /* sleeps are as many times as long: none is for its length */

enum call {
	CALL_LOAD,
	CALL_LOAD_PART,
	CALL_DUMP,
	CALL_DUMP_WRITTEN,
	CALL_DUMP_SHARD,
	CALL_REMOVE,
	CALL_PREFETCH,
	CALL_DESCRIBE,
	CALL_SERVE,
	CALL_PIN,
	CALL_UNPIN,
	CALL_RESERVE,
	CALL_LOOKUP,
	CALL_CLEAR,
	CALL_LAND, /* what is on its way below, or all else that is to be done */
	CALL_OTHER,
	CALL_DIE,
	CALLS
};

struct flight {
	struct cairn_xfer *xfers;
	uint32_t count;
	const struct cairn_ns_view *ns;
	void (*done)(void *context, uint64_t task, uint32_t events);
	void *context;
};

static struct {
	struct test_host *host;
	struct test_host *low; /* its second level alone, for what the stage dumps by itself */
	struct cache_stage *stage;
	const struct cairn_stage_ops *ops;
	struct test_ns *ns[2];
	struct stage_job *job;
	bool job_due;
	uint64_t job_wake_ns;
	struct engine_chain *chain;
	const struct stage_back *back;
	struct flight flights[OWN_TASKS];
	uint32_t flight_count;
	bool flights_fail;
	struct shelf shelf;
	struct shelf_client other;
	bool other_lives, broken;
	struct cairn_pinned pins[PINS];
	uint32_t sum;
	struct sys sys;
} all;

/* ---- blocks ---------------------------------------------------------------------- */

struct block {
	struct test_ns *ns;
	uint32_t number, shard_count, bytes;
	struct cairn_key key;
};

static struct block block_of(const uint8_t *step)
{
	bool own = step[1] & 1;
	struct block block = {.ns = all.ns[own], .number = step[2] % KEYS + (own ? OWN : 0)};
	struct cache_key key = shelf_key(block.number);

	block.shard_count = own ? OWN_SHARDS : shelf_shards(block.number);
	block.bytes = own ? OWN_BYTES : shelf_bytes(block.number);
	memcpy(block.key.bytes, key.word, sizeof(block.key.bytes));
	return block;
}

/* The bytes of one shard, of its length exactly. */
static uint8_t *bytes_of(const struct block *block, uint32_t shard)
{
	uint8_t *bytes = calloc(1, block->bytes);

	REQUIRE(bytes);
	for (uint32_t i = 0; i < block->bytes / 8; i++) {
		uint64_t word = shelf_word(block->number, shard, i);

		memcpy(bytes + i * 8u, &word, 8);
	}
	return bytes;
}

static void compare(const struct block *block, uint32_t shard, uint64_t offset, const void *bytes,
		    uint64_t length)
{
	uint8_t *right = bytes_of(block, shard);

	REQUIRE(all.broken || memcmp(right + offset, bytes, length) == 0);
	free(right);
}

/* ---- the host ---------------------------------------------------------------------- */

static uint64_t realtime_ns(void)
{
	return test_now_ns() + UINT64_C(1700000000000000000);
}

static void pass(uint64_t ns)
{
	test_clock_ns += ns;
}

static bool idle(struct test_host *host);

static int sleep_ns(uint64_t ns)
{
	pass(ns * SLEEP_TIMES);
	idle(all.host);
	return 0;
}

static int byte_lock(int fd, off_t offset, bool wait)
{
	(void)fd;
	(void)wait;
	return all.other_lives && offset == CACHE_LOCK_CLIENT + OTHER ? -EAGAIN : 0;
}

static int byte_unlock(int fd, off_t offset)
{
	(void)fd;
	(void)offset;
	return 0;
}

/* Its locks are none that others see: it takes no region for one that dead ones left. */
static ssize_t getdents_none(int fd, void *buffer, size_t bytes)
{
	(void)fd;
	(void)buffer;
	(void)bytes;
	return 0;
}

/* Memory comes as it is touched. */
static int fallocate_none(int fd, int mode, off_t offset, off_t length)
{
	(void)fd;
	(void)mode;
	(void)offset;
	(void)length;
	return 0;
}

static int madvise_none(void *address, size_t bytes, int advice)
{
	(void)address;
	(void)bytes;
	(void)advice;
	return 0;
}

static int guard(const struct cairn_stage_env *env, int fd)
{
	(void)env;
	(void)fd;
	return 0;
}

static void fork_close(const struct cairn_stage_env *env, int fd, bool forget)
{
	(void)env;
	(void)fd;
	(void)forget;
}

static bool uuid_below(const struct cairn_stage_env *env, uint8_t ret_uuid[16])
{
	memset(ret_uuid, 0, 16);
	return env->below > 0;
}

static bool probe_below(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
			const struct cairn_key *key, struct cairn_probe *ret_probe)
{
	struct test_level *low = &all.host->levels[1];

	REQUIRE(env->below > 0);
	memset(ret_probe, 0, sizeof(*ret_probe));
	low->ops->lookup(low->self, ns, key, 1, 0, ret_probe);
	return ret_probe->present;
}

static void job_start(const struct cairn_stage_env *env, struct stage_job *job, uint32_t spread)
{
	(void)env;
	(void)spread;
	all.job = job;
	all.job_due = true;
}

static void job_again(struct stage_job *job)
{
	REQUIRE(job == all.job);
	all.job_due = true;
}

static void job_sleep(struct stage_job *job, uint64_t when_ns)
{
	REQUIRE(job == all.job);
	all.job_wake_ns = when_ns;
}

static int engine_submit(struct engine *engine, struct engine_chain *chain)
{
	(void)engine;
	REQUIRE(!all.chain && chain->op_count == 1 && chain->ops[0].code == OP_CALL);
	all.chain = chain;
	return 0;
}

static const struct engine_ops engine = {.name = "fuzz", .submit = engine_submit};

static struct engine *job_engine(struct stage_job *job, const struct engine_ops **ret_ops)
{
	REQUIRE(job == all.job);
	*ret_ops = &engine;
	return NULL;
}

static void hold_back(const struct cairn_stage_env *env, bool preset, const struct stage_back *back)
{
	(void)env;
	(void)preset;
	all.back = back;
}

static int own_dump(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
		    struct cairn_xfer *xfers, uint32_t count,
		    void (*done)(void *context, uint64_t task, uint32_t events), void *context)
{
	REQUIRE(env->below > 0 && count > 0);
	if (all.flight_count == OWN_TASKS)
		return -EAGAIN;
	all.flights[all.flight_count++] = (struct flight){xfers, count, ns, done, context};
	return 0;
}

static const struct cairn_ns_view *find_namespace(const struct cairn_stage_env *env,
						  bool (*fits)(const struct cairn_stage_env *env,
							       const struct cairn_ns_view *ns,
							       uint64_t what),
						  uint64_t what)
{
	for (uint32_t i = 0; i < 2; i++)
		if (all.ns[i] && fits(env, &all.ns[i]->view, what))
			return &all.ns[i]->view;
	return NULL;
}

/* ---- ios ---------------------------------------------------------------------------- */

static void run(struct test_io *tio)
{
	uint32_t turns = 0;

	tio->io.deadline_ns = test_now_ns() + DEADLINE_NS;
	test_io_start(tio);
	for (; !tio->completed; turns++)
		REQUIRE(turns < TURNS_MAX && test_host_step(tio->host));
	for (uint32_t i = 0; i < TEST_IOS_MAX; i++)
		if (tio->host->ios[i] == tio)
			tio->host->ios[i] = NULL;
}

/* Xfers of one key from @first on, as the core makes ios of them. Returns how many. */
static uint32_t run_below(const struct flight *flight, uint32_t first)
{
	struct cairn_xfer *xfers = &flight->xfers[first];
	struct test_ns ns = {.view = *flight->ns, .host = all.low};
	struct test_io *tio = test_io_new(all.low, CAIRN_OP_DUMP, &ns, xfers->key);
	uint32_t n = 0;

	tio->io.ns = flight->ns;
	if (flight->ns->shard_count == 0) {
		tio->io.shard_count = xfers->shard_count;
		tio->io.shard_bytes = xfers->shard_bytes;
	}
	tio->io.attr = *xfers->attr;
	for (; first + n < flight->count && n < CAIRN_PARTS_MAX &&
	       memcmp(&xfers[n].key, &xfers->key, sizeof(xfers->key)) == 0 &&
	       xfers[n].shard_count == xfers->shard_count &&
	       xfers[n].shard_bytes == xfers->shard_bytes;
	     n++)
		test_io_part(tio, xfers[n].shard, 0, xfers[n].segments->base, xfers[n].length);
	run(tio);
	for (uint32_t i = 0; i < n; i++)
		xfers[i].result.status = all.flights_fail ? -EIO : tio->parts[i].status;
	test_io_free(tio);
	return n;
}

static void land(void)
{
	struct flight flight = all.flights[0];

	all.flight_count--;
	memmove(all.flights, all.flights + 1, all.flight_count * sizeof(flight));
	for (uint32_t i = 0; i < flight.count;)
		i += run_below(&flight, i);
	flight.done(flight.context, 0, CAIRN_EVENT_RESULT | CAIRN_EVENT_RELEASE);
}

/* One piece of what is to be done beside ios. */
static bool idle(struct test_host *host)
{
	struct engine_chain *chain = all.chain;

	if (host == all.low)
		return false;
	if (chain) {
		all.chain = NULL;
		chain->result = chain->ops[0].call(chain->ops[0].context);
		chain->done(chain);
	} else if (all.job_due || (all.job && all.job_wake_ns <= test_now_ns())) {
		all.job_due = false;
		all.job_wake_ns = UINT64_MAX;
		all.job->run(all.job);
	} else if (all.flight_count > 0) {
		land();
	} else {
		return false;
	}
	return true;
}

/* ---- calls --------------------------------------------------------------------------- */

static struct test_io *io_of(const struct block *block, enum cairn_op op)
{
	struct test_io *tio = test_io_new(all.host, op, block->ns, block->key);

	tio->io.shard_count = block->shard_count;
	tio->io.shard_bytes = block->bytes;
	return tio;
}

static void dump(const struct block *block, uint32_t first, uint32_t count, uint32_t durability)
{
	struct test_io *tio = io_of(block, CAIRN_OP_DUMP);
	uint8_t *bytes[3];

	for (uint32_t i = 0; i < count; i++) {
		bytes[i] = bytes_of(block, first + i);
		test_io_part(tio, first + i, 0, bytes[i], block->bytes);
	}
	tio->io.durability = durability;
	run(tio);
	for (uint32_t i = 0; i < count; i++)
		free(bytes[i]);
	test_io_free(tio);
}

static void load(const struct block *block, uint64_t offset, uint64_t length)
{
	struct test_io *tio = io_of(block, CAIRN_OP_LOAD);
	uint8_t *bytes[3];

	for (uint32_t i = 0; i < block->shard_count; i++) {
		bytes[i] = calloc(1, length);
		REQUIRE(bytes[i]);
		test_io_part(tio, i, offset, bytes[i], length)->raw_length = block->bytes;
	}
	run(tio);
	for (uint32_t i = 0; i < block->shard_count; i++) {
		if (tio->parts[i].status == 0)
			compare(block, i, offset, bytes[i], length);
		free(bytes[i]);
	}
	test_io_free(tio);
}

/* Of those without bytes. */
static void plain(const struct block *block, enum cairn_op op)
{
	struct test_io *tio = io_of(block, op);
	uint32_t crc[2];

	for (uint32_t i = 0; op == CAIRN_OP_DESCRIBE && i < block->shard_count; i++) {
		struct cairn_part *part = test_io_part(tio, i, 0, NULL, 0);

		part->iov_count = 0;
		part->crc = crc;
		part->crc_count = 2;
	}
	run(tio);
	test_io_free(tio);
}

static struct cairn_xfer xfer_of(const struct block *block, uint32_t shard,
				 struct cairn_segment *segment)
{
	return (struct cairn_xfer){
		.key = block->key,
		.shard = shard,
		.length = segment->length,
		.segments = segment,
		.segment_count = 1,
		.shard_count = block->shard_count,
		.shard_bytes = block->bytes,
	};
}

static void serve(const struct block *block, uint32_t shard)
{
	struct cairn_segment segment = {calloc(1, block->bytes), block->bytes};
	struct cairn_xfer xfer = xfer_of(block, shard, &segment);

	REQUIRE(segment.base);
	if (all.ops->serve(all.stage, &block->ns->view, &xfer) == 0)
		compare(block, shard, 0, segment.base, segment.length);
	free(segment.base);
}

static void pin(const struct block *block, uint32_t shard, struct cairn_pinned *pinned)
{
	if (pinned->pin != 0 ||
	    all.ops->pin(all.stage, &block->ns->view, &block->key, shard, pinned) < 0)
		return;
	REQUIRE(all.broken || pinned->length == block->bytes);
	if (!all.broken)
		compare(block, shard, 0, pinned->base, pinned->length);
	/* All of it can be read. */
	all.sum = crc32c(all.sum, pinned->base, pinned->length);
}

static void unpin(struct cairn_pinned *pinned)
{
	if (pinned->pin != 0)
		all.ops->unpin(all.stage, pinned->pin);
	pinned->pin = 0;
}

/* Committed, given back, or left. */
static void reserve(const struct block *block, uint32_t shard, uint32_t what)
{
	struct cairn_segment segment = {NULL, block->bytes};
	struct cairn_xfer xfer = xfer_of(block, shard, &segment);
	struct cairn_reserved reserved;
	struct test_io *tio;
	uint8_t *bytes;

	if (all.ops->reserve(all.stage, &block->ns->view, &xfer, &reserved) != 0)
		return;
	REQUIRE(reserved.length == block->bytes);
	bytes = bytes_of(block, shard);
	memcpy(reserved.base, bytes, block->bytes);
	free(bytes);
	if (what % 4 > 1)
		return;
	if (what % 4 == 1) {
		tio = io_of(block, CAIRN_OP_DUMP);
		test_io_part(tio, shard, 0, reserved.base, block->bytes);
		run(tio);
		test_io_free(tio);
	}
	all.ops->abort(all.stage, reserved.base);
}

static void lookup(const struct block *block, uint32_t flags)
{
	struct cairn_probe probes[PREFIX] = {0};
	struct cairn_key keys[PREFIX];

	for (uint32_t i = 0; i < PREFIX; i++) {
		struct cache_key key = shelf_key(block->number + i);

		memcpy(keys[i].bytes, key.word, sizeof(keys[i].bytes));
	}
	flags &= CAIRN_PROBE_CHAIN | CAIRN_PROBE_HOLD;
	all.ops->lookup(all.stage, &block->ns->view, keys, PREFIX, flags, probes);
	for (uint32_t i = 0; i < PREFIX; i++)
		if (probes[i].hold != 0)
			all.ops->unhold(all.stage, &block->ns->view, &keys[i], probes[i].hold);
}

static void work(uint8_t what)
{
	all.flights_fail = what % 8 == 7;
	if (what % 2 == 0 && all.flight_count > 0)
		land();
	else
		for (uint32_t i = 0; i < TURNS_MAX && idle(all.host); i++)
			;
	all.flights_fail = false;
	pass(what * 1000000u);
}

static void call(enum call call, const uint8_t *step)
{
	struct block block = block_of(step);
	uint32_t shard = step[3] % block.shard_count;
	uint64_t offset = step[4] * 16u;
	struct cairn_tier_stat stat;

	switch (call) {
	case CALL_LOAD:
		load(&block, 0, block.bytes);
		break;
	case CALL_LOAD_PART:
		if (offset < block.bytes)
			load(&block, offset, 1 + (block.bytes - offset - 1) * step[5] / 255);
		break;
	case CALL_DUMP:
		dump(&block, 0, block.shard_count, CAIRN_MEMORY);
		break;
	case CALL_DUMP_WRITTEN:
		dump(&block, 0, block.shard_count,
		     all.host->depth > 1 ? CAIRN_WRITTEN : CAIRN_MEMORY);
		break;
	case CALL_DUMP_SHARD:
		dump(&block, shard, 1, CAIRN_MEMORY);
		break;
	case CALL_REMOVE:
		plain(&block, CAIRN_OP_REMOVE);
		break;
	case CALL_PREFETCH:
		plain(&block, CAIRN_OP_PREFETCH);
		break;
	case CALL_DESCRIBE:
		plain(&block, CAIRN_OP_DESCRIBE);
		break;
	case CALL_SERVE:
		serve(&block, shard);
		break;
	case CALL_PIN:
		pin(&block, shard, &all.pins[step[4] % PINS]);
		break;
	case CALL_UNPIN:
		unpin(&all.pins[step[4] % PINS]);
		break;
	case CALL_RESERVE:
		reserve(&block, shard, step[4]);
		break;
	case CALL_LOOKUP:
		lookup(&block, step[4]);
		all.ops->stat(all.stage, &stat);
		break;
	case CALL_CLEAR:
		all.ops->clear(all.stage, &block.ns->view, CAIRN_MEMORY);
		break;
	case CALL_LAND:
		work(step[4]);
		break;
	case CALL_OTHER:
		for (uint32_t i = 0; all.other_lives && i < step[4] % 16u; i++)
			shelf_step(&all.other);
		break;
	case CALL_DIE:
		all.other_lives = false;
		break;
	case CALLS:
		break;
	}
}

/* ---- a run ------------------------------------------------------------------------- */

static struct test_host *host_new(void)
{
	struct test_host *host = test_host_new();

	host->idle = idle;
	host->internal = (struct stage_env){
		.sys = &all.sys,
		.guard = guard,
		.fork_close = fork_close,
		.uuid_below = uuid_below,
		.probe_below = probe_below,
		.job_start = job_start,
		.job_again = job_again,
		.job_sleep = job_sleep,
		.job_engine = job_engine,
		.hold_back = hold_back,
		.own_dump = own_dump,
		.find_namespace = find_namespace,
	};
	return host;
}

static void begin(const uint8_t *data)
{
	static const char *const writes[] = {"back", "through", "back", "around"};
	static const char *const policies[] = {"lru", "fifo", "lfu", "s3fifo", "slru", "gdsf"};
	char options[160];

	memset(&all, 0, sizeof(all));
	all.sys = sys_native;
	all.sys.now_ns = test_now_ns;
	all.sys.realtime_ns = realtime_ns;
	all.sys.sleep_ns = sleep_ns;
	all.sys.byte_lock = byte_lock;
	all.sys.getdents = getdents_none;
	all.sys.byte_unlock = byte_unlock;
	all.sys.fallocate = fallocate_none;
	all.sys.madvise = madvise_none;
	all.job_wake_ns = UINT64_MAX;
	all.host = host_new();
	snprintf(options, sizeof(options), "size=8MiB;entries=256;write=%s;policy=%s;verify=%s",
		 writes[data[0] % 4], policies[data[1] % 6], data[0] & 4 ? "hit" : "fill");
	test_host_push(all.host, &cairn_stage_cache, options);
	if (data[0] & 24)
		test_host_push(all.host, &cairn_stage_null, "size=4MiB;entries=64");
	test_host_open(all.host);
	all.stage = all.host->levels[0].self;
	all.ops = all.host->levels[0].ops;
	all.low = host_new();
	all.low->depth = all.host->depth - 1;
	all.low->levels[0] = all.host->levels[1];
	/* The first one's id is 0, where the other client's blocks are. */
	all.ns[0] = test_ns_new(all.host, "variable", 0, 0);
	all.ns[1] = test_ns_new(all.host, "fixed", OWN_SHARDS, OWN_BYTES);
	all.shelf = (struct shelf){all.stage->map->header, all.stage->region.bytes, KEYS};
	REQUIRE(shelf_join(&all.other, &all.shelf, OTHER, 1));
	all.other_lives = true;
	for (uint8_t i = 0; i < LAID; i++) {
		const uint8_t step[BROKEN_BYTES] = {0, i & 1, i};

		call(i % 8 == 3 ? CALL_OTHER : CALL_DUMP, step);
	}
}

static void end(void)
{
	for (uint32_t i = 0; i < PINS; i++)
		unpin(&all.pins[i]);
	all.other_lives = false;
	shelf_die(&all.other);
	/* A close may give up. */
	for (uint32_t i = 0; all.back && i < 64 && all.back->settle(all.stage, i == 0); i++) {
		for (uint32_t j = 0; j < TURNS_MAX && idle(all.host); j++)
			;
		pass(50000000);
	}
	while (all.flight_count > 0 || all.chain)
		idle(all.host);
	for (uint32_t i = 0; i < 2; i++)
		test_ns_free(all.ns[i]);
	test_host_free(all.host);
	free(all.low);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	begin(data);
	data += 2;
	size -= 2;
	for (uint32_t i = 0; i < STEPS_MAX && size >= BROKEN_BYTES; i++) {
		if (data[0] >= 128) {
			all.broken = true;
			break_one(all.stage->map, data);
		} else {
			call((enum call)(data[0] % CALLS), data);
		}
		data += BROKEN_BYTES;
		size -= BROKEN_BYTES;
	}
	end();
	return 0;
}
