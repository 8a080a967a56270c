/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client of a replay: requests, one after another.
 *
 * Blocks move through two slots, each with memory for up to SLOT_BYTES: while
 * the task of one is in flight, the other is filled or verified. A request
 * that fits a slot is one task for its load and one for its dump. All dumps of
 * a request have reached their level before the client takes the next one.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "content.h"
#include "figures.h"
#include "out.h"
#include "replay.h"

#define SLOT_BYTES	(64u << 20) /* at least one block, whatever its size */
#define SLOT_XFERS	65536u
#define COMPLAINTS_MAX	5u	 /* lines about failures; all of them are counted */
#define TRY_NS		1000000u /* between two tries to get a task slot */
#define TRIES_MAX	60000u
#define ARRIVAL_POLL_NS 100000000u /* how soon a wait for an arrival sees a stop */

struct slot {
	uint8_t *buffer;
	struct cairn_xfer *xfers;
	struct cairn_segment *segments;
	struct cairn_block_attr *attrs; /* a dump's, one a block */
	uint32_t first, count;		/* blocks of the request, while busy */
	bool busy;
	uint64_t task;
};

struct client {
	struct replay_run *run;
	struct replay_totals totals; /* of this request */
	struct slot slots[2];
	uint32_t slot_blocks;
	struct cairn_key *keys;
	uint32_t key_count;
	uint32_t good;			 /* leading blocks that were loaded and right */
	uint64_t load_start_ns, load_ns; /* from submission to result; 0: nothing was loaded */
};

static void *memory(size_t count, size_t bytes)
{
	void *p = calloc(count ? count : 1, bytes);

	if (!p)
		out_die("no memory for %zu times %zu bytes", count, bytes);
	return p;
}

static void client_init(struct client *client, struct replay_run *run)
{
	uint64_t block = run->shard_bytes * run->shard_count, most = SLOT_BYTES / block;

	memset(client, 0, sizeof(*client));
	client->run = run;
	if (most > SLOT_XFERS / run->shard_count)
		most = SLOT_XFERS / run->shard_count;
	if (most > run->trace->id_count_max)
		most = run->trace->id_count_max;
	client->slot_blocks = most ? (uint32_t)most : 1;
	client->keys = memory(run->trace->id_count_max, sizeof(*client->keys));
	for (int i = 0; i < 2; i++) {
		struct slot *slot = &client->slots[i];
		size_t xfers = (size_t)client->slot_blocks * run->shard_count;
		void *buffer = NULL;

		/* shards start on 8 bytes: see slot_shard() */
		if (posix_memalign(&buffer, 4096, xfers * ((run->shard_bytes + 7) & ~7ull)))
			out_die("no memory for %u blocks in flight", client->slot_blocks);
		slot->buffer = buffer;
		slot->xfers = memory(xfers, sizeof(*slot->xfers));
		slot->segments = memory(xfers, sizeof(*slot->segments));
		slot->attrs = memory(client->slot_blocks, sizeof(*slot->attrs));
	}
}

static void client_fini(struct client *client)
{
	for (int i = 0; i < 2; i++) {
		assert(!client->slots[i].busy);
		free(client->slots[i].buffer);
		free(client->slots[i].xfers);
		free(client->slots[i].segments);
		free(client->slots[i].attrs);
	}
	free(client->keys);
}

static void *slot_shard(const struct client *client, const struct slot *slot, size_t xfer)
{
	return slot->buffer + xfer * ((client->run->shard_bytes + 7) & ~7ull);
}

/* Prints the first few failures; a person needs one example, not a million. */
static bool may_complain(struct client *client)
{
	struct replay_run *run = client->run;
	bool may;

	pthread_mutex_lock(&run->lock);
	may = run->complaints < COMPLAINTS_MAX;
	run->complaints += may;
	pthread_mutex_unlock(&run->lock);
	return may;
}

static void complain_call(struct client *client, const char *what, int64_t code)
{
	client->totals.failed_xfers++;
	if (may_complain(client))
		out_error("replay", "%s: %s", what, cairn_strerror((int)code));
}

static void complain_xfer(struct client *client, const char *what, const struct cairn_xfer *xfer)
{
	char key[CONTENT_KEY_TEXT], stage[40] = "no stage was asked";

	client->totals.failed_xfers++;
	if (!may_complain(client))
		return;
	if (xfer->result.stage != CAIRN_STAGE_NONE)
		snprintf(stage, sizeof(stage), "stage %u of the pipeline", xfer->result.stage + 1u);
	out_error("replay", "%s of block %s, shard %u: %s (%s)", what,
		  content_key_format(&xfer->key, key), xfer->shard,
		  cairn_strerror(xfer->result.status), stage);
}

/* ---- slots ---------------------------------------------------------------- */

/* Describes blocks @first.. of the request in the slot. */
static void slot_fill(struct client *client, struct slot *slot, uint32_t first, uint32_t count,
		      bool dump)
{
	const struct replay_run *run = client->run;

	assert(!slot->busy && count > 0 && count <= client->slot_blocks);
	slot->first = first;
	slot->count = count;
	for (uint32_t b = 0; b < count; b++) {
		struct cairn_block_attr *attr = &slot->attrs[b];

		*attr = (struct cairn_block_attr){.size = sizeof(*attr), .depth = first + b};
		if (first + b)
			attr->parent = client->keys[first + b - 1];
		for (uint32_t s = 0; s < run->shard_count; s++) {
			size_t i = (size_t)b * run->shard_count + s;
			struct cairn_xfer *xfer = &slot->xfers[i];

			memset(xfer, 0, sizeof(*xfer));
			slot->segments[i] = (struct cairn_segment){slot_shard(client, slot, i),
								   run->shard_bytes};
			xfer->key = client->keys[first + b];
			xfer->shard = s;
			xfer->length = run->shard_bytes;
			xfer->segments = &slot->segments[i];
			xfer->segment_count = 1;
			xfer->attr = dump ? attr : NULL;
			if (dump)
				content_fill(&xfer->key, s, slot->segments[i].base,
					     run->shard_bytes);
		}
	}
}

static void slot_submit(struct client *client, struct slot *slot, bool dump)
{
	struct replay_run *run = client->run;
	size_t count = (size_t)slot->count * run->shard_count;
	struct cairn_task_opts opts = {.size = sizeof(opts), .flags = CAIRN_TASK_CHAIN};
	int (*submit)(struct cairn_namespace *, struct cairn_xfer *, size_t,
		      const struct cairn_task_opts *, uint64_t *) = dump ? cairn_dump : cairn_load;
	int rc;

	if (dump)
		opts.durability = run->durability;
	if (!dump && !client->load_start_ns)
		client->load_start_ns = figures_now_ns();
	rc = submit(run->ns, slot->xfers, count, &opts, &slot->task);
	/* other clients have all task slots: each of their tasks ends by its deadline */
	for (uint32_t tries = 0; rc == -EAGAIN && tries < TRIES_MAX; tries++) {
		figures_sleep_until(figures_now_ns() + TRY_NS);
		rc = submit(run->ns, slot->xfers, count, &opts, &slot->task);
	}
	if (rc < 0)
		complain_call(client, dump ? "dump" : "load", rc);
	slot->busy = rc >= 0;
}

/* Looks at the loaded shards of a block: whether all are there and right. */
static bool block_loaded(struct client *client, struct slot *slot, uint32_t block)
{
	const struct replay_run *run = client->run;
	bool damaged = false, vanished = false, good = true;

	for (uint32_t s = 0; s < run->shard_count; s++) {
		size_t i = (size_t)block * run->shard_count + s;
		const struct cairn_xfer *xfer = &slot->xfers[i];
		uint64_t first = 0, wrong = 0;
		char key[CONTENT_KEY_TEXT];

		good = good && xfer->result.status == 0;
		if (xfer->result.status == -EBADMSG)
			damaged = true;
		else if (xfer->result.status == -ENOENT)
			vanished = true;
		else if (xfer->result.status < 0)
			complain_xfer(client, "load", xfer);
		if (xfer->result.status < 0)
			continue;
		client->totals.bytes_loaded += xfer->length;
		if (run->verify)
			wrong = content_verify(&xfer->key, s, slot_shard(client, slot, i),
					       xfer->length, &first);
		if (!wrong)
			continue;
		client->totals.wrong_bytes += wrong;
		good = false;
		if (may_complain(client))
			out_error("replay", "block %s, shard %u: %llu wrong bytes from offset %llu",
				  content_key_format(&xfer->key, key), s, (unsigned long long)wrong,
				  (unsigned long long)first);
	}
	client->totals.damaged += damaged;
	client->totals.vanished += vanished && !damaged;
	return good;
}

static void block_dumped(struct client *client, struct slot *slot, uint32_t block)
{
	const struct replay_run *run = client->run;
	bool refused = false, too_large = false;

	for (uint32_t s = 0; s < run->shard_count; s++) {
		const struct cairn_xfer *xfer = &slot->xfers[(size_t)block * run->shard_count + s];

		if (xfer->result.status == 0)
			client->totals.bytes_dumped += xfer->length;
		else if (xfer->result.status == -ENOSPC)
			refused = true;
		else if (xfer->result.status == -EFBIG)
			refused = too_large = true;
		else if (xfer->result.status != CAIRN_PRESENT)
			complain_xfer(client, "dump", xfer);
	}
	client->totals.refused += refused;
	client->totals.too_large += too_large;
}

static void slot_end(struct client *client, struct slot *slot, bool dump)
{
	int rc;

	if (!slot->busy)
		return;
	rc = cairn_task_wait(client->run->store, slot->task, 0, UINT64_MAX);
	slot->busy = false;
	if (!dump)
		client->load_ns = figures_now_ns() - client->load_start_ns;
	if (rc < 0) {
		complain_call(client, "wait for a task", rc);
		return;
	}
	for (uint32_t b = 0; b < slot->count; b++) {
		if (dump)
			block_dumped(client, slot, b);
		else if (block_loaded(client, slot, b) && client->good == slot->first + b)
			client->good++;
	}
}

/* ---- a request ------------------------------------------------------------ */

/* Moves blocks @first to @end - 1; the slots take turns. */
static void move_blocks(struct client *client, uint32_t first, uint32_t end, bool dump)
{
	uint32_t turn = 0;

	while (first < end) {
		struct slot *slot = &client->slots[turn++ % 2];
		uint32_t count =
			end - first < client->slot_blocks ? end - first : client->slot_blocks;

		slot_end(client, slot, dump);
		slot_fill(client, slot, first, count, dump);
		slot_submit(client, slot, dump);
		first += count;
	}
	slot_end(client, &client->slots[turn % 2], dump);
	slot_end(client, &client->slots[(turn + 1) % 2], dump);
}

static void derive_keys(struct client *client, const struct trace_request *request)
{
	const uint64_t *ids = client->run->trace->ids + request->first_id;

	for (uint32_t i = 0; i < request->id_count; i++) {
		/* the first source's names are the bare ids, whatever follows it */
		uint64_t name[2] = {htole64(ids[i]), htole64(request->source)};
		size_t length = request->source ? sizeof(name) : sizeof(name[0]);

		if (cairn_key_derive(client->run->ns, name, length, &client->keys[i]) < 0)
			out_die("a key could not be derived");
	}
}

static void run_request(struct client *client, const struct trace_request *request)
{
	struct replay_run *run = client->run;
	struct cairn_lookup_opts lookup = {.size = sizeof(lookup), .flags = CAIRN_LOOKUP_HOLD};
	uint64_t hold = 0;
	int64_t found = 0;

	memset(&client->totals, 0, sizeof(client->totals));
	client->good = 0;
	client->load_start_ns = client->load_ns = 0;
	derive_keys(client, request);
	if (request->id_count)
		found = cairn_lookup_prefix(run->ns, client->keys, request->id_count, NULL, &lookup,
					    &hold);
	if (found < 0)
		complain_call(client, "lookup", found);
	if (found > 0)
		move_blocks(client, 0, (uint32_t)found, false);
	cairn_hold_release(run->store, hold); /* that it expired meanwhile is no failure */
	move_blocks(client, client->good, request->id_count, true);
	client->totals.requests = 1;
	client->totals.prompt_tokens = request->input_tokens;
	client->totals.tokens_saved = trace_tokens(request, client->good);
	client->totals.blocks = request->id_count;
	client->totals.blocks_hit = client->good;
}

static void add_totals(struct replay_run *run, const struct client *client)
{
	const struct replay_totals *from = &client->totals;
	struct replay_totals *to = &run->totals;

	to->requests += from->requests;
	to->prompt_tokens += from->prompt_tokens;
	to->tokens_saved += from->tokens_saved;
	to->blocks += from->blocks;
	to->blocks_hit += from->blocks_hit;
	to->bytes_dumped += from->bytes_dumped;
	to->bytes_loaded += from->bytes_loaded;
	to->wrong_bytes += from->wrong_bytes;
	to->damaged += from->damaged;
	to->vanished += from->vanished;
	to->failed_xfers += from->failed_xfers;
	to->refused += from->refused;
	to->too_large += from->too_large;
	if (client->load_ns)
		run->load_ns[run->load_count++] = client->load_ns;
}

/* Waits until the request arrives, where the trace's times are kept; false: stop. */
static bool wait_arrival(const struct replay_run *run, const struct trace_request *request)
{
	double after_ns = run->speed > 0 ? (double)request->timestamp_us * 1000 / run->speed : 0;
	uint64_t when = run->start_ns + (uint64_t)after_ns, now;

	while (run->speed > 0 && !out_stop_asked() && (now = figures_now_ns()) < when)
		figures_sleep_until(when - now > ARRIVAL_POLL_NS ? now + ARRIVAL_POLL_NS : when);
	return !out_stop_asked();
}

static const struct trace_request *take_request(struct replay_run *run)
{
	const struct trace_request *request = NULL;

	pthread_mutex_lock(&run->lock);
	if (run->next < run->trace->count)
		request = &run->trace->requests[run->next++];
	pthread_mutex_unlock(&run->lock);
	return request;
}

void *replay_client(void *context)
{
	struct replay_run *run = context;
	const struct trace_request *request;
	struct client client;

	client_init(&client, run);
	while ((request = take_request(run)) && wait_arrival(run, request)) {
		run_request(&client, request);
		pthread_mutex_lock(&run->lock);
		add_totals(run, &client);
		pthread_mutex_unlock(&run->lock);
	}
	client_fini(&client);
	pthread_mutex_lock(&run->lock);
	run->clients_left--;
	pthread_cond_signal(&run->ended);
	pthread_mutex_unlock(&run->lock);
	return NULL;
}
