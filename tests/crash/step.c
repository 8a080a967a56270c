/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../fault/kit.h"
#include "stages/cache/evict.h"
#include "stages/cache/slots.h"
#include "step.h"

#define SYSCALL 0x050fu /* its code */

__attribute__((noreturn)) static void child(void (*play)(void *context), void *context)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(KIT_SKIP);
	__asm__ volatile("int3" ::: "memory");
	play(context);
	__asm__ volatile("int3" ::: "memory");
	_exit(0);
}

/* Waits until it stops. False: it has ended, with *ret_status. */
static bool stopped(pid_t pid, int *ret_status)
{
	CHECK(waitpid(pid, ret_status, 0) == pid);
	return WIFSTOPPED(*ret_status) && WSTOPSIG(*ret_status) == SIGTRAP;
}

pid_t step_child(void (*play)(void *context), void *context)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0)
		child(play, context);
	if (!stopped(pid, &status)) {
		printf("skipped: no ptrace here\n");
		exit(KIT_SKIP);
	}
	return pid;
}

/* At an int3, behind which it stands now? */
static bool at_mark(pid_t pid)
{
	siginfo_t info;

	CHECK(ptrace(PTRACE_GETSIGINFO, pid, NULL, &info) == 0);
	return info.si_code == SI_KERNEL;
}

static bool run(pid_t pid, enum __ptrace_request how, uint64_t most, uint64_t *ret_count)
{
	int status;

	for (*ret_count = 0; *ret_count < most; ++*ret_count) {
		CHECK(ptrace(how, pid, NULL, NULL) == 0);
		CHECK(stopped(pid, &status), "status %x", status);
		if (at_mark(pid))
			return true;
	}
	return false;
}

bool step_instructions(pid_t pid, uint64_t most, uint64_t *ret_count)
{
	return run(pid, PTRACE_SINGLESTEP, most, ret_count);
}

bool step_stops(pid_t pid, uint64_t most, uint64_t *ret_count)
{
	return run(pid, PTRACE_SYSCALL, most, ret_count);
}

/* Is what comes next a system call? */
static bool at_call(pid_t pid)
{
	struct user_regs_struct regs;
	long code;

	CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
	code = ptrace(PTRACE_PEEKTEXT, pid, regs.rip, NULL);
	return ((uint64_t)code & 0xffff) == SYSCALL;
}

bool step_to_call(pid_t pid, uint64_t *ret_count)
{
	uint64_t one;

	/* The one that it stands before, it makes. */
	for (*ret_count = 0; *ret_count == 0 || !at_call(pid); ++*ret_count)
		if (run(pid, PTRACE_SINGLESTEP, 1, &one))
			return true;
	return false;
}

void step_kill(pid_t pid)
{
	int status;

	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid);
}

void step_regain(struct cache_map *map)
{
	uint32_t units = (uint32_t)(map->chunk_bytes / CACHE_UNIT), taken = 0;
	uint32_t backed = half_get(&map->header->backed);
	struct evicted evicted = {0};
	uint64_t slot;

	for (uint32_t i = 0; i < 2 * backed && taken < backed; i++)
		if (slots_take(map, units, &slot))
			taken++;
		else
			evict_for(map, POLICY_LRU, units, &evicted);
	CHECK(taken == backed, "%u of %u chunks", taken, backed);
}
