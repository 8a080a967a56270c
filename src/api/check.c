/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "api/check.h"
#include "base/hot.h"
#include "base/sized.h"

#define WRITE_FLAGS (CAIRN_TASK_WRITE_THROUGH | CAIRN_TASK_WRITE_BACK | CAIRN_TASK_WRITE_AROUND)

HIT_PATH int check_task_opts(const struct cairn_store *store, const struct cairn_task_opts *opts,
			     bool sync, struct cairn_task_opts *ret_opts)
{
	memset(ret_opts, 0, sizeof(*ret_opts));
	if (!opts)
		return 0;
	if (!sized(opts, opts->size, sizeof(*opts)))
		return -EINVAL;
	*ret_opts = *opts;
	if ((opts->flags & ~(CAIRN_TASK_CHAIN | CAIRN_TASK_DETACH | WRITE_FLAGS)) ||
	    __builtin_popcount(opts->flags & WRITE_FLAGS) > 1 ||
	    opts->task_class > CAIRN_CLASS_DUMP || opts->durability > CAIRN_DURABLE ||
	    opts->prerequisite != 0 || !all_zero(opts->reserved, sizeof(opts->reserved)))
		return -EINVAL;
	if (opts->prerequisite_kind != 0)
		return -EOPNOTSUPP;
	if ((opts->queue && opts->done) || (sync && (opts->queue || opts->done)))
		return -EINVAL;
	if (opts->durability != CAIRN_MEMORY && !store->persists)
		return -EOPNOTSUPP;
	return 0;
}

static bool add(uint64_t *sum, uint64_t more)
{
	return !__builtin_add_overflow(*sum, more, sum);
}

static bool check_segments(const struct cairn_xfer *xfer)
{
	uint64_t sum = 0;

	if (!xfer->segments || !all_zero(&xfer->stride, sizeof(xfer->stride)))
		return false;
	for (uint32_t i = 0; i < xfer->segment_count; i++) {
		const struct cairn_segment *segment = &xfer->segments[i];

		if (!segment->base || segment->length == 0 || !add(&sum, segment->length))
			return false;
	}
	return sum == xfer->length;
}

static bool check_stride(const struct cairn_xfer *xfer)
{
	const struct cairn_stride *stride = &xfer->stride;
	uint64_t sum, span;

	if (xfer->segments || !stride->base || stride->run == 0 || stride->count == 0)
		return false;
	if (stride->count > 1 && stride->stride < stride->run)
		return false;
	return !__builtin_mul_overflow(stride->run, stride->count, &sum) && sum == xfer->length &&
	       !__builtin_mul_overflow(stride->stride, stride->count - 1, &span);
}

static bool check_attr(const struct cairn_block_attr *attr)
{
	return !attr || (sized(attr, attr->size, sizeof(*attr)) && attr->priority <= 100);
}

static bool check_dump(const struct cairn_ns_view *ns, const struct cairn_xfer *xfer)
{
	bool variable = ns->shard_count == 0;
	uint64_t count = variable ? xfer->shard_count : ns->shard_count;
	uint64_t bytes = variable ? xfer->shard_bytes : ns->shard_bytes;

	if (variable && (count == 0 || count > CAIRN_SHARD_COUNT_MAX || bytes == 0 ||
			 bytes > CAIRN_SHARD_BYTES_MAX))
		return false;
	if (!variable && ((xfer->shard_count != 0 && xfer->shard_count != count) ||
			  (xfer->shard_bytes != 0 && xfer->shard_bytes != bytes)))
		return false;
	if (xfer->offset != 0 || xfer->shard >= count || !check_attr(xfer->attr))
		return false;
	if (variable && xfer->shard == count - 1)
		return xfer->length <= bytes;
	return xfer->length == bytes;
}

static bool check_load(const struct cairn_ns_view *ns, const struct cairn_xfer *xfer)
{
	uint64_t count = ns->shard_count ? ns->shard_count : CAIRN_SHARD_COUNT_MAX;
	uint64_t bytes = ns->shard_count ? ns->shard_bytes : CAIRN_SHARD_BYTES_MAX;

	return !xfer->attr && xfer->shard_count == 0 && xfer->shard_bytes == 0 &&
	       xfer->shard < count && xfer->offset < bytes && xfer->length <= bytes - xfer->offset;
}

HIT_PATH int check_xfer(const struct cairn_ns_view *ns, const struct cairn_xfer *xfer, bool dump)
{
	if (xfer->memory != CAIRN_MEMORY_HOST)
		return -EOPNOTSUPP;
	if (!all_zero(xfer->reserved, sizeof(xfer->reserved)) || xfer->length == 0)
		return -EINVAL;
	if (!(dump ? check_dump(ns, xfer) : check_load(ns, xfer)))
		return -EINVAL;
	return (xfer->segment_count > 0 ? check_segments(xfer) : check_stride(xfer)) ? 0 : -EINVAL;
}

HIT_PATH int check_shape(const struct cairn_ns_view *ns, const struct cairn_xfer *shape)
{
	if (!all_zero(shape->reserved, sizeof(shape->reserved)) || shape->length == 0)
		return -EINVAL;
	return check_dump(ns, shape) ? 0 : -EINVAL;
}
