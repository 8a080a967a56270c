/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in place: shards that lie in a memory tier (the stage `cache`, at the top of the
 * pipeline) are read where they lie, and written there, without a copy.
 *
 * What a pin lends does not change and does not move until cairn_unpin(): not by
 * eviction, not by a remove, a clear or a crash of another process. Pins are this
 * process's: they go with it. Close after the last unpin: what is lent is gone with the
 * store.
 *
 * Threads: every call from any thread, any number at once; a pin or a reservation may be
 * given back by another thread than took it, once. Fork: as store.h says.
 */
#ifndef CAIRN_PIN_H
#define CAIRN_PIN_H

#include <cairn/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cairn_pinned {
	const void *base; /* lent, read only, until cairn_unpin(); 256-aligned, from 4 KiB on
			   * 4096-aligned */
	uint64_t length;  /* of the shard, bytes */
	uint64_t pin;	  /* what gives it back */
};

/*
 * Pins shard @shard of the block @key, if it is in memory; brings nothing up (a load or
 * cairn_prefetch() does). A probe of memory: no queue, no system call. Fills *ret_pinned.
 * With the cache's `verify=hit`, and in a region that was kept the first time, the call sums
 * the bytes up: what does not check is not in memory. Without, they are lent as they are.
 * 0; -ENOENT: not in memory; -EAGAIN: as many pins as the region has room for are in
 * force; -EINVAL; -EOPNOTSUPP: the pipeline does not begin with a memory tier;
 * -EOWNERDEAD.
 */
CAIRN_API int cairn_pin(struct cairn_namespace *ns, const struct cairn_key *key, uint32_t shard,
			struct cairn_pinned *ret_pinned);

/* Gives a pin back. 0; -EINVAL: there is none of that number; -EOWNERDEAD. */
CAIRN_API int cairn_unpin(struct cairn_store *store, uint64_t pin);

struct cairn_reserved {
	void *base;	 /* the caller's to write, until commit or abort */
	uint64_t length; /* bytes */
};

/*
 * Reserves memory for a shard that the caller is about to make. @shape: key, shard,
 * length, and in a variable namespace shard_count and shard_bytes, as of the xfer that
 * dumps it; its memory and result are not looked at. Nobody finds the shard before
 * cairn_commit(). 0; -EAGAIN: no room just now (what is there is pinned or being made),
 * or another one makes the same shard; CAIRN_PRESENT: it is in memory already; -EFBIG: a
 * shard of that size is never kept in memory; -EINVAL; -EOPNOTSUPP as cairn_pin();
 * -EOWNERDEAD.
 */
CAIRN_API int cairn_reserve(struct cairn_namespace *ns, const struct cairn_xfer *shape,
			    struct cairn_reserved *ret_reserved);

/*
 * As cairn_dump(), of xfers each of whose memory is one reservation, whole and in one
 * segment or stride: nothing is copied. Once an item has ended with 0 or CAIRN_PRESENT
 * its reservation is gone; otherwise it stays, to be committed again or aborted.
 * -EINVAL: an xfer's memory is no reservation of this store. Between the call and the
 * result nothing may be written there.
 */
CAIRN_API int cairn_commit(struct cairn_namespace *ns, struct cairn_xfer *xfers, size_t count,
			   const struct cairn_task_opts *opts, uint64_t *ret_task);

/* Gives a reservation back, @base as cairn_reserve() told it. 0; -EINVAL; -EOWNERDEAD. */
CAIRN_API int cairn_abort(struct cairn_store *store, void *base);

#ifdef __cplusplus
}
#endif
#endif
