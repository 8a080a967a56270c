/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks being written: a pool of them, and the arena that their heads lie in.
 *
 * Invariants, numbered:
 *  1. A partial in use is in the index (entry != INDEX_NONE), or dropped.
 *  2. claim_count counts shards that an io writes now; done_count those in the
 *     temporary file. A shard is at most one of the two.
 *  3. A dropped partial lives until its last claim is given back.
 */
#include "stages/posix/tier.h"

int partials_init(struct posix *tier)
{
	void *memory;
	int rc = sys_reserve(tier->sys, PARTIALS_MAX * sizeof(struct partial), &memory);

	if (rc < 0)
		return rc;
	tier->partials = memory;
	rc = sys_reserve(tier->sys, (size_t)ARENA_PAGES * FORMAT_PAGE, &memory);
	if (rc < 0)
		return rc;
	tier->arena = memory;
	tier->arena_map = sys_zalloc(tier->sys, 64, ARENA_PAGES / 8);
	tier->partial_free = tier->partial_oldest = tier->partial_newest = INDEX_NONE;
	return tier->arena_map ? 0 : -ENOMEM;
}

void partials_fini(struct posix *tier)
{
	if (tier->partials)
		tier->sys->munmap(tier->partials, PARTIALS_MAX * sizeof(struct partial));
	if (tier->arena)
		tier->sys->munmap(tier->arena, (size_t)ARENA_PAGES * FORMAT_PAGE);
	if (tier->arena_map)
		tier->sys->free(tier->arena_map);
	tier->partials = NULL;
	tier->arena = NULL;
	tier->arena_map = NULL;
}

/* ---- the arena: pages, next fit ------------------------------------------------ */

static bool arena_run_free(const struct posix *tier, uint32_t page, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		if (shard_test(tier->arena_map, page + i))
			return false;
	return true;
}

static bool arena_get(struct posix *tier, uint32_t pages, uint32_t *ret_page)
{
	for (uint32_t tried = 0, page = tier->arena_hint; tried < ARENA_PAGES; tried++, page++) {
		if (page + pages > ARENA_PAGES)
			page = 0;
		if (!arena_run_free(tier, page, pages))
			continue;
		for (uint32_t i = 0; i < pages; i++)
			shard_set(tier->arena_map, page + i);
		tier->arena_hint = page + pages;
		*ret_page = page;
		return true;
	}
	return false;
}

static void arena_put(struct posix *tier, uint32_t page, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		shard_clear(tier->arena_map, page + i);
	if (page < tier->arena_hint)
		tier->arena_hint = page; /* pages that were touched are used again first */
}

/* ---- the pool ------------------------------------------------------------------------ */

struct partial *partial_at(struct posix *tier, uint32_t number)
{
	assert(number < tier->partial_end && tier->partials[number].in_use);
	return &tier->partials[number];
}

uint32_t partial_id(const struct posix *tier, const struct partial *partial)
{
	return (uint32_t)(partial - tier->partials);
}

static void order_del(struct posix *tier, struct partial *partial)
{
	if (partial->older == INDEX_NONE)
		tier->partial_oldest = partial->newer;
	else
		tier->partials[partial->older].newer = partial->newer;
	if (partial->newer == INDEX_NONE)
		tier->partial_newest = partial->older;
	else
		tier->partials[partial->newer].older = partial->older;
}

static void order_add(struct posix *tier, struct partial *partial)
{
	uint32_t id = partial_id(tier, partial);

	partial->older = tier->partial_newest;
	partial->newer = INDEX_NONE;
	if (partial->older == INDEX_NONE)
		tier->partial_oldest = id;
	else
		tier->partials[partial->older].newer = id;
	tier->partial_newest = id;
}

uint32_t partial_new(struct posix *tier, const struct block_id *id, const struct geometry *geo)
{
	uint32_t pages = geo->head_bytes / FORMAT_PAGE, page, number = tier->partial_free;
	struct partial *partial;

	if (number == INDEX_NONE && tier->partial_end == PARTIALS_MAX)
		return INDEX_NONE;
	if (!arena_get(tier, pages, &page))
		return INDEX_NONE;
	if (number == INDEX_NONE)
		number = tier->partial_end++;
	else
		tier->partial_free = tier->partials[number].newer;
	partial = &tier->partials[number];
	assert(!partial->in_use);
	memset(partial, 0, sizeof(*partial));
	partial->in_use = true;
	partial->id = *id;
	partial->geo = *geo;
	partial->entry = INDEX_NONE;
	partial->number = ++tier->incarnation;
	partial->image_page = page;
	partial->image_pages = pages;
	partial->image = tier->arena + (size_t)page * FORMAT_PAGE;
	memset(partial->image, 0, geo->head_bytes);
	order_add(tier, partial);
	return number;
}

void partial_touch(struct posix *tier, struct partial *partial)
{
	order_del(tier, partial);
	order_add(tier, partial);
}

void partial_free(struct posix *tier, struct partial *partial)
{
	assert(partial->in_use && partial->entry == INDEX_NONE && !partial->claim_count);
	order_del(tier, partial);
	arena_put(tier, partial->image_page, partial->image_pages);
	room_give(tier, partial->reserved);
	partial->in_use = false;
	partial->newer = tier->partial_free;
	tier->partial_free = partial_id(tier, partial);
}

bool partial_drop(struct posix *tier, struct partial *partial)
{
	struct index_entry *entry = index_at(tier->index, partial->entry);

	assert(entry->state == INDEX_PARTIAL && !partial->publishing);
	cairn_count(tier->env, CNT_PARTIALS_DROPPED, 1);
	side_del(tier, entry);
	index_remove(tier->index, entry);
	partial->entry = INDEX_NONE;
	pio_wake_key(tier, &partial->id.key);
	return partial->claim_count == 0;
}

void partial_stays(struct posix *tier, const struct partial *partial)
{
	tier->used += partial->reserved;
	tier->dirs[name_dir_of(&partial->id.key, tier->dirs_log2)].leftover = true;
}

struct partial *partial_idle(struct posix *tier)
{
	uint32_t number = tier->partial_oldest;

	while (number != INDEX_NONE) {
		struct partial *partial = &tier->partials[number];

		if (!partial->claim_count && !partial->publishing && partial->entry != INDEX_NONE)
			return partial;
		number = partial->newer;
	}
	return NULL;
}

void partials_unlink(struct posix *tier)
{
	for (uint32_t i = 0; i < tier->partial_end; i++) {
		struct partial *partial = &tier->partials[i];
		char path[NAME_MAX_BYTES];
		int rc;

		if (!partial->in_use)
			continue;
		assert(!partial->claim_count);
		name_temp(&partial->id, tier->dirs_log2, partial->number, path);
		if (partial->entry != INDEX_NONE)
			partial_drop(tier, partial);
		rc = tier->sys->unlinkat(tier->blocks_fd, path, 0);
		if (rc < 0 && rc != -ENOENT)
			partial_stays(tier, partial);
		partial_free(tier, partial);
	}
}
