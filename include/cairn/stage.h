/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages: the layers of a pipeline. docs/stage.md shows how to write one.
 *
 * A stage is one const table, exported from its .so as the symbol
 * `cairn_stage`. The host allocates each instance and, inside each io, the
 * stage's scratch. An io goes down by submit() and forward(), and comes up by
 * complete() and done(), exactly once per submit().
 *
 * Threads: submit(), done() and resume() of one io run on the one reactor that
 * owns the io; different ios of one instance run on different threads at once.
 * lookup(), unhold(), bind(), clear(), shards() and stat() run on any thread, at
 * once with everything. open() and close() run alone.
 *
 * A load, dump or remove that reaches a tier without a done() goes on to the tier
 * below by itself: loads with the parts that missed, the others whole. A tier
 * with a done() forwards what it wants to.
 *
 * An io must not be completed while a resume() that was asked for is to come.
 *
 * A stage never blocks in submit(), done() or resume(), never logs, and never
 * allocates per io.
 */
#ifndef CAIRN_STAGE_H
#define CAIRN_STAGE_H

#include <sys/uio.h>

#include <cairn/pin.h>
#include <cairn/store.h>
#include <cairn/task.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAIRN_STAGE_ABI_MAJOR 1 /* changes when an old stage could misbehave */
#define CAIRN_STAGE_ABI_MINOR 6 /* changes when a new stage needs a new host */

#define CAIRN_STAGES_MAX 8	/* in one pipeline */
#define CAIRN_PARTS_MAX	 64	/* in one io */
#define CAIRN_META_MAX	 64	/* bytes of stage metadata a shard */
#define CAIRN_PIECE	 65536u /* bytes of stored payload that one CRC32C covers */

struct cairn_io;
struct cairn_stage_env;

/* ---- options ----------------------------------------------------------- */

enum cairn_option_type {
	CAIRN_OPTION_SIZE,   /* "8GiB" -> value.u, bytes */
	CAIRN_OPTION_TIME,   /* "250ms" -> value.u, nanoseconds */
	CAIRN_OPTION_COUNT,  /* "16" -> value.u */
	CAIRN_OPTION_NUMBER, /* "0.25" -> value.d */
	CAIRN_OPTION_BOOL,   /* "yes", "no" -> value.u */
	CAIRN_OPTION_CHOICE, /* one of `choices` -> value.u, its position */
	CAIRN_OPTION_TEXT,   /* any text, quoted where it must be -> value.s */
	CAIRN_OPTION_PATH,   /* likewise, {rank} expanded */
};

#define CAIRN_OPTION_REQUIRED 0x1u

struct cairn_option {
	const char *name;
	enum cairn_option_type type;
	uint32_t flags;
	const char *preset;    /* default, as text; NULL: not set */
	const char *min, *max; /* as text, inclusive; NULL: none */
	const char *choices;   /* "auto|yes|no" */
	const char *help;      /* one line */
};

struct cairn_value {
	int set; /* 0: neither given nor preset */
	uint64_t u;
	double d;
	const char *s; /* lives as long as the instance */
};

/* ---- counters ----------------------------------------------------------- */

struct cairn_counter_row {
	const char *name, *help;
	int gauge;
};

/* ---- ios ------------------------------------------------------------------ */

enum cairn_op {
	CAIRN_OP_LOAD = 1,
	CAIRN_OP_DUMP = 2,
	CAIRN_OP_REMOVE = 3,   /* no parts: io->status */
	CAIRN_OP_PREFETCH = 4, /* no parts: io->status; a tier without a cache says 0 or -ENOENT */
	CAIRN_OP_DESCRIBE = 5, /* fills raw_length, stored_length and meta; moves no payload */
};

#define CAIRN_PENDING 0x40000000 /* status of what is not finished */

/*
 * One shard of an io's block. A stage acts only on parts that are
 * CAIRN_PENDING, and sets `status` of each that it finishes.
 */
struct cairn_part {
	uint32_t shard;
	int32_t status; /* CAIRN_PENDING, 0, CAIRN_PRESENT or a negative errno */
	uint16_t stage; /* who set it; the host fills it in */
	uint16_t meta_length;
	uint32_t iov_count;
	uint64_t offset, length;      /* of the stored bytes as this stage sees them */
	const struct iovec *iov;      /* lent until complete(); sums up to length */
	uint64_t raw_length;	      /* of the whole shard as the caller knows it */
	uint64_t stored_length;	      /* of the whole shard as it is passed down; <= raw_length */
	uint8_t meta[CAIRN_META_MAX]; /* handed down with a dump, handed back with a load */
	/*
	 * CRC32C of each CAIRN_PIECE of the stored bytes. A dump: NULL, or given
	 * by a stage above that has them; the tier computes what it is not given.
	 * A load: NULL, or room for crc_count values that the tier fills in.
	 */
	uint32_t *crc;
	uint32_t crc_count;
};

/* What a tier may know of a namespace. */
struct cairn_ns_view {
	const void *desc; /* the description's canonical encoding: the identity */
	size_t desc_length;
	uint32_t shard_count; /* 0: variable */
	uint64_t shard_bytes;
	void *binding[CAIRN_STAGES_MAX]; /* what bind() of each stage returned */
};

#define CAIRN_IO_CHAIN	       0x1u /* attr.parent was told by the order of the task's keys */
#define CAIRN_IO_INLINE	       0x2u /* runs on the caller's own thread */
/*
 * A load or describe of a block that is whole only over several tiers: what a
 * tier with shards() holds of an unfinished block is served, too, checked as
 * always, and -ENOENT is for shards that it lacks. shard_count, shard_bytes and
 * the parts' raw_length are those of that block: an unfinished block of another
 * geometry is -ENOENT.
 */
#define CAIRN_IO_PARTIAL       0x4u
/*
 * The memory of the parts is good for I/O by itself: registered by the caller
 * (cairn_memory_register()), or the host's own. A tier may aim its reads and writes
 * at it, and check what it read there; without the flag it rather has them in memory of
 * buffer_get(), on larger pages. The host's own flag: a stage below one that hands down other
 * iovs than came sees it only if that one says CAIRN_IO_AIM_OWN. Since minor version 3.
 */
#define CAIRN_IO_AIMABLE       0x8u
/* A dump's, as the task's flags CAIRN_TASK_WRITE_* are: one at most. Since minor version 5. */
#define CAIRN_IO_WRITE_THROUGH 0x10u
#define CAIRN_IO_WRITE_BACK    0x20u
#define CAIRN_IO_WRITE_AROUND  0x40u
/*
 * Raised by a stage before forward(), of a load: iovs of its own that it hands down are good for
 * I/O, and nothing else uses what they name before the io is back: be it shared memory, not even
 * after this process has died, while reads of it may still land. For that one forward(): the host
 * takes it away. Since minor version 6.
 */
#define CAIRN_IO_AIM_OWN       0x80u

struct cairn_io {
	uint32_t op;	/* enum cairn_op */
	int32_t status; /* of an io without parts */
	struct cairn_key key;
	const struct cairn_ns_view *ns;
	struct cairn_part *parts;
	uint32_t part_count;
	uint32_t shard_count;	      /* a dump: of the block */
	uint64_t shard_bytes;	      /* likewise: raw bytes of every shard but the last */
	uint32_t flags;		      /* CAIRN_IO_* */
	uint32_t durability;	      /* enum cairn_durability */
	uint32_t task_class;	      /* enum cairn_class */
	uint32_t level;		      /* the host's: the stage that has it now */
	uint64_t sequence;	      /* of the submission, one counter per store */
	uint64_t deadline_ns;	      /* on the host's clock; UINT64_MAX: none. 0 once its
				       * task has ended: nobody waits for it any more */
	struct cairn_block_attr attr; /* a dump's; all zero but size: none */
	void *host_private;
	/*
	 * Since minor version 4. A load: when what was handed up is not to be served any more,
	 * CLOCK_REALTIME; 0: never, or not known. The host begins with 0; who serves a part of
	 * a block that expires says so by cairn_io_expires(), and who keeps it heeds it.
	 */
	uint64_t expires_ns;
	/*
	 * Likewise. A prefetch: the bytes that were brought up for it, for the store's bound.
	 */
	uint64_t brought_bytes;
};

/* Of several times the earliest stands. Its own thread. */
static inline void cairn_io_expires(struct cairn_io *io, uint64_t expires_ns)
{
	if (expires_ns != 0 && (io->expires_ns == 0 || expires_ns < io->expires_ns))
		io->expires_ns = expires_ns;
}

/* Ends with @status what of the io is still pending. Its own thread. */
static inline void cairn_io_fail(struct cairn_io *io, int32_t status)
{
	uint32_t i;

	if (io->part_count == 0 && io->status == CAIRN_PENDING)
		io->status = status;
	for (i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			io->parts[i].status = status;
}

/* ---- what the host does for a stage ---------------------------------------- */

struct cairn_stage_host {
	size_t size;
	/* Sends the io to the stage below; done() comes later, maybe before this returns. */
	void (*forward)(struct cairn_io *io);
	/* Gives the io back up. Every part has a status. The io is no longer the stage's. */
	void (*complete)(struct cairn_io *io);
	/*
	 * Calls resume() of this stage at @when_ns. One at a time for an io: a second
	 * call takes the first one's place; UINT64_MAX: none is to come.
	 */
	void (*resume_at)(struct cairn_io *io, uint64_t when_ns);
	/*
	 * Calls resume() soon, on the io's reactor. From any thread. Calls before it
	 * has begun are one.
	 */
	void (*resume)(struct cairn_io *io);
	uint64_t (*now_ns)(void);
	/*
	 * Memory for I/O, 4096-aligned, registered where that can be had. NULL: none
	 * now; resume() of this stage is called when some came back. Larger than
	 * buffer_max can never be had.
	 */
	void *(*buffer_get)(struct cairn_io *io, size_t bytes);
	void (*buffer_put)(struct cairn_io *io, void *buffer);
	size_t buffer_max;
};

struct cairn_stage_env {
	size_t size;
	const struct cairn_stage_host *host;
	uint32_t index;			  /* of this stage in the pipeline; in ns->binding */
	uint32_t below;			  /* stages below this one */
	const char *name;		  /* "posix", "posix.2" */
	const struct cairn_value *values; /* in the order of the option rows */
	uint64_t *counters;		  /* in the order of the counter rows */
	void *internal;			  /* for stages of this library: src/core/stage_env.h */
};

/* Adds to a counter; any thread, relaxed: a figure, never a decision. */
static inline void cairn_count(const struct cairn_stage_env *env, uint32_t row, uint64_t n)
{
	__atomic_fetch_add(&env->counters[row], n, __ATOMIC_RELAXED);
}

/* Sets a gauge; any thread. */
static inline void cairn_gauge(const struct cairn_stage_env *env, uint32_t row, uint64_t value)
{
	__atomic_store_n(&env->counters[row], value, __ATOMIC_RELAXED);
}

/* ---- the table --------------------------------------------------------------- */

#define CAIRN_STAGE_TIER     0x1u /* keeps data: has lookup, unhold, bind, clear and stat */
#define CAIRN_STAGE_PERSISTS 0x2u /* what it took survives the process */

#define CAIRN_PROBE_CHAIN  0x1u /* stop at the first that is absent */
#define CAIRN_PROBE_HOLD   0x2u /* hold what is present */
/* With CHAIN: keys[-1] can be read; it is the chain's key before keys[0], and present. */
#define CAIRN_PROBE_BEFORE 0x4u

struct cairn_probe {
	uint32_t present;
	uint32_t shard_count;
	uint64_t shard_bytes, last_bytes; /* raw */
	uint64_t stored_bytes;		  /* what a hold is charged */
	uint64_t hold;			  /* for unhold(); 0: nothing held */
};

/* What a tier holds of a block, whole or not. */
struct cairn_shards {
	uint32_t shard_count;
	uint64_t shard_bytes, last_bytes;	  /* raw; last_bytes 0: not known yet */
	uint64_t map[CAIRN_SHARD_COUNT_MAX / 64]; /* bit n % 64 of word n / 64: shard n */
};

struct cairn_tier_stat {
	uint8_t uuid[16];
	uint64_t bytes_used, bytes_limit, blocks, alignment;
};

/* What identify() of a tier that persists returns beside 0, nobody has it open. */
enum cairn_in_use {
	CAIRN_IN_USE = 1,	 /* one process, which keeps others out */
	CAIRN_IN_USE_SHARED = 2, /* one process or many */
};

struct cairn_stage_ops {
	uint16_t abi_major, abi_minor; /* CAIRN_STAGE_ABI_MAJOR, _MINOR */
	uint32_t size;		       /* sizeof(struct cairn_stage_ops) */
	const char *name, *summary;
	uint32_t flags; /* CAIRN_STAGE_* */
	uint32_t option_count, counter_count;
	const struct cairn_option *options;
	const struct cairn_counter_row *counters;
	size_t instance_bytes; /* zeroed before open() */
	size_t io_bytes; /* scratch in each io, zeroed before submit() (io_zeroed); 16-aligned */

	/*
	 * On an error the host calls nothing more of this instance, not close() either.
	 * @reterr: one line, "NAME: what is wrong, and what would be right". Where an
	 * option's name follows NAME ("posix: size= does not go ..."), the host puts that
	 * option's line and column in front; else, of -EINVAL, the stage's.
	 */
	int (*open)(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr);
	/* No io is in flight, and none comes. */
	void (*close)(void *self);

	void (*submit)(void *self, struct cairn_io *io, void *scratch);
	void (*done)(void *self, struct cairn_io *io, void *scratch);	/* NULL: never forwards */
	void (*resume)(void *self, struct cairn_io *io, void *scratch); /* NULL: never waits */

	/* Tiers only. The binding lives until close(). lookup() finds its probes zeroed. */
	int (*bind)(void *self, const struct cairn_ns_view *ns, void **ret_binding,
		    struct cairn_error *reterr);
	int (*clear)(void *self, const struct cairn_ns_view *ns, uint32_t durability);
	void (*lookup)(void *self, const struct cairn_ns_view *ns, const struct cairn_key *keys,
		       size_t count, uint32_t flags, struct cairn_probe *ret_probes);
	/* Gives back what lookup() held; a block that was removed meanwhile is no error. */
	void (*unhold)(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
		       uint64_t hold);
	void (*stat)(void *self, struct cairn_tier_stat *ret_stat);

	/* Tiers that persist: at rest, without an instance. @env has values, internal and name. */
	int64_t (*list)(const struct cairn_stage_env *env,
			int (*fn)(void *context, const struct cairn_listed *block), void *context,
			uint64_t *ret_missed, struct cairn_error *reterr);
	int (*check)(const struct cairn_stage_env *env,
		     int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		     struct cairn_error *reterr);
	/*
	 * The uuid of the store, for its counters page, and whether it is open anywhere, as
	 * far as can be told: 0, or one of enum cairn_in_use. It may take the store's lock
	 * for an instant, and keeps no one out for longer.
	 */
	int (*identify)(const struct cairn_stage_env *env, uint8_t ret_uuid[16],
			struct cairn_error *reterr);

	/* ---- since minor version 1: all may be NULL ---- */

	/*
	 * Whether the values can be right, beyond what their rows say; opens nothing.
	 * Before open(), and of stores at rest: @env has values and name. As open().
	 */
	int (*check_values)(const struct cairn_stage_env *env, struct cairn_error *reterr);

	/*
	 * Tiers without done(): the shards of a block that can be loaded, under
	 * CAIRN_IO_PARTIAL where they are not all. 0, or -ENOENT: none. A look, not
	 * a use: eviction's order stays. May be asked of reactors: it never blocks.
	 * NULL: unfinished blocks count for nothing.
	 */
	int (*shards)(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
		      struct cairn_shards *ret_shards);

	/* ---- since minor version 2: all may be NULL ---- */

	/*
	 * As cairn_repair(), of this tier; at rest, as check(). It keeps the store's
	 * lock while it runs. NULL: it has nothing that an open would not mend, and is
	 * checked instead.
	 */
	int (*repair)(const struct cairn_stage_env *env,
		      int (*fn)(void *context, const struct cairn_finding *finding), void *context,
		      struct cairn_error *reterr);

	/*
	 * As cairn_inspect(), of this tier; at rest, as list(). NULL: it tells nothing. A tier
	 * that persists is not asked for CAIRN_INSPECT_MEMORY, and others for nothing else.
	 */
	int (*inspect)(const struct cairn_stage_env *env, uint64_t region,
		       int (*fn)(void *context, const struct cairn_detail *detail), void *context,
		       struct cairn_error *reterr);

	/*
	 * ---- since minor version 3: all, or NULL; a memory tier's, asked of the first stage
	 * alone. On the caller's thread, at once with everything; none waits, queues, or
	 * makes a system call. Arguments are checked. ----
	 */

	/*
	 * Loads the xfer, if its shard is in memory: 0, or -EAGAIN: by an io. The result is
	 * the host's to set.
	 */
	int (*serve)(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *xfer);
	/* As the calls of pin.h. */
	int (*pin)(void *self, const struct cairn_ns_view *ns, const struct cairn_key *key,
		   uint32_t shard, struct cairn_pinned *ret_pinned);
	int (*unpin)(void *self, uint64_t pin);
	int (*reserve)(void *self, const struct cairn_ns_view *ns, const struct cairn_xfer *shape,
		       struct cairn_reserved *ret_reserved);
	/* Whether the xfer's memory is a reservation: 0 or -EINVAL. */
	int (*reserved)(void *self, const struct cairn_xfer *xfer);
	int (*abort)(void *self, void *base);

	/*
	 * ---- since minor version 6 ----
	 * How many of io_bytes are zeroed before submit(), from the first on; the others are as
	 * some io left them. 0: all. What an io need not touch then costs it nothing.
	 */
	size_t io_zeroed;
};

/* A host: how many bytes of an io's scratch to zero. */
static inline size_t cairn_stage_zeroed(const struct cairn_stage_ops *ops)
{
	return ops->io_zeroed ? ops->io_zeroed : ops->io_bytes;
}

#ifdef __cplusplus
}
#endif
#endif
