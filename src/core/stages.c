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

/* What a table of minor 0 has; later minors only add behind it. */
#define OPS_BYTES_MIN                                                                              \
	(offsetof(struct cairn_stage_ops, identify) +                                              \
	 sizeof(((struct cairn_stage_ops *)0)->identify))

static bool ops_bytes_fit(const struct cairn_stage_ops *ops)
{
	if (ops->abi_minor == CAIRN_STAGE_ABI_MINOR)
		return ops->size == sizeof(*ops);
	return ops->size >= OPS_BYTES_MIN && ops->size <= sizeof(*ops);
}

static int check_abi(const struct cairn_stage_ops *ops, const char *file,
		     struct cairn_error *reterr)
{
	if (ops->abi_major != CAIRN_STAGE_ABI_MAJOR || ops->abi_minor > CAIRN_STAGE_ABI_MINOR)
		return fail(reterr, -EPROTO,
			    "%s: built for stage ABI %u.%u; this library has %u.%u: build it again",
			    file, ops->abi_major, ops->abi_minor, CAIRN_STAGE_ABI_MAJOR,
			    CAIRN_STAGE_ABI_MINOR);
	if (!ops_bytes_fit(ops))
		return fail(
			reterr, -EPROTO,
			"%s: its stage table has %u bytes; this library's has %zu: build it again",
			file, ops->size, sizeof(*ops));
	if (ops->abi_minor >= 6 && ops->io_zeroed > ops->io_bytes)
		return fail(reterr, -EPROTO, "%s: its table has io_zeroed= %zu of io_bytes= %zu",
			    file, ops->io_zeroed, ops->io_bytes);
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

/* The name that a stage in @file must have: that of the file without its ".so". */
static int check_name(const struct cairn_stage_ops *ops, const char *file,
		      struct cairn_error *reterr)
{
	const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
	size_t length = strlen(base);

	length -= length > 3 ? 3 : 0;
	if (strlen(ops->name) == length && memcmp(ops->name, base, length) == 0)
		return 0;
	return fail(reterr, -EPROTO,
		    "%s: its stage is named \"%.64s\"; a file has its stage's name: \"%.64s.so\"",
		    file, ops->name, ops->name);
}

/* A table of an older minor is shorter: what it lacks is zero in a copy. */
static int fill_up(struct loaded_stage *stage, const char *file, struct cairn_error *reterr)
{
	if (stage->ops->size == sizeof(*stage->ops))
		return 0;
	stage->table = sys_zalloc(&sys_native, 16, sizeof(*stage->table));
	if (!stage->table)
		return fail(reterr, -ENOMEM, "%s: no memory for its table", file);
	memcpy(stage->table, stage->ops, stage->ops->size);
	stage->ops = stage->table;
	return 0;
}

static const char *load_error(const char *file)
{
	const char *text = dlerror();
	size_t length = strlen(file);

	if (!text)
		return "no reason given";
	return strncmp(text, file, length) == 0 && strncmp(text + length, ": ", 2) == 0
		       ? text + length + 2
		       : text;
}

int stage_open_file(const char *file, struct loaded_stage *ret_stage, struct cairn_error *reterr)
{
	void *module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	const struct cairn_stage_ops *ops;
	int ret;

	if (!module)
		return fail(reterr, -EPROTO, "%s: not loadable: %s", file, load_error(file));
	ops = dlsym(module, "cairn_stage");
	if (!ops) {
		dlclose(module);
		return fail(reterr, -EPROTO,
			    "%s: has no symbol \"cairn_stage\": not a stage of this library", file);
	}
	ret = check_abi(ops, file, reterr);
	if (ret == 0)
		ret = check_name(ops, file, reterr);
	*ret_stage = (struct loaded_stage){.ops = ops, .module = module};
	if (ret == 0)
		ret = fill_up(ret_stage, file, reterr);
	if (ret < 0)
		stage_unload(ret_stage);
	return ret;
}

struct folder_walk {
	const char *folder;
	stage_file_fn *fn;
	void *context;
	int ret; /* of @fn */
};

static int tell_stage(void *context, const char *name)
{
	struct folder_walk *walk = context;
	size_t length = strlen(name);

	if (length <= 3 || strcmp(name + length - 3, ".so") != 0)
		return 0;
	walk->ret = walk->fn(walk->context, walk->folder, name);
	return walk->ret;
}

/* The .so files of one folder. */
static int each_in_folder(const char *folder, stage_file_fn *fn, void *context)
{
	struct folder_walk walk = {folder, fn, context, 0};
	int dir = sys_open_dir(&sys_native, AT_FDCWD, folder);

	if (dir < 0)
		return 0;
	sys_walk_dir(&sys_native, dir, tell_stage, &walk);
	sys_native.close(dir);
	return walk.ret; /* what can be read of it is what there is */
}

int stage_files_each(const char *path, stage_file_fn *fn, void *context)
{
	int ret = 0;

	while (ret == 0 && *path) {
		size_t length = strcspn(path, ":");
		char folder[4096];

		snprintf(folder, sizeof(folder), "%.*s", (int)length, path);
		ret = each_in_folder(folder, fn, context);
		path += length + (path[length] == ':');
	}
	return ret;
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

#define FILES_HINTED_MAX 32u

/* Names to choose the closest from. */
struct hint {
	const char *names[1 + CAIRN_STAGES_LINKED_MAX + FILES_HINTED_MAX];
	size_t count, files;
	char texts[FILES_HINTED_MAX][64];
};

static int hint_file(void *context, const char *folder, const char *name)
{
	struct hint *hint = context;
	char *text = hint->texts[hint->files];

	(void)folder;
	snprintf(text, sizeof(hint->texts[0]), "%.*s", (int)strlen(name) - 3, name);
	hint->names[hint->count++] = text;
	return ++hint->files == FILES_HINTED_MAX;
}

static int unknown_stage(const char *name, const char *path, struct cairn_error *reterr)
{
	struct hint hint = {.names = {"store"}, .count = 1};
	const char *close;

	for (size_t i = 0; i < stages_linked_count && i < CAIRN_STAGES_LINKED_MAX; i++)
		hint.names[hint.count++] = stages_linked[i]->name;
	stage_files_each(path, hint_file, &hint);
	close = spec_closest(name, hint.names, hint.count);
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
	sys_native.free(stage->table);
	if (stage->module)
		dlclose(stage->module);
	*stage = (struct loaded_stage){0};
}
