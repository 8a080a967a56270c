/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One record of a victim goes elsewhere in the log: read, checked, written with a
 * head of its new place, and the index told. Then reclaim.c goes on with the next.
 */
#include "stages/flash/reclaim.h"

static uint32_t head_bytes_of(const struct reclaim *r)
{
	const struct flash_layout *layout = &r->tier->layout;

	return flash_head_units(layout, flash_stored_of_units(layout, r->old_place.length)) *
	       layout->unit;
}

/* [m] The table has it in its new place; false: it is not where it was any more. */
static bool shard_move(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint32_t shard = r->record.shard;
	struct table_block block;
	struct table_place place;

	if (!table_shard(tier->table, r->entry, shard, &place) || place.unit != r->old_place.unit)
		return false;
	region_lose(tier, r->entry, &r->old_place);
	table_move(tier->table, r->entry, shard, r->old_place.unit, &r->new_place);
	region_gain(tier, r->entry, &r->new_place);
	table_look(tier->table, r->entry, &block);
	block_set_epoch(tier, r->entry,
			tier->epoch - (uint16_t)(tier->policy.epoch -
						 policy_epoch_of(&tier->policy, block.epoch)));
	block_mark(tier, r->entry, &r->new_place);
	cairn_count(tier->env, CNT_CARRIED_BYTES,
		    flash_byte_of(&tier->layout, r->new_place.length));
	return true;
}

/* [m] What was to be carried cannot be read, if it is still what counts. */
static void carry_damaged(struct reclaim *r)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[r->at];
	struct table_place place;

	if (!table_is(tier->table, r->entry, r->incarnation) ||
	    !table_shard(tier->table, r->entry, entry->shard, &place) ||
	    place.unit != r->old_place.unit)
		return;
	region_suspect(tier, r->victim);
	cairn_count(tier->env, CNT_DAMAGED, 1);
	shard_damaged(tier, tier->spaces[entry->space], entry->generation, r->entry, entry->shard);
}

/* The new record is in, or nothing came of it. */
static void carry_end(struct reclaim *r, bool good, bool damaged)
{
	struct flash *tier = r->tier;
	bool same, moved;

	tier_lock(tier);
	same = table_is(tier->table, r->entry, r->incarnation);
	moved = good && same && shard_move(r);
	if (!moved) {
		record_dies(tier, &r->new_place);
		log_forget(tier, &r->new_place);
	}
	if (damaged)
		carry_damaged(r);
	log_settled(tier, r->new_region, 1);
	tier_unlock(tier);
	reclaim_next(r);
}

static void carry_written(struct reclaim *r)
{
	uint64_t total = flash_byte_of(&r->tier->layout, r->old_place.length);

	if (r->chain.result < 0) {
		cairn_count(r->tier->env, CNT_IO_ERRORS, 1);
		tier_lock(r->tier);
		region_retire(r->tier, r->new_region, r->chain.result);
		tier_unlock(r->tier);
		r->at--; /* the same again, elsewhere */
		carry_end(r, false, false);
		return;
	}
	r->done += r->iov.iov_len;
	if (r->done < total)
		reclaim_carry(r);
	else
		carry_end(r, true, false);
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

/* The head as it will stand in the new place. */
static bool head_renew(struct reclaim *r, uint32_t head_bytes)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[r->at];
	struct flash_record *record = (struct flash_record *)(void *)r->buffer;

	memcpy(r->head, r->buffer, head_bytes);
	if (flash_record_decode(r->head, head_bytes, &tier->layout,
				flash_salt(&tier->super.id, r->old_seq), r->old_seq,
				r->old_place.unit, &r->record) != FLASH_OK ||
	    memcmp(&r->record.key, &entry->key, sizeof(entry->key)) != 0 ||
	    r->record.space != entry->space || r->record.generation != entry->generation ||
	    r->record.shard != entry->shard)
		return false;
	record->region_seq = tier->regions[r->new_region].seq;
	record->unit = r->new_place.unit;
	record->number = r->new_place.number;
	record->flags |= FLASH_RECORD_CARRIED;
	flash_record_seal(record, &tier->layout, flash_salt(&tier->super.id, record->region_seq));
	tier_lock(tier);
	log_record(tier, r->new_region, record);
	tier_unlock(tier);
	return true;
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
	uint32_t head_bytes = head_bytes_of(r), skip = r->done ? 0 : head_bytes;
	size_t length = r->iov.iov_len;

	if (r->chain.result < 0) {
		reclaim_read_failed(r, reclaim_carry, carry_unread);
		return;
	}
	r->again = false;
	if ((!r->done && !head_renew(r, head_bytes)) ||
	    !pieces_match(r, r->buffer + skip, r->done + skip - head_bytes, length - skip)) {
		carry_end(r, false, true);
		return;
	}
	r->ops[0] = reclaim_transfer(r, OP_WRITEV,
				     flash_byte_of(&tier->layout, r->new_place.unit) + r->done,
				     r->buffer, length);
	reclaim_send(r, 1, carry_written);
}

void reclaim_carry(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint64_t left = flash_byte_of(&tier->layout, r->old_place.length) - r->done;
	uint32_t head_bytes = head_bytes_of(r);
	uint64_t length = RECLAIM_CHUNK;

	if (!r->done) /* whole pieces behind the head */
		length = head_bytes + (RECLAIM_CHUNK - head_bytes) / CAIRN_PIECE * CAIRN_PIECE;
	if (length > left)
		length = left;
	r->ops[0] = reclaim_transfer(r, OP_READV,
				     flash_byte_of(&tier->layout, r->old_place.unit) + r->done,
				     r->buffer, length);
	reclaim_send(r, 1, carry_have);
}
