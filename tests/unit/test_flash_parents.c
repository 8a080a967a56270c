/* SPDX-License-Identifier: Apache-2.0 */
/* Depths of the flash tier's index, and parents that are none: not shallower, or in a circle. */
#include <sys/mman.h>

#include "posix_store.h"
#include "stages/flash/table.h"

#define SHARD	8192u
#define MANY	4000u /* blocks: more than the log holds, four times over */
#define ENTRIES 64u

/* ---- the index ----------------------------------------------------------------------- */

static struct table *table;

static void table_make(void **state)
{
	static const uint64_t seed[2] = {17, 4};
	void *memory = mmap(NULL, table_bytes(ENTRIES, 0), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_true(memory != MAP_FAILED);
	table_init(memory, ENTRIES, 0, seed, &table);
}

static void table_drop(void)
{
	char why[200] = "";

	if (!table_check(table, why, sizeof(why)))
		fail_msg("%s", why);
	munmap(table, table_bytes(ENTRIES, 0));
}

static uint32_t add(uint64_t fingerprint, uint32_t depth)
{
	struct table_geometry geometry = {1, 4096, 4096};
	struct table_place place = {.unit = (uint32_t)fingerprint, .length = 1};
	uint32_t id;
	bool made;

	assert_int_equal(table_add(table, fingerprint, &geometry, 1, &made, &id), TABLE_OK);
	assert_true(made);
	table_set_depth(table, id, depth);
	table_place(table, id, 0, &place);
	table_publish(table, id);
	return id;
}

static bool orphan(uint32_t id)
{
	struct table_block block;

	table_look(table, id, &block);
	return block.orphan;
}

static void known_parents(void **state)
{
	uint32_t parent, id;

	table_make(state);
	parent = add(1, 5);
	id = add(2, 5);
	assert_false(table_may_continue(table, id, 1));
	assert_false(table_may_continue(table, id, 2)); /* itself */
	assert_true(table_may_continue(table, id, 3));	/* not there */
	assert_true(table_set_parent(table, id, 1));
	assert_true(table_set_parent(table, id, 2));
	assert_int_equal(table_parent(table, id), TABLE_NONE);
	table_set_depth(table, id, 9); /* the first one told stays */
	assert_true(table_set_parent(table, id, 1));
	assert_int_equal(table_parent(table, id), TABLE_NONE);
	id = add(3, 6);
	assert_true(table_set_parent(table, id, 1));
	assert_int_equal(table_parent(table, id), parent);
	id = add(4, 0); /* not told: whatever it names */
	assert_true(table_set_parent(table, id, 1));
	assert_int_equal(table_parent(table, id), parent);
	table_drop();
}

/* One that comes later, and is deeper; and goes again. */
static void later_parents(void **state)
{
	uint32_t parent, deep, child;

	table_make(state);
	child = add(1, 5);
	assert_true(table_set_parent(table, child, 2));
	assert_true(orphan(child)); /* for all that is known */
	parent = add(2, 5);
	assert_int_equal(table_parent(table, child), TABLE_NONE);
	assert_false(orphan(child));
	table_remove(table, parent);
	assert_false(orphan(child));
	parent = add(2, 4); /* another block of that name */
	assert_int_equal(table_parent(table, child), parent);
	table_remove(table, parent);
	assert_true(orphan(child));
	/* Beyond what is told apart only what is known to be shallower is. */
	deep = add(3, TABLE_DEPTH_MAX + 1000);
	child = add(4, TABLE_DEPTH_MAX);
	assert_true(table_set_parent(table, child, 3));
	assert_int_equal(table_parent(table, child), deep);
	child = add(5, TABLE_DEPTH_MAX - 1);
	assert_false(table_may_continue(table, child, 3));
	table_drop();
}

/* ---- the stage ------------------------------------------------------------------------- */

static struct fixture store;

static void open_flash(void)
{
	struct cairn_error error = {0};

	snprintf(store.spec, sizeof(store.spec), "flash(path=%s/kv, size=8MiB, region=512KiB)",
		 store.path);
	if (cairn_store_open(store.spec, NULL, &store.store, &error) < 0)
		fail_msg("%s: %s", store.spec, error.text);
	fixture_space(&store, "model", 1, SHARD);
}

static void end_store(void)
{
	fixture_close(&store);
	fixture_free(&store);
}

/* A parent of UINT32_MAX: none. */
static void dump(uint32_t number, uint32_t parent, uint32_t depth)
{
	struct cairn_block_attr attr = {.size = sizeof(attr), .depth = depth};
	struct cairn_key key = key_of(&store, number);
	uint8_t data[SHARD];
	struct cairn_xfer xfer = xfer_of(&key, 0, 0, data, SHARD);

	if (parent != UINT32_MAX)
		attr.parent = key_of(&store, parent);
	xfer.attr = &attr;
	content(&key, 0, data, SHARD);
	assert_int_equal(cairn_dump(store.ns, &xfer, 1, NULL, NULL), 0);
}

static void remove_one(uint32_t number)
{
	struct cairn_key key = key_of(&store, number);

	assert_int_equal(cairn_remove(store.ns, &key, 1, NULL, NULL, NULL), 0);
}

/* Dumps others; block @used is used all the while, while it is there. */
static void press(uint32_t used)
{
	for (uint32_t i = 0; i < MANY; i++) {
		dump(1000 + i, UINT32_MAX, 0);
		if (i % 20 == 0)
			load_one(&store, used, 0, SHARD);
	}
	assert_true(counter(&store, "carried_bytes") > 0 || !present(&store, used));
}

/* Of a hot block at depth 3: whether it outlives its parent, without which no chain reaches it. */
static bool outlives(uint32_t depth_of_parent, bool parent_first, bool again)
{
	bool stays;

	fixture_new(&store);
	open_flash();
	if (parent_first)
		dump(1, UINT32_MAX, depth_of_parent);
	dump(2, 1, 3);
	if (!parent_first)
		dump(1, UINT32_MAX, depth_of_parent);
	if (again) {
		fixture_close(&store);
		open_flash();
	}
	remove_one(1);
	press(2);
	stays = present(&store, 2);
	end_store();
	return stays;
}

static void not_shallower(void **state)
{
	(void)state;
	for (uint32_t first = 0; first <= 1; first++) {
		assert_false(outlives(2, first, false));
		assert_true(outlives(3, first, false));
		assert_true(outlives(7, first, false));
	}
	assert_false(outlives(2, true, true));
	assert_true(outlives(3, true, true));
}

/* A block that names itself, and two that name each other: they go like any other. */
static void circles_go(void **state)
{
	(void)state;
	for (uint32_t depth = 0; depth <= 5; depth += 5) {
		for (uint32_t again = 0; again <= 1; again++) {
			fixture_new(&store);
			open_flash();
			dump(1, 1, depth);
			dump(2, 3, depth);
			dump(3, 2, depth ? depth + 1 : 0);
			for (uint32_t i = 1; i <= 3; i++)
				assert_int_equal(load_one(&store, i, 0, SHARD), 0);
			if (again) {
				fixture_close(&store);
				open_flash();
			}
			press(UINT32_MAX - 1);
			for (uint32_t i = 1; i <= 3; i++)
				assert_false(present(&store, i));
			end_store();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_parents),
		cmocka_unit_test(later_parents),
		cmocka_unit_test(not_shallower),
		cmocka_unit_test(circles_go),
	};

	return cmocka_run_group_tests_name("flash_parents", tests, NULL, NULL);
}
