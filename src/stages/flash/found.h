/* SPDX-License-Identifier: Apache-2.0 */
/* What a recovery keeps of each entry of the index, beside the index; and memory for both. */
#ifndef FLASH_FOUND_H
#define FLASH_FOUND_H

#include "stages/flash/tier.h"

struct fill;

/* By the entry's id, in as many arrays: most stores never touch the last. */
struct found {
	uint64_t *births;
	uint32_t *spaces;
	uint64_t *parents; /* that are told when all blocks are in; 0: none, or it was */
	void *base;	   /* on huge pages: what to unmap */
	size_t bytes;
	struct fill *fill; /* NULL: few blocks, or it cannot be had */
};

int found_init(struct found *found, const struct flash *tier);
/* About so many blocks will come; table_expect() was told. */
void found_expect(struct found *found, const struct flash *tier, uint64_t blocks);
/* Those of a region have come. */
void found_told(struct found *found, const struct flash *tier);
void found_fini(struct found *found, const struct flash *tier);

#endif
