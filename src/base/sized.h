/* SPDX-License-Identifier: Apache-2.0 */
/* Structs that begin with their size and may grow at the end: the rule is in cairn/store.h. Pure.
 */
#ifndef BASE_SIZED_H
#define BASE_SIZED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIZED_MAX 65536u /* what is larger was never filled in */

static inline bool all_zero(const void *bytes, size_t length)
{
	const uint8_t *at = (const uint8_t *)bytes;

	for (size_t i = 0; i < length; i++)
		if (at[i] != 0)
			return false;
	return true;
}

/* Whether @given, which says it has @size bytes, can be taken for one of @known bytes. */
static inline bool sized(const void *given, size_t size, size_t known)
{
	return size >= known && size < SIZED_MAX &&
	       all_zero((const uint8_t *)given + known, size - known);
}

/* For errors, with @size and @known: what is wrong where sized() is false. */
#define SIZED_RULE "size is %zu; it must be %zu, or more with nothing but zeros beyond that"

#endif
