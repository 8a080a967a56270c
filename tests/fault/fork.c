/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store and fork(): the child owns nothing. Every call there says so, its end
 * does the parent no harm, and it keeps neither lock nor ring: the parent closes
 * and opens again while the child lives. And posix_spawn() with a store open.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

extern char **environ;

static const struct kit_shape shape = {2, 10000};

struct opened {
	struct cairn_store *store;
	struct cairn_namespace *ns;
	struct cairn_queue *queue;
};

static void open_all(const char *spec, struct opened *ret_opened)
{
	struct cairn_error error = {0};

	CHECK(cairn_store_open(spec, NULL, &ret_opened->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(ret_opened->store, "fork", shape, &ret_opened->ns) == 0);
	CHECK(cairn_queue_open(ret_opened->store, &ret_opened->queue) == 0);
}

static int ignore_counter(void *context, const struct cairn_counter *counter)
{
	(void)context;
	(void)counter;
	return 0;
}

#define REFUSED(call) CHECK((call) == -EOWNERDEAD)

/* Every call there is, with arguments that would be right in the parent. */
static void all_refused(struct opened *opened)
{
	uint8_t bytes[10000];
	struct cairn_segment segment;
	struct cairn_xfer xfer = kit_xfer(1, 0, &segment, bytes, sizeof(bytes));
	struct cairn_key key = kit_key(1);
	struct cairn_found found;
	struct cairn_completion completion;
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_namespace *ns;
	struct cairn_queue *queue;
	uint64_t task;

	REFUSED(cairn_load(opened->ns, &xfer, 1, NULL, NULL));
	REFUSED(cairn_load(opened->ns, &xfer, 1, NULL, &task));
	REFUSED(cairn_dump(opened->ns, &xfer, 1, NULL, NULL));
	REFUSED(cairn_dump(opened->ns, &xfer, 1, NULL, &task));
	REFUSED(cairn_remove(opened->ns, &key, 1, NULL, NULL, NULL));
	REFUSED(cairn_prefetch(opened->ns, &key, 1, NULL, NULL, NULL));
	REFUSED(cairn_clear(opened->ns, CAIRN_WRITTEN));
	REFUSED(cairn_lookup(opened->ns, &key, 1, &found, NULL, NULL));
	REFUSED(cairn_lookup_prefix(opened->ns, &key, 1, NULL, NULL, NULL));
	REFUSED(cairn_hold_release(opened->store, 1));
	REFUSED(cairn_task_wait(opened->store, 1, 0, 0));
	REFUSED(cairn_task_cancel(opened->store, 1));
	REFUSED(cairn_store_quiesce(opened->store, 0));
	REFUSED(cairn_queue_open(opened->store, &queue));
	REFUSED(cairn_event_fd(opened->queue));
	REFUSED(cairn_key_derive(opened->ns, "x", 1, &key));
	REFUSED(cairn_drain(opened->queue, &completion, 1, 0));
	REFUSED(cairn_queue_close(opened->queue));
	REFUSED(cairn_stat(opened->store, &st));
	CHECK(!cairn_stage_name(opened->store, 0));
	REFUSED(cairn_counters(opened->store, ignore_counter, NULL));
	REFUSED(kit_namespace(opened->store, "fork", shape, &ns));
	cairn_namespace_close(opened->ns);
	REFUSED(cairn_store_close(opened->store, 0));
}

static void reap(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %x", status);
}

/*
 * The child makes every call and exits, by exit() too, with all that runs there; not under a
 * sanitizer, which looks for leaks there.
 */
static void child_ends(struct opened *opened)
{
	for (int way = 0; way < (kit_sanitized() ? 1 : 2); way++) {
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			kit_watch(20);
			all_refused(opened);
			way ? exit(0) : _exit(0);
		}
		reap(pid);
		CHECK(kit_load(opened->ns, shape, 1) == 0);
		CHECK(kit_dump(opened->ns, shape, 10 + (uint64_t)way, 0, 2, CAIRN_WRITTEN) == 0);
	}
}

/* A child may have a store of its own. */
static void child_opens(const char *spec)
{
	char path[128], own[512];
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct opened opened;
		struct cairn_store *other;
		struct cairn_error error = {0};

		kit_watch(20);
		CHECK(cairn_store_open(spec, NULL, &other, &error) == -EBUSY);
		CHECK(strstr(error.text, "path=...{rank}"), "%s", error.text);
		kit_folder(path, sizeof(path), "fork-child");
		kit_tier(own, sizeof(own), path, "", "size=16MiB");
		open_all(own, &opened);
		CHECK(kit_dump(opened.ns, shape, 1, 0, 2, CAIRN_WRITTEN) == 0);
		CHECK(kit_load(opened.ns, shape, 1) == 0);
		CHECK(cairn_queue_close(opened.queue) == 0);
		CHECK(cairn_store_close(opened.store, UINT64_MAX) == 0);
		kit_remove_folder(path);
		_exit(0);
	}
	reap(pid);
}

/* Work in flight while forking: the parent's goes on, the child's copy does nothing. */
static void fork_in_flight(struct opened *opened)
{
	enum { COUNT = 32 };
	static uint8_t bytes[COUNT][2][10000];
	struct cairn_segment segments[COUNT][2];
	struct cairn_xfer xfers[COUNT * 2];
	uint64_t task;
	pid_t pid;

	for (uint32_t i = 0; i < COUNT * 2; i++) {
		kit_fill(bytes[i / 2][i % 2], 10000, 100 + i / 2, i % 2, 0);
		xfers[i] = kit_xfer(100 + i / 2, i % 2, &segments[i / 2][i % 2],
				    bytes[i / 2][i % 2], 10000);
	}
	CHECK(cairn_dump(opened->ns, xfers, COUNT * 2, NULL, &task) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		memset(bytes, 0, sizeof(bytes));
		all_refused(opened);
		_exit(0);
	}
	CHECK(cairn_task_wait(opened->store, task, 0, UINT64_MAX) == 0);
	reap(pid);
	for (uint64_t i = 0; i < COUNT; i++)
		CHECK(kit_load(opened->ns, shape, 100 + i) == 0, "block %lu", (unsigned long)i);
}

static void lock_is_not_kept(const char *spec, struct opened *opened)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(1);
	}
	CHECK(cairn_queue_close(opened->queue) == 0);
	CHECK(cairn_store_close(opened->store, UINT64_MAX) == 0);
	open_all(spec, opened);
	CHECK(kit_load(opened->ns, shape, 1) == 0);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0) == pid);
}

static void spawn(struct opened *opened)
{
	char name[] = "true";
	char *argv[] = {name, NULL};
	pid_t pid;

	CHECK(posix_spawnp(&pid, name, NULL, NULL, argv, environ) == 0);
	reap(pid);
	CHECK(kit_load(opened->ns, shape, 1) == 0);
}

/* ---- forks while stores open and close ------------------------------------------ */

#define CHILDREN_MAX 200u
#define FDS_MAX	     256

struct forker {
	pthread_t thread;
	pid_t children[CHILDREN_MAX];
	uint32_t count;
	bool stop; /* under lock */
	pthread_mutex_t lock;
};

/* Whether this process, a child, has a ring of its parent's. */
static bool has_ring(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++) {
		char name[32], what[64] = "";

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		if (readlink(name, what, sizeof(what) - 1) > 0 && strstr(what, "[io_uring]"))
			return true;
	}
	return false;
}

static void *keep_forking(void *argument)
{
	struct forker *forker = argument;
	bool stop = false;

	while (!stop && forker->count < CHILDREN_MAX) {
		pid_t pid = fork();

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (has_ring())
				_exit(1);
			for (;;)
				pause();
		}
		CHECK(pid > 0);
		forker->children[forker->count++] = pid;
		usleep(500);
		pthread_mutex_lock(&forker->lock);
		stop = forker->stop;
		pthread_mutex_unlock(&forker->lock);
	}
	return NULL;
}

/* Children that live on are born at any moment of an open and a close: none keeps lock or ring. */
static void fork_meanwhile(const char *spec)
{
	struct forker forker = {.lock = PTHREAD_MUTEX_INITIALIZER};
	uint64_t rounds = kit_number("rounds", kit_sanitized() ? 5 : 20, 300);

	CHECK(pthread_create(&forker.thread, NULL, keep_forking, &forker) == 0);
	for (uint64_t i = 0; i < rounds; i++) {
		struct cairn_error error = {0};
		struct cairn_store *store;

		kit_at("round %llu", (unsigned long long)i);
		CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "%s", error.text);
		CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	}
	pthread_mutex_lock(&forker.lock);
	forker.stop = true;
	pthread_mutex_unlock(&forker.lock);
	CHECK(pthread_join(forker.thread, NULL) == 0);
	for (uint32_t i = 0; i < forker.count; i++) {
		int status;

		kill(forker.children[i], SIGKILL);
		CHECK(waitpid(forker.children[i], &status, 0) == forker.children[i]);
		CHECK(WIFSIGNALED(status), "a child has a ring of its parent's");
	}
}

/* ---- forks while compositions are looked up -------------------------------------- */

static int see_composition(void *context, const char *name, const char *spec, const char *help)
{
	(void)name;
	(void)spec;
	(void)help;
	++*(uint32_t *)context;
	return 0;
}

static void *keep_listing(void *argument)
{
	struct forker *forker = argument;
	bool stop = false;

	while (!stop) {
		uint32_t count = 0;

		for (int i = 0; i < 100; i++)
			CHECK(cairn_compositions(see_composition, &count) == 0);
		pthread_mutex_lock(&forker->lock);
		stop = forker->stop;
		pthread_mutex_unlock(&forker->lock);
	}
	return NULL;
}

/* A child finds the list as its parent had it, and nobody's lock on it; no store was opened. */
static void fork_among_compositions(void)
{
	struct forker forker = {.lock = PTHREAD_MUTEX_INITIALIZER};
	uint64_t rounds = kit_number("forks", kit_sanitized() ? 60 : 300, 3000);
	char name[16];

	kit_at("compositions");
	kit_watch(60);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "fork%d", i);
		CHECK(cairn_pipeline_define(name, "null()", NULL) == 0);
	}
	CHECK(pthread_create(&forker.thread, NULL, keep_listing, &forker) == 0);
	for (uint64_t i = 0; i < rounds; i++) {
		uint32_t before = 0, after = 0;
		pid_t pid = fork();

		CHECK(pid >= 0);
		if (pid == 0) {
			kit_watch(20);
			CHECK(cairn_compositions(see_composition, &before) == 0);
			CHECK(cairn_pipeline_define("child", "@fork7", NULL) == 0);
			CHECK(cairn_compositions(see_composition, &after) == 0);
			_exit(before >= 20 && after == before + 1 ? 0 : 1);
		}
		reap(pid);
	}
	pthread_mutex_lock(&forker.lock);
	forker.stop = true;
	pthread_mutex_unlock(&forker.lock);
	CHECK(pthread_join(forker.thread, NULL) == 0);
}

static void run(const char *engine)
{
	unsigned descriptors = kit_descriptors();
	struct opened opened;
	char path[128], spec[512], tier[256];

	kit_at("engine=%s", engine);
	kit_watch(60);
	kit_folder(path, sizeof(path), "fork");
	kit_tier(tier, sizeof(tier), path, "open_wait=200ms", "open_wait=200ms, size=64MiB");
	snprintf(spec, sizeof(spec), "store(engine=%s, reactors=2, buffers=8MiB) | %s", engine,
		 tier);
	open_all(spec, &opened);
	CHECK(kit_dump(opened.ns, shape, 1, 0, 2, CAIRN_WRITTEN) == 0);
	child_ends(&opened);
	/*
	 * Not under a sanitizer: AddressSanitizer's locks are not taken for a fork (GCC 12, clang
	 * 14), so where a thread of the parent's begins just then, the child waits for ever in its
	 * first malloc() or pthread_create(): 4 of 101 children of a program of twenty lines did.
	 */
	if (!kit_sanitized())
		child_opens(spec);
	fork_in_flight(&opened);
	lock_is_not_kept(spec, &opened);
	spawn(&opened);
	CHECK(cairn_queue_close(opened.queue) == 0);
	CHECK(cairn_store_close(opened.store, UINT64_MAX) == 0);
	if (kit_threads_after_fork())
		fork_meanwhile(spec);
	CHECK(kit_descriptors() == descriptors);
	kit_remove_folder(path);
	printf("fork: engine %s\n", engine);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	fork_among_compositions(); /* first: what a store's open sets up is not there yet */
	run("psync");
	run("aio");
	if (kit_engine("uring"))
		run("uring");
	return 0;
}
