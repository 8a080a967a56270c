/* SPDX-License-Identifier: Apache-2.0 */
/* What private and shared dumps have in common: arguments, heads, rounds of writes. */
#include "stages/posix/tier.h"

#include "base/crc32c.h"

/* ---- arguments --------------------------------------------------------------------- */

static bool part_check(const struct pio *p, const struct cairn_part *part)
{
	const struct geometry *geo = &p->geo;
	bool last = part->shard + 1 == geo->shard_count;

	if (part->shard >= geo->shard_count || part->offset || part->length != part->stored_length)
		return false;
	if (!part->stored_length || part->stored_length > part->raw_length ||
	    part->meta_length > CAIRN_META_MAX)
		return false;
	if (part->crc && part->crc_count != pieces_of(part->stored_length))
		return false;
	if (p->space->fixed || !last)
		return part->raw_length == geo->shard_bytes;
	return part->raw_length == geo->last_bytes;
}

bool dump_check(struct pio *p)
{
	struct cairn_io *io = p->io;
	uint64_t last = p->space->fixed ? io->shard_bytes : 0;
	bool any = false;

	for (uint32_t i = 0; i < io->part_count; i++)
		if (!last && io->parts[i].shard + 1 == io->shard_count)
			last = io->parts[i].raw_length;
	if (!geometry_init(&p->geo, io->shard_count, io->shard_bytes, last) ||
	    (p->space->fixed && (p->space->geo.shard_count != io->shard_count ||
				 p->space->geo.shard_bytes != io->shard_bytes))) {
		cairn_io_fail(p->io, -EINVAL);
		return false;
	}
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (part_check(p, part))
			any = true;
		else
			part->status = -EINVAL;
	}
	return any;
}

/* ---- heads ----------------------------------------------------------------------------- */

void dump_fill(struct pio *p, uint8_t *image, const struct cairn_part *part)
{
	const struct geometry *geo = &p->geo;
	uint32_t pieces = pieces_of(part->stored_length);
	uint32_t *table = (void *)(image + geometry_table_at(geo, part->shard));
	struct block_entry *entry = (void *)(image + geometry_entry_at(geo, part->shard));

	assert(pieces <= geo->pieces);
	memset(table, 0, geo->pieces * sizeof(*table));
	if (part->crc)
		memcpy(table, part->crc, pieces * sizeof(*table));
	else
		crc32c_pieces(part->iov, part->iov_count, 0, part->stored_length, CAIRN_PIECE,
			      table);
	memset(entry, 0, sizeof(*entry));
	entry->flags = ENTRY_PRESENT;
	entry->shard = part->shard;
	entry->offset = geometry_offset(geo, part->shard);
	entry->raw_length = part->raw_length;
	entry->stored_length = part->stored_length;
	entry->meta_length = part->meta_length;
	memcpy(entry->meta, part->meta, part->meta_length);
	entry_seal(entry, &p->id, table, geo);
}

void dump_seal(struct pio *p, uint8_t *image, const struct cairn_block_attr *attr, bool chain)
{
	const struct geometry *geo = &p->geo;
	struct block_head head;
	bool raw = true;

	assert(geo->last_bytes);
	for (uint32_t shard = 0; shard < geo->shard_count; shard++) {
		const struct block_entry *entry =
			(const void *)(image + geometry_entry_at(geo, shard));

		assert(entry->flags == ENTRY_PRESENT);
		raw = raw && entry->raw_length == entry->stored_length;
	}
	head_init(&head, &p->id, geo, p->io->sequence, attr, chain);
	head.flags |= raw ? BLOCK_RAW : 0u;
	head.created_ns = p->tier->sys->realtime_ns();
	head_seal(&head);
	memcpy(image, &head, sizeof(head));
	p->all_raw = raw;
}

/* ---- rounds ------------------------------------------------------------------------------ */

/* For the whole part, whatever the cursor: the workspace was measured by it. */
static bool part_copied(const struct pio *p, const struct cairn_part *part)
{
	if (part->iov_count > PART_IOV_MAX ||
	    (p->tier->staging && part->stored_length >= p->tier->staged_dump_min &&
	     !(p->io->flags & CAIRN_IO_AIMABLE)))
		return true;
	return p->tier->direct && !segs_aligned(part->iov, part->iov_count, 0, part->stored_length);
}

size_t dump_head_room(const struct pio *p)
{
	return p->whole && part_copied(p, &p->io->parts[0]) ? p->geo.head_bytes : 0;
}

uint8_t *dump_head_place(struct pio *p, uint8_t *image)
{
	if (dump_head_room(p) == 0)
		return image;
	assert(p->bounce_from >= p->geo.head_bytes);
	memcpy(p->ws, image, p->geo.head_bytes);
	return p->ws;
}

bool dump_workspace(struct pio *p, size_t fixed, void (*step)(struct pio *))
{
	size_t bounce = 0;
	uint32_t iov_max = 1;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		const struct cairn_part *part = &p->io->parts[i];

		if (!(p->mine >> i & 1))
			continue;
		if (part_copied(p, part)) {
			bounce += round_up(part->stored_length, FORMAT_PAGE);
			iov_max++;
		} else {
			bounce += part->stored_length % FORMAT_PAGE ? FORMAT_PAGE : 0;
			iov_max += part->iov_count + 1;
		}
	}
	return pio_workspace(p, fixed, iov_max, bounce, step);
}

/* Adds a chunk through the bounce space; false: the round is full. */
static bool copied_add(struct pio *p, const struct cairn_part *part)
{
	uint64_t left = part->stored_length - p->cursor, room = pio_bounce_left(p);
	uint64_t chunk = left <= room ? left : room, padded = round_up(chunk, FORMAT_PAGE);
	uint64_t offset = geometry_offset(&p->geo, part->shard) + p->cursor;
	size_t mark = p->bounce_at;
	uint8_t *bounce;

	if (!chunk)
		return false;
	bounce = pio_bounce(p, padded);
	assert(bounce); /* the space is counted in pages */
	if (!pio_run_add(p, offset, bounce, padded)) {
		p->bounce_at = mark;
		return false;
	}
	iov_gather(part->iov, part->iov_count, p->cursor, chunk, bounce);
	memset(bounce + chunk, 0, padded - chunk);
	cairn_count(p->tier->env, CNT_BOUNCED_BYTES, chunk);
	p->cursor += chunk;
	return true;
}

static bool part_add(struct pio *p, const struct cairn_part *part)
{
	uint64_t offset = geometry_offset(&p->geo, part->shard) + p->cursor;
	uint64_t left = part->stored_length - p->cursor;
	uint8_t *tail_page;

	if (!part_copied(p, part)) {
		if (!segs_add(p, part, p->cursor, left, offset, &tail_page))
			return false;
		p->cursor += left;
		return true;
	}
	return copied_add(p, part);
}

void dump_rewind(struct pio *p)
{
	p->cursor_part = 0;
	p->cursor = 0;
}

bool dump_round_last(struct pio *p)
{
	return p->cursor_part == p->io->part_count;
}

bool dump_round(struct pio *p, uint8_t *head)
{
	bool any = false;

	pio_round(p);
	if (head && !pio_run_add(p, 0, head, p->geo.head_bytes))
		return false;
	while (p->cursor_part < p->io->part_count) {
		const struct cairn_part *part = &p->io->parts[p->cursor_part];

		if (p->mine >> p->cursor_part & 1) {
			if (!part_add(p, part))
				break;
			any = true;
			if (p->cursor < part->stored_length)
				break;
		}
		p->cursor_part++;
		p->cursor = 0;
	}
	assert(any || dump_round_last(p));
	return any;
}
