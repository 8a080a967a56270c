/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_PIPELINE_H
#define CORE_PIPELINE_H

#include "core/store.h"

/*
 * Fills settings and levels of a zeroed store (but for sys) from @text; nothing
 * is opened. On an error too, what was made is freed by pipeline_fini().
 */
int pipeline_resolve(struct cairn_store *store, const char *text,
		     const struct cairn_store_opts *opts, struct cairn_error *reterr);
void pipeline_fini(struct cairn_store *store);

/*
 * An error that a stage found, as it @said it, with its place in the text where it
 * is a value's (stage.h, open()). Returns @code.
 */
int pipeline_fail(const struct level *level, int code, const struct cairn_error *said,
		  struct cairn_error *reterr);

/* Of @opts, which may be NULL. 0 or -EINVAL. */
int pipeline_check_opts(const struct cairn_store_opts *opts, struct cairn_error *reterr);

#endif
