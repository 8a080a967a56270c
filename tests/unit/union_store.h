/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store over two tiers, `upper` and `lower`, each null or posix and each with a
 * say of its own in which shards it takes: side.refused has a bit for each that
 * it does not.
 */
#ifndef UNION_STORE_H
#define UNION_STORE_H

#include <dlfcn.h>
#include <pthread.h>

#include "posix_store.h"

#include "stages/stages.h"

#define SHARDS 4u
#define BYTES  70000u /* two pieces, and an odd end */
#define EVEN   0x5555555555555555ull
#define ODD    (~EVEN)

struct side {
	struct cairn_stage_ops *table; /* the module's */
	const struct cairn_stage_ops *base;
	const struct cairn_stage_host *host;
	pthread_mutex_t lock;
	uint64_t refused; /* under lock, as what follows */
	uint32_t surveys; /* calls of shards() */
	void *self;
	/* Called once, before the next answer of shards(), on its thread. */
	void (*before_survey)(const struct cairn_ns_view *ns);
};

static struct side sides[2] = {{.lock = PTHREAD_MUTEX_INITIALIZER},
			       {.lock = PTHREAD_MUTEX_INITIALIZER}};
static struct fixture f;

static inline void side_submit(struct side *side, void *self, struct cairn_io *io, void *scratch)
{
	bool pending = io->part_count == 0;

	pthread_mutex_lock(&side->lock);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (io->op == CAIRN_OP_DUMP && side->refused >> (part->shard % 64) & 1)
			part->status = -ENOSPC;
		else
			pending = true;
	}
	pthread_mutex_unlock(&side->lock);
	if (pending)
		side->base->submit(self, io, scratch);
	else
		side->host->complete(io);
}

static void upper_submit(void *self, struct cairn_io *io, void *scratch)
{
	side_submit(&sides[0], self, io, scratch);
}

static void lower_submit(void *self, struct cairn_io *io, void *scratch)
{
	side_submit(&sides[1], self, io, scratch);
}

static inline int side_shards(struct side *side, void *self, const struct cairn_ns_view *ns,
			      const struct cairn_key *key, struct cairn_shards *ret_shards)
{
	void (*before)(const struct cairn_ns_view *ns);

	pthread_mutex_lock(&side->lock);
	side->surveys++;
	before = side->before_survey;
	side->before_survey = NULL;
	pthread_mutex_unlock(&side->lock);
	if (before)
		before(ns);
	return side->base->shards(self, ns, key, ret_shards);
}

static int upper_shards(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			struct cairn_shards *ret_shards)
{
	return side_shards(&sides[0], self, ns, key, ret_shards);
}

static int lower_shards(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
			struct cairn_shards *ret_shards)
{
	return side_shards(&sides[1], self, ns, key, ret_shards);
}

static int upper_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	sides[0].host = env->host;
	sides[0].self = self;
	return sides[0].base->open(self, env, reterr);
}

static int lower_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	sides[1].host = env->host;
	sides[1].self = self;
	return sides[1].base->open(self, env, reterr);
}

static inline void side_refuse(uint32_t side, uint64_t shards)
{
	pthread_mutex_lock(&sides[side].lock);
	sides[side].refused = shards;
	pthread_mutex_unlock(&sides[side].lock);
}

static inline void refuse(uint64_t upper, uint64_t lower)
{
	side_refuse(0, upper);
	side_refuse(1, lower);
}

static inline uint32_t surveys(void)
{
	uint32_t sum = 0;

	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&sides[i].lock);
		sum += sides[i].surveys;
		pthread_mutex_unlock(&sides[i].lock);
	}
	return sum;
}

static inline void side_set(uint32_t i, const struct cairn_stage_ops *base)
{
	static void *modules[2]; /* stay loaded */
	const char *path = getenv(i ? "STAGE_LOWER" : "STAGE_UPPER");

	assert_non_null(path);
	if (!modules[i])
		modules[i] = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	assert_non_null(modules[i]);
	sides[i].table = dlsym(modules[i], "cairn_stage");
	assert_non_null(sides[i].table);
	sides[i].base = base;
	sides[i].surveys = 0;
	*sides[i].table = *base;
	sides[i].table->name = i ? "lower" : "upper";
	sides[i].table->open = i ? lower_open : upper_open;
	sides[i].table->submit = i ? lower_submit : upper_submit;
	sides[i].table->shards = i ? lower_shards : upper_shards;
}

/* @spec: with @0 and @1 where a posix tier's path stands. */
static inline void union_reopen(const char *spec)
{
	const char *path = getenv("STAGE_UPPER");
	char folder[512], text[512];
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = folder};
	struct cairn_error error = {0};
	size_t at = 0;

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
	for (; *spec; spec++) {
		if (*spec != '@') {
			assert_true(at + 1 < sizeof(text));
			text[at++] = *spec;
			continue;
		}
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s/%c", f.path, *++spec);
	}
	text[at] = '\0';
	if (cairn_store_open(text, &opts, &f.store, &error) < 0)
		fail_msg("%s: %s", text, error.text);
	refuse(0, 0);
}

static inline void union_open(const char *spec, const struct cairn_stage_ops *upper,
			      const struct cairn_stage_ops *lower, uint32_t shards)
{
	fixture_new(&f);
	side_set(0, upper);
	side_set(1, lower);
	union_reopen(spec);
	fixture_space(&f, "m", shards, shards ? BYTES : 0);
}

static inline void union_close(void)
{
	fixture_close(&f);
	fixture_free(&f);
}

#endif
