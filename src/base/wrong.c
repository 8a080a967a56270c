/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wrong.h"

#include <stdarg.h>
#include <stdio.h>

bool wrong(const struct wrong *where, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (where->text && where->bytes)
		vsnprintf(where->text, where->bytes, format, args);
	va_end(args);
	return false;
}
