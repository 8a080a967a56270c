/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores, namespaces and keys: what is opened once.
 *
 * Threads: every call here may be made from any thread, any number at once,
 * but a handle must not be used during or after the call that closes it.
 * Fork: in a child every call returns -EOWNERDEAD and touches nothing.
 *
 * Structs that begin with `size` grow at their end only. The caller zeroes one, and
 * sets size to its sizeof. A library that knows less of it takes it when what it
 * does not know is zero, else -EINVAL; so is a size below the struct's first version.
 * struct cairn_stat, which is filled in, is so as far as its size goes.
 */
#ifndef CAIRN_STORE_H
#define CAIRN_STORE_H

#include <stddef.h>
#include <stdint.h>

#include <cairn/error.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cairn_store;
struct cairn_namespace;

#define CAIRN_KEY_BYTES	      16
#define CAIRN_SHARD_COUNT_MAX 1024u
#define CAIRN_SHARD_BYTES_MAX (64u << 20)
#define CAIRN_NAME_MAX	      1024u /* bytes of each text of a description, and of a salt */

/* The name of a block. Make one with cairn_key_derive(). */
struct cairn_key {
	uint8_t bytes[CAIRN_KEY_BYTES];
};

/* ---- stores ---------------------------------------------------------- */

struct cairn_store_opts {
	size_t size;		/* sizeof(struct cairn_store_opts) */
	const char *rank;	/* what {rank} expands to; NULL: $RANK, else "0" */
	const char *stage_path; /* colon-separated folders of stage .so files;
				 * NULL: $CAIRN_STAGE_PATH, else the installed one */
};

/*
 * Opens the pipeline that @spec describes, hot to cold, for example
 *
 *	flash(path=/var/lib/cairn.kv, size=200GiB)
 *	store(reactors=2, deadline=10s) | delay(read=1ms) | posix(path=/tmp/kv)
 *	@local(path=/fast/cairn.kv, size=200GiB)
 *
 * `store(...)` may stand first and sets what belongs to no stage; "cairn
 * stages store" lists its options. @opts may be NULL. Both are lent for the
 * call. On success *ret_store is the caller's, to be closed.
 *
 * Errors: -EINVAL (grammar or option; @reterr has line and column), -ENOENT
 * (a path, or no such stage), -EBUSY (owned by another process, or by another
 * handle of this one: share that), -EPROTO (a stage's ABI, or a format version),
 * -EOPNOTSUPP (`engine` names one that cannot be had here; `auto` takes the next
 * and says why in cairn_stat()), -ENOMEM, -EIO.
 */
CAIRN_API int cairn_store_open(const char *spec, const struct cairn_store_opts *opts,
			       struct cairn_store **ret_store, struct cairn_error *reterr);

/*
 * Closes the store: new tasks are refused with -ECANCELED while it waits for those
 * that run, and for threads that were waiting in a call when it began, until
 * @timeout_ns (0: the store's `deadline`; UINT64_MAX: as long as it takes). On
 * success the handle and its namespaces are gone. -ETIMEDOUT: something still runs;
 * the store stays open and takes tasks again, and this call may be made again.
 * -EBUSY: a queue is open, close it first; or another thread is closing. NULL is 0.
 * What tiers write last (a snapshot of the index) is written on the caller's thread,
 * after the wait, and no timeout ends that.
 */
CAIRN_API int cairn_store_close(struct cairn_store *store, uint64_t timeout_ns);

/*
 * Defines the composition `@name`, for every store opened later in this
 * process: @spec is a pipeline's text. A definition of the user's own hides a
 * predefined one. -EINVAL: bad name or grammar.
 */
CAIRN_API int cairn_pipeline_define(const char *name, const char *spec, struct cairn_error *reterr);

/*
 * Reads definitions from a file: each is `@name = pipeline`, which may span
 * lines and ends at the next definition or the end of the file; `#` starts a
 * comment. All of them or none are taken. A count, or -ENOENT, -EINVAL.
 */
CAIRN_API int cairn_pipeline_define_file(const char *path, struct cairn_error *reterr);

/* ---- namespaces and keys --------------------------------------------- */

/*
 * What makes two blocks comparable. Every field takes part in the identity,
 * compared whole: two descriptions that differ anywhere never meet.
 */
struct cairn_namespace_desc {
	size_t size;		 /* sizeof(struct cairn_namespace_desc) */
	const char *model;	 /* NULL counts as "" in every text */
	const char *revision;	 /* weights' revision */
	const char *dtype;	 /* of the bytes: "bf16", "fp8_e4m3" ... */
	const char *layout;	 /* order of dimensions, page size ... */
	const char *parallel;	 /* the parallel map beyond rank and world: "tp=4,pp=2" */
	const char *tenant;	 /* who may hit */
	const void *salt;	 /* a cache salt of any bytes */
	size_t salt_length;	 /* <= CAIRN_NAME_MAX */
	uint32_t rank, world;	 /* of the parallel map; world 0 counts as 1 */
	uint32_t format_version; /* the engine's own */
	uint32_t shard_count;	 /* 1 to CAIRN_SHARD_COUNT_MAX; 0: variable geometry */
	uint64_t shard_bytes;	 /* 1 to CAIRN_SHARD_BYTES_MAX; 0 if variable */
};

/*
 * Opens the namespace @desc of @store; every tier binds it to a 32-bit id of
 * its own, durably, at the first use: that is file I/O on the caller's thread, which
 * no deadline ends. @desc is lent for the call. Opening the same description again
 * gives the same handle, counted. A posix tier keeps a namespace, once it was opened,
 * for as long as the store lives: a file of some KiB, which counts against size=,
 * and one of 65536 ids.
 *
 * Errors: -EINVAL (a field; @reterr names it), -EIO or -ENOSPC (a tier could
 * not bind it: the disk, the budget or the ids are used up), -ECANCELED
 * (closing).
 */
CAIRN_API int cairn_namespace_open(struct cairn_store *store,
				   const struct cairn_namespace_desc *desc,
				   struct cairn_namespace **ret_ns, struct cairn_error *reterr);

/*
 * Gives one count of the handle back. Tasks in flight keep what they need.
 * Closing the store takes the rest. NULL is ignored.
 */
CAIRN_API void cairn_namespace_close(struct cairn_namespace *ns);

/*
 * Derives the key of @name (1 byte or more; the engine's hash, or any text):
 * the first 16 bytes of
 *
 *	SHA-256("cairn key 1\0" || le64(length of D) || D || le64(length) || name)
 *
 * with D the namespace's description in the encoding of docs/format.md. So
 * neither two layouts nor two tenants can meet. Any thread, no lock, no I/O.
 * -EINVAL: no name; -ENOMEM: the digest could not be had; -EOWNERDEAD.
 */
CAIRN_API int cairn_key_derive(const struct cairn_namespace *ns, const void *name, size_t length,
			       struct cairn_key *ret_key);

/* ---- figures ---------------------------------------------------------- */

struct cairn_stat {
	size_t size;		  /* in: sizeof(struct cairn_stat) */
	uint8_t uuid[16];	  /* of the lowest tier; zero if it keeps none */
	uint64_t alignment;	  /* of address, offset and length that avoids a copy, bytes */
	uint64_t bytes_used;	  /* of the tiers' budgets, summed, without blocks being written */
	uint64_t bytes_limit;	  /* UINT64_MAX: unbounded */
	uint64_t blocks;	  /* whole ones, of tiers with an index, summed: a copy counts */
	uint64_t tasks_in_flight; /* task slots taken */
	uint64_t xfers_in_flight; /* handed to a stage and not yet back */
	uint64_t deadline_ns;	  /* default of a task */
	uint32_t reactors;
	uint32_t tasks_max;
	char engine[16];       /* "uring", "aio", "psync": what carries the I/O */
	char engine_note[160]; /* why, where `auto` had to fall back; else "" */
};

/* Fills @st as far as @st->size goes. Any thread; a lock is taken to copy a figure, no longer. */
CAIRN_API int cairn_stat(struct cairn_store *store, struct cairn_stat *st);

/*
 * The name of the stage at place @index of the pipeline, 0 the hottest: "posix",
 * "posix.2" for a second; what `stage` of a cairn_result or cairn_found counts.
 * NULL: there is none (CAIRN_STAGE_NONE), or the store is not open in this process.
 * Any thread, no lock; lives as long as the store.
 */
CAIRN_API const char *cairn_stage_name(const struct cairn_store *store, uint32_t index);

/* One counter: monotone, unless @gauge. The names are stable. */
struct cairn_counter {
	const char *stage; /* "posix", "posix.2" for a second; "store" */
	const char *name;  /* "load_hits", "evicted_blocks" ... */
	const char *help;  /* one line with the unit */
	int gauge;
	uint64_t value;
};

/*
 * Calls @fn for every counter of the store, in pipeline order. The strings
 * live as long as the store. A nonzero return of @fn ends the walk and is
 * returned.
 */
CAIRN_API int cairn_counters(struct cairn_store *store,
			     int (*fn)(void *context, const struct cairn_counter *counter),
			     void *context);

/* So many calls took at most @le_ns, and more than the bucket before says. */
struct cairn_latency_bucket {
	uint64_t le_ns; /* UINT64_MAX of the last */
	uint64_t count;
};

/*
 * How long the calls of one kind took since the store was opened, nanoseconds: of
 * loads and dumps from the call to the result of its task, however it ended, in one
 * piece for all its items; of lookups the call, whatever the count of its keys. Of
 * lookups of less than 64 keys not each is timed, but one for every 64 keys, and it counts
 * for those that were not. Two buckets for each power of two, from 128 ns to 68.7 s, with
 * the same bounds for all.
 */
struct cairn_latency {
	const char *op;	 /* "load", "dump", "lookup"; more may come */
	uint64_t count;	 /* of calls: the sum over the buckets */
	uint64_t sum_ns; /* wraps after 584 years */
	uint32_t bucket_count;
	const struct cairn_latency_bucket *buckets; /* rising; lent for the call */
};

/*
 * Calls @fn for each kind of call. Any thread, no lock: what ends meanwhile may be in
 * it or not. -EINVAL: no function; -EOWNERDEAD. A nonzero return of @fn ends the walk
 * and is returned.
 */
CAIRN_API int cairn_latencies(struct cairn_store *store,
			      int (*fn)(void *context, const struct cairn_latency *latency),
			      void *context);

/* ---- a store at rest -------------------------------------------------- */

/*
 * The calls below take a pipeline's text, not an open store. They read the
 * tiers' own metadata without the lock and write nothing; with a live owner
 * the answer is a snapshot that may have missed what changed meanwhile.
 */

struct cairn_block_attr; /* task.h */

struct cairn_listed {
	struct cairn_key key;
	const char *stage;
	uint32_t namespace_id;
	uint32_t generation;
	uint32_t shard_count;
	uint64_t raw_bytes;    /* of all shards, bytes */
	uint64_t stored_bytes; /* on the medium, bytes */
	uint64_t sequence;
	int whole;
	/* the description, NULL where it could not be read; lent for the call */
	const struct cairn_namespace_desc *desc;
	/* what was told of the block, NULL for nothing; lent for the call */
	const struct cairn_block_attr *attr;
	int chained; /* attr->parent was told by the order of a task's keys */
};

/*
 * Lists the blocks of every tier of @spec. @fn may end the walk with a nonzero
 * return, which is returned. Else a count of what was listed, or -ENOENT,
 * -EINVAL, -EIO. *ret_missed (may be NULL): entries that could not be read.
 */
CAIRN_API int64_t cairn_list(const char *spec, const struct cairn_store_opts *opts,
			     int (*fn)(void *context, const struct cairn_listed *block),
			     void *context, uint64_t *ret_missed, struct cairn_error *reterr);

/* The process whose counters are told. */
struct cairn_live {
	size_t size;	       /* in: sizeof(struct cairn_live) */
	uint32_t pid;	       /* 0: not known */
	int shared;	       /* others may have it open too, with counters of their own */
	uint64_t start_ns;     /* when it opened the store: CLOCK_REALTIME */
	char engine[16];       /* as of cairn_stat; "" while it is being opened */
	char engine_note[160]; /* as of cairn_stat */
};

/*
 * Calls @fn for every counter of the process that has the store @spec open now,
 * read from its counters page; of several, the one that opened it last. @live
 * (may be NULL) tells of that process, and is filled before the first call as
 * far as its size goes. @help is "" where this build does not know the counter. A
 * nonzero return of @fn ends the walk and is returned.
 *
 * Errors: -ENOENT (nobody has it open, or the pipeline keeps no page), -EBUSY (a
 * process has it open, but there is no page of it: of @live only `shared` is
 * known), -EPROTO (a page of another version), -EBADMSG (no sound page).
 */
CAIRN_API int cairn_live_counters(const char *spec, const struct cairn_store_opts *opts,
				  int (*fn)(void *context, const struct cairn_counter *counter),
				  void *context, struct cairn_live *live,
				  struct cairn_error *reterr);

/*
 * As cairn_live_counters(), of the counters and then the latencies, from one reading of
 * the page; either function may be NULL. An owner of a version that measures no latencies
 * has none to tell.
 */
CAIRN_API int cairn_live_figures(const char *spec, const struct cairn_store_opts *opts,
				 int (*counter)(void *context, const struct cairn_counter *counter),
				 int (*latency)(void *context, const struct cairn_latency *latency),
				 void *context, struct cairn_live *live,
				 struct cairn_error *reterr);

enum cairn_finding_kind {
	CAIRN_FINDING_NOTE = 0,	      /* nothing wrong; of a repair: mended without a loss */
	CAIRN_FINDING_REPAIRABLE = 1, /* leftovers, counters: the next open mends it */
	CAIRN_FINDING_DAMAGED = 2,    /* bytes that do not check; of a repair: dropped, lost */
};

struct cairn_finding {
	enum cairn_finding_kind kind;
	const char *stage;
	const char *where; /* a file, and an offset where there is one */
	const char *what;  /* one line */
};

/*
 * Checks every tier of @spec, payload included, and reports each finding.
 * Returns the worst kind found (0 sound, 1 repairable, 2 damaged), else a
 * negative errno. A nonzero return of @fn ends the walk and is returned: make it
 * negative, to tell it from a verdict. The store must not be open anywhere (-EBUSY).
 */
CAIRN_API int cairn_check(const char *spec, const struct cairn_store_opts *opts,
			  int (*fn)(void *context, const struct cairn_finding *finding),
			  void *context, struct cairn_error *reterr);

/*
 * Mends what can be mended of every tier of @spec, and reports line by line what
 * it made again and what it dropped. Any thread, as long as it takes. The store must
 * not be open anywhere (-EBUSY), and stays locked meanwhile. A tier that has nothing
 * to repair is checked, as by cairn_check(), which writes nothing.
 *
 * A flash tier writes to its file: a superblock of which both copies are lost, from
 * the headers of its regions; a copy of superblock, namespaces or marks, from the
 * other one; a region's table, from its records; what was open at a crash is
 * sealed, and a file that was cut short is made as long as it was. Records that do
 * not check are marked as dead, and a region whose header does not check is given up.
 * Nothing is written to a file of a newer version (-EPROTO), to one that is not
 * known to be a store (-EPROTO, -ENOENT) or to a device that is smaller than the store
 * was made, and no step leaves a store that an open would not take: a repair may be
 * ended at any time and begun again.
 *
 * Returns the worst that is left: 0 sound, or mended without a loss; 1 something that
 * the next open, or a repair when the device can be read again, mends; 2 something
 * was lost for good, and dropped. Else a negative errno, as cairn_check(), -EIO among
 * them; what was mended before stays so. @fn and its return as for cairn_check(). All
 * is lent for the call.
 */
CAIRN_API int cairn_repair(const char *spec, const struct cairn_store_opts *opts,
			   int (*fn)(void *context, const struct cairn_finding *finding),
			   void *context, struct cairn_error *reterr);

/*
 * One thing that a tier tells of its medium. What comes one after the other of one
 * item and number belongs together. Names are stable, and more may come. All is lent
 * for the call.
 */
struct cairn_detail {
	const char *stage;
	const char *item; /* "store", "namespace", "region", "record" */
	uint64_t number;  /* which of them; 0 of "store" */
	const char *name; /* of the detail, with its unit: "raw_bytes", "state" ... */
	const char *text; /* NULL: it is `value` */
	uint64_t value;
};

#define CAIRN_INSPECT_STORE  UINT64_MAX
#define CAIRN_INSPECT_MEMORY (UINT64_MAX - 1) /* what memory tiers have now, and who is there */

/*
 * What the tiers of @spec keep, as it lies on the medium, for people who look for
 * what is wrong with it: of the store, and of its namespaces (@region is
 * CAIRN_INSPECT_STORE), or of one region, each record that lies in it, read and
 * checked, the dead ones too. Any thread. Reads only, and takes no lock: beside a
 * live owner (detail "in_use" of "store" is "yes") what is not written yet is not told,
 * and what is being written may be told as torn.
 *
 * With CAIRN_INSPECT_MEMORY the tiers in shared memory are asked, and no others: how full
 * they are, by sizes of slots, and how many processes and pins there are. Of words that
 * change while they are read. -ENOENT: no process has it open.
 *
 * A nonzero return of @fn ends the walk and is returned. Else 0, or -EOPNOTSUPP (no
 * tier of it tells anything: flash does, of memory cache), -EINVAL (no such region, or the text),
 * -ENOENT, -EPROTO (no store, of another version, or damaged), -EIO.
 */
CAIRN_API int cairn_inspect(const char *spec, const struct cairn_store_opts *opts, uint64_t region,
			    int (*fn)(void *context, const struct cairn_detail *detail),
			    void *context, struct cairn_error *reterr);

/* ---- what this build has ---------------------------------------------- */

struct cairn_option_info {
	const char *name, *type, *help;
	const char *preset;    /* default, as text; "" if none */
	const char *min, *max; /* as text; "" if none */
	int required;
};

struct cairn_stage_info {
	const char *name, *summary;
	const char *file; /* of the .so; NULL: linked in */
	int tier;	  /* keeps data */
	const struct cairn_option_info *options;
	size_t option_count;
	const char *error; /* of a file that is no stage of this build: one line; else NULL */
};

/*
 * Calls @fn for `store`, every stage that is linked in, and every .so file of the
 * stage path: of one that does not load, `name` is the file's, and `error` says why.
 * Strings and options are lent for the call. A nonzero return of @fn ends the walk
 * and is returned.
 */
CAIRN_API int cairn_stages(const struct cairn_store_opts *opts,
			   int (*fn)(void *context, const struct cairn_stage_info *stage),
			   void *context, struct cairn_error *reterr);

/* Calls @fn for every composition, predefined and defined. */
CAIRN_API int cairn_compositions(int (*fn)(void *context, const char *name, const char *spec,
					   const char *help),
				 void *context);

#ifdef __cplusplus
}
#endif
#endif
