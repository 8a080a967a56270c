/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage for tests, built as upper.so and lower.so: its table is the test's, who
 * fills it before a store is opened. So a tier of the library can stand in a
 * pipeline with calls of the test's own in front.
 */
#include <cairn/stage.h>

extern struct cairn_stage_ops cairn_stage;
__attribute__((visibility("default"))) struct cairn_stage_ops cairn_stage;
