/* SPDX-License-Identifier: Apache-2.0 */
/* A posix tier as the stage `lower`, whose ios a test meets first. */
#ifndef TESTS_UNIT_LOWER_H
#define TESTS_UNIT_LOWER_H

#include <dlfcn.h>
#include <stdlib.h>

#include <cairn/stage.h>

#include "stages/stages.h"

/* Of the store that was opened last. */
static const struct cairn_stage_host *lower_host;

static int lower_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	lower_host = env->host;
	return cairn_stage_posix.open(self, env, reterr);
}

static void lower_submit(void *self, struct cairn_io *io, void *scratch);
static void lower_resume(void *self, struct cairn_io *io, void *scratch);

static void lower_build(void)
{
	struct cairn_stage_ops *table;
	void *module = dlopen(getenv("STAGE_LOWER"), RTLD_NOW | RTLD_LOCAL);

	assert_non_null(module);
	table = dlsym(module, "cairn_stage");
	assert_non_null(table);
	*table = cairn_stage_posix;
	table->name = "lower";
	table->open = lower_open;
	table->submit = lower_submit;
	table->resume = lower_resume;
}

#endif
