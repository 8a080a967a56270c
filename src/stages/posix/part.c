/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared=yes: blocks that many writers make together, in one file `.part`.
 *
 * Invariants, numbered:
 *  1. A shard is written under the lock of its byte, by the description that
 *     holds the lock: it stays locked as long as I/O of a killed writer lands.
 *  2. A valid entry says that its payload was written; it is written last, and
 *     its shard never again.
 *  3. The name `.part` is changed or taken away only under the lock of the
 *     head's byte, by one who has seen that the name is still that file's.
 *  4. The file is published, by its name, when every entry is valid.
 *  5. Locks, entries and names are the business of functions called ..._work, which
 *     run on a worker: there is no asynchronous lock, and a network file system
 *     may take its time for each. Payloads and syncs go through chains.
 */
#include "stages/posix/tier.h"

#include <stdio.h>
#include <unistd.h>

#define LOCK_HEAD  ((off_t)1 << 40)
#define LOCK_SHARD ((off_t)1 << 41)
/* Nobody tells when another host gives a lock back. */
#define RETRY_NS   1000000u

/* What publish_work() says, if no error. */
enum part_state {
	PART_OPEN,	/* shards are missing: what was written stays for the others */
	PART_READY,	/* its head is final, the lock is ours: it wants its name */
	PART_PUBLISHED, /* by us, or by one who came after us */
	PART_WHOLE,	/* somebody has dumped the whole block: that is what is there */
};

static void part_open(struct pio *p);
static void part_publish(struct pio *p);

/*
 * The locks go with the description, but a child of a fork may have it, too, for
 * as long as it lives: so they are given back one by one.
 */
static int64_t close_work(struct pio *p)
{
	const struct sys *sys = p->tier->sys;

	if (p->fd < 0)
		return 0;
	sys->byte_unlock(p->fd, LOCK_HEAD);
	for (uint32_t i = 0; i < p->io->part_count; i++)
		sys->byte_unlock(p->fd, LOCK_SHARD + p->io->parts[i].shard);
	sys->close(p->fd);
	p->fd = -1;
	return 0;
}

static void part_closed(struct pio *p)
{
	p->after(p);
}

static void part_end(struct pio *p)
{
	pio_call(p, close_work, part_closed);
}

static void mine_fail(struct pio *p, int32_t status)
{
	cairn_count(p->tier->env, status == -ENOSPC ? CNT_REFUSED : CNT_IO_ERRORS, 1);
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			p->io->parts[i].status = status;
	part_end(p);
}

/* Somebody else has a lock, and the file is closed: everything from the start, a moment later. */
static void part_retry(struct pio *p)
{
	assert(p->fd < 0);
	if (p->ws)
		p->tier->host->buffer_put(p->io, p->ws);
	p->ws = NULL;
	p->mine = 0;
	pio_retry(p, RETRY_NS, p->then_look);
}

/* 1: the name is this file's; 0: it is not any more. */
static int name_is(struct posix *tier, int fd, const char *path)
{
	struct stat mine, named;
	int rc = tier->sys->fstat(fd, &mine);

	if (rc < 0)
		return rc;
	rc = tier->sys->fstatat(tier->blocks_fd, path, &named, AT_SYMLINK_NOFOLLOW);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	return mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

int part_unlink(struct posix *tier, const char *path)
{
	const struct sys *sys = tier->sys;
	int rc, fd = sys->openat(tier->blocks_fd, path, O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	rc = sys->byte_lock(fd, LOCK_HEAD, false);
	if (rc == 0)
		rc = name_is(tier, fd, path) == 1 ? sys->unlinkat(tier->blocks_fd, path, 0)
						  : -EAGAIN;
	sys->byte_unlock(fd, LOCK_HEAD);
	sys->close(fd);
	return rc;
}

/* ---- publishing ----------------------------------------------------------------------- */

/* The head and all entries, if these are valid, into the workspace. 1: they are. */
static int entries_read(struct pio *p)
{
	const struct geometry *geo = &p->geo;
	size_t bytes = sizeof(struct block_head) + geo->shard_count * sizeof(struct block_entry);
	int rc = sys_pread_full(p->tier->sys, p->fd, p->ws, bytes, 0);

	if (rc < 0)
		return rc == -ENODATA ? 0 : rc;
	for (uint32_t shard = 0; shard < geo->shard_count; shard++) {
		const struct block_entry *entry =
			(const void *)(p->ws + geometry_entry_at(geo, shard));

		if (!entry_check(entry, &p->id, shard, geo, NULL))
			return 0;
	}
	return 1;
}

static int head_write(struct pio *p)
{
	const struct block_entry *last =
		(const void *)(p->ws + geometry_entry_at(&p->geo, p->geo.shard_count - 1));

	struct block_head told;
	struct cairn_block_attr attr;

	/* What was told first stands in the head that is there: see head_agree(). */
	memcpy(&told, p->ws, sizeof(told));
	head_attr(&told, &attr);
	p->geo.last_bytes = last->raw_length;
	dump_seal(p, p->ws, &attr, told.flags & BLOCK_CHAIN);
	return sys_pwrite_full(p->tier->sys, p->fd, p->ws, sizeof(struct block_head), 0);
}

static int64_t name_work(struct pio *p)
{
	const struct sys *sys = p->tier->sys;
	int dir = p->tier->blocks_fd;
	int rc = name_is(p->tier, p->fd, p->temp);

	if (rc != 1)
		return rc < 0 ? rc : -ESTALE;
	rc = sys->renameat2(dir, p->temp, dir, p->path, RENAME_NOREPLACE);
	if (rc == -EINVAL || rc == -ENOSYS || rc == -EOPNOTSUPP) {
		rc = sys->linkat(dir, p->temp, dir, p->path, 0);
		if (rc == 0)
			sys->unlinkat(dir, p->temp, 0);
	}
	if (rc == -EEXIST) {
		sys->unlinkat(dir, p->temp, 0);
		return PART_WHOLE;
	}
	if (rc < 0)
		return rc;
	cairn_count(p->tier->env, CNT_PUBLISHED, 1);
	return PART_PUBLISHED;
}

static void mine_done(struct pio *p)
{
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			p->io->parts[i].status = 0;
	part_end(p);
}

static void publish_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result < 0)
		mine_fail(p, pio_errno(result));
	else
		mine_done(p);
}

/* The file and its name: another writer may have published it without. */
static void publish_sync(struct pio *p)
{
	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	pio_chain(p, 0);
	pio_open(p, 0, p->dir_name, O_RDONLY | O_DIRECTORY);
	pio_op(p, 0, OP_FDATASYNC, p->fd);
	pio_op(p, 0, OP_FSYNC, ENGINE_FD_CHAIN);
	pio_op(p, 0, OP_FSYNC, p->tier->blocks_fd);
	pio_go(p, 1, publish_synced);
}

/* Not the last one, or published by the one who came after us, which is as good. */
static int64_t not_last(struct pio *p, int named)
{
	struct block_head head;

	if (named < 0)
		return named;
	if (named == 1)
		return PART_OPEN;
	if (sys_pread_full(p->tier->sys, p->fd, &head, sizeof(head), 0) == 0 &&
	    head_decode(&head, NULL) == HEAD_OK && !(head.flags & BLOCK_PART))
		return PART_PUBLISHED;
	return -ESTALE;
}

static int64_t publish_work(struct pio *p)
{
	int named, rc = p->tier->sys->byte_lock(p->fd, LOCK_HEAD, false);

	if (rc < 0)
		return rc;
	/* With the final head, too: one who wrote that may have died before the name. */
	named = name_is(p->tier, p->fd, p->temp);
	rc = named == 1 ? entries_read(p) : 0;
	if (rc < 0)
		return rc;
	if (rc == 0)
		return not_last(p, named);
	rc = head_write(p);
	if (rc < 0)
		return rc;
	return p->io->durability == CAIRN_DURABLE ? PART_READY : name_work(p);
}

static void file_synced(struct pio *p);

static void publish_called(struct pio *p)
{
	int64_t state = pio_called(p);

	if (state == -EAGAIN && !pio_late(p)) {
		pio_sleep(p, RETRY_NS, part_publish);
		return;
	}
	if (state < 0) {
		mine_fail(p, state == -EAGAIN ? -ETIMEDOUT : pio_errno(state));
		return;
	}
	switch ((enum part_state)state) {
	case PART_OPEN:
		mine_done(p);
		return;
	case PART_READY:
		pio_chain(p, 0);
		pio_op(p, 0, OP_FDATASYNC, p->fd);
		pio_go(p, 1, file_synced);
		return;
	case PART_PUBLISHED:
		(p->io->durability == CAIRN_DURABLE ? publish_sync : mine_done)(p);
		return;
	case PART_WHOLE: /* it is looked at as any other */
		part_end(p);
		return;
	}
	assert(false);
}

static void file_synced(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result < 0)
		mine_fail(p, pio_errno(result));
	else
		pio_call(p, name_work, publish_called);
}

static void part_publish(struct pio *p)
{
	pio_call(p, publish_work, publish_called);
}

/* ---- writing ------------------------------------------------------------------------------- */

static int64_t entries_work(struct pio *p)
{
	const struct geometry *geo = &p->geo;
	const struct sys *sys = p->tier->sys;
	int rc = 0;

	for (uint32_t i = 0; i < p->io->part_count && rc == 0; i++) {
		uint32_t shard = p->io->parts[i].shard;

		if (!(p->mine >> i & 1))
			continue;
		rc = sys_pwrite_full(sys, p->fd, p->ws + geometry_table_at(geo, shard),
				     geo->pieces * sizeof(uint32_t), geometry_table_at(geo, shard));
		if (rc == 0)
			rc = sys_pwrite_full(sys, p->fd, p->ws + geometry_entry_at(geo, shard),
					     sizeof(struct block_entry),
					     geometry_entry_at(geo, shard));
		if (rc == 0)
			sys->byte_unlock(p->fd, LOCK_SHARD + shard);
	}
	return rc < 0 ? rc : publish_work(p);
}

static void part_rounds(struct pio *p);

static void part_written(struct pio *p)
{
	int64_t result = pio_result(p, 0);

	if (result < 0) {
		mine_fail(p, pio_errno(result));
		return;
	}
	if (!dump_round_last(p)) {
		part_rounds(p);
		return;
	}
	pio_call(p, entries_work, publish_called);
}

static void part_rounds(struct pio *p)
{
	dump_round(p, NULL);
	pio_chain(p, 0);
	p->slots[0].chain.direct = false;
	pio_run_ops(p, 0, OP_WRITEV, p->fd, 0, p->run_count);
	pio_go(p, 1, part_written);
}

/* ---- claiming -------------------------------------------------------------------------------- */

/* Locks what is to be written; what is valid already is present. */
static int claim(struct pio *p)
{
	const struct geometry *geo = &p->geo;
	const struct sys *sys = p->tier->sys;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		struct cairn_part *part = &p->io->parts[i];
		struct block_entry entry;
		int rc;

		if (!(p->mine >> i & 1))
			continue;
		rc = sys->byte_lock(p->fd, LOCK_SHARD + part->shard, false);
		if (rc < 0 && rc != -EAGAIN)
			return rc;
		if (rc == -EAGAIN) { /* looked at again when the others are done */
			p->mine &= ~(1ull << i);
			continue;
		}
		rc = sys_pread_full(sys, p->fd, &entry, sizeof(entry),
				    geometry_entry_at(geo, part->shard));
		if (rc < 0 && rc != -ENODATA)
			return rc;
		if (rc < 0 || !entry_check(&entry, &p->id, part->shard, geo, NULL))
			continue;
		sys->byte_unlock(p->fd, LOCK_SHARD + part->shard);
		p->mine &= ~(1ull << i);
		part->status = CAIRN_PRESENT;
		cairn_count(p->tier->env, CNT_DUMPS_PRESENT, 1);
		p->bad |= 1ull << i; /* whole perhaps, if its last writer died: publish */
	}
	return 0;
}

/*
 * The fixed part, by the first who comes; the attributes, by the first who tells
 * any. 1: it fits; 0: it is another geometry's.
 */
static int head_agree(struct pio *p)
{
	struct geometry geo = p->geo, found;
	struct block_head head;
	int rc = sys_pread_full(p->tier->sys, p->fd, &head, sizeof(head), 0);

	if (rc < 0 && rc != -ENODATA)
		return rc;
	if (rc == 0 && head_decode(&head, &found) == HEAD_OK &&
	    memcmp(&head.id, &p->id, sizeof(head.id)) == 0) {
		if (found.shard_count != geo.shard_count || found.shard_bytes != geo.shard_bytes)
			return 0;
		/* One without flag PART is final: only the name is missing. */
		if ((head.flags & (BLOCK_ATTR | BLOCK_PART)) != BLOCK_PART ||
		    !attr_told(&p->io->attr))
			return 1;
	}
	geo.last_bytes = 0;
	head_init(&head, &p->id, &geo, p->io->sequence, &p->io->attr,
		  p->io->flags & CAIRN_IO_CHAIN);
	head.flags |= BLOCK_PART;
	head_seal(&head);
	rc = sys_pwrite_full(p->tier->sys, p->fd, &head, sizeof(head), 0);
	return rc < 0 ? rc : 1;
}

static int file_open(struct pio *p)
{
	const struct sys *sys = p->tier->sys;
	int flags = O_RDWR | O_CREAT | O_CLOEXEC;
	int fd = sys->openat(p->tier->blocks_fd, p->temp, flags, 0666);

	if (fd != -ENOENT)
		return fd;
	name_dir(name_dir_of(&p->id.key, p->tier->dirs_log2), p->dir_name);
	fd = sys->mkdirat(p->tier->blocks_fd, p->dir_name, 0777);
	if (fd == 0 || fd == -EEXIST)
		fd = sys->openat(p->tier->blocks_fd, p->temp, flags, 0666);
	return fd;
}

/* Under the head's lock. 1: the file is what is to be written; 0: of another geometry. */
static int file_agree(struct pio *p)
{
	const struct sys *sys = p->tier->sys;
	int rc = sys->byte_lock(p->fd, LOCK_HEAD, false);

	if (rc < 0)
		return rc;
	if (name_is(p->tier, p->fd, p->temp) != 1)
		return -EAGAIN;
	if (sys->faccessat(p->tier->blocks_fd, p->path, F_OK, 0) == 0) {
		/* It became whole since we looked: this file is of no use to anybody. */
		sys->unlinkat(p->tier->blocks_fd, p->temp, 0);
		return -EAGAIN;
	}
	rc = head_agree(p);
	if (rc == 1)
		sys->byte_unlock(p->fd, LOCK_HEAD);
	return rc;
}

/* -EAGAIN: somebody else is at it, and the file is closed again. */
static int64_t claim_work(struct pio *p)
{
	int rc;

	p->bad = 0;
	p->fd = file_open(p);
	if (p->fd < 0)
		return pio_errno(p->fd);
	rc = file_agree(p);
	if (rc == 0)
		return -EINVAL;
	if (rc == 1)
		rc = claim(p);
	if (rc == 0 && !p->mine && !p->bad)
		rc = -EAGAIN;
	if (rc == -EAGAIN) {
		close_work(p);
		return rc;
	}
	return rc < 0 ? pio_errno(rc) : 0;
}

static void part_claimed(struct pio *p)
{
	int64_t result = pio_called(p);

	if (result == -EAGAIN) {
		part_retry(p);
		return;
	}
	if (result < 0) {
		mine_fail(p, (int32_t)result);
		return;
	}
	memset(p->ws, 0, p->geo.head_bytes);
	for (uint32_t i = 0; i < p->io->part_count; i++)
		if (p->mine >> i & 1)
			dump_fill(p, p->ws, &p->io->parts[i]);
	dump_rewind(p);
	if (p->mine)
		part_rounds(p);
	else
		part_publish(p);
}

static void part_open(struct pio *p)
{
	if (!p->ws && !dump_workspace(p, p->geo.head_bytes, part_open))
		return;
	name_part(&p->id, p->tier->dirs_log2, p->temp);
	pio_call(p, claim_work, part_claimed);
}

void shared_part(struct pio *p, void (*look)(struct pio *), void (*end)(struct pio *))
{
	p->then_look = look;
	p->after = end;
	part_open(p);
}
