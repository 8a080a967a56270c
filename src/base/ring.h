/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An inbox: many threads push, one takes all. Intrusive, unbounded, no locks,
 * no allocation. Zeroed memory is an empty one.
 *
 * A consumer that is going to sleep says so first: the push that finds it
 * resting tells, and whoever made that push wakes it. Every other push is covered
 * by that wake, or by the look that a consumer takes before it rests.
 *
 * What a thread wrote before it pushed a node is seen by the consumer after it
 * took the node.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

/* Embedded in what is pushed; in one ring at a time. */
struct ring_node {
	struct ring_node *next;
};

struct ring {
	struct ring_node *newest; /* atomic; each points to the one pushed before it */
} __attribute__((aligned(64)));	  /* pushes do not slow what stands beside it */

/* Any thread. True: the consumer rests; wake it. @node is the consumer's from here on. */
bool ring_push(struct ring *ring, struct ring_node *node);

/* The consumer's thread, before it sleeps. False: there is something to take; it stays awake. */
bool ring_rest(struct ring *ring);

/*
 * The consumer's thread, which is awake again. All nodes, linked by next in the order of
 * their pushes, or NULL.
 */
struct ring_node *ring_take(struct ring *ring);

/* Any thread. Of the consumer: false means that ring_take() returns something. */
bool ring_empty(const struct ring *ring);

/* The struct that embeds @node. */
#define ring_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
