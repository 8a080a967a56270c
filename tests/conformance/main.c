/* SPDX-License-Identifier: Apache-2.0 */
/* cairn-conformance: runs the cases on a pipeline, each in a process of its own. */
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conformance.h"

#define CASE_SECONDS 120
#define MAX_BYTES    (512ull << 20)
#define SMALL_BYTES  (1ull << 20) /* what a case needs that says nothing */

static const struct case_list *const lists[] = {
	&cases_keys,	  &cases_blocks, &cases_parts,	 &cases_tasks, &cases_limits,
	&cases_arguments, &cases_memory, &cases_threads, &cases_store,
};

static const char usage[] =
	"usage: cairn-conformance [options] PIPELINE\n"
	"Tries on the pipeline what every pipeline must do, for example\n"
	"  cairn-conformance \"posix(path=/tmp/kv)\"\n"
	"\n"
	"  --list               names the cases and ends\n"
	"  --only TEXT          cases whose name holds TEXT\n"
	"  --json               one object on standard output, and nothing else\n"
	"  --tolerate-errors    any call may fail, as under fault(...); wrong bytes never\n"
	"  --reopen             the pipeline must keep what it has over a close\n"
	"  --max-bytes BYTES    what one case may put into the store (536870912)\n"
	"  --case-seconds N     what one case may take (120)\n"
	"  --no-fork            all cases in this process, for a debugger\n"
	"Status: 0 all passed, 1 a case failed, 2 usage, or the pipeline cannot be opened.\n";

struct outcome {
	int verdict; /* enum verdict */
	char why[WHY_MAX];
};

struct tally {
	unsigned passed, failed, skipped, shown;
};

/* ---- one case -------------------------------------------------------------------- */

static uint64_t room_for(struct ctx *ctx)
{
	struct cairn_stat st = {.size = sizeof(st)};

	return cairn_stat(ctx->store, &st) == 0 ? st.bytes_limit : 0;
}

static enum verdict run_on_store(struct ctx *ctx, const struct test_case *test)
{
	uint64_t needs = test->needs_bytes ? test->needs_bytes : SMALL_BYTES;
	enum verdict verdict;

	if (needs > ctx->suite->max_bytes)
		return ctx_skip(ctx, "needs more than --max-bytes");
	if (ctx_open(ctx, NULL) < 0)
		return CASE_FAILED;
	if (room_for(ctx) < needs)
		return ctx_skip(ctx, "the store is too small for it");
	verdict = test->run(ctx);
	/* Leaves nothing behind that others would have to evict. */
	if (ctx->fixed)
		cairn_clear(ctx->fixed, CAIRN_MEMORY);
	if (ctx->variable)
		cairn_clear(ctx->variable, CAIRN_MEMORY);
	return verdict;
}

static void run_case(const struct suite *suite, const struct test_case *test,
		     struct outcome *ret_outcome)
{
	struct ctx *ctx = calloc(1, sizeof(*ctx));
	uint32_t i;
	int ret;

	if (!ctx)
		exit(3);
	ctx->suite = suite;
	ctx->name = test->name;
	if (test->flags & CASE_OWN_STORE)
		ret_outcome->verdict = (int)test->run(ctx);
	else
		ret_outcome->verdict = (int)run_on_store(ctx, test);
	ret = ctx_close(ctx);
	if (ret < 0 && ret_outcome->verdict != CASE_FAILED) {
		ret_outcome->verdict = CASE_FAILED;
		snprintf(ctx->why, sizeof(ctx->why), "cairn_store_close() gave %s",
			 status_text(ret));
	}
	memcpy(ret_outcome->why, ctx->why, sizeof(ctx->why));
	for (i = 0; ret == 0 && i < ctx->memory_count; i++)
		free(ctx->memory[i]);
	free(ctx);
}

static void not_ended(struct outcome *outcome, const char *what, int number)
{
	outcome->verdict = CASE_FAILED;
	snprintf(outcome->why, sizeof(outcome->why), "%s %d", what, number);
}

/* Waits for the child's outcome, or ends it. */
static void collect(const struct suite *suite, pid_t child, int fd, struct outcome *ret_outcome)
{
	struct pollfd waited = {.fd = fd, .events = POLLIN};
	int timeout_ms = (int)(suite->case_ns / MS), status = 0;
	bool ended, whole = false;

	do
		ended = poll(&waited, 1, timeout_ms) > 0;
	while (!ended && errno == EINTR);
	if (ended)
		whole = read(fd, ret_outcome, sizeof(*ret_outcome)) ==
			(ssize_t)sizeof(*ret_outcome);
	else
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!ended)
		not_ended(ret_outcome,
			  "it did not end; seconds waited:", (int)(suite->case_ns / SECOND));
	else if (WIFSIGNALED(status))
		not_ended(ret_outcome, "it was ended by signal", WTERMSIG(status));
	else if (!whole || WEXITSTATUS(status) != 0)
		not_ended(ret_outcome, "its process ended with status", WEXITSTATUS(status));
}

static void run_apart(const struct suite *suite, const struct test_case *test,
		      struct outcome *ret_outcome)
{
	int fds[2];
	pid_t child;

	fflush(NULL);
	if (pipe(fds) < 0) {
		not_ended(ret_outcome, "no pipe: errno", errno);
		return;
	}
	child = fork();
	if (child < 0) {
		not_ended(ret_outcome, "no process: errno", errno);
	} else if (child == 0) {
		close(fds[0]);
		run_case(suite, test, ret_outcome);
		if (write(fds[1], ret_outcome, sizeof(*ret_outcome)) < 0)
			exit(3);
		exit(0);
	}
	close(fds[1]);
	if (child > 0)
		collect(suite, child, fds[0], ret_outcome);
	close(fds[0]);
}

/* ---- output ------------------------------------------------------------------------ */

static void print_json_text(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			printf("\\u%04x", (unsigned char)*text);
		else
			putchar(*text);
	}
	putchar('"');
}

static void report(const struct suite *suite, struct tally *tally, const struct test_case *test,
		   const struct outcome *outcome, uint64_t took_ns)
{
	static const char *const words[] = {"ok", "FAILED", "skipped"};

	tally->passed += outcome->verdict == CASE_PASSED;
	tally->failed += outcome->verdict == CASE_FAILED;
	tally->skipped += outcome->verdict == CASE_SKIPPED;
	if (!suite->json) {
		printf("%-8s%-24s%6.2f s%s%s\n", words[outcome->verdict], test->name,
		       (double)took_ns / 1e9, outcome->why[0] ? "  " : "", outcome->why);
		fflush(stdout);
		return;
	}
	printf("%s{\"name\": \"%s\", \"result\": \"%s\", \"seconds\": %.3f, \"why\": ",
	       tally->shown++ ? ", " : "", test->name, words[outcome->verdict],
	       (double)took_ns / 1e9);
	print_json_text(outcome->why);
	putchar('}');
}

static void run_list(const struct suite *suite, const struct case_list *list, struct tally *tally)
{
	struct outcome outcome;
	uint64_t start_ns;
	size_t i;

	for (i = 0; i < list->count; i++) {
		const struct test_case *test = &list->cases[i];

		if (suite->only && !strstr(test->name, suite->only))
			continue;
		if (suite->list) {
			printf("%-24s%s\n", test->name, test->what);
			continue;
		}
		memset(&outcome, 0, sizeof(outcome));
		start_ns = clock_ns();
		if (suite->tolerate && !(test->flags & CASE_TOLERANT)) {
			outcome.verdict = CASE_SKIPPED;
			snprintf(outcome.why, sizeof(outcome.why), "needs calls that succeed");
		} else if (suite->in_process) {
			run_case(suite, test, &outcome);
		} else {
			run_apart(suite, test, &outcome);
		}
		report(suite, tally, test, &outcome, clock_ns() - start_ns);
	}
}

static int run_all(const struct suite *suite)
{
	struct tally tally = {0};
	size_t i;

	if (suite->json && !suite->list) {
		printf("{\"pipeline\": ");
		print_json_text(suite->pipeline);
		printf(", \"cases\": [");
	}
	for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		run_list(suite, lists[i], &tally);
	if (suite->list)
		return 0;
	if (suite->json)
		printf("], \"passed\": %u, \"failed\": %u, \"skipped\": %u}\n", tally.passed,
		       tally.failed, tally.skipped);
	else
		printf("%u passed, %u failed, %u skipped\n", tally.passed, tally.failed,
		       tally.skipped);
	return tally.failed > 0 || tally.passed + tally.skipped == 0;
}

/* A pipeline that nobody can open is one line, not a failure of each case. */
static int try_open(const struct suite *suite)
{
	struct cairn_error error = {0};
	struct cairn_store *store;
	int rc = cairn_store_open(suite->pipeline, NULL, &store, &error);

	if (rc == 0)
		rc = cairn_store_close(store, 0);
	if (rc < 0)
		fprintf(stderr, "cairn-conformance: %s\n",
			*error.text ? error.text : cairn_strerror(rc));
	return rc < 0 ? 2 : 0;
}

/* In a process of its own: what the library leaves behind must not reach the cases. */
static int try_open_apart(const struct suite *suite)
{
	int status = 0;
	pid_t child;

	if (suite->in_process)
		return try_open(suite);
	child = fork();
	if (child == 0)
		_exit(try_open(suite));
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	/* What ends by a signal here will do so in a case too, and be named there. */
	return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

/* ---- the command line ----------------------------------------------------------------- */

static int wrong_usage(const char *what, const char *argument)
{
	fprintf(stderr, "cairn-conformance: %s%s%s; see --help\n", what, argument ? ": " : "",
		argument ? argument : "");
	return 2;
}

static bool parse_number(const char *text, uint64_t *ret_number)
{
	char *end;

	errno = 0;
	*ret_number = strtoull(text, &end, 10);
	return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && *ret_number > 0;
}

enum {
	OPT_LIST = 256,
	OPT_ONLY,
	OPT_JSON,
	OPT_TOLERATE,
	OPT_REOPEN,
	OPT_MAX,
	OPT_SECONDS,
	OPT_HERE
};

static const struct option options[] = {
	{"list", no_argument, NULL, OPT_LIST},
	{"only", required_argument, NULL, OPT_ONLY},
	{"json", no_argument, NULL, OPT_JSON},
	{"tolerate-errors", no_argument, NULL, OPT_TOLERATE},
	{"reopen", no_argument, NULL, OPT_REOPEN},
	{"max-bytes", required_argument, NULL, OPT_MAX},
	{"case-seconds", required_argument, NULL, OPT_SECONDS},
	{"no-fork", no_argument, NULL, OPT_HERE},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* 0, or what to exit with, plus one. */
static int take_option(struct suite *suite, int option, const char *argument)
{
	uint64_t number;

	switch (option) {
	case OPT_LIST:
		suite->list = true;
		return 0;
	case OPT_ONLY:
		suite->only = argument;
		return 0;
	case OPT_JSON:
		suite->json = true;
		return 0;
	case OPT_TOLERATE:
		suite->tolerate = true;
		return 0;
	case OPT_REOPEN:
		suite->reopen = true;
		return 0;
	case OPT_HERE:
		suite->in_process = true;
		return 0;
	case OPT_MAX:
	case OPT_SECONDS:
		if (!parse_number(argument, &number) || (option == OPT_SECONDS && number > 86400))
			return 1 + wrong_usage("not a whole number above 0", argument);
		if (option == OPT_MAX)
			suite->max_bytes = number;
		else
			suite->case_ns = number * SECOND;
		return 0;
	case 'h':
		fputs(usage, stdout);
		return 1;
	default:
		return 1 + 2; /* getopt has said what */
	}
}

/* @status, if what was said went where it should. */
static int all_written(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "cairn-conformance: stdout: could not write everything\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct suite suite = {.max_bytes = MAX_BYTES, .case_ns = CASE_SECONDS * SECOND};
	int option, end;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		end = take_option(&suite, option, optarg);
		if (end > 0)
			return end - 1;
	}
	suite.run_id = clock_ns() ^ ((uint64_t)getpid() << 40);
	if (!suite.list && optind + 1 != argc)
		return wrong_usage(optind < argc ? "more than one pipeline" : "no pipeline given",
				   NULL);
	suite.pipeline = optind < argc ? argv[optind] : "";
	end = suite.list ? 0 : try_open_apart(&suite);
	return end ? end : all_written(run_all(&suite));
}
