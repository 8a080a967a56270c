/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack that is taken whole and turned round: since nothing is ever popped
 * singly, a node that comes back between a producer's load and its exchange
 * does no harm (no ABA).
 */
#include "base/ring.h"

#include <assert.h>

/* In place of the newest node: there is none, and the consumer rests. */
static struct ring_node resting;

bool ring_push(struct ring *ring, struct ring_node *node)
{
	/* Relaxed: only compared with, and stored as a pointer, never followed here. */
	struct ring_node *newest = __atomic_load_n(&ring->newest, __ATOMIC_RELAXED);

	assert(node && node != &resting);
	/*
	 * Release: pairs with the acquire of ring_take(). A push on top of this one
	 * keeps the pair, as its exchange goes on with the release sequence.
	 */
	do {
		node->next = newest == &resting ? NULL : newest;
	} while (!__atomic_compare_exchange_n(&ring->newest, &newest, node, true, __ATOMIC_RELEASE,
					      __ATOMIC_RELAXED));
	return newest == &resting;
}

bool ring_rest(struct ring *ring)
{
	struct ring_node *none = NULL;

	/*
	 * Relaxed: nothing is handed over. That either the push finds it or it finds the
	 * push is the order of one variable.
	 */
	return __atomic_compare_exchange_n(&ring->newest, &none, &resting, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED) ||
	       none == &resting;
}

struct ring_node *ring_take(struct ring *ring)
{
	/* Acquire: pairs with the release of each ring_push() whose node is taken. */
	struct ring_node *node = __atomic_exchange_n(&ring->newest, NULL, __ATOMIC_ACQUIRE);
	struct ring_node *oldest = NULL;

	while (node && node != &resting) {
		struct ring_node *before = node->next;

		node->next = oldest;
		oldest = node;
		node = before;
	}
	return oldest;
}

bool ring_empty(const struct ring *ring)
{
	/* Relaxed: an answer about now; what was pushed is read only after ring_take(). */
	const struct ring_node *newest = __atomic_load_n(&ring->newest, __ATOMIC_RELAXED);

	return newest == NULL || newest == &resting;
}
