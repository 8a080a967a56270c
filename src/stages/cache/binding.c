/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces of a region. A description has one place, made under the lock of its byte;
 * its generation is raised by a clear, and what is of an older one is found by nobody and
 * goes as it is met.
 */
#include <errno.h>
#include <string.h>

#include "base/hot.h"
#include "stages/cache/cache.h"
#include "stages/error.h"

#define LOCK_WAIT_NS 2000000000u

static bool same(const struct cache_map *map, uint32_t id, const struct cairn_ns_view *ns)
{
	const struct cache_space *space = &map->spaces[id];

	return half_get(&space->state) == 1 && half_get(&space->desc_length) == ns->desc_length &&
	       memcmp(map->descs + (uint64_t)id * CACHE_DESC_MAX, ns->desc, ns->desc_length) == 0;
}

/* Under the lock: the place of @ns, found or made. CACHE_NONE: none, for nobody who asks. */
static int find_or_make(struct cache_stage *stage, const struct cairn_ns_view *ns, uint32_t *ret_id)
{
	struct cache_map *map = stage->map;
	struct cache_space *space;
	uint32_t id = 0;
	uint64_t at;
	int ret;

	*ret_id = CACHE_NONE;
	for (; id < CACHE_SPACES_MAX && half_get(&map->spaces[id].state) == 1; id++) {
		if (!same(map, id, ns))
			continue;
		*ret_id = id;
		return 0;
	}
	if (id == CACHE_SPACES_MAX || ns->desc_length > CACHE_DESC_MAX)
		return 0;
	at = map->header->descs_at + (uint64_t)id * CACHE_DESC_MAX;
	ret = stage->sys->fallocate(stage->region.fd, 0, (off_t)at, CACHE_DESC_MAX);
	if (ret < 0)
		return ret;
	space = &map->spaces[id];
	memcpy(map->descs + (uint64_t)id * CACHE_DESC_MAX, ns->desc, ns->desc_length);
	half_put(&space->desc_length, (uint32_t)ns->desc_length);
	half_put(&space->generation, 1);
	half_put(&space->state, 1);
	*ret_id = id;
	return 0;
}

int binding_make(struct cache_stage *stage, const struct cairn_ns_view *ns, void **ret_binding,
		 struct cairn_error *reterr)
{
	struct cache_binding *binding =
		sys_zalloc(stage->sys, _Alignof(struct cache_binding), sizeof(*binding));
	int ret;

	if (!binding)
		return stage_error(reterr, -ENOSPC, "%s: no memory for a namespace",
				   stage->env->name);
	ret = region_lock(&stage->region, CACHE_LOCK_SPACES, LOCK_WAIT_NS);
	if (ret == 0) {
		ret = find_or_make(stage, ns, &binding->space);
		region_unlock(&stage->region, CACHE_LOCK_SPACES);
	}
	/* Not to pass by: others may have the place, and what is removed here would stay there. */
	if (ret < 0) {
		stage->sys->free(binding);
		return stage_error(reterr, ret, "%s: the namespace's place in the region: %s",
				   stage->env->name, strerror(-ret));
	}
	/* Where nobody has a place blocks pass by: that is slower, and nothing is wrong with it. */
	if (binding->space == CACHE_NONE && stage->env->below == 0) {
		stage->sys->free(binding);
		return stage_error(reterr, -ENOSPC,
				   "%s: the region has no place for another namespace",
				   stage->env->name);
	}
	background_start(stage);
	binding->next = stage->bindings;
	stage->bindings = binding;
	*ret_binding = binding;
	return 0;
}

int binding_clear(struct cache_stage *stage, const struct cairn_ns_view *ns)
{
	struct cache_binding *binding = cache_binding(stage, ns);

	if (binding->space == CACHE_NONE)
		return 0;
	half_add(&stage->map->spaces[binding->space].generation, 1);
	return stage->env->below > 0 ? flush_clear_wait(stage, binding->space) : 0;
}

void bindings_free(struct cache_stage *stage)
{
	struct cache_binding *binding;

	while ((binding = stage->bindings)) {
		stage->bindings = binding->next;
		stage->sys->free(binding);
	}
}

HIT_PATH bool cache_key(const struct cache_stage *stage, const struct cairn_ns_view *ns,
			const struct cairn_key *key, struct cache_key *ret_key)
{
	const struct cache_binding *binding = cache_binding(stage, ns);

	if (binding->space == CACHE_NONE)
		return false;
	*ret_key = cache_key_of(
		key,
		home_of(binding->space, half_get(&stage->map->spaces[binding->space].generation)));
	return true;
}
