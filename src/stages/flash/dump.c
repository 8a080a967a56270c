/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dumps.
 *
 *	look -> (wait)* -> claim and reserve -> fill -> write -> settle
 *	     -> look again for what is left -> [flush]
 *
 * Invariants, numbered:
 *  1. A shard is written by the one io that has claimed it; another that wants it
 *     waits, and writes itself if that one failed.
 *  2. A claimed record has its place in the log; whatever comes of it, it is
 *     settled once.
 *  3. A block is published when every shard has a place: each of these records is
 *     in the file as a whole by then.
 */
#include "base/attr.h"
#include "stages/dump_check.h"
#include "stages/flash/tier.h"

static void dump_look(struct fio *f);

static void dump_look_step(struct waiter *waiter)
{
	dump_look(fio_of(waiter));
}

static struct partial *my_partial(struct fio *f)
{
	return &f->tier->partials[f->partial];
}

static bool pending(const struct fio *f, uint32_t part)
{
	return f->io->parts[part].status == CAIRN_PENDING;
}

/* ---- what may be dumped ------------------------------------------------------------- */

static void parts_check(struct fio *f)
{
	struct flash *tier = f->tier;
	struct cairn_io *io = f->io;

	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (!pending(f, i))
			continue;
		if (dump_part_check(io, part) < 0) {
			part->status = -EINVAL;
		} else if (part->stored_length > tier->layout.stored_max) {
			part->status = -EFBIG;
			cairn_count(tier->env, CNT_REFUSED, 1);
		} else if (io->durability == CAIRN_DURABLE && tier->sync == SYNC_NONE) {
			part->status = -EOPNOTSUPP;
		}
	}
}

static struct table_geometry geometry_of(const struct fio *f)
{
	const struct cairn_io *io = f->io;
	struct table_geometry geometry = {
		.shard_count = io->shard_count,
		.shard_bytes = (uint32_t)io->shard_bytes,
	};

	if (io->ns->shard_count > 0)
		geometry.last_bytes = (uint32_t)io->ns->shard_bytes;
	for (uint32_t i = 0; i < io->part_count; i++)
		if (pending(f, i) && io->parts[i].shard == io->shard_count - 1)
			geometry.last_bytes = (uint32_t)io->parts[i].raw_length;
	return geometry;
}

/* ---- the end -------------------------------------------------------------------------- */

static void dump_flushed(struct fio *f)
{
	if (f->flush_result < 0) {
		cairn_count(f->tier->env, CNT_IO_ERRORS, 1);
		for (uint32_t i = 0; i < f->io->part_count; i++)
			if (f->io->parts[i].status >= 0)
				f->io->parts[i].status = fio_errno(f->flush_result);
	}
	fio_complete(f);
}

static void dump_end(struct fio *f)
{
	bool any = false, first;

	for (uint32_t i = 0; i < f->io->part_count; i++)
		any = any || f->io->parts[i].status >= 0;
	if (!any || !tier_lasts(f->tier, f->io->durability)) {
		fio_complete(f);
		return;
	}
	tier_lock(f->tier);
	first = f->tier->unasked;
	tier_unlock(f->tier);
	if (first)
		commit_wait(f, true, dump_flushed);
	else
		fio_flush(f, dump_flushed);
}

/* ---- settling --------------------------------------------------------------------------- */

static void publish(struct fio *f, struct partial *partial)
{
	struct flash *tier = f->tier;
	uint32_t id = partial->id;

	table_publish(tier->table, id);
	if (f->generation == f->space->generation)
		space_count(tier, f->space, true);
	cairn_count(tier->env, CNT_PUBLISHED, 1);
	flash_partial_free(tier, f->partial);
}

/* [m] One record, written or not. */
static void settle_one(struct fio *f, struct partial *partial, const struct record_claim *claim)
{
	struct flash *tier = f->tier;
	struct cairn_part *part = &f->io->parts[claim->part];

	shard_clear(partial->claimed, part->shard);
	partial->claim_count--;
	if (f->result < 0) {
		record_dies(tier, &claim->place);
		log_forget(tier, &claim->place);
		part->status = fio_errno(f->result);
		return;
	}
	if (partial->doomed || f->generation != f->space->generation) {
		record_dies(tier, &claim->place); /* removed or cleared meanwhile */
		part->status = -ESTALE;
		return;
	}
	table_place(tier->table, partial->id, part->shard, &claim->place);
	region_gain(tier, partial->id, &claim->place);
	if (partial->attr.priority) /* else it is as old as a record without a mark */
		block_mark(tier, partial->id, &claim->place);
	partial->done_count++;
	part->status = 0;
	cairn_count(tier->env, CNT_DUMPS, 1);
	cairn_count(tier->env, CNT_DUMP_BYTES, part->stored_length);
}

static void dump_settle(struct fio *f)
{
	struct flash *tier = f->tier;
	struct partial *partial;

	tier_lock(tier);
	partial = my_partial(f);
	if (f->result < 0) {
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		write_failed(tier, f->region, f->result);
	}
	for (uint32_t i = 0; i < f->claim_count; i++)
		settle_one(f, partial, &f->claims[i]);
	log_settled(tier, f->region, f->claim_count);
	f->claim_count = 0;
	if (!partial->claim_count)
		block_let_go(tier, partial->id);
	if (partial->done_count == partial->shard_count && !partial->doomed) {
		publish(f, partial);
	} else if (!partial->claim_count && (partial->doomed || !partial->done_count)) {
		block_remove(tier, partial->id);
		flash_partial_free(tier, f->partial);
	}
	f->partial = UINT32_MAX;
	waiters_wake(fio_key_list(f));
	tier_unlock(tier);
	dump_look(f);
}

/* ---- filling ------------------------------------------------------------------------------- */

static void head_fill(struct fio *f, const struct record_claim *claim, void *head)
{
	struct flash *tier = f->tier;
	const struct cairn_part *part = &f->io->parts[claim->part];
	const struct partial *partial = my_partial(f);
	struct flash_record *record = head;
	uint32_t flags = (partial->attr_told ? FLASH_RECORD_ATTR : 0) |
			 (partial->chain ? FLASH_RECORD_CHAIN : 0);

	/* The CRCs stand behind it already; attributes do not change once a shard is claimed. */
	memset(record, 0, sizeof(*record));
	record->flags = flags;
	record->key = f->io->key;
	record->space = f->space->id;
	record->generation = f->generation;
	record->region_seq = tier->regions[f->region].seq; /* fixed while it is open */
	record->birth = partial->birth;
	record->sequence = f->io->sequence;
	record->unit = claim->place.unit;
	record->number = claim->place.number;
	record->shard = (uint16_t)part->shard;
	record->shard_count = (uint16_t)f->io->shard_count;
	record->shard_bytes = (uint32_t)f->io->shard_bytes;
	record->raw_length = (uint32_t)part->raw_length;
	record->stored_length = (uint32_t)part->stored_length;
	record->expiry_s = partial->expiry_s;
	record->meta_length = part->meta_length;
	record->depth = partial->attr.depth;
	record->priority = partial->attr.priority;
	record->parent = partial->attr.parent;
	record->ttl_ns = partial->attr.ttl_ns;
	record->cost_ns = partial->attr.cost_ns;
	record->created_ns = partial->created_ns;
	memcpy(record->meta, part->meta, part->meta_length);
	flash_record_seal(head, &tier->layout, flash_salt(&tier->super.id, record->region_seq));
	tier_lock(tier);
	log_record(tier, f->region, record);
	tier_unlock(tier);
}

static uint32_t *crcs_of(void *head)
{
	return (uint32_t *)(void *)((uint8_t *)head + sizeof(struct flash_record));
}

/* Bytes of a part into a span: past the caches where the device alone reads that. */
static void part_copy(const struct fio *f, const struct cairn_part *part, uint64_t at,
		      uint64_t length, uint8_t *memory)
{
	if (f->tier->direct)
		iov_gather_cold(part->iov, part->iov_count, at, length, memory);
	else
		iov_gather(part->iov, part->iov_count, at, length, memory);
}

/* A whole record into memory. */
static void record_fill(struct fio *f, const struct record_claim *claim, uint8_t *memory)
{
	const struct cairn_part *part = &f->io->parts[claim->part];
	uint32_t head_units = flash_head_units(&f->tier->layout, (uint32_t)part->stored_length);
	uint8_t *payload = memory + (size_t)head_units * f->tier->layout.unit;
	size_t room = (size_t)(claim->place.length - head_units) * f->tier->layout.unit;
	uint32_t pieces = flash_pieces(part->stored_length), *crcs = crcs_of(memory);
	bool told = part->crc && part->crc_count >= pieces;

	/* A piece at a time: what has been summed is still in the cache when it is copied. */
	for (uint32_t i = 0; i < pieces; i++) {
		uint64_t at = (uint64_t)i * CAIRN_PIECE, left = part->stored_length - at;
		uint64_t length = left < CAIRN_PIECE ? left : CAIRN_PIECE;

		if (told)
			crcs[i] = part->crc[i];
		else
			crc32c_pieces(part->iov, part->iov_count, at, length, CAIRN_PIECE,
				      &crcs[i]);
		part_copy(f, part, at, length, payload + at);
	}
	memset(payload + part->stored_length, 0, room - part->stored_length);
	head_fill(f, claim, memory);
}

static void span_ended(struct waiter *waiter)
{
	struct fio *f = fio_of(waiter);
	int64_t result;

	if (!span_over(f, f->span, span_ended, &result))
		return;
	f->span = NULL;
	f->result = result < 0 ? (int32_t)result : 0;
	dump_settle(f);
}

static void fill_shared(struct fio *f)
{
	struct span *span = f->span;

	for (uint32_t i = 0; i < f->claim_count; i++) {
		const struct record_claim *claim = &f->claims[i];
		size_t at = (size_t)(claim->place.unit - span->unit) * f->tier->layout.unit;

		record_fill(f, claim, span->buffer + at);
	}
	span_filled(f, span, span_ended);
}

/* ---- records larger than a span, a span at a time ----------------------------------------------
 */

static void fill_large(struct fio *f);

static void large_step(struct waiter *waiter)
{
	fill_large(fio_of(waiter));
}

static void large_ended(struct waiter *waiter)
{
	struct fio *f = fio_of(waiter);
	uint64_t total = (uint64_t)f->claims[0].place.length * f->tier->layout.unit;
	uint64_t length = (uint64_t)f->span->units * f->tier->layout.unit;
	int64_t result;

	if (!span_over(f, f->span, large_ended, &result))
		return;
	/* The span may be another's by now. */
	f->chunk += length;
	assert(f->chunk <= total);
	f->span = NULL;
	f->result = result < 0 ? (int32_t)result : 0;
	if (f->result < 0 || f->chunk == total)
		dump_settle(f);
	else
		fill_large(f);
}

/* Bytes [from, from + length) of the record, which begins with @head_bytes of head. */
static void large_copy(struct fio *f, uint8_t *memory, uint64_t from, uint64_t length,
		       uint64_t head_bytes)
{
	const struct cairn_part *part = &f->io->parts[f->claims[0].part];
	uint32_t pieces = flash_pieces(part->stored_length);
	uint64_t stored, at = from > head_bytes ? from - head_bytes : 0;

	if (from == 0) {
		assert(length > head_bytes);
		if (part->crc && part->crc_count >= pieces)
			memcpy(crcs_of(memory), part->crc, pieces * sizeof(uint32_t));
		else
			crc32c_pieces(part->iov, part->iov_count, 0, part->stored_length,
				      CAIRN_PIECE, crcs_of(memory));
		head_fill(f, &f->claims[0], memory);
		memory += head_bytes;
		length -= head_bytes;
	}
	stored = part->stored_length - at < length ? part->stored_length - at : length;
	part_copy(f, part, at, stored, memory);
	memset(memory + stored, 0, length - stored);
}

static void fill_large(struct fio *f)
{
	struct flash *tier = f->tier;
	const struct table_place *place = &f->claims[0].place;
	uint32_t unit = tier->layout.unit;
	const struct cairn_part *part = &f->io->parts[f->claims[0].part];
	uint64_t total = (uint64_t)place->length * unit, length = total - f->chunk;
	uint64_t head_bytes =
		(uint64_t)flash_head_units(&tier->layout, (uint32_t)part->stored_length) * unit;

	if (length > SPAN_BYTES)
		length = SPAN_BYTES;
	tier_lock(tier);
	f->span = span_take(tier, f->region, place->unit + (uint32_t)(f->chunk / unit),
			    (uint32_t)(length / unit));
	if (!f->span) /* they come back: who has one waits for the device alone */
		waiter_park(&f->wait, &tier->wait_span, large_step);
	tier_unlock(tier);
	if (!f->span)
		return;
	large_copy(f, f->span->buffer, f->chunk, length, head_bytes);
	span_filled(f, f->span, large_ended);
}

/* ---- claiming
 * ------------------------------------------------------------------------------------ */

/* [m] When a new block counts as used. */
static uint16_t fresh_epoch(const struct flash *tier, uint32_t priority)
{
	return (uint16_t)(tier->epoch - policy_fresh_age(&tier->policy, priority));
}

/* [m] The first attribute that is told stays. */
static void attr_take(struct fio *f, struct partial *partial)
{
	const struct cairn_block_attr *attr = &f->io->attr;
	uint16_t before;

	if (partial->attr_told || partial->done_count || partial->claim_count)
		return;
	if (!attr_told(attr))
		return;
	partial->attr = *attr;
	partial->attr_told = true;
	if (attr->ttl_ns) {
		uint64_t end_s = (partial->created_ns + attr->ttl_ns) / 1000000000u + 1;

		partial->expiry_s = end_s > UINT32_MAX ? UINT32_MAX : (uint32_t)end_s;
		table_set_expiry(f->tier->table, partial->id, partial->expiry_s);
	}
	table_touch(f->tier->table, partial->id, fresh_epoch(f->tier, attr->priority), &before);
	partial->chain =
		block_begin(f, partial->id, &partial->attr) && (f->io->flags & CAIRN_IO_CHAIN);
}

/* Whether records of @units fit one write together with one of @more, and an empty region. */
static bool extent_grows(const struct fio *f, uint32_t units, uint32_t more)
{
	const struct flash_layout *layout = &f->tier->layout;

	return (uint64_t)(units + more) * layout->unit <= SPAN_BYTES &&
	       flash_fits(layout, 0, flash_first_unit(layout, 0), units + more, f->claim_count);
}

/* The next parts, as many as go into one write; units of all of them. */
static uint32_t extent_plan(struct fio *f)
{
	const struct flash_layout *layout = &f->tier->layout;
	uint32_t units = 0;

	f->claim_count = 0;
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		uint32_t more;

		if (!(f->mine >> i & 1))
			continue;
		more = flash_record_units(layout, (uint32_t)f->io->parts[i].stored_length);
		if (units && !extent_grows(f, units, more))
			break;
		f->claims[f->claim_count++] = (struct record_claim){
			.place = {.unit = units, .length = more}, .part = (uint8_t)i};
		units += more;
		if ((uint64_t)units * layout->unit > SPAN_BYTES)
			break;
	}
	assert(f->claim_count > 0);
	return units;
}

/* [m] Those of them that the open region has room for, at least one; else all, for the next. */
static uint32_t extent_fit(struct fio *f, uint32_t units)
{
	struct flash *tier = f->tier;
	uint32_t number = tier->open_region[0], count = f->claim_count, less = units;
	const struct region *region;

	if (number == UINT32_MAX)
		return units;
	region = &tier->regions[number];
	while (count &&
	       !flash_fits(&tier->layout, number, region->at, less, region->records + count - 1))
		less -= f->claims[--count].place.length;
	if (!count)
		return units;
	f->claim_count = count;
	return less;
}

enum claimed { CLAIMED, CLAIM_WAITS, CLAIM_NO_ENTRY, CLAIM_NO_REGION, CLAIM_FAILED };

static enum claimed refused(struct fio *f)
{
	cairn_count(f->tier->env, CNT_REFUSED, 1);
	cairn_io_fail(f->io, -ENOSPC);
	return CLAIM_FAILED;
}

/* [m] Its io's sequence, or, where another block had that one or a later one, a later one yet. */
static uint64_t birth_next(struct fio *f)
{
	struct flash *tier = f->tier;

	tier->birth = f->io->sequence > tier->birth ? f->io->sequence : tier->birth + 1;
	return tier->birth;
}

/* [m] An entry for a new block. */
static enum claimed entry_make(struct fio *f)
{
	struct flash *tier = f->tier;
	struct table_geometry geometry = geometry_of(f);
	enum table_answer answer;
	bool made = false;
	uint32_t id;

	if (f->io->shard_count - 1 > tier->shards_max) /* whatever goes */
		return refused(f);
	answer =
		table_add(tier->table, f->fingerprint, &geometry, fresh_epoch(tier, 0), &made, &id);
	if (answer == TABLE_ENTRIES_FULL || answer == TABLE_SHARDS_FULL) {
		reclaim_kick(tier, true);
		return CLAIM_NO_ENTRY;
	}
	if (answer != TABLE_OK)
		return refused(f);
	assert(made);
	f->partial = flash_partial_new(tier, f->fingerprint, id, f->io->shard_count, birth_next(f));
	if (f->partial != UINT32_MAX)
		return CLAIMED;
	table_remove(tier->table, id);
	return CLAIM_WAITS;
}

/* [m] Room in the log, an entry, and the shards are this io's. */
static enum claimed dump_claim(struct fio *f, bool *ret_large)
{
	struct flash *tier = f->tier;
	uint32_t units = extent_fit(f, extent_plan(f)), unit, number;
	enum claimed claimed;

	*ret_large = (uint64_t)units * tier->layout.unit > SPAN_BYTES;
	if (!*ret_large && !span_has_room(tier))
		return CLAIM_WAITS;
	if (f->partial == UINT32_MAX) {
		claimed = entry_make(f);
		if (claimed != CLAIMED)
			return claimed;
	}
	if (!log_reserve(tier, 0, units, f->claim_count, &f->region, &unit, &number)) {
		if (!my_partial(f)->claim_count && !my_partial(f)->done_count) {
			table_remove(tier->table, my_partial(f)->id);
			flash_partial_free(tier, f->partial);
		}
		f->partial = UINT32_MAX;
		return CLAIM_NO_REGION;
	}
	f->room_waits = false;
	attr_take(f, my_partial(f));
	for (uint32_t i = 0; i < f->claim_count; i++) {
		f->claims[i].place.unit += unit;
		f->claims[i].place.number = number + i;
		shard_set(my_partial(f)->claimed, f->io->parts[f->claims[i].part].shard);
	}
	my_partial(f)->claim_count += f->claim_count;
	flash_partial_touch(tier, f->partial);
	f->span = *ret_large ? NULL : span_join(tier, f->region, unit, units);
	return CLAIMED;
}

/* ---- looking
 * -------------------------------------------------------------------------------------- */

static bool other_geometry(const struct fio *f, const struct cairn_part *part,
			   const struct table_geometry *geometry)
{
	return geometry->shard_count != f->io->shard_count ||
	       geometry->shard_bytes != f->io->shard_bytes ||
	       (geometry->last_bytes && part->shard == geometry->shard_count - 1 &&
		part->raw_length != geometry->last_bytes);
}

/* [m] What is to be done with each pending part; false: some must wait for others. */
static bool parts_sort(struct fio *f, uint32_t id, uint32_t number)
{
	struct flash *tier = f->tier;
	struct partial *partial = number == UINT32_MAX ? NULL : &tier->partials[number];
	struct table_geometry geometry = {0};
	bool waits = false, whole = id != TABLE_NONE && !partial;

	f->mine = 0;
	if (id != TABLE_NONE)
		table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < f->io->part_count; i++) {
		struct cairn_part *part = &f->io->parts[i];
		struct table_place place;

		if (!pending(f, i))
			continue;
		if (id == TABLE_NONE) {
			f->mine |= 1ull << i;
		} else if (other_geometry(f, part, &geometry)) {
			part->status = -EINVAL;
		} else if (whole) {
			part->status = CAIRN_PRESENT;
		} else if (table_shard(tier->table, id, part->shard, &place)) {
			part->status = CAIRN_PRESENT;
		} else if (partial->doomed || shard_test(partial->claimed, part->shard)) {
			waits = true;
		} else {
			f->mine |= 1ull << i;
		}
		if (part->status == CAIRN_PRESENT)
			cairn_count(tier->env, CNT_DUMPS_PRESENT, 1);
	}
	return !waits;
}

/* [m] The last shard's length, where it becomes known by this io. */
static bool last_told(struct fio *f)
{
	struct table_geometry geometry = geometry_of(f);

	return !geometry.last_bytes ||
	       table_set_last(f->tier->table, my_partial(f)->id, geometry.last_bytes) == TABLE_OK;
}

/*
 * [m] Whether a power cut may have taken some of a whole block that the io brings. Parts of another
 * shape are refused before: they take nothing away.
 */
static bool block_unsure(struct fio *f, uint32_t id, const struct table_block *block)
{
	struct flash *tier = f->tier;
	struct table_place place;
	bool any = false;

	for (uint32_t i = 0; i < f->io->part_count; i++) {
		if (pending(f, i) && other_geometry(f, &f->io->parts[i], &block->geometry))
			f->io->parts[i].status = -EINVAL;
		any = any || pending(f, i);
	}
	for (uint32_t i = 0; any && tier->super.unsure_seq && i < block->geometry.shard_count; i++)
		if (table_shard(tier->table, id, i, &place) &&
		    region_at(tier, place.unit)->seq <= tier->super.unsure_seq)
			return true;
	return false;
}

/*
 * [m] The entry of the key; a block that has expired, whole or not, is written anew. So is one
 * that is to last, if nobody knows whether all of it is there; *ret_held: as soon as nobody holds
 * it any more.
 */
static uint32_t entry_find(struct fio *f, bool *ret_held)
{
	struct flash *tier = f->tier;
	uint32_t id = table_find(tier->table, f->fingerprint), number = UINT32_MAX, expiry;
	struct table_block block;
	bool expired, unsure;

	*ret_held = false;
	if (id == TABLE_NONE)
		return id;
	table_look(tier->table, id, &block);
	expiry = block.expiry;
	if (block.state == TABLE_PARTIAL) {
		number = partial_find(tier, f->fingerprint);
		expiry = tier->partials[number].claim_count ? 0 : tier->partials[number].expiry_s;
	}
	expired = expiry && expiry <= now_seconds(tier);
	unsure = !expired && tier_lasts(tier, f->io->durability) && block.state == TABLE_WHOLE &&
		 block_unsure(f, id, &block);
	*ret_held = unsure && block.holds;
	f->room_waits = f->room_waits && !*ret_held; /* it is not room that it waits for */
	if (*ret_held || (!expired && !unsure))
		return id;
	if (block.state == TABLE_PARTIAL)
		flash_partial_free(tier, number);
	else
		space_count(tier, f->space, false);
	block_remove(tier, id);
	cairn_count(tier->env, block.state == TABLE_PARTIAL ? CNT_PARTIALS_DROPPED : CNT_EVICTED,
		    1);
	return TABLE_NONE;
}

/* [m] */
static bool left_to_do(struct fio *f)
{
	bool any = false;

	for (uint32_t i = 0; i < f->io->part_count; i++)
		any = any || pending(f, i);
	if (!any || !(f->tier->fenced || f->tier->refuses))
		return any;
	cairn_count(f->tier->env, CNT_PASSED_BY, 1);
	cairn_io_fail(f->io, -EIO);
	return false;
}

/* [m] CLAIMED, or CLAIM_WAITS: room will be told of, or CLAIM_FAILED, and the io says so. */
static enum claimed claim_or_wait(struct fio *f, bool *ret_large)
{
	struct flash *tier = f->tier;
	enum claimed claimed = dump_claim(f, ret_large);

	if (claimed == CLAIMED || claimed == CLAIM_FAILED)
		return claimed;
	f->partial = UINT32_MAX;
	f->claim_count = 0;
	if ((claimed == CLAIM_NO_ENTRY && tier->no_entry) ||
	    (claimed == CLAIM_NO_REGION && tier->no_region)) /* all is held, or in use */
		return refused(f);
	return dump_shed(f) ? CLAIM_FAILED : CLAIM_WAITS;
}

static void dump_look(struct fio *f)
{
	struct flash *tier = f->tier;
	bool ready, held, large = false;
	enum claimed claimed = CLAIM_FAILED;
	uint32_t id, number;

	tier_lock(tier);
	if (!left_to_do(f)) {
		tier_unlock(tier);
		dump_end(f);
		return;
	}
	f->generation = f->space->generation;
	f->fingerprint = table_fingerprint(tier->table, &f->io->key, f->space->id, f->generation);
	id = entry_find(f, &held);
	if (held) { /* room is told of when a hold ends */
		waiter_wait(&f->wait, &tier->wait_room, dump_look_step);
		tier_unlock(tier);
		return;
	}
	number = id == TABLE_NONE ? UINT32_MAX : partial_find(tier, f->fingerprint);
	ready = parts_sort(f, id, number);
	if (id != TABLE_NONE && number == UINT32_MAX) {
		block_tell(f, id);
		block_touch(tier, id);
	}
	if (f->mine) {
		f->partial = number;
		if (number != UINT32_MAX && !last_told(f)) {
			cairn_io_fail(f->io, -ENOSPC);
			f->partial = UINT32_MAX;
		} else {
			claimed = claim_or_wait(f, &large);
		}
		if (claimed == CLAIM_WAITS) {
			cairn_count(tier->env, CNT_ROOM_WAITS, 1);
			waiter_wait(&f->wait, &tier->wait_room, dump_look_step);
			tier_unlock(tier);
			return;
		}
	} else if (!ready) {
		waiter_wait(&f->wait, fio_key_list(f), dump_look_step);
		tier_unlock(tier);
		return;
	}
	tier_unlock(tier);
	if (claimed != CLAIMED) {
		dump_end(f);
		return;
	}
	f->chunk = 0;
	if (large)
		fill_large(f);
	else
		fill_shared(f);
}

void flash_dump_submit(struct fio *f)
{
	parts_check(f);
	dump_look(f);
}
