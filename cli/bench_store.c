/* SPDX-License-Identifier: Apache-2.0 */
/* The store's side of the bench. */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "cli.h"
#include "content.h"
#include "figures.h"
#include "options.h"
#include "out.h"

#define DRAIN_MAX     64u
#define DRAIN_NS      60000000000u /* beyond any deadline: a completion that never comes */
#define BATCH	      1024u	   /* blocks of a task that fills or removes, at most */
#define BATCH_BYTES   (64u << 20)
#define LOOKUP_RUN_NS 200000000u /* how long a run of lookups should be */
#define FOLDER_BLOCKS 16384u	 /* nearly all folders of a posix store have one of them */
#define FOLDER_BYTES  64u
#define CALLS_MIN     20u
#define CALLS_MAX     20000u
#define CALLS_SPACED  100u
#define WAIT_NS	      1000000u /* until a task slot is tried for again */
#define PAGE_BYTES    4096u    /* that blocks begin at: what direct I/O may ask for */

struct slot {
	struct client *client;
	uint8_t *buffer;
	struct cairn_xfer *xfers; /* one a shard */
	struct cairn_segment *segments;
	uint64_t start_ns;
	bool dump;
};

struct client {
	struct store_side *own;
	struct bench_worker *worker; /* while a run lasts */
	struct cairn_queue *queue;
	uint8_t *memory;	    /* of the slots */
	struct slot *slots, **free; /* depth of them */
	uint32_t free_count;
};

struct store_side {
	struct bench_plan *plan;
	struct cairn_store *store;
	struct cairn_namespace *ns;
	struct cairn_namespace *folders; /* of blocks that had the store make its folders; NULL */
	uint64_t folder_blocks;
	uint32_t runs; /* whose blocks are still there */
	struct client *clients;
	struct cairn_key *fresh; /* of what this run dumps: count of them */
	uint64_t shard_bytes;
};

static void *memory(size_t count, size_t bytes)
{
	void *p = calloc(count ? count : 1, bytes);

	if (!p)
		out_die("no memory for %zu times %zu bytes", count, bytes);
	return p;
}

static int complain(const char *what, int rc)
{
	out_error("bench", "%s: %s", what, cairn_strerror(rc));
	return rc;
}

/* What every block holds beyond its stamp. */
static void pattern(void *buffer, uint64_t bytes)
{
	const struct cairn_key none = {{0}};

	content_fill(&none, 0, buffer, bytes);
}

static void slot_init(struct client *client, struct slot *slot, uint8_t *buffer)
{
	const struct bench_plan *plan = client->own->plan;

	pattern(buffer, plan->block_bytes);
	*slot = (struct slot){.client = client, .buffer = buffer};
	slot->xfers = memory(plan->shard_count, sizeof(*slot->xfers));
	slot->segments = memory(plan->shard_count, sizeof(*slot->segments));
	for (uint32_t s = 0; s < plan->shard_count; s++)
		slot->segments[s] = (struct cairn_segment){
			slot->buffer + s * client->own->shard_bytes, client->own->shard_bytes};
}

static void slot_fini(struct slot *slot)
{
	free(slot->xfers);
	free(slot->segments);
}

static void slot_set(struct slot *slot, const struct cairn_key *key, bool dump)
{
	const struct store_side *own = slot->client->own;

	slot->dump = dump;
	if (dump)
		bench_stamp(key, slot->buffer, own->plan->block_bytes);
	for (uint32_t s = 0; s < own->plan->shard_count; s++) {
		slot->xfers[s] = (struct cairn_xfer){.key = *key,
						     .shard = s,
						     .length = own->shard_bytes,
						     .segments = &slot->segments[s],
						     .segment_count = 1};
	}
}

/* The slot's first failure; dumping what is there already moved nothing, so is one. */
static int slot_status(const struct slot *slot)
{
	for (uint32_t s = 0; s < slot->client->own->plan->shard_count; s++) {
		int status = slot->xfers[s].result.status;

		if (status)
			return status < 0 ? status : -EEXIST;
	}
	return 0;
}

static int slot_move(struct slot *slot, const struct cairn_task_opts *opts, uint64_t *ret_task)
{
	const struct store_side *own = slot->client->own;

	slot->start_ns = figures_now_ns();
	return (slot->dump ? cairn_dump : cairn_load)(own->ns, slot->xfers, own->plan->shard_count,
						      opts, ret_task);
}

/* ---- a run of loads and dumps ------------------------------------------------ */

/* Operation @i of the run, in the slot. */
static void set_operation(struct slot *slot, uint64_t i)
{
	const struct store_side *own = slot->client->own;
	const struct bench_plan *plan = own->plan;
	bool dump = plan->op == BENCH_DUMP || (plan->op == BENCH_MIXED && i % 2);

	slot_set(slot, dump ? &own->fresh[i] : &plan->keys[plan->order[i]], dump);
}

static void end_slot(struct slot *slot, uint32_t events)
{
	struct client *client = slot->client;
	int rc;

	if (events & CAIRN_EVENT_RESULT) {
		rc = slot_status(slot);
		if (rc && !client->worker->error)
			client->worker->error = rc;
		bench_note(client->worker, slot->start_ns, client->own->plan->block_bytes);
	}
	if (events & CAIRN_EVENT_RELEASE)
		client->free[client->free_count++] = slot;
}

/* Takes what has ended; with @wait at least one. */
static void drain(struct client *client)
{
	struct cairn_completion done[DRAIN_MAX];
	int n = cairn_drain(client->queue, done, DRAIN_MAX, DRAIN_NS);

	if (n <= 0)
		out_die("a task in flight never ended");
	for (int i = 0; i < n; i++)
		end_slot(done[i].context, done[i].events);
}

static void submit(struct client *client, uint64_t i)
{
	const struct bench_plan *plan = client->own->plan;
	struct slot *slot = client->free[--client->free_count];
	struct cairn_task_opts opts = {.size = sizeof(opts),
				       .durability = plan->durability,
				       .queue = client->queue,
				       .context = slot};
	uint64_t task;
	int rc;

	set_operation(slot, i);
	if (!slot->dump)
		opts.durability = 0;
	while ((rc = slot_move(slot, &opts, &task)) == -EAGAIN) {
		if (client->free_count + 1 < plan->depth)
			drain(client);
		else
			figures_sleep_until(figures_now_ns() + WAIT_NS);
	}
	if (rc < 0) {
		client->worker->error = rc;
		client->free[client->free_count++] = slot;
	}
}

/* One call after another: how a thread that waits for its block does it. */
static void work_single(struct client *client)
{
	const struct bench_plan *plan = client->own->plan;
	struct slot *slot = &client->slots[0];
	struct cairn_task_opts opts = {.size = sizeof(opts)};

	for (uint64_t i = client->worker->index; i < plan->count && !client->worker->error;
	     i += plan->clients) {
		int rc;

		set_operation(slot, i);
		opts.durability = slot->dump ? plan->durability : 0;
		rc = slot_move(slot, &opts, NULL);
		client->worker->error = rc < 0 ? rc : slot_status(slot);
		bench_note(client->worker, slot->start_ns, plan->block_bytes);
	}
}

static void work_blocks(struct bench_side *side, struct bench_worker *worker)
{
	struct store_side *own = side->private;
	struct client *client = &own->clients[worker->index];

	client->worker = worker;
	if (own->plan->depth == 1) {
		work_single(client);
		return;
	}
	for (uint64_t i = worker->index; i < own->plan->count && !worker->error;
	     i += own->plan->clients) {
		while (!client->free_count)
			drain(client);
		submit(client, i);
	}
	while (client->free_count < own->plan->depth)
		drain(client);
}

static void derive(struct cairn_namespace *ns, uint64_t run, uint64_t i, struct cairn_key *ret_key)
{
	uint64_t name[2] = {htole64(i), htole64(run)};

	if (cairn_key_derive(ns, name, sizeof(name), ret_key) < 0)
		out_die("a key could not be derived");
}

static int prepare_blocks(struct bench_side *side, uint32_t run)
{
	struct store_side *own = side->private;

	for (uint64_t i = 0; i < own->plan->count && own->plan->op != BENCH_LOAD; i++)
		derive(own->ns, run + 1, i, &own->fresh[i]); /* 0 are the known blocks */
	return 0;
}

/* Loads @key again and compares every byte. */
static int verify(struct slot *slot, const struct cairn_key *key)
{
	const struct bench_plan *plan = slot->client->own->plan;
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	uint64_t bytes = plan->block_bytes, first;
	const struct cairn_key none = {{0}};
	char text[CONTENT_KEY_TEXT];
	struct cairn_key stamp = *key;
	int rc;

	memset(slot->buffer, 0, bytes);
	slot_set(slot, key, false);
	rc = slot_move(slot, &opts, NULL);
	if (rc < 0)
		return complain("load, to verify", rc);
	memcpy(stamp.bytes, slot->buffer, bytes < sizeof(stamp) ? bytes : sizeof(stamp));
	rc = memcmp(&stamp, key, sizeof(stamp)) ? -EBADMSG : 0;
	/* what the stamp covers is put back to the pattern */
	pattern(slot->buffer, bytes < BENCH_STAMP_BYTES ? bytes : BENCH_STAMP_BYTES);
	if (rc == 0 && content_verify(&none, 0, slot->buffer, bytes, &first) == 0)
		return 0;
	out_error("bench", "block %s: WRONG BYTES were loaded", content_key_format(key, text));
	return -EBADMSG;
}

static bool is_present(const struct store_side *own, const struct cairn_key *key)
{
	return cairn_lookup_prefix(own->ns, key, 1, NULL, NULL, NULL) == 1;
}

/* A bounded store may have evicted some of the run's blocks by now, but not all. */
static int verify_run(struct store_side *own)
{
	const struct bench_plan *plan = own->plan;
	struct slot *slot = &own->clients[0].slots[0];
	bool bounded = option_store_evicted(own->store) > 0;
	uint64_t verified = 0;
	int rc = 0;

	for (uint64_t i = 0; i < plan->count && rc == 0; i++) {
		const struct cairn_key *key;

		set_operation(slot, i);
		key = slot->dump ? &own->fresh[i] : &plan->keys[i];
		if (bounded && !is_present(own, key))
			continue;
		rc = verify(slot, key);
		verified += rc == 0;
	}
	if (rc == 0 && verified == 0)
		rc = complain("nothing that was dumped could be verified", -ENOENT);
	return rc;
}

static void remove_keys(struct cairn_namespace *ns, const struct cairn_key *keys, uint64_t count)
{
	struct cairn_task_opts opts = {.size = sizeof(opts)};

	for (uint64_t i = 0; i < count; i += BATCH) /* that one is gone already is fine */
		cairn_remove(ns, keys + i, count - i < BATCH ? count - i : BATCH, NULL, &opts,
			     NULL);
}

static int finish_blocks(struct bench_side *side, uint32_t run)
{
	struct store_side *own = side->private;
	const struct bench_plan *plan = own->plan;
	int rc = run == 0 ? verify_run(own) : 0;

	for (uint64_t i = 0; i < plan->clients; i++)
		for (uint64_t s = 0; s < plan->depth; s++)
			pattern(own->clients[i].slots[s].buffer, plan->block_bytes);
	own->runs = run + 1;
	if (plan->op != BENCH_LOAD && !plan->keep)
		remove_keys(own->ns, own->fresh, plan->count);
	return rc;
}

/* ---- lookups ------------------------------------------------------------------ */

static void work_lookups(struct bench_side *side, struct bench_worker *worker)
{
	struct store_side *own = side->private;
	const struct bench_plan *plan = own->plan;

	for (uint64_t call = 0; call < plan->calls && !worker->error; call++) {
		const struct cairn_key *keys = bench_chain(plan, worker->index, call);
		uint64_t start = figures_now_ns();
		int64_t n = cairn_lookup_prefix(own->ns, keys, plan->count, NULL, NULL, NULL);

		bench_note(worker, start, 0);
		if (n != (int64_t)plan->count)
			worker->error = n < 0 ? (int)n : -ENOENT;
	}
}

/* How many calls make a run long enough to be timed. */
static uint64_t calibrate(const struct store_side *own)
{
	const struct bench_plan *plan = own->plan;
	uint64_t start, calls;

	if (plan->spaced_ns)
		return CALLS_SPACED;
	for (uint64_t i = 0; i < 3; i++)
		cairn_lookup_prefix(own->ns, plan->keys, plan->count, NULL, NULL, NULL);
	start = figures_now_ns();
	for (uint64_t i = 0; i < 5; i++)
		cairn_lookup_prefix(own->ns, bench_chain(plan, 0, i), plan->count, NULL, NULL,
				    NULL);
	calls = LOOKUP_RUN_NS / ((figures_now_ns() - start) / 5 + 1);
	return calls < CALLS_MIN ? CALLS_MIN : calls > CALLS_MAX ? CALLS_MAX : calls;
}

/* ---- opening -------------------------------------------------------------------- */

/* Dumps known blocks @first.. as one task; those of a lookup's call are a chain. */
static int fill_batch(struct store_side *own, struct cairn_xfer *xfers,
		      struct cairn_segment *segments, uint8_t *buffer, uint64_t first,
		      uint64_t count)
{
	const struct bench_plan *plan = own->plan;
	struct cairn_task_opts opts = {.size = sizeof(opts)};
	bool chain = plan->op == BENCH_LOOKUP;
	struct cairn_block_attr *attrs = memory(count, sizeof(*attrs));
	int rc;

	for (uint64_t b = 0; b < count; b++) {
		uint8_t *block = buffer + b * plan->block_bytes;
		uint64_t depth = (first + b) % plan->count;

		attrs[b] =
			(struct cairn_block_attr){.size = sizeof(*attrs), .depth = (uint32_t)depth};
		if (depth)
			attrs[b].parent = plan->keys[first + b - 1];
		bench_stamp(&plan->keys[first + b], block, plan->block_bytes);
		for (uint32_t s = 0; s < plan->shard_count; s++) {
			uint64_t i = b * plan->shard_count + s;

			segments[i] = (struct cairn_segment){block + s * own->shard_bytes,
							     own->shard_bytes};
			xfers[i] = (struct cairn_xfer){.key = plan->keys[first + b],
						       .shard = s,
						       .length = own->shard_bytes,
						       .segments = &segments[i],
						       .attr = chain ? &attrs[b] : NULL,
						       .segment_count = 1};
		}
	}
	rc = cairn_dump(own->ns, xfers, count * plan->shard_count, &opts, NULL);
	free(attrs);
	return rc;
}

/* Dumps what will be read, untimed. */
static int fill(struct store_side *own, uint64_t total)
{
	const struct bench_plan *plan = own->plan;
	uint64_t batch = BATCH_BYTES / plan->block_bytes;
	struct cairn_segment *segments;
	struct cairn_xfer *xfers;
	uint8_t *buffer;
	int rc = 0;

	assert(own->clients && own->clients[0].slots);
	batch = batch > BATCH ? BATCH : batch ? batch : 1;
	xfers = memory(batch * plan->shard_count, sizeof(*xfers));
	segments = memory(batch * plan->shard_count, sizeof(*segments));
	buffer = memory(batch, plan->block_bytes + 8);
	for (uint64_t b = 0; b < batch; b++) {
		uint8_t *slot = own->clients[0].slots[0].buffer;

		memcpy(buffer + b * plan->block_bytes, slot, plan->block_bytes);
	}
	for (uint64_t first = 0, n; first < total && rc == 0; first += n) {
		char text[64];

		n = total - first < batch ? total - first : batch;
		rc = fill_batch(own, xfers, segments, buffer, first, n);
		snprintf(text, sizeof(text), "filling: %llu of %llu blocks",
			 (unsigned long long)first, (unsigned long long)total);
		out_progress(text);
		rc = rc == 0 && out_stop_asked() ? -EINTR : rc;
	}
	out_progress_end();
	free(buffer);
	free(segments);
	free(xfers);
	return rc < 0 && rc != -EINTR ? complain("dump of what will be read", rc) : rc;
}

/* Keys of blocks @first.. in the namespace of folders. */
static uint64_t folder_keys(const struct store_side *own, uint64_t first, struct cairn_key *keys)
{
	uint64_t n = own->folder_blocks - first < BATCH ? own->folder_blocks - first : BATCH;

	for (uint64_t i = 0; i < n; i++)
		derive(own->folders, 0, first + i, &keys[i]);
	return n;
}

/*
 * A store in use has its folders; one that has just been made would make one
 * for nearly every block of the first runs, which the bare side has not to.
 */
static int folders_make(struct store_side *own)
{
	const struct cairn_namespace_desc desc = {.size = sizeof(desc),
						  .model = "cairn bench, folders",
						  .dtype = "u8",
						  .world = 1,
						  .shard_count = 1,
						  .shard_bytes = FOLDER_BYTES};
	struct cairn_key keys[BATCH];
	struct cairn_xfer *xfers = memory(BATCH, sizeof(*xfers));
	uint8_t bytes[FOLDER_BYTES] = {1};
	struct cairn_segment segment = {bytes, sizeof(bytes)};
	int rc = cairn_namespace_open(own->store, &desc, &own->folders, NULL);

	own->folder_blocks = own->plan->count * 16;
	if (own->folder_blocks > FOLDER_BLOCKS)
		own->folder_blocks = FOLDER_BLOCKS;
	for (uint64_t first = 0, n; first < own->folder_blocks && rc == 0; first += n) {
		n = folder_keys(own, first, keys);
		for (uint64_t i = 0; i < n; i++)
			xfers[i] = (struct cairn_xfer){.key = keys[i],
						       .length = FOLDER_BYTES,
						       .segments = &segment,
						       .segment_count = 1};
		rc = cairn_dump(own->folders, xfers, n, NULL, NULL);
		rc = rc == 0 && out_stop_asked() ? -EINTR : rc;
	}
	free(xfers);
	return rc < 0 && rc != -EINTR ? complain("dump of blocks for folders", rc) : rc;
}

static void folders_gone(struct store_side *own)
{
	struct cairn_key keys[BATCH];

	if (!own->folders)
		return;
	for (uint64_t first = 0, n; first < own->folder_blocks; first += n) {
		n = folder_keys(own, first, keys);
		remove_keys(own->folders, keys, n);
	}
	cairn_clear(own->folders, CAIRN_MEMORY);
	cairn_namespace_close(own->folders);
}

/* What is to be read must all be there at once. */
static int fill_check(struct store_side *own, uint64_t total)
{
	uint64_t kept = 0;

	for (uint64_t i = 0; i < total; i++)
		kept += is_present(own, &own->plan->keys[i]);
	if (kept == total)
		return 0;
	out_error(
		"bench",
		"the store keeps %llu of the %llu blocks that are to be read: give it more size=, "
		"or less %s",
		(unsigned long long)kept, (unsigned long long)total,
		own->plan->op == BENCH_LOOKUP ? "--fill" : "--count");
	return -ENOSPC;
}

/* Its memory: registered as an engine does it with its pool, if that is asked for. */
static void client_memory(struct client *client, size_t bytes)
{
	const struct bench_plan *plan = client->own->plan;
	int rc;

	client->memory = bench_memory(plan, bytes);
	rc = plan->small ? 0 : cairn_memory_register(client->own->store, client->memory, bytes);
	if (rc < 0)
		out_die("memory could not be registered: %s", cairn_strerror(rc));
}

static void open_clients(struct store_side *own)
{
	const struct bench_plan *plan = own->plan;
	size_t room = (plan->block_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;

	own->clients = memory(plan->clients, sizeof(*own->clients));
	for (uint64_t i = 0; i < plan->clients; i++) {
		struct client *client = &own->clients[i];

		client->own = own;
		client->slots = memory(plan->depth, sizeof(*client->slots));
		client->free = memory(plan->depth, sizeof(struct slot *));
		if (cairn_queue_open(own->store, &client->queue) < 0)
			out_die("no queue for client %llu", (unsigned long long)i + 1);
		client_memory(client, plan->depth * room);
		for (uint64_t s = 0; s < plan->depth; s++) {
			slot_init(client, &client->slots[s], client->memory + s * room);
			client->free[client->free_count++] = &client->slots[s];
		}
	}
}

static void close_side(struct bench_side *side)
{
	struct store_side *own = side->private;
	const struct bench_plan *plan = own->plan;
	int rc;

	if (plan->keys && plan->op != BENCH_DUMP)
		remove_keys(own->ns, plan->keys,
			    plan->op == BENCH_LOOKUP ? plan->fill : plan->count);
	for (uint32_t run = 0; plan->keep && run < own->runs; run++) {
		prepare_blocks(side, run);
		remove_keys(own->ns, own->fresh, plan->count);
	}
	if (own->ns)
		cairn_clear(own->ns, CAIRN_MEMORY);
	folders_gone(own);
	for (uint64_t i = 0; own->clients && i < plan->clients; i++) {
		for (uint64_t s = 0; s < plan->depth; s++)
			slot_fini(&own->clients[i].slots[s]);
		if (!plan->small)
			cairn_memory_unregister(own->store, own->clients[i].memory, DRAIN_NS);
		free(own->clients[i].memory);
		cairn_queue_close(own->clients[i].queue);
		free(own->clients[i].slots);
		free(own->clients[i].free);
	}
	cairn_namespace_close(own->ns);
	rc = cairn_store_close(own->store, 0);
	if (rc < 0)
		complain("the store could not be closed", rc);
	free(own->clients);
	free(own->fresh);
	free(own);
}

static int open_store(struct store_side *own)
{
	const struct bench_plan *plan = own->plan;
	const struct cairn_namespace_desc desc = {
		.size = sizeof(desc),
		.model = "cairn bench",
		.dtype = "u8",
		.world = 1,
		.shard_count = (uint32_t)plan->shard_count,
		.shard_bytes = own->shard_bytes,
	};
	struct cairn_error error = {0};
	int rc = cairn_store_open(plan->pipeline, &plan->store.opts, &own->store, &error);

	if (rc < 0)
		return option_store_error("bench", rc, &error);
	rc = cairn_namespace_open(own->store, &desc, &own->ns, &error);
	if (rc == 0)
		rc = cairn_clear(own->ns, CAIRN_MEMORY); /* what a bench that died left */
	if (rc == 0)
		return CLI_OK;
	out_error("bench", "%s", *error.text ? error.text : cairn_strerror(rc));
	return CLI_CANNOT;
}

static void shuffle(uint32_t *order, uint64_t count)
{
	uint64_t state = 1;

	for (uint64_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = count; i > 1; i--) {
		uint32_t swap = order[i - 1];
		uint64_t j;

		state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
		j = (state >> 33) % i;
		order[i - 1] = order[j];
		order[j] = swap;
	}
}

int bench_store_open(struct bench_plan *plan, struct bench_side *ret_side)
{
	struct store_side *own = memory(1, sizeof(*own));
	uint64_t known = plan->op == BENCH_LOOKUP ? plan->fill : plan->count;
	int rc;

	own->plan = plan;
	own->shard_bytes = plan->block_bytes / plan->shard_count;
	rc = open_store(own);
	if (rc != CLI_OK && !own->store) {
		free(own);
		return rc;
	}
	*ret_side = (struct bench_side){.plan = plan,
					.what = "cairn",
					.threads = (uint32_t)plan->clients,
					.private = own,
					.prepare = prepare_blocks,
					.finish = finish_blocks,
					.work = work_blocks,
					.close = close_side};
	if (rc != CLI_OK)
		return rc;
	open_clients(own);
	plan->keys = memory(known, sizeof(*plan->keys));
	plan->order = memory(plan->count, sizeof(*plan->order));
	own->fresh = memory(plan->count, sizeof(*own->fresh));
	shuffle(plan->order, plan->count);
	for (uint64_t i = 0; i < known; i++)
		derive(own->ns, 0, i, &plan->keys[i]);
	if (plan->op != BENCH_DUMP && ((rc = fill(own, known)) < 0 || fill_check(own, known) < 0))
		return rc == -EINTR ? CLI_STOPPED : CLI_BAD;
	if (plan->keep && (rc = folders_make(own)) < 0)
		return rc == -EINTR ? CLI_STOPPED : CLI_BAD;
	if (plan->op == BENCH_LOOKUP) {
		plan->calls = calibrate(own);
		ret_side->prepare = NULL;
		ret_side->finish = NULL;
		ret_side->work = work_lookups;
	}
	return CLI_OK;
}
