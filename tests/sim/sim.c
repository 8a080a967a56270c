/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulation of the flash stage: reactors, device and clock in one thread
 * (host.h), what is done and in which order drawn from a seed, and every answer
 * compared with a model (model.h). The seed also draws the configuration. A run is a
 * chain of sessions: the store is opened, worked with, and closed, or the power goes.
 *
 *	--seed=N --steps=N	one run, of N operations
 *	--seeds=N		runs of this seed and the N - 1 next ones
 *	--ops=N			operations in all, as many seeds as it takes
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "model.h"
#include "sim.h"
#include "stages/flash/flash.h"
#include "stages/flash/tier.h"
#include "stages/flash/tier_check.h"

#define HOLDS_MAX     24u
#define KEYS_AT_ONCE  8u
#define LONG_SEED     4u	/* many dumps into a small log, and a device that does not fail */
#define STUCK_STEPS   20000000u /* without the end of an io: nobody makes any progress */
#define DUMPS_ALONE   4u
#define REGIONS_LEAST 8u     /* fewer may all be open, free or the next to be written */
#define LOST_STEPS    20000u /* with operations that are never answered: then the power goes */

struct hold {
	uint32_t space, key;
	uint32_t removes; /* of the block, when it began */
	uint32_t held;	  /* ... */
	uint64_t token;
};

static struct {
	struct config config;
	struct kit_rng rng;
	uint64_t seed, steps, begun; /* the run: its seed, its operations, and those before it */
	uint64_t ops, until_check;
	struct cairn_ns_view views[MODEL_SPACES];
	char descs[MODEL_SPACES][32];
	struct hold holds[HOLDS_MAX];
	uint32_t hold_count;
	bool open, working; /* working: blocks were looked at after the open */
	uint64_t last_end;  /* the step */
	uint32_t lost_for;  /* steps */
	uint32_t clear_space, clear_durability;
	int clear_result;
	bool clearing, clear_late; /* late: it was told that the device does not answer */
	bool there[MODEL_SPACES][MODEL_KEYS_MAX]; /* as the close began */
	struct sim_figures figures;
} world;

static const struct cairn_stage_ops *const ops = &cairn_stage_flash;

static uint64_t below(uint64_t limit)
{
	return kit_below(&world.rng, limit);
}

static bool one_in(uint64_t times)
{
	return times && below(times) == 0;
}

/* ---- ios ---------------------------------------------------------------------------- */

/* One segment or two. */
static void part_memory(struct sim_io *sio, uint32_t number, uint8_t *bytes, uint64_t length)
{
	struct iovec *iov = &sio->iovs[2 * number];
	size_t first = length > 1 && one_in(4) ? 1 + below(length - 1) : length;

	iov[0] = (struct iovec){bytes, first};
	iov[1] = (struct iovec){bytes + first, length - first};
	sio->parts[number].iov = iov;
	sio->parts[number].iov_count = first < length ? 2 : 1;
	sio->parts[number].length = length;
	sio->parts[number].status = CAIRN_PENDING;
	sio->parts[number].stage = UINT16_MAX;
}

static struct sim_io *io_new(enum cairn_op op, uint32_t space, uint32_t key)
{
	struct sim_io *sio = sim_io_new(&world.views[space], op);

	CHECK(sio);
	sio->space = space;
	sio->key = key;
	sio->io.key = model_key(space, key);
	if (one_in(world.config.deadlines))
		sio->io.deadline_ns = sim_now_ns() + below(20000000);
	return sio;
}

static void io_send(struct sim_io *sio)
{
	model_sent(sio);
	sim_io_send(sio);
}

static void attr_draw(struct sim_io *sio)
{
	struct cairn_block_attr *attr = &sio->io.attr;

	attr->size = sizeof(*attr);
	attr->ttl_ns = model_ttl_ns(sio->space, sio->key);
	attr->depth = sio->key % world.config.chain;
	if (attr->depth && !one_in(4)) {
		attr->parent = model_key(sio->space, sio->key - 1);
		sio->io.flags |= CAIRN_IO_CHAIN;
	}
}

static void dump_send(uint32_t space, uint32_t key)
{
	struct sim_io *sio = io_new(CAIRN_OP_DUMP, space, key);
	uint32_t version = model_cell(space, key)->version;
	struct shape shape = model_shape(space, key, version);
	uint32_t first = one_in(2) ? (uint32_t)below(shape.shards) : 0;
	uint32_t count = first ? 1 + (uint32_t)below(shape.shards - first) : shape.shards;
	uint8_t *bytes = sio->data;

	sio->io.shard_count = shape.shards;
	sio->io.shard_bytes = shape.bytes;
	sio->io.durability = one_in(world.config.durable) ? CAIRN_DURABLE : CAIRN_WRITTEN;
	sio->io.part_count = count;
	attr_draw(sio);
	for (uint32_t i = 0; i < count; i++) {
		struct cairn_part *part = &sio->parts[i];
		uint32_t stored = model_stored(space, key, version, first + i);

		CHECK(bytes + stored <= sio->data + SIM_DATA);
		model_fill(space, key, version, first + i, bytes, stored);
		part_memory(sio, i, bytes, stored);
		part->shard = first + i;
		part->raw_length = first + i + 1 == shape.shards ? shape.last : shape.bytes;
		part->stored_length = stored;
		part->meta_length = model_meta(space, key, version, first + i, part->meta);
		if (one_in(8)) {
			part->crc = sio->crcs[i];
			part->crc_count = (stored + CAIRN_PIECE - 1) / CAIRN_PIECE;
			crc32c_pieces(part->iov, part->iov_count, 0, stored, CAIRN_PIECE,
				      part->crc);
		}
		bytes += stored;
	}
	io_send(sio);
}

static void load_send(uint32_t space, uint32_t key)
{
	struct sim_io *sio = io_new(CAIRN_OP_LOAD, space, key);
	uint32_t version = model_cell(space, key)->version;
	struct shape shape = model_shape(space, key, version);
	uint32_t first = one_in(3) ? (uint32_t)below(shape.shards) : 0;
	uint32_t count = first ? 1 + (uint32_t)below(shape.shards - first) : shape.shards;
	bool pieces = one_in(3);
	uint8_t *bytes = sio->data;

	sio->io.part_count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t stored = model_stored(space, key, version, first + i);
		uint64_t offset = pieces ? below(stored) : 0;

		part_memory(sio, i, bytes, pieces ? 1 + below(stored - offset) : stored);
		sio->parts[i].shard = first + i;
		sio->parts[i].offset = offset;
		sio->parts[i].raw_length = first + i + 1 == shape.shards ? shape.last : shape.bytes;
		bytes += stored;
	}
	if (one_in(10)) {
		sio->io.flags |= CAIRN_IO_PARTIAL;
		sio->io.shard_count = shape.shards;
		sio->io.shard_bytes = shape.bytes;
	}
	io_send(sio);
}

static void describe_send(uint32_t space, uint32_t key, bool verify)
{
	struct sim_io *sio = io_new(CAIRN_OP_DESCRIBE, space, key);
	struct cairn_key name = model_key(space, key);
	struct cairn_shards shards;

	if (ops->shards(sim_tier, &world.views[space], &name, &shards) < 0)
		shards.shard_count = 1; /* it may be there by then */
	sio->verify = verify;
	sio->io.part_count = shards.shard_count < SIM_PARTS ? shards.shard_count : SIM_PARTS;
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		sio->parts[i].shard = i;
		sio->parts[i].status = CAIRN_PENDING;
	}
	sio->io.deadline_ns = verify ? UINT64_MAX : sio->io.deadline_ns;
	io_send(sio);
}

/* What was described is loaded, all of it: the blocks that are there after an open. */
static void verify_send(const struct sim_io *described)
{
	struct sim_io *sio = io_new(CAIRN_OP_LOAD, described->space, described->key);
	uint8_t *bytes = sio->data;

	sio->verify = true;
	sio->io.deadline_ns = UINT64_MAX;
	sio->io.part_count = described->io.part_count;
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		uint64_t length = described->parts[i].stored_length;

		part_memory(sio, i, bytes, described->parts[i].status ? 1 : length);
		sio->parts[i].shard = i;
		bytes += length;
	}
	io_send(sio);
}

/* ---- lookups and holds ---------------------------------------------------------------- */

static bool present(uint32_t space, uint32_t key)
{
	struct cairn_key name = model_key(space, key);
	struct cairn_probe probe;

	ops->lookup(sim_tier, &world.views[space], &name, 1, 0, &probe);
	return probe.present;
}

static void unhold(uint32_t at)
{
	struct hold hold = world.holds[at];
	struct cell *cell = model_cell(hold.space, hold.key);
	struct cairn_key name = model_key(hold.space, hold.key);

	ops->unhold(sim_tier, &world.views[hold.space], &name, hold.token);
	if (cell->removes == hold.removes && cell->held == hold.held)
		cell->holds--;
	world.holds[at] = world.holds[--world.hold_count];
}

static void look(uint32_t space, uint32_t key, uint32_t count, uint32_t flags)
{
	struct cairn_key names[KEYS_AT_ONCE] = {0};
	struct cairn_probe probes[KEYS_AT_ONCE];
	bool chain = flags & CAIRN_PROBE_CHAIN;

	for (uint32_t i = 0; i < count; i++)
		names[i] = model_key(space, key + i);
	ops->lookup(sim_tier, &world.views[space], names, count, flags, probes);
	for (uint32_t i = 0; i < count; i++) {
		struct cell *cell = model_cell(space, key + i);

		model_looked(space, key + i, probes[i].present);
		if (!probes[i].present && chain)
			break;
		if (!probes[i].hold)
			continue;
		if (!cell->leaving && cell->holds++ == 0)
			cell->held++;
		world.holds[world.hold_count++] = (struct hold){
			.space = space,
			.key = key + i,
			.removes = cell->leaving ? UINT32_MAX : cell->removes,
			.held = cell->held,
			.token = probes[i].hold,
		};
	}
}

static void lookup(uint32_t space, uint32_t key)
{
	uint32_t count = 1 + (uint32_t)below(KEYS_AT_ONCE), flags = 0;

	if (one_in(2))
		flags |= CAIRN_PROBE_CHAIN;
	if (count > world.config.model.keys - key)
		count = world.config.model.keys - key;
	if (one_in(4) && world.hold_count + count <= world.config.holds)
		flags |= CAIRN_PROBE_HOLD;
	look(space, key, count, flags);
}

static void simple_send(enum cairn_op op, uint32_t space, uint32_t key)
{
	struct sim_io *sio = io_new(op, space, key);

	if (op == CAIRN_OP_REMOVE && one_in(world.config.durable))
		sio->io.durability = CAIRN_DURABLE;
	/* Of what is refused the block stays: it is held now, and looked at then. */
	if (sio->io.durability == CAIRN_DURABLE && world.config.model.undurable)
		look(space, key, 1, world.hold_count < world.config.holds ? CAIRN_PROBE_HOLD : 0);
	io_send(sio);
}

static void io_done(struct sim_io *sio)
{
	world.figures.waited_ns = sim_now_ns() - sio->sent_ns > world.figures.waited_ns
					  ? sim_now_ns() - sio->sent_ns
					  : world.figures.waited_ns;
	sim_figures(&world.last_end, NULL);
	if (sio->verify && model_fenced(sio) && sio->parts[0].status)
		return; /* it is looked at once more */
	if (sio->verify && sio->io.op == CAIRN_OP_DESCRIBE) {
		verify_send(sio);
		return;
	}
	world.ops++;
	model_done(sio);
	if (sio->io.status == -EOPNOTSUPP)
		look(sio->space, sio->key, 1, 0);
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		world.figures.loaded += sio->io.op == CAIRN_OP_LOAD && sio->parts[i].status == 0;
		world.figures.dumped += sio->io.op == CAIRN_OP_DUMP && sio->parts[i].status == 0;
		world.figures.refused +=
			sio->io.op == CAIRN_OP_DUMP && sio->parts[i].status == -ENOSPC;
	}
}

/* ---- the caller's thread ------------------------------------------------------------------ */

static void clear_run(void *what)
{
	(void)what;
	world.clear_result =
		ops->clear(sim_tier, &world.views[world.clear_space], world.clear_durability);
}

static void clear_send(uint32_t space)
{
	world.clear_space = space;
	world.clear_durability = one_in(2) ? CAIRN_DURABLE : CAIRN_WRITTEN;
	model_clear_begin(space, world.clear_durability == CAIRN_DURABLE);
	world.clearing = true;
	world.clear_late = false;
	world.figures.clears++;
	sim_call(clear_run, NULL);
}

static void bind_run(void *what)
{
	(void)what;
	for (uint32_t i = 0; i < MODEL_SPACES; i++) {
		struct cairn_error error = {0};
		int rc = ops->bind(sim_tier, &world.views[i], &world.views[i].binding[0], &error);

		CHECK(rc == 0, "%s", error.text);
	}
}

/* ---- one operation --------------------------------------------------------------------------- */

static uint32_t key_draw(void)
{
	uint32_t keys = world.config.model.keys;

	/* Some blocks are asked for more than others. */
	return (uint32_t)(one_in(2) ? below(keys) : below(1 + below(keys)));
}

static void op_send(void)
{
	const struct config *config = &world.config;
	uint32_t space = (uint32_t)below(MODEL_SPACES), key = key_draw();
	uint64_t dice = below(1000);

	if (dice < config->dump) {
		dump_send(space, key);
	} else if ((dice -= config->dump) < config->remove) {
		simple_send(CAIRN_OP_REMOVE, space, key);
	} else if (dice < config->remove + 30) {
		describe_send(space, key, false);
	} else if (dice < config->remove + 40) {
		simple_send(CAIRN_OP_PREFETCH, space, key);
	} else if (dice < config->remove + 140) {
		lookup(space, key);
		world.ops++;
	} else if (dice < config->remove + 180 && world.hold_count) {
		unhold((uint32_t)below(world.hold_count));
		world.ops++;
	} else if (one_in(config->clear) && !sim_caller_busy() && !world.clearing) {
		clear_send(space);
		world.ops++;
	} else {
		load_send(space, key);
	}
}

/* ---- steps ------------------------------------------------------------ */

static const char *where(void)
{
	static char text[600];

	snprintf(text, sizeof(text), "operation %lu of --seed=%lu --seeds=1 --steps=%lu, %s",
		 (unsigned long)(world.ops - world.begun), (unsigned long)world.seed,
		 (unsigned long)world.steps, world.config.text);
	return text;
}

static void check_tier(bool idle)
{
	char why[256] = "";

	CHECK(flash_tier_check(sim_tier, idle, why, sizeof(why)), "%s", why);
}

/* What was told may not be all: while the change is under way nobody knows what comes of it. */
static void clear_over(void)
{
	if (sim_tier->space_busy) {
		world.clear_late = true;
		return;
	}
	world.clearing = false;
	model_clear_end(world.clear_space, world.clear_result,
			world.clear_durability == CAIRN_DURABLE, world.clear_late);
}

/* One event, or the store hangs; false: a cut is due. */
static bool step(void)
{
	bool busy = sim_ios() || sim_jobs() || sim_caller_busy();
	uint64_t steps;

	if (sim_cut_due() || (sim_lost() && ++world.lost_for == LOST_STEPS))
		return false;
	if (!sim_step() && busy && !sim_lost()) {
		CHECK(world.hold_count, "%u ios and %u jobs wait for ever", sim_ios(), sim_jobs());
		unhold(world.hold_count - 1); /* what is to be written anew waits for that */
	}
	sim_figures(&steps, NULL);
	CHECK(steps - world.last_end < STUCK_STEPS || !busy, "nothing ends");
	if (world.clearing && !sim_caller_busy())
		clear_over();
	if (world.working && world.until_check-- == 0) {
		check_tier(false);
		world.until_check = world.config.check_every;
	}
	return true;
}

static bool quiet(void)
{
	while (sim_ios() || sim_jobs() || sim_caller_busy())
		if (!step())
			return false;
	return true;
}

/* ---- memory ------------------------------------------------------------ */

static uint64_t resident_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	CHECK(file && fscanf(file, "%*u %lu", &pages) == 1);
	fclose(file);
	return pages;
}

/* At the end of a session: the most in the first tenth of a run, and after that. */
static void resident_note(void)
{
	uint64_t pages = resident_pages(), *most = &world.figures.resident_first;

	if ((world.ops - world.begun) * 10 > world.steps)
		most = &world.figures.resident_rest;
	if (pages > *most)
		*most = pages;
}

/* ---- sessions ------------------------------------------------------------ */

static void each_cell(void (*fn)(uint32_t space, uint32_t key))
{
	for (uint32_t space = 0; space < MODEL_SPACES; space++)
		for (uint32_t key = 0; key < world.config.model.keys; key++)
			fn(space, key);
}

/* Behind the fence, if there is one. */
static bool there(uint32_t space, uint32_t key)
{
	bool fenced = sim_tier->fenced, answer;

	sim_tier->fenced = false;
	answer = present(space, key);
	sim_tier->fenced = fenced;
	return answer;
}

static void cell_cut(uint32_t space, uint32_t key)
{
	model_cut(space, key, world.working && there(space, key));
}

static void cell_close(uint32_t space, uint32_t key)
{
	world.there[space][key] = there(space, key);
	model_cut(space, key, world.there[space][key]);
}

static void cell_closed(uint32_t space, uint32_t key)
{
	model_closed(space, key, world.there[space][key]);
}

static void cell_opened(uint32_t space, uint32_t key)
{
	model_opened(space, key, present(space, key));
}

/* What the session's store has counted. */
static void count(void)
{
	struct sim_figures *f = &world.figures;
	uint64_t bytes = sim_counter("written_bytes") + sim_counter("carried_bytes");

	f->reclaimed += sim_counter("reclaimed_regions");
	f->fences += sim_counter("fences");
	f->passed_by += sim_counter("passed_by");
	f->wraps_of_run += (double)bytes / (double)world.config.bytes;
	if (f->wraps_of_run > f->wraps_most)
		f->wraps_most = f->wraps_of_run;
	f->wraps += (double)bytes / (double)world.config.bytes;
}

/* The power goes. A close has told already what has to be there. */
static void power_cut(bool closing)
{
	if (!closing)
		each_cell(cell_cut);
	count();
	world.figures.cuts++;
	world.figures.lost += sim_lost();
	world.figures.cuts_open += !world.open;
	world.figures.cuts_close += closing;
	sim_cut(world.figures.areas);
	world.open = world.working = world.clearing = false;
	world.hold_count = 0;
	sim_cut_in(0);
}

/* The tier is itself again. False: the power went. */
static bool unfenced(void)
{
	uint64_t until_ns = sim_now_ns() + 8 * world.config.host.hang_ns + 4000000000u;

	while (sim_fences() % 2) {
		CHECK(sim_now_ns() < until_ns, "it stays fenced");
		if (!step())
			return false;
	}
	return true;
}

/* What is there after an open, and was not looked at yet, is asked for. False: the power went. */
static bool verify(bool *ret_any)
{
	*ret_any = false;
	for (uint32_t space = 0; space < MODEL_SPACES; space++)
		for (uint32_t key = 0; key < world.config.model.keys; key++) {
			if (!model_cell(space, key)->unresolved)
				continue;
			while (sim_ios() >= world.config.depth)
				if (!step())
					return false;
			describe_send(space, key, true);
			*ret_any = true;
		}
	return true;
}

/* False: the power went. */
static bool session_open(void)
{
	struct disk_faults none = {0};
	bool any;

	/* What cannot be read at an open is lost for good, so all can be. */
	disk_set_faults(&none);
	sim_open(world.config.options);
	while (sim_caller_busy())
		if (!step())
			return false;
	CHECK(sim_open_result() == 0);
	sim_call(bind_run, NULL);
	while (sim_caller_busy())
		if (!step())
			return false;
	world.open = true;
	check_tier(true);
	each_cell(cell_opened);
	do {
		if (!unfenced() || !verify(&any) || !quiet())
			return false;
	} while (any);
	world.working = true;
	return true;
}

/* Long enough for a fence, mostly. */
static void hang(void)
{
	enum sim_hang which = (enum sim_hang)below(HANG_BEGUN + 1);
	uint64_t ns = world.config.host.hang_ns / 2 + below(4 * world.config.host.hang_ns);

	if (which == HANG_BEGUN && one_in(4))
		ns = UINT64_MAX;
	sim_hang(which, ns, world.config.hang_fails);
}

/* Whatever has happened, while nothing is held and the disk works. False: the power went. */
static bool takes_dumps(void)
{
	uint64_t refused = world.figures.refused;
	struct disk_faults none = {0};
	uint32_t left = 0;

	disk_set_faults(&none);
	while (sim_tier->refuses || sim_tier->doubts)
		if (!step())
			return false;
	for (uint32_t i = 0; i < sim_tier->layout.region_count; i++)
		left += sim_tier->regions[i].state != REGION_RETIRED;
	for (uint32_t i = 0; quiet() && i < DUMPS_ALONE && left >= REGIONS_LEAST; i++)
		dump_send((uint32_t)below(MODEL_SPACES), key_draw());
	CHECK(world.figures.refused == refused || !world.config.shed_ns, "a dump is declined");
	return quiet();
}

static bool session_work(uint64_t until)
{
	if (!takes_dumps())
		return false;
	disk_set_faults(&world.config.faults);
	world.lost_for = 0;
	while (world.ops < until) {
		if (sim_ios() < world.config.depth && below(100) < world.config.eager)
			op_send();
		if (!step())
			return false;
		if (one_in(world.config.rot))
			disk_rot(0, world.config.bytes);
		if (world.config.hangs && !sim_hangs() && one_in(world.config.hangs))
			hang();
	}
	if (!quiet() || (!one_in(3) && !unfenced()) || !quiet()) /* the watch may be awake */
		return false;
	while (world.hold_count)
		unhold(world.hold_count - 1);
	check_tier(true);
	resident_note();
	return takes_dumps();
}

static void session_close(void)
{
	uint64_t failures = disk_failures();
	bool fenced = sim_fences() % 2;

	each_cell(cell_close);
	world.working = false;
	sim_close();
	while (sim_caller_busy()) {
		if (step())
			continue;
		power_cut(true);
		return;
	}
	CHECK(!sim_allocations(), "%lu allocations are lost", (unsigned long)sim_allocations());
	world.open = false;
	count();
	world.figures.closes++;
	world.figures.closes_fenced += fenced;
	if (disk_failures() == failures && !fenced) /* else it is as after a cut */
		each_cell(cell_closed);
	sim_cut(world.figures.areas); /* the power goes right after */
	world.hold_count = 0;
	sim_cut_in(0);
}

static void run(uint64_t seed, uint64_t steps)
{
	world.seed = seed;
	world.steps = steps;
	world.begun = world.ops;
	world.rng.state = seed * 1000003;
	config_draw(&world.config, &world.rng);
	model_init(&world.config.model);
	for (uint32_t i = 0; i < MODEL_SPACES; i++) {
		snprintf(world.descs[i], sizeof(world.descs[i]), "namespace %u", i);
		world.views[i] = (struct cairn_ns_view){
			.desc = world.descs[i],
			.desc_length = strlen(world.descs[i]),
			.shard_count = world.config.model.variable[i]
					       ? 0
					       : world.config.model.shapes[i].shards,
			.shard_bytes = world.config.model.variable[i]
					       ? 0
					       : world.config.model.shapes[i].bytes,
		};
	}
	if (kit_number("verbose", 0, 0))
		fprintf(stderr, "seed %lu: %s\n", (unsigned long)seed, world.config.text);
	world.figures.wraps_of_run = 0;
	world.figures.resident_first = world.figures.resident_rest = 0;
	sim_init(&world.config.host, world.config.bytes, &world.rng, area_of, io_done);
	while (world.ops - world.begun < steps) {
		uint64_t some = 1 + below(world.config.session);
		uint64_t left = steps - (world.ops - world.begun);

		if (one_in(2))
			sim_cut_in(1 + below(one_in(2) ? 60 : world.config.session));
		if (session_open() && session_work(world.ops + (some < left ? some : left)))
			session_close();
		else
			power_cut(false);
	}
	sim_fini();
}

/* ---- many runs ------------------------------------------------------------ */

static void tell(void)
{
	const struct sim_figures *f = &world.figures;
	uint64_t steps, disk_ops;

	sim_figures(&steps, &disk_ops);
	printf("sim: %lu operations in %lu steps, %lu of the disk; %lu shards dumped, %lu refused, "
	       "%lu loaded; %lu clears\n",
	       (unsigned long)world.ops, (unsigned long)steps, (unsigned long)disk_ops,
	       (unsigned long)f->dumped, (unsigned long)f->refused, (unsigned long)f->loaded,
	       (unsigned long)f->clears);
	printf("sim: %lu regions reclaimed; the log went round %.0f times, in one run %.0f; the "
	       "longest io took %lu ms\n",
	       (unsigned long)f->reclaimed, f->wraps, f->wraps_most,
	       (unsigned long)(f->waited_ns / 1000000));
	printf("sim: %lu closes, %lu cuts, of these %lu at an open, %lu at a close\n",
	       (unsigned long)f->closes, (unsigned long)f->cuts, (unsigned long)f->cuts_open,
	       (unsigned long)f->cuts_close);
	printf("sim: fenced %lu times, %lu dumps passed by; %lu closes with the fence up, %lu cuts "
	       "while operations were lost\n",
	       (unsigned long)f->fences, (unsigned long)f->passed_by,
	       (unsigned long)f->closes_fenced, (unsigned long)f->lost);
	printf("sim: cuts fell into: superblock %lu, namespaces %lu, marks %lu, headers %lu, fresh "
	       "records %lu, carried ones %lu, seals %lu, flushes %lu\n",
	       (unsigned long)f->areas[DISK_SUPER], (unsigned long)f->areas[DISK_SPACES],
	       (unsigned long)f->areas[DISK_MARKS], (unsigned long)f->areas[DISK_HEADER],
	       (unsigned long)f->areas[DISK_FRESH], (unsigned long)f->areas[DISK_CARRIED],
	       (unsigned long)f->areas[DISK_SEAL], (unsigned long)f->areas[DISK_FLUSH]);
}

/* A run in which memory must not grow. */
static void run_long(uint64_t seed, uint64_t steps)
{
	const struct sim_figures *f = &world.figures;

	run(seed, steps);
	printf("sim: %lu pages resident at a tenth, %lu at most after it\n",
	       (unsigned long)f->resident_first, (unsigned long)f->resident_rest);
	CHECK(f->resident_rest * 100 <= f->resident_first * 102, "memory grows");
	CHECK(f->wraps_of_run >= 50, "the log went round %.0f times", f->wraps_of_run);
}

int main(int argc, char **argv)
{
	uint64_t seed, seeds, steps, longer;

	kit_init(argc, argv);
	kit_also(where);
	if (kit_sanitized()) /* they know nothing of stacks that are left and entered again */
		return KIT_SKIP;
	seed = kit_number("seed", 1, 1000);
	seeds = kit_number("seeds", 30, 210);
	steps = kit_number("steps", 10000, 400000);
	longer = kit_number("long", 0, 20000000);
	for (uint64_t i = 0; i < seeds; i++) {
		kit_watch(600);
		run(seed + i, steps);
	}
	tell();
	for (uint32_t i = 0; seeds >= 30 && i < DISK_AREAS; i++)
		CHECK(world.figures.areas[i], "no cut fell into area %u", i);
	CHECK(seeds < 30 || (world.figures.fences && world.figures.passed_by));
	kit_watch(3600);
	if (longer)
		run_long(kit_number("long_seed", LONG_SEED, LONG_SEED), longer);
	return 0;
}
