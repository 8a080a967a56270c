/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads: one pass over all parts, or, where their heads would take too much
 * memory, a pass for each.
 *
 *	pass -> [head] -> rounds (head with the first where the place is known)
 *	     -> verify -> [set aside] -> next pass
 *
 * Invariants, numbered:
 *  1. A part ends 0 only when its entry, its table and every piece of it were
 *     checked against the identity and the CRCs.
 *  2. Whole pieces are read: what a part does not want of them goes through
 *     the bounce space.
 */
#include "stages/posix/tier.h"

#include "base/crc32c.h"

/* A head up to here is read whole. */
#define HEAD_WHOLE 16384u

static void load_pass(struct pio *p);
static void load_rounds(struct pio *p);

static bool active(const struct pio *p, uint32_t i)
{
	return p->mine >> i & 1 && !(p->bad >> i & 1) && p->io->parts[i].status == CAIRN_PENDING;
}

static bool head_only(const struct pio *p)
{
	return p->io->op == CAIRN_OP_DESCRIBE;
}

/* ---- windows: what of the head is in memory --------------------------------------------- */

uint8_t *load_head_at(const struct pio *p, uint32_t offset)
{
	for (uint32_t i = 0; i < p->window_count; i++) {
		const struct window *w = &p->windows[i];

		if (offset >= w->offset && offset < w->offset + w->length)
			return w->at + (offset - w->offset);
	}
	assert(false); /* in no window */
	return NULL;
}

static void window_add(struct pio *p, uint32_t start, uint32_t end)
{
	struct window *last = p->window_count ? &p->windows[p->window_count - 1] : NULL;

	start = start / FORMAT_PAGE * FORMAT_PAGE;
	end = (uint32_t)round_up(end, FORMAT_PAGE);
	if (last && start <= last->offset + last->length) {
		if (end > last->offset + last->length)
			last->length = end - last->offset;
		return;
	}
	p->windows[p->window_count++] = (struct window){.offset = start, .length = end - start};
}

/* Returns the bytes that the windows for the active parts take. */
static size_t windows_plan(struct pio *p)
{
	uint32_t lo = UINT32_MAX, hi = 0;
	size_t bytes = 0;

	p->window_count = 0;
	if (!p->geo_known || p->geo.head_bytes <= HEAD_WHOLE) {
		window_add(p, 0, p->geo_known ? p->geo.head_bytes : FORMAT_PAGE);
	} else {
		for (uint32_t i = 0; i < p->io->part_count; i++) {
			uint32_t shard = p->io->parts[i].shard;

			if (!active(p, i))
				continue;
			lo = shard < lo ? shard : lo;
			hi = shard > hi ? shard : hi;
		}
		window_add(p, 0, FORMAT_PAGE);
		window_add(p, geometry_entry_at(&p->geo, lo), geometry_entry_at(&p->geo, hi + 1));
		window_add(p, geometry_table_at(&p->geo, lo), geometry_table_at(&p->geo, hi + 1));
	}
	for (uint32_t i = 0; i < p->window_count; i++)
		bytes += p->windows[i].length;
	return bytes;
}

/* ---- what a part needs --------------------------------------------------------------------- */

struct span {
	uint64_t start, end; /* of stored bytes: whole pieces */
	bool copied;
};

/* @stored: of the shard; without the head read it must be all raw. */
static void span_of(const struct pio *p, const struct cairn_part *part, struct span *ret_span)
{
	uint64_t stored = geometry_raw(&p->geo, part->shard), end = part->offset + part->length;

	if (p->head_read) {
		const struct block_entry *entry =
			(const void *)load_head_at(p, geometry_entry_at(&p->geo, part->shard));

		stored = entry->stored_length;
	}
	ret_span->start = part->offset / CAIRN_PIECE * CAIRN_PIECE;
	ret_span->end = round_up(end, CAIRN_PIECE);
	if (ret_span->end > stored)
		ret_span->end = stored;
	ret_span->copied =
		ret_span->start != part->offset || ret_span->end != end ||
		part->iov_count > PART_IOV_MAX || staged(p->tier, p->io, part->length) ||
		(p->tier->direct && !segs_aligned(part->iov, part->iov_count, 0, part->length));
}

static void bounce_plan(const struct pio *p, uint32_t *ret_iov_max, size_t *ret_bounce)
{
	*ret_iov_max = 3;
	*ret_bounce = 0;
	for (uint32_t i = 0; i < p->io->part_count && !head_only(p) && p->geo_known; i++) {
		const struct cairn_part *part = &p->io->parts[i];
		/* At most: not knowing what is stored. */
		uint64_t raw = geometry_raw(&p->geo, part->shard);
		uint64_t most = round_up(part->offset % CAIRN_PIECE + part->length, CAIRN_PIECE);

		if (!active(p, i))
			continue;
		most = round_up(most < raw ? most : raw, FORMAT_PAGE);
		if (part->iov_count <= PART_IOV_MAX && !staged(p->tier, p->io, part->length) &&
		    part->offset % CAIRN_PIECE == 0 &&
		    (part->length == raw || part->length % CAIRN_PIECE == 0) &&
		    (!p->tier->direct || segs_aligned(part->iov, part->iov_count, 0, part->length)))
			most = part->length % FORMAT_PAGE ? FORMAT_PAGE : 0;
		*ret_bounce += most;
		*ret_iov_max += part->iov_count <= PART_IOV_MAX ? part->iov_count + 1 : 1;
	}
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void load_unpin(struct pio *p)
{
	if (!p->pinned)
		return;
	tier_lock(p->tier);
	entry_unpin(p->tier, &p->id, p->incarnation);
	tier_unlock(p->tier);
	p->pinned = false;
}

static void load_end(struct pio *p)
{
	uint64_t bytes = 0, loads = 0, misses = 0;

	load_unpin(p);
	for (uint32_t i = 0; i < p->io->part_count; i++) {
		const struct cairn_part *part = &p->io->parts[i];

		loads += part->status == 0;
		misses += part->status == -ENOENT;
		bytes += part->status == 0 ? part->length : 0;
	}
	if (!head_only(p)) {
		cairn_count(p->tier->env, CNT_LOADS, loads);
		cairn_count(p->tier->env, CNT_LOAD_MISSES, misses);
		cairn_count(p->tier->env, CNT_LOAD_BYTES, bytes);
	}
	pio_complete(p);
}

static void load_fail(struct pio *p, int32_t status)
{
	if (status == -EIO)
		cairn_count(p->tier->env, CNT_IO_ERRORS, 1);
	cairn_io_fail(p->io, status);
	load_end(p);
}

static void pass_over(struct pio *p)
{
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	p->mine = 0;
	load_pass(p);
}

static void damaged_gone(struct pio *p)
{
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->bad >> i & 1)
			p->io->parts[i].status = -EBADMSG;
	p->bad = 0;
	pass_over(p);
}

/* Some part did not check. */
static void pass_damaged(struct pio *p)
{
	struct index_entry *entry;
	bool same;

	if (!p->retried) {
		/*
		 * A read may be short, or wrong, for once; and with shared=yes head and
		 * payload may have come from two files, one after the other.
		 */
		p->retried = true;
		p->bad = 0;
		if (p->tier->shared && !p->space->fixed)
			p->geo_known = false; /* another file may have another */
		pass_over(p);
		return;
	}
	if (!p->tier->shared && !p->unfinished) {
		tier_lock(p->tier);
		entry = entry_find(p->tier, &p->id);
		same = entry && entry->tier == p->incarnation;
		tier_unlock(p->tier);
		if (!same) { /* removed, and perhaps dumped again, meanwhile */
			load_fail(p, -ENOENT);
			return;
		}
	}
	cairn_count(p->tier->env, CNT_DAMAGED, 1);
	if (p->unfinished)
		unfinished_drop(p, damaged_gone);
	else
		set_aside(p, damaged_gone);
}

static void pass_end(struct pio *p)
{
	if (p->bad)
		pass_damaged(p);
	else
		pass_over(p);
}

/* ---- verifying --------------------------------------------------------------------- */

static void head_bad(struct pio *p, enum head_verdict verdict)
{
	if (verdict == HEAD_VERSION)
		cairn_count(p->tier->env, CNT_VERSION_UNKNOWN, 1);
	p->bad = p->mine;
}

/* What the head says of a part; false: it does not check. */
static bool entry_take(struct pio *p, struct cairn_part *part)
{
	const struct block_entry *entry =
		(const void *)load_head_at(p, geometry_entry_at(&p->geo, part->shard));
	const uint32_t *table =
		(const void *)load_head_at(p, geometry_table_at(&p->geo, part->shard));
	uint32_t pieces;

	if (!entry_check(entry, &p->id, part->shard, &p->geo, table))
		return false;
	part->raw_length = entry->raw_length;
	part->stored_length = entry->stored_length;
	part->meta_length = (uint16_t)entry->meta_length;
	memcpy(part->meta, entry->meta, entry->meta_length);
	pieces = pieces_of(entry->stored_length);
	if (part->crc)
		memcpy(part->crc, table,
		       (part->crc_count < pieces ? part->crc_count : pieces) * sizeof(*table));
	if (head_only(p))
		part->status = 0;
	else if (part->offset > entry->stored_length ||
		 part->length > entry->stored_length - part->offset)
		part->status = -EINVAL;
	return true;
}

/* What is behind the tables is zero, where it was read. */
static bool rest_is_zero(const struct pio *p, const struct geometry *geo)
{
	uint32_t end = geometry_table_at(geo, geo->shard_count);

	return !p->geo_known || geo->head_bytes > HEAD_WHOLE || end == geo->head_bytes ||
	       zeros(load_head_at(p, end), geo->head_bytes - end);
}

/* The head is in memory. False: nothing of it may be believed. */
static bool head_take(struct pio *p)
{
	struct block_head head;
	struct geometry geo;
	enum head_verdict verdict;

	memcpy(&head, load_head_at(p, 0), sizeof(head));
	verdict = head_decode(&head, &geo);
	if (verdict == HEAD_OK && memcmp(&head.id, &p->id, sizeof(head.id)) != 0)
		verdict = HEAD_DAMAGED;
	if (verdict == HEAD_OK && (head.flags & BLOCK_PART))
		verdict = HEAD_DAMAGED;
	if (verdict == HEAD_OK && p->geo_known && !geometry_same(&geo, &p->geo))
		verdict = HEAD_DAMAGED;
	if (verdict == HEAD_OK && !rest_is_zero(p, &geo))
		verdict = HEAD_DAMAGED;
	if (verdict != HEAD_OK) {
		head_bad(p, verdict);
		return false;
	}
	p->all_raw = head.flags & BLOCK_RAW;
	if (!p->geo_known) {
		p->geo = geo;
		p->geo_known = true;
		return true;
	}
	p->head_read = true;
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (active(p, i) && !entry_take(p, &p->io->parts[i]))
			p->bad |= 1ull << i;
	return true;
}

static bool crcs_match(const struct pio *p, const struct cairn_part *part,
		       const struct grain *grain)
{
	uint32_t crcs[CAIRN_SHARD_BYTES_MAX / CAIRN_PIECE];
	const uint32_t *table =
		(const void *)load_head_at(p, geometry_table_at(&p->geo, part->shard));
	uint32_t count = pieces_of(grain->length);
	struct iovec bounce = {grain->bounce, grain->length};

	assert(count <= CAIRN_SHARD_BYTES_MAX / CAIRN_PIECE && grain->start % CAIRN_PIECE == 0);
	if (grain->copied)
		crc32c_pieces(&bounce, 1, 0, grain->length, CAIRN_PIECE, crcs);
	else
		crc32c_pieces(part->iov, part->iov_count, grain->start - part->offset,
			      grain->length, CAIRN_PIECE, crcs);
	return memcmp(crcs, table + grain->start / CAIRN_PIECE, count * sizeof(*crcs)) == 0;
}

/* Bytes to where the caller wants them, checked; true: good. */
static bool grain_take(struct pio *p, const struct grain *grain)
{
	struct cairn_part *part = &p->io->parts[grain->part];
	uint64_t from = grain->start, to = grain->start + grain->length;

	if (grain->copied) {
		if (!crcs_match(p, part, grain))
			return false;
		from = from > part->offset ? from : part->offset;
		to = to < part->offset + part->length ? to : part->offset + part->length;
		assert(from <= to);
		iov_scatter(part->iov, part->iov_count, from - part->offset, to - from,
			    grain->bounce + (from - grain->start));
		cairn_count(p->tier->env, CNT_BOUNCED_BYTES, to - from);
	} else {
		if (grain->bounce)
			iov_scatter(part->iov, part->iov_count, to - grain->tail - part->offset,
				    grain->tail, grain->bounce);
		if (!crcs_match(p, part, grain))
			return false;
	}
	if (to >= part->offset + part->length)
		part->status = 0;
	return true;
}

/* ---- rounds ------------------------------------------------------------------------ */

/* Adds what is left of a part. False: the round is full. */
static bool part_add(struct pio *p, uint32_t i, const struct span *span)
{
	struct cairn_part *part = &p->io->parts[i];
	uint64_t at = span->start + p->cursor, left = span->end - at, room;
	uint64_t offset = geometry_offset(&p->geo, part->shard) + at;
	struct grain grain = {.part = i, .copied = span->copied, .start = at, .length = left};

	if (p->grain_count == p->grain_max)
		return false;
	if (!span->copied) {
		if (!segs_add(p, part, at - part->offset, left, offset, &grain.bounce))
			return false;
		grain.tail = (uint32_t)(left % FORMAT_PAGE);
	} else {
		size_t mark = p->bounce_at;

		room = pio_bounce_left(p);
		if (left > room)
			left = room / CAIRN_PIECE * CAIRN_PIECE;
		if (!left)
			return false;
		grain.length = left;
		grain.bounce = pio_bounce(p, left);
		assert(grain.bounce);
		if (!pio_run_add(p, offset, grain.bounce,
				 p->tier->direct ? round_up(left, FORMAT_PAGE) : left)) {
			p->bounce_at = mark;
			return false;
		}
	}
	p->grains[p->grain_count++] = grain;
	p->cursor += grain.length;
	return true;
}

static void payload_add(struct pio *p)
{
	while (p->cursor_part < p->io->part_count) {
		struct span span;

		if (active(p, p->cursor_part)) {
			span_of(p, &p->io->parts[p->cursor_part], &span);
			if (!part_add(p, p->cursor_part, &span))
				return;
			if (span.start + p->cursor < span.end)
				return;
		}
		p->cursor_part++;
		p->cursor = 0;
	}
}

/* Where things are is known without the head: everything can be asked for at once. */
static bool place_known(const struct pio *p)
{
	if (!p->geo_known || head_only(p) || p->retried)
		return false;
	for (uint32_t i = 0; i < p->io->part_count && !p->all_raw; i++)
		if (active(p, i) &&
		    (p->io->parts[i].offset ||
		     p->io->parts[i].length != geometry_raw(&p->geo, p->io->parts[i].shard)))
			return false;
	return true;
}

/* Bytes of a run that the head takes. */
static uint64_t head_bytes_of_run(const struct pio *p, uint32_t run)
{
	for (uint32_t i = 0; i < p->window_count; i++)
		if (p->windows[i].offset == p->runs[run].offset)
			return p->windows[i].length;
	return 0;
}

enum outcome { OUTCOME_OK, OUTCOME_SHORT, OUTCOME_SHORT_HEAD, OUTCOME_FAILED };

static enum outcome slot_outcome(const struct pio *p, uint32_t slot, uint32_t *run,
				 int64_t *ret_error)
{
	enum outcome worst = OUTCOME_OK;

	for (uint32_t i = 0; i < p->slots[slot].chain.op_count; i++) {
		const struct engine_op *op = &p->slots[slot].ops[i];

		if (op->code == OP_STATX)
			continue;
		if (op->result < 0 && (op->result != -ECANCELED || worst == OUTCOME_OK)) {
			*ret_error = op->result;
			return OUTCOME_FAILED;
		}
		if (op->code != OP_READV)
			continue;
		if (op->result < (int64_t)op->length)
			worst = worst == OUTCOME_SHORT_HEAD ? worst : OUTCOME_SHORT;
		if (!p->head_read && *run < p->head_runs &&
		    op->result < (int64_t)head_bytes_of_run(p, *run))
			worst = OUTCOME_SHORT_HEAD;
		(*run)++;
	}
	return worst;
}

/* The partial is not what it was: whatever there is now. */
static void unfinished_again(struct pio *p)
{
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	p->mine = 0;
	p->bad = 0;
	unfinished_lost(p, load_submit);
}

static void open_failed(struct pio *p, int64_t error)
{
	if (error == -ENOENT && p->unfinished) {
		unfinished_again(p);
		return;
	}
	if (error == -ENOENT && !p->tier->shared) {
		tier_lock(p->tier);
		if (p->pinned)
			entry_unpin(p->tier, &p->id, p->incarnation);
		p->pinned = false;
		entry_lost(p->tier, &p->id, p->incarnation);
		tier_unlock(p->tier);
	}
	load_fail(p, error == -ENOENT || error == -ENOTDIR ? -ENOENT : pio_errno(error));
}

/* shared=yes: a clear made elsewhere is seen by its marker. */
static bool marker_found(struct pio *p)
{
	if (!p->tier->shared || p->marker_checked)
		return false;
	p->marker_checked = true;
	return p->slots[0].ops[p->slots[0].chain.op_count - 1].result == 0;
}

/* From the start, in the generation that is known now. */
static void load_again(struct pio *p)
{
	if (!p->cleared) {
		load_fail(p, -ENOENT); /* there, and not to be seen: a miss */
		return;
	}
	p->bad = 0;
	p->marker_checked = false;
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	shared_load_submit(p);
}

static void marker_op(struct pio *p)
{
	struct engine_op *op;

	op = pio_op(p, 0, OP_STATX, p->tier->space_fd);
	name_generation(p->id.space, p->id.generation + 1, p->victim_path[0]);
	op->path = p->victim_path[0];
	op->stx = &p->stx;
	op->soft = true;
}

static void marker_asked(struct pio *p)
{
	if (p->slots[0].ops[0].result == 0)
		shared_refresh(p, load_again);
	else
		load_fail(p, -ENOENT);
}

/*
 * The chain of a file that is not there ends before the marker: then it is asked
 * for alone, or a process that only loads would never learn of the generation.
 */
static void marker_ask(struct pio *p)
{
	pio_chain(p, 0);
	marker_op(p);
	pio_go(p, 1, marker_asked);
}

static void round_done(struct pio *p)
{
	enum outcome outcome = OUTCOME_OK;
	bool knew = p->geo_known;
	int64_t error = 0;
	uint32_t run = 0;

	for (uint32_t slot = 0; slot < p->slot_count; slot++) {
		enum outcome one = slot_outcome(p, slot, &run, &error);

		outcome = one > outcome ? one : outcome;
	}
	if (marker_found(p)) {
		shared_refresh(p, load_again);
		return;
	}
	if (p->tier->shared && outcome == OUTCOME_FAILED && error == -ENOENT) {
		marker_ask(p);
		return;
	}
	if (outcome == OUTCOME_FAILED) {
		open_failed(p, error);
		return;
	}
	if (outcome == OUTCOME_SHORT_HEAD)
		p->bad = p->mine;
	else if (!p->head_read && !head_take(p))
		outcome = OUTCOME_SHORT_HEAD;
	if (!knew && p->geo_known) { /* now it is known where to look */
		pass_over(p);
		return;
	}
	if (outcome == OUTCOME_SHORT) /* the file is shorter than its head says */
		for (uint32_t i = 0; i < p->io->part_count; i++)
			p->bad |= active(p, i) ? 1ull << i : 0;
	if (outcome == OUTCOME_OK)
		for (uint32_t i = 0; i < p->grain_count; i++)
			if (active(p, p->grains[i].part) && !grain_take(p, &p->grains[i]))
				p->bad |= 1ull << p->grains[i].part;
	load_rounds(p);
}

static void head_add(struct pio *p)
{
	for (uint32_t i = 0; i < p->window_count; i++) {
		bool added = pio_run_add(p, p->windows[i].offset, p->windows[i].at,
					 p->windows[i].length);

		assert(added);
	}
	p->head_runs = p->run_count;
}

static void round_send(struct pio *p)
{
	int flags = O_RDONLY | (p->tier->direct ? O_DIRECT : 0);
	/* The head and what does not lie behind it are asked for at once. */
	uint32_t split = p->head_runs && p->head_runs < p->run_count ? p->head_runs : p->run_count;

	for (uint32_t slot = 0; slot < (split < p->run_count ? 2u : 1u); slot++) {
		pio_chain(p, slot);
		pio_open(p, slot, p->path, flags);
		pio_run_ops(p, slot, OP_READV, ENGINE_FD_CHAIN, slot ? split : 0,
			    slot ? p->run_count : split);
	}
	if (p->tier->shared && !p->marker_checked)
		marker_op(p);
	pio_go(p, split < p->run_count ? 2 : 1, round_done);
}

static void load_rounds(struct pio *p)
{
	bool any = false;

	for (uint32_t i = 0; i < p->io->part_count; i++)
		any = any || active(p, i);
	if (!any) {
		pass_end(p);
		return;
	}
	pio_round(p);
	p->head_runs = 0;
	if (!p->head_read)
		head_add(p);
	if (p->head_read || place_known(p))
		payload_add(p);
	assert(p->run_count > 0);
	round_send(p);
}

/* ---- passes ------------------------------------------------------------------------ */

/* Parts that ask for what the geometry cannot have. */
static void parts_check(struct pio *p)
{
	for (uint32_t i = 0; i < p->io->part_count; i++) {
		struct cairn_part *part = &p->io->parts[i];
		uint64_t raw;

		if (part->status != CAIRN_PENDING)
			continue;
		if (part->shard >= p->geo.shard_count) {
			part->status = -EINVAL;
			continue;
		}
		raw = geometry_raw(&p->geo, part->shard);
		if (!head_only(p) &&
		    (!part->length || part->offset > raw || part->length > raw - part->offset))
			part->status = -EINVAL;
	}
}

/* The head of a partial is in memory, and only what is read of it is copied from there. */
static void unfinished_rounds(struct pio *p)
{
	if (!unfinished_head(p, p->mine)) {
		unfinished_again(p);
		return;
	}
	p->head_read = true;
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (active(p, i) && !entry_take(p, &p->io->parts[i]))
			p->bad |= 1ull << i;
	load_rounds(p);
}

static void load_workspace(struct pio *p)
{
	size_t bounce, fixed = 0, at = 0;
	uint32_t iov_max;

	for (uint32_t i = 0; i < p->window_count; i++)
		fixed += p->windows[i].length;
	bounce_plan(p, &iov_max, &bounce);
	if (!pio_workspace(p, fixed, iov_max, bounce, load_workspace))
		return;
	for (uint32_t i = 0; i < p->window_count; i++) {
		p->windows[i].at = p->ws + at;
		at += p->windows[i].length;
	}
	if (p->unfinished) {
		unfinished_rounds(p);
		return;
	}
	if (p->geo_known) {
		load_rounds(p);
		return;
	}
	pio_round(p);
	head_add(p);
	round_send(p);
}

static uint64_t pending_parts(const struct pio *p)
{
	uint64_t mask = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->io->parts[i].status == CAIRN_PENDING)
			mask |= 1ull << i;
	return mask;
}

static void load_pass(struct pio *p)
{
	if (p->geo_known)
		parts_check(p);
	p->mine = pending_parts(p);
	if (!p->mine) {
		load_end(p);
		return;
	}
	p->head_read = false;
	p->cursor_part = 0;
	p->cursor = 0;
	if (windows_plan(p) > p->tier->host->buffer_max / 4) {
		p->mine &= -p->mine; /* the lowest alone */
		windows_plan(p);
	}
	load_workspace(p);
}

void load_start(struct pio *p)
{
	name_block(&p->id, p->tier->dirs_log2, p->path);
	load_pass(p);
}

void load_submit(struct pio *p)
{
	struct posix *tier = p->tier;
	struct index_entry *entry;

	tier_lock(tier);
	p->id.generation = p->space->generation;
	entry = entry_find(tier, &p->id);
	if (entry && !entry_pin(p, entry)) {
		tier_unlock(tier);
		pio_retry(p, 100000, load_submit);
		return;
	}
	if (entry) {
		p->geo_known = geometry_init(&p->geo, entry->shard_count, entry->shard_bytes,
					     entry->last_bytes);
		assert(p->geo_known);
		p->all_raw = entry->flags & ENTRY_RAW;
		index_touch(tier->index, entry, p->io->sequence);
		if (p->io->flags & CAIRN_IO_CHAIN)
			entry_parent(tier, entry, &p->io->attr.parent);
	}
	p->unfinished = !entry && (p->io->flags & CAIRN_IO_PARTIAL) && unfinished_find(p);
	tier_unlock(tier);
	if (entry)
		load_start(p);
	else if (p->unfinished)
		load_pass(p);
	else
		load_fail(p, -ENOENT);
}
