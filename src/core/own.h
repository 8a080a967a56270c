/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_OWN_H
#define CORE_OWN_H

#include "core/stage_env.h"

/* What stages have of tasks of their own. */
void own_env_init(struct stage_env *internal);

#endif
