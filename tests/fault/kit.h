/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs that try to break a store share: content that is a function
 * of the key, checks that say where they stand, directories, sizes, numbers
 * from the command line.
 *
 * Every number that decides how long a program runs has a name: `--name=value`
 * sets it, else CAIRN_SOAK=1 takes the large preset, else the small one counts.
 */
#ifndef TESTS_FAULT_KIT_H
#define TESTS_FAULT_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cairn/store.h>
#include <cairn/task.h>

#define KIT_SKIP 77 /* what meson takes for "skipped" */

/* ---- checks ---------------------------------------------------------------- */

/* Where the program stands, printed by a check that fails: printf-like, one line. */
__attribute__((format(printf, 1, 2))) void kit_at(const char *format, ...);

/* What a check that fails also prints, when it is not "". */
void kit_also(const char *(*fn)(void));

__attribute__((noreturn, format(printf, 4, 5))) void kit_fail(const char *file, int line,
							      const char *what, const char *format,
							      ...);

/* Ends the program, saying where it stood, when @what is false. */
#define CHECK(what, ...)                                                                           \
	do {                                                                                       \
		if (!(what))                                                                       \
			kit_fail(__FILE__, __LINE__, #what, " " __VA_ARGS__);                      \
	} while (0)

/* The program fails when it has not called this again after @seconds: nothing hangs. */
void kit_watch(unsigned seconds);

/* ---- numbers ------------------------------------------------------------------ */

struct kit_rng {
	uint64_t state;
};

uint64_t kit_next(struct kit_rng *rng);
uint64_t kit_below(struct kit_rng *rng, uint64_t limit);

/* Keeps the arguments for the calls below. Call first. */
void kit_init(int argc, char **argv);
uint64_t kit_number(const char *name, uint64_t preset, uint64_t soak);
const char *kit_text(const char *name, const char *preset);
bool kit_soak(void);
/* True under a sanitizer, where everything takes longer. */
bool kit_sanitized(void);
/* False under ThreadSanitizer, which forbids threads in a child of a fork. */
bool kit_threads_after_fork(void);

/* ---- the tier: --stage=posix (the preset) or flash ------------------------------ */

const char *kit_stage(void);
bool kit_flash(void);
/* The spec of a store in @folder, with the options of the one or of the other ("": none). */
void kit_tier(char *ret_spec, size_t bytes, const char *folder, const char *posix,
	      const char *flash);

/* ---- content ------------------------------------------------------------------- */

struct cairn_key kit_key(uint64_t id);
/* The bytes [offset, offset + length) of @shard of block @id. */
void kit_fill(void *buffer, size_t length, uint64_t id, uint32_t shard, uint64_t offset);
bool kit_right(const void *buffer, size_t length, uint64_t id, uint32_t shard, uint64_t offset);

/* ---- folders --------------------------------------------------------------------- */

/* A new folder under CAIRN_TEST_DIR, TMPDIR or /tmp; static text, one at a time kept. */
void kit_folder(char *ret_path, size_t bytes, const char *name);
void kit_remove_folder(const char *path);
/* st_blocks * 512 of every file and folder in it, itself included. */
uint64_t kit_du(const char *path);
/* The same without blocks of a posix tier that are being written. */
uint64_t kit_du_whole(const char *path);
/* Descriptors of this process; the folder's own is not counted. */
unsigned kit_descriptors(void);
/* Calls @fn with each file below @path, folders not. */
void kit_each_file(const char *path, void (*fn)(void *context, const char *file), void *context);

/* ---- engines ------------------------------------------------------------------------ */

/* Whether this build and this machine have the I/O engine @name; says once if not. */
bool kit_engine(const char *name);

/* ---- blocks ------------------------------------------------------------------------ */

struct kit_shape {
	uint32_t shards;
	uint64_t shard_bytes;
};

/* Opens a namespace of that shape. */
int kit_namespace(struct cairn_store *store, const char *model, struct kit_shape shape,
		  struct cairn_namespace **ret_ns);

/* One xfer of a whole shard. */
struct cairn_xfer kit_xfer(uint64_t id, uint32_t shard, struct cairn_segment *segment, void *base,
			   uint64_t length);

/*
 * Dumps shards [first, first + count) of block @id and waits. The result is the
 * first failure, 0, or CAIRN_PRESENT when every shard was.
 */
int kit_dump(struct cairn_namespace *ns, struct kit_shape shape, uint64_t id, uint32_t first,
	     uint32_t count, uint32_t durability);

/*
 * Loads the whole block, an even one into memory that is registered for it, and compares
 * every byte of every shard that came; a wrong one ends the program. 0, or the first failure.
 */
int kit_load(struct cairn_namespace *ns, struct kit_shape shape, uint64_t id);

/* Whether a lookup says that it is whole. */
bool kit_present(struct cairn_namespace *ns, uint64_t id);

/* cairn_check(); a check that fails later prints the last thing it found beyond notes. */
int kit_check(const char *spec);

/* The counter of that name of @stage; 0 when there is none. */
uint64_t kit_counter(struct cairn_store *store, const char *stage, const char *name);

#endif
