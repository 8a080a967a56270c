/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk: the same work again and again, and in round N the N-th call fails:
 * a system call, an allocation, or an operation of an engine's chain. Until a
 * round ends in which nothing was left to fail. The short form passes over most
 * of them: its seed, which is another one each time, is printed, and says which.
 *
 * In each round, whatever failed:
 *  1. no byte that was loaded is wrong;
 *  2. what was acknowledged is there after a reopen, what was removed or cleared
 *     is not (or it was evicted, and that was counted);
 *  3. right after the failure the store goes on: the same call again succeeds;
 *  4. the budget holds, on the disk;
 *  5. no descriptor and no memory is left behind; nothing hangs;
 *  6. the check finds no damage, and nothing at all after one clean open.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "chaos.h"
#include "core/store.h"
#include "kit.h"

#define LARGE  0 /* namespaces of the script */
#define SMALL  1
#define IDS    64
#define ERRORS 5

static const struct kit_shape shapes[] = {{4, 20480}, {1, 8191}};
static const char *const models[] = {"large", "small"};

enum fate { FREE, MUST, GONE }; /* FREE: nothing was promised */

enum mode { UNBOUNDED, BOUNDED, SHARED, MODES };
static const char *const mode_names[MODES] = {"unbounded", "bounded", "shared"};

struct round {
	enum mode mode;
	char path[128], spec[512];
	uint64_t limit; /* 0: unbounded */
	struct cairn_store *store;
	struct cairn_namespace *ns[2];
	enum fate fate[2][IDS];
	bool opened; /* once */
	uint64_t evicted, evict_failed;
};

static bool text_is_one_line(const struct cairn_error *error)
{
	return error->text[0] && !strchr(error->text, '\n');
}

/* A call failed: only a fault may be the reason, and it does not come again. */
static void expect_fault(int ret, const char *what)
{
	CHECK(chaos_fired(), "%s: %s, and no call had failed", what, cairn_strerror(ret));
}

static bool open_store(struct round *round)
{
	struct cairn_error error = {0};
	bool fired = chaos_fired();
	int ret;

	ret = store_open(&chaos_sys, round->spec, NULL, &round->store, &error);
	if (ret < 0) {
		CHECK(!fired, "open: %s", error.text);
		expect_fault(ret, error.text);
		CHECK(text_is_one_line(&error) && error.code == ret, "%d \"%s\"", ret, error.text);
		ret = store_open(&chaos_sys, round->spec, NULL, &round->store, &error);
		CHECK(ret == 0, "open again: %s", error.text);
	}
	round->opened = true;
	for (int n = 0; n < 2; n++) {
		fired = chaos_fired();
		ret = kit_namespace(round->store, models[n], shapes[n], &round->ns[n]);
		if (ret < 0) {
			CHECK(!fired, "namespace: %d", ret);
			expect_fault(ret, "namespace");
			ret = kit_namespace(round->store, models[n], shapes[n], &round->ns[n]);
		}
		CHECK(ret == 0, "namespace again: %d", ret);
	}
	return true;
}

/* One that failed may have happened all the same. */
static uint64_t evictions(struct cairn_store *store)
{
	return kit_counter(store, kit_stage(), "evicted_blocks") +
	       kit_counter(store, kit_stage(), "evict_failed");
}

/*
 * What is counted is what is there, while nothing is under way. A victim that
 * could not be unlinked counts as there, though it may be gone all the same.
 */
static void check_used(struct round *round)
{
	struct cairn_stat st = {.size = sizeof(st)};
	uint64_t there = kit_du_whole(round->path);

	if (kit_flash()) /* a file of one size, whatever is in it */
		return;
	CHECK(cairn_stat(round->store, &st) == 0);
	round->evict_failed += kit_counter(round->store, "posix", "evict_failed");
	CHECK(round->mode == SHARED || st.bytes_used == there ||
		      (st.bytes_used > there && round->evict_failed > 0),
	      "%lu bytes counted, %lu used", (unsigned long)st.bytes_used, (unsigned long)there);
}

static void close_store(struct round *round)
{
	int ret;

	check_used(round);

	round->evicted += evictions(round->store);
	ret = cairn_store_close(round->store, UINT64_MAX);
	CHECK(ret == 0, "close: %d", ret);
	round->store = NULL;
	CHECK(round->limit == 0 || kit_du(round->path) <= round->limit, "%lu bytes of %lu",
	      (unsigned long)kit_du(round->path), (unsigned long)round->limit);
}

/* Dumps shards of a block; after a failure all of the block, which must work. */
static void dump(struct round *round, int n, uint32_t id, uint32_t first, uint32_t count,
		 uint32_t durability)
{
	bool fired = chaos_fired();
	int ret = kit_dump(round->ns[n], shapes[n], id, first, count, durability);

	if (ret < 0) {
		CHECK(!fired, "dump of %u failed twice: %d", id, ret);
		expect_fault(ret, "dump");
		round->fate[n][id] = FREE;
		ret = kit_dump(round->ns[n], shapes[n], id, 0, shapes[n].shards, durability);
		CHECK(ret >= 0, "dump of %u again: %d", id, ret);
		round->fate[n][id] = MUST;
	}
}

static void dump_whole(struct round *round, int n, uint32_t id)
{
	dump(round, n, id, 0, shapes[n].shards, CAIRN_WRITTEN);
	round->fate[n][id] = MUST;
}

/* A budget or a disk that is full may take blocks away. */
static uint64_t evicted(const struct round *round)
{
	return round->evicted + evictions(round->store);
}

static void load(struct round *round, int n, uint32_t id)
{
	bool fired = chaos_fired();
	int ret = kit_load(round->ns[n], shapes[n], id);

	if (round->fate[n][id] == GONE)
		CHECK(ret == -ENOENT || (ret < 0 && !fired && chaos_fired()), "block %u: %d", id,
		      ret);
	if (ret == -ENOENT && evicted(round) > 0)
		return; /* counted at the end */
	if (ret < 0 && round->fate[n][id] == MUST) {
		CHECK(!fired, "load of %u: %d", id, ret);
		expect_fault(ret, "load");
		ret = kit_load(round->ns[n], shapes[n], id);
		CHECK(ret == 0, "load of %u again: %d", id, ret);
	}
}

static void discard(struct round *round, int n, uint32_t id)
{
	struct cairn_key key = kit_key(id);
	struct cairn_result result = {0};
	bool fired = chaos_fired();
	int ret = cairn_remove(round->ns[n], &key, 1, &result, NULL, NULL);

	if (ret < 0 && ret != -ENOENT) {
		CHECK(!fired, "remove of %u: %d", id, ret);
		expect_fault(ret, "remove");
		ret = cairn_remove(round->ns[n], &key, 1, &result, NULL, NULL);
		CHECK(ret == 0 || ret == -ENOENT, "remove of %u again: %d", id, ret);
	}
	round->fate[n][id] = GONE;
	CHECK(!kit_present(round->ns[n], id), "removed block %u is present", id);
}

static void clear(struct round *round, int n)
{
	bool fired = chaos_fired();
	int ret = cairn_clear(round->ns[n], CAIRN_WRITTEN);

	if (ret < 0) {
		CHECK(!fired, "clear: %d", ret);
		expect_fault(ret, "clear");
		ret = cairn_clear(round->ns[n], CAIRN_WRITTEN);
		CHECK(ret == 0, "clear again: %d", ret);
	}
	for (uint32_t id = 0; id < IDS; id++)
		if (round->fate[n][id] != FREE)
			round->fate[n][id] = GONE;
}

/* ---- the scripts ----------------------------------------------------------------- */

static void first_half(struct round *round)
{
	dump_whole(round, LARGE, 1);
	dump(round, LARGE, 2, 2, 2, CAIRN_WRITTEN);
	dump(round, LARGE, 2, 0, 2, CAIRN_WRITTEN);
	round->fate[LARGE][2] = MUST;
	for (uint32_t shard = 4; shard-- > 0;)
		dump(round, LARGE, 3, shard, 1, CAIRN_WRITTEN);
	round->fate[LARGE][3] = MUST;
	dump(round, LARGE, 9, 1, 2, CAIRN_WRITTEN); /* never whole */
	for (uint32_t id = 1; id < 5; id++)
		dump_whole(round, SMALL, id);
	load(round, LARGE, 1);
	load(round, LARGE, 2);
	load(round, LARGE, 50);
	discard(round, LARGE, 1);
	load(round, LARGE, 1);
	dump(round, LARGE, 4, 0, 4, CAIRN_DURABLE);
	round->fate[LARGE][4] = MUST;
	clear(round, SMALL);
	dump_whole(round, SMALL, 6);
	load(round, SMALL, 2);
}

static void second_half(struct round *round)
{
	load(round, LARGE, 2);
	load(round, SMALL, 6);
	load(round, SMALL, 1);
	discard(round, LARGE, 3);
	dump_whole(round, LARGE, 1);
	dump_whole(round, LARGE, 9);
	load(round, LARGE, 9);
}

/* More than fits, so that dumps evict. */
static void crowd(struct round *round)
{
	for (uint32_t id = 10; id < 40; id++) {
		dump_whole(round, LARGE, id);
		if (id % 4 == 0)
			dump_whole(round, SMALL, id);
		if (id % 5 == 0)
			load(round, LARGE, id - 3);
	}
	discard(round, LARGE, 39);
}

/* ---- a round ------------------------------------------------------------------------ */

static void check_rest(struct round *round, int worst)
{
	int ret = kit_check(round->spec);

	CHECK(ret >= 0 && ret <= worst, "check: %d", ret);
}

static void verify(struct round *round)
{
	uint64_t missing = 0;

	for (int n = 0; n < 2; n++) {
		for (uint32_t id = 1; id < IDS; id++) {
			int ret = kit_load(round->ns[n], shapes[n], id);

			CHECK(ret == 0 || ret == -ENOENT, "block %u: %d", id, ret);
			CHECK(round->fate[n][id] != GONE || ret == -ENOENT,
			      "block %u of %s came back", id, models[n]);
			missing += round->fate[n][id] == MUST && ret < 0;
			CHECK(missing <= evicted(round), "block %u of %s is lost", id, models[n]);
		}
	}
}

static void run_script(struct round *round)
{
	open_store(round);
	first_half(round);
	if (round->limit)
		crowd(round);
	close_store(round);
	open_store(round);
	second_half(round);
	close_store(round);
}

static void round_spec(struct round *round, const char *engine)
{
	char posix[96], flash[96], tier[256];

	snprintf(posix, sizeof(posix), "entries=4096");
	snprintf(flash, sizeof(flash), "entries=4096, size=16MiB");
	if (round->mode == BOUNDED) {
		round->limit = kit_number("size", 2u << 20, 2u << 20);
		snprintf(posix, sizeof(posix), "entries=4096, size=%lu",
			 (unsigned long)round->limit);
		/* Few entries, so that a crowd evicts though the least size is large. */
		snprintf(flash, sizeof(flash), "entries=20, size=8MiB, region=64KiB");
	} else if (round->mode == SHARED) {
		snprintf(posix, sizeof(posix), "entries=4096, shared=yes");
	}
	if (kit_flash() && round->limit)
		round->limit = (8u << 20) + 65536; /* with the folder */
	kit_tier(tier, sizeof(tier), round->path, posix, flash);
	snprintf(round->spec, sizeof(round->spec),
		 "store(engine=%s, reactors=1, workers=2, tasks=8, ios=8, buffers=4MiB) | %s",
		 engine, tier);
}

/* What is left after a close: nothing, but for others' leftovers that are not old yet. */
static int worst_left(const struct round *round)
{
	return round->mode == SHARED ? CAIRN_FINDING_REPAIRABLE : CAIRN_FINDING_NOTE;
}

static uint64_t round_calls; /* of the last round, as long as the script ran */

/* True: the fault fired. */
static bool run_round(const char *engine, enum mode mode, unsigned counted, uint64_t nth, int error)
{
	struct round round = {.mode = mode};
	unsigned descriptors = kit_descriptors();
	bool fired;

	kit_at("engine=%s %s counted=%u nth=%lu error=%d", engine, mode_names[mode], counted,
	       (unsigned long)nth, error);
	kit_watch(30);
	kit_folder(round.path, sizeof(round.path), "walk");
	round_spec(&round, engine);
	chaos_arm(counted, nth, error);
	run_script(&round);
	fired = chaos_fired();
	round_calls = chaos_count();
	kit_at("engine=%s %s counted=%u nth=%lu error=%d (%s), afterwards", engine,
	       mode_names[mode], counted, (unsigned long)nth, error, chaos_what());
	chaos_arm(0, 0, 0);
	check_rest(&round, CAIRN_FINDING_REPAIRABLE);
	open_store(&round);
	verify(&round);
	dump_whole(&round, LARGE, 60);
	load(&round, LARGE, 60);
	close_store(&round);
	check_rest(&round, worst_left(&round));
	CHECK(kit_descriptors() == descriptors, "%u descriptors, before: %u", kit_descriptors(),
	      descriptors);
	CHECK(chaos_memory_out() == 0, "%ld pieces of memory are left", (long)chaos_memory_out());
	kit_remove_folder(round.path);
	return fired;
}

/* ---- the walk -------------------------------------------------------------------------- */

/* Rounds of the short form: few where a round is slow to take apart (libaio's contexts). */
static uint64_t samples(const char *engine, enum mode mode)
{
	uint64_t count = 5;

	if (strcmp(engine, "aio") == 0)
		count = 3;
	else if (strcmp(engine, "psync") == 0 && mode == UNBOUNDED)
		count = 20;
	return kit_sanitized() ? (count + 2) / 3 : count;
}

/* Every one; or, in the short form, every so many, from one that the seed chooses. */
static void choose(const char *engine, enum mode mode, unsigned counted, struct kit_rng *rng,
		   uint64_t *ret_from, uint64_t *ret_step)
{
	*ret_from = kit_number("from", 0, 1);
	*ret_step = kit_number("step", *ret_from > 0, 1);
	if (*ret_step)
		return;
	CHECK(!run_round(engine, mode, counted, 0, -EIO));
	*ret_step = round_calls / samples(engine, mode) + 1;
	*ret_from = 1 + kit_below(rng, *ret_step);
}

static void walk(const char *engine, enum mode mode, unsigned counted, const char *what,
		 struct kit_rng *rng)
{
	static const int errors[ERRORS] = {-EIO, -ENOSPC, -ENOMEM, CHAOS_SHORT, CHAOS_LATE};
	uint64_t kind = kit_below(rng, ERRORS), nth, from, step, rounds = 0;
	size_t all = kit_soak() && counted != CHAOS_ALLOCS ? ERRORS : 1;
	bool fired = true;

	choose(engine, mode, counted, rng, &from, &step);
	for (nth = from; fired; nth += step) {
		fired = false;
		rounds++;
		for (size_t i = 0; i < all; i++)
			fired |= run_round(engine, mode, counted, nth,
					   errors[kit_number("error", (nth + kind + i) % ERRORS,
							     (nth + kind + i) % ERRORS)]);
	}
	printf("walk: engine %s, %s, %s: %lu of %lu failed in turn (--from=%lu --step=%lu)\n",
	       engine, what, mode_names[mode], (unsigned long)rounds - 1,
	       (unsigned long)(nth - step), (unsigned long)from, (unsigned long)step);
}

static bool wanted(const char *name, const char *value)
{
	const char *text = kit_text(name, NULL);

	return !text || strcmp(text, value) == 0;
}

int main(int argc, char **argv)
{
	static const char *const engines[] = {"psync", "aio", "uring"};
	static const struct {
		unsigned counted;
		const char *name;
	} kinds[] = {{CHAOS_CALLS, "calls"}, {CHAOS_ALLOCS, "allocs"}, {CHAOS_OPS, "ops"}};

	struct kit_rng rng;

	kit_init(argc, argv);
	kit_also(chaos_what);
	rng.state = kit_number("seed", (uint64_t)time(NULL), 1);
	printf("walk: --seed=%lu\n", (unsigned long)rng.state);
	for (size_t e = 0; e < 3; e++)
		for (size_t k = 0; k < 3; k++)
			for (enum mode mode = 0; mode < MODES; mode++)
				if (wanted("engine", engines[e]) && kit_engine(engines[e]) &&
				    wanted("counted", kinds[k].name) &&
				    wanted("mode", mode_names[mode]) &&
				    !(kit_flash() && mode == SHARED)) /* it has none */
					walk(engines[e], mode, kinds[k].counted, kinds[k].name,
					     &rng);
	return 0;
}
