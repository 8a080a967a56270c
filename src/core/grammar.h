/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one parser of pipelines: API, command line and file.
 *
 *	pipeline    = stage { "|" stage }
 *	stage       = name [ "(" [ option { "," option } [ "," ] ] ")" ]
 *	            | "@" name [ "(" ... ")" ]        a composition, expanded in place
 *	option      = name "=" value
 *	value       = word | '"' { char | '\"' | '\\' } '"'
 *	word        = 1*( any char but space , ( ) | " = # )   brackets {} are plain
 *	definitions = { "@" name "=" pipeline }       files only
 *
 * White space and newlines are free between tokens; "#" starts a comment up to
 * the end of the line; a text in quotes ends on its line. Columns count
 * characters of UTF-8, from 1. What comes from a composition bears the place of
 * its use. Options given to a composition go to its lowest stage
 * that has an option of that name, in place of what stands there.
 */
#ifndef CORE_GRAMMAR_H
#define CORE_GRAMMAR_H

#include <cairn/stage.h>

#include "sys/sys.h"

struct spec_option {
	const char *name, *value;
	int line, column, value_line, value_column; /* from 1 */
};

struct spec_stage {
	const char *name;
	int line, column;
	struct spec_option *options;
	uint32_t option_count;
};

struct spec {
	const struct sys *sys;
	struct spec_stage *stages;
	uint32_t stage_count;
	void *arena; /* all strings and arrays */
};

/* The option rows of a stage by name, for compositions and hints; NULL: none such. */
typedef const struct cairn_option *spec_rows_fn(void *context, const char *stage_name,
						uint32_t *ret_count);

/*
 * Parses @text. On success *ret_spec is the caller's. -EINVAL with line, column,
 * what was wrong and what would be right; -ENOMEM. Bounded: texts up to 64 KiB,
 * 64 stages, 64 options a stage, compositions nested up to 8 deep.
 */
int spec_parse(const struct sys *sys, const char *text, spec_rows_fn *rows, void *context,
	       struct spec **ret_spec, struct cairn_error *reterr); /* @rows may be NULL */
void spec_free(struct spec *spec);				    /* NULL is ignored */

/* The closest of @names to @word, or NULL when none is close: for "did you mean". */
const char *spec_closest(const char *word, const char *const *names, size_t count);

/* Where {rank} comes from (NULL: "0"); other {names} are an error. */
struct options_context {
	const char *rank;
};

/*
 * Turns @stage's options into values in the order of @rows: presets, units,
 * ranges, choices, {rank} in paths; a required one that is missing, an unknown
 * or a doubled one is an error line with a hint. @ret_values has @row_count
 * places; *ret_strings owns their texts (NULL: none): options_free(). The place
 * of an error is the option's in the text, or its value's if that is wrong, or
 * the stage's if an option is missing. What is not given has value.set 0 and
 * is else zero. -EINVAL, -ENOMEM.
 */
int options_resolve(const struct sys *sys, const struct spec_stage *stage,
		    const struct cairn_option *rows, uint32_t row_count,
		    const struct options_context *context, struct cairn_value *ret_values,
		    void **ret_strings, struct cairn_error *reterr);

/* Where the value of option @name stands in the text; the stage's place, where it is not given. */
void options_place(const struct spec_stage *stage, const char *name, int *ret_line,
		   int *ret_column);
void options_free(const struct sys *sys, void *strings);

/*
 * Compositions: predefined ones and the user's own; process-wide, any thread.
 * @name may have its "@" or not. define: 0, -EINVAL, -ENOMEM; only the grammar
 * is checked, what a composition uses may be defined later. define_file: how
 * many, all or none; -ENOENT, -EINVAL, or what reading gave. each: those that are
 * not hidden, predefined first; no lock is held, so @fn may call anything;
 * nonzero ends it and is returned. Memory is kept until compositions_reset().
 */
int compositions_define(const struct sys *sys, const char *name, const char *spec,
			struct cairn_error *reterr);
int compositions_define_file(const struct sys *sys, const char *path, struct cairn_error *reterr);
int compositions_each(int (*fn)(void *context, const char *name, const char *spec,
				const char *help),
		      void *context);

/* Around a fork(), so that no child is born with the list's lock taken. */
void compositions_hold(void);
void compositions_go_on(void);

/* Frees the user's own; nothing else of the above may run. @sys: the one they were made with. */
void compositions_reset(const struct sys *sys);

#endif
