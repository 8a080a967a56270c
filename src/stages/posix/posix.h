/* SPDX-License-Identifier: Apache-2.0 */
/* The posix tier: one file a block in a directory of any file system. docs/format.md. */
#ifndef POSIX_POSIX_H
#define POSIX_POSIX_H

#include <cairn/stage.h>

extern const struct cairn_stage_ops cairn_stage_posix;

#endif
