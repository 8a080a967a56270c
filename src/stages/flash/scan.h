/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what a flash tier keeps: for recovery, and for a store at rest. Takes
 * whatever bytes it finds, writes nothing, takes no lock. Reads are of whole
 * units into aligned memory, so that the descriptor may be O_DIRECT.
 *
 * What cannot be read (-EIO, or a file that ends too early) counts as damaged
 * where that is: nothing here gives up because of one place.
 */
#ifndef FLASH_SCAN_H
#define FLASH_SCAN_H

#include "stages/flash/format.h"
#include "sys/sys.h"

struct ahead;

/* ---- the superblock ------------------------------------------------------------- */

struct flash_super_found {
	struct flash_super super; /* the sound copy that counts */
	uint32_t retired[FLASH_RETIRED_MAX];
	struct flash_layout layout;
	enum flash_verdict copies[FLASH_COPIES];
	bool marked; /* one of them begins as a superblock does */
};

/*
 * 0, or: -ENOENT nothing was ever written here (both copies zero, or the file is
 * too short for them); -EPROTO a sound copy of a version that this library does
 * not know; -EBADMSG neither copy checks; -EIO neither could be read; -ENOMEM.
 */
int flash_scan_super(const struct sys *sys, int fd, struct flash_super_found *ret_found);

/* ---- a scanner: one a thread ---------------------------------------------------- */

struct flash_scanner {
	const struct sys *sys;
	int fd; /* lent */
	struct flash_layout layout;
	struct flash_id id;
	uint8_t *buffer; /* at least two FLASH_SCAN_BYTES, aligned to FLASH_PAGE */
	size_t buffer_bytes;
	uint8_t *marks;	    /* both copies of a page */
	uint64_t window_at; /* what of the file is in the buffer: where, how much */
	size_t window_bytes;
	struct ahead *ahead; /* lent; NULL: nothing is read ahead */
	bool ahead_windows;  /* and there is no want in it but those for what is walked */
	uint64_t ahead_to;   /* up to where that was wanted */
	uint8_t head[FLASH_HEAD_BYTES_MAX + FLASH_UNIT_MAX];
};

#define FLASH_SCAN_BYTES (1u << 20)

/* 0 or -ENOMEM. fini() takes a zeroed one too. */
int flash_scanner_init(struct flash_scanner *scanner, const struct sys *sys, int fd,
		       const struct flash_super_found *super);
void flash_scanner_fini(struct flash_scanner *scanner);

/* ---- namespaces ------------------------------------------------------------------ */

struct flash_spaces_found {
	void *area; /* decoded, for flash_space_next(); the caller's to sys->free(); NULL: none */
	uint64_t counter;
	int copies[FLASH_COPIES]; /* 0, -ENOENT zero, -EPROTO, -EBADMSG, -EIO */
	bool single;		  /* what counts is there once: the other copy does not say it */
};

/*
 * 0, or, with no area: -ENOENT both copies are zero; -EPROTO, -EBADMSG, -EIO as
 * above; -ENOMEM.
 */
int flash_scan_spaces(struct flash_scanner *scanner, struct flash_spaces_found *ret_found);

/* ---- regions ----------------------------------------------------------------------- */

enum flash_found {
	FLASH_FOUND_UNUSED = 0, /* no header of this store: free */
	FLASH_FOUND_LOST,	/* a header of this store that does not check, or of a newer one */
	FLASH_FOUND_UNREADABLE, /* the header could not be read */
	FLASH_FOUND_OPEN,	/* no trailer of this use, or one that does not check */
	FLASH_FOUND_SEALED,
};

struct flash_region_found {
	enum flash_found state;
	/* The header's: OPEN and SEALED. */
	uint64_t seq, created_ns;
	uint32_t stream;
	uint32_t epoch;		      /* a sealed one: of the trailer */
	uint32_t next_unit;	      /* behind the last record that was seen */
	uint32_t next_number;	      /* above the highest number that was seen */
	uint32_t records;	      /* told, torn ones left out */
	uint32_t torn;		      /* sound heads whose payload does not check */
	uint32_t gap_units;	      /* passed over between records, and before the end of a sealed
					 region without a table: lost heads */
	uint64_t sequence_max;	      /* of records */
	struct flash_trailer trailer; /* SEALED */
	bool table_lost;   /* sealed, and the table does not check: records were looked for */
	bool trailer_lost; /* open, with a trailer of this use that does not check */
	bool unreadable;   /* some of it could not be read */
	bool newer;	   /* its header (LOST) or trailer (OPEN) is of a version not known here */
};

struct flash_scanned {
	uint32_t region, number;
	const struct flash_table_entry *entry;
	const struct flash_record *record; /* NULL: the entry comes from a table */
	bool torn;
};

typedef int flash_scan_fn(void *context, const struct flash_scanned *scanned);

#define FLASH_SCAN_PAYLOAD 0x1u /* records that are looked for: check their payload too */
#define FLASH_SCAN_TORN	   0x2u /* tell those whose payload does not check as well */
#define FLASH_SCAN_HEADS   0x4u /* look for records even where there is a table */

/*
 * Calls @fn for each record of the region, by number out of a table, else in
 * the order in which they lie: an open region (or one whose table is lost) is
 * walked from head to head, and where no head checks, unit by unit up to the
 * next one that does. What @fn gets is lent for the call; it may not use the
 * scanner. Entries passed flash_entry_check(); numbers are below records_max,
 * and in an open region of a hostile file they may repeat.
 *
 * 0, -ENOMEM, or what @fn returned, if that is not 0: it ends the walk.
 * @ret_found is filled in all cases.
 */
int flash_scan_region(struct flash_scanner *scanner, uint32_t region, uint32_t flags,
		      flash_scan_fn *fn, void *context, struct flash_region_found *ret_found);

/* The state, seq, created_ns, stream and epoch alone, without records and trailer: one read. */
void flash_scan_header(struct flash_scanner *scanner, uint32_t region,
		       struct flash_region_found *ret_found);
/*
 * The same in steps, so that much can be read at once. look(): header and trailer.
 * table(): of a SEALED region, its checked table of trailer.record_count entries, lent
 * until the scanner is used again, beside flash_scan_marks(), or the reads ahead are
 * given back; -EBADMSG (table_lost is set), -ENOMEM. rest(): what flash_scan_region()
 * does after look().
 */
void flash_scan_look(struct flash_scanner *scanner, uint32_t region,
		     struct flash_region_found *ret_found);
int flash_scan_table(struct flash_scanner *scanner, uint32_t region,
		     struct flash_region_found *found, const struct flash_table_entry **ret_table);
int flash_scan_rest(struct flash_scanner *scanner, uint32_t region, uint32_t flags,
		    flash_scan_fn *fn, void *context, struct flash_region_found *found);
/* Wants ahead what look() reads; what table(), then flash_scan_marks() do. False: no room now. */
bool flash_scan_want_look(struct flash_scanner *scanner, uint32_t region);
bool flash_scan_want_table(struct flash_scanner *scanner, uint32_t region,
			   const struct flash_region_found *found);

/* ---- marks --------------------------------------------------------------------------- */

struct flash_marks_found {
	uint32_t next_number; /* above the highest number with a mark: none may be used again */
	uint32_t damaged;     /* copies of this use that do not check */
	/* Pages of which neither copy checks, or one, perhaps the later, cannot be read: dead. */
	uint32_t lost;
	/* Pages (modulo 64) with deaths that the other copy does not tell. */
	uint64_t single;
};

/*
 * The marks of records [0, @count) of the region's use @seq, into @ret_marks
 * (zero where a page was never written). @ret_counters (may be NULL) has
 * layout.mark_pages places: the counter of each page, 0 for none; those of
 * pages beyond @count stay as they are.
 */
void flash_scan_marks(struct flash_scanner *scanner, uint32_t region, uint64_t seq, uint32_t count,
		      uint8_t *ret_marks, uint64_t *ret_counters,
		      struct flash_marks_found *ret_found);

/* ---- one record ------------------------------------------------------------------------ */

enum flash_check {
	FLASH_CHECK_SOUND = 0,
	FLASH_CHECK_NO_HEAD, /* the head does not check, or could not be read */
	FLASH_CHECK_OTHER,   /* a sound head that is not what @entry says */
	FLASH_CHECK_TORN,    /* its payload does not check, or could not be read */
};

/* Reads the record that @entry of the region's use @seq tells of, with its payload. */
enum flash_check flash_scan_record(struct flash_scanner *scanner, uint64_t seq, uint32_t number,
				   const struct flash_table_entry *entry,
				   struct flash_record *ret_record);

#endif
