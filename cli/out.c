/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "out.h"

#define LABEL_WIDTH  26
#define FIGURE_WIDTH 16

void out_error(const char *name, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	flockfile(stderr);
	fprintf(stderr, name ? "cairn %s: " : "cairn: ", name);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	funlockfile(stderr);
	va_end(list);
}

void out_die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fprintf(stderr, "cairn: ");
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	exit(CLI_CANNOT);
}

bool out_colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb");
}

void out_row_alarm(const char *label, const char *figure, const char *remark, bool alarm)
{
	bool colour = out_colour();

	printf("%-*s%s%*s%s", LABEL_WIDTH, label,
	       !colour ? ""
	       : alarm ? "\033[1;31m"
		       : "\033[1m",
	       FIGURE_WIDTH, figure, colour ? "\033[0m" : "");
	if (remark && *remark)
		printf("  %s", remark);
	putchar('\n');
}

void out_row(const char *label, const char *figure, const char *remark)
{
	out_row_alarm(label, figure, remark, false);
}

const char *out_thousands(uint64_t value, char buffer[OUT_TEXT_MAX])
{
	char digits[24];
	size_t at = 0;
	int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			buffer[at++] = ',';
		buffer[at++] = digits[i];
	}
	buffer[at] = '\0';
	return buffer;
}

const char *out_rate(double bytes_per_s, char buffer[OUT_TEXT_MAX])
{
	if (bytes_per_s >= 1e9)
		snprintf(buffer, OUT_TEXT_MAX, "%.2f GB/s", bytes_per_s / 1e9);
	else
		snprintf(buffer, OUT_TEXT_MAX, "%.1f MB/s", bytes_per_s / 1e6);
	return buffer;
}

bool out_progress_on(void)
{
	return isatty(STDERR_FILENO);
}

void out_progress(const char *text)
{
	if (out_progress_on())
		fprintf(stderr, "\r\033[K%s", text);
}

void out_progress_end(void)
{
	out_progress("");
}

int out_json(json_t *object)
{
	int rc = json_dumpf(object, stdout, JSON_REAL_PRECISION(12));

	json_decref(object);
	if (rc || putchar('\n') == EOF || fflush(stdout)) {
		out_error(NULL, "stdout: could not write the result");
		return CLI_CANNOT;
	}
	return CLI_OK;
}

void out_json_set(json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value))
		out_die("no memory for the JSON result");
}

void out_json_count(json_t *object, const char *name, uint64_t value)
{
	/* jansson's integers are signed: UINT64_MAX ("unbounded") becomes null */
	out_json_set(object, name,
		     value > INT64_MAX ? json_null() : json_integer((json_int_t)value));
}

void out_json_number(json_t *object, const char *name, double value)
{
	out_json_set(object, name, json_real(value));
}

json_t *out_json_text(const char *text)
{
	json_t *value = json_string(text);
	char *copy;

	if (value || !text)
		return value ? value : json_null();
	copy = strdup(text);
	for (char *c = copy; c && *c; c++)
		*c = *c & (char)0x80 ? '?' : *c;
	value = json_string(copy);
	free(copy);
	return value;
}

/* timeout(1) asks the process and then its group: what comes so soon is the same question. */
#define STOP_SAME_NS 100000000ull

static volatile sig_atomic_t stop_asked;
static _Atomic uint64_t stop_asked_ns; /* atomic: two threads may have handlers at once */

static void stop_ask(int number)
{
	(void)number;
	stop_asked = 1;
}

static void stop_ask_work(int number)
{
	struct timespec now = {0};
	uint64_t now_ns, first = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	stop_asked = 1;
	if (atomic_compare_exchange_strong(&stop_asked_ns, &first, now_ns) || now_ns <= first ||
	    now_ns - first < STOP_SAME_NS)
		return;
	signal(number, SIG_DFL); /* whoever asks twice is obeyed at once */
	raise(number);
}

void out_stop_catch(void)
{
	/* SA_RESETHAND: whoever asks twice is obeyed at once */
	struct sigaction action = {.sa_handler = stop_ask, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

void out_stop_catch_work(void)
{
	struct sigaction action = {.sa_handler = stop_ask_work}, before;

	/* Of a terminal that is gone; nohup(1) has it ignored, and so it stays. */
	if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

bool out_stop_asked(void)
{
	return stop_asked != 0;
}
