/* SPDX-License-Identifier: Apache-2.0 */
/* Files as a crash may leave them, opened by the tier. */
#include "flash_image.h"

#include "posix_store.h"

#define SHARD 8192u

static struct image image;
static struct fixture store;

static void open_image(void)
{
	struct cairn_error error = {0};

	snprintf(store.spec, sizeof(store.spec), "flash(path=%s, size=8MiB, region=512KiB)",
		 image.path);
	if (cairn_store_open(store.spec, NULL, &store.store, &error) < 0)
		fail_msg("%s: %s", store.spec, error.text);
	fixture_space(&store, "model", 1, SHARD);
}

/*
 * A remove's mark got there, and the record that it was for did not: what takes
 * the record's number next is not dead for that.
 */
static void a_number_is_not_dead_before_it_is_used(void **state)
{
	(void)state;
	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 0, 0, 1);
	for (uint32_t region = 0; region < image.layout.region_count; region++) {
		image_open(&image, region, region + 1);
		image_mark(&image, region, 0, FLASH_MARK_DEAD, 4);
	}
	open_image();
	assert_int_equal(dump_one(&store, 1, 0, SHARD, CAIRN_DURABLE), 0);
	fixture_close(&store);
	open_image();
	assert_true(present(&store, 1));
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	fixture_close(&store);
	image_free(&image);
}

static uint32_t generation_in(uint32_t copy)
{
	const uint8_t *area = image.bytes + flash_space_at(&image.layout, copy);
	struct flash_space_entry entry;
	const void *desc;
	uint32_t at = 0;

	assert_int_equal(flash_space_decode(area, image.layout.space_bytes, &image.super.id),
			 FLASH_OK);
	assert_true(flash_space_next(area, &at, &entry, &desc));
	return entry.generation;
}

/* Of two copies the one that was flushed last is left alone until the other one is, too. */
static void a_flushed_copy_of_the_namespaces_stays(void **state)
{
	(void)state;
	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 0, 0, 1);
	open_image();
	assert_int_equal(cairn_clear(store.ns, CAIRN_DURABLE), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(cairn_clear(store.ns, CAIRN_WRITTEN), 0);
	assert_int_equal(generation_in(0) + generation_in(1), 1 + 4);
	assert_int_equal(cairn_clear(store.ns, CAIRN_DURABLE), 0);
	assert_int_equal(cairn_clear(store.ns, CAIRN_WRITTEN), 0);
	assert_int_equal(generation_in(0) + generation_in(1), 5 + 6);
	fixture_close(&store);
	image_free(&image);
}

static uint32_t dead_in(uint32_t region, uint32_t copy)
{
	const struct flash_marks *marks =
		(const void *)(image.bytes + flash_marks_at(&image.layout, region, 0, copy));
	uint32_t dead = 0;

	for (uint32_t i = 0; i < FLASH_MARKS_PER_PAGE; i++)
		dead += marks->marks[i] == FLASH_MARK_DEAD;
	return dead;
}

static void remove_one(uint32_t number, uint32_t durability)
{
	struct cairn_key key = key_of(&store, number);

	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};

	assert_int_equal(cairn_remove(store.ns, &key, 1, NULL, &opts, NULL), 0);
}

static void a_flushed_copy_of_the_marks_stays(void **state)
{
	uint32_t fewest = UINT32_MAX, most = 0;

	(void)state;
	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 0, 0, 1);
	open_image();
	for (uint32_t i = 0; i < 6; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, CAIRN_DURABLE), 0);
	remove_one(0, CAIRN_DURABLE);
	for (uint32_t i = 1; i < 4; i++)
		remove_one(i, CAIRN_WRITTEN);
	for (uint32_t region = 0; region < image.layout.region_count; region++)
		for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
			uint32_t dead = dead_in(region, copy);

			most = dead > most ? dead : most;
			fewest = dead && dead < fewest ? dead : fewest;
		}
	assert_int_equal(fewest, 1);
	assert_int_equal(most, 4);
	fixture_close(&store);
	image_free(&image);
}

/* Two records of one shard and birth in one region: the first one was given up. */
static void of_two_records_in_a_region_the_later_counts(void **state)
{
	const struct image_record spec = {.block = 5};
	struct cairn_key key = image_key(5);
	uint8_t bytes[5000];
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, bytes, sizeof(bytes));
	uint32_t unit;

	(void)state;
	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 1, 0, 1);
	image_open(&image, 3, 9);
	unit = image.regions[3].unit;
	image_record(&image, 3, &spec);
	image_at(&image, unit + flash_head_units(&image.layout, 5000))[100] ^= 1;
	image_record(&image, 3, &spec);
	image_seal(&image, 3);
	open_image();
	fixture_space(&store, "model-0", 0, 0);
	assert_int_equal(cairn_load(store.ns, &xfer, 1, NULL, NULL), 0);
	for (uint32_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], image_byte(&spec, i));
	fixture_close(&store);
	image_free(&image);
}

static bool is_dead(uint32_t region, uint32_t number)
{
	bool dead = false;

	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		const struct flash_marks *marks =
			(const void *)(image.bytes +
				       flash_marks_at(&image.layout, region, 0, copy));

		dead = dead || marks->marks[number] == FLASH_MARK_DEAD;
	}
	return dead;
}

static uint32_t put(uint32_t region, uint32_t block, uint64_t birth, uint32_t shard,
		    uint32_t shard_count, uint32_t bytes)
{
	struct image_record spec = {.block = block,
				    .birth = birth,
				    .shard = shard,
				    .shard_count = shard_count,
				    .shard_bytes = bytes,
				    .generation = 1};

	image_record(&image, region, &spec);
	return flash_record_units(&image.layout, bytes);
}

/* Of two records of a shard the later one counts, of two births the later: and once each. */
static void what_counts(bool sealed)
{
	static const uint8_t dead[3][6] = {{1, 1, 1, 1}, {0, 0, 0, 0, 0, 1}, {1, 0}};
	uint32_t units;

	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 1, 1, 1);
	for (uint32_t region = 0; region < 3; region++)
		image_open(&image, region, region + 1);
	put(0, 1, 7, 0, 1, 5000);
	put(0, 2, 7, 0, 1, 5000);
	put(0, 4, 7, 0, 2, 1000);
	put(0, 5, 7, 0, 2, 1000);	  /* it has no other shard */
	units = put(1, 1, 7, 0, 1, 5000); /* carried */
	units += put(1, 2, 9, 0, 1, 700); /* dumped anew */
	units += put(1, 3, 7, 0, 1, 600);
	units += put(1, 4, 7, 1, 2, 1000);
	units += put(1, 6, 7, 0, 1, 4000);
	put(1, 5, 6, 1, 2, 1000); /* of an earlier birth */
	put(2, 2, 7, 0, 1, 5000); /* carried, after all */
	units += put(2, 4, 7, 0, 2, 1000);
	for (uint32_t region = 0; sealed && region < 3; region++)
		image_seal(&image, region);
	open_image();
	assert_int_equal(counter(&store, "recovered_blocks"), 5);
	assert_int_equal(counter(&store, "partials_dropped"), 1);
	/* Superblock and namespaces; and what was open got its table and trailer. */
	assert_true(counter(&store, "other_bytes") >= 2 * 4096 + (sealed ? 0 : 3 * 1024));
	assert_int_equal(blocks_known(&store), 5);
	assert_int_equal(bytes_used(&store), image.layout.regions_offset + units * 512);
	fixture_close(&store);
	for (uint32_t region = 0; region < 3; region++)
		for (uint32_t i = 0; i < image.regions[region].number; i++)
			assert_int_equal(is_dead(region, i), dead[region][i]);
	/* The same once more, by the tables and marks. */
	open_image();
	assert_int_equal(blocks_known(&store), 5);
	assert_int_equal(bytes_used(&store), image.layout.regions_offset + units * 512);
	fixture_close(&store);
	image_free(&image);
}

static void each_block_counts_once(void **state)
{
	(void)state;
	what_counts(true);
	what_counts(false);
}

/* ---- no region is free ------------------------------------------------------------------ */

/*
 * Killed when the last free region had just been begun, for what is carried, and the header that
 * makes the next one free was not written: all are full or closed, and some blocks in each are hot.
 */
static void no_region_is_free(const char *policy, uint32_t hot)
{
	struct cairn_error error = {0};

	image_new(&image, 8u << 20, 512u << 10, 512);
	image.super.epoch = 60;
	image_super_put(&image);
	image_spaces(&image, 1, 0, 1);
	for (uint32_t region = 0; region < image.layout.region_count; region++) {
		image_open(&image, region, region + 1);
		for (uint32_t i = 0; i < 12; i++) {
			struct image_record spec = {.block = region * 12 + i, .shard_bytes = 40000};
			uint32_t number = image_record(&image, region, &spec);

			if (i < hot)
				image_mark(&image, region, number, flash_mark_of(60), 4);
		}
		image_seal(&image, region);
	}
	snprintf(store.spec, sizeof(store.spec), "flash(path=%s, policy=%s)", image.path, policy);
	if (cairn_store_open(store.spec, NULL, &store.store, &error) < 0)
		fail_msg("%s: %s", store.spec, error.text);
	fixture_space(&store, "model", 1, SHARD);
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(dump_one(&store, i, 0, SHARD, CAIRN_WRITTEN), 0);
	fixture_close(&store);
	image_free(&image);
}

static void dumps_find_room_where_no_region_is_free(void **state)
{
	static const char *const policies[] = {"cost", "lru", "fifo"};

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t hot = 0; hot <= 4; hot++)
			no_region_is_free(policies[i], hot);
}

/* ---- of a version that is not known ---------------------------------------------------- */

/* One line that says so, and not a byte is changed. */
static void refused(const char *what)
{
	struct cairn_error error = {0};
	struct cairn_store *other;
	uint8_t *before = malloc(image.layout.file_bytes);

	memcpy(before, image.bytes, image.layout.file_bytes);
	snprintf(store.spec, sizeof(store.spec), "flash(path=%s)", image.path);
	assert_int_equal(cairn_store_open(store.spec, NULL, &other, &error), -EPROTO);
	if (!strstr(error.text, "format version") || !strstr(error.text, image.path) ||
	    strchr(error.text, '\n'))
		fail_msg("%s: %s", what, error.text);
	assert_memory_equal(before, image.bytes, image.layout.file_bytes);
	free(before);
}

/* Two sealed regions and an open one. */
static void image_of_three(void)
{
	image_new(&image, 8u << 20, 512u << 10, 512);
	image_spaces(&image, 0, 0, 1);
	for (uint32_t region = 0; region < 3; region++) {
		image_open(&image, region, region + 1);
		if (region < 2)
			image_seal(&image, region);
	}
}

static void newer_superblocks(void **state)
{
	(void)state;
	image_of_three();
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		struct flash_super *super = (void *)(image.bytes + flash_super_at(copy));

		super->version = FLASH_FORMAT + 1;
		super->crc = crc32c(0, super, offsetof(struct flash_super, crc));
		refused("a superblock");
	}
	image_free(&image);
}

static void newer_namespaces(void **state)
{
	(void)state;
	image_of_three();
	image_spaces(&image, 0, 0, 2);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) { /* the later one, then both */
		struct flash_space_head *head =
			(void *)(image.bytes + flash_space_at(&image.layout, copy));

		head->version = FLASH_FORMAT + 1;
		head->crc = crc32c(crc32c(0, head, offsetof(struct flash_space_head, crc)),
				   head + 1, head->bytes - sizeof(*head));
		refused("the namespaces");
	}
	image_free(&image);
}

static void newer_headers(void **state)
{
	(void)state;
	for (uint32_t region = 0; region < 3; region++) {
		struct flash_region_head *head;

		image_of_three();
		head = (void *)(image.bytes + flash_region_at(&image.layout, region));
		head->version = FLASH_FORMAT + 1;
		head->crc = crc32c(0, head, offsetof(struct flash_region_head, crc));
		refused("a header");
		image_free(&image);
	}
}

static void newer_tables(void **state)
{
	(void)state;
	for (uint32_t region = 0; region < 2; region++) {
		struct flash_trailer *trailer;

		image_of_three();
		trailer = (void *)(image.bytes +
				   flash_byte_of(&image.layout,
						 flash_trailer_unit(&image.layout, region)));
		trailer->version = FLASH_FORMAT + 1;
		trailer->crc = crc32c(flash_salt(&image.super.id, region + 1), trailer,
				      offsetof(struct flash_trailer, crc));
		refused("a table");
		image_free(&image);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(newer_superblocks),
		cmocka_unit_test(newer_namespaces),
		cmocka_unit_test(newer_headers),
		cmocka_unit_test(newer_tables),
		cmocka_unit_test(a_number_is_not_dead_before_it_is_used),
		cmocka_unit_test(a_flushed_copy_of_the_namespaces_stays),
		cmocka_unit_test(a_flushed_copy_of_the_marks_stays),
		cmocka_unit_test(each_block_counts_once),
		cmocka_unit_test(of_two_records_in_a_region_the_later_counts),
		cmocka_unit_test(dumps_find_room_where_no_region_is_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
