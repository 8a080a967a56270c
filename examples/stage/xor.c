/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A skeleton stage: every payload byte goes down XORed with a byte, and comes
 * up as it was. It stands for what a compressing or encrypting stage does, and
 * shows each thing that one needs: options, counters, memory for I/O, metadata,
 * forward, done and resume. It protects nothing.
 *
 *	xor(byte=90) | posix(path=/tmp/kv)
 *
 * Invariants:
 *  1. The caller's bytes of a dump are only read: what goes down is in a buffer.
 *  2. An io holds one buffer at most, and none while it waits for one: so ios
 *     never wait for each other.
 *  3. Whatever is changed in a part on the way down is put back on the way up.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cairn/stage.h>

#define META_BYTES 2 /* what this stage adds to a shard's metadata */
#define META_MARK  'X'

enum xor_option { XOR_BYTE };
enum xor_counter { XOR_BYTES_DOWN, XOR_BYTES_UP, XOR_OTHER_BYTE };

static const struct cairn_option xor_options[] = {
	[XOR_BYTE] = {"byte", CAIRN_OPTION_COUNT, 0, "90", "1", "255", NULL,
		      "what every byte is XORed with"},
};

static const struct cairn_counter_row xor_counters[] = {
	[XOR_BYTES_DOWN] = {"bytes_down", "bytes of dumps", 0},
	[XOR_BYTES_UP] = {"bytes_up", "bytes of loads", 0},
	[XOR_OTHER_BYTE] = {"other_byte", "shards that were dumped with another byte", 0},
};

struct xor_stage {
	const struct cairn_stage_env *env; /* the host's; lives as long as the instance */
	const struct cairn_stage_host *host;
	uint8_t byte;
};

/* What a part looked like to the stage above. */
struct xor_part {
	int changed; /* in this round */
	int later;   /* waits for another round */
	const struct iovec *iov;
	uint32_t iov_count, crc_count;
	uint32_t *crc;
	struct iovec mine;
};

/* In each io, zeroed before submit(). */
struct xor_io {
	uint8_t *buffer;
	struct xor_part parts[CAIRN_PARTS_MAX];
};

static int xor_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct xor_stage *stage = (struct xor_stage *)self;

	if (env->below == 0) {
		if (reterr) {
			reterr->code = -EINVAL;
			snprintf(reterr->text, sizeof(reterr->text),
				 "%s: has no stage below it; put a tier behind it, for example "
				 "xor() | posix(path=...)",
				 env->name);
		}
		return -EINVAL;
	}
	stage->env = env;
	stage->host = env->host;
	stage->byte = (uint8_t)env->values[XOR_BYTE].u;
	return 0;
}

static void xor_close(void *self)
{
	(void)self; /* nothing but the instance, which is the host's */
}

/* ---- down ------------------------------------------------------------------- */

/*
 * CRCs are of the stored bytes: those that a stage above has of its own bytes
 * say nothing about ours, and ours are no use to it.
 */
static void part_change(struct cairn_part *part, struct xor_part *saved)
{
	saved->changed = 1;
	saved->iov = part->iov;
	saved->iov_count = part->iov_count;
	saved->crc = part->crc;
	saved->crc_count = part->crc_count;
	part->crc = NULL;
	part->crc_count = 0;
}

/* Copies the part's bytes, XORed, to @to, and lets that go down in their place. */
static void part_encode(struct xor_stage *stage, struct cairn_part *part, struct xor_part *saved,
			uint8_t *to)
{
	const uint8_t *from;
	size_t at = 0, n;
	uint32_t i;

	part_change(part, saved);
	for (i = 0; i < part->iov_count; i++) {
		from = (const uint8_t *)part->iov[i].iov_base;
		for (n = 0; n < part->iov[i].iov_len; n++)
			to[at++] = from[n] ^ stage->byte;
	}
	assert(at == part->length);
	saved->mine.iov_base = to;
	saved->mine.iov_len = at;
	part->iov = &saved->mine;
	part->iov_count = 1;
	/* Behind what the stages above wrote; the way up takes it off the end. */
	part->meta[part->meta_length++] = META_MARK;
	part->meta[part->meta_length++] = stage->byte;
	cairn_count(stage->env, XOR_BYTES_DOWN, part->length);
}

/* Marks the pending parts that one buffer can hold, and gives their sum; the others wait. */
static size_t round_plan(struct xor_stage *stage, struct cairn_io *io, struct xor_io *mine)
{
	size_t bytes = 0;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (part->length > stage->host->buffer_max)
			part->status = -EFBIG;
		else if (part->meta_length > CAIRN_META_MAX - META_BYTES)
			part->status = -EOPNOTSUPP;
		else if (bytes + part->length > stage->host->buffer_max)
			mine->parts[i].later = 1;
		else
			bytes += part->length;
	}
	return bytes;
}

/* Sends a round of a dump down, or waits for a buffer, or ends what has no part left. */
static void dump_round(struct xor_stage *stage, struct cairn_io *io, struct xor_io *mine)
{
	size_t bytes = round_plan(stage, io, mine), at = 0;
	uint32_t i;

	if (bytes == 0) {
		stage->host->complete(io);
		return;
	}
	mine->buffer = (uint8_t *)stage->host->buffer_get(io, bytes);
	for (i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];
		struct xor_part *saved = &mine->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		if (!mine->buffer) {
			saved->later = 0; /* resume() plans again */
		} else if (saved->later) {
			part->status = -EAGAIN; /* no stage acts on what is not pending */
		} else {
			part_encode(stage, part, saved, mine->buffer + at);
			at += part->length;
		}
	}
	if (mine->buffer)
		stage->host->forward(io);
}

static void xor_submit(void *self, struct cairn_io *io, void *scratch)
{
	struct xor_stage *stage = (struct xor_stage *)self;
	struct xor_io *mine = (struct xor_io *)scratch;
	uint32_t i;

	if (io->op == CAIRN_OP_DUMP) {
		dump_round(stage, io, mine);
		return;
	}
	/* Loads go straight to the caller's memory, and are decoded there. */
	for (i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			part_change(&io->parts[i], &mine->parts[i]);
	stage->host->forward(io);
}

/* A buffer may be had again. */
static void xor_resume(void *self, struct cairn_io *io, void *scratch)
{
	assert(io->op == CAIRN_OP_DUMP);
	dump_round((struct xor_stage *)self, io, (struct xor_io *)scratch);
}

/* ---- up --------------------------------------------------------------------- */

static void part_decode(struct xor_stage *stage, const struct cairn_part *part)
{
	uint32_t i;
	size_t n;

	for (i = 0; i < part->iov_count; i++) {
		uint8_t *bytes = (uint8_t *)part->iov[i].iov_base;

		for (n = 0; n < part->iov[i].iov_len; n++)
			bytes[n] ^= stage->byte;
	}
	cairn_count(stage->env, XOR_BYTES_UP, part->length);
}

/* Takes our metadata off. What was dumped with another byte, or without us, is a miss. */
static void part_check(struct xor_stage *stage, struct cairn_part *part)
{
	if (part->meta_length < META_BYTES || part->meta[part->meta_length - 2] != META_MARK ||
	    part->meta[part->meta_length - 1] != stage->byte) {
		part->status = -EBADMSG;
		cairn_count(stage->env, XOR_OTHER_BYTE, 1);
		return;
	}
	part->meta_length = (uint16_t)(part->meta_length - META_BYTES);
}

static void part_restore(struct cairn_part *part, struct xor_part *saved, uint32_t op)
{
	part->iov = saved->iov;
	part->iov_count = saved->iov_count;
	part->crc = saved->crc;
	part->crc_count = op == CAIRN_OP_DUMP ? saved->crc_count : 0; /* a load: none filled in */
	if (op == CAIRN_OP_DUMP)
		part->meta_length = (uint16_t)(part->meta_length - META_BYTES);
	saved->changed = 0;
}

static void xor_done(void *self, struct cairn_io *io, void *scratch)
{
	struct xor_stage *stage = (struct xor_stage *)self;
	struct xor_io *mine = (struct xor_io *)scratch;
	int again = 0;
	uint32_t i;

	for (i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];
		struct xor_part *saved = &mine->parts[i];

		if (saved->later) {
			saved->later = 0;
			part->status = CAIRN_PENDING;
			again = 1;
		}
		if (!saved->changed)
			continue;
		part_restore(part, saved, io->op);
		if (io->op != CAIRN_OP_DUMP && part->status == 0)
			part_check(stage, part);
		if (io->op == CAIRN_OP_LOAD && part->status == 0)
			part_decode(stage, part);
	}
	if (mine->buffer)
		stage->host->buffer_put(io, mine->buffer);
	mine->buffer = NULL;
	if (again)
		dump_round(stage, io, mine);
	else
		stage->host->complete(io);
}

CAIRN_API const struct cairn_stage_ops cairn_stage = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "xor",
	.summary = "XORs every byte: the skeleton of a stage",
	.option_count = sizeof(xor_options) / sizeof(xor_options[0]),
	.options = xor_options,
	.counter_count = sizeof(xor_counters) / sizeof(xor_counters[0]),
	.counters = xor_counters,
	.instance_bytes = sizeof(struct xor_stage),
	.io_bytes = (sizeof(struct xor_io) + 15) / 16 * 16,
	.open = xor_open,
	.close = xor_close,
	.submit = xor_submit,
	.done = xor_done,
	.resume = xor_resume,
};
