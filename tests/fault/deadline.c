/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that does not answer: results come at the deadline; with DETACH the
 * buffers are the caller's at once and nothing writes to them any more, without
 * it nothing does after the release; a close that times out leaves the store
 * open. Every buffer is scribbled on as soon as it is free, and looked at again
 * at the end: what was written late would show, in the buffer or in a block.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit.h"

#define MS	 1000000ull
#define IDS	 24u
#define SCRIBBLE 0x5c
/* What is late is not late for long on a machine that is busy, but a hang is for ever. */
#define PATIENCE (20000 * MS)

static const struct kit_shape shape = {1, 65536};

struct device {
	char path[128];
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void open_device(struct device *device, const char *delay)
{
	struct cairn_error error = {0};
	char spec[512], tier[256];

	kit_tier(tier, sizeof(tier), device->path, "", "size=256MiB, region=1MiB");
	snprintf(spec, sizeof(spec),
		 "store(engine=%s, reactors=2, buffers=16MiB, deadline=20s) | %s%s%s",
		 kit_text("engine", "auto"), delay, *delay ? " | " : "", tier);
	CHECK(cairn_store_open(spec, NULL, &device->store, &error) == 0, "%s", error.text);
	CHECK(kit_namespace(device->store, "deadline", shape, &device->ns) == 0);
}

static void close_device(struct device *device)
{
	int ret = cairn_store_close(device->store, PATIENCE);

	CHECK(ret == 0, "close: %d", ret);
}

/* Blocks 0 to IDS-1 are there. */
static void prepare(struct device *device, const char *name)
{
	kit_at("%s", name);
	kit_watch(60);
	kit_folder(device->path, sizeof(device->path), "deadline");
	open_device(device, "");
	for (uint64_t id = 0; id < IDS; id++)
		CHECK(kit_dump(device->ns, shape, id, 0, 1, CAIRN_WRITTEN) == 0);
	close_device(device);
}

static void finish(struct device *device, const char *name)
{
	close_device(device);
	kit_remove_folder(device->path);
	printf("deadline: %s\n", name);
}

/* One xfer in a buffer of its own, that is scribbled on and looked at again. */
struct shot {
	struct cairn_xfer xfer;
	struct cairn_segment segment;
	uint8_t *bytes;
	uint64_t id, task;
	bool scribbled, dump;
};

static void aim(struct shot *shot, uint64_t id, bool dump)
{
	shot->bytes = aligned_alloc(4096, shape.shard_bytes);
	CHECK(shot->bytes);
	shot->id = id;
	shot->dump = dump;
	shot->scribbled = false;
	shot->xfer = kit_xfer(id, 0, &shot->segment, shot->bytes, shape.shard_bytes);
	if (dump)
		kit_fill(shot->bytes, shape.shard_bytes, id, 0, 0);
}

static void fire(struct device *device, struct shot *shot, uint64_t deadline_ns, uint32_t flags)
{
	struct cairn_task_opts opts = {
		.size = sizeof(opts), .flags = flags, .deadline_ns = deadline_ns};
	int ret = shot->dump ? cairn_dump(device->ns, &shot->xfer, 1, &opts, &shot->task)
			     : cairn_load(device->ns, &shot->xfer, 1, &opts, &shot->task);

	CHECK(ret == 0, "submission: %d", ret);
}

static void scribble(struct shot *shot)
{
	memset(shot->bytes, SCRIBBLE, shape.shard_bytes);
	shot->scribbled = true;
}

/* Nobody wrote over the scribble. */
static void inspect(struct shot *shot)
{
	CHECK(shot->scribbled);
	for (size_t i = 0; i < shape.shard_bytes; i++)
		CHECK(shot->bytes[i] == SCRIBBLE, "byte %zu was written after the release", i);
	free(shot->bytes);
	shot->bytes = NULL;
}

static void await(struct device *device, struct shot *shot, uint32_t events)
{
	int ret = cairn_task_wait(device->store, shot->task, events, PATIENCE);

	CHECK(ret == 0, "wait: %d", ret);
}

/* After the result: a task whose release was seen with it is gone already. */
static void await_release(struct device *device, struct shot *shot)
{
	int ret = cairn_task_wait(device->store, shot->task, CAIRN_EVENT_RELEASE, PATIENCE);

	CHECK(ret == 0 || ret == -EINVAL, "wait: %d", ret);
}

static void check_result(const struct shot *shot)
{
	int32_t status = shot->xfer.result.status;

	CHECK(status == 0 || status == -ETIMEDOUT || status == -ECANCELED || status == -ENOENT ||
		      (shot->dump && status == CAIRN_PRESENT),
	      "status %d", status);
	CHECK(shot->dump || status != 0 ||
		      kit_right(shot->bytes, shape.shard_bytes, shot->id, 0, 0),
	      "wrong bytes");
}

/* ---- cases ------------------------------------------------------------------------ */

/* The device is silent from the first io on. */
static void hung(uint32_t flags, const char *name)
{
	struct device device;
	struct shot shots[IDS];
	uint64_t begun;

	prepare(&device, name);
	open_device(&device, "delay(hang=\"#1\")");
	begun = now_ns();
	for (uint32_t i = 0; i < IDS; i++) {
		aim(&shots[i], i % 2 ? 1000 + i : i, i % 2);
		fire(&device, &shots[i], 50 * MS, flags);
	}
	for (uint32_t i = 0; i < IDS; i++) {
		if (flags & CAIRN_TASK_DETACH) {
			await(&device, &shots[i], 0);
		} else {
			await(&device, &shots[i], CAIRN_EVENT_RESULT);
			CHECK(shots[i].xfer.result.status == -ETIMEDOUT);
			await_release(&device, &shots[i]);
		}
		CHECK(shots[i].xfer.result.status == -ETIMEDOUT, "%d", shots[i].xfer.result.status);
		scribble(&shots[i]);
	}
	CHECK(now_ns() - begun >= 50 * MS, "before the deadline");
	for (uint32_t i = 1; i < IDS; i += 2)
		CHECK(!kit_present(device.ns, 1000 + i));
	finish(&device, name);
	for (uint32_t i = 0; i < IDS; i++)
		inspect(&shots[i]);
}

/* The device answers after the deadline: then the real I/O happens, on whose memory? */
static void late(uint32_t flags, const char *name)
{
	struct device device;
	struct shot shots[IDS];

	prepare(&device, name);
	open_device(&device, "delay(hang=\"#1\", hang_for=70ms)");
	for (uint32_t i = 0; i < IDS; i++) {
		aim(&shots[i], i % 2 ? 1000 + i : i, i % 2);
		fire(&device, &shots[i], 20 * MS, flags);
	}
	for (uint32_t i = 0; i < IDS; i++) {
		await(&device, &shots[i], 0);
		check_result(&shots[i]);
		scribble(&shots[i]);
	}
	close_device(&device);
	open_device(&device, "");
	for (uint32_t i = 0; i < IDS; i++) {
		int ret = kit_load(device.ns, shape, shots[i].id);

		/* A dump may have come through late, but with the bytes it was given. */
		CHECK(ret == 0 || (shots[i].dump && ret == -ENOENT), "block %lu: %d",
		      (unsigned long)shots[i].id, ret);
	}
	finish(&device, name);
	for (uint32_t i = 0; i < IDS; i++)
		inspect(&shots[i]);
}

/* All kinds together on a slow device, cancelled here and there. */
static void storm(void)
{
	enum { SHOTS = 40 };
	struct kit_rng rng = {kit_number("seed", 3, 3)};
	uint64_t rounds = kit_number("storms", 8, 500), next = 2000;
	struct device device;
	struct shot shots[SHOTS];

	prepare(&device, "storm");
	open_device(&device, "delay(read=1ms, write=1ms, jitter=20ms, depth=8)");
	for (uint64_t round = 0; round < rounds; round++) {
		kit_at("storm, round %lu", (unsigned long)round);
		kit_watch(60);
		for (uint32_t i = 0; i < SHOTS; i++) {
			bool dump = kit_below(&rng, 2);

			aim(&shots[i], dump ? next++ : kit_below(&rng, IDS), dump);
			fire(&device, &shots[i], (1 + kit_below(&rng, 60)) * MS,
			     kit_below(&rng, 2) ? CAIRN_TASK_DETACH : 0);
			if (kit_below(&rng, 4) == 0)
				CHECK(cairn_task_cancel(device.store, shots[i].task) == 0);
		}
		for (uint32_t i = 0; i < SHOTS; i++) {
			if (kit_below(&rng, 3) == 0) {
				int ret = cairn_task_cancel(device.store, shots[i].task);

				CHECK(ret == 0, "cancel: %d", ret);
			}
			await(&device, &shots[i], 0);
			check_result(&shots[i]);
			CHECK(cairn_task_wait(device.store, shots[i].task, 0, 0) == -EINVAL);
			scribble(&shots[i]);
		}
		CHECK(cairn_store_quiesce(device.store, PATIENCE) == 0);
		for (uint32_t i = 0; i < SHOTS; i++) {
			int ret = shots[i].dump && shots[i].xfer.result.status >= 0
					  ? kit_load(device.ns, shape, shots[i].id)
					  : 0;

			CHECK(ret == 0, "block %lu: %d", (unsigned long)shots[i].id, ret);
			inspect(&shots[i]);
		}
	}
	close_device(&device);
	open_device(&device, "");
	for (uint64_t id = 2000; id < next; id++) {
		int ret = kit_load(device.ns, shape, id);

		CHECK(ret == 0 || ret == -ENOENT, "block %lu: %d", (unsigned long)id, ret);
	}
	finish(&device, "storm");
}

/* A close that cannot end in time, and what works after it. */
static void close_in_vain(void)
{
	struct device device;
	struct cairn_stat st = {.size = sizeof(st)};
	struct shot shot, other;

	prepare(&device, "close");
	open_device(&device, "delay(hang=\"#1\", hang_for=1500ms)");
	aim(&shot, 1, false);
	fire(&device, &shot, CAIRN_DEADLINE_NONE, 0);
	CHECK(cairn_store_close(device.store, 20 * MS) == -ETIMEDOUT);
	CHECK(cairn_stat(device.store, &st) == 0 && st.tasks_in_flight == 1);
	CHECK(kit_present(device.ns, 2));
	aim(&other, 3000, true);
	fire(&device, &other, CAIRN_DEADLINE_NONE, 0);
	CHECK(cairn_task_wait(device.store, shot.task, 0, 1 * MS) == -ETIMEDOUT);
	CHECK(cairn_store_close(device.store, 1 * MS) == -ETIMEDOUT);
	await(&device, &shot, 0);
	await(&device, &other, 0);
	CHECK(shot.xfer.result.status == 0 && other.xfer.result.status == 0);
	check_result(&shot);
	CHECK(kit_load(device.ns, shape, 3000) == 0);
	scribble(&shot);
	scribble(&other);
	finish(&device, "close");
	inspect(&shot);
	inspect(&other);
}

/* The synchronous form: -ETIMEDOUT, then quiesce, then the memory is free. */
static void sync_form(void)
{
	struct device device;
	struct cairn_task_opts opts = {.size = sizeof(opts), .deadline_ns = 20 * MS};
	struct shot shots[6];

	prepare(&device, "sync");
	open_device(&device, "delay(hang=\"#1\", hang_for=2s)");
	for (uint32_t i = 0; i < 6; i++) {
		int ret;

		opts.flags = i % 3 == 2 ? CAIRN_TASK_DETACH : 0;
		aim(&shots[i], i % 2 ? 4000 + i : i, i % 2);
		ret = shots[i].dump ? cairn_dump(device.ns, &shots[i].xfer, 1, &opts, NULL)
				    : cairn_load(device.ns, &shots[i].xfer, 1, &opts, NULL);
		CHECK(ret == shots[i].xfer.result.status, "%d", ret);
		CHECK(i > 0 || ret == -ETIMEDOUT, "%d", ret);
		if (ret == -ETIMEDOUT && !opts.flags)
			CHECK(cairn_store_quiesce(device.store, PATIENCE) == 0);
		check_result(&shots[i]);
		scribble(&shots[i]);
	}
	finish(&device, "sync");
	for (uint32_t i = 0; i < 6; i++)
		inspect(&shots[i]);
}

/* Cancelled while the device is silent. */
static void cancel(uint32_t flags, const char *name)
{
	struct device device;
	struct shot shots[IDS];

	prepare(&device, name);
	open_device(&device, "delay(hang=\"#1\", hang_for=60ms)");
	for (uint32_t i = 0; i < IDS; i++) {
		aim(&shots[i], i % 2 ? 1000 + i : i, i % 2);
		fire(&device, &shots[i], CAIRN_DEADLINE_NONE, flags);
	}
	for (uint32_t i = 0; i < IDS; i++) {
		CHECK(cairn_task_cancel(device.store, shots[i].task) == 0);
		if (i % 3 == 0)
			CHECK(cairn_task_cancel(device.store, shots[i].task) == 0);
	}
	for (uint32_t i = 0; i < IDS; i++) {
		await(&device, &shots[i], 0);
		check_result(&shots[i]);
		CHECK(cairn_task_cancel(device.store, shots[i].task) == -EINVAL);
		scribble(&shots[i]);
	}
	finish(&device, name);
	for (uint32_t i = 0; i < IDS; i++)
		inspect(&shots[i]);
}

int main(int argc, char **argv)
{
	kit_init(argc, argv);
	hung(0, "hang");
	hung(CAIRN_TASK_DETACH, "hang, detached");
	late(0, "late");
	late(CAIRN_TASK_DETACH, "late, detached");
	cancel(0, "cancel");
	cancel(CAIRN_TASK_DETACH, "cancel, detached");
	sync_form();
	close_in_vain();
	storm();
	return 0;
}
