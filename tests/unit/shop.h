/* SPDX-License-Identifier: Apache-2.0 */
/* A store with one namespace, and its blocks. */
#ifndef TESTS_UNIT_SHOP_H
#define TESTS_UNIT_SHOP_H

#include <string.h>

#include <cairn/store.h>

#include "random.h"

#define BYTES  20000u
#define SHARDS 3u

struct shop {
	struct cairn_store *store;
	struct cairn_namespace *ns;
};

static void shop_close(struct shop *shop)
{
	assert_int_equal(cairn_store_close(shop->store, 0), 0);
}

static struct cairn_key key_of(const struct shop *shop, uint32_t number)
{
	struct cairn_key key;

	assert_int_equal(cairn_key_derive(shop->ns, &number, sizeof(number), &key), 0);
	return key;
}

/* A function of the key and the shard, so that any wrong byte is seen. */
static void content_of(const struct cairn_key *key, uint32_t shard, uint8_t *ret_bytes,
		       uint64_t length)
{
	struct random random;

	memcpy(&random.state, key->bytes, sizeof(random.state));
	random.state += shard;
	for (uint64_t i = 0; i < length; i++)
		ret_bytes[i] = (uint8_t)random_next(&random);
}

static inline void content(const struct cairn_key *key, uint32_t shard, uint8_t *ret_bytes)
{
	content_of(key, shard, ret_bytes, BYTES);
}

#endif
