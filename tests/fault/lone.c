/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lone loads of waiting callers where there is no io_uring: a call that hangs is
 * a worker's, so that the caller leaves at its deadline; what is at hand is read
 * by the caller itself; and of workers there are never more than was said.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/store.h"
#include "kit.h"

#define MS	 1000000ull
#define BLOCKS	 8u
#define WORKERS	 2u
#define PATIENCE (20000 * MS)

static const struct kit_shape shape = {1, 65536};

/* ---- a sys table whose calls hang ------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hang;	  /* opens and reads wait until it is lowered, and nothing is at hand */
	uint32_t waiting; /* calls that do */
	uint32_t plain;	  /* opens and reads that might have to wait */
	bool at_hand;	  /* no attempt to do without waiting was in vain */
	pthread_t caller;
} world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void may_hang(void)
{
	pthread_mutex_lock(&world.lock);
	world.plain++;
	CHECK(!world.hang || !pthread_equal(pthread_self(), world.caller),
	      "the caller makes a call that may hang");
	world.waiting++;
	pthread_cond_broadcast(&world.changed);
	while (world.hang)
		pthread_cond_wait(&world.changed, &world.lock);
	world.waiting--;
	pthread_mutex_unlock(&world.lock);
}

static bool hangs(void)
{
	bool now;

	pthread_mutex_lock(&world.lock);
	now = world.hang;
	pthread_mutex_unlock(&world.lock);
	return now;
}

static void hang(bool hang)
{
	pthread_mutex_lock(&world.lock);
	world.hang = hang;
	world.plain = 0;
	world.at_hand = true;
	pthread_cond_broadcast(&world.changed);
	pthread_mutex_unlock(&world.lock);
}

/* What came of an attempt that must not wait. */
static void attempted(bool well)
{
	pthread_mutex_lock(&world.lock);
	world.at_hand = world.at_hand && well;
	pthread_mutex_unlock(&world.lock);
}

static int lone_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	may_hang();
	return sys_native.openat(dirfd, path, flags, mode);
}

static ssize_t lone_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	may_hang();
	return sys_native.preadv(fd, iov, iov_count, offset);
}

static int lone_openat_cached(int dirfd, const char *path, int flags)
{
	int rc = hangs() ? -EAGAIN : sys_native.openat_cached(dirfd, path, flags);

	attempted(rc >= 0);
	return rc;
}

static ssize_t lone_preadv_cached(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t rc = hangs() ? -EAGAIN : sys_native.preadv_cached(fd, iov, iov_count, offset);
	size_t all = 0;

	for (int i = 0; i < iov_count; i++)
		all += iov[i].iov_len;
	attempted(rc == (ssize_t)all);
	return rc;
}

/* ---- a store on it ------------------------------------------------------------ */

struct device {
	char path[128];
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static void open_device(struct device *device, const char *engine, const char *direct)
{
	static struct sys table;
	struct cairn_error error = {0};
	char spec[512], tier[256], posix[64], flash[64];

	table = sys_native;
	table.openat = lone_openat;
	table.openat_cached = lone_openat_cached;
	table.preadv = lone_preadv;
	table.preadv_cached = lone_preadv_cached;
	snprintf(posix, sizeof(posix), "direct=%s", direct);
	snprintf(flash, sizeof(flash), "direct=%s, size=16MiB", direct);
	kit_tier(tier, sizeof(tier), device->path, posix, flash);
	snprintf(spec, sizeof(spec), "store(engine=%s, reactors=2, workers=%u, deadline=20s) | %s",
		 engine, WORKERS, tier);
	CHECK(store_open(&table, spec, NULL, &device->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(device->store, "lone", shape, &device->ns) == 0);
}

static void close_device(struct device *device)
{
	CHECK(cairn_store_close(device->store, PATIENCE) == 0);
}

static unsigned count_workers(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned count = 0;

	CHECK(dir);
	while ((entry = readdir(dir)) != NULL) {
		char path[300], name[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && strncmp(name, "cairn-worker", 12) == 0)
			count++;
		fclose(file);
	}
	closedir(dir);
	return count;
}

static int load(struct device *device, uint64_t id, uint8_t *bytes, uint64_t deadline_ns)
{
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = deadline_ns};
	struct cairn_segment segment;
	struct cairn_xfer xfer = kit_xfer(id, 0, &segment, bytes, shape.shard_bytes);
	int ret = cairn_load(device->ns, &xfer, 1, &opts, NULL);

	CHECK(ret != 0 || kit_right(bytes, shape.shard_bytes, id, 0, 0), "wrong bytes");
	return ret;
}

/* ---- cases -------------------------------------------------------------------- */

struct caller {
	struct device *device;
	pthread_t thread;
	uint64_t id;
	uint8_t *bytes;
	int ret;
};

static void *call(void *argument)
{
	struct caller *caller = argument;

	caller->ret = load(caller->device, caller->id, caller->bytes, 50 * MS);
	return NULL;
}

/* More callers than workers, on a device that does not answer. */
static void all_leave(struct device *device)
{
	struct caller callers[BLOCKS];

	for (uint32_t i = 0; i < BLOCKS; i++) {
		callers[i] = (struct caller){.device = device, .id = i};
		callers[i].bytes = aligned_alloc(4096, shape.shard_bytes);
		CHECK(callers[i].bytes);
		CHECK(pthread_create(&callers[i].thread, NULL, call, &callers[i]) == 0);
	}
	for (uint32_t i = 0; i < BLOCKS; i++) {
		CHECK(pthread_join(callers[i].thread, NULL) == 0);
		CHECK(callers[i].ret == -ETIMEDOUT, "%d", callers[i].ret);
	}
	CHECK(count_workers() <= WORKERS, "%u workers", count_workers());
	CHECK(cairn_store_quiesce(device->store, 10 * MS) == -ETIMEDOUT, "memory came back");
	hang(false);
	CHECK(cairn_store_quiesce(device->store, PATIENCE) == 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		free(callers[i].bytes);
}

static void hung(struct device *device, uint8_t *bytes)
{
	int ret;

	hang(true);
	ret = load(device, 1, bytes, 30 * MS);
	CHECK(ret == -ETIMEDOUT, "%d", ret);
	all_leave(device);
	for (uint64_t id = 0; id < BLOCKS; id++)
		CHECK(load(device, id, bytes, 0) == 0);
}

/* What was at hand took nobody else. */
static void at_hand(struct device *device, uint8_t *bytes, const char *name)
{
	unsigned served = 0, workers = count_workers();

	for (uint64_t i = 0; i < 10 * BLOCKS; i++) {
		hang(false);
		CHECK(load(device, i % BLOCKS, bytes, 0) == 0);
		if (!world.at_hand)
			continue;
		CHECK(world.plain == 0, "%u plain calls", world.plain);
		served++;
	}
	/* A flash tier writes down what was used, once a second: that may take one. */
	if (served == 10 * BLOCKS && !kit_flash())
		CHECK(count_workers() == workers);
	CHECK(kit_counter(device->store, "store", "inline") >= 10 * BLOCKS);
	printf("lone: %s: %u of %u loads by their callers alone\n", name, served, 10 * BLOCKS);
}

static void run(const char *engine, const char *direct)
{
	struct device device;
	uint8_t *bytes = aligned_alloc(4096, shape.shard_bytes);
	char name[64];

	CHECK(bytes);
	snprintf(name, sizeof(name), "%s, direct=%s", engine, direct);
	kit_at("%s", name);
	kit_watch(60);
	world.caller = pthread_self();
	kit_folder(device.path, sizeof(device.path), "lone");
	open_device(&device, engine, direct);
	for (uint64_t id = 0; id < BLOCKS; id++)
		CHECK(kit_dump(device.ns, shape, id, 0, 1, CAIRN_WRITTEN) == 0);
	close_device(&device);
	open_device(&device, engine, direct);
	at_hand(&device, bytes, name);
	hung(&device, bytes);
	close_device(&device);
	kit_remove_folder(device.path);
	free(bytes);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	/* What flash opens is open: only reads can hang, and libaio's are not the table's. */
	if (!kit_flash()) {
		run("aio", "auto");
		run("psync", "auto");
	}
	run("aio", "no");
	run("psync", "no");
	return 0;
}
