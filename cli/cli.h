/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cairn program: one function a command, in the file of its name. The
 * program knows the library by include/cairn/ alone, as any user's would.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stddef.h>

/* Exit statuses; the same for every command, but for fsck's (man cairn-fsck). */
enum {
	CLI_OK = 0,
	CLI_BAD = 1,	   /* it ran, and what it found is bad: a wrong byte, an absent key ... */
	CLI_USAGE = 2,	   /* the command line */
	CLI_CANNOT = 3,	   /* it could not run: no such store, owned by another, I/O */
	CLI_STOPPED = 130, /* ended by SIGINT or SIGTERM */
};

struct cli_command {
	const char *name, *summary;
	int (*run)(int argc, char **argv); /* argv[0] is the command's name; an exit status */
};

/* Each parses its options, does its work and returns an exit status. */
int cli_replay(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_flash(int argc, char **argv);
int cli_fsck(int argc, char **argv);
int cli_stat(int argc, char **argv);
int cli_ls(int argc, char **argv);
int cli_rm(int argc, char **argv);
int cli_stages(int argc, char **argv);
int cli_version(int argc, char **argv);
int cli_help(int argc, char **argv);

/* The commands in the order of `cairn help`, ended by a NULL name. */
extern const struct cli_command cli_commands[];

/* Runs the command line of the program; what main() returns. */
int cli_main(int argc, char **argv);

#endif
