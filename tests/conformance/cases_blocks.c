/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks: written once, whole or absent, found, removed, cleared. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

static enum verdict write_once(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1), other;
	uint32_t i;

	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, block_present(&block), 1);
	other = block;
	other.variant = 1; /* other bytes for the same key move nothing */
	for (i = 0; i < FIXED_COUNT; i++)
		WANT_IS(ctx, block_dump_shard(ctx, &other, i), CAIRN_PRESENT);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	return CASE_PASSED;
}

static enum verdict whole_or_absent(struct ctx *ctx)
{
	static const uint32_t orders[3][FIXED_COUNT] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}};
	struct block block, other;
	uint32_t n, i;

	for (n = 0; n < 3; n++) {
		block = block_fixed(ctx, n);
		other = block;
		other.variant = 1;
		for (i = 0; i < FIXED_COUNT; i++) {
			WANT_IS(ctx, block_present(&block), 0);
			WANT(ctx, block_try_range(ctx, &block, orders[n][0], 0, FIXED_BYTES) < 0,
			     "a shard of a partial block was loaded");
			WANT_IS(ctx, block_dump_shard(ctx, &block, orders[n][i]), 0);
			WANT_IS(ctx, block_dump_shard(ctx, &other, orders[n][i]), CAIRN_PRESENT);
		}
		WANT_IS(ctx, block_present(&block), 1);
		WANT_IS(ctx, block_load(ctx, &block), 0);
	}
	return CASE_PASSED;
}

static enum verdict partial_is_absent(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	struct cairn_result result = {.status = 77};

	WANT_IS(ctx, block_dump_shard(ctx, &block, 2), 0);
	WANT_IS(ctx, block_try_range(ctx, &block, 2, 0, 1), -ENOENT);
	WANT_IS(ctx, block_try_range(ctx, &block, 0, 0, FIXED_BYTES), -ENOENT);
	WANT_IS(ctx, cairn_prefetch(block.ns, &block.key, 1, &result, NULL, NULL), -ENOENT);
	WANT_IS(ctx, result.status, -ENOENT);
	WANT_IS(ctx, block_present(&block), 0);
	return CASE_PASSED;
}

static enum verdict remove_then_dump(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	uint64_t variant;

	for (variant = 0; variant < 5; variant++) {
		block.variant = variant;
		WANT_IS(ctx, block_dump(ctx, &block), 0);
		WANT_IS(ctx, block_load(ctx, &block), 0);
		WANT(ctx, block_remove(ctx, &block) == 0 || ctx->suite->tolerate,
		     "a block that is there was not removed");
		WANT_IS(ctx, block_present(&block), 0);
		WANT(ctx, block_try_range(ctx, &block, 1, 0, FIXED_BYTES) < 0,
		     "a removed block was loaded");
	}
	return CASE_PASSED;
}

static enum verdict remove_many(struct ctx *ctx)
{
	struct cairn_key keys[6];
	struct cairn_result results[6];
	struct block block;
	uint32_t i;

	for (i = 0; i < 6; i++) {
		block = block_fixed(ctx, i);
		keys[i] = block.key;
		if (i % 2 == 0)
			WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	memset(results, 0x55, sizeof(results));
	/* The first error in order is the call's. */
	WANT_IS(ctx, cairn_remove(ctx->fixed, keys, 6, results, NULL, NULL), -ENOENT);
	for (i = 0; i < 6; i++)
		WANT_IS(ctx, results[i].status, i % 2 == 0 ? 0 : -ENOENT);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, keys, 6, (struct cairn_found[6]){0}, NULL, NULL), 0);
	WANT_IS(ctx, cairn_remove(ctx->fixed, keys, 1, NULL, NULL, NULL), -ENOENT);
	return CASE_PASSED;
}

/* A partial block that was removed may be dumped in another shape. */
static enum verdict remove_partial(struct ctx *ctx)
{
	struct block block = block_variable(ctx, 1, (struct shape){3, 1000, 10});
	int ret;

	WANT_IS(ctx, block_dump_shard(ctx, &block, 1), 0);
	ret = cairn_remove(block.ns, &block.key, 1, NULL, NULL, NULL);
	WANT(ctx, ret == 0 || ret == -ENOENT, "removing a partial block gave %s", status_text(ret));
	block.shape = (struct shape){2, 700, 700};
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	return CASE_PASSED;
}

static enum verdict clear_namespace(struct ctx *ctx)
{
	struct block fixed[8], kept = block_variable(ctx, 1, (struct shape){1, 100, 100}), partial;
	uint32_t i, round;

	WANT_IS(ctx, block_dump(ctx, &kept), 0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < 8; i++) {
			fixed[i] = block_fixed(ctx, i);
			fixed[i].variant = round; /* other bytes each time: none come back */
			WANT_IS(ctx, block_present(&fixed[i]), 0);
			WANT_IS(ctx, block_dump(ctx, &fixed[i]), 0);
		}
		partial = block_fixed(ctx, 100);
		WANT_IS(ctx, block_dump_shard(ctx, &partial, round % FIXED_COUNT), 0);
		for (i = 0; i < 8; i++)
			WANT_IS(ctx, block_load(ctx, &fixed[i]), 0);
		WANT_IS(ctx, cairn_clear(ctx->fixed, CAIRN_MEMORY), 0);
		for (i = 0; i < 8; i++) {
			WANT_IS(ctx, block_present(&fixed[i]), 0);
			WANT(ctx, block_try_range(ctx, &fixed[i], 0, 0, 1) < 0,
			     "a block of a cleared namespace was loaded");
		}
	}
	/* Shards of before the clear do not make a block of after it. */
	for (i = 1; i < FIXED_COUNT; i++)
		WANT_IS(ctx, block_dump_shard(ctx, &partial, i), 0);
	WANT_IS(ctx, block_present(&partial), 0);
	WANT_IS(ctx, block_load(ctx, &kept), 0);
	WANT_IS(ctx, cairn_clear(NULL, CAIRN_MEMORY), -EINVAL);
	WANT_IS(ctx, cairn_clear(ctx->fixed, 77), -EINVAL);
	return CASE_PASSED;
}

/* ---- lookups -------------------------------------------------------------------------- */

static enum verdict lookup_each(struct ctx *ctx)
{
	static const struct shape shapes[5] = {
		{1, 1, 1}, {1, 4096, 4096}, {3, 1000, 7}, {20, 64, 64}, {2, 5000, 1}};
	struct cairn_key keys[10];
	struct cairn_found found[10];
	struct block block;
	uint32_t i;

	for (i = 0; i < 10; i++) {
		block = block_variable(ctx, i, shapes[i / 2]);
		keys[i] = block.key;
		if (i % 2 == 0)
			WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	memset(found, 0x55, sizeof(found));
	WANT_IS(ctx, cairn_lookup(ctx->variable, keys, 10, found, NULL, NULL), 5);
	for (i = 0; i < 10; i++) {
		WANT_IS(ctx, found[i].present, i % 2 == 0);
		if (i % 2 == 1)
			continue;
		WANT_IS(ctx, found[i].shard_count, shapes[i / 2].count);
		WANT_IS(ctx, found[i].last_bytes, shapes[i / 2].last);
		WANT_IS(ctx, found[i].shard_bytes, shapes[i / 2].bytes);
	}
	WANT_IS(ctx, cairn_lookup(ctx->variable, keys, 0, found, NULL, NULL), 0);
	return CASE_PASSED;
}

static enum verdict lookup_prefix(struct ctx *ctx)
{
	struct cairn_key keys[12];
	struct cairn_found found[12];
	struct block block;
	uint32_t i;

	for (i = 0; i < 12; i++) {
		block = block_fixed(ctx, i);
		keys[i] = block.key;
		if (i != 7 && i != 0)
			WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 12, NULL, NULL, NULL), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys + 1, 11, found, NULL, NULL), 6);
	for (i = 0; i < 6; i++)
		WANT(ctx, found[i].present == 1 && found[i].shard_count == FIXED_COUNT,
		     "what was counted is not described");
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys + 8, 4, NULL, NULL, NULL), 4);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 0, NULL, NULL, NULL), 0);
	block = block_fixed(ctx, 0);
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 12, NULL, NULL, NULL), 7);
	/* A partial block ends a prefix. */
	block = block_fixed(ctx, 7);
	WANT_IS(ctx, block_dump_shard(ctx, &block, 1), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 12, NULL, NULL, NULL), 7);
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, 12, NULL, NULL, NULL), 12);
	return CASE_PASSED;
}

#define MANY 700u

static enum verdict lookup_many(struct ctx *ctx)
{
	struct cairn_key *keys = ctx_alloc(ctx, MANY * sizeof(*keys));
	struct cairn_found *found = ctx_alloc(ctx, MANY * sizeof(*found));
	struct block block;
	uint32_t i;

	for (i = 0; i < MANY; i++) {
		block = block_variable(ctx, i, (struct shape){1, 16, 16});
		keys[i] = block.key;
		if (i != 500)
			WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	WANT_IS(ctx, cairn_lookup(ctx->variable, keys, MANY, found, NULL, NULL), MANY - 1);
	for (i = 0; i < MANY; i++)
		WANT_IS(ctx, found[i].present, i != 500);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->variable, keys, MANY, NULL, NULL, NULL), 500);
	for (i = 0; i < 100; i++) /* the same key many times */
		keys[i] = keys[3];
	WANT_IS(ctx, cairn_lookup(ctx->variable, keys, 100, found, NULL, NULL), 100);
	return CASE_PASSED;
}

static enum verdict prefetch(struct ctx *ctx)
{
	struct block there = block_fixed(ctx, 1), absent = block_fixed(ctx, 2);
	struct cairn_key keys[2] = {there.key, absent.key};
	struct cairn_result results[2];

	WANT_IS(ctx, block_dump(ctx, &there), 0);
	WANT_IS(ctx, cairn_prefetch(ctx->fixed, keys, 1, NULL, NULL, NULL), 0);
	WANT_IS(ctx, cairn_prefetch(ctx->fixed, keys, 2, results, NULL, NULL), -ENOENT);
	WANT_IS(ctx, results[0].status, 0);
	WANT_IS(ctx, results[1].status, -ENOENT);
	WANT_IS(ctx, block_load(ctx, &there), 0);
	return CASE_PASSED;
}

/* ---- what rides on a dump ------------------------------------------------------------- */

static enum verdict attributes(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1), parent = block_fixed(ctx, 2);
	struct {
		struct cairn_block_attr attr;
		uint8_t tail[16];
	} longer = {.attr = {.size = sizeof(longer)}};
	uint8_t *data = ctx_alloc(ctx, FIXED_BYTES);
	struct cairn_xfer xfer;
	uint32_t i;

	longer.attr.parent = parent.key;
	longer.attr.depth = 3;
	longer.attr.priority = 100;
	longer.attr.ttl_ns = 3600 * SECOND;
	longer.attr.cost_ns = 5 * MS;
	xfer = xfer_dump(&block, 0, data);
	xfer.attr = &longer.attr;
	longer.tail[9] = 1; /* a field that nobody knows */
	WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), -EINVAL);
	longer.tail[9] = 0;
	longer.attr.priority = 101;
	WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), -EINVAL);
	longer.attr.priority = 100;
	longer.attr.size = 4;
	WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), -EINVAL);
	longer.attr.size = sizeof(longer);
	for (i = 0; i < FIXED_COUNT; i++) {
		xfer = xfer_dump(&block, i, data);
		xfer.attr = &longer.attr;
		WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), 0);
		longer.attr.depth++; /* the first one told stays; another is no error */
	}
	WANT_IS(ctx, block_load(ctx, &block), 0);
	/* A parent that comes after its child, and one that claims to be deeper. */
	WANT_IS(ctx, block_dump(ctx, &parent), 0);
	WANT_IS(ctx, block_load(ctx, &parent), 0);
	return CASE_PASSED;
}

#define CHAIN_KEYS 10u

static enum verdict chain(struct ctx *ctx)
{
	const struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_CHAIN};
	struct cairn_xfer xfers[CHAIN_KEYS * FIXED_COUNT];
	uint8_t *data = ctx_alloc(ctx, sizeof(xfers) / sizeof(xfers[0]) * FIXED_BYTES);
	struct cairn_key keys[CHAIN_KEYS];
	struct block block;
	uint32_t i, n = 0, shard;

	for (i = 0; i < CHAIN_KEYS; i++) {
		block = block_fixed(ctx, i);
		keys[i] = block.key;
		for (shard = 0; shard < FIXED_COUNT; shard++, n++)
			xfers[n] = xfer_dump(&block, shard, data + n * FIXED_BYTES);
	}
	WANT_IS(ctx, cairn_dump(ctx->fixed, xfers, n, &opts, NULL), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, CHAIN_KEYS, NULL, NULL, NULL),
		CHAIN_KEYS);
	memset(data, 0, n * FIXED_BYTES);
	for (i = 0, n = 0; i < CHAIN_KEYS; i++) {
		block = block_fixed(ctx, i);
		for (shard = 0; shard < FIXED_COUNT; shard++, n++)
			xfers[n] = xfer_load(&block, shard, 0, data + n * FIXED_BYTES, FIXED_BYTES);
	}
	WANT_IS(ctx, cairn_load(ctx->fixed, xfers, n, &opts, NULL), 0);
	for (i = 0; i < n; i++) {
		block = block_fixed(ctx, i / FIXED_COUNT);
		WANT(ctx,
		     content_check(&block, i % FIXED_COUNT, 0, data + i * FIXED_BYTES, FIXED_BYTES),
		     "wrong bytes");
	}
	/* A second chain that contradicts the first: a parent told in a circle. */
	WANT_IS(ctx,
		cairn_lookup_prefix(ctx->fixed, (struct cairn_key[]){keys[5], keys[0]}, 2, NULL,
				    NULL, NULL),
		2);
	WANT_IS(ctx, cairn_remove(ctx->fixed, keys, CHAIN_KEYS, NULL, &opts, NULL), 0);
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, keys, CHAIN_KEYS, NULL, NULL, NULL), 0);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"write_once", "a second dump of a block moves nothing", write_once, CASE_TOLERANT, 0},
	{"whole_or_absent", "a block is there when its last shard is, in any order",
	 whole_or_absent, CASE_TOLERANT, 0},
	{"partial_is_absent", "a shard of a partial block is absent", partial_is_absent, 0, 0},
	{"remove_then_dump", "to change a block is to remove it and dump it again",
	 remove_then_dump, CASE_TOLERANT, 0},
	{"remove_many", "each key has its own result", remove_many, 0, 0},
	{"remove_partial", "a partial block may be removed", remove_partial, 0, 0},
	{"clear_namespace", "a cleared namespace is empty, others are not", clear_namespace,
	 CASE_TOLERANT, 0},
	{"lookup_each", "an answer and a shape for each key", lookup_each, CASE_TOLERANT, 0},
	{"lookup_prefix", "how many leading keys are whole", lookup_prefix, CASE_TOLERANT, 0},
	{"lookup_many", "hundreds of keys in a call", lookup_many, CASE_TOLERANT, 4u << 20},
	{"prefetch", "0 for what is there, -ENOENT for what is not", prefetch, 0, 0},
	{"attributes", "what an engine knows of a block", attributes, 0, 0},
	{"chain", "tasks whose keys are one prefix", chain, 0, 0},
};

const struct case_list cases_blocks = {cases, sizeof(cases) / sizeof(cases[0])};
