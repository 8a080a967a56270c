/* SPDX-License-Identifier: Apache-2.0 */
/* What the ios of this stage share: pins, room, time. */
#include <errno.h>

#include "base/copy.h"
#include "base/hot.h"
#include "stages/cache/cache.h"
#include "stages/cache/pins.h"
#include "stages/cache/slots.h"

#define ROOM_TRIES   16u       /* another process may take what was freed */
#define LOOK_NS	     50000000u /* under pressure others are looked at so often: do they live? */
#define PAUSE_NS     20000u
#define PAUSE_NS_MAX 2000000u

bool io_record(struct cache_stage *stage, struct cache_io *own)
{
	if (own->record == CACHE_NONE)
		own->record = pin_take(stage->map);
	return own->record != CACHE_NONE;
}

bool io_pin(struct cache_stage *stage, struct cache_io *own, const struct cache_ref *ref)
{
	struct cache_ref now = *ref;

	if (!io_record(stage, own) || !pin_entry(stage->map, own->record, &now))
		return false;
	own->entry = now.entry;
	own->life = state_life(now.state);
	return true;
}

void io_unpin(struct cache_stage *stage, struct cache_io *own)
{
	uint32_t entry = own->entry;

	if (own->record == CACHE_NONE)
		return;
	pin_give(stage->map, own->record);
	own->record = CACHE_NONE;
	own->entry = CACHE_NONE;
	/* Removed while it was pinned: the last one to let go of it sees to its memory. */
	if (entry != CACHE_NONE)
		background_reclaim(stage, entry);
}

void io_leave(struct cache_stage *stage, struct cache_io *own)
{
	uint32_t entry = own->entry, life = own->life;

	io_unpin(stage, own);
	if (entry != CACHE_NONE && reclaim_bare(stage->map, entry, life))
		background_changed(stage);
}

static void count_evicted(struct cache_stage *stage, const struct evicted *evicted)
{
	if (evicted->blocks > 0)
		cairn_count(stage->env, CC_EVICTED, evicted->blocks);
	if (evicted->fetched > 0)
		cairn_count(stage->env, CC_PREFETCH_WASTED, evicted->fetched);
	if (evicted->parents > 0)
		cairn_count(stage->env, CC_EVICTED_PARENTS, evicted->parents);
}

/* Something must go: of the dead first. */
static void look_for_dead(struct cache_stage *stage)
{
	uint64_t now_ns = stage->host->now_ns(), last_ns = word_hint(&stage->looked_ns);

	if (now_ns - last_ns < LOOK_NS || !word_cas(&stage->looked_ns, last_ns, now_ns))
		return;
	if (region_clients(&stage->region, false) > 1)
		background_kick(stage, true);
}

bool take_slot(struct cache_stage *stage, uint64_t stored, uint32_t meta, uint64_t *ret_slot)
{
	uint32_t units = slots_units(shard_bytes_needed(stored, meta, stage->tails));
	struct evicted evicted = {0};
	bool room = true, taken = false;

	if (units > stage->map->chunk_bytes / CACHE_UNIT)
		return false;
	for (uint32_t i = 0; i < ROOM_TRIES && room && !taken; i++) {
		taken = slots_take(stage->map, units, ret_slot);
		if (taken)
			break;
		look_for_dead(stage); /* first: one may have what is on its way */
		if (background_pending(stage))
			break; /* nothing goes for what only comes later */
		room = evict_for(stage->map, stage->policy, units, &evicted);
	}
	count_evicted(stage, &evicted);
	if (taken)
		background_changed(stage);
	else
		background_kick(stage, !room);
	return taken;
}

/* Room for what an entry lacked. */
static bool make_room(struct cache_stage *stage, const struct cache_key *key,
		      const struct cache_lack *lack)
{
	struct evicted evicted = {0};
	bool room;

	look_for_dead(stage);
	if (lack->place) /* both buckets of this key are full: others would go in vain */
		room = evict_in_buckets(stage->map, stage->policy, key, &evicted);
	else if (lack->units > 0 && background_pending(stage))
		room = false;
	else
		room = evict_for(stage->map, stage->policy, lack->units, &evicted);
	count_evicted(stage, &evicted);
	return room;
}

static void expire_at(struct cache_map *map, uint32_t entry, uint64_t expires_ns)
{
	word_note(&map->metas[entry].expires_ns, expires_ns);
	flags_raise(&map->entries[entry].flags, ENTRY_EXPIRES);
}

void io_expires(struct cache_stage *stage, const struct cairn_io *io, const struct cache_io *own)
{
	uint64_t known_ns;

	if (io->expires_ns == 0 || own->entry == CACHE_NONE)
		return;
	known_ns = word_hint(&stage->map->metas[own->entry].expires_ns);
	if (known_ns == 0 || io->expires_ns < known_ns)
		expire_at(stage->map, own->entry, io->expires_ns);
}

void io_parent(struct cache_stage *stage, const struct cairn_io *io, const struct cache_io *own,
	       const struct cache_key *key)
{
	struct cache_key up = cache_key_of(&io->attr.parent, key->home);
	struct cache_ref child = {own->entry, (uint64_t)own->life << 32}, parent;

	if ((up.word[0] == 0 && up.word[1] == 0) ||
	    (short_hint(&stage->map->entries[own->entry].flags) & ENTRY_PARENTED))
		return;
	parent = cached_find(stage->map, &up);
	if (parent.entry != CACHE_NONE)
		entry_set_parent(stage->map, &child, &parent);
}

static void tell(struct cache_stage *stage, const struct cairn_io *io, struct cache_io *own,
		 const struct cache_key *key)
{
	const struct cairn_block_attr *attr = &io->attr;
	struct cache_meta *meta = &stage->map->metas[own->entry];

	if (attr->ttl_ns > 0)
		expire_at(stage->map, own->entry, stage->sys->realtime_ns() + attr->ttl_ns);
	half_note(&meta->cost_us,
		  (uint32_t)(attr->cost_ns / 1000u < UINT32_MAX ? attr->cost_ns / 1000u
								: UINT32_MAX));
	short_note(&meta->depth, (uint16_t)(attr->depth < UINT16_MAX ? attr->depth : UINT16_MAX));
	byte_note(&meta->priority, (uint8_t)attr->priority);
	io_parent(stage, io, own, key);
}

bool io_entry(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own,
	      const struct cache_shape *shape)
{
	struct cache_lack lack;
	struct cache_key key;
	struct cache_ref ref;
	bool room = true, made = false;

	if (!cache_key(stage, io->ns, &io->key, &key))
		return false;
	if (!io_record(stage, own))
		return false;
	for (uint32_t i = 0; i < ROOM_TRIES && room; i++) {
		ref = cached_add(stage->map, own->record, &key, shape, &made, &lack);
		if (ref.entry != CACHE_NONE)
			break;
		room = lack.error == -ENOSPC && make_room(stage, &key, &lack);
	}
	if (ref.entry == CACHE_NONE) {
		background_kick(stage, true);
		io_unpin(stage, own);
		return false;
	}
	own->entry = ref.entry;
	own->life = state_life(ref.state);
	if (made || (io->op == CAIRN_OP_DUMP && io->attr.size > 0))
		tell(stage, io, own, &key);
	return true;
}

HIT_PATH uint64_t cache_tick(struct cache_stage *stage)
{
	return word_add(&stage->map->header->clock, 1) + 1;
}

HIT_PATH void cache_touch(struct cache_stage *stage, uint32_t entry, uint64_t now)
{
	struct cache_meta *meta = &stage->map->metas[entry];

	if (stage->policy == POLICY_GDSF)
		now = word_hint(&stage->map->header->inflation);
	if (word_hint(&meta->stamp) < now)
		word_note(&meta->stamp, now);
	half_note(&meta->hits, half_hint(&meta->hits) + 1);
	if (byte_hint(&meta->fetched)) {
		byte_note(&meta->fetched, 0);
		cairn_count(stage->env, CC_PREFETCH_USED, 1);
	}
}

bool cache_expired(const struct cache_stage *stage, uint32_t entry)
{
	uint64_t expires_ns = word_hint(&stage->map->metas[entry].expires_ns);

	return expires_ns != 0 && expires_ns <= stage->sys->realtime_ns();
}

void cache_damaged(struct cache_stage *stage, uint32_t entry, uint32_t life)
{
	struct cache_ref ref = {entry, (uint64_t)life << 32};

	entry_remove(stage->map, &ref);
	cairn_count(stage->env, CC_DAMAGED, 1);
}

void copy_to_iov(const struct iovec *iov, uint32_t iov_count, const uint8_t *from)
{
	for (uint32_t i = 0; i < iov_count; i++) {
		copy_cold(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
}

bool io_late(const struct cache_stage *stage, const struct cairn_io *io)
{
	return io->deadline_ns != UINT64_MAX && stage->host->now_ns() >= io->deadline_ns;
}

void io_pause(struct cache_stage *stage, struct cairn_io *io, struct cache_io *own)
{
	uint64_t now_ns = stage->host->now_ns();

	if (own->began_ns == 0)
		own->began_ns = now_ns;
	own->pause_ns = own->pause_ns == 0		   ? PAUSE_NS
			: own->pause_ns * 2 < PAUSE_NS_MAX ? own->pause_ns * 2
							   : PAUSE_NS_MAX;
	stage->host->resume_at(io, now_ns + own->pause_ns);
}
