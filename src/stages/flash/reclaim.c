/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making regions free: one job at a time.
 *
 *	victim -> its table -> each record: dead | evicted | carried
 *	       -> readers gone -> flush -> header of a new use -> flush -> free
 *
 * Invariants, numbered:
 *  1. A region is free when its header says so, durably: nothing of its last use
 *     is ever found again. What was carried was flushed before that, and before the
 *     marks say that it is dead where it was. (Both from the first task on that asks for
 *     something to be durable: README.md, 12.)
 *  2. What is carried is bounded by policy.h, beside what is held: so is the write
 *     amplification.
 *  3. The table is asked again as each record is reached, and a place changes only
 *     if it is still the one that was copied.
 */
#include "stages/flash/reclaim.h"

int reclaim_init(struct flash *tier)
{
	struct reclaim *r = sys_zalloc(tier->sys, 64, sizeof(*r));
	size_t table = tier->layout.region_bytes; /* a table is smaller than its region */
	size_t most = (size_t)tier->layout.records_max * sizeof(struct flash_table_entry) +
		      2 * FLASH_PAGE;

	if (!r)
		return -ENOMEM;
	tier->reclaim = r;
	r->tier = tier;
	r->victim = NO_REGION;
	r->table = sys_zalloc(tier->sys, FLASH_PAGE,
			      flash_round_up(table < most ? table : most, FLASH_PAGE));
	r->buffer = tier->sys->alloc(FLASH_PAGE, RECLAIM_CHUNK);
	r->head = sys_zalloc(tier->sys, FLASH_PAGE, FLASH_HEAD_BYTES_MAX + FLASH_PAGE);
	return r->table && r->buffer && r->head ? 0 : -ENOMEM;
}

void reclaim_fini(struct flash *tier)
{
	struct reclaim *r = tier->reclaim;

	if (!r)
		return;
	if (r->table)
		tier->sys->free(r->table);
	if (r->buffer)
		tier->sys->free(r->buffer);
	if (r->head)
		tier->sys->free(r->head);
	tier->sys->free(r);
	tier->reclaim = NULL;
}

/* ---- chains ----------------------------------------------------------------------- */

static void chain_done(struct engine_chain *chain)
{
	struct reclaim *r = (struct reclaim *)((char *)chain - offsetof(struct reclaim, chain));
	void (*then)(struct reclaim *) = r->then;

	fence_end(r->tier);
	r->then = NULL;
	r->slices = 0;
	then(r);
}

void reclaim_send(struct reclaim *r, uint32_t ops_count, void (*then)(struct reclaim *))
{
	struct flash *tier = r->tier;
	const struct engine_ops *ops;
	struct engine *engine = stage_env(tier->env)->job_engine(&r->job, &ops);
	int rc;

	assert(!r->then);
	r->then = then;
	memset(&r->chain, 0, sizeof(r->chain));
	r->chain.ops = r->ops;
	r->chain.op_count = ops_count;
	r->chain.direct = tier->direct;
	r->chain.done = chain_done;
	fence_begin(tier);
	rc = ops->submit(engine, &r->chain);
	assert(rc == 0); /* JOB_CHAINS */
	(void)rc;
}

struct engine_op reclaim_transfer(struct reclaim *r, enum engine_code code, uint64_t offset,
				  void *memory, size_t length)
{
	r->iov = (struct iovec){memory, length};
	return (struct engine_op){.code = code,
				  .fd = r->tier->fd,
				  .iov = &r->iov,
				  .iov_count = 1,
				  .offset = offset,
				  .length = length};
}

static void reclaim_step(struct reclaim *r);
static void victim_begin(struct reclaim *r);
static uint32_t live_entry(struct reclaim *r, uint32_t number, struct table_place *ret_place);

/*
 * [m] A slice is over: others may have the mutex, and, after a few of them, the reactor. True:
 * so it is unlocked, and @turn comes.
 */
static bool slice_over(struct reclaim *r, void (*turn)(struct reclaim *))
{
	bool over = ++r->slices == TURN_SLICES;

	if (over)
		r->turn = turn;
	tier_unlock(r->tier);
	if (over)
		stage_env(r->tier->env)->job_again(&r->job);
	else
		tier_lock(r->tier);
	return over;
}

/* A read may fail for once: @again, and when that fails too, @failed. */
void reclaim_read_failed(struct reclaim *r, void (*again)(struct reclaim *),
			 void (*failed)(struct reclaim *))
{
	cairn_count(r->tier->env, CNT_IO_ERRORS, 1);
	r->again = !r->again;
	if (r->again)
		again(r);
	else
		failed(r);
}

/* ---- from blank to free ------------------------------------------------------------------ */

bool reclaim_begins(const struct flash *tier, uint32_t region)
{
	const struct reclaim *r = tier->reclaim;

	return r->reclaiming && r->victim == region && tier->regions[region].state == REGION_BLANK;
}

/* [m] Nothing of the victim's use comes back, or it is not reclaimed after all. */
static void use_over(struct reclaim *r)
{
	if (r->reclaiming)
		r->tier->reclaims_over++;
	r->reclaiming = false;
	commit_kick(r->tier);
	room_came(r->tier);
}

static void header_written(struct reclaim *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->victim];

	cairn_count(tier->env, CNT_OTHER_BYTES, tier->layout.unit);
	tier_lock(tier);
	if (r->chain.result < 0) {
		/*
		 * It stays out of use. The file may still have its last use, of which
		 * nothing counts any more: what is removed now has a copy there.
		 */
		if (r->reclaiming) {
			region->seq = r->old_seq;
			region->records = r->numbers; /* with a table or without */
			memset(mark_at(tier, r->victim, 0), FLASH_MARK_DEAD, region->records);
			region->kill_dirty = UINT64_MAX;
		}
		if (r->carried_units && r->ops[0].code == OP_FDATASYNC && r->ops[0].result < 0)
			tier->flush_owed++;
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		region->state = REGION_RETIRED;
		write_failed(tier, r->victim, r->chain.result);
	} else {
		region->state = REGION_FREE;
		region->header_flush = r->chain.op_count == 1 ? tier->flush_sent + 1 : 0;
		tier->free_count++;
		/* Numbers above these have none: each use clears what it gave out. */
		memset(mark_at(tier, r->victim, 0), 0, r->numbers);
	}
	use_over(r);
	tier_unlock(tier);
	r->victim = NO_REGION;
	reclaim_step(r);
}

/* A new use of the region begins, durably; before that, what was carried out of it. */
static void header_write(struct reclaim *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->victim];
	struct flash_region_head *head = (struct flash_region_head *)(void *)r->table;
	uint32_t count = 0, epoch;
	bool flush;

	tier_lock(tier);
	assert(!region->live && !region->readers && !region->writers);
	region->state = REGION_BLANK;
	region_trust(tier, r->victim);
	region->seq = ++tier->region_seq;
	policy_clear(&tier->policy, r->victim, region->seq);
	r->numbers = region->records;
	region->records = 0;
	region->kill_dirty = region->kill_single = region->warm = 0;
	region->sequence_max = 0;
	epoch = tier->epoch;
	flush = log_flushes(tier);
	tier_unlock(tier);
	memset(head, 0, tier->layout.unit);
	flash_region_head_init(head, &tier->super, r->victim, region->seq, 0, epoch,
			       tier->sys->realtime_ns());
	if (flush)
		r->ops[count++] = (struct engine_op){.code = OP_FDATASYNC, .fd = tier->fd};
	r->ops[count++] = reclaim_transfer(r, OP_WRITEV, flash_region_at(&tier->layout, r->victim),
					   head, tier->layout.unit);
	if (flush)
		r->ops[count++] = (struct engine_op){.code = OP_FDATASYNC, .fd = tier->fd};
	reclaim_send(r, count, header_written);
}

/* ---- the end of a victim -------------------------------------------------------------------- */

/* [m] Entry @id goes, if it has a place in the victim; false: it is being written, so not now. */
static bool evict_entry(struct flash *tier, uint32_t victim, uint32_t id)
{
	struct table_block block;
	struct table_place place;
	uint32_t partial, shard = 0;

	table_look(tier->table, id, &block);
	if (block.state != TABLE_WHOLE && block.state != TABLE_PARTIAL)
		return true;
	while (shard < block.geometry.shard_count &&
	       !(table_shard(tier->table, id, shard, &place) &&
		 flash_region_of(&tier->layout, place.unit) == victim))
		shard++;
	if (shard == block.geometry.shard_count)
		return true;
	partial = block.state == TABLE_PARTIAL ? partial_find(tier, block.fingerprint) : UINT32_MAX;
	if (partial != UINT32_MAX && tier->partials[partial].claim_count)
		return false;
	if (block.holds) /* what is held stays, too */
		return true;
	if (partial != UINT32_MAX)
		flash_partial_free(tier, partial);
	block_remove(tier, id);
	cairn_count(tier->env, partial != UINT32_MAX ? CNT_PARTIALS_DROPPED : CNT_EVICTED, 1);
	return true;
}

/*
 * [m] What is left with a place in the victim: partial blocks, and what its table did not
 * tell. False: there are more entries to look at, r->rest on. Nothing new comes into it.
 */
static bool evict_rest(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint32_t end = table_end(tier->table);

	for (uint32_t i = 0; i < SLICE_ENTRIES && r->rest < end; i++) {
		if (!tier->regions[r->victim].live || !evict_entry(tier, r->victim, r->rest))
			return true;
		r->rest++;
	}
	return r->rest == end || !tier->regions[r->victim].live;
}

/* [m] A region that takes no writes is not used again: what is in it is dead for ever. */
static void victim_retire(struct reclaim *r)
{
	struct region *region = &r->tier->regions[r->victim];

	memset(mark_at(r->tier, r->victim, 0), FLASH_MARK_DEAD, region->records);
	region->kill_dirty = UINT64_MAX;
	region->state = REGION_RETIRED;
	use_over(r);
	r->victim = NO_REGION;
}

/*
 * What was carried counts in its new place alone: or a remove of it would not last. Where the
 * flush failed, the file says so after one that does not. Nothing new comes into the victim.
 */
static void victim_left(struct reclaim *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->victim];
	struct table_place place;

	tier_lock(tier);
	for (uint32_t left = SLICE_RECORDS; r->left < r->records; r->left++, left--) {
		if (!left) {
			if (slice_over(r, victim_left))
				return;
			left = SLICE_RECORDS;
		}
		if (live_entry(r, r->left, &place) != TABLE_NONE)
			continue;
		*mark_at(tier, r->victim, r->left) = FLASH_MARK_DEAD;
		region->kill_dirty |= 1ull << (r->left / FLASH_MARKS_PER_PAGE % 64);
	}
	if (region->failed && !region->live) {
		victim_retire(r);
	} else {
		region->state = region->failed ? REGION_RETIRED : REGION_SEALED;
		policy_candidate(&tier->policy, r->victim, !region->kept);
		use_over(r);
		r->victim = NO_REGION;
	}
	tier_unlock(tier);
	reclaim_step(r);
}

static void victim_flushed(struct reclaim *r)
{
	struct flash *tier = r->tier;

	tier_lock(tier);
	if (r->chain.result < 0) {
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		tier->flush_owed++;
	}
	/* Some of it may have been evicted: that is room in the index at least. */
	room_came(tier);
	tier_unlock(tier);
	r->left = 0;
	victim_left(r);
}

/* [m] Something in the victim must stay, and cannot go elsewhere: until it may, it is no victim. */
static void victim_keep(struct reclaim *r)
{
	struct region *region = &r->tier->regions[r->victim];

	r->tier->kept += !region->kept;
	region->kept = true;
}

/*
 * It is not reclaimed: something in it must stay; or it takes no writes. Before what was
 * carried is marked as dead here, it has to be there to stay.
 */
static void victim_back(struct reclaim *r)
{
	bool flush;

	tier_lock(r->tier);
	flush = log_flushes(r->tier);
	tier_unlock(r->tier);
	if (!flush) {
		r->chain.result = 0;
		victim_flushed(r);
		return;
	}
	r->ops[0] = (struct engine_op){.code = OP_FDATASYNC, .fd = r->tier->fd};
	reclaim_send(r, 1, victim_flushed);
}

static void victim_over(struct reclaim *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->victim];
	bool ready;

	tier_lock(tier);
	while (!evict_rest(r))
		if (slice_over(r, victim_over))
			return;
	if (region->live || region->failed) {
		if (region->live)
			victim_keep(r);
		tier_unlock(tier);
		victim_back(r);
		return;
	}
	ready = region->readers == 0;
	r->waits_readers = !ready; /* reclaim_reader_gone() comes */
	r->turn = victim_over;
	tier_unlock(tier);
	if (!ready)
		return;
	cairn_count(tier->env, CNT_RECLAIMED, 1);
	r->barren = r->carried_units > tier->layout.region_units / 8 * 7 ? r->barren + 1 : 0;
	header_write(r);
}

void reclaim_reader_gone(struct flash *tier, uint32_t region)
{
	struct reclaim *r = tier->reclaim;

	if (!r->waits_readers || r->victim != region)
		return;
	r->waits_readers = false;
	stage_env(tier->env)->job_again(&r->job);
}

/* ---- each record --------------------------------------------------------------------------- */

/* [m] The entry that a record of the victim is a shard of; TABLE_NONE: it is dead. */
static uint32_t live_entry(struct reclaim *r, uint32_t number, struct table_place *ret_place)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[number];
	struct table_geometry geometry;
	uint32_t id;

	if (!flash_entry_check(entry, &tier->layout, r->victim)) /* or a hole */
		return TABLE_NONE;
	id = table_find(tier->table, table_fingerprint(tier->table, &entry->key, entry->space,
						       entry->generation));
	if (id == TABLE_NONE)
		return id;
	table_geometry(tier->table, id, &geometry);
	if (entry->shard >= geometry.shard_count ||
	    !table_shard(tier->table, id, entry->shard, ret_place) ||
	    ret_place->unit != entry->unit)
		return TABLE_NONE;
	return id;
}

static bool space_current(const struct flash *tier, const struct flash_table_entry *entry)
{
	const struct space *space =
		entry->space < tier->space_end ? tier->spaces[entry->space] : NULL;

	return space && space->generation == entry->generation;
}

enum fate { FATE_DEAD, FATE_EVICT, FATE_CARRY };

/* [m] */
static enum fate fate_of(struct reclaim *r, uint32_t number, struct carried *ret_carried)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[number];
	struct table_block block;

	ret_carried->at = number;
	ret_carried->entry = live_entry(r, number, &ret_carried->old_place);
	if (ret_carried->entry == TABLE_NONE)
		return FATE_DEAD;
	table_look(tier->table, ret_carried->entry, &block);
	ret_carried->incarnation = block.incarnation;
	if (block.state == TABLE_PARTIAL) { /* of a namespace that was cleared, too */
		uint32_t partial = partial_find(tier, block.fingerprint);

		return tier->partials[partial].claim_count ? FATE_CARRY : FATE_EVICT;
	}
	if (!space_current(tier, entry) || (block.expiry && block.expiry <= now_seconds(tier)))
		return FATE_EVICT;
	return policy_carries(&r->choice, block.epoch, block.holds || block.pins, block.orphan)
		       ? FATE_CARRY
		       : FATE_EVICT;
}

/* [m] */
static void evict(struct reclaim *r, uint32_t id)
{
	struct flash *tier = r->tier;
	const struct flash_table_entry *entry = &r->entries[r->at];
	struct table_block block;

	table_look(tier->table, id, &block);
	if (block.state == TABLE_PARTIAL) {
		flash_partial_free(tier, partial_find(tier, block.fingerprint));
		cairn_count(tier->env, CNT_PARTIALS_DROPPED, 1);
	} else if (space_current(tier, entry)) {
		struct space *space = tier->spaces[entry->space];

		space_count(tier, space, false);
		cairn_count(tier->env, CNT_EVICTED, 1);
	}
	block_remove(tier, id);
}

/*
 * [m] No place for what is carried. True: it goes, since it has only been used since the victim
 * was chosen. Else what comes next is on its way, and it is unlocked.
 */
static bool no_place(struct reclaim *r, const struct carried *carried)
{
	struct flash *tier = r->tier;
	struct table_block block;

	if (tier->free_count) { /* but no draft: one comes back when a region is sealed */
		r->at--;
		r->waits_draft = true;
		r->turn = reclaim_next;
		tier_unlock(tier);
		return false;
	}
	table_look(tier->table, carried->entry, &block);
	if (block.state == TABLE_WHOLE && !block.holds) {
		evict(r, carried->entry);
		return true;
	}
	victim_keep(r);
	tier_unlock(tier);
	victim_back(r);
	return false;
}

void reclaim_draft_came(struct flash *tier)
{
	struct reclaim *r = tier->reclaim;

	if (!r->waits_draft)
		return;
	r->waits_draft = false;
	stage_env(tier->env)->job_again(&r->job);
}

/* [m] Whether it can be read and written together with those that are carried already. */
static bool goes_along(const struct reclaim *r, const struct table_place *place)
{
	const struct flash_layout *layout = &r->tier->layout;
	const struct table_place *first = &r->carried[0].old_place, *last;

	if (!r->count)
		return true;
	last = &r->carried[r->count - 1].old_place;
	return r->count < CARRY_MAX && place->unit >= last->unit + last->length &&
	       flash_byte_of(layout, place->unit - last->unit - last->length) <= CARRY_GAP &&
	       flash_byte_of(layout, place->unit + place->length - first->unit) <= RECLAIM_CHUNK &&
	       log_goes_on(r->tier, 1, r->new_region, place->length);
}

/* [m] A new place for it. False: there is none. */
static bool carry_reserve(struct reclaim *r, struct carried *carried)
{
	uint32_t unit, number;

	if (!log_reserve(r->tier, 1, carried->old_place.length, 1, &r->new_region, &unit, &number))
		return false;
	carried->new_place = (struct table_place){unit, carried->old_place.length, number};
	r->carried_units += carried->old_place.length;
	r->carried[r->count++] = *carried;
	return true;
}

void reclaim_next(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint32_t left = SLICE_RECORDS;

	tier_lock(tier);
	while (++r->at < r->records) {
		struct carried carried;
		enum fate fate;

		if (!left--) {
			r->at--;
			if (slice_over(r, reclaim_next))
				return;
			r->at++;
			left = SLICE_RECORDS - 1;
		}
		fate = fate_of(r, r->at, &carried);
		if (fate == FATE_EVICT)
			evict(r, carried.entry);
		if (fate != FATE_CARRY)
			continue;
		if (!goes_along(r, &carried.old_place)) { /* it is the first of the next ones */
			r->at--;
			break;
		}
		if (!carry_reserve(r, &carried) && !no_place(r, &carried))
			return;
	}
	tier_unlock(tier);
	r->done = 0;
	r->now = 0;
	r->single = r->count == 1;
	if (r->count)
		reclaim_carry(r);
	else
		victim_over(r);
}

/* ---- the victim ----------------------------------------------------------------------------- */

/* Without its table, all that the index knows in the victim goes. */
static void table_unread(struct reclaim *r)
{
	tier_lock(r->tier);
	region_retire(r->tier, r->victim, r->chain.result);
	tier_unlock(r->tier);
	r->records = 0;
	r->at = UINT32_MAX;
	reclaim_next(r);
}

static void table_have(struct reclaim *r)
{
	if (r->chain.result < 0) {
		reclaim_read_failed(r, victim_begin, table_unread);
		return;
	}
	r->again = false;
	r->at = UINT32_MAX; /* the next is 0 */
	reclaim_next(r);
}

static void victim_begin(struct reclaim *r)
{
	struct flash *tier = r->tier;
	const struct flash_layout *layout = &tier->layout;
	uint32_t unit, end;

	r->carried_units = 0;
	r->count = 0;
	r->rest = 0;
	if (!r->records) {
		r->at = UINT32_MAX;
		reclaim_next(r);
		return;
	}
	unit = flash_table_unit(layout, r->victim, r->records);
	end = flash_trailer_unit(layout, r->victim);
	r->entries = (const struct flash_table_entry *)(const void *)r->table;
	r->ops[0] = reclaim_transfer(r, OP_READV, flash_byte_of(layout, unit), r->table,
				     (size_t)(end - unit) * layout->unit);
	reclaim_send(r, 1, table_have);
}

static uint32_t blank_find(const struct flash *tier)
{
	for (uint32_t i = 0; i < tier->layout.region_count; i++)
		if (tier->regions[i].state == REGION_BLANK)
			return i;
	return NO_REGION;
}

static bool any_sealing(const struct flash *tier)
{
	for (uint32_t i = 0; i < tier->layout.region_count; i++)
		if (tier->regions[i].state == REGION_SEALING)
			return true;
	return false;
}

static void job_over(struct reclaim *r)
{
	r->running = false;
	stage_env(r->tier->env)->job_end(r->tier->env, &r->job);
}

/*
 * [m] There is no victim. True: there may be one by now, behind what was looked at, or who
 * wants one has come since.
 */
static bool none_found(struct reclaim *r)
{
	struct flash *tier = r->tier;
	bool evict = r->scan.evict, needed = tier->free_count < 2 || evict;

	if (r->entries_wanted)
		return true;
	if (needed && tier->room_events != r->room_events) {
		r->entries_wanted = evict;
		return true;
	}
	if (evict) /* what fills the table may all lie in regions that are not full */
		log_close(tier);
	if (!needed ||
	    any_sealing(tier)) /* then who waits is woken when a region has been sealed */
		return false;
	tier->no_entry = tier->no_entry || evict;
	tier->no_region = tier->no_region || !evict;
	waiters_wake(&tier->wait_room);
	return evict && tier->free_count < free_target(tier); /* of regions there may be some */
}

/* [m] The victim is taken. */
static void victim_take(struct reclaim *r)
{
	struct flash *tier = r->tier;
	struct region *region = &tier->regions[r->choice.region];

	r->victim = r->choice.region;
	r->records = region->tabled ? region->records : 0;
	r->old_seq = region->seq;
	region->state = REGION_RECLAIM;
	policy_take(&tier->policy, &r->choice);
	tier->reclaims_begun++;
	r->reclaiming = true;
}

/* The choice of a victim, regions by regions: where the table is full, one that makes room in it.
 */
static void victim_choose(struct reclaim *r)
{
	struct flash *tier = r->tier;
	bool again;

	tier_lock(tier);
	while (!policy_scan(&tier->policy, &r->scan, SLICE_REGIONS))
		if (slice_over(r, victim_choose))
			return;
	again = !policy_scan_end(&tier->policy, &r->scan, &r->choice);
	if (again)
		r->entries_wanted = r->entries_wanted || r->scan.evict;
	else if (r->choice.region != NO_REGION)
		victim_take(r);
	else
		again = none_found(r);
	if (again) {
		r->turn = reclaim_step;
		stage_env(tier->env)->job_again(&r->job);
	} else if (r->victim == NO_REGION) {
		job_over(r);
	}
	again = again || r->victim == NO_REGION;
	tier_unlock(tier);
	if (!again)
		victim_begin(r);
}

/* [m] Unlocks. It looks again when it may be known how the device is (outage.c). */
static void outage_wait(struct reclaim *r)
{
	struct flash *tier = r->tier;
	uint64_t wait_ns = tier->refuses ? REFUSED_NS : DOUBT_NS;

	tier->retired_new = true;
	commit_super(tier);
	r->turn = reclaim_step;
	tier_unlock(tier);
	stage_env(tier->env)->job_sleep(&r->job, tier->sys->now_ns() + wait_ns);
}

static void reclaim_step(struct reclaim *r)
{
	struct flash *tier = r->tier;
	bool wanted;

	tier_lock(tier);
	assert(r->victim == NO_REGION);
	if (tier->doubts || tier->refuses) {
		outage_wait(r);
		return;
	}
	wanted = tier->free_count < free_target(tier);
	if (wanted)
		r->victim = blank_find(tier);
	if (r->victim != NO_REGION) {
		tier_unlock(tier);
		header_write(r);
		return;
	}
	if (!wanted && !r->entries_wanted) {
		job_over(r);
		tier_unlock(tier);
		return;
	}
	policy_scan_begin(&r->scan, r->entries_wanted, log_room(tier));
	r->room_events = tier->room_events;
	r->entries_wanted = false;
	if (r->gifts != tier->gifts)
		r->barren = 0;
	r->gifts = tier->gifts;
	if (r->barren > tier->layout.region_count) /* it would go on for nothing */
		r->scan.next = tier->layout.region_count;
	tier_unlock(tier);
	victim_choose(r);
}

static void reclaim_run(struct stage_job *job)
{
	struct reclaim *r = (struct reclaim *)((char *)job - offsetof(struct reclaim, job));
	void (*turn)(struct reclaim *);

	tier_lock(r->tier);
	turn = r->turn;
	r->turn = NULL;
	r->slices = 0;
	tier_unlock(r->tier);
	turn(r);
}

void reclaim_kick(struct flash *tier, bool entries)
{
	struct reclaim *r = tier->reclaim;

	r->entries_wanted = r->entries_wanted || entries;
	if (r->running)
		return;
	r->running = true;
	r->turn = reclaim_step;
	r->job.run = reclaim_run;
	stage_env(tier->env)->job_start(tier->env, &r->job, 1);
}
