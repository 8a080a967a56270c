/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct reads and writes in the kernel's care, by libaio, and the wait for
 * them and for a bell in one.
 *
 * A request belongs to whoever made it until aio_send() or aio_queue(); then to
 * the kernel until it is handed to the function given at open.
 */
#ifndef SYS_AIO_H
#define SYS_AIO_H

#include <libaio.h>

#include "sys/bell.h"
#include "sys/engine.h"

struct aio;

struct aio_request {
	struct iocb iocb;
	uint32_t submitted; /* atomic: its way through the kernel */
	bool patient;	    /* aio_send() made it: it may wait for its turn at the device */
};

/* @result: bytes, or a negative errno; -EAGAIN: an impatient one would have had to wait. */
typedef void aio_fn(void *context, struct aio_request *request, int64_t result);

/* 0, or what refuses libaio here. */
int aio_probe(void);

/* -EOPNOTSUPP: no aio here, or no more. @bell outlives it; only aio_wait() waits for it. */
int aio_open(const struct sys *sys, uint32_t requests_max, struct bell *bell, aio_fn *fn,
	     void *context, struct aio **ret_aio);

/* No request may be in flight. Waits for a grace period of the kernel's. NULL is ignored. */
void aio_close(struct aio *aio);

/*
 * Gives the transfer @op on @fd to the kernel now; may block while the device's
 * queue is full. False: it was not taken. Any thread. Once it was taken the
 * request may be over and used again before this returns.
 */
bool aio_send(struct aio *aio, struct aio_request *request, int fd, const struct engine_op *op);

/* The same with the next aio_flush(), many in one call, and none that would block. Owner. */
void aio_queue(struct aio *aio, struct aio_request *request, int fd, const struct engine_op *op);

/* Sends what is queued; what the kernel refuses has ended -EAGAIN then. Owner. */
void aio_flush(struct aio *aio);

/*
 * Hands over what has ended; waits for the first, or for the bell, for at most
 * @wait_ns (UINT64_MAX: for ever). Nothing is queued. Owner.
 */
void aio_wait(struct aio *aio, uint64_t wait_ns);

#endif
