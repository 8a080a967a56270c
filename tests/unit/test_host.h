/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small synchronous host for unit tests of stages: one or a few stages, a
 * virtual clock, ios stepped on the caller's thread.
 *
 *	struct test_host *host = test_host_new();
 *	test_host_push(host, &cairn_stage_delay, "read=1ms;depth=2");
 *	test_host_push(host, &cairn_stage_null, "size=1MiB");
 *	test_host_open(host);
 *	struct test_ns *ns = test_ns_new(host, "model", 0, 0);
 *	struct test_io *tio = test_io_new(host, CAIRN_OP_DUMP, ns, key);
 *	test_io_part(tio, shard, offset, data, length);
 *	assert_int_equal(test_io_run(tio), 0);
 *	test_io_free(tio); test_host_free(host);
 *
 * Options are separated by semicolons. The first io to run stands for one
 * reactor; ios of one host may run on several threads at once as long as no
 * stage of it waits (resume_at, buffers).
 *
 * For stages that need more than the sys table set host->internal before
 * test_host_open() (a struct stage_env), and host->idle: called when nothing is
 * ready and no timer stands, for instance to poll an engine; it returns false
 * when it has nothing under way either.
 */
#ifndef TEST_HOST_H
#define TEST_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <cairn/stage.h>

#include "base/units.h"
#include "core/stage_env.h"

#define TEST_OPTIONS_MAX  64
#define TEST_COUNTERS_MAX 64
#define TEST_IOS_MAX	  256
#define TEST_IOV_MAX	  1024

struct test_host;

struct test_level {
	const struct cairn_stage_ops *ops;
	void *self;
	struct cairn_stage_env env;
	struct cairn_value values[TEST_OPTIONS_MAX];
	uint64_t counters[TEST_COUNTERS_MAX];
	char *text; /* the options' */
};

struct test_io {
	struct cairn_io io;
	struct test_host *host;
	void *scratch[CAIRN_STAGES_MAX];
	uint64_t when_ns;  /* of resume_at; 0: none */
	bool resume;	   /* asked for */
	bool wants_buffer; /* resume when one comes back */
	bool started, completed;
	uint64_t completed_ns;
	uint32_t forwards;
	struct cairn_part parts[CAIRN_PARTS_MAX];
	struct iovec iovs[TEST_IOV_MAX];
	uint32_t iov_used;
};

struct test_host {
	struct test_level levels[CAIRN_STAGES_MAX];
	uint32_t depth;
	struct cairn_stage_host host;
	struct stage_env internal;
	bool (*idle)(struct test_host *host);
	void *context; /* the test's own */
	struct test_io *ios[TEST_IOS_MAX];
	uint64_t sequence;
	uint32_t buffers_max, buffers_out; /* buffers at once */
};

struct test_ns {
	struct cairn_ns_view view;
	struct test_host *host;
};

/* The hosts of a program share the clock: now_ns() has no context. */
static uint64_t test_clock_ns = 1000000000;

static inline uint64_t test_now_ns(void)
{
	return __atomic_load_n(&test_clock_ns, __ATOMIC_RELAXED);
}

static inline struct test_io *test_io_of(struct cairn_io *io)
{
	return (struct test_io *)io->host_private;
}

static inline void test_enter(struct test_io *tio)
{
	struct test_level *level = &tio->host->levels[tio->io.level];

	memset(tio->scratch[tio->io.level], 0xa5, level->ops->io_bytes);
	memset(tio->scratch[tio->io.level], 0, cairn_stage_zeroed(level->ops));
	level->ops->submit(level->self, &tio->io, tio->scratch[tio->io.level]);
}

static inline void test_forward(struct cairn_io *io)
{
	struct test_io *tio = test_io_of(io);

	if (io->level + 1 >= tio->host->depth)
		fail_msg("forward() from the last stage");
	tio->forwards++;
	io->level++;
	test_enter(tio);
}

static inline void test_complete(struct cairn_io *io)
{
	struct test_io *tio = test_io_of(io);
	struct test_level *level;
	uint32_t i;

	if (tio->completed || tio->when_ns || tio->resume)
		fail_msg("complete() twice, or with a resume under way");
	for (i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			fail_msg("complete() with part %u pending", i);
	if (io->part_count == 0 && io->status == CAIRN_PENDING)
		fail_msg("complete() of a pending io");
	if (io->level == 0) {
		tio->completed = true;
		tio->completed_ns = test_now_ns();
		return;
	}
	level = &tio->host->levels[--io->level];
	if (!level->ops->done)
		fail_msg("%s forwards without done()", level->ops->name);
	level->ops->done(level->self, io, tio->scratch[io->level]);
}

static inline void test_resume_at(struct cairn_io *io, uint64_t when_ns)
{
	struct test_io *tio = test_io_of(io);

	if (tio->when_ns && when_ns != UINT64_MAX)
		fail_msg("a second resume_at()");
	tio->when_ns = when_ns == UINT64_MAX ? 0 : when_ns ? when_ns : 1;
}

static inline void test_resume(struct cairn_io *io)
{
	__atomic_store_n(&test_io_of(io)->resume, true, __ATOMIC_RELEASE);
}

static inline void *test_buffer_get(struct cairn_io *io, size_t bytes)
{
	struct test_io *tio = test_io_of(io);
	struct test_host *host = tio->host;

	if (bytes == 0 || bytes > host->host.buffer_max)
		fail_msg("a buffer of %zu bytes", bytes);
	if (host->buffers_out == host->buffers_max) {
		tio->wants_buffer = true;
		return NULL;
	}
	host->buffers_out++;
	return aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
}

static inline void test_buffer_put(struct cairn_io *io, void *buffer)
{
	struct test_host *host = test_io_of(io)->host;
	uint32_t i;

	if (host->buffers_out == 0)
		fail_msg("a buffer given back twice");
	host->buffers_out--;
	free(buffer);
	for (i = 0; i < TEST_IOS_MAX; i++) {
		if (!host->ios[i] || !host->ios[i]->wants_buffer)
			continue;
		host->ios[i]->wants_buffer = false;
		host->ios[i]->resume = true;
	}
}

static inline struct test_host *test_host_new(void)
{
	struct test_host *host = (struct test_host *)calloc(1, sizeof(*host));

	host->host = (struct cairn_stage_host){
		.size = sizeof(host->host),
		.forward = test_forward,
		.complete = test_complete,
		.resume_at = test_resume_at,
		.resume = test_resume,
		.now_ns = test_now_ns,
		.buffer_get = test_buffer_get,
		.buffer_put = test_buffer_put,
		.buffer_max = CAIRN_SHARD_BYTES_MAX,
	};
	host->internal.sys = &sys_native;
	host->buffers_max = 64;
	return host;
}

/* One option of a row from its text. */
static inline void test_value_set(const struct cairn_option *row, const char *text,
				  struct cairn_value *value)
{
	const char *choice = row->choices;
	int ret = 0;

	value->set = 1;
	value->s = text;
	switch (row->type) {
	case CAIRN_OPTION_SIZE:
		ret = units_parse_size(text, &value->u);
		break;
	case CAIRN_OPTION_TIME:
		ret = units_parse_time(text, &value->u);
		break;
	case CAIRN_OPTION_COUNT:
		ret = units_parse_count(text, &value->u);
		break;
	case CAIRN_OPTION_NUMBER:
		ret = units_parse_number(text, &value->d);
		break;
	case CAIRN_OPTION_BOOL:
		value->u = strcmp(text, "yes") == 0;
		break;
	case CAIRN_OPTION_CHOICE:
		for (; choice && strncmp(choice, text, strlen(text)) != 0; value->u++)
			choice = strchr(choice, '|') ? strchr(choice, '|') + 1 : NULL;
		ret = choice ? 0 : -1;
		break;
	case CAIRN_OPTION_TEXT:
	case CAIRN_OPTION_PATH:
		break;
	}
	if (ret < 0)
		fail_msg("option %s: \"%s\"", row->name, text);
}

/* Adds a stage under those that are there. @options: "size=1MiB;entries=8", or NULL. */
static inline void test_host_push(struct test_host *host, const struct cairn_stage_ops *ops,
				  const char *options)
{
	struct test_level *level = &host->levels[host->depth++];
	char *word, *save = NULL, *equal;
	uint32_t i;

	assert_true(ops->option_count <= TEST_OPTIONS_MAX);
	assert_true(ops->counter_count <= TEST_COUNTERS_MAX);
	level->ops = ops;
	level->text = strdup(options ? options : "");
	for (i = 0; i < ops->option_count; i++)
		if (ops->options[i].preset)
			test_value_set(&ops->options[i], ops->options[i].preset, &level->values[i]);
	for (word = strtok_r(level->text, ";", &save); word; word = strtok_r(NULL, ";", &save)) {
		equal = strchr(word, '=');
		assert_non_null(equal);
		*equal = '\0';
		for (i = 0; i < ops->option_count; i++)
			if (strcmp(ops->options[i].name, word) == 0)
				break;
		if (i == ops->option_count)
			fail_msg("%s has no option %s", ops->name, word);
		memset(&level->values[i], 0, sizeof(level->values[i]));
		test_value_set(&ops->options[i], equal + 1, &level->values[i]);
	}
}

/* Opens the stages, the lowest first. 0, or the first error; then only free may follow. */
static inline int test_host_try_open(struct test_host *host, struct cairn_error *reterr)
{
	struct test_level *level;
	int ret;
	uint32_t i;

	for (i = host->depth; i-- > 0;) {
		level = &host->levels[i];
		level->env = (struct cairn_stage_env){
			.size = sizeof(level->env),
			.host = &host->host,
			.index = i,
			.below = host->depth - 1 - i,
			.name = level->ops->name,
			.values = level->values,
			.counters = level->counters,
			.internal = &host->internal,
		};
		level->self = calloc(1, level->ops->instance_bytes);
		ret = level->ops->open(level->self, &level->env, reterr);
		if (ret < 0) {
			free(level->self);
			level->self = NULL;
			return ret;
		}
	}
	return 0;
}

static inline void test_host_open(struct test_host *host)
{
	struct cairn_error error = {0};

	if (test_host_try_open(host, &error) < 0)
		fail_msg("open: %s", error.text);
}

static inline void test_host_free(struct test_host *host)
{
	uint32_t i;

	for (i = 0; i < TEST_IOS_MAX; i++)
		if (host->ios[i])
			fail_msg("an io is left");
	assert_int_equal(host->buffers_out, 0);
	for (i = 0; i < host->depth; i++) {
		if (host->levels[i].self)
			host->levels[i].ops->close(host->levels[i].self);
		free(host->levels[i].self);
		free(host->levels[i].text);
	}
	free(host);
}

/* A namespace, bound in every tier. @shard_count 0: variable. */
static inline struct test_ns *test_ns_new(struct test_host *host, const char *name,
					  uint32_t shard_count, uint64_t shard_bytes)
{
	struct test_ns *ns = (struct test_ns *)calloc(1, sizeof(*ns));
	struct cairn_error error = {0};
	uint32_t i;

	ns->host = host;
	ns->view.desc = strdup(name);
	ns->view.desc_length = strlen(name) + 1;
	ns->view.shard_count = shard_count;
	ns->view.shard_bytes = shard_bytes;
	for (i = 0; i < host->depth; i++)
		if (host->levels[i].ops->bind &&
		    host->levels[i].ops->bind(host->levels[i].self, &ns->view, &ns->view.binding[i],
					      &error) < 0)
			fail_msg("bind: %s", error.text);
	return ns;
}

static inline void test_ns_free(struct test_ns *ns)
{
	free((void *)(uintptr_t)ns->view.desc);
	free(ns);
}

/* The ops and instance of the lowest stage: for lookup, clear, stat ... */
static inline struct test_level *test_lowest(struct test_host *host)
{
	return &host->levels[host->depth - 1];
}

static inline struct cairn_key test_key(uint64_t number)
{
	struct cairn_key key = {{0}};

	memcpy(key.bytes, &number, sizeof(number));
	key.bytes[15] = 0x5a; /* never all zero */
	return key;
}

static inline struct test_io *test_io_new(struct test_host *host, enum cairn_op op,
					  const struct test_ns *ns, struct cairn_key key)
{
	struct test_io *tio = (struct test_io *)calloc(1, sizeof(*tio));
	uint32_t i;

	tio->host = host;
	for (i = 0; i < host->depth; i++) {
		size_t bytes = (host->levels[i].ops->io_bytes + 15) / 16 * 16;

		tio->scratch[i] = aligned_alloc(16, bytes ? bytes : 16);
	}
	tio->io.op = op;
	tio->io.status = CAIRN_PENDING;
	tio->io.key = key;
	tio->io.ns = &ns->view;
	tio->io.parts = tio->parts;
	tio->io.shard_count = ns->view.shard_count;
	tio->io.shard_bytes = ns->view.shard_bytes;
	tio->io.deadline_ns = UINT64_MAX;
	tio->io.sequence = __atomic_add_fetch(&host->sequence, 1, __ATOMIC_RELAXED);
	tio->io.host_private = tio;
	return tio;
}

/* Adds a part whose bytes are at @data; a dump's raw and stored length are @length. */
static inline struct cairn_part *test_io_part(struct test_io *tio, uint32_t shard, uint64_t offset,
					      void *data, uint64_t length)
{
	struct cairn_part *part = &tio->parts[tio->io.part_count++];

	assert_true(tio->io.part_count <= CAIRN_PARTS_MAX);
	assert_true(tio->iov_used < TEST_IOV_MAX);
	part->shard = shard;
	part->status = CAIRN_PENDING;
	part->offset = offset;
	part->length = length;
	part->iov = &tio->iovs[tio->iov_used];
	part->iov_count = 1;
	tio->iovs[tio->iov_used++] = (struct iovec){data, (size_t)length};
	if (tio->io.op == CAIRN_OP_DUMP) {
		part->raw_length = length;
		part->stored_length = length;
	}
	return part;
}

/* Submits it; it may or may not have completed on return. */
static inline void test_io_start(struct test_io *tio)
{
	uint32_t i;

	assert_false(tio->started);
	tio->started = true;
	test_enter(tio);
	if (tio->completed)
		return;
	for (i = 0; i < TEST_IOS_MAX && tio->host->ios[i]; i++)
		;
	assert_true(i < TEST_IOS_MAX);
	tio->host->ios[i] = tio;
}

static inline void test_io_resume(struct test_io *tio)
{
	struct test_level *level = &tio->host->levels[tio->io.level];

	if (!level->ops->resume)
		fail_msg("%s waits without resume()", level->ops->name);
	tio->when_ns = 0;
	tio->resume = false;
	level->ops->resume(level->self, &tio->io, tio->scratch[tio->io.level]);
}

/* Takes completed ios off the list; resumes one, moving the clock if need be. False: stuck. */
static inline bool test_host_step(struct test_host *host)
{
	struct test_io *next = NULL;
	uint32_t i;

	for (i = 0; i < TEST_IOS_MAX; i++) {
		if (host->ios[i] && host->ios[i]->completed)
			host->ios[i] = NULL;
		if (!host->ios[i])
			continue;
		if (__atomic_load_n(&host->ios[i]->resume, __ATOMIC_ACQUIRE)) {
			test_io_resume(host->ios[i]);
			return true;
		}
		if (host->ios[i]->when_ns && (!next || host->ios[i]->when_ns < next->when_ns))
			next = host->ios[i];
	}
	if (host->idle && host->idle(host))
		return true;
	if (!next)
		return false;
	if (next->when_ns > test_now_ns())
		__atomic_store_n(&test_clock_ns, next->when_ns, __ATOMIC_RELAXED);
	test_io_resume(next);
	return true;
}

/* Starts the io if need be and steps the host until it has completed. The first bad status. */
static inline int test_io_run(struct test_io *tio)
{
	uint32_t i;

	if (!tio->started)
		test_io_start(tio);
	while (!tio->completed)
		if (!test_host_step(tio->host))
			fail_msg("the io is stuck in %s",
				 tio->host->levels[tio->io.level].ops->name);
	for (i = 0; i < TEST_IOS_MAX; i++)
		if (tio->host->ios[i] == tio)
			tio->host->ios[i] = NULL;
	for (i = 0; i < tio->io.part_count; i++)
		if (tio->parts[i].status != 0)
			return tio->parts[i].status;
	return tio->io.part_count ? 0 : tio->io.status;
}

static inline void test_io_free(struct test_io *tio)
{
	uint32_t i;

	assert_true(tio->completed || !tio->started);
	for (i = 0; i < tio->host->depth; i++)
		free(tio->scratch[i]);
	free(tio);
}

/* One dump of one shard of a block of @shard_count, in one call. Its status. */
static inline int test_dump(struct test_ns *ns, struct cairn_key key, uint32_t shard,
			    uint32_t shard_count, uint64_t shard_bytes, void *data, uint64_t length)
{
	struct test_io *tio = test_io_new(ns->host, CAIRN_OP_DUMP, ns, key);
	int ret;

	tio->io.shard_count = shard_count;
	tio->io.shard_bytes = shard_bytes;
	test_io_part(tio, shard, 0, data, length);
	ret = test_io_run(tio);
	test_io_free(tio);
	return ret;
}

static inline int test_load(struct test_ns *ns, struct cairn_key key, uint32_t shard,
			    uint64_t offset, void *data, uint64_t length)
{
	struct test_io *tio = test_io_new(ns->host, CAIRN_OP_LOAD, ns, key);
	int ret;

	test_io_part(tio, shard, offset, data, length);
	ret = test_io_run(tio);
	test_io_free(tio);
	return ret;
}

/* An io without parts: remove, prefetch. */
static inline int test_plain(struct test_ns *ns, enum cairn_op op, struct cairn_key key)
{
	struct test_io *tio = test_io_new(ns->host, op, ns, key);
	int ret = test_io_run(tio);

	test_io_free(tio);
	return ret;
}

/* Whether the lowest tier has the block whole. */
static inline bool test_present(struct test_ns *ns, struct cairn_key key)
{
	struct test_level *level = test_lowest(ns->host);
	struct cairn_probe probe;

	level->ops->lookup(level->self, &ns->view, &key, 1, 0, &probe);
	return probe.present != 0;
}

#endif
