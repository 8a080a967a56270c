/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian numbers in bytes, at any alignment: everything on disk and in
 * encodings that are hashed. Compilers make one instruction of each. Pure.
 * @at: as many bytes as the number has.
 */
#ifndef BASE_ENCODE_H
#define BASE_ENCODE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void put_u16(void *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

static inline void put_u32(void *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static inline void put_u64(void *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static inline uint16_t get_u16(const void *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static inline uint32_t get_u32(const void *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static inline uint64_t get_u64(const void *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

#endif
