/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that share a cache's region are killed at random in the middle of
 * mixed calls, one after another; every byte that the others get is looked at.
 * At the end all die but one: what they had comes back, what they held back goes below, and
 * all that is shared fits together. A reader with 256 loads under way is killed, and one that
 * fills is stopped for a while. Some are each in a pid namespace of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cairn/pin.h>

#include "../fault/kit.h"
#include "stages/cache/recover.h"

#define WORKERS	  4u
#define KEYS	  600u
#define PREFIX	  12u
#define IN_FLIGHT 256u
#define HELD_MAX  4u

static const struct kit_shape shape = {3, 20000};
static const struct kit_shape single = {1, 32768};

struct world {
	char folder[128]; /* of the tier below; "": none */
	bool flash;	  /* that tier has one owner at a time */
	char region[64];
};

struct shop {
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static void shop_open(struct shop *shop, const struct world *world, struct kit_shape of)
{
	struct cairn_error error = {0};
	char spec[512], below[256] = "";
	int ret;

	if (world->flash)
		snprintf(below, sizeof(below), " | flash(path=%s/log, size=64MiB, open_wait=30s)",
			 world->folder);
	else if (world->folder[0])
		snprintf(below, sizeof(below), " | posix(path=%s, shared=yes)", world->folder);
	snprintf(spec, sizeof(spec),
		 "store(reactors=1, ios=1024, buffers=16MiB, deadline=20s) | "
		 "cache(size=16MiB, entries=512, open_wait=30s, name=%s, write=%s)%s",
		 world->region, world->folder[0] ? "back" : "through", below);
	ret = cairn_store_open(spec, NULL, &shop->store, &error);
	CHECK(ret == 0, "%s", error.text);
	CHECK(kit_namespace(shop->store, "kill", of, &shop->ns) == 0);
}

static void shop_close(struct shop *shop)
{
	CHECK(cairn_store_close(shop->store, UINT64_MAX) == 0);
}

/* ---- a worker
 * -------------------------------------------------------------------- */

static void use_dump(struct shop *shop, uint32_t id)
{
	int ret = kit_dump(shop->ns, shape, id, 0, shape.shards, CAIRN_MEMORY);

	/* Removed beside it, or no room for as long as it had. */
	CHECK(ret >= 0 || ret == -ESTALE || ret == -ENOSPC, "dump of %u: %d", id, ret);
}

static void use_load(struct shop *shop, uint32_t id)
{
	int ret = kit_load(shop->ns, shape, id);

	CHECK(ret == 0 || ret == -ENOENT, "load of %u: %d", id, ret);
}

static void use_hold(struct shop *shop, struct kit_rng *rng, uint32_t id)
{
	struct cairn_lookup_opts opts = {.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD};
	struct cairn_key keys[PREFIX];
	uint64_t hold = 0;
	int64_t count;

	for (uint32_t i = 0; i < PREFIX; i++)
		keys[i] = kit_key((id + i) % KEYS);
	count = cairn_lookup_prefix(shop->ns, keys, PREFIX, NULL, &opts, &hold);
	CHECK(count >= 0, "lookup of %u: %ld", id, (long)count);
	if (kit_below(rng, 8) > 0) /* else it is left to its time, or to the kill */
		cairn_hold_release(shop->store, hold);
}

static void use_pin(struct shop *shop, uint32_t id, uint32_t shard)
{
	struct cairn_key key = kit_key(id);
	struct cairn_pinned pinned;
	int ret = cairn_pin(shop->ns, &key, shard, &pinned);

	CHECK(ret == 0 || ret == -ENOENT, "pin of %u: %d", id, ret);
	if (ret < 0)
		return;
	CHECK(pinned.length == shape.shard_bytes, "%lu", (unsigned long)pinned.length);
	for (uint32_t i = 0; i < 3; i++)
		CHECK(kit_right(pinned.base, pinned.length, id, shard, 0), "pin of %u", id);
	CHECK(cairn_unpin(shop->store, pinned.pin) == 0);
}

static void use_reserve(struct shop *shop, struct kit_rng *rng, uint32_t id, uint32_t shard)
{
	struct cairn_segment segment;
	struct cairn_xfer xfer = kit_xfer(id, shard, &segment, NULL, shape.shard_bytes);
	struct cairn_reserved reserved;
	int ret = cairn_reserve(shop->ns, &xfer, &reserved);

	CHECK(ret == 0 || ret == -EAGAIN || ret == CAIRN_PRESENT, "reserve of %u: %d", id, ret);
	if (ret != 0)
		return;
	kit_fill(reserved.base, reserved.length, id, shard, 0);
	xfer = kit_xfer(id, shard, &segment, reserved.base, reserved.length);
	ret = kit_below(rng, 4) ? cairn_commit(shop->ns, &xfer, 1, NULL, NULL) : -ESTALE;
	CHECK(ret >= 0 || ret == -ESTALE || ret == -ENOSPC || ret == -EINVAL, "commit of %u: %d",
	      id, ret);
	if (ret < 0)
		cairn_abort(shop->store, reserved.base);
}

static void use(struct shop *shop, struct kit_rng *rng)
{
	uint32_t id = (uint32_t)kit_below(rng, KEYS), dice = (uint32_t)kit_below(rng, 64);
	uint32_t shard = (uint32_t)kit_below(rng, shape.shards);
	struct cairn_key key = kit_key(id);

	if (dice < 18)
		use_dump(shop, id);
	else if (dice < 34)
		use_load(shop, id);
	else if (dice < 42)
		use_hold(shop, rng, id);
	else if (dice < 50)
		use_pin(shop, id, shard);
	else if (dice < 56)
		use_reserve(shop, rng, id, shard);
	else if (dice < 60)
		cairn_remove(shop->ns, &key, 1, NULL, NULL, NULL);
	else if (dice < 63)
		cairn_prefetch(shop->ns, &key, 1, NULL, NULL, NULL);
	else if (kit_below(rng, 16) == 0)
		CHECK(cairn_clear(shop->ns, CAIRN_MEMORY) == 0);
}

/*
 * From here on this process only waits for a child, which is the first of a pid namespace of its
 * own and goes on: its pid is 1 there, as others' may be, and says nothing to them. It dies with
 * the one that waits. False: there is no right to make one.
 */
static bool enter_apart(void)
{
	struct pollfd gone;
	int status, pipes[2];
	pid_t pid;

	if (unshare(CLONE_NEWPID) < 0)
		return false;
	CHECK(pipe(pipes) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pipes[1]);
		gone = (struct pollfd){.fd = pipes[0], .events = POLLIN};
		if (getpid() != 1 || poll(&gone, 1, 0) != 0)
			_exit(1);
		return true;
	}
	waitpid(pid, &status, 0);
	_exit(1);
}

/* Tells when it has the region open. With @apart it is in a pid namespace of its own. */
static pid_t worker(const struct world *world, uint64_t seed, bool apart)
{
	struct kit_rng rng = {seed};
	struct shop shop;
	int pipes[2];
	char byte = 0;
	pid_t pid;

	CHECK(pipe(pipes) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (apart && !enter_apart())
			fprintf(stderr, "a worker without a pid namespace of its own: %s\n",
				strerror(errno));
		kit_watch(200);
		shop_open(&shop, world, shape);
		CHECK(write(pipes[1], &byte, 1) == 1);
		for (;;)
			use(&shop, &rng);
	}
	close(pipes[1]);
	/* Half of them may be killed as they come in. */
	if (seed % 2)
		CHECK(read(pipes[0], &byte, 1) == 1);
	close(pipes[0]);
	return pid;
}

static void end(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a worker ended: %x", status);
}

static void nap(uint64_t ns)
{
	struct timespec ts = {.tv_nsec = (long)ns};

	nanosleep(&ts, NULL);
}

/* ---- the survivor
 * ------------------------------------------------------------------- */

struct view {
	struct cache_map map;
	void *base;
	size_t bytes;
};

static void view_open(struct view *view, const struct world *world)
{
	char path[160];
	struct stat st;
	int fd;

	memset(view, 0, sizeof(*view));
	snprintf(path, sizeof(path), "/dev/shm/cairn-cache-%u-%s", geteuid(), world->region);
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0 && fstat(fd, &st) == 0);
	view->bytes = (size_t)st.st_size;
	view->base = mmap(NULL, view->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(view->base != MAP_FAILED);
	close(fd);
	map_init(&view->map, view->base, view->base);
}

static uint32_t clients(const struct view *view)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < CACHE_CLIENTS_MAX; i++)
		count += half_get(&view->map.clients[i].state) == CLIENT_LIVE;
	return count;
}

/* Held back by anybody, and not yet below. */
static bool any_dirty(const struct view *view)
{
	for (uint32_t i = 0; i < view->map.entry_count; i++)
		if (state_dirty(word_get(&view->map.entries[i].state)))
			return true;
	return false;
}

/* One process has it open, and nothing of others is left in it: all fits together. */
static void check_words(const struct view *view)
{
	char why[256] = "";

	while (any_dirty(view))
		nap(1000000);
	/* Memory for chunks may be on its way. */
	for (uint32_t i = 0; i < view->map.chunk_count; i++)
		while (chunk_phase(word_get(&view->map.chunks[i].state)) < CHUNK_FREE)
			nap(1000000);
	CHECK(cache_check(&view->map, true, why, sizeof(why)), "%s", why);
}

/*
 * Of those that are dead nothing is left, what they held back is below, and all fits together. Who
 * comes in cleans up, once the kernel has ended what the dead had under way; over a tier of one
 * owner that was so when it could be opened.
 */
static void check_region(const struct world *world)
{
	static struct view view;
	struct shop last;

	view_open(&view, world);
	if (world->flash) {
		CHECK(clients(&view) == 1);
		check_words(&view);
		munmap(view.base, view.bytes);
		return;
	}
	for (;;) {
		shop_open(&last, world, shape);
		if (clients(&view) == 2)
			break;
		shop_close(&last);
		nap(1000000);
	}
	check_words(&view);
	munmap(view.base, view.bytes);
	shop_close(&last);
}

/* More than there is room for can be dumped and is kept: nobody has a slot for
 * ever. */
static void use_all(struct shop *shop, uint32_t first)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < KEYS; i++) {
		int ret = kit_dump(shop->ns, shape, first + i, 0, shape.shards, CAIRN_MEMORY);

		CHECK(ret == 0, "dump of %u: %d", first + i, ret);
	}
	for (uint32_t i = 0; i < KEYS; i++)
		kept += kit_load(shop->ns, shape, first + i) == 0;
	/* 16 MiB, of which tables take a part and the odd slot is of another class.
	 */
	CHECK(kept > 150, "%u", kept);
}

static void run_kills(const struct world *world, uint64_t kills, struct kit_rng *rng)
{
	struct shop survivor;
	pid_t pids[WORKERS];

	for (uint32_t i = 0; i < WORKERS; i++)
		pids[i] = worker(world, kit_next(rng) | 1, i < 2);
	for (uint64_t i = 0; i + WORKERS < kills; i++) {
		uint32_t at = (uint32_t)kit_below(rng, WORKERS);

		kit_at("kill %lu over %s", (unsigned long)i, world->folder);
		kit_watch(100);
		nap(kit_below(rng, 40000000));
		end(pids[at]);
		pids[at] = worker(world, kit_next(rng), at < 2);
	}
	kit_at("the end over %s", world->folder);
	shop_open(&survivor, world, shape);
	use_dump(&survivor, 1);
	for (uint32_t i = 0; i < WORKERS; i++)
		end(pids[i]);
	check_region(world);
	use_all(&survivor, KEYS);
	check_region(world);
	shop_close(&survivor);
}

/* ---- many loads under way ------------------------------------------------------------------ */

/* Every other one of all bytes but one: what is not wanted whole is always read into its slot. */
static void send_loads(struct shop *shop)
{
	static struct cairn_xfer xfers[IN_FLIGHT];
	static struct cairn_segment segments[IN_FLIGHT];
	uint8_t *bytes = malloc(IN_FLIGHT * single.shard_bytes);
	uint64_t task;

	CHECK(bytes);
	for (uint32_t i = 0; i < IN_FLIGHT; i++)
		xfers[i] = kit_xfer(i, 0, &segments[i], bytes + i * single.shard_bytes,
				    single.shard_bytes - i % 2);
	CHECK(cairn_load(shop->ns, xfers, IN_FLIGHT, NULL, &task) == 0);
}

/* A child that sends loads, and tells so. */
static pid_t reader(const struct world *world, int *ret_pipe)
{
	struct shop shop;
	int pipes[2];
	char byte = 0;
	pid_t pid;

	CHECK(pipe(pipes) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		kit_watch(100);
		shop_open(&shop, world, single);
		send_loads(&shop);
		CHECK(write(pipes[1], &byte, 1) == 1);
		CHECK(cairn_store_close(shop.store, UINT64_MAX) == 0);
		_exit(0);
	}
	close(pipes[1]);
	*ret_pipe = pipes[0];
	return pid;
}

/* What is there below, and not in memory. */
static void lay_below(const struct world *world)
{
	struct shop shop;

	shop_open(&shop, world, single);
	for (uint32_t i = 0; i < IN_FLIGHT; i++)
		CHECK(kit_dump(shop.ns, single, i, 0, 1, CAIRN_WRITTEN) >= 0);
	shop_close(&shop);
}

/*
 * With @stop it is stopped while it fills, and goes on later; else it is
 * killed. Others load the same beside it, and want all slots at once.
 */
static void run_reader(const struct world *world, bool stop)
{
	struct shop shop;
	char byte;
	int pipe, status;
	pid_t pid;

	kit_at("%u loads under way%s, %s", IN_FLIGHT, world->flash ? " over flash" : "",
	       stop ? "stopped" : "killed");
	lay_below(world);
	pid = reader(world, &pipe);
	CHECK(read(pipe, &byte, 1) == 1);
	close(pipe);
	kill(pid, stop ? SIGSTOP : SIGKILL);
	shop_open(&shop, world, single);
	for (uint32_t i = 0; i < IN_FLIGHT; i++)
		CHECK(kit_load(shop.ns, single, i) == 0);
	for (uint32_t i = 0; i < 2 * IN_FLIGHT; i++)
		CHECK(kit_dump(shop.ns, single, IN_FLIGHT + i, 0, 1, CAIRN_MEMORY) >= 0);
	for (uint32_t i = 0; i < 3 * IN_FLIGHT; i++)
		CHECK(kit_load(shop.ns, single, i) == 0);
	if (stop)
		kill(pid, SIGCONT);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(stop ? status == 0 : WIFSIGNALED(status), "%x", status);
	check_region(world);
	shop_close(&shop);
}

int main(int argc, char **argv)
{
	struct world world = {.folder = ""};
	struct kit_rng rng;
	uint64_t kills, readers;

	kit_init(argc, argv);
	rng.state = kit_number("seed", 1, 1);
	kills = kit_number("kills", kit_sanitized() ? 6 : 20, 300);
	readers = kit_number("readers", 2, 40);
	snprintf(world.region, sizeof(world.region), "kill-%d", getpid());
	run_kills(&world, kills, &rng);
	kit_folder(world.folder, sizeof(world.folder), "kill_cache");
	run_kills(&world, kills, &rng);
	for (uint64_t i = 0; i < readers; i++)
		run_reader(&world, i % 2);
	/* Of one owner: the next one comes in as soon as nothing of the dead one is under way. */
	world.flash = true;
	for (uint64_t i = 0; i < readers; i++)
		run_reader(&world, false);
	kit_remove_folder(world.folder);
	return 0;
}
