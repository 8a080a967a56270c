/* SPDX-License-Identifier: Apache-2.0 */
#include "kit.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/store.h"

/* ---- checks ---------------------------------------------------------------- */

static char where[512];
static char finding_text[512]; /* the last finding of a check */
static const char *(*also)(void);
static int kept_argc;
static char **kept_argv;

void kit_at(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(where, sizeof(where), format, args);
	va_end(args);
}

void kit_also(const char *(*fn)(void))
{
	also = fn;
}

void kit_fail(const char *file, int line, const char *what, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s:%d: not so: %s", file, line, what);
	if (strlen(format) > 1) {
		fprintf(stderr, ":");
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
	}
	fprintf(stderr, "\n  at: %s\n", where);
	if (finding_text[0])
		fprintf(stderr, "  last finding: %s\n", finding_text);
	if (also && *also())
		fprintf(stderr, "  what failed: %s\n", also());
	fprintf(stderr, "  run:");
	for (int i = 0; i < kept_argc; i++)
		fprintf(stderr, " %s", kept_argv[i]);
	fprintf(stderr, "\n");
	abort();
}

static void on_alarm(int signal)
{
	static const char text[] = "hangs\n  at: ";
	ssize_t ignored;

	(void)signal;
	ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
	ignored = write(STDERR_FILENO, where, strnlen(where, sizeof(where)));
	ignored = write(STDERR_FILENO, "\n", 1);
	(void)ignored;
	abort();
}

void kit_watch(unsigned seconds)
{
	signal(SIGALRM, on_alarm);
	/* A long form shares its machine, and may be stopped for a while. */
	alarm(seconds * (kit_sanitized() ? 4 : 1) * (unsigned)kit_number("patience", 1, 30));
}

/* ---- numbers ------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

uint64_t kit_next(struct kit_rng *rng)
{
	uint64_t x = mix(rng->state);

	rng->state += 0x9e3779b97f4a7c15ull;
	return x;
}

uint64_t kit_below(struct kit_rng *rng, uint64_t limit)
{
	return kit_next(rng) % limit;
}

void kit_init(int argc, char **argv)
{
	kept_argc = argc;
	kept_argv = argv;
	setvbuf(stdout, NULL, _IOLBF, 0);
}

const char *kit_text(const char *name, const char *preset)
{
	size_t length = strlen(name);

	for (int i = 1; i < kept_argc; i++) {
		const char *arg = kept_argv[i];

		if (strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, name, length) == 0 &&
		    arg[2 + length] == '=')
			return arg + 3 + length;
	}
	return preset;
}

bool kit_soak(void)
{
	const char *soak = getenv("CAIRN_SOAK");

	return soak && *soak && strcmp(soak, "0") != 0;
}

uint64_t kit_number(const char *name, uint64_t preset, uint64_t soak)
{
	const char *text = kit_text(name, NULL);

	if (text)
		return strtoull(text, NULL, 0);
	return kit_soak() ? soak : preset;
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#elif __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#endif

bool kit_threads_after_fork(void)
{
#ifdef UNDER_TSAN
	return false;
#else
	return true;
#endif
}

bool kit_sanitized(void)
{
#ifdef UNDER_ASAN
	return true;
#else
	return !kit_threads_after_fork();
#endif
}

/* ---- the tier -------------------------------------------------------------------- */

const char *kit_stage(void)
{
	return kit_text("stage", "posix");
}

bool kit_flash(void)
{
	return strcmp(kit_stage(), "flash") == 0;
}

void kit_tier(char *ret_spec, size_t bytes, const char *folder, const char *posix,
	      const char *flash)
{
	const char *options = kit_flash() ? flash : posix;

	snprintf(ret_spec, bytes, "%s(path=%s%s%s%s)", kit_stage(), folder,
		 kit_flash() ? "/store" : "", *options ? ", " : "", options);
}

/* ---- content ------------------------------------------------------------------- */

struct cairn_key kit_key(uint64_t id)
{
	struct cairn_key key;
	uint64_t words[2] = {mix(id * 2 + 1), mix(~id)};

	memcpy(key.bytes, words, sizeof(words));
	return key;
}

static uint64_t word_at(uint64_t id, uint32_t shard, uint64_t index)
{
	return mix(mix(id) ^ ((uint64_t)shard << 40) ^ index);
}

void kit_fill(void *buffer, size_t length, uint64_t id, uint32_t shard, uint64_t offset)
{
	uint8_t *at = buffer;

	while (length > 0) {
		uint64_t word = word_at(id, shard, offset / 8);
		size_t skip = offset % 8, n = 8 - skip < length ? 8 - skip : length;

		memcpy(at, (uint8_t *)&word + skip, n);
		at += n;
		offset += n;
		length -= n;
	}
}

bool kit_right(const void *buffer, size_t length, uint64_t id, uint32_t shard, uint64_t offset)
{
	const uint8_t *at = buffer;

	while (length > 0) {
		uint64_t word = word_at(id, shard, offset / 8);
		size_t skip = offset % 8, n = 8 - skip < length ? 8 - skip : length;

		if (memcmp(at, (uint8_t *)&word + skip, n) != 0)
			return false;
		at += n;
		offset += n;
		length -= n;
	}
	return true;
}

/* ---- folders --------------------------------------------------------------------- */

void kit_folder(char *ret_path, size_t bytes, const char *name)
{
	const char *base = getenv("CAIRN_TEST_DIR");

	if (!base)
		base = getenv("TMPDIR");
	snprintf(ret_path, bytes, "%s/cairn-%s-XXXXXX", base ? base : "/tmp", name);
	CHECK(mkdtemp(ret_path), "%s: %s", ret_path, strerror(errno));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void kit_remove_folder(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static _Thread_local uint64_t sum;

static int add_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)ftw;
	if (type != FTW_NS)
		sum += (uint64_t)st->st_blocks * 512;
	return 0;
}

uint64_t kit_du(const char *path)
{
	sum = 0;
	nftw(path, add_one, 16, FTW_PHYS);
	return sum;
}

static int add_whole(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return strstr(path + ftw->base, ".t") ? 0 : add_one(path, st, type, ftw);
}

uint64_t kit_du_whole(const char *path)
{
	sum = 0;
	nftw(path, add_whole, 16, FTW_PHYS);
	return sum;
}

unsigned kit_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 3; /* ., .. and the folder's own */
}

static _Thread_local struct {
	void (*fn)(void *context, const char *file);
	void *context;
} each;

static int call_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_F)
		each.fn(each.context, path);
	return 0;
}

void kit_each_file(const char *path, void (*fn)(void *context, const char *file), void *context)
{
	each.fn = fn;
	each.context = context;
	nftw(path, call_one, 16, FTW_PHYS);
}

/* ---- blocks ------------------------------------------------------------------------ */

int kit_namespace(struct cairn_store *store, const char *model, struct kit_shape shape,
		  struct cairn_namespace **ret_ns)
{
	struct cairn_namespace_desc desc = {
		.size = sizeof(desc),
		.model = model,
		.shard_count = shape.shards,
		.shard_bytes = shape.shard_bytes,
	};

	return cairn_namespace_open(store, &desc, ret_ns, NULL);
}

struct cairn_xfer kit_xfer(uint64_t id, uint32_t shard, struct cairn_segment *segment, void *base,
			   uint64_t length)
{
	segment->base = base;
	segment->length = length;
	return (struct cairn_xfer){
		.key = kit_key(id),
		.shard = shard,
		.length = length,
		.segments = segment,
		.segment_count = 1,
	};
}

#define UNTOLD (-9999) /* the status of an xfer that was never submitted */

/* Room for @count shards, with the xfers that name them. */
struct batch {
	struct cairn_xfer *xfers;
	struct cairn_segment *segments;
	uint8_t *bytes;
};

static struct batch batch_new(struct kit_shape shape, uint64_t id, uint32_t first, uint32_t count)
{
	struct batch batch = {
		.xfers = calloc(count, sizeof(*batch.xfers)),
		.segments = calloc(count, sizeof(*batch.segments)),
		.bytes = aligned_alloc(4096, (count * shape.shard_bytes + 4095) & ~4095ull),
	};

	CHECK(batch.xfers && batch.segments && batch.bytes);
	for (uint32_t i = 0; i < count; i++)
		batch.xfers[i] = kit_xfer(id, first + i, &batch.segments[i],
					  batch.bytes + i * shape.shard_bytes, shape.shard_bytes);
	return batch;
}

static void batch_free(struct batch *batch)
{
	free(batch->xfers);
	free(batch->segments);
	free(batch->bytes);
}

int kit_dump(struct cairn_namespace *ns, struct kit_shape shape, uint64_t id, uint32_t first,
	     uint32_t count, uint32_t durability)
{
	struct batch batch = batch_new(shape, id, first, count);
	struct cairn_task_opts opts = {.size = sizeof(opts), .durability = durability};
	uint32_t present = 0;
	int ret;

	for (uint32_t i = 0; i < count; i++)
		kit_fill(batch.segments[i].base, shape.shard_bytes, id, first + i, 0);
	ret = cairn_dump(ns, batch.xfers, count, &opts, NULL);
	for (uint32_t i = 0; ret == 0 && i < count; i++)
		present += batch.xfers[i].result.status == CAIRN_PRESENT;
	/* Only after a deadline is memory still in use. */
	if (ret != -ETIMEDOUT)
		batch_free(&batch);
	return ret == 0 && present == count ? CAIRN_PRESENT : ret;
}

/*
 * Takes it back; nothing but the batch's own task, which has ended, aimed at it. Under a walk the
 * call may find no memory, once.
 */
static void batch_unregister(struct cairn_store *store, struct batch *batch)
{
	int ret = cairn_memory_unregister(store, batch->bytes, 0);

	if (ret == -ENOMEM)
		ret = cairn_memory_unregister(store, batch->bytes, 0);
	CHECK(ret == 0 || ret == -ETIMEDOUT, "unregistered: %d", ret);
}

int kit_load(struct cairn_namespace *ns, struct kit_shape shape, uint64_t id)
{
	struct batch batch = batch_new(shape, id, 0, shape.shards);
	struct cairn_store *store = ns->store;
	bool registered =
		id % 2 == 0 &&
		cairn_memory_register(store, batch.bytes, shape.shards * shape.shard_bytes) == 0;
	int ret;

	memset(batch.bytes, 0xa5, shape.shards * shape.shard_bytes);
	for (uint32_t i = 0; i < shape.shards; i++)
		batch.xfers[i].result.status = UNTOLD;
	ret = cairn_load(ns, batch.xfers, shape.shards, NULL, NULL);
	for (uint32_t i = 0; i < shape.shards; i++)
		CHECK(batch.xfers[i].result.status != 0 ||
			      kit_right(batch.segments[i].base, shape.shard_bytes, id, i, 0),
		      "wrong bytes in block %lu shard %u", (unsigned long)id, i);
	if (registered && ret != -ETIMEDOUT)
		batch_unregister(store, &batch);
	if (ret != -ETIMEDOUT)
		batch_free(&batch);
	return ret;
}

bool kit_engine(const char *name)
{
	static const char *const names[] = {"uring", "aio", "psync"};
	static enum { UNKNOWN, HERE, MISSING } known[3];
	struct cairn_error error = {0};
	struct cairn_store *store;
	char spec[64];
	size_t i = 0;

	while (strcmp(names[i], name) != 0)
		CHECK(++i < 3, "no engine %s", name);
	if (known[i] == UNKNOWN) {
		snprintf(spec, sizeof(spec), "store(engine=%s) | null", name);
		known[i] = cairn_store_open(spec, NULL, &store, &error) == 0 ? HERE : MISSING;
		if (known[i] == HERE)
			CHECK(cairn_store_close(store, UINT64_MAX) == 0);
		else
			printf("skipped: %s\n", error.text);
	}
	return known[i] == HERE;
}

bool kit_present(struct cairn_namespace *ns, uint64_t id)
{
	struct cairn_key key = kit_key(id);
	struct cairn_found found;

	return cairn_lookup(ns, &key, 1, &found, NULL, NULL) == 1;
}

static int keep_finding(void *context, const struct cairn_finding *finding)
{
	(void)context;
	CHECK(finding->what && finding->what[0] && !strchr(finding->what, '\n'));
	if (finding->kind != CAIRN_FINDING_NOTE)
		snprintf(finding_text, sizeof(finding_text), "%s: %s: %s", finding->stage,
			 finding->where, finding->what);
	return 0;
}

int kit_check(const char *spec)
{
	struct cairn_error error = {0};
	int ret;

	finding_text[0] = 0;
	ret = cairn_check(spec, NULL, keep_finding, NULL, &error);

	CHECK(ret >= 0 || (error.text[0] && !strchr(error.text, '\n')));
	return ret;
}

struct wanted {
	const char *stage, *name;
	uint64_t value;
};

static int match(void *context, const struct cairn_counter *counter)
{
	struct wanted *wanted = context;

	if (strcmp(counter->stage, wanted->stage) == 0 && strcmp(counter->name, wanted->name) == 0)
		wanted->value = counter->value;
	return 0;
}

uint64_t kit_counter(struct cairn_store *store, const char *stage, const char *name)
{
	struct wanted wanted = {.stage = stage, .name = name};

	cairn_counters(store, match, &wanted);
	return wanted.value;
}
