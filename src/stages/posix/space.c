/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: ns/<id> has the whole description, ns/<id>.g<n> says that the
 * generation is n or higher.
 *
 * Invariants, numbered:
 *  1. Ids are taken in order, by a link that fails when there is one: whoever
 *     takes an id has seen every description below it. So two ids never have
 *     the same description, whoever writes.
 *  2. Ids are never used again, not even those of damaged files.
 *  3. The generation is the highest marker. Under shared=yes no marker is ever
 *     taken away, so that one probe for the next one tells of a clear; else
 *     the one before goes when the next is durable.
 */
#include "stages/posix/tier.h"

#include <stdio.h>

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
	if (walk->spaces[id] && walk->spaces[id]->generation < generation)
		walk->spaces[id]->generation = generation;
	return 0;
}

int spaces_load(const struct sys *sys, int space_fd, struct space **spaces, uint32_t *ret_end)
{
	struct space_walk walk = {sys, space_fd, spaces, ret_end};
	int fd, rc;

	*ret_end = 0;
	for (int turn = 0; turn < 2; turn++) {
		fd = tier_open_dir(sys, space_fd, ".");
		if (fd < 0)
			return fd;
		rc = walk_dir(sys, fd, turn ? generation_named : space_named, &walk);
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

/* Counts the new file @name (NULL: none), and what the directory grew by. */
static void charge_space_dir(struct posix *tier, const char *name)
{
	struct stat st;
	uint64_t bytes = 0;

	if (tier->shared)
		return;
	if (name && tier->sys->fstatat(tier->space_fd, name, &st, 0) == 0)
		bytes = stat_charge(&st);
	tier_lock(tier);
	tier->used += bytes;
	if (tier->sys->fstat(tier->space_fd, &st) == 0 &&
	    stat_charge(&st) > tier->space_dir_charge) {
		tier->used += stat_charge(&st) - tier->space_dir_charge;
		tier->space_dir_charge = stat_charge(&st);
	}
	tier_unlock(tier);
}

/* Room for a file and for the growth of its directory, before either is made. */
static int space_room(struct posix *tier)
{
	int rc;

	if (tier->shared)
		return 0;
	tier_lock(tier);
	rc = room_settle(tier, 4 * FORMAT_PAGE);
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
	if (rc == 0)
		charge_space_dir(tier, name); /* it stays, whatever comes */
	/* Somebody else's, too, is believed when it is durable: blocks will name it. */
	if (rc == 0 || rc == -EEXIST) {
		int synced = sys->fsync(tier->space_fd);

		rc = synced < 0 ? synced : rc;
	}
	return rc;
}

static bool space_is(const struct space *space, const struct cairn_ns_view *ns)
{
	return space->readable && space->desc_length == ns->desc_length &&
	       memcmp(space->desc, ns->desc, ns->desc_length) == 0;
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
	return 0;
}

int space_bind(struct posix *tier, const struct cairn_ns_view *ns, struct space **ret_space,
	       struct cairn_error *reterr)
{
	int rc = 0;

	if (ns->desc_length > SPACE_DESC_BYTES_MAX)
		return tier_error(reterr, -EINVAL, "a namespace description has at most %u bytes",
				  SPACE_DESC_BYTES_MAX);
	for (uint32_t id = 0; id < SPACES_MAX; id++) {
		struct space *space;

		tier_lock(tier);
		space = tier_space(tier, id);
		tier_unlock(tier);
		if (!space) {
			rc = space_take(tier, id, ns);
			if (rc < 0 && rc != -EEXIST)
				break;
			rc = space_learn(tier, id);
			if (rc < 0)
				break;
			space = tier->spaces[id];
		}
		if (!space_is(space, ns))
			continue;
		space_refresh(tier, space);
		*ret_space = space;
		return 0;
	}
	if (rc == 0)
		return tier_error(reterr, -ENOSPC, "%s: all %u namespace ids are taken", tier->path,
				  SPACES_MAX);
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
