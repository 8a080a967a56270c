/* SPDX-License-Identifier: Apache-2.0 */
/* The posix tier's bytes: what is damaged is seen, what is documented is so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "stages/posix/format.h"
#include "stages/posix/names.h"

static struct block_id id;

/* A block of 2 shards of 70000 bytes, of which the last is short and stored shorter. */
static uint8_t *sample(struct geometry *ret_geo)
{
	struct cairn_block_attr attr = {
		.size = sizeof(attr), .depth = 3, .priority = 7, .ttl_ns = 1000, .cost_ns = 2000};
	struct block_head head;
	uint8_t *image;

	for (uint32_t i = 0; i < 16; i++)
		id.key.bytes[i] = (uint8_t)(0x10 + i);
	id.space = 1;
	id.generation = 2;
	memset(&attr.parent, 0x77, sizeof(attr.parent));
	assert_true(geometry_init(ret_geo, 2, 70000, 500));
	image = calloc(1, ret_geo->head_bytes);
	assert_non_null(image);
	head_init(&head, &id, ret_geo, 42, &attr, true);
	head.created_ns = 1700000000000000000u;
	head_seal(&head);
	memcpy(image, &head, sizeof(head));
	for (uint32_t shard = 0; shard < 2; shard++) {
		struct block_entry *entry = (void *)(image + geometry_entry_at(ret_geo, shard));
		uint32_t *table = (void *)(image + geometry_table_at(ret_geo, shard));

		entry->flags = ENTRY_PRESENT;
		entry->shard = shard;
		entry->offset = geometry_offset(ret_geo, shard);
		entry->raw_length = shard ? 500 : 70000;
		entry->stored_length = shard ? 400 : 70000;
		entry->meta_length = shard ? 3 : 0;
		memcpy(entry->meta, "zst", entry->meta_length);
		table[0] = 0x11111111u * (shard + 1);
		if (!shard)
			table[1] = 0x22222222u;
		entry_seal(entry, &id, table, ret_geo);
	}
	return image;
}

static void every_bit_of_a_head_counts(void **state)
{
	struct geometry geo, found;
	uint8_t *image = sample(&geo);

	(void)state;
	assert_int_equal(head_check_all(image, geo.head_bytes, &id, &found), HEAD_OK);
	assert_true(geometry_same(&geo, &found));
	for (uint32_t bit = 0; bit < geo.head_bytes * 8; bit++) {
		image[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(head_check_all(image, geo.head_bytes, &id, NULL), HEAD_OK);
		image[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(head_check_all(image, geo.head_bytes, NULL, NULL), HEAD_OK);
	free(image);
}

static void every_truncation_is_seen(void **state)
{
	struct geometry geo;
	uint8_t *image = sample(&geo);

	(void)state;
	for (uint32_t bytes = 0; bytes < geo.head_bytes; bytes++) {
		uint8_t *piece = malloc(bytes + !bytes);

		memcpy(piece, image, bytes);
		assert_int_equal(head_check_all(piece, bytes, &id, NULL), HEAD_DAMAGED);
		free(piece);
	}
	free(image);
}

static void another_block_is_another(void **state)
{
	struct block_id other;
	struct geometry geo;
	uint8_t *image = sample(&geo);
	const struct block_entry *entry = (const void *)(image + geometry_entry_at(&geo, 0));

	(void)state;
	other = id;
	other.key.bytes[15] ^= 1;
	assert_int_equal(head_check_all(image, geo.head_bytes, &other, NULL), HEAD_DAMAGED);
	assert_false(entry_check(entry, &other, 0, &geo, NULL));
	assert_false(entry_check(entry, &id, 1, &geo, NULL));
	other = id;
	other.generation++;
	assert_int_equal(head_check_all(image, geo.head_bytes, &other, NULL), HEAD_DAMAGED);
	free(image);
}

static void newer_versions_are_told(void **state)
{
	struct geometry geo;
	uint8_t *image = sample(&geo);
	struct block_head *head = (void *)image;

	(void)state;
	head->version++;
	head_seal(head);
	assert_int_equal(head_check_all(image, geo.head_bytes, &id, NULL), HEAD_VERSION);
	head->version--;
	head->flags |= 0x80;
	head_seal(head);
	assert_int_equal(head_decode(head, NULL), HEAD_VERSION);
	head->flags &= ~0x80u;
	head->zero[5] = 1;
	head_seal(head);
	assert_int_equal(head_decode(head, NULL), HEAD_VERSION);
	free(image);
}

static void geometry_bounds(void **state)
{
	struct geometry geo;

	(void)state;
	assert_false(geometry_init(&geo, 0, 1, 1));
	assert_false(geometry_init(&geo, 1025, 1, 1));
	assert_false(geometry_init(&geo, 1, 0, 0));
	assert_false(geometry_init(&geo, 1, (64u << 20) + 1, 1));
	assert_false(geometry_init(&geo, 1, 10, 11));
	assert_true(geometry_init(&geo, 1024, 64u << 20, 64u << 20));
	assert_int_equal(geo.head_bytes, 256 + 1024 * 128 + 1024 * 4096 + 3840);
	assert_int_equal(geometry_file_bytes(&geo), geo.head_bytes + (1024ull << 26));
	assert_true(geometry_init(&geo, 1, 262144, 262144));
	assert_int_equal(geo.head_bytes, 4096);
	assert_int_equal(geometry_table_at(&geo, 0), 384);
}

static void names_both_ways(void **state)
{
	struct block_id back, other;
	char path[NAME_MAX_BYTES], again[NAME_MAX_BYTES];
	struct geometry geo;
	uint32_t number, generation;

	(void)state;
	free(sample(&geo));
	name_block(&id, 12, path);
	assert_string_equal(path, "101/208h44ok2kb1e60p38dho78u3s-1-2");
	assert_int_equal(name_parse_block(path + 4, &back), NAME_BLOCK);
	assert_memory_equal(&back, &id, sizeof(id));
	other = (struct block_id){.space = 1, .generation = 2};
	memset(&other.key, 0xff, sizeof(other.key));
	name_block_rekey(&other.key, 12, path);
	name_block(&other, 12, again);
	assert_string_equal(path, again);
	assert_string_equal(path, "fff/vvvvvvvvvvvvvvvvvvvvvvvvvs-1-2");
	other.space = other.generation = UINT32_MAX;
	name_temp_shared(&other, 12, 0xffffffff, 0xffffffff, path);
	assert_true(strlen(path) < sizeof(path));
	assert_int_equal(name_parse_block(path + 4, &back), NAME_TEMP);
	assert_memory_equal(&back, &other, sizeof(other));
	name_block(&id, 0, path);
	assert_memory_equal(path, "000/", 4);
	name_temp(&id, 12, 0xabc, path);
	assert_int_equal(name_parse_block(path + 4, &back), NAME_TEMP);
	name_part(&id, 12, path);
	assert_int_equal(name_parse_block(path + 4, &back), NAME_PART);
	assert_false(name_parse_dir("100", 8, &number));
	assert_true(name_parse_dir("0ff", 8, &number));
	assert_int_equal(number, 255);
	assert_int_equal(name_parse_space("a.g3", &number, &generation), NAME_GENERATION);
	assert_int_equal(number * 16 + generation, 0xa3);
	name_aside(&id, 0xb, path);
	assert_string_equal(path, "quarantine/208h44ok2kb1e60p38dho78u3s-1-2.0000000b");
	name_generation(0xa0, 0x10, path);
	assert_string_equal(path, "a0.g10");
	name_space(0, path);
	assert_string_equal(path, "0");
	assert_int_equal(name_parse_space("0.t0000000a", &number, &generation), NAME_TEMP);
}

/* Each block has one name: what means the same in other letters is not taken for it. */
static void other_spellings_are_other(void **state)
{
	static const char *const blocks[] = {
		"",
		"208h44ok2kb1e60p38dho78u3s",
		"208h44ok2kb1e60p38dho78u3s-1",
		"208h44ok2kb1e60p38dho78u3s-1-",
		"208h44ok2kb1e60p38dho78u3s--2",
		"208h44ok2kb1e60p38dho78u3s-01-2",
		"208h44ok2kb1e60p38dho78u3s-1-00",
		"208h44ok2kb1e60p38dho78u3s-1-100000000",
		"208h44ok2kb1e60p38dho78u3s-A-2",
		"208h44ok2kb1e60p38dho78u3s-1-2.",
		"208h44ok2kb1e60p38dho78u3s-1-2.T00000001",
		"208h44ok2kb1e60p38dho78u3s-1-2.t1",
		"208h44ok2kb1e60p38dho78u3s-1-2.t000000011",
		"208h44ok2kb1e60p38dho78u3s-1-2.t00000001-",
		"208h44ok2kb1e60p38dho78u3s-1-2.t00000001-1",
		"208h44ok2kb1e60p38dho78u3s-1-2.t00000001-00000001-",
		"208h44ok2kb1e60p38dho78u3s-1-2.PART",
		"208h44ok2kb1e60p38dho78u3s-1-2.part2",
		/* bits behind the key's last; letters that are no digits; a digit less, and more */
		"208h44ok2kb1e60p38dho78u3t-1-2",
		"208H44OK2KB1E60P38DHO78U3S-1-2",
		"w08h44ok2kb1e60p38dho78u3s-1-2",
		"08h44ok2kb1e60p38dho78u3s-1-2",
		"208h44ok2kb1e60p38dho78u3s0-1-2",
	};
	static const char *const spaces[] = {
		"", "00", "A", "0.g", "0.g01", "0.G1", "0.t1", "0.t00000001-00000001", "100000000"};
	struct block_id back;
	uint32_t number, generation;

	(void)state;
	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
		assert_int_equal(name_parse_block(blocks[i], &back), NAME_OTHER);
	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		assert_int_equal(name_parse_space(spaces[i], &number, &generation), NAME_OTHER);
}

static void small_records(void **state)
{
	struct super_block super = {.dirs_log2 = 3};
	struct space_head *space;
	uint8_t file[sizeof(*space) + 5] = {0};

	(void)state;
	super_seal(&super);
	assert_int_equal(super_decode(&super), HEAD_OK);
	for (uint32_t bit = 0; bit < sizeof(super) * 8; bit++) {
		((uint8_t *)&super)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(super_decode(&super), HEAD_DAMAGED);
		((uint8_t *)&super)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	space = (void *)file;
	memcpy(file + sizeof(*space), "hello", 5);
	space->id = 9;
	space->desc_length = 5;
	space_seal(space, file + sizeof(*space));
	assert_int_equal(space_decode(file, sizeof(file), 9), HEAD_OK);
	assert_int_equal(space_decode(file, sizeof(file), 8), HEAD_DAMAGED);
	assert_int_equal(space_decode(file, sizeof(file) - 1, 9), HEAD_DAMAGED);
	for (uint32_t bit = 0; bit < sizeof(file) * 8; bit++) {
		file[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(space_decode(file, sizeof(file), 9), HEAD_DAMAGED);
		file[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* ---- docs/format.md ------------------------------------------------------------------ */

/* The block that the document shows: one shard, the 11 bytes "hello cairn". */
static void documented(uint8_t *file)
{
	static const char payload[] = "hello cairn";
	struct block_id doc_id = {.space = 0, .generation = 0};
	struct block_entry *entry;
	struct block_head head;
	struct geometry geo;
	uint32_t *table;

	for (uint32_t i = 0; i < 16; i++)
		doc_id.key.bytes[i] = (uint8_t)(0xa0 + i);
	assert_true(geometry_init(&geo, 1, 11, 11));
	head_init(&head, &doc_id, &geo, 7, NULL, false);
	head.flags |= BLOCK_RAW;
	head.created_ns = 1767225600000000000u;
	head_seal(&head);
	memcpy(file, &head, sizeof(head));
	table = (void *)(file + geometry_table_at(&geo, 0));
	table[0] = crc32c(0, payload, 11);
	entry = (void *)(file + geometry_entry_at(&geo, 0));
	entry->flags = ENTRY_PRESENT;
	entry->offset = geometry_offset(&geo, 0);
	entry->raw_length = entry->stored_length = 11;
	entry_seal(entry, &doc_id, table, &geo);
	memcpy(file + entry->offset, payload, 11);
}

static void the_document_is_right(void **state)
{
	const char *path = getenv("FORMAT_MD");
	static uint8_t file[8192] __attribute__((aligned(4096)));
	char line[256], text[32768];
	FILE *document = path ? fopen(path, "r") : NULL;
	bool inside = false, named = false;
	size_t used = 0, at = 0;
	char name[NAME_MAX_BYTES];

	(void)state;
	if (!document)
		fail_msg("FORMAT_MD must name docs/format.md");
	documented(file);
	name_block(&((struct block_head *)(void *)file)->id, 12, name);
	for (size_t row = 0; row < sizeof(file); row += 16) {
		bool empty = true;

		for (size_t i = 0; i < 16; i++)
			empty = empty && !file[row + i];
		if (empty)
			continue;
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%08zx ", row);
		for (size_t i = 0; i < 16; i++)
			used += (size_t)snprintf(text + used, sizeof(text) - used, " %02x",
						 file[row + i]);
		used += (size_t)snprintf(text + used, sizeof(text) - used, "\n");
	}
	if (getenv("FORMAT_PRINT"))
		fprintf(stderr, "%s", text);
	while (fgets(line, sizeof(line), document)) {
		named = named || strstr(line, name);
		if (strncmp(line, "```hexdump", 10) == 0) {
			inside = true;
			continue;
		}
		if (inside && strncmp(line, "```", 3) == 0)
			break;
		if (!inside)
			continue;
		assert_true(at + strlen(line) <= used);
		assert_memory_equal(text + at, line, strlen(line));
		at += strlen(line);
	}
	fclose(document);
	assert_int_equal(at, used);
	assert_true(named);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit_of_a_head_counts),
		cmocka_unit_test(every_truncation_is_seen),
		cmocka_unit_test(another_block_is_another),
		cmocka_unit_test(newer_versions_are_told),
		cmocka_unit_test(geometry_bounds),
		cmocka_unit_test(names_both_ways),
		cmocka_unit_test(other_spellings_are_other),
		cmocka_unit_test(small_records),
		cmocka_unit_test(the_document_is_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
