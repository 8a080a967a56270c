/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes flow from a source (a descriptor, or memory) through a decoder into a
 * buffer that is cut into lines. The first bytes choose the decoder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <zlib.h>
#include <zstd.h>

#include "out.h"
#include "trace.h"

#define CHUNK_BYTES (256u << 10) /* read, and decoded, at once */
#define MAGIC_BYTES 4u

struct input {
	const char *name;
	char *error;
	/* the source */
	int fd; /* -1: memory */
	const uint8_t *memory;
	size_t memory_left;
	uint8_t *chunk; /* what was read of fd and not yet decoded */
	const uint8_t *next;
	size_t left;
	/* the decoder */
	enum { PLAIN, GZIP, ZSTD } kind;
	z_stream gzip;
	ZSTD_DStream *zstd;
	bool inside; /* of a gzip member or a zstd frame */
	/* lines */
	char *line;
	size_t line_length, line_room;
	uint64_t line_number;
	/* times: of the first request here, and of the last one of what was read before */
	bool begun;
	uint64_t first_us, base_us;
};

void trace_init(struct trace *trace)
{
	memset(trace, 0, sizeof(*trace));
}

void trace_fini(struct trace *trace)
{
	free(trace->requests);
	free(trace->ids);
	memset(trace, 0, sizeof(*trace));
}

/* Makes room for @more of @bytes each beyond @count. */
static void *reserve(void *items, size_t count, size_t more, size_t *room, size_t bytes)
{
	if (count + more <= *room)
		return items;
	*room = *room * 2 > count + more ? *room * 2 : count + more;
	items = realloc(items, *room * bytes);
	if (!items)
		out_die("no memory for a trace of %zu entries", *room);
	return items;
}

void trace_add(struct trace *trace, const struct trace_request *request, const uint64_t *ids)
{
	struct trace_request *mine;
	size_t count = request->id_count;

	trace->requests =
		reserve(trace->requests, trace->count, 1, &trace->room, sizeof(*trace->requests));
	trace->ids =
		reserve(trace->ids, trace->id_count, count, &trace->id_room, sizeof(*trace->ids));
	mine = &trace->requests[trace->count++];
	*mine = *request;
	mine->first_id = trace->id_count;
	if (count)
		memcpy(trace->ids + trace->id_count, ids, count * sizeof(*ids));
	trace->id_count += count;
	trace->prompt_tokens += request->input_tokens;
	if (request->id_count > trace->id_count_max)
		trace->id_count_max = request->id_count;
	if (request->source >= trace->sources)
		trace->sources = request->source + 1;
}

uint64_t trace_tokens(const struct trace_request *request, uint32_t blocks)
{
	uint64_t tokens = (uint64_t)blocks * TRACE_BLOCK_TOKENS;

	return tokens < request->input_tokens ? tokens : request->input_tokens;
}

/* ---- one line ------------------------------------------------------------ */

static int line_error(const struct input *in, const char *format, const char *name)
{
	int at = snprintf(in->error, TRACE_ERROR_MAX, "%.100s, line %llu: ", in->name,
			  (unsigned long long)in->line_number);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(in->error + at, TRACE_ERROR_MAX - (size_t)at, format, name);
#pragma GCC diagnostic pop
	return -EINVAL;
}

static int get_length(const struct input *in, const json_t *object, const char *name,
		      uint64_t *ret_value)
{
	const json_t *value = json_object_get(object, name);

	if (!value)
		return line_error(in, "\"%s\" is missing", name);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return line_error(in, "\"%s\" is not an integer from 0", name);
	*ret_value = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_timestamp(const struct input *in, const json_t *object, uint64_t *ret_us)
{
	const double ms_max = 1e15; /* some 30,000 years, and exact in a double */
	const json_t *value = json_object_get(object, "timestamp");

	if (!value)
		return line_error(in, "\"%s\" is missing", "timestamp");
	if (!json_is_number(value) || !(json_number_value(value) >= 0) ||
	    json_number_value(value) > ms_max)
		return line_error(in, "\"%s\" is not a number of milliseconds from 0", "timestamp");
	*ret_us = (uint64_t)(json_number_value(value) * 1000);
	return 0;
}

static int get_ids(const struct input *in, const json_t *object, uint64_t **ret_ids,
		   uint32_t *ret_count)
{
	const json_t *array = json_object_get(object, "hash_ids");
	size_t count = json_array_size(array);
	uint64_t *ids;

	if (!array)
		return line_error(in, "\"%s\" is missing", "hash_ids");
	if (!json_is_array(array) || count > TRACE_IDS_MAX)
		return line_error(in, "\"%s\" is not an array of up to 2^20 integers", "hash_ids");
	ids = calloc(count + 1, sizeof(*ids));
	if (!ids)
		out_die("no memory for a request of %zu blocks", count);
	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_array_get(array, i);

		if (!json_is_integer(id)) {
			free(ids);
			return line_error(in, "\"%s\" holds what is not an integer", "hash_ids");
		}
		ids[i] = (uint64_t)json_integer_value(id);
	}
	*ret_ids = ids;
	*ret_count = (uint32_t)count;
	return 0;
}

/* As many ids as the prompt has blocks: else shares of tokens and of blocks contradict. */
static int check_ids(const struct input *in, const struct trace_request *request)
{
	uint64_t blocks = (request->input_tokens + TRACE_BLOCK_TOKENS - 1) / TRACE_BLOCK_TOKENS;
	char text[96];

	if (blocks == request->id_count)
		return 0;
	snprintf(text, sizeof(text), "%u ids, but \"input_length\" is %llu blocks of %u tokens",
		 request->id_count, (unsigned long long)blocks, TRACE_BLOCK_TOKENS);
	return line_error(in, "\"hash_ids\" has %s", text);
}

/* From the start of the trace: a file's first request comes with the last one before it. */
static void rebase(struct input *in, struct trace_request *request)
{
	uint64_t us = request->timestamp_us;

	if (!in->begun)
		in->first_us = us;
	in->begun = true;
	request->timestamp_us = in->base_us + (us > in->first_us ? us - in->first_us : 0);
}

static int add_object(struct trace *trace, struct input *in, const json_t *object, uint32_t source)
{
	struct trace_request request = {.source = source};
	uint64_t *ids = NULL;
	int rc;

	if (!json_is_object(object))
		return line_error(in, "not a JSON %s", "object");
	if ((rc = get_timestamp(in, object, &request.timestamp_us)) < 0 ||
	    (rc = get_length(in, object, "input_length", &request.input_tokens)) < 0 ||
	    (rc = get_length(in, object, "output_length", &request.output_tokens)) < 0 ||
	    (rc = get_ids(in, object, &ids, &request.id_count)) < 0)
		return rc;
	if (request.input_tokens >> 40) {
		free(ids);
		return line_error(in, "\"%s\" is beyond 2^40 tokens", "input_length");
	}
	rc = check_ids(in, &request);
	if (rc < 0) {
		free(ids);
		return rc;
	}
	rebase(in, &request);
	trace_add(trace, &request, ids);
	free(ids);
	return 0;
}

static int add_line(struct trace *trace, struct input *in, uint32_t source)
{
	static const char mark[] = "\xef\xbb\xbf"; /* U+FEFF, as some editors begin a file */
	json_error_t why;
	json_t *object;
	size_t blanks;
	int rc;

	in->line_number++;
	if (in->line_number == 1 && !strncmp(in->line, mark, strlen(mark))) {
		in->line_length -= strlen(mark);
		memmove(in->line, in->line + strlen(mark), in->line_length + 1);
	}
	blanks = strspn(in->line, " \t\r");
	if (blanks == in->line_length)
		return 0;
	if (in->line[blanks] != '{')
		return line_error(in, "not a JSON object; a trace has one object a line", "");
	object = json_loadb(in->line, in->line_length, JSON_REJECT_DUPLICATES, &why);
	if (!object) {
		/* near texts may quote what is no text; the reason is before them */
		why.text[strcspn(why.text, "\n")] = '\0';
		if (strstr(why.text, " near "))
			*strstr(why.text, " near ") = '\0';
		return line_error(in, "not JSON: %s", why.text);
	}
	rc = add_object(trace, in, object, source);
	json_decref(object);
	return rc;
}

/* ---- bytes ---------------------------------------------------------------- */

static int read_error(const struct input *in, int rc, const char *what)
{
	snprintf(in->error, TRACE_ERROR_MAX, "%.120s: %.80s", in->name, what);
	return rc;
}

/* Takes more of the source into next and left; 0 at its end. */
static ssize_t refill(struct input *in)
{
	ssize_t got;

	if (in->fd < 0) {
		in->next = in->memory;
		in->left = in->memory_left;
		in->memory += in->left;
		in->memory_left = 0;
		return (ssize_t)in->left;
	}
	do
		got = read(in->fd, in->chunk, CHUNK_BYTES);
	while (got < 0 && errno == EINTR);
	in->next = in->chunk;
	in->left = got > 0 ? (size_t)got : 0;
	if (got < 0)
		return read_error(in, -errno, strerror(errno));
	return got;
}

/* The first read of a pipe may be short: a magic needs four bytes. */
static int refill_first(struct input *in)
{
	static const uint8_t gzip_magic[] = {0x1f, 0x8b}, zstd_magic[] = {0x28, 0xb5, 0x2f, 0xfd};
	size_t have = 0;

	if (in->fd < 0) {
		refill(in);
	} else {
		while (have < MAGIC_BYTES) {
			ssize_t got = read(in->fd, in->chunk + have, CHUNK_BYTES - have);

			if (got < 0 && errno == EINTR)
				continue;
			if (got < 0)
				return read_error(in, -errno, strerror(errno));
			if (got == 0)
				break;
			have += (size_t)got;
		}
		in->next = in->chunk;
		in->left = have;
	}
	in->kind = PLAIN;
	if (in->left >= sizeof(gzip_magic) && !memcmp(in->next, gzip_magic, sizeof(gzip_magic)))
		in->kind = GZIP;
	if (in->left >= sizeof(zstd_magic) && !memcmp(in->next, zstd_magic, sizeof(zstd_magic)))
		in->kind = ZSTD;
	if (in->kind == GZIP && inflateInit2(&in->gzip, 15 + 16) != Z_OK)
		out_die("no memory for a gzip decoder");
	if (in->kind == ZSTD && !(in->zstd = ZSTD_createDStream()))
		out_die("no memory for a zstd decoder");
	return 0;
}

/* Decodes into @out: a count, 0 when more input is needed, or an error. */
static ssize_t decode_gzip(struct input *in, char *out, size_t room)
{
	int rc;

	if (!in->inside && in->left) {
		inflateReset(&in->gzip); /* members may follow each other */
		in->inside = true;
	}
	in->gzip.next_in = (Bytef *)(uintptr_t)in->next;
	in->gzip.avail_in = in->left > UINT32_MAX ? UINT32_MAX : (uInt)in->left;
	in->gzip.next_out = (Bytef *)out;
	in->gzip.avail_out = (uInt)room;
	rc = in->inside ? inflate(&in->gzip, Z_NO_FLUSH) : Z_BUF_ERROR;
	in->left -= (size_t)(in->gzip.next_in - in->next);
	in->next = in->gzip.next_in;
	if (rc == Z_STREAM_END)
		in->inside = false;
	else if (rc != Z_OK && rc != Z_BUF_ERROR)
		return read_error(in, -EINVAL, "damaged gzip data");
	return (ssize_t)(room - in->gzip.avail_out);
}

static ssize_t decode_zstd(struct input *in, char *out, size_t room)
{
	ZSTD_inBuffer from = {in->next, in->left, 0};
	ZSTD_outBuffer to = {out, room, 0};
	size_t rc = ZSTD_decompressStream(in->zstd, &to, &from);

	if (ZSTD_isError(rc))
		return read_error(in, -EINVAL, "damaged zstd data");
	if (from.pos || to.pos)
		in->inside = rc != 0;
	in->next += from.pos;
	in->left -= from.pos;
	return (ssize_t)to.pos;
}

static ssize_t decode_plain(struct input *in, char *out, size_t room)
{
	size_t n = in->left < room ? in->left : room;

	if (n)
		memcpy(out, in->next, n);
	in->next += n;
	in->left -= n;
	return (ssize_t)n;
}

/* Decoded bytes: a count, 0 at the end, or an error. */
static ssize_t next_bytes(struct input *in, char *out, size_t room)
{
	for (;;) {
		size_t before = in->left;
		ssize_t n;

		if (in->kind == GZIP)
			n = decode_gzip(in, out, room);
		else if (in->kind == ZSTD)
			n = decode_zstd(in, out, room);
		else
			n = decode_plain(in, out, room);
		if (n)
			return n;
		if (in->left == before && in->left)
			return read_error(in, -EINVAL, "damaged compressed data");
		if (in->left)
			continue;
		n = refill(in);
		if (n < 0)
			return n;
		if (n == 0 && in->inside)
			return read_error(in, -EINVAL, "ends in the middle of compressed data");
		if (n == 0)
			return 0;
	}
}

/* Cuts what is in the line buffer into lines; the rest moves to its start. */
static int add_lines(struct trace *trace, struct input *in, char *bytes, size_t length,
		     uint32_t source, size_t limit)
{
	int rc = 0;

	while (rc == 0 && length && !(limit && trace->count >= limit)) {
		char *end = memchr(bytes, '\n', length);
		size_t n = end ? (size_t)(end - bytes) : length;

		if (in->line_length + n > TRACE_LINE_MAX) {
			in->line_number++;
			return line_error(in, "longer than %s", "16 MiB");
		}
		in->line = reserve(in->line, in->line_length, n + 1, &in->line_room, 1);
		memcpy(in->line + in->line_length, bytes, n);
		in->line_length += n;
		in->line[in->line_length] = '\0';
		bytes += n + (end != NULL);
		length -= n + (end != NULL);
		if (!end)
			return 0;
		rc = add_line(trace, in, source);
		in->line_length = 0;
	}
	return rc;
}

static int read_all(struct trace *trace, struct input *in, size_t limit)
{
	uint32_t source = trace->sources;
	char *bytes = malloc(CHUNK_BYTES);
	ssize_t n = 1;
	int rc;

	in->base_us = trace->count ? trace->requests[trace->count - 1].timestamp_us : 0;
	in->chunk = malloc(CHUNK_BYTES);
	if (!bytes || !in->chunk)
		out_die("no memory to read %s", in->name);
	rc = refill_first(in);
	while (rc == 0 && n && !(limit && trace->count >= limit)) {
		n = next_bytes(in, bytes, CHUNK_BYTES);
		rc = n < 0 ? (int)n : add_lines(trace, in, bytes, (size_t)n, source, limit);
	}
	if (rc == 0 && in->line_length && !(limit && trace->count >= limit))
		rc = add_line(trace, in, source); /* the last line may lack its newline */
	if (in->kind == GZIP)
		inflateEnd(&in->gzip);
	ZSTD_freeDStream(in->zstd);
	free(in->chunk);
	free(in->line);
	free(bytes);
	return rc;
}

int trace_parse(struct trace *trace, const char *name, const void *data, size_t length,
		size_t limit, char error[TRACE_ERROR_MAX])
{
	struct input in = {
		.name = name, .error = error, .fd = -1, .memory = data, .memory_left = length};

	return read_all(trace, &in, limit);
}

int trace_read(struct trace *trace, const char *path, size_t limit, char error[TRACE_ERROR_MAX])
{
	struct input in = {.name = path, .error = error, .fd = STDIN_FILENO};
	int rc;

	if (!strcmp(path, "-")) {
		in.name = "stdin";
		return read_all(trace, &in, limit);
	}
	in.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (in.fd < 0)
		return read_error(&in, -errno, strerror(errno));
	rc = read_all(trace, &in, limit);
	close(in.fd);
	return rc;
}
