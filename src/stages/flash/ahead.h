/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that are sent ahead of who needs them, many at a time, by an engine of
 * their own: what opens a store need not wait for one after the other. They are
 * taken in the order in which they were wanted, and some perhaps not at all. A help and no more:
 * what could not be sent, or failed, is read as usual.
 *
 * Owner: one thread.
 */
#ifndef FLASH_AHEAD_H
#define FLASH_AHEAD_H

#include "sys/engine.h"

struct ahead;

/* 0, -ENOMEM, or what the engine says. @fd is lent; @direct: it is O_DIRECT. */
int ahead_open(const struct sys *sys, const struct engine_ops *ops, int fd, bool direct,
	       struct ahead **ret_ahead);
/* Waits for what is under way. NULL is ignored. */
void ahead_close(struct ahead *ahead);

/* Whether @count more of @bytes each can be wanted now. */
bool ahead_room(const struct ahead *ahead, uint32_t count, size_t bytes);
#define AHEAD_READ_MAX (4u << 20) /* more than that never can */
/* False: not now. */
bool ahead_want(struct ahead *ahead, uint64_t at, size_t bytes);

/*
 * The bytes of a want, if there is such a one and it went well; it is taken in either
 * case, and those before it are passed over. They stay where they are until ahead_give().
 */
const uint8_t *ahead_take(struct ahead *ahead, uint64_t at, size_t bytes);
/* Whatever was taken is used no more. */
void ahead_give(struct ahead *ahead);
/* Nothing of what was wanted is wanted any more. */
void ahead_forget(struct ahead *ahead);

#endif
