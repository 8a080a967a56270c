/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache brings up from below: once for all who ask, and nothing of what failed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

#include "block_shop.h"
#include "lower.h"
#include "sys/sys.h"

#define LENGTH 20000u
#define LARGE  (8u << 20) /* the largest shard that is kept */
#define ASKERS 4u

/* ---- a tier that keeps a load waiting ----------------------------------------------- */

/* A posix tier as the stage `lower`; the first load that comes stays until it is let in. */
static struct {
	pthread_mutex_t lock;
	struct cairn_io *held;
	bool shut, freed, fails; /* fails: what was held ends with -EIO */
	uint32_t loads;		 /* that came */
	uint32_t flags;		 /* of the last one, and where its bytes are to go */
	const void *memory;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lower_submit(void *self, struct cairn_io *io, void *scratch)
{
	bool hold = false;

	if (io->op == CAIRN_OP_LOAD) {
		pthread_mutex_lock(&gate.lock);
		gate.loads++;
		gate.flags = io->flags;
		gate.memory = io->parts[0].iov[0].iov_base;
		hold = gate.shut;
		if (hold)
			gate.held = io;
		gate.shut = false;
		pthread_mutex_unlock(&gate.lock);
	}
	if (!hold)
		cairn_stage_posix.submit(self, io, scratch);
}

static void lower_resume(void *self, struct cairn_io *io, void *scratch)
{
	bool freed, fails;

	pthread_mutex_lock(&gate.lock);
	freed = gate.freed && gate.held == io;
	fails = gate.fails;
	if (freed)
		gate.held = NULL;
	gate.freed &= !freed;
	pthread_mutex_unlock(&gate.lock);
	if (!freed) {
		cairn_stage_posix.resume(self, io, scratch);
	} else if (fails) {
		cairn_io_fail(io, -EIO);
		lower_host->complete(io);
	} else {
		cairn_stage_posix.submit(self, io, scratch);
	}
}

static void gate_shut(bool fails)
{
	pthread_mutex_lock(&gate.lock);
	gate.shut = true;
	gate.fails = fails;
	gate.loads = 0;
	pthread_mutex_unlock(&gate.lock);
}

static bool gate_holds(void)
{
	bool ret;

	pthread_mutex_lock(&gate.lock);
	ret = gate.held != NULL;
	pthread_mutex_unlock(&gate.lock);
	return ret;
}

static void gate_open(void)
{
	pthread_mutex_lock(&gate.lock);
	assert_non_null(gate.held);
	gate.freed = true;
	lower_host->resume(gate.held);
	pthread_mutex_unlock(&gate.lock);
}

static void gate_build(char *ret_folder, size_t room)
{
	const char *path = getenv("STAGE_LOWER");

	lower_build();
	snprintf(ret_folder, room, "%.*s", (int)(strrchr(path, '/') - path), path);
}

/* ---- one fill for all ----------------------------------------------------------------- */

static struct shop pair[2];
static char more_options[64] = "hugepages=auto"; /* more of the cache's */

struct asker {
	struct shop *shop;
	pthread_t thread;
	int status;
};

static void *ask(void *context)
{
	struct asker *asker = context;

	asker->status = load(asker->shop, 1, LENGTH);
	return NULL;
}

static uint64_t of_both(const char *name)
{
	return counted(&pair[0], name) + counted(&pair[1], name);
}

static uint64_t loads_of_both(void)
{
	return of_both("load_hits") + of_both("load_misses");
}

/* All ask for the block that one of them has begun to bring up. How many have got it at the end. */
static uint32_t ask_at_once(bool fails)
{
	struct asker askers[ASKERS];
	uint32_t count = 0;

	gate_shut(fails);
	for (uint32_t i = 0; i < ASKERS; i++) {
		askers[i].shop = &pair[i % 2];
		assert_int_equal(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
	}
	/* Until one waits; or all others have their answer, and none did. */
	while (!gate_holds() || (of_both("fill_waits") == 0 && loads_of_both() < ASKERS))
		usleep(1000);
	gate_open();
	for (uint32_t i = 0; i < ASKERS; i++) {
		pthread_join(askers[i].thread, NULL);
		count += askers[i].status == 0;
	}
	return count;
}

static void pair_open(char *ret_folder)
{
	char stages[SPEC_MAX / 2], spec[SPEC_MAX];
	struct cairn_store_opts opts = {.size = sizeof(opts), .stage_path = stages};
	const char *temporary = getenv("TMPDIR");
	struct cairn_error error = {0};

	gate_build(stages, sizeof(stages));
	snprintf(ret_folder, SPEC_MAX / 4, "%s/cairn-fills-XXXXXX", temporary ? temporary : "/tmp");
	assert_non_null(mkdtemp(ret_folder));
	snprintf(spec, sizeof(spec),
		 "cache(size=16MiB, entries=2000, write=around, name=%s, %s) | "
		 "lower(path=%s/kv, shared=yes)",
		 region, more_options, ret_folder);
	for (uint32_t i = 0; i < 2; i++)
		if (shop_try(&pair[i], spec, &opts, LENGTH, &error) < 0)
			fail_msg("%s: %s", spec, error.text);
	assert_int_equal(dump(&pair[0], 1, LENGTH), 0);
	assert_false(in_memory(&pair[1], 1));
}

static void pair_close(const char *folder)
{
	char command[SPEC_MAX];

	shop_close(&pair[0]);
	shop_close(&pair[1]);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
}

/* Guards single flight: stores and threads that miss one shard at once bring it up once. */
static void one_flight(void **state)
{
	char folder[SPEC_MAX / 4];

	(void)state;
	pair_open(folder);
	assert_int_equal(ask_at_once(false), ASKERS);
	assert_int_equal(of_both("fills"), 1);
	assert_int_equal(of_both("fills_failed"), 0);
	assert_true(of_both("fill_waits") > 0);
	/* Who waits too long goes below beside it, and is counted. */
	assert_int_equal(gate.loads, 1 + of_both("private_loads"));
	assert_true(in_memory(&pair[0], 1) && in_memory(&pair[1], 1));
	pair_close(folder);
}

/* Guards that a fill that fails is an error of its own load alone, not of those that waited. */
static void one_fails(void **state)
{
	char folder[SPEC_MAX / 4];

	(void)state;
	pair_open(folder);
	assert_int_equal(ask_at_once(true), ASKERS - 1);
	assert_true(of_both("fill_waits") > 0);
	assert_int_equal(of_both("fills_failed"), 1);
	assert_int_equal(load(&pair[0], 1, LENGTH), 0);
	/* One that takes the entry just as the failed one takes it away fills in vain. */
	assert_in_range(of_both("fills"), 1, 2);
	assert_true(in_memory(&pair[0], 1) && in_memory(&pair[1], 1));
	pair_close(folder);
}

/* ---- where it comes to ------------------------------------------------------------------- */

/* Does this kernel make huge pages of shared memory when it is asked to? */
static bool huge_pages_here(void)
{
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), ret;
	void *memory;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SYS_HUGE_BYTES), 0);
	assert_int_equal(
		sys_map_huge(&sys_native, SYS_HUGE_BYTES, PROT_READ | PROT_WRITE, fd, &memory), 0);
	*(uint8_t *)memory = 1;
	ret = sys_collapse(&sys_native, memory);
	munmap(memory, SYS_HUGE_BYTES);
	close(fd);
	return ret != -EINVAL;
}

enum { ALL, FROM_THE_MIDDLE, REGISTERED, FETCHED };

/* Brings one block up in one of these ways; what the tier below was asked is in the gate. */
static void bring_up(struct shop *shop, uint32_t number, int way, uint8_t *memory)
{
	uint64_t skip = way == FROM_THE_MIDDLE ? 4096 : 0;
	struct cairn_xfer xfer = xfer_of(shop, number, memory, LENGTH - skip);
	uint8_t *want = malloc(LENGTH);

	assert_non_null(want);
	assert_int_equal(dump(shop, number, LENGTH), 0);
	assert_false(in_memory(shop, number));
	xfer.offset = skip;
	if (way == REGISTERED)
		assert_int_equal(cairn_memory_register(shop->store, memory, LENGTH), 0);
	if (way == FETCHED) {
		assert_int_equal(cairn_prefetch(shop->ns, &xfer.key, 1, NULL, NULL, NULL), 0);
	} else {
		assert_int_equal(cairn_load(shop->ns, &xfer, 1, NULL, NULL), 0);
		content_of(&xfer.key, 0, want, LENGTH);
		assert_memory_equal(memory, want + skip, LENGTH - skip);
	}
	if (way == REGISTERED)
		assert_int_equal(cairn_memory_unregister(shop->store, memory, UINT64_MAX), 0);
	assert_true(in_memory(shop, number));
	assert_int_equal(load(shop, number, LENGTH), 0);
	free(want);
}

/*
 * Guards that what is brought up comes straight to its slot, and is copied once, where I/O may be
 * aimed at the region's pages; and never straight into memory of others that may not be aimed at.
 */
static void where_to(void **state)
{
	uint8_t *memory = aligned_alloc(4096, 20480);
	char folder[SPEC_MAX / 4];

	(void)state;
	assert_non_null(memory);
	for (uint32_t huge = 0; huge < 2; huge++) {
		bool good = huge && huge_pages_here();

		snprintf(more_options, sizeof(more_options), "hugepages=%s", huge ? "auto" : "no");
		pair_open(folder);
		for (int way = ALL; way <= FETCHED; way++) {
			gate.loads = 0;
			bring_up(&pair[0], 10 + (uint32_t)way, way, memory);
			assert_int_equal(gate.loads, 1);
			assert_int_equal(!!(gate.flags & CAIRN_IO_AIMABLE),
					 good || way == REGISTERED);
			assert_int_equal(gate.flags & CAIRN_IO_AIM_OWN, 0);
			assert_int_equal(gate.memory == memory,
					 way == REGISTERED || (way == ALL && !good));
		}
		pair_close(folder);
		old_region(NULL);
	}
	free(memory);
}

/* ---- nothing of what failed -------------------------------------------------------------- */

struct memory {
	uint64_t blocks, used_bytes, pins;
};

static int see(void *context, const struct cairn_detail *detail)
{
	struct memory *memory = context;

	if (strcmp(detail->item, "memory") != 0)
		return 0;
	if (strcmp(detail->name, "blocks") == 0)
		memory->blocks = detail->value;
	else if (strcmp(detail->name, "used_bytes") == 0)
		memory->used_bytes = detail->value;
	else if (strcmp(detail->name, "pins") == 0)
		memory->pins = detail->value;
	return 0;
}

static struct memory look(void)
{
	struct memory memory = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
	struct cairn_error error = {0};
	char spec[SPEC_MAX];

	snprintf(spec, sizeof(spec), "cache(size=16MiB, name=%s)", region);
	if (cairn_inspect(spec, NULL, CAIRN_INSPECT_MEMORY, see, &memory, &error) < 0)
		fail_msg("%s", error.text);
	return memory;
}

static void is_empty(const struct shop *shop, uint32_t number)
{
	struct memory memory = look();

	assert_false(in_memory(shop, number));
	assert_int_equal(memory.blocks, 0);
	assert_int_equal(memory.used_bytes, 0);
	assert_int_equal(memory.pins, 0);
}

/* Guards that no slot, entry or pin stays of a load that fails below, whole or half way. */
static void failed_loads(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000, write=around",
		  " | fault(rule=\"load:EIO:#1,load:short:#2,load:ENOMEM:#3\") | null(size=64MiB)",
		  LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	is_empty(&shop, 1);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(load(&shop, 1, LENGTH), i == 2 ? -ENOMEM : -EIO);
		assert_int_equal(counted(&shop, "fills_failed"), i + 1);
		is_empty(&shop, 1);
	}
	assert_int_equal(counted(&shop, "fills"), 0);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	assert_int_equal(counted(&shop, "fills"), 1);
	assert_true(in_memory(&shop, 1));
	assert_int_equal(look().blocks, 1);
	assert_int_equal(load(&shop, 1, LENGTH), 0);
	assert_int_equal(counted(&shop, "load_hits"), 1);
	shop_close(&shop);
}

/* Guards the same of what the tier below does not know, of a prefetch, and of a dump. */
static void failed_others(void **state)
{
	struct cairn_result result = {0};
	struct cairn_key key;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=2000",
		  " | fault(rule=\"dump:EIO:#1,load:EIO:#2\") | null(size=64MiB)", LENGTH);
	assert_int_equal(load(&shop, 1, LENGTH), -ENOENT);
	is_empty(&shop, 1);
	assert_int_equal(dump(&shop, 1, LENGTH), -EIO);
	assert_int_equal(load(&shop, 1, LENGTH), -EIO);
	is_empty(&shop, 1);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	assert_true(in_memory(&shop, 1));
	shop_close(&shop);

	shop_open(&shop, "size=16MiB, entries=2000, write=around",
		  " | fault(rule=\"load:EIO:#1\") | null(size=64MiB)", LENGTH);
	assert_int_equal(dump(&shop, 1, LENGTH), 0);
	key = key_of(&shop, 1);
	cairn_prefetch(shop.ns, &key, 1, &result, NULL, NULL);
	assert_int_equal(result.status, -EIO);
	is_empty(&shop, 1);
	assert_int_equal(counted(&shop, "prefetched_blocks"), 0);
	assert_int_equal(cairn_prefetch(shop.ns, &key, 1, &result, NULL, NULL), 0);
	assert_true(in_memory(&shop, 1));
	shop_close(&shop);
}

#define PIECES 128u /* shards: of two ios */

/* What the last of a block's results says. */
static int all_pieces(const struct shop *shop, uint32_t number, bool load)
{
	struct cairn_xfer *xfers = calloc(PIECES, sizeof(*xfers));
	uint8_t *memory = calloc(1, LENGTH);
	int status;

	assert_true(xfers && memory);
	for (uint32_t i = 0; i < PIECES; i++) {
		xfers[i] = xfer_of(shop, number, memory, LENGTH);
		xfers[i].shard = i;
	}
	if (load)
		cairn_load(shop->ns, xfers, PIECES, NULL, NULL);
	else
		cairn_dump(shop->ns, xfers, PIECES, NULL, NULL);
	status = xfers[PIECES - 1].result.status;
	give_back(shop, memory);
	free(xfers);
	return status;
}

/* Guards that the last of several ios takes the block's entry away, whichever of them made it. */
static void failed_in_parts(void **state)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc), .model = "p", .shard_count = PIECES, .shard_bytes = LENGTH};
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=32MiB, entries=2000",
		  " | delay(read=1ms, write=1ms) | "
		  "fault(rule=\"dump:EIO:1,load:EIO:1\") | null(size=64MiB)",
		  LENGTH);
	assert_int_equal(cairn_namespace_open(shop.store, &desc, &shop.ns, NULL), 0);
	for (uint32_t i = 0; i < 20; i++) {
		assert_true(all_pieces(&shop, i, false) < 0);
		is_empty(&shop, i);
		assert_int_equal(all_pieces(&shop, i, true), -EIO);
		is_empty(&shop, i);
	}
	shop_close(&shop);
}

/* Guards that what is not there takes no place: else a table fills up with what failed. */
static void many_misses(void **state)
{
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=16MiB, entries=300", " | null(size=64MiB)", LENGTH);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(dump(&shop, i, LENGTH), 0);
	for (uint32_t i = 1000; i < 2000; i++)
		assert_int_equal(load(&shop, i, LENGTH), -ENOENT);
	for (uint32_t i = 0; i < 100; i++)
		assert_true(in_memory(&shop, i));
	assert_int_equal(counted(&shop, "evicted_blocks"), 0);
	assert_int_equal(counted(&shop, "fills_failed"), 1000);
	assert_int_equal(look().blocks, 100);
	shop_close(&shop);
}

/* ---- too large ------------------------------------------------------------------------------ */

/* Guards the bound of what is kept: one byte more goes past it, whole and counted. */
static void large_ones(void **state)
{
	const char *options = "size=288MiB, entries=300, prefault=ahead";
	struct shop shop;

	(void)state;
	shop_open(&shop, options, " | null(size=64MiB)", LARGE + 1);
	assert_int_equal(dump(&shop, 1, LARGE + 1), 0);
	assert_int_equal(counted(&shop, "bypassed"), 1);
	assert_int_equal(counted(&shop, "dumped_shards"), 0);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_int_equal(load(&shop, 1, LARGE + 1), 0);
		assert_int_equal(counted(&shop, "private_loads"), i);
		is_empty(&shop, 1);
	}
	assert_int_equal(counted(&shop, "load_hits"), 0);
	assert_int_equal(counted(&shop, "fills"), 0);
	shop_close(&shop);

	shop_open(&shop, options, " | null(size=64MiB)", LARGE);
	assert_int_equal(dump(&shop, 1, LARGE), 0);
	assert_int_equal(counted(&shop, "bypassed"), 0);
	assert_int_equal(counted(&shop, "dumped_shards"), 1);
	assert_int_equal(load(&shop, 1, LARGE), 0);
	assert_int_equal(counted(&shop, "load_hits"), 1);
	shop_close(&shop);
}

/* Guards that what no tier can take is refused at once, and not waited for. */
static void large_alone(void **state)
{
	struct cairn_reserved reserved;
	struct cairn_xfer shape;
	struct shop shop;

	(void)state;
	shop_open(&shop, "size=288MiB, entries=300, prefault=ahead", "", LARGE + 1);
	assert_int_equal(dump(&shop, 1, LARGE + 1), -EFBIG);
	assert_int_equal(counted(&shop, "refused"), 1);
	shape = xfer_of(&shop, 1, NULL, LARGE + 1);
	assert_int_equal(cairn_reserve(shop.ns, &shape, &reserved), -EFBIG);
	assert_int_equal(load(&shop, 1, LARGE + 1), -ENOENT);
	is_empty(&shop, 1);
	shop_close(&shop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_flight),    TEST(one_fails),	    TEST(failed_loads),
		TEST(failed_others), TEST(failed_in_parts), TEST(many_misses),
		TEST(large_ones),    TEST(large_alone),	    TEST(where_to),
	};

	if (shm_is_small())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
