/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts. A store works on a device whose writes and flushes are recorded
 * (device.h); at random ones of them the power goes: an image is made of what a
 * device may have kept, opened, and every block compared with what had been
 * promised at that moment:
 *  1. a block whose every shard was acknowledged durable is there, whole, unless
 *     it was removed, or evicted;
 *  2. what was durably removed or cleared stays away, and no older content comes
 *     back in place of newer;
 *  3. anything else is whole or absent, and never a wrong byte.
 * And whatever is left of it, the image takes new blocks.
 * Then the work goes on from one of the images: cuts of cuts.
 *
 * Until somebody asks for something to be durable nothing is promised, and little flushed: then
 * what an open finds may be gone again, and what it had removed come back, after the next cut.
 *
 * Content is a function of key and version; a version ends with a remove or clear.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../fault/kit.h"
#include "core/store.h"
#include "device.h"
#include "stages/flash/format.h"

#define SPACES	 4u
#define KEYS	 20u /* of each */
#define WAVE	 6u  /* tasks at once */
#define SHARDS	 16u
#define BYTES	 200000u /* of a block */
#define VERSIONS 64u
#define NONE	 0xff
#define BORDER	 24u /* keys removed by one task */
#define LARGE	 3u
#define NEW_ID	 1000000000u /* on from there no block is of the model */
#define HOLD_MS	 100u /* a hold goes on beside tasks of a wave; a guess at when one waits for it */

static const struct kit_shape shapes[SPACES] = {{1, 6000}, {5, 20000}, {16, 3000}, {2, 100000}};
static const char *const models[SPACES] = {"one", "five", "sixteen", "large"};

/* What a cut now would have to leave of a block. */
struct promise {
	uint64_t may;	/* versions that may be there, a bit each */
	uint32_t dumps; /* begun, and once more when ended: odd while one is under way */
	uint8_t must;	/* the version that has to be; NONE */
	uint8_t top;	/* the highest one that was begun */
};

/* As the driver knows it. */
struct block {
	uint8_t version; /* of the next dump */
	bool busy;
	uint64_t durable; /* shards acknowledged */
};

struct variant {
	const char *name, *options;
	size_t bytes, region;
	uint32_t keys;	/* of KEYS */
	uint32_t waves; /* of a session */
	bool roomy;	/* nothing is evicted */
	bool late;	/* nothing is durable for a while, or ever */
	bool carries;	/* few blocks, in use, among many that are dumped once */
};

static const struct variant variants[] = {
	{"tight", "region=256KiB", 8u << 20, 256u << 10, KEYS, 150, false, false, false},
	{"roomy", "region=256KiB", 16u << 20, 256u << 10, 6, 40, true, false, false},
	{"each", "region=512KiB, sync=each", 8u << 20, 512u << 10, KEYS, 100, false, false, false},
	{"late", "region=256KiB", 8u << 20, 256u << 10, KEYS, 150, false, true, false},
	{"carries", "region=256KiB", 8u << 20, 256u << 10, 4, 100, false, false, true},
};
#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

static struct {
	const struct variant *variant;
	char folder[128], path[160], image_path[160];
	struct cairn_store *store;
	struct cairn_namespace *ns[SPACES];
	struct kit_rng rng;
	struct block blocks[SPACES][KEYS];
	uint64_t hold;
	/* under lock */
	struct promise promises[SPACES][KEYS], at_cut[SPACES][KEYS];
	/* the image that the next session begins with */
	uint8_t *kept;
	bool have_kept, hard[SPACES][KEYS];
	bool asked, asked_at_cut,
		asked_kept; /* a durable task has ended. The first two: under lock */
	bool unsure;	    /* of the store that is looked at a cut took what was not flushed */
	uint64_t ask_at;    /* the wave from which on there are any */
	struct promise kept_promises[SPACES][KEYS];
	/* figures */
	uint64_t cuts, promised, demanded, survived, extra, evicted, reclaimed, waves;
	uint64_t carried, others; /* bytes; blocks beside the model's */
} world;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What the power cut short: every one of these has to be met. */
enum cut_kind {
	CUT_SUPER,
	CUT_SPACES,
	CUT_MARKS,
	CUT_HEADER,  /* of a region: the end of a reclaim */
	CUT_FRESH,   /* records of dumps */
	CUT_CARRIED, /* ... and of a reclaim */
	CUT_SEAL,
	CUT_FLUSH,
	CUT_KINDS,
};
static const char *const kinds[CUT_KINDS] = {"superblock",    "namespaces", "marks", "headers",
					     "fresh records", "carried",    "seals", "flushes"};
enum phase { PHASE_OPEN, PHASE_WORK, PHASE_CLOSE, PHASES };
static struct {
	uint64_t kinds[CUT_KINDS], phases[PHASES];
	enum phase phase;
} met; /* under lock */

static uint64_t key_id(uint32_t space, uint32_t key)
{
	return space * KEYS + key;
}

static uint64_t content_id(uint32_t space, uint32_t key, uint32_t version)
{
	return 1000 + key_id(space, key) * VERSIONS + version;
}

static enum cut_kind kind_of(uint64_t at, size_t length, const uint8_t *bytes)
{
	struct flash_record record = {0}; /* where the device keeps it, it is not aligned */
	struct flash_layout layout;
	uint64_t region;

	if (!bytes)
		return CUT_FLUSH;
	CHECK(flash_layout_init(&layout, world.variant->bytes, world.variant->region,
				FLASH_UNIT_MIN) == FLASH_LAYOUT_OK);
	if (at < layout.space_offset)
		return CUT_SUPER;
	if (at < layout.marks_offset)
		return CUT_SPACES;
	if (at < layout.regions_offset)
		return CUT_MARKS;
	region =
		flash_region_at(&layout, flash_region_of(&layout, (uint32_t)(at / FLASH_UNIT_MIN)));
	if (at == region)
		return CUT_HEADER;
	if (at + length == region + layout.region_bytes)
		return CUT_SEAL;
	memcpy(&record, bytes, length < sizeof(record) ? length : sizeof(record));
	return record.flags & FLASH_RECORD_CARRIED ? CUT_CARRIED : CUT_FRESH;
}

/* On the thread of the write or flush at which the power goes. */
static void remember_promises(uint64_t at, size_t length, const uint8_t *bytes)
{
	pthread_mutex_lock(&lock);
	met.kinds[kind_of(at, length, bytes)]++;
	met.phases[met.phase]++;
	memcpy(world.at_cut, world.promises, sizeof(world.at_cut));
	world.asked_at_cut = world.asked;
	pthread_mutex_unlock(&lock);
}

/* With --trace=1: what is done, so that a failure can be told. */
__attribute__((format(printf, 1, 2))) static void trace(const char *format, ...)
{
	va_list args;

	if (!kit_number("trace", 0, 0))
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
}

/* ---- loads ---------------------------------------------------------------------------- */

/* Loads a block; its version, or NONE when it is absent. Wrong or mixed bytes end the program. */
static uint8_t load(struct cairn_namespace *ns, uint32_t space, uint32_t key, uint64_t may)
{
	static _Alignas(4096) uint8_t bytes[BYTES];
	struct cairn_xfer xfers[SHARDS];
	struct cairn_segment segments[SHARDS];
	struct kit_shape shape = shapes[space];
	int ret;

	memset(bytes, 0xa5, sizeof(bytes));
	for (uint32_t i = 0; i < shape.shards; i++)
		xfers[i] = kit_xfer(key_id(space, key), i, &segments[i],
				    bytes + i * shape.shard_bytes, shape.shard_bytes);
	ret = cairn_load(ns, xfers, shape.shards, NULL, NULL);
	CHECK(ret == 0 || ret == -ENOENT || (ret == -EBADMSG && world.unsure), "block %s/%u: %d",
	      models[space], key, ret);
	CHECK((ret == 0) == kit_present(ns, key_id(space, key)), "%s/%u: %d", models[space], key,
	      ret);
	if (ret < 0)
		return NONE;
	for (uint8_t version = 0; version < VERSIONS; version++) {
		uint64_t id = content_id(space, key, version);
		uint32_t same = 0;

		for (uint32_t i = 0; i < shape.shards; i++)
			same += kit_right(segments[i].base, 64, id, i, 0);
		if (!same)
			continue;
		for (uint32_t i = 0; i < shape.shards; i++)
			CHECK(kit_right(segments[i].base, shape.shard_bytes, id, i, 0),
			      "wrong bytes in shard %u of %s/%u, version %u", i, models[space], key,
			      version);
		CHECK(may >> version & 1, "%s/%u: version %u came back; may be %lx", models[space],
		      key, version, (unsigned long)may);
		return version;
	}
	CHECK(false, "wrong bytes in %s/%u", models[space], key);
}

/* ---- tasks ------------------------------------------------------------------------------- */

struct op {
	bool dump;
	uint32_t space, key, first, count, durability;
	uint64_t task;
	struct cairn_xfer xfers[SHARDS];
	struct cairn_segment segments[SHARDS];
	struct cairn_key keys[BORDER];
	uint32_t numbers[BORDER]; /* of these */
	_Alignas(4096) uint8_t bytes[BYTES];
};
static struct op ops[WAVE];

static void dump_send(struct op *op)
{
	struct block *block = &world.blocks[op->space][op->key];
	struct promise *promise = &world.promises[op->space][op->key];
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = op->durability};
	uint64_t shard_bytes = shapes[op->space].shard_bytes;
	uint64_t id = content_id(op->space, op->key, block->version);
	int ret;

	trace("dump %s/%u+%u of %u, version %u, durability %u\n", models[op->space], op->first,
	      op->count, op->key, block->version, op->durability);
	block->busy = true;
	pthread_mutex_lock(&lock);
	promise->may |= 1ull << block->version;
	promise->dumps++;
	if (block->version > promise->top)
		promise->top = block->version;
	pthread_mutex_unlock(&lock);
	for (uint32_t i = 0; i < op->count; i++) {
		uint8_t *at = op->bytes + i * shard_bytes;

		kit_fill(at, shard_bytes, id, op->first + i, 0);
		op->xfers[i] = kit_xfer(key_id(op->space, op->key), op->first + i, &op->segments[i],
					at, shard_bytes);
	}
	ret = cairn_dump(world.ns[op->space], op->xfers, op->count, &opts, &op->task);
	CHECK(ret == 0, "dump: %d", ret);
}

static void durable_over(const struct op *op)
{
	pthread_mutex_lock(&lock);
	world.asked = world.asked || op->durability == CAIRN_DURABLE;
	pthread_mutex_unlock(&lock);
}

static void dump_over(struct op *op)
{
	struct block *block = &world.blocks[op->space][op->key];
	struct promise *promise = &world.promises[op->space][op->key];
	uint64_t all = (1ull << shapes[op->space].shards) - 1;

	block->busy = false;
	durable_over(op);
	pthread_mutex_lock(&lock);
	promise->dumps++;
	pthread_mutex_unlock(&lock);
	for (uint32_t i = 0; i < op->count; i++) {
		int status = op->xfers[i].result.status;

		CHECK(status >= 0, "dump of %s/%u: %d", models[op->space], op->key, status);
		if (op->durability == CAIRN_DURABLE)
			block->durable |= 1ull << (op->first + i);
	}
	if (block->durable != all)
		return;
	if (!kit_present(world.ns[op->space], key_id(op->space, op->key))) {
		CHECK(!world.variant->roomy, "%s/%u is not whole", models[op->space], op->key);
		block->durable = 0; /* some of it was given up before the rest came */
		return;
	}
	pthread_mutex_lock(&lock);
	promise->must = block->version;
	promise->may = 1ull << block->version;
	pthread_mutex_unlock(&lock);
}

/* Before a block is removed or cleared: it may be gone. */
static void forget(uint32_t space, uint32_t key)
{
	pthread_mutex_lock(&lock);
	world.promises[space][key].must = NONE;
	pthread_mutex_unlock(&lock);
}

/* ... and after. */
static void forgotten(uint32_t space, uint32_t key, bool durable)
{
	struct block *block = &world.blocks[space][key];
	struct promise *promise = &world.promises[space][key];

	pthread_mutex_lock(&lock);
	if (durable)
		promise->may = 0;
	block->version = promise->top + 1;
	pthread_mutex_unlock(&lock);
	block->durable = 0;
}

static void remove_send(struct op *op)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = op->durability};
	int ret;

	for (uint32_t i = 0; i < op->count; i++) {
		world.blocks[op->space][op->numbers[i]].busy = true;
		op->keys[i] = kit_key(key_id(op->space, op->numbers[i]));
		forget(op->space, op->numbers[i]);
		trace("remove %s/%u, durability %u\n", models[op->space], op->numbers[i],
		      op->durability);
	}
	ret = cairn_remove(world.ns[op->space], op->keys, op->count, NULL, &opts, &op->task);
	CHECK(ret == 0, "remove: %d", ret);
}

static void remove_over(struct op *op)
{
	durable_over(op);
	for (uint32_t i = 0; i < op->count; i++) {
		world.blocks[op->space][op->numbers[i]].busy = false;
		forgotten(op->space, op->numbers[i], op->durability == CAIRN_DURABLE);
		CHECK(!kit_present(world.ns[op->space], key_id(op->space, op->numbers[i])),
		      "%s/%u was removed", models[op->space], op->numbers[i]);
	}
}

static void clear(uint32_t space, bool durable)
{
	int ret;

	trace("clear %s, durable %d\n", models[space], durable);
	for (uint32_t key = 0; key < KEYS; key++)
		forget(space, key);
	ret = cairn_clear(world.ns[space], durable ? CAIRN_DURABLE : CAIRN_WRITTEN);
	CHECK(ret == 0, "clear: %d", ret);
	for (uint32_t key = 0; key < KEYS; key++)
		forgotten(space, key, durable);
}

/* ---- waves --------------------------------------------------------------------------------- */

static bool dump_draw(struct op *op)
{
	uint32_t shards = shapes[op->space].shards;
	struct block *block = &world.blocks[op->space][op->key];

	if (block->busy || block->version >= VERSIONS)
		return false;
	op->dump = true;
	op->first = 0;
	op->count = shards;
	if (kit_below(&world.rng, 3) == 0) { /* a part; the rest comes with other tasks */
		op->first = (uint32_t)kit_below(&world.rng, shards);
		op->count = 1 + (uint32_t)kit_below(&world.rng, shards - op->first);
	}
	dump_send(op);
	return true;
}

static bool remove_draw(struct op *op)
{
	uint32_t wanted = kit_below(&world.rng, 6) ? 1 : world.variant->keys;

	op->dump = false;
	op->count = 0;
	for (uint32_t i = 0; i < wanted; i++) {
		uint32_t key = (op->key + i) % world.variant->keys;

		if (!world.blocks[op->space][key].busy)
			op->numbers[op->count++] = key;
	}
	if (op->count)
		remove_send(op);
	return op->count > 0;
}

static bool op_send(struct op *op)
{
	op->space = (uint32_t)kit_below(&world.rng, SPACES);
	op->key = (uint32_t)kit_below(&world.rng, world.variant->keys);
	op->durability = kit_below(&world.rng, 5) < 3 && world.waves >= world.ask_at
				 ? CAIRN_DURABLE
				 : CAIRN_WRITTEN;
	return kit_below(&world.rng, 5) ? dump_draw(op) : remove_draw(op);
}

static void hold_none(void)
{
	if (world.hold)
		CHECK(cairn_hold_release(world.store, world.hold) == 0);
	world.hold = 0;
}

/* A hold on some blocks, for a few waves: they are carried where others are evicted. */
static void hold_some(void)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 60000000000ull};
	struct cairn_key keys[4];
	uint32_t space = (uint32_t)kit_below(&world.rng, SPACES);
	int64_t found;

	hold_none();
	for (uint32_t i = 0; i < 4; i++)
		keys[i] = kit_key(key_id(space, (uint32_t)kit_below(&world.rng, KEYS)));
	found = cairn_lookup_prefix(world.ns[space], keys, 4, NULL, &opts, &world.hold);
	CHECK(found >= 0 && (found > 0) == (world.hold != 0));
}

/*
 * What is to last, and may be gone with a power cut, is not written anew beneath its holder: it
 * waits for him.
 */
static void op_wait(const struct op *op)
{
	int ret = cairn_task_wait(world.store, op->task, 0, HOLD_MS * 1000000u);

	if (ret == -ETIMEDOUT) {
		hold_none();
		ret = cairn_task_wait(world.store, op->task, 0, UINT64_MAX);
	}
	CHECK(ret == 0);
}

static void load_some(void)
{
	uint32_t space = (uint32_t)kit_below(&world.rng, SPACES);
	uint32_t key = (uint32_t)kit_below(&world.rng, world.variant->keys);
	const struct promise *promise = &world.promises[space][key];
	uint8_t version = load(world.ns[space], space, key, promise->may);

	CHECK(version == NONE || version == world.blocks[space][key].version,
	      "%s/%u: version %u is loaded, and %u is the last", models[space], key, version,
	      world.blocks[space][key].version);
	CHECK(version != NONE || promise->must == NONE || !world.variant->roomy, "%s/%u is gone",
	      models[space], key);
}

/* Blocks that nobody asks for again, so that regions are reclaimed in which others are in use. */
static void dump_others(void)
{
	for (uint32_t i = 0; i < 6; i++) {
		uint32_t space = (uint32_t)kit_below(&world.rng, SPACES);

		CHECK(kit_dump(world.ns[space], shapes[space], NEW_ID + world.others++, 0,
			       shapes[space].shards, CAIRN_WRITTEN) >= 0);
		load_some();
	}
}

static void wave(void)
{
	uint32_t count = 1 + (uint32_t)kit_below(&world.rng, WAVE), sent = 0;

	world.waves++;
	if (world.variant->carries)
		dump_others();
	for (uint32_t i = 0; i < count; i++)
		sent += op_send(&ops[sent]);
	for (uint32_t i = 0; i < sent; i++)
		op_wait(&ops[i]);
	for (uint32_t i = 0; i < sent; i++)
		ops[i].dump ? dump_over(&ops[i]) : remove_over(&ops[i]);
	load_some();
	if (kit_below(&world.rng, 25) == 0)
		clear((uint32_t)kit_below(&world.rng, SPACES), kit_below(&world.rng, 2));
	if (kit_below(&world.rng, 8) == 0)
		hold_some();
}

/* ---- images --------------------------------------------------------------------------------- */

static void write_file(const char *path, const uint8_t *bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	size_t at = 0;

	CHECK(fd >= 0, "%s: %d", path, errno);
	while (at < world.variant->bytes) {
		ssize_t some = write(fd, bytes + at, world.variant->bytes - at);

		CHECK(some > 0);
		at += (size_t)some;
	}
	close(fd);
}

static void open_store(const struct sys *sys, const char *path, uint32_t workers,
		       struct cairn_store **ret_store, struct cairn_namespace *ret_ns[SPACES])
{
	struct cairn_error error = {0};
	char spec[512];
	int ret;

	snprintf(spec, sizeof(spec),
		 "store(engine=psync, reactors=1, workers=%u, tasks=16, ios=32, buffers=4MiB) | "
		 "flash(path=%s, size=%zu, direct=no, %s)",
		 workers, path, world.variant->bytes, world.variant->options);
	ret = store_open(sys, spec, NULL, ret_store, &error);
	CHECK(ret == 0, "open: %s", error.text);
	for (uint32_t i = 0; i < SPACES; i++)
		CHECK(kit_namespace(*ret_store, models[i], shapes[i], &ret_ns[i]) == 0);
}

static int no_flush(int fd)
{
	(void)fd;
	return 0;
}

/* The real calls, but for flushes, which are for a disk that nobody cuts again. */
static const struct sys *image_sys(void)
{
	static struct sys table;

	table = sys_native;
	table.fsync = table.fdatasync = no_flush;
	table.engine = device_engine;
	return &table;
}

/* A store that opens takes dumps, however full a cut has left it: several regions of them. */
static void image_takes(struct cairn_namespace *ns)
{
	struct kit_shape shape = shapes[LARGE];

	for (uint64_t i = 0; i < 8; i++) {
		uint64_t id = 2 * NEW_ID + i;

		CHECK(kit_dump(ns, shape, id, 0, shape.shards, CAIRN_WRITTEN) >= 0);
		CHECK(kit_load(ns, shape, id) == 0, "block %lu after the cut", (unsigned long)i);
	}
}

/* What is left of the promises in an image. */
static void image_verify(void)
{
	struct cairn_store *store;
	struct cairn_namespace *ns[SPACES];
	char spec[256];
	bool live = world.unsure, torn;

	write_file(world.image_path, world.kept);
	world.unsure = !world.asked_kept;
	open_store(image_sys(), world.image_path, 1, &store, ns);
	for (uint32_t space = 0; space < SPACES; space++) {
		for (uint32_t key = 0; key < world.variant->keys; key++) {
			const struct promise *promise = &world.kept_promises[space][key];
			uint8_t version = load(ns[space], space, key, promise->may);

			CHECK(version != NONE || !world.hard[space][key],
			      "%s/%u, version %u, is lost", models[space], key, promise->must);
			world.promised += promise->must != NONE;
			world.demanded += world.hard[space][key];
			world.survived += promise->must != NONE && version != NONE;
			world.extra += promise->must == NONE && version != NONE;
		}
	}
	CHECK(world.unsure || kit_counter(store, "flash", "damaged_blocks") == 0);
	CHECK(kit_counter(store, "flash", "regions_suspect") == 0);
	image_takes(ns[LARGE]);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	world.unsure = live;
	if (world.cuts % 16)
		return;
	snprintf(spec, sizeof(spec), "flash(path=%s)", world.image_path);
	/* Without a flush there may be tables of records that never came, and nobody missed. */
	torn = world.variant->carries && !world.asked_kept;
	CHECK(kit_check(spec) <= (torn ? CAIRN_FINDING_REPAIRABLE : CAIRN_FINDING_NOTE));
}

/*
 * Has to be there: what was promised, if nothing was evicted, or if the live
 * store still has it: then it was there at the cut, too, unless it is dumped anew.
 */
static void demand(bool live)
{
	uint64_t evicted =
		live ? kit_counter(world.store, "flash", "evicted_blocks") : world.evicted;

	for (uint32_t space = 0; space < SPACES; space++) {
		for (uint32_t key = 0; key < KEYS; key++) {
			const struct promise *then = &world.at_cut[space][key];
			bool there = live && kit_present(world.ns[space], key_id(space, key));

			there = there && then->dumps == world.promises[space][key].dumps &&
				then->dumps % 2 == 0;
			world.hard[space][key] = then->must != NONE && (!evicted || there);
		}
	}
}

static void cut_take(bool live)
{
	const uint8_t *image = device_cut();

	if (!image)
		return;
	demand(live);
	memcpy(world.kept, image, world.variant->bytes);
	memcpy(world.kept_promises, world.at_cut, sizeof(world.kept_promises));
	world.asked_kept = world.asked_at_cut;
	world.have_kept = true;
	device_cut_done();
	trace("cut %lu, %s\n", (unsigned long)world.cuts, live ? "live" : "at close");
	world.cuts++;
	image_verify();
}

static const char *keep_image(void)
{
	static char text[256];
	char path[160];

	if (!world.have_kept)
		return "";
	snprintf(path, sizeof(path), "%s/cut", world.folder);
	write_file(path, world.kept);
	snprintf(text, sizeof(text), "the last image is %s", path);
	return text;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

/*
 * What is there after an open is there to stay, once anything was to be durable; what is not does
 * not come.
 */
static void resolve(void)
{
	for (uint32_t space = 0; space < SPACES; space++) {
		for (uint32_t key = 0; key < KEYS; key++) {
			struct promise *promise = &world.promises[space][key];
			struct block *block = &world.blocks[space][key];
			uint8_t version = load(world.ns[space], space, key, promise->may);

			CHECK(version != NONE || !world.hard[space][key], "%s/%u is lost",
			      models[space], key);
			pthread_mutex_lock(&lock);
			*block = (struct block){.version = version};
			if (version == NONE)
				block->version = promise->may ? promise->top + 1 : promise->top;
			promise->dumps = 0;
			if (world.asked) {
				promise->must = version;
				promise->may = version == NONE ? 0 : 1ull << version;
			}
			pthread_mutex_unlock(&lock);
			if (version != NONE && world.asked)
				block->durable = (1ull << shapes[space].shards) - 1;
		}
	}
}

static void session(uint64_t seed, uint64_t cuts)
{
	uint64_t until = world.cuts + cuts;

	device_begin(world.path, world.variant->bytes, seed, remember_promises);
	device_cut_in(1 + kit_below(&world.rng, kit_below(&world.rng, 2) ? 300 : 16));
	world.evicted = 0;
	world.ask_at = world.variant->late ? world.waves + kit_below(&world.rng, 300) : 0;
	world.unsure = world.have_kept && !world.asked;
	met.phase = PHASE_OPEN;
	open_store(device_sys(), world.path, 1 + (uint32_t)kit_below(&world.rng, 2), &world.store,
		   world.ns);
	met.phase = PHASE_WORK;
	resolve();
	for (uint32_t i = 0; i < world.variant->waves && world.cuts < until; i++) {
		kit_watch(60);
		wave();
		cut_take(true);
		device_cut_in(1 + kit_below(&world.rng, 60));
	}
	hold_none();
	world.evicted = kit_counter(world.store, "flash", "evicted_blocks");
	world.reclaimed += kit_counter(world.store, "flash", "reclaimed_regions");
	world.carried += kit_counter(world.store, "flash", "carried_bytes");
	device_cut_in(1 + kit_below(&world.rng, kit_below(&world.rng, 2) ? 120 : 12));
	met.phase = PHASE_CLOSE;
	CHECK(cairn_store_close(world.store, UINT64_MAX) == 0);
	cut_take(false);
	device_end();
}

/* The model as it was at the last cut; what may have been evicted is not promised any more. */
static void go_on(void)
{
	memcpy(world.promises, world.kept_promises, sizeof(world.promises));
	world.asked = world.asked_kept;
	for (uint32_t i = 0; i < SPACES * KEYS; i++)
		if (!world.hard[i / KEYS][i % KEYS])
			world.promises[i / KEYS][i % KEYS].must = NONE;
}

/* Sessions, each but the first on an image of the one before. */
static void chain(const struct variant *variant, uint64_t seed, uint64_t cuts)
{
	uint64_t sessions = 1 + seed % 4;

	world.variant = variant;
	world.rng.state = seed;
	world.have_kept = false;
	memset(world.blocks, 0, sizeof(world.blocks));
	memset(world.hard, 0, sizeof(world.hard));
	world.asked = false;
	for (uint32_t i = 0; i < SPACES * KEYS; i++)
		world.promises[i / KEYS][i % KEYS] = (struct promise){.must = NONE};
	unlink(world.path);
	unlink(world.image_path);
	for (uint64_t i = 0; i < sessions; i++) {
		kit_at("%s, seed %lu, session %lu, wave %lu: --seed=%lu --variant=%s",
		       variant->name, (unsigned long)seed, (unsigned long)i,
		       (unsigned long)world.waves, (unsigned long)seed, variant->name);
		session(seed + i, cuts / sessions);
		if (!world.have_kept)
			break;
		go_on();
		write_file(world.path, world.kept);
	}
}

static void cuts_tell(uint64_t wanted)
{
	printf("powercut: %lu at an open, %lu at work, %lu at a close; they met",
	       (unsigned long)met.phases[PHASE_OPEN], (unsigned long)met.phases[PHASE_WORK],
	       (unsigned long)met.phases[PHASE_CLOSE]);
	for (uint32_t i = 0; i < CUT_KINDS; i++)
		printf("%s %s %lu", i ? "," : "", kinds[i], (unsigned long)met.kinds[i]);
	printf("\n");
	for (uint32_t i = 0; wanted >= 500 && i < CUT_KINDS; i++)
		CHECK(met.kinds[i], "no cut met %s", kinds[i]);
	for (uint32_t i = 0; wanted >= 500 && i < PHASES; i++)
		CHECK(met.phases[i]);
}

int main(int argc, char **argv)
{
	uint64_t seed, wanted, each, figures[3];
	const char *name;

	kit_init(argc, argv);
	kit_also(keep_image);
	seed = kit_number("seed", 1, 1000);
	each = kit_number("each", 24, 24);
	wanted = kit_number("cuts", kit_sanitized() ? 100 : 600, 10500);
	name = kit_text("variant", NULL);
	kit_folder(world.folder, sizeof(world.folder), "powercut");
	snprintf(world.path, sizeof(world.path), "%s/store", world.folder);
	snprintf(world.image_path, sizeof(world.image_path), "%s/image", world.folder);
	world.kept = malloc(16u << 20);
	CHECK(world.kept);
	for (; world.cuts < wanted; seed++)
		for (size_t i = 0; i < VARIANTS; i++)
			if (!name || strcmp(name, variants[i].name) == 0)
				chain(&variants[i], seed, each);
	device_figures(figures);
	printf("powercut: %lu cuts in %lu waves, %lu regions reclaimed, %lu KiB carried; of %lu "
	       "writes not flushed %lu were torn, %lu dropped\n",
	       (unsigned long)world.cuts, (unsigned long)world.waves,
	       (unsigned long)world.reclaimed, (unsigned long)(world.carried >> 10),
	       (unsigned long)figures[0], (unsigned long)figures[1], (unsigned long)figures[2]);
	printf("powercut: %lu blocks promised, %lu demanded, %lu survived; %lu more were there\n",
	       (unsigned long)world.promised, (unsigned long)world.demanded,
	       (unsigned long)world.survived, (unsigned long)world.extra);
	cuts_tell(wanted);
	kit_remove_folder(world.folder);
	free(world.kept);
	return 0;
}
