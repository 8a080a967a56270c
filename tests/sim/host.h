/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store is to the flash stage, in one thread: reactors and a caller's thread
 * (fibers), their messages, timers and buffers, an engine whose operations end when
 * the simulated clock says so, and the sys table. Everything is drawn from one
 * generator, so that a seed is a run.
 */
#ifndef TESTS_SIM_HOST_H
#define TESTS_SIM_HOST_H

#include <cairn/stage.h>

#include "core/stage_env.h"
#include "disk.h"
#include "fibers.h"

#define SIM_REACTORS_MAX 4u
#define SIM_CALLER	 SIM_REACTORS_MAX /* the fiber of open, close, bind and clear */
#define SIM_IOS		 52u
#define SIM_PARTS	 16u
#define SIM_DATA	 (1536u << 10) /* of an io */

struct sim_opts {
	uint32_t reactors;
	uint32_t leave_per_mille; /* fibers.h; 0: ios and jobs run to their end */
	uint32_t buffers;	  /* of each reactor */
	bool sectors;		  /* direct I/O in pieces of 512 bytes; else of 4096 */
	uint64_t latency_ns;	  /* of an operation, at most; some take a hundred times as long */
	bool even;		  /* each takes latency_ns */
	uint32_t hurry;	  /* of 100 steps: those in which time passes though there is work */
	uint64_t hang_ns; /* hang= of the stage; 0: nobody watches the device */
};

/* What a device that hangs does not answer. */
enum sim_hang {
	HANG_ALL,
	HANG_WRITES, /* and flushes */
	HANG_BEGUN,  /* what it had been given already */
};

struct sim_io {
	struct cairn_io io; /* first */
	struct cairn_part parts[SIM_PARTS];
	struct iovec iovs[2 * SIM_PARTS];
	uint32_t crcs[SIM_PARTS][SIM_DATA / CAIRN_PIECE];
	uint8_t *data;
	void *scratch;
	uint32_t reactor;
	uint32_t timer; /* changes with every resume_at() */
	bool used, resume_posted, wants_buffer;
	/* The driver's: of the block, as it was when the io was sent. */
	uint32_t space, key;
	uint32_t version, dumped, removes;
	uint32_t held; /* since when; 0: not */
	bool verify, expired;
	uint32_t fences; /* sim_fences() then */
	uint64_t sent_ns;
};

/* @done is called as an io comes back; it is free again after that. */
void sim_init(const struct sim_opts *opts, size_t disk_bytes, struct kit_rng *rng,
	      enum disk_area (*where)(uint64_t at, size_t length, const uint8_t *bytes),
	      void (*done)(struct sim_io *sio));
void sim_fini(void);

extern struct flash *sim_tier; /* the stage's instance; NULL: not open */
extern struct cairn_stage_env sim_env;

uint64_t sim_now_ns(void);
uint32_t sim_now_s(void); /* of CLOCK_REALTIME */

/* The stage opens with these options ("size=8MiB;region=64KiB"), as a fiber; sim_caller_busy(). */
void sim_open(const char *options);
void sim_close(void);
/* -errno of the last sim_open() that ended. */
int sim_open_result(void);
/* fn(@what) on the caller's fiber. */
void sim_call(void (*fn)(void *what), void *what);
bool sim_caller_busy(void);

/* NULL: all are in use. Zeroed but for its memory. */
struct sim_io *sim_io_new(struct cairn_ns_view *ns, enum cairn_op op);
void sim_io_send(struct sim_io *sio);
uint32_t sim_ios(void); /* in flight */
uint32_t sim_jobs(void);
uint64_t sim_counter(const char *name);

/*
 * For @ns the device does not answer what @which says; UINT64_MAX: it never will, and
 * sim_lost(). Of what it answers late @fail_share of 100 have failed.
 */
void sim_hang(enum sim_hang which, uint64_t ns, uint32_t fail_share);
bool sim_hangs(void);
bool sim_lost(void);
/* How often the tier was fenced and was not any more: odd while it is. */
uint32_t sim_fences(void);

/* One event; false: nothing can happen any more. */
bool sim_step(void);
/* Until the operation of the disk that is @events beginnings or ends from now; 0: for ever. */
void sim_cut_in(uint64_t events);
bool sim_cut_due(void);
/* The power goes: memory, ios and jobs are gone. */
void sim_cut(uint64_t counts[DISK_AREAS]);
/* Allocations of the stage's that are not given back. */
uint64_t sim_allocations(void);
/* Steps and operations of the disk so far. */
void sim_figures(uint64_t *ret_steps, uint64_t *ret_disk_ops);

/* sys.c: the sys table, over the disk. */
extern struct sys sim_sys;
/* For an open: reads that end in any order, at once. */
extern const struct engine_ops sim_open_engine;
void sim_sys_init(uint64_t disk_bytes, bool sectors, struct kit_rng *rng);
void sim_sys_drop(void); /* all memory and descriptors */
uint64_t sim_sys_allocations(void);
/* The fiber waits for the operation; its result. */
int64_t sim_disk_wait(enum disk_kind kind, const struct iovec *iov, int iov_count, uint64_t at);

#endif
