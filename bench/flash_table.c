/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flash stage's index in memory, without a store: lookups among many blocks.
 *
 *	flash_table BLOCKS SHARDS [ROUNDS]
 *
 * Inserts BLOCKS blocks of SHARDS shards, then looks up 1000 keys at once, drawn from
 * all of them, ROUNDS times. Prints one JSON object: lookup_us (median), lookup_us_min,
 * lookup_us_p99, block_bytes (of memory, a block with its first shard), shard_bytes (a
 * further shard), insert_ns (a block).
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "stages/flash/table.h"

#define KEYS	    1000u
#define BLOCK_BYTES 48u /* the index's promise; what is above counts to the further shards */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "flash_table: %s\n", what);
	exit(1);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static struct cairn_key key_of(uint64_t number)
{
	uint64_t words[2] = {mix(number), mix(~number)};
	struct cairn_key key;

	memcpy(key.bytes, words, sizeof(words));
	return key;
}

static struct table *table_new(uint32_t blocks, uint32_t shards)
{
	static const uint64_t seed[2] = {1, 2};
	size_t bytes = table_bytes(blocks, (uint64_t)blocks * (shards - 1));
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct table *table;

	if (memory == MAP_FAILED)
		die("no address space");
	madvise(memory, bytes, MADV_HUGEPAGE); /* as the stage does; a hint */
	table_init(memory, blocks, (uint64_t)blocks * (shards - 1), seed, &table);
	return table;
}

static void insert(struct table *table, uint32_t number, uint32_t shards)
{
	struct table_geometry geometry = {shards, 4096, 4096};
	struct cairn_key key = key_of(number);
	uint32_t id;
	bool made;

	if (table_add(table, table_fingerprint(table, &key, 1, 1), &geometry, 1, &made, &id) !=
		    TABLE_OK ||
	    !made)
		die("a block was not taken");
	for (uint32_t shard = 0; shard < shards; shard++) {
		struct table_place place = {number * 64 + shard, 9, shard};

		table_place(table, id, shard, &place);
	}
	table_publish(table, id);
}

static double lookup_us(const struct table *table, uint32_t blocks, uint64_t round)
{
	static struct cairn_key keys[KEYS];
	static uint32_t ids[KEYS];
	uint64_t began;

	for (uint32_t i = 0; i < KEYS; i++)
		keys[i] = key_of(mix(round * KEYS + i) % blocks);
	began = now_ns();
	if (table_find_batch(table, 1, 1, keys, KEYS, true, 0, ids) != KEYS)
		die("a block was not found");
	return (double)(now_ns() - began) / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	uint32_t blocks = argc > 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
	uint32_t shards = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
	uint32_t rounds = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1001;
	double *us = calloc(rounds ? rounds : 1, sizeof(*us)), further = 0, block;
	struct table_figures figures;
	struct table *table;
	uint64_t began;

	if (!us || !blocks || !shards || shards > CAIRN_SHARD_COUNT_MAX || !rounds)
		die("flash_table BLOCKS SHARDS [ROUNDS]");
	table = table_new(blocks, shards);
	began = now_ns();
	for (uint32_t i = 0; i < blocks; i++)
		insert(table, i, shards);
	began = now_ns() - began;
	for (uint32_t i = 0; i < rounds; i++)
		us[i] = lookup_us(table, blocks, i);
	qsort(us, rounds, sizeof(*us), by_value);
	table_figures(table, &figures);
	block = (double)figures.memory_bytes / blocks;
	if (shards > 1) {
		further = (block - BLOCK_BYTES) / (shards - 1);
		block = BLOCK_BYTES;
	}
	printf("{\"blocks\": %u, \"shards\": %u, \"lookup_us\": %.2f, \"lookup_us_min\": %.2f, "
	       "\"lookup_us_p99\": %.2f, \"block_bytes\": %.3f, \"shard_bytes\": %.3f, "
	       "\"insert_ns\": %.0f}\n",
	       blocks, shards, us[rounds / 2], us[0], us[rounds * 99ull / 100], block, further,
	       (double)began / blocks);
	free(us);
	return 0;
}
