/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a command: one table a command, from which come the parsing, the
 * errors and the list in --help.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#include <cairn/store.h>

enum option_type {
	OPTION_FLAG,	   /* bool */
	OPTION_TEXT,	   /* const char *: lent from argv */
	OPTION_LIST,	   /* struct option_list; may be given again */
	OPTION_SIZE,	   /* uint64_t, bytes */
	OPTION_TIME,	   /* uint64_t, nanoseconds */
	OPTION_TIME_MAYBE, /* likewise; "--name" alone leaves it as it is */
	OPTION_COUNT,	   /* uint64_t */
	OPTION_NUMBER,	   /* double */
	OPTION_CHOICE,	   /* uint32_t, the position in `choices` */
};

/* Texts in the order of the command line; lent from argv. */
struct option_list {
	const char **items;
	size_t count;
};

struct option_row {
	const char *name;
	enum option_type type;
	void *target;	   /* holds the default before */
	const char *value; /* what --help calls the value; choices: "chat|rag|agent" */
	const char *help;  /* may span lines by \n */
	uint64_t min, max; /* of sizes, times and counts, inclusive; max 0: no limit */
	bool *ret_given;   /* NULL, or set when the option was given */
};

struct option_command {
	const char *name;    /* "replay" */
	const char *usage;   /* lines after "cairn NAME " */
	const char *about;   /* paragraphs above the options */
	const char *after;   /* examples and exit statuses, below them */
	const char *operand; /* what the first operands are called: "PIPELINE" */
	size_t operand_min, operand_max;
	struct option_list *rest; /* takes operands beyond operand_max; NULL: none allowed */
	const struct option_row *rows;
	size_t row_count;
};

/* Options that every command with a pipeline has. */
struct option_store {
	struct cairn_store_opts opts;
	const char *pipelines; /* a file of definitions */
};
#define OPTION_STORE_ROWS(store, json)                                                             \
	{"json", OPTION_FLAG, (json), NULL, "one JSON object on stdout, and nothing else",         \
	 0,	 0,	      NULL},                                                               \
		{"rank",                                                                           \
		 OPTION_TEXT,                                                                      \
		 &(store)->opts.rank,                                                              \
		 "R",                                                                              \
		 "what {rank} in a path expands to (default: $RANK, else 0)",                      \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
		{"pipelines",                                                                      \
		 OPTION_TEXT,                                                                      \
		 &(store)->pipelines,                                                              \
		 "FILE",                                                                           \
		 "read definitions `@name = pipeline` from FILE first",                            \
		 0,                                                                                \
		 0,                                                                                \
		 NULL},                                                                            \
	{                                                                                          \
		"stage-path", OPTION_TEXT, &(store)->opts.stage_path, "DIRS",                      \
			"where stage .so files are, colon-separated", 0, 0, NULL                   \
	}

/* Sets *@store to the defaults. */
void option_store_init(struct option_store *store);

/*
 * Parses argv[1..]: sets the targets, and @ret_operands (room for argc texts),
 * *ret_operand_count. Returns -1 to go on, else the exit status to end with:
 * 0 after --help, CLI_USAGE after an error was printed.
 */
int option_parse(const struct option_command *command, int argc, char **argv,
		 const char **ret_operands, size_t *ret_operand_count);

/* Prints one line "cairn NAME: ..., see 'cairn NAME --help'" on stderr; returns CLI_USAGE. */
int option_error(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reads the --pipelines file, if one was given; 0, or CLI_CANNOT after an error was printed. */
int option_store_load(const char *name, const struct option_store *store);

/*
 * Says why a call on a pipeline's text or a store failed with @rc. CLI_USAGE
 * where it was the text, else CLI_CANNOT.
 */
int option_store_error(const char *name, int rc, const struct cairn_error *error);

/*
 * The name in @names (ended by NULL) that a person who typed @typed most
 * likely meant; NULL: none is near.
 */
const char *option_nearest(const char *typed, const char *const *names);

/* Appends @item; the list is freed by option_list_fini(). */
void option_list_add(struct option_list *list, const char *item);
void option_list_fini(struct option_list *list);

/* Blocks that the tiers of an open store gave up to stay within their bounds. */
uint64_t option_store_evicted(struct cairn_store *store);

#endif
