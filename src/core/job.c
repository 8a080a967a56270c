/* SPDX-License-Identifier: Apache-2.0 */
/* Stages' jobs: what they do beside any io. An open one keeps the store from closing. */
#include <assert.h>

#include "core/reactor.h"

/* While the store closes, those who sleep are asked again so often. */
#define CLOSING_NS 100000000u

static void job_post(struct stage_job *job)
{
	if (flag_raise(&job->posted))
		reactor_send(job->reactor, &job->message);
}

static void job_start(const struct cairn_stage_env *env, struct stage_job *job, uint32_t spread)
{
	struct cairn_store *store = store_of_env(env);

	assert(job->run && store->reactor_count > 0);
	job->message.kind = MESSAGE_JOB;
	job->reactor = store->reactors[spread % store->reactor_count];
	orphan_count(store, true);
	job_post(job);
}

static void job_end(const struct cairn_stage_env *env, struct stage_job *job)
{
	struct cairn_store *store = store_of_env(env);

	assert(job->reactor && !job->posted);
	job->reactor = NULL;
	orphan_count(store, false);
}

/* ---- sleeping: on the job's reactor ------------------------------------------------ */

static void job_sleep(struct stage_job *job, uint64_t when_ns)
{
	struct reactor *reactor = job->reactor;

	assert(!job->asleep);
	job->asleep = true;
	job->wake_ns = when_ns;
	job->next = reactor->sleepers;
	reactor->sleepers = job;
	if (when_ns < reactor->sleepers_next_ns)
		reactor->sleepers_next_ns = when_ns;
	orphan_count(reactor->store, false);
}

static void job_wake(struct reactor *reactor, struct stage_job *job)
{
	struct cairn_store *store = reactor->store;
	struct stage_job **at = &reactor->sleepers;
	bool closing;

	pthread_mutex_lock(&store->lock);
	closing = store->closing; /* it goes as it is; or the close times out, and it goes on */
	store->orphans += !closing;
	pthread_mutex_unlock(&store->lock);
	if (closing) {
		job->wake_ns = store->sys->now_ns() + CLOSING_NS;
		if (job->wake_ns < reactor->sleepers_next_ns)
			reactor->sleepers_next_ns = job->wake_ns;
		return;
	}
	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	job->asleep = false;
	job->run(job); /* it may be gone after that */
}

void job_run(struct reactor *reactor, struct stage_job *job)
{
	if (job->asleep)
		job_wake(reactor, job);
	else
		job->run(job);
}

void jobs_wake(struct reactor *reactor, uint64_t now_ns)
{
	struct stage_job *job, *next;

	if (reactor->sleepers_next_ns > now_ns)
		return;
	reactor->sleepers_next_ns = UINT64_MAX;
	/* One that sleeps again stands before those that are still to be looked at. */
	for (job = reactor->sleepers; job; job = next) {
		next = job->next;
		if (job->wake_ns <= now_ns)
			job_wake(reactor, job);
		else if (job->wake_ns < reactor->sleepers_next_ns)
			reactor->sleepers_next_ns = job->wake_ns;
	}
}

static struct engine *job_engine(struct stage_job *job, const struct engine_ops **ret_ops)
{
	assert(job->reactor && job->reactor->standing);
	*ret_ops = job->reactor->engine_ops;
	return job->reactor->engine;
}

void jobs_env_init(struct stage_env *internal)
{
	internal->job_start = job_start;
	internal->job_again = job_post;
	internal->job_end = job_end;
	internal->job_sleep = job_sleep;
	internal->job_engine = job_engine;
}
