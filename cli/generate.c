/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt is a list of segments (a text's number, a length in tokens), cut
 * into blocks. A block's id is a hash of the id before it and of the pieces of
 * segments it covers, so equal ids mean equal prefixes, as in a real trace.
 *
 * Distributions are given by their quantiles at equal steps of probability,
 * and drawn by linear interpolation between them: no floating point, whose
 * last bit differs between machines.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "out.h"

#define LIVE_MAX     1024u   /* sessions at once; beyond it, no new one arrives */
#define SEGMENTS_MAX 192u    /* of one prompt: a session ends before */
#define CONTEXT_MAX  120000u /* tokens: what a model takes; a session ends before */
#define SYSTEM_COUNT 12u     /* shared system prompts */
#define DOCUMENTS    4096u
#define QUANTILES    9u		       /* at 0, 1/8 ... 1 */
#define SWING_US     (900u * 1000000u) /* the arrival rate's period */

struct random {
	uint64_t state;
};

struct segment {
	uint64_t text; /* two segments with one number are the same tokens */
	uint64_t tokens;
};

struct session {
	uint64_t next_us;
	uint64_t number;
	uint32_t turns_left, turn;
	uint32_t segment_count;
	struct segment segments[SEGMENTS_MAX];
	uint64_t tokens;
};

struct profile {
	uint64_t arrival_us; /* mean time between sessions */
	uint32_t turns[QUANTILES];
	uint32_t system_tokens[QUANTILES]; /* by the system prompt's number */
	uint32_t input_tokens[QUANTILES];  /* of a turn */
	uint32_t output_tokens[QUANTILES];
	uint32_t think_ms[QUANTILES]; /* between an answer and the next turn */
	uint32_t token_us;	      /* to generate one */
};

static const struct profile profiles[] = {
	[GENERATE_CHAT] = {.arrival_us = 700000,
			   .turns = {1, 1, 2, 2, 3, 4, 6, 10, 30},
			   .system_tokens = {200, 400, 700, 1100, 1600, 2200, 3000, 4500, 8000},
			   .input_tokens = {5, 20, 40, 80, 150, 300, 700, 2500, 30000},
			   .output_tokens = {5, 40, 120, 220, 320, 430, 560, 800, 2000},
			   .think_ms = {2000, 6000, 12000, 20000, 30000, 50000, 90000, 180000,
					900000},
			   .token_us = 20000},
	[GENERATE_RAG] = {.arrival_us = 300000,
			  .turns = {1, 1, 1, 1, 1, 1, 2, 2, 4},
			  .system_tokens = {600, 600, 800, 800, 900, 900, 1000, 1200, 1500},
			  .input_tokens = {8, 15, 20, 30, 40, 60, 90, 150, 600},
			  .output_tokens = {10, 40, 80, 120, 180, 240, 320, 450, 900},
			  .think_ms = {4000, 9000, 15000, 25000, 40000, 60000, 90000, 150000,
				       600000},
			  .token_us = 20000},
	[GENERATE_AGENT] = {.arrival_us = 6000000,
			    .turns = {2, 5, 8, 12, 16, 22, 30, 45, 80},
			    .system_tokens = {4000, 5000, 6000, 7000, 8000, 9500, 11000, 14000,
					      20000},
			    .input_tokens = {30, 90, 180, 320, 600, 1100, 2200, 5000, 25000},
			    .output_tokens = {10, 40, 70, 100, 140, 200, 300, 500, 1500},
			    .think_ms = {100, 300, 500, 900, 1500, 2500, 5000, 12000, 60000},
			    .token_us = 12000},
};

/* -ln(1 - p) at p = 0, 1/16 ... 15/16, in thousandths; the last one ends the tail. */
static const uint32_t exponential[] = {0,   65,	 134,  208,  288,  375,	 470,  575, 693,
				       827, 981, 1163, 1386, 1674, 2079, 2773, 5000};

/* splitmix64, by Sebastiano Vigna, public domain: https://prng.di.unimi.it/splitmix64.c */
static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t draw(struct random *random)
{
	random->state += 0x9e3779b97f4a7c15u;
	return mix(random->state);
}

/* 0 to @n - 1; the bias for small n is below 2^-32. */
static uint64_t draw_below(struct random *random, uint64_t n)
{
	assert(n > 0 && n <= UINT32_MAX);
	return (draw(random) >> 32) * n >> 32;
}

static uint64_t draw_quantile(struct random *random, const uint32_t *table, uint32_t points)
{
	uint64_t at = (draw(random) >> 32) * (points - 1); /* 32.32 */
	uint64_t i = at >> 32, part = at & UINT32_MAX;

	assert(table[i + 1] >= table[i]);
	return table[i] + ((table[i + 1] - table[i]) * part >> 32);
}

/* 0 to @n - 1, number i with probability ~ 1 / (i + 1). */
static uint64_t draw_zipf(struct random *random, uint64_t n)
{
	uint64_t total = 0, at;

	for (uint64_t i = 0; i < n; i++)
		total += (1u << 20) / (i + 1);
	at = draw_below(random, total);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t weight = (1u << 20) / (i + 1);

		if (at < weight)
			return i;
		at -= weight;
	}
	return n - 1;
}

/* A text's number from a kind and a number of its own; texts never meet by chance. */
static uint64_t text_of(uint64_t kind, uint64_t number)
{
	return mix(mix(kind + 1) ^ number);
}

static void add_segment(struct session *session, uint64_t text, uint64_t tokens)
{
	assert(session->segment_count < SEGMENTS_MAX);
	session->segments[session->segment_count++] = (struct segment){text, tokens};
	session->tokens += tokens;
}

/* Cuts the session's prompt into blocks; @ids has room for all of them. */
static uint32_t cut_blocks(const struct session *session, uint64_t *ids)
{
	uint64_t id = 0, hash = 0, room = TRACE_BLOCK_TOKENS;
	uint32_t count = 0;

	for (uint32_t i = 0; i < session->segment_count; i++) {
		const struct segment *segment = &session->segments[i];

		for (uint64_t at = 0, n; at < segment->tokens; at += n) {
			n = segment->tokens - at < room ? segment->tokens - at : room;
			hash = mix(hash ^ mix(segment->text + at) ^ n << 40);
			room -= n;
			if (room)
				continue;
			ids[count++] = id = mix(id ^ hash) >> 1; /* fits JSON's integers */
			room = TRACE_BLOCK_TOKENS;
			hash = 0;
		}
	}
	if (room < TRACE_BLOCK_TOKENS)
		ids[count++] = mix(id ^ hash) >> 1;
	return count;
}

static void add_documents(struct random *random, struct session *session)
{
	uint64_t count = 2 + draw_below(random, 5);

	for (uint64_t i = 0; i < count; i++) {
		uint64_t document = draw_zipf(random, DOCUMENTS);

		add_segment(session, text_of(2, document), 300 + mix(document) % 2700);
	}
}

static void start_session(struct random *random, enum generate_kind kind, uint64_t number,
			  uint64_t now_us, struct session *session)
{
	const struct profile *profile = &profiles[kind];
	uint64_t system = draw_zipf(random, SYSTEM_COUNT);
	struct random fixed = {text_of(10 + kind, system)};

	memset(session, 0, sizeof(*session));
	session->next_us = now_us;
	session->number = number;
	session->turns_left = (uint32_t)draw_quantile(random, profile->turns, QUANTILES);
	add_segment(session, text_of(1 + 4 * (uint64_t)kind, system),
		    draw_quantile(&fixed, profile->system_tokens, QUANTILES));
	if (kind == GENERATE_RAG)
		add_documents(random, session);
}

/* An agent's context that grew too long: what follows goes on from a summary. */
static void summarize(struct session *session)
{
	session->segment_count = 1;
	session->tokens = session->segments[0].tokens;
	add_segment(session, text_of(5, session->number << 16 | session->turn), 1500);
}

/* The turn's own tokens join the prompt; false: the session is over. */
static bool ask(struct random *random, enum generate_kind kind, struct session *session)
{
	uint64_t tokens = draw_quantile(random, profiles[kind].input_tokens, QUANTILES) + 1;

	if (kind == GENERATE_AGENT && session->tokens + tokens > CONTEXT_MAX / 2)
		summarize(session);
	if (session->segment_count + 2 > SEGMENTS_MAX || session->tokens + tokens > CONTEXT_MAX)
		return false;
	add_segment(session, text_of(6, session->number << 16 | session->turn), tokens);
	return true;
}

/* What was generated becomes part of the next prompt; false: that was the last turn. */
static bool answer(struct random *random, enum generate_kind kind, struct session *session,
		   uint64_t output)
{
	const struct profile *profile = &profiles[kind];

	add_segment(session, text_of(7, session->number << 16 | session->turn), output);
	session->next_us += output * profile->token_us +
			    draw_quantile(random, profile->think_ms, QUANTILES) * 1000;
	session->turn++;
	return --session->turns_left > 0;
}

static uint64_t next_arrival(struct random *random, enum generate_kind kind, uint64_t now_us)
{
	uint64_t gap =
		draw_quantile(random, exponential, sizeof(exponential) / sizeof(exponential[0])) *
		profiles[kind].arrival_us / 1000;
	uint64_t phase = now_us % SWING_US, rise = phase < SWING_US / 2 ? phase : SWING_US - phase;

	/* from 2/3 of the mean gap at the peak to 4/3 between peaks */
	return now_us + gap * 4 / 3 - gap * rise * 4 / 3 / SWING_US;
}

static size_t earliest(const struct session *sessions, size_t count)
{
	size_t best = 0;

	for (size_t i = 1; i < count; i++)
		if (sessions[i].next_us < sessions[best].next_us)
			best = i;
	return best;
}

/* One request of the session: false when the session is over. */
static bool step(struct trace *trace, struct random *random, enum generate_kind kind,
		 struct session *session, uint32_t source)
{
	uint64_t ids[CONTEXT_MAX / TRACE_BLOCK_TOKENS + 1];
	struct trace_request request = {.timestamp_us = session->next_us, .source = source};

	if (!ask(random, kind, session))
		return false;
	request.input_tokens = session->tokens;
	request.output_tokens = draw_quantile(random, profiles[kind].output_tokens, QUANTILES);
	request.id_count = cut_blocks(session, ids);
	assert(request.id_count == (session->tokens + TRACE_BLOCK_TOKENS - 1) / TRACE_BLOCK_TOKENS);
	trace_add(trace, &request, ids);
	return answer(random, kind, session, request.output_tokens);
}

/* A sub-task: another session that goes on from the same prompt. */
static void branch(struct random *random, struct session *sessions, size_t *count, size_t from,
		   uint64_t number)
{
	struct session *child = &sessions[*count];

	*child = sessions[from];
	child->number = number;
	child->turns_left = 1 + (uint32_t)draw_below(random, 6);
	child->next_us += draw_below(random, 2000000);
	(*count)++;
}

void generate_trace(struct trace *trace, enum generate_kind kind, uint64_t seed, size_t count)
{
	struct random random = {mix(seed ^ text_of(100, kind))};
	struct session *sessions = calloc(LIVE_MAX, sizeof(*sessions));
	uint64_t arrival_us = 0, number = 0;
	uint32_t source = trace->sources;
	size_t live = 0, end = trace->count + count;

	if (!sessions)
		out_die("no memory for %u sessions", LIVE_MAX);
	while (trace->count < end) {
		size_t i = earliest(sessions, live);

		if (live < LIVE_MAX && (!live || arrival_us <= sessions[i].next_us)) {
			start_session(&random, kind, number++, arrival_us, &sessions[live++]);
			arrival_us = next_arrival(&random, kind, arrival_us);
			continue;
		}
		if (arrival_us < sessions[i].next_us) /* no room: whoever came waits */
			arrival_us = sessions[i].next_us;
		if (!step(trace, &random, kind, &sessions[i], source))
			sessions[i] = sessions[--live];
		else if (kind == GENERATE_AGENT && live < LIVE_MAX && draw_below(&random, 16) == 0)
			branch(&random, sessions, &live, i, number++);
	}
	free(sessions);
}
