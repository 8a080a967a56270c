/* SPDX-License-Identifier: Apache-2.0 */
/* From a checked call to a task under way. */
#ifndef CORE_SUBMIT_H
#define CORE_SUBMIT_H

#include "core/store.h"

struct submission {
	struct cairn_namespace *ns;
	enum cairn_op op;
	struct cairn_xfer *xfers;
	const struct cairn_key *keys;
	struct cairn_result *results;
	uint32_t count;
	struct cairn_task_opts opts; /* complete: as far as the caller's went, zero after */
	uint32_t first_level;	     /* where its ios begin */
};

struct task;

/* A slot that was taken becomes the task. */
void task_init(struct task *task, const struct submission *s, uint64_t now_ns, uint64_t deadline_ns,
	       bool sync);

/* As cairn_load() says of @ret_task and what is returned. Arguments are checked already. */
int submit(const struct submission *submission, uint64_t *ret_task);

#endif
