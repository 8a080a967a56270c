/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget: what may be written, and what goes for it.
 *
 * Invariants, numbered:
 *  1. used + reserved + the next snapshot <= limit, whenever a reservation is
 *     made; used never grows but out of a reservation, or of a directory's
 *     growth, which each reservation has room for.
 *  2. What is being removed is part of used until its unlink has succeeded.
 *  3. A victim is absent for lookups before its unlink is sent, and its key is
 *     not written before the unlink has ended.
 *  4. Blocks of cleared namespaces go first, then the coldest leaves, then blocks of
 *     which nobody writes a shard now, the oldest first.
 *  5. A victim whose file is to be reused has left `used` when it is picked: its
 *     bytes are part of the reservation that they were picked for.
 */
#include "stages/posix/tier.h"

#include <sys/stat.h>

/* Growth of a directory by two names: a split of a leaf and of the index above. */
#define DIR_GROWTH	  (3u * FORMAT_PAGE)
/* One block of extents addresses this many extents (ext4, 4 KiB). */
#define EXTENTS_PER_BLOCK 340u
#define EXTENTS_INLINE	  4u
/* How long fstatvfs() is believed. */
#define DISK_FREE_NS	  20000000u

#define VICTIM_PARTIAL 0x80000000u

/*
 * A file that was just unlinked leaves an inode that ext4 without a journal
 * passes over for a minute, one by one, at each create: a tier that lives at its
 * budget spends its time on that. So near the budget a victim's file takes the
 * next block. This much room is kept for what dumps in flight reserve beyond
 * the file that each took over; a 64th of the budget at most.
 */
#define REUSE_ROOM_MAX (1u << 20)

/* Rounds of unlinks of which none succeeded, before a dump gives up. */
#define ROOM_TRIES_MAX 4u

struct space *tier_space(struct posix *tier, uint32_t id)
{
	return id < tier->space_end ? tier->spaces[id] : NULL;
}

/* ---- lists of a namespace's entries, and of dead ones ----------------------------- */

/*
 * Place 0 is nobody's: a head that was never used has zeros, and must not be
 * taken for one whose only entry is the first of the index.
 */
static uint32_t side_place(uint32_t entry)
{
	return entry + 1;
}

static uint32_t side_head(const struct posix *tier, uint32_t space)
{
	return side_place(tier->entries_max) + 1 + space;
}

static uint32_t side_dead(const struct posix *tier)
{
	return side_place(tier->entries_max);
}

/* Heads are zero when first used: address space that was never touched. */
static void side_ready(struct posix *tier, uint32_t head)
{
	if (tier->side[head].next || tier->side[head].prev)
		return;
	tier->side[head].next = tier->side[head].prev = head;
}

void side_init(struct posix *tier)
{
	side_ready(tier, side_dead(tier));
}

static void side_link(struct posix *tier, uint32_t head, uint32_t entry)
{
	uint32_t id = side_place(entry);

	side_ready(tier, head);
	tier->side[id].prev = tier->side[head].prev;
	tier->side[id].next = head;
	tier->side[tier->side[head].prev].next = id;
	tier->side[head].prev = id;
}

void side_add(struct posix *tier, struct index_entry *entry)
{
	struct space *space = tier_space(tier, entry->key.space);
	uint32_t id = index_id(tier->index, entry);

	if (space && space->readable && space->generation == entry->key.generation) {
		side_link(tier, side_head(tier, space->id), id);
		space->blocks++;
		return;
	}
	entry->flags |= ENTRY_DEAD;
	side_link(tier, side_dead(tier), id);
	tier->dead_blocks++;
}

void side_del(struct posix *tier, struct index_entry *entry)
{
	uint32_t id = side_place(index_id(tier->index, entry));
	struct space *space = tier_space(tier, entry->key.space);

	tier->side[tier->side[id].prev].next = tier->side[id].next;
	tier->side[tier->side[id].next].prev = tier->side[id].prev;
	/* What was buried counts as dead by its generation, without a visit. */
	if (!(entry->flags & ENTRY_DEAD) && space && space->generation == entry->key.generation)
		space->blocks--;
	else
		tier->dead_blocks--;
}

void side_bury(struct posix *tier, struct space *space)
{
	uint32_t head = side_head(tier, space->id), dead = side_dead(tier);
	struct side *side = tier->side;

	side_ready(tier, head);
	tier->dead_blocks += space->blocks;
	space->blocks = 0;
	if (side[head].next == head)
		return;
	side[side[head].next].prev = side[dead].prev;
	side[side[dead].prev].next = side[head].next;
	side[side[head].prev].next = dead;
	side[dead].prev = side[head].prev;
	side[head].next = side[head].prev = head;
}

/* ---- figures ---------------------------------------------------------------------- */

uint64_t room_snapshot(const struct posix *tier, uint64_t blocks)
{
	if (tier->shared)
		return 0;
	return round_up(sizeof(struct snapshot_head) +
				(sizeof(struct snapshot_dir) << tier->dirs_log2) +
				blocks * sizeof(struct snapshot_entry),
			FORMAT_PAGE) +
	       FORMAT_PAGE; /* its name, or its extents */
}

uint64_t room_need(const struct posix *tier, const struct block_id *id, const struct geometry *geo)
{
	uint64_t bytes = geometry_file_bytes(geo), blocks = bytes / FORMAT_PAGE;
	uint32_t dir = name_dir_of(&id->key, tier->dirs_log2);

	if (blocks > EXTENTS_INLINE)
		bytes += FORMAT_PAGE * (1 + (blocks + EXTENTS_PER_BLOCK - 1) / EXTENTS_PER_BLOCK);
	bytes += DIR_GROWTH;
	if (!tier->dirs[dir].exists)
		bytes += 2 * FORMAT_PAGE; /* it, and the growth of the one above */
	return bytes;
}

static uint64_t live_blocks(const struct posix *tier)
{
	struct index_figures figures;

	index_figures(tier->index, &figures);
	return figures.whole + figures.partial;
}

static uint64_t disk_short(const struct posix *tier, uint64_t need)
{
	need += tier->min_free + tier->disk_taken;
	return need > tier->disk_free ? need - tier->disk_free : 0;
}

/* Bytes that the file system must give up before @need more may be taken. */
static uint64_t disk_deficit(struct posix *tier, uint64_t need)
{
	uint64_t now;
	struct statvfs st;

	if (!tier->min_free)
		return 0;
	now = tier->sys->now_ns();
	/* What was kept may be old, so it is never the reason to refuse. */
	if (tier->disk_free_at_ns && now - tier->disk_free_at_ns <= DISK_FREE_NS &&
	    disk_short(tier, need) == 0)
		return 0;
	if (tier->sys->fstatvfs(tier->dir_fd, &st) < 0)
		return 0;
	tier->disk_free = (uint64_t)st.f_bavail * st.f_frsize;
	tier->disk_free_at_ns = now;
	tier->disk_taken = tier->reserved;
	return disk_short(tier, need);
}

static uint64_t budget_deficit(const struct posix *tier, uint64_t need)
{
	if (tier->limit == UINT64_MAX)
		return 0;
	need += tier->used + tier->reserved + room_snapshot(tier, live_blocks(tier) + 1);
	return need > tier->limit ? need - tier->limit : 0;
}

/* Not even if every block went: so none has to go for it. */
bool room_never(const struct posix *tier, uint64_t need)
{
	uint64_t fixed = tier->used - tier->block_bytes + room_snapshot(tier, 1);

	return tier->limit != UINT64_MAX && (fixed > tier->limit || need > tier->limit - fixed);
}

/* ---- picking victims -------------------------------------------------------------- */

void entry_removing(struct posix *tier, struct index_entry *entry)
{
	assert(entry->state == INDEX_WHOLE && !(entry->flags & ENTRY_REMOVING));
	entry->flags |= ENTRY_REMOVING;
	entry->pins++;
	tier->freeing += entry->charge;
	tier->removals++;
}

void entry_removed(struct posix *tier, uint32_t id, bool gone)
{
	struct index_entry *entry = index_at(tier->index, id);
	struct cairn_key key = entry->key.key;

	assert((entry->flags & ENTRY_REMOVING) && entry->pins > 0);
	assert(tier->removals > 0 && tier->freeing >= entry->charge);
	tier->freeing -= entry->charge;
	tier->removals--;
	if (gone) {
		assert(tier->used >= entry->charge && tier->block_bytes >= entry->charge);
		tier->used -= entry->charge;
		tier->block_bytes -= entry->charge;
		side_del(tier, entry);
		/* Readers know it by its incarnation, and find another or none. */
		entry->pins = 0;
		entry->holds = 0;
		index_remove(tier->index, entry);
	} else {
		entry->flags &= (uint8_t)~ENTRY_REMOVING;
		entry->pins--;
		/* Behind all others, so that the next one tried is another. */
		index_touch(tier->index, entry, stage_env(tier->env)->sequence_now(tier->env));
		side_del(tier, entry);
		side_add(tier, entry);
	}
	tier_gauges(tier);
	pio_wake_key(tier, &key);
	pio_wake_room(tier);
}

void entry_lost(struct posix *tier, const struct block_id *id, uint32_t incarnation)
{
	struct index_entry *entry = entry_find(tier, id);

	if (!entry || entry->tier != incarnation)
		return;
	entry_removing(tier, entry);
	entry_removed(tier, index_id(tier->index, entry), true);
}

struct index_entry *entry_find(struct posix *tier, const struct block_id *id)
{
	struct index_key key = {id->key, id->space, id->generation};
	struct index_entry *entry = index_find(tier->index, &key);

	if (!entry || entry->state != INDEX_WHOLE || (entry->flags & ENTRY_REMOVING))
		return NULL;
	return entry;
}

bool entry_pin(struct pio *p, struct index_entry *entry)
{
	if (entry->pins == UINT16_MAX)
		return false;
	entry->pins++;
	p->tier->readers++;
	p->incarnation = entry->tier;
	p->pinned = true;
	return true;
}

void entry_unpin(struct posix *tier, const struct block_id *id, uint32_t incarnation)
{
	struct index_key key = {id->key, id->space, id->generation};
	struct index_entry *entry = index_find(tier->index, &key);

	assert(tier->readers > 0);
	tier->readers--;
	pio_wake_room(tier);
	if (!entry || entry->state != INDEX_WHOLE || entry->tier != incarnation)
		return;
	assert(entry->pins > 0);
	entry->pins--;
}

static struct index_entry *next_victim(struct posix *tier)
{
	uint32_t dead = side_dead(tier), at = tier->side[dead].next;

	/* Readers of cleared blocks are few and quick: a bounded look is enough. */
	for (uint32_t tried = 0; at != dead && tried < 64; tried++) {
		struct index_entry *entry = index_at(tier->index, at - side_place(0));

		if (entry->state == INDEX_WHOLE && !entry->pins)
			return entry;
		at = tier->side[at].next;
	}
	return index_victim(tier->index);
}

static void entry_id_of(const struct index_entry *entry, struct block_id *ret_id)
{
	ret_id->key = entry->key.key;
	ret_id->space = entry->key.space;
	ret_id->generation = entry->key.generation;
}

/* Fills p->victims until @bytes are on their way. */
static void pick_victims(struct pio *p, uint64_t bytes, bool need_entry)
{
	struct posix *tier = p->tier;
	uint64_t freed = 0;

	while (p->victim_count < VICTIMS_MAX && (freed < bytes || (need_entry && !freed))) {
		struct index_entry *entry = next_victim(tier);
		struct block_id id;

		if (!entry)
			return;
		entry_id_of(entry, &id);
		name_block(&id, tier->dirs_log2, p->victim_path[p->victim_count]);
		p->victims[p->victim_count++] = index_id(tier->index, entry);
		freed += entry->charge ? entry->charge : 1;
		entry_removing(tier, entry);
		if (need_entry)
			cairn_count(tier->env, CNT_EVICTED_FULL_INDEX, 1);
	}
}

bool room_force(struct pio *p, uint64_t bytes)
{
	p->victim_count = 0;
	pick_victims(p, bytes, false);
	return p->victim_count > 0;
}

bool room_pick_idle(struct pio *p)
{
	struct posix *tier = p->tier;
	struct partial *partial = partial_idle(tier);

	if (!partial)
		return false;
	if (!partial_drop(tier, partial))
		return false;
	name_temp(&partial->id, tier->dirs_log2, partial->number, p->victim_path[0]);
	p->victims[0] = partial_id(tier, partial) | VICTIM_PARTIAL;
	p->victim_count = 1;
	return true;
}

/* The whole block in one io, each shard stored as it is: its file has one size. */
static bool dump_is_plain(const struct pio *p)
{
	uint64_t shards = 0;

	for (uint32_t i = 0; i < p->io->part_count; i++) {
		const struct cairn_part *part = &p->io->parts[i];

		if (part->status != CAIRN_PENDING || part->stored_length != part->raw_length)
			return false;
		shards |= 1ull << part->shard % 64;
	}
	return (uint32_t)__builtin_popcountll(shards) == p->geo.shard_count;
}

/* Reserves p->need out of the file of a block like it, of which @deficit is wanted. */
static bool reuse_pick(struct pio *p, uint64_t deficit)
{
	struct posix *tier = p->tier;
	struct index_entry *entry;
	struct geometry geo;
	struct block_id id;

	if (p->reuse_failed || !dump_is_plain(p))
		return false;
	entry = next_victim(tier);
	if (!entry || !(entry->flags & ENTRY_RAW) || entry->charge < deficit ||
	    entry->charge > p->need)
		return false;
	if (!geometry_init(&geo, entry->shard_count, entry->shard_bytes, entry->last_bytes) ||
	    geometry_file_bytes(&geo) != geometry_file_bytes(&p->geo))
		return false;
	entry_id_of(entry, &id);
	name_block(&id, tier->dirs_log2, p->victim_path[0]);
	p->victims[0] = index_id(tier->index, entry);
	p->victim_count = 1;
	p->reuse = true;
	p->reuse_charge = entry->charge;
	assert(tier->used >= entry->charge && tier->block_bytes >= entry->charge);
	tier->used -= entry->charge;
	tier->block_bytes -= entry->charge;
	entry->charge = 0;
	entry_removing(tier, entry);
	tier->reserved += p->need;
	tier->disk_taken += p->need - p->reuse_charge;
	tier->writers++;
	return true;
}

void room_reused(struct pio *p, bool gone)
{
	struct posix *tier = p->tier;

	assert(p->reuse && p->victim_count == 1);
	if (!gone) {
		index_at(tier->index, p->victims[0])->charge = p->reuse_charge;
		tier->used += p->reuse_charge;
		tier->block_bytes += p->reuse_charge;
		tier->freeing += p->reuse_charge;
		/* It may have its new name all the same. */
		tier->dirs[name_dir_of(&p->id.key, tier->dirs_log2)].leftover = true;
	}
	cairn_count(tier->env, gone ? CNT_EVICTED : CNT_EVICT_FAILED, 1);
	cairn_count(tier->env, CNT_EVICTED_REUSED, gone);
	p->victim_count = 0;
	p->reuse = false;
	p->reused = gone;
	p->reuse_failed = !gone;
	entry_removed(tier, p->victims[0], gone);
}

static void reuse_renamed(struct pio *p)
{
	void (*after)(struct pio *) = p->after;

	tier_lock(p->tier);
	room_reused(p, p->slots[0].ops[0].result == 0);
	tier_unlock(p->tier);
	after(p);
}

void room_reuse(struct pio *p, void (*after)(struct pio *))
{
	struct engine_op *op;

	assert(p->reuse && p->victim_count == 1);
	p->after = after;
	pio_chain(p, 0);
	op = pio_op(p, 0, OP_RENAMEAT, p->tier->blocks_fd);
	op->path = p->victim_path[0];
	op->fd2 = p->tier->blocks_fd;
	op->path2 = p->temp;
	pio_go(p, 1, reuse_renamed);
}

static uint64_t reuse_room(const struct posix *tier)
{
	return tier->limit / 64 < REUSE_ROOM_MAX ? tier->limit / 64 : REUSE_ROOM_MAX;
}

enum room_verdict room_take(struct pio *p)
{
	struct posix *tier = p->tier;
	uint64_t deficit = budget_deficit(tier, p->need), disk = disk_deficit(tier, p->need);
	struct index_figures figures;
	bool need_entry;

	index_figures(tier->index, &figures);
	need_entry = figures.whole + figures.partial + figures.ghost >= figures.entries_max;
	if (room_never(tier, p->need))
		return ROOM_TOO_BIG;
	deficit = disk > deficit ? disk : deficit;
	if (p->room_tries > ROOM_TRIES_MAX)
		return ROOM_NONE; /* nothing can be unlinked */
	if (!need_entry && (deficit || budget_deficit(tier, p->need + reuse_room(tier))) &&
	    reuse_pick(p, deficit))
		return ROOM_REUSE;
	if (!deficit && !need_entry) {
		tier->reserved += p->need;
		tier->disk_taken += p->need;
		tier->writers++;
		return ROOM_TAKEN;
	}
	p->victim_count = 0;
	if (tier->removals && deficit <= tier->freeing)
		return ROOM_WAIT;
	pick_victims(p, deficit > tier->freeing ? deficit - tier->freeing : 0, need_entry);
	if (p->victim_count)
		return ROOM_EVICT;
	if (tier->removals)
		return ROOM_WAIT;
	if (room_pick_idle(p))
		return ROOM_EVICT;
	return tier->writers || tier->readers ? ROOM_WAIT : ROOM_NONE;
}

void room_untake(struct posix *tier, uint64_t reserved)
{
	assert(tier->reserved >= reserved && tier->writers > 0);
	tier->reserved -= reserved;
	tier->writers--;
}

void room_give(struct posix *tier, uint64_t reserved)
{
	if (!reserved)
		return;
	room_untake(tier, reserved);
	pio_wake_room(tier);
}

/* ---- removing them ------------------------------------------------------------------- */

static void victims_gone(struct pio *p)
{
	struct posix *tier = p->tier;
	void (*after)(struct pio *) = p->after;
	bool any = false;

	tier_lock(tier);
	for (uint32_t i = 0; i < p->victim_count; i++) {
		int64_t result = p->slots[0].ops[i].result;
		bool gone = result == 0 || result == -ENOENT;

		any = any || gone;
		if (p->victims[i] & VICTIM_PARTIAL) {
			struct partial *partial = partial_at(tier, p->victims[i] & ~VICTIM_PARTIAL);

			if (!gone)
				partial_stays(tier, partial);
			partial_free(tier, partial);
			continue;
		}
		cairn_count(tier->env, gone ? CNT_EVICTED : CNT_EVICT_FAILED, 1);
		entry_removed(tier, p->victims[i], gone);
	}
	p->victim_count = 0;
	p->room_tries = any ? 0 : p->room_tries + 1;
	tier->disk_free_at_ns = 0;
	tier_unlock(tier);
	after(p);
}

void room_evict(struct pio *p, void (*after)(struct pio *))
{
	assert(p->victim_count > 0);
	p->after = after;
	pio_chain(p, 0);
	for (uint32_t i = 0; i < p->victim_count; i++)
		pio_unlink(p, 0, p->victim_path[i]);
	pio_go(p, 1, victims_gone);
}

/*
 * What a chain could not tell is asked for once more, by the plain call: of names
 * that were touched this moment, so that nothing is waited for.
 */
void tier_stat_again(struct pio *p, uint32_t slot)
{
	struct slot *s = &p->slots[slot];

	for (uint32_t i = 0; i < s->chain.op_count; i++) {
		struct engine_op *op = &s->ops[i];
		const char *path = op->path == p->temp ? p->path : op->path; /* renamed since */
		struct stat st;

		if (op->code != OP_STATX || op->result == 0 ||
		    p->tier->sys->fstatat(op->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		op->stx->stx_blocks = (uint64_t)st.st_blocks;
		op->stx->stx_mask = STATX_BLOCKS;
		op->result = 0;
	}
}

void tier_dir_charge(struct posix *tier, uint32_t number, uint64_t charge)
{
	struct dir *dir = &tier->dirs[number];

	/* Answers may overtake each other; directories do not shrink where it matters. */
	if (charge <= dir->charge)
		return;
	tier->used += charge - dir->charge;
	dir->charge = charge;
}

void tier_dir_statted(struct pio *p, uint32_t slot)
{
	struct slot *s = &p->slots[slot];

	for (uint32_t i = 0; i < s->chain.op_count; i++)
		if (s->ops[i].code == OP_STATX && s->ops[i].stx == &p->dir_stx &&
		    s->ops[i].result == 0)
			tier_dir_charge(p->tier, name_dir_of(&p->id.key, p->tier->dirs_log2),
					p->dir_stx.stx_blocks * 512);
}

int room_settle(struct posix *tier, uint64_t extra)
{
	if (room_never(tier, extra))
		return -ENOSPC;
	while (budget_deficit(tier, extra)) {
		struct index_entry *entry = next_victim(tier);
		char path[NAME_MAX_BYTES];
		struct block_id id;
		int rc;

		if (!entry)
			return -ENOSPC;
		entry_id_of(entry, &id);
		name_block(&id, tier->dirs_log2, path);
		entry_removing(tier, entry);
		rc = tier->sys->unlinkat(tier->blocks_fd, path, 0);
		entry_removed(tier, index_id(tier->index, entry), rc == 0 || rc == -ENOENT);
		if (rc < 0 && rc != -ENOENT)
			return rc;
		cairn_count(tier->env, CNT_EVICTED, 1);
	}
	return 0;
}
