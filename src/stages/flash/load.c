/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads, and what asks for the heads alone.
 *
 *	look, pin -> memory -> rounds of reads -> check -> [copy] -> unpin
 *
 * Invariants, numbered:
 *  1. A region with a reader is not written to again before the reader is gone.
 *  2. A part ends 0 only when what is in the caller's memory was checked: the head
 *     against the whole identity, every piece against its CRC. Memory that is not
 *     registered gets nothing else.
 *  3. Head and payload of a record, and records that lie side by side, are one
 *     read.
 *  4. The io holds one buffer, and waits for nothing but its reads while it does.
 */
#include "stages/flash/tier.h"

static void load_look(struct fio *f);
static void load_round(struct fio *f);

static bool head_only(const struct fio *f)
{
	return f->io->op == CAIRN_OP_DESCRIBE;
}

static bool active(const struct fio *f, uint32_t part)
{
	return f->io->parts[part].status == CAIRN_PENDING && !(f->bad >> part & 1);
}

static uint32_t head_bytes_of(const struct fio *f, uint32_t part)
{
	const struct flash_layout *layout = &f->tier->layout;
	uint32_t stored = flash_stored_of_units(layout, f->claims[part].place.length);

	return flash_head_units(layout, stored) * layout->unit;
}

/* Bytes of the stored payload with what fills up its last unit. */
static uint64_t payload_bytes_of(const struct fio *f, uint32_t part)
{
	return flash_byte_of(&f->tier->layout, f->claims[part].place.length) -
	       head_bytes_of(f, part);
}

/* Whole pieces around what is asked for. */
static void span_of(const struct fio *f, uint32_t i, uint64_t *ret_start, uint64_t *ret_end)
{
	const struct cairn_part *part = &f->io->parts[i];
	uint64_t all = payload_bytes_of(f, i), end = part->offset + part->length;

	*ret_start = part->offset / CAIRN_PIECE * CAIRN_PIECE;
	end = flash_round_up(end, CAIRN_PIECE);
	*ret_end = end < all ? end : all;
}

/*
 * Whether the part can be read to where it belongs: whole pieces, in whole units, into memory
 * that I/O may be aimed at.
 */
static bool goes_straight(const struct fio *f, uint32_t i)
{
	const struct cairn_part *part = &f->io->parts[i];
	uint64_t start, end, odd = 0;

	if (!(f->io->flags & CAIRN_IO_AIMABLE) || part->length < STRAIGHT_MIN ||
	    part->iov_count > STRAIGHT_IOV_MAX)
		return false;
	for (uint32_t k = 0; k < part->iov_count; k++)
		odd |= (uintptr_t)part->iov[k].iov_base | part->iov[k].iov_len;
	span_of(f, i, &start, &end);
	return odd % f->tier->layout.unit == 0 && start == part->offset &&
	       end == part->offset + part->length;
}

/* ---- the end ------------------------------------------------------------------------- */

static void unpin(struct fio *f)
{
	struct flash *tier = f->tier;

	if (!f->pinned)
		return;
	tier_lock(tier);
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		uint32_t number;

		if (!(f->pinned >> i & 1))
			continue;
		number = flash_region_of(&tier->layout, f->claims[i].place.unit);
		assert(tier->regions[number].readers > 0);
		if (--tier->regions[number].readers == 0)
			reclaim_reader_gone(tier, number);
	}
	tier_unlock(tier);
	f->pinned = 0;
}

static void load_end(struct fio *f)
{
	uint64_t bytes = 0, straight = 0, loads = 0, misses = 0;

	unpin(f);
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		const struct cairn_part *part = &f->io->parts[i];

		loads += part->status == 0;
		misses += part->status == -ENOENT;
		bytes += part->status == 0 ? part->length : 0;
		straight += part->status == 0 && f->straight >> i & 1 ? part->length : 0;
	}
	if (!head_only(f)) {
		cairn_count(f->tier->env, CNT_LOADS, loads);
		cairn_count(f->tier->env, CNT_LOAD_MISSES, misses);
		cairn_count(f->tier->env, CNT_LOAD_BYTES, bytes);
		cairn_count(f->tier->env, CNT_STRAIGHT_BYTES, straight);
	}
	fio_complete(f);
}

/* [m] A part that did not check is taken out, if it is still the same. */
static void part_damaged(struct fio *f, uint32_t i)
{
	struct table *table = f->tier->table;
	uint32_t shard = f->io->parts[i].shard;
	struct table_place place;

	if (table_is(table, f->entry, f->incarnation) &&
	    table_shard(table, f->entry, shard, &place) && place.unit == f->claims[i].place.unit)
		shard_damaged(f->tier, f->space, f->generation, f->entry, shard);
}

/* A read may be wrong for once; or the block was carried elsewhere. */
static void load_again(struct fio *f)
{
	f->retried = true;
	unpin(f);
	if (f->ws)
		f->tier->host->buffer_put(f->io, f->ws);
	f->ws = NULL;
	f->bad = 0;
	load_look(f);
}

static void pass_end(struct fio *f)
{
	uint32_t number, last = UINT32_MAX;

	if (!f->bad) {
		load_end(f);
		return;
	}
	if (!f->retried) {
		load_again(f);
		return;
	}
	tier_lock(f->tier);
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		if (!(f->bad >> i & 1))
			continue;
		f->io->parts[i].status = -EBADMSG;
		part_damaged(f, i);
		number = flash_region_of(&f->tier->layout, f->claims[i].place.unit);
		if (number != last) /* once for a block */
			region_suspect(f->tier, number);
		last = number;
	}
	tier_unlock(f->tier);
	cairn_count(f->tier->env, CNT_DAMAGED, 1);
	f->bad = 0;
	load_end(f);
}

/* ---- checking ---------------------------------------------------------------------------- */

static bool identity_same(struct fio *f, const struct flash_record *record, uint32_t shard)
{
	if (memcmp(&record->key, &f->io->key, sizeof(record->key)) != 0 ||
	    record->space != f->space->id || record->generation != f->generation ||
	    record->shard != shard)
		return false;
	if (f->birth_known && record->birth != f->birth)
		return false;
	f->birth = record->birth;
	f->birth_known = true;
	return true;
}

/* The head of a part is in memory; false: it is not to be believed. */
static bool head_take(struct fio *f, uint32_t i)
{
	struct flash *tier = f->tier;
	const struct table_place *place = &f->claims[i].place;
	struct cairn_part *part = &f->io->parts[i];
	const uint8_t *head = f->heads + f->claims[i].head_at;
	uint64_t seq = region_at(tier, place->unit)->seq; /* it stays while it is read from */
	struct flash_record record;
	uint32_t pieces;

	if (flash_record_decode(head, head_bytes_of(f, i), &tier->layout,
				flash_salt(&tier->super.id, seq), seq, place->unit,
				&record) != FLASH_OK ||
	    !identity_same(f, &record, part->shard) ||
	    flash_record_units(&tier->layout, record.stored_length) != place->length)
		return false;
	part->raw_length = record.raw_length;
	part->stored_length = record.stored_length;
	part->meta_length = (uint16_t)record.meta_length;
	memcpy(part->meta, record.meta, record.meta_length);
	pieces = flash_pieces(record.stored_length);
	for (uint32_t at = 0; part->crc && at < pieces && at < part->crc_count; at++)
		part->crc[at] = flash_piece_crc(head, at);
	if (head_only(f))
		part->status = 0;
	else if (part->offset > record.stored_length ||
		 part->length > record.stored_length - part->offset)
		part->status = -EINVAL;
	return true;
}

/* Stored bytes [from, to), of one piece: checked, and copied what of it was asked for. */
static bool piece_take(struct fio *f, const struct grain *grain, uint64_t from, uint64_t to)
{
	struct cairn_part *part = &f->io->parts[grain->part];
	const uint8_t *head = f->heads + f->claims[grain->part].head_at;
	uint32_t crc, told = flash_piece_crc(head, (uint32_t)(from / CAIRN_PIECE));
	uint64_t skip = from < part->offset ? part->offset - from : 0;
	uint64_t end = part->offset + part->length;
	const uint8_t *memory;

	if (!grain->at) {
		crc32c_pieces(part->iov, part->iov_count, from - part->offset, to - from,
			      CAIRN_PIECE, &crc);
		return crc == told;
	}
	memory = grain->at + (from - grain->start);
	if (crc32c(0, memory, to - from) != told)
		return false;
	from += skip;
	to = to < end ? to : end;
	iov_scatter(part->iov, part->iov_count, from - part->offset, to - from, memory + skip);
	return true;
}

/* A piece at a time: what has been summed is still in the cache when it is copied. */
static bool grain_take(struct fio *f, const struct grain *grain)
{
	struct cairn_part *part = &f->io->parts[grain->part];
	uint64_t at = grain->start, to = grain->start + grain->length, next;

	if (to > part->stored_length) /* what fills up the last unit */
		to = part->stored_length;
	assert(at < to && at % CAIRN_PIECE == 0);
	for (; at < to; at = next) {
		next = to - at > CAIRN_PIECE ? at + CAIRN_PIECE : to;
		if (!piece_take(f, grain, at, next))
			return false;
	}
	if (to >= part->offset + part->length)
		part->status = 0;
	return true;
}

/* [m] Parts of which something lies in @slot's range: they are absent, and their regions retired.
 */
static void slot_failed(struct fio *f, const struct slot *slot)
{
	struct flash *tier = f->tier;

	for (uint32_t i = 0; i < f->io->part_count; i++) {
		const struct table_place *place = &f->claims[i].place;
		uint64_t from = flash_byte_of(&tier->layout, place->unit);
		uint64_t bytes = flash_byte_of(&tier->layout, place->length);

		if (!(f->mine >> i & 1) || from >= slot->op.offset + slot->op.length ||
		    from + bytes <= slot->op.offset)
			continue;
		part_damaged(f, i);
		region_retire(tier, flash_region_of(&tier->layout, place->unit),
			      slot->chain.result);
	}
}

/* The device has said so twice. */
static void reads_failed(struct fio *f)
{
	if (!f->retried) {
		load_again(f);
		return;
	}
	tier_lock(f->tier);
	for (uint32_t i = 0; i < f->slot_count; i++)
		if (f->slots[i].chain.result < 0)
			slot_failed(f, &f->slots[i]);
	tier_unlock(f->tier);
	cairn_io_fail(f->io, -EIO);
	f->bad = 0;
	load_end(f);
}

static void round_over(struct fio *f)
{
	int64_t failed = 0;

	for (uint32_t i = 0; i < f->slot_count; i++)
		if (f->slots[i].chain.result < 0)
			failed = f->slots[i].chain.result;
	if (failed) {
		cairn_count(f->tier->env, CNT_IO_ERRORS, 1);
		reads_failed(f);
		return;
	}
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		uint64_t bit = 1ull << i;

		if (!(f->mine & bit) || (f->heads_read & bit))
			continue;
		f->heads_read |= bit;
		if (!head_take(f, i))
			f->bad |= bit;
	}
	for (uint32_t i = 0; i < f->grain_count; i++)
		if (active(f, f->grains[i].part) && !grain_take(f, &f->grains[i]))
			f->bad |= 1ull << f->grains[i].part;
	load_round(f);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void read_done(struct engine_chain *chain)
{
	struct slot *slot = (struct slot *)((char *)chain - offsetof(struct slot, chain));
	struct fio *f = slot->fio;

	assert(f->magic == FIO_MAGIC && f->chains_out > 0);
	fence_end(f->tier);
	if (--f->chains_out == 0)
		round_over(f);
}

/* Adds memory for what is at @offset of the file. False: the round is full. */
static bool read_add(struct fio *f, uint64_t offset, void *memory, uint64_t length)
{
	struct slot *last = f->slot_count ? &f->slots[f->slot_count - 1] : NULL;
	struct iovec *iov = f->iov_count ? &f->iov[f->iov_count - 1] : NULL;
	struct slot *slot;

	if (f->iov_count == sizeof(f->iov) / sizeof(f->iov[0]))
		return false;
	if (last && last->op.offset + last->op.length == offset) {
		assert(iov); /* no read is empty */
		last->op.length += length;
		if ((uint8_t *)iov->iov_base + iov->iov_len == memory) {
			iov->iov_len += length;
			return true;
		}
		f->iov[f->iov_count++] = (struct iovec){memory, (size_t)length};
		last->op.iov_count++;
		return true;
	}
	if (f->slot_count == LOAD_READS)
		return false;
	slot = &f->slots[f->slot_count++];
	memset(slot, 0, sizeof(*slot));
	slot->fio = f;
	slot->op = (struct engine_op){.code = OP_READV,
				      .fd = f->tier->fd,
				      .iov = &f->iov[f->iov_count],
				      .iov_count = 1,
				      .offset = offset,
				      .length = length};
	slot->chain = (struct engine_chain){
		.ops = &slot->op, .op_count = 1, .direct = f->tier->direct, .done = read_done};
	f->iov[f->iov_count++] = (struct iovec){memory, (size_t)length};
	return true;
}

/* Stored bytes from @start on, at @offset of the file, to where they belong. There is room. */
static void straight_add(struct fio *f, uint32_t i, uint64_t offset, uint64_t start, uint64_t take)
{
	const struct cairn_part *part = &f->io->parts[i];
	struct iov_walk walk = {part->iov, part->iov_count, start - part->offset, take};
	uint64_t bytes;
	uint8_t *base;

	for (; iov_next(&walk, &base, &bytes); offset += bytes) {
		bool added = read_add(f, offset, base, bytes);

		assert(added);
		(void)added;
	}
	f->straight_used += take;
}

/* The head of part @i, in its first round; false: the round is full. */
static bool head_add(struct fio *f, uint32_t i, uint64_t base, uint32_t head_bytes)
{
	uint32_t most = f->straight >> i & 1 ? f->io->parts[i].iov_count : 1;

	if (f->slot_count + 2 > LOAD_READS ||
	    f->iov_count + 1 + most > sizeof(f->iov) / sizeof(f->iov[0]))
		return false;
	if (f->one_round) { /* as it lies in the file */
		f->claims[i].head_at = (uint32_t)f->payload_used;
		f->payload_used += head_bytes;
	}
	if (!read_add(f, base, f->heads + f->claims[i].head_at, head_bytes))
		return false;
	f->mine |= 1ull << i;
	return true;
}

/* Puts what is left of part @i into the round; false: it is full. */
static bool part_add(struct fio *f, uint32_t i)
{
	uint64_t base = flash_byte_of(&f->tier->layout, f->claims[i].place.unit), start, end, take;
	uint32_t head_bytes = head_bytes_of(f, i);
	bool straight = f->straight >> i & 1;
	uint64_t room;
	uint8_t *memory;

	if (!(f->mine >> i & 1) && !head_add(f, i, base, head_bytes))
		return false;
	if (head_only(f))
		return true;
	memory = straight ? NULL : f->payload + f->payload_used;
	room = straight ? LOAD_ROUND - f->straight_used : f->payload_bytes - f->payload_used;
	span_of(f, i, &start, &end);
	start += f->cursor_at;
	take = end - start;
	if (take > room)
		take = room / CAIRN_PIECE * CAIRN_PIECE;
	if (!take || (!straight && !read_add(f, base + head_bytes + start, memory, take)))
		return false;
	if (straight)
		straight_add(f, i, base + head_bytes + start, start, take);
	else
		f->payload_used += take;
	f->grains[f->grain_count++] =
		(struct grain){.part = i, .start = start, .length = take, .at = memory};
	f->cursor_at += take;
	return start + take == end;
}

static void load_round(struct fio *f)
{
	f->slot_count = f->iov_count = f->grain_count = 0;
	f->payload_used = f->straight_used = 0;
	for (; f->cursor < f->io->part_count; f->cursor++, f->cursor_at = 0)
		if (active(f, f->cursor) && !part_add(f, f->cursor))
			break;
	if (!f->slot_count) {
		assert(f->cursor == f->io->part_count);
		pass_end(f);
		return;
	}
	f->chains_out = f->slot_count;
	for (uint32_t i = 0, count = f->slot_count; i < count; i++)
		fio_send(f, &f->slots[i].chain);
}

/* ---- memory -------------------------------------------------------------------------------------
 */

static void load_memory(struct fio *f);

static void load_memory_step(struct waiter *waiter)
{
	load_memory(fio_of(waiter));
}

static void load_memory(struct fio *f)
{
	const struct cairn_stage_host *host = f->tier->host;
	uint64_t payload = 0, straight = 0, start, end;
	size_t heads = 0;

	f->straight = 0;
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		if (!active(f, i))
			continue;
		f->claims[i].head_at = (uint32_t)heads;
		heads += head_bytes_of(f, i);
		if (head_only(f))
			continue;
		span_of(f, i, &start, &end);
		if (goes_straight(f, i)) {
			f->straight |= 1ull << i;
			straight += end - start;
		} else {
			payload += end - start;
		}
	}
	/* Heads stay over the rounds; if there is one, each lies before its payload. */
	f->one_round = heads + payload + straight <= LOAD_ROUND + FLASH_PAGE &&
		       heads + payload <= host->buffer_max && straight <= LOAD_ROUND;
	heads = f->one_round ? heads : flash_round_up(heads, FLASH_PAGE);
	if (payload > LOAD_ROUND)
		payload = LOAD_ROUND;
	if (heads + payload > host->buffer_max)
		payload = (host->buffer_max - heads) / CAIRN_PIECE * CAIRN_PIECE;
	assert(head_only(f) || payload > 0 || f->straight);
	f->wait.step = load_memory_step; /* before asking: what comes back meanwhile resumes */
	f->ws = host->buffer_get(f->io, heads + payload);
	if (!f->ws)
		return;
	f->wait.step = NULL;
	f->heads = f->ws;
	f->payload = f->one_round ? f->ws : f->ws + heads;
	f->payload_bytes = f->one_round ? heads + payload : payload;
	f->cursor = 0;
	f->cursor_at = 0;
	f->mine = f->heads_read = 0;
	load_round(f);
}

/* ---- looking
 * --------------------------------------------------------------------------------------- */

/* [m] Where a part lies, and that it is possible. */
static void part_find(struct fio *f, uint32_t i, uint32_t id, const struct table_geometry *geometry)
{
	struct cairn_part *part = &f->io->parts[i];
	uint64_t raw;

	if (part->shard >= geometry->shard_count) {
		part->status = -EINVAL;
		return;
	}
	raw = part->shard == geometry->shard_count - 1 ? geometry->last_bytes
						       : geometry->shard_bytes;
	if (f->io->flags & CAIRN_IO_PARTIAL) /* the last length may not be known here */
		raw = part->raw_length;
	if (!head_only(f) &&
	    (!part->length || part->offset > raw || part->length > raw - part->offset)) {
		part->status = -EINVAL;
		return;
	}
	if (!table_shard(f->tier->table, id, part->shard, &f->claims[i].place)) {
		part->status = -ENOENT;
		return;
	}
	region_at(f->tier, f->claims[i].place.unit)->readers++;
	f->pinned |= 1ull << i;
}

/* Whole, or, where other tiers have the rest, of the geometry that they all have. */
static bool can_load(const struct fio *f, const struct table_block *block)
{
	const struct table_geometry *geometry = &block->geometry;

	if (block->expiry && block->expiry <= now_seconds(f->tier))
		return false;
	if (block->state == TABLE_WHOLE)
		return true;
	return (f->io->flags & CAIRN_IO_PARTIAL) && geometry->shard_count == f->io->shard_count &&
	       geometry->shard_bytes == f->io->shard_bytes;
}

/* [m] The block is another one than at the first look: what was loaded of that is not mixed in. */
static void parts_again(struct fio *f)
{
	for (uint32_t i = 0; i < f->io->part_count; i++)
		if (f->io->parts[i].status == 0)
			f->io->parts[i].status = CAIRN_PENDING;
}

static void load_look(struct fio *f)
{
	struct flash *tier = f->tier;
	struct table_geometry geometry;
	struct table_block block;
	uint32_t id;

	tier_lock(tier);
	f->generation = f->space->generation;
	f->fingerprint = table_fingerprint(tier->table, &f->io->key, f->space->id, f->generation);
	id = table_find(tier->table, f->fingerprint);
	if (id != TABLE_NONE)
		table_look(tier->table, id, &block);
	if (id == TABLE_NONE || tier->fenced || !can_load(f, &block)) {
		tier_unlock(tier);
		cairn_io_fail(f->io, -ENOENT);
		load_end(f);
		return;
	}
	if (f->retried && !(id == f->entry && table_is(tier->table, id, f->incarnation)))
		parts_again(f);
	f->entry = id;
	f->incarnation = table_incarnation(tier->table, id);
	f->birth_known = false;
	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < f->io->part_count; i++)
		if (f->io->parts[i].status == CAIRN_PENDING)
			part_find(f, i, id, &geometry);
	cairn_io_expires(f->io, block.expiry * UINT64_C(1000000000));
	block_tell(f, id);
	block_touch(tier, id);
	if (f->pinned)
		tier->beside = BESIDE_WRITES;
	tier_unlock(tier);
	if (!f->pinned)
		load_end(f);
	else
		load_memory(f);
}

void flash_load_submit(struct fio *f)
{
	load_look(f);
}
