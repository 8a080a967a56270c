/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of the tier's files. Pure, any thread.
 *
 *	b/<dir>/<key>-<id>-<generation>			a whole block
 *	b/<dir>/<key>-<id>-<generation>.t<n>		being written by one process
 *	b/<dir>/<key>-<id>-<generation>.t<writer>-<n>	the same, shared=yes
 *	b/<dir>/<key>-<id>-<generation>.part		being written by many
 *	quarantine/<key>-<id>-<generation>.<n>		did not check
 *	ns/<id>, ns/<id>.g<generation>, ns/<id>.t<writer>
 *
 * <dir>: 3 hex digits, the key's first 12 bits modulo the number of
 * directories; <key>: 26 digits of base 32 (base/base32.h); ids and generations:
 * hex without leading zeros; <n> and <writer>: 8 hex digits. All lower case, so
 * that a file system that ignores case tells them apart. Every name is written
 * in one way only, and others are not taken for it.
 */
#ifndef POSIX_NAMES_H
#define POSIX_NAMES_H

#include "base/base32.h"
#include "stages/posix/format.h"

#define NAME_DIR_LENGTH	 3
#define NAME_BLOCK_MAX	 (BASE32_KEY_LENGTH + 1 + 8 + 1 + 8)
#define NAME_SUFFIX_MAX	 32
/* "<dir>/<block><suffix>" and a NUL */
#define NAME_MAX_BYTES	 (NAME_DIR_LENGTH + 1 + NAME_BLOCK_MAX + NAME_SUFFIX_MAX)
#define NAME_SPACE_BYTES 24

uint32_t name_dir_of(const struct cairn_key *key, uint32_t dirs_log2);
void name_dir(uint32_t dir, char ret_name[NAME_DIR_LENGTH + 1]);

/* The path of a block below b/. */
void name_block(const struct block_id *id, uint32_t dirs_log2, char ret_path[NAME_MAX_BYTES]);
/* Makes @path, which name_block() wrote, that of another block of the same generation. */
void name_block_rekey(const struct cairn_key *key, uint32_t dirs_log2, char path[NAME_MAX_BYTES]);
void name_temp(const struct block_id *id, uint32_t dirs_log2, uint32_t number,
	       char ret_path[NAME_MAX_BYTES]);
void name_temp_shared(const struct block_id *id, uint32_t dirs_log2, uint32_t writer,
		      uint32_t number, char ret_path[NAME_MAX_BYTES]);
void name_part(const struct block_id *id, uint32_t dirs_log2, char ret_path[NAME_MAX_BYTES]);

/* A block that is set aside; below the tier's own directory. */
void name_aside(const struct block_id *id, uint32_t number, char ret_path[NAME_MAX_BYTES]);

void name_space(uint32_t space, char ret_name[NAME_SPACE_BYTES]);
void name_generation(uint32_t space, uint32_t generation, char ret_name[NAME_SPACE_BYTES]);

enum name_kind { NAME_OTHER = 0, NAME_BLOCK, NAME_TEMP, NAME_PART, NAME_SPACE, NAME_GENERATION };

/* Of a file in a block directory. @ret_id is set unless NAME_OTHER. */
enum name_kind name_parse_block(const char *name, struct block_id *ret_id);
/* Of a file in ns/. */
enum name_kind name_parse_space(const char *name, uint32_t *ret_space, uint32_t *ret_generation);
/* Three lower-case hex digits below 1 << @dirs_log2. */
bool name_parse_dir(const char *name, uint32_t dirs_log2, uint32_t *ret_dir);

#endif
