/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants, all under the mutex:
 *  1. Every chain that was pushed is in `todo`, on a worker, with whoever the
 *     worker's function gave it to, or in its client's `ended`.
 *  2. While `todo` is longer than the number of idle threads, `thread_count` is
 *     `thread_max`, or the last start of a thread failed.
 */
#include "sys/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "sys/thread.h"

#define WORKERS_MAGIC 0x776f726bu /* "work" */

struct workers {
	uint32_t magic;
	const struct sys *sys;
	pthread_mutex_t mutex;
	pthread_cond_t work; /* todo is not empty, or stop */
	struct chain_queue todo;
	bool stop;
	uint32_t idle_count, thread_count, thread_max;
	pthread_t threads[];
};

static struct workers_client *client_of(const struct engine_chain *chain)
{
	return (struct workers_client *)(uintptr_t)chain->engine_private[1];
}

int workers_open(const struct sys *sys, uint32_t max, struct workers **ret_workers)
{
	struct workers *workers;

	assert(max > 0);
	workers = sys_zalloc(sys, 0, sizeof(*workers) + max * sizeof(workers->threads[0]));
	if (workers == NULL)
		return -ENOMEM;
	workers->magic = WORKERS_MAGIC;
	workers->sys = sys;
	workers->thread_max = max;
	pthread_mutex_init(&workers->mutex, NULL);
	pthread_cond_init(&workers->work, NULL);
	*ret_workers = workers;
	return 0;
}

void workers_close(struct workers *workers)
{
	if (workers == NULL)
		return;
	assert(workers->magic == WORKERS_MAGIC);
	pthread_mutex_lock(&workers->mutex);
	assert(workers->todo.count == 0);
	workers->stop = true;
	pthread_cond_broadcast(&workers->work);
	pthread_mutex_unlock(&workers->mutex);
	for (uint32_t i = 0; i < workers->thread_count; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->work);
	pthread_mutex_destroy(&workers->mutex);
	workers->magic = 0;
	workers->sys->free(workers);
}

/* The next chain to run, or NULL at the end. Called and left with the mutex held. */
static struct engine_chain *next_chain(struct workers *workers)
{
	while (workers->todo.count == 0 && !workers->stop) {
		workers->idle_count++;
		pthread_cond_wait(&workers->work, &workers->mutex);
		workers->idle_count--;
	}
	return chain_queue_pop(&workers->todo);
}

static void *worker_main(void *context)
{
	struct workers *workers = context;
	struct engine_chain *chain;

	pthread_setname_np(pthread_self(), "cairn-worker");
	pthread_mutex_lock(&workers->mutex);
	while ((chain = next_chain(workers)) != NULL) {
		struct workers_client *client = client_of(chain);
		bool ended, ring;

		pthread_mutex_unlock(&workers->mutex);
		ended = client->fn(client->context, chain);
		pthread_mutex_lock(&workers->mutex);
		/* Who has the chain now may have ended it, and closed the engine. */
		if (!ended)
			continue;
		ring = client->ended.count == 0;
		chain_queue_push(&client->ended, chain);
		/* Under the mutex: once the chain is taken, the bell may go away. */
		if (ring)
			bell_ring(client->bell);
	}
	pthread_mutex_unlock(&workers->mutex);
	return NULL;
}

static bool start_thread(struct workers *workers)
{
	pthread_t *thread = &workers->threads[workers->thread_count];

	if (thread_start(thread, worker_main, workers) < 0)
		return false;
	workers->thread_count++;
	return true;
}

bool workers_push(struct workers_client *client, struct engine_chain *chain)
{
	struct workers *workers = client->workers;
	bool taken = true;

	assert(workers->magic == WORKERS_MAGIC);
	chain->engine_private[1] = (uint64_t)(uintptr_t)client;
	pthread_mutex_lock(&workers->mutex);
	if (workers->todo.count >= workers->idle_count &&
	    workers->thread_count < workers->thread_max && !start_thread(workers))
		taken = workers->thread_count > 0;
	if (taken) {
		chain_queue_push(&workers->todo, chain);
		pthread_cond_signal(&workers->work);
	}
	pthread_mutex_unlock(&workers->mutex);
	return taken;
}

struct chain_queue workers_take(struct workers_client *client)
{
	struct workers *workers = client->workers;
	struct chain_queue ended;

	assert(workers->magic == WORKERS_MAGIC);
	pthread_mutex_lock(&workers->mutex);
	ended = chain_queue_take(&client->ended);
	pthread_mutex_unlock(&workers->mutex);
	return ended;
}
