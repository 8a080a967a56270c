/* SPDX-License-Identifier: Apache-2.0 */
/* What a seed draws of a run, and what runs count. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "model.h"

struct config {
	struct sim_opts host;
	struct model_opts model;
	struct disk_faults faults;
	uint64_t bytes; /* of the file */
	uint32_t region;
	char options[160];     /* of the stage */
	char text[480];	       /* all of it, for people */
	uint32_t depth;	       /* ios at once */
	uint32_t eager;	       /* of 100 steps: those that send an operation if there is room */
	uint32_t dump, remove; /* of 1000 operations */
	uint32_t clear;	       /* of the loads, one in so many is a clear; 0: none */
	uint32_t durable;      /* of dumps and removes one in so many */
	uint32_t deadlines;    /* of ios one in so many has a short one; 0: none */
	uint32_t holds;	       /* at once */
	uint32_t chain;	       /* blocks that continue one another */
	uint32_t rot;	       /* a bit turns in one of so many steps; 0: never */
	uint32_t hangs;	       /* the device hangs in one of so many steps; 0: never */
	uint64_t shed_ns;
	uint32_t hang_fails;	 /* of what it answers late: failed, of 100 */
	bool watched_by_answers; /* direct=no: there is no probe */
	uint64_t session;	 /* operations at most */
	uint64_t check_every;	 /* steps */
};

struct sim_figures {
	uint64_t cuts, cuts_open, cuts_close, closes, clears, reclaimed;
	uint64_t fences, passed_by, closes_fenced, lost;
	uint64_t loaded, dumped, refused;	/* shards */
	uint64_t waited_ns;			/* of the io that took longest, simulated */
	double wraps, wraps_of_run, wraps_most; /* times the log was written */
	uint64_t resident_first, resident_rest; /* pages, of the run */
	uint64_t areas[DISK_AREAS];		/* writes and flushes that cuts fell into */
};

void config_draw(struct config *config, struct kit_rng *rng);
/* Of the configuration drawn last. */
enum disk_area area_of(uint64_t at, size_t length, const uint8_t *bytes);

#endif
