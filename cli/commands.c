/* SPDX-License-Identifier: Apache-2.0 */
/* Which commands there are; and those that need no store: help and version. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "options.h"
#include "out.h"

const struct cli_command cli_commands[] = {
	{"replay", "replay LLM requests through a store, and check every byte", cli_replay},
	{"bench", "measure a pipeline against the same work done bare", cli_bench},
	{"fsck", "check or mend a store that nobody has open", cli_fsck},
	{"flash", "show what lies in the file or on the device of a flash store", cli_flash},
	{"stat", "show what a store counts while in use, or holds at rest", cli_stat},
	{"ls", "list the blocks of a store", cli_ls},
	{"rm", "remove blocks from a store", cli_rm},
	{"stages", "list stages, their options, and named compositions", cli_stages},
	{"version", "print the version", cli_version},
	{"help", "explain a command", cli_help},
	{NULL, NULL, NULL},
};

static const struct cli_command *find(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static int unknown(const char *name)
{
	const char *names[sizeof(cli_commands) / sizeof(cli_commands[0])];
	const char *nearest;
	size_t count = 0;

	for (const struct cli_command *c = cli_commands; c->name; c++)
		names[count++] = c->name;
	names[count] = NULL;
	nearest = option_nearest(name, names);
	if (nearest)
		out_error(NULL, "unknown command \"%s\"; did you mean \"%s\"?", name, nearest);
	else
		out_error(NULL, "unknown command \"%s\"; see 'cairn help'", name);
	return CLI_USAGE;
}

static void overview(FILE *to)
{
	fprintf(to, "usage: cairn COMMAND [PIPELINE] [options]\n\n"
		    "cairn keeps the KV-cache blocks and other state of LLM inference across\n"
		    "memory and disk. A PIPELINE says where, hot to cold, for example\n\n"
		    "  'posix(path=/var/lib/cairn, size=200GiB)'\n\nCommands:\n");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(to, "  %-9s%s\n", c->name, c->summary);
	fprintf(to,
		"\nTry it:\n"
		"  cairn replay 'posix(path=/tmp/kv, size=2GiB)' --generate chat --limit 400\n\n"
		"'cairn COMMAND --help' explains a command, 'man 7 cairn_pipeline' pipelines.\n");
}

int cli_help(int argc, char **argv)
{
	char *help[] = {argv[0], (char[]){"--help"}, NULL};
	const struct cli_command *command;

	if (argc < 2 || argv[1][0] == '-' || !strcmp(argv[1], "help")) {
		overview(stdout);
		return CLI_OK;
	}
	command = find(argv[1]);
	return command ? command->run(2, help) : unknown(argv[1]);
}

int cli_version(int argc, char **argv)
{
	bool as_json = false;
	const struct option_row rows[] = {
		{"json", OPTION_FLAG, &as_json, NULL, "one JSON object on stdout", 0, 0, NULL},
	};
	const struct option_command command = {
		.name = "version",
		.usage = "[--json]",
		.about = "Prints the version of the library that this program runs with.",
		.rows = rows,
		.row_count = 1,
	};
	const char *operands[1];
	size_t count;
	int rc = option_parse(&command, argc, argv, operands, &count);
	json_t *o;

	if (rc >= 0)
		return rc;
	if (!as_json)
		return printf("cairn %s\n", cairn_version()) > 0 ? CLI_OK : CLI_CANNOT;
	o = json_object();
	out_json_set(o, "version", out_json_text(cairn_version()));
	return out_json(o);
}

int cli_main(int argc, char **argv)
{
	static char help[] = "help", version[] = "version";
	const struct cli_command *command;
	int rc;

	if (argc < 2) {
		overview(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		argv[1] = help;
	if (!strcmp(argv[1], "--version"))
		argv[1] = version;
	command = find(argv[1]);
	if (!command)
		return unknown(argv[1]);
	rc = command->run(argc - 1, argv + 1);
	if (fflush(stdout) || ferror(stdout)) {
		out_error(NULL, "stdout: could not write everything");
		return CLI_CANNOT;
	}
	return rc;
}
