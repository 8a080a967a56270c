/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/encode.h"
#include "base/nsdesc.h"
#include "core/namespace.h"

static int namespace_check(const struct cairn_namespace_desc *desc, struct cairn_error *reterr)
{
	char why[NSDESC_WHY_MAX];

	if (nsdesc_check(desc, why))
		return 0;
	return fail(reterr, -EINVAL, "namespace: %s", why);
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
	put_u64(length, ns->view.desc_length);
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
	uint8_t encoded[NSDESC_MAX];
	size_t length = nsdesc_encode(desc, encoded);
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
	ret = store->closing ? -ECANCELED : 0;
	known = ret == 0 ? namespace_find(store, ns) : NULL;
	if (known)
		known->handles++;
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
	if (known == ns && store->back)
		store->back->opened(store->levels[0].self);
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
	if (ns->handles > 0) /* else once too often, which harms nobody */
		ns->handles--;
	pthread_mutex_unlock(&ns->store->lock);
}

int cairn_key_derive(const struct cairn_namespace *ns, const void *name, size_t length,
		     struct cairn_key *ret_key)
{
	uint8_t count[8], hash[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *digest;
	int ret;

	if (!ns || !name || length == 0 || !ret_key)
		return -EINVAL;
	ret = store_enter(ns->store);
	if (ret < 0)
		return ret;
	ret = -ENOMEM;
	digest = EVP_MD_CTX_new();
	put_u64(count, length);
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

static int clear_level(struct cairn_namespace *ns, uint32_t level, uint32_t durability)
{
	const struct level *at = &ns->store->levels[level];

	return at->ops->clear ? at->ops->clear(at->self, &ns->view, durability) : 0;
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
	/*
	 * What is held back, by this store or by another process, must not go to a tier that is
	 * cleared already.
	 */
	for (uint32_t i = 0; i + 1 < store->level_count && ret == 0; i++)
		ret = clear_level(ns, i, durability);
	/*
	 * From the bottom up: what a tier brings up meanwhile from one that is not cleared yet
	 * is cleared with that tier.
	 */
	for (uint32_t i = store->level_count; i-- > 0;) {
		int failed = clear_level(ns, i, durability);

		/* The others are cleared all the same. */
		if (failed < 0 && ret == 0)
			ret = failed;
	}
	return ret;
}
