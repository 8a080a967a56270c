/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request traces: JSON lines, one request each, plain or in gzip or zstd
 * (told apart by their first bytes). A line is an object with
 *
 *	timestamp	number, milliseconds; only differences count
 *	input_length	integer, prompt tokens
 *	output_length	integer, generated tokens
 *	hash_ids	array of integers, one for each block of TRACE_BLOCK_TOKENS
 *			prompt tokens; the last block may be partial. An id stands
 *			for its block and all that is before it.
 *
 * Other members are ignored, as are blank lines.
 */
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_BLOCK_TOKENS 512u
#define TRACE_LINE_MAX	   (16u << 20) /* bytes; 2 M ids, a prompt of 10^9 tokens */
#define TRACE_IDS_MAX	   (1u << 20)  /* of one request */
#define TRACE_ERROR_MAX	   256

struct trace_request {
	uint64_t timestamp_us; /* from the start of the trace; a file goes on where one ended */
	uint64_t input_tokens, output_tokens;
	size_t first_id; /* in ids[] of the trace */
	uint32_t id_count;
	uint32_t source; /* which file, from 0: equal ids of two files are two blocks */
};

struct trace {
	struct trace_request *requests;
	size_t count, room;
	uint64_t *ids;
	size_t id_count, id_room;
	uint64_t prompt_tokens;
	uint32_t id_count_max; /* of one request */
	uint32_t sources;
};

/* Zeroes the trace: no requests. */
void trace_init(struct trace *trace);
void trace_fini(struct trace *trace);

/*
 * Appends the requests of a file ("-": stdin) as one more source, up to
 * @limit requests in all (0: no limit). 0, or a negative errno with one line
 * "FILE, line N: what was wrong" in @error. On an error what was read before
 * it stays.
 */
int trace_read(struct trace *trace, const char *path, size_t limit, char error[TRACE_ERROR_MAX]);

/* The same from memory; @name stands for the file in errors. */
int trace_parse(struct trace *trace, const char *name, const void *data, size_t length,
		size_t limit, char error[TRACE_ERROR_MAX]);

/*
 * Appends one request, of source @source; dies when there is no memory.
 * @ids are copied.
 */
void trace_add(struct trace *trace, const struct trace_request *request, const uint64_t *ids);

/* Prompt tokens that the first @blocks of a request's blocks hold. */
uint64_t trace_tokens(const struct trace_request *request, uint32_t blocks);

#endif
