/* SPDX-License-Identifier: Apache-2.0 */
/* What people see: errors, tables, progress; and JSON for programs. */
#ifndef CLI_OUT_H
#define CLI_OUT_H

#include <stdint.h>
#include <stdbool.h>

#include <jansson.h>

/* One line on stderr: "cairn NAME: text"; NAME may be NULL. */
void out_error(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For what leaves the program unable to go on, such as no memory: exits with CLI_CANNOT. */
void out_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Whether stdout is a terminal that shows colours, and the person has not set NO_COLOR. */
bool out_colour(void);

/* A row of a table: a label, a figure, and a remark (NULL: none). */
void out_row(const char *label, const char *figure, const char *remark);
void out_row_alarm(const char *label, const char *figure, const char *remark, bool alarm);

#define OUT_TEXT_MAX 48
/* "1,234,567"; returns @buffer. */
const char *out_thousands(uint64_t value, char buffer[OUT_TEXT_MAX]);

/* "2.34 GB/s"; returns @buffer. */
const char *out_rate(double bytes_per_s, char buffer[OUT_TEXT_MAX]);

/* Shows @text in place of the last progress line, on stderr, where that is a terminal. */
bool out_progress_on(void);
void out_progress(const char *text);
void out_progress_end(void);

/* Prints one object and a newline on stdout, and gives it back; 0 or CLI_CANNOT. */
int out_json(json_t *object);

/* An object's value; dies when there is no memory. */
void out_json_set(json_t *object, const char *name, json_t *value);
void out_json_count(json_t *object, const char *name, uint64_t value);
void out_json_number(json_t *object, const char *name, double value);

/* Text that may not be UTF-8, made so: what is not becomes '?'. */
json_t *out_json_text(const char *text);

/* Catches SIGINT and SIGTERM: the first asks, the second ends the process. */
void out_stop_catch(void);
/*
 * The same for who looks often whether he is asked, and has something to close and to tell: SIGHUP
 * too, unless it was ignored, and what comes within 100 ms of the first is the same question.
 */
void out_stop_catch_work(void);
bool out_stop_asked(void);

#endif
