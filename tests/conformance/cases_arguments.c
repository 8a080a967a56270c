/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments that are wrong: -EINVAL, and nothing half-applied. */
#include <stdlib.h>
#include <string.h>

#include "conformance.h"

static bool spoil_segments(unsigned n, struct cairn_xfer *xfer, struct cairn_segment *segments);

/* Breaks @xfer in way @n; false: there is no such way. */
static bool spoil(unsigned n, struct cairn_xfer *xfer, struct cairn_segment *segments)
{
	void *base = xfer->stride.base;

	switch (n) {
	case 0:
		xfer->length = 0;
		return true;
	case 1:
		xfer->stride.run--;
		return true;
	case 2:
		xfer->stride.count = 2;
		return true;
	case 3:
		xfer->stride.count = 0;
		return true;
	case 4:
		xfer->stride.base = NULL;
		return true;
	case 5:
		xfer->reserved[1] = 1;
		return true;
	case 6:
		xfer->stride = (struct cairn_stride){base, UINT64_MAX / 2 + 1, UINT64_MAX, 2};
		return true;
	case 7:
		xfer->offset = UINT64_MAX;
		return true;
	case 8:
		xfer->shard = UINT32_MAX;
		return true;
	case 9: /* runs that overlap */
		xfer->stride = (struct cairn_stride){base, 1000, 1, 5};
		return true;
	case 10:
		xfer->length = UINT64_MAX;
		return true;
	default:
		return spoil_segments(n - 11, xfer, segments);
	}
}

static bool spoil_segments(unsigned n, struct cairn_xfer *xfer, struct cairn_segment *segments)
{
	uint64_t length = xfer->length;
	uint8_t *base = xfer->stride.base;

	segments[0] = (struct cairn_segment){base, length - 1};
	segments[1] = (struct cairn_segment){base + length - 1, 1};
	xfer->segments = segments;
	xfer->segment_count = 2;
	if (n == 0) /* both forms at once */
		return true;
	memset(&xfer->stride, 0, sizeof(xfer->stride));
	switch (n) {
	case 1: /* neither */
		xfer->segments = NULL;
		xfer->segment_count = 0;
		return true;
	case 2:
		xfer->segments = NULL;
		return true;
	case 3: /* a byte short */
		xfer->segment_count = 1;
		return true;
	case 4:
		segments[1].base = NULL;
		return true;
	case 5:
		segments[1].length = 0;
		return true;
	case 6: /* sums that wrap */
		segments[0].length = UINT64_MAX;
		segments[1].length = length + 1;
		return true;
	default:
		return false;
	}
}

static enum verdict wrong_xfers(struct ctx *ctx)
{
	struct block good = block_fixed(ctx, 1), block = block_fixed(ctx, 2);
	uint8_t *data = ctx_alloc(ctx, 2 * FIXED_BYTES), *more = ctx_alloc(ctx, FIXED_BYTES);
	struct cairn_segment segments[2];
	struct cairn_xfer xfers[2];
	uint64_t task = 99;
	unsigned n;

	for (n = 0;; n++) {
		xfers[0] = xfer_dump(&good, 0, more);
		xfers[1] = xfer_dump(&block, 0, data);
		if (!spoil(n, &xfers[1], segments))
			break;
		WANT(ctx, cairn_dump(ctx->fixed, xfers, 2, NULL, NULL) == -EINVAL,
		     "wrong dump %u was taken", n);
		WANT(ctx, cairn_dump(ctx->fixed, xfers, 2, NULL, &task) == -EINVAL,
		     "wrong dump %u was submitted", n);
	}
	WANT_IS(ctx, block_dump_shard(ctx, &good, 0), 0); /* nothing was half-applied */
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	memset(data, 0x3c, FIXED_BYTES);
	for (n = 0;; n++) {
		xfers[0] = xfer_load(&block, 0, 0, data, FIXED_BYTES);
		xfers[1] = xfer_load(&block, 1, 0, more, FIXED_BYTES);
		if (!spoil(n, &xfers[1], segments))
			break;
		WANT(ctx, cairn_load(ctx->fixed, xfers, 2, NULL, NULL) == -EINVAL,
		     "wrong load %u was taken", n);
	}
	for (n = 0; n < FIXED_BYTES; n++)
		WANT(ctx, data[n] == 0x3c, "a load that was refused wrote bytes");
	WANT_IS(ctx, task, 99);
	return block_load(ctx, &block) == 0 ? CASE_PASSED
					    : ctx_fail(ctx, __FILE__, __LINE__, "load");
}

static enum verdict wrong_memory(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	struct cairn_xfer xfer = xfer_dump(&block, 0, ctx_alloc(ctx, FIXED_BYTES));
	struct cairn_task_opts opts = {.size = sizeof(opts), .prerequisite_kind = 1};
	int ret;

	xfer.memory = 7;
	ret = cairn_dump(ctx->fixed, &xfer, 1, NULL, NULL);
	WANT(ctx, ret == -EOPNOTSUPP || ret == -EINVAL, "unknown memory gave %s", status_text(ret));
	xfer.memory = CAIRN_MEMORY_HOST;
	ret = cairn_dump(ctx->fixed, &xfer, 1, &opts, NULL);
	WANT(ctx, ret == -EOPNOTSUPP || ret == -EINVAL, "an unknown prerequisite gave %s",
	     status_text(ret));
	return CASE_PASSED;
}

static bool spoil_opts(unsigned n, struct cairn_task_opts *opts)
{
	switch (n) {
	case 0:
		opts->size = 0;
		return true;
	case 1:
		opts->size = 7;
		return true;
	case 2:
		opts->flags = 0x80000000u;
		return true;
	case 3:
		opts->task_class = 5;
		return true;
	case 4:
		opts->durability = 3;
		return true;
	case 5:
		opts->prerequisite = 1;
		return true;
	case 6:
		opts->reserved[3] = 1;
		return true;
	default:
		return false;
	}
}

static enum verdict wrong_opts(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	struct cairn_xfer xfer = xfer_dump(&block, 0, ctx_alloc(ctx, FIXED_BYTES));
	struct cairn_task_opts opts;
	uint64_t task;
	unsigned n;

	for (n = 0;; n++) {
		opts = (struct cairn_task_opts){.size = sizeof(opts)};
		if (!spoil_opts(n, &opts))
			break;
		WANT(ctx, cairn_dump(ctx->fixed, &xfer, 1, &opts, NULL) == -EINVAL,
		     "wrong options %u were taken by a dump", n);
		WANT(ctx, cairn_load(ctx->fixed, &xfer, 1, &opts, &task) == -EINVAL,
		     "wrong options %u were taken by a load", n);
		WANT(ctx, cairn_remove(ctx->fixed, &block.key, 1, NULL, &opts, NULL) == -EINVAL,
		     "wrong options %u were taken by a remove", n);
		WANT(ctx, cairn_prefetch(ctx->fixed, &block.key, 1, NULL, &opts, NULL) == -EINVAL,
		     "wrong options %u were taken by a prefetch", n);
	}
	WANT_IS(ctx, block_dump_shard(ctx, &block, 0), 0);
	return CASE_PASSED;
}

static enum verdict wrong_calls(struct ctx *ctx)
{
	struct block block = block_fixed(ctx, 1);
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = 0x80};
	struct cairn_found found;
	struct cairn_xfer xfer = {0};
	uint64_t hold;

	WANT_IS(ctx, cairn_load(NULL, &xfer, 1, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_dump(ctx->fixed, NULL, 1, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_load(ctx->fixed, &xfer, 1, NULL, NULL), -EINVAL); /* all zero */
	WANT_IS(ctx, cairn_remove(ctx->fixed, NULL, 1, NULL, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_prefetch(NULL, &block.key, 1, NULL, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_lookup(NULL, &block.key, 1, &found, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, NULL, 1, &found, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, NULL), -EINVAL);
	opts.flags = CAIRN_LOOKUP_HOLD; /* and nowhere to put it */
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, NULL), -EINVAL);
	opts.reserved = 1;
	WANT_IS(ctx, cairn_lookup(ctx->fixed, &block.key, 1, &found, &opts, &hold), -EINVAL);
	opts = (struct cairn_lookup_opts){.size = 3};
	WANT_IS(ctx, cairn_lookup_prefix(ctx->fixed, &block.key, 1, &found, &opts, NULL), -EINVAL);
	WANT_IS(ctx, cairn_task_wait(NULL, 1, 0, 0), -EINVAL);
	WANT_IS(ctx, cairn_task_wait(ctx->store, 1, 0x40, 0), -EINVAL);
	WANT_IS(ctx, cairn_queue_open(ctx->store, NULL), -EINVAL);
	WANT_IS(ctx, cairn_stat(ctx->store, NULL), -EINVAL);
	WANT_IS(ctx, cairn_stat(NULL, NULL), -EINVAL);
	return CASE_PASSED;
}

static enum verdict wrong_pipelines(struct ctx *ctx)
{
	static const char *const texts[] = {
		"",
		"|",
		"null(",
		"null() |",
		"null(size)",
		"null(size=)",
		"null(size=much)",
		"null() null()",
		"null(size=1MiB, size=2MiB)",
		"null(nosuch=1)",
		"@nosuchthing",
		"nosuchstage()",
		"null() | store()",
		"null(size=\"1MiB)",
		"fault(rule=\"load:EIO:1\")",
	};
	struct cairn_store *store = NULL;
	struct cairn_error error;
	size_t i;
	int ret;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		memset(&error, 0, sizeof(error));
		ret = cairn_store_open(texts[i], NULL, &store, &error);
		WANT(ctx, ret == -EINVAL || ret == -ENOENT, "\"%s\" gave %s", texts[i],
		     status_text(ret));
		WANT(ctx, error.text[0] != '\0' && !strchr(error.text, '\n'),
		     "\"%s\" is refused without a line", texts[i]);
		WANT_IS(ctx, error.code, ret);
		WANT_IS(ctx, cairn_store_open(texts[i], NULL, &store, NULL), ret);
	}
	WANT_IS(ctx, cairn_store_open(NULL, NULL, &store, NULL), -EINVAL);
	WANT_IS(ctx, cairn_store_open("null()", NULL, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_store_close(NULL, 0), 0);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"wrong_xfers", "a wrong item refuses the whole call", wrong_xfers, 0, 0},
	{"wrong_memory", "memory of a kind that this library does not know", wrong_memory, 0, 0},
	{"wrong_opts", "wrong options refuse the call", wrong_opts, 0, 0},
	{"wrong_calls", "absent and wrong arguments", wrong_calls, 0, 0},
	{"wrong_pipelines", "a wrong text is refused with a line", wrong_pipelines,
	 CASE_OWN_STORE | CASE_TOLERANT, 0},
};

const struct case_list cases_arguments = {cases, sizeof(cases) / sizeof(cases[0])};
