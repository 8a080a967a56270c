/* SPDX-License-Identifier: Apache-2.0 */
#include "base/copy.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define LINE  64u
#define AHEAD 512u /* bytes fetched before they are copied */

__attribute__((target("avx512f"))) static inline void line_512(uint8_t *to, const uint8_t *from)
{
	_mm_prefetch((const char *)from + AHEAD, _MM_HINT_T0);
	_mm512_stream_si512((__m512i *)(void *)to, _mm512_loadu_si512(from));
}

/* @to is aligned to a line. */
__attribute__((target("avx512f"))) static void copy_512(uint8_t *to, const uint8_t *from,
							size_t bytes)
{
	for (; bytes >= LINE; bytes -= LINE, to += LINE, from += LINE)
		line_512(to, from);
	_mm_sfence();
	memcpy(to, from, bytes);
}

__attribute__((target("avx2"))) static inline void line_256(uint8_t *to, const uint8_t *from)
{
	__m256i a = _mm256_loadu_si256((const __m256i *)(const void *)from);
	__m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(from + LINE / 2));

	_mm_prefetch((const char *)from + AHEAD, _MM_HINT_T0);
	_mm256_stream_si256((__m256i *)(void *)to, a);
	_mm256_stream_si256((__m256i *)(void *)(to + LINE / 2), b);
}

__attribute__((target("avx2"))) static void copy_256(uint8_t *to, const uint8_t *from, size_t bytes)
{
	for (; bytes >= LINE; bytes -= LINE, to += LINE, from += LINE)
		line_256(to, from);
	_mm_sfence();
	memcpy(to, from, bytes);
}

static void copy_lines(uint8_t *to, const uint8_t *from, size_t bytes)
{
	if (__builtin_cpu_supports("avx512f"))
		copy_512(to, from, bytes);
	else if (__builtin_cpu_supports("avx2"))
		copy_256(to, from, bytes);
	else
		memcpy(to, from, bytes);
}

const char *copy_cold_kind(void)
{
	return __builtin_cpu_supports("avx512f") ? "avx512"
	       : __builtin_cpu_supports("avx2")	 ? "avx2"
						 : "memcpy";
}

void copy_cold(void *to, const void *from, size_t bytes)
{
	size_t head = (LINE - (uintptr_t)to % LINE) % LINE;

	if (bytes < COPY_COLD_MIN) {
		memcpy(to, from, bytes);
		return;
	}
	memcpy(to, from, head);
	copy_lines((uint8_t *)to + head, (const uint8_t *)from + head, bytes - head);
}

#else

const char *copy_cold_kind(void)
{
	return "memcpy";
}

void copy_cold(void *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
}

#endif
