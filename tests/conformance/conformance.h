/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance suite: what any pipeline must do, tried through the public
 * calls alone. Content is a function of key, shard and position, so that any
 * wrong byte is seen at once.
 *
 * A case runs in a process of its own, on a store of its own, in namespaces
 * that no other run has.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cairn/store.h>
#include <cairn/task.h>

#define MS	    1000000ull
#define SECOND	    1000000000ull
#define WHY_MAX	    400
#define WRONG_BYTES (-100000) /* what a load helper says when it loaded what was never dumped */

enum verdict { CASE_PASSED, CASE_FAILED, CASE_SKIPPED };

struct suite {
	const char *pipeline;
	bool json, list, in_process;
	bool tolerate;	    /* any error may come at any time; wrong bytes may not */
	bool reopen;	    /* the pipeline must keep what it has over a close */
	const char *only;   /* cases whose name holds this; NULL: all */
	uint64_t max_bytes; /* what one case may put into the store */
	uint64_t case_ns;   /* what one case may take */
	uint64_t run_id;
};

#define CTX_MEMORY_MAX 64

struct ctx {
	const struct suite *suite;
	const char *name; /* of the case */
	char why[WHY_MAX];
	struct cairn_store *store;
	struct cairn_namespace *fixed;	  /* FIXED_SHAPE */
	struct cairn_namespace *variable; /* any shape */
	void *memory[CTX_MEMORY_MAX];	  /* freed after the store was closed */
	uint32_t memory_count;
};

/* ---- cases ------------------------------------------------------------------- */

#define CASE_TOLERANT  0x1u /* makes sense where any call may fail */
#define CASE_OWN_STORE 0x2u /* opens its store itself */

typedef enum verdict case_fn(struct ctx *ctx);

struct test_case {
	const char *name, *what;
	case_fn *run;
	uint32_t flags;
	uint64_t needs_bytes; /* room in the store; 0: a few hundred KiB */
};

struct case_list {
	const struct test_case *cases;
	size_t count;
};

extern const struct case_list cases_keys, cases_blocks, cases_parts, cases_tasks, cases_limits,
	cases_arguments, cases_memory, cases_threads, cases_store;

/* Notes why and where; the verdict to return. */
__attribute__((format(printf, 4, 5))) enum verdict ctx_fail(struct ctx *ctx, const char *file,
							    int line, const char *format, ...);
enum verdict ctx_skip(struct ctx *ctx, const char *why);

/* The case fails unless @condition; the rest says what was seen. */
#define WANT(ctx, condition, ...)                                                                  \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return ctx_fail((ctx), __FILE__, __LINE__, __VA_ARGS__);                   \
	} while (0)

/* The case fails unless @expression is @wanted: statuses and counts. */
#define WANT_IS(ctx, expression, wanted)                                                           \
	do {                                                                                       \
		long long seen_ = (long long)(expression);                                         \
		if (seen_ != (long long)(wanted))                                                  \
			return ctx_fail((ctx), __FILE__, __LINE__, "%s gave %s, not %s",           \
					#expression, status_text(seen_), #wanted);                 \
	} while (0)

/* "-ENOENT", "wrong bytes", "17"; one of a few static places. */
const char *status_text(long long status);

/* ---- stores ------------------------------------------------------------------ */

/*
 * Opens the pipeline, with @stages (NULL: none; "delay(read=1ms)") put on top, into ctx->store,
 * and the two namespaces. 0 or a negative errno, with ctx->why.
 */
int ctx_open(struct ctx *ctx, const char *stages);

/* Closes it, waiting as long as a case may take. */
int ctx_close(struct ctx *ctx);

/* Zeroed memory that lives until the store is closed. Ends the program when there is none. */
void *ctx_alloc(struct ctx *ctx, size_t bytes);

/* A description that no other run or case has; @tag tells those of a case apart. */
struct cairn_namespace_desc ctx_desc(struct ctx *ctx, const char *tag, uint32_t shard_count,
				     uint64_t shard_bytes);

/* ---- blocks ------------------------------------------------------------------ */

struct shape {
	uint32_t count;
	uint64_t bytes, last; /* of every shard but the last, and of the last */
};

#define FIXED_COUNT 4u
#define FIXED_BYTES 5000u
extern const struct shape fixed_shape;

struct block {
	struct cairn_namespace *ns;
	struct cairn_key key;
	struct shape shape;
	uint64_t variant; /* other content under the same key */
	bool variable;
};

struct block block_fixed(struct ctx *ctx, uint64_t number);
struct block block_variable(struct ctx *ctx, uint64_t number, struct shape shape);
uint64_t block_shard_length(const struct block *block, uint32_t shard);

/* @length bytes of the block's shard from @offset on. */
void content_fill(const struct block *block, uint32_t shard, uint64_t offset, void *data,
		  uint64_t length);
bool content_check(const struct block *block, uint32_t shard, uint64_t offset, const void *data,
		   uint64_t length);

/* Fills in all of an xfer of a dump or load but its buffer: one run at @data. */
struct cairn_xfer xfer_dump(const struct block *block, uint32_t shard, void *data);
struct cairn_xfer xfer_load(const struct block *block, uint32_t shard, uint64_t offset, void *data,
			    uint64_t length);

/*
 * One task, waited for; its return. Where errors are tolerated, what ended with
 * another error than -EINVAL or -EOPNOTSUPP is tried again, many times.
 */
int block_dump(struct ctx *ctx, const struct block *block); /* all shards */
int block_dump_shard(struct ctx *ctx, const struct block *block, uint32_t shard);

/* Loads and compares: 0, a negative errno, or WRONG_BYTES. Nothing beside the range is written. */
int block_load(struct ctx *ctx, const struct block *block);
int block_load_range(struct ctx *ctx, const struct block *block, uint32_t shard, uint64_t offset,
		     uint64_t length);

/* As block_load_range(), but tried once, whatever is tolerated. */
int block_try_range(struct ctx *ctx, const struct block *block, uint32_t shard, uint64_t offset,
		    uint64_t length);

int block_remove(struct ctx *ctx, const struct block *block);

/* 1 or 0; or a negative errno. */
int64_t block_present(const struct block *block);

/* ---- beside ------------------------------------------------------------------ */

struct dice {
	uint64_t state;
};
uint64_t dice_roll(struct dice *dice, uint64_t sides); /* 0 to sides - 1 */

uint64_t clock_ns(void);
void sleep_ns(uint64_t ns);

/* What can be put into the store for a test of its bound; 0: unbounded, or too large to fill. */
uint64_t store_room(struct ctx *ctx);

#endif
