/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and namespaces: two descriptions that differ anywhere never meet. */
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "conformance.h"

/* ---- the derivation, written again from its description ---------------------------- */

struct encoder {
	uint8_t bytes[16384];
	size_t length;
};

static void put(struct encoder *encoder, const void *bytes, size_t length)
{
	if (length > 0)
		memcpy(encoder->bytes + encoder->length, bytes, length);
	encoder->length += length;
}

static void put_le(struct encoder *encoder, uint64_t number, unsigned bytes)
{
	uint8_t byte;

	for (; bytes > 0; bytes--, number >>= 8) {
		byte = (uint8_t)number;
		put(encoder, &byte, 1);
	}
}

static void put_counted(struct encoder *encoder, const void *bytes, size_t length)
{
	put_le(encoder, length, 8);
	put(encoder, bytes, length);
}

static void put_text(struct encoder *encoder, const char *text)
{
	put_counted(encoder, text ? text : "", text ? strlen(text) : 0);
}

static void encode_desc(const struct cairn_namespace_desc *desc, struct encoder *encoder)
{
	encoder->length = 0;
	put(encoder, "cairn ns 1", 11);
	put_text(encoder, desc->model);
	put_text(encoder, desc->revision);
	put_text(encoder, desc->dtype);
	put_text(encoder, desc->layout);
	put_text(encoder, desc->parallel);
	put_text(encoder, desc->tenant);
	put_counted(encoder, desc->salt, desc->salt_length);
	put_le(encoder, desc->rank, 4);
	put_le(encoder, desc->world ? desc->world : 1, 4);
	put_le(encoder, desc->format_version, 4);
	put_le(encoder, desc->shard_count, 4);
	put_le(encoder, desc->shard_bytes, 8);
}

static bool derive(const struct cairn_namespace_desc *desc, const void *name, size_t length,
		   struct cairn_key *ret_key)
{
	static struct encoder d, all;
	uint8_t digest[EVP_MAX_MD_SIZE];

	encode_desc(desc, &d);
	all.length = 0;
	put(&all, "cairn key 1", 12);
	put_counted(&all, d.bytes, d.length);
	put_counted(&all, name, length);
	if (EVP_Digest(all.bytes, all.length, digest, NULL, EVP_sha256(), NULL) != 1)
		return false;
	memcpy(ret_key->bytes, digest, sizeof(ret_key->bytes));
	return true;
}

static enum verdict derive_and_compare(struct ctx *ctx, const struct cairn_namespace_desc *desc)
{
	static const size_t lengths[] = {1, 8, 16, 31, 64, 1000};
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_key key, wanted;
	uint8_t name[1000];
	size_t i;

	for (i = 0; i < sizeof(name); i++)
		name[i] = (uint8_t)(i * 7 + 3);
	WANT(ctx, cairn_namespace_open(ctx->store, desc, &ns, &error) == 0, "%.200s", error.text);
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		WANT_IS(ctx, cairn_key_derive(ns, name, lengths[i], &key), 0);
		WANT(ctx, derive(desc, name, lengths[i], &wanted), "no SHA-256");
		WANT(ctx, memcmp(&key, &wanted, sizeof(key)) == 0,
		     "the key of a name of %zu bytes is not that of its description", lengths[i]);
	}
	WANT_IS(ctx, cairn_key_derive(ns, name, 0, &key), -EINVAL);
	WANT_IS(ctx, cairn_key_derive(ns, NULL, 5, &key), -EINVAL);
	WANT_IS(ctx, cairn_key_derive(ns, name, 5, NULL), -EINVAL);
	cairn_namespace_close(ns);
	return CASE_PASSED;
}

static enum verdict key_derivation(struct ctx *ctx)
{
	static const uint8_t salt[5] = {0, 1, 0xff, 0, 9};
	struct cairn_namespace_desc desc = ctx_desc(ctx, "a", 0, 0);
	enum verdict verdict = derive_and_compare(ctx, &desc);

	if (verdict != CASE_PASSED)
		return verdict;
	desc.revision = "main";
	desc.layout = "NHD 16";
	desc.parallel = "tp=4,pp=2";
	desc.salt = salt;
	desc.salt_length = sizeof(salt);
	desc.rank = 3;
	desc.world = 8;
	desc.format_version = 0x01020304;
	desc.shard_count = 1024;
	desc.shard_bytes = CAIRN_SHARD_BYTES_MAX;
	return derive_and_compare(ctx, &desc);
}

/* ---- namespaces ------------------------------------------------------------------- */

static enum verdict namespace_counted(struct ctx *ctx)
{
	struct cairn_namespace_desc desc = ctx_desc(ctx, "variable", 0, 0);
	struct shape shape = {1, 100, 100};
	struct block block = block_variable(ctx, 1, shape);
	struct cairn_namespace *again;
	struct cairn_error error = {0};

	/* Nothing but the texts counts, not where they lie; world 0 is world 1. */
	desc.revision = "";
	desc.world = 1;
	WANT(ctx, cairn_namespace_open(ctx->store, &desc, &again, &error) == 0, "%.200s",
	     error.text);
	WANT(ctx, again == ctx->variable, "the same description gave another handle");
	cairn_namespace_close(again);
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	cairn_namespace_close(NULL);
	return CASE_PASSED;
}

/* Description @n of those that differ from the first in one field each; false: no more. */
static bool differing(unsigned n, struct cairn_namespace_desc *desc)
{
	switch (n) {
	case 0:
		return true;
	case 1:
		desc->model = "conformancE";
		return true;
	case 2:
		desc->revision = "r";
		return true;
	case 3:
		desc->dtype = "u8 ";
		return true;
	case 4:
		desc->layout = "l";
		return true;
	case 5:
		desc->parallel = "p";
		return true;
	case 6:
		desc->tenant = "somebody else, of conformance";
		return true;
	case 7:
		desc->salt = "";
		desc->salt_length = 1;
		return true;
	case 8:
		desc->rank = 1;
		desc->world = 2;
		return true;
	case 9:
		desc->world = 2;
		return true;
	case 10:
		desc->format_version = 1;
		return true;
	case 11:
		desc->shard_count = 0;
		desc->shard_bytes = 0;
		return true;
	case 12:
		desc->shard_count = 5;
		return true;
	case 13:
		desc->shard_bytes = 999;
		return true;
	case 14: /* the same letters, in other fields */
		desc->model = "conf";
		desc->revision = "ormance";
		return true;
	default:
		return false;
	}
}

#define DIFFERING_MAX 16

static enum verdict namespace_isolation(struct ctx *ctx)
{
	struct cairn_namespace *spaces[DIFFERING_MAX];
	struct cairn_key keys[DIFFERING_MAX];
	struct cairn_namespace_desc desc;
	struct cairn_error error = {0};
	struct cairn_found found;
	struct block block;
	unsigned n, i;

	for (n = 0; n < DIFFERING_MAX; n++) {
		desc = ctx_desc(ctx, "isolated", 4, 1000);
		if (!differing(n, &desc))
			break;
		WANT(ctx, cairn_namespace_open(ctx->store, &desc, &spaces[n], &error) == 0,
		     "%.200s", error.text);
		WANT_IS(ctx, cairn_key_derive(spaces[n], "name", 4, &keys[n]), 0);
		for (i = 0; i < n; i++) {
			WANT(ctx, spaces[i] != spaces[n], "descriptions %u and %u meet", i, n);
			WANT(ctx, memcmp(&keys[i], &keys[n], sizeof(keys[n])) != 0,
			     "keys of descriptions %u and %u meet", i, n);
		}
	}
	/* The very same key: what is in the first is in no other. */
	block = (struct block){.ns = spaces[0], .key = keys[0], .shape = {4, 1000, 1000}};
	WANT_IS(ctx, block_dump(ctx, &block), 0);
	for (i = 1; i < n; i++) {
		WANT(ctx, cairn_lookup(spaces[i], keys, 1, &found, NULL, NULL) == 0,
		     "description %u sees a block of another", i);
		block.ns = spaces[i];
		WANT(ctx, block_try_range(ctx, &block, 0, 0, 999) < 0,
		     "description %u loads a block of another", i);
		block_remove(ctx, &block); /* nor does it remove it */
	}
	block.ns = spaces[0];
	WANT_IS(ctx, block_load(ctx, &block), 0);
	WANT_IS(ctx, cairn_clear(spaces[1], CAIRN_MEMORY), 0);
	WANT_IS(ctx, block_load(ctx, &block), 0);
	cairn_clear(spaces[0], CAIRN_MEMORY);
	for (i = 0; i < n; i++)
		cairn_namespace_close(spaces[i]);
	return CASE_PASSED;
}

static enum verdict refused(struct ctx *ctx, const struct cairn_namespace_desc *desc, int line)
{
	struct cairn_namespace *ns = NULL;
	struct cairn_error error = {0};
	int ret = cairn_namespace_open(ctx->store, desc, &ns, &error);

	if (ret != -EINVAL)
		return ctx_fail(ctx, __FILE__, line, "a wrong description gave %s",
				status_text(ret));
	if (error.text[0] == '\0' || strchr(error.text, '\n'))
		return ctx_fail(ctx, __FILE__, line,
				"a wrong description is refused without a line");
	return cairn_namespace_open(ctx->store, desc, &ns, NULL) == -EINVAL ? CASE_PASSED
									    : CASE_FAILED;
}

#define REFUSED(ctx, desc)                                                                         \
	do {                                                                                       \
		enum verdict verdict_ = refused(ctx, desc, __LINE__);                              \
		if (verdict_ != CASE_PASSED)                                                       \
			return verdict_;                                                           \
	} while (0)

static enum verdict namespace_arguments(struct ctx *ctx)
{
	const struct cairn_namespace_desc good = ctx_desc(ctx, "arguments", 4, 1000);
	struct cairn_namespace_desc desc;
	char *text = ctx_alloc(ctx, CAIRN_NAME_MAX + 2);
	struct cairn_namespace *ns;

	memset(text, 'x', CAIRN_NAME_MAX + 1);
	desc = good;
	desc.size = 0;
	REFUSED(ctx, &desc);
	desc = good;
	desc.shard_count = CAIRN_SHARD_COUNT_MAX + 1;
	REFUSED(ctx, &desc);
	desc = good;
	desc.shard_bytes = (uint64_t)CAIRN_SHARD_BYTES_MAX + 1;
	REFUSED(ctx, &desc);
	desc = good;
	desc.shard_bytes = 0;
	REFUSED(ctx, &desc);
	desc = good;
	desc.shard_count = 0;
	REFUSED(ctx, &desc);
	desc = good;
	desc.model = text;
	REFUSED(ctx, &desc);
	desc = good;
	desc.salt = text;
	desc.salt_length = CAIRN_NAME_MAX + 1;
	REFUSED(ctx, &desc);
	desc = good;
	desc.salt_length = 1; /* of nothing */
	REFUSED(ctx, &desc);
	WANT_IS(ctx, cairn_namespace_open(ctx->store, NULL, &ns, NULL), -EINVAL);
	WANT_IS(ctx, cairn_namespace_open(ctx->store, &good, NULL, NULL), -EINVAL);
	WANT_IS(ctx, cairn_namespace_open(NULL, &good, &ns, NULL), -EINVAL);
	/* As long as may be. */
	text[CAIRN_NAME_MAX] = '\0';
	desc = good;
	desc.layout = text;
	desc.salt = text;
	desc.salt_length = CAIRN_NAME_MAX;
	WANT_IS(ctx, cairn_namespace_open(ctx->store, &desc, &ns, NULL), 0);
	cairn_namespace_close(ns);
	return CASE_PASSED;
}

static const struct test_case cases[] = {
	{"key_derivation", "keys are the SHA-256 that store.h describes", key_derivation, 0, 0},
	{"namespace_counted", "the same description gives the same handle", namespace_counted,
	 CASE_TOLERANT, 0},
	{"namespace_isolation", "a difference in any field keeps blocks apart", namespace_isolation,
	 0, 0},
	{"namespace_arguments", "wrong descriptions are refused with a line", namespace_arguments,
	 0, 0},
};

const struct case_list cases_keys = {cases, sizeof(cases) / sizeof(cases[0])};
