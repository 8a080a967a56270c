/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that stops answering: the tier is fenced, misses and refuses at once, and
 * is itself again when the device is. Every call on the file waits while the device
 * hangs, and only the test ends that.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/store.h"
#include "kit.h"

#define MS     1000000ull
#define IDS    12u
#define SLOWER 500u
#define GONE   1u /* removed while the device hung */

static const struct kit_shape shape = {2, 30000};

/* ---- the device ------------------------------------------------------------------ */

static struct {
	char path[192];
	int fd, probe_fd; /* that the I/O uses; and probes alone */
	bool hangs, idle;
	bool probed;		  /* it answers the probe even so */
	bool keep, kept;	  /* the next probe is not answered; that has come */
	bool still;		  /* its clock stands, though it hangs */
	uint32_t waiting, inside; /* calls that wait for it; and those that have not returned */
	uint64_t clock_reads, now_ns, real_ns;
} device = {.fd = -1, .probe_fd = -1};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static bool device_answers(int fd, bool probe)
{
	if (fd != device.fd && fd != device.probe_fd)
		return true;
	return !device.hangs || (probe && device.probed);
}

static void device_wait(int fd, bool probe)
{
	bool kept;

	pthread_mutex_lock(&lock);
	device.inside++;
	device.waiting++;
	kept = probe && device.keep && device.hangs;
	if (kept) {
		device.keep = false;
		device.kept = true;
	}
	while (!device_answers(fd, probe) || (kept && device.kept))
		pthread_cond_wait(&changed, &lock);
	device.waiting--;
	pthread_mutex_unlock(&lock);
}

static void device_left(void)
{
	pthread_mutex_lock(&lock);
	device.inside--;
	pthread_mutex_unlock(&lock);
}

static void device_hang(bool hangs)
{
	pthread_mutex_lock(&lock);
	device.hangs = hangs;
	device.probed = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* The next probe while the device hangs is lost, until device_find_probe(). */
static void device_lose_probe(void)
{
	pthread_mutex_lock(&lock);
	device.keep = true;
	pthread_mutex_unlock(&lock);
}

static bool device_lost_probe(void)
{
	bool kept;

	pthread_mutex_lock(&lock);
	kept = device.kept;
	pthread_mutex_unlock(&lock);
	return kept;
}

static void device_find_probe(void)
{
	pthread_mutex_lock(&lock);
	device.keep = device.kept = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void device_answer_probe(void)
{
	pthread_mutex_lock(&lock);
	device.probed = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void device_stand_still(bool still)
{
	pthread_mutex_lock(&lock);
	device.still = still;
	pthread_mutex_unlock(&lock);
}

static uint32_t device_read(const uint32_t *count)
{
	uint32_t now;

	pthread_mutex_lock(&lock);
	now = *count;
	pthread_mutex_unlock(&lock);
	return now;
}

static int hang_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd = sys_native.openat(dirfd, path, flags, mode);

	if (fd >= 0 && strcmp(path, device.path) == 0 && (flags & O_ACCMODE) == O_RDWR)
		device.fd = fd;
	else if (fd >= 0 && strcmp(path, device.path) == 0 && (flags & O_DIRECT))
		device.probe_fd = fd;
	return fd;
}

static ssize_t hang_preadv(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t got;

	device_wait(fd, offset == 0);
	got = sys_native.preadv(fd, iov, iov_count, offset);
	device_left();
	return got;
}

static ssize_t hang_preadv_cached(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	return fd == device.fd ? -EAGAIN : sys_native.preadv_cached(fd, iov, iov_count, offset);
}

static ssize_t hang_pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t put;

	device_wait(fd, false);
	put = sys_native.pwritev(fd, iov, iov_count, offset);
	device_left();
	return put;
}

/* The real file need not be flushed: no power is cut. */
static int hang_fdatasync(int fd)
{
	device_wait(fd, false);
	device_left();
	return 0;
}

/*
 * A clock that is slow while the device works, so that a machine that is busy does not
 * look like one that hangs; and fast while it hangs.
 */
static uint64_t hang_now_ns(void)
{
	uint64_t real_ns = sys_native.now_ns(), now_ns;

	pthread_mutex_lock(&lock);
	device.clock_reads++;
	if (real_ns > device.real_ns) {
		device.now_ns += (real_ns - device.real_ns) / (device.idle ? 1 : SLOWER);
		device.real_ns = real_ns;
	}
	device.now_ns += device.hangs && !device.still ? 2 * MS : 0;
	now_ns = device.now_ns;
	pthread_mutex_unlock(&lock);
	return now_ns;
}

static void device_idle(bool idle)
{
	hang_now_ns();
	pthread_mutex_lock(&lock);
	device.idle = idle;
	pthread_mutex_unlock(&lock);
}

static const struct engine_ops *hang_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : sys_native.engine(ENGINE_PSYNC);
}

static const struct sys *hang_sys(void)
{
	static struct sys table;

	table = sys_native;
	table.openat = hang_openat;
	table.preadv = hang_preadv;
	table.preadv_cached = hang_preadv_cached;
	table.pwritev = hang_pwritev;
	table.fdatasync = hang_fdatasync;
	table.now_ns = hang_now_ns;
	table.engine = hang_engine;
	return &table;
}

/* ---- the store ---------------------------------------------------------------------- */

struct rig {
	char spec[512];
	struct cairn_store *store;
	struct cairn_namespace *ns, *other;
};

static void open_store(struct rig *rig)
{
	struct cairn_error error = {0};

	CHECK(store_open(hang_sys(), rig->spec, NULL, &rig->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(rig->store, "hang", shape, &rig->ns) == 0);
	CHECK(kit_namespace(rig->store, "cleared", shape, &rig->other) == 0);
}

static void nap(void)
{
	struct timespec ts = {.tv_nsec = (long)(2 * MS)};

	nanosleep(&ts, NULL);
}

static void wait_fenced(struct rig *rig, uint64_t fenced)
{
	while (kit_counter(rig->store, "flash", "fenced") != fenced)
		nap(); /* kit_watch() ends it */
}

/* A dump or a load that nobody waits for yet. */
struct shot {
	struct cairn_xfer xfer;
	struct cairn_segment segment;
	uint8_t bytes[30000];
	uint64_t task;
};

static void fire(struct rig *rig, struct shot *shot, uint64_t id, bool dump, uint64_t deadline_ns)
{
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .flags = CAIRN_TASK_DETACH, .deadline_ns = deadline_ns};
	int ret;

	shot->xfer = kit_xfer(id, 0, &shot->segment, shot->bytes, sizeof(shot->bytes));
	kit_fill(shot->bytes, sizeof(shot->bytes), id, 0, 0);
	ret = dump ? cairn_dump(rig->ns, &shot->xfer, 1, &opts, &shot->task)
		   : cairn_load(rig->ns, &shot->xfer, 1, &opts, &shot->task);
	CHECK(ret == 0, "%d", ret);
}

static int32_t result(struct rig *rig, struct shot *shot)
{
	CHECK(cairn_task_wait(rig->store, shot->task, CAIRN_EVENT_RESULT, 20000 * MS) == 0);
	return shot->xfer.result.status;
}

/* Nothing of this waits for the device. */
static void all_refused(struct rig *rig)
{
	struct cairn_key key = kit_key(GONE);
	struct cairn_namespace *again;

	for (uint32_t id = 0; id < IDS; id++) {
		CHECK(!kit_present(rig->ns, id));
		CHECK(kit_load(rig->ns, shape, id) == -ENOENT);
	}
	CHECK(kit_dump(rig->ns, shape, 500, 0, shape.shards, CAIRN_WRITTEN) == -EIO);
	CHECK(kit_dump(rig->ns, shape, 0, 0, shape.shards, CAIRN_DURABLE) == -EIO);
	CHECK(cairn_remove(rig->ns, &key, 1, NULL, NULL, NULL) == -EIO);
	CHECK(cairn_clear(rig->ns, CAIRN_WRITTEN) == -EIO);
	CHECK(kit_namespace(rig->store, "hang", shape, &again) == 0);
	cairn_namespace_close(again);
	CHECK(kit_namespace(rig->store, "another", shape, &again) == -EIO);
	CHECK(cairn_store_close(rig->store, MS) == -ETIMEDOUT);
	CHECK(kit_counter(rig->store, "flash", "passed_by") > 0);
}

static void all_there(struct rig *rig)
{
	for (uint32_t id = 0; id < IDS; id++)
		CHECK(kit_load(rig->ns, shape, id) == (id == GONE ? -ENOENT : 0), "block %u", id);
}

/* Nobody looks at the clock when nothing is being done. */
static void idle(void)
{
	uint64_t before = 0, after = 1;

	device_idle(true);
	while (before != after) {
		pthread_mutex_lock(&lock);
		before = device.clock_reads;
		pthread_mutex_unlock(&lock);
		for (int i = 0; i < 60; i++)
			nap();
		pthread_mutex_lock(&lock);
		after = device.clock_reads;
		pthread_mutex_unlock(&lock);
	}
	device_idle(false);
}

static void await_answers(uint32_t probes)
{
	while (device_read(&device.inside) != probes)
		nap();
}

/*
 * All that was given to the device is answered, but for PROBES lost, and the answers are
 * seen: one that comes late is as good as any, and would take the next fence down.
 */
static void settle(uint32_t probes)
{
	await_answers(probes);
	idle();
}

/* There is one wherever the file system has direct reads, whatever direct= is. */
static bool has_probe(void)
{
	int fd = open(device.path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* It answers again, but for PROBES lost. */
static void device_back(struct rig *rig, uint32_t probes)
{
	device_hang(false);
	await_answers(probes); /* before the clock is as fast as others' */
	device_idle(true);
	wait_fenced(rig, 0);
	device_idle(false);
	settle(probes);
}

/* What was out when the fence came down, and was answered, hides no later hang. */
static uint64_t hang_again(struct rig *rig)
{
	static struct shot first, second;

	if (!has_probe())
		return 0;
	device_hang(true);
	fire(rig, &first, 200, true, UINT64_MAX);
	wait_fenced(rig, 1);
	device_answer_probe();
	wait_fenced(rig, 0);
	CHECK(device_read(&device.waiting) > 0);
	device_hang(false);
	CHECK(result(rig, &first) == 0);
	settle(0);
	device_hang(true);
	fire(rig, &second, 201, true, UINT64_MAX);
	wait_fenced(rig, 1);
	device_hang(false);
	CHECK(result(rig, &second) == 0);
	device_back(rig, 0);
	return 2;
}

/* A probe that is never answered: the watch looks on, and sends another. */
static uint64_t probe_lost(struct rig *rig)
{
	static struct shot first, second;

	if (!has_probe())
		return 0;
	device_lose_probe();
	device_hang(true);
	fire(rig, &first, 300, true, UINT64_MAX);
	wait_fenced(rig, 1);
	while (!device_lost_probe())
		nap();
	device_hang(false);
	CHECK(result(rig, &first) == 0);
	device_back(rig, 1);
	device_hang(true);
	fire(rig, &second, 301, true, UINT64_MAX);
	wait_fenced(rig, 1);
	device_answer_probe();
	wait_fenced(rig, 0);
	device_hang(false);
	CHECK(result(rig, &second) == 0);
	CHECK(device_lost_probe());
	device_find_probe();
	settle(0);
	return 2;
}

static void *clears(void *what)
{
	struct rig *rig = what;

	return (void *)(intptr_t)cairn_clear(rig->other, CAIRN_DURABLE);
}

/*
 * Who clears, or opens a namespace that is new, waits for the device until the tier is
 * fenced, and not longer; nobody who opens one that is there waits for him.
 */
static uint64_t spaces_hang(struct rig *rig)
{
	struct cairn_namespace *again;
	pthread_t thread;
	void *answer;

	CHECK(kit_dump(rig->other, shape, 7, 0, shape.shards, CAIRN_DURABLE) == 0);
	device_hang(true);
	CHECK(pthread_create(&thread, NULL, clears, rig) == 0);
	while (!device_read(&device.waiting))
		nap();
	CHECK(kit_namespace(rig->store, "there", shape, &again) == 0);
	cairn_namespace_close(again);
	CHECK(pthread_join(thread, &answer) == 0 && (intptr_t)answer == -EIO);
	wait_fenced(rig, 1); /* a watch that had no processor comes to it later than he gives up */
	device_back(rig, 0);
	/* It is cleared nevertheless, and what comes after that is made. */
	while (kit_present(rig->other, 7))
		nap();
	while (cairn_clear(rig->other, CAIRN_WRITTEN) == -EIO)
		nap();
	device_hang(true);
	CHECK(kit_namespace(rig->store, "new", shape, &again) == -EIO);
	wait_fenced(rig, 1);
	device_back(rig, 0);
	while (kit_namespace(rig->store, "new", shape, &again) == -EIO)
		nap();
	CHECK(kit_dump(again, shape, 1, 0, shape.shards, CAIRN_DURABLE) == 0);
	cairn_namespace_close(again);
	return 2;
}

static void run(struct rig *rig, const char *direct)
{
	static struct shot read, write;
	struct cairn_namespace *there;
	uint64_t fences;

	kit_at("direct=%s", direct);
	kit_watch(60);
	snprintf(rig->spec, sizeof(rig->spec),
		 "store(engine=psync, reactors=1, buffers=4MiB) | flash(path=%s, size=16MiB, "
		 "hang=20ms, direct=%s)",
		 device.path, direct);
	open_store(rig);
	CHECK(kit_namespace(rig->store, "there", shape, &there) == 0);
	CHECK(cairn_store_close(rig->store, UINT64_MAX) == 0);
	open_store(rig); /* which knows of it by the file */
	for (uint32_t id = 0; id < IDS; id++)
		CHECK(kit_dump(rig->ns, shape, id, 0, shape.shards, CAIRN_DURABLE) == 0);
	idle();
	CHECK(kit_counter(rig->store, "flash", "fences") == 0);
	fences = spaces_hang(rig) + 1;
	device_stand_still(true);
	device_hang(true);
	fire(rig, &read, 3, false, 30 * MS);
	fire(rig, &write, 100, true, UINT64_MAX);
	while (device_read(&device.waiting) < 2)
		nap();
	device_stand_still(false);
	wait_fenced(rig, 1);
	all_refused(rig);
	CHECK(result(rig, &read) == -ETIMEDOUT);
	device_hang(false);
	CHECK(result(rig, &write) == 0); /* what was under way was not given up */
	device_back(rig, 0);
	all_there(rig);
	CHECK(kit_dump(rig->ns, shape, 100, 1, 1, CAIRN_DURABLE) == 0);
	CHECK(kit_dump(rig->ns, shape, 500, 0, shape.shards, CAIRN_DURABLE) == 0);
	CHECK(kit_load(rig->ns, shape, 100) == 0 && kit_load(rig->ns, shape, 500) == 0);
	CHECK(kit_counter(rig->store, "flash", "fences") == fences);
	fences += hang_again(rig);
	fences += probe_lost(rig);
	CHECK(kit_counter(rig->store, "flash", "fences") == fences);
	idle();
	CHECK(cairn_store_close(rig->store, UINT64_MAX) == 0);
	open_store(rig);
	all_there(rig);
	CHECK(cairn_store_close(rig->store, UINT64_MAX) == 0);
	CHECK(kit_check(rig->spec) == CAIRN_FINDING_NOTE);
	CHECK(unlink(device.path) == 0);
	printf("hang: direct=%s\n", direct);
}

int main(int argc, char **argv)
{
	struct rig rig;
	char folder[128];

	kit_init(argc, argv);
	device.real_ns = device.now_ns = sys_native.now_ns();
	kit_folder(folder, sizeof(folder), "hang");
	snprintf(device.path, sizeof(device.path), "%s/kv", folder);
	run(&rig, "auto");
	run(&rig, "no");
	kit_remove_folder(folder);
	return 0;
}
