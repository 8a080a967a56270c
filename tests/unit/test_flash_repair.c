/* SPDX-License-Identifier: Apache-2.0 */
/* What is rebuilt of a damaged flash store, and what is said of it. */
#include "flash_image.h"
#include "random.h"

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
static char said[4096]; /* every line of a repair */

static int see_finding(void *context, const struct cairn_finding *finding)
{
	size_t length = strlen(said);

	(void)context;
	by_kind[finding->kind]++;
	snprintf(said + length, sizeof(said) - length, "%s\n", finding->what);
	return 0;
}

static int repair(void)
{
	memset(by_kind, 0, sizeof(by_kind));
	said[0] = '\0';
	return flash_rest_repair(&opts, see_finding, NULL, &error);
}

static int check(void)
{
	memset(by_kind, 0, sizeof(by_kind));
	said[0] = '\0';
	return flash_rest_check(&opts, see_finding, NULL, &error);
}

static void says(const char *what)
{
	if (!strstr(said, what))
		fail_msg("\"%s\" is not in \"%s\"", what, said);
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

/* That the store is sound, and closed cleanly. */
static void sound(void)
{
	struct flash_super_found found;

	assert_int_equal(check(), 0);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_int_equal(found.copies[0] + found.copies[1], FLASH_OK);
	assert_true(found.super.flags & FLASH_SUPER_CLEAN);
	assert_int_equal(found.super.owner_pid, 0);
	assert_int_equal(repair(), 0);
	assert_string_equal(said, "");
}

/* That damage at @at is mended without a loss, in words with @what. */
static void mends(uint8_t *at, const char *what)
{
	assert_int_equal(repair(), 0);
	*at ^= 0x10;
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(repair(), 0);
	says(what);
	assert_int_equal(by_kind[CAIRN_FINDING_NOTE], 1);
	sound();
	lists_all_but(0, 0);
}

static void what_is_there_twice(void **state)
{
	const struct flash_layout *layout = &image.layout;

	(void)state;
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
	mends(trailer + offsetof(struct flash_trailer, seq), "from 10 records");
	assert_memory_equal(table, before, sizeof(before));
}

static void a_superblock_from_the_regions(void **state)
{
	struct flash_super_found found;

	(void)state;
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		memcpy(image.bytes + flash_super_at(copy), FLASH_SUPER_MAGIC, 8);
	assert_int_equal(check(), -EPROTO);
	assert_non_null(strstr(error.text, "--repair"));
	assert_int_equal(repair(), 0);
	says("from a region's header");
	says("regions sealed as they were found: 1");
	lists_all_but(0, 0);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_memory_equal(&found.layout, &image.layout, sizeof(found.layout));
	assert_memory_equal(&found.super.id, &image.super.id, sizeof(found.super.id));
	assert_true(found.super.sequence > 5000 + BLOCKS);
	assert_true(found.super.region_seq > 12);
	assert_int_equal(found.super.epoch, 5);
	sound();
	/* Wiped. */
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	assert_int_equal(repair(), 0);
	lists_all_but(0, 0);
	sound();
}

/* Headers of a store that was here before, younger even, in every region but @but. */
static void others_headers(struct flash_super *other, uint32_t but)
{
	*other = image.super;
	other->id.uuid[0]++;
	other->created_ns += 1000;
	for (uint32_t region = 0; region < image.layout.region_count; region++) {
		struct flash_region_head head;

		if (region == but)
			continue;
		flash_region_head_init(&head, other, region, 77, 0, 0, 0);
		memcpy(image.bytes + flash_region_at(&image.layout, region), &head, sizeof(head));
	}
}

/* A device that had another store before: its headers are passed over, its namespaces too. */
static void the_store_that_was_here_before(void **state)
{
	struct flash_super_found found;
	struct flash_super other;
	uint8_t *first = image.bytes + flash_space_at(&image.layout, 0);

	(void)state;
	others_headers(&other, 4);
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	assert_int_equal(repair(), 0);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_memory_equal(&found.super.id, &image.super.id, sizeof(found.super.id));
	lists_all_but(0, 10);
	/* A fresh one, which has no header yet: nothing makes the older one of it again. */
	others_headers(&other, UINT32_MAX);
	flash_space_begin(image.bytes + flash_space_at(&image.layout, 1), &other.id, 9);
	flash_space_seal(image.bytes + flash_space_at(&image.layout, 1));
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	assert_int_equal(repair(), -ENOENT);
	first[200] ^= 1; /* not even when its own namespaces do not check */
	assert_int_equal(repair(), -ENOENT);
	memcpy(image.bytes, FLASH_SUPER_MAGIC, 8);
	assert_int_equal(repair(), -EPROTO);
	assert_non_null(strstr(error.text, "of the store whose namespaces are here"));
	assert_int_equal(image.bytes[FLASH_PAGE], 0);
	/* Without a name the youngest of those that headers tell of counts. */
	memset(first, 0, 64);
	assert_int_equal(repair(), 0);
	assert_int_equal(flash_scan_super(&sys_native, image.fd, &found), 0);
	assert_memory_equal(&found.super.id, &other.id, sizeof(found.super.id));
}

static void what_is_lost(void **state)
{
	uint8_t *payload = image_at(&image, image.regions[0].table[5].unit + 1);
	uint8_t *head = image_at(&image, image.regions[0].table[6].unit);

	(void)state;
	assert_int_equal(repair(), 0);
	payload[1000] ^= 1;
	head[100] ^= 1;
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(by_kind[2], 2);
	lists_all_but(5, 7);
	sound();
	image.bytes[flash_region_at(&image.layout, 0) + 60] ^= 1;
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(by_kind[2], 1);
	lists_all_but(0, 10);
	sound();
}

/* A lost head and a lost table: the record is in neither. */
static void a_record_that_nothing_tells_of(void **state)
{
	(void)state;
	assert_int_equal(repair(), 0);
	image_at(&image, image.regions[0].table[9].unit)[100] ^= 1;
	image_at(&image, flash_table_unit(&image.layout, 0, 10))[100] ^= 1;
	assert_int_equal(check(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	says("units without a head");
	lists_all_but(9, 10);
	sound();
}

/* Both copies of the marks: any record may have been removed. */
static void marks_of_which_nothing_is_left(void **state)
{
	(void)state;
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		image.bytes[flash_marks_at(&image.layout, 0, 0, copy) + 70] ^= 1;
	assert_int_equal(check(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	says("no copy of the marks");
	lists_all_but(0, 10);
	sound();
}

/* What an open would do: the last record did not get there. */
static void a_store_that_was_not_closed(void **state)
{
	(void)state;
	image_at(&image, image.regions[4].unit - 1)[0] ^= 1;
	image.super.flags = 0;
	image.super.owner_pid = 4711;
	image_super_put(&image);
	image_super_put(&image);
	image_open(&image, 6, 13); /* no record yet */
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(repair(), 0);
	says("regions sealed as they were found: 1");
	says("dropped: 1 records that are not there whole");
	lists_all_but(14, 15);
	sound();
	assert_int_equal(image.bytes[flash_region_at(&image.layout, 6)], 0);
}

static uint32_t writes;

static ssize_t counting_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	writes++;
	return sys_native.pwritev(fd, iov, iov_count, offset);
}

static void refuses(int rc, const char *what)
{
	assert_int_equal(repair(), rc);
	if (!strstr(error.text, what))
		fail_msg("\"%s\" is not in \"%s\"", what, error.text);
	assert_null(strchr(error.text, '\n'));
	assert_int_equal(writes, 0);
}

static void what_is_left_alone(void **state)
{
	struct sys sys = sys_native;
	struct flash_super *super = (void *)(image.bytes + FLASH_PAGE);

	(void)state;
	sys.pwritev = counting_pwritev;
	opts.sys = &sys;
	writes = 0;
	assert_int_equal(flock(image.fd, LOCK_EX), 0);
	refuses(-EBUSY, "in use by");
	assert_int_equal(flock(image.fd, LOCK_UN), 0);
	super->version = 2; /* one copy of a newer version, and the other one damaged */
	super->crc = crc32c(0, super, offsetof(struct flash_super, crc));
	image.bytes[70] ^= 1;
	refuses(-EPROTO, "format version");
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	memcpy(image.bytes + 1024, "another file system", 20);
	refuses(-EPROTO, "something else was written");
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		image.bytes[flash_space_at(&image.layout, copy) + 70] ^= 1;
	refuses(-EPROTO, "neither a superblock nor a copy of the namespaces");
	image_super_put(&image);
	image_super_put(&image);
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	says("neither copy of the namespaces");
	assert_int_equal(writes, 0);
	memset(image.bytes, 0x55, FILE_BYTES);
	refuses(-EPROTO, "not a flash store");
	memset(image.bytes, 0, FILE_BYTES);
	refuses(-ENOENT, "there is no store here");
}

/* ---- a file that was cut short ----------------------------------------------------------- */

/* That one cut at @at is found, and mended: all but the blocks in [from, to) are listed. */
static void cut_at(uint64_t at, uint32_t from, uint32_t to)
{
	struct stat st;

	assert_int_equal(ftruncate(image.fd, (off_t)at), 0);
	assert_int_equal(check(), CAIRN_FINDING_DAMAGED);
	says("it ends here");
	assert_int_equal(repair(), CAIRN_FINDING_DAMAGED);
	says("as long again as it was made");
	assert_int_equal(fstat(image.fd, &st), 0);
	assert_int_equal(st.st_size, FILE_BYTES);
	lists_all_but(from, to);
	sound();
}

static int fallocate_full(int fd, int mode, off_t offset, off_t length)
{
	(void)fd;
	(void)mode;
	(void)offset;
	(void)length;
	return -ENOSPC;
}

/* An open wants room for all of the file: where there is none, nothing is written. */
static void cut_short_on_a_full_disk(void **state)
{
	struct sys sys = sys_native;
	struct stat st;

	(void)state;
	sys.fallocate = fallocate_full;
	assert_int_equal(ftruncate(image.fd, FILE_BYTES - 512), 0);
	writes = 0;
	sys.pwritev = counting_pwritev;
	opts.sys = &sys;
	refuses(-ENOSPC, "nothing was changed");
	opts.sys = &sys_native;
	assert_int_equal(fstat(image.fd, &st), 0);
	assert_int_equal(st.st_size, FILE_BYTES - 512);
	cut_at(FILE_BYTES - 512, 0, 0);
}

/* An open takes no file that is shorter than it was made; after a repair it does. */
static void cut_short(void **state)
{
	uint64_t last;

	cut_at(FILE_BYTES - 512, 0, 0);
	cut_at(flash_region_at(&image.layout, 5), 0, 0);
	last = flash_byte_of(&image.layout, image.regions[4].table[4].unit);
	cut_at(last + 4096, BLOCKS - 1, BLOCKS);
	teardown(state);
	setup(state);
	cut_at(flash_region_at(&image.layout, 4), 10, BLOCKS);
	cut_at(flash_region_at(&image.layout, 1) - 512, 10, BLOCKS); /* the trailer of region 0 */
	cut_at(flash_region_at(&image.layout, 0), 0, BLOCKS);
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

/* Damaged in every way that a repair mends; the block 5 is lost. */
static void damage_all(void)
{
	const struct flash_layout *layout = &image.layout;

	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	image.bytes[flash_space_at(layout, 1) + 70] ^= 1;
	image.bytes[flash_marks_at(layout, 0, 0, 0) + 70] ^= 1;
	image_at(&image, flash_table_unit(layout, 0, 10))[100] ^= 1;
	image_at(&image, image.regions[0].table[5].unit + 1)[7] ^= 1;
}

static void may_end_anywhere(void **state)
{
	struct sys sys = sys_native;

	(void)state;
	sys.pwritev = failing_pwritev;
	sys.fdatasync = failing_fdatasync;
	for (fail_at = 1; fail_at < 100; fail_at++) {
		int rc;

		teardown(NULL);
		setup(NULL);
		opts.sys = &sys;
		damage_all();
		calls = 0;
		rc = repair();
		if (calls < fail_at)
			break;
		assert_int_equal(rc, -EIO);
		assert_true(repair() >= 0);
		lists_all_but(5, 6);
		sound();
	}
	assert_in_range(fail_at, 12, 60);
}

/* ---- the power goes ---------------------------------------------------------------------- */

#define UNFLUSHED 64u
#define SECTOR	  512u

/* What was written since the last flush, as it was before. */
static struct {
	off_t offset;
	size_t bytes;
	uint8_t before[65536];
} unflushed[UNFLUSHED];
static uint32_t unflushed_count;
static struct random cut_random;

static ssize_t cut_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t got;

	if (++calls >= fail_at)
		return -EIO;
	assert_true(unflushed_count < UNFLUSHED);
	unflushed[unflushed_count].offset = offset;
	got = pread(fd, unflushed[unflushed_count].before, sizeof(unflushed[0].before), offset);
	assert_true(got >= (ssize_t)iov->iov_len && iov_count == 1);
	unflushed[unflushed_count++].bytes = iov->iov_len;
	return sys_native.pwritev(fd, iov, iov_count, offset);
}

static int cut_fdatasync(int fd)
{
	if (++calls >= fail_at)
		return -EIO;
	(void)fd;
	unflushed_count = 0;
	return 0;
}

/* The page cache is the device here. */
static int no_fdatasync(int fd)
{
	(void)fd;
	return 0;
}

/* Each sector of what was not flushed is there, or is not. */
static void power_cut(void)
{
	while (unflushed_count) {
		uint32_t at = --unflushed_count;

		for (size_t i = 0; i < unflushed[at].bytes; i += SECTOR)
			if (random_next(&cut_random) % 2)
				memcpy(image.bytes + unflushed[at].offset + i,
				       unflushed[at].before + i, SECTOR);
	}
}

static void the_power_may_go(void **state)
{
	struct sys sys = sys_native, calm = sys_native;

	(void)state;
	calm.fdatasync = no_fdatasync;
	sys.pwritev = cut_pwritev;
	sys.fdatasync = cut_fdatasync;
	for (uint32_t cut = 0; cut < 100; cut++) {
		teardown(NULL);
		setup(NULL);
		opts.sys = &sys;
		damage_all();
		cut_random = (struct random){cut + 1};
		/* Twice the power goes while it repairs, then it may end. */
		for (uint32_t i = 0; i < 2; i++) {
			calls = unflushed_count = 0;
			fail_at = 1 + (uint32_t)(random_next(&cut_random) % 40);
			repair();
			power_cut();
		}
		opts.sys = &calm;
		assert_true(repair() >= 0);
		lists_all_but(5, 6);
		sound();
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_is_there_twice),
		CASE(tables),
		CASE(a_superblock_from_the_regions),
		CASE(the_store_that_was_here_before),
		CASE(what_is_lost),
		CASE(a_record_that_nothing_tells_of),
		CASE(marks_of_which_nothing_is_left),
		CASE(a_store_that_was_not_closed),
		CASE(what_is_left_alone),
		CASE(cut_short),
		CASE(cut_short_on_a_full_disk),
		CASE(the_power_may_go),
		CASE(may_end_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
