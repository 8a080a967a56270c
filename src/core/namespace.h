/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical encoding of a description, and what is derived from it. docs/format.md. */
#ifndef CORE_NAMESPACE_H
#define CORE_NAMESPACE_H

#include "core/store.h"

#define NAMESPACE_DOMAIN     "cairn ns 1" /* with its final zero byte */
#define NAMESPACE_DESC_MAX   (sizeof(NAMESPACE_DOMAIN) + 7 * (8 + CAIRN_NAME_MAX) + 4 * 4 + 8)
#define NAMESPACE_KEY_DOMAIN "cairn key 1" /* likewise */

/* Checks @desc; 0 or -EINVAL with the field's name. */
int namespace_check(const struct cairn_namespace_desc *desc, struct cairn_error *reterr);

/* Encodes what namespace_check() passed; returns the length. */
size_t namespace_encode(const struct cairn_namespace_desc *desc,
			uint8_t buffer[NAMESPACE_DESC_MAX]);

/*
 * Decodes @length bytes at @encoded, hostile ones too. Texts go to @texts, which
 * has NAMESPACE_DESC_MAX + 8 bytes, and @ret_desc points into it. 0 or -EBADMSG.
 */
int namespace_decode(const void *encoded, size_t length, char *texts,
		     struct cairn_namespace_desc *ret_desc);

void namespaces_fini(struct cairn_store *store);

#endif
