/* SPDX-License-Identifier: Apache-2.0 */
/* A store and its engines: which it gets, what they carry, how many threads they take. */

/* Before cmocka.h, which has a macro fail(). */
#include "core/reactor.h"

#include "posix_store.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define MS	 1000000ull
#define REACTORS 4u
#define WORKERS	 3u
#define CALLERS	 2u
#define SHARDS	 16u
#define SHARD	 16384u
#define BLOCKS	 64u
#define LARGE	 (1u << 20)
#define NEVER	 UINT32_MAX

/* ---- a sys table with engines of the test's own ------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct sys table;
	struct engine_ops ops[ENGINE_KINDS];
	uint32_t opens[ENGINE_KINDS], refuse_from[ENGINE_KINDS];
	uint32_t iowq_max[64]; /* of io_uring's, as they were opened */
	uint32_t reads, writes;
	bool hang;	  /* opens of files wait until it is lowered */
	uint32_t waiting; /* that do */
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int open_through(enum engine_kind kind, const struct engine_ops *ops,
			const struct engine_opts *opts, struct engine **ret_engine)
{
	uint32_t n = world.opens[kind]++;

	if (kind == ENGINE_URING && n < sizeof(world.iowq_max) / sizeof(world.iowq_max[0]))
		world.iowq_max[n] = opts->iowq_max;
	return n >= world.refuse_from[kind] ? -ENOBUFS : ops->open(opts, ret_engine);
}

/* A ring that is none: how many can be had is the test's choice on every machine. */
static int open_ring(const struct engine_opts *opts, struct engine **ret_engine)
{
	return open_through(ENGINE_URING, &engine_psync, opts, ret_engine);
}

static int open_aio(const struct engine_opts *opts, struct engine **ret_engine)
{
	return open_through(ENGINE_AIO, &engine_aio, opts, ret_engine);
}

static const struct engine_ops *world_engine(enum engine_kind kind)
{
	return world.ops[kind].open ? &world.ops[kind] : sys_native.engine(kind);
}

/* But for the table: threads of a store may read it. */
static void world_zero(void)
{
	memset(world.ops, 0, sizeof(world.ops));
	memset(world.opens, 0, sizeof(world.opens));
	memset(world.refuse_from, 0xff, sizeof(world.refuse_from));
	world.reads = world.writes = 0;
}

static void world_reset(void)
{
	world.table = sys_native;
	world.table.engine = world_engine;
	world_zero();
}

static void world_with_rings(uint32_t refuse_from)
{
	world_reset();
	world.ops[ENGINE_URING] = engine_psync;
	world.ops[ENGINE_URING].name = "uring";
	world.ops[ENGINE_URING].open = open_ring;
	world.refuse_from[ENGINE_URING] = refuse_from;
	world.ops[ENGINE_AIO] = engine_aio;
	world.ops[ENGINE_AIO].open = open_aio;
}

/* Opens a store with @options of its own over posix with @tier. */
static int open_on_world(struct fixture *f, const char *options, const char *tier,
			 struct cairn_error *reterr)
{
	snprintf(f->spec, sizeof(f->spec), "store(%s) | posix(path=%s%s)", options, f->path, tier);
	return store_open(&world.table, f->spec, NULL, &f->store, reterr);
}

static void must_open(struct fixture *f, const char *options, const char *tier)
{
	struct cairn_error error = {0};

	if (open_on_world(f, options, tier, &error) < 0)
		fail_msg("%s: %s", f->spec, error.text);
}

static void stat_of(struct fixture *f, struct cairn_stat *st)
{
	*st = (struct cairn_stat){.size = sizeof(*st)};
	assert_int_equal(cairn_stat(f->store, st), 0);
}

static uint64_t store_counter(struct fixture *f, enum store_counter row)
{
	return counter_read(&f->store->counters[row]);
}

/* ---- which engine, and how many ------------------------------------------------ */

static void use(struct fixture *f)
{
	fixture_space(f, "used", 1, SHARD);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(dump_one(f, i, 0, SHARD, 0), 0);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(load_one(f, i, 0, SHARD), 0);
	fixture_close(f);
}

static void a_light_reactor_may_be_missing(void **state)
{
	struct fixture f;
	struct cairn_stat st;

	(void)state;
	for (uint32_t lights = 0; lights < 2; lights++) {
		fixture_new(&f);
		world_with_rings(1 + REACTORS + lights); /* the first is the probe */
		must_open(&f, "reactors=4", "");
		stat_of(&f, &st);
		assert_string_equal(st.engine, "uring");
		assert_string_equal(st.engine_note, "");
		assert_int_equal(st.reactors, REACTORS);
		assert_int_equal(f.store->lights_made, lights);
		use(&f);
		fixture_free(&f);
	}
}

static void a_standing_reactor_that_is_refused_changes_all(void **state)
{
	struct fixture f;
	struct cairn_stat st;

	(void)state;
	for (uint32_t rings = 1; rings < 1 + REACTORS; rings++) {
		fixture_new(&f);
		world_with_rings(rings);
		must_open(&f, "reactors=4", "");
		stat_of(&f, &st);
		assert_string_equal(st.engine, "aio");
		assert_string_equal(st.engine_note,
				    "io_uring: no more memory may be locked (RLIMIT_MEMLOCK)");
		assert_int_equal(st.reactors, REACTORS);
		for (uint32_t i = 0; i < REACTORS; i++)
			assert_ptr_equal(f.store->reactors[i]->engine_ops, &world.ops[ENGINE_AIO]);
		use(&f);
		fixture_free(&f);
	}
}

/* libaio is asked, not tried: to give a context back takes as long as all else of an open. */
static void no_aio_context_is_made_to_see_whether_it_can(void **state)
{
	struct fixture f;

	(void)state;
	fixture_new(&f);
	world_with_rings(NEVER);
	must_open(&f, "reactors=4, engine=aio", "");
	assert_int_equal(world.opens[ENGINE_AIO], REACTORS + f.store->lights_made);
	use(&f);
	fixture_free(&f);
}

static void refused_twice_is_told_twice(void **state)
{
	struct fixture f;
	struct cairn_stat st;

	(void)state;
	fixture_new(&f);
	world_with_rings(2);
	world.refuse_from[ENGINE_AIO] = 3;
	must_open(&f, "reactors=4", "");
	stat_of(&f, &st);
	assert_string_equal(st.engine, "psync");
	assert_non_null(strstr(st.engine_note, "io_uring: "));
	assert_non_null(strstr(st.engine_note, "; libaio: "));
	use(&f);
	fixture_free(&f);
}

/* Who asked for one engine gets no other. */
static void an_engine_by_name_is_not_changed(void **state)
{
	struct cairn_error error = {0};
	struct fixture f;

	(void)state;
	fixture_new(&f);
	world_with_rings(3);
	assert_int_equal(open_on_world(&f, "reactors=4, engine=uring", "", &error), -EOPNOTSUPP);
	assert_string_equal(error.text,
			    "store: engine: io_uring cannot be had here for reactor 2: no more "
			    "memory may be locked (RLIMIT_MEMLOCK); use engine=auto, or fewer ios "
			    "or reactors");
	world_with_rings(0);
	assert_int_equal(open_on_world(&f, "reactors=4, engine=uring", "", &error), -EOPNOTSUPP);
	assert_string_equal(error.text, "store: engine: io_uring cannot be had here: no more "
					"memory may be locked (RLIMIT_MEMLOCK); use engine=auto");
	fixture_free(&f);
}

/* In a child. 0: as it should be. */
static int use_with_memlock(struct fixture *f, rlim_t bytes)
{
	const struct rlimit limit = {bytes, bytes};
	struct cairn_stat st;
	bool told;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
		return 2;
	must_open(f, "reactors=2", "");
	stat_of(f, &st);
	told = strstr(st.engine_note, "io_uring") != NULL;
	use(f);
	if (strcmp(st.engine, "uring") == 0)
		return bytes > 0 && !told ? 0 : 3;
	return strcmp(st.engine, "aio") == 0 && told ? 0 : 4;
}

static void a_store_opens_whatever_may_be_locked(void **state)
{
	static const rlim_t limits[] = {0, 64 << 10, 128 << 10, 256 << 10};

	(void)state;
	world_reset();
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct fixture f;
		int status;
		pid_t child;

		fixture_new(&f);
		assert_int_equal(chmod(f.path, 0777), 0);
		child = fork();
		assert_true(child >= 0);
		if (child == 0)
			_exit(use_with_memlock(&f, limits[i]));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (status != 0)
			fail_msg("%lu bytes: status %x", (unsigned long)limits[i], status);
		fixture_free(&f);
	}
}

/* ---- what they carry -------------------------------------------------------------- */

static int submit_counted(const struct engine_ops *ops, struct engine *engine,
			  struct engine_chain *chain)
{
	pthread_mutex_lock(&world.lock);
	for (uint32_t i = 0; i < chain->op_count; i++) {
		world.reads += chain->ops[i].code == OP_READV;
		world.writes += chain->ops[i].code == OP_WRITEV;
	}
	pthread_mutex_unlock(&world.lock);
	return ops->submit(engine, chain);
}

static int submit_ring(struct engine *engine, struct engine_chain *chain)
{
	return submit_counted(sys_native.engine(ENGINE_URING), engine, chain);
}

static int submit_aio(struct engine *engine, struct engine_chain *chain)
{
	return submit_counted(&engine_aio, engine, chain);
}

static int submit_psync(struct engine *engine, struct engine_chain *chain)
{
	return submit_counted(&engine_psync, engine, chain);
}

static const char *const engines[] = {"uring", "aio", "psync"};

/* False: this machine has no such engine. */
static bool world_counts(enum engine_kind kind)
{
	const struct engine_ops *ops = sys_native.engine(kind);
	struct engine_opts opts = {.sys = &sys_native, .chains_max = 1, .guard_fd = -1};
	struct engine *engine;

	world_zero();
	if (!ops || ops->open(&opts, &engine) < 0)
		return false;
	ops->close(engine);
	for (enum engine_kind k = 0; k < ENGINE_KINDS; k++)
		if (sys_native.engine(k))
			world.ops[k] = *sys_native.engine(k);
	world.ops[ENGINE_URING].submit = submit_ring;
	world.ops[ENGINE_AIO].submit = submit_aio;
	world.ops[ENGINE_PSYNC].submit = submit_psync;
	return true;
}

/* All shards of block @number in one task. */
static void move_block(struct fixture *f, uint32_t number, bool dump, uint8_t *memory)
{
	struct cairn_key key = key_of(f, number);
	struct cairn_xfer xfers[SHARDS];

	for (uint32_t i = 0; i < SHARDS; i++) {
		xfers[i] = xfer_of(&key, i, 0, memory + (size_t)i * SHARD, SHARD);
		if (dump)
			content(&key, i, memory + (size_t)i * SHARD, SHARD);
	}
	if (dump)
		assert_int_equal(cairn_dump(f->ns, xfers, SHARDS, NULL, NULL), 0);
	else
		assert_int_equal(cairn_load(f->ns, xfers, SHARDS, NULL, NULL), 0);
}

static void adjacent_shards_are_one_io(void **state)
{
	uint8_t *memory = aligned_alloc(4096, SHARDS * SHARD);

	(void)state;
	assert_non_null(memory);
	for (enum engine_kind kind = 0; kind < ENGINE_KINDS; kind++) {
		struct fixture f;
		char options[64];

		if (!world_counts(kind))
			continue;
		fixture_new(&f);
		snprintf(options, sizeof(options), "reactors=2, engine=%s", engines[kind]);
		must_open(&f, options, "");
		fixture_space(&f, "adjacent", SHARDS, SHARD);
		world.reads = world.writes = 0;
		move_block(&f, 1, true, memory);
		assert_int_equal(world.writes, 1);
		assert_int_equal(world.reads, 0);
		move_block(&f, 1, false, memory);
		assert_int_equal(world.writes, 1);
		assert_int_equal(world.reads, 1);
		fixture_close(&f);
		fixture_free(&f);
	}
	free(memory);
}

/* One block of one shard of LARGE bytes, by a task, so that a standing reactor moves it. */
static void move_large(struct fixture *f, uint32_t number, bool dump, uint8_t *memory)
{
	struct cairn_key key = key_of(f, number);
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, memory, LARGE);
	uint64_t task;

	assert_int_equal(dump ? cairn_dump(f->ns, &xfer, 1, NULL, &task)
			      : cairn_load(f->ns, &xfer, 1, NULL, &task),
			 0);
	assert_int_equal(cairn_task_wait(f->store, task, 0, UINT64_MAX), 0);
	assert_int_equal(xfer.result.status, 0);
}

static bool may_lock(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	return limit.rlim_cur >= bytes;
}

/* What is large is copied through memory that a ring has registered, head and all. */
static void reads_and_writes_are_counted(void **state)
{
	uint8_t *memory = aligned_alloc(4096, LARGE);

	(void)state;
	assert_non_null(memory);
	memset(memory, 7, LARGE);
	for (enum engine_kind kind = 0; kind < ENGINE_KINDS; kind++) {
		struct fixture f;
		char options[64];
		uint64_t registered;

		if (!world_counts(kind))
			continue;
		fixture_new(&f);
		snprintf(options, sizeof(options), "reactors=2, engine=%s", engines[kind]);
		must_open(&f, options, ", staging=yes");
		fixture_space(&f, "counted", 1, LARGE);
		for (uint32_t i = 0; i < 8; i++)
			move_large(&f, i, true, memory);
		for (uint32_t i = 0; i < 8; i++)
			move_large(&f, i, false, memory);
		registered = store_counter(&f, COUNT_REGISTERED_IOS);
		assert_true(world.reads >= 8 && world.writes >= 8);
		print_message("# %s: %lu of %u reads and %u writes are registered\n", engines[kind],
			      (unsigned long)registered, world.reads, world.writes);
		assert_int_equal(registered + store_counter(&f, COUNT_UNREGISTERED_IOS),
				 world.reads + world.writes);
		if (kind != ENGINE_URING)
			assert_int_equal(registered, 0);
		else if (counter(&f, "bounced_bytes") > 0 && may_lock(8u << 20))
			assert_int_equal(registered, world.reads + world.writes);
		fixture_close(&f);
		fixture_free(&f);
	}
	free(memory);
}

/* As if a stage's job, or a long task, had always something that ends. */
static int poll_busy(struct engine *engine, uint64_t wait_ns)
{
	int ended = engine_psync.poll(engine, wait_ns < MS ? wait_ns : MS);

	return ended > 0 ? ended : 1;
}

/* The one task of a queue is told of, though other things go on ending. */
static void a_queue_is_told_whatever_else_ends(void **state)
{
	uint8_t *memory = aligned_alloc(4096, SHARD);
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	struct cairn_completion completion;
	struct cairn_xfer xfer;
	struct cairn_key key;
	struct fixture f;
	uint64_t task;

	(void)state;
	assert_non_null(memory);
	memset(memory, 7, SHARD);
	fixture_new(&f);
	world_reset();
	world.ops[ENGINE_PSYNC] = engine_psync;
	world.ops[ENGINE_PSYNC].poll = poll_busy;
	must_open(&f, "reactors=1, engine=psync", "");
	fixture_space(&f, "told", 1, SHARD);
	assert_int_equal(cairn_queue_open(f.store, &opts.queue), 0);
	key = key_of(&f, 1);
	xfer = xfer_of(&key, 0, 0, memory, SHARD);
	assert_int_equal(cairn_dump(f.ns, &xfer, 1, &opts, &task), 0);
	assert_int_equal(cairn_drain(opts.queue, &completion, 1, 10000 * MS), 1);
	assert_int_equal(completion.task, task);
	assert_true(completion.events & CAIRN_EVENT_RELEASE);
	assert_int_equal(cairn_queue_close(opts.queue), 0);
	fixture_close(&f);
	fixture_free(&f);
	free(memory);
}

/* ---- threads ------------------------------------------------------------------------ */

static void rings_share_the_workers(void **state)
{
	static const struct {
		const char *options;
		uint32_t share;
	} cases[] = {{"reactors=4, workers=8", 2},
		     {"reactors=4, workers=3", 1},
		     {"reactors=1, workers=8", 8}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;

		fixture_new(&f);
		world_with_rings(NEVER);
		must_open(&f, cases[i].options, "");
		for (uint32_t r = 0; r < f.store->reactor_count; r++)
			assert_int_equal(world.iowq_max[1 + r], cases[i].share);
		for (uint32_t l = 0; l < f.store->lights_made; l++)
			assert_int_equal(world.iowq_max[1 + f.store->reactor_count + l], 1);
		use(&f);
		fixture_free(&f);
	}
}

static uint32_t strangers; /* threads that a sanitizer has for itself */

/* Threads of this process; *ret_blocking: of those, workers of ours or the kernel's. */
static uint32_t count_threads(uint32_t *ret_blocking)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	uint32_t count = 0;

	*ret_blocking = 0;
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		char path[300], name[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (!file)
			continue;
		if (!fgets(name, sizeof(name), file))
			name[0] = '\0';
		fclose(file);
		count++;
		*ret_blocking +=
			strncmp(name, "cairn-worker", 12) == 0 || strncmp(name, "iou-wrk", 7) == 0;
	}
	closedir(dir);
	return count - strangers;
}

static int open_hanging(int dirfd, const char *path, int flags, mode_t mode)
{
	pthread_mutex_lock(&world.lock);
	world.waiting++;
	pthread_cond_broadcast(&world.changed);
	while (world.hang)
		pthread_cond_wait(&world.changed, &world.lock);
	world.waiting--;
	pthread_mutex_unlock(&world.lock);
	return sys_native.openat(dirfd, path, flags, mode);
}

static void hang(bool hang)
{
	pthread_mutex_lock(&world.lock);
	world.hang = hang;
	pthread_cond_broadcast(&world.changed);
	pthread_mutex_unlock(&world.lock);
}

struct caller {
	struct fixture *f;
	pthread_t thread;
	uint32_t number;
	int ret;
};

static void *call(void *context)
{
	struct caller *caller = context;

	caller->ret = dump_one(caller->f, caller->number, 0, SHARD, 0);
	return NULL;
}

/* Every worker waits for a device that does not answer, and there is more to do. */
static void workers_are_one_pool(void **state)
{
	struct caller callers[CALLERS];
	uint8_t *memory = aligned_alloc(4096, SHARD);
	struct cairn_xfer xfers[BLOCKS];
	uint32_t threads, blocking;
	struct fixture f;
	uint64_t task;

	(void)state;
	assert_non_null(memory);
	memset(memory, 7, SHARD);
	fixture_new(&f);
	world_reset();
	world.table.openat = open_hanging;
	must_open(&f, "engine=aio, reactors=4, workers=3", "");
	fixture_space(&f, "pool", 1, SHARD);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct cairn_key key = key_of(&f, 100 + i);

		xfers[i] = xfer_of(&key, 0, 0, memory, SHARD);
	}
	hang(true);
	assert_int_equal(cairn_dump(f.ns, xfers, BLOCKS, NULL, &task), 0);
	for (uint32_t i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){.f = &f, .number = i};
		assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
	}
	pthread_mutex_lock(&world.lock);
	while (world.waiting < WORKERS)
		pthread_cond_wait(&world.changed, &world.lock);
	pthread_mutex_unlock(&world.lock);
	sys_native.sleep_ns(50 * MS); /* for more of them, were there more */
	threads = count_threads(&blocking);
	hang(false); /* before anything is claimed: what hangs has its results on this stack */
	for (uint32_t i = 0; i < CALLERS; i++) {
		assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
		assert_int_equal(callers[i].ret, 0);
	}
	assert_int_equal(cairn_task_wait(f.store, task, 0, UINT64_MAX), 0);
	assert_true(threads <= 1 + CALLERS + REACTORS + WORKERS);
	assert_int_equal(blocking, WORKERS);
	fixture_close(&f);
	fixture_free(&f);
	free(memory);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

/* After work: reactors, and workers where something had to block; none of them runs. */
static void an_idle_store_takes_nothing(void **state)
{
	(void)state;
	for (enum engine_kind kind = 0; kind < ENGINE_KINDS; kind++) {
		uint32_t threads, blocking;
		uint64_t before_ns;
		struct fixture f;
		char options[64];

		if (!world_counts(kind))
			continue;
		fixture_new(&f);
		snprintf(options, sizeof(options), "reactors=4, workers=3, engine=%s",
			 engines[kind]);
		must_open(&f, options, "");
		fixture_space(&f, "idle", 1, SHARD);
		for (uint32_t i = 0; i < BLOCKS; i++)
			assert_int_equal(dump_one(&f, i, 0, SHARD, 0), 0);
		for (uint32_t i = 0; i < BLOCKS; i++)
			assert_int_equal(load_one(&f, i, 0, SHARD), 0);
		sys_native.sleep_ns(20 * MS); /* what ends the last of it */
		before_ns = cpu_ns();
		sys_native.sleep_ns(300 * MS);
		assert_true(cpu_ns() - before_ns < 20 * MS);
		threads = count_threads(&blocking);
		print_message("# %s: %u threads, %u of them for what blocks\n", engines[kind],
			      threads, blocking);
		assert_int_equal(threads - blocking, 1 + REACTORS);
		/* Of the kernel's a ring has its share, and one for what is no file. */
		assert_true(blocking <= (kind == ENGINE_URING ? 2 * (1 + REACTORS) : WORKERS));
		fixture_close(&f);
		fixture_free(&f);
	}
}

static void *nothing(void *context)
{
	return context;
}

/* A sanitizer's own threads come with the first one that is made. */
static void count_strangers(void)
{
	uint32_t blocking;
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL) == 0)
		pthread_join(thread, NULL);
	strangers = count_threads(&blocking) - 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_light_reactor_may_be_missing),
		cmocka_unit_test(a_standing_reactor_that_is_refused_changes_all),
		cmocka_unit_test(no_aio_context_is_made_to_see_whether_it_can),
		cmocka_unit_test(refused_twice_is_told_twice),
		cmocka_unit_test(an_engine_by_name_is_not_changed),
		cmocka_unit_test(a_store_opens_whatever_may_be_locked),
		cmocka_unit_test(adjacent_shards_are_one_io),
		cmocka_unit_test(reads_and_writes_are_counted),
		cmocka_unit_test(a_queue_is_told_whatever_else_ends),
		cmocka_unit_test(rings_share_the_workers),
		cmocka_unit_test(workers_are_one_pool),
		cmocka_unit_test(an_idle_store_takes_nothing),
	};

	count_strangers();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
