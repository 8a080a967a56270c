/* SPDX-License-Identifier: Apache-2.0 */
/* `cairn stat --watch`: the same figures again and again, with what changed between. */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "options.h"

/*
 * Shows them after each @interval_ns, @count times or, with 0, until SIGINT or SIGTERM, which
 * is no failure. On a terminal each takes the place of the one before. An exit status.
 */
int watch_store(const char *pipeline, const struct option_store *store, uint64_t interval_ns,
		uint64_t count, bool as_json);

#endif
