/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: ns/<id> has the whole description, ns/<id>.g<n> says that the
 * generation is n or higher.
 *
 * Invariants, numbered:
 *  1. Ids are taken in order, by a link that fails when there is one: whoever
 *     takes an id has seen every description below it. So two ids never have
 *     the same description, whoever writes.
 *  2. Ids are never used again, not even those of damaged files. Nor those of
 *     lost ones: an id below one that is known, and one that a marker or a block
 *     names, is looked at again and never taken. Else the blocks under it would
 *     be another namespace's, or come back from before a clear.
 *  3. The generation is the highest marker, or that of a block when the marker
 *     was lost, which is then made again (shared=no). Under shared=yes no marker is ever
 *     taken away, so that one probe for the next one tells of a clear; else
 *     the one before goes when the next is durable.
 */
#include "stages/posix/tier.h"

#include <stdio.h>

#include "base/crc32c.h"

/* ---- reading ------------------------------------------------------------------------ */

static int space_read(const struct sys *sys, int space_fd, uint32_t id, struct space **ret_space)
{
	uint8_t data[sizeof(struct space_head) + SPACE_DESC_BYTES_MAX + 1];
	struct iovec iov = {data, sizeof(data)};
	char name[NAME_SPACE_BYTES];
	struct space_head head;
	struct space *space;
	ssize_t got;
	int fd;

	name_space(id, name);
	fd = sys->openat(space_fd, name, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	got = sys->preadv(fd, &iov, 1, 0);
	sys->close(fd);
	if (got < 0)
		return (int)got;
	if (space_decode(data, (size_t)got, id) != HEAD_OK) {
		*ret_space = sys_zalloc(sys, 16, sizeof(**ret_space));
		if (!*ret_space)
			return -ENOMEM;
		(*ret_space)->id = id;
		return 0;
	}
	memcpy(&head, data, sizeof(head));
	space = sys_zalloc(sys, 16, sizeof(*space) + head.desc_length);
	if (!space)
		return -ENOMEM;
	space->id = id;
	space->readable = true;
	space->desc_length = head.desc_length;
	memcpy(space->desc, data + sizeof(head), head.desc_length);
	space->fixed = head.shard_count && geometry_init(&space->geo, head.shard_count,
							 head.shard_bytes, head.shard_bytes);
	*ret_space = space;
	return 0;
}

struct space_walk {
	const struct sys *sys;
	int space_fd;
	struct space **spaces;
	uint32_t *end;
	uint64_t *burnt; /* NULL: not asked for */
};

static int space_named(void *context, const char *name)
{
	struct space_walk *walk = context;
	uint32_t id, generation;
	int rc = 0;

	if (name_parse_space(name, &id, &generation) != NAME_SPACE || id >= SPACES_MAX)
		return 0;
	if (!walk->spaces[id])
		rc = space_read(walk->sys, walk->space_fd, id, &walk->spaces[id]);
	if (rc == 0 && id >= *walk->end)
		*walk->end = id + 1;
	return rc;
}

static int generation_named(void *context, const char *name)
{
	struct space_walk *walk = context;
	uint32_t id, generation;

	if (name_parse_space(name, &id, &generation) != NAME_GENERATION || id >= SPACES_MAX)
		return 0;
	if (walk->burnt)
		walk->burnt[id / 64] |= 1ull << (id % 64);
	if (walk->spaces[id] && walk->spaces[id]->generation < generation)
		walk->spaces[id]->generation = generation;
	return 0;
}

int spaces_load(const struct sys *sys, int space_fd, struct space **spaces, uint32_t *ret_end,
		uint64_t *burnt)
{
	struct space_walk walk = {sys, space_fd, spaces, ret_end, burnt};
	int fd, rc;

	*ret_end = 0;
	for (int turn = 0; turn < 2; turn++) {
		fd = sys_open_dir(sys, space_fd, ".");
		if (fd < 0)
			return fd;
		rc = sys_walk_dir(sys, fd, turn ? generation_named : space_named, &walk);
		sys->close(fd);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void spaces_free(const struct sys *sys, struct space **spaces, uint32_t end)
{
	for (uint32_t id = 0; id < end; id++) {
		if (spaces[id])
			sys->free(spaces[id]);
		spaces[id] = NULL;
	}
}

/* ---- binding --------------------------------------------------------------------------- */

void space_burn(struct posix *tier, uint32_t id)
{
	if (id < SPACES_MAX)
		tier->burnt[id / 64] |= 1ull << (id % 64);
}

static struct space **space_bucket(struct posix *tier, const void *desc, size_t length)
{
	return &tier->space_buckets[crc32c(0, desc, length) % SPACE_BUCKETS];
}

static void space_chain(struct posix *tier, struct space *space)
{
	struct space **bucket = space_bucket(tier, space->desc, space->desc_length);

	space->next = *bucket;
	*bucket = space;
}

int spaces_open(struct posix *tier)
{
	int rc =
		spaces_load(tier->sys, tier->space_fd, tier->spaces, &tier->space_end, tier->burnt);

	for (uint32_t id = 0; rc == 0 && id < tier->space_end; id++)
		if (tier->spaces[id] && tier->spaces[id]->readable)
			space_chain(tier, tier->spaces[id]);
	return rc;
}

/*
 * What a file in ns/ takes. It is asked for twice; what then is not told counts as
 * the largest there is, since the budget must hold.
 */
static uint64_t space_charge(struct posix *tier, const char *name)
{
	struct stat st;

	for (int i = 0; i < 2; i++) {
		int rc = tier->sys->fstatat(tier->space_fd, name, &st, 0);

		if (rc == 0 || rc == -ENOENT)
			return rc == 0 ? stat_charge(&st) : 0;
	}
	return round_up(sizeof(struct space_head) + SPACE_DESC_BYTES_MAX, FORMAT_PAGE);
}

/* Counts the new file @name (NULL: none), and what the directory grew by. */
static void charge_space_dir(struct posix *tier, const char *name)
{
	struct stat st;
	uint64_t bytes = 0;
	int rc;

	if (tier->shared)
		return;
	if (name)
		bytes = space_charge(tier, name);
	tier_lock(tier);
	tier->used += bytes;
	rc = tier->sys->fstat(tier->space_fd, &st);
	if (rc < 0) /* once more, as above */
		rc = tier->sys->fstat(tier->space_fd, &st);
	if (rc == 0 && stat_charge(&st) > tier->space_dir_charge) {
		tier->used += stat_charge(&st) - tier->space_dir_charge;
		tier->space_dir_charge = stat_charge(&st);
	}
	tier_unlock(tier);
}

/* A file and the growth of its directory. */
#define SPACE_ROOM (4u * FORMAT_PAGE)

static bool space_never(struct posix *tier)
{
	bool never;

	tier_lock(tier);
	never = !tier->shared && room_never(tier, SPACE_ROOM);
	tier_unlock(tier);
	return never;
}

/* Room for both, before either is made. */
static int space_room(struct posix *tier)
{
	int rc;

	if (tier->shared)
		return 0;
	tier_lock(tier);
	rc = room_settle(tier, SPACE_ROOM);
	tier_unlock(tier);
	return rc;
}

static int space_write(struct posix *tier, int fd, uint32_t id, const struct cairn_ns_view *ns)
{
	struct space_head head;
	int rc;

	memset(&head, 0, sizeof(head));
	head.id = id;
	head.desc_length = (uint32_t)ns->desc_length;
	head.shard_count = ns->shard_count;
	head.shard_bytes = ns->shard_bytes;
	space_seal(&head, ns->desc);
	rc = sys_pwrite_full(tier->sys, fd, &head, sizeof(head), 0);
	if (rc == 0)
		rc = sys_pwrite_full(tier->sys, fd, ns->desc, ns->desc_length, sizeof(head));
	return rc ? rc : tier->sys->fsync(fd);
}

/* 0: @id is ours now; -EEXIST: somebody has it. */
static int space_take(struct posix *tier, uint32_t id, const struct cairn_ns_view *ns)
{
	const struct sys *sys = tier->sys;
	char name[NAME_SPACE_BYTES], temp[NAME_SPACE_BYTES + 16];
	int fd, rc = space_room(tier);

	if (rc < 0)
		return rc;
	name_space(id, name);
	snprintf(temp, sizeof(temp), "%s.t%08x", name, tier->writer);
	fd = tier_open_temp(sys, tier->space_fd, temp);
	if (fd < 0)
		return fd;
	rc = space_write(tier, fd, id, ns);
	sys->close(fd);
	if (rc == 0)
		rc = sys->linkat(tier->space_fd, temp, tier->space_fd, name, 0);
	sys->unlinkat(tier->space_fd, temp, 0);
	if (rc != -EEXIST)
		charge_space_dir(tier, name); /* a link that failed may be there all the same */
	/* Somebody else's, too, is believed when it is durable: blocks will name it. */
	if (rc == 0 || rc == -EEXIST) {
		int synced = sys->fsync(tier->space_fd);

		rc = synced < 0 ? synced : rc;
	}
	return rc;
}

static struct space *space_find(struct posix *tier, const struct cairn_ns_view *ns)
{
	struct space *space = *space_bucket(tier, ns->desc, ns->desc_length), *found = NULL;

	for (; space; space = space->next)
		if (space->desc_length == ns->desc_length &&
		    memcmp(space->desc, ns->desc, ns->desc_length) == 0 &&
		    (!found || space->id < found->id))
			found = space;
	return found;
}

/* Reads what stands under @id into the table. */
static int space_learn(struct posix *tier, uint32_t id)
{
	struct space *space;
	int rc = space_read(tier->sys, tier->space_fd, id, &space);

	if (rc < 0)
		return rc;
	tier_lock(tier);
	tier->spaces[id] = space;
	if (id >= tier->space_end)
		tier->space_end = id + 1;
	tier_unlock(tier);
	if (space->readable)
		space_chain(tier, space);
	return 0;
}

/* Nobody has @id, or the file of who had it was lost. */
static bool id_lost(const struct posix *tier, uint32_t id)
{
	return id < tier->space_end || (tier->burnt[id / 64] >> (id % 64) & 1);
}

/* The lowest id that may be free becomes @ns's, or known as another's. */
static int space_step(struct posix *tier, const struct cairn_ns_view *ns)
{
	uint32_t id = tier->space_next;
	bool lost;
	int rc = 0;

	tier_lock(tier); /* a sweep learns of ids, too */
	lost = id_lost(tier, id);
	tier_unlock(tier);
	if (!tier->spaces[id] && !lost)
		rc = space_take(tier, id, ns);
	if (rc < 0 && rc != -EEXIST)
		return rc;
	/* One that others have made while the names were read is there after all. */
	if (!tier->spaces[id])
		rc = space_learn(tier, id);
	if (rc < 0 && !(lost && rc == -ENOENT))
		return rc;
	tier->space_next++;
	return 0;
}

int space_bind(struct posix *tier, const struct cairn_ns_view *ns, struct space **ret_space,
	       struct cairn_error *reterr)
{
	struct space *space;
	int rc = 0;

	if (ns->desc_length > SPACE_DESC_BYTES_MAX)
		return tier_error(reterr, -EINVAL, "a namespace description has at most %u bytes",
				  SPACE_DESC_BYTES_MAX);
	space = space_find(tier, ns);
	while (!space && rc == 0 && tier->space_next < SPACES_MAX) {
		rc = space_step(tier, ns);
		space = rc == 0 ? space_find(tier, ns) : NULL;
	}
	if (space) {
		space_refresh(tier, space);
		*ret_space = space;
		return 0;
	}
	if (rc == 0)
		return tier_error(reterr, -ENOSPC,
				  "%s: all %u namespace ids are taken, for as long as the store "
				  "lives: use another path=",
				  tier->path, SPACES_MAX);
	if (rc == -ENOSPC && space_never(tier))
		return tier_error(reterr, -ENOSPC,
				  "%s: size=%llu has no room for one more namespace, of %u in it: "
				  "give more",
				  tier->path, (unsigned long long)tier->limit, tier->space_end);
	return tier_error(reterr, rc, "%s/ns: a namespace could not be written: %s", tier->path,
			  strerror(-rc));
}

/* ---- clearing ------------------------------------------------------------------------------ */

uint32_t space_refresh(struct posix *tier, struct space *space)
{
	char name[NAME_SPACE_BYTES];
	uint32_t generation;

	tier_lock(tier);
	generation = space->generation;
	tier_unlock(tier);
	if (!tier->shared)
		return generation;
	for (;; generation++) {
		name_generation(space->id, generation + 1, name);
		if (tier->sys->faccessat(tier->space_fd, name, F_OK, 0) < 0)
			break;
		/* Durable dumps into it must not lose it; who made it may not have come so far. */
		tier->sys->fsync(tier->space_fd);
	}
	tier_lock(tier);
	if (space->generation < generation)
		space->generation = generation;
	generation = space->generation;
	tier_unlock(tier);
	return generation;
}

/* Partials that nobody writes now go at once; the others when their writers see it. */
static void partials_clear(struct posix *tier, const struct space *space)
{
	for (;;) {
		struct partial *partial = NULL;
		char path[NAME_MAX_BYTES];
		int rc;

		tier_lock(tier);
		for (uint32_t i = 0; i < tier->partial_end && !partial; i++) {
			struct partial *one = &tier->partials[i];

			if (one->in_use && one->entry != INDEX_NONE && !one->publishing &&
			    one->id.space == space->id && one->id.generation != space->generation &&
			    partial_drop(tier, one))
				partial = one;
		}
		tier_unlock(tier);
		if (!partial)
			return;
		name_temp(&partial->id, tier->dirs_log2, partial->number, path);
		rc = tier->sys->unlinkat(tier->blocks_fd, path, 0);
		tier_lock(tier);
		if (rc < 0 && rc != -ENOENT)
			partial_stays(tier, partial);
		partial_free(tier, partial);
		tier_unlock(tier);
	}
}

static int marker_make(struct posix *tier, uint32_t id, uint32_t generation)
{
	char name[NAME_SPACE_BYTES];
	int fd;

	name_generation(id, generation, name);
	fd = tier->sys->openat(tier->space_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return fd;
	tier->sys->close(fd);
	return 0;
}

/*
 * The marker is durable before anything else is: were it lost later, blocks of
 * its generation would be lost with it, and those before would come back.
 */
static int marker_sync(struct posix *tier, uint32_t id, uint32_t generation)
{
	char name[NAME_SPACE_BYTES];
	int rc = tier->sys->fsync(tier->space_fd);

	if (rc == 0 || tier->shared) /* others may have seen it */
		return rc;
	name_generation(id, generation, name);
	tier->sys->unlinkat(tier->space_fd, name, 0);
	return rc;
}

void space_raise(struct posix *tier, const struct block_id *id)
{
	struct space *space = tier_space(tier, id->space);

	if (!space || space->generation >= id->generation)
		return;
	space->generation = id->generation;
	space->unmarked = true;
}

int spaces_mark(struct posix *tier)
{
	int rc = 0;

	for (uint32_t id = 0; id < tier->space_end && rc == 0; id++) {
		struct space *space = tier->spaces[id];

		if (!space || !space->unmarked)
			continue;
		rc = marker_make(tier, id, space->generation);
		if (rc == 0 || rc == -EEXIST)
			rc = marker_sync(tier, id, space->generation);
		space->unmarked = false;
	}
	return rc;
}

int space_clear(struct posix *tier, struct space *space, uint32_t durability)
{
	uint32_t before, next;
	char name[NAME_SPACE_BYTES];
	int rc;

	(void)durability; /* always the highest */
	do {
		before = space_refresh(tier, space);
		next = before + 1;
		if (!next)
			return -ENOSPC; /* generations are used up */
		rc = marker_make(tier, space->id, next);
	} while (rc == -EEXIST && tier->shared);
	if (rc == 0 || rc == -EEXIST)
		rc = marker_sync(tier, space->id, next);
	if (rc < 0)
		return rc;
	tier_lock(tier);
	if (space->generation < next) {
		if (!tier->shared)
			side_bury(tier, space);
		space->generation = next;
	}
	if (!tier->shared)
		tier_gauges(tier);
	tier_unlock(tier);
	cairn_count(tier->env, CNT_CLEARS, 1);
	if (!tier->shared) {
		if (before) {
			name_generation(space->id, before, name);
			tier->sys->unlinkat(tier->space_fd, name, 0);
		}
		charge_space_dir(tier, NULL);
		partials_clear(tier, space);
	}
	return 0;
}
