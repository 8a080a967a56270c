/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/pace.h"

#include <assert.h>

void pace_init(struct pace *pace, uint64_t write_bytes)
{
	*pace = (struct pace){.bytes = PACE_WRITES * write_bytes};
}

uint32_t pace_writes(const struct pace *pace, uint64_t write_bytes)
{
	assert(pace->bytes >= PACE_LEAST && pace->bytes <= PACE_WRITES * write_bytes);
	return pace->bytes > write_bytes ? (uint32_t)(pace->bytes / write_bytes) : 1;
}

uint64_t pace_piece(const struct pace *pace, uint64_t write_bytes)
{
	return pace->bytes < write_bytes ? pace->bytes : write_bytes;
}

void pace_ended(struct pace *pace, uint64_t write_bytes, uint32_t pieces, uint64_t took_ns)
{
	assert(pieces > 0);
	took_ns /= pieces;
	if (took_ns > PACE_NS) {
		pace->calm = 0;
		if (pace->bytes > PACE_LEAST)
			pace->bytes /= 2;
		return;
	}
	/* Twice as much will take twice as long. */
	pace->calm = took_ns * 2 <= PACE_NS ? pace->calm + 1 : 0;
	if (pace->calm < PACE_CALM)
		return;
	pace->calm = 0;
	if (pace->bytes < PACE_WRITES * write_bytes)
		pace->bytes *= 2;
}
