/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STAGES_FLASH_FLASH_H
#define STAGES_FLASH_FLASH_H

#include <cairn/stage.h>

extern const struct cairn_stage_ops cairn_stage_flash;

#endif
