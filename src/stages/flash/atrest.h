/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flash store at rest: list, check, identify, inspect, as cairn_list(), cairn_check(),
 * cairn_live_counters() and cairn_inspect() want them, and repair. But for that the file
 * is opened read-only and nothing is written. Whatever bytes are found are taken.
 * Any thread.
 */
#ifndef FLASH_ATREST_H
#define FLASH_ATREST_H

#include <cairn/stage.h>

#include "sys/sys.h"

struct flash_rest_opts {
	const struct sys *sys;
	const char *stage; /* its name in the pipeline */
	const char *path;
	uint64_t open_wait_ns; /* a check's, for the lock */
};

/*
 * Calls @fn for each whole block that is neither removed, cleared nor expired,
 * in the order of namespaces and keys. Without the lock: of a live owner it
 * tells what was written, not what is still on its way. *ret_missed: regions
 * and records that could not be read; in an open region of a store that was
 * not closed, also records that did not get there whole.
 */
int64_t flash_rest_list(const struct flash_rest_opts *opts,
			int (*fn)(void *context, const struct cairn_listed *block), void *context,
			uint64_t *ret_missed, struct cairn_error *reterr);

/* All of it, payload included. -EBUSY: somebody has it open. */
int flash_rest_check(const struct flash_rest_opts *opts,
		     int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		     struct cairn_error *reterr);

/*
 * As cairn_repair(), of one store. A store whose namespaces are lost is reported
 * as damaged and left as it is.
 */
int flash_rest_repair(const struct flash_rest_opts *opts,
		      int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		      struct cairn_error *reterr);

/* The uuid; 0 or CAIRN_IN_USE. */
int flash_rest_identify(const struct flash_rest_opts *opts, uint8_t ret_uuid[16],
			struct cairn_error *reterr);

/* As cairn_inspect(), of one store: it, its namespaces; or it, the records of a region, the region.
 */
int flash_rest_inspect(const struct flash_rest_opts *opts, uint64_t region,
		       int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		       struct cairn_error *reterr);

#endif
