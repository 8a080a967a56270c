/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes to the trace reader, plain or packed. It must not crash or leak;
 * what it took must be sound, and an error must be one line that names the file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(truth)                                                                             \
	do {                                                                                       \
		if (!(truth)) {                                                                    \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth);        \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void check(const struct trace *trace)
{
	size_t ids = 0;

	for (size_t i = 0; i < trace->count; i++) {
		const struct trace_request *request = &trace->requests[i];

		REQUIRE(request->first_id == ids);
		REQUIRE(request->id_count <= trace->id_count_max);
		REQUIRE(request->source < trace->sources);
		REQUIRE(trace_tokens(request, request->id_count) <= request->input_tokens);
		ids += request->id_count;
	}
	REQUIRE(ids == trace->id_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[TRACE_ERROR_MAX] = "";
	struct trace trace;
	int rc;

	trace_init(&trace);
	rc = trace_parse(&trace, "input", data, size, 10000, error);
	check(&trace);
	REQUIRE(rc == 0 || !strncmp(error, "input", 5));
	REQUIRE(rc == 0 || !strchr(error, '\n'));
	trace_fini(&trace);
	return 0;
}
