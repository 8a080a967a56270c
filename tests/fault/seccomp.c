/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where io_uring is forbidden, as the default profiles of containers do it: the
 * store opens with libaio and says why, and the conformance program passes, and
 * so does the one of lone loads. Where libaio only seems to be there, it opens with threads.
 */
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

static const struct kit_shape shape = {3, 30000};

/* As the conformance suite has it; all that one run leaves is read by the next. */
#define FLASH_OPTIONS "size=256MiB, region=16MiB"

static bool forbid_rings(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	bool done;

	if (!filter)
		return false;
	done = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0) == 0 &&
	       seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_enter), 0) == 0 &&
	       seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_register), 0) ==
		       0 &&
	       seccomp_load(filter) == 0;
	seccomp_release(filter);
	return done;
}

static void use_store(const char *path)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_error error = {0};
	struct cairn_store *store;
	struct cairn_namespace *ns;
	char spec[512], tier[256];
	bool built;

	kit_tier(tier, sizeof(tier), path, "", "size=64MiB");
	snprintf(spec, sizeof(spec), "store(engine=uring) | %s", tier);
	CHECK(cairn_store_open(spec, NULL, &store, &error) < 0, "io_uring was to be had");
	CHECK(strstr(error.text, "engine=auto"), "%s", error.text);
	built = !strstr(error.text, "built without");
	CHECK(cairn_store_open(tier, NULL, &store, &error) == 0, "%s", error.text);
	CHECK(cairn_stat(store, &st) == 0);
	CHECK(strcmp(st.engine, "aio") == 0, "%s", st.engine);
	CHECK(strstr(st.engine_note, built ? strerror(EPERM) : "built without io_uring") &&
		      strstr(st.engine_note, "io_uring"),
	      "%s", st.engine_note);
	CHECK(kit_namespace(store, "seccomp", shape, &ns) == 0);
	for (uint64_t id = 1; id < 50; id++)
		CHECK(kit_dump(ns, shape, id, 0, shape.shards, CAIRN_WRITTEN) == 0);
	for (uint64_t id = 1; id < 50; id++)
		CHECK(kit_load(ns, shape, id) == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	printf("seccomp: engine %s, since %s\n", st.engine, st.engine_note);
}

/* Every io_setup() says yes, and makes nothing: as with a kernel of which not all is there. */
static bool pretend_aio(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	bool done;

	if (!filter)
		return false;
	done = seccomp_rule_add(filter, SCMP_ACT_ERRNO(0), SCMP_SYS(io_setup), 0) == 0 &&
	       seccomp_load(filter) == 0;
	seccomp_release(filter);
	return done;
}

/* In a child, whose filter goes with it. */
static void use_without_aio(const char *path)
{
	struct cairn_stat st = {.size = sizeof(st)};
	struct cairn_error error = {0};
	struct cairn_store *store;
	struct cairn_namespace *ns;
	char tier[256];
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid > 0) {
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "ended %x", status);
		return;
	}
	if (!pretend_aio())
		_exit(0);
	kit_tier(tier, sizeof(tier), path, "", "size=64MiB");
	CHECK(cairn_store_open(tier, NULL, &store, &error) == 0, "%s", error.text);
	CHECK(cairn_stat(store, &st) == 0);
	CHECK(strcmp(st.engine, "psync") == 0, "%s", st.engine);
	CHECK(kit_namespace(store, "seccomp", shape, &ns) == 0);
	CHECK(kit_dump(ns, shape, 50, 0, shape.shards, CAIRN_WRITTEN) == 0);
	CHECK(kit_load(ns, shape, 50) == 0);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	printf("seccomp: engine %s, since %s\n", st.engine, st.engine_note);
	fflush(stdout);
	_exit(0);
}

/* Under the filter, which lasts. @argument: NULL for none. */
static void run_program(const char *program, const char *argument)
{
	int status;
	pid_t pid;

	if (!program)
		return;
	kit_watch(120);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		execl(program, program, argument, (char *)NULL);
		_exit(127);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s \"%s\" ended %x", program,
	      argument ? argument : "", status);
}

int main(int argc, char **argv)
{
	char path[128], spec[512], stage[64];

	kit_init(argc, argv);
	kit_folder(path, sizeof(path), "seccomp");
	kit_watch(60);
	if (!forbid_rings()) {
		printf("skipped: no seccomp filter can be loaded here\n");
		kit_remove_folder(path);
		return KIT_SKIP;
	}
	use_store(path);
	if (kit_threads_after_fork())
		use_without_aio(path);
	kit_remove_folder(path);
	kit_folder(path, sizeof(path), "seccomp");
	kit_tier(spec, sizeof(spec), path, "", FLASH_OPTIONS);
	run_program(kit_text("conformance", NULL), spec);
	snprintf(stage, sizeof(stage), "--stage=%s", kit_stage());
	run_program(kit_text("lone", NULL), stage);
	kit_remove_folder(path);
	return 0;
}
