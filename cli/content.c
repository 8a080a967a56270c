/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "content.h"

#define STEP	    0x9e3779b97f4a7c15u /* 2^64 / phi: no two positions of a shard are alike */
#define PIECE_BYTES 4096u		/* verified at once; a difference is looked for in it */
#define WORD	    sizeof(uint64_t)

/* The finalizer of splitmix64: each bit of @x reaches each bit of the result. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t shard_seed(const struct cairn_key *key, uint32_t shard)
{
	uint64_t halves[2];

	memcpy(halves, key->bytes, sizeof(halves));
	return mix(mix(mix(le64toh(halves[0]) + STEP) ^ le64toh(halves[1])) + shard + 1);
}

static inline uint64_t word_of(uint64_t w)
{
	return htole64(w ^ (w >> 29));
}

void content_fill(const struct cairn_key *key, uint32_t shard, void *buffer, uint64_t bytes)
{
	uint64_t w = shard_seed(key, shard), count = bytes / WORD, *words = buffer, last;

	assert((uintptr_t)buffer % WORD == 0);
	for (uint64_t i = 0; i < count; i++, w += STEP)
		words[i] = word_of(w);
	last = word_of(w);
	memcpy(words + count, &last, bytes % WORD);
}

/* Wrong bytes in one short stretch, one by one. */
static uint64_t count_wrong(const uint8_t *have, uint64_t w, uint64_t bytes, uint64_t offset,
			    uint64_t *first)
{
	uint64_t wrong = 0, word = 0;

	for (uint64_t i = 0; i < bytes; i++) {
		if (i % WORD == 0) {
			word = word_of(w);
			w += STEP;
		}
		if (have[i] == ((const uint8_t *)&word)[i % WORD])
			continue;
		if (!wrong++ && *first == UINT64_MAX)
			*first = offset + i;
	}
	return wrong;
}

uint64_t content_verify(const struct cairn_key *key, uint32_t shard, const void *buffer,
			uint64_t bytes, uint64_t *ret_first)
{
	uint64_t seed = shard_seed(key, shard), wrong = 0, first = UINT64_MAX;

	assert((uintptr_t)buffer % WORD == 0);
	for (uint64_t offset = 0; offset < bytes; offset += PIECE_BYTES) {
		uint64_t length = bytes - offset < PIECE_BYTES ? bytes - offset : PIECE_BYTES;
		const uint64_t *words = (const uint64_t *)buffer + offset / WORD;
		uint64_t start = seed + offset / WORD * STEP, w = start, differs = length % WORD;

		for (uint64_t i = 0; i < length / WORD; i++, w += STEP)
			differs |= words[i] ^ word_of(w);
		if (differs)
			wrong += count_wrong((const uint8_t *)words, start, length, offset, &first);
	}
	if (ret_first)
		*ret_first = first;
	return wrong;
}

const char *content_key_format(const struct cairn_key *key, char buffer[CONTENT_KEY_TEXT])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < CAIRN_KEY_BYTES; i++) {
		buffer[2 * i] = digits[key->bytes[i] >> 4];
		buffer[2 * i + 1] = digits[key->bytes[i] & 15];
	}
	buffer[CONTENT_KEY_TEXT - 1] = '\0';
	return buffer;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int content_key_parse(const char *text, struct cairn_key *ret_key)
{
	if (strlen(text) != CONTENT_KEY_TEXT - 1)
		return -EINVAL;
	for (size_t i = 0; i < CAIRN_KEY_BYTES; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		ret_key->bytes[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}
