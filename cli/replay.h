/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main job: each request of a trace looks its prefix up, loads what is
 * there, makes the rest from its keys ("prefill") and dumps it. replay.c reads
 * the command line and reports; replay_client.c runs the requests.
 */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <cairn/task.h>

#include "trace.h"

struct replay_totals {
	uint64_t requests, prompt_tokens, tokens_saved;
	uint64_t blocks, blocks_hit; /* references, and leading ones that were served */
	uint64_t bytes_dumped, bytes_loaded;
	uint64_t wrong_bytes;
	uint64_t damaged;      /* blocks that did not check: served as misses */
	uint64_t vanished;     /* blocks that a lookup promised and a load did not find */
	uint64_t failed_xfers; /* failed calls too */
	uint64_t refused;      /* blocks a tier did not take: ... */
	uint64_t too_large;    /* ... for there never is room for one */
};

/* Shared by the clients. @lock guards what is below it. */
struct replay_run {
	const struct trace *trace;
	struct cairn_store *store;
	struct cairn_namespace *ns;
	uint32_t shard_count;
	uint64_t shard_bytes;
	uint32_t durability;
	bool verify;
	double speed; /* 0: as fast as it goes */
	uint64_t start_ns;

	pthread_mutex_t lock;
	pthread_cond_t ended; /* a client has */
	uint32_t clients_left;
	size_t next; /* the request that is taken next */
	struct replay_totals totals;
	uint64_t *load_ns; /* a latency a request that loaded; room for all */
	size_t load_count;
	uint32_t complaints; /* lines about failures that were printed */
};

/* Runs requests until none is left; a thread's body. @context is a struct replay_run. */
void *replay_client(void *context);

#endif
