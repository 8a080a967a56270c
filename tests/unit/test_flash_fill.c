/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is taken ahead of an open that finds many blocks. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "stages/flash/fill.h"

#define COUNT (3u << 20)
#define EACH  4u
#define BYTES ((size_t)COUNT * EACH)
#define PAGE  4096u

static uint8_t *area(void)
{
	void *memory =
		mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(memory != MAP_FAILED);
	madvise(memory, BYTES, MADV_NOHUGEPAGE); /* what is resident is seen page by page */
	return memory;
}

static bool resident(const uint8_t *at)
{
	unsigned char map = 0;

	assert_int_equal(mincore((void *)((uintptr_t)at / PAGE * PAGE), PAGE, &map), 0);
	return map & 1;
}

static bool kernel_has_it(void)
{
	uint8_t *memory = area();
	bool has = madvise(memory, PAGE, MADV_POPULATE_WRITE) == 0;

	munmap(memory, BYTES);
	return has;
}

/* It stays a little ahead, and takes no more than was said would come. */
static void stays_ahead(void **state)
{
	uint8_t *first = area(), *memory = area();
	struct fill_range range = {memory, EACH};
	struct fill *fill;

	(void)state;
	if (!kernel_has_it()) {
		print_message("# the kernel has no MADV_POPULATE_WRITE\n");
		return;
	}
	fill = fill_begin(&sys_native, &range, 1, COUNT - (1u << 19), first, BYTES);
	assert_non_null(fill);
	while (!resident(memory + (size_t)(FILL_AHEAD - 1) * EACH))
		sched_yield();
	assert_true(resident(first) && resident(first + BYTES - PAGE));
	assert_false(resident(memory + (size_t)FILL_AHEAD * EACH));
	fill_told(fill, FILL_AHEAD);
	while (!resident(memory + (size_t)(2 * FILL_AHEAD - 1) * EACH))
		sched_yield();
	fill_told(fill, COUNT);
	while (!resident(memory + (size_t)(COUNT - (1u << 19) - 1) * EACH))
		sched_yield();
	fill_end(fill);
	assert_false(resident(memory + (size_t)(COUNT - (1u << 19)) * EACH));
	munmap(memory, BYTES);
	munmap(first, BYTES);
}

static void ends_at_once(void **state)
{
	uint8_t *memory = area();
	struct fill_range range = {memory, EACH};

	(void)state;
	fill_end(fill_begin(&sys_native, &range, 1, COUNT, memory, 0));
	fill_end(NULL);
	munmap(memory, BYTES);
}

static int no_madvise(void *address, size_t bytes, int advice)
{
	(void)address;
	(void)bytes;
	(void)advice;
	return -EINVAL;
}

/* A kernel that cannot: the thread leaves, and the memory comes as it is touched. */
static void old_kernel(void **state)
{
	uint8_t *memory = area();
	struct fill_range range = {memory, EACH};
	struct sys sys = sys_native;
	struct fill *fill;

	(void)state;
	sys.madvise = no_madvise;
	fill = fill_begin(&sys, &range, 1, COUNT, memory, PAGE);
	assert_non_null(fill);
	fill_told(fill, COUNT);
	fill_end(fill);
	assert_false(resident(memory));
	munmap(memory, BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stays_ahead),
		cmocka_unit_test(ends_at_once),
		cmocka_unit_test(old_kernel),
	};

	return cmocka_run_group_tests_name("flash_fill", tests, NULL, NULL);
}
