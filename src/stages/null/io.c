/* SPDX-License-Identifier: Apache-2.0 */
/* The ios of the null stage. Copies run without the lock, on pinned blocks. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "stages/dump_check.h"
#include "stages/null/null.h"

static struct null_space *space_of(const struct null_stage *stage, const struct cairn_io *io)
{
	struct null_space *space = (struct null_space *)io->ns->binding[stage->env->index];

	assert(space && space->id > 0);
	return space;
}

static uint32_t pieces_of(uint64_t stored_length)
{
	return (uint32_t)((stored_length + CAIRN_PIECE - 1) / CAIRN_PIECE);
}

static uint64_t iov_length(const struct cairn_part *part)
{
	uint64_t length = 0;
	uint32_t i;

	for (i = 0; i < part->iov_count; i++)
		length += part->iov[i].iov_len;
	return length;
}

/* ---- dump ------------------------------------------------------------------- */

/* The length of the last shard counts as soon as both sides know it. */
static bool same_geometry(const struct cairn_io *io, const struct cairn_part *part,
			  const struct null_block *block)
{
	const struct null_shard *there;

	if (block->shard_count != io->shard_count || block->shard_bytes != io->shard_bytes)
		return false;
	if (part->shard != block->shard_count - 1)
		return true;
	there = &block->shards[part->shard];
	return !there->payload || there->raw_length == part->raw_length;
}

/* Copies the payload of a dump into memory of its own, with its CRCs. No lock is held. */
static int shard_copy(const struct null_stage *stage, const struct cairn_part *part,
		      struct null_shard *ret_shard)
{
	uint32_t pieces = pieces_of(part->stored_length), i;
	size_t crc_offset = (size_t)(part->stored_length + 3) & ~(size_t)3;
	struct iovec whole;
	uint8_t *at;

	assert(iov_length(part) == part->length);
	ret_shard->payload = (uint8_t *)stage->sys->alloc(_Alignof(max_align_t),
							  crc_offset + pieces * sizeof(uint32_t));
	if (!ret_shard->payload)
		return -ENOSPC;
	ret_shard->crc = (uint32_t *)(void *)(ret_shard->payload + crc_offset);
	for (i = 0, at = ret_shard->payload; i < part->iov_count; i++) {
		memcpy(at, part->iov[i].iov_base, part->iov[i].iov_len);
		at += part->iov[i].iov_len;
	}
	whole = (struct iovec){ret_shard->payload, (size_t)part->stored_length};
	if (part->crc && part->crc_count >= pieces)
		memcpy(ret_shard->crc, part->crc, pieces * sizeof(uint32_t));
	else
		crc32c_pieces(&whole, 1, 0, part->stored_length, CAIRN_PIECE, ret_shard->crc);
	ret_shard->raw_length = part->raw_length;
	ret_shard->stored_length = part->stored_length;
	ret_shard->meta_length = part->meta_length;
	memcpy(ret_shard->meta, part->meta, part->meta_length);
	return 0;
}

/*
 * Lock held: what the dump of a part may do. 0: *ret_block is pinned and the
 * part's memory is charged. Else the part's status.
 */
static int dump_prepare(struct null_stage *stage, const struct cairn_io *io,
			const struct cairn_part *part, struct null_block **ret_block)
{
	uint64_t charge = null_shard_charge(part->stored_length);
	struct null_space *space = space_of(stage, io);
	struct null_block *block = null_find(stage, space, &io->key);
	int ret;

	if (block && !same_geometry(io, part, block))
		return -EINVAL;
	if (block && block->whole) {
		null_set_parent(stage, block, &io->attr.parent);
		return CAIRN_PRESENT;
	}
	if (block && block->shards[part->shard].payload)
		return CAIRN_PRESENT;
	if (charge + (block ? block->charge : null_block_charge(io->shard_count)) >
	    stage->bytes_max)
		return -EFBIG;
	if (!block) {
		ret = null_make(stage, space, io, &block);
		if (ret < 0)
			return ret;
	}
	null_partial_touch(stage, block, io->sequence);
	null_tell(stage, block, &io->attr);
	null_pin(stage, block);
	ret = null_reserve(stage, charge);
	if (ret == 0) {
		*ret_block = block;
		return 0;
	}
	/* A block that nothing came into is not left behind. */
	if (block->shards_in == 0 && block->refs == 2)
		null_take_out(stage, block);
	null_unpin(stage, block);
	return ret;
}

/* Lock held: puts the copied shard in its place. Gives the part's status. */
static int dump_commit(struct null_stage *stage, const struct cairn_io *io,
		       const struct cairn_part *part, struct null_block *block,
		       struct null_shard *shard)
{
	uint64_t charge = null_shard_charge(part->stored_length);

	if (!null_is_current(block) || block->whole || block->shards[part->shard].payload) {
		null_payload_free(stage, shard);
		null_unreserve(stage, charge);
		/* Removed or cleared while it was copied; or another dump was first. */
		return null_is_current(block) ? CAIRN_PRESENT : -ESTALE;
	}
	block->shards[part->shard] = *shard;
	block->charge += charge;
	if (++block->shards_in == block->shard_count)
		null_publish(stage, block, io->sequence);
	cairn_count(stage->env, NULL_DUMPED_SHARDS, 1);
	return 0;
}

static int dump_part(struct null_stage *stage, const struct cairn_io *io,
		     const struct cairn_part *part)
{
	struct null_block *block = NULL;
	struct null_shard shard = {0};
	int ret;

	/* What is lost at close survives nothing: nobody else may keep it, or one below may. */
	if (io->durability > CAIRN_MEMORY && stage->env->below == 0)
		return -EOPNOTSUPP;
	ret = dump_part_check(io, part);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&stage->lock);
	null_reclaim_some(stage);
	ret = dump_prepare(stage, io, part, &block);
	pthread_mutex_unlock(&stage->lock);
	if (ret == CAIRN_PRESENT)
		cairn_count(stage->env, NULL_ALREADY_PRESENT, 1);
	else if (ret < 0)
		cairn_count(stage->env, NULL_REFUSED, 1);
	if (ret == CAIRN_PRESENT && io->durability > CAIRN_MEMORY)
		return -EOPNOTSUPP;
	if (ret != 0)
		return ret;

	ret = shard_copy(stage, part, &shard);
	pthread_mutex_lock(&stage->lock);
	if (ret == 0)
		ret = dump_commit(stage, io, part, block, &shard);
	else
		null_unreserve(stage, null_shard_charge(part->stored_length));
	null_unpin(stage, block);
	pthread_mutex_unlock(&stage->lock);
	/* It is kept, but not as asked: what the tier below says is what counts. */
	if (ret == 0 && io->durability > CAIRN_MEMORY)
		ret = -EOPNOTSUPP;
	return ret;
}

/* ---- load and describe --------------------------------------------------------- */

/* An unfinished block may serve the io: it is the one that the host means. */
static bool partial_fits(const struct null_block *block, const struct cairn_io *io)
{
	return (io->flags & CAIRN_IO_PARTIAL) && block->shard_count == io->shard_count &&
	       block->shard_bytes == io->shard_bytes;
}

/* Which parts of the io an unfinished block has: a bit each. */
static uint64_t parts_in(const struct null_block *block, const struct cairn_io *io)
{
	uint64_t in = 0;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		const struct cairn_part *part = &io->parts[i];

		if (part->shard >= block->shard_count ||
		    (block->shards[part->shard].payload &&
		     block->shards[part->shard].raw_length == part->raw_length))
			in |= (uint64_t)1 << i;
	}
	return in;
}

/*
 * Lock taken inside: the block that serves the io, pinned and touched, or NULL;
 * and which parts of the io it can: the shards of others may come in meanwhile.
 */
static struct null_block *block_take(struct null_stage *stage, const struct cairn_io *io,
				     uint64_t *ret_in)
{
	struct null_block *block;

	pthread_mutex_lock(&stage->lock);
	block = null_find(stage, space_of(stage, io), &io->key);
	if (block && !block->whole && !partial_fits(block, io))
		block = NULL;
	*ret_in = UINT64_MAX;
	if (block && block->whole) {
		index_touch(stage->index, index_at(stage->index, block->entry), io->sequence);
		if (io->flags & CAIRN_IO_CHAIN)
			null_set_parent(stage, block, &io->attr.parent);
	} else if (block) {
		*ret_in = parts_in(block, io);
		null_partial_touch(stage, block, io->sequence);
	}
	if (block)
		null_pin(stage, block);
	pthread_mutex_unlock(&stage->lock);
	return block;
}

static void describe_part(const struct null_shard *shard, struct cairn_part *part)
{
	uint32_t pieces = pieces_of(shard->stored_length);

	part->raw_length = shard->raw_length;
	part->stored_length = shard->stored_length;
	part->meta_length = shard->meta_length;
	memcpy(part->meta, shard->meta, shard->meta_length);
	if (part->crc)
		memcpy(part->crc, shard->crc,
		       (pieces < part->crc_count ? pieces : part->crc_count) * sizeof(uint32_t));
}

/* Checks every piece that [offset, offset + length) touches. */
static bool pieces_check(const struct null_shard *shard, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / CAIRN_PIECE, last = (offset + length - 1) / CAIRN_PIECE, i;
	uint64_t start, bytes;

	assert(length > 0 && offset + length <= shard->stored_length);
	for (i = first; i <= last; i++) {
		start = i * CAIRN_PIECE;
		bytes = shard->stored_length - start;
		if (bytes > CAIRN_PIECE)
			bytes = CAIRN_PIECE;
		if (crc32c(0, shard->payload + start, (size_t)bytes) != shard->crc[i])
			return false;
	}
	return true;
}

static int load_part(const struct null_block *block, struct cairn_part *part)
{
	const struct null_shard *shard;
	const uint8_t *from;
	uint32_t i;

	if (part->shard >= block->shard_count)
		return -EINVAL;
	shard = &block->shards[part->shard];
	assert(shard->payload);
	if (part->length == 0 || part->offset >= shard->stored_length ||
	    part->length > shard->stored_length - part->offset)
		return -EINVAL;
	if (!pieces_check(shard, part->offset, part->length))
		return -EBADMSG;
	assert(iov_length(part) == part->length);
	from = shard->payload + part->offset;
	for (i = 0; i < part->iov_count; i++) {
		memcpy(part->iov[i].iov_base, from, part->iov[i].iov_len);
		from += part->iov[i].iov_len;
	}
	describe_part(shard, part);
	return 0;
}

static void run_load(struct null_stage *stage, struct cairn_io *io)
{
	uint64_t in;
	struct null_block *block = block_take(stage, io, &in);
	bool damaged = false;
	struct cairn_part *part;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		part = &io->parts[i];
		if (part->status != CAIRN_PENDING)
			continue;
		if (!block || !(in >> i & 1)) {
			part->status = -ENOENT;
		} else if (io->op == CAIRN_OP_LOAD) {
			part->status = load_part(block, part);
		} else if (part->shard >= block->shard_count) {
			part->status = -EINVAL;
		} else {
			describe_part(&block->shards[part->shard], part);
			part->status = 0;
		}
		damaged |= part->status == -EBADMSG;
		if (io->op == CAIRN_OP_LOAD)
			cairn_count(stage->env,
				    part->status == 0 ? NULL_LOAD_HITS : NULL_LOAD_MISSES, 1);
	}
	if (!block)
		return;
	pthread_mutex_lock(&stage->lock);
	if (damaged && block->entry != INDEX_NONE) {
		/* A miss from here on; the next dump replaces it. */
		null_take_out(stage, block);
		cairn_count(stage->env, NULL_DAMAGED, 1);
	}
	null_unpin(stage, block);
	pthread_mutex_unlock(&stage->lock);
}

/* ---- remove and prefetch --------------------------------------------------------- */

static int run_remove(struct null_stage *stage, const struct cairn_io *io)
{
	struct null_block *block;
	int ret = -ENOENT;

	pthread_mutex_lock(&stage->lock);
	null_reclaim_some(stage);
	block = null_find(stage, space_of(stage, io), &io->key);
	if (block) {
		/* A partial block goes too, but nothing was there that a lookup saw. */
		ret = block->whole ? 0 : -ENOENT;
		null_take_out(stage, block);
		cairn_count(stage->env, NULL_REMOVED, 1);
	}
	pthread_mutex_unlock(&stage->lock);
	return ret;
}

static int run_prefetch(struct null_stage *stage, const struct cairn_io *io)
{
	uint64_t in;
	struct null_block *block = block_take(stage, io, &in);

	if (!block)
		return -ENOENT;
	pthread_mutex_lock(&stage->lock);
	null_unpin(stage, block);
	pthread_mutex_unlock(&stage->lock);
	return 0;
}

void null_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct null_stage *stage = (struct null_stage *)self;
	uint32_t i;

	(void)scratch;
	assert(stage->magic == NULL_MAGIC);
	assert(io->op >= CAIRN_OP_LOAD && io->op <= CAIRN_OP_DESCRIBE);
	switch ((enum cairn_op)io->op) {
	case CAIRN_OP_LOAD:
	case CAIRN_OP_DESCRIBE:
		run_load(stage, io);
		break;
	case CAIRN_OP_DUMP:
		for (i = 0; i < io->part_count; i++)
			if (io->parts[i].status == CAIRN_PENDING)
				io->parts[i].status = dump_part(stage, io, &io->parts[i]);
		break;
	case CAIRN_OP_REMOVE:
		io->status = run_remove(stage, io);
		break;
	case CAIRN_OP_PREFETCH:
		io->status = run_prefetch(stage, io);
		break;
	}
	stage->host->complete(io);
}
