/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC32C by carry-less multiplication alone, for processors whose CRC32 instruction takes its
 * three cycles each time: ISA-L, which goes by that instruction below AVX-512, summed 6.7 GB/s on
 * such a one, and this 9.5 to 10.5 (bench/crc32c).
 */
#ifndef BASE_CRC32C_FOLD_H
#define BASE_CRC32C_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRC32C_FOLD_STEP 64u /* bytes */

/* Whether this processor can; and whether it should. */
bool crc32c_fold_can(void);
bool crc32c_fold_faster(void);

/*
 * Takes @bytes at @data into @crc, the register itself: neither inverted before nor after. A
 * multiple of CRC32C_FOLD_STEP, and not 0. Only where crc32c_fold_can().
 */
uint32_t crc32c_fold(uint32_t crc, const void *data, size_t bytes);

#endif
