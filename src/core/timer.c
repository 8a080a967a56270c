/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "core/reactor.h"

static void place(struct reactor *reactor, struct io_slot *io, uint32_t at)
{
	reactor->timers[at] = io;
	io->timer_index = at + 1;
}

static void sift_up(struct reactor *reactor, struct io_slot *io, uint32_t at)
{
	while (at > 0) {
		uint32_t parent = (at - 1) / 2;

		if (reactor->timers[parent]->timer_ns <= io->timer_ns)
			break;
		place(reactor, reactor->timers[parent], at);
		at = parent;
	}
	place(reactor, io, at);
}

static void sift_down(struct reactor *reactor, struct io_slot *io, uint32_t at)
{
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= reactor->timer_count)
			break;
		if (child + 1 < reactor->timer_count &&
		    reactor->timers[child + 1]->timer_ns < reactor->timers[child]->timer_ns)
			child++;
		if (reactor->timers[child]->timer_ns >= io->timer_ns)
			break;
		place(reactor, reactor->timers[child], at);
		at = child;
	}
	place(reactor, io, at);
}

void timer_set(struct reactor *reactor, struct io_slot *io, uint64_t when_ns)
{
	timer_clear(reactor, io);
	assert(reactor->timer_count < reactor->ios + reactor->own_count);
	io->timer_ns = when_ns;
	sift_up(reactor, io, reactor->timer_count++);
}

void timer_clear(struct reactor *reactor, struct io_slot *io)
{
	struct io_slot *last;
	uint32_t at;

	if (io->timer_index == 0)
		return;
	at = io->timer_index - 1;
	assert(at < reactor->timer_count && reactor->timers[at] == io);
	io->timer_index = 0;
	last = reactor->timers[--reactor->timer_count];
	if (last == io)
		return;
	if (at > 0 && reactor->timers[(at - 1) / 2]->timer_ns > last->timer_ns)
		sift_up(reactor, last, at);
	else
		sift_down(reactor, last, at);
}
