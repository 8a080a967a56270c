/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A namespace's description and its canonical encoding, which is its identity:
 * docs/format.md. Pure.
 */
#ifndef BASE_NSDESC_H
#define BASE_NSDESC_H

#include <stdbool.h>

#include <cairn/store.h>

#define NSDESC_DOMAIN  "cairn ns 1" /* with its final zero byte */
#define NSDESC_MAX     (sizeof(NSDESC_DOMAIN) + 7 * (8 + CAIRN_NAME_MAX) + 4 * 4 + 8)
#define NSDESC_WHY_MAX 200

/* True, or false with a line in @why that names the field. */
bool nsdesc_check(const struct cairn_namespace_desc *desc, char why[NSDESC_WHY_MAX]);

/* Encodes what nsdesc_check() passed; returns the length. */
size_t nsdesc_encode(const struct cairn_namespace_desc *desc, uint8_t buffer[NSDESC_MAX]);

/*
 * Decodes @length bytes at @encoded, hostile ones too. Texts go to @texts, which
 * has NSDESC_MAX bytes, and @ret_desc points into it. 0 or -EBADMSG.
 */
int nsdesc_decode(const void *encoded, size_t length, char *texts,
		  struct cairn_namespace_desc *ret_desc);

#endif
