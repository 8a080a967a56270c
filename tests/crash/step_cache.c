/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a cache's region is killed after instruction N of a call, for each N or for
 * some that a seed says; the other one cleans up after it. Then all that is shared fits
 * together, nothing is pinned or half made, what others have pinned has its bytes, and each
 * slot can be had again.
 */
#include "../fault/kit.h"
#include "../unit/cache_region.h"
#include "step.h"

#define SIZE	   (8u << 20)
#define ENTRIES	   256u
#define KEYS	   24u
#define EACH_UNTIL 5000u /* the soak: each N below it, then each EACH_STEP-th */
#define EACH_STEP  97u
#define OTHER	   200000u /* bytes of a size of slots that nobody has */
#define SURVIVOR   0u
#define VICTIM	   1u
#define PINNED	   8u  /* a block that the survivor has pinned throughout; of three shards */
#define SUBJECT	   11u /* what most calls are about: three shards as well */

enum call {
	PIN,
	UNPIN,
	RESERVE,
	COMMIT,
	ABORT,
	REMOVE,
	TELL,
	EVICT,
	CHANGE,
	SWEEP,
	RECOVER,
	JOIN,
	HOLD_BACK,
	FLY,
	LAND,
	VANISH,
	DROP,
	CALLS
};

static const char *const names[CALLS] = {
	"pin",	 "unpin",   "reserve", "commit",    "abort", "remove", "tell",	 "evict", "change",
	"sweep", "recover", "join",    "hold back", "fly",   "land",   "vanish", "drop"};

struct scene {
	struct shelf *shelf;
	enum call call;
	struct shelf_client survivor, victim;
	struct shelf_pin pinned, pin;
	struct shelf_reservation reservation;
};

/* As it was made: in the same memory, since the kernel takes long to find new. */
static void wipe(struct shelf *shelf)
{
	uint8_t *base = (uint8_t *)shelf->header;
	struct cache_header header = *shelf->header;

	memset(base, 0, header.descs_at);
	memset(base + header.words_at, 0, header.chunks * CACHE_WORDS_FAR * sizeof(uint64_t));
	memcpy(base, &header, offsetof(struct cache_header, ready));
}

static struct cache_ref subject_of(struct shelf_client *client)
{
	struct cache_key key = shelf_key(SUBJECT);

	return cached_find(&client->map, &key);
}

/* It becomes DIRTY with its last shard. */
static void hold_back(struct scene *scene)
{
	flags_raise(&scene->victim.map.entries[subject_of(&scene->victim).entry].flags, ENTRY_BACK);
}

/* The last shard of it is the victim's to make. */
static void reserve_last(struct scene *scene)
{
	shelf_remove(&scene->survivor, SUBJECT);
	for (uint32_t i = 0; i < shelf_shards(SUBJECT); i++) {
		CHECK(shelf_reserve(&scene->victim, SUBJECT, &scene->reservation));
		if (i + 1 < shelf_shards(SUBJECT))
			shelf_settle(&scene->victim, &scene->reservation, true);
	}
}

static bool fly(struct shelf_client *client)
{
	struct cache_ref ref = subject_of(client);

	return entry_fly(&client->map, ref.entry, state_life(ref.state));
}

static void land(struct shelf_client *client, enum entry_end end)
{
	struct cache_ref ref = subject_of(client);

	entry_land(&client->map, ref.entry, state_life(ref.state), end);
}

static void scene_new(struct scene *scene, struct shelf *shelf, enum call call)
{
	memset(scene, 0, sizeof(*scene));
	wipe(shelf);
	scene->shelf = shelf;
	scene->call = call;
	CHECK(shelf_join(&scene->survivor, shelf, SURVIVOR, 1));
	CHECK(shelf_join(&scene->victim, shelf, VICTIM, 2));
	shelf_dump(&scene->survivor, PINNED);
	CHECK(shelf_pin(&scene->survivor, PINNED, &scene->pinned));
	for (uint32_t i = 0; i < KEYS; i++)
		if (call != RESERVE || i != SUBJECT)
			shelf_dump(&scene->survivor, i);
	if (call == COMMIT || call == ABORT || call >= HOLD_BACK)
		reserve_last(scene);
	if (call >= HOLD_BACK)
		hold_back(scene);
	if (call > HOLD_BACK)
		shelf_settle(&scene->victim, &scene->reservation, true);
	if (call == LAND || call == VANISH)
		CHECK(fly(&scene->victim));
	/* A chunk that has become empty. */
	for (uint32_t i = 0; call == CHANGE && i < KEYS; i++)
		if (shelf_bytes(i) == 4096)
			shelf_remove(&scene->survivor, i);
	if (call == UNPIN)
		CHECK(shelf_pin(&scene->victim, SUBJECT, &scene->pin));
	/* Of one that is removed and pinned the reclaimer finds the pin. */
	if (call == SWEEP)
		CHECK(entry_remove(&scene->victim.map, &scene->pinned.ref));
}

static void scene_free(struct scene *scene)
{
	shelf_die(&scene->survivor);
	shelf_die(&scene->victim);
}

/* Chunks that are empty lose their class, and one gets another. */
static void change_class(struct shelf_client *client)
{
	uint64_t slot;

	for (uint32_t i = 0; i < client->map.chunk_count; i++)
		chunk_empty(&client->map, i);
	if (slots_take(&client->map, slots_units(OTHER), &slot))
		slots_give(&client->map, slot);
}

static void play(void *context)
{
	struct scene *scene = context;
	struct shelf_client *client = &scene->victim;

	switch (scene->call) {
	case PIN:
		shelf_pin(client, SUBJECT, &scene->pin);
		break;
	case UNPIN:
		shelf_let_go(client, scene->pin.record, scene->pin.ref.entry);
		break;
	case RESERVE:
		shelf_reserve(client, SUBJECT, &scene->reservation);
		break;
	case COMMIT:
	case ABORT:
	case HOLD_BACK:
		shelf_settle(client, &scene->reservation, scene->call != ABORT);
		break;
	case FLY:
		fly(client);
		break;
	case LAND:
	case VANISH:
		land(client, scene->call == LAND ? END_CLEAN : END_GONE);
		break;
	case REMOVE:
	case DROP:
		shelf_remove(client, SUBJECT);
		break;
	case TELL:
		shelf_tell(client, SUBJECT, PINNED);
		break;
	case EVICT:
		shelf_evict(client, 1);
		break;
	case CHANGE:
		change_class(client);
		break;
	case SWEEP:
		reclaim_sweep(&client->map, ENTRIES);
		break;
	case RECOVER:
		/* Of a third that died with a shard half made. */
		recover_client(&client->map, VICTIM + 1, NULL);
		break;
	case JOIN:
		/* In the place of one that died so. */
		shelf_join(client, scene->shelf, VICTIM, 3);
		break;
	case CALLS:
		break;
	}
}

/* For RECOVER client VICTIM + 1, for JOIN the VICTIM before this one, dead in the middle of it. */
static void leave_a_dead_one(struct scene *scene, uint32_t number)
{
	struct shelf_reservation reservation;
	struct shelf_client third;
	struct shelf_pin pin;

	CHECK(shelf_join(&third, scene->shelf, number, 3));
	shelf_remove(&third, SUBJECT);
	CHECK(shelf_reserve(&third, SUBJECT, &reservation));
	CHECK(shelf_pin(&third, SUBJECT + 3, &pin));
	shelf_die(&third);
}

/* Held back, by nobody just now, and counted; the survivor writes it below. */
static void check_dirty(struct scene *scene)
{
	struct shelf_client *survivor = &scene->survivor;
	struct cache_ref ref = subject_of(survivor);
	struct cache_map *map = &survivor->map;
	bool dirty = ref.entry != CACHE_NONE && state_dirty(ref.state);
	struct evicted evicted = {0};

	CHECK(word_get(&map->header->dirty) == (dirty ? entry_bytes(map, ref.entry) : 0));
	if (!dirty)
		return;
	CHECK(!state_flying(ref.state));
	while (evict_for(map, POLICY_LRU, slots_units(shelf_bytes(SUBJECT)), &evicted))
		;
	CHECK(fly(survivor) && !entry_remove(map, &ref));
	land(survivor, END_CLEAN);
	CHECK(word_get(&map->header->dirty) == 0);
}

static void check_after(struct scene *scene)
{
	struct cache_map *map = &scene->survivor.map;
	char why[256] = "";

	CHECK(shelf_recover(&scene->survivor, VICTIM));
	if (scene->call == RECOVER && half_get(&map->clients[VICTIM + 1].state) != CLIENT_FREE)
		CHECK(shelf_recover(&scene->survivor, VICTIM + 1));
	CHECK(cache_check(map, false, why, sizeof(why)), "%s", why);
	shelf_unpin(&scene->survivor, &scene->pinned);
	CHECK(!scene->survivor.wrong, "%s", scene->survivor.wrong);
	reclaim_sweep(map, ENTRIES);
	CHECK(cache_check(map, true, why, sizeof(why)), "%s", why);
	check_dirty(scene);
	step_regain(map);
}

struct walk {
	struct shelf *shelf;
	enum call call;
};

/* Killed after @steps instructions of the call. True: the call was over before. */
static bool kill_after(const struct walk *walk, uint64_t steps, uint64_t *ret_count)
{
	struct scene scene;
	bool over;
	pid_t pid;

	kit_at("%s, instruction %llu", names[walk->call], (unsigned long long)steps);
	kit_watch(60);
	scene_new(&scene, walk->shelf, walk->call);
	if (walk->call == RECOVER)
		leave_a_dead_one(&scene, VICTIM + 1);
	else if (walk->call == JOIN)
		leave_a_dead_one(&scene, VICTIM);
	pid = step_child(play, &scene);
	over = step_instructions(pid, steps, ret_count);
	step_kill(pid);
	check_after(&scene);
	scene_free(&scene);
	return over;
}

/* Each up to EACH_UNTIL, some behind; of a call that takes longer the first @most. */
static void walk_each(const struct walk *walk, uint64_t most)
{
	uint64_t step = 0, count, kills = 0;

	while (step < most && !kill_after(walk, step, &count)) {
		step += step < EACH_UNTIL ? 1 : EACH_STEP;
		kills++;
	}
	printf("%s: up to instruction %llu, %llu kills\n", names[walk->call],
	       (unsigned long long)count, (unsigned long long)kills);
}

static void walk_some(const struct walk *walk, uint64_t kills, uint64_t most, struct kit_rng *rng)
{
	uint64_t length, count;

	if (kill_after(walk, most, &length) && length < most)
		most = length;
	for (uint64_t i = 0; i < kills; i++)
		kill_after(walk, kit_below(rng, most), &count);
	printf("%s: of %llu instructions, %llu kills\n", names[walk->call],
	       (unsigned long long)most, (unsigned long long)kills);
}

int main(int argc, char **argv)
{
	struct kit_rng rng;
	struct shelf shelf;
	uint64_t kills, most, first, until;

	kit_init(argc, argv);
	rng.state = kit_number("seed", 1, 1);
	kills = kit_number("kills", kit_sanitized() ? 12 : 50, 0);
	most = kit_number("most", 4000, 60000);
	/* The soak takes an hour of a processor: parts of it, by the calls' places above. */
	first = kit_number("first", 0, 0);
	until = kit_number("until", CALLS, CALLS);
	CHECK(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	for (enum call call = 0; call < CALLS; call++) {
		struct walk walk = {&shelf, call};

		if (call < first || call >= until)
			continue;
		if (kit_soak() || ((call == PIN || call == UNPIN) && !kit_sanitized()))
			walk_each(&walk, most);
		else
			/* The last ones are short: fewer meet each of their steps. */
			walk_some(&walk, call > HOLD_BACK ? kills / 3 : kills, most, &rng);
	}
	shelf_free(&shelf);
	return 0;
}
