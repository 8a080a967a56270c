/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: the same bytes by another way. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

#define PAGE	    4096u
#define SHARDS	    3u
#define SHARD_BYTES (160u << 10) /* two pieces of 64 KiB and a half */
#define SLOT	    (SHARD_BYTES + PAGE)
#define GAP_SET	    0x3c

static const struct shape even_shape = {SHARDS, SHARD_BYTES, SHARD_BYTES};
static const struct shape odd_shape = {SHARDS, SHARD_BYTES, SHARD_BYTES - 1000};

/* Memory of SHARDS slots that begin and end with a gap, all of it registered but the first page. */
static uint8_t *pool_open(struct ctx *ctx)
{
	uint8_t *memory = ctx_alloc(ctx, SHARDS * SLOT + 3 * PAGE);

	memory += PAGE - (uintptr_t)memory % PAGE + PAGE;
	return cairn_memory_register(ctx->store, memory, SHARDS * SLOT + PAGE / 2) == 0 ? memory
											: NULL;
}

static bool gaps_are_set(const uint8_t *from, const uint8_t *to)
{
	while (from < to && *from == GAP_SET)
		from++;
	return from == to;
}

/* Loads all shards at @shift in their slots, in one task. */
static enum verdict load_all(struct ctx *ctx, const struct block *block, uint8_t *pool,
			     uint64_t shift, uint32_t flags)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = flags};
	struct cairn_xfer xfers[SHARDS];

	memset(pool, GAP_SET, SHARDS * SLOT);
	for (uint32_t i = 0; i < SHARDS; i++)
		xfers[i] = xfer_load(block, i, 0, pool + i * SLOT + shift,
				     block_shard_length(block, i));
	WANT_IS(ctx, cairn_load(block->ns, xfers, SHARDS, &opts, NULL), 0);
	for (uint32_t i = 0; i < SHARDS; i++) {
		uint8_t *slot = pool + i * SLOT, *end = slot + shift + xfers[i].length;

		WANT(ctx, content_check(block, i, 0, slot + shift, xfers[i].length), "wrong bytes");
		WANT(ctx, gaps_are_set(slot, slot + shift) && gaps_are_set(end, slot + SLOT),
		     "bytes beside shard %u were written to", i);
	}
	return CASE_PASSED;
}

static enum verdict dump_and_load(struct ctx *ctx, const struct block *block, uint8_t *pool)
{
	static const uint64_t shifts[] = {0, 512, 1, PAGE};
	struct cairn_xfer xfers[SHARDS];
	enum verdict verdict;

	for (uint32_t i = 0; i < SHARDS; i++)
		xfers[i] = xfer_dump(block, i, pool + i * SLOT);
	WANT_IS(ctx, cairn_dump(block->ns, xfers, SHARDS, NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++) {
		verdict = load_all(ctx, block, pool, shifts[i], 0);
		if (verdict == CASE_PASSED)
			verdict = load_all(ctx, block, pool, shifts[i], CAIRN_TASK_DETACH);
		if (verdict != CASE_PASSED)
			return verdict;
	}
	return CASE_PASSED;
}

static enum verdict registered(struct ctx *ctx)
{
	struct block even = block_variable(ctx, 1, even_shape);
	struct block odd = block_variable(ctx, 2, odd_shape);
	uint8_t *pool = pool_open(ctx);
	enum verdict verdict;

	WANT(ctx, pool, "memory could not be registered");
	verdict = dump_and_load(ctx, &even, pool);
	if (verdict == CASE_PASSED)
		verdict = dump_and_load(ctx, &odd, pool);
	if (verdict != CASE_PASSED)
		return verdict;
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, pool, UINT64_MAX), 0);
	return load_all(ctx, &even, pool, 0, 0);
}

/* Pieces of a shard, and memory in pieces: whole pages or not, and one that is not registered. */
static enum verdict registered_parts(struct ctx *ctx)
{
	static const uint64_t ranges[][2] = {
		{0, 65536}, {65536, 65536}, {131072, 32768}, {65536, 98304}, {0, 131072},
		{1, 65535}, {65536, 65535}, {4096, 65536},   {131072, 4096}, {65536, 98303},
	};
	struct block block = block_variable(ctx, 1, even_shape);
	uint8_t *pool = pool_open(ctx), *apart = ctx_alloc(ctx, SLOT);
	struct cairn_segment segments[3];
	struct cairn_xfer xfer;

	WANT(ctx, pool, "memory could not be registered");
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	for (size_t i = 0; i < 2 * sizeof(ranges) / sizeof(ranges[0]); i++) {
		uint64_t offset = ranges[i / 2][0], length = ranges[i / 2][1], third = length / 3;

		third -= i % 4 < 2 ? third % PAGE : 0;
		segments[0] = (struct cairn_segment){pool + 2 * SLOT, third};
		segments[1] = (struct cairn_segment){i % 2 ? apart : pool + PAGE, third};
		segments[2] = (struct cairn_segment){pool + SLOT, length - 2 * third};
		xfer = xfer_load(&block, 1, offset, NULL, length);
		memset(&xfer.stride, 0, sizeof(xfer.stride));
		xfer.segments = segments + (third == 0 ? 2 : 0);
		xfer.segment_count = third == 0 ? 1 : 3;
		memset(pool, GAP_SET, SHARDS * SLOT);
		WANT_IS(ctx, cairn_load(block.ns, &xfer, 1, NULL, NULL), 0);
		for (uint32_t s = 0; s < xfer.segment_count; s++) {
			const uint8_t *base = xfer.segments[s].base;

			WANT(ctx, content_check(&block, 1, offset, base, xfer.segments[s].length),
			     "wrong bytes in segment %u of range %zu", s, i);
			offset += xfer.segments[s].length;
		}
		WANT(ctx, gaps_are_set(pool + SLOT + length - 2 * third, pool + 2 * SLOT),
		     "bytes behind were written to");
	}
	return CASE_PASSED;
}

static enum verdict register_arguments(struct ctx *ctx)
{
	uint8_t *memory = ctx_alloc(ctx, 4 * PAGE);

	WANT_IS(ctx, cairn_memory_register(NULL, memory, PAGE), -EINVAL);
	WANT_IS(ctx, cairn_memory_register(ctx->store, NULL, PAGE), -EINVAL);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory, 0), -EINVAL);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory, SIZE_MAX), -EINVAL);
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, memory, 0), -ENOENT);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory + PAGE, PAGE), 0);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory, 2 * PAGE), -EINVAL);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory + 2 * PAGE - 1, 1), -EINVAL);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory, PAGE), 0);
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, memory + PAGE, 0), 0);
	WANT_IS(ctx, cairn_memory_register(ctx->store, memory + PAGE, 3 * PAGE), 0);
	return CASE_PASSED;
}

/* Behind a slow device: unregistering waits, or says that it would have to. */
static enum verdict unregister_waits(struct ctx *ctx)
{
	struct block block;
	struct cairn_xfer *xfer = ctx_alloc(ctx, sizeof(*xfer));
	uint8_t *pool;
	uint64_t task;

	if (ctx_open(ctx, "delay(read=300ms, write=0ms, depth=64)") < 0)
		return CASE_FAILED;
	pool = pool_open(ctx);
	WANT(ctx, pool, "memory could not be registered");
	block = block_variable(ctx, 1, even_shape);
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	*xfer = xfer_load(&block, 0, 0, pool, SHARD_BYTES);
	WANT_IS(ctx, cairn_load(block.ns, xfer, 1, NULL, &task), 0);
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, pool, 0), -ETIMEDOUT);
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, pool, UINT64_MAX), 0);
	/* Released: nobody writes to it any more, and there is nothing to wait for. */
	WANT_IS(ctx, cairn_task_wait(ctx->store, task, 0, SECOND), 0);
	WANT_IS(ctx, xfer->result.status, 0);
	WANT(ctx, content_check(&block, 0, 0, pool, SHARD_BYTES), "wrong bytes");
	WANT_IS(ctx, cairn_memory_unregister(ctx->store, pool, 0), -ENOENT);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"registered", "registered memory holds the same bytes, and no others", registered, 0,
	 4u << 20},
	{"registered_parts", "pieces of shards into pieces of registered memory", registered_parts,
	 0, 4u << 20},
	{"register_arguments", "ranges that cannot be registered", register_arguments, 0, 0},
	{"unregister_waits", "memory is free when no task aims at it", unregister_waits,
	 CASE_OWN_STORE, 0},
};

const struct case_list cases_memory = {cases, sizeof(cases) / sizeof(cases[0])};
