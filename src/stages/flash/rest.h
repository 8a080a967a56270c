/* SPDX-License-Identifier: Apache-2.0 */
/* What list, check and repair have in common. */
#ifndef FLASH_REST_H
#define FLASH_REST_H

#include "stages/flash/atrest.h"
#include "stages/flash/scan.h"

/* A live record. */
struct rest_record {
	struct flash_table_entry entry;
	uint64_t seq; /* of its region */
};

struct rest {
	const struct flash_rest_opts *opts;
	const struct sys *sys;
	int fd;
	struct flash_super_found super;
	struct flash_scanner scanner;
	struct flash_spaces_found spaces;
	int spaces_rc;
	uint8_t *marks; /* of the region that is being read: layout.records_max */
	bool clean;
	void *context;
	struct cairn_error *reterr;
	/* list */
	int (*listed)(void *context, const struct cairn_listed *block);
	struct rest_record *records; /* reserved for all that there can be */
	size_t record_count, reserved_bytes;
	uint32_t *order;
	uint32_t now_s;
	uint64_t missed;
	char *texts; /* NSDESC_MAX */
	/* check */
	int (*finding)(void *context, const struct cairn_finding *finding);
	int worst;
	struct flash_table_entry *table; /* of one region, by number: layout.records_max */
	uint32_t space_id;		 /* the namespace that was looked up last */
	bool space_known;
	struct flash_space_entry space;
};

/* Fills reterr with "flash: PATH: " and the rest; returns @code. */
__attribute__((format(printf, 3, 4))) int rest_error(const struct rest *rest, int code,
						     const char *format, ...);
/* @access: O_RDONLY or O_RDWR. rest_close() after it, also when it failed. */
int rest_open(struct rest *rest, const struct flash_rest_opts *opts, int access, void *context,
	      struct cairn_error *reterr);
void rest_close(struct rest *rest);
/* The superblock, and whether the store was closed. */
int rest_super(struct rest *rest);
/* What is needed beyond the superblock: a scanner, memory, the namespaces. */
int rest_ready(struct rest *rest);
bool rest_space(const struct rest *rest, uint32_t id, struct flash_space_entry *ret_entry,
		const void **ret_desc);

/* Whether nothing is written to @region any more. */
bool rest_retired(const struct rest *rest, uint32_t region);
/* Whether somebody has the store open. */
bool rest_in_use(const struct rest *rest);

/* What is there, and whether that is less than the store was made with: no open takes it then. */
struct rest_length {
	uint64_t bytes;
	bool device, shorter;
};

/* A check's and a repair's. */
int rest_length(const struct rest *rest, struct rest_length *ret_length);
int rest_lock(struct rest *rest);
int rest_report(struct rest *rest, enum cairn_finding_kind kind, uint64_t offset, const char *what);
int rest_report_region(struct rest *rest, enum cairn_finding_kind kind, uint32_t region,
		       uint64_t offset, const char *what);
/* What is wrong with a region's marks, if anything is; @mended: a repair has seen to it. */
int rest_report_marks(struct rest *rest, uint32_t region, const struct flash_marks_found *marks,
		      bool mended);
/* Memory for one region's table. */
int rest_table(struct rest *rest);
/* By number, into rest->table: what a region's table says, or its heads do. */
int rest_collect(void *context, const struct flash_scanned *scanned);
/*
 * Whether the record that rest->table[number] tells of is of interest (neither
 * dead nor of a generation that was cleared), and if so what is wrong with it;
 * NULL: nothing.
 */
const char *rest_record_wrong(struct rest *rest, uint64_t seq, uint32_t number);

#endif
