/* SPDX-License-Identifier: Apache-2.0 */
/* What is rebuilt of a damaged flash store, and what is said of it. */
#include "flash_image.h"

#include <errno.h>
#include <sys/file.h>

#include "stages/flash/atrest.h"
#include "stages/flash/scan.h"

#define FILE_BYTES   (2u << 20)
#define REGION_BYTES 131072u
#define BLOCKS	     15u

static struct image image;
static struct flash_rest_opts opts;
static struct cairn_error error;

/* Region 0 sealed with blocks 0 to 9, of which 3 is removed; region 4 open with 10 to 14. */
static void make(void)
{
	image_new(&image, FILE_BYTES, REGION_BYTES, 512);
	image_spaces(&image, 2, 0, 1);
	image_spaces(&image, 2, 0, 2);
	image.super.flags = FLASH_SUPER_CLEAN;
	image_super_put(&image);
	image_open(&image, 0, 11);
	for (uint32_t i = 0; i < 10; i++)
		image_record(&image, 0, &(struct image_record){.block = i, .birth = 5000 + i});
	image_seal(&image, 0);
	image_mark(&image, 0, 3, FLASH_MARK_DEAD, 1);
	image_mark(&image, 0, 3, FLASH_MARK_DEAD, 2);
	image_open(&image, 4, 12);
	for (uint32_t i = 10; i < BLOCKS; i++)
		image_record(&image, 4, &(struct image_record){.block = i, .birth = 5000 + i});
}

static int setup(void **state)
{
	(void)state;
	make();
	opts = (struct flash_rest_opts){.sys = &sys_native, .stage = "flash", .path = image.path};
	memset(&error, 0, sizeof(error));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	image_free(&image);
	return 0;
}

static uint32_t by_kind[3];
static char last_what[256];

static int see_finding(void *context, const struct cairn_finding *finding)
{
	(void)context;
	by_kind[finding->kind]++;
	snprintf(last_what, sizeof(last_what), "%s", finding->what);
	return 0;
}

static int repair(void)
{
	memset(by_kind, 0, sizeof(by_kind));
	last_what[0] = '\0';
	return flash_rest_repair(&opts, see_finding, NULL, &error);
}

static int check(void)
{
	memset(by_kind, 0, sizeof(by_kind));
	return flash_rest_check(&opts, see_finding, NULL, &error);
}

static bool seen[BLOCKS];

static int see_block(void *context, const struct cairn_listed *block)
{
	(void)context;
	for (uint32_t i = 0; i < BLOCKS; i++) {
		struct cairn_key key = image_key(i);

		seen[i] = seen[i] || memcmp(&block->key, &key, sizeof(key)) == 0;
	}
	return 0;
}

/* That what is listed is what was made, but for the removed one and those in [from, to). */
static void lists_all_but(uint32_t from, uint32_t to)
{
	uint64_t missed;

	memset(seen, 0, sizeof(seen));
	assert_true(flash_rest_list(&opts, see_block, NULL, &missed, &error) >= 0);
	assert_int_equal(missed, 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(seen[i], i != 3 && (i < from || i >= to));
}

/* That damage at @at is mended without a loss, in words with @what. */
static void mends(uint8_t *at, const char *what)
{
	*at ^= 0x10;
	assert_true(check() > 0);
	assert_int_equal(repair(), CAIRN_FINDING_REPAIRABLE);
	if (!strstr(last_what, what))
		fail_msg("\"%s\" is not in \"%s\"", what, last_what);
	assert_int_equal(by_kind[1], 1);
	assert_int_equal(check(), 0);
	lists_all_but(0, 0);
	assert_int_equal(repair(), 0);
}

static void what_is_there_twice(void **state)
{
	const struct flash_layout *layout = &image.layout;

	(void)state;
	assert_int_equal(repair(), 0);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		mends(image.bytes + flash_super_at(copy) + 70, "superblock");
		mends(image.bytes + flash_space_at(layout, copy) + 70, "namespaces");
		mends(image.bytes + flash_marks_at(layout, 0, 0, copy) + 70, "marks");
	}
}

static void tables(void **state)
{
	const struct flash_layout *layout = &image.layout;
	uint8_t *table = image_at(&image, flash_table_unit(layout, 0, 10));
	uint8_t *trailer = image_at(&image, flash_trailer_unit(layout, 0));
	uint8_t before[640];

	(void)state;
	memcpy(before, table, sizeof(before));
	mends(table + 100, "from 10 records");
	assert_memory_equal(table, before, sizeof(before));
	mends(trailer + 100, "from 10 records");
	assert_memory_equal(table, before, sizeof(before));
}

static void a_superblock_from_the_regions(void **state)
{
	struct flash_super_found found;

	(void)state;
	memset(image.bytes, 0x55, 2ull * FLASH_PAGE);
	assert_int_equal(check(), -EPROTO);
	assert_int_equal(repair(), CAIRN_FINDING_REPAIRABLE);
	assert_non_null(strstr(last_what, "from a region's header"));
	lists_all_but(0, 0);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_int_equal(found.copies[0] + found.copies[1], FLASH_OK);
	assert_memory_equal(&found.layout, &image.layout, sizeof(found.layout));
	assert_memory_equal(&found.super.id, &image.super.id, sizeof(found.super.id));
	assert_true(found.super.sequence > 5000 + BLOCKS);
	assert_true(found.super.region_seq > 12);
	assert_int_equal(found.super.epoch, 5);
	assert_int_equal(found.super.flags, 0); /* the next open looks for the last records */
	assert_int_equal(repair(), 0);
}

/* A device that had another store before: its headers are passed over. */
static void the_younger_of_two_stores(void **state)
{
	struct flash_super older = image.super;
	struct flash_super_found found;
	struct flash_region_head head;

	(void)state;
	older.id.uuid[0]++;
	older.created_ns -= 1000;
	for (uint32_t region = 1; region < 4; region++) {
		flash_region_head_init(&head, &older, region, 77, 0, 0, 0);
		memcpy(image.bytes + flash_region_at(&image.layout, region), &head, sizeof(head));
	}
	memcpy(image.bytes + flash_region_at(&image.layout, 0), &head, sizeof(head));
	flash_region_head_init(&head, &older, 0, 78, 0, 0, 0);
	memcpy(image.bytes + flash_region_at(&image.layout, 0), &head, sizeof(head));
	memset(image.bytes, 0x55, 2ull * FLASH_PAGE);
	assert_int_equal(repair(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_memory_equal(&found.super.id, &image.super.id, sizeof(found.super.id));
	lists_all_but(0, 10);
}

static void what_is_lost(void **state)
{
	uint8_t *payload = image_at(&image, image.regions[0].table[5].unit + 1);
	uint8_t *head = image_at(&image, image.regions[0].table[6].unit);

	(void)state;
	payload[1000] ^= 1;
	head[100] ^= 1;
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(by_kind[2], 2);
	assert_int_equal(check(), 0);
	lists_all_but(5, 7);
	image.bytes[flash_region_at(&image.layout, 0) + 60] ^= 1;
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(by_kind[2], 1);
	assert_int_equal(check(), 0);
	lists_all_but(0, 10);
	assert_int_equal(repair(), 0);
}

static void what_an_open_mends_is_left_to_it(void **state)
{
	(void)state;
	image_at(&image, image.regions[4].unit - 1)[0] ^= 1;
	image.super.flags = 0;
	image_super_put(&image);
	image_super_put(&image);
	assert_int_equal(repair(), 0);
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
}

static void what_cannot_be_mended(void **state)
{
	(void)state;
	assert_int_equal(flock(image.fd, LOCK_EX), 0);
	assert_int_equal(repair(), -EBUSY);
	assert_int_equal(flock(image.fd, LOCK_UN), 0);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		image.bytes[flash_space_at(&image.layout, copy) + 70] ^= 1;
	assert_int_equal(repair(), -EPROTO);
	assert_non_null(strstr(error.text, "namespaces"));
	memset(image.bytes, 0x55, FILE_BYTES);
	assert_int_equal(repair(), -EPROTO);
	memset(image.bytes, 0, FILE_BYTES);
	assert_int_equal(repair(), -ENOENT);
}

/* ---- every write fails once ----------------------------------------------------------- */

static uint32_t calls, fail_at;

static ssize_t failing_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	assert_int_equal((uintptr_t)iov->iov_base % 512, 0);
	assert_int_equal(iov->iov_len % 512, 0);
	if (++calls != fail_at)
		return sys_native.pwritev(fd, iov, iov_count, offset);
	/* What was being written is torn. */
	if (pwrite(fd, iov->iov_base, iov->iov_len / 2 / 512 * 512, offset) < 0)
		fail();
	return -EIO;
}

static int failing_fdatasync(int fd)
{
	return ++calls == fail_at ? -EIO : sys_native.fdatasync(fd);
}

static void may_end_anywhere(void **state)
{
	struct sys sys = sys_native;

	(void)state;
	sys.pwritev = failing_pwritev;
	sys.fdatasync = failing_fdatasync;
	for (fail_at = 1; fail_at < 100; fail_at++) {
		const struct flash_layout *layout = &image.layout;
		int rc;

		teardown(NULL);
		setup(NULL);
		opts.sys = &sys;
		memset(image.bytes, 0x55, 2ull * FLASH_PAGE);
		image.bytes[flash_space_at(layout, 1) + 70] ^= 1;
		image.bytes[flash_marks_at(layout, 0, 0, 0) + 70] ^= 1;
		image_at(&image, flash_table_unit(layout, 0, 10))[100] ^= 1;
		image_at(&image, image.regions[0].table[5].unit + 1)[7] ^= 1;
		calls = 0;
		rc = repair();
		if (calls < fail_at)
			break;
		assert_int_equal(rc, -EIO);
		assert_true(repair() >= 0);
		lists_all_but(5, 6);
		assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE); /* it was not closed */
		assert_int_equal(by_kind[1], 1);
	}
	assert_in_range(fail_at, 12, 40);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_is_there_twice),
		CASE(tables),
		CASE(a_superblock_from_the_regions),
		CASE(the_younger_of_two_stores),
		CASE(what_is_lost),
		CASE(what_an_open_mends_is_left_to_it),
		CASE(what_cannot_be_mended),
		CASE(may_end_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
