/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The delay stage: what is below it, behind a device with a service time, a
 * queue, a bandwidth, and a hang.
 *
 * The model: at most `depth` ios are in service, the others wait in the order
 * they came. Service takes `read` or `write` plus up to `jitter`; then the
 * bytes pass one after another through a pipe of `bandwidth`. The end of each io
 * is known when it comes, so there is no queue to keep: slot_free_ns[] says when
 * each place in service is free again, and the io takes the earliest.
 *
 * Invariants:
 *  1. An io goes down once, when its service is over and the device answers.
 *  2. One whose service ends later than GRACE_NS past its deadline, or that a
 *     hang keeps so long, does not go down: it comes up -ETIMEDOUT then.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "stages/error.h"
#include "stages/stages.h"

#define DELAY_MAGIC 0x796c6564u
#define DEPTH_MAX   1024u	     /* more than any device's queue */
#define GRACE_NS    100000000ull     /* past a deadline: longer than any host takes to see it */
#define NEVER_NS    3600000000000ull /* the longest that an io without a deadline stays */

enum delay_option {
	DELAY_READ,
	DELAY_WRITE,
	DELAY_JITTER,
	DELAY_BANDWIDTH,
	DELAY_DEPTH,
	DELAY_HANG,
	DELAY_HANG_AFTER,
	DELAY_HANG_FOR,
	DELAY_SEED,
};

enum delay_counter { DELAY_IOS, DELAY_QUEUED, DELAY_HUNG };

struct delay_stage {
	uint32_t magic;
	const struct cairn_stage_env *env;
	const struct cairn_stage_host *host;
	uint64_t read_ns, write_ns, jitter_ns;
	uint64_t bandwidth; /* bytes a second; 0: unlimited */
	uint32_t depth;
	uint64_t seed;
	uint64_t hang_io;     /* the io that starts the hang, from 1; 0: none */
	uint64_t hang_for_ns; /* UINT64_MAX: for ever */

	pthread_mutex_t lock; /* guards what follows */
	uint64_t ios;
	uint64_t pipe_free_ns;
	uint64_t hang_start_ns, hang_end_ns; /* start UINT64_MAX: none yet */
	uint64_t slot_free_ns[DEPTH_MAX];
};

struct delay_scratch {
	uint64_t ready_ns;   /* the end of service */
	uint64_t give_up_ns; /* when the io comes up -ETIMEDOUT if it was not answered */
};

static const struct cairn_option delay_options[] = {
	[DELAY_READ] = {"read", CAIRN_OPTION_TIME, 0, "100us", NULL, "1h", NULL,
			"service time of a load, prefetch or describe"},
	[DELAY_WRITE] = {"write", CAIRN_OPTION_TIME, 0, "100us", NULL, "1h", NULL,
			 "service time of a dump or remove"},
	[DELAY_JITTER] = {"jitter", CAIRN_OPTION_TIME, 0, "0", NULL, "1h", NULL,
			  "up to so much more, evenly spread"},
	[DELAY_BANDWIDTH] = {"bandwidth", CAIRN_OPTION_SIZE, 0, NULL, "1", NULL, NULL,
			     "bytes a second; unlimited where it is not given"},
	[DELAY_DEPTH] = {"depth", CAIRN_OPTION_COUNT, 0, "32", "1", "1024", NULL,
			 "ios in service at once; the others wait in order"},
	[DELAY_HANG] = {"hang", CAIRN_OPTION_TEXT, 0, NULL, NULL, NULL, NULL,
			"\"#n\": the n-th io (from 1) finds the device not answering"},
	[DELAY_HANG_AFTER] = {"hang_after", CAIRN_OPTION_TIME, 0, NULL, NULL, NULL, NULL,
			      "the device stops answering so long after the open"},
	[DELAY_HANG_FOR] = {"hang_for", CAIRN_OPTION_TIME, 0, NULL, NULL, NULL, NULL,
			    "how long a hang lasts; for ever where it is not given"},
	[DELAY_SEED] = {"seed", CAIRN_OPTION_COUNT, 0, "1", NULL, NULL, NULL, "of the jitter"},
};

static const struct cairn_counter_row delay_counters[] = {
	[DELAY_IOS] = {"ios", "ios that came", 0},
	[DELAY_QUEUED] = {"queued_ios", "ios that waited for a place in service", 0},
	[DELAY_HUNG] = {"hung_ios", "ios that ended at a hang or past their deadline", 0},
};

static uint64_t add_ns(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* "#n" into *ret_io. */
static int hang_parse(const char *text, uint64_t *ret_io)
{
	if (text[0] != '#' || units_parse_count(text + 1, ret_io) < 0 || *ret_io == 0)
		return -EINVAL;
	return 0;
}

static int delay_check_values(const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	const struct cairn_value *values = env->values;
	const char *why = NULL;
	uint64_t io;

	if (values[DELAY_HANG].set && hang_parse(values[DELAY_HANG].s, &io) < 0)
		why = "hang= is not the number of an io from 1; for example \"#17\" would be";
	else if (values[DELAY_HANG].set && values[DELAY_HANG_AFTER].set)
		why = "hang_after= and hang= are both given; one of them starts the hang";
	return why ? stage_error(reterr, -EINVAL, "%s: %s", env->name, why) : 0;
}

static int delay_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct delay_stage *stage = (struct delay_stage *)self;
	const struct cairn_value *values = env->values;
	const char *why = NULL;
	int code = -EINVAL;

	int ret = delay_check_values(env, reterr);

	if (ret < 0)
		return ret;
	if (values[DELAY_HANG].set)
		hang_parse(values[DELAY_HANG].s, &stage->hang_io);
	if (env->below == 0)
		why = "has no stage below it; put a tier behind it, for example "
		      "delay(read=1ms) | null()";
	else if (pthread_mutex_init(&stage->lock, NULL) != 0) {
		why = "no memory for a mutex";
		code = -ENOMEM;
	}
	if (why)
		return stage_error(reterr, code, "%s: %s", env->name, why);
	stage->env = env;
	stage->host = env->host;
	stage->read_ns = values[DELAY_READ].u;
	stage->write_ns = values[DELAY_WRITE].u;
	stage->jitter_ns = values[DELAY_JITTER].u;
	stage->bandwidth = values[DELAY_BANDWIDTH].set ? values[DELAY_BANDWIDTH].u : 0;
	stage->depth = (uint32_t)values[DELAY_DEPTH].u;
	stage->seed = values[DELAY_SEED].u;
	stage->hang_for_ns = values[DELAY_HANG_FOR].set ? values[DELAY_HANG_FOR].u : UINT64_MAX;
	stage->hang_start_ns = UINT64_MAX;
	stage->hang_end_ns = UINT64_MAX;
	if (values[DELAY_HANG_AFTER].set) {
		stage->hang_start_ns = add_ns(env->host->now_ns(), values[DELAY_HANG_AFTER].u);
		stage->hang_end_ns = add_ns(stage->hang_start_ns, stage->hang_for_ns);
	}
	assert(stage->depth >= 1 && stage->depth <= DEPTH_MAX);
	stage->magic = DELAY_MAGIC;
	return 0;
}

static void delay_close(void *self)
{
	struct delay_stage *stage = (struct delay_stage *)self;

	assert(stage->magic == DELAY_MAGIC);
	pthread_mutex_destroy(&stage->lock);
	stage->magic = 0;
}

/* The finalizer of splitmix64: Steele, Lea, Flood, "Fast splittable PRNGs", 2014. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t service_ns(const struct delay_stage *stage, const struct cairn_io *io)
{
	uint64_t ns = io->op == CAIRN_OP_DUMP || io->op == CAIRN_OP_REMOVE ? stage->write_ns
									   : stage->read_ns;

	if (stage->jitter_ns > 0)
		ns += mix(mix(stage->seed) ^ stage->ios) % (stage->jitter_ns + 1);
	return ns;
}

static uint64_t payload_bytes(const struct cairn_io *io)
{
	uint64_t bytes = 0;
	uint32_t i;

	if (io->op != CAIRN_OP_LOAD && io->op != CAIRN_OP_DUMP)
		return 0;
	for (i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			bytes += io->parts[i].length;
	return bytes;
}

/* Lock held: takes a place in service and gives the end of it. */
static uint64_t service_take(struct delay_stage *stage, const struct cairn_io *io, uint64_t now_ns)
{
	uint64_t end_ns, bytes = payload_bytes(io);
	uint32_t i, slot = 0;

	for (i = 1; i < stage->depth; i++)
		if (stage->slot_free_ns[i] < stage->slot_free_ns[slot])
			slot = i;
	if (stage->slot_free_ns[slot] > now_ns) {
		now_ns = stage->slot_free_ns[slot];
		cairn_count(stage->env, DELAY_QUEUED, 1);
	}
	end_ns = add_ns(now_ns, service_ns(stage, io));
	if (stage->bandwidth > 0 && bytes > 0) {
		/* 64 parts of 64 MiB are 2^32 bytes: the product fits. */
		assert(bytes <= (uint64_t)CAIRN_PARTS_MAX * CAIRN_SHARD_BYTES_MAX);
		if (stage->pipe_free_ns > end_ns)
			end_ns = stage->pipe_free_ns;
		end_ns = add_ns(end_ns, bytes * 1000000000u / stage->bandwidth);
		stage->pipe_free_ns = end_ns;
	}
	stage->slot_free_ns[slot] = end_ns;
	return end_ns;
}

/* When an io that nothing answers comes up. */
static uint64_t give_up_ns(const struct cairn_io *io, uint64_t now_ns)
{
	uint64_t never_ns = add_ns(now_ns, NEVER_NS);

	return io->deadline_ns < never_ns ? io->deadline_ns + GRACE_NS : never_ns;
}

/* Waits for the end of service and of a hang, or for the time to give up. */
static void delay_wait(struct delay_stage *stage, struct cairn_io *io, uint64_t ready_ns,
		       uint64_t until_ns)
{
	pthread_mutex_lock(&stage->lock);
	/* Whoever would be ready in the hang is ready at its end. */
	if (ready_ns >= stage->hang_start_ns && ready_ns < stage->hang_end_ns)
		ready_ns = stage->hang_end_ns;
	pthread_mutex_unlock(&stage->lock);
	stage->host->resume_at(io, ready_ns < until_ns ? ready_ns : until_ns);
}

static void delay_submit(void *self, struct cairn_io *io, void *memory)
{
	struct delay_stage *stage = (struct delay_stage *)self;
	struct delay_scratch *scratch = (struct delay_scratch *)memory;
	uint64_t now_ns = stage->host->now_ns();

	assert(stage->magic == DELAY_MAGIC && scratch->ready_ns == 0);
	pthread_mutex_lock(&stage->lock);
	if (++stage->ios == stage->hang_io) {
		stage->hang_start_ns = now_ns;
		stage->hang_end_ns = add_ns(now_ns, stage->hang_for_ns);
	}
	scratch->ready_ns = service_take(stage, io, now_ns);
	pthread_mutex_unlock(&stage->lock);
	cairn_count(stage->env, DELAY_IOS, 1);
	scratch->give_up_ns = give_up_ns(io, now_ns);
	delay_wait(stage, io, scratch->ready_ns, scratch->give_up_ns);
}

static void delay_resume(void *self, struct cairn_io *io, void *memory)
{
	struct delay_stage *stage = (struct delay_stage *)self;
	struct delay_scratch *scratch = (struct delay_scratch *)memory;
	uint64_t now_ns = stage->host->now_ns();
	bool hangs;

	assert(stage->magic == DELAY_MAGIC && scratch->give_up_ns > 0);
	pthread_mutex_lock(&stage->lock);
	hangs = now_ns >= stage->hang_start_ns && now_ns < stage->hang_end_ns;
	pthread_mutex_unlock(&stage->lock);
	if (now_ns >= scratch->ready_ns && !hangs) {
		stage->host->forward(io);
		return;
	}
	if (now_ns < scratch->give_up_ns) {
		/* A hang that began after this io was put in service. */
		delay_wait(stage, io, now_ns > scratch->ready_ns ? now_ns : scratch->ready_ns,
			   scratch->give_up_ns);
		return;
	}
	cairn_io_fail(io, -ETIMEDOUT);
	cairn_count(stage->env, DELAY_HUNG, 1);
	stage->host->complete(io);
}

static void delay_done(void *self, struct cairn_io *io, void *memory)
{
	struct delay_stage *stage = (struct delay_stage *)self;

	(void)memory;
	assert(stage->magic == DELAY_MAGIC);
	stage->host->complete(io);
}

const struct cairn_stage_ops cairn_stage_delay = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "delay",
	.summary = "a slow device in front of what is below: for tests",
	.option_count = sizeof(delay_options) / sizeof(delay_options[0]),
	.options = delay_options,
	.counter_count = sizeof(delay_counters) / sizeof(delay_counters[0]),
	.counters = delay_counters,
	.instance_bytes = sizeof(struct delay_stage),
	.io_bytes = 16,
	.open = delay_open,
	.close = delay_close,
	.submit = delay_submit,
	.done = delay_done,
	.resume = delay_resume,
	.check_values = delay_check_values,
};
