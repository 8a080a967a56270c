/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: what is read, what is refused and how that is said; what is made up. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <zlib.h>
#include <zstd.h>

#include "generate.h"
#include "trace.h"

static const char two_lines[] =
	"{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 5, \"hash_ids\": [1, 2]}\n"
	"\r\n"
	"{\"hash_ids\": [1, 9223372036854775807, 3], \"timestamp\": 27.5, \"more\": {\"a\": [1]},"
	" \"output_length\": 0, \"input_length\": 1025}";

static int parse(struct trace *trace, const void *data, size_t length, char *error)
{
	trace_init(trace);
	error[0] = '\0';
	return trace_parse(trace, "t.jsonl", data, length, 0, error);
}

static void check_two_lines(const void *data, size_t length)
{
	char error[TRACE_ERROR_MAX];
	struct trace trace;

	assert_int_equal(parse(&trace, data, length, error), 0);
	assert_int_equal(trace.count, 2);
	assert_int_equal(trace.id_count, 5);
	assert_int_equal(trace.id_count_max, 3);
	assert_int_equal(trace.prompt_tokens, 2025);
	assert_int_equal(trace.requests[0].id_count, 2);
	assert_int_equal(trace.requests[1].timestamp_us, 27500);
	assert_int_equal(trace.requests[1].first_id, 2);
	assert_int_equal(trace.ids[3], INT64_MAX);
	assert_int_equal(trace_tokens(&trace.requests[1], 2), 1024);
	assert_int_equal(trace_tokens(&trace.requests[1], 3), 1025);
	trace_fini(&trace);
}

static void test_plain(void **state)
{
	(void)state;
	check_two_lines(two_lines, sizeof(two_lines) - 1);
}

static size_t gzip(const void *data, size_t length, uint8_t *to, size_t room)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)data;
	z.avail_in = (uInt)length;
	z.next_out = to;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

/* One member, and two that meet in the middle of a line. */
static void test_gzip(void **state)
{
	uint8_t packed[2048];
	size_t n, half = sizeof(two_lines) / 2;

	(void)state;
	n = gzip(two_lines, sizeof(two_lines) - 1, packed, sizeof(packed));
	check_two_lines(packed, n);
	n = gzip(two_lines, half, packed, sizeof(packed));
	n += gzip(two_lines + half, sizeof(two_lines) - 1 - half, packed + n, sizeof(packed) - n);
	check_two_lines(packed, n);
}

static void test_zstd(void **state)
{
	uint8_t packed[2048];
	size_t n, half = sizeof(two_lines) / 2;

	(void)state;
	n = ZSTD_compress(packed, sizeof(packed), two_lines, sizeof(two_lines) - 1, 3);
	assert_false(ZSTD_isError(n));
	check_two_lines(packed, n);
	n = ZSTD_compress(packed, sizeof(packed), two_lines, half, 3);
	n += ZSTD_compress(packed + n, sizeof(packed) - n, two_lines + half,
			   sizeof(two_lines) - 1 - half, 3);
	check_two_lines(packed, n);
}

/* Every cut of compressed data is an error that says so; none is a shorter trace. */
static void test_truncated(void **state)
{
	uint8_t packed[2][2048];
	size_t lengths[2];

	(void)state;
	lengths[0] = gzip(two_lines, sizeof(two_lines) - 1, packed[0], sizeof(packed[0]));
	lengths[1] =
		ZSTD_compress(packed[1], sizeof(packed[1]), two_lines, sizeof(two_lines) - 1, 3);
	for (int kind = 0; kind < 2; kind++) {
		for (size_t n = 4; n < lengths[kind]; n++) {
			char error[TRACE_ERROR_MAX];
			struct trace trace;
			/* of its very length, so that a read beyond it is seen */
			uint8_t *copy = malloc(n);

			memcpy(copy, packed[kind], n);
			assert_int_equal(parse(&trace, copy, n, error), -EINVAL);
			assert_string_equal(error,
					    "t.jsonl: ends in the middle of compressed data");
			trace_fini(&trace);
			free(copy);
		}
	}
}

static void test_damaged(void **state)
{
	char error[TRACE_ERROR_MAX];
	uint8_t packed[2048];
	struct trace trace;
	size_t n;

	(void)state;
	n = gzip(two_lines, sizeof(two_lines) - 1, packed, sizeof(packed));
	packed[n - 6] ^= 1; /* its CRC */
	assert_int_equal(parse(&trace, packed, n, error), -EINVAL);
	assert_string_equal(error, "t.jsonl: damaged gzip data");
	trace_fini(&trace);
}

#define GOOD "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [1]}\n"
#define REST ", \"output_length\": 1, \"hash_ids\": [1]}"
static const struct {
	const char *text, *error;
} bad[] = {
	{GOOD "[1]", "t.jsonl, line 2: not a JSON object; a trace has one object a line"},
	{"root:x:0", "t.jsonl, line 1: not a JSON object; a trace has one object a line"},
	{GOOD "\n" GOOD "{\"timestamp\": 0", "t.jsonl, line 4: not JSON: '}' expected"},
	{"{\"timestamp\": 0} x", "t.jsonl, line 1: not JSON: end of file expected"},
	{"{\"timestamp\": 1, \"timestamp\": 2}", "t.jsonl, line 1: not JSON: duplicate object key"},
	{"{\"input_length\": 1" REST, "t.jsonl, line 1: \"timestamp\" is missing"},
	{"{\"timestamp\": -1, \"input_length\": 1" REST,
	 "t.jsonl, line 1: \"timestamp\" is not a number of milliseconds from 0"},
	{"{\"timestamp\": \"0\", \"input_length\": 1" REST,
	 "t.jsonl, line 1: \"timestamp\" is not a number of milliseconds from 0"},
	{"{\"timestamp\": 0" REST, "t.jsonl, line 1: \"input_length\" is missing"},
	{"{\"timestamp\": 0, \"input_length\": 1.5" REST,
	 "t.jsonl, line 1: \"input_length\" is not an integer from 0"},
	{"{\"timestamp\": 0, \"input_length\": 9000000000000000000" REST,
	 "t.jsonl, line 1: \"input_length\" is beyond 2^40 tokens"},
	{"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}",
	 "t.jsonl, line 1: \"hash_ids\" is missing"},
	{"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": 7}",
	 "t.jsonl, line 1: \"hash_ids\" is not an array of up to 2^20 integers"},
	{"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [1, \"x\"]}",
	 "t.jsonl, line 1: \"hash_ids\" holds what is not an integer"},
	{"{\"timestamp\": 0, \"input_length\": 513" REST,
	 "t.jsonl, line 1: \"hash_ids\" has 1 ids, but \"input_length\" is 2 blocks of 512 tokens"},
	{"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1,"
	 " \"hash_ids\": [99999999999999999999]}",
	 "t.jsonl, line 1: not JSON: too big integer"},
};

/* Times count from the first request of each file, which comes with the last one before it. */
static void test_times(void **state)
{
	static const char text[] =
		"\xef\xbb\xbf{\"timestamp\": 1700000000000, \"input_length\": 1" REST "\n"
		"{\"timestamp\": 1700000000500, \"input_length\": 1" REST "\n"
		"{\"timestamp\": 1600000000000, \"input_length\": 1" REST "\n"
		"{\"timestamp\": 1700000000500, \"input_length\": 1" REST "\n";
	static const uint64_t wanted[] = {0, 500000, 0, 500000, 500000, 1000000, 500000, 1000000};
	char error[TRACE_ERROR_MAX];
	struct trace trace;

	(void)state;
	assert_int_equal(parse(&trace, text, sizeof(text) - 1, error), 0);
	assert_int_equal(trace_parse(&trace, "u", text, sizeof(text) - 1, 0, error), 0);
	assert_int_equal(trace.count, 8);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(trace.requests[i].timestamp_us, wanted[i]);
	trace_fini(&trace);
}

static void test_bad_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char error[TRACE_ERROR_MAX];
		struct trace trace;

		assert_int_equal(parse(&trace, bad[i].text, strlen(bad[i].text), error), -EINVAL);
		assert_string_equal(error, bad[i].error);
		trace_fini(&trace);
	}
}

static void test_long_line(void **state)
{
	char *line = malloc(TRACE_LINE_MAX + 2), error[TRACE_ERROR_MAX];
	struct trace trace;

	(void)state;
	memset(line, ' ', TRACE_LINE_MAX + 1);
	assert_int_equal(parse(&trace, line, TRACE_LINE_MAX, error), 0);
	trace_fini(&trace);
	assert_int_equal(parse(&trace, line, TRACE_LINE_MAX + 1, error), -EINVAL);
	assert_string_equal(error, "t.jsonl, line 1: longer than 16 MiB");
	trace_fini(&trace);
	free(line);
}

/* A limit stops before what is beyond it is even looked at; sources are counted. */
static void test_limit(void **state)
{
	static const char text[] = GOOD GOOD "bad";
	char error[TRACE_ERROR_MAX];
	struct trace trace;

	(void)state;
	trace_init(&trace);
	assert_int_equal(trace_parse(&trace, "a", text, sizeof(text) - 1, 2, error), 0);
	assert_int_equal(trace.count, 2);
	assert_int_equal(trace_parse(&trace, "b", text, sizeof(text) - 1, 3, error), 0);
	assert_int_equal(trace.count, 3);
	assert_int_equal(trace.requests[2].source, 1);
	trace_fini(&trace);
}

static void test_file(void **state)
{
	char error[TRACE_ERROR_MAX], path[] = "/tmp/cairn-trace-XXXXXX";
	int fd = mkstemp(path);
	struct trace trace;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, GOOD GOOD, 2 * strlen(GOOD)), 2 * strlen(GOOD));
	close(fd);
	trace_init(&trace);
	assert_int_equal(trace_read(&trace, path, 0, error), 0);
	assert_int_equal(trace.count, 2);
	unlink(path);
	assert_int_equal(trace_read(&trace, path, 0, error), -ENOENT);
	assert_non_null(strstr(error, "No such file"));
	trace_fini(&trace);
}

/* ---- made up ------------------------------------------------------------------ */

static uint64_t hash_of(const struct trace *trace)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_request *r = &trace->requests[i];

		hash = (hash ^ r->timestamp_us) * 0x100000001b3u;
		hash = (hash ^ r->input_tokens) * 0x100000001b3u;
		hash = (hash ^ r->output_tokens) * 0x100000001b3u;
	}
	for (size_t i = 0; i < trace->id_count; i++)
		hash = (hash ^ trace->ids[i]) * 0x100000001b3u;
	return hash;
}

/* The trace of a seed is the same on every machine and for ever. */
static void test_generate_same(void **state)
{
	static const uint64_t hashes[] = {0x6d41e360df4ef8f4u, 0xad51855ebcf2d70eu,
					  0x141bf57ba048a383u};

	(void)state;
	for (uint32_t kind = 0; kind < 3; kind++) {
		struct trace trace;

		trace_init(&trace);
		generate_trace(&trace, kind, 1, 300);
		assert_int_equal(trace.count, 300);
		assert_int_equal(hash_of(&trace), hashes[kind]);
		trace_fini(&trace);
	}
}

static void test_generate_sound(void **state)
{
	(void)state;
	for (uint32_t kind = 0; kind < 3; kind++) {
		uint64_t before = 0;
		struct trace trace;

		trace_init(&trace);
		generate_trace(&trace, kind, 7, 500);
		for (size_t i = 0; i < trace.count; i++) {
			const struct trace_request *r = &trace.requests[i];

			assert_true(r->timestamp_us >= before);
			assert_true(r->input_tokens > 0);
			assert_int_equal(r->id_count, (r->input_tokens + 511) / 512);
			before = r->timestamp_us;
		}
		for (size_t i = 0; i < trace.id_count; i++)
			assert_true(trace.ids[i] <= INT64_MAX);
		trace_fini(&trace);
	}
}

/* An id that comes again has the same id before it: ids name whole prefixes. */
static void test_generate_prefixes(void **state)
{
	struct trace trace;
	size_t again = 0;

	(void)state;
	trace_init(&trace);
	generate_trace(&trace, GENERATE_CHAT, 3, 60);
	for (size_t a = 0; a < trace.count; a++) {
		for (size_t b = 0; b < a; b++) {
			const struct trace_request *x = &trace.requests[a], *y = &trace.requests[b];
			const uint64_t *p = trace.ids + x->first_id, *q = trace.ids + y->first_id;
			uint32_t n = x->id_count < y->id_count ? x->id_count : y->id_count,
				 same = 0;

			while (same < n && p[same] == q[same])
				same++;
			again += same;
			for (uint32_t i = same; i < n; i++)
				assert_true(p[i] != q[i]);
		}
	}
	assert_true(again > 0);
	trace_fini(&trace);
}

static void test_generate_seeds_differ(void **state)
{
	struct trace a, b;

	(void)state;
	trace_init(&a);
	trace_init(&b);
	generate_trace(&a, GENERATE_RAG, 1, 50);
	generate_trace(&b, GENERATE_RAG, 2, 50);
	assert_true(hash_of(&a) != hash_of(&b));
	trace_fini(&a);
	trace_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_gzip),
		cmocka_unit_test(test_zstd),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_generate_same),
		cmocka_unit_test(test_generate_sound),
		cmocka_unit_test(test_generate_prefixes),
		cmocka_unit_test(test_generate_seeds_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
