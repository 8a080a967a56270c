/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces made up from a seed: the same seed gives the same trace on every
 * machine (integers only, own random numbers).
 *
 *	chat	a few shared system prompts, conversations that grow turn by turn
 *	rag	one system prompt, then documents drawn by Zipf's law, then a question
 *	agent	long tool descriptions, then many quick steps on a growing context;
 *		some tasks branch, some start over from a summary
 *
 * Sessions arrive as a Poisson process whose rate swings; the turns of a
 * session are as far apart as answering and thinking take.
 */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include <stddef.h>
#include <stdint.h>

#include "trace.h"

#define GENERATE_KINDS "chat|rag|agent"
enum generate_kind {
	GENERATE_CHAT = 0,
	GENERATE_RAG = 1,
	GENERATE_AGENT = 2,
};

/* Appends @count requests as one more source, in the order of their arrival. */
void generate_trace(struct trace *trace, enum generate_kind kind, uint64_t seed, size_t count);

#endif
