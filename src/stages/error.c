/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/error.h"

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
