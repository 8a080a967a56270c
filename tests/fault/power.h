/* SPDX-License-Identifier: Apache-2.0 */
/* What a power cut leaves of writes that were not flushed. */
#ifndef TESTS_FAULT_POWER_H
#define TESTS_FAULT_POWER_H

#include "kit.h"

/* Of some cuts nearly all comes through, of others nearly nothing: of 100 writes. */
struct power_cut {
	struct kit_rng *rng;
	uint64_t kept, torn;
};

enum power_fate { POWER_KEPT, POWER_TORN, POWER_LOST };

struct power_cut power_cut(struct kit_rng *rng);
/* What comes of a write, the next in order: that, in @image, the bytes of the device. */
enum power_fate power_write(const struct power_cut *cut, uint64_t at, size_t length,
			    const uint8_t *bytes, uint8_t *image);

#endif
