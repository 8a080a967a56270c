/* SPDX-License-Identifier: Apache-2.0 */
/* A store at rest, and what this build has: pipelines that are read, not opened. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/counters.h"
#include "core/grammar.h"
#include "core/pipeline.h"
#include "core/settings.h"
#include "core/stages.h"
#include "stages/stages.h"

/* A store of levels only. */
static int at_rest(const char *spec, const struct cairn_store_opts *opts,
		   struct cairn_store **ret_store, struct cairn_error *reterr)
{
	struct cairn_store *store = store_new(&sys_native);
	int ret;

	if (!store)
		return fail(reterr, -ENOMEM, "no memory");
	*ret_store = store;
	ret = pipeline_resolve(store, spec, opts, reterr);
	return ret;
}

static void end_rest(struct cairn_store *store)
{
	if (!store)
		return;
	pipeline_fini(store);
	store->sys->free(store);
}

/* The caller's function, and what it ended the walk with: a stage's own return is a count too. */
struct listing {
	int (*fn)(void *context, const struct cairn_listed *block);
	void *context;
	int stopped;
};

static int list_one(void *context, const struct cairn_listed *block)
{
	struct listing *listing = context;

	listing->stopped = listing->fn(listing->context, block);
	return listing->stopped ? 1 : 0;
}

int64_t cairn_list(const char *spec, const struct cairn_store_opts *opts,
		   int (*fn)(void *context, const struct cairn_listed *block), void *context,
		   uint64_t *ret_missed, struct cairn_error *reterr)
{
	struct listing listing = {.fn = fn, .context = context};
	struct cairn_store *store = NULL;
	uint64_t missed = 0;
	int64_t count = 0, ret = at_rest(spec, opts, &store, reterr);

	if (ret == 0 && !fn)
		ret = fail(reterr, -EINVAL, "cairn_list: no function to call");
	for (uint32_t i = 0; ret >= 0 && store && !listing.stopped && i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		uint64_t more = 0;

		if (!level->ops->list)
			continue;
		ret = level->ops->list(&level->env, list_one, &listing, &more, reterr);
		missed += more;
		count += ret > 0 ? ret : 0;
	}
	end_rest(store);
	if (ret_missed)
		*ret_missed = missed;
	if (listing.stopped)
		return listing.stopped;
	return ret < 0 ? ret : count;
}

/* Of each level, check() or, where there is one, repair(): the worst of all, or an error. */
static int check_levels(struct cairn_store *store, bool repair,
			int (*fn)(void *context, const struct cairn_finding *finding),
			void *context, struct cairn_error *reterr)
{
	int worst = 0, ret = 0;

	for (uint32_t i = 0; ret >= 0 && i < store->level_count; i++) {
		struct level *level = &store->levels[i];

		if (repair && level->ops->repair)
			ret = level->ops->repair(&level->env, fn, context, reterr);
		else if (level->ops->check)
			ret = level->ops->check(&level->env, fn, context, reterr);
		else
			continue;
		if (ret > worst)
			worst = ret;
	}
	return ret < 0 ? ret : worst;
}

int cairn_check(const char *spec, const struct cairn_store_opts *opts,
		int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		struct cairn_error *reterr)
{
	struct cairn_store *store = NULL;
	int ret = at_rest(spec, opts, &store, reterr);

	if (ret == 0 && !fn)
		ret = fail(reterr, -EINVAL, "cairn_check: no function to call");
	if (ret == 0 && store)
		ret = check_levels(store, false, fn, context, reterr);
	end_rest(store);
	return ret;
}

int cairn_repair(const char *spec, const struct cairn_store_opts *opts,
		 int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		 struct cairn_error *reterr)
{
	struct cairn_store *store = NULL;
	int ret = at_rest(spec, opts, &store, reterr);

	if (ret == 0 && !fn)
		ret = fail(reterr, -EINVAL, "cairn_repair: no function to call");
	if (ret == 0 && store)
		ret = check_levels(store, true, fn, context, reterr);
	end_rest(store);
	return ret;
}

/* As identify() of it says. */
static bool uuid_at_rest(const struct cairn_stage_env *env, uint8_t ret_uuid[16])
{
	const struct cairn_store *store = store_of_env(env);
	bool found = false;

	memset(ret_uuid, 0, 16);
	for (uint32_t i = env->index + 1; i < store->level_count; i++) {
		const struct level *level = &store->levels[i];

		if (!(level->ops->flags & CAIRN_STAGE_TIER))
			continue;
		found = true;
		if (!level->ops->identify ||
		    level->ops->identify(&level->env, ret_uuid, &(struct cairn_error){0}) < 0)
			memset(ret_uuid, 0, 16);
	}
	return found;
}

int cairn_inspect(const char *spec, const struct cairn_store_opts *opts, uint64_t region,
		  int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		  struct cairn_error *reterr)
{
	struct cairn_store *store = NULL;
	int ret = at_rest(spec, opts, &store, reterr);
	bool any = false, of_memory = region == CAIRN_INSPECT_MEMORY;

	if (ret == 0 && !fn)
		ret = fail(reterr, -EINVAL, "cairn_inspect: no function to call");
	for (uint32_t i = 0; ret == 0 && store && i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		bool persists = (level->ops->flags & CAIRN_STAGE_PERSISTS) != 0;

		if (!level->ops->inspect || of_memory == persists)
			continue;
		level->internal.uuid_below = uuid_at_rest;
		any = true;
		ret = level->ops->inspect(&level->env, region, fn, context, reterr);
	}
	if (ret == 0 && !any)
		ret = fail(reterr, -EOPNOTSUPP, "no tier of this pipeline can be looked into");
	end_rest(store);
	return ret;
}

/* @name is that of the public call, for its errors. */
static int read_live(const char *name, const char *spec, const struct cairn_store_opts *opts,
		     const struct counters_reader *reader, struct cairn_live *live,
		     struct cairn_error *reterr)
{
	struct cairn_store *store = NULL;
	uint8_t uuid[16] = {0};
	int ret = at_rest(spec, opts, &store, reterr);

	if (ret == 0 && !reader->counter && !reader->latency)
		ret = fail(reterr, -EINVAL, "%s: no function to call", name);
	if (ret == 0 && live && (live->size < sizeof(size_t) || live->size > 65536))
		ret = fail(reterr, -EINVAL, "%s: size is not set", name);
	if (ret == 0) {
		struct level *level;

		assert(store != NULL);
		level = &store->levels[store->tier_bottom];
		ret = level->ops->identify
			      ? level->ops->identify(&level->env, uuid, reterr)
			      : fail(reterr, -ENOENT, "%s keeps nothing that could be found",
				     level->name);
		if (ret >= 0)
			ret = counters_read_live(store, uuid, ret, reader, live, reterr);
	}
	end_rest(store);
	return ret;
}

int cairn_live_counters(const char *spec, const struct cairn_store_opts *opts,
			int (*fn)(void *context, const struct cairn_counter *counter),
			void *context, struct cairn_live *live, struct cairn_error *reterr)
{
	const struct counters_reader reader = {.counter = fn, .context = context};

	return read_live("cairn_live_counters", spec, opts, &reader, live, reterr);
}

int cairn_live_figures(const char *spec, const struct cairn_store_opts *opts,
		       int (*counter)(void *context, const struct cairn_counter *counter),
		       int (*latency)(void *context, const struct cairn_latency *latency),
		       void *context, struct cairn_live *live, struct cairn_error *reterr)
{
	const struct counters_reader reader = {
		.counter = counter, .latency = latency, .context = context};

	return read_live("cairn_live_figures", spec, opts, &reader, live, reterr);
}

/* ---- what this build has ------------------------------------------------------ */

static const char *type_name(enum cairn_option_type type)
{
	static const char *const names[] = {
		[CAIRN_OPTION_SIZE] = "size",	[CAIRN_OPTION_TIME] = "time",
		[CAIRN_OPTION_COUNT] = "count", [CAIRN_OPTION_NUMBER] = "number",
		[CAIRN_OPTION_BOOL] = "yes|no", [CAIRN_OPTION_CHOICE] = "choice",
		[CAIRN_OPTION_TEXT] = "text",	[CAIRN_OPTION_PATH] = "path",
	};

	return (size_t)type < sizeof(names) / sizeof(names[0]) ? names[type] : "?";
}

#define OPTIONS_SHOWN_MAX 64u

static int tell_stage(struct cairn_stage_info *info, const struct cairn_option *rows,
		      uint32_t count,
		      int (*fn)(void *context, const struct cairn_stage_info *stage), void *context)
{
	struct cairn_option_info options[OPTIONS_SHOWN_MAX];

	if (count > OPTIONS_SHOWN_MAX)
		count = OPTIONS_SHOWN_MAX;
	for (uint32_t i = 0; i < count; i++)
		options[i] = (struct cairn_option_info){
			.name = rows[i].name,
			.type = rows[i].choices ? rows[i].choices : type_name(rows[i].type),
			.help = rows[i].help ? rows[i].help : "",
			.preset = rows[i].preset ? rows[i].preset : "",
			.min = rows[i].min ? rows[i].min : "",
			.max = rows[i].max ? rows[i].max : "",
			.required = (rows[i].flags & CAIRN_OPTION_REQUIRED) != 0,
		};
	info->options = options;
	info->option_count = count;
	return fn(context, info);
}

static int tell_ops(const struct cairn_stage_ops *ops, const char *file,
		    int (*fn)(void *context, const struct cairn_stage_info *stage), void *context)
{
	struct cairn_stage_info info = {
		.name = ops->name,
		.summary = ops->summary,
		.file = file,
		.tier = (ops->flags & CAIRN_STAGE_TIER) != 0,
	};

	return tell_stage(&info, ops->options, ops->option_count, fn, context);
}

struct telling {
	int (*fn)(void *context, const struct cairn_stage_info *stage);
	void *context;
};

/* One that does not load is told of too, with the reason. */
static int tell_file(void *context, const char *folder, const char *name)
{
	const struct telling *telling = context;
	struct loaded_stage stage;
	struct cairn_error error = {0};
	char file[8192], stem[256];
	int ret;

	snprintf(file, sizeof(file), "%.4095s/%s", folder, name);
	if (stage_open_file(file, &stage, &error) < 0) {
		struct cairn_stage_info info = {
			.name = stem, .summary = "", .file = file, .error = error.text};

		snprintf(stem, sizeof(stem), "%.*s", (int)strlen(name) - 3, name);
		return telling->fn(telling->context, &info);
	}
	ret = tell_ops(stage.ops, file, telling->fn, telling->context);
	stage_unload(&stage);
	return ret;
}

int cairn_stages(const struct cairn_store_opts *opts,
		 int (*fn)(void *context, const struct cairn_stage_info *stage), void *context,
		 struct cairn_error *reterr)
{
	struct cairn_stage_info info = {
		.name = "store", .summary = "what belongs to no stage; stands first, or nowhere"};
	uint32_t count;
	const struct cairn_option *rows = settings_rows(&count);
	struct telling telling = {fn, context};
	int ret;

	if (!fn)
		return fail(reterr, -EINVAL, "cairn_stages: no function to call");
	ret = pipeline_check_opts(opts, reterr);
	if (ret < 0)
		return ret;
	ret = tell_stage(&info, rows, count, fn, context);
	for (size_t i = 0; ret == 0 && i < stages_linked_count; i++)
		ret = tell_ops(stages_linked[i], NULL, fn, context);
	return ret ? ret : stage_files_each(stage_path(opts), tell_file, &telling);
}

int cairn_compositions(int (*fn)(void *context, const char *name, const char *spec,
				 const char *help),
		       void *context)
{
	return fn ? compositions_each(fn, context) : -EINVAL;
}

int cairn_pipeline_define(const char *name, const char *spec, struct cairn_error *reterr)
{
	if (!name || !spec)
		return fail(reterr, -EINVAL, "a composition needs a name and a pipeline");
	return compositions_define(&sys_native, name, spec, reterr);
}

int cairn_pipeline_define_file(const char *path, struct cairn_error *reterr)
{
	if (!path)
		return fail(reterr, -EINVAL, "no file named");
	return compositions_define_file(&sys_native, path, reterr);
}
