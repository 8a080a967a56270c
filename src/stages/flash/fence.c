/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that does not answer.
 *
 * Invariants, numbered:
 *  1. What is given to the device is counted as it begins and as it ends. While
 *     something is out and nothing has ended for hang=, the tier is fenced.
 *  2. A fenced tier gives the device nothing but the probe: lookups and loads miss,
 *     dumps end -EIO, and so do removes, after they have taken effect in memory.
 *     Nothing that was under way is given up: it goes on when it is answered.
 *  3. The fence comes down when the device answers: to a probe, a direct read of the
 *     superblock, or, where there is no direct read, to what was out. What is out even
 *     then is not waited for until as much was answered: which of it that was nobody
 *     knows, and a fence too many costs a few misses.
 *  4. The watch is one job. It has a timer while the device is being used, and none,
 *     nor anything else to do, when it is not. Each probe is a job of its own, so that
 *     the watch looks on when one is never answered; then there is another, after twice
 *     the time, PROBES of them at once.
 */
#include "base/atomic.h"
#include "stages/flash/tier.h"

/* The watch looks so often in one hang=, and after an error of the probe. */
#define LOOKS	 4u
#define AGAIN_NS 1000000000u
#define PROBES	 4u

/* On the watch's reactor. */
struct probe {
	struct stage_job job;
	struct fence *fence;
	struct engine_chain chain;
	struct engine_op op;
	struct iovec iov;
	uint8_t *page;
	bool out;
};

struct fence {
	struct stage_job job;
	struct flash *tier;
	struct probe probes[PROBES];
	int fd; /* that probes read directly; -1: none */
	uint64_t hang_ns;
	uint64_t begun;	   /* a sum of base/atomic.h */
	uint64_t over;	   /* a figure */
	uint32_t watching; /* a flag: the watch has a timer, or is about to look */
	bool started;	   /* [m] */
	/* the job's own */
	bool idle, alive; /* alive: a probe was answered */
	uint64_t seen_over, since_ns;
	uint64_t probe_at_ns,
		probe_wait_ns;	      /* the next one; how long after it the one after that */
	uint64_t down_out, down_over; /* when the fence last came down */
};

int fence_init(struct flash *tier)
{
	struct fence *fence = sys_zalloc(tier->sys, 64, sizeof(*fence));

	if (!fence)
		return -ENOMEM;
	tier->fence = fence;
	fence->tier = tier;
	fence->hang_ns = tier->hang_ns;
	fence->fd = tier->direct ? tier->fd : tier->probe_fd;
	for (uint32_t i = 0; i < PROBES; i++) {
		fence->probes[i].fence = fence;
		fence->probes[i].page = tier->sys->alloc(FLASH_PAGE, FLASH_PAGE);
		if (!fence->probes[i].page)
			return -ENOMEM;
	}
	return 0;
}

void fence_fini(struct flash *tier)
{
	if (!tier->fence)
		return;
	for (uint32_t i = 0; i < PROBES; i++)
		if (tier->fence->probes[i].page)
			tier->sys->free(tier->fence->probes[i].page);
	tier->sys->free(tier->fence);
	tier->fence = NULL;
}

/* ---- what is out ----------------------------------------------------------------- */

static void fence_run(struct stage_job *job);

static void watch_wake(struct flash *tier)
{
	struct fence *fence = tier->fence;
	const struct stage_env *env = stage_env(tier->env);

	tier_lock(tier);
	if (flag_raise(&fence->watching)) {
		fence->job.run = fence_run;
		if (fence->started)
			env->job_again(&fence->job);
		else
			env->job_start(tier->env, &fence->job, 0);
		fence->started = true;
	}
	tier_unlock(tier);
}

void fence_begin(struct flash *tier)
{
	sum_add(&tier->fence->begun, 1);
	if (!flag_get(&tier->fence->watching))
		watch_wake(tier);
}

void fence_end(struct flash *tier)
{
	counter_add(&tier->fence->over, 1);
}

/* Operations that the device owes an answer to. */
static uint64_t out_at(const struct fence *fence, uint64_t over)
{
	uint64_t out = sum_read(&fence->begun) - over;

	return out > UINT64_MAX / 2 ? 0 : out; /* an end was seen before its beginning */
}

/* The same, but for those that are not waited for. */
static uint64_t out_now(const struct fence *fence)
{
	uint64_t over = counter_read(&fence->over), answered = over - fence->down_over;
	uint64_t left = fence->down_out > answered ? fence->down_out - answered : 0;
	uint64_t out = out_at(fence, over);

	return out > left ? out - left : 0;
}

/* ---- up and down -------------------------------------------------------------------- */

static void watch_sleep(struct fence *fence, uint64_t when_ns)
{
	stage_env(fence->tier->env)->job_sleep(&fence->job, when_ns);
}

static void probe_done(struct engine_chain *chain)
{
	struct probe *probe = (struct probe *)((char *)chain - offsetof(struct probe, chain));
	struct fence *fence = probe->fence;
	const struct stage_env *env = stage_env(fence->tier->env);

	probe->out = false;
	if (chain->result < 0)
		fence->probe_at_ns = fence->tier->sys->now_ns() + AGAIN_NS;
	else
		fence->alive = true;
	env->job_again(&fence->job);
	env->job_end(fence->tier->env, &probe->job);
}

static void probe_run(struct stage_job *job)
{
	struct probe *probe = (struct probe *)((char *)job - offsetof(struct probe, job));
	const struct engine_ops *ops;
	struct engine *engine = stage_env(probe->fence->tier->env)->job_engine(job, &ops);
	int rc;

	probe->iov = (struct iovec){probe->page, FLASH_PAGE};
	probe->op = (struct engine_op){.code = OP_READV,
				       .fd = probe->fence->fd,
				       .iov = &probe->iov,
				       .iov_count = 1,
				       .length = FLASH_PAGE};
	probe->chain = (struct engine_chain){
		.ops = &probe->op, .op_count = 1, .direct = true, .done = probe_done};
	rc = ops->submit(engine, &probe->chain);
	assert(rc == 0); /* JOB_CHAINS */
	(void)rc;
}

/* While the tier is fenced: a probe when it is time for one, and the next look. */
static void watch_probe(struct fence *fence, uint64_t now_ns)
{
	struct probe *probe = fence->probes;

	while (probe < fence->probes + PROBES && probe->out)
		probe++;
	if (fence->fd >= 0 && now_ns >= fence->probe_at_ns && probe < fence->probes + PROBES) {
		probe->out = true;
		probe->job.run = probe_run;
		fence->probe_at_ns = now_ns + fence->probe_wait_ns;
		fence->probe_wait_ns *= 2;
		stage_env(fence->tier->env)->job_start(fence->tier->env, &probe->job, 0);
	}
	watch_sleep(fence, now_ns + fence->hang_ns / LOOKS);
}

static void fence_up(struct fence *fence, uint64_t now_ns)
{
	struct flash *tier = fence->tier;

	tier_lock(tier);
	tier->fenced = true;
	cairn_count(tier->env, CNT_FENCES, 1);
	cairn_gauge(tier->env, CNT_FENCED, 1);
	/* Who waits for what the device may never do looks again, and leaves. */
	waiters_wake(&tier->wait_room);
	for (uint32_t i = 0; i < WAIT_BUCKETS; i++)
		waiters_wake(&tier->wait_key[i]);
	spaces_look(tier, now_ns);
	tier_unlock(tier);
	fence->alive = false;
	fence->probe_at_ns = now_ns;
	fence->probe_wait_ns = fence->hang_ns;
	watch_probe(fence, now_ns);
}

static void fence_down(struct fence *fence)
{
	struct flash *tier = fence->tier;

	tier_lock(tier);
	tier->fenced = false;
	cairn_gauge(tier->env, CNT_FENCED, 0);
	tier_unlock(tier);
	fence->down_over = counter_read(&fence->over);
	fence->down_out = 0;
	fence->down_out = out_now(fence);
	fence->idle = false;
	fence->since_ns = tier->sys->now_ns();
	fence->seen_over = fence->down_over;
	watch_sleep(fence, fence->since_ns + fence->hang_ns / LOOKS);
}

/* ---- the watch ------------------------------------------------------------------------ */

/* Nothing is out: asleep after the second look, until something begins. */
static void watch_idle(struct fence *fence, uint64_t now_ns)
{
	bool last = fence->idle;

	fence->idle = !last;
	if (last)
		flag_lower(&fence->watching);
	/*
	 * Who began before it was lowered sent nothing: then it stays up. So it does for what
	 * is not waited for: that may be answered, and something else be waited for in its
	 * place, with nobody to wake the watch.
	 */
	if (last && !(out_at(fence, counter_read(&fence->over)) && flag_raise(&fence->watching))) {
		fence->since_ns = 0;
		watch_sleep(fence, UINT64_MAX);
		return;
	}
	watch_sleep(fence, now_ns + fence->hang_ns / LOOKS);
}

static void fence_run(struct stage_job *job)
{
	struct fence *fence = (struct fence *)((char *)job - offsetof(struct fence, job));
	uint64_t now_ns = fence->tier->sys->now_ns();
	uint64_t over = counter_read(&fence->over);
	bool answered = over != fence->seen_over, fenced;

	tier_lock(fence->tier);
	fenced = fence->tier->fenced;
	spaces_look(fence->tier, now_ns);
	tier_unlock(fence->tier);
	if (fenced && !answered && !fence->alive) {
		watch_probe(fence, now_ns);
	} else if (fenced) {
		fence_down(fence);
	} else if (!out_now(fence)) {
		fence->since_ns = now_ns;
		fence->seen_over = over;
		watch_idle(fence, now_ns);
	} else if (answered || !fence->since_ns || fence->idle) {
		fence->idle = false;
		fence->since_ns = now_ns;
		fence->seen_over = over;
		watch_sleep(fence, now_ns + fence->hang_ns / LOOKS);
	} else if (now_ns - fence->since_ns >= fence->hang_ns) {
		fence_up(fence, now_ns);
	} else {
		watch_sleep(fence, now_ns + fence->hang_ns / LOOKS);
	}
}
