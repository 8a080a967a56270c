/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_STAGES_H
#define CORE_STAGES_H

#include "core/store.h"

#define CAIRN_STAGES_LINKED_MAX 32

struct loaded_stage {
	const struct cairn_stage_ops *ops;
	void *module;		       /* NULL: linked in */
	struct cairn_stage_ops *table; /* a copy, where the stage's own is shorter; else NULL */
};

/* The search path in force. */
const char *stage_path(const struct cairn_store_opts *opts);

/* Finds @name linked in or in the search path, and checks its ABI. -ENOENT, -EPROTO. */
int stage_load(const struct cairn_store_opts *opts, const char *name,
	       struct loaded_stage *ret_stage, struct cairn_error *reterr);
int stage_open_file(const char *file, struct loaded_stage *ret_stage, struct cairn_error *reterr);

/* Calls @fn for each file *.so in the folders of @path, until it returns nonzero: that. */
typedef int stage_file_fn(void *context, const char *folder, const char *name);
int stage_files_each(const char *path, stage_file_fn *fn, void *context);
void stage_unload(struct loaded_stage *stage);

#endif
