/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_SETTINGS_H
#define CORE_SETTINGS_H

#include "core/store.h"

#define SETTING_ENGINE_AUTO 3u /* the last choice; the others are enum engine_kind */

/* The option rows of the pseudo-stage `store`. */
const struct cairn_option *settings_rows(uint32_t *ret_count);

/* COUNT_STORE_ROWS rows. */
const struct cairn_counter_row *store_counter_rows(void);

#endif
