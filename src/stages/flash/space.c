/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: all of them in one area of the file, in two copies written in turn.
 *
 * Invariants, numbered:
 *  1. A description has one id, and an id one description, for ever.
 *  2. What bind() and clear() tell is in the file: a crash leaves the area as it
 *     was, or as it is then. Once it is flushed the other copy says the same, or the
 *     loss of one could bring back what was cleared.
 *  3. Records of another generation than the namespace's are dead, without a mark.
 */
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

/* ---- reading --------------------------------------------------------------------------- */

static struct space *space_new(struct flash *tier, uint32_t id, const void *desc,
			       uint32_t desc_length)
{
	struct space *space = sys_zalloc(tier->sys, 16, sizeof(*space) + desc_length);

	if (!space)
		return NULL;
	space->id = id;
	space->desc_length = desc_length;
	memcpy(space->desc, desc, desc_length);
	return space;
}

static int spaces_take(struct flash *tier, const void *area)
{
	struct flash_space_entry entry;
	const void *desc;
	uint32_t at = 0;

	while (flash_space_next(area, &at, &entry, &desc)) {
		struct space *space;

		if (entry.id >= FLASH_SPACES_MAX)
			return -EBADMSG;
		space = space_new(tier, entry.id, desc, entry.desc_length);
		if (!space)
			return -ENOMEM;
		space->generation = entry.generation;
		space->shard_count = entry.shard_count;
		space->shard_bytes = entry.shard_bytes;
		tier->spaces[entry.id] = space;
		tier->space_end = entry.id + 1;
	}
	return 0;
}

int spaces_read(struct flash *tier, struct cairn_error *reterr)
{
	struct flash_super_found super = {.super = tier->super, .layout = tier->layout};
	struct flash_scanner scanner = {0};
	struct flash_spaces_found found = {0};
	void *memory;
	int rc = sys_reserve(tier->sys, FLASH_SPACES_MAX * sizeof(*tier->spaces), &memory);

	if (rc < 0)
		return rc;
	tier->spaces = memory;
	rc = flash_scanner_init(&scanner, tier->sys, tier->fd, &super);
	if (rc == 0)
		rc = flash_scan_spaces(&scanner, &found);
	if (rc == 0)
		rc = spaces_take(tier, found.area);
	tier->space_counter = found.counter;
	tier->space_single = found.single;
	if (found.area)
		tier->sys->free(found.area);
	flash_scanner_fini(&scanner);
	if (rc == -ENOMEM)
		return rc;
	if (rc < 0)
		return flash_error(
			reterr, -EPROTO,
			"%s: neither copy of the namespaces checks: no block can be told "
			"from another without them; nothing was changed",
			tier->path);
	return 0;
}

void flash_spaces_free(struct flash *tier)
{
	if (!tier->spaces)
		return;
	for (uint32_t i = 0; i < tier->space_end; i++)
		if (tier->spaces[i])
			tier->sys->free(tier->spaces[i]);
	tier->sys->munmap(tier->spaces, FLASH_SPACES_MAX * sizeof(*tier->spaces));
	tier->spaces = NULL;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* All of them, and @more; @cleared as it will be. Both may be NULL. [space_lock] */
static int area_make(struct flash *tier, void *area, uint64_t counter, const struct space *more,
		     const struct space *cleared)
{
	flash_space_begin(area, &tier->super.id, counter);
	for (uint32_t i = 0; i <= tier->space_end; i++) {
		const struct space *space = i < tier->space_end ? tier->spaces[i] : more;
		struct flash_space_entry entry;

		if (!space)
			continue;
		entry = (struct flash_space_entry){
			.id = space->id,
			.generation = space->generation + (space == cleared ? 1 : 0),
			.desc_length = space->desc_length,
			.shard_count = space->shard_count,
			.shard_bytes = space->shard_bytes,
		};
		if (!flash_space_add(area, tier->layout.space_bytes, &entry, space->desc))
			return -ENOSPC;
	}
	return 0;
}

/* The area, made, into the copy that is its turn. */
static int area_put(struct flash *tier, uint8_t *area, uint64_t counter)
{
	struct flash_space_head *head = (struct flash_space_head *)(void *)area;
	uint32_t bytes;

	head->counter = counter;
	bytes = flash_space_seal(area);
	cairn_count(tier->env, CNT_OTHER_BYTES, bytes);
	return sys_pwrite_full(
		tier->sys, tier->fd, area, bytes,
		(off_t)flash_space_at(&tier->layout, (uint32_t)(counter % FLASH_COPIES)));
}

/*
 * One at a time, without the tier's mutex: nobody else waits for this write. A
 * copy is written only while the other one is flushed, else a power cut could
 * tear both. [space_lock]
 */
static int area_write(struct flash *tier, const struct space *more, const struct space *cleared,
		      bool flush)
{
	uint8_t *area = sys_zalloc(tier->sys, FLASH_PAGE, tier->layout.space_bytes);
	uint64_t counter = tier->space_counter + (tier->space_unflushed ? FLASH_COPIES : 1);
	int rc;

	if (!area)
		return -ENOMEM;
	rc = area_make(tier, area, counter, more, cleared);
	if (rc == 0)
		rc = area_put(tier, area, counter);
	if (rc == 0 && flush)
		rc = tier->sys->fdatasync(tier->fd);
	if (rc == 0) {
		tier->space_counter = counter;
		tier->space_unflushed = true;
		tier->space_single = true;
	}
	/* That it is there once is enough for the answer: this is for the loss of a copy. */
	if (rc == 0 && flush && area_put(tier, area, counter + 1) == 0) {
		tier->space_counter++;
		tier->space_single = false;
	} else if (rc == 0 && flush) {
		tier->space_unflushed = false;
	}
	tier->sys->free(area);
	return rc;
}

int flash_spaces_settle(struct flash *tier)
{
	int rc = 0;

	pthread_mutex_lock(&tier->space_lock);
	if (tier->space_single) {
		rc = tier->sys->fdatasync(tier->fd);
		tier->space_unflushed = rc < 0;
		if (rc == 0)
			rc = area_write(tier, NULL, NULL, false);
		tier->space_single = rc < 0;
	}
	pthread_mutex_unlock(&tier->space_lock);
	return rc;
}

/* Those that are there stay as they are: looked through without a lock. */
static struct space *space_find(struct flash *tier, const struct cairn_ns_view *ns)
{
	uint32_t end;

	tier_lock(tier);
	end = tier->space_end;
	tier_unlock(tier);
	for (uint32_t i = 0; i < end; i++) {
		struct space *space = tier->spaces[i];

		if (space && space->desc_length == ns->desc_length &&
		    memcmp(space->desc, ns->desc, ns->desc_length) == 0)
			return space;
	}
	return NULL;
}

/* [space_lock] */
static int space_make(struct flash *tier, const struct cairn_ns_view *ns, struct space **ret_space)
{
	struct space *space;
	int rc;

	if (tier->space_end == FLASH_SPACES_MAX)
		return -ENOSPC;
	space = space_new(tier, tier->space_end, ns->desc, (uint32_t)ns->desc_length);
	if (!space)
		return -ENOMEM;
	space->shard_count = ns->shard_count;
	space->shard_bytes = ns->shard_bytes;
	rc = area_write(tier, space, NULL, tier->sync != SYNC_NONE);
	if (rc < 0) {
		tier->sys->free(space);
		return rc;
	}
	tier_lock(tier);
	tier->spaces[tier->space_end++] = space;
	tier_unlock(tier);
	*ret_space = space;
	return 0;
}

/* A write would hang, and its caller with it. */
static bool fenced(struct flash *tier)
{
	bool fenced;

	tier_lock(tier);
	fenced = tier->fenced;
	tier_unlock(tier);
	return fenced;
}

int flash_space_bind(struct flash *tier, const struct cairn_ns_view *ns, struct space **ret_space,
		     struct cairn_error *reterr)
{
	struct space *space = space_find(tier, ns);
	int rc = 0;

	if (space) { /* it does not wait behind a write that hangs */
		*ret_space = space;
		return 0;
	}
	pthread_mutex_lock(&tier->space_lock);
	space = space_find(tier, ns);
	if (!space)
		rc = fenced(tier) ? -ETIMEDOUT : space_make(tier, ns, &space);
	pthread_mutex_unlock(&tier->space_lock);
	if (rc == -ETIMEDOUT)
		return flash_error(reterr, -EIO,
				   "%s: the device does not answer: a namespace that is new to it "
				   "waits until it does",
				   tier->path);
	if (rc == -ENOSPC)
		return flash_error(reterr, rc,
				   "%s: no room for one more namespace beside %u: use a larger "
				   "store, or fewer tenants and salts",
				   tier->path, tier->space_end);
	if (rc < 0)
		return flash_error(reterr, fio_errno(rc),
				   "%s: the namespace could not be written: "
				   "%s",
				   tier->path, strerror(-rc));
	*ret_space = space;
	return 0;
}

int flash_space_clear(struct flash *tier, struct space *space, uint32_t durability)
{
	int rc;

	if (durability == CAIRN_DURABLE && tier->sync == SYNC_NONE)
		return -EOPNOTSUPP;
	if (fenced(tier))
		return -EIO;
	pthread_mutex_lock(&tier->space_lock);
	rc = area_write(tier, NULL, space, durability == CAIRN_DURABLE || tier->sync == SYNC_EACH);
	if (rc == 0) {
		tier_lock(tier);
		space->generation++;
		tier->blocks -= space->blocks;
		space->blocks = 0;
		flash_gauges(tier);
		tier_unlock(tier);
	} else { /* what failed may be in the file all the same: it says again what is so */
		area_write(tier, NULL, NULL, tier->sync != SYNC_NONE);
	}
	pthread_mutex_unlock(&tier->space_lock);
	if (rc == 0)
		cairn_count(tier->env, CNT_CLEARS, 1);
	return fio_errno(rc);
}
