/* SPDX-License-Identifier: Apache-2.0 */
#include "test_host.h"

#include <errno.h>

#include "stages/fault/rules.h"
#include "stages/stages.h"

static struct fault_rule rules[FAULT_RULES_MAX];
static char why[240];

static int parse(const char *text)
{
	why[0] = '\0';
	return fault_rules_parse(text, rules, why, sizeof(why));
}

static void test_good_rules(void **state)
{
	(void)state;
	assert_int_equal(parse("load:EIO:0.2"), 1);
	assert_int_equal(rules[0].op, CAIRN_OP_LOAD);
	assert_int_equal(rules[0].error, -EIO);
	assert_true(rules[0].probability == 0.2 && rules[0].nth == 0);
	assert_int_equal(parse("dump:ENOSPC:#17,load:short:1, remove:hang:#1,describe:EAGAIN:0"),
			 4);
	assert_int_equal(rules[0].nth, 17);
	assert_int_equal(rules[1].outcome, FAULT_SHORT);
	assert_int_equal(rules[2].outcome, FAULT_HANG);
	assert_int_equal(rules[2].op, CAIRN_OP_REMOVE);
	assert_int_equal(rules[3].error, -EAGAIN);
}

static void test_bad_rules(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"", "character 1: \"\" is not an operation"},
		{"lod:EIO:1", "character 1: \"lod\" is not an operation; load, dump"},
		{"load", "character 5: here \":\" and an outcome are missing"},
		{"load:EIO", "character 9: here \":\" and a probability"},
		{"load:EWHAT:1", "character 6: \"EWHAT\" is not an outcome"},
		{"load:eio:1", "character 6: \"eio\""},
		{"dump:short:1", "character 6: \"short\" is not possible here"},
		{"load:EIO:2", "character 10: \"2\" is not a probability"},
		{"load:EIO:-0.1", "character 10:"},
		{"load:EIO:#0", "character 10: \"#0\""},
		{"load:EIO:#x", "character 10: \"#x\""},
		{"load:EIO:", "character 10: \"\""},
		{"load:EIO:nan", "character 10:"},
		{"load:EIO:0.5,", "character 14: \"\" is not an operation"},
		{"load:EIO:0.5:1", "character 13:"},
		{"load:EIO:1,dump:EIO", "character 20:"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text), -EINVAL);
		if (!strstr(why, cases[i].says))
			fail_msg("\"%s\" says: %s", cases[i].text, why);
		assert_null(strchr(why, '\n'));
	}
}

static void test_too_many_rules(void **state)
{
	static const char rule[] = "load:EIO:1,";
	const size_t bytes = sizeof(rule) - 1;
	char text[(FAULT_RULES_MAX + 1) * 11 + 1] = "";
	uint32_t i;

	(void)state;
	for (i = 0; i <= FAULT_RULES_MAX; i++)
		memcpy(text + i * bytes, rule, bytes);
	text[(FAULT_RULES_MAX + 1) * bytes - 1] = '\0'; /* no comma at the end */
	assert_int_equal(parse(text), -EINVAL);
	text[FAULT_RULES_MAX * bytes - 1] = '\0';
	assert_int_equal(parse(text), FAULT_RULES_MAX);
	text[FAULT_RULES_MAX * bytes - 1] = ',';
	assert_int_equal(parse(text), -EINVAL);
	assert_non_null(strstr(why, "more than 32"));
}

static void test_probability(void **state)
{
	struct fault_rule rule = {.op = CAIRN_OP_LOAD, .probability = 0.2};
	uint32_t hits = 0, same = 0, i;

	(void)state;
	for (i = 1; i <= 10000; i++) {
		int a = fault_rule_hits(&rule, 0, i, 3), b = fault_rule_hits(&rule, 0, i, 4);

		hits += (uint32_t)a;
		same += a == b;
		assert_int_equal(a, fault_rule_hits(&rule, 0, i, 3));
	}
	assert_in_range(hits, 1800, 2200);
	assert_in_range(same, 5000, 8000); /* independent: 0.68 of them */
	rule.probability = 0;
	for (i = 1; i < 1000; i++)
		assert_false(fault_rule_hits(&rule, 0, i, 3));
	rule.probability = 1;
	for (i = 1; i < 1000; i++)
		assert_true(fault_rule_hits(&rule, 0, i, 3));
}

/* ---- the stage over a null tier --------------------------------------------- */

static struct test_host *host;
static struct test_ns *ns;
static uint8_t data[4096], back[4096];

static void setup(const char *rule)
{
	char options[256];
	size_t i;

	snprintf(options, sizeof(options), "rule=%s;seed=3", rule);
	host = test_host_new();
	test_host_push(host, &cairn_stage_fault, options);
	test_host_push(host, &cairn_stage_null, NULL);
	test_host_open(host);
	ns = test_ns_new(host, "ns", 0, 0);
	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + 1);
}

static void teardown(void)
{
	test_ns_free(ns);
	test_host_free(host);
}

static int dump_shard(uint64_t number, uint32_t shard)
{
	return test_dump(ns, test_key(number), shard, 2, sizeof(data), data, sizeof(data));
}

static void test_nth_call(void **state)
{
	(void)state;
	setup("dump:ENOSPC:#2,load:EBADMSG:#1,remove:EIO:#1,prefetch:EAGAIN:#2");
	assert_int_equal(dump_shard(1, 0), 0);
	assert_int_equal(dump_shard(1, 1), -ENOSPC);
	assert_false(test_present(ns, test_key(1)));
	assert_int_equal(dump_shard(1, 1), 0);
	assert_int_equal(test_load(ns, test_key(1), 0, 0, back, 10), -EBADMSG);
	assert_int_equal(test_load(ns, test_key(1), 0, 0, back, 10), 0);
	assert_int_equal(test_plain(ns, CAIRN_OP_PREFETCH, test_key(1)), 0);
	assert_int_equal(test_plain(ns, CAIRN_OP_PREFETCH, test_key(1)), -EAGAIN);
	assert_int_equal(test_plain(ns, CAIRN_OP_REMOVE, test_key(1)), -EIO);
	assert_true(test_present(ns, test_key(1)));
	assert_int_equal(test_plain(ns, CAIRN_OP_REMOVE, test_key(1)), 0);
	assert_int_equal(host->levels[0].counters[0], 4);
	teardown();
}

static void test_a_part_fails_alone(void **state)
{
	struct test_io *tio;
	uint32_t i;

	(void)state;
	setup("load:EIO:#2");
	assert_int_equal(dump_shard(1, 0), 0);
	assert_int_equal(dump_shard(1, 1), 0);
	tio = test_io_new(host, CAIRN_OP_LOAD, ns, test_key(1));
	for (i = 0; i < 3; i++)
		test_io_part(tio, i % 2, i * 100, back + i * 100, 100);
	assert_int_equal(test_io_run(tio), -EIO);
	assert_int_equal(tio->parts[0].status, 0);
	assert_int_equal(tio->parts[1].status, -EIO);
	assert_int_equal(tio->parts[2].status, 0);
	assert_memory_equal(back, data, 100);
	assert_memory_equal(back + 200, data + 200, 100);
	test_io_free(tio);
	teardown();
}

static void test_short_load(void **state)
{
	struct test_io *tio;
	struct iovec iov[3];
	struct cairn_part *part;

	(void)state;
	setup("load:short:1");
	assert_int_equal(dump_shard(1, 0), 0);
	assert_int_equal(dump_shard(1, 1), 0);
	memset(back, 0, sizeof(back));
	assert_int_equal(test_load(ns, test_key(1), 0, 10, back, 1000), -EIO);
	assert_memory_equal(back, data + 10, 500);
	assert_int_equal(back[500], 0);
	assert_int_equal(test_load(ns, test_key(1), 0, 0, back, 1), -EIO);

	/* Several segments: whole ones, and the part comes back as it was. */
	memset(back, 0, sizeof(back));
	tio = test_io_new(host, CAIRN_OP_LOAD, ns, test_key(1));
	part = test_io_part(tio, 0, 0, back, 300);
	iov[0] = (struct iovec){back, 100};
	iov[1] = (struct iovec){back + 100, 50};
	iov[2] = (struct iovec){back + 150, 150};
	part->iov = iov;
	part->iov_count = 3;
	assert_int_equal(test_io_run(tio), -EIO);
	assert_memory_equal(back, data, 100);
	assert_int_equal(back[100], 0);
	assert_ptr_equal(part->iov, iov);
	assert_int_equal(part->iov_count, 3);
	assert_int_equal(part->length, 300);
	test_io_free(tio);
	/* What is absent stays absent. */
	assert_int_equal(test_load(ns, test_key(9), 0, 0, back, 100), -ENOENT);
	teardown();
}

static void test_hang_ends(void **state)
{
	struct test_io *tio;
	uint64_t start = test_now_ns();

	(void)state;
	setup("load:hang:#1,remove:hang:#1");
	assert_int_equal(dump_shard(1, 0), 0);
	assert_int_equal(dump_shard(1, 1), 0);
	tio = test_io_new(host, CAIRN_OP_LOAD, ns, test_key(1));
	tio->io.deadline_ns = start + 1000000;
	test_io_part(tio, 0, 0, back, 100);
	test_io_start(tio);
	assert_false(tio->completed);
	assert_int_equal(test_io_run(tio), -ETIMEDOUT);
	assert_true(tio->completed_ns > tio->io.deadline_ns);
	assert_int_equal(tio->forwards, 0);
	test_io_free(tio);
	/* Without a deadline it ends all the same. */
	assert_int_equal(test_plain(ns, CAIRN_OP_REMOVE, test_key(1)), -ETIMEDOUT);
	assert_true(test_present(ns, test_key(1)));
	teardown();
}

static void test_same_seed_same_faults(void **state)
{
	int first[200], i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		setup("load:EIO:0.3,load:ENOENT:0.3");
		for (i = 0; i < 200; i++) {
			int ret = test_load(ns, test_key(1), 0, 0, back, 1);

			if (round == 0)
				first[i] = ret;
			else
				assert_int_equal(ret, first[i]);
		}
		teardown();
	}
}

static void test_open_errors(void **state)
{
	struct cairn_error error = {0};

	(void)state;
	host = test_host_new();
	test_host_push(host, &cairn_stage_fault, "rule=load:EIO:7");
	test_host_push(host, &cairn_stage_null, NULL);
	assert_int_equal(test_host_try_open(host, &error), -EINVAL);
	assert_string_equal(error.text,
			    "fault: rule, character 10: \"7\" is not a probability from 0 to 1 or "
			    "the number of a call from 1; for example 0.2 or #17 would be");
	test_host_free(host);
	host = test_host_new();
	test_host_push(host, &cairn_stage_fault, "rule=load:EIO:1");
	assert_int_equal(test_host_try_open(host, &error), -EINVAL);
	assert_non_null(strstr(error.text, "no stage below"));
	test_host_free(host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_rules),
		cmocka_unit_test(test_bad_rules),
		cmocka_unit_test(test_too_many_rules),
		cmocka_unit_test(test_probability),
		cmocka_unit_test(test_nth_call),
		cmocka_unit_test(test_a_part_fails_alone),
		cmocka_unit_test(test_short_load),
		cmocka_unit_test(test_hang_ends),
		cmocka_unit_test(test_same_seed_same_faults),
		cmocka_unit_test(test_open_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
