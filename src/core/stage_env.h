/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host gives the stages of this library beyond stage.h, through
 * cairn_stage_env.internal. Stages may include this one header of core/.
 */
#ifndef CORE_STAGE_ENV_H
#define CORE_STAGE_ENV_H

#include <cairn/stage.h>

#include "sys/engine.h"
#include "sys/sys.h"

struct stage_env {
	const struct sys *sys;
	/* NULL at rest (list, check, identify). The reactor's engine; this io's thread only. */
	struct engine *(*engine)(struct cairn_io *io, const struct engine_ops **ret_ops);
	/*
	 * Registers a descriptor that must outlive all I/O in flight (a tier's
	 * lock) with every ring. From open(). Not closed by the host.
	 */
	int (*guard)(const struct cairn_stage_env *env, int fd);
	/*
	 * After a fork, in the child, descriptors given here are closed. From
	 * open(); forget before closing.
	 */
	void (*fork_close)(const struct cairn_stage_env *env, int fd, bool forget);
	/* The store's sequence counter, to be raised at open to what was kept; and read. */
	void (*sequence_raise)(const struct cairn_stage_env *env, uint64_t at_least);
	uint64_t (*sequence_now)(const struct cairn_stage_env *env);
	uint32_t open_flags; /* STAGE_OPEN_* */
};

static inline const struct stage_env *stage_env(const struct cairn_stage_env *env)
{
	return (const struct stage_env *)env->internal;
}

#endif
