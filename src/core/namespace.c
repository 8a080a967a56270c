/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/encode.h"
#include "core/namespace.h"

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

static int check_geometry(const struct cairn_namespace_desc *desc, struct cairn_error *reterr)
{
	if (desc->shard_count > CAIRN_SHARD_COUNT_MAX)
		return fail(reterr, -EINVAL, "namespace: shard_count is %u; at most %u",
			    desc->shard_count, CAIRN_SHARD_COUNT_MAX);
	if (desc->shard_bytes > CAIRN_SHARD_BYTES_MAX)
		return fail(reterr, -EINVAL, "namespace: shard_bytes is %llu; at most %u",
			    (unsigned long long)desc->shard_bytes, CAIRN_SHARD_BYTES_MAX);
	if ((desc->shard_count == 0) != (desc->shard_bytes == 0))
		return fail(reterr, -EINVAL,
			    "namespace: shard_count is %u and shard_bytes %llu; both are zero "
			    "for a variable geometry, or neither",
			    desc->shard_count, (unsigned long long)desc->shard_bytes);
	return 0;
}

int namespace_check(const struct cairn_namespace_desc *desc, struct cairn_error *reterr)
{
	struct text_field fields[TEXT_FIELDS];

	if (!desc || desc->size != sizeof(*desc))
		return fail(reterr, -EINVAL, "namespace: size is %zu; it must be %zu",
			    desc ? desc->size : 0, sizeof(*desc));
	text_fields(desc, fields);
	for (int i = 0; i < TEXT_FIELDS; i++)
		if (strnlen(fields[i].text, CAIRN_NAME_MAX + 1) > CAIRN_NAME_MAX)
			return fail(reterr, -EINVAL, "namespace: %s is longer than %u bytes",
				    fields[i].name, CAIRN_NAME_MAX);
	if (desc->salt_length > CAIRN_NAME_MAX || (desc->salt_length > 0 && !desc->salt))
		return fail(reterr, -EINVAL, "namespace: salt of %zu bytes; at most %u",
			    desc->salt_length, CAIRN_NAME_MAX);
	if (desc->rank >= (desc->world ? desc->world : 1))
		return fail(reterr, -EINVAL, "namespace: rank %u of a world of %u", desc->rank,
			    desc->world ? desc->world : 1);
	return check_geometry(desc, reterr);
}

static size_t put_bytes(uint8_t *at, const void *bytes, size_t length)
{
	encode_u64(at, length);
	if (length > 0)
		memcpy(at + 8, bytes, length);
	return 8 + length;
}

size_t namespace_encode(const struct cairn_namespace_desc *desc,
			uint8_t buffer[NAMESPACE_DESC_MAX])
{
	struct text_field fields[TEXT_FIELDS];
	size_t at = sizeof(NAMESPACE_DOMAIN);

	memcpy(buffer, NAMESPACE_DOMAIN, at);
	text_fields(desc, fields);
	for (int i = 0; i < TEXT_FIELDS; i++)
		at += put_bytes(buffer + at, fields[i].text, strlen(fields[i].text));
	at += put_bytes(buffer + at, desc->salt, desc->salt_length);
	encode_u32(buffer + at, desc->rank);
	encode_u32(buffer + at + 4, desc->world ? desc->world : 1);
	encode_u32(buffer + at + 8, desc->format_version);
	encode_u32(buffer + at + 12, desc->shard_count);
	encode_u64(buffer + at + 16, desc->shard_bytes);
	at += 24;
	assert(at <= NAMESPACE_DESC_MAX);
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
	uint64_t length = count ? decode_u64(count) : 0;
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

int namespace_decode(const void *encoded, size_t length, char *texts,
		     struct cairn_namespace_desc *ret_desc)
{
	struct reader reader = {encoded, length, false};
	const uint8_t *domain = take(&reader, sizeof(NAMESPACE_DOMAIN));
	const uint8_t *numbers;

	if (!domain || memcmp(domain, NAMESPACE_DOMAIN, sizeof(NAMESPACE_DOMAIN)) != 0)
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
	ret_desc->rank = decode_u32(numbers);
	ret_desc->world = decode_u32(numbers + 4);
	ret_desc->format_version = decode_u32(numbers + 8);
	ret_desc->shard_count = decode_u32(numbers + 12);
	ret_desc->shard_bytes = decode_u64(numbers + 16);
	return namespace_check(ret_desc, NULL) < 0 ? -EBADMSG : 0;
}

/* ---- handles --------------------------------------------------------------- */

static void namespace_free(struct cairn_namespace *ns)
{
	if (!ns)
		return;
	EVP_MD_CTX_free(ns->digest);
	ns->store->sys->free((void *)(uintptr_t)ns->view.desc);
	ns->store->sys->free(ns);
}

void namespaces_fini(struct cairn_store *store)
{
	while (store->namespaces) {
		struct cairn_namespace *ns = store->namespaces;

		store->namespaces = ns->next;
		namespace_free(ns);
	}
}

/* The digest of all that comes before a name's length. */
static int start_digest(struct cairn_namespace *ns)
{
	uint8_t length[8];
	EVP_MD_CTX *digest = EVP_MD_CTX_new();

	ns->digest = digest;
	encode_u64(length, ns->view.desc_length);
	if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1 ||
	    EVP_DigestUpdate(digest, NAMESPACE_KEY_DOMAIN, sizeof(NAMESPACE_KEY_DOMAIN)) != 1 ||
	    EVP_DigestUpdate(digest, length, sizeof(length)) != 1 ||
	    EVP_DigestUpdate(digest, ns->view.desc, ns->view.desc_length) != 1)
		return -ENOMEM;
	return 0;
}

static struct cairn_namespace *namespace_new(struct cairn_store *store,
					     const struct cairn_namespace_desc *desc)
{
	uint8_t encoded[NAMESPACE_DESC_MAX];
	size_t length = namespace_encode(desc, encoded);
	struct cairn_namespace *ns = sys_zalloc(store->sys, 64, sizeof(*ns));
	void *copy = sys_zalloc(store->sys, 16, length);

	if (!ns || !copy) {
		store->sys->free(ns);
		store->sys->free(copy);
		return NULL;
	}
	memcpy(copy, encoded, length);
	ns->store = store;
	ns->view.desc = copy;
	ns->view.desc_length = length;
	ns->view.shard_count = desc->shard_count;
	ns->view.shard_bytes = desc->shard_bytes;
	if (start_digest(ns) == 0)
		return ns;
	namespace_free(ns);
	return NULL;
}

static int bind_tiers(struct cairn_namespace *ns, struct cairn_error *reterr)
{
	struct cairn_store *store = ns->store;

	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		int ret;

		if (!level->ops->bind)
			continue;
		ret = level->ops->bind(level->self, &ns->view, &ns->view.binding[i], reterr);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static struct cairn_namespace *namespace_find(struct cairn_store *store,
					      const struct cairn_namespace *like)
{
	struct cairn_namespace *ns = store->namespaces;

	while (ns && (ns->view.desc_length != like->view.desc_length ||
		      memcmp(ns->view.desc, like->view.desc, like->view.desc_length) != 0))
		ns = ns->next;
	return ns;
}

int cairn_namespace_open(struct cairn_store *store, const struct cairn_namespace_desc *desc,
			 struct cairn_namespace **ret_ns, struct cairn_error *reterr)
{
	struct cairn_namespace *ns, *known;
	int ret = store_enter(store);

	if (ret < 0)
		return fail(reterr, ret, "namespace: the store is not open in this process");
	if (!ret_ns)
		return fail(reterr, -EINVAL, "namespace: nowhere to put the handle");
	ret = namespace_check(desc, reterr);
	if (ret < 0)
		return ret;
	ns = namespace_new(store, desc);
	if (!ns)
		return fail(reterr, -ENOMEM, "namespace: no memory");
	pthread_mutex_lock(&store->bind_lock);
	pthread_mutex_lock(&store->lock);
	known = namespace_find(store, ns);
	if (known)
		known->handles++;
	ret = store->closing ? -ECANCELED : 0;
	pthread_mutex_unlock(&store->lock);
	if (!known && ret == 0) {
		ret = bind_tiers(ns, reterr);
		if (ret == 0) {
			pthread_mutex_lock(&store->lock);
			ns->handles = 1;
			ns->next = store->namespaces;
			store->namespaces = ns;
			known = ns;
			pthread_mutex_unlock(&store->lock);
		}
	} else if (ret < 0) {
		fail(reterr, ret, "namespace: the store is closing");
	}
	pthread_mutex_unlock(&store->bind_lock);
	if (known != ns)
		namespace_free(ns);
	*ret_ns = ret == 0 ? known : NULL;
	return ret;
}

void cairn_namespace_close(struct cairn_namespace *ns)
{
	if (!ns || store_enter(ns->store) < 0)
		return;
	/* The binding stays for the next one to open it; closing the store frees it. */
	pthread_mutex_lock(&ns->store->lock);
	assert(ns->handles > 0);
	ns->handles--;
	pthread_mutex_unlock(&ns->store->lock);
}

int cairn_key_derive(const struct cairn_namespace *ns, const void *name, size_t length,
		     struct cairn_key *ret_key)
{
	uint8_t count[8], hash[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *digest;
	int ret = -ENOMEM;

	if (!ns || !name || length == 0 || !ret_key)
		return -EINVAL;
	digest = EVP_MD_CTX_new();
	encode_u64(count, length);
	if (digest && EVP_MD_CTX_copy_ex(digest, ns->digest) == 1 &&
	    EVP_DigestUpdate(digest, count, sizeof(count)) == 1 &&
	    EVP_DigestUpdate(digest, name, length) == 1 &&
	    EVP_DigestFinal_ex(digest, hash, NULL) == 1) {
		memcpy(ret_key->bytes, hash, CAIRN_KEY_BYTES);
		ret = 0;
	}
	EVP_MD_CTX_free(digest);
	return ret;
}

int cairn_clear(struct cairn_namespace *ns, uint32_t durability)
{
	struct cairn_store *store;
	int ret;

	if (!ns || durability > CAIRN_DURABLE)
		return -EINVAL;
	store = ns->store;
	ret = store_enter(store);
	if (ret < 0)
		return ret;
	if (durability != CAIRN_MEMORY && !store->persists)
		return -EOPNOTSUPP;
	for (uint32_t i = 0; i < store->level_count; i++) {
		struct level *level = &store->levels[i];
		int failed = level->ops->clear ? level->ops->clear(level->self, &ns->view, durability)
					       : 0;

		/* The tiers below are cleared all the same. */
		if (failed < 0 && ret == 0)
			ret = failed;
	}
	return ret;
}
