/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flash store in a file whose ranges cannot be read or written where a test says so,
 * and whose writes can be held up; what lies in the file.
 */
#ifndef TESTS_FLASH_DEVICE_H
#define TESTS_FLASH_DEVICE_H

/* Before cmocka.h, which has a macro fail(). */
#include "core/store.h"

#include "flash_image.h"
#include "posix_store.h"

#include "stages/flash/atrest.h"
#include "stages/flash/scan.h"
#include "sys/engine.h"

#define SHARD	  8192u
#define MIB	  (1u << 20)
#define RANGES	  4u
#define EVERY	  UINT64_MAX
#define RECORDS	  4096u
#define KEYS_KEPT 64u

/* ---- the device ------------------------------------------------------------------ */

struct range {
	uint64_t from, to;
	int error; /* negative */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct sys table;
	struct range reads[RANGES], writes[RANGES];
	bool hold; /* writes that begin with the record of this shard wait */
	struct cairn_key hold_key;
	uint16_t hold_shard;
	uint32_t held;	       /* that do */
	uint64_t carries_left; /* records that are carried until such a write fails */
	struct cairn_key carried[KEYS_KEPT];
	uint32_t carried_count;
	uint64_t ahead_ns; /* how much later it is than it is */
} device = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline size_t bytes_of(const struct iovec *iov, int iov_count)
{
	size_t bytes = 0;

	for (int i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

static inline int error_at(const struct range *ranges, off_t offset, size_t bytes)
{
	for (uint32_t i = 0; i < RANGES; i++)
		if ((uint64_t)offset < ranges[i].to && (uint64_t)offset + bytes > ranges[i].from)
			return ranges[i].error;
	return 0;
}

static inline ssize_t device_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	int error;

	pthread_mutex_lock(&device.lock);
	error = error_at(device.reads, offset, bytes_of(iov, iov_count));
	pthread_mutex_unlock(&device.lock);
	return error ? error : sys_native.preadv(fd, iov, iov_count, offset);
}

static inline ssize_t device_preadv_cached(int fd, const struct iovec *iov, int iov_count,
					   off_t offset)
{
	(void)fd, (void)iov, (void)iov_count, (void)offset;
	return -EAGAIN;
}

/* The head that a write begins with; NULL: it begins with something else. */
static inline const struct flash_record *head_of(const struct iovec *iov)
{
	const struct flash_record *record = iov->iov_base;
	bool head = iov->iov_len >= sizeof(*record) &&
		    memcmp(record->magic, FLASH_RECORD_MAGIC, sizeof(record->magic)) == 0;

	return head ? record : NULL;
}

static inline bool is_held(const struct flash_record *record)
{
	return device.hold && record && record->shard == device.hold_shard &&
	       memcmp(&record->key, &device.hold_key, sizeof(record->key)) == 0;
}

/* Counts one that is carried; the error that it meets. */
static inline int carry_error(const struct flash_record *record)
{
	if (!record || !(record->flags & FLASH_RECORD_CARRIED))
		return 0;
	if (device.carries_left == EVERY)
		return 0;
	if (!device.carries_left)
		return -EIO;
	device.carries_left--;
	if (device.carried_count < KEYS_KEPT)
		device.carried[device.carried_count++] = record->key;
	return 0;
}

static inline ssize_t device_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	const struct flash_record *record = head_of(iov);
	int error;

	pthread_mutex_lock(&device.lock);
	device.held += is_held(record);
	pthread_cond_broadcast(&device.changed);
	while (is_held(record))
		pthread_cond_wait(&device.changed, &device.lock);
	error = error_at(device.writes, offset, bytes_of(iov, iov_count));
	if (!error)
		error = carry_error(record);
	pthread_mutex_unlock(&device.lock);
	return error ? error : sys_native.pwritev(fd, iov, iov_count, offset);
}

/* Plain calls, all through the table. */
static inline const struct engine_ops *device_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : &engine_psync;
}

static inline uint64_t device_now_ns(void)
{
	return sys_native.now_ns() + __atomic_load_n(&device.ahead_ns, __ATOMIC_RELAXED);
}

static inline void device_reset(void)
{
	device.table = sys_native;
	device.table.preadv = device_preadv;
	device.table.preadv_cached = device_preadv_cached;
	device.table.pwritev = device_pwritev;
	device.table.engine = device_engine;
	device.table.now_ns = device_now_ns;
	memset(device.reads, 0, sizeof(device.reads));
	memset(device.writes, 0, sizeof(device.writes));
	device.hold = false;
	device.held = 0;
	device.carries_left = EVERY;
	device.carried_count = 0;
}

static inline void fail_range(struct range *range, uint64_t from, uint64_t to, int error)
{
	pthread_mutex_lock(&device.lock);
	*range = (struct range){from, to, error};
	pthread_mutex_unlock(&device.lock);
}

static inline void hold_write(const struct cairn_key *key, uint32_t shard)
{
	pthread_mutex_lock(&device.lock);
	device.hold = true;
	device.hold_key = *key;
	device.hold_shard = (uint16_t)shard;
	pthread_mutex_unlock(&device.lock);
}

static inline void await_held(void)
{
	pthread_mutex_lock(&device.lock);
	while (!device.held)
		pthread_cond_wait(&device.changed, &device.lock);
	pthread_mutex_unlock(&device.lock);
}

static inline void release_held(void)
{
	pthread_mutex_lock(&device.lock);
	device.hold = false;
	pthread_cond_broadcast(&device.changed);
	pthread_mutex_unlock(&device.lock);
}

/* ---- a store on it ----------------------------------------------------------------- */

static struct fixture store;
static char options[48];

static inline int try_open(struct cairn_error *reterr)
{
	char spec[512];

	snprintf(spec, sizeof(spec),
		 "store(engine=psync, reactors=1, workers=4, deadline=20s) | "
		 "flash(path=%s/store, direct=no, %s)",
		 store.path, options);
	return store_open(&device.table, spec, NULL, &store.store, reterr);
}

static inline void open_again(uint32_t shards, uint64_t bytes)
{
	struct cairn_error error = {0};

	if (try_open(&error) < 0)
		fail_msg("%s", error.text);
	fixture_space(&store, "model", shards, bytes);
}

static inline void begin(const char *flash, uint32_t shards, uint64_t bytes)
{
	fixture_new(&store);
	device_reset();
	snprintf(options, sizeof(options), "%s", flash);
	open_again(shards, bytes);
}

static inline void end(void)
{
	fixture_close(&store);
	fixture_free(&store);
}

static inline int match(void *context, const struct cairn_counter *counter)
{
	struct counter_search *search = context;

	if (strcmp(counter->stage, "flash") == 0 && strcmp(counter->name, search->name) == 0)
		search->value = counter->value;
	return 0;
}

static inline uint64_t flash_counter(const char *name)
{
	struct counter_search search = {name, EVERY};

	cairn_counters(store.store, match, &search);
	assert_true(search.value != EVERY);
	return search.value;
}

/* Shards [first, first + count) of one block, as one task; *ret_task NULL: its result. */
static inline int dump_many(uint32_t number, uint32_t first, uint32_t count, size_t bytes,
			    struct cairn_xfer *xfers, uint8_t *memory, uint64_t *ret_task)
{
	struct cairn_key key = key_of(&store, number);

	for (uint32_t i = 0; i < count; i++) {
		content(&key, first + i, memory + i * bytes, bytes);
		xfers[i] = xfer_of(&key, first + i, 0, memory + i * bytes, bytes);
	}
	return cairn_dump(store.ns, xfers, count, NULL, ret_task);
}

static inline void dump_block(uint32_t number, uint32_t shards)
{
	for (uint32_t i = 0; i < shards; i++)
		assert_int_equal(dump_one(&store, number, i, SHARD, 0), 0);
}

static inline int remove_block(uint32_t number, uint32_t durability)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	struct cairn_key key = key_of(&store, number);

	return cairn_remove(store.ns, &key, 1, NULL, &opts, NULL);
}

/* By its number; the hold. */
static inline uint64_t hold_block(uint32_t number)
{
	struct cairn_lookup_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_LOOKUP_HOLD, .hold_ns = 60000000000ull};
	struct cairn_key key = key_of(&store, number);
	struct cairn_found found;
	uint64_t hold;

	assert_int_equal(cairn_lookup(store.ns, &key, 1, &found, &opts, &hold), 1);
	return hold;
}

/* ---- the file ------------------------------------------------------------------------ */

/* What lies in the file, region by region; of those that are open, too. */
static struct {
	struct flash_layout layout;
	struct flash_table_entry entries[RECORDS];
	uint32_t regions[RECORDS];
	uint32_t count;
} file;

static inline int file_note(void *context, const struct flash_scanned *scanned)
{
	(void)context;
	assert_true(file.count < RECORDS);
	file.regions[file.count] = scanned->region;
	file.entries[file.count++] = *scanned->entry;
	return 0;
}

/* The store's file. */
static inline int file_open(int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/store", store.path);
	fd = open(path, flags);
	assert_true(fd >= 0);
	return fd;
}

static inline void file_write(uint64_t at, const void *bytes, size_t count)
{
	int fd = file_open(O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, count, (off_t)at), count);
	close(fd);
}

static inline void file_super(struct flash_super_found *ret_super)
{
	int fd = file_open(O_RDONLY);

	assert_int_equal(flash_scan_super(&sys_native, fd, ret_super), 0);
	close(fd);
}

static inline void file_scan(void)
{
	struct flash_scanner scanner;
	struct flash_super_found super;
	struct flash_region_found found;
	int fd = file_open(O_RDONLY);

	assert_int_equal(flash_scan_super(&sys_native, fd, &super), 0);
	assert_int_equal(flash_scanner_init(&scanner, &sys_native, fd, &super), 0);
	file.layout = super.layout;
	file.count = 0;
	for (uint32_t i = 0; i < super.layout.region_count; i++)
		assert_int_equal(
			flash_scan_region(&scanner, i, FLASH_SCAN_HEADS, file_note, NULL, &found),
			0);
	flash_scanner_fini(&scanner);
	close(fd);
}

/* The record of a shard that is in the file once. */
static inline const struct flash_table_entry *file_record(uint32_t number, uint32_t shard)
{
	struct cairn_key key = key_of(&store, number);
	uint32_t at = RECORDS;

	file_scan();
	for (uint32_t i = 0; i < file.count; i++)
		if (memcmp(&file.entries[i].key, &key, sizeof(key)) == 0 &&
		    file.entries[i].shard == shard)
			at = i;
	assert_true(at < RECORDS);
	return &file.entries[at];
}

static inline uint64_t region_begin(const struct flash_table_entry *entry)
{
	return flash_region_at(&file.layout, flash_region_of(&file.layout, entry->unit));
}

/* ---- crashes -------------------------------------------------------------------------- */

static inline void crash_copy(void)
{
	char command[512];

	snprintf(command, sizeof(command), "cp '%s/store' '%s/image'", store.path, store.path);
	assert_int_equal(system(command), 0);
}

/* The store as it was at the copy: nobody had closed it. */
static inline void crash(void)
{
	char from[256], to[256];

	fixture_close(&store);
	snprintf(from, sizeof(from), "%s/image", store.path);
	snprintf(to, sizeof(to), "%s/store", store.path);
	assert_int_equal(rename(from, to), 0);
}

static inline void reopen(void)
{
	fixture_close(&store);
	open_again(1, SHARD);
}

#endif
