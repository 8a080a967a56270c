/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stages/flash/flash.h"
#include "stages/flash/tier.h"
#include "timed.h"

#define QUEUE_MAX    1024u /* of a reactor: ios, jobs and chains under way are fewer */
#define BUFFERS_MAX  8u
#define BUFFER_BYTES (512u << 10)
#define OPTIONS_MAX  32u
#define COUNTERS_MAX 64u
#define SLEEPERS     2u
#define LATE_IN	     400u /* one operation in so many takes long */
#define LATE_TIMES   100u

enum event_kind {
	EVENT_SUBMIT,
	EVENT_RESUME,
	EVENT_TIMER,
	EVENT_BUFFERS,
	EVENT_CHAIN,
	EVENT_JOB,
};

struct event {
	enum event_kind kind;
	uint32_t number; /* the io's timer */
	void *what;
};

/* A reactor; its fiber has the same number. Also what the stage takes for its engine. */
struct sim_reactor {
	struct event events[QUEUE_MAX];
	uint32_t head, tail; /* modulo QUEUE_MAX */
	struct event now;    /* what its fiber does */
	uint8_t *buffers[BUFFERS_MAX];
	bool buffer_used[BUFFERS_MAX];
	bool buffer_came;
};

static struct {
	struct sim_opts opts;
	struct kit_rng *rng;
	uint64_t now_ns;
	struct sim_reactor reactors[SIM_REACTORS_MAX];
	uint32_t running; /* reactor whose event is handled; FIBER_NONE */
	struct sim_io ios[SIM_IOS];
	uint32_t ios_used, jobs;
	struct sleeper {
		struct stage_job *job;
		uint64_t number;
	} sleepers[SLEEPERS]; /* the watch, and a reclaim while the device takes no writes */
	uint32_t sleeps;
	bool closing;
	uint32_t fences;
	uint64_t cut_at, steps, disk_ops;
	void (*done)(struct sim_io *sio);
	void (*call)(void *what);
	void *call_what;
	/* the stage */
	struct cairn_value values[OPTIONS_MAX];
	char text[512];
	uint64_t counters[COUNTERS_MAX];
	struct cairn_stage_host host;
	struct stage_env internal;
	struct cairn_error error;
	int open_result;
	uint64_t sequence;
} world;

struct flash *sim_tier;
struct cairn_stage_env sim_env;
static const struct cairn_stage_ops *const ops = &cairn_stage_flash;

/* ---- time ------------------------------------------------------------------------- */

uint64_t sim_now_ns(void)
{
	return world.now_ns;
}

static uint64_t latency(void)
{
	uint64_t ns;

	if (world.opts.even)
		return world.opts.latency_ns;
	ns = 1000 + kit_below(world.rng, world.opts.latency_ns);
	return kit_below(world.rng, LATE_IN) ? ns : ns * LATE_TIMES;
}

/* ---- messages ----------------------------------------------------------------------- */

static void post(uint32_t reactor, enum event_kind kind, void *what, uint32_t number)
{
	struct sim_reactor *r = &world.reactors[reactor];

	CHECK(r->tail - r->head < QUEUE_MAX);
	r->events[r->tail++ % QUEUE_MAX] = (struct event){kind, number, what};
}

static void chain_next(struct engine_chain *chain);

static void resume(struct sim_io *sio)
{
	ops->resume(sim_tier, &sio->io, sio->scratch);
}

/* Each that waits for a buffer tries again. */
static void buffers_try(uint32_t reactor)
{
	struct sim_io *again[SIM_IOS];
	uint32_t count = 0;

	world.reactors[reactor].buffer_came = false;
	for (uint32_t i = 0; i < SIM_IOS; i++)
		if (world.ios[i].used && world.ios[i].reactor == reactor &&
		    world.ios[i].wants_buffer)
			again[count++] = &world.ios[i];
	for (uint32_t i = 0; i < count; i++) {
		again[i]->wants_buffer = false;
		resume(again[i]);
	}
}

/* Where @job sleeps, or, of NULL, may; NULL: it does not. */
static struct sleeper *sleeper_of(const struct stage_job *job)
{
	for (uint32_t i = 0; i < SLEEPERS; i++)
		if (world.sleepers[i].job == job)
			return &world.sleepers[i];
	return NULL;
}

static void handle(void *what)
{
	struct sleeper *sleeper;
	uint32_t reactor = (uint32_t)(uintptr_t)what;
	struct event event = world.reactors[reactor].now;
	struct sim_io *sio = event.what;
	struct stage_job *job = event.what;
	struct engine_chain *chain = event.what;

	switch (event.kind) {
	case EVENT_SUBMIT:
		ops->submit(sim_tier, &sio->io, sio->scratch);
		break;
	case EVENT_RESUME:
		sio->resume_posted = false;
		resume(sio);
		break;
	case EVENT_TIMER:
		if (sio->used && sio->timer == event.number)
			resume(sio);
		break;
	case EVENT_BUFFERS:
		buffers_try(reactor);
		break;
	case EVENT_CHAIN:
		chain->done(chain);
		break;
	case EVENT_JOB:
		sleeper = sleeper_of(job);
		if (sleeper && world.closing)
			break;
		job->posted = 0;
		if (sleeper) {
			sleeper->job = NULL;
			world.jobs++;
		}
		job->run(job);
		break;
	}
}

/* ---- the fence ------------------------------------------------------------------------ */

uint32_t sim_fences(void)
{
	return world.fences;
}

/* Who was sent while the tier is fenced has nothing to wait for. */
static void none_waits(void)
{
	if (world.fences % 2 == 0)
		return;
	for (uint32_t i = 0; i < SIM_IOS; i++)
		CHECK(!world.ios[i].used || world.ios[i].fences != world.fences,
		      "op %u waits for a device that is fenced", world.ios[i].io.op);
}

/* ---- the engine ------------------------------------------------------------------------ */

/* In a chain's engine_private: which op is under way, and whose it is. */
enum { AT, REACTOR };

static void op_begin(struct engine_chain *chain)
{
	struct engine_op *op = &chain->ops[chain->engine_private[AT]];
	enum disk_kind kind = op->code == OP_READV    ? DISK_READ
			      : op->code == OP_WRITEV ? DISK_WRITE
						      : DISK_SYNC;

	CHECK(kind != DISK_SYNC || op->code == OP_FDATASYNC || op->code == OP_FSYNC);
	world.disk_ops++;
	timed_add((struct timed){.when_ns = world.now_ns + latency(),
				 .what = chain,
				 .kind = TIMED_OP,
				 .number = disk_begin(kind, op->iov, op->iov_count, op->offset),
				 .write = kind != DISK_READ,
				 .began_ns = world.now_ns});
}

static void op_end(struct engine_chain *chain, uint32_t number, bool fail)
{
	struct engine_op *op = &chain->ops[chain->engine_private[AT]];

	op->result = disk_end(number, fail);
	if (op->result < 0 && !op->soft && !chain->result)
		chain->result = op->result;
	chain->engine_private[AT]++;
	chain_next(chain);
}

static void chain_next(struct engine_chain *chain)
{
	while (chain->result < 0 && chain->engine_private[AT] < chain->op_count)
		chain->ops[chain->engine_private[AT]++].result = -ECANCELED;
	if (chain->engine_private[AT] < chain->op_count)
		op_begin(chain);
	else
		post((uint32_t)chain->engine_private[REACTOR], EVENT_CHAIN, chain, 0);
}

static int engine_submit(struct engine *engine, struct engine_chain *chain)
{
	struct sim_reactor *r = (struct sim_reactor *)(void *)engine;

	CHECK((uint32_t)(r - world.reactors) == world.running, "an engine of another's");
	CHECK(chain->op_count > 0 && chain->op_count <= ENGINE_CHAIN_OPS_MAX);
	chain->result = 0;
	chain->engine_private[AT] = 0;
	chain->engine_private[REACTOR] = world.running;
	chain_next(chain);
	return 0;
}

static const struct engine_ops engine_ops = {.name = "sim", .submit = engine_submit};

static struct engine *engine_of(uint32_t reactor, const struct engine_ops **ret_ops)
{
	CHECK(reactor == world.running, "the engine of another's thread");
	*ret_ops = &engine_ops;
	return (struct engine *)(void *)&world.reactors[reactor];
}

static struct engine *io_engine(struct cairn_io *io, const struct engine_ops **ret_ops)
{
	CHECK(world.fences % 2 == 0 || ((struct sim_io *)(void *)io)->fences != world.fences,
	      "a device that is fenced is given something");
	return engine_of(((struct sim_io *)(void *)io)->reactor, ret_ops);
}

int64_t sim_disk_wait(enum disk_kind kind, const struct iovec *iov, int iov_count, uint64_t at)
{
	uint32_t number = disk_begin(kind, iov, iov_count, at);
	int64_t result;

	world.disk_ops++;
	timed_add((struct timed){.when_ns = world.now_ns + latency(),
				 .kind = TIMED_WAKE,
				 .number = fiber_self(),
				 .write = true,
				 .began_ns = world.now_ns});
	fiber_wait();
	result = disk_end(number, false);
	return result < 0 || kind == DISK_WRITE ? result : 0;
}

/* ---- jobs ------------------------------------------------------------------------------ */

static uint32_t reactor_of(const struct stage_job *job)
{
	return (uint32_t)((struct sim_reactor *)(void *)job->reactor - world.reactors);
}

static void job_again(struct stage_job *job)
{
	CHECK(job->reactor);
	if (!job->posted)
		post(reactor_of(job), EVENT_JOB, job, 0);
	job->posted = 1;
}

static void job_start(const struct cairn_stage_env *env, struct stage_job *job, uint32_t spread)
{
	(void)env;
	CHECK(!job->reactor);
	job->reactor = (struct reactor *)(void *)&world.reactors[spread % world.opts.reactors];
	world.jobs++;
	job_again(job);
}

static void job_end(const struct cairn_stage_env *env, struct stage_job *job)
{
	(void)env;
	CHECK(job->reactor && !job->posted && world.jobs > 0);
	CHECK(reactor_of(job) == world.running);
	job->reactor = NULL;
	world.jobs--;
}

/* Where nobody watches, the watch never runs again: the clock would leap for it. */
static void job_sleep(struct stage_job *job, uint64_t when_ns)
{
	struct sleeper *sleeper = sleeper_of(NULL);
	bool watch = (void *)job != (void *)sim_tier->reclaim;

	CHECK(job->reactor && world.jobs > 0 && sleeper && !sleeper_of(job));
	CHECK(reactor_of(job) == world.running);
	world.jobs--;
	*sleeper = (struct sleeper){job, ++world.sleeps};
	if ((world.opts.hang_ns || !watch) && when_ns != UINT64_MAX)
		timed_add((struct timed){.when_ns = when_ns,
					 .what = job,
					 .kind = TIMED_JOB,
					 .number = world.sleeps});
}

static struct engine *job_engine(struct stage_job *job, const struct engine_ops **ret_ops)
{
	CHECK(job->reactor);
	return engine_of(reactor_of(job), ret_ops);
}

static void sequence_raise(const struct cairn_stage_env *env, uint64_t at_least)
{
	(void)env;
	if (world.sequence < at_least)
		world.sequence = at_least;
}

static uint64_t sequence_now(const struct cairn_stage_env *env)
{
	(void)env;
	return world.sequence;
}

/* ---- the stage's host --------------------------------------------------------------------- */

static void host_complete(struct cairn_io *io)
{
	struct sim_io *sio = (struct sim_io *)(void *)io;

	CHECK(sio->used && sio->reactor == world.running);
	CHECK(!sio->resume_posted && !sio->wants_buffer, "a resume() is to come");
	for (uint32_t i = 0; i < io->part_count; i++)
		CHECK(io->parts[i].status != CAIRN_PENDING);
	CHECK(io->part_count || io->status != CAIRN_PENDING);
	sio->timer++;
	world.done(sio);
	sio->used = false;
	world.ios_used--;
}

static void host_resume(struct cairn_io *io)
{
	struct sim_io *sio = (struct sim_io *)(void *)io;

	CHECK(sio->used);
	if (!sio->resume_posted)
		post(sio->reactor, EVENT_RESUME, sio, 0);
	sio->resume_posted = true;
}

static void host_resume_at(struct cairn_io *io, uint64_t when_ns)
{
	struct sim_io *sio = (struct sim_io *)(void *)io;

	CHECK(sio->used && sio->reactor == world.running);
	sio->timer++;
	if (when_ns == UINT64_MAX)
		return;
	timed_add((struct timed){
		.when_ns = when_ns, .what = sio, .kind = TIMED_RESUME, .number = sio->timer});
}

static void *host_buffer_get(struct cairn_io *io, size_t bytes)
{
	struct sim_io *sio = (struct sim_io *)(void *)io;
	struct sim_reactor *r = &world.reactors[sio->reactor];

	CHECK(bytes <= BUFFER_BYTES && sio->reactor == world.running);
	for (uint32_t i = 0; i < world.opts.buffers; i++) {
		if (r->buffer_used[i])
			continue;
		r->buffer_used[i] = true;
		return r->buffers[i];
	}
	sio->wants_buffer = true;
	return NULL;
}

static void host_buffer_put(struct cairn_io *io, void *buffer)
{
	uint32_t reactor = ((struct sim_io *)(void *)io)->reactor, at = 0;
	struct sim_reactor *r = &world.reactors[reactor];

	CHECK(reactor == world.running);
	while (at < world.opts.buffers && r->buffers[at] != buffer)
		at++;
	CHECK(at < world.opts.buffers && r->buffer_used[at]);
	r->buffer_used[at] = false;
	if (!r->buffer_came)
		post(reactor, EVENT_BUFFERS, r, 0);
	r->buffer_came = true;
}

/* ---- open and close ----------------------------------------------------------------------- */

static void values_take(const char *options)
{
	char *rest = world.text, *option;

	memset(world.values, 0, sizeof(world.values));
	snprintf(world.text, sizeof(world.text), "path=/sim/store;open_wait=0;hang=%lu;%s",
		 world.opts.hang_ns ? (unsigned long)world.opts.hang_ns : 10000000000ul, options);
	while ((option = strsep(&rest, ";")) != NULL && *option) {
		char *value = strchr(option, '=');
		uint32_t row = 0;

		CHECK(value);
		*value++ = '\0';
		while (row < ops->option_count && strcmp(ops->options[row].name, option) != 0)
			row++;
		CHECK(row < ops->option_count && row < OPTIONS_MAX, "%s", option);
		/* Choices are given by their number. */
		world.values[row] =
			(struct cairn_value){.set = 1, .u = strtoull(value, NULL, 10), .s = value};
	}
}

static int engine_early(const struct cairn_stage_env *env, uint32_t chains_max,
			const struct engine_ops **ret_ops, struct engine **ret_engine)
{
	struct engine_opts opts = {.chains_max = chains_max, .guard_fd = -1};

	(void)env;
	*ret_ops = &sim_open_engine;
	return sim_open_engine.open(&opts, ret_engine);
}

static void engine_early_end(const struct cairn_stage_env *env)
{
	(void)env;
	sim_open_engine.close(NULL);
}

static void env_make(void)
{
	world.host = (struct cairn_stage_host){
		.size = sizeof(world.host),
		.complete = host_complete,
		.resume_at = host_resume_at,
		.resume = host_resume,
		.now_ns = sim_now_ns,
		.buffer_get = host_buffer_get,
		.buffer_put = host_buffer_put,
		.buffer_max = BUFFER_BYTES,
	};
	world.internal = (struct stage_env){
		.sys = &sim_sys,
		.engine = io_engine,
		.engine_early = engine_early,
		.engine_early_end = engine_early_end,
		.sequence_raise = sequence_raise,
		.sequence_now = sequence_now,
		.job_start = job_start,
		.job_again = job_again,
		.job_end = job_end,
		.job_sleep = job_sleep,
		.job_engine = job_engine,
	};
	sim_env = (struct cairn_stage_env){
		.size = sizeof(sim_env),
		.host = &world.host,
		.name = "flash",
		.values = world.values,
		.counters = world.counters,
		.internal = &world.internal,
	};
	CHECK(ops->counter_count <= COUNTERS_MAX);
	memset(world.counters, 0, sizeof(world.counters));
}

static void call_main(void *what)
{
	world.call(what);
}

void sim_call(void (*fn)(void *what), void *what)
{
	world.call = fn;
	world.call_what = what;
	fiber_start(SIM_CALLER, call_main, what);
}

bool sim_caller_busy(void)
{
	return !fiber_idle(SIM_CALLER);
}

static void open_run(void *what)
{
	(void)what;
	world.open_result = ops->open(sim_tier, &sim_env, &world.error);
}

void sim_open(const char *options)
{
	values_take(options);
	env_make();
	memset(&world.error, 0, sizeof(world.error));
	memset(sim_tier, 0, ops->instance_bytes);
	sim_call(open_run, NULL);
}

int sim_open_result(void)
{
	if (world.open_result < 0)
		kit_at("%s", world.error.text);
	return world.open_result;
}

static void close_run(void *what)
{
	ops->close(what);
}

void sim_close(void)
{
	CHECK(!world.ios_used && !world.jobs && !sim_caller_busy());
	world.closing = true; /* who sleeps goes as it is */
	sim_call(close_run, sim_tier);
}

/* ---- ios ------------------------------------------------------------------------------------ */

struct sim_io *sim_io_new(struct cairn_ns_view *ns, enum cairn_op op)
{
	struct sim_io *sio = world.ios;
	uint8_t *data;
	void *scratch;
	uint32_t timer;

	while (sio < world.ios + SIM_IOS && sio->used)
		sio++;
	if (sio == world.ios + SIM_IOS)
		return NULL;
	data = sio->data;
	scratch = sio->scratch;
	timer = sio->timer;
	memset(sio, 0, offsetof(struct sim_io, iovs));
	memset(&sio->data, 0, sizeof(*sio) - offsetof(struct sim_io, data));
	sio->data = data;
	sio->scratch = scratch;
	sio->timer = timer;
	sio->io = (struct cairn_io){
		.op = (uint32_t)op,
		.status = CAIRN_PENDING,
		.ns = ns,
		.parts = sio->parts,
		.deadline_ns = UINT64_MAX,
	};
	return sio;
}

void sim_io_send(struct sim_io *sio)
{
	sio->used = true;
	sio->fences = world.fences;
	sio->sent_ns = world.now_ns;
	sio->io.sequence = ++world.sequence;
	sio->reactor = sio->io.key.bytes[15] % world.opts.reactors;
	memset(sio->scratch, 0xa5, ops->io_bytes); /* what is not zeroed is anything */
	memset(sio->scratch, 0, cairn_stage_zeroed(ops));
	world.ios_used++;
	post(sio->reactor, EVENT_SUBMIT, sio, 0);
}

uint32_t sim_ios(void)
{
	return world.ios_used;
}

uint32_t sim_jobs(void)
{
	return world.jobs;
}

uint64_t sim_counter(const char *name)
{
	for (uint32_t i = 0; i < ops->counter_count; i++)
		if (strcmp(ops->counters[i].name, name) == 0)
			return world.counters[i];
	CHECK(false, "no counter %s", name);
}

/* ---- one event ------------------------------------------------------------------------------- */

static void reactor_run(uint32_t reactor)
{
	struct sim_reactor *r = &world.reactors[reactor];

	world.running = reactor;
	if (!fiber_idle(reactor)) {
		fiber_go_on(reactor);
	} else {
		r->now = r->events[r->head++ % QUEUE_MAX];
		if (world.opts.leave_per_mille)
			fiber_start(reactor, handle, (void *)(uintptr_t)reactor);
		else
			handle((void *)(uintptr_t)reactor);
	}
	world.running = FIBER_NONE;
}

static bool can_run(uint32_t fiber)
{
	const struct sim_reactor *r = &world.reactors[fiber];

	if (!fiber_idle(fiber))
		return fiber_ready(fiber);
	return fiber != SIM_CALLER && r->head != r->tail;
}

static void time_passes(void)
{
	struct timed timed = timed_take();
	struct sim_io *sio = timed.what;
	struct sleeper *sleeper;

	if (timed.when_ns > world.now_ns)
		world.now_ns = timed.when_ns;
	if (timed_hangs(&timed))
		return;
	switch ((enum timed_kind)timed.kind) {
	case TIMED_OP:
		op_end(timed.what, timed.number, timed_fails(&timed, world.rng));
		return;
	case TIMED_JOB:
		sleeper = sleeper_of(timed.what);
		if (sleeper && sleeper->number == timed.number)
			job_again(timed.what);
		return;
	case TIMED_WAKE:
		fiber_wake(timed.number);
		return;
	case TIMED_RESUME:
		if (sio->used && sio->timer == timed.number)
			post(sio->reactor, EVENT_TIMER, sio, timed.number);
		return;
	}
}

bool sim_step(void)
{
	uint32_t ready[FIBERS_MAX], count = 0;

	world.steps++;
	for (uint32_t i = 0; i <= SIM_CALLER; i++)
		if (can_run(i))
			ready[count++] = i;
	if (!count)
		none_waits();
	if (timed_any() && (!count || kit_below(world.rng, 100) < world.opts.hurry)) {
		time_passes();
		return true;
	}
	if (!count)
		return false;
	count = ready[count == 1 ? 0 : kit_below(world.rng, count)];
	if (count == SIM_CALLER)
		fiber_go_on(count);
	else
		reactor_run(count);
	world.fences += sim_tier->fenced != (world.fences % 2 == 1);
	return true;
}

/* ---- the power ------------------------------------------------------------ */

void sim_cut_in(uint64_t events)
{
	world.cut_at = events ? disk_events() + events : UINT64_MAX;
}

bool sim_cut_due(void)
{
	return disk_events() >= world.cut_at;
}

/* Nothing is under way any more. */
static void forget_all(void)
{
	fibers_abandon();
	timed_clear();
	world.ios_used = world.jobs = 0;
	memset(world.sleepers, 0, sizeof(world.sleepers));
	world.closing = false;
	world.fences += world.fences % 2;
	world.running = FIBER_NONE;
	for (uint32_t i = 0; i < SIM_IOS; i++)
		world.ios[i].used = false;
	for (uint32_t i = 0; i < SIM_REACTORS_MAX; i++) {
		world.reactors[i].head = world.reactors[i].tail = 0;
		memset(world.reactors[i].buffer_used, 0, sizeof(world.reactors[i].buffer_used));
		world.reactors[i].buffer_came = false;
	}
	world.cut_at = UINT64_MAX;
}

void sim_cut(uint64_t counts[DISK_AREAS])
{
	disk_cut(counts);
	forget_all();
	sim_sys_drop();
}

uint64_t sim_allocations(void)
{
	return sim_sys_allocations();
}

void sim_figures(uint64_t *ret_steps, uint64_t *ret_disk_ops)
{
	*ret_steps = world.steps;
	if (ret_disk_ops)
		*ret_disk_ops = world.disk_ops;
}

/* ---- a world ------------------------------------------------------------ */

static void memory_make(void)
{
	if (sim_tier)
		return;
	sim_tier = aligned_alloc(64, (ops->instance_bytes + 63) & ~63ul);
	CHECK(sim_tier);
	for (uint32_t i = 0; i < SIM_IOS; i++) {
		world.ios[i].data = malloc(SIM_DATA);
		world.ios[i].scratch = aligned_alloc(64, (ops->io_bytes + 63) & ~63ul);
		CHECK(world.ios[i].data && world.ios[i].scratch);
	}
	for (uint32_t i = 0; i < SIM_REACTORS_MAX; i++)
		for (uint32_t j = 0; j < BUFFERS_MAX; j++) {
			world.reactors[i].buffers[j] = aligned_alloc(4096, BUFFER_BYTES);
			CHECK(world.reactors[i].buffers[j]);
		}
}

void sim_init(const struct sim_opts *opts, size_t disk_bytes, struct kit_rng *rng,
	      enum disk_area (*where)(uint64_t at, size_t length, const uint8_t *bytes),
	      void (*done)(struct sim_io *sio))
{
	CHECK(opts->reactors <= SIM_REACTORS_MAX && opts->buffers <= BUFFERS_MAX);
	memory_make();
	world.opts = *opts;
	world.rng = rng;
	world.now_ns = 1000000000;
	world.sequence = 0;
	world.done = done;
	fibers_begin(rng, opts->leave_per_mille);
	forget_all();
	disk_init(disk_bytes, rng, where);
	sim_sys_init(disk_bytes, opts->sectors, rng);
}

void sim_fini(void)
{
	forget_all();
	sim_sys_drop();
	disk_fini();
}
