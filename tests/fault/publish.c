/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of 64 shards, dumped by 8 threads in random order, is never seen
 * before it is whole: not by lookups, not by loads of single shards, while two
 * more threads look all the time. With shared=yes the threads dump through two
 * stores on one directory.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kit.h"

#define SHARDS	64u
#define DUMPERS 8u
#define LOOKERS 2u
#define STORES	2u

static const struct kit_shape shape = {SHARDS, 4096};

struct arena {
	struct cairn_store *stores[STORES];
	struct cairn_namespace *ns[STORES];
	uint32_t store_count;
	pthread_barrier_t start, stop;
	/* Written by the main thread between the barriers. */
	uint64_t id;
	uint32_t order[SHARDS];
	bool held_back; /* the last shard waits until all others were acknowledged */
	bool over;
	/* Atomic: relaxed would do for counting, but what was begun must be seen as begun. */
	uint32_t next, begun, acknowledged, removing;
	uint64_t looks, seen;
};

static uint32_t read_u32(const uint32_t *value)
{
	return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

static void dump_shard(struct arena *arena, struct cairn_namespace *ns, uint32_t position)
{
	struct cairn_key key = kit_key(arena->id);
	int ret;

	if (arena->held_back && position == SHARDS - 1) {
		while (read_u32(&arena->acknowledged) < SHARDS - 1)
			usleep(100);
		CHECK(!kit_present(ns, arena->id), "seen with one shard missing");
		CHECK(kit_load(ns, shape, arena->id) == -ENOENT, "loaded with one shard missing");
		CHECK(cairn_lookup_prefix(ns, &key, 1, NULL, NULL, NULL) == 0);
	}
	__atomic_fetch_add(&arena->begun, 1, __ATOMIC_SEQ_CST);
	ret = kit_dump(ns, shape, arena->id, arena->order[position], 1, CAIRN_MEMORY);
	CHECK(ret == 0, "dump of shard %u: %d", arena->order[position], ret);
	__atomic_fetch_add(&arena->acknowledged, 1, __ATOMIC_SEQ_CST);
}

struct worker {
	pthread_t thread;
	struct arena *arena;
	uint32_t index;
};

static void *dumper(void *context)
{
	struct worker *worker = context;
	struct arena *arena = worker->arena;
	struct cairn_namespace *ns = arena->ns[worker->index % arena->store_count];

	for (;;) {
		uint32_t position;

		pthread_barrier_wait(&arena->start);
		if (arena->over)
			return NULL;
		while ((position = __atomic_fetch_add(&arena->next, 1, __ATOMIC_SEQ_CST)) < SHARDS)
			dump_shard(arena, ns, position);
		pthread_barrier_wait(&arena->stop);
	}
}

/* One look: what it finds must have been begun in full before. */
static void look(struct arena *arena, struct cairn_namespace *ns, uint32_t shard)
{
	uint8_t bytes[4096];
	struct cairn_segment segment;
	struct cairn_xfer xfer = kit_xfer(arena->id, shard, &segment, bytes, sizeof(bytes));
	bool present = kit_present(ns, arena->id);
	int ret;

	CHECK(!present || read_u32(&arena->begun) == SHARDS, "seen after %u shards",
	      read_u32(&arena->begun));
	ret = cairn_load(ns, &xfer, 1, NULL, NULL);
	CHECK(ret == 0 || ret == -ENOENT, "load: %d", ret);
	CHECK(ret == 0 || !present, "seen, but not to be loaded");
	if (ret == 0) {
		CHECK(read_u32(&arena->begun) == SHARDS, "loaded after %u shards",
		      read_u32(&arena->begun));
		CHECK(kit_right(bytes, sizeof(bytes), arena->id, shard, 0), "wrong bytes");
	}
	__atomic_fetch_add(&arena->looks, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&arena->seen, present, __ATOMIC_RELAXED);
}

static void *looker(void *context)
{
	struct worker *worker = context;
	struct arena *arena = worker->arena;
	struct cairn_namespace *ns = arena->ns[worker->index % arena->store_count];
	struct kit_rng rng = {worker->index};

	for (;;) {
		pthread_barrier_wait(&arena->start);
		if (arena->over)
			return NULL;
		do {
			look(arena, ns, (uint32_t)kit_below(&rng, SHARDS));
			sched_yield();
		} while (read_u32(&arena->acknowledged) < SHARDS);
		pthread_barrier_wait(&arena->stop);
	}
}

static void shuffle(struct arena *arena, struct kit_rng *rng)
{
	for (uint32_t i = 0; i < SHARDS; i++)
		arena->order[i] = i;
	for (uint32_t i = SHARDS - 1; i > 0; i--) {
		uint32_t j = (uint32_t)kit_below(rng, i + 1), kept = arena->order[i];

		arena->order[i] = arena->order[j];
		arena->order[j] = kept;
	}
}

static void run_round(struct arena *arena, uint64_t id, struct kit_rng *rng)
{
	struct cairn_key key = kit_key(id);

	arena->id = id;
	arena->next = 0;
	arena->begun = 0;
	arena->acknowledged = 0;
	arena->held_back = kit_below(rng, 2);
	shuffle(arena, rng);
	pthread_barrier_wait(&arena->start);
	pthread_barrier_wait(&arena->stop);
	for (uint32_t s = 0; s < arena->store_count; s++) {
		CHECK(kit_present(arena->ns[s], id), "acknowledged, but absent");
		CHECK(kit_load(arena->ns[s], shape, id) == 0);
	}
	CHECK(kit_dump(arena->ns[0], shape, id, 7, 1, CAIRN_MEMORY) == CAIRN_PRESENT);
	CHECK(cairn_remove(arena->ns[0], &key, 1, NULL, NULL, NULL) == 0);
	CHECK(!kit_present(arena->ns[0], id));
}

static void open_arena(struct arena *arena, const char *path, const char *engine, bool shared)
{
	char spec[512], tier[256];

	memset(arena, 0, sizeof(*arena));
	arena->store_count = shared ? 2 : 1;
	kit_tier(tier, sizeof(tier), path, shared ? "shared=yes" : "", "size=64MiB");
	snprintf(spec, sizeof(spec), "store(engine=%s, reactors=2, buffers=8MiB, ios=32) | %s",
		 engine, kit_text("tier", tier));
	for (uint32_t s = 0; s < arena->store_count; s++) {
		struct cairn_error error = {0};

		CHECK(cairn_store_open(spec, NULL, &arena->stores[s], &error) == 0, "%s",
		      error.text);
		CHECK(kit_namespace(arena->stores[s], "publish", shape, &arena->ns[s]) == 0);
	}
	pthread_barrier_init(&arena->start, NULL, DUMPERS + LOOKERS + 1);
	pthread_barrier_init(&arena->stop, NULL, DUMPERS + LOOKERS + 1);
}

static void run(const char *engine, bool shared, uint64_t rounds)
{
	struct worker workers[DUMPERS + LOOKERS];
	struct kit_rng rng = {kit_number("seed", 1, 1)};
	struct arena arena;
	char path[128];

	kit_folder(path, sizeof(path), "publish");
	open_arena(&arena, path, engine, shared);
	for (uint32_t i = 0; i < DUMPERS + LOOKERS; i++) {
		workers[i] = (struct worker){.arena = &arena, .index = i};
		CHECK(pthread_create(&workers[i].thread, NULL, i < DUMPERS ? dumper : looker,
				     &workers[i]) == 0);
	}
	for (uint64_t round = 0; round < rounds; round++) {
		kit_at("engine=%s shared=%d round %lu", engine, shared, (unsigned long)round);
		kit_watch(60);
		run_round(&arena, round + 1, &rng);
	}
	arena.over = true;
	pthread_barrier_wait(&arena.start);
	for (uint32_t i = 0; i < DUMPERS + LOOKERS; i++)
		pthread_join(workers[i].thread, NULL);
	for (uint32_t s = 0; s < arena.store_count; s++)
		CHECK(cairn_store_close(arena.stores[s], UINT64_MAX) == 0);
	pthread_barrier_destroy(&arena.start);
	pthread_barrier_destroy(&arena.stop);
	kit_remove_folder(path);
	printf("publish: engine %s, shared=%s: %lu rounds, %lu looks, %lu saw the block\n", engine,
	       shared ? "yes" : "no", (unsigned long)rounds, (unsigned long)arena.looks,
	       (unsigned long)arena.seen);
}

int main(int argc, char **argv)
{
	uint64_t rounds;

	kit_init(argc, argv);
	rounds = kit_number("rounds", kit_sanitized() ? 100 : 400, 100000);
	run(kit_text("engine", "auto"), false, rounds);
	if (!kit_flash()) /* one owner */
		run(kit_text("engine", "auto"), true, rounds / 10);
	return 0;
}
