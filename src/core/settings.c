/* SPDX-License-Identifier: Apache-2.0 */
/* Options that belong to no stage, in the order of enum store_setting; and the store's counters. */
#include "core/settings.h"

static const struct cairn_option rows[SET_ROWS] = {
	[SET_REACTORS] = {.name = "reactors",
			  .type = CAIRN_OPTION_COUNT,
			  .preset = "0",
			  .max = "32",
			  .help = "threads that do I/O; 0: one per two cores, at least one"},
	[SET_ENGINE] = {.name = "engine",
			.type = CAIRN_OPTION_CHOICE,
			.preset = "auto",
			.choices = "uring|aio|psync|auto",
			.help = "what carries I/O; auto: io_uring, else libaio, else threads"},
	[SET_WORKERS] = {.name = "workers",
			 .type = CAIRN_OPTION_COUNT,
			 .preset = "8",
			 .min = "1",
			 .max = "64",
			 .help = "blocking threads of the store at most: for locks of files, and "
				 "where there is no io_uring; with it, the kernel's for its rings"},
	[SET_DEADLINE] = {.name = "deadline",
			  .type = CAIRN_OPTION_TIME,
			  .preset = "30s",
			  .min = "1ms",
			  .help = "of tasks that state none"},
	[SET_TASKS] = {.name = "tasks",
		       .type = CAIRN_OPTION_COUNT,
		       .preset = "1024",
		       .min = "1",
		       .max = "65536",
		       .help = "task slots; more at once are refused with EAGAIN"},
	[SET_IOS] = {.name = "ios",
		     .type = CAIRN_OPTION_COUNT,
		     .preset = "128",
		     .min = "4",
		     .max = "4096",
		     .help = "blocks a reactor moves at once"},
	[SET_BUFFERS] = {.name = "buffers",
			 .type = CAIRN_OPTION_SIZE,
			 .preset = "256MiB",
			 .min = "1MiB",
			 .max = "64GiB",
			 .help = "memory for I/O a reactor may use, half for stages, half for "
				 "callers' bytes (detached tasks); taken as it is needed"},
	[SET_HOLD_BYTES] = {.name = "hold_bytes",
			    .type = CAIRN_OPTION_SIZE,
			    .preset = "4GiB",
			    .help = "stored bytes that holds may keep from eviction"},
	[SET_HOLD_TIME] = {.name = "hold_time",
			   .type = CAIRN_OPTION_TIME,
			   .preset = "30s",
			   .help = "how long a hold lasts that states no time"},
	[SET_HOLD_KEYS] = {.name = "hold_keys",
			   .type = CAIRN_OPTION_COUNT,
			   .preset = "65536",
			   .min = "1",
			   .max = "16777216",
			   .help = "blocks that holds may keep at once"},
	[SET_INLINE_MAX] = {.name = "inline_max",
			    .type = CAIRN_OPTION_SIZE,
			    .preset = "1MiB",
			    .help = "a lone load up to here runs on the thread that waits for it"},
	[SET_HOLD_MAX] = {.name = "hold_max",
			  .type = CAIRN_OPTION_TIME,
			  .preset = "10m",
			  .min = "1ms",
			  .max = "24h",
			  .help = "the longest that a hold lasts, whatever its lookup asks"},
};

static const struct cairn_counter_row counter_rows[COUNT_STORE_ROWS] = {
	[COUNT_TASKS] = {"tasks", "tasks submitted", 0},
	[COUNT_XFERS] = {"xfers", "items submitted", 0},
	[COUNT_LOAD_HITS] = {"load_hits", "items loaded", 0},
	[COUNT_MISSES_ABSENT] = {"misses_absent", "items not loaded: no tier has them", 0},
	[COUNT_MISSES_DAMAGED] = {"misses_damaged", "items not loaded: they did not check", 0},
	[COUNT_MISSES_DEVICE] = {"misses_device", "items not loaded: a read failed", 0},
	[COUNT_MISSES_LATE] = {"misses_late", "items not loaded: their deadline passed", 0},
	[COUNT_MISSES_OTHER] = {"misses_other", "items not loaded: cancelled, or replaced", 0},
	[COUNT_LOADED_BYTES] = {"loaded_bytes", "bytes loaded into callers' memory", 0},
	[COUNT_DUMPED_BYTES] = {"dumped_bytes", "bytes dumped and taken", 0},
	[COUNT_TIMED_OUT] = {"timed_out", "parts of tasks that met their deadline", 0},
	[COUNT_CANCELED] = {"canceled", "parts of tasks that were cancelled", 0},
	[COUNT_INLINE] = {"inline", "loads run on the caller's thread", 0},
	[COUNT_BOUNCED] = {"bounced", "ios that went through a bounce buffer", 0},
	[COUNT_BACKPRESSURE] = {"backpressure", "turns of a reactor with no free io", 0},
	[COUNT_HOLDS] = {"holds", "holds in force", 1},
	[COUNT_HOLD_BYTES] = {"hold_bytes", "stored bytes held", 1},
	[COUNT_HOLDS_EXPIRED] = {"holds_expired", "holds that ran out of time", 0},
	[COUNT_HOLDS_REFUSED] = {"holds_refused", "blocks over the bounds of holds", 0},
	[COUNT_LOOKUPS] = {"lookups", "keys looked up", 0},
	[COUNT_LOOKUP_HITS] = {"lookup_hits", "keys found whole", 0},
	[COUNT_TASKS_IN_FLIGHT] = {"tasks_in_flight", "task slots taken", 1},
	[COUNT_QUEUED_XFERS] = {"queued_xfers", "items that wait for an io", 1},
	[COUNT_IN_FLIGHT] = {"in_flight", "ios in the pipeline", 1},
	[COUNT_REGISTERED_IOS] = {"registered_ios", "reads and writes in registered memory", 0},
	[COUNT_UNREGISTERED_IOS] = {"unregistered_ios", "reads and writes in other memory", 0},
};

const struct cairn_option *settings_rows(uint32_t *ret_count)
{
	*ret_count = SET_ROWS;
	return rows;
}

const struct cairn_counter_row *store_counter_rows(void)
{
	return counter_rows;
}
