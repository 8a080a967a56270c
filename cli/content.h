/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle: a block's content is a function of its key, so any wrong byte is
 * seen at once, also one that belongs to another block, shard or offset.
 *
 * Word i of a shard (little endian) is w ^ (w >> 29), w = seed + i * 2^64/phi,
 * with the seed mixed from both halves of the key and the shard's number.
 * Bytes past the last whole word are the head of the next word.
 */
#ifndef CLI_CONTENT_H
#define CLI_CONTENT_H

#include <stdint.h>

#include <cairn/store.h>

/* Fills @bytes at @buffer (8-aligned) with the shard's content from its start. */
void content_fill(const struct cairn_key *key, uint32_t shard, void *buffer, uint64_t bytes);

/*
 * Compares all of @bytes at @buffer (8-aligned) with the content. Returns how
 * many bytes are wrong; *ret_first (may be NULL): the offset of the first one.
 */
uint64_t content_verify(const struct cairn_key *key, uint32_t shard, const void *buffer,
			uint64_t bytes, uint64_t *ret_first);

/* "0123..cdef", 32 hex digits; returns @buffer. */
#define CONTENT_KEY_TEXT (2 * CAIRN_KEY_BYTES + 1)
const char *content_key_format(const struct cairn_key *key, char buffer[CONTENT_KEY_TEXT]);

/* The reverse; 0 or -EINVAL: not 32 hex digits. */
int content_key_parse(const char *text, struct cairn_key *ret_key);

#endif
