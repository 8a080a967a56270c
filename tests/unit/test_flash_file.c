/* SPDX-License-Identifier: Apache-2.0 */
/* What an open of the flash tier asks of its file: who has it, and where it lies. */
#include "flash_device.h"

#include <linux/fs.h>
#include <linux/magic.h>

#include "lock_child.h"

#define ENGINES 32u

/* ---- in use ---------------------------------------------------------------------------- */

static void busy(const char *wait, const char *text)
{
	struct cairn_error error = {0};
	struct cairn_store *first = store.store;

	snprintf(options, sizeof(options), "open_wait=%s", wait);
	assert_int_equal(try_open(&error), -EBUSY);
	if (!strstr(error.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, error.text);
	assert_null(strchr(error.text, '\n'));
	store.store = first;
}

static bool open_store(const void *context)
{
	struct cairn_error error;

	(void)context;
	return try_open(&error) == 0;
}

/* A process that opened the store, and was killed then. */
static pid_t killed_owner(void)
{
	pid_t pid = child_with(open_store, NULL);

	child_end(pid);
	return pid;
}

/* Guards that it is not a process that was killed whose end is asked for. */
static void who_has_it(void **state)
{
	struct flash_super_found super;
	char path[256], text[80];
	pid_t owner, holder;

	(void)state;
	fixture_new(&store);
	device_reset();
	snprintf(options, sizeof(options), "size=8MiB");
	owner = killed_owner();
	file_super(&super);
	assert_int_equal(super.super.owner_pid, owner);
	snprintf(path, sizeof(path), "%s/store", store.path);
	holder = lock_in_child(path);
	snprintf(text, sizeof(text), "in use by process %d: end it, or give each", (int)holder);
	busy("0ms", text);
	child_end(holder);
	open_again(1, SHARD);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	busy("0ms", "this process has it open already: share that store");
	assert_int_equal(load_one(&store, 1, 0, SHARD), 0);
	end();
}

/* ---- the lock, and the I/O -------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	struct engine_ops ops;
	int guards[ENGINES];
	uint32_t opened;
} noted = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int noting_open(const struct engine_opts *opts, struct engine **ret_engine)
{
	pthread_mutex_lock(&noted.lock);
	assert_true(noted.opened < ENGINES);
	noted.guards[noted.opened++] = opts->guard_fd;
	pthread_mutex_unlock(&noted.lock);
	return engine_psync.open(opts, ret_engine);
}

static const struct engine_ops *noting_engine(enum engine_kind kind)
{
	return kind == ENGINE_URING ? NULL : &noted.ops;
}

/* It is the description that has the lock: another one of the file cannot, and this one may. */
static void has_the_lock(int fd)
{
	int other = file_open(O_RDONLY);
	struct stat one, two;

	assert_int_equal(fstat(fd, &one), 0);
	assert_int_equal(fstat(other, &two), 0);
	assert_int_equal(one.st_ino, two.st_ino);
	assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(other);
}

/* Guards that the lock outlives a process whose I/O is still under way. */
static void the_rings_hold_the_lock(void **state)
{
	uint32_t with = 0;

	(void)state;
	fixture_new(&store);
	device_reset();
	noted.ops = engine_psync;
	noted.ops.open = noting_open;
	noted.opened = 0;
	device.table.engine = noting_engine;
	snprintf(options, sizeof(options), "size=8MiB");
	open_again(1, SHARD);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, CAIRN_DURABLE), 0);
	pthread_mutex_lock(&noted.lock);
	for (uint32_t i = 0; i < noted.opened; i++) {
		if (noted.guards[i] < 0) {
			assert_int_equal(with, 0); /* before there was a lock */
			continue;
		}
		has_the_lock(noted.guards[i]);
		with++;
	}
	pthread_mutex_unlock(&noted.lock);
	assert_true(with > 1); /* of standing reactors, and of light ones */
	end();
}

/* ---- copied on write -------------------------------------------------------------------- */

static struct {
	int flags, set_error;
	bool forgets;
} cow;

static int cow_fstatfs(int fd, struct statfs *st)
{
	int rc = sys_native.fstatfs(fd, st);

	st->f_type = BTRFS_SUPER_MAGIC;
	return rc;
}

static int cow_ioctl(int fd, unsigned long request, void *argument)
{
	(void)fd;
	if (request == FS_IOC_GETFLAGS) {
		*(int *)argument = cow.flags;
		return 0;
	}
	assert_int_equal(request, FS_IOC_SETFLAGS);
	if (!cow.set_error && !cow.forgets)
		cow.flags = *(int *)argument;
	return cow.set_error;
}

static void cow_begin(int flags, int set_error, bool forgets)
{
	fixture_new(&store);
	device_reset();
	cow.flags = flags;
	cow.set_error = set_error;
	cow.forgets = forgets;
	device.table.fstatfs = cow_fstatfs;
	device.table.ioctl = cow_ioctl;
	snprintf(options, sizeof(options), "size=8MiB");
}

static void cow_refused(const char *text, uint64_t bytes)
{
	struct cairn_error error = {0};
	char path[256];
	struct stat st;

	assert_int_equal(try_open(&error), -EOPNOTSUPP);
	assert_non_null(strstr(error.text, "its file system copies on write"));
	if (!strstr(error.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, error.text);
	snprintf(path, sizeof(path), "%s/store", store.path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, bytes);
	fixture_free(&store);
}

/* Guards that room which is taken now is there later, or none is taken. */
static void copied_on_write(void **state)
{
	char path[256];
	int fd;

	(void)state;
	cow_begin(0, -EOPNOTSUPP, false);
	cow_refused("use ext4, XFS, Btrfs or a block device", 0);
	cow_begin(0, 0, true);
	snprintf(path, sizeof(path), "%s/store", store.path);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(ftruncate(fd, 4096), 0);
	close(fd);
	cow_refused("remove the file, it is made anew", 4096);
	cow_begin(FS_COMPR_FL | FS_NOATIME_FL, 0, false);
	open_again(1, SHARD);
	assert_int_equal(cow.flags, FS_NOCOW_FL | FS_NOATIME_FL);
	assert_int_equal(dump_one(&store, 1, 0, SHARD, 0), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_has_it),
		cmocka_unit_test(the_rings_hold_the_lock),
		cmocka_unit_test(copied_on_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
