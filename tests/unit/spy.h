/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage for tests, built as spy.so: it writes down every io that passes, keeps
 * ios back until it is told to let them go, and can stop a whole reactor. The
 * test finds its state as the symbol `spy`; one instance at a time.
 */
#ifndef SPY_H
#define SPY_H

#include <pthread.h>
#include <stdbool.h>

#include <cairn/stage.h>

#define SPY_RECORDS 4096u
#define SPY_KEPT    64u

struct spy_record {
	struct cairn_key key;
	uint32_t op, flags, task_class, part_count, durability;
	struct cairn_block_attr attr;
};

struct spy {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool keep;	  /* ios that come are kept */
	bool stop;	  /* submit() does not return before this is false */
	uint32_t stopped; /* reactors that stand in submit() */
	uint32_t count;	  /* records; past SPY_RECORDS they are only counted */
	struct spy_record records[SPY_RECORDS];
	uint32_t calling; /* threads in resume(): close() waits for them */
	uint32_t kept_count;
	struct cairn_io *kept[SPY_KEPT]; /* NULL: let go */
	const struct cairn_stage_host *host;
};

#endif
