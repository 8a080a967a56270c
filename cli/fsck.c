/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "cli.h"
#include "options.h"
#include "out.h"

/* As of cairn_check() and cairn_repair(); what is no verdict has statuses of its own beside
 * CLI_CANNOT. */
enum {
	FSCK_SOUND = 0,
	FSCK_REPAIRABLE = 1,
	FSCK_DAMAGED = 2,
	FSCK_USAGE = 4,
};

struct fsck {
	json_t *findings; /* NULL: print lines */
	uint64_t count[3];
	bool quiet, repair;
};

static const char *const kinds[] = {"note", "repairable", "damaged"};

static int show(void *context, const struct cairn_finding *finding)
{
	struct fsck *fsck = context;
	json_t *o;

	fsck->count[finding->kind]++;
	if (!fsck->findings) {
		if (!fsck->quiet || finding->kind != CAIRN_FINDING_NOTE)
			printf("%-10s  %s: %s: %s\n", kinds[finding->kind], finding->stage,
			       finding->where ? finding->where : "", finding->what);
		return out_stop_asked() ? -ECANCELED : 0;
	}
	o = json_object();
	out_json_set(o, "kind", out_json_text(kinds[finding->kind]));
	out_json_set(o, "stage", out_json_text(finding->stage));
	out_json_set(o, "where", out_json_text(finding->where));
	out_json_set(o, "what", out_json_text(finding->what));
	json_array_append_new(fsck->findings, o);
	return out_stop_asked() ? -ECANCELED : 0;
}

static void report(struct fsck *fsck, int verdict)
{
	static const char *const verdicts[] = {"sound", "repairable", "damaged"};
	static const char *const meanings[][2] = {
		{"sound: everything checks", "sound, or mended without a loss"},
		{"repairable: leftovers only; the next open mends them",
		 "repairable: something is left that the next open mends"},
		{"damaged: some bytes do not check; those blocks are served as absent",
		 "damaged: something was lost for good; what is left is sound, but for what is "
		 "said "
		 "above"},
	};
	json_t *o;

	if (!fsck->findings) {
		printf("%s\n", meanings[verdict][fsck->repair]);
		return;
	}
	o = json_object();
	out_json_set(o, "verdict", out_json_text(verdicts[verdict]));
	out_json_set(o, "repair", json_boolean(fsck->repair));
	out_json_count(o, "notes", fsck->count[CAIRN_FINDING_NOTE]);
	out_json_count(o, "repairable", fsck->count[CAIRN_FINDING_REPAIRABLE]);
	out_json_count(o, "damaged", fsck->count[CAIRN_FINDING_DAMAGED]);
	out_json_set(o, "findings", fsck->findings);
	out_json(o);
}

int cli_fsck(int argc, char **argv)
{
	struct option_store store;
	struct cairn_error error = {0};
	struct fsck fsck = {0};
	bool as_json = false;
	const struct option_row rows[] = {
		{"repair", OPTION_FLAG, &fsck.repair, NULL,
		 "mend what can be mended, and drop what cannot", 0, 0, NULL},
		{"quiet", OPTION_FLAG, &fsck.quiet, NULL, "do not print mere notes", 0, 0, NULL},
		OPTION_STORE_ROWS(&store, &as_json),
	};
	const struct option_command command = {
		.name = "fsck",
		.usage = "PIPELINE [options]",
		.about = "Checks every tier of a store, payload included, and changes nothing; "
			 "with --repair\nmends it, and says line by line what it made again and "
			 "what "
			 "it dropped. The store\nmust not be open anywhere.",
		.after = "Examples:\n  cairn fsck 'posix(path=/var/lib/cairn)'\n"
			 "  cairn fsck 'flash(path=/dev/nvme1n1)' --repair\n\n"
			 "Exit status: 0 sound, 1 repairable (the next open mends it), 2 damaged,\n"
			 "3 could not check, 4 usage. With --repair: 0 sound or mended whole, 1 "
			 "something is\nleft that the next open mends, 2 something was lost for "
			 "good.",
		.operand = "PIPELINE",
		.operand_min = 1,
		.operand_max = 1,
		.rows = rows,
		.row_count = sizeof(rows) / sizeof(rows[0]),
	};
	const char *pipeline = NULL;
	size_t count;
	int rc;

	option_store_init(&store);
	rc = option_parse(&command, argc, argv, &pipeline, &count);
	if (rc >= 0)
		return rc == CLI_USAGE ? FSCK_USAGE : rc;
	if (option_store_load("fsck", &store) != CLI_OK)
		return CLI_CANNOT;
	out_stop_catch();
	fsck.findings = as_json ? json_array() : NULL;
	rc = (fsck.repair ? cairn_repair : cairn_check)(pipeline, &store.opts, show, &fsck, &error);
	if (rc >= 0 && rc <= FSCK_DAMAGED) {
		report(&fsck, rc);
		return rc;
	}
	json_decref(fsck.findings);
	if (rc == -ECANCELED)
		return CLI_STOPPED;
	return option_store_error("fsck", rc, &error) == CLI_USAGE ? FSCK_USAGE : CLI_CANNOT;
}
