/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "sim.h"
#include "stages/flash/format.h"
#include "stages/flash/tier.h"

#define MIB (1u << 20)

static struct flash_layout layout;

static uint32_t one_of(struct kit_rng *rng, const uint32_t *values, size_t count)
{
	return values[kit_below(rng, count)];
}
#define ONE_OF(rng, ...)                                                                           \
	one_of(rng, (const uint32_t[]){__VA_ARGS__},                                               \
	       sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void host_draw(struct config *config, struct kit_rng *rng)
{
	config->host = (struct sim_opts){
		.reactors = 1 + (uint32_t)kit_below(rng, SIM_REACTORS_MAX),
		.leave_per_mille = ONE_OF(rng, 0, 0, 20, 200),
		.buffers = 1 + (uint32_t)kit_below(rng, 8),
		.sectors = kit_below(rng, 4) > 0,
		.latency_ns = ONE_OF(rng, 20000, 200000, 2000000),
		.hurry = ONE_OF(rng, 0, 10, 50),
	};
	config->depth = ONE_OF(rng, 1, 4, 16, 32, 48);
	config->eager = ONE_OF(rng, 5, 30, 100);
}

/* Small blocks, mostly: a log that wraps soon. */
static void shapes_draw(struct config *config, struct kit_rng *rng)
{
	struct model_opts *model = &config->model;
	bool large = kit_below(rng, 6) == 0;
	uint32_t most = config->region / 4;

	for (uint32_t i = 0; i < MODEL_SPACES; i++) {
		struct shape *shape = &model->shapes[i];

		*shape = (struct shape){.shards = i == 0 ? 1 : 1 + (uint32_t)kit_below(rng, 8),
					.bytes = ONE_OF(rng, 64, 400, 512, 1000, 3000)};
		if (large)
			shape->bytes = ONE_OF(rng, 512, 9000, 66000, 150000);
		if (large && i == 0 && config->region >= 4 * MIB)
			shape->bytes = MIB + 100000;
		if (shape->bytes > most)
			shape->bytes = most;
		shape->last = shape->bytes;
		model->variable[i] = i == MODEL_SPACES - 1;
	}
}

static void faults_draw(struct config *config, struct kit_rng *rng)
{
	struct disk_faults *faults = &config->faults;
	uint32_t ppm = ONE_OF(rng, 50, 1000, 20000);
	uint64_t way = kit_below(rng, 10);

	if (way == 0 || way == 3)
		faults->write_ppm = ppm;
	if (way == 1 || way == 3)
		faults->flush_ppm = ppm;
	if (way == 2 || way == 3)
		faults->read_ppm = ppm;
	faults->full_share = ONE_OF(rng, 0, 30);
	if (way == 4) { /* a part of the disk is broken */
		faults->bad_bytes = 4096u << kit_below(rng, 8);
		faults->bad_at = layout.regions_offset +
				 kit_below(rng, config->bytes - layout.regions_offset);
	}
	if (way == 5)
		config->rot = ONE_OF(rng, 200, 5000);
	if (way == 6 || (way == 0 && kit_below(rng, 2)))
		faults->outages = ONE_OF(rng, 300, 3000);
	config->model.writes_fail =
		faults->write_ppm || faults->flush_ppm || faults->bad_bytes || faults->outages;
	config->model.flushes_fail = faults->flush_ppm || faults->outages;
	config->model.reads_fail = faults->read_ppm || faults->bad_bytes;
	config->model.rots = config->rot > 0;
}

/*
 * Of some runs the device hangs now and then, for longer than anything else takes; a
 * generator of its own, so that the other runs are what they were.
 */
static void hangs_draw(struct config *config, const struct kit_rng *all)
{
	struct kit_rng rng = {.state = all->state ^ 0x68616e6773};
	struct model_opts *model = &config->model;

	if (kit_below(&rng, 3))
		return;
	config->host.hang_ns = 10000000 + config->host.latency_ns * (200 + kit_below(&rng, 200));
	config->hangs = ONE_OF(&rng, 1000, 5000, 30000, 200000);
	config->hang_fails = ONE_OF(&rng, 0, 0, 20, 100);
	config->watched_by_answers = config->host.sectors && kit_below(&rng, 4) == 0;
	if (config->hang_fails)
		model->writes_fail = model->flushes_fail = model->reads_fail = true;
}

/* The default's in every other run; a generator of its own, as for the hangs. */
static uint32_t policy_draw(const struct kit_rng *all)
{
	struct kit_rng rng = {.state = all->state ^ 0x706f6c696379};

	return ONE_OF(&rng, POLICY_COST, POLICY_COST, POLICY_LRU, POLICY_FIFO);
}

/* How long a dump waits for room until others are declined; 0, in some runs: not at all. */
static uint64_t shed_draw(const struct kit_rng *all)
{
	struct kit_rng rng = {.state = all->state ^ 0x73686564};

	return (uint64_t)ONE_OF(&rng, 0, 5, 5000, 5000, 5000, 5000) * 1000000;
}

static void stage_draw(struct config *config, struct kit_rng *rng)
{
	static const char *const names[] = {"group", "each", "none"};
	static const char *const policies[] = {"cost", "lru", "fifo"};
	uint32_t sync = ONE_OF(rng, 0, 0, 0, 1, 2), entries = 0, shards = 0;
	uint32_t policy = policy_draw(rng);
	int at;

	config->model.undurable = sync == 2;
	config->shed_ns = shed_draw(rng);
	at = snprintf(config->options, sizeof(config->options),
		      "size=%lu;region=%u;sync=%u;direct=%u;policy=%u;shed=%lu",
		      (unsigned long)config->bytes, config->region, sync,
		      config->watched_by_answers ? DIRECT_NO : DIRECT_YES, policy,
		      (unsigned long)config->shed_ns);
	if (kit_below(rng, 3) == 0) {
		entries = 16 + (uint32_t)kit_below(rng, config->model.keys);
		at += snprintf(config->options + at, sizeof(config->options) - (size_t)at,
			       ";entries=%u", entries);
	}
	if (kit_below(rng, 4) == 0) {
		shards = 16 + (uint32_t)kit_below(rng, 4 * config->model.keys);
		snprintf(config->options + at, sizeof(config->options) - (size_t)at, ";shards=%u",
			 shards);
	}
	snprintf(config->text, sizeof(config->text),
		 "%lu MiB, region %u KiB, unit %u, sync %s, %s, entries %u, shards %u, %u keys, %u "
		 "reactors, depth %u, leave %u, dumps %u, removes %u, faults %u/%u/%u, bad %lu, "
		 "rot %u, outages %u, hangs %u, of %lu ms, fail %u%s, shed %lu ms",
		 (unsigned long)(config->bytes / MIB), config->region / 1024, layout.unit,
		 names[sync], policies[policy], entries, shards, config->model.keys,
		 config->host.reactors, config->depth, config->host.leave_per_mille, config->dump,
		 config->remove, config->faults.read_ppm, config->faults.write_ppm,
		 config->faults.flush_ppm, (unsigned long)config->faults.bad_bytes, config->rot,
		 config->faults.outages, config->hangs,
		 (unsigned long)(config->host.hang_ns / 1000000), config->hang_fails,
		 config->watched_by_answers ? ", no probe" : "",
		 (unsigned long)(config->shed_ns / 1000000));
}

void config_draw(struct config *config, struct kit_rng *rng)
{
	memset(config, 0, sizeof(*config));
	host_draw(config, rng);
	config->bytes = (8 + kit_below(rng, 3)) * MIB;
	config->region = ONE_OF(rng, 64, 64, 64, 128, 256, 512) * 1024;
	if (kit_below(rng, 12) == 0) {
		config->bytes = 32 * MIB;
		config->region = 4 * MIB;
	}
	CHECK(flash_layout_init(&layout, config->bytes, config->region,
				config->host.sectors ? 512 : 4096) == FLASH_LAYOUT_OK);
	shapes_draw(config, rng);
	config->model.keys = ONE_OF(rng, 8, 100, 700, 2000, MODEL_KEYS_MAX);
	config->model.expires = kit_below(rng, 3) == 0;
	config->dump = ONE_OF(rng, 100, 400, 700);
	config->remove = ONE_OF(rng, 5, 50, 150);
	config->clear = ONE_OF(rng, 0, 500, 5000);
	config->durable = ONE_OF(rng, 2, 5, 50, 5000); /* the last: nothing for long, or ever */
	config->deadlines = ONE_OF(rng, 0, 0, 20);
	config->holds = ONE_OF(rng, 0, 8, 24);
	config->chain = ONE_OF(rng, 1, 4, 30);
	config->session = ONE_OF(rng, 1000, 20000, 100000);
	config->check_every = ONE_OF(rng, 500, 20000);
	faults_draw(config, rng);
	hangs_draw(config, rng);
	stage_draw(config, rng);
}

enum disk_area area_of(uint64_t at, size_t length, const uint8_t *bytes)
{
	uint32_t region;

	if (at < 2 * FLASH_PAGE)
		return DISK_SUPER;
	if (at < layout.marks_offset)
		return DISK_SPACES;
	if (at < layout.regions_offset)
		return DISK_MARKS;
	region = flash_region_of(&layout, (uint32_t)(at >> layout.unit_log2));
	if (at == flash_region_at(&layout, region))
		return DISK_HEADER;
	if (at + length == flash_region_at(&layout, region) + layout.region_bytes)
		return DISK_SEAL;
	if (length >= FLASH_UNIT_MIN && memcmp(bytes, FLASH_RECORD_MAGIC, 8) == 0) {
		const struct flash_record *record =
			(const struct flash_record *)(const void *)bytes;

		return record->flags & FLASH_RECORD_CARRIED ? DISK_CARRIED : DISK_FRESH;
	}
	return DISK_FRESH;
}
