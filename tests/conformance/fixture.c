/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conformance.h"

#define GUARD	  64 /* bytes on both sides of a load that must not change */
#define GUARD_SET 0xa5
#define RETRIES	  1000 /* where errors are tolerated; a fault of 0.9 passes one in ten */

const struct shape fixed_shape = {FIXED_COUNT, FIXED_BYTES, FIXED_BYTES};

/* ---- verdicts ------------------------------------------------------------------ */

enum verdict ctx_fail(struct ctx *ctx, const char *file, int line, const char *format, ...)
{
	const char *name = strrchr(file, '/');
	va_list arguments;
	int n;

	n = snprintf(ctx->why, sizeof(ctx->why), "%s:%d: ", name ? name + 1 : file, line);
	va_start(arguments, format);
	vsnprintf(ctx->why + n, sizeof(ctx->why) - (size_t)n, format, arguments);
	va_end(arguments);
	return CASE_FAILED;
}

enum verdict ctx_skip(struct ctx *ctx, const char *why)
{
	snprintf(ctx->why, sizeof(ctx->why), "%s", why);
	return CASE_SKIPPED;
}

const char *status_text(long long status)
{
	static _Thread_local char places[4][48];
	static _Thread_local unsigned turn;
	char *text = places[turn++ % 4];
	const char *name = status < 0 && status > -4096 ? strerrorname_np((int)-status) : NULL;

	if (status == WRONG_BYTES)
		snprintf(text, sizeof(places[0]), "wrong bytes");
	else if (name)
		snprintf(text, sizeof(places[0]), "-%s", name);
	else
		snprintf(text, sizeof(places[0]), "%lld", status);
	return text;
}

/* ---- stores ---------------------------------------------------------------------- */

/* Where in the text of a pipeline what stands before the first real stage ends. */
static size_t after_settings(const char *text)
{
	size_t at = strspn(text, " \t\n"), word = strspn(text + at, "abcdefghijklmnopqrstuvwxyz");
	bool quoted = false;

	if (word != 5 || strncmp(text + at, "store", 5) != 0)
		return 0;
	for (at += 5; text[at] != '\0'; at++) {
		if (quoted && text[at] == '\\' && text[at + 1] != '\0')
			at++;
		else if (text[at] == '"')
			quoted = !quoted;
		else if (text[at] == '|' && !quoted)
			return at + 1;
	}
	return 0;
}

static int open_namespaces(struct ctx *ctx, struct cairn_error *error)
{
	struct cairn_namespace_desc desc = ctx_desc(ctx, "fixed", FIXED_COUNT, FIXED_BYTES);
	int ret = cairn_namespace_open(ctx->store, &desc, &ctx->fixed, error);

	if (ret < 0)
		return ret;
	desc = ctx_desc(ctx, "variable", 0, 0);
	return cairn_namespace_open(ctx->store, &desc, &ctx->variable, error);
}

int ctx_open(struct ctx *ctx, const char *stages)
{
	const char *pipeline = ctx->suite->pipeline;
	size_t bytes = strlen(pipeline) + (stages ? strlen(stages) : 0) + 8;
	size_t settings = after_settings(pipeline);
	struct cairn_error error = {0};
	char *text = ctx_alloc(ctx, bytes);
	int ret;

	snprintf(text, bytes, "%.*s%s%s%s", (int)settings, pipeline, stages ? stages : "",
		 stages ? " | " : "", pipeline + settings);
	ret = cairn_store_open(text, NULL, &ctx->store, &error);
	if (ret == 0)
		ret = open_namespaces(ctx, &error);
	if (ret < 0)
		snprintf(ctx->why, sizeof(ctx->why), "\"%.120s\": %s: %.200s", text,
			 status_text(ret), error.text);
	return ret;
}

static int sum_queued(void *context, const struct cairn_counter *counter)
{
	uint64_t *sum = context;

	if (strcmp(counter->stage, "store") == 0 && strcmp(counter->name, "queued_xfers") == 0)
		*sum += counter->value;
	return 0;
}

/*
 * However its tasks ended, none of their items waits when all are over. A stage may begin to
 * write below, meanwhile, what it holds back: so it is looked at again.
 */
static bool nothing_is_queued(struct ctx *ctx)
{
	uint64_t sum = 0;

	for (uint32_t looks = 0; looks < 50; looks++) {
		sum = 0;
		if (cairn_store_quiesce(ctx->store, ctx->suite->case_ns / 2) < 0)
			return true; /* what the close will say */
		if (cairn_counters(ctx->store, sum_queued, &sum) == 0 && sum == 0)
			return true;
		sleep_ns(20000000);
	}
	fprintf(stderr, "cairn-conformance: %s: no task is left, and queued_xfers is %lld\n",
		ctx->name, (long long)sum);
	return false;
}

int ctx_close(struct ctx *ctx)
{
	int ret;

	if (!ctx->store)
		return 0;
	if (!nothing_is_queued(ctx))
		return -EPROTO;
	ret = cairn_store_close(ctx->store, ctx->suite->case_ns / 2);
	if (ret == 0) {
		ctx->store = NULL;
		ctx->fixed = NULL;
		ctx->variable = NULL;
	}
	return ret;
}

void *ctx_alloc(struct ctx *ctx, size_t bytes)
{
	void *memory = calloc(1, bytes ? bytes : 1);

	if (!memory || ctx->memory_count == CTX_MEMORY_MAX) {
		fprintf(stderr, "cairn-conformance: no memory for a case\n");
		exit(3);
	}
	ctx->memory[ctx->memory_count++] = memory;
	return memory;
}

struct cairn_namespace_desc ctx_desc(struct ctx *ctx, const char *tag, uint32_t shard_count,
				     uint64_t shard_bytes)
{
	char *tenant = ctx_alloc(ctx, 128);

	snprintf(tenant, 128, "conformance %016" PRIx64 " %.40s %.40s", ctx->suite->run_id,
		 ctx->name, tag);
	return (struct cairn_namespace_desc){
		.size = sizeof(struct cairn_namespace_desc),
		.model = "conformance",
		.dtype = "u8",
		.tenant = tenant,
		.shard_count = shard_count,
		.shard_bytes = shard_bytes,
	};
}

/* ---- blocks ---------------------------------------------------------------------- */

static struct block block_make(struct cairn_namespace *ns, uint64_t number, struct shape shape)
{
	struct block block = {.ns = ns, .shape = shape};

	/* Cannot fail: there is a name. A wrong key shows in every case. */
	(void)cairn_key_derive(ns, &number, sizeof(number), &block.key);
	return block;
}

struct block block_fixed(struct ctx *ctx, uint64_t number)
{
	return block_make(ctx->fixed, number, fixed_shape);
}

struct block block_variable(struct ctx *ctx, uint64_t number, struct shape shape)
{
	struct block block = block_make(ctx->variable, number, shape);

	block.variable = true;
	return block;
}

uint64_t block_shard_length(const struct block *block, uint32_t shard)
{
	return shard + 1 == block->shape.count ? block->shape.last : block->shape.bytes;
}

/* The finalizer of splitmix64: Steele, Lea, Flood, "Fast splittable PRNGs", 2014. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t content_seed(const struct block *block, uint32_t shard)
{
	uint64_t halves[2];

	memcpy(halves, block->key.bytes, sizeof(halves));
	return mix(mix(mix(halves[0]) ^ halves[1]) ^ ((uint64_t)shard << 32) ^ block->variant);
}

static uint64_t content_word(uint64_t seed, uint64_t index)
{
	uint64_t x = (seed ^ index) * 0x9e3779b97f4a7c15u;

	return x ^ (x >> 29);
}

void content_fill(const struct block *block, uint32_t shard, uint64_t offset, void *data,
		  uint64_t length)
{
	uint64_t seed = content_seed(block, shard), word;
	uint8_t *to = data;
	uint64_t n;

	while (length > 0) {
		word = content_word(seed, offset / 8);
		n = 8 - offset % 8;
		if (n > length)
			n = length;
		memcpy(to, (const uint8_t *)&word + offset % 8, n);
		to += n;
		offset += n;
		length -= n;
	}
}

bool content_check(const struct block *block, uint32_t shard, uint64_t offset, const void *data,
		   uint64_t length)
{
	uint8_t wanted[4096];
	const uint8_t *seen = data;
	uint64_t n;

	for (; length > 0; length -= n, seen += n, offset += n) {
		n = length < sizeof(wanted) ? length : sizeof(wanted);
		content_fill(block, shard, offset, wanted, n);
		if (memcmp(seen, wanted, n) != 0)
			return false;
	}
	return true;
}

struct cairn_xfer xfer_dump(const struct block *block, uint32_t shard, void *data)
{
	uint64_t length = block_shard_length(block, shard);
	struct cairn_xfer xfer = {
		.key = block->key,
		.shard = shard,
		.length = length,
		.stride = {data, length, length, 1},
	};

	if (block->variable) {
		xfer.shard_count = block->shape.count;
		xfer.shard_bytes = block->shape.bytes;
	}
	content_fill(block, shard, 0, data, length);
	return xfer;
}

struct cairn_xfer xfer_load(const struct block *block, uint32_t shard, uint64_t offset, void *data,
			    uint64_t length)
{
	return (struct cairn_xfer){
		.key = block->key,
		.shard = shard,
		.offset = offset,
		.length = length,
		.stride = {data, length, length, 1},
	};
}

static bool worth_retrying(const struct ctx *ctx, int ret, int tries)
{
	return ctx->suite->tolerate && tries < RETRIES && ret < 0 && ret != -EINVAL &&
	       ret != -EOPNOTSUPP && ret != WRONG_BYTES;
}

/* Moves what failed to the front, and says how many there are. */
static uint32_t keep_failed(struct cairn_xfer *xfers, uint32_t count)
{
	uint32_t i, kept = 0;

	for (i = 0; i < count; i++)
		if (xfers[i].result.status < 0)
			xfers[kept++] = xfers[i];
	return kept;
}

static int dump_range(struct ctx *ctx, const struct block *block, uint32_t first, uint32_t count)
{
	uint8_t *data = malloc(count * block->shape.bytes);
	struct cairn_xfer *xfers = calloc(count, sizeof(*xfers));
	int ret = -ENOMEM, tries = 0;
	uint32_t i;

	for (i = 0; data && xfers && i < count; i++)
		xfers[i] = xfer_dump(block, first + i, data + i * block->shape.bytes);
	do {
		count = tries > 0 ? keep_failed(xfers, count) : count;
		if (data && xfers)
			ret = cairn_dump(block->ns, xfers, count, NULL, NULL);
	} while (worth_retrying(ctx, ret, tries++));
	if (ret == 0 && xfers[0].result.status == CAIRN_PRESENT)
		ret = CAIRN_PRESENT;
	if (ret == -ETIMEDOUT)
		cairn_store_quiesce(ctx->store, UINT64_MAX);
	free(data);
	free(xfers);
	return ret;
}

int block_dump(struct ctx *ctx, const struct block *block)
{
	int ret = dump_range(ctx, block, 0, block->shape.count);

	return ret == CAIRN_PRESENT ? 0 : ret;
}

int block_dump_shard(struct ctx *ctx, const struct block *block, uint32_t shard)
{
	return dump_range(ctx, block, shard, 1);
}

static bool guard_is_set(const uint8_t *guard)
{
	size_t i;

	for (i = 0; i < GUARD; i++)
		if (guard[i] != GUARD_SET)
			return false;
	return true;
}

int block_try_range(struct ctx *ctx, const struct block *block, uint32_t shard, uint64_t offset,
		    uint64_t length)
{
	uint8_t *data = malloc(length + 2 * GUARD);
	struct cairn_xfer xfer;
	int ret;

	if (!data)
		return -ENOMEM;
	memset(data, GUARD_SET, length + 2 * GUARD);
	xfer = xfer_load(block, shard, offset, data + GUARD, length);
	ret = cairn_load(block->ns, &xfer, 1, NULL, NULL);
	if (ret == 0 && !content_check(block, shard, offset, data + GUARD, length))
		ret = WRONG_BYTES;
	if (!guard_is_set(data) || !guard_is_set(data + GUARD + length))
		ret = WRONG_BYTES;
	if (ret == -ETIMEDOUT) /* it may still be written to */
		cairn_store_quiesce(ctx->store, UINT64_MAX);
	free(data);
	return ret;
}

int block_load_range(struct ctx *ctx, const struct block *block, uint32_t shard, uint64_t offset,
		     uint64_t length)
{
	int ret, tries = 0;

	do {
		ret = block_try_range(ctx, block, shard, offset, length);
	} while (worth_retrying(ctx, ret, tries++));
	return ret;
}

int block_load(struct ctx *ctx, const struct block *block)
{
	uint32_t i;
	int ret = 0;

	for (i = 0; ret == 0 && i < block->shape.count; i++)
		ret = block_load_range(ctx, block, i, 0, block_shard_length(block, i));
	return ret;
}

int block_remove(struct ctx *ctx, const struct block *block)
{
	int ret, tries = 0;

	do {
		ret = cairn_remove(block->ns, &block->key, 1, NULL, NULL, NULL);
	} while (ret != -ENOENT && worth_retrying(ctx, ret, tries++));
	return ret;
}

int64_t block_present(const struct block *block)
{
	struct cairn_found found;

	return cairn_lookup(block->ns, &block->key, 1, &found, NULL, NULL);
}

/* ---- beside ------------------------------------------------------------------------ */

uint64_t dice_roll(struct dice *dice, uint64_t sides)
{
	dice->state += 0x9e3779b97f4a7c15u;
	return mix(dice->state) % sides;
}

uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

void sleep_ns(uint64_t ns)
{
	struct timespec left = {(time_t)(ns / SECOND), (long)(ns % SECOND)};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

uint64_t store_room(struct ctx *ctx)
{
	struct cairn_stat st = {.size = sizeof(st)};

	if (cairn_stat(ctx->store, &st) < 0 || st.bytes_limit > ctx->suite->max_bytes / 3)
		return 0;
	return st.bytes_limit;
}
