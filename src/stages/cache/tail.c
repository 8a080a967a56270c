/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of what lies in a slot, for regions that have them: those that may be kept while nobody has
 * them open, and those in which hits are checked. Whoever finds a region that nobody had open
 * trusts no shard before it has looked at its sum once; with verify=hit each hit looks.
 */
#include <string.h>

#include "base/crc32c.h"
#include "base/hot.h"
#include "stages/cache/cache.h"

/* What `checked` says of a shard that this time of the region's has seen whole. */
static uint32_t seen(const struct cache_stage *stage)
{
	return stage->region.adoptions + 1;
}

void tail_seal(const struct cache_stage *stage, const struct cairn_part *part, uint8_t *payload)
{
	struct cache_tail *tail;

	if (part->meta_length == 0 && !stage->tails)
		return;
	tail = tail_of(payload, part->stored_length);
	memcpy(tail->meta, part->meta, part->meta_length);
	tail->crc = stage->tails ? crc32c(0, payload, part->stored_length) : 0;
	half_note(&tail->checked, stage->tails ? seen(stage) : 0);
}

static struct cache_tail *tail_in(const struct cache_stage *stage, const struct cache_view *view)
{
	if (!map_slot_ok(stage->map, view->slot, shard_bytes_needed(view->stored, 0, true)))
		return NULL;
	return tail_of(view->payload, view->stored);
}

HIT_PATH bool tail_fresh(const struct cache_stage *stage, const struct cache_view *view)
{
	const struct cache_tail *tail;

	if (!stage->tails || (stage->region.adoptions == 0 && !stage->verify_hits))
		return true;
	tail = tail_in(stage, view);
	return tail && !stage->verify_hits && half_hint(&tail->checked) == seen(stage);
}

bool tail_sound(const struct cache_stage *stage, const struct cache_view *view)
{
	return tail_fresh(stage, view) || tail_right(stage, view);
}

bool tail_right(const struct cache_stage *stage, const struct cache_view *view)
{
	struct cache_tail *tail;

	if (!stage->tails)
		return true;
	tail = tail_in(stage, view);
	if (!tail || half_hint(&tail->checked) == 0 ||
	    tail->crc != crc32c(0, view->payload, view->stored))
		return false;
	half_note(&tail->checked, seen(stage));
	return true;
}
