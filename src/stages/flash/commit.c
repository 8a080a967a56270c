/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deaths made lasting: the marks of a region say which of its records do not
 * count any more.
 *
 * Invariants, numbered:
 *  1. Every record that dies while its region lives is marked in memory at once;
 *     `kill_dirty` says which pages have such marks that are not in the file.
 *  2. The two copies of a page are written in turn, by one job at a time: the one
 *     that was written last once more, until it is flushed, or a power cut could
 *     tear both.
 *  3. What could not be read at open, and may be readable at the next one, is given
 *     up with the first batch: a remove does not know whether it was in there.
 *  4. What died before a batch began does not come back when the batch is over:
 *     no region that was being reclaimed then, or that begins a new use as the batch comes
 *     to it, can be found any more as it was (the one may have had a copy, the other has no
 *     page to be written), every page that was dirty after that is written, and,
 *     where the batch is to be durable, a flush began after both and has ended.
 *  5. Deaths that were flushed are then written into the other copy, too, before the
 *     batch is over: or the loss of one copy could bring back what was removed.
 *     Before any page is written, what was carried out of a region is flushed, though that
 *     failed at first: else a power cut could leave the mark, and not the copy.
 *  6. Uses are written too, a few pages a second and only while there are any, so that a
 *     SIGKILL takes little of what is known of them; nobody waits for that.
 *  7. Regions that were retired since are told in the superblock, before all else, and
 *     flushed whatever sync= is.
 *  8. The first batch ever that is to be durable says so in the superblock. From when it is asked
 *     for on the log flushes what it does; what it did before without is flushed first, when no
 *     reclaim from before is under way.
 *  9. No page of a use is written whose header is not flushed: it may be that of the use before,
 *     after a power cut, and what its marks said would be lost.
 * 10. No page is made of a region that is between two uses: marks of the last one would be
 *     taken for the next one's, and its records for dead.
 */
#include "stages/flash/tier.h"

#define PAGES_MAX 8u
#define NO_REGION UINT32_MAX
#define UNFLUSHED 0x80000000u /* in a page's counter: of the copy that was written last */

/*
 * Where a pass over the pages of marks of all regions goes on: within a region in that use of it
 * alone (invariant 10).
 */
struct walk {
	uint32_t region, page;
	uint64_t pages; /* of that region, that the pass took on, modulo 64 */
	uint64_t seq;	/* of that use */
	bool entered;
};

struct commit {
	struct stage_job job;
	struct flash *tier;
	struct engine_chain chain;
	struct engine_op ops[PAGES_MAX + 1];
	struct iovec iov[PAGES_MAX];
	struct flash_marks *pages; /* PAGES_MAX */
	uint32_t voids[PAGES_MAX]; /* the region whose header this one is; NO_REGION: marks */
	/* [m] */
	bool running, asleep;
	bool durable; /* of the batch */
	bool durable_next;
	uint64_t reclaims; /* those that have to end first */
	struct waiter *batch, *next;
	struct walk kill; /* deaths, from the first region to the last */
	int64_t result;
	bool flushed;
	bool second;	/* the other copies of what was flushed are being written */
	bool super;	/* the chain under way has the superblock */
	bool asked;	/* ... which says so for the first time */
	uint64_t flush; /* the number of the flush in the chain under way; 0: none */
	uint64_t flushed_ns;
	struct walk warm;   /* uses, round and round */
	bool warm_held;	    /* pages with uses wait for a flush */
	bool kills;	    /* somebody began to wait for it, and may have left */
	uint32_t warm_left; /* pages with uses that may be written now */
	bool super_failed;  /* in this batch: not once more */
	bool owed;	    /* the chain under way is a flush that was owed */
	uint32_t owed_then;
};

int commit_init(struct flash *tier)
{
	struct commit *commit = sys_zalloc(tier->sys, 64, sizeof(*commit));

	if (!commit)
		return -ENOMEM;
	tier->commit = commit;
	commit->tier = tier;
	commit->flushed_ns = tier->sys->now_ns(); /* an open does */
	commit->pages = sys_zalloc(tier->sys, FLASH_PAGE, PAGES_MAX * sizeof(*commit->pages));
	return commit->pages ? 0 : -ENOMEM;
}

void commit_fini(struct flash *tier)
{
	if (!tier->commit)
		return;
	if (tier->commit->pages)
		tier->sys->free(tier->commit->pages);
	tier->sys->free(tier->commit);
	tier->commit = NULL;
}

/* Of a use of a region that can still be found. */
static bool region_counts(const struct region *region)
{
	return region->state != REGION_BLANK && region->state != REGION_FREE;
}

/* [m] A page as it is now; where it goes. */
static uint64_t page_make(struct flash *tier, uint32_t region, uint32_t page,
			  struct flash_marks *ret_page)
{
	const struct flash_layout *layout = &tier->layout;
	uint32_t *counter = &tier->mark_counters[(size_t)region * layout->mark_pages + page];
	uint32_t first = page * FLASH_MARKS_PER_PAGE;
	uint32_t count = layout->records_max - first;

	assert(region_counts(&tier->regions[region]));
	if (count > FLASH_MARKS_PER_PAGE)
		count = FLASH_MARKS_PER_PAGE;
	memset(ret_page, 0, sizeof(*ret_page));
	ret_page->region = region;
	ret_page->region_seq = tier->regions[region].seq;
	*counter = (*counter & UNFLUSHED ? *counter + FLASH_COPIES : *counter + 1) | UNFLUSHED;
	ret_page->counter = *counter & ~UNFLUSHED;
	ret_page->page = page;
	memcpy(ret_page->marks, mark_at(tier, region, first), count);
	flash_marks_seal(ret_page, flash_salt(&tier->super.id, ret_page->region_seq));
	return flash_marks_at(layout, region, page, ret_page->counter % FLASH_COPIES);
}

/* [m] An operation of the next chain. */
static struct engine_op flush_op(struct commit *commit)
{
	commit->flush = ++commit->tier->flush_sent;
	return (struct engine_op){.code = OP_FDATASYNC, .fd = commit->tier->fd};
}

/* [m] */
static bool header_unsure(const struct flash *tier, const struct region *region)
{
	return tier->flush_over < region->header_flush;
}

/* A flush ended that began after every page was written. */
static void pages_flushed(struct flash *tier)
{
	size_t count = (size_t)tier->layout.region_count * tier->layout.mark_pages;

	tier_lock(tier);
	for (size_t i = 0; i < count; i++)
		if (tier->mark_counters[i] & UNFLUSHED) /* a page that was never used stays so */
			tier->mark_counters[i] &= ~UNFLUSHED;
	tier_unlock(tier);
}

static void commit_step(struct commit *commit);

/* Pages that may not have come through: the next batch writes them. */
static void pages_again(struct commit *commit)
{
	struct flash *tier = commit->tier;

	tier_lock(tier);
	for (uint32_t i = 0; i < commit->chain.op_count; i++) {
		const struct flash_marks *page = &commit->pages[i];
		struct region *region;

		if (commit->ops[i].code != OP_WRITEV)
			continue;
		if (commit->voids[i] != NO_REGION) {
			tier->regions[commit->voids[i]].unread = true;
			continue;
		}
		region = &tier->regions[page->region];
		if (region->seq != page->region_seq)
			continue;
		region->kill_single |= 1ull << (page->page % 64);
		tier->kill_singles = true;
		if (!commit->second)
			region->kill_dirty |= 1ull << (page->page % 64);
	}
	tier_unlock(tier);
}

static void super_written(struct commit *commit)
{
	struct flash *tier = commit->tier;

	commit->super = false;
	tier_lock(tier);
	commit->super_failed = commit->chain.result < 0;
	tier->super_unsure = commit->super_failed;
	tier->retired_new = tier->retired_new || commit->super_failed;
	super_told(tier, !commit->super_failed);
	if (commit->asked && commit->super_failed) {
		tier->super.flags |= FLASH_SUPER_UNASKED;
		commit->result = commit->chain.result;
	} else if (commit->asked) {
		tier->unasked = false;
	}
	commit->asked = false;
	tier_unlock(tier);
	if (commit->super_failed)
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
}

/* What failed meanwhile is owed another one. */
static void owed_flushed(struct commit *commit)
{
	struct flash *tier = commit->tier;

	commit->owed = false;
	if (commit->chain.result < 0) {
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
		commit->result = commit->chain.result;
		return;
	}
	tier_lock(tier);
	if (tier->flush_owed == commit->owed_then)
		tier->flush_owed = 0;
	tier_unlock(tier);
	pages_flushed(tier);
}

static void pages_written(struct engine_chain *chain)
{
	struct commit *commit = (struct commit *)((char *)chain - offsetof(struct commit, chain));

	fence_end(commit->tier);
	if (commit->flush && chain->result >= 0) {
		tier_lock(commit->tier);
		commit->tier->flush_over = commit->flush;
		commit->flushed_ns = commit->tier->sys->now_ns();
		tier_unlock(commit->tier);
	}
	commit->flush = 0;
	for (uint32_t i = 0; i < chain->op_count; i++)
		if (commit->ops[i].code == OP_WRITEV)
			cairn_count(commit->tier->env, CNT_OTHER_BYTES, commit->ops[i].length);
	if (commit->super) {
		super_written(commit);
	} else if (commit->owed) {
		owed_flushed(commit);
	} else if (chain->result < 0) {
		cairn_count(commit->tier->env, CNT_IO_ERRORS, 1);
		if (!commit->second)
			commit->result = chain->result;
		pages_again(commit);
	} else if (commit->ops[0].code == OP_FDATASYNC) {
		pages_flushed(commit->tier);
	}
	commit_step(commit);
}

static void commit_send(struct commit *commit, uint32_t count)
{
	struct flash *tier = commit->tier;
	const struct engine_ops *ops;
	struct engine *engine = stage_env(tier->env)->job_engine(&commit->job, &ops);
	int rc;

	memset(&commit->chain, 0, sizeof(commit->chain));
	commit->chain.ops = commit->ops;
	commit->chain.op_count = count;
	commit->chain.direct = tier->direct;
	commit->chain.done = pages_written;
	fence_begin(tier);
	rc = ops->submit(engine, &commit->chain);
	assert(rc == 0); /* JOB_CHAINS */
	(void)rc;
}

/* One write of a batch. */
static void page_op(struct commit *commit, uint32_t at, size_t bytes, uint64_t offset)
{
	commit->iov[at] = (struct iovec){&commit->pages[at], bytes};
	commit->voids[at] = NO_REGION;
	commit->ops[at] = (struct engine_op){
		.code = OP_WRITEV,
		.fd = commit->tier->fd,
		.iov = &commit->iov[at],
		.iov_count = 1,
		.length = bytes,
		.offset = offset,
	};
}

/* [m] Does the walk know which pages it takes of the region it has come to, as that is now? */
static bool walk_is_in(const struct walk *walk, const struct region *region)
{
	return walk->entered && walk->seq == region->seq && region_counts(region);
}

static void walk_enter(struct walk *walk, const struct region *region, uint64_t pages)
{
	walk->pages = region_counts(region) ? pages : 0;
	walk->page = 0;
	walk->seq = region->seq;
	walk->entered = true;
}

static void walk_on(struct walk *walk)
{
	walk->region++;
	walk->entered = false;
}

/* [m] What is left of a region that it is in, as writes. False: @max are there, and not all. */
static bool walk_take(struct commit *commit, struct walk *walk, uint32_t *count, uint32_t max)
{
	struct flash *tier = commit->tier;

	assert(walk_is_in(walk, &tier->regions[walk->region]) || !walk->pages);
	for (; walk->pages && walk->page < tier->layout.mark_pages; walk->page++) {
		if (!(walk->pages >> (walk->page % 64) & 1))
			continue;
		if (*count == max)
			return false;
		page_op(commit, *count, FLASH_PAGE,
			page_make(tier, walk->region, walk->page, &commit->pages[*count]));
		++*count;
	}
	return true;
}

/*
 * [m] Pages with uses that are not written, from region to region, while nobody waits.
 * They are not flushed: what a power cut takes of them is recency. How many.
 */
static uint32_t warm_take(struct commit *commit)
{
	struct flash *tier = commit->tier;
	struct walk *walk = &commit->warm;
	uint32_t regions = tier->layout.region_count, count = 0, max;

	if (tier->flush_owed) /* they would tell deaths, too */
		commit->warm_left = 0;
	if (commit->next || !commit->warm_left)
		return 0;
	max = commit->warm_left < PAGES_MAX ? commit->warm_left : PAGES_MAX;
	commit->warm_held = false;
	for (uint32_t seen = 0; seen <= regions; seen++, walk_on(walk)) {
		struct region *region;

		walk->region %= regions;
		region = &tier->regions[walk->region];
		if (header_unsure(tier, region)) {
			commit->warm_held = commit->warm_held || region->warm;
			continue;
		}
		if (!walk_is_in(walk, region)) {
			walk_enter(walk, region, region->warm);
			region->warm = 0;
		}
		if (!walk_take(commit, walk, &count, max)) {
			commit->warm_left -= count;
			return count;
		}
	}
	commit->warm_left = 0;
	tier->warm = commit->warm_held;
	return count;
}

/* [m] Uses are worth a flush now and then, where the log does without. */
static bool warm_flush(struct commit *commit)
{
	uint64_t now_ns = commit->tier->sys->now_ns();

	if (!commit->warm_held || commit->next || now_ns - commit->flushed_ns < WARM_FLUSH_NS)
		return false;
	commit->flushed_ns = now_ns;
	commit->warm_left = WARM_PAGES;
	return true;
}

/* [m] The superblock, and a flush. @asked: with another one before, of all that was written. */
static uint32_t super_take(struct commit *commit, bool asked)
{
	const struct engine_op flush = flush_op(commit);
	struct flash *tier = commit->tier;
	uint32_t at = 0;

	if (asked) {
		tier->super.flags &= ~FLASH_SUPER_UNASKED;
		commit->ops[at++] = flush;
	}
	tier->super.epoch = tier->epoch;
	page_op(commit, at, FLASH_PAGE,
		flash_super_make(tier, (struct flash_super_page *)(void *)&commit->pages[at]));
	commit->ops[at + 1] = flush;
	commit->super = true;
	commit->asked = asked;
	return at + 2;
}

/*
 * [m] Records were carried, and are not flushed: before a mark says that they are dead. Or headers
 * are not.
 */
static uint32_t owed_take(struct commit *commit)
{
	commit->ops[0] = flush_op(commit);
	commit->owed = true;
	commit->owed_then = commit->tier->flush_owed;
	return 1;
}

/* [m] A new use of a region that was not read: nothing of an earlier one is found any more. */
static void header_void(struct commit *commit, uint32_t number, uint32_t at)
{
	struct flash *tier = commit->tier;
	struct region *region = &tier->regions[number];
	struct flash_region_head *head = (void *)&commit->pages[at];

	assert(region->state == REGION_RETIRED && !region->live);
	region->seq = ++tier->region_seq;
	region->unread = false;
	memset(head, 0, tier->layout.unit);
	flash_region_head_init(head, &tier->super, number, region->seq, 0, tier->epoch,
			       tier->sys->realtime_ns());
	page_op(commit, at, tier->layout.unit, flash_region_at(&tier->layout, number));
	commit->voids[at] = number;
}

/* [m] The pages of a region that are to be written in this pass. */
static uint64_t region_take(struct commit *commit, struct region *region)
{
	uint64_t pages = commit->second ? region->kill_single : region->kill_dirty;

	if (!region_counts(region))
		pages = 0;
	if (commit->second) {
		region->kill_single = 0;
		return pages;
	}
	region->kill_dirty = 0;
	region->kill_single |= pages;
	commit->tier->kill_singles = commit->tier->kill_singles || pages;
	return pages;
}

/*
 * [m] The next pages into memory. How many; 0 with @ret_owed: first a flush; 0 with more
 * commit->reclaims than are over: first those.
 */
static uint32_t pages_take(struct commit *commit, bool *ret_owed)
{
	struct flash *tier = commit->tier;
	struct walk *walk = &commit->kill;
	uint32_t count = 0;

	for (; walk->region < tier->layout.region_count; walk_on(walk)) {
		struct region *region = &tier->regions[walk->region];

		if (count == PAGES_MAX)
			return count;
		if (region->unread) {
			header_void(commit, walk->region, count++);
			continue;
		}
		if (reclaim_begins(tier, walk->region)) {
			commit->reclaims = tier->reclaims_begun;
			walk->entered = false;
			return count;
		}
		if (header_unsure(tier, region) &&
		    (walk_is_in(walk, region) || region->kill_dirty || region->kill_single)) {
			*ret_owed = count == 0;
			return count;
		}
		if (!walk_is_in(walk, region))
			walk_enter(walk, region, region_take(commit, region));
		if (!walk_take(commit, walk, &count, PAGES_MAX))
			return count;
	}
	return count;
}

/* [m] The batch has what it waited for; the next one begins, or the job ends. */
static bool batch_over(struct commit *commit)
{
	struct flash *tier = commit->tier;

	for (struct waiter *w = commit->batch; w; w = w->next)
		fio_of(w)->flush_result = commit->result;
	waiters_wake(&commit->batch);
	commit->running =
		commit->next || (tier->retired_new && !commit->super_failed) || commit->warm_left;
	if (!commit->running)
		return false;
	commit->batch = commit->next;
	commit->next = NULL;
	for (struct waiter *w = commit->batch; w; w = w->next)
		w->list = &commit->batch;
	commit->kills = commit->batch != NULL;
	commit->durable = commit->durable_next;
	commit->durable_next = false;
	commit->kill = (struct walk){0};
	commit->result = 0;
	commit->flushed = commit->second = commit->super_failed = false;
	commit->reclaims = tier->reclaims_begun;
	return true;
}

static void commit_step(struct commit *commit)
{
	struct flash *tier = commit->tier;
	uint32_t count = 0;
	bool owed = false;

	tier_lock(tier);
	for (;;) {
		if (tier->retired_new && !commit->super_failed) {
			count = super_take(commit, false);
			break;
		}
		if (!commit->kills) {
			count = warm_take(commit);
			if (count == 0 && warm_flush(commit))
				count = owed_take(commit);
			if (count)
				break;
		} else if (tier->reclaims_over < commit->reclaims) { /* commit_kick() comes */
			commit->asleep = true;
			tier_unlock(tier);
			return;
		} else if (commit->durable && tier->unasked && !commit->result) {
			count = super_take(commit, true);
			break;
		} else if (tier->flush_owed && !commit->result) {
			count = owed_take(commit);
			break;
		} else if (!tier->flush_owed && (count = pages_take(commit, &owed)) > 0) {
			break;
		} else if (tier->reclaims_over < commit->reclaims) {
			continue;
		} else if (owed && !commit->result) {
			count = owed_take(commit);
			break;
		} else if (commit->durable && !commit->flushed && !commit->result) {
			commit->ops[0] = flush_op(commit);
			commit->flushed = true;
			count = 1;
			break;
		} else if (commit->flushed && !commit->second && !commit->result &&
			   tier->kill_singles) {
			tier->kill_singles = false;
			commit->second = true;
			commit->kill = (struct walk){0};
			continue;
		}
		if (!batch_over(commit)) {
			stage_env(tier->env)->job_end(tier->env, &commit->job);
			break;
		}
	}
	tier_unlock(tier);
	if (count)
		commit_send(commit, count);
}

static void commit_run(struct stage_job *job)
{
	commit_step((struct commit *)((char *)job - offsetof(struct commit, job)));
}

void commit_kick(struct flash *tier)
{
	if (!tier->commit->asleep)
		return;
	tier->commit->asleep = false;
	stage_env(tier->env)->job_again(&tier->commit->job);
}

static void commit_over(struct waiter *waiter)
{
	struct fio *f = fio_of(waiter);
	void (*then)(struct fio *) = f->then;

	f->then = NULL;
	then(f);
}

/* [m] The job begins, if it is not under way. */
static void commit_start(struct commit *commit)
{
	struct flash *tier = commit->tier;

	if (commit->running)
		return;
	commit->running = true;
	commit->result = 0;
	commit->super_failed = false;
	batch_over(commit); /* of none: the next batch is this one */
	commit->job.run = commit_run;
	stage_env(tier->env)->job_start(tier->env, &commit->job, 0);
}

void commit_super(struct flash *tier)
{
	commit_start(tier->commit);
	commit_kick(tier); /* it need not wait for a reclaim */
}

void commit_warm(struct flash *tier)
{
	uint64_t now_ns = tier->sys->now_ns();

	if (tier->commit->running || !tier->warm || now_ns - tier->warmed_ns < WARM_NS)
		return;
	tier->warmed_ns = now_ns;
	tier->commit->warm_left = WARM_PAGES;
	commit_start(tier->commit);
}

void commit_wait(struct fio *f, bool durable, void (*then)(struct fio *))
{
	struct flash *tier = f->tier;
	struct commit *commit = tier->commit;

	f->then = then;
	f->flush_result = 0;
	tier_lock(tier);
	waiter_park(&f->wait, &commit->next, commit_over);
	commit->durable_next = commit->durable_next || durable;
	tier->lazy = tier->lazy && !durable;
	commit_start(commit);
	tier_unlock(tier);
}

enum pages {
	PAGES_ALL,    /* that have records */
	PAGES_DIRTY,  /* with deaths that are not written */
	PAGES_SINGLE, /* with deaths that one copy alone tells */
};

static int marks_write(struct flash *tier, enum pages which)
{
	struct flash_marks *page = tier->commit->pages;

	for (uint32_t i = 0; i < tier->layout.region_count; i++) {
		struct region *region = &tier->regions[i];
		uint32_t pages =
			(region->records + FLASH_MARKS_PER_PAGE - 1) / FLASH_MARKS_PER_PAGE;
		uint64_t wanted = which == PAGES_ALL	 ? UINT64_MAX
				  : which == PAGES_DIRTY ? region->kill_dirty
							 : region->kill_single;

		if (!region_counts(region))
			continue;
		for (uint32_t at = 0; at < pages; at++) {
			uint64_t offset;
			int rc;

			if (!(wanted >> (at % 64) & 1))
				continue;
			offset = page_make(tier, i, at, page);
			rc = sys_pwrite_full(tier->sys, tier->fd, page, FLASH_PAGE, (off_t)offset);
			cairn_count(tier->env, CNT_OTHER_BYTES, FLASH_PAGE);
			if (rc < 0)
				return rc;
		}
		region->kill_single |= region->kill_dirty;
		region->kill_dirty = 0;
		tier->kill_singles = tier->kill_singles || region->kill_single;
	}
	return 0;
}

void marks_write_dead(struct flash *tier)
{
	int rc = flash_super_unsure(&tier->super) ? tier->sys->fdatasync(tier->fd) : 0;

	if (rc == 0)
		rc = marks_write(tier, PAGES_DIRTY);
	if (rc < 0) /* the next remove tries again */
		cairn_count(tier->env, CNT_IO_ERRORS, 1);
}

void marks_flushed(struct flash *tier)
{
	pages_flushed(tier);
}

int marks_write_all(struct flash *tier)
{
	int rc = tier->flush_owed || tier->unasked ? tier->sys->fdatasync(tier->fd) : 0;

	if (rc == 0)
		rc = marks_write(tier, PAGES_ALL);
	if (rc == 0)
		rc = tier->sys->fdatasync(tier->fd);
	if (rc < 0)
		return rc;
	pages_flushed(tier);
	rc = marks_write(tier, PAGES_SINGLE);
	return rc < 0 ? rc : tier->sys->fdatasync(tier->fd);
}
