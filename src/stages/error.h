/* SPDX-License-Identifier: Apache-2.0 */
/* What a stage says when it is opened, or refuses to be. */
#ifndef STAGES_ERROR_H
#define STAGES_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include <cairn/error.h>

/* Fills @reterr (which may be NULL), without a place, and returns @code, a negative errno. */
int stage_error(struct cairn_error *reterr, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

struct sys;

/* Who has a flock on the file of @fd: sys_flock_holder() in words. */
struct stage_holder {
	bool self; /* this process */
	char who[32];
};
struct stage_holder stage_holder(const struct sys *sys, int fd, uint32_t noted);

/* -EBUSY: @holder has what is at @path open. @else_do: what to do but to end it. */
int stage_busy(struct cairn_error *reterr, const char *stage, const char *path,
	       const struct stage_holder *holder, const char *else_do);

#endif
