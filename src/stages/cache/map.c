/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"
#include "stages/cache/map.h"

static uint64_t round_up(uint64_t bytes, uint64_t to)
{
	return (bytes + to - 1) / to * to;
}

/* Two buckets of a key, seven ways each: half full at most, so that both being full is rare. */
static uint32_t bucket_count(uint32_t entries)
{
	uint32_t buckets = 2;

	while ((uint64_t)buckets * CACHE_BUCKET_WAYS < (uint64_t)entries * 2 && buckets < 1u << 31)
		buckets *= 2;
	return buckets;
}

static uint64_t chunk_size(uint64_t bytes)
{
	uint64_t size = CACHE_CHUNK_MAX;

	while (size > CACHE_CHUNK_MIN && bytes / size < CACHE_CHUNKS_WANT)
		size /= 2;
	return size;
}

/* Lays @bytes down at *@at; returns where. */
static uint64_t lay(uint64_t *at, uint64_t bytes)
{
	uint64_t begin = *at;

	*at = round_up(begin + bytes, CACHE_PAGE);
	return begin;
}

uint32_t layout_crc(const struct cache_header *header)
{
	return crc32c(0, header, offsetof(struct cache_header, crc));
}

bool layout_plan(struct cache_header *header)
{
	uint64_t at = 0, fixed, chunks, chunk_bytes, pins;

	header->header_bytes = sizeof(*header);
	header->buckets = bucket_count(header->entries);
	lay(&at, CACHE_PAGE);
	header->clients_at = lay(&at, CACHE_CLIENTS_MAX * sizeof(struct cache_client));
	header->spaces_at = lay(&at, CACHE_SPACES_MAX * sizeof(struct cache_space));
	header->buckets_at = lay(&at, header->buckets * sizeof(struct cache_bucket));
	header->entries_at = lay(&at, header->entries * sizeof(struct cache_entry));
	header->metas_at = lay(&at, header->entries * sizeof(struct cache_meta));
	pins = round_up((uint64_t)CACHE_CLIENTS_MAX * header->pins_max * sizeof(uint64_t),
			CACHE_PAGE);
	fixed = at + pins;
	if (header->size <= fixed)
		return false;
	chunk_bytes = chunk_size(header->size - fixed);
	header->chunk_bytes = (uint32_t)chunk_bytes;
	chunks = (header->size - fixed) / (chunk_bytes + sizeof(struct cache_chunk));
	while (chunks > 0 && fixed + round_up(chunks * sizeof(struct cache_chunk), CACHE_PAGE) +
					     chunks * chunk_bytes >
				     header->size)
		chunks--;
	if (chunks == 0 || chunks > CACHE_CHUNKS_MAX)
		return false;
	header->chunks = (uint32_t)chunks;
	header->chunks_at = lay(&at, chunks * sizeof(struct cache_chunk));
	/* What follows has memory only as far as it is used. */
	header->pins_at = lay(&at, pins);
	header->descs_at = lay(&at, (uint64_t)CACHE_SPACES_MAX * CACHE_DESC_MAX);
	header->words_at = lay(&at, chunks * CACHE_WORDS_FAR * sizeof(uint64_t));
	at = round_up(at, CACHE_CHUNK_MAX);
	header->payload_at = lay(&at, chunks * chunk_bytes);
	header->file_bytes = at;
	return true;
}

void map_init(struct cache_map *map, void *base, const void *lent)
{
	uint8_t *at = base;
	struct cache_header *header = base;

	map->header = header;
	map->clients = (struct cache_client *)(void *)(at + header->clients_at);
	map->spaces = (struct cache_space *)(void *)(at + header->spaces_at);
	map->descs = at + header->descs_at;
	map->buckets = (struct cache_bucket *)(void *)(at + header->buckets_at);
	map->entries = (struct cache_entry *)(void *)(at + header->entries_at);
	map->metas = (struct cache_meta *)(void *)(at + header->metas_at);
	map->chunks = (struct cache_chunk *)(void *)(at + header->chunks_at);
	map->pins = (uint64_t *)(void *)(at + header->pins_at);
	map->words = (uint64_t *)(void *)(at + header->words_at);
	map->payload = at + header->payload_at;
	map->lent = (const uint8_t *)lent + header->payload_at;
	map->entry_count = header->entries;
	map->bucket_mask = header->buckets - 1;
	map->chunk_count = header->chunks;
	map->chunk_bytes = header->chunk_bytes;
	map->pins_max = header->pins_max;
	map->seed = header->seed;
}
