/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of the data path: all of them are checked before anything is applied. */
#ifndef API_CHECK_H
#define API_CHECK_H

#include "core/store.h"

/* Copies what the caller gave (NULL: nothing) over zeroes; -EINVAL, -EOPNOTSUPP. */
int check_task_opts(const struct cairn_store *store, const struct cairn_task_opts *opts, bool sync,
		    struct cairn_task_opts *ret_opts);

/* One xfer of a load or a dump; 0, -EINVAL, -EOPNOTSUPP. */
int check_xfer(const struct cairn_ns_view *ns, const struct cairn_xfer *xfer, bool dump);

/* What a reservation says of a shard: as a dump's xfer without its memory. 0 or -EINVAL. */
int check_shape(const struct cairn_ns_view *ns, const struct cairn_xfer *shape);

#endif
