/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "core/settings.h"
#include "sys/page.h"

static const char *const ops[LATENCY_OPS] = {
	[LATENCY_LOAD] = "load",
	[LATENCY_DUMP] = "dump",
	[LATENCY_LOOKUP] = "lookup",
};

static uint32_t row_count(const struct cairn_store *store)
{
	uint32_t count = COUNT_STORE_ROWS;

	for (uint32_t i = 0; i < store->level_count; i++)
		count += store->levels[i].ops->counter_count;
	return count;
}

/* Lets the store and its stages count at @values. */
static void use_values(struct cairn_store *store, uint64_t *values)
{
	store->counters = values;
	values += COUNT_STORE_ROWS;
	for (uint32_t i = 0; i < store->level_count; i++) {
		store->levels[i].env.counters = values;
		values += store->levels[i].ops->counter_count;
	}
}

int counters_init(struct cairn_store *store)
{
	uint32_t count = row_count(store);

	store->counters_memory = sys_zalloc(store->sys, 64, count * sizeof(uint64_t));
	if (!store->counters_memory)
		return -ENOMEM;
	store->counter_count = count;
	for (uint32_t i = 0; i < LATENCY_OPS; i++)
		store->latencies[i] = &store->latencies_own[i];
	use_values(store, store->counters_memory);
	return 0;
}

void counters_fini(struct cairn_store *store)
{
	page_close(store->page);
	store->page = NULL;
	store->sys->free(store->counters_memory);
	store->counters_memory = NULL;
}

static void name_rows(const struct cairn_store *store, struct page_counter *rows)
{
	const struct cairn_counter_row *own = store_counter_rows();

	for (uint32_t i = 0; i < COUNT_STORE_ROWS; i++)
		*rows++ = (struct page_counter){"store", own[i].name, own[i].gauge != 0};
	for (uint32_t i = 0; i < store->level_count; i++) {
		const struct level *level = &store->levels[i];

		for (uint32_t r = 0; r < level->ops->counter_count; r++)
			*rows++ = (struct page_counter){level->name, level->ops->counters[r].name,
							level->ops->counters[r].gauge != 0};
	}
}

void counters_publish(struct cairn_store *store)
{
	static const uint8_t nobody[16];
	struct level *bottom = &store->levels[store->tier_bottom];
	struct cairn_tier_stat st = {0};
	struct page_shape shape = {
		.counter_count = store->counter_count, .ops = ops, .op_count = LATENCY_OPS};
	struct page_counter *rows;
	int ret;

	bottom->ops->stat(bottom->self, &st);
	if (memcmp(st.uuid, nobody, sizeof(nobody)) == 0)
		return;
	rows = sys_zalloc(store->sys, 16, store->counter_count * sizeof(*rows));
	if (!rows)
		return;
	name_rows(store, rows);
	shape.counters = rows;
	ret = page_create(store->sys, st.uuid, &shape, &store->page);
	store->sys->free(rows);
	if (ret < 0) {
		store->page = NULL;
		return;
	}
	memcpy(page_values(store->page), store->counters, store->counter_count * sizeof(uint64_t));
	use_values(store, page_values(store->page));
	/* No task has run yet: these are empty. */
	for (uint32_t i = 0; i < LATENCY_OPS; i++)
		store->latencies[i] = page_latency(store->page, i);
}

void counters_tell_engine(struct cairn_store *store)
{
	static_assert(PAGE_NOTE_MAX == sizeof(store->engine_note), "one text");
	if (store->page)
		page_engine(store->page, store->engine_ops->name, store->engine_note);
}

const char *counters_op(enum store_latency op)
{
	assert(op < LATENCY_OPS);
	return ops[op];
}

int counters_tell_latency(const char *op, const struct latency *latency,
			  int (*fn)(void *context, const struct cairn_latency *latency),
			  void *context)
{
	struct cairn_latency_bucket buckets[LATENCY_BUCKETS];
	struct cairn_latency told = {
		.op = op,
		.sum_ns = counter_read(&latency->sum_ns),
		.bucket_count = LATENCY_BUCKETS,
		.buckets = buckets,
	};

	for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
		buckets[i].le_ns = latency_bound_ns(i);
		buckets[i].count = counter_read(&latency->counts[i]);
		told.count += buckets[i].count;
	}
	return fn(context, &told);
}

struct live {
	const struct cairn_store *store; /* resolved, not open */
	const struct counters_reader *reader;
	struct page_info info;	     /* filled before the first counter is told */
	struct cairn_live *ret_live; /* the caller's, as long as its size says; or NULL */
	bool shared;
};

static const char *help_of(const struct cairn_counter_row *rows, uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].help ? rows[i].help : "";
	return "";
}

/* The page has names only; what they mean is asked of the stages that this build has. */
static const char *live_help(const struct live *live, const char *stage, const char *name)
{
	if (strcmp(stage, "store") == 0)
		return help_of(store_counter_rows(), COUNT_STORE_ROWS, name);
	for (uint32_t i = 0; i < live->store->level_count; i++) {
		const struct level *level = &live->store->levels[i];

		if (strcmp(level->name, stage) == 0)
			return help_of(level->ops->counters, level->ops->counter_count, name);
	}
	return "";
}

/* Before the first counter, so that its function may print it. */
static void tell_process(const struct live *live)
{
	struct cairn_live out = {.pid = (uint32_t)live->info.pid,
				 .shared = live->shared,
				 .start_ns = live->info.start_ns};
	size_t size;

	if (!live->ret_live)
		return;
	static_assert(sizeof(out.engine) == PAGE_ENGINE_MAX, "one text");
	static_assert(sizeof(out.engine_note) == PAGE_NOTE_MAX, "one text");
	memcpy(out.engine, live->info.engine, sizeof(out.engine));
	memcpy(out.engine_note, live->info.note, sizeof(out.engine_note));
	size = out.size = live->ret_live->size;
	if (size > sizeof(out)) {
		memset((uint8_t *)live->ret_live + sizeof(out), 0, size - sizeof(out));
		size = sizeof(out);
	}
	memcpy(live->ret_live, &out, size);
}

static int tell_one(void *context, const char *stage, const char *name, bool gauge, uint64_t value)
{
	const struct live *live = context;
	struct cairn_counter counter = {.stage = stage,
					.name = name,
					.help = live_help(live, stage, name),
					.gauge = gauge,
					.value = value};

	tell_process(live);
	return live->reader->counter(live->reader->context, &counter);
}

static int tell_latency(void *context, const char *op, const struct latency *latency)
{
	const struct live *live = context;

	tell_process(live);
	return counters_tell_latency(op, latency, live->reader->latency, live->reader->context);
}

int counters_read_live(const struct cairn_store *store, const uint8_t uuid[16], int in_use,
		       const struct counters_reader *reader, struct cairn_live *ret_live,
		       struct cairn_error *reterr)
{
	struct live live = {.store = store,
			    .reader = reader,
			    .ret_live = ret_live,
			    .shared = in_use == CAIRN_IN_USE_SHARED};
	const struct page_reader of_page = {
		.counter = reader->counter ? tell_one : NULL,
		.latency = reader->latency ? tell_latency : NULL,
		.context = &live,
	};
	int ret = page_read(store->sys, uuid, &of_page, &live.info);

	if (ret == -ENOENT && in_use) {
		live.info = (struct page_info){0};
		tell_process(&live);
		return fail(reterr, -EBUSY,
			    "a process has this store open, but without a page of "
			    "counters to read");
	}
	if (ret == -ENOENT)
		return fail(reterr, ret, "no process has this store open");
	if (ret == -EPROTO || ret == -EBADMSG)
		return fail(reterr, ret, "the counters page of the store is %s",
			    ret == -EPROTO ? "of another version" : "damaged, or being made");
	if (ret < 0)
		return fail(reterr, ret, "the counters page cannot be read: %s", strerror(-ret));
	return ret;
}
