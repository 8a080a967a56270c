/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bench: the same work by the store and bare, run in turns. A side is one
 * way to do it; a run does all of the work once on the side's threads. What is
 * not the work (keys, files to read, removal of what was written) happens
 * between the runs, untimed.
 *
 * bench.c reads the command line and runs the pairs; bench_store.c is the
 * store's side; bench_bare.c chooses the bare one and has those in memory;
 * bench_files.c has those on files; bench_report.c prints.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include <cairn/task.h>

#include "base/histogram.h"
#include "options.h"

#define BENCH_OPS "load|dump|lookup|mixed"
enum bench_op {
	BENCH_LOAD = 0,
	BENCH_DUMP = 1,
	BENCH_LOOKUP = 2,
	BENCH_MIXED = 3, /* each even block of the work is loaded, each odd one dumped */
};

/* What both sides do. Fixed once the store's side is ready. */
struct bench_plan {
	const char *pipeline;
	struct option_store store;
	uint32_t op, durability;
	uint64_t block_bytes, shard_count;
	uint64_t count; /* blocks in a run; a lookup: keys of a call */
	uint64_t depth, clients;
	uint64_t spaced_ns; /* pause between calls; 0: none */
	uint64_t fill;	    /* lookups: blocks known; a multiple of count */
	uint64_t pairs;
	const char *bare_dir;
	bool json;
	uint32_t small; /* position in "yes|no": memory is not registered, on small pages */
	bool turns;	/* nothing bare; a line on the standard input before each run */
	/*
	 * Dumps: what was written stays until the end. A file system may pass over what
	 * was freed a moment ago, at a cost that grows with it and falls on either side.
	 */
	bool keep;

	struct cairn_key *keys; /* of the blocks that are known: count or fill of them */
	uint32_t *order;	/* in which known blocks are read: a permutation of count */
	uint64_t calls;		/* lookups: of one client in a run */
};

struct bench_worker {
	struct bench_side *side;
	uint32_t index;
	uint64_t start_ns, end_ns;
	uint64_t ops, bytes;
	int error; /* a negative errno ends the bench */
	struct histogram latency;
};

struct bench_side {
	const struct bench_plan *plan;
	char what[96];	  /* for people: "pread O_DIRECT, io_uring, depth 32" */
	uint32_t threads; /* a worker each */
	void *private;
	/* Before and after run number @run, untimed; 0 or a negative errno, having said why. */
	int (*prepare)(struct bench_side *side, uint32_t run);
	int (*finish)(struct bench_side *side, uint32_t run);
	/* Before each turn of either side, untimed; NULL: nothing. */
	void (*settle)(struct bench_side *side);
	/* A worker's part of the run. */
	void (*work)(struct bench_side *side, struct bench_worker *worker);
	void (*close)(struct bench_side *side);
};

/* A run's figures. */
struct bench_figures {
	double seconds, cpu_seconds;
	uint64_t ops, bytes;
	struct histogram latency;
};

/* A run of the store's, as it is reported. */
struct bench_run {
	double bytes_per_s, ops_per_s, p50_us, p99_us, cpu_s_per_gb;
};

/* All of them. */
struct bench_result {
	struct bench_run *runs;		 /* one a pair */
	struct bench_figures ours, bare; /* summed over the pairs */
	double *ours_rate, *bare_rate;	 /* ops/s, one a pair */
	double *ratio, *ratio_p50;	 /* ours / bare; p50 of latency: likewise */
};

/*
 * The store's side: opens it, dumps what will be read, sets the rest of the
 * plan. An exit status; CLI_OK: bench_store_close() is due.
 */
int bench_store_open(struct bench_plan *plan, struct bench_side *ret_side);

/* The bare side that fits the pipeline; likewise. Checked by bench_bare_check() before. */
int bench_bare_open(const struct bench_plan *plan, struct bench_side *ret_side);

/* Whether what dumps write may stay until the end: on files, and no more than half of what is free.
 */
bool bench_bare_keeps(const struct bench_plan *plan);

/* -1, or CLI_USAGE after it said that --bare-dir is needed. */
int bench_bare_check(const struct bench_plan *plan);

/* What the pipeline's text says of its last stage. */
struct bench_last {
	char name[32];
	char path[1024];     /* "" if none; {rank} expanded */
	bool direct, shared; /* unless direct=no; shared=yes */
	bool sized;	     /* has size= */
};
void bench_last_stage(const struct bench_plan *plan, struct bench_last *ret_last);

/* Sides on files, for bench_bare_open(): @dir is made, and gone after close(). */
int bench_files_open(const struct bench_plan *plan, const struct bench_last *last, const char *dir,
		     struct bench_side *ret_side);

/* Notes that one operation that began at @start_ns has ended now; pauses where asked. */
void bench_note(struct bench_worker *worker, uint64_t start_ns, uint64_t bytes);

/*
 * Memory that either side reads into and writes from, on huge pages where it is to be
 * registered and they can be had; ends the program when there is none. free() takes it.
 */
void *bench_memory(const struct bench_plan *plan, size_t bytes);

/* Bytes for a block that are not its content: its key, then a fixed pattern. */
void bench_stamp(const struct cairn_key *key, void *buffer, uint64_t bytes);
#define BENCH_STAMP_BYTES CAIRN_KEY_BYTES

/* The chain that call @call of a client looks up: the first of its count keys. */
const struct cairn_key *bench_chain(const struct bench_plan *plan, uint32_t client, uint64_t call);

struct bench_run bench_run_of(const struct bench_figures *figures);

/* A run by itself, for the other program that takes turns: one line of JSON. */
void bench_report_run(const struct bench_run *run);

/* Prints the result; for people, or one JSON object. @bare: of no use when the plan has turns. */
void bench_report(const struct bench_plan *plan, const struct bench_side *bare,
		  const struct bench_result *result);

#endif
