/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "core/settings.h"
#include "sys/page.h"

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
	struct page_counter *rows;
	int ret;

	bottom->ops->stat(bottom->self, &st);
	if (memcmp(st.uuid, nobody, sizeof(nobody)) == 0)
		return;
	rows = sys_zalloc(store->sys, 16, store->counter_count * sizeof(*rows));
	if (!rows)
		return;
	name_rows(store, rows);
	ret = page_create(store->sys, st.uuid, rows, store->counter_count, &store->page);
	store->sys->free(rows);
	if (ret < 0) {
		store->page = NULL;
		return;
	}
	memcpy(page_values(store->page), store->counters, store->counter_count * sizeof(uint64_t));
	use_values(store, page_values(store->page));
}

struct live {
	const struct cairn_store *store; /* resolved, not open */
	int (*fn)(void *context, const struct cairn_counter *counter);
	void *context;
	struct page_info info; /* filled before the first counter is told */
	uint32_t *ret_pid;
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

static int tell_one(void *context, const char *stage, const char *name, bool gauge, uint64_t value)
{
	const struct live *live = context;
	struct cairn_counter counter = {.stage = stage,
					.name = name,
					.help = live_help(live, stage, name),
					.gauge = gauge,
					.value = value};

	if (live->ret_pid)
		*live->ret_pid = (uint32_t)live->info.pid;
	return live->fn(live->context, &counter);
}

int counters_read_live(const struct cairn_store *store, const uint8_t uuid[16],
		       int (*fn)(void *context, const struct cairn_counter *counter), void *context,
		       uint32_t *ret_pid, struct cairn_error *reterr)
{
	struct live live = {.store = store, .fn = fn, .context = context, .ret_pid = ret_pid};
	int ret = page_read(store->sys, uuid, tell_one, &live, &live.info);

	if (ret_pid)
		*ret_pid = (uint32_t)live.info.pid;
	if (ret == -ENOENT)
		return fail(reterr, ret, "no process has this store open");
	if (ret == -EPROTO || ret == -EBADMSG)
		return fail(reterr, ret, "the counters page of the store is %s",
			    ret == -EPROTO ? "of another version" : "damaged, or being made");
	if (ret < 0)
		return fail(reterr, ret, "the counters page cannot be read: %s", strerror(-ret));
	return ret;
}
