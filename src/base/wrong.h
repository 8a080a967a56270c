/* SPDX-License-Identifier: Apache-2.0 */
/* What a check of invariants says of the first that does not hold. */
#ifndef BASE_WRONG_H
#define BASE_WRONG_H

#include <stdbool.h>
#include <stddef.h>

/* Where one line goes; @text may be NULL, or have no bytes. */
struct wrong {
	char *text;
	size_t bytes;
};

/* Says it, and returns false. */
bool wrong(const struct wrong *where, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
