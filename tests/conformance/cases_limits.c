/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes at their limits, room that runs out, holds, durability. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

static enum verdict shards_1024(struct ctx *ctx)
{
	struct block block =
		block_variable(ctx, 1, (struct shape){CAIRN_SHARD_COUNT_MAX, 129, 128});
	struct cairn_found found;
	uint32_t i;

	for (i = 1; i < CAIRN_SHARD_COUNT_MAX; i += 2)
		WANT_IS(ctx, block_dump_shard(ctx, &block, i), 0);
	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, block_dump(ctx, &block), 0); /* the odd ones are there */
	WANT_IS(ctx, cairn_lookup(block.ns, &block.key, 1, &found, NULL, NULL), 1);
	WANT_IS(ctx, found.shard_count, CAIRN_SHARD_COUNT_MAX);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	return CASE_PASSED;
}

static enum verdict shard_64MiB(struct ctx *ctx)
{
	struct block block = block_variable(
		ctx, 1, (struct shape){1, CAIRN_SHARD_BYTES_MAX, CAIRN_SHARD_BYTES_MAX});
	int ret = block_dump(ctx, &block);

	if (ret == -EFBIG || ret == -ENOSPC) {
		WANT_IS(ctx, block_present(&block), 0);
		return ctx_skip(ctx, "a stage has no room for a shard of this size");
	}
	WANT_IS(ctx, ret, 0);
	WANT_IS(ctx, block_load_range(ctx, &block, 0, 12345, 1), 0);
	WANT_IS(ctx, block_load_range(ctx, &block, 0, CAIRN_SHARD_BYTES_MAX - 77, 77), 0);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	WANT_IS(ctx, block_remove(ctx, &block), 0);
	return CASE_PASSED;
}

/* ---- room -------------------------------------------------------------------------------- */

#define FILL_BYTES  50000u
#define FILL_BLOCKS 300u

/* What fills ROOM: FILL_BLOCKS at most, for it is overflows that tell, and not their number. */
static struct shape fill_shape(uint64_t room)
{
	uint64_t bytes = room / FILL_BLOCKS > FILL_BYTES ? room / FILL_BLOCKS : FILL_BYTES;

	return (struct shape){1, bytes, bytes};
}

static uint64_t used(struct ctx *ctx)
{
	struct cairn_stat st = {.size = sizeof(st)};

	return cairn_stat(ctx->store, &st) == 0 ? st.bytes_used : UINT64_MAX;
}

static enum verdict bound(struct ctx *ctx)
{
	uint64_t room = store_room(ctx), i;
	struct shape shape = fill_shape(room);
	struct block block;
	int ret;

	if (room == 0)
		return ctx_skip(ctx, "the store is unbounded, or larger than --max-bytes / 3");
	for (i = 0; i < 2 * room / shape.bytes; i++) {
		block = block_variable(ctx, i, shape);
		ret = block_dump(ctx, &block);
		/* Room is made, or the block is not taken; nothing else. */
		WANT(ctx, ret == 0 || ret == -ENOSPC || ret == -EFBIG, "a dump gave %s",
		     status_text(ret));
		WANT(ctx, used(ctx) <= room, "%llu bytes used of %llu",
		     (unsigned long long)used(ctx), (unsigned long long)room);
		if (ret == 0 && block_present(&block) == 1)
			WANT_IS(ctx, block_load(ctx, &block), 0);
	}
	return CASE_PASSED;
}

#define HELD 3u

static enum verdict hold_keeps(struct ctx *ctx)
{
	const struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 600 * SECOND};
	uint64_t room = store_room(ctx), hold = 0, i;
	struct shape shape = fill_shape(room);
	struct cairn_key keys[HELD];
	struct block held[HELD], block;
	struct cairn_found found[HELD];
	int ret;

	if (room < 20 * FILL_BYTES)
		return ctx_skip(ctx, "the store is unbounded, too large or too small to fill");
	for (i = 0; i < HELD; i++) {
		held[i] = block_variable(ctx, i, shape);
		keys[i] = held[i].key;
		WANT_IS(ctx, block_dump(ctx, &held[i]), 0);
	}
	WANT_IS(ctx, cairn_lookup_prefix(ctx->variable, keys, HELD, found, &opts, &hold), HELD);
	WANT(ctx, hold != 0, "no hold was given");
	for (i = 0; i < 3 * room / shape.bytes; i++) {
		block = block_variable(ctx, 1000 + i, shape);
		ret = block_dump(ctx, &block);
		WANT(ctx, ret == 0 || ret == -ENOSPC, "a dump gave %s", status_text(ret));
	}
	for (i = 0; i < HELD; i++)
		WANT_IS(ctx, block_load(ctx, &held[i]), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), 0);
	return CASE_PASSED;
}

/* ---- holds ------------------------------------------------------------------------------- */

static enum verdict hold_release(struct ctx *ctx)
{
	const struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct block there = block_fixed(ctx, 1), absent = block_fixed(ctx, 2);
	struct cairn_key keys[2] = {there.key, absent.key};
	struct cairn_found found[2];
	uint64_t hold = 77, second = 0;

	WANT_IS(ctx, cairn_lookup(ctx->fixed, keys + 1, 1, found, &opts, &hold), 0);
	WANT_IS(ctx, hold, 0); /* nothing was counted */
	WANT_IS(ctx, block_dump(ctx, &there), 0);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, keys, 2, found, &opts, &hold), 1);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 2, NULL, &opts, &second), 1);
	WANT(ctx, hold != 0 && second != 0 && hold != second, "holds without an id of their own");
	WANT_IS(ctx, block_load(ctx, &there), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), -ENOENT);
	WANT_IS(ctx, cairn_hold_release(ctx->store, second), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, 0), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, 0xabcdef0123ull), -ENOENT);
	WANT_IS(ctx, block_load(ctx, &there), 0);
	return CASE_PASSED;
}

static enum verdict hold_expires(struct ctx *ctx)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 1};
	struct block block = block_fixed(ctx, 1);
	struct cairn_found found;
	uint64_t hold = 0;

	WANT_IS(ctx, block_dump(ctx, &block), 0);
	/* At once: it has expired, whether or not the store noticed. */
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, &hold), 1);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), -ENOENT);
	opts.hold_ns = 20 * MS;
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, &hold), 1);
	sleep_ns(300 * MS);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), -ENOENT);
	WANT_IS(ctx, block_load(ctx, &block), 0); /* nobody had to make room */
	return CASE_PASSED;
}

static enum verdict hold_loses(struct ctx *ctx)
{
	const struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct block block = block_fixed(ctx, 1);
	struct cairn_found found;
	uint64_t hold = 0;

	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, &hold), 1);
	WANT_IS(ctx, block_remove(ctx, &block), 0);
	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, block_try_range(ctx, &block, 0, 0, FIXED_BYTES), -ENOENT);
	block.variant = 1;
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), 0);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, &hold), 1);
	WANT_IS(ctx, cairn_clear(ctx->fixed, CAIRN_MEMORY), 0);
	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, block_try_range(ctx, &block, 0, 0, FIXED_BYTES), -ENOENT);
	WANT_IS(ctx, cairn_hold_release(ctx->store, hold), 0);
	return CASE_PASSED;
}

/* ---- durability ---------------------------------------------------------------------------- */

static enum verdict durability(struct ctx *ctx)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct cairn_xfer xfers[FIXED_COUNT];
	uint8_t *data = ctx_alloc(ctx, FIXED_COUNT * FIXED_BYTES);
	uint32_t level, i, refused = 0;
	struct block block;
	int ret;

	for (level = CAIRN_MEMORY; level <= CAIRN_DURABLE; level++) {
		block = block_fixed(ctx, level);
		for (i = 0; i < FIXED_COUNT; i++)
			xfers[i] = xfer_dump(&block, i, data + i * FIXED_BYTES);
		opts.durability = level;
		ret = cairn_dump(block.ns, xfers, FIXED_COUNT, &opts, NULL);
		if (ret == -EOPNOTSUPP && level > CAIRN_MEMORY) {
			refused++;
			WANT_IS(ctx, block_present(&block), 0);
			continue;
		}
		WANT_IS(ctx, ret, 0);
		for (i = 0; i < FIXED_COUNT; i++)
			WANT(ctx, xfers[i].result.reached > level, "a dump for level %u got to %d",
			     level, (int)xfers[i].result.reached - 1);
		WANT_IS(ctx, block_load(ctx, &block), 0);
		WANT_IS(ctx, cairn_remove(block.ns, &block.key, 1, NULL, &opts, NULL), 0);
		WANT_IS(ctx, block_present(&block), 0);
		WANT_IS(ctx, cairn_clear(block.ns, level), 0);
	}
	WANT(ctx, !ctx->suite->reopen || refused == 0, "a store that persists refused a level");
	opts.durability = CAIRN_DURABLE + 1;
	WANT_IS(ctx, cairn_dump(ctx->fixed, xfers, 1, &opts, NULL), -EINVAL);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"shards_1024", "as many shards as a block may have", shards_1024, CASE_TOLERANT, 8u << 20},
	{"shard_64MiB", "a shard as large as may be", shard_64MiB, 0, 160u << 20},
	{"bound", "the bound holds at every step", bound, 0, 0},
	{"hold_keeps", "what is held is there whatever else comes", hold_keeps, 0, 0},
	{"hold_release", "holds have ids and are given back once", hold_release, 0, 0},
	{"hold_expires", "a hold ends with its time", hold_expires, 0, 0},
	{"hold_loses", "removes and clears win over holds", hold_loses, 0, 0},
	{"durability", "a level is reached or refused", durability, 0, 0},
};

const struct case_list cases_limits = {cases, sizeof(cases) / sizeof(cases[0])};
