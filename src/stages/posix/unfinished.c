/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What blocks being written have already, for a host that has the rest elsewhere
 * (CAIRN_IO_PARTIAL). shared=no.
 *
 * Invariants, numbered:
 *  1. A shard that is done is never written again, and its place in the image is
 *     not either: entry and table are copied under the mutex, the payload is read
 *     from the temporary file without it.
 *  2. A temporary name is of one partial alone: a file that opens under it has the
 *     payload, whatever becomes of the partial meanwhile.
 */
#include "stages/posix/tier.h"

/* The partial of p->id; NULL. [m] */
static struct partial *find(struct posix *tier, const struct block_id *id)
{
	struct index_key key = {id->key, id->space, id->generation};
	struct index_entry *entry = index_find(tier->index, &key);

	if (!entry || entry->state != INDEX_PARTIAL)
		return NULL;
	return partial_at(tier, entry->tier);
}

/* The one that is being read. [m] */
static struct partial *find_mine(struct pio *p)
{
	struct partial *partial = find(p->tier, &p->id);

	return partial && partial->number == p->number ? partial : NULL;
}

static void all_in(const struct index_entry *entry, struct cairn_shards *ret_shards)
{
	ret_shards->shard_count = entry->shard_count;
	ret_shards->shard_bytes = entry->shard_bytes;
	ret_shards->last_bytes = entry->last_bytes;
	for (uint32_t shard = 0; shard < entry->shard_count; shard++)
		shard_set(ret_shards->map, shard);
}

int unfinished_shards(struct posix *tier, const struct space *space, const struct cairn_key *key,
		      struct cairn_shards *ret_shards)
{
	struct index_entry *whole;
	struct partial *partial;
	struct block_id id = {.key = *key, .space = space->id};

	memset(ret_shards, 0, sizeof(*ret_shards));
	tier_lock(tier);
	id.generation = space->generation;
	whole = entry_find(tier, &id);
	partial = whole ? NULL : find(tier, &id);
	if (whole) {
		all_in(whole, ret_shards);
	} else if (partial) {
		ret_shards->shard_count = partial->geo.shard_count;
		ret_shards->shard_bytes = partial->geo.shard_bytes;
		ret_shards->last_bytes = partial->geo.last_bytes;
		memcpy(ret_shards->map, partial->done, sizeof(partial->done));
	}
	tier_unlock(tier);
	return ret_shards->shard_count ? 0 : -ENOENT;
}

bool unfinished_find(struct pio *p)
{
	struct partial *partial = find(p->tier, &p->id);
	const struct geometry *geo;

	if (!partial || partial->geo.shard_count != p->io->shard_count ||
	    partial->geo.shard_bytes != p->io->shard_bytes)
		return false;
	geo = &partial->geo;
	for (uint32_t i = 0; i < p->io->part_count; i++) {
		struct cairn_part *part = &p->io->parts[i];

		if (part->status == CAIRN_PENDING && part->shard < geo->shard_count &&
		    (!shard_test(partial->done, part->shard) ||
		     geometry_raw(geo, part->shard) != part->raw_length))
			part->status = -ENOENT;
	}
	partial_touch(p->tier, partial);
	p->geo = *geo;
	p->geo_known = true;
	p->all_raw = false;
	p->number = partial->number;
	name_temp(&p->id, p->tier->dirs_log2, p->number, p->path);
	return true;
}

bool unfinished_head(struct pio *p, uint64_t mask)
{
	const struct geometry *geo = &p->geo;
	struct partial *partial;

	tier_lock(p->tier);
	partial = find_mine(p);
	for (uint32_t i = 0; partial && i < p->io->part_count; i++) {
		uint32_t shard = p->io->parts[i].shard, at;

		if (!(mask >> i & 1))
			continue;
		assert(shard_test(partial->done, shard));
		at = geometry_entry_at(geo, shard);
		memcpy(load_head_at(p, at), partial->image + at, sizeof(struct block_entry));
		at = geometry_table_at(geo, shard);
		memcpy(load_head_at(p, at), partial->image + at, geo->pieces * sizeof(uint32_t));
	}
	tier_unlock(p->tier);
	return partial;
}

/* ---- what goes -------------------------------------------------------------------------- */

static void unlinked(struct pio *p)
{
	struct posix *tier = p->tier;
	struct partial *partial = &tier->partials[p->partial];
	int64_t result = p->slots[0].ops[0].result;

	tier_lock(tier);
	if (result < 0 && result != -ENOENT)
		partial_stays(tier, partial);
	tier_dir_statted(p, 0);
	partial_free(tier, partial);
	tier_unlock(tier);
	p->partial = INDEX_NONE;
	p->after(p);
}

/* [m] taken, given back. */
static void drop(struct pio *p, struct partial *partial)
{
	bool unlink = partial_drop(p->tier, partial);

	p->partial = unlink ? partial_id(p->tier, partial) : INDEX_NONE;
	tier_unlock(p->tier);
	if (!unlink) { /* its last writer does that */
		p->after(p);
		return;
	}
	pio_chain(p, 0);
	pio_unlink(p, 0, p->path);
	pio_stat_dir(p, 0);
	pio_go(p, 1, unlinked);
}

void unfinished_drop(struct pio *p, void (*after)(struct pio *))
{
	struct partial *partial;

	p->after = after;
	tier_lock(p->tier);
	partial = find_mine(p);
	if (partial && !partial->publishing) {
		drop(p, partial);
		return;
	}
	tier_unlock(p->tier);
	after(p);
}

void unfinished_lost(struct pio *p, void (*step)(struct pio *))
{
	struct partial *partial;

	p->after = step;
	p->unfinished = false;
	p->geo_known = false;
	tier_lock(p->tier);
	partial = find_mine(p);
	if (partial && !partial->publishing) {
		drop(p, partial);
		return;
	}
	if (partial)
		pio_wait_key(p, step);
	tier_unlock(p->tier);
	if (!partial)
		step(p);
}
