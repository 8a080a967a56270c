/* SPDX-License-Identifier: Apache-2.0 */
/* What a file or device holds that is no store: so that nobody overwrites it by a typing error. */
#ifndef FLASH_FOREIGN_H
#define FLASH_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

/* Of the first @bytes: a name with its article; NULL: nothing that has a name here. */
const char *flash_foreign(const void *start, size_t bytes);

#endif
