/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions that a hit on its caller's thread runs lie side by side in the library. After
 * a pause none of them is in the processor's caches any more, nor are the pages that hold
 * them in its TLB: then it is the number of pages and lines that a hit costs.
 */
#ifndef BASE_HOT_H
#define BASE_HOT_H

#define HIT_PATH __attribute__((hot))

#endif
