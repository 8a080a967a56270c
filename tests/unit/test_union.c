/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are whole only over several tiers: never before, never with a wrong byte. */
#include "union_store.h"

#include "random.h"

struct pair {
	const char *spec;
	const struct cairn_stage_ops *upper, *lower;
	bool upper_lasts, lower_lasts;
};

static const struct pair pairs[] = {
	{"upper() | lower()", &cairn_stage_null, &cairn_stage_null, false, false},
	{"upper() | lower(path=@1)", &cairn_stage_null, &cairn_stage_posix, false, true},
	{"upper(path=@0) | lower(path=@1)", &cairn_stage_posix, &cairn_stage_posix, true, true},
	{"upper(path=@0, direct=no) | lower(path=@1, staging=yes)", &cairn_stage_posix,
	 &cairn_stage_posix, true, true},
	{"xor(byte=3) | upper(path=@0) | xor(byte=9) | lower(path=@1)", &cairn_stage_posix,
	 &cairn_stage_posix, true, true},
	{"upper() | xor(byte=9) | lower(path=@1)", &cairn_stage_null, &cairn_stage_posix, false,
	 true},
};

static const struct pair *const both_last = &pairs[2];

#define PAIRS (sizeof(pairs) / sizeof(pairs[0]))

static void pair_open(const struct pair *pair, uint32_t shards)
{
	union_open(pair->spec, pair->upper, pair->lower, shards);
}

static struct cairn_result dump_result(uint32_t number, uint32_t shard)
{
	struct cairn_key key = key_of(&f, number);
	static uint8_t data[BYTES];
	struct cairn_xfer xfer = xfer_of(&key, shard, 0, data, BYTES);

	content(&key, shard, data, BYTES);
	cairn_dump(f.ns, &xfer, 1, NULL, NULL);
	return xfer.result;
}

/* Shards of even number go to the lower tier, the others to the upper one. */
static void dump_halves(const struct pair *pair, uint32_t number)
{
	bool persists = pair->upper_lasts || pair->lower_lasts;

	refuse(EVEN, ODD);
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		bool lasts = shard % 2 ? pair->upper_lasts : pair->lower_lasts, last;
		struct cairn_result result;

		assert_false(present(&f, number));
		assert_int_equal(load_one(&f, number, 0, BYTES), -ENOENT);
		result = dump_result(number, shard);
		last = shard + 1 == SHARDS;
		assert_int_equal(result.status, persists && !lasts ? -ENOSPC : 0);
		if (result.status == 0)
			assert_int_equal(result.reached,
					 (persists && !last ? CAIRN_WRITTEN : CAIRN_MEMORY) + 1);
	}
	refuse(0, 0);
}

static void load_all(uint32_t number)
{
	static uint8_t want[BYTES], back[SHARDS][BYTES];
	struct cairn_key key = key_of(&f, number);
	struct cairn_xfer xfers[SHARDS];

	memset(back, 0, sizeof(back));
	for (uint32_t shard = 0; shard < SHARDS; shard++)
		xfers[shard] = xfer_of(&key, shard, 0, back[shard], BYTES);
	assert_int_equal(cairn_load(f.ns, xfers, SHARDS, NULL, NULL), 0);
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		content(&key, shard, want, BYTES);
		assert_memory_equal(back[shard], want, BYTES);
		assert_int_equal(load_part(&f, number, shard, BYTES, 0, BYTES, 1), 0);
		assert_int_equal(load_part(&f, number, shard, BYTES, BYTES - 1, 1, 0), 0);
		assert_int_equal(load_part(&f, number, shard, BYTES, 65535, 2, 3), 0);
		assert_int_equal(load_part(&f, number, shard, BYTES, 100, 30000, 0), 0);
		assert_int_equal(load_part(&f, number, shard, BYTES, 65536, 4464, 0), 0);
	}
}

static void two_halves(void **state)
{
	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		struct cairn_xfer xfer;
		struct cairn_key key;

		pair_open(&pairs[i], SHARDS);
		dump_halves(&pairs[i], 1);
		assert_true(present(&f, 1));
		load_all(1);
		key = key_of(&f, 1);
		xfer = xfer_of(&key, 0, BYTES - 1, &(uint8_t[2]){0}, 2);
		assert_int_equal(cairn_load(f.ns, &xfer, 1, NULL, NULL), -EINVAL);
		assert_int_equal(cairn_prefetch(f.ns, &key, 1, NULL, NULL, NULL), 0);
		assert_int_equal(load_one(&f, 2, 0, BYTES), -ENOENT);
		union_close();
	}
}

/* A chain goes on over such a block; one that is to be held ends there. */
static void lookups(void **state)
{
	struct cairn_lookup_opts hold = {.size = sizeof(hold), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_key keys[3];
	struct cairn_found found[3];
	uint64_t id;

	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], SHARDS);
		for (uint32_t k = 0; k < 3; k++)
			keys[k] = key_of(&f, k);
		for (uint32_t shard = 0; shard < SHARDS; shard++) {
			dump_result(0, shard);
			dump_result(2, shard);
		}
		dump_halves(&pairs[i], 1);
		assert_int_equal(cairn_lookup_prefix(f.ns, keys, 3, found, NULL, NULL), 3);
		assert_int_equal(found[1].shard_count, SHARDS);
		assert_int_equal(found[1].shard_bytes, BYTES);
		assert_int_equal(found[1].last_bytes, BYTES);
		assert_int_equal(cairn_lookup(f.ns, keys, 3, found, NULL, NULL), 3);
		assert_int_equal(cairn_lookup(f.ns, keys, 3, found, &hold, &id), 2);
		assert_int_equal(found[1].present, 0);
		assert_int_equal(cairn_hold_release(f.store, id), 0);
		assert_int_equal(cairn_lookup_prefix(f.ns, keys, 3, NULL, &hold, &id), 1);
		assert_int_equal(cairn_hold_release(f.store, id), 0);
		union_close();
	}
}

/* Dumped once more it is present already, and whole in one tier from then on. */
static void dumped_again(void **state)
{
	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		bool persists = pairs[i].upper_lasts || pairs[i].lower_lasts;
		struct cairn_result result;

		pair_open(&pairs[i], SHARDS);
		dump_halves(&pairs[i], 1);
		refuse(EVEN, ODD); /* no better off than before */
		for (uint32_t shard = 0; shard < SHARDS && !persists; shard++) {
			result = dump_result(1, shard);
			assert_int_equal(result.status, CAIRN_PRESENT);
			assert_int_equal(result.reached, CAIRN_MEMORY + 1);
		}
		refuse(0, 0);
		for (uint32_t shard = 0; shard < SHARDS; shard++) {
			result = dump_result(1, shard);
			assert_int_equal(result.status, CAIRN_PRESENT);
		}
		assert_int_equal(result.reached, (persists ? CAIRN_WRITTEN : CAIRN_MEMORY) + 1);
		load_all(1);
		union_close();
	}
}

static void removed_and_cleared(void **state)
{
	struct cairn_key key;

	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], SHARDS);
		key = key_of(&f, 1);
		for (int clear = 0; clear < 2; clear++) {
			dump_halves(&pairs[i], 1);
			assert_true(present(&f, 1));
			if (clear)
				assert_int_equal(cairn_clear(f.ns, CAIRN_MEMORY), 0);
			else
				assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), 0);
			assert_false(present(&f, 1));
			assert_int_equal(load_one(&f, 1, 1, BYTES), -ENOENT);
			assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
			/* Nothing of either half is left: these two make no block. */
			refuse(EVEN, ODD);
			dump_result(1, 0);
			dump_result(1, 1);
			assert_false(present(&f, 1));
			assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
			refuse(0, 0);
		}
		for (uint32_t shard = 0; shard < SHARDS; shard++)
			assert_int_equal(dump_result(1, shard).status, 0);
		load_all(1);
		union_close();
	}
}

/* What both tiers hold unfinished is lost with them: the last dump said so. */
static void closed_and_opened(void **state)
{
	(void)state;
	pair_open(both_last, SHARDS);
	dump_halves(both_last, 1);
	fixture_close(&f);
	union_reopen(both_last->spec);
	fixture_space(&f, "m", SHARDS, BYTES);
	assert_false(present(&f, 1));
	assert_int_equal(load_one(&f, 1, 0, BYTES), -ENOENT);
	union_close();
}

/* ---- geometries -------------------------------------------------------------------- */

static int dump_shaped(uint32_t shard, uint64_t shard_bytes, uint64_t bytes)
{
	static uint8_t data[BYTES];
	struct cairn_key key = key_of(&f, 1);
	struct cairn_xfer xfer = xfer_of(&key, shard, 0, data, bytes);

	content(&key, shard, data, bytes);
	xfer.shard_count = 2;
	xfer.shard_bytes = shard_bytes;
	return cairn_dump(f.ns, &xfer, 1, NULL, NULL);
}

/* Halves of two blocks make none, nor do they answer for each other. */
static void other_geometry(void **state)
{
	static const uint64_t last[][2] = {{200, 200}, {100, 60}};

	(void)state;
	for (size_t i = 0; i < 2 * PAIRS; i++) {
		bool whole = last[i % 2][0] == 100;
		struct cairn_found found = {0};
		struct cairn_key key;

		pair_open(&pairs[i / 2], 0);
		key = key_of(&f, 1);
		/* Shard 1 in the upper tier, shard 0 in the lower one. */
		refuse(1, 2);
		dump_shaped(1, last[i % 2][0], last[i % 2][1]);
		dump_shaped(0, 100, 100);
		assert_int_equal(cairn_lookup(f.ns, &key, 1, &found, NULL, NULL), whole);
		assert_int_equal(found.last_bytes, whole ? 60 : 0);
		assert_int_equal(load_one(&f, 1, 0, 100), whole ? 0 : -ENOENT);
		assert_int_equal(load_one(&f, 1, 1, last[i % 2][1]), whole ? 0 : -ENOENT);
		if (!whole) {
			refuse(1, 0); /* what the lower tier lacks */
			dump_shaped(1, 100, 100);
			assert_true(present(&f, 1));
			assert_int_equal(load_one(&f, 1, 0, 100), 0);
			assert_int_equal(load_part(&f, 1, 1, 100, 10, 90, 0), 0);
		}
		union_close();
	}
}

/* ---- two halves, but not at once -------------------------------------------------------- */

/* The upper half goes, then the lower one comes. */
static void swap_halves(const struct cairn_ns_view *ns)
{
	assert_int_equal(sides[0].base->clear(sides[0].self, ns, CAIRN_MEMORY), 0);
	refuse(UINT64_MAX, ODD);
	for (uint32_t shard = 0; shard < SHARDS; shard += 2)
		assert_int_equal(dump_result(1, shard).status, 0);
	refuse(0, 0);
}

/* One tier has lost its half before the other gets its own: no question in between is told whole.
 */
static void never_whole_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], SHARDS);
		dump_halves(&pairs[i], 2); /* from here on they are asked */
		refuse(EVEN, UINT64_MAX);
		dump_result(1, 1);
		dump_result(1, 3);
		refuse(0, 0);
		sides[1].before_survey = swap_halves;
		assert_false(present(&f, 1));
		assert_null(sides[1].before_survey);
		assert_false(present(&f, 1));
		union_close();
	}
}

/* ---- halves that go ------------------------------------------------------------------ */

/* One half is evicted: the block is absent again, and what is left answers for nothing. */
static void evicted(void **state)
{
	static const struct pair small[] = {
		{"upper(size=1MiB) | lower()", &cairn_stage_null, &cairn_stage_null, false, false},
		{"upper() | lower(size=1MiB)", &cairn_stage_null, &cairn_stage_null, false, false},
		{"upper(path=@0, size=1MiB) | lower(path=@1)", &cairn_stage_posix,
		 &cairn_stage_posix, true, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
		struct cairn_key key;

		pair_open(&small[i], SHARDS);
		dump_halves(&small[i], 1);
		assert_true(present(&f, 1));
		/* Unfinished ones, too: posix evicts whole ones first. */
		for (uint32_t number = 2; number < 20; number++)
			for (uint32_t shard = 1; shard < SHARDS; shard++)
				dump_result(number, shard);
		assert_false(present(&f, 1));
		for (uint32_t shard = 0; shard < SHARDS; shard++)
			assert_int_equal(load_one(&f, 1, shard, BYTES), -ENOENT);
		key = key_of(&f, 1);
		assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), -ENOENT);
		dump_halves(&small[i], 1);
		load_all(1);
		union_close();
	}
}

static void flip(const char *file)
{
	int fd = open(file, O_RDWR);
	struct stat st;

	/* In the last shard that is in. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pwrite(fd, "damage", 6, st.st_size - 40000), 6);
	close(fd);
}

static void lose(const char *file)
{
	assert_int_equal(unlink(file), 0);
}

static uint64_t side_counter(const char *stage, const char *name);

/* A half that does not check, or is not there, makes a miss and goes; then it is dumped again. */
static void damaged_and_lost(void **state)
{
	(void)state;
	for (int lost = 0; lost < 2; lost++) {
		char folder[200];

		pair_open(both_last, SHARDS);
		dump_halves(both_last, 1);
		snprintf(folder, sizeof(folder), "%s/0", f.path);
		assert_int_equal(each_file(folder, lost ? lose : flip), 1);
		assert_int_equal(load_one(&f, 1, 0, BYTES), 0); /* the other half's */
		assert_int_equal(load_one(&f, 1, 3, BYTES), lost ? -ENOENT : -EBADMSG);
		assert_false(present(&f, 1));
		assert_int_equal(load_one(&f, 1, 0, BYTES), -ENOENT);
		assert_int_equal(side_counter("upper", "damaged_blocks"), !lost);
		assert_int_equal(side_counter("upper", "partials_dropped"), 1);
		assert_int_equal(each_file(folder, NULL), 0);
		refuse(EVEN, ODD);
		assert_int_equal(dump_result(1, 1).status, 0);
		assert_int_equal(dump_result(1, 3).status, 0);
		assert_true(present(&f, 1));
		load_all(1);
		union_close();
	}
}

static int side_match(void *context, const struct cairn_counter *counter)
{
	struct {
		const char *stage;
		struct counter_search search;
	} *wanted = context;

	if (strcmp(counter->stage, wanted->stage) == 0 &&
	    strcmp(counter->name, wanted->search.name) == 0)
		wanted->search.value = counter->value;
	return 0;
}

static uint64_t side_counter(const char *stage, const char *name)
{
	struct {
		const char *stage;
		struct counter_search search;
	} wanted = {stage, {name, UINT64_MAX}};

	cairn_counters(f.store, side_match, &wanted);
	assert_int_not_equal(wanted.search.value, UINT64_MAX);
	return wanted.search.value;
}

/* ---- what it costs where nothing ever went wrong -------------------------------------- */

static void nothing_is_asked_before(void **state)
{
	struct cairn_key key;

	(void)state;
	for (size_t i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], SHARDS);
		key = key_of(&f, 1);
		for (uint32_t shard = 0; shard < SHARDS; shard++) {
			dump_result(1, shard);
			assert_int_equal(present(&f, 1), shard + 1 == SHARDS);
			assert_int_equal(load_one(&f, 2, shard, BYTES), -ENOENT);
		}
		load_all(1);
		assert_int_equal(cairn_remove(f.ns, &key, 1, NULL, NULL, NULL), 0);
		assert_int_equal(surveys(), 0);
		dump_halves(&pairs[i], 1);
		assert_int_not_equal(surveys(), 0);
		union_close();
	}
}

/* ---- races --------------------------------------------------------------------------- */

#define RACERS 8u
#define WIDE   64u
#define SMALL  700u

static struct race {
	pthread_mutex_t lock;
	pthread_barrier_t start;
	uint32_t number, next, begun;
	uint32_t order[WIDE];
} race = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint32_t race_begun(void)
{
	uint32_t begun;

	pthread_mutex_lock(&race.lock);
	begun = race.begun;
	pthread_mutex_unlock(&race.lock);
	return begun;
}

static bool race_take(uint32_t *ret_shard)
{
	bool more;

	pthread_mutex_lock(&race.lock);
	more = race.next < WIDE;
	if (more)
		*ret_shard = race.order[race.next++];
	race.begun = race.next;
	pthread_mutex_unlock(&race.lock);
	return more;
}

static void *racer(void *arg)
{
	uint32_t shard;

	(void)arg;
	pthread_barrier_wait(&race.start);
	while (race_take(&shard)) {
		int status = dump_one(&f, race.number, shard, SMALL, CAIRN_MEMORY);
		bool there = present(&f, race.number);

		assert_true(status == 0 || status == -ENOSPC);
		if (there)
			assert_int_equal(race_begun(), WIDE);
		status = load_one(&f, race.number, shard, SMALL);
		assert_true(status == 0 || status == -ENOENT);
		if (status == 0)
			assert_int_equal(race_begun(), WIDE);
	}
	return NULL;
}

static void race_run(uint32_t number, struct random *random)
{
	pthread_t threads[RACERS];

	race.number = number;
	race.next = race.begun = 0;
	for (uint32_t i = 0; i < WIDE; i++) {
		uint32_t j = random_below(random, i + 1);

		race.order[i] = race.order[j];
		race.order[j] = i;
	}
	for (uint32_t i = 0; i < RACERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, racer, NULL), 0);
	for (uint32_t i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	assert_true(present(&f, number));
	for (uint32_t shard = 0; shard < WIDE; shard++)
		assert_int_equal(load_one(&f, number, shard, SMALL), 0);
}

/* Eight threads dump 64 shards in any order: seen and loaded only once all were dumped. */
static void never_before_it_is_whole(void **state)
{
	(void)state;
	pthread_barrier_init(&race.start, NULL, RACERS);
	for (size_t i = 0; i < PAIRS; i++) {
		struct random random = {i + 1};

		pair_open(&pairs[i], SHARDS);
		cairn_namespace_close(f.ns);
		fixture_space(&f, "wide", WIDE, SMALL);
		refuse(EVEN, ODD);
		for (uint32_t round = 0; round < 6; round++)
			race_run(round, &random);
		union_close();
	}
	pthread_barrier_destroy(&race.start);
}

#define KEYS 3u

static void *mixer(void *arg)
{
	struct random random = {*(uint32_t *)arg + 77};

	pthread_barrier_wait(&race.start);
	for (int i = 0; i < 400; i++) {
		uint64_t dice = random_next(&random);
		uint32_t number = (uint32_t)(dice >> 8) % KEYS,
			 shard = (uint32_t)(dice >> 16) % SHARDS;
		struct cairn_key key = key_of(&f, number);
		int status;

		switch (dice % 8) {
		case 0:
			status = cairn_remove(f.ns, &key, 1, NULL, NULL, NULL);
			assert_true(status == 0 || status == -ENOENT);
			break;
		case 1:
		case 2:
			present(&f, number);
			break;
		case 3:
		case 4: /* compares what it gets */
			status = load_part(&f, number, shard, SMALL, dice % 600, 99, dice % 3);
			assert_true(status == 0 || status == -ENOENT);
			break;
		case 5:
			refuse(dice >> 32 & 0xf, dice >> 40 & 0xf);
			break;
		default:
			status = dump_one(&f, number, shard, SMALL, CAIRN_MEMORY);
			assert_true(status >= 0 || status == -ENOSPC || status == -ESTALE);
		}
	}
	return NULL;
}

/* Tiers that take and refuse at random, removes among it: never a wrong byte. */
static void mixed_calls(void **state)
{
	uint32_t seeds[RACERS];
	pthread_t threads[RACERS];

	(void)state;
	pthread_barrier_init(&race.start, NULL, RACERS);
	for (size_t i = 0; i < PAIRS; i++) {
		pair_open(&pairs[i], SHARDS);
		cairn_namespace_close(f.ns);
		fixture_space(&f, "mixed", SHARDS, SMALL);
		for (uint32_t t = 0; t < RACERS; t++) {
			seeds[t] = t;
			assert_int_equal(pthread_create(&threads[t], NULL, mixer, &seeds[t]), 0);
		}
		for (uint32_t t = 0; t < RACERS; t++)
			pthread_join(threads[t], NULL);
		union_close();
	}
	pthread_barrier_destroy(&race.start);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_halves),
		cmocka_unit_test(lookups),
		cmocka_unit_test(dumped_again),
		cmocka_unit_test(removed_and_cleared),
		cmocka_unit_test(closed_and_opened),
		cmocka_unit_test(other_geometry),
		cmocka_unit_test(never_whole_at_once),
		cmocka_unit_test(evicted),
		cmocka_unit_test(damaged_and_lost),
		cmocka_unit_test(nothing_is_asked_before),
		cmocka_unit_test(never_before_it_is_whole),
		cmocka_unit_test(mixed_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
