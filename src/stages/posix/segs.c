/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: the caller's memory, in a row. */
#include "stages/posix/tier.h"

/* What buffered writes pad shards with. Only read. */
static _Alignas(FORMAT_PAGE) uint8_t zero_page[FORMAT_PAGE];

bool segs_aligned(const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t length)
{
	struct iov_walk walk = {iov, count, skip, length};
	uint64_t bytes;
	uint8_t *base;

	while (iov_next(&walk, &base, &bytes)) {
		if ((uintptr_t)base % FORMAT_PAGE)
			return false;
		if (bytes % FORMAT_PAGE && walk.left)
			return false;
	}
	return true;
}

/* What a failed addition is taken back to. */
struct round_mark {
	uint32_t run_count, iov_count;
	size_t bounce_at;
	struct run run;
	struct iovec iov;
};

static void round_mark(const struct pio *p, struct round_mark *ret_mark)
{
	memset(ret_mark, 0, sizeof(*ret_mark));
	ret_mark->run_count = p->run_count;
	ret_mark->iov_count = p->iov_count;
	ret_mark->bounce_at = p->bounce_at;
	if (p->run_count)
		ret_mark->run = p->runs[p->run_count - 1];
	if (p->iov_count)
		ret_mark->iov = p->iov[p->iov_count - 1];
}

static void round_back(struct pio *p, const struct round_mark *mark)
{
	p->run_count = mark->run_count;
	p->iov_count = mark->iov_count;
	p->bounce_at = mark->bounce_at;
	if (p->run_count)
		p->runs[p->run_count - 1] = mark->run;
	if (p->iov_count)
		p->iov[p->iov_count - 1] = mark->iov;
}

/* The rest of the last page of a shard. */
static bool tail_add(struct pio *p, const struct cairn_part *part, uint64_t skip, uint64_t tail,
		     uint64_t offset, uint8_t **ret_tail_page)
{
	bool dump = p->io->op == CAIRN_OP_DUMP;
	uint8_t *page;

	if (!p->tier->direct) /* a dump: what is behind the tail */
		return pio_run_add(p, offset + tail, zero_page, FORMAT_PAGE - tail);
	page = pio_bounce(p, FORMAT_PAGE);
	if (!page || !pio_run_add(p, offset, page, FORMAT_PAGE))
		return false;
	if (dump) {
		iov_gather(part->iov, part->iov_count, skip, tail, page);
		memset(page + tail, 0, FORMAT_PAGE - tail);
	}
	*ret_tail_page = page;
	return true;
}

bool segs_add(struct pio *p, const struct cairn_part *part, uint64_t skip, uint64_t length,
	      uint64_t offset, uint8_t **ret_tail_page)
{
	uint64_t tail = length % FORMAT_PAGE;
	uint64_t body = p->tier->direct ? length - tail : length;
	struct iov_walk walk = {part->iov, part->iov_count, skip, body};
	struct round_mark mark;
	uint64_t bytes, at = offset;
	uint8_t *base;

	round_mark(p, &mark);
	*ret_tail_page = NULL;
	while (iov_next(&walk, &base, &bytes)) {
		if (!pio_run_add(p, at, base, bytes)) {
			round_back(p, &mark);
			return false;
		}
		at += bytes;
	}
	if (!tail || (!p->tier->direct && p->io->op != CAIRN_OP_DUMP))
		return true;
	if (tail_add(p, part, skip + length - tail, tail, offset + length - tail, ret_tail_page))
		return true;
	round_back(p, &mark);
	return false;
}
