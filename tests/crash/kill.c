/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that has the store open is killed with SIGKILL at a random moment
 * of its work, again and again; the store is opened at once, while what was in
 * flight may still land, and every survivor is verified byte for byte.
 *
 * The child tells over a pipe what it is about to do and what was acknowledged:
 * an acknowledged dump is there afterwards (bounded: or it was evicted), an
 * acknowledged remove stays, and what was only begun is whole or absent.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../fault/kit.h"

#define IDS_MAX	   (1u << 20)
#define ALIVE_MAX  300u /* of the unbounded store, kept from one kill to the next */
#define WRITERS	   2u
#define BURST	   512u /* writes of a burst, and reads: more than the kill is to meet */
#define IN_FLIGHT  256u /* of each, at the kill */
#define TRIES	   20u
#define LIMIT	   (8u << 20)
#define LIMIT_TEXT "8MiB"

static const struct kit_shape shape = {4, 16384};
static const struct kit_shape burst_shape = {1, 32768};
static const char *const engines[] = {"uring", "aio", "psync"};

static const char *any_engine(struct kit_rng *rng)
{
	const char *engine;

	do {
		engine = engines[kit_below(rng, 3)];
	} while (!kit_engine(engine));
	return engine;
}

enum event { DUMPING = 1, DUMPED, REMOVING, REMOVED, SENT };

struct record {
	uint32_t event, id;
};

enum fate { NEVER = 0, MUST, MAYBE, GONE };

struct world {
	char path[128];
	bool bounded, shared;
	uint8_t fate[IDS_MAX];
	uint32_t next_id; /* ids below were used */
	uint64_t dumped;  /* acknowledged, in all */
};

static void open_world(const struct world *world, const char *engine, const char *more,
		       struct cairn_store **ret_store)
{
	struct cairn_error error = {0};
	char spec[512], tier[256], posix[96], flash[96];
	int ret;

	snprintf(posix, sizeof(posix), "open_wait=10s%s%s",
		 world->bounded ? ", size=" LIMIT_TEXT : "", world->shared ? ", shared=yes" : "");
	snprintf(flash, sizeof(flash), "open_wait=10s, size=%s",
		 world->bounded ? LIMIT_TEXT
		 : kit_soak()	? "8GiB, region=16MiB"
				: "1GiB, region=4MiB");
	kit_tier(tier, sizeof(tier), world->path, posix, flash);
	snprintf(spec, sizeof(spec), "store(engine=%s, %s) | %s", engine, more, tier);
	ret = cairn_store_open(spec, NULL, ret_store, &error);
	CHECK(ret == 0, "open: %s", error.text);
}

/* ---- the child ------------------------------------------------------------------ */

struct writer {
	pthread_t thread;
	struct cairn_namespace *ns;
	struct kit_rng rng;
	uint32_t first_id, next, index;
	uint64_t steps;
	int pipe;
};

static void say(int pipe, enum event event, uint32_t id)
{
	struct record record = {event, id};

	if (write(pipe, &record, sizeof(record)) != (ssize_t)sizeof(record))
		_exit(3);
}

static void write_block(struct writer *writer, uint32_t id)
{
	uint32_t cut = (uint32_t)kit_below(&writer->rng, shape.shards);
	int ret;

	say(writer->pipe, DUMPING, id);
	if (cut > 0) {
		ret = kit_dump(writer->ns, shape, id, 0, cut, CAIRN_WRITTEN);
		CHECK(ret >= 0 || ret == -ESTALE, "dump of %u: %d", id, ret);
	}
	ret = kit_dump(writer->ns, shape, id, cut, shape.shards - cut, CAIRN_WRITTEN);
	CHECK(ret >= 0 || (cut > 0 && ret == -ESTALE), "dump of %u: %d", id, ret);
	if (ret >= 0 && kit_present(writer->ns, id))
		say(writer->pipe, DUMPED, id);
}

static void remove_block(struct writer *writer, uint32_t id)
{
	struct cairn_key key = kit_key(id);
	int ret;

	say(writer->pipe, REMOVING, id);
	ret = cairn_remove(writer->ns, &key, 1, NULL, NULL, NULL);
	CHECK(ret == 0 || ret == -ENOENT, "remove of %u: %d", id, ret);
	say(writer->pipe, REMOVED, id);
}

static void write_step(struct writer *writer)
{
	uint32_t used = (writer->next - writer->first_id) / WRITERS, old = 0;
	uint64_t dice = kit_below(&writer->rng, 10);

	if (used > 0)
		old = writer->first_id + writer->index +
		      (uint32_t)kit_below(&writer->rng, used) * WRITERS;
	if (used == 0 || dice < 6) {
		write_block(writer, writer->next);
		writer->next += WRITERS;
	} else if (dice < 8) {
		remove_block(writer, old);
	} else if (dice == 8) {
		write_block(writer, old);
	} else {
		kit_load(writer->ns, shape, old);
	}
}

static void *write_on(void *context)
{
	struct writer *writer = context;

	for (uint64_t i = 0; i < writer->steps; i++)
		write_step(writer);
	return NULL;
}

/* Until it is killed; half of the time it closes and opens the store now and then. */
__attribute__((noreturn)) static void child_writes(const struct world *world, const char *engine,
						   uint64_t seed, int pipe)
{
	struct kit_rng rng = {seed};
	bool reopens = kit_below(&rng, 2);
	struct writer writers[WRITERS];

	for (uint32_t i = 0; i < WRITERS; i++)
		writers[i] = (struct writer){.rng = {kit_next(&rng)},
					     .first_id = world->next_id,
					     .next = world->next_id + i,
					     .index = i,
					     .pipe = pipe};
	for (;;) {
		struct cairn_store *store;
		struct cairn_namespace *ns;

		open_world(world, engine, "reactors=2, buffers=16MiB", &store);
		CHECK(kit_namespace(store, "kill", shape, &ns) == 0);
		for (uint32_t i = 0; i < WRITERS; i++) {
			writers[i].ns = ns;
			writers[i].steps = reopens ? kit_below(&rng, 20) : UINT64_MAX;
			CHECK(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]) == 0);
		}
		for (uint32_t i = 0; i < WRITERS; i++)
			pthread_join(writers[i].thread, NULL);
		CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	}
}

/* Xfers that a stage has and has not given back yet. */
static uint64_t in_flight(struct cairn_store *store)
{
	struct cairn_stat st = {.size = sizeof(st)};

	CHECK(cairn_stat(store, &st) == 0);
	return st.xfers_in_flight;
}

struct burst {
	struct cairn_store *store;
	struct cairn_namespace *ns;
	struct cairn_xfer writes[BURST], reads[BURST];
	struct cairn_segment from[BURST], to[BURST];
	uint8_t *bytes;
};

/*
 * Writes of blocks from @first on, and reads of those from @base on, all at once, until
 * so many are under way that there are IN_FLIGHT of each among them. False: they ended first.
 */
static bool burst_send(struct burst *burst, uint32_t base, uint32_t first)
{
	/* Under way until a flush has ended, or the device is done before all have begun. */
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_DURABLE};
	uint64_t bytes = burst_shape.shard_bytes, writing, reading;
	bool over = false, reached = false;

	for (uint32_t i = 0; i < BURST; i++) {
		uint8_t *at = burst->bytes + i * bytes;

		kit_fill(at, bytes, first + i, 0, 0);
		burst->writes[i] = kit_xfer(first + i, 0, &burst->from[i], at, bytes);
		burst->reads[i] = kit_xfer(base + i, 0, &burst->to[i], at + BURST * bytes, bytes);
	}
	CHECK(cairn_dump(burst->ns, burst->writes, BURST, &opts, &writing) == 0);
	/* Reads come first in a reactor: only when the writes are under way. */
	while (in_flight(burst->store) < BURST - BURST / 8 && !over)
		over = cairn_task_wait(burst->store, writing, 0, 0) == 0;
	CHECK(cairn_load(burst->ns, burst->reads, BURST, NULL, &reading) == 0);
	while (!reached && !over) {
		reached = in_flight(burst->store) >= BURST + IN_FLIGHT;
		over = !reached && cairn_task_wait(burst->store, writing, 0, 0) == 0;
	}
	if (over)
		CHECK(cairn_task_wait(burst->store, reading, 0, UINT64_MAX) == 0);
	return reached;
}

/* Tells how often it tried; or 0, when it was in vain. */
__attribute__((noreturn)) static void child_bursts(const struct world *world, const char *engine,
						   uint64_t seed, int pipe)
{
	static struct burst burst;
	uint32_t tries = 0;
	bool reached = false;

	(void)seed;
	burst.bytes = aligned_alloc(4096, 2 * BURST * burst_shape.shard_bytes);
	open_world(world, engine, "ios=1024, buffers=64MiB, reactors=1, workers=8", &burst.store);
	CHECK(burst.bytes && kit_namespace(burst.store, "burst", burst_shape, &burst.ns) == 0);
	for (; !reached && tries < TRIES; tries++)
		reached = burst_send(&burst, 0, world->next_id + tries * BURST);
	say(pipe, SENT, reached ? tries : 0);
	pause();
	_exit(4);
}

/* ---- the parent ------------------------------------------------------------------- */

static void note(struct world *world, const struct record *record)
{
	uint8_t *fate = &world->fate[record->id];

	CHECK(record->id < IDS_MAX);
	switch ((enum event)record->event) {
	case DUMPING:
		/* What is there stays there; what is not may come. */
		if (*fate != MUST)
			*fate = MAYBE;
		break;
	case DUMPED:
		*fate = MUST;
		world->dumped++;
		break;
	case REMOVING:
		*fate = *fate == MUST || *fate == MAYBE ? MAYBE : *fate;
		break;
	case REMOVED:
		*fate = GONE;
		break;
	case SENT:
		break;
	}
	if (record->event != SENT && record->id >= world->next_id)
		world->next_id = record->id + 1;
}

static uint32_t read_records(struct world *world, int pipe, uint32_t at_most)
{
	struct record record;
	uint32_t n = 0;

	while (n < at_most && read(pipe, &record, sizeof(record)) == (ssize_t)sizeof(record)) {
		note(world, &record);
		n++;
	}
	return n;
}

static void nap(uint64_t ns)
{
	struct timespec ts = {.tv_nsec = (long)ns};

	nanosleep(&ts, NULL);
}

static void check_one(struct cairn_namespace *ns, const struct world *world, uint32_t id)
{
	uint8_t fate = world->fate[id];
	int ret;

	if (fate == NEVER)
		return;
	ret = kit_load(ns, shape, id);
	CHECK(ret == 0 || ret == -ENOENT, "block %u: %d", id, ret);
	CHECK(fate != GONE || ret == -ENOENT, "removed block %u came back", id);
	CHECK(fate != MUST || ret == 0 || world->bounded, "block %u is lost", id);
	CHECK((ret == 0) == kit_present(ns, id) || world->bounded, "block %u", id);
}

/* Keeps the unbounded store small. */
static void thin_out(struct cairn_namespace *ns, struct world *world)
{
	uint32_t alive = 0;

	for (uint32_t id = world->next_id; id-- > 0;) {
		struct cairn_key key = kit_key(id);

		alive += world->fate[id] == MUST || world->fate[id] == MAYBE;
		if (alive <= ALIVE_MAX || (world->fate[id] != MUST && world->fate[id] != MAYBE))
			continue;
		CHECK(cairn_remove(ns, &key, 1, NULL, NULL, NULL) != -EIO);
		world->fate[id] = GONE;
	}
}

static void check_budget(const struct world *world)
{
	uint64_t used = kit_du(world->path);

	if (kit_flash()) /* of one size; the folder is not its own */
		return;
	CHECK(!world->bounded || used <= LIMIT, "%lu bytes", (unsigned long)used);
	/* ... and it is used, once there was enough to fill it. */
	CHECK(!world->bounded || world->dumped < 400 || used > LIMIT / 3, "%lu bytes",
	      (unsigned long)used);
}

/* Nothing is under way: what is counted is what is there. */
static void check_used(const struct world *world, struct cairn_store *store)
{
	struct cairn_stat st = {.size = sizeof(st)};

	if (kit_flash()) /* a file of one size, whatever is in it */
		return;
	CHECK(cairn_stat(store, &st) == 0);
	CHECK(world->shared || st.bytes_used == kit_du_whole(world->path),
	      "%lu bytes counted, %lu used", (unsigned long)st.bytes_used,
	      (unsigned long)kit_du_whole(world->path));
}

static void verify(struct world *world, struct cairn_store *store)
{
	struct cairn_namespace *ns;
	uint32_t oldest = world->next_id > 4000 ? world->next_id - 4000 : 0;

	CHECK(kit_namespace(store, "kill", shape, &ns) == 0);
	for (uint32_t id = oldest; id < world->next_id; id++)
		check_one(ns, world, id);
	CHECK(kit_counter(store, kit_stage(), "damaged_blocks") == 0);
	if (!world->bounded)
		thin_out(ns, world);
}

static pid_t start(void (*run)(const struct world *, const char *, uint64_t, int),
		   const struct world *world, const char *engine, uint64_t seed, int *ret_pipe)
{
	int pipes[2];
	pid_t pid;

	CHECK(pipe(pipes) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		kit_watch(60);
		close(pipes[0]);
		run(world, engine, seed, pipes[1]);
	}
	close(pipes[1]);
	*ret_pipe = pipes[0];
	return pid;
}

static void bury(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child ended: %x", status);
}

static void kill_once(struct world *world, struct kit_rng *rng)
{
	uint32_t records = (uint32_t)kit_below(rng, 250);
	struct cairn_store *store;
	int pipe;
	pid_t pid = start(child_writes, world, any_engine(rng), kit_next(rng), &pipe);

	read_records(world, pipe, records);
	nap(kit_below(rng, 3000000));
	kill(pid, SIGKILL);
	open_world(world, any_engine(rng), "reactors=1, buffers=16MiB", &store);
	read_records(world, pipe, UINT32_MAX);
	close(pipe);
	bury(pid);
	check_budget(world);
	verify(world, store);
	check_used(world, store);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	check_budget(world);
}

/*
 * Two processes write to one directory and one of them is killed: what it had
 * acknowledged is there for a third, and the other goes on.
 */
static void kill_one_of_two(struct world *world, struct world *other, struct kit_rng *rng)
{
	struct cairn_store *store;
	int pipe, other_pipe;
	pid_t pid = start(child_writes, world, any_engine(rng), kit_next(rng), &pipe);
	pid_t stays = start(child_writes, other, any_engine(rng), kit_next(rng), &other_pipe);

	read_records(world, pipe, (uint32_t)kit_below(rng, 150));
	kill(pid, SIGKILL);
	read_records(world, pipe, UINT32_MAX);
	close(pipe);
	bury(pid);
	open_world(world, any_engine(rng), "reactors=1, buffers=16MiB", &store);
	verify(world, store);
	CHECK(read_records(other, other_pipe, 40) == 40);
	kill(stays, SIGKILL);
	read_records(other, other_pipe, UINT32_MAX);
	close(other_pipe);
	bury(stays);
	verify(other, store);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
}

/* How often the child tried until it had IN_FLIGHT reads and writes at once. */
static uint32_t read_tries(int pipe)
{
	struct record record;

	CHECK(read(pipe, &record, sizeof(record)) == (ssize_t)sizeof(record));
	CHECK(record.event == SENT && record.id > 0,
	      "there were never %u reads and %u writes in flight", IN_FLIGHT, IN_FLIGHT);
	return record.id;
}

/* Blocks that bursts read. */
static void burst_prepare(struct world *world)
{
	struct cairn_namespace *ns;
	struct cairn_store *store;

	open_world(world, "psync", "reactors=1", &store);
	CHECK(kit_namespace(store, "burst", burst_shape, &ns) == 0);
	for (uint32_t id = 0; id < BURST; id++)
		CHECK(kit_dump(ns, burst_shape, id, 0, 1, CAIRN_WRITTEN) == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	world->next_id = BURST;
}

/* Every block of the burst is right or absent, and stays so while late writes may land. */
static void burst_once(struct world *world, const char *engine, struct kit_rng *rng)
{
	static bool there[BURST];
	struct cairn_namespace *ns;
	struct cairn_store *store;
	uint32_t first, others, tries;
	int pipe;
	pid_t pid = start(child_bursts, world, engine, kit_next(rng), &pipe);

	tries = read_tries(pipe);
	first = world->next_id + (tries - 1) * BURST;
	others = world->next_id + TRIES * BURST;
	kill(pid, SIGKILL);
	open_world(world, engine, "reactors=1, ios=512", &store);
	CHECK(kit_namespace(store, "burst", burst_shape, &ns) == 0);
	for (uint32_t i = 0; i < BURST; i++) {
		there[i] = kit_load(ns, burst_shape, first + i) == 0;
		/* Where nothing is, another writer begins at once. */
		CHECK(kit_dump(ns, burst_shape, others + i, 0, 1, CAIRN_WRITTEN) == 0);
	}
	bury(pid);
	close(pipe);
	nap(300000000);
	for (uint32_t i = 0; i < BURST; i++) {
		int ret = kit_load(ns, burst_shape, first + i);

		CHECK(ret == (there[i] ? 0 : -ENOENT), "block %u: %d", i, ret);
		CHECK(kit_load(ns, burst_shape, i) == 0, "block %u", i);
		CHECK(kit_load(ns, burst_shape, others + i) == 0, "block %u", i);
		CHECK(kit_dump(ns, burst_shape, first + i, 0, 1, CAIRN_WRITTEN) >= 0);
		CHECK(kit_load(ns, burst_shape, first + i) == 0, "block %u", i);
	}
	for (uint32_t id = world->next_id; id < first; id++)
		CHECK(kit_load(ns, burst_shape, id) == 0, "block %u", id);
	CHECK(kit_counter(store, kit_stage(), "damaged_blocks") == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	world->next_id += (TRIES + 1) * BURST;
}

static struct world *world_new(const char *name, bool bounded)
{
	struct world *world = calloc(1, sizeof(*world));

	CHECK(world);
	kit_folder(world->path, sizeof(world->path), name);
	world->bounded = bounded;
	return world;
}

static void world_free(struct world *world)
{
	kit_remove_folder(world->path);
	free(world);
}

/* With each engine in turn. */
static void kill_bursts(const char *name, bool shared, uint64_t rounds, struct kit_rng *rng)
{
	struct world *world = world_new(name, false);

	world->shared = shared;
	burst_prepare(world);
	for (uint64_t i = 0; i < rounds; i++) {
		const char *engine = engines[i % 3];

		kit_at("%s %lu, engine=%s", name, (unsigned long)i, engine);
		kit_watch(60);
		if (kit_engine(engine))
			burst_once(world, engine, rng);
	}
	world_free(world);
}

static void kill_shared(uint64_t rounds, struct kit_rng *rng)
{
	struct world *world = world_new("kill-shared", false);
	struct world *other = calloc(1, sizeof(*other));

	CHECK(other);
	memcpy(other->path, world->path, sizeof(other->path));
	world->shared = other->shared = true;
	other->next_id = IDS_MAX / 2;
	for (uint64_t i = 0; i < rounds; i++) {
		kit_at("shared kill %lu", (unsigned long)i);
		kit_watch(60);
		kill_one_of_two(world, other, rng);
	}
	free(other);
	world_free(world);
}

int main(int argc, char **argv)
{
	struct world *unbounded, *bounded;
	struct kit_rng rng;
	uint64_t kills, rounds;

	kit_init(argc, argv);
	rng.state = kit_number("seed", 1, 7);
	kills = kit_number("kills", kit_sanitized() ? 4 : 16, 240);
	rounds = kit_number("bursts", kit_sanitized() ? 1 : 3, 40);
	unbounded = world_new("kill", false);
	bounded = world_new("kill-bounded", true);
	for (uint64_t i = 0; i < kills; i++) {
		kit_at("kill %lu", (unsigned long)i);
		kit_watch(60);
		kill_once(i % 2 ? bounded : unbounded, &rng);
	}
	kill_bursts("burst", false, rounds, &rng);
	if (!kit_flash())
		kill_bursts("burst-shared", true, (rounds + 2) / 3, &rng);
	if (!kit_flash())
		kill_shared(rounds, &rng);
	printf("kill: %lu kills, %lu with %u reads and %u writes in flight; %lu dumps "
	       "acknowledged\n",
	       (unsigned long)(kills + 3 * rounds), (unsigned long)rounds, IN_FLIGHT, IN_FLIGHT,
	       (unsigned long)(unbounded->dumped + bounded->dumped));
	world_free(unbounded);
	world_free(bounded);
	return 0;
}
