/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of large pieces that are not in the processor's caches, to where they are not
 * read at once. From COPY_COLD_MIN bytes on the widest stores that pass the caches by, in
 * two pages at a time, which half as fast again as memcpy() where it was measured
 * (bench/copy); below it is memcpy().
 */
#ifndef BASE_COPY_H
#define BASE_COPY_H

#include <stddef.h>

#define COPY_COLD_MIN (64u << 10)

/* Ranges that do not overlap. Any alignment. */
void copy_cold(void *to, const void *from, size_t bytes);

/* What it is made of here: "avx512", "avx2" or "memcpy". */
const char *copy_cold_kind(void);

#endif
