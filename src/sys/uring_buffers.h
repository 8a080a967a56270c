/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of an engine's user as registered buffers of its ring: one a chunk, each
 * registered when an op first lies in it, as far as RLIMIT_MEMLOCK goes. Owner.
 */
#ifndef SYS_URING_BUFFERS_H
#define SYS_URING_BUFFERS_H

#include <liburing.h>

#include "sys/engine.h"

struct uring_buffers;

/*
 * @ring lives until close. *ret_buffers is NULL where there is no memory, or the
 * kernel will not have it: everything works without, a little slower. -ENOMEM.
 */
int uring_buffers_open(const struct sys *sys, struct io_uring *ring, const struct engine_opts *opts,
		       struct uring_buffers **ret_buffers);

void uring_buffers_close(struct uring_buffers *buffers, const struct sys *sys); /* NULL: ignored */

/* The registered buffer that @iov lies in, or -1. @buffers may be NULL. */
int uring_buffers_find(struct uring_buffers *buffers, const struct iovec *iov);

#endif
