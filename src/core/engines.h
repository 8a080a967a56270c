/* SPDX-License-Identifier: Apache-2.0 */
/* Which I/O engine a store has, and the reactors on it. While the store is opened and closed. */
#ifndef CORE_ENGINES_H
#define CORE_ENGINES_H

#include "core/store.h"

/* Finds an engine that works here: the setting's, or the best; the note tells why not a better. */
int engines_choose(struct cairn_store *store, struct cairn_error *reterr);

/* As stage_env's engine_early and its end say. */
int engine_early(struct cairn_store *store, uint32_t chains_max, const struct engine_ops **ret_ops,
		 struct engine **ret_engine);
void engine_early_end(struct cairn_store *store);

/*
 * Makes the workers and reactors, and starts these. With `auto` a standing reactor
 * that the engine will not carry makes all of them begin again with the next one.
 */
int engines_open(struct cairn_store *store, struct cairn_error *reterr);

/* Frees what engines_open() made. The reactors were stopped. */
void engines_close(struct cairn_store *store);

#endif
