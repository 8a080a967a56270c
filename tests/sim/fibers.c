/* SPDX-License-Identifier: Apache-2.0 */
#include "fibers.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#define STACK_BYTES (256u << 10)

struct fiber {
	jmp_buf there;
	ucontext_t entry;
	void *stack;
	bool begun, busy, waiting;
	pthread_mutex_t *wants;
	pthread_cond_t *cond; /* that it waits for */
	void (*fn)(void *what);
	void *what;
};

static struct {
	struct fiber fibers[FIBERS_MAX];
	jmp_buf home;
	ucontext_t home_entry;
	uint32_t self;
	struct kit_rng *rng;
	uint32_t per_mille;
	uint64_t unlocks;
} world = {.self = FIBER_NONE};

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

void fibers_begin(struct kit_rng *rng, uint32_t per_mille)
{
	world.rng = rng;
	world.per_mille = per_mille;
	fibers_abandon();
}

void fibers_abandon(void)
{
	CHECK(world.self == FIBER_NONE);
	for (uint32_t i = 0; i < FIBERS_MAX; i++)
		world.fibers[i].begun = world.fibers[i].busy = world.fibers[i].waiting = false;
}

bool fiber_idle(uint32_t fiber)
{
	return !world.fibers[fiber].busy;
}

static bool mutex_free(pthread_mutex_t *mutex)
{
	if (pthread_mutex_trylock(mutex))
		return false;
	__real_pthread_mutex_unlock(mutex);
	return true;
}

bool fiber_ready(uint32_t fiber)
{
	const struct fiber *f = &world.fibers[fiber];

	return f->busy && !f->waiting && (!f->wants || mutex_free(f->wants));
}

uint32_t fiber_self(void)
{
	return world.self;
}

uint64_t fibers_unlocks(void)
{
	return world.unlocks;
}

static void go_home(void)
{
	struct fiber *f = &world.fibers[world.self];

	if (_setjmp(f->there) == 0)
		_longjmp(world.home, 1);
}

static void fiber_main(void)
{
	for (;;) {
		struct fiber *f = &world.fibers[world.self];

		f->fn(f->what);
		f->busy = false;
		go_home();
	}
}

static void enter(uint32_t fiber)
{
	struct fiber *f = &world.fibers[fiber];

	CHECK(world.self == FIBER_NONE);
	world.self = fiber;
	if (_setjmp(world.home) == 0) {
		if (f->begun)
			_longjmp(f->there, 1);
		f->begun = true;
		if (!f->stack)
			f->stack = malloc(STACK_BYTES);
		CHECK(f->stack && getcontext(&f->entry) == 0);
		f->entry.uc_stack.ss_sp = f->stack;
		f->entry.uc_stack.ss_size = STACK_BYTES;
		f->entry.uc_link = NULL;
		makecontext(&f->entry, fiber_main, 0);
		swapcontext(&world.home_entry, &f->entry);
	}
	world.self = FIBER_NONE;
}

void fiber_start(uint32_t fiber, void (*fn)(void *what), void *what)
{
	struct fiber *f = &world.fibers[fiber];

	CHECK(!f->busy);
	f->busy = true;
	f->wants = NULL;
	f->fn = fn;
	f->what = what;
	enter(fiber);
}

void fiber_go_on(uint32_t fiber)
{
	CHECK(fiber_ready(fiber));
	enter(fiber);
}

void fiber_wait(void)
{
	CHECK(world.self != FIBER_NONE);
	world.fibers[world.self].waiting = true;
	go_home();
}

void fiber_wake(uint32_t fiber)
{
	world.fibers[fiber].waiting = false;
}

/* ---- mutexes -------------------------------------------------------------------- */

static void perhaps_leave(void)
{
	if (world.self != FIBER_NONE && world.per_mille &&
	    kit_below(world.rng, 1000) < world.per_mille)
		go_home();
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	perhaps_leave();
	if (world.self == FIBER_NONE)
		return __real_pthread_mutex_lock(mutex);
	while (pthread_mutex_trylock(mutex)) {
		world.fibers[world.self].wants = mutex;
		go_home();
		world.fibers[world.self].wants = NULL;
	}
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	int rc = __real_pthread_mutex_unlock(mutex);

	world.unlocks++;
	perhaps_leave();
	return rc;
}

/* ---- conditions ------------------------------------------------------------------ */

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	struct fiber *f = &world.fibers[world.self];

	f->cond = cond;
	__real_pthread_mutex_unlock(mutex);
	fiber_wait();
	f->cond = NULL;
	return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
	for (uint32_t i = 0; i < FIBERS_MAX; i++)
		if (world.fibers[i].waiting && world.fibers[i].cond == cond)
			fiber_wake(i);
	return 0;
}
