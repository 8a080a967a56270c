/* SPDX-License-Identifier: Apache-2.0 */
/* Between the three files that make, move and end ios. Runs on the reactor that owns them. */
#ifndef CORE_IO_H
#define CORE_IO_H

#include "core/reactor.h"

/* core/io.c */
void io_submit_to(struct io_slot *slot, uint32_t index);
void io_look_united(struct io_slot *slot); /* before the first io_submit_to() */

/* core/start.c */
void *io_buffer_get(struct reactor *reactor, size_t bytes);
void io_buffer_put(struct reactor *reactor, void *buffer);
void io_bounce_put(struct reactor *reactor, void *bounce);

/* The xfer's memory to or from a contiguous buffer. */
void io_gather(const struct cairn_xfer *xfer, uint8_t *buffer);
void io_scatter(const struct cairn_xfer *xfer, const uint8_t *buffer);

/* core/finish.c: every part has its status and all stages have given the io back. */
void io_finish(struct io_slot *slot);

#endif
