/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <errno.h>
#include <string.h>

#include "base/encode.h"

#define TRACE_SPACE 100000u /* --trace=space * TRACE_SPACE + key prints what happens to a block */

static struct model_opts opts;
static uint64_t traced;
static struct cell cells[MODEL_SPACES][MODEL_KEYS_MAX];

/*
 * Whether anything was ever to be durable: before that little is flushed, and what a cut takes of
 * it is told by nothing. @unsure: it was not at a cut, and such records may still be found.
 */
static bool asked, unsure;

void model_init(const struct model_opts *model)
{
	CHECK(model->keys <= MODEL_KEYS_MAX);
	opts = *model;
	traced = kit_number("trace", UINT64_MAX, UINT64_MAX);
	memset(cells, 0, sizeof(cells));
	asked = unsure = false;
}

struct cell *model_cell(uint32_t space, uint32_t key)
{
	return &cells[space][key];
}

/* ---- content --------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t base_of(uint32_t space, uint32_t key, uint32_t version, uint32_t shard)
{
	return mix(mix((uint64_t)key << 32 | space) + ((uint64_t)version << 16 | shard));
}

struct cairn_key model_key(uint32_t space, uint32_t key)
{
	struct cairn_key name;

	put_u64(name.bytes, base_of(space, key, 0, 1000));
	put_u64(name.bytes + 8, base_of(space, key, 0, 1001));
	return name;
}

struct shape model_shape(uint32_t space, uint32_t key, uint32_t version)
{
	struct shape shape = opts.shapes[space];
	uint64_t dice = base_of(space, key, version, 2000);

	if (!opts.variable[space])
		return shape;
	shape.shards = 1 + (uint32_t)(dice % shape.shards);
	shape.bytes =
		1 + (uint32_t)((dice >> 16) % 8 ? shape.bytes / 2 : (dice >> 32) % shape.bytes);
	shape.last = 1 + (uint32_t)((dice >> 24) % shape.bytes);
	return shape;
}

static uint32_t raw_of(const struct shape *shape, uint32_t shard)
{
	return shard + 1 == shape->shards ? shape->last : shape->bytes;
}

uint32_t model_stored(uint32_t space, uint32_t key, uint32_t version, uint32_t shard)
{
	struct shape shape = model_shape(space, key, version);
	uint32_t raw = raw_of(&shape, shard);
	uint64_t dice = base_of(space, key, version, shard + 3000);

	return dice % 4 ? raw : raw / 2 + 1; /* as if it had been compressed */
}

uint16_t model_meta(uint32_t space, uint32_t key, uint32_t version, uint32_t shard, uint8_t *meta)
{
	uint64_t base = base_of(space, key, version, shard + 4000);
	uint16_t length = (uint16_t)(base % 4 ? 0 : (base >> 8) % (CAIRN_META_MAX + 1));

	for (uint16_t i = 0; i < length; i++)
		meta[i] = (uint8_t)(base >> (i % 8 * 8));
	return length;
}

static uint64_t word_of(uint64_t base, uint64_t at)
{
	uint64_t x = base + at * 0x9e3779b97f4a7c15ull;

	return x ^ (x >> 29);
}

void model_fill(uint32_t space, uint32_t key, uint32_t version, uint32_t shard, uint8_t *to,
		uint32_t bytes)
{
	uint64_t base = base_of(space, key, version, shard), word;
	uint32_t at = 0;

	for (; at + 8 <= bytes; at += 8) {
		word = word_of(base, at / 8);
		memcpy(to + at, &word, 8);
	}
	word = word_of(base, at / 8);
	memcpy(to + at, &word, bytes - at);
}

static bool right(const struct sim_io *sio, uint32_t version, uint32_t shard, uint64_t offset,
		  const struct cairn_part *part)
{
	uint64_t base = base_of(sio->space, sio->key, version, shard);

	for (uint32_t i = 0; i < part->iov_count; i++) {
		const uint8_t *bytes = part->iov[i].iov_base;

		for (size_t at = 0; at < part->iov[i].iov_len;) {
			uint64_t word = word_of(base, offset / 8);
			size_t skip = offset % 8, some = 8 - skip;

			if (some > part->iov[i].iov_len - at)
				some = part->iov[i].iov_len - at;
			if (memcmp(bytes + at, (uint8_t *)&word + skip, some) != 0)
				return false;
			at += some;
			offset += some;
		}
	}
	return true;
}

uint64_t model_ttl_ns(uint32_t space, uint32_t key)
{
	uint64_t dice = base_of(space, key, 0, 5000);

	return !opts.expires || dice % 5 ? 0 : 1000000 + (dice >> 8) % 3000000000u;
}

/* ---- what may be there ------------------------------------------------------------- */

static uint32_t all_of(uint32_t space, uint32_t key, uint32_t version)
{
	return (1u << model_shape(space, key, version).shards) - 1;
}

/* From then on a block that is made now has expired. */
static uint32_t last_second(uint32_t space, uint32_t key)
{
	return sim_now_s() + (uint32_t)(model_ttl_ns(space, key) / 1000000000u) + 3;
}

/* What a check that fails says of the block. */
static const char *told(const struct sim_io *sio)
{
	const struct cell *cell = model_cell(sio->space, sio->key);
	static char text[300];

	snprintf(text, sizeof(text),
		 "block %u/%u, op %u as version %u (expired %u, %u dumps, %u removes), now version "
		 "%u from %u: may %u, %u dumps under way of %u, %u of %u removes, shards %x/%x, "
		 "expiry %u to %u, now %u",
		 sio->space, sio->key, sio->io.op, sio->version, sio->expired, sio->dumped,
		 sio->removes, cell->version, cell->low, cell->may, cell->dumps, cell->dumped,
		 cell->leaving, cell->removes, cell->known, cell->durable, cell->expiry_first,
		 cell->expiry_last, sim_now_s());
	return text;
}

static void trace(const struct sim_io *sio, const char *what)
{
	if ((uint64_t)sio->space * TRACE_SPACE + sio->key != traced)
		return;
	printf("%s %s; status %d, %u parts:", what, told(sio), sio->io.status, sio->io.part_count);
	for (uint32_t i = 0; i < sio->io.part_count; i++)
		printf(" %u: %d", sio->parts[i].shard, sio->parts[i].status);
	printf("\n");
}

/* It may have expired; it has. */
static bool late(const struct cell *cell)
{
	return cell->expiry_first && sim_now_s() >= cell->expiry_first;
}

bool model_fenced(const struct sim_io *sio)
{
	return sio->fences % 2 || sio->fences != sim_fences();
}

static bool expired(const struct cell *cell)
{
	return cell->expiry_last && !cell->dumps && sim_now_s() > cell->expiry_last;
}

static void ask(bool durable)
{
	asked = asked || (durable && !opts.undurable);
}

/* Another version begins: the block has gone for good. */
static void cell_end(struct cell *cell, bool durable)
{
	cell->version = ++cell->top;
	if (durable && !opts.undurable)
		cell->low = cell->version;
	cell->may = false;
	cell->known = cell->durable = 0;
	cell->expiry_first = cell->expiry_last = 0;
}

/* With sync=none such a remove or clear is refused before anything is done: what is there stays. */
static bool refused(bool durable)
{
	return durable && opts.undurable;
}

static void leave_begin(struct cell *cell)
{
	cell->removes++;
	cell->leaving++;
	cell->known = cell->durable = 0;
	cell->holds = 0;
}

/* Nobody dumped it meanwhile: @dumped as it was, or dumps under way then, tell. */
static void leave_end(struct cell *cell, uint32_t dumped, bool gone, bool durable)
{
	cell->leaving--;
	if (gone && !cell->dumps && cell->dumped == dumped)
		cell_end(cell, durable);
}

void model_sent(struct sim_io *sio)
{
	struct cell *cell = model_cell(sio->space, sio->key);
	uint64_t ttl_ns = model_ttl_ns(sio->space, sio->key);

	sio->version = cell->version;
	sio->removes = cell->leaving ? UINT32_MAX : cell->removes;
	sio->expired = expired(cell) || !cell->may;
	sio->held = cell->holds ? cell->held : 0;
	if (sio->io.op == CAIRN_OP_DUMP) {
		if (ttl_ns && sio->expired) {
			cell->expiry_first = sim_now_s() + (uint32_t)(ttl_ns / 1000000000u);
			cell->holds = 0; /* of what has expired */
			cell->held++;
		}
		cell->dumps++;
		cell->dumped++;
		cell->may = true;
	} else if (sio->io.op == CAIRN_OP_REMOVE && !refused(sio->io.durability == CAIRN_DURABLE)) {
		leave_begin(cell);
	}
	trace(sio, "sent");
	sio->dumped = cell->dumps && sio->io.op != CAIRN_OP_DUMP ? UINT32_MAX : cell->dumped;
}

/* ---- what came ------------------------------------------------------------------------ */

static void dump_done(struct sim_io *sio, struct cell *cell)
{
	bool durable = sio->io.durability == CAIRN_DURABLE;
	bool alone = !cell->dumps && cell->dumped == sio->dumped && sio->expired;
	uint64_t ttl_ns = model_ttl_ns(sio->space, sio->key);
	uint32_t until = last_second(sio->space, sio->key);

	/* Of one that failed, too: what a device that hangs was given may be there later. */
	if (ttl_ns && until > cell->expiry_last)
		cell->expiry_last = until;
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		const struct cairn_part *part = &sio->parts[i];
		uint32_t bit = 1u << part->shard;

		switch (part->status) {
		case 0:
		case CAIRN_PRESENT:
			CHECK(!alone || part->status == 0, "present, and nobody dumped it: %s",
			      told(sio));
			CHECK(!durable || !opts.undurable);
			if (cell->leaving || cell->removes != sio->removes)
				break; /* it may have gone again */
			cell->known |= bit;
			ask(durable);
			if (durable)
				cell->durable |= bit;
			else if (part->status == 0)
				cell->durable &= ~bit;
			break;
		case -ESTALE:
			CHECK(cell->removes != sio->removes, "stale, and nobody removed it");
			break;
		case -ENOSPC:
			break; /* counted by the driver */
		case -ETIMEDOUT:
			CHECK(sio->io.deadline_ns <= sim_now_ns());
			/* Of a block that was evicted: what is there now is new, and not flushed.
			 */
			cell->durable &= ~bit;
			break;
		case -EOPNOTSUPP:
			CHECK(opts.undurable && durable);
			break;
		default:
			CHECK(part->status == -EIO && (opts.writes_fail || model_fenced(sio)),
			      "a dump: %d: %s", part->status, told(sio));
			cell->durable &= ~bit;
		}
	}
	if (cell->durable == all_of(sio->space, sio->key, cell->version))
		cell->low = cell->version;
}

static bool meta_right(const struct sim_io *sio, const struct cairn_part *part, uint32_t version)
{
	uint8_t meta[CAIRN_META_MAX];
	uint16_t length = model_meta(sio->space, sio->key, version, part->shard, meta);

	return part->meta_length == length && memcmp(part->meta, meta, length) == 0 &&
	       part->stored_length == model_stored(sio->space, sio->key, version, part->shard);
}

/* All that was loaded is of this version. A few bytes may fit more than one. */
static bool all_right(const struct sim_io *sio, uint32_t version)
{
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		const struct cairn_part *part = &sio->parts[i];

		if (part->status == 0 && !(right(sio, version, part->shard, part->offset, part) &&
					   meta_right(sio, part, version)))
			return false;
	}
	return true;
}

/* The bytes are those of a version from @low to @high; which one. */
static uint32_t version_of(const struct sim_io *sio, uint32_t low, uint32_t high)
{
	for (uint32_t version = high; version + 1 > low; version--)
		if (all_right(sio, version))
			return version;
	CHECK(false, "wrong bytes in %u/%u, of no version from %u to %u", sio->space, sio->key, low,
	      high);
}

static void load_done(struct sim_io *sio, struct cell *cell)
{
	uint32_t low = opts.rots ? 0 : sio->version, high = cell->version;
	bool held = sio->held && cell->holds && cell->held == sio->held && !late(cell) &&
		    !opts.reads_fail && !opts.rots && !model_fenced(sio);

	bool any = false;

	/* Without flushes a region may have its table, and not its records, after a cut. */
	bool unsound = opts.rots || opts.writes_fail || opts.undurable || unsure;

	if (sio->verify) {
		low = opts.rots ? 0 : cell->low;
		high = cell->top;
	}
	for (uint32_t i = 0; i < sio->io.part_count; i++) {
		const struct cairn_part *part = &sio->parts[i];
		if (part->status) {
			CHECK(part->status == -ENOENT ||
				      (part->status == -EIO && opts.reads_fail) ||
				      (part->status == -EBADMSG && unsound) ||
				      (part->status == -EINVAL && cell->top > sio->version),
			      "a load: %d", part->status);
			CHECK(part->status != -ENOENT || !held, "%u/%u is held, and gone",
			      sio->space, sio->key);
			continue;
		}
		CHECK(sio->verify || cell->may || cell->version > sio->version,
		      "%u/%u is there, and was never dumped", sio->space, sio->key);
		CHECK(sio->verify || !sio->expired || cell->dumps || cell->dumped != sio->dumped,
		      "%u/%u has gone or expired, and is loaded", sio->space, sio->key);
		any = true;
	}
	if (any)
		low = version_of(sio, low, high);
	if (!sio->verify)
		return;
	if (late(cell))
		cell->demanded = false;
	CHECK(!cell->demanded || sio->parts[0].status == 0 || opts.rots || opts.reads_fail,
	      "%u/%u is lost: %d", sio->space, sio->key, sio->parts[0].status);
	CHECK(!cell->demanded || low == cell->version, "%u/%u: version %u instead of %u",
	      sio->space, sio->key, low, cell->version);
	cell->unresolved = cell->demanded = false;
	if (sio->parts[0].status) {
		/* What did not check was removed, and nobody asked for that to last. */
		cell_end(cell, !unsound);
		return;
	}
	if (model_ttl_ns(sio->space, sio->key)) {
		cell->expiry_first =
			cell->version == low && cell->expiry_first ? cell->expiry_first : 1;
		cell->expiry_last = last_second(sio->space, sio->key);
	}
	cell->version = low;
	if (!opts.undurable)
		cell->low = low;
	cell->may = true;
	cell->known = all_of(sio->space, sio->key, low);
	cell->durable = asked ? cell->known : 0;
}

void model_done(struct sim_io *sio)
{
	struct cell *cell = model_cell(sio->space, sio->key);
	int status = sio->io.status;
	bool durable = sio->io.durability == CAIRN_DURABLE;

	trace(sio, "ended");
	switch ((enum cairn_op)sio->io.op) {
	case CAIRN_OP_DUMP:
		cell->dumps--;
		dump_done(sio, cell);
		return;
	case CAIRN_OP_LOAD:
		load_done(sio, cell);
		return;
	case CAIRN_OP_REMOVE:
		if (refused(durable)) {
			CHECK(status == -EOPNOTSUPP, "a remove to be refused: %d", status);
			return;
		}
		CHECK(status == 0 || status == -ENOENT ||
			      (status == -ETIMEDOUT && sio->io.deadline_ns <= sim_now_ns()) ||
			      ((status == -EIO || status == -ENOSPC) && opts.writes_fail) ||
			      (status == -EIO && model_fenced(sio)),
		      "a remove: %d", status);
		ask(durable && (status == 0 || status == -ENOENT));
		leave_end(cell, sio->dumped, status == 0 || status == -ENOENT, durable);
		return;
	case CAIRN_OP_PREFETCH:
		CHECK(status == 0 || status == -ENOENT);
		CHECK(status || (!expired(cell) && (cell->may || cell->version != sio->version)),
		      "a prefetch of what is not there: %s", told(sio));
		return;
	case CAIRN_OP_DESCRIBE:
		for (uint32_t i = 0; i < sio->io.part_count; i++)
			CHECK(sio->parts[i].status || cell->version != sio->version ||
			      meta_right(sio, &sio->parts[i], cell->version));
		return;
	}
}

void model_looked(uint32_t space, uint32_t key, bool present)
{
	const struct cell *cell = model_cell(space, key);

	CHECK(!present || sim_fences() % 2 == 0, "%u/%u is there, and the tier is fenced", space,
	      key);
	if (cell->unresolved || sim_fences() % 2)
		return;
	if (present) {
		CHECK(cell->may || opts.rots, "%u/%u is there, and was never dumped", space, key);
		CHECK(!expired(cell), "%u/%u has expired, and is there", space, key);
		return;
	}
	CHECK(!cell->holds || late(cell) || opts.reads_fail || opts.rots, "%u/%u is held, and gone",
	      space, key);
}

static void trace_cell(uint32_t space, uint32_t key, const char *what, bool present)
{
	const struct sim_io sio = {.space = space, .key = key};

	if ((uint64_t)space * TRACE_SPACE + key == traced)
		printf("%s, present %u, demanded %u: %s\n", what, present,
		       model_cell(space, key)->demanded, told(&sio));
}

/* ---- clears, cuts, opens ---------------------------------------------------------------- */

static uint32_t clear_dumped[MODEL_SPACES][MODEL_KEYS_MAX], clear_fences;

void model_clear_begin(uint32_t space, bool durable)
{
	clear_fences = sim_fences();
	if (refused(durable))
		return;
	for (uint32_t key = 0; key < opts.keys; key++) {
		struct cell *cell = model_cell(space, key);

		leave_begin(cell);
		clear_dumped[space][key] = cell->dumps ? UINT32_MAX : cell->dumped;
	}
}

void model_clear_end(uint32_t space, int result, bool durable, bool late)
{
	if (refused(durable)) {
		CHECK(result == -EOPNOTSUPP, "a clear to be refused: %d", result);
		return;
	}
	CHECK(result == 0 || ((result == -EIO || result == -ENOSPC) && opts.writes_fail) ||
		      (result == -EIO &&
		       (late || clear_fences % 2 || clear_fences != sim_fences())),
	      "a clear: %d", result);
	for (uint32_t key = 0; key < opts.keys; key++)
		leave_end(model_cell(space, key), clear_dumped[space][key], result == 0, durable);
}

/* What was under way is not any more. */
static void cell_stop(struct cell *cell)
{
	cell->dumps = cell->leaving = cell->holds = 0;
}

void model_cut(uint32_t space, uint32_t key, bool present)
{
	struct cell *cell = model_cell(space, key);

	if (!cell->unresolved)
		cell->demanded = present && !cell->dumps && !cell->leaving && !opts.reads_fail &&
				 !opts.rots && !opts.undurable &&
				 cell->durable == all_of(space, key, cell->version);
	unsure = unsure || !asked;
	trace_cell(space, key, "cut", present);
	cell_stop(cell);
}

void model_closed(uint32_t space, uint32_t key, bool present)
{
	struct cell *cell = model_cell(space, key);

	cell_stop(cell);
	if (!present)
		cell_end(cell, true);
	cell->low = cell->version;
	cell->demanded = present && !opts.reads_fail && !opts.rots;
	trace_cell(space, key, "closed", present);
}

void model_opened(uint32_t space, uint32_t key, bool present)
{
	struct cell *cell = model_cell(space, key);

	cell_stop(cell);
	cell->unresolved = present;
	if (late(cell))
		cell->demanded = false;
	trace_cell(space, key, "opened", present);
	CHECK(present || !cell->demanded, "%u/%u, version %u, is lost", space, key, cell->version);
	if (!present)
		cell_end(cell, true);
}
