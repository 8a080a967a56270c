/* SPDX-License-Identifier: Apache-2.0 */
/* What a stage says when it is opened, or refuses to be. */
#ifndef STAGES_ERROR_H
#define STAGES_ERROR_H

#include <stdint.h>

#include <cairn/error.h>

/* Fills @reterr (which may be NULL), without a place, and returns @code, a negative errno. */
int stage_error(struct cairn_error *reterr, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * -EBUSY: another process has what is at @path open, @pid (0: unknown). @else_do: what to do
 * but to end it.
 */
int stage_busy(struct cairn_error *reterr, const char *stage, const char *path, uint32_t pid,
	       const char *else_do);

#endif
