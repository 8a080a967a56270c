/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/posix/names.h"

#include <string.h>

static const char digits[] = "0123456789abcdef";

/* A lookup under shared=yes is one of these and one system call a key. */
static char *put_bytes(char *at, const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		*at++ = digits[bytes[i] >> 4];
		*at++ = digits[bytes[i] & 15];
	}
	return at;
}

static char *put_u32(char *at, uint32_t value)
{
	for (int shift = 28; shift >= 0; shift -= 4)
		*at++ = digits[(value >> shift) & 15];
	return at;
}

static bool get_hex(const char **at, int count, uint32_t *ret_value)
{
	uint32_t value = 0;

	for (int i = 0; i < count; i++) {
		char c = **at;
		uint32_t digit;

		if (c >= '0' && c <= '9')
			digit = (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (uint32_t)(c - 'a') + 10;
		else
			return false;
		value = value << 4 | digit;
		(*at)++;
	}
	*ret_value = value;
	return true;
}

uint32_t name_dir_of(const struct cairn_key *key, uint32_t dirs_log2)
{
	uint32_t first = (uint32_t)key->bytes[0] << 4 | key->bytes[1] >> 4;

	return first & ((1u << dirs_log2) - 1);
}

void name_dir(uint32_t dir, char ret_name[NAME_DIR_LENGTH + 1])
{
	ret_name[0] = digits[(dir >> 8) & 15];
	ret_name[1] = digits[(dir >> 4) & 15];
	ret_name[2] = digits[dir & 15];
	ret_name[3] = '\0';
}

static char *put_block(const struct block_id *id, uint32_t dirs_log2, char *at)
{
	name_dir(name_dir_of(&id->key, dirs_log2), at);
	at += NAME_DIR_LENGTH;
	*at++ = '/';
	at = put_bytes(at, id->key.bytes, sizeof(id->key.bytes));
	*at++ = '-';
	at = put_u32(at, id->space);
	*at++ = '-';
	return put_u32(at, id->generation);
}

void name_block(const struct block_id *id, uint32_t dirs_log2, char ret_path[NAME_MAX_BYTES])
{
	*put_block(id, dirs_log2, ret_path) = '\0';
}

void name_temp(const struct block_id *id, uint32_t dirs_log2, uint32_t number,
	       char ret_path[NAME_MAX_BYTES])
{
	char *at = put_block(id, dirs_log2, ret_path);

	*at++ = '.';
	*at++ = 't';
	*put_u32(at, number) = '\0';
}

void name_temp_shared(const struct block_id *id, uint32_t dirs_log2, uint32_t writer,
		      uint32_t number, char ret_path[NAME_MAX_BYTES])
{
	char *at = put_block(id, dirs_log2, ret_path);

	*at++ = '.';
	*at++ = 't';
	at = put_u32(at, writer);
	*at++ = '-';
	*put_u32(at, number) = '\0';
}

void name_part(const struct block_id *id, uint32_t dirs_log2, char ret_path[NAME_MAX_BYTES])
{
	memcpy(put_block(id, dirs_log2, ret_path), ".part", sizeof(".part"));
}

void name_space(uint32_t space, char ret_name[NAME_SPACE_BYTES])
{
	*put_u32(ret_name, space) = '\0';
}

void name_generation(uint32_t space, uint32_t generation, char ret_name[NAME_SPACE_BYTES])
{
	char *at = put_u32(ret_name, space);

	*at++ = '.';
	*at++ = 'g';
	*put_u32(at, generation) = '\0';
}

enum name_kind name_parse_block(const char *name, struct block_id *ret_id)
{
	const char *at = name;
	uint32_t value;

	for (size_t i = 0; i < sizeof(ret_id->key.bytes); i++) {
		if (!get_hex(&at, 2, &value))
			return NAME_OTHER;
		ret_id->key.bytes[i] = (uint8_t)value;
	}
	if (*at++ != '-' || !get_hex(&at, 8, &ret_id->space))
		return NAME_OTHER;
	if (*at++ != '-' || !get_hex(&at, 8, &ret_id->generation))
		return NAME_OTHER;
	if (!*at)
		return NAME_BLOCK;
	if (strcmp(at, ".part") == 0)
		return NAME_PART;
	return at[0] == '.' && at[1] == 't' ? NAME_TEMP : NAME_OTHER;
}

enum name_kind name_parse_space(const char *name, uint32_t *ret_space, uint32_t *ret_generation)
{
	const char *at = name;

	*ret_generation = 0;
	if (!get_hex(&at, 8, ret_space))
		return NAME_OTHER;
	if (!*at)
		return NAME_SPACE;
	if (at[0] == '.' && at[1] == 't')
		return NAME_TEMP;
	if (*at++ != '.' || *at++ != 'g' || !get_hex(&at, 8, ret_generation) || *at)
		return NAME_OTHER;
	return NAME_GENERATION;
}

bool name_parse_dir(const char *name, uint32_t dirs_log2, uint32_t *ret_dir)
{
	const char *at = name;

	return get_hex(&at, NAME_DIR_LENGTH, ret_dir) && !*at && *ret_dir < 1u << dirs_log2;
}
