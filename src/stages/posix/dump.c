/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps into a tier that this process owns.
 *
 *	look -> (evict | wait)* -> claim -> [mkdir] -> write rounds -> publish
 *	     -> [sync the directory] -> look again for what others were writing
 *
 * Invariants, numbered:
 *  1. A shard is written by the one io that has claimed it; another that wants
 *     it waits, and writes itself if that one failed.
 *  2. The head is written when every shard is in the file, and the name is
 *     changed after that: a name without suffix is a whole block.
 *  3. A block in one io is one chain: head and shards in one write, then the
 *     name.
 */
#include "stages/posix/tier.h"

#include <sys/stat.h>

static void dump_look(struct pio *p);
static void dump_write(struct pio *p);
static void dump_next_round(struct pio *p);

static struct partial *my_partial(struct pio *p)
{
	return &p->tier->partials[p->partial]; /* in use as long as it is claimed */
}

static void parts_set(struct pio *p, uint64_t mask, int32_t status)
{
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (mask >> i & 1)
			p->io->parts[i].status = status;
}

/* ---- what is over ------------------------------------------------------------------- */

static void count_written(struct pio *p)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			bytes += p->io->parts[i].stored_length;
	cairn_count(p->tier->env, CNT_DUMPS, (uint64_t)__builtin_popcountll(p->mine));
	cairn_count(p->tier->env, CNT_DUMP_BYTES, bytes);
}

/* The claimed parts have their status; the others are looked at again. */
static void dump_pass_over(struct pio *p)
{
	p->mine = 0;
	p->partial = INDEX_NONE;
	p->reused = false;
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->io->parts[i].status == CAIRN_PENDING) {
			dump_look(p);
			return;
		}
	pio_complete(p);
}

static void dropped_gone(struct pio *p)
{
	struct posix *tier = p->tier;
	struct partial *partial = my_partial(p);
	bool stays = false;

	for (uint32_t i = 0; i < p->slots[0].chain.op_count; i++) {
		const struct engine_op *op = &p->slots[0].ops[i];

		stays = stays ||
			(op->code == OP_UNLINKAT && op->result < 0 && op->result != -ENOENT);
	}
	tier_lock(tier);
	if (stays)
		partial_stays(tier, partial);
	tier_dir_statted(p, 0);
	partial_free(tier, partial);
	tier_unlock(tier);
	dump_pass_over(p);
}

/* Nobody writes this partial any more and it is out of the index. @named: perhaps it got its name.
 */
static void dropped_unlink(struct pio *p, bool named)
{
	pio_chain(p, 0);
	if (named)
		pio_unlink(p, 0, p->path);
	pio_unlink(p, 0, p->temp);
	pio_stat_dir(p, 0);
	pio_go(p, 1, dropped_gone);
}

/* Gives the claims back. [m] */
static void claims_give(struct pio *p, bool done)
{
	struct partial *partial = my_partial(p);

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		uint32_t shard = p->io->parts[i].shard;

		if (!(p->mine >> i & 1))
			continue;
		assert(shard_test(partial->claimed, shard) && partial->claim_count > 0);
		shard_clear(partial->claimed, shard);
		partial->claim_count--;
		if (!done)
			continue;
		shard_set(partial->done, shard);
		partial->done_count++;
	}
	if (!partial->claim_count)
		pio_wake_room(p->tier); /* it is idle, and may be dropped for another */
	pio_wake_key(p->tier, &partial->id.key);
}

/*
 * Fails the claimed parts. The partial goes when nothing of it is left, or when
 * its file is not there any more (-ESTALE).
 */
static void dump_failed(struct pio *p, int32_t status)
{
	struct partial *partial = my_partial(p);
	bool unlink;

	if (status == -ENOENT) /* of a file that was written before */
		status = -ESTALE;

	cairn_count(p->tier->env, status == -ENOSPC ? CNT_REFUSED : CNT_IO_ERRORS, 1);
	parts_set(p, p->mine, status);
	tier_lock(p->tier);
	partial->publishing = false;
	claims_give(p, false);
	if (partial->entry == INDEX_NONE)
		unlink = !partial->claim_count;
	else
		unlink = (status == -ESTALE || (!partial->claim_count && !partial->done_count)) &&
			 partial_drop(p->tier, partial);
	tier_unlock(p->tier);
	if (unlink)
		dropped_unlink(p, false);
	else
		dump_pass_over(p);
}

/* ---- durable --------------------------------------------------------------------------- */

static void dir_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);
	struct index_entry *entry;

	tier_lock(p->tier);
	entry = entry_find(p->tier, &p->id);
	if (result == 0) {
		p->tier->dirs[name_dir_of(&p->id.key, p->tier->dirs_log2)].unsynced = false;
		if (entry && entry->tier == p->incarnation)
			entry->flags |= ENTRY_DURABLE;
	}
	if (p->pinned)
		entry_unpin(p->tier, &p->id, p->incarnation);
	p->pinned = false;
	tier_unlock(p->tier);
	parts_set(p, p->mine, result ? pio_errno(result) : p->failure);
	dump_pass_over(p);
}

/* The name becomes durable; then the claimed parts get the status in p->failure. */
static void dir_sync(struct pio *p)
{
	uint32_t number = name_dir_of(&p->id.key, p->tier->dirs_log2);
	bool unsynced;

	tier_lock(p->tier);
	unsynced = p->tier->dirs[number].unsynced;
	tier_unlock(p->tier);
	name_dir(number, p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	if (unsynced)
		pio_op(p, 0, OP_FSYNC, p->tier->blocks_fd);
	pio_go(p, 1, dir_synced);
}

static void present_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (!result) {
		dir_sync(p);
		return;
	}
	tier_lock(p->tier);
	entry_unpin(p->tier, &p->id, p->incarnation);
	p->pinned = false;
	if (result == -ENOENT)
		entry_lost(p->tier, &p->id, p->incarnation);
	tier_unlock(p->tier);
	/* Removed meanwhile: what is there then is looked at again. */
	if (result != -ENOENT)
		parts_set(p, p->mine, pio_errno(result));
	dump_pass_over(p);
}

static void present_sync(struct pio *p)
{
	name_block(&p->id, p->tier->dirs_log2, p->path);
	p->failure = CAIRN_PRESENT;
	pio_chain(p, 0);
	pio_open(p, 0, p->path, O_RDONLY);
	pio_op(p, 0, OP_FDATASYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, present_synced);
}

/* ---- publishing --------------------------------------------------------------------------- */

/* Under its final name: it becomes visible. [m] */
static void published(struct pio *p, uint32_t slot)
{
	struct posix *tier = p->tier;
	struct partial *partial = my_partial(p);
	struct index_entry *entry = index_at(tier->index, partial->entry);
	bool statted = p->stx.stx_mask & STATX_BLOCKS;

	entry->tier = ++tier->incarnation;
	entry->flags = (uint8_t)((entry->flags & ENTRY_DEAD) | (p->all_raw ? ENTRY_RAW : 0u));
	entry->shard_count = (uint16_t)p->geo.shard_count;
	entry->shard_bytes = (uint32_t)p->geo.shard_bytes;
	entry->last_bytes = (uint32_t)p->geo.last_bytes;
	entry->sequence = p->io->sequence;
	entry->charge = statted ? p->stx.stx_blocks * 512 : partial->reserved;
	p->incarnation = entry->tier;
	tier->used += entry->charge;
	tier->block_bytes += entry->charge;
	index_publish(tier->index, entry, p->io->sequence);
	partial->entry = INDEX_NONE;
	tier_dir_statted(p, slot);
	claims_give(p, true);
	partial_free(tier, partial);
	tier_gauges(tier);
	cairn_count(tier->env, CNT_PUBLISHED, 1);
}

/* Whether the chain came as far as the change of the name, whatever that said. */
static bool publish_tried(const struct pio *p)
{
	const struct engine_chain *chain = &p->slots[0].chain;

	for (uint32_t i = 0; i < chain->op_count; i++)
		if (chain->ops[i].code == OP_RENAMEAT)
			return chain->ops[i].result != -ECANCELED &&
			       chain->ops[i].result != -EAGAIN; /* refused by the engine */
	return false;
}

/*
 * A failure at the change of the name or after it (a close may tell of lost
 * writes): where the file is now is not known, so nothing of the block stays.
 */
static void publish_undo(struct pio *p, int32_t status)
{
	struct partial *partial = my_partial(p);
	bool idle;

	cairn_count(p->tier->env, CNT_IO_ERRORS, 1);
	parts_set(p, p->mine, status);
	tier_lock(p->tier);
	partial->publishing = false;
	claims_give(p, false);
	idle = partial_drop(p->tier, partial);
	tier_unlock(p->tier);
	assert(idle);
	dropped_unlink(p, true);
}

static void publish_done(struct pio *p)
{
	int64_t result = pio_result(p, 0);
	bool durable = my_partial(p)->durable;

	if (result < 0 && publish_tried(p)) {
		publish_undo(p, pio_errno(result));
		return;
	}
	if (result < 0) {
		dump_failed(p, pio_errno(result));
		return;
	}
	tier_stat_again(p, 0);
	tier_lock(p->tier);
	published(p, 0);
	tier_unlock(p->tier);
	count_written(p);
	p->failure = 0;
	if (durable) {
		dir_sync(p);
		return;
	}
	parts_set(p, p->mine, 0);
	dump_pass_over(p);
}

/* What follows the writing of the head in its chain. */
static void publish_ops(struct pio *p, bool durable)
{
	struct engine_op *op;

	memset(&p->stx, 0, sizeof(p->stx));
	name_block(&p->id, p->tier->dirs_log2, p->path);
	if (durable)
		pio_op(p, 0, OP_FDATASYNC, ENGINE_FD_CHAIN);
	op = pio_op(p, 0, OP_STATX, p->tier->blocks_fd);
	op->path = p->temp;
	op->stx = &p->stx;
	op->soft = true;
	op = pio_op(p, 0, OP_RENAMEAT, p->tier->blocks_fd);
	op->path = p->temp;
	op->fd2 = p->tier->blocks_fd;
	op->path2 = p->path;
	pio_stat_dir(p, 0);
}

static void publish(struct pio *p)
{
	struct partial *partial = my_partial(p);
	int flags = O_WRONLY | (p->tier->direct ? O_DIRECT : 0);

	dump_seal(p, partial->image, &partial->attr, partial->chain);
	pio_round(p);
	pio_run_add(p, 0, partial->image, p->geo.head_bytes);
	pio_chain(p, 0);
	pio_open(p, 0, p->temp, flags);
	pio_run_ops(p, 0, OP_WRITEV, ENGINE_FD_CHAIN, 0, p->run_count);
	publish_ops(p, partial->durable);
	pio_go(p, 1, publish_done);
}

/* Every claimed shard is in the temporary file. */
static void shards_written(struct pio *p)
{
	struct partial *partial = my_partial(p);
	bool dropped, last, unlink = false;

	tier_lock(p->tier);
	dropped = partial->entry == INDEX_NONE;
	last = !dropped && partial->done_count + (uint32_t)__builtin_popcountll(p->mine) ==
				   partial->geo.shard_count;
	partial->publishing = last;
	p->geo = partial->geo;
	if (!last)
		claims_give(p, !dropped);
	if (!last && !dropped)
		partial_touch(p->tier, partial);
	if (dropped)
		unlink = !partial->claim_count;
	tier_unlock(p->tier);
	if (last) {
		publish(p);
		return;
	}
	if (!dropped)
		count_written(p);
	parts_set(p, p->mine, dropped ? -ESTALE : 0);
	if (unlink)
		dropped_unlink(p, false);
	else
		dump_pass_over(p);
}

/* ---- writing ----------------------------------------------------------------------- */

static void write_failed(struct pio *p, int64_t result);

static void dir_made(struct pio *p)
{
	uint32_t number = name_dir_of(&p->id.key, p->tier->dirs_log2);
	int64_t result = p->slots[0].ops[0].result;

	if (result < 0 && result != -EEXIST) {
		write_failed(p, result);
		return;
	}
	tier_stat_again(p, 0);
	tier_lock(p->tier);
	p->tier->dirs[number].exists = true;
	p->tier->dirs[number].unsynced = true;
	tier_dir_statted(p, 0);
	if (p->slots[0].ops[2].result == 0 &&
	    p->stx.stx_blocks * 512 > p->tier->blocks_dir_charge) {
		p->tier->used += p->stx.stx_blocks * 512 - p->tier->blocks_dir_charge;
		p->tier->blocks_dir_charge = p->stx.stx_blocks * 512;
	}
	tier_unlock(p->tier);
	dump_rewind(p);
	dump_next_round(p);
}

static void dir_make(struct pio *p)
{
	struct engine_op *op;

	pio_chain(p, 0);
	pio_make_dir(p, 0);
	pio_stat_dir(p, 0);
	op = pio_op(p, 0, OP_STATX, p->tier->blocks_fd);
	op->path = ".";
	op->stx = &p->stx;
	op->soft = true;
	pio_go(p, 1, dir_made);
}

static void rewrite(struct pio *p)
{
	p->started = false;
	p->reused = false;
	dump_rewind(p);
	dump_next_round(p);
}

/* The file system is full though the budget is not: somebody else's bytes. */
static bool make_room(struct pio *p)
{
	bool picked;

	if (p->full_tries++ >= FULL_TRIES_MAX)
		return false;
	tier_lock(p->tier);
	picked = room_force(p, p->need) || room_pick_idle(p);
	tier_unlock(p->tier);
	if (picked)
		room_evict(p, rewrite);
	return picked;
}

static void write_failed(struct pio *p, int64_t result)
{
	bool created;

	tier_lock(p->tier);
	if (p->reuse) /* its new directory could not be made */
		room_reused(p, false);
	created = my_partial(p)->created;
	tier_unlock(p->tier);
	if (result == -ENOENT && !created && !p->dir_tries) {
		p->dir_tries++;
		dir_make(p); /* taken away by somebody */
		return;
	}
	if (result == -ENOENT && created)
		result = -ESTALE;
	if (pio_errno(result) == -ENOSPC && make_room(p))
		return;
	dump_failed(p, pio_errno(result));
}

static void round_done(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result < 0 && !(p->merged && publish_tried(p))) {
		write_failed(p, result);
		return;
	}
	tier_lock(p->tier);
	my_partial(p)->created = true;
	tier_unlock(p->tier);
	if (p->merged)
		publish_done(p);
	else if (dump_round_last(p))
		shards_written(p);
	else
		dump_next_round(p);
}

/* Builds the round: with the head and the name when the whole block fits in one. */
static void round_build(struct pio *p, struct partial *partial)
{
	p->merged = false;
	if (p->whole && !p->cursor_part && !p->cursor) {
		bool any = dump_round(p, dump_head_place(p, partial->image));

		assert(any);
		p->merged = dump_round_last(p);
		if (p->merged)
			return;
		dump_rewind(p);
	}
	dump_round(p, NULL);
	assert(p->run_count > 0);
}

/* A victim's file is ours, or stays its own: then room is to be found another way. */
static void reuse_over(struct pio *p)
{
	struct partial *partial = my_partial(p);
	bool idle;

	tier_lock(p->tier);
	partial->created = p->reused;
	if (p->reused) {
		tier_unlock(p->tier);
		dump_next_round(p);
		return;
	}
	partial->publishing = false;
	claims_give(p, false);
	idle = partial_drop(p->tier, partial);
	assert(idle);
	partial_free(p->tier, partial);
	tier_unlock(p->tier);
	dump_pass_over(p);
}

static void dump_next_round(struct pio *p)
{
	struct partial *partial = my_partial(p);
	int flags = O_WRONLY | (p->tier->direct ? O_DIRECT : 0);
	bool exists, fresh;

	tier_lock(p->tier);
	/* Made once: if it is gone then, a new one would lack what is written. */
	flags |= partial->created ? 0 : O_CREAT;
	exists = p->tier->dirs[name_dir_of(&p->id.key, p->tier->dirs_log2)].exists;
	tier_unlock(p->tier);
	if (!exists) {
		dir_make(p);
		return;
	}
	if (p->reuse) {
		room_reuse(p, reuse_over);
		return;
	}
	fresh = p->whole && !p->started && !p->reused;
	round_build(p, partial);
	pio_chain(p, 0);
	pio_open(p, 0, p->temp, flags | (fresh ? O_TRUNC : 0));
	if (fresh && p->all_raw) {
		struct engine_op *op = pio_op(p, 0, OP_FALLOCATE, ENGINE_FD_CHAIN);

		op->length = geometry_file_bytes(&p->geo);
		op->soft = true; /* some file systems have none; writing tells what it is */
	}
	p->started = true;
	pio_run_ops(p, 0, OP_WRITEV, ENGINE_FD_CHAIN, 0, p->run_count);
	if (p->merged)
		publish_ops(p, partial->durable);
	pio_go(p, 1, round_done);
}

static void dump_write(struct pio *p)
{
	if (!dump_workspace(p, dump_head_room(p), dump_write))
		return;
	dump_rewind(p);
	p->started = false;
	dump_next_round(p);
}

static void dump_claimed(struct pio *p)
{
	struct partial *partial = my_partial(p);

	name_temp(&p->id, p->tier->dirs_log2, partial->number, p->temp);
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			dump_fill(p, partial->image, &p->io->parts[i]);
	if (p->whole)
		dump_seal(p, partial->image, &partial->attr, partial->chain);
	dump_write(p);
}

/* ---- looking ----------------------------------------------------------------------- */

static bool same_geometry(const struct pio *p, uint64_t shard_count, uint64_t shard_bytes,
			  uint64_t last_bytes)
{
	return p->geo.shard_count == shard_count && p->geo.shard_bytes == shard_bytes &&
	       (!p->geo.last_bytes || !last_bytes || p->geo.last_bytes == last_bytes);
}

static uint64_t pending_mask(const struct pio *p)
{
	uint64_t mask = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->io->parts[i].status == CAIRN_PENDING)
			mask |= 1ull << i;
	return mask;
}

/* The block is whole already. [m] taken, given back. */
static void look_present(struct pio *p, struct index_entry *entry)
{
	uint64_t pending = pending_mask(p);
	bool same = same_geometry(p, entry->shard_count, entry->shard_bytes, entry->last_bytes);
	bool sync = same && p->io->durability == CAIRN_DURABLE && !(entry->flags & ENTRY_DURABLE);

	if (same) {
		index_touch(p->tier->index, entry, p->io->sequence);
		entry_parent(p->tier, entry, &p->io->attr.parent);
	}
	if (sync && !entry_pin(p, entry)) {
		tier_unlock(p->tier);
		pio_retry(p, 1000000, dump_look);
		return;
	}
	tier_unlock(p->tier);
	cairn_count(p->tier->env, CNT_DUMPS_PRESENT, (uint64_t)__builtin_popcountll(pending));
	p->mine = pending;
	if (sync) {
		present_sync(p);
		return;
	}
	parts_set(p, pending, same ? CAIRN_PRESENT : -EINVAL);
	dump_pass_over(p);
}

/* Claims what nobody has; returns whether there is something to wait for. [m] */
static bool claim(struct pio *p, struct partial *partial)
{
	uint64_t pending = pending_mask(p);
	bool wait = false;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		uint32_t shard = p->io->parts[i].shard;

		if (!(pending >> i & 1))
			continue;
		if (shard_test(partial->done, shard)) {
			p->io->parts[i].status = CAIRN_PRESENT;
			cairn_count(p->tier->env, CNT_DUMPS_PRESENT, 1);
		} else if (shard_test(partial->claimed, shard)) {
			wait = true;
		} else {
			shard_set(partial->claimed, shard);
			partial->claim_count++;
			p->mine |= 1ull << i;
		}
	}
	return wait;
}

/* What the io tells of the block; the first one told stays. [m] */
static void tell(struct pio *p, struct partial *partial)
{
	const struct cairn_block_attr *attr = &p->io->attr;

	partial->durable = partial->durable || p->io->durability == CAIRN_DURABLE;
	if (!partial->geo.last_bytes)
		partial->geo.last_bytes = p->geo.last_bytes;
	if (partial->attr_told || !attr_told(attr))
		return;
	partial->attr = *attr;
	partial->attr_told = true;
	partial->chain = p->io->flags & CAIRN_IO_CHAIN;
	index_at(p->tier->index, partial->entry)->depth = attr->depth;
	entry_parent(p->tier, index_at(p->tier->index, partial->entry), &attr->parent);
}

/* [m] taken, given back. */
static void look_partial(struct pio *p, struct partial *partial)
{
	bool wait;

	if (!same_geometry(p, partial->geo.shard_count, partial->geo.shard_bytes,
			   partial->geo.last_bytes)) {
		tier_unlock(p->tier);
		cairn_io_fail(p->io, -EINVAL);
		dump_pass_over(p);
		return;
	}
	if (partial->publishing) {
		pio_wait_key(p, dump_look);
		tier_unlock(p->tier);
		return;
	}
	tell(p, partial);
	wait = claim(p, partial);
	partial_touch(p->tier, partial);
	p->partial = p->mine ? partial_id(p->tier, partial) : INDEX_NONE;
	p->need = partial->reserved;
	p->geo = partial->geo;
	/* From here on nobody else tells anything of it: the head can be sealed. */
	p->whole = (uint32_t)__builtin_popcountll(p->mine) == partial->geo.shard_count;
	partial->publishing = p->whole;
	if (!p->mine && wait)
		pio_wait_key(p, dump_look);
	tier_unlock(p->tier);
	if (p->mine)
		dump_claimed(p);
	else if (!wait)
		dump_pass_over(p);
}

/* There is room: the block gets a place. [m] taken, given back. */
static void look_begin(struct pio *p)
{
	struct posix *tier = p->tier;
	struct index_key key = {p->id.key, p->id.space, p->id.generation};
	uint32_t number = partial_new(tier, &p->id, &p->geo);
	struct index_entry *entry;
	struct partial *partial;
	bool made;

	if (number == INDEX_NONE) {
		bool idle;

		if (p->reuse)
			room_reused(p, false);
		idle = room_pick_idle(p);
		room_untake(tier, p->need);
		if (!idle)
			pio_wait_room(p, dump_look);
		tier_unlock(tier);
		if (idle)
			room_evict(p, dump_look);
		return;
	}
	entry = index_add(tier->index, &key, &made);
	assert(entry && made);
	partial = partial_at(tier, number);
	partial->reserved = p->need;
	partial->entry = index_id(tier->index, entry);
	entry->tier = number;
	entry->flags = 0;
	side_add(tier, entry);
	look_partial(p, partial);
}

/* Nothing of it is there. [m] taken, given back. */
static void look_absent(struct pio *p)
{
	enum room_verdict verdict;

	p->need = room_need(p->tier, &p->id, &p->geo);
	verdict = room_take(p);
	if (verdict == ROOM_TAKEN || verdict == ROOM_REUSE) {
		look_begin(p);
		return;
	}
	if (verdict == ROOM_WAIT)
		pio_wait_room(p, dump_look);
	tier_unlock(p->tier);
	if (verdict == ROOM_WAIT)
		return;
	if (verdict == ROOM_EVICT) {
		room_evict(p, dump_look);
		return;
	}
	cairn_count(p->tier->env, CNT_REFUSED, 1);
	cairn_io_fail(p->io, verdict == ROOM_TOO_BIG ? -EFBIG : -ENOSPC);
	dump_pass_over(p);
}

static void dump_look(struct pio *p)
{
	struct posix *tier = p->tier;
	struct index_key key = {p->id.key, p->id.space, 0};
	struct index_entry *entry;

	assert(!p->mine && p->partial == INDEX_NONE);
	tier_lock(tier);
	p->id.generation = key.generation = p->space->generation;
	entry = index_find(tier->index, &key);
	if (entry && entry->state == INDEX_WHOLE && (entry->flags & ENTRY_REMOVING)) {
		pio_wait_key(p, dump_look);
		tier_unlock(tier);
	} else if (entry && entry->state == INDEX_WHOLE) {
		look_present(p, entry);
	} else if (entry && entry->state == INDEX_PARTIAL) {
		look_partial(p, partial_at(tier, entry->tier));
	} else {
		look_absent(p);
	}
}

void dump_submit(struct pio *p)
{
	if (!dump_check(p)) {
		pio_complete(p);
		return;
	}
	/* Reserved at open for a million million million: see SEQUENCE_AHEAD. */
	if (p->io->sequence >= p->tier->sequence_limit) {
		cairn_io_fail(p->io, -EIO);
		pio_complete(p);
		return;
	}
	dump_look(p);
}
