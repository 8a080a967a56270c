/* SPDX-License-Identifier: Apache-2.0 */
#include "spy.h"

#include <string.h>

extern struct spy spy;
__attribute__((visibility("default"))) struct spy spy = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

static int spy_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	(void)self;
	(void)reterr;
	pthread_mutex_lock(&spy.lock);
	spy.host = env->host;
	spy.count = 0;
	spy.kept_count = 0;
	spy.keep = false;
	spy.stop = false;
	pthread_mutex_unlock(&spy.lock);
	return 0;
}

static void spy_close(void *self)
{
	(void)self;
	pthread_mutex_lock(&spy.lock);
	while (spy.calling > 0)
		pthread_cond_wait(&spy.changed, &spy.lock);
	pthread_mutex_unlock(&spy.lock);
}

static void spy_submit(void *self, struct cairn_io *io, void *scratch)
{
	bool kept = false;

	(void)self;
	(void)scratch;
	pthread_mutex_lock(&spy.lock);
	if (spy.count < SPY_RECORDS)
		spy.records[spy.count] = (struct spy_record){
			io->key,	io->op,		io->flags, io->task_class,
			io->part_count, io->durability, io->attr};
	spy.count++;
	spy.stopped++;
	pthread_cond_broadcast(&spy.changed);
	while (spy.stop)
		pthread_cond_wait(&spy.changed, &spy.lock);
	spy.stopped--;
	if (spy.keep && spy.kept_count < SPY_KEPT) {
		spy.kept[spy.kept_count++] = io;
		kept = true;
	}
	pthread_cond_broadcast(&spy.changed);
	pthread_mutex_unlock(&spy.lock);
	if (!kept)
		spy.host->forward(io);
}

static void spy_done(void *self, struct cairn_io *io, void *scratch)
{
	(void)self;
	(void)scratch;
	spy.host->complete(io);
}

static void spy_resume(void *self, struct cairn_io *io, void *scratch)
{
	(void)self;
	(void)scratch;
	spy.host->forward(io);
}

extern const struct cairn_stage_ops cairn_stage;
__attribute__((visibility("default"))) const struct cairn_stage_ops cairn_stage = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "spy",
	.summary = "for tests: writes down what passes, and keeps it back",
	.instance_bytes = 1,
	.open = spy_open,
	.close = spy_close,
	.submit = spy_submit,
	.done = spy_done,
	.resume = spy_resume,
};
