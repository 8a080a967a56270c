/* SPDX-License-Identifier: Apache-2.0 */
/* The index as one file, written at a clean close. */
#include "stages/posix/tier.h"

#include "base/crc32c.h"

/* Written in chunks of this. */
#define CHUNK_BYTES 65536u

struct writer {
	struct posix *tier;
	int fd;
	off_t at;
	uint32_t crc;
	size_t used;
	int rc;
	uint8_t *chunk;
};

static void writer_flush(struct writer *writer)
{
	if (writer->rc || !writer->used)
		return;
	writer->crc = crc32c(writer->crc, writer->chunk, writer->used);
	writer->rc = sys_pwrite_full(writer->tier->sys, writer->fd, writer->chunk, writer->used,
				     writer->at);
	writer->at += (off_t)writer->used;
	writer->used = 0;
}

static void writer_add(struct writer *writer, const void *data, size_t bytes)
{
	if (writer->used + bytes > CHUNK_BYTES)
		writer_flush(writer);
	if (writer->rc) /* the chunk stays full */
		return;
	memcpy(writer->chunk + writer->used, data, bytes);
	writer->used += bytes;
}

static void add_dirs(struct writer *writer)
{
	struct posix *tier = writer->tier;

	for (uint32_t i = 0; i < 1u << tier->dirs_log2; i++) {
		struct snapshot_dir dir = {0};
		char name[NAME_DIR_LENGTH + 1];
		struct stat st;

		name_dir(i, name);
		if (tier->dirs[i].exists && !writer->rc &&
		    tier->sys->fstatat(tier->blocks_fd, name, &st, 0) == 0) {
			dir.exists = 1;
			dir.mtime_ns = tier->dirs[i].leftover ? 0 : stat_mtime_ns(&st);
			dir.charge = stat_charge(&st);
		}
		writer_add(writer, &dir, sizeof(dir));
	}
}

static uint64_t add_entries(struct writer *writer)
{
	struct index *index = writer->tier->index;
	uint64_t count = 0;

	for (struct index_entry *entry = index_next(index, NULL); entry;
	     entry = index_next(index, entry)) {
		struct snapshot_entry out;

		memset(&out, 0, sizeof(out));
		out.id.key = entry->key.key;
		out.id.space = entry->key.space;
		out.id.generation = entry->key.generation;
		if (entry->parent != INDEX_NONE)
			out.parent = index_at(index, entry->parent)->key.key;
		out.sequence = entry->sequence;
		out.charge = entry->charge;
		out.shard_bytes = entry->shard_bytes;
		out.last_bytes = entry->last_bytes;
		out.depth = entry->depth;
		out.shard_count = entry->shard_count;
		out.flags = entry->flags & ENTRY_RAW ? SNAPSHOT_RAW : 0;
		writer_add(writer, &out, sizeof(out));
		count++;
	}
	return count;
}

static int write_all(struct posix *tier, int fd, uint64_t snapshot_id)
{
	struct writer writer = {.tier = tier, .fd = fd, .at = sizeof(struct snapshot_head)};
	struct snapshot_head head;

	writer.chunk = tier->sys->alloc(64, CHUNK_BYTES);
	if (!writer.chunk)
		return -ENOMEM;
	memset(&head, 0, sizeof(head));
	head.snapshot_id = snapshot_id;
	memcpy(head.uuid, tier->super.uuid, sizeof(head.uuid));
	head.dir_count = 1u << tier->dirs_log2;
	add_dirs(&writer);
	head.entry_count = add_entries(&writer);
	writer_flush(&writer);
	head.body_crc = writer.crc;
	snapshot_seal(&head);
	if (!writer.rc)
		writer.rc = sys_pwrite_full(tier->sys, fd, &head, sizeof(head), 0);
	if (!writer.rc)
		writer.rc = tier->sys->fsync(fd);
	tier->sys->free(writer.chunk);
	return writer.rc;
}

int snapshot_save(struct posix *tier)
{
	const struct sys *sys = tier->sys;
	uint64_t id = tier->super.snapshot_id + 1;
	int fd, rc = sys->unlinkat(tier->dir_fd, "index", 0);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	fd = sys->openat(tier->dir_fd, "index.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return fd;
	rc = write_all(tier, fd, id);
	sys->close(fd);
	if (rc == 0)
		rc = sys->renameat2(tier->dir_fd, "index.new", tier->dir_fd, "index", 0);
	if (rc < 0) {
		sys->unlinkat(tier->dir_fd, "index.new", 0);
		return rc;
	}
	tier->super.snapshot_id = id;
	return sys->fsync(tier->dir_fd);
}

/* ---- reading ---------------------------------------------------------------------------- */

static int body_read(const struct sys *sys, int fd, struct snapshot *snapshot, bool *ret_good)
{
	const struct snapshot_head *head = &snapshot->head;
	size_t dirs = head->dir_count * sizeof(struct snapshot_dir);
	size_t entries = head->entry_count * sizeof(struct snapshot_entry);
	uint32_t crc;
	int rc;

	snapshot->dirs = sys->alloc(64, dirs ? dirs : 1);
	snapshot->entries = sys->alloc(64, entries ? entries : 1);
	if (!snapshot->dirs || !snapshot->entries)
		return -ENOMEM;
	rc = sys_pread_full(sys, fd, snapshot->dirs, dirs, sizeof(*head));
	if (rc == 0)
		rc = sys_pread_full(sys, fd, snapshot->entries, entries,
				    (off_t)(sizeof(*head) + dirs));
	if (rc < 0)
		return rc == -EIO || rc == -ENODATA ? 0 : rc;
	crc = crc32c(crc32c(0, snapshot->dirs, dirs), snapshot->entries, entries);
	*ret_good = crc == head->body_crc;
	for (uint64_t i = 0; i < head->entry_count && *ret_good; i++)
		*ret_good = snapshot_entry_check(&snapshot->entries[i]);
	return 0;
}

int snapshot_load(const struct sys *sys, int dir_fd, const uint8_t uuid[16],
		  struct snapshot **ret_snapshot)
{
	struct snapshot *snapshot;
	bool good = false;
	struct stat st;
	int rc, fd = sys->openat(dir_fd, "index", O_RDONLY | O_CLOEXEC, 0);

	*ret_snapshot = NULL;
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	snapshot = sys_zalloc(sys, 64, sizeof(*snapshot));
	if (!snapshot) {
		sys->close(fd);
		return -ENOMEM;
	}
	rc = sys->fstat(fd, &st);
	if (rc == 0)
		rc = sys_pread_full(sys, fd, &snapshot->head, sizeof(snapshot->head), 0);
	if (rc == 0 && snapshot_decode(&snapshot->head) == HEAD_OK &&
	    memcmp(snapshot->head.uuid, uuid, 16) == 0 &&
	    snapshot->head.entry_count <= (uint64_t)st.st_size / sizeof(struct snapshot_entry) &&
	    (uint64_t)st.st_size ==
		    sizeof(snapshot->head) +
			    snapshot->head.dir_count * sizeof(struct snapshot_dir) +
			    snapshot->head.entry_count * sizeof(struct snapshot_entry))
		rc = body_read(sys, fd, snapshot, &good);
	sys->close(fd);
	if (good) {
		*ret_snapshot = snapshot;
		return 0;
	}
	snapshot_free(sys, snapshot);
	return rc == -EIO || rc == -ENODATA ? 0 : rc;
}

void snapshot_free(const struct sys *sys, struct snapshot *snapshot)
{
	if (!snapshot)
		return;
	if (snapshot->dirs)
		sys->free(snapshot->dirs);
	if (snapshot->entries)
		sys->free(snapshot->entries);
	sys->free(snapshot);
}
