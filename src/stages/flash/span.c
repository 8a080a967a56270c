/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spans: what is written in one go. Small records share one; a large record has
 * spans of its own.
 *
 * Invariants, numbered:
 *  1. A span is written once, when nobody can join it any more and all who did
 *     have filled their parts.
 *  2. It is free again when all of them have seen the result.
 *  3. When a write begins or ends with fewer than writes_max() under way, nothing filled waits:
 *     a lone dump never waits for company.
 *  4. Who sends a write stays until it has ended: its engine carries it.
 */
#include "stages/flash/tier.h"

int spans_init(struct flash *tier)
{
	int rc = sys_reserve_huge(tier->sys, (size_t)SPANS * SPAN_BYTES, &tier->span_memory,
				  &tier->span_base, &tier->span_base_bytes);

	if (rc < 0)
		return rc;
	pace_init(&tier->pace, SPAN_BYTES);
	for (uint32_t i = 0; i < SPANS; i++) {
		struct span *span = &tier->spans[i];

		span->tier = tier;
		span->buffer = (uint8_t *)tier->span_memory + (size_t)i * SPAN_BYTES;
		span->next = tier->span_free;
		tier->span_free = span;
	}
	return 0;
}

struct span *span_take(struct flash *tier, uint32_t region, uint32_t unit, uint32_t units)
{
	struct span *span = tier->span_free;

	if (!span)
		return NULL;
	assert((uint64_t)units * tier->layout.unit <= SPAN_BYTES);
	tier->span_free = span->next;
	span->next = NULL;
	span->region = region;
	span->unit = unit;
	span->units = units;
	span->members = span->left = 1;
	span->filled = 0;
	span->closed = true;
	span->writing = span->over = false;
	assert(!span->waiters);
	return span;
}

bool span_has_room(struct flash *tier)
{
	return tier->span_free != NULL;
}

static uint32_t writes_max(const struct flash *tier)
{
	return tier->beside ? pace_writes(&tier->pace, SPAN_BYTES) : WRITES_MAX;
}

static void write_begins(struct span *span)
{
	struct flash *tier = span->tier;

	span->writing = true;
	span->piece_bytes = tier->beside ? pace_piece(&tier->pace, SPAN_BYTES) : SPAN_BYTES;
	span->began_ns = tier->beside ? tier->sys->now_ns() : 0;
	tier->writes++;
	tier->beside -= tier->beside > 0;
}

/* Too many writes are under way: it waits for its turn. */
static void span_pend(struct span *span)
{
	struct span **at = &span->tier->span_pending;

	while (*at)
		at = &(*at)->next;
	span->next = NULL;
	*at = span;
}

/* What was filled and waited for company goes out: one of its members sends it. */
static void span_send_later(struct span *span)
{
	assert(span->closed && span->filled == span->members && span->waiters && !span->writing);
	write_begins(span);
	fio_of(span->waiters)->lead = span;
	waiters_wake_one(&span->waiters);
}

/* Nobody joins it any more. */
static void span_close(struct span *span)
{
	struct flash *tier = span->tier;

	assert(tier->span_open == span && !span->closed);
	tier->span_open = NULL;
	span->closed = true;
	if (span->filled < span->members)
		return; /* the last to fill it goes on with it */
	if (tier->writes < writes_max(tier)) {
		span_send_later(span);
		return;
	}
	span_pend(span);
}

struct span *span_join(struct flash *tier, uint32_t region, uint32_t unit, uint32_t units)
{
	struct span *span = tier->span_open;

	if (span && span->region == region && span->unit + span->units == unit &&
	    (uint64_t)(span->units + units) * tier->layout.unit <= SPAN_BYTES) {
		span->units += units;
		span->members++;
		span->left++;
		return span;
	}
	if (span)
		span_close(span);
	span = span_take(tier, region, unit, units);
	assert(span); /* span_has_room() said so */
	span->closed = false;
	tier->span_open = span;
	return span;
}

/* ---- the write ------------------------------------------------------------------- */

static void write_over(struct engine_chain *chain)
{
	struct span *span = (struct span *)((char *)chain - offsetof(struct span, chain));
	struct flash *tier = span->tier;
	uint64_t bytes = (uint64_t)span->units * tier->layout.unit;

	fence_end(tier);
	cairn_count(tier->env, CNT_WRITES, 1);
	cairn_count(tier->env, CNT_WRITTEN_BYTES, bytes);
	tier_lock(tier);
	/* What is far smaller than it might be tells nothing of it. */
	if (span->began_ns && bytes > span->piece_bytes / 2)
		pace_ended(&tier->pace, SPAN_BYTES, chain->op_count,
			   tier->sys->now_ns() - span->began_ns);
	span->result = chain->result;
	span->over = true;
	waiters_wake(&span->waiters);
	assert(tier->writes > 0);
	tier->writes--;
	while (tier->span_pending && tier->writes < writes_max(tier)) {
		span = tier->span_pending;
		tier->span_pending = span->next;
		span->next = NULL;
		span_send_later(span);
	}
	if (tier->span_open && tier->span_open->filled == tier->span_open->members &&
	    tier->writes < writes_max(tier))
		span_close(tier->span_open);
	tier_unlock(tier);
}

static void span_send(struct fio *f, struct span *span)
{
	struct flash *tier = span->tier;
	size_t bytes = (size_t)span->units * tier->layout.unit, at = 0;
	uint32_t count = 0;

	for (size_t length; at < bytes; at += length, count++) {
		length = bytes - at < span->piece_bytes ? bytes - at : span->piece_bytes;
		assert(count < SPAN_PIECES);
		span->iov[count] = (struct iovec){span->buffer + at, length};
		span->ops[count] = (struct engine_op){
			.code = OP_WRITEV,
			.fd = tier->fd,
			.iov = &span->iov[count],
			.iov_count = 1,
			.offset = flash_byte_of(&tier->layout, span->unit) + at,
			.length = length,
		};
	}
	memset(&span->chain, 0, sizeof(span->chain));
	span->chain.ops = span->ops;
	span->chain.op_count = count;
	span->chain.direct = tier->direct;
	span->chain.done = write_over;
	fio_send(f, &span->chain);
}

void span_filled(struct fio *f, struct span *span, void (*step)(struct waiter *))
{
	struct flash *tier = f->tier;
	bool send = false;

	tier_lock(tier);
	span->filled++;
	waiter_park(&f->wait, &span->waiters, step);
	if (span->filled == span->members) {
		if (!span->closed && tier->writes < writes_max(tier)) {
			tier->span_open = NULL;
			span->closed = true;
		}
		send = span->closed && tier->writes < writes_max(tier);
		if (send)
			write_begins(span);
		else if (span->closed)
			span_pend(span);
	}
	tier_unlock(tier);
	if (send)
		span_send(f, span);
}

bool span_over(struct fio *f, struct span *span, void (*step)(struct waiter *), int64_t *ret_result)
{
	struct flash *tier = f->tier;

	tier_lock(tier);
	if (f->lead) {
		assert(f->lead == span && !span->over);
		f->lead = NULL;
		waiter_park(&f->wait, &span->waiters, step);
		tier_unlock(tier);
		span_send(f, span);
		return false;
	}
	assert(span->over && span->left > 0);
	*ret_result = span->result;
	if (--span->left == 0) {
		span->next = tier->span_free;
		tier->span_free = span;
		waiters_wake(&tier->wait_span);
		waiters_wake(&tier->wait_room);
	}
	tier_unlock(tier);
	return true;
}
