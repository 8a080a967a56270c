/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a fork the child owns nothing. A handler runs in the child, before
 * anything else does: it raises the generation, by which every handle of the
 * parent's is known, and closes the descriptors that would keep a lock or a ring
 * of the parent's alive. What holds such a descriptor is made known, and is taken
 * off, under fork_hold(): no child is born in between. Compositions are no store's:
 * a child goes on with what its parent had defined.
 */
#include <errno.h>
#include <pthread.h>

#include "base/hot.h"
#include "core/grammar.h"
#include "core/reactor.h"
#include "sys/page.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct cairn_store *open_stores;
static uint32_t generation; /* written in a child while it has one thread only */

static void before(void)
{
	pthread_mutex_lock(&lock);
	compositions_hold();
}

static void after_in_parent(void)
{
	compositions_go_on();
	pthread_mutex_unlock(&lock);
}

static void abandon(struct reactor *reactor)
{
	if (reactor && reactor->engine)
		reactor->engine_ops->abandon(reactor->engine);
}

static void after_in_child(void)
{
	generation++;
	for (struct cairn_store *store = open_stores; store; store = store->next_open) {
		for (uint32_t i = 0; i < store->reactor_count; i++)
			abandon(store->reactors[i]);
		for (uint32_t i = 0; i < store->lights_made; i++)
			abandon(store->all_lights[i]);
		if (store->early)
			store->early_ops->abandon(store->early);
		for (size_t i = 0; i < sizeof(store->fork_fds) / sizeof(store->fork_fds[0]); i++)
			if (store->fork_fds[i] >= 0)
				store->sys->close(store->fork_fds[i]);
		if (store->page)
			page_abandon(store->page);
	}
	open_stores = NULL;
	compositions_go_on();
	pthread_mutex_unlock(&lock);
}

static void install(void)
{
	pthread_atfork(before, after_in_parent, after_in_child);
}

uint32_t fork_generation(void)
{
	return generation;
}

void fork_watch(void)
{
	pthread_once(&once, install);
}

void fork_register(struct cairn_store *store)
{
	fork_watch();
	pthread_mutex_lock(&lock);
	store->fork_generation = generation;
	store->next_open = open_stores;
	open_stores = store;
	pthread_mutex_unlock(&lock);
}

void fork_hold(void)
{
	pthread_mutex_lock(&lock);
}

void fork_go_on(void)
{
	pthread_mutex_unlock(&lock);
}

void fork_forget(struct cairn_store *store)
{
	struct cairn_store **link = &open_stores;

	pthread_mutex_lock(&lock);
	while (*link && *link != store)
		link = &(*link)->next_open;
	if (*link)
		*link = store->next_open;
	pthread_mutex_unlock(&lock);
}

HIT_PATH int store_enter(const struct cairn_store *store)
{
	if (!store || store->magic != STORE_MAGIC)
		return -EINVAL;
	return store->fork_generation == generation ? 0 : -EOWNERDEAD;
}
