/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of a victim go elsewhere in the log: read, checked, written with heads of
 * their new places, and the index told. Then reclaim.c goes on with the next.
 *
 * Invariants, numbered:
 *  1. Those that lie near each other are read and written in one go, up to RECLAIM_CHUNK, and
 *     end under one hold of the mutex. A record that is larger goes by itself, in pieces.
 *  2. Where they cannot be read together each is tried by itself: one that is damaged costs no
 *     other.
 */
#include "stages/flash/reclaim.h"

static struct carried *now_of(struct reclaim *r)
{
	return &r->carried[r->now];
}

static uint32_t head_bytes_of(const struct reclaim *r, const struct carried *carried)
{
	const struct flash_layout *layout = &r->tier->layout;

	return flash_head_units(layout, flash_stored_of_units(layout, carried->old_place.length)) *
	       layout->unit;
}

/* [m] The table has it in its new place; false: it is not where it was any more. */
static bool shard_move(struct reclaim *r, const struct carried *carried)
{
	struct flash *tier = r->tier;
	uint32_t shard = r->entries[carried->at].shard, id = carried->entry;
	struct table_block block;
	struct table_place place;

	if (!table_shard(tier->table, id, shard, &place) || place.unit != carried->old_place.unit)
		return false;
	region_lose(tier, id, &carried->old_place);
	table_move(tier->table, id, shard, carried->old_place.unit, &carried->new_place);
	region_gain(tier, id, &carried->new_place);
	table_look(tier->table, id, &block);
	block_set_epoch(tier, id,
			tier->epoch - (uint16_t)(tier->policy.epoch -
						 policy_epoch_of(&tier->policy, block.epoch)));
	block_mark(tier, id, &carried->new_place);
	cairn_count(tier->env, CNT_CARRIED_BYTES,
		    flash_byte_of(&tier->layout, carried->new_place.length));
	return true;
}

/* [m] What was to be carried cannot be read, if it is still what counts. */
static void carry_damaged(struct reclaim *r, const struct carried *carried)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[carried->at];
	struct table_place place;

	if (!table_is(tier->table, carried->entry, carried->incarnation) ||
	    !table_shard(tier->table, carried->entry, entry->shard, &place) ||
	    place.unit != carried->old_place.unit)
		return;
	region_suspect(tier, r->victim);
	cairn_count(tier->env, CNT_DAMAGED, 1);
	shard_damaged(tier, tier->spaces[entry->space], entry->generation, carried->entry,
		      entry->shard);
}

/* [m] The new record is in, or nothing came of it. */
static void carry_settle(struct reclaim *r, const struct carried *carried, bool good, bool damaged)
{
	struct flash *tier = r->tier;
	bool same = table_is(tier->table, carried->entry, carried->incarnation);

	if (!good || !same || !shard_move(r, carried)) {
		record_dies(tier, &carried->new_place);
		log_forget(tier, &carried->new_place);
	}
	if (damaged)
		carry_damaged(r, carried);
	log_settled(tier, r->new_region, 1);
}

/* The one that was carried by itself. */
static void carry_end(struct reclaim *r, bool good, bool damaged)
{
	tier_lock(r->tier);
	carry_settle(r, now_of(r), good, damaged);
	tier_unlock(r->tier);
	r->done = 0;
	if (++r->now < r->count) {
		reclaim_carry(r);
		return;
	}
	r->count = 0;
	reclaim_next(r);
}

/* The new place takes no writes: this one and those behind it once more, elsewhere. */
static void carry_unwritten(struct reclaim *r)
{
	struct flash *tier = r->tier;

	cairn_count(tier->env, CNT_IO_ERRORS, 1);
	r->at = now_of(r)->at - 1;
	tier_lock(tier);
	write_failed(tier, r->new_region, r->chain.result);
	for (; r->now < r->count; r->now++)
		carry_settle(r, now_of(r), false, false);
	tier_unlock(tier);
	r->count = 0;
	reclaim_next(r);
}

static bool pieces_match(const struct reclaim *r, const uint8_t *payload, uint64_t from,
			 uint64_t length)
{
	uint32_t crcs[RECLAIM_CHUNK / CAIRN_PIECE + 1];
	uint64_t stored = r->record.stored_length,
		 to = from + length < stored ? from + length : stored;
	struct iovec iov = {(void *)(uintptr_t)payload, (size_t)(to - from)};
	uint32_t count = flash_pieces(to - from);

	crc32c_pieces(&iov, 1, 0, to - from, CAIRN_PIECE, crcs);
	for (uint32_t i = 0; i < count; i++)
		if (crcs[i] != flash_piece_crc(r->head, (uint32_t)(from / CAIRN_PIECE) + i))
			return false;
	return true;
}

/* The head at @memory as it will stand in the new place; as it was, in r->head. */
static bool head_renew(struct reclaim *r, const struct carried *carried, uint8_t *memory)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[carried->at];
	struct flash_record *record = (struct flash_record *)(void *)memory;
	uint32_t head_bytes = head_bytes_of(r, carried);

	memcpy(r->head, memory, head_bytes);
	if (flash_record_decode(r->head, head_bytes, &tier->layout,
				flash_salt(&tier->super.id, r->old_seq), r->old_seq,
				carried->old_place.unit, &r->record) != FLASH_OK ||
	    memcmp(&r->record.key, &entry->key, sizeof(entry->key)) != 0 ||
	    r->record.space != entry->space || r->record.generation != entry->generation ||
	    r->record.shard != entry->shard)
		return false;
	record->region_seq = tier->regions[r->new_region].seq;
	record->unit = carried->new_place.unit;
	record->number = carried->new_place.number;
	record->flags |= FLASH_RECORD_CARRIED;
	flash_record_seal(record, &tier->layout, flash_salt(&tier->super.id, record->region_seq));
	tier_lock(tier);
	log_record(tier, r->new_region, record);
	tier_unlock(tier);
	return true;
}

/* ---- one by itself ---------------------------------------------------------------------- */

static void carry_one(struct reclaim *r);

static void carry_written(struct reclaim *r)
{
	uint64_t total = flash_byte_of(&r->tier->layout, now_of(r)->old_place.length);

	if (r->chain.result < 0) {
		carry_unwritten(r);
		return;
	}
	r->done += r->iov.iov_len;
	if (r->done < total)
		carry_one(r);
	else
		carry_end(r, true, false);
}

static void carry_unread(struct reclaim *r)
{
	tier_lock(r->tier);
	region_retire(r->tier, r->victim, r->chain.result);
	tier_unlock(r->tier);
	carry_end(r, false, true);
}

static void carry_have(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint32_t head_bytes = head_bytes_of(r, now_of(r)), skip = r->done ? 0 : head_bytes;
	size_t length = r->iov.iov_len;

	if (r->chain.result < 0) {
		reclaim_read_failed(r, carry_one, carry_unread);
		return;
	}
	r->again = false;
	if ((!r->done && !head_renew(r, now_of(r), r->buffer)) ||
	    !pieces_match(r, r->buffer + skip, r->done + skip - head_bytes, length - skip)) {
		carry_end(r, false, true);
		return;
	}
	r->ops[0] = reclaim_transfer(
		r, OP_WRITEV, flash_byte_of(&tier->layout, now_of(r)->new_place.unit) + r->done,
		r->buffer, length);
	reclaim_send(r, 1, carry_written);
}

static void carry_one(struct reclaim *r)
{
	struct flash *tier = r->tier;
	const struct carried *carried = now_of(r);
	uint64_t left = flash_byte_of(&tier->layout, carried->old_place.length) - r->done;
	uint32_t head_bytes = head_bytes_of(r, carried);
	uint64_t length = RECLAIM_CHUNK;

	if (!r->done) /* whole pieces behind the head */
		length = head_bytes + (RECLAIM_CHUNK - head_bytes) / CAIRN_PIECE * CAIRN_PIECE;
	if (length > left)
		length = left;
	r->ops[0] = reclaim_transfer(
		r, OP_READV, flash_byte_of(&tier->layout, carried->old_place.unit) + r->done,
		r->buffer, length);
	reclaim_send(r, 1, carry_have);
}

/* ---- those that lie near each other -------------------------------------------------------- */

static uint32_t units_between(const struct table_place *first, const struct table_place *last)
{
	return last->unit + last->length - first->unit;
}

static void batch_written(struct reclaim *r)
{
	if (r->chain.result < 0) {
		carry_unwritten(r);
		return;
	}
	tier_lock(r->tier);
	for (; r->now < r->count; r->now++)
		carry_settle(r, now_of(r), !(r->bad >> r->now & 1), r->bad >> r->now & 1);
	tier_unlock(r->tier);
	r->count = 0;
	reclaim_next(r);
}

static void batch_unread(struct reclaim *r)
{
	r->single = true;
	carry_one(r);
}

/* Each to where it will be written, checked; one that does not check leaves its place empty. */
static void batch_have(struct reclaim *r)
{
	const struct flash_layout *layout = &r->tier->layout;
	const struct carried *first = &r->carried[0], *last = &r->carried[r->count - 1];

	if (r->chain.result < 0) {
		reclaim_read_failed(r, reclaim_carry, batch_unread);
		return;
	}
	r->again = false;
	r->bad = 0;
	for (uint32_t i = 0; i < r->count; i++) {
		const struct carried *carried = &r->carried[i];
		size_t from = (size_t)(carried->old_place.unit - first->old_place.unit),
		       to = (size_t)(carried->new_place.unit - first->new_place.unit);
		size_t length = (size_t)flash_byte_of(layout, carried->old_place.length);
		uint8_t *memory = r->buffer + to * layout->unit;
		uint32_t head_bytes = head_bytes_of(r, carried);

		assert(to <= from);
		memmove(memory, r->buffer + from * layout->unit, length);
		if (head_renew(r, carried, memory) &&
		    pieces_match(r, memory + head_bytes, 0, length - head_bytes))
			continue;
		memset(memory, 0, length);
		r->bad |= 1u << i;
	}
	r->ops[0] = reclaim_transfer(
		r, OP_WRITEV, flash_byte_of(layout, first->new_place.unit), r->buffer,
		(size_t)flash_byte_of(layout, units_between(&first->new_place, &last->new_place)));
	reclaim_send(r, 1, batch_written);
}

void reclaim_carry(struct reclaim *r)
{
	const struct flash_layout *layout = &r->tier->layout;
	const struct carried *first = &r->carried[0], *last = &r->carried[r->count - 1];

	if (r->single) {
		carry_one(r);
		return;
	}
	r->ops[0] = reclaim_transfer(
		r, OP_READV, flash_byte_of(layout, first->old_place.unit), r->buffer,
		(size_t)flash_byte_of(layout, units_between(&first->old_place, &last->old_place)));
	reclaim_send(r, 1, batch_have);
}
