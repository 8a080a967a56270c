/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block device behind the sys table: one file, whose writes and flushes are
 * recorded, so that at any moment an image can be made of what a power cut would
 * leave: all that was flushed, and of every write that was not a random part,
 * whole, torn at sectors or pages, or not at all.
 *
 * Rules of the model:
 *  1. A flush covers the writes that had ended when it began, and no other.
 *  2. Of writes to the same bytes the later one counts, if it counts at all.
 *  3. The size of the file is there at once: a device has one size.
 *
 * One at a time in a process. Only engine=psync goes through the table.
 */
#ifndef TESTS_CRASH_DEVICE_H
#define TESTS_CRASH_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "../fault/kit.h"
#include "sys/sys.h"

const struct sys *device_sys(void);
/* Plain calls whatever is asked for: libaio costs a close tens of milliseconds. */
const struct engine_ops *device_engine(enum engine_kind kind);

/* At the beginning or end of a write, or (@bytes NULL) of a flush. */
typedef void device_cut_fn(uint64_t at, size_t length, const uint8_t *bytes);

/*
 * The file at @path, of @bytes, is the device from now on; what it has counts as
 * flushed. @at_cut is called at the cut, on the thread whose write or flush it
 * was: before any that comes after has ended.
 */
void device_begin(const char *path, size_t bytes, uint64_t seed, device_cut_fn *at_cut);
void device_end(void);

/* The cut comes @events writes and flushes from now on, if none is kept. */
void device_cut_in(uint64_t events);
/* The image of the cut, until device_cut_done(); NULL: there was none yet. */
const uint8_t *device_cut(void);
void device_cut_done(void);
/* Writes that were not flushed, and how many of these were torn and dropped, at all cuts. */
void device_figures(uint64_t ret_figures[3]);

#endif
