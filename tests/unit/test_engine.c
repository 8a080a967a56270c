/* SPDX-License-Identifier: Apache-2.0 */
/* The engines: every case below runs on every engine, on disk and on tmpfs. */
#include "engine_fixture.h"

/* ---- chains that go well ------------------------------------------------ */

static void chains_dump_and_load(void **state)
{
	struct fixture *fixture = *state;
	struct engine_stat stat;

	dump_and_load_all(fixture);
	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.chains, 2 * CHAINS_MAX + 1);
	assert_int_equal(stat.fixed + stat.unfixed, 2 * CHAINS_MAX);
	if (fixture->config->kind == ENGINE_URING)
		assert_true(stat.fixed > 0);
	else
		assert_int_equal(stat.fixed, 0);
}

static void names_are_made_linked_and_removed(void **state)
{
	struct fixture *fixture = *state;
	struct job job;
	struct stat st;

	job_init(&job, fixture);
	add_path(&job, OP_MKDIRAT, "d")->mode = 0700;
	add_path(&job, OP_MKDIRAT, "d/e")->mode = 0700;
	assert_int_equal(job_run(&job), 0);
	job_init(&job, fixture);
	add_open(&job, "d/f", O_WRONLY | O_CREAT | O_EXCL);
	add_path(&job, OP_LINKAT, "d/f")->path2 = "d/g";
	add_path(&job, OP_UNLINKAT, "d/f");
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(sys->fstatat(fixture->dir, "d/g", &st, 0), 0);
	assert_int_equal(st.st_nlink, 1);
	job_init(&job, fixture);
	add_path(&job, OP_UNLINKAT, "d/g");
	add_path(&job, OP_UNLINKAT, "d/e")->flags = AT_REMOVEDIR;
	add_path(&job, OP_UNLINKAT, "d")->flags = AT_REMOVEDIR;
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(sys->fstatat(fixture->dir, "d", &st, 0), -ENOENT);
}

/* A descriptor of the caller's: nothing is opened, nothing closed. */
static void plain_descriptors_stay_open(void **state)
{
	struct fixture *fixture = *state;
	int fd = sys->openat(fixture->dir, "plain",
			     O_RDWR | O_CREAT | (fixture->direct ? O_DIRECT : 0), 0600);
	uint8_t *memory = fixture->pool;
	struct job job;

	assert_true(fd >= 0);
	fill_pattern(memory, BLOCK, 9);
	job_init(&job, fixture);
	add_transfer(&job, OP_WRITEV, memory, BLOCK)->fd = fd;
	job.ops[1] = job.ops[0];
	job.ops[1].code = OP_READV;
	job.chain.op_count = 2;
	assert_int_equal(job_run(&job), 0);
	check_ok(&job);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	sys->close(fd);
}

/* Of several ranges, chunk by chunk: not between them, nor across two chunks. */
static void registered_is_what_the_engine_was_told_of(void **state)
{
	static const struct {
		size_t at;
		bool told;
	} cases[] = {
		{0, true},
		{(POOL_GAP - 1) * POOL_CHUNK, true},
		{POOL_GAP * POOL_CHUNK, false},
		{(POOL_GAP + 1) * POOL_CHUNK, true},
		{POOL_BYTES - POOL_CHUNK, true},
		{POOL_CHUNK - 4096, false},
		{(POOL_GAP + 1) * POOL_CHUNK - 4096, false},
	};
	struct fixture *fixture = *state;
	bool ring = fixture->config->kind == ENGINE_URING;
	struct engine_stat before, after;
	struct job job;

	dump_job(&job, fixture, 2, fixture->pool);
	assert_int_equal(job_run(&job), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fixture->ops->stat(fixture->engine, &before);
		load_job(&job, fixture, 2, fixture->pool + cases[i].at);
		assert_int_equal(job_run(&job), 0);
		check_ok(&job);
		fixture->ops->stat(fixture->engine, &after);
		assert_int_equal(after.fixed - before.fixed, ring && cases[i].told);
		assert_int_equal(after.unfixed - before.unfixed, !(ring && cases[i].told));
	}
}

/* ---- chains that fail --------------------------------------------------- */

static void make_file(struct fixture *fixture, const char *name, size_t bytes)
{
	int fd = sys->openat(fixture->dir, name, O_WRONLY | O_CREAT, 0600);
	uint8_t *memory = sys_zalloc(sys, 4096, bytes);

	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite_full(sys, fd, memory, bytes, 0), 0);
	sys->close(fd);
	sys->free(memory);
}

static void a_failed_open_cancels_the_rest(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	load_job(&job, fixture, 999, fixture->pool);
	add_path(&job, OP_UNLINKAT, "x");
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[0].result, -ENOENT);
	assert_int_equal(job.ops[1].result, -ECANCELED);
	assert_int_equal(job.ops[2].result, -ECANCELED);
}

static void a_failure_in_the_middle_cancels_the_rest(void **state)
{
	struct fixture *fixture = *state;
	struct stat st;
	struct job job;

	for (int i = 0; i < 100; i++) {
		job_init(&job, fixture);
		add_open(&job, "mid", O_WRONLY | O_CREAT);
		job_add(&job, OP_FALLOCATE)->length = BLOCK;
		add_path(&job, OP_RENAMEAT, "none such")->path2 = "other";
		add_path(&job, OP_UNLINKAT, "mid");
		assert_int_equal(job_run(&job), -ENOENT);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, 0);
		assert_int_equal(job.ops[2].result, -ENOENT);
		assert_int_equal(job.ops[3].result, -ECANCELED);
		assert_int_equal(sys->fstatat(fixture->dir, "mid", &st, 0), 0);
	}
}

static void a_rename_does_not_replace(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	dump_job(&job, fixture, 2, fixture->pool);
	assert_int_equal(job_run(&job), 0);
	dump_job(&job, fixture, 2, fixture->pool);
	assert_int_equal(job_run(&job), -EEXIST);
	assert_int_equal(job.ops[2].result, BLOCK);
}

/* Many times, as a slot or a descriptor that leaked would run out. */
static void short_reads_fail_and_leak_nothing(void **state)
{
	struct fixture *fixture = *state;
	static struct job jobs[CHAINS_MAX];
	uint32_t count = fixture->config->on_disk ? FAILS_COUNT : FAILS_COUNT / 5;

	make_file(fixture, "b7", BLOCK - 4096);
	for (uint32_t round = 0; round < count / CHAINS_MAX + 1; round++) {
		for (uint32_t i = 0; i < CHAINS_MAX; i++) {
			load_job(&jobs[i], fixture, 7, fixture->pool + i * BLOCK);
			add_path(&jobs[i], OP_UNLINKAT, "b7");
			assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), 0);
		}
		for (uint32_t i = 0; i < CHAINS_MAX; i++) {
			poll_until(fixture, &jobs[i].done_count, 1);
			assert_int_equal(jobs[i].chain.result, -EIO);
			assert_int_equal(jobs[i].ops[0].result, 0);
			assert_int_equal(jobs[i].ops[1].result, BLOCK - 4096);
			assert_int_equal(jobs[i].ops[2].result, -ECANCELED);
		}
	}
}

/* The ring refuses such a chain as a whole: the result must be the one that tells why. */
static void a_path_too_long_is_told(void **state)
{
	struct fixture *fixture = *state;
	char *path = malloc(5001);
	struct stat st;
	struct job job;

	memset(path, 'a', 5000);
	path[5000] = '\0';
	for (int soft = 0; soft < 2; soft++) {
		job_init(&job, fixture);
		add_open(&job, "long", O_WRONLY | O_CREAT);
		add_path(&job, OP_RENAMEAT, "long")->path2 = path;
		job.ops[1].soft = soft;
		add_path(&job, OP_UNLINKAT, "long");
		assert_int_equal(job_run(&job), soft ? 0 : -ENAMETOOLONG);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, -ENAMETOOLONG);
		assert_int_equal(job.ops[2].result, soft ? 0 : -ECANCELED);
		assert_int_equal(sys->fstatat(fixture->dir, "long", &st, 0), soft ? -ENOENT : 0);
	}
	job_init(&job, fixture);
	add_path(&job, OP_UNLINKAT, path)->soft = true;
	add_path(&job, OP_MKDIRAT, "after")->mode = 0700;
	assert_int_equal(job_run(&job), 0);
	assert_int_equal(job.ops[0].result, -ENAMETOOLONG);
	assert_int_equal(job.ops[1].result, 0);
	free(path);
}

static void a_soft_failure_goes_on(void **state)
{
	struct fixture *fixture = *state;
	struct job job;

	make_file(fixture, "s", 4096);
	for (int i = 0; i < 50; i++) {
		job_init(&job, fixture);
		add_open(&job, "s", O_RDWR);
		add_path(&job, OP_UNLINKAT, "none")->soft = true;
		add_transfer(&job, OP_READV, fixture->pool, BLOCK)->soft = true; /* short */
		job_add(&job, OP_FDATASYNC);
		add_path(&job, OP_MKDIRAT, "s")->soft = true;
		assert_int_equal(job_run(&job), 0);
		assert_int_equal(job.ops[0].result, 0);
		assert_int_equal(job.ops[1].result, -ENOENT);
		assert_int_equal(job.ops[2].result, 4096);
		assert_int_equal(job.ops[3].result, 0);
		assert_int_equal(job.ops[4].result, -EEXIST);
	}
	/* A hard failure behind soft ones still cancels, soft ops too. */
	job_init(&job, fixture);
	add_open(&job, "s", O_RDWR);
	add_path(&job, OP_UNLINKAT, "none")->soft = true;
	add_path(&job, OP_UNLINKAT, "none either");
	add_path(&job, OP_MKDIRAT, "never")->soft = true;
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[1].result, -ENOENT);
	assert_int_equal(job.ops[2].result, -ENOENT);
	assert_int_equal(job.ops[3].result, -ECANCELED);
	/* And a failed open cancels the soft op behind it. */
	job_init(&job, fixture);
	add_open(&job, "none", O_RDWR);
	job_add(&job, OP_FSYNC)->soft = true;
	add_path(&job, OP_MKDIRAT, "never");
	assert_int_equal(job_run(&job), -ENOENT);
	assert_int_equal(job.ops[1].result, -ECANCELED);
	assert_int_equal(job.ops[2].result, -ECANCELED);
}

/* ---- the engine itself -------------------------------------------------- */

static struct {
	uint32_t left;
	int ended;
} again;

/* done() may submit: the chain goes round until `left` is used up. */
static void submit_again(struct engine_chain *chain)
{
	struct job *job = (struct job *)(void *)((char *)chain - offsetof(struct job, chain));
	struct fixture *fixture = job->fixture;

	assert_int_equal(chain->result, 0);
	again.ended++;
	if (again.left == 0)
		return;
	again.left--;
	assert_int_equal(fixture->ops->submit(fixture->engine, chain), 0);
}

static void more_chains_than_slots_are_refused(void **state)
{
	struct fixture *fixture = *state;
	static struct job jobs[CHAINS_MAX + 1];

	again.left = 1000;
	again.ended = 0;
	make_file(fixture, "b1", BLOCK);
	for (uint32_t i = 0; i <= CHAINS_MAX; i++) {
		int want = i < CHAINS_MAX ? 0 : -EAGAIN;

		load_job(&jobs[i], fixture, 1, fixture->pool + i * BLOCK);
		jobs[i].chain.done = submit_again;
		assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), want);
	}
	poll_until(fixture, &again.ended, 1000 + CHAINS_MAX);
}

struct waker {
	struct fixture *fixture;
	uint64_t delay_ns;
};

static void *wake_later(void *context)
{
	const struct waker *waker = context;

	sys->sleep_ns(waker->delay_ns);
	waker->fixture->ops->wake(waker->fixture->engine);
	return NULL;
}

static void a_wake_ends_the_wait(void **state)
{
	struct fixture *fixture = *state;
	struct waker waker = {.fixture = fixture, .delay_ns = 20 * MS};
	uint64_t start_ns = sys->now_ns();
	pthread_t thread;

	/* One before the first poll, two for one, and from another thread, repeatedly. */
	fixture->ops->wake(fixture->engine);
	assert_int_equal(fixture->ops->poll(fixture->engine, LONG_WAIT), 0);
	fixture->ops->wake(fixture->engine);
	fixture->ops->wake(fixture->engine);
	assert_int_equal(fixture->ops->poll(fixture->engine, LONG_WAIT), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_later, &waker), 0);
		assert_int_equal(fixture->ops->poll(fixture->engine, UINT64_MAX), 0);
		pthread_join(thread, NULL);
	}
	assert_true(sys->now_ns() - start_ns < LONG_WAIT);
	start_ns = sys->now_ns();
	assert_int_equal(fixture->ops->poll(fixture->engine, 30 * MS), 0);
	assert_true(sys->now_ns() - start_ns >= 30 * MS);
	assert_int_equal(fixture->ops->poll(fixture->engine, 0), 0);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

/* The whole process, workers included. */
static void idle_takes_no_cpu(void **state)
{
	struct fixture *fixture = *state;
	uint64_t before_ns;

	dump_and_load_all(fixture);
	fixture->ops->poll(fixture->engine, MS);
	before_ns = thread_cpu_ns();
	fixture->ops->poll(fixture->engine, 200 * MS);
	assert_true(thread_cpu_ns() - before_ns < 20 * MS);
}

static void load_one(struct fixture *fixture)
{
	struct job job;

	load_job(&job, fixture, 1, fixture->pool);
	assert_int_equal(job_run(&job), 0);
	check_ok(&job);
}

/* A worker waits in a call that does not end; the owner, and other chains, do not. */
static void a_call_that_hangs_holds_nobody(void **state)
{
	struct fixture *fixture = *state;
	uint64_t start_ns = sys->now_ns();
	struct job job;
	int reader;

	/* A ring opens a FIFO as if it were told O_NONBLOCK. */
	if (fixture->config->workers == 0 || fixture->config->kind == ENGINE_URING)
		return;
	make_file(fixture, "b1", BLOCK);
	assert_int_equal(mkfifoat(fixture->dir, "fifo", 0600), 0);
	job_init(&job, fixture);
	add_path(&job, OP_OPENAT, "fifo")->flags = O_WRONLY;
	assert_int_equal(fixture->ops->submit(fixture->engine, &job.chain), 0);
	assert_int_equal(fixture->ops->poll(fixture->engine, 20 * MS), 0);
	assert_true(sys->now_ns() - start_ns >= 20 * MS);
	for (int i = 0; i < 20; i++)
		load_one(fixture);
	assert_int_equal(job.done_count, 0);
	reader = sys->openat(fixture->dir, "fifo", O_RDONLY | O_NONBLOCK, 0);
	poll_until(fixture, &job.done_count, 1);
	assert_int_equal(job.chain.result, 0);
	sys->close(reader);
}

/* Likewise where libaio itself blocks: a read of a pipe, which is not asynchronous. */
static void a_transfer_that_hangs_holds_nobody(void **state)
{
	struct fixture *fixture = *state;
	uint8_t *memory = fixture->pool;
	struct job job;
	int pipe_fds[2];

	if (fixture->config->workers == 0 || fixture->config->kind != ENGINE_AIO)
		return;
	make_file(fixture, "b1", BLOCK);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	job_init(&job, fixture);
	job.chain.direct = true;
	add_transfer(&job, OP_READV, memory + BLOCK, 4096)->fd = pipe_fds[0];
	assert_int_equal(fixture->ops->submit(fixture->engine, &job.chain), 0);
	assert_int_equal(fixture->ops->poll(fixture->engine, 20 * MS), 0);
	for (int i = 0; i < 20; i++)
		load_one(fixture);
	assert_int_equal(job.done_count, 0);
	assert_int_equal(write(pipe_fds[1], memory, 4096), 4096);
	poll_until(fixture, &job.done_count, 1);
	assert_int_equal(job.chain.result, 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void *run_some(void *context)
{
	struct fixture *fixture = context;
	struct job job;

	for (int i = 0; i < 20; i++) {
		load_job(&job, fixture, 1, fixture->pool);
		assert_int_equal(job_run(&job), 0);
	}
	return NULL;
}

static void a_shared_engine_is_handed_over(void **state)
{
	struct fixture *fixture = *state;
	pthread_t thread;

	/* Without shared_owner a ring is bound to the thread of its first poll(). */
	if (fixture->config->kind == ENGINE_URING && !fixture->config->shared_owner)
		return;
	make_file(fixture, "b1", BLOCK);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pthread_create(&thread, NULL, run_some, fixture), 0);
		pthread_join(thread, NULL);
		run_some(fixture);
	}
}

static void a_child_abandons(void **state)
{
	struct fixture *fixture = *state;
	int status;
	pid_t child;

	dump_and_load_all(fixture);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		fixture->ops->abandon(fixture->engine);
		_exit(count_fds() == fixture->fds_before ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	/* The parent's goes on as if nothing had been. */
	remove_tree(fixture->dir);
	dump_and_load_all(fixture);
}

static void guards_are_bounded_and_let_go(void **state)
{
	struct fixture *fixture = *state;
	int lock = sys->openat(fixture->dir, "lock", O_RDWR | O_CREAT, 0600);
	int other = sys->openat(fixture->dir, "lock", O_RDWR, 0);

	assert_int_equal(sys->flock(lock, LOCK_EX), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(fixture->ops->add_guard(fixture->engine, lock), 0);
	if (fixture->config->kind == ENGINE_URING) {
		assert_int_equal(count_ring_files(), 16);
		assert_int_equal(fixture->ops->add_guard(fixture->engine, lock), -EMFILE);
	}
	engine_end(fixture);
	sys->close(lock);
	assert_int_equal(sys->flock(other, LOCK_EX | LOCK_NB), 0);
	sys->close(other);
	assert_int_equal(engine_start(fixture), 0);
}

/* ---- calls ---------------------------------------------------------------------- */

struct called {
	pthread_t thread;
	int64_t result;
	uint32_t times;
};

static int64_t called_fn(void *context)
{
	struct called *called = context;

	called->thread = pthread_self();
	called->times++;
	return called->result;
}

/* Each is made once, beside the owner where there are workers, and its result is told. */
static void calls_are_made_on_workers(void **state)
{
	struct fixture *fixture = *state;
	struct called called[CHAINS_MAX] = {0};
	static struct job jobs[CHAINS_MAX];
	struct engine_stat stat;
	int done = 0;

	for (uint32_t i = 0; i < CHAINS_MAX; i++) {
		struct engine_op *op;

		job_init(&jobs[i], fixture);
		op = job_add(&jobs[i], OP_CALL);
		op->fd = -1;
		op->call = called_fn;
		op->context = &called[i];
		called[i].result = (int64_t)i - 3;
		assert_int_equal(fixture->ops->submit(fixture->engine, &jobs[i].chain), 0);
	}
	while (done < (int)CHAINS_MAX) {
		int ended = fixture->ops->poll(fixture->engine, LONG_WAIT);

		assert_true(ended > 0);
		done += ended;
	}
	for (uint32_t i = 0; i < CHAINS_MAX; i++) {
		assert_int_equal(jobs[i].done_count, 1);
		assert_int_equal(called[i].times, 1);
		assert_int_equal(jobs[i].ops[0].result, (int64_t)i - 3);
		assert_int_equal(jobs[i].chain.result, i < 3 ? (int64_t)i - 3 : 0);
		assert_int_equal(!pthread_equal(called[i].thread, pthread_self()),
				 fixture->config->workers > 0);
	}
	fixture->ops->stat(fixture->engine, &stat);
	assert_int_equal(stat.in_flight, 0);
	dump_and_load_all(fixture); /* the ring, too, goes on */
}

static int64_t sleeps_fn(void *context)
{
	(void)context;
	usleep(20000);
	return 0;
}

/* The owner sleeps until it is over. */
static void a_wait_for_a_call_ends_with_it(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < 3; i++) {
		struct job job;
		struct engine_op *op;

		job_init(&job, fixture);
		op = job_add(&job, OP_CALL);
		op->fd = -1;
		op->call = sleeps_fn;
		assert_int_equal(fixture->ops->submit(fixture->engine, &job.chain), 0);
		assert_int_equal(fixture->ops->poll(fixture->engine, LONG_WAIT), 1);
		assert_int_equal(job.done_count, 1);
	}
}

static int64_t nothing_fn(void *context)
{
	(void)context;
	return 0;
}

static void submit_call(struct job *job)
{
	struct engine_op *op;
	int calls = job->done_count;

	job_init(job, job->fixture);
	job->done_count = calls;
	op = job_add(job, OP_CALL);
	op->fd = -1;
	op->call = nothing_fn;
	assert_int_equal(job->fixture->ops->submit(job->fixture->engine, &job->chain), 0);
}

static bool calls_go_on;

static void call_again(struct engine_chain *chain)
{
	struct job *job = (struct job *)(void *)chain; /* its first member */

	job->done_count++;
	if (!calls_go_on)
		return;
	submit_call(job);
	job->chain.done = call_again;
}

/* Each of them is followed by the next one, and more of them end than belong to one poll(). */
static void calls_without_end_hold_no_transfer_up(void **state)
{
	struct fixture *fixture = *state;
	static struct job calls[8], job;
	struct engine_stat stat;
	bool held_up;

	assert_int_equal(offsetof(struct job, chain), 0);
	calls_go_on = true;
	for (uint32_t i = 0; i < 8; i++) {
		calls[i] = (struct job){.fixture = fixture};
		submit_call(&calls[i]);
		calls[i].chain.done = call_again;
	}
	job_init(&job, fixture);
	add_open(&job, "beside", O_RDWR | O_CREAT);
	add_transfer(&job, OP_WRITEV, fixture->pool, BLOCK);
	assert_int_equal(fixture->ops->submit(fixture->engine, &job.chain), 0);
	for (uint32_t i = 0; i < 5000 && job.done_count == 0; i++) {
		assert_true(fixture->ops->poll(fixture->engine, LONG_WAIT) > 0);
		usleep(100);
	}
	held_up = job.done_count == 0;
	calls_go_on = false;
	do {
		assert_true(fixture->ops->poll(fixture->engine, MS) >= 0);
		fixture->ops->stat(fixture->engine, &stat);
	} while (stat.in_flight > 0);
	assert_false(held_up);
	assert_int_equal(job.done_count, 1);
	assert_int_equal(job.chain.result, 0);
	assert_int_equal(unlinkat(fixture->dir, "beside", 0), 0);
}

#define CASE(name)                                                                                 \
	{                                                                                          \
#name, name                                                                        \
	}
static const struct {
	const char *name;
	CMUnitTestFunction function;
} cases[] = {
	CASE(chains_dump_and_load),
	CASE(names_are_made_linked_and_removed),
	CASE(plain_descriptors_stay_open),
	CASE(registered_is_what_the_engine_was_told_of),
	CASE(a_failed_open_cancels_the_rest),
	CASE(a_failure_in_the_middle_cancels_the_rest),
	CASE(a_rename_does_not_replace),
	CASE(short_reads_fail_and_leak_nothing),
	CASE(a_path_too_long_is_told),
	CASE(a_soft_failure_goes_on),
	CASE(more_chains_than_slots_are_refused),
	CASE(a_wake_ends_the_wait),
	CASE(idle_takes_no_cpu),
	CASE(a_call_that_hangs_holds_nobody),
	CASE(a_transfer_that_hangs_holds_nobody),
	CASE(a_shared_engine_is_handed_over),
	CASE(a_child_abandons),
	CASE(guards_are_bounded_and_let_go),
	CASE(calls_are_made_on_workers),
	CASE(a_wait_for_a_call_ends_with_it),
	CASE(calls_without_end_hold_no_transfer_up),
};
#define CASE_COUNT (sizeof(cases) / sizeof(cases[0]))

int main(void)
{
	static struct CMUnitTest tests[CONFIG_COUNT * CASE_COUNT];
	static char names[CONFIG_COUNT * CASE_COUNT][96];
	bool uring = have_uring();
	size_t count = 0;

	for (size_t c = 0; c < CONFIG_COUNT; c++) {
		/* The table of a test is not changed by it. */
		void *config = (void *)(uintptr_t)&configs[c];

		if (configs[c].kind == ENGINE_URING && !uring)
			continue;
		for (size_t i = 0; i < CASE_COUNT; i++, count++) {
			snprintf(names[count], sizeof(names[0]), "%s (%s)", cases[i].name,
				 configs[c].name);
			tests[count] = (struct CMUnitTest){names[count], cases[i].function, setup,
							   teardown, config};
		}
	}
	return _cmocka_run_group_tests("engine", tests, count, NULL, NULL);
}
