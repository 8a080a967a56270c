/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of shards, buffers of any form, geometries. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

#define LARGE 300001u /* several pieces of 64 KiB, and an odd end */

static enum verdict partial_loads(struct ctx *ctx)
{
	static const uint64_t ranges[][2] = {
		{0, LARGE},   {0, 1},	    {LARGE - 1, 1},  {1, LARGE - 1},   {65535, 2},
		{65536, 1},   {65535, 1},   {65536, 65536},  {131071, 131074}, {4095, 4098},
		{4096, 4096}, {77, 100000}, {262144, 37857}, {511, 513},
	};
	struct block block = block_variable(ctx, 1, (struct shape){1, LARGE, LARGE});
	struct dice dice = {ctx->suite->run_id};
	uint64_t offset;
	size_t i;

	WANT_IS(ctx, block_dump(ctx, &block), 0);
	for (i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		WANT_IS(ctx, block_load_range(ctx, &block, 0, ranges[i][0], ranges[i][1]), 0);
	for (i = 0; i < 60; i++) {
		offset = dice_roll(&dice, LARGE);
		WANT_IS(ctx,
			block_load_range(ctx, &block, 0, offset,
					 1 + dice_roll(&dice, LARGE - offset)),
			0);
	}
	return CASE_PASSED;
}

/* ---- segments and strides ------------------------------------------------------------ */

struct scatter {
	struct cairn_segment *segments;
	uint32_t count;
	uint8_t *memory; /* the segments lie in it, in order, with gaps */
	uint64_t bytes;
};

/* Cuts @length bytes into about @count pieces that lie anywhere, at any alignment. */
static struct scatter scatter_make(struct ctx *ctx, uint64_t length, uint32_t count,
				   struct dice *dice)
{
	struct scatter scatter = {.bytes = length + count * 16ull + 16};
	uint64_t at, left = length, n;

	scatter.segments = ctx_alloc(ctx, count * sizeof(*scatter.segments));
	scatter.memory = ctx_alloc(ctx, scatter.bytes);
	at = dice_roll(dice, 8);
	while (left > 0) {
		n = scatter.count + 1 == count ? left : 1 + dice_roll(dice, 2 * length / count);
		if (n > left)
			n = left;
		scatter.segments[scatter.count++] = (struct cairn_segment){scatter.memory + at, n};
		at += n + 1 + dice_roll(dice, 14);
		left -= n;
	}
	return scatter;
}

static bool scatter_check(const struct scatter *scatter, const struct block *block, uint64_t offset)
{
	const uint8_t *gap = scatter->memory, *base;
	uint32_t i;

	for (i = 0; i < scatter->count; i++) {
		base = scatter->segments[i].base;
		for (; gap < base; gap++)
			if (*gap != 0x3c)
				return false;
		if (!content_check(block, 0, offset, base, scatter->segments[i].length))
			return false;
		offset += scatter->segments[i].length;
		gap = base + scatter->segments[i].length;
	}
	for (; gap < scatter->memory + scatter->bytes; gap++)
		if (*gap != 0x3c)
			return false;
	return true;
}

static enum verdict segments(struct ctx *ctx)
{
	static const uint32_t counts[] = {1, 2, 17, 256, 257, 900};
	struct dice dice = {ctx->suite->run_id};
	uint64_t length, offset;
	struct cairn_xfer xfer;
	size_t i;
	uint32_t s;

	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct block block = block_variable(ctx, i, (struct shape){1, 100003, 100003});
		struct scatter from = scatter_make(ctx, 100003, counts[i], &dice), to;

		xfer = xfer_dump(&block, 0, ctx_alloc(ctx, 100003));
		for (s = 0, offset = 0; s < from.count; s++) {
			content_fill(&block, 0, offset, from.segments[s].base,
				     from.segments[s].length);
			offset += from.segments[s].length;
		}
		memset(&xfer.stride, 0, sizeof(xfer.stride));
		xfer.segments = from.segments;
		xfer.segment_count = from.count;
		WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), 0);
		WANT_IS(ctx, block_load(ctx, &block), 0);

		offset = dice_roll(&dice, 50000);
		length = 40000 + dice_roll(&dice, 10000);
		to = scatter_make(ctx, length, counts[i], &dice);
		memset(to.memory, 0x3c, to.bytes);
		xfer = xfer_load(&block, 0, offset, NULL, length);
		memset(&xfer.stride, 0, sizeof(xfer.stride));
		xfer.segments = to.segments;
		xfer.segment_count = to.count;
		WANT_IS(ctx, cairn_load(block.ns, &xfer, 1, NULL, NULL), 0);
		WANT(ctx, scatter_check(&to, &block, offset),
		     "wrong bytes in or beside %u segments", to.count);
	}
	return CASE_PASSED;
}

static enum verdict one_stride(struct ctx *ctx, uint64_t number, uint64_t run, uint64_t stride,
			       uint64_t count)
{
	uint64_t length = run * count, bytes = stride * (count - 1) + run + 64, i, k;
	struct block block = block_variable(ctx, number, (struct shape){1, length, length});
	uint8_t *data = malloc(bytes);
	struct cairn_xfer xfer;

	WANT(ctx, data != NULL, "no memory");
	xfer = xfer_load(&block, 0, 0, NULL, length);
	xfer.shard_count = 1;
	xfer.shard_bytes = length;
	xfer.stride = (struct cairn_stride){data + 3, run, stride, count};
	for (i = 0; i < count; i++)
		content_fill(&block, 0, i * run, data + 3 + i * stride, run);
	WANT_IS(ctx, cairn_dump(block.ns, &xfer, 1, NULL, NULL), 0);
	xfer.shard_count = 0;
	xfer.shard_bytes = 0;
	memset(data, 0x3c, bytes);
	WANT_IS(ctx, cairn_load(block.ns, &xfer, 1, NULL, NULL), 0);
	for (i = 0; i < count; i++) {
		WANT(ctx, content_check(&block, 0, i * run, data + 3 + i * stride, run),
		     "wrong bytes in run %llu of %llu", (unsigned long long)i,
		     (unsigned long long)count);
		for (k = run; k < stride && i + 1 < count; k++)
			WANT(ctx, data[3 + i * stride + k] == 0x3c, "a gap was written to");
	}
	free(data);
	return block_load(ctx, &block) == 0 ? CASE_PASSED
					    : ctx_fail(ctx, __FILE__, __LINE__, "load");
}

static enum verdict strides(struct ctx *ctx)
{
	static const uint64_t forms[][3] = {
		{5000, 5000, 1}, {1, 1, 5000},	  {1, 3, 2000},	     {4096, 8192, 16},
		{100, 101, 300}, {513, 4099, 20}, {70000, 70001, 4}, {8, 8, 4096},
	};
	enum verdict verdict;
	size_t i;

	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		verdict = one_stride(ctx, i, forms[i][0], forms[i][1], forms[i][2]);
		if (verdict != CASE_PASSED)
			return verdict;
	}
	return CASE_PASSED;
}

/* ---- geometry ------------------------------------------------------------------------- */

static enum verdict variable_geometry(struct ctx *ctx)
{
	static const struct shape shapes[] = {
		{1, 1, 1},	 {2, 1, 1},	{3, 4096, 1},	{5, 4097, 4096}, {7, 65536, 65535},
		{2, 65537, 100}, {64, 100, 99}, {65, 512, 512}, {1, 100000, 1},
	};
	struct block block;
	size_t i;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		block = block_variable(ctx, i, shapes[i]);
		WANT_IS(ctx, block_dump(ctx, &block), 0);
		WANT_IS(ctx, block_load(ctx, &block), 0);
		/* Beyond the end of a shard, or of the block, is an argument's fault. */
		WANT(ctx, block_try_range(ctx, &block, shapes[i].count - 1, shapes[i].last, 1) < 0,
		     "a load beyond the last shard's end succeeded");
		WANT(ctx,
		     block_try_range(ctx, &block, shapes[i].count - 1, 0, shapes[i].last + 1) < 0,
		     "a load over the last shard's end succeeded");
		WANT(ctx, block_try_range(ctx, &block, shapes[i].count, 0, 1) < 0,
		     "a load of a shard that is not succeeded");
		WANT_IS(ctx, block_load(ctx, &block), 0);
	}
	return CASE_PASSED;
}

static enum verdict other_geometry(struct ctx *ctx)
{
	struct block block = block_variable(ctx, 1, (struct shape){3, 1000, 500}), other = block;

	WANT_IS(ctx, block_dump_shard(ctx, &block, 0), 0);
	other.shape = (struct shape){4, 1000, 500};
	WANT_IS(ctx, block_dump_shard(ctx, &other, 1), -EINVAL);
	other.shape = (struct shape){3, 999, 500};
	WANT_IS(ctx, block_dump_shard(ctx, &other, 1), -EINVAL);
	WANT_IS(ctx, block_dump_shard(ctx, &block, 1), 0);
	WANT_IS(ctx, block_present(&block), 0);
	WANT_IS(ctx, block_dump_shard(ctx, &block, 2), 0);
	/* Whole now: of a last shard that is longer nothing is there. */
	other.shape = (struct shape){3, 1000, 501};
	WANT_IS(ctx, block_dump_shard(ctx, &other, 2), -EINVAL);
	other.shape = (struct shape){4, 1000, 500};
	WANT_IS(ctx, block_dump_shard(ctx, &other, 1), -EINVAL);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	return CASE_PASSED;
}

static enum verdict fixed_geometry(struct ctx *ctx)
{
	struct block good = block_fixed(ctx, 1), block = block_fixed(ctx, 2);
	uint8_t *data = ctx_alloc(ctx, 2 * FIXED_BYTES), *more = ctx_alloc(ctx, FIXED_BYTES);
	struct cairn_xfer xfers[2], bad[6];
	size_t i;

	for (i = 0; i < 6; i++)
		bad[i] = xfer_dump(&block, 0, data);
	bad[0].length = FIXED_BYTES - 1;
	bad[0].stride.run = FIXED_BYTES - 1;
	bad[1].length = FIXED_BYTES + 1;
	bad[1].stride.run = FIXED_BYTES + 1;
	bad[2].shard = FIXED_COUNT;
	bad[3].shard_count = FIXED_COUNT + 1;
	bad[4].shard_bytes = FIXED_BYTES - 1;
	bad[5].shard = FIXED_COUNT - 1; /* not even the last may be short */
	bad[5].length = 1;
	bad[5].stride.run = 1;
	for (i = 0; i < 6; i++) {
		xfers[0] = xfer_dump(&good, 0, more);
		xfers[1] = bad[i];
		WANT_IS(ctx, cairn_dump(ctx->fixed, xfers, 2, NULL, NULL), -EINVAL);
	}
	/* Nothing was half-applied: the good shard of those calls is not there. */
	WANT_IS(ctx, block_dump_shard(ctx, &good, 0), 0);
	WANT_IS(ctx, block_try_range(ctx, &good, FIXED_COUNT, 0, 1), -EINVAL);
	WANT_IS(ctx, block_try_range(ctx, &good, 0, FIXED_BYTES, 1), -EINVAL);
	WANT_IS(ctx, block_try_range(ctx, &good, 0, 1, FIXED_BYTES), -EINVAL);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"partial_loads", "any offset and length of a shard", partial_loads, CASE_TOLERANT,
	 4u << 20},
	{"segments", "buffers in many pieces at any alignment", segments, 0, 4u << 20},
	{"strides", "buffers as runs at a distance", strides, 0, 4u << 20},
	{"variable_geometry", "each block its own shape, the last shard short", variable_geometry,
	 CASE_TOLERANT, 4u << 20},
	{"other_geometry", "another shape for a block that is there is refused", other_geometry, 0,
	 0},
	{"fixed_geometry", "what does not fit the namespace is refused whole", fixed_geometry, 0,
	 0},
};

const struct case_list cases_parts = {cases, sizeof(cases) / sizeof(cases[0])};
