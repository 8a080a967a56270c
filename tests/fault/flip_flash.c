/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage to the file of a flash tier: a bit flipped in each struct of a store that
 * was closed, and of one whose process was killed. Such a store opens; what it
 * loads is right or a miss; what was removed or cleared stays away, and so does an
 * earlier version. A check names the damage, and a repair mends it or says what it
 * dropped.
 *
 * The soak flips 82,760 bits, which takes half an hour of one core in memory (TMPDIR=/dev/shm).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kit.h"
#include "stages/flash/scan.h"

#define LIVE	  6u /* blocks 1 to 6 */
#define REMOVED	  7u
#define VERSIONED 8u /* removed, and dumped again with other bytes */
#define CLEARED	  9u /* in a namespace of its own */
#define SHARDS	  2u
#define BYTES	  70000u /* two pieces */
#define IMAGE_MAX (8u << 20)

static char path[256], spec[512];

/* ---- blocks: the content tells the version ---------------------------------------- */

static const struct kit_shape shape = {SHARDS, BYTES};
static uint8_t memory[SHARDS][BYTES];

static uint64_t content_of(uint64_t id, uint32_t version)
{
	return id + 1000ull * version;
}

static void xfers_make(uint64_t id, struct cairn_xfer *ret_xfers, struct cairn_segment *segments)
{
	for (uint32_t i = 0; i < SHARDS; i++)
		ret_xfers[i] = kit_xfer(id, i, &segments[i], memory[i], BYTES);
}

static void dump(struct cairn_namespace *ns, uint64_t id, uint32_t version)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_DURABLE};
	struct cairn_segment segments[SHARDS];
	struct cairn_xfer xfers[SHARDS];
	int ret;

	for (uint32_t i = 0; i < SHARDS; i++)
		kit_fill(memory[i], BYTES, content_of(id, version), i, 0);
	xfers_make(id, xfers, segments);
	ret = cairn_dump(ns, xfers, SHARDS, &opts, NULL);
	CHECK(ret == 0, "dump: %d", ret);
}

/* Whether it is there; every byte that comes is of @version. */
static bool load(struct cairn_namespace *ns, uint64_t id, uint32_t version)
{
	struct cairn_segment segments[SHARDS];
	struct cairn_xfer xfers[SHARDS];
	int ret;

	memset(memory, 0xee, sizeof(memory));
	xfers_make(id, xfers, segments);
	ret = cairn_load(ns, xfers, SHARDS, NULL, NULL);
	CHECK(ret == 0 || ret == -ENOENT || ret == -EBADMSG, "load of %lu: %d", (unsigned long)id,
	      ret);
	for (uint32_t i = 0; i < SHARDS; i++)
		CHECK(xfers[i].result.status != 0 ||
			      kit_right(memory[i], BYTES, content_of(id, version), i, 0),
		      "wrong bytes of %lu", (unsigned long)id);
	return ret == 0;
}

/* ---- the store that is damaged, as it lies there ---------------------------------- */

struct image {
	uint8_t *bytes;
	size_t length;
	bool closed;
};

static void image_take(struct image *image, bool closed)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size <= (off_t)IMAGE_MAX);
	image->closed = closed;
	image->length = (size_t)st.st_size;
	image->bytes = malloc(image->length);
	CHECK(image->bytes && pread(fd, image->bytes, image->length, 0) == (ssize_t)image->length);
	close(fd);
}

static void image_whole(const struct image *image)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && pwrite(fd, image->bytes, image->length, 0) == (ssize_t)image->length);
	close(fd);
}

/* As it was, but for one bit. */
static void image_put(const struct image *image, uint64_t at)
{
	uint8_t byte = (uint8_t)(image->bytes[at] ^ 1u << at % 8);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	image_whole(image);
	CHECK(fd >= 0);
	CHECK(pwrite(fd, &byte, 1, (off_t)at) == 1);
	close(fd);
}

static struct cairn_store *open_store(struct cairn_namespace **ret_ns,
				      struct cairn_namespace **ret_cleared)
{
	struct cairn_error error = {0};
	struct cairn_store *store = NULL;

	CHECK(cairn_store_open(spec, NULL, &store, &error) == 0, "open: %s", error.text);
	CHECK(kit_namespace(store, "flip", shape, ret_ns) == 0);
	CHECK(kit_namespace(store, "cleared", shape, ret_cleared) == 0);
	return store;
}

static void remove_one(struct cairn_namespace *ns, uint64_t id)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = CAIRN_DURABLE};
	const struct cairn_key key = kit_key(id);
	struct cairn_result result;
	int ret = cairn_remove(ns, &key, 1, &result, &opts, NULL);

	CHECK(ret == 0 || ret == -ENOENT, "remove: %d", ret);
}

/* The file is read while nothing happens: so a SIGKILL would leave it. */
static void make(struct image *ret_killed, struct image *ret_closed)
{
	struct cairn_namespace *ns, *cleared;
	struct cairn_store *store = open_store(&ns, &cleared);

	/* The killed one was closed before that: the other superblock says so. */
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	store = open_store(&ns, &cleared);
	dump(cleared, CLEARED, 0);
	CHECK(cairn_clear(cleared, CAIRN_DURABLE) == 0);
	dump(ns, REMOVED, 0);
	dump(ns, VERSIONED, 0);
	for (uint64_t id = 1; id <= LIVE; id++)
		dump(ns, id, 0);
	remove_one(ns, REMOVED);
	remove_one(ns, VERSIONED);
	dump(ns, VERSIONED, 1);
	image_take(ret_killed, false);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	image_take(ret_closed, true);
}

/* ---- what a damage may do ---------------------------------------------------------- */

/* What a check of a closed store says of it: 0 to 2; ANY: nothing that is known. */
#define ANY (-1)

static struct {
	uint64_t flips, misses, repairs;
	uint64_t verdicts[3];
} figures;

static int see(void *context, const struct cairn_listed *block)
{
	const struct cairn_key gone[] = {kit_key(REMOVED), kit_key(CLEARED)};

	(*(uint64_t *)context)++;
	for (size_t i = 0; i < 2; i++)
		CHECK(memcmp(&block->key, &gone[i], sizeof(gone[i])) != 0,
		      "what is gone is listed");
	return 0;
}

/* Opens it, loads everything; false: something is a miss. */
static bool serves(void)
{
	struct cairn_namespace *ns, *cleared;
	struct cairn_store *store = open_store(&ns, &cleared);
	bool whole = load(ns, VERSIONED, 1);

	for (uint64_t id = 1; id <= LIVE; id++)
		whole = load(ns, id, 0) && whole;
	CHECK(!kit_present(ns, REMOVED) && !load(ns, REMOVED, 0), "what was removed came back");
	CHECK(!kit_present(cleared, CLEARED) && !load(cleared, CLEARED, 0),
	      "what was cleared came back");
	CHECK(!load(ns, CLEARED, 0), "another namespace's block");
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	return whole;
}

static int no_finding(void *context, const struct cairn_finding *finding)
{
	(void)context;
	CHECK(finding->what[0] && !strchr(finding->what, '\n'));
	return 0;
}

static void repaired(const struct image *image, uint64_t at, int verdict)
{
	struct cairn_error error = {0};
	bool whole;
	int ret;

	image_put(image, at);
	ret = cairn_repair(spec, NULL, no_finding, NULL, &error);
	CHECK(ret >= 0, "repair: %s", error.text);
	if (image->closed && verdict != ANY)
		CHECK(ret == (verdict == 2 ? 2 : 0), "repair: %d", ret);
	CHECK(kit_check(spec) == 0, "not sound after a repair");
	whole = serves();
	CHECK(whole || ret == 2 || !image->closed, "mended without a loss, and a block is lost");
	figures.repairs++;
}

/* What is dumped after it is not older than what was there, nor mixed with it. */
static void goes_on(const struct image *image, uint64_t at)
{
	struct cairn_namespace *ns, *cleared;
	struct image killed;
	struct cairn_store *store;

	image_put(image, at);
	store = open_store(&ns, &cleared);
	remove_one(ns, VERSIONED);
	for (uint64_t id = LIVE / 2; id <= LIVE; id++)
		remove_one(ns, id);
	dump(ns, VERSIONED, 2);
	image_take(&killed, false);
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
	image_whole(&killed);
	free(killed.bytes);
	store = open_store(&ns, &cleared);
	CHECK(load(ns, VERSIONED, 2), "a durable block is lost");
	for (uint64_t id = LIVE / 2; id <= LIVE; id++)
		CHECK(!kit_present(ns, id), "what was removed came back");
	CHECK(cairn_store_close(store, UINT64_MAX) == 0);
}

static void damage(const struct image *image, uint64_t at, int verdict)
{
	struct cairn_error error = {0};
	uint64_t count = 0;
	bool whole;
	int ret;

	kit_watch(60);
	image_put(image, at);
	ret = kit_check(spec);
	CHECK(ret >= 0 && (image->closed || ret > 0), "check: %d", ret);
	CHECK(!image->closed || verdict == ANY || ret == verdict, "check: %d, not %d", ret,
	      verdict);
	figures.verdicts[ret]++;
	CHECK(cairn_list(spec, NULL, see, &count, NULL, &error) >= 0, "list: %s", error.text);
	whole = serves();
	CHECK(whole || verdict == 2 || verdict == ANY, "a block is lost");
	figures.misses += !whole;
	figures.flips++;
	if (figures.flips % 4 == 0)
		repaired(image, at, verdict);
	if (figures.flips % 4 == 2)
		goes_on(image, at);
}

/* Every @step-th byte of all structs, of the large and uniform marks fewer. */
static void range(const struct image *image, const char *what, uint64_t from, uint64_t length,
		  int verdict)
{
	uint64_t step = kit_number("step", kit_sanitized() ? 900 : 300, 1);
	/* So that parts can run side by side. */
	uint64_t past = kit_number("past", 0, 0), until = kit_number("until", 0, 0);
	static uint64_t passed;

	if (step > 1 && length == FLASH_PAGE)
		step *= 16;
	for (uint64_t at = from; at < from + length; at++) {
		if (++passed % step || passed <= past || (until && passed > until))
			continue;
		kit_at("%s store, %s: byte %lu of %lu, which is %lu of the file",
		       image->closed ? "closed" : "killed", what, (unsigned long)(at - from),
		       (unsigned long)length, (unsigned long)at);
		damage(image, at, verdict);
	}
}

/* ---- the structs of a store ------------------------------------------------------------ */

struct walk {
	const struct image *image;
	struct flash_scanner scanner;
	uint8_t *marks;
	struct flash_table_entry *entries;
};

static int keep(void *context, const struct flash_scanned *scanned)
{
	struct walk *walk = context;

	walk->entries[scanned->number] = *scanned->entry;
	return 0;
}

static void record_damage(const struct walk *walk, const struct flash_table_entry *entry, bool dead)
{
	const struct flash_layout *layout = &walk->scanner.layout;
	uint64_t at = flash_byte_of(layout, entry->unit);
	uint64_t head = (uint64_t)flash_head_units(layout, entry->stored_length) * layout->unit;

	range(walk->image, "a record's head", at, 256, dead ? 0 : 2);
	range(walk->image, "a record's CRCs", at + 256,
	      flash_pieces(entry->stored_length) * sizeof(uint32_t), dead ? 0 : 2);
	range(walk->image, "what is behind the CRCs", at + 264, head - 264, dead ? 0 : 2);
	for (uint64_t from = 0; from < entry->stored_length; from += 16384)
		range(walk->image, "a payload", at + head + from, 32, dead ? 0 : 2);
	range(walk->image, "the last byte of a payload", at + head + entry->stored_length - 1, 1,
	      dead ? 0 : 2);
}

static void region_damage(struct walk *walk, uint32_t region)
{
	const struct flash_layout *layout = &walk->scanner.layout;
	uint64_t at = flash_region_at(layout, region);
	const struct cairn_key cleared = kit_key(CLEARED);
	struct flash_region_found found;
	struct flash_marks_found marks;
	bool deaths = false;

	memset(walk->entries, 0, layout->records_max * sizeof(*walk->entries));
	CHECK(flash_scan_region(&walk->scanner, region, 0, keep, walk, &found) == 0);
	if (!found.next_number)
		return;
	CHECK(found.state == FLASH_FOUND_SEALED || !walk->image->closed);
	flash_scan_marks(&walk->scanner, region, found.seq, layout->records_max, walk->marks, NULL,
			 &marks);
	CHECK(!marks.single, "deaths that one copy alone tells");
	for (uint32_t number = 0; number < found.next_number; number++) {
		const struct flash_table_entry *entry = &walk->entries[number];
		bool dead = walk->marks[number] == FLASH_MARK_DEAD;

		deaths = deaths || dead;
		dead = dead || memcmp(&entry->key, &cleared, sizeof(cleared)) == 0;
		record_damage(walk, entry, dead);
	}
	range(walk->image, "a region's header", at, 256, 2);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++)
		range(walk->image, "marks", flash_marks_at(layout, region, 0, copy), FLASH_PAGE,
		      deaths ? 1 : ANY);
	if (found.state != FLASH_FOUND_SEALED)
		return;
	range(walk->image, "a table",
	      flash_byte_of(layout, flash_table_unit(layout, region, found.next_number)),
	      found.next_number * sizeof(*walk->entries), 1);
	range(walk->image, "a trailer", flash_byte_of(layout, flash_trailer_unit(layout, region)),
	      sizeof(struct flash_trailer), 1);
}

static void structs(const struct image *image)
{
	struct walk walk = {.image = image};
	struct flash_super_found super;
	struct flash_spaces_found spaces;
	const struct flash_layout *layout = &super.layout;
	uint32_t bytes;
	char copy_path[300];
	int fd;

	/* The walk reads what is there; what is damaged is another file. */
	snprintf(copy_path, sizeof(copy_path), "%s.whole", path);
	fd = open(copy_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && pwrite(fd, image->bytes, image->length, 0) == (ssize_t)image->length);
	CHECK(flash_scan_super(&sys_native, fd, &super) == 0);
	CHECK(flash_scanner_init(&walk.scanner, &sys_native, fd, &super) == 0);
	CHECK(flash_scan_spaces(&walk.scanner, &spaces) == 0 && !spaces.single);
	bytes = ((const struct flash_space_head *)spaces.area)->bytes;
	sys_native.free(spaces.area);
	walk.marks = malloc(layout->records_max);
	walk.entries = malloc(layout->records_max * sizeof(*walk.entries));
	CHECK(walk.marks && walk.entries);
	for (uint32_t copy = 0; copy < FLASH_COPIES; copy++) {
		range(image, "a superblock", flash_super_at(copy), sizeof(struct flash_super), 1);
		range(image, "the namespaces", flash_space_at(layout, copy), bytes, 1);
	}
	for (uint32_t region = 0; region < layout->region_count; region++)
		region_damage(&walk, region);
	flash_scanner_fini(&walk.scanner);
	free(walk.marks);
	free(walk.entries);
	close(fd);
	CHECK(unlink(copy_path) == 0);
}

int main(int argc, char **argv)
{
	struct image killed, closed;
	char folder[128];

	kit_init(argc, argv);
	kit_folder(folder, sizeof(folder), "flip-flash");
	snprintf(path, sizeof(path), "%s/store", folder);
	snprintf(spec, sizeof(spec),
		 "store(reactors=1, tasks=8, ios=8, buffers=4MiB, deadline=1h, engine=%s) | "
		 "flash(path=%s, size=8MiB, region=512KiB)",
		 kit_text("engine", "psync"), path);
	make(&killed, &closed);
	structs(&closed);
	structs(&killed);
	CHECK(kit_number("past", 0, 0) || kit_number("until", 0, 0) ||
	      (figures.misses && figures.verdicts[0] && figures.verdicts[1] &&
	       figures.verdicts[2]));
	printf("flip_flash: %lu bits flipped, %lu times a block was a miss; %lu stores repaired\n",
	       (unsigned long)figures.flips, (unsigned long)figures.misses,
	       (unsigned long)figures.repairs);
	free(killed.bytes);
	free(closed.bytes);
	kit_remove_folder(folder);
	return 0;
}
