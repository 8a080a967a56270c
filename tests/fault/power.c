/* SPDX-License-Identifier: Apache-2.0 */
#include "power.h"

#include <string.h>

#define SECTOR 512u
#define PAGE   4096u

struct power_cut power_cut(struct kit_rng *rng)
{
	uint64_t kept = kit_below(rng, 101), torn = kit_below(rng, 101 - kept);

	return (struct power_cut){.rng = rng, .kept = kept, .torn = torn};
}

/* Half of its sectors or pages, or all behind or in front of one of them. */
static void tear(struct kit_rng *rng, uint64_t begin, size_t length, const uint8_t *bytes,
		 uint8_t *image)
{
	size_t step = kit_below(rng, 2) ? SECTOR : PAGE;
	uint64_t way = kit_below(rng, 3);
	size_t border = kit_below(rng, length / step + 1) * step;

	for (size_t at = 0; at < length;) {
		uint64_t place = begin + at;
		size_t some = step - place % step;
		bool keep = way == 0 ? at < border : way == 1 ? at >= border : false;

		if (some > length - at)
			some = length - at;
		if (way == 2)
			keep = kit_below(rng, 2);
		if (keep)
			memcpy(image + place, bytes + at, some);
		at += some;
	}
}

enum power_fate power_write(const struct power_cut *cut, uint64_t at, size_t length,
			    const uint8_t *bytes, uint8_t *image)
{
	uint64_t dice = kit_below(cut->rng, 100);

	if (dice >= cut->kept + cut->torn)
		return POWER_LOST;
	if (dice >= cut->kept) {
		tear(cut->rng, at, length, bytes, image);
		return POWER_TORN;
	}
	memcpy(image + at, bytes, length);
	return POWER_KEPT;
}
