/* SPDX-License-Identifier: Apache-2.0 */
/* CAIRN_OP_DESCRIBE: what a stage above a tier learns of a shard without moving its payload. */
/* Before cmocka.h, which has a macro fail(). */
#include "core/submit.h"

#include "posix_store.h"

#include <dlfcn.h>

#define SHARDS 3u
#define BYTES  150000u /* three pieces; half of it is stored */

/* What came up with the last describe, before `shrink` took its own metadata off. */
static struct {
	uint32_t parts;
	struct cairn_part part[SHARDS];
	uint8_t memory[BYTES];
} learned;

/* ---- a transform that stores the first half of each shard ---------------------------- */

struct shrink {
	const struct cairn_stage_host *host;
};

struct shrink_io {
	struct cairn_part before[SHARDS];
	struct iovec half[SHARDS];
};

static int shrink_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	(void)reterr;
	((struct shrink *)self)->host = env->host;
	return 0;
}

static void shrink_close(void *self)
{
	(void)self;
}

static void shrink_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct shrink_io *mine = scratch;

	assert_true(io->part_count <= SHARDS);
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		mine->before[i] = *part;
		if (io->op != CAIRN_OP_DUMP)
			continue;
		mine->half[i] = (struct iovec){part->iov[0].iov_base, part->length / 2};
		part->iov = &mine->half[i];
		part->length = part->stored_length = part->length / 2;
		part->meta_length = 4;
		memcpy(part->meta, (uint8_t[]){'h', 'a', 'l', (uint8_t)part->shard}, 4);
	}
	((struct shrink *)self)->host->forward(io);
}

static void shrink_done(void *self, struct cairn_io *io, void *scratch)
{
	struct shrink_io *mine = scratch;

	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (io->op == CAIRN_OP_DESCRIBE) {
			learned.part[learned.parts++] = *part;
			continue;
		}
		part->iov = mine->before[i].iov;
		part->length = mine->before[i].length;
	}
	((struct shrink *)self)->host->complete(io);
}

static const struct cairn_stage_ops shrink_ops = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(shrink_ops),
	.name = "upper",
	.summary = "stores a half, for tests",
	.instance_bytes = sizeof(struct shrink),
	.io_bytes = sizeof(struct shrink_io),
	.open = shrink_open,
	.close = shrink_close,
	.submit = shrink_submit,
	.done = shrink_done,
};

/* ---- the store ------------------------------------------------------------------------ */

static struct fixture f;

static void open_under(const char *below)
{
	const char *path = getenv("STAGE_UPPER");
	static void *module; /* stays loaded */
	struct cairn_store_opts opts = {.size = sizeof(opts)};
	struct cairn_stage_ops *table;
	struct cairn_error error = {0};
	char folder[512], spec[512];

	fixture_new(&f);
	assert_non_null(path);
	if (!module)
		module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	assert_non_null(module);
	table = dlsym(module, "cairn_stage");
	assert_non_null(table);
	*table = shrink_ops;
	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
	opts.stage_path = folder;
	snprintf(spec, sizeof(spec), "upper() | %s%s%s", below,
		 strstr(below, "path=") ? f.path : "", strstr(below, "path=") ? ")" : "");
	if (cairn_store_open(spec, &opts, &f.store, &error) < 0)
		fail_msg("%s: %s", spec, error.text);
	fixture_space(&f, "m", SHARDS, BYTES);
}

/* All shards of block @number at once; the first error. */
static int describe(uint32_t number)
{
	struct cairn_key key = key_of(&f, number);
	struct cairn_xfer xfers[SHARDS];
	struct submission s = {
		.ns = f.ns, .op = CAIRN_OP_DESCRIBE, .xfers = xfers, .count = SHARDS};

	memset(&learned, 0, sizeof(learned));
	memset(learned.memory, 0xee, sizeof(learned.memory));
	for (uint32_t shard = 0; shard < SHARDS; shard++)
		xfers[shard] = xfer_of(&key, shard, 0, learned.memory, BYTES);
	return submit(&s, NULL);
}

static void check_learned(void)
{
	assert_int_equal(learned.parts, SHARDS);
	for (uint32_t shard = 0; shard < SHARDS; shard++) {
		const struct cairn_part *part = &learned.part[shard];

		assert_int_equal(part->status, 0);
		assert_int_equal(part->shard, shard);
		assert_int_equal(part->raw_length, BYTES);
		assert_int_equal(part->stored_length, BYTES / 2);
		assert_int_equal(part->meta_length, 4);
		assert_memory_equal(part->meta, "hal", 3);
		assert_int_equal(part->meta[3], shard);
	}
	for (uint32_t i = 0; i < BYTES; i++)
		assert_int_equal(learned.memory[i], 0xee);
}

static void damage_payload(const char *file)
{
	static const uint8_t zeros[BYTES];
	struct stat st;
	int fd = open(file, O_RDWR);

	assert_int_equal(fstat(fd, &st), 0);
	/* The head of three shards is one page. */
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 4096), (ssize_t)sizeof(zeros));
	close(fd);
}

static void lengths_and_metadata(void **state)
{
	static const char *const below[] = {"null()", "posix(path=", "posix(shared=yes, path=",
					    "xor(byte=5) | posix(path=", "null() | posix(path="};

	(void)state;
	for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
		open_under(below[i]);
		assert_int_equal(describe(1), -ENOENT);
		for (uint32_t shard = 0; shard < SHARDS; shard++) {
			assert_int_equal(dump_one(&f, 1, shard, BYTES, CAIRN_MEMORY), 0);
			assert_int_equal(describe(1), shard + 1 < SHARDS ? -ENOENT : 0);
		}
		check_learned();
		fixture_close(&f);
		fixture_free(&f);
	}
}

/* Payload that does not check is not read for it; nor does it count as loaded. */
static void no_payload_is_moved(void **state)
{
	(void)state;
	open_under("posix(direct=no, path=");
	for (uint32_t shard = 0; shard < SHARDS; shard++)
		assert_int_equal(dump_one(&f, 1, shard, BYTES, CAIRN_MEMORY), 0);
	assert_int_equal(each_file(f.path, damage_payload), 1);
	assert_int_equal(describe(1), 0);
	check_learned();
	assert_int_equal(counter(&f, "load_hits"), 0);
	assert_int_equal(counter(&f, "load_bytes"), 0);
	assert_int_equal(load_part(&f, 1, 0, BYTES, 0, BYTES / 2, 0), -EBADMSG);
	assert_int_equal(describe(1), -ENOENT);
	fixture_close(&f);
	fixture_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_and_metadata),
		cmocka_unit_test(no_payload_is_moved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
