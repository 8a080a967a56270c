/* SPDX-License-Identifier: Apache-2.0 */
/* Removes, prefetches, and what becomes of a block that did not check. */
#include "stages/posix/tier.h"

#include <sys/stat.h>

static void remove_look(struct pio *p);

static void remove_end(struct pio *p, int32_t status)
{
	p->io->status = status;
	if (!status)
		cairn_count(p->tier->env, CNT_REMOVED, 1);
	pio_complete(p);
}

static void dir_fsynced(struct pio *p)
{
	remove_end(p, pio_errno(pio_result(p, 0)));
}

static void unlinked_end(struct pio *p)
{
	if (p->io->durability != CAIRN_DURABLE) {
		remove_end(p, 0);
		return;
	}
	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, dir_fsynced);
}

static void absent_fsynced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	remove_end(p, result < 0 ? pio_errno(result) : -ENOENT);
}

/* An unlink that was not asked to be durable may have been before, and come back. */
static void remove_absent(struct pio *p)
{
	uint32_t number = name_dir_of(&p->id.key, p->tier->dirs_log2);
	bool exists;

	tier_lock(p->tier);
	exists = p->tier->dirs[number].exists;
	tier_unlock(p->tier);
	if (!exists || p->io->durability != CAIRN_DURABLE) {
		remove_end(p, -ENOENT);
		return;
	}
	name_dir(number, p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, absent_fsynced);
}

static void whole_unlinked(struct pio *p)
{
	int64_t result = p->slots[0].ops[0].result;
	bool gone = result == 0 || result == -ENOENT;

	tier_lock(p->tier);
	entry_removed(p->tier, p->entry, gone);
	tier_unlock(p->tier);
	if (gone)
		unlinked_end(p);
	else
		remove_end(p, pio_errno(result));
}

static void partial_unlinked(struct pio *p)
{
	struct partial *partial = &p->tier->partials[p->partial];
	int64_t result = p->slots[0].ops[0].result;

	tier_lock(p->tier);
	if (result < 0 && result != -ENOENT)
		partial_stays(p->tier, partial);
	partial_free(p->tier, partial);
	tier_unlock(p->tier);
	remove_end(p, -ENOENT); /* it was not a block yet */
}

/* [m] taken, given back. */
static void remove_partial(struct pio *p, struct partial *partial)
{
	bool unlink = partial_drop(p->tier, partial);

	p->partial = partial_id(p->tier, partial);
	name_temp(&partial->id, p->tier->dirs_log2, partial->number, p->path);
	tier_unlock(p->tier);
	if (!unlink) { /* its last writer does that */
		remove_end(p, -ENOENT);
		return;
	}
	pio_chain(p, 0);
	pio_unlink(p, 0, p->path);
	pio_go(p, 1, partial_unlinked);
}

/* [m] taken, given back. */
static void remove_whole(struct pio *p, struct index_entry *entry)
{
	p->entry = index_id(p->tier->index, entry);
	entry_removing(p->tier, entry);
	tier_unlock(p->tier);
	name_block(&p->id, p->tier->dirs_log2, p->path);
	pio_chain(p, 0);
	pio_unlink(p, 0, p->path);
	pio_go(p, 1, whole_unlinked);
}

static void remove_look(struct pio *p)
{
	struct posix *tier = p->tier;
	struct index_key key = {p->id.key, p->id.space, 0};
	struct index_entry *entry;

	tier_lock(tier);
	p->id.generation = key.generation = p->space->generation;
	entry = index_find(tier->index, &key);
	if (!entry || entry->state == INDEX_GHOST) {
		tier_unlock(tier);
		remove_absent(p);
	} else if (entry->state == INDEX_PARTIAL) {
		struct partial *partial = partial_at(tier, entry->tier);

		if (!partial->publishing) {
			remove_partial(p, partial);
			return;
		}
		pio_wait_key(p, remove_look);
		tier_unlock(tier);
	} else if (entry->flags & ENTRY_REMOVING || entry->pins == UINT16_MAX) {
		/* Absent already; but only when its unlink is over is that so for good. */
		pio_wait_key(p, remove_look);
		tier_unlock(tier);
	} else {
		remove_whole(p, entry);
	}
}

void remove_submit(struct pio *p)
{
	remove_look(p);
}

void prefetch_submit(struct pio *p)
{
	struct posix *tier = p->tier;
	struct index_entry *entry;

	tier_lock(tier);
	p->id.generation = p->space->generation;
	entry = entry_find(tier, &p->id);
	if (entry)
		index_touch(tier->index, entry, p->io->sequence);
	if (entry && (p->io->flags & CAIRN_IO_CHAIN))
		entry_parent(tier, entry, &p->io->attr.parent);
	tier_unlock(tier);
	p->io->status = entry ? 0 : -ENOENT;
	pio_complete(p);
}

/* ---- blocks that did not check ------------------------------------------------------- */

static void aside_over(struct pio *p, bool kept, bool gone)
{
	struct posix *tier = p->tier;

	if (tier->shared) {
		tier_lock(tier);
		assert(tier->aside_files > 0 && tier->aside_bytes >= p->need);
		tier->aside_files--;
		tier->aside_bytes -= p->need;
		tier_unlock(tier);
	} else {
		uint64_t charge;

		tier_lock(tier);
		charge = index_at(tier->index, p->entry)->charge;
		entry_removed(tier, p->entry, gone);
		if (kept) { /* damage may have made it shorter */
			if (p->slots[0].ops[3].result == 0)
				charge = p->stx.stx_blocks * 512;
			tier->used += charge;
			tier->quarantine_bytes += charge;
			tier->quarantine_files++;
		}
		tier_unlock(tier);
	}
	if (kept)
		cairn_count(tier->env, CNT_QUARANTINED, 1);
	p->after(p);
}

static void aside_unlinked(struct pio *p)
{
	int64_t result = p->slots[0].ops[0].result;

	aside_over(p, false, result == 0 || result == -ENOENT);
}

static void aside_unlink(struct pio *p)
{
	pio_chain(p, 0);
	pio_unlink(p, 0, p->path);
	pio_go(p, 1, aside_unlinked);
}

static void aside_moved(struct pio *p)
{
	struct posix *tier = p->tier;

	if (p->slots[0].ops[2].result == 0) {
		uint64_t charge = p->dir_stx.stx_blocks * 512;

		tier_lock(tier);
		if (charge > tier->quarantine_dir_charge) {
			tier->used += charge - tier->quarantine_dir_charge;
			tier->quarantine_dir_charge = charge;
		}
		tier_unlock(tier);
	}
	if (p->slots[0].ops[1].result == 0)
		aside_over(p, true, true);
	else
		aside_unlink(p);
}

static void aside_move(struct pio *p)
{
	struct engine_op *op;

	name_aside(&p->id, p->number, p->temp);
	pio_chain(p, 0);
	op = pio_op(p, 0, OP_MKDIRAT, p->tier->dir_fd);
	op->path = "quarantine";
	op->mode = 0777;
	op->soft = true;
	op = pio_op(p, 0, OP_RENAMEAT, p->tier->blocks_fd);
	op->path = p->path;
	op->fd2 = p->tier->dir_fd;
	op->path2 = p->temp;
	op->soft = true;
	op = pio_op(p, 0, OP_STATX, p->tier->dir_fd);
	op->path = "quarantine";
	op->stx = &p->dir_stx;
	op->soft = true;
	op = pio_op(p, 0, OP_STATX, p->tier->dir_fd);
	op->path = p->temp;
	op->stx = &p->stx;
	op->soft = true;
	pio_go(p, 1, aside_moved);
}

/*
 * shared=yes: nobody owns the quarantine, so what is there is counted each time,
 * and what this process is about to add, with it. Processes that do so at the same
 * moment may each add a file beyond the bound.
 */
struct aside_count {
	struct posix *tier;
	int fd;
	uint64_t bytes;
	uint32_t files;
};

static int aside_named(void *context, const char *name)
{
	struct aside_count *count = context;
	struct stat st;

	if (count->tier->sys->fstatat(count->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		count->bytes += stat_charge(&st);
	return ++count->files >= QUARANTINE_FILES_MAX;
}

static int64_t aside_count_work(struct pio *p)
{
	struct posix *tier = p->tier;
	struct aside_count count = {.tier = tier};
	struct stat st;
	int rc = tier->sys->fstatat(tier->blocks_fd, p->path, &st, AT_SYMLINK_NOFOLLOW);

	p->need = rc == 0 ? stat_charge(&st) : 0;
	tier_lock(tier);
	tier->aside_files++;
	tier->aside_bytes += p->need;
	count.files = tier->aside_files - 1;
	count.bytes = tier->aside_bytes;
	tier_unlock(tier);
	count.fd = sys_open_dir(tier->sys, tier->dir_fd, "quarantine");
	if (count.fd >= 0) {
		rc = rc < 0 ? rc : sys_walk_dir(tier->sys, count.fd, aside_named, &count);
		tier->sys->close(count.fd);
	} else if (count.fd != -ENOENT) {
		rc = count.fd;
	}
	return rc == 0 && tier->quarantine_max && count.files < QUARANTINE_FILES_MAX &&
	       count.bytes <= tier->quarantine_max;
}

static void aside_counted(struct pio *p)
{
	if (pio_called(p) > 0)
		aside_move(p);
	else
		aside_unlink(p);
}

void set_aside(struct pio *p, void (*after)(struct pio *))
{
	struct posix *tier = p->tier;
	struct index_entry *entry;
	bool keep = true;

	p->after = after;
	tier_lock(tier);
	p->number = ++tier->incarnation;
	if (!tier->shared) {
		entry = entry_find(tier, &p->id);
		if (!entry || entry->tier != p->incarnation) {
			tier_unlock(tier);
			after(p);
			return;
		}
		p->entry = index_id(tier->index, entry);
		/* One more growth of its directory must fit, too. */
		keep = tier->quarantine_files < QUARANTINE_FILES_MAX &&
		       tier->quarantine_bytes + entry->charge <= tier->quarantine_max &&
		       (tier->limit == UINT64_MAX ||
			tier->used + tier->reserved + FORMAT_PAGE * 4 <= tier->limit);
		entry_removing(tier, entry);
	}
	tier_unlock(tier);
	if (tier->shared)
		pio_call(p, aside_count_work, aside_counted);
	else if (keep && tier->quarantine_max)
		aside_move(p);
	else
		aside_unlink(p);
}
