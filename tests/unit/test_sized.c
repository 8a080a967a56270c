/* SPDX-License-Identifier: Apache-2.0 */
/* Structs that begin with their size: one rule for all of them, through the public calls. */
#include "core_store.h"

#define TAIL 64u

static int try_store_opts(void *opts)
{
	struct cairn_store *store;
	int ret = cairn_store_open("null()", opts, &store, NULL);

	if (ret == 0)
		assert_int_equal(cairn_store_close(store, UINT64_MAX), 0);
	return ret;
}

static int count_stage(void *context, const struct cairn_stage_info *stage)
{
	(void)stage;
	++*(uint32_t *)context;
	return 0;
}

static int try_stages(void *opts)
{
	uint32_t count = 0;

	return cairn_stages(opts, count_stage, &count, NULL);
}

static int try_namespace_desc(void *desc)
{
	struct cairn_namespace *ns;
	int ret = cairn_namespace_open(f.store, desc, &ns, NULL);

	if (ret == 0)
		cairn_namespace_close(ns);
	return ret;
}

static int try_task_opts(void *opts)
{
	return cairn_dump(f.ns, NULL, 0, opts, NULL);
}

static int try_lookup_opts(void *opts)
{
	struct cairn_found found;

	return (int)cairn_lookup(f.ns, &f.keys[0], 1, &found, opts, NULL);
}

static int try_block_attr(void *attr)
{
	struct cairn_xfer xfer[1];
	int ret;

	fill(xfer, f.memory, 1, 1);
	xfer[0].attr = attr;
	ret = cairn_dump(f.ns, xfer, 1, NULL, NULL);
	return ret > 0 ? 0 : ret;
}

static int try_stat(void *st)
{
	return cairn_stat(f.store, st);
}

static const struct sized_case {
	const char *name;
	size_t known;
	int (*attempt)(void *bytes);
} cases[] = {
	{"cairn_store_opts", sizeof(struct cairn_store_opts), try_store_opts},
	{"cairn_store_opts, of cairn_stages()", sizeof(struct cairn_store_opts), try_stages},
	{"cairn_namespace_desc", sizeof(struct cairn_namespace_desc), try_namespace_desc},
	{"cairn_task_opts", sizeof(struct cairn_task_opts), try_task_opts},
	{"cairn_lookup_opts", sizeof(struct cairn_lookup_opts), try_lookup_opts},
	{"cairn_block_attr", sizeof(struct cairn_block_attr), try_block_attr},
};

static void want(const struct sized_case *c, size_t size, size_t dirty_at, int expected)
{
	uint64_t words[128] = {0};
	uint8_t *bytes = (uint8_t *)words;
	int ret;

	assert_true(c->known + TAIL <= sizeof(words));
	memcpy(bytes, &size, sizeof(size));
	if (dirty_at)
		bytes[dirty_at] = 1;
	ret = c->attempt(bytes);
	if (ret != expected)
		fail_msg("%s of %zu bytes, where %zu are known%s: %d, not %d", c->name, size,
			 c->known, dirty_at ? ", not all zero" : "", ret, expected);
}

static void one_rule_for_all(void **state)
{
	(void)state;
	open_store("null(size=4MiB)", NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct sized_case *c = &cases[i];

		want(c, 0, 0, -EINVAL);
		want(c, c->known - 1, 0, -EINVAL);
		want(c, c->known, 0, 0);
		want(c, c->known, c->known, 0); /* what lies behind it is another's */
		want(c, c->known + TAIL, 0, 0);
		want(c, c->known + TAIL, c->known, -EINVAL);
		want(c, c->known + TAIL, c->known + TAIL - 1, -EINVAL);
		want(c, SIZE_MAX, 0, -EINVAL);
	}
	close_store();
}

/* The text says what is wrong, and what would be right. */
static void what_is_said(void **state)
{
	struct cairn_store_opts opts = {.size = 3};
	struct cairn_namespace_desc desc = {.size = 3};
	char right[64];
	struct cairn_error error = {0};
	struct cairn_namespace *ns;
	struct cairn_store *store;

	(void)state;
	assert_int_equal(cairn_store_open("null()", &opts, &store, &error), -EINVAL);
	snprintf(right, sizeof(right), "size is 3; it must be %zu", sizeof(opts));
	assert_non_null(strstr(error.text, right));
	open_store("null(size=4MiB)", NULL);
	assert_int_equal(cairn_namespace_open(f.store, &desc, &ns, &error), -EINVAL);
	snprintf(right, sizeof(right), "size is 3; it must be %zu", sizeof(desc));
	assert_non_null(strstr(error.text, right));
	close_store();
}

/* What is filled in is filled as far as its size goes, and no further. */
static void stat_of_any_size(void **state)
{
	union {
		struct cairn_stat st;
		uint8_t bytes[sizeof(struct cairn_stat) + TAIL];
	} u;

	(void)state;
	open_store("null(size=4MiB)", NULL);
	for (size_t size = sizeof(size_t); size <= sizeof(u); size++) {
		memset(&u, 0x5a, sizeof(u));
		u.st.size = size;
		assert_int_equal(try_stat(&u), 0);
		assert_int_equal(u.st.size, size);
		for (size_t at = size; at < sizeof(u); at++)
			assert_int_equal(u.bytes[at], 0x5a);
		for (size_t at = sizeof(u.st); at < size; at++)
			assert_int_equal(u.bytes[at], 0);
	}
	u.st.size = sizeof(size_t) - 1;
	assert_int_equal(try_stat(&u), -EINVAL);
	close_store();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_rule_for_all),
		cmocka_unit_test(what_is_said),
		cmocka_unit_test(stat_of_any_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
