/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that are sent ahead of who needs them, many at a time: what opens a store need
 * not wait for one after the other. They are taken in the order in which they were
 * wanted, and some perhaps not at all. A help and no more: what could not be sent, or
 * failed, is read as usual.
 *
 * Owner: one thread.
 */
#ifndef FLASH_AHEAD_H
#define FLASH_AHEAD_H

#include "sys/engine.h"

#define AHEAD_CHAINS 256u	 /* a power of two; reads under way at once */
#define AHEAD_ROOM   (16u << 20) /* memory for what is read */

struct ahead;

/*
 * 0 or -ENOMEM. @engine, of AHEAD_CHAINS chains at least, @room and @fd are lent until
 * ahead_close(); @direct: fd is O_DIRECT.
 */
int ahead_open(const struct sys *sys, const struct engine_ops *ops, struct engine *engine,
	       void *room, int fd, bool direct, struct ahead **ret_ahead);
/* Waits for what is under way. -EIO: the engine is broken, and may use @room for ever. */
int ahead_close(struct ahead *ahead);

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
