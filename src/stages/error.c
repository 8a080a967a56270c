/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

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

int stage_busy(struct cairn_error *reterr, const char *stage, const char *path, uint32_t pid,
	       const char *else_do)
{
	char who[32] = "another process";

	if (pid)
		snprintf(who, sizeof(who), "process %u", pid);
	return stage_error(reterr, -EBUSY, "%s: %s: in use by %s: end it, %s", stage, path, who,
			   else_do);
}
