/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared=yes: many processes and hosts on one directory, and no index: the
 * file system knows what is there.
 *
 * Invariants, numbered:
 *  1. Nothing that is there under a final name is ever written to, or replaced
 *     by a rename: a name comes by RENAME_NOREPLACE, or by a link.
 *  2. Whoever writes or reads a block looks for the marker of the next
 *     generation: a clear made elsewhere before the call is seen by it.
 */
#include "stages/posix/tier.h"

#include <stdio.h>
#include <sys/stat.h>

static void whole_rounds(struct pio *p);
static void dump_begin(struct pio *p);

static void generation_take(struct pio *p)
{
	tier_lock(p->tier);
	p->id.generation = p->space->generation;
	tier_unlock(p->tier);
}

static void statx_op(struct pio *p, int fd, const char *path, struct statx *stx)
{
	struct engine_op *op = pio_op(p, 0, OP_STATX, fd);

	op->path = path;
	op->stx = stx;
	op->soft = true;
}

/* The first op of a chain: whether the next generation's marker exists. */
static void marker_op(struct pio *p)
{
	name_generation(p->id.space, p->id.generation + 1, p->victim_path[0]);
	statx_op(p, p->tier->space_fd, p->victim_path[0], &p->stx);
}

static int64_t refresh_work(struct pio *p)
{
	p->cleared = space_refresh(p->tier, p->space) != p->id.generation;
	return 0;
}

void shared_refresh(struct pio *p, void (*step)(struct pio *))
{
	pio_call(p, refresh_work, step);
}

/* After a chain with marker_op(): true when it is all done again, from @step. */
static bool marker_found(struct pio *p, void (*step)(struct pio *))
{
	if (p->slots[0].ops[0].result != 0)
		return false;
	shared_refresh(p, step);
	return true;
}

/* ---- lookups --------------------------------------------------------------------------- */

static bool head_probe(struct posix *tier, const char *path, const struct block_id *id,
		       struct geometry *ret_geo)
{
	struct block_head head;
	int rc, fd = tier->sys->openat(tier->blocks_fd, path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return false;
	rc = sys_pread_full(tier->sys, fd, &head, sizeof(head), 0);
	tier->sys->close(fd);
	return rc == 0 && head_decode(&head, ret_geo) == HEAD_OK &&
	       memcmp(&head.id, id, sizeof(*id)) == 0;
}

static void probe_set(struct cairn_probe *probe, const struct geometry *geo)
{
	*probe = (struct cairn_probe){
		.present = 1,
		.shard_count = geo->shard_count,
		.shard_bytes = geo->shard_bytes,
		.last_bytes = geo->last_bytes,
		.stored_bytes = geometry_file_bytes(geo),
	};
}

/*
 * The generation is asked for once a call, and what is the same for every key is
 * made once: a key costs its letters and one system call (bench/README.md).
 */
void shared_lookup(struct posix *tier, struct space *space, const struct cairn_key *keys,
		   size_t count, uint32_t flags, struct cairn_probe *ret_probes)
{
	struct block_id id = {.space = space->id, .generation = space_refresh(tier, space)};
	int (*const probe)(int, const char *, int, int) = tier->sys->faccessat;
	const int dir = tier->blocks_fd;
	const uint32_t dirs_log2 = tier->dirs_log2;
	struct geometry geo = space->geo;
	struct cairn_probe found = {0};
	char path[NAME_MAX_BYTES];

	name_block(&id, dirs_log2, path);
	if (space->fixed)
		probe_set(&found, &geo);
	memset(ret_probes, 0, count * sizeof(*ret_probes));
	for (size_t i = 0; i < count; i++) {
		bool there;

		name_block_rekey(&keys[i], dirs_log2, path);
		if (space->fixed) {
			there = probe(dir, path, F_OK, 0) == 0;
		} else {
			id.key = keys[i];
			there = head_probe(tier, path, &id, &geo);
			if (there)
				probe_set(&found, &geo);
		}
		if (there)
			ret_probes[i] = found;
		else if (flags & CAIRN_PROBE_CHAIN)
			return;
	}
}

/* ---- loads, prefetches, removes ------------------------------------------------------------ */

void shared_load_submit(struct pio *p)
{
	generation_take(p);
	p->geo = p->space->geo;
	p->geo_known = p->space->fixed;
	load_start(p);
}

static void prefetch_done(struct pio *p)
{
	if (marker_found(p, shared_prefetch_submit))
		return;
	p->io->status = p->slots[0].ops[1].result == 0 ? 0 : -ENOENT;
	pio_complete(p);
}

void shared_prefetch_submit(struct pio *p)
{
	generation_take(p);
	name_block(&p->id, p->tier->dirs_log2, p->path);
	pio_chain(p, 0);
	marker_op(p);
	statx_op(p, p->tier->blocks_fd, p->path, &p->dir_stx);
	pio_go(p, 1, prefetch_done);
}

static void remove_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result < 0)
		p->io->status = pio_errno(result);
	pio_complete(p);
}

static int64_t part_unlink_work(struct pio *p)
{
	return part_unlink(p->tier, p->temp);
}

static void part_unlinked(struct pio *p)
{
	int32_t status = p->failure;

	if (pio_called(p) == -EAGAIN) {
		/* Being published this moment: then it is removed as what it became. */
		pio_retry(p, 1000000, shared_remove_submit);
		return;
	}
	if (status == -ENOENT && p->started) /* the time before */
		status = 0;
	p->io->status = status;
	if (status == 0)
		cairn_count(p->tier->env, CNT_REMOVED, 1);
	/* One that was not asked to be durable may have been before, and come back. */
	if ((status < 0 && status != -ENOENT) || p->io->durability != CAIRN_DURABLE) {
		pio_complete(p);
		return;
	}
	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, remove_synced);
}

static void remove_done(struct pio *p)
{
	int64_t result = p->slots[0].ops[1].result;

	if (marker_found(p, shared_remove_submit))
		return;
	p->started = p->started || result == 0;
	p->failure = pio_errno(result);
	pio_call(p, part_unlink_work, part_unlinked);
}

void shared_remove_submit(struct pio *p)
{
	generation_take(p);
	name_block(&p->id, p->tier->dirs_log2, p->path);
	name_part(&p->id, p->tier->dirs_log2, p->temp);
	pio_chain(p, 0);
	marker_op(p);
	pio_unlink(p, 0, p->path);
	pio_go(p, 1, remove_done);
}

/* ---- dumps: ends ------------------------------------------------------------------- */

static void mine_set(struct pio *p, int32_t status)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		if (!(p->mine >> i & 1) || p->io->parts[i].status != CAIRN_PENDING)
			continue;
		p->io->parts[i].status = status;
		bytes += p->io->parts[i].stored_length;
	}
	if (status == 0)
		cairn_count(p->tier->env, CNT_DUMP_BYTES, bytes);
	if (status < 0)
		cairn_count(p->tier->env, status == -ENOSPC ? CNT_REFUSED : CNT_IO_ERRORS, 1);
}

/* What is still pending is looked at again. */
static void dump_end(struct pio *p)
{
	bool pending = false;

	p->mine = 0;
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	for (uint32_t i = 0; i < p->io->part_count; i++)
		pending = pending || p->io->parts[i].status == CAIRN_PENDING;
	if (pending)
		dump_begin(p);
	else
		pio_complete(p);
}

static void dir_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	mine_set(p, result ? pio_errno(result) : p->failure);
	dump_end(p);
}

static void dir_sync(struct pio *p)
{
	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	pio_op(p, 0, OP_FSYNC, p->tier->blocks_fd);
	pio_go(p, 1, dir_synced);
}

/* The block stands under its name; p->mine gets @status. */
static void dump_there(struct pio *p, int32_t status)
{
	p->failure = status;
	if (p->io->durability == CAIRN_DURABLE) {
		dir_sync(p);
		return;
	}
	mine_set(p, status);
	dump_end(p);
}

static void present_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result == -ENOENT) {
		dump_end(p); /* removed meanwhile */
		return;
	}
	if (result < 0) {
		mine_set(p, pio_errno(result));
		dump_end(p);
		return;
	}
	dump_there(p, CAIRN_PRESENT);
}

static void dump_present(struct pio *p)
{
	cairn_count(p->tier->env, CNT_DUMPS_PRESENT, (uint64_t)__builtin_popcountll(p->mine));
	if (p->io->durability != CAIRN_DURABLE) {
		dump_there(p, CAIRN_PRESENT);
		return;
	}
	pio_chain(p, 0);
	pio_open(p, 0, p->path, O_RDONLY);
	pio_op(p, 0, OP_FDATASYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, present_synced);
}

static int64_t head_work(struct pio *p)
{
	return head_probe(p->tier, p->path, &p->id, &p->found);
}

static void head_known(struct pio *p)
{
	const struct geometry *found = &p->found, *geo = &p->geo;

	if (!pio_called(p) ||
	    (found->shard_count == geo->shard_count && found->shard_bytes == geo->shard_bytes &&
	     (!geo->last_bytes || found->last_bytes == geo->last_bytes))) {
		dump_present(p);
		return;
	}
	mine_set(p, -EINVAL);
	dump_end(p);
}

/* ---- dumps of whole blocks --------------------------------------------------------- */

static void whole_gone(struct pio *p)
{
	if (p->failure < 0)
		mine_set(p, p->failure);
	dump_end(p);
}

/* The temporary file goes; then p->mine gets @status, or is pending still with CAIRN_PRESENT. */
static void whole_undo(struct pio *p, int32_t status)
{
	p->failure = status;
	pio_chain(p, 0);
	pio_unlink(p, 0, p->temp);
	pio_go(p, 1, whole_gone);
}

static void whole_named(struct pio *p, int64_t result)
{
	if (result < 0) {
		/* Ours was taken away, as a leftover: -ESTALE. Another's is there: looked at again.
		 */
		whole_undo(p, result == -ENOENT
				      ? -ESTALE
				      : (result == -EEXIST ? CAIRN_PRESENT : pio_errno(result)));
		return;
	}
	cairn_count(p->tier->env, CNT_PUBLISHED, 1);
	cairn_count(p->tier->env, CNT_DUMPS, (uint64_t)__builtin_popcountll(p->mine));
	dump_there(p, 0);
}

static void whole_linked(struct pio *p)
{
	whole_named(p, p->slots[0].ops[0].result);
}

static bool rename_plain(struct posix *tier, bool set)
{
	bool plain;

	tier_lock(tier);
	tier->rename_plain = tier->rename_plain || set;
	plain = tier->rename_plain;
	tier_unlock(tier);
	return plain;
}

/* Where there is no RENAME_NOREPLACE: a link fails when the name is taken, too. */
static void whole_link(struct pio *p)
{
	struct engine_op *op;

	pio_chain(p, 0);
	op = pio_op(p, 0, OP_LINKAT, p->tier->blocks_fd);
	op->path = p->temp;
	op->fd2 = p->tier->blocks_fd;
	op->path2 = p->path;
	op->soft = true;
	pio_unlink(p, 0, p->temp);
	pio_go(p, 1, whole_linked);
}

static void whole_renamed(struct pio *p)
{
	int64_t result = p->slots[0].ops[0].result;

	if (result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP) {
		rename_plain(p->tier, true);
		whole_link(p);
		return;
	}
	whole_named(p, result);
}

/*
 * After the file was closed: a network file system may send what was written,
 * and tell that it could not, only then; and other hosts see the name at once.
 */
static void whole_name(struct pio *p)
{
	struct engine_op *op;

	if (rename_plain(p->tier, false)) {
		whole_link(p);
		return;
	}
	pio_chain(p, 0);
	op = pio_op(p, 0, OP_RENAMEAT, p->tier->blocks_fd);
	op->path = p->temp;
	op->fd2 = p->tier->blocks_fd;
	op->path2 = p->path;
	op->flags = RENAME_NOREPLACE;
	op->soft = true;
	pio_go(p, 1, whole_renamed);
}

/* Whether there is one now, the file tells. */
static void dir_made(struct pio *p)
{
	p->started = false;
	dump_rewind(p);
	whole_rounds(p);
}

static void dir_make(struct pio *p)
{
	pio_chain(p, 0);
	pio_make_dir(p, 0);
	pio_go(p, 1, dir_made);
}

static void round_done(struct pio *p)
{
	struct slot *s = &p->slots[0];
	int64_t result = pio_result(p, 0);

	if (s->ops[0].result == -ENOENT && !p->written && !p->dir_tries++) {
		dir_make(p);
		return;
	}
	p->written = true;
	if (result < 0)
		whole_undo(p, result == -ENOENT ? -ESTALE : pio_errno(result));
	else if (p->merged)
		whole_name(p);
	else
		whole_rounds(p);
}

static void whole_rounds(struct pio *p)
{
	bool first = !p->started;
	int flags = O_WRONLY | (p->tier->direct ? O_DIRECT : 0);
	struct engine_op *op;

	dump_round(p, first ? p->ws : NULL);
	p->merged = dump_round_last(p);
	p->started = true;
	pio_chain(p, 0);
	pio_open(p, 0, p->temp, first ? flags | O_CREAT | O_EXCL : flags);
	if (first && p->all_raw) {
		op = pio_op(p, 0, OP_FALLOCATE, ENGINE_FD_CHAIN);
		op->length = geometry_file_bytes(&p->geo);
		op->soft = true;
	}
	pio_run_ops(p, 0, OP_WRITEV, ENGINE_FD_CHAIN, 0, p->run_count);
	if (p->merged && p->io->durability == CAIRN_DURABLE)
		pio_op(p, 0, OP_FDATASYNC, ENGINE_FD_CHAIN);
	pio_go(p, 1, round_done);
}

static void dump_whole(struct pio *p)
{
	if (!dump_workspace(p, p->geo.head_bytes, dump_whole))
		return;
	tier_lock(p->tier);
	p->number = ++p->tier->incarnation;
	tier_unlock(p->tier);
	name_temp_shared(&p->id, p->tier->dirs_log2, p->tier->writer, p->number, p->temp);
	memset(p->ws, 0, p->geo.head_bytes);
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			dump_fill(p, p->ws, &p->io->parts[i]);
	dump_seal(p, p->ws, &p->io->attr, p->io->flags & CAIRN_IO_CHAIN);
	dump_rewind(p);
	p->started = p->written = false;
	whole_rounds(p);
}

/* ---- dumps: looking ---------------------------------------------------------------- */

/* Pending parts of different shards; a second one of a shard waits for the first. */
static uint64_t pending_mask(const struct pio *p)
{
	uint64_t seen[SHARD_WORDS] = {0}, mask = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		const struct cairn_part *part = &p->io->parts[i];

		if (part->status != CAIRN_PENDING || shard_test(seen, part->shard))
			continue;
		shard_set(seen, part->shard);
		mask |= 1ull << i;
	}
	return mask;
}

static void dump_looked(struct pio *p)
{
	bool there = p->slots[0].ops[1].result == 0;

	if (marker_found(p, dump_begin))
		return;
	p->mine = pending_mask(p);
	if (there && p->space->fixed) {
		dump_present(p);
		return;
	}
	if (there) {
		pio_call(p, head_work, head_known);
		return;
	}
	if (p->geo.head_bytes > p->tier->host->buffer_max / 4) {
		mine_set(p, -EFBIG);
		dump_end(p);
		return;
	}
	if ((uint32_t)__builtin_popcountll(p->mine) == p->geo.shard_count)
		dump_whole(p);
	else
		shared_part(p, dump_begin, dump_end);
}

static int64_t sweep_work(struct pio *p)
{
	sweep_next(p->tier);
	return 0;
}

static void dump_begin(struct pio *p)
{
	uint32_t chains = 1;

	generation_take(p);
	name_block(&p->id, p->tier->dirs_log2, p->path);
	pio_chain(p, 0);
	marker_op(p);
	statx_op(p, p->tier->blocks_fd, p->path, &p->dir_stx);
	if (sweep_due(p->tier)) {
		pio_call_chain(p, 1, sweep_work);
		chains = 2;
	}
	pio_go(p, chains, dump_looked);
}

void shared_dump_submit(struct pio *p)
{
	if (dump_check(p))
		dump_begin(p);
	else
		pio_complete(p);
}
