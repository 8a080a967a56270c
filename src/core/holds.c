/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include <cairn/task.h>

#include "core/holds.h"

struct held_key {
	struct cairn_key key;
	struct cairn_namespace *ns;
	uint64_t tier_hold, bytes;
	uint32_t level;
	uint32_t next; /* of the same hold, or of the free list */
};

struct hold {
	uint64_t id; /* slot + 1, and how often the slot was used above bit 32 */
	uint64_t expires_ns;
	uint32_t first; /* of its keys */
	uint32_t next_free;
	bool used, building;
};

struct holds {
	pthread_mutex_t lock;
	uint64_t bytes, bytes_max;
	uint64_t next_ns;	      /* a hint when to look */
	uint32_t free_key, fresh_key; /* given back, and never used yet from here on */
	uint32_t free_hold, highest;
	struct hold holds[CAIRN_HOLDS_MAX];
	uint32_t key_count;
	struct held_key keys[];
};

int holds_init(struct cairn_store *store)
{
	uint32_t keys = (uint32_t)store->settings[SET_HOLD_KEYS].u;
	struct holds *holds = store->sys->alloc(64, sizeof(*holds) + keys * sizeof(holds->keys[0]));

	if (!holds)
		return -ENOMEM;
	memset(holds, 0, sizeof(*holds)); /* a key is written when it is taken */
	pthread_mutex_init(&holds->lock, NULL);
	holds->bytes_max = store->settings[SET_HOLD_BYTES].u;
	holds->next_ns = UINT64_MAX;
	holds->key_count = keys;
	holds->free_key = HOLD_NONE;
	for (uint32_t i = 0; i < CAIRN_HOLDS_MAX; i++) {
		holds->holds[i].id = i + 1u;
		holds->holds[i].first = HOLD_NONE;
		holds->holds[i].next_free = i + 1 < CAIRN_HOLDS_MAX ? i + 1 : HOLD_NONE;
	}
	store->holds = holds;
	return 0;
}

/* Takes the keys of a hold off it and gives the slot back; the lock is held. */
static uint32_t detach(struct holds *holds, struct hold *hold)
{
	uint32_t first = hold->first;

	hold->first = HOLD_NONE;
	hold->used = false;
	hold->id += 1ull << 32;
	hold->next_free = holds->free_hold;
	holds->free_hold = (uint32_t)(hold - holds->holds);
	return first;
}

/* Tells the tiers, without the lock; then the keys are free. */
static void give_back(struct cairn_store *store, uint32_t first)
{
	struct holds *holds = store->holds;
	uint32_t last = HOLD_NONE;
	uint64_t bytes = 0;

	for (uint32_t i = first; i != HOLD_NONE; i = holds->keys[i].next) {
		struct held_key *held = &holds->keys[i];
		struct level *level = &store->levels[held->level];

		level->ops->unhold(level->self, &held->ns->view, &held->key, held->tier_hold);
		bytes += held->bytes;
		last = i;
	}
	if (last == HOLD_NONE)
		return;
	pthread_mutex_lock(&holds->lock);
	assert(holds->bytes >= bytes);
	holds->bytes -= bytes;
	holds->keys[last].next = holds->free_key;
	holds->free_key = first;
	pthread_mutex_unlock(&holds->lock);
	store_count(store, COUNT_HOLD_BYTES, (uint64_t)0 - bytes);
}

void holds_fini(struct cairn_store *store)
{
	if (!store->holds)
		return;
	holds_expire(store, UINT64_MAX);
	pthread_mutex_destroy(&store->holds->lock);
	store->sys->free(store->holds);
	store->holds = NULL;
}

void hold_begin(struct cairn_store *store, struct hold_builder *builder)
{
	struct holds *holds = store->holds;

	pthread_mutex_lock(&holds->lock);
	builder->store = store;
	builder->sooner = false;
	builder->slot = holds->free_hold;
	if (builder->slot != HOLD_NONE) {
		struct hold *hold = &holds->holds[builder->slot];

		holds->free_hold = hold->next_free;
		hold->used = true;
		hold->building = true;
		if (builder->slot >= holds->highest)
			holds->highest = builder->slot + 1;
	}
	pthread_mutex_unlock(&holds->lock);
}

/* HOLD_NONE: all are in use. The lock is held. */
static uint32_t take_key(struct holds *holds)
{
	uint32_t index = holds->free_key;

	if (index != HOLD_NONE)
		holds->free_key = holds->keys[index].next;
	else if (holds->fresh_key < holds->key_count)
		index = holds->fresh_key++;
	return index;
}

bool hold_add(struct hold_builder *builder, struct cairn_namespace *ns, uint32_t level,
	      const struct cairn_key *key, uint64_t tier_hold, uint64_t bytes)
{
	struct holds *holds = builder->store->holds;
	uint32_t index = HOLD_NONE;
	struct hold *hold;

	if (builder->slot == HOLD_NONE)
		return false;
	pthread_mutex_lock(&holds->lock);
	hold = &holds->holds[builder->slot];
	if (bytes <= holds->bytes_max - holds->bytes)
		index = take_key(holds);
	if (index != HOLD_NONE) {
		holds->keys[index] =
			(struct held_key){*key, ns, tier_hold, bytes, level, hold->first};
		hold->first = index;
		holds->bytes += bytes;
	}
	pthread_mutex_unlock(&holds->lock);
	if (index != HOLD_NONE)
		store_count(builder->store, COUNT_HOLD_BYTES, bytes);
	else
		store_count(builder->store, COUNT_HOLDS_REFUSED, 1);
	return index != HOLD_NONE;
}

uint64_t hold_end(struct hold_builder *builder, bool counted, uint64_t expires_ns)
{
	struct holds *holds = builder->store->holds;
	struct hold *hold;
	uint64_t id = 0;

	if (builder->slot == HOLD_NONE)
		return 0;
	pthread_mutex_lock(&holds->lock);
	hold = &holds->holds[builder->slot];
	hold->building = false;
	hold->expires_ns = expires_ns;
	if (!counted) {
		assert(hold->first == HOLD_NONE);
		detach(holds, hold);
	} else {
		id = hold->id;
		builder->sooner = expires_ns < holds->next_ns;
		if (builder->sooner)
			hint_set(&holds->next_ns, expires_ns);
	}
	pthread_mutex_unlock(&holds->lock);
	if (id)
		store_count(builder->store, COUNT_HOLDS, 1);
	return id;
}

int hold_release(struct cairn_store *store, uint64_t id)
{
	struct holds *holds = store->holds;
	uint32_t slot = (uint32_t)id - 1, first = HOLD_NONE;
	uint64_t now_ns = store->sys->now_ns();
	bool found = false, expired = false;

	if ((uint32_t)id == 0 || slot >= CAIRN_HOLDS_MAX)
		return -ENOENT;
	pthread_mutex_lock(&holds->lock);
	if (holds->holds[slot].used && !holds->holds[slot].building &&
	    holds->holds[slot].id == id) {
		/* Whether or not reactor 0 has come by since. */
		expired = holds->holds[slot].expires_ns <= now_ns;
		first = detach(holds, &holds->holds[slot]);
		found = true;
	}
	pthread_mutex_unlock(&holds->lock);
	if (!found)
		return -ENOENT;
	give_back(store, first);
	store_count(store, COUNT_HOLDS, UINT64_MAX);
	if (expired)
		store_count(store, COUNT_HOLDS_EXPIRED, 1);
	return expired ? -ENOENT : 0;
}

uint64_t holds_next_ns(const struct cairn_store *store)
{
	return hint_get(&store->holds->next_ns);
}

/* Takes out one that has expired; false: none, and *ret_next is when the next one does. */
static bool take_expired(struct holds *holds, uint64_t now_ns, uint32_t *ret_first,
			 uint64_t *ret_next)
{
	uint64_t next = UINT64_MAX;
	bool found = false;

	pthread_mutex_lock(&holds->lock);
	for (uint32_t i = 0; i < holds->highest && !found; i++) {
		struct hold *hold = &holds->holds[i];

		if (!hold->used || hold->building)
			continue;
		found = hold->expires_ns <= now_ns;
		if (found)
			*ret_first = detach(holds, hold);
		else if (hold->expires_ns < next)
			next = hold->expires_ns;
	}
	if (!found)
		hint_set(&holds->next_ns, next);
	pthread_mutex_unlock(&holds->lock);
	*ret_next = next;
	return found;
}

uint64_t holds_expire(struct cairn_store *store, uint64_t now_ns)
{
	uint64_t next = holds_next_ns(store);
	uint32_t first;

	if (next > now_ns && now_ns != UINT64_MAX)
		return next;
	while (take_expired(store->holds, now_ns, &first, &next)) {
		give_back(store, first);
		store_count(store, COUNT_HOLDS, UINT64_MAX);
		store_count(store, COUNT_HOLDS_EXPIRED, 1);
	}
	return next;
}
