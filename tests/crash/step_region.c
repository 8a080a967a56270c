/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process is killed in the middle of region_open() or region_close(): as it makes a region,
 * makes anew what dead ones left, takes up a kept one, comes in beside another, goes from
 * beside another, or goes as the last one. Then the region is sound for who has it open, or opens
 * it next: it has all blocks or none, each with its bytes, each slot can be had, and once that
 * one has gone no file is left.
 *
 * It is killed so many instructions after one of its system calls: in the long form after each of
 * them up to the next call, or up to EACH_UNTIL and each EACH_STEP-th behind; in the short one
 * after some that a seed says.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../fault/kit.h"
#include "../unit/cache_region.h"
#include "stages/cache/region.h"
#include "step.h"

#define SIZE	   (6700u << 10) /* five chunks, and room for the words of small slots */
#define ENTRIES	   32u
#define CHUNKS	   3u /* with memory: one for each size of slots */
#define FIRST_KEY  3u /* of 4096 and of 70000 bytes, of one shard to three */
#define KEYS	   6u
#define DEAD_KEY   14u /* of a dead one, that is never whole */
#define SECOND_NS  1000000000u
#define STOPS_MOST 100000u
#define EACH_UNTIL 1000u
#define EACH_STEP  97u
#define TO_CALL	   UINT64_MAX /* instructions: up to the next system call */

enum call {
	MAKE,
	PRIVATE, /* the same, and nobody else is to find it */
	REMAKE,
	ADOPT,
	ATTACH,
	ATTACH_DEAD, /* and clean up after one that is dead */
	LEAVE,
	DROP,
	KEEP,
	CALLS
};

static const char *const names[CALLS] = {"make",    "make, private", "make anew",
					 "take up", "come in",	     "come in, one is dead",
					 "go",	    "go, last",	     "go, last, and keep it"};

/* Where the child is killed. */
struct point {
	uint64_t stops, instructions;
};

struct scene {
	enum call call;
	struct region survivor, victim;
	struct shelf shelf;
	struct shelf_pin pinned; /* by the survivor */
	pid_t pid;
};

static char name[REGION_NAME_MAX];
static uint64_t clock_ns = SECOND_NS;
static struct sys sys;

/* ---- a host ------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	return clock_ns;
}

static int guard(const struct cairn_stage_env *env, int fd)
{
	(void)env;
	(void)fd;
	return 0;
}

static void fork_close(const struct cairn_stage_env *env, int fd, bool forget)
{
	(void)env;
	(void)fd;
	(void)forget;
}

static struct stage_env internal = {.sys = &sys, .guard = guard, .fork_close = fork_close};
static const struct cairn_stage_env env = {.name = "cache", .internal = &internal};

static void enter(struct region *region, bool private, bool keep)
{
	const struct region_opts opts = {
		.name = private ? NULL : name,
		.size = SIZE,
		.entries = ENTRIES,
		.keep = keep,
		.tails = true,
		.wait_ns = SECOND_NS, /* for who looks whether somebody has it */
	};
	struct cairn_error error = {0};

	memset(region, 0, sizeof(*region));
	CHECK(region_open(region, &env, &opts, &error) == 0, "%s", error.text);
}

/* What the kernel does when its process dies. */
static void die(struct region *region)
{
	munmap(region->lent, region->bytes);
	munmap(region->base, region->bytes);
	sys.free(region->map.pin_next);
	close(region->fd);
}

static void leave(struct region *region)
{
	region->keep = false;
	region_close(region);
}

/* ---- what is in it ------------------------------------------------------------------ */

static struct shelf_client client_of(struct scene *scene, struct region *region)
{
	return (struct shelf_client){.map = region->map, .shelf = &scene->shelf, .random.state = 1};
}

static void lay_in(struct scene *scene, struct region *region)
{
	struct shelf_client client;

	for (uint32_t i = 0; i < CHUNKS; i++)
		region_back(region, i);
	client = client_of(scene, region);
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(&client, FIRST_KEY + i);
	CHECK(word_get(&region->map.header->blocks) == KEYS);
	/* Nobody unpins it. */
	CHECK(shelf_pin(&client, FIRST_KEY, &scene->pinned));
}

/* It dies with a shard half made, and another block pinned. */
static void leave_a_dead_one(struct scene *scene)
{
	struct shelf_reservation reservation;
	struct shelf_client client;
	struct region third;
	struct shelf_pin pin;

	enter(&third, false, false);
	client = client_of(scene, &third);
	CHECK(shelf_reserve(&client, DEAD_KEY, &reservation));
	CHECK(shelf_pin(&client, FIRST_KEY + 1, &pin));
	die(&third);
}

static void scene_new(struct scene *scene, enum call call)
{
	struct shelf_client client;
	struct shelf_pin pin;

	memset(scene, 0, sizeof(*scene));
	scene->call = call;
	if (call == ATTACH || call == ATTACH_DEAD || call == LEAVE) {
		enter(&scene->survivor, false, false);
		lay_in(scene, &scene->survivor);
	}
	if (call == ATTACH_DEAD)
		leave_a_dead_one(scene);
	if (call == LEAVE) {
		enter(&scene->victim, false, false);
		client = client_of(scene, &scene->victim);
		CHECK(shelf_pin(&client, FIRST_KEY + 1, &pin));
	}
	if (call == REMAKE || call == ADOPT || call == DROP || call == KEEP) {
		enter(&scene->victim, false, call == ADOPT || call == KEEP);
		lay_in(scene, &scene->victim);
	}
	if (call == REMAKE)
		die(&scene->victim);
	if (call == ADOPT)
		region_close(&scene->victim);
}

static void play(void *context)
{
	struct scene *scene = context;

	if (scene->call < LEAVE)
		enter(&scene->victim, scene->call == PRIVATE, scene->call == ADOPT);
	else
		region_close(&scene->victim);
}

/* ---- after it ------------------------------------------------------------------------ */

/* Files of this test's: named as the region, or as a private one of the child's. */
static uint32_t files(const struct scene *scene)
{
	char child[32], path[REGION_NAME_MAX + 40];
	DIR *folder = opendir("/dev/shm");
	uint32_t count = 0;
	struct dirent *at;

	CHECK(folder);
	region_file_name(name, path);
	snprintf(child, sizeof(child), "-private-%d-", scene->pid);
	while ((at = readdir(folder))) {
		CHECK(!strstr(at->d_name, child), "%s is left", at->d_name);
		CHECK(!strstr(at->d_name, name) || strcmp(at->d_name, path + 1) == 0, "%s is left",
		      at->d_name);
		count += strcmp(at->d_name, path + 1) == 0;
	}
	closedir(folder);
	return count;
}

/* Blocks that are there whole; each has its bytes. */
static uint32_t look_at_all(struct scene *scene, struct region *region)
{
	struct shelf_client client = client_of(scene, region);
	struct cache_map *map = &region->map;
	uint32_t count = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		struct cache_key key = shelf_key(FIRST_KEY + i);
		struct cache_ref ref = cached_find(map, &key);

		if (ref.entry == CACHE_NONE)
			continue;
		CHECK(state_whole(ref.state));
		shelf_look(&client, &ref, FIRST_KEY + i);
		count++;
	}
	CHECK(!client.wrong, "%s", client.wrong);
	CHECK(count == word_get(&map->header->blocks));
	return count;
}

static void check_region(struct scene *scene, struct region *region)
{
	struct cache_map *map = &region->map;
	char why[256] = "";

	CHECK(region_clients(region, false) == 1, "%u clients", region_clients(region, false));
	CHECK(cache_check(map, true, why, sizeof(why)), "%s", why);
	step_regain(map);
	leave(region);
	CHECK(files(scene) == 0);
}

/* By the one who had it open. */
static void check_survivor(struct scene *scene)
{
	struct region *region = &scene->survivor;
	struct shelf_client client = client_of(scene, region);

	CHECK(files(scene) == 1);
	clock_ns += SECOND_NS; /* it has looked for the dead just now */
	region_recover(region);
	shelf_unpin(&client, &scene->pinned);
	CHECK(!client.wrong, "%s", client.wrong);
	/* The dead one's subject has no shard, and goes as others need its place. */
	CHECK(look_at_all(scene, region) == KEYS);
	check_region(scene, region);
}

/* By who opens it next. */
static void check_next(struct scene *scene, bool keep)
{
	bool kept = scene->call == ADOPT || scene->call == KEEP;
	struct region region;
	uint32_t count;

	/* Who opens one beside this test may have taken away what nobody wanted kept. */
	CHECK(files(scene) == 1 || !kept);
	enter(&region, false, keep || kept);
	count = look_at_all(scene, &region);
	CHECK(count == KEYS || (count == 0 && !kept), "%u blocks", count);
	CHECK(count == 0 || keep || kept);
	/* Each is to be checked before it is served. */
	CHECK(count == 0 || region.adoptions > 0);
	check_region(scene, &region);
}

static bool kill_at(enum call call, struct point point, uint64_t *ret_count)
{
	struct scene scene;
	bool over;

	kit_at("%s, stop %llu, instruction %llu", names[call], (unsigned long long)point.stops,
	       (unsigned long long)point.instructions);
	kit_watch(60);
	scene_new(&scene, call);
	scene.pid = step_child(play, &scene);
	if (call >= LEAVE)
		die(&scene.victim); /* the child has it now */
	over = step_stops(scene.pid, point.stops, ret_count);
	if (!over && point.instructions == TO_CALL)
		over = step_to_call(scene.pid, ret_count);
	else if (!over && point.instructions > 0)
		over = step_instructions(scene.pid, point.instructions, ret_count);
	step_kill(scene.pid);
	if (call == PRIVATE)
		CHECK(files(&scene) == 0);
	else if (scene.survivor.base)
		check_survivor(&scene);
	else
		check_next(&scene, (point.stops + point.instructions) % 2);
	return over;
}

/* ---- walks ------------------------------------------------------------------------------ */

static void walk_each(enum call call)
{
	uint64_t stops, gap, count, kills = 0;

	CHECK(kill_at(call, (struct point){STOPS_MOST, 0}, &stops));
	/* Before each call but not after it: what comes after it is one instruction more. */
	for (uint64_t at = 0; at <= stops; at += at == 0 ? 1 : 2) {
		kill_at(call, (struct point){at, TO_CALL}, &gap);
		for (uint64_t i = 0; i <= gap; i += i < EACH_UNTIL ? 1 : EACH_STEP) {
			kill_at(call, (struct point){at, i}, &count);
			kills++;
		}
	}
	printf("%s: each of %llu system calls, %llu kills\n", names[call],
	       (unsigned long long)stops / 2, (unsigned long long)kills);
}

static void walk_some(enum call call, uint64_t kills, struct kit_rng *rng)
{
	uint64_t stops, count;

	CHECK(kill_at(call, (struct point){STOPS_MOST, 0}, &stops));
	for (uint64_t i = 0; i < kills; i++) {
		struct point point = {.stops = kit_below(rng, stops + 1)};

		/* Most often to before the next one. */
		point.instructions = kit_below(rng, UINT64_C(1) << kit_below(rng, 10));
		kill_at(call, point, &count);
	}
	printf("%s: of %llu system calls, %llu kills\n", names[call], (unsigned long long)stops / 2,
	       (unsigned long long)kills);
}

static int no_tmpfile(int dirfd, const char *path, int flags, mode_t mode)
{
	return flags & O_TMPFILE ? -EOPNOTSUPP : sys_native.openat(dirfd, path, flags, mode);
}

/* What others have left is none of this test's: how many calls there are is not theirs to say. */
static int no_folder(int dirfd, const char *path, int flags, mode_t mode)
{
	if ((flags & O_TMPFILE) != O_TMPFILE && (flags & O_DIRECTORY))
		return -EACCES;
	return sys_native.openat(dirfd, path, flags, mode);
}

/* Where there are no files without a name a private region loses its own at once. */
static void open_without(void)
{
	struct scene scene = {.pid = getpid()};
	struct region region;

	kit_at("no files without a name");
	sys.openat = no_tmpfile;
	enter(&region, true, false);
	CHECK(files(&scene) == 0);
	check_region(&scene, &region);
	sys.openat = no_folder;
}

int main(int argc, char **argv)
{
	uint64_t kills, first, until;
	struct kit_rng rng;

	kit_init(argc, argv);
	rng.state = kit_number("seed", 1, 1);
	kills = kit_number("kills", kit_sanitized() ? 12 : 50, 0);
	first = kit_number("first", 0, 0);
	until = kit_number("until", CALLS, CALLS);
	sys = sys_native;
	sys.now_ns = now_ns;
	sys.openat = no_folder;
	snprintf(name, sizeof(name), "step-%d", getpid());
	open_without();
	for (enum call call = 0; call < CALLS; call++) {
		if (call < first || call >= until)
			continue;
		if (kit_soak())
			walk_each(call);
		else
			walk_some(call, call == ATTACH ? kills : kills / 2, &rng);
	}
	return 0;
}
