/* SPDX-License-Identifier: Apache-2.0 */
/* Stages in files: what is loaded, what is not, and the one line that says why. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <cairn/stage.h>

static const char *folder; /* of the files that tests/unit/abi/ makes */

static const struct wrong {
	const char *name;
	const char *line; /* behind the file's name; NULL: has numbers in it */
} wrongs[] = {
	{"abi_major", NULL},
	{"abi_minor", NULL},
	{"abi_size", NULL},
	{"abi_older_short", NULL},
	{"abi_symbol", "has no symbol \"cairn_stage\": not a stage of this library"},
	{"abi_tier", "a tier, and its table lacks bind, clear, lookup, unhold or stat"},
	{"abi_submit", "its table lacks name, summary, open, close or submit"},
	{"abi_name", "its stage is named \"someone_else\"; a file has its stage's name: "
		     "\"someone_else.so\""},
};
#define WRONGS (sizeof(wrongs) / sizeof(wrongs[0]))

static int open_with(const char *stage, struct cairn_error *reterr)
{
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = folder};
	struct cairn_store *store;
	char spec[128];
	int ret;

	snprintf(spec, sizeof(spec), "delay() |\n %s() | null()", stage);
	memset(reterr, 0, sizeof(*reterr));
	ret = cairn_store_open(spec, &opts, &store, reterr);
	if (ret == 0)
		assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
	return ret;
}

/* The line of wrongs[i], with its numbers. */
static const char *line_of(size_t i, char *buffer, size_t bytes)
{
	unsigned minor = CAIRN_STAGE_ABI_MINOR;
	char what[256];

	if (strcmp(wrongs[i].name, "abi_major") == 0)
		snprintf(what, sizeof(what),
			 "built for stage ABI 9.%u; this library has 1.%u: build it again", minor,
			 minor);
	else if (strcmp(wrongs[i].name, "abi_minor") == 0)
		snprintf(what, sizeof(what),
			 "built for stage ABI 1.%u; this library has 1.%u: build it again",
			 minor + 1, minor);
	else if (strcmp(wrongs[i].name, "abi_older_short") == 0)
		snprintf(what, sizeof(what),
			 "its stage table has %zu bytes; this library's has %zu: build it again",
			 offsetof(struct cairn_stage_ops, identify),
			 sizeof(struct cairn_stage_ops));
	else if (strcmp(wrongs[i].name, "abi_size") == 0)
		snprintf(what, sizeof(what),
			 "its stage table has 8 bytes; this library's has %zu: build it again",
			 sizeof(struct cairn_stage_ops));
	else
		snprintf(what, sizeof(what), "%s", wrongs[i].line);
	snprintf(buffer, bytes, "%s/%s.so: %s", folder, wrongs[i].name, what);
	return buffer;
}

static void what_is_wrong_is_said(void **state)
{
	struct cairn_error error;
	char line[1024], text[1024];

	(void)state;
	assert_int_equal(open_with("abi_good", &error), 0);
	/* Built for an older minor version: what its table lacks, it does without. */
	assert_int_equal(open_with("abi_older", &error), 0);
	for (size_t i = 0; i < WRONGS; i++) {
		assert_int_equal(open_with(wrongs[i].name, &error), -EPROTO);
		snprintf(text, sizeof(text), "line 2, column 2: %s",
			 line_of(i, line, sizeof(line)));
		assert_string_equal(error.text, text);
		assert_int_equal(error.code, -EPROTO);
		assert_int_equal(error.line, 2);
		assert_int_equal(error.column, 2);
	}
}

struct seen {
	size_t good, wrong;
	int stop_with;
};

static int see(void *context, const struct cairn_stage_info *stage)
{
	struct seen *seen = context;
	char line[1024];
	size_t i = 0;

	if (!stage->file) {
		assert_null(stage->error);
		return 0;
	}
	while (i < WRONGS && strcmp(wrongs[i].name, stage->name) != 0)
		i++;
	if (i == WRONGS) {
		if (strcmp(stage->name, "abi_older") != 0)
			assert_string_equal(stage->name, "abi_good");
		assert_null(stage->error);
		seen->good++;
		return 0;
	}
	assert_string_equal(stage->error, line_of(i, line, sizeof(line)));
	assert_int_equal(strncmp(stage->error, stage->file, strlen(stage->file)), 0);
	assert_string_equal(stage->summary, "");
	assert_int_equal(stage->option_count, 0);
	seen->wrong++;
	return seen->stop_with;
}

static void what_is_wrong_is_listed(void **state)
{
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = folder};
	struct cairn_error error = {0};
	struct seen seen = {0};

	(void)state;
	assert_int_equal(cairn_stages(&opts, see, &seen, &error), 0);
	assert_int_equal(seen.good, 2);
	assert_int_equal(seen.wrong, WRONGS);
	seen = (struct seen){.stop_with = -7};
	assert_int_equal(cairn_stages(&opts, see, &seen, &error), -7);
	assert_int_equal(seen.wrong, 1);
}

/* Files are meant, too. */
static void did_you_mean_a_file(void **state)
{
	struct cairn_error error;

	(void)state;
	assert_int_equal(open_with("abi_god", &error), -ENOENT);
	assert_string_equal(error.text, "line 2, column 2: no stage \"abi_god\"; did you mean "
					"\"abi_good\"?");
	assert_int_equal(open_with("nul", &error), -ENOENT);
	assert_non_null(strstr(error.text, "did you mean \"null\"?"));
	assert_int_equal(open_with("nothing_like_it", &error), -ENOENT);
	assert_non_null(strstr(error.text, folder));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_wrong_is_said),
		cmocka_unit_test(what_is_wrong_is_listed),
		cmocka_unit_test(did_you_mean_a_file),
	};

	folder = getenv("STAGES_ABI");
	assert_non_null(folder);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
