/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel,
 * 2009), in its bit-reflected form.
 *
 * What has been taken in is kept as four remainders of 128 bits, not yet modulo P, of every fourth
 * 16 bytes. Each step moves one on by 64 bytes: its two halves, times x to what they are moved by,
 * modulo P, and the next bytes. A product of reflected numbers comes out times x, so the factors
 * below are for one bit less. They are x^n modulo P, bit 63 the coefficient of x^0; test_crc32c
 * would find any other.
 */
#include "base/crc32c_fold.h"

#include <assert.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES (CRC32C_FOLD_STEP / 16)

#define X_575 0x1c19243b00000000ll /* the first half by 512 bits, which is 64 further on */
#define X_511 0x75bba45b00000000ll /* the second */
#define X_191 0x3743f7bd00000000ll /* likewise by 128 bits */
#define X_127 0x3171d43000000000ll

bool crc32c_fold_can(void)
{
	return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.2");
}

bool crc32c_fold_faster(void)
{
	return crc32c_fold_can() && __builtin_cpu_is("amd") && __builtin_cpu_supports("avx2") &&
	       !__builtin_cpu_supports("avx512f"); /* Zen, to the third */
}

__attribute__((target("pclmul,sse4.2"))) static inline __m128i moved(__m128i lane, __m128i factors,
								     __m128i next)
{
	__m128i first = _mm_clmulepi64_si128(lane, factors, 0x00);
	__m128i second = _mm_clmulepi64_si128(lane, factors, 0x11);

	return _mm_xor_si128(_mm_xor_si128(first, second), next);
}

__attribute__((target("pclmul,sse4.2"))) uint32_t crc32c_fold(uint32_t crc, const void *data,
							      size_t bytes)
{
	const __m128i by_step = _mm_set_epi64x(X_511, X_575);
	const __m128i by_lane = _mm_set_epi64x(X_127, X_191);
	const __m128i *at = data;
	__m128i lanes[LANES];
	uint64_t rest;

	assert(bytes > 0 && bytes % CRC32C_FOLD_STEP == 0);
	for (unsigned i = 0; i < LANES; i++)
		lanes[i] = _mm_loadu_si128(at++);
	lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128((int)crc));
	while (bytes -= CRC32C_FOLD_STEP)
		for (unsigned i = 0; i < LANES; i++)
			lanes[i] = moved(lanes[i], by_step, _mm_loadu_si128(at++));
	for (unsigned i = 1; i < LANES; i++)
		lanes[i] = moved(lanes[i - 1], by_lane, lanes[i]);
	rest = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lanes[LANES - 1]));
	return (uint32_t)_mm_crc32_u64(rest, (uint64_t)_mm_extract_epi64(lanes[LANES - 1], 1));
}

#else

bool crc32c_fold_can(void)
{
	return false;
}

bool crc32c_fold_faster(void)
{
	return false;
}

uint32_t crc32c_fold(uint32_t crc, const void *data, size_t bytes)
{
	(void)data, (void)bytes;
	assert(false);
	return crc;
}

#endif
