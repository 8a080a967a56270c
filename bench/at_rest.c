/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store costs when nothing happens, and what it costs to come back.
 *
 *	at_rest PIPELINE [BLOCKS [IDLE_MS]]
 *
 * Fills the store with BLOCKS blocks of 64 bytes (those that are there stay), closes
 * it, opens it nine times, then idles with it open for nine spells of IDLE_MS (1000).
 * Prints one JSON object: open_ms and idle_cores (a figure each time), threads.
 *
 *	at_rest --killed PIPELINE BLOCKS BYTES
 *
 * Each of ten processes opens the store, dumps, and is killed while it dumps on: the
 * first when BLOCKS blocks of BYTES bytes are in, the others a thousand later. Nobody
 * closes it. Prints open_ms of the nine that found a store, and found: how many of
 * the first BLOCKS blocks the last of them had.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cairn/task.h>

#define TIMES	      9 /* the least that gives a median an interval */
#define BATCH	      1024u
#define BLOCK_BYTES   64u
#define BYTES_MAX     4096u
#define KILLED_BLOCKS 1000u /* dumped between two kills, at least */

/* What a child that will be killed has to say. */
struct word {
	double open_ms;
	uint64_t next; /* the first block that is not known to be in */
	uint64_t found;
};

static double now_s(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "at_rest: %s: %s\n", what, why);
	exit(1);
}

static struct cairn_store *open_store(const char *spec, double *ret_ms)
{
	double from = now_s(CLOCK_MONOTONIC);
	struct cairn_error error = {0};
	struct cairn_store *store;

	if (cairn_store_open(spec, NULL, &store, &error) < 0)
		die(spec, error.text);
	*ret_ms = (now_s(CLOCK_MONOTONIC) - from) * 1e3;
	return store;
}

static void close_store(struct cairn_store *store)
{
	int ret = cairn_store_close(store, UINT64_MAX);

	if (ret < 0)
		die("close", cairn_strerror(ret));
}

static struct cairn_namespace *open_namespace(struct cairn_store *store, uint32_t bytes)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "at_rest", .shard_count = 1, .shard_bytes = bytes};
	struct cairn_namespace *ns;

	if (cairn_namespace_open(store, &desc, &ns, NULL) < 0)
		die("namespace", "did not open");
	return ns;
}

static uint32_t batch_of(uint64_t blocks, uint64_t at)
{
	return (uint32_t)(blocks - at < BATCH ? blocks - at : BATCH);
}

static void dump_batch(struct cairn_namespace *ns, uint32_t bytes, uint64_t first, uint32_t count)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_WRITTEN};
	static struct cairn_xfer xfers[BATCH];
	static uint8_t memory[BYTES_MAX];
	int ret;

	memset(xfers, 0, sizeof(xfers));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t name = first + i;

		cairn_key_derive(ns, &name, sizeof(name), &xfers[i].key);
		xfers[i].length = bytes;
		xfers[i].stride = (struct cairn_stride){memory, bytes, 0, 1};
	}
	ret = cairn_dump(ns, xfers, count, &opts, NULL);
	if (ret < 0)
		die("dump", cairn_strerror(ret));
}

static void fill(const char *spec, uint64_t blocks)
{
	double ms;
	struct cairn_store *store = open_store(spec, &ms);
	struct cairn_namespace *ns = open_namespace(store, BLOCK_BYTES);

	for (uint64_t at = 0; at < blocks; at += BATCH)
		dump_batch(ns, BLOCK_BYTES, at, batch_of(blocks, at));
	cairn_namespace_close(ns);
	close_store(store);
}

static int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int count = -2; /* . and .. */

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

static void print_list(const char *name, const double values[TIMES])
{
	printf("\"%s\": [", name);
	for (int i = 0; i < TIMES; i++)
		printf("%s%.5f", i ? ", " : "", values[i]);
	printf("], ");
}

static void rest(const char *spec, uint64_t blocks, unsigned idle_ms)
{
	double ms[TIMES], cores[TIMES], unused;
	struct cairn_store *store;
	int running;

	fill(spec, blocks);
	for (int i = 0; i < TIMES; i++)
		close_store(open_store(spec, &ms[i]));
	store = open_store(spec, &unused);
	for (int i = 0; i < TIMES; i++) {
		double cpu = now_s(CLOCK_PROCESS_CPUTIME_ID), from = now_s(CLOCK_MONOTONIC);

		usleep(idle_ms * 1000);
		cores[i] =
			(now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (now_s(CLOCK_MONOTONIC) - from);
	}
	running = threads();
	close_store(store);
	printf("{\"blocks\": %llu, ", (unsigned long long)blocks);
	print_list("open_ms", ms);
	print_list("idle_cores", cores);
	printf("\"threads\": %d}\n", running);
}

static uint64_t found(struct cairn_namespace *ns, uint64_t blocks)
{
	static struct cairn_found answers[BATCH];
	static struct cairn_key keys[BATCH];
	uint64_t known = 0;

	for (uint64_t at = 0; at < blocks; at += BATCH) {
		uint32_t count = batch_of(blocks, at);
		int64_t ret;

		for (uint32_t i = 0; i < count; i++) {
			uint64_t name = at + i;

			cairn_key_derive(ns, &name, sizeof(name), &keys[i]);
		}
		ret = cairn_lookup(ns, keys, count, answers, NULL, NULL);
		if (ret < 0)
			die("lookup", cairn_strerror((int)ret));
		known += (uint64_t)ret;
	}
	return known;
}

/* Opens, dumps blocks from @next until @enough, says so, and goes on until it is killed. */
static _Noreturn void live(const char *spec, uint32_t bytes, struct word word, uint64_t enough,
			   uint64_t counted, int pipe)
{
	struct cairn_store *store = open_store(spec, &word.open_ms);
	struct cairn_namespace *ns = open_namespace(store, bytes);

	if (counted)
		word.found = found(ns, counted);
	for (bool said = false;; word.next += BATCH) {
		if (word.next >= enough && !said) {
			said = write(pipe, &word, sizeof(word)) == sizeof(word);
			if (!said)
				die("pipe", "nobody reads");
		}
		dump_batch(ns, bytes, word.next, BATCH);
	}
}

static void killed(const char *spec, uint64_t blocks, uint32_t bytes)
{
	struct word word = {0};
	double ms[TIMES];

	for (int i = 0; i <= TIMES; i++) {
		uint64_t enough = i ? word.next + KILLED_BLOCKS : blocks;
		int ends[2];
		pid_t child;

		child = pipe(ends) ? -1 : fork();
		if (child < 0)
			die("fork", "failed");
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(ends[0]);
			live(spec, bytes, word, enough, i == TIMES ? blocks : 0, ends[1]);
		}
		close(ends[1]);
		if (read(ends[0], &word, sizeof(word)) != sizeof(word))
			die("child", "ended by itself");
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close(ends[0]);
		if (i)
			ms[i - 1] = word.open_ms;
	}
	printf("{\"blocks\": %llu, ", (unsigned long long)blocks);
	print_list("open_ms", ms);
	printf("\"found\": %llu}\n", (unsigned long long)word.found);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "--killed")) {
		unsigned long bytes = strtoul(argv[4], NULL, 10);

		if (!bytes || bytes > BYTES_MAX)
			die("BYTES", "1 to 4096");
		killed(argv[2], strtoull(argv[3], NULL, 10), (uint32_t)bytes);
	} else if (argc >= 2 && argc <= 4) {
		rest(argv[1], argc > 2 ? strtoull(argv[2], NULL, 10) : 0,
		     argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1000);
	} else {
		die("usage",
		    "at_rest PIPELINE [BLOCKS [IDLE_MS]] | --killed PIPELINE BLOCKS BYTES");
	}
	return 0;
}
