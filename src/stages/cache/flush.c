/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-back: blocks whose dump has ended in memory alone are written below.
 *
 * The state of its entry says that a block is DIRTY, and who writes it below just now; that
 * is the truth, and a walk over the entries finds all of them. The queue here is a hint of this
 * process's, with what the region does not keep of a block: its parent's key.
 *
 * Invariants, numbered:
 *  1. What is in flight neither goes nor is removed, so its slots are read by nobody's I/O once
 *     they are another's. Who would remove it waits until it has landed, and goes below then.
 *  2. A flight says so in its client's line before it takes an entry, and looks at the entry's
 *     generation after: who clears raises that first, and then waits for flights.
 *  3. A block is clean only if the tier below took all of its shards from this flight. Where it
 *     had some, its own count, and the entry goes.
 *  4. A block that cannot be written is tried again a few times, and then goes: it is a miss
 *     from then on, as it would have been without the memory.
 */
#include <errno.h>
#include <string.h>

#include "stages/cache/cache.h"

#define FLIGHTS	      OWN_TASKS /* at once */
#define FLIGHT_XFERS  128u	/* in one of them: two blocks of as many parts as an io has */
#define FLIGHT_BLOCKS 32u
#define QUEUE	      4096u /* blocks; with more, dumps go through */
#define TRIES	      5u
#define RETRY_NS      20000000u	  /* after a failure, and twice as long after each next one */
#define WALK_LOOKS    65536u	  /* entries looked at in one go */
#define OTHERS_NS     1000000000u /* a close waits so long for those of others, who may be dead */
#define LAND_POLL_NS  1000000u
#define LAND_WAIT_NS  UINT64_C(10000000000) /* a clear waits so long, as its contract says */

struct item {
	uint64_t link;
	uint32_t tries;
	bool chain;
	struct cairn_block_attr attr;
};

struct flown {
	struct item item;
	uint32_t first, count; /* xfers */
};

struct flight {
	struct cache_stage *stage;
	bool out;
	const struct cairn_ns_view *ns;
	uint32_t block_count, xfer_count;
	struct flown blocks[FLIGHT_BLOCKS];
	struct cairn_xfer xfers[FLIGHT_XFERS];
	struct cairn_segment segments[FLIGHT_XFERS];
};

struct flush {
	pthread_mutex_t lock; /* of all that follows; store->lock is taken under it */
	uint32_t first, count;
	uint32_t out;
	uint64_t not_before_ns; /* after a failure */
	bool walking;
	bool others;		  /* the walk has met what other processes have in flight */
	uint64_t settle_until_ns; /* a close waits for the flights of others no longer */
	uint32_t walk_at;	  /* entries from here on are still to be looked at */
	const struct cairn_ns_view *views[CACHE_SPACES_MAX];
	struct flight flights[FLIGHTS];
	struct item queue[QUEUE];
};

static void opened(void *self);
static bool settle(void *self, bool first);

static const struct stage_back back = {opened, settle};

int flush_init(struct cache_stage *stage)
{
	struct flush *flush;

	/* Above, stages may have changed the bytes, and say so in metadata that no xfer has. */
	if (stage->env->index > 0 || stage->env->below == 0)
		return 0;
	flush = sys_zalloc(stage->sys, 64, sizeof(*flush));
	if (!flush)
		return -ENOMEM;
	if (pthread_mutex_init(&flush->lock, NULL) != 0) {
		stage->sys->free(flush);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < FLIGHTS; i++)
		flush->flights[i].stage = stage;
	stage->flush = flush;
	stage_env(stage->env)->hold_back(stage->env, stage->write == WRITE_BACK, &back);
	return 0;
}

void flush_fini(struct cache_stage *stage)
{
	if (!stage->flush)
		return;
	assert(stage->flush->out == 0);
	pthread_mutex_destroy(&stage->flush->lock);
	stage->sys->free(stage->flush);
	stage->flush = NULL;
}

/* ---- what is to be written ---------------------------------------------------------- */

/* Locked. */
static bool push(struct flush *flush, const struct item *item)
{
	if (flush->count == QUEUE)
		return false;
	flush->queue[(flush->first + flush->count++) % QUEUE] = *item;
	return true;
}

static void pop(struct flush *flush)
{
	flush->first = (flush->first + 1) % QUEUE;
	flush->count--;
}

/* Locked: all entries are to be looked at. */
static void walk(struct flush *flush)
{
	flush->walking = true;
	flush->walk_at = 0;
}

static bool is_space(const struct cairn_stage_env *env, const struct cairn_ns_view *ns,
		     uint64_t space)
{
	const struct cache_binding *binding = ns->binding[env->index];

	return binding->space == space;
}

static const struct cairn_ns_view *view_of(struct cache_stage *stage, uint32_t space)
{
	struct flush *flush = stage->flush;

	if (space >= CACHE_SPACES_MAX)
		return NULL;
	if (!flush->views[space])
		flush->views[space] =
			stage_env(stage->env)->find_namespace(stage->env, is_space, space);
	return flush->views[space];
}

/* What the region knows of an entry that was dumped by others. */
static void item_of(const struct cache_stage *stage, uint32_t entry, uint64_t state,
		    struct item *ret_item)
{
	const struct cache_map *map = stage->map;
	const struct cache_meta *meta = &map->metas[entry];
	uint64_t parent = word_get(&meta->parent);
	uint32_t up = link_entry(parent);
	struct cairn_block_attr *attr = &ret_item->attr;

	*ret_item = (struct item){.link = link_of(entry, state_life(state))};
	attr->size = sizeof(*attr);
	attr->depth = short_hint(&meta->depth);
	attr->priority = byte_hint(&meta->priority) <= 100 ? byte_hint(&meta->priority) : 100;
	attr->cost_ns = half_hint(&meta->cost_us) * UINT64_C(1000);
	if (parent == 0 || up >= map->entry_count)
		return;
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t word = word_get(&map->entries[up].key[i]);

		memcpy(attr->parent.bytes + 8 * (size_t)i, &word, sizeof(word));
	}
	if (state_life(word_get(&map->entries[up].state)) != link_life(parent))
		memset(&attr->parent, 0, sizeof(attr->parent));
}

/* Locked: the next block to be looked at. */
static bool next_item(struct cache_stage *stage, uint32_t *looks, struct item *ret_item)
{
	struct flush *flush = stage->flush;

	if (flush->count > 0) {
		*ret_item = flush->queue[flush->first];
		pop(flush);
		return true;
	}
	for (; flush->walking && *looks > 0; (*looks)--) {
		uint32_t entry = flush->walk_at++;
		uint64_t state;

		if (entry >= stage->map->entry_count) {
			flush->walking = false;
			break;
		}
		state = word_get(&stage->map->entries[entry].state);
		flush->others |= state_flying(state) && state_owner(state) != stage->map->owner;
		if (!state_dirty(state) || state_flying(state))
			continue;
		item_of(stage, entry, state, ret_item);
		return true;
	}
	return false;
}

/* ---- a flight begins ---------------------------------------------------------------- */

/* In flight until now. */
static void land(struct cache_stage *stage, const struct item *item, enum entry_end end)
{
	uint32_t entry = link_entry(item->link);

	entry_land(stage->map, entry, link_life(item->link), end);
	if (end == END_GONE)
		background_reclaim(stage, entry);
}

static bool shard_sound(const struct cache_stage *stage, const struct cache_view *view)
{
	return view->meta == 0 &&
	       map_slot_ok(stage->map, view->slot,
			   shard_bytes_needed(view->stored, 0, stage->tails)) &&
	       tail_right(stage, view);
}

/* Xfers of all shards; false: what the entry says of itself cannot be. */
static bool add_xfers(struct cache_stage *stage, struct flight *flight, struct flown *block)
{
	const struct cache_entry *at = &stage->map->entries[link_entry(block->item.link)];
	uint32_t shard_count = short_hint(&at->shard_count);
	bool variable = flight->ns->shard_count == 0;

	block->first = flight->xfer_count;
	block->count = shard_count;
	if (shard_count == 0 || shard_count > FLIGHT_XFERS - flight->xfer_count)
		return false;
	for (uint32_t i = 0; i < shard_count; i++) {
		uint32_t n = flight->xfer_count + i;
		struct cairn_xfer *xfer = &flight->xfers[n];
		struct cache_view view;

		if (!shard_view(stage->map, link_entry(block->item.link), i, &view) ||
		    !shard_sound(stage, &view))
			return false;
		flight->segments[n] = (struct cairn_segment){view.payload, view.stored};
		*xfer = (struct cairn_xfer){
			.shard = i,
			.length = view.stored,
			.segments = &flight->segments[n],
			.segment_count = 1,
			.shard_count = variable ? shard_count : 0,
			.shard_bytes = variable ? half_hint(&at->shard_bytes) : 0,
			.attr = &block->item.attr,
			.reserved = {block->item.chain ? OWN_XFER_CHAIN : 0},
		};
		memcpy(xfer->key.bytes, at->key, sizeof(xfer->key.bytes));
	}
	return true;
}

/* Has it expired, or been cleared? Else what is left of its time is told below. */
static bool is_over(struct cache_stage *stage, struct item *item, uint32_t space)
{
	uint32_t entry = link_entry(item->link);
	uint64_t expires_ns = word_hint(&stage->map->metas[entry].expires_ns);
	uint64_t now_ns = expires_ns == 0 ? 0 : stage->sys->realtime_ns();

	item->attr.ttl_ns = expires_ns > now_ns ? expires_ns - now_ns : 0;
	return home_generation(word_get(&stage->map->entries[entry].home)) !=
		       half_get_ordered(&stage->map->spaces[space].generation) ||
	       (expires_ns != 0 && expires_ns <= now_ns);
}

/* Is there no place for the block in this flight, but in the next one? */
static bool must_wait(struct cache_stage *stage, const struct flight *flight,
		      const struct item *item)
{
	const struct cache_entry *at = &stage->map->entries[link_entry(item->link)];
	uint32_t shard_count = short_hint(&at->shard_count);

	if (flight->block_count == 0)
		return false;
	return flight->block_count == FLIGHT_BLOCKS ||
	       shard_count > FLIGHT_XFERS - flight->xfer_count ||
	       view_of(stage, home_space(word_get(&at->home))) != flight->ns;
}

/* Locked. The block of @item goes into the flight, or is dealt with otherwise. */
static void take(struct cache_stage *stage, struct flight *flight, const struct item *item)
{
	uint32_t entry = link_entry(item->link), life = link_life(item->link), space;
	struct flown *block = &flight->blocks[flight->block_count];
	const struct cairn_ns_view *ns;

	if (entry >= stage->map->entry_count)
		return;
	space = home_space(word_get(&stage->map->entries[entry].home));
	if (space >= CACHE_SPACES_MAX)
		return;
	ns = view_of(stage, space);
	block->item = *item;
	/*
	 * Whose namespace is not open here is left alone: who would write it must not find it in
	 * flight, and pass it over, just then.
	 */
	if (!ns && !is_over(stage, &block->item, space))
		return;
	/* Removed, written or in flight meanwhile; else all that was read of it is its own. */
	if (!entry_fly(stage->map, entry, life))
		return;
	if (!ns || is_over(stage, &block->item, space)) {
		land(stage, item, END_GONE);
		return;
	}
	flight->ns = ns;
	if (add_xfers(stage, flight, block)) {
		flight->xfer_count += block->count;
		flight->block_count++;
	} else {
		cairn_count(stage->env, CC_DAMAGED, 1);
		land(stage, item, END_GONE);
	}
}

/* Locked. False: there is nothing to be written. */
static bool load_flight(struct cache_stage *stage, struct flight *flight)
{
	struct flush *flush = stage->flush;
	uint32_t looks = WALK_LOOKS;
	struct item item;

	flight->ns = NULL;
	flight->block_count = 0;
	flight->xfer_count = 0;
	while (next_item(stage, &looks, &item)) {
		if (link_entry(item.link) < stage->map->entry_count &&
		    must_wait(stage, flight, &item)) {
			/* There is room: it was taken out just now, or the queue is empty. */
			flush->first = (flush->first + QUEUE - 1) % QUEUE;
			flush->queue[flush->first] = item;
			flush->count++;
			break;
		}
		take(stage, flight, &item);
	}
	return flight->block_count > 0;
}

static void flight_over(void *context, uint64_t task, uint32_t events);

void flush_pump(struct cache_stage *stage)
{
	struct flush *flush = stage->flush;
	uint32_t *flights = &stage->map->clients[stage->map->client].flights;

	pthread_mutex_lock(&flush->lock);
	for (uint32_t i = 0; i < FLIGHTS; i++) {
		struct flight *flight = &flush->flights[i];

		if (flight->out)
			continue;
		if ((flush->count == 0 && !flush->walking) ||
		    (flush->not_before_ns != 0 && stage->host->now_ns() < flush->not_before_ns))
			break;
		half_add(flights, 1);
		flight->out =
			load_flight(stage, flight) &&
			stage_env(stage->env)
					->own_dump(stage->env, flight->ns, flight->xfers,
						   flight->xfer_count, flight_over, flight) == 0;
		if (!flight->out) {
			for (uint32_t b = 0; b < flight->block_count; b++) {
				const struct item *item = &flight->blocks[b].item;

				land(stage, item, END_DIRTY);
				push(flush, item);
			}
			half_add(flights, UINT32_MAX);
			break;
		}
		flush->out++;
	}
	pthread_mutex_unlock(&flush->lock);
}

/* ---- and ends -------------------------------------------------------------------------- */

/* Another try would end as this one did. */
static bool is_final(int32_t status)
{
	return status == -EINVAL || status == -EFBIG || status == -EOPNOTSUPP;
}

/* Locked. */
static void failed(struct cache_stage *stage, struct item *item, int32_t status)
{
	struct flush *flush = stage->flush;
	uint64_t until_ns;

	if (++item->tries == TRIES || is_final(status)) {
		land(stage, item, END_GONE);
		cairn_count(stage->env, CC_FLUSH_FAILED, 1);
		return;
	}
	until_ns = stage->host->now_ns() + ((uint64_t)RETRY_NS << (item->tries - 1));
	if (flush->not_before_ns < until_ns)
		flush->not_before_ns = until_ns;
	land(stage, item, END_DIRTY);
	if (!push(flush, item))
		walk(flush);
}

static void landed(struct cache_stage *stage, const struct flight *flight, struct flown *block)
{
	bool theirs = false;

	for (uint32_t i = 0; i < block->count; i++) {
		int32_t status = flight->xfers[block->first + i].result.status;

		if (status < 0) {
			failed(stage, &block->item, status);
			return;
		}
		theirs |= status == CAIRN_PRESENT;
	}
	stage->flush->not_before_ns = 0;
	cairn_count(stage->env, CC_FLUSHED, 1);
	land(stage, &block->item, theirs ? END_GONE : END_CLEAN);
}

/* As a task's callback: on a reactor. */
static void flight_over(void *context, uint64_t task, uint32_t events)
{
	struct flight *flight = context;
	struct cache_stage *stage = flight->stage;
	struct flush *flush = stage->flush;

	(void)task;
	if (!(events & CAIRN_EVENT_RELEASE))
		return;
	pthread_mutex_lock(&flush->lock);
	for (uint32_t i = 0; i < flight->block_count; i++)
		landed(stage, flight, &flight->blocks[i]);
	cairn_gauge(stage->env, CC_DIRTY, word_hint(&stage->map->header->dirty));
	half_add(&stage->map->clients[stage->map->client].flights, UINT32_MAX);
	flight->out = false;
	flush->out--;
	pthread_mutex_unlock(&flush->lock);
	flush_pump(stage);
	if (flush_next_ns(stage) != UINT64_MAX)
		background_kick(stage, false);
}

/* ---- from the other files --------------------------------------------------------------- */

bool flush_room(struct cache_stage *stage, uint64_t bytes)
{
	struct flush *flush = stage->flush;
	int64_t dirty = (int64_t)word_hint(&stage->map->header->dirty);
	bool room;

	if ((dirty > 0 ? (uint64_t)dirty : 0) + bytes > stage->dirty_max)
		return false;
	pthread_mutex_lock(&flush->lock);
	room = flush->count < QUEUE;
	pthread_mutex_unlock(&flush->lock);
	return room;
}

void flush_add(struct cache_stage *stage, const struct cairn_io *io, uint32_t entry, uint32_t life)
{
	struct flush *flush = stage->flush;
	struct item item = {
		.link = link_of(entry, life),
		.chain = io->flags & CAIRN_IO_CHAIN,
		.attr = io->attr,
	};

	item.attr.size = sizeof(item.attr);
	cairn_gauge(stage->env, CC_DIRTY, word_hint(&stage->map->header->dirty));
	pthread_mutex_lock(&flush->lock);
	if (!push(flush, &item))
		walk(flush);
	pthread_mutex_unlock(&flush->lock);
	flush_pump(stage);
}

void flush_hurry(struct cache_stage *stage, const struct cache_ref *ref)
{
	struct flush *flush = stage->flush;
	struct item item;

	if (!flush)
		return;
	pthread_mutex_lock(&flush->lock);
	item_of(stage, ref->entry, ref->state, &item);
	if (!push(flush, &item))
		walk(flush);
	pthread_mutex_unlock(&flush->lock);
	flush_pump(stage);
}

void flush_walk(struct cache_stage *stage)
{
	struct flush *flush = stage->flush;

	if (!flush)
		return;
	pthread_mutex_lock(&flush->lock);
	walk(flush);
	pthread_mutex_unlock(&flush->lock);
}

uint64_t flush_next_ns(struct cache_stage *stage)
{
	struct flush *flush = stage->flush;
	uint64_t next_ns = UINT64_MAX;

	if (!flush)
		return UINT64_MAX;
	pthread_mutex_lock(&flush->lock);
	/* With something in flight its end goes on. */
	if (flush->out == 0 && (flush->count > 0 || flush->walking))
		next_ns = flush->not_before_ns;
	pthread_mutex_unlock(&flush->lock);
	return next_ns;
}

/*
 * Might there be entries that are dirty, and not in the queue? The count is right but where it was
 * put right after a death, beside others.
 */
static bool any_left(const struct cache_map *map)
{
	return word_hint(&map->header->dirty) != 0 || half_hint(&map->header->repairs) != 0;
}

/* What others have left of a namespace that is open here from now on. */
static void opened(void *self)
{
	struct cache_stage *stage = self;

	if (!any_left(stage->map))
		return;
	flush_walk(stage);
	background_kick(stage, false);
}

static bool settle(void *self, bool first)
{
	struct cache_stage *stage = self;
	struct flush *flush = stage->flush;
	uint64_t now_ns = stage->host->now_ns();
	uint32_t repaired = region_recover(&stage->region);
	bool left;

	cairn_count(stage->env, CC_REPAIRS, repaired);
	pthread_mutex_lock(&flush->lock);
	if (first || repaired > 0) {
		flush->settle_until_ns = now_ns + OTHERS_NS;
		flush->others = any_left(stage->map);
	}
	if (flush->others && !flush->walking) {
		flush->others = false;
		walk(flush);
	}
	pthread_mutex_unlock(&flush->lock);
	flush_pump(stage);
	pthread_mutex_lock(&flush->lock);
	left = flush->out > 0 || flush->count > 0 || flush->walking ||
	       (flush->others && now_ns < flush->settle_until_ns);
	pthread_mutex_unlock(&flush->lock);
	if (left) /* the close may give up */
		background_kick(stage, false);
	return left;
}

/* ---- clears ------------------------------------------------------------------------------ */

/* Is a block of an older generation of the namespace in flight anywhere? */
static bool in_flight(const struct cache_map *map, uint32_t space)
{
	uint32_t generation = half_get(&map->spaces[space].generation), flights = 0;

	for (uint32_t i = 0; i < CACHE_CLIENTS_MAX; i++)
		flights |= half_get_ordered(&map->clients[i].flights);
	for (uint32_t i = 0; flights != 0 && i < map->entry_count; i++) {
		const struct cache_entry *at = &map->entries[i];
		uint64_t home;

		if (!state_flying(word_get_ordered(&at->state)))
			continue;
		home = word_get(&at->home);
		if (home_space(home) == space && home_generation(home) != generation)
			return true;
	}
	return false;
}

int flush_clear_wait(struct cache_stage *stage, uint32_t space)
{
	uint64_t until_ns = stage->sys->now_ns() + LAND_WAIT_NS;

	while (in_flight(stage->map, space)) {
		if (stage->sys->now_ns() >= until_ns)
			return -EIO;
		background_kick(stage, true); /* whose it is may be dead */
		stage->sys->sleep_ns(LAND_POLL_NS);
	}
	return 0;
}
