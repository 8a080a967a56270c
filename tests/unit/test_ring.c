/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/ring.h"

static void order(void **state)
{
	struct ring ring = {0};
	struct ring_node nodes[3], *taken;

	(void)state;
	assert_true(ring_empty(&ring));
	assert_null(ring_take(&ring));
	assert_false(ring_push(&ring, &nodes[0])); /* awake: it looks before it rests */
	assert_false(ring_empty(&ring));
	assert_false(ring_rest(&ring));
	assert_false(ring_push(&ring, &nodes[1]));
	assert_false(ring_push(&ring, &nodes[2]));
	taken = ring_take(&ring);
	for (int i = 0; i < 3; i++, taken = taken->next)
		assert_ptr_equal(taken, &nodes[i]);
	assert_null(taken);
	assert_true(ring_empty(&ring));
	assert_true(ring_rest(&ring));
	assert_true(ring_rest(&ring));
	assert_true(ring_empty(&ring));
	assert_true(ring_push(&ring, &nodes[1]));
	assert_false(ring_push(&ring, &nodes[2])); /* the first one's wake is under way */
	assert_ptr_equal(ring_take(&ring), &nodes[1]);
	assert_ptr_equal(nodes[1].next, &nodes[2]);
	assert_null(nodes[2].next);
	assert_true(ring_rest(&ring));
	assert_null(ring_take(&ring)); /* awake again */
	assert_false(ring_push(&ring, &nodes[0]));
	assert_ptr_equal(ring_take(&ring), &nodes[0]);
	assert_null(nodes[0].next);
}

#define PRODUCERS 4
#define ITEMS	  20000

struct item {
	uint32_t number; /* before node: the offset of ring_entry() counts */
	uint32_t payload;
	struct ring_node node;
};

struct producer {
	pthread_t thread;
	struct inbox *inbox;
	struct item *items;
};

struct inbox {
	struct ring ring;
	sem_t wake;
};

static void *produce(void *argument)
{
	struct producer *producer = argument;

	for (uint32_t i = 0; i < ITEMS; i++) {
		producer->items[i].number = i;
		producer->items[i].payload = i * 7 + 1;
		if (ring_push(&producer->inbox->ring, &producer->items[i].node))
			sem_post(&producer->inbox->wake);
	}
	return NULL;
}

/*
 * The consumer sleeps until it is woken, and is woken only by pushes that found
 * it resting: one wake too few hangs here, one too many is a sleep that ends
 * early, and the order or a payload that is not there yet shows.
 */
static void threads(void **state)
{
	struct inbox inbox = {0};
	struct producer producers[PRODUCERS];
	uint32_t next[PRODUCERS] = {0}, got = 0;

	(void)state;
	assert_int_equal(sem_init(&inbox.wake, 0, 0), 0);
	for (int i = 0; i < PRODUCERS; i++) {
		producers[i].inbox = &inbox;
		producers[i].items = calloc(ITEMS, sizeof(struct item));
		assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
				 0);
	}
	while (got < PRODUCERS * ITEMS) {
		struct ring_node *node, *after;

		if (ring_rest(&inbox.ring)) {
			while (sem_wait(&inbox.wake))
				;
			assert_false(ring_empty(&inbox.ring));
		}
		for (node = ring_take(&inbox.ring); node; node = after) {
			struct item *item = ring_entry(node, struct item, node);
			int p = 0;

			after = node->next;
			while (item < producers[p].items || item >= producers[p].items + ITEMS)
				p++;
			assert_int_equal(item->number, next[p]++);
			assert_int_equal(item->payload, item->number * 7 + 1);
			got++;
		}
	}
	for (int i = 0; i < PRODUCERS; i++) {
		pthread_join(producers[i].thread, NULL);
		free(producers[i].items);
	}
	assert_true(ring_empty(&inbox.ring));
	sem_destroy(&inbox.wake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(order), cmocka_unit_test(threads)};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
