/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/stages.h"

const struct cairn_stage_ops *const stages_linked[] = {
	&cairn_stage_cache, &cairn_stage_posix, &cairn_stage_flash,
	&cairn_stage_null,  &cairn_stage_fault, &cairn_stage_delay,
};

const size_t stages_linked_count = sizeof(stages_linked) / sizeof(stages_linked[0]);
