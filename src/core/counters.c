/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "core/settings.h"

int counters_init(struct cairn_store *store)
{
	uint32_t count = COUNT_STORE_ROWS;

	for (uint32_t i = 0; i < store->level_count; i++)
		count += store->levels[i].ops->counter_count;
	store->counters_memory = sys_zalloc(store->sys, 64, count * sizeof(uint64_t));
	if (!store->counters_memory)
		return -ENOMEM;
	store->counters = store->counters_memory;
	store->counter_count = count;
	count = COUNT_STORE_ROWS;
	for (uint32_t i = 0; i < store->level_count; i++) {
		store->levels[i].env.counters = store->counters + count;
		count += store->levels[i].ops->counter_count;
	}
	return 0;
}

void counters_fini(struct cairn_store *store)
{
	store->sys->free(store->counters_memory);
	store->counters_memory = NULL;
}

void counters_publish(struct cairn_store *store)
{
	(void)store;
}

int counters_read_live(const struct sys *sys, const uint8_t uuid[16],
		       int (*fn)(void *context, const struct cairn_counter *counter), void *context,
		       uint32_t *ret_pid, struct cairn_error *reterr)
{
	(void)sys;
	(void)uuid;
	(void)fn;
	(void)context;
	(void)ret_pid;
	return fail(reterr, -ENOENT, "nobody has this store open");
}
