/* SPDX-License-Identifier: Apache-2.0 */
#include "core/memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/task.h"

/* The range that begins at or before @base, or the first: the only one that can hold it. */
static uint32_t before(const struct memory_map *map, uintptr_t base)
{
	uint32_t low = 0, high = map->count;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (map->ranges[middle].base <= base)
			low = middle;
		else
			high = middle;
	}
	return low;
}

bool memory_has(const struct memory_map *map, const void *base, uint64_t bytes)
{
	uintptr_t at = (uintptr_t)base;
	const struct memory_range *range;

	if (!map || map->count == 0)
		return false;
	range = &map->ranges[before(map, at)];
	return at >= range->base && bytes <= range->bytes &&
	       at - range->base <= range->bytes - bytes;
}

static bool meets(const struct memory_range *a, uintptr_t base, size_t bytes)
{
	return a->base < base + bytes && base < a->base + a->bytes;
}

/* Of a range that begins at @base; count: none does. */
static uint32_t find(const struct memory_map *map, uintptr_t base)
{
	uint32_t i = 0;

	while (i < map->count && map->ranges[i].base != base)
		i++;
	return i;
}

/* ---- maps: under the store's lock ---------------------------------------------- */

struct memory_map *memory_map_take(struct cairn_store *store)
{
	if (store->memory)
		store->memory->tasks++;
	return store->memory;
}

/* Nobody looks into it, and nobody will. */
static void drop(struct cairn_store *store, struct memory_map *map)
{
	struct memory_map **link = &store->memory_before;

	assert(map->tasks == 0 && map != store->memory);
	while (*link != map)
		link = &(*link)->next;
	*link = map->next;
	store->sys->free(map);
}

void memory_map_put(struct cairn_store *store, struct memory_map *map)
{
	if (!map)
		return;
	assert(map->tasks > 0);
	if (--map->tasks == 0 && map != store->memory)
		drop(store, map);
}

/* From now on tasks look into @map. */
static void replace(struct cairn_store *store, struct memory_map *map)
{
	struct memory_map *old = store->memory;

	store->memory = map;
	if (!old)
		return;
	old->next = store->memory_before;
	store->memory_before = old;
	if (old->tasks == 0)
		drop(store, old);
}

void memory_fini(struct cairn_store *store)
{
	assert(!store->memory_before);
	store->sys->free(store->memory);
	store->memory = NULL;
}

static struct memory_map *map_new(const struct sys *sys, uint32_t count)
{
	return sys_zalloc(sys, 0, sizeof(struct memory_map) + count * sizeof(struct memory_range));
}

/* ---- the calls ------------------------------------------------------------------- */

static int add(struct cairn_store *store, uintptr_t base, size_t bytes)
{
	const struct memory_map *now = store->memory;
	uint32_t count = now ? now->count : 0, at = 0;
	struct memory_map *map;

	for (uint32_t i = 0; i < count; i++) {
		if (meets(&now->ranges[i], base, bytes))
			return -EINVAL;
		at += now->ranges[i].base < base;
	}
	map = map_new(store->sys, count + 1);
	if (!map)
		return -ENOMEM;
	map->count = count + 1;
	if (at > 0)
		memcpy(map->ranges, now->ranges, at * sizeof(map->ranges[0]));
	map->ranges[at] = (struct memory_range){base, bytes};
	if (at < count)
		memcpy(&map->ranges[at + 1], &now->ranges[at],
		       (count - at) * sizeof(map->ranges[0]));
	replace(store, map);
	return 0;
}

int cairn_memory_register(struct cairn_store *store, void *base, size_t bytes)
{
	uintptr_t end;
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	if (!base || bytes == 0 || __builtin_add_overflow((uintptr_t)base, bytes, &end))
		return -EINVAL;
	pthread_mutex_lock(&store->lock);
	ret = store->closing ? -ECANCELED : add(store, (uintptr_t)base, bytes);
	pthread_mutex_unlock(&store->lock);
	return ret;
}

/* Takes the range out of what is registered, if it is there. */
static int take_out(struct cairn_store *store, uintptr_t base)
{
	const struct memory_map *now = store->memory;
	uint32_t count = now ? now->count : 0, at = now ? find(now, base) : 0;
	struct memory_map *map;

	if (at == count)
		return -ENOENT;
	map = map_new(store->sys, count - 1);
	if (!map)
		return -ENOMEM;
	map->count = count - 1;
	memcpy(map->ranges, now->ranges, at * sizeof(map->ranges[0]));
	memcpy(&map->ranges[at], &now->ranges[at + 1], (count - 1 - at) * sizeof(map->ranges[0]));
	replace(store, map);
	return 0;
}

/* Whether a task that runs may have aimed at the range. */
static bool aimed_at(const struct cairn_store *store, uintptr_t base)
{
	for (const struct memory_map *map = store->memory_before; map; map = map->next)
		if (find(map, base) < map->count)
			return true;
	return false;
}

int cairn_memory_unregister(struct cairn_store *store, void *base, uint64_t timeout_ns)
{
	uint64_t until_ns;
	int ret = store_enter(store);

	if (ret < 0)
		return ret;
	until_ns = deadline_of(store->sys->now_ns(), timeout_ns);
	pthread_mutex_lock(&store->lock);
	ret = take_out(store, (uintptr_t)base);
	if (ret == -ENOENT && aimed_at(store, (uintptr_t)base))
		ret = 0; /* a call before this one took it out, and did not wait so long */
	store->callers++;
	while (ret == 0 && aimed_at(store, (uintptr_t)base))
		ret = cond_wait_until(&store->changed, &store->lock, until_ns);
	if (--store->callers == 0 && store->closing)
		pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
	return ret;
}
