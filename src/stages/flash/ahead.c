/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants, numbered:
 *  1. Wants are a ring: [given, taken) lent to the owner, [taken, wanted) under
 *     way or read. Their memory is a ring, too, taken and given back in that order.
 *  2. A want is one chain of one read. Its slot is used again after it has ended.
 */
#include "stages/flash/ahead.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define GRAIN 4096u /* of memory: O_DIRECT reads into it */

static_assert(AHEAD_READ_MAX * 2 <= AHEAD_ROOM, "the next one is read while one is used");

struct want {
	struct engine_chain chain;
	struct engine_op op;
	struct iovec iov;
	uint64_t room_end; /* of the ring of memory, counted without end */
	bool over;
};

struct ahead {
	const struct sys *sys;
	const struct engine_ops *ops;
	struct engine *engine;
	int fd;
	bool direct;
	uint8_t *room;
	uint64_t given, taken, wanted;
	uint64_t room_from, room_to; /* in use; a place is the count modulo AHEAD_ROOM */
	struct want wants[AHEAD_CHAINS];
};

int ahead_open(const struct sys *sys, const struct engine_ops *ops, struct engine *engine,
	       void *room, int fd, bool direct, struct ahead **ret_ahead)
{
	struct ahead *ahead = sys_zalloc(sys, 64, sizeof(*ahead));

	assert((uintptr_t)room % GRAIN == 0);
	if (!ahead)
		return -ENOMEM;
	ahead->sys = sys;
	ahead->ops = ops;
	ahead->engine = engine;
	ahead->room = room;
	ahead->fd = fd;
	ahead->direct = direct;
	*ret_ahead = ahead;
	return 0;
}

int ahead_close(struct ahead *ahead)
{
	ahead_forget(ahead);
	if (ahead->taken < ahead->wanted)
		return -EIO; /* the kernel may go on writing to the room and to the wants */
	ahead->sys->free(ahead);
	return 0;
}

static struct want *want_at(struct ahead *ahead, uint64_t number)
{
	return &ahead->wants[number % AHEAD_CHAINS];
}

static size_t grains(size_t bytes)
{
	return (bytes + GRAIN - 1) / GRAIN * GRAIN;
}

/* Where one of @bytes begins: it does not go round the end. */
static uint64_t place_of(const struct ahead *ahead, size_t bytes)
{
	uint64_t left = AHEAD_ROOM - ahead->room_to % AHEAD_ROOM;

	return bytes <= left ? ahead->room_to : ahead->room_to + left;
}

bool ahead_room(const struct ahead *ahead, uint32_t count, size_t bytes)
{
	size_t all = count * grains(bytes);

	if (bytes > AHEAD_READ_MAX || ahead->wanted + count - ahead->given > AHEAD_CHAINS)
		return false;
	/* One of them may have to begin anew at the start. */
	return ahead->room_to + all + grains(bytes) <= ahead->room_from + AHEAD_ROOM;
}

static void ended(struct engine_chain *chain)
{
	struct want *want = (struct want *)((char *)chain - offsetof(struct want, chain));

	want->over = true;
}

bool ahead_want(struct ahead *ahead, uint64_t at, size_t bytes)
{
	struct want *want = want_at(ahead, ahead->wanted);
	uint64_t place = place_of(ahead, grains(bytes));

	assert(bytes);
	if (!ahead_room(ahead, 1, bytes))
		return false;
	memset(want, 0, sizeof(*want));
	want->iov = (struct iovec){ahead->room + place % AHEAD_ROOM, bytes};
	want->op = (struct engine_op){.code = OP_READV,
				      .fd = ahead->fd,
				      .iov = &want->iov,
				      .iov_count = 1,
				      .offset = at,
				      .length = bytes};
	want->chain.ops = &want->op;
	want->chain.op_count = 1;
	want->chain.direct = ahead->direct;
	want->chain.done = ended;
	want->room_end = place + grains(bytes);
	if (ahead->ops->submit(ahead->engine, &want->chain) < 0)
		return false;
	ahead->room_to = want->room_end;
	ahead->wanted++;
	return true;
}

/* False: the engine is broken. What is under way with it never ends. */
static bool wait_for(struct ahead *ahead, const struct want *want)
{
	int rc = 0;

	while (!want->over && rc >= 0)
		rc = ahead->ops->poll(ahead->engine, UINT64_MAX);
	return want->over;
}

static bool take_to(struct ahead *ahead, uint64_t number)
{
	while (ahead->taken < number && wait_for(ahead, want_at(ahead, ahead->taken)))
		ahead->taken++;
	return ahead->taken == number;
}

const uint8_t *ahead_take(struct ahead *ahead, uint64_t at, size_t bytes)
{
	/* What is only queued goes out before the owner is busy with what it has. */
	if (ahead->taken < ahead->wanted)
		ahead->ops->poll(ahead->engine, 0);
	for (uint64_t i = ahead->taken; i < ahead->wanted; i++) {
		struct want *want = want_at(ahead, i);

		if (want->op.offset != at || want->op.length != bytes)
			continue;
		if (!take_to(ahead, i + 1) || want->chain.result < 0)
			return NULL;
		return want->iov.iov_base;
	}
	return NULL;
}

void ahead_give(struct ahead *ahead)
{
	if (ahead->given == ahead->taken)
		return;
	ahead->given = ahead->taken;
	ahead->room_from = want_at(ahead, ahead->taken - 1)->room_end;
}

void ahead_forget(struct ahead *ahead)
{
	take_to(ahead, ahead->wanted);
	ahead_give(ahead);
}
