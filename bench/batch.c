/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One batch at a time by the C API, for python.py to compare the package with.
 *
 *	batch PIPELINE COUNT BYTES
 *
 * Dumps COUNT blocks of BYTES each. Then for each line on standard input, "load" or "dump",
 * one task of all of them, and a line with the seconds that it took, from the filling of the
 * xfers to the release; "quit" ends it. Blocks are removed before they are dumped again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cairn/store.h>
#include <cairn/task.h>

struct batch {
	struct cairn_store *store;
	struct cairn_namespace *ns;
	size_t count, bytes;
	struct cairn_key *keys;
	struct cairn_xfer *xfers;
	struct cairn_segment *segments;
	char *memory;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int open_all(struct batch *b, const char *pipeline)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "batch", .shard_count = 1, .shard_bytes = b->bytes};
	struct cairn_error error = {0};

	if (cairn_store_open(pipeline, NULL, &b->store, &error) < 0 ||
	    cairn_namespace_open(b->store, &desc, &b->ns, &error) < 0) {
		fprintf(stderr, "batch: %s\n", error.text);
		return -1;
	}
	b->keys = calloc(b->count, sizeof(*b->keys));
	b->xfers = calloc(b->count, sizeof(*b->xfers));
	b->segments = calloc(b->count, sizeof(*b->segments));
	b->memory = malloc(b->count * b->bytes);
	if (!b->keys || !b->xfers || !b->segments || !b->memory)
		return -1;
	memset(b->memory, 7, b->count * b->bytes);
	for (size_t i = 0; i < b->count; i++)
		if (cairn_key_derive(b->ns, &i, sizeof(i), &b->keys[i]) < 0)
			return -1;
	return 0;
}

/* Seconds, or a negative number: it failed. */
static double run(struct batch *b, int dump)
{
	double start = now_s();
	uint64_t task;
	int ret;

	memset(b->xfers, 0, b->count * sizeof(*b->xfers));
	for (size_t i = 0; i < b->count; i++) {
		b->segments[i] = (struct cairn_segment){b->memory + i * b->bytes, b->bytes};
		b->xfers[i].key = b->keys[i];
		b->xfers[i].length = b->bytes;
		b->xfers[i].segments = &b->segments[i];
		b->xfers[i].segment_count = 1;
	}
	ret = dump ? cairn_dump(b->ns, b->xfers, b->count, NULL, &task)
		   : cairn_load(b->ns, b->xfers, b->count, NULL, &task);
	if (ret == 0)
		ret = cairn_task_wait(b->store, task, 0, UINT64_MAX);
	for (size_t i = 0; ret == 0 && i < b->count; i++)
		ret = b->xfers[i].result.status;
	return ret == 0 ? now_s() - start : -1;
}

static double step(struct batch *b, const char *line)
{
	if (line[0] == 'l')
		return run(b, 0);
	cairn_remove(b->ns, b->keys, b->count, NULL, NULL, NULL);
	return run(b, 1);
}

int main(int argc, char **argv)
{
	struct batch b = {0};
	char line[16];
	double seconds;

	if (argc != 4) {
		fprintf(stderr, "usage: batch PIPELINE COUNT BYTES\n");
		return 2;
	}
	b.count = strtoull(argv[2], NULL, 10);
	b.bytes = strtoull(argv[3], NULL, 10);
	if (b.count == 0 || b.bytes == 0 || open_all(&b, argv[1]) < 0 || run(&b, 1) < 0)
		return 1;
	while (fgets(line, sizeof(line), stdin) && line[0] != 'q') {
		seconds = step(&b, line);
		if (seconds < 0)
			return 1;
		printf("%.9f\n", seconds);
		fflush(stdout);
	}
	cairn_namespace_close(b.ns);
	return cairn_store_close(b.store, UINT64_MAX) < 0;
}
