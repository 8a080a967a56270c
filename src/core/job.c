/* SPDX-License-Identifier: Apache-2.0 */
/* Stages' jobs: what they do beside any io. An open one keeps the store from closing. */
#include <assert.h>

#include "core/reactor.h"

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
	internal->job_engine = job_engine;
}
