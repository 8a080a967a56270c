/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A region as somebody sees it who is no client: how full it is, by class, and who is there.
 * It is read, not mapped, for whoever has made it may cut it short; each figure that is read is
 * held against the plan of a region of the header's size before it counts for anything.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "stages/cache/cache.h"
#include "stages/error.h"

#define CHUNKS_READ 64u	 /* headers of chunks at once */
#define PINS_READ   512u /* records likewise: a page */

struct class_seen {
	uint32_t chunks, slots, used;
};

struct look {
	const struct cairn_stage_env *env;
	const struct sys *sys;
	int fd;
	struct cache_header header; /* sound, as far as it does not change */
	struct class_seen *classes; /* by units; 0: chunks without a class */
	uint32_t units_max;
	uint64_t used_bytes;
	uint32_t clients;
	uint64_t pins;

	int (*fn)(void *context, const struct cairn_detail *detail);
	void *context;
	int stopped;
};

static int damaged(const struct look *look, struct cairn_error *reterr)
{
	return stage_error(reterr, -EPROTO, "%s: the region is of another version, or damaged",
			   look->env->name);
}

static int read_header(struct look *look, struct cairn_error *reterr)
{
	struct cache_header *header = &look->header, plan;
	struct stat st;

	if (look->sys->fstat(look->fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    sys_pread_full(look->sys, look->fd, header, sizeof(*header), 0) < 0)
		return damaged(look, reterr);
	if (header->magic != CACHE_MAGIC || header->version != CACHE_VERSION ||
	    header->crc != layout_crc(header) || header->ready != 1 ||
	    header->pins_max > CACHE_PINS_MAX)
		return damaged(look, reterr);
	/* What its numbers lead to is what it says, or nothing of it is believed. */
	plan = *header;
	if (!layout_plan(&plan) || memcmp(&plan, header, offsetof(struct cache_header, crc)) != 0 ||
	    (uint64_t)st.st_size != plan.file_bytes)
		return damaged(look, reterr);
	look->units_max = header->chunk_bytes / CACHE_UNIT;
	return 0;
}

static void see_chunk(struct look *look, const struct cache_chunk *chunk)
{
	enum chunk_phase phase = chunk_phase(chunk->state);
	struct class_seen *seen;
	uint32_t used;

	if (phase == CHUNK_FREE)
		look->classes[0].chunks++;
	/* `units` and `slots` are being set while it changes. */
	if ((phase != CHUNK_SLOTS && phase != CHUNK_EMPTYING) || chunk->units == 0 ||
	    chunk->units > look->units_max || chunk->slots > look->units_max / chunk->units)
		return;
	used = chunk->free_slots <= chunk->slots ? chunk->slots - chunk->free_slots : 0;
	seen = &look->classes[chunk->units];
	seen->chunks++;
	seen->slots += chunk->slots;
	seen->used += used;
	look->used_bytes += (uint64_t)used * chunk->units * CACHE_UNIT;
}

static int read_chunks(struct look *look)
{
	struct cache_chunk *chunks =
		sys_zalloc(look->sys, 64, CHUNKS_READ * sizeof(struct cache_chunk));
	int ret = chunks ? 0 : -ENOMEM;

	for (uint32_t at = 0; ret == 0 && at < look->header.chunks; at += CHUNKS_READ) {
		uint32_t left = look->header.chunks - at;
		uint32_t count = left < CHUNKS_READ ? left : CHUNKS_READ;

		ret = sys_pread_full(look->sys, look->fd, chunks, count * sizeof(*chunks),
				     (off_t)(look->header.chunks_at + at * sizeof(*chunks)));
		for (uint32_t i = 0; ret == 0 && i < count; i++)
			see_chunk(look, &chunks[i]);
	}
	look->sys->free(chunks);
	return ret;
}

static int read_pins(struct look *look, uint32_t client, uint32_t used)
{
	uint64_t records[PINS_READ];
	uint64_t at = look->header.pins_at +
		      (uint64_t)client * look->header.pins_max * sizeof(records[0]);
	int ret = 0;

	for (uint32_t first = 0; ret == 0 && first < used; first += PINS_READ) {
		uint32_t count = used - first < PINS_READ ? used - first : PINS_READ;

		ret = sys_pread_full(look->sys, look->fd, records, count * sizeof(records[0]),
				     (off_t)(at + first * sizeof(records[0])));
		for (uint32_t i = 0; ret == 0 && i < count; i++)
			look->pins += records[i] != 0;
	}
	return ret;
}

static int read_clients(struct look *look)
{
	struct cache_client clients[CACHE_CLIENTS_MAX];
	int ret = sys_pread_full(look->sys, look->fd, clients, sizeof(clients),
				 (off_t)look->header.clients_at);

	for (uint32_t i = 0; ret == 0 && i < CACHE_CLIENTS_MAX; i++) {
		uint32_t used = clients[i].pins_used;

		/* One that was killed, and that nobody has cleaned up after, has no lock. */
		if (clients[i].state != CLIENT_LIVE ||
		    look->sys->bytes_locked(look->fd, CACHE_LOCK_CLIENT + i, 1) == 0)
			continue;
		look->clients++;
		ret = read_pins(look, i,
				used < look->header.pins_max ? used : look->header.pins_max);
	}
	return ret;
}

static void tell(struct look *look, const char *item, uint64_t number, const char *name,
		 uint64_t value)
{
	struct cairn_detail detail = {
		.stage = look->env->name,
		.item = item,
		.number = number,
		.name = name,
		.value = value,
	};

	if (!look->stopped)
		look->stopped = look->fn(look->context, &detail);
}

static void tell_all(struct look *look)
{
	const struct cache_header *header = &look->header;

	tell(look, "memory", 0, "bytes", header->size);
	tell(look, "memory", 0, "used_bytes", look->used_bytes);
	tell(look, "memory", 0, "blocks", header->blocks);
	tell(look, "memory", 0, "dirty_bytes", header->dirty);
	tell(look, "memory", 0, "entries", header->entries);
	tell(look, "memory", 0, "clients", look->clients);
	tell(look, "memory", 0, "pins", look->pins);
	tell(look, "memory", 0, "chunk_bytes", header->chunk_bytes);
	tell(look, "memory", 0, "chunks", header->chunks);
	tell(look, "memory", 0, "chunks_backed", header->backed);
	tell(look, "memory", 0, "chunks_missing", header->unbacked);
	tell(look, "memory", 0, "chunks_free", look->classes[0].chunks);
	tell(look, "memory", 0, "uses", header->clock);
	tell(look, "memory", 0, "repairs", header->repairs);
	for (uint32_t units = 1; units <= look->units_max; units++) {
		const struct class_seen *seen = &look->classes[units];
		uint64_t bytes = (uint64_t)units * CACHE_UNIT;

		if (seen->chunks == 0)
			continue;
		tell(look, "class", bytes, "chunks", seen->chunks);
		tell(look, "class", bytes, "slots", seen->slots);
		tell(look, "class", bytes, "slots_used", seen->used);
		tell(look, "class", bytes, "used_bytes", seen->used * bytes);
	}
}

static int look_at(struct look *look, struct cairn_error *reterr)
{
	int ret = read_header(look, reterr);

	if (ret < 0)
		return ret;
	look->classes =
		sys_zalloc(look->sys, 64, (look->units_max + 1ull) * sizeof(struct class_seen));
	ret = look->classes ? read_clients(look) : -ENOMEM;
	if (ret == 0)
		ret = read_chunks(look);
	if (ret == 0)
		tell_all(look);
	look->sys->free(look->classes);
	return ret < 0 ? stage_error(reterr, ret, "%s: the region cannot be read: %s",
				     look->env->name, strerror(-ret))
		       : look->stopped;
}

int cache_inspect(const struct cairn_stage_env *env, uint64_t region,
		  int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		  struct cairn_error *reterr)
{
	struct look look = {
		.env = env, .sys = stage_env(env)->sys, .fd = -1, .fn = fn, .context = context};
	char buffer[CACHE_NAME_BYTES], path[REGION_NAME_MAX + 40];
	uint8_t below[16];
	const char *name;
	int ret;

	if (region != CAIRN_INSPECT_MEMORY)
		return stage_error(reterr, -EOPNOTSUPP, "%s: has no regions", env->name);
	name = cache_region_name(env, stage_env(env)->uuid_below(env, below), below, buffer);
	if (!name)
		return stage_error(reterr, -ENOENT, "%s: its region has no name to find it by",
				   env->name);
	region_file_name(name, path);
	look.fd = look.sys->shm_open(path, O_RDONLY | O_NONBLOCK, 0);
	if (look.fd < 0)
		return stage_error(reterr, look.fd, "%s: /dev/shm%s cannot be opened: %s",
				   env->name, path, strerror(-look.fd));
	ret = look_at(&look, reterr);
	look.sys->close(look.fd);
	return ret;
}
