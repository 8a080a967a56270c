/* SPDX-License-Identifier: Apache-2.0 */
/* One store and one namespace of one-shard blocks, for the tests of the core. */
#ifndef CORE_STORE_TEST_H
#define CORE_STORE_TEST_H

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Before cmocka.h, which has a macro fail(). */
#include "core/reactor.h"

#include <cmocka.h>

#include <cairn/task.h>

#include "spy.h"

#define SHARD 4096u
#define MANY  100u
#define MS    1000000ull

struct fixture {
	struct cairn_store *store;
	struct cairn_namespace *ns;
	struct cairn_key keys[MANY];
	uint8_t memory[MANY][SHARD], back[MANY][SHARD];
};

static struct fixture f;

static inline void open_store(const char *spec, const char *stage_path)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "m", .shard_count = 1, .shard_bytes = SHARD};
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = stage_path};
	struct cairn_error error = {0};

	if (cairn_store_open(spec, &opts, &f.store, &error) < 0)
		fail_msg("%s", error.text);
	assert_int_equal(cairn_namespace_open(f.store, &desc, &f.ns, &error), 0);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(cairn_key_derive(f.ns, &i, sizeof(i), &f.keys[i]), 0);
		for (uint32_t at = 0; at < SHARD; at++)
			f.memory[i][at] = (uint8_t)(f.keys[i].bytes[at % 16] + at / 16);
	}
	memset(f.back, 0, sizeof(f.back));
}

/* Likewise, with the spy to be had as the stage `spy`. */
static inline struct spy *open_spied(const char *spec)
{
	static void *module; /* stays loaded: threads of a test may outlive the store a little */
	const char *path = getenv("STAGE_SPY");
	char folder[512];
	struct spy *spy;

	assert_non_null(path);
	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
	open_store(spec, folder);
	if (!module)
		module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
	assert_non_null(module);
	spy = dlsym(module, "spy");
	assert_non_null(spy);
	return spy;
}

static inline void spy_set(struct spy *spy, bool *flag, bool value)
{
	pthread_mutex_lock(&spy->lock);
	*flag = value;
	pthread_cond_broadcast(&spy->changed);
	pthread_mutex_unlock(&spy->lock);
}

/* Waits until @count ios were kept in all, or passed. */
static inline void spy_await(struct spy *spy, const uint32_t *what, uint32_t count)
{
	pthread_mutex_lock(&spy->lock);
	while (*what < count)
		pthread_cond_wait(&spy->changed, &spy->lock);
	pthread_mutex_unlock(&spy->lock);
}

/* Lets the kept io of @key go, or all for NULL. */
static inline void spy_let_go(struct spy *spy, const struct cairn_key *key)
{
	for (uint32_t i = 0; i < SPY_KEPT; i++) {
		struct cairn_io *io = NULL;

		pthread_mutex_lock(&spy->lock);
		if (i < spy->kept_count && spy->kept[i] &&
		    (!key || memcmp(&spy->kept[i]->key, key, sizeof(*key)) == 0)) {
			io = spy->kept[i];
			spy->kept[i] = NULL;
			spy->calling++;
		}
		pthread_mutex_unlock(&spy->lock);
		if (!io)
			continue;
		spy->host->resume(io);
		pthread_mutex_lock(&spy->lock);
		spy->calling--;
		pthread_cond_broadcast(&spy->changed);
		pthread_mutex_unlock(&spy->lock);
	}
}

static inline void sleep_ms(unsigned ms)
{
	struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

static inline void close_store(void)
{
	cairn_namespace_close(f.ns);
	assert_int_equal(cairn_store_close(f.store, UINT64_MAX), 0);
}

/* @count xfers of whole shards, the first of key @first. */
static inline void fill(struct cairn_xfer *xfers, uint8_t (*from)[SHARD], uint32_t first,
			uint32_t count)
{
	memset(xfers, 0, count * sizeof(*xfers));
	for (uint32_t i = 0; i < count; i++) {
		xfers[i].key = f.keys[first + i];
		xfers[i].length = SHARD;
		xfers[i].stride = (struct cairn_stride){from[first + i], SHARD, 0, 1};
	}
}

#endif
