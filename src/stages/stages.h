/* SPDX-License-Identifier: Apache-2.0 */
/* The stages that are linked in. */
#ifndef STAGES_STAGES_H
#define STAGES_STAGES_H

#include <cairn/stage.h>

#include "stages/flash/flash.h"
#include "stages/posix/posix.h"

extern const struct cairn_stage_ops cairn_stage_cache, cairn_stage_null, cairn_stage_fault,
	cairn_stage_delay;

extern const struct cairn_stage_ops *const stages_linked[];
extern const size_t stages_linked_count;

#endif
