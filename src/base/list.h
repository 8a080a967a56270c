/* SPDX-License-Identifier: Apache-2.0 */
/* An intrusive, circular, doubly linked list. Pure; the owner serialises. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}

static inline void list_append(struct list *list, struct list *node)
{
	node->prev = list->prev;
	node->next = list;
	list->prev->next = node;
	list->prev = node;
}

static inline void list_prepend(struct list *list, struct list *node)
{
	list_append(list->next, node);
}

/* The node may be removed again: it is left empty. */
static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* The first node, taken out, or NULL. */
static inline struct list *list_take(struct list *list)
{
	struct list *node = list->next;

	if (node == list)
		return NULL;
	list_remove(node);
	return node;
}

#endif
