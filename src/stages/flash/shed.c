/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overload: more is dumped than the device takes.
 *
 * Invariants, numbered:
 *  1. First dumps wait, as many as ios are kept from loads; callers behind them find no
 *     task or io. Loads have ios of their own, and never wait for room.
 *  2. When one has waited for shed=, those that come are declined at once, the cold ones;
 *     when one has waited for twice that, all that come. What waits keeps its turn: so the
 *     newest go first, and a queue is never longer than that by much.
 *  3. A dump is cold unless it has a priority or is urgent, its block is there in part, or
 *     the one that its block continues is there.
 */
#include "stages/flash/tier.h"

static bool parent_there(const struct fio *f)
{
	static const struct cairn_key none;
	const struct cairn_key *parent = &f->io->attr.parent;

	return memcmp(parent, &none, sizeof(none)) != 0 &&
	       table_find(f->tier->table, table_fingerprint(f->tier->table, parent, f->space->id,
							    f->generation)) != TABLE_NONE;
}

static bool cold(const struct fio *f)
{
	return !f->io->attr.priority && f->io->task_class != CAIRN_CLASS_URGENT &&
	       table_find(f->tier->table, f->fingerprint) == TABLE_NONE && !parent_there(f);
}

static uint64_t longest_wait_ns(const struct flash *tier, uint64_t now_ns)
{
	uint64_t since_ns = now_ns;

	for (const struct waiter *w = tier->wait_room; w; w = w->next) {
		const struct fio *other = (const struct fio *)(const void *)w;

		/* Some wait there for a hold to end. */
		if (other->room_waits && other->room_since_ns < since_ns)
			since_ns = other->room_since_ns;
	}
	return now_ns - since_ns;
}

bool dump_shed(struct fio *f)
{
	struct flash *tier = f->tier;
	uint64_t now_ns = tier->host->now_ns(), wait_ns;

	if (f->room_waits)
		return false;
	f->room_waits = true;
	f->room_since_ns = now_ns;
	wait_ns = longest_wait_ns(tier, now_ns);
	if (wait_ns < tier->shed_ns || (wait_ns < 2 * tier->shed_ns && !cold(f)))
		return false;
	for (uint32_t i = 0; i < f->io->part_count; i++)
		if (f->io->parts[i].status == CAIRN_PENDING)
			cairn_count(tier->env, CNT_SHED, 1);
	cairn_io_fail(f->io, -ENOSPC);
	return true;
}
