/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault stage: makes what passes through it fail, by rules. Given the same
 * order of calls the same calls fail.
 *
 * Invariants:
 *  1. Each part (or io without parts) that goes down is one call of its operation.
 *  2. A part that a rule hit is never handed down, but for a short load, which
 *     is handed down cut and comes up -EIO.
 *  3. An io with a part that hangs is not handed down at all: it comes up
 *     -ETIMEDOUT, HANG_AFTER_NS past its deadline.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "stages/error.h"
#include "stages/fault/rules.h"
#include "stages/stages.h"

#define FAULT_MAGIC   0x746c6166u
#define HANG_AFTER_NS 100000000ull     /* past the deadline: longer than any host takes to see it */
#define HANG_MAX_NS   3600000000000ull /* where there is no deadline: every call ends */

enum fault_option { FAULT_RULE, FAULT_SEED };
enum fault_counter { FAULT_FAULTS, FAULT_SHORTS, FAULT_HANGS };

struct fault_stage {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	uint64_t seed;
	uint32_t rule_count;
	struct fault_rule rules[FAULT_RULES_MAX];

	pthread_mutex_t lock;
	uint64_t calls[CAIRN_OP_DESCRIBE + 1]; /* under lock */
};

/* What a part was before it was cut; in each io. */
struct fault_cut {
	const struct iovec *iov; /* NULL: not cut */
	uint32_t iov_count;
	uint64_t length;
	struct iovec half;
};

struct fault_scratch {
	struct fault_cut cuts[CAIRN_PARTS_MAX];
};

static const struct cairn_option fault_options[] = {
	[FAULT_RULE] = {"rule", CAIRN_OPTION_TEXT, CAIRN_OPTION_REQUIRED, NULL, NULL, NULL, NULL,
			"operation:outcome:when, several separated by commas: "
			"\"load:EIO:0.2,dump:ENOSPC:#17\""},
	[FAULT_SEED] = {"seed", CAIRN_OPTION_COUNT, 0, "1", NULL, NULL, NULL,
			"of the probabilities"},
};

static const struct cairn_counter_row fault_counters[] = {
	[FAULT_FAULTS] = {"faults", "calls made to fail", 0},
	[FAULT_SHORTS] = {"shorts", "loads cut short", 0},
	[FAULT_HANGS] = {"hangs", "ios that hung past their deadline", 0},
};

static int fault_check_values(const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct fault_rule rules[FAULT_RULES_MAX];
	char why[CAIRN_ERROR_TEXT_MAX / 2] = "";
	int count = fault_rules_parse(env->values[FAULT_RULE].s, rules, why, sizeof(why));

	return count < 0 ? stage_error(reterr, count, "%s: %s", env->name, why) : 0;
}

static int fault_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct fault_stage *stage = (struct fault_stage *)self;
	char why[CAIRN_ERROR_TEXT_MAX / 2] = "";
	int count = fault_rules_parse(env->values[FAULT_RULE].s, stage->rules, why, sizeof(why));
	int code = count < 0 ? count : 0;

	if (code == 0 && env->below == 0) {
		code = -EINVAL;
		snprintf(why, sizeof(why),
			 "has no stage below it; put a tier behind it, for "
			 "example fault(...) | null()");
	}
	if (code == 0 && pthread_mutex_init(&stage->lock, NULL) != 0) {
		code = -ENOMEM;
		snprintf(why, sizeof(why), "no memory for a mutex");
	}
	if (code < 0)
		return stage_error(reterr, code, "%s: %s", env->name, why);
	stage->env = env;
	stage->host = env->host;
	stage->seed = env->values[FAULT_SEED].u;
	stage->rule_count = (uint32_t)count;
	stage->magic = FAULT_MAGIC;
	return 0;
}

static void fault_close(void *self)
{
	struct fault_stage *stage = (struct fault_stage *)self;

	assert(stage->magic == FAULT_MAGIC);
	pthread_mutex_destroy(&stage->lock);
	stage->magic = 0;
}

/* Counts a call of @op. The first rule that hits it, or NULL. */
static const struct fault_rule *fault_decide(struct fault_stage *stage, uint32_t op)
{
	uint64_t call;
	uint32_t i;

	pthread_mutex_lock(&stage->lock);
	call = ++stage->calls[op];
	pthread_mutex_unlock(&stage->lock);
	for (i = 0; i < stage->rule_count; i++)
		if (stage->rules[i].op == op &&
		    fault_rule_hits(&stage->rules[i], i, call, stage->seed))
			return &stage->rules[i];
	return NULL;
}

/* Leaves about the first half of the part; nothing to leave: -EIO at once. */
static void part_cut(struct cairn_part *part, struct fault_cut *cut)
{
	uint32_t i;

	assert(!cut->iov && part->iov_count > 0);
	if (part->length < 2) {
		part->status = -EIO;
		return;
	}
	cut->iov = part->iov;
	cut->iov_count = part->iov_count;
	cut->length = part->length;
	if (part->iov_count > 1) {
		part->iov_count /= 2;
		part->length = 0;
		for (i = 0; i < part->iov_count; i++)
			part->length += part->iov[i].iov_len;
	} else {
		part->length /= 2;
		cut->half = (struct iovec){part->iov[0].iov_base, (size_t)part->length};
		part->iov = &cut->half;
	}
}

/* Decides on each pending part. True: the io hangs. */
static bool parts_decide(struct fault_stage *stage, struct cairn_io *io,
			 struct fault_scratch *scratch)
{
	const struct fault_rule *rule;
	bool hangs = false;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		if (io->parts[i].status != CAIRN_PENDING)
			continue;
		rule = fault_decide(stage, io->op);
		if (!rule)
			continue;
		switch (rule->outcome) {
		case FAULT_ERROR:
			io->parts[i].status = rule->error;
			cairn_count(stage->env, FAULT_FAULTS, 1);
			break;
		case FAULT_SHORT:
			part_cut(&io->parts[i], &scratch->cuts[i]);
			cairn_count(stage->env, FAULT_SHORTS, 1);
			break;
		case FAULT_HANG:
			hangs = true;
			break;
		case FAULT_NONE:
			assert(false);
		}
	}
	return hangs;
}

static void fault_hang(struct fault_stage *stage, struct cairn_io *io)
{
	uint64_t until = stage->host->now_ns() + HANG_MAX_NS;

	if (io->deadline_ns < until)
		until = io->deadline_ns + HANG_AFTER_NS;
	cairn_count(stage->env, FAULT_HANGS, 1);
	stage->host->resume_at(io, until);
}

/* Puts back what was cut; what went well that far is an error all the same. */
static void parts_restore(struct cairn_io *io, struct fault_scratch *scratch)
{
	struct fault_cut *cut;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		cut = &scratch->cuts[i];
		if (!cut->iov)
			continue;
		io->parts[i].iov = cut->iov;
		io->parts[i].iov_count = cut->iov_count;
		io->parts[i].length = cut->length;
		if (io->parts[i].status == 0)
			io->parts[i].status = -EIO;
		cut->iov = NULL;
	}
}

static bool io_is_pending(const struct cairn_io *io)
{
	uint32_t i;

	if (io->part_count == 0)
		return io->status == CAIRN_PENDING;
	for (i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			return true;
	return false;
}

static void fault_submit(void *self, struct cairn_io *io, void *memory)
{
	struct fault_stage *stage = (struct fault_stage *)self;
	struct fault_scratch *scratch = (struct fault_scratch *)memory;
	const struct fault_rule *rule;
	bool hangs = false;

	assert(stage->magic == FAULT_MAGIC);
	assert(io->op >= CAIRN_OP_LOAD && io->op <= CAIRN_OP_DESCRIBE);
	if (io->part_count > 0) {
		hangs = parts_decide(stage, io, scratch);
	} else {
		rule = fault_decide(stage, io->op);
		hangs = rule && rule->outcome == FAULT_HANG;
		if (rule && !hangs) {
			io->status = rule->error;
			cairn_count(stage->env, FAULT_FAULTS, 1);
		}
	}
	if (hangs)
		fault_hang(stage, io);
	else if (io_is_pending(io))
		stage->host->forward(io);
	else
		stage->host->complete(io);
}

static void fault_done(void *self, struct cairn_io *io, void *memory)
{
	struct fault_stage *stage = (struct fault_stage *)self;

	assert(stage->magic == FAULT_MAGIC);
	parts_restore(io, (struct fault_scratch *)memory);
	stage->host->complete(io);
}

/* The hang is over: nothing of it was handed down. */
static void fault_resume(void *self, struct cairn_io *io, void *memory)
{
	struct fault_stage *stage = (struct fault_stage *)self;

	assert(stage->magic == FAULT_MAGIC);
	parts_restore(io, (struct fault_scratch *)memory);
	cairn_io_fail(io, -ETIMEDOUT);
	stage->host->complete(io);
}

const struct cairn_stage_ops cairn_stage_fault = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "fault",
	.summary = "makes calls fail by rules: for tests",
	.option_count = sizeof(fault_options) / sizeof(fault_options[0]),
	.options = fault_options,
	.counter_count = sizeof(fault_counters) / sizeof(fault_counters[0]),
	.counters = fault_counters,
	.instance_bytes = sizeof(struct fault_stage),
	.io_bytes = (sizeof(struct fault_scratch) + 15) / 16 * 16,
	.open = fault_open,
	.close = fault_close,
	.submit = fault_submit,
	.done = fault_done,
	.resume = fault_resume,
	.check_values = fault_check_values,
};
