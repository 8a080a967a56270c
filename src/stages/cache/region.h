/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region: a file of POSIX shared memory that some processes have mapped.
 *
 * Whoever comes first makes it, the others check it. Each is a client, and has byte
 * CACHE_LOCK_CLIENT + N of the file locked by its own open file description, which all
 * rings of its hold, too: the lock is free only when the process is gone and all I/O that
 * it had under way has ended. Making, joining and leaving are done under one more such
 * lock, so they meet nobody half-way; that, and room for a new region, is all that anybody
 * waits for, for at most @wait_ns.
 */
#ifndef STAGES_CACHE_REGION_H
#define STAGES_CACHE_REGION_H

#include <cairn/stage.h>

#include "core/stage_env.h"
#include "stages/cache/map.h"

#define REGION_NAME_MAX 64u
#define SHM_FOLDER	"/dev/shm" /* where shm_open() has its files */

struct region_opts {
	const char *name; /* NULL: nobody else's, and gone at close */
	uint64_t size;
	uint32_t entries;
	bool below_known;
	uint8_t below[16];
	uint64_t wait_ns;
	bool huge;
	bool keep;
	bool tails; /* shards are to have sums; they may have them for another's sake */
	uint8_t policy;
};

struct region {
	const struct sys *sys;
	const struct cairn_stage_env *env;
	char name[REGION_NAME_MAX + 40]; /* of its file; of a private one for errors */
	int fd;
	void *base, *lent;
	uint64_t bytes;
	bool huge;	  /* huge pages were asked for */
	uint32_t no_huge; /* a mark of base/atomic.h: the kernel makes none */
	bool keep;
	bool ours;	     /* made, or joined: not what was refused */
	bool tails;	     /* shards have sums */
	uint64_t room_by_ns; /* an open waits for memory no longer */
	uint32_t swept;	     /* others that were taken away */
	uint32_t adoptions; /* times that it was found with nobody in it; stands while it is open */
	uint64_t tables_huge; /* of the tables: bytes from the start on that were tried */
	struct cache_map map;
	uint64_t checked_ns; /* when clients were looked at last: a hint */
	uint32_t recovering; /* a flag of base/atomic.h */
};

int region_open(struct region *region, const struct cairn_stage_env *env,
		const struct region_opts *opts, struct cairn_error *reterr);
void region_close(struct region *region);

/* What the file of a region of that name is called, for shm_open(). */
void region_file_name(const char *name, char ret_path[REGION_NAME_MAX + 40]);

/*
 * Takes away this user's regions that nobody has open and nobody said to keep: but for one of
 * that name (NULL: for none). How many; what cannot be looked at stays. Blocks: an open.
 */
uint32_t region_sweep(const struct sys *sys, const char *but);

/* Whether another process, or its I/O, still has it: for good under CACHE_LOCK_CREATE. */
bool region_used(const struct region *region);

/* Gets the chunk its memory, and touches it. Blocks for some ms: a worker's. */
void region_back(struct region *region, uint32_t chunk);

/* Whether chunks are on huge pages, as far as is known. Any thread. */
bool region_is_huge(const struct region *region);

/* Tables get huge pages once they are in use, one a call: a worker's. */
bool region_huge_pending(const struct region *region);
void region_huge_tables(struct region *region);

/* Cleans up after clients that are dead; how many. Blocks: a worker's, or an open. */
uint32_t region_recover(struct region *region);

/* The locks of control calls: spaces. 0, or -EBUSY. */
int region_lock(struct region *region, int64_t byte, uint64_t wait_ns);
void region_unlock(struct region *region, int64_t byte);

/* @living: without those that were killed, and that nobody has cleaned up after. */
uint32_t region_clients(const struct region *region, bool living);

#endif
