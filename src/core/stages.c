/* SPDX-License-Identifier: Apache-2.0 */
/* Stages by name: linked in, or a .so in the search path. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/grammar.h"
#include "core/settings.h"
#include "core/stages.h"
#include "stages/stages.h"

const char *stage_path(const struct cairn_store_opts *opts)
{
	const char *path = opts && opts->stage_path ? opts->stage_path : getenv("CAIRN_STAGE_PATH");

	return path ? path : CAIRN_STAGE_DIR;
}

static int check_abi(const struct cairn_stage_ops *ops, const char *file,
		     struct cairn_error *reterr)
{
	if (ops->abi_major != CAIRN_STAGE_ABI_MAJOR || ops->abi_minor > CAIRN_STAGE_ABI_MINOR)
		return fail(reterr, -EPROTO,
			    "%s: built for stage ABI %u.%u; this library has %u.%u: build it again",
			    file, ops->abi_major, ops->abi_minor, CAIRN_STAGE_ABI_MAJOR,
			    CAIRN_STAGE_ABI_MINOR);
	if (ops->size != sizeof(*ops))
		return fail(
			reterr, -EPROTO,
			"%s: its stage table has %u bytes; this library's has %zu: build it again",
			file, ops->size, sizeof(*ops));
	if (!ops->name || !ops->summary || !ops->open || !ops->close || !ops->submit)
		return fail(reterr, -EPROTO,
			    "%s: its table lacks name, summary, open, close or submit", file);
	if ((ops->flags & CAIRN_STAGE_TIER) &&
	    (!ops->bind || !ops->clear || !ops->lookup || !ops->unhold || !ops->stat))
		return fail(reterr, -EPROTO,
			    "%s: a tier, and its table lacks bind, clear, lookup, unhold or stat",
			    file);
	return 0;
}

int stage_open_file(const char *file, struct loaded_stage *ret_stage, struct cairn_error *reterr)
{
	void *module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	const struct cairn_stage_ops *ops;
	int ret;

	if (!module)
		return fail(reterr, -EPROTO, "%s: not loadable: %s", file, dlerror());
	ops = dlsym(module, "cairn_stage");
	if (!ops)
		ret = fail(reterr, -EPROTO,
			   "%s: has no symbol \"cairn_stage\": not a stage of this library", file);
	else
		ret = check_abi(ops, file, reterr);
	if (ret < 0) {
		dlclose(module);
		return ret;
	}
	*ret_stage = (struct loaded_stage){.ops = ops, .module = module};
	return 0;
}

/* Writes "FOLDER/NAME.so" for the @nth folder of the path; false when there are no more. */
static bool nth_file(const char *path, int nth, const char *name, char *ret_file, size_t bytes)
{
	for (int i = 0; i < nth; i++) {
		path = strchr(path, ':');
		if (!path)
			return false;
		path++;
	}
	if (*path == '\0')
		return false;
	snprintf(ret_file, bytes, "%.*s/%s.so", (int)strcspn(path, ":"), path, name);
	return true;
}

static int unknown_stage(const char *name, const char *path, struct cairn_error *reterr)
{
	const char *names[CAIRN_STAGES_LINKED_MAX + 1] = {"store"};
	const char *close;
	size_t n = 1;

	for (size_t i = 0; i < stages_linked_count && n <= CAIRN_STAGES_LINKED_MAX; i++)
		names[n++] = stages_linked[i]->name;
	close = spec_closest(name, names, n);
	if (close)
		return fail(reterr, -ENOENT, "no stage \"%s\"; did you mean \"%s\"?", name, close);
	return fail(reterr, -ENOENT,
		    "no stage \"%s\" is built in, and none of that name lies in %s", name, path);
}

int stage_load(const struct cairn_store_opts *opts, const char *name,
	       struct loaded_stage *ret_stage, struct cairn_error *reterr)
{
	const char *path = stage_path(opts);
	char file[4096];

	for (size_t i = 0; i < stages_linked_count; i++) {
		if (strcmp(stages_linked[i]->name, name) != 0)
			continue;
		*ret_stage = (struct loaded_stage){.ops = stages_linked[i]};
		return 0;
	}
	for (int i = 0; nth_file(path, i, name, file, sizeof(file)); i++) {
		int probe = sys_native.openat(AT_FDCWD, file, O_RDONLY | O_CLOEXEC, 0);

		if (probe == -ENOENT || probe == -ENOTDIR)
			continue;
		if (probe < 0)
			return fail(reterr, -EPROTO, "%s: not readable: %s", file,
				    strerror(-probe));
		sys_native.close(probe);
		return stage_open_file(file, ret_stage, reterr);
	}
	return unknown_stage(name, path, reterr);
}

void stage_unload(struct loaded_stage *stage)
{
	if (stage->module)
		dlclose(stage->module);
	*stage = (struct loaded_stage){0};
}
