/* SPDX-License-Identifier: Apache-2.0 */
/* What counts as an attribute told of a block. */
#ifndef BASE_ATTR_H
#define BASE_ATTR_H

#include <stdbool.h>
#include <string.h>

#include <cairn/task.h>

/* All zero is nothing told: `size` is set by whoever copies an attribute, told or not. */
static inline bool attr_told(const struct cairn_block_attr *attr)
{
	static const struct cairn_key none;

	return attr->depth || attr->priority || attr->ttl_ns || attr->cost_ns ||
	       memcmp(&attr->parent, &none, sizeof(none)) != 0;
}

#endif
