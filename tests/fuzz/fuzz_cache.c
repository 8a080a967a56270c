/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken words in a cache's region under those who use it. Each 6 bytes say which part of
 * the region, where in it, and what to do with a byte there; then all calls are made. They
 * may fail, or miss: nothing is read or written outside of the region.
 */
#include <errno.h>
#include <stdint.h>

#include "broken.h"
#include "cache_region.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE	  (8u << 20)
#define ENTRIES	  256u
#define KEYS	  72u
#define STEPS_MAX 256u

static void call_all(struct shelf_client *client, struct shelf_client *other)
{
	struct shelf_pin pin;

	for (uint32_t i = 0; i < KEYS; i++) {
		if (shelf_pin(client, i, &pin))
			shelf_unpin(client, &pin);
		if (i % 8 == 0)
			shelf_tell(client, i, i + 1);
		if (i % 9 == 0)
			shelf_remove(client, i);
	}
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(client, i + KEYS / 2);
	for (uint32_t i = 0; i < 5; i++)
		shelf_evict(client, i);
	/* The other one dies with what it had. */
	shelf_die(other);
	REQUIRE(shelf_recover(client, 1));
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(client, i);
	shelf_leave(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shelf_client client, other;
	struct shelf shelf;

	REQUIRE(shelf_new(&shelf, SIZE, ENTRIES, KEYS));
	REQUIRE(shelf_join(&client, &shelf, 0, 1) && shelf_join(&other, &shelf, 1, 2));
	for (uint32_t i = 0; i < KEYS; i++)
		shelf_dump(i % 2 ? &client : &other, i);
	for (uint32_t i = 0; i < 40; i++)
		shelf_step(&other);
	for (size_t i = 0; i + BROKEN_BYTES <= size && i < STEPS_MAX * BROKEN_BYTES;
	     i += BROKEN_BYTES)
		break_one(&client.map, data + i);
	call_all(&client, &other);
	shelf_die(&client);
	shelf_free(&shelf);
	return 0;
}
