/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reclaim costs others, in the simulated world, where no thread is late: nobody waits
 * for the mutex for longer than a few entries take, and no dump for room, as long as dumps do not
 * fill regions faster than the device answers some ten operations and copies 0.3 of a region.
 *
 *	--case=N	one case alone
 *	--depth=N	dumps under way, of all cases
 *	--tell=1	says how many waited, whatever they are
 */
#include <stdio.h>

#include "host.h"
#include "stages/flash/flash.h"
#include "stages/flash/tier.h"
#include "stages/flash/tier_check.h"

#define MIB	  (1u << 20)
#define WRAPS	  6u
#define LATENCY	  100000u /* ns, of each operation */
#define LOOKS_MAX 512u	  /* look-ups of the index, and regions, under one hold of the mutex */

static struct {
	struct kit_rng rng;
	struct cairn_ns_view view;
	uint8_t data[MIB];
	uint32_t failed;
	uint64_t unlocks;
	uint32_t looks, looks_most;
} world;

static const struct cairn_stage_ops *const ops = &cairn_stage_flash;

/* ---- what is done under one hold of the mutex ----------------------------------------- */

uint32_t __real_table_find(const struct table *table, uint64_t fingerprint);
uint32_t __wrap_table_find(const struct table *table, uint64_t fingerprint);
bool __real_policy_scan(const struct policy *policy, struct policy_scan *scan, uint32_t count);
bool __wrap_policy_scan(const struct policy *policy, struct policy_scan *scan, uint32_t count);
struct policy_victim __wrap_policy_choose(struct policy *policy, bool evict);

static void looked(uint32_t count)
{
	if (world.unlocks != fibers_unlocks())
		world.looks = 0;
	world.unlocks = fibers_unlocks();
	world.looks += count;
	if (world.looks > world.looks_most)
		world.looks_most = world.looks;
}

uint32_t __wrap_table_find(const struct table *table, uint64_t fingerprint)
{
	looked(1);
	return __real_table_find(table, fingerprint);
}

bool __wrap_policy_scan(const struct policy *policy, struct policy_scan *scan, uint32_t count)
{
	uint32_t from = scan->next;
	bool all = __real_policy_scan(policy, scan, count);

	looked(scan->next - from);
	return all;
}

struct policy_victim __wrap_policy_choose(struct policy *policy, bool evict)
{
	struct policy_scan scan;
	struct policy_victim victim;

	policy_scan_begin(&scan, evict, policy->region_units);
	__wrap_policy_scan(policy, &scan, policy->region_count);
	policy_scan_end(policy, &scan, &victim);
	return victim;
}

/* ---- a store ---------------------------------------------------------------------------- */

static enum disk_area nowhere(uint64_t at, size_t length, const uint8_t *bytes)
{
	(void)at, (void)length, (void)bytes;
	return DISK_FRESH;
}

static void io_done(struct sim_io *sio)
{
	world.failed += sio->io.op == CAIRN_OP_DUMP && sio->parts[0].status < 0;
}

static void bind_run(void *what)
{
	struct cairn_error error = {0};

	(void)what;
	CHECK(ops->bind(sim_tier, &world.view, &world.view.binding[0], &error) == 0, "%s",
	      error.text);
}

static void caller_ends(void)
{
	while (sim_caller_busy())
		CHECK(sim_step());
}

static void quiet(void)
{
	while (sim_ios() || sim_jobs())
		CHECK(sim_step());
}

static void begin(uint64_t bytes, const char *options)
{
	const struct sim_opts host = {
		.reactors = 1, .buffers = 8, .latency_ns = LATENCY, .even = true};

	char all[128];

	snprintf(all, sizeof(all), "shed=5000000000;%s", options);
	world.rng.state = 1;
	world.failed = 0;
	sim_init(&host, bytes, &world.rng, nowhere, io_done);
	sim_open(all);
	caller_ends();
	CHECK(sim_open_result() == 0);
	world.view = (struct cairn_ns_view){.desc = "room", .desc_length = 4};
	sim_call(bind_run, NULL);
	caller_ends();
	world.looks_most = 0;
}

static void end(void)
{
	uint64_t counts[DISK_AREAS] = {0};
	char why[256] = "";

	quiet();
	CHECK(flash_tier_check(sim_tier, true, why, sizeof(why)), "%s", why);
	CHECK(world.looks_most <= LOOKS_MAX, "%u look-ups under one hold of the mutex",
	      world.looks_most);
	sim_close();
	caller_ends();
	sim_cut(counts);
	sim_fini();
}

static struct cairn_key key_of(uint32_t number)
{
	return kit_key(number);
}

static struct sim_io *io_of(enum cairn_op op, uint32_t number, uint32_t bytes)
{
	struct sim_io *sio = sim_io_new(&world.view, op);

	CHECK(sio);
	sio->io.key = key_of(number);
	sio->io.shard_count = 1;
	sio->io.shard_bytes = bytes;
	sio->io.part_count = 1;
	sio->iovs[0] = (struct iovec){sio->data, bytes};
	sio->parts[0] = (struct cairn_part){
		.iov = sio->iovs,
		.iov_count = 1,
		.length = bytes,
		.raw_length = bytes,
		.stored_length = op == CAIRN_OP_DUMP ? bytes : 0,
		.status = CAIRN_PENDING,
		.stage = UINT16_MAX,
	};
	return sio;
}

static bool hold(uint32_t number)
{
	struct cairn_key key = key_of(number);
	struct cairn_probe probe;

	ops->lookup(sim_tier, &world.view, &key, 1, CAIRN_PROBE_HOLD, &probe);
	return probe.present;
}

/* ---- room --------------------------------------------------------------------------------- */

struct load {
	uint64_t bytes;
	const char *options;
	uint32_t block;
	uint32_t depth;	  /* dumps under way */
	uint32_t used_of; /* of a hundred blocks: that are used again, now and then */
};

/* Blocks are used again where they are about to go, so that they are carried. */
static void use_some(const struct load *load, uint32_t number)
{
	uint32_t there = (uint32_t)(load->bytes / load->block);
	uint32_t back = there / 4 + (uint32_t)kit_below(&world.rng, there / 2);

	if (number > back && kit_below(&world.rng, 100) < load->used_of)
		sim_io_send(io_of(CAIRN_OP_LOAD, number - back, load->block));
}

static void room(const struct load *load)
{
	uint32_t depth = (uint32_t)kit_number("depth", load->depth, load->depth);
	uint32_t count = (uint32_t)(WRAPS * load->bytes / load->block);

	begin(load->bytes, load->options);
	for (uint32_t i = 0; i < count; i++) {
		while (sim_ios() >= depth)
			CHECK(sim_step());
		sim_io_send(io_of(CAIRN_OP_DUMP, i, load->block));
		use_some(load, i);
	}
	quiet();
	printf("room: %s, %u dumps of %u bytes, %u at once: %lu of %lu bytes carried, %lu waits; "
	       "%.3f live; %u look-ups at most\n",
	       load->options, count, load->block, depth,
	       (unsigned long)sim_counter("carried_bytes"),
	       (unsigned long)sim_counter("written_bytes"),
	       (unsigned long)sim_counter("room_waits"),
	       (double)sim_counter("bytes_used") / (double)load->bytes, world.looks_most);
	CHECK(!world.failed && sim_counter("reclaimed_regions"));
	CHECK(kit_number("tell", 0, 0) || !sim_counter("room_waits"), "dumps waited for room");
	end();
}

/* ---- a victim that stays ----------------------------------------------------------------- */

/* Half of each region is held, and what is carried of it finds no place that takes writes. */
static void victim_stays(void)
{
	const struct disk_faults none = {0}, writes = {.write_ppm = 1000000};
	uint32_t number = 0;

	begin(64 * MIB, "size=67108864;region=4194304");
	for (; !sim_tier->reclaims_begun; number++) {
		sim_io_send(io_of(CAIRN_OP_DUMP, number, 4096));
		while (sim_ios())
			CHECK(sim_step());
		CHECK(number % 2 || hold(number));
	}
	CHECK(sim_jobs());
	disk_set_faults(&writes);
	quiet();
	disk_set_faults(&none);
	CHECK(sim_counter("retired_regions") > 0 && !sim_counter("reclaimed_regions"));
	printf("room: a victim that stays: %u look-ups at most\n", world.looks_most);
	end();
}

int main(int argc, char **argv)
{
	static const struct load loads[] = {
		{48 * MIB, "size=50331648", 16384, 1, 0},
		{48 * MIB, "size=50331648", 16384, 1, 30},
		{64 * MIB, "size=67108864;policy=1", 16384, 1, 30},
		{48 * MIB, "size=50331648;region=2097152", 16384, 4, 30},
		{64 * MIB, "size=67108864;region=4194304", 4096, 8, 30},
	};
	uint64_t only;

	kit_init(argc, argv);
	if (kit_sanitized())
		return KIT_SKIP;
	only = kit_number("case", 99, 99);
	for (uint32_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		if (only == 99 || only == i)
			room(&loads[i]);
	if (only == 99 || only == 50)
		victim_stays();
	return 0;
}
