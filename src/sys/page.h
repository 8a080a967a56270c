/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters page of an open store: /dev/shm/cairn-UUID, which any tool may
 * read. All integers are in the machine's order; the page never leaves it.
 *
 *	offset       bytes  header
 *	     0           8  magic "CAIRNPG1"; zero while the page is being made
 *	     8           4  version: 3
 *	    12           4  header bytes: 256
 *	    16           8  size of the whole page, bytes
 *	    24           8  process id of the owner
 *	    32           8  when it was made: CLOCK_REALTIME, nanoseconds
 *	    40           4  number of counters, n
 *	    44           4  row bytes: 72
 *	    48          16  the store's UUID
 *	    64           8  offset of the values: 256 + 72 n, rounded up to 64
 *	    72           4  number of latencies, h
 *	    76           4  buckets of each, b: 60
 *	    80          16  what carries the I/O ("uring"): ASCII, ended and filled up with zeros
 *	    96         160  why, where `auto` had to fall back, else empty: so, too
 *	   256        72 n  rows:    stage[24], name[40] (ASCII, ended and filled up with zeros),
 *	                             4 bytes flags (1: a gauge), 4 bytes zero
 *	 values        8 n  values:  each written whole, in the order of the rows
 *	 latencies          behind them, rounded up to 64: h times
 *	        (32 + 8 b)           op[24] (as the names above), 8 bytes sum in nanoseconds,
 *	                             b counts; base/latency.h says of what
 *
 * A page of version 2 ends with its values, and has zeros at 72: it is read, too.
 *
 * What the counters mean is not in the page: names are stable, and the stages'
 * tables have a line of help for each. Values apart from rows, so that a stage
 * has its own as one array.
 */
#ifndef SYS_PAGE_H
#define SYS_PAGE_H

#include "base/latency.h"
#include "sys/sys.h"

#define PAGE_VERSION	   3u
#define PAGE_VERSION_OLD   2u  /* without latencies */
#define PAGE_STAGE_MAX	   24u /* with the final zero */
#define PAGE_NAME_MAX	   40u
#define PAGE_COUNTERS_MAX  4096u /* 64 stages of 64 counters; bounds what a reader takes */
#define PAGE_LATENCIES_MAX 16u
#define PAGE_OP_MAX	   24u
#define PAGE_ENGINE_MAX	   16u
#define PAGE_NOTE_MAX	   160u
#define PAGE_SHM_NAME_MAX  48u

struct page;

struct page_counter {
	const char *stage, *name; /* shorter than the above, printable ASCII */
	bool gauge;
};

/* What a page is made for. */
struct page_shape {
	const struct page_counter *counters;
	uint32_t counter_count;
	const char *const *ops; /* of the latencies; shorter than PAGE_OP_MAX, printable ASCII */
	uint32_t op_count;
};

/*
 * Makes the page of the store @uuid, with all values zero, in place of one that
 * a dead process left or another process on the same store made: the last owner
 * is the one to be seen. @uuid NULL: in private memory, seen by nobody (a store
 * without identity; where there is no shared memory). -ENOMEM, -ENOSPC, -EACCES
 * and what shm_open() says: the caller can go on with a private one.
 */
int page_create(const struct sys *sys, const uint8_t uuid[16], const struct page_shape *shape,
		struct page **ret_page);

/* Values in the order of the counters; written with relaxed atomics, any thread. */
uint64_t *page_values(struct page *page);

/* The one of place @op in the shape; likewise. */
struct latency *page_latency(struct page *page, uint32_t op);

/* Once, by the owner, when it is known; shorter than the above, printable ASCII or empty. */
void page_engine(struct page *page, const char *engine, const char *note);

/* The name is unlinked, if it is still this page's. NULL is ignored. */
void page_close(struct page *page);

/* After a fork, in the child: unmaps the page, leaves the name, and frees nothing. */
void page_abandon(struct page *page);

struct page_info {
	uint64_t pid, start_ns; /* start: CLOCK_REALTIME */
	uint32_t counter_count, latency_count;
	char engine[PAGE_ENGINE_MAX], note[PAGE_NOTE_MAX]; /* "" until page_engine() */
};

/* What is to be told of a page; NULL: not that. */
struct page_reader {
	int (*counter)(void *context, const char *stage, const char *name, bool gauge,
		       uint64_t value);
	/* None in a page of version 2; @latency is lent for the call. */
	int (*latency)(void *context, const char *op, const struct latency *latency);
	void *context;
};

/*
 * Reads the page of the store @uuid once and calls @reader for each counter, then for
 * each latency, until it returns nonzero, which is returned. A snapshot: every byte
 * is checked, and nothing that another process does to the page can harm the reader.
 * -ENOENT: no page, or its owner is dead (the owner keeps a flock on it); -EPROTO:
 * another version; -EBADMSG: not a page, or one being made.
 */
int page_read(const struct sys *sys, const uint8_t uuid[16], const struct page_reader *reader,
	      struct page_info *ret_info);

/* Writes "/cairn-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx". */
void page_shm_name(const uint8_t uuid[16], char ret_name[PAGE_SHM_NAME_MAX]);

#endif
