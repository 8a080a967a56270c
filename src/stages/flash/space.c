/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: all of them in one area of the file, in two copies written in turn.
 *
 * Invariants, numbered:
 *  1. A description has one id, and an id one description, for ever.
 *  2. What bind() and clear() tell is in the file: a crash leaves the area as it
 *     was, or as it is then. Once it is flushed the other copy says the same, or the
 *     loss of one could bring back what was cleared. Who waits for a device that does not
 *     answer leaves when the tier is fenced, or after twice hang=; the change is made when
 *     it answers, and until then there is no other.
 *  3. Records of another generation than the namespace's are dead, without a mark.
 */
#include "stages/flash/scan.h"
#include "stages/flash/tier.h"

/*
 * A change on its way into the file: a job, so that a device that does not answer holds
 * nobody's thread. A copy is written only while the other one is flushed, else a power cut
 * could tear both.
 */
struct space_write {
	struct stage_job job;
	struct flash *tier;
	struct engine_chain chain;
	struct engine_op ops[2];
	struct iovec iov;
	void (*then)(struct space_write *);
	uint8_t *area;	     /* of the copy that is written */
	struct space *more;  /* one that is new; moved here */
	struct space *clear; /* one whose generation is raised */
	bool flush;
	int result;
	/* [m] */
	struct answer *asked; /* who waits; NULL: nobody */
	bool left;	      /* whoever did has left */
	uint64_t since_ns;
};

struct answer {
	bool over, late;
	int result;
};

static int write_init(struct flash *tier)
{
	struct space_write *w = sys_zalloc(tier->sys, 64, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->tier = tier;
	tier->space_write = w;
	return 0;
}

static void write_fini(struct flash *tier)
{
	if (tier->space_write)
		tier->sys->free(tier->space_write);
	tier->space_write = NULL;
}

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
	rc = write_init(tier);
	if (rc < 0)
		return rc;
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
	if (rc == -EPROTO)
		return flash_error(reterr, rc,
				   "%s: the namespaces are of a format version that this library "
				   "does not know; it knows %u",
				   tier->path, FLASH_FORMAT);
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
	write_fini(tier);
	if (!tier->spaces)
		return;
	for (uint32_t i = 0; i < tier->space_end; i++)
		if (tier->spaces[i])
			tier->sys->free(tier->spaces[i]);
	tier->sys->munmap(tier->spaces, FLASH_SPACES_MAX * sizeof(*tier->spaces));
	tier->spaces = NULL;
}

/* ---- writing ----------------------------------------------------------------------------- */

/* All of them, and @more; @clear as it will be. Both may be NULL. Who calls it changes them. */
static int area_make(struct flash *tier, void *area, const struct space *more,
		     const struct space *clear)
{
	flash_space_begin(area, &tier->super.id, 0);
	for (uint32_t i = 0; i <= tier->space_end; i++) {
		const struct space *space = i < tier->space_end ? tier->spaces[i] : more;
		struct flash_space_entry entry;

		if (!space)
			continue;
		entry = (struct flash_space_entry){
			.id = space->id,
			.generation = space->generation + (space == clear ? 1 : 0),
			.desc_length = space->desc_length,
			.shard_count = space->shard_count,
			.shard_bytes = space->shard_bytes,
		};
		if (!flash_space_add(area, tier->layout.space_bytes, &entry, space->desc))
			return -ENOSPC;
	}
	return 0;
}

/* Made, as the next copy; where it goes. */
static uint64_t area_seal(struct flash *tier, uint8_t *area, uint64_t counter, uint32_t *ret_bytes)
{
	((struct flash_space_head *)(void *)area)->counter = counter;
	*ret_bytes = flash_space_seal(area);
	cairn_count(tier->env, CNT_OTHER_BYTES, *ret_bytes);
	return flash_space_at(&tier->layout, (uint32_t)(counter % FLASH_COPIES));
}

/* The copy that is flushed stays as it is. */
static uint64_t counter_next(const struct flash *tier)
{
	return tier->space_counter + (tier->space_unflushed ? FLASH_COPIES : 1);
}

static void write_done(struct engine_chain *chain)
{
	struct space_write *w =
		(struct space_write *)((char *)chain - offsetof(struct space_write, chain));

	fence_end(w->tier);
	w->then(w);
}

static void write_send(struct space_write *w, uint64_t counter, bool flush,
		       void (*then)(struct space_write *))
{
	struct flash *tier = w->tier;
	const struct engine_ops *ops;
	struct engine *engine = stage_env(tier->env)->job_engine(&w->job, &ops);
	uint32_t bytes;
	uint64_t at = area_seal(tier, w->area, counter, &bytes);
	int rc;

	w->then = then;
	w->iov = (struct iovec){w->area, bytes};
	w->ops[0] = (struct engine_op){.code = OP_WRITEV,
				       .fd = tier->fd,
				       .iov = &w->iov,
				       .iov_count = 1,
				       .offset = at,
				       .length = bytes};
	w->ops[1] = (struct engine_op){.code = OP_FDATASYNC, .fd = tier->fd};
	w->chain = (struct engine_chain){.ops = w->ops,
					 .op_count = flush ? 2 : 1,
					 .direct = tier->direct,
					 .done = write_done};
	fence_begin(tier);
	rc = ops->submit(engine, &w->chain);
	assert(rc == 0); /* JOB_CHAINS */
	(void)rc;
}

/* [m] The next change may begin. */
static void turn_end(struct flash *tier)
{
	tier->space_busy = false;
	pthread_cond_broadcast(&tier->space_over);
}

static void write_over(struct space_write *w)
{
	struct flash *tier = w->tier;

	tier->sys->free(w->area);
	if (w->result < 0 && w->more)
		tier->sys->free(w->more);
	tier_lock(tier);
	if (w->asked) {
		w->asked->over = true;
		w->asked->result = w->result;
	}
	w->asked = NULL;
	stage_env(tier->env)->job_end(tier->env, &w->job);
	turn_end(tier);
	tier_unlock(tier);
}

/* That it is there once is enough for the answer: this was for the loss of a copy. */
static void other_written(struct space_write *w)
{
	struct flash *tier = w->tier;

	if (w->chain.result < 0) {
		tier->space_unflushed = false;
	} else {
		tier->space_counter++;
		tier->space_single = false;
	}
	write_over(w);
}

static void copy_counts(struct space_write *w)
{
	struct flash *tier = w->tier;

	tier->space_counter = counter_next(tier);
	tier->space_unflushed = tier->space_single = true;
	if (w->flush)
		write_send(w, tier->space_counter + 1, false, other_written);
	else
		write_over(w);
}

static void restated(struct space_write *w)
{
	struct flash *tier = w->tier;

	if (w->chain.result >= 0) {
		copy_counts(w);
		return;
	}
	/* Under this number the file may say what is not so: the next change has a later one, or a
	 * close. */
	tier->space_counter = counter_next(tier);
	tier->space_unflushed = tier->space_single = true;
	write_over(w);
}

/* [m] The change is in the file. */
static void change_take(struct space_write *w)
{
	struct flash *tier = w->tier;

	if (w->more) {
		tier->spaces[tier->space_end++] = w->more;
		return;
	}
	w->clear->generation++;
	tier->blocks -= w->clear->blocks;
	w->clear->blocks = 0;
	flash_gauges(tier);
	room_given(tier);
}

static void change_written(struct space_write *w)
{
	struct flash *tier = w->tier;

	w->result = (int)w->chain.result;
	if (w->result == 0) {
		tier_lock(tier);
		change_take(w);
		tier_unlock(tier);
		copy_counts(w);
		return;
	}
	cairn_count(tier->env, CNT_IO_ERRORS, 1);
	/* What failed may be in the file all the same: it says again what is so. */
	if (w->clear && area_make(tier, w->area, NULL, NULL) == 0) {
		w->flush = tier->sync != SYNC_NONE;
		write_send(w, counter_next(tier), w->flush, restated);
	} else {
		write_over(w);
	}
}

static void write_run(struct stage_job *job)
{
	struct space_write *w =
		(struct space_write *)((char *)job - offsetof(struct space_write, job));

	write_send(w, counter_next(w->tier), w->flush, change_written);
}

/*
 * Until turn_end() nobody else changes the namespaces. -ETIMEDOUT: the device does not answer,
 * or has not answered who began before.
 */
static int turn_take(struct flash *tier)
{
	struct space_write *w = tier->space_write;
	int rc;

	tier_lock(tier);
	while (tier->space_busy && !w->left && !tier->fenced)
		pthread_cond_wait(&tier->space_over, &tier->mutex);
	rc = tier->space_busy || tier->fenced ? -ETIMEDOUT : 0;
	if (rc == 0) {
		tier->space_busy = true;
		w->left = false;
	}
	tier_unlock(tier);
	return rc;
}

static void turn_give(struct flash *tier)
{
	tier_lock(tier);
	turn_end(tier);
	tier_unlock(tier);
}

/*
 * In one's turn, which ends with it. -ETIMEDOUT: the device does not answer; the change may
 * be made when it does. Moves @more.
 */
static int change_make(struct flash *tier, struct space *more, struct space *clear, bool flush)
{
	struct space_write *w = tier->space_write;
	struct answer answer = {.result = -ENOMEM};

	w->area = sys_zalloc(tier->sys, FLASH_PAGE, tier->layout.space_bytes);
	if (w->area)
		answer.result = area_make(tier, w->area, more, clear);
	if (answer.result < 0) {
		if (w->area)
			tier->sys->free(w->area);
		if (more)
			tier->sys->free(more);
		turn_give(tier);
		return answer.result;
	}
	w->more = more;
	w->clear = clear;
	w->flush = flush;
	w->job.run = write_run;
	tier_lock(tier);
	w->asked = &answer;
	w->since_ns = tier->sys->now_ns();
	stage_env(tier->env)->job_start(tier->env, &w->job, 0);
	while (!answer.over && !answer.late && !tier->fenced)
		pthread_cond_wait(&tier->space_over, &tier->mutex);
	if (!answer.over) {
		answer.result = -ETIMEDOUT;
		w->asked = NULL;
		w->left = true; /* and so does who waits for the turn */
		pthread_cond_broadcast(&tier->space_over);
	}
	tier_unlock(tier);
	return answer.result;
}

void spaces_look(struct flash *tier, uint64_t now_ns)
{
	struct space_write *w = tier->space_write;

	if (tier->fenced ||
	    (tier->space_busy && w->asked && now_ns - w->since_ns >= 2 * tier->hang_ns)) {
		if (w->asked)
			w->asked->late = true;
		pthread_cond_broadcast(&tier->space_over);
	}
}

int flash_spaces_settle(struct flash *tier)
{
	uint8_t *area;
	uint32_t bytes;
	uint64_t at;
	int rc;

	if (!tier->space_single)
		return 0;
	rc = tier->sys->fdatasync(tier->fd);
	tier->space_unflushed = rc < 0;
	if (rc < 0)
		return rc;
	area = sys_zalloc(tier->sys, FLASH_PAGE, tier->layout.space_bytes);
	if (!area)
		return -ENOMEM;
	rc = area_make(tier, area, NULL, NULL);
	at = area_seal(tier, area, counter_next(tier), &bytes);
	if (rc == 0)
		rc = sys_pwrite_full(tier->sys, tier->fd, area, bytes, (off_t)at);
	tier->sys->free(area);
	if (rc < 0)
		return rc;
	tier->space_counter = counter_next(tier);
	tier->space_unflushed = true;
	tier->space_single = false;
	return 0;
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

/* In one's turn, which ends with it. */
static int space_make(struct flash *tier, const struct cairn_ns_view *ns, struct space **ret_space)
{
	struct space *space = NULL;
	int rc = -ENOSPC;

	if (tier->space_end < FLASH_SPACES_MAX) {
		space = space_new(tier, tier->space_end, ns->desc, (uint32_t)ns->desc_length);
		rc = -ENOMEM;
	}
	if (!space) {
		turn_give(tier);
		return rc;
	}
	space->shard_count = ns->shard_count;
	space->shard_bytes = ns->shard_bytes;
	rc = change_make(tier, space, NULL, tier->sync != SYNC_NONE);
	*ret_space = space;
	return rc;
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
	rc = turn_take(tier);
	if (rc == 0) {
		space = space_find(tier, ns);
		if (space)
			turn_give(tier);
		else
			rc = space_make(tier, ns, &space);
	}
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
	rc = turn_take(tier);
	if (rc == 0)
		rc = change_make(tier, NULL, space, tier_lasts(tier, durability));
	if (rc == 0)
		cairn_count(tier->env, CNT_CLEARS, 1);
	return fio_errno(rc);
}
