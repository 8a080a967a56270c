/* SPDX-License-Identifier: Apache-2.0 */
/* From a pipeline's text to levels that are ready to be opened, or read at rest. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "core/grammar.h"
#include "core/pipeline.h"
#include "core/settings.h"
#include "core/stages.h"

struct rows_context {
	const struct cairn_store_opts *opts;
	struct loaded_stage loaded[CAIRN_STAGES_MAX * 2];
	uint32_t count;
};

static const struct cairn_option *rows_of(void *context, const char *name, uint32_t *ret_count)
{
	struct rows_context *rows = context;
	struct loaded_stage stage;

	if (strcmp(name, "store") == 0)
		return settings_rows(ret_count);
	if (rows->count == CAIRN_STAGES_MAX * 2 || stage_load(rows->opts, name, &stage, NULL) < 0)
		return NULL;
	rows->loaded[rows->count++] = stage;
	*ret_count = stage.ops->option_count;
	return stage.ops->options;
}

static int at(struct cairn_error *reterr, const struct spec_stage *stage, int code)
{
	if (reterr) {
		reterr->line = stage->line;
		reterr->column = stage->column;
	}
	return code;
}

static void name_level(struct cairn_store *store, uint32_t index)
{
	struct level *level = &store->levels[index];
	uint32_t same = 1;

	for (uint32_t i = 0; i < index; i++)
		same += strcmp(store->levels[i].ops->name, level->ops->name) == 0;
	if (same == 1)
		snprintf(level->name, sizeof(level->name), "%.19s", level->ops->name);
	else
		snprintf(level->name, sizeof(level->name), "%.19s.%u", level->ops->name, same);
}

/* The places lie behind the values. */
static void take_places(struct level *level, const struct spec_stage *spec)
{
	uint32_t count = level->ops->option_count;

	level->places = (struct place *)(level->values + count + 1);
	level->places[0] = (struct place){spec->line, spec->column};
	for (uint32_t i = 0; i < count; i++)
		options_place(spec, level->ops->options[i].name, &level->places[i + 1].line,
			      &level->places[i + 1].column);
}

/* The option that an error's text begins with, counted from 1; 0: none. */
static uint32_t option_named(const struct level *level, const char *text)
{
	size_t length = strlen(level->ops->name);

	if (strncmp(text, level->ops->name, length) == 0) {
		length += strspn(text + length, ".0123456789"); /* "posix.2" or just "posix" */
		if (strncmp(text + length, ": ", 2) == 0)
			text += length + 2;
	}
	for (uint32_t i = 0; i < level->ops->option_count; i++) {
		const char *name = level->ops->options[i].name;

		length = strlen(name);
		if (strncmp(text, name, length) == 0 && strchr("=,: ", text[length]))
			return i + 1;
	}
	return 0;
}

int pipeline_fail(const struct level *level, int code, const struct cairn_error *said,
		  struct cairn_error *reterr)
{
	uint32_t option = option_named(level, said->text);
	const struct place *place = &level->places[option];

	if (!said->text[0])
		return fail(reterr, code, "%s: could not be opened: %s", level->name,
			    strerror(-code));
	fail(reterr, code, "%s", said->text);
	if (!reterr || (!option && code != -EINVAL))
		return code;
	fail(reterr, code, "line %d, column %d: %.440s", place->line, place->column, said->text);
	reterr->line = place->line;
	reterr->column = place->column;
	return code;
}

static int check_values(const struct cairn_store *store, struct cairn_error *reterr)
{
	int ret = 0;

	for (uint32_t i = 0; ret == 0 && i < store->level_count; i++) {
		const struct level *level = &store->levels[i];
		struct cairn_error said = {0};

		if (level->ops->check_values)
			ret = level->ops->check_values(&level->env, &said);
		if (ret < 0)
			ret = pipeline_fail(level, ret, &said, reterr);
	}
	return ret;
}

static int add_level(struct cairn_store *store, const struct spec_stage *spec,
		     const struct cairn_store_opts *opts, const struct options_context *context,
		     struct cairn_error *reterr)
{
	struct loaded_stage loaded;
	struct level *level;
	int ret;

	if (store->level_count == CAIRN_STAGES_MAX)
		return at(reterr, spec,
			  fail(reterr, -EINVAL, "line %d, column %d: more than %d stages",
			       spec->line, spec->column, CAIRN_STAGES_MAX));
	ret = stage_load(opts, spec->name, &loaded, reterr);
	if (ret < 0 && reterr) {
		char text[CAIRN_ERROR_TEXT_MAX];

		snprintf(text, sizeof(text), "%s", reterr->text);
		fail(reterr, ret, "line %d, column %d: %.400s", spec->line, spec->column, text);
	}
	if (ret < 0)
		return at(reterr, spec, ret);
	level = &store->levels[store->level_count++];
	level->ops = loaded.ops;
	level->module = loaded.module;
	level->table = loaded.table;
	level->tier_below = -1;
	name_level(store, store->level_count - 1);
	level->values = sys_zalloc(store->sys, 16,
				   (loaded.ops->option_count + 1) *
					   (sizeof(*level->values) + sizeof(*level->places)));
	if (!level->values)
		return fail(reterr, -ENOMEM, "no memory for the options of %s", level->name);
	take_places(level, spec);
	return options_resolve(store->sys, spec, level->ops->options, level->ops->option_count,
			       context, level->values, &level->strings, reterr);
}

/* The tiers that a union may be of. */
static void link_union(struct cairn_store *store)
{
	uint32_t members = 0;

	store->union_top = -1;
	for (int i = (int)store->level_count - 1; i >= 0; i--) {
		const struct cairn_stage_ops *ops = store->levels[i].ops;

		store->levels[i].in_union =
			(ops->flags & CAIRN_STAGE_TIER) && !ops->done && ops->shards;
		members += store->levels[i].in_union;
		if (store->levels[i].in_union && members >= 2)
			store->union_top = i;
	}
}

static void link_tiers(struct cairn_store *store)
{
	link_union(store);
	store->tier_top = -1;
	store->tier_bottom = -1;
	for (int i = (int)store->level_count - 1; i >= 0; i--) {
		struct level *level = &store->levels[i];

		level->tier_below = store->tier_top;
		if (!(level->ops->flags & CAIRN_STAGE_TIER))
			continue;
		if (store->tier_bottom < 0)
			store->tier_bottom = i;
		store->tier_top = i;
		store->persists |= (level->ops->flags & CAIRN_STAGE_PERSISTS) != 0;
	}
	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];

		level->scratch_offset = store->scratch_bytes;
		level->scratch_zeroed = cairn_stage_zeroed(level->ops);
		store->scratch_bytes += (level->ops->io_bytes + 15) & ~15ul;
		level->env = (struct cairn_stage_env){
			.size = sizeof(level->env),
			.host = &store->host,
			.index = i,
			.below = store->level_count - 1 - i,
			.name = level->name,
			.values = level->values,
			.internal = &level->internal,
		};
		level->internal.sys = store->sys;
	}
}

static int check_shape(const struct cairn_store *store, const struct spec *spec,
		       struct cairn_error *reterr)
{
	const struct spec_stage *last = &spec->stages[spec->stage_count - 1];

	if (store->level_count == 0)
		return fail(reterr, -EINVAL,
			    "the pipeline has no stage that keeps data: end it "
			    "with a tier, for example posix(path=...)");
	if (store->tier_bottom != (int)store->level_count - 1)
		return at(reterr, last,
			  fail(reterr, -EINVAL,
			       "line %d, column %d: %s keeps no data: end the pipeline with a "
			       "tier, for example posix(path=...)",
			       last->line, last->column, last->name));
	return 0;
}

static int resolve(struct cairn_store *store, const struct spec *spec,
		   const struct cairn_store_opts *opts, struct cairn_error *reterr)
{
	static const struct spec_stage nothing = {.name = "store", .line = 1, .column = 1};
	const char *rank = opts && opts->rank ? opts->rank : getenv("RANK");
	struct options_context context = {.rank = rank ? rank : "0"};
	bool settings = spec->stage_count > 0 && strcmp(spec->stages[0].name, "store") == 0;
	uint32_t row_count;
	const struct cairn_option *rows = settings_rows(&row_count);
	int ret =
		options_resolve(store->sys, settings ? &spec->stages[0] : &nothing, rows, row_count,
				&context, store->settings, &store->settings_strings, reterr);

	for (uint32_t i = settings ? 1 : 0; ret == 0 && i < spec->stage_count; i++) {
		const struct spec_stage *stage = &spec->stages[i];

		if (strcmp(stage->name, "store") == 0)
			ret = at(reterr, stage,
				 fail(reterr, -EINVAL,
				      "line %d, column %d: store(...) stands first, or nowhere",
				      stage->line, stage->column));
		else
			ret = add_level(store, stage, opts, &context, reterr);
	}
	if (ret < 0)
		return ret;
	link_tiers(store);
	ret = check_shape(store, spec, reterr);
	return ret < 0 ? ret : check_values(store, reterr);
}

int pipeline_check_opts(const struct cairn_store_opts *opts, struct cairn_error *reterr)
{
	if (!opts || sized(opts, opts->size, sizeof(*opts)))
		return 0;
	return fail(reterr, -EINVAL, "cairn_store_opts: " SIZED_RULE, opts->size, sizeof(*opts));
}

int pipeline_resolve(struct cairn_store *store, const char *text,
		     const struct cairn_store_opts *opts, struct cairn_error *reterr)
{
	struct rows_context rows = {.opts = opts};
	struct spec *spec = NULL;
	int ret;

	if (!text)
		return fail(reterr, -EINVAL, "no pipeline given, for example posix(path=...)");
	ret = pipeline_check_opts(opts, reterr);
	if (ret == 0)
		ret = spec_parse(store->sys, text, rows_of, &rows, &spec, reterr);
	if (ret == 0)
		ret = resolve(store, spec, opts, reterr);
	spec_free(spec);
	while (rows.count > 0)
		stage_unload(&rows.loaded[--rows.count]);
	return ret;
}

void pipeline_fini(struct cairn_store *store)
{
	while (store->level_count > 0) {
		struct level *level = &store->levels[--store->level_count];
		struct loaded_stage loaded = {
			.ops = level->ops, .module = level->module, .table = level->table};

		options_free(store->sys, level->strings);
		store->sys->free(level->values);
		stage_unload(&loaded);
	}
	options_free(store->sys, store->settings_strings);
	store->settings_strings = NULL;
}
