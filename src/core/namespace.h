/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces of an open store, and the keys that are derived from them. */
#ifndef CORE_NAMESPACE_H
#define CORE_NAMESPACE_H

#include "core/store.h"

#define NAMESPACE_KEY_DOMAIN "cairn key 1" /* with its final zero byte */

/* Frees what the handles named; no task is left. */
void namespaces_fini(struct cairn_store *store);

#endif
