/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/tier_check.h"

#include "base/wrong.h"
#include "stages/flash/tier.h"

#define NONE UINT32_MAX

/* What the table says of a region. */
struct sums {
	uint32_t live, held;
};

struct check {
	struct flash *tier;
	struct wrong why;
	bool idle;
	struct sums *sums;
	uint8_t *numbers; /* a bit for each record of each region: a place has it */
	uint64_t live;
	uint32_t whole, partial;
};

/* ---- the table's places ----------------------------------------------------------- */

static bool check_place(struct check *check, uint32_t id, const struct table_place *place,
			bool held)
{
	struct flash *tier = check->tier;
	uint32_t number = flash_region_of(&tier->layout, place->unit);
	const struct region *region;
	size_t bit;

	if (number >= tier->layout.region_count)
		return wrong(&check->why, "entry %u lies at unit %u, in no region", id,
			     place->unit);
	region = &tier->regions[number];
	if (region->state == REGION_BLANK || region->state == REGION_FREE)
		return wrong(&check->why, "entry %u lies in region %u, which is free", id, number);
	if (place->unit < flash_first_unit(&tier->layout, number) ||
	    place->unit + place->length > region->at || place->number >= region->records)
		return wrong(&check->why,
			     "entry %u lies at %u + %u, record %u of region %u: has %u up to %u",
			     id, place->unit, place->length, place->number, number, region->records,
			     region->at);
	if (*mark_at(tier, number, place->number) == FLASH_MARK_DEAD)
		return wrong(&check->why,
			     "record %u of region %u is marked dead, and entry %u has it",
			     place->number, number, id);
	bit = (size_t)number * tier->layout.records_max + place->number;
	if (check->numbers[bit / 8] >> (bit % 8) & 1)
		return wrong(&check->why, "record %u of region %u is had twice", place->number,
			     number);
	check->numbers[bit / 8] |= (uint8_t)(1u << (bit % 8));
	check->sums[number].live += place->length;
	check->sums[number].held += held ? place->length : 0;
	check->live += place->length;
	return true;
}

static bool check_partial(const struct check *check, const struct table_block *block, uint32_t id,
			  uint32_t present)
{
	uint32_t number = partial_find(check->tier, block->fingerprint);
	const struct partial *partial;
	uint32_t claimed = 0;

	if (number == NONE)
		return wrong(&check->why, "entry %u is unfinished, and nobody knows", id);
	partial = &check->tier->partials[number];
	for (uint32_t i = 0; i < SHARD_WORDS; i++)
		claimed += (uint32_t)__builtin_popcountll(partial->claimed[i]);
	if (partial->id != id || partial->shard_count != block->geometry.shard_count)
		return wrong(&check->why, "unfinished block %u is of entry %u, not %u", number,
			     partial->id, id);
	if (partial->done_count != present || partial->claim_count != claimed)
		return wrong(&check->why,
			     "entry %u: %u shards done and %u there, %u and %u claimed", id,
			     partial->done_count, present, partial->claim_count, claimed);
	if (check->idle && claimed)
		return wrong(&check->why, "shards of entry %u are claimed for ever", id);
	if (!claimed && !present)
		return wrong(&check->why, "entry %u has no shard, and nobody writes one", id);
	return true;
}

static bool check_block(struct check *check, uint32_t id)
{
	const struct flash *tier = check->tier;
	struct table_block block;
	uint32_t present = 0;

	table_look(tier->table, id, &block);
	for (uint32_t i = 0; i < block.geometry.shard_count; i++) {
		struct table_place place;

		if (!table_shard(tier->table, id, i, &place))
			continue;
		present++;
		if (!check_place(check, id, &place, block.holds > 0))
			return false;
	}
	if ((uint16_t)(tier->policy.epoch - block.epoch) > UINT16_MAX / 2)
		return wrong(&check->why, "entry %u was used in epoch %u, and now is %u", id,
			     block.epoch, tier->policy.epoch);
	if (block.state == TABLE_WHOLE) {
		check->whole++;
		return true;
	}
	check->partial++;
	return check_partial(check, &block, id, present);
}

static bool check_blocks(struct check *check)
{
	struct flash *tier = check->tier;
	uint32_t id;

	for (id = table_next(tier->table, 0); id != TABLE_NONE;
	     id = table_next(tier->table, id + 1))
		if (!check_block(check, id))
			return false;
	if (check->live != tier->live_units)
		return wrong(&check->why, "%llu units are live, counted %llu",
			     (unsigned long long)check->live, (unsigned long long)tier->live_units);
	return true;
}

/* ---- blocks being written ------------------------------------------------------------- */

static bool check_partials(const struct check *check)
{
	const struct flash *tier = check->tier;
	uint32_t used = 0, listed = 0, newest = NONE;

	for (uint32_t i = 0; i < tier->partial_end; i++)
		used += tier->partials[i].in_use;
	for (uint32_t at = tier->partial_oldest; at != NONE; at = tier->partials[at].newer) {
		if (listed++ == used || !tier->partials[at].in_use ||
		    tier->partials[at].older != newest)
			return wrong(&check->why, "the order of unfinished blocks is broken at %u",
				     at);
		newest = at;
	}
	if (listed != used || newest != tier->partial_newest || used != check->partial)
		return wrong(&check->why, "%u unfinished blocks, %u in order, %u in the table",
			     used, listed, check->partial);
	return true;
}

/* ---- regions ------------------------------------------------------------------------------ */

static bool check_policy(const struct check *check, uint32_t number)
{
	const struct flash *tier = check->tier;
	const struct policy_region *p = &tier->policy_regions[number];
	const struct region *region = &tier->regions[number];
	bool may = region->state == REGION_SEALED || region->state == REGION_RETIRED;
	uint64_t units = 0;

	for (uint32_t i = 0; i < POLICY_BINS; i++)
		units += p->units[i];
	if (p->live != region->live || units != region->live)
		return wrong(&check->why, "region %u has %u units, the policy %u, its bins %llu",
			     number, region->live, p->live, (unsigned long long)units);
	if (p->held != check->sums[number].held)
		return wrong(&check->why, "region %u holds %u units, the policy knows of %u",
			     number, check->sums[number].held, p->held);
	if (p->candidate && region->kept)
		return wrong(&check->why, "region %u may be a victim, and is kept", number);
	if (p->candidate && !may)
		return wrong(&check->why, "region %u may be a victim in state %u", number,
			     region->state);
	return true;
}

static bool check_draft(const struct check *check, uint32_t number)
{
	const struct flash *tier = check->tier;
	const struct region *region = &tier->regions[number];
	bool has = region->state == REGION_OPEN || region->state == REGION_SEALING;

	if (!has)
		return region->draft == DRAFT_NONE
			       ? true
			       : wrong(&check->why, "region %u has a draft in state %u", number,
				       region->state);
	if (region->draft >= DRAFTS || tier->drafts[region->draft].region != number)
		return wrong(&check->why, "region %u has no draft", number);
	if (tier->drafts[region->draft].sealing !=
	    (region->state == REGION_SEALING && !region->writers))
		return wrong(&check->why, "region %u in state %u has %u writers, and its draft %s",
			     number, region->state, region->writers,
			     tier->drafts[region->draft].sealing ? "is sealing" : "waits");
	return true;
}

/* What a use has not given out yet has no mark, of whatever use. */
static bool check_marks(const struct check *check, uint32_t number)
{
	struct flash *tier = check->tier;
	const struct region *region = &tier->regions[number];

	if (region->records > region->marked || region->marked > tier->layout.records_max)
		return wrong(&check->why, "region %u gave out %u numbers, counted %u", number,
			     region->records, region->marked);
	if (region->state == REGION_BLANK || region->state == REGION_RETIRED)
		return true;
	for (uint32_t i = region->records; i < region->marked; i++)
		if (*mark_at(tier, number, i) != FLASH_MARK_NONE)
			return wrong(&check->why, "region %u has %u records, and number %u a mark",
				     number, region->records, i);
	return true;
}

static bool check_region(const struct check *check, uint32_t number)
{
	const struct flash *tier = check->tier;
	const struct region *region = &tier->regions[number];
	bool empty = region->state == REGION_FREE || region->state == REGION_BLANK;

	if (region->live != check->sums[number].live)
		return wrong(&check->why, "region %u has %u units, counted %u", number,
			     check->sums[number].live, region->live);
	if (empty && (region->live || region->readers || region->writers))
		return wrong(&check->why, "region %u is empty and in use", number);
	if (region->writers && region->state != REGION_OPEN && region->state != REGION_SEALING)
		return wrong(&check->why, "region %u is written to in state %u", number,
			     region->state);
	if (check->idle && (region->readers || region->writers))
		return wrong(&check->why, "region %u has %u readers and %u writers for ever",
			     number, region->readers, region->writers);
	if (check->idle && (region->state == REGION_SEALING || region->state == REGION_RECLAIM))
		return wrong(&check->why, "region %u is in state %u for ever", number,
			     region->state);
	if ((region->state == REGION_OPEN) !=
	    (number == tier->open_region[0] || number == tier->open_region[1]))
		return wrong(&check->why, "region %u is open, or is not: %u", number,
			     region->state);
	if (region->seq > tier->region_seq)
		return wrong(&check->why, "region %u has use %llu, the last is %llu", number,
			     (unsigned long long)region->seq, (unsigned long long)tier->region_seq);
	return check_draft(check, number) && check_policy(check, number) &&
	       check_marks(check, number);
}

static bool check_regions(const struct check *check)
{
	const struct flash *tier = check->tier;
	uint32_t free_count = 0, drafts = 0;

	for (uint32_t i = 0; i < tier->layout.region_count; i++) {
		if (!check_region(check, i))
			return false;
		free_count += tier->regions[i].state == REGION_FREE;
		drafts += tier->regions[i].draft != DRAFT_NONE;
	}
	if (free_count != tier->free_count)
		return wrong(&check->why, "%u regions are free, counted %u", free_count,
			     tier->free_count);
	for (uint32_t i = 0; i < DRAFTS; i++)
		drafts -= tier->drafts[i].region != NONE;
	return drafts ? wrong(&check->why, "drafts are of no region") : true;
}

/* ---- spans and waits ----------------------------------------------------------------------------
 */

static bool check_spans(const struct check *check)
{
	const struct flash *tier = check->tier;
	uint32_t idle = 0, pending = 0, writing = 0;

	for (const struct span *span = tier->span_free; span && idle <= SPANS; span = span->next)
		idle++;
	for (const struct span *span = tier->span_pending; span && pending <= SPANS;
	     span = span->next) {
		if (!span->closed || span->filled < span->members || span->writing)
			return wrong(&check->why, "a span waits to be written, and cannot be");
		pending++;
	}
	for (uint32_t i = 0; i < SPANS; i++)
		writing += tier->spans[i].writing && !tier->spans[i].over;
	if (writing != tier->writes)
		return wrong(&check->why, "%u writes are under way, counted %u", writing,
			     tier->writes);
	/* How many may be is looked at when one begins or ends: it may have risen since. */
	if (pending && !tier->writes)
		return wrong(&check->why, "%u spans wait, and none is written", pending);
	if (check->idle && (idle != SPANS || pending || writing || tier->span_open))
		return wrong(&check->why, "only %u of %u spans are free", idle, SPANS);
	return true;
}

static bool check_waits(const struct check *check)
{
	const struct flash *tier = check->tier;

	if (!check->idle)
		return true;
	for (uint32_t i = 0; i < WAIT_BUCKETS; i++)
		if (tier->wait_key[i])
			return wrong(&check->why, "ios wait for a key for ever");
	if (tier->wait_room || tier->wait_span)
		return wrong(&check->why, "ios wait for room for ever");
	if (tier->flushing || tier->flush_batch || tier->flush_next)
		return wrong(&check->why, "ios wait for a flush for ever");
	return true;
}

static bool check_all(struct check *check)
{
	struct flash *tier = check->tier;

	return table_check(tier->table, check->why.text, check->why.bytes) && check_blocks(check) &&
	       check_partials(check) && check_regions(check) && check_spans(check) &&
	       check_waits(check);
}

bool flash_tier_check(struct flash *tier, bool idle, char *why, size_t why_bytes)
{
	const struct flash_layout *layout = &tier->layout;
	struct check check = {.tier = tier, .why = {why, why_bytes}, .idle = idle};
	size_t records = (size_t)layout->region_count * layout->records_max;
	bool good;

	check.sums = sys_zalloc(tier->sys, 16, layout->region_count * sizeof(*check.sums));
	check.numbers = sys_zalloc(tier->sys, 16, records / 8 + 1);
	assert(check.sums && check.numbers);
	tier_lock(tier);
	good = check_all(&check);
	tier_unlock(tier);
	tier->sys->free(check.sums);
	tier->sys->free(check.numbers);
	return good;
}
