/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compositions, process-wide. The list only grows: a definition hides the
 * earlier ones of its name, and what was found stays readable without the lock.
 */
#include "core/spec.h"
#include "core/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct composition {
	struct composition *next; /* the lock's; never changes once it is not NULL */
	const char *name, *text, *help;
};

/* They come first, one after the other, and the list never ends before them. */
static struct composition predefined[] = {
	{&predefined[1], "local", "flash(path=/var/lib/cairn.kv, size=32GiB)",
	 "the best that this build has on one machine"},
	{&predefined[2], "shared", "posix(path=/var/lib/cairn-shared, shared=yes)",
	 "a directory that processes and machines share"},
	{&predefined[3], "ranks", "posix(path=\"/var/lib/cairn-rank{rank}\")",
	 "a store for each rank of a parallel engine"},
	{NULL, "memory", "null(size=1GiB)", "in this process, gone with it: to try things out"},
};

#define PREDEFINED (sizeof(predefined) / sizeof(predefined[0]))

static struct composition *const first = &predefined[0];
static struct composition *const last_predefined = &predefined[PREDEFINED - 1];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct composition *last = &predefined[PREDEFINED - 1]; /* the lock's */

static bool is_predefined(const struct composition *c)
{
	return c >= first && c <= last_predefined;
}

static void list_lock(void)
{
	fork_watch();
	pthread_mutex_lock(&lock);
}

void compositions_hold(void)
{
	pthread_mutex_lock(&lock);
}

void compositions_go_on(void)
{
	pthread_mutex_unlock(&lock);
}

/* The next one, or NULL. */
static const struct composition *following(const struct composition *c)
{
	const struct composition *next;

	list_lock();
	next = c->next;
	pthread_mutex_unlock(&lock);
	return next;
}

static const struct composition *find(const char *name)
{
	const struct composition *found = NULL;

	for (const struct composition *c = first; c; c = following(c))
		if (strcmp(c->name, name) == 0)
			found = c;
	return found;
}

const char *compositions_find(const char *name)
{
	const struct composition *found = find(name);

	return found ? found->text : NULL;
}

#define HINT_NAMES_MAX 256u

const char *compositions_hint(const char *name, char buffer[SPEC_HINT_MAX])
{
	const char *names[HINT_NAMES_MAX], *closest;
	size_t n = 0;

	for (const struct composition *c = first; c && n < HINT_NAMES_MAX; c = following(c))
		names[n++] = c->name;
	closest = spec_closest(name, names, n);
	if (closest)
		snprintf(buffer, SPEC_HINT_MAX, "; did you mean \"@%s\"?", closest);
	else
		snprintf(buffer, SPEC_HINT_MAX, "; define it, or see \"cairn stages\"");
	return buffer;
}

static struct composition *composition_new(const struct sys *sys, const char *name,
					   size_t name_length, const char *text, size_t text_length)
{
	struct composition *c = sys->alloc(_Alignof(struct composition),
					   sizeof(*c) + name_length + 1 + text_length + 1);
	char *strings;

	if (!c)
		return NULL;
	strings = (char *)(c + 1);
	memcpy(strings, name, name_length);
	strings[name_length] = '\0';
	memcpy(strings + name_length + 1, text, text_length);
	strings[name_length + 1 + text_length] = '\0';
	*c = (struct composition){
		.name = strings,
		.text = strings + name_length + 1,
		.help = "defined by the user",
	};
	return c;
}

static void list_free(const struct sys *sys, struct composition *c)
{
	while (c) {
		struct composition *next = c->next;

		sys->free(c);
		c = next;
	}
}

static void publish(struct composition *begin, struct composition *end)
{
	list_lock();
	assert(!last->next && !end->next);
	last->next = begin;
	last = end;
	pthread_mutex_unlock(&lock);
}

int compositions_define(const struct sys *sys, const char *name, const char *spec,
			struct cairn_error *reterr)
{
	const struct composition *there;
	struct composition *c;
	char quoted[TOKEN_NAME_MAX];
	int err;

	if (*name == '@')
		name++;
	if (!spec_is_name(name, strlen(name)))
		return spec_fail(reterr, -EINVAL, 0, 0, "%s is no composition's name; %s",
				 spec_quote(name, strlen(name), quoted), SPEC_NAME_RULE);
	err = spec_check(sys, spec, reterr);
	if (err)
		return err;
	there = find(name);
	if (there && !is_predefined(there) && strcmp(there->text, spec) == 0)
		return 0;
	c = composition_new(sys, name, strlen(name), spec, strlen(spec));
	if (!c)
		return spec_fail(reterr, -ENOMEM, 0, 0, "no memory for @%s", name);
	publish(c, c);
	return 0;
}

/* ---- files -------------------------------------------------------------------- */

struct reading {
	const struct sys *sys;
	struct composition *begin, *end;
	int count;
	struct cairn_error *reterr;
};

static int take_definition(void *context, const struct token *name, const char *text, size_t length)
{
	struct reading *r = context;
	struct composition *c;

	for (c = r->begin; c; c = c->next)
		if (strlen(c->name) == name->length && memcmp(c->name, name->at, name->length) == 0)
			return spec_fail(r->reterr, -EINVAL, name->line, name->column,
					 "@%s is defined twice in this file; leave one out",
					 c->name);
	c = composition_new(r->sys, name->at, name->length, text, length);
	if (!c)
		return spec_fail(r->reterr, -ENOMEM, name->line, name->column,
				 "no memory for @%.*s", (int)name->length, name->at);
	if (r->end)
		r->end->next = c;
	else
		r->begin = c;
	r->end = c;
	r->count++;
	return 0;
}

/* Reads @fd to its end; @buffer has SPEC_TEXT_MAX + 1 bytes. Bytes read, or an errno. */
static ssize_t read_all(const struct sys *sys, int fd, char *buffer)
{
	size_t got = 0;

	while (got <= SPEC_TEXT_MAX) {
		struct iovec iov = {.iov_base = buffer + got, .iov_len = SPEC_TEXT_MAX + 1 - got};
		ssize_t n = sys->preadv(fd, &iov, 1, (off_t)got);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

/* The file's text with a NUL at its end in @buffer (SPEC_TEXT_MAX + 1 bytes). */
static int read_text(const struct sys *sys, const char *path, char *buffer,
		     struct cairn_error *reterr)
{
	int fd = sys->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd == -ENOENT || fd == -ENOTDIR)
		return spec_fail(reterr, -ENOENT, 0, 0, "%s: no such file", path);
	if (fd < 0)
		return spec_fail(reterr, fd, 0, 0, "%s: cannot be opened: %s", path, strerror(-fd));
	n = read_all(sys, fd, buffer);
	sys->close(fd);
	if (n < 0)
		return spec_fail(reterr, (int)n, 0, 0, "%s: cannot be read: %s", path,
				 strerror((int)-n));
	if (n > (ssize_t)SPEC_TEXT_MAX)
		return spec_fail(reterr, -EINVAL, 0, 0,
				 "%s: longer than 64 KiB; that is the most there can be", path);
	if (memchr(buffer, '\0', (size_t)n))
		return spec_fail(reterr, -EINVAL, 0, 0,
				 "%s: has a NUL byte; definitions are plain text", path);
	buffer[n] = '\0';
	return 0;
}

int compositions_define_file(const struct sys *sys, const char *path, struct cairn_error *reterr)
{
	struct reading r = {.sys = sys, .reterr = reterr};
	char *buffer = sys->alloc(1, SPEC_TEXT_MAX + 1);
	int err;

	if (!buffer)
		return spec_fail(reterr, -ENOMEM, 0, 0, "%s: no memory to read it", path);
	err = read_text(sys, path, buffer, reterr);
	if (!err)
		err = spec_definitions(sys, buffer, take_definition, &r, reterr);
	sys->free(buffer);
	if (err) {
		list_free(sys, r.begin);
		return err;
	}
	if (r.begin)
		publish(r.begin, r.end);
	return r.count;
}

/* ---- listing -------------------------------------------------------------------- */

int compositions_each(int (*fn)(void *context, const char *name, const char *spec,
				const char *help),
		      void *context)
{
	for (const struct composition *c = first; c; c = following(c)) {
		int stop;

		if (find(c->name) != c) /* hidden */
			continue;
		stop = fn(context, c->name, c->text, c->help);
		if (stop)
			return stop;
	}
	return 0;
}

void compositions_reset(const struct sys *sys)
{
	struct composition *users;

	list_lock();
	users = last_predefined->next;
	last_predefined->next = NULL;
	last = last_predefined;
	pthread_mutex_unlock(&lock);
	list_free(sys, users);
}
