/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants:
 *  1. Who submits an iocb gives its request away with it: the owner may reap it
 *     and use it again before io_submit() has returned.
 *  2. The kernel holds at most one iocb a request, and one for the bell; the
 *     context has room for all of them.
 *  3. What ends is in `queued` no more.
 */
#include "sys/aio.h"

#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <poll.h>
#include <unistd.h>

#define BATCH	 64u /* iocbs and events a call */
#define NS_PER_S 1000000000u
#define DEAF_NS	 1000000u /* the bell could not be listened to for want of memory */

struct aio {
	const struct sys *sys;
	io_context_t context;
	struct bell *bell;
	struct iocb bell_iocb;
	bool listening; /* bell_iocb is in the kernel */
	aio_fn *fn;
	void *fn_context;
	uint32_t queued_count;
	struct iocb *queued[BATCH];
};

static int submit(io_context_t context, struct iocb **iocbs, uint32_t count)
{
	int rc;

	do {
		rc = io_submit(context, (long)count, iocbs);
	} while (rc == -EINTR);
	return rc;
}

/* An eventfd's readiness, once: it is asked for again after each ring. */
static void arm_bell(struct aio *aio)
{
	struct iocb *iocb = &aio->bell_iocb;

	io_prep_poll(iocb, aio->bell->fd, POLLIN);
	iocb->data = NULL;
	aio->listening = submit(aio->context, &iocb, 1) == 1;
}

/* A context would cost a grace period of the kernel's, tens of ms, when it is destroyed. */
int aio_probe(void)
{
	io_context_t none = NULL;
	int rc = io_setup(0, &none);

	/* Linux has no context of no events; another kernel behind its calls (gVisor) has. */
	if (rc == 0)
		io_destroy(none);
	return rc == -EINVAL ? 0 : rc;
}

int aio_open(const struct sys *sys, uint32_t requests_max, struct bell *bell, aio_fn *fn,
	     void *context, struct aio **ret_aio)
{
	struct aio *aio = sys_zalloc(sys, 0, sizeof(*aio));
	int rc;

	if (aio == NULL)
		return -ENOMEM;
	aio->sys = sys;
	aio->bell = bell;
	aio->fn = fn;
	aio->fn_context = context;
	rc = io_setup((int)requests_max + 1, &aio->context);
	if (rc < 0) {
		sys->free(aio);
		/* The machine's aio-max-nr is used up: as if there were no aio. */
		return rc == -EAGAIN ? -EOPNOTSUPP : rc;
	}
	arm_bell(aio);
	if (!aio->listening) {
		aio_close(aio);
		return -EOPNOTSUPP;
	}
	*ret_aio = aio;
	return 0;
}

void aio_close(struct aio *aio)
{
	const struct sys *sys;

	if (aio == NULL)
		return;
	assert(aio->queued_count == 0);
	sys = aio->sys;
	io_destroy(aio->context);
	sys->free(aio);
}

static void prepare(struct aio_request *request, int fd, const struct engine_op *op)
{
	struct iocb *iocb = &request->iocb;

	if (op->code == OP_READV)
		io_prep_preadv(iocb, fd, op->iov, op->iov_count, (long long)op->offset);
	else
		io_prep_pwritev(iocb, fd, op->iov, op->iov_count, (long long)op->offset);
	iocb->data = request;
	/* Release: pairs with hand_back(). All that this thread wrote to request and chain. */
	__atomic_store_n(&request->submitted, 1, __ATOMIC_RELEASE);
}

bool aio_send(struct aio *aio, struct aio_request *request, int fd, const struct engine_op *op)
{
	struct iocb *iocb = &request->iocb;
	/* Read before the release: who has the request's end may close the engine at once. */
	io_context_t context = aio->context;

	request->patient = true;
	prepare(request, fd, op);
	if (submit(context, &iocb, 1) == 1)
		return true;
	__atomic_store_n(&request->submitted, 0, __ATOMIC_RELAXED);
	return false;
}

static void hand_back(struct aio *aio, struct aio_request *request, int64_t result)
{
	/* Acquire: pairs with prepare(). */
	uint32_t was = __atomic_exchange_n(&request->submitted, 0, __ATOMIC_ACQUIRE);

	assert(was == 1);
	aio->fn(aio->fn_context, request, result);
}

void aio_flush(struct aio *aio)
{
	uint32_t at = 0;

	while (at < aio->queued_count) {
		int rc = submit(aio->context, &aio->queued[at], aio->queued_count - at);

		if (rc > 0)
			at += (uint32_t)rc;
		else
			hand_back(aio, aio->queued[at++]->data, -EAGAIN);
	}
	aio->queued_count = 0;
}

void aio_queue(struct aio *aio, struct aio_request *request, int fd, const struct engine_op *op)
{
	if (aio->queued_count == BATCH)
		aio_flush(aio);
	request->patient = false;
	prepare(request, fd, op);
	request->iocb.aio_rw_flags = RWF_NOWAIT;
	aio->queued[aio->queued_count++] = &request->iocb;
}

/* Takes what has ended, the first with @timeout (NULL: for ever). */
static void reap(struct aio *aio, long min_count, struct timespec *timeout)
{
	struct timespec now = {0};
	struct io_event events[BATCH];
	int count;

	do {
		count = io_getevents(aio->context, min_count, BATCH, events, timeout);
		assert(count >= 0 || count == -EINTR);
		for (int i = 0; i < count; i++) {
			if (events[i].data != NULL) {
				hand_back(aio, events[i].data, (int64_t)(long)events[i].res);
				continue;
			}
			aio->listening = false;
			bell_clear(aio->bell);
		}
		min_count = 0;
		timeout = &now;
	} while (count == (int)BATCH);
}

void aio_wait(struct aio *aio, uint64_t wait_ns)
{
	struct timespec timeout;

	assert(aio->queued_count == 0);
	/* Not before there is something to wait for: most polls are not for the bell. */
	if (wait_ns > 0 && !aio->listening)
		arm_bell(aio);
	if (!aio->listening && wait_ns > DEAF_NS)
		wait_ns = DEAF_NS;
	timeout = (struct timespec){
		.tv_sec = (time_t)(wait_ns / NS_PER_S),
		.tv_nsec = (long)(wait_ns % NS_PER_S),
	};
	reap(aio, wait_ns > 0, wait_ns == UINT64_MAX ? NULL : &timeout);
}
