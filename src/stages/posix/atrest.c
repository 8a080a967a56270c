/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store at rest: list, check, identify. They open read-only, write nothing,
 * and take whatever bytes they find.
 */
#include "stages/posix/tier.h"

#include <stdio.h>
#include <sys/file.h>

#include "base/crc32c.h"

struct rest {
	const struct cairn_stage_env *env;
	const struct sys *sys;
	const char *path;
	int dir_fd, blocks_fd, space_fd, fd;
	struct super_block super;
	struct space **spaces;
	uint32_t space_end;
	uint32_t dir;
	void *context;
	struct cairn_error *reterr;
	/* list */
	int (*listed)(void *context, const struct cairn_listed *block);
	int64_t count;
	uint64_t missed;
	char *arena;
	/* check */
	int (*finding)(void *context, const struct cairn_finding *finding);
	int worst;
	uint8_t *piece;
};

#define ARENA_BYTES (SPACE_DESC_BYTES_MAX + 64u)

/* ---- opening ----------------------------------------------------------------------- */

static void rest_close(struct rest *rest)
{
	const int fds[] = {rest->blocks_fd, rest->space_fd, rest->dir_fd};

	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			rest->sys->close(fds[i]);
	if (rest->spaces) {
		spaces_free(rest->sys, rest->spaces, rest->space_end);
		rest->sys->munmap(rest->spaces, SPACES_MAX * sizeof(*rest->spaces));
	}
	if (rest->arena)
		rest->sys->free(rest->arena);
	if (rest->piece)
		rest->sys->free(rest->piece);
}

static int rest_super(struct rest *rest)
{
	int rc, fd = rest->sys->openat(rest->dir_fd, "store", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return tier_error(rest->reterr, fd,
				  "%s/store: %s: there is no store here; look at path=", rest->path,
				  strerror(-fd));
	rc = super_read(rest->sys, fd, &rest->super);
	rest->sys->close(fd);
	if (rc < 0)
		return tier_error(
			rest->reterr, rc == -EBADMSG ? -EPROTO : rc, "%s/store: %s", rest->path,
			rc == -EPROTO ? "of a format version that this library does not know"
				      : "the superblock does not check");
	return 0;
}

static int rest_open(struct rest *rest, const struct cairn_stage_env *env, void *context,
		     struct cairn_error *reterr)
{
	void *memory;
	int rc;

	rest->env = env;
	rest->sys = stage_env(env)->sys;
	rest->path = env->values[OPT_PATH].s;
	rest->context = context;
	rest->reterr = reterr;
	rest->blocks_fd = rest->space_fd = -1;
	rest->dir_fd = sys_open_dir(rest->sys, AT_FDCWD, rest->path);
	if (rest->dir_fd < 0)
		return tier_error(reterr, rest->dir_fd, "path=%s: %s", rest->path,
				  strerror(-rest->dir_fd));
	rc = rest_super(rest);
	if (rc < 0)
		return rc;
	rest->blocks_fd = sys_open_dir(rest->sys, rest->dir_fd, "b");
	rest->space_fd = sys_open_dir(rest->sys, rest->dir_fd, "ns");
	if (rest->blocks_fd < 0 || rest->space_fd < 0)
		return tier_error(reterr, -EPROTO, "%s: has `store` but not %s", rest->path,
				  rest->blocks_fd < 0 ? "b/" : "ns/");
	rest->arena = rest->sys->alloc(16, ARENA_BYTES);
	rest->piece = rest->sys->alloc(FORMAT_PAGE, CAIRN_PIECE);
	rc = sys_reserve(rest->sys, SPACES_MAX * sizeof(*rest->spaces), &memory);
	if (rc < 0 || !rest->arena || !rest->piece)
		return tier_error(reterr, -ENOMEM, "%s: no memory", rest->path);
	rest->spaces = memory;
	rc = spaces_load(rest->sys, rest->space_fd, rest->spaces, &rest->space_end, NULL);
	return rc < 0 ? tier_error(reterr, rc, "%s/ns: %s", rest->path, strerror(-rc)) : 0;
}

/* Calls @fn for each name in each block directory. */
struct dir_walk {
	struct rest *rest;
	int (*fn)(void *context, const char *name);
};

static int rest_dir(void *context, const char *name)
{
	struct dir_walk *walk = context;
	struct rest *rest = walk->rest;
	int rc;

	if (!name_parse_dir(name, rest->super.dirs_log2, &rest->dir))
		return 0;
	rest->fd = sys_open_dir(rest->sys, rest->blocks_fd, name);
	if (rest->fd < 0) {
		rest->missed++;
		return 0;
	}
	rc = sys_walk_dir(rest->sys, rest->fd, walk->fn, rest);
	rest->sys->close(rest->fd);
	if (rc < 0)
		rest->missed++;
	return rc > 0 ? rc : 0;
}

static int rest_walk(struct rest *rest, int (*fn)(void *context, const char *name))
{
	struct dir_walk walk = {rest, fn};
	int rc, fd = sys_open_dir(rest->sys, rest->blocks_fd, ".");

	if (fd < 0)
		return fd;
	rc = sys_walk_dir(rest->sys, fd, rest_dir, &walk);
	rest->sys->close(fd);
	return rc;
}

static const struct space *rest_space(const struct rest *rest, uint32_t id)
{
	const struct space *space = id < rest->space_end ? rest->spaces[id] : NULL;

	return space && space->readable ? space : NULL;
}

/* The whole head of an open block. NULL: none, or no memory. To be freed. */
static uint8_t *head_load(struct rest *rest, int fd, struct geometry *ret_geo,
			  enum head_verdict *ret_verdict)
{
	struct block_head head;
	uint8_t *image;

	*ret_verdict = HEAD_DAMAGED;
	if (sys_pread_full(rest->sys, fd, &head, sizeof(head), 0) < 0)
		return NULL;
	*ret_verdict = head_decode(&head, ret_geo);
	if (*ret_verdict != HEAD_OK)
		return NULL;
	image = rest->sys->alloc(FORMAT_PAGE, ret_geo->head_bytes);
	if (image && sys_pread_full(rest->sys, fd, image, ret_geo->head_bytes, 0) < 0) {
		*ret_verdict = HEAD_DAMAGED;
		rest->sys->free(image);
		return NULL;
	}
	return image;
}

/* ---- list ---------------------------------------------------------------------------------- */

static int list_block(struct rest *rest, int fd, const struct block_id *id)
{
	const struct space *space = rest_space(rest, id->space);
	struct cairn_namespace_desc desc;
	struct cairn_block_attr attr;
	struct cairn_listed out;
	enum head_verdict verdict;
	struct block_head head;
	struct geometry geo;
	uint8_t *image = head_load(rest, fd, &geo, &verdict);

	if (image && head_check_all(image, geo.head_bytes, id, &geo) != HEAD_OK) {
		rest->sys->free(image);
		image = NULL;
	}
	if (!image) {
		rest->missed++;
		return 0;
	}
	memcpy(&head, image, sizeof(head));
	memset(&out, 0, sizeof(out));
	out.key = id->key;
	out.stage = rest->env->name;
	out.namespace_id = id->space;
	out.generation = id->generation;
	out.shard_count = geo.shard_count;
	out.sequence = head.sequence;
	out.whole = 1;
	head_attr(&head, &attr);
	out.attr = head.flags & BLOCK_ATTR && attr_told(&attr) ? &attr : NULL;
	out.chained = (head.flags & BLOCK_CHAIN) != 0;
	for (uint32_t i = 0; i < geo.shard_count; i++) {
		struct block_entry entry;

		memcpy(&entry, image + geometry_entry_at(&geo, i), sizeof(entry));
		out.raw_bytes += entry.raw_length;
		out.stored_bytes += entry.stored_length;
	}
	rest->sys->free(image);
	if (space && desc_decode(space->desc, space->desc_length, rest->arena, ARENA_BYTES, &desc))
		out.desc = &desc;
	rest->count++;
	return rest->listed(rest->context, &out);
}

static int list_named(void *context, const char *name)
{
	struct rest *rest = context;
	struct block_id id;
	const struct space *space;
	int fd, rc;

	if (name_parse_block(name, &id) != NAME_BLOCK)
		return 0;
	space = rest_space(rest, id.space);
	if (space && id.generation != space->generation)
		return 0; /* cleared */
	fd = rest->sys->openat(rest->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0) {
		rest->missed += fd != -ENOENT;
		return 0;
	}
	rc = list_block(rest, fd, &id);
	rest->sys->close(fd);
	return rc;
}

int64_t atrest_list(const struct cairn_stage_env *env,
		    int (*fn)(void *context, const struct cairn_listed *block), void *context,
		    uint64_t *ret_missed, struct cairn_error *reterr)
{
	struct rest rest = {.listed = fn};
	int64_t rc = rest_open(&rest, env, context, reterr);

	if (rc == 0)
		rc = rest_walk(&rest, list_named);
	if (ret_missed)
		*ret_missed = rest.missed;
	rest_close(&rest);
	return rc ? rc : rest.count;
}

/*
 * The lock tells, and is given back at once. What cannot be told, on a file
 * system without locks, counts as nobody.
 */
static int rest_in_use(const struct rest *rest)
{
	if (rest->sys->flock(rest->dir_fd, LOCK_SH | LOCK_NB) == -EAGAIN)
		return CAIRN_IN_USE;
	/* Only a store that was shared last can be open without keeping out readers. */
	if ((rest->super.flags & SUPER_SHARED) &&
	    rest->sys->flock(rest->dir_fd, LOCK_EX | LOCK_NB) == -EAGAIN)
		return CAIRN_IN_USE_SHARED;
	return 0;
}

int atrest_identify(const struct cairn_stage_env *env, uint8_t ret_uuid[16],
		    struct cairn_error *reterr)
{
	struct rest rest = {0};
	int rc = rest_open(&rest, env, NULL, reterr);

	if (rc == 0) {
		memcpy(ret_uuid, rest.super.uuid, sizeof(rest.super.uuid));
		rc = rest_in_use(&rest);
	}
	rest_close(&rest);
	return rc;
}

/* ---- check ------------------------------------------------------------------------- */

static int report(struct rest *rest, enum cairn_finding_kind kind, const char *folder,
		  const char *name, uint64_t offset, const char *what)
{
	char where[512];
	struct cairn_finding finding = {kind, rest->env->name, where, what};

	if (offset == UINT64_MAX)
		snprintf(where, sizeof(where), "%s/%s%s", rest->path, folder, name);
	else
		snprintf(where, sizeof(where), "%s/%s%s at byte %llu", rest->path, folder, name,
			 (unsigned long long)offset);
	if ((int)kind > rest->worst)
		rest->worst = (int)kind;
	return rest->finding ? rest->finding(rest->context, &finding) : 0;
}

static int report_block(struct rest *rest, enum cairn_finding_kind kind, const char *name,
			uint64_t offset, const char *what)
{
	char folder[16];
	char dir[NAME_DIR_LENGTH + 1];

	name_dir(rest->dir, dir);
	snprintf(folder, sizeof(folder), "b/%s/", dir);
	return report(rest, kind, folder, name, offset, what);
}

/* Every piece of the payload. @ret_bad: where the first one that does not check begins. */
static bool payload_sound(struct rest *rest, int fd, const uint8_t *image,
			  const struct geometry *geo, uint64_t *ret_bad)
{
	for (uint32_t shard = 0; shard < geo->shard_count; shard++) {
		const uint32_t *table = (const void *)(image + geometry_table_at(geo, shard));
		struct block_entry entry;

		memcpy(&entry, image + geometry_entry_at(geo, shard), sizeof(entry));
		for (uint64_t at = 0; at < entry.stored_length; at += CAIRN_PIECE) {
			uint64_t left = entry.stored_length - at;
			size_t bytes = left < CAIRN_PIECE ? left : CAIRN_PIECE;
			int got;

			*ret_bad = entry.offset + at;
			got = sys_pread_full(rest->sys, fd, rest->piece, bytes, (off_t)*ret_bad);
			if (got < 0 || crc32c(0, rest->piece, bytes) != table[at / CAIRN_PIECE])
				return false;
		}
	}
	return true;
}

static int check_block(struct rest *rest, int fd, const char *name, const struct block_id *id)
{
	enum head_verdict verdict;
	struct geometry geo;
	uint64_t bad = 0;
	uint8_t *image = head_load(rest, fd, &geo, &verdict);
	int rc = 0;

	if (image)
		verdict = head_check_all(image, geo.head_bytes, id, &geo);
	if (verdict == HEAD_VERSION)
		rc = report_block(rest, CAIRN_FINDING_DAMAGED, name, 0,
				  "a version or flags that this library does not know");
	else if (verdict != HEAD_OK || !image)
		rc = report_block(rest, CAIRN_FINDING_DAMAGED, name, 0, "the head does not check");
	else if (!payload_sound(rest, fd, image, &geo, &bad))
		rc = report_block(rest, CAIRN_FINDING_DAMAGED, name, bad,
				  "the payload does not match its checksum");
	if (image)
		rest->sys->free(image);
	return rc;
}

static int check_named(void *context, const char *name)
{
	struct rest *rest = context;
	struct block_id id;
	enum name_kind kind = name_parse_block(name, &id);
	const struct space *space;
	int fd, rc;

	if (kind == NAME_OTHER)
		return report_block(rest, CAIRN_FINDING_NOTE, name, UINT64_MAX,
				    "not a file of this store");
	if (kind != NAME_BLOCK)
		return report_block(rest, CAIRN_FINDING_REPAIRABLE, name, UINT64_MAX,
				    "left over by an unfinished dump");
	if (name_dir_of(&id.key, rest->super.dirs_log2) != rest->dir)
		return report_block(rest, CAIRN_FINDING_REPAIRABLE, name, UINT64_MAX,
				    "in the wrong directory: never found");
	space = rest_space(rest, id.space);
	if (!space)
		return report_block(rest, CAIRN_FINDING_DAMAGED, name, UINT64_MAX,
				    "of a namespace whose file is gone or damaged");
	if (id.generation != space->generation)
		return 0; /* cleared: goes with a later eviction */
	fd = rest->sys->openat(rest->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0)
		return report_block(rest, CAIRN_FINDING_DAMAGED, name, UINT64_MAX,
				    "could not be opened");
	rc = check_block(rest, fd, name, &id);
	rest->sys->close(fd);
	return rc;
}

static int check_quarantined(void *context, const char *name)
{
	return report(context, CAIRN_FINDING_NOTE, "quarantine/", name, UINT64_MAX,
		      "a damaged block that was set aside; it may be deleted");
}

static int check_small(struct rest *rest)
{
	struct snapshot *snapshot = NULL;
	bool clean = rest->super.flags & SUPER_CLEAN;
	int rc = snapshot_load(rest->sys, rest->dir_fd, rest->super.uuid, &snapshot), fd;

	if (rc == 0 && clean &&
	    (!snapshot || snapshot->head.snapshot_id != rest->super.snapshot_id))
		rc = report(rest, CAIRN_FINDING_REPAIRABLE, "", "index", UINT64_MAX,
			    "does not check: the next open reads the directories instead");
	snapshot_free(rest->sys, snapshot);
	if (rc == 0 && !clean && !(rest->super.flags & SUPER_SHARED))
		rc = report(rest, CAIRN_FINDING_REPAIRABLE, "", "store", UINT64_MAX,
			    "not closed cleanly: the next open reads the directories");
	for (uint32_t id = 0; id < rest->space_end && rc == 0; id++) {
		char name[NAME_SPACE_BYTES];

		name_space(id, name);
		if (rest->spaces[id] && !rest->spaces[id]->readable)
			rc = report(rest, CAIRN_FINDING_DAMAGED, "ns/", name, UINT64_MAX,
				    "does not check: its blocks cannot be found");
	}
	fd = sys_open_dir(rest->sys, rest->dir_fd, "quarantine");
	if (fd >= 0 && rc == 0)
		rc = sys_walk_dir(rest->sys, fd, check_quarantined, rest);
	if (fd >= 0)
		rest->sys->close(fd);
	return rc;
}

/* Of processes that share it none is written down. */
static int in_use_error(const struct rest *rest)
{
	bool shared = rest->super.flags & SUPER_SHARED;
	struct stage_holder holder =
		stage_holder(rest->sys, rest->dir_fd, shared ? 0 : rest->super.owner_pid);

	return tier_error(rest->reterr, -EBUSY, "%s: in use by %s: %s%s before a check", rest->path,
			  holder.who, holder.self ? "close it" : "end it",
			  shared ? ", and all that share it," : "");
}

int atrest_check(const struct cairn_stage_env *env,
		 int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		 struct cairn_error *reterr)
{
	struct rest rest = {.finding = fn};
	int rc = rest_open(&rest, env, context, reterr);

	if (rc == 0) {
		rc = sys_flock_wait(rest.sys, rest.dir_fd, LOCK_EX, env->values[OPT_OPEN_WAIT].u);
		if (rc == -EAGAIN)
			rc = in_use_error(&rest);
	}
	if (rc == 0)
		rc = check_small(&rest);
	if (rc == 0)
		rc = rest_walk(&rest, check_named);
	if (rc == 0 && rest.missed)
		rc = report(&rest, CAIRN_FINDING_DAMAGED, "", "b", UINT64_MAX,
			    "a directory could not be read");
	rest_close(&rest);
	return rc ? rc : rest.worst;
}
