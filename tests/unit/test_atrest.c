/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that are read, not opened, and what this build has: the public calls alone. */
#include "posix_store.h"

#define SHARD  8192u
#define BLOCKS 4u

static struct fixture upper, lower;
static char both[600]; /* a pipeline of the two */

static int setup(void **state)
{
	(void)state;
	fixture_new(&upper);
	fixture_new(&lower);
	snprintf(both, sizeof(both), "posix(path=%s) | posix(path=%s)", upper.path, lower.path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_free(&upper);
	fixture_free(&lower);
	return 0;
}

/* Opens a store with BLOCKS blocks in it. */
static void fill(struct fixture *f, const char *model)
{
	fixture_open(f, "");
	fixture_space(f, model, 1, SHARD);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(dump_one(f, i, 0, SHARD, CAIRN_WRITTEN), 0);
}

static void fill_both(void)
{
	fill(&upper, "upper");
	fixture_close(&upper);
	fill(&lower, "lower");
	fixture_close(&lower);
}

/* ---- listing --------------------------------------------------------------------- */

struct listed {
	uint32_t count, of_second, stop_at;
	int stop_with;
};

static int see_block(void *context, const struct cairn_listed *block)
{
	struct listed *seen = context;

	assert_non_null(block->desc);
	assert_int_equal(block->raw_bytes, SHARD);
	assert_true(block->whole);
	if (strcmp(block->desc->model, "lower") == 0) {
		assert_string_equal(block->stage, "posix.2");
		seen->of_second++;
	}
	return ++seen->count == seen->stop_at ? seen->stop_with : 0;
}

static int64_t list(const char *spec, struct listed *seen)
{
	struct cairn_error error = {0};
	uint64_t missed = 7;
	int64_t ret = cairn_list(spec, NULL, see_block, seen, &missed, &error);

	assert_int_equal(missed, 0);
	return ret;
}

static void list_of_every_tier(void **state)
{
	struct listed seen = {0};
	struct cairn_error error = {0};

	(void)state;
	fill_both();
	assert_int_equal(list(both, &seen), 2 * BLOCKS);
	assert_int_equal(seen.count, 2 * BLOCKS);
	assert_int_equal(seen.of_second, BLOCKS);
	/* A tier that does not persist has nothing to list. */
	assert_int_equal(list("null()", &seen), 0);
	assert_int_equal(cairn_list(both, NULL, NULL, NULL, NULL, &error), -EINVAL);
	assert_int_equal(error.code, -EINVAL);
	assert_int_equal(
		cairn_list("posix(path=/nowhere/at/all)", NULL, see_block, &seen, NULL, &error),
		-ENOENT);
	assert_non_null(strstr(error.text, "/nowhere/at/all"));
}

/* What ends the walk is returned: whatever its sign, and no tier below is read. */
static void list_ends_where_asked(void **state)
{
	static const int stops[] = {77, 1, -5, -ENOENT};

	(void)state;
	fill_both();
	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		for (uint32_t at = 1; at <= 2 * BLOCKS; at++) {
			struct listed seen = {.stop_at = at, .stop_with = stops[i]};

			assert_int_equal(list(both, &seen), stops[i]);
			assert_int_equal(seen.count, at);
		}
}

/* ---- values that no row forbids ---------------------------------------------------- */

static int no_finding(void *context, const struct cairn_finding *finding)
{
	(void)context;
	(void)finding;
	return 0;
}

static int no_counter(void *context, const struct cairn_counter *counter)
{
	(void)context;
	(void)counter;
	return 0;
}

static void check_error(const struct cairn_error *error, int line, int column, const char *text)
{
	char whole[CAIRN_ERROR_TEXT_MAX];

	snprintf(whole, sizeof(whole), "line %d, column %d: %s", line, column, text);
	assert_int_equal(error->code, -EINVAL);
	assert_int_equal(error->line, line);
	assert_int_equal(error->column, column);
	assert_int_equal(strncmp(error->text, whole, strlen(whole)), 0);
}

static int no_latency(void *context, const struct cairn_latency *latency)
{
	(void)context;
	(void)latency;
	return 0;
}

/* Whether a store is opened or read at rest: its stages are asked, and the place is named. */
static void values_are_checked_by_every_call(void **state)
{
	static const struct {
		const char *spec;
		int line, column;
		const char *text;
	} cases[] = {
		{"fault(rule=\"laod:EIO:2\") | null()", 1, 12,
		 "fault: rule, character 1: \"laod\""},
		{"null() |\n delay(read=1ms,\n hang=\"17\") | null()", 3, 7, "delay: hang= is not"},
		{"null() | delay(hang=\"#1\", hang_after=1s) | null()", 1, 38,
		 "delay: hang_after= and hang= are both given"},
		{"null() | posix(path=/nowhere/at/all,\n  shared=yes, size=1GiB)", 2, 20,
		 "posix: size= does not go with shared=yes"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *spec = cases[i].spec;
		struct cairn_error errors[4];
		struct listed seen = {0};
		struct cairn_store *store;

		memset(errors, 0x5a, sizeof(errors));
		assert_int_equal(cairn_store_open(spec, NULL, &store, &errors[0]), -EINVAL);
		assert_int_equal(cairn_list(spec, NULL, see_block, &seen, NULL, &errors[1]),
				 -EINVAL);
		assert_int_equal(cairn_check(spec, NULL, no_finding, NULL, &errors[2]), -EINVAL);
		assert_int_equal(
			cairn_live_counters(spec, NULL, no_counter, NULL, NULL, &errors[3]),
			-EINVAL);
		for (size_t e = 0; e < 4; e++)
			check_error(&errors[e], cases[i].line, cases[i].column, cases[i].text);
	}
}

/* What only an open can find has its place as well, where it is an option's or a bad value. */
static void errors_of_an_open_have_a_place(void **state)
{
	struct cairn_error error;
	struct cairn_store *store;
	char spec[700];

	(void)state;
	memset(&error, 0x5a, sizeof(error));
	assert_int_equal(cairn_store_open("delay() | posix(size=1GiB,\n path=/nowhere/at/all)",
					  NULL, &store, &error),
			 -ENOENT);
	assert_int_equal(error.line, 2);
	assert_int_equal(error.column, 7);
	assert_non_null(strstr(error.text, "line 2, column 7: posix: path=/nowhere/at/all: "));
	/* Of the second of its name too. */
	snprintf(spec, sizeof(spec), "posix(path=%s) | posix(path=/nowhere/at/all)", lower.path);
	assert_int_equal(cairn_store_open(spec, NULL, &store, &error), -ENOENT);
	assert_int_equal(error.column, strstr(spec, "/nowhere") - spec + 1);
	/* And an error that is no value's has none. */
	fixture_open(&lower, "");
	assert_int_equal(cairn_store_open(lower.spec, NULL, &store, &error), -EBUSY);
	assert_int_equal(error.line, 0);
	assert_int_equal(strncmp(error.text, "posix: ", 7), 0);
	fixture_close(&lower);
}

/* ---- checking -------------------------------------------------------------------- */

struct found {
	uint32_t by_kind[3];
	char stage[32], where[2100];
};

static int see_finding(void *context, const struct cairn_finding *finding)
{
	struct found *found = context;

	assert_in_range(finding->kind, CAIRN_FINDING_NOTE, CAIRN_FINDING_DAMAGED);
	assert_true(finding->what[0] && finding->where[0]);
	found->by_kind[finding->kind]++;
	snprintf(found->stage, sizeof(found->stage), "%s", finding->stage);
	snprintf(found->where, sizeof(found->where), "%s", finding->where);
	return 0;
}

static char victim[2048];

static void take_file(const char *file)
{
	snprintf(victim, sizeof(victim), "%s", file);
}

/* Turns the last byte over: of the payload. */
static void damage(const char *file)
{
	int fd = open(file, O_RDWR);
	struct stat st;
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pread(fd, &byte, 1, st.st_size - 1), 1);
	byte ^= 0xff;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 1), 1);
	close(fd);
}

static int see_detail(void *context, const struct cairn_detail *detail)
{
	(void)context;
	fail_msg("%s %s", detail->item, detail->name);
	return 0;
}

static void check_says_the_worst(void **state)
{
	struct cairn_error error = {0};
	struct found found = {0};

	(void)state;
	fill_both();
	assert_int_equal(cairn_check(both, NULL, see_finding, &found, &error), 0);
	assert_int_equal(found.by_kind[CAIRN_FINDING_DAMAGED], 0);
	assert_int_equal(each_file(lower.path, take_file), BLOCKS);
	damage(victim);
	found = (struct found){0};
	assert_int_equal(cairn_check(both, NULL, see_finding, &found, &error),
			 CAIRN_FINDING_DAMAGED);
	assert_int_equal(found.by_kind[CAIRN_FINDING_DAMAGED], 1);
	assert_string_equal(found.stage, "posix.2");
	assert_int_equal(strncmp(found.where, victim, strlen(victim)), 0);
	/* A tier that mends itself when it is opened is only checked by a repair. */
	assert_int_equal(cairn_repair(both, NULL, see_finding, &found, &error),
			 CAIRN_FINDING_DAMAGED);
	assert_int_equal(cairn_repair(both, NULL, NULL, NULL, &error), -EINVAL);
	/* A directory has nothing to look into. */
	assert_int_equal(cairn_inspect(both, NULL, CAIRN_INSPECT_STORE, see_detail, NULL, &error),
			 -EOPNOTSUPP);
	assert_int_equal(cairn_inspect(both, NULL, CAIRN_INSPECT_STORE, NULL, NULL, &error),
			 -EINVAL);
	/* A check mends nothing and takes nothing away. */
	assert_int_equal(each_file(lower.path, NULL), BLOCKS);
	assert_int_equal(cairn_check(both, NULL, NULL, NULL, &error), -EINVAL);
	fixture_open(&lower, "");
	fixture_space(&lower, "lower", 1, SHARD);
	assert_int_equal(cairn_check(lower.spec, NULL, see_finding, &found, &error), -EBUSY);
	fixture_close(&lower);
}

/* ---- the counters of a store that is open --------------------------------------- */

#define ROWS_MAX 256u

struct rows {
	uint32_t count;
	int stop_with;
	struct {
		char stage[32], name[64];
		int gauge;
		uint64_t value;
	} row[ROWS_MAX];
};

static int see_counter(void *context, const struct cairn_counter *counter)
{
	struct rows *rows = context;

	assert_true(rows->count < ROWS_MAX);
	assert_non_null(counter->help);
	snprintf(rows->row[rows->count].stage, 32, "%s", counter->stage);
	snprintf(rows->row[rows->count].name, 64, "%s", counter->name);
	rows->row[rows->count].gauge = counter->gauge != 0;
	rows->row[rows->count].value = counter->value;
	rows->count++;
	return rows->stop_with;
}

struct took {
	struct cairn_latency of[3];
	uint64_t counted[3];
	uint32_t count;
	int stop_with;
};

static int see_latency(void *context, const struct cairn_latency *latency)
{
	struct took *took = context;

	assert_true(took->count < 3);
	took->of[took->count] = *latency;
	for (uint32_t i = 0; i < latency->bucket_count; i++) {
		assert_true(i == 0 || latency->buckets[i].le_ns > latency->buckets[i - 1].le_ns);
		took->counted[took->count] += latency->buckets[i].count;
	}
	assert_true(latency->buckets[latency->bucket_count - 1].le_ns == UINT64_MAX);
	took->count++;
	return took->stop_with;
}

static uint64_t value_of(const char *name)
{
	struct rows rows = {0};

	assert_int_equal(cairn_counters(upper.store, see_counter, &rows), 0);
	for (uint32_t i = 0; i < rows.count; i++)
		if (strcmp(rows.row[i].stage, "store") == 0 && strcmp(rows.row[i].name, name) == 0)
			return rows.row[i].value;
	fail_msg("no counter %s", name);
	return 0;
}

/* Calls are counted as they end, a lookup of 64 keys as one; seen from outside as from within. */
static void live_latencies(void **state)
{
	static const char *const ops[] = {"load", "dump", "lookup"};
	static const uint64_t calls[] = {3, BLOCKS, 1};
	struct cairn_live about = {.size = sizeof(about)};
	struct cairn_error error = {0};
	struct took own = {0}, live = {0};
	struct cairn_found found[64];
	struct cairn_key keys[64];

	(void)state;
	fill(&upper, "live");
	for (uint32_t i = 0; i < 64; i++)
		keys[i] = key_of(&upper, i);
	assert_int_equal(cairn_lookup(upper.ns, keys, 64, found, NULL, NULL), BLOCKS);
	assert_int_equal(load_one(&upper, 0, 0, SHARD), 0);
	assert_int_equal(load_one(&upper, BLOCKS, 0, SHARD), -ENOENT);
	assert_int_equal(load_one(&upper, BLOCKS + 1, 0, SHARD), -ENOENT);
	assert_int_equal(value_of("load_hits"), 1);
	assert_int_equal(value_of("misses_absent"), 2);
	assert_int_equal(value_of("queued_xfers"), 0);
	assert_int_equal(cairn_latencies(upper.store, see_latency, &own), 0);
	assert_int_equal(
		cairn_live_figures(upper.spec, NULL, NULL, see_latency, &live, &about, &error), 0);
	assert_int_equal(about.pid, getpid());
	assert_int_equal(own.count, 3);
	assert_int_equal(live.count, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_string_equal(own.of[i].op, ops[i]);
		assert_int_equal(own.of[i].count, calls[i]);
		assert_int_equal(own.counted[i], calls[i]);
		assert_int_equal(live.counted[i], calls[i]);
		assert_true(own.of[i].sum_ns > 0 && live.of[i].sum_ns == own.of[i].sum_ns);
	}
	/* Of 256 lookups of one key four are timed, for 64 each. */
	for (uint32_t i = 0; i < 256; i++)
		assert_int_equal(cairn_lookup(upper.ns, keys, 1, found, NULL, NULL), 1);
	live = (struct took){0};
	assert_int_equal(cairn_latencies(upper.store, see_latency, &live), 0);
	assert_int_equal(live.counted[2], 1 + 256);
	live = (struct took){.stop_with = 77};
	assert_int_equal(
		cairn_live_figures(upper.spec, NULL, NULL, see_latency, &live, NULL, &error), 77);
	live = (struct took){.stop_with = 78};
	assert_int_equal(cairn_latencies(upper.store, see_latency, &live), 78);
	assert_int_equal(cairn_latencies(upper.store, NULL, NULL), -EINVAL);
	assert_int_equal(cairn_live_figures(upper.spec, NULL, NULL, NULL, NULL, NULL, &error),
			 -EINVAL);
	fixture_close(&upper);
	assert_int_equal(cairn_live_figures(upper.spec, NULL, NULL, no_latency, NULL, NULL, &error),
			 -ENOENT);
}

static void live_counters(void **state)
{
	static struct rows own, live;
	struct cairn_stat stat = {.size = sizeof(stat)};
	struct cairn_error error = {0};
	struct cairn_live about = {.size = sizeof(about)};

	(void)state;
	own = live = (struct rows){0};
	fill(&upper, "live");
	assert_int_equal(cairn_live_counters(upper.spec, NULL, see_counter, &live, &about, &error),
			 0);
	assert_int_equal(about.pid, getpid());
	assert_false(about.shared);
	assert_int_equal(cairn_stat(upper.store, &stat), 0);
	assert_string_equal(about.engine, stat.engine);
	assert_string_equal(about.engine_note, stat.engine_note);
	about.size = 0;
	assert_int_equal(cairn_live_counters(upper.spec, NULL, see_counter, &live, &about, &error),
			 -EINVAL);
	about.size = sizeof(about);
	assert_int_equal(cairn_counters(upper.store, see_counter, &own), 0);
	assert_true(own.count > 0);
	assert_int_equal(live.count, own.count);
	for (uint32_t i = 0; i < own.count; i++) {
		assert_string_equal(live.row[i].stage, own.row[i].stage);
		assert_string_equal(live.row[i].name, own.row[i].name);
		assert_int_equal(live.row[i].gauge, own.row[i].gauge);
		if (live.row[i].value != own.row[i].value)
			fail_msg("%s.%s is %llu, and live %llu", own.row[i].stage, own.row[i].name,
				 (unsigned long long)own.row[i].value,
				 (unsigned long long)live.row[i].value);
	}
	live = (struct rows){.stop_with = 77};
	assert_int_equal(cairn_live_counters(upper.spec, NULL, see_counter, &live, NULL, &error),
			 77);
	assert_int_equal(live.count, 1);
	assert_int_equal(cairn_live_counters(upper.spec, NULL, NULL, NULL, NULL, &error), -EINVAL);
	fixture_close(&upper);
	live = (struct rows){0};
	assert_int_equal(cairn_live_counters(upper.spec, NULL, see_counter, &live, &about, &error),
			 -ENOENT);
	assert_int_equal(error.code, -ENOENT);
	assert_int_equal(cairn_live_counters("null()", NULL, see_counter, &live, &about, &error),
			 -ENOENT);
	assert_int_equal(live.count, 0);
}

/* ---- what this build has ------------------------------------------------------- */

struct stages {
	char names[512]; /* "store:posix+:xor/:!bad:": + a tier, / from a file, ! not loaded */
	bool path_required;
	int stop_with;
};

static int see_stage(void *context, const struct cairn_stage_info *stage)
{
	struct stages *seen = context;
	size_t length = strlen(seen->names);

	if (stage->error) {
		snprintf(seen->names + length, sizeof(seen->names) - length, "!%s:", stage->name);
		return 0;
	}
	assert_true(stage->summary[0]);
	snprintf(seen->names + length, sizeof(seen->names) - length, "%s%s%s:", stage->name,
		 stage->tier ? "+" : "", stage->file ? "/" : "");
	for (size_t i = 0; i < stage->option_count; i++) {
		const struct cairn_option_info *option = &stage->options[i];

		assert_true(option->name[0] && option->type[0] && option->help[0]);
		assert_true(option->preset && option->min && option->max);
		if (strcmp(stage->name, "posix") == 0 && strcmp(option->name, "path") == 0)
			seen->path_required = option->required;
	}
	return seen->stop_with;
}

static void stages_of_this_build(void **state)
{
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = ""};
	struct cairn_error error = {0};
	struct stages seen = {0};

	(void)state;
	assert_int_equal(cairn_stages(&opts, see_stage, &seen, &error), 0);
	assert_string_equal(seen.names, "store:cache+:posix+:flash+:null+:fault:delay:");
	assert_true(seen.path_required);
	seen = (struct stages){.stop_with = -7};
	assert_int_equal(cairn_stages(&opts, see_stage, &seen, &error), -7);
	assert_string_equal(seen.names, "store:");
	assert_int_equal(cairn_stages(&opts, NULL, NULL, &error), -EINVAL);
}

/* Of a folder: the stages in it, and the files that are none, though their names say so. */
static void stages_of_a_folder(void **state)
{
	struct cairn_store_opts opts = {.size = sizeof(opts)};
	struct cairn_error error = {0};
	struct stages seen = {0};
	char path[300], file[300];
	int fd;

	(void)state;
	snprintf(file, sizeof(file), "%s/rubbish.so", upper.path);
	fd = open(file, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "no ELF", 6), 6);
	close(fd);
	snprintf(file, sizeof(file), "%s/xor.so", upper.path);
	assert_int_equal(symlink(getenv("STAGE_XOR"), file), 0);
	snprintf(file, sizeof(file), "%s/notes.txt", upper.path);
	assert_int_equal(symlink(getenv("STAGE_XOR"), file), 0);
	snprintf(path, sizeof(path), "/nowhere/at/all:%s:%s", lower.path, upper.path);
	opts.stage_path = path;
	assert_int_equal(cairn_stages(&opts, see_stage, &seen, &error), 0);
	assert_non_null(strstr(seen.names, "store:cache+:posix+:flash+:null+:fault:delay:"));
	assert_non_null(strstr(seen.names, ":xor/:"));
	assert_non_null(strstr(seen.names, ":!rubbish:"));
	assert_null(strstr(seen.names, "notes"));
}

struct compositions {
	char text[512];
	int stop_with;
};

static int see_composition(void *context, const char *name, const char *spec, const char *help)
{
	struct compositions *seen = context;
	size_t length = strlen(seen->text);

	assert_true(help[0]);
	snprintf(seen->text + length, sizeof(seen->text) - length, "%s=%s;", name, spec);
	return seen->stop_with;
}

static void write_definitions(const char *file, const char *text)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* Each of them opens, takes a block and gives it back, at a place of the test's own. */
static void predefined_compositions_open(void **state)
{
	static const struct {
		const char *spec, *made; /* below the fixture's folder */
	} cases[] = {
		{"@local(path=%s/kv, size=64MiB)", "kv"},
		{"@shared(path=%s/common)", "common/store"},
		{"@ranks(path=\"%s/of-{rank}\")", "of-3/store"},
		{"@memory", NULL},
	};
	struct fixture f = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cairn_store_opts opts = {.size = sizeof(opts), .rank = "3"};
		struct cairn_error error = {0};
		const char *hole = strstr(cases[i].spec, "%s");
		char file[300];

		snprintf(f.spec, sizeof(f.spec), "%.*s%s%s",
			 hole ? (int)(hole - cases[i].spec) : 100, cases[i].spec,
			 hole ? upper.path : "", hole ? hole + 2 : "");
		if (cairn_store_open(f.spec, &opts, &f.store, &error) < 0)
			fail_msg("%s: %s", f.spec, error.text);
		fixture_space(&f, "predefined", 1, SHARD);
		assert_in_range(dump_one(&f, 1, 0, SHARD, CAIRN_MEMORY), 0, CAIRN_PRESENT);
		assert_int_equal(load_one(&f, 1, 0, SHARD), 0);
		fixture_close(&f);
		snprintf(file, sizeof(file), "%s/%s", upper.path,
			 cases[i].made ? cases[i].made : "");
		assert_int_equal(access(file, F_OK), 0);
	}
}

/* Definitions are the process's, so that one test has them all. */
static void compositions_of_the_user(void **state)
{
	struct compositions seen = {0};
	struct cairn_error error = {0};
	struct cairn_store *store;
	char file[300];

	(void)state;
	assert_int_equal(cairn_compositions(see_composition, &seen), 0);
	assert_string_equal(seen.text, "local=flash(path=/var/lib/cairn.kv, size=32GiB);"
				       "shared=posix(path=/var/lib/cairn-shared, shared=yes);"
				       "ranks=posix(path=\"/var/lib/cairn-rank{rank}\");"
				       "memory=null(size=1GiB);");
	assert_int_equal(cairn_compositions(NULL, NULL), -EINVAL);
	assert_int_equal(cairn_pipeline_define("two", "null(size=1MiB) | null()", &error), 0);
	assert_int_equal(cairn_pipeline_define("bad", "null(", &error), -EINVAL);
	assert_int_equal(error.column, 6);
	assert_int_equal(cairn_pipeline_define(NULL, "null()", &error), -EINVAL);
	assert_int_equal(cairn_pipeline_define("none", NULL, NULL), -EINVAL);
	snprintf(file, sizeof(file), "%s/pipelines", upper.path);
	assert_int_equal(cairn_pipeline_define_file(file, &error), -ENOENT);
	assert_non_null(strstr(error.text, file));
	write_definitions(file, "@a = delay()\n  | @two # both\n@b = null(\n");
	assert_int_equal(cairn_pipeline_define_file(file, &error), -EINVAL);
	assert_int_equal(error.line, 4);
	write_definitions(file, "@a = delay()\n  | @two # both\n@local = @a\n");
	assert_int_equal(cairn_pipeline_define_file(file, &error), 2);
	assert_int_equal(cairn_pipeline_define_file(NULL, &error), -EINVAL);
	seen = (struct compositions){0};
	assert_int_equal(cairn_compositions(see_composition, &seen), 0);
	assert_non_null(strstr(seen.text, "two=null(size=1MiB) | null();"));
	assert_null(strstr(seen.text, "bad="));
	assert_null(strstr(seen.text, "b=null"));
	assert_null(strstr(seen.text, "/var/lib/cairn.kv")); /* hidden by the user's own */
	seen = (struct compositions){.stop_with = 77};
	assert_int_equal(cairn_compositions(see_composition, &seen), 77);
	assert_int_equal(cairn_store_open("@local(depth=2)", NULL, &store, &error), 0);
	assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
}

static void version(void **state)
{
	unsigned int major, minor, patch;
	char rest;

	(void)state;
	assert_int_equal(sscanf(cairn_version(), "%u.%u.%u%c", &major, &minor, &patch, &rest), 3);
	assert_string_equal(cairn_version(), CAIRN_VERSION); /* the build's */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(list_of_every_tier),
		TEST(list_ends_where_asked),
		TEST(values_are_checked_by_every_call),
		TEST(errors_of_an_open_have_a_place),
		TEST(check_says_the_worst),
		TEST(live_counters),
		TEST(live_latencies),
		TEST(stages_of_this_build),
		TEST(stages_of_a_folder),
		TEST(predefined_compositions_open),
		TEST(compositions_of_the_user),
		TEST(version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
