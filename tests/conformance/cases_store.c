/* SPDX-License-Identifier: Apache-2.0 */
/* The store itself: figures, and what is there after a close. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

static bool persists(const struct ctx *ctx, const struct cairn_stat *st)
{
	static const uint8_t none[16];

	return ctx->suite->reopen || memcmp(st->uuid, none, sizeof(none)) != 0;
}

static enum verdict figures(struct ctx *ctx)
{
	struct cairn_stat st = {.size = sizeof(st)}, after = {.size = sizeof(after)};
	struct {
		struct cairn_stat st;
		uint8_t tail[32];
	} longer;
	uint64_t blocks;
	struct block block;
	uint32_t i;

	WANT_IS(ctx, cairn_stat(ctx->store, &st), 0);
	WANT(ctx, st.alignment > 0 && (st.alignment & (st.alignment - 1)) == 0,
	     "an alignment that is no power of two");
	WANT(ctx, st.reactors > 0 && st.tasks_max > 0 && st.deadline_ns > 0,
	     "no reactors, tasks or deadline");
	WANT(ctx, st.bytes_used <= st.bytes_limit, "more is used than may be");
	WANT(ctx, st.engine[0] != '\0', "no engine is named");
	blocks = st.blocks;
	for (i = 0; i < 5; i++) {
		block = block_fixed(ctx, i);
		WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	WANT_IS(ctx, cairn_stat(ctx->store, &st), 0);
	/* Each tier counts its own; one without an index counts none. */
	WANT(ctx, st.blocks >= blocks + 5 || (blocks == 0 && st.blocks == 0),
	     "%llu blocks after 5 more than %llu", (unsigned long long)st.blocks,
	     (unsigned long long)blocks);
	/*
	 * An older caller's struct, and a newer one's: filled as far as both know. What was held
	 * back may be on its way below just now: between two figures that are the same.
	 */
	do {
		WANT_IS(ctx, cairn_stat(ctx->store, &st), 0);
		memset(&longer, 0x55, sizeof(longer));
		longer.st.size = offsetof(struct cairn_stat, bytes_limit);
		WANT_IS(ctx, cairn_stat(ctx->store, &longer.st), 0);
		WANT_IS(ctx, cairn_stat(ctx->store, &after), 0);
	} while (after.bytes_used != st.bytes_used);
	WANT_IS(ctx, longer.st.bytes_limit, 0x5555555555555555);
	WANT_IS(ctx, longer.st.bytes_used, st.bytes_used);
	return CASE_PASSED;
}

struct walk {
	uint32_t rows, wrong, stop_after;
};

static int count_row(void *context, const struct cairn_counter *counter)
{
	struct walk *walk = context;

	walk->rows++;
	if (!counter->stage || !counter->name || !counter->help || !counter->stage[0] ||
	    !counter->name[0])
		walk->wrong++;
	return walk->rows == walk->stop_after ? 77 : 0;
}

static enum verdict counters(struct ctx *ctx)
{
	struct walk walk = {0}, stopped = {.stop_after = 1};

	WANT_IS(ctx, cairn_counters(ctx->store, count_row, &walk), 0);
	WANT(ctx, walk.rows > 0 && walk.wrong == 0, "%u rows, %u without a name", walk.rows,
	     walk.wrong);
	WANT_IS(ctx, cairn_counters(ctx->store, count_row, &stopped), 77);
	return CASE_PASSED;
}

#define KEPT 6u

static enum verdict reopen(struct ctx *ctx)
{
	struct cairn_task_opts written = {.size = sizeof(written), .durability = CAIRN_WRITTEN};
	struct block block, partial, removed, cleared;
	struct cairn_stat before = {.size = sizeof(before)}, after = before;
	bool kept;
	uint32_t i;

	if (ctx_open(ctx, NULL) < 0)
		return CASE_FAILED;
	WANT_IS(ctx, cairn_stat(ctx->store, &before), 0);
	kept = persists(ctx, &before);
	for (i = 0; i < KEPT; i++) {
		block = block_fixed(ctx, i);
		WANT_IS(ctx, block_dump(ctx, &block), 0);
	}
	partial = block_fixed(ctx, 100);
	WANT_IS(ctx, block_dump_shard(ctx, &partial, 1), 0);
	removed = block_fixed(ctx, 101);
	WANT_IS(ctx, block_dump(ctx, &removed), 0);
	WANT_IS(ctx, cairn_remove(removed.ns, &removed.key, 1, NULL, kept ? &written : NULL, NULL),
		0);
	cleared = block_variable(ctx, 1, (struct shape){2, 900, 5});
	WANT_IS(ctx, block_dump(ctx, &cleared), 0);
	WANT_IS(ctx, cairn_clear(ctx->variable, kept ? CAIRN_DURABLE : CAIRN_MEMORY), 0);
	WANT_IS(ctx, ctx_close(ctx), 0);
	if (ctx_open(ctx, NULL) < 0)
		return CASE_FAILED;
	WANT_IS(ctx, cairn_stat(ctx->store, &after), 0);
	WANT(ctx, memcmp(before.uuid, after.uuid, sizeof(after.uuid)) == 0,
	     "the store has another uuid");
	partial = block_fixed(ctx, 100);
	WANT_IS(ctx, block_present(&partial), 0);
	removed = block_fixed(ctx, 101);
	WANT_IS(ctx, block_present(&removed), 0);
	cleared = block_variable(ctx, 1, (struct shape){2, 900, 5});
	WANT_IS(ctx, block_present(&cleared), 0);
	for (i = 0; i < KEPT; i++) {
		block = block_fixed(ctx, i);
		WANT_IS(ctx, block_present(&block), kept);
		if (kept)
			WANT_IS(ctx, block_load(ctx, &block), 0);
	}
	WANT_IS(ctx, block_dump(ctx, &removed), 0);
	WANT_IS(ctx, block_load(ctx, &removed), 0);
	WANT_IS(ctx, cairn_clear(ctx->fixed, CAIRN_MEMORY), 0);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"figures", "cairn_stat() tells what is so", figures, 0, 0},
	{"counters", "every counter has a name and a line", counters, CASE_TOLERANT, 0},
	{"reopen", "what was written is there after a close, and nothing else", reopen,
	 CASE_OWN_STORE, 0},
};

const struct case_list cases_store = {cases, sizeof(cases) / sizeof(cases[0])};
