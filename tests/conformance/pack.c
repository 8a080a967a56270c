/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage for tests, built as pack.so: what is stored is shorter than what the
 * caller knows. The last bytes of a shard travel in its metadata, the rest goes
 * down with checksums of this stage's making. A load asks first (describe) how
 * long the shard is stored, then loads what lies there, and takes the tail from the
 * metadata; of a whole load it compares the checksums that the tier gave back.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <cairn/stage.h>

#define TAIL	   13u	       /* bytes of a shard in its metadata, at most */
#define META_BYTES (TAIL + 2u) /* the tail, its length, a mark */
#define MARK	   0x50u

static const struct cairn_counter_row counters[] = {
	{"packed_bytes", "bytes that went into metadata", 0},
	{"unpacked_bytes", "bytes that came from it", 0},
	{"crcs_compared", "checksums compared that a tier gave back", 0},
	{"crcs_wrong", "loads whose bytes have others", 0},
};
enum { PACKED, UNPACKED, COMPARED, WRONG };

struct pack {
	const struct cairn_stage_env *env;
	uint32_t table[256];
};

/* One part as it came. */
struct pack_part {
	bool changed;
	const struct iovec *iov;
	struct iovec *own; /* in the buffer */
	uint32_t iov_count, crc_count;
	uint64_t offset, length, below; /* below: of length, what lies below */
	uint32_t *crc;
	uint8_t tail[TAIL];
	uint32_t tail_length;
};

struct pack_io {
	void *buffer; /* iovs and checksums of all parts */
	uint32_t op;  /* as it came; 0: nothing was done yet */
	bool described;
	struct pack_part parts[CAIRN_PARTS_MAX];
};

/* ---- checksums -------------------------------------------------------------- */

static uint32_t crc_add(const struct pack *pack, uint32_t crc, const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		crc = pack->table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
	return crc;
}

/* Of each CAIRN_PIECE of the first @length bytes of @iov. */
static void crc_pieces(const struct pack *pack, const struct iovec *iov, uint64_t length,
		       uint32_t *ret_crcs)
{
	uint64_t left = CAIRN_PIECE < length ? CAIRN_PIECE : length, at = 0;
	uint32_t crc = UINT32_MAX;

	while (length > 0) {
		uint64_t n = iov->iov_len - at < left ? iov->iov_len - at : left;

		crc = crc_add(pack, crc, (const uint8_t *)iov->iov_base + at, n);
		at += n;
		left -= n;
		length -= n;
		if (at == iov->iov_len) {
			iov++;
			at = 0;
		}
		if (left > 0)
			continue;
		*ret_crcs++ = ~crc;
		crc = UINT32_MAX;
		left = CAIRN_PIECE < length ? CAIRN_PIECE : length;
	}
}

static uint32_t pieces_of(uint64_t length)
{
	return (uint32_t)((length + CAIRN_PIECE - 1) / CAIRN_PIECE);
}

/* ---- segments ----------------------------------------------------------------- */

/* Copies between @bytes and the @iov, from its byte @from on. */
static void iov_copy(const struct iovec *iov, uint64_t from, uint8_t *bytes, size_t count,
		     bool to_iov)
{
	for (; count > 0; iov++) {
		size_t n = iov->iov_len > from ? iov->iov_len - from : 0;
		uint8_t *at = (uint8_t *)iov->iov_base + from;

		from = n > 0 ? 0 : from - iov->iov_len;
		n = n < count ? n : count;
		if (n > 0)
			memcpy(to_iov ? at : bytes, to_iov ? bytes : at, n);
		bytes += n;
		count -= n;
	}
}

/* The first @length bytes of the part's own segments go down. */
static void part_cut(struct cairn_part *part, struct pack_part *mine, uint64_t length)
{
	uint64_t left = length;
	uint32_t n = 0;

	for (; left > 0; n++) {
		mine->own[n] = mine->iov[n];
		if (mine->own[n].iov_len > left)
			mine->own[n].iov_len = left;
		left -= mine->own[n].iov_len;
	}
	part->iov = mine->own;
	part->iov_count = n;
	part->length = length;
}

/* ---- down --------------------------------------------------------------------- */

static void dump_part(struct pack *pack, struct cairn_part *part, struct pack_part *mine,
		      uint32_t *crcs)
{
	uint64_t stored;

	mine->tail_length = part->length > TAIL ? TAIL : (uint32_t)part->length - 1;
	stored = part->length - mine->tail_length;
	iov_copy(mine->iov, stored, mine->tail, mine->tail_length, false);
	part_cut(part, mine, stored);
	part->stored_length = stored;
	crc_pieces(pack, part->iov, stored, crcs);
	part->crc = crcs;
	part->crc_count = pieces_of(stored);
	memset(part->meta + part->meta_length, 0, META_BYTES);
	memcpy(part->meta + part->meta_length, mine->tail, mine->tail_length);
	part->meta[part->meta_length + TAIL] = (uint8_t)mine->tail_length;
	part->meta[part->meta_length + TAIL + 1] = MARK;
	part->meta_length = (uint16_t)(part->meta_length + META_BYTES);
	cairn_count(pack->env, PACKED, mine->tail_length);
}

static size_t crc_room(const struct cairn_part *part)
{
	return (pieces_of(part->length) * sizeof(uint32_t) + 15) & ~(size_t)15;
}

static bool buffer_take(struct pack *pack, struct cairn_io *io, struct pack_io *mine)
{
	size_t bytes = 0;

	for (uint32_t i = 0; i < io->part_count; i++)
		if (io->parts[i].status == CAIRN_PENDING)
			bytes += io->parts[i].iov_count * sizeof(struct iovec) +
				 crc_room(&io->parts[i]);
	assert(bytes <= pack->env->host->buffer_max); /* the tests' shards are small */
	mine->buffer = bytes ? pack->env->host->buffer_get(io, bytes) : NULL;
	return mine->buffer || bytes == 0;
}

static void start(struct pack *pack, struct cairn_io *io, struct pack_io *mine)
{
	uint8_t *at;

	if (io->part_count > 0 && io->op != CAIRN_OP_DESCRIBE && !buffer_take(pack, io, mine))
		return; /* resume() comes */
	mine->op = io->op;
	at = mine->buffer;
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];
		struct pack_part *saved = &mine->parts[i];

		if (part->status != CAIRN_PENDING)
			continue;
		*saved = (struct pack_part){.changed = true,
					    .iov = part->iov,
					    .own = (struct iovec *)at,
					    .iov_count = part->iov_count,
					    .crc_count = part->crc_count,
					    .offset = part->offset,
					    .length = part->length,
					    .crc = part->crc};
		if (at)
			at += part->iov_count * sizeof(struct iovec) + crc_room(part);
		part->crc = NULL;
		part->crc_count = 0;
		if (io->op == CAIRN_OP_DUMP)
			dump_part(pack, part, saved, (uint32_t *)(saved->own + part->iov_count));
	}
	if (io->op == CAIRN_OP_LOAD)
		io->op = CAIRN_OP_DESCRIBE;
	pack->env->host->forward(io);
}

static void pack_submit(void *self, struct cairn_io *io, void *scratch)
{
	start(self, io, scratch);
}

static void pack_resume(void *self, struct cairn_io *io, void *scratch)
{
	start(self, io, scratch);
}

/* ---- up ------------------------------------------------------------------------- */

/* Takes the metadata off, and puts back how long the shard is for the stage above. */
static void meta_take(struct cairn_part *part, struct pack_part *mine)
{
	const uint8_t *meta = part->meta + part->meta_length - META_BYTES;

	if (part->meta_length < META_BYTES || meta[TAIL + 1] != MARK || meta[TAIL] > TAIL ||
	    part->stored_length + meta[TAIL] > part->raw_length) {
		part->status = -EBADMSG;
		return;
	}
	mine->tail_length = meta[TAIL];
	memcpy(mine->tail, meta, TAIL);
	part->meta_length = (uint16_t)(part->meta_length - META_BYTES);
	part->stored_length += mine->tail_length;
}

/* What a load wants of the tail; the rest is asked for below. True: there is some. */
static bool load_rest(struct pack *pack, struct cairn_part *part, struct pack_part *mine)
{
	uint64_t stored = part->stored_length - mine->tail_length, end, from;

	if (mine->offset >= part->stored_length ||
	    mine->length > part->stored_length - mine->offset) {
		part->status = -EINVAL;
		return false;
	}
	end = mine->offset + mine->length;
	from = mine->offset > stored ? mine->offset : stored;
	mine->below = mine->offset < stored ? (end < stored ? end : stored) - mine->offset : 0;
	if (end > stored) {
		iov_copy(mine->iov, mine->below, mine->tail + (from - stored), end - from, true);
		cairn_count(pack->env, UNPACKED, end - from);
	}
	if (mine->below == 0)
		return false;
	part_cut(part, mine, mine->below);
	part->crc = (uint32_t *)(mine->own + mine->iov_count);
	part->crc_count = pieces_of(mine->length);
	part->status = CAIRN_PENDING;
	return true;
}

/* Of a shard that was loaded whole: what the tier says its checksums are. */
static void crcs_compare(struct pack *pack, struct cairn_part *part, const struct pack_part *mine)
{
	uint64_t stored = part->stored_length;
	uint32_t crcs[CAIRN_SHARD_BYTES_MAX / CAIRN_PIECE];

	if (mine->offset != 0 || mine->below != stored || part->crc_count == 0)
		return; /* a stage between changes the bytes, and says so */
	crc_pieces(pack, part->iov, stored, crcs);
	cairn_count(pack->env, COMPARED, pieces_of(stored));
	if (memcmp(crcs, part->crc, pieces_of(stored) * sizeof(*crcs)) == 0)
		return;
	cairn_count(pack->env, WRONG, 1);
	part->status = -EIO;
}

static void restore(struct cairn_part *part, const struct pack_part *mine, uint32_t op)
{
	part->iov = mine->iov;
	part->iov_count = mine->iov_count;
	part->offset = mine->offset;
	part->length = mine->length;
	part->crc = mine->crc;
	part->crc_count = op == CAIRN_OP_DUMP ? mine->crc_count : 0;
	if (op != CAIRN_OP_DUMP)
		return;
	part->stored_length = mine->length;
	part->meta_length = (uint16_t)(part->meta_length - META_BYTES);
}

/* After the describe of a load. True: something is to be loaded below. */
static bool described(struct pack *pack, struct cairn_io *io, struct pack_io *mine)
{
	bool more = false;

	io->op = CAIRN_OP_LOAD;
	mine->described = true;
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];

		if (!mine->parts[i].changed || part->status != 0)
			continue;
		meta_take(part, &mine->parts[i]);
		if (part->status == 0)
			more |= load_rest(pack, part, &mine->parts[i]);
	}
	return more;
}

static void pack_done(void *self, struct cairn_io *io, void *scratch)
{
	struct pack *pack = self;
	struct pack_io *mine = scratch;

	if (mine->op == CAIRN_OP_LOAD && !mine->described && described(pack, io, mine)) {
		pack->env->host->forward(io);
		return;
	}
	for (uint32_t i = 0; i < io->part_count; i++) {
		struct cairn_part *part = &io->parts[i];
		struct pack_part *saved = &mine->parts[i];

		if (!saved->changed)
			continue;
		if (part->status == 0 && mine->op == CAIRN_OP_LOAD && saved->below > 0) {
			crcs_compare(pack, part, saved);
			if (part->status == 0)
				meta_take(part, saved);
		}
		if (part->status == 0 && mine->op == CAIRN_OP_DESCRIBE)
			meta_take(part, saved);
		restore(part, saved, mine->op);
	}
	if (mine->buffer)
		pack->env->host->buffer_put(io, mine->buffer);
	mine->buffer = NULL;
	pack->env->host->complete(io);
}

/* ---- the table ------------------------------------------------------------------- */

static int pack_open(void *self, const struct cairn_stage_env *env, struct cairn_error *reterr)
{
	struct pack *pack = self;

	(void)reterr;
	pack->env = env;
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		pack->table[i] = crc;
	}
	return 0;
}

static void pack_close(void *self)
{
	(void)self;
}

extern const struct cairn_stage_ops cairn_stage;
CAIRN_API const struct cairn_stage_ops cairn_stage = {
	.abi_major = CAIRN_STAGE_ABI_MAJOR,
	.abi_minor = CAIRN_STAGE_ABI_MINOR,
	.size = sizeof(struct cairn_stage_ops),
	.name = "pack",
	.summary = "for tests: keeps the end of each shard in its metadata",
	.counter_count = sizeof(counters) / sizeof(counters[0]),
	.counters = counters,
	.instance_bytes = sizeof(struct pack),
	.io_bytes = (sizeof(struct pack_io) + 15) / 16 * 16,
	.open = pack_open,
	.close = pack_close,
	.submit = pack_submit,
	.done = pack_done,
	.resume = pack_resume,
};
