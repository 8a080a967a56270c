/* SPDX-License-Identifier: Apache-2.0 */
/* Stores with a cache that holds dumps back over posix behind a gate, and their blocks. */
#ifndef TESTS_UNIT_BACK_SHOP_H
#define TESTS_UNIT_BACK_SHOP_H

#include <errno.h>
#include <stdio.h>

#include <cairn/task.h>

#include "counted.h"
#include "dump_gate.h"
#include "shop.h"

#define SPEC_MAX 512u
#define FLIGHTS	 4u /* of one process at once */
#define BACK	 "size=16MiB, entries=2000, write=back"

static char region[64], folder[SPEC_MAX / 4];
static uint32_t tests; /* each has its own folder below */

/* ---- stores ---------------------------------------------------------------------------- */

static int new_folder(void **state)
{
	const char *temporary = getenv("TMPDIR");

	(void)state;
	snprintf(region, sizeof(region), "back-%d-%u", (int)getpid(), tests++);
	snprintf(folder, sizeof(folder), "%s/cairn-back-XXXXXX", temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(folder));
	gate_shut(0);
	refuse(0, 0);
	return 0;
}

static int old_folder(void **state)
{
	char command[SPEC_MAX];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s /dev/shm/cairn-cache-*-%s", folder, region);
	return system(command);
}

static void space_open(struct shop *shop, const char *model)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = model, .shard_count = SHARDS, .shard_bytes = BYTES};

	assert_int_equal(cairn_namespace_open(shop->store, &desc, &shop->ns, NULL), 0);
}

static void shop_open_spec(struct shop *shop, const char *spec)
{
	const char *path = getenv("STAGE_LOWER");
	char stages[SPEC_MAX];
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = stages};
	struct cairn_error error = {0};

	snprintf(stages, sizeof(stages), "%.*s", (int)(strrchr(path, '/') - path), path);
	if (cairn_store_open(spec, &opts, &shop->store, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
	space_open(shop, "m");
}

/* With @between the tier below. */
static void shop_open_over(struct shop *shop, const char *options, const char *between)
{
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(%s, name=%s) | %slower(path=%s/kv, shared=yes)",
		 options, region, between, folder);
	shop_open_spec(shop, spec);
}

static void shop_open(struct shop *shop, const char *options)
{
	shop_open_over(shop, options, "");
}

/* What is below, as somebody sees it who has no cache. */
static void shop_open_below(struct shop *shop)
{
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "posix(path=%s/kv, shared=yes)", folder);
	shop_open_spec(shop, spec);
}

/* ---- blocks ---------------------------------------------------------------------------- */

struct parcel {
	uint8_t memory[SHARDS][BYTES];
	struct cairn_xfer xfers[SHARDS];
	uint64_t task;
};

static void pack(const struct shop *shop, uint32_t number, bool filled, struct parcel *ret_parcel)
{
	struct cairn_key key = key_of(shop, number);

	memset(ret_parcel, 0, sizeof(*ret_parcel));
	for (uint32_t i = 0; i < SHARDS; i++) {
		uint8_t *memory = ret_parcel->memory[i];

		if (filled)
			content(&key, i, memory);
		ret_parcel->xfers[i] = (struct cairn_xfer){
			.key = key,
			.shard = i,
			.length = BYTES,
			.stride = {.base = memory, .run = BYTES, .stride = BYTES, .count = 1},
		};
	}
}

static void send(const struct shop *shop, uint32_t number, uint32_t durability, uint32_t flags,
		 struct parcel *ret_parcel)
{
	struct cairn_task_opts opts = {.size = sizeof(opts),
				       .durability = durability,
				       .flags = flags,
				       .deadline_ns = CAIRN_DEADLINE_NONE};

	pack(shop, number, true, ret_parcel);
	assert_int_equal(cairn_dump(shop->ns, ret_parcel->xfers, SHARDS, &opts, &ret_parcel->task),
			 0);
}

static bool arrived(const struct shop *shop, const struct parcel *parcel, uint64_t timeout_ns)
{
	return cairn_task_wait(shop->store, parcel->task, 0, timeout_ns) == 0;
}

static int dump_at(const struct shop *shop, uint32_t number, uint32_t durability, uint32_t flags)
{
	static struct parcel parcel;

	send(shop, number, durability, flags, &parcel);
	assert_true(arrived(shop, &parcel, UINT64_MAX));
	for (uint32_t i = 1; i < SHARDS; i++)
		assert_int_equal(parcel.xfers[i].result.status, parcel.xfers[0].result.status);
	if (parcel.xfers[0].result.status >= 0)
		assert_true(parcel.xfers[0].result.reached > durability);
	return parcel.xfers[0].result.status;
}

static int dump(const struct shop *shop, uint32_t number)
{
	return dump_at(shop, number, CAIRN_MEMORY, 0);
}

/* 0 with the right bytes, or an error; wrong bytes fail the test. */
static int load(const struct shop *shop, uint32_t number)
{
	static struct parcel parcel;
	static uint8_t want[BYTES];
	struct cairn_key key = key_of(shop, number);
	int ret;

	pack(shop, number, false, &parcel);
	ret = cairn_load(shop->ns, parcel.xfers, SHARDS, NULL, NULL);
	for (uint32_t i = 0; i < SHARDS; i++) {
		content(&key, i, want);
		if (parcel.xfers[i].result.status == 0)
			assert_memory_equal(parcel.memory[i], want, BYTES);
	}
	return ret;
}

static bool is_there(const struct shop *shop, uint32_t number)
{
	struct cairn_key key = key_of(shop, number);
	struct cairn_found found;

	return cairn_lookup(shop->ns, &key, 1, &found, NULL, NULL) == 1;
}

/* Whole and right, or not there at all. */
static bool present(const struct shop *shop, uint32_t number)
{
	bool ret = is_there(shop, number);

	assert_int_equal(load(shop, number), ret ? 0 : -ENOENT);
	return ret;
}

static bool present_below(uint32_t number)
{
	struct shop shop;
	bool ret;

	shop_open_below(&shop);
	ret = present(&shop, number);
	shop_close(&shop);
	return ret;
}

static uint64_t counted(const struct shop *shop, const char *name)
{
	return counted_of(shop->store, "cache", name);
}

/* A gauge of the cache in the page that was shared last, whose process is not asked. */
static uint64_t told(const char *name)
{
	const char *path = getenv("STAGE_LOWER");
	char spec[SPEC_MAX], stages[SPEC_MAX];
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = stages};
	struct wanted_count wanted = {"cache", name, UINT64_MAX};
	struct cairn_error error = {0};

	snprintf(stages, sizeof(stages), "%.*s", (int)(strrchr(path, '/') - path), path);
	snprintf(spec, sizeof(spec), "cache(%s, name=%s) | lower(path=%s/kv, shared=yes)", BACK,
		 region, folder);
	if (cairn_live_counters(spec, &opts, see_counter, &wanted, NULL, &error) < 0)
		fail_msg("%s", error.text);
	assert_true(wanted.value != UINT64_MAX);
	return wanted.value;
}

static void await_told(const char *name, uint64_t least, uint64_t most)
{
	while (told(name) < least || told(name) > most)
		usleep(1000);
}

static void await_count(const struct shop *shop, const char *name, uint64_t value)
{
	while (counted(shop, name) < value)
		usleep(1000);
}

#endif
