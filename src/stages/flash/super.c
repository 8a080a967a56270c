/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock, and the making of a store.
 *
 * Invariants, numbered:
 *  1. A store is made in this order: all of its space, an empty namespace area, the
 *     superblock. Without a superblock there is no store.
 *  2. `clean` is taken away, durably, before anything else is changed.
 *  3. The copy that was written last is written again until it is known to be there:
 *     the other one is whole.
 */
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

/*
 * The fewer regions, the worse what is given up is chosen, and the more of them are open or
 * free; the more there are, the more is flushed and read at open. A 256th of the store keeps
 * 98 % of an LRU's hits.
 */
#define REGION_SHARE 256u
#define REGION_MIN   (512u << 10)
#define REGION_MAX   (32u << 20)

uint64_t flash_super_make(struct flash *tier, struct flash_super_page *ret_page)
{
	/* Of two copies one is known to be there: who did not get through is written again. */
	tier->super.counter += tier->super_unsure ? FLASH_COPIES : 1;
	tier->super_unsure = true;
	tier->super.retired_count = tier->retired_count;
	ret_page->super = tier->super;
	memcpy(ret_page->retired, tier->retired, sizeof(ret_page->retired));
	flash_super_page_seal(ret_page);
	tier->retired_new = false;
	return flash_super_at(ret_page->super.counter % FLASH_COPIES);
}

int flash_super_write(struct flash *tier)
{
	struct flash_super_page *page = tier->sys->alloc(FLASH_PAGE, sizeof(*page)); /* O_DIRECT */
	uint64_t at;
	int rc;

	if (!page)
		return -ENOMEM;
	tier_lock(tier);
	at = flash_super_make(tier, page);
	tier_unlock(tier);
	rc = sys_pwrite_full(tier->sys, tier->fd, page, sizeof(*page), (off_t)at);
	cairn_count(tier->env, CNT_OTHER_BYTES, FLASH_PAGE);
	tier->sys->free(page);
	if (rc == 0)
		rc = tier->sys->fdatasync(tier->fd);
	tier->super_unsure = rc < 0;
	return rc;
}

/* ---- a new store ---------------------------------------------------------------------------- */

static uint64_t region_for(const struct flash *tier, uint64_t size)
{
	uint64_t region = size / REGION_SHARE / FLASH_REGION_ALIGN * FLASH_REGION_ALIGN;

	if (tier->env->values[OPT_REGION].set)
		return tier->env->values[OPT_REGION].u;
	if (region < REGION_MIN)
		region = REGION_MIN;
	if (region > REGION_MAX)
		region = REGION_MAX;
	/* Shards of a power of two fill it with their heads: without this, one fewer fits. */
	return region + FLASH_REGION_ALIGN;
}

/* How large it is to be. */
static int size_choose(struct flash *tier, uint64_t *ret_bytes, struct cairn_error *reterr)
{
	const struct cairn_value *size = &tier->env->values[OPT_SIZE];

	*ret_bytes = size->set ? size->u : tier->there_bytes;
	if (!size->set && !tier->device)
		return flash_error(reterr, -EINVAL,
				   "%s: there is no store yet: say how large it is to be, "
				   "size=200GiB for example",
				   tier->path);
	if (tier->device && *ret_bytes > tier->there_bytes)
		return flash_error(reterr, -EINVAL,
				   "size= is more than the %llu bytes of %s: leave it out to take "
				   "all of them",
				   (unsigned long long)tier->there_bytes, tier->path);
	return 0;
}

static int layout_choose(struct flash *tier, uint64_t bytes, uint32_t unit,
			 struct cairn_error *reterr)
{
	uint64_t region = region_for(tier, bytes);

	switch (flash_layout_init(&tier->layout, bytes, region, unit)) {
	case FLASH_LAYOUT_OK:
		return 0;
	case FLASH_LAYOUT_LARGE:
		if (flash_layout_init(&tier->layout, bytes, region, FLASH_UNIT_MAX) ==
		    FLASH_LAYOUT_OK)
			return 0;
		return flash_error(reterr, -EINVAL,
				   "size= is more than 16TiB: make several stores");
	case FLASH_LAYOUT_REGION:
		return flash_error(reterr, -EINVAL,
				   "region= must be a multiple of 64KiB from 64KiB to 1GiB");
	case FLASH_LAYOUT_SMALL:
		return flash_error(
			reterr, -EINVAL,
			"size= holds fewer than %u regions of %llu bytes: give more, or a "
			"smaller region=",
			FLASH_REGIONS_MIN, (unsigned long long)region);
	case FLASH_LAYOUT_UNIT:
		break;
	}
	return flash_error(reterr, -EINVAL, "%s: no layout", tier->path);
}

/* The name of the file becomes durable. */
static int folder_sync(struct flash *tier)
{
	char folder[sizeof(tier->path)];
	char *slash;
	int fd, rc;

	snprintf(folder, sizeof(folder), "%s", tier->path);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = tier->sys->openat(AT_FDCWD, slash ? folder : ".", O_RDONLY | O_DIRECTORY, 0);
	if (fd == -EACCES)
		return 0; /* not ours to look at */
	if (fd < 0)
		return fd;
	rc = tier->sys->fsync(fd);
	tier->sys->close(fd);
	return rc == -EINVAL || rc == -EROFS ? 0 : rc;
}

static int store_write(struct flash *tier)
{
	struct flash_id id;
	uint8_t *area = sys_zalloc(tier->sys, FLASH_PAGE, FLASH_PAGE);
	uint32_t bytes;
	int rc;

	if (!area)
		return -ENOMEM;
	rc = tier->sys->random(&id, sizeof(id));
	if (rc == 0) {
		flash_space_begin(area, &id, 0);
		bytes = flash_space_seal(area);
		assert(bytes <= FLASH_PAGE);
		rc = sys_pwrite_full(tier->sys, tier->fd, area, bytes,
				     (off_t)flash_space_at(&tier->layout, 0));
	}
	tier->sys->free(area);
	if (rc == 0)
		rc = tier->sys->fsync(tier->fd);
	if (rc < 0)
		return rc;
	flash_super_init(&tier->super, &id, &tier->layout, tier->sys->realtime_ns());
	tier->super.flags = FLASH_SUPER_UNASKED;
	rc = flash_super_write(tier);
	return rc < 0 || tier->device ? rc : folder_sync(tier);
}

static int store_make(struct flash *tier, struct cairn_error *reterr)
{
	uint32_t unit = tier->device ? tier->device_unit : FLASH_UNIT_MIN;
	uint64_t bytes;
	int rc = size_choose(tier, &bytes, reterr);

	if (rc == 0) /* before anything is done */
		rc = layout_choose(tier, bytes, unit, reterr);
	if (rc == 0)
		rc = flash_file_take(tier, reterr);
	if (rc == 0)
		rc = flash_file_make(tier, bytes, reterr);
	if (rc == 0 && tier->direct && !flash_file_reads(tier, tier->layout.unit))
		rc = layout_choose(tier, bytes, FLASH_UNIT_MAX, reterr);
	if (rc == 0)
		rc = store_write(tier);
	if (rc < 0 && !(reterr && reterr->code))
		flash_error(reterr, rc, "%s: could not be made: %s", tier->path, strerror(-rc));
	return rc;
}

/* ---- open ------------------------------------------------------------------------------------ */

/* What the options say of a store that is there must be true of it. */
static int options_agree(struct flash *tier, struct cairn_error *reterr)
{
	const struct cairn_value *values = tier->env->values;

	if (values[OPT_SIZE].set && values[OPT_SIZE].u != tier->super.file_bytes)
		return flash_error(reterr, -EINVAL,
				   "%s: was made with size=%llu: leave size= out, or make another "
				   "store",
				   tier->path, (unsigned long long)tier->super.file_bytes);
	if (values[OPT_REGION].set && values[OPT_REGION].u != tier->super.region_bytes)
		return flash_error(
			reterr, -EINVAL,
			"%s: was made with region=%u: leave region= out, or make another "
			"store",
			tier->path, tier->super.region_bytes);
	if (tier->direct && !flash_file_reads(tier, tier->super.unit))
		return flash_error(reterr, -EOPNOTSUPP,
				   "%s: was made for direct I/O in pieces of %u bytes, which this "
				   "device has not: use direct=no",
				   tier->path, tier->super.unit);
	return 0;
}

/* Neither copy of a superblock checks. */
static int super_lost(struct flash *tier, const struct flash_super_found *found,
		      struct cairn_error *reterr)
{
	if (!found->marked)
		return store_make(tier, reterr); /* if it may be */
	return flash_error(reterr, -EPROTO,
			   "%s: a store neither copy of whose superblock checks; nothing was "
			   "changed: `cairn fsck --repair` makes it again from the regions",
			   tier->path);
}

int flash_super_open(struct flash *tier, struct cairn_error *reterr)
{
	struct flash_super_found found;
	int rc = flash_file_open(tier, reterr);

	if (rc < 0)
		return rc;
	rc = flash_scan_super(tier->sys, tier->fd, &found);
	if (rc == -ENOENT)
		return store_make(tier, reterr);
	if (rc == -EBADMSG)
		return super_lost(tier, &found, reterr);
	if (rc == -EPROTO)
		return flash_error(reterr, rc,
				   "%s: of a format version that this library does not know; it "
				   "knows %u; nothing was changed",
				   tier->path, FLASH_FORMAT);
	if (rc < 0)
		return flash_error(reterr, rc, "%s: %s", tier->path, strerror(-rc));
	tier->super = found.super;
	tier->layout = found.layout;
	tier->retired_count = found.super.retired_count;
	memcpy(tier->retired, found.retired, sizeof(found.retired));
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		if (found.copies[copy] == FLASH_OK)
			continue;
		/* It may have been the later one, of an open that was not closed. */
		tier->super.flags &= ~FLASH_SUPER_CLEAN;
		tier->super_old = true;
		tier->super.sequence += SEQUENCE_AHEAD;
		tier->super.region_seq += REGION_SEQ_AHEAD;
	}
	rc = options_agree(tier, reterr);
	return rc < 0 ? rc : flash_file_agrees(tier, reterr);
}
