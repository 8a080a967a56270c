/* SPDX-License-Identifier: Apache-2.0 */
/* Flash stores that are read, not opened. */
#include "flash_image.h"
#include "lock_child.h"

#include <errno.h>
#include <sys/file.h>

#include "stages/flash/atrest.h"

#define FILE_BYTES   (2u << 20)
#define REGION_BYTES 131072u

static struct image image;
static struct flash_rest_opts opts;
static struct cairn_error error;

static int setup(void **state)
{
	(void)state;
	image_new(&image, FILE_BYTES, REGION_BYTES, 512);
	image_spaces(&image, 2, 1, 1);
	image.super.flags = FLASH_SUPER_CLEAN;
	image.super.owner_pid = 4711;
	image_super_put(&image);
	opts = (struct flash_rest_opts){.sys = &sys_native, .stage = "flash.1", .path = image.path};
	memset(&error, 0, sizeof(error));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	image_free(&image);
	return 0;
}

/* ---- list ---------------------------------------------------------------------------- */

static struct cairn_listed listed[IMAGE_RECORDS_MAX];
static char models[IMAGE_RECORDS_MAX][32];
static uint32_t listed_count, stop_at;
static uint64_t missed;

static int see_block(void *context, const struct cairn_listed *block)
{
	assert_ptr_equal(context, &image);
	assert_true(listed_count < IMAGE_RECORDS_MAX);
	snprintf(models[listed_count], sizeof(models[0]), "%s",
		 block->desc ? block->desc->model : "?");
	listed[listed_count++] = *block;
	return listed_count == stop_at ? 55 : 0;
}

static int64_t list(void)
{
	listed_count = 0;
	return flash_rest_list(&opts, see_block, &image, &missed, &error);
}

static struct image_record block(uint32_t number)
{
	return (struct image_record){.block = number, .generation = 1};
}

static void put(uint32_t region, struct image_record spec)
{
	image_record(&image, region, &spec);
}

/* A sealed region of blocks 0 to 9 and an open one of 10 to 14, the last of three shards. */
static void fill(void)
{
	image_open(&image, 0, 1);
	for (uint32_t i = 0; i < 10; i++)
		put(0, block(i));
	image_seal(&image, 0);
	image_open(&image, 4, 2);
	for (uint32_t i = 10; i < 14; i++)
		put(4, block(i));
	for (uint32_t shard = 0; shard < 3; shard++) {
		struct image_record spec = block(14);

		spec.shard = 2 - shard;
		spec.shard_count = 3;
		spec.shard_bytes = 1000;
		spec.stored_length = 600;
		put(4, spec);
	}
}

static bool is_listed(uint32_t number)
{
	struct cairn_key key = image_key(number);

	for (uint32_t i = 0; i < listed_count; i++)
		if (memcmp(&listed[i].key, &key, sizeof(key)) == 0)
			return true;
	return false;
}

static void list_of_everything(void **state)
{
	struct cairn_key key = image_key(14);

	(void)state;
	assert_int_equal(list(), 0);
	fill();
	assert_int_equal(list(), 15);
	assert_int_equal(missed, 0);
	for (uint32_t i = 0; i < 15; i++) {
		assert_true(is_listed(i));
		assert_string_equal(models[i], "model-0");
		assert_string_equal(listed[i].stage, "flash.1");
		assert_int_equal(listed[i].generation, 1);
		assert_true(listed[i].whole);
		assert_int_equal(listed[i].sequence, 7);
		if (memcmp(&listed[i].key, &key, sizeof(key)) != 0) {
			assert_int_equal(listed[i].raw_bytes, 5000);
			assert_int_equal(listed[i].shard_count, 1);
			continue;
		}
		assert_int_equal(listed[i].raw_bytes, 3000);
		assert_int_equal(listed[i].stored_bytes, 1800);
		assert_int_equal(listed[i].shard_count, 3);
	}
	stop_at = 3;
	assert_int_equal(list(), 55);
	stop_at = 0;
}

static void not_what_is_gone(void **state)
{
	struct image_record spec = block(20);

	(void)state;
	fill();
	image_mark(&image, 0, 3, FLASH_MARK_DEAD, 1); /* removed */
	image_mark(&image, 4, 4, FLASH_MARK_DEAD, 1); /* one of three shards */
	spec.expiry_s = 1000;			      /* long ago */
	put(4, spec);
	spec = block(21);
	spec.expiry_s = UINT32_MAX;
	put(4, spec);
	spec = block(22);
	spec.generation = 0; /* cleared */
	put(4, spec);
	spec = block(23);
	spec.space = 1;
	put(4, spec);
	spec = block(24);
	spec.space = 9; /* nobody knows it */
	put(4, spec);
	assert_int_equal(list(), 13 + 3);
	assert_false(is_listed(3) || is_listed(14) || is_listed(20) || is_listed(22));
	assert_true(is_listed(21) && is_listed(23) && is_listed(24));
	assert_string_equal(models[14], "model-1");
	assert_string_equal(models[15], "?");
	assert_int_equal(missed, 0);
}

/* Shards of two dumps of a key never make a block, and the later dump decides. */
static void births_do_not_mix(void **state)
{
	(void)state;
	image_open(&image, 0, 1);
	for (uint32_t number = 0; number < 3; number++)
		for (uint32_t shard = 0; shard < 2; shard++) {
			struct image_record spec = block(number);

			spec.shard = shard;
			spec.shard_count = 2;
			spec.birth = 5;
			if (number != 2 || shard == 0)
				put(0, spec);
			spec.birth = 9;
			if (number == 0 || shard == 1)
				put(0, spec);
		}
	assert_int_equal(list(), 1);
	assert_true(is_listed(0));
	assert_int_equal(listed[0].sequence, 9);
	assert_int_equal(listed[0].raw_bytes, 10000);
}

static void carried_records_count_once(void **state)
{
	(void)state;
	fill();
	image_open(&image, 2, 3);
	put(2, block(5));
	put(2, block(6));
	assert_int_equal(list(), 15);
}

static void list_of_what_is_damaged(void **state)
{
	uint8_t *payload;

	(void)state;
	fill();
	payload = image_at(&image, image.regions[4].table[0].unit + 1);
	payload[7] ^= 1;
	assert_int_equal(list(), 15); /* closed cleanly: payloads are the loads' affair */
	image.super.flags = 0;
	image_super_put(&image);
	assert_int_equal(list(), 14);
	assert_int_equal(missed, 1);
	payload[7] ^= 1;
	payload[-500] ^= 1; /* the head */
	assert_int_equal(list(), 14);
	payload[-500] ^= 1;
	image.bytes[flash_region_at(&image.layout, 0) + 50] ^= 1;
	assert_int_equal(list(), 5);
	assert_int_equal(missed, 1);
	image.bytes[flash_space_at(&image.layout, 1) + 50] ^= 1;
	assert_int_equal(list(), 5);
	assert_int_equal(missed, 2);
	assert_string_equal(models[0], "?");
}

/* ---- what is no store ------------------------------------------------------------------- */

static void no_store(void **state)
{
	struct flash_super newer = image.super;
	uint8_t uuid[16];

	(void)state;
	assert_int_equal(flash_rest_identify(&opts, uuid, &error), 0);
	assert_memory_equal(uuid, "0123456789abcdef", 16);
	opts.path = "/nowhere/at/all";
	assert_int_equal(list(), -ENOENT);
	assert_non_null(strstr(error.text, "/nowhere/at/all"));
	opts.path = "/tmp";
	assert_int_equal(list(), -EINVAL);
	assert_non_null(strstr(error.text, "block device"));
	opts.path = image.path;
	newer.version++;
	newer.crc = crc32c(0, &newer, offsetof(struct flash_super, crc));
	memcpy(image.bytes, &newer, sizeof(newer));
	assert_int_equal(list(), -EPROTO);
	assert_non_null(strstr(error.text, "version"));
	assert_int_equal(flash_rest_identify(&opts, uuid, &error), -EPROTO);
	image.bytes[40] ^= 1;
	image.bytes[FLASH_PAGE + 40] ^= 1;
	assert_int_equal(list(), -EPROTO);
	assert_non_null(strstr(error.text, "neither copy"));
	memset(image.bytes, 0, 2ull * FLASH_PAGE);
	assert_int_equal(list(), -ENOENT);
	assert_non_null(strstr(error.text, "no store here"));
}

/* ---- check ------------------------------------------------------------------------------ */

static uint32_t by_kind[3];
static char last_where[256], last_what[256];

static int see_finding(void *context, const struct cairn_finding *finding)
{
	assert_ptr_equal(context, &image);
	assert_string_equal(finding->stage, "flash.1");
	by_kind[finding->kind]++;
	snprintf(last_where, sizeof(last_where), "%s", finding->where);
	snprintf(last_what, sizeof(last_what), "%s", finding->what);
	return stop_at && by_kind[0] + by_kind[1] + by_kind[2] == stop_at ? 66 : 0;
}

static int check(void)
{
	memset(by_kind, 0, sizeof(by_kind));
	return flash_rest_check(&opts, see_finding, &image, &error);
}

/* As a close leaves it. */
static void fill_closed(void)
{
	fill();
	image_seal(&image, 4);
}

static void check_of_what_is_sound(void **state)
{
	(void)state;
	assert_int_equal(check(), 0);
	fill_closed();
	assert_int_equal(check(), 0);
	assert_int_equal(by_kind[0] + by_kind[1] + by_kind[2], 0);
}

/* That a flipped byte at @at is found as @kind, at @offset, in words with @what. */
static void finds(const uint8_t *at, int kind, uint64_t offset, const char *what)
{
	uint8_t *byte = image.bytes + (at - image.bytes);
	char where[256];

	*byte ^= 0x10;
	snprintf(where, sizeof(where), "%s at byte %llu", image.path, (unsigned long long)offset);
	assert_int_equal(check(), kind);
	assert_int_equal(by_kind[kind], 1);
	assert_string_equal(last_where, where);
	if (!strstr(last_what, what))
		fail_msg("\"%s\" is not in \"%s\"", what, last_what);
	*byte ^= 0x10;
	assert_int_equal(check(), 0);
}

static void check_finds_every_struct(void **state)
{
	const struct flash_layout *layout = &image.layout;
	uint64_t region = flash_region_at(layout, 0);
	uint64_t record, marks;

	(void)state;
	fill_closed();
	image_mark(&image, 0, 3, FLASH_MARK_DEAD, 1);
	image_mark(&image, 0, 3, FLASH_MARK_DEAD, 2);
	record = flash_byte_of(layout, image.regions[0].table[5].unit);
	marks = flash_marks_at(layout, 0, 0, 0);
	finds(image.bytes + 60, CAIRN_FINDING_REPAIRABLE, 0, "superblock");
	finds(image.bytes + region + 60, CAIRN_FINDING_DAMAGED, region, "region 0: the header");
	finds(image.bytes + record + 60, CAIRN_FINDING_DAMAGED, record, "the head of a record");
	finds(image.bytes + record + 700, CAIRN_FINDING_DAMAGED, record, "payload");
	finds(image_at(&image, flash_table_unit(layout, 0, 10)), CAIRN_FINDING_REPAIRABLE,
	      region + REGION_BYTES - 512, "the table");
	finds(image_at(&image, flash_trailer_unit(layout, 0)) + 60, CAIRN_FINDING_REPAIRABLE,
	      region + REGION_BYTES - 512, "the table");
	finds(image.bytes + marks + 2000, CAIRN_FINDING_REPAIRABLE, marks, "marks");
	finds(image.bytes + flash_space_at(layout, 1) + 70, CAIRN_FINDING_DAMAGED, 8192,
	      "namespaces");
	image_spaces(&image, 2, 1, 2);
	finds(image.bytes + flash_space_at(layout, 1) + 70, CAIRN_FINDING_REPAIRABLE,
	      flash_space_at(layout, 1), "namespaces");
	/* Zeros in both copies: an open refuses them, too. */
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		memset(image.bytes + flash_space_at(layout, copy), 0, 4096);
	assert_int_equal(check(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(list(), 14);
	assert_int_equal(missed, 1);
	image_spaces(&image, 2, 1, 1);
	image_spaces(&image, 2, 1, 2);
	/* What is removed may be damaged. */
	record = flash_byte_of(layout, image.regions[0].table[3].unit);
	image.bytes[record + 700] ^= 1;
	assert_int_equal(check(), 0);
	stop_at = 1;
	image.bytes[region + 60] ^= 1;
	assert_int_equal(check(), 66);
	stop_at = 0;
}

/* What a crash leaves is mended by the next open; what was sealed is not left by one. */
static void check_after_a_crash(void **state)
{
	uint8_t *torn, *lost;

	(void)state;
	fill();
	image.super.flags = 0;
	image_super_put(&image);
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(by_kind[1], 1);
	torn = image_at(&image, image.regions[4].unit - 1);
	lost = image_at(&image, image.regions[4].table[1].unit);
	*torn ^= 1;
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(by_kind[1], 2);
	*lost ^= 1;
	assert_int_equal(check(), CAIRN_FINDING_REPAIRABLE);
	assert_int_equal(by_kind[1], 3);
	image_at(&image, image.regions[0].table[1].unit + 1)[0] ^= 1;
	assert_int_equal(check(), CAIRN_FINDING_DAMAGED);
	assert_int_equal(by_kind[2], 1);
}

/* Guards that it is not the process that was killed whose end is asked for. */
static void check_wants_the_lock(void **state)
{
	char text[64];
	pid_t child;

	(void)state;
	fill_closed();
	child = lock_in_child(image.path);
	snprintf(text, sizeof(text), "in use by process %d: end it first", (int)child);
	assert_int_equal(check(), -EBUSY);
	assert_non_null(strstr(error.text, text));
	assert_int_equal(list(), 15);
	child_end(child);
	assert_int_equal(flock(image.fd, LOCK_EX), 0);
	assert_int_equal(check(), -EBUSY);
	assert_non_null(strstr(error.text, "in use by this process: close it first"));
	assert_int_equal(flock(image.fd, LOCK_UN), 0);
	assert_int_equal(check(), 0);
}

/* ---- in detail ---------------------------------------------------------------------------- */

static char lines[16384];
static uint32_t line_count;
static char last_item[32];

static int see_detail(void *context, const struct cairn_detail *detail)
{
	size_t used = strlen(lines);
	char head[32];

	assert_ptr_equal(context, &image);
	assert_string_equal(detail->stage, "flash.1");
	snprintf(head, sizeof(head), "\n%s %u:", detail->item, (unsigned)detail->number);
	used += (size_t)snprintf(lines + used, sizeof(lines) - used, "%s %s ",
				 strcmp(head, last_item) ? head : "", detail->name);
	snprintf(last_item, sizeof(last_item), "%s", head);
	if (detail->text)
		snprintf(lines + used, sizeof(lines) - used, "%s", detail->text);
	else
		snprintf(lines + used, sizeof(lines) - used, "%llu",
			 (unsigned long long)detail->value);
	return ++line_count == stop_at ? -7 : 0;
}

static int look(uint64_t region)
{
	lines[0] = last_item[0] = '\0';
	line_count = 0;
	return flash_rest_inspect(&opts, region, see_detail, &image, &error);
}

static void has(const char *text)
{
	if (!strstr(lines, text))
		fail_msg("no \"%s\" in:\n%s", text, lines);
}

static void a_store_in_detail(void **state)
{
	(void)state;
	fill();
	assert_int_equal(look(CAIRN_INSPECT_STORE), 0);
	has("store 0: uuid 30313233343536373839616263646566 version 1 bytes 2097152 unit_bytes "
	    "512 ");
	has(" closed_cleanly yes durable_asked yes in_use no owner 0 superblocks_sound 2 ");
	has(" regions_open 1 regions_sealed 1 records 17\n");
	has("\nnamespace 1: generation 1 model model-1 tenant  shards 0 ");
	stop_at = 2;
	assert_int_equal(look(CAIRN_INSPECT_STORE), -7);
	assert_int_equal(line_count, 2);
	stop_at = 0;
	/* Beside a running process. */
	assert_int_equal(flock(image.fd, LOCK_EX), 0);
	assert_int_equal(look(CAIRN_INSPECT_STORE), 0);
	has(" in_use yes owner 4711 ");
	assert_int_equal(flash_rest_identify(&opts, image.super.id.uuid, &error), CAIRN_IN_USE);
	assert_int_equal(flock(image.fd, LOCK_UN), 0);
	assert_int_equal(flash_rest_identify(&opts, image.super.id.uuid, &error), 0);
	assert_int_equal(flock(image.fd, LOCK_EX | LOCK_NB), 0); /* it was given back */
	assert_int_equal(flock(image.fd, LOCK_UN), 0);
}

static void a_region_in_detail(void **state)
{
	(void)state;
	fill();
	image_mark(&image, 4, 1, FLASH_MARK_DEAD, 1);
	image_at(&image, image.regions[4].table[2].unit + 1)[7] ^= 1;
	assert_int_equal(look(4), 0);
	has("\nrecord 1: unit ");
	has("namespace 0 generation 1 shard 0 shards 1 raw_bytes 5000 stored_bytes 5000 birth 7 "
	    "expires_s 0 mark 255 state dead\n");
	has("expires_s 0 mark 0 state torn\n");
	has("shard 2 shards 3 raw_bytes 1000 stored_bytes 600 birth 7 expires_s 0 mark 0 state "
	    "live");
	has("\nregion 4: state open at ");
	has(" use 2 stream 0 epoch 3 records 6 end_unit ");
	has(" torn 1 units_without_record 0 table_sound no");
	assert_int_equal(look(0), 0);
	has(" table_sound yes");
	assert_int_equal(look(5), 0);
	has("\nregion 5: state unused ");
	assert_null(strstr(lines, "record"));
	assert_int_equal(look(image.layout.region_count), -EINVAL);
	assert_non_null(strstr(error.text, "there is no region"));
	assert_int_equal(line_count, 0);
	memset(image.bytes, 0x55, 2ull * FLASH_PAGE);
	assert_int_equal(look(0), -EPROTO);
	assert_non_null(strstr(error.text, "not a flash store, or a damaged one"));
}

/* ---- every call fails once ----------------------------------------------------------------- */

static struct sys sys;
static uint32_t calls, fail_at;
static int live;

static bool fails(void)
{
	return ++calls == fail_at;
}

static int walk_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int rc = fails() ? -EIO : sys_native.openat(dirfd, path, flags, mode);

	live += rc >= 0;
	return rc;
}

static int walk_close(int fd)
{
	live--;
	return sys_native.close(fd);
}

/* A read is tried twice: so it fails twice. */
static ssize_t walk_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	static bool again;

	bool now = fails();

	if (now || again) {
		again = now;
		return -EIO;
	}
	return sys_native.preadv(fd, iov, count, offset);
}

static int walk_fstat(int fd, struct stat *st)
{
	return fails() ? -EIO : sys_native.fstat(fd, st);
}

static int walk_flock(int fd, int operation)
{
	return fails() ? -EIO : sys_native.flock(fd, operation);
}

static int walk_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset,
		     void **ret_address)
{
	int rc = fails() ? -ENOMEM
			 : sys_native.mmap(hint, bytes, prot, flags, fd, offset, ret_address);

	live += rc == 0;
	return rc;
}

static int walk_munmap(void *address, size_t bytes)
{
	live--;
	return sys_native.munmap(address, bytes);
}

static void *walk_alloc(size_t alignment, size_t bytes)
{
	void *memory = fails() ? NULL : sys_native.alloc(alignment, bytes);

	live += memory != NULL;
	return memory;
}

static void walk_free(void *memory)
{
	live--;
	sys_native.free(memory);
}

/* An error, or an answer that says that something is amiss; nothing is left behind. */
static void every_call_fails_once(void **state)
{
	uint32_t checked = 0, told = 0;

	(void)state;
	fill_closed();
	sys = sys_native;
	sys.openat = walk_openat;
	sys.close = walk_close;
	sys.preadv = walk_preadv;
	sys.fstat = walk_fstat;
	sys.flock = walk_flock;
	sys.mmap = walk_mmap;
	sys.munmap = walk_munmap;
	sys.alloc = walk_alloc;
	sys.free = walk_free;
	opts.sys = &sys;
	for (fail_at = 1;; fail_at++) {
		int64_t ret;

		calls = 0;
		ret = list();
		assert_int_equal(live, 0);
		if (calls < fail_at)
			break;
		assert_true(ret < 0 || ret == 15 || missed > 0);
		told += ret < 0 || missed > 0;
	}
	fail_at = 0;
	assert_int_equal(list(), 15);
	for (fail_at = 1;; fail_at++) {
		int ret;

		calls = 0;
		ret = check();
		assert_int_equal(live, 0);
		if (calls < fail_at)
			break;
		checked += ret != 0;
	}
	fail_at = 0;
	assert_int_equal(check(), 0);
	assert_true(told > 10 && checked > 20);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(list_of_everything),      CASE(not_what_is_gone),
		CASE(births_do_not_mix),       CASE(carried_records_count_once),
		CASE(list_of_what_is_damaged), CASE(no_store),
		CASE(check_of_what_is_sound),  CASE(check_finds_every_struct),
		CASE(check_after_a_crash),     CASE(check_wants_the_lock),
		CASE(a_store_in_detail),       CASE(a_region_in_detail),
		CASE(every_call_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
