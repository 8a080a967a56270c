/* SPDX-License-Identifier: Apache-2.0 */
#include "timed.h"

#include <string.h>

#define TIMED_MAX 2048u

static struct timed heap[TIMED_MAX];
static uint32_t heap_count;
static struct {
	enum sim_hang which;
	uint64_t from_ns, until_ns;
	uint32_t fail_share;
	bool lost;
} device;

static bool earlier(const struct timed *a, const struct timed *b)
{
	return a->when_ns < b->when_ns;
}

/* Timers that were set anew are left out. */
static void timed_sweep(void)
{
	uint32_t count = heap_count;

	heap_count = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct timed timed = heap[i];
		const struct sim_io *sio = timed.what;

		if (timed.kind != TIMED_RESUME || (sio->used && sio->timer == timed.number))
			timed_add(timed); /* to where it was, or before */
	}
}

void timed_add(struct timed timed)
{
	uint32_t at;

	if (heap_count == TIMED_MAX)
		timed_sweep();
	at = heap_count++;
	CHECK(at < TIMED_MAX);
	while (at && earlier(&timed, &heap[(at - 1) / 2])) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = timed;
}

struct timed timed_take(void)
{
	struct timed first = heap[0], last = heap[--heap_count];
	uint32_t at = 0;

	for (uint32_t child = 1; child < heap_count; child = 2 * at + 1) {
		if (child + 1 < heap_count && earlier(&heap[child + 1], &heap[child]))
			child++;
		if (!earlier(&heap[child], &last))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = last;
	return first;
}

bool timed_any(void)
{
	return heap_count > 0;
}

void timed_clear(void)
{
	heap_count = 0;
	memset(&device, 0, sizeof(device));
}

/* ---- a device that does not answer ------------------------------------------------------ */

void sim_hang(enum sim_hang which, uint64_t ns, uint32_t fail_share)
{
	uint64_t now_ns = sim_now_ns();

	device.which = which;
	device.from_ns = now_ns;
	device.until_ns = ns == UINT64_MAX ? UINT64_MAX : now_ns + ns;
	device.fail_share = fail_share;
}

bool sim_hangs(void)
{
	return device.until_ns > sim_now_ns();
}

bool sim_lost(void)
{
	return device.lost;
}

bool timed_hangs(struct timed *timed)
{
	bool op = timed->kind == TIMED_OP || timed->kind == TIMED_WAKE;

	if (!op || !sim_hangs() || (device.which == HANG_WRITES && !timed->write) ||
	    (device.which == HANG_BEGUN && timed->began_ns > device.from_ns))
		return false;
	device.lost = device.lost || device.until_ns == UINT64_MAX;
	timed->when_ns = device.until_ns;
	timed->late = true;
	if (!device.lost)
		timed_add(*timed);
	return true;
}

bool timed_fails(const struct timed *timed, struct kit_rng *rng)
{
	return timed->late && kit_below(rng, 100) < device.fail_share;
}
