/* SPDX-License-Identifier: Apache-2.0 */
/* The job that makes regions free: reclaim.c has the victim, carry.c each record that stays. */
#ifndef FLASH_RECLAIM_H
#define FLASH_RECLAIM_H

#include "stages/flash/tier.h"

#define RECLAIM_CHUNK (1u << 20)
#define NO_REGION     UINT32_MAX
/* What is looked at under one hold of the mutex: some 10 us. */
#define SLICE_RECORDS 32u  /* of a victim: a look-up each, and most are removed */
#define SLICE_ENTRIES 256u /* of the index, in order */
#define SLICE_REGIONS 64u  /* that may be the next victim */
/* Of them in one turn of the job, or dumps, which use up regions meanwhile, get far ahead. */
#define TURN_SLICES   8u

/* Between two looks whether the device takes writes; whether it is known. */
#define REFUSED_NS 1000000000u
#define DOUBT_NS   10000000u

/* Records that are carried by one read and one write. */
#define CARRY_MAX 32u
/* Between two of them, bytes at most: to read so much costs less than one more read. */
#define CARRY_GAP (64u << 10)

struct carried {
	uint32_t at; /* its number in the victim */
	uint32_t entry;
	uint16_t incarnation;
	struct table_place old_place, new_place;
};

struct reclaim {
	struct stage_job job;
	struct flash *tier;
	struct engine_chain chain;
	struct engine_op ops[3];
	struct iovec iov;
	void (*then)(struct reclaim *);
	uint8_t *table;				 /* of the victim; and the header that is written */
	const struct flash_table_entry *entries; /* in it */
	uint8_t *buffer;			 /* RECLAIM_CHUNK and a head */
	uint8_t *head;				 /* of the record that is carried, as it was */
	/* [m] */
	bool running, entries_wanted;
	bool waits_readers, waits_draft;
	void (*turn)(struct reclaim *); /* what the job goes on with */
	bool reclaiming;		/* the victim had a use, and is counted as begun */
	/* the job's own */
	uint32_t victim, records, at;
	uint32_t numbers; /* that the use which ends has given out: they may have marks */
	uint32_t carried_units;
	uint32_t barren; /* victims in a row that gave next to nothing */
	uint32_t rest;	 /* the next entry that may have a place in the victim */
	uint32_t left;	 /* the next record of a victim that stays */
	uint32_t slices; /* in this turn */
	struct policy_scan scan;
	uint64_t room_events; /* when it began */
	uint64_t gifts;	      /* and these: what is barren was since */
	bool again;	      /* a read that failed is under way once more */
	struct policy_victim choice;
	struct carried carried[CARRY_MAX];
	uint32_t count, now; /* of those; the one that is carried by itself */
	uint32_t new_region; /* of all of them, one behind the other */
	bool single;	     /* each is carried by itself */
	uint32_t bad;	     /* those that did not check, a bit each */
	uint64_t old_seq;
	uint64_t done; /* bytes of the record */
	struct flash_record record;
};

/* Sends the first @ops_count operations; then @then. */
void reclaim_send(struct reclaim *r, uint32_t ops_count, void (*then)(struct reclaim *));
struct engine_op reclaim_transfer(struct reclaim *r, enum engine_code code, uint64_t offset,
				  void *memory, size_t length);
/* A read may fail for once: @again, and when that fails too, @failed. */
void reclaim_read_failed(struct reclaim *r, void (*again)(struct reclaim *),
			 void (*failed)(struct reclaim *));
/* Goes on with the record behind the one at r->at. */
void reclaim_next(struct reclaim *r);
/* The records r->carried, whose new places are reserved. Then reclaim_next(). */
void reclaim_carry(struct reclaim *r);

#endif
