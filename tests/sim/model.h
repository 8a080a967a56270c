/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle: what a store may answer. Content is a function of the key and of its
 * version; a version ends when the block was removed or cleared, or was lost by a cut,
 * while nobody dumped it.
 *
 *  1. No load returns other bytes than those of a version that was the block's at some
 *     moment between its submission and its end.
 *  2. What was never dumped, has gone, or has expired is not there.
 *  3. What is held is there, until it is removed or expires.
 *  4. After a cut: what was acknowledged durable, and was there at the cut, is there;
 *     what was durably removed is not; nothing older is there in place of what was
 *     durable; all else is whole or absent.
 *  5. After a close: what was there is there, and nothing else.
 *  6. While the device is fenced nothing is there, and nobody who came then waits; after
 *     that it is as if there had been no fence.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include "host.h"

#define MODEL_SPACES   3u
#define MODEL_KEYS_MAX 4096u /* of each */

struct shape {
	uint32_t shards, bytes, last;
};

struct model_opts {
	struct shape shapes[MODEL_SPACES]; /* the largest ones */
	bool variable[MODEL_SPACES];
	uint32_t keys;
	bool expires;	/* some blocks have a time to live */
	bool undurable; /* sync=none */
	bool reads_fail, writes_fail, flushes_fail, rots;
};

/* A block. */
struct cell {
	uint32_t version, top;		    /* of the block; the highest one that was given out */
	uint32_t low;			    /* the lowest one that may come back after a cut */
	uint32_t dumps;			    /* under way */
	uint32_t dumped;		    /* dumps that were ever begun */
	uint32_t removes;		    /* removes and clears that were ever begun */
	uint32_t leaving;		    /* ... and are under way */
	uint32_t holds, held;		    /* now; how often they began */
	uint32_t expiry_first, expiry_last; /* seconds: there until, absent from; 0: none */
	uint32_t known, durable;	    /* shards acknowledged, a bit each */
	bool may;			    /* something of this version was dumped */
	bool demanded;			    /* it has to be there after the next open */
	bool unresolved;		    /* nobody has looked since the open */
};

void model_init(const struct model_opts *opts);
struct cell *model_cell(uint32_t space, uint32_t key);
struct cairn_key model_key(uint32_t space, uint32_t key);
struct shape model_shape(uint32_t space, uint32_t key, uint32_t version);
/* Stored bytes of a shard, and its metadata. */
uint32_t model_stored(uint32_t space, uint32_t key, uint32_t version, uint32_t shard);
uint16_t model_meta(uint32_t space, uint32_t key, uint32_t version, uint32_t shard, uint8_t *meta);
void model_fill(uint32_t space, uint32_t key, uint32_t version, uint32_t shard, uint8_t *to,
		uint32_t bytes);
uint64_t model_ttl_ns(uint32_t space, uint32_t key);

/* The device was fenced while the io was there. */
bool model_fenced(const struct sim_io *sio);
/* Its block as it is now, into the io. */
void model_sent(struct sim_io *sio);
/* Checks what came of an io. */
void model_done(struct sim_io *sio);
/* What a lookup says of the block. */
void model_looked(uint32_t space, uint32_t key, bool present);
/* A clear of the space begins; it has ended. @late: some time after who called it was told. */
void model_clear_begin(uint32_t space, bool durable);
void model_clear_end(uint32_t space, int result, bool durable, bool late);

/*
 * A cut, or the end of a close: what has to be there then; @present at this moment.
 */
void model_cut(uint32_t space, uint32_t key, bool present);
void model_closed(uint32_t space, uint32_t key, bool present);
/* The store was opened; @present or not. A block that is there is loaded next, to be verified. */
void model_opened(uint32_t space, uint32_t key, bool present);

#endif
