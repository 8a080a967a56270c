/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the log is written at once beside loads. Pure: no I/O, no locks, no clock;
 * the owner serialises calls.
 *
 * A load waits in the device behind what is being written as it comes. So as much is let
 * out as the device takes in PACE_NS: how long what is out takes is what each write beside
 * loads tells when it ends. Too long, and it is half as much from the next one on; short
 * for PACE_CALM writes in a row, and it is twice as much. It is never less than PACE_LEAST,
 * so dumps go on, however slow the device is.
 */
#ifndef FLASH_PACE_H
#define FLASH_PACE_H

#include <stdint.h>

#define PACE_NS	    1000000u	 /* of 256 KiB loads alone the P99 is 0.7 ms on a good disk */
#define PACE_CALM   16u		 /* a rise is a guess: it is made seldom */
#define PACE_LEAST  (256u << 10) /* as much as a load; of less, calls cost more than they spare */
#define PACE_WRITES 2u		 /* at once at most; fewer bytes are one write, in pieces */

struct pace {
	uint64_t bytes; /* let out at once */
	uint32_t calm;	/* writes in a row that were short */
};

void pace_init(struct pace *pace, uint64_t write_bytes);
/* How many writes may be under way, and in what pieces, one after the other, each is sent. */
uint32_t pace_writes(const struct pace *pace, uint64_t write_bytes);
uint64_t pace_piece(const struct pace *pace, uint64_t write_bytes);
/* A write beside loads has ended after @took_ns; it was sent in @pieces. */
void pace_ended(struct pace *pace, uint64_t write_bytes, uint32_t pieces, uint64_t took_ns);

#endif
