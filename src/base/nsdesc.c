/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/encode.h"
#include "base/nsdesc.h"
#include "base/sized.h"

struct text_field {
	const char *name, *text;
};

#define TEXT_FIELDS 6

static void text_fields(const struct cairn_namespace_desc *desc,
			struct text_field ret_fields[TEXT_FIELDS])
{
	ret_fields[0] = (struct text_field){"model", desc->model};
	ret_fields[1] = (struct text_field){"revision", desc->revision};
	ret_fields[2] = (struct text_field){"dtype", desc->dtype};
	ret_fields[3] = (struct text_field){"layout", desc->layout};
	ret_fields[4] = (struct text_field){"parallel", desc->parallel};
	ret_fields[5] = (struct text_field){"tenant", desc->tenant};
	for (int i = 0; i < TEXT_FIELDS; i++)
		if (!ret_fields[i].text)
			ret_fields[i].text = "";
}

__attribute__((format(printf, 2, 3))) static bool bad(char why[NSDESC_WHY_MAX], const char *format,
						      ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, NSDESC_WHY_MAX, format, args);
	va_end(args);
	return false;
}

static bool check_geometry(const struct cairn_namespace_desc *desc, char why[NSDESC_WHY_MAX])
{
	if (desc->shard_count > CAIRN_SHARD_COUNT_MAX)
		return bad(why, "shard_count is %u; at most %u", desc->shard_count,
			   CAIRN_SHARD_COUNT_MAX);
	if (desc->shard_bytes > CAIRN_SHARD_BYTES_MAX)
		return bad(why, "shard_bytes is %llu; at most %u",
			   (unsigned long long)desc->shard_bytes, CAIRN_SHARD_BYTES_MAX);
	if ((desc->shard_count == 0) != (desc->shard_bytes == 0))
		return bad(why,
			   "shard_count is %u and shard_bytes %llu; both are zero for a variable "
			   "geometry, or neither",
			   desc->shard_count, (unsigned long long)desc->shard_bytes);
	return true;
}

bool nsdesc_check(const struct cairn_namespace_desc *desc, char why[NSDESC_WHY_MAX])
{
	struct text_field fields[TEXT_FIELDS];

	if (!desc || !sized(desc, desc->size, sizeof(*desc)))
		return bad(why, SIZED_RULE, desc ? desc->size : 0, sizeof(*desc));
	text_fields(desc, fields);
	for (int i = 0; i < TEXT_FIELDS; i++)
		if (strnlen(fields[i].text, CAIRN_NAME_MAX + 1) > CAIRN_NAME_MAX)
			return bad(why, "%s is longer than %u bytes", fields[i].name,
				   CAIRN_NAME_MAX);
	if (desc->salt_length > CAIRN_NAME_MAX)
		return bad(why, "salt of %zu bytes; at most %u", desc->salt_length, CAIRN_NAME_MAX);
	if (desc->salt_length > 0 && !desc->salt)
		return bad(why, "salt is NULL, but salt_length is %zu", desc->salt_length);
	if (desc->rank >= (desc->world ? desc->world : 1))
		return bad(why, "rank %u of a world of %u", desc->rank,
			   desc->world ? desc->world : 1);
	return check_geometry(desc, why);
}

static size_t put_bytes(uint8_t *at, const void *bytes, size_t length)
{
	put_u64(at, length);
	if (length > 0)
		memcpy(at + 8, bytes, length);
	return 8 + length;
}

size_t nsdesc_encode(const struct cairn_namespace_desc *desc, uint8_t buffer[NSDESC_MAX])
{
	struct text_field fields[TEXT_FIELDS];
	size_t at = sizeof(NSDESC_DOMAIN);

	memcpy(buffer, NSDESC_DOMAIN, at);
	text_fields(desc, fields);
	for (int i = 0; i < TEXT_FIELDS; i++)
		at += put_bytes(buffer + at, fields[i].text, strlen(fields[i].text));
	at += put_bytes(buffer + at, desc->salt, desc->salt_length);
	put_u32(buffer + at, desc->rank);
	put_u32(buffer + at + 4, desc->world ? desc->world : 1);
	put_u32(buffer + at + 8, desc->format_version);
	put_u32(buffer + at + 12, desc->shard_count);
	put_u64(buffer + at + 16, desc->shard_bytes);
	at += 24;
	assert(at <= NSDESC_MAX);
	return at;
}

struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *take(struct reader *reader, uint64_t bytes)
{
	const uint8_t *at = reader->at;

	if (reader->bad || bytes > reader->left) {
		reader->bad = true;
		return NULL;
	}
	reader->at += bytes;
	reader->left -= bytes;
	return at;
}

/* A counted text into @texts; a text with a zero byte inside is none. */
static const char *take_text(struct reader *reader, char **texts, size_t *ret_length)
{
	const uint8_t *count = take(reader, 8);
	uint64_t length = count ? get_u64(count) : 0;
	const uint8_t *bytes;
	char *text = *texts;

	if (length > CAIRN_NAME_MAX)
		reader->bad = true;
	bytes = take(reader, length);
	if (!bytes)
		return "";
	memcpy(text, bytes, length);
	text[length] = '\0';
	*texts += length + 1;
	if (ret_length)
		*ret_length = length;
	else if (strlen(text) != length)
		reader->bad = true;
	return text;
}

int nsdesc_decode(const void *encoded, size_t length, char *texts,
		  struct cairn_namespace_desc *ret_desc)
{
	struct reader reader = {encoded, length, false};
	const uint8_t *domain = take(&reader, sizeof(NSDESC_DOMAIN));
	const uint8_t *numbers;
	char why[NSDESC_WHY_MAX];

	if (!domain || memcmp(domain, NSDESC_DOMAIN, sizeof(NSDESC_DOMAIN)) != 0)
		return -EBADMSG;
	memset(ret_desc, 0, sizeof(*ret_desc));
	ret_desc->size = sizeof(*ret_desc);
	ret_desc->model = take_text(&reader, &texts, NULL);
	ret_desc->revision = take_text(&reader, &texts, NULL);
	ret_desc->dtype = take_text(&reader, &texts, NULL);
	ret_desc->layout = take_text(&reader, &texts, NULL);
	ret_desc->parallel = take_text(&reader, &texts, NULL);
	ret_desc->tenant = take_text(&reader, &texts, NULL);
	ret_desc->salt = take_text(&reader, &texts, &ret_desc->salt_length);
	numbers = take(&reader, 24);
	if (!numbers || reader.left > 0)
		return -EBADMSG;
	ret_desc->rank = get_u32(numbers);
	ret_desc->world = get_u32(numbers + 4);
	ret_desc->format_version = get_u32(numbers + 8);
	ret_desc->shard_count = get_u32(numbers + 12);
	ret_desc->shard_bytes = get_u64(numbers + 16);
	return nsdesc_check(ret_desc, why) ? 0 : -EBADMSG;
}
