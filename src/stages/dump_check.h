/* SPDX-License-Identifier: Apache-2.0 */
/* What a tier asks of every part of a dump, whatever it has of the block. Pure. */
#ifndef STAGES_DUMP_CHECK_H
#define STAGES_DUMP_CHECK_H

#include <errno.h>

#include <cairn/stage.h>

/* 0, or -EINVAL: a geometry or a length that cannot be. */
static inline int dump_part_check(const struct cairn_io *io, const struct cairn_part *part)
{
	uint32_t last = io->shard_count - 1;

	if (io->shard_count == 0 || io->shard_count > CAIRN_SHARD_COUNT_MAX)
		return -EINVAL;
	if (io->shard_bytes == 0 || io->shard_bytes > CAIRN_SHARD_BYTES_MAX)
		return -EINVAL;
	if (io->ns->shard_count > 0 &&
	    (io->shard_count != io->ns->shard_count || io->shard_bytes != io->ns->shard_bytes))
		return -EINVAL;
	if (part->shard > last || part->raw_length == 0 || part->raw_length > io->shard_bytes)
		return -EINVAL;
	/* Only the last shard of a variable geometry may be short. */
	if (part->raw_length < io->shard_bytes && (part->shard < last || io->ns->shard_count > 0))
		return -EINVAL;
	if (part->offset != 0 || part->length != part->stored_length || part->length == 0 ||
	    part->stored_length > part->raw_length || part->meta_length > CAIRN_META_MAX)
		return -EINVAL;
	return 0;
}

#endif
