/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: regions, and places in them.
 *
 * Invariants, numbered:
 *  1. A region is written from front to back; numbers and units are given out
 *     under the mutex and never twice in one use.
 *  2. `writers` of a region is the records given out that have not ended; it is
 *     sealed when it is full and that is 0.
 *  3. `live` is the units of the places in it that the table has.
 *  4. The last region that is ready is for carried records: without it nothing
 *     could be reclaimed any more.
 */
#include "stages/flash/tier.h"

#define NO_REGION UINT32_MAX

/* ---- figures --------------------------------------------------------------------- */

static uint16_t epoch_of(const struct flash *tier, uint32_t id, bool *ret_held)
{
	struct table_block block;

	table_look(tier->table, id, &block);
	*ret_held = block.holds > 0;
	return block.epoch;
}

void region_gain(struct flash *tier, uint32_t id, const struct table_place *place)
{
	uint32_t number = flash_region_of(&tier->layout, place->unit);
	struct region *region = &tier->regions[number];
	bool held;
	uint16_t epoch = epoch_of(tier, id, &held);

	region->live += place->length;
	tier->live_units += place->length;
	policy_add(&tier->policy, number, epoch, place->length);
	if (held)
		policy_hold(&tier->policy, number, place->length);
	assert(region->live <= tier->layout.region_units);
}

void region_lose(struct flash *tier, uint32_t id, const struct table_place *place)
{
	uint32_t number = flash_region_of(&tier->layout, place->unit);
	struct region *region = &tier->regions[number];
	bool held;
	uint16_t epoch = epoch_of(tier, id, &held);

	assert(region->live >= place->length && tier->live_units >= place->length);
	region->live -= place->length;
	tier->live_units -= place->length;
	policy_drop(&tier->policy, number, epoch, place->length);
	if (held)
		policy_unhold(&tier->policy, number, place->length);
	region_let_go(tier, number);
}

void record_dies(struct flash *tier, const struct table_place *place)
{
	uint32_t number = flash_region_of(&tier->layout, place->unit);

	*mark_at(tier, number, place->number) = FLASH_MARK_DEAD;
	tier->regions[number].kill_dirty |= 1ull << (place->number / FLASH_MARKS_PER_PAGE % 64);
}

void block_remove(struct flash *tier, uint32_t id)
{
	struct table_block block;

	table_look(tier->table, id, &block);
	for (uint32_t i = 0; i < block.geometry.shard_count; i++) {
		struct table_place place;

		if (!table_shard(tier->table, id, i, &place))
			continue;
		region_lose(tier, id, &place);
		record_dies(tier, &place);
	}
	table_remove(tier->table, id);
}

void block_set_epoch(struct flash *tier, uint32_t id, uint32_t epoch)
{
	struct table_geometry geometry;
	uint16_t before;

	if (!table_touch(tier->table, id, (uint16_t)epoch, &before))
		return;
	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < geometry.shard_count; i++) {
		struct table_place place;
		uint32_t number;

		if (!table_shard(tier->table, id, i, &place))
			continue;
		number = flash_region_of(&tier->layout, place.unit);
		policy_drop(&tier->policy, number, before, place.length);
		policy_add(&tier->policy, number, (uint16_t)epoch, place.length);
		if (epoch > tier->regions[number].last_used)
			tier->regions[number].last_used = epoch;
		*mark_at(tier, number, place.number) = flash_mark_of(epoch);
		tier->regions[number].warm |= 1ull << (place.number / FLASH_MARKS_PER_PAGE % 64);
		tier->warm = true;
	}
}

static uint32_t age_of(const struct flash *tier, uint32_t id)
{
	return (uint16_t)(tier->policy.epoch - table_epoch(tier->table, id));
}

void block_mark(struct flash *tier, uint32_t id, const struct table_place *place)
{
	*mark_at(tier, flash_region_of(&tier->layout, place->unit), place->number) =
		flash_mark_of(tier->epoch - age_of(tier, id));
}

/* Of those that it continues, up to LIFT_MAX back, none is colder than it: so leaves go first. */
static void block_lift(struct flash *tier, uint32_t id)
{
	uint32_t age = age_of(tier, id);

	/* It ends in a circle of parents, too: there none is colder than the next. */
	for (uint32_t i = 0; i < LIFT_MAX; i++) {
		id = table_parent(tier->table, id);
		if (id == TABLE_NONE || age_of(tier, id) <= age)
			return;
		block_set_epoch(tier, id, tier->epoch - age);
	}
}

void block_touch(struct flash *tier, uint32_t id)
{
	if (table_epoch(tier->table, id) == (uint16_t)tier->epoch)
		return;
	block_set_epoch(tier, id, tier->epoch);
	block_lift(tier, id);
	commit_warm(tier);
}

void block_continues(struct flash *tier, uint32_t id, uint64_t parent)
{
	bool known = table_parent(tier->table, id) != TABLE_NONE;

	table_set_parent(tier->table, id, parent);
	if (!known)
		block_lift(tier, id);
}

static void hold_count(struct flash *tier, uint32_t id, bool more)
{
	struct table_geometry geometry;

	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < geometry.shard_count; i++) {
		struct table_place place;
		uint32_t number;

		if (!table_shard(tier->table, id, i, &place))
			continue;
		number = flash_region_of(&tier->layout, place.unit);
		if (more) {
			policy_hold(&tier->policy, number, place.length);
		} else {
			policy_unhold(&tier->policy, number, place.length);
			region_let_go(tier, number);
		}
	}
}

bool block_hold(struct flash *tier, uint32_t id)
{
	bool held;

	epoch_of(tier, id, &held);
	if (!table_hold(tier->table, id))
		return false;
	if (!held)
		hold_count(tier, id, true);
	return true;
}

void block_unhold(struct flash *tier, uint32_t id, uint16_t incarnation)
{
	bool held;

	if (!table_is(tier->table, id, incarnation))
		return; /* removed meanwhile */
	table_unhold(tier->table, id, incarnation);
	epoch_of(tier, id, &held);
	if (!held)
		hold_count(tier, id, false);
}

void region_let_go(struct flash *tier, uint32_t number)
{
	struct region *region = &tier->regions[number];

	if (!region->kept)
		return;
	region->kept = false;
	tier->kept--;
	tier->no_region = tier->no_entry = false;
	tier->gifts++;
	if (region->state == REGION_SEALED || region->state == REGION_RETIRED)
		policy_candidate(&tier->policy, number, true);
}

void block_let_go(struct flash *tier, uint32_t id)
{
	struct table_geometry geometry;
	struct table_place place;

	tier->no_entry = false;
	if (!tier->kept)
		return;
	table_geometry(tier->table, id, &geometry);
	for (uint32_t i = 0; i < geometry.shard_count; i++)
		if (table_shard(tier->table, id, i, &place))
			region_let_go(tier, flash_region_of(&tier->layout, place.unit));
}

/* ---- open regions --------------------------------------------------------------------- */

static struct draft *draft_free(struct flash *tier)
{
	for (uint32_t i = 0; i < DRAFTS; i++)
		if (tier->drafts[i].region == NO_REGION)
			return &tier->drafts[i];
	return NULL;
}

static uint32_t region_ready(const struct flash *tier)
{
	uint32_t best = NO_REGION;

	for (uint32_t i = 0; i < tier->layout.region_count; i++)
		if (tier->regions[i].state == REGION_FREE &&
		    (best == NO_REGION || tier->regions[i].seq < tier->regions[best].seq))
			best = i;
	return best;
}

void log_prepare(struct flash *tier)
{
	const struct flash_layout *layout = &tier->layout;
	uint32_t unit = layout->unit;
	void *head = sys_zalloc(tier->sys, FLASH_PAGE, flash_round_up(unit, FLASH_PAGE));

	for (uint32_t i = 0; head && i < layout->region_count; i++) {
		struct region *region = &tier->regions[i];

		if (tier->free_count >= free_target(tier))
			break;
		if (region->state != REGION_BLANK)
			continue;
		region->seq = ++tier->region_seq;
		policy_clear(&tier->policy, i, region->seq);
		flash_region_head_init(head, &tier->super, i, region->seq, 0, tier->epoch,
				       tier->sys->realtime_ns());
		if (sys_pwrite_full(tier->sys, tier->fd, head, unit,
				    (off_t)flash_region_at(layout, i)) < 0)
			break;
		cairn_count(tier->env, CNT_OTHER_BYTES, unit);
		memset(mark_at(tier, i, 0), 0, region->records);
		region->records = 0;
		region->kill_dirty = region->kill_single = 0;
		region->sequence_max = 0;
		region->state = REGION_FREE;
		tier->free_count++;
	}
	if (head)
		tier->sys->free(head);
}

static bool region_open(struct flash *tier, uint32_t stream)
{
	struct draft *draft = draft_free(tier);
	struct region *region;
	uint32_t number;

	if (tier->free_count < free_target(tier))
		reclaim_kick(tier, false);
	if (!draft || tier->free_count < (stream == 0 ? 2u : 1u))
		return false;
	number = region_ready(tier);
	assert(number != NO_REGION);
	region = &tier->regions[number];
	assert(region->seq && !region->live && !region->readers && !region->writers);
	region->state = REGION_OPEN;
	region->stream = (uint8_t)stream;
	region->at = flash_first_unit(&tier->layout, number);
	region->records = 0;
	region->epoch = region->last_used = tier->epoch;
	region->draft = (uint32_t)(draft - tier->drafts);
	region->failed = region->tabled = false;
	draft->region = number;
	tier->free_count--;
	tier->open_region[stream] = number;
	if (tier->free_count < free_target(tier))
		reclaim_kick(tier, false);
	return true;
}

/* Nothing more goes in. */
static void region_close(struct flash *tier, uint32_t stream)
{
	uint32_t number = tier->open_region[stream];
	struct region *region = &tier->regions[number];

	assert(region->state == REGION_OPEN);
	tier->open_region[stream] = NO_REGION;
	region->state = REGION_SEALING;
	if (!region->writers)
		seal_start(tier, number);
}

void log_close(struct flash *tier)
{
	for (uint32_t stream = 0; stream < FLASH_STREAMS; stream++) {
		uint32_t number = tier->open_region[stream];

		if (number != NO_REGION && tier->regions[number].live)
			region_close(tier, stream);
	}
}

/* The table of an open region, as it will be written: numbers that no record takes are holes. */
static struct flash_table_entry *table_of(struct flash *tier, const struct region *region)
{
	assert(region->draft != DRAFT_NONE);
	return (struct flash_table_entry *)(void *)tier->drafts[region->draft].memory;
}

/* Of the marks of the first @count numbers of a region, in whole pages. */
static size_t marks_memory(const struct flash *tier, uint32_t number, uint32_t count)
{
	uint64_t begin = (uint64_t)number * tier->layout.records_max;
	uint64_t from = begin / FLASH_PAGE * FLASH_PAGE;

	return count ? (size_t)(flash_round_up(begin + count, FLASH_PAGE) - from) : 0;
}

void region_marked(struct flash *tier, uint32_t number)
{
	struct region *region = &tier->regions[number];

	if (region->records <= region->marked)
		return;
	tier->marks_touched += marks_memory(tier, number, region->records) -
			       marks_memory(tier, number, region->marked);
	region->marked = region->records;
}

bool log_reserve(struct flash *tier, uint32_t stream, uint32_t units, uint32_t records,
		 uint32_t *ret_region, uint32_t *ret_unit, uint32_t *ret_number)
{
	for (;;) {
		uint32_t number = tier->open_region[stream];
		struct region *region;

		if (number == NO_REGION) {
			if (!region_open(tier, stream))
				return false;
			continue;
		}
		region = &tier->regions[number];
		if (region->failed || !flash_fits(&tier->layout, number, region->at, units,
						  region->records + records - 1)) {
			region_close(tier, stream);
			continue;
		}
		*ret_region = number;
		*ret_unit = region->at;
		*ret_number = region->records;
		memset(&table_of(tier, region)[region->records], 0,
		       records * sizeof(struct flash_table_entry));
		region->at += units;
		region->records += records;
		region->writers += records;
		region_marked(tier, number);
		tier->epoch += policy_written(&tier->policy, units) ? 1 : 0;
		return true;
	}
}

/* Each unit of it may be a record, and need its entry of the table. */
uint32_t log_room(const struct flash *tier)
{
	const struct flash_layout *layout = &tier->layout;
	uint32_t number = tier->open_region[1], entries, end;
	const struct region *region;

	if (tier->free_count)
		return layout->region_units;
	if (number == NO_REGION || tier->regions[number].failed)
		return 0;
	region = &tier->regions[number];
	entries = layout->unit / (uint32_t)sizeof(struct flash_table_entry);
	end = flash_table_unit(layout, number, region->records + 1);
	return end > region->at + 1 ? (end - region->at - 1) / (entries + 1) * entries : 0;
}

bool log_goes_on(const struct flash *tier, uint32_t stream, uint32_t region, uint32_t units)
{
	const struct region *r = &tier->regions[region];

	return tier->open_region[stream] == region && !r->failed &&
	       flash_fits(&tier->layout, region, r->at, units, r->records);
}

void log_settled(struct flash *tier, uint32_t number, uint32_t records)
{
	struct region *region = &tier->regions[number];

	assert(region->writers >= records);
	region->writers -= records;
	if (region->state == REGION_SEALING && !region->writers)
		seal_start(tier, number);
}

void log_record(struct flash *tier, uint32_t number, const struct flash_record *record)
{
	struct region *region = &tier->regions[number];

	flash_entry_of(record, &tier->super.id, &table_of(tier, region)[record->number]);
	if (record->sequence > region->sequence_max)
		region->sequence_max = record->sequence;
}

void log_forget(struct flash *tier, const struct table_place *place)
{
	uint32_t number = flash_region_of(&tier->layout, place->unit);
	struct region *region = &tier->regions[number];

	assert(region->writers);
	memset(&table_of(tier, region)[place->number], 0, sizeof(struct flash_table_entry));
}

/* The superblock has no place for it, or has it. */
static bool retired_add(struct flash *tier, uint32_t number)
{
	uint32_t at = tier->retired_count;

	while (at && tier->retired[at - 1] >= number)
		at--;
	if (tier->retired_count == FLASH_RETIRED_MAX ||
	    (at < tier->retired_count && tier->retired[at] == number))
		return false;
	memmove(&tier->retired[at + 1], &tier->retired[at],
		(tier->retired_count - at) * sizeof(tier->retired[0]));
	tier->retired[at] = number;
	tier->retired_count++;
	return true;
}

void region_fail(struct flash *tier, uint32_t number, int64_t error)
{
	struct region *region = &tier->regions[number];

	assert(error < 0);
	if (!region->failed)
		cairn_count(tier->env, CNT_RETIRED, 1);
	region->failed = true;
	if (error != -ENOSPC && error != -EDQUOT && retired_add(tier, number))
		tier->retired_new = true;
}

void region_unretire(struct flash *tier, uint32_t number)
{
	uint32_t at = 0;

	while (at < tier->retired_count && tier->retired[at] != number)
		at++;
	if (at == tier->retired_count)
		return;
	tier->retired_new = true;
	tier->retired_count--;
	memmove(&tier->retired[at], &tier->retired[at + 1],
		(tier->retired_count - at) * sizeof(tier->retired[0]));
}

void region_suspect(struct flash *tier, uint32_t number)
{
	struct region *region = &tier->regions[number];

	if (region->failed || region->seq <= tier->super.unsure_seq)
		return;
	tier->suspects += !region->suspect;
	region->suspect = true;
	policy_suspect(&tier->policy, number);
	if (++region->damages >= DAMAGES_MAX)
		region_retire(tier, number, -EBADMSG);
	cairn_gauge(tier->env, CNT_SUSPECT, tier->suspects);
}

void region_trust(struct flash *tier, uint32_t number)
{
	struct region *region = &tier->regions[number];

	tier->suspects -= region->suspect;
	region->suspect = false;
	cairn_gauge(tier->env, CNT_SUSPECT, tier->suspects);
}

void region_retire(struct flash *tier, uint32_t number, int64_t error)
{
	struct region *region = &tier->regions[number];

	region_fail(tier, number, error);
	region_trust(tier, number);
	if (tier->retired_new)
		commit_super(tier);
	if (region->state == REGION_SEALED)
		region->state = REGION_RETIRED;
	for (uint32_t stream = 0; stream < FLASH_STREAMS; stream++)
		if (tier->open_region[stream] == number)
			region_close(tier, stream);
}

/* ---- sealing -------------------------------------------------------------------------------- */

static void sealed(struct engine_chain *chain)
{
	struct draft *draft = (struct draft *)((char *)chain - offsetof(struct draft, chain));
	struct flash *tier = draft->tier;
	struct region *region;

	fence_end(tier);
	cairn_count(tier->env, CNT_OTHER_BYTES, draft->iov[0].iov_len);
	tier_lock(tier);
	region = &tier->regions[draft->region];
	assert(region->state == REGION_SEALING);
	/* Without a table it is read as an open one is, record by record. */
	if (chain->result < 0)
		write_failed(tier, draft->region, chain->result);
	region->tabled = chain->result >= 0;
	region->state = region->failed ? REGION_RETIRED : REGION_SEALED;
	region->draft = DRAFT_NONE;
	policy_candidate(&tier->policy, draft->region, true);
	draft->region = NO_REGION;
	draft->sealing = false;
	cairn_count(tier->env, chain->result < 0 ? CNT_IO_ERRORS : CNT_SEALED, 1);
	if (region->stream == 0)
		room_given(tier);
	else
		room_came(tier);
	reclaim_draft_came(tier);
	if (tier->free_count < free_target(tier))
		reclaim_kick(tier, false);
	/* Under the lock: who finds the draft free may start its job again. */
	stage_env(tier->env)->job_end(tier->env, &draft->job);
	tier_unlock(tier);
}

/* The trailer behind the table, so that one write takes both. */
static void draft_finish(struct flash *tier, struct draft *draft)
{
	const struct region *region = &tier->regions[draft->region];
	const struct flash_layout *layout = &tier->layout;
	uint32_t table_bytes = region->records * (uint32_t)sizeof(struct flash_table_entry);
	uint32_t table_units = flash_trailer_unit(layout, draft->region) -
			       flash_table_unit(layout, draft->region, region->records);
	uint8_t *table = draft->memory;
	size_t pad = (size_t)table_units * layout->unit - table_bytes;
	struct flash_trailer trailer = {
		.region = draft->region,
		.seq = region->seq,
		.record_count = region->records,
		.records_end = region->at,
		.epoch = draft->epoch,
		.sealed_ns = tier->sys->realtime_ns(),
		.sequence_max = region->sequence_max,
	};

	trailer.table_bytes = table_bytes;
	flash_trailer_seal(&trailer, (const struct flash_table_entry *)(const void *)table,
			   flash_salt(&tier->super.id, region->seq));
	/* Behind the table, what is left of its last unit is zero. */
	memset(table + table_bytes, 0, pad + layout->unit);
	memcpy(table + table_bytes + pad, &trailer, sizeof(trailer));
	draft->iov[0] = (struct iovec){table, table_bytes + pad + layout->unit};
}

static void seal_run(struct stage_job *job)
{
	struct draft *draft = (struct draft *)((char *)job - offsetof(struct draft, job));
	struct flash *tier = draft->tier;
	const struct engine_ops *ops;
	struct engine *engine = stage_env(tier->env)->job_engine(job, &ops);
	uint32_t count = 0;
	bool flush;
	int rc;

	tier_lock(tier);
	flush = log_flushes(tier);
	tier_unlock(tier);
	draft_finish(tier, draft); /* nobody writes to the region any more */
	memset(draft->ops, 0, sizeof(draft->ops));
	/* The trailer says that the records are there: so they are, before it is. */
	if (flush)
		draft->ops[count++] = (struct engine_op){.code = OP_FDATASYNC, .fd = tier->fd};
	draft->ops[count++] = (struct engine_op){
		.code = OP_WRITEV,
		.fd = tier->fd,
		.iov = draft->iov,
		.iov_count = 1,
		.offset = flash_byte_of(&tier->layout,
					flash_trailer_unit(&tier->layout, draft->region) + 1) -
			  draft->iov[0].iov_len,
		.length = draft->iov[0].iov_len,
	};
	memset(&draft->chain, 0, sizeof(draft->chain));
	draft->chain.ops = draft->ops;
	draft->chain.op_count = count;
	draft->chain.direct = tier->direct;
	draft->chain.done = sealed;
	fence_begin(tier);
	rc = ops->submit(engine, &draft->chain);
	assert(rc == 0); /* JOB_CHAINS */
	(void)rc;
}

int drafts_init(struct flash *tier)
{
	size_t bytes =
		flash_round_up((size_t)tier->layout.records_max * sizeof(struct flash_table_entry) +
				       2 * (size_t)FLASH_UNIT_MAX,
			       FLASH_PAGE);

	for (uint32_t i = 0; i < DRAFTS; i++) {
		tier->drafts[i].region = NO_REGION;
		tier->drafts[i].memory = tier->sys->alloc(FLASH_PAGE, bytes);
		if (!tier->drafts[i].memory)
			return -ENOMEM;
	}
	return 0;
}

void drafts_fini(struct flash *tier)
{
	for (uint32_t i = 0; i < DRAFTS; i++)
		if (tier->drafts[i].memory)
			tier->sys->free(tier->drafts[i].memory);
}

int seal_flush(struct flash *tier)
{
	return tier->sync == SYNC_NONE ? 0 : tier->sys->fdatasync(tier->fd);
}

int seal_now(struct flash *tier, uint32_t number, int flushed)
{
	struct region *region = &tier->regions[number];
	struct draft *draft = &tier->drafts[region->draft];
	uint64_t end = flash_byte_of(&tier->layout, flash_trailer_unit(&tier->layout, number) + 1);
	int rc = flushed;

	assert(draft->region == number && !region->writers);
	draft->epoch = region->last_used;
	draft_finish(tier, draft);
	if (rc == 0)
		rc = sys_pwrite_full(tier->sys, tier->fd, draft->iov[0].iov_base,
				     draft->iov[0].iov_len, (off_t)(end - draft->iov[0].iov_len));
	cairn_count(tier->env, CNT_OTHER_BYTES, draft->iov[0].iov_len);
	region->tabled = rc == 0;
	region->state = rc < 0 ? REGION_RETIRED : REGION_SEALED;
	region->draft = DRAFT_NONE;
	policy_candidate(&tier->policy, number, true);
	draft->region = NO_REGION;
	return rc;
}

void seal_start(struct flash *tier, uint32_t number)
{
	struct draft *draft = &tier->drafts[tier->regions[number].draft];

	assert(draft->region == number && !draft->sealing);
	draft->sealing = true;
	draft->epoch = tier->regions[number].last_used;
	draft->tier = tier;
	draft->job.run = seal_run;
	stage_env(tier->env)->job_start(tier->env, &draft->job, number);
}
