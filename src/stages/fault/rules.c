/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cairn/stage.h>

#include "base/units.h"
#include "stages/fault/rules.h"

struct name {
	const char *text;
	int value;
};

static const struct name operations[] = {
	{"load", CAIRN_OP_LOAD},	 {"dump", CAIRN_OP_DUMP},
	{"remove", CAIRN_OP_REMOVE},	 {"prefetch", CAIRN_OP_PREFETCH},
	{"describe", CAIRN_OP_DESCRIBE},
};

static const struct name errors[] = {
	{"EIO", EIO},	    {"ENOSPC", ENOSPC}, {"EBADMSG", EBADMSG}, {"ENOENT", ENOENT},
	{"ESTALE", ESTALE}, {"EAGAIN", EAGAIN}, {"EFBIG", EFBIG},     {"ETIMEDOUT", ETIMEDOUT},
	{"EBUSY", EBUSY},   {"EINVAL", EINVAL}, {"ENOMEM", ENOMEM},   {"EOPNOTSUPP", EOPNOTSUPP},
	{"EROFS", EROFS},   {"EACCES", EACCES}, {"ENODEV", ENODEV},   {"ECANCELED", ECANCELED},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct cursor {
	const char *text, *at;
	char *why;
	size_t why_bytes;
};

static const struct name *name_find(const struct name *names, size_t count, const char *word,
				    size_t length)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (strlen(names[i].text) == length && strncmp(names[i].text, word, length) == 0)
			return &names[i];
	return NULL;
}

static int wrong(const struct cursor *cursor, const char *word, size_t length, const char *right)
{
	snprintf(cursor->why, cursor->why_bytes, "rule, character %zu: \"%.*s\" is not %s",
		 (size_t)(word - cursor->text) + 1, (int)(length > 40 ? 40 : length), word, right);
	return -EINVAL;
}

/* The next field: up to a colon, a comma or the end of the text. */
static const char *field_take(struct cursor *cursor, size_t *ret_length)
{
	const char *start = cursor->at;

	*ret_length = strcspn(start, ":,");
	cursor->at += *ret_length;
	return start;
}

static int colon_take(struct cursor *cursor, const char *missing)
{
	if (*cursor->at == ':') {
		cursor->at++;
		return 0;
	}
	snprintf(cursor->why, cursor->why_bytes,
		 "rule, character %zu: here \":\" and %s are missing; a rule is "
		 "operation:outcome:when, for example load:EIO:0.2 or dump:ENOSPC:#17",
		 (size_t)(cursor->at - cursor->text) + 1, missing);
	return -EINVAL;
}

static int outcome_parse(struct cursor *cursor, struct fault_rule *rule)
{
	const struct name *error;
	size_t length;
	const char *word = field_take(cursor, &length);

	if (length == 5 && strncmp(word, "short", 5) == 0) {
		rule->outcome = FAULT_SHORT;
		if (rule->op == CAIRN_OP_LOAD)
			return 0;
		return wrong(cursor, word, length, "possible here: only a load can be short");
	}
	if (length == 4 && strncmp(word, "hang", 4) == 0) {
		rule->outcome = FAULT_HANG;
		return 0;
	}
	error = name_find(errors, COUNT(errors), word, length);
	if (!error)
		return wrong(cursor, word, length,
			     "an outcome; EIO, ENOSPC, EBADMSG, ENOENT, ESTALE, EAGAIN, EFBIG, "
			     "ETIMEDOUT, another errno name, short or hang would be");
	rule->outcome = FAULT_ERROR;
	rule->error = -error->value;
	return 0;
}

static int when_parse(struct cursor *cursor, struct fault_rule *rule)
{
	char text[32] = "";
	size_t length;
	const char *word = field_take(cursor, &length);

	if (length > 0 && length < sizeof(text)) {
		memcpy(text, word, length);
		if (text[0] == '#' && units_parse_count(text + 1, &rule->nth) == 0 && rule->nth > 0)
			return 0;
		if (text[0] != '#' && units_parse_number(text, &rule->probability) == 0 &&
		    rule->probability >= 0 && rule->probability <= 1) {
			rule->nth = 0;
			return 0;
		}
	}
	return wrong(cursor, word, length,
		     "a probability from 0 to 1 or the number of a call from 1; "
		     "for example 0.2 or #17 would be");
}

static int rule_parse(struct cursor *cursor, struct fault_rule *rule)
{
	const struct name *operation;
	const char *word;
	size_t length;
	int ret;

	cursor->at += strspn(cursor->at, " ");
	word = field_take(cursor, &length);
	operation = name_find(operations, COUNT(operations), word, length);
	if (!operation)
		return wrong(cursor, word, length,
			     "an operation; load, dump, remove, prefetch or describe would be");
	rule->op = (uint32_t)operation->value;
	ret = colon_take(cursor, "an outcome");
	if (ret == 0)
		ret = outcome_parse(cursor, rule);
	if (ret == 0)
		ret = colon_take(cursor, "a probability or #n");
	if (ret == 0)
		ret = when_parse(cursor, rule);
	if (ret == 0 && *cursor->at != ',' && *cursor->at != '\0')
		ret = wrong(cursor, cursor->at, 1, "the end of a rule; a comma would be");
	return ret;
}

int fault_rules_parse(const char *text, struct fault_rule ret_rules[FAULT_RULES_MAX], char *why,
		      size_t why_bytes)
{
	struct cursor cursor = {text, text, why, why_bytes};
	int count = 0, ret;

	assert(text && why && why_bytes > 0);
	do {
		if (count == FAULT_RULES_MAX) {
			snprintf(why, why_bytes, "rule, character %zu: more than %d rules",
				 (size_t)(cursor.at - text) + 1, FAULT_RULES_MAX);
			return -EINVAL;
		}
		memset(&ret_rules[count], 0, sizeof(ret_rules[count]));
		ret = rule_parse(&cursor, &ret_rules[count]);
		if (ret < 0)
			return ret;
		count++;
	} while (*cursor.at++ == ',');
	return count;
}

/* The finalizer of splitmix64: Steele, Lea, Flood, "Fast splittable PRNGs", 2014. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

int fault_rule_hits(const struct fault_rule *rule, uint32_t rule_index, uint64_t call,
		    uint64_t seed)
{
	uint64_t dice;

	assert(call > 0);
	if (rule->nth > 0)
		return call == rule->nth;
	dice = mix(mix(seed + rule_index) ^ call);
	/* 53 bits, as many as a double holds: a probability of 1 always hits, 0 never. */
	return (double)(dice >> 11) * 0x1p-53 < rule->probability;
}
