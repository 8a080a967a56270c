/* SPDX-License-Identifier: Apache-2.0 */
/* Which bare work stands against a pipeline; and the kinds that are in memory. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "bench.h"
#include "cli.h"
#include "figures.h"
#include "out.h"

#define ARENA_BYTES_MAX (1ull << 30) /* what memcpy reads or writes all over */

/* ---- the last stage ------------------------------------------------------- */

/* Copies the value of option @name in @stage to @to; false: it is not given. */
static bool option_value(const char *stage, const char *name, char *to, size_t room)
{
	size_t length = strlen(name), n;
	const char *at = stage;

	for (;; at += length) {
		at = strstr(at, name);
		if (!at)
			return false;
		if (at > stage && strchr("(, \t\n", at[-1]) && at[length] == '=')
			break;
	}
	at += length + 1;
	if (*at == '"')
		n = strcspn(++at, "\"");
	else
		n = strcspn(at, ",)| \t\n");
	snprintf(to, room, "%.*s", (int)n, at);
	return true;
}

static void expand_rank(const struct bench_plan *plan, char *path, size_t room)
{
	const char *rank = plan->store.opts.rank, *mark = "{rank}";
	char *at = strstr(path, mark), tail[1024];

	rank = rank ? rank : getenv("RANK");
	rank = rank ? rank : "0";
	if (!at)
		return;
	snprintf(tail, sizeof(tail), "%s", at + strlen(mark));
	snprintf(at, room - (size_t)(at - path), "%s%s", rank, tail);
}

void bench_last_stage(const struct bench_plan *plan, struct bench_last *ret_last)
{
	const char *stage = strrchr(plan->pipeline, '|');
	char value[8];
	size_t n;

	memset(ret_last, 0, sizeof(*ret_last));
	stage = stage ? stage + 1 : plan->pipeline;
	while (isspace((unsigned char)*stage))
		stage++;
	n = strcspn(stage, "( \t\n|");
	snprintf(ret_last->name, sizeof(ret_last->name), "%.*s", (int)n, stage);
	ret_last->direct =
		!option_value(stage, "direct", value, sizeof(value)) || strcmp(value, "no");
	ret_last->shared =
		option_value(stage, "shared", value, sizeof(value)) && !strcmp(value, "yes");
	ret_last->sized = option_value(stage, "size", value, sizeof(value));
	option_value(stage, "path", ret_last->path, sizeof(ret_last->path));
	expand_rank(plan, ret_last->path, sizeof(ret_last->path));
}

static bool in_memory(const struct bench_last *last)
{
	return !strcmp(last->name, "null") || !strcmp(last->name, "cache");
}

/* A probe of memory needs no directory, unless the tier asks the file system. */
static bool needs_files(const struct bench_plan *plan, const struct bench_last *last)
{
	return plan->op == BENCH_LOOKUP ? last->shared : !in_memory(last) || plan->bare_dir;
}

/* Of the file system that @path is on, or will be; 0: not known. */
static uint64_t free_bytes(const char *path)
{
	char above[1024 + 2];
	struct statvfs st;
	char *slash;

	if (statvfs(path, &st)) { /* not made yet */
		snprintf(above, sizeof(above), "%s", path);
		slash = strrchr(above, '/');
		snprintf(slash ? slash + 1 : above, 2, ".");
		if (statvfs(above, &st))
			return 0;
	}
	return (uint64_t)st.f_bavail * st.f_frsize;
}

bool bench_bare_keeps(const struct bench_plan *plan)
{
	struct bench_last last;
	uint64_t blocks = 2 * (plan->pairs + 1) * plan->count;

	bench_last_stage(plan, &last);
	if (plan->op == BENCH_LOAD || plan->op == BENCH_LOOKUP || in_memory(&last) || !*last.path ||
	    last.sized)
		return false;
	return free_bytes(last.path) / 2 / plan->block_bytes >= blocks;
}

int bench_bare_check(const struct bench_plan *plan)
{
	struct bench_last last;

	bench_last_stage(plan, &last);
	if (!needs_files(plan, &last) || *last.path || plan->bare_dir)
		return -1;
	return option_error("bench",
			    "\"%s\" has no path= to put bare files beside; give --bare-dir DIR",
			    last.name);
}

/* ---- memcpy ------------------------------------------------------------------ */

struct arena {
	uint8_t *bytes;	  /* what is read */
	uint8_t *written; /* where dumps go: nobody reads it meanwhile */
	uint64_t blocks;
	uint8_t **buffers; /* depth blocks for each thread: what the store's side has too */
};

static void work_copies(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	struct arena *arena = side->private;
	uint8_t *buffer = arena->buffers[worker->index];

	for (uint64_t i = worker->index, turn = 0; i < plan->count; i += plan->clients, turn++) {
		uint8_t *mine = buffer + turn % plan->depth * plan->block_bytes;
		bool dump = plan->op == BENCH_DUMP || (plan->op == BENCH_MIXED && i % 2);
		uint64_t at = (dump ? i : plan->order[i]) % arena->blocks;
		uint8_t *theirs = (dump ? arena->written : arena->bytes) + at * plan->block_bytes;
		uint64_t start = figures_now_ns();

		memcpy(dump ? theirs : mine, dump ? mine : theirs, plan->block_bytes);
		/* the copy must happen although nobody reads it */
		__asm__ volatile("" : : "r"(mine), "r"(theirs) : "memory");
		bench_note(worker, start, plan->block_bytes);
	}
}

static void close_arena(struct bench_side *side)
{
	struct arena *arena = side->private;

	for (uint32_t i = 0; i < side->threads; i++)
		free(arena->buffers[i]);
	free(arena->buffers);
	free(arena->bytes);
	free(arena->written);
	free(arena);
}

static uint8_t *touched(uint64_t bytes)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, bytes))
		out_die("no memory for %llu bytes to copy", (unsigned long long)bytes);
	return memset(p, 1, bytes);
}

static int open_arena(const struct bench_plan *plan, struct bench_side *ret_side)
{
	struct arena *arena = calloc(1, sizeof(*arena));
	uint64_t most = ARENA_BYTES_MAX / plan->block_bytes;

	if (!arena || !(arena->buffers = calloc(plan->clients, sizeof(*arena->buffers))))
		out_die("no memory for the bare side");
	arena->blocks = !most ? 1 : plan->count < most ? plan->count : most;
	if (plan->op != BENCH_DUMP)
		arena->bytes = touched(arena->blocks * plan->block_bytes);
	if (plan->op != BENCH_LOAD)
		arena->written = touched(arena->blocks * plan->block_bytes);
	for (uint64_t i = 0; i < plan->clients; i++)
		arena->buffers[i] = touched(plan->depth * plan->block_bytes);
	*ret_side = (struct bench_side){.plan = plan,
					.what = "memcpy",
					.threads = (uint32_t)plan->clients,
					.private = arena,
					.work = work_copies,
					.close = close_arena};
	return CLI_OK;
}

/* ---- a table in memory, probed one key after another ----------------------------- */

struct table {
	struct cairn_key *slots;
	uint64_t mask;
};

static uint64_t hash_of(const struct cairn_key *key)
{
	uint64_t hash;

	memcpy(&hash, key->bytes, sizeof(hash)); /* keys are hashes already */
	return hash;
}

static bool empty(const struct cairn_key *key)
{
	static const struct cairn_key none;

	return !memcmp(key, &none, sizeof(none));
}

static bool probe(const struct table *table, const struct cairn_key *key)
{
	for (uint64_t at = hash_of(key) & table->mask;; at = (at + 1) & table->mask) {
		if (!memcmp(&table->slots[at], key, sizeof(*key)))
			return true;
		if (empty(&table->slots[at]))
			return false;
	}
}

static void work_probes(struct bench_side *side, struct bench_worker *worker)
{
	const struct bench_plan *plan = side->plan;
	const struct table *table = side->private;

	for (uint64_t call = 0; call < plan->calls && !worker->error; call++) {
		const struct cairn_key *keys = bench_chain(plan, worker->index, call);
		uint64_t start = figures_now_ns(), n = 0;

		while (n < plan->count && probe(table, &keys[n]))
			n++;
		bench_note(worker, start, 0);
		if (n != plan->count)
			worker->error = -ENOENT;
	}
}

static void close_table(struct bench_side *side)
{
	struct table *table = side->private;

	free(table->slots);
	free(table);
}

static int open_table(const struct bench_plan *plan, struct bench_side *ret_side)
{
	struct table *table = calloc(1, sizeof(*table));
	uint64_t room = 16;

	while (room < plan->fill * 2)
		room *= 2;
	if (!table || !(table->slots = calloc(room, sizeof(*table->slots))))
		out_die("no memory for a table of %llu keys", (unsigned long long)plan->fill);
	table->mask = room - 1;
	for (uint64_t i = 0; i < plan->fill; i++) {
		uint64_t at = hash_of(&plan->keys[i]) & table->mask;

		while (!empty(&table->slots[at]))
			at = (at + 1) & table->mask;
		table->slots[at] = plan->keys[i];
	}
	*ret_side = (struct bench_side){.plan = plan,
					.what = "serial probes of a hash table in memory",
					.threads = (uint32_t)plan->clients,
					.private = table,
					.work = work_probes,
					.close = close_table};
	return CLI_OK;
}

int bench_bare_open(const struct bench_plan *plan, struct bench_side *ret_side)
{
	struct bench_last last;
	char dir[sizeof(last.path) + 8];

	bench_last_stage(plan, &last);
	if (!needs_files(plan, &last))
		return plan->op == BENCH_LOOKUP ? open_table(plan, ret_side)
						: open_arena(plan, ret_side);
	while (strlen(last.path) > 1 && last.path[strlen(last.path) - 1] == '/')
		last.path[strlen(last.path) - 1] = '\0';
	snprintf(dir, sizeof(dir), "%s-bare", last.path);
	return bench_files_open(plan, &last, plan->bare_dir ? plan->bare_dir : dir, ret_side);
}
