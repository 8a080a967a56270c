/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is there when a tier opens.
 *
 * Invariants, numbered:
 *  1. A directory is believed to be as the snapshot says only after a clean
 *     end, and only while its own mtime is what the snapshot says; else its
 *     names are read. So names that a power cut brought back, or took, are
 *     seen even when the clean mark survived.
 *  2. The order: what the snapshot knows, in its order; then the rest by mtime.
 *  3. Everything found is counted, or unlinked.
 *  4. No block goes before it is known that the budget holds what has to stay:
 *     an open that is refused leaves all of them.
 */
#include "stages/posix/tier.h"

#include <stdlib.h>

#define ENTRY_CONFIRMED 0x80u /* while recovering */

struct found {
	uint32_t entry;
	uint64_t mtime_ns;
};

struct recovery {
	struct posix *tier;
	struct snapshot *snapshot;
	bool clean;
	int fd;	      /* of the directory that is walked */
	uint32_t dir; /* its number */
	struct found *found;
	size_t found_count, found_max;
	struct block_id *surplus; /* blocks that find no place in the index */
	size_t surplus_count, surplus_max;
	uint64_t sequence_max, stamp;
};

/* ---- the small files ----------------------------------------------------------------- */

/* Counts a file; what cannot be looked at cannot be counted, so the open fails. */
static int charge_name(struct recovery *r, const char *name, uint64_t *ret_charge)
{
	struct stat st;
	int rc = r->tier->sys->fstatat(r->fd, name, &st, AT_SYMLINK_NOFOLLOW);

	if (rc == -ENOENT)
		return 0; /* gone meanwhile */
	if (rc < 0)
		return rc;
	r->tier->used += stat_charge(&st);
	if (ret_charge)
		*ret_charge = stat_charge(&st);
	return 0;
}

/* Unlinks a leftover; what stays is counted. */
static int sweep_name(struct recovery *r, const char *name)
{
	return r->tier->sys->unlinkat(r->fd, name, 0) == 0 ? 0 : charge_name(r, name, NULL);
}

static int root_named(void *context, const char *name)
{
	struct recovery *r = context;

	if (strncmp(name, "store.t", 7) == 0 || strcmp(name, "index.new") == 0)
		return sweep_name(r, name);
	if (strcmp(name, "b") == 0 || strcmp(name, "ns") == 0 || strcmp(name, "quarantine") == 0)
		return 0; /* counted when they are walked */
	return charge_name(r, name, NULL);
}

static int space_file_named(void *context, const char *name)
{
	struct recovery *r = context;
	uint32_t id, generation;

	if (name_parse_space(name, &id, &generation) == NAME_TEMP)
		return sweep_name(r, name);
	return charge_name(r, name, NULL);
}

static int quarantine_named(void *context, const char *name)
{
	struct recovery *r = context;
	uint64_t charge = 0;
	int rc = charge_name(r, name, &charge);

	r->tier->quarantine_files++;
	r->tier->quarantine_bytes += charge;
	return rc;
}

/* Walks @name of @dirfd; its own charge goes to *ret_charge and to used. */
static int walk_counted(struct recovery *r, int dirfd, const char *name, uint64_t *ret_charge,
			int (*fn)(void *context, const char *name))
{
	struct posix *tier = r->tier;
	struct stat st;
	int rc;

	r->fd = sys_open_dir(tier->sys, dirfd, name);
	if (r->fd < 0)
		return r->fd;
	rc = sys_walk_dir(tier->sys, r->fd, fn, r);
	if (rc == 0)
		rc = tier->sys->fstat(r->fd, &st);
	if (rc == 0) {
		tier->used += stat_charge(&st);
		if (ret_charge)
			*ret_charge = stat_charge(&st);
	}
	tier->sys->close(r->fd);
	return rc;
}

static int dir_named(void *context, const char *name)
{
	struct recovery *r = context;
	struct posix *tier = r->tier;
	uint32_t number;
	struct stat st;
	int rc = tier->sys->fstatat(r->fd, name, &st, AT_SYMLINK_NOFOLLOW);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	tier->used += stat_charge(&st);
	if (!S_ISDIR(st.st_mode) || !name_parse_dir(name, tier->dirs_log2, &number))
		return 0;
	tier->dirs[number].exists = true;
	tier->dirs[number].unsynced = true; /* not known: synced with the first durable dump */
	tier->dirs[number].charge = stat_charge(&st);
	tier->dirs[number].mtime_ns = stat_mtime_ns(&st);
	return 0;
}

static int small_files(struct recovery *r)
{
	struct posix *tier = r->tier;
	int rc = walk_counted(r, tier->dir_fd, ".", NULL, root_named);

	if (rc == 0)
		rc = walk_counted(r, tier->dir_fd, "ns", &tier->space_dir_charge, space_file_named);
	if (rc == 0)
		rc = walk_counted(r, tier->dir_fd, "b", &tier->blocks_dir_charge, dir_named);
	if (rc == 0)
		rc = walk_counted(r, tier->dir_fd, "quarantine", &tier->quarantine_dir_charge,
				  quarantine_named);
	return rc == -ENOENT ? 0 : rc;
}

/* ---- blocks ------------------------------------------------------------------------------ */

static bool dir_believed(const struct recovery *r, uint32_t number)
{
	const struct dir *dir = &r->tier->dirs[number];
	const struct snapshot_dir *known;

	if (!r->clean)
		return false;
	known = &r->snapshot->dirs[number];
	return dir->exists == known->exists && dir->mtime_ns == known->mtime_ns;
}

static struct index_entry *entry_new(struct posix *tier, const struct block_id *id)
{
	struct index_key key = {id->key, id->space, id->generation};
	struct index_entry *entry;
	bool made;

	entry = index_add(tier->index, &key, &made);
	if (!entry || !made)
		return NULL;
	entry->flags = 0;
	return entry;
}

/* A list of @count places of @bytes each, as long again; NULL: no memory, the old one stays. */
static void *list_grow(const struct sys *sys, void *list, size_t count, size_t *max, size_t bytes)
{
	size_t more = *max ? *max * 2 : 1024;
	void *longer = sys->alloc(64, more * bytes);

	if (!longer)
		return NULL;
	if (list) {
		memcpy(longer, list, count * bytes);
		sys->free(list);
	}
	*max = more;
	return longer;
}

/* Goes when it is known that the store can be opened at all. */
static int surplus_add(struct recovery *r, const struct block_id *id)
{
	if (r->surplus_count == r->surplus_max) {
		void *more = list_grow(r->tier->sys, r->surplus, r->surplus_count, &r->surplus_max,
				       sizeof(*r->surplus));

		if (!more)
			return -ENOMEM;
		r->surplus = more;
	}
	r->surplus[r->surplus_count++] = *id;
	return 0;
}

/* What cannot be unlinked is counted, and looked at again at the next open. */
static int surplus_unlink(struct recovery *r)
{
	struct posix *tier = r->tier;
	int rc = 0;

	r->fd = tier->blocks_fd;
	for (size_t i = 0; i < r->surplus_count && rc == 0; i++) {
		char path[NAME_MAX_BYTES];

		name_block(&r->surplus[i], tier->dirs_log2, path);
		rc = tier->sys->unlinkat(tier->blocks_fd, path, 0);
		if (rc == 0) {
			cairn_count(tier->env, CNT_EVICTED, 1);
			continue;
		}
		tier->dirs[name_dir_of(&r->surplus[i].key, tier->dirs_log2)].leftover = true;
		rc = charge_name(r, path, NULL);
	}
	return rc;
}

static void geometry_into(struct index_entry *entry, const struct geometry *geo)
{
	entry->shard_count = (uint16_t)geo->shard_count;
	entry->shard_bytes = (uint32_t)geo->shard_bytes;
	entry->last_bytes = (uint32_t)geo->last_bytes;
}

/* Hottest first, so that what does not fit any more is the coldest. */
static int snapshot_add(struct recovery *r)
{
	struct posix *tier = r->tier;
	uint64_t count = r->snapshot ? r->snapshot->head.entry_count : 0;

	for (uint64_t i = count; i-- > 0;) {
		const struct snapshot_entry *in = &r->snapshot->entries[i];
		struct index_entry *entry = entry_new(tier, &in->id);
		uint32_t number = name_dir_of(&in->id.key, tier->dirs_log2);

		space_burn(tier, in->id.space);
		space_raise(tier, &in->id);
		if (!entry) { /* the walk finds it, where the names are read */
			int rc = dir_believed(r, number) ? surplus_add(r, &in->id) : 0;

			if (rc < 0)
				return rc;
			continue;
		}
		entry->sequence = in->sequence;
		entry->charge = in->charge;
		entry->shard_count = in->shard_count;
		entry->shard_bytes = in->shard_bytes;
		entry->last_bytes = in->last_bytes;
		entry->depth = in->depth;
		entry->flags = in->flags & SNAPSHOT_RAW ? ENTRY_RAW : 0;
		if (dir_believed(r, number))
			entry->flags |= ENTRY_CONFIRMED;
	}
	return 0;
}

/* Reads the head's fixed part. -EBADMSG: it is not the block of that name. */
static int head_read(struct recovery *r, const char *name, const struct block_id *id,
		     struct block_head *ret_head, struct geometry *ret_geo)
{
	const struct sys *sys = r->tier->sys;
	int rc, fd = sys->openat(r->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return fd;
	rc = sys_pread_full(sys, fd, ret_head, sizeof(*ret_head), 0);
	sys->close(fd);
	if (rc < 0)
		return rc;
	if (head_decode(ret_head, ret_geo) != HEAD_OK || (ret_head->flags & BLOCK_PART) ||
	    memcmp(&ret_head->id, id, sizeof(*id)) != 0)
		return -EBADMSG;
	return 0;
}

static bool found_add(struct recovery *r, uint32_t entry, uint64_t mtime_ns)
{
	if (r->found_count == r->found_max) {
		void *more = list_grow(r->tier->sys, r->found, r->found_count, &r->found_max,
				       sizeof(*r->found));

		if (!more)
			return false;
		r->found = more;
	}
	r->found[r->found_count++] = (struct found){entry, mtime_ns};
	return true;
}

static void head_into(struct recovery *r, struct index_entry *entry, const struct block_head *head,
		      const struct geometry *geo)
{
	geometry_into(entry, geo);
	entry->sequence = head->sequence;
	entry->flags = head->flags & BLOCK_RAW ? ENTRY_RAW : 0;
	if (head->sequence > r->sequence_max)
		r->sequence_max = head->sequence;
	entry->depth = head->depth;
	entry_parent(r->tier, entry, &head->parent);
}

/* Unlinks a block's file; when it stays it is counted, and looked at again at the next open. */
static int leave_out(struct recovery *r, const char *name)
{
	if (r->tier->sys->unlinkat(r->fd, name, 0) == 0)
		return 0;
	r->tier->dirs[r->dir].leftover = true;
	return charge_name(r, name, NULL);
}

/* A whole block's name was found in a directory that is not believed. */
static int block_found(struct recovery *r, const char *name, const struct block_id *id,
		       const struct stat *st)
{
	struct posix *tier = r->tier;
	struct space *space = tier_space(tier, id->space);
	struct index_key key = {id->key, id->space, id->generation};
	struct index_entry *entry = index_find(tier->index, &key);
	bool known = entry && entry->state == INDEX_PARTIAL;
	struct block_head head;
	struct geometry geo;
	int rc;

	if (known && space && space->fixed) {
		entry->charge = stat_charge(st);
		entry->flags |= ENTRY_CONFIRMED;
		return 0;
	}
	rc = head_read(r, name, id, &head, &geo);
	if (rc < 0 && rc != -EBADMSG && st->st_size >= (off_t)sizeof(head)) {
		/* That it cannot be read now does not make it damaged: the next open looks again.
		 */
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		tier->used += stat_charge(st);
		tier->dirs[r->dir].leftover = true;
		return 0;
	}
	if (rc < 0) {
		cairn_count(tier->env, CNT_DAMAGED, 1);
		return leave_out(r, name);
	}
	space_raise(tier, id);
	if (!known)
		entry = entry_new(tier, id);
	if (!entry || (!known && !found_add(r, index_id(tier->index, entry), stat_mtime_ns(st)))) {
		return entry ? -ENOMEM : surplus_add(r, id);
	}
	head_into(r, entry, &head, &geo);
	entry->charge = stat_charge(st);
	entry->flags |= ENTRY_CONFIRMED;
	return 0;
}

static int block_named(void *context, const char *name)
{
	struct recovery *r = context;
	struct posix *tier = r->tier;
	struct block_id id;
	enum name_kind kind = name_parse_block(name, &id);
	struct stat st;
	int rc;

	if (kind != NAME_OTHER)
		space_burn(tier, id.space);
	if (kind == NAME_TEMP || kind == NAME_PART) {
		cairn_count(tier->env, CNT_SWEPT, 1);
		return leave_out(r, name);
	}
	rc = tier->sys->fstatat(r->fd, name, &st, AT_SYMLINK_NOFOLLOW);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	if (kind == NAME_BLOCK && S_ISREG(st.st_mode) &&
	    name_dir_of(&id.key, tier->dirs_log2) == r->dir)
		return block_found(r, name, &id, &st);
	tier->used += stat_charge(&st); /* somebody else's: counted again by a walk alone */
	tier->dirs[r->dir].leftover = true;
	return 0;
}

static int dirs_scan(struct recovery *r)
{
	struct posix *tier = r->tier;

	for (uint32_t i = 0; i < 1u << tier->dirs_log2; i++) {
		char name[NAME_DIR_LENGTH + 1];
		int rc;

		if (!tier->dirs[i].exists || dir_believed(r, i))
			continue;
		name_dir(i, name);
		r->dir = i;
		r->fd = sys_open_dir(tier->sys, tier->blocks_fd, name);
		if (r->fd < 0)
			return r->fd;
		rc = sys_walk_dir(tier->sys, r->fd, block_named, r);
		tier->sys->close(r->fd);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* ---- order ------------------------------------------------------------------------- */

static void entry_place(struct recovery *r, struct index_entry *entry)
{
	struct posix *tier = r->tier;

	entry->flags &= (uint8_t)~ENTRY_CONFIRMED;
	entry->tier = ++tier->incarnation;
	tier->used += entry->charge;
	tier->block_bytes += entry->charge;
	if (entry->sequence > r->sequence_max)
		r->sequence_max = entry->sequence;
	side_add(tier, entry);
	index_publish(tier->index, entry, ++r->stamp);
}

static void snapshot_place(struct recovery *r)
{
	struct posix *tier = r->tier;
	uint64_t count = r->snapshot ? r->snapshot->head.entry_count : 0;

	for (uint64_t i = 0; i < count; i++) {
		const struct snapshot_entry *in = &r->snapshot->entries[i];
		struct index_key key = {in->id.key, in->id.space, in->id.generation};
		struct index_entry *entry = index_find(tier->index, &key);

		if (!entry || entry->state != INDEX_PARTIAL)
			continue;
		if (!(entry->flags & ENTRY_CONFIRMED)) {
			index_remove(tier->index, entry);
			continue;
		}
		entry_parent(tier, entry, &in->parent);
		entry_place(r, entry);
	}
}

static int found_compare(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->mtime_ns != y->mtime_ns)
		return x->mtime_ns < y->mtime_ns ? -1 : 1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static void found_place(struct recovery *r)
{
	if (r->found_count)
		qsort(r->found, r->found_count, sizeof(*r->found), found_compare);
	for (size_t i = 0; i < r->found_count; i++)
		entry_place(r, index_at(r->tier->index, r->found[i].entry));
}

int recover(struct posix *tier, struct cairn_error *reterr)
{
	struct recovery r = {.tier = tier};
	uint64_t sequence = tier->super.sequence;
	int rc = snapshot_load(tier->sys, tier->dir_fd, tier->super.uuid, &r.snapshot);

	if (r.snapshot && r.snapshot->head.dir_count != 1u << tier->dirs_log2) {
		snapshot_free(tier->sys, r.snapshot);
		r.snapshot = NULL;
	}
	r.clean = r.snapshot && (tier->super.flags & SUPER_CLEAN) &&
		  !(tier->super.flags & SUPER_SHARED) &&
		  r.snapshot->head.snapshot_id == tier->super.snapshot_id;
	if (rc == 0)
		rc = small_files(&r);
	if (rc == 0)
		rc = snapshot_add(&r);
	if (rc == 0)
		rc = dirs_scan(&r);
	if (rc == 0)
		rc = spaces_mark(tier);
	if (rc == 0) {
		snapshot_place(&r);
		found_place(&r);
		rc = room_never(tier, 0) ? -ENOSPC : surplus_unlink(&r);
	}
	if (rc == 0)
		rc = room_settle(tier, 0);
	if (r.found)
		tier->sys->free(r.found);
	if (r.surplus)
		tier->sys->free(r.surplus);
	snapshot_free(tier->sys, r.snapshot);
	if (rc == -ENOSPC)
		return tier_error(reterr, -EINVAL,
				  "size=%llu is less than what %s takes empty: give more",
				  (unsigned long long)tier->limit, tier->path);
	if (rc < 0)
		return tier_error(reterr, rc, "%s: could not be read: %s", tier->path,
				  strerror(-rc));
	if (sequence <= r.sequence_max)
		sequence = r.sequence_max + 1;
	if (sequence <= r.stamp)
		sequence = r.stamp + 1;
	tier->super.sequence = sequence;
	return 0;
}
