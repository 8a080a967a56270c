/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys as text in names of files: base 32 with the digits 0-9 and a-v, no padding
 * ("extended hex" of RFC 4648, section 7, in lower case). It keeps the order of
 * keys, and does not tell names apart by case. Pure.
 */
#ifndef BASE_BASE32_H
#define BASE_BASE32_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BASE32_KEY_BYTES  16
#define BASE32_KEY_LENGTH 26 /* the last digit has 3 bits of the key, and 2 that are zero */

/* Writes BASE32_KEY_LENGTH digits, and no NUL. */
static inline void base32_put_key(const uint8_t bytes[BASE32_KEY_BYTES], char *at)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
	uint64_t high, low;

	memcpy(&high, bytes, sizeof(high));
	memcpy(&low, bytes + sizeof(high), sizeof(low));
	high = be64toh(high);
	low = be64toh(low);
	for (int i = 0; i < 12; i++) {
		at[i] = digits[high >> (59 - 5 * i) & 31];
		at[13 + i] = digits[low >> (58 - 5 * i) & 31];
	}
	at[12] = digits[(high & 15) << 1 | low >> 63];
	at[25] = digits[(low & 7) << 2];
}

/* False: not what base32_put_key() writes. Reads no further than the first wrong digit. */
static inline bool base32_get_key(const char *at, uint8_t ret_bytes[BASE32_KEY_BYTES])
{
	uint32_t bits = 0, count = 0;

	for (int i = 0; i < BASE32_KEY_LENGTH; i++) {
		char c = at[i];

		if (c >= '0' && c <= '9')
			bits = bits << 5 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'v')
			bits = bits << 5 | ((uint32_t)(c - 'a') + 10);
		else
			return false;
		count += 5;
		if (count < 8)
			continue;
		count -= 8;
		*ret_bytes++ = (uint8_t)(bits >> count);
		bits &= (1u << count) - 1;
	}
	return bits == 0;
}

#endif
