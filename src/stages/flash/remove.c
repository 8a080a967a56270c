/* SPDX-License-Identifier: Apache-2.0 */
/* Removes and prefetches. */
#include "stages/flash/tier.h"

static void remove_look(struct fio *f);

static void remove_look_step(struct waiter *waiter)
{
	remove_look(fio_of(waiter));
}

static void remove_committed(struct fio *f)
{
	if (f->flush_result < 0)
		f->io->status = fio_errno(f->flush_result);
	fio_complete(f);
}

/* [m] False: shards of it are being written; they see that it is doomed. */
static bool take_out(struct fio *f, uint32_t id)
{
	struct flash *tier = f->tier;
	uint32_t number = partial_find(tier, f->fingerprint);

	if (number == UINT32_MAX) {
		f->io->status = 0;
		space_count(tier, f->space, false);
		cairn_count(tier->env, CNT_REMOVED, 1);
	} else if (tier->partials[number].claim_count) {
		tier->partials[number].doomed = true;
		return false;
	} else {
		flash_partial_free(tier, number);
	}
	block_remove(tier, id);
	room_given(tier);
	return true;
}

static void remove_look(struct fio *f)
{
	struct flash *tier = f->tier;
	bool fenced;
	uint32_t id;

	tier_lock(tier);
	f->generation = f->space->generation;
	f->fingerprint = table_fingerprint(tier->table, &f->io->key, f->space->id, f->generation);
	id = table_find(tier->table, f->fingerprint);
	if (id != TABLE_NONE && !take_out(f, id) && !tier->fenced) {
		waiter_wait(&f->wait, fio_key_list(f), remove_look_step);
		tier_unlock(tier);
		return;
	}
	fenced = tier->fenced;
	tier_unlock(tier);
	if (fenced) { /* it is gone in memory, and in the file when the device answers */
		f->io->status = -EIO;
		fio_complete(f);
		return;
	}
	if (f->io->status == CAIRN_PENDING)
		f->io->status = -ENOENT;
	/* One that finds nothing also stands for what an unwritten remove took away. */
	commit_wait(f, tier_lasts(tier, f->io->durability), remove_committed);
}

void flash_remove_submit(struct fio *f)
{
	if (f->io->durability == CAIRN_DURABLE && f->tier->sync == SYNC_NONE) {
		f->io->status = -EOPNOTSUPP;
		fio_complete(f);
		return;
	}
	remove_look(f);
}

void flash_prefetch_submit(struct fio *f)
{
	struct flash *tier = f->tier;
	uint32_t id;

	tier_lock(tier);
	id = table_find(tier->table, table_fingerprint(tier->table, &f->io->key, f->space->id,
						       f->space->generation));
	if (id != TABLE_NONE && (tier->fenced || table_state(tier->table, id) != TABLE_WHOLE ||
				 block_expired(tier, id)))
		id = TABLE_NONE;
	f->io->status = id == TABLE_NONE ? -ENOENT : 0;
	tier_unlock(tier);
	fio_complete(f);
}
