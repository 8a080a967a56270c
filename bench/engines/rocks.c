/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB with blob files (BlobDB) as a store of blocks: a side of side_by_side.py, by the
 * lines that sides.py says.
 *
 *	rocks FOLDER BYTES COUNT buffered|direct
 *
 * Blocks of BYTES each, memory for COUNT of them, two threads. Blobs are not compressed, a write
 * goes through the log (it outlives the process, not a power cut), checksums are checked.
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <rocksdb/c.h>

#define THREADS 2

struct rocks {
	rocksdb_t *db;
	rocksdb_readoptions_t *reading;
	rocksdb_writeoptions_t *writing;
	size_t bytes, count;
	char *memory;
};

/* What the threads share while they work on one command. */
struct work {
	struct rocks *rocks;
	uint64_t first, count;
	int put;
	uint64_t next, bad; /* atomic */
	double *took_us;    /* NULL, or a figure each */
	uint8_t *good;
};

static double clock_s(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* The bytes of a block are a function of its number. */
static void fill(char *at, size_t bytes, uint64_t number)
{
	uint64_t word = number * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i + sizeof(word) <= bytes; i += sizeof(word)) {
		word ^= word << 13;
		word ^= word >> 7;
		word ^= word << 17;
		memcpy(at + i, &word, sizeof(word));
	}
}

static int is_right(const char *at, size_t bytes, uint64_t number)
{
	char *wanted = calloc(1, bytes);
	int right;

	if (!wanted)
		return 0;
	fill(wanted, bytes, number);
	right = memcmp(at, wanted, bytes) == 0;
	free(wanted);
	return right;
}

static int one(struct work *work, uint64_t i)
{
	struct rocks *r = work->rocks;
	uint64_t key = work->first + i;
	char *at = r->memory + i % r->count * r->bytes, *error = NULL;
	rocksdb_pinnableslice_t *slice;
	size_t length = 0;
	const char *value;

	if (work->put) {
		rocksdb_put(r->db, r->writing, (const char *)&key, sizeof(key), at, r->bytes,
			    &error);
		free(error);
		return error == NULL;
	}
	slice = rocksdb_get_pinned(r->db, r->reading, (const char *)&key, sizeof(key), &error);
	free(error);
	value = slice ? rocksdb_pinnableslice_value(slice, &length) : NULL;
	if (value && length == r->bytes)
		memcpy(at, value, length);
	if (slice)
		rocksdb_pinnableslice_destroy(slice);
	return value && length == r->bytes;
}

static void *run_thread(void *context)
{
	struct work *work = context;
	uint64_t i;

	while ((i = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED)) < work->count) {
		double start = work->took_us ? clock_s(CLOCK_MONOTONIC) : 0;

		work->good[i] = (uint8_t)one(work, i);
		if (!work->good[i])
			__atomic_fetch_add(&work->bad, 1, __ATOMIC_RELAXED);
		if (work->took_us)
			work->took_us[i] = (clock_s(CLOCK_MONOTONIC) - start) * 1e6;
	}
	return NULL;
}

/* Of the work alone; CPU of all threads. */
struct spent {
	double seconds, cpu;
};

static struct spent run(struct work *work, int threads)
{
	pthread_t ids[THREADS];
	double start = clock_s(CLOCK_MONOTONIC), cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);

	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, run_thread, work) != 0)
			abort();
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	return (struct spent){clock_s(CLOCK_MONOTONIC) - start,
			      clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu};
}

static void tell_got(const struct work *work, struct spent spent)
{
	const struct rocks *r = work->rocks;
	uint64_t good = 0, wrong = 0;

	for (uint64_t i = 0; i < work->count; i++) {
		if (!work->good[i])
			continue;
		if (is_right(r->memory + i % r->count * r->bytes, r->bytes, work->first + i))
			good++;
		else
			wrong++;
	}
	printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"good\": %llu, \"wrong\": %llu, "
	       "\"missing\": %llu}\n",
	       spent.seconds, spent.cpu, (unsigned long long)good, (unsigned long long)wrong,
	       (unsigned long long)(work->count - good - wrong));
}

static void tell_times(const struct work *work)
{
	printf("{\"us\": [");
	for (uint64_t i = 0; i < work->count; i++)
		printf("%s%.1f", i ? ", " : "", work->took_us[i]);
	printf("], \"bad\": %llu}\n", (unsigned long long)work->bad);
}

/* Whether keys are there, by the filters of its files: no block is read. Microseconds a key. */
static void look_up(const struct work *work)
{
	struct rocks *r = work->rocks;
	double start = clock_s(CLOCK_MONOTONIC);
	uint64_t found = 0;

	for (uint64_t i = 0; i < work->count; i++) {
		uint64_t key = work->first + i;

		found += rocksdb_key_may_exist(r->db, r->reading, (const char *)&key, sizeof(key),
					       NULL, NULL, NULL, 0, NULL) != 0;
	}
	printf("{\"us\": %.3f, \"found\": %llu}\n",
	       (clock_s(CLOCK_MONOTONIC) - start) * 1e6 / (double)work->count,
	       (unsigned long long)found);
}

static void tell_usage(void)
{
	struct rusage usage;
	unsigned long long pages = 0, all = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	getrusage(RUSAGE_SELF, &usage);
	if (file) {
		if (fscanf(file, "%llu %llu", &all, &pages) != 2)
			pages = 0;
		fclose(file);
	}
	printf("{\"cpu\": %.6f, \"rss\": %llu}\n",
	       (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6,
	       pages * 4096);
}

static void command(struct rocks *r, const char *name, uint64_t first, uint64_t count)
{
	struct work work = {.rocks = r, .first = first, .count = count};

	work.good = calloc(count + 1, 1);
	work.put = strcmp(name, "put") == 0;
	if (!work.good || count > r->count)
		abort();
	for (uint64_t i = 0; work.put && i < count; i++)
		fill(r->memory + i * r->bytes, r->bytes, first + i);
	if (work.put) {
		struct spent spent = run(&work, THREADS);

		printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"good\": %llu}\n", spent.seconds,
		       spent.cpu, (unsigned long long)(count - work.bad));
	} else if (strcmp(name, "get") == 0) {
		memset(r->memory, 0xee, count * r->bytes);
		tell_got(&work, run(&work, THREADS));
	} else if (strcmp(name, "lone") == 0) {
		work.took_us = calloc(count, sizeof(*work.took_us));
		if (!work.took_us)
			abort();
		run(&work, 1);
		tell_times(&work);
		free(work.took_us);
	} else if (strcmp(name, "lookup") == 0) {
		look_up(&work);
	} else {
		tell_usage();
	}
	free(work.good);
	fflush(stdout);
}

static int open_db(struct rocks *r, const char *folder, int direct)
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
	char *error = NULL;

	rocksdb_options_set_create_if_missing(options, 1);
	rocksdb_options_set_compression(options, rocksdb_no_compression);
	rocksdb_options_set_enable_blob_files(options, 1);
	rocksdb_options_set_min_blob_size(options, 1024);
	rocksdb_options_set_blob_compression_type(options, rocksdb_no_compression);
	rocksdb_options_set_enable_blob_gc(options, 1);
	rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom(10));
	rocksdb_options_set_block_based_table_factory(options, table);
	rocksdb_options_increase_parallelism(options, THREADS);
	rocksdb_options_set_use_direct_reads(options, (unsigned char)direct);
	rocksdb_options_set_use_direct_io_for_flush_and_compaction(options, (unsigned char)direct);
	r->db = rocksdb_open(options, folder, &error);
	rocksdb_options_destroy(options);
	rocksdb_block_based_options_destroy(table);
	if (error) {
		fprintf(stderr, "rocks: %s\n", error);
		free(error);
		return -1;
	}
	r->reading = rocksdb_readoptions_create();
	rocksdb_readoptions_set_verify_checksums(r->reading, 1);
	r->writing = rocksdb_writeoptions_create();
	return 0;
}

int main(int argc, char **argv)
{
	struct rocks r = {0};
	char line[128], name[16];
	double start;

	if (argc != 5) {
		fprintf(stderr, "usage: rocks FOLDER BYTES COUNT buffered|direct\n");
		return 2;
	}
	r.bytes = strtoull(argv[2], NULL, 10);
	r.count = strtoull(argv[3], NULL, 10);
	r.memory = aligned_alloc(4096, r.bytes * r.count);
	if (!r.memory)
		return 1;
	memset(r.memory, 0xee, r.bytes * r.count);
	tell_usage();
	start = clock_s(CLOCK_MONOTONIC);
	if (open_db(&r, argv[1], strcmp(argv[4], "direct") == 0) < 0)
		return 1;
	printf("{\"opened\": %.6f}\n", clock_s(CLOCK_MONOTONIC) - start);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && line[0] != 'q') {
		unsigned long long first = 0, count = 0;

		if (sscanf(line, "%15s %llu %llu", name, &first, &count) >= 1)
			command(&r, name, first, count);
	}
	rocksdb_readoptions_destroy(r.reading);
	rocksdb_writeoptions_destroy(r.writing);
	rocksdb_close(r.db);
	return 0;
}
