/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "sys/sys.h"

int stage_error(struct cairn_error *reterr, int code, const char *format, ...)
{
	va_list args;

	if (!reterr)
		return code;
	*reterr = (struct cairn_error){.code = code};
	va_start(args, format);
	vsnprintf(reterr->text, sizeof(reterr->text), format, args);
	va_end(args);
	return code;
}

struct stage_holder stage_holder(const struct sys *sys, int fd, uint32_t noted)
{
	struct stage_holder holder = {.who = "another process"};
	uint32_t pid = sys_flock_holder(sys, fd, noted);

	holder.self = pid == (uint32_t)getpid();
	if (holder.self)
		snprintf(holder.who, sizeof(holder.who), "this process");
	else if (pid)
		snprintf(holder.who, sizeof(holder.who), "process %u", pid);
	return holder;
}

int stage_busy(struct cairn_error *reterr, const char *stage, const char *path,
	       const struct stage_holder *holder, const char *else_do)
{
	if (holder->self)
		return stage_error(reterr, -EBUSY,
				   "%s: %s: this process has it open already: share that store, or "
				   "close it first",
				   stage, path);
	return stage_error(reterr, -EBUSY, "%s: %s: in use by %s: end it, %s", stage, path,
			   holder->who, else_do);
}
