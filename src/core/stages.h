/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_STAGES_H
#define CORE_STAGES_H

#include "core/store.h"

#define CAIRN_STAGES_LINKED_MAX 32

struct loaded_stage {
	const struct cairn_stage_ops *ops;
	void *module; /* NULL: linked in */
};

/* The search path in force. */
const char *stage_path(const struct cairn_store_opts *opts);

/* Finds @name linked in or in the search path, and checks its ABI. -ENOENT, -EPROTO. */
int stage_load(const struct cairn_store_opts *opts, const char *name,
	       struct loaded_stage *ret_stage, struct cairn_error *reterr);
int stage_open_file(const char *file, struct loaded_stage *ret_stage, struct cairn_error *reterr);
void stage_unload(struct loaded_stage *stage);

#endif
