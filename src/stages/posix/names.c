/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/posix/names.h"

#include <string.h>

static const char digits[] = "0123456789abcdef";

/* 8 digits. */
static char *put_u32(char *at, uint32_t value)
{
	for (int shift = 28; shift >= 0; shift -= 4)
		*at++ = digits[(value >> shift) & 15];
	return at;
}

/* As many digits as it has, at least one. */
static char *put_short(char *at, uint32_t value)
{
	int shift = 28;

	while (shift > 0 && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		*at++ = digits[(value >> shift) & 15];
	return at;
}

/* -1: none. */
static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_hex(const char **at, int count, uint32_t *ret_value)
{
	uint32_t value = 0;

	for (int i = 0; i < count; i++) {
		int digit = digit_of(**at);

		if (digit < 0)
			return false;
		value = value << 4 | (uint32_t)digit;
		(*at)++;
	}
	*ret_value = value;
	return true;
}

/* What put_short() wrote: up to 8 digits, the first one zero only where it is alone. */
static bool get_short(const char **at, uint32_t *ret_value)
{
	int count = 0;

	while (count < 9 && digit_of((*at)[count]) >= 0)
		count++;
	if (count == 0 || count == 9 || (count > 1 && **at == '0'))
		return false;
	return get_hex(at, count, ret_value);
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

/* A lookup under shared=yes is one of these and one system call a key. */
void name_block_rekey(const struct cairn_key *key, uint32_t dirs_log2, char path[NAME_MAX_BYTES])
{
	name_dir(name_dir_of(key, dirs_log2), path);
	path[NAME_DIR_LENGTH] = '/';
	base32_put_key(key->bytes, path + NAME_DIR_LENGTH + 1);
}

/* What follows the key. */
static char *put_tail(const struct block_id *id, char *at)
{
	*at++ = '-';
	at = put_short(at, id->space);
	*at++ = '-';
	return put_short(at, id->generation);
}

static char *put_block(const struct block_id *id, uint32_t dirs_log2, char *at)
{
	name_block_rekey(&id->key, dirs_log2, at);
	return put_tail(id, at + NAME_DIR_LENGTH + 1 + BASE32_KEY_LENGTH);
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

void name_aside(const struct block_id *id, uint32_t number, char ret_path[NAME_MAX_BYTES])
{
	static const char folder[] = "quarantine/";
	char *at = ret_path + sizeof(folder) - 1;

	memcpy(ret_path, folder, sizeof(folder) - 1);
	base32_put_key(id->key.bytes, at);
	at = put_tail(id, at + BASE32_KEY_LENGTH);
	*at++ = '.';
	*put_u32(at, number) = '\0';
}

void name_space(uint32_t space, char ret_name[NAME_SPACE_BYTES])
{
	*put_short(ret_name, space) = '\0';
}

void name_generation(uint32_t space, uint32_t generation, char ret_name[NAME_SPACE_BYTES])
{
	char *at = put_short(ret_name, space);

	*at++ = '.';
	*at++ = 'g';
	*put_short(at, generation) = '\0';
}

/* ".t<n>", and ".t<writer>-<n>" where @two */
static bool is_temp(const char *at, bool two)
{
	uint32_t value;

	if (*at++ != '.' || *at++ != 't' || !get_hex(&at, 8, &value))
		return false;
	if (two && *at == '-') {
		at++;
		if (!get_hex(&at, 8, &value))
			return false;
	}
	return !*at;
}

enum name_kind name_parse_block(const char *name, struct block_id *ret_id)
{
	const char *at = name;

	if (!base32_get_key(name, ret_id->key.bytes))
		return NAME_OTHER;
	at += BASE32_KEY_LENGTH;
	if (*at++ != '-' || !get_short(&at, &ret_id->space))
		return NAME_OTHER;
	if (*at++ != '-' || !get_short(&at, &ret_id->generation))
		return NAME_OTHER;
	if (!*at)
		return NAME_BLOCK;
	if (strcmp(at, ".part") == 0)
		return NAME_PART;
	return is_temp(at, true) ? NAME_TEMP : NAME_OTHER;
}

enum name_kind name_parse_space(const char *name, uint32_t *ret_space, uint32_t *ret_generation)
{
	const char *at = name;

	*ret_generation = 0;
	if (!get_short(&at, ret_space))
		return NAME_OTHER;
	if (!*at)
		return NAME_SPACE;
	if (is_temp(at, false))
		return NAME_TEMP;
	if (*at++ != '.' || *at++ != 'g' || !get_short(&at, ret_generation) || *at)
		return NAME_OTHER;
	return NAME_GENERATION;
}

bool name_parse_dir(const char *name, uint32_t dirs_log2, uint32_t *ret_dir)
{
	const char *at = name;

	return get_hex(&at, NAME_DIR_LENGTH, ret_dir) && !*at && *ret_dir < 1u << dirs_log2;
}
